//! Recipients elsewhere that one user may have in an hour: what a single dialogue
//! cannot show.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::net::SocketAddr;

use common::child::{ChildServer, EHLO};
use common::{Client, TestServer};

/// `NUL name NUL secret`, as AUTH PLAIN carries it.
const ANN: &str = "AUTH PLAIN AGFubgBzZWNyZXQ=";
const BOB: &str = "AUTH PLAIN AGJvYgBzZWNyZXQ=";

/// A user in a transaction of its own.
fn sending(address: SocketAddr, auth: &str) -> Client {
    let mut client = Client::connect(address);
    client.all_granted(&["EHLO c.example", auth, "MAIL FROM:<>"]);
    client
}

#[test]
fn all_sessions_of_a_user_count_together_and_another_user_is_free() {
    let needs =
        ["--allow-plain-auth --max-per-hour 2", "users ann:{PLAIN}secret bob:{PLAIN}secret"];
    let server = TestServer::with_needs(&needs.map(str::to_owned));
    let mut one = sending(server.address, ANN);
    let mut two = sending(server.address, ANN);
    assert_eq!(&one.ask("RCPT TO:<a@else.example>")[..3], "250");
    assert_eq!(&two.ask("RCPT TO:<b@else.example>")[..3], "250");
    assert_eq!(&one.ask("RCPT TO:<c@else.example>")[..9], "450 4.7.1");
    assert_eq!(&two.ask("RCPT TO:<c@else.example>")[..9], "450 4.7.1");
    let mut other = sending(server.address, BOB);
    assert_eq!(&other.ask("RCPT TO:<c@else.example>")[..3], "250");
}

#[test]
fn the_log_names_every_recipient_that_was_too_much_and_warns_once() {
    let spool = tempfile::tempdir().unwrap();
    let users = spool.path().join("users");
    fs::write(&users, "ann:{PLAIN}secret\n").unwrap();
    let flags = ["--allow-plain-auth", "--max-per-hour", "1", "--users", users.to_str().unwrap()];
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).unwrap();
    let mut ann = sending(server.address, ANN);
    assert_eq!(&ann.ask("RCPT TO:<a@else.example>")[..3], "250");
    for number in 0..50 {
        assert_eq!(&ann.ask(&format!("RCPT TO:<b{number}@else.example>"))[..9], "450 4.7.1");
    }
    let log = server.stop_and_read_log();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("user ann wants more recipients elsewhere than --max-per-hour"), 1, "{log}");
    assert_eq!(count("@else.example>: 450 4.7.1"), 50, "{log}");
}
