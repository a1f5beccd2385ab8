//! The messages of one run: written, and found again in a Maildir.
//!
//! In: the number of a message. Out: the message as it is sent; and afterwards
//! which numbers are in a Maildir, how often, and whether they are whole.
//! Messages of other runs and of other people do not count.
//!
//! Book: docs/17-how-fast-how-many.md.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::{fs, process};

use jiff::fmt::rfc2822;
use jiff::{Timestamp, Zoned};

/// What the body is filled with, again and again.
const LINE: &str = "The quick brown fox jumps over the lazy dog, and so do all the others.\r\n";
/// What ends a message. It is sent with it, and is no part of it.
const FINAL_DOT: &str = ".\r\n";

/// Messages that are alike, but for a number.
pub struct Letters {
    /// How the Subject of these messages begins, and of no others.
    subject: String,
    /// The rest of the header.
    header: String,
    filler: String,
}

impl Letters {
    /// Messages to this address, of this many octets. The error is how many
    /// there have to be at least.
    pub fn new(to: &str, size: usize) -> Result<Letters, usize> {
        let run = format!("{}.{}", Timestamp::now().as_microsecond(), process::id());
        let date = rfc2822::to_string(&Zoned::now()).unwrap_or_default();
        let header = format!("From: <load@client.example>\r\nTo: <{to}>\r\nDate: {date}\r\n");
        let subject = format!("Subject: run {run}, message ");
        let mut letters = Letters { subject, header, filler: String::new() };
        let mut shortest = String::new();
        letters.write(0, &mut shortest);
        let least = shortest.len() - FINAL_DOT.len();
        let room = size.checked_sub(least).ok_or(least)?;
        letters.filler = LINE.chars().cycle().take(room).collect();
        // The cut may part a CR from its LF, and a CR alone would be refused.
        if letters.filler.ends_with('\r') {
            letters.filler.pop();
            letters.filler.push('.');
        }
        Ok(letters)
    }

    /// Puts message `number` into `letter`, as it is sent: with CR LF, and with
    /// the final dot. No line begins with a dot, so none is doubled. The number
    /// is in the first line and in the last one, always with ten digits, so that
    /// all messages have the same size.
    pub fn write(&self, number: usize, letter: &mut String) {
        let Letters { subject, header, filler } = self;
        letter.clear();
        // Writing to a String cannot fail.
        let _ = write!(letter, "{subject}{number:010}\r\n{header}\r\n{filler}\r\n");
        let _ = write!(letter, "end of message {number:010}\r\n{FINAL_DOT}");
    }

    /// The number of a stored message, and whether all of it is there; `None` if
    /// it is not one of these. A server may add header fields, and may have kept
    /// CR LF, so only the body is compared, without CR.
    fn recognise(&self, stored: &[u8]) -> Option<(usize, bool)> {
        let stored = String::from_utf8_lossy(stored).replace('\r', "");
        let (header, body) = stored.split_once("\n\n").unwrap_or((&stored, ""));
        let number = header.lines().find_map(|line| line.strip_prefix(&self.subject))?;
        let number = number.parse().ok()?;
        let mut sent = String::new();
        self.write(number, &mut sent);
        let sent = sent.replace('\r', "");
        let (_, sent) = sent.strip_suffix(".\n")?.split_once("\n\n")?;
        Some((number, sent == body))
    }
}

/// All files in a Maildir, read or not. One that does not exist has none: the
/// first letter may make it.
pub fn files(maildir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for part in ["new", "cur"] {
        let entries = match fs::read_dir(maildir.join(part)) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            files.push(entry?.path());
        }
    }
    Ok(files)
}

/// What was found of one run.
#[derive(Default)]
pub struct Found {
    /// How often each number is there, whole.
    pub whole: HashMap<usize, usize>,
    /// How many files hold only a part, or something else besides.
    pub broken: usize,
}

/// Looks at all files of a Maildir that were not there `before`.
pub fn count(letters: &Letters, maildir: &Path, before: &[PathBuf]) -> io::Result<Found> {
    let before: HashSet<&PathBuf> = before.iter().collect();
    let mut found = Found::default();
    for path in files(maildir)?.iter().filter(|path| !before.contains(path)) {
        match letters.recognise(&fs::read(path)?) {
            Some((number, true)) => *found.whole.entry(number).or_default() += 1,
            Some((_, false)) => found.broken += 1,
            None => {}
        }
    }
    Ok(found)
}
