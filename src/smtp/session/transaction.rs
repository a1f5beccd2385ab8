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
use crate::smtp::command::{Chunk, Mail, Rcpt};
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::reply::{self, Reply};
use crate::smtp::session::{Next, Note, Part, Session, State, Step, go};
use crate::smtp::site::{Destination, Resolved};

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
        let (reply, elsewhere) = match self.destinations(&envelope, rcpt) {
            Ok((new, known)) => {
                let elsewhere = new.elsewhere();
                envelope.add(rcpt, new, &known);
                (reply::recipient_ok(), elsewhere)
            }
            Err(refusal) => (refusal, 0),
        };
        // It counts here, and not when the message is stored: a transaction has many ends.
        let note = (self.user.is_some() && elsewhere > 0).then_some(Note::Elsewhere(elsewhere));
        let (state, step) = if envelope.recipients.is_empty() {
            go(State::Mail(envelope), reply)
        } else {
            go(State::Rcpt(envelope), reply)
        };
        (state, Step { note, ..step })
    }

    /// Where a recipient leads: what is new in the envelope, and what is in it already. The
    /// error says why the recipient is refused.
    fn destinations(
        &self,
        envelope: &Envelope,
        rcpt: &Rcpt,
    ) -> Result<(Resolved, Vec<Destination>), Reply> {
        if rcpt.to.needs_smtputf8() && !envelope.smtputf8 {
            return Err(reply::needs_smtputf8());
        }
        let Resolved { destinations, alias } =
            self.site.resolve(&rcpt.to, self.connected_to, self.user.is_some())?;
        // The second address of a mailbox is welcome, and brings no second copy.
        let (known, destinations) = destinations.into_iter().partition(|one| envelope.has(one));
        let new = Resolved { destinations, alias };
        let room = self.site.max_recipients.saturating_sub(envelope.count());
        // The first address has room, whatever it leads to: an alias with more targets would
        // be told for ever to come in another transaction.
        if new.destinations.len() > room && !envelope.recipients.is_empty() {
            return Err(reply::too_many_recipients());
        }
        if new.elsewhere() > self.outside.elsewhere_left {
            return Err(reply::too_many_this_hour());
        }
        Ok((new, known))
    }

    /// Takes one more chunk, after `received` octets, or says that it is too much. What
    /// BDAT counts is what SIZE counts (RFC 1870 section 5), so that is known at once.
    pub(super) fn take_chunk(
        &self,
        envelope: Envelope,
        received: u64,
        chunk: Chunk,
    ) -> (State, Step) {
        let received = received.saturating_add(chunk.size);
        if received > self.site.max_size {
            return refuse_chunk(State::Ready, chunk, reply::too_big(self.site.max_size));
        }
        let part = Part { envelope, chunk, received };
        (State::Ready, Step { reply: None, ..Step::new(reply::ok(), Next::Chunk(part)) })
    }

    /// Whether a chunk is so large that it is not read to its end, whatever is answered.
    pub(super) fn is_endless(&self, chunk: Chunk) -> bool {
        chunk.size > self.site.endless_size()
    }
}

/// Answers a chunk that is not wanted, once all of it was read (RFC 3030 section 2): not a
/// line in it may be taken for a command.
pub(super) fn refuse_chunk(state: State, chunk: Chunk, reply: Reply) -> (State, Step) {
    (state, Step { skip: chunk.size, ..Step::new(reply, Next::Command) })
}

