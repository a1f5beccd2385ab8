//! Finding the next hop, against a DNS server that is told how to misbehave.
//!
//! Book: docs/15-finding-the-next-hop.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::NOBODY;
use common::dns::{DnsServer, Trick, tricks};
use ehlo::dns::{Family, Mx, Resolver, Trouble};
use ehlo::relay::route::{Hop, Hops, Route};
use ehlo::smtp::address::Domain;
use ehlo::smtp::answer::{Answer, Verdict};
use simple_dns::{Packet, RCODE, TYPE};

/// The port of the hosts that are found. Nobody connects to them.
const PORT: u16 = 2525;
/// For one question, where an answer comes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);
/// For one question, where a test waits in vain.
const SHORT: Duration = Duration::from_millis(300);

fn resolver(server: &DnsServer) -> Resolver {
    Resolver::new(vec![server.address], PATIENCE)
}

fn impatient(server: &DnsServer) -> Resolver {
    Resolver::new(vec![server.address], SHORT)
}

/// As late as no test gets.
fn far() -> Instant {
    Instant::now() + 2 * PATIENCE
}

/// How here.example, which listens nowhere, finds its way.
fn route(resolver: &Resolver) -> Route<'_> {
    Route {
        resolver,
        deadline: far(),
        port: PORT,
        hostname: "here.example",
        is_listening: &|_| false,
        loopback_hops: false,
    }
}

fn named(domain: &str) -> Domain {
    Domain::Name(domain.to_owned())
}

fn next_hops(server: &DnsServer, domain: &str) -> Result<Hops, Answer> {
    route(&resolver(server)).next_hops(&named(domain))
}

/// `name address address`, for each host.
fn hosts(server: &DnsServer, domain: &str) -> Vec<String> {
    let hops = next_hops(server, domain).unwrap().hosts;
    assert!(hops.iter().flat_map(|hop| &hop.addresses).all(|address| address.port() == PORT));
    let words = |hop: Hop| {
        let addresses = hop.addresses.iter().map(|address| address.ip().to_string());
        [vec![hop.name], addresses.collect()].concat().join(" ")
    };
    hops.into_iter().map(words).collect()
}

/// Verdict, status and text for a recipient in a domain without a next hop.
#[track_caller]
fn assert_answer(answer: Result<Hops, Answer>, verdict: Verdict, status: &str, text: &str) {
    let answer = answer.unwrap_err();
    let class = answer.status;
    assert_eq!(format!("{}.{}.{}", class.class, class.subject, class.detail), status);
    assert_eq!((answer.verdict, answer.text.as_str(), answer.by), (verdict, text, None));
}

#[test]
fn hosts_come_in_the_order_of_preference_with_all_their_addresses() {
    let server = DnsServer::start(&[
        "x.example MX 20 backup.example",
        "x.example MX 10 mx.x.example",
        "x.example A 192.0.2.99",
        "backup.example A 192.0.2.3",
        "mx.x.example A 192.0.2.1",
        "mx.x.example A 192.0.2.2",
        "mx.x.example AAAA 2001:db8::1",
    ]);
    assert_eq!(
        hosts(&server, "X.Example"),
        ["mx.x.example 2001:db8::1 192.0.2.1 192.0.2.2", "backup.example 192.0.2.3"]
    );
}

#[test]
fn equal_preferences_are_tried_in_random_order() {
    let mut zone =
        vec!["last.example A 192.0.2.9".to_owned(), "x.example MX 20 last.example".to_owned()];
    for host in ["a", "b", "c"] {
        zone.push(format!("x.example MX 10 {host}.example"));
        zone.push(format!("{host}.example A 192.0.2.1"));
    }
    let zone: Vec<_> = zone.iter().map(String::as_str).collect();
    let server = DnsServer::start(&zone);
    let mut first = BTreeSet::new();
    // The chance that one of three is never first in 60 is below 1 in 10^10.
    for _ in 0..60 {
        let hosts = hosts(&server, "x.example");
        assert_eq!(hosts[3], "last.example 192.0.2.9");
        first.insert(hosts[0].clone());
    }
    assert_eq!(first.len(), 3, "{first:?}");
}

#[test]
fn a_domain_without_mx_is_its_own_host() {
    let server = DnsServer::start(&["x.example A 192.0.2.1", "x.example AAAA 2001:db8::1"]);
    assert_eq!(hosts(&server, "x.example"), ["x.example 2001:db8::1 192.0.2.1"]);
}

#[test]
fn an_mx_without_an_address_is_not_replaced_by_the_address_of_the_domain() {
    let server = DnsServer::start(&["x.example MX 10 gone.example", "x.example A 192.0.2.1"]);
    let text = "gone.example has no address";
    assert_answer(next_hops(&server, "x.example"), Verdict::Never, "5.4.4", text);
    assert!(!server.questions().contains(&"x.example A".to_owned()));
}

