//! A message while it is received: one file in `spool/tmp`.
//!
//! In: parts of a message in file form, as they arrive. Out: a file that is
//! complete and on disk ([`Draft::sync`]), to which `spool.rs` gives as many names as
//! there are mailboxes. Until then nobody but us sees it, and when the
//! draft is dropped its own name goes, so a message that is refused half-way
//! leaves nothing behind.
//!
//! A message is never held in memory: what waits here is one buffer. It is 64 KiB while a
//! field is wanted above the message that is known only at its end.
//!
//! Book: docs/07-maildir.md.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::smtp::address::ReversePath;
use crate::smtp::dsn::MailDsn;
use crate::store::disk::{create_file, if_there, remove_file, rename, sync_file};
use crate::store::envelope::Letter;
use crate::store::header::{Facts, Header, Submission};

/// Room for a short letter in one write. What one read brought of a long one is larger than
/// this, and goes to the file as it is.
const BUFFER: usize = 8 * 1024;

/// How much of a letter waits in memory while a field is wanted above it that is known
/// only at its end. A longer one is copied once, behind that field.
const HELD: usize = 64 * 1024;

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
    /// Everything after our `Return-Path`, while it waits for a field above it.
    held: Option<Vec<u8>>,
}

/// Where the text of a letter goes: on, and past somebody who looks at it.
struct Passing<'a> {
    file: &'a mut BufWriter<File>,
    held: Option<&'a mut Vec<u8>>,
    seen: &'a mut dyn FnMut(&[u8]),
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
            received: crlf_octets(received),
            is_received_8bit: !received.is_ascii(),
            header: Header::new(submission),
            held: None,
        })
    }

    /// The same, but a field will be put above the text once all of it is known.
    pub fn create_held(
        path: PathBuf,
        trace_fields: &str,
        submission: Option<&Submission>,
    ) -> io::Result<Draft> {
        let (return_path, rest) = trace_fields.split_once('\n').unwrap_or((trace_fields, ""));
        let mut draft = Draft::create(path, &format!("{return_path}\n"), submission)?;
        draft.received = crlf_octets(rest);
        draft.is_received_8bit = !rest.is_ascii();
        draft.held = Some(rest.as_bytes().to_vec());
        Ok(draft)
    }

    /// Lets no verdict into the file that claims to be ours: see
    /// [`Header::drop_results_of`]. To be said before the message is written.
    pub fn drop_results_of(&mut self, our_name: &str) {
        self.header.drop_results_of(our_name);
    }

    /// Adds the next part of the message.
    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.write_seen(text, &mut |_| {})
    }

    /// The same, and shows `seen` what is let through.
    pub fn write_seen(&mut self, text: &[u8], seen: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let Draft { file, held, header, .. } = self;
        header.filter(text, &mut Passing { file, held: held.as_mut(), seen })?;
        if held.as_ref().is_some_and(|held| held.len() > HELD) {
            file.write_all(&held.take().unwrap_or_default())?;
        }
        Ok(())
    }

    /// After the last part: what is still missing of the text goes past `seen`, too.
    pub fn finish(&mut self, seen: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let Draft { file, held, header, .. } = self;
        header.finish(&mut Passing { file, held: held.as_mut(), seen })
    }

    /// Puts a field between our `Return-Path` and all the rest, in file form and with its
    /// line end, or nothing. To be said once, of a draft that was held, after
    /// [`Draft::finish`].
    pub fn put_above(&mut self, field: &str) -> io::Result<()> {
        self.received += crlf_octets(field);
        if let Some(held) = self.held.take() {
            self.file.write_all(field.as_bytes())?;
            return self.file.write_all(&held);
        }
        if field.is_empty() {
            return Ok(());
        }
        // Too long to wait in memory: what is in the file is copied behind the field.
        self.file.flush()?;
        let path = self.path.with_extension("whole");
        let copied = self.copy_behind(field, &path);
        if copied.is_err() {
            let _ = if_there(remove_file(&path));
        }
        self.file = copied?;
        Ok(())
    }

    fn copy_behind(&self, field: &str, path: &Path) -> io::Result<BufWriter<File>> {
        let mut old = File::open(&self.path)?;
        let mut new = create_file(path)?;
        io::copy(&mut (&mut old).take(self.return_path), &mut new)?;
        new.write_all(field.as_bytes())?;
        io::copy(&mut old, &mut new)?;
        rename(path, &self.path)?;
        Ok(BufWriter::with_capacity(BUFFER, new))
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
        self.finish(&mut |_| {})?;
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

impl Write for Passing<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        (self.seen)(octets);
        match &mut self.held {
            Some(held) => held.extend_from_slice(octets),
            None => self.file.write_all(octets)?,
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many octets lines in file form have as they are sent.
pub fn crlf_octets(lines: &str) -> u64 {
    (lines.len() + lines.lines().count()) as u64
}

/// The temporary name goes, unless the last of its other names took its place.
impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = if_there(remove_file(&self.path)) {
            log::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const TRACE: &str = "Return-Path: <a@b.example>\nReceived: by h\u{fc}lle\n\tand so on\n";
    const FIELD: &str = "DKIM-Signature: v=1\n\tb=x\n";

    /// A letter that was held, with a field above it: its file, and what is known of it.
    fn held(body: &str, field: &str) -> (String, Letter) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.x.example");
        let mut draft = Draft::create_held(path.clone(), TRACE, None).unwrap();
        for part in body.as_bytes().chunks(1000) {
            draft.write(part).unwrap();
        }
        draft.finish(&mut |_| {}).unwrap();
        draft.put_above(field).unwrap();
        draft.sync().unwrap();
        let letter = draft.letter(ReversePath::Null, MailDsn::default(), Timestamp::UNIX_EPOCH);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing else is left");
        (fs::read_to_string(path).unwrap(), letter)
    }

    #[test]
    fn a_field_stands_under_return_path_and_counts_whether_the_letter_was_held_or_copied() {
        let long = format!("Subject: x\n\n{}", "a line\n".repeat(20_000));
        for body in ["Subject: x\n\nhello\n", &long] {
            for field in [FIELD, ""] {
                let (file, letter) = held(body, field);
                let (return_path, rest) = TRACE.split_at(TRACE.find("Received").unwrap());
                assert!(
                    file == format!("{return_path}{field}{rest}{body}"),
                    "{} octets",
                    file.len()
                );
                let sent = file[letter.skip as usize..].replace('\n', "\r\n");
                assert!(sent.starts_with(if field.is_empty() { "Received" } else { "DKIM" }));
                assert_eq!(letter.size, sent.len() as u64);
                assert!(letter.is_8bit && letter.needs_smtputf8, "by our own field");
            }
        }
    }
}
