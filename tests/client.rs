//! The SMTP client against next hops of every kind: one that reads from a
//! script, and a real server.
//!
//! In a script `S:` is what the hop says, with CR LF, and `C:` what it has to
//! hear, where `*` at the end stands for any text. Lines that the hop says one
//! after the other go out in one write. In brackets is what it does:
//! `[message]` reads up to the final dot, `[take N]` reads N octets, `[raw X]`
//! says X as it is, `[tls]` is its half of a handshake, `[noise]` is something
//! else in its place, `[auth]` is its half of AUTH, `[stall]` reads nothing more,
//! `[close]` closes. A script that is over hangs: nothing is said any more.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{NOBODY, TestServer, test_file};
use ehlo::relay::client::{Client, ConnectError, Credentials, Dial, Evidence, Security, To};
use ehlo::smtp::address::{Mailbox, ReversePath};
use ehlo::smtp::answer::{Answer, Verdict};
use ehlo::smtp::auth::exchange::{self, Progress};
use ehlo::smtp::auth::mechanism::Mechanism;
use ehlo::smtp::auth::secret::Secret;
use ehlo::smtp::auth::users::Users;
use ehlo::smtp::dsn::{MailDsn, Notify, OriginalRecipient, RcptDsn, Ret};
use ehlo::store::envelope::Letter;
use jiff::Timestamp;
use native_tls::{Certificate, Identity, TlsAcceptor, TlsConnector};

const PATIENCE: Duration = Duration::from_secs(10);
const HELLO: [&str; 3] = ["S: 220 hop.example", "C: EHLO me.example", "S: 250 hop.example"];
const QUIT: [&str; 2] = ["C: QUIT", "S: 221 bye"];
const MESSAGE: &str = "Subject: x\n\nhello\n";

trait Octets: Read + Write {}
impl<T: Read + Write> Octets for T {}

/// What a hop has heard.
#[derive(Default, Debug)]
struct Heard {
    /// The message, as it came, with its dots.
    message: Vec<u8>,
    /// What came after the end of the script.
    rest: String,
    /// The most lines that came together with the line before them.
    together: usize,
}

/// A next hop that serves one connection.
struct Hop {
    address: SocketAddr,
    thread: JoinHandle<Heard>,
    end: Sender<()>,
}

impl Hop {
    fn play(script: &[&str]) -> Hop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script: Vec<String> = script.iter().map(|line| (*line).to_owned()).collect();
        let (end, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            tcp.set_nodelay(true).unwrap();
            let stream: Box<dyn Octets> = Box::new(tcp.try_clone().unwrap());
            let mut wire = BufReader::new(stream);
            let mut heard = Heard::default();
            let mut said = Vec::new();
            for line in &script {
                let (what, text) = line.split_at_checked(3).unwrap();
                if what == "S: " {
                    said.extend_from_slice(format!("{text}\r\n").as_bytes());
                    continue;
                }
                let _ = wire.get_mut().write_all(&said);
                said.clear();
                if what == "C: " {
                    expect(&mut wire, text, &mut heard);
                    continue;
                }
                let action = line.trim_start_matches('[').trim_end_matches(']');
                match action.split_once(' ').unwrap_or((action, "")) {
                    ("raw", octets) => wire.get_mut().write_all(octets.as_bytes()).unwrap(),
                    ("message", _) => heard.message = read_message(&mut wire),
                    ("take", count) => {
                        let mut octets = vec![0; count.parse().unwrap()];
                        wire.read_exact(&mut octets).unwrap();
                        heard.message.extend(octets);
                    }
                    ("tls", _) => {
                        let Ok(tls) = acceptor().accept(tcp.try_clone().unwrap()) else {
                            return heard;
                        };
                        wire = BufReader::new(Box::new(tls));
                    }
                    ("noise", _) => {
                        wire.read_exact(&mut [0]).unwrap();
                        wire.get_mut().write_all(b"454 what is this?\r\n").unwrap();
                    }
                    ("auth", _) => serve_login(&mut wire),
                    ("stall", _) => {
                        let _ = ended.recv();
                        return heard;
                    }
                    ("close", _) => return heard,
                    _ => panic!("no such action: {line}"),
                }
            }
            let _ = wire.get_mut().write_all(&said);
            let mut rest = Vec::new();
            // A reset is an end, too.
            let _ = wire.read_to_end(&mut rest);
            heard.rest = String::from_utf8_lossy(&rest).into_owned();
            heard
        });
        Hop { address, thread, end }
    }

    fn connect(&self, dial: &Dial) -> Result<Client, ConnectError> {
        Client::connect("hop.example", self.address, dial)
    }

    /// Waits for the end of the script.
    fn heard(self) -> Heard {
        drop(self.end);
        self.thread.join().unwrap()
    }
}

fn expect(wire: &mut BufReader<Box<dyn Octets>>, expected: &str, heard: &mut Heard) {
    let mut line = String::new();
    wire.read_line(&mut line).unwrap();
    let found = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no {expected}: {line:?}"));
    match expected.strip_suffix('*') {
        Some(start) => assert!(found.starts_with(start), "expected {expected}, found {found}"),
        None => assert_eq!(found, expected),
    }
    let lines = wire.buffer().iter().filter(|octet| **octet == b'\n').count();
    heard.together = heard.together.max(lines);
}

fn read_message(wire: &mut impl BufRead) -> Vec<u8> {
    let mut message = Vec::new();
    while !message.ends_with(b"\r\n.\r\n") && message != b".\r\n" {
        assert!(wire.read_until(b'\n', &mut message).unwrap() > 0, "no final dot");
    }
    message
}