#[test]
fn a_host_without_an_address_is_skipped() {
    let server = DnsServer::start(&[
        "x.example MX 10 gone.example",
        "x.example MX 20 mx.example",
        "mx.example A 192.0.2.1",
    ]);
    assert_eq!(hosts(&server, "x.example"), ["mx.example 192.0.2.1"]);
}

#[test]
fn no_such_domain_is_final() {
    let server = DnsServer::start(&[]);
    let answer = next_hops(&server, "x.example");
    assert_answer(answer, Verdict::Never, "5.1.2", "no such domain: x.example");
    assert_eq!(server.questions(), ["x.example MX"]);
}

#[test]
fn a_domain_that_exists_without_mx_and_address_is_final() {
    let server = DnsServer::start(&["www.x.example A 192.0.2.1"]);
    let text = "x.example has no address";
    assert_answer(next_hops(&server, "x.example"), Verdict::Never, "5.4.4", text);
}

#[test]
fn a_null_mx_is_final_and_no_host_is_asked_for() {
    let server = DnsServer::start(&["x.example MX 0 .", "x.example A 192.0.2.1"]);
    let text = "x.example takes no mail (null MX)";
    assert_answer(next_hops(&server, "x.example"), Verdict::Never, "5.1.10", text);
    assert_eq!(server.questions(), ["x.example MX"]);
}

#[test]
fn a_null_mx_among_others_is_ignored() {
    let server = DnsServer::start(&[
        "x.example MX 0 .",
        "x.example MX 10 mx.example",
        "mx.example A 192.0.2.1",
    ]);
    assert_eq!(hosts(&server, "x.example"), ["mx.example 192.0.2.1"]);
}

#[test]
fn a_literal_needs_no_dns() {
    let server = DnsServer::start(&[]);
    let domain = Domain::Literal("2001:db8::1".parse().unwrap());
    let hops = route(&resolver(&server)).next_hops(&domain).unwrap().hosts;
    let addresses = vec!["[2001:db8::1]:2525".parse().unwrap()];
    assert_eq!(hops, [Hop { name: "[IPv6:2001:db8::1]".to_owned(), addresses }]);
    assert!(server.questions().is_empty());
}

#[test]
fn a_name_outside_ascii_is_asked_for_as_dns_spells_it() {
    let server = DnsServer::start(&["xn--bcher-kva.example A 192.0.2.1"]);
    assert_eq!(hosts(&server, "bücher.example"), ["xn--bcher-kva.example 192.0.2.1"]);
}

#[test]
fn a_name_that_dns_cannot_carry_is_final_and_nobody_is_asked() {
    let server = DnsServer::start(&[]);
    let label = format!("{}.example", "a".repeat(64));
    let name = format!("{}example", "abcdefg.".repeat(31));
    assert_eq!(name.len(), 255);
    for domain in [label, name] {
        let text = format!("DNS about {domain}: no name that DNS can carry");
        assert_answer(next_hops(&server, &domain), Verdict::Never, "5.1.2", &text);
    }
    assert!(server.questions().is_empty());
}

const OWN_ZONE: [&str; 8] = [
    "x.example MX 10 near.example",
    "x.example MX 20 us.example",
    "x.example MX 20 beside.example",
    "x.example MX 30 behind.example",
    "near.example A 192.0.2.1",
    "us.example A 192.0.2.2",
    "beside.example A 192.0.2.3",
    "behind.example A 192.0.2.4",
];

#[test]
fn if_we_are_an_mx_only_those_before_us_are_left() {
    let server = DnsServer::start(&OWN_ZONE);
    let resolver = resolver(&server);
    let ours = SocketAddr::from(([192, 0, 2, 2], PORT));
    let by_name = Route { hostname: "US.example", ..route(&resolver) };
    let by_address = Route { is_listening: &|address| address == ours, ..route(&resolver) };
    // Often enough that the host beside us has been looked up before us.
    for _ in 0..10 {
        for route in [&by_name, &by_address] {
            let hops = route.next_hops(&named("x.example")).unwrap().hosts;
            assert_eq!(hops.len(), 1);
            assert_eq!(hops[0].name, "near.example");
        }
    }
}

#[test]
fn if_we_are_the_best_mx_it_is_a_loop() {
    let server = DnsServer::start(&OWN_ZONE);
    let resolver = resolver(&server);
    let route = Route { hostname: "near.example", ..route(&resolver) };
    let text = "mail for x.example goes to near.example, which is this server: a loop";
    assert_answer(route.next_hops(&named("x.example")), Verdict::Never, "5.4.6", text);
}

#[test]
fn a_domain_without_mx_that_has_our_address_is_a_loop() {
    let server = DnsServer::start(&["x.example A 192.0.2.2"]);
    let resolver = resolver(&server);
    let ours = SocketAddr::from(([192, 0, 2, 2], PORT));
    let route = Route { is_listening: &|address| address == ours, ..route(&resolver) };
    let text = "mail for x.example goes to x.example, which is this server: a loop";
    assert_answer(route.next_hops(&named("x.example")), Verdict::Never, "5.4.6", text);
}

