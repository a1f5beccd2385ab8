//! One transaction: a sender, its recipients, and which of them are taken.
//!
//! In: MAIL and RCPT, when it is time for them. Out: an [`Envelope`], or the reply
//! that refuses. Each check stands where the order syntax, sequence, policy, resources
//! puts it: the form was checked by the parser, the sequence by the one `match`.
//!
//! Left to others: whose mailbox an address is (`site/`), what a refusal costs
//! (`patience.rs`).
//!
//! Book: docs/05-state-machine.md.

use std::mem;

use crate::smtp::address::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::command::{Mail, Rcpt};
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::reply::{self, Kind, Reply};
use crate::smtp::session::patience::{PAUSE, Price};
use crate::smtp::session::{Session, State, Step, go};
use crate::smtp::site::{Destination, LocalMailbox, Resolved};

/// Room on disk that has to stay free beside a message, in octets. It is also
/// what a message of unknown size may need at least (RFC 5321 section 4.5.3.1.7).
const ROOM_RESERVE: u64 = 64 * 1024;

/// What MAIL and RCPT said. Recipients are known only from here, never from the
/// header of the message: that is why a Bcc works.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where errors are reported to.
    pub reverse_path: ReversePath,
    /// One entry for each destination, however many addresses led to it.
    pub recipients: Vec<Recipient>,
    /// How many recipients were refused after the first one was accepted.
    pub refused: usize,
    /// The client said SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// What the sender wants in a report (RFC 3461).
    pub dsn: MailDsn,
}

/// One accepted recipient.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The address as the client gave it, parsed.
    pub address: ForwardPath,
    /// Where it leads.
    pub destination: Destination,
    /// Which of our aliases led there, if one did.
    pub alias: Option<Mailbox>,
    /// When to tell the sender about it (RFC 3461).
    pub dsn: RcptDsn,
}

impl Session {
    /// Opens a transaction for `mail`, or says why not.
    pub(super) fn open_transaction(&self, mail: Mail) -> (State, Step) {
        if let Some(refusal) = self.refusal_of_sender(&mail) {
            return go(State::Ready, refusal);
        }
        let envelope = Envelope {
            reverse_path: mail.from,
            recipients: Vec::new(),
            refused: 0,
            smtputf8: mail.smtputf8,
            dsn: mail.dsn,
        };
        go(State::Mail(envelope), reply::sender_ok())
    }

    fn refusal_of_sender(&self, mail: &Mail) -> Option<Reply> {
        if mail.from.needs_smtputf8() && !mail.smtputf8 {
            return Some(reply::needs_smtputf8());
        }
        if self.user.as_ref().is_some_and(|user| !self.site.may_send_as(user, &mail.from)) {
            return Some(reply::not_your_address());
        }
        if mail.size.is_some_and(|size| size > self.site.max_size) {
            return Some(reply::too_big(self.site.max_size));
        }
        // Better to say it now than after the whole message has come (RFC 1870 section 6.1).
        if mail.size.unwrap_or(0).saturating_add(ROOM_RESERVE) > self.outside.room {
            return Some(reply::no_room());
        }
        None
    }

    /// Adds a recipient to the transaction, or says why not.
    pub(super) fn add_recipient(&self, mut envelope: Envelope, rcpt: &Rcpt) -> (State, Step) {
        let reply = match self.destinations(&envelope, rcpt) {
            Ok(resolved) => {
                envelope.add(rcpt, resolved);
                reply::recipient_ok()
            }
            Err(refusal) => refusal,
        };
        if envelope.recipients.is_empty() {
            go(State::Mail(envelope), reply)
        } else {
            go(State::Rcpt(envelope), reply)
        }
    }

