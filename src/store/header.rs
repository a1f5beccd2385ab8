//! The header section of a letter that passes by (RFC 5322 section 2.2): what of it is
//! kept, and what there is to know.
//!
//! In: a message in file form: on its way in, cut anywhere ([`Header`]), or stored
//! ([`header_of`]). Out: the message as it is kept and what there is to know about
//! it ([`Facts`]), or the header of the stored one.
//!
//! A line begins a field if a colon follows a name of printable ASCII. The first
//! line that does not ends the header, with or without an empty line. Nothing after
//! the header is looked at; it is counted only.
//!
//! From everybody's letters every `Return-Path` goes, since only the last server on
//! the way may write one (RFC 5321 section 4.4). A letter that begins with a blank,
//! and so would go on with our last field, gets an empty line first. What a user
//! submits is put right besides (RFC 6409 section 8): it gets the `Date` and
//! `Message-ID` that it lacks, and loses `Bcc`, `Resent-Bcc`, and a first line that
//! a mailbox file left there. All other octets pass unchanged.
//!
//! Where strangers are checked, all `Authentication-Results` go that claim to be ours
//! (RFC 8601 section 5). Some mail programs read on after a line that is no field, so
//! there only an empty line ends the header. If a user's letter lacks a field, we add the
//! empty line as well, and so such a line ends its header as usual.
//!
//! Not read here: what the fields say, but for `Delivered-To` and whoever claims to have
//! written `Authentication-Results`. `trust/dkim/reading.rs` and `trust/fields.rs` read
//! headers for signatures and authors: there only an empty line ends a header.
//!
//! Book: docs/07-maildir.md.

use std::io::{self, Write};
use std::mem;

use crate::smtp::address::ascii_domain;

/// How much of a line is kept back until it is decided what it is: what a line may
/// have (RFC 5322 section 2.1.1). A name that does not fit with its colon is none.
const START_LIMIT: usize = 998;
/// How many `Delivered-To` are told. Each pass through an alias writes one on top of
/// the others, so what is cut off is long ago.
const DELIVERED_TO_LIMIT: usize = 100;
/// How long each may be: no address that we know is longer.
const ADDRESS_LIMIT: usize = 1024;

/// How long an `Authentication-Results` field may be.
const RESULTS_LIMIT: usize = 64 * 1024;

/// Reads a message while it streams by, and lets through what is kept of it.
#[derive(Debug, Default)]
pub struct Header {
    whose: Whose,
    at: At,
    /// The start of a line, until it is decided what it is.
    start: Vec<u8>,
    /// Whether the first line is over.
    has_begun: bool,
    /// Whether the field that began last goes.
    is_dropping: bool,
    /// Whether a line was no field, and yet an `Authentication-Results` may follow.
    is_text: bool,
    /// Names and values to add where the header ends, unless they are there.
    wanted: Vec<(&'static str, String)>,
    /// The value of a `Delivered-To` so far.
    delivered_to: Option<Vec<u8>>,
    /// Whoever writes this name into an `Authentication-Results` claims to be us.
    our_name: Option<String>,
    /// Such a field so far, name and all, until it is known who claims to have written it.
    results: Option<Vec<u8>>,
    facts: Facts,
}

/// What a letter gets that a user submits, unless it has it (RFC 6409 section 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The value of `Date`.
    pub date: String,
    /// The value of `Message-ID`, with its brackets.
    pub message_id: String,
}

/// What there is to know about a message, as it was let through: with the fields
/// that were added, without those that went. Complete after [`Header::finish`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// How many `Received` fields it has. Too many mean that it goes round in circles
    /// (RFC 5321 section 6.3).
    pub received: usize,
    /// The addresses of its `Delivered-To` fields, without brackets; the first 100.
    pub delivered_to: Vec<String>,
    /// Whether the header has octets outside ASCII (RFC 6531 section 3.4).
    pub is_header_8bit: bool,
    /// Whether what follows the header has them (RFC 6152).
    pub is_body_8bit: bool,
    /// Its size as sent: line ends are two octets, no dots are stuffed (RFC 1870
    /// section 5).
    pub crlf_octets: u64,
}

