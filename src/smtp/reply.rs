//! Every reply this server gives, by name, and replies of other servers, parsed.
//!
//! In: what the session decided. Out: the octets of a reply (RFC 5321 section
//! 4.2), with an enhanced status code (RFC 3463) in front of each line. No
//! other file decides about the three digits: the rest of the program says
//! `reply::bad_sequence(…)` and reads as prose.
//!
//! Left to others: when a reply is given (`session.rs`), when it is sent
//! (`wire/lines.rs`).
//!
//! Book: docs/03-replies.md.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::smtp::text::printable;

/// The longest reply line, CR LF included (RFC 5321 section 4.5.3.1.5).
pub const REPLY_LINE_LIMIT: usize = 512;

/// The most lines one reply may have before we stop listening to a server.
/// The RFC names no limit; EHLO, the longest in practice, has about twenty.
const REPLY_LINES_LIMIT: usize = 128;

/// One reply: a code, perhaps an enhanced status code, and one line or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    /// Never empty. The texts hold printable ASCII only when they are ours.
    lines: Vec<String>,
}

/// An enhanced status code, `class.subject.detail` (RFC 3463 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced {
    /// 2 success, 4 try again later, 5 do not try again.
    pub class: u8,
    /// What the code is about: 1 addresses, 2 mailboxes, 3 the mail system …
    pub subject: u16,
    /// What exactly happened.
    pub detail: u16,
}

/// What a client does about a reply depends on its first digit alone
/// (RFC 5321 section 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 2yz: done.
    Done,
    /// 3yz: go on, the server waits for more.
    GoOn,
    /// 4yz: not now, the same command may work later.
    Later,
    /// 5yz: no, and asking again will not help.
    Never,
}

/// 220: the greeting (RFC 5321 section 4.2). It has no enhanced code, because
/// the client does not know yet that we have them (RFC 2034 section 4).
pub fn greeting(hostname: &str) -> Reply {
    Reply::plain(220, format!("{hostname} ESMTP ehlo, made to be read"))
}

/// 250 to HELO: the server's name, and no list (RFC 5321 section 4.1.1.1).
pub fn hello(hostname: &str, client: &str) -> Reply {
    Reply::plain(250, format!("{hostname} greets {}", printable(client)))
}

/// 250 to EHLO: the server's name, then one line for each extension.
pub fn extended_hello(hostname: &str, client: &str, extensions: Vec<String>) -> Reply {
    let mut reply = hello(hostname, client);
    reply.lines.extend(extensions);
    reply
}

/// 250 2.1.0: the sender is accepted, a transaction is open.
pub fn sender_ok() -> Reply {
    Reply::new(250, (1, 0), "sender accepted, now RCPT TO:<address>")
}

/// 250 2.1.5: this recipient is accepted.
pub fn recipient_ok() -> Reply {
    Reply::new(250, (1, 5), "recipient accepted")
}

/// 354: send the message. 3yz replies have no enhanced code (RFC 2034 section 4).
pub fn send_message() -> Reply {
    Reply::plain(354, "send the message, end it with a line that holds one dot")
}

/// 250 2.6.0: the message is on disk, under this id, and it stays there.
pub fn stored(id: &str) -> Reply {
    Reply::new(250, (6, 0), format!("stored as {id}"))
}

/// 250 2.0.0: RSET or NOOP was done.
pub fn ok() -> Reply {
    Reply::new(250, (0, 0), "ok")
}

/// 214 2.0.0: the answer to HELP.
pub fn help() -> Reply {
    let mut reply = Reply::new(214, (0, 0), "a letter takes five commands, in this order:");
    for line in [
        "  EHLO your.name",
        "  MAIL FROM:<you@your.domain>",
        "  RCPT TO:<them@their.domain>",
        "  DATA",
        "  QUIT",
        "also known: HELO RSET NOOP HELP VRFY (RFC 5321)",
    ] {
        reply.lines.push(line.to_owned());
    }
    reply
}

/// 221 2.0.0: goodbye. The connection closes after it.
pub fn bye(hostname: &str) -> Reply {
    Reply::new(221, (0, 0), format!("{hostname} closes the connection, goodbye"))
}

/// 220 2.0.0: the TLS handshake may begin (RFC 3207 section 4).
pub fn start_tls() -> Reply {
    Reply::new(220, (0, 0), "begin the TLS handshake")
}

/// 235 2.7.0: the client has proved who it is (RFC 4954 section 6).
pub fn authenticated() -> Reply {
    Reply::new(235, (7, 0), "authenticated")
}

