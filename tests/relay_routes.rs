//! Which servers a letter is taken to: mail hosts in turn, DNS in trouble, loops.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::net::UdpSocket;

use tempfile::TempDir;

use common::Client;
use common::dns::{DnsServer, Trick, tricks};
use common::hop::{Act, Hop, Moment, Step, say, usual};
use common::mta::{Mta, Net, until};
use common::report::Report;
use common::world::{
    ANN, ONE_HOP, Rules, TEXT, TWO_HOPS, World, aliases_flag, all_flags, always, dns, in_parallel,
};

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
fn a_greeting_of_554_is_final_only_if_all_hosts_say_it() {
    let refuse = || Box::new(say(Step::Greeting, "554 5.7.1 no mail here")) as Rules;

    let world = World::start("", TWO_HOPS, vec![refuse(), Box::new(usual)]);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().connections(), 1);
    assert_eq!(world.hops[1].recipients(), ["eve@else.example"]);
    assert!(!world.has_report());

    let world = World::start("", TWO_HOPS, vec![refuse(), refuse()]);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(&world.only_report().only()["Status"], "5.7.1");
    assert_eq!(world.hops[1].connections(), 1);

    // Nobody listens at the second.
    let world = World::start("", TWO_HOPS, vec![refuse()]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried twice", || world.mta.attempts(&id) >= Some(2));
    assert!(!world.has_report());
}

