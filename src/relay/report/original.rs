//! The third part of a report: what comes back of the letter, so that its sender
//! knows which one it was.
//!
//! In: the stored letter, from behind our `Return-Path`, and what its sender asked
//! for (RFC 3461 section 4.3). Out: its header, or all of it. The header begins with
//! our own fields, such as `Received`.
//!
//! All of it comes back only as it is. A `message/rfc822` must not be encoded (RFC
//! 2046 section 5.2.1), so what would not get through every server (a long line,
//! octets outside ASCII in a report that has to be ASCII) leaves the header alone:
//! that the sender hears of the failure is worth more than what is returned.
//!
//! Book: docs/14-the-queue.md.

use std::io::{self, Read};

use crate::relay::report::Part;
use crate::relay::report::fold::short_lines;
use crate::smtp::dsn::Ret;
use crate::store::header::header_of;

/// How much is sent back, in octets: of a longer letter its header only (RFC 3461
/// section 6.2), and of a longer header the beginning.
const LIMIT: usize = 64 * 1024;

/// What can come back of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Original {
    /// Its header.
    Header(Vec<u8>),
    /// All of it, if the report is about a failure and a letter may hold it.
    Letter(Vec<u8>),
}

impl Original {
    /// Reads what the sender asked for. Without a wish it is the header: the rest may
    /// be large, and the reverse-path forged.
    pub fn read(message: &mut dyn Read, ret: Option<Ret>) -> io::Result<Original> {
        let mut octets = Vec::new();
        message.take(LIMIT as u64 + 1).read_to_end(&mut octets)?;
        if ret == Some(Ret::Full) && octets.len() <= LIMIT {
            return Ok(Original::Letter(octets));
        }
        octets.truncate(LIMIT);
        Ok(Original::Header(header_of(&octets)))
    }
}

/// The part; the letter itself only where there `may_be_all`. Only a header in UTF-8
/// needs the newer types, which fewer programs know (RFC 6533 section 4.2).
pub fn part(original: &Original, may_be_all: bool, is_utf8: bool) -> Part {
    let mut header = match original {
        Original::Letter(letter) => header_of(letter),
        Original::Header(fields) => fields.clone(),
    };
    if let Original::Letter(letter) = original
        && may_be_all
        && can_go_back(letter, is_utf8)
    {
        let content_type = if is_global(&header) { "message/global" } else { "message/rfc822" };
        return Part { content_type, text: letter.clone() };
    }
    // Without SMTPUTF8 nobody knows what octets outside ASCII mean, and to a server
    // without 8BITMIME they could not go at all (RFC 6152 section 3). The sender would
    // not hear of the failure.
    if !is_utf8 {
        header.iter_mut().filter(|octet| !octet.is_ascii()).for_each(|octet| *octet = b'?');
    }
    let is_global = is_global(&header);
    let content_type = if is_global { "message/global-headers" } else { "text/rfc822-headers" };
    Part { content_type, text: header }
}

/// Whether a letter can be a part of a report unchanged.
fn can_go_back(letter: &[u8], is_utf8: bool) -> bool {
    short_lines(letter) == letter && (is_utf8 || letter.is_ascii())
}

/// Whether a header is one that only SMTPUTF8 allows. Octets that nobody has called
/// UTF-8 are not called so here.
fn is_global(header: &[u8]) -> bool {
    !header.is_ascii() && std::str::from_utf8(header).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, ret: Option<Ret>) -> Original {
        Original::read(&mut text.as_bytes(), ret).unwrap()
    }

    #[test]
    fn what_was_asked_for_is_read_up_to_a_limit() {
        let text = "A: b\n\nbody\n";
        assert_eq!(read(text, Some(Ret::Full)), Original::Letter(text.as_bytes().to_vec()));
        for ret in [None, Some(Ret::Headers)] {
            assert_eq!(read(text, ret), Original::Header(b"A: b\n".to_vec()));
        }
        let full = format!("A: b\n\n{}", "x".repeat(LIMIT - 6));
        assert!(matches!(read(&full, Some(Ret::Full)), Original::Letter(_)));
        let longer = format!("{full}x");
        assert_eq!(read(&longer, Some(Ret::Full)), Original::Header(b"A: b\n".to_vec()));
    }

    #[test]
    fn an_endless_header_ends_between_two_lines() {
        let Original::Header(header) = read(&"A: 0123456789\n".repeat(10_000), None) else {
            panic!("asked for the header");
        };
        assert!((LIMIT - 14..=LIMIT).contains(&header.len()) && header.ends_with(b"9\n"));
        assert_eq!(read(&"x".repeat(100_000), None), Original::Header(Vec::new()));
    }

    #[test]
    fn a_letter_comes_back_whole_only_as_it_is() {
        let long = format!("A: b\n\n{}\n", "x".repeat(999));
        let cases: [(&[u8], bool, &str, &[u8]); 9] = [
            (b"A: b\n\nc\n", false, "message/rfc822", b"A: b\n\nc\n"),
            (b"A: b\n\nc", false, "message/rfc822", b"A: b\n\nc"),
            ("A: b\n\n\u{fc}\n".as_bytes(), true, "message/rfc822", "A: b\n\n\u{fc}\n".as_bytes()),
            ("A: \u{fc}\n\nc\n".as_bytes(), true, "message/global", "A: \u{fc}\n\nc\n".as_bytes()),
            (b"A: \xfc\n\nc\n", true, "message/rfc822", b"A: \xfc\n\nc\n"),
            ("A: b\n\n\u{fc}\n".as_bytes(), false, "text/rfc822-headers", b"A: b\n"),
            ("A: \u{fc}\n\nc\n".as_bytes(), false, "text/rfc822-headers", b"A: ??\n"),
            (b"A: b\n\n\0\n", true, "text/rfc822-headers", b"A: b\n"),
            (long.as_bytes(), true, "text/rfc822-headers", b"A: b\n"),
        ];
        for (letter, is_utf8, content_type, text) in cases {
            let found = part(&Original::Letter(letter.to_vec()), true, is_utf8);
            assert_eq!((found.content_type, found.text.as_slice()), (content_type, text));
        }
    }

    #[test]
    fn without_a_failure_only_the_header_comes_back() {
        let found = part(&Original::Letter(b"A: b\n\nc\n".to_vec()), false, true);
        assert_eq!(
            (found.content_type, found.text.as_slice()),
            ("text/rfc822-headers", &b"A: b\n"[..])
        );
    }
}