/// A server's half of AUTH, for `ann` whose password is `secret`.
fn serve_login(wire: &mut BufReader<Box<dyn Octets>>) {
    let secret = Secret::parse("{PLAIN}secret").unwrap();
    let users = Users::new(vec![("ann".to_owned(), secret)], [7; 32]);
    let mut line = || {
        let mut line = String::new();
        wire.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let command = line();
    let mut words = command.strip_prefix("AUTH ").unwrap().splitn(2, ' ');
    let mechanism = Mechanism::parse(words.next().unwrap()).unwrap();
    let mut progress = exchange::begin(mechanism, words.next(), "server", "hop.example", &users, 0);
    while let Progress::Challenge(exchange, challenge) = progress {
        write!(wire.get_mut(), "334 {challenge}\r\n").unwrap();
        let mut line = String::new();
        wire.read_line(&mut line).unwrap();
        progress = exchange.answer(line.trim_end().as_bytes(), &users, 0);
    }
    // It repeats the command, as a careless server would.
    let reply = match progress {
        Progress::Done(_) => "235 welcome".to_owned(),
        _ => format!("535 5.7.8 no: {command}"),
    };
    write!(wire.get_mut(), "{reply}\r\n").unwrap();
}

/// What stands behind the remarks in a file of tests/tls.
fn pem(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(test_file(name)).unwrap();
    text.as_bytes()[text.find("-----BEGIN").unwrap()..].to_vec()
}

fn acceptor() -> TlsAcceptor {
    let identity = Identity::from_pkcs8(&pem("cert.pem"), &pem("key.pem")).unwrap();
    TlsAcceptor::new(identity).unwrap()
}

/// Trusts the authority of the tests.
fn trusting() -> TlsConnector {
    let ca = Certificate::from_pem(&pem("cert.pem")).unwrap();
    TlsConnector::builder().add_root_certificate(ca).build().unwrap()
}

fn dial(security: Security) -> Dial {
    Dial { name: "me.example", timeout: PATIENCE, security, login: None, trace: None }
}

fn ann() -> Credentials {
    with_password("secret")
}

fn with_password(password: &str) -> Credentials {
    Credentials { user: "ann".to_owned(), evidence: Evidence::Password(password.to_owned()) }
}

fn mailboxes(addresses: &[&str]) -> Vec<Mailbox> {
    addresses.iter().map(|address| Mailbox::parse(address).unwrap().0).collect()
}

/// What nobody has asked for.
const NO_RCPT_DSN: &RcptDsn = &RcptDsn { notify: None, orcpt: None };

/// A letter in ASCII, with nothing special to it.
fn plain(from: &str, message: &str) -> Letter {
    Letter {
        reverse_path: ReversePath::parse(from).unwrap().0,
        dsn: MailDsn::default(),
        arrived: Timestamp::now(),
        skip: 0,
        size: message.replace('\n', "\r\n").len() as u64,
        is_8bit: false,
        needs_smtputf8: false,
    }
}

/// Has a message in file form sent from `<ann@me.example>`.
fn deliver(client: &mut Client, to: &[&str], message: &str) -> Vec<Option<Answer>> {
    let letter = Letter { is_8bit: !message.is_ascii(), ..plain("<ann@me.example>", message) };
    deliver_to(client, &letter, to, &mut message.as_bytes())
}

fn deliver_to(
    client: &mut Client,
    letter: &Letter,
    to: &[&str],
    message: &mut dyn Read,
) -> Vec<Option<Answer>> {
    let mailboxes = mailboxes(to);
    let to: Vec<To> = mailboxes.iter().map(|mailbox| To { mailbox, dsn: NO_RCPT_DSN }).collect();
    client.carry(letter, &to, message)
}

/// Such as `Later 4.4.2`, or `-` for another transaction.
fn brief(answer: &Option<Answer>) -> String {
    match answer {
        Some(answer) => format!("{:?} {}", answer.verdict, answer.status),
        None => "-".to_owned(),
    }
}

/// What became of each recipient, whether the connection is open, and what the
/// hop heard.
fn send(script: &[&[&str]], to: &[&str], message: &str) -> (Vec<String>, bool, Heard) {
    let (answers, is_open, heard) = send_within(PATIENCE, &script.concat(), to, message);
    (answers.iter().map(brief).collect(), is_open, heard)
}

fn send_within(
    timeout: Duration,
    script: &[&str],
    to: &[&str],
    message: &str,
) -> (Vec<Option<Answer>>, bool, Heard) {
    let hop = Hop::play(script);
    let (answers, is_open) = match hop.connect(&Dial { timeout, ..dial(Security::Clear) }) {
        Ok(mut client) => {
            let answers = deliver(&mut client, to, message);
            let is_open = client.is_open();
            client.quit();
            (answers, is_open)
        }
        Err(error) => (vec![Some(refused(error))], false),
    };
    (answers, is_open, hop.heard())
}

/// The answer in an error.
fn refused(error: ConnectError) -> Answer {
    match error {
        ConnectError::Answer(answer) => answer,
        ConnectError::Handshake(why) => panic!("only the handshake failed: {why}"),
    }
}

fn refusal(hop: &Hop, dial: &Dial) -> Answer {
    match hop.connect(dial) {
        Ok(_) => panic!("a connection"),
        Err(error) => refused(error),
    }
}

/// From MAIL to the final dot, in a plain session with one recipient.
const TRANSACTION: [&str; 8] = [
    "C: MAIL FROM:<ann@me.example>",
    "S: 250 ok",
    "C: RCPT TO:<bob@hop.example>",
    "S: 250 ok",
    "C: DATA",
    "S: 354 go on",
    "[message]",
    "S: 250 2.6.0 stored",
];
/// The same after a login: we vouch for nobody (RFC 4954 section 5).
const AFTER_LOGIN: [&str; 8] = {
    let mut lines = TRANSACTION;
    lines[0] = "C: MAIL FROM:<ann@me.example> AUTH=<>";
    lines
};
const BOB: [&str; 1] = ["bob@hop.example"];

#[test]
fn a_letter_arrives_octet_for_octet() {
    let message = "Subject: dots\n\n.\n..\n.a\nb.\n\nno end";
    let (answers, is_open, heard) = send(&[&HELLO, &TRANSACTION, &QUIT], &BOB, message);
    assert_eq!((answers, is_open), (vec!["Delivered 2.6.0".to_owned()], true));
    assert_eq!(
        String::from_utf8(heard.message).unwrap(),
        "Subject: dots\r\n\r\n..\r\n...\r\n..a\r\nb.\r\n\r\nno end\r\n.\r\n"
    );
    assert_eq!((heard.rest.as_str(), heard.together), ("", 0));
}

#[test]
fn a_real_server_stores_what_was_sent_and_tells_who_is_refused() {
    let server = TestServer::start(&[]);
    let message = format!("Subject: \u{fc}\n\n{}", ".a line\n\n".repeat(30_000));
    let mut client = Client::connect("localhost", server.address, &dial(Security::Clear)).unwrap();
    for round in 1..=2 {
        let to = ["bob@localhost", "x@else.example", "cem@localhost"];
        let answers = deliver(&mut client, &to, &message);
        let answers: Vec<String> = answers.iter().map(brief).collect();
        assert_eq!(answers, ["Delivered 2.6.0", "Never 5.7.1", "Delivered 2.6.0"]);
        assert_eq!(server.new_files("cem").len(), round);
    }
    client.quit();
    let file = fs::read(&server.new_files("bob")[0]).unwrap();
    assert_eq!(common::without_trace_fields(&file), message.as_bytes());
}

#[test]
fn helo_is_said_after_a_refused_ehlo_and_not_after_421_or_a_close() {
    for code in ["500", "502", "550"] {
        let refused = format!("S: {code} what?");
        let hello = ["S: 220 a", "C: EHLO me.example", &refused, "C: HELO me.example", "S: 250 a"];
        let (answers, ..) = send(&[&hello, &TRANSACTION, &QUIT], &BOB, MESSAGE);
        assert_eq!(answers, ["Delivered 2.6.0"]);
    }
    let later = ["S: 450 no", "C: QUIT", "[close]"];
    for (end, status) in [
        (&["S: 421 4.3.2 no"][..], "Later 4.3.2"),
        (&later, "Later 4.0.0"),
        (&["[close]"], "Later 4.4.2"),
    ] {
        let (answers, is_open, heard) = send(&[&HELLO[..2], end], &BOB, MESSAGE);
        assert_eq!((answers, is_open), (vec![status.to_owned()], false));
        assert_eq!(heard.rest, "");
    }
}

#[test]
fn a_hop_may_greet_twice_whenever_the_second_greeting_comes() {
    let (ehlo, helo) = ("C: EHLO me.example", "C: HELO me.example");
    for begin in [
        &["S: 220 a", "S: 220 b", ehlo, "S: 250 a"][..],
        &["S: 220-a", "S: 220 b", "S: 220 c", ehlo, "S: 250 a"],
        &["S: 220 a", ehlo, "S: 220 b", "S: 250 a"],
        &["S: 220 a", ehlo, "S: 220-b", "S: 220 c", "S: 250-a", "S: 250 SIZE"],
        &["S: 220 a", ehlo, "S: 220 b", "S: 500 what?", helo, "S: 250 a"],
    ] {
        let mail = if begin.contains(&"S: 250 SIZE") { "C: MAIL*" } else { TRANSACTION[0] };
        let (answers, _, heard) = send(&[begin, &[mail], &TRANSACTION[1..], &QUIT], &BOB, MESSAGE);
        assert_eq!(answers, ["Delivered 2.6.0"], "{begin:?}");
        assert_eq!(heard.rest, "");
    }
    for begin in [
        &["S: 220 a", "S: 220 b", "S: 220 c"][..],
        &["S: 220 a", "S: 220 b", ehlo, "S: 220 c", "S: 250 a"],
        &["S: 220 a", ehlo, "S: 220 b", "S: 220 c", "S: 250 a"],
        &["S: 220 a", "S: 554 b"],
        &["S: 220 a", ehlo, "S: 500 what?", "S: 220 b"],
    ] {
        let (answers, is_open, heard) = send(&[begin], &BOB, MESSAGE);
        assert_eq!((answers, is_open), (vec!["Later 4.5.0".to_owned()], false), "{begin:?}");
        assert_eq!(heard.rest, "");
    }
    // Under TLS nobody has been greeted again.
    let hop = Hop::play(&[&OFFER[..], &TLS, &["S: 220 b", "S: 250 a"]].concat());
    let answer = refusal(&hop, &dial(Security::Opportunistic));
    assert_eq!(brief(&Some(answer)), "Later 4.5.0");
    hop.heard();
}

#[test]
fn the_last_line_of_a_reply_counts_and_a_code_alone_is_one() {
    let transaction = [
        "C: MAIL FROM:<ann@me.example>",
        "S: 250",
        "C: RCPT TO:<bob@hop.example>",
        "S: 550-5.1.1 who is bob?",
        "S: 250 2.1.5 the one next door",
        "C: RCPT TO:<cem@hop.example>",
        "S: 250-2.1.5 good",
        "S: 450",
        "C: RCPT TO:<dan@hop.example>",
        "S: 450-4.2.1 busy",
        "S: 550 5.2.1 and for good",
        "C: DATA",
        "S: 451-",
        "S: 354",
        "[message]",
        "S: 451-4.3.0 a moment",
        "S: 250 2.6.0 stored",
    ];
    let to = ["bob@hop.example", "cem@hop.example", "dan@hop.example"];
    let (answers, is_open, heard) = send(&[&HELLO, &transaction, &QUIT], &to, MESSAGE);
    assert_eq!(answers, ["Delivered 2.6.0", "Later 4.0.0", "Never 5.2.1"]);
    assert!(is_open && heard.rest.is_empty());
}

#[test]
fn of_a_long_reply_500_octets_are_kept_for_each_of_many_recipients() {
    let hello = ["S: 220 a", "C: EHLO me.example", "S: 250-a", "S: 250 PIPELINING"];
    let long =
        format!("S: {}550 5.7.1 no", format!("550-{}\r\n", "\u{1b}".repeat(4000)).repeat(127));
    let addresses: Vec<String> = (0..20).map(|number| format!("b{number}@hop.example")).collect();
    let to: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mail = [&["C: MAIL*"], &["C: RCPT*"; 20][..], &[&long], &["S: 503 no"; 20]].concat();
    let dot = [&TRANSACTION[..7], &[long.as_str()]].concat();
    for (script, to) in
        [([&hello[..], &mail].concat(), &to[..]), ([&HELLO[..], &dot].concat(), &BOB)]
    {
        let script = [&script[..], &QUIT].concat();
        let (answers, is_open, _) = send_within(PATIENCE, &script, to, MESSAGE);
        assert!(is_open);
        for answer in answers.into_iter().flatten() {
            assert_eq!(answer.verdict, Verdict::Never);
            assert!(answer.text.len() <= 500 && answer.text.ends_with("\\x1b [...]"), "{answer:?}");
        }
    }
}

#[test]
fn an_offer_at_the_end_of_a_long_list_is_found() {
    let mut hello = vec!["S: 220 a", "C: EHLO me.example", "S: 250-a"];
    hello.extend(["S: 250-XONE-OF-MANY WITH A LONG LIST OF WORDS"; 50]);
    hello.push("S: 250 SIZE 1000");
    let transaction = [&["C: MAIL FROM:<ann@me.example> SIZE=21"], &TRANSACTION[1..]].concat();
    let (answers, ..) = send(&[&hello, &transaction, &QUIT], &BOB, MESSAGE);
    assert_eq!(answers, ["Delivered 2.6.0"]);
}

#[test]
fn a_hop_that_has_an_address_for_a_name_is_told_by_it_in_brackets() {
    for (name, by) in [
        ("127.0.0.1", "[127.0.0.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ("[127.0.0.1]", "[127.0.0.1]"),
        ("hop.example", "hop.example"),
    ] {
        let hop = Hop::play(&["S: 554 5.7.1 not you", "C: QUIT", "[close]"]);
        let error = Client::connect(name, hop.address, &dial(Security::Clear)).unwrap_err();
        let answer = refused(error);
        assert_eq!((answer.verdict, answer.by.as_deref()), (Verdict::Never, Some(by)));
        hop.heard();
    }
}

#[test]
fn with_pipelining_the_envelope_goes_in_one_write_and_data_alone() {
    let hello = ["S: 220 a", "C: EHLO me.example", "S: 250-a", "S: 250 pipelining"];
    let transaction = [
        // Nothing is answered before all three are there.
        "C: MAIL FROM:<ann@me.example>",
        "C: RCPT TO:<bob@hop.example>",
        "C: RCPT TO:<cem@hop.example>",
        "S: 250 ok",
        "S: 550 5.1.1 who?",
        "S: 250 ok",
        "C: DATA",
        "S: 354 go on",
        "[message]",
        "S: 250 ok",
    ];
    let to = ["bob@hop.example", "cem@hop.example"];
    let (answers, _, heard) = send(&[&hello, &transaction, &QUIT], &to, MESSAGE);
    assert_eq!(answers, ["Never 5.1.1", "Delivered 2.0.0"]);
    assert_eq!(heard.together, 2);
}

#[test]
fn a_thousand_recipients_are_asked_in_batches() {
    let server = TestServer::start(&[]);
    let addresses: Vec<String> = (0..1000).map(|n| format!("b{}@localhost", n % 3)).collect();
    let to: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut client = Client::connect("localhost", server.address, &dial(Security::Clear)).unwrap();
    let answers = deliver(&mut client, &to, MESSAGE);
    assert_eq!(answers.len(), 1000);
    assert!(answers.iter().all(|answer| brief(answer) == "Delivered 2.6.0"));
    assert_eq!(server.new_files("b2").len(), 1);
}

#[test]
fn each_recipient_gets_its_own_answer_and_those_who_do_not_fit_another_transaction() {
    let to = ["a@h.example", "b@h.example", "c@h.example", "d@h.example", "e@h.example"];
    let first = [
        "C: MAIL*",
        "S: 250 ok",
        "C: RCPT TO:<a@h.example>",
        "S: 452 4.2.2 full",
        "C: RCPT TO:<b@h.example>",
        "S: 250 ok",
        "C: RCPT TO:<c@h.example>",
        "S: 450 4.2.1 busy",
        "C: RCPT TO:<d@h.example>",
        "S: 452 4.5.3 too many",
        "C: RCPT TO:<e@h.example>",
        "S: 552 too many",
        "C: DATA",
        "S: 354 go on",
        "[message]",
        "S: 250 ok",
    ];
    let second = [
        "C: MAIL FROM:<ann@me.example>",
        "S: 250 ok",
        "C: RCPT TO:<d@h.example>",
        "S: 250 ok",
        "C: RCPT TO:<e@h.example>",
        "S: 550 no",
        "C: DATA",
        "S: 354 go on",
        "[message]",
        "S: 250 ok",
    ];
    let hop = Hop::play(&[&HELLO[..], &first, &second, &QUIT].concat());
    let mut client = hop.connect(&dial(Security::Clear)).unwrap();
    let answers: Vec<String> = deliver(&mut client, &to, MESSAGE).iter().map(brief).collect();
    assert_eq!(answers, ["Later 4.2.2", "Delivered 2.0.0", "Later 4.2.1", "-", "-"]);
    let answers: Vec<String> = deliver(&mut client, &to[3..], MESSAGE).iter().map(brief).collect();
    assert_eq!(answers, ["Delivered 2.0.0", "Never 5.0.0"]);
    client.quit();
    assert_eq!(hop.heard().rest, "");
}

#[test]
fn a_full_transaction_is_told_from_a_full_mailbox_by_the_enhanced_code() {
    // The refusal, what it is where somebody was accepted before, and where nobody was.
    for (refusal, after_one, alone) in [
        ("452 too many", "-", "Later 4.0.0"),
        ("552 too many", "-", "Later 4.0.0"),
        ("452 4.5.3 too many", "-", "Later 4.5.3"),
        ("552 5.5.3 too many", "-", "Later 4.5.3"),
        ("451 4.5.3 too many", "-", "Later 4.5.3"),
        ("550 5.5.3 too many", "-", "Later 4.5.3"),
        ("452 4.3.1 no room", "-", "Later 4.3.1"),
        ("552 5.3.1 no room", "-", "Later 4.3.1"),
        ("552 5.0.0 no", "-", "Later 4.0.0"),
        ("452 4.2.2 mailbox full", "Later 4.2.2", "Later 4.2.2"),
        ("552 5.2.2 mailbox full", "Never 5.2.2", "Never 5.2.2"),
        ("552 5.3.4 too big", "Never 5.3.4", "Never 5.3.4"),
        ("552 5.7.0 not that", "Never 5.7.0", "Never 5.7.0"),
        ("450 4.2.1 busy", "Later 4.2.1", "Later 4.2.1"),
    ] {
        let refusal = format!("S: {refusal}");
        let first = [&TRANSACTION[..4], &["C: RCPT TO:<cem@hop.example>", &refusal]].concat();
        let to = ["bob@hop.example", "cem@hop.example"];
        let (answers, ..) = send(&[&HELLO, &first, &TRANSACTION[4..], &QUIT], &to, MESSAGE);
        assert_eq!(answers, ["Delivered 2.6.0", after_one], "{refusal}");

        let only = [&TRANSACTION[..3], &[refusal.as_str()]].concat();
        let (answers, is_open, heard) = send(&[&HELLO, &only, &QUIT], &BOB, MESSAGE);
        assert_eq!((answers, is_open), (vec![alone.to_owned()], true), "{refusal}");
        assert_eq!(heard.rest, "");
    }
}

#[test]
fn a_refusal_at_any_step_is_the_answer_with_its_text() {
    let full = [&HELLO[..], &TRANSACTION].concat();
    for (step, line) in full.iter().enumerate().filter(|(_, line)| line.starts_with("S: ")) {
        for (code, verdict) in [("451", Verdict::Later), ("554", Verdict::Never)] {
            if line.contains("250 hop") && code == "554" {
                continue; // This is where HELO comes.
            }
            let reply = format!("S: {code} {}.7.1 no\x1b[2J thanks", &code[..1]);
            let script = [&full[..step], &[reply.as_str()], &QUIT].concat();
            let (answers, is_open, heard) = send_within(PATIENCE, &script, &BOB, MESSAGE);
            let answer = answers[0].as_ref().unwrap();
            assert_eq!(answer.verdict, verdict, "{line}: {answer:?}");
            assert_eq!(answer.by.as_deref(), Some("hop.example"));
            assert!(answer.text.ends_with(".7.1 no\\x1b[2J thanks"), "{answer:?}");
            assert_eq!(is_open, step > 2, "{line}");
            // QUIT came right behind: no DATA without a recipient.
            assert_eq!(heard.rest, "");
        }
    }
}

#[test]
fn a_421_at_any_step_ends_the_connection_without_a_word() {
    let full = [&HELLO[..], &TRANSACTION].concat();
    for (step, line) in full.iter().enumerate().filter(|(_, line)| line.starts_with("S: ")) {
        let script = [&full[..step], &["S: 421 4.3.2 closing"]].concat();
        let (answers, is_open, heard) = send_within(PATIENCE, &script, &BOB, MESSAGE);
        assert_eq!((brief(&answers[0]).as_str(), is_open), ("Later 4.3.2", false), "{line}");
        assert_eq!(heard.rest, "", "{line}");
    }
}

#[test]
fn a_421_to_a_recipient_is_the_answer_for_all_who_are_not_decided() {
    let hello = ["S: 220 a", "C: EHLO me.example", "S: 250-a", "S: 250 PIPELINING"];
    let script =
        ["C: MAIL*", "S: 250 ok", "S: 250 ok", "S: 550 no", "S: 452 full", "S: 421 4.3.2 x"];
    let to = ["a@h.example", "b@h.example", "c@h.example", "d@h.example", "e@h.example"];
    let (answers, is_open, _) = send(&[&hello, &script], &to, MESSAGE);
    let later = "Later 4.3.2";
    assert_eq!(answers, [later, "Never 5.0.0", "Later 4.0.0", later, later]);
    assert!(!is_open);
}

#[test]
fn a_refused_mail_counts_more_than_what_follows_it() {
    let hello = ["S: 220 a", "C: EHLO me.example", "S: 250-a", "S: 250 PIPELINING"];
    let to = ["a@h.example", "b@h.example"];
    for after in
        [&["S: 503 order", "S: 250 odd", "C: QUIT", "[close]"][..], &["S: 503 order", "[close]"]]
    {
        let script = ["C: MAIL*", "C: RCPT*", "C: RCPT*", "S: 550 5.7.1 not you"];
        let (answers, ..) = send(&[&hello, &script, after], &to, MESSAGE);
        assert_eq!(answers, ["Never 5.7.1", "Never 5.7.1"]);
    }
}

#[test]
fn a_transaction_that_came_to_nothing_is_reset_before_the_next() {
    let script = ["C: MAIL*", "S: 250 ok", "C: RCPT*", "S: 550 no", "C: RSET", "S: 250 ok"];
    let hop = Hop::play(&[&HELLO[..], &script, &TRANSACTION, &QUIT].concat());
    let mut client = hop.connect(&dial(Security::Clear)).unwrap();
    assert_eq!(brief(&deliver(&mut client, &BOB, MESSAGE)[0]), "Never 5.0.0");
    assert_eq!(brief(&deliver(&mut client, &BOB, MESSAGE)[0]), "Delivered 2.6.0");
    client.quit();
    assert_eq!(hop.heard().rest, "");
}

#[test]
fn silence_at_any_step_ends_at_its_deadline_and_a_close_at_once() {
    let full = [&HELLO[..], &TRANSACTION].concat();
    let timeout = Duration::from_millis(400);
    thread::scope(|scope| {
        for (step, line) in full.iter().enumerate().filter(|(_, line)| line.starts_with("S: ")) {
            let script = &full[..step];
            scope.spawn(move || {
                let start = Instant::now();
                let (answers, is_open, heard) = send_within(timeout, script, &BOB, MESSAGE);
                let answer = answers[0].as_ref().unwrap();
                assert_eq!(
                    (brief(&answers[0]).as_str(), is_open),
                    ("Later 4.4.2", false),
                    "{line}"
                );
                assert_eq!(answer.text.contains("may have arrived"), line.contains("stored"));
                // The final dot has twice the time, DATA less than half of it.
                let least = match *line {
                    "S: 354 go on" => timeout * 2 / 5,
                    "S: 250 2.6.0 stored" => timeout * 2,
                    _ => timeout,
                };
                let took = start.elapsed();
                assert!(took >= least, "{line}: {took:?}");
                assert!(took < least + Duration::from_secs(2), "{line}: {took:?}");
                assert_eq!(heard.rest, "");
            });
            let script = [script, &["[close]"]].concat();
            scope.spawn(move || {
                let (answers, is_open, _) = send_within(PATIENCE, &script, &BOB, MESSAGE);
                assert_eq!(
                    (brief(&answers[0]).as_str(), is_open),
                    ("Later 4.4.2", false),
                    "{line}"
                );
            });
        }
    });
}

/// Delivers to sixty recipients at a hop that answers each of them with this, and late. How many
/// it was asked about before DATA, if that came; whether it came; and what became of the letter.
fn deliver_slowly(timeout: Duration, answer: &'static str) -> (usize, bool, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hop = thread::spawn(move || {
        let mut wire = BufReader::new(listener.accept().unwrap().0);
        wire.get_mut().write_all(b"220 hop.example\r\n").unwrap();
        let (mut asked, mut line) = (0, String::new());
        while wire.read_line(&mut line).is_ok_and(|count| count > 0) {
            let mut reply = "250 ok";
            if line.starts_with("RCPT") {
                asked += 1;
                reply = answer;
                thread::sleep(timeout / 2);
            }
            if line.starts_with("DATA") {
                return (asked, true);
            }
            let _ = write!(wire.get_mut(), "{reply}\r\n");
            line.clear();
        }
        (asked, false)
    });
    let dial = Dial { timeout, ..dial(Security::Clear) };
    let mut client = Client::connect("hop.example", address, &dial).unwrap();
    let answers = deliver(&mut client, &["bob@b.example"; 60], MESSAGE);
    drop(client);
    let (asked, has_data) = hop.join().unwrap();
    (asked, has_data, answers.iter().map(brief).collect())
}