/// 334: the next challenge of an AUTH exchange, in base64. 3yz replies have no
/// enhanced code, and this one no text either (RFC 4954 section 4).
pub fn challenge(base64: &str) -> Reply {
    Reply::plain(334, base64)
}

/// 252 2.0.0: the answer to every VRFY. To say whether a mailbox exists would
/// help those who collect addresses (RFC 5321 section 7.3).
pub fn not_verified() -> Reply {
    Reply::new(252, (0, 0), "not verified, but RCPT will tell whether mail is taken")
}

/// 421 4.3.2: the server is going down.
pub fn stopping(hostname: &str) -> Reply {
    Reply::new(421, (3, 2), format!("{hostname} is shutting down, try again later"))
}

/// 421 4.3.2: more clients than --max-connections or --max-per-client.
pub fn too_many_connections(hostname: &str) -> Reply {
    Reply::new(421, (3, 2), format!("{hostname} has too many connections, try again later"))
}

/// 421 4.4.2: the client did not speak, or did not listen, in time.
pub fn too_slow(hostname: &str) -> Reply {
    Reply::new(421, (4, 2), format!("{hostname} waited too long, closing"))
}

/// 421 4.7.0: too many failed logins in one session.
pub fn too_many_failed_logins(hostname: &str) -> Reply {
    Reply::new(421, (7, 0), format!("{hostname} saw too many failed logins, closing"))
}

/// 421 4.7.0: more refusals in one session than any honest client collects.
pub fn too_many_refusals(hostname: &str) -> Reply {
    Reply::new(421, (7, 0), format!("{hostname} refused too many commands, closing"))
}

/// 451 4.3.0: a fault on our side; nothing was stored.
pub fn local_fault() -> Reply {
    Reply::new(451, (3, 0), "local error, nothing was stored, try again later")
}

/// 452 4.3.1: no room on our disk; nothing was stored.
pub fn no_room() -> Reply {
    Reply::new(452, (3, 1), "no room, nothing was stored, try again later")
}

/// 452 4.5.3: this transaction is full. The client sends the message to those
/// accepted so far and opens another one for the rest (RFC 5321 section 4.5.3.1.10).
pub fn too_many_recipients() -> Reply {
    Reply::new(452, (5, 3), "too many recipients, send the rest in another transaction")
}

/// 454 4.7.0: too many failed logins from this address.
pub fn no_auth_now() -> Reply {
    Reply::new(454, (7, 0), "too many failed logins from your address, try again later")
}

/// 500 5.5.6: an AUTH line over the limit (RFC 4954 section 4). The exchange is over.
pub fn auth_line_too_long() -> Reply {
    Reply::new(500, (5, 6), "line too long, the login was broken off")
}

/// 500 5.5.2: a verb we do not know, or no verb at all.
pub fn unknown_command() -> Reply {
    Reply::new(500, (5, 2), "unknown command, HELP lists the known ones")
}

/// 500 5.5.2: SUBJECT, CC and the like, which some introductions show as commands.
pub fn header_field_is_no_command() -> Reply {
    Reply::new(500, (5, 2), "that is a header field: it belongs in the message, after DATA")
}

/// 500 5.5.2: octets that are neither ASCII nor UTF-8.
pub fn not_text() -> Reply {
    Reply::new(500, (5, 2), "a command is ASCII text, or UTF-8")
}

/// 500 5.5.2: a command line over the limit (RFC 5321 section 4.5.3.1.4).
pub fn line_too_long() -> Reply {
    Reply::new(500, (5, 2), "line too long, it was skipped")
}

/// 500 5.5.2: a line that ends in LF alone, or holds a CR alone
/// (RFC 5321 section 2.3.8).
pub fn bare_newline() -> Reply {
    Reply::new(500, (5, 2), "a line ends with CR LF, not with LF or CR alone (by hand: nc -C)")
}

/// 500 5.5.2: a NUL octet in a command line (RFC 5321 section 4.1.2 allows none).
pub fn nul_in_command() -> Reply {
    Reply::new(500, (5, 2), "NUL is not allowed in a command")
}

/// 500 5.5.2: a TLS handshake where a command was expected.
pub fn not_tls() -> Reply {
    Reply::new(500, (5, 2), "this port speaks SMTP in clear, your client began with TLS")
}

/// 500 5.5.2: an HTTP request. Browsers can be tricked into sending one.
pub fn not_http() -> Reply {
    Reply::new(500, (5, 2), "this is an SMTP server, not a web server")
}

