//! What a reply is (RFC 5321 section 4.2).
//!
//! In: what the session decided. Out: the octets of a reply, with an enhanced
//! status code (RFC 3463) in front of each line. The replies of this server have
//! their names in `ours.rs`, and the rest of the program says
//! `reply::bad_sequence(…)` and reads as prose; `parse.rs` reads what other servers
//! say.
//!
//! Left to others: when a reply is given (`smtp/session/`), when it is sent
//! (`wire/lines.rs`).
//!
//! Book: docs/03-replies.md.

mod ours;
mod parse;

use std::fmt::{self, Display, Formatter, Write as _};
use std::str::FromStr;

use crate::smtp::text::printable;

pub use crate::smtp::reply::ours::*;
pub use crate::smtp::reply::parse::{ReplyError, ReplyParser};

/// The longest reply line, CR LF included (RFC 5321 section 4.5.3.1.5).
pub const REPLY_LINE_LIMIT: usize = 512;

/// One reply: a code, perhaps an enhanced status code, and one line or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    /// Never empty. The texts hold printable ASCII only when they are ours.
    lines: Vec<String>,
}

/// An enhanced status code, `class.subject.detail` (RFC 3463 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enhanced {
    /// 2 success, 4 try again later, 5 do not try again.
    pub class: u8,
    /// What the code is about: 1 addresses, 2 mailboxes, 3 the mail system …
    pub subject: u16,
    /// What exactly happened.
    pub detail: u16,
}

/// What a client does about a reply depends on its first digit, but for a few codes that
/// `answer.rs` knows (RFC 5321 section 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 2yz: done.
    Done,
    /// 3yz: go on, the server waits for more.
    GoOn,
    /// 4yz: not now, the same command may work later.
    Later,
    /// 5yz: no, and asking again will not help.
    Never,
}

impl Reply {
    /// One line, with the enhanced code `class.subject.detail`, where the class
    /// is the first digit of `code` (RFC 2034 section 4).
    fn new(code: u16, (subject, detail): (u16, u16), text: impl Into<String>) -> Reply {
        let class = (code / 100) as u8;
        Reply {
            code,
            enhanced: Some(Enhanced { class, subject, detail }),
            lines: vec![text.into()],
        }
    }

    /// One line without an enhanced code.
    fn plain(code: u16, text: impl Into<String>) -> Reply {
        Reply { code, enhanced: None, lines: vec![text.into()] }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code, if the reply has one.
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text of each line, without codes; there is at least one.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What the first digit asks the client to do.
    pub fn kind(&self) -> Kind {
        match self.code {
            0..=299 => Kind::Done,
            300..=399 => Kind::GoOn,
            400..=499 => Kind::Later,
            500.. => Kind::Never,
        }
    }

    /// Appends the octets that go over the wire: every line but the last has a
    /// `-` after the code (RFC 5321 section 4.2.1). A line longer than
    /// [`REPLY_LINE_LIMIT`] is cut, so that no client is asked to take more.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        let mut line = String::with_capacity(REPLY_LINE_LIMIT);
        for (number, text) in self.lines.iter().enumerate() {
            let separator = if number == last { ' ' } else { '-' };
            line.clear();
            // Writing to a String cannot fail.
            let _ = match self.enhanced {
                Some(enhanced) => write!(line, "{}{separator}{enhanced} {text}", self.code),
                None => write!(line, "{}{separator}{text}", self.code),
            };
            let octets = line.as_bytes();
            let few = octets.len().min(REPLY_LINE_LIMIT - "\r\n".len());
            out.extend_from_slice(octets.get(..few).unwrap_or_default());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The last line, as a log or a person shows it: `550 5.1.1 no such mailbox here`.
impl Display for Reply {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        match self.lines.last() {
            Some(text) => write!(f, " {}", printable(text)),
            None => Ok(()),
        }
    }
}

impl Display for Enhanced {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Reads `class.subject.detail`: three numbers, and nothing else.
impl FromStr for Enhanced {
    type Err = ();

    fn from_str(text: &str) -> Result<Enhanced, ()> {
        let mut numbers = text.split('.').map(number);
        let mut next = || numbers.next().flatten().ok_or(());
        let (class, subject, detail) = (next()?, next()?, next()?);
        let class = u8::try_from(class).map_err(drop)?;
        if numbers.next().is_some() { Err(()) } else { Ok(Enhanced { class, subject, detail }) }
    }
}

/// One to three digits (RFC 3463 section 2), and nothing else.
fn number(text: &str) -> Option<u16> {
    let short = (1..=3).contains(&text.len());
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|_| short && digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_but_the_last_has_a_dash_and_every_line_the_enhanced_code() {
        let help = octets(&help());
        assert!(help.starts_with("214-2.0.0 a letter"));
        assert!(help.lines().rev().skip(1).all(|line| line.starts_with("214-2.0.0 ")));
        assert!(help.lines().last().unwrap().starts_with("214 2.0.0 "));
        assert!(help.ends_with("\r\n"));
    }

    #[test]
    fn no_line_is_longer_than_512_octets_whatever_the_client_said() {
        let name = "\u{1b}".repeat(255);
        for line in octets(&hello("host.example", name.as_bytes())).split_inclusive("\r\n") {
            assert!(line.len() <= REPLY_LINE_LIMIT, "{} octets", line.len());
            assert!(line.ends_with("\r\n"));
        }
    }

    #[test]
    fn the_first_digit_tells_the_client_what_to_do() {
        let kinds = [ok(), send_message(), no_room(), no_such_mailbox()].map(|reply| reply.kind());
        assert_eq!(kinds, [Kind::Done, Kind::GoOn, Kind::Later, Kind::Never]);
    }
}
