//! Servers that relay: each with an address of its own, all at the same port,
//! because there is one `--relay-port`. Needs a system where all of 127.0.0.0/8
//! is this machine, as Linux has it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ehlo::config::{self, Request};
use ehlo::server::{Handle, Server};

use super::{Client, files};

/// Addresses for one test, which no other test has.
pub struct Net {
    test: u8,
    pub port: u16,
}

impl Net {
    pub fn new() -> Net {
        static TESTS: AtomicU8 = AtomicU8::new(0);
        let test = TESTS.fetch_add(1, Ordering::SeqCst);
        // Whoever had the port from the system at one address will not have it at
        // the others of the test.
        let port = TcpListener::bind((ip(test, 0), 0)).unwrap().local_addr().unwrap().port();
        Net { test, port }
    }

    /// The address number `host` of this test.
    pub fn address(&self, host: u8) -> SocketAddr {
        SocketAddr::from((ip(self.test, host), self.port))
    }

    /// A zone: lines in which `{1}` is the address number 1.
    pub fn zone(&self, lines: &[&str]) -> Vec<String> {
        let fill = |line: &&str| {
            (1..9).fold((*line).to_owned(), |line, host| {
                line.replace(&format!("{{{host}}}"), &ip(self.test, host).to_string())
            })
        };
        lines.iter().map(fill).collect()
    }
}

/// Tests of two processes are kept apart by the process id.
fn ip(test: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 1 + (process::id() % 250) as u8, test, 1 + host)
}

/// A whole server, ended when dropped.
pub struct Mta {
    pub address: SocketAddr,
    pub handle: Handle,
    pub spool: PathBuf,
    running: Option<JoinHandle<()>>,
}

impl Mta {
    /// With these flags, on this spool. It stays when the server ends.
    pub fn start(spool: &Path, flags: &str) -> Mta {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let config = match config::from_args(&flags) {
            Ok(Request::Serve(config)) => *config,
            other => panic!("{flags:?}: {other:?}"),
        };
        // Nobody wants to wait for five minutes here.
        let (spool_path, relay_timeout) = (spool.to_owned(), config.timeout);
        let config = ehlo::server::Config { spool: spool_path, relay_timeout, ..config };
        let server = Server::bind(config).unwrap();
        let (address, handle) = (server.addresses()[0].1, server.handle());
        let running = Some(thread::spawn(move || server.run()));
        Mta { address, handle, spool: spool.to_owned(), running }
    }

    /// Sends a letter and gives its id.
    pub fn submit(&self, from: &str, to: &[&str], text: &str) -> String {
        submit(self.address, from, to, text)
    }

    /// The same with parameters: `from` and `to` are what stands after `MAIL FROM:` and
    /// `RCPT TO:`.
    pub fn submit_with(&self, from: &str, to: &[&str], text: &str) -> String {
        submit_with(self.address, from, to, text)
    }

    /// What is in a mailbox, in order of arrival.
    pub fn mail(&self, domain: &str, mailbox: &str) -> Vec<Vec<u8>> {
        mail(&self.spool, domain, mailbox)
    }

    /// The names of the files in the queue.
    pub fn queue(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        files(&self.spool.join("queue")).iter().map(name).collect()
    }

    /// The envelopes of a message, one after the other, while there are any. `id` may be
    /// that of one entry, too.
    pub fn envelope(&self, id: &str) -> Option<String> {
        let text = self.envelopes(|entry| {
            entry == id || entry.split_once('-').is_some_and(|(message, _)| message == id)
        });
        (!text.is_empty()).then(|| text.concat())
    }

    /// How often each entry in the queue was tried.
    pub fn all_attempts(&self) -> Vec<u32> {
        self.envelopes(|_| true).iter().map(|envelope| attempts(envelope)).collect()
    }

    /// The envelopes of these entries.
    fn envelopes(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let queue = self.spool.join("queue");
        let names = self
            .queue()
            .into_iter()
            .filter(|name| name.strip_suffix(".envelope").is_some_and(&is_wanted));
        // One that goes while we look is no more.
        names.filter_map(|name| fs::read_to_string(queue.join(name)).ok()).collect()
    }

    /// How often a letter was tried, as the first of its envelopes says it.
    pub fn attempts(&self, id: &str) -> Option<u32> {
        self.envelope(id).map(|envelope| attempts(&envelope))
    }

    /// Begins the shutdown and waits for its end.
    pub fn stop(&mut self) {
        self.handle.shutdown();
        if let Some(running) = self.running.take() {
            running.join().unwrap();
        }
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

fn attempts(envelope: &str) -> u32 {
    let line = envelope.lines().find_map(|line| line.strip_prefix("ATTEMPTS "));
    line.unwrap().parse().unwrap()
}

/// Sends a letter to the server at an address, and gives its id.
pub fn submit(address: SocketAddr, from: &str, to: &[&str], text: &str) -> String {
    let smtputf8 = if to.iter().all(|to| to.is_ascii()) { "" } else { " SMTPUTF8" };
    let to: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    submit_with(address, &format!("<{from}>{smtputf8}"), &to, text)
}

/// The same with parameters.
pub fn submit_with(address: SocketAddr, from: &str, to: &[&str], text: &str) -> String {
    let mut client = Client::connect(address);
    let ehlo = client.ask("EHLO client.example");
    assert!(ehlo.starts_with("250"), "{ehlo}");
    // All in one write: some of these servers have little patience.
    let to_lines: String = to.iter().map(|to| format!("RCPT TO:{to}\r\n")).collect();
    client.send(format!("MAIL FROM:{from}\r\n{to_lines}DATA\r\n"));
    for _ in 0..=to.len() {
        let reply = client.reply();
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert_eq!(&client.reply()[..3], "354");
    let reply = client.message(text);
    reply.strip_prefix("250 2.6.0 stored as ").unwrap_or_else(|| panic!("{reply}")).to_owned()
}

/// What is in a mailbox of a spool, in order of arrival.
pub fn mail(spool: &Path, domain: &str, mailbox: &str) -> Vec<Vec<u8>> {
    let new = spool.join("mail").join(domain).join(mailbox).join("new");
    files(&new).iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Waits until something is so, and not for ever.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "never so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
