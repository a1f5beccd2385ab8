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
use std::path::{Path, PathBuf};

use crate::store::disk::{Way, make_folder, put, remove_file, rename, sync_folder};

/// The folders of one mailbox.
#[derive(Debug)]
pub struct Maildir {
    /// From the root of all mail down to the mailbox.
    way: Vec<PathBuf>,
    tmp: PathBuf,
    new: PathBuf,
    cur: PathBuf,
}

impl Maildir {
    /// The Maildir `folder` below `root`. Nothing is made yet.
    pub fn new(root: &Path, folder: &Path) -> Maildir {
        let mut way = vec![root.to_owned()];
        let mut last = root.to_owned();
        for part in folder {
            last.push(part);
            way.push(last.clone());
        }
        Maildir { way, tmp: last.join("tmp"), new: last.join("new"), cur: last.join("cur") }
    }

    /// Makes all of it, or what is missing, and waits until it is on disk. The root has
    /// to exist.
    pub fn make(&self) -> io::Result<()> {
        for (parent, child) in self.way.iter().zip(self.way.iter().skip(1)) {
            make_folder(child)?;
            // Synced even if another thread made the child: it may not have got here yet.
            sync_folder(parent)?;
        }
        for part in [&self.tmp, &self.new, &self.cur] {
            make_folder(part)?;
        }
        self.way.last().map_or(Ok(()), |folder| sync_folder(folder))
    }

    /// Whether the parts are there that a delivery does not need: without `new` it fails by
    /// itself. Another program may have removed one while we run.
    pub fn is_whole(&self) -> bool {
        self.cur.is_dir() && self.tmp.is_dir()
    }

    /// Puts the message at `from`, complete and on disk, here as `name`.
    pub fn deliver(&self, from: &Path, by: Way, name: &str) -> io::Result<()> {
        let to = self.new.join(name);
        put(from, by, &to, &self.tmp)?;
        // The name is on disk only when the folder is.
        sync_folder(&self.new).inspect_err(|_| match by {
            Way::Link => self.take_back(name),
            // It has no other name: what cannot go back stays here.
            Way::Move => drop(rename(&to, from)),
        })
    }

    /// Takes a delivery back, as far as it can be: what stays is a duplicate once
    /// the client tries again, never a loss.
    pub fn take_back(&self, name: &str) {
        let _ = remove_file(&self.new.join(name));
    }
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
            Maildir::new(root.path(), folder).make().unwrap();
            for part in ["tmp", "new", "cur"] {
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
        let maildir = Maildir::new(root.path(), Path::new("ann"));
        maildir.make().unwrap();
        let (new, draft) = (root.path().join("ann/new"), root.path().join("draft"));
        fs::write(&draft, "hello\n").unwrap();
        for (by, name) in [(Way::Link, "1.M1.host"), (Way::Move, "2.M2.host")] {
            maildir.deliver(&draft, by, name).unwrap();
            assert_eq!(fs::read(new.join(name)).unwrap(), b"hello\n");
        }
        maildir.take_back("1.M1.host");
        assert_eq!(names(&new), ["2.M2.host"]);
        assert_eq!(names(root.path()), ["ann"]);
    }

    #[test]
    fn a_delivery_that_cannot_be_made_to_last_gives_a_moved_file_back() {
        let root = tempfile::tempdir().unwrap();
        let maildir = Maildir::new(root.path(), Path::new("ann"));
        maildir.make().unwrap();
        let (new, draft) = (root.path().join("ann/new"), root.path().join("draft"));
        fs::write(&draft, "hello\n").unwrap();
        for by in [Way::Link, Way::Move] {
            // The name is given, and the sync of its folder fails.
            power::fail_at(2);
            assert!(maildir.deliver(&draft, by, "1.M1.host").is_err());
            power::set(None);
            assert!(draft.exists() && names(&new).is_empty(), "{by:?}");
        }
    }
}
