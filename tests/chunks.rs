//! Messages in chunks (BDAT, RFC 3030) over real sockets: what no script can say.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, TestServer, without_trace_fields};

const ENVELOPE: [&str; 3] =
    ["EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>"];

/// A client with an envelope for bob.
fn with_envelope(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.all_granted(&ENVELOPE);
    client
}

/// A client after a first chunk of some size.
fn between_chunks(address: SocketAddr) -> Client {
    let mut client = with_envelope(address);
    client.send("BDAT 4\r\nhi\r\n");
    assert_eq!(client.reply(), "250 2.0.0 4 octets received");
    client
}

/// What stands in the newest letter to bob.
fn newest(server: &TestServer) -> Vec<u8> {
    without_trace_fields(&fs::read(server.new_files("bob").last().unwrap()).unwrap())
}

/// A message as DATA wants it.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    if !matches!(message.last(), None | Some(b'\n')) {
        octets.extend_from_slice(b"\r\n");
    }
    octets
}

/// BDAT for each part of `message` that ends at one of `cuts`, all in one go.
fn in_chunks(message: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut start = 0;
    for &end in cuts {
        octets.extend(format!("BDAT {}\r\n", end - start).bytes());
        octets.extend(&message[start..end]);
        start = end;
    }
    octets.extend(format!("BDAT {} LAST\r\n", message.len() - start).bytes());
    octets.extend(&message[start..]);
    octets
}

#[test]
fn a_message_in_any_chunks_is_the_file_that_it_is_after_data() {
    fn holds(octets: Vec<u8>, cuts: Vec<u8>) -> bool {
        let parts: [&[u8]; 8] =
            [b"\r\n", b".", b"a", b"\r\n.\r\n", b"X: y\r\n", b"\x00\xff", b"\r\n..", b" "];
        let message: Vec<u8> =
            octets.iter().flat_map(|&octet| parts[usize::from(octet % 8)].to_vec()).collect();
        let mut cuts: Vec<usize> =
            cuts.iter().take(20).map(|&cut| usize::from(cut).min(message.len())).collect();
        cuts.sort_unstable();
        let server = TestServer::start(&[]);
        let mut client = Client::in_data(server.address, "bob@localhost");
        assert_eq!(&client.message(stuffed(&message))[..9], "250 2.6.0");
        let after_data = newest(&server);
        client.all_granted(&ENVELOPE[1..]);
        client.send(in_chunks(&message, &cuts));
        for _ in &cuts {
            assert_eq!(&client.reply()[..9], "250 2.0.0");
        }
        assert_eq!(&client.reply()[..9], "250 2.6.0");
        newest(&server) == after_data
    }
    quickcheck::QuickCheck::new().tests(60).quickcheck(holds as fn(Vec<u8>, Vec<u8>) -> bool);
}

#[test]
fn chunks_are_the_same_when_every_octet_comes_alone() {
    let server = TestServer::start(&[]);
    let message = b"Subject: x\r\n\r\n.\r\nQUIT\r\nBDAT 1 LAST\r\n";
    let all: Vec<usize> = (0..=message.len()).collect();
    for cuts in [&[][..], &[3, 11, 11], &all] {
        let mut client = with_envelope(server.address);
        for octet in [&in_chunks(message, cuts)[..], b"QUIT\r\n"].concat() {
            client.send([octet]);
        }
        for _ in cuts {
            assert_eq!(&client.reply()[..9], "250 2.0.0");
        }
        assert_eq!(&client.reply()[..9], "250 2.6.0");
        assert_eq!(&client.reply()[..3], "221");
        assert_eq!(newest(&server), b"Subject: x\n\n.\nQUIT\nBDAT 1 LAST\n");
    }
}

#[test]
fn whatever_ends_a_message_between_its_chunks_leaves_no_file() {
    let server = TestServer::start(&[]);
    for line in ["RSET", "EHLO c.example", "QUIT", "GET / HTTP/1.1", "BDAT x"] {
        let mut client = between_chunks(server.address);
        assert_eq!(server.drafts().len(), 1);
        client.ask(line);
        assert!(server.drafts().is_empty(), "{line}");
    }
    // Nor does a client that leaves, between two chunks or inside one.
    for last in ["", "BDAT 5\r\nhi\r\n"] {
        let mut client = between_chunks(server.address);
        client.send(last);
        client.tcp().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.reply(), "");
        assert!(server.drafts().is_empty(), "{last:?}");
    }
    assert!(server.new_files("bob").is_empty());
}

