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
//! Read in this order: [`listener`], [`clients`], [`connection`], [`receive`];
//! then [`identity`], [`failures`] and [`relaying`].
//!
//! Book: docs/08-threads.md.

pub mod clients;
pub mod connection;
pub mod failures;
pub mod identity;
pub mod listener;
pub mod receive;
pub mod relaying;

use std::fmt::{self, Debug, Display, Formatter};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use native_tls::TlsAcceptor;

use crate::relay::courier::Courier;
use crate::relay::worker::{self, Schedule};
use crate::server::clients::Clients;
use crate::server::connection::random_octets;
use crate::server::failures::Failures;
use crate::server::listener::Listener;
use crate::smtp::auth::users::Users;
use crate::smtp::session::Role;
use crate::smtp::site::{self, Relay, Site};
use crate::store::aliases;
use crate::store::spool::Spool;
use crate::store::text_file::warn_if_readable_by_others;
use crate::store::users;

/// How long a shutdown may take: for threads to wake up, and for messages that are
/// being received.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Everything that can be chosen about a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen in the role of port 25; port 0 takes any free one.
    pub smtp: Vec<SocketAddr>,
    /// Where to listen in the role of port 587.
    pub submission: Vec<SocketAddr>,
    /// Where to listen in the role of port 465.
    pub submissions: Vec<SocketAddr>,
    /// How the server calls itself.
    pub hostname: String,
    /// The domains it takes mail for; the hostname, if there are none.
    pub domains: Vec<String>,
    /// The only mailboxes, where there are no `users`; `None` takes every name,
    /// and makes its mailbox at the first letter.
    pub mailboxes: Option<Vec<String>>,
    /// Who may log in, and has a mailbox: a file in Dovecot's passwd format.
    pub users: Option<PathBuf>,
    /// Other names for mailboxes.
    pub aliases: Option<PathBuf>,
    /// The certificate, with its chain, in PEM form …
    pub cert: Option<PathBuf>,
    /// … and its key.
    pub key: Option<PathBuf>,
    /// Take passwords in clear.
    pub allow_plain_auth: bool,
    /// Whose mail for other servers is taken.
    pub relay: Relay,
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
    /// The server that takes all mail for others, name and port; `None` to ask DNS
    /// for each domain.
    pub smarthost: Option<(String, u16)>,
    /// Who we are there: a file with `user:password`.
    pub smarthost_login: Option<PathBuf>,
    /// One more authority that may vouch for it, in PEM form.
    pub smarthost_ca: Option<PathBuf>,
    /// The DNS servers to ask, in turn; if empty, all of `/etc/resolv.conf`.
    pub dns: Vec<SocketAddr>,
    /// The port of next hops found by DNS.
    pub relay_port: u16,
    /// Send mail to servers on this machine, too, where DNS or an address says so.
    pub loopback_hops: bool,
    /// How long another server may take for most replies; the other deadlines are in
    /// proportion. RFC 5321 section 4.5.3.2 has five minutes, and who waits for less
    /// sends letters twice, so this is no flag.
    pub relay_timeout: Duration,
    /// How long after the first attempt the second one is.
    pub retry: Duration,
    /// How old a letter gets before a sender who asked for it hears of the delay.
    pub warn: Duration,
    /// How old a letter gets before its sender is told that it did not get there.
    pub give_up: Duration,
    /// Print every dialogue to standard error.
    pub trace: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            smtp: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 2525))],
            submission: Vec::new(),
            submissions: Vec::new(),
            users: None,
            aliases: None,
            cert: None,
            key: None,
            allow_plain_auth: false,
            relay: Relay::Authenticated,
            hostname: "localhost".to_owned(),
            domains: Vec::new(),
            mailboxes: None,
            spool: PathBuf::from("spool"),
            max_size: site::DEFAULT_MAX_SIZE,
            max_recipients: site::DEFAULT_MAX_RECIPIENTS,
            max_connections: 1000,
            max_per_client: 100,
            timeout: Duration::from_secs(300),
            smarthost: None,
            smarthost_login: None,
            smarthost_ca: None,
            dns: Vec::new(),
            relay_port: 25,
            loopback_hops: false,
            relay_timeout: Duration::from_secs(300),
            retry: Duration::from_secs(300),
            warn: Duration::from_secs(4 * 3600),
            give_up: Duration::from_secs(5 * 24 * 3600),
            trace: false,
        }
    }
}