#[test]
fn a_hop_that_answers_each_step_just_in_time_is_left_after_twelve_timeouts() {
    let (asked, has_data, answers) = deliver_slowly(Duration::from_millis(200), "451 4.2.0 later");
    assert!(asked <= 25 && !has_data, "{asked} recipients");
    assert!(answers[59].starts_with("Later 4.4.2"), "{answers:?}");
}

#[test]
fn who_was_accepted_slowly_gets_the_letter_before_the_others_are_named() {
    let (asked, has_data, _) = deliver_slowly(Duration::from_millis(200), "250 ok");
    assert!(asked <= 8 && has_data, "{asked} recipients");
}

#[test]
fn a_hop_that_closes_or_stops_reading_in_the_middle_of_a_message_gets_it_later() {
    let message = "a line of the message\n".repeat(1_000_000);
    let start = [&HELLO[..], &TRANSACTION[..6]].concat();
    for (timeout, action) in
        [(PATIENCE, &["[take 100000]", "[close]"][..]), (Duration::from_millis(300), &["[stall]"])]
    {
        let script = [&start[..], action].concat();
        let (answers, is_open, _) = send_within(timeout, &script, &BOB, &message);
        assert_eq!((brief(&answers[0]).as_str(), is_open), ("Later 4.4.2", false), "{action:?}");
    }
}

