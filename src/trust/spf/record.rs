//! The text of an SPF record, read (RFC 7208 section 12).
//!
//! In: the octets of a TXT record. Out: its mechanisms in order, and its modifiers. The
//! whole of it must be right before any of it counts, so that a mistake is found by its
//! owner and not by the one client that gets as far.
//!
//! Book: docs/16-trust.md.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::trust::spf::SpfResult;
use crate::trust::spf::macros::MacroString;

/// What makes a TXT record one of SPF.
const VERSION: &[u8] = b"v=spf1";

/// A record whose syntax is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Tried in order; the first that matches decides.
    pub directives: Vec<Directive>,
    /// Whose record counts where none matches.
    pub redirect: Option<MacroString>,
    /// Where the text for those who may not send stands.
    pub exp: Option<MacroString>,
}

/// A mechanism, and what it means that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// What comes out then.
    pub result: SpfResult,
    /// When it matches.
    pub mechanism: Mechanism,
    /// As the owner wrote it, for a person.
    pub text: String,
}

/// When a directive matches (RFC 7208 section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mechanism {
    /// Always.
    All,
    /// If the record of that domain says pass.
    Include(MacroString),
    /// If the client has an address of that host, or of this domain.
    A(Option<MacroString>, Prefixes),
    /// If it has an address of one of the hosts that take mail for that domain.
    Mx(Option<MacroString>, Prefixes),
    /// If the client's address has a name in that domain. Slow; the RFC asks not to use it.
    Ptr(Option<MacroString>),
    /// If it is in this network.
    Ip4(Ipv4Addr, u8),
    /// The same for IPv6.
    Ip6(Ipv6Addr, u8),
    /// If that name has an A record, whatever address is in it.
    Exists(MacroString),
}

/// How many bits of an address have to agree, of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// Of an IPv4 address, 0 to 32.
    pub v4: u8,
    /// Of an IPv6 address, 0 to 128.
    pub v6: u8,
}

/// The longest record that is read, in octets. RFC 7208 section 3.4 wants 450 at most, because
/// DNS would need TCP for more; what is read costs memory and work for each letter.
const RECORD_LIMIT: usize = 4096;

/// The first term that is wrong. Completes "its record cannot be read: …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake(String);

impl Record {
    /// Whether a TXT record is one of SPF, right or wrong (section 4.5).
    pub fn is_one(octets: &[u8]) -> bool {
        let version = octets.get(..VERSION.len()).unwrap_or_default();
        let after = octets.get(VERSION.len());
        version.eq_ignore_ascii_case(VERSION) && after.is_none_or(|octet| *octet == b' ')
    }

    /// Reads one.
    pub fn parse(octets: &[u8]) -> Result<Record, Mistake> {
        let text = str::from_utf8(octets).ok().filter(|text| text.is_ascii());
        let text = text.ok_or_else(|| Mistake("it is not ASCII".to_owned()))?;
        if text.len() > RECORD_LIMIT {
            return Err(Mistake(format!("it is longer than {RECORD_LIMIT} octets")));
        }
        let mut record = Record { directives: Vec::new(), redirect: None, exp: None };
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            record.add(term).ok_or_else(|| Mistake(format!("the term {term}")))?;
        }
        Ok(record)
    }

    fn add(&mut self, term: &str) -> Option<()> {
        if let Some((name, value)) = modifier(term) {
            let target = match name.to_ascii_lowercase().as_str() {
                "redirect" => &mut self.redirect,
                "exp" => &mut self.exp,
                // Others may come: known by their form, and passed over (section 6).
                _ => return MacroString::value(value).map(|_| ()),
            };
            // Twice is a mistake.
            return match target {
                Some(_) => None,
                None => MacroString::domain(value).map(|value| *target = Some(value)),
            };
        }
        let (result, mechanism) = match term.split_at_checked(1)? {
            ("+", rest) => (SpfResult::Pass, rest),
            ("-", rest) => (SpfResult::Fail, rest),
            ("~", rest) => (SpfResult::SoftFail, rest),
            ("?", rest) => (SpfResult::Neutral, rest),
            _ => (SpfResult::Pass, term),
        };
        let mechanism = mechanism_of(mechanism)?;
        self.directives.push(Directive { result, mechanism, text: term.to_owned() });
        Some(())
    }
}

/// `name=value`; a mechanism has no `=` in its name.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(is_inner);
    is_name.then_some((name, value))
}

