//! Commands and their arguments (RFC 5321 section 4.1.1).
//!
//! In: one line from the client, without its CR LF. Out: a [`Command`] whose
//! arguments are parsed and complete, or the reply that says what is wrong with
//! the line itself (500, 501, 555). Whether the command is allowed now is not
//! asked here: that is `session/`.
//!
//! Book: docs/04-commands-and-addresses.md.

use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::dsn::{MailDsn, Notify, OriginalRecipient, RcptDsn, Ret, is_envid, is_xtext};
use crate::smtp::reply::{self, Reply};

/// The longest command line we take, CR LF included. RFC 5321 section 4.5.3.1.4
/// asks for 512; most extensions add what their parameters of MAIL need.
pub const COMMAND_LINE_LIMIT: usize = 512
    + 26 // " SIZE=" and 20 digits (RFC 1870 section 3)
    + 17 // " BODY=8BITMIME" and room to grow (RFC 6152 section 2)
    + 10 // " SMTPUTF8" (RFC 6531 section 3.1)
    + 500; // " AUTH=" (RFC 4954 section 3)

/// The longest line of an AUTH exchange, CR LF included (RFC 4954 section 4).
pub const AUTH_LINE_LIMIT: usize = 12_288;

/// RFC 1870 section 3: a size has up to 20 digits.
const SIZE_DIGITS: usize = 20;

/// The longest name of a client, in octets: as long as a domain of RFC 5321 section
/// 4.5.3.1.2.
const CLIENT_NAME_LIMIT: usize = 255;

/// What may stand at the end of a line, and between words where the RFC is silent.
const BLANKS: [char; 2] = [' ', '\t'];

/// One command of a client, ready to be acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `EHLO name`: I am `name`, and I know that there are extensions. The name is
    /// any octets, and proves nothing.
    Ehlo(Vec<u8>),
    /// `HELO name`: I am `name`, and RFC 821 is all I know.
    Helo(Vec<u8>),
    /// `MAIL FROM:<…>`: opens a transaction.
    Mail(Mail),
    /// `RCPT TO:<…>`: one more recipient.
    Rcpt(Rcpt),
    /// `DATA`: the message follows.
    Data,
    /// `BDAT size [LAST]`: a part of the message follows at once (RFC 3030).
    Bdat(Chunk),
    /// `RSET`: forget the transaction.
    Rset,
    /// `NOOP`: are you there?
    Noop,
    /// `HELP`: a reminder for people who type.
    Help,
    /// `VRFY name`: does this mailbox exist?
    Vrfy,
    /// `EXPN list`: who is on this list?
    Expn,
    /// `STARTTLS`: encrypt from here on (RFC 3207).
    StartTls,
    /// `AUTH mechanism [initial-response]`: I can prove who I am (RFC 4954).
    Auth {
        /// The name of the mechanism, as it was sent.
        mechanism: String,
        /// The initial response in base64; `=` for an empty one.
        initial: Option<String>,
    },
    /// `QUIT`: goodbye.
    Quit,
    /// `GET /…` and the like: not SMTP at all.
    Http,
}

/// What MAIL says: the sender, and the parameters of the extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Where errors are reported to.
    pub from: ReversePath,
    /// `SIZE=n`: how large the message will be, in octets (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=8BITMIME`: not all of it is ASCII (RFC 6152).
    pub is_8bit: bool,
    /// `AUTH=address` was given, and is xtext. The address itself is dropped without a
    /// look: we believe our own AUTH only (RFC 4954 section 5).
    pub auth: bool,
    /// `SMTPUTF8`: addresses and header fields may be UTF-8 (RFC 6531).
    pub smtputf8: bool,
    /// `RET=` and `ENVID=` (RFC 3461).
    pub dsn: MailDsn,
}

/// What RCPT says: one recipient, and when to tell the sender about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    /// Where the message goes.
    pub to: ForwardPath,
    /// `NOTIFY=` and `ORCPT=` (RFC 3461).
    pub dsn: RcptDsn,
}

/// What BDAT says: how much of the message comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// In octets, which begin right after the line.
    pub size: u64,
    /// Whether the message ends with it.
    pub is_last: bool,
}

