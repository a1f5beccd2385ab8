//! One `DKIM-Signature` field, read (RFC 6376 section 3.5).
//!
//! In: the value of the field. Out: who signed what, how; or the result that it has
//! already, because it cannot be read or claims what it may not.
//!
//! Book: docs/16-trust.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use crate::smtp::address::ascii_domain;
use crate::trust::dkim::DkimResult;
use crate::trust::dkim::canonical::Canon;
use crate::trust::dkim::key::Algorithm;
use crate::trust::dkim::tags::{Tags, is_blank};

/// Clocks differ. A letter that was signed further in the future than this is not taken.
const CLOCK_SECS: i64 = 300;

/// What a signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// `a=`
    pub algorithm: Algorithm,
    /// `b=`
    pub octets: Vec<u8>,
    /// `bh=`: the hash that the body had.
    pub body_hash: Vec<u8>,
    /// `c=`, of the header.
    pub header_canon: Canon,
    /// `c=`, of the body.
    pub body_canon: Canon,
    /// `d=`, in lower case.
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// `h=`: the names of the fields that were signed.
    pub names: Vec<String>,
    /// `l=`: how much of the body counts; all, where nothing is said.
    pub limit: Option<u64>,
    /// `i=` names the domain itself, and none below it.
    pub is_of_domain_itself: bool,
}

/// What is known of a signature that cannot be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// What came out already.
    pub result: DkimResult,
    /// Why, for a person.
    pub why: &'static str,
    /// `d=`, in lower case, if it can be read.
    pub domain: String,
    /// `s=`, if it can be read.
    pub selector: String,
}

/// How long the list of signed fields may be, in octets: some two thousand names.
const NAMES_LIMIT: usize = 16 * 1024;

/// A tag that can be read, or why it cannot.
type Tag<T> = Result<T, (DkimResult, &'static str)>;

impl Signature {
    /// Reads the value of a field.
    pub fn parse(value: &str, now: Timestamp) -> Result<Signature, Unusable> {
        let unusable = |(result, why), tags: Option<&Tags>| {
            let tag = |name| tags.and_then(|tags| tags.get(name)).unwrap_or_default().to_owned();
            let domain = tag("d").to_ascii_lowercase();
            Unusable { result, why, domain, selector: tag("s") }
        };
        let Some(tags) = Tags::parse(value) else {
            return Err(unusable((DkimResult::Neutral, "it is no list of tags"), None));
        };
        Signature::from_tags(&tags, now).map_err(|error| unusable(error, Some(&tags)))
    }

    fn from_tags(tags: &Tags, now: Timestamp) -> Tag<Signature> {
        if required(tags, "v")? != "1" {
            return Err((DkimResult::Neutral, "it has another version than 1"));
        }
        let algorithm = algorithm(required(tags, "a")?)?;
        let (header_canon, body_canon) = canons(tags.get("c").unwrap_or("simple/simple"))?;
        let domain = domain(required(tags, "d")?)?;
        let selector = domain_name(required(tags, "s")?).ok_or(SYNTAX)?;
        let names = required(tags, "h")?;
        if names.len() > NAMES_LIMIT {
            return Err((DkimResult::PermError, "it names too many fields"));
        }
        let names: Vec<String> =
            names.split(':').map(|name| name.trim_matches(is_blank).to_owned()).collect();
        // Else the most important field of all could be exchanged (section 5.4).
        if !names.iter().any(|name| name.eq_ignore_ascii_case("from")) {
            return Err((DkimResult::PermError, "it does not sign From"));
        }
        let methods = tags.get("q").unwrap_or("dns/txt");
        if !methods.split(':').any(|one| one.trim_matches(is_blank) == "dns/txt") {
            return Err((DkimResult::Neutral, "its key is not in DNS"));
        }
        check_times(tags, now)?;
        Ok(Signature {
            algorithm,
            octets: base64(required(tags, "b")?)?,
            body_hash: base64(required(tags, "bh")?)?,
            header_canon,
            body_canon,
            is_of_domain_itself: is_of_domain_itself(tags.get("i"), &domain)?,
            domain,
            selector,
            names,
            limit: tags.get("l").map(number).transpose()?,
        })
    }
}

const SYNTAX: (DkimResult, &str) = (DkimResult::Neutral, "one of its tags cannot be read");

fn required<'a>(tags: &Tags<'a>, name: &str) -> Tag<&'a str> {
    tags.get(name).ok_or((DkimResult::PermError, "one of its tags is missing"))
}

