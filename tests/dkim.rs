//! DKIM with keys from a DNS server on loopback: the letters of the RFCs, what ehlo signs
//! itself, every octet changed, and letters of people with bad intentions.
//!
//! Book: docs/16-trust.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::time::{Duration, Instant};

use ehlo::dns::Resolver;
use ehlo::trust::dkim::sign::{Signer, Signing};
use ehlo::trust::dkim::verify::Verifier;
use ehlo::trust::dkim::{DkimResult, DkimVerdict};
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use jiff::Timestamp;

use common::dns::{DnsServer, Trick, tricks};

/// The public halves of `tests/trust/*.pem`, and a key of 1,024 bits.
const RSA: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEApqDzytP5JW3lKnaNjoyYt5p8dgdGzP6oZAoZyxzHDkB7LwjZE6tH65FO+J8s5cCoG2Y9cM+hsElyHtAH6o3zESDNRdLgxFEQI8MQQaK0LQ4uZMCdbW9UM3H/LYUZ0U0IwGOho2GbidtcCRgMcZnUUDXZGbK9MogSHMqxhn0a0vYgJUbhFpzubxUliebddTnefM77PrWZGzIi4cxbnGqECYF4LnadKk95PGFhsr8N3opbhkxEOJbV08EYEdL84wy7OSYJb8fd4bgOXm6df48K4Zgn1yEl+aVVQesQSCltAz/woucctuWRRrOjW0lBRZgoKQ5bJ6E/iFp9/qksjfd9bQIDAQAB";
const ED25519: &str = "kkTMyZ5gUfaUx/FRi3rRQxxffnsaTvS536LvOKrnRoA=";
/// Of RFC 8463 appendix A.
const BRISBANE: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const FOOTBALL: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

/// The letter of RFC 8463 appendix A.3, with two signatures.
const LETTER: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
";

/// The key and the letter of RFC 6376 appendix A, in the simple form: six blanks fold.
const EXAMPLE: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB";
const SIMPLE: &str = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
";

/// A letter with what makes canonical forms differ.
const ODD: &str = "From: Ann  <ann@x.example>\nTo:\tbob@y.example\nSubject :  two  blanks \n\tand a fold\n\
                   Received: by here\nReceived: by there\n\n a  b \t\n\n\tc\n\n\n";

struct World {
    dns: DnsServer,
}

impl World {
    /// Keys at `rsa`, `ed` and others below `_domainkey.x.example`.
    fn new() -> World {
        let key = |name: &str, value: &str| format!("{name}._domainkey.x.example TXT {value}");
        // A word is a string of its own in these zones, so a key is cut into strings.
        let (one, two) = RSA.split_at(200);
        let zone = [
            key("rsa", &format!("v=DKIM1; p={one} {two}")),
            key("ed", &format!("v=DKIM1;k=ed25519;p={ED25519}")),
            key("test", &format!("t=y;p={one} {two}")),
            key("strict", &format!("t=s;p={one} {two}")),
            key("sha1", &format!("h=sha1;p={one} {two}")),
            key("web", &format!("s=web;p={one} {two}")),
            key("gone", "v=DKIM1;p="),
            key("broken", "v=DKIM1;p=x"),
            key("text", "hello"),
            "short._domainkey.x.example TXT p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALUb5PsQxw2R9jfNkmBYGqHKCMcPCwF7VDsjYrhg+o8dh0q5bkV6Wn7sUXOhbhUyxGXPkG2IcGEBz6dVb1tyuZUCAwEAAQ==".to_owned(),
            format!("brisbane._domainkey.football.example.com TXT v=DKIM1;k=ed25519;p={BRISBANE}"),
            format!("brisbane._domainkey.example.com TXT v=DKIM1;p={EXAMPLE}"),
            format!("test._domainkey.football.example.com TXT v=DKIM1;p={FOOTBALL}"),
        ];
        let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
        let failure = ("bad._domainkey.x.example", Trick::Udp(tricks::failure));
        World { dns: DnsServer::with_tricks(&zone, &[failure]) }
    }

