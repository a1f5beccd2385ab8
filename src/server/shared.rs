//! What all threads of a server see.
//!
//! In: what was made at the start, and what is read from files again and again. Out:
//! who is connected, what was counted, what the files say now, and whether the server
//! is stopping.
//!
//! Book: docs/08-threads.md.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::config::{Config, SenderChecks};
use crate::dns::{PATIENCE, Resolver};
use crate::relay::courier::Smarthost;
use crate::relay::worker::Schedule;
use crate::server::allowance::Allowance;
use crate::server::clients::Clients;
use crate::server::failures::Failures;
use crate::server::files::Files;
use crate::smtp::site::Site;
use crate::store::spool::Spool;
use crate::trust::dkim::sign::Signer;
use crate::wire::events::Teller;
use crate::wire::tls::Acceptor;

/// What all threads of a server see.
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
    /// What each user may still send to others.
    pub allowance: Allowance,
    /// How long a command, a write, or 64 KiB of a message may take.
    pub timeout: Duration,
    /// What is done about letters of strangers.
    pub sender_checks: SenderChecks,
    /// Who is asked about them.
    pub resolver: Resolver,
    /// Print every dialogue to standard error.
    pub trace: bool,
    /// Who else hears of every dialogue with a client, if anybody does.
    pub teller: OnceLock<Teller>,
    files: Mutex<Files>,
    is_stopping: AtomicBool,
}

impl Shared {
    /// Of a server that is about to start.
    pub fn new(
        spool: Arc<Spool>,
        schedule: Arc<Schedule>,
        files: Files,
        config: &Config,
    ) -> Shared {
        Shared {
            spool,
            schedule,
            clients: Arc::new(Clients::new(
                config.max_connections,
                config.max_per_client,
                &config.proxies,
            )),
            failures: Failures::default(),
            allowance: Allowance::new(config.max_per_hour),
            timeout: config.timeout,
            sender_checks: config.sender_checks,
            resolver: resolver(config),
            trace: config.trace,
            teller: OnceLock::new(),
            files: Mutex::new(files),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Whether the server is going down.
    pub fn is_stopping(&self) -> bool {
        // SeqCst here and everywhere: nothing in this program is fast enough to
        // be slowed by the strictest order, and no other needs less thought.
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// The server goes down from here on. Whether it did so already.
    pub fn stop(&self) -> bool {
        self.is_stopping.swap(true, Ordering::SeqCst)
    }

    /// Names, mailboxes, users and limits, as they are now.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.files().site)
    }

    /// What a TLS handshake needs, if there is a certificate.
    pub fn acceptor(&self) -> Option<Acceptor> {
        self.files().acceptor.clone()
    }

    /// The server that takes all our mail for others, if there is one.
    pub fn smarthost(&self) -> Option<Arc<Smarthost>> {
        self.files().smarthost.clone()
    }

    /// Who signs the letters of our users, if anybody does.
    pub fn signer(&self) -> Option<Arc<Signer>> {
        self.files().signer.clone()
    }

    /// What was made up when the process began: see [`Files::process_secret`].
    pub fn process_secret(&self) -> [u8; 32] {
        self.files().process_secret
    }

    /// For handshakes, letters and attempts from now on, and for the rest of it for sessions
    /// that begin from now on.
    pub fn set_files(&self, files: Files) {
        *self.files() = files;
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Nothing panics while it holds this lock.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the DNS servers of the flags, or those of the system.
pub fn resolver(config: &Config) -> Resolver {
    let servers =
        if config.dns.is_empty() { Resolver::system_servers() } else { config.dns.clone() };
    Resolver::new(servers, PATIENCE)
}
