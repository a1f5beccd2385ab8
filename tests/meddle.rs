//! `examples/meddle.rs`, between a client and a server: each rule does what it says, and
//! what no rule names passes as it is.
//!
//! Book: docs/13-the-client-side.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, NOBODY, TestServer, examples, run_with_input, ticks_without_descriptors};

/// How long a test waits for a line that has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program before a server, ended when dropped.
struct Meddle {
    address: SocketAddr,
    child: Child,
    said: Receiver<String>,
}

impl Meddle {
    fn before(server: &TestServer, rules: &[&str]) -> Meddle {
        Meddle::before_address(server.address, rules)
    }

    fn before_address(server: SocketAddr, rules: &[&str]) -> Meddle {
        let mut program = Command::new(examples().join("meddle"));
        program.args(["--listen", "127.0.0.1:0", "--to", &server.to_string()]);
        for rule in rules {
            program.args(["--rule", rule]);
        }
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let ready = lines.next().unwrap();
        let address = ready.strip_prefix("listening smtp ").unwrap().parse().unwrap();
        let (sender, said) = channel();
        thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
        Meddle { address, child, said }
    }

    /// Waits until it says a line with this in it.
    fn until_said(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.said.recv_timeout(left).unwrap_or_else(|_| panic!("never said {text}"));
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Meddle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole letter for a mailbox, and the reply to its final dot.
fn deliver(address: SocketAddr, to: &str) -> String {
    Client::in_data(address, to).message("Subject: hello\r\n\r\n..dot\r\n")
}

#[test]
fn without_rules_a_letter_passes_as_it_is() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &[]);
    assert!(deliver(meddle.address, "bob@localhost").starts_with("250 2.6.0"));
    assert_eq!(server.only_message("bob"), b"Subject: hello\n\n.dot\n");
    meddle.until_said("C: <a message of 25 octets>");
}

#[test]
fn a_client_that_pipelines_gets_its_replies_in_order() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["to carol@* -> 450 4.2.1 not now"]);
    let mut client = Client::connect(meddle.address);
    client.send(
        "EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<bob@localhost>\r\n\
         RCPT TO:<carol@localhost>\r\nRCPT TO:<dan@localhost>\r\nDATA\r\n",
    );
    let codes: Vec<String> = (0..6).map(|_| client.reply()[..3].to_owned()).collect();
    assert_eq!(codes, ["250", "250", "250", "450", "250", "354"]);
    assert!(client.message("hello\r\n").starts_with("250"));
    assert!(server.new_files("carol").is_empty());
    for name in ["bob", "dan"] {
        assert_eq!(server.only_message(name), b"hello\n");
    }
}

#[test]
fn a_rule_with_a_count_is_used_up_over_all_connections() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["2x connect -> 421 4.3.2 busy"]);
    for _ in 0..2 {
        let mut client = Client::silent(meddle.address);
        assert_eq!(client.reply(), "421 4.3.2 busy");
        assert_eq!(client.reply(), "", "closed");
    }
    assert!(deliver(meddle.address, "bob@localhost").starts_with("250"));
}

#[test]
fn the_first_rule_that_fits_counts_and_pass_is_one() {
    let server = TestServer::start(&[]);
    let rules = ["to bob@* -> pass", "rcpt to:<*> -> 550 5.7.1 no", "noop -> 299 fine"];
    let meddle = Meddle::before(&server, &rules);
    let mut client = Client::connect(meddle.address);
    client.all_granted(&["EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>"]);
    assert_eq!(client.ask("RCPT TO:<carol@localhost>"), "550 5.7.1 no");
    assert_eq!(client.ask("NOOP"), "299 fine");
}

#[test]
fn a_message_that_is_answered_here_never_gets_to_the_server() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["1x dot -> 554 5.7.1 spam"]);
    let mut client = Client::in_data(meddle.address, "bob@localhost");
    assert_eq!(client.message("first\r\n"), "554 5.7.1 spam");
    client.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"]);
    assert!(client.message("second\r\n").starts_with("250"));
    assert_eq!(server.only_message("bob"), b"second\n");
}

#[test]
fn a_rule_at_data_is_done_also_where_the_message_would_be_answered_here() {
    let server = TestServer::start(&[]);
    let rules = ["2x DATA -> close", "DATA -> cut 10", "dot -> 450 4.2.0 x"];
    let meddle = Meddle::before(&server, &rules);
    let envelope = ["EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>"];
    for _ in 0..2 {
        let mut client = Client::connect(meddle.address);
        client.all_granted(&envelope);
        assert_eq!(client.ask("DATA"), "", "closed");
    }
    let mut client = Client::in_data(meddle.address, "bob@localhost");
    client.send("Subject: hello\r\n");
    assert_eq!(client.reply(), "", "closed without a word");
    // A message that is shorter than the cut has its dot, and the server has not.
    let mut client = Client::in_data(meddle.address, "bob@localhost");
    assert_eq!(client.message("x\r\n"), "450 4.2.0 x");
    assert_eq!(client.reply(), "", "closed");
    assert!(server.new_files("bob").is_empty());
}

