//! `examples/queue.rs`: its texts, and the program as a person runs it.
//!
//! `cargo test` builds the example; `cargo test --test queue` alone does not, and would
//! run an old one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;
#[path = "../examples/queue/details.rs"]
mod details;
#[path = "../examples/queue/table.rs"]
mod table;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::mta::{Mta, until};
use common::{examples, files};
use details::details;
use ehlo::smtp::address::{ForwardPath, Mailbox, ReversePath};
use ehlo::smtp::answer::Answer;
use ehlo::smtp::dsn::{MailDsn, Notify, OriginalRecipient, RcptDsn, Ret};
use ehlo::smtp::session::Recipient;
use ehlo::smtp::site::Destination;
use ehlo::store::envelope::{Entry, Letter, RecipientState, entries};
use ehlo::store::queue::{Claimed, Queue};
use ehlo::store::spool::{Origin, Spool};
use jiff::{SignedDuration, Timestamp};
use table::{Row, rows, table};

fn now() -> Timestamp {
    Timestamp::from_second(1_795_324_479).unwrap()
}

/// A row of this age, and this many seconds before its next attempt.
fn row(age: i64, left: i64, attempts: u32, recipient: &str, last: &str) -> Row {
    Row {
        id: "M1P2Q3-1".to_owned(),
        arrived: now() - SignedDuration::from_secs(age),
        attempts,
        next: now() + SignedDuration::from_secs(left),
        destination: "smarthost".to_owned(),
        sender: "<ann@host.example>".to_owned(),
        recipient: recipient.to_owned(),
        last: last.to_owned(),
    }
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap().0
}

/// For a recipient elsewhere, who is given as it is.
fn to(address: &str) -> Recipient {
    let mailbox = mailbox(address);
    Recipient {
        address: ForwardPath::Mailbox(mailbox.clone()),
        destination: Destination::Elsewhere(mailbox),
        alias: None,
        dsn: RcptDsn::default(),
    }
}

/// The entry for bob and cem at one destination, which was tried once.
fn entry() -> Entry {
    let letter = Letter {
        reverse_path: ReversePath::Mailbox(mailbox("ann@host.example")),
        dsn: MailDsn { ret: Some(Ret::Full), envid: Some("QQ314".to_owned()) },
        arrived: now() - SignedDuration::from_secs(320),
        skip: 32,
        size: 1000,
        is_8bit: true,
        needs_smtputf8: false,
    };
    let mut cem = to("cem@b.example");
    cem.address = ForwardPath::Mailbox(mailbox("friends@host.example"));
    cem.dsn.notify = Some(Notify::NEVER);
    cem.dsn.orcpt = OriginalRecipient::parse("rfc822;friends@host.example");
    let mut entry = entries(&letter, vec![to("bob@b.example"), cem], false).remove(0);
    (entry.next, entry.attempts) = (now() + SignedDuration::from_secs(250), 1);
    entry.recipients[0].answer = Some(Answer::later((4, 1), "no host answers"));
    entry
}

/// A spool with one letter from `from`, and the id of the letter.
fn spool_with(from: &str, recipients: Vec<Recipient>) -> (tempfile::TempDir, String) {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(root.path(), "host.example").unwrap();
    let name = spool.new_name(Timestamp::now());
    let mut draft = spool.draft(&name, &format!("Return-Path: {from}\n"), None).unwrap();
    draft.write(b"Subject: a \x1b[2J\n\tletter\n\nThe text.\n").unwrap();
    draft.sync().unwrap();
    let (from, _) = ReversePath::parse(from).unwrap();
    let letter = draft.letter(from, MailDsn::default(), Timestamp::now());
    let entries = entries(&letter, recipients, false);
    spool.deliver(draft, &name, entries, Origin::Client).unwrap();
    (root, name.id)
}

/// From ann to bob and cem at one destination, and dee at another.
fn spool() -> (tempfile::TempDir, String) {
    let recipients = ["bob@b.example", "cem@b.example", "dee@c.example"].map(to);
    spool_with("<ann@host.example>", recipients.into())
}

