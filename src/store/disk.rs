//! Files and folders that survive a power cut, and that only their owner can read.
//!
//! What is written is on disk only after a sync, and so is a name: a folder is a
//! file of its own, which lists names. Who makes, links or renames a file has to
//! sync its folder as well.
//!
//! Every change of a name and every sync on the way of a letter goes through this file.
//! So a test can stop between any two of them, as a `kill -9` would, and it can work out
//! what a power cut would leave of them (`disk/power.rs`).
//!
//! Book: docs/07-maildir.md.

#[cfg(test)]
pub mod power;
#[cfg(test)]
pub mod states;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What is older than this and belongs to nothing was left by a server that is gone:
/// a draft, a message without an envelope (the Maildir rules say 36 hours).
const LEFTOVER_AGE: Duration = Duration::from_secs(36 * 3600);

/// The system's number for "operation not permitted", the same on every Unix:
/// what a file system without hard links answers.
const EPERM: i32 = 1;

/// How a file gets another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One name more: there are others to come.
    Link,
    /// In the place of the one it has, so that nothing is left to remove.
    Move,
}

/// What is about to be done to the disk.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// A new file.
    Create(&'a Path),
    /// A file with nothing in it, new or not.
    Overwrite(&'a Path),
    /// A new folder.
    MakeFolder(&'a Path),
    /// One more name for a file.
    Link(&'a Path, &'a Path),
    /// Another name in the place of the old one.
    Rename(&'a Path, &'a Path),
    /// A name goes, of a file or an empty folder.
    Remove(&'a Path),
    /// What was written to a file has to last.
    SyncFile(&'a File),
    /// The names in a folder have to last.
    SyncFolder(&'a Path),
}

/// Tells a test of a change, and the test may let it fail. Outside of tests it is nothing.
/// Syncs are told apart by the line that asks for them, hence `track_caller`.
#[track_caller]
fn announce(change: Change) -> io::Result<()> {
    #[cfg(test)]
    return power::announced(change);
    #[cfg(not(test))]
    {
        let _ = change;
        Ok(())
    }
}

/// Makes a file that did not exist, and that only its owner can read and write.
pub fn create_file(path: &Path) -> io::Result<File> {
    announce(Change::Create(path))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The same, or the file of this name with nothing in it.
pub fn overwrite_file(path: &Path) -> io::Result<File> {
    announce(Change::Overwrite(path))?;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes a folder that only its owner can enter; one that is there already is fine.
pub fn make_folder(path: &Path) -> io::Result<()> {
    announce(Change::MakeFolder(path))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Gives a file one more name. A file that has it already stays, and the error says so.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    announce(Change::Link(from, to))?;
    fs::hard_link(from, to)
}

/// Gives a file another name in the place of the one it has. A file that has the
/// new name already is gone after it.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    announce(Change::Rename(from, to))?;
    fs::rename(from, to)
}

/// Takes a name away, and with its last name the file.
pub fn remove_file(path: &Path) -> io::Result<()> {
    announce(Change::Remove(path))?;
    fs::remove_file(path)
}

/// Takes an empty folder away.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    announce(Change::Remove(path))?;
    fs::remove_dir(path)
}

/// Gives the file `from` the name `to`; it may have it already. Where two places
/// cannot share a file it is copied, first into the folder `tmp`, which has to be on the
/// same file system as `to`: the Maildir rules say write to `tmp/`, sync, rename into
/// `new/`. The name is on disk when its folder is, which is left to the caller.
pub fn put(from: &Path, by: Way, to: &Path, tmp: &Path) -> io::Result<()> {
    let named = match by {
        Way::Link => link(from, to),
        Way::Move => rename(from, to),
    };
    match named {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if cannot_share(&error) => {
            let temporary = tmp.join(to.file_name().unwrap_or_default());
            copy(from, to, &temporary).inspect_err(|_| drop(remove_file(&temporary)))?;
            if by == Way::Move { remove_file(from) } else { Ok(()) }
        }
        named => named,
    }
}

fn copy(from: &Path, to: &Path, temporary: &Path) -> io::Result<()> {
    let mut file = overwrite_file(temporary)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    sync_file(&file)?;
    rename(temporary, to)
}

/// Whether the two places can share no file: another file system, one without
/// links, or one with no link left for this file.
fn cannot_share(error: &io::Error) -> bool {
    let kinds = [ErrorKind::CrossesDevices, ErrorKind::TooManyLinks, ErrorKind::Unsupported];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(EPERM)
}

/// Whether a disk, or somebody's share of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// What was found, or `None` where there is no such file.
pub fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Removes a file that is so old that nobody is still writing it. One that cannot be
/// looked at stays: another server on this spool may have removed it by now.
pub fn remove_leftover(path: &Path, now: SystemTime, what: &str) {
    let changed = fs::metadata(path).and_then(|data| data.modified());
    if changed.is_ok_and(|time| now.duration_since(time).unwrap_or_default() > LEFTOVER_AGE) {
        log::info!("removing {what}: {}", path.display());
        if let Err(error) = remove_file(path) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// Waits until what was written to a file is on disk. After an error the file must not
/// be used: the system may have dropped what it could not write, and would say that
/// all is well if it were asked again.
#[track_caller]
pub fn sync_file(file: &File) -> io::Result<()> {
    announce(Change::SyncFile(file))?;
    file.sync_all()
}

/// Waits until the names in a folder are on disk.
#[track_caller]
pub fn sync_folder(path: &Path) -> io::Result<()> {
    announce(Change::SyncFolder(path))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_copy_is_private_and_whole_and_leaves_no_temporary_name() {
        let root = tempfile::tempdir().unwrap();
        let [from, to, temporary] = ["from", "to", "temporary"].map(|name| root.path().join(name));
        fs::write(&from, "hello\n").unwrap();
        copy(&from, &to, &temporary).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"hello\n");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!temporary.exists());
    }

    #[test]
    fn a_name_that_cannot_be_given_leaves_the_file_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("from");
        fs::write(&from, "hello\n").unwrap();
        for by in [Way::Link, Way::Move] {
            let temporary = root.path().join("temporary");
            assert!(put(&from, by, &root.path().join("missing/to"), &temporary).is_err());
            assert!(from.exists() && !temporary.exists(), "{by:?}");
        }
    }

    #[test]
    fn a_sync_asks_the_system() {
        // Which has nothing to sync here, and says so.
        let nothing = Path::new("/dev/null");
        assert!(sync_file(&File::open(nothing).unwrap()).is_err());
        assert!(sync_folder(nothing).is_err());
    }

    #[test]
    fn only_errors_about_sharing_lead_to_a_copy() {
        assert!(cannot_share(&ErrorKind::CrossesDevices.into()));
        assert!(cannot_share(&ErrorKind::TooManyLinks.into()));
        assert!(cannot_share(&io::Error::from_raw_os_error(EPERM)));
        assert!(!cannot_share(&ErrorKind::PermissionDenied.into()));
        assert!(!cannot_share(&ErrorKind::NotFound.into()));
        assert!(!cannot_share(&ErrorKind::StorageFull.into()));
    }
}
