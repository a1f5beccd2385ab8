//! Chapter 7: Maildir.

use std::fs;
use std::path::PathBuf;

use crate::common::mta::until;
use crate::common::{Client, TestServer, files};

/// One letter with this many octets of text, and the reply to its dot.
fn send(server: &TestServer, to: &[&str], octets: usize) -> String {
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example", "MAIL FROM:<a@c.example>"]);
    for to in to {
        client.all_granted(&[&format!("RCPT TO:<{to}@localhost>")]);
    }
    client.all_granted(&["DATA"]);
    client.message(format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(octets)))
}

/// How many letters a mailbox has in `new/`.
fn count(server: &TestServer, mailbox: &str) -> usize {
    server.new_files(mailbox).len()
}

/// `--quota BYTES`: what the files in `new/` and `cur/` of one mailbox may have together. A letter that
/// does not fit, for nobody else, is refused with 452 4.2.2, and nothing stays. If others get it,
/// they get it at once, and it waits in the queue for the full mailbox: when its owner has made
/// room, it arrives. Without the flag there is no limit.
#[test]
#[ignore = "exercise 7.1"]
fn exercise_7_1_a_full_mailbox_is_nobody_elses_trouble() {
    let server = TestServer::start(&["--quota", "3000", "--retry", "0.05"]);
    assert!(send(&server, &["bob"], 2000).starts_with("250"));
    let reply = send(&server, &["bob"], 2000);
    assert!(reply.starts_with("452 4.2.2 "), "the second letter does not fit: {reply}");
    assert!(count(&server, "bob") == 1 && server.drafts().is_empty());
    assert!(files(&server.spool().join("queue")).is_empty(), "what was refused waits nowhere");
    assert!(send(&server, &["bob"], 100).starts_with("250"), "a small one fits");
    // What was read counts as well.
    let mailbox = server.spool().join("mail/localhost/bob");
    for file in server.new_files("bob") {
        let name = format!("{}:2,S", file.file_name().unwrap().to_str().unwrap());
        fs::rename(&file, mailbox.join("cur").join(name)).unwrap();
    }
    assert!(send(&server, &["bob"], 2000).starts_with("452 4.2.2 "), "what was read counts, too");
    // Ann has room.
    let reply = send(&server, &["bob", "ann"], 2000);
    assert!(reply.starts_with("250"), "one of two has room: {reply}");
    // The queue has to ask the mailbox, too.
    let was_tried = |file: &PathBuf| {
        file.extension().is_some_and(|extension| extension == "envelope")
            && fs::read_to_string(file).is_ok_and(|text| !text.contains("\nATTEMPTS 0\n"))
    };
    until("the queue has tried it", || {
        let entries = files(&server.spool().join("queue"));
        count(&server, "bob") > 0 || entries.iter().any(was_tried)
    });
    assert_eq!(count(&server, "ann"), 1, "ann has it at once");
    assert_eq!(count(&server, "bob"), 0, "bob is full, and the queue does not fill him further");
    fs::remove_file(files(&mailbox.join("cur")).remove(0)).unwrap();
    until("bob has made room", || count(&server, "bob") == 1);
    until("the queue is empty", || files(&server.spool().join("queue")).is_empty());
    assert_eq!(count(&server, "ann"), 1);

    let server = TestServer::start(&[]);
    for _ in 0..2 {
        assert!(send(&server, &["bob"], 2000).starts_with("250"), "without the flag");
    }
}