/// Where a message comes from, and so what is done to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Whose {
    #[default]
    Stranger,
    User,
    /// It is stored, and only its header is wanted.
    Stored,
}

/// Where the next octet is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// In the first line, where no field can go on.
    #[default]
    Start,
    /// In a line after a field, until it is decided what it is.
    Line,
    /// After the colon, or in a folded line.
    Value,
    /// Past the header.
    Body,
}

/// The header of a stored message, or of its beginning: all fields that are whole
/// lines. A line that a mailbox file left among them is skipped.
pub fn header_of(message: &[u8]) -> Vec<u8> {
    let mut header = Header { whose: Whose::Stored, ..Header::default() };
    let mut out = Vec::new();
    // Writing to a Vec cannot fail.
    header.filter(message, &mut out).unwrap_or_default();
    let end = out.iter().rposition(|octet| *octet == b'\n');
    out.truncate(end.map_or(0, |at| at + 1));
    out
}

impl Header {
    /// For a letter from a stranger, or from one of our users.
    pub fn new(submission: Option<&Submission>) -> Header {
        let Some(Submission { date, message_id }) = submission else {
            return Header::default();
        };
        let wanted = vec![("Date", date.clone()), ("Message-ID", message_id.clone())];
        Header { whose: Whose::User, wanted, ..Header::default() }
    }

    /// From here on, fields `Authentication-Results` that claim to be written by this host
    /// go: somebody has forged them (RFC 8601 section 5).
    pub fn drop_results_of(&mut self, our_name: &str) {
        self.our_name = Some(our_name.to_owned());
    }

    /// What is known so far.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Passes the next part of a message on to `out`.
    pub fn filter(&mut self, mut text: &[u8], out: &mut impl Write) -> io::Result<()> {
        while let Some((&octet, rest)) = text.split_first() {
            match self.at {
                At::Body => return self.write(text, out),
                At::Line if self.start.is_empty() && is_blank(octet) => self.at = At::Value,
                At::Value => {
                    let end = text.iter().position(|octet| *octet == b'\n');
                    let (line, after) = text.split_at(end.map_or(text.len(), |at| at + 1));
                    self.pass_value(line, out)?;
                    if end.is_some() {
                        self.at = At::Line;
                    }
                    text = after;
                }
                At::Start | At::Line => {
                    self.start.push(octet);
                    if let Some(at) = self.after(octet) {
                        self.decided(at, out)?;
                    }
                    text = rest;
                }
            }
        }
        Ok(())
    }