/// Gives some octets, and then an error.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the disk is broken"));
        }
        let count = buffer.len().min(self.0);
        buffer[..count].fill(b'\n');
        self.0 -= count;
        Ok(count)
    }
}

#[test]
fn a_message_that_cannot_be_read_to_its_end_gets_no_final_dot() {
    for octets in [0, 1, 200_000] {
        let hop = Hop::play(&[&HELLO[..], &TRANSACTION[..6]].concat());
        let mut client = hop.connect(&dial(Security::Clear)).unwrap();
        let letter = plain("<ann@me.example>", MESSAGE);
        let answers = deliver_to(&mut client, &letter, &BOB, &mut Broken(octets));
        assert_eq!(brief(&answers[0]), "Later 4.3.0");
        assert!(answers[0].as_ref().unwrap().text.contains("the disk is broken"));
        assert!(!client.is_open());
        client.quit();
        assert!(!hop.heard().rest.contains('.'));
    }
}

#[test]
fn a_server_that_makes_no_sense_is_left_at_any_step() {
    let full = [&HELLO[..], &TRANSACTION].concat();
    let endless_line = format!("[raw 250 {}]", "x".repeat(10_000));
    let endless_reply = format!("S: {}250 end", "250-x\r\n".repeat(10_000));
    let nonsense = [
        endless_line.as_str(),
        &endless_reply,
        "S: hello there",
        "S: 250-a\r\nb",
        "S: 999 x",
        "S: ",
        "[raw \u{0}\u{16}\u{3}\n]",
    ];
    thread::scope(|scope| {
        for (step, line) in full.iter().enumerate().filter(|(_, line)| line.starts_with("S: ")) {
            for wrong in nonsense {
                let script = [&full[..step], &[wrong]].concat();
                scope.spawn(move || {
                    let (answers, is_open, heard) = send_within(PATIENCE, &script, &BOB, MESSAGE);
                    let found = brief(&answers[0]);
                    assert_eq!((found.as_str(), is_open), ("Later 4.5.0", false), "{line}");
                    assert_eq!(heard.rest, "");
                });
            }
        }
    });
}

