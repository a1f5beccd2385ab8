//! DMARC with records from a DNS server on loopback: which record counts, what the owner
//! wants, which domains belong together, and how much may be asked.
//!
//! Book: docs/16-trust.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::time::{Duration, Instant};

use ehlo::dns::Resolver;
use ehlo::trust::author::NoAuthor;
use ehlo::trust::dkim::DkimResult;
use ehlo::trust::dmarc::{DmarcResult, DmarcVerdict, Policy, Proven, check};
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use ehlo::trust::spf::{Request, SpfResult, check_mail_from};
use jiff::Timestamp;
use simple_dns::rdata::{RData, TXT};
use simple_dns::{CLASS, CharacterString, ResourceRecord};

use common::dns::{DnsServer, Trick, name, tricks};

/// Names without `_dmarc.`, and what stands there.
const RECORDS: [(&str, &str); 19] = [
    ("bank.example", "v=DMARC1; p=reject; sp=quarantine; np=reject"),
    ("known.bank.example", ""),
    ("strict.example", "v=DMARC1; p=reject; adkim=s; aspf=s"),
    ("test.example", "v=DMARC1; p=reject; t=y"),
    ("none.example", "v=DMARC1; p=none"),
    ("short.example", "v=DMARC1; sp=reject"),
    ("twice.example", "v=DMARC1; p=reject"),
    ("twice.example", "v=DMARC1; p=none"),
    ("wrong.example", "v=DMARC1; p=destroy"),
    ("reports.example", "v=DMARC1; p=destroy; rua=mailto:a@reports.example"),
    ("suffix.example", "v=DMARC1; p=reject; sp=none; np=quarantine; psd=y"),
    ("own.bank.example", "v=DMARC1; p=none; psd=n"),
    ("sub.twice.example", "v=DMARC1; p=quarantine"),
    ("other.example", "hello"),
    ("deep.one.example", "v=DMARC1; p=quarantine"),
    ("case.example", "v=DMARC1;P=Reject"),
    ("old.example", "v=DMARC1; p=reject; pct=0; ri=5; fo=1"),
    ("own.later.example", "v=DMARC1; p=reject; sp=none; adkim=s"),
    ("wrong.later.example", "v=DMARC1; p=destroy"),
];

struct World {
    dns: DnsServer,
}

impl World {
    fn new() -> World {
        let record = |(owner, text): &(&str, &str)| {
            // A name that exists, and has no record.
            let owner =
                if text.is_empty() { (*owner).to_owned() } else { format!("_dmarc.{owner}") };
            let string = CharacterString::new(text.as_bytes()).unwrap().into_owned();
            let data = RData::TXT(TXT::new().with_char_string(string));
            ResourceRecord::new(name(&owner), CLASS::IN, 60, data)
        };
        let failing = [("_dmarc.later.example TXT".to_owned(), Trick::Udp(tricks::failure))];
        let records = RECORDS.iter().map(record).collect();
        World { dns: DnsServer::with_records(records, failing.to_vec()) }
    }

    fn check(&self, author: &str, spf: &str, dkim: &[(DkimResult, &str)]) -> DmarcVerdict {
        self.check_author(&Ok(author.to_owned()), spf, dkim)
    }

    fn check_author(
        &self,
        author: &Result<String, NoAuthor>,
        spf: &str,
        dkim: &[(DkimResult, &str)],
    ) -> DmarcVerdict {
        let resolver = Resolver::new(vec![self.dns.address], Duration::from_secs(3));
        let lookups = Lookups::new(&resolver, Instant::now() + Duration::from_secs(10));
        let result = if spf.is_empty() { SpfResult::Fail } else { SpfResult::Pass };
        let proven = Proven { spf: (result, spf), dkim: dkim.to_vec() };
        check(author, &proven, &lookups, &mut Steps::silent())
    }
}

