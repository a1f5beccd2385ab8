//! Chapter 6: bytes.

use std::thread;

use crate::common::{Client, TestServer};

/// Messages, and the line with the first CR or LF that stands alone.
fn cases() -> Vec<(Vec<u8>, u64)> {
    let long = "a line of fifty octets, counted with its CR and LF\r\n".repeat(25_000);
    let mut cases: Vec<(Vec<u8>, u64)> = [
        (&b"\nSubject: x\r\n"[..], 1),
        (b"\rSubject: x\r\n", 1),
        (b"Subject: x\n\r\nhello\r\n", 1),
        (b"Subject: x\r\n\r\nhello\n", 3),
        (b"Subject: x\r\n\r\nhel\rlo\r\n", 3),
        (b"Subject: x\r\n\r\nhello\r\r\n", 3),
        (b"Subject: x\r\n\r\nhello\r\n\n", 4),
        (b"Subject: x\r\n\r\n..hello\r\n..\n", 4),
        (b"Subject: x\r\n\r\n..\r\n...\r\n\n", 5),
        (b"Subject: x\r\n\r\none\ntwo\n", 3),
        (b"Subject: x\r\n\r\n\r\n\r\n\r\rtwo\r\n", 5),
    ]
    .map(|(text, line)| (text.to_vec(), line))
    .into();
    cases.push(((long.clone() + "here\n" + &long).into_bytes(), 25_001));
    cases.push(((long + "here\rit is\r\n").into_bytes(), 25_001));
    cases
}

fn client(server: &TestServer) -> Client {
    let mut client = Client::connect(server.address);
    let ready = ["EHLO c.example", "MAIL FROM:<ann@c.example>", "RCPT TO:<bob@localhost>"];
    client.all_granted(&ready);
    client
}

/// The reply has the number of this line, and it was the last one.
fn tells(client: &mut Client, line: u64, what: &str) {
    let reply = client.reply();
    assert!(reply.starts_with("554 5.6.0 "), "{what}: {reply}");
    assert!(reply.contains(&format!("line {line} ")), "{what}: {line} is the line: {reply}");
    assert_eq!(client.reply(), "", "{what}: the connection closes");
}

/// The 554 for a message with a bare CR or LF has the words `line N `: the number of the line
/// in which the first of them stands, counted from 1 in the message as it was sent, header and all.
/// A line ends with CR LF, so after `one LF two` both are in the same one. That is so after DATA
/// and in chunks, wherever the message is cut, and the rest of the reply stays.
#[test]
#[ignore = "exercise 6.1"]
fn exercise_6_1_the_refusal_names_the_line() {
    let server = TestServer::start(&[]);
    for (text, line) in cases() {
        let what = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        let whole = text.clone();
        let mut client = client(&server);
        client.all_granted(&["DATA"]);
        // A server that closes reads on for a while, and then no more.
        let mut tcp = client.tcp().try_clone().unwrap();
        let writing = thread::spawn(move || {
            let _ = std::io::Write::write_all(&mut tcp, &whole);
        });
        tells(&mut client, line, &what);
        writing.join().unwrap();
        if text.len() > 1000 {
            continue;
        }
        let mut client = self::client(&server);
        client.all_granted(&["DATA"]);
        for octet in &text {
            // It may have closed before the last one.
            let _ = std::io::Write::write_all(&mut client.tcp(), &[*octet]);
        }
        tells(&mut client, line, &what);
    }
    assert!(server.new_files("bob").is_empty());
}

#[test]
#[ignore = "exercise 6.1"]
fn exercise_6_1_in_chunks_the_lines_are_counted_through() {
    let server = TestServer::start(&[]);
    for (text, line) in cases().into_iter().filter(|(text, _)| text.len() < 1000) {
        let what = String::from_utf8_lossy(&text).into_owned();
        for cut in 0..=text.len() {
            let mut client = client(&server);
            let (start, rest) = text.split_at(cut);
            client.send(format!("BDAT {}\r\n", start.len()));
            client.send(start);
            let reply = client.reply();
            if reply.starts_with("250 ") {
                client.send([format!("BDAT {} LAST\r\n", rest.len()).as_bytes(), rest].concat());
                tells(&mut client, line, &what);
            } else {
                assert!(reply.contains(&format!("line {line} ")), "{what} at {cut}: {reply}");
            }
        }
    }
    // A CR at the very end has no LF after it.
    let mut client = client(&server);
    client.send("BDAT 15 LAST\r\nSubject: x\r\n\r\n\r");
    tells(&mut client, 3, "a CR at the end");
}
