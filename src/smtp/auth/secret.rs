//! A secret: what proves who somebody is, as a file keeps it.
//!
//! In: `{SCHEME}secret` from a users file, or a password. Out: a [`Secret`]; of a
//! password, the [`Keys`] of SCRAM and the [`Record`] that tells whether a password
//! is right without being the password.
//!
//! Not done here: whose secret it is (`users.rs`), the syntax of the file
//! (`store/users.rs`), and wiping secrets from memory.
//!
//! Book: docs/11-auth.md.

use std::fmt::{self, Debug, Display, Formatter};
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// How often a guess is hashed: RFC 7677 section 4 asks for at least this, and
/// Dovecot uses and demands it too.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not 0");

/// More would cost this server about a second for each guess of a stranger.
const MOST_ITERATIONS: NonZeroU32 = NonZeroU32::new(1_000_000).expect("a million is not 0");

/// Octets of salt in a new record. Dovecot takes as many.
pub const SALT_LEN: usize = 16;

/// Octets of salt we can make up for a name that nobody has.
const MOST_SALT: usize = 32;

/// A key or hash of SHA-256.
pub type Key = [u8; 32];

/// What a users file stores for one name.
#[derive(Clone)]
pub enum Secret {
    /// `{PLAIN}`: the password as it is, never empty.
    Plain(String),
    /// `{SCRAM-SHA-256}`: what is left when the password is thrown away.
    Scram(Record),
}

/// A SCRAM record (RFC 5802 section 3, RFC 7677). Whoever steals it can still
/// not log in: the proof takes a key of which only the hash is here. But one
/// who has it can try passwords, at `iterations` hashes for each.
#[derive(Clone)]
pub struct Record {
    /// How often a password is hashed.
    pub iterations: NonZeroU32,
    /// What is hashed with it, so that no two records of one password are alike.
    pub salt: Vec<u8>,
    /// The hash of the key that a client proves to have.
    pub stored_key: Key,
    /// The key by which the server proves that it knows this record.
    pub server_key: Key,
}

/// Why a text is no secret. Never shows the text, which may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretError {
    /// No `{SCHEME}` in front, or one that we do not know.
    BadScheme,
    /// Nothing after `{PLAIN}`, or a control character, which no client can send.
    BadPassword,
    /// Not `iterations,salt,StoredKey,ServerKey`.
    BadScram,
    /// The number of iterations is too small to protect, or too large to serve.
    BadIterations,
}

impl Secret {
    /// Reads `{SCHEME}secret`, as `doveadm pw` prints it. The scheme is taken in
    /// any case; `{CLEARTEXT}` is another name of `{PLAIN}`.
    pub fn parse(text: &str) -> Result<Secret, SecretError> {
        let after_brace = text.strip_prefix('{').ok_or(SecretError::BadScheme)?;
        let (scheme, secret) = after_brace.split_once('}').ok_or(SecretError::BadScheme)?;
        match scheme.to_ascii_uppercase().as_str() {
            "PLAIN" | "CLEARTEXT" if secret.is_empty() || secret.contains(char::is_control) => {
                Err(SecretError::BadPassword)
            }
            "PLAIN" | "CLEARTEXT" => Ok(Secret::Plain(secret.to_owned())),
            "SCRAM-SHA-256" => Record::parse(secret).map(Secret::Scram),
            _ => Err(SecretError::BadScheme),
        }
    }

    /// A record for a new password. The salt is random, of [`SALT_LEN`] octets.
    pub fn scram(password: &str, salt: &[u8]) -> Secret {
        Secret::Scram(Record::derive(password.as_bytes(), salt, ITERATIONS))
    }

    /// The text that [`Secret::parse`] reads. For a users file, never for a log:
    /// that is why it is not called `to_string`.
    pub fn reveal(&self) -> String {
        match self {
            Secret::Plain(password) => format!("{{PLAIN}}{password}"),
            Secret::Scram(record) => {
                let [salt, stored_key, server_key] =
                    [record.salt.as_slice(), &record.stored_key, &record.server_key]
                        .map(|octets| BASE64.encode(octets));
                format!("{{SCRAM-SHA-256}}{},{salt},{stored_key},{server_key}", record.iterations)
            }
        }
    }
}

impl Record {
    fn parse(text: &str) -> Result<Record, SecretError> {
        let parts: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored_key, server_key] = parts.as_slice() else {
            return Err(SecretError::BadScram);
        };
        let iterations: u32 = iterations.parse().map_err(|_| SecretError::BadScram)?;
        let salt = BASE64.decode(salt).map_err(|_| SecretError::BadScram)?;
        if salt.is_empty() || salt.len() > MOST_SALT {
            return Err(SecretError::BadScram);
        }
        Ok(Record {
            iterations: NonZeroU32::new(iterations)
                .filter(|number| (ITERATIONS..=MOST_ITERATIONS).contains(number))
                .ok_or(SecretError::BadIterations)?,
            salt,
            stored_key: key(stored_key).ok_or(SecretError::BadScram)?,
            server_key: key(server_key).ok_or(SecretError::BadScram)?,
        })
    }

    /// From a password to its record.
    pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Record {
        let Keys { stored_key, server_key, .. } = Keys::derive(password, salt, iterations);
        Record { iterations, salt: salt.to_vec(), stored_key, server_key }
    }
}