#[test]
fn a_rule_for_one_message_is_not_taken_for_that_of_another_client_too() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["1x dot -> 450 4.2.0 x"]);
    let mut clients = [(); 2].map(|()| Client::in_data(meddle.address, "bob@localhost"));
    assert_eq!(clients[0].message("first\r\n"), "450 4.2.0 x");
    assert!(clients[1].message("second\r\n").starts_with("250"));
    assert_eq!(server.only_message("bob"), b"second\n");
}

#[test]
fn a_reply_that_is_lost_leaves_a_letter_that_nobody_heard_of() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["dot -> lose"]);
    assert_eq!(deliver(meddle.address, "bob@localhost"), "", "closed without a word");
    assert_eq!(server.new_files("bob").len(), 1);
}

#[test]
fn a_message_that_is_cut_is_not_stored() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["DATA -> cut 10"]);
    let mut client = Client::in_data(meddle.address, "bob@localhost");
    client.send("Subject: hello\r\n");
    assert_eq!(client.reply(), "", "closed without a word");
    meddle.until_said("hangs up in the middle");
    // The server saw its client go, and has room for the next one.
    assert!(deliver(server.address, "dan@localhost").starts_with("250"));
    assert!(server.new_files("bob").is_empty());
}

#[test]
fn keywords_are_taken_out_and_changed_and_the_reply_is_still_one() {
    let server = TestServer::with_needs(&["tls".to_owned()]);
    let rules = ["EHLO -> drop STARTTLS PIPELINING", "EHLO -> change SIZE = SIZE 7"];
    let meddle = Meddle::before(&server, &rules);
    let mut client = Client::connect(meddle.address);
    client.send("EHLO c.example\r\n");
    let mut lines = String::new();
    let mut reader = BufReader::new(client.tcp().try_clone().unwrap());
    while !lines.lines().last().is_some_and(|line| line.starts_with("250 ")) {
        reader.read_line(&mut lines).unwrap();
    }
    for gone in ["STARTTLS", "PIPELINING", "CHUNKING"] {
        assert!(!lines.contains(gone), "{lines}");
    }
    assert!(lines.contains("\r\n250-SIZE 7\r\n") && lines.contains("8BITMIME"), "{lines}");
}

#[test]
fn tls_passes_and_a_line_behind_starttls_is_what_the_server_must_refuse() {
    let server = TestServer::with_needs(&["tls".to_owned()]);
    let meddle = Meddle::before(&server, &["1x STARTTLS -> inject NOOP"]);
    let mut client = Client::connect(meddle.address);
    client.all_granted(&["EHLO c.example"]);
    assert_eq!(&client.ask("STARTTLS")[..3], "554");
    let mut client = Client::encrypted(meddle.address);
    client.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"]);
    assert!(client.message("under TLS\r\n").starts_with("250"));
    assert_eq!(server.only_message("bob"), b"under TLS\n");
}

#[test]
fn a_line_is_added_to_what_the_server_said() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["NOOP -> append 250 and more"]);
    let mut client = Client::connect(meddle.address);
    assert_eq!(client.ask("NOOP"), "250 2.0.0 ok");
    assert_eq!(client.reply(), "250 and more");
}

#[test]
fn silence_a_close_and_a_reset_are_three_things() {
    let server = TestServer::start(&[]);
    let rules = ["NOOP -> silent", "HELP -> close", "RSET -> reset"];
    let meddle = Meddle::before(&server, &rules);

    let mut client = Client::connect(meddle.address);
    client.tcp().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    client.send("NOOP\r\n");
    let error = client.tcp().read(&mut [0]).unwrap_err();
    assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()), "{error}");
    drop(client);
    meddle.until_said("the client has hung up");

    assert_eq!(Client::connect(meddle.address).ask("HELP"), "");

    let mut client = Client::connect(meddle.address);
    client.send("RSET\r\n");
    let error = client.tcp().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn waiting_and_slowness_take_their_time() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["NOOP -> wait 0.3", "RSET -> slow 100"]);
    let mut client = Client::connect(meddle.address);
    let start = Instant::now();
    client.all_granted(&["NOOP"]);
    assert!(start.elapsed() >= Duration::from_millis(300));
    let start = Instant::now();
    // Six octets there and fourteen back.
    client.all_granted(&["RSET"]);
    assert!(start.elapsed() >= Duration::from_millis(180));
}

