//! Chapter 3: replies.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use ehlo::dialogue::{Dialogue, PlayError};

use crate::built;
use crate::common::TestServer;
use crate::common::child::ChildServer;

/// A dialogue in a file, which the reader has to write.
fn written(path: &str) -> Dialogue {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("write {path}: {error}"));
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether the server answered, and otherwise than the dialogue says.
fn is_found_out(dialogue: &Dialogue, server: SocketAddr) -> bool {
    match dialogue.play(server) {
        Ok(()) => false,
        Err(PlayError::Connect(error)) => panic!("the server is gone: {error}"),
        Err(_) => true,
    }
}

/// What becomes of a line of the server.
type Change = fn(&str) -> String;

/// ehlo, whose lines pass through a change on their way to one client.
fn changed(server: SocketAddr, change: Change) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let to_server = TcpStream::connect(server).unwrap();
        let (mut from_client, mut to) =
            (client.try_clone().unwrap(), to_server.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        for line in BufReader::new(to_server).lines().map_while(Result::ok) {
            if client.write_all(format!("{}\r\n", change(&line)).as_bytes()).is_err() {
                return;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
    address
}

/// `tests/dialogues/no_enhanced_code_stands_where_none_belongs.smtp` tells whether a server has
/// enhanced codes where RFC 2034 section 4 wants none: on the greeting, on the reply to EHLO, on
/// the reply to HELO; and on a 354, for which there is no class 3 (RFC 3463 section 2). It also
/// tells a server that has none where they belong, on the reply to MAIL. ehlo passes it.
#[test]
#[ignore = "exercise 3.1"]
fn exercise_3_1_a_dialogue_tells_enhanced_codes_where_they_do_not_belong() {
    let dialogue = written("tests/dialogues/no_enhanced_code_stands_where_none_belongs.smtp");
    let server = TestServer::start(&[]);
    if let Err(error) = dialogue.play(server.address) {
        panic!("ehlo does it right, and yet: {error}");
    }
    let honest = changed(server.address, str::to_owned);
    assert!(!is_found_out(&dialogue, honest), "the same server from further away");
    let servers: [(&str, Change); 5] = [
        ("the greeting", |line| line.replace("220 ", "220 2.0.0 ")),
        ("the first line of EHLO", |line| line.replace("250-localhost", "250-2.0.0 localhost")),
        ("HELO", |line| line.replace("250 localhost", "250 2.0.0 localhost")),
        ("354", |line| line.replace("354 ", "354 3.0.0 ")),
        ("MAIL, which has none", |line| line.replace("250 2.1.0 ", "250 ")),
    ];
    for (what, change) in servers {
        let address = changed(server.address, change);
        assert!(is_found_out(&dialogue, address), "a code on {what} is not found out");
    }
}

/// Six servers have one flaw each. `cargo run --example exercises -- --flaw 1` builds the first and
/// says where the program is. Find each flaw by dialogues alone, and keep for each the dialogue
/// that tells it, as `tests/exercises/flaws/1.smtp` to `6.smtp`: ehlo passes it, and the flawed server
/// does not.
#[test]
#[ignore = "exercise 3.2"]
fn exercise_3_2_each_of_six_flaws_is_told_by_a_dialogue() {
    let honest = TestServer::start(&[]);
    let mut missed = Vec::new();
    for number in 1..=6 {
        let path = format!("tests/exercises/flaws/{number}.smtp");
        let dialogue = written(&path);
        if let Err(error) = dialogue.play(honest.address) {
            panic!("{path} is wrong about ehlo: {error}");
        }
        let program = flawed(number);
        let spool = tempfile::tempdir().unwrap();
        let server = ChildServer::start(&[program], spool.path(), &[]).unwrap();
        if !is_found_out(&dialogue, server.address) {
            missed.push(number);
        }
    }
    assert!(missed.is_empty(), "these servers pass the dialogue that should tell them: {missed:?}");
}

/// Builds the server with this flaw.
fn flawed(number: u32) -> PathBuf {
    let output = Command::new(built("exercises"))
        .args(["--flaw", &number.to_string()])
        .output()
        .expect("build the examples first: cargo build --examples");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(said)
}
