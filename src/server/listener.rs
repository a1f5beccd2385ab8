//! One port: threads wait there for a client, serve it, and wait for the next.
//!
//! In: a socket that listens. Out: one thread for each client that gets a place. A
//! thread that takes a client serves it itself, from the greeting to the close, and
//! comes back; only the last one that waits makes a new thread for its client, and
//! goes on waiting. A client beyond the caps is told 421 and costs no thread.
//! Nothing a client does, and no lack of descriptors or threads, ends this; only
//! the shutdown does.
//!
//! Book: docs/08-threads.md.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::clients::Place;
use crate::server::{Shared, connection};
use crate::smtp::reply;
use crate::smtp::session::Role;

/// A session needs little: its buffers are on the heap, and nothing recurses.
const STACK: usize = 128 * 1024;
/// How many threads whose client is gone wait for another one. Any more of them end.
const WAITING_LIMIT: usize = 16;
/// How long to wait when the system has no descriptor or thread for us: long
/// enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one attempt to wake a waiting thread may take …
const WAKE_TIME: Duration = Duration::from_secs(1);
/// … and the pause before the next: some threads may be too busy to notice.
const WAKE_PAUSE: Duration = Duration::from_millis(1);

/// A port, and the threads that wait there.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    role: Role,
    address: SocketAddr,
    waiting: Waiting,
    /// Held by the one thread that blocks in `accept`: on Linux that takes a descriptor
    /// for the client to come, and the others shall not take any.
    turn: Mutex<()>,
    /// Whether the log was told that no more clients can be taken.
    is_short: AtomicBool,
}

impl Listener {
    /// Opens the port. Clients can connect from here on.
    pub fn open(role: Role, address: SocketAddr) -> io::Result<Arc<Listener>> {
        let tcp = TcpListener::bind(address)?;
        let address = tcp.local_addr()?;
        Ok(Arc::new(Listener {
            tcp,
            role,
            address,
            waiting: Waiting::default(),
            turn: Mutex::default(),
            is_short: AtomicBool::new(false),
        }))
    }

    /// Its role and its address, with the real port.
    pub fn address(&self) -> (Role, SocketAddr) {
        (self.role, self.address)
    }

    /// Serves clients from here on, in threads of their own.
    pub fn start(self: &Arc<Listener>, shared: &Arc<Shared>) {
        // The first thread is wanted, whatever the limit.
        self.waiting.come_back(usize::MAX);
        while let Err(error) = self.add_thread(None, shared) {
            if shared.is_stopping() {
                return self.waiting.leave();
            }
            self.pause(&error);
        }
    }

    /// Waits until no thread waits here any more, or until `end`. The server has to be
    /// stopping.
    pub fn stop(&self, shared: &Shared, end: Instant) {
        while self.waiting.count() > 0 {
            if Instant::now() > end {
                log::error!("cannot wake the threads that wait at {}", self.address);
                return;
            }
            // One blocks in `accept`: a connection wakes it, and then it is the next
            // one's turn.
            match TcpStream::connect_timeout(&reachable(self.address), WAKE_TIME) {
                Ok(_) => thread::sleep(WAKE_PAUSE),
                // We may have no descriptor left. Clients that leave give some back.
                Err(_) => {
                    shared.clients.see_out();
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Adds a thread, which begins with the client of this place if there is one.
    fn add_thread(
        self: &Arc<Listener>,
        first: Option<Place>,
        shared: &Arc<Shared>,
    ) -> io::Result<()> {
        let (listener, for_thread) = (Arc::clone(self), Arc::clone(shared));
        let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK);
        thread.spawn(move || serve_clients(listener, first, &for_thread)).map(drop)
    }

    /// Waits for a client that gets a place; `None` once the server is stopping.
    fn next_client(self: &Arc<Listener>, shared: &Arc<Shared>) -> Option<Place> {
        while let Some(accepted) = self.accept(shared) {
            let admitted = match accepted {
                // That client was gone before we took it.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                accepted => accepted.and_then(|(tcp, from)| self.admit(tcp, from, shared)),
            };
            match admitted {
                Err(error) => self.pause(&error),
                Ok(place) => {
                    if self.is_short.swap(false, Ordering::SeqCst) {
                        log::info!("taking clients again");
                    }
                    if place.is_some() {
                        return place;
                    }
                }
            }
        }
        self.waiting.leave();
        None
    }

    /// Waits for its turn, and then for a connection; `None` once the server is stopping.
    fn accept(&self, shared: &Shared) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        // Nothing panics while it holds this lock.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_stopping() {
            return None;
        }
        let accepted = self.tcp.accept();
        // What wakes us for the shutdown is not served, whoever it is.
        (!shared.is_stopping()).then_some(accepted)
    }

    /// Gives a client its place, which is for the calling thread to serve: or `None`,
    /// if another thread does, or if there is no place and the client was told so.
    fn admit(
        self: &Arc<Listener>,
        tcp: TcpStream,
        from: SocketAddr,
        shared: &Arc<Shared>,
    ) -> io::Result<Option<Place>> {
        let tcp = Arc::new(tcp);
        let Some(place) = shared.clients.admit(&tcp, from) else {
            log::info!("refused a client from {from}: too many connections");
            self.refuse(&tcp, shared);
            return Ok(None);
        };
        if self.waiting.leave_unless_last() {
            return Ok(Some(place));
        }
        let started = self.add_thread(Some(place), shared);
        started.map(|()| None).inspect_err(|_| self.refuse(&tcp, shared))
    }

    /// A 421 in the place of the greeting, and a plain close. The few octets fit
    /// into the system's buffer, so this waits for nobody; and it does not linger,
    /// because this thread has other clients to take.
    fn refuse(&self, mut tcp: &TcpStream, shared: &Shared) {
        // In clear it would be no reply to a client that waits for a handshake.
        if self.role == Role::Submissions {
            return;
        }
        let mut octets = Vec::new();
        reply::too_many_connections(&shared.site().hostname).write_to(&mut octets);
        // A client that is gone already is no matter.
        let _ = tcp.write_all(&octets);
    }

    /// Waits, while the system has no descriptor or no thread for us.
    fn pause(&self, error: &io::Error) {
        // Said once when it begins and once when it is over, not twenty times a second.
        if !self.is_short.swap(true, Ordering::SeqCst) {
            log::warn!("cannot take more clients now: {error}");
        }
        thread::sleep(PAUSE);
    }
}

/// How many threads wait for a client, or are about to. Each question is asked and
/// answered in one step: two threads that both saw a third one there could both go.
#[derive(Debug, Default)]
struct Waiting(AtomicUsize);

impl Waiting {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// One more waits, if fewer than `limit` do: or else the answer is no.
    fn come_back(&self, limit: usize) -> bool {
        self.change(|count| (count < limit).then_some(count + 1))
    }

