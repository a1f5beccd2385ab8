//! Signs a letter (RFC 6376 section 5).
//!
//! In: a private key, and the parts of a letter in file form. Out: the field
//! `DKIM-Signature`, which goes in front of it. The form is relaxed/relaxed: it survives
//! what most servers do to a letter.
//!
//! Book: docs/16-trust.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};

use crate::trust::author::author_domain;
use crate::trust::dkim::canonical::{BodyHash, Canon};
use crate::trust::dkim::reading::Reading;
use crate::trust::dkim::signed_header;
use crate::trust::fields::{Field, fields};

/// What a reader sees, and what says how to read the rest (section 5.4.1).
const NAMES: [&str; 12] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// How long a line of base64 may be, without the blanks in front of it.
const LINE: usize = 70;

/// Signs letters of a domain.
#[derive(Debug)]
pub struct Signer {
    key: PrivateKey,
    selector: String,
}

#[derive(Debug)]
enum PrivateKey {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A letter that is read once, from its first octet to its last, to be signed then.
#[derive(Debug)]
pub struct Signing {
    reading: Reading,
    body: BodyHash,
}

impl Signer {
    /// With a private key, RSA or Ed25519, as PEM (PKCS#8, PKCS#1). The error completes
    /// "key.pem: …".
    pub fn from_pem(text: &str, selector: &str) -> Result<Signer, String> {
        let key = PrivateKey::from_pem(text).map_err(|why| {
            format!(
                "{why}; expected an RSA key of 2048 to 4096 bits or an Ed25519 key in PEM form, as \
                 openssl genpkey writes it"
            )
        })?;
        Ok(Signer { key, selector: selector.to_owned() })
    }

    /// The field `DKIM-Signature` for a letter that was read, in file form and with its
    /// line end; none if it has not exactly one author, at a domain that `is_ours`, if its
    /// header is longer than we keep, or if the system has no random numbers.
    pub fn sign(
        &self,
        letter: Signing,
        is_ours: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Option<String> {
        let author = author_domain(letter.reading.header()).ok()?;
        if !letter.reading.is_whole() || !is_ours(&author) {
            return None;
        }
        let fields = fields(letter.reading.header());
        let names = names(&fields);
        let (hashes, _) = letter.body.finish();
        let unsigned = format!(
            "DKIM-Signature: v=1; a={}; c=relaxed/relaxed; d={author};\n\ts={}; t={};\n\th={};\n\tbh={};\n\tb=",
            self.key.algorithm(),
            self.selector,
            now.as_second(),
            names.join(":\n\t "),
            BASE64.encode(hashes.first()?),
        );
        let own = Field { name: "DKIM-Signature", raw: unsigned.as_bytes() };
        let signature = self.key.sign(&signed_header(Canon::Relaxed, &fields, &names, &own))?;
        Some(unsigned + &folded(&BASE64.encode(signature)) + "\n")
    }
}

/// The fields that the letter has, each as often as it has it; and From once more, so
/// that nobody can add a second one (section 8.15).
fn names(fields: &[Field]) -> Vec<String> {
    let count = |name: &str| {
        let is_it = |field: &&Field| field.name.eq_ignore_ascii_case(name);
        fields.iter().filter(is_it).count() + usize::from(name == "From")
    };
    NAMES.iter().flat_map(|name| vec![(*name).to_owned(); count(name)]).collect()
}

/// A long word in lines: blanks inside `b=` do not count.
fn folded(word: &str) -> String {
    let (mut rest, mut lines) = (word, Vec::new());
    while !rest.is_empty() {
        // Base64 is ASCII.
        let (line, after) = rest.split_at(rest.len().min(LINE));
        lines.push(line);
        rest = after;
    }
    lines.join("\n\t ")
}

impl Default for Signing {
    fn default() -> Signing {
        Signing { reading: Reading::default(), body: BodyHash::new(Canon::Relaxed, &[None]) }
    }
}

impl Signing {
    /// Adds the next part of the letter, in file form, as it will stand in the file.
    pub fn write(&mut self, text: &[u8]) {
        if let Some(body) = self.reading.take(text) {
            self.body.write(body);
        }
    }
}

impl PrivateKey {
    fn from_pem(text: &str) -> Result<PrivateKey, &'static str> {
        let (_, block) = text.split_once("-----BEGIN ").ok_or("there is no PEM block in it")?;
        let (label, rest) = block.split_once("-----").ok_or("its PEM block is cut off")?;
        let (base64, _) = rest.split_once("-----END ").ok_or("its PEM block is cut off")?;
        if base64.contains("ENCRYPTED") || label.contains("ENCRYPTED") {
            return Err("it is encrypted, and nobody is there to type its password");
        }
        let base64: String = base64.split_whitespace().collect();
        let der = BASE64.decode(base64).map_err(|_| "what is in its PEM block is not base64")?;
        let no_rsa = |_| "it cannot be used as an RSA key";
        match label {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der).map(PrivateKey::Rsa).map_err(no_rsa),
            // PKCS#8 says itself which kind it is. Keys of openssl lack the public half.
            "PRIVATE KEY" => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
                .map(PrivateKey::Ed25519)
                .or_else(|_| RsaKeyPair::from_pkcs8(&der).map(PrivateKey::Rsa).map_err(no_rsa)),
            _ => Err("its first PEM block is no private key"),
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            PrivateKey::Rsa(_) => "rsa-sha256",
            PrivateKey::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// None if the system gives no random numbers, which RSA wants against those who
    /// measure its time.
    fn sign(&self, header: &[u8]) -> Option<Vec<u8>> {
        match self {
            PrivateKey::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let random = SystemRandom::new();
                key.sign(&RSA_PKCS1_SHA256, &random, header, &mut signature).ok()?;
                Some(signature)
            }
            PrivateKey::Ed25519(key) => {
                Some(key.sign(digest(&SHA256, header).as_ref()).as_ref().to_vec())
            }
        }
    }
}
