//! A balancer in front: for whom does it connect?
//!
//! In: a place, on the thread of its client. Out: the same place, once it is known whose
//! it is; or none, and the connection is closed. Here the only ones to wait are threads
//! of clients; the one that accepts has gone on.
//!
//! From here on everything that looks at an address sees the client's: the cap for one
//! address, failed logins, `Received`, the log. The cap for all counts the connection
//! from the start, because it costs a thread from the start.
//!
//! Left to others: which addresses are balancers (`clients.rs`), and the octets
//! (`wire/proxy.rs`).
//!
//! Book: docs/20-outgrowing-one-machine.md.

use std::sync::Arc;
use std::time::Duration;

use crate::server::clients::{Place, refuse};
use crate::server::shared::Shared;
use crate::smtp::reply;
use crate::smtp::session::Role;
use crate::wire::proxy::{HeaderError, read_header};
use crate::wire::socket::Socket;

/// How long the header may take, if --timeout is not shorter. A balancer sends it at
/// once; one packet may get lost, and comes again within three seconds.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// Finds out whose place this is. At once, where no balancer is in between.
pub fn owned(place: Place, role: Role, shared: &Shared) -> Option<Place> {
    if place.has_owner() {
        return Some(place);
    }
    let tcp = Arc::clone(&place.client().tcp);
    let mut socket = Socket::new(Arc::clone(&tcp), HEADER_TIME.min(shared.timeout));
    let caller = match read_header(&mut socket) {
        Ok(caller) => caller,
        Err(error) => {
            // To connect and to close again is how simple balancers look whether we live.
            let level = match error {
                HeaderError::Silence => log::Level::Debug,
                // That was our shutdown, and nothing is wrong with the balancer.
                _ if place.client().is_seen_out() => log::Level::Debug,
                _ => log::Level::Warn,
            };
            log::log!(level, "closed {}, from a balancer: {error}", place.client());
            return None;
        }
    };
    let given = place.give_to(caller);
    if given.is_none() {
        log::info!("refused {caller}: too many connections");
        refuse(&tcp, role, &reply::too_many_connections(&shared.site().hostname));
    }
    given
}