#[test]
fn we_are_found_behind_more_addresses_than_would_be_tried() {
    let zone: Vec<String> = (1..=9).map(|n| format!("x.example A 192.0.2.{n}")).collect();
    let server = DnsServer::start(&zone.iter().map(String::as_str).collect::<Vec<_>>());
    let resolver = resolver(&server);
    assert_eq!(hosts(&server, "x.example"), ["x.example 192.0.2.1 192.0.2.2 192.0.2.3"]);
    let ours = SocketAddr::from(([192, 0, 2, 9], PORT));
    let route = Route { is_listening: &|address| address == ours, ..route(&resolver) };
    let text = "mail for x.example goes to x.example, which is this server: a loop";
    assert_answer(route.next_hops(&named("x.example")), Verdict::Never, "5.4.6", text);
}

#[test]
fn a_better_host_that_may_come_back_makes_the_loop_wait() {
    let server =
        DnsServer::with_tricks(&OWN_ZONE, &[("near.example", Trick::Udp(tricks::failure))]);
    let resolver = resolver(&server);
    let route = Route { hostname: "us.example", ..route(&resolver) };
    let text = format!("DNS about x.example: the server {} says SERVFAIL", server.address);
    assert_answer(route.next_hops(&named("x.example")), Verdict::Later, "4.4.3", &text);
}

#[test]
fn an_equal_host_of_which_not_all_addresses_are_known_does_not_make_the_loop_wait() {
    let zone = ["x.example MX 10 us.example", "x.example MX 10 equal.example"];
    let zone = [&zone[..], &["equal.example A 192.0.2.1"]].concat();
    let tricks = [("equal.example AAAA", Trick::Udp(tricks::failure))];
    let server = DnsServer::with_tricks(&zone, &tricks);
    let resolver = resolver(&server);
    let route = Route { hostname: "us.example", ..route(&resolver) };
    let text = "mail for x.example goes to us.example, which is this server: a loop";
    // Chance decides which of the two is looked up first.
    for _ in 0..20 {
        assert_answer(route.next_hops(&named("x.example")), Verdict::Never, "5.4.6", text);
    }
}

#[test]
fn a_host_on_this_machine_is_not_asked_because_dns_says_so() {
    let zone = [
        "x.example MX 10 near.example",
        "x.example MX 20 far.example",
        "near.example A 127.0.0.2",
        "near.example AAAA ::1",
        "near.example AAAA ::ffff:127.0.0.3",
        "far.example A 192.0.2.1",
        "y.example MX 10 near.example",
        "z.example MX 10 nobody.example",
        "nobody.example A 0.0.0.0",
        "nobody.example A 224.0.0.1",
        "nobody.example AAAA ::",
    ];
    let server = DnsServer::start(&zone);
    assert_eq!(hosts(&server, "x.example"), ["far.example 192.0.2.1"]);
    let text = "::1, the address of near.example, is this machine itself, \
                where mail goes only with --loopback-hops";
    assert_answer(next_hops(&server, "y.example"), Verdict::Never, "5.4.4", text);

    let resolver = resolver(&server);
    let experiment = Route { loopback_hops: true, ..route(&resolver) };
    let hops = experiment.next_hops(&named("y.example")).unwrap().hosts;
    let addresses = ["[::1]:2525", "127.0.0.3:2525", "127.0.0.2:2525"];
    assert_eq!(hops[0].addresses, addresses.map(|address| address.parse().unwrap()));
    let text = "::, the address of nobody.example, is an address that no host has";
    assert_answer(experiment.next_hops(&named("z.example")), Verdict::Never, "5.4.4", text);
}

#[test]
fn a_host_on_this_machine_that_may_have_other_addresses_makes_the_letter_wait() {
    let server = DnsServer::with_tricks(
        &["x.example A 127.0.0.1"],
        &[("x.example AAAA", Trick::Udp(tricks::failure))],
    );
    let text = format!("DNS about x.example: the server {} says SERVFAIL", server.address);
    assert_answer(next_hops(&server, "x.example"), Verdict::Later, "4.4.3", &text);
}

#[test]
fn a_host_on_this_machine_is_not_asked_because_a_sender_names_its_address() {
    let server = DnsServer::start(&[]);
    let resolver = resolver(&server);
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        let address: IpAddr = address.parse().unwrap();
        let domain = Domain::Literal(address);
        let text = format!(
            "{} is this machine itself, where mail goes only with --loopback-hops",
            address.to_canonical()
        );
        assert_answer(route(&resolver).next_hops(&domain), Verdict::Never, "5.1.2", &text);
        let experiment = Route { loopback_hops: true, ..route(&resolver) };
        let hops = experiment.next_hops(&domain).unwrap().hosts;
        assert_eq!(hops[0].addresses, [SocketAddr::new(address.to_canonical(), PORT)]);
    }
}

