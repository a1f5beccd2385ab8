//! Public keys as PEM: what `openssl pkey -pubout` prints.
//!
//! In: a text. Out: each key in it, or why it is none that we use; or one line that says
//! what was expected. Inside the base64 stands a `SubjectPublicKeyInfo` (RFC 5280 section
//! 4.1): first which kind of key it is, then the key. It comes from whoever runs this
//! server, never from a client.
//!
//! Book: docs/11-auth.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::smtp::auth::public_key::PublicKey;

const BEGIN: &str = "-----BEGIN ";
const PUBLIC_KEY: &str = "PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// rsaEncryption, and NULL for its parameters (RFC 3279 section 2.3.1).
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// id-ecPublicKey on secp256r1, which is P-256 (RFC 5480 section 2.1.1).
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// id-Ed25519 (RFC 8410 section 3).
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

/// All keys of a text, in order. What stands between them is passed over.
pub fn parse(pem: &str) -> Result<Vec<Result<PublicKey, &'static str>>, &'static str> {
    let mut keys = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let block = after.strip_prefix(PUBLIC_KEY).ok_or(
            "expected public keys only, in PEM form; openssl pkey -pubout makes one of a private \
             key, and openssl x509 -pubkey -noout of a certificate",
        )?;
        let (base64, after) = block.split_once(END).ok_or("expected an end of the PEM block")?;
        let base64: String = base64.split_whitespace().collect();
        let der = BASE64.decode(base64).map_err(|_| "expected base64 inside the PEM block")?;
        keys.push(key(&der));
        rest = after;
    }
    Ok(keys)
}

/// The key of a `SubjectPublicKeyInfo`.
fn key(der: &[u8]) -> Result<PublicKey, &'static str> {
    const OTHER: &str = "it is not of RSA, P-256 or Ed25519";
    match kind_and_key(der).ok_or(OTHER)? {
        (RSA, key) => {
            let (n, e) = modulus_and_exponent(key).ok_or(OTHER)?;
            PublicKey::rsa(n, e)
        }
        (P256, key) => PublicKey::p256(key.to_vec()),
        (ED25519, key) => PublicKey::ed25519(key.to_vec()),
        _ => Err(OTHER),
    }
}

/// Modulus and exponent of an RSA key, as a `SubjectPublicKeyInfo` or bare (RFC 8017
/// appendix A.1.1): DKIM has keys of both forms, though RFC 6376 speaks of the second.
pub fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    match kind_and_key(der) {
        Some((RSA, key)) => modulus_and_exponent(key),
        Some(_) => None,
        None => modulus_and_exponent(der),
    }
}

/// `SEQUENCE { SEQUENCE { kind }, BIT STRING { key } }`
fn kind_and_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (outer, _) = value(SEQUENCE, der)?;
    let (kind, rest) = value(SEQUENCE, outer)?;
    // The first octet says how many bits of the last one do not count.
    let key = value(BIT_STRING, rest)?.0.strip_prefix(&[0])?;
    Some((kind, key))
}

/// `SEQUENCE { INTEGER, INTEGER }` (RFC 8017 appendix A.1.1).
fn modulus_and_exponent(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (n, rest) = value(INTEGER, value(SEQUENCE, der)?.0)?;
    Some((n, value(INTEGER, rest)?.0))
}

