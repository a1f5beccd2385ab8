//! Tokens: what an issuer says about a user, signed (RFC 7519 in the form of RFC 7515).
//!
//! In: a token, and the time. Out: the name in it, or why it is refused. A token says
//! itself how it is signed and with which key; that is where most attacks on it begin
//! (RFC 8725 section 2). So the keys decide, and the header is only asked which of them
//! is meant; and nothing of what the token claims is read before its signature is right.
//!
//! Not done here: encrypted tokens (RFC 7516), tokens inside tokens, tokens taken back
//! before they expire (RFC 7662 would ask the issuer), and a memory of those that were
//! used: who bears a token may use it again, that is what the word means. What a scope
//! allows is not asked either: the audience says that the token is for us.
//!
//! Left to others: who of the users it is (`token.rs`), where keys come from
//! (`key_set.rs`).
//!
//! Book: docs/11-auth.md.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

use crate::smtp::auth::json::{Members, from_base64url, object};
use crate::smtp::auth::key_set::KeySet;
use crate::smtp::auth::public_key::Algorithm;

/// How far the issuer's clock and ours may be apart (RFC 7519 section 4.1.4: no more
/// than a few minutes), in seconds.
const LEEWAY: f64 = 60.0;

/// What a token may say that it is, in any case, or nothing. RFC 9068 section 4 wants
/// the first or the second; issuers older than it say `JWT`. Where they do, the audience
/// alone tells an access token from what the same issuer signs for other purposes.
const TYPES: [&str; 3] = ["at+jwt", "application/at+jwt", "JWT"];

/// Whose tokens are believed, and which of them.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// `iss`, as the issuer writes it.
    pub url: String,
    /// `aud`: who we are to the issuer.
    pub audience: String,
    /// What its signatures are checked with.
    pub keys: KeySet,
}

/// Who a token says somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// An address that the issuer does not call unverified.
    Email(String),
    /// The issuer's own name for somebody, where it says no address. It has a case.
    Subject(String),
}

/// Why a token was refused, for the log: nothing of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is none where one should be.
    NoToken,
    /// Not three parts, of which two are JSON in base64url.
    Form,
    /// `alg` is none of ours.
    Algorithm,
    /// `typ` says that it is something else.
    Type,
    /// `crit` or `cty` demand what we do not know.
    Critical,
    /// No key of the set has this `alg` and `kid`.
    Key,
    /// Not signed by the key, or changed since.
    Signature,
    /// By somebody else.
    Issuer,
    /// For somebody else.
    Audience,
    /// It has expired, or does not say when it does.
    Expired,
    /// It is not valid yet.
    Early,
    /// It says no name that could be believed.
    NoName,
    /// It says a name that is none of our users'.
    Unknown,
    /// The client wants to be somebody else.
    SomebodyElse,
}

