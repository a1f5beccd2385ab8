//! An SMTP client: one connection to the next hop, and the transactions on it.
//!
//! In: an address, an envelope, a message in file form. Out: one [`Answer`] for
//! each recipient. It is the other half of `smtp/session/`, and simpler: the
//! client chooses the order of commands, so its state is the line of code it is
//! at. `dial.rs` goes from nothing to a connection on which MAIL can be sent,
//! `transaction.rs` from MAIL to the end of the message. Here is what both have in common:
//! a command goes out, a reply comes in, and what it means that none does.
//!
//! Two rules are kept above all. The next hop has the letter when it gave 2yz to
//! the final dot or the last chunk, and never before. And what is not certain is tried again: a lost
//! connection, a wrong password, a server that makes no sense are all temporary,
//! because an error of ours must not return a letter for good.
//!
//! Left to others: which address to connect to, and when again (the rest of `relay/`);
//! octets, lines and deadlines (`wire/`).
//!
//! Book: docs/13-the-client-side.md.

mod dial;
mod extensions;
mod transaction;

use std::time::{Duration, Instant};

use crate::relay::client::extensions::Extensions;
use crate::smtp::answer::{Answer, Verdict};
use crate::smtp::reply::{Enhanced, Kind, Reply};
use crate::smtp::text::printable;
use crate::wire::replies::{NoReply, Replies};
use crate::wire::trace::Trace;

pub use crate::relay::client::dial::{ConnectError, Dial, Security};
pub use crate::relay::client::transaction::To;
pub use crate::smtp::auth::exchange::{Credentials, Evidence};

/// 421: the server closes the connection, whatever the command was
/// (RFC 5321 section 3.8).
const CLOSING: u16 = 421;
/// How long the reply to QUIT is waited for. Nothing depends on it.
const QUIT_TIME: Duration = Duration::from_secs(2);
/// How many time-outs may go by before the first MAIL, and again in each transaction before its
/// message: an hour, as long as we bear with a client. A server that answers each step just in
/// time would keep a thread for days.
pub const LONGEST_IN_TIMEOUTS: u32 = 12;

/// Steps that are not called by the command they consist of.
const GREETING: &str = "the greeting";
const BODY: &str = "the message";
const DOT: &str = "the final dot";
const LAST: &str = "the last chunk";

/// How much text of a reply is kept, in octets: of one that lists extensions or holds
/// a challenge, and of any other, which only people read.
const LIST: usize = 16 * 1024;
const TEXT: usize = 500;

/// A connection on which letters can be sent.
#[derive(Debug)]
pub struct Client {
    replies: Replies,
    /// The name of the next hop, for answers.
    hop: String,
    /// Our own, for EHLO.
    name: String,
    timeout: Duration,
    /// When this transaction began, or what goes before the first one.
    begun: Instant,
    extensions: Extensions,
    /// Cleared once the next reply could not be trusted, or will not come.
    is_open: bool,
    /// Whether a MAIL was sent that no reply to a whole message has ended.
    in_transaction: bool,
    /// Whether we have told the next hop who we are.
    has_logged_in: bool,
    trace: Option<Trace>,
}

impl Client {
    /// Whether another letter can be sent. Not after 421, a lost connection, or
    /// anything else that leaves open what the next reply would mean.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the server offers DSN, and so takes over what the sender wants to be told
    /// (RFC 3461 section 5.2.1).
    pub fn has_dsn(&self) -> bool {
        self.extensions.has("DSN")
    }

    /// Says goodbye and closes. What the server thinks of it does not matter.
    pub fn quit(mut self) {
        if self.is_open {
            let _ = self.ask("QUIT", "QUIT");
            self.replies.close();
        }
    }