#[test]
fn silence_between_chunks_and_dripping_inside_one_end_at_the_time_out() {
    let server = TestServer::start(&["--timeout", "1"]);
    let mut client = between_chunks(server.address);
    let start = Instant::now();
    assert_eq!(&client.reply()[..9], "421 4.4.2");
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert!(server.drafts().is_empty());

    // A chunk that is refused has the same deadline as one that is wanted.
    for before in [&ENVELOPE[..], &ENVELOPE[..1]] {
        let mut client = Client::connect(server.address);
        client.all_granted(before);
        client.send("BDAT 1000\r\n");
        let mut tcp = client.tcp().try_clone().unwrap();
        let dripping = thread::spawn(move || {
            while tcp.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let start = Instant::now();
        assert_eq!(&client.reply()[..9], "421 4.4.2");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
        client.tcp().shutdown(Shutdown::Both).unwrap();
        dripping.join().unwrap();
        assert!(server.drafts().is_empty());
    }
}

/// The time-out is for a chunk of 64 KiB and not for a message.
#[test]
fn a_message_in_chunks_may_take_longer_than_the_time_out_in_all() {
    let server = TestServer::start(&["--timeout", "1"]);
    let mut client = between_chunks(server.address);
    client.send(format!("BDAT {}\r\n", 6 * 70_000));
    for _ in 0..6 {
        client.send([b'x'; 70_000]);
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(&client.reply()[..3], "250");
    client.send("BDAT 0 LAST\r\n");
    assert_eq!(&client.reply()[..9], "250 2.6.0");
}

/// A part of it is here, and the client would have to send all of it again.
#[test]
fn a_shutdown_waits_for_a_message_between_its_chunks() {
    let mut server = TestServer::start(&[]);
    let mut client = between_chunks(server.address);
    let mut other = between_chunks(server.address);
    let mut idle = with_envelope(server.address);
    server.handle.shutdown();
    // When the idle one was told, the shutdown has seen the others too, and let them be.
    assert_eq!(&idle.reply()[..9], "421 4.3.2");
    idle.tcp().shutdown(Shutdown::Both).unwrap();
    client.send("BDAT 4\r\nyo\r\n");
    assert_eq!(client.reply(), "250 2.0.0 4 octets received");
    client.send("BDAT 0 LAST\r\n");
    assert_eq!(&client.reply()[..9], "250 2.6.0");
    assert_eq!(&client.reply()[..9], "421 4.3.2");
    client.tcp().shutdown(Shutdown::Both).unwrap();
    // Without its message the other is one of those who wait.
    assert_eq!(&other.ask("RSET")[..3], "250");
    assert_eq!(&other.reply()[..9], "421 4.3.2");
    other.tcp().shutdown(Shutdown::Both).unwrap();
    assert_eq!(newest(&server), b"hi\nyo\n");
    server.stop();
}

#[test]
fn the_room_of_a_message_is_given_back_before_the_chunk_that_is_too_much() {
    let server = TestServer::start(&["--max-size", "100000"]);
    let mut client = with_envelope(server.address);
    client.send("BDAT 90000\r\n");
    client.send(vec![b'x'; 90_000]);
    assert_eq!(&client.reply()[..3], "250");
    assert_eq!(server.drafts().len(), 1);
    client.send("BDAT 20000\r\n");
    client.send(vec![b'x'; 10_000]);
    let start = Instant::now();
    while !server.drafts().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "the draft stays");
        thread::yield_now();
    }
    client.send(vec![b'x'; 10_000]);
    assert_eq!(&client.reply()[..9], "552 5.3.4");
    assert_eq!(&client.ask("NOOP")[..3], "250");
}

#[test]
fn a_fault_of_the_disk_is_told_with_the_first_chunk_and_the_chunk_is_read_whole() {
    let server = TestServer::start(&[]);
    let tmp = server.spool().join("tmp");
    fs::remove_dir(&tmp).unwrap();
    fs::write(&tmp, "").unwrap();
    let mut client = with_envelope(server.address);
    client.send("BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\nRSET\r\n");
    let replies = [0; 3].map(|_| client.reply());
    assert_eq!(&replies[0][..9], "451 4.3.0");
    assert_eq!(&replies[1][..9], "503 5.5.1", "the transaction is over");
    assert_eq!(&replies[2][..9], "250 2.0.0");
    fs::remove_file(&tmp).unwrap();
    fs::create_dir(&tmp).unwrap();
    client.all_granted(&ENVELOPE[1..]);
    client.send("BDAT 4 LAST\r\nhi\r\n");
    assert_eq!(&client.reply()[..9], "250 2.6.0");
}

#[test]
fn a_bare_newline_in_a_large_chunk_is_told_after_the_chunk() {
    let server = TestServer::start(&[]);
    let mut client = with_envelope(server.address);
    client.send("BDAT 20000000 LAST\r\n\n");
    client.send(vec![b'x'; 19_999_999]);
    assert_eq!(&client.reply()[..9], "554 5.6.0");
    assert!(server.drafts().is_empty() && server.new_files("bob").is_empty());
}

/// Whoever says that it sends 2 to the 63 octets sends some of them before it listens.
#[test]
fn the_552_for_an_endless_chunk_is_heard_after_20_megabytes() {
    let server = TestServer::start(&[]);
    let mut client = with_envelope(server.address);
    client.send("BDAT 9223372036854775808 LAST\r\n");
    client.send(vec![b'x'; 20_000_000]);
    assert_eq!(&client.reply()[..9], "552 5.3.4");
    assert_eq!(client.reply(), "");
}

#[test]
fn a_message_in_chunks_may_come_under_tls() {
    let flags = ["tls".to_owned()];
    let server = TestServer::with_needs(&flags);
    let mut client = Client::encrypted(server.address);
    client.all_granted(&ENVELOPE[1..]);
    let message = [&b"Subject: x\r\n\r\n"[..], &b"0123456789\r\n".repeat(50_000)].concat();
    client.send(in_chunks(&message, &[1000, 300_000]));
    let replies = [0; 3].map(|_| client.reply()[..9].to_owned());
    assert_eq!(replies, ["250 2.0.0", "250 2.0.0", "250 2.6.0"]);
    assert_eq!(newest(&server).len(), message.len() - 50_002);
}
