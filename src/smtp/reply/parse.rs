//! Replies of other servers, read line by line.
//!
//! In: the lines of a server, as a client reads them. Out: a [`Reply`] once its last
//! line is there, or why these lines are none.
//!
//! Left to others: lines and deadlines (`wire/replies.rs`), and what a reply means
//! (`relay/client/`).
//!
//! Book: docs/03-replies.md.

use std::fmt::{self, Display, Formatter};

use crate::smtp::reply::{Enhanced, Reply};

/// The most lines one reply may have before we stop listening to a server.
/// The RFC names no limit; EHLO, the longest in practice, has about twenty.
const REPLY_LINES_LIMIT: usize = 128;

/// Puts a reply together from its lines.
///
/// `250-` means that more lines follow, `250 ` or a bare `250` that this was the
/// last one. The lines should all have one code, and one enhanced code or none (RFC
/// 5321 section 4.2.1, RFC 2034 section 4). Where they do not, the last line counts:
/// it is the one that other clients go by.
#[derive(Debug)]
pub struct ReplyParser {
    kept: usize,
    begun: Option<Reply>,
    /// How many lines of it were read.
    lines: usize,
    /// How many octets of text it may still have.
    room: usize,
}

/// Why the lines of a server are no reply (RFC 5321 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// The line does not begin with three digits of 200 to 599, then the end, a
    /// space or a `-`.
    BadCode,
    /// No last line within `REPLY_LINES_LIMIT` lines.
    Endless,
}

impl ReplyParser {
    /// Reads any number of replies, and keeps so many octets of the text of each, however
    /// long it is. What goes beyond is left out.
    pub fn keeping(kept: usize) -> ReplyParser {
        ReplyParser { kept, begun: None, lines: 0, room: kept }
    }

    /// Takes the next line, without its CR LF. Gives the reply once this was its
    /// last line, and is then ready for the next reply. Octets outside UTF-8
    /// are replaced. After an error the stream cannot be trusted any more.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let (code, rest) = split_code(line).ok_or(ReplyError::BadCode)?;
        let (is_last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(ReplyError::BadCode),
        };
        if self.lines == REPLY_LINES_LIMIT {
            return Err(ReplyError::Endless);
        }
        self.lines += 1;
        let text = String::from_utf8_lossy(text);
        let (enhanced, text) = split_enhanced(code, &text);

        let reply = self.begun.get_or_insert(Reply { code, enhanced, lines: Vec::new() });
        let same_class = reply.enhanced.filter(|status| u16::from(status.class) == code / 100);
        reply.code = code;
        reply.enhanced = enhanced.or(same_class);
        if self.room > 0 || reply.lines.is_empty() {
            let start = start_of(text, self.room);
            self.room = if start.len() < text.len() { 0 } else { self.room - start.len() };
            reply.lines.push(start.to_owned());
        }
        if !is_last {
            return Ok(None);
        }
        let done = self.begun.take();
        *self = ReplyParser::keeping(self.kept);
        Ok(done)
    }
}

/// At most so many octets of a text, in whole characters.
fn start_of(text: &str, octets: usize) -> &str {
    let mut ends = (0..=octets.min(text.len())).rev();
    let end = ends.find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// The three digits, and what follows them.
fn split_code(line: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let text = std::str::from_utf8(digits).ok()?;
    let is_code = text.bytes().all(|octet| octet.is_ascii_digit());
    let code = text.parse().ok().filter(|code| is_code && (200..600).contains(code))?;
    Some((code, rest))
}

/// The enhanced code at the start of `text`, if one is there and its class
/// agrees with the reply code; and the text after it.
fn split_enhanced(code: u16, text: &str) -> (Option<Enhanced>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let found = word.parse().ok();
    match found.filter(|status: &Enhanced| u16::from(status.class) == code / 100) {
        Some(enhanced) => (Some(enhanced), rest),
        None => (None, text),
    }
}

impl Display for ReplyError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            ReplyError::BadCode => "a line that is no SMTP reply",
            ReplyError::Endless => "a reply that does not end",
        })
    }
}

