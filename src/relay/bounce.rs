//! The letter that tells a sender what was not delivered, and why.
//!
//! In: who was not reached, what their servers said, and the header of the
//! letter. Out: a delivery status notification in file form (RFC 3464), in three
//! parts: one for a person, one for a program, and the header, so that the sender
//! knows which letter it was. The last begins with the `Received` that we wrote;
//! our `Return-Path` is not in it.
//!
//! Almost every word in it comes from strangers: replies, names of servers, the
//! header. None of them may begin a line of ours, or end a part.
//!
//! A bounce for a letter without SMTPUTF8 is in ASCII throughout. It has to reach
//! the sender, and the servers on its way promise no more than that.
//!
//! Left to others: when somebody is told, whether at all (never about a letter from
//! `<>`), and how the bounce itself is stored and sent (`attempt.rs`).
//!
//! Book: docs/14-the-queue.md.

use std::fmt::{Arguments, Write as _};
use std::io::{self, BufRead, BufReader, Read};

use jiff::Timestamp;

use crate::relay::Answer;
use crate::smtp::address::Mailbox;
use crate::smtp::reply::Enhanced;
use crate::smtp::text::printable;
use crate::store::trace::date;

/// How long our own lines are at most (RFC 5322 section 2.1.1). An address may
/// be longer, and is never broken.
const OUR_LINE: usize = 78;
/// A longer word is broken, so that it fits behind the blanks at the start of a
/// line. Most links in replies are shorter, and stay whole.
const WORD_LIMIT: usize = 74;
/// How much of an answer is told, in characters: about as much as two reply lines
/// hold (RFC 5321 section 4.5.3.1.5), which most replies of many short lines do not
/// fill. It stands in the bounce twice for each recipient, and a server must not
/// make us write many megabytes.
const ANSWER_LIMIT: usize = 1000;
/// How long a line of the header may be, less a blank for folding (RFC 5322
/// section 2.1.1 says 998). We take longer ones; MIME does not (RFC 2045
/// section 2.8).
const HEADER_LINE: usize = 997;
/// How much of a header is sent back, in octets. Ordinary ones have some thousand.
const HEADER_LIMIT: u64 = 64 * 1024;
/// How much of the id stands in the boundary, which has 70 characters at most
/// (RFC 2046 section 5.1.1).
const ID_LIMIT: usize = 50;

/// What a bounce says.
#[derive(Debug)]
pub struct Bounce<'a> {
    /// The name of this server, which reports. There may be no mailboxes there.
    pub hostname: &'a str,
    /// Our first domain, whose postmaster the sender can ask.
    pub domain: &'a str,
    /// The id of the bounce, an atom.
    pub id: &'a str,
    /// Now: when the last attempt failed.
    pub when: Timestamp,
    /// When the letter came to us.
    pub arrived: Timestamp,
    /// The id that the letter has here, as in our log.
    pub original_id: &'a str,
    /// Whom to tell: the reverse-path of the letter.
    pub to: &'a Mailbox,
    /// Whom the letter did not reach; one or more.
    pub failed: &'a [Failed<'a>],
    /// The header of the letter in file form, as [`header_of`] reads it.
    pub header: &'a [u8],
    /// Whether the letter used SMTPUTF8 (RFC 6531).
    pub is_utf8: bool,
}

/// A recipient whom the letter did not reach.
#[derive(Debug)]
pub struct Failed<'a> {
    /// Who.
    pub address: &'a Mailbox,
    /// Why.
    pub answer: &'a Answer,
}

/// One part of the MIME message (RFC 2046 section 5.1).
struct Part {
    content_type: &'static str,
    /// Each line with its LF.
    text: Vec<u8>,
}

/// Reads the header of a stored message, from behind our `Return-Path`: up to the
/// first line that is not of a header, or 64 KiB of it, but whole lines only. That
/// line should be empty. In a letter without a header it is the first of the text,
/// which must not go back.
pub fn header_of(message: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut lines = BufReader::new(message.take(HEADER_LIMIT));
    let mut header = Vec::new();
    loop {
        let before = header.len();
        lines.read_until(b'\n', &mut header)?;
        let line = header.get(before..).unwrap_or_default();
        let is_folded = before > 0 && matches!(line.first(), Some(b' ' | b'\t'));
        if !line.ends_with(b"\n") || !(is_folded || is_field(line)) {
            header.truncate(before);
            return Ok(header);
        }
    }
}

