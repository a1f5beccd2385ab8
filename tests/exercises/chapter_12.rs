//! Chapter 12: who may relay.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, TestServer};

/// What a client is told at DATA, or after a chunk, when it has named its recipient.
fn first_word(server: &TestServer, from: &str, to: &str, last: &str) -> String {
    let mut client = Client::connect(server.address);
    let (mail, rcpt) = (format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"));
    client.all_granted(&["EHLO client.example", &mail, &rcpt]);
    let reply = client.ask(last);
    if reply.starts_with("354") {
        return client.message("hello\r\n");
    }
    // Whatever was said: the session goes on, and no letter is here.
    client.all_granted(&["NOOP", "QUIT"]);
    reply
}

/// `--greylist SECS`: a stranger who names a sender and a recipient for the first time is told
/// 451 4.7.1 at DATA, and after BDAT, until so many seconds have passed; then the letter is
/// taken, and from then on at once. It counts for this client's address, this sender and this
/// recipient together. Who has logged in does not wait. Without the flag nobody does.
#[test]
#[ignore = "exercise 12.1"]
fn exercise_12_1_a_stranger_is_asked_to_come_again() {
    let start = Instant::now();
    let server = TestServer::with_needs(&[
        "--greylist 1 --allow-plain-auth".to_owned(),
        "users ann:{PLAIN}secret bob:{PLAIN}x".to_owned(),
    ]);
    let from = "list@client.example";
    let reply = first_word(&server, from, "ann@localhost", "DATA");
    let was_in_time = start.elapsed() < Duration::from_secs(1);
    assert!(reply.starts_with("451 4.7.1 ") || !was_in_time, "the first time: {reply}");
    assert!(server.new_files("ann").is_empty() || !was_in_time);
    // The client comes again and again.
    let end = start + Duration::from_secs(20);
    while !first_word(&server, from, "ann@localhost", "DATA").starts_with("250") {
        assert!(Instant::now() < end, "it is never taken");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(start.elapsed() >= Duration::from_secs(1), "it was taken too early");
    assert_eq!(server.new_files("ann").len(), 1);
    let reply = first_word(&server, from, "ann@localhost", "DATA");
    assert!(reply.starts_with("250"), "whoever came again is known: {reply}");
    for (from, to, last) in [
        ("other@client.example", "ann@localhost", "DATA"),
        (from, "bob@localhost", "DATA"),
        ("", "bob@localhost", "BDAT 7 LAST\r\nhello"),
    ] {
        let reply = first_word(&server, from, to, last);
        assert!(reply.starts_with("451 4.7.1 "), "<{from}> to <{to}> is new: {reply}");
    }
    assert!(server.new_files("bob").is_empty());
    let mut user = Client::connect(server.address);
    user.all_granted(&["EHLO client.example", "AUTH PLAIN AGFubgBzZWNyZXQ="]);
    user.all_granted(&["MAIL FROM:<ann@localhost>", "RCPT TO:<bob@localhost>"]);
    assert!(user.ask("DATA").starts_with("354"), "a user does not wait");
    let reply = first_word(&TestServer::start(&[]), from, "ann@localhost", "DATA");
    assert!(reply.starts_with("250"), "without the flag: {reply}");
}