#[test]
fn a_reply_of_the_wrong_kind_is_left_at_once() {
    let full = [&HELLO[..], &TRANSACTION].concat();
    for (step, line) in full.iter().enumerate().filter(|(_, line)| line.starts_with("S: ")) {
        let wrong = if line.starts_with("S: 354") { "S: 250 ok" } else { "S: 354 go on" };
        let script = [&full[..step], &[wrong]].concat();
        let (answers, is_open, heard) = send_within(PATIENCE, &script, &BOB, MESSAGE);
        assert_eq!((brief(&answers[0]).as_str(), is_open), ("Later 4.5.0", false), "{line}");
        assert_eq!(heard.rest, "");
    }
}

#[test]
fn a_reply_that_nobody_asked_for_is_never_taken_for_the_next_one() {
    let full = [&HELLO[..], &TRANSACTION].concat();
    for (step, line) in full.iter().enumerate().filter(|(_, line)| line.starts_with("S: ")) {
        if line.contains("stored") {
            continue; // It is delivered by then.
        }
        let script = [&full[..=step], &["S: 250 ok"]].concat();
        let (answers, is_open, heard) = send_within(PATIENCE, &script, &BOB, MESSAGE);
        assert_eq!((brief(&answers[0]).as_str(), is_open), ("Later 4.5.0", false), "{line}");
        assert_eq!(heard.rest, "");
    }
}

/// The answers of a hop with these extensions, to which nothing but QUIT is said.
fn nothing_sent(extensions: &[&str], to: &[&str], message: &str) -> Vec<String> {
    let hello = [&["S: 220 a", "C: EHLO me.example", "S: 250-a"], extensions].concat();
    let (answers, is_open, heard) = send(&[&hello, &QUIT], to, message);
    assert!(is_open);
    assert_eq!(heard.rest, "");
    answers
}

#[test]
fn a_letter_that_the_hop_cannot_take_is_not_sent() {
    let to = ["bob@hop.example", "cem@hop.example"];
    assert_eq!(nothing_sent(&["S: 250 SMTPUTF8"], &to, "\u{fc}\n"), ["Never 5.6.3"; 2]);
    assert_eq!(nothing_sent(&["S: 250 SIZE 4"], &to, "abc\n"), ["Never 5.3.4"; 2]);
    assert_eq!(nothing_sent(&["S: 250 HELP"], &["\u{fc}@hop.example"], "abc\n"), ["Never 5.6.7"]);
    assert_eq!(nothing_sent(&["S: 250 HELP"], &["b@\u{fc}.example"], "abc\n"), ["Never 5.6.7"]);

    let hello = ["S: 220 a", "C: EHLO me.example", "S: 250 a"];
    for (from, needs_smtputf8) in [("<ann@me.example>", true), ("<\u{e4}nn@me.example>", false)] {
        let hop = Hop::play(&[&hello[..], &QUIT].concat());
        let mut client = hop.connect(&dial(Security::Clear)).unwrap();
        let letter = Letter { needs_smtputf8, ..plain(from, "a\n") };
        let answers = deliver_to(&mut client, &letter, &to, &mut "a\n".as_bytes());
        assert_eq!(answers.iter().map(brief).collect::<Vec<_>>(), ["Never 5.6.7"; 2]);
        client.quit();
        assert_eq!(hop.heard().rest, "");
    }
}

#[test]
fn what_is_offered_is_used() {
    let extensions = ["S: 250-Size 0", "S: 250-8bitmime", "S: 250 SMTPUTF8"];
    let hello = [&["S: 220 a", "C: EHLO me.example", "S: 250-a"], &extensions[..]].concat();
    let mail = ["C: MAIL FROM:<ann@me.example> SIZE=4 BODY=8BITMIME SMTPUTF8", "S: 250 ok"];
    let rcpt = ["C: RCPT TO:<\u{fc}@hop.example>", "S: 250 ok"];
    let script = [&hello[..], &mail, &rcpt, &TRANSACTION[4..], &QUIT];
    let (answers, ..) = send(&script, &["\u{fc}@hop.example"], "\u{fc}\n");
    assert_eq!(answers, ["Delivered 2.6.0"]);
}

#[test]
fn smtputf8_is_said_for_an_address_or_the_header_and_not_for_the_text() {
    let hello =
        [&["S: 220 a", "C: EHLO me.example", "S: 250-a"][..], &["S: 250-8BITMIME"]].concat();
    let text = "Subject: x\n\n\u{fc}\n";
    let mail = ["C: MAIL FROM:<ann@me.example> BODY=8BITMIME"];
    let transaction = [&mail, &TRANSACTION[1..]].concat();
    for last in ["S: 250 HELP", "S: 250 SMTPUTF8"] {
        let (answers, ..) = send(&[&hello, &[last], &transaction, &QUIT], &BOB, text);
        assert_eq!(answers, ["Delivered 2.6.0"], "{last}");
    }
}

#[test]
fn what_the_sender_wants_to_be_told_goes_to_a_hop_with_dsn_and_to_no_other() {
    let mail_dsn = MailDsn { ret: Some(Ret::Headers), envid: Some("QQ+3D1".to_owned()) };
    let bob_dsn = RcptDsn {
        notify: Notify::parse("SUCCESS,DELAY"),
        orcpt: OriginalRecipient::parse("rfc822;b+2Bb@list.example"),
    };
    let never = RcptDsn { notify: Some(Notify::NEVER), orcpt: None };
    let (mail, bob) = ("C: MAIL FROM:<ann@me.example>", "C: RCPT TO:<bob@hop.example>");
    let (cem, dan) = ("C: RCPT TO:<cem@hop.example>", "C: RCPT TO:<dan@hop.example>");
    let said = [
        format!("{mail} RET=HDRS ENVID=QQ+3D1"),
        format!("{bob} NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bb@list.example"),
        format!("{cem} NOTIFY=NEVER"),
        dan.to_owned(),
    ];
    for (offer, [mail, bob, cem, dan]) in [
        ("S: 250 dsn", said.each_ref().map(String::as_str)),
        ("S: 250 HELP", [mail, bob, cem, dan]),
    ] {
        let hello = ["S: 220 a", "C: EHLO me.example", "S: 250-a", offer];
        let envelope = [mail, bob, cem, dan].map(|line| [line, "S: 250 ok"]).concat();
        let hop = Hop::play(&[&hello[..], &envelope, &TRANSACTION[4..], &QUIT].concat());
        let mut client = hop.connect(&dial(Security::Clear)).unwrap();
        assert_eq!(client.has_dsn(), offer == "S: 250 dsn");
        let letter = Letter { dsn: mail_dsn.clone(), ..plain("<ann@me.example>", MESSAGE) };
        let mailboxes = mailboxes(&["bob@hop.example", "cem@hop.example", "dan@hop.example"]);
        let dsn = [&bob_dsn, &never, NO_RCPT_DSN];
        let to: Vec<To> =
            mailboxes.iter().zip(dsn).map(|(mailbox, dsn)| To { mailbox, dsn }).collect();
        let answers = client.carry(&letter, &to, &mut MESSAGE.as_bytes());
        assert!(answers.iter().all(|answer| brief(answer) == "Delivered 2.6.0"), "{answers:?}");
        client.quit();
        hop.heard();
    }
}

