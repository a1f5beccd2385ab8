//! A look at the header of a message while it streams by.
//!
//! In: the message, in file form, cut anywhere. Out: the same, less every
//! `Return-Path` field, since only the last server of a letter's way may write
//! one (RFC 5321 section 4.4); and the number of `Received` fields, since too
//! many mean that it goes round in circles (section 6.3). A message that begins
//! with a blank, and so would go on with our last field, gets an empty line first,
//! and a message from one of our users the `Date` and `Message-ID` that it lacks
//! (RFC 6409 section 8). All other octets pass unchanged, and nothing after the
//! header is looked at.
//!
//! Book: docs/07-maildir.md.

use std::io::{self, Write};

/// The start of a line is kept back until its field name is known, but never
/// more of it than this: longer names, or more blanks behind one, are none of ours.
const NAME_LIMIT: usize = 64;

/// Reads field names, and lets everything through but `Return-Path`.
#[derive(Debug)]
pub struct Header {
    at: At,
    /// The start of a line, kept back until it is decided.
    name: Vec<u8>,
    received: usize,
    /// What to add where the header ends, unless it is there.
    wanted: Vec<Field>,
}

/// A field that a message should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Such as `Date`.
    pub name: &'static str,
    /// What stands behind the colon, on one line.
    pub value: String,
}

/// Where in the header the next octet is.
#[derive(Debug, Clone, Copy)]
enum At {
    /// A line begins. The field before it was kept, or dropped, or there was none.
    LineStart(Option<Fate>),
    /// In a field name, or so it seems.
    Name,
    /// Behind the colon, or in a folded line.
    Value(Fate),
    /// Past the empty line, or past a line that is no header field.
    Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Dropped,
}

impl Default for Header {
    fn default() -> Header {
        Header { at: At::LineStart(None), name: Vec::new(), received: 0, wanted: Vec::new() }
    }
}

impl Header {
    /// Adds these fields where the header ends, each unless it is there already.
    pub fn with(wanted: Vec<Field>) -> Header {
        Header { wanted, ..Header::default() }
    }

    /// How many `Received` fields there were so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// Passes the next part of a message on to `out`. A message in file form
    /// ends with LF, and an LF decides every line, so nothing stays behind.
    pub fn filter(&mut self, mut text: &[u8], out: &mut impl Write) -> io::Result<()> {
        while let Some((&octet, rest)) = text.split_first() {
            match self.at {
                At::Body => return out.write_all(text),
                At::Value(fate) => {
                    let end = text.iter().position(|octet| *octet == b'\n');
                    let (line, after) = text.split_at(end.map_or(text.len(), |at| at + 1));
                    if fate == Fate::Kept {
                        out.write_all(line)?;
                    }
                    if end.is_some() {
                        self.at = At::LineStart(Some(fate));
                    }
                    text = after;
                }
                // A folded line shares the fate of its field (RFC 5322 section 2.2.3).
                At::LineStart(Some(fate)) if is_blank(octet) => self.at = At::Value(fate),
                // A message may not begin so. Behind our own fields such a line would
                // be a folded part of the last one, and say what we never said.
                At::LineStart(None) if is_blank(octet) => {
                    self.finish(out)?;
                    out.write_all(b"\n")?;
                    self.at = At::Body;
                }
                At::LineStart(_) => self.at = At::Name,
                At::Name => {
                    self.name.push(octet);
                    if let Some(at) = after_name(&self.name) {
                        self.at = at;
                        match at {
                            At::Value(_) => {
                                self.received += usize::from(is_called(&self.name, "Received"));
                                self.wanted.retain(|field| !is_called(&self.name, field.name));
                            }
                            At::Body => self.add_wanted(out)?,
                            At::Name | At::LineStart(_) => {}
                        }
                        if !matches!(at, At::Value(Fate::Dropped)) {
                            out.write_all(&self.name)?;
                        }
                        self.name.clear();
                    }
                    text = rest;
                }
            }
        }
        Ok(())
    }
}

impl Header {
    /// To be called after the last part of the message: a header may be all of it.
    pub fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        for field in self.wanted.drain(..) {
            writeln!(out, "{}: {}", field.name, field.value)?;
        }
        Ok(())
    }

    /// The header is over. If no empty line ended it, fields of ours need one.
    fn add_wanted(&mut self, out: &mut impl Write) -> io::Result<()> {
        let needs_empty_line = !self.wanted.is_empty() && self.name != b"\n";
        self.finish(out)?;
        if needs_empty_line { out.write_all(b"\n") } else { Ok(()) }
    }
}

