//! Finding the next hop, against a DNS server that is told how to misbehave.
//!
//! Book: docs/15-finding-the-next-hop.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::dns::{DnsServer, Trick, tricks};
use ehlo::relay::dns::{Resolver, Trouble};
use ehlo::relay::route::Hop;
use ehlo::relay::{Answer, Verdict};
use ehlo::smtp::address::Domain;
use simple_dns::{Packet, RCODE, TYPE};

/// The port of the hosts that are found. Nobody connects to them.
const PORT: u16 = 2525;
/// For one try, where an answer comes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(10);
/// For one try, where a test waits in vain. It does so three times.
const SHORT: Duration = Duration::from_millis(100);

fn resolver(server: &DnsServer) -> Resolver {
    Resolver::new(server.address, PATIENCE)
}

fn impatient(server: &DnsServer) -> Resolver {
    Resolver::new(server.address, SHORT)
}

fn next_hops(server: &DnsServer, domain: &str) -> Result<Vec<Hop>, Answer> {
    resolver(server).next_hops(&Domain::Name(domain.to_owned()), PORT, &|_, _| false)
}

/// `name address address`, for each host.
fn hosts(server: &DnsServer, domain: &str) -> Vec<String> {
    let hops = next_hops(server, domain).unwrap();
    assert!(hops.iter().flat_map(|hop| &hop.addresses).all(|address| address.port() == PORT));
    let words = |hop: Hop| {
        let addresses = hop.addresses.iter().map(|address| address.ip().to_string());
        [vec![hop.name], addresses.collect()].concat().join(" ")
    };
    hops.into_iter().map(words).collect()
}

/// Verdict, status and text for a recipient in a domain without a next hop.
#[track_caller]
fn assert_answer(answer: Result<Vec<Hop>, Answer>, verdict: Verdict, status: &str, text: &str) {
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
    let text = "no mail host of x.example has an address";
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
    let text = "no mail host of x.example has an address";
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
    let hops = resolver(&server).next_hops(&domain, PORT, &|_, _| false).unwrap();
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
        let text = format!("no name that DNS can carry: {domain}");
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
    let domain = Domain::Name("x.example".to_owned());
    let by_name = |name: &str, _: &[SocketAddr]| name == "us.example";
    let ours = SocketAddr::from(([192, 0, 2, 2], PORT));
    let by_address = |_: &str, addresses: &[SocketAddr]| addresses.contains(&ours);
    // Often enough that the host beside us has been looked up before us.
    for _ in 0..10 {
        for is_own in [&by_name as &dyn Fn(&str, &[SocketAddr]) -> bool, &by_address] {
            let hops = resolver(&server).next_hops(&domain, PORT, is_own).unwrap();
            assert_eq!(hops.len(), 1);
            assert_eq!(hops[0].name, "near.example");
        }
    }
}

#[test]
fn if_we_are_the_best_mx_it_is_a_loop() {
    let server = DnsServer::start(&OWN_ZONE);
    let domain = Domain::Name("x.example".to_owned());
    let hops = resolver(&server).next_hops(&domain, PORT, &|name, _| name == "near.example");
    let text = "mail for x.example goes to near.example, which is this server: a loop";
    assert_answer(hops, Verdict::Never, "5.4.6", text);
}

#[test]
fn a_domain_without_mx_that_has_our_address_is_a_loop() {
    let server = DnsServer::start(&["x.example A 192.0.2.2"]);
    let domain = Domain::Name("x.example".to_owned());
    let ours = SocketAddr::from(([192, 0, 2, 2], PORT));
    let hops = resolver(&server).next_hops(&domain, PORT, &|_, all| all.contains(&ours));
    let text = "mail for x.example goes to x.example, which is this server: a loop";
    assert_answer(hops, Verdict::Never, "5.4.6", text);
}

#[test]
fn a_better_host_that_may_come_back_makes_the_loop_wait() {
    let server =
        DnsServer::with_tricks(&OWN_ZONE, &[("near.example", Trick::Udp(tricks::failure))]);
    let domain = Domain::Name("x.example".to_owned());
    let hops = resolver(&server).next_hops(&domain, PORT, &|name, _| name == "us.example");
    let text = "DNS about x.example: the server failed (SERVFAIL)";
    assert_answer(hops, Verdict::Later, "4.4.3", text);
}

#[test]
fn a_server_that_fails_refuses_or_says_nonsense_means_later() {
    fn endless_counts(answer: &[u8]) -> Vec<Vec<u8>> {
        let mut bad = answer.to_vec();
        bad[6..8].fill(0xff);
        vec![bad]
    }
    for (trick, text) in [
        (tricks::failure as fn(&[u8]) -> _, "the server failed (SERVFAIL)"),
        (tricks::refusal, "the server refused to answer (REFUSED)"),
        (endless_counts, "the answer cannot be read"),
    ] {
        let server =
            DnsServer::with_tricks(&["x.example A 192.0.2.1"], &[("x.example", Trick::Udp(trick))]);
        let text = format!("DNS about x.example: {text}");
        assert_answer(next_hops(&server, "x.example"), Verdict::Later, "4.4.3", &text);
        assert_eq!(server.questions(), ["x.example MX"]);
    }
}

#[test]
fn a_silent_server_is_asked_three_times_each_time_anew() {
    let server = DnsServer::with_tricks(&[], &[("x.example", Trick::Udp(tricks::silence))]);
    let domain = Domain::Name("x.example".to_owned());
    let hops = impatient(&server).next_hops(&domain, PORT, &|_, _| false);
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
    let resolver = Resolver::new(server.address, Duration::from_millis(500));
    assert_eq!(resolver.query("x.example", TYPE::A).unwrap().len(), 1);
}

#[test]
fn a_port_where_nothing_listens_means_later_and_costs_no_wait() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let resolver = Resolver::new(free, Duration::from_secs(20));
    let hops = resolver.next_hops(&Domain::Name("x.example".to_owned()), PORT, &|_, _| false);
    let answer = hops.unwrap_err();
    assert_eq!((answer.verdict, answer.status.detail), (Verdict::Later, 3));
    assert!(
        answer.text.starts_with("DNS about x.example: the exchange with the server failed"),
        "{answer:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn ids_and_ports_cannot_be_foretold() {
    let server = DnsServer::start(&["x.example A 192.0.2.1"]);
    for _ in 0..32 {
        resolver(&server).query("x.example", TYPE::A).unwrap();
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
    assert!(matches!(impatient(&server).query("x.example", TYPE::A), Err(Trouble::Silence)));
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
    assert_eq!(resolver(&server).query("x.example", TYPE::MX).unwrap().len(), 41);
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
    assert!(next_hops(&server, "x.example").is_err());
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
        let domain = Domain::Name("x.example".to_owned());
        let hops = impatient(&server).next_hops(&domain, PORT, &|_, _| false);
        let answer = hops.unwrap_err();
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
    let text = "DNS about x.example: the server failed (SERVFAIL)";
    assert_answer(next_hops(&server, "x.example"), Verdict::Later, "4.4.3", text);
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
        let hops = resolver(&server).next_hops(&domain, PORT, &|_, _| false);
        let text = format!("no host has the address {domain}");
        assert_answer(hops, Verdict::Never, "5.1.2", &text);
    }
}