    /// How long a step may take: the deadlines of RFC 5321 section 4.5.3.2, in
    /// proportion to the five minutes that most of them have.
    fn limit(&self, step: &str) -> Duration {
        let limit = match step {
            // Three minutes for each block of the message, and here a chunk is such a block.
            BODY => return self.timeout.saturating_mul(3) / 5,
            "BDAT" => return self.timeout,
            // Ten minutes: a server that is given up too early has the letter, and we
            // send it once more.
            DOT | LAST => return self.timeout.saturating_mul(2),
            "QUIT" => return self.timeout.min(QUIT_TIME),
            // Two minutes.
            "DATA" => self.timeout.saturating_mul(2) / 5,
            _ => self.timeout,
        };
        let longest = self.timeout.saturating_mul(LONGEST_IN_TIMEOUTS);
        limit.min(longest.saturating_sub(self.begun.elapsed()))
    }

    /// One command and its reply. `step` names it in texts: the line of an AUTH
    /// exchange must not get there.
    fn ask(&mut self, step: &str, line: &str) -> Result<Reply, Answer> {
        self.send(step, format!("{line}\r\n").as_bytes())?;
        self.reply(step)
    }

    fn send(&mut self, step: &str, octets: &[u8]) -> Result<(), Answer> {
        if let Some(trace) = &self.trace {
            match step {
                // What belongs to a login may be the password or a token, and so may what a careless
                // server says to it.
                "AUTH" => trace.client(&format!("<{} octets>", octets.len())),
                // As sent: with the dots that were added, and with the final one.
                BODY => trace.client(&format!("({} octets of the message)", octets.len())),
                _ => String::from_utf8_lossy(octets)
                    .lines()
                    .for_each(|line| trace.client(&printable(line))),
            }
        }
        let limit = self.limit(step);
        if limit.is_zero() {
            self.is_open = false;
            let why = format!("{}, {step}: it took too long to get here", self.hop);
            return Err(Answer::later((4, 2), why));
        }
        self.replies.send(octets, limit).map_err(|why| self.lost(step, &why))
    }

    fn reply(&mut self, step: &str) -> Result<Reply, Answer> {
        let kept = if matches!(step, "EHLO" | "AUTH") { LIST } else { TEXT };
        let reply = self.replies.reply(self.limit(step), kept);
        let reply = reply.map_err(|why| self.lost(step, &why))?;
        if let Some(trace) = &self.trace {
            if step == "AUTH" {
                trace.hidden(&reply);
            } else {
                let mut octets = Vec::new();
                reply.write_to(&mut octets);
                trace.server(&octets);
            }
        }
        self.is_open &= reply.code() != CLOSING;
        Ok(reply)
    }

    /// An error unless the reply is of this kind. One that is neither that nor a
    /// refusal has no meaning here.
    fn wants(&mut self, kind: Kind, step: &str, reply: &Reply) -> Result<(), Answer> {
        if reply.kind() == kind { Ok(()) } else { Err(self.refusal(step, reply)) }
    }

    /// What a reply means that is not the one that was wanted.
    fn refusal(&mut self, step: &str, reply: &Reply) -> Answer {
        match reply.kind() {
            Kind::Later | Kind::Never => Answer::of(reply, &self.hop),
            Kind::Done | Kind::GoOn => self.confused(step, reply),
        }
    }

    /// No reply: nothing is known about the next one either.
    fn lost(&mut self, step: &str, why: &NoReply) -> Answer {
        self.is_open = false;
        let status = match why {
            NoReply::Closed | NoReply::Late | NoReply::Deaf | NoReply::Io(_) => (4, 2),
            NoReply::LineTooLong | NoReply::Malformed(_) | NoReply::Early => (5, 0),
        };
        let is_sent = matches!(step, DOT | LAST);
        let doubt = if is_sent { "; the letter may have arrived" } else { "" };
        Answer::later(status, format!("{}, {step}: {why}{doubt}", self.hop))
    }

    /// A reply that cannot be one to this step: server and client do not talk
    /// about the same thing any more.
    fn confused(&mut self, step: &str, reply: &Reply) -> Answer {
        self.is_open = false;
        Answer::later((5, 0), format!("{}: {step} was answered with {}", self.hop, reply.code()))
    }

    /// A refusal that is temporary for us, whatever its first digit says.
    fn not_now(&mut self, step: &str, reply: &Reply) -> Answer {
        let answer = self.refusal(step, reply);
        let status = Enhanced { class: 4, ..answer.status };
        Answer { verdict: Verdict::Later, status, ..answer }
    }
}
