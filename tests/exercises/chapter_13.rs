//! Chapter 13: the client side.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ehlo::relay::client::{Client, Dial, Security, To};
use ehlo::smtp::address::Mailbox;
use ehlo::smtp::answer::{Answer, Verdict};
use ehlo::smtp::dsn::RcptDsn;
use ehlo::store::envelope::Entry;

/// A letter as the queue has it.
const ENVELOPE: &str = "ehlo-queue 2
FOR domain hop.example
ALIAS none
ARRIVED 2026-11-27T06:00:00Z
NEXT 2026-11-27T06:00:00Z
ATTEMPTS 0
WARNED false
SKIP 0
MAIL FROM:<ann@me.example> SIZE=1000
RCPT TO:<bob@hop.example>
GIVEN <bob@hop.example>
STATE waiting
";

/// What a hop does when it has spoken in the middle of a message.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Close,
    ReadOn,
}

/// A next hop for one connection. It grants everything, but refuses the whole message.
struct Hop {
    address: SocketAddr,
    /// Its end of the connection once more: the test can speak there at any time.
    end: Receiver<TcpStream>,
    thread: JoinHandle<()>,
}

impl Hop {
    fn start(extension: &'static str) -> Hop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (give, end) = mpsc::channel();
        let thread = thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            give.send(tcp.try_clone().unwrap()).unwrap();
            // A client that has gone ends it, and so does the test.
            let _ = serve(&mut BufReader::new(tcp), extension);
        });
        Hop { address, end, thread }
    }

    /// Says this in the middle of a message.
    fn speak(self, words: &str, then: Then) {
        let mut tcp = self.end.recv().unwrap();
        tcp.write_all(words.as_bytes()).unwrap();
        if then == Then::Close {
            tcp.shutdown(Shutdown::Both).unwrap();
            // With it the last descriptor but ours is gone.
            self.thread.join().unwrap();
        }
    }
}

fn serve(wire: &mut BufReader<TcpStream>, extension: &str) -> io::Result<()> {
    let mut reply = "220 hop.example".to_owned();
    loop {
        write!(wire.get_mut(), "{reply}\r\n")?;
        let mut line = String::new();
        if wire.read_line(&mut line)? == 0 {
            return Ok(());
        }
        reply = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["EHLO", _] => format!("250-hop.example\r\n250 {extension}"),
            ["BDAT", size, ref last @ ..] => {
                let size = size.parse().unwrap();
                io::copy(&mut wire.by_ref().take(size), &mut io::sink())?;
                if last.is_empty() { "250 2.0.0 more" } else { "552 5.3.4 the end" }.to_owned()
            }
            ["DATA"] => {
                wire.get_mut().write_all(b"354 go on\r\n")?;
                let mut text = Vec::new();
                while text != b".\r\n" {
                    text.clear();
                    if wire.read_until(b'\n', &mut text)? == 0 {
                        return Ok(());
                    }
                }
                "552 5.3.4 the end".to_owned()
            }
            _ => "250 2.0.0 yes".to_owned(),
        };
    }
}

/// A message. When a megabyte of it was read, `act` is done before there is more.
struct Message<'a> {
    text: &'a [u8],
    given: usize,
    act: Option<Box<dyn FnOnce() + 'a>>,
}

impl Read for Message<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given > 1_000_000
            && let Some(act) = self.act.take()
        {
            act();
        }
        let count = self.text.read(buffer)?;
        self.given += count;
        Ok(count)
    }
}

/// What the client says of a letter, if a hop with this extension says `words` after a megabyte.
fn told(extension: &'static str, words: &str, then: Then) -> Answer {
    let hop = Hop::start(extension);
    let dial = Dial {
        name: "me.example",
        timeout: Duration::from_secs(10),
        security: Security::Clear,
        login: None,
        trace: None,
    };
    let mut client = Client::connect("hop.example", hop.address, &dial).unwrap();
    let text = "a line of the message\n".repeat(300_000);
    let envelope = ENVELOPE.replace("1000", &(text.len() + 300_000).to_string());
    let letter = Entry::parse(envelope.as_bytes()).unwrap().letter;
    let mailbox = Mailbox::parse("bob@hop.example").unwrap().0;
    let to = To { mailbox: &mailbox, dsn: &RcptDsn { notify: None, orcpt: None } };
    let act: Box<dyn FnOnce()> = Box::new(move || hop.speak(words, then));
    let mut message = Message { text: text.as_bytes(), given: 0, act: Some(act) };
    let answer = client.carry(&letter, &[to], &mut message).remove(0).unwrap();
    assert!(!client.is_open(), "{extension}, {words:?}: half a message was sent, {answer}");
    answer
}

/// A next hop says something when it has a part of the message, and closes. A 5yz is the answer for
/// all whom it had accepted: `Never`, with the text and the name of the hop, as if it had been said
/// to the final dot. A 4yz, 421 among them, makes it `Later`, with its text. A hop that closes
/// without a word makes it `Later`, as before. So does one that says something else: a 2yz or 3yz
/// before the final dot or the last chunk was sent is no answer to it. In each case the connection
/// is of no more use. All this holds after DATA and for BDAT.
#[test]
#[ignore = "exercise 13.1"]
fn exercise_13_1_a_refusal_before_the_end_is_the_answer() {
    for extension in ["SIZE", "CHUNKING"] {
        for (words, verdict, status) in [
            ("552 5.3.4 too big for us\r\n", Verdict::Never, "5.3.4"),
            ("554-no\r\n554 go away\r\n", Verdict::Never, "5.0.0"),
            ("452 4.3.1 full\r\n", Verdict::Later, "4.3.1"),
            ("421 4.3.2 closing\r\n", Verdict::Later, "4.3.2"),
        ] {
            let answer = told(extension, words, Then::Close);
            let found = (answer.verdict, answer.status.to_string());
            assert_eq!(found, (verdict, status.to_owned()), "{extension}: {words:?}, {answer}");
            assert_eq!(answer.by.as_deref(), Some("hop.example"), "{extension}: {words:?}");
            let (_, end) = words.trim_end().rsplit_once(' ').unwrap();
            assert!(answer.text.ends_with(end), "{extension}: {words:?}, {answer}");
        }
        for words in
            ["", "250 2.6.0 taken\r\n", "354 go on\r\n", "552 5.3.4 half a rep", "what?\r\n"]
        {
            let answer = told(extension, words, Then::Close);
            assert_eq!(answer.verdict, Verdict::Later, "{extension}: {words:?}, {answer}");
            assert!(answer.by.is_none(), "{extension}: {words:?} is no answer: {answer}");
        }
    }
}

/// A hop that says something in the middle of a message may also read on. In clear the client
/// finds it before it sends the next block, and long before the final dot or the last
/// chunk: a 2yz makes the answer `Later`, and a refusal is the answer. Under TLS one need not look:
/// octets that wait there may be TLS's own.
#[test]
#[ignore = "exercise 13.1"]
fn exercise_13_1_a_250_before_the_end_is_no_delivery() {
    for extension in ["SIZE", "CHUNKING"] {
        let answer = told(extension, "250 2.6.0 taken\r\n", Then::ReadOn);
        assert_eq!(answer.verdict, Verdict::Later, "{extension}: {answer}");
        let answer = told(extension, "552 5.3.4 too big for us\r\n", Then::ReadOn);
        assert_eq!(answer.verdict, Verdict::Never, "{extension}: {answer}");
        assert!(answer.text.ends_with("too big for us"), "{extension}: {answer}");
    }
}