    /// One waits no more, if another one does: or else the answer is no.
    fn leave_unless_last(&self) -> bool {
        self.change(|count| (count > 1).then(|| count - 1))
    }

    fn leave(&self) {
        self.change(|count| count.checked_sub(1));
    }

    fn change(&self, to: impl Fn(usize) -> Option<usize>) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, to).is_ok()
    }
}

/// The life of a thread: wait for a client, serve it, wait for the next.
fn serve_clients(mut listener: Arc<Listener>, first: Option<Place>, shared: &Arc<Shared>) {
    let mut next = first.or_else(|| listener.next_client(shared));
    while let Some(place) = next {
        let role = listener.role;
        // A shutdown closes the port, and this thread must not keep it open.
        let port = Arc::downgrade(&listener);
        drop(listener);
        connection::serve(&place, role, shared);
        drop(place);
        match port.upgrade() {
            Some(open) if open.waiting.come_back(WAITING_LIMIT) => listener = open,
            Some(_) | None => return,
        }
        next = listener.next_client(shared);
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
    use crate::server::{Config, DRAIN_TIME, Handle, Server};
    use std::io::{BufRead, BufReader};
    use std::thread::JoinHandle;

    /// A running server with one port, whose insides can be looked at.
    struct Running {
        _spool: tempfile::TempDir,
        listener: Arc<Listener>,
        handle: Handle,
        thread: JoinHandle<()>,
    }

    fn running() -> Running {
        let spool = tempfile::tempdir().unwrap();
        let config = Config {
            smtp: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            spool: spool.path().to_owned(),
            ..Config::default()
        };
        let server = Server::bind(config).unwrap();
        let listener = Arc::clone(&server.listeners[0]);
        let handle = server.handle();
        Running { _spool: spool, listener, handle, thread: thread::spawn(move || server.run()) }
    }

    impl Running {
        /// Connects, and reads the greeting: from then on the client has its thread.
        fn client(&self) -> BufReader<TcpStream> {
            let mut client = BufReader::new(TcpStream::connect(self.listener.address).unwrap());
            client.read_line(&mut String::new()).unwrap();
            client
        }

        /// Waits until `count` threads wait for a client.
        fn wait_for_threads(&self, count: usize) {
            let start = Instant::now();
            while self.listener.waiting.count() != count {
                assert!(start.elapsed() < DRAIN_TIME, "{:?}", self.listener.waiting);
                thread::yield_now();
            }
        }

        /// Ends it. Nobody waits at a port that is closed.
        fn stop(self) {
            self.handle.shutdown();
            self.thread.join().unwrap();
            assert_eq!(self.listener.waiting.count(), 0);
        }
    }

    #[test]
    fn a_thread_waits_for_the_next_client_however_many_there_are() {
        let server = running();
        let _clients: Vec<_> = (0..WAITING_LIMIT * 2).map(|_| server.client()).collect();
        server.wait_for_threads(1);
        server.stop();
    }

    #[test]
    fn whoever_comes_and_goes_the_last_one_stays() {
        let waiting = Waiting::default();
        assert!(waiting.come_back(2));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        // As a thread that takes a client, and comes back when it is gone.
                        if waiting.leave_unless_last() {
                            assert!(waiting.count() > 0);
                        }
                        waiting.come_back(2);
                        assert!(waiting.count() > 0);
                    }
                });
            }
        });
    }

    #[test]
    fn threads_come_back_but_not_all_of_them_after_a_crowd() {
        let server = running();
        drop((server.client(), server.client()));
        server.wait_for_threads(3);
        // The next two clients need no new thread.
        let clients = (server.client(), server.client());
        server.wait_for_threads(1);
        drop(clients);
        drop((0..WAITING_LIMIT * 2).map(|_| server.client()).collect::<Vec<_>>());
        server.wait_for_threads(WAITING_LIMIT);
        server.stop();
    }

    #[test]
    fn a_server_that_was_stopped_before_it_ran_ends_at_once() {
        let spool = tempfile::tempdir().unwrap();
        let smtp = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let config = Config { smtp, spool: spool.path().to_owned(), ..Config::default() };
        let server = Server::bind(config).unwrap();
        server.handle().shutdown();
        server.run();
    }

    #[test]
    fn a_shutdown_wakes_every_thread_that_waits() {
        let server = running();
        drop((0..WAITING_LIMIT).map(|_| server.client()).collect::<Vec<_>>());
        server.wait_for_threads(WAITING_LIMIT);
        server.stop();
    }
}
