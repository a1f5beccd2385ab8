//! Letters on their way to other servers: everything a next hop can do to them,
//! and what becomes of each recipient then.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mail_parser::MessageParser;
use tempfile::TempDir;

use common::dns::{DnsServer, Trick, tricks};
use common::hop::{Act, Hop, Moment, Step, say, usual};
use common::mta::{Mta, Net, until};
use common::{Client, test_file};

const TEXT: &str = "Subject: hello\r\n\r\n..A line with a dot.\r\n";
const ANN: &str = "ann@here.example";
/// Used unless a test has others.
const FLAGS: [(&str, &str); 5] = [
    ("--smtp", "127.0.0.1:0"),
    ("--hostname", "here.example"),
    ("--relay", "open"),
    ("--retry", "0.05"),
    ("--timeout", "5"),
];
/// Mail for else.example goes to the first hop.
const ONE_HOP: &[&str] = &["else.example MX 10 hop.example", "hop.example A {1}"];

type Rules = Box<dyn Fn(Moment) -> Act + Send + Sync>;

/// A server, and the world that it sends to. Fields are dropped in this order:
/// once the hops are gone nothing can hold the server's shutdown up.
struct World {
    hops: Vec<Hop>,
    mta: Mta,
    dns: DnsServer,
    _folder: TempDir,
}

impl World {
    /// One next hop, for else.example.
    fn with_hop(flags: &str, rules: impl Fn(Moment) -> Act + Send + Sync + 'static) -> World {
        World::start(flags, ONE_HOP, vec![Box::new(rules)])
    }

    /// Next hops at the addresses 1, 2 …, and this zone.
    fn start(flags: &str, zone: &[&str], rules: Vec<Rules>) -> World {
        World::with_tricks(flags, zone, &[], rules)
    }