    /// To be called after the last part of the message: a header may be all of it.
    pub fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        // In file form every line has its end. If the last one of a header has none,
        // nothing is lost, and what is added begins a line.
        if self.at == At::Value || !self.start.is_empty() {
            self.filter(b"\n", out)?;
        }
        self.end(None, out)
    }

    /// Where the octet after `start` is, of which this one is the last; `None` while it
    /// is open what the line is.
    fn after(&self, octet: u8) -> Option<At> {
        let takes_mbox = !self.has_begun || self.whose == Whose::Stored;
        // With a blank in front the first line is text, or it would go on with our last field.
        // Where something is added, nobody reads on: an empty line comes with it.
        let reads_on = self.our_name.is_some()
            && self.wanted.is_empty()
            && !self.start.first().is_some_and(|first| is_blank(*first) || *first == b'\n');
        match octet {
            _ if self.start.len() > START_LIMIT => {
                Some(if reads_on { At::Value } else { At::Body })
            }
            // After a colon that ends no name none does.
            b':' if memchr::memchr(b':', &self.start) == self.start.len().checked_sub(1) => {
                field_name(&self.start).map(|_| At::Value)
            }
            b'\n' if takes_mbox && is_of_mailbox_file(&self.start) => Some(At::Start),
            b'\n' if reads_on => Some(At::Line),
            // An empty line, or one of text.
            b'\n' => Some(At::Body),
            _ => None,
        }
    }

    /// Passes the start of a line on, which leads there.
    fn decided(&mut self, at: At, out: &mut impl Write) -> io::Result<()> {
        let start = mem::take(&mut self.start);
        match at {
            At::Value | At::Line => {
                self.end_field(out)?;
                self.is_text |= field_name(&start).is_none();
                self.begin_field(&start);
            }
            At::Body if self.whose == Whose::Stored => {}
            At::Body => self.end(start.first().copied(), out)?,
            // The line of a mailbox file.
            At::Start => self.is_dropping = self.whose != Whose::Stranger,
        }
        (self.at, self.has_begun) = (at, true);
        if at == At::Body || !self.is_dropping { self.write(&start, out) } else { Ok(()) }
    }

    fn begin_field(&mut self, start: &[u8]) {
        let name = field_name(start).unwrap_or_default();
        let is_results =
            self.our_name.is_some() && name.eq_ignore_ascii_case(b"Authentication-Results");
        let is = |other: &str| !self.is_text && name.eq_ignore_ascii_case(other.as_bytes());
        let is_hidden = self.whose == Whose::User && (is("Bcc") || is("Resent-Bcc"));
        self.results = is_results.then(|| start.to_vec());
        self.is_dropping = is_hidden || is_results || is("Return-Path");
        self.facts.received += usize::from(is("Received"));
        self.wanted.retain(|(name, _)| !is(name));
        let has_room = self.facts.delivered_to.len() < DELIVERED_TO_LIMIT;
        self.delivered_to = (has_room && is("Delivered-To")).then(Vec::new);
    }

    /// A folded line shares the fate of its field (RFC 5322 section 2.2.3).
    fn pass_value(&mut self, octets: &[u8], out: &mut impl Write) -> io::Result<()> {
        if let Some(value) = &mut self.delivered_to {
            value.extend_from_slice(octets);
        }
        self.delivered_to.take_if(|value| value.len() > ADDRESS_LIMIT);
        if let Some(field) = &mut self.results {
            field.extend_from_slice(octets);
        }
        // Longer than anything honest: it goes.
        self.results.take_if(|field| field.len() > RESULTS_LIMIT);
        if self.is_dropping { Ok(()) } else { self.write(octets, out) }
    }

    fn end_field(&mut self, out: &mut impl Write) -> io::Result<()> {
        if let Some(value) = self.delivered_to.take() {
            let value = String::from_utf8_lossy(&value).replace('\n', "");
            let address = value.trim().trim_start_matches('<').trim_end_matches('>');
            self.facts.delivered_to.push(address.to_owned());
        }
        match (self.results.take(), &self.our_name) {
            (Some(field), Some(name)) if !claims_to_be(&field, name) => self.write(&field, out),
            _ => Ok(()),
        }
    }

    /// The header is over, and this octet follows, if any.
    fn end(&mut self, next: Option<u8>, out: &mut impl Write) -> io::Result<()> {
        self.end_field(out)?;
        let wanted = mem::take(&mut self.wanted);
        for (name, value) in &wanted {
            self.write(format!("{name}: {value}\n").as_bytes(), out)?;
        }
        // What we added may not run into the text. And a message may not begin with a
        // blank: after our own fields such a line would be a folded part of the last
        // one, and say what we never said.
        let needs_empty_line = |octet| octet != b'\n' && (!wanted.is_empty() || is_blank(octet));
        if next.is_some_and(needs_empty_line) { self.write(b"\n", out) } else { Ok(()) }
    }

    fn write(&mut self, octets: &[u8], out: &mut impl Write) -> io::Result<()> {
        let in_body = self.at == At::Body || self.is_text;
        if in_body && self.whose == Whose::Stored {
            return Ok(());
        }
        let Facts { is_header_8bit, is_body_8bit, crlf_octets, .. } = &mut self.facts;
        *(if in_body { is_body_8bit } else { is_header_8bit }) |= !octets.is_ascii();
        let line_ends = memchr::memchr_iter(b'\n', octets).count();
        *crlf_octets += (octets.len() + line_ends) as u64;
        out.write_all(octets)
    }
}

