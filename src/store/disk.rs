//! Files and folders that survive a power cut, and that only their owner can read.
//!
//! What is written is on disk only after a sync, and so is a name: a folder is a
//! file of its own, which lists names. Who makes, links or renames a file has to
//! sync its folder as well.
//!
//! Book: docs/07-maildir.md.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

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
