//! What a person can do to an entry of the queue.
//!
//! In: an entry that nobody else may touch, and what time it is. Out: the entry saved or
//! gone, and a text that says so.
//!
//! Left to others: which entries are meant; the report about one that is given back,
//! which the server writes at the next attempt, without asking a next hop again.
//!
//! Book: docs/20-outgrowing-one-machine.md.

use std::io;

use ehlo::relay::conclusion;
use ehlo::smtp::address::ReversePath;
use ehlo::smtp::answer::Answer;
use ehlo::smtp::text::printable;
use ehlo::store::envelope::{Entry, QueuedRecipient, RecipientState};
use ehlo::store::queue::Claim;
use jiff::Timestamp;

/// One of the functions below.
pub type Change = fn(&mut Claim, Timestamp) -> io::Result<Changed>;

/// What was done to an entry.
#[derive(Debug)]
pub struct Changed {
    /// In words, for whoever wanted it.
    pub what: String,
    /// Whether a server has to do something about it.
    pub has_work: bool,
}

/// Has it tried now, whatever its time.
pub fn now(claim: &mut Claim, now: Timestamp) -> io::Result<Changed> {
    claim.entry.next = now;
    claim.save()?;
    let what = format!("due now, {}", for_whom(&claim.entry, |_| true));
    Ok(Changed { what, has_work: true })
}

/// Ends it. Neither the sender nor a recipient is told.
pub fn drop(claim: &mut Claim, _: Timestamp) -> io::Result<Changed> {
    claim.end()?;
    let from = printable(claim.entry.letter.reverse_path.to_string());
    let to = for_whom(&claim.entry, |one| one.state != RecipientState::Ended);
    Ok(Changed { what: format!("dropped, from {from} {to}; nobody is told"), has_work: false })
}

/// Gives it back: whoever waits has failed, as if the next hop had said so.
pub fn bounce(claim: &mut Claim, now: Timestamp) -> io::Result<Changed> {
    let waiting = claim.entry.waiting();
    for &index in &waiting {
        let recipient = claim.entry.recipients.get(index);
        let answer = given_back(recipient.and_then(|one| one.answer.as_ref()));
        // Who wants no report of a failure gets none.
        conclusion::note_answer(claim, index, answer, false);
    }
    if claim.entry.is_over() {
        claim.end()?;
        let what = "ended; its sender wants no report of a failure".to_owned();
        return Ok(Changed { what, has_work: false });
    }
    claim.entry.next = now;
    claim.save()?;
    if waiting.is_empty() {
        let what = "nobody waits any more; the report that is owed is due now".to_owned();
        return Ok(Changed { what, has_work: true });
    }
    let to = for_whom(&claim.entry, |one| one.state == RecipientState::Failed);
    let what = match &claim.entry.letter.reverse_path {
        ReversePath::Mailbox(_) => {
            let sender = printable(claim.entry.letter.reverse_path.to_string());
            format!("given back, {to}; the report goes to {sender}")
        }
        ReversePath::Null => {
            format!(
                "failed, {to}; it is from <>, so nobody is told, and it stays as {}.dead",
                claim.id()
            )
        }
    };
    Ok(Changed { what, has_work: true })
}

/// 5.0.0: nothing is wrong with an address, a mailbox, a system or the network, and it is
/// no rule that the letter breaks. Only the class is known (RFC 3463 section 3.1).
fn given_back(last: Option<&Answer>) -> Answer {
    let why = "given back by the operator of this server before it could be delivered";
    let last = last.map_or(String::new(), |last| format!("; the last answer was {last}"));
    Answer::never((0, 0), format!("{why}{last}"))
}

/// `for <bob@b.example> <cem@b.example>`
fn for_whom(entry: &Entry, is_meant: impl Fn(&&QueuedRecipient) -> bool) -> String {
    let meant = entry.recipients.iter().filter(is_meant);
    let meant: Vec<_> = meant.map(|one| printable(format!("<{}>", one.address))).collect();
    format!("for {}", meant.join(" "))
}