/// Whether a line begins a field: a name, which has no blanks, and a colon
/// (RFC 5322 section 2.2). In old letters blanks may stand between the two (section
/// 4.5).
fn is_field(line: &[u8]) -> bool {
    let mut halves = line.splitn(2, |octet| *octet == b':');
    let (Some(name), Some(_)) = (halves.next(), halves.next()) else { return false };
    let name = name.trim_ascii_end();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

impl Bounce<'_> {
    /// The whole bounce in file form. All lines are short enough to be sent. It has
    /// octets outside ASCII only for a letter with SMTPUTF8, where an address or the
    /// header has them.
    pub fn to_text(&self) -> Vec<u8> {
        let parts = [self.for_a_person(), self.for_a_program(), self.original_header()];
        let boundary = boundary(self.id, &parts);
        let mut out = self.own_header(&boundary, &parts).into_bytes();
        for part in &parts {
            let Part { content_type, text } = part;
            let encoding = part.encoding();
            out.extend_from_slice(
                format!(
                    "\n--{boundary}\n\
                     Content-Type: {content_type}\n\
                     Content-Transfer-Encoding: {encoding}\n\n"
                )
                .as_bytes(),
            );
            out.extend_from_slice(text);
        }
        out.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
        out
    }

    /// `Auto-Submitted` asks other programs not to answer (RFC 3834 section 5).
    /// The parts behind it may be 8-bit only if it says so itself (RFC 2045
    /// section 6.4).
    fn own_header(&self, boundary: &str, parts: &[Part]) -> String {
        let is_8bit = parts.iter().any(|part| part.encoding() == "8bit");
        format!(
            "From: Mail Delivery System <postmaster@{domain}>\n\
             To: <{to}>\n\
             Subject: Your letter could not be delivered\n\
             Date: {date}\n\
             Message-ID: <{id}@{hostname}>\n\
             Auto-Submitted: auto-replied\n\
             MIME-Version: 1.0\n\
             Content-Type: multipart/report; report-type=delivery-status;\n\
             \tboundary=\"{boundary}\"\n\
             Content-Transfer-Encoding: {encoding}\n",
            domain = self.domain,
            hostname = self.hostname,
            to = self.to,
            date = date(self.when),
            id = self.id,
            encoding = if is_8bit { "8bit" } else { "7bit" },
        )
    }

    /// Who, why, and what to do about it.
    fn for_a_person(&self) -> Part {
        let mut text = String::new();
        let whom = if self.failed.len() == 1 { "this address" } else { "these addresses" };
        let paragraph = |text: &mut String, words: &str| wrap(text, "", "", words);
        paragraph(&mut text, &format!("This is the mail server {}.", self.hostname));
        text.push('\n');
        paragraph(
            &mut text,
            &format!(
                "Your letter, which came here on {}, could not be delivered to {whom}, and it \
                 will not be tried again:",
                date(self.arrived)
            ),
        );
        for failed in self.failed {
            let Answer { by, text: words, status, .. } = failed.answer;
            push(&mut text, format_args!("\n<{}>\n", self.spelt(failed.address)));
            let said = match by {
                Some(by) => format!("{} answered: {}", printable(by), cut(words)),
                None => format!("The reason: {}", cut(words)),
            };
            wrap(&mut text, "    ", "    ", &said);
            wrap(&mut text, "    ", "    ", advice(*status));
        }
        text.push('\n');
        paragraph(
            &mut text,
            &format!(
                "If it was for others too, you hear of them only if it does not reach them. The \
                 header of your letter is attached. Should you ask postmaster@{} about it, give \
                 the id {}.",
                self.domain, self.original_id
            ),
        );
        Part { content_type: "text/plain; charset=utf-8", text: text.into_bytes() }
    }

    /// The same in fields: a group about the letter, then one for each recipient
    /// (RFC 3464 section 2).
    fn for_a_program(&self) -> Part {
        let mut text = String::new();
        field(&mut text, "Reporting-MTA", &format!("dns; {}", self.hostname));
        field(&mut text, "Arrival-Date", &date(self.arrived));
        for failed in self.failed {
            text.push('\n');
            self.fields_of(failed, &mut text);
        }
        // Only the global type may hold an address outside ASCII as it is (RFC 6533
        // section 4). Programs that know the older one are more, so ASCII goes there.
        let content_type = if text.is_ascii() {
            "message/delivery-status"
        } else {
            "message/global-delivery-status"
        };
        Part { content_type, text: text.into_bytes() }
    }

    /// The fields about one recipient (RFC 3464 section 2.3).
    fn fields_of(&self, Failed { address, answer }: &Failed, text: &mut String) {
        let address_type = if address.to_string().is_ascii() { "rfc822" } else { "utf-8" };
        let address = self.spelt(address);
        // Not folded: blanks inside quotes are part of the address.
        push(text, format_args!("Final-Recipient: {address_type}; {address}\n"));
        field(text, "Action", "failed");
        field(text, "Status", &answer.status.to_string());
        // `smtp` promises the words of a server. Ours get a type of our own.
        let words = cut(&answer.text);
        match &answer.by {
            Some(by) => {
                field(text, "Remote-MTA", &format!("dns; {}", printable(by)));
                field(text, "Diagnostic-Code", &format!("smtp; {words}"));
            }
            None => field(text, "Diagnostic-Code", &format!("X-Ehlo; {words}")),
        }
        field(text, "Last-Attempt-Date", &date(self.when));
    }

    /// An address as it is, or in ASCII if the bounce has to be. A letter without
    /// SMTPUTF8 may have got an address outside ASCII from an alias.
    fn spelt(&self, address: &Mailbox) -> String {
        let address = address.to_string();
        if self.is_utf8 || address.is_ascii() { address } else { xtext(&address) }
    }

    /// The header of the letter. Without SMTPUTF8 each octet outside ASCII is a `?`:
    /// nobody knows what it means, and to a server without 8BITMIME it could not go at
    /// all (RFC 6152 section 3). The sender would not hear of the failure.
    fn original_header(&self) -> Part {
        let mut text = short_lines(self.header);
        if !self.is_utf8 {
            text.iter_mut().filter(|octet| !octet.is_ascii()).for_each(|octet| *octet = b'?');
        }
        let is_global = !text.is_ascii() && std::str::from_utf8(&text).is_ok();
        let content_type = if is_global { "message/global-headers" } else { "text/rfc822-headers" };
        Part { content_type, text }
    }
}

