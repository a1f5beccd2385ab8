//! From 354 to stored: the one place where the wire meets the store.
//!
//! In: a client about to send a message, and its envelope. Out: the [`Outcome`],
//! which the session turns into a reply. The message streams from the input
//! buffer through [`Unstuffer`] into a [`Draft`]. Once something is wrong with
//! it the draft goes, and the rest is read to its end and forgotten, so that
//! client and server still agree where the next command begins.
//!
//! Book: docs/07-maildir.md.

use std::io::{self, ErrorKind};

use jiff::Timestamp;

use crate::server::Shared;
use crate::server::clients::Client;
use crate::smtp::session::{Envelope, Outcome, Role, Session};
use crate::smtp::text::printable;
use crate::store::draft::Draft;
use crate::store::envelope::Letter;
use crate::store::header::Field;
use crate::store::spool::MessageName;
use crate::store::trace::{TraceFields, date};
use crate::wire::body::{Piece, Unstuffer};
use crate::wire::lines::{Lost, Wire};

/// More `Received` fields than this are a loop (RFC 5321 section 6.3 asks for at
/// least 100).
const RECEIVED_LIMIT: usize = 100;

/// Receives one message and stores it for every recipient. An error means that
/// the client is gone or too slow; then nothing is stored.
pub fn receive(
    wire: &mut Wire,
    session: &Session,
    envelope: &Envelope,
    client: &Client,
    shared: &Shared,
) -> Result<Outcome, Lost> {
    let _sending = client.begin_sending();
    let when = Timestamp::now();
    let name = shared.spool.name(when);
    let fields = TraceFields {
        reverse_path: &envelope.reverse_path,
        client_name: session.client_name(),
        client_address: client.address.ip(),
        hostname: &session.site().hostname,
        protocol: session.protocol(envelope),
        id: &name.id,
        only_recipient: envelope.only_address(),
        when,
    };
    // Mail programs may leave these two to the server that they submit to.
    let wanted = match session.role() {
        Role::Smtp => Vec::new(),
        Role::Submission | Role::Submissions => vec![
            Field { name: "Date", value: date(when) },
            Field {
                name: "Message-ID",
                value: format!("<{}@{}>", name.id, session.site().hostname),
            },
        ],
    };
    let draft = shared.spool.draft(&name, &fields.to_text(), &wanted);
    let mut draft = draft.map_err(|error| fault(&error, &name, client));

    let mut unstuffer = Unstuffer::default();
    wire.begin_message()?;
    loop {
        let (taken, piece) = unstuffer.next(wire.message()?);
        let is_over = match piece {
            Piece::Text(text) => {
                if let Ok(open) = &mut draft
                    && let Err(error) = open.write(text)
                {
                    draft = Err(fault(&error, &name, client));
                }
                false
            }
            Piece::End => true,
            Piece::BareNewline => {
                draft = Err(Outcome::BareNewline);
                true
            }
        };
        wire.consume(taken);
        if is_over {
            break;
        }
        // Dropping the draft gives the room on disk back at once.
        if unstuffer.octets() > session.site().max_size {
            draft = Err(Outcome::TooBig);
        }
    }
    wire.end_message(unstuffer.octets());
    Ok(match draft {
        Ok(draft) if draft.received_fields() > RECEIVED_LIMIT => Outcome::Loop,
        Ok(draft) => store(draft, &name, when, envelope, client, shared),
        Err(outcome) => outcome,
    })
    .inspect(|outcome| log_outcome(outcome, unstuffer.octets(), envelope, client))
}

/// From here on the message survives a power cut, or it is not stored at all.
fn store(
    draft: Draft,
    name: &MessageName,
    when: Timestamp,
    envelope: &Envelope,
    client: &Client,
    shared: &Shared,
) -> Outcome {
    let letter = Letter {
        reverse_path: envelope.reverse_path.clone(),
        smtputf8: envelope.smtputf8,
        recipients: envelope.elsewhere().into_iter().cloned().collect(),
        arrived: when,
    };
    let elsewhere = Some(&letter).filter(|letter| !letter.recipients.is_empty());
    match shared.spool.deliver(draft, name, &envelope.mailboxes(), elsewhere) {
        Ok(()) => {
            if elsewhere.is_some() {
                shared.schedule.arrived(shared.spool.queue(), &name.id);
            }
            Outcome::Stored(name.id.clone())
        }
        Err(error) => fault(&error, name, client),
    }
}

/// What the client is told about an error of our disk; the log is told more.
fn fault(error: &io::Error, name: &MessageName, client: &Client) -> Outcome {
    log::error!("{client}: cannot store {}: {error}", name.id);
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Outcome::NoRoom,
        _ => Outcome::Failed,
    }
}

/// One line for each message, with the id that its file and its reply have.
fn log_outcome(outcome: &Outcome, octets: u64, envelope: &Envelope, client: &Client) {
    // A log that does not want this line does not pay for it.
    let from = || printable(envelope.reverse_path.to_string());
    let what = || match outcome {
        Outcome::Stored(id) => format!("stored {id}"),
        refused => format!("refused ({refused:?})"),
    };
    let count = envelope.recipients.len();
    log::info!("{client}: {}: {octets} octets from {}, recipients: {count}", what(), from());
}
