//! What a sender hears of a letter: failures, delays and successes.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::files;
use common::hop::{Act, Moment, Step, say, usual};
use common::mta::{Mta, Net, until};
use common::report::Report;
use common::world::{
    ANN, ONE_HOP, Rules, TEXT, World, all_flags, at_first, closed_until, dns, in_parallel,
};

const LETTER: &str = "Subject: hello\r\n\r\nThe text.\r\n";

/// A rule for a hop that knows DSN.
fn with_dsn(rules: impl Fn(Moment) -> Act + Send + Sync) -> impl Fn(Moment) -> Act + Send + Sync {
    move |moment| match moment.step {
        Step::Ehlo => Act::Say("250-hop.example\r\n250-PIPELINING\r\n250 DSN".to_owned()),
        _ => rules(moment),
    }
}

/// A rule for a hop that has no mailbox of this name.
fn refuse(name: &'static str) -> impl Fn(Moment) -> Act + Send + Sync + 'static {
    move |moment| {
        if moment.step == Step::Rcpt && moment.line.contains(&format!("<{name}@")) {
            Act::Say(format!("550 5.1.1 no {name} here"))
        } else {
            Act::Usual
        }
    }
}

/// A letter from ann with parameters, worked off.
fn send(world: &World, parameters: &str, to: &[&str]) -> String {
    let id = world.mta.submit_with(&format!("<{ANN}>{parameters}"), to, LETTER);
    world.until_over(&id);
    // What follows from it, too: the reports have an entry of their own for a moment.
    until("nothing is under way", || world.mta.queue().is_empty());
    id
}

#[test]
fn a_refusal_for_good_comes_back_to_the_sender_at_once() {
    in_parallel([Step::Mail, Step::Rcpt, Step::Data, Step::Dot], |step| {
        let world = World::with_hop("", say(step, "550 5.7.1 never"));
        let id = world.send(&["eve@else.example"]);
        world.until_over(&id);
        // The bounce is there before the entry goes.
        let report = world.only_report();
        assert_eq!(report.addresses(), ["eve@else.example"], "{step:?}");
        assert_eq!(&report.only()["Status"], "5.7.1", "{step:?}");
        assert_eq!(&report.only()["Diagnostic-Code"], "smtp; 550 5.7.1 never", "{step:?}");
        assert_eq!(world.hop().connections(), 1, "{step:?}");
        until("its message is gone", || world.mta.queue().is_empty());
    });
}

#[test]
fn of_three_recipients_the_refused_one_alone_comes_back() {
    let world = World::with_hop("", refuse("cem"));
    let id = world.send(&["bob@else.example", "cem@else.example", "dan@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["bob@else.example", "dan@else.example"]);
    assert_eq!(world.only_report().addresses(), ["cem@else.example"]);
}

#[test]
fn who_is_down_for_too_long_is_given_up_and_the_others_are_not_named() {
    // Nobody listens at the second address.
    let zone = [ONE_HOP, &["down.example A {2}"]].concat();
    let world = World::start("--give-up 0.4", &zone, vec![Box::new(usual)]);
    let id = world.send(&["bob@else.example", "eve@down.example"]);
    world.until_over(&id);
    let report = world.only_report();
    assert_eq!(report.addresses(), ["eve@down.example"]);
    assert_eq!(&report.only()["Status"], "5.4.7");
    let diagnostic = &report.only()["Diagnostic-Code"];
    assert!(diagnostic.contains("Connection refused"), "{diagnostic}");
    assert_eq!(world.hop().recipients(), ["bob@else.example"]);
}

#[test]
fn the_sender_hears_of_it_at_the_give_up_time_and_not_at_the_next_retry() {
    let world = World::with_hop("--retry 3600 --give-up 0.3", say(Step::Mail, "451 4.3.0 later"));
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(&world.only_report().only()["Status"], "5.4.7");
}

#[test]
fn a_letter_from_nobody_that_fails_makes_no_bounce_and_is_kept() {
    let world = World::with_hop("", say(Step::Rcpt, "550 5.1.1 nobody"));
    let id = world.mta.submit("", &["eve@else.example"], TEXT);
    world.until_over(&id);
    assert_eq!(world.mta.queue(), [format!("{id}-1.dead"), format!("{id}-1.message")]);
    let kept = |what: &str| {
        fs::read_to_string(world.mta.spool.join("queue").join(format!("{id}-1.{what}"))).unwrap()
    };
    let (dead, message) = (kept("dead"), kept("message"));
    assert!(dead.contains("STATE failed 5.1.1 hop.example 550 5.1.1 nobody"), "{dead}");
    assert!(message.starts_with("Return-Path: <>\n") && message.contains("Subject: hello"));
    assert!(!world.mta.spool.join("mail/here.example").exists());
}

#[test]
fn a_letter_whose_sender_has_no_mailbox_here_is_kept_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "ann:{PLAIN}secret\n").unwrap();
    let flags = format!("--users {}", users.display());
    let world = World::with_hop(&flags, say(Step::Rcpt, "550 5.1.1 nobody"));
    let id = world.mta.submit("ghost@here.example", &["eve@else.example"], TEXT);
    world.until_over(&id);
    assert_eq!(world.mta.queue(), [format!("{id}-1.dead"), format!("{id}-1.message")]);
}

#[test]
fn a_bounce_for_somebody_elsewhere_travels_too() {
    let zone = [ONE_HOP, &["away.example MX 10 home.example", "home.example A {2}"]].concat();
    let refuse = say(Step::Rcpt, "550 5.1.1 nobody");
    let world = World::start("", &zone, vec![Box::new(refuse), Box::new(usual)]);
    world.mta.submit("gus@away.example", &["eve@else.example"], TEXT);
    until("all is over", || world.mta.queue().is_empty());
    let letters = world.hops[1].letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].to, ["gus@away.example"]);
    assert!(letters[0].mail.starts_with("MAIL FROM:<>"), "{}", letters[0].mail);
    assert!(!letters[0].text.contains("Return-Path"), "{}", letters[0].text);
    assert_eq!(Report::read(letters[0].text.as_bytes()).addresses(), ["eve@else.example"]);
}