/// A server whose ports are open. Clients can connect from here on; they are
/// served once [`Server::run`] is called.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Arc<Listener>>,
    courier: Arc<Courier>,
    /// Told when a handle stops the server.
    stopped: Receiver<()>,
    handle: Handle,
}

/// Ends a running server, or lets it read its files again, from another thread.
#[derive(Debug, Clone)]
pub struct Handle {
    stop: Sender<()>,
    config: Arc<Config>,
    shared: Arc<Shared>,
}

/// What all threads of a server see. What changes in it is who is connected,
/// what was counted, and, at a reload, what the files say.
#[derive(Debug)]
pub struct Shared {
    /// Where messages go.
    pub spool: Arc<Spool>,
    /// What goes on to other servers, and when.
    pub schedule: Arc<Schedule>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    /// Who failed to log in.
    pub failures: Failures,
    /// How long a command, a write, or 64 KiB of a message may take.
    pub timeout: Duration,
    /// Print every dialogue to standard error.
    pub trace: bool,
    files: Mutex<Files>,
    reloading: Mutex<()>,
    stopping: AtomicBool,
}

/// What was read from files.
#[derive(Clone)]
struct Files {
    site: Arc<Site>,
    acceptor: Option<TlsAcceptor>,
    /// The same for as long as the process lives: see [`Users::new`].
    process_secret: [u8; 32],
}

/// The key in the acceptor is nobody's business.
impl Debug for Files {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Files").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether the server is going down.
    pub fn is_stopping(&self) -> bool {
        // SeqCst here and everywhere: nothing in this program is fast enough to
        // be slowed by the strictest order, and no other needs less thought.
        self.stopping.load(Ordering::SeqCst)
    }

    /// Names, mailboxes, users and limits, as they are now.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.files().site)
    }

    /// What a TLS handshake needs, if there is a certificate.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.files().acceptor.clone()
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Nothing panics while it holds this lock.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        check(&config).map_err(BindError::Configuration)?;
        let files = read_files(&config, random_octets()).map_err(BindError::Configuration)?;
        let smarthost = relaying::smarthost(&config).map_err(BindError::Configuration)?;
        let mut listeners = Vec::new();
        for (role, wanted) in [
            (Role::Smtp, &config.smtp),
            (Role::Submission, &config.submission),
            (Role::Submissions, &config.submissions),
        ] {
            for &address in wanted {
                let opened = Listener::open(role, address);
                listeners.push(opened.map_err(|error| BindError::Listen(address, error))?);
            }
        }
        let spool = Spool::open(&config.spool, &config.hostname)
            .map_err(|error| BindError::Spool(config.spool.clone(), error))?;
        if config.allow_plain_auth && config.users.is_some() {
            log::warn!("passwords are taken in clear: everybody on the way can read them");
        }
        let shared = Shared {
            spool: Arc::new(spool),
            schedule: Arc::new(Schedule::new(smarthost.is_some(), config.retry)),
            clients: Arc::new(Clients::new(config.max_connections, config.max_per_client)),
            failures: Failures::default(),
            timeout: config.timeout,
            trace: config.trace,
            files: Mutex::new(files),
            reloading: Mutex::new(()),
            stopping: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let listening = listeners.iter().map(|listener| listener.address().1).collect();
        let courier = Arc::new(relaying::courier(&config, smarthost, listening, &shared));
        let (stop, stopped) = mpsc::channel();
        let handle = Handle { stop, config: Arc::new(config), shared };
        Ok(Server { listeners, courier, stopped, handle })
    }

    /// Where the server listens and in which role, with the real ports: first
    /// all of the role of port 25, then 587, then 465.
    pub fn addresses(&self) -> Vec<(Role, SocketAddr)> {
        self.listeners.iter().map(|listener| listener.address()).collect()
    }

    /// What ends this server from another thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves clients until [`Handle::shutdown`], one thread for each, and carries on
    /// what waits in the queue. Returns when the last client is gone and no letter is
    /// under way, or 10 seconds after the shutdown began.
    pub fn run(self) {
        let shared = &self.handle.shared;
        let end = thread::scope(|scope| {
            scope.spawn(|| worker::run(&shared.schedule, &self.courier));
            for listener in &self.listeners {
                listener.start(shared);
            }
            // It fails where no handle is left, and we have one ourselves.
            let _ = self.stopped.recv();
            let end = Instant::now() + DRAIN_TIME;
            for listener in &self.listeners {
                listener.stop(shared, end);
            }
            end
        });
        // New clients find the ports closed while the others are seen out.
        drop(self.listeners);
        let left = shared.clients.drain(end.saturating_duration_since(Instant::now()));
        if left > 0 {
            log::warn!("{left} clients were still busy and are cut off");
        }
        let left = shared.schedule.drain(end.saturating_duration_since(Instant::now()));
        if left > 0 {
            log::warn!("{left} letters were under way; they stay in the queue");
        }
    }
}

