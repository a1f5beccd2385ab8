//! Dialogues, told as they happen to a program that this server is a part of: a test
//! that asserts on one, or a page that shows it (`examples/watch/`).
//!
//! In: what `--trace` prints of clients, and what lies between its lines. Out: a stream of
//! [`Event`]s, the same texts as in the trace: printable, and without secrets. The server
//! never waits for whoever reads it: what a full stream cannot take is dropped, and counted.
//!
//! Book: docs/03-replies.md.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::smtp::session::Role;

/// How many events wait for their reader, who may be away for as long as thousands of lines
/// take. A line is usually short, and 4 KB at the most once it is printable: somebody who
/// wants to be a nuisance can make it 35 MB.
const WAITING_LIMIT: usize = 8192;

/// One thing that happened in one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number of the session, as log and trace have it.
    pub session: u64,
    /// What happened.
    pub what: What,
}

/// What happens in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A client has a place; nothing was said yet.
    Connected {
        /// Where it comes from.
        client: SocketAddr,
        /// What it came to.
        role: Role,
    },
    /// The client sent this line, or a message, of which only the size is told.
    Client(String),
    /// This line was the answer, or a part of it.
    Server(String),
    /// With that the session is in this state, which has the name of chapter 5.
    State(&'static str),
    /// From here on all is encrypted, with this protocol and cipher if they are known.
    Tls(String),
    /// The session is over, and why.
    Closed(String),
}

/// Hands events over.
#[derive(Debug, Clone)]
pub struct Teller {
    stream: SyncSender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Teller {
    /// Tells one event, or counts it among those that nobody will hear.
    pub fn tell(&self, event: Event) {
        if self.stream.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Events {
    stream: Receiver<Event>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// The next event, waited for as long as `timeout`. Those of one session come in
    /// their order.
    pub fn next(&self, timeout: Duration) -> Result<Event, RecvTimeoutError> {
        self.stream.recv_timeout(timeout)
    }

    /// How many were dropped so far, because too many waited already.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::SeqCst)
    }
}

/// Both ends of a new stream.
pub fn stream() -> (Teller, Events) {
    let (sending, receiving) = sync_channel(WAITING_LIMIT);
    let dropped = Arc::<AtomicU64>::default();
    let teller = Teller { stream: sending, dropped: Arc::clone(&dropped) };
    (teller, Events { stream: receiving, dropped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_dropped_and_counted_and_nobody_waits() {
        let (teller, events) = stream();
        for session in 0..WAITING_LIMIT as u64 + 3 {
            teller.tell(Event { session, what: What::State("Ready") });
        }
        assert_eq!(events.dropped(), 3);
        assert_eq!(events.next(Duration::ZERO).unwrap().session, 0);
        drop(events);
        teller.tell(Event { session: 0, what: What::State("Ready") });
    }
}
