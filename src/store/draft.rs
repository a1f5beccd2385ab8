//! A message while it is received: one file in `spool/tmp`.
//!
//! In: parts of a message in file form, as they arrive. Out: a file that is
//! complete and on disk ([`Draft::sync`]), to which `spool.rs` gives as many names as
//! there are mailboxes. Until then nobody but us sees it, and when the
//! draft is dropped its own name goes, so a message that is refused half-way
//! leaves nothing behind.
//!
//! A message is never held in memory: what waits here is one buffer.
//!
//! Book: docs/07-maildir.md.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::smtp::address::ReversePath;
use crate::smtp::dsn::MailDsn;
use crate::store::disk::{create_file, if_there, remove_file, sync_file};
use crate::store::envelope::Letter;
use crate::store::header::{Facts, Header, Submission};

/// Room for a short letter in one write. What one read brought of a long one is larger than
/// this, and goes to the file as it is.
const BUFFER: usize = 8 * 1024;

/// A message that is not complete yet, or complete and not delivered yet.
#[derive(Debug)]
pub struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    /// How many octets our `Return-Path` line has, and the rest of what we wrote in
    /// front, as sent; and whether that has octets outside ASCII.
    return_path: u64,
    received: u64,
    is_received_8bit: bool,
    header: Header,
}

impl Draft {
    /// Makes the file, readable by its owner only, and begins it with our
    /// `trace_fields`. What a user submits is put right. A file of that name must not
    /// exist.
    pub fn create(
        path: PathBuf,
        trace_fields: &str,
        submission: Option<&Submission>,
    ) -> io::Result<Draft> {
        let mut file = BufWriter::with_capacity(BUFFER, create_file(&path)?);
        file.write_all(trace_fields.as_bytes())?;
        let (return_path, received) = trace_fields.split_once('\n').unwrap_or((trace_fields, ""));
        Ok(Draft {
            file,
            path,
            return_path: return_path.len() as u64 + 1,
            received: (received.len() + received.lines().count()) as u64,
            is_received_8bit: !received.is_ascii(),
            header: Header::new(submission),
        })
    }

    /// Adds the next part of the message.
    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.header.filter(text, &mut self.file)
    }

    /// What is known of the message, without our trace fields; complete after
    /// [`Draft::sync`].
    pub fn facts(&self) -> &Facts {
        self.header.facts()
    }

    /// Waits until the whole file is on disk. After an error the file must not
    /// be used: the system may have dropped what it could not write, and would
    /// say that all is well if it were asked again.
    pub fn sync(&mut self) -> io::Result<()> {
        self.header.finish(&mut self.file)?;
        self.file.flush()?;
        sync_file(self.file.get_ref())
    }

    /// What is known of the message for those who carry it on; complete after
    /// [`Draft::sync`]. Our `Return-Path`, the first line, does not go along.
    pub fn letter(&self, reverse_path: ReversePath, dsn: MailDsn, arrived: Timestamp) -> Letter {
        let Facts { is_header_8bit, is_body_8bit, crlf_octets, .. } = *self.facts();
        let is_header_8bit = is_header_8bit || self.is_received_8bit;
        Letter {
            reverse_path,
            dsn,
            arrived,
            skip: self.return_path,
            size: self.received + crlf_octets,
            is_8bit: is_header_8bit || is_body_8bit,
            needs_smtputf8: is_header_8bit,
        }
    }

    /// Where it is, until its last name takes the place of this one.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The temporary name goes, unless the last of its other names took its place.
impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = if_there(remove_file(&self.path)) {
            log::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}
