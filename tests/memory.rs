//! Whatever a client sends without an end, the server does not grow.
//!
//! A server in a process of its own is fed, and the system tells the most memory
//! it ever had. A few megabytes show whether it grows with what it is fed. With
//! `EHLO_FULL=1` it is 100 MB each, and a message of 1 GB:
//!
//! ```text
//! EHLO_FULL=1 cargo test --release --test memory -- --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use common::child::{ChildServer, EHLO};
use common::{Client, test_file};

const MB: usize = 1_000_000;
/// What a server may grow, in KiB, when it gets what it does not keep: room for
/// buffers that come and go, far below what it was fed.
const GROWTH: u64 = 1024;

fn is_full() -> bool {
    std::env::var_os("EHLO_FULL").is_some()
}

/// The usual size, or the one for `EHLO_FULL`.
fn size(usual: usize, full: usize) -> usize {
    if is_full() { full } else { usual }
}

/// Starts a server, gives it one ordinary letter, and then whatever `feed`
/// sends; prints and checks how much it grew by the latter.
fn grows_little(what: &str, flags: &[&str], feed: impl FnOnce(&ChildServer)) {
    let spool = tempfile::tempdir().unwrap();
    let server = ChildServer::start(&[EHLO], spool.path(), flags).unwrap();
    let mut client = Client::in_data(server.address, "bob@localhost");
    assert_eq!(&client.message("Subject: x\r\n\r\nhello\r\n")[..3], "250");
    let Some(before) = server.peak_memory() else {
        println!("skipped: there is no /proc that tells the memory of a process");
        return;
    };
    feed(&server);
    // It still serves.
    assert_eq!(&Client::connect(server.address).ask("NOOP")[..3], "250");
    let after = server.peak_memory().unwrap();
    println!("{what}: {before} KiB before, at most {after} KiB, {} more", after - before);
    assert!(after - before < GROWTH, "{what}: {before} KiB before, {after} KiB after");
}

/// Sends `part` again and again, `octets` in all.
fn send(client: &Client, part: &[u8], octets: usize) {
    for _ in 0..octets / part.len() {
        client.tcp().write_all(part).unwrap();
    }
}

#[test]
fn a_command_line_without_an_end_is_skipped_and_the_session_goes_on() {
    let octets = size(8 * MB, 100 * MB);
    grows_little("a command line without an end", &[], |server| {
        let mut client = Client::connect(server.address);
        send(&client, &[b'x'; 50_000], octets);
        assert_eq!(&client.ask("")[..9], "500 5.5.2");
        assert_eq!(&client.ask("NOOP")[..3], "250");
    });
}

#[test]
fn an_auth_line_without_an_end_is_skipped_and_the_session_goes_on() {
    let octets = size(8 * MB, 100 * MB);
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "bob:{PLAIN}secret\n").unwrap();
    let flags = ["--users", users.to_str().unwrap(), "--allow-plain-auth"];
    grows_little("an AUTH line without an end", &flags, |server| {
        let mut client = Client::connect(server.address);
        assert_eq!(&client.ask("EHLO client.example")[..3], "250");
        // As a command, and then as a response within an exchange.
        for (begin, reply) in [("AUTH PLAIN x", None), ("AUTH LOGIN\r\n", Some("334"))] {
            client.tcp().write_all(begin.as_bytes()).unwrap();
            if let Some(reply) = reply {
                assert_eq!(&client.reply()[..3], reply);
            }
            send(&client, &[b'A'; 50_000], octets);
            assert_eq!(&client.ask("")[..9], "500 5.5.6");
        }
        assert_eq!(&client.ask("NOOP")[..3], "250");
    });
}

#[test]
fn a_line_of_a_message_without_an_end_goes_to_disk_and_not_to_memory() {
    let octets = size(8 * MB, 100 * MB);
    let limit = (2 * octets).to_string();
    grows_little("a line of a message without an end", &["--max-size", &limit], |server| {
        let mut client = Client::in_data(server.address, "bob@localhost");
        send(&client, &[b'x'; 50_000], octets);
        assert_eq!(&client.message("\r\n")[..9], "250 2.6.0");
    });
}

#[test]
fn a_header_field_without_an_end_goes_to_disk_and_not_to_memory() {
    let octets = size(8 * MB, 100 * MB);
    let limit = (2 * octets).to_string();
    grows_little("a folded header field without an end", &["--max-size", &limit], |server| {
        let mut client = Client::in_data(server.address, "bob@localhost");
        client.send("Return-Path: x\r\n");
        send(&client, " and on it goes\r\n".repeat(3000).as_bytes(), octets);
        assert_eq!(&client.message("")[..9], "250 2.6.0");
    });
}

