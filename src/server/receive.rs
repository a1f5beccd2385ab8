//! From 354 to stored, or from the first BDAT: the one place where the wire meets the
//! store on the way in.
//!
//! In: a client about to send a message, or a chunk of one, and its envelope. Out: the
//! [`Outcome`], which the session turns into a reply. The message streams from the input
//! buffer through [`Unstuffer`] into a [`Draft`]. Once something is wrong with
//! it the draft goes, and the rest is read to its end and forgotten, so that
//! client and server still agree where the next command begins. After a bare CR
//! or LF nobody knows where the end is, and the connection closes.
//!
//! Book: docs/07-maildir.md.

use std::io;

use jiff::Timestamp;

use crate::config::SenderChecks;
use crate::server::clients::{Busy, Client};
use crate::server::shared::Shared;
use crate::server::trusting::Trust;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::session::{Envelope, Outcome, Part, Role, Session};
use crate::smtp::site::Site;
use crate::smtp::text::{ascii_address, printable};
use crate::store::disk::is_full;
use crate::store::draft::Draft;
use crate::store::envelope::entries;
use crate::store::header::Submission;
use crate::store::spool::{MessageName, Origin};
use crate::store::trace::{TraceFields, date};
use crate::wire::body::{Cleaned, Then, Unstuffer};
use crate::wire::lines::{Lost, Wire};

/// More `Received` fields than this are a loop (RFC 5321 section 6.3 asks for at
/// least 100).
const RECEIVED_LIMIT: usize = 100;

/// A message on its way in, from its first octet to its last.
#[derive(Debug)]
pub struct Incoming<'a> {
    name: MessageName,
    when: Timestamp,
    unstuffer: Unstuffer,
    /// Where it goes, until something is wrong with it. A draft that cannot be used goes
    /// at once, and its room on disk with it.
    draft: Result<Draft, Outcome>,
    /// Who looks at it while it passes: whoever checks who wrote it, or signs it.
    trust: Trust,
    client: &'a Client,
    /// A shutdown waits for it. Between two chunks too: the client has given us a part of
    /// its message, and would have to send all of it again.
    _busy: Busy<'a>,
}

/// What came of a chunk.
pub enum Received {
    /// More are to come, for the envelope in this.
    Part(Part),
    /// The message is over: with its last chunk, or because something is wrong with it.
    Message(Outcome),
}

/// Receives one message after DATA and stores it for every recipient. An error means that
/// the client is gone or too slow; then nothing is stored.
pub fn receive(
    wire: &mut Wire,
    session: &Session,
    envelope: Envelope,
    client: &Client,
    shared: &Shared,
) -> Result<Outcome, Lost> {
    let unstuffer = Unstuffer::default();
    let mut incoming = Incoming::begin(wire, session, &envelope, unstuffer, client, shared);
    incoming.read_to_end(wire, session.site())?;
    Ok(incoming.end(envelope, session, shared))
}

/// Receives one chunk after BDAT, and with the last one stores the message. What was
/// received is kept in `incoming` from one chunk to the next; whoever drops it drops the
/// draft. An error means that the client is gone or too slow.
pub fn receive_chunk<'a>(
    wire: &mut Wire,
    session: &Session,
    incoming: &mut Option<Incoming<'a>>,
    part: Part,
    client: &'a Client,
    shared: &Shared,
) -> Result<Received, Lost> {
    let begin = || {
        let unstuffer = Unstuffer::of_chunks();
        Incoming::begin(wire, session, &part.envelope, unstuffer, client, shared)
    };
    let mut message = incoming.take().unwrap_or_else(begin);
    message.read_chunk(wire, part.chunk.size)?;
    if part.chunk.is_last {
        message.complete();
        wire.end_message(message.unstuffer.octets())?;
    } else if message.draft.is_ok() {
        *incoming = Some(message);
        return Ok(Received::Part(part));
    }
    Ok(Received::Message(message.end(part.envelope, session, shared)))
}