impl Command {
    /// Reads one line, without its CR LF; blanks at its end do not count. The
    /// error is the reply to give.
    pub fn parse(line: &[u8]) -> Result<Command, Reply> {
        // A client's name alone may be other octets than text, so it is read first.
        if let Some(name) = after_verb(line, "EHLO") {
            return client_name("EHLO", name).map(Command::Ehlo);
        }
        if let Some(name) = after_verb(line, "HELO") {
            return client_name("HELO", name).map(Command::Helo);
        }
        // Before anything else can be found wrong with it: after a BDAT come octets, and
        // whoever asks has to know that it was one.
        if let Some(argument) = after_verb(line, "BDAT") {
            return chunk(argument).map(Command::Bdat);
        }
        let line = std::str::from_utf8(line).map_err(|_| reply::not_text())?;
        let line = line.trim_end_matches(BLANKS);
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let verb = verb.to_ascii_uppercase();

        match verb.as_str() {
            "MAIL" => mail(argument).map(Command::Mail),
            "RCPT" => rcpt(argument).map(Command::Rcpt),
            "DATA" => alone(Command::Data, &verb, argument),
            "RSET" => alone(Command::Rset, &verb, argument),
            "QUIT" => alone(Command::Quit, &verb, argument),
            "STARTTLS" => alone(Command::StartTls, &verb, argument),
            // NOOP and HELP may carry any text (RFC 5321 sections 4.1.1.8, 4.1.1.9).
            "NOOP" => Ok(Command::Noop),
            "HELP" => Ok(Command::Help),
            "VRFY" if argument.is_empty() => Err(reply::bad_argument("VRFY name")),
            "VRFY" => Ok(Command::Vrfy),
            "EXPN" => Ok(Command::Expn),
            "AUTH" => auth(argument),
            // Every browser sends `Host:` before the body of a request, also after a
            // first line that is too long to be read.
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "CONNECT"
            | "HOST:" => Ok(Command::Http),
            // Many introductions list the first three as commands. They never were.
            "SUBJECT" | "CC" | "BCC" | "SUBJECT:" | "CC:" | "BCC:" | "FROM:" | "TO:" | "DATE:" => {
                Err(reply::header_field_is_no_command())
            }
            _ => Err(reply::unknown_command()),
        }
    }
}

/// What follows `verb` and a blank, or the end of the line; `None` if the line has
/// another verb.
pub fn after_verb<'a>(line: &'a [u8], verb: &str) -> Option<&'a [u8]> {
    let (word, rest) = line.split_at_checked(verb.len())?;
    let is_whole = rest.first().is_none_or(|octet| BLANKS.contains(&char::from(*octet)));
    (word.eq_ignore_ascii_case(verb.as_bytes()) && is_whole).then_some(rest)
}

/// Any text is a name: `my laptop`, `[::1]`, Latin-1. It proves nothing, so it is no
/// reason to turn anybody away (RFC 5321 section 4.1.4).
fn client_name(verb: &str, name: &[u8]) -> Result<Vec<u8>, Reply> {
    let name = name.trim_ascii();
    if name.is_empty() || name.len() > CLIENT_NAME_LIMIT {
        return Err(reply::bad_client_name(verb));
    }
    Ok(name.to_vec())
}

/// A command that takes no argument.
fn alone(command: Command, verb: &str, argument: &str) -> Result<Command, Reply> {
    if argument.is_empty() {
        Ok(command)
    } else {
        Err(reply::bad_argument(&format!("{verb}, with nothing after it")))
    }
}

/// `mechanism [initial-response]`
fn auth(argument: &str) -> Result<Command, Reply> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty()).map(str::to_owned);
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => Ok(Command::Auth { mechanism, initial }),
        _ => Err(reply::bad_argument("AUTH mechanism [initial-response]")),
    }
}

/// `size [LAST]` (RFC 3030 section 2). The grammar sets no limit to the digits; a number
/// too large for us becomes the largest we know, as in SIZE.
fn chunk(argument: &[u8]) -> Result<Chunk, Reply> {
    let is_blank = |octet: &u8| BLANKS.contains(&char::from(*octet));
    let mut words = argument.split(is_blank).filter(|word| !word.is_empty());
    let size = words.next().and_then(number).ok_or_else(reply::bad_chunk)?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Chunk { size, is_last: false }),
        (Some(last), None) if last.eq_ignore_ascii_case(b"LAST") => {
            Ok(Chunk { size, is_last: true })
        }
        _ => Err(reply::bad_chunk()),
    }
}

