//! Who a reader takes for the author: the domain in `From` (RFC 5322 section 3.6.2).
//!
//! In: the header of a letter, in file form. Out: the domain of its author, in A-labels
//! and lower case; or why nobody can say. Whoever forges a letter writes this field, so it
//! may be anything: two fields, two authors, a group, an address in a comment, in quotes or
//! in the name that is shown. Only what a mail program would send an answer to is an address.
//!
//! Book: docs/16-trust.md.

use std::fmt::{self, Display, Formatter};

use crate::smtp::address::ascii_domain;
use crate::store::header::after_comment;
use crate::trust::fields::fields;

/// Of a letter with several authors so many domains are asked about.
const DOMAINS_LIMIT: usize = 4;

/// Why a letter has not exactly one author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAuthor {
    /// It has no field `From`, or one without an address.
    Missing,
    /// An address in it has no domain that could be in DNS.
    NoDomain,
    /// Several fields, addresses in several domains, or some without one: these.
    Several(Vec<String>),
    /// More domains than are asked about, or a header that is longer than what is kept of it.
    TooMuch,
}

/// The one domain that all addresses in the one `From` of a header have.
pub fn author_domain(header: &[u8]) -> Result<String, NoAuthor> {
    let fields = fields(header);
    let from: Vec<&[u8]> = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("from"))
        .map(|field| field.raw.splitn(2, |octet| *octet == b':').nth(1).unwrap_or_default())
        .collect();
    let mut domains: Vec<String> = Vec::new();
    let (mut has_address, mut has_all_domains) = (false, true);
    for value in &from {
        for address in addresses(&String::from_utf8_lossy(value)) {
            has_address = true;
            // One that cannot be in DNS hides none of the others: their owners have a say.
            let Some(domain) = domain_of(&address) else {
                has_all_domains = false;
                continue;
            };
            if !domains.contains(&domain) {
                domains.push(domain);
            }
            if domains.len() > DOMAINS_LIMIT {
                return Err(NoAuthor::TooMuch);
            }
        }
    }
    match domains.pop() {
        None if has_address => Err(NoAuthor::NoDomain),
        None => Err(NoAuthor::Missing),
        Some(domain) if domains.is_empty() && from.len() == 1 && has_all_domains => Ok(domain),
        Some(domain) => {
            domains.push(domain);
            Err(NoAuthor::Several(domains))
        }
    }
}

/// All addresses of a list: what stands in angle brackets, or else all of an entry.
/// Comments, quoted names and the names of groups are none.
fn addresses(value: &str) -> Vec<String> {
    let mut addresses = Vec::new();
    let (mut entry, mut in_brackets) = (String::new(), None);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '(' => chars = after_comment(chars.as_str()).chars(),
            '\\' => drop(chars.next()),
            '"' => {
                let quoted = quoted(&mut chars);
                // Blanks in it are part of an address; outside they are not.
                in_brackets.as_mut().unwrap_or(&mut entry).push_str(&quoted);
            }
            // In brackets already: programs show either of the two.
            '<' => addresses.extend(in_brackets.replace(String::new())),
            '>' => {
                if let Some(address) = in_brackets.take() {
                    addresses.push(address);
                    entry.clear();
                    skip_to_next(&mut chars);
                }
            }
            ',' | ';' if in_brackets.is_none() => addresses.push(std::mem::take(&mut entry)),
            // What went before was the name of a group, or in brackets a route.
            ':' => in_brackets.as_mut().unwrap_or(&mut entry).clear(),
            _ if c.is_whitespace() => {}
            _ => in_brackets.as_mut().unwrap_or(&mut entry).push(c),
        }
    }
    addresses.push(in_brackets.unwrap_or(entry));
    addresses.retain(|address| !address.is_empty());
    addresses
}

/// The text up to the closing quote, as one word: an `@` in it is no sign of an address.
fn quoted(chars: &mut std::str::Chars) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => break,
            '@' => {}
            _ => text.push(c),
        }
    }
    if text.is_empty() { "\"".to_owned() } else { text }
}

/// After an address in brackets nothing counts up to the next comma.
fn skip_to_next(chars: &mut std::str::Chars) {
    while let Some(c) = chars.clone().next() {
        match c {
            ',' | ';' | '<' => return,
            '(' => {
                chars.next();
                *chars = after_comment(chars.as_str()).chars();
            }
            '"' => {
                chars.next();
                quoted(chars);
            }
            _ => drop(chars.next()),
        }
    }
}

/// The part after the last `@`, as it stands in DNS.
fn domain_of(address: &str) -> Option<String> {
    let (_, domain) = address.rsplit_once('@')?;
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let is_name = !domain.starts_with('[') && domain.split('.').all(|label| !label.is_empty());
    ascii_domain(domain).filter(|_| is_name).map(|domain| domain.to_ascii_lowercase())
}

