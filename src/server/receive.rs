//! From 354 to stored: the one place where the wire meets the store.
//!
//! In: a client about to send a message, and its envelope. Out: the [`Outcome`],
//! which the session turns into a reply. The message streams from the input
//! buffer through [`Unstuffer`] into a [`Draft`]. Once something is wrong with
//! it the draft goes, and the rest is read to its end and forgotten, so that
//! client and server still agree where the next command begins. After a bare CR
//! or LF nobody knows where the end is, and the connection closes.
//!
//! Book: docs/07-maildir.md.

use std::io;

use jiff::Timestamp;

use crate::server::clients::Client;
use crate::server::shared::Shared;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::session::{Envelope, Outcome, Recipient, Role, Session};
use crate::smtp::text::printable;
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

/// Receives one message and stores it for every recipient. An error means that
/// the client is gone or too slow; then nothing is stored.
pub fn receive(
    wire: &mut Wire,
    session: &Session,
    envelope: Envelope,
    client: &Client,
    shared: &Shared,
) -> Result<Outcome, Lost> {
    let _sending = client.begin_sending();
    let when = Timestamp::now();
    let name = shared.spool.new_name(when);
    let failed = |error| fault(&error, &name, client);
    let mut draft = begin(wire, session, &envelope, client, shared, &name, when).map_err(failed);
    let octets = read_to_end(wire, session.site().max_size, &mut draft, failed)?;
    let (from, count) = (envelope.reverse_path.clone(), envelope.recipients.len());
    let outcome = match draft {
        Ok(draft) if is_loop(&draft, &envelope) => Outcome::Loop,
        Ok(draft) => store(draft, &name, when, envelope, shared).unwrap_or_else(failed),
        Err(outcome) => outcome,
    };
    log_outcome(&outcome, octets, &from, count, session, client);
    Ok(outcome)
}

/// A draft with our own fields in it, and nothing of the message yet.
fn begin(
    wire: &Wire,
    session: &Session,
    envelope: &Envelope,
    client: &Client,
    shared: &Shared,
    name: &MessageName,
    when: Timestamp,
) -> io::Result<Draft> {
    let encryption = wire.encryption();
    let fields = TraceFields {
        reverse_path: &envelope.reverse_path,
        client_name: session.client_name(),
        client_address: client.address.ip(),
        hostname: &session.site().hostname,
        protocol: session.protocol(envelope),
        encryption: encryption.as_deref(),
        id: &name.id,
        only_recipient: envelope.only_address(),
        when,
    };
    // Mail programs may leave these two to the server that they submit to.
    let submission = match session.role() {
        Role::Smtp => None,
        Role::Submission | Role::Submissions => Some(Submission {
            date: date(when),
            message_id: format!("<{}@{}>", name.id, session.site().hostname),
        }),
    };
    shared.spool.draft(name, &fields.to_text(), submission.as_ref())
}

/// Reads a message to its end, into the draft as long as there is one, and says how
/// large it was. A draft that cannot be used goes at once, and its room on disk with it.
fn read_to_end(
    wire: &mut Wire,
    max_size: u64,
    draft: &mut Result<Draft, Outcome>,
    failed: impl Fn(io::Error) -> Outcome,
) -> Result<u64, Lost> {
    let mut unstuffer = Unstuffer::default();
    wire.begin_message();
    loop {
        let Cleaned { text, taken, then } = unstuffer.clean(wire.arrived()?);
        if let Ok(open) = draft
            && let Err(error) = open.write(text)
        {
            *draft = Err(failed(error));
        }
        wire.take(taken);
        if unstuffer.octets() > max_size {
            *draft = Err(Outcome::TooBig);
        }
        match then {
            Then::More => {}
            Then::Complete => break,
            Then::BareNewline => {
                *draft = Err(Outcome::BareNewline);
                break;
            }
        }
    }
    wire.end_message(unstuffer.octets())?;
    Ok(unstuffer.octets())
}

/// Whether a message came round: it has passed too many servers, or an alias that it is
/// for has sent it on before. The first bounds how deep a loop gets, the second how wide.
fn is_loop(draft: &Draft, envelope: &Envelope) -> bool {
    let facts = draft.facts();
    let has_passed = |alias: &Mailbox| {
        let alias = alias.to_string();
        facts.delivered_to.iter().any(|address| address.eq_ignore_ascii_case(&alias))
    };
    let leaves = |to: &&Recipient| to.destination.address().is_some();
    let mut aliases = envelope.recipients.iter().filter(leaves).filter_map(|to| to.alias.as_ref());
    facts.received > RECEIVED_LIMIT || aliases.any(has_passed)
}

/// From here on the message survives a power cut, or the client is asked to send it again.
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

/// One line for each message, with the id that its file and its reply have. There is one
/// more for each recipient, where the store puts it.
fn log_outcome(
    outcome: &Outcome,
    octets: u64,
    from: &ReversePath,
    recipients: usize,
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
    log::info!("{client}: {}: {octets} octets from {}, recipients: {recipients}", what(), from());
}
