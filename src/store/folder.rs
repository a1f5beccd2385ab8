//! From a mailbox to its folder: names that cannot leave the mail root.
//!
//! A local-part may be nearly any text: `../x`, `a/b`, `.hidden`, `new`. Each
//! gets one folder of its own, `<domain>/<mailbox>`, and two different ones
//! never share a folder: only octets that are harmless everywhere stand for
//! themselves, and the rest, `%` too, is written `%NN`.
//!
//! Book: docs/07-maildir.md.

use std::path::PathBuf;

use crate::smtp::site::LocalMailbox;

/// The folder of a mailbox, relative to the mail root.
pub fn folder(mailbox: &LocalMailbox) -> PathBuf {
    [encoded(&mailbox.domain), encoded(&mailbox.name)].iter().collect()
}

/// `a`–`z`, `0`–`9`, `-`, `_` and a dot that is not the first stand for
/// themselves. Upper case does not: some file systems take `A` and `a` for one.
/// The longest local-part, 64 octets, becomes 192: no file system minds.
fn encoded(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for octet in name.bytes() {
        match octet {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => safe.push(char::from(octet)),
            b'.' if !safe.is_empty() => safe.push('.'),
            _ => safe.push_str(&format!("%{octet:02x}")),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Component;

    fn folder_of(name: &str) -> String {
        let mailbox = LocalMailbox { domain: "host.example".to_owned(), name: name.to_owned() };
        folder(&mailbox).to_str().unwrap().to_owned()
    }

    #[test]
    fn ordinary_names_stand_for_themselves() {
        assert_eq!(folder_of("ann.b-c_1"), "host.example/ann.b-c_1");
        assert_eq!(folder_of("new"), "host.example/new");
    }

    #[test]
    fn hostile_names_are_encoded() {
        assert_eq!(folder_of("../x"), "host.example/%2e.%2fx");
        assert_eq!(folder_of("a/b"), "host.example/a%2fb");
        assert_eq!(folder_of(".hidden"), "host.example/%2ehidden");
        assert_eq!(folder_of("a%2fb"), "host.example/a%252fb");
        assert_eq!(folder_of("A"), "host.example/%41");
        assert_eq!(folder_of("\u{fc}"), "host.example/%c3%bc");
    }

    #[test]
    fn every_name_is_one_folder_right_under_its_domain() {
        fn holds(name: String) -> bool {
            let mailbox = LocalMailbox { domain: "host.example".to_owned(), name: name.clone() };
            let path = folder(&mailbox);
            let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
            name.is_empty() || (normal && path.components().count() == 2)
        }
        quickcheck::quickcheck(holds as fn(String) -> bool);
    }

    #[test]
    fn two_names_never_share_a_folder() {
        fn holds(one: String, other: String) -> bool {
            (one == other) == (folder_of(&one) == folder_of(&other))
        }
        quickcheck::quickcheck(holds as fn(String, String) -> bool);
    }
}