/// Of a hop that offers CHUNKING, up to DATA or BDAT.
const CHUNKING: [&str; 4] = ["S: 220 a", "C: EHLO me.example", "S: 250-a", "S: 250 CHUNKING"];
/// One line of a letter in chunks; 8192 of them are a block of 64 KiB.
const LINE: &str = ".line x\n";
const WHOLE: [&str; 3] = ["C: BDAT 73728", "[take 73728]", "S: 250 2.0.0 more"];

/// What a hop hears of a letter of `lines`, with the last chunk of `octets`.
fn in_chunks(lines: usize, octets: usize) -> Vec<String> {
    let mut script: Vec<&str> = [&CHUNKING[..], &TRANSACTION[..4]].concat();
    for _ in 0..lines / 8192 {
        script.extend(WHOLE);
    }
    let mut script: Vec<String> = script.into_iter().map(str::to_owned).collect();
    script.push(format!("C: BDAT {octets} LAST"));
    script.push(format!("[take {octets}]"));
    script
}

#[test]
fn a_letter_larger_than_a_block_goes_in_chunks_with_its_line_ends_and_no_dots() {
    // A whole number of blocks ends with a chunk of nothing.
    for (lines, octets) in [(8193, 9), (16384, 0), (20000, 32544)] {
        let message = LINE.repeat(lines);
        let script = in_chunks(lines, octets);
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        let (answers, is_open, heard) =
            send(&[&script, &["S: 250 2.6.0 stored"], &QUIT], &BOB, &message);
        assert_eq!((answers, is_open), (vec!["Delivered 2.6.0".to_owned()], true));
        assert!(heard.message == message.replace('\n', "\r\n").into_bytes(), "{lines}");
        assert_eq!(heard.rest, "");
    }
}

#[test]
fn a_letter_of_a_block_or_to_a_hop_without_chunking_goes_after_data() {
    let message = LINE.repeat(7000);
    assert!(message.replace('\n', "\r\n").len() <= 64 * 1024);
    let (answers, _, heard) = send(&[&CHUNKING, &TRANSACTION, &QUIT], &BOB, &message);
    assert_eq!((answers[0].as_str(), heard.rest.as_str()), ("Delivered 2.6.0", ""));
    let (answers, _, heard) = send(&[&HELLO, &TRANSACTION, &QUIT], &BOB, &LINE.repeat(20000));
    assert_eq!((answers[0].as_str(), heard.rest.as_str()), ("Delivered 2.6.0", ""));
}

#[test]
fn a_refused_chunk_is_the_last_that_is_sent_and_the_connection_goes_on() {
    let message = LINE.repeat(20000);
    let start = [&CHUNKING[..], &TRANSACTION[..4], &WHOLE].concat();
    for (reply, found) in
        [("S: 452 4.3.1 full", "Later 4.3.1"), ("S: 552 5.3.4 too big", "Never 5.3.4")]
    {
        let refused = [WHOLE[0], WHOLE[1], reply];
        let again = [&["C: RSET", "S: 250 ok"], &TRANSACTION[..]].concat();
        let hop = Hop::play(&[&start[..], &refused, &again, &QUIT].concat());
        let mut client = hop.connect(&dial(Security::Clear)).unwrap();
        assert_eq!(brief(&deliver(&mut client, &BOB, &message)[0]), found);
        assert_eq!(brief(&deliver(&mut client, &BOB, MESSAGE)[0]), "Delivered 2.6.0");
        client.quit();
        assert_eq!(hop.heard().rest, "");
    }
}

#[test]
fn whatever_comes_in_the_place_of_a_reply_to_a_chunk_leaves_the_letter_here() {
    let message = LINE.repeat(8200);
    let middle: Vec<String> = [&CHUNKING[..], &TRANSACTION[..4], &WHOLE[..2]]
        .concat()
        .iter()
        .map(|&line| line.to_owned())
        .collect();
    let last = in_chunks(8200, 72);
    for (script, is_last) in [(&middle, false), (&last, true)] {
        for (reply, found) in [
            ("[close]", "Later 4.4.2"),
            ("S: 421 4.3.2 bye", "Later 4.3.2"),
            ("S: 354 go on", "Later 4.5.0"),
            ("S: nonsense", "Later 4.5.0"),
        ] {
            let script: Vec<&str> = script.iter().map(String::as_str).chain([reply]).collect();
            let (answers, is_open, heard) = send_within(PATIENCE, &script, &BOB, &message);
            assert_eq!((brief(&answers[0]).as_str(), is_open), (found, false), "{reply}");
            assert_eq!(heard.rest, "", "{reply}");
            if reply == "[close]" {
                let text = &answers[0].as_ref().unwrap().text;
                assert_eq!(text.contains("may have arrived"), is_last, "{text}");
            }
        }
    }
}

#[test]
fn a_message_that_cannot_be_read_to_its_end_gets_no_last_chunk() {
    let hop = Hop::play(&[&CHUNKING[..], &TRANSACTION[..4]].concat());
    let mut client = hop.connect(&dial(Security::Clear)).unwrap();
    let letter = Letter { size: 300_000, ..plain("<ann@me.example>", MESSAGE) };
    let answers = deliver_to(&mut client, &letter, &BOB, &mut Broken(60_000));
    assert_eq!(brief(&answers[0]), "Later 4.3.0");
    assert!(!client.is_open());
    client.quit();
    assert!(!hop.heard().rest.contains("LAST"));
}

#[test]
fn a_real_server_takes_25_megabytes_in_chunks() {
    let server = TestServer::start(&[]);
    let message = "Subject: x\n\n".to_owned() + &".\n..a line\n\n\u{fc}\n".repeat(1_350_000);
    assert!(message.replace('\n', "\r\n").len() > 25_000_000);
    let mut client = Client::connect("localhost", server.address, &dial(Security::Clear)).unwrap();
    assert_eq!(brief(&deliver(&mut client, &["bob@localhost"], &message)[0]), "Delivered 2.6.0");
    client.quit();
    let file = fs::read(&server.new_files("bob")[0]).unwrap();
    assert!(common::without_trace_fields(&file) == message.as_bytes());
}

#[test]
fn a_hop_that_says_how_many_recipients_it_takes_is_asked_about_no_more() {
    let to = ["a@h.example", "b@h.example", "c@h.example"];
    let hello = ["S: 220 a", "C: EHLO me.example", "S: 250-a", "S: 250 LIMITS RCPTMAX=2"];
    let two = ["C: RCPT TO:<a@h.example>", "S: 550 no", "C: RCPT TO:<b@h.example>"];
    let mail = &TRANSACTION[..2];
    for (last, first) in [
        // One of them gets the letter; nobody gets it; a second transaction in both cases.
        (&[&["S: 250 ok"], &TRANSACTION[4..]].concat()[..], "Delivered 2.6.0"),
        (&["S: 450 not now", "C: RSET", "S: 250 ok"], "Later 4.0.0"),
    ] {
        let one = [&["C: RCPT TO:<c@h.example>", "S: 250 ok"], &TRANSACTION[4..]].concat();
        let hop = Hop::play(&[&hello[..], mail, &two, last, mail, &one, &QUIT].concat());
        let mut client = hop.connect(&dial(Security::Clear)).unwrap();
        let answers: Vec<String> = deliver(&mut client, &to, MESSAGE).iter().map(brief).collect();
        assert_eq!(answers, ["Never 5.0.0", first, "-"]);
        let answers: Vec<String> =
            deliver(&mut client, &to[2..], MESSAGE).iter().map(brief).collect();
        assert_eq!(answers, ["Delivered 2.6.0"]);
        client.quit();
        assert_eq!(hop.heard().rest, "");
    }
    // What is said to MAIL is said to all.
    for (reply, found) in [("S: 550 no", "Never 5.0.0"), ("S: 421 bye", "Later 4.0.0")] {
        let script = [&hello[..], &[mail[0], reply]].concat();
        let (answers, ..) = send_within(PATIENCE, &script, &to, MESSAGE);
        assert!(answers.iter().all(|answer| brief(answer) == found), "{answers:?}");
    }
}

#[test]
fn a_recipient_outside_ascii_does_not_hold_up_the_others() {
    let to = ["\u{fc}@hop.example", "bob@hop.example"];
    let (answers, ..) = send(&[&HELLO, &TRANSACTION, &QUIT], &to, MESSAGE);
    assert_eq!(answers, ["Never 5.6.7", "Delivered 2.6.0"]);
}

const OFFER: [&str; 4] = ["S: 220 a", "C: EHLO me.example", "S: 250-a", "S: 250 STARTTLS"];
const TLS: [&str; 4] = ["C: STARTTLS", "S: 220 go on", "[tls]", "C: EHLO me.example"];

