//! What log and trace may show of a line: everything but what may be a password.
//!
//! In: a line of a client, before it is answered. Out: a text for people. It is
//! decided by a `match` over commands without a wildcard, so that a new command does
//! not compile before somebody has thought of what it may hold.
//!
//! Where nobody can log in nobody types a password, and all is shown but what follows `AUTH=`
//! and lines that are too long, unless somebody has tried AUTH all the same, or has said a
//! line that was not read.
//!
//! Book: docs/11-auth.md.

use crate::smtp::auth::mechanism::Mechanism;
use crate::smtp::command::{COMMAND_LINE_LIMIT, Command, after_verb};
use crate::smtp::session::{Session, State};
use crate::smtp::text::printable;

impl State {
    /// Its name in the book, without what the state carries.
    pub fn name(&self) -> &'static str {
        match self {
            State::Connected => "Connected",
            State::Ready => "Ready",
            State::Mail(_) => "Mail",
            State::Rcpt(_) => "Rcpt",
            State::Chunks { .. } => "Chunks",
            State::Auth(_) => "Auth",
            State::Closed => "Closed",
        }
    }
}

impl Session {
    /// What log and trace may show of a line, before it is answered.
    pub fn shown(&self, line: &[u8]) -> String {
        let hidden = || format!("<{} octets>", line.len());
        if let State::Auth(_) = self.state {
            return if line == b"*" { "*".to_owned() } else { hidden() };
        }
        // Four times as long once it is printable, and refused whatever it says.
        if line.len() > COMMAND_LINE_LIMIT && !is_auth(line) {
            return hidden();
        }
        // Where there are users, people type passwords at the wrong moment, too.
        let may_hold_password = self.may_hold_password();
        match Command::parse(line) {
            Ok(command) => of_command(&command, line, may_hold_password),
            Err(_) if is_path_command(line) => of_path(line, may_hold_password),
            Err(_) if may_hold_password || is_auth(line) => hidden(),
            Err(_) => printable(line),
        }
    }

    fn may_hold_password(&self) -> bool {
        self.may_see_password || self.site.users().is_some()
    }

    /// The same for a MAIL or RCPT that was refused.
    pub(super) fn shown_path(&self, line: &[u8]) -> String {
        of_path(line, self.may_hold_password())
    }
}

fn of_command(command: &Command, line: &[u8], may_hold_password: bool) -> String {
    match command {
        // What stands in the place of a mechanism and is none may be the password.
        Command::Auth { mechanism, initial } => match Mechanism::parse(mechanism) {
            Some(mechanism) => {
                let initial = initial.as_ref().map(|text| format!(" <{} octets>", text.len()));
                format!("AUTH {}{}", mechanism.name(), initial.unwrap_or_default())
            }
            None => format!("<{} octets>", line.len()),
        },
        // These take any text, so there may be one in them.
        Command::Noop if may_hold_password => "NOOP".to_owned(),
        Command::Help if may_hold_password => "HELP".to_owned(),
        Command::Vrfy if may_hold_password => "VRFY".to_owned(),
        Command::Expn if may_hold_password => "EXPN".to_owned(),
        Command::Noop | Command::Help | Command::Vrfy | Command::Expn => printable(line),
        // A parameter may be anything.
        Command::Mail(_) | Command::Rcpt(_) => of_path(line, may_hold_password),
        // Names are repeated to everybody in the greeting and in `Received`.
        Command::Ehlo(_) | Command::Helo(_) => printable(line),
        Command::Data | Command::Rset | Command::StartTls | Command::Quit => printable(line),
        // A number, and LAST: there is no room for anything else.
        Command::Bdat(_) => printable(line),
        // No SMTP client, or a person whose words begin like one: `get me in`.
        Command::Http if may_hold_password => format!("<{} octets>", line.len()),
        Command::Http => printable(line),
    }
}

/// MAIL and RCPT, well-formed or not: a bad address is what the reader of a log wants to
/// see. Not shown is `AUTH=` and what follows, which a person may take for the place of
/// a password, nor a line that only has the verb in common: `mail order` may be one.
fn of_path(line: &[u8], may_hold_password: bool) -> String {
    let has_path = [&b"MAIL FROM"[..], b"RCPT TO"].iter().any(|begin| {
        line.get(..begin.len()).is_some_and(|start| start.eq_ignore_ascii_case(begin))
    });
    if may_hold_password && !has_path {
        return format!("<{} octets>", line.len());
    }
    const AUTH: &[u8] = b"AUTH=";
    // Not in the middle of a word, where it may be an address such as `bounce-auth=x`.
    let begins = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| line.get(before));
        before.is_none_or(|octet| !octet.is_ascii_alphanumeric() && !b"._-+=".contains(octet))
    };
    let is_auth = |(at, window): &(usize, &[u8])| window.eq_ignore_ascii_case(AUTH) && begins(*at);
    let found = line.windows(AUTH.len()).enumerate().find(is_auth);
    match found.and_then(|(at, _)| line.get(..at)) {
        Some(before) => format!("{} (and parameters)", printable(before.trim_ascii_end())),
        None => printable(line),
    }
}

