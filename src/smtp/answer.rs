//! What a reply of another server, or a failure to get one, means for a recipient.
//!
//! In: a reply, or our own words where none was given. Out: an [`Answer`]: what
//! follows from it, the status code for a report, and a text that is safe to show.
//!
//! Book: docs/13-the-client-side.md.

use std::fmt::{self, Display, Formatter};

use crate::smtp::reply::{Enhanced, Kind, Reply};
use crate::smtp::text::printable;

/// 530: authentication or encryption required (RFC 4954 section 6, RFC 3207 section 4).
/// 538: the same of encryption, which RFC 4954 keeps from its forerunner (section 6).
const WANTS_MORE_OF_US: [u16; 2] = [530, 538];
/// How long the text of an answer is, in octets: about a reply line (RFC 5321 section
/// 4.5.3.1.5). It stands in the envelope, in reports and in the log for each of maybe a
/// thousand recipients, and a server must not make us write megabytes.
const TEXT_LIMIT: usize = 500;
/// Stands where more was said.
const CUT: &str = " [...]";

/// What an attempt came to, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What follows from it.
    pub verdict: Verdict,
    /// The enhanced status code (RFC 3463), as a bounce has to give it.
    pub status: Enhanced,
    /// The reply on one line, or our own words where no reply was given. Printable, and
    /// at most 500 octets: it is kept once for each recipient.
    pub text: String,
    /// The name of the server whose reply it is; `None` for our own words.
    pub by: Option<String>,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next hop has the letter. It is no longer ours.
    Delivered,
    /// Not now: try again.
    Later,
    /// Not ever: tell the sender.
    Never,
}

impl Answer {
    /// What a server said. A 3yz reply where none was asked for is a confused
    /// server; it may be better later. And where the server wants us to log in or
    /// to encrypt first, the letter is not at fault, but the way it was sent.
    pub fn of(reply: &Reply, by: &str) -> Answer {
        let (verdict, class) = match reply.kind() {
            Kind::Done => (Verdict::Delivered, 2),
            Kind::Never if WANTS_MORE_OF_US.contains(&reply.code()) => (Verdict::Later, 4),
            Kind::GoOn | Kind::Later => (Verdict::Later, 4),
            Kind::Never => (Verdict::Never, 5),
        };
        // Without a code of its own the first digit is all that is known (RFC 3464
        // section 2.3.4 wants a status in any case).
        let unknown = Enhanced { class, subject: 0, detail: 0 };
        let status = reply.enhanced().filter(|status| status.class == class).unwrap_or(unknown);
        let code = match reply.enhanced() {
            Some(enhanced) => format!("{} {enhanced}", reply.code()),
            None => reply.code().to_string(),
        };
        // The reason may stand in any of its lines.
        let text = short(&format!("{code} {}", reply.lines().join(" ")));
        Answer { verdict, status, text, by: Some(by.to_owned()) }
    }

    /// What we did ourselves: the letter is where it should go.
    pub fn delivered((subject, detail): (u16, u16), how: impl Into<String>) -> Answer {
        Answer::ours(Verdict::Delivered, Enhanced { class: 2, subject, detail }, how.into())
    }

    /// What we found out ourselves: try again.
    pub fn later((subject, detail): (u16, u16), why: impl Into<String>) -> Answer {
        Answer::ours(Verdict::Later, Enhanced { class: 4, subject, detail }, why.into())
    }

    /// What we found out ourselves: this will never work.
    pub fn never((subject, detail): (u16, u16), why: impl Into<String>) -> Answer {
        Answer::ours(Verdict::Never, Enhanced { class: 5, subject, detail }, why.into())
    }

    fn ours(verdict: Verdict, status: Enhanced, why: String) -> Answer {
        Answer { verdict, status, text: short(&why), by: None }
    }
}

/// A text made printable, and cut where that makes it too long: between two characters
/// of the text, so that no escape is broken.
fn short(text: &str) -> String {
    let whole = printable(text);
    if whole.len() <= TEXT_LIMIT {
        return whole;
    }
    let mut start = String::new();
    for c in text.chars().map(|c| printable(c.encode_utf8(&mut [0; 4]))) {
        if start.len() + c.len() + CUT.len() > TEXT_LIMIT {
            break;
        }
        start += &c;
    }
    start + CUT
}

/// On one line: who said it, and what.
impl Display for Answer {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match &self.by {
            Some(name) => write!(f, "{}: {}", printable(name), self.text),
            None => f.write_str(&self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_at_most_500_octets_and_is_cut_between_two_characters() {
        fn holds(text: String, times: u8) -> bool {
            let text = text.repeat(times.into());
            let answer = Answer::later((0, 0), text.as_str()).text;
            let Some(start) = answer.strip_suffix(CUT).filter(|_| printable(&text).len() > 500)
            else {
                return answer == printable(&text) && answer.len() <= 500;
            };
            let is_whole = |end| text.get(..end).is_some_and(|half| printable(half) == start);
            (480..=500).contains(&answer.len()) && (0..=500).any(is_whole)
        }
        quickcheck::quickcheck(holds as fn(String, u8) -> bool);
        assert!(holds("\u{1f4e8}".to_owned(), 200) && holds("\\".to_owned(), 251));
        assert!(holds("x".to_owned(), 250) && holds("xx".to_owned(), 250));
    }
}