/// Digits, and nothing else: no sign, no blank.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Reads `FROM:<reverse-path> [parameters]`, which follows MAIL.
pub fn mail(argument: &str) -> Result<Mail, Reply> {
    let path = after_keyword(argument, "FROM:")
        .ok_or_else(|| reply::bad_argument("MAIL FROM:<ann@host.example>"))?;
    let (from, rest) =
        ReversePath::parse(path).map_err(|why| reply::bad_sender(&why.to_string()))?;
    let parameters = parameters(rest).ok_or_else(|| reply::bad_sender("text right after the >"))?;

    let dsn = MailDsn::default();
    let mut mail = Mail { from, size: None, is_8bit: false, auth: false, smtputf8: false, dsn };
    for_each(parameters, |keyword, value| {
        match (keyword, value) {
            ("SIZE", value) => mail.size = Some(size(value)?),
            // Every message is stored octet for octet, so the two differ only for
            // whoever has to pass it on.
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => {}
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => mail.is_8bit = true,
            ("BODY", _) => return Err(reply::bad_parameter("BODY is 7BIT or 8BITMIME")),
            ("SMTPUTF8", None) => mail.smtputf8 = true,
            ("SMTPUTF8", Some(_)) => return Err(reply::bad_parameter("SMTPUTF8 takes no value")),
            ("AUTH", Some(value)) if is_xtext(value) => mail.auth = true,
            ("AUTH", _) => return Err(reply::bad_parameter("AUTH is an address in xtext, or <>")),
            ("RET", value) => {
                let ret = value.and_then(Ret::parse);
                mail.dsn.ret = Some(ret.ok_or(reply::bad_parameter("RET is FULL or HDRS"))?);
            }
            ("ENVID", Some(value)) if is_envid(value) => mail.dsn.envid = Some(value.to_owned()),
            ("ENVID", _) => {
                return Err(reply::bad_parameter("ENVID is xtext of at most 100 octets"));
            }
            _ => return Err(reply::unknown_parameter(keyword)),
        }
        Ok(())
    })?;
    Ok(mail)
}

/// Reads `TO:<forward-path> [parameters]`, which follows RCPT.
pub fn rcpt(argument: &str) -> Result<Rcpt, Reply> {
    let path = after_keyword(argument, "TO:")
        .ok_or_else(|| reply::bad_argument("RCPT TO:<bob@host.example>"))?;
    let (to, rest) =
        ForwardPath::parse(path).map_err(|why| reply::bad_recipient(&why.to_string()))?;
    let parameters =
        parameters(rest).ok_or_else(|| reply::bad_recipient("text right after the >"))?;

    let mut rcpt = Rcpt { to, dsn: RcptDsn::default() };
    for_each(parameters, |keyword, value| {
        match keyword {
            "NOTIFY" => {
                let notify = value.and_then(Notify::parse);
                let form = "NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY";
                rcpt.dsn.notify = Some(notify.ok_or(reply::bad_parameter(form))?);
            }
            "ORCPT" => {
                let original = value.and_then(OriginalRecipient::parse);
                let form = "ORCPT is rfc822; and an address in xtext, 500 octets at most";
                rcpt.dsn.orcpt = Some(original.ok_or(reply::bad_parameter(form))?);
            }
            _ => return Err(reply::unknown_parameter(keyword)),
        }
        Ok(())
    })?;
    Ok(rcpt)
}

/// Takes `KEYWORD` and `KEYWORD=value` apart, the keyword in upper case, and hands
/// each to `take`. None may be given twice.
fn for_each<'a>(
    parameters: impl Iterator<Item = &'a str>,
    mut take: impl FnMut(&str, Option<&'a str>) -> Result<(), Reply>,
) -> Result<(), Reply> {
    let mut seen: Vec<String> = Vec::new();
    for parameter in parameters {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        let keyword = keyword.to_ascii_uppercase();
        take(&keyword, value)?;
        if seen.contains(&keyword) {
            return Err(reply::bad_parameter("a parameter was given twice"));
        }
        seen.push(keyword);
    }
    Ok(())
}

/// What follows `keyword`, in upper or lower case. There is no blank between
/// the colon and the path (RFC 5321 section 3.3); clients that put one there
/// get a 501 from the address parser, which shows the right form.
fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (word, rest) = argument.split_at_checked(keyword.len())?;
    word.eq_ignore_ascii_case(keyword).then_some(rest)
}

/// The words after a path, or `None` if no blank parts them from it.
fn parameters(rest: &str) -> Option<impl Iterator<Item = &str>> {
    let parted = rest.is_empty() || rest.starts_with(' ');
    parted.then(|| rest.split(' ').filter(|word| !word.is_empty()))
}