    fn with_tricks(
        flags: &str,
        zone: &[&str],
        tricks: &[(&'static str, Trick)],
        rules: Vec<Rules>,
    ) -> World {
        let net = Net::new();
        let hops =
            (1..).zip(rules).map(|(host, rules)| Hop::start(net.address(host), rules)).collect();
        let dns = dns(&net, zone, tricks);
        let folder = tempfile::tempdir().unwrap();
        let mta = Mta::start(&folder.path().join("spool"), &all_flags(flags, &net, &dns));
        World { hops, mta, dns, _folder: folder }
    }

    fn hop(&self) -> &Hop {
        &self.hops[0]
    }

    /// From ann, who is here.
    fn send(&self, to: &[&str]) -> String {
        self.mta.submit(ANN, to, TEXT)
    }

    /// Waits until a letter has left the queue.
    fn until_over(&self, id: &str) {
        until("the letter has left the queue", || self.mta.envelope(id).is_none());
    }

    /// The failures in the only bounce that ann has.
    fn only_bounce(&self) -> Vec<Failure> {
        let mail = self.mta.mail("here.example", "ann");
        assert_eq!(mail.len(), 1, "bounces");
        failures(&mail[0])
    }

    fn has_bounce(&self) -> bool {
        !self.mta.mail("here.example", "ann").is_empty()
    }
}

fn dns(net: &Net, zone: &[&str], tricks: &[(&'static str, Trick)]) -> DnsServer {
    let zone = net.zone(zone);
    DnsServer::with_tricks(&zone.iter().map(String::as_str).collect::<Vec<_>>(), tricks)
}

/// The flags of a test, and of [`FLAGS`] those that it does not have itself.
fn all_flags(flags: &str, net: &Net, dns: &DnsServer) -> String {
    let missing: String = FLAGS
        .iter()
        .filter(|(flag, _)| !flags.split(' ').any(|one| one == *flag))
        .map(|(flag, value)| format!(" {flag} {value}"))
        .collect();
    format!("{flags}{missing} --relay-port {} --dns {}", net.port, dns.address)
}

/// What a bounce says about one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    recipient: String,
    status: String,
    diagnostic: String,
}

/// Reads a bounce as a mail program does.
fn failures(bounce: &[u8]) -> Vec<Failure> {
    let bounce = MessageParser::default().parse(bounce).unwrap();
    assert_eq!(bounce.return_path().as_text(), None);
    assert_eq!(bounce.header_raw("Auto-Submitted").unwrap().trim(), "auto-replied");
    let status = &bounce.parts[2];
    let octets = &bounce.raw_message()[status.offset_body as usize..status.offset_end as usize];
    let text = str::from_utf8(octets).unwrap();
    let groups = text.trim_end().split("\n\n").skip(1);
    let failure = |group: &str| {
        let group = format!("{group}\n\n");
        let group = MessageParser::default().parse(group.as_bytes()).unwrap();
        let field = |name: &str| {
            let value = group.header_raw(name).unwrap_or_else(|| panic!("no {name}"));
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        Failure {
            // `rfc822; address`, or `utf-8; address`.
            recipient: field("Final-Recipient").split_once("; ").unwrap().1.to_owned(),
            status: field("Status"),
            diagnostic: field("Diagnostic-Code"),
        }
    };
    groups.map(failure).collect()
}

fn recipients(failures: &[Failure]) -> Vec<&str> {
    failures.iter().map(|failure| failure.recipient.as_str()).collect()
}

/// A rule for a hop that takes nothing until it is opened.
fn closed_until(open: &Arc<AtomicBool>) -> impl Fn(Moment) -> Act + Send + Sync + 'static {
    let open = Arc::clone(open);
    move |moment| match moment.step {
        Step::Greeting if !open.load(Ordering::SeqCst) => {
            Act::SayAndClose("421 4.3.2 not yet".to_owned())
        }
        _ => Act::Usual,
    }
}

/// The same act at one step of the first connections.
fn at_first(step: Step, connections: usize, act: Act) -> impl Fn(Moment) -> Act + Send + Sync {
    move |moment| match moment.step == step && moment.connection <= connections {
        true => act.clone(),
        false => Act::Usual,
    }
}

/// Runs the same test for several cases at a time.
fn in_parallel<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

#[test]
fn a_letter_crosses_three_servers_and_its_fields_tell_the_way() {
    let net = Net::new();
    let to_two = dns(&net, &["far.example MX 10 two.example", "two.example A {2}"], &[]);
    let to_three = dns(&net, &["far.example MX 10 three.example", "three.example A {3}"], &[]);
    let folder = tempfile::tempdir().unwrap();
    let start = |host: u8, name: &str, more: &str, dns: &DnsServer| {
        let flags = format!("--smtp {} --hostname {name} {more}", net.address(host));
        Mta::start(&folder.path().join(name), &all_flags(&flags, &net, dns))
    };
    let three = start(3, "three.example", "--domain far.example", &to_three);
    let two = start(2, "two.example", "", &to_three);
    let one = start(1, "one.example", "", &to_two);
    let id = one.submit("ann@one.example", &["bob@far.example"], TEXT);
    until("the letter is there", || !three.mail("far.example", "bob").is_empty());
    until("the first server is done", || one.queue().is_empty());
    until("the second server is done", || two.queue().is_empty());

    let mail = three.mail("far.example", "bob");
    assert_eq!(mail.len(), 1);
    let text = str::from_utf8(&mail[0]).unwrap();
    assert!(text.starts_with("Return-Path: <ann@one.example>\nReceived: "), "{text}");
    assert_eq!(text.matches("Return-Path:").count(), 1, "{text}");
    assert!(text.ends_with("Subject: hello\n\n.A line with a dot.\n"), "{text}");
    let unfolded = text.replace("\n\t", " ");
    let received: Vec<&str> =
        unfolded.lines().filter(|line| line.starts_with("Received: ")).collect();
    let way = [("two", "three"), ("one", "two"), ("client", "one")];
    assert_eq!(received.len(), way.len(), "{text}");
    for (field, (from, by)) in received.iter().zip(way) {
        assert!(field.starts_with(&format!("Received: from {from}.example (")), "{field}");
        assert!(field.contains(&format!(" by {by}.example ")), "{field}");
    }
    assert!(received[2].contains(&id), "{text}");
}

#[test]
fn everybody_here_and_elsewhere_is_on_disk_before_the_reply() {
    let folder = tempfile::tempdir().unwrap();
    let aliases = folder.path().join("aliases");
    fs::write(&aliases, "both: bob, eve@else.example\n").unwrap();
    let open = Arc::new(AtomicBool::new(false));
    let flags = format!("--aliases {}", aliases.display());
    let world = World::with_hop(&flags, closed_until(&open));
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
    assert!(!world.has_bounce());
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
            assert!(!world.has_bounce(), "{step:?}");
        },
    );
}

#[test]
fn a_refusal_for_good_comes_back_to_the_sender_at_once() {
    in_parallel([Step::Mail, Step::Rcpt, Step::Data, Step::Dot], |step| {
        let world = World::with_hop("", say(step, "550 5.7.1 never"));
        let id = world.send(&["eve@else.example"]);
        world.until_over(&id);
        // The bounce is there before the entry goes.
        let failures = world.only_bounce();
        assert_eq!(recipients(&failures), ["eve@else.example"], "{step:?}");
        assert_eq!(failures[0].status, "5.7.1", "{step:?}");
        assert_eq!(failures[0].diagnostic, "smtp; 550 5.7.1 never", "{step:?}");
        assert_eq!(world.hop().connections(), 1, "{step:?}");
        until("its message is gone", || world.mta.queue().is_empty());
    });
}

#[test]
fn of_three_recipients_the_refused_one_alone_comes_back() {
    let world = World::with_hop("", |moment: Moment| match moment.line.contains("<cem@") {
        true => Act::Say("550 5.1.1 no cem here".to_owned()),
        false => Act::Usual,
    });
    let id = world.send(&["bob@else.example", "cem@else.example", "dan@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["bob@else.example", "dan@else.example"]);
    assert_eq!(recipients(&world.only_bounce()), ["cem@else.example"]);
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
    assert_eq!(recipients(&world.only_bounce()), ["cem@else.example"]);
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
        assert!(!world.has_bounce(), "{step:?}");
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
        assert!(!world.has_bounce(), "{step:?} {act:?}");
    });
}

#[test]
fn who_is_down_for_too_long_is_given_up_and_the_others_are_not_named() {
    // Nobody listens at the second address.
    let zone = [ONE_HOP, &["down.example A {2}"]].concat();
    let world = World::start("--give-up 0.4", &zone, vec![Box::new(usual)]);
    let id = world.send(&["bob@else.example", "eve@down.example"]);
    world.until_over(&id);
    let failures = world.only_bounce();
    assert_eq!(recipients(&failures), ["eve@down.example"]);
    assert_eq!(failures[0].status, "5.4.7");
    let diagnostic = &failures[0].diagnostic;
    assert!(diagnostic.contains("Connection refused"), "{diagnostic}");
    assert_eq!(world.hop().recipients(), ["bob@else.example"]);
}

#[test]
fn a_greeting_of_554_is_final_only_if_all_hosts_say_it() {
    let zone = [
        "else.example MX 10 hop.example",
        "hop.example A {1}",
        "else.example MX 20 next.example",
        "next.example A {2}",
    ];
    let refuse = || Box::new(say(Step::Greeting, "554 5.7.1 no mail here")) as Rules;

    let world = World::start("", &zone, vec![refuse(), Box::new(usual)]);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().connections(), 1);
    assert_eq!(world.hops[1].recipients(), ["eve@else.example"]);
    assert!(!world.has_bounce());

