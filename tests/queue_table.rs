//! `examples/queue.rs`: its table, and the program as a person runs it.
//!
//! `cargo test` builds the example; `cargo test --test queue_table` alone does not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

#[path = "../examples/queue/table.rs"]
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ehlo::smtp::address::{Mailbox, ReversePath};
use ehlo::store::envelope::Letter;
use ehlo::store::spool::Spool;
use jiff::{SignedDuration, Timestamp};
use table::{Row, table};

fn now() -> Timestamp {
    Timestamp::from_second(1_795_324_479).unwrap()
}

/// A row of this age, and this many seconds before its next attempt.
fn row(age: i64, left: i64, attempts: u32, recipient: &str, last: &str) -> Row {
    Row {
        id: "M1P2Q3".to_owned(),
        arrived: now() - SignedDuration::from_secs(age),
        attempts,
        next: now() + SignedDuration::from_secs(left),
        sender: "<ann@host.example>".to_owned(),
        recipient: recipient.to_owned(),
        last: last.to_owned(),
    }
}

/// Runs the example on this spool.
fn queue(spool: &Path) -> Output {
    let program: PathBuf = std::env::current_exe().unwrap();
    let program = program.ancestors().nth(2).unwrap().join("examples/queue");
    Command::new(program).arg("--spool").arg(spool).output().unwrap()
}

#[test]
fn columns_are_aligned_and_nothing_stands_behind_the_last() {
    let rows = [
        row(320, 250, 1, "<bob@else.example>", "450 4.2.1 not now"),
        row(12_000, -5, 12, "<b\u{fc}ro@else.example>", ""),
    ];
    assert_eq!(
        table(&rows, now()),
        "\
ID      AGE  ATTEMPTS  NEXT   SENDER              RECIPIENT            LAST REPLY
M1P2Q3  5m   1         in 4m  <ann@host.example>  <bob@else.example>   450 4.2.1 not now
M1P2Q3  3h   12        now    <ann@host.example>  <b\u{fc}ro@else.example>  -
"
    );
}

#[test]
fn times_are_in_the_largest_unit_of_which_there_is_one() {
    let spans = [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3_599, "59m"),
        (3_600, "1h"),
        (86_399, "23h"),
        (86_400, "1d"),
        (500_000, "5d"),
        // A clock that was set back.
        (-10, "0s"),
    ];
    for (age, text) in spans {
        let table = table(&[row(age, age, 0, "<b@c.example>", "")], now());
        let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words[1], text);
        let next = if age > 0 { format!("in {text}") } else { "now".to_owned() };
        assert_eq!(words[3..words.len() - 3].join(" "), next);
    }
}

#[test]
fn the_example_lists_who_waits_and_names_what_it_cannot_read() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(root.path(), "host.example").unwrap();
    spool.queue().make().unwrap();
    let output = queue(root.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stdout, b"Nobody waits: the queue is empty.\n");

    let mailbox = |text| Mailbox::parse(text).unwrap().0;
    let letter = Letter {
        reverse_path: ReversePath::Mailbox(mailbox("ann@host.example")),
        smtputf8: false,
        recipients: vec![mailbox("bob@b.example"), mailbox("cem@c.example")],
        arrived: Timestamp::now(),
    };
    let name = spool.name(Timestamp::now());
    let draft = spool.draft(&name, "Return-Path: <ann@host.example>\n", &[]).unwrap();
    spool.deliver(draft, &name, &[], Some(&letter)).unwrap();
    let output = queue(root.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().skip(1).all(|line| line.starts_with(&name.id)), "{text}");
    assert!(text.contains("<bob@b.example>") && text.contains("<cem@c.example>"), "{text}");

    fs::write(root.path().join("queue/M1.envelope"), "nonsense\n").unwrap();
    let output = queue(root.path());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 3);
    assert!(String::from_utf8(output.stderr).unwrap().contains("M1.envelope: "));

    let output = queue(&root.path().join("nowhere"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
