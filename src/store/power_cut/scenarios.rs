//! What is done to a spool before its power fails, and what somebody relies on then.
//!
//! In: nothing. Out: the scenarios of the store, each held to its promises; and each sync
//! of the program is shown to be needed for one of them.
//!
//! Book: docs/07-maildir.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::smtp::answer::Answer;
use crate::store::disk::power::{self, DiskLog, Promise, told, watch};
use crate::store::disk::states::{Order, states};
use crate::store::envelope::{QueuedRecipient, RecipientState};
use crate::store::power_cut::{
    AfterCut, LETTER, SPOOL, Scenario, check, claim, deliver, effort, files, folder, is_thorough,
    open, send, without_each_sync,
};
use crate::store::spool::Spool;

/// Everything that the store does for a letter.
const SCENARIOS: [Scenario; 11] = [
    ("one mailbox", |root| take(root, &["bob@host.example"])),
    ("three mailboxes", |root| {
        take(root, &["bob@host.example", "cem@host.example", "dee@host.example"])
    }),
    ("a mailbox made new", |root| take(root, &["new@host.example"])),
    ("two destinations", |root| {
        take(root, &["bob@host.example", "eva@b.example", "fay@c.example"])
    }),
    ("copies across file systems", copies),
    ("the first letter of a new spool", first_letter),
    ("a mailbox that waited", waiting_mailbox),
    ("an attempt", attempt),
    ("two attempts", two_attempts),
    ("an end", end),
    ("a burial", burial),
];