/// Whether a client that sends commands in groups waits after this one, and so its reply may
/// not be kept back (RFC 2920 section 3.2).
pub fn ends_group(command: &Command) -> bool {
    match command {
        Command::Ehlo(_)
        | Command::Helo(_)
        | Command::Data
        | Command::Vrfy
        | Command::Expn
        | Command::Noop
        | Command::Help
        | Command::StartTls
        | Command::Auth { .. }
        | Command::Quit
        | Command::Http => true,
        Command::Mail(_) | Command::Rcpt(_) | Command::Rset | Command::Bdat(_) => false,
    }
}

/// The value of SIZE. A number too large for us is still a number: it becomes
/// the largest we know, and the limit refuses it with 552.
fn size(value: Option<&str>) -> Result<u64, Reply> {
    let digits = value.filter(|digits| digits.len() <= SIZE_DIGITS);
    let size = digits.and_then(|digits| number(digits.as_bytes()));
    size.ok_or(reply::bad_parameter("SIZE is a number of octets, up to 20 digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail_of(line: &str) -> Mail {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// Code and enhanced code of the refusal.
    fn refusal(line: &str) -> String {
        let reply = Command::parse(line.as_bytes()).unwrap_err();
        format!("{} {}", reply.code(), reply.enhanced().unwrap())
    }

    #[test]
    fn verbs_keywords_and_parameters_are_taken_in_any_case() {
        assert_eq!(Command::parse(b"dAtA"), Ok(Command::Data));
        let mail = mail_of("mail from:<Ann@Host.example> size=7 Body=8bitmime smtputf8");
        assert_eq!(mail.from.to_string(), "<Ann@Host.example>");
        assert_eq!((mail.size, mail.smtputf8), (Some(7), true));
    }

    #[test]
    fn blanks_at_the_end_of_a_line_do_not_count() {
        assert_eq!(Command::parse(b"QUIT \t "), Ok(Command::Quit));
        assert_eq!(refusal(" QUIT"), "500 5.5.2");
    }

    #[test]
    fn a_client_may_call_itself_anything_but_nothing() {
        for name in ["host.example", "my_laptop", "[::1]", "fe80::1", "Ann's-MacBook", "two words"]
        {
            for line in [format!("EHLO {name}"), format!("ehlo  \t{name} ")] {
                let command = Command::parse(line.as_bytes());
                assert_eq!(command, Ok(Command::Ehlo(name.into())), "{line}");
            }
        }
        assert_eq!(Command::parse(b"HELO b\xfcro"), Ok(Command::Helo(b"b\xfcro".to_vec())));
        let long = |octets: usize| [b"EHLO ".to_vec(), vec![0xff; octets]].concat();
        assert_eq!(Command::parse(&long(255)), Ok(Command::Ehlo(vec![0xff; 255])));
        for line in [b"EHLO".to_vec(), b"EHLO ".to_vec(), b"HELO \t ".to_vec(), long(256)] {
            assert_eq!(Command::parse(&line).unwrap_err().code(), 501, "{line:?}");
        }
        assert_eq!(Command::parse(b"EHLOhost").unwrap_err().code(), 500);
    }

    #[test]
    fn a_size_beyond_all_numbers_is_the_largest_number() {
        assert_eq!(mail_of("MAIL FROM:<> SIZE=99999999999999999999").size, Some(u64::MAX));
        assert_eq!(refusal("MAIL FROM:<> SIZE=100000000000000000000"), "501 5.5.4");
    }

    #[test]
    fn a_chunk_has_a_size_of_digits_and_may_be_the_last() {
        for (line, size, is_last) in [
            ("BDAT 0", 0, false),
            ("bdat 7 last", 7, true),
            ("BDAT 007  LAST ", 7, true),
            ("BDAT\t12", 12, false),
            ("BDAT 9223372036854775808", 1 << 63, false),
            ("BDAT 100000000000000000000000000000000000 LAST", u64::MAX, true),
        ] {
            let command = Command::parse(line.as_bytes());
            assert_eq!(command, Ok(Command::Bdat(Chunk { size, is_last })), "{line}");
        }
        for line in [
            &b"BDAT"[..],
            b"BDAT LAST",
            b"BDAT +1",
            b"BDAT -1",
            b"BDAT 1x",
            b"BDAT 0x1",
            b"BDAT 1,LAST",
            b"BDAT 1 FIRST",
            b"BDAT 1 LAST LAST",
            b"BDAT 1 \xff",
            b"BDAT \xd9\xa1",
        ] {
            let reply = Command::parse(line).unwrap_err();
            assert_eq!(
                (reply.code(), reply.enhanced().unwrap().to_string()),
                (501, "5.5.4".to_owned()),
                "{line:?}"
            );
        }
        assert_eq!(refusal("BDATA 1"), "500 5.5.2");
    }

    #[test]
    fn wrong_parameters_are_told_from_unknown_ones() {
        for (line, code) in [
            ("MAIL FROM:<> SIZE", "501 5.5.4"),
            ("MAIL FROM:<> SIZE=", "501 5.5.4"),
            ("MAIL FROM:<> SIZE=-1", "501 5.5.4"),
            ("MAIL FROM:<> SIZE=1 SIZE=1", "501 5.5.4"),
            ("MAIL FROM:<> BODY=BINARYMIME", "501 5.5.4"),
            ("MAIL FROM:<> BODY", "501 5.5.4"),
            ("MAIL FROM:<> SMTPUTF8=1", "501 5.5.4"),
            ("MAIL FROM:<> RET=SOME", "501 5.5.4"),
            ("MAIL FROM:<> ENVID=a+b", "501 5.5.4"),
            ("MAIL FROM:<> NOTIFY=NEVER", "555 5.5.4"),
            ("MAIL FROM:<> =", "555 5.5.4"),
            ("RCPT TO:<a@b> NOTIFY=ALWAYS", "501 5.5.4"),
            ("RCPT TO:<a@b> ORCPT=bob", "501 5.5.4"),
            ("RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4"),
            ("RCPT TO:<a@b> RET=FULL", "555 5.5.4"),
        ] {
            assert_eq!(refusal(line), code, "{line}");
        }
    }

    #[test]
    fn a_path_is_followed_by_a_blank_or_nothing() {
        assert_eq!(refusal("MAIL FROM:<a@b>SIZE=1"), "501 5.1.7");
        assert_eq!(refusal("RCPT TO:<a@b>x"), "501 5.1.3");
        assert_eq!(refusal("MAIL FROM: <a@b>"), "501 5.1.7");
        assert_eq!(refusal("RCPT TO:a@b"), "501 5.1.3");
        assert_eq!(refusal("MAIL <a@b>"), "501 5.5.4");
        assert_eq!(refusal("RCPT"), "501 5.5.4");
    }

    #[test]
    fn header_fields_typed_as_commands_are_told_where_they_belong() {
        for line in ["SUBJECT hello", "Subject: hello", "Cc: a@b", "BCC a@b"] {
            let reply = Command::parse(line.as_bytes()).unwrap_err();
            assert_eq!(reply, reply::header_field_is_no_command(), "{line}");
        }
    }

    #[test]
    fn the_longest_command_of_the_extensions_fits_the_limit() {
        let path =
            "l".repeat(64) + "@" + &["d".repeat(63), "d".repeat(63), "d".repeat(61)].join(".");
        let (envid, auth) = ("e".repeat(100), "a".repeat(494));
        let mail = format!(
            "MAIL FROM:<{path}> SIZE={} BODY=8BITMIME SMTPUTF8 RET=FULL ENVID={envid} AUTH={auth}",
            u64::MAX
        );
        let orcpt = format!("rfc822;{}", "o".repeat(493));
        let rcpt = format!("RCPT TO:<{path}> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT={orcpt}");
        for line in [mail, rcpt] {
            assert!(Command::parse(line.as_bytes()).is_ok(), "{line}");
            assert!(line.len() + 2 <= COMMAND_LINE_LIMIT, "{} octets", line.len());
        }
    }

    #[test]
    fn any_octets_parse_or_are_refused_without_a_panic() {
        fn holds(verb: u8, rest: Vec<u8>) -> bool {
            let verbs: [&[u8]; 6] =
                [b"MAIL FROM:", b"RCPT TO:<", b"EHLO ", b"MAIL FROM:<> ", b"BDAT ", b""];
            let line = [verbs[usize::from(verb) % verbs.len()], &rest].concat();
            match Command::parse(&line) {
                Ok(_) => true,
                Err(reply) => (500..=555).contains(&reply.code()),
            }
        }
        quickcheck::quickcheck(holds as fn(u8, Vec<u8>) -> bool);
    }
}
