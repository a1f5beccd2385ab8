//! The way of a waiting letter into a mailbox of this server.
//!
//! In: a claimed entry whose mailbox could not be written when the letter came. Out: one
//! [`Answer`] for its recipient.
//!
//! Left to others: letters that can be delivered at once (`store/spool.rs`).
//!
//! Book: docs/14-the-queue.md.

use crate::smtp::answer::Answer;
use crate::smtp::site::LocalMailbox;
use crate::store::queue::Claim;
use crate::store::spool::Spool;

/// X.2.0, other or undefined mailbox status (RFC 3463 section 3.3).
const MAILBOX: (u16, u16) = (2, 0);
/// X.1.5, the address is valid (RFC 3463 section 3.2).
const VALID: (u16, u16) = (1, 5);

/// Delivers the letter, for good.
pub fn deliver(spool: &Spool, claim: &Claim, mailbox: &LocalMailbox) -> Answer {
    match spool.deliver_waiting(claim, mailbox) {
        Ok(()) => Answer::delivered(VALID, "the letter is in the mailbox"),
        Err(error) => Answer::later(MAILBOX, format!("the mailbox cannot be written: {error}")),
    }
}