impl Envelope {
    /// Adds what is new of a recipient, and what the sender wants to hear of those who are
    /// `known`.
    fn add(&mut self, rcpt: &Rcpt, new: Resolved, known: &[Destination]) {
        let Resolved { destinations, alias } = new;
        let mut dsn = rcpt.dsn.clone();
        // A success is told once, and not for each of several.
        if let Some(alias) = alias.clone().filter(|_| known.len() + destinations.len() > 1)
            && dsn.wanted().success
        {
            let told = mem::replace(&mut dsn, rcpt.dsn.without_success());
            let expansion = Destination::Expansion(alias);
            if !self.has(&expansion) {
                self.push(rcpt, expansion, None, told);
            }
        }
        for destination in destinations {
            self.push(rcpt, destination, alias.clone(), dsn.clone());
        }
        self.add_wishes(known, &dsn);
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

    /// The address of the recipients, if they were all reached by a single one.
    pub fn only_address(&self) -> Option<&ForwardPath> {
        let (first, rest) = self.recipients.split_first()?;
        rest.iter().all(|other| other.address == first.address).then_some(&first.address)
    }

    /// How many addresses were accepted that brought somebody: an alias counts once, however
    /// many it leads to.
    pub fn accepted(&self) -> usize {
        self.recipients.chunk_by(|one, next| one.address == next.address).count()
    }

    /// How many get the letter.
    fn count(&self) -> usize {
        let is_one = |to: &&Recipient| !matches!(to.destination, Destination::Expansion(_));
        self.recipients.iter().filter(is_one).count()
    }

    fn has(&self, destination: &Destination) -> bool {
        self.recipients.iter().any(|recipient| recipient.destination == *destination)
    }

    /// These have one more address. Of them the sender hears what either one asked for.
    fn add_wishes(&mut self, known: &[Destination], dsn: &RcptDsn) {
        for recipient in self.recipients.iter_mut().filter(|to| known.contains(&to.destination)) {
            recipient.dsn.notify = recipient.dsn.wanted_with(dsn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::session::patience::{LONGEST_IN_TIMEOUTS, STRETCH};
    use crate::smtp::session::tests::{RIGHT, TRANSACTION, codes, private, session};
    use crate::smtp::session::{BadLine, Farewell, Outside, Role};
    use crate::smtp::site::Site;
    use crate::smtp::site::expansion::{Alias, Target};
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::Duration;

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

    #[test]
    fn the_log_hears_twenty_times_of_what_is_put_off_and_all_are_answered() {
        let mut session = session();
        codes(&mut session, &TRANSACTION);
        let steps: Vec<_> =
            (0..1001).map(|_| session.line(b"RCPT TO:<cem@host.example>")).collect();
        assert!(steps.iter().all(|step| step.code() == 452));
        assert_eq!(steps.iter().filter(|step| step.note.is_some()).count(), 20);
        assert_eq!(session.line(b"DATA").code(), 354);
    }

    /// A session of a server where `all` leads to two mailboxes; `dee` is the third.
    fn with_list(max_recipients: usize) -> Session {
        let names = ["bob", "cem", "dee"].map(str::to_owned);
        let mut site = Site::new("host.example", "host.example", &[], Some(&names));
        site.max_recipients = max_recipients;
        let targets = ["bob", "cem"].map(|name| Target::Name(name.to_owned())).to_vec();
        let all = Alias { line: 1, name: "all".to_owned(), domain: None, targets };
        site.set_aliases(vec![all]).unwrap();
        let nonce = || "nonce".to_owned();
        Session::new(Arc::new(site), Role::Smtp, Ipv4Addr::LOCALHOST.into(), nonce)
    }

    #[test]
    fn a_refused_recipient_changes_nothing_that_was_wished_before() {
        let mut session = with_list(1);
        let lines = [
            "EHLO c",
            "MAIL FROM:<a@b>",
            "RCPT TO:<bob@host.example> NOTIFY=NEVER",
            "RCPT TO:<all@host.example> NOTIFY=SUCCESS",
        ];
        assert_eq!(codes(&mut session, &lines), [250, 250, 250, 452]);
        let Next::Message(envelope) = session.line(b"DATA").next else { panic!("no message") };
        assert!(!envelope.recipients[0].dsn.wanted().success);
    }

    #[test]
    fn an_alias_is_one_accepted_address_however_many_it_leads_to() {
        let mut session = with_list(9);
        let lines = [
            "EHLO c",
            "MAIL FROM:<a@b>",
            "RCPT TO:<all@host.example> NOTIFY=SUCCESS",
            "RCPT TO:<dee@host.example>",
        ];
        assert_eq!(codes(&mut session, &lines), [250; 4]);
        let Next::Message(envelope) = session.line(b"DATA").next else { panic!("no message") };
        // The sender hears once of the list, which is nobody who gets the letter.
        assert_eq!((envelope.recipients.len(), envelope.count(), envelope.accepted()), (4, 3, 2));
    }

    #[test]
    fn a_success_of_an_alias_is_told_once_whoever_of_it_is_named_beside_it() {
        const ALL: &str = "RCPT TO:<all@host.example> NOTIFY=SUCCESS";
        for others in [[ALL, ALL], ["RCPT TO:<bob@host.example>", ALL]] {
            let mut session = with_list(9);
            codes(&mut session, &["EHLO c", "MAIL FROM:<a@b>"]);
            assert_eq!(codes(&mut session, &others), [250, 250]);
            let Next::Message(envelope) = session.line(b"DATA").next else { panic!("no message") };
            let told = envelope.recipients.iter().filter(|one| one.dsn.wanted().success);
            let told: Vec<_> = told.map(|one| &one.destination).collect();
            assert!(matches!(told.as_slice(), [Destination::Expansion(_)]), "{told:?}");
            assert_eq!(envelope.count(), 2);
        }
    }

    #[test]
    fn an_alias_pays_for_no_more_guesses_than_a_mailbox() {
        for known in ["bob", "all"] {
            let mut session = with_list(9);
            let to = format!("RCPT TO:<{known}@host.example>");
            assert_eq!(codes(&mut session, &["EHLO c", "MAIL FROM:<a@b>", &to]), [250; 3]);
            let guess = |_| session.line(b"RCPT TO:<guess@host.example>").pause;
            let paused: Vec<bool> = (0..6).map(guess).map(|pause| !pause.is_zero()).collect();
            assert_eq!(paused, [false, false, false, false, false, true], "{known}");
        }
    }

    #[test]
    fn a_message_in_chunks_may_last_longer_by_what_has_come_of_it() {
        for (octets, code) in [(STRETCH - 1, 421), (STRETCH, 503)] {
            let mut session = session();
            codes(&mut session, &TRANSACTION);
            let chunk = format!("BDAT {octets}");
            let Next::Chunk(part) = session.line(chunk.as_bytes()).next else { panic!("{chunk}") };
            session.chunk_ended(part);
            let age = session.site().timeout * LONGEST_IN_TIMEOUTS + Duration::from_millis(1);
            session.set_outside(Outside { age, ..Outside::default() });
            assert_eq!(session.line(b"DATA").code(), code, "{octets} octets");
        }
    }

    #[test]
    fn a_user_has_as_many_recipients_elsewhere_as_are_left_and_each_is_noted() {
        let mut session = private(Role::Smtp);
        codes(&mut session, &["EHLO c", RIGHT, "MAIL FROM:<>"]);
        session.set_outside(Outside { elsewhere_left: 1, ..Outside::default() });
        let step = session.line(b"RCPT TO:<a@else.example>");
        assert_eq!((step.code(), step.note), (250, Some(Note::Elsewhere(1))));
        // A second time it is nothing new, and a mailbox here is none of them.
        session.set_outside(Outside { elsewhere_left: 0, ..Outside::default() });
        for line in ["RCPT TO:<a@else.example>", "RCPT TO:<bob@host.example>"] {
            let step = session.line(line.as_bytes());
            assert_eq!((step.code(), step.note), (250, None), "{line}");
        }
        let step = session.line(b"RCPT TO:<b@else.example>");
        assert_eq!(step.code(), 450);
        assert!(matches!(step.note, Some(Note::OverAllowance(_))), "{:?}", step.note);
    }

    /// A session of a server that takes 100 octets, with a recipient.
    fn with_room_for_a_hundred() -> Session {
        let mut site = Site::new("host.example", "host.example", &[], None);
        site.max_size = 100;
        let ours = Ipv4Addr::LOCALHOST.into();
        let mut session = Session::new(Arc::new(site), Role::Smtp, ours, String::new);
        codes(&mut session, &TRANSACTION);
        session
    }

    /// Lets a chunk come, if it is wanted; else says what is answered, and after how many
    /// octets.
    fn chunk(session: &mut Session, line: &str) -> Result<u64, (u64, u16)> {
        let step = session.line(line.as_bytes());
        match step.next {
            Next::Chunk(part) if part.chunk.is_last => Ok(part.received),
            Next::Chunk(part) => {
                assert_eq!(step.reply, None);
                let received = part.received;
                assert_eq!(session.chunk_ended(part).code(), 250);
                Ok(received)
            }
            _ => Err((step.skip, step.code())),
        }
    }

    #[test]
    fn chunks_add_up_to_a_message_and_the_envelope_goes_out_with_the_last() {
        let mut session = with_room_for_a_hundred();
        for (line, received) in [("BDAT 60", 60), ("BDAT 0", 60), ("BDAT 40 LAST", 100)] {
            assert_eq!(chunk(&mut session, line), Ok(received));
        }
        assert_eq!(session.state(), &State::Ready);
        assert_eq!(chunk(&mut session, "BDAT 7 LAST"), Err((7, 503)), "LAST twice");
    }

    #[test]
    fn a_chunk_too_many_ends_the_transaction_and_is_read_whole() {
        let mut session = with_room_for_a_hundred();
        assert_eq!(chunk(&mut session, "BDAT 60"), Ok(60));
        assert_eq!(chunk(&mut session, "BDAT 41"), Err((41, 552)));
        assert_eq!(session.state(), &State::Ready);
        assert_eq!(chunk(&mut session, "BDAT 1 LAST"), Err((1, 503)));
    }

    #[test]
    fn a_chunk_that_would_never_end_ends_the_session_in_every_state() {
        for lines in [&[][..], &["EHLO c"], &TRANSACTION[..2], &TRANSACTION, &["BDAT 1"]] {
            for (line, is_over) in
                [("BDAT 200", false), ("BDAT 201", true), ("BDAT 36893488147419103232 LAST", true)]
            {
                let mut session = with_room_for_a_hundred();
                match lines {
                    ["BDAT 1"] => assert_eq!(chunk(&mut session, "BDAT 1"), Ok(1)),
                    lines => {
                        session = Session::new(
                            Arc::clone(&session.site),
                            Role::Smtp,
                            Ipv4Addr::LOCALHOST.into(),
                            String::new,
                        );
                        codes(&mut session, lines);
                    }
                }
                let step = session.line(line.as_bytes());
                assert_eq!(
                    step.next == Next::Close(Farewell::HugeChunk),
                    is_over,
                    "{lines:?} {line}"
                );
                assert_eq!((step.skip > 0, step.code() == 552 || !is_over), (!is_over, true));
            }
        }
    }

    /// Not one line of a letter may be run.
    #[test]
    fn after_a_bdat_that_is_not_understood_nothing_is_run() {
        let long = [b"BDAT ".to_vec(), vec![b'1'; 2000]].concat();
        for line in [&b"BDAT"[..], b"bdat one", b"BDAT 1 \xff", &long] {
            let mut session = with_room_for_a_hundred();
            let step = session.line(line);
            assert_eq!((step.code(), step.next), (501, Next::Close(Farewell::UnknownChunk)));
        }
        assert_eq!(BadLine::too_long(&long), BadLine::Bdat);
        assert_eq!(BadLine::nul(b"BDAT 1\0"), BadLine::Bdat);
        let mut session = with_room_for_a_hundred();
        let step = session.bad_line(BadLine::Bdat);
        assert_eq!((step.code(), step.next), (501, Next::Close(Farewell::UnknownChunk)));
    }

    #[test]
    fn chunks_of_nothing_try_the_patience_and_a_refused_chunk_is_read_before_421() {
        let mut patient = with_room_for_a_hundred();
        for number in 0..99 {
            assert_eq!(chunk(&mut patient, "BDAT 0"), Ok(0), "{number}");
        }
        assert_eq!(chunk(&mut patient, "BDAT 0"), Err((0, 421)));

        let mut session = session();
        for _ in 0..20 {
            assert_eq!(chunk(&mut session, "BDAT 5"), Err((5, 503)));
        }
        assert_eq!(chunk(&mut session, "BDAT 5"), Err((5, 421)));
    }
}
