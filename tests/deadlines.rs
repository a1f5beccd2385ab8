//! Clients that are slow, silent or deaf, and what closes leave behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, TestServer};

/// Sends `octet` every tenth of a second until the server says something, and
/// gives what it says and how long that took.
fn drip(client: &mut Client, octet: &[u8]) -> (String, Duration) {
    let start = Instant::now();
    let mut tcp = client.tcp().try_clone().unwrap();
    let octet = octet.to_owned();
    let dripping = thread::spawn(move || {
        while tcp.write_all(&octet).is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let reply = client.reply();
    let took = start.elapsed();
    client.tcp().shutdown(std::net::Shutdown::Both).unwrap();
    dripping.join().unwrap();
    (reply, took)
}

#[test]
fn an_octet_every_tenth_of_the_time_out_is_cut_off_at_the_time_out_in_a_command() {
    let server = TestServer::start(&["--timeout", "1"]);
    let (reply, took) = drip(&mut Client::connect(server.address), b"x");
    assert_eq!(&reply[..9], "421 4.4.2");
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn an_octet_every_tenth_of_the_time_out_is_cut_off_at_the_time_out_in_a_message() {
    let server = TestServer::start(&["--timeout", "1"]);
    // At its beginning, and when so much has come that the time was renewed.
    for before in ["", &"x".repeat(70_000)] {
        let mut client = Client::in_data(server.address, "bob@localhost");
        client.send(before);
        let (reply, took) = drip(&mut client, b"x");
        assert_eq!(&reply[..9], "421 4.4.2");
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
        assert!(server.drafts().is_empty());
    }
}

#[test]
fn a_message_that_is_too_large_and_has_no_end_is_cut_off_however_fast_it_comes() {
    let server = TestServer::start(&["--timeout", "1", "--max-size", "100000"]);
    let line = format!("{}\r\n", "x".repeat(10_000)).into_bytes();
    let (reply, took) = drip(&mut Client::in_data(server.address, "bob@localhost"), &line);
    assert_eq!(&reply[..9], "421 4.4.2");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_message_that_is_too_large_is_told_so_however_slowly_it_comes() {
    let server = TestServer::start(&["--timeout", "1", "--max-size", "250000"]);
    let mut client = Client::in_data(server.address, "bob@localhost");
    let stretch = format!("{}\r\n", "x".repeat(70_000));
    for _ in 0..6 {
        client.send(&stretch);
        // Of what is beyond the limit alone it is longer than the time-out.
        thread::sleep(Duration::from_millis(600));
    }
    assert_eq!(&client.message("")[..3], "552");
}

#[test]
fn a_long_message_may_take_longer_than_the_time_out_in_all() {
    let server = TestServer::start(&["--timeout", "1"]);
    let mut client = Client::in_data(server.address, "bob@localhost");
    let stretch = format!("{}\r\n", "x".repeat(70_000));
    for _ in 0..6 {
        client.send(&stretch);
        // Longer than the time-out in sum, and never within 64 KiB.
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(&client.message("")[..3], "250");
}

#[test]
fn a_client_that_never_reads_its_replies_is_cut_off_and_none_is_sent_twice() {
    let server = TestServer::start(&["--timeout", "0.5", "--max-recipients", "1"]);
    let mut client = Client::connect(server.address);
    client.all_granted(&["HELO c", "MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>"]);
    client.tcp().set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let start = Instant::now();
    // Neither of these costs patience. Their order never repeats three times, so
    // replies that are sent twice do not fit in.
    let is_bob = |number: u32| number.count_ones().is_multiple_of(2);
    let mut number: u32 = 0;
    let error = loop {
        let name = if is_bob(number) { "bob" } else { "cem" };
        number += 1;
        if let Err(error) =
            client.tcp().write_all(format!("RCPT TO:<{name}@localhost>\r\n").as_bytes())
        {
            break error;
        }
    };
    let closed = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(closed.contains(&error.kind()), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));

    // What did arrive is one reply after the other; only the last may be torn.
    let mut replies = Vec::new();
    let _ = client.tcp().read_to_end(&mut replies);
    let replies = String::from_utf8(replies).unwrap();
    for (number, line) in (0..).zip(replies.split_inclusive("\r\n")) {
        let expected = if is_bob(number) { "250 2.1.5 " } else { "452 4.5.3 " };
        let is_torn = !line.ends_with('\n') && expected.starts_with(&line[..line.len().min(10)]);
        assert!(line.starts_with(expected) || is_torn, "{number}: {line}");
    }
}

#[test]
fn the_554_survives_a_megabyte_that_is_still_arriving() {
    let server = TestServer::start(&[]);
    let mut client = Client::in_data(server.address, "bob@localhost");
    client.send("smuggled\n");
    // Not all of it is read by the server, so writing may fail.
    let _ = client.tcp().write_all(&vec![b'x'; 1_000_000]);
    assert_eq!(&client.reply()[..9], "554 5.6.0");
    assert_eq!(client.reply(), "");
}

/// A message of 20 MB with a bare LF at its start: the client reads only when it has
/// sent all of it.
fn is_told_554_after_20_mb<S: Read + Write>(client: &mut Client<S>) {
    client.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"]);
    client.send("smuggled\n");
    let text = vec![b'x'; 1_000_000];
    for megabyte in 0..20 {
        client.stream().write_all(&text).unwrap_or_else(|error| panic!("{megabyte}: {error}"));
    }
    client.send("\r\n.\r\n");
    assert_eq!(&client.reply()[..9], "554 5.6.0");
    assert_eq!(client.reply(), "");
}

#[test]
fn the_554_for_a_long_message_is_heard_in_clear_and_under_tls() {
    let server = TestServer::with_needs(&["tls".to_owned()]);
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example"]);
    is_told_554_after_20_mb(&mut client);
    is_told_554_after_20_mb(&mut Client::encrypted(server.address));
    assert!(server.drafts().is_empty() && server.new_files("bob").is_empty());
}

#[test]
fn a_refused_message_is_read_no_further_than_the_largest_message() {
    let server = TestServer::start(&["--max-size", "100000"]);
    let mut client = Client::in_data(server.address, "bob@localhost");
    client.send("smuggled\n");
    let text = vec![b'x'; 1_000_000];
    let sent = (0..100).take_while(|_| client.tcp().write_all(&text).is_ok()).count();
    assert!(sent < 100, "the server read all of it");
}

#[test]
fn a_close_does_not_wait_long_for_a_client_that_stays() {
    // There is room for the next client once the server has let go of the first.
    let server = TestServer::start(&["--max-connections", "1"]);
    let mut client = Client::connect(server.address);
    let start = Instant::now();
    assert_eq!(&client.ask("QUIT")[..3], "221");
    assert_eq!(client.reply(), "");
    while !Client::silent(server.address).reply().starts_with("220") {
        assert!(start.elapsed() < Duration::from_secs(5), "still there");
        thread::sleep(Duration::from_millis(50));
    }
    let mut rest = [0];
    assert_eq!(client.tcp().read(&mut rest).unwrap(), 0);
}