    fn verify(&self, letter: &str) -> Vec<DkimVerdict> {
        self.verify_in_parts(letter.as_bytes(), letter.len().max(1)).0
    }

    fn verify_in_parts(&self, letter: &[u8], part: usize) -> (Vec<DkimVerdict>, Vec<String>) {
        let resolver = Resolver::new(vec![self.dns.address], Duration::from_secs(3));
        let lookups = Lookups::new(&resolver, Instant::now() + Duration::from_secs(20));
        let mut verifier = Verifier::new(Timestamp::now());
        letter.chunks(part).for_each(|part| verifier.write(part));
        let mut steps = Steps::told();
        let verdicts = verifier.finish(&lookups, &mut steps);
        (verdicts, steps.into_lines())
    }

    fn results(&self, letter: &str) -> Vec<DkimResult> {
        self.verify(letter).into_iter().map(|verdict| verdict.result).collect()
    }
}

fn pem(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trust/");
    std::fs::read_to_string(format!("{folder}{name}.pem")).unwrap()
}

/// The letter with a signature in front.
fn signed(key: &str, selector: &str, letter: &str) -> String {
    let signer = Signer::from_pem(&pem(key), selector).unwrap();
    let mut signing = Signing::default();
    letter.as_bytes().chunks(7).for_each(|part| signing.write(part));
    let field = signer.sign(signing, |domain| domain == "x.example", Timestamp::now()).unwrap();
    assert!(field.ends_with('\n') && field.lines().all(|line| line.len() <= 78), "{field}");
    field + letter
}

#[test]
fn the_letter_of_rfc_8463_has_two_good_signatures() {
    let world = World::new();
    for part in [1, 7, 64, LETTER.len()] {
        let (verdicts, steps) = world.verify_in_parts(LETTER.as_bytes(), part);
        let results: Vec<DkimResult> = verdicts.iter().map(|one| one.result).collect();
        assert_eq!(results, [DkimResult::Pass, DkimResult::Pass], "{}", steps.join("\n"));
        assert_eq!(verdicts[0].signature, "/gCrinpc");
        assert_eq!(verdicts[1].selector, "test");
    }
}

#[test]
fn the_letter_of_rfc_6376_passes_and_the_simple_form_forgives_nothing() {
    let world = World::new();
    assert_eq!(world.results(SIMPLE), [DkimResult::Pass]);
    assert_eq!(world.results(&format!("{SIMPLE}\n\n")), [DkimResult::Pass]);
    for (from, to) in [("game. Are", "game.  Are"), ("To: S", "To:  S"), ("Subject", "subject")] {
        assert_eq!(world.results(&SIMPLE.replacen(from, to, 1)), [DkimResult::Fail], "{to}");
    }
}

#[test]
fn what_is_signed_here_passes_whatever_the_letter_looks_like() {
    let world = World::new();
    for letter in [
        ODD,
        "From: ann@x.example\n\n",
        "From: ann@x.example\n",
        "From: ann@x.example\n\nno end",
        "From: ann@x.example\n\n\n\n\n",
        "Subject: \u{fc}\nfrom:ann@x.example\nTo: a@b.example\nTo: c@d.example\n\n.\n..\n",
    ] {
        for (key, selector) in [("rsa", "rsa"), ("ed25519", "ed")] {
            let letter = signed(key, selector, letter);
            assert_eq!(world.results(&letter), [DkimResult::Pass], "{letter}");
        }
    }
}

#[test]
fn each_octet_that_is_changed_breaks_the_signature() {
    let world = World::new();
    let letter = signed("ed25519", "ed", ODD);
    let end_of_signature = letter.find("\nFrom: ").unwrap() + 1;
    // Received is not signed, and the rest is blanks.
    let unsigned = letter.find("Received: by here").unwrap()..letter.find("\n\n a").unwrap();
    let mut changed = 0;
    for at in end_of_signature..letter.len() {
        let octet = letter.as_bytes()[at];
        if unsigned.contains(&at) || octet.is_ascii_whitespace() {
            continue;
        }
        let is_name = |name: &str| {
            letter[..at].rfind('\n').map_or(&letter[..], |end| &letter[end + 1..]).starts_with(name)
        };
        // A field name has no case.
        let other =
            if octet.is_ascii_alphabetic() { octet.wrapping_add(1) | 0x20 } else { octet ^ 1 };
        if other == octet || (is_name("From") && other.eq_ignore_ascii_case(&octet)) {
            continue;
        }
        let mut bytes = letter.clone().into_bytes();
        bytes[at] = other;
        let (verdicts, _) = world.verify_in_parts(&bytes, 64);
        assert_ne!(verdicts[0].result, DkimResult::Pass, "octet {at}: {}", char::from(octet));
        changed += 1;
    }
    assert!(changed > 60, "{changed}");
}