fn algorithm(name: &str) -> Tag<Algorithm> {
    match name.to_ascii_lowercase().as_str() {
        "rsa-sha256" => Ok(Algorithm::Rsa),
        "ed25519-sha256" => Ok(Algorithm::Ed25519),
        // Whoever can make two texts of one hash can forge it (RFC 8301 section 3.1).
        "rsa-sha1" => Err((DkimResult::PermError, "SHA-1 proves nothing any more")),
        _ => Err((DkimResult::Neutral, "its algorithm is not known here")),
    }
}

/// Header and body; where one word stands, the body is `simple`.
fn canons(text: &str) -> Tag<(Canon, Canon)> {
    let canon = |word: &str| match word.trim_matches(is_blank).to_ascii_lowercase().as_str() {
        "simple" => Ok(Canon::Simple),
        "relaxed" => Ok(Canon::Relaxed),
        _ => Err((DkimResult::Neutral, "its canonical form is not known here")),
    };
    let (header, body) = text.split_once('/').unwrap_or((text, "simple"));
    Ok((canon(header)?, canon(body)?))
}

fn domain(text: &str) -> Tag<String> {
    domain_name(text).filter(|name| name.contains('.')).ok_or(SYNTAX)
}

/// Labels of letters, digits, hyphens and underscores, in lower case. One outside ASCII is
/// a U-label, and gives its A-label (RFC 8616 section 5).
fn domain_name(text: &str) -> Option<String> {
    let name = if text.is_ascii() { text.to_ascii_lowercase() } else { ascii_domain(text)? };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
    };
    name.split('.').all(is_label).then_some(name)
}

/// Who signed for the domain: somebody in it or below it (section 3.5).
fn is_of_domain_itself(identity: Option<&str>, domain: &str) -> Tag<bool> {
    let Some(identity) = identity else { return Ok(true) };
    let (_, of) = identity.rsplit_once('@').ok_or(SYNTAX)?;
    let of = domain_name(of).ok_or(SYNTAX)?;
    match of.strip_suffix(domain) {
        Some("") => Ok(true),
        Some(rest) if rest.ends_with('.') => Ok(false),
        _ => Err((DkimResult::PermError, "its i= is not in its d=")),
    }
}

fn check_times(tags: &Tags, now: Timestamp) -> Tag<()> {
    let seconds = |name| -> Tag<Option<i64>> {
        let value = tags.get(name).map(number).transpose()?;
        Ok(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
    };
    let (signed, expires, now) = (seconds("t")?, seconds("x")?, now.as_second());
    if expires.is_some_and(|expires| signed.is_some_and(|signed| expires <= signed)) {
        return Err((DkimResult::PermError, "it ends before it begins"));
    }
    if signed.is_some_and(|signed| signed > now.saturating_add(CLOCK_SECS)) {
        return Err((DkimResult::PermError, "it was made in the future"));
    }
    if expires.is_some_and(|expires| expires < now) {
        return Err((DkimResult::PermError, "it has expired"));
    }
    Ok(())
}

/// Digits; more than fit into a u64 are as many as nobody has.
fn number(text: &str) -> Tag<u64> {
    let is_number =
        !text.is_empty() && text.len() <= 76 && text.bytes().all(|one| one.is_ascii_digit());
    if is_number { Ok(text.parse().unwrap_or(u64::MAX)) } else { Err(SYNTAX) }
}

fn base64(text: &str) -> Tag<Vec<u8>> {
    let text: String = text.split(is_blank).collect();
    let octets = BASE64.decode(text).map_err(|_| SYNTAX)?;
    if octets.is_empty() { Err(SYNTAX) } else { Ok(octets) }
}