impl<'a> Incoming<'a> {
    /// Begins a draft with our own fields in it, and nothing of the message yet.
    fn begin(
        wire: &Wire,
        session: &Session,
        envelope: &Envelope,
        unstuffer: Unstuffer,
        client: &'a Client,
        shared: &Shared,
    ) -> Incoming<'a> {
        let _busy = client.busy();
        let when = Timestamp::now();
        let name = shared.spool.new_name(when);
        let trust = Trust::begin(session, shared, when);
        let fields = trace_fields(wire, session, envelope, client, &name, when);
        let draft = draft(&fields, session, &trust, shared, &name, when);
        let draft = draft.map_err(|error| fault(&error, &name, client));
        Incoming { name, when, unstuffer, draft, trust, client, _busy }
    }

    /// Reads a message to its final dot.
    fn read_to_end(&mut self, wire: &mut Wire, site: &Site) -> Result<(), Lost> {
        wire.begin_message();
        loop {
            let (taken, then) = self.write(wire.arrived()?);
            if self.unstuffer.octets() > site.max_size {
                self.draft = Err(Outcome::TooBig);
            }
            if self.unstuffer.octets() > site.endless_size() {
                wire.forget(taken);
            } else {
                wire.take(taken);
            }
            match then {
                Then::More => {}
                Then::Complete => break,
                Then::BareNewline => {
                    self.draft = Err(Outcome::BareNewline);
                    break;
                }
            }
        }
        wire.end_message(self.unstuffer.octets())
    }

    /// Reads a chunk to its end, which is known whatever is in it. How much all chunks
    /// may hold was asked before this one was let in.
    fn read_chunk(&mut self, wire: &mut Wire, size: u64) -> Result<(), Lost> {
        wire.begin_message();
        let mut left = size;
        while left > 0 {
            let arrived = wire.arrived_of(left)?;
            let count = arrived.len();
            if self.draft.is_ok() {
                let (_, then) = self.write(arrived);
                if then == Then::BareNewline {
                    self.draft = Err(Outcome::BareNewline);
                }
            }
            wire.take(count);
            left = left.saturating_sub(count as u64);
        }
        wire.show_chunk(size);
        Ok(())
    }

    /// Puts what has arrived into the draft, as long as there is one. How much it was, and
    /// what comes after it.
    fn write(&mut self, arrived: &mut [u8]) -> (usize, Then) {
        let Cleaned { text, taken, then } = self.unstuffer.clean(arrived);
        if let Ok(draft) = &mut self.draft {
            self.trust.arrived(text);
            if let Err(error) = draft.write_seen(text, &mut |text| self.trust.stored(text)) {
                self.draft = Err(fault(&error, &self.name, self.client));
            }
        }
        (taken, then)
    }

    /// After the last chunk: what is missing of the last line end.
    fn complete(&mut self) {
        let Ok(draft) = &mut self.draft else { return };
        let written = self.unstuffer.finish().map(|end| {
            self.trust.arrived(end);
            draft.write_seen(end, &mut |text| self.trust.stored(text))
        });
        match written {
            Some(Ok(())) => {}
            Some(Err(error)) => self.draft = Err(fault(&error, &self.name, self.client)),
            None => self.draft = Err(Outcome::BareNewline),
        }
    }

    /// The message is over: stores it, if nothing is wrong with it.
    fn end(self, mut envelope: Envelope, session: &Session, shared: &Shared) -> Outcome {
        let Incoming { name, when, unstuffer, draft, mut trust, client, _busy } = self;
        let (from, count) = (envelope.reverse_path.clone(), envelope.recipients.len());
        let mut verdict = String::new();
        let draft = draft.and_then(|mut draft| {
            let finished = draft.finish(&mut |text| trust.stored(text));
            finished.map(|()| draft).map_err(|error| fault(&error, &name, client))
        });
        let draft = draft.inspect(|draft| drop_who_had_it(draft, &mut envelope));
        let outcome = match draft {
            Ok(draft) if is_loop(&draft, &envelope) => Outcome::Loop,
            Ok(mut draft) => trust
                .end(&mut draft, &from, session, client, shared)
                .and_then(|(what, distrust)| {
                    verdict = what;
                    match distrust {
                        Some(why) => Ok(Outcome::Untrusted(why)),
                        None => store(draft, &name, when, envelope, shared),
                    }
                })
                .unwrap_or_else(|error| fault(&error, &name, client)),
            Err(outcome) => outcome,
        };
        let octets = unstuffer.octets();
        log_outcome(&outcome, octets, &from, count, &verdict, session, client);
        outcome
    }
}