/// The value at the start of `der` if it has this tag, and what follows it.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first_chunk().map(|(&[len], rest)| (usize::from(len), rest))?,
        0x82 => {
            let (len, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        // No key has 64 KiB.
        _ => return None,
    };
    if found == tag { rest.split_at_checked(len) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::public_key::Algorithm;

    /// `openssl genpkey -algorithm ed25519 | openssl pkey -pubout`, and the same with
    /// `-algorithm EC -pkeyopt ec_paramgen_curve:P-256`, and P-384.
    const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAQvGQ/rxL7lvzWCKCtSm7zj8bEjsUGbJt6YV1U9TIg2g=\n\
        -----END PUBLIC KEY-----\n";
    const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4ekV0FgD0DiEMev9x3FgPjgqlwvb\n\
        aQ5toRfUKCQKB+BEPqzJP+ROI0ehsDqB8U6ppYynAHc/BS9LYUm9ZQyYVg==\n\
        -----END PUBLIC KEY-----\n";
    const P384_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEA5Kl3EOeVk6VKdlix5wAejjjPW/cxL7x\n\
        t1dMaKSDhgctYmzbrTI0UyNFzwgwx7wbNyBKLmTPl7x9qhBK1SEqDo843ot0KnEP\n\
        7VeqEpIYVc0qaS3C/kvd+zF+cXsASkYi\n\
        -----END PUBLIC KEY-----\n";
    /// A key of 2048 bits and one of 1024.
    const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAtjjJspc/A0xKUYcScVLf\n\
        mTtYgr4xnfMxSuhdE3fpUyMDVlt3kyQGLmRdSGMRKeNAQ5y/xWyN6x1UFyJj3kLz\n\
        +AS5TpjDbJGUi8f0/B6WTHa6qCFlQG40TmMOKapBpXIwg1ewLlv9sPX6FeR1tu7T\n\
        G/EOr438Fw2xluQijPk68cH+eMcEn7P1ycrIjryKTJTAdKEXMAvIbpzNXaRLi/cg\n\
        YetPfHVtOK/Ch6bjxnxH0XVqWpvyPgw3pbbDnROGeQed3CD2aIL0LuXcoNuE3LZK\n\
        8dWJ8W3PSqxHv0yiIcTKfQskwbUsRysdxEH6xozItWEzj2HsixbnRdy0n57iaU7X\n\
        XwIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    const SHORT_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDSXMIslaqWo5LuqvzTl9J9hPZy\n\
        JYDP/Vo+cr+QG70IZQS3iDGf3EKV9puOzGgkgzSAcoJuP1HjgyyJcxPL5Hcd37VY\n\
        xJFOWNSRRA9bJryjoIKnoX8bCKqiTm7vVgEEjuZDJD2ek/Ku8PJ6r2dBXiovlV7k\n\
        UQOJC7nsP0d+IA6tQwIDAQAB\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn keys_as_openssl_writes_them_are_read() {
        let all = format!("Our keys:\r\n{ED25519_PEM}{P256_PEM}\n{RSA_PEM}That is all.");
        let keys = parse(&all.replace('\n', "\r\n")).unwrap();
        let algorithms: Vec<_> = keys.iter().map(|key| key.as_ref().unwrap().algorithm()).collect();
        assert_eq!(algorithms, [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]);
    }

    #[test]
    fn other_and_short_keys_are_told_apart_from_no_keys() {
        let keys = parse(&format!("{P384_PEM}{SHORT_PEM}")).unwrap();
        assert!(keys.len() == 2 && keys.iter().all(Result::is_err), "{keys:?}");
        assert_eq!(parse("nothing"), Ok(Vec::new()));
    }

    #[test]
    fn a_private_key_a_certificate_and_a_broken_block_are_refused() {
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "CERTIFICATE", "EC PRIVATE KEY"] {
            assert!(parse(&ED25519_PEM.replace("PUBLIC KEY", label)).is_err(), "{label}");
        }
        assert!(parse(ED25519_PEM.trim_end_matches("-\n")).is_err());
        assert!(parse(&ED25519_PEM.replace("MCow", "MC*w")).is_err());
    }

    /// Whatever stands in the block, nothing panics.
    #[test]
    fn a_key_cut_off_or_changed_anywhere_is_read_without_a_panic() {
        let base64: String = RSA_PEM.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64.decode(base64).unwrap();
        assert!(key(&der).is_ok());
        for at in 0..der.len() {
            let _ = key(&der[..at]);
            for octet in [0, 0x7f, 0x80, 0x81, 0x82, 0xff] {
                let mut changed = der.clone();
                changed[at] = octet;
                let _ = key(&changed);
            }
        }
    }
}
