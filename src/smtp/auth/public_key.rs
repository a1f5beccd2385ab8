//! A public key, and the one kind of signature that it checks.
//!
//! In: the numbers of a key; a text and its signature. Out: a [`PublicKey`], or why it
//! is none that we use; whether the signature is right. Each kind of key has exactly one
//! algorithm here (RFC 8725 section 3.1), so nobody can choose which one is used with
//! it. There is no algorithm in which both sides have the same key: whoever can check a
//! signature of that kind can make one. And there is no `none`.
//!
//! Left to others: how keys are written down (`key_set.rs`, `spki.rs`), and which key
//! is asked (`jwt.rs`).
//!
//! Book: docs/11-auth.md.

use std::ops::RangeInclusive;

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

/// RFC 7518 section 3.3 wants the first number of bits at least. Beyond the second a check
/// takes long, and is no safer.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;
/// The octets of an exponent: 65537, which nearly everybody has, needs three.
const EXPONENT_LIMIT: usize = 4;
/// An uncompressed point on P-256: 4, and two numbers of 32 octets.
const POINT_LEN: usize = 65;
/// What an uncompressed point begins with (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// RFC 8032 section 5.1.5.
const ED25519_LEN: usize = 32;

/// How a text is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    Rs256,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    Es256,
    /// Ed25519 (RFC 8037 section 3.1). The other curve of that name is not known here.
    EdDsa,
}

/// A key that everybody may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Two numbers, big-endian, without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    /// An encoded point.
    Ed25519(Vec<u8>),
}

impl Algorithm {
    /// Reads the name of an algorithm; names have a case (RFC 7515 section 4.1.1).
    pub fn parse(name: &str) -> Option<Algorithm> {
        match name {
            "RS256" => Some(Algorithm::Rs256),
            "ES256" => Some(Algorithm::Es256),
            "EdDSA" => Some(Algorithm::EdDsa),
            _ => None,
        }
    }
}

impl PublicKey {
    /// An RSA key of these two numbers, big-endian.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<PublicKey, &'static str> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        // A modulus one bit shorter than it should be still has all its octets.
        let bits = 8 * n.len() - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err("its modulus has less than 2048 bits, or more than 8192");
        }
        // With an exponent of 1 anybody can write a signature.
        let is_odd = e.last().is_some_and(|last| last % 2 == 1);
        if !is_odd || e == [1] || e.len() > EXPONENT_LIMIT {
            return Err("its exponent is even, 1, or very large");
        }
        Ok(PublicKey::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    /// A key on P-256. Whether the point is on the curve is checked with each
    /// signature.
    pub fn p256(point: Vec<u8>) -> Result<PublicKey, &'static str> {
        if point.len() == POINT_LEN && point.first() == Some(&UNCOMPRESSED) {
            Ok(PublicKey::P256(point))
        } else {
            Err("it is no uncompressed point on P-256")
        }
    }

    /// The same by its coordinates, which have all their octets (RFC 7518 section
    /// 6.2.1.2).
    pub fn p256_at(x: &[u8], y: &[u8]) -> Result<PublicKey, &'static str> {
        if x.len() != y.len() {
            return Err("one of its coordinates is too short");
        }
        PublicKey::p256([&[UNCOMPRESSED], x, y].concat())
    }

    /// A key for Ed25519.
    pub fn ed25519(point: Vec<u8>) -> Result<PublicKey, &'static str> {
        if point.len() == ED25519_LEN {
            Ok(PublicKey::Ed25519(point))
        } else {
            Err("it has not the 32 octets of Ed25519")
        }
    }

    /// The algorithm of this kind of key.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            PublicKey::Rsa { .. } => Algorithm::Rs256,
            PublicKey::P256(_) => Algorithm::Es256,
            PublicKey::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Whether the owner of this key signed the text.
    pub fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, text, signature)
                .is_ok(),
            // `FIXED`: two numbers of 32 octets side by side, as RFC 7518 section 3.4
            // wants them, and not in ASN.1, which has more than one way to write them.
            PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(text, signature)
                .is_ok(),
            PublicKey::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(text, signature).is_ok()
            }
        }
    }
}

