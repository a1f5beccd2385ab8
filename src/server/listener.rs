//! Accepting clients on one port, and giving each a thread of its own.
//!
//! In: a listening socket. Out: one thread for each client that gets a place.
//! A client beyond the caps is told 421 and costs no thread. Nothing a client
//! does, and no lack of descriptors or threads, ends this loop; only the
//! shutdown does.
//!
//! Book: docs/08-threads.md.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::server::Shared;
use crate::server::connection;
use crate::smtp::reply;
use crate::smtp::session::Role;

/// How long to wait when the system has no descriptor or thread for us: long
/// enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts clients until the server stops.
pub fn accept(listener: &TcpListener, role: Role, shared: &Arc<Shared>) {
    let mut is_short = false;
    loop {
        let accepted = listener.accept();
        // The connection that wakes us for the shutdown is nobody's.
        if shared.is_stopping() {
            return;
        }
        let started = match accepted {
            Ok((tcp, address)) => start(tcp, address, role, shared),
            // That client was gone before we took it.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => Err(error),
        };
        let is_err = started.is_err();
        // Said once when it begins and once when it is over, not twenty times a second.
        match started {
            Ok(()) if is_short => log::info!("taking clients again"),
            Err(error) if !is_short => log::warn!("cannot take more clients now: {error}"),
            Ok(()) | Err(_) => {}
        }
        is_short = is_err;
        if is_short {
            thread::sleep(PAUSE);
        }
    }
}

/// Starts a client's thread, or tells the client that there is no room.
fn start(tcp: TcpStream, address: SocketAddr, role: Role, shared: &Arc<Shared>) -> io::Result<()> {
    let tcp = Arc::new(tcp);
    let Some(place) = shared.clients.admit(&tcp, address) else {
        log::info!("refused a client from {address}: too many connections");
        refuse(&tcp, role, shared);
        return Ok(());
    };
    let for_thread = Arc::clone(shared);
    let job = move || connection::serve(&place, role, &for_thread);
    shared.threads.run(Box::new(job)).inspect_err(|_| refuse(&tcp, role, shared))
}

/// A 421 in the place of the greeting, and a plain close. The few octets fit
/// into the system's buffer, so this waits for nobody; and it does not linger,
/// because this thread has other clients to take.
fn refuse(mut tcp: &TcpStream, role: Role, shared: &Shared) {
    // In clear it would be no reply to a client that waits for a handshake.
    if role == Role::Submissions {
        return;
    }
    let mut octets = Vec::new();
    reply::too_many_connections(&shared.site().hostname).write_to(&mut octets);
    // A client that is gone already is no matter.
    let _ = tcp.write_all(&octets);
}