/// What SCRAM makes of a password (RFC 5802 section 3). The client has all three, the
/// server the last two.
pub struct Keys {
    /// What the client proves to have.
    pub client_key: Key,
    /// Its hash.
    pub stored_key: Key,
    /// What the server proves to have.
    pub server_key: Key,
}

impl Keys {
    /// One PBKDF2, which is slow on purpose, and then nearly nothing.
    pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Keys {
        let mut salted: Key = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let stored_key = sha256(&client_key);
        Keys { client_key, stored_key, server_key: hmac_sha256(&salted, b"Server Key") }
    }
}

/// HMAC with SHA-256 (RFC 2104).
pub fn hmac_sha256(key: &[u8], text: &[u8]) -> Key {
    octets(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text))
}

/// SHA-256.
pub fn sha256(text: &[u8]) -> Key {
    octets(digest::digest(&digest::SHA256, text))
}

/// A hash as octets.
pub fn octets(hash: impl AsRef<[u8]>) -> Key {
    hash.as_ref().try_into().expect("SHA-256 gives 32 octets")
}

fn key(text: &str) -> Option<Key> {
    BASE64.decode(text).ok()?.try_into().ok()
}

// By hand, so that no `{:?}` in a log line or a failed test ever shows a secret.
impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Plain(hidden)",
            Secret::Scram(_) => "Scram(hidden)",
        })
    }
}

impl Debug for Record {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Record").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Display for SecretError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            SecretError::BadScheme => f.write_str("expected {PLAIN} or {SCRAM-SHA-256}"),
            SecretError::BadPassword => {
                f.write_str("expected a password after {PLAIN}, without control characters")
            }
            SecretError::BadScram => f.write_str(
                "expected iterations,salt,StoredKey,ServerKey after {SCRAM-SHA-256}, \
                 as `doveadm pw -s SCRAM-SHA-256` prints it",
            ),
            SecretError::BadIterations => {
                write!(f, "expected {ITERATIONS} to {MOST_ITERATIONS} iterations")
            }
        }
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        let scram = |text: &str| format!("{{SCRAM-SHA-256}}{text}");
        let key = BASE64.encode([1; 32]);
        for (text, error) in [
            ("hunter2".to_owned(), SecretError::BadScheme),
            ("{hunter2".to_owned(), SecretError::BadScheme),
            ("{CRYPT}hunter2".to_owned(), SecretError::BadScheme),
            (" {PLAIN}hunter2".to_owned(), SecretError::BadScheme),
            ("{PLAIN}".to_owned(), SecretError::BadPassword),
            ("{PLAIN}hunter2\t".to_owned(), SecretError::BadPassword),
            (scram(""), SecretError::BadScram),
            (scram(&format!("4096,c2FsdA==,{key}")), SecretError::BadScram),
            (scram(&format!("4096,c2FsdA==,{key},{key},")), SecretError::BadScram),
            (scram(&format!("4096,,{key},{key}")), SecretError::BadScram),
            (
                scram(&format!("4096,{}A,{key},{key}", BASE64.encode([0; 33]))),
                SecretError::BadScram,
            ),
            (scram(&format!("4096,c2FsdA,{key},{key}")), SecretError::BadScram),
            (scram(&format!("4096,c2FsdA==,{key},c2FsdA==")), SecretError::BadScram),
            (scram(&format!("many,c2FsdA==,{key},{key}")), SecretError::BadScram),
            (scram(&format!("4095,c2FsdA==,{key},{key}")), SecretError::BadIterations),
            (scram(&format!("1000001,c2FsdA==,{key},{key}")), SecretError::BadIterations),
        ] {
            let found = Secret::parse(&text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn any_text_is_a_secret_or_none_without_a_panic() {
        fn holds(scheme: u8, text: String) -> bool {
            let schemes = ["{PLAIN}", "{SCRAM-SHA-256}4096,", "{", ""];
            let scheme = schemes[usize::from(scheme) % schemes.len()];
            match Secret::parse(&format!("{scheme}{text}")) {
                Ok(secret) => Secret::parse(&secret.reveal()).is_ok(),
                Err(_) => true,
            }
        }
        quickcheck::quickcheck(holds as fn(u8, String) -> bool);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        assert_eq!(format!("{:?}", Secret::Plain("tulip".to_owned())), "Plain(hidden)");
        let scram = Secret::scram("tulip", &[7; SALT_LEN]);
        assert_eq!(format!("{scram:?}"), "Scram(hidden)");
    }
}
