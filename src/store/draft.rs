//! A message while it is received: one file in `spool/tmp`.
//!
//! In: parts of a message in file form, as they arrive. Out: a file that is
//! complete and on disk ([`Draft::sync`]), ready to be linked into mailboxes.
//! Until then nobody but us sees it, and when it is dropped the file goes, so a
//! message that is refused half-way leaves nothing behind.
//!
//! A message is never held in memory: what waits here is one buffer.
//!
//! Book: docs/07-maildir.md.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::store::header::{Field, Header};
use crate::store::maildir;

/// Room for a short letter in one write.
const BUFFER: usize = 16 * 1024;

/// A message that is not complete yet, or complete and not delivered yet.
#[derive(Debug)]
pub struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    header: Header,
}

impl Draft {
    /// Makes the file, readable by its owner only, and begins it with our
    /// `trace_fields`; the fields `wanted` are added unless the message has them.
    /// A file of that name must not exist.
    pub fn create(path: PathBuf, trace_fields: &str, wanted: Vec<Field>) -> io::Result<Draft> {
        let file = BufWriter::with_capacity(BUFFER, maildir::create_file(&path)?);
        let mut draft = Draft { file, path, header: Header::with(wanted) };
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

    /// Where the file is, for as long as the draft lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The temporary name goes. Mailboxes have names of their own for the file.
impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}