/// What the start of a line begins; `None` if that is still open.
fn after_name(start: &[u8]) -> Option<At> {
    let (&octet, before) = start.split_last()?;
    let is_blank_inside = before.last().copied().is_some_and(is_blank);
    match octet {
        b':' if is_called(start, "Return-Path") => Some(At::Value(Fate::Dropped)),
        b':' => Some(At::Value(Fate::Kept)),
        // An empty line ends the header; a line that is no field was never in it.
        _ if is_blank(octet) && before.is_empty() => Some(At::Body),
        _ if is_name(octet) && is_blank_inside => Some(At::Body),
        _ if !is_name(octet) && !is_blank(octet) => Some(At::Body),
        _ if start.len() == NAME_LIMIT => Some(At::Value(Fate::Kept)),
        _ => None,
    }
}

/// Whether the start of a line is this field name. Old programs put blanks
/// between the name and the colon (RFC 5322 section 4.5).
fn is_called(start: &[u8], name: &str) -> bool {
    let start = start.strip_suffix(b":").unwrap_or(start);
    start.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes())
}

fn is_blank(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

/// An octet of a field name: printable, no colon (RFC 5322 section 3.6.8).
fn is_name(octet: u8) -> bool {
    (b'!'..=b'~').contains(&octet) && octet != b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filtered text and the count, fed in parts of `part` octets.
    fn filter(text: &str, part: usize) -> (String, usize) {
        let mut header = Header::default();
        let mut out = Vec::new();
        for octets in text.as_bytes().chunks(part) {
            header.filter(octets, &mut out).unwrap();
        }
        (String::from_utf8(out).unwrap(), header.received())
    }

    fn check(text: &str, kept: &str, received: usize) {
        for part in 1..=text.len() {
            assert_eq!(filter(text, part), (kept.to_owned(), received), "in parts of {part}");
        }
    }

    #[test]
    fn return_path_goes_with_its_folded_lines_and_the_rest_stays() {
        check(
            "Return-Path: <a@b>\nSubject: x\nRETURN-PATH          :\n\t<c@d>\n more\nTo: y\n z\n\nhello\n",
            "Subject: x\nTo: y\n z\n\nhello\n",
            0,
        );
    }

    #[test]
    fn received_is_counted_in_the_header_only_and_in_any_case() {
        let text =
            "Received: 1\nreceived: 2\nX-Received: no\nRECEIVED          : 3\n\nReceived: quoted\n";
        check(text, text, 3);
    }

    #[test]
    fn the_body_passes_unchanged() {
        let text = "Subject: x\n\nReturn-Path: <a@b>\n";
        check(text, text, 0);
    }

    #[test]
    fn a_message_without_a_header_passes_unchanged() {
        for text in [
            "hello world\nReturn-Path: x\n",
            "Return-Path      says a teacher\n",
            "\nReturn-Path: x\n",
        ] {
            check(text, text, 0);
        }
    }

    #[test]
    fn fields_that_are_missing_are_added_where_the_header_ends() {
        let wanted = || {
            let field = |name, value: &str| Field { name, value: value.to_owned() };
            vec![field("Date", "today"), field("Message-ID", "<1@host.example>")]
        };
        for (text, with) in [
            ("To: a\n\nx\n", "To: a\nDate: today\nMessage-ID: <1@host.example>\n\nx\n"),
            ("To: a\n", "To: a\nDate: today\nMessage-ID: <1@host.example>\n"),
            (
                "DATE : b\n\nMessage-ID: body\n",
                "DATE : b\nMessage-ID: <1@host.example>\n\nMessage-ID: body\n",
            ),
            ("message-id: <b>\nDate: c\n\n", "message-id: <b>\nDate: c\n\n"),
            ("no header\n", "Date: today\nMessage-ID: <1@host.example>\n\nno header\n"),
            ("", "Date: today\nMessage-ID: <1@host.example>\n"),
        ] {
            for part in 1..=text.len().max(1) {
                let mut header = Header::with(wanted());
                let mut out = Vec::new();
                for octets in text.as_bytes().chunks(part) {
                    header.filter(octets, &mut out).unwrap();
                }
                header.finish(&mut out).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), with, "{text:?} in parts of {part}");
            }
        }
    }

    #[test]
    fn the_first_line_cannot_go_on_with_a_field_of_ours() {
        for text in [" by trusted.example\nReturn-Path: x\n", "\tfor <x@y.example>\n"] {
            check(text, &format!("\n{text}"), 0);
        }
    }

    #[test]
    fn long_names_and_endless_lines_need_no_memory() {
        let text = format!("X-A-Rather-Long-Field-Name: 1\n{}\n", "x".repeat(100_000));
        let mut header = Header::default();
        let mut out = Vec::new();
        header.filter(text.as_bytes(), &mut out).unwrap();
        assert_eq!(out, text.as_bytes());
        assert!(header.name.capacity() <= 2 * NAME_LIMIT);
    }
}