/// 501: EHLO or HELO with no name, or one that cannot be a name. No reply to
/// these two has an enhanced code (RFC 2034 section 4).
pub fn bad_client_name(verb: &str) -> Reply {
    Reply::plain(501, format!("give your name: {verb} host.example or {verb} [192.0.2.1]"))
}

/// 501 5.5.4: wrong or missing argument. `form` shows the right one.
pub fn bad_argument(form: &str) -> Reply {
    Reply::new(501, (5, 4), format!("the form is: {form}"))
}

/// 501 5.5.4: a parameter we know, with a wrong value or given twice.
pub fn bad_parameter(why: &str) -> Reply {
    Reply::new(501, (5, 4), why.to_owned())
}

/// 501 5.1.7: the address in MAIL is no address.
pub fn bad_sender(why: &str) -> Reply {
    Reply::new(501, (1, 7), format!("{why}; the form is: MAIL FROM:<ann@host.example>"))
}

/// 501 5.1.3: the address in RCPT is no address.
pub fn bad_recipient(why: &str) -> Reply {
    Reply::new(501, (1, 3), format!("{why}; the form is: RCPT TO:<bob@host.example>"))
}

/// 501 5.5.2: what should be a response of an AUTH exchange is none.
pub fn bad_auth_response() -> Reply {
    Reply::new(501, (5, 2), "that is no response of this mechanism, the login was broken off")
}

/// 501 5.7.0: an initial response for a mechanism in which the server begins
/// (RFC 4954 section 4).
pub fn server_begins() -> Reply {
    Reply::new(501, (7, 0), "this mechanism begins with the server, send no initial response")
}

/// 501 5.7.0: the client cancelled the exchange with `*` (RFC 4954 section 4).
pub fn auth_cancelled() -> Reply {
    Reply::new(501, (7, 0), "login cancelled")
}

/// 502 5.5.1: a command of the RFCs that is not offered here and now.
pub fn not_offered(verb: &str) -> Reply {
    Reply::new(502, (5, 1), format!("{verb} is not offered here"))
}

/// 503 5.5.1: a known command at the wrong moment (RFC 5321 section 4.1.4).
pub fn bad_sequence(why: &str) -> Reply {
    Reply::new(503, (5, 1), why.to_owned())
}

/// 504 5.5.4: a mechanism that was not announced (RFC 4954 section 4).
pub fn unknown_mechanism() -> Reply {
    Reply::new(504, (5, 4), "that mechanism is not offered, EHLO lists those that are")
}

/// 530 5.7.0: this port is for users who have logged in (RFC 4954 section 6).
pub fn log_in_first() -> Reply {
    Reply::new(530, (7, 0), "log in first, with AUTH")
}

/// 535 5.7.8: wrong password or unknown user: the same text, so that nobody
/// learns which (RFC 4954 section 6).
pub fn bad_credentials() -> Reply {
    Reply::new(535, (7, 8), "wrong user or password")
}

/// 538 5.7.11: passwords are not taken in clear where there is TLS.
pub fn encrypt_first() -> Reply {
    Reply::new(538, (7, 11), "encrypt first, with STARTTLS")
}

/// 550 5.7.1: a user who writes under the name of somebody else.
pub fn not_your_address() -> Reply {
    Reply::new(550, (7, 1), "that sender address is not yours")
}

/// 550 5.1.1: no mailbox of that name here.
pub fn no_such_mailbox() -> Reply {
    Reply::new(550, (1, 1), "no such mailbox here")
}

/// 550 5.7.1: the recipient is elsewhere, and we do not relay for this client.
pub fn relaying_denied() -> Reply {
    Reply::new(550, (7, 1), "relaying denied, that domain is not served here")
}

/// 552 5.3.4: the message is larger than the SIZE announced in EHLO (RFC 1870).
pub fn too_big(limit: u64) -> Reply {
    Reply::new(552, (3, 4), format!("message too big, the limit is {limit} octets"))
}

/// 553 5.6.7: an address outside ASCII without SMTPUTF8 (RFC 6531 section 3.5).
pub fn needs_smtputf8() -> Reply {
    Reply::new(553, (6, 7), "an address outside ASCII needs SMTPUTF8 in MAIL")
}

/// 554 5.5.1: something came right behind STARTTLS in the clear (CVE-2011-0411).
pub fn input_behind_starttls() -> Reply {
    Reply::new(554, (5, 1), "nothing may follow STARTTLS before the handshake, closing")
}