/// Whether a line is, or wants to be, MAIL or RCPT.
pub fn is_path_command(line: &[u8]) -> bool {
    after_verb(line, "MAIL").or_else(|| after_verb(line, "RCPT")).is_some()
}

/// Whether a line is, or wants to be, an AUTH command.
pub fn is_auth(line: &[u8]) -> bool {
    line.trim_ascii_start().get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"))
}

/// Whether a line is, or wants to be, a BDAT command.
pub fn is_bdat(line: &[u8]) -> bool {
    after_verb(line, "BDAT").is_some()
}

#[cfg(test)]
mod tests {
    use crate::smtp::session::tests::{RIGHT, private, session};
    use crate::smtp::session::{BadLine, Role};

    #[test]
    fn nothing_that_may_be_a_password_is_shown() {
        let mut session = private(Role::Smtp);
        session.line(b"EHLO c");
        assert_eq!(session.shown(RIGHT.as_bytes()), "AUTH PLAIN <16 octets>");
        assert_eq!(session.shown(b"AUTHPLAIN secret"), "<16 octets>");
        assert_eq!(session.shown(b"secret"), "<6 octets>");
        assert_eq!(session.shown(b"NOOP secret"), "NOOP");
        assert_eq!(session.shown(b"get off my lawn"), "<15 octets>");
        assert_eq!(
            session.shown(b"MAIL FROM:<a@b> AUTH=secret SIZE=1"),
            "MAIL FROM:<a@b> (and parameters)"
        );
        session.line(b"AUTH LOGIN");
        assert_eq!(session.shown(b"c2VjcmV0"), "<8 octets>");
        assert_eq!(session.shown(b"*"), "*");
        session.line(b"!");
        // The exchange is broken, and the client may not have noticed.
        assert_eq!(session.shown(b"c2VjcmV0"), "<8 octets>");
        assert_eq!(session.shown(b"NOOP"), "NOOP");
        session.line(RIGHT.as_bytes());
        assert_eq!(session.shown(b"secret"), "<6 octets>");
    }

    #[test]
    fn a_bad_address_is_shown_and_a_password_in_its_place_is_not() {
        let mut session = private(Role::Smtp);
        session.line(b"AUTH PLAIN");
        for line in ["MAIL FROM:bob@host.example", "RCPT TO: <bob>", "mail from:<"] {
            assert_eq!(session.shown(line.as_bytes()), line);
        }
        let line = b"MAIL FROM:bob auth=secret";
        assert_eq!(session.shown(line), "MAIL FROM:bob (and parameters)");
        for line in ["MAIL FROM:<a@b>AUTH=secret", "MAIL FROM:<a@b>\tauth=secret"] {
            assert_eq!(session.shown(line.as_bytes()), "MAIL FROM:<a@b> (and parameters)");
        }
        let line = "MAIL FROM:<bounce-auth=x@b>";
        assert_eq!(session.shown(line.as_bytes()), line, "a part of an address");
        assert_eq!(session.shown(b"VRFY secret"), "VRFY");
        assert_eq!(session.shown(b"mail order"), "<10 octets>");
    }

    #[test]
    fn where_nobody_can_log_in_all_is_shown_and_made_harmless() {
        let mut session = session();
        assert_eq!(session.shown(b"NONSENSE \x1b[2J"), "NONSENSE \\x1b[2J");
        assert_eq!(session.shown(b"NOOP hello"), "NOOP hello");
        assert_eq!(session.shown(b"GET / HTTP/1.1"), "GET / HTTP/1.1");
        assert_eq!(session.shown(b"EHLO b\xfcro"), "EHLO b\\xfcro");
        let long = [&b"MAIL FROM:<"[..], &[1; 2000]].concat();
        assert_eq!(session.shown(&long), "<2011 octets>", "no four times as many");
        // It may have been AUTH and a password, and the next line another one.
        session.bad_line(BadLine::TooLong);
        assert_eq!(session.shown(b"c2VjcmV0"), "<8 octets>");
    }

    /// A client that did not read the list says AUTH here, too, and then its password.
    #[test]
    fn after_auth_nothing_that_is_no_command_is_shown_there_either() {
        let mut session = session();
        session.line(b"EHLO c");
        session.line(b"AUTH LOGIN");
        assert_eq!(session.shown(b"c2VjcmV0"), "<8 octets>");
        assert_eq!(session.shown(b"NOOP secret"), "NOOP");
    }
}