impl std::error::Error for ReplyError {}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{bad_sequence, greeting, help, ok, send_message};

    fn parse(text: &str) -> Result<Option<Reply>, ReplyError> {
        let mut parser = ReplyParser::keeping(500);
        let mut last = Ok(None);
        for line in text.split("\r\n") {
            last = parser.line(line.as_bytes());
            if last != Ok(None) {
                break;
            }
        }
        last
    }

    #[test]
    fn what_is_written_is_parsed_back() {
        for reply in [greeting("a"), help(), ok(), bad_sequence("why"), send_message()] {
            let mut octets = Vec::new();
            reply.write_to(&mut octets);
            let text = String::from_utf8(octets).unwrap();
            assert_eq!(parse(text.trim_end_matches("\r\n")), Ok(Some(reply)));
        }
    }

    #[test]
    fn a_bare_code_is_a_whole_reply() {
        let reply = parse("250").unwrap().unwrap();
        assert_eq!((reply.code(), reply.lines()), (250, &[String::new()][..]));
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let reply = parse("550 2.1.1 odd").unwrap().unwrap();
        assert_eq!(reply.enhanced(), None);
        assert_eq!(reply.lines(), ["2.1.1 odd"]);
        for text in [
            "550 +5.1.1",
            "550 5.1",
            "550 5.1.1.1",
            "550 5.1.1.x",
            "550 5.1.1.",
            "550 5.0001.1",
            "250 258.1.1",
        ] {
            assert_eq!(parse(text).unwrap().unwrap().enhanced(), None, "{text}");
        }
    }

    #[test]
    fn lines_that_are_no_reply_are_named() {
        assert_eq!(parse("hello"), Err(ReplyError::BadCode));
        assert_eq!(parse("25"), Err(ReplyError::BadCode));
        assert_eq!(parse("250_x"), Err(ReplyError::BadCode));
        assert_eq!(parse("199 x"), Err(ReplyError::BadCode));
        assert_eq!(parse("600 x"), Err(ReplyError::BadCode));
        assert_eq!(parse("+50 x"), Err(ReplyError::BadCode));
        assert_eq!(parse(&"250-a\r\n".repeat(1000)), Err(ReplyError::Endless));
    }

    #[test]
    fn the_last_line_decides_about_the_code_and_the_enhanced_code() {
        for (text, first_words) in [
            ("250-a\r\n251 b", "251 b"),
            ("550-5.1.1 a\r\n450 4.2.0 b", "450 4.2.0 b"),
            ("550-5.1.1 a\r\n450 b", "450 b"),
            ("250-2.1.0 a\r\n250 b", "250 2.1.0 b"),
            ("250-a\r\n250-2.1.0 b\r\n250", "250 2.1.0 "),
            ("354-a\r\n421", "421 "),
        ] {
            assert_eq!(parse(text).unwrap().unwrap().to_string(), first_words, "{text:?}");
        }
    }

    #[test]
    fn of_the_text_no_more_is_kept_than_was_asked_for_and_whole_characters() {
        let texts = |kept: usize, lines: &[&str]| {
            let mut parser = ReplyParser::keeping(kept);
            // The second reply has as much room as the first.
            let read = [0; 2].map(|_| {
                let mut read = lines.iter().map(|line| parser.line(line.as_bytes()).unwrap());
                read.find_map(|reply| reply).unwrap()
            });
            assert_eq!(read[0], read[1]);
            read[0].lines().to_vec()
        };
        assert_eq!(texts(4, &["250-ab", "250-cd", "250 e"]), ["ab", "cd"]);
        assert_eq!(texts(4, &["250-ab", "250-cde", "250 f"]), ["ab", "cd"]);
        assert_eq!(texts(3, &["250-a\u{fc}\u{fc}", "250 b"]), ["a\u{fc}"]);
        assert_eq!(texts(2, &["250-ab\u{fc}", "251 b"]), ["ab"]);
        assert_eq!(texts(0, &["250-ab", "250 c"]), [""]);
    }

    #[test]
    fn any_octets_parse_or_fail_without_a_panic() {
        fn holds(line: Vec<u8>) -> bool {
            let _ = ReplyParser::keeping(500).line(&line);
            true
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>) -> bool);
    }
}
