//! DKIM: which domain has signed this letter, and is it still what was signed?
//! (RFC 6376, RFC 8301, RFC 8463)
//!
//! `verify.rs` checks the signatures of a letter while it arrives, `sign.rs` makes one.
//! Both need `reading.rs`, which parts header and body, and `canonical.rs`, which says which
//! octets are signed. Only the check needs `tags.rs`, which reads lists of tags,
//! `signature.rs` for the field, and `key.rs` for the record in DNS.
//!
//! Book: docs/16-trust.md.

pub mod canonical;
pub mod key;
pub mod reading;
pub mod sign;
pub mod signature;
pub mod tags;
pub mod verify;

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

use crate::trust::dkim::canonical::Canon;
use crate::trust::fields::Field;

/// What came of one signature (RFC 8601 section 2.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DkimResult {
    /// The domain has signed this letter.
    Pass,
    /// It was changed, or signed with another key.
    Fail,
    /// The signature cannot be read.
    Neutral,
    /// It may be right, and we do not take it: the key is too weak, or for tests.
    Policy,
    /// DNS failed; later there may be an answer.
    TempError,
    /// It can never be right: there is no key, or it says what no signature may say.
    PermError,
}

/// One signature of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimVerdict {
    /// What came out.
    pub result: DkimResult,
    /// `d=`: who claims to have signed. In lower case; empty if it cannot be read.
    pub domain: String,
    /// `s=`: which of its keys.
    pub selector: String,
    /// The first octets of `b=`, which tell two signatures of a domain apart (RFC 6008);
    /// empty if it cannot be read.
    pub signature: String,
    /// Why it is not `Pass`, in a few words for a person; empty if it is.
    pub why: &'static str,
}

/// What a signature signs of a header (section 3.7): the fields that it names, each name
/// standing for the lowest one that is left, and nothing where none is left; at the end
/// the signature itself, without its own octets and without a line end.
fn signed_header(canon: Canon, fields: &[Field], names: &[String], own: &Field) -> Vec<u8> {
    let mut left: HashMap<String, Vec<&Field>> = HashMap::new();
    for field in fields {
        left.entry(field.name.to_ascii_lowercase()).or_default().push(field);
    }
    let mut text = Vec::new();
    for name in names {
        let lowest = left.get_mut(&name.to_ascii_lowercase()).and_then(Vec::pop);
        text.extend(lowest.map(|field| canon.field(field)).unwrap_or_default());
    }
    let own = canon.field(own);
    text.extend_from_slice(own.strip_suffix(b"\r\n").unwrap_or(&own));
    text
}

/// In the words of RFC 8601 section 2.7.1.
impl Display for DkimResult {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            DkimResult::Pass => "pass",
            DkimResult::Fail => "fail",
            DkimResult::Neutral => "neutral",
            DkimResult::Policy => "policy",
            DkimResult::TempError => "temperror",
            DkimResult::PermError => "permerror",
        })
    }
}