fn mechanism_of(text: &str) -> Option<Mechanism> {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    // After a colon something has to come.
    let value = rest.strip_prefix(':');
    match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Some(Mechanism::All),
        "include" => Some(Mechanism::Include(MacroString::domain(value?)?)),
        "exists" => Some(Mechanism::Exists(MacroString::domain(value?)?)),
        "ptr" if rest.is_empty() => Some(Mechanism::Ptr(None)),
        "ptr" => Some(Mechanism::Ptr(Some(MacroString::domain(value?)?))),
        "a" => host(rest).map(|(name, prefixes)| Mechanism::A(name, prefixes)),
        "mx" => host(rest).map(|(name, prefixes)| Mechanism::Mx(name, prefixes)),
        "ip4" => {
            let (address, bits) = network(value?, 32)?;
            Some(Mechanism::Ip4(address.parse().ok()?, bits))
        }
        "ip6" => {
            let (address, bits) = network(value?, 128)?;
            Some(Mechanism::Ip6(address.parse().ok()?, bits))
        }
        _ => None,
    }
}

/// `:name/24//64`, each part of which may be missing. A slash may stand in the name too,
/// so the lengths are taken from the end.
fn host(rest: &str) -> Option<(Option<MacroString>, Prefixes)> {
    let (rest, v6) = cut_length(rest, "//", 128)?;
    let (rest, v4) = cut_length(rest, "/", 32)?;
    let name = match rest.strip_prefix(':') {
        Some(name) => Some(MacroString::domain(name)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    Some((name, Prefixes { v4: v4.unwrap_or(32), v6: v6.unwrap_or(128) }))
}

/// Cuts `/24` off the end of a text. None where the number is wrong.
fn cut_length<'a>(text: &'a str, mark: &str, most: u8) -> Option<(&'a str, Option<u8>)> {
    match text.rsplit_once(mark) {
        Some((before, number)) if number.bytes().all(|octet| octet.is_ascii_digit()) => {
            Some((before, Some(length(number, most)?)))
        }
        _ => Some((text, None)),
    }
}

/// An address and how many bits of it count; all, where that is not said.
fn network(text: &str, most: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        Some((address, bits)) => Some((address, length(bits, most)?)),
        None => Some((text, most)),
    }
}

/// A number without zeros in front.
fn length(digits: &str, most: u8) -> Option<u8> {
    let is_number = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|bits| is_number && *bits <= most)
}

impl Display for Mistake {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_version() {
        for (text, is_one) in [
            ("v=spf1", true),
            ("V=SPF1 -all", true),
            ("v=spf10", false),
            ("v=spf1\t-all", false),
            ("x v=spf1", false),
            ("", false),
        ] {
            assert_eq!(Record::is_one(text.as_bytes()), is_one, "{text}");
        }
    }

    #[test]
    fn a_record_has_a_length_that_is_read() {
        let record = |octets: usize| format!("v=spf1{}", " a".repeat((octets - 6) / 2));
        assert!(Record::parse(record(4096).as_bytes()).is_ok());
        assert!(Record::parse(record(4098).as_bytes()).is_err());
    }

    #[test]
    fn a_record_is_right_as_a_whole_or_not_at_all() {
        for text in [
            "v=spf1 a mx/24 a:x.example/24//64 mx//64 ptr ptr:x.example ip4:192.0.2.0/24 -all",
            "v=spf1  ip6:2001:db8::/32 exists:%{i}.x.example include:_spf.x.example  ",
            "v=spf1 redirect=x.example moo.cow-far_out=man:dog/cat a:foo:bar/baz.example",
        ] {
            assert!(Record::parse(text.as_bytes()).is_ok(), "{text}");
        }
        for term in [
            "-all.",
            "all:x.example",
            "include",
            "include:",
            "exists",
            "ptr:",
            "ptr/24",
            "a:",
            "a/33",
            "a/024",
            "a/",
            "a//129",
            "a:x.example/24/64",
            "ip4",
            "ip4:192.0.2.1/",
            "moo",
            "ip4:192.0.2",
            "ip4:192.0.2.1/+4",
            "ip6:x",
            "ip6:::1/129",
            "a:x",
            "=x",
            "redirect=",
            "exp=a.example exp=b.example",
            "*all",
            "+",
            "a\u{fc}",
            "unknown=%x",
        ] {
            let text = format!("v=spf1 a {term} -all");
            assert!(Record::parse(text.as_bytes()).is_err(), "{term}");
        }
    }

    quickcheck::quickcheck! {
        fn no_octets_stop_the_parser(octets: Vec<u8>, text: String) -> bool {
            let _ = Record::parse(&octets);
            let _ = Record::parse(format!("v=spf1 {text}").as_bytes());
            true
        }
    }
}