#[test]
fn a_password_is_not_told() {
    let needs = ["users ann:{PLAIN}secret", "--allow-plain-auth"].map(str::to_owned);
    let server = TestServer::with_needs(&needs);
    let meddle = Meddle::before(&server, &[]);
    let mut client = Client::connect(meddle.address);
    client.all_granted(&["EHLO c.example", "AUTH PLAIN AGFubgBzZWNyZXQ="]);
    assert!(meddle.until_said("C: AUTH").ends_with("AUTH PLAIN <16 octets>"));
    let mut client = Client::connect(meddle.address);
    client.all_granted(&["EHLO c.example", "AUTH LOGIN", "YW5u", "c2VjcmV0"]);
    assert!(meddle.until_said("octets>").ends_with("C: <4 octets>"));
    assert!(meddle.until_said("octets>").ends_with("C: <8 octets>"));
}

#[test]
fn what_answers_a_334_of_meddle_itself_is_not_told_and_no_rule_applies_to_it() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &["AUTH* -> 334 UGFzc3dvcmQ6", "c2* -> 299 a rule"]);
    let mut client = Client::connect(meddle.address);
    assert_eq!(client.ask("AUTH LOGIN"), "334 UGFzc3dvcmQ6");
    assert_eq!(&client.ask("c2VjcmV0")[..3], "500");
    assert!(meddle.until_said("C: <").ends_with("C: <8 octets>"));
    assert_eq!(client.ask("c2VjcmV0"), "299 a rule");
}

#[test]
fn without_descriptors_it_waits_and_does_not_spin() {
    let server = TestServer::start(&[]);
    let meddle = Meddle::before(&server, &[]);
    let used = ticks_without_descriptors(&meddle.child, meddle.address);
    assert!(used < 40, "{used} of a hundred");
}

#[test]
fn a_rule_that_cannot_be_read_names_the_place_and_shows_the_forms() {
    for (rule, place) in [
        ("connect", "rule 1, at `connect`: expected MOMENT -> ACT"),
        ("-> close", "expected a moment"),
        ("connect -> explode", "at `explode`: expected an act"),
        ("connect -> 999 no", "at `999 no`: expected an act"),
        ("connect -> wait long", "at `wait long`: expected a number of seconds"),
        ("DATA -> slow 0", "expected at least one octet a second"),
        ("EHLO -> change SIZE", "expected WORD = TEXT"),
        ("EHLO -> change = X", "expected WORD = TEXT"),
        ("connect -> cut 5", "at `cut 5`: this cannot be done at that moment"),
        ("MAIL -> drop SIZE", "this cannot be done at that moment"),
    ] {
        let mut program = Command::new(examples().join("meddle"));
        let output = run_with_input(program.args(["--rule", rule]), "");
        assert_eq!(output.status.code(), Some(2), "{rule}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(place) && error.contains("MOMENT  connect"), "{rule}: {error}");
    }
}

#[test]
fn a_rule_that_would_never_fit_is_asked_about() {
    let doubted = ["rcpt bob@*", "to", "tobob@*", "MAIL ann*", "DTAA", "rcpt to bob"];
    let plain =
        ["RCPT", "rcpt to:<b*>", "RCPT *bob*", "MAIL FROM:*", "*", "E*", "to bob", "NOOP x"];
    for moment in doubted.iter().chain(&plain) {
        let mut program = Command::new(examples().join("meddle"));
        // Nobody can listen there, so it ends at once.
        program.args(["--listen", "192.0.2.1:1", "--rule", &format!("{moment} -> close")]);
        let output = run_with_input(&mut program, "");
        assert_eq!(output.status.code(), Some(1), "{moment}");
        let said = String::from_utf8(output.stderr).unwrap();
        let is_doubted = said.contains("rule 1 waits for a line like") && said.contains("did you");
        assert_eq!(is_doubted, doubted.contains(moment), "{moment}: {said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_told_to_the_client() {
    let meddle = Meddle::before_address(NOBODY, &[]);
    let mut client = Client::silent(meddle.address);
    assert_eq!(&client.reply()[..3], "421");
    meddle.until_said("cannot be reached");
}

#[test]
fn help_shows_every_form_that_there_is() {
    let output = Command::new(examples().join("meddle")).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    for word in [
        "connect",
        "COMMAND",
        "to ADDRESS",
        "dot",
        "450",
        "close",
        "reset",
        "silent",
        "lose",
        "wait",
        "slow",
        "cut",
        "drop",
        "change",
        "inject",
        "append",
        "pass",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
