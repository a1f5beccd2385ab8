//! The envelope of a letter in the queue, as text that a person can read.
//!
//! In: what the session knew of a letter, or the text of an envelope. Out: an
//! [`Entry`], whose `Display` is that text: SMTP's own words where SMTP has them.
//! Nothing here touches a file.
//!
//! Left to others: where the text is kept (`queue.rs`), and what becomes of the
//! recipients (`relay/`).
//!
//! Book: docs/14-the-queue.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufRead, BufReader, Read};

use jiff::Timestamp;

use crate::smtp::address::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::text::printable;

/// The first line of every envelope: which form the others have.
const FORM: &str = "ehlo-queue 1";
/// Room for a part of a message while it is measured.
const BUFFER: usize = 64 * 1024;

/// One letter on its way, as its envelope says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When we took it.
    pub arrived: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is to be tried again.
    pub next: Timestamp,
    /// How many octets of the file are our own `Return-Path` line, which nobody
    /// else may get (RFC 5321 section 4.4).
    pub skip: u64,
    /// Its size as sent, without them: line ends are two octets, no dots are
    /// stuffed (RFC 1870 section 5).
    pub size: u64,
    /// Whether it has octets outside ASCII (RFC 6152).
    pub is_8bit: bool,
    /// Whether it came with SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Where errors are reported to.
    pub reverse_path: ReversePath,
    /// Who it is for; one or more.
    pub recipients: Vec<Recipient>,
}

/// One recipient of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The address, elsewhere.
    pub address: Mailbox,
    /// What became of it.
    pub state: State,
    /// What was said about it last, on one line; empty before the first attempt.
    pub last: String,
}

/// What became of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing final yet.
    Waiting,
    /// The next hop has the letter.
    Delivered,
    /// The sender was told that it will not get there.
    Failed,
}

/// What a new entry is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where errors are reported to.
    pub reverse_path: ReversePath,
    /// Whether it came with SMTPUTF8.
    pub smtputf8: bool,
    /// Who it is for, elsewhere; one or more, no two alike.
    pub recipients: Vec<Mailbox>,
    /// When we took it.
    pub arrived: Timestamp,
}

/// A line of an envelope that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEnvelope {
    /// Counts from 1; 0 if a line is missing.
    pub line: usize,
    /// What was expected.
    pub expected: &'static str,
}

impl Entry {
    /// A letter that was never tried. Its message is read once, to measure it.
    pub fn new(letter: &Letter, message: &mut impl Read) -> io::Result<Entry> {
        let mut message = BufReader::with_capacity(BUFFER, message);
        let mut return_path = Vec::new();
        let skip = message.read_until(b'\n', &mut return_path)? as u64;
        let (mut size, mut is_8bit) = (0, false);
        loop {
            let part = message.fill_buf()?;
            if part.is_empty() {
                break;
            }
            let line_ends = part.iter().filter(|octet| **octet == b'\n').count();
            size += (part.len() + line_ends) as u64;
            is_8bit |= !part.is_ascii();
            let read = part.len();
            message.consume(read);
        }
        let waiting = |address: &Mailbox| Recipient {
            address: address.clone(),
            state: State::Waiting,
            last: String::new(),
        };
        Ok(Entry {
            arrived: letter.arrived,
            attempts: 0,
            next: letter.arrived,
            skip,
            size,
            is_8bit,
            smtputf8: letter.smtputf8,
            reverse_path: letter.reverse_path.clone(),
            recipients: letter.recipients.iter().map(waiting).collect(),
        })
    }

    /// Whether there is a recipient with nothing final yet.
    pub fn is_waiting(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.state == State::Waiting)
    }

    /// Reads an envelope: exactly what [`Entry`]'s `Display` writes.
    pub fn parse(text: &[u8]) -> Result<Entry, BadEnvelope> {
        let bad = |line, expected| BadEnvelope { line, expected };
        let text = str::from_utf8(text).map_err(|_| bad(0, "UTF-8"))?;
        // Every line has its end, or the file was cut short.
        let text = text.strip_suffix('\n').ok_or(bad(0, "a line end at the end"))?;
        let mut lines = text.split('\n').zip(1..);
        let mut field = |prefix: &'static str| match lines.next() {
            Some((line, number)) => {
                line.strip_prefix(prefix).map(|rest| (rest, number)).ok_or(bad(number, prefix))
            }
            None => Err(bad(0, prefix)),
        };
        let (version, line) = field("ehlo-queue ")?;
        if FORM.strip_prefix("ehlo-queue ") != Some(version) {
            return Err(bad(line, FORM));
        }
        let mut time = |prefix| {
            let (text, line) = field(prefix)?;
            text.parse::<Timestamp>().map_err(|_| bad(line, "a time such as 2026-11-22T05:14:39Z"))
        };
        let (arrived, next) = (time("ARRIVED ")?, time("NEXT ")?);
        let mut number = |prefix| {
            let (text, line) = field(prefix)?;
            text.parse::<u64>().map_err(|_| bad(line, "a number"))
        };
        let (attempts, skip) = (number("ATTEMPTS ")?, number("SKIP ")?);
        let (mail, line) = field("MAIL FROM:")?;
        let (reverse_path, parameters) =
            ReversePath::parse(mail).map_err(|_| bad(line, "MAIL FROM:<address>"))?;
        let parameters: Vec<&str> = parameters.split_ascii_whitespace().collect();
        let size = parameters.iter().find_map(|one| one.strip_prefix("SIZE="));
        let size = size.and_then(|size| size.parse().ok()).ok_or(bad(line, "SIZE="))?;
        let mut recipients = Vec::new();
        for (line, number) in lines {
            let recipient = line.strip_prefix("RCPT TO:").and_then(Recipient::parse);
            recipients.push(recipient.ok_or(bad(number, "RCPT TO:<address> STATE"))?);
        }
        if recipients.is_empty() {
            return Err(bad(0, "RCPT TO:<address> STATE"));
        }
        Ok(Entry {
            arrived,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            next,
            skip,
            size,
            is_8bit: parameters.contains(&"BODY=8BITMIME"),
            smtputf8: parameters.contains(&"SMTPUTF8"),
            reverse_path,
            recipients,
        })
    }
}