impl Display for NoAuthor {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            NoAuthor::Missing => f.write_str("there is no address in From"),
            NoAuthor::NoDomain => f.write_str("an address in From has no domain"),
            NoAuthor::Several(domains) => {
                write!(f, "From does not name exactly one domain, but: {}", domains.join(", "))
            }
            NoAuthor::TooMuch => {
                f.write_str("the header is too long, or From has too many domains")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(from: &str) -> Result<String, NoAuthor> {
        author_domain(format!("Subject: x\n{from}\nTo: bob@to.example\n").as_bytes())
    }

    #[test]
    fn the_author_is_found_however_the_field_is_written() {
        for from in [
            "From: ann@bank.example",
            "from : <ann@BANK.example.>",
            "From: Ann <ann@bank.example>",
            "FROM: \"Ann, of (the) <evil@evil.example>\" <ann@bank.example>",
            "From: evil@evil.example <ann@bank.example>",
            "From: \"evil@evil.example\" <ann@bank.example>",
            "From: (evil@evil.example, (really)) ann@bank.example (also evil@evil.example)",
            "From: Ann\n <ann@\n\tbank.example>",
            "From: =?utf-8?q?evil=40evil.example?= <ann@bank.example>",
            "From: <@evil.example,@route.example:ann@bank.example>",
            "From: Group: ann@bank.example, bob@bank.example;",
            "From: ann@bank.example, Bob <bob@bank.example>",
            "From: \"a@b\"@bank.example",
            "From: <\"a b\"@bank.example>",
            "From: ann @ bank . example",
            "From: <ann@bank.example> evil@evil.example",
            "From: Ann \\( <ann@bank.example>",
        ] {
            assert_eq!(author(from).as_deref(), Ok("bank.example"), "{from}");
        }
        assert_eq!(author("From: a@b\u{fc}cher.example").as_deref(), Ok("xn--bcher-kva.example"));
    }

    #[test]
    fn a_letter_without_exactly_one_author_is_told_apart() {
        for (from, expected) in [
            ("Sender: a@b.example", NoAuthor::Missing),
            ("From:", NoAuthor::Missing),
            ("From: (a@b.example)", NoAuthor::Missing),
            ("From: undisclosed:;", NoAuthor::Missing),
            ("From: ann", NoAuthor::NoDomain),
            ("From: ann@[192.0.2.1]", NoAuthor::NoDomain),
            ("From: ann@..", NoAuthor::NoDomain),
            ("From: ann@bank..example", NoAuthor::NoDomain),
            ("From: \"ann@bank.example\"", NoAuthor::NoDomain),
        ] {
            assert_eq!(author(from), Err(expected), "{from}");
        }
        for from in [
            "From: ann@bank.example, eve@evil.example",
            "From: ann@bank.example\nFrom: eve@evil.example",
            "From: a@bank.example <b@bank.example>, <eve@evil.example>",
            "From: <ann@bank.example<eve@evil.example>",
        ] {
            let Err(NoAuthor::Several(mut domains)) = author(from) else { panic!("{from}") };
            domains.sort();
            assert_eq!(domains, ["bank.example", "evil.example"], "{from}");
        }
        // An address that is none is no way around the policy of the others (section 11.5).
        for from in [
            "From: ann@bank.example, x",
            "From: x, ann@bank.example",
            "From: ann@bank.example, eve@[192.0.2.1]",
            "From: x\nFrom: ann@bank.example",
        ] {
            let expected = NoAuthor::Several(vec!["bank.example".to_owned()]);
            assert_eq!(author(from), Err(expected), "{from}");
        }
        // Twice the same is still twice: programs show either of the two.
        let twice = author("From: ann@bank.example\nFrom: bob@bank.example");
        assert_eq!(twice, Err(NoAuthor::Several(vec!["bank.example".to_owned()])));
    }

    #[test]
    fn a_domain_more_than_are_asked_about_is_no_way_around_its_policy() {
        let many = |count| -> String {
            let domains: Vec<String> = (0..count).map(|n| format!("a@b{n}.example")).collect();
            format!("From: {}", domains.join(","))
        };
        let Err(NoAuthor::Several(domains)) = author(&many(DOMAINS_LIMIT)) else { panic!() };
        assert_eq!(domains.len(), DOMAINS_LIMIT);
        assert_eq!(author(&many(DOMAINS_LIMIT + 1)), Err(NoAuthor::TooMuch));
        assert_eq!(author(&many(100_000)), Err(NoAuthor::TooMuch));
    }

    quickcheck::quickcheck! {
        fn no_field_stops_it(text: String, choice: Vec<u8>) -> bool {
            let nasty: String =
                choice.iter().map(|one| char::from(b"<>\"(),;:@. a\\\n"[usize::from(one % 14)])).collect();
            let _ = author(&format!("From: {text}"));
            let _ = author(&format!("From: {nasty}"));
            true
        }
    }
}