#[test]
fn opportunistic_is_encrypted_where_it_is_granted_and_in_clear_where_not() {
    // After the handshake nothing is left of what was offered before.
    let offer = [&OFFER[..3], &["S: 250-SIZE 1000", "S: 250 STARTTLS"]].concat();
    let encrypted = [&offer[..], &TLS, &["S: 250 a"]].concat();
    let no = |code| [&OFFER[..], &["C: STARTTLS", code]].concat();
    for begin in [encrypted, no("S: 454 4.7.0 not now"), no("S: 502 no"), HELLO.to_vec()] {
        let hop = Hop::play(&[&begin[..], &TRANSACTION, &QUIT].concat());
        let mut client = hop.connect(&dial(Security::Opportunistic)).unwrap();
        let answers = deliver(&mut client, &BOB, MESSAGE);
        client.quit();
        assert_eq!(hop.heard().rest, "", "{begin:?}");
        assert_eq!(brief(&answers[0]), "Delivered 2.6.0", "{begin:?}");
    }
}

#[test]
fn a_failed_opportunistic_handshake_is_told_apart_and_the_address_works_in_clear() {
    for end in [&["[noise]"][..], &["[close]"]] {
        let hop = Hop::play(&[&OFFER[..], &["C: STARTTLS", "S: 220 go on"], end].concat());
        let error = hop.connect(&dial(Security::Opportunistic)).unwrap_err();
        assert!(matches!(error, ConnectError::Handshake(_)), "{error:?}");
        hop.heard();
    }
    let hop = Hop::play(&[&OFFER[..], &TRANSACTION, &QUIT].concat());
    let mut client = hop.connect(&dial(Security::Clear)).unwrap();
    assert_eq!(brief(&deliver(&mut client, &BOB, MESSAGE)[0]), "Delivered 2.6.0");
    client.quit();
    hop.heard();
}

#[test]
fn octets_between_starttls_and_the_handshake_end_the_connection() {
    let script = [&OFFER[..], &["C: STARTTLS", "S: 220 go on", "S: 250 injected"]].concat();
    let connector = trusting();
    for security in [Security::Opportunistic, verified("localhost", &connector)] {
        let hop = Hop::play(&script);
        let answer = refusal(&hop, &dial(security));
        assert_eq!(answer.verdict, Verdict::Later);
        assert!(answer.text.contains("between STARTTLS and the handshake"), "{answer:?}");
        // Not even QUIT.
        assert_eq!(hop.heard().rest, "");
    }
}

#[test]
fn silence_and_closes_are_the_same_under_tls() {
    let timeout = Duration::from_millis(300);
    let begin = [&OFFER[..], &TLS].concat();
    for end in
        [&[][..], &["[close]"], &["S: 250 a", "C: MAIL*", "[close]"], &["S: 250 a", "C: MAIL*"]]
    {
        let hop = Hop::play(&[&begin[..], end].concat());
        let answer = match hop.connect(&Dial { timeout, ..dial(Security::Opportunistic) }) {
            Ok(mut client) => deliver(&mut client, &BOB, MESSAGE).remove(0),
            Err(error) => Some(refused(error)),
        };
        assert_eq!(brief(&answer), "Later 4.4.2", "{end:?}");
        assert_eq!(hop.heard().rest, "");
    }
}

#[test]
fn a_handshake_that_does_not_come_ends_at_its_deadline() {
    let timeout = Duration::from_millis(200);
    let connector = trusting();
    let hop = Hop::play(&[&OFFER[..], &["C: STARTTLS", "S: 220 go on"]].concat());
    let dial = Dial { timeout, ..dial(Security::Opportunistic) };
    assert!(matches!(hop.connect(&dial).unwrap_err(), ConnectError::Handshake(_)));
    hop.heard();

    let hop = Hop::play(&[]);
    let security =
        Security::Verified { host: "localhost", connector: &connector, from_first_octet: true };
    assert_eq!(brief(&Some(refusal(&hop, &Dial { security, ..dial }))), "Later 4.7.5");
    hop.heard();
}

fn verified<'a>(host: &'a str, connector: &'a TlsConnector) -> Security<'a> {
    Security::Verified { host, connector, from_first_octet: false }
}

#[test]
fn a_server_that_proves_its_name_gets_the_letter() {
    let server = TestServer::with_needs(&["tls".to_owned()]);
    let connector = trusting();
    let dial = dial(verified("localhost", &connector));
    let mut client = Client::connect("localhost", server.address, &dial).unwrap();
    let answers = deliver(&mut client, &["bob@localhost"], MESSAGE);
    assert_eq!(brief(&answers[0]), "Delivered 2.6.0");
    client.quit();
    let text = fs::read_to_string(&server.new_files("bob")[0]).unwrap();
    assert!(text.contains("with ESMTPS (TLS"), "{text}");
}

#[test]
fn without_proof_nothing_is_sent_and_the_password_least_of_all() {
    let (connector, stranger) = (trusting(), TlsConnector::new().unwrap());
    let credentials = ann();
    let auth = [&OFFER[..3], &["S: 250-AUTH PLAIN CRAM-MD5"], &OFFER[3..]].concat();
    let login = [&OFFER[..3], &["S: 250 AUTH PLAIN CRAM-MD5"]].concat();
    let asked = ["C: STARTTLS", "S: 220 go on", "[tls]"];
    for (host, connector, begin, end) in [
        ("other.example", &connector, &auth, &asked[..]),
        ("localhost", &stranger, &auth, &asked),
        ("localhost", &connector, &login, &["C: STARTTLS", "S: 502 no", "C: QUIT", "[close]"]),
        ("localhost", &connector, &auth, &["C: STARTTLS", "S: 454 no", "C: QUIT", "[close]"]),
        ("localhost", &connector, &auth, &["C: STARTTLS", "S: 220 go on", "[noise]"]),
    ] {
        let hop = Hop::play(&[&begin[..], end].concat());
        let dial = Dial { login: Some(&credentials), ..dial(verified(host, connector)) };
        let answer = refusal(&hop, &dial);
        assert_eq!(answer.verdict, Verdict::Later, "{end:?}: {answer:?}");
        assert!(!hop.heard().rest.contains("AUTH"));
    }
    // In the wrong hands a login without TLS would be just as easy to ask for.
    for security in [Security::Clear, Security::Opportunistic] {
        let dial = Dial { login: Some(&credentials), ..dial(security) };
        let answer = refused(Client::connect("hop.example", NOBODY, &dial).unwrap_err());
        assert_eq!(answer.text, "a password is sent to a verified server only");
    }
}

#[test]
fn every_mechanism_logs_in_and_a_wrong_password_is_temporary() {
    let connector = trusting();
    for mechanism in Mechanism::ALL.into_iter().filter(|one| !one.takes_token()) {
        let offer = format!("S: 250 AUTH {}", mechanism.name().to_lowercase());
        let begin = [&OFFER[..], &TLS, &["S: 250-a", &offer, "[auth]"]].concat();

        let hop = Hop::play(&[&begin[..], &AFTER_LOGIN, &QUIT].concat());
        let credentials = ann();
        let verified = dial(verified("localhost", &connector));
        let right = Dial { login: Some(&credentials), ..verified };
        let mut client = hop.connect(&right).unwrap();
        assert_eq!(brief(&deliver(&mut client, &BOB, MESSAGE)[0]), "Delivered 2.6.0");
        client.quit();
        hop.heard();

        let hop = Hop::play(&[&begin[..], &QUIT].concat());
        let credentials = with_password("wrong");
        let wrong = Dial { login: Some(&credentials), ..verified };
        let answer = refusal(&hop, &wrong);
        assert_eq!((answer.verdict, answer.by), (Verdict::Later, None));
        // The hop repeats what we said; we do not.
        assert_eq!(answer.text, "hop.example: the login was refused with 535");
        assert_eq!(hop.heard().rest, "");
    }
}