impl Issuer {
    /// Who the token says somebody is, if it is to be believed. `now` counts seconds from
    /// 1970.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claimed, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Form)?;
        // An encrypted token has five parts.
        if claims.contains('.') {
            return Err(Refusal::Form);
        }
        let header = part(header)?;
        let signature = from_base64url(signature).ok_or(Refusal::Form)?;
        self.check_signature(&header, signed.as_bytes(), &signature)?;
        let claims = part(claims)?;
        self.check_claims(&claims, now)?;
        claimed(&claims)
    }

    /// The header (RFC 7515 section 4) says how to check; the keys say whether that is
    /// allowed. It may bring a key along, or say where one is (`jwk`, `jku`, `x5c`,
    /// `x5u`): nobody looks.
    fn check_signature(
        &self,
        header: &Members,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        // We know no extensions, so none can be demanded (section 4.1.11). `cty` is said
        // where a token is inside (RFC 7519 section 5.2).
        if header.contains_key("crit") || header.contains_key("cty") {
            return Err(Refusal::Critical);
        }
        let is_type = |value: &Value| {
            let found = value.as_str().unwrap_or_default();
            TYPES.iter().any(|known| known.eq_ignore_ascii_case(found))
        };
        if !header.get("typ").is_none_or(is_type) {
            return Err(Refusal::Type);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(Refusal::Algorithm)?;
        let name = match header.get("kid") {
            None => None,
            Some(name) => Some(name.as_str().ok_or(Refusal::Key)?),
        };
        let mut keys = self.keys.fitting(algorithm, name).peekable();
        if keys.peek().is_none() {
            return Err(Refusal::Key);
        }
        // This line is what all else rests on.
        if keys.any(|key| key.has_signed(signed, signature)) {
            Ok(())
        } else {
            Err(Refusal::Signature)
        }
    }

    /// From whom, for whom and until when (RFC 7519 section 4.1).
    fn check_claims(&self, claims: &Members, now: i64) -> Result<(), Refusal> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.url) {
            return Err(Refusal::Issuer);
        }
        let is_us = |value: &Value| value.as_str() == Some(&self.audience);
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(is_us),
            Some(one) => is_us(one),
            None => false,
        };
        if !is_for_us {
            return Err(Refusal::Audience);
        }
        // Seconds since 1970, not always whole ones (section 2).
        let now = now as f64;
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or(Refusal::Expired)?;
        if now >= expires + LEEWAY {
            return Err(Refusal::Expired);
        }
        let begins = |value: &Value| value.as_f64().is_some_and(|begin| now + LEEWAY >= begin);
        if !claims.get("nbf").is_none_or(begins) {
            return Err(Refusal::Early);
        }
        Ok(())
    }
}

/// A part of a token that is JSON.
fn part(text: &str) -> Result<Members, Refusal> {
    from_base64url(text).and_then(|text| object(&text)).ok_or(Refusal::Form)
}

/// The name. Whoever can write any address into a profile would have any name, so one
/// that the issuer calls unverified is nobody's, and no second name is tried in its place.
/// An issuer that says nothing of it is believed: whoever names it has to know it.
fn claimed(claims: &Members) -> Result<Claimed, Refusal> {
    let is_verified = match claims.get("email_verified") {
        None | Some(Value::Bool(true)) => true,
        // Some issuers write it as a text.
        Some(other) => other.as_str() == Some("true"),
    };
    match (claims.get("email"), claims.get("sub")) {
        (Some(Value::String(email)), _) if is_verified => Ok(Claimed::Email(email.clone())),
        (Some(_), _) => Err(Refusal::NoName),
        (None, Some(Value::String(subject))) => Ok(Claimed::Subject(subject.clone())),
        (None, _) => Err(Refusal::NoName),
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Refusal::NoToken => "there is no token of the kind Bearer",
            Refusal::Form => "the token has not the form of a signed JWT",
            Refusal::Algorithm => "the token is not signed by RS256, ES256 or EdDSA",
            Refusal::Type => "the token says that it is no access token",
            Refusal::Critical => "the token demands an extension",
            Refusal::Key => "the token is signed by a key that is not in the set",
            Refusal::Signature => "the signature of the token is wrong",
            Refusal::Issuer => "the token is from another issuer",
            Refusal::Audience => "the token is for another audience",
            Refusal::Expired => "the token has expired",
            Refusal::Early => "the token is not valid yet",
            Refusal::NoName => "the token says no name, or an unverified one",
            Refusal::Unknown => "the token is that of somebody who is no user here",
            Refusal::SomebodyElse => "the token is that of another user",
        })
    }
}

