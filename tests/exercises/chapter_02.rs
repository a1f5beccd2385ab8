//! Chapter 2: a plain loop.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::built;
use crate::common::{Client, files};

/// A copy of the plain loop on a free port, ended when dropped.
struct PlainLoop {
    address: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl PlainLoop {
    fn start(example: &str) -> PlainLoop {
        let folder = tempfile::tempdir().unwrap();
        let started = Command::new(built(example))
            .args(["127.0.0.1:0".as_ref(), folder.path().as_os_str()])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.unwrap_or_else(|error| {
            panic!("copy examples/plain_loop.rs to examples/{example}.rs and build it: {error}")
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.trim_end().strip_prefix("listening plain ").unwrap().parse().unwrap();
        PlainLoop { address, folder, child }
    }

    /// What it has stored, one after the other.
    fn stored(&self) -> Vec<Vec<u8>> {
        files(self.folder.path()).iter().map(|path| std::fs::read(path).unwrap()).collect()
    }
}

impl Drop for PlainLoop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `RSET` drops the transaction and keeps the name (RFC 5321 section 4.1.1.5): after it `RCPT` and
/// `DATA` are refused, `MAIL` is not, and nothing of the old envelope is in the next letter. `NOOP`
/// and `HELP` (214, or 211) are granted at any time, also before `EHLO`, and change nothing.
#[test]
#[ignore = "exercise 2.1"]
fn exercise_2_1_a_reset_leaves_the_name_and_nothing_else() {
    let server = PlainLoop::start("loop_2_1");
    let mut client = Client::connect(server.address);
    assert!(client.ask("NOOP").starts_with('2'), "NOOP is granted before EHLO");
    assert!(client.ask("HELP").starts_with("21"), "HELP is answered with 211 or 214");
    client.all_granted(&["EHLO client.example", "MAIL FROM:<old@client.example>"]);
    client.all_granted(&["RCPT TO:<old@localhost>", "NOOP", "RSET"]);
    assert!(client.ask("RCPT TO:<ann@localhost>").starts_with('5'), "RSET drops the sender");
    assert!(client.ask("DATA").starts_with('5'), "RSET drops the recipients");
    client.all_granted(&["MAIL FROM:<new@client.example>"]);
    assert!(client.ask("DATA").starts_with('5'), "a new transaction has no recipients yet");
    client.all_granted(&["RCPT TO:<ann@localhost>", "DATA"]);
    assert!(client.message("hello\r\n").starts_with("250"));
    let stored = String::from_utf8(server.stored().concat()).unwrap();
    assert!(stored.contains("new@client.example") && !stored.contains("old@"), "{stored}");
    assert!(stored.ends_with("hello\n"), "{stored}");
}

/// A letter is octets. One with an octet that is no UTF-8, such as 0xfc (ü in Latin-1), is stored
/// as it came, and the session goes on.
#[test]
#[ignore = "exercise 2.2"]
fn exercise_2_2_an_octet_that_is_no_text_is_stored_as_it_came() {
    let server = PlainLoop::start("loop_2_2");
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO client.example", "MAIL FROM:<ann@client.example>"]);
    client.all_granted(&["RCPT TO:<bob@localhost>", "DATA"]);
    client.send(b"Subject: \xfc\xff\r\n\r\n\x00\xfe\r\n..dot\r\n.\r\n");
    let mut reply = [0; 4];
    let got = client.stream().read_exact(&mut reply);
    assert!(got.is_ok(), "the connection is gone in the middle of the letter");
    assert_eq!(&reply, b"250 ");
    client.reply();
    let stored = server.stored().concat();
    let letter = b"Subject: \xfc\xff\n\n\x00\xfe\n.dot\n";
    assert!(stored.ends_with(letter), "{}", stored.escape_ascii());
    assert!(client.ask("NOOP").len() > 3 && client.ask("QUIT").starts_with("221"));
    // A command that is no text is refused, and the session goes on, too.
    let mut client = Client::connect(server.address);
    client.send(b"EHLO \xfc\r\n");
    assert!(client.reply().len() > 3, "a command that is no text gets a reply");
    assert!(client.ask("QUIT").starts_with("221"));
}

/// With one `enum` in the place of the four flags no command at the wrong moment is granted, none
/// that is refused changes anything, and after a letter nothing of its envelope is left.
#[test]
#[ignore = "exercise 2.3"]
fn exercise_2_3_no_command_at_the_wrong_moment_changes_anything() {
    let server = PlainLoop::start("loop_2_3");
    let mut client = Client::connect(server.address);
    for line in ["MAIL FROM:<a@client.example>", "RCPT TO:<b@localhost>", "DATA"] {
        assert!(client.ask(line).starts_with('5'), "{line} before EHLO");
    }
    client.all_granted(&["EHLO client.example"]);
    for line in ["RCPT TO:<b@localhost>", "DATA"] {
        assert!(client.ask(line).starts_with('5'), "{line} before MAIL");
    }
    client.all_granted(&["MAIL FROM:<one@client.example>"]);
    assert!(client.ask("DATA").starts_with('5'), "DATA before RCPT");
    assert!(client.ask("MAIL FROM:<two@client.example>").starts_with('5'), "MAIL within MAIL");
    client.all_granted(&["RCPT TO:<bob@localhost>"]);
    assert!(client.ask("MAIL FROM:<two@client.example>").starts_with('5'), "MAIL after RCPT");
    client.all_granted(&["RCPT TO:<cem@localhost>", "DATA"]);
    assert!(client.message("MAIL FROM:<text@client.example>\r\n").starts_with("250"));
    let stored = String::from_utf8(server.stored().concat()).unwrap();
    for part in ["one@client.example", "bob@localhost", "cem@localhost", "text@client.example"] {
        assert!(stored.contains(part), "{part} is not in\n{stored}");
    }
    assert!(!stored.contains("two@"), "a refused MAIL is in the envelope:\n{stored}");
    // The letter is over, and so are its sender and its recipients (flaw 6).
    for line in ["RCPT TO:<dan@localhost>", "DATA"] {
        assert!(client.ask(line).starts_with('5'), "{line} right after a letter");
    }
    client.all_granted(&["MAIL FROM:<three@client.example>"]);
    assert!(client.ask("DATA").starts_with('5'), "the recipients of the first letter count again");
    // EHLO begins anew: it drops an open transaction (RFC 5321 section 4.1.4).
    client.all_granted(&["RCPT TO:<bob@localhost>", "EHLO client.example"]);
    assert!(client.ask("DATA").starts_with('5'), "EHLO drops the transaction");
}