    let world = World::start("", &zone, vec![refuse(), refuse()]);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.only_bounce()[0].status, "5.7.1");
    assert_eq!(world.hops[1].connections(), 1);

    // Nobody listens at the second.
    let world = World::start("", &zone, vec![refuse()]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried twice", || world.mta.attempts(&id) >= Some(2));
    assert!(!world.has_bounce());
}

#[test]
fn octets_above_127_are_not_sent_to_a_hop_without_8bitmime() {
    let world = World::with_hop("", say(Step::Ehlo, "250-hop.example\r\n250 PIPELINING"));
    let text = "Subject: hello\r\n\r\nGr\u{fc}\u{df}e\r\n";
    let id = world.mta.submit(ANN, &["eve@else.example"], text);
    world.until_over(&id);
    assert_eq!(world.only_bounce()[0].status, "5.6.3");
    assert_eq!((world.hop().count("MAIL"), world.hop().count("DATA")), (0, 0));

    let world = World::with_hop("", usual);
    let id = world.mta.submit(ANN, &["eve@else.example"], text);
    world.until_over(&id);
    let letter = &world.hop().letters()[0];
    assert!(letter.mail.contains(" BODY=8BITMIME") && letter.text.ends_with("Gr\u{fc}\u{df}e\n"));
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
        say("550-5.1.1 first\r\n250 then"),
        say(&"5".repeat(100_000)),
        say("334 more"),
    ];
    let steps = [Step::Greeting, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Dot];
    let cases = acts.iter().flat_map(|act| steps.iter().map(move |step| (act.clone(), *step)));
    in_parallel(cases, |(act, step)| {
        let rule = act.clone();
        let world =
            World::with_hop("--retry 3600", move |moment: Moment| match moment.step == step {
                true => rule.clone(),
                false => Act::Usual,
            });
        let id = world.send(&["eve@else.example"]);
        until("it was tried", || world.mta.attempts(&id) != Some(0));
        let envelope = world.mta.envelope(&id);
        let envelope = envelope.unwrap_or_else(|| panic!("gone: {step:?} {act:?}"));
        assert!(envelope.contains("RCPT TO:<eve@else.example> WAITING "), "{envelope}");
        assert!(envelope.is_ascii() && envelope.lines().count() == 7, "{envelope}");
        assert!(!world.has_bounce() && world.hop().letters().is_empty(), "{step:?} {act:?}");
    });
}