#[test]
fn a_mailbox_that_is_full_is_told_at_once_whatever_the_three_digits_are() {
    let world = World::with_hop("", say(Step::Rcpt, "552 5.2.2 mailbox full"));
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(&world.only_report().only()["Status"], "5.2.2");
    assert_eq!(world.hop().connections(), 1);
}

#[test]
fn a_report_names_the_address_that_the_sender_gave_and_never_what_an_alias_made_of_it() {
    let aliases = "friends: carol@secret.example, dora@secret.example\n\
                   lost: carol@hidden.example\n";
    let zone = ["secret.example A {1}"];
    let rules = |moment: Moment| match moment.step {
        Step::Rcpt => Act::Say(format!("550 5.1.1 {}: no such user", moment.line)),
        _ => Act::Usual,
    };
    for (to, status) in [("friends@here.example", "5.1.1"), ("lost@here.example", "5.1.2")] {
        let world = World::with_aliases(aliases, "", &zone, &[], vec![Box::new(rules)]);
        let id = world.send(&[to]);
        world.until_over(&id);
        let report = world.only_report();
        assert_eq!(report.addresses(), [to]);
        assert_eq!(&report.only()["Status"], status);
        for word in ["carol", "dora", "secret", "hidden"] {
            assert!(!report.text.contains(word), "{word} in {}", report.text);
        }
    }
}

#[test]
fn a_sender_at_our_own_address_in_brackets_has_the_report_in_the_mailbox() {
    let world = World::with_hop("", refuse("eve"));
    let id = world.mta.submit("bob@[127.0.0.1]", &["eve@else.example"], TEXT);
    world.until_over(&id);
    let mail = world.mta.mail("here.example", "bob");
    assert_eq!(mail.len(), 1);
    assert_eq!(Report::read(&mail[0]).addresses(), ["eve@else.example"]);
    until("nothing is left of it", || world.mta.queue().is_empty());
}