#[test]
fn a_mechanism_that_is_refused_as_such_is_followed_by_the_next_and_a_password_is_not() {
    let connector = trusting();
    let credentials = ann();
    let dial = Dial { login: Some(&credentials), ..dial(verified("localhost", &connector)) };
    let begin = [&OFFER[..], &TLS].concat();
    let (scram, cram) = ("C: AUTH SCRAM-SHA-256 *", "C: AUTH CRAM-MD5");
    for login in [
        &[
            "S: 250-AUTH SCRAM-SHA-256",
            "S: 250 AUTH=CRAM-MD5 PLAIN",
            scram,
            "S: 504 5.5.4 no",
            cram,
        ][..],
        &["S: 250 AUTH PLAIN SCRAM-SHA-256 CRAM-MD5", scram, "S: 534 5.7.9 weak", cram],
        &["S: 250-AUTH CRAM-MD5", "S: 250 AUTH=PLAIN", cram, "S: 334 PDE+", "C: *"],
    ] {
        let login = [login, &["S: 534 5.7.9 weak", "[auth]"][..]].concat();
        let hop = Hop::play(&[&begin[..], &["S: 250-a"], &login, &AFTER_LOGIN, &QUIT].concat());
        let mut client = hop.connect(&dial).unwrap();
        assert_eq!(brief(&deliver(&mut client, &BOB, MESSAGE)[0]), "Delivered 2.6.0");
        client.quit();
        assert_eq!(hop.heard().rest, "");
    }
    for (code, last) in [("535", &QUIT[..1]), ("454", &QUIT[..1]), ("421", &[])] {
        let refusal_line = format!("S: {code} 5.7.0 no");
        let login = ["S: 250-a", "S: 250 AUTH SCRAM-SHA-256 CRAM-MD5", scram, &refusal_line];
        let hop = Hop::play(&[&begin[..], &login, last].concat());
        let answer = refusal(&hop, &dial);
        assert_eq!(answer.text, format!("hop.example: the login was refused with {code}"));
        assert_eq!((hop.heard().rest.as_str(), answer.verdict), ("", Verdict::Later));
    }
    // None is left.
    let login =
        ["S: 250-a", "S: 250 AUTH=CRAM-MD5 GSSAPI", cram, "S: 504 no", "C: QUIT", "[close]"];
    let hop = Hop::play(&[&begin[..], &login].concat());
    assert_eq!(refusal(&hop, &dial).text, "hop.example: the login was refused with 504");
    hop.heard();
}

/// `ann`, and a token of this many octets.
fn with_token(len: usize) -> Credentials {
    Credentials { user: "ann".to_owned(), evidence: Evidence::Token("t".repeat(len)) }
}

#[test]
fn a_token_is_said_by_oauthbearer_or_else_by_xoauth2_and_by_nothing_else() {
    let connector = trusting();
    let credentials = with_token(3);
    let dial = Dial { login: Some(&credentials), ..dial(verified("localhost", &connector)) };
    let begin = [&OFFER[..], &TLS].concat();
    // n,a=ann,^Aauth=Bearer ttt^A^A and user=ann^Aauth=Bearer ttt^A^A
    let bearer = "C: AUTH OAUTHBEARER bixhPWFubiwBYXV0aD1CZWFyZXIgdHR0AQE=";
    let xoauth2 = "C: AUTH XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgdHR0AQE=";
    for login in [
        &["S: 250 AUTH PLAIN XOAUTH2 OAUTHBEARER", bearer, "S: 235 2.7.0 hi"][..],
        &["S: 250 AUTH LOGIN PLAIN XOAUTH2", xoauth2, "S: 235 hi"],
        &["S: 250 AUTH OAUTHBEARER XOAUTH2", bearer, "S: 504 no", xoauth2, "S: 235 hi"],
    ] {
        let hop = Hop::play(&[&begin[..], &["S: 250-a"], login, &AFTER_LOGIN, &QUIT].concat());
        let mut client = hop.connect(&dial).unwrap();
        assert_eq!(brief(&deliver(&mut client, &BOB, MESSAGE)[0]), "Delivered 2.6.0");
        client.quit();
        assert_eq!(hop.heard().rest, "");
    }
    // A password would be no better.
    let hop = Hop::play(&[&begin[..], &["S: 250-a", "S: 250 AUTH PLAIN LOGIN"], &QUIT].concat());
    let answer = refusal(&hop, &dial);
    assert_eq!(answer.text, "hop.example: the server offers no login that we know");
    assert_eq!((hop.heard().rest.as_str(), answer.verdict), ("", Verdict::Later));
}

#[test]
fn a_refused_token_is_answered_as_its_mechanism_wants_it_and_is_temporary() {
    let connector = trusting();
    let credentials = with_token(3);
    let dial = Dial { login: Some(&credentials), ..dial(verified("localhost", &connector)) };
    let begin = [&OFFER[..], &TLS, &["S: 250-a"]].concat();
    for (mechanism, response) in [("OAUTHBEARER", "C: AQ=="), ("XOAUTH2", "C: ")] {
        let offer = format!("S: 250 AUTH {mechanism}");
        let command = format!("C: AUTH {mechanism} *");
        let json = "S: 334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=";
        let login = [&offer, &command, json, response, "S: 535 5.7.8 ttt"];
        let hop = Hop::play(&[&begin[..], &login, &QUIT].concat());
        let answer = refusal(&hop, &dial);
        assert_eq!(answer.text, "hop.example: the login was refused with 535");
        assert_eq!((hop.heard().rest.as_str(), answer.verdict), ("", Verdict::Later));
    }
}

/// RFC 4954 section 4: a command has 512 octets, and only responses may have more.
#[test]
fn a_token_that_makes_the_command_too_long_waits_for_its_challenge() {
    let connector = trusting();
    let begin = [&OFFER[..], &TLS, &["S: 250-a", "S: 250 AUTH OAUTHBEARER"]].concat();
    // `AUTH OAUTHBEARER ` has 17 octets, and CR LF two: 492 of base64 fit, 369 decoded.
    let around = "n,a=ann,\x01auth=Bearer \x01\x01".len();
    for (len, login) in [
        (369 - around, &["C: AUTH OAUTHBEARER bix*", "S: 235 2.7.0 hi"][..]),
        // Some servers say in clear text that they know the mechanism.
        (370 - around, &["C: AUTH OAUTHBEARER", "S: 334 go on", "C: bix*", "S: 235 2.7.0 hi"]),
        (9000, &["C: AUTH OAUTHBEARER", "S: 334 ", "C: bix*", "S: 235 2.7.0 hi"]),
    ] {
        let credentials = with_token(len);
        let dial = Dial { login: Some(&credentials), ..dial(verified("localhost", &connector)) };
        let hop = Hop::play(&[&begin[..], login, &QUIT].concat());
        hop.connect(&dial).unwrap().quit();
        assert_eq!(hop.heard().rest, "", "{len}");
    }
}

#[test]
fn a_server_that_only_says_235_has_not_proved_anything() {
    let connector = trusting();
    let credentials = ann();
    let login = ["S: 250-a", "S: 250 AUTH SCRAM-SHA-256", "C: AUTH SCRAM-SHA-256 *", "S: 235 hi"];
    let hop = Hop::play(&[&OFFER[..], &TLS, &login].concat());
    let dial = Dial { login: Some(&credentials), ..dial(verified("localhost", &connector)) };
    assert_eq!(refusal(&hop, &dial).verdict, Verdict::Later);
    assert_eq!(hop.heard().rest, "");
}

#[test]
fn a_user_logs_in_at_a_real_server_with_starttls_and_with_tls_from_the_first_octet() {
    let connector = trusting();
    let credentials = ann();
    for (role, from_first_octet) in [("role submission", false), ("role submissions", true)] {
        let needs = ["tls", "users ann:{PLAIN}secret", role].map(str::to_owned);
        let server = TestServer::with_needs(&needs);
        let security =
            Security::Verified { host: "localhost", connector: &connector, from_first_octet };
        let dial = Dial { login: Some(&credentials), ..dial(security) };
        let mut client = Client::connect("localhost", server.address, &dial).unwrap();
        let letter = plain("<ann@localhost>", "\nhi\n");
        let to = ["ann@localhost"];
        let answers = deliver_to(&mut client, &letter, &to, &mut "\nhi\n".as_bytes());
        assert_eq!(brief(&answers[0]), "Delivered 2.6.0", "{answers:?}");
        client.quit();

        let other =
            Security::Verified { host: "other.example", connector: &connector, from_first_octet };
        let dial = Dial { security: other, ..dial };
        let answer = refused(Client::connect("x", server.address, &dial).unwrap_err());
        assert_eq!(answer.verdict, Verdict::Later);
    }
}

#[test]
fn where_nobody_listens_it_is_later() {
    let error = Client::connect("hop.example", NOBODY, &dial(Security::Opportunistic)).unwrap_err();
    assert!(error.is_no_connection());
    assert_eq!(brief(&Some(refused(error))), "Later 4.4.1");
    // And a connection that is taken back at once is no greeting.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let closing =
        thread::spawn(move || drop::<(TcpStream, SocketAddr)>(listener.accept().unwrap()));
    let error = Client::connect("hop.example", address, &dial(Security::Clear)).unwrap_err();
    assert_eq!(brief(&Some(refused(error))), "Later 4.4.2");
    closing.join().unwrap();
}