/// 554 5.6.0: a bare CR or LF inside a message: an attempt to smuggle a second
/// one, or a broken client. Nothing is stored and the connection closes.
pub fn bare_newline_in_message() -> Reply {
    Reply::new(
        554,
        (6, 0),
        "nothing was stored: a line of the message ends without CR LF (curl: --crlf)",
    )
}

/// 554 5.4.6: the message went round in circles (RFC 5321 section 6.3).
pub fn mail_loop() -> Reply {
    Reply::new(554, (4, 6), "too many Received fields, this message is in a loop")
}

/// 555 5.5.4: a parameter that was not announced (RFC 5321 section 4.1.1.11).
pub fn unknown_parameter(keyword: &str) -> Reply {
    Reply::new(555, (5, 4), format!("parameter {} is not known here", printable(keyword)))
}

impl Reply {
    /// One line, with the enhanced code `class.subject.detail`, where the class
    /// is the first digit of `code` (RFC 2034 section 4).
    fn new(code: u16, (subject, detail): (u16, u16), text: impl Into<String>) -> Reply {
        let class = (code / 100) as u8;
        Reply {
            code,
            enhanced: Some(Enhanced { class, subject, detail }),
            lines: vec![text.into()],
        }
    }

    /// One line without an enhanced code.
    fn plain(code: u16, text: impl Into<String>) -> Reply {
        Reply { code, enhanced: None, lines: vec![text.into()] }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code, if the reply has one.
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text of each line, without codes; there is at least one.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What the first digit asks the client to do.
    pub fn kind(&self) -> Kind {
        match self.code {
            0..=299 => Kind::Done,
            300..=399 => Kind::GoOn,
            400..=499 => Kind::Later,
            500.. => Kind::Never,
        }
    }

    /// Appends the octets that go over the wire: every line but the last has a
    /// `-` after the code (RFC 5321 section 4.2.1). A line longer than
    /// [`REPLY_LINE_LIMIT`] is cut, so that no client is asked to take more.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        for (number, text) in self.lines.iter().enumerate() {
            let mut line = String::with_capacity(REPLY_LINE_LIMIT);
            let separator = if number == last { ' ' } else { '-' };
            // Writing to a String cannot fail.
            let _ = match self.enhanced {
                Some(enhanced) => write!(line, "{}{separator}{enhanced} {text}", self.code),
                None => write!(line, "{}{separator}{text}", self.code),
            };
            out.extend(line.bytes().take(REPLY_LINE_LIMIT - "\r\n".len()));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The last line, as a log or a person shows it: `550 5.1.1 no such mailbox here`.
impl Display for Reply {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        match self.lines.last() {
            Some(text) => write!(f, " {}", printable(text)),
            None => Ok(()),
        }
    }
}

impl Display for Enhanced {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Puts a reply together from its lines, as a client reads them.
///
/// `250-` means that more lines follow, `250 ` or a bare `250` that this was the
/// last one.
#[derive(Debug, Default)]
pub struct ReplyParser {
    begun: Option<Reply>,
}

/// Why the lines of a server are no reply (RFC 5321 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// The line does not begin with three digits of 200 to 599, then the end, a
    /// space or a `-`.
    BadCode,
    /// A line of one reply has another code than the line before.
    CodeChanged,
    /// No last line within `REPLY_LINES_LIMIT` lines.
    Endless,
}

impl ReplyParser {
    /// Takes the next line, without its CR LF. Gives the reply once this was its
    /// last line, and is then ready for the next reply. Octets outside UTF-8
    /// are replaced. After an error the stream cannot be trusted any more.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let (code, rest) = split_code(line).ok_or(ReplyError::BadCode)?;
        let (is_last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(ReplyError::BadCode),
        };
        let text = String::from_utf8_lossy(text);
        let (enhanced, text) = split_enhanced(code, &text);

        let reply = self.begun.get_or_insert(Reply { code, enhanced, lines: Vec::new() });
        if reply.code != code {
            return Err(ReplyError::CodeChanged);
        }
        if reply.lines.len() == REPLY_LINES_LIMIT {
            return Err(ReplyError::Endless);
        }
        // The first line decides for all: a server gives the same enhanced code
        // on each line of a reply, or on none (RFC 2034 section 4).
        reply.lines.push(text.to_owned());
        Ok(if is_last { self.begun.take() } else { None })
    }
}

/// The three digits, and what follows them.
fn split_code(line: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let text = std::str::from_utf8(digits).ok()?;
    let is_code = text.bytes().all(|octet| octet.is_ascii_digit());
    let code = text.parse().ok().filter(|code| is_code && (200..600).contains(code))?;
    Some((code, rest))
}

