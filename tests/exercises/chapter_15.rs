//! Chapter 15: finding the next hop.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ehlo::dns::{Resolver, Trouble};

use crate::common::dns::{DnsServer, Trick};

/// The names as they were asked for, lengths of labels and all.
static ASKED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Answers truly, and writes down how the name was spelled.
fn noted(answer: &[u8]) -> Vec<Vec<u8>> {
    let name = &answer[12..];
    let end = name.iter().position(|octet| *octet == 0).unwrap();
    ASKED.lock().unwrap().push(name[..end].to_vec());
    vec![answer.to_vec()]
}

/// Answers with the name in lower case, as somebody would who has not seen the question.
fn guessed(answer: &[u8]) -> Vec<Vec<u8>> {
    let mut answer = answer.to_vec();
    let end = 12 + answer[12..].iter().position(|octet| *octet == 0).unwrap();
    answer[12..end].make_ascii_lowercase();
    vec![answer]
}

/// Each letter of the name in a question is in upper or lower case by chance, anew for each
/// question. An answer counts only if it repeats the question octet for octet; one in other
/// letters is ignored, as one with a wrong id is. An honest answer is understood.
#[test]
#[ignore = "exercise 15.1"]
fn exercise_15_1_an_answer_has_to_spell_the_question_as_it_was_asked() {
    let zone = ["a-long-name-with-letters.example MX 10 mx.example"];
    let tricks = [
        ("a-long-name-with-letters.example", Trick::Udp(noted)),
        ("guessed-by-somebody-else.example", Trick::Udp(guessed)),
    ];
    let server = DnsServer::with_tricks(&zone, &tricks);
    let resolver = Resolver::new(vec![server.address], Duration::from_millis(500));
    let end = Instant::now() + Duration::from_secs(20);
    for _ in 0..8 {
        let found = resolver.mx("a-long-name-with-letters.example", end).unwrap();
        assert_eq!(found.len(), 1, "an honest answer is understood");
    }
    let asked = ASKED.lock().unwrap().clone();
    let mut spellings = asked.clone();
    spellings.sort();
    spellings.dedup();
    assert_eq!(spellings.len(), 8, "each question is spelled anew, by chance");
    let upper = asked.concat().iter().filter(|octet| octet.is_ascii_uppercase()).count();
    let letters = asked.concat().iter().filter(|octet| octet.is_ascii_alphabetic()).count();
    assert!((letters / 4..letters * 3 / 4).contains(&upper), "{upper} of {letters} in upper case");
    let found = resolver.mx("guessed-by-somebody-else.example", end);
    let is_ignored = matches!(found, Err(Trouble::Silence));
    assert!(is_ignored, "an answer in other letters is ignored: {found:?}");
}