#[test]
fn the_record_that_counts_is_found_on_the_way_up() {
    use Policy::{None, Quarantine, Reject};
    let world = World::new();
    for (author, result, policy) in [
        ("bank.example", DmarcResult::Fail, Reject),
        ("known.bank.example", DmarcResult::Fail, Quarantine),
        ("gone.bank.example", DmarcResult::Fail, Reject),
        ("own.bank.example", DmarcResult::Fail, None),
        ("deep.own.bank.example", DmarcResult::Fail, None),
        ("test.example", DmarcResult::Fail, Quarantine),
        ("none.example", DmarcResult::Fail, None),
        // Without `p` it is `none`, for the name itself.
        ("short.example", DmarcResult::Fail, None),
        ("below.short.example", DmarcResult::Fail, Reject),
        ("case.example", DmarcResult::Fail, Reject),
        ("old.example", DmarcResult::Fail, Reject),
        ("deep.one.example", DmarcResult::Fail, Quarantine),
        ("sub.twice.example", DmarcResult::Fail, Quarantine),
        // Two records are none, and so is one that says nothing.
        ("twice.example", DmarcResult::None, None),
        ("wrong.example", DmarcResult::None, None),
        ("other.example", DmarcResult::None, None),
        ("nobody.example", DmarcResult::None, None),
        // Whoever wants reports is taken for one who tries it out.
        ("reports.example", DmarcResult::Fail, None),
        // A public suffix speaks for names below it that have no record of their own.
        ("x.suffix.example", DmarcResult::Fail, Quarantine),
        ("suffix.example", DmarcResult::Fail, Reject),
        ("later.example", DmarcResult::TempError, None),
    ] {
        let verdict = world.check(author, "", &[]);
        assert_eq!((verdict.result, verdict.policy), (result, policy), "{author}");
    }
}

#[test]
fn what_is_proven_fits_the_author_or_does_not() {
    let world = World::new();
    let pass = DkimResult::Pass;
    for (author, spf, dkim, expected) in [
        ("bank.example", "bank.example", &[][..], DmarcResult::Pass),
        ("bank.example", "mail.bank.example", &[], DmarcResult::Pass),
        ("known.bank.example", "", &[(pass, "bank.example")], DmarcResult::Pass),
        ("known.bank.example", "", &[(pass, "other.bank.example")], DmarcResult::Pass),
        ("bank.example", "evil.example", &[(pass, "evil.example")], DmarcResult::Fail),
        ("bank.example", "", &[(DkimResult::Fail, "bank.example")], DmarcResult::Fail),
        ("bank.example", "evilbank.example", &[], DmarcResult::Fail),
        ("bank.example", "example", &[], DmarcResult::Fail),
        // `psd=n` makes a name an organization of its own.
        ("bank.example", "own.bank.example", &[], DmarcResult::Fail),
        ("own.bank.example", "bank.example", &[], DmarcResult::Fail),
        ("a.own.bank.example", "b.own.bank.example", &[], DmarcResult::Pass),
        // Below a public suffix, names are strangers.
        ("x.suffix.example", "y.suffix.example", &[], DmarcResult::Fail),
        ("a.x.suffix.example", "b.x.suffix.example", &[], DmarcResult::Pass),
        ("strict.example", "mail.strict.example", &[(pass, "a.strict.example")], DmarcResult::Fail),
        (
            "strict.example",
            "",
            &[(pass, "evil.example"), (pass, "strict.example")],
            DmarcResult::Pass,
        ),
        // It may pass once DNS works again.
        ("bank.example", "", &[(DkimResult::TempError, "bank.example")], DmarcResult::TempError),
        ("bank.example", "", &[(DkimResult::TempError, "evil.example")], DmarcResult::Fail),
    ] {
        let verdict = world.check(author, spf, dkim);
        assert_eq!(verdict.result, expected, "{author} {spf} {dkim:?}");
    }
}

#[test]
fn nobody_above_a_name_is_asked_that_has_a_record_and_has_passed_itself() {
    let world = World::new();
    let pass = DkimResult::Pass;
    let author = "own.later.example";
    for (spf, dkim, expected) in [
        (author, &[][..], DmarcResult::Pass),
        ("", &[(DkimResult::Fail, "evil.example"), (pass, author)], DmarcResult::Pass),
        // The name of the envelope may be of the same organization, which nobody can tell today.
        ("mail.own.later.example", &[(pass, author)], DmarcResult::Pass),
        ("mail.own.later.example", &[], DmarcResult::TempError),
        ("", &[(DkimResult::Fail, author)], DmarcResult::TempError),
        ("", &[(DkimResult::TempError, author)], DmarcResult::TempError),
    ] {
        let verdict = world.check(author, spf, dkim);
        assert_eq!(verdict.result, expected, "{spf} {dkim:?}");
        if expected == DmarcResult::Pass {
            assert_eq!(verdict.policy, Policy::Reject);
        }
    }
    // A record that says nothing is none, and so is no record.
    for (author, expected) in
        [("wrong.later.example", DmarcResult::None), ("none.later.example", DmarcResult::TempError)]
    {
        assert_eq!(world.check(author, author, &[]).result, expected, "{author}");
    }
    let before = world.dns.asked().len();
    world.check("bank.example", "bank.example", &[]);
    assert_eq!(world.dns.asked().len() - before, 1);
}