impl Part {
    fn encoding(&self) -> &'static str {
        if self.text.is_ascii() { "7bit" } else { "8bit" }
    }
}

/// What the sender can do, by what the code is about (RFC 3463 section 3, and the
/// codes registered since).
fn advice(status: Enhanced) -> &'static str {
    match (status.subject, status.detail) {
        (1, 1) => {
            "There is no mailbox of this name. Please look for a typing error in front of the @. \
             If there is none, the address may have been given up: ask for the new one in some \
             other way."
        }
        (1, 2) | (4, 4) => {
            "No way leads to this domain, perhaps because it does not exist. Please look for a \
             typing error behind the @."
        }
        (1, 3) => {
            "The server there does not take this for an address. Please look for a typing error."
        }
        (1, 6) => "The mailbox has moved. Please ask for the new address in some other way.",
        (1, 7) | (1, 8) => {
            "The server there does not like the address you write from. Please see whether it is \
             right in your mail program."
        }
        (1, 10) => {
            "This domain exists but takes no mail at all. Please look for a typing error behind \
             the @, or use another address."
        }
        (2, 1) => "The mailbox exists but takes no mail at present.",
        (2, 2) => {
            "The mailbox is full. Please try again in some days, or tell its owner in some other \
             way."
        }
        (2, 3) | (3, 4) => {
            "The letter is too big. Please send it without its attachments, or send a link to \
             them."
        }
        (4, 6) => {
            "The letter went round in a circle between servers. Nothing is wrong with it: please \
             tell the postmaster named below."
        }
        (4, 7) => {
            "The server there could not take it in all the time we tried, so we have given up. \
             If it is still important, please send it again."
        }
        (6, 3) => {
            "The server there takes letters in plain ASCII only. Please send it without accents \
             and other special letters, or as an attachment."
        }
        (6, 7) => {
            "A server on the way cannot handle addresses or headers outside ASCII. Please use \
             plain letters there, if you have such an address."
        }
        (7, _) => {
            "The server there does not want this letter from us or from you. It may take it for \
             advertising, or know only certain senders. Its answer may say more; else ask the \
             recipient in some other way."
        }
        _ if status.class == 4 => {
            "It was tried more than once, and we have given up. If it is still important, please \
             send it again."
        }
        _ => {
            "Please look at the answer above. If it does not help you, ask the recipient in some \
             other way, or the postmaster named below."
        }
    }
}