#[test]
fn lines_of_bare_dots_are_read_to_their_end() {
    let octets = size(8 * MB, 100 * MB);
    let limit = (2 * octets).to_string();
    grows_little("lines of two dots", &["--max-size", &limit], |server| {
        let mut client = Client::in_data(server.address, "bob@localhost");
        send(&client, "..\r\n".repeat(10_000).as_bytes(), octets);
        assert_eq!(&client.message("")[..9], "250 2.6.0");
    });
}

#[test]
fn dots_that_end_no_message_are_500_until_the_session_is_closed() {
    let octets = size(8 * MB, 100 * MB);
    grows_little("lines of one dot, as commands", &[], |server| {
        let mut client = Client::connect(server.address);
        // The server says 421 long before the end, and then hangs up.
        for _ in 0..octets / 40_000 {
            if client.tcp().write_all(".\r\n".repeat(40_000 / 3).as_bytes()).is_err() {
                break;
            }
        }
        assert_eq!(&client.reply()[..9], "500 5.5.2");
    });
}

#[test]
fn a_message_far_over_the_limit_is_read_to_its_end_and_refused() {
    let octets = size(16 * MB, 1000 * MB);
    grows_little("a message over the limit", &["--max-size", "1000000"], |server| {
        let mut client = Client::in_data(server.address, "bob@localhost");
        let lines = format!("{}\r\n", "x".repeat(998)).repeat(100);
        send(&client, lines.as_bytes(), octets);
        assert_eq!(&client.message("")[..9], "552 5.3.4");
        assert_eq!(&client.ask("NOOP")[..3], "250");
    });
}

#[test]
fn a_large_chunk_many_chunks_and_one_that_is_refused_go_by_in_little_memory() {
    let octets = size(8 * MB, 100 * MB);
    let limit = (3 * octets).to_string();
    grows_little("chunks", &["--max-size", &limit], |server| {
        let mut client = Client::connect(server.address);
        client.send(format!("BDAT {octets}\r\n"));
        send(&client, &[b'x'; 50_000], octets);
        assert_eq!(&client.reply()[..9], "503 5.5.1");
        client.all_granted(&["EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>"]);
        client.send(format!("BDAT {octets}\r\n"));
        send(&client, &[b'x'; 50_000], octets);
        assert_eq!(&client.reply()[..9], "250 2.0.0");
        for _ in 0..octets / 50_000 {
            client.send("BDAT 50000\r\n");
            send(&client, &[b'x'; 50_000], 50_000);
            assert_eq!(&client.reply()[..9], "250 2.0.0");
        }
        assert_eq!(&client.ask("BDAT 0 LAST")[..9], "250 2.6.0");
    });
}

/// What each of `count` clients costs a server while it says nothing, in KiB, after it
/// has come as far as `connect` takes it.
fn cost_of_idle<C>(flags: &[&str], count: u64, connect: impl Fn(SocketAddr) -> C) -> Option<u64> {
    let spool = tempfile::tempdir().unwrap();
    let flags = [flags, &["--max-per-client", "0", "--max-connections", "2000"]].concat();
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).unwrap();
    drop(connect(server.address));
    let before = server.peak_memory()?;
    let clients: Vec<C> = (0..count).map(|_| connect(server.address)).collect();
    let after = server.peak_memory().unwrap();
    drop(clients);
    Some((after - before) / count)
}

#[test]
fn an_idle_client_costs_little_and_not_much_more_under_tls() {
    let count = size(100, 1000) as u64;
    let plain = cost_of_idle(&[], count, |address| {
        let mut client = Client::connect(address);
        client.all_granted(&["EHLO c.example"]);
        client
    });
    let (cert, key) = (test_file("cert.pem"), test_file("key.pem"));
    let flags = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let tls = cost_of_idle(&flags, count, Client::encrypted);
    let (Some(plain), Some(tls)) = (plain, tls) else {
        return println!("skipped: there is no /proc that tells the memory of a process");
    };
    println!("an idle client: {plain} KiB, under TLS {tls} KiB");
    // A debug build needs more stack.
    let (most, most_under_tls) = if cfg!(debug_assertions) { (48, 104) } else { (24, 80) };
    assert!(plain <= most, "{plain} KiB for each client");
    assert!(tls <= most_under_tls, "{tls} KiB for each client under TLS");
}

#[test]
fn replies_that_nobody_reads_are_not_collected() {
    let octets = size(8 * MB, 100 * MB);
    grows_little("commands whose replies nobody reads", &["--timeout", "0.5"], |server| {
        let client = Client::connect(server.address);
        client.tcp().set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let helps = "HELP\r\n".repeat(1000);
        let mut sent = 0;
        // The server stops reading, and cuts the client off at its deadline.
        while sent < octets && client.tcp().write_all(helps.as_bytes()).is_ok() {
            sent += helps.len();
        }
        assert!(sent < octets, "nobody stopped us");
    });
}
