//! Who is connected: caps for all and for each address, and the last round
//! before the server goes down.
//!
//! In: connections as they are accepted. Out: a [`Place`], which is given back
//! when it is dropped, so that no way of ending a session, a panic included,
//! can leak one.
//!
//! A connection of a balancer has its place before anybody knows whose it is, and counts
//! for no address until then. Which addresses are balancers, and may say so, is asked
//! here and nowhere else.
//!
//! Left to others: what the balancer says (`balancer.rs`).
//!
//! Book: docs/08-threads.md.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::smtp::reply::Reply;
use crate::smtp::session::Role;
use crate::wire::proxy::{Caller, Ends};

/// How often a shutdown looks for clients that finished their message.
const SWEEP: Duration = Duration::from_millis(50);

/// All clients, and how many there may be.
#[derive(Debug)]
pub struct Clients {
    max: usize,
    /// 0 for no limit.
    max_per_address: usize,
    /// Connections from there begin with a PROXY header.
    balancers: Vec<IpAddr>,
    live: Mutex<Live>,
    /// Told when the last client has left.
    empty: Condvar,
}

#[derive(Debug, Default)]
struct Live {
    clients: HashMap<u64, Arc<Client>>,
    /// How many of `clients` are known to come from one address; no entry for none.
    per_address: HashMap<IpAddr, usize>,
    /// Clients so far.
    count: u64,
}

/// One connected client.
#[derive(Debug)]
pub struct Client {
    /// Counts clients from 1; stands in the log and the trace.
    pub number: u64,
    /// Who connected, and to which of our addresses.
    connection: Ends,
    /// The same as the client sees it, from when it is known.
    ends: OnceLock<Ends>,
    /// The connection. Only this client's own thread reads or writes it.
    pub tcp: Arc<TcpStream>,
    /// Whether it sends a message, or reads our last reply. A shutdown lets it finish.
    is_busy: AtomicBool,
    /// Whether a shutdown has ended its input.
    is_seen_out: AtomicBool,
}

/// While this lives, its client sends a message, or reads our last reply.
#[derive(Debug)]
pub struct Busy<'a> {
    client: &'a Client,
}

/// A client's place among all, given back when dropped.
#[derive(Debug)]
pub struct Place {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Clients {
    /// Room for `max` clients, and `max_per_address` from one address, where 0
    /// means as many as fit. Of connections from `balancers` the client is known later.
    pub fn new(max: usize, max_per_address: usize, balancers: &[IpAddr]) -> Clients {
        let balancers = balancers.iter().map(IpAddr::to_canonical).collect();
        let (live, empty) = (Mutex::default(), Condvar::new());
        Clients { max, max_per_address, balancers, live, empty }
    }

    /// Gives a client its place, or `None` where a cap is reached.
    pub fn admit(self: &Arc<Clients>, tcp: &Arc<TcpStream>, from: SocketAddr) -> Option<Place> {
        let ours = tcp.local_addr().unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
        let connection = canonical(Ends { client: from, server: ours });
        let is_balancers = self.balancers.contains(&connection.client.ip());
        let mut live = self.live();
        if live.clients.len() >= self.max
            || !is_balancers && !live.count_in(connection.client.ip(), self.max_per_address)
        {
            return None;
        }
        live.count += 1;
        let client = Arc::new(Client {
            number: live.count,
            connection,
            ends: if is_balancers { OnceLock::new() } else { OnceLock::from(connection) },
            tcp: Arc::clone(tcp),
            is_busy: AtomicBool::new(false),
            is_seen_out: AtomicBool::new(false),
        });
        live.clients.insert(client.number, Arc::clone(&client));
        Some(Place { clients: Arc::clone(self), client })
    }

