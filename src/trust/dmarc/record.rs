//! The record of DMARC: what the owner of a domain wants (RFC 9989 section 4.7).
//!
//! In: the octets of a TXT record. Out: its tags, where what is wrong counts as not said;
//! or nothing, if it is another record.
//!
//! Book: docs/16-trust.md.

use std::fmt::{self, Display, Formatter};

use crate::smtp::text::printable;

/// What the owner wants to be done with letters that fail; the strictest comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Nothing.
    None,
    /// Keep it apart.
    Quarantine,
    /// Refuse it.
    Reject,
}

/// What an owner has published (section 4.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// As its owner wrote it, printable.
    pub text: String,
    /// For letters of this domain; `none` where it is left out (section 4.7).
    pub p: Option<Policy>,
    /// For those of domains below it.
    pub sp: Option<Policy>,
    /// For those of domains below it that do not exist.
    pub np: Option<Policy>,
    /// Whether a policy in it is none that there is.
    pub is_wrong: bool,
    /// Whether somebody wants reports: then a wrong policy is `none`, and counts.
    pub has_reports: bool,
    /// Only the very domain counts, of a signature.
    pub is_dkim_strict: bool,
    /// And of the envelope.
    pub is_spf_strict: bool,
    /// `t=y`: the owner tries it out.
    pub is_test: bool,
    /// `psd=y`: names below belong to different owners. `psd=n`: they belong together.
    pub psd: Option<bool>,
}

impl Record {
    /// Reads one; none if it is something else. What is wrong in it counts as not said.
    pub fn parse(octets: &[u8]) -> Option<Record> {
        // Octets that are no text are an error in their tag only (section 4.8).
        let text = String::from_utf8_lossy(octets);
        let mut tags = text.split(';').map(|tag| {
            let (name, value) = tag.split_once('=').unwrap_or_default();
            (name.trim().to_ascii_lowercase(), value.trim())
        });
        // The version comes first, and has a case.
        if tags.next()? != ("v".to_owned(), "DMARC1") {
            return None;
        }
        let tags: Vec<(String, &str)> = tags.collect();
        let get = |wanted: &str| {
            let tag = tags.iter().find(|(name, _)| name == wanted);
            tag.map(|(_, value)| value.to_ascii_lowercase())
        };
        let policy = |name: &str| get(name).map(|value| Policy::parse(&value));
        let (p, sp, np) = (policy("p"), policy("sp"), policy("np"));
        let is = |name: &str, value: &str| get(name).is_some_and(|one| one == value);
        Some(Record {
            text: printable(octets),
            is_wrong: [p, sp, np].contains(&Some(None)),
            has_reports: get("rua").is_some_and(|uris| uris.split(',').any(is_uri)),
            p: p.flatten(),
            sp: sp.flatten(),
            np: np.flatten(),
            is_dkim_strict: is("adkim", "s"),
            is_spf_strict: is("aspf", "s"),
            is_test: is("t", "y"),
            psd: match get("psd").as_deref() {
                Some("y") => Some(true),
                Some("n") => Some(false),
                _ => None,
            },
        })
    }
}

/// Whether this is a scheme and what it leads to (RFC 3986 section 3).
fn is_uri(text: &str) -> bool {
    let is_scheme = |scheme: &str| scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    text.trim().split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty())
}

impl Policy {
    fn parse(word: &str) -> Option<Policy> {
        match word {
            "none" => Some(Policy::None),
            "quarantine" => Some(Policy::Quarantine),
            "reject" => Some(Policy::Reject),
            _ => None,
        }
    }

    /// While an owner tests (`t=y`), each policy is one step softer (section 4.7).
    pub fn softer(self) -> Policy {
        match self {
            Policy::Reject => Policy::Quarantine,
            Policy::Quarantine | Policy::None => Policy::None,
        }
    }
}

impl Display for Policy {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Policy::None => "none",
            Policy::Quarantine => "quarantine",
            Policy::Reject => "reject",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_record_counts_as_not_said() {
        let parse = |text: &str| Record::parse(text.as_bytes());
        for text in [
            "",
            "v=DMARC2; p=none",
            "v=dmarc1; p=none",
            "p=none; v=DMARC1",
            "hello; v=DMARC1; p=none",
            "; v=DMARC1; p=none",
            "v=spf1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let record = Record::parse(b"v=DMARC1; p=reject; x=\xe9").unwrap();
        assert_eq!((record.p, record.is_wrong), (Some(Policy::Reject), false));
        assert_eq!(record.text, "v=DMARC1; p=reject; x=\\xe9");
        let record =
            parse("v = DMARC1 ;P=Reject; x; =; sp=; adkim=S;pct=5; rua=mailto:a@b").unwrap();
        assert_eq!((record.p, record.sp), (Some(Policy::Reject), None));
        assert!(record.is_wrong && record.has_reports && record.is_dkim_strict);
        assert!(!record.is_spf_strict && !record.is_test && record.psd.is_none());
        assert!(!parse("v=DMARC1; p=none").unwrap().is_wrong);
        assert!(!parse("v=DMARC1").unwrap().is_wrong);
        assert!(parse("v=DMARC1; p=").unwrap().is_wrong);
        for (rua, expected) in
            [(":", false), ("a", false), ("mailto:", false), ("x, mailto:a@b", true)]
        {
            let record = parse(&format!("v=DMARC1; rua={rua}")).unwrap();
            assert_eq!(record.has_reports, expected, "{rua}");
        }
        assert!(parse("v=DMARC1; p=none; np=never").unwrap().is_wrong);
    }

    quickcheck::quickcheck! {
        fn no_octets_stop_the_reader(octets: Vec<u8>, text: String) -> bool {
            let _ = Record::parse(&octets);
            let _ = Record::parse(format!("v=DMARC1; {text}").as_bytes());
            true
        }
    }
}
