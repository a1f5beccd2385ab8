//! Files and folders that survive a power cut, and that only their owner can read.
//!
//! What is written is on disk only after a sync, and so is a name: a folder is a
//! file of its own, which lists names. Who makes, links or renames a file has to
//! sync its folder as well.
//!
//! Every change of a name on the way of a letter goes through this file. So a test
//! can stop between any two of them, as a `kill -9` would.
//!
//! Book: docs/07-maildir.md.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// What is older than this and belongs to nothing was left by a server that is gone:
/// a draft, a message without an envelope (the Maildir rules say 36 hours).
pub const LEFTOVER_AGE: Duration = Duration::from_secs(36 * 3600);

/// Makes a file that did not exist, and that only its owner can read and write.
pub fn create_file(path: &Path) -> io::Result<File> {
    power::spend()?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The same, or the file of this name with nothing in it.
pub fn overwrite_file(path: &Path) -> io::Result<File> {
    power::spend()?;
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes a folder that only its owner can enter; one that is there already is fine.
pub fn make_folder(path: &Path) -> io::Result<()> {
    power::spend()?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Gives a file one more name; a file that has it already stays.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    power::spend()?;
    fs::hard_link(from, to)
}

/// Gives a file another name in the place of the one it has. A file that has the
/// new name already is gone after it.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    power::spend()?;
    fs::rename(from, to)
}

/// Takes a name away, and with its last name the file.
pub fn remove_file(path: &Path) -> io::Result<()> {
    power::spend()?;
    fs::remove_file(path)
}

/// Waits until the names in a folder are on disk.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    power::spend()?;
    File::open(path)?.sync_all()
}

#[cfg(not(test))]
mod power {
    /// Outside of tests nothing stops by plan.
    pub fn spend() -> std::io::Result<()> {
        Ok(())
    }
}

/// The power of this thread's disk: once it is used up nothing changes any more,
/// whatever the program tries, just as if it had been killed there.
#[cfg(test)]
pub mod power {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Lets `changes` more changes happen, or with `None` any number.
    pub fn set(changes: Option<usize>) {
        LEFT.set(changes);
    }

    /// Uses one change up, or says that there is no power left.
    pub fn spend() -> io::Result<()> {
        match LEFT.get() {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