/// `Name: value`, folded (RFC 5322 section 2.2.3).
fn field(out: &mut String, name: &str, value: &str) {
    wrap(out, &format!("{name}: "), " ", value);
}

/// Writes words in lines, the first one behind `first` and the others behind
/// `next`. Line ends among the words are blanks like others, so nothing in
/// `words` can begin a line.
fn wrap(out: &mut String, first: &str, next: &str, words: &str) {
    let mut width = first.len();
    let mut glue = "";
    out.push_str(first);
    for word in words.split_whitespace().flat_map(pieces) {
        let more = word.chars().count();
        if !glue.is_empty() && width + glue.len() + more > OUR_LINE {
            out.push('\n');
            out.push_str(next);
            (width, glue) = (next.len(), "");
        }
        out.push_str(glue);
        out.push_str(&word);
        width += glue.len() + more;
        glue = " ";
    }
    out.push('\n');
}

/// A word, or its pieces if it is too long for a line.
fn pieces(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    letters.chunks(WORD_LIMIT).map(|piece| piece.iter().collect()).collect()
}

/// An answer, or its beginning and a mark that more was said.
fn cut(words: &str) -> String {
    let mut letters = words.chars();
    let start: String = letters.by_ref().take(ANSWER_LIMIT).collect();
    if letters.as_str().is_empty() { start } else { format!("{start} [...]") }
}

/// An address in ASCII, from which a program can tell what it was (utf-8-addr-xtext,
/// RFC 6533 section 3).
fn xtext(address: &str) -> String {
    let mut out = String::new();
    for c in address.chars() {
        if c.is_ascii_graphic() && !"\\+=".contains(c) {
            out.push(c);
        } else {
            push(&mut out, format_args!("\\x{{{:02X}}}", u32::from(c)));
        }
    }
    out
}

/// The header with no line too long for MIME, and without the two octets that
/// must not be in text at all (RFC 2045 section 2.8).
fn short_lines(header: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len() + 1);
    let header = header.strip_suffix(b"\n").unwrap_or(header);
    for mut line in header.split(|octet| *octet == b'\n') {
        while let Some((start, rest)) = split_long(line) {
            out.extend_from_slice(start);
            out.extend_from_slice(b"\n ");
            line = rest;
        }
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    for octet in &mut out {
        if matches!(octet, b'\0' | b'\r') {
            *octet = b'?';
        }
    }
    out
}

/// A line that is too long, in two. UTF-8 is not cut inside a character.
fn split_long(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_start = |at: &usize| line.get(*at).is_some_and(|octet| octet & 0xc0 != 0x80);
    let at = (HEADER_LINE - 3..=HEADER_LINE).rev().find(is_start).unwrap_or(HEADER_LINE);
    if line.len() > HEADER_LINE { line.split_at_checked(at) } else { None }
}

