//! Names and secrets: what proves who somebody is.
//!
//! In: the entries of the users file, and a secret of this process. Out: yes or
//! no, and nothing else. A name that nobody has is asked with the same work and
//! the same kind of answers as a name that somebody has, so that nobody learns
//! from the time or the text which names exist.
//!
//! A [`Users`] holds for every name a SCRAM record (RFC 5802 section 3): it
//! tells whether a password is right without being the password. CRAM-MD5 alone
//! needs the password itself.
//!
//! Not done here: the messages of the mechanisms (`sasl.rs`), slowing and
//! counting of failures (the session), the syntax of the file
//! (`store/users.rs`), SASLprep (RFC 4013: two spellings of one accented letter
//! are two passwords), and wiping secrets from memory.
//!
//! Book: docs/11-auth.md.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display, Formatter};
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

/// How often a guess is hashed: RFC 7677 section 4 asks for at least this, and
/// Dovecot uses and demands it too.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not 0");

/// More would cost this server about a second for each guess of a stranger.
const MOST_ITERATIONS: NonZeroU32 = NonZeroU32::new(1_000_000).expect("a million is not 0");

/// Octets of salt in a new record. Dovecot takes as many.
pub const SALT_LEN: usize = 16;

/// Octets of salt we can make up for a name that nobody has.
const MOST_SALT: usize = 32;

/// A key or hash of SHA-256.
type Key = [u8; 32];

/// What a users file stores for one name.
#[derive(Clone)]
pub enum Secret {
    /// `{PLAIN}`: the password as it is, never empty.
    Plain(String),
    /// `{SCRAM-SHA-256}`: what is left when the password is thrown away.
    Scram(Scram),
}

/// A SCRAM record (RFC 5802 section 3, RFC 7677). Whoever steals it can still
/// not log in: the proof takes a key of which only the hash is here. But one
/// who has it can try passwords, at `iterations` hashes for each.
#[derive(Clone)]
pub struct Scram {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    /// The hash of the key that a client proves to have.
    stored_key: Key,
    /// The key by which the server proves that it knows this record.
    server_key: Key,
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
            "SCRAM-SHA-256" => Scram::parse(secret).map(Secret::Scram),
            _ => Err(SecretError::BadScheme),
        }
    }

    /// A record for a new password. The salt is random, of [`SALT_LEN`] octets.
    pub fn scram(password: &str, salt: &[u8]) -> Secret {
        Secret::Scram(Scram::derive(password, salt, ITERATIONS))
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

impl Scram {
    fn parse(text: &str) -> Result<Scram, SecretError> {
        let parts: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored_key, server_key] = parts.as_slice() else {
            return Err(SecretError::BadScram);
        };
        let iterations: u32 = iterations.parse().map_err(|_| SecretError::BadScram)?;
        let salt = BASE64.decode(salt).map_err(|_| SecretError::BadScram)?;
        if salt.is_empty() || salt.len() > MOST_SALT {
            return Err(SecretError::BadScram);
        }
        Ok(Scram {
            iterations: NonZeroU32::new(iterations)
                .filter(|number| (ITERATIONS..=MOST_ITERATIONS).contains(number))
                .ok_or(SecretError::BadIterations)?,
            salt,
            stored_key: key(stored_key).ok_or(SecretError::BadScram)?,
            server_key: key(server_key).ok_or(SecretError::BadScram)?,
        })
    }

    /// From a password to its record: one PBKDF2, which is slow on purpose, and
    /// then nearly nothing (RFC 5802 section 3).
    fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Scram {
        let mut salted: Key = [0; 32];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut salted);
        Scram {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&hmac_sha256(&salted, b"Client Key")),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }
}

/// Everybody who may log in.
#[derive(Clone)]
pub struct Users {
    /// By their names in lower case.
    accounts: BTreeMap<String, Account>,
    /// Made for this process and known to nobody: what is made up with it looks
    /// random, and is the same whenever it is asked for.
    process_secret: hmac::Key,
}

