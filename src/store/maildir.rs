//! One mailbox as a Maildir: a folder with `tmp`, `new` and `cur` in it.
//!
//! In: a complete message on disk. Out: a file in `new/`, there for good once
//! the call returns, and never visible in part: a link or a rename shows all of
//! a file or nothing. Mail readers move it on to `cur/`.
//!
//! All mailboxes share the one file a message was written to, by hard links. So
//! nobody may change it in place; the Maildir rules do not allow that anyway.
//!
//! Book: docs/07-maildir.md.

use std::io;
use std::path::Path;

use crate::store::disk::{Way, make_folder, put, remove_file, rename, sync_folder};

/// What makes a folder a Maildir.
const PARTS: [&str; 3] = ["tmp", "new", "cur"];

/// Makes the Maildir `folder` below `root`, or what is missing of it, and waits
/// until all of it is on disk. `root` has to exist.
pub fn make(root: &Path, folder: &Path) -> io::Result<()> {
    let mut parent = root.to_owned();
    for part in folder {
        let child = parent.join(part);
        make_folder(&child)?;
        // Synced even if another thread made the child: it may not have got here yet.
        sync_folder(&parent)?;
        parent = child;
    }
    for part in PARTS {
        make_folder(&parent.join(part))?;
    }
    sync_folder(&parent)
}

/// Whether nothing of the Maildir `folder` is missing. Another program may have removed
/// a part of it while we run.
pub fn is_whole(folder: &Path) -> bool {
    PARTS.iter().all(|part| folder.join(part).is_dir())
}

/// Puts the message at `from`, complete and on disk, into `maildir` as `name`.
pub fn deliver(from: &Path, by: Way, maildir: &Path, name: &str) -> io::Result<()> {
    let new = maildir.join("new");
    put(from, by, &new.join(name), &maildir.join("tmp").join(name))?;
    // The name is on disk only when the folder is.
    sync_folder(&new).inspect_err(|_| match by {
        Way::Link => take_back(maildir, name),
        // It has no other name: what cannot go back stays here.
        Way::Move => drop(rename(&new.join(name), from)),
    })
}

/// Takes a delivery back, as far as it can be: what stays is a duplicate once
/// the client tries again, never a loss.
pub fn take_back(maildir: &Path, name: &str) {
    let _ = remove_file(&maildir.join("new").join(name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::power;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_maildir_is_made_private_and_made_again_where_parts_are_missing() {
        let root = tempfile::tempdir().unwrap();
        let folder = Path::new("host.example/ann");
        for _ in 0..2 {
            make(root.path(), folder).unwrap();
            for part in PARTS {
                let path = root.path().join(folder).join(part);
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o700);
                fs::remove_dir(path).unwrap();
            }
        }
    }

    #[test]
    fn a_delivery_is_a_second_name_for_the_same_file_and_can_be_taken_back() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), Path::new("ann")).unwrap();
        let (maildir, draft) = (root.path().join("ann"), root.path().join("draft"));
        fs::write(&draft, "hello\n").unwrap();
        for (by, name) in [(Way::Link, "1.M1.host"), (Way::Move, "2.M2.host")] {
            deliver(&draft, by, &maildir, name).unwrap();
            assert_eq!(fs::read(maildir.join("new").join(name)).unwrap(), b"hello\n");
        }
        take_back(&maildir, "1.M1.host");
        assert_eq!(names(&maildir.join("new")), ["2.M2.host"]);
        assert_eq!(names(root.path()), ["ann"]);
    }

    #[test]
    fn a_delivery_that_cannot_be_made_to_last_gives_a_moved_file_back() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), Path::new("ann")).unwrap();
        let (maildir, draft) = (root.path().join("ann"), root.path().join("draft"));
        fs::write(&draft, "hello\n").unwrap();
        for by in [Way::Link, Way::Move] {
            // The name is given, and the sync of its folder fails.
            power::fail_at(2);
            assert!(deliver(&draft, by, &maildir, "1.M1.host").is_err());
            power::set(None);
            assert!(draft.exists() && names(&maildir.join("new")).is_empty(), "{by:?}");
        }
    }
}