    /// Where a recipient leads that the envelope has room for, less those that are in
    /// it already.
    fn destinations(&self, envelope: &Envelope, rcpt: &Rcpt) -> Result<Resolved, Reply> {
        if rcpt.to.needs_smtputf8() && !envelope.smtputf8 {
            return Err(reply::needs_smtputf8());
        }
        let mut resolved = self.site.resolve(&rcpt.to, self.connected_to, self.user.is_some())?;
        // The second address of a mailbox is welcome, and brings no second copy.
        resolved.destinations.retain(|destination| !envelope.has(destination));
        let room = self.site.max_recipients.saturating_sub(envelope.recipients.len());
        if resolved.destinations.len() > room {
            return Err(reply::too_many_recipients());
        }
        Ok(resolved)
    }

    /// Whether a refused recipient beside accepted ones costs nothing, however it came
    /// to be refused. If not, its reply waits.
    pub(super) fn is_forgiven(&mut self, step: &mut Step) -> bool {
        let State::Rcpt(envelope) = &mut self.state else { return false };
        if step.reply.kind() != Kind::Never {
            return false;
        }
        let price = self.patience.recipient_refused(envelope.recipients.len(), envelope.refused);
        envelope.refused += 1;
        if price == Price::Late {
            step.pause = PAUSE;
        }
        price == Price::Nothing
    }
}

impl Envelope {
    fn add(&mut self, rcpt: &Rcpt, resolved: Resolved) {
        let Resolved { destinations, alias } = resolved;
        let mut dsn = rcpt.dsn.clone();
        // A success is told once, and not for each of several.
        if let Some(alias) = alias.clone().filter(|_| destinations.len() > 1)
            && dsn.wanted().success
        {
            let told = mem::replace(&mut dsn, rcpt.dsn.without_success());
            self.push(rcpt, Destination::Expansion(alias), None, told);
        }
        for destination in destinations {
            self.push(rcpt, destination, alias.clone(), dsn.clone());
        }
    }

    fn push(
        &mut self,
        rcpt: &Rcpt,
        destination: Destination,
        alias: Option<Mailbox>,
        dsn: RcptDsn,
    ) {
        self.recipients.push(Recipient { address: rcpt.to.clone(), destination, alias, dsn });
    }

    /// The mailboxes of this server among the destinations.
    pub fn mailboxes(&self) -> Vec<&LocalMailbox> {
        self.recipients.iter().filter_map(|to| to.destination.mailbox()).collect()
    }

    /// The addresses at other servers among the destinations.
    pub fn elsewhere(&self) -> Vec<&Mailbox> {
        self.recipients.iter().filter_map(|to| to.destination.address()).collect()
    }

    /// The address of the recipients, if they were all reached by a single one.
    pub fn only_address(&self) -> Option<&ForwardPath> {
        let (first, rest) = self.recipients.split_first()?;
        rest.iter().all(|other| other.address == first.address).then_some(&first.address)
    }

    fn has(&self, destination: &Destination) -> bool {
        self.recipients.iter().any(|recipient| recipient.destination == *destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::session::Outside;
    use crate::smtp::session::tests::{TRANSACTION, codes, session};

    #[test]
    fn mail_is_taken_only_while_its_size_and_a_reserve_fit_the_disk() {
        let mut session = session();
        session.line(b"EHLO c");
        for (room, line, code) in [
            (ROOM_RESERVE, "MAIL FROM:<>", 250),
            (ROOM_RESERVE - 1, "MAIL FROM:<>", 452),
            (ROOM_RESERVE + 9, "MAIL FROM:<> SIZE=9", 250),
            (ROOM_RESERVE + 8, "MAIL FROM:<> SIZE=9", 452),
        ] {
            session.set_outside(Outside { room, ..Outside::default() });
            assert_eq!(codes(&mut session, &[line, "RSET"]), [code, 250], "{room} {line}");
        }
    }

    #[test]
    fn a_second_address_of_a_mailbox_takes_no_room() {
        let mut session = session();
        codes(&mut session, &TRANSACTION);
        let more = ["RCPT TO:<BOB+x@host.example>", "RCPT TO:<cem@host.example>"];
        assert_eq!(codes(&mut session, &more), [250, 452]);
    }
}