#[test]
fn a_header_that_begins_with_the_line_of_a_mailbox_file_comes_back_as_far_as_it_is_one() {
    let world = World::with_hop("", refuse("eve"));
    let text = "From ann@here.example Thu Nov 26 01:00:00 2026\r\nSubject: hello\r\n\r\nx\r\n";
    let id = world.mta.submit(ANN, &["eve@else.example"], text);
    world.until_over(&id);
    let returned = world.only_report().returned;
    assert!(returned.starts_with("Received: from client.example"), "{returned}");
}

/// Everything that RFC 3461 lets a sender say.
const WISHES: &str = " RET=HDRS ENVID=QQ+2B314";
const TO_EVE: &str = "<eve@else.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Eve+2Bx@Orig.example";
const TO_BOB: &str = "<bob@else.example> NOTIFY=NEVER";
const TO_DAN: &str = "<dan@else.example> NOTIFY=FAILURE";

#[test]
fn what_a_sender_wants_to_hear_goes_on_as_it_came_to_a_hop_that_reports_itself() {
    let world = World::with_hop("", with_dsn(usual));
    send(&world, WISHES, &[TO_EVE, TO_BOB, TO_DAN, "<cem@else.example>"]);
    let mail = format!("MAIL FROM:<{ANN}>{WISHES}");
    let rcpt = [TO_EVE, TO_BOB, TO_DAN, "<cem@else.example>"].map(|to| format!("RCPT TO:{to}"));
    let said = world.hop().commands();
    let said: Vec<_> = said.iter().filter(|line| line.contains('<')).collect();
    assert_eq!(said, [vec![&mail], rcpt.iter().collect()].concat());
    assert!(!world.has_report());
}

#[test]
fn the_sender_hears_that_a_letter_was_handed_on_to_a_hop_that_reports_nothing() {
    let world = World::with_hop("", usual);
    let id = send(&world, WISHES, &[TO_EVE, TO_BOB, TO_DAN, "<cem@else.example>"]);
    assert!(world.hop().commands().iter().all(|line| {
        !["RET=", "ENVID=", "NOTIFY=", "ORCPT="].iter().any(|word| line.contains(word))
    }));
    let report = world.only_report();
    assert_eq!(report.addresses(), ["eve@else.example"]);
    assert_eq!(&report.letter["Original-Envelope-Id"], "QQ+314");
    assert_eq!(&report.letter["Reporting-MTA"], "dns; here.example");
    let eve = report.only();
    assert_eq!(&eve["Original-Recipient"], "rfc822; Eve+x@Orig.example");
    assert_eq!((&eve["Action"], &eve["Status"]), ("relayed", "2.6.0"));
    assert_eq!(&eve["Remote-MTA"], "dns; hop.example");
    assert_eq!(report.returned_type, "text/rfc822-headers");
    assert!(report.returned.contains("Subject: hello") && report.text.contains(&id));
    assert!(!report.returned.contains("The text."));
}

#[test]
fn the_sender_hears_that_a_letter_is_in_a_mailbox_here_and_it_is_there_once() {
    let world = World::start("", &[], Vec::new());
    let to = [
        "<bob@here.example> NOTIFY=SUCCESS ORCPT=rfc822;b@o.example",
        "<cem@here.example> NOTIFY=FAILURE,DELAY",
        "<dan@here.example>",
    ];
    send(&world, " ENVID=x RET=FULL", &to);
    for name in ["bob", "cem", "dan"] {
        assert_eq!(world.mta.mail("here.example", name).len(), 1, "{name}");
    }
    let report = world.only_report();
    assert_eq!(
        (report.addresses(), &report.letter["Original-Envelope-Id"]),
        (vec!["bob@here.example"], "x")
    );
    let bob = report.only();
    assert_eq!((&bob["Action"], &bob["Original-Recipient"]), ("delivered", "rfc822; b@o.example"));
    assert!(bob["Status"].starts_with("2."), "{bob:?}");
    // A letter that arrived need not come back (RFC 3461 section 4.3).
    assert_eq!(report.returned_type, "text/rfc822-headers");
}