/// What is public here makes tokens for the tests of other files.
#[cfg(test)]
pub mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
    use ring::hmac;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING as ES256, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    };

    /// In seconds from 1970.
    pub const NOW: i64 = 1_800_000_000;
    /// Of a token that is good now.
    pub const CLAIMS: &str =
        r#"{"iss":"https://login.example","aud":"mail","exp":1800000001,"sub":"ann"}"#;

    /// An issuer with a key of each kind, and no secrets at all.
    pub struct Signer {
        ed25519: Ed25519KeyPair,
        p256: EcdsaKeyPair,
        rsa: RsaKeyPair,
    }

    impl Signer {
        /// It has not signed anything yet.
        pub fn with_new_keys() -> Signer {
            let random = SystemRandom::new();
            let pem = include_str!("../../../tests/tls/key.pem");
            let der: String = pem.lines().filter(|line| !line.contains(' ')).collect();
            let p256 = EcdsaKeyPair::generate_pkcs8(&ES256, &random).unwrap();
            Signer {
                ed25519: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap(),
                p256: EcdsaKeyPair::from_pkcs8(&ES256, p256.as_ref(), &random).unwrap(),
                rsa: RsaKeyPair::from_pkcs8(&BASE64.decode(der).unwrap()).unwrap(),
            }
        }

        /// What the issuer publishes.
        pub fn keys(&self) -> String {
            let (_, point) = self.p256.public_key().as_ref().split_first().unwrap();
            let (x, y) = point.split_at(32);
            let rsa = self.rsa_numbers();
            format!(
                r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{}"}},
                    {{"kty":"EC","crv":"P-256","kid":"ec","x":"{}","y":"{}"}},
                    {{"kty":"RSA","kid":"rsa","n":"{}","e":"{}"}}]}}"#,
                base64url(self.ed25519.public_key()),
                base64url(x),
                base64url(y),
                base64url(rsa.n),
                base64url(rsa.e),
            )
        }

        fn rsa_numbers(&self) -> RsaPublicKeyComponents<Vec<u8>> {
            self.rsa.public().into()
        }

        /// As a server knows it.
        pub fn issuer(&self) -> Issuer {
            let (keys, _) = KeySet::parse(self.keys().as_bytes()).unwrap();
            Issuer { url: "https://login.example".to_owned(), audience: "mail".to_owned(), keys }
        }

        /// A token with whatever in it, signed by the key for the algorithm that is
        /// meant, whatever the header says.
        pub fn sign(&self, by: Algorithm, header: &str, claims: &str) -> String {
            let signed = format!("{}.{}", base64url(header), base64url(claims));
            let text = signed.as_bytes();
            let signature = match by {
                Algorithm::EdDsa => self.ed25519.sign(text).as_ref().to_vec(),
                Algorithm::Es256 => {
                    self.p256.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec()
                }
                Algorithm::Rs256 => {
                    let mut signature = vec![0; self.rsa.public().modulus_len()];
                    let random = SystemRandom::new();
                    self.rsa.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).unwrap();
                    signature
                }
            };
            format!("{signed}.{}", base64url(signature))
        }

        /// One that is good, with these claims.
        pub fn token(&self, claims: &str) -> String {
            self.sign(Algorithm::EdDsa, r#"{"alg":"EdDSA"}"#, claims)
        }
    }

    fn base64url(octets: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(octets)
    }

    fn subject(name: &str) -> Result<Claimed, Refusal> {
        Ok(Claimed::Subject(name.to_owned()))
    }

    /// What a token with these claims comes to.
    fn claims(claims: &str) -> Result<Claimed, Refusal> {
        let signer = Signer::with_new_keys();
        signer.issuer().verify(&signer.token(claims), NOW)
    }

    /// `CLAIMS` with one part of it replaced.
    fn with(old: &str, new: &str) -> Result<Claimed, Refusal> {
        assert!(CLAIMS.contains(old));
        claims(&CLAIMS.replace(old, new))
    }

    #[test]
    fn each_algorithm_is_checked_by_its_own_key() {
        let signer = Signer::with_new_keys();
        let issuer = signer.issuer();
        for (by, header) in [
            (Algorithm::EdDsa, r#"{"alg":"EdDSA"}"#),
            (Algorithm::EdDsa, r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#),
            (Algorithm::Es256, r#"{"alg":"ES256","typ":"application/at+jwt"}"#),
            (Algorithm::Rs256, r#"{"alg":"RS256","typ":"jwt","kid":"rsa"}"#),
            (Algorithm::Rs256, r#"{"typ":"AT+JWT","x":{"alg":"none"},"alg":"RS256"}"#),
        ] {
            let token = signer.sign(by, header, CLAIMS);
            assert_eq!(issuer.verify(&token, NOW), subject("ann"), "{header}");
        }
    }

    /// RFC 8725 sections 2.1, 3.1 and 3.2.
    #[test]
    fn no_header_chooses_another_way_to_check_than_the_key_has() {
        let signer = Signer::with_new_keys();
        let issuer = signer.issuer();
        for (by, alg, why) in [
            (Algorithm::EdDsa, r#""none""#, Refusal::Algorithm),
            (Algorithm::EdDsa, r#""None""#, Refusal::Algorithm),
            (Algorithm::EdDsa, r#""HS256""#, Refusal::Algorithm),
            (Algorithm::EdDsa, r#""eddsa""#, Refusal::Algorithm),
            (Algorithm::EdDsa, r#""""#, Refusal::Algorithm),
            (Algorithm::EdDsa, "null", Refusal::Algorithm),
            (Algorithm::EdDsa, r#"["EdDSA"]"#, Refusal::Algorithm),
            (Algorithm::Es256, r#""ES384""#, Refusal::Algorithm),
            (Algorithm::Rs256, r#""RS512""#, Refusal::Algorithm),
            (Algorithm::Rs256, r#""PS256""#, Refusal::Algorithm),
            (Algorithm::Rs256, r#""RS1""#, Refusal::Algorithm),
            (Algorithm::EdDsa, r#""ES256""#, Refusal::Signature),
            (Algorithm::Es256, r#""EdDSA""#, Refusal::Signature),
            (Algorithm::Es256, r#""RS256""#, Refusal::Signature),
            (Algorithm::EdDsa, r#""EdDSA","kid":"ec""#, Refusal::Key),
            (Algorithm::EdDsa, r#""EdDSA","kid":"../../ed""#, Refusal::Key),
            (Algorithm::EdDsa, r#""EdDSA","kid":""#.trim_end_matches('"'), Refusal::Form),
            (Algorithm::EdDsa, r#""EdDSA","kid":null"#, Refusal::Key),
            (Algorithm::EdDsa, r#""EdDSA","kid":["ed"]"#, Refusal::Key),
        ] {
            let token = signer.sign(by, &format!(r#"{{"alg":{alg}}}"#), CLAIMS);
            assert_eq!(issuer.verify(&token, NOW), Err(why), "{alg}");
        }
        let unsigned = format!("{}.{}.", base64url(r#"{"alg":"none"}"#), base64url(CLAIMS));
        assert_eq!(issuer.verify(&unsigned, NOW), Err(Refusal::Algorithm));
        let emptied = signer.token(CLAIMS);
        let emptied = &emptied[..=emptied.rfind('.').unwrap()];
        assert_eq!(issuer.verify(emptied, NOW), Err(Refusal::Signature));
    }

    /// Key confusion: the public key, which everybody has, as the secret of an HMAC.
    #[test]
    fn a_public_key_is_no_secret_to_sign_with() {
        let signer = Signer::with_new_keys();
        let signed = format!("{}.{}", base64url(r#"{"alg":"HS256"}"#), base64url(CLAIMS));
        let keys = signer.keys();
        let public = signer.rsa_numbers().n;
        for secret in [keys.as_bytes(), &public, b""] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let token = format!("{signed}.{}", base64url(hmac::sign(&key, signed.as_bytes())));
            assert_eq!(signer.issuer().verify(&token, NOW), Err(Refusal::Algorithm));
        }
    }

    /// RFC 8725 sections 2.9 and 3.10.
    #[test]
    fn a_key_that_a_token_brings_along_is_not_believed() {
        let signer = Signer::with_new_keys();
        let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let key = base64url(stranger.public_key());
        for place in [
            format!(r#""jwk":{{"kty":"OKP","crv":"Ed25519","x":"{key}"}}"#),
            r#""jku":"https://evil.example/keys.json""#.to_owned(),
            r#""x5u":"https://evil.example/cert.pem""#.to_owned(),
            r#""x5c":["MIIB"],"kid":"ed""#.to_owned(),
        ] {
            let header = base64url(format!(r#"{{"alg":"EdDSA",{place}}}"#));
            let signed = format!("{header}.{}", base64url(CLAIMS));
            let token = format!("{signed}.{}", base64url(stranger.sign(signed.as_bytes())));
            assert_eq!(signer.issuer().verify(&token, NOW), Err(Refusal::Signature), "{place}");
        }
    }

    /// RFC 8725 sections 2.8 and 3.11: what the issuer signs for another purpose.
    #[test]
    fn what_is_no_access_token_or_demands_more_is_refused() {
        let signer = Signer::with_new_keys();
        for (more, why) in [
            (r#""typ":"logout+jwt""#, Refusal::Type),
            (r#""typ":"dpop+jwt""#, Refusal::Type),
            (r#""typ":"secevent+jwt""#, Refusal::Type),
            (r#""typ":"id_token""#, Refusal::Type),
            (r#""typ":"""#, Refusal::Type),
            (r#""typ":null"#, Refusal::Type),
            (r#""typ":["JWT"]"#, Refusal::Type),
            (r#""crit":["exp"],"exp":1"#, Refusal::Critical),
            (r#""crit":["b64"],"b64":false"#, Refusal::Critical),
            (r#""crit":[]"#, Refusal::Critical),
            (r#""cty":"JWT""#, Refusal::Critical),
            (r#""alg":"EdDSA""#, Refusal::Form),
            (r#""\u0061lg":"none""#, Refusal::Form),
        ] {
            let header = format!(r#"{{"alg":"EdDSA",{more}}}"#);
            let token = signer.sign(Algorithm::EdDsa, &header, CLAIMS);
            assert_eq!(signer.issuer().verify(&token, NOW), Err(why), "{more}");
        }
    }

    /// RFC 8725 sections 2.7, 3.8 and 3.9.
    #[test]
    fn a_token_is_from_our_issuer_and_for_us() {
        const ISS: &str = "https://login.example";
        for issuer in
            ["https://evil.example", "https://login.example/", "https://LOGIN.example", ""]
        {
            assert_eq!(with(ISS, issuer), Err(Refusal::Issuer), "{issuer}");
        }
        assert_eq!(
            with(r#""https://login.example""#, r#"["https://login.example"]"#),
            Err(Refusal::Issuer)
        );
        assert_eq!(with(r#""iss":"#, r#""was":"#), Err(Refusal::Issuer));
        for audience in [
            r#""other""#,
            r#""Mail""#,
            r#""mail ""#,
            "[]",
            "null",
            r#"{"mail":1}"#,
            r#"[["mail"]]"#,
        ] {
            assert_eq!(with(r#""mail""#, audience), Err(Refusal::Audience), "{audience}");
        }
        assert_eq!(with(r#""aud":"#, r#""was":"#), Err(Refusal::Audience));
        assert_eq!(with(r#""mail""#, r#"["other","mail"]"#), subject("ann"));
    }

    #[test]
    fn a_token_is_good_from_nbf_to_exp_and_a_minute_on_either_side() {
        let is_good = |old, new: &str| with(old, new) == subject("ann");
        const EXP: &str = "1800000001";
        assert!(is_good(EXP, "1799999941") && is_good(EXP, "1799999940.5"));
        assert_eq!(with(EXP, "1799999940"), Err(Refusal::Expired));
        for exp in ["0", "-1", "\"1800000001\"", "null", "[1800000001]", "true"] {
            assert_eq!(with(EXP, exp), Err(Refusal::Expired), "{exp}");
        }
        assert_eq!(with(r#""exp":"#, r#""was":"#), Err(Refusal::Expired));
        let nbf = |begin: &str| format!(r#""nbf":{begin},"sub""#);
        assert!(is_good(r#""sub""#, &nbf("1800000060")) && is_good(r#""sub""#, &nbf("0")));
        for begin in ["1800000061", "1e300", "\"0\"", "null"] {
            assert_eq!(with(r#""sub""#, &nbf(begin)), Err(Refusal::Early), "{begin}");
        }
        // A clock that nobody has set yet takes no token at all.
        let signer = Signer::with_new_keys();
        let token = signer.token(&CLAIMS.replace(EXP, "9000000000"));
        assert_eq!(signer.issuer().verify(&token, i64::MAX), Err(Refusal::Expired));
    }

    #[test]
    fn the_name_is_a_verified_address_or_else_the_subject() {
        let email = |name: &str| Ok(Claimed::Email(name.to_owned()));
        const SUB: &str = r#""sub":"ann""#;
        for (name, expected) in [
            (r#""sub":"ann","email":"bob@x.example""#, email("bob@x.example")),
            (r#""email":"a@x.example","email_verified":true"#, email("a@x.example")),
            (r#""email":"a@x.example","email_verified":"true""#, email("a@x.example")),
            (r#""sub":"ann","email":"a@x.example","email_verified":false"#, Err(Refusal::NoName)),
            (r#""sub":"ann","email":"a@x.example","email_verified":"false""#, Err(Refusal::NoName)),
            (r#""sub":"ann","email":"a@x.example","email_verified":1"#, Err(Refusal::NoName)),
            (r#""sub":"ann","email":"a@x.example","email_verified":null"#, Err(Refusal::NoName)),
            (r#""sub":"ann","email":null"#, Err(Refusal::NoName)),
            (r#""sub":"ann","email":["ann"]"#, Err(Refusal::NoName)),
            (r#""sub":7"#, Err(Refusal::NoName)),
            (r#""was":"ann""#, Err(Refusal::NoName)),
            (r#""sub":"ann","sub":"ann""#, Err(Refusal::Form)),
        ] {
            assert_eq!(with(SUB, name), expected, "{name}");
        }
    }

    #[test]
    fn other_forms_than_three_parts_in_one_spelling_are_refused() {
        let signer = Signer::with_new_keys();
        let issuer = signer.issuer();
        let token = signer.token(CLAIMS);
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!() };
        let spellings = [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            format!("{token}."),
            format!(".{token}"),
            format!("{token}="),
            format!("{token}\n"),
            format!(" {token}"),
            format!("{header}=.{claims}.{signature}"),
            format!("{header}.{signature}"),
            // Encrypted tokens have five parts, and JSON has its own form of signatures.
            format!("{header}.{claims}.{claims}.{claims}.{signature}"),
            format!(r#"{{"payload":"{claims}","protected":"{header}","signature":"{signature}"}}"#),
            format!("{}.{claims}.{signature}", base64url("[]")),
            format!("{}.{claims}.{signature}", base64url("EdDSA")),
        ];
        for spelling in &spellings {
            assert_eq!(issuer.verify(spelling, NOW), Err(Refusal::Form), "{spelling}");
        }
        // One inside another, signed twice.
        let nested = signer.sign(Algorithm::EdDsa, r#"{"alg":"EdDSA"}"#, &token);
        assert_eq!(issuer.verify(&nested, NOW), Err(Refusal::Form));
        let utf16: Vec<u8> = CLAIMS.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let signed = format!("{header}.{}", base64url(utf16));
        let signature = base64url(signer.ed25519.sign(signed.as_bytes()));
        assert_eq!(issuer.verify(&format!("{signed}.{signature}"), NOW), Err(Refusal::Form));
    }

    #[test]
    fn no_octet_of_a_token_can_be_changed_left_out_or_cut_off() {
        let signer = Signer::with_new_keys();
        let issuer = signer.issuer();
        for (by, alg) in
            [(Algorithm::EdDsa, "EdDSA"), (Algorithm::Es256, "ES256"), (Algorithm::Rs256, "RS256")]
        {
            let token = signer.sign(by, &format!(r#"{{"alg":"{alg}"}}"#), CLAIMS);
            assert!(issuer.verify(&token, NOW).is_ok());
            for at in 0..token.len() {
                assert!(issuer.verify(&token[..at], NOW).is_err(), "{alg} cut at {at}");
                let (before, after) = (&token[..at], &token[at + 1..]);
                for octet in ["", "A", "B", "_", ".", "=", "\u{e9}"] {
                    let changed = format!("{before}{octet}{after}");
                    if changed != token {
                        assert!(issuer.verify(&changed, NOW).is_err(), "{alg} {octet} at {at}");
                    }
                }
            }
        }
    }
}
