//! The public test suite of SPF (openspf, adapted to RFC 7208): 203 cases, with their
//! zones, asked of a DNS server on loopback. Its licence is beside it in `tests/trust/`.
//!
//! Book: docs/16-trust.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ehlo::dns::Resolver;
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use ehlo::trust::spf::{Request, SpfVerdict, check_mail_from};
use jiff::Timestamp;
use serde_json::{Map, Value};
use simple_dns::rdata::{A, AAAA, CNAME, MX, NULL, PTR, RData, TXT};
use simple_dns::{CLASS, CharacterString, ResourceRecord};

use common::dns::{DnsServer, Trick, name, tricks};

const CASES: usize = 203;
/// A server that is silent is asked three times in this time.
const PATIENCE: Duration = Duration::from_millis(150);
/// What the suite may use, of which only some have records at a name.
const TYPES: [&str; 6] = ["A", "AAAA", "MX", "PTR", "TXT", "CNAME"];

#[test]
fn the_whole_public_suite_passes() {
    let suite = include_str!("trust/spf-openspf.json");
    let suite: Value = serde_json::from_str(suite).unwrap();
    let zones: BTreeMap<&String, DnsServer> = suite["zones"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, zone)| (name, serve(zone)))
        .collect();
    let cases = suite["cases"].as_array().unwrap();
    assert_eq!(cases.len(), CASES);

    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let zone = case["zone"].as_str().unwrap().to_owned();
            let (verdict, steps) = check(case, &zones[&zone]);
            let why = difference(case, &verdict)?;
            Some(format!("{}: {why}\n    {}", case["id"], steps.join("\n    ")))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {CASES}:\n{}", wrong.len(), wrong.join("\n"));
}

fn check(case: &Value, dns: &DnsServer) -> (SpfVerdict, Vec<String>) {
    let resolver = Resolver::new(vec![dns.address], PATIENCE);
    let lookups = Lookups::new(&resolver, Instant::now() + Duration::from_secs(10));
    let request = Request {
        ip: case["ip"].as_str().unwrap().parse().unwrap(),
        helo: case["helo"].as_str().unwrap(),
        mail_from: case["mailfrom"].as_str().unwrap(),
        receiver: "receiver.example",
        now: Timestamp::now(),
    };
    let mut steps = Steps::told();
    let verdict = check_mail_from(&request, &lookups, &mut steps);
    (verdict, steps.into_lines())
}

/// What is not as the suite expects it. `DEFAULT` is the text of a server whose owner has
/// none.
fn difference(case: &Value, verdict: &SpfVerdict) -> Option<String> {
    let expected = case["expected"].as_array().unwrap();
    let result = verdict.result.to_string();
    if !expected.iter().any(|one| *one == *result) {
        return Some(format!("expected {expected:?}, found {result}"));
    }
    let text = verdict.explanation.as_deref().unwrap_or("DEFAULT");
    match case["explanation"].as_str() {
        Some(expected) if expected != text => {
            Some(format!("expected the explanation {expected:?}, found {text:?}"))
        }
        _ => None,
    }
}

/// A server that knows a zone of the suite.
fn serve(zone: &Value) -> DnsServer {
    let mut records = Vec::new();
    let mut silent = Vec::new();
    for (owner, types) in zone.as_object().unwrap() {
        let types: &Map<String, Value> = types.as_object().unwrap();
        for (kind, values) in types.iter().filter(|(kind, _)| *kind != "*") {
            for value in values.as_array().unwrap() {
                records.push(ResourceRecord::new(name(owner), CLASS::IN, 60, data(kind, value)));
            }
        }
        if types.contains_key("*") {
            let missing = TYPES.iter().filter(|kind| !types.contains_key(**kind));
            silent.extend(missing.map(|kind| format!("{owner} {kind}")));
        }
    }
    let silence = |question| (question, Trick::Udp(tricks::silence));
    DnsServer::with_records(records, silent.into_iter().map(silence).collect())
}

fn data(kind: &str, value: &Value) -> RData<'static> {
    let text = || value.as_str().unwrap();
    match kind {
        "A" => RData::A(A { address: text().parse::<std::net::Ipv4Addr>().unwrap().to_bits() }),
        "AAAA" => {
            RData::AAAA(AAAA { address: text().parse::<std::net::Ipv6Addr>().unwrap().to_bits() })
        }
        "CNAME" => RData::CNAME(CNAME(name(text()))),
        "PTR" => RData::PTR(PTR(name(text()))),
        "MX" => RData::MX(MX {
            preference: u16::try_from(value[0].as_u64().unwrap()).unwrap(),
            exchange: name(value[1].as_str().unwrap()),
        }),
        "TXT" => RData::TXT(strings(value)),
        // Type 99, which RFC 7208 gave up: the name exists, and has no TXT for it.
        "SPF" => RData::NULL(0, NULL::new(b"").unwrap()),
        _ => panic!("no records of type {kind}"),
    }
}

/// The suite has octets as the characters of Latin-1.
fn strings(value: &Value) -> TXT<'static> {
    value.as_array().unwrap().iter().fold(TXT::new(), |txt, string| {
        let octets: Vec<u8> =
            string.as_str().unwrap().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        txt.with_char_string(CharacterString::new(&octets).unwrap()).into_owned()
    })
}