#[test]
fn a_letter_that_failed_comes_back_as_its_sender_wants() {
    in_parallel(
        [
            ("", "", true, "text/rfc822-headers"),
            (" RET=HDRS", "", true, "text/rfc822-headers"),
            (" RET=FULL", "", true, "message/rfc822"),
            (" RET=FULL", " NOTIFY=FAILURE", true, "message/rfc822"),
            (" RET=FULL", " NOTIFY=SUCCESS,FAILURE", true, "message/rfc822"),
            (" RET=FULL", " NOTIFY=SUCCESS,DELAY", false, ""),
            (" RET=FULL", " NOTIFY=NEVER", false, ""),
        ],
        |(ret, notify, is_told, returned_type)| {
            let world = World::with_hop("", refuse("eve"));
            send(&world, ret, &[&format!("<eve@else.example>{notify}")]);
            assert_eq!(world.has_report(), is_told, "{ret}{notify}");
            assert_eq!(world.hop().connections(), 1);
            if !is_told {
                return;
            }
            let report = world.only_report();
            assert_eq!(report.returned_type, returned_type, "{ret}{notify}");
            assert_eq!(&report.only()["Action"], "failed");
            assert!(report.returned.contains("Subject: hello"));
            let is_whole = report.returned.ends_with("\n\nThe text.\n");
            assert_eq!(is_whole, returned_type == "message/rfc822", "{}", report.returned);
        },
    );
}

#[test]
fn of_a_letter_of_more_than_64_kib_the_header_alone_comes_back() {
    let world = World::with_hop("", refuse("eve"));
    let text = format!("Subject: hello\r\n\r\n{}", "A line of text.\r\n".repeat(5_000));
    let from = format!("<{ANN}> RET=FULL");
    let id = world.mta.submit_with(&from, &["<eve@else.example>"], &text);
    world.until_over(&id);
    let report = world.only_report();
    assert_eq!(report.returned_type, "text/rfc822-headers");
    assert!(report.text.len() < 5_000, "{}", report.text.len());
}

#[test]
fn a_delay_is_told_once_and_only_to_a_sender_who_asked_for_it() {
    let open = Arc::new(AtomicBool::new(false));
    let flags = "--warn 0.15 --retry 0.05 --give-up 3600";
    let world = World::with_hop(flags, closed_until(&open));
    let to = [
        "<eve@else.example> NOTIFY=DELAY",
        "<bob@else.example>",
        "<cem@else.example> NOTIFY=NEVER",
    ];
    let id = world.mta.submit_with(&format!("<{ANN}> ENVID=late"), &to, LETTER);
    until("it was tried often", || world.mta.attempts(&id) >= Some(6));
    let report = world.only_report();
    assert_eq!(report.addresses(), ["eve@else.example"]);
    assert_eq!(&report.letter["Original-Envelope-Id"], "late");
    let eve = report.only();
    assert_eq!(&eve["Action"], "delayed");
    assert!(eve["Status"].starts_with("4."), "{eve:?}");
    assert!(eve.get("Will-Retry-Until").is_some() && eve["Diagnostic-Code"].contains("421 4.3.2"));
    open.store(true, Ordering::SeqCst);
    world.until_over(&id);
    let everybody = ["bob@else.example", "cem@else.example", "eve@else.example"];
    assert_eq!(world.hop().recipients(), everybody);
    assert_eq!(world.reports().len(), 1);
}

#[test]
fn a_delay_is_told_at_its_time_and_not_at_the_next_retry() {
    let flags = "--warn 0.3 --retry 3600 --give-up 7200";
    let world = World::with_hop(flags, say(Step::Mail, "451 4.3.0 later"));
    world.mta.submit_with(&format!("<{ANN}>"), &["<eve@else.example> NOTIFY=DELAY"], LETTER);
    until("ann knows", || world.has_report());
    assert_eq!(&world.only_report().only()["Action"], "delayed");
}