#[test]
fn what_the_relaxed_form_forgives_is_forgiven() {
    let world = World::new();
    let letter = signed("rsa", "rsa", ODD);
    for (from, to) in [
        ("From: Ann  <", "FROM:Ann <"),
        ("To:\tbob", "to : \n\tbob"),
        ("Subject :  two  blanks \n\tand a fold", "Subject: two blanks and a fold"),
        (" a  b \t\n", " a b\n"),
        ("\tc\n\n\n", " c"),
        ("Received: by here", "Received: by others"),
    ] {
        assert!(letter.contains(from), "{from}");
        assert_eq!(world.results(&letter.replacen(from, to, 1)), [DkimResult::Pass], "{to}");
    }
    for (from, to) in [
        ("From: Ann", "From: eve@evil.example\nFrom: Ann"),
        (" a  b", "a  b"),
        ("\tc\n", "\tc\n\td\n"),
        ("two  blanks", "twoblanks"),
    ] {
        assert_eq!(world.results(&letter.replacen(from, to, 1)), [DkimResult::Fail], "{to}");
    }
}

#[test]
fn each_failure_has_its_name() {
    let world = World::new();
    let letter = signed("rsa", "rsa", "From: ann@x.example\n\nhello\n");
    for (from, to, expected) in [
        ("s=rsa", "s=none", DkimResult::PermError),
        ("s=rsa", "s=bad", DkimResult::TempError),
        ("s=rsa", "s=gone", DkimResult::PermError),
        ("s=rsa", "s=broken", DkimResult::PermError),
        ("s=rsa", "s=text", DkimResult::PermError),
        ("s=rsa", "s=sha1", DkimResult::PermError),
        ("s=rsa", "s=web", DkimResult::PermError),
        ("s=rsa", "s=ed", DkimResult::PermError),
        ("s=rsa", "s=short", DkimResult::Policy),
        ("a=rsa-sha256", "a=rsa-sha1", DkimResult::PermError),
        ("a=rsa-sha256", "a=rsa-md5", DkimResult::Neutral),
        ("v=1", "v=2", DkimResult::Neutral),
        ("v=1;", "v=1; v=1;", DkimResult::Neutral),
        ("v=1;", "", DkimResult::PermError),
        ("v=1;", "v=1; x=1;", DkimResult::PermError),
        ("v=1;", "v=1; l=99;", DkimResult::PermError),
        ("v=1;", "v=1; l=x;", DkimResult::Neutral),
        ("v=1;", "v=1; q=http;", DkimResult::Neutral),
        ("v=1;", "v=1; i=@y.example;", DkimResult::PermError),
        ("v=1;", "v=1; i=@sub.x.example;", DkimResult::Fail),
        ("c=relaxed/relaxed", "c=relaxed/odd", DkimResult::Neutral),
        ("h=From:\n\t From", "h=To", DkimResult::PermError),
        ("t=1", "t=9", DkimResult::PermError),
        ("hello", "hullo", DkimResult::Fail),
        ("bh=", "bh=*", DkimResult::Neutral),
        ("d=x.example", "d=x..example", DkimResult::Neutral),
    ] {
        assert!(letter.contains(from), "{from} in {letter}");
        let verdicts = world.verify(&letter.replacen(from, to, 1));
        assert_eq!(verdicts[0].result, expected, "{from} → {to}: {verdicts:?}");
        assert!(!verdicts[0].why.is_empty());
    }
    // A test key proves nothing; a strict one proves the domain and no name below it.
    let test = signed("rsa", "test", "From: ann@x.example\n\nhello\n");
    assert_eq!(world.results(&test), [DkimResult::Policy]);
    let strict = signed("rsa", "strict", "From: ann@x.example\n\nhello\n");
    assert_eq!(world.results(&strict), [DkimResult::Pass]);
    let below = strict.replacen("v=1;", "v=1; i=@sub.x.example;", 1);
    assert_eq!(world.results(&below), [DkimResult::PermError]);
    assert!(world.results("From: ann@x.example\n\nhello\n").is_empty());
}

