//! Whom a server bears with, whom not, and what its log tells of them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use ehlo::config::{self, Request};
use ehlo::server::{BindError, Config, Server};

use common::child::{ChildServer, EHLO};
use common::{Client, TestServer};

/// Harvesting: what 20,000 guesses got in half a second.
#[test]
fn twenty_thousand_guesses_get_a_handful_of_answers_at_once_and_few_in_all() {
    let server = TestServer::with_needs(&["mailboxes bob".to_owned()]);
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<postmaster>"]);
    let start = Instant::now();
    // The server hangs up long before the end of this, so writing may fail.
    let mut guesses = client.tcp().try_clone().unwrap();
    let guessing = thread::spawn(move || {
        (0..20_000).all(|number| write!(guesses, "RCPT TO:<guess{number}@localhost>\r\n").is_ok())
    });
    for _ in 0..5 {
        assert!(client.reply().starts_with("550 5.1.1"));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Each further one takes a second.
    assert!(client.reply().starts_with("550 5.1.1"));
    assert!(client.reply().starts_with("550 5.1.1"));
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    client.tcp().shutdown(Shutdown::Both).unwrap();
    guessing.join().unwrap();
}

/// A list of 500 addresses, 30 in a hundred of them dead, in letters for 50 each.
#[test]
fn a_mailing_list_with_dead_addresses_gets_through_in_one_session() {
    let is_dead = |number: usize| [2, 5, 8].contains(&(number % 10));
    let living: Vec<String> =
        (0..500).filter(|number| !is_dead(*number)).map(|number| format!("n{number}")).collect();
    let server = TestServer::with_needs(&[format!("mailboxes {}", living.join(" "))]);
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c"]);
    let start = Instant::now();
    for batch in 0..10 {
        client.all_granted(&["MAIL FROM:<list@b.example>"]);
        for number in batch * 50..(batch + 1) * 50 {
            let reply = client.ask(&format!("RCPT TO:<n{number}@localhost>"));
            assert_eq!(&reply[..3], if is_dead(number) { "550" } else { "250" }, "{number}");
        }
        client.all_granted(&["DATA"]);
        assert_eq!(&client.message("x\r\n")[..3], "250");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn the_log_tells_who_was_refused_with_what_and_who_sent_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "ann:{PLAIN}secret\n").unwrap();
    let flags = ["--users", users.to_str().unwrap(), "--allow-plain-auth"];
    let server = ChildServer::start(&[EHLO], &folder.path().join("spool"), &flags).unwrap();
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c"]);
    client.ask("MAIL FROM:<\u{1b}[2J@b.example>");
    let line = server.wait_for_log("refused MAIL");
    assert!(line.contains("127.0.0.1"), "{line}");
    assert!(line.contains("MAIL FROM:<\\x1b[2J@b.example>: 501 5.1.7 "), "{line}");
    client.all_granted(&["AUTH PLAIN AGFubgBzZWNyZXQ=", "MAIL FROM:<ann@localhost>"]);
    client.ask("RCPT TO:<zoe@localhost>");
    let line = server.wait_for_log("refused RCPT");
    assert!(line.contains("RCPT TO:<zoe@localhost>: 550 5.1.1 no such mailbox here"), "{line}");
    client.all_granted(&["RCPT TO:<ann@localhost>", "DATA"]);
    assert_eq!(&client.message("x\r\n")[..3], "250");
    let line = server.wait_for_log(": stored ");
    assert!(line.contains("from <ann@localhost>, user ann"), "{line}");
    assert_eq!(server.stop(), Some(0));
}

/// Files from other editors: a mark of the byte order and CR LF do not matter, and
/// what is no UTF-8 is named with its line.
#[test]
fn files_of_other_editors_are_read_or_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, octets: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, octets).unwrap();
        Some(path)
    };
    let bind = |users: &[u8], aliases: &[u8]| {
        Server::bind(Config {
            smtp: vec!["127.0.0.1:0".parse().unwrap()],
            spool: folder.path().join("spool"),
            users: file("users", users),
            aliases: file("aliases", aliases),
            ..Config::default()
        })
    };
    let users = b"\xef\xbb\xbfann:{PLAIN}secret\r\n";
    assert!(bind(users, b"\xef\xbb\xbfinfo:\tann,\tann\r\n").is_ok());
    for (users, aliases, expected) in [
        (&b"ann:{PLAIN}gr\xfcn\n"[..], &b""[..], "users:1: expected UTF-8"),
        (users, b"info: ann\n# b\xfcro\n", "aliases:2: expected UTF-8"),
        (users, b"info: ann\nann: info\n", "aliases:2: the alias ann leads back to itself"),
    ] {
        match bind(users, aliases) {
            Err(BindError::Configuration(why)) => assert!(why.contains(expected), "{why}"),
            other => panic!("{expected}: {:?}", other.err()),
        }
    }
}

#[test]
fn names_of_domains_and_hosts_on_the_command_line_are_what_addresses_have() {
    let Ok(Request::Serve(config)) = config::from_args(&[
        "--smarthost",
        "mail_relay:25",
        "--hostname",
        "post.b\u{fc}cher.example",
        "--domain",
        "B\u{dc}CHER.example",
        "--domain",
        "bu\u{308}cher.example",
    ]) else {
        panic!("refused");
    };
    assert_eq!(config.smarthost, Some(("mail_relay".to_owned(), 25)));
    assert_eq!(config.hostname, "post.xn--bcher-kva.example");
    assert_eq!(config.domains, ["xn--bcher-kva.example"; 2]);
    for domain in [&"x".repeat(64), &"\u{6f22}\u{5b57}".repeat(60), "a\u{ff20}b"] {
        assert!(config::from_args(&["--domain", domain]).is_err(), "{domain}");
    }
}