/// The name at the start of a line, which a colon ends: printable ASCII (RFC 5322 section
/// 3.6.8). Old programs put blanks before the colon (section 4.5), and whoever forges a
/// field so many that the colon is not there yet.
pub fn field_name(start: &[u8]) -> Option<&[u8]> {
    let end = start.iter().position(|octet| !octet.is_ascii_graphic() || *octet == b':')?;
    let (name, rest) = start.split_at(end);
    let blanks = rest.strip_suffix(b":").unwrap_or(rest);
    let is_name = !name.is_empty() && blanks.iter().copied().all(is_blank);
    is_name.then_some(name)
}

/// Whether this is `From ann@host.example Sun Nov 22 05:14:39 2026`, which begins each
/// letter of a mailbox file (RFC 4155) and is no field. It has a time of day; a letter
/// that only begins with the word "From" must not lose it.
fn is_of_mailbox_file(line: &[u8]) -> bool {
    let is_time = |three: &[u8]| matches!(three, [b'0'..=b'9', b':', b'0'..=b'9']);
    line.starts_with(b"From ") && line.windows(3).any(is_time)
}

/// Whether an `Authentication-Results` field says that this host wrote it. Comments and
/// quotes may stand around the name, and a version after it (RFC 8601 section 2.2).
fn claims_to_be(field: &[u8], our_name: &str) -> bool {
    let field = String::from_utf8_lossy(field);
    let mut rest = field.split_once(':').map_or("", |(_, value)| value).trim_start();
    while let Some(comment) = rest.strip_prefix('(') {
        rest = after_comment(comment).trim_start();
    }
    let name = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default().replace('\\', ""),
        None => rest.split([' ', '\t', '\n', ';', '(']).next().unwrap_or_default().to_owned(),
    };
    let name = name.trim().trim_end_matches('.');
    let our_name = our_name.trim_end_matches('.');
    // One of ours may stand there in either of its two forms (RFC 5890 section 2.3.2.1).
    name.eq_ignore_ascii_case(our_name)
        || ascii_domain(name).is_some_and(|name| ascii_domain(our_name) == Some(name))
}

/// What follows a comment, of which the first bracket is gone; others may stand in it (RFC
/// 5322 section 3.2.2).
pub fn after_comment(comment: &str) -> &str {
    let (mut depth, mut is_quoted) = (1_usize, false);
    for (at, c) in comment.char_indices() {
        match c {
            _ if is_quoted => is_quoted = false,
            '\\' => is_quoted = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return comment.get(at + 1..).unwrap_or_default();
        }
    }
    ""
}

