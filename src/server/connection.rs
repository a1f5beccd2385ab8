//! The loop of one client.
//!
//! In: a client that has a place. Out: its whole session, and one line in the
//! log. This file decides nothing about SMTP: it does what each [`Step`] says,
//! and chooses no reply but 421.
//!
//! [`Step`]: crate::smtp::session::Step
//!
//! Book: docs/08-threads.md.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::server::Shared;
use crate::server::clients::{Client, Place};
use crate::server::receive::receive;
use crate::smtp::command::COMMAND_LINE_LIMIT;
use crate::smtp::reply;
use crate::smtp::session::{Farewell, Next, Session, State};
use crate::wire::lines::{LineError, Lost, Wire};
use crate::wire::socket::Socket;
use crate::wire::trace::Trace;

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The session itself closed it.
    Closed(Farewell),
    /// The server is shutting down.
    Stopping,
    /// The connection broke, or was too slow.
    Lost(Lost),
}

/// Serves one client from the greeting to the close.
pub fn serve(place: &Place, shared: &Shared) {
    let client = place.client();
    let tcp = Arc::clone(&client.tcp);
    // Without this the system holds a small reply back, hoping for more to send.
    let _ = tcp.set_nodelay(true);
    let our_address = match tcp.local_addr() {
        Ok(address) => address.ip().to_canonical(),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let trace = shared.trace.then(|| Trace::new(client.number));
    let mut wire = Wire::new(Socket::new(tcp, shared.timeout), shared.timeout, trace);
    let mut session = Session::new(Arc::clone(&shared.site), our_address);

    let end = match converse(&mut wire, &mut session, client, shared) {
        // A shutdown ends our input; that is how a waiting thread hears of it.
        Err(Lost::Gone) if shared.is_stopping() => End::Stopping,
        Err(lost) => End::Lost(lost),
        Ok(end) => end,
    };
    // These replies are the last: if they cannot be sent, nothing else can.
    let _ = match end {
        End::Stopping => wire.reply(&reply::stopping(&shared.site.hostname)),
        End::Lost(Lost::Late) => wire.reply(&reply::too_slow(&shared.site.hostname)),
        End::Closed(_) | End::Lost(_) => Ok(()),
    };
    wire.close();
    log::info!("{client} is gone: {end}");
}

/// Reply, then do what comes next: that is all a server does.
fn converse(
    wire: &mut Wire,
    session: &mut Session,
    client: &Client,
    shared: &Shared,
) -> Result<End, Lost> {
    let mut step = session.greet();
    loop {
        wire.reply(&step.reply)?;
        step = match step.next {
            Next::Command if shared.is_stopping() => return Ok(End::Stopping),
            Next::Command => match wire.read_line(COMMAND_LINE_LIMIT) {
                Ok(line) => {
                    if *session.state() == State::Ready {
                        session.set_room(shared.spool.room());
                    }
                    session.line(line)
                }
                Err(LineError::Bad(why)) => session.bad_line(why),
                Err(LineError::Lost(lost)) => return Err(lost),
            },
            Next::Message(envelope) => {
                let outcome = receive(wire, session, &envelope, client, shared)?;
                session.stored(&outcome)
            }
            Next::Close(farewell) => return Ok(End::Closed(farewell)),
        };
    }
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            End::Closed(farewell) => farewell.fmt(f),
            End::Stopping => f.write_str("the server is shutting down"),
            End::Lost(lost) => lost.fmt(f),
        }
    }
}
