//! Letters on their way to other servers: everything a next hop can do to them,
//! and what becomes of each recipient then.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::Client;
use common::child::{ChildServer, EHLO};
use common::hop::{Act, Hop, Moment, Step, say, usual};
use common::mta::{Net, mail, submit, until};
use common::world::{
    ANN, ONE_HOP, TEXT, World, all_flags, at_first, closed_until, dns, in_parallel,
};

#[test]
fn everybody_here_and_elsewhere_is_on_disk_before_the_reply() {
    let open = Arc::new(AtomicBool::new(false));
    let aliases = "both: bob, eve@else.example\n";
    let world = World::with_aliases(aliases, "", ONE_HOP, &[], vec![Box::new(closed_until(&open))]);
    let to = ["cem@here.example", "both@here.example", "dan@else.example", "eve@else.example"];
    let id = world.send(&to);

    for mailbox in ["bob", "cem"] {
        assert_eq!(world.mta.mail("here.example", mailbox).len(), 1, "{mailbox}");
    }
    let envelope = world.mta.envelope(&id).unwrap();
    assert_eq!(envelope.matches("RCPT TO:").count(), 2, "{envelope}");
    open.store(true, Ordering::SeqCst);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["dan@else.example", "eve@else.example"]);
    for mailbox in ["bob", "cem"] {
        assert_eq!(world.mta.mail("here.example", mailbox).len(), 1, "{mailbox}");
    }
    assert!(!world.has_report());
}

#[test]
fn what_is_refused_for_now_is_tried_again_until_it_is_taken() {
    in_parallel(
        [Step::Greeting, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Data, Step::Dot],
        |step| {
            let not_now = Act::Say("451 4.3.0 not now".to_owned());
            let world = World::with_hop("", at_first(step, 2, not_now));
            let id = world.send(&["eve@else.example"]);
            world.until_over(&id);
            assert_eq!(world.hop().connections(), 3, "{step:?}");
            assert_eq!(world.hop().recipients(), ["eve@else.example"], "{step:?}");
            let letter = &world.hop().letters()[0];
            assert!(letter.mail.starts_with("MAIL FROM:<ann@here.example>"), "{letter:?}");
            assert!(letter.text.starts_with("Received: from client.example"), "{letter:?}");
            assert!(letter.text.ends_with("\n\n.A line with a dot.\n"), "{letter:?}");
            assert!(!world.has_report(), "{step:?}");
        },
    );
}

