//! Caps, crowds, and the way out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ehlo::server::{BindError, Config, Server};

use common::child::{ChildServer, EHLO};
use common::{Client, TestServer, files};

/// Tries until a client is let in: a place is given back when its session has
/// ended on the server's side, which no client can see.
fn connect_when_there_is_room(server: &TestServer) -> Client {
    let start = Instant::now();
    loop {
        let mut client = Client::silent(server.address);
        if client.reply().starts_with("220") {
            return client;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no room came back");
        thread::yield_now();
    }
}

#[test]
fn a_client_over_the_cap_is_told_421_and_those_inside_notice_nothing() {
    let server = TestServer::start(&["--max-connections", "2"]);
    let mut inside = [Client::connect(server.address), Client::connect(server.address)];
    let mut outside = Client::silent(server.address);
    assert_eq!(&outside.reply()[..9], "421 4.3.2");
    assert_eq!(outside.reply(), "");
    for client in &mut inside {
        assert_eq!(&client.ask("NOOP")[..3], "250");
    }
    assert_eq!(&inside[0].ask("QUIT")[..3], "221");
    inside[0].tcp().shutdown(Shutdown::Both).unwrap();
    connect_when_there_is_room(&server);
}

#[test]
fn one_address_has_a_cap_of_its_own_and_zero_takes_it_away() {
    let server = TestServer::start(&["--max-per-client", "1"]);
    let _inside = Client::connect(server.address);
    assert_eq!(&Client::silent(server.address).reply()[..9], "421 4.3.2");

    let server = TestServer::start(&["--max-per-client", "0"]);
    let clients: Vec<_> = (0..150).map(|_| Client::connect(server.address)).collect();
    assert_eq!(clients.len(), 150);
}

#[test]
fn a_hundred_sessions_at_once_lose_and_mix_nothing() {
    let server = TestServer::start(&[]);
    let address = server.address;
    let clients: Vec<_> = (0..100)
        .map(|number| {
            thread::spawn(move || {
                let mut client = Client::in_data(address, &format!("n{number}@localhost"));
                let text = format!("{number}\r\n").repeat(1000);
                assert_eq!(&client.message(text)[..3], "250");
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    for number in 0..100 {
        let text = format!("{number}\n").repeat(1000);
        assert_eq!(server.only_message(&format!("n{number}")), text.as_bytes());
    }
}

#[test]
fn a_shutdown_finishes_the_message_in_hand_and_tells_all_others() {
    let mut server = TestServer::start(&["--max-per-client", "0"]);
    let mut idle: Vec<_> = (0..100).map(|_| Client::connect(server.address)).collect();
    let mut sending = Client::in_data(server.address, "bob@localhost");
    sending.send("begun ");
    while server.drafts().is_empty() {
        thread::yield_now();
    }
    server.handle.shutdown();
    for client in &mut idle {
        assert_eq!(&client.reply()[..9], "421 4.3.2");
        assert_eq!(client.reply(), "");
        client.tcp().shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(&sending.message("and finished\r\n")[..3], "250");
    assert_eq!(&sending.reply()[..9], "421 4.3.2");
    assert_eq!(sending.reply(), "");
    drop(sending);
    server.stop();
    assert_eq!(server.only_message("bob"), b"begun and finished\n");
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_shutdown_does_not_cut_off_a_client_that_is_being_refused() {
    let server = TestServer::start(&[]);
    let mut refused = Client::in_data(server.address, "bob@localhost");
    refused.send("bare\n");
    assert_eq!(&refused.reply()[..3], "554");
    assert_eq!(refused.reply(), "");
    let mut idle = Client::connect(server.address);
    server.handle.shutdown();
    assert_eq!(&idle.reply()[..9], "421 4.3.2");
    assert_eq!(idle.reply(), "");
    for _ in 0..100 {
        refused.send("the rest of the message\r\n");
    }
}

#[test]
fn a_client_that_leaves_its_message_during_a_shutdown_is_not_taken_for_the_shutdown() {
    let spool = tempfile::tempdir().unwrap();
    let server = ChildServer::start(&[EHLO], spool.path(), &[]).unwrap();
    let mut idle = Client::connect(server.address);
    let mut sending = Client::in_data(server.address, "bob@localhost");
    sending.send("begun ");
    while files(&spool.path().join("tmp")).is_empty() {
        thread::yield_now();
    }
    server.signal("-TERM");
    assert_eq!(&idle.reply()[..9], "421 4.3.2");
    idle.tcp().shutdown(Shutdown::Both).unwrap();
    let line = server.wait_for_log("client 1 (127.0.0.1:");
    assert!(line.ends_with("the server is shutting down"), "{line}");
    sending.tcp().shutdown(Shutdown::Both).unwrap();
    let line = server.wait_for_log("client 2 (127.0.0.1:");
    assert!(line.ends_with("the client closed the connection"), "{line}");
}

#[test]
fn a_server_stops_on_every_kind_of_address() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
        let spool = tempfile::tempdir().unwrap();
        let server = match Server::bind(Config {
            smtp: vec![address.parse().unwrap()],
            spool: spool.path().to_owned(),
            ..Config::default()
        }) {
            Ok(server) => server,
            Err(BindError::Listen(_, error)) if address.starts_with('[') => {
                println!("skipped: no IPv6 here ({error})");
                continue;
            }
            Err(error) => panic!("{address}: {error}"),
        };
        let handle = server.handle();
        let running = thread::spawn(move || server.run());
        handle.shutdown();
        handle.shutdown();
        running.join().unwrap();
    }
}
