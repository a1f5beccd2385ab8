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
//! let (_role, address) = server.addresses()[0];
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
//! Read in this order: [`listener`], [`clients`], [`balancer`], [`connection`],
//! [`receive`], `trusting`; then [`shared`], [`files`], [`certificate`], [`issuer`], [`smarthost`],
//! [`failures`], [`allowance`] and [`relaying`].
//!
//! Book: docs/08-threads.md.

pub mod allowance;
pub mod balancer;
pub mod certificate;
pub mod clients;
pub mod connection;
pub mod failures;
pub mod files;
pub mod issuer;
pub mod listener;
pub mod receive;
pub mod relaying;
pub mod shared;
pub mod smarthost;
mod trusting;

pub use crate::config::Config;
pub use crate::server::shared::Shared;
pub use crate::wire::events::{Event, Events, What};

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::relay::courier::Courier;
use crate::relay::worker::{self, Schedule};
use crate::server::connection::random_octets;
use crate::server::listener::Listener;
use crate::smtp::session::Role;
use crate::store::spool::Spool;
use crate::wire::events;

/// How long a shutdown may take: above all for messages that are being received.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long a line of log that is the last may take.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// A server whose ports are open. Clients can connect from here on; they are
/// served once [`Server::run`] is called.
pub struct Server {
    listeners: Vec<Listener>,
    courier: Courier,
    /// Told when a handle stops the server.
    stopped: Receiver<()>,
    handle: Handle,
}

/// Ends a running server, or lets it read its files again, from another thread.
#[derive(Debug, Clone)]
pub struct Handle {
    stop: Sender<()>,
    addresses: Arc<Vec<SocketAddr>>,
    config: Arc<Config>,
    /// Held by whoever reads the files: the last to read is the last to store.
    reloading: Arc<Mutex<()>>,
    shared: Arc<Shared>,
}

/// Why a server cannot start.
#[derive(Debug)]
pub enum BindError {
    /// This address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// This folder cannot hold the mail.
    Spool(PathBuf, io::Error),
    /// A file is wrong, or one is missing: which, where, and what was expected.
    Configuration(String),
}

impl Server {
    /// Reads the files, opens the ports, then the spool.
    pub fn bind(config: Config) -> Result<Server, BindError> {
        config.check().map_err(BindError::Configuration)?;
        let files = files::read(&config, random_octets()).map_err(BindError::Configuration)?;
        let listeners = open_ports(&config)?;
        let spool = Spool::open(&config.spool, &config.hostname)
            .map_err(|error| BindError::Spool(config.spool.clone(), error))?;
        if config.allow_plain_auth && config.users.is_some() {
            log::warn!("passwords are taken in clear: everybody on the way can read them");
        }
        let shared = Arc::new(Shared::new(
            Arc::new(spool),
            Arc::new(Schedule::new(config.smarthost.is_some(), config.retry)),
            files,
            &config,
        ));
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.address().1).collect();
        let courier = relaying::courier(&config, addresses.clone(), &shared);
        let (stop, stopped) = mpsc::channel();
        let handle = Handle {
            stop,
            addresses: Arc::new(addresses),
            config: Arc::new(config),
            reloading: Arc::default(),
            shared,
        };
        Ok(Server { listeners, courier, stopped, handle })
    }

    /// Where the server listens and in which role, with the real ports: first
    /// all of the role of port 25, then 587, then 465.
    pub fn addresses(&self) -> Vec<(Role, SocketAddr)> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// All dialogues with clients from here on, as `--trace` prints them. There is one such
    /// stream: a second call gives none. Nothing waits for its reader.
    pub fn events(&self) -> Option<Events> {
        let (teller, events) = events::stream();
        self.handle.shared.teller.set(teller).ok().map(|()| events)
    }

    /// What ends this server from another thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves clients until [`Handle::shutdown`], one thread for each, and carries on
    /// what waits in the queue. Returns when the last client is gone and no letter is
    /// under way, or some 11 seconds after the shutdown began: the last of them is for the
    /// log.
    pub fn run(self) {
        let Server { listeners, courier, stopped, handle } = self;
        let Handle { stop, shared, .. } = handle;
        // Each listener has one, and lets go of it when it is done.
        let (open, closed) = mpsc::channel::<()>();
        for listener in listeners {
            let (shared, open) = (Arc::clone(&shared), open.clone());
            thread::spawn(move || {
                listener.run(&shared);
                // New clients find the port closed while the others are seen out.
                drop((listener, open));
            });
        }
        drop(open);
        let (for_worker, courier) = (Arc::clone(&shared), Arc::new(courier));
        thread::spawn(move || worker::run(&for_worker.schedule, &courier));

        // It fails where no handle is left, and we have one ourselves.
        let _ = stopped.recv();
        drop(stop);
        let end = Instant::now() + DRAIN_TIME;
        let left = || end.saturating_duration_since(Instant::now());
        // An error either way: all are closed, or the time is over.
        let _ = closed.recv_timeout(left());
        let clients = shared.clients.drain(left());
        let letters = shared.schedule.drain(left());
        say_last_words(clients, letters);
    }
}