#[test]
fn an_mx_that_holds_an_address_is_skipped_and_the_reason_is_told() {
    let server = DnsServer::start(&[
        "x.example MX 10 192.0.2.1",
        "x.example MX 20 mx.example",
        "mx.example A 192.0.2.2",
        "w.example MX 10 192.0.2.1",
        "w.example A 192.0.2.99",
        "y.example MX 10 192.0.2.1",
        "y.example MX 20 gone.example",
        "y.example A 192.0.2.99",
        "192.0.2.1 A 192.0.2.1",
        "z.example MX 10 2001:db8::1",
        "z.example MX 20 a/b.example",
    ]);
    assert_eq!(hosts(&server, "x.example"), ["mx.example 192.0.2.2"]);
    let text = "the MX record of w.example holds the address 192.0.2.1 where a host name belongs";
    assert_answer(next_hops(&server, "w.example"), Verdict::Never, "5.4.4", text);
    let text = "the MX record of y.example holds the address 192.0.2.1 where a host name \
                belongs; gone.example has no address";
    assert_answer(next_hops(&server, "y.example"), Verdict::Never, "5.4.4", text);
    let text = "the MX record of z.example holds the address 2001:db8::1 where a host name \
                belongs; the MX record of z.example names no host: a/b.example";
    assert_answer(next_hops(&server, "z.example"), Verdict::Never, "5.4.4", text);
    assert!(!server.questions().iter().any(|question| question.starts_with("192.0.2.1")));
}

#[test]
fn a_server_that_fails_refuses_or_says_nonsense_means_later() {
    fn endless_counts(answer: &[u8]) -> Vec<Vec<u8>> {
        let mut bad = answer.to_vec();
        bad[6..8].fill(0xff);
        vec![bad]
    }
    for (trick, fault) in [
        (tricks::failure as fn(&[u8]) -> _, "says SERVFAIL"),
        (tricks::refusal, "says REFUSED"),
        (endless_counts, "sends what cannot be read"),
    ] {
        let server =
            DnsServer::with_tricks(&["x.example A 192.0.2.1"], &[("x.example", Trick::Udp(trick))]);
        let text = format!("DNS about x.example: the server {} {fault}", server.address);
        assert_answer(next_hops(&server, "x.example"), Verdict::Later, "4.4.3", &text);
        assert_eq!(server.questions(), ["x.example MX"]);
    }
}

#[test]
fn a_silent_server_is_asked_three_times_each_time_anew() {
    let server = DnsServer::with_tricks(&[], &[("x.example", Trick::Udp(tricks::silence))]);
    let hops = route(&impatient(&server)).next_hops(&named("x.example"));
    let text = "DNS about x.example: no answer in time";
    assert_answer(hops, Verdict::Later, "4.4.3", text);
    let asked = server.asked();
    assert_eq!(server.questions(), ["x.example MX"; 3]);
    let ids: BTreeSet<_> = asked.iter().map(|asked| (asked.id, asked.port)).collect();
    assert_eq!(ids.len(), 3, "{asked:?}");
}

#[test]
fn a_lost_datagram_loses_nothing() {
    static IS_FIRST: AtomicBool = AtomicBool::new(true);
    fn lose_first(answer: &[u8]) -> Vec<Vec<u8>> {
        match IS_FIRST.swap(false, Ordering::SeqCst) {
            true => Vec::new(),
            false => vec![answer.to_vec()],
        }
    }
    let server = DnsServer::with_tricks(
        &["x.example A 192.0.2.1"],
        &[("x.example A", Trick::Udp(lose_first))],
    );
    let resolver = Resolver::new(vec![server.address], Duration::from_millis(1500));
    assert_eq!(resolver.addresses("x.example", Family::V4, far()).unwrap().len(), 1);
}

#[test]
fn a_port_where_nothing_listens_means_later_and_costs_no_wait() {
    let start = Instant::now();
    let resolver = Resolver::new(vec![NOBODY], PATIENCE);
    let answer = route(&resolver).next_hops(&named("x.example")).unwrap_err();
    assert_eq!((answer.verdict, answer.status.detail), (Verdict::Later, 3));
    let text = format!("DNS about x.example: the exchange with the server {NOBODY} failed");
    assert!(answer.text.starts_with(&text), "{answer:?}");
    assert!(start.elapsed() < PATIENCE / 3);
}

#[test]
fn ids_and_ports_cannot_be_foretold() {
    let server = DnsServer::start(&["x.example A 192.0.2.1"]);
    for _ in 0..32 {
        resolver(&server).addresses("x.example", Family::V4, far()).unwrap();
    }
    let asked = server.asked();
    let ids: BTreeSet<_> = asked.iter().map(|asked| asked.id).collect();
    let ports: BTreeSet<_> = asked.iter().map(|asked| asked.port).collect();
    assert!(ids.len() > 24 && ports.len() > 24, "{asked:?}");
    let steps: BTreeSet<_> =
        asked.windows(2).map(|pair| pair[1].id.wrapping_sub(pair[0].id)).collect();
    assert!(steps.len() > 24, "they can be counted up: {asked:?}");
}

