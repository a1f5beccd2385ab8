//! Chapter 21: mail in the world.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::built;
use crate::common::TestServer;

/// Letters to ann that want an answer, and are from these senders.
const WANTED: [(&str, &str); 4] = [
    ("bob@localhost", "To: Ann <ANN@localhost>\nSubject: lunch\n"),
    ("cem@localhost", "Cc: x@localhost,\n ann@localhost\nSubject: a\n  folded one\n"),
    ("dan@localhost", "To: ann@localhost\nAuto-Submitted: no\n"),
    ("fay@localhost", "To: ann+shop@localhost, info@localhost\nSubject:\n"),
];

/// Letters that want none, and why.
const UNWANTED: [(&str, &str); 12] = [
    ("", "To: ann@localhost\nX: a bounce\n"),
    ("r1@localhost", "To: ann@localhost\nAuto-Submitted: auto-replied\nX: an answer\n"),
    ("r2@localhost", "To: ann@localhost\nauto-submitted: Auto-Generated; x=y\nX: a program\n"),
    ("r3@localhost", "To: ann@localhost\nList-Id: <list.localhost>\nX: a list\n"),
    ("r4@localhost", "To: ann@localhost\nList-Unsubscribe: <mailto:x@y.example>\nX: a list\n"),
    ("r5@localhost", "To: ann@localhost\nPrecedence: bulk\nX: many\n"),
    ("r6@localhost", "To: ann@localhost\nPrecedence: List\nX: many\n"),
    ("r7@localhost", "To: else@localhost\nX: she got a hidden copy\n"),
    ("owner-list@localhost", "To: ann@localhost\nX: a list\n"),
    ("list-request@localhost", "To: ann@localhost\nX: a list\n"),
    ("MAILER-DAEMON@localhost", "To: ann@localhost\nX: a server\n"),
    ("ann@localhost", "To: ann@localhost\nX: herself\n"),
];

/// Puts a letter into a Maildir as ehlo does.
fn put(maildir: &Path, folder: &str, from: &str, header: &str) {
    let count = fs::read_dir(maildir.join("new")).unwrap().count()
        + fs::read_dir(maildir.join("cur")).unwrap().count();
    let text = format!(
        "Return-Path: <{from}>\nReceived: from x\n\tby y; z\nFrom: somebody@else.example\n\
         Message-ID: <{count}@else.example>\n{header}\nAuto-Submitted: in the text\n"
    );
    fs::write(maildir.join(folder).join(format!("{count}.M{count}.localhost")), text).unwrap();
}

/// Runs `vacation` once over a Maildir.
fn run(maildir: &Path, text: &Path, server: &TestServer) {
    let output = Command::new(built("vacation"))
        .args(["--for", "ann@localhost", "--for", "info@localhost"])
        .args(["--server", &server.address.to_string()])
        .args(["--maildir".as_ref(), maildir.as_os_str(), "--text".as_ref(), text.as_os_str()])
        .output()
        .unwrap_or_else(|error| panic!("write examples/vacation.rs and build it: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An example `vacation` answers the letters in a Maildir, in `new/` and `cur/`, once and ends (RFC
/// 3834). `--maildir DIR`, `--for ADDRESS` (repeatable), `--text FILE`, `--server HOST:PORT`.
///
/// An answer goes to the address in `Return-Path`, from `<>`, with `Auto-Submitted: auto-replied`,
/// `In-Reply-To`, a `Subject` that begins with `Auto: `, and the text. Each address gets one in
/// its life: who was answered stands in `DIR/vacation`, an address in small letters a line. No
/// answer gets a letter from `<>`; one that has an `Auto-Submitted` other than `no`, a field that
/// begins with `List-`, or `Precedence` bulk, list or junk; one in which no address of `--for` is
/// in `To` or `Cc` (a detail after `+` does not count); one from an address of `--for`, from
/// `MAILER-DAEMON`, `owner-…` or `…-request`. What stands in the text of a letter does not matter.
#[test]
#[ignore = "exercise 21.1"]
fn exercise_21_1_an_answer_goes_to_people_once_and_never_to_programs() {
    let folder = tempfile::tempdir().unwrap();
    let maildir = folder.path().join("ann");
    for part in ["new", "cur", "tmp"] {
        fs::create_dir_all(maildir.join(part)).unwrap();
    }
    let text = folder.path().join("text");
    fs::write(&text, "I am away.\n.\nBack on Monday.\n").unwrap();
    let server = TestServer::start(&[]);
    for (from, header) in WANTED {
        put(&maildir, "new", from, header);
    }
    put(&maildir, "cur", "seen@localhost", "To: ann@localhost\n");
    for (from, header) in UNWANTED {
        put(&maildir, "new", from, header);
    }
    run(&maildir, &text, &server);
    for (from, header) in WANTED.iter().chain(&[("seen@localhost", "")]) {
        let mailbox = from.split('@').next().unwrap();
        let files = server.new_files(mailbox);
        assert_eq!(files.len(), 1, "{from} wants one answer: {header}");
        let answer = fs::read_to_string(&files[0]).unwrap();
        for part in [
            "Return-Path: <>\n",
            "\nAuto-Submitted: auto-replied\n",
            "\nIn-Reply-To: <",
            "\nSubject: Auto: ",
            "\n\nI am away.\n.\nBack on Monday.\n",
            &format!("\nTo: <{from}>\n"),
        ] {
            assert!(answer.contains(part), "{part:?} is not in the answer to {from}:\n{answer}");
        }
    }
    let answer = fs::read_to_string(&server.new_files("cem")[0]).unwrap();
    assert!(answer.contains("\nSubject: Auto: a folded one\n"), "{answer}");
    for (from, header) in UNWANTED {
        let mailbox = from.split('@').next().unwrap().to_ascii_lowercase();
        let count = if mailbox.is_empty() { 0 } else { server.new_files(&mailbox).len() };
        assert_eq!(count, 0, "<{from}> gets none: {header}");
    }
    // A second letter, and a second run: each has had its answer.
    put(&maildir, "new", "BOB@localhost", "To: ann@localhost\nSubject: again\n");
    run(&maildir, &text, &server);
    assert_eq!(server.new_files("bob").len(), 1, "bob has been told already");
    let told = fs::read_to_string(maildir.join("vacation")).unwrap();
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told.len(), WANTED.len() + 1, "{told:?}");
    assert!(told.contains(&"bob@localhost"), "{told:?}");
}
