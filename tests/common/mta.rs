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
        let mut client = Client::connect(self.address);
        let ehlo = client.ask("EHLO client.example");
        assert!(ehlo.starts_with("250"), "{ehlo}");
        // All in one write: some of these servers have little patience.
        let to_lines: String = to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
        let smtputf8 = if to_lines.is_ascii() { "" } else { " SMTPUTF8" };
        client.send(format!("MAIL FROM:<{from}>{smtputf8}\r\n{to_lines}DATA\r\n"));
        for _ in 0..=to.len() {
            let reply = client.reply();
            assert!(reply.starts_with("250"), "{reply}");
        }
        assert_eq!(&client.reply()[..3], "354");
        let reply = client.message(text);
        reply.strip_prefix("250 2.6.0 stored as ").unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// What is in a mailbox, in order of arrival.
    pub fn mail(&self, domain: &str, mailbox: &str) -> Vec<Vec<u8>> {
        let new = self.spool.join("mail").join(domain).join(mailbox).join("new");
        files(&new).iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// The names of the files in the queue.
    pub fn queue(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        files(&self.spool.join("queue")).iter().map(name).collect()
    }

    /// An envelope, while it is there.
    pub fn envelope(&self, id: &str) -> Option<String> {
        fs::read_to_string(self.spool.join("queue").join(format!("{id}.envelope"))).ok()
    }

    /// How often a letter was tried, as the envelope says it.
    pub fn attempts(&self, id: &str) -> Option<u32> {
        let envelope = self.envelope(id)?;
        let line = envelope.lines().find_map(|line| line.strip_prefix("ATTEMPTS "));
        Some(line.unwrap().parse().unwrap())
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

/// Waits until something is so, and not for ever.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "never so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