#[test]
fn forged_answers_are_ignored_and_the_true_one_is_waited_for() {
    fn forge(answer: &[u8]) -> Vec<Vec<u8>> {
        let lie = |change: fn(&mut Vec<u8>)| {
            let mut packet = answer.to_vec();
            // The last octets are the address in the only record.
            let end = packet.len();
            packet[end - 4..].copy_from_slice(&[192, 0, 2, 66]);
            change(&mut packet);
            packet
        };
        vec![
            lie(|packet| packet[0] ^= 1),
            lie(|packet| packet[1] ^= 1),
            lie(|packet| packet[2] &= 0x7f),
            lie(|packet| packet[2] |= 0x20),
            lie(|packet| packet[13] = b'y'),
            lie(|packet| packet[12 + 11 + 1] = 28),
            lie(|packet| packet[12 + 11 + 3] = 3),
            lie(|packet| packet[5] = 0),
            Vec::new(),
            vec![0; 11],
            vec![0xff; 512],
            answer.to_vec(),
        ]
    }
    let server =
        DnsServer::with_tricks(&["x.example A 192.0.2.1"], &[("x.example A", Trick::Udp(forge))]);
    assert_eq!(hosts(&server, "x.example"), ["x.example 192.0.2.1"]);
    assert_eq!(server.questions().len(), 3, "one question for each of MX, AAAA and A");
}

#[test]
fn wrong_answers_do_not_move_the_deadline() {
    fn many(answer: &[u8]) -> Vec<Vec<u8>> {
        let mut wrong = answer.to_vec();
        wrong[0] ^= 1;
        vec![wrong; 1000]
    }
    let server =
        DnsServer::with_tricks(&["x.example A 192.0.2.1"], &[("x.example", Trick::Udp(many))]);
    let start = Instant::now();
    assert!(matches!(
        impatient(&server).addresses("x.example", Family::V4, far()),
        Err(Trouble::Silence)
    ));
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
}

#[test]
fn a_truncated_answer_is_asked_again_over_tcp() {
    let mut zone: Vec<String> = vec!["a.example A 192.0.2.1".to_owned()];
    zone.extend((1..=40).map(|n| format!("x.example MX {n} host-{n}.elsewhere.example")));
    zone.push("x.example MX 0 a.example".to_owned());
    let zone: Vec<_> = zone.iter().map(String::as_str).collect();
    let server =
        DnsServer::with_tricks(&zone, &[("x.example MX", Trick::Tcp(tricks::with_length))]);
    assert_eq!(resolver(&server).mx("x.example", far()).unwrap().len(), 41);
    let over_tcp: Vec<_> = server.asked().iter().map(|asked| asked.over_tcp).collect();
    assert_eq!(over_tcp, [false, true]);
}

#[test]
fn of_a_hundred_hosts_ten_are_looked_up() {
    let zone: Vec<_> =
        (1..=100).map(|n| format!("x.example MX {n} host-{n}.elsewhere.example")).collect();
    let zone: Vec<_> = zone.iter().map(String::as_str).collect();
    let server =
        DnsServer::with_tricks(&zone, &[("x.example MX", Trick::Tcp(tricks::with_length))]);
    let text = "none of the first 10 mail hosts of x.example will do";
    assert_answer(next_hops(&server, "x.example"), Verdict::Later, "4.4.4", text);
    assert_eq!(server.questions().len(), 2 + 2 * 10);
}