/// Our own fields, with which every message begins.
fn trace_fields(
    wire: &Wire,
    session: &Session,
    envelope: &Envelope,
    client: &Client,
    name: &MessageName,
    when: Timestamp,
) -> String {
    let encryption = wire.encryption();
    let fields = TraceFields {
        reverse_path: &envelope.reverse_path,
        client_name: session.client_name(),
        client_address: client.address().ip(),
        hostname: &session.site().hostname,
        protocol: session.protocol(envelope),
        encryption: encryption.as_deref(),
        id: &name.id,
        only_recipient: envelope.only_address(),
        when,
    };
    fields.to_text()
}

/// A draft that begins with our own fields.
fn draft(
    fields: &str,
    session: &Session,
    trust: &Trust,
    shared: &Shared,
    name: &MessageName,
    when: Timestamp,
) -> io::Result<Draft> {
    // Mail programs may leave these two to the server that they submit to.
    let submission = match session.role() {
        Role::Smtp => None,
        Role::Submission | Role::Submissions => Some(Submission {
            date: date(when),
            message_id: format!("<{}@{}>", name.id, session.site().hostname),
        }),
    };
    let (spool, submission) = (&shared.spool, submission.as_ref());
    let mut draft = if trust.is_wanted() {
        spool.draft_held(name, fields, submission)
    } else {
        spool.draft(name, fields, submission)
    }?;
    // Where readers may rely on our verdicts, nobody else writes them, whoever it is.
    if shared.sender_checks != SenderChecks::None {
        draft.drop_results_of(&session.site().hostname);
    }
    Ok(draft)
}

/// Takes out whoever an alias leads to that has sent this message on before: they have had
/// it.
fn drop_who_had_it(draft: &Draft, envelope: &mut Envelope) {
    let delivered_to = &draft.facts().delivered_to;
    let has_passed = |alias: &Mailbox| {
        let alias = ascii_address(&alias.to_string());
        delivered_to.iter().any(|address| address.eq_ignore_ascii_case(&alias))
    };
    if !delivered_to.is_empty() {
        envelope.recipients.retain(|to| !to.alias.as_ref().is_some_and(has_passed));
    }
}

/// Whether nobody is left who has not had it, or the message has passed too many servers:
/// then it goes round in a loop. The fields `Received` bound how deep a loop gets, the
/// fields `Delivered-To` how wide.
fn is_loop(draft: &Draft, envelope: &Envelope) -> bool {
    draft.facts().received > RECEIVED_LIMIT || envelope.recipients.is_empty()
}

/// When this returns, the message survives a power cut, or the client is asked to send it
/// again.
fn store(
    mut draft: Draft,
    name: &MessageName,
    when: Timestamp,
    envelope: Envelope,
    shared: &Shared,
) -> io::Result<Outcome> {
    draft.sync()?;
    let mut letter = draft.letter(envelope.reverse_path, envelope.dsn, when);
    // A client that did not say SMTPUTF8 may still have written a header like that. It
    // goes on as it came.
    letter.needs_smtputf8 &= envelope.smtputf8;
    let entries = entries(&letter, envelope.recipients, shared.schedule.has_smarthost());
    let queued = shared.spool.deliver(draft, name, entries, Origin::Client)?;
    shared.schedule.arrived(&queued);
    Ok(Outcome::Stored(name.id.clone()))
}

/// What the client is told about an error of our disk; the log is told more.
fn fault(error: &io::Error, name: &MessageName, client: &Client) -> Outcome {
    log::error!("{client}: cannot store {}: {error}", name.id);
    if is_full(error) { Outcome::NoRoom } else { Outcome::Failed }
}

/// One line for each message; if it was stored, with the id that its file and its reply
/// have. Then there is one more for each recipient, where the store puts it.
fn log_outcome(
    outcome: &Outcome,
    octets: u64,
    from: &ReversePath,
    recipients: usize,
    verdict: &str,
    session: &Session,
    client: &Client,
) {
    // A log that does not want this line does not pay for it.
    let from = || {
        let user = session.user().map(|user| format!(", user {user}")).unwrap_or_default();
        format!("{}{user}", printable(from.to_string()))
    };
    let what = || match outcome {
        Outcome::Stored(id) => format!("stored {id}"),
        refused => format!("refused ({refused:?})"),
    };
    log::info!(
        "{client}: {}: {octets} octets from {}, recipients: {recipients}{verdict}",
        what(),
        from()
    );
}
