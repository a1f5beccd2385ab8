//! What is in the Maildirs after a dialogue, octet for octet.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use common::mta::until;
use common::{Client, TestServer, files};

/// Sends `wire` (without the final dot) to bob and gives what was stored.
fn stored(wire: &[u8]) -> Vec<u8> {
    let server = TestServer::start(&[]);
    let reply = Client::in_data(server.address, "bob@localhost").message(wire);
    assert_eq!(&reply[..9], "250 2.6.0", "{reply}");
    assert!(server.drafts().is_empty());
    server.only_message("bob")
}

#[test]
fn an_empty_message_is_a_message() {
    assert_eq!(stored(b""), b"");
}

#[test]
fn a_message_without_a_header_stays_without_one() {
    assert_eq!(stored(b"hello\r\n"), b"hello\n");
    assert_eq!(stored(b"\r\nhello\r\n"), b"\nhello\n");
}

#[test]
fn eight_bits_nul_long_lines_and_lone_dots_come_back_octet_for_octet() {
    let mut body: Vec<u8> = (0..=255).filter(|octet| !b"\r\n".contains(octet)).collect();
    body.extend_from_slice(b"\n.\n..\n.x\n\n");
    body.extend_from_slice("\u{fc}".repeat(2500).as_bytes());
    body.extend_from_slice(b"\n");
    let message = [b"Subject: x\n\n".as_slice(), &body].concat();

    let mut wire = Vec::new();
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line.strip_suffix(b"\n").unwrap());
        wire.extend_from_slice(b"\r\n");
    }
    assert_eq!(stored(&wire), message);
}

#[test]
fn a_message_is_the_same_when_every_octet_comes_alone() {
    let server = TestServer::start(&[]);
    let mut client = Client::silent(server.address);
    let all = "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<bob@localhost>\r\nDATA\r\n..a\r\n\r\n.b\r\n.\r\nQUIT\r\n";
    for octet in all.as_bytes() {
        client.send([*octet]);
    }
    let codes: Vec<String> = (0..7).map(|_| client.reply()[..3].to_owned()).collect();
    assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "221"]);
    assert_eq!(server.only_message("bob"), b".a\n\nb\n");
}

#[test]
fn the_trace_fields_come_first_and_older_return_paths_go() {
    let server = TestServer::start(&[]);
    let mut client = Client::in_data(server.address, "bob@localhost");
    let reply =
        client.message("Received: before\r\nReturn-Path: <x@y.example>\r\nSubject: z\r\n\r\n");
    let id = reply.strip_prefix("250 2.6.0 stored as ").unwrap();

    let file = server.new_files("bob").remove(0);
    assert!(file.file_name().unwrap().to_str().unwrap().contains(id), "{file:?}");
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "Return-Path: <a@b.example>");
    assert_eq!(lines[1], "Received: from c.example ([127.0.0.1])");
    assert_eq!(lines[2], format!("\tby localhost with ESMTP id {id}"));
    assert_eq!(lines[3], "\tfor <bob@localhost>;");
    assert!(lines[4].starts_with('\t') && lines[4].ends_with(" +0000"), "{}", lines[4]);
    assert_eq!(lines[5..], ["Received: before", "Subject: z", ""]);
}

#[test]
fn several_recipients_share_one_file_and_none_is_named_in_it() {
    let server = TestServer::start(&[]);
    let mut client = Client::connect(server.address);
    client.ask("EHLO c.example");
    client.ask("MAIL FROM:<a@b.example>");
    for to in ["ann", "Ann", "ann+x", "\"ann\"", "bob", "cem"] {
        assert_eq!(&client.ask(&format!("RCPT TO:<{to}@localhost>"))[..3], "250", "{to}");
    }
    assert_eq!(&client.ask("DATA")[..3], "354");
    assert_eq!(&client.message("x\r\n")[..3], "250");

    let of = |name| server.new_files(name).remove(0);
    let inode = |name| fs::metadata(of(name)).unwrap().ino();
    assert_eq!(inode("ann"), inode("bob"));
    assert_eq!(inode("ann"), inode("cem"));
    // Three mailboxes, one name in each: the four spellings of ann were one.
    assert_eq!(fs::metadata(of("ann")).unwrap().nlink(), 3);
    assert!(!fs::read_to_string(of("ann")).unwrap().contains("for <"));
}

