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

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// What makes a folder a Maildir.
const PARTS: [&str; 3] = ["tmp", "new", "cur"];
/// The system's number for "operation not permitted", the same on every Unix:
/// what a file system without hard links answers.
const EPERM: i32 = 1;

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

/// Puts the message `draft`, complete and on disk, into `maildir` as `name`.
pub fn deliver(draft: &Path, maildir: &Path, name: &str) -> io::Result<()> {
    let new = maildir.join("new");
    match fs::hard_link(draft, new.join(name)) {
        Err(error) if cannot_link(&error) => deliver_copy(draft, maildir, name)?,
        linked => linked?,
    }
    // The name is on disk only when the folder is.
    sync_folder(&new).inspect_err(|_| take_back(maildir, name))
}

/// Takes a delivery back, as far as it can be: what stays is a duplicate once
/// the client tries again, never a loss.
pub fn take_back(maildir: &Path, name: &str) {
    let _ = fs::remove_file(maildir.join("new").join(name));
}

/// Makes a file that did not exist, and that only its owner can read and write.
pub fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes a folder that only its owner can enter; one that is there already is fine.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Waits until the names in a folder are on disk.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether the two places can share no file: another file system, one without
/// links, or one with no link left for this file.
fn cannot_link(error: &io::Error) -> bool {
    let kinds = [ErrorKind::CrossesDevices, ErrorKind::TooManyLinks, ErrorKind::Unsupported];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(EPERM)
}

/// What the Maildir rules say: write to `tmp/`, sync, rename into `new/`.
fn deliver_copy(draft: &Path, maildir: &Path, name: &str) -> io::Result<()> {
    let temporary = maildir.join("tmp").join(name);
    let copy = || -> io::Result<()> {
        let mut file = create_file(&temporary)?;
        io::copy(&mut File::open(draft)?, &mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, maildir.join("new").join(name))
    };
    copy().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_delivery_is_a_second_name_for_the_same_file() {
        let root = tempfile::tempdir().unwrap();
        let draft = root.path().join("draft");
        fs::write(&draft, "hello\n").unwrap();
        make(root.path(), Path::new("ann")).unwrap();
        let maildir = root.path().join("ann");
        deliver(&draft, &maildir, "1.M1.host").unwrap();
        fs::remove_file(&draft).unwrap();
        assert_eq!(names(&maildir.join("new")), ["1.M1.host"]);
        assert_eq!(fs::read(maildir.join("new/1.M1.host")).unwrap(), b"hello\n");
        take_back(&maildir, "1.M1.host");
        assert!(names(&maildir.join("new")).is_empty());
    }

    #[test]
    fn a_copy_is_private_whole_and_leaves_nothing_in_tmp() {
        let root = tempfile::tempdir().unwrap();
        let draft = root.path().join("draft");
        fs::write(&draft, "hello\n").unwrap();
        make(root.path(), Path::new("ann")).unwrap();
        let maildir = root.path().join("ann");
        deliver_copy(&draft, &maildir, "1.M1.host").unwrap();
        let copy = maildir.join("new/1.M1.host");
        assert_eq!(fs::read(&copy).unwrap(), b"hello\n");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(names(&maildir.join("tmp")).is_empty());
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), Path::new("ann")).unwrap();
        let maildir = root.path().join("ann");
        assert!(deliver_copy(&root.path().join("missing"), &maildir, "1.M1.host").is_err());
        assert!(names(&maildir.join("tmp")).is_empty());
        assert!(names(&maildir.join("new")).is_empty());
    }

    #[test]
    fn only_errors_about_links_lead_to_a_copy() {
        assert!(cannot_link(&ErrorKind::CrossesDevices.into()));
        assert!(cannot_link(&ErrorKind::TooManyLinks.into()));
        assert!(cannot_link(&io::Error::from_raw_os_error(EPERM)));
        assert!(!cannot_link(&ErrorKind::PermissionDenied.into()));
        assert!(!cannot_link(&ErrorKind::NotFound.into()));
        assert!(!cannot_link(&ErrorKind::StorageFull.into()));
    }
}