/// Whether the parts of a configuration make sense together.
fn check(config: &Config) -> Result<(), String> {
    let has_cert = config.cert.is_some();
    if has_cert != config.key.is_some() {
        return Err("--cert and --key need each other".to_owned());
    }
    if !config.submissions.is_empty() && !has_cert {
        return Err("--submissions needs --cert and --key: it is TLS from the first octet".into());
    }
    let is_submission = !config.submission.is_empty() || !config.submissions.is_empty();
    if is_submission && config.users.is_none() {
        return Err("submission needs --users: nobody could log in".to_owned());
    }
    if !config.submission.is_empty() && !has_cert && !config.allow_plain_auth {
        return Err("--submission needs --cert and --key, or --allow-plain-auth: \
                    nobody could log in"
            .to_owned());
    }
    let mut addresses =
        [&config.smtp, &config.submission, &config.submissions].into_iter().flatten();
    if config.relay == Relay::Everybody && !addresses.all(|address| address.ip().is_loopback()) {
        return Err("--relay open is for loopback addresses only".to_owned());
    }
    Ok(())
}

/// Reads users, aliases, certificate and key.
fn read_files(config: &Config, process_secret: [u8; 32]) -> Result<Files, String> {
    let read =
        |path: &PathBuf| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (home, more_domains) = match config.domains.split_first() {
        Some((home, more)) => (home, more),
        None => (&config.hostname, &[][..]),
    };
    let mut names = config.mailboxes.clone();
    let mut users = None;
    if let Some(path) = &config.users {
        warn_if_readable_by_others(path);
        let entries = users::parse(&read(path)?)
            .map_err(|error| format!("{}:{}: {}", path.display(), error.line, error.why))?;
        if entries.is_empty() {
            return Err(format!("{}: expected at least one user", path.display()));
        }
        names = Some(entries.iter().map(|(name, _)| name.clone()).collect());
        users = Some(Users::new(entries, process_secret));
    }
    let mut site = Site::new(&config.hostname, home, more_domains, names.as_deref());
    if let (Some(path), Some(names)) = (&config.users, &names) {
        let is_foreign = |name: &&String| {
            name.split_once('@').is_some_and(|(_, domain)| !site.has_domain(domain))
        };
        if let Some(name) = names.iter().find(is_foreign) {
            return Err(format!("{}: {name} is at none of our domains", path.display()));
        }
    }
    site.max_size = config.max_size;
    site.max_recipients = config.max_recipients;
    site.allow_plain_auth = config.allow_plain_auth;
    site.timeout = config.timeout;
    if let Some(users) = users {
        site.set_users(users);
    }
    site.relay = config.relay;
    if let Some(path) = &config.aliases {
        let entries = aliases::parse(&read(path)?)
            .map_err(|error| format!("{}:{}: {}", path.display(), error.line, error.why))?;
        site.set_aliases(entries)
            .map_err(|error| format!("{}:{}: {}", path.display(), error.line, error.why))?;
    }
    let acceptor = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => Some(identity::acceptor(cert, key)?),
        _ => None,
    };
    site.has_tls = acceptor.is_some();
    Ok(Files { site: Arc::new(site), acceptor, process_secret })
}

impl Handle {
    /// Reads users, aliases, certificate and key again, for sessions that begin
    /// from now on. If one of the files is wrong, everything stays as it was, and
    /// the error says what is wrong.
    pub fn reload(&self) -> Result<(), String> {
        // One at a time: the last to read is the last to store.
        let _alone = self.shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let process_secret = self.shared.files().process_secret;
        let files = read_files(&self.config, process_secret)?;
        *self.shared.files() = files;
        Ok(())
    }

    /// Tries everything in the queue now, whatever its time.
    pub fn try_all_now(&self) {
        self.shared.schedule.try_all_now();
    }

    /// Begins the shutdown: no more clients, a message in hand is finished, all
    /// others are told 421. Returns at once; [`Server::run`] returns when it is
    /// done. A second call changes nothing.
    pub fn shutdown(&self) {
        if self.shared.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.schedule.stop();
        // A server that is not running hears of it when it begins to.
        let _ = self.stop.send(());
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