#[derive(Clone)]
struct Account {
    /// Only where the file says `{PLAIN}`.
    password: Option<String>,
    scram: Scram,
}

impl Users {
    /// Names and their secrets, each name once. A `{PLAIN}` user gets a SCRAM
    /// record here, at the cost of one PBKDF2 (about a millisecond).
    /// `process_secret` is random and stays the same until the process ends.
    ///
    /// What it cannot hide: after a restart the made-up salts are others, and
    /// those of `{SCRAM-SHA-256}` users are not.
    pub fn new(entries: Vec<(String, Secret)>, process_secret: [u8; 32]) -> Users {
        let process_secret = hmac::Key::new(hmac::HMAC_SHA256, &process_secret);
        let mut users = Users { accounts: BTreeMap::new(), process_secret };
        for (name, secret) in entries {
            let name = name.to_ascii_lowercase();
            let account = match secret {
                Secret::Scram(scram) => Account { password: None, scram },
                Secret::Plain(password) => {
                    let salt = users.made_up_salt(&name, SALT_LEN);
                    let scram = Scram::derive(&password, &salt, ITERATIONS);
                    Account { password: Some(password), scram }
                }
            };
            users.accounts.insert(name, account);
        }
        users
    }

    /// Whether every password is stored as it is: CRAM-MD5 works for everybody
    /// then, and else for some only.
    pub fn all_plain(&self) -> bool {
        self.accounts.values().all(|account| account.password.is_some())
    }

    /// Whether this is the password of this name. It costs one PBKDF2, whoever
    /// was asked for.
    pub fn check(&self, name: &str, password: &str) -> bool {
        let (record, is_known) = self.record(name);
        let tried = Scram::derive(password, &record.salt, record.iterations);
        self.is_same(&tried.stored_key, &record.stored_key) && is_known
    }

    /// Whether `digest` is what CRAM-MD5 makes of this challenge and the
    /// password of this name (RFC 2195 section 2). Never for a name whose
    /// password is not stored as it is.
    pub fn check_cram_md5(&self, name: &str, challenge: &str, digest: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let stand_in = BASE64.encode(self.made_up("password", &name));
        let password = self.accounts.get(&name).and_then(|account| account.password.as_deref());
        let expected = cram_md5(password.unwrap_or(&stand_in), challenge);
        self.is_same(expected.as_bytes(), digest.as_bytes()) && password.is_some()
    }

    /// Salt and iterations, which a SCRAM client must be told before it can
    /// prove anything. A name that nobody has gets some too.
    pub fn scram_parameters(&self, name: &str) -> (Vec<u8>, u32) {
        let (record, _) = self.record(name);
        (record.salt, record.iterations.get())
    }

    /// Whether the proof fits what both sides said (`AuthMessage` in RFC 5802
    /// section 3), and if so the signature that proves the server to the client.
    pub fn check_scram(&self, name: &str, said: &str, proof: &[u8; 32]) -> Option<[u8; 32]> {
        let (record, is_known) = self.record(name);
        // The proof is ClientKey XOR ClientSignature, so a second XOR undoes it.
        let mut client_key = hmac_sha256(&record.stored_key, said.as_bytes());
        for (octet, proof) in client_key.iter_mut().zip(proof) {
            *octet ^= proof;
        }
        let is_right = self.is_same(&sha256(&client_key), &record.stored_key) && is_known;
        is_right.then(|| hmac_sha256(&record.server_key, said.as_bytes()))
    }

    /// The record of this name and true, or a stand-in and false. The stand-in
    /// is made in both cases: else its time would tell them apart.
    fn record(&self, name: &str) -> (Scram, bool) {
        let name = name.to_ascii_lowercase();
        let stand_in = self.stand_in(&name);
        match self.accounts.get(&name) {
            Some(account) => (account.scram.clone(), true),
            None => (stand_in, false),
        }
    }