#[test]
fn a_letter_is_signed_only_for_its_one_author_at_a_domain_of_ours() {
    let signer = Signer::from_pem(&pem("rsa"), "rsa").unwrap();
    for letter in [
        "From: ann@y.example\n\n",
        "From: ann@x.example, eve@y.example\n\n",
        "From: ann@x.example\nFrom: ann@x.example\n\n",
        "Subject: nobody\n\n",
    ] {
        let mut signing = Signing::default();
        signing.write(letter.as_bytes());
        let field = signer.sign(signing, |domain| domain == "x.example", Timestamp::now());
        assert_eq!(field, None, "{letter}");
    }
}

#[test]
fn a_key_that_cannot_be_used_is_told_apart() {
    let rsa = pem("rsa").replace('\n', "\r\n");
    assert!(Signer::from_pem(&format!("\u{feff}{rsa}"), "s").is_ok());
    for (text, why) in [
        ("", "no PEM block"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA", "cut off"),
        ("-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----\n", "not base64"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "RSA key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no private key"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA\n-----END ", "encrypted"),
    ] {
        let error = Signer::from_pem(text, "s").unwrap_err();
        assert!(error.contains(why) && error.contains("openssl genpkey"), "{error}");
    }
}

#[test]
fn ten_thousand_signatures_and_an_endless_header_are_bounded() {
    let world = World::new();
    let letter = signed("ed25519", "ed", "From: ann@x.example\n\nhello\n");
    let (field, rest) = letter.split_at(letter.find("\nFrom: ").unwrap() + 1);
    let asked = |world: &World| world.dns.asked().len();
    let many = field.repeat(500) + rest;
    assert_eq!(world.results(&many), [DkimResult::Pass; 8]);
    assert!(asked(&world) <= 8, "{}", asked(&world));

    let long = format!("{field}X: {}\n{rest}", "x".repeat(1_000_000));
    let verdicts = world.verify(&long);
    assert_eq!((verdicts.len(), verdicts[0].result), (1, DkimResult::PermError));
    let tags = field.replacen("v=1;", &format!("v=1;{}", "a=1;".repeat(50_000)), 1);
    assert_eq!(world.results(&(tags + rest)), [DkimResult::Neutral]);
    let names = field.replacen("h=", &format!("h={}", "x:".repeat(100_000)), 1);
    assert_eq!(world.results(&(names + rest)), [DkimResult::PermError]);
    let names = field.replacen("h=", &format!("h={}", "x:".repeat(8000)), 1);
    assert_eq!(world.results(&(names + rest)), [DkimResult::Fail]);
}

quickcheck::quickcheck! {
    /// Whatever becomes of a letter on its way, it is read to its end, and a signature that
    /// names no key is never right.
    fn no_letter_stops_it(changes: Vec<(usize, u8, bool)>, part: u8) -> bool {
        let mut letter = LETTER.replace("football.example.com", "nobody.example").into_bytes();
        for (at, octet, replaces) in changes {
            let at = at % letter.len();
            if replaces { letter[at] = octet } else { letter.insert(at, octet) }
        }
        let resolver = Resolver::new(Vec::new(), Duration::ZERO);
        let lookups = Lookups::new(&resolver, Instant::now());
        let mut verifier = Verifier::new(Timestamp::now());
        letter.chunks(usize::from(part) + 1).for_each(|part| verifier.write(part));
        let verdicts = verifier.finish(&lookups, &mut Steps::told());
        verdicts.len() <= 8 && verdicts.iter().all(|one| one.result != DkimResult::Pass)
    }
}