/// A line between the parts that stands in none of them, or a part could end
/// itself (RFC 2046 section 5.1.1).
fn boundary(id: &str, parts: &[Part]) -> String {
    let id: String = id.chars().take(ID_LIMIT).collect();
    let mut number = 0_u64;
    loop {
        let boundary = format!("{id}={number}");
        let is_in =
            |part: &Part| part.text.windows(boundary.len()).any(|w| w == boundary.as_bytes());
        if !parts.iter().any(is_in) {
            return boundary;
        }
        number += 1;
    }
}

fn push(out: &mut String, text: Arguments) {
    // Writing to a String cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use mail_parser::{Message, MessageParser, MimeHeaders};

    use super::*;
    use crate::relay::Verdict;
    use crate::smtp::address::Domain;
    use crate::smtp::reply::ReplyParser;

    const HEADER: &[u8] = b"Received: from client.example\nSubject: hello\n";

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap().0
    }

    /// What a server said.
    fn said(lines: &str, by: &str) -> Answer {
        let mut parser = ReplyParser::default();
        let reply = lines.lines().find_map(|line| parser.line(line.as_bytes()).unwrap()).unwrap();
        Answer::of(&reply, by)
    }

    /// A bounce about these recipients.
    fn text(failed: &[(&Mailbox, &Answer)], header: &[u8], is_utf8: bool) -> Vec<u8> {
        let failed: Vec<Failed> =
            failed.iter().map(|(address, answer)| Failed { address, answer }).collect();
        let arrived = Timestamp::from_second(1_795_324_479).unwrap();
        let bounce = Bounce {
            hostname: "mx.host.example",
            domain: "host.example",
            id: "M5P6Q7",
            when: Timestamp::from_second(1_795_324_500).unwrap(),
            arrived,
            original_id: "M1P2Q3",
            to: &mailbox("ann@host.example"),
            failed: &failed,
            header,
            is_utf8,
        };
        bounce.to_text()
    }

    /// The content type and the text of each part, as a mail program reads them.
    fn parts<'a>(bounce: &'a Message) -> Vec<(String, &'a [u8])> {
        let types = bounce.parts.iter().skip(1).map(|part| {
            let content_type = part.content_type().unwrap();
            let subtype = content_type.subtype().unwrap();
            let text = &bounce.raw_message()[part.offset_body as usize..part.offset_end as usize];
            (format!("{}/{subtype}", content_type.ctype()), text)
        });
        types.collect()
    }

    /// One field of one group of the second part; group 0 is about the letter.
    fn status_field(bounce: &Message, group: usize, name: &str) -> Option<String> {
        let status = String::from_utf8(parts(bounce)[1].1.to_vec()).unwrap();
        let group = format!("{}\n\n", status.split("\n\n").nth(group)?);
        let group = MessageParser::default().parse(group.as_bytes())?;
        Some(group.header_raw(name)?.trim().to_owned())
    }

    fn parse(text: &[u8]) -> Message<'_> {
        MessageParser::default().parse(text).unwrap()
    }

    #[test]
    fn a_bounce_is_a_report_of_three_parts() {
        let answer = said("550 5.1.1 no such mailbox here", "mx.else.example");
        let text = text(&[(&mailbox("bob@else.example"), &answer)], HEADER, false);
        let expected = "\
From: Mail Delivery System <postmaster@host.example>
To: <ann@host.example>
Subject: Your letter could not be delivered
Date: Sun, 22 Nov 2026 05:15:00 +0000
Message-ID: <M5P6Q7@mx.host.example>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"M5P6Q7=0\"
Content-Transfer-Encoding: 7bit

--M5P6Q7=0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

This is the mail server mx.host.example.

Your letter, which came here on Sun, 22 Nov 2026 05:14:39 +0000, could not be
delivered to this address, and it will not be tried again:

<bob@else.example>
    mx.else.example answered: 550 5.1.1 no such mailbox here
    There is no mailbox of this name. Please look for a typing error in front
    of the @. If there is none, the address may have been given up: ask for
    the new one in some other way.

If it was for others too, you hear of them only if it does not reach them. The
header of your letter is attached. Should you ask postmaster@host.example
about it, give the id M1P2Q3.

--M5P6Q7=0
Content-Type: message/delivery-status
Content-Transfer-Encoding: 7bit

Reporting-MTA: dns; mx.host.example
Arrival-Date: Sun, 22 Nov 2026 05:14:39 +0000

Final-Recipient: rfc822; bob@else.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.else.example
Diagnostic-Code: smtp; 550 5.1.1 no such mailbox here
Last-Attempt-Date: Sun, 22 Nov 2026 05:15:00 +0000

--M5P6Q7=0
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 7bit

Received: from client.example
Subject: hello

--M5P6Q7=0--
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_mail_program_finds_every_recipient_and_its_status() {
        let (bob, eve) = (mailbox("bob@else.example"), mailbox("\"e v;e\"@[192.0.2.9]"));
        let full = said("552 5.2.2 full", "mx.else.example");
        let none = Answer::never((1, 2), "no such domain");
        let text = text(&[(&bob, &full), (&eve, &none)], HEADER, false);
        let bounce = parse(&text);
        assert_eq!(bounce.header_raw("Auto-Submitted").unwrap().trim(), "auto-replied");
        assert_eq!(
            bounce.content_type().unwrap().attribute("report-type"),
            Some("delivery-status")
        );
        let field = |group, name| status_field(&bounce, group, name);
        assert_eq!(field(0, "Reporting-MTA").unwrap(), "dns; mx.host.example");
        assert_eq!(field(1, "Final-Recipient").unwrap(), "rfc822; bob@else.example");
        assert_eq!(field(1, "Status").unwrap(), "5.2.2");
        assert_eq!(field(1, "Remote-MTA").unwrap(), "dns; mx.else.example");
        assert_eq!(field(1, "Diagnostic-Code").unwrap(), "smtp; 552 5.2.2 full");
        assert_eq!(field(2, "Final-Recipient").unwrap(), "rfc822; \"e v;e\"@[192.0.2.9]");
        assert_eq!(field(2, "Action").unwrap(), "failed");
        assert_eq!(field(2, "Status").unwrap(), "5.1.2");
        // Nobody answered, so nobody is named (RFC 3464 section 2.3.5).
        assert_eq!(field(2, "Remote-MTA"), None);
        assert_eq!(field(2, "Diagnostic-Code").unwrap(), "X-Ehlo; no such domain");
    }

    #[test]
    fn addresses_outside_ascii_make_a_global_report() {
        let answer = Answer::never((6, 7), "SMTPUTF8 is not offered");
        let header = "Subject: gr\u{fc}\u{df}e\n".as_bytes();
        let text = text(&[(&mailbox("b\u{fc}ro@else.example"), &answer)], header, true);
        let bounce = parse(&text);
        let types: Vec<String> = parts(&bounce).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(
            types,
            ["text/plain", "message/global-delivery-status", "message/global-headers"]
        );
        let recipient = status_field(&bounce, 1, "Final-Recipient").unwrap();
        assert_eq!(recipient, "utf-8; b\u{fc}ro@else.example");
        assert_eq!(bounce.content_transfer_encoding(), Some("8bit"));
    }

    #[test]
    fn octets_that_nobody_has_called_utf8_are_not_called_so_here() {
        let bob = mailbox("bob@else.example");
        let answer = Answer::never((6, 3), "8BITMIME is not offered");
        let latin1: &[u8] = b"Subject: gr\xfc\xdfe\n";
        let utf8 = "Subject: gr\u{fc}\u{df}e\n".as_bytes();
        let cases = [
            (latin1, false, "7bit", &b"Subject: gr??e\n"[..]),
            (utf8, false, "7bit", b"Subject: gr????e\n"),
            (latin1, true, "8bit", latin1),
        ];
        for (header, is_utf8, encoding, expected) in cases {
            let text = text(&[(&bob, &answer)], header, is_utf8);
            let bounce = parse(&text);
            assert_eq!(parts(&bounce)[2].0, "text/rfc822-headers");
            assert!(parts(&bounce)[2].1.starts_with(expected.trim_ascii_end()));
            assert_eq!(bounce.content_transfer_encoding(), Some(encoding));
            assert_eq!(bounce.parts[3].content_transfer_encoding(), Some(encoding));
            assert_eq!(bounce.parts[2].content_transfer_encoding(), Some("7bit"));
        }
    }

    #[test]
    fn an_address_outside_ascii_in_a_letter_without_smtputf8_is_spelt_in_ascii() {
        let alias_target = mailbox("b\u{fc}ro+\u{1f4ee}@else.example");
        let answer = Answer::never((6, 7), "SMTPUTF8 is not offered");
        let text = text(&[(&alias_target, &answer)], HEADER, false);
        assert!(text.is_ascii());
        let bounce = parse(&text);
        assert_eq!(parts(&bounce)[1].0, "message/delivery-status");
        let recipient = status_field(&bounce, 1, "Final-Recipient").unwrap();
        assert_eq!(recipient, "utf-8; b\\x{FC}ro\\x{2B}\\x{1F4EE}@else.example");
    }

    #[test]
    fn a_header_that_knows_the_boundary_gets_another_one() {
        let header = b"X: 1\n--M5P6Q7=0--\n--M5P6Q7=1\n";
        let text = text(&[(&mailbox("b@c.example"), &Answer::never((0, 0), ""))], header, false);
        let bounce = parse(&text);
        assert_eq!(bounce.content_type().unwrap().attribute("boundary"), Some("M5P6Q7=2"));
        assert_eq!(parts(&bounce).len(), 3);
        assert!(parts(&bounce)[2].1.starts_with(header.strip_suffix(b"\n").unwrap()));
    }

    #[test]
    fn no_octets_of_strangers_break_the_report() {
        fn holds(header: Vec<u8>, words: Vec<u8>, by: Option<String>, local_part: String) -> bool {
            // What an address cannot hold (`smtp/address.rs`).
            let local_part: String = local_part
                .chars()
                .filter(|c| *c == ' ' || !c.is_control() && !c.is_whitespace())
                .take(64)
                .collect();
            let domain = Domain::Name("else.example".to_owned());
            let wild = Mailbox { local_part, domain };
            let bob = mailbox("bob@else.example");
            let answer = Answer {
                verdict: Verdict::Never,
                status: Enhanced { class: 5, subject: 7, detail: 1 },
                text: String::from_utf8_lossy(&words).into_owned(),
                by,
            };
            [true, false].into_iter().all(|is_utf8| {
                let text = &text(&[(&wild, &answer), (&bob, &answer)], &header, is_utf8);
                let bounce = parse(text);
                let field = |group, name| status_field(&bounce, group, name).unwrap_or_default();
                let address_type = if wild.local_part.is_ascii() { "rfc822" } else { "utf-8" };
                let address = wild.to_string();
                let shown = if is_utf8 || address.is_ascii() { address } else { xtext(&address) };
                parts(&bounce).len() == 3
                    // An answer is printable, so outside this test the words are ASCII.
                    && (is_utf8 || !answer.text.is_ascii() || text.is_ascii())
                    && field(1, "Final-Recipient") == format!("{address_type}; {shown}")
                    && field(2, "Final-Recipient") == "rfc822; bob@else.example"
                    && (1..=2).all(|group| field(group, "Status") == "5.7.1")
                    && field(3, "Status").is_empty()
                    && text.split(|octet| *octet == b'\n').all(|line| line.len() <= 998)
            })
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>, Vec<u8>, Option<String>, String) -> bool);
        // What chance does not find.
        let forged = b"550 x\r\n\r\nFinal-Recipient: rfc822; eve@else.example\n\n--M5P6Q7=0--";
        assert!(holds(forged.to_vec(), forged.to_vec(), None, "\"\\ --M5P6Q7=0 <".to_owned()));
        assert!(holds(vec![b'\n'; 3], vec![b'x'; 9000], Some("\n\nx".to_owned()), " ".to_owned()));
    }

    #[test]
    fn long_lines_are_folded_and_long_replies_cut() {
        let header = format!("X: {}\nY: {}", "\u{fc}".repeat(2000), "y".repeat(997 - 3));
        let short = String::from_utf8(short_lines(header.as_bytes())).unwrap();
        assert!(short.lines().all(|line| line.len() <= 998));
        assert_eq!(short.replace("\n ", ""), format!("{header}\n"));
        assert_eq!(short_lines(b"a\0b\rc\n"), b"a?b?c\n");

        let endless = said(&format!("550 {}", "\u{fc}".repeat(3000)), "mx.else.example");
        let text = text(&[(&mailbox("b@c.example"), &endless)], HEADER, false);
        assert!(text.is_ascii() && text.len() < 4000, "{} octets", text.len());
        assert!(text.split(|octet| *octet == b'\n').all(|line| line.len() <= OUR_LINE));
    }

    #[test]
    fn a_reply_of_many_lines_is_told_whole_and_an_endless_one_says_that_it_is_cut() {
        let link = format!("https://else.example/{}", "x".repeat(53));
        let words = format!("550 5.7.26 {}see {link} [192.0.2.9]", "no signature ".repeat(50));
        for (words, is_cut) in [(words.clone(), false), (words.repeat(2), true)] {
            let answer = Answer {
                verdict: Verdict::Never,
                status: Enhanced { class: 5, subject: 7, detail: 26 },
                text: words.clone(),
                by: Some("mx.else.example".to_owned()),
            };
            let text = text(&[(&mailbox("bob@else.example"), &answer)], HEADER, false);
            assert!(text.split(|octet| *octet == b'\n').all(|line| line.len() <= OUR_LINE));
            // No word of it is broken, in either part.
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.matches(&link).count(), 2);
            let unfolded = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(unfolded.matches(&words).count(), if is_cut { 0 } else { 2 });
            assert_eq!(unfolded.matches(" [...] ").count(), if is_cut { 2 } else { 0 });
        }
    }

    #[test]
    fn every_advice_differs_and_none_is_for_all() {
        let advices: std::collections::HashSet<&str> = [
            (1, 1),
            (1, 2),
            (1, 3),
            (1, 6),
            (1, 7),
            (1, 10),
            (2, 1),
            (2, 2),
            (3, 4),
            (4, 6),
            (4, 7),
            (6, 3),
            (6, 7),
            (7, 1),
            (0, 0),
        ]
        .into_iter()
        .map(|(subject, detail)| advice(Enhanced { class: 5, subject, detail }))
        .collect();
        assert_eq!(advices.len(), 15);
        let late = Enhanced { class: 4, subject: 0, detail: 0 };
        assert!(advice(late).contains("given up"));
    }

    #[test]
    fn a_letter_without_a_header_does_not_go_back_whole() {
        let read = |mut text: &[u8]| header_of(&mut text).unwrap();
        let ours = b"Received: from client.example\n\tby mx.example\n";
        for text in ["buy pills\n", "buy pills: now\n", ": pills\n", "b\u{fc}y: pills\n"] {
            let letter = [ours, text.as_bytes(), b"X: y\n"].concat();
            assert_eq!(read(&letter), ours, "{text}");
        }
        assert_eq!(read(b" folded\nX: y\n"), b"");
        assert_eq!(read(b"Subject : old\n\nX: y\n"), b"Subject : old\n");
    }

    #[test]
    fn the_header_ends_at_the_empty_line_or_at_the_limit_between_lines() {
        let read = |mut text: &[u8]| header_of(&mut text).unwrap();
        assert_eq!(read(b"A: b\n c\n\nbody\n\n"), b"A: b\n c\n");
        assert_eq!(read(b"\nbody\n"), b"");
        assert_eq!(read(b"A: b\n"), b"A: b\n");
        assert_eq!(read(b""), b"");
        let long = "A: 0123456789\n".repeat(10_000);
        let header = read(long.as_bytes());
        let limit = HEADER_LIMIT as usize;
        assert!((limit - 14..=limit).contains(&header.len()) && header.ends_with(b"9\n"));
        assert_eq!(read("x".repeat(100_000).as_bytes()), b"");
    }
}