#[test]
fn a_host_that_cannot_be_looked_up_now_may_still_take_what_another_refuses() {
    let trick = ("next.example", Trick::Udp(tricks::failure));
    let refuse = say(Step::Greeting, "554 5.7.1 no mail here");
    let world = World::with_tricks("", TWO_HOPS, &[trick], vec![Box::new(refuse)]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried twice", || world.mta.attempts(&id) >= Some(2));
    assert!(!world.has_report());
}

#[test]
fn a_host_that_was_not_looked_up_may_still_take_what_ten_others_refuse() {
    let line = |n| [format!("else.example MX {n} mx{n}.example"), format!("mx{n}.example A {{1}}")];
    let zone: Vec<String> = (1..=11).flat_map(line).collect();
    let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
    let refuse = say(Step::Greeting, "554 5.7.1 no mail here");
    let world = World::start("", &zone, vec![Box::new(refuse)]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried twice", || world.mta.attempts(&id) >= Some(2));
    assert!(!world.has_report());
}

#[test]
fn an_address_that_cannot_be_looked_up_now_may_still_take_what_another_refuses() {
    let trick = ("hop.example AAAA", Trick::Udp(tricks::failure));
    let refuse = say(Step::Greeting, "554 5.7.1 no mail here");
    let world = World::with_tricks("", ONE_HOP, &[trick], vec![Box::new(refuse)]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried twice", || world.mta.attempts(&id) >= Some(2));
    assert!(!world.has_report());
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
    assert!(!world.has_report());
}

/// What keeps a host from taking a letter for now, at each step of the dialogue.
fn troubles() -> Vec<(Step, Act)> {
    let steps = [Step::Greeting, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Data, Step::Dot];
    let acts = [
        Act::Say("451 4.3.1 not now".to_owned()),
        Act::SayAndClose("421 4.3.2 busy".to_owned()),
        Act::Close,
        Act::Hang,
    ];
    let mut all: Vec<_> =
        steps.iter().flat_map(|step| acts.clone().map(|act| (*step, act))).collect();
    all.push((Step::Data, Act::CloseInside));
    all.push((Step::Rcpt, Act::Say("452 4.5.3 nobody fits".to_owned())));
    all.push((Step::Ehlo, Act::Say("HTTP/1.1 400 Bad Request".to_owned())));
    all
}

#[test]
fn whatever_keeps_the_first_of_two_hosts_from_it_the_second_has_the_letter_in_the_same_attempt() {
    in_parallel(troubles(), |(step, act)| {
        let first = always(step, act.clone());
        let world = World::start(
            "--timeout 0.5 --retry 3600",
            TWO_HOPS,
            vec![Box::new(first), Box::new(usual)],
        );
        let id = world.send(&["eve@else.example"]);
        // The second attempt would be in an hour.
        world.until_over(&id);
        assert_eq!(world.hops[1].recipients(), ["eve@else.example"], "{step:?} {act:?}");
        assert_eq!(world.hop().connections(), 1, "{step:?} {act:?}");
        assert!(world.hop().letters().is_empty() && !world.has_report(), "{step:?} {act:?}");
    });
}

#[test]
fn a_host_that_takes_the_letter_is_the_last_that_is_asked() {
    let world = World::start("", TWO_HOPS, vec![Box::new(usual), Box::new(usual)]);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    assert_eq!(world.hops[1].connections(), 0);
}

#[test]
fn a_host_that_keeps_a_letter_without_a_word_makes_one_copy_more_and_no_second_attempt() {
    let keep = always(Step::Dot, Act::KeepAndClose);
    let world = World::start("--retry 3600", TWO_HOPS, vec![Box::new(keep), Box::new(usual)]);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    for hop in &world.hops {
        assert_eq!(hop.recipients(), ["eve@else.example"]);
    }
}

#[test]
fn the_second_host_gets_only_whom_the_first_has_put_off() {
    let first = |moment: Moment| {
        if moment.line.contains("<bob@") {
            Act::Say("450 4.2.1 not now".to_owned())
        } else if moment.line.contains("<cem@") {
            Act::Say("550 5.1.1 no cem here".to_owned())
        } else {
            Act::Usual
        }
    };
    let world = World::start("--retry 3600", TWO_HOPS, vec![Box::new(first), Box::new(usual)]);
    let id = world.send(&["bob@else.example", "cem@else.example", "dan@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["dan@else.example"]);
    assert_eq!(world.hops[1].recipients(), ["bob@else.example"]);
    assert_eq!(world.only_report().addresses(), ["cem@else.example"]);
}

#[test]
fn what_the_last_of_all_hosts_puts_off_is_put_off_with_its_words() {
    let later = |text| Box::new(say(Step::Mail, text)) as Rules;
    let world = World::start("--retry 3600", TWO_HOPS, vec![later("452 one"), later("451 two")]);
    let id = world.send(&["eve@else.example"]);
    until("it was tried", || world.mta.attempts(&id) == Some(1));
    let envelope = world.mta.envelope(&id).unwrap();
    assert!(envelope.contains("STATE waiting 4.0.0 next.example 451 two"), "{envelope}");
    assert_eq!((world.hop().connections(), world.hops[1].connections()), (1, 1));
}

#[test]
fn a_domain_without_a_way_fails_at_once_and_one_in_trouble_waits() {
    let zone = [
        "null.example MX 0 .",
        "loop.example MX 10 here.example",
        "here.example A 127.0.0.1",
        "trouble.example MX 10 hop.example",
        // DNS says nothing of hosts as near as we are, which come before us by lot.
        "level.example MX 10 mute1.example",
        "level.example MX 10 mute2.example",
        "level.example MX 10 mute3.example",
        "level.example MX 10 here.example",
    ];
    let tricks = ["trouble.example", "mute1.example", "mute2.example", "mute3.example"]
        .map(|name| (name, Trick::Udp(tricks::failure)));
    for (to, status) in [
        ("eve@nowhere.example", Some("5.1.2")),
        ("eve@null.example", Some("5.1.10")),
        ("eve@loop.example", Some("5.4.6")),
        ("eve@level.example", Some("5.4.6")),
        ("eve@trouble.example", None),
    ] {
        let world = World::with_tricks("--retry 3600", &zone, &tricks, Vec::new());
        let id = world.send(&[to]);
        match status {
            Some(status) => {
                world.until_over(&id);
                assert_eq!(&world.only_report().only()["Status"], status, "{to}");
            }
            None => {
                until("it was tried", || world.mta.attempts(&id) == Some(1));
                assert!(!world.has_report(), "{to}");
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
    let report = Report::read(&mta.mail("here.example", "ann")[0]);
    assert_eq!(&report.only()["Status"], "5.4.6");
}

#[test]
fn a_host_elsewhere_that_is_named_like_a_mail_domain_of_ours_gets_its_mail() {
    let world = World::with_hop("--domain here.example --domain hop.example", usual);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    assert!(!world.has_report());
}

#[test]
fn a_dead_dns_server_does_not_stop_mail() {
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let world = World::with_hop(&format!("--dns {}", dead.local_addr().unwrap()), usual);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
    dead.set_nonblocking(true).unwrap();
    assert!(dead.recv(&mut [0; 512]).is_ok(), "it was not asked first");
}

#[test]
fn nobody_on_this_machine_gets_mail_because_dns_or_a_sender_says_so() {
    let net = Net::new();
    let hop = Hop::start(net.address(1), usual);
    let dns = dns(&net, ONE_HOP, &[]);
    let folder = tempfile::tempdir().unwrap();
    let flags = all_flags("", &net, &dns).replace("--loopback-hops", "");
    let mta = Mta::start(folder.path(), &flags);
    let literal = format!("eve@[{}]", hop.address.ip());
    mta.submit(ANN, &["eve@else.example", &literal], TEXT);
    // One for each destination.
    until("the reports are there", || mta.mail("here.example", "ann").len() == 2);
    let reports = mta.mail("here.example", "ann");
    let reports: Vec<_> = reports.iter().map(|text| Report::read(text)).collect();
    let mut about: Vec<_> = reports.iter().flat_map(Report::addresses).collect();
    about.sort_unstable();
    assert_eq!(
        about,
        ["eve@[".to_owned() + &hop.address.ip().to_string() + "]", "eve@else.example".to_owned()]
    );
    for report in &reports {
        assert!(report.only()["Diagnostic-Code"].contains("--loopback-hops"), "{}", report.text);
    }
    assert_eq!(hop.connections(), 0);
}

/// Two servers that know each other as a.example and b.example, with these aliases.
struct Pair {
    a: Mta,
    b: Mta,
    _dns: DnsServer,
    _folder: TempDir,
}

impl Pair {
    fn start(aliases_of_a: &str, aliases_of_b: &str) -> Pair {
        let net = Net::new();
        let dns = dns(&net, &["a.example A {1}", "b.example A {2}", "c.example A {2}"], &[]);
        let folder = tempfile::tempdir().unwrap();
        let start = |host: u8, name: &str, aliases: &str| {
            let own = folder.path().join(name);
            fs::create_dir(&own).unwrap();
            // Else everybody had a mailbox, and no name were left for others.
            fs::write(own.join("users"), "ann:{PLAIN}secret\ncarol:{PLAIN}secret\n").unwrap();
            let flags = format!(
                "--smtp {} --hostname {name}.example --domain {name}.example --users {}{}{}",
                net.address(host),
                own.join("users").display(),
                if name == "b" { " --domain c.example" } else { "" },
                aliases_flag(&own, aliases)
            );
            Mta::start(&own.join("spool"), &all_flags(&flags, &net, &dns))
        };
        let (a, b) = (start(1, "a", aliases_of_a), start(2, "b", aliases_of_b));
        Pair { a, b, _dns: dns, _folder: folder }
    }

    /// Sends a letter from ann at a.example, and waits until nothing moves any more.
    /// Gives how often it went from one server to the other, and the reports.
    fn storm(&self, to: &str) -> (usize, Vec<Report>) {
        self.a.submit("ann@a.example", &[to], TEXT);
        until("ann has heard of it", || !self.a.mail("a.example", "ann").is_empty());
        let servers = [&self.a, &self.b, &self.a, &self.b];
        until("it is quiet", || servers.iter().all(|mta| mta.queue().is_empty()));
        let reports = self.a.mail("a.example", "ann");
        let reports: Vec<_> = reports.iter().map(|text| Report::read(text)).collect();
        // All but the letter itself, and its reports, which have a name where they are
        // written, and one more here if they came from b.
        let written = |by: &str| {
            let is_by = |one: &&Report| one.letter["Reporting-MTA"].contains(by);
            reports.iter().filter(is_by).count()
        };
        let named = names_given(&self.a, "a.example") + names_given(&self.b, "b.example");
        (named - 1 - written("a.example") - 2 * written("b.example"), reports)
    }
}

/// How many messages a server has given a name to, whether it took them or not: the last
/// number in the id of the next one.
fn names_given(mta: &Mta, domain: &str) -> usize {
    let id = mta.submit("", &[&format!("postmaster@{domain}")], TEXT);
    id.rsplit_once('Q').unwrap().1.parse().unwrap()
}

#[test]
fn two_servers_that_forward_to_each_other_by_two_aliases_each_are_no_storm() {
    let lists_of_a = "list: one@b.example, two@b.example\nmore: one@b.example, two@b.example\n";
    let lists_of_b = "one: list@a.example, more@a.example\ntwo: list@a.example, more@a.example\n";
    let (copies, reports) = Pair::start(lists_of_a, lists_of_b).storm("list@a.example");
    assert!((2..=4).contains(&copies), "{copies} copies");
    assert_eq!(reports.len(), 1);
    assert_eq!(&reports[0].recipients[0]["Status"], "5.4.6");
}

#[test]
fn two_servers_whose_every_name_leads_to_all_names_of_the_other_are_no_storm() {
    let all = |of: &str, at: &str| {
        let targets: Vec<_> = (0..9).map(|n| format!("{of}{n}@{at}.example")).collect();
        let line =
            |n| format!("{}{n}: {}\n", if of == "x" { "y" } else { "x" }, targets.join(", "));
        (0..9).map(line).collect::<String>()
    };
    let (copies, reports) = Pair::start(&all("x", "b"), &all("y", "a")).storm("y0@a.example");
    assert!((2..=4).contains(&copies), "{copies} copies");
    assert_eq!(reports.len(), 1);
}

#[test]
fn a_list_whose_members_at_two_domains_lead_back_to_it_is_sent_to_each_once_and_back_once() {
    let of_a = "list: bob@b.example, cem@c.example\n";
    let of_b = "bob: list@a.example\ncem: list@a.example\n";
    let (copies, reports) = Pair::start(of_a, of_b).storm("list@a.example");
    // The two copies are two letters by then, and each fails by itself.
    assert_eq!((copies, reports.len()), (4, 2));
}

#[test]
fn a_chain_of_aliases_that_ends_in_itself_ends() {
    let of_a = "one: two@b.example\nthree: four@b.example\n";
    let of_b = "two: three@a.example\nfour: one@a.example\n";
    let (copies, reports) = Pair::start(of_a, of_b).storm("one@a.example");
    assert_eq!((copies, reports.len()), (4, 1));
}

#[test]
fn an_alias_that_a_letter_has_passed_drops_out_alone_and_everybody_else_has_it_once() {
    let pair = Pair::start("list: l2@b.example\n", "l2: list@a.example, carol@a.example\n");
    pair.a.submit("ann@a.example", &["list@a.example"], TEXT);
    until("carol has it", || !pair.a.mail("a.example", "carol").is_empty());
    let servers = [&pair.a, &pair.b, &pair.a, &pair.b];
    until("it is quiet", || servers.iter().all(|mta| mta.queue().is_empty()));
    assert_eq!(pair.a.mail("a.example", "carol").len(), 1);
    assert!(pair.a.mail("a.example", "ann").is_empty(), "nothing has failed");
    // The letter, and what came back of it.
    assert_eq!((names_given(&pair.a, "a.example"), names_given(&pair.b, "b.example")), (2, 1));
}

#[test]
fn a_letter_for_whom_nobody_is_left_but_those_it_has_passed_is_a_loop() {
    let aliases = "list: eve@else.example\nmore: eve@else.example\n";
    let world = World::with_aliases(aliases, "", ONE_HOP, &[], vec![Box::new(usual)]);
    let passed = "Delivered-To: list@here.example\r\nDelivered-To: more@here.example\r\n";
    let say = |to: &[&str]| {
        let mut client = Client::connect(world.mta.address);
        client.all_granted(&["EHLO client.example", &format!("MAIL FROM:<{ANN}>")]);
        for to in to {
            client.all_granted(&[&format!("RCPT TO:<{to}@here.example>")]);
        }
        client.all_granted(&["DATA"]);
        client.message(format!("{passed}{TEXT}"))
    };
    let looped = say(&["list", "more"]);
    assert!(looped.starts_with("554 5.4.6 "), "{looped}");
    let taken = say(&["list", "bob", "more"]);
    assert!(taken.starts_with("250 "), "{taken}");
    assert_eq!(world.mta.mail("here.example", "bob").len(), 1);
    assert!(world.mta.queue().is_empty() && world.hop().connections() == 0);
}

/// What a host lacks, in its answer to EHLO, the text of a letter that needs it, and the
/// status if nobody has it.
const LACKS: [(&str, &str, &str); 2] = [
    ("250-hop.example\r\n250-8BITMIME\r\n250 SIZE 100", TEXT, "5.3.4"),
    ("250-hop.example\r\n250 PIPELINING", "Subject: hello\r\n\r\nGr\u{fc}\u{df}e\r\n", "5.6.3"),
];

#[test]
fn what_one_host_lacks_for_a_letter_the_next_one_may_have_in_the_same_attempt() {
    in_parallel(LACKS, |(ehlo, text, status)| {
        let first = say(Step::Ehlo, ehlo);
        let hops: Vec<Rules> = vec![Box::new(first), Box::new(usual)];
        let world = World::start("--retry 3600", TWO_HOPS, hops);
        let id = world.mta.submit(ANN, &["eve@else.example"], text);
        world.until_over(&id);
        assert_eq!(world.hop().connections(), 1, "{status}");
        assert!(world.hop().letters().is_empty() && !world.has_report(), "{status}");
        assert_eq!(world.hops[1].recipients(), ["eve@else.example"], "{status}");
    });
}

#[test]
fn what_all_hosts_lack_for_a_letter_is_told_at_once() {
    in_parallel(LACKS, |(ehlo, text, status)| {
        let lacks = || Box::new(say(Step::Ehlo, ehlo)) as Rules;
        let world = World::start("--retry 3600", TWO_HOPS, vec![lacks(), lacks()]);
        let id = world.mta.submit(ANN, &["eve@else.example"], text);
        world.until_over(&id);
        assert_eq!(&world.only_report().only()["Status"], status);
        assert_eq!(world.hops[1].connections(), 1, "{status}");
    });
}

#[test]
fn a_host_that_may_take_the_letter_later_outweighs_one_that_lacks_what_it_needs() {
    for (ehlo, text, status) in LACKS {
        let lacks = || Box::new(say(Step::Ehlo, ehlo)) as Rules;
        let later = || Box::new(say(Step::Mail, "450 4.3.0 later")) as Rules;
        // Nobody listens at the second address of the last.
        for hops in [vec![later(), lacks()], vec![lacks(), later()], vec![lacks()]] {
            let world = World::start("--retry 3600", TWO_HOPS, hops);
            let id = world.mta.submit(ANN, &["eve@else.example"], text);
            until("it was tried", || world.mta.attempts(&id) != Some(0));
            assert_eq!(world.mta.attempts(&id), Some(1), "{status}");
            assert!(!world.has_report(), "{status}");
        }
    }
}
