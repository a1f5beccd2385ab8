//! The examples as a person runs them.
//!
//! `cargo test` builds them; `cargo test --test examples` alone does not, and
//! would run old ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;
#[path = "../examples/load/letters.rs"]
mod letters;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use common::markdown::Page;
use common::{Client, NOBODY, TestServer, examples, run_with_input};
use ehlo::dialogue::Dialogue;
use letters::Letters;

fn example(name: &str) -> Command {
    Command::new(examples().join(name))
}

/// Runs `send` with a text, against `server`.
fn send(server: SocketAddr, args: &[&str], text: &str) -> Output {
    let mut program = example("send");
    run_with_input(program.args(["--server", &server.to_string()]).args(args), text)
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
fn help_goes_to_standard_output_and_a_wrong_flag_ends_with_code_2() {
    for name in [
        "check",
        "dkim_key",
        "exercises",
        "load",
        "meddle",
        "passwd",
        "queue",
        "retry",
        "send",
        "states",
        "token",
        "trust",
    ] {
        let said = |args: &[&OsStr]| {
            let Output { status, stdout, stderr } = example(name).args(args).output().unwrap();
            let text = |octets| String::from_utf8(octets).unwrap();
            (status.code(), text(stdout), text(stderr))
        };
        let (code, text, errors) = said(&["--help".as_ref()]);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{name}");
        assert!(text.starts_with(&format!("Usage: {name} ")), "{name}: {text}");
        for (wrong, told) in
            [("--wrong".as_ref(), "--wrong"), (OsStr::from_bytes(b"\xff"), "is not UTF-8")]
        {
            let (code, text, errors) = said(&[wrong]);
            assert_eq!((code, text.as_str()), (Some(2), ""), "{name}");
            assert!(errors.contains(told), "{name}: {errors}");
        }
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
fn send_encrypts_and_logs_in_only_to_a_server_that_proves_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let login = folder.path().join("login");
    fs::write(&login, "bob:secret\n").unwrap();
    let ca = common::test_file("cert.pem");
    let (ca, login) = (ca.to_str().unwrap(), login.to_str().unwrap());
    let needs = |role: &str| ["tls", "users bob:{PLAIN}secret", role].map(str::to_owned).to_vec();
    let letter = ["--from", "bob@localhost", "--to", "bob@localhost", "--login", login];
    for (role, flag) in [("role submission", "--starttls"), ("role submissions", "--tls")] {
        let server = TestServer::with_needs(&needs(role));
        let output = send(server.address, &[&letter[..], &[flag, "--ca", ca]].concat(), "hello\n");
        assert_eq!(output.status.code(), Some(0), "{role}: {output:?}");
        let text = fs::read_to_string(&server.new_files("bob")[0]).unwrap();
        assert!(text.contains("with ESMTPSA (TLS"), "{text}");

        // Nobody vouches for this server, so it gets neither letter nor password.
        let output = send(server.address, &[&letter[..], &[flag]].concat(), "hello\n");
        assert_eq!(output.status.code(), Some(1), "{role}: {output:?}");
        assert_eq!(server.new_files("bob").len(), 1);
    }
    let server = TestServer::start(&[]);
    for (flags, code, why) in
        [(&[][..], 2, "no password in clear"), (&["--starttls"], 1, "502 5.5.1")]
    {
        let output = send(server.address, &[&letter[..], flags].concat(), "hello\n");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(why), "{errors}");
        assert_eq!(output.status.code(), Some(code));
    }
}

#[test]
fn send_says_what_is_wrong_with_its_flags_or_the_server() {
    for (args, code, text) in [
        (&["--from", "a@b.example", "--to", "nobody"][..], 2, "nobody: no @ after the name"),
        (&["--to", "bob@localhost"], 2, "--from"),
        (&["--from", "a@b.example"], 2, "give --to"),
        (&["--from", "a@b.example", "--to", "b@c.example"], 1, "is the server running?"),
    ] {
        let output = send(NOBODY, args, "");
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
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

    let output = example("talk").arg(NOBODY.to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cargo run"));
}

#[test]
fn talk_goes_on_after_octets_that_are_no_text() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut talk = example("talk");
    talk.arg(listener.local_addr().unwrap().to_string());
    let mut child = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"220 h\xfc\r\n220 hi\r\n").unwrap();
    child.stdin.take().unwrap().write_all(b"caf\xe9\r\nRSET\n").unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"caf\xe9\r\nRSET\r\n");
    drop(server);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, "220 h\u{fffd}\n220 hi\n".as_bytes());
    assert!(output.status.success());
}

