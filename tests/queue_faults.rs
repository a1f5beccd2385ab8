//! What cannot be written down, or delivered here: who waits then, and for how long.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::child::{ChildServer, EHLO};
use common::hop::{Act, Moment, Step, say, usual};
use common::mta::{mail, submit, until};
use common::world::{ANN, TEXT, World, aliases_flag, always, at_first};
use common::{Client, files};

#[test]
fn nobody_is_sent_a_letter_whose_delivery_could_not_be_noted() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    // Bob is never taken, so that the entry stays; eve is, once the gate is open.
    let rules = move |moment: Moment| match moment.step {
        Step::Rcpt if moment.line.contains("bob") || !gate.load(Ordering::SeqCst) => {
            Act::Say("451 4.3.0 later".to_owned())
        }
        _ => Act::Usual,
    };
    let world = World::with_hop("", rules);
    let id = world.send(&["eve@else.example", "bob@else.example"]);
    until("it was tried", || world.mta.attempts(&id) >= Some(1));
    // A folder stands where the next envelope has to be written.
    let obstacle = world.mta.spool.join("tmp").join(format!("{id}-1.envelope"));
    until("the place is free", || {
        let _ = fs::remove_file(&obstacle);
        fs::create_dir(&obstacle).is_ok()
    });
    open.store(true, Ordering::SeqCst);
    // Many retries fit into this time; at most the one under way gets through.
    until("time has passed", || {
        let age = fs::metadata(&obstacle).unwrap().modified().unwrap().elapsed();
        age.unwrap() > Duration::from_millis(500)
    });
    assert!(world.hop().letters().len() <= 1, "{}", world.hop().letters().len());
    fs::remove_dir(&obstacle).unwrap();
    until("eve has it", || !world.hop().letters().is_empty());
}

#[test]
fn what_was_taken_is_on_disk_before_the_client_says_quit() {
    let envelopes = Arc::new(Mutex::new((PathBuf::new(), String::new())));
    let seen = Arc::clone(&envelopes);
    let rules = move |moment: Moment| match moment.step {
        Step::Rcpt if moment.line.contains("bob") => Act::Say("451 4.3.0 later".to_owned()),
        Step::Other if moment.line.starts_with("QUIT") => {
            let mut seen = seen.lock().unwrap();
            let is_envelope =
                |path: &PathBuf| path.extension().is_some_and(|end| end == "envelope");
            let envelope = common::files(&seen.0).into_iter().find(is_envelope);
            seen.1 = envelope.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
            Act::Usual
        }
        _ => Act::Usual,
    };
    let world = World::with_hop("--retry 3600", rules);
    envelopes.lock().unwrap().0 = world.mta.spool.join("queue");
    let id = world.send(&["eve@else.example", "bob@else.example"]);
    until("it was tried", || world.mta.attempts(&id) == Some(1));
    let seen = envelopes.lock().unwrap().1.clone();
    let eve = "GIVEN <eve@else.example>\nSTATE ended 2.6.0 hop.example 250";
    assert!(seen.contains(eve), "{seen}");
    // Bob may still be taken by the next host; he is not lost if we stop here.
    assert!(seen.contains("GIVEN <bob@else.example>\nSTATE waiting\n"), "{seen}");
    let envelope = world.mta.envelope(&id).unwrap();
    assert!(envelope.contains("STATE waiting 4.3.0 hop.example 451"), "{envelope}");
}

#[test]
fn one_mailbox_that_cannot_be_written_keeps_nobody_waiting_and_has_its_letter_once_it_can() {
    let world = World::start("--retry 0.1", &[], Vec::new());
    let mail = world.mta.spool.join("mail/here.example");
    fs::create_dir_all(&mail).unwrap();
    // A file stands where bob's folder belongs.
    fs::write(mail.join("bob"), "").unwrap();
    let id = world.send(&["bob@here.example", "cem@here.example", "dan@here.example"]);
    let count = |who| world.mta.mail("here.example", who).len();
    assert_eq!((count("cem"), count("dan")), (1, 1));
    until("bob's was tried", || world.mta.attempts(&id) >= Some(2));
    let envelope = world.mta.envelope(&id).unwrap();
    assert!(envelope.contains("FOR mailbox <bob@here.example>"), "{envelope}");
    fs::remove_file(mail.join("bob")).unwrap();
    world.until_over(&id);
    assert_eq!((count("bob"), count("cem"), count("dan")), (1, 1, 1));
    let text = world.mta.mail("here.example", "bob").remove(0);
    assert_eq!(text, world.mta.mail("here.example", "cem").remove(0));
    assert!(!world.has_report());
}

