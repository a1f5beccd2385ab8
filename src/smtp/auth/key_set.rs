//! The keys of whoever issues tokens.
//!
//! In: the text of a file: a JWK set (RFC 7517 section 5), as an issuer publishes it, or
//! public keys in PEM form. Out: a [`KeySet`] and what was passed over in it, or one line
//! that says what was expected. A published set often holds keys for other purposes, so
//! one that does not fit is no error; a set without any that fits is.
//!
//! Not done here: fetching a set. Whoever runs this server does that, and looks at it: a
//! token that could say where its key is would be its own witness (RFC 8725 section
//! 3.10).
//!
//! Book: docs/11-auth.md.

use serde_json::Value;

use crate::smtp::auth::json::{Members, from_base64url, object};
use crate::smtp::auth::public_key::{Algorithm, PublicKey};
use crate::smtp::auth::spki;

/// Keys, each perhaps with a name.
#[derive(Debug, Clone)]
pub struct KeySet(Vec<IssuerKey>);

#[derive(Debug, Clone)]
struct IssuerKey {
    /// `kid`, if it says one. Keys in PEM form have none.
    name: Option<String>,
    key: PublicKey,
}

/// A key that is not used: its place in the file, from 1, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Counts from 1.
    pub place: usize,
    /// A part of a sentence.
    pub why: &'static str,
}

impl KeySet {
    /// Reads a file of either form. The error says what was expected.
    pub fn parse(text: &[u8]) -> Result<(KeySet, Vec<PassedOver>), &'static str> {
        let found = if text.trim_ascii_start().starts_with(b"{") {
            jwk_set(text)?
        } else {
            let keys = spki::parse(&String::from_utf8_lossy(text))?;
            keys.into_iter().map(|key| Ok(IssuerKey { name: None, key: key? })).collect()
        };
        let (mut keys, mut passed_over) = (Vec::new(), Vec::new());
        for (one, place) in found.into_iter().zip(1..) {
            match one {
                Ok(key) => keys.push(key),
                Err(why) => passed_over.push(PassedOver { place, why }),
            }
        }
        match (keys.is_empty(), passed_over.first()) {
            (false, _) => Ok((KeySet(keys), passed_over)),
            (true, Some(PassedOver { why, .. })) => Err(why),
            (true, None) => Err("expected a JWK set, or public keys in PEM form"),
        }
    }

    /// The keys with which a token may be signed that names `algorithm` and perhaps a key. A
    /// key without a name may be any.
    pub fn fitting<'a>(
        &'a self,
        algorithm: Algorithm,
        name: Option<&'a str>,
    ) -> impl Iterator<Item = &'a PublicKey> {
        let fits = move |one: &&IssuerKey| {
            let is_named = match (&one.name, name) {
                (Some(ours), Some(wanted)) => ours == wanted,
                _ => true,
            };
            is_named && one.key.algorithm() == algorithm
        };
        self.0.iter().filter(fits).map(|one| &one.key)
    }
}

/// What became of each key of a set.
type Found = Vec<Result<IssuerKey, &'static str>>;

/// `{"keys":[…]}`
fn jwk_set(text: &[u8]) -> Result<Found, &'static str> {
    let set = object(text).ok_or("expected JSON in which no member stands twice")?;
    let Some(Value::Array(keys)) = set.get("keys") else {
        return Err("expected a JWK set: {\"keys\":[…]}");
    };
    let members = |key: &Value| key.as_object().cloned();
    let keys: Option<Vec<Members>> = keys.iter().map(members).collect();
    let keys = keys.ok_or("expected an object for each key")?;
    // `d` is the private number of every kind of key (RFC 7518 section 6).
    if keys.iter().any(|key| key.contains_key("d")) {
        let why = "expected public keys only: whoever reads a private one makes tokens with it";
        return Err(why);
    }
    Ok(keys.iter().map(jwk).collect())
}

