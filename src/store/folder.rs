//! From a mailbox to its folder: names that cannot leave the mail root.
//!
//! A local-part may be nearly any text: `../x`, `a/b`, `.hidden`, `new`, nothing at
//! all. Each gets one folder of its own, `<domain>/<mailbox>`, and two different
//! ones never share a folder. How a name is spelt there is in `smtp/text.rs`,
//! because `smtp/site/` has to know that too: a mailbox whose folder name no file
//! system takes does not exist.
//!
//! Book: docs/07-maildir.md.

use std::path::PathBuf;

use crate::smtp::site::LocalMailbox;
use crate::smtp::text::folder_name;

/// The folder of a mailbox, relative to the mail root.
pub fn folder(mailbox: &LocalMailbox) -> PathBuf {
    [folder_name(&mailbox.domain), folder_name(&mailbox.name)].iter().collect()
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
        assert_eq!(folder_of(""), "host.example/%");
    }

    #[test]
    fn every_name_is_one_folder_right_under_its_domain() {
        fn holds(name: String) -> bool {
            let mailbox = LocalMailbox { domain: "host.example".to_owned(), name: name.clone() };
            let path = folder(&mailbox);
            let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
            normal && path.components().count() == 2
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
