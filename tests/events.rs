//! What a program hears of the server that is a part of it: its own tests can assert on a
//! dialogue, as these do.
//!
//! Book: docs/03-replies.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::Client;
use ehlo::config::{self, Request};
use ehlo::server::{Events, Handle, Server, What};
use tempfile::TempDir;

/// How long a test waits for an event that has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose dialogues are listened to.
struct Watched {
    address: SocketAddr,
    events: Events,
    handle: Handle,
    running: Option<JoinHandle<()>>,
    _spool: TempDir,
}

impl Watched {
    fn start(flags: &[&str]) -> Watched {
        let Ok(Request::Serve(mut config)) = config::from_args(flags) else { panic!("{flags:?}") };
        let spool = tempfile::tempdir().unwrap();
        config.smtp = vec!["127.0.0.1:0".parse().unwrap()];
        config.spool = spool.path().to_owned();
        let server = Server::bind(*config).unwrap();
        let events = server.events().unwrap();
        assert!(server.events().is_none(), "there is one stream");
        let (address, handle) = (server.addresses()[0].1, server.handle());
        let running = Some(thread::spawn(move || server.run()));
        Watched { address, events, handle, running, _spool: spool }
    }

    /// Everything up to the end of the session, one text each.
    fn until_closed(&self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let event = self.events.next(PATIENCE).unwrap();
            assert_eq!(event.session, 1);
            told.push(match event.what {
                What::Connected { client, role } => format!("{} {role:?}", client.ip()),
                What::Client(line) => format!("C: {line}"),
                What::Server(line) if line.starts_with("334") => format!("S: {line}"),
                What::Server(line) => format!("S: {}", &line[..3]),
                What::State(name) => format!("-> {name}"),
                What::Tls(_) => "TLS".to_owned(),
                What::Closed(why) => {
                    told.push(why);
                    return told;
                }
            });
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.handle.shutdown();
        let _ = self.running.take().map(JoinHandle::join);
    }
}

#[test]
fn a_program_hears_each_line_and_the_state_after_it() {
    let server = Watched::start(&[]);
    let mut client = Client::connect(server.address);
    client.all_granted(&["HELO c.example", "MAIL FROM:<ann@c.example>"]);
    client.all_granted(&["RCPT TO:<bob@localhost>", "DATA"]);
    client.message("Subject: hello\r\n\r\nhello\r\n");
    client.ask("QUIT");
    let wanted = "127.0.0.1 Smtp, S: 220, -> Connected, C: HELO c.example, S: 250, -> Ready, \
                  C: MAIL FROM:<ann@c.example>, S: 250, -> Mail, C: RCPT TO:<bob@localhost>, \
                  S: 250, -> Rcpt, C: DATA, S: 354, C: (25 octets of the message), S: 250, \
                  -> Ready, C: QUIT, S: 221, -> Closed, QUIT";
    assert_eq!(server.until_closed().join(", "), wanted);
    assert_eq!(server.events.dropped(), 0);
}

#[test]
fn a_secret_is_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "ann:{PLAIN}secret\n").unwrap();
    let server = Watched::start(&["--users", users.to_str().unwrap(), "--allow-plain-auth"]);
    let mut client = Client::connect(server.address);
    client.ask("EHLO c.example");
    let challenge = client.ask("AUTH CRAM-MD5");
    for line in ["*", "AUTH PLAIN AGFubgBzZWNyZXQ=", "NOOP secret", "secret", "QUIT"] {
        client.ask(line);
    }
    let told = server.until_closed().join("\n");
    // With the answer to it somebody could try passwords at leisure.
    let challenge = challenge.trim_end().strip_prefix("334 ").unwrap();
    let hidden = format!("C: AUTH CRAM-MD5\nS: 334 <{} octets>\n", challenge.len());
    assert!(told.contains(&hidden) && !told.contains(challenge), "{told}");
    assert!(told.contains("C: AUTH PLAIN <16 octets>\nS: 235\n-> Ready"), "{told}");
    assert!(!told.contains("secret") && !told.contains("AGFubgBz"), "{told}");
}

#[test]
fn a_program_that_does_not_read_holds_up_nobody() {
    let server = Watched::start(&["--max-per-client", "0"]);
    let text = "RSET\r\n".repeat(10);
    // Each line is three events, so this is more than any stream of ours takes.
    for _ in 0..400 {
        let mut client = Client::connect(server.address);
        client.send(format!("{text}QUIT\r\n"));
        while !client.reply().is_empty() {}
    }
    assert!(server.events.dropped() > 0);
    assert!(Client::in_data(server.address, "bob@localhost").message("x\r\n").starts_with("250"));
}