/// One key of a set (RFC 7517 section 4).
fn jwk(members: &Members) -> Result<IssuerKey, &'static str> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let octets = |name: &str| text(name).and_then(from_base64url).ok_or("a part of it is missing");
    let key = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => PublicKey::rsa(&octets("n")?, &octets("e")?)?,
        (Some("EC"), Some("P-256")) => PublicKey::p256_at(&octets("x")?, &octets("y")?)?,
        (Some("OKP"), Some("Ed25519")) => PublicKey::ed25519(octets("x")?)?,
        (Some("oct"), _) => return Err("it is symmetric: whoever has it makes tokens with it"),
        _ => return Err("it is not of RSA, P-256 or Ed25519"),
    };
    let is_use = |value: &Value| value.as_str() == Some("sig");
    let is_operation = |value: &Value| {
        let is_verify = |one: &Value| one.as_str() == Some("verify");
        value.as_array().is_some_and(|all| all.iter().any(is_verify))
    };
    // Both may be left out; if they are there, they have to be right.
    if !members.get("use").is_none_or(is_use) || !members.get("key_ops").is_none_or(is_operation) {
        return Err("it is for another use than signatures");
    }
    let is_own = |value: &Value| value.as_str().and_then(Algorithm::parse) == Some(key.algorithm());
    if !members.get("alg").is_none_or(is_own) {
        return Err("it is for another algorithm than RS256, ES256 and EdDSA");
    }
    match members.get("kid") {
        None => Ok(IssuerKey { name: None, key }),
        Some(Value::String(name)) => Ok(IssuerKey { name: Some(name.clone()), key }),
        Some(_) => Err("its kid is no text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    const P256: &str = r#""kty":"EC","crv":"P-256",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn set(keys: &[&str]) -> Result<(KeySet, Vec<PassedOver>), &'static str> {
        let keys: Vec<String> = keys.iter().map(|key| format!("{{{key}}}")).collect();
        KeySet::parse(format!(r#" {{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    fn count(set: &KeySet, algorithm: Algorithm, name: Option<&str>) -> usize {
        set.fitting(algorithm, name).count()
    }

    #[test]
    fn a_key_is_chosen_by_algorithm_and_name() {
        let (set, passed_over) = set(&[
            &format!(r#"{ED25519},"kid":"a","use":"sig","alg":"EdDSA","key_ops":["verify"]"#),
            &format!(r#"{ED25519},"kid":"b""#),
            &format!(r#"{P256},"kid":"a""#),
            P256,
        ])
        .unwrap();
        assert_eq!(passed_over, []);
        for (algorithm, name, expected) in [
            (Algorithm::EdDsa, None, 2),
            (Algorithm::EdDsa, Some("a"), 1),
            (Algorithm::EdDsa, Some("A"), 0),
            // The one without a name may be any.
            (Algorithm::Es256, Some("a"), 2),
            (Algorithm::Es256, Some("z"), 1),
            (Algorithm::Rs256, None, 0),
        ] {
            assert_eq!(count(&set, algorithm, name), expected, "{algorithm:?} {name:?}");
        }
    }

    #[test]
    fn keys_that_are_not_for_our_signatures_are_passed_over() {
        let short = format!(r#""kty":"RSA","e":"AQAB","n":"{}""#, "_".repeat(171));
        let unfit = [
            r#""kty":"oct","k":"c2VjcmV0","alg":"HS256""#.to_owned(),
            short,
            format!(r#"{ED25519},"use":"enc""#),
            format!(r#"{ED25519},"use":null"#),
            format!(r#"{ED25519},"key_ops":["sign"]"#),
            format!(r#"{ED25519},"key_ops":"verify""#),
            format!(r#"{P256},"alg":"ECDH-ES""#),
            format!(r#"{P256},"alg":"RS256""#),
            format!(r#"{P256},"alg":"HS256""#),
            format!(r#"{P256},"kid":7"#),
            P256.replace("P-256", "P-384"),
            P256.replace("\"EC\"", "\"ec\""),
            P256.replace("5a0", "5a"),
            ED25519.replace("Ed25519", "X25519"),
            ED25519.replace("URo", "URo="),
            ED25519.replace("\"x\"", "\"z\""),
            String::new(),
        ];
        for key in &unfit {
            assert!(set(&[key]).is_err(), "{key}");
        }
        let mut all: Vec<&str> = unfit.iter().map(String::as_str).collect();
        all.push(ED25519);
        let (set, passed_over) = set(&all).unwrap();
        assert_eq!((set.0.len(), passed_over.len()), (1, unfit.len()));
        assert_eq!(passed_over[0].place, 1);
    }

    #[test]
    fn what_is_no_set_of_public_keys_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("", "a JWK set, or public keys"),
            ("nothing", "a JWK set, or public keys"),
            ("{}", "{\"keys\""),
            (r#"{"keys":{}}"#, "{\"keys\""),
            (r#"{"keys":[]}"#, "a JWK set, or public keys"),
            (r#"{"keys":[1]}"#, "an object"),
            (r#"{"keys":[],"keys":[]}"#, "twice"),
            (r#"{"keys":["#, "JSON"),
            (&format!("{{{ED25519}}}"), "{\"keys\""),
            (&format!(r#"{{"keys":[{{{ED25519}}},{{{ED25519},"d":"x"}}]}}"#), "public keys only"),
            ("-----BEGIN PRIVATE KEY-----\n", "public keys only"),
        ] {
            let why = KeySet::parse(text.as_bytes()).unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }
}