#[test]
fn three_answers_are_three_fates() {
    let world = World::with_hop("", |moment: Moment| {
        let not_now = moment.line.contains("<bob@") && moment.connection == 1;
        match (moment.step, not_now, moment.line.contains("<cem@")) {
            (Step::Rcpt, true, _) => Act::Say("450 4.2.1 not now".to_owned()),
            (Step::Rcpt, _, true) => Act::Say("550 5.1.1 no cem here".to_owned()),
            _ => Act::Usual,
        }
    });
    let id = world.send(&["bob@else.example", "cem@else.example", "dan@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["bob@else.example", "dan@else.example"]);
    assert_eq!(world.only_report().addresses(), ["cem@else.example"]);
    for (name, times) in [("bob", 2), ("cem", 1), ("dan", 1)] {
        assert_eq!(world.hop().count(&format!("RCPT TO:<{name}@")), times, "{name}");
    }
    assert_eq!(world.hop().letters()[1].to, ["bob@else.example"]);
}

#[test]
fn who_does_not_fit_goes_in_another_transaction_of_the_same_attempt() {
    // 552 is what old servers say (RFC 5321 section 4.5.3.1.10).
    in_parallel(["452 4.5.3 too many", "552 5.5.3 too many"], |full| {
        let in_this_one = AtomicUsize::new(0);
        let world = World::with_hop("--retry 3600", move |moment: Moment| match moment.step {
            Step::Mail => {
                in_this_one.store(0, Ordering::SeqCst);
                Act::Usual
            }
            Step::Rcpt if in_this_one.fetch_add(1, Ordering::SeqCst) >= 2 => {
                Act::Say(full.to_owned())
            }
            _ => Act::Usual,
        });
        let to: Vec<String> = (0..5).map(|n| format!("u{n}@else.example")).collect();
        let id = world.send(&to.iter().map(String::as_str).collect::<Vec<_>>());
        world.until_over(&id);
        assert_eq!(world.hop().recipients(), to);
        assert_eq!((world.hop().letters().len(), world.hop().connections()), (3, 1));
    });
}

#[test]
fn a_hop_that_hangs_at_any_step_is_left_and_tried_again() {
    let steps = [Step::Greeting, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Data, Step::Dot];
    in_parallel(steps, |step| {
        let world = World::with_hop("--timeout 0.5", at_first(step, 1, Act::Hang));
        let id = world.send(&["eve@else.example"]);
        world.until_over(&id);
        assert!(world.hop().connections() >= 2, "{step:?}");
        assert_eq!(world.hop().recipients(), ["eve@else.example"], "{step:?}");
        assert!(!world.has_report(), "{step:?}");
    });
}

#[test]
fn a_hop_that_closes_gets_it_again_and_twice_only_if_it_kept_it() {
    let close = |step| (step, Act::Close, 1);
    let cases = [
        close(Step::Greeting),
        close(Step::Ehlo),
        close(Step::Mail),
        close(Step::Rcpt),
        close(Step::Data),
        (Step::Data, Act::CloseInside, 1),
        close(Step::Dot),
        // Nobody can know: the RFC wants it sent again (RFC 5321 section 4.5.4.1).
        (Step::Dot, Act::KeepAndClose, 2),
    ];
    in_parallel(cases, |(step, act, copies)| {
        let world = World::with_hop("", at_first(step, 1, act.clone()));
        let id = world.send(&["eve@else.example"]);
        world.until_over(&id);
        let letters = world.hop().letters();
        assert_eq!(letters.len(), copies, "{step:?} {act:?}");
        assert!(letters.iter().all(|letter| letter.text == letters[0].text));
        assert!(!world.has_report(), "{step:?} {act:?}");
    });
}

#[test]
fn octets_above_127_are_not_sent_to_a_hop_without_8bitmime() {
    let world = World::with_hop("", say(Step::Ehlo, "250-hop.example\r\n250 PIPELINING"));
    let text = "Subject: hello\r\n\r\nGr\u{fc}\u{df}e\r\n";
    let id = world.mta.submit(ANN, &["eve@else.example"], text);
    world.until_over(&id);
    assert_eq!(&world.only_report().only()["Status"], "5.6.3");
    assert_eq!((world.hop().count("MAIL"), world.hop().count("DATA")), (0, 0));

    let world = World::with_hop("", usual);
    let id = world.mta.submit(ANN, &["eve@else.example"], text);
    world.until_over(&id);
    let letter = &world.hop().letters()[0];
    assert!(letter.mail.contains(" BODY=8BITMIME") && letter.text.ends_with("Gr\u{fc}\u{df}e\n"));
}

#[test]
fn a_long_letter_goes_in_chunks_and_again_whenever_nobody_said_that_it_is_there() {
    let text = format!("Subject: hello\r\n\r\n{}", "a line\r\n".repeat(20_000));
    let file = text.replace("\r\n", "\n");
    let full = || Act::Say("452 4.3.1 full".to_owned());
    let cases = [
        (Step::Other, Act::Usual, 1),
        (Step::Chunk, Act::Close, 1),
        (Step::Chunk, full(), 1),
        (Step::Last, Act::Close, 1),
        (Step::Last, full(), 1),
        (Step::Last, Act::KeepAndClose, 2),
    ];
    in_parallel(cases, |(step, act, copies)| {
        let rule = at_first(step, 1, act.clone());
        let world = World::with_hop("", move |moment: Moment| match moment.step {
            Step::Ehlo => Act::Say("250-hop.example\r\n250-PIPELINING\r\n250 CHUNKING".to_owned()),
            _ => rule(moment),
        });
        let id = world.mta.submit(ANN, &["eve@else.example"], &text);
        world.until_over(&id);
        let letters = world.hop().letters();
        assert_eq!(letters.len(), copies, "{step:?} {act:?}");
        assert!(letters.iter().all(|letter| letter.text.ends_with(&file)), "{step:?} {act:?}");
        assert_eq!(world.hop().count("DATA"), 0);
        assert!(!world.has_report(), "{step:?} {act:?}");
    });
}

#[test]
fn a_hop_that_takes_one_recipient_at_a_time_gets_one_at_a_time() {
    let world = World::with_hop("", |moment: Moment| match moment.step {
        Step::Ehlo => Act::Say("250-hop.example\r\n250 LIMITS RCPTMAX=1".to_owned()),
        _ => Act::Usual,
    });
    let to = ["bob@else.example", "cem@else.example", "eve@else.example"];
    let id = world.send(&to);
    world.until_over(&id);
    assert_eq!((world.hop().letters().len(), world.hop().connections()), (3, 1));
    assert_eq!(world.hop().recipients(), to);
}

#[test]
fn a_handshake_that_fails_is_followed_by_the_letter_in_clear() {
    let world = World::with_hop("", |moment: Moment| match moment.step {
        Step::Ehlo => Act::Say("250-hop.example\r\n250 STARTTLS".to_owned()),
        Step::StartTls => Act::SayAndClose("220 go ahead".to_owned()),
        _ => Act::Usual,
    });
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    // In the same attempt.
    assert_eq!((world.hop().connections(), world.hop().count("STARTTLS")), (2, 1));
}

#[test]
fn what_makes_no_sense_is_no_answer_and_the_letter_stays() {
    let say = |text: &str| Act::Say(text.to_owned());
    let acts = [
        Act::Endless,
        say("HTTP/1.1 400 Bad Request"),
        say("\x16\x03\x01\x02"),
        say("999 what"),
        say("550-5.1.1 first\r\nthen"),
        say(&"5".repeat(100_000)),
        say("334 more"),
    ];
    let steps = [Step::Greeting, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Dot];
    let cases = acts.iter().flat_map(|act| steps.iter().map(move |step| (act.clone(), *step)));
    in_parallel(cases, |(act, step)| {
        let rule = act.clone();
        let world = World::with_hop("--retry 3600", move |moment: Moment| {
            if moment.step == step { rule.clone() } else { Act::Usual }
        });
        let id = world.send(&["eve@else.example"]);
        until("it was tried", || world.mta.attempts(&id) != Some(0));
        let envelope = world.mta.envelope(&id);
        let envelope = envelope.unwrap_or_else(|| panic!("gone: {step:?} {act:?}"));
        assert!(envelope.contains("\nSTATE waiting 4."), "{envelope}");
        assert!(envelope.is_ascii() && envelope.lines().count() == 12, "{envelope}");
        assert!(!world.has_report() && world.hop().letters().is_empty(), "{step:?} {act:?}");
    });
}

#[test]
fn only_a_letter_that_needs_smtputf8_wants_it_of_the_next_hop() {
    let plain = say(Step::Ehlo, "250-hop\r\n250 8BITMIME");
    let world = World::with_hop("", plain);
    for (text, arrives) in [
        ("Subject: x\r\n\r\ny\r\n", 1),
        ("Subject: x\r\n\r\ngr\u{fc}n\r\n", 1),
        ("Subject: gr\u{fc}n\r\n\r\n", 0),
    ] {
        let mut client = Client::connect(world.mta.address);
        assert_eq!(&client.ask("EHLO client.example")[..3], "250");
        let before = world.hop().letters().len();
        client.all_granted(&[&format!("MAIL FROM:<{ANN}> SMTPUTF8"), "RCPT TO:<eve@else.example>"]);
        assert_eq!(&client.ask("DATA")[..3], "354");
        let reply = client.message(text);
        world.until_over(reply.strip_prefix("250 2.6.0 stored as ").unwrap().trim());
        assert_eq!(world.hop().letters().len() - before, arrives, "{text}");
    }
    assert_eq!(&world.only_report().only()["Status"], "5.6.7");
}

#[test]
fn a_server_that_wants_a_login_or_encryption_first_does_not_make_a_bounce() {
    let once = at_first(Step::Mail, 1, Act::Say("530 5.7.0 must issue STARTTLS first".to_owned()));
    let world = World::with_hop("", once);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    assert!(!world.has_report());
}

#[test]
fn what_holds_for_one_recipient_is_not_told_about_another_when_the_host_hangs_up() {
    let busy = at_first(Step::Mail, 1, Act::SayAndClose("421 4.3.2 busy".to_owned()));
    let rules = move |moment: Moment| match moment.step {
        // It offers nothing, so no SMTPUTF8 either.
        Step::Ehlo => Act::Say("250 hop".to_owned()),
        _ => busy(moment),
    };
    let world = World::with_hop("", rules);
    let id = world.mta.submit(ANN, &["eve@else.example", "gr\u{fc}n@else.example"], TEXT);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    // Ann has an address in ASCII, and wrote a header in ASCII.
    assert_eq!(world.only_report().addresses(), ["gr\\x{FC}n@else.example"]);
}

#[test]
fn a_hop_that_sends_replies_without_end_fills_neither_memory_nor_disk_nor_log() {
    // Ten times what may be kept of all replies together, were they kept.
    let reply = format!("451-{}\r\n", "x".repeat(4_000)).repeat(126);
    assert!(reply.len() > 500_000);
    let net = Net::new();
    let _hop = Hop::start(net.address(1), move |moment: Moment| {
        if moment.step == Step::Mail { Act::Say(format!("{reply}451 no")) } else { Act::Usual }
    });
    let dns = dns(&net, ONE_HOP, &[]);
    let spool = tempfile::tempdir().unwrap();
    let flags = all_flags("--retry 3600", &net, &dns).replace("--smtp 127.0.0.1:0", "");
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).unwrap();
    let before = server.peak_memory().unwrap();
    let to: Vec<String> = (0..20).map(|n| format!("u{n}@else.example")).collect();
    let id = submit(server.address, ANN, &to.iter().map(String::as_str).collect::<Vec<_>>(), TEXT);
    let envelope = spool.path().join("queue").join(format!("{id}-1.envelope"));
    let text = || std::fs::read_to_string(&envelope).unwrap();
    until("it was tried", || text().contains("ATTEMPTS 1\n"));
    assert!(text().contains("451 ") && text().len() < 20 * 1_000, "{}", text().len());
    let grown = server.peak_memory().unwrap() - before;
    assert!(grown < 4 * 1024, "{grown} KiB");
    let log = server.stop_and_read_log();
    assert!(log.contains("u19@else.example") && log.len() < 40_000, "{}", log.len());
}

#[test]
fn the_log_tells_of_each_recipient_as_it_was_taken_and_what_was_answered() {
    let net = Net::new();
    let _hop = Hop::start(net.address(1), |moment: Moment| {
        if moment.line.contains("<cem@") {
            Act::Say("550 5.1.1 no cem here".to_owned())
        } else {
            Act::Usual
        }
    });
    let dns = dns(&net, ONE_HOP, &[]);
    let spool = tempfile::tempdir().unwrap();
    let flags = all_flags("", &net, &dns).replace("--smtp 127.0.0.1:0", "");
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).unwrap();
    let to = ["bob@here.example", "cem@else.example", "dan@else.example"];
    let id = submit(server.address, ANN, &to, TEXT);
    until("ann knows", || !mail(spool.path(), "here.example", "ann").is_empty());
    let log = server.stop_and_read_log();
    for words in [
        [&format!("{id}: "), "<ann@here.example>", "<bob@here.example>", "stored", "mailbox <bob@"],
        [&format!("{id}: "), ANN, "<cem@else.example>", "queued", "domain else.example"],
        [&format!("{id}: "), ANN, "<dan@else.example>", "queued", "domain else.example"],
        [
            &format!("{id}-1: "),
            ANN,
            "<cem@else.example>",
            "domain else.example",
            "550 5.1.1 no cem",
        ],
        [&format!("{id}-1: "), ANN, "<dan@else.example>", "domain else.example", "250 2.6.0 taken"],
    ] {
        let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        assert_eq!(lines.count(), 1, "{words:?} in\n{log}");
    }
}