#[test]
fn a_thousand_recipients_all_get_the_message_and_one_more_is_told_to_wait() {
    let server = TestServer::start(&[]);
    let mut client = Client::connect(server.address);
    let mut batch = "EHLO c\r\nMAIL FROM:<>\r\n".to_owned();
    for number in 0..=1000 {
        batch += &format!("RCPT TO:<n{number}@localhost>\r\n");
    }
    client.send(batch);
    let replies: Vec<String> = (0..1003).map(|_| client.reply()).collect();
    assert!(replies[..1002].iter().all(|reply| reply.starts_with("250")));
    assert_eq!(&replies[1002][..9], "452 4.5.3");
    assert_eq!(&client.ask("DATA")[..3], "354");
    assert_eq!(&client.message("x\r\n")[..3], "250");
    let mailboxes = files(&server.spool().join("mail/localhost"));
    assert_eq!(mailboxes.len(), 1000);
    assert!(mailboxes.iter().all(|mailbox| files(&mailbox.join("new")).len() == 1));
}

#[test]
fn hostile_names_stay_below_the_mail_root() {
    let server = TestServer::start(&[]);
    let names = ["\"../../x\"", "\"a/b\"", "\".hidden\"", "new", "\"%2e\"", &"x".repeat(64)];
    for name in names {
        let to = format!("{name}@localhost");
        assert_eq!(&Client::in_data(server.address, &to).message("x\r\n")[..3], "250", "{name}");
    }
    // mail/, queue/ and tmp/, and nothing else.
    assert_eq!(files(server.spool()).len(), 3);
    let mailboxes = files(&server.spool().join("mail/localhost"));
    assert_eq!(mailboxes.len(), names.len(), "{mailboxes:?}");
    assert!(mailboxes.iter().all(|mailbox| files(&mailbox.join("new")).len() == 1));
}

#[test]
fn a_mailbox_on_another_file_system_gets_a_copy() {
    let server = TestServer::start(&[]);
    let shm = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev()).ok();
    if device(shm).is_none() || device(shm) == device(server.spool()) {
        println!("skipped: /dev/shm is no second file system here");
        return;
    }
    let elsewhere = tempfile::tempdir_in(shm).unwrap();
    let domain = server.spool().join("mail/localhost");
    fs::create_dir(&domain).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), domain.join("bob")).unwrap();

    assert_eq!(&Client::in_data(server.address, "bob@localhost").message("x\r\n")[..3], "250");
    assert_eq!(server.only_message("bob"), b"x\n");
    assert!(files(&elsewhere.path().join("tmp")).is_empty());
    assert!(server.drafts().is_empty());
}

#[test]
fn a_fault_of_the_disk_is_451_and_over_when_the_fault_is() {
    let server = TestServer::start(&[]);
    // A file where a folder should be: the same for root, who may do anything else.
    let wrong = server.spool().join("mail/localhost");
    fs::write(&wrong, "").unwrap();
    let mut client = Client::in_data(server.address, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "451 4.3.0");
    assert!(server.drafts().is_empty());

    fs::remove_file(&wrong).unwrap();
    for line in ["MAIL FROM:<>", "RCPT TO:<bob@localhost>", "DATA"] {
        client.ask(line);
    }
    assert_eq!(&client.message("x\r\n")[..3], "250");
    assert_eq!(server.new_files("bob").len(), 1);
}

#[test]
fn a_message_that_is_refused_or_broken_off_leaves_no_file() {
    let server = TestServer::start(&["--max-size", "1000"]);
    let big = format!("{}\r\n", "x".repeat(1000));
    let mut client = Client::in_data(server.address, "bob@localhost");
    assert_eq!(&client.message(&big)[..9], "552 5.3.4");
    client.ask("QUIT");

    let mut client = Client::in_data(server.address, "bob@localhost");
    client.send("half a mess");
    until("the draft is there", || server.drafts().len() == 1);
    client.tcp().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.reply(), "");

    let mut client = Client::in_data(server.address, "bob@localhost");
    client.send("a\r\n.\n");
    assert_eq!(&client.reply()[..9], "554 5.6.0");
    assert_eq!(client.reply(), "");

    assert!(server.drafts().is_empty());
    assert!(server.new_files("bob").is_empty());
}

#[test]
fn the_room_of_a_message_that_is_too_big_is_given_back_before_its_end() {
    let server = TestServer::start(&["--max-size", "100000"]);
    let mut client = Client::in_data(server.address, "bob@localhost");
    let line = format!("{}\r\n", "x".repeat(998));
    client.send(line.repeat(90));
    client.send(line.repeat(20));
    // Gone while the end is still to come; the server may have more to read first.
    let start = Instant::now();
    while !server.drafts().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "the draft is kept");
        thread::yield_now();
    }
    assert_eq!(&client.message(line.repeat(400))[..9], "552 5.3.4");
    assert!(server.drafts().is_empty());
    assert_eq!(&client.ask("NOOP")[..3], "250");
}