impl Recipient {
    /// Reads what stands behind `RCPT TO:`.
    fn parse(text: &str) -> Option<Recipient> {
        let Ok((ForwardPath::Mailbox(address), rest)) = ForwardPath::parse(text) else {
            return None;
        };
        let (state, last) = rest.strip_prefix(' ')?.split_once(' ')?;
        let state = match state {
            "WAITING" => State::Waiting,
            "DELIVERED" => State::Delivered,
            "FAILED" => State::Failed,
            _ => return None,
        };
        Some(Recipient { address, state, last: last.to_owned() })
    }
}

/// The form that stands in the file.
impl Display for Entry {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let body = if self.is_8bit { " BODY=8BITMIME" } else { "" };
        let smtputf8 = if self.smtputf8 { " SMTPUTF8" } else { "" };
        writeln!(f, "{FORM}\nARRIVED {}\nNEXT {}", self.arrived, self.next)?;
        writeln!(f, "ATTEMPTS {}\nSKIP {}", self.attempts, self.skip)?;
        writeln!(f, "MAIL FROM:{} SIZE={}{body}{smtputf8}", self.reverse_path, self.size)?;
        for Recipient { address, state, last } in &self.recipients {
            let state = match state {
                State::Waiting => "WAITING",
                State::Delivered => "DELIVERED",
                State::Failed => "FAILED",
            };
            // What a server said must not become a line of its own.
            writeln!(f, "RCPT TO:<{address}> {state} {}", one_line(last))?;
        }
        Ok(())
    }
}

impl Display for BadEnvelope {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self.line {
            0 => write!(f, "expected {}", self.expected),
            line => write!(f, "line {line}: expected {}", self.expected),
        }
    }
}

impl std::error::Error for BadEnvelope {}

fn one_line(text: &str) -> String {
    match text.chars().any(char::is_control) {
        true => printable(text),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Return-Path: <ann@client.example>\nSubject: x\n\nGr\u{fc}\u{df}e\n";

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap().0
    }

    fn letter() -> Letter {
        Letter {
            reverse_path: ReversePath::Mailbox(mailbox("ann@client.example")),
            smtputf8: false,
            recipients: vec![mailbox("cem@b.example")],
            arrived: Timestamp::now(),
        }
    }

    #[test]
    fn an_envelope_can_be_read_as_it_was_written() {
        fn holds(
            seconds: u32,
            numbers: (u32, u64, u64),
            flags: (bool, bool),
            last: String,
        ) -> bool {
            let recipient = |address, state| Recipient { address, state, last: one_line(&last) };
            let entry = Entry {
                arrived: Timestamp::from_second(i64::from(seconds)).unwrap(),
                attempts: numbers.0,
                next: Timestamp::from_microsecond(i64::from(seconds) * 7).unwrap(),
                skip: numbers.1,
                size: numbers.2,
                is_8bit: flags.0,
                smtputf8: flags.1,
                reverse_path: ReversePath::Null,
                recipients: vec![
                    recipient(mailbox("\"a > b\"@b.example"), State::Waiting),
                    recipient(mailbox("gr\u{fc}n@[192.0.2.1]"), State::Delivered),
                    recipient(mailbox("x@[IPv6:2001:db8::1]"), State::Failed),
                ],
            };
            Entry::parse(entry.to_string().as_bytes()) == Ok(entry)
        }
        quickcheck::quickcheck(holds as fn(u32, (u32, u64, u64), (bool, bool), String) -> bool);
    }

    #[test]
    fn an_envelope_that_lost_a_part_is_no_envelope() {
        let entry = Entry::new(&letter(), &mut TEXT.as_bytes()).unwrap();
        let whole = entry.to_string();
        assert_eq!(Entry::parse(whole.as_bytes()), Ok(entry));
        for end in 0..whole.len() {
            assert!(Entry::parse(&whole.as_bytes()[..end]).is_err(), "{}", &whole[..end]);
        }
        for (line, text) in whole.lines().enumerate() {
            let other = whole.replace(text, "QUIT");
            assert_eq!(Entry::parse(other.as_bytes()).unwrap_err().line, line + 1, "{other}");
        }
    }
}