#[test]
fn tcp_that_never_ends_or_ends_at_once_means_later() {
    fn trickle(client: &mut TcpStream, _: &[u8]) {
        // 16,000 octets announced, one at a time, until the client has gone.
        let _ = client.write_all(&16_000_u16.to_be_bytes());
        while client.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    for trick in [
        trickle as fn(&mut TcpStream, &[u8]),
        |_, _| {},
        |client, _| client.write_all(&[0xff; 1000]).unwrap_or_default(),
        |client, _| tricks::with_length(client, &[0; 12]),
        |client, answer| tricks::with_length(client, &tricks::cut_off(answer)[0]),
    ] {
        let server =
            DnsServer::with_tricks(&["x.example A 192.0.2.1"], &[("x.example", Trick::Tcp(trick))]);
        let start = Instant::now();
        let answer = route(&impatient(&server)).next_hops(&named("x.example")).unwrap_err();
        assert_eq!((answer.verdict, answer.status.detail), (Verdict::Later, 3), "{answer:?}");
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }
}

#[test]
fn one_family_that_fails_does_not_hide_the_other() {
    let zone = ["x.example A 192.0.2.1", "x.example AAAA 2001:db8::1"];
    let server = DnsServer::with_tricks(&zone, &[("x.example AAAA", Trick::Udp(tricks::failure))]);
    assert_eq!(hosts(&server, "x.example"), ["x.example 192.0.2.1"]);
    let server = DnsServer::with_tricks(&zone, &[("x.example A", Trick::Udp(tricks::failure))]);
    assert_eq!(hosts(&server, "x.example"), ["x.example 2001:db8::1"]);
}

#[test]
fn a_server_that_denies_the_name_for_ipv6_only_does_not_hide_ipv4() {
    fn deny(answer: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = Packet::parse(answer).unwrap();
        *packet.rcode_mut() = RCODE::NameError;
        vec![packet.build_bytes_vec().unwrap()]
    }
    let server =
        DnsServer::with_tricks(&["x.example A 192.0.2.1"], &[("x.example AAAA", Trick::Udp(deny))]);
    assert_eq!(hosts(&server, "x.example"), ["x.example 192.0.2.1"]);
}

#[test]
fn one_host_that_may_have_an_address_later_makes_all_wait() {
    let server = DnsServer::with_tricks(
        &["x.example MX 10 gone.example", "x.example MX 20 mx.example"],
        &[("mx.example A", Trick::Udp(tricks::failure))],
    );
    let text = format!("DNS about x.example: the server {} says SERVFAIL", server.address);
    assert_answer(next_hops(&server, "x.example"), Verdict::Later, "4.4.3", &text);
}

#[test]
fn an_alias_is_followed_for_the_domain_and_for_a_host() {
    let server = DnsServer::start(&[
        "x.example CNAME y.example",
        "y.example MX 10 mx.example",
        "mx.example CNAME host.example",
        "host.example A 192.0.2.1",
    ]);
    assert_eq!(hosts(&server, "x.example"), ["mx.example 192.0.2.1"]);
}

#[test]
fn an_answer_that_stops_at_an_alias_is_followed_by_another_question() {
    fn half(answer: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = Packet::parse(answer).unwrap();
        packet.answers.retain(|record| record.rdata.type_code() == TYPE::CNAME);
        packet.answers.truncate(1);
        vec![packet.build_bytes_vec().unwrap()]
    }
    let server = DnsServer::with_tricks(
        &["x.example CNAME y.example", "y.example A 192.0.2.1"],
        &[("x.example", Trick::Udp(half))],
    );
    assert_eq!(hosts(&server, "x.example"), ["x.example 192.0.2.1"]);
    assert!(server.questions().contains(&"y.example A".to_owned()));
}

#[test]
fn a_circle_of_aliases_means_later() {
    let server = DnsServer::start(&["x.example CNAME y.example", "y.example CNAME x.example"]);
    let text = "DNS about x.example: aliases in a circle, or too many of them";
    assert_answer(next_hops(&server, "x.example"), Verdict::Later, "4.4.3", text);
}

#[test]
fn an_alias_to_a_name_that_does_not_exist_is_no_such_domain() {
    let server = DnsServer::start(&["x.example CNAME gone.example"]);
    let answer = next_hops(&server, "x.example");
    assert_answer(answer, Verdict::Never, "5.1.2", "no such domain: x.example");
}

#[test]
fn an_address_that_no_host_can_have_is_never_a_next_hop() {
    let server = DnsServer::start(&[]);
    for address in ["0.0.0.0", "224.0.0.1", "::", "ff02::1"] {
        let domain = Domain::Literal(address.parse().unwrap());
        let hops = route(&resolver(&server)).next_hops(&domain);
        let text = format!("{address} is an address that no host has");
        assert_answer(hops, Verdict::Never, "5.1.2", &text);
    }
}

const ALL_TYPES: [&str; 6] = [
    "x.example MX 10 mx.example",
    "x.example A 192.0.2.1",
    "x.example AAAA 2001:db8::1",
    "x.example TXT v=spf1 -all",
    "1.2.0.192.in-addr.arpa PTR x.example",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR x.example",
];

/// Asks for a record of `ALL_TYPES`, by number, and checks it.
fn ask_for(number: usize, resolver: &Resolver) -> Result<(), Trouble> {
    let ask: fn(&Resolver) -> Result<bool, Trouble> = match number {
        0 => |resolver| {
            let mx = Mx { preference: 10, host: "mx.example".to_owned() };
            Ok(resolver.mx("x.example", far())? == [mx])
        },
        1 => |resolver| {
            Ok(resolver.addresses("x.example", Family::V4, far())?
                == [IpAddr::from([192, 0, 2, 1])])
        },
        2 => |resolver| {
            Ok(resolver.addresses("x.example", Family::V6, far())?[0].to_string() == "2001:db8::1")
        },
        3 => |resolver| Ok(resolver.txt("x.example", far())? == [b"v=spf1-all"]),
        4 => |resolver| Ok(resolver.ptr([192, 0, 2, 1].into(), far())? == ["x.example"]),
        _ => |resolver| Ok(resolver.ptr("2001:db8::1".parse().unwrap(), far())? == ["x.example"]),
    };
    assert!(ask(resolver)?, "{number}");
    Ok(())
}

#[test]
fn a_server_that_does_not_answer_as_it_should_is_passed_over_for_every_type() {
    fn cut_short(answer: &[u8]) -> Vec<Vec<u8>> {
        vec![answer[..answer.len() - 1].to_vec()]
    }
    let of_all = |trick: Trick| {
        ["x.example", "1.2.0.192.in-addr.arpa", ALL_TYPES[5].split(' ').next().unwrap()]
            .map(|name| (name, trick))
    };
    let bad_servers = [
        Trick::Udp(tricks::silence),
        Trick::Udp(tricks::failure),
        Trick::Udp(tricks::refusal),
        Trick::Udp(cut_short),
        Trick::Tcp(|_, _| {}),
        Trick::Tcp(|client, answer| tricks::with_length(client, &tricks::cut_off(answer)[0])),
    ]
    .map(|trick| DnsServer::with_tricks(&ALL_TYPES, &of_all(trick)));
    let bad: Vec<_> = bad_servers.iter().map(|server| server.address).collect();
    let good = DnsServer::start(&ALL_TYPES);
    for first in bad.into_iter().chain([NOBODY]) {
        for number in 0..ALL_TYPES.len() {
            // Each with its own resolver: one would remember who has answered.
            let patience = Duration::from_millis(1200);
            ask_for(number, &Resolver::new(vec![first, good.address], patience)).unwrap();
        }
    }
    for server in bad_servers {
        let asked = server.questions().len();
        assert!(asked >= ALL_TYPES.len(), "{:?}", server.questions());
    }
}

#[test]
fn a_dead_server_costs_its_time_once() {
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let good = DnsServer::start(&ALL_TYPES);
    let servers = vec![dead.local_addr().unwrap(), good.address];
    let resolver = Resolver::new(servers, Duration::from_millis(1200));
    for number in 0..ALL_TYPES.len() {
        ask_for(number, &resolver).unwrap();
    }
    dead.set_nonblocking(true).unwrap();
    let came = std::iter::from_fn(|| dead.recv(&mut [0; 512]).ok()).count();
    assert_eq!((came, good.questions().len()), (1, ALL_TYPES.len()));
}

#[test]
fn a_server_that_says_no_such_name_is_believed() {
    let knows_nothing = DnsServer::start(&[]);
    let other = DnsServer::start(&ALL_TYPES);
    let resolver = Resolver::new(vec![knows_nothing.address, other.address], PATIENCE);
    assert!(matches!(resolver.txt("x.example", far()), Err(Trouble::NoSuchName)));
    assert!(other.questions().is_empty());
}

#[test]
fn a_server_that_has_failed_is_not_asked_again_and_a_silent_one_is() {
    let zone = ["x.example A 192.0.2.1"];
    let failing = DnsServer::with_tricks(&zone, &[("x.example", Trick::Udp(tricks::failure))]);
    let silent = DnsServer::with_tricks(&zone, &[("x.example", Trick::Udp(tricks::silence))]);
    let resolver = Resolver::new(vec![failing.address, silent.address], SHORT);
    let trouble = resolver.addresses("x.example", Family::V4, far()).unwrap_err();
    // The one that said something is named.
    assert_eq!(trouble.to_string(), format!("the server {} says SERVFAIL", failing.address));
    assert_eq!((failing.questions().len(), silent.questions().len()), (1, 3));
}

#[test]
fn all_servers_and_rounds_together_keep_to_the_deadline() {
    let dead: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let servers: Vec<_> = dead.iter().map(|dead| dead.local_addr().unwrap()).collect();
    // The bound of the question, and that of the caller.
    for (patience, limit) in [(SHORT, 2 * PATIENCE), (PATIENCE, SHORT)] {
        let resolver = Resolver::new(servers.clone(), patience);
        let start = Instant::now();
        let answer = resolver.addresses("x.example", Family::V4, start + limit);
        assert!(matches!(answer, Err(Trouble::Silence)), "{answer:?}");
        // A wait may be some milliseconds short: the system counts it in ticks.
        assert!(start.elapsed() >= SHORT / 2 && start.elapsed() < PATIENCE / 3);
    }
    // Nobody is asked what nobody can answer in time.
    let late = Resolver::new(servers, PATIENCE).addresses("y.example", Family::V4, Instant::now());
    assert!(matches!(late, Err(Trouble::Silence)));
    let mut datagram = [0; 512];
    for dead in dead {
        dead.set_nonblocking(true).unwrap();
        while let Ok(length) = dead.recv(&mut datagram) {
            let asked = datagram[..length].to_ascii_lowercase();
            assert!(asked.windows(9).any(|octets| octets == b"\x01x\x07exampl"));
        }
    }
}

#[test]
fn all_look_ups_of_a_route_share_one_deadline() {
    let hosts = (1..=9).map(|n| format!("x.example MX {n} host-{n}.example"));
    let zone: Vec<String> = hosts.collect();
    let zone: Vec<_> = zone.iter().map(String::as_str).collect();
    let silences: Vec<_> = zone
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap().to_owned().leak() as &'static str)
        .map(|host| (host, Trick::Udp(tricks::silence)))
        .collect();
    let server = DnsServer::with_tricks(&zone, &silences);
    let resolver = resolver(&server);
    let start = Instant::now();
    let route = Route { deadline: start + SHORT, ..route(&resolver) };
    let text = "DNS about x.example: no answer in time";
    assert_answer(route.next_hops(&named("x.example")), Verdict::Later, "4.4.3", text);
    assert!(start.elapsed() < PATIENCE / 3);
}

#[test]
fn two_hosts_that_dns_is_silent_about_leave_time_for_the_third() {
    let zone = [
        "x.example MX 1 one.example",
        "x.example MX 2 two.example",
        "x.example MX 3 three.example",
        "three.example A 192.0.2.3",
    ];
    let silence = Trick::Udp(tricks::silence);
    let server =
        DnsServer::with_tricks(&zone, &[("one.example", silence), ("two.example", silence)]);
    let resolver = resolver(&server);
    let limit = 10 * SHORT;
    let start = Instant::now();
    let hops = Route { deadline: start + limit, ..route(&resolver) }.next_hops(&named("x.example"));
    let hops = hops.unwrap().hosts;
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
    let found: Vec<_> = hops.iter().map(|hop| (hop.name.as_str(), hop.addresses.len())).collect();
    assert_eq!(found, [("one.example", 0), ("two.example", 0), ("three.example", 1)]);
}

#[test]
fn silence_about_ipv6_leaves_time_to_ask_for_ipv4() {
    let server = DnsServer::with_tricks(
        &["x.example A 192.0.2.1"],
        &[("x.example AAAA", Trick::Udp(tricks::silence))],
    );
    let resolver = resolver(&server);
    let route = Route { deadline: Instant::now() + 4 * SHORT, ..route(&resolver) };
    let hops = route.next_hops(&named("x.example")).unwrap().hosts;
    assert_eq!(hops[0].addresses, ["192.0.2.1:2525".parse().unwrap()]);
}

#[test]
fn a_ring_of_aliases_across_answers_ends() {
    fn first_only(answer: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = Packet::parse(answer).unwrap();
        packet.answers.truncate(1);
        vec![packet.build_bytes_vec().unwrap()]
    }
    let ring =
        ["x.example CNAME y.example", "y.example CNAME z.example", "z.example CNAME x.example"];
    let names = ["x.example", "y.example", "z.example"];
    let server = DnsServer::with_tricks(&ring, &names.map(|name| (name, Trick::Udp(first_only))));
    for number in [0, 1, 2, 3] {
        let before = server.questions().len();
        assert!(matches!(ask_for(number, &resolver(&server)), Err(Trouble::TooManyAliases)));
        assert_eq!(server.questions().len() - before, 8);
    }
}

#[test]
fn a_name_that_exists_without_such_a_record_is_an_empty_list_and_no_error() {
    let server = DnsServer::start(&["www.x.example A 192.0.2.1"]);
    let resolver = resolver(&server);
    assert!(resolver.mx("x.example", far()).unwrap().is_empty());
    assert!(resolver.addresses("x.example", Family::V4, far()).unwrap().is_empty());
    assert!(resolver.addresses("x.example", Family::V6, far()).unwrap().is_empty());
    assert!(resolver.txt("x.example", far()).unwrap().is_empty());
    assert!(matches!(resolver.txt("y.example", far()), Err(Trouble::NoSuchName)));
}

#[test]
fn several_txt_records_are_a_list_and_the_strings_of_each_are_joined() {
    let server = DnsServer::start(&[
        "x.example TXT v=spf1 \u{20ac}=x -all",
        "x.example TXT =other",
        "x.example A 192.0.2.1",
    ]);
    let texts = resolver(&server).txt("x.example", far()).unwrap();
    assert_eq!(texts, ["v=spf1\u{20ac}=x-all".as_bytes(), b"=other"]);
}

#[test]
fn a_txt_record_as_long_as_an_answer_can_be_comes_over_tcp() {
    // 12 octets of header, 15 of question, 12 before the data; 255 strings of 256.
    let words: Vec<String> = (0..255).map(|n| format!("{n:03}").repeat(85)).collect();
    let line = format!("x.example TXT {}", words.join(" "));
    let server =
        DnsServer::with_tricks(&[&line], &[("x.example", Trick::Tcp(tricks::with_length))]);
    let texts = resolver(&server).txt("x.example", far()).unwrap();
    assert_eq!(texts, [words.concat().into_bytes()]);
    assert_eq!(texts[0].len(), 65_025);
}

#[test]
fn a_host_has_the_names_that_its_address_claims() {
    let server = DnsServer::start(&[
        "1.2.0.192.in-addr.arpa PTR One.Example",
        "1.2.0.192.in-addr.arpa PTR two.example",
        "2.2.0.192.in-addr.arpa CNAME 2.net.example",
        "2.net.example PTR three.example",
    ]);
    let ptr = |last: u8| resolver(&server).ptr([192, 0, 2, last].into(), far());
    assert_eq!(ptr(1).unwrap(), ["one.example", "two.example"]);
    assert_eq!(ptr(2).unwrap(), ["three.example"]);
    assert!(matches!(ptr(3), Err(Trouble::NoSuchName)));
}