#[test]
fn a_hop_that_hangs_does_not_stop_mail_for_others() {
    let zone = [ONE_HOP, &["live.example A {2}"]].concat();
    let hang = at_first(Step::Greeting, usize::MAX, Act::Hang);
    let world = World::start("--timeout 300", &zone, vec![Box::new(hang), Box::new(usual)]);
    for _ in 0..12 {
        world.send(&["eve@else.example"]);
    }
    until("the dead hop holds threads", || world.hop().connections() == 8);
    let id = world.send(&["bob@live.example"]);
    world.until_over(&id);
    assert_eq!(world.hops[1].recipients(), ["bob@live.example"]);
    assert_eq!(world.hop().connections(), 8);
}

#[test]
fn a_letter_from_nobody_that_fails_makes_no_bounce_and_is_kept() {
    let world = World::with_hop("", say(Step::Rcpt, "550 5.1.1 nobody"));
    let id = world.mta.submit("", &["eve@else.example"], TEXT);
    world.until_over(&id);
    assert_eq!(world.mta.queue(), [format!("{id}.dead"), format!("{id}.message")]);
    let kept = |what: &str| {
        fs::read_to_string(world.mta.spool.join("queue").join(format!("{id}.{what}"))).unwrap()
    };
    let (dead, message) = (kept("dead"), kept("message"));
    assert!(dead.contains("FAILED") && dead.contains("550 5.1.1 nobody"), "{dead}");
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
    assert_eq!(world.mta.queue(), [format!("{id}.dead"), format!("{id}.message")]);
}

#[test]
fn letters_wait_through_a_stop_and_go_out_afterwards() {
    let open = Arc::new(AtomicBool::new(false));
    let mut world = World::with_hop("--retry 0.2", closed_until(&open));
    let to: Vec<String> = (0..5).map(|n| format!("u{n}@else.example")).collect();
    let ids: Vec<String> = to.iter().map(|to| world.send(&[to])).collect();
    until("all were tried", || ids.iter().all(|id| world.mta.attempts(id) >= Some(1)));
    world.mta.stop();
    open.store(true, Ordering::SeqCst);
    assert_eq!(world.mta.queue().len(), 10);
    assert!(world.hop().letters().is_empty());

    let flags = format!(
        "--smtp 127.0.0.1:0 --hostname here.example --relay-port {} --dns {}",
        world.hop().address.port(),
        world.dns.address
    );
    world.mta = Mta::start(&world.mta.spool, &flags);
    until("all are out", || world.mta.queue().is_empty());
    assert_eq!(world.hop().recipients(), to);
}

#[test]
fn whoever_asks_has_everything_tried_now() {
    let world =
        World::with_hop("--retry 3600", at_first(Step::Mail, 1, Act::Say("451 no".to_owned())));
    let id = world.send(&["eve@else.example"]);
    until("it was tried", || world.mta.attempts(&id) == Some(1));
    // The first time may be too early: its thread is perhaps not done.
    until("it is out", || {
        world.mta.handle.try_all_now();
        world.mta.envelope(&id).is_none()
    });
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
}