fn without_zeros(mut number: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = number {
        number = rest;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::json::from_base64url;

    fn octets(text: &str) -> Vec<u8> {
        from_base64url(text).unwrap()
    }

    /// The examples of RFC 7515 appendix A.2 and A.3, and RFC 8037 appendix A.4.
    fn examples() -> [(PublicKey, &'static str); 3] {
        let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPM\
            EzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63k\
            paSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4\
            LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
        let x = octets("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        let y = octets("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let point = octets("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        [
            (
                PublicKey::rsa(&octets(n), &octets("AQAB")).unwrap(),
                "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leG\
                FtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJb\
                u3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFd\
                iuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--\
                xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5\
                AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                PublicKey::p256_at(&x, &y).unwrap(),
                "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leG\
                FtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDx\
                w5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                PublicKey::ed25519(point).unwrap(),
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt\
                7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ]
    }

    #[test]
    fn the_signatures_of_the_rfcs_are_right_and_each_is_of_its_own_key_and_text_only() {
        let examples = examples();
        for (at, (_, example)) in examples.iter().enumerate() {
            let (text, signature) = example.rsplit_once('.').unwrap();
            let signature = octets(signature);
            for (other, (key, _)) in examples.iter().enumerate() {
                assert_eq!(key.has_signed(text.as_bytes(), &signature), at == other);
                assert!(!key.has_signed(&text.as_bytes()[1..], &signature));
                assert!(!key.has_signed(text.as_bytes(), &signature[1..]));
                assert!(!key.has_signed(text.as_bytes(), b""));
            }
        }
    }

    /// Some programs took a signature of zeros for one of any text (CVE-2022-21449).
    #[test]
    fn a_signature_of_zeros_is_wrong() {
        for (key, _) in examples() {
            for len in [0, 32, 64, 256] {
                assert!(!key.has_signed(b"text", &vec![0; len]), "{key:?}");
            }
        }
    }

    /// RFC 8725 section 3.4: a point that is on no curve, or in infinity, is no key.
    #[test]
    fn a_key_that_is_not_on_its_curve_has_signed_nothing() {
        let (_, example) = &examples()[1];
        let (text, signature) = example.rsplit_once('.').unwrap();
        for point in [[0; 32], [1; 32], [255; 32]] {
            let key = PublicKey::p256_at(&point, &point).unwrap();
            assert!(!key.has_signed(text.as_bytes(), &octets(signature)));
        }
    }

    #[test]
    fn an_rsa_key_has_2048_bits_and_one_less_is_too_few() {
        let e = [1, 0, 1];
        let n =
            |bits: u32, len: usize| [&[u8::MAX >> (8 - bits)][..], &vec![255; len - 1]].concat();
        assert!(PublicKey::rsa(&n(8, 256), &e).is_ok());
        assert!(PublicKey::rsa(&n(7, 256), &e).is_err(), "2047 bits");
        assert!(PublicKey::rsa(&n(8, 128), &e).is_err());
        assert!(PublicKey::rsa(&n(8, 1024), &e).is_ok());
        assert!(PublicKey::rsa(&n(1, 1025), &e).is_err());
        assert!(PublicKey::rsa(&[], &e).is_err() && PublicKey::rsa(&[0; 256], &e).is_err());
        // Some programs write a zero in front, as ASN.1 has it.
        let with_zero = PublicKey::rsa(&[&[0], &n(8, 256)[..]].concat(), &[0, 1, 0, 1]);
        assert_eq!(with_zero, PublicKey::rsa(&n(8, 256), &e));
    }

    #[test]
    fn an_exponent_that_makes_signatures_worthless_is_refused() {
        for e in [&[][..], &[0], &[1], &[0, 1], &[2], &[1, 0, 0, 0, 1]] {
            assert!(PublicKey::rsa(&[255; 256], e).is_err(), "{e:?}");
        }
        assert!(PublicKey::rsa(&[255; 256], &[3]).is_ok());
    }

    #[test]
    fn points_have_their_length() {
        assert!(PublicKey::p256_at(&[1; 32], &[1; 32]).is_ok());
        for (x, y) in [(31, 32), (32, 31), (31, 31), (33, 31), (48, 48), (0, 0)] {
            assert!(PublicKey::p256_at(&vec![1; x], &vec![1; y]).is_err(), "{x} {y}");
        }
        assert!(PublicKey::p256([&[2][..], &[1; 32]].concat()).is_err(), "compressed");
        assert!(PublicKey::ed25519(vec![1; 31]).is_err());
    }
}