#[test]
fn of_several_authors_the_strictest_policy_counts() {
    let world = World::new();
    let domains = ["none.example", "bank.example"].map(str::to_owned).to_vec();
    let verdict = world.check_author(&Err(NoAuthor::Several(domains)), "none.example", &[]);
    assert_eq!((verdict.result, verdict.policy), (DmarcResult::Fail, Policy::Reject));
    let verdict = world.check_author(&Err(NoAuthor::Missing), "none.example", &[]);
    assert_eq!((verdict.result, verdict.policy), (DmarcResult::Fail, Policy::None));
}

#[test]
fn a_long_name_and_many_signatures_are_asked_about_only_so_often() {
    let world = World::new();
    let long = format!("{}bank.example", "a.".repeat(100));
    world.check(&long, "", &[]);
    assert!(world.dns.asked().len() <= 9, "{}", world.dns.asked().len());

    let before = world.dns.asked().len();
    let strangers: Vec<String> = (0..8).map(|n| format!("a.b.c.evil{n}.example")).collect();
    let dkim: Vec<(DkimResult, &str)> =
        strangers.iter().map(|domain| (DkimResult::Pass, domain.as_str())).collect();
    world.check("bank.example", "", &dkim);
    // Nothing is asked about domains that cannot belong to the author's organization.
    assert_eq!(world.dns.asked().len() - before, 2);
}

/// What a stranger's DNS and a stranger's From field may hold.
#[test]
fn records_and_names_without_end_have_a_verdict_in_a_bounded_time() {
    let text = |text: String| text.into_bytes();
    let mut records = Vec::new();
    let mut tricks = Vec::new();
    for (domain, content) in [
        // Tags that nobody knows are no fault (RFC 9989 section 4.7), however many there are.
        ("tags.example", text(format!("v=DMARC1; {}p=reject", "x=y; ".repeat(12_900)))),
        ("semicolons.example", text(format!("v=DMARC1{}p=reject", ";".repeat(64_000)))),
        ("equals.example", text(format!("v=DMARC1; p{}reject", "=".repeat(64_000)))),
        ("blanks.example", text(format!("v=DMARC1{};p=reject", " ".repeat(64_000)))),
        ("octets.example", [&b"v=DMARC1; p=reject; "[..], &[0xff; 64_000]].concat()),
    ] {
        let strings = content.chunks(255).map(|part| CharacterString::new(part).unwrap());
        let mut data = TXT::new();
        strings.for_each(|string| data.add_char_string(string.into_owned()));
        let owner = format!("_dmarc.{domain}");
        records.push(ResourceRecord::new(name(&owner), CLASS::IN, 60, RData::TXT(data)));
        tricks.push((format!("{owner} TXT"), Trick::Tcp(tricks::with_length)));
    }
    let world = World { dns: DnsServer::with_records(records, tricks) };
    let start = Instant::now();
    let policy = |author: &str| world.check(author, "", &[]).policy;
    // What cannot be read after the policy is passed over (section 4.7).
    for domain in ["tags.example", "semicolons.example", "blanks.example", "octets.example"] {
        assert_eq!(policy(domain), Policy::Reject, "{domain}");
    }
    assert_eq!(policy("equals.example"), Policy::None);
    for (author, result) in [
        (format!("{}tags.example", "a.".repeat(1000)), DmarcResult::Fail),
        (format!("{}.tags.example", "a".repeat(100_000)), DmarcResult::Fail),
        (format!("{}tags.example", ".".repeat(1000)), DmarcResult::Fail),
        (".".repeat(100_000), DmarcResult::None),
        (String::new(), DmarcResult::None),
    ] {
        let before = world.dns.asked().len();
        assert_eq!(world.check(&author, "", &[]).result, result, "{} octets", author.len());
        let asked = world.dns.asked().len() - before;
        assert!(asked <= 10, "{asked} questions about {} octets", author.len());
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn dns_that_never_answers_costs_no_more_than_the_time_of_the_letter() {
    // A port that is bound, and read by nobody.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = Resolver::new(vec![silent.local_addr().unwrap()], Duration::from_secs(60));
    let start = Instant::now();
    let lookups = Lookups::new(&resolver, start + Duration::from_millis(300));
    let author = Ok("bank.example".to_owned());
    let proven = Proven { spf: (SpfResult::None, ""), dkim: Vec::new() };
    let verdict = check(&author, &proven, &lookups, &mut Steps::silent());
    assert_eq!(verdict.result, DmarcResult::TempError);
    let request = Request {
        ip: "192.0.2.1".parse().unwrap(),
        helo: "mail.example",
        mail_from: "ann@bank.example",
        receiver: "here.example",
        now: Timestamp::now(),
    };
    let spf = check_mail_from(&request, &lookups, &mut Steps::silent());
    assert_eq!(spf.result, SpfResult::TempError);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