#[test]
fn two_servers_share_one_spool_and_no_letter_goes_twice() {
    let open = Arc::new(AtomicBool::new(false));
    let world = World::with_hop("--retry 3600", closed_until(&open));
    let flags = format!(
        "--smtp 127.0.0.1:0 --hostname here.example --relay open --retry 3600 \
         --relay-port {} --dns {}",
        world.hop().address.port(),
        world.dns.address
    );
    let other = Mta::start(&world.mta.spool, &flags);
    let to: BTreeSet<String> = (0..50).map(|n| format!("u{n}@else.example")).collect();
    for (number, to) in to.iter().enumerate() {
        let mta = if number % 2 == 0 { &world.mta } else { &other };
        mta.submit(ANN, &[to], TEXT);
    }
    open.store(true, Ordering::SeqCst);
    until("all are out", || {
        world.mta.handle.try_all_now();
        other.handle.try_all_now();
        world.mta.queue().is_empty()
    });
    assert_eq!(world.hop().recipients(), to.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_domain_without_a_way_fails_at_once_and_one_in_trouble_waits() {
    let zone = [
        "null.example MX 0 .",
        "loop.example MX 10 here.example",
        "here.example A 127.0.0.1",
        "trouble.example MX 10 hop.example",
    ];
    let trick = ("trouble.example", Trick::Udp(tricks::failure));
    for (to, status) in [
        ("eve@nowhere.example", Some("5.1.2")),
        ("eve@null.example", Some("5.1.10")),
        ("eve@loop.example", Some("5.4.6")),
        ("eve@trouble.example", None),
    ] {
        let world = World::with_tricks("--retry 3600", &zone, &[trick], Vec::new());
        let id = world.send(&[to]);
        match status {
            Some(status) => {
                world.until_over(&id);
                assert_eq!(world.only_bounce()[0].status, status, "{to}");
            }
            None => {
                until("it was tried", || world.mta.attempts(&id) == Some(1));
                assert!(!world.has_bounce(), "{to}");
            }
        }
    }
}

#[test]
fn a_host_at_our_own_address_is_a_loop_under_any_name() {
    let net = Net::new();
    let dns = dns(&net, &["loop.example MX 10 other.example", "other.example A {1}"], &[]);
    let folder = tempfile::tempdir().unwrap();
    let flags = format!("--smtp {}", net.address(1));
    let mta = Mta::start(folder.path(), &all_flags(&flags, &net, &dns));
    mta.submit(ANN, &["eve@loop.example"], TEXT);
    until("the bounce is there", || !mta.mail("here.example", "ann").is_empty());
    assert_eq!(failures(&mta.mail("here.example", "ann")[0])[0].status, "5.4.6");
}

#[test]
fn a_shutdown_ends_while_a_letter_is_under_way_and_the_letter_stays() {
    let mut world = World::with_hop("--timeout 0.5", at_first(Step::Dot, 1, Act::Hang));
    let id = world.send(&["eve@else.example"]);
    until("it is under way", || world.hop().count("DATA") == 1);
    let start = Instant::now();
    world.mta.stop();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let envelope = world.mta.envelope(&id).unwrap();
    assert!(envelope.contains("<eve@else.example> WAITING"), "{envelope}");
    assert!(world.mta.spool.join("queue").join(format!("{id}.message")).exists());
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
    assert_eq!(recipients(&failures(letters[0].text.as_bytes())), ["eve@else.example"]);
}

/// A file with a login for the smarthost.
fn login(folder: &Path, password: &str) -> PathBuf {
    let path = folder.join("login");
    fs::write(&path, format!("ann:{password}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_smarthost_that_proves_its_name_gets_the_password_and_no_other_does() {
    let cases = [
        ("secret", "cert.pem", None),
        ("wrong", "cert.pem", Some("refused with 535")),
        ("secret", "other-cert.pem", Some("certificate")),
    ];
    in_parallel(cases, |(password, authority, why)| {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users");
        fs::write(&users, "ann:{PLAIN}secret\nbob:{PLAIN}x\n").unwrap();
        let flags = format!(
            "--submission 127.0.0.1:0 --users {} --cert {} --key {}",
            users.display(),
            test_file("cert.pem").display(),
            test_file("key.pem").display()
        );
        let smarthost = Mta::start(&folder.path().join("smarthost"), &flags);
        let flags = format!(
            "--smtp 127.0.0.1:0 --relay open --hostname here.example --retry 3600 --dns 127.0.0.1:9 \
             --smarthost localhost:{} --smarthost-login {} --smarthost-ca {}",
            smarthost.address.port(),
            login(folder.path(), password).display(),
            test_file(authority).display()
        );
        let mta = Mta::start(&folder.path().join("spool"), &flags);
        let id = mta.submit("ann@localhost", &["bob@localhost"], TEXT);
        match why {
            None => {
                until("it has left", || mta.envelope(&id).is_none());
                let mail = smarthost.mail("localhost", "bob");
                let text = str::from_utf8(&mail[0]).unwrap();
                assert!(text.contains(" with ESMTPSA id "), "{text}");
            }
            Some(why) => {
                until("it was tried", || mta.attempts(&id) == Some(1));
                let envelope = mta.envelope(&id).unwrap();
                assert!(envelope.contains(why), "{envelope}");
                assert!(envelope.contains("<bob@localhost> WAITING"), "{envelope}");
                assert!(smarthost.mail("localhost", "bob").is_empty());
            }
        }
    });
}

#[test]
fn a_password_never_crosses_in_clear() {
    let answers = [
        ("250-hop.example\r\n250 AUTH PLAIN LOGIN CRAM-MD5", Act::Usual),
        ("250-hop.example\r\n250-STARTTLS\r\n250 AUTH PLAIN", Act::Say("454 4.7.0 no".to_owned())),
        ("250-hop.example\r\n250-STARTTLS\r\n250 AUTH PLAIN", Act::Say("554 5.7.0 no".to_owned())),
        (
            "250-hop.example\r\n250-STARTTLS\r\n250 AUTH PLAIN",
            Act::SayAndClose("220 go".to_owned()),
        ),
    ];
    in_parallel(answers, |(ehlo, act)| {
        let hop = Hop::start(Net::new().address(1), move |moment: Moment| match moment.step {
            Step::Ehlo => Act::Say(ehlo.to_owned()),
            Step::StartTls => act.clone(),
            _ => Act::Usual,
        });
        let folder = tempfile::tempdir().unwrap();
        let flags = format!(
            "--smtp 127.0.0.1:0 --relay open --hostname here.example --retry 0.05 --dns 127.0.0.1:9 \
             --smarthost {} --smarthost-login {} --smarthost-ca {}",
            hop.address,
            login(folder.path(), "secret").display(),
            test_file("cert.pem").display()
        );
        let mta = Mta::start(&folder.path().join("spool"), &flags);
        let id = mta.submit(ANN, &["eve@else.example"], TEXT);
        until("it was tried twice", || mta.attempts(&id) >= Some(2));
        assert!(hop.count("STARTTLS") >= 2);
        assert_eq!((hop.count("AUTH"), hop.count("MAIL")), (0, 0), "{:?}", hop.commands());
        assert!(mta.mail("here.example", "ann").is_empty());
    });
}
#[test]
fn a_host_that_cannot_be_looked_up_now_may_still_take_what_another_refuses() {
    let zone = [
        "else.example MX 10 hop.example",
        "hop.example A {1}",
        "else.example MX 20 next.example",
        "next.example A {2}",
    ];
    let trick = ("next.example", Trick::Udp(tricks::failure));
    let refuse = say(Step::Greeting, "554 5.7.1 no mail here");
    let world = World::with_tricks("", &zone, &[trick], vec![Box::new(refuse)]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried", || world.mta.attempts(&id) != Some(0));
    assert!(world.mta.attempts(&id).is_some() && !world.has_bounce());
}

#[test]
fn letters_to_a_hop_that_hangs_and_to_another_do_not_stop_mail_for_the_other() {
    let zone = [ONE_HOP, &["live.example A {2}"]].concat();
    let hang = at_first(Step::Greeting, usize::MAX, Act::Hang);
    let world = World::start("--timeout 300", &zone, vec![Box::new(hang), Box::new(usual)]);
    for _ in 0..12 {
        world.send(&["bob@live.example", "eve@else.example"]);
    }
    until("the dead hop holds threads", || world.hop().connections() >= 8);
    let id = world.send(&["bob@live.example"]);
    world.until_over(&id);
}

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
    let obstacle = world.mta.spool.join("tmp").join(format!("{id}.envelope"));
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
    assert!(seen.contains("<eve@else.example> DELIVERED hop.example: 250"), "{seen}");
    assert!(seen.contains("<bob@else.example> WAITING hop.example: 451"), "{seen}");
}

#[test]
fn the_sender_hears_of_it_at_the_give_up_time_and_not_at_the_next_retry() {
    let world = World::with_hop("--retry 3600 --give-up 0.3", say(Step::Mail, "451 4.3.0 later"));
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.only_bounce()[0].status, "5.4.7");
}

#[test]
fn only_a_letter_that_needs_smtputf8_wants_it_of_the_next_hop() {
    let plain = say(Step::Ehlo, "250-hop\r\n250 8BITMIME");
    let world = World::with_hop("", plain);
    for (text, arrives) in [("Subject: x\r\n\r\ny\r\n", 1), ("Subject: gr\u{fc}n\r\n\r\n", 0)] {
        let mut client = Client::connect(world.mta.address);
        assert_eq!(&client.ask("EHLO client.example")[..3], "250");
        let before = world.hop().letters().len();
        client.all_granted(&[&format!("MAIL FROM:<{ANN}> SMTPUTF8"), "RCPT TO:<eve@else.example>"]);
        assert_eq!(&client.ask("DATA")[..3], "354");
        let reply = client.message(text);
        world.until_over(reply.strip_prefix("250 2.6.0 stored as ").unwrap().trim());
        assert_eq!(world.hop().letters().len() - before, arrives, "{text}");
    }
    assert_eq!(world.only_bounce()[0].status, "5.6.7");
}

#[test]
fn one_host_that_may_come_back_outweighs_all_that_refuse() {
    let zone = [
        "else.example MX 10 down.example",
        "down.example A {2}",
        "else.example MX 20 hop.example",
        "hop.example A {1}",
    ];
    let refuse = say(Step::Greeting, "554 5.7.1 no mail here");
    let world = World::start("", &zone, vec![Box::new(refuse)]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried twice", || world.mta.attempts(&id) >= Some(2));
    assert!(!world.has_bounce());
}

#[test]
fn a_server_that_wants_a_login_or_encryption_first_does_not_make_a_bounce() {
    let once = at_first(Step::Mail, 1, Act::Say("530 5.7.0 must issue STARTTLS first".to_owned()));
    let world = World::with_hop("", once);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    assert!(!world.has_bounce());
}

#[test]
fn a_host_that_hangs_up_at_mail_is_passed_over() {
    let zone = [
        "else.example MX 10 hop.example",
        "hop.example A {1}",
        "else.example MX 20 next.example",
        "next.example A {2}",
    ];
    for act in [Act::Close, Act::SayAndClose("421 4.3.2 busy".to_owned())] {
        let close = at_first(Step::Mail, usize::MAX, act);
        let world = World::start("", &zone, vec![Box::new(close), Box::new(usual)]);
        let id = world.send(&["eve@else.example"]);
        world.until_over(&id);
        assert_eq!(world.hops[1].recipients(), ["eve@else.example"]);
        assert_eq!(world.hop().connections(), 1);
    }
}

#[test]
fn a_smarthost_that_hangs_gets_its_share_of_the_threads_whatever_the_domains() {
    let zone: [&str; 0] = [];
    let net = Net::new();
    let hop = Hop::start(net.address(1), at_first(Step::Greeting, usize::MAX, Act::Hang));
    let flags = format!("--timeout 300 --smarthost {}", hop.address);
    let dns = dns(&net, &zone, &[]);
    let folder = tempfile::tempdir().unwrap();
    let mta = Mta::start(&folder.path().join("spool"), &all_flags(&flags, &net, &dns));
    for number in 0..12 {
        mta.submit(ANN, &[&format!("bob@domain{number}.example")], TEXT);
    }
    until("it has its share", || hop.connections() == 8);
    assert_eq!(hop.connections(), 8);
    // The server can end only once nothing hangs any more.
    drop(hop);
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
    assert_eq!(recipients(&world.only_bounce()), ["gr\u{fc}n@else.example"]);
}

#[test]
fn a_letter_for_a_silent_host_and_another_goes_to_the_other_first() {
    let zone = [ONE_HOP, &["live.example A {2}"]].concat();
    let hang = at_first(Step::Greeting, usize::MAX, Act::Hang);
    let world = World::start("--timeout 300", &zone, vec![Box::new(hang), Box::new(usual)]);
    for _ in 0..12 {
        world.send(&["eve@else.example"]);
    }
    until("the silent host has its share", || world.hop().connections() == 8);
    world.send(&["eve@else.example", "bob@live.example"]);
    until("bob has his letter", || world.hops[1].recipients() == ["bob@live.example"]);
}
