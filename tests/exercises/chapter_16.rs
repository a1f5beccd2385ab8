//! Chapter 16: trust.

use std::time::{Duration, Instant};

use ehlo::dns::Resolver;
use ehlo::trust::dkim::DkimResult;
use ehlo::trust::dkim::sign::{Signer, Signing};
use ehlo::trust::dkim::verify::Verifier;
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use jiff::Timestamp;

use crate::common::dns::DnsServer;

const LETTER: &str = "From: service@bank.example\nSubject: rates\n\nThey go up.\n";
const LIST: &str = "List-Unsubscribe: <https://evil.example/>\n";
const CLICK: &str = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\n";

/// The letter with a signature of bank.example above it.
fn signed(letter: &str) -> String {
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trust/ed25519.pem");
    let signer = Signer::from_pem(&std::fs::read_to_string(pem).unwrap(), "key").unwrap();
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