#[test]
fn a_success_is_told_once_for_an_alias_with_several_targets_and_its_name_alone() {
    let aliases = "friends: bob, eve@else.example, carol@other.example\n";
    let zone = [ONE_HOP, &["other.example A {2}"]].concat();
    let hops: Vec<Rules> = vec![Box::new(with_dsn(usual)), Box::new(usual)];
    let world = World::with_aliases(aliases, "", &zone, &[], hops);
    let to = "<friends@here.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;friends@here.example";
    send(&world, " ENVID=x", &[to]);
    let report = world.only_report();
    assert_eq!(report.addresses(), ["friends@here.example"]);
    assert_eq!(&report.only()["Action"], "expanded");
    assert_eq!(world.mta.mail("here.example", "bob").len(), 1);
    // Nobody after us may tell it again.
    let eve = "RCPT TO:<eve@else.example> NOTIFY=FAILURE ORCPT=rfc822;friends@here.example";
    assert_eq!(world.hops[0].count(eve), 1, "{:?}", world.hops[0].commands());
    assert_eq!(world.hops[1].recipients(), ["carol@other.example"]);
    assert!(!report.text.contains("carol") && !report.text.contains("eve@"), "{}", report.text);
}

#[test]
fn a_success_through_an_alias_with_one_target_is_told_of_the_alias() {
    let zone = ["secret.example A {1}"];
    let aliases = "friend: eve@secret.example\n";
    let world = World::with_aliases(aliases, "", &zone, &[], vec![Box::new(usual)]);
    send(&world, "", &["<friend@here.example> NOTIFY=SUCCESS"]);
    let report = world.only_report();
    assert_eq!(report.addresses(), ["friend@here.example"]);
    assert_eq!(&report.only()["Action"], "relayed");
    assert!(!report.text.contains("secret"), "{}", report.text);
}

#[test]
fn the_wishes_of_an_alias_with_one_target_go_on_to_a_hop_that_can_fulfil_them() {
    let zone = ["else.example A {1}"];
    let aliases = "friend: eve@else.example\n";
    let world = World::with_aliases(aliases, "", &zone, &[], vec![Box::new(with_dsn(usual))]);
    send(&world, "", &["<friend@here.example> NOTIFY=SUCCESS ORCPT=rfc822;friend@here.example"]);
    let eve = "RCPT TO:<eve@else.example> NOTIFY=SUCCESS ORCPT=rfc822;friend@here.example";
    assert_eq!(world.hop().count(eve), 1, "{:?}", world.hop().commands());
    // The last server tells of the success, and nobody else does.
    assert!(!world.has_report());
}

#[test]
fn a_letter_from_nobody_makes_no_report_whatever_it_asks_for() {
    let world =
        World::with_hop("--warn 0.05", at_first(Step::Mail, 3, Act::Say("451 no".to_owned())));
    let to =
        ["<eve@else.example> NOTIFY=SUCCESS,DELAY,FAILURE", "<bob@here.example> NOTIFY=SUCCESS"];
    let id = world.mta.submit_with("<> RET=FULL ENVID=x", &to, LETTER);
    world.until_over(&id);
    until("nothing is left of it", || world.mta.queue().is_empty());
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    // Bob has the letter, and nobody has anything else.
    assert_eq!(files(&world.mta.spool.join("mail/here.example")).len(), 1);
    assert_eq!(world.mta.mail("here.example", "bob").len(), 1);
}