    /// Sees all clients out: those that are not busy find the end
    /// of their input at once, the others after their message. Waits until all are gone or
    /// `limit` has passed, and says how many are left.
    pub fn drain(&self, limit: Duration) -> usize {
        let start = Instant::now();
        let mut live = self.live();
        while !live.clients.is_empty() && start.elapsed() < limit {
            live.see_out();
            live = match self.empty.wait_timeout(live, SWEEP) {
                Ok((live, _)) => live,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        live.clients.len()
    }

    /// Ends the input of all clients that are not busy, so that their threads
    /// wake up. Linux still hands out what arrives after that, so `Shared::is_stopping` is asked
    /// before each command.
    pub fn see_out(&self) {
        self.live().see_out();
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic in a session does not happen while it holds this lock.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Counts one more client from this address, unless there are `max` already.
    fn count_in(&mut self, address: IpAddr, max: usize) -> bool {
        let same = self.per_address.entry(group(address)).or_default();
        if max != 0 && *same >= max {
            return false;
        }
        *same += 1;
        true
    }

    fn count_out(&mut self, address: IpAddr) {
        let group = group(address);
        match self.per_address.get_mut(&group) {
            Some(same) if *same > 1 => *same -= 1,
            _ => drop(self.per_address.remove(&group)),
        }
    }

    fn see_out(&self) {
        for client in self.clients.values() {
            if !client.is_busy.load(Ordering::SeqCst) {
                client.is_seen_out.store(true, Ordering::SeqCst);
                // Its thread reads the end, and says 421 itself: no other thread
                // ever writes to a client. An error means it is gone.
                let _ = client.tcp.shutdown(Shutdown::Read);
            }
        }
    }
}

impl Client {
    /// Where it comes from; as long as only a balancer knows that, where the balancer is.
    /// An IPv4 client that came over IPv6 has its IPv4 address here.
    pub fn address(&self) -> SocketAddr {
        self.ends().client
    }

    /// The address of ours that it connected to.
    pub fn our_address(&self) -> IpAddr {
        self.ends().server.ip()
    }

    fn ends(&self) -> &Ends {
        self.ends.get().unwrap_or(&self.connection)
    }

    /// From here until the returned value is dropped, a shutdown waits for this client.
    pub fn busy(&self) -> Busy<'_> {
        self.is_busy.store(true, Ordering::SeqCst);
        Busy { client: self }
    }

    /// Whether the end of its input is our doing: a shutdown has ended it.
    pub fn is_seen_out(&self) -> bool {
        self.is_seen_out.load(Ordering::SeqCst)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.client.is_busy.store(false, Ordering::SeqCst);
    }
}

impl Place {
    /// The client that has this place.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it is known whose place it is. If not, a balancer knows.
    pub fn has_owner(&self) -> bool {
        self.client.ends.get().is_some()
    }

    /// Says whose place it is, where nobody knew. `None` where too many have come from
    /// that address: then the place is given back.
    pub fn give_to(self, caller: Caller) -> Option<Place> {
        if self.has_owner() {
            return Some(self);
        }
        let ends = match caller {
            Caller::Client(ends) => canonical(ends),
            Caller::Balancer => self.client.connection,
        };
        if !self.clients.live().count_in(ends.client.ip(), self.clients.max_per_address) {
            return None;
        }
        // Only this thread has the place, so nobody else has set it meanwhile. From now
        // on it is counted, and will be counted out.
        let _ = self.client.ends.set(ends);
        Some(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!("{}: a bug ended this session, please report it", self.client);
        }
        let mut live = self.clients.live();
        live.clients.remove(&self.client.number);
        if let Some(ends) = self.client.ends.get() {
            live.count_out(ends.client.ip());
        }
        if live.clients.is_empty() {
            self.clients.empty.notify_all();
        }
    }
}

/// A 421 in the place of the greeting, for whoever gets no place, and a plain close: the
/// few octets fit into the system's buffer, so this waits for nobody; and it does not
/// linger, because a crowd must not keep threads busy by being refused.
pub fn refuse(mut tcp: &TcpStream, role: Role, reply: &Reply) {
    // In clear it would be no reply to a client that waits for a handshake.
    if role == Role::Submissions {
        return;
    }
    let mut octets = Vec::new();
    reply.write_to(&mut octets);
    // A client that is gone already is no matter.
    let _ = tcp.write_all(&octets);
}

/// An IPv4 address is one, also where it came over IPv6.
fn canonical(ends: Ends) -> Ends {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Ends { client: plain(ends.client), server: plain(ends.server) }
}

/// Who counts as one client: an IPv4 address, or an IPv6 network of 64 bits,
/// because that is what one customer gets.
pub fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// As the log names it: `client 7 (192.0.2.1:4711)`.
impl Display for Client {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "client {} ({})", self.number, self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn tcp() -> Arc<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    }

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 4711)
    }