/// Runs `load` with a few messages, and gives exit code, output and errors.
fn load(args: &[&str]) -> (Option<i32>, String, String) {
    let output =
        example("load").args(["--sessions", "4", "--messages", "40"]).args(args).output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn load_finds_all_its_messages_whichever_way_they_went() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("latency.svg");
    for args in [
        &[][..],
        &["--pipelined"],
        &["--reconnect"],
        &["--reconnect", "--pipelined", "--size", "70000"],
    ] {
        let (code, text, errors) =
            load(&[args, &["--svg", svg.to_str().unwrap(), "--to", "Bob+x@localhost"]].concat());
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{args:?}: {text}");
        assert!(text.contains("found 40 of 40 messages in "), "{args:?}: {text}");
        let drawing = fs::read_to_string(&svg).unwrap();
        assert!(drawing.starts_with("<svg") && drawing.contains("median: "), "{drawing}");
        fs::remove_file(&svg).unwrap();
    }
}

#[test]
fn load_counts_only_what_came_during_its_run() {
    let server = TestServer::start(&[]);
    let maildir = server.spool().join("mail/localhost/load");
    let address = server.address.to_string();
    for run in 1..=2 {
        let (code, text, errors) =
            load(&["--server", &address, "--maildir", maildir.to_str().unwrap()]);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
        assert!(text.contains("found 40 of 40 messages in "), "{text}");
        assert_eq!(server.new_files("load").len(), run * 40);
    }
}

#[test]
fn load_fails_loudly_if_its_messages_are_not_there() {
    let empty = tempfile::tempdir().unwrap();
    let (code, text, errors) = load(&["--maildir", empty.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("found 0 of 40 messages in "), "{text}");
    assert!(errors.contains("40 MISSING, 0 NOT WHOLE"), "{errors}");
}

#[test]
fn load_knows_a_message_that_is_not_whole() {
    let maildir = tempfile::tempdir().unwrap();
    let new = maildir.path().join("new");
    fs::create_dir(&new).unwrap();
    let letters = Letters::new("bob@localhost", 1024).unwrap();
    let mut sent = String::new();
    let mut stored = |number, change: fn(String) -> String| {
        letters.write(number, &mut sent);
        let text = sent.strip_suffix(".\r\n").unwrap();
        assert_eq!(text.len(), 1024);
        fs::write(new.join(number.to_string()), change(format!("X-Added: 1\r\n{text}"))).unwrap();
    };
    stored(1, |text| text);
    let before = letters::files(maildir.path()).unwrap();
    stored(2, |text| text);
    stored(3, |text| text.replace('\r', ""));
    stored(4, |text| text.replacen("fox", "ox", 1));
    stored(5, |text| text.replace("end of message 0000000005\r\n", ""));
    fs::write(new.join("other"), "Subject: something else\n\nhello\n").unwrap();

    let found = letters::count(&letters, maildir.path(), &before).unwrap();
    let mut whole: Vec<(usize, usize)> = found.whole.into_iter().collect();
    whole.sort_unstable();
    assert_eq!((whole, found.broken), (vec![(2, 1), (3, 1)], 2));
}

#[test]
fn load_tells_what_is_wrong_with_its_flags_or_the_server() {
    let full = TestServer::start(&["--max-connections", "1"]);
    let _only_one = Client::connect(full.address);
    let full = full.address.to_string();
    let server = TestServer::start(&[]);
    let server = server.address.to_string();
    let nobody = NOBODY.to_string();
    for (args, code, text) in [
        (&["--sessions", "0"][..], 2, "--sessions"),
        (&["--size", "20"], 2, "octets or more"),
        (&["--to", "bad"], 2, "bad: no @ after the name"),
        (&["--server", &nobody], 1, "no connection to"),
        (&["--server", &full], 1, "with 421 4.3.2"),
        (&["--server", &server, "--to", "x@else.example"], 1, "with 550 5.7.1"),
        (&["--to", "x@else.example"], 1, "550 5.7.1"),
    ] {
        let (found, _, errors) = load(args);
        assert_eq!(found, Some(code), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
}
