//! Every reply this server gives, by name.
//!
//! Outside tests no other file of the server holds three digits of ours: the name
//! says the meaning, the comment the code and its section, and the text helps a
//! person who types.
//!
//! Book: docs/03-replies.md.

use crate::smtp::reply::Reply;
use crate::smtp::text::printable;

/// 220: the greeting (RFC 5321 section 4.2). It has no enhanced code, because
/// the client does not know yet that we have them (RFC 2034 section 4).
pub fn greeting(hostname: &str) -> Reply {
    Reply::plain(220, format!("{hostname} ESMTP ehlo, made to be read"))
}

/// 250 to HELO: the server's name, and no list (RFC 5321 section 4.1.1.1).
pub fn hello(hostname: &str, client: &[u8]) -> Reply {
    Reply::plain(250, format!("{hostname} greets {}", printable(client)))
}

/// 250 to EHLO: the server's name, then one line for each extension.
pub fn extended_hello(hostname: &str, client: &[u8], extensions: Vec<String>) -> Reply {
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

/// 250 2.0.0: these octets were received, and more are to come (RFC 3030 section 2).
pub fn chunk_taken(octets: u64) -> Reply {
    Reply::new(250, (0, 0), format!("{octets} octets received"))
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
        "also known: HELO BDAT RSET NOOP HELP VRFY",
        "and where EHLO lists them: STARTTLS AUTH",
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

/// Whether this is a challenge.
pub fn is_challenge(reply: &Reply) -> bool {
    reply.code() == 334
}

/// 252 2.0.0: the answer to a VRFY. To say whether a mailbox exists would
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

/// 421 4.7.0: a client that asks this and that, and brings no letter.
pub fn too_many_errands(hostname: &str) -> Reply {
    Reply::new(
        421,
        (7, 0),
        format!("{hostname} answered enough commands without a letter, closing"),
    )
}

/// 421 4.7.0: a session that lasts, and brings no letter.
pub fn too_long_a_session(hostname: &str) -> Reply {
    Reply::new(421, (7, 0), format!("{hostname} waited long enough for a letter, closing"))
}

/// 421 4.7.0: more refusals in one session than any honest client collects.
pub fn too_many_refusals(hostname: &str) -> Reply {
    Reply::new(421, (7, 0), format!("{hostname} refused too many commands, closing"))
}

/// 450 4.7.1: this user has had as many recipients elsewhere as one hour allows. RFC 5321
/// has no code for a limit of ours; with 450 the client keeps the letter and comes again.
pub fn too_many_this_hour() -> Reply {
    Reply::new(450, (7, 1), "too many recipients at other servers this hour, try again later")
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

/// 501: EHLO or HELO with no name, or an endless one. What answers these two has no
/// enhanced code (RFC 2034 section 4).
pub fn bad_client_name(verb: &str) -> Reply {
    Reply::plain(501, format!("give your name: {verb} host.example or {verb} [192.0.2.1]"))
}

/// 501 5.5.4: wrong or missing argument. `form` shows the right one.
pub fn bad_argument(form: &str) -> Reply {
    Reply::new(501, (5, 4), format!("the form is: {form}"))
}

/// 501 5.5.4: a BDAT of which nobody knows how many octets follow it (RFC 3030 section
/// 2). The connection closes.
pub fn bad_chunk() -> Reply {
    bad_argument("BDAT size [LAST], and that many octets right after the line")
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

/// 504 5.5.4: a mechanism that this server has not (RFC 4954 section 4).
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

/// 535 5.7.8: what ends an exchange in which a token was refused (RFC 7628 section 3).
pub fn bad_token() -> Reply {
    Reply::new(535, (7, 8), "the token was refused")
}

/// 538 5.7.11: nobody logs in in clear where there is TLS. RFC 4954 keeps the code for old
/// programs (section 6) and wants 504 (section 4), which would say that the mechanism is
/// never there.
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

/// 550 5.7.1: no domain could be asked whether the author is theirs. A header has one `From`,
/// with an address (RFC 5322 section 3.6.2).
pub fn no_author() -> Reply {
    Reply::new(550, (7, 1), "From names no author whose domain can be asked about")
}

/// 550 5.7.26: nobody has proven to be the author, and the owner of the author's domain
/// wants such letters refused (RFC 7372 section 3.4).
pub fn dmarc_fails() -> Reply {
    Reply::new(550, (7, 26), "DMARC: the owner of the domain in From wants this refused")
}

/// 550 5.7.23: the client may not send for the domain of the sender (RFC 7372 section 3.2).
/// `why` is what the owner says, if anything.
pub fn spf_fails(why: Option<&str>) -> Reply {
    let why = why.unwrap_or("you may not send for it");
    Reply::new(550, (7, 23), format!("SPF: the owner of the sender's domain says: {why}"))
}

/// 451 4.7.26: DNS has no answer about the author, and perhaps has one later.
pub fn dmarc_later() -> Reply {
    Reply::new(451, (7, 26), "DMARC: DNS has no answer about the domain in From, come back later")
}

/// 451 4.7.24: DNS has no answer about the sender (RFC 7372 section 3.2).
pub fn spf_later() -> Reply {
    Reply::new(451, (7, 24), "SPF: DNS has no answer about the sender's domain, come back later")
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
    Reply::new(554, (4, 6), "this message goes round in a loop, it was here before")
}

/// 555 5.5.4: a parameter that was not announced (RFC 5321 section 4.1.1.11).
pub fn unknown_parameter(keyword: &str) -> Reply {
    Reply::new(555, (5, 4), format!("parameter {} is not known here", printable(keyword)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_the_hello_and_354_have_no_enhanced_code() {
        for reply in [greeting("host.example"), hello("host.example", b"me"), send_message()] {
            assert_eq!(reply.enhanced(), None, "{reply}");
        }
    }
}