    /// A record that nobody has the password of. As iterations and length of
    /// the salt are shown to clients, it borrows them from one of the users,
    /// always the same for the same name.
    fn stand_in(&self, name: &str) -> Scram {
        let [a, b, c, d, ..] = self.made_up("model", name);
        let pick = u32::from_be_bytes([a, b, c, d]) as usize % self.accounts.len().max(1);
        let model = self.accounts.values().nth(pick).map(|account| &account.scram);
        let salt_len = model.map_or(SALT_LEN, |scram| scram.salt.len());
        Scram {
            iterations: model.map_or(ITERATIONS, |scram| scram.iterations),
            salt: self.made_up_salt(name, salt_len),
            stored_key: self.made_up("stored key", name),
            server_key: self.made_up("server key", name),
        }
    }

    fn made_up_salt(&self, name: &str, salt_len: usize) -> Vec<u8> {
        self.made_up("salt", name).into_iter().take(salt_len).collect()
    }

    /// Octets that nobody can tell from random ones, for a purpose and a name.
    fn made_up(&self, purpose: &str, name: &str) -> Key {
        octets(hmac::sign(&self.process_secret, format!("{purpose} {name}").as_bytes()))
    }

    /// Compares in a time that does not depend on where the two differ: `verify`
    /// does, and what it compares are two hashes that no client can foresee.
    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        let tag = hmac::sign(&self.process_secret, other);
        hmac::verify(&self.process_secret, one, tag.as_ref()).is_ok()
    }
}

/// HMAC (RFC 2104) with MD5 of the challenge under the password, as lower-case
/// hexadecimal digits.
pub fn cram_md5(password: &str, challenge: &str) -> String {
    const BLOCK: usize = 64; // of MD5, in octets
    let mut key = password.as_bytes().to_vec();
    if key.len() > BLOCK {
        key = md5::compute(&key).to_vec();
    }
    key.resize(BLOCK, 0);
    let padded = |pad: u8| key.iter().map(|octet| octet ^ pad).collect::<Vec<u8>>();
    let inner = md5::compute([&padded(0x36), challenge.as_bytes()].concat());
    let outer = md5::compute([padded(0x5c).as_slice(), inner.as_slice()].concat());
    format!("{outer:x}")
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> Key {
    octets(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text))
}

fn sha256(text: &[u8]) -> Key {
    octets(digest::digest(&digest::SHA256, text))
}