/// Tells the log what a shutdown cut off. Nobody may be reading the log, so that a line
/// of it takes for ever: the end of the program does not wait for that.
fn say_last_words(clients: usize, letters: usize) {
    if clients == 0 && letters == 0 {
        return;
    }
    let (saying, said) = mpsc::channel::<()>();
    thread::spawn(move || {
        if clients > 0 {
            log::warn!("{clients} clients were still busy and are cut off");
        }
        if letters > 0 {
            log::warn!("{letters} letters were under way; they stay in the queue");
        }
        drop(saying);
    });
    let _ = said.recv_timeout(LAST_WORDS_TIME);
}

fn open_ports(config: &Config) -> Result<Vec<Listener>, BindError> {
    let roles = [
        (Role::Smtp, &config.smtp),
        (Role::Submission, &config.submission),
        (Role::Submissions, &config.submissions),
    ];
    let wanted = roles
        .iter()
        .flat_map(|(role, addresses)| addresses.iter().map(|address| (*role, *address)));
    let open = |(role, address)| {
        Listener::open(role, address).map_err(|error| BindError::Listen(address, error))
    };
    wanted.map(open).collect()
}

impl Handle {
    /// Reads all files again: users, aliases and the keys of tokens, for sessions that begin
    /// from now on; certificate and key, for handshakes that do; the key of DKIM, for
    /// letters; and what belongs to the smarthost, for attempts. If one of the files is
    /// wrong, everything stays as it was, and the error says what is wrong.
    pub fn reload(&self) -> Result<(), String> {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.set_files(files::read(&self.config, self.shared.process_secret())?);
        Ok(())
    }

    /// Tries everything in the queue now, whatever its time.
    pub fn try_all_now(&self) {
        self.shared.schedule.try_all_now();
    }

    /// Begins the shutdown: no more clients, a message in hand is finished, all
    /// others are told 421. [`Server::run`] returns when it is done. A second call
    /// changes nothing. The first waits until each listener has been woken, which may take
    /// seconds if the process has no descriptor left.
    pub fn shutdown(&self) {
        if self.shared.stop() {
            return;
        }
        self.shared.schedule.stop();
        // A server that is not running hears of it when it begins to.
        let _ = self.stop.send(());
        // Threads that block in `accept` look at no flag. A connection wakes them.
        let end = Instant::now() + DRAIN_TIME;
        for address in self.addresses.iter() {
            listener::wake(*address, &self.shared, end);
        }
    }
}

impl Display for BindError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            BindError::Configuration(why) => f.write_str(why),
            BindError::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            BindError::Spool(path, error) => {
                write!(f, "cannot keep mail in {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for BindError {}
