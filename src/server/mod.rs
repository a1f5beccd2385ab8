//! Clients, threads and the way of a message from the wire to the store.
//!
//! [`Server`] is the whole of it, as `main.rs` and other people's tests use it:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ehlo::server::{Config, Server};
//!
//! let spool = tempfile::tempdir()?;
//! let server = Server::bind(Config {
//!     smtp: vec!["127.0.0.1:0".parse()?],
//!     spool: spool.path().to_owned(),
//!     ..Config::default()
//! })?;
//! let address = server.addresses()[0];
//! let handle = server.handle();
//! let running = std::thread::spawn(move || server.run());
//! // … send mail to `address` …
//! # let _ = address;
//! handle.shutdown();
//! running.join().expect("the server does not panic");
//! # Ok(())
//! # }
//! ```
//!
//! Read in this order: [`listener`], [`clients`], [`connection`], [`receive`].
//!
//! Book: docs/08-threads.md.

pub mod clients;
pub mod connection;
pub mod listener;
pub mod receive;

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::clients::Clients;
use crate::smtp::site::{self, Site};
use crate::store::spool::Spool;

/// How long a shutdown waits for messages that are being received.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long one attempt to wake a listener may take …
const WAKE_TIME: Duration = Duration::from_secs(1);
/// … and the pause before the next.
const WAKE_PAUSE: Duration = Duration::from_millis(50);

/// Everything that can be chosen about a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub smtp: Vec<SocketAddr>,
    /// How the server calls itself.
    pub hostname: String,
    /// The domains it takes mail for; the hostname, if there are none.
    pub domains: Vec<String>,
    /// The only mailboxes; `None` takes every name, and makes its mailbox at the
    /// first letter.
    pub mailboxes: Option<Vec<String>>,
    /// The folder for all mail.
    pub spool: PathBuf,
    /// The largest message, in octets.
    pub max_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// The most clients at a time.
    pub max_connections: usize,
    /// The most clients at a time from one address; 0 for no limit.
    pub max_per_client: usize,
    /// How long a command, a write, or 64 KiB of a message may take.
    pub timeout: Duration,
    /// Print every dialogue to standard error.
    pub trace: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            smtp: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 2525))],
            hostname: "localhost".to_owned(),
            domains: Vec::new(),
            mailboxes: None,
            spool: PathBuf::from("spool"),
            max_size: site::DEFAULT_MAX_SIZE,
            max_recipients: site::DEFAULT_MAX_RECIPIENTS,
            max_connections: 1000,
            max_per_client: 100,
            timeout: Duration::from_secs(300),
            trace: false,
        }
    }
}

/// A server whose ports are open. Clients can connect from here on; they are
/// served once [`Server::run`] is called.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// Ends a running server from another thread.
#[derive(Debug, Clone)]
pub struct Handle {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// What all threads of a server see. What changes in it is who is connected,
/// what the spool has counted and seen, and `stopping`.
#[derive(Debug)]
pub struct Shared {
    /// Names, mailboxes and limits.
    pub site: Arc<Site>,
    /// Where messages go.
    pub spool: Spool,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// How long a command, a write, or 64 KiB of a message may take.
    pub timeout: Duration,
    /// Print every dialogue to standard error.
    pub trace: bool,
    stopping: AtomicBool,
}

impl Shared {
    /// Whether the server is going down.
    pub fn is_stopping(&self) -> bool {
        // SeqCst here and everywhere: nothing in this program is fast enough to
        // be slowed by the strictest order, and no other needs less thought.
        self.stopping.load(Ordering::SeqCst)
    }
}

/// Why a server cannot start.
#[derive(Debug)]
pub enum BindError {
    /// This address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// This folder cannot hold the mail.
    Spool(PathBuf, io::Error),
}

impl Server {
    /// Opens the ports, then the spool.
    pub fn bind(config: Config) -> Result<Server, BindError> {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in config.smtp {
            let opened = TcpListener::bind(address)
                .and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (address, listener) = opened.map_err(|error| BindError::Listen(address, error))?;
            listeners.push(listener);
            addresses.push(address);
        }
        let spool = Spool::open(&config.spool, &config.hostname)
            .map_err(|error| BindError::Spool(config.spool, error))?;

        let (home, more_domains) = match config.domains.split_first() {
            Some((home, more)) => (home, more),
            None => (&config.hostname, &[][..]),
        };
        let mut site = Site::new(&config.hostname, home, more_domains, config.mailboxes.as_deref());
        site.max_size = config.max_size;
        site.max_recipients = config.max_recipients;

        let shared = Shared {
            site: Arc::new(site),
            spool,
            clients: Arc::new(Clients::new(config.max_connections, config.max_per_client)),
            timeout: config.timeout,
            trace: config.trace,
            stopping: AtomicBool::new(false),
        };
        Ok(Server { listeners, addresses, shared: Arc::new(shared) })
    }

    /// Where the server listens, with the real ports, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What ends this server from another thread.
    pub fn handle(&self) -> Handle {
        Handle { addresses: self.addresses.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Serves clients until [`Handle::shutdown`], one thread for each. Returns
    /// when the last client is gone, or 10 seconds after the shutdown began.
    pub fn run(self) {
        thread::scope(|scope| {
            for listener in &self.listeners {
                scope.spawn(|| listener::accept(listener, &self.shared));
            }
        });
        // New clients find the ports closed while the others are seen out.
        drop(self.listeners);
        let left = self.shared.clients.drain(DRAIN_TIME);
        if left > 0 {
            log::warn!("{left} clients were still busy and are cut off");
        }
    }
}

impl Handle {
    /// Begins the shutdown: no more clients, a message in hand is finished, all
    /// others are told 421. Returns at once; [`Server::run`] returns when it is
    /// done. A second call changes nothing.
    pub fn shutdown(&self) {
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        // The listeners block in `accept`: one connection each wakes them. Where we
        // have no descriptor left for that, clients that leave give some back.
        let start = Instant::now();
        for address in &self.addresses {
            while let Err(error) = TcpStream::connect_timeout(&reachable(*address), WAKE_TIME) {
                if start.elapsed() > DRAIN_TIME {
                    log::error!("cannot wake the listener on {address}: {error}");
                    break;
                }
                self.shared.clients.see_out();
                thread::sleep(WAKE_PAUSE);
            }
        }
    }
}

/// The address under which we reach our own listener: "any address" is none.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

impl Display for BindError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            BindError::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            BindError::Spool(path, error) => {
                write!(f, "cannot keep mail in {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for BindError {}
