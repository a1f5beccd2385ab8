//! A public key, as its owner publishes it in DNS (RFC 6376 section 3.6.1).
//!
//! In: the TXT record at `selector._domainkey.domain`. Out: a [`Key`] that checks a
//! signature, or why the record is none that can be used.
//!
//! Book: docs/16-trust.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use ring::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

use crate::smtp::auth::spki;
use crate::trust::dkim::DkimResult;
use crate::trust::dkim::tags::{Tags, is_blank};

/// What RFC 8301 section 3.2 wants at least, and what still costs no time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 1024..=8192;
/// RFC 8463 section 4.
const ED25519_OCTETS: usize = 32;

/// How a letter is signed (RFC 8463 section 3, RFC 8301 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `rsa-sha256`
    Rsa,
    /// `ed25519-sha256`
    Ed25519,
}

/// A key and what its owner says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    algorithm: Algorithm,
    /// RSA: modulus and exponent. Ed25519: the point, and nothing.
    numbers: (Vec<u8>, Vec<u8>),
    /// `t=y`: the domain is trying it out, and nobody should rely on it.
    pub is_test: bool,
    /// `t=s`: only for the domain itself, and none below it.
    pub is_strict: bool,
}

/// Why a record gives no key: the result, and the reason in words.
pub type NoKey = (DkimResult, &'static str);

impl Key {
    /// Reads a record. It must be for this algorithm.
    pub fn parse(record: &[u8], algorithm: Algorithm) -> Result<Key, NoKey> {
        let bad = |why| (DkimResult::PermError, why);
        let text = str::from_utf8(record).map_err(|_| bad("the key record is not text"))?;
        let tags = Tags::parse(text).ok_or(bad("the key record is no list of tags"))?;
        let has = |name, word: &str| {
            let list = tags.get(name).unwrap_or_default();
            list.split(':').any(|one| one.trim_matches(is_blank).eq_ignore_ascii_case(word))
        };
        if tags.get("v").is_some_and(|version| version != "DKIM1" || tags.first() != "v") {
            return Err(bad("the key record has another version"));
        }
        let wanted = match algorithm {
            Algorithm::Rsa => "rsa",
            Algorithm::Ed25519 => "ed25519",
        };
        if !tags.get("k").unwrap_or("rsa").eq_ignore_ascii_case(wanted) {
            return Err(bad("the key is of another kind than the signature"));
        }
        if tags.get("h").is_some() && !has("h", "sha256") {
            return Err(bad("the key is not for sha256"));
        }
        if tags.get("s").is_some() && !has("s", "*") && !has("s", "email") {
            return Err(bad("the key is not for mail"));
        }
        let base64: String =
            tags.get("p").ok_or(bad("the key record has no p="))?.split(is_blank).collect();
        if base64.is_empty() {
            return Err(bad("the key was revoked"));
        }
        let der = BASE64.decode(base64).map_err(|_| bad("the key is not base64"))?;
        let numbers = match algorithm {
            Algorithm::Rsa => rsa_numbers(&der)?,
            Algorithm::Ed25519 if der.len() == ED25519_OCTETS => (der, Vec::new()),
            Algorithm::Ed25519 => return Err(bad("the key has not 32 octets")),
        };
        Ok(Key { algorithm, numbers, is_test: has("t", "y"), is_strict: has("t", "s") })
    }

    /// Whether this is the signature of a header in canonical form.
    pub fn has_signed(&self, header: &[u8], signature: &[u8]) -> bool {
        let (n, e) = (&self.numbers.0, &self.numbers.1);
        match self.algorithm {
            Algorithm::Rsa => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, header, signature)
                .is_ok(),
            // It signs the hash, not the header itself (RFC 8463 section 3).
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, n)
                .verify(digest(&SHA256, header).as_ref(), signature)
                .is_ok(),
        }
    }
}

fn rsa_numbers(der: &[u8]) -> Result<(Vec<u8>, Vec<u8>), NoKey> {
    let (n, e) = spki::rsa_numbers(der).ok_or((DkimResult::PermError, "the key is no RSA key"))?;
    let without_zeros = |number: &[u8]| -> Vec<u8> {
        number.iter().copied().skip_while(|octet| *octet == 0).collect()
    };
    let (n, e) = (without_zeros(n), without_zeros(e));
    if bits(&n) < *RSA_BITS.start() {
        return Err((DkimResult::Policy, "the key has less than 1024 bits"));
    }
    if bits(&n) > *RSA_BITS.end() {
        return Err((DkimResult::Policy, "the key has more than 8192 bits"));
    }
    Ok((n, e))
}

/// Of a number without zeros in front.
fn bits(number: &[u8]) -> usize {
    8 * number.len() - number.first().map_or(0, |first| first.leading_zeros() as usize)
}
