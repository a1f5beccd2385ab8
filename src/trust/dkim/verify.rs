//! Checks the signatures of a letter while it arrives (RFC 6376 section 6).
//!
//! In: the parts of a letter, in file form. Out: what came of each signature. The header
//! is kept until its end; then it is known which hashes of the body are wanted, and the
//! body is hashed as it passes by. So a letter is read once, and never held in memory.
//! The keys are asked of DNS at the end.
//!
//! Book: docs/16-trust.md.

use jiff::Timestamp;

use crate::smtp::text::printable;
use crate::trust::author::{NoAuthor, author_domain};
use crate::trust::dkim::canonical::{BodyHash, Canon};
use crate::trust::dkim::key::Key;
use crate::trust::dkim::reading::Reading;
use crate::trust::dkim::signature::{Signature, Unusable};
use crate::trust::dkim::{DkimResult, DkimVerdict, signed_header};
use crate::trust::explain::Steps;
use crate::trust::fields::{Field, fields};
use crate::trust::lookups::Lookups;

/// So many signatures are looked at, the topmost first: those of the last hosts. Anybody
/// can write ten thousand into a letter.
const SIGNATURES_LIMIT: usize = 8;
/// How much of `b=` is told (RFC 6008 wants eight at least).
const SIGNATURE_START: usize = 8;
const NAME: &str = "DKIM-Signature";

/// A letter that is read once, from its first octet to its last.
#[derive(Debug)]
pub struct Verifier {
    now: Timestamp,
    reading: Reading,
    /// Once the header is over: what its signatures say.
    signatures: Vec<Result<Signature, Unusable>>,
    /// Once the header is over: the body, in each form that a signature wants.
    bodies: Option<[BodyHash; 2]>,
}

impl Verifier {
    /// For a letter that arrives now.
    pub fn new(now: Timestamp) -> Verifier {
        Verifier { now, reading: Reading::default(), signatures: Vec::new(), bodies: None }
    }

    /// Adds the next part of the letter, in file form (lines end with LF), as it came:
    /// without the fields that we add.
    pub fn write(&mut self, text: &[u8]) {
        let Some(body) = self.reading.take(text) else { return };
        if self.bodies.is_none() {
            self.header_is_over();
        }
        for hash in self.bodies.iter_mut().flatten() {
            hash.write(body);
        }
    }

    /// The domain of the author, if all of the header was kept: there may be another `From`
    /// in the rest.
    pub fn author(&self) -> Result<String, NoAuthor> {
        if self.reading.is_whole() {
            author_domain(self.reading.header())
        } else {
            Err(NoAuthor::TooMuch)
        }
    }

    fn header_is_over(&mut self) {
        let own = signature_fields(self.reading.header());
        self.signatures =
            own.iter().map(|field| Signature::parse(&value(field), self.now)).collect();
        let limits = |canon| -> Vec<Option<u64>> {
            self.signatures_with(canon).map(|signature| signature.limit).collect()
        };
        self.bodies = Some([
            BodyHash::new(Canon::Simple, &limits(Canon::Simple)),
            BodyHash::new(Canon::Relaxed, &limits(Canon::Relaxed)),
        ]);
    }

    fn signatures_with(&self, canon: Canon) -> impl Iterator<Item = &Signature> {
        self.signatures.iter().flatten().filter(move |signature| signature.body_canon == canon)
    }

    /// Gets the keys and tells what came of each signature, topmost first; no verdict
    /// means that there is none.
    pub fn finish(mut self, lookups: &Lookups, steps: &mut Steps) -> Vec<DkimVerdict> {
        if self.bodies.is_none() {
            self.header_is_over();
        }
        let [simple, relaxed] = self.bodies.take().expect("made when the header was over");
        let (simple, relaxed) = (simple.finish(), relaxed.finish());
        // Each form has its hashes in the order of the signatures that want it.
        let (mut simple_hashes, mut relaxed_hashes) = (simple.0.iter(), relaxed.0.iter());
        let fields = fields(self.reading.header());
        let own = signature_fields(self.reading.header());
        if own.is_empty() {
            steps.say(|| "the letter has no signature".to_owned());
        }
        let mut verdicts = Vec::new();
        for (signature, field) in self.signatures.iter().zip(&own) {
            let outcome = match signature {
                Err(unusable) => Err((unusable.result, unusable.why)),
                Ok(signature) => {
                    let (hash, octets) = match signature.body_canon {
                        Canon::Simple => (simple_hashes.next(), simple.1),
                        Canon::Relaxed => (relaxed_hashes.next(), relaxed.1),
                    };
                    steps.say(|| told(signature, octets));
                    let body = Body { hash: hash.copied().unwrap_or_default(), octets };
                    self.check_body(signature, &body, steps)
                        .and_then(|()| key(signature, lookups, steps))
                        .and_then(|key| check_header(signature, &key, &fields, field, steps))
                }
            };
            verdicts.push(verdict(signature, field, outcome, steps));
        }
        verdicts
    }

    /// Whether the body is still what was signed.
    fn check_body(&self, signature: &Signature, body: &Body, steps: &mut Steps) -> Outcome {
        if !self.reading.is_whole() {
            return Err((DkimResult::PermError, "the header of the letter is too long"));
        }
        if signature.limit.is_some_and(|limit| limit > body.octets) {
            return Err((DkimResult::PermError, "its l= is longer than the body"));
        }
        if body.hash.as_slice() != signature.body_hash {
            steps.say(|| {
                let hex =
                    |hash: &[u8]| hash.iter().map(|one| format!("{one:02x}")).collect::<String>();
                format!(
                    "hash of the body: {}, signed was {}",
                    hex(&body.hash),
                    hex(&signature.body_hash)
                )
            });
            return Err((DkimResult::Fail, "the body was changed"));
        }
        steps.say(|| "the body is what was signed".to_owned());
        Ok(())
    }
}

