//! Chapter 16: trust.

use std::fs;
use std::time::{Duration, Instant};

use ehlo::dns::Resolver;
use ehlo::trust::dkim::DkimResult;
use ehlo::trust::dkim::sign::{Signer, Signing};
use ehlo::trust::dkim::verify::Verifier;
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use jiff::Timestamp;

use crate::common::dns::{DnsServer, Trick, tricks};
use crate::common::{Client, TestServer};

const LETTER: &str = "From: service@bank.example\nSubject: rates\n\nThey go up.\n";
const LIST: &str = "List-Unsubscribe: <https://evil.example/>\n";
const CLICK: &str = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\n";

/// The letter with a signature of bank.example above it.
fn signed(letter: &str) -> String {
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trust/ed25519.pem");
    let signer = Signer::from_pem(&fs::read_to_string(pem).unwrap(), "key").unwrap();
    let mut signing = Signing::default();
    signing.write(letter.as_bytes());
    let field = signer.sign(signing, |domain| domain == "bank.example", Timestamp::now());
    field.unwrap() + letter
}

/// What comes of its only signature.
fn result(letter: &str) -> DkimResult {
    const KEY: &str = "key._domainkey.bank.example TXT v=DKIM1;k=ed25519;p=kkTMyZ5gUfaUx/FRi3rRQxxffnsaTvS536LvOKrnRoA=";
    let dns = DnsServer::start(&[KEY]);
    let resolver = Resolver::new(vec![dns.address], Duration::from_secs(5));
    let lookups = Lookups::new(&resolver, Instant::now() + Duration::from_secs(5));
    let mut verifier = Verifier::new(Timestamp::now());
    verifier.write(letter.as_bytes());
    verifier.finish(&lookups, &mut Steps::silent()).remove(0).result
}

/// Nobody can add `List-Unsubscribe` or `List-Unsubscribe-Post` (RFC 8058) to a signed letter, nor a
/// second one to a letter that has one. A letter that has both is still signed and passes.
#[test]
#[ignore = "exercise 16.1"]
fn exercise_16_1_nobody_adds_a_list_unsubscribe_to_a_signed_letter() {
    for letter in [
        LETTER.to_owned(),
        format!("{LIST}{CLICK}{LETTER}"),
        format!("{LIST}{LIST}{CLICK}{CLICK}{LETTER}"),
    ] {
        let letter = signed(&letter);
        assert_eq!(result(&letter), DkimResult::Pass, "{letter}");
        for added in [LIST, CLICK] {
            assert_eq!(result(&format!("{added}{letter}")), DkimResult::Fail, "{added}{letter}");
        }
        let (first, rest) = letter.split_once("From: service").unwrap();
        let between = format!("{first}{LIST}From: service{rest}");
        assert_eq!(result(&between), DkimResult::Fail, "{between}");
        // Other fields may be added on the way, as every server does.
        assert_eq!(result(&format!("Received: x\n{letter}")), DkimResult::Pass);
    }
}

/// What the letter of a client at 127.0.0.1 says of its address, in this zone.
fn iprev(zone: &[&str], tricks: &[(&'static str, Trick)]) -> (String, Vec<String>) {
    let dns = DnsServer::with_tricks(zone, tricks);
    let flags = ["--sender-checks", "note", "--dns", &dns.address.to_string()];
    let server = TestServer::start(&flags);
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO mail.example", "MAIL FROM:<ann@bank.example>"]);
    client.all_granted(&["RCPT TO:<bob@localhost>", "DATA"]);
    assert!(client.message("From: ann@bank.example\r\n\r\nhello\r\n").starts_with("250 "));
    let letter = fs::read_to_string(&server.new_files("bob")[0]).unwrap();
    let field = letter.split("\nReceived:").next().unwrap();
    let said: Vec<&str> =
        field.split(';').map(str::trim).filter(|one| one.contains("iprev=")).collect();
    (said.join(" and "), dns.questions())
}

/// `--sender-checks` asks for the names of the client's address as well, and for the addresses
/// of these names, of the client's family. `Authentication-Results` says what came of it
/// (RFC 8601 sections 2.7.3 and 3) in one more result, such as
/// `iprev=pass policy.iprev=127.0.0.1`: pass if a name leads back to the address, fail if it has
/// names and none does, permerror if it has no name, temperror if DNS could not tell now and no name
/// leads back. Of more than ten names ten are asked about. The answer changes nothing else:
/// no letter is refused for it.
#[test]
#[ignore = "exercise 16.2"]
fn exercise_16_2_a_name_leads_back_to_its_address_or_not() {
    const PTR: &str = "1.0.0.127.in-addr.arpa";
    let many: Vec<String> = (0..30).map(|number| format!("{PTR} PTR n{number}.example")).collect();
    let last = "n29.example A 127.0.0.1".to_owned();
    let many: Vec<&str> = many.iter().chain([&last]).map(String::as_str).collect();
    let names = [
        "1.0.0.127.in-addr.arpa PTR evil.example",
        "1.0.0.127.in-addr.arpa PTR mail.example",
        "evil.example A 192.0.2.1",
        "mail.example A 192.0.2.2",
        "mail.example A 127.0.0.1",
    ];
    let failing = |question| [(question, Trick::Udp(tricks::failure))];
    let (of_evil, of_ptr) = (failing("evil.example A"), failing("1.0.0.127.in-addr.arpa PTR"));
    for (zone, tricks, expected) in [
        (&names[..], &[][..], "pass"),
        (&names[..3], &[], "fail"),
        (&names[..2], &[], "fail"),
        (&names[2..], &[], "permerror"),
        (&names[..3], &of_evil, "temperror"),
        (&names, &of_evil, "pass"),
        (&names, &of_ptr, "temperror"),
        (&many, &[], "fail"),
    ] {
        let (said, questions) = iprev(zone, tricks);
        assert_eq!(said, format!("iprev={expected} policy.iprev=127.0.0.1"), "{zone:?}");
        let asked = questions.iter().filter(|question| question.starts_with('n')).count();
        assert!(asked <= 10, "{questions:?}");
        assert!(!questions.iter().any(|question| question.ends_with(" AAAA")), "{questions:?}");
    }
}