#[test]
fn between_two_servers_that_know_dsn_the_last_one_tells_the_sender_and_the_first_says_nothing() {
    let net = Net::new();
    let dns = dns(&net, &["a.example A {1}", "b.example A {2}"], &[]);
    let folder = tempfile::tempdir().unwrap();
    let start = |host: u8, name: &str| {
        let flags = format!("--smtp {} --hostname {name}.example", net.address(host));
        Mta::start(&folder.path().join(name), &all_flags(&flags, &net, &dns))
    };
    let (a, b) = (start(1, "a"), start(2, "b"));
    let to = "<bob@b.example> NOTIFY=SUCCESS ORCPT=rfc822;Bob@b.example";
    a.submit_with("<ann@a.example> ENVID=e+2B1", &[to], LETTER);
    until("ann knows", || !a.mail("a.example", "ann").is_empty());
    until("it is quiet", || [&a, &b, &a, &b].iter().all(|mta| mta.queue().is_empty()));
    let mail = a.mail("a.example", "ann");
    assert_eq!((mail.len(), b.mail("b.example", "bob").len()), (1, 1));
    let report = Report::read(&mail[0]);
    assert_eq!(&report.letter["Reporting-MTA"], "dns; b.example");
    assert_eq!(&report.letter["Original-Envelope-Id"], "e+1");
    let bob = report.only();
    assert_eq!(
        (&bob["Action"], &bob["Original-Recipient"]),
        ("delivered", "rfc822; Bob@b.example")
    );
}

#[test]
fn many_mailboxes_here_have_the_letter_at_once_and_the_sender_one_report_of_all() {
    let world = World::start("", &[], Vec::new());
    let names: Vec<String> = (10..60).map(|number| format!("bob{number}")).collect();
    let to: Vec<String> =
        names.iter().map(|name| format!("<{name}@here.example> NOTIFY=SUCCESS")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    world.mta.submit_with(&format!("<{ANN}>"), &to, LETTER);
    for name in &names {
        assert_eq!(world.mta.mail("here.example", name).len(), 1, "{name}");
    }
    until("nothing is under way", || world.mta.queue().is_empty());
    let report = world.only_report();
    let addresses: Vec<String> = names.iter().map(|name| format!("{name}@here.example")).collect();
    assert_eq!(report.addresses(), addresses);
    assert!(report.recipients.iter().all(|one| &one["Action"] == "delivered"), "{}", report.text);
}

#[test]
fn of_two_addresses_that_lead_to_one_place_the_sender_hears_what_either_asked_for() {
    let aliases = "friend: eve@else.example\nrob: bob\n";
    for (first, second, action) in [
        ("<friend@here.example> NOTIFY=NEVER", "<eve@else.example> NOTIFY=FAILURE", "failed"),
        ("<eve@else.example> NOTIFY=FAILURE", "<friend@here.example> NOTIFY=NEVER", "failed"),
        // Without a wish it is a failure that is told.
        ("<friend@here.example> NOTIFY=NEVER", "<eve@else.example>", "failed"),
        ("<bob@here.example> NOTIFY=NEVER", "<rob@here.example> NOTIFY=SUCCESS", "delivered"),
        ("<rob@here.example>", "<bob@here.example> NOTIFY=SUCCESS", "delivered"),
    ] {
        let hops: Vec<Rules> = vec![Box::new(refuse("eve"))];
        let world = World::with_aliases(aliases, "", ONE_HOP, &[], hops);
        send(&world, "", &[first, second]);
        assert_eq!(&world.only_report().only()["Action"], action, "{first} {second}");
        let copies = usize::from(action == "delivered");
        assert_eq!(world.mta.mail("here.example", "bob").len(), copies, "{first} {second}");
    }
}

#[test]
fn an_original_recipient_outside_ascii_goes_on_in_ascii() {
    let world = World::with_hop("", with_dsn(usual));
    let to = "<eve@else.example> NOTIFY=FAILURE ORCPT=utf-8;\u{fc}@b.example";
    send(&world, " SMTPUTF8", &[to]);
    let rcpt = "RCPT TO:<eve@else.example> NOTIFY=FAILURE ORCPT=utf-8;\\x{FC}@b.example";
    assert_eq!(world.hop().count(rcpt), 1, "{:?}", world.hop().commands());
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
}
