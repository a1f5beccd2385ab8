//! Mail for other servers: where it goes, how it gets there, and what the sender
//! is told if it does not.
//!
//! Read in this order: this file, [`client`], [`attempt`], [`worker`]; then [`route`] and
//! [`dns`], and [`bounce`]. What waits is kept by `store/queue.rs`.
//!
//! Book: docs/13-the-client-side.md.

pub mod attempt;
pub mod bounce;
pub mod client;
pub mod dns;
pub mod route;
pub mod worker;

use std::fmt::{self, Display, Formatter};

use crate::smtp::reply::{Enhanced, Kind, Reply};
use crate::smtp::text::printable;

/// 530 and 538: authentication or encryption required (RFC 4954 section 6, RFC 3207
/// section 4).
const WANTS_MORE_OF_US: [u16; 2] = [530, 538];

/// What an attempt came to, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What follows from it.
    pub verdict: Verdict,
    /// The enhanced status code (RFC 3463), as a bounce has to give it.
    pub status: Enhanced,
    /// The reply on one line, or our own words where no reply was given. Printable.
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
        let text = printable(format!("{code} {}", reply.lines().join(" ")));
        Answer { verdict, status, text, by: Some(by.to_owned()) }
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
        Answer { verdict, status, text: printable(why), by: None }
    }
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