#[test]
fn the_log_names_the_mailbox_that_cannot_be_written_its_path_and_the_reason() {
    let spool = tempfile::tempdir().unwrap();
    fs::create_dir_all(spool.path().join("mail/localhost")).unwrap();
    let path = spool.path().join("mail/localhost/bob");
    fs::write(&path, "").unwrap();
    let server = ChildServer::start(&[EHLO], spool.path(), &[]).unwrap();
    let id = submit(server.address, "ann@localhost", &["bob@localhost", "cem@localhost"], TEXT);
    let line = server.wait_for_log("ERROR");
    for word in [id.as_str(), "<bob@localhost>", path.to_str().unwrap(), "File exists"] {
        assert!(line.contains(word), "{word} in {line}");
    }
}

#[test]
fn a_report_waits_where_the_mailbox_of_the_sender_cannot_be_written_and_the_letter_is_done() {
    let refuse = say(Step::Rcpt, "550 5.1.1 nobody");
    let world = World::with_hop("--retry 0.1 --give-up 3600", refuse);
    let mail = world.mta.spool.join("mail/here.example");
    fs::create_dir_all(&mail).unwrap();
    fs::write(mail.join("ann"), "").unwrap();
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().connections(), 1);
    until("the report was tried", || world.mta.all_attempts().iter().any(|times| *times >= 2));
    fs::remove_file(mail.join("ann")).unwrap();
    until("it is there", || world.mta.queue().is_empty());
    assert_eq!(world.only_report().addresses(), ["eve@else.example"]);
    assert_eq!(world.hop().connections(), 1);
}

#[test]
fn a_report_that_cannot_be_written_is_tried_again_less_and_less_often_and_nobody_else_is_asked() {
    let refuse_later = |moment: Moment| match (moment.step, moment.connection) {
        (Step::Rcpt, 1) => Act::Say("450 4.2.1 not now".to_owned()),
        (Step::Rcpt, _) => Act::Say("550 5.1.1 nobody".to_owned()),
        _ => Act::Usual,
    };
    let mut world = World::with_hop("--retry 3600", refuse_later);
    let id = world.send(&["eve@else.example"]);
    until("it was tried", || world.mta.attempts(&id) == Some(1));
    world.mta.stop();
    // As with a sector of the disk that cannot be read: the header, which comes back with
    // the report, cannot be had.
    let message = world.mta.spool.join("queue").join(format!("{id}-1.message"));
    let aside = world.folder().join("aside");
    fs::rename(&message, &aside).unwrap();
    fs::create_dir(&message).unwrap();
    let begun = Instant::now();
    world.restart("--retry 0.1");
    world.mta.handle.try_all_now();
    until("it was tried some times more", || world.mta.attempts(&id) >= Some(5));
    // 0.2, 0.4 and 0.8 seconds lie between the second attempt and the fifth.
    assert!(begun.elapsed() > Duration::from_millis(1400), "{:?}", begun.elapsed());
    assert_eq!(world.hop().connections(), 2);
    assert!(!world.has_report());
    fs::remove_dir(&message).unwrap();
    fs::rename(&aside, &message).unwrap();
    world.until_over(&id);
    assert_eq!(world.only_report().addresses(), ["eve@else.example"]);
    assert_eq!(world.hop().connections(), 2);
}

#[test]
fn an_attempt_for_which_the_message_cannot_be_opened_counts_like_any_other() {
    let mut world =
        World::with_hop("--retry 3600", at_first(Step::Mail, 1, Act::Say("451 no".to_owned())));
    let id = world.send(&["eve@else.example"]);
    until("it was tried", || world.mta.attempts(&id) == Some(1));
    world.mta.stop();
    // A name that is there, and leads nowhere that could be opened.
    let message = world.mta.spool.join("queue").join(format!("{id}-1.message"));
    let aside = world.folder().join("aside");
    fs::rename(&message, &aside).unwrap();
    let socket = UnixListener::bind(&message).unwrap();
    world.restart("--retry 0.05");
    world.mta.handle.try_all_now();
    until("the attempts are counted", || world.mta.attempts(&id) >= Some(4));
    let envelope = world.mta.envelope(&id).unwrap();
    assert!(envelope.contains("STATE waiting 4.3.0 - "), "{envelope}");
    drop(socket);
    fs::rename(&aside, &message).unwrap();
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
}