#[test]
fn whoever_gets_a_letter_through_an_alias_is_told_so_by_its_first_field_and_nobody_here_is() {
    let aliases = "friends: bob, eve@else.example\n";
    let world = World::with_aliases(aliases, "", ONE_HOP, &[], vec![Box::new(usual)]);
    let id = world.send(&["friends@here.example", "dan@else.example"]);
    world.until_over(&id);
    let letters = world.hop().letters();
    let to = |who: &str| letters.iter().find(|letter| letter.to == [who]).unwrap();
    let received = "Received: from client.example";
    let field = "Delivered-To: friends@here.example\n";
    let eve = &to("eve@else.example").text;
    assert!(eve.starts_with(&format!("{field}{received}")), "{eve}");
    // Dan may not learn of friends, and bob's file is that of everybody.
    assert!(to("dan@else.example").text.starts_with(received));
    let bob = world.mta.mail("here.example", "bob");
    assert!(!String::from_utf8_lossy(&bob[0]).contains("Delivered-To"));
}

#[test]
fn a_letter_in_ascii_needs_no_smtputf8_after_an_alias_outside_ascii_and_its_loop_is_found() {
    let aliases = "fr\u{fc}nd: eve@else.example\n";
    let world = World::with_aliases(aliases, "", ONE_HOP, &[], vec![Box::new(usual)]);
    let id = world.send(&["fr\u{fc}nd@here.example"]);
    world.until_over(&id);
    let letters = world.hop().letters();
    assert_eq!((letters.len(), world.has_report()), (1, false));
    let letter = &letters[0];
    assert!(!letter.mail.contains("UTF8") && !letter.mail.contains("8BIT"), "{}", letter.mail);
    let mark = "Delivered-To: fr\\x{FC}nd@here.example\n";
    assert!(letter.text.starts_with(mark) && letter.text.is_ascii(), "{}", letter.text);

    let mut client = Client::connect(world.mta.address);
    let to = "RCPT TO:<fr\u{fc}nd@here.example>";
    let mail = format!("MAIL FROM:<{ANN}> SMTPUTF8");
    client.all_granted(&["EHLO client.example"]);
    // Also where the letter is a header and nothing else, and ends with that field.
    for text in [letter.text.replace('\n', "\r\n"), mark.replace('\n', "\r\n")] {
        client.all_granted(&[&mail, to, "DATA"]);
        let reply = client.message(text);
        assert!(reply.starts_with("554 5.4.6 "), "{reply}");
    }
}