/// The enhanced code at the start of `text`, if one is there and its class
/// agrees with the reply code; and the text after it.
fn split_enhanced(code: u16, text: &str) -> (Option<Enhanced>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut numbers = word.split('.').map(number);
    let found = match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(class)), Some(Some(subject)), Some(Some(detail)), None) => {
            Some(Enhanced { class: class as u8, subject, detail })
        }
        _ => None,
    };
    match found {
        Some(enhanced) if u16::from(enhanced.class) == code / 100 => (found, rest),
        _ => (None, text),
    }
}

/// One to three digits (RFC 3463 section 2), and nothing else.
fn number(text: &str) -> Option<u16> {
    let short = (1..=3).contains(&text.len());
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|_| short && digits)
}

impl Display for ReplyError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            ReplyError::BadCode => "a line that is no SMTP reply",
            ReplyError::CodeChanged => "a reply whose lines have different codes",
            ReplyError::Endless => "a reply that does not end",
        })
    }
}

impl std::error::Error for ReplyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn parse(text: &str) -> Result<Option<Reply>, ReplyError> {
        let mut parser = ReplyParser::default();
        let mut last = Ok(None);
        for line in text.split("\r\n") {
            last = parser.line(line.as_bytes());
            if last != Ok(None) {
                break;
            }
        }
        last
    }

    #[test]
    fn every_line_but_the_last_has_a_dash_and_every_line_the_enhanced_code() {
        let help = octets(&help());
        assert!(help.starts_with("214-2.0.0 a letter"));
        assert!(help.lines().rev().skip(1).all(|line| line.starts_with("214-2.0.0 ")));
        assert!(help.lines().last().unwrap().starts_with("214 2.0.0 "));
        assert!(help.ends_with("\r\n"));
    }

    #[test]
    fn the_greeting_the_hello_and_354_have_no_enhanced_code() {
        assert_eq!(octets(&hello("host.example", "me")), "250 host.example greets me\r\n");
        assert_eq!(greeting("host.example").enhanced(), None);
        assert_eq!(send_message().enhanced(), None);
    }

    #[test]
    fn no_line_is_longer_than_512_octets_whatever_the_client_said() {
        let name = "\u{1b}".repeat(255);
        for line in octets(&hello("host.example", &name)).split_inclusive("\r\n") {
            assert!(line.len() <= REPLY_LINE_LIMIT, "{} octets", line.len());
            assert!(line.ends_with("\r\n"));
        }
    }

    #[test]
    fn what_is_written_is_parsed_back() {
        for reply in [greeting("a"), help(), ok(), bad_sequence("why"), send_message()] {
            let text = octets(&reply);
            assert_eq!(parse(text.trim_end_matches("\r\n")), Ok(Some(reply)));
        }
    }

    #[test]
    fn a_bare_code_is_a_whole_reply() {
        let reply = parse("250").unwrap().unwrap();
        assert_eq!((reply.code(), reply.lines()), (250, &[String::new()][..]));
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let reply = parse("550 2.1.1 odd").unwrap().unwrap();
        assert_eq!(reply.enhanced(), None);
        assert_eq!(reply.lines(), ["2.1.1 odd"]);
    }

    #[test]
    fn lines_that_are_no_reply_are_named() {
        assert_eq!(parse("hello"), Err(ReplyError::BadCode));
        assert_eq!(parse("25"), Err(ReplyError::BadCode));
        assert_eq!(parse("250_x"), Err(ReplyError::BadCode));
        assert_eq!(parse("199 x"), Err(ReplyError::BadCode));
        assert_eq!(parse("600 x"), Err(ReplyError::BadCode));
        assert_eq!(parse("+50 x"), Err(ReplyError::BadCode));
        assert_eq!(parse("250-a\r\n251 b"), Err(ReplyError::CodeChanged));
        assert_eq!(parse(&"250-a\r\n".repeat(1000)), Err(ReplyError::Endless));
    }

    #[test]
    fn the_first_digit_tells_the_client_what_to_do() {
        let kinds = [ok(), send_message(), no_room(), no_such_mailbox()].map(|reply| reply.kind());
        assert_eq!(kinds, [Kind::Done, Kind::GoOn, Kind::Later, Kind::Never]);
    }

    #[test]
    fn any_octets_parse_or_fail_without_a_panic() {
        fn holds(line: Vec<u8>) -> bool {
            let _ = ReplyParser::default().line(&line);
            true
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>) -> bool);
    }
}