/// A letter is taken, up to its 250.
fn take(root: &Path, to: &[&'static str]) -> DiskLog {
    let spool = open(root);
    watch(root, || {
        deliver(&spool, LETTER, to).unwrap();
        to.iter().for_each(|who| told(Promise::Has(who)));
    })
}

/// All mailboxes are on a file system of their own.
fn copies(root: &Path) -> DiskLog {
    let to = ["bob@host.example", "cem@host.example"];
    let spool = open(root);
    watch(root, || {
        power::with_far(&root.join(SPOOL).join("mail"), || deliver(&spool, LETTER, &to).unwrap());
        to.iter().for_each(|who| told(Promise::Has(who)));
    })
}

fn first_letter(root: &Path) -> DiskLog {
    let to = ["bob@host.example", "eva@b.example"];
    watch(root, || {
        let spool = Spool::open(&root.join(SPOOL), "host.example").unwrap();
        deliver(&spool, LETTER, &to).unwrap();
        to.iter().for_each(|who| told(Promise::Has(who)));
    })
}

/// The mailbox could not be written when the letter came, and now it can.
fn waiting_mailbox(root: &Path) -> DiskLog {
    let to = ["bob@host.example", "cem@host.example"];
    let spool = open(root);
    let place = root.join(SPOOL).join("mail/host.example/cem");
    fs::write(&place, "").unwrap();
    let id = deliver(&spool, LETTER, &to).unwrap().remove(0);
    fs::remove_file(&place).unwrap();
    watch(root, || {
        to.iter().for_each(|who| told(Promise::Has(who)));
        send(&spool, claim(&spool, &id), &mut AfterCut::default()).unwrap();
    })
}

/// A letter to Bob, who has it, and to two at another server, who wait for it.
fn queued(root: &Path) -> (Arc<Spool>, String) {
    let spool = open(root);
    let id =
        deliver(&spool, LETTER, &["bob@host.example", "eva@b.example", "fay@b.example"]).unwrap();
    (spool, id.concat())
}

/// The next hop takes the letter for Eva, and has no place for Fay.
fn attempt(root: &Path) -> DiskLog {
    let (spool, id) = queued(root);
    watch(root, || {
        told(Promise::Has("bob@host.example"));
        told(Promise::Has("fay@b.example"));
        let mut claim = claim(&spool, &id);
        claim.try_to_write().unwrap();
        note(&mut claim.entry.recipients[0], RecipientState::Ended);
        claim.save().unwrap();
        told(Promise::AtMost("eva@b.example", 0));
    })
}

/// The next time it has.
fn two_attempts(root: &Path) -> DiskLog {
    let (spool, id) = queued(root);
    watch(root, || {
        told(Promise::Has("bob@host.example"));
        let mut claim = claim(&spool, &id);
        claim.try_to_write().unwrap();
        note(&mut claim.entry.recipients[0], RecipientState::Ended);
        claim.save().unwrap();
        told(Promise::AtMost("eva@b.example", 0));
        claim.try_to_write().unwrap();
        claim.end().unwrap();
        told(Promise::AtMost("fay@b.example", 0));
    })
}

/// The next hop takes everything at once.
fn end(root: &Path) -> DiskLog {
    let (spool, id) = queued(root);
    watch(root, || {
        told(Promise::Has("bob@host.example"));
        let claim = claim(&spool, &id);
        claim.try_to_write().unwrap();
        claim.end().unwrap();
        told(Promise::AtMost("eva@b.example", 0));
        told(Promise::AtMost("fay@b.example", 0));
    })
}

/// The letter can go nowhere, and nobody can be told.
fn burial(root: &Path) -> DiskLog {
    let (spool, id) = queued(root);
    watch(root, || {
        let mut claim = claim(&spool, &id);
        for recipient in &mut claim.entry.recipients {
            note(recipient, RecipientState::Failed);
        }
        claim.save().unwrap();
        told(Promise::Has("bob@host.example"));
        told(Promise::Kept);
        claim.bury().unwrap();
    })
}

fn note(recipient: &mut QueuedRecipient, state: RecipientState) {
    recipient.state = state;
    recipient.answer = Some(match state {
        RecipientState::Failed => Answer::never((1, 1), "no such mailbox"),
        _ => Answer::delivered((0, 0), "it has it"),
    });
}

fn log((_, act): &Scenario) -> DiskLog {
    act(folder().path())
}

#[test]
fn a_power_cut_at_any_point_breaks_no_promise() {
    let mut sum = 0;
    for scenario in &SCENARIOS {
        let log = log(scenario);
        let states = check(&log, send, effort());
        let states = states.unwrap_or_else(|why| panic!("{}: {why}", scenario.0));
        println!("{}: {} events, {states} states", scenario.0, log.events.len());
        sum += states;
    }
    assert!(sum > 400, "only {sum} states were looked at");
}

#[test]
fn without_any_one_of_its_syncs_the_program_breaks_a_promise() {
    let mut broken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for scenario in &SCENARIOS {
        for (site, why) in without_each_sync(&log(scenario), send) {
            let all = broken.entry(site).or_default();
            let first_line = |why: String| why.lines().next().unwrap_or_default().to_owned();
            all.extend(why.map(|why| format!("{}: {}", scenario.0, first_line(why))));
        }
    }
    for (site, why) in &broken {
        println!("without {site}\n    {}", why.join("\n    "));
    }
    let needless: Vec<_> = broken.iter().filter(|(_, why)| why.is_empty()).collect();
    assert!(needless.is_empty(), "nothing breaks without {needless:?}");
    // Each that there is was tried.
    assert_eq!(broken.keys().cloned().collect::<BTreeSet<_>>(), all_syncs());
}

#[test]
fn a_stricter_disk_leaves_nothing_that_a_laxer_one_does_not() {
    let log = take(folder().path(), &["bob@host.example", "eva@b.example", "fay@c.example"]);
    let all = 1 << 12;
    let names = |cut, order| -> BTreeSet<_> {
        states(&log, cut, order, all).into_iter().map(|state| state.names).collect()
    };
    for cut in 0..=log.events.len() {
        let [journal, ordered, any] =
            [Order::Journal, Order::Folder, Order::None].map(|order| names(cut, order));
        assert!(journal.is_subset(&ordered) && ordered.is_subset(&any), "after {cut} events");
    }
}

#[test]
fn whoever_goes_on_after_a_kill_relies_on_nothing_that_may_be_lost() {
    let to = ["bob@host.example", "eva@b.example"];
    // The first changes are the folders that everything else is in.
    for changes in (0..).filter(|changes| is_thorough() || *changes < 8 || changes % 7 == 0) {
        let root = folder();
        let spool = root.path().join(SPOOL);
        let mut is_killed = true;
        let log = watch(root.path(), || {
            power::set(Some(changes));
            let begun = Spool::open(&spool, "host.example");
            let given = begun.and_then(|spool| deliver(&spool, LETTER, &to));
            power::set(None);
            is_killed = given.is_err();
            // Another process, and the same mailbox.
            let spool = Spool::open(&spool, "host.example").unwrap();
            deliver(&spool, LETTER, &to).unwrap();
            to.iter().for_each(|who| told(Promise::Has(who)));
        });
        if let Err(why) = check(&log, send, 0) {
            panic!("killed after {changes} changes: {why}");
        }
        if !is_killed {
            break;
        }
    }
}

/// The lines of the program that ask for a sync. What a function syncs in the name of its
/// caller is asked for there.
fn all_syncs() -> BTreeSet<String> {
    const CALLS: [&str; 4] = ["sync_file(", "sync_folder(", "queue.sync()", "self.sync()"];
    let mut syncs = BTreeSet::new();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines: Vec<&str> = code.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let is_sync =
                !line.contains("fn ") && CALLS.into_iter().any(|call| line.contains(call));
            let above = &lines[index.saturating_sub(2)..index];
            if is_sync && !above.iter().any(|line| line.trim() == "#[track_caller]") {
                syncs.insert(format!("{}:{}", path.display(), index + 1));
            }
        }
    }
    syncs
}

/// All files of the program, without those of this test.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in files(folder).into_iter().filter(|path| !path.ends_with("power_cut")) {
        if path.is_dir() {
            found.append(&mut sources(&path));
        } else if !path.ends_with("power_cut.rs") {
            found.push(path);
        }
    }
    found
}
