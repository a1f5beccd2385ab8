//! One port: accept, admit, spawn.
//!
//! In: a socket that listens. Out: one thread for each client that gets a place. A
//! client beyond the caps costs no thread, and is told 421 where it waits for a greeting in
//! clear. One behind a balancer is only known on a thread. Nothing a client does, and no lack
//! of descriptors or threads, ends this; only the shutdown does.
//!
//! Book: docs/08-threads.md.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::balancer;
use crate::server::clients::refuse;
use crate::server::connection;
use crate::server::shared::Shared;
use crate::smtp::reply;
use crate::smtp::session::Role;

/// A session needs little: its buffers are on the heap, and nothing calls itself but the
/// check of SPF, ten times at most, and the reader of a token, sixteen times at most.
const STACK: usize = 128 * 1024;
/// How long to wait when the system has no descriptor or thread for us: long
/// enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one attempt to wake the thread of a listener may take.
const WAKE_TIME: Duration = Duration::from_secs(1);

/// A port that is open.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    role: Role,
    address: SocketAddr,
}

impl Listener {
    /// Opens the port. Clients can connect from here on.
    pub fn open(role: Role, address: SocketAddr) -> io::Result<Listener> {
        let tcp = TcpListener::bind(address)?;
        let address = tcp.local_addr()?;
        Ok(Listener { tcp, role, address })
    }

    /// Its role and its address, with the real port.
    pub fn address(&self) -> (Role, SocketAddr) {
        (self.role, self.address)
    }

    /// Takes clients until the server stops.
    pub fn run(&self, shared: &Arc<Shared>) {
        let mut has_warned = false;
        while !shared.is_stopping() {
            // Said once when it begins and once when it is over, not twenty times a second.
            match self.take_client(shared) {
                Ok(()) => {
                    if has_warned {
                        log::info!("taking clients again");
                    }
                    has_warned = false;
                }
                Err(error) => {
                    if !has_warned {
                        log::warn!("cannot take more clients now: {error}");
                    }
                    has_warned = true;
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Accept, admit, spawn. The error is a lack of descriptors or threads.
    fn take_client(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let (tcp, from) = match self.tcp.accept() {
            // That client was gone before we took it.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Ok(()),
            accepted => accepted?,
        };
        if shared.is_stopping() {
            refuse(&tcp, self.role, &reply::stopping(&shared.site().hostname));
            return Ok(());
        }
        let tcp = Arc::new(tcp);
        let too_many = || reply::too_many_connections(&shared.site().hostname);
        let Some(place) = shared.clients.admit(&tcp, from) else {
            log::info!("refused a client from {from}: too many connections");
            refuse(&tcp, self.role, &too_many());
            return Ok(());
        };
        let (role, for_thread) = (self.role, Arc::clone(shared));
        let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK);
        let spawned = thread.spawn(move || {
            // A balancer has to say first whose place it is.
            if let Some(place) = balancer::owned(place, role, &for_thread) {
                connection::serve(&place, role, &for_thread);
            }
        });
        spawned.map(drop).inspect_err(|_| refuse(&tcp, self.role, &too_many()))
    }
}

/// Connects to a port of a server that is stopping, so that the thread that blocks in
/// `accept` there returns and looks. Tries again until `end` if it has to.
pub fn wake(address: SocketAddr, shared: &Shared, end: Instant) {
    while let Err(error) = TcpStream::connect_timeout(&reachable(address), WAKE_TIME) {
        // That thread has looked by itself, and closed the port.
        if error.kind() == ErrorKind::ConnectionRefused || Instant::now() > end {
            return;
        }
        // We may have no descriptor left. Clients that leave give some back.
        shared.clients.see_out();
        thread::sleep(PAUSE);
    }
}

/// The address under which we reach our own port: "any address" is none.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Config, Server};
    use std::io::Read;

    /// A server that does not run yet, and a client that has connected to it.
    fn bound() -> (Server, TcpStream, tempfile::TempDir) {
        let spool = tempfile::tempdir().unwrap();
        let config = Config {
            smtp: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            spool: spool.path().to_owned(),
            ..Config::default()
        };
        let server = Server::bind(config).unwrap();
        let client = TcpStream::connect(server.addresses()[0].1).unwrap();
        (server, client, spool)
    }

    #[test]
    fn a_client_taken_in_the_instant_of_the_stop_is_told_421_and_is_nobody() {
        let (server, mut client, _spool) = bound();
        let shared = &server.handle.shared;
        shared.stop();
        server.listeners[0].take_client(shared).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(&said[..9], "421 4.3.2", "{said}");
        assert_eq!(shared.clients.drain(Duration::ZERO), 0);
    }

    #[test]
    fn a_server_that_was_stopped_before_it_ran_ends_at_once() {
        let (server, _client, _spool) = bound();
        server.handle().shutdown();
        let start = Instant::now();
        server.run();
        assert!(start.elapsed() < WAKE_TIME);
    }

    #[test]
    fn any_address_is_reached_through_loopback() {
        for (address, wanted) in [
            ("0.0.0.0:25", "127.0.0.1:25"),
            ("[::]:25", "[::1]:25"),
            ("192.0.2.1:25", "192.0.2.1:25"),
        ] {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), wanted);
        }
    }
}