/// Nothing, or the result that is certain now, and why.
type Outcome<T = ()> = Result<T, (DkimResult, &'static str)>;

/// What the body of this letter is.
struct Body {
    hash: [u8; 32],
    octets: u64,
}

fn signature_fields(header: &[u8]) -> Vec<Field<'_>> {
    let mut own = fields(header);
    own.retain(|field| field.name.eq_ignore_ascii_case(NAME));
    own.truncate(SIGNATURES_LIMIT);
    own
}

/// The value of a field as text. What is not UTF-8 is replaced: no tag that we look at may
/// have it, and what was signed is the field itself.
fn value(field: &Field) -> String {
    let value = field.raw.splitn(2, |octet| *octet == b':').nth(1).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// Asks DNS for the key of a signature.
fn key(signature: &Signature, lookups: &Lookups, steps: &mut Steps) -> Outcome<Key> {
    let name = format!("{}._domainkey.{}", signature.selector, signature.domain);
    let records = match lookups.txt(&name) {
        Ok(records) => records,
        Err(trouble) if trouble.is_lasting() => Vec::new(),
        Err(trouble) => {
            steps.say(|| format!("DNS about {name}: {trouble}"));
            return Err((DkimResult::TempError, "DNS does not give its key"));
        }
    };
    // A name may have other texts, too; which of several keys is meant is not defined
    // (section 3.6.2.2), so it is the first that is one.
    let keys: Vec<_> =
        records.iter().map(|record| Key::parse(record, signature.algorithm)).collect();
    steps.say(|| match records.first() {
        Some(record) => format!("the key at {name}: {}", printable(record)),
        None => format!("there is no key at {name}"),
    });
    let first = keys.iter().find(|key| key.is_ok()).or(keys.first());
    let key = first.cloned().unwrap_or(Err((DkimResult::PermError, "there is no key")))?;
    if key.is_strict && !signature.is_of_domain_itself {
        return Err((DkimResult::PermError, "the key is not for names below its domain"));
    }
    Ok(key)
}

/// Whether the header is still what was signed, with this key.
fn check_header(
    signature: &Signature,
    key: &Key,
    fields: &[Field],
    own: &Field,
    steps: &mut Steps,
) -> Outcome {
    let raw = without_octets(own.raw);
    let own = Field { raw: &raw, ..*own };
    let header = signed_header(signature.header_canon, fields, &signature.names, &own);
    steps.say(|| format!("the signature is over {} octets of header", header.len()));
    if !key.has_signed(&header, &signature.octets) {
        return Err((
            DkimResult::Fail,
            "the header was changed, or it was signed with another key",
        ));
    }
    if key.is_test {
        // As if there were none (section 3.6.1).
        return Err((DkimResult::Policy, "it is right, and the domain is only testing"));
    }
    Ok(())
}

/// The field with `b=` and nothing after it, up to the next tag (section 3.5).
fn without_octets(raw: &[u8]) -> Vec<u8> {
    let colon = raw.iter().position(|octet| *octet == b':').map_or(0, |at| at + 1);
    let (name, value) = raw.split_at(colon);
    let mut tags: Vec<&[u8]> = value.split(|octet| *octet == b';').collect();
    for tag in &mut tags {
        let equals = tag.iter().position(|octet| *octet == b'=').unwrap_or(tag.len());
        let (start, _) = tag.split_at(equals);
        if start.trim_ascii() == b"b" {
            *tag = tag.get(..=equals).unwrap_or(tag);
        }
    }
    [name, &tags.join(&b";"[..])].concat()
}

/// What a signature claims, for a person.
fn told(signature: &Signature, octets: u64) -> String {
    let Signature { domain, selector, header_canon, body_canon, limit, .. } = signature;
    let form = format!("{header_canon:?}/{body_canon:?}").to_lowercase();
    let limit = limit.map_or("all".to_owned(), |limit| limit.to_string());
    format!(
        "a signature of {domain}, key {selector}, {form}, over {limit} of {octets} octets of body \
         and the fields {}",
        printable(signature.names.join(" "))
    )
}

fn verdict(
    signature: &Result<Signature, Unusable>,
    field: &Field,
    outcome: Outcome,
    steps: &mut Steps,
) -> DkimVerdict {
    let (domain, selector) = match signature {
        Ok(signature) => (&signature.domain, &signature.selector),
        Err(unusable) => (&unusable.domain, &unusable.selector),
    };
    let (result, why) = outcome.err().unwrap_or((DkimResult::Pass, ""));
    steps.say(|| {
        let why = if why.is_empty() { String::new() } else { format!(", {why}") };
        format!("so the signature of {}: {result}{why}", printable(domain))
    });
    DkimVerdict {
        result,
        domain: domain.clone(),
        selector: selector.clone(),
        signature: start_of_octets(field),
        why,
    }
}

/// The first letters of `b=`.
fn start_of_octets(field: &Field) -> String {
    let value = value(field);
    let tag = |part: &&str| part.split('=').next().is_some_and(|name| name.trim() == "b");
    let octets = value.split(';').find(tag).and_then(|part| part.split_once('='));
    let is_base64 = |c: &char| c.is_ascii_alphanumeric() || "+/".contains(*c);
    octets
        .map_or("", |(_, octets)| octets)
        .chars()
        .filter(is_base64)
        .take(SIGNATURE_START)
        .collect()
}