/// Runs the example on this spool: exit code, standard output and standard error.
fn queue(spool: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut program = Command::new(examples().join("queue"));
    let output = program.arg("--spool").arg(spool).args(args).env("NO_COLOR", "1").output();
    let output = output.unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The same, where all has to go well. Gives standard output.
fn done(spool: &Path, args: &[&str]) -> String {
    let (code, out, errors) = queue(spool, args);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{args:?}");
    out
}

fn read(spool: &Path, id: &str) -> Entry {
    Queue::new(spool).read(id).unwrap().unwrap().unwrap()
}

/// The names of the files in the queue.
fn names(spool: &Path) -> Vec<String> {
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files(&spool.join("queue")).iter().map(name).collect()
}

#[test]
fn columns_are_aligned_and_nothing_stands_after_the_last() {
    let rows = [
        row(320, 250, 1, "<bob@else.example>", "450 4.2.1 not now"),
        row(12_000, -5, 12, "<b\u{fc}ro@else.example>", ""),
    ];
    assert_eq!(
        table(&rows, now()),
        "\
ID        AGE  ATTEMPTS  NEXT   DESTINATION  SENDER              RECIPIENT            LAST REPLY
M1P2Q3-1  5m   1         in 4m  smarthost    <ann@host.example>  <bob@else.example>   450 4.2.1 not now
M1P2Q3-1  3h   12        now    smarthost    <ann@host.example>  <b\u{fc}ro@else.example>  -
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
        assert_eq!(words[3..words.len() - 4].join(" "), next);
    }
}

#[test]
fn whoever_waits_has_a_row_and_so_has_a_report_that_is_owed() {
    let mut entry = entry();
    entry.recipients[1].state = RecipientState::Failed;
    entry.recipients[1].answer = Some(Answer::never((1, 1), "no such mailbox"));
    let last: Vec<String> = rows("M1P2Q3-1", &entry).into_iter().map(|row| row.last).collect();
    assert_eq!(last, ["no host answers", "failed, a report is owed: no such mailbox"]);
    entry.recipients[0].state = RecipientState::Ended;
    assert_eq!(rows("M1P2Q3-1", &entry).len(), 1);
}

#[test]
fn details_tell_everything_and_a_header_cannot_move_the_cursor() {
    let header = b"Received: by x\n\tfor you\nSubject: \x1b[2J\\\n";
    assert_eq!(
        details("M1P2Q3-1", &entry(), header, now()),
        "\
M1P2Q3-1
  destination   domain b.example
  alias         none
  sender        <ann@host.example>
  arrived       2026-11-22T05:09:19Z, 5m ago
  next          2026-11-22T05:18:49Z, in 4m
  attempts      1
  size          1000 8-bit octets
  wants         RET=FULL ENVID=QQ314
  recipient     <bob@b.example>
    given as    <bob@b.example>
    wants       nothing said, so a report of failure
    state       waiting
    last reply  no host answers
  recipient     <cem@b.example>
    given as    <friends@host.example>
    wants       NOTIFY=NEVER ORCPT=rfc822;friends@host.example
    state       waiting
    last reply  none

  Received: by x
      for you
  Subject: \\x1b[2J\\\\
"
    );
}

#[test]
fn the_list_has_a_line_for_each_recipient_and_names_what_it_cannot_read() {
    let root = tempfile::tempdir().unwrap();
    Spool::open(root.path(), "host.example").unwrap();
    assert_eq!(done(root.path(), &[]), "Nobody waits: the queue is empty.\n");

    let (root, id) = spool();
    let text = done(root.path(), &[]);
    let found: Vec<(String, String)> = text
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .map(|words| (words[0].clone(), words[5..8].join(" ")))
        .collect();
    let wanted = [
        ("-1", "b.example <ann@host.example> <bob@b.example>"),
        ("-1", "b.example <ann@host.example> <cem@b.example>"),
        ("-2", "c.example <ann@host.example> <dee@c.example>"),
    ];
    assert_eq!(found, wanted.map(|(number, to)| (format!("{id}{number}"), to.to_owned())));

    fs::write(root.path().join("queue/M1P1Q1-1.envelope"), "nonsense\n").unwrap();
    let (code, out, errors) = queue(root.path(), &[]);
    assert_eq!((code, out.lines().count()), (Some(1), 4), "{out}");
    assert!(errors.starts_with("queue: M1P1Q1-1: its envelope: line 1: "), "{errors}");

    assert_eq!(queue(&root.path().join("nowhere"), &[]).0, Some(1));
}

#[test]
fn an_id_is_that_of_an_entry_or_of_a_message_with_all_its_entries() {
    let (root, id) = spool();
    let one = done(root.path(), &["show", &format!("{id}-2")]);
    assert!(one.starts_with(&format!("{id}-2\n")) && one.contains("<dee@c.example>"), "{one}");
    assert!(!one.contains("<bob@b.example>"), "{one}");
    assert!(one.ends_with("\n  Subject: a \\x1b[2J\n      letter\n"), "{one}");
    let all = done(root.path(), &["show", &id]);
    // A second may have gone by.
    let ageless = |text: &str| {
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("arrived")).collect();
        lines.join("\n")
    };
    assert!(all.starts_with(&format!("{id}-1\n")), "{all}");
    assert!(ageless(&all).ends_with(&ageless(&one)), "{all}");
    assert_eq!(names(root.path()).len(), 4);
}

#[test]
fn now_makes_one_entry_due_or_all() {
    let (root, id) = spool();
    let ids = [format!("{id}-1"), format!("{id}-2")];
    let far = Timestamp::now() + SignedDuration::from_hours(2);
    let queue = Queue::new(root.path());
    for id in &ids {
        let Claimed::Ours(mut claim) = queue.claim(id).unwrap() else { panic!("{id}") };
        claim.entry.next = far;
        claim.save().unwrap();
    }
    let is_due = |id| read(root.path(), id).next <= Timestamp::now();
    let out = done(root.path(), &["now", &ids[0]]);
    assert_eq!(
        out,
        format!(
            "{}: due now, for <bob@b.example> <cem@b.example>\n\
             A running server sees this within a minute. After SIGUSR1 it tries everything at once.\n",
            ids[0]
        )
    );
    assert!(is_due(&ids[0]) && !is_due(&ids[1]));
    assert_eq!(done(root.path(), &["now"]).lines().count(), 3);
    assert!(is_due(&ids[1]));
}

#[test]
fn what_is_dropped_is_gone_and_the_other_entries_stay() {
    let (root, id) = spool();
    let to = "<bob@b.example> <cem@b.example>";
    let dropped = format!("{id}-1: dropped, from <ann@host.example> for {to}; nobody is told\n");
    assert_eq!(done(root.path(), &["drop", &format!("{id}-1")]), dropped);
    assert_eq!(names(root.path()), ["envelope", "message"].map(|it| format!("{id}-2.{it}")));
    done(root.path(), &["drop", &id]);
    assert!(names(root.path()).is_empty());
}

#[test]
fn whoever_waits_has_failed_after_a_bounce_with_the_last_answer() {
    let (root, id) = spool();
    let id = format!("{id}-1");
    let queue = Queue::new(root.path());
    let Claimed::Ours(mut claim) = queue.claim(&id).unwrap() else { panic!() };
    claim.entry.recipients[0].answer = Some(Answer::later((4, 1), "no host answers"));
    claim.entry.recipients[1].state = RecipientState::Ended;
    claim.entry.next = Timestamp::now() + SignedDuration::from_hours(2);
    claim.save().unwrap();
    drop(claim);
    let out = done(root.path(), &["bounce", &id]);
    let first = "given back, for <bob@b.example>; the report goes to <ann@host.example>";
    assert_eq!(out.lines().next().unwrap(), format!("{id}: {first}"));
    let entry = read(root.path(), &id);
    assert!(entry.next <= Timestamp::now());
    let [bob, cem] = [0, 1].map(|index| entry.recipients[index].clone());
    let answer = bob.answer.unwrap();
    assert_eq!((bob.state, answer.status.to_string().as_str()), (RecipientState::Failed, "5.0.0"));
    assert!(answer.text.ends_with("delivered; the last answer was no host answers"), "{answer}");
    assert_eq!(cem.state, RecipientState::Ended);
}

#[test]
fn a_bounce_tells_no_sender_who_wants_to_hear_nothing_and_leaves_nothing() {
    let mut bob = to("bob@b.example");
    bob.dsn.notify = Some(Notify::NEVER);
    let (root, id) = spool_with("<ann@host.example>", vec![bob]);
    let out = done(root.path(), &["bounce", &id]);
    assert_eq!(out, format!("{id}-1: ended; its sender wants no report of a failure\n"));
    assert!(names(root.path()).is_empty());
}

#[test]
fn a_bounce_where_nobody_waits_hastens_the_report_that_is_owed_and_changes_no_answer() {
    let (root, id) = spool();
    let id = format!("{id}-2");
    let queue = Queue::new(root.path());
    let Claimed::Ours(mut claim) = queue.claim(&id).unwrap() else { panic!() };
    claim.entry.recipients[0].state = RecipientState::Failed;
    claim.entry.recipients[0].answer = Some(Answer::never((1, 1), "no such mailbox"));
    claim.entry.next = Timestamp::now() + SignedDuration::from_hours(2);
    claim.save().unwrap();
    let before = claim.entry.clone();
    drop(claim);
    let out = done(root.path(), &["bounce", &id]);
    assert!(out.starts_with(&format!("{id}: nobody waits any more; ")), "{out}");
    let after = read(root.path(), &id);
    assert!(after.next <= Timestamp::now());
    assert_eq!(after.recipients, before.recipients);
}

#[test]
fn what_another_process_holds_is_left_alone_and_the_rest_is_done() {
    let (root, id) = spool();
    let held = format!("{id}-1");
    let holder = Queue::new(root.path());
    let Claimed::Ours(claim) = holder.claim(&held).unwrap() else { panic!() };
    let before = names(root.path());
    for command in ["now", "drop", "bounce"] {
        let (code, out, errors) = queue(root.path(), &[command, &held]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{command}");
        assert_eq!(errors, format!("queue: {held}: in use, try again\n"));
    }
    assert_eq!(names(root.path()), before);
    assert_eq!(read(root.path(), &held), claim.entry);
    // Whoever only looks is not kept from it.
    assert!(done(root.path(), &["show", &held]).contains("<bob@b.example>"));
    let (code, out, _) = queue(root.path(), &["drop", &id]);
    assert_eq!((code, out.lines().count()), (Some(1), 1), "{out}");
    assert_eq!(names(root.path()), ["envelope", "message"].map(|it| format!("{held}.{it}")));
}

#[test]
fn an_entry_that_is_not_there_is_1_and_a_wrong_command_is_2_with_the_form() {
    let (root, id) = spool();
    let number_3 = format!("{id}-3");
    for args in [["show", "M1P1Q1"], ["now", "../M1"], ["drop", ""], ["bounce", &number_3]] {
        let (code, out, errors) = queue(root.path(), &args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}");
        assert_eq!(errors, format!("queue: {}: no such entry\n", args[1]));
    }
    for args in [&["show"][..], &["drop"], &["bounce"], &["now", &id, &id], &["list"], &["--x"]] {
        let (code, out, errors) = queue(root.path(), args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}");
        let form = "usage: queue [--spool DIR] [show ID | now [ID] | drop ID | bounce ID]";
        assert_eq!(errors.lines().last(), Some(form), "{args:?}");
    }
    assert_eq!(names(root.path()).len(), 4);
}

#[test]
fn an_entry_that_cannot_be_used_is_set_aside_and_the_log_says_why() {
    let (root, id) = spool();
    fs::remove_file(root.path().join(format!("queue/{id}-2.message"))).unwrap();
    let (code, out, errors) = queue(root.path(), &["drop", &format!("{id}-2")]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(errors.contains("its message is missing"), "{errors}");
    assert!(names(root.path()).contains(&format!("{id}-2.bad")));
}

/// A server on this spool that would try nothing by itself for an hour.
fn server(spool: &Path) -> Mta {
    // Nobody answers there, neither for a name nor for mail.
    let flags = "--smtp 127.0.0.1:0 --hostname host.example --retry 3600 --dns 127.0.0.1:9";
    Mta::start(spool, flags)
}

#[test]
fn a_bounce_while_a_server_runs_is_reported_to_the_sender() {
    let (root, id) = spool_with("<ann@host.example>", vec![to("bob@b.example")]);
    let id = format!("{id}-1");
    let server = server(root.path());
    until("it was tried", || read(root.path(), &id).attempts == 1);
    until("its lock is free", || queue(root.path(), &["bounce", &id]).0 == Some(0));
    // The first time may be too early: its thread is perhaps not done.
    until("it is over", || {
        server.handle.try_all_now();
        names(root.path()).is_empty()
    });
    let reports = server.mail("host.example", "ann");
    assert_eq!(reports.len(), 1);
    let report = String::from_utf8(reports[0].clone()).unwrap();
    for text in ["Final-Recipient: rfc822; bob@b.example\n", "Status: 5.0.0\n", "operator"] {
        assert!(report.contains(text), "{report}");
    }
}

#[test]
fn a_letter_from_nobody_stays_as_dead_after_a_bounce() {
    let (root, id) = spool_with("<>", vec![to("bob@b.example")]);
    let id = format!("{id}-1");
    let out = done(root.path(), &["bounce", &id]);
    let end = format!("it is from <>, so nobody is told, and it stays as {id}.dead");
    assert!(out.lines().next().unwrap().ends_with(&end), "{out}");
    // The next server that starts asks no next hop.
    let server = server(root.path());
    until("it is over", || {
        names(root.path()) == ["dead", "message"].map(|it| format!("{id}.{it}"))
    });
    let dead = fs::read_to_string(root.path().join(format!("queue/{id}.dead"))).unwrap();
    assert!(dead.contains("STATE failed 5.0.0 - given back by the operator"), "{dead}");
    drop(server);
}
