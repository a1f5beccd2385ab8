//! A message while it is received: one file in `spool/tmp`.
//!
//! In: parts of a message in file form, as they arrive. Out: a file that is
//! complete and on disk ([`Draft::sync`]), and then as many names for it as there
//! are mailboxes ([`Draft::put`]). Until then nobody but us sees it, and when the
//! draft is dropped its own name goes, so a message that is refused half-way
//! leaves nothing behind.
//!
//! A message is never held in memory: what waits here is one buffer.
//!
//! Book: docs/07-maildir.md.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::store::disk::{create_file, link, remove_file, rename};
use crate::store::header::{Field, Header};

/// Room for a short letter in one write; a long one takes few.
const BUFFER: usize = 64 * 1024;
/// The system's number for "operation not permitted", the same on every Unix:
/// what a file system without hard links answers.
const EPERM: i32 = 1;

/// A message that is not complete yet, or complete and not delivered yet.
#[derive(Debug)]
pub struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    header: Header,
    /// Whether its last name took the place of the temporary one.
    is_moved: bool,
}

/// How a draft gets another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One name more: there are others to come.
    Link,
    /// In the place of the temporary name, so that nothing is left to remove.
    Move,
}

impl Draft {
    /// Makes the file, readable by its owner only, and begins it with our
    /// `trace_fields`; the fields `wanted` are added unless the message has them.
    /// A file of that name must not exist.
    pub fn create(path: PathBuf, trace_fields: &str, wanted: Vec<Field>) -> io::Result<Draft> {
        let file = BufWriter::with_capacity(BUFFER, create_file(&path)?);
        let mut draft = Draft { file, path, header: Header::with(wanted), is_moved: false };
        draft.file.write_all(trace_fields.as_bytes())?;
        Ok(draft)
    }

    /// Adds the next part of the message.
    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.header.filter(text, &mut self.file)
    }

    /// How many `Received` fields the message brought along.
    pub fn received_fields(&self) -> usize {
        self.header.received()
    }

    /// Waits until the whole file is on disk. After an error the file must not
    /// be used: the system may have dropped what it could not write, and would
    /// say that all is well if it were asked again.
    pub fn sync(&mut self) -> io::Result<()> {
        self.header.finish(&mut self.file)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    /// The file from its beginning; complete after [`Draft::sync`].
    pub fn reader(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Gives the file the name `to`. Where two places cannot share a file it is
    /// copied, first to `temporary`, which has to be on the same file system as
    /// `to`. The name is on disk when its folder is, which is left to the caller.
    pub fn put(&mut self, by: Way, to: &Path, temporary: &Path) -> io::Result<()> {
        let named = match by {
            Way::Link => link(&self.path, to),
            Way::Move => rename(&self.path, to),
        };
        match named {
            Err(error) if cannot_share(&error) => self.copy(to, temporary),
            named => {
                self.is_moved = by == Way::Move && named.is_ok();
                named
            }
        }
    }

    /// What the Maildir rules say: write to `tmp/`, sync, rename into `new/`.
    fn copy(&self, to: &Path, temporary: &Path) -> io::Result<()> {
        let copy = || -> io::Result<()> {
            let mut file = create_file(temporary)?;
            io::copy(&mut self.reader()?, &mut file)?;
            file.sync_all()?;
            rename(temporary, to)
        };
        copy().inspect_err(|_| drop(remove_file(temporary)))
    }
}

/// Whether the two places can share no file: another file system, one without
/// links, or one with no link left for this file.
fn cannot_share(error: &io::Error) -> bool {
    let kinds = [ErrorKind::CrossesDevices, ErrorKind::TooManyLinks, ErrorKind::Unsupported];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(EPERM)
}

/// The temporary name goes. Mailboxes have names of their own for the file.
impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_moved {
            return;
        }
        if let Err(error) = remove_file(&self.path) {
            log::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn draft(folder: &Path) -> Draft {
        let mut draft = Draft::create(folder.join("draft"), "hello\n", Vec::new()).unwrap();
        draft.sync().unwrap();
        draft
    }

    #[test]
    fn a_copy_is_private_and_whole_and_leaves_no_temporary_name() {
        let root = tempfile::tempdir().unwrap();
        let (copy, temporary) = (root.path().join("copy"), root.path().join("temporary"));
        draft(root.path()).copy(&copy, &temporary).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"hello\n");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!temporary.exists());
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (to, temporary) = (root.path().join("missing/copy"), root.path().join("temporary"));
        assert!(draft(root.path()).copy(&to, &temporary).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_cannot_be_given_leaves_the_draft_to_its_owner() {
        let root = tempfile::tempdir().unwrap();
        for by in [Way::Link, Way::Move] {
            let mut draft = draft(root.path());
            assert!(draft.put(by, &root.path().join("missing/x"), &root.path().join("t")).is_err());
            drop(draft);
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{by:?}");
        }
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
