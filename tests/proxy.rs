//! A balancer in front that speaks the PROXY protocol: here the balancer is the test.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;

use common::child::{ChildServer, EHLO};
use common::{Client, TestServer, connector};

const PROXY: [&str; 2] = ["--proxy", "127.0.0.1"];

/// Version 1.
fn text(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let server = if client.contains(':') { "2001:db8::7" } else { "192.0.2.7" };
    format!("PROXY {family} {client} {server} 40000 25\r\n").into_bytes()
}

/// Version 2, for 192.0.2.`last`.
fn binary(last: u8) -> Vec<u8> {
    let addresses = [192, 0, 2, last, 192, 0, 2, 7, 0x9c, 0x40, 0, 25];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &addresses[..]].concat()
}

/// The balancer itself, in version 2.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Connects with this header and reads the greeting.
fn through(address: SocketAddr, header: &[u8]) -> Client {
    let mut client = Client::silent(address);
    client.send(header);
    assert_eq!(&client.reply()[..4], "220 ");
    client
}

/// Whether the connection ends without a word.
fn is_closed(client: &mut Client) -> bool {
    let mut said = Vec::new();
    match client.stream().read_to_end(&mut said) {
        Ok(count) => count == 0,
        // With octets of ours on the way a close is a reset.
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

fn send_letter<S: Read + Write>(client: &mut Client<S>, to: &str) {
    let rcpt = format!("RCPT TO:<{to}@localhost>");
    client.all_granted(&["EHLO c.example", "MAIL FROM:<a@b.example>", &rcpt, "DATA"]);
    assert_eq!(&client.message("hello\r\n")[..3], "250");
}

/// The address that the only letter of this mailbox came from.
fn received_from(server: &TestServer, mailbox: &str) -> String {
    let files = server.new_files(mailbox);
    assert_eq!(files.len(), 1, "{files:?}");
    let letter = fs::read_to_string(&files[0]).unwrap();
    let (_, rest) = letter.split_once("Received: from c.example ([").unwrap();
    rest.split_once(']').unwrap().0.to_owned()
}

#[test]
fn received_has_the_address_that_either_version_names() {
    let server = TestServer::start(&PROXY);
    for (mailbox, header, address) in [
        ("one", text("192.0.2.1"), "192.0.2.1"),
        ("two", binary(2), "192.0.2.2"),
        ("six", text("2001:db8::6"), "IPv6:2001:db8::6"),
        // An IPv4 client, however the balancer writes it.
        ("mapped", text("::ffff:192.0.2.3"), "192.0.2.3"),
        ("local", LOCAL.to_vec(), "127.0.0.1"),
        ("unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        send_letter(&mut through(server.address, &header), mailbox);
        assert_eq!(received_from(&server, mailbox), address, "{mailbox}");
    }
}

#[test]
fn a_header_may_come_octet_by_octet_and_with_what_the_client_says_first() {
    let server = TestServer::start(&PROXY);
    for (mailbox, header) in [("text", text("192.0.2.1")), ("binary", binary(1))] {
        let mut client = Client::silent(server.address);
        for octet in &header {
            client.send([*octet]);
        }
        assert_eq!(&client.reply()[..4], "220 ");
        send_letter(&mut client, mailbox);
        assert_eq!(received_from(&server, mailbox), "192.0.2.1");

        let mut client = through(server.address, &[&header, &b"NOOP\r\nQUIT\r\n"[..]].concat());
        assert_eq!((&client.reply()[..3], &client.reply()[..3]), ("250", "221"));
    }
}

/// A connection on which the first octets go out together with the header.
#[derive(Debug)]
struct Behind {
    header: Vec<u8>,
    tcp: TcpStream,
}

impl Write for Behind {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.tcp.write_all(&[&self.header, octets].concat())?;
        self.header.clear();
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

impl Read for Behind {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(buffer)
    }
}

#[test]
fn the_header_comes_before_tls_on_both_kinds_of_ports() {
    let needs = ["tls", "role submissions", "--proxy 127.0.0.1", "users ann:{PLAIN}secret"];
    let server = TestServer::with_needs(&needs.map(str::to_owned));
    for header in [text("192.0.2.1"), binary(1)] {
        let tcp = TcpStream::connect(server.address).unwrap();
        let tls = connector().connect("localhost", Behind { header, tcp }).unwrap();
        let mut client = Client::over(tls);
        assert_eq!(&client.reply()[..4], "220 ");
    }
    let server = TestServer::with_needs(&["tls", "--proxy 127.0.0.1"].map(str::to_owned));
    let mut client = through(server.address, &binary(1));
    client.all_granted(&["EHLO c.example", "STARTTLS"]);
    send_letter(&mut client.handshake(), "bob");
    assert_eq!(received_from(&server, "bob"), "192.0.2.1");
}

#[test]
fn who_is_no_balancer_gains_nothing_by_a_header() {
    let server = TestServer::start(&["--proxy", "127.0.0.9", "--proxy", "::1"]);
    let mut client = through(server.address, &text("192.0.2.1"));
    assert_eq!(&client.reply()[..9], "500 5.5.2");
    send_letter(&mut client, "bob");
    assert_eq!(received_from(&server, "bob"), "127.0.0.1");
    let mut client = through(server.address, &binary(1));
    for _ in 0..3 {
        assert_eq!(&client.reply()[..9], "500 5.5.2");
    }
}

#[test]
fn without_a_header_in_time_a_balancers_connection_is_closed_and_logged() {
    let spool = tempfile::tempdir().unwrap();
    let flags = [&PROXY[..], &["--timeout", "0.3"]].concat();
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).unwrap();
    for (said, why) in [
        (&b""[..], "there was no PROXY header in time"),
        (b"PROXY TCP4 192.0.2.1", "there was no PROXY header in time"),
        (b"EHLO c.example\r\n", "what came first is no PROXY header"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "what came first is no PROXY header"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 x\r\n", "what came first is no PROXY header"),
    ] {
        let mut client = Client::silent(server.address);
        client.send(said);
        assert!(is_closed(&mut client), "{said:?}");
        let line = server.wait_for_log("from a balancer: ");
        assert!(line.ends_with(why), "{line}");
    }
    let client = Client::silent(server.address);
    client.tcp().shutdown(std::net::Shutdown::Write).unwrap();
    through(server.address, &binary(9)).ask("QUIT");
    // Only that a balancer has looked at us is no news.
    let line = server.wait_for_log("client ");
    assert!(line.contains("(192.0.2.9:40000) is gone: QUIT"), "{line}");
}

#[test]
fn a_silent_connection_of_a_balancer_keeps_nobody_waiting() {
    let server = TestServer::start(&PROXY);
    let mut silent = Client::silent(server.address);
    let mut other = through(server.address, &binary(1));
    assert_eq!(&other.ask("NOOP")[..3], "250");
    // It was open all the time.
    silent.send(binary(2));
    assert_eq!(&silent.reply()[..4], "220 ");
}

#[test]
fn one_client_is_capped_by_its_own_address_and_all_by_their_number() {
    let server = TestServer::start(&[&PROXY[..], &["--max-per-client", "1"]].concat());
    let _one = through(server.address, &binary(1));
    let mut again = Client::silent(server.address);
    again.send(text("192.0.2.1"));
    assert_eq!(&again.reply()[..9], "421 4.3.2");
    assert!(is_closed(&mut again));
    let _two = through(server.address, &binary(2));
    let _six = through(server.address, &text("2001:db8::1"));
    let mut neighbour = Client::silent(server.address);
    neighbour.send(text("2001:db8::2"));
    assert_eq!(&neighbour.reply()[..9], "421 4.3.2");

    // Who has not said for whom it comes has a place already.
    let server = TestServer::start(&[&PROXY[..], &["--max-connections", "1"]].concat());
    let mut silent = Client::silent(server.address);
    assert_eq!(&Client::silent(server.address).reply()[..9], "421 4.3.2");
    silent.send(binary(1));
    assert_eq!(&silent.reply()[..4], "220 ");
}

#[test]
fn failed_logins_are_counted_for_the_client_and_not_for_the_balancer() {
    let needs = ["--allow-plain-auth --proxy 127.0.0.1", "users ann:{PLAIN}secret"];
    let server = TestServer::with_needs(&needs.map(str::to_owned));
    let address = server.address;
    let log_in = move |last: u8, password: &str| {
        let mut client = through(address, &binary(last));
        client.all_granted(&["EHLO c.example"]);
        client.ask(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0ann\0{password}"))))
    };
    // All at once, since each is answered after a second.
    let guess = |number| thread::spawn(move || log_in(1, &format!("guess {number}")));
    let guesses: Vec<_> = (0..10).map(guess).collect();
    for guess in guesses {
        assert_eq!(&guess.join().unwrap()[..3], "535");
    }
    assert_eq!(&log_in(1, "secret")[..3], "454");
    assert_eq!(&log_in(2, "secret")[..3], "235");
}

#[test]
fn an_address_literal_is_ours_if_the_client_called_the_balancer_there() {
    let server = TestServer::start(&PROXY);
    let mut client = through(server.address, &binary(1));
    client.all_granted(&["EHLO c.example", "MAIL FROM:<>", "RCPT TO:<bob@[192.0.2.7]>"]);
    assert_eq!(&client.ask("RCPT TO:<bob@[127.0.0.1]>")[..3], "550");
}

#[test]
fn a_shutdown_in_the_middle_of_a_header_is_no_fault_of_the_balancer() {
    let spool = tempfile::tempdir().unwrap();
    let server = ChildServer::start(&[EHLO], spool.path(), &PROXY).unwrap();
    let mut half = Client::silent(server.address);
    half.send("PROXY ");
    // Now the first one has been accepted, too.
    let _other = through(server.address, &binary(1));
    let log = server.stop_and_read_log();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn a_shutdown_does_not_wait_for_a_header() {
    let mut server = TestServer::start(&PROXY);
    let mut silent = Client::silent(server.address);
    // Now the silent one has been accepted, too.
    let mut other = through(server.address, &binary(1));
    let start = Instant::now();
    server.handle.shutdown();
    assert_eq!(&other.reply()[..9], "421 4.3.2");
    drop(other);
    assert!(is_closed(&mut silent));
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