/// A letter to an address that may have no place in an envelope, in DNS or in a command,
/// and to somebody else. What is refused at RCPT is not meant; everybody else has it, and
/// of whom it does not reach the sender hears.
#[test]
fn an_address_that_cannot_be_used_costs_nobody_else_the_letter() {
    let label = |c: &str, count: usize| c.repeat(count);
    // As A-labels these have 64 octets and more, or all together more than 255.
    let long_label = format!("bob@{}.example", label("\u{6f22}\u{5b57}", 10));
    let long_name = format!("bob@{}example", format!("{}.", label("\u{fc}", 20)).repeat(8));
    let longest = format!("bob@{}.example", vec![label("x", 61); 4].join("."));
    for hard in [long_label, long_name, longest] {
        let world = World::with_hop("", usual);
        let mut client = Client::connect(world.mta.address);
        assert_eq!(&client.ask("EHLO client.example")[..3], "250");
        client.all_granted(&[&format!("MAIL FROM:<{ANN}> SMTPUTF8")]);
        let is_taken = client.ask(&format!("RCPT TO:<{hard}>")).starts_with("250");
        client.all_granted(&["RCPT TO:<eve@else.example>", "RCPT TO:<cem@here.example>"]);
        assert_eq!(&client.ask("DATA")[..3], "354");
        let reply = client.message(TEXT);
        let id = reply.strip_prefix("250 2.6.0 stored as ").unwrap().trim();
        world.until_over(id);
        until("nothing waits", || world.mta.queue().is_empty());
        assert_eq!(world.hop().recipients(), ["eve@else.example"], "{hard}");
        assert_eq!(world.mta.mail("here.example", "cem").len(), 1, "{hard}");
        assert_eq!(world.reports().len(), usize::from(is_taken), "{hard}");
    }
}

#[test]
fn an_alias_that_leads_to_an_address_of_no_use_is_refused_at_the_start_or_costs_nobody_the_letter()
{
    let folder = tempfile::tempdir().unwrap();
    let hard = format!("hard: bob@{}.example, cem\n", "\u{6f22}\u{5b57}".repeat(10));
    let aliases = aliases_flag(folder.path(), &hard);
    let flags: Vec<&str> = aliases.split_whitespace().collect();
    let spool = folder.path().join("spool");
    let server = match ChildServer::start(&[EHLO], &spool, &flags) {
        Ok(server) => server,
        Err(said) => return assert!(said.contains("aliases:1: "), "{said}"),
    };
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO client.example", "MAIL FROM:<ann@localhost>"]);
    let is_taken = client.ask("RCPT TO:<hard@localhost>").starts_with("250");
    client.all_granted(&["RCPT TO:<dan@localhost>"]);
    assert_eq!(&client.ask("DATA")[..3], "354");
    assert_eq!(&client.message(TEXT)[..3], "250");
    let count = |who| mail(&spool, "localhost", who).len();
    assert_eq!((count("dan"), count("cem")), (1, usize::from(is_taken)));
    until("ann knows", || count("ann") == usize::from(is_taken));
    let queue = || files(&spool.join("queue")).len();
    until("nothing is left, good or bad", || queue() == 0);
}

#[test]
fn a_folder_of_the_spool_that_somebody_removed_is_made_again_for_the_next_letter() {
    for folder in ["queue", "mail", "tmp"] {
        let world = World::with_hop("", usual);
        let spool = &world.mta.spool;
        fs::remove_dir_all(spool.join(folder)).unwrap();
        let id = world.send(&["bob@here.example", "eve@else.example"]);
        world.until_over(&id);
        assert_eq!(world.hop().recipients(), ["eve@else.example"], "{folder}");
        assert_eq!(world.mta.mail("here.example", "bob").len(), 1, "{folder}");
        // One that is for nobody elsewhere, too.
        fs::remove_dir_all(spool.join(folder)).unwrap();
        world.send(&["cem@here.example"]);
        assert_eq!(world.mta.mail("here.example", "cem").len(), 1, "{folder}");
    }
}

#[test]
fn what_is_for_this_server_waits_for_no_silent_host_that_nobody_knows() {
    let domains: Vec<String> = (0..40).map(|number| format!("d{number}.example")).collect();
    let zone: Vec<String> = domains.iter().map(|domain| format!("{domain} A {{1}}")).collect();
    let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
    let silent = always(Step::Greeting, Act::Hang);
    let world = World::start("--timeout 60", &zone, vec![Box::new(silent)]);
    let mail = world.mta.spool.join("mail/here.example");
    fs::create_dir_all(&mail).unwrap();
    // A file stands where bob's folder belongs.
    fs::write(mail.join("bob"), "").unwrap();
    let to: Vec<String> = domains.iter().map(|domain| format!("eve@{domain}")).collect();
    world.send(&to.iter().map(String::as_str).collect::<Vec<_>>());
    until("all places are taken", || world.hop().connections() == 31);
    let bob = world.send(&["cem@here.example", "bob@here.example"]);
    until("bob's was tried", || world.mta.attempts(&bob) >= Some(1));
    fs::remove_file(mail.join("bob")).unwrap();
    world.until_over(&bob);
    assert_eq!(world.mta.mail("here.example", "bob").len(), 1);
    // A report of success has an entry of its own, too.
    let to = ["<cem@here.example> NOTIFY=SUCCESS"];
    world.mta.submit_with(&format!("<{ANN}>"), &to, TEXT);
    until("ann knows", || world.has_report());
    assert_eq!(world.hop().connections(), 31, "the hosts are silent still");
}
