//! The users file: who may log in, in the form of Dovecot's passwd-file.
//!
//! In: the octets of the file. Out: names and secrets, or the line that is wrong.
//! A line is `name:{SCHEME}secret`; Dovecot may have more fields after the next
//! colon, which are passed over, so one file serves both programs.
//!
//! A name is what Dovecot finds too: it folds what a client sends to lower case
//! and compares that with the file octet by octet, so a name in upper case could
//! never log in there, and is refused here. For the same reason nothing is
//! trimmed: a blank at the end of a line belongs to the password.
//!
//! No error ever shows a part of the file that could be a password.
//!
//! Book: docs/11-auth.md.

use std::collections::BTreeSet;

use crate::smtp::address::Mailbox;
use crate::smtp::auth::secret::Secret;
use crate::smtp::text::FOLDER_NAME_LIMIT;
use crate::store::text_file::{FileError, entries};

/// Reads the file. All names are bare, or all are full addresses: with both,
/// nobody could say whether `ann` and `ann@host.example` are one person.
pub fn parse(file: &[u8]) -> Result<Vec<(String, Secret)>, FileError> {
    let mut users: Vec<(String, Secret)> = Vec::new();
    let mut seen = BTreeSet::new();
    for (line, text) in entries(file)? {
        let wrong = |why: &str| FileError { line, why: why.to_owned() };
        let (name, fields) =
            text.split_once(':').ok_or_else(|| wrong("expected name:{SCHEME}secret"))?;
        if !is_user_name(name) {
            return Err(wrong(
                "expected a name such as ann or ann@host.example, of a-z 0-9 . - _ and one @",
            ));
        }
        if users.first().is_some_and(|(first, _)| first.contains('@') != name.contains('@')) {
            return Err(wrong("expected bare names or full addresses, not both in one file"));
        }
        if !seen.insert(name) {
            return Err(wrong("expected each name once, this one was on a line before"));
        }
        let field = fields.split(':').next().unwrap_or_default();
        let secret = Secret::parse(field).map_err(|error| wrong(&error.to_string()))?;
        users.push((name.to_owned(), secret));
    }
    Ok(users)
}

/// A local-part or an address that needs no quotes and is in lower case. Labels
/// of a domain outside ASCII are written as `xn--…`.
fn is_user_name(name: &str) -> bool {
    let is_ours = |c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'@');
    let address = if name.contains('@') { name.to_owned() } else { format!("{name}@localhost") };
    // Each of these octets stands for itself in the name of a folder.
    let has_folder = |mailbox: &Mailbox| mailbox.local_part.len() <= FOLDER_NAME_LIMIT;
    name.bytes().all(is_ours)
        && matches!(Mailbox::parse(&address), Ok((mailbox, "")) if has_folder(&mailbox))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::users::Users;

    /// Names and secrets, as they would be written.
    fn read(text: &str) -> Vec<(String, String)> {
        let reveal = |(name, secret): (String, Secret)| (name, secret.reveal());
        parse(text.as_bytes()).unwrap().into_iter().map(reveal).collect()
    }

    fn entry(name: &str, secret: &str) -> (String, String) {
        (name.to_owned(), secret.to_owned())
    }

    #[test]
    fn comments_empty_lines_further_fields_and_crlf_do_not_matter() {
        let text = "# users\r\n\r\nann:{PLAIN}tulip\r\n  \r\n\
            bob:{cleartext}a#b c :1000:1000:Bob:/home/bob::userdb_mail=maildir:~/x\n#\n\
            c.d-e_9:{Plain}{x}";
        let users = [
            entry("ann", "{PLAIN}tulip"),
            entry("bob", "{PLAIN}a#b c "),
            entry("c.d-e_9", "{PLAIN}{x}"),
        ];
        assert_eq!(read(text), users);
        assert_eq!(read(""), []);
        assert_eq!(read("\u{feff}ann:{PLAIN}x"), [entry("ann", "{PLAIN}x")]);
        assert_eq!(parse(b"ann:{PLAIN}x\nbob:{PLAIN}gr\xfcn").unwrap_err().line, 2);
    }

    #[test]
    fn names_may_all_be_full_addresses() {
        let text = "ann@host.example:{PLAIN}a\nann@xn--bcher-kva.example:{PLAIN}b\n";
        let users =
            [entry("ann@host.example", "{PLAIN}a"), entry("ann@xn--bcher-kva.example", "{PLAIN}b")];
        assert_eq!(read(text), users);
    }

    #[test]
    fn a_line_of_doveadm_pw_logs_in() {
        let text = "ann:{scram-sha-256}4096,G53IP8bJimlkNWNCz5ZErg==,\
            rwuhnUV1ba1PX2YtAhp6QwP2jrLHxnfWUaT3gLAXwwc=,\
            LGGe8vnSH2i6F39vS/9jRIz4RBW1IPtNt6krZotStL4=:::\n";
        let users = Users::new(parse(text.as_bytes()).unwrap(), [1; 32]);
        assert!(users.check("ann", b"secret"));
        assert!(!users.check("ann", b"secret:::"));
    }

    #[test]
    fn a_wrong_line_is_named_with_what_was_expected() {
        let long = format!("{}:{{PLAIN}}hunter2", "a".repeat(256));
        for (text, line, why) in [
            ("hunter2", 1, "name:{SCHEME}secret"),
            ("\n# x\nann:hunter2", 3, "{PLAIN} or {SCRAM-SHA-256}"),
            ("ann:", 1, "{PLAIN} or {SCRAM-SHA-256}"),
            ("ann:{BLF-CRYPT}hunter2", 1, "{PLAIN} or {SCRAM-SHA-256}"),
            ("ann:{PLAIN.b64}hunter2", 1, "{PLAIN} or {SCRAM-SHA-256}"),
            ("ann:{PLAIN}:hunter2", 1, "a password after {PLAIN}"),
            ("ann:{SCRAM-SHA-256}hunter2", 1, "iterations,salt,StoredKey,ServerKey"),
            ("ann:{PLAIN}a\nann:{PLAIN}hunter2", 2, "each name once"),
            ("ann:{PLAIN}a\nann@b.example:{PLAIN}hunter2", 2, "not both"),
            ("ann@b.example:{PLAIN}a\nann:{PLAIN}hunter2", 2, "not both"),
            ("Ann:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            (":{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            (" ann:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            ("ann+x:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            ("../ann:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            (".ann:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            ("a..b:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            ("\u{e4}nn:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            ("ann:{PLAIN}a\n\u{feff}ann:{PLAIN}hunter2", 2, "a-z 0-9 . - _"),
            ("ann@:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            ("@b.example:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            ("a@b@c.example:{PLAIN}hunter2", 1, "a-z 0-9 . - _"),
            (&long, 1, "a-z 0-9 . - _"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error:?}");
            assert!(error.why.starts_with("expected "), "{text}: {error:?}");
            assert!(error.why.contains(why), "{text}: {error:?}");
            assert!(!error.why.contains("hunter2"), "{text}: {error:?}");
        }
    }

    #[test]
    fn any_text_is_a_users_file_or_none_without_a_panic() {
        fn holds(text: String) -> bool {
            let lines = text.lines().count();
            for text in [text.clone(), format!("ann:{{PLAIN}}{text}")] {
                if let Err(error) = parse(text.as_bytes()) {
                    assert!((1..=lines.max(1)).contains(&error.line));
                }
            }
            true
        }
        quickcheck::quickcheck(holds as fn(String) -> bool);
    }
}