fn octets(hash: impl AsRef<[u8]>) -> Key {
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

impl Debug for Scram {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Scram").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Debug for Users {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_set().entries(self.accounts.keys()).finish()
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

    /// The record of RFC 7677 section 3: the password is `pencil`.
    const PENCIL: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn users(entries: &[(&str, &str)]) -> Users {
        let entry =
            |(name, secret): &(&str, &str)| ((*name).to_owned(), Secret::parse(secret).unwrap());
        Users::new(entries.iter().map(entry).collect(), [7; 32])
    }

    #[test]
    fn a_password_opens_its_own_account_however_it_is_stored() {
        let users = users(&[("ann", "{PLAIN}tulip"), ("user", PENCIL)]);
        for (name, password, is_right) in [
            ("ann", "tulip", true),
            ("ANN", "tulip", true),
            ("ann", "Tulip", false),
            ("ann", "", false),
            ("ann", "pencil", false),
            ("user", "pencil", true),
            ("user", "tulip", false),
            ("bob", "tulip", false),
            ("", "", false),
        ] {
            assert_eq!(users.check(name, password), is_right, "{name} {password}");
        }
        assert_eq!(users.accounts.keys().collect::<Vec<_>>(), ["ann", "user"]);
    }

    #[test]
    fn what_doveadm_made_is_read_and_what_we_make_is_read_back() {
        // doveadm pw -s SCRAM-SHA-256 -p secret
        let from_doveadm = "{SCRAM-SHA-256}4096,G53IP8bJimlkNWNCz5ZErg==,\
            rwuhnUV1ba1PX2YtAhp6QwP2jrLHxnfWUaT3gLAXwwc=,LGGe8vnSH2i6F39vS/9jRIz4RBW1IPtNt6krZotStL4=";
        assert!(users(&[("ann", from_doveadm)]).check("ann", "secret"));
        assert_eq!(Secret::parse(from_doveadm).unwrap().reveal(), from_doveadm);

        let ours = Secret::scram("gr\u{fc}n", &[9; SALT_LEN]).reveal();
        assert!(users(&[("ann", &ours)]).check("ann", "gr\u{fc}n"));
        assert_eq!(Secret::parse("{cleartext}a}b,c").unwrap().reveal(), "{PLAIN}a}b,c");
    }

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

    /// The example of RFC 2195 section 2, and one of RFC 2202 section 2.
    #[test]
    fn cram_md5_is_hmac_md5() {
        let challenge = "<1896.697170952@postoffice.reston.mci.net>";
        let digest = "b913a602c7eda7a495b4e6e7334d3890";
        assert_eq!(cram_md5("tanstaaftanstaaf", challenge), digest);

        // A key longer than a block of 64 octets is hashed first.
        assert_eq!(cram_md5(&"*".repeat(80), "x"), "525e63865bf65f63ad755806591e6a23");
        assert_eq!(
            cram_md5("Jefe", "what do ya want for nothing?"),
            "750c783e6ab0b503eaa86e310a5db738"
        );

        let all_plain = users(&[("tim", "{PLAIN}tanstaaftanstaaf")]);
        assert!(all_plain.check_cram_md5("Tim", challenge, digest));
        assert!(!all_plain.check_cram_md5("tim", "<2@mci.net>", digest));
        assert!(!all_plain.check_cram_md5("tim", challenge, ""));
        assert!(!all_plain.check_cram_md5("tom", challenge, digest));
    }

    #[test]
    fn cram_md5_works_for_all_only_if_every_password_is_stored_as_it_is() {
        assert!(users(&[("ann", "{PLAIN}a"), ("bob", "{PLAIN}b")]).all_plain());
        let mixed = users(&[("ann", "{PLAIN}a"), ("user", PENCIL)]);
        assert!(!mixed.all_plain());
        assert!(!mixed.check_cram_md5("user", "x", &cram_md5("pencil", "x")));
    }

    /// Against finding out which names exist: a made-up record looks like a
    /// real one, and looks the same every time.
    #[test]
    fn a_name_that_nobody_has_gets_a_salt_of_its_own_for_good() {
        let users = users(&[("user", PENCIL)]);
        let (salt, iterations) = users.scram_parameters("bob");
        assert_eq!((salt.len(), iterations), (SALT_LEN, 4096));
        assert_eq!(users.scram_parameters("BOB"), (salt.clone(), iterations));
        assert_ne!(users.scram_parameters("cem").0, salt);

        let same_process = Users::new(Vec::new(), [7; 32]);
        assert_eq!(same_process.scram_parameters("bob").0, salt);
        let other_process = Users::new(Vec::new(), [8; 32]);
        assert_ne!(other_process.scram_parameters("bob").0, salt);
    }

    #[test]
    fn a_made_up_record_has_the_iterations_of_some_user() {
        let slow = PENCIL.replace("4096", "9999");
        let users = users(&[("one", PENCIL), ("two", &slow)]);
        let iterations = |name: u32| users.scram_parameters(&name.to_string()).1;
        let found: Vec<u32> = (0..32).map(iterations).collect();
        assert!(found.contains(&4096) && found.contains(&9999), "{found:?}");
        assert!(found.iter().all(|number| [4096, 9999].contains(number)), "{found:?}");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let users = users(&[("ann", "{PLAIN}tulip")]);
        assert_eq!(format!("{users:?}"), r#"{"ann"}"#);
        assert_eq!(format!("{:?}", Secret::Plain("tulip".to_owned())), "Plain(hidden)");
        let scram = Secret::parse(PENCIL).unwrap();
        assert_eq!(format!("{scram:?}"), "Scram(hidden)");
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
}
