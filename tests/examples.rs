//! The examples as a person runs them.
//!
//! `cargo test` builds them; `cargo test --test examples` alone does not, and
//! would run old ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use common::markdown::Page;
use common::{TestServer, examples};
use ehlo::dialogue::Dialogue;

fn example(name: &str) -> Command {
    Command::new(examples().join(name))
}

/// Runs `send` with a text, against `server`.
fn send(server: SocketAddr, args: &[&str], text: &str) -> Output {
    let mut child = example("send")
        .args(["--server", &server.to_string()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Ends a process when dropped, also after a failed assertion.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn send_delivers_to_all_and_a_bcc_is_in_the_envelope_only() {
    let server = TestServer::start(&[]);
    let args = ["--from", "a@client.example", "--to", "bob@localhost", "--cc", "cem@localhost"];
    let more = ["--bcc", "dan@localhost", "--subject", "Gr\u{fc}\u{df}e\nBcc: x@localhost"];
    let output =
        send(server.address, &[&args[..], &more].concat(), "hello\n.\n.dot\nno end: \u{fc}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"250 2.6.0 stored as M"), "{output:?}");

    let letter = String::from_utf8(server.only_message("bob")).unwrap();
    let (header, body) = letter.split_once("\n\n").unwrap();
    assert_eq!(body, "hello\n.\n.dot\nno end: \u{fc}\n");
    assert!(
        header.starts_with("From: <a@client.example>\nTo: <bob@localhost>\nCc: <cem@localhost>\n")
    );
    assert!(header.contains("\nSubject: =?utf-8?Q?"), "{header}");
    assert!(!header.to_lowercase().contains("bcc") && !header.contains("dan"), "{header}");
    for name in ["cem", "dan"] {
        assert_eq!(server.only_message(name), letter.as_bytes());
    }
}

#[test]
fn send_tells_who_was_refused_and_the_others_still_get_the_letter() {
    let server = TestServer::start(&[]);
    let args = ["--from", "a@client.example", "--to", "x@else.example", "--to", "bob@localhost"];
    let output = send(server.address, &args, "hello\n");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("x@else.example: 550 5.7.1"), "{errors}");
    assert_eq!(server.new_files("bob").len(), 1);
}

#[test]
fn send_says_what_is_wrong_with_its_flags_or_the_server() {
    // A port that was free a moment ago: nobody answers there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (args, code, text) in [
        (&["--from", "a@b.example", "--to", "nobody"][..], 2, "nobody: no @ after the name"),
        (&["--to", "bob@localhost"], 2, "--from"),
        (&["--from", "a@b.example"], 1, "give --to"),
        (&["--from", "a@b.example", "--to", "b@c.example"], 1, "is the server running?"),
    ] {
        let output = send(nobody, args, "");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
}

#[test]
fn check_tells_right_from_wrong_in_its_exit_code() {
    let server = TestServer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let check = |script: &str| {
        let file = folder.path().join("a_claim.smtp");
        fs::write(&file, script).unwrap();
        let output = example("check").arg(server.address.to_string()).arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check("S: 220 *\nC: NOOP\nS: 250 *\n");
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "ok    a claim\n1 right, 0 wrong, 0 passed over\n")
    );
    let (code, text) = check("S: 220 *\nC: NOOP\nS: 251 *\n");
    assert_eq!(code, Some(1));
    assert!(text.contains("line 3: expected `251 *`, found `250 2.0.0 ok`"), "{text}");
    assert_eq!(check("nonsense").0, Some(2));
}

#[test]
fn check_plays_all_dialogues_that_need_nothing_against_a_plain_server() {
    let server = TestServer::start(&["--max-per-client", "0"]);
    let output = example("check").arg(server.address.to_string()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(" 0 wrong, "), "{text}");
}

/// Chapter 2 shows what its plain loop does wrong: these are its dialogues.
#[test]
fn the_plain_loop_is_as_wrong_as_chapter_2_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = example("plain_loop")
        .arg("127.0.0.1:0")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let _ended = Ended(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening plain ").unwrap().parse().unwrap();

    let mut played = 0;
    for fence in Page::read("docs/02-a-plain-loop.md").fences() {
        if fence.lines.first().is_some_and(|line| line.starts_with("S: 220 plain loop")) {
            let dialogue: Dialogue = fence.lines.join("\n").parse().unwrap();
            dialogue.play(address).unwrap_or_else(|error| panic!("{}: {error}", fence.place));
            played += 1;
        }
    }
    assert!(played >= 5, "only {played} dialogues");
}

#[test]
fn talk_ends_when_the_server_closes_and_helps_when_there_is_none() {
    let server = TestServer::start(&[]);
    let mut child = example("talk")
        .arg(server.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    keyboard.write_all(b"QUIT\n").unwrap();
    // The keyboard stays open: nobody has to type once more.
    let output = thread::spawn(move || child.wait_with_output().unwrap()).join().unwrap();
    drop(keyboard);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("220 ") && text.contains("\n221 2.0.0 "), "{text}");
    assert!(output.status.success());

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = example("talk").arg(nobody.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cargo run"));
}