fn is_blank(octet: u8) -> bool {
    octet == b' ' || octet == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBOX: &str = "From ann@host.example Sun Nov 22 05:14:39 2026\n";

    fn submission() -> Submission {
        Submission { date: "today".to_owned(), message_id: "<1@host.example>".to_owned() }
    }

    /// What is let through, fed in parts of `part` octets, and what is known then.
    fn filter(text: &[u8], part: usize, submission: Option<&Submission>) -> (Vec<u8>, Facts) {
        let mut header = Header::new(submission);
        let mut out = Vec::new();
        for octets in text.chunks(part) {
            header.filter(octets, &mut out).unwrap();
        }
        header.finish(&mut out).unwrap();
        (out, header.facts().clone())
    }

    /// Checks what is let through of a letter from a stranger, and gives the facts.
    fn check(text: &str, kept: &str) -> Facts {
        let (out, facts) = filter(text.as_bytes(), text.len().max(1), None);
        assert_eq!(String::from_utf8(out).unwrap(), kept, "{text:?}");
        facts
    }

    /// The same for one that a user submits.
    fn check_submitted(text: &str, kept: &str) {
        let (out, _) = filter(text.as_bytes(), text.len().max(1), Some(&submission()));
        assert_eq!(String::from_utf8(out).unwrap(), kept, "{text:?}");
    }

    #[test]
    fn return_path_goes_with_its_folded_lines_and_the_rest_stays() {
        check(
            "Return-Path: <a@b>\nSubject: x\nRETURN-PATH          :\n\t<c@d>\n more\nTo: y\n z\nBcc: w\n\nhello\n",
            "Subject: x\nTo: y\n z\nBcc: w\n\nhello\n",
        );
    }

    #[test]
    fn received_is_counted_in_the_header_only_and_in_any_case() {
        let text =
            "Received: 1\nreceived: 2\nX-Received: no\nRECEIVED          : 3\n\nReceived: quoted\n";
        assert_eq!(check(text, text).received, 3);
    }

    #[test]
    fn a_text_line_ends_the_header_whatever_its_length_and_what_follows() {
        for length in [1, 63, 64, 65, 997, 998, 999, 5000] {
            let line = "-".repeat(length);
            let rest = "Return-Path: is a field\nReceived: is another\nDelivered-To: <a@b>\n";
            let text = format!("Subject: x\n{line}\n{rest}");
            let facts = check(&text, &text);
            assert_eq!((facts.received, facts.delivered_to.len()), (0, 0), "{length}");
        }
        for text in [
            "hello world\nReturn-Path: x\n",
            "Return-Path      says a teacher\n",
            "\nReturn-Path: x\n",
            ": nothing\nReturn-Path: x\n",
            "b\u{fc}y: pills\nReturn-Path: x\n",
            "Subject: x\n\nReturn-Path: <a@b>\n",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_long_name_is_a_name_up_to_the_length_of_a_line() {
        let long = |length: usize| format!("{}: x\n gone\nReceived: 1\n", "N".repeat(length));
        assert_eq!(check(&long(997), &long(997)).received, 1);
        assert_eq!(check(&long(998), &long(998)).received, 0);
    }

    #[test]
    fn fields_that_a_user_left_out_are_added_where_the_header_ends() {
        const BOTH: &str = "Date: today\nMessage-ID: <1@host.example>\n";
        let rule = format!("{}\n", "=".repeat(72));
        for (text, with) in [
            ("To: a\n\nx\n".to_owned(), format!("To: a\n{BOTH}\nx\n")),
            ("To: a\n".to_owned(), format!("To: a\n{BOTH}")),
            ("To: a".to_owned(), format!("To: a\n{BOTH}")),
            (
                "DATE : b\n\nMessage-ID: body\n".to_owned(),
                "DATE : b\nMessage-ID: <1@host.example>\n\nMessage-ID: body\n".to_owned(),
            ),
            ("message-id: <b>\nDate: c\n\n".to_owned(), "message-id: <b>\nDate: c\n\n".to_owned()),
            ("no header\n".to_owned(), format!("{BOTH}\nno header\n")),
            ("hello".to_owned(), format!("{BOTH}\nhello\n")),
            (" blank\n x\n".to_owned(), format!("{BOTH}\n blank\n x\n")),
            (format!("To: a\n{rule}x\n"), format!("To: a\n{BOTH}\n{rule}x\n")),
            (rule.clone(), format!("{BOTH}\n{rule}")),
            (String::new(), BOTH.to_owned()),
        ] {
            check_submitted(&text, &with);
        }
    }

    #[test]
    fn nobody_sees_a_bcc_that_a_user_submits() {
        check_submitted(
            "Date: c\nBcc: carol@host.example,\n\tdave@host.example\nTo: b\nRESENT-BCC : e\n\
             Message-ID: d\n\nBcc: in the text\n",
            "Date: c\nTo: b\nMessage-ID: d\n\nBcc: in the text\n",
        );
    }

    #[test]
    fn the_line_of_a_mailbox_file_goes_if_a_user_submits_it_and_ends_no_header() {
        let fields = "Date: c\nMessage-ID: d\nReceived: 1\n\nx\n";
        check_submitted(&format!("{MBOX}{fields}"), fields);
        check_submitted(
            &format!("{MBOX} x\n"),
            "Date: today\nMessage-ID: <1@host.example>\n\n x\n",
        );
        let text = format!("{MBOX}Return-Path: <a@b>\n{fields}");
        assert_eq!(check(&text, &format!("{MBOX}{fields}")).received, 1);
        // Only as the first line.
        let text = format!("Date: c\nMessage-ID: d\n{MBOX}Received: 1\n");
        check_submitted(&text, &text);
        assert_eq!(check(&text, &text).received, 0);
    }

    #[test]
    fn a_text_that_begins_with_the_word_from_keeps_it() {
        for text in ["From here on: text\n", "From \n", "from ann 05:14:39\n"] {
            check_submitted(text, &format!("Date: today\nMessage-ID: <1@host.example>\n\n{text}"));
        }
        let field = "From : ann at 05:14:39\nDate: c\nMessage-ID: d\n";
        check_submitted(field, field);
    }

    #[test]
    fn the_first_line_cannot_go_on_with_a_field_of_ours() {
        for text in [" by trusted.example\nReturn-Path: x\n", "\tfor <x@y.example>\n b\n"] {
            check(text, &format!("\n{text}"));
        }
    }

    #[test]
    fn delivered_to_is_told_unfolded_without_brackets_and_within_bounds() {
        let text = "Delivered-To: list@here.example\nX: <no@here.example>\ndelivered-to :\n \
                    <b\u{fc}ro@here.example>\nDelivered-To:\n\nDelivered-To: <no@here.example>\n";
        let facts = check(text, text);
        assert_eq!(facts.delivered_to, ["list@here.example", "b\u{fc}ro@here.example", ""]);
        let text =
            format!("Delivered-To: {}\n", "x".repeat(2000)) + &"Delivered-To: a\n".repeat(200);
        assert_eq!(check(&text, &text).delivered_to, vec!["a"; 100]);
        assert_eq!(check("Delivered-To: a@b", "Delivered-To: a@b\n").delivered_to, ["a@b"]);
    }

    #[test]
    fn what_is_known_is_about_what_was_let_through() {
        for (text, is_header_8bit, is_body_8bit) in [
            ("A: b\n\nc\n", false, false),
            ("A: \u{fc}\n\nc\n", true, false),
            ("A: b\n\u{fc} c\nd\n", false, true),
            ("A: b\n \u{fc}\n\n\u{fc}\n", true, true),
            ("Return-Path: \u{fc}\n\nc\n", false, false),
        ] {
            for submission in [None, Some(submission())] {
                let (out, facts) = filter(text.as_bytes(), 1, submission.as_ref());
                let flags = (facts.is_header_8bit, facts.is_body_8bit);
                assert_eq!(flags, (is_header_8bit, is_body_8bit), "{text:?}");
                let wire = String::from_utf8(out).unwrap().replace('\n', "\r\n");
                assert_eq!(facts.crlf_octets, wire.len() as u64, "{text:?}");
            }
        }
    }

    /// What is let through of a letter where `m\u{fc}hle.example` checks.
    fn filter_checked(text: &str, part: usize, submission: Option<&Submission>) -> (String, Facts) {
        let mut header = Header::new(submission);
        header.drop_results_of("xn--mhle-0ra.example");
        let mut out = Vec::new();
        for octets in text.as_bytes().chunks(part) {
            header.filter(octets, &mut out).unwrap();
        }
        header.finish(&mut out).unwrap();
        (String::from_utf8_lossy(&out).into_owned(), header.facts().clone())
    }

    #[test]
    fn a_forged_result_goes_wherever_a_mail_program_could_find_it() {
        let blanks = " ".repeat(2000);
        for name in ["xn--mhle-0ra.example", "XN--MHLE-0RA.example.", "m\u{fc}hle.example"] {
            for before in ["A: b\n", "no field\n", "", &format!("{}\n", "-".repeat(5000))] {
                for after in ["", &blanks] {
                    let forged = format!("Authentication-Results{after}: {name}; spf=pass\n");
                    for part in [1, 997, 100_000] {
                        let (out, facts) =
                            filter_checked(&format!("{before}{forged}\nx\n"), part, None);
                        assert_eq!(out, format!("{before}\nx\n"), "{name} {part}");
                        assert_eq!(
                            facts.crlf_octets,
                            (before.len() + 5 + usize::from(!before.is_empty())) as u64
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn whoever_looks_for_forged_results_changes_nothing_else() {
        let text = "A: b\nno field\nReturn-Path: kept\nReceived: text\n\u{fc}\n\
                    Authentication-Results: other.example; none\n\nBcc: x\n";
        for text in
            [text, " blank\nAuthentication-Results: xn--mhle-0ra.example; text\n", "\n\n", "x"]
        {
            let plain = filter(text.as_bytes(), text.len(), None);
            let (out, facts) = filter_checked(text, text.len(), None);
            assert_eq!((out.into_bytes(), facts), plain, "{text}");
        }
    }

    #[test]
    fn what_a_user_left_out_stands_above_the_text_where_results_are_looked_for_too() {
        const FORGED: &str = "Authentication-Results: xn--mhle-0ra.example; spf=pass\n";
        let submission = submission();
        let rule = format!("{}\n", "=".repeat(1500));
        for text in [
            "hello\n",
            "Subject: x\nhello world\n\nbody\n",
            "Date: c\nhello\nMessage-ID: text\nBcc: text\n",
            // It stands behind an empty line then, and is text to everybody.
            &format!("Subject: x\nhello\n{FORGED}"),
            &format!("Subject: x\n{rule}{FORGED}"),
        ] {
            let (plain, facts) = filter(text.as_bytes(), text.len(), Some(&submission));
            let plain = String::from_utf8(plain).unwrap();
            for part in [1, 997, text.len()] {
                let checked = filter_checked(text, part, Some(&submission));
                assert_eq!(checked, (plain.clone(), facts.clone()), "{text}");
            }
        }
        // Where nothing is added, no empty line is.
        let (header, text) = ("Date: c\nMessage-ID: d\n", "hello\nBcc: text\n");
        let (out, _) = filter_checked(&format!("{header}{text}{FORGED}"), 1, Some(&submission));
        assert_eq!(out, format!("{header}{text}"));
    }

    #[test]
    fn it_does_not_matter_where_a_message_is_cut() {
        const PIECES: [&str; 20] = [
            "\n",
            " ",
            "\t",
            ":",
            "a",
            "\u{fc}",
            "From ",
            MBOX,
            "Date",
            "Message-ID: x\n",
            "Bcc",
            "Resent-Bcc: y\n",
            "Return-Path",
            "Received: z\n",
            "Delivered-To: <a@b>\n",
            " 1:2\n",
            "hello world\n",
            "----",
            "\r",
            "\0",
        ];
        fn holds(picks: Vec<u8>) -> bool {
            let text: String =
                picks.iter().map(|pick| PIECES[usize::from(*pick) % PIECES.len()]).collect();
            [None, Some(submission())].iter().all(|submission| {
                let at_once = filter(text.as_bytes(), text.len().max(1), submission.as_ref());
                (1..text.len())
                    .all(|part| filter(text.as_bytes(), part, submission.as_ref()) == at_once)
            })
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>) -> bool);
    }

    #[test]
    fn endless_lines_need_no_memory() {
        let text = format!("X: 1\n{}\n", "x".repeat(100_000));
        for text in [text.clone(), format!("From {text}")] {
            let mut header = Header::default();
            let mut out = Vec::new();
            header.filter(text.as_bytes(), &mut out).unwrap();
            assert_eq!(out, text.as_bytes());
            assert!(header.start.capacity() <= 2 * START_LIMIT);
        }
    }

    #[test]
    fn the_header_of_a_stored_message_is_its_fields() {
        let ours = "Received: from client.example\n\tby mx.example\n";
        for text in ["buy pills\n", "buy pills: now\n", ": pills\n", "b\u{fc}y: pills\n"] {
            let letter = format!("{ours}{text}X: y\n");
            assert_eq!(header_of(letter.as_bytes()), ours.as_bytes(), "{text}");
        }
        for (text, header) in [
            (" folded\nX: y\n", ""),
            ("Subject : old\n\nX: y\n", "Subject : old\n"),
            ("A: b\n c\n\nbody\n\n", "A: b\n c\n"),
            ("\nbody\n", ""),
            ("A: b\n", "A: b\n"),
            ("A: b\nC: d", "A: b\n"),
            ("A: b\nC", "A: b\n"),
            ("A: b", ""),
            ("", ""),
            (&format!("{ours}{MBOX}A: b\n\nbody\n"), &format!("{ours}A: b\n")),
            (&format!("{MBOX}A: b\n\nbody\n"), "A: b\n"),
        ] {
            assert_eq!(header_of(text.as_bytes()), header.as_bytes(), "{text:?}");
        }
    }
}