    #[test]
    fn places_are_capped_in_total_and_given_back() {
        let clients = Arc::new(Clients::new(2, 0, &[]));
        let tcp = tcp();
        let one = clients.admit(&tcp, from("192.0.2.1")).unwrap();
        let _two = clients.admit(&tcp, from("192.0.2.1")).unwrap();
        assert!(clients.admit(&tcp, from("192.0.2.2")).is_none());
        drop(one);
        assert!(clients.admit(&tcp, from("192.0.2.2")).is_some());
    }

    #[test]
    fn an_address_is_capped_however_it_is_written() {
        let clients = Arc::new(Clients::new(10, 1, &[]));
        let tcp = tcp();
        let _one = clients.admit(&tcp, from("192.0.2.1")).unwrap();
        assert!(clients.admit(&tcp, from("::ffff:192.0.2.1")).is_none());
        let _two = clients.admit(&tcp, from("2001:db8::1")).unwrap();
        assert!(clients.admit(&tcp, from("2001:db8::2:0:0:1")).is_none());
        assert!(clients.admit(&tcp, from("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn a_panic_gives_the_place_back() {
        let clients = Arc::new(Clients::new(1, 1, &[]));
        let tcp = tcp();
        let place = clients.admit(&tcp, from("192.0.2.1")).unwrap();
        let thread = thread::spawn(move || {
            let _place = place;
            panic!("a bug in one session");
        });
        assert!(thread.join().is_err());
        assert!(clients.admit(&tcp, from("192.0.2.1")).is_some());
        assert!(clients.live().per_address.is_empty());
    }

    #[test]
    fn draining_ends_at_its_limit_and_counts_who_is_left() {
        let clients = Arc::new(Clients::new(1, 1, &[]));
        let place = clients.admit(&tcp(), from("192.0.2.1")).unwrap();
        assert_eq!(clients.drain(Duration::from_millis(60)), 1);
        drop(place);
        assert_eq!(clients.drain(Duration::from_secs(60)), 0);
    }

    /// The place of a connection that a balancer opens for this client.
    fn through_balancer(clients: &Arc<Clients>, client: &str) -> Option<Place> {
        let place = clients.admit(&tcp(), from("192.0.2.9")).unwrap();
        assert!(!place.has_owner());
        let server = from("192.0.2.10");
        place.give_to(Caller::Client(Ends { client: from(client), server }))
    }

    #[test]
    fn a_balancers_connection_counts_for_its_client_and_not_before_it_is_known() {
        let balancer = "::ffff:192.0.2.9".parse().unwrap();
        let clients = Arc::new(Clients::new(10, 1, &[balancer]));
        let waiting: Vec<Place> =
            (0..3).map(|_| clients.admit(&tcp(), from("192.0.2.9")).unwrap()).collect();
        let one = through_balancer(&clients, "::ffff:192.0.2.1").unwrap();
        assert_eq!(one.client().address(), from("192.0.2.1"));
        assert_eq!(one.client().our_address(), from("192.0.2.10").ip());
        assert!(through_balancer(&clients, "192.0.2.1").is_none());
        assert!(clients.admit(&tcp(), from("192.0.2.1")).is_none());
        let two = through_balancer(&clients, "2001:db8::1").unwrap();
        assert!(through_balancer(&clients, "2001:db8::2").is_none());
        drop((one, two, waiting));
        assert!(through_balancer(&clients, "192.0.2.1").is_some());
        let live = clients.live();
        assert_eq!((live.clients.len(), live.per_address.len()), (0, 0));
    }

    #[test]
    fn a_balancer_that_comes_for_itself_is_one_client() {
        let clients = Arc::new(Clients::new(10, 1, &[from("192.0.2.9").ip()]));
        let admit = || clients.admit(&tcp(), from("192.0.2.9")).unwrap();
        let one = admit().give_to(Caller::Balancer).unwrap();
        assert_eq!(one.client().address(), from("192.0.2.9"));
        assert!(admit().give_to(Caller::Balancer).is_none());
    }

    #[test]
    fn balancers_are_capped_in_total_before_they_say_a_word() {
        let clients = Arc::new(Clients::new(1, 0, &[from("192.0.2.9").ip()]));
        let _one = clients.admit(&tcp(), from("192.0.2.9")).unwrap();
        assert!(clients.admit(&tcp(), from("192.0.2.9")).is_none());
    }
}
