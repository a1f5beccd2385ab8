//! Who has which secret.
//!
//! In: the entries of the users file, and a secret of this process. Out: whether a
//! password is right; and for mechanisms that ask more, a record or a password, with
//! whether it is a real one. A name that nobody has is asked with the same work and
//! the same kind of answers as a name that somebody has, so that nobody learns
//! from the time or the text which names exist.
//!
//! A [`Users`] holds for every name a SCRAM record (RFC 5802 section 3): it
//! tells whether a password is right without being the password. CRAM-MD5 alone
//! needs the password itself.
//!
//! Not done here: the messages of the mechanisms (`plain.rs`, `cram_md5.rs`,
//! `scram.rs`), slowing and counting of failures (`session/patience.rs`), and
//! SASLprep (RFC 4013: two spellings of one accented letter are two passwords).
//!
//! Book: docs/11-auth.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use crate::smtp::address::ascii_domain;
use crate::smtp::auth::jwt::Issuer;
use crate::smtp::auth::secret::{ITERATIONS, Key, Record, SALT_LEN, Secret, octets};

/// Everybody who may log in.
#[derive(Clone)]
pub struct Users {
    /// By their names in lower case, all bare or all whole addresses.
    accounts: BTreeMap<String, Account>,
    /// Where bare names are: `ann@` one of these is `ann`.
    domains: BTreeSet<String>,
    /// Whose word is taken for who somebody is, where tokens are taken at all.
    issuer: Option<Issuer>,
    /// Made for this process and known to nobody: what is made up with it looks
    /// random, and is the same whenever it is asked for.
    process_secret: hmac::Key,
}

#[derive(Clone)]
struct Account {
    /// Only where the file says `{PLAIN}`.
    password: Option<String>,
    record: Record,
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
        let mut users = Users {
            accounts: BTreeMap::new(),
            domains: BTreeSet::new(),
            issuer: None,
            process_secret,
        };
        for (name, secret) in entries {
            let name = name.to_ascii_lowercase();
            let account = match secret {
                Secret::Scram(record) => Account { password: None, record },
                Secret::Plain(password) => {
                    let salt = users.made_up_salt(&name, SALT_LEN);
                    let record = Record::derive(password.as_bytes(), &salt, ITERATIONS);
                    Account { password: Some(password), record }
                }
            };
            users.accounts.insert(name, account);
        }
        users
    }

    /// The same users under the domains of their server as well: mail programs fill
    /// in a whole address. Where the names are whole addresses already, nothing changes.
    pub fn at(mut self, domains: &BTreeSet<String>) -> Users {
        if !self.accounts.keys().any(|name| name.contains('@')) {
            self.domains = domains.clone();
        }
        self
    }

    /// The same users, who log in with tokens of this issuer as well.
    pub fn trusting(mut self, issuer: Issuer) -> Users {
        self.issuer = Some(issuer);
        self
    }

    /// Whose tokens are believed, if there are any.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.issuer.as_ref()
    }

    /// Whether somebody has this name. Not to be told to anybody who has proved nothing.
    pub fn has(&self, name: &str) -> bool {
        self.accounts.contains_key(&self.canonical(name))
    }

    /// The one spelling of a name, whether anybody has it or not: in lower case, with
    /// its domain in A-labels, and without it where names are bare and the domain is
    /// one of ours.
    pub fn canonical(&self, name: &str) -> String {
        let name = name.to_ascii_lowercase();
        let Some((local_part, domain)) = name.rsplit_once('@') else { return name };
        match ascii_domain(domain) {
            Some(domain) if self.domains.contains(&domain) => local_part.to_owned(),
            Some(domain) => format!("{local_part}@{domain}"),
            None => name,
        }
    }

    /// Nobody may act as somebody else: the identity that a client wants to have is
    /// the one it proves, or it says none.
    pub fn is_itself(&self, wanted: &str, name: &str) -> bool {
        wanted.is_empty() || self.canonical(wanted) == self.canonical(name)
    }

    /// Whether every password is stored as it is: CRAM-MD5 works for everybody
    /// then, and else for some only.
    pub fn all_plain(&self) -> bool {
        self.accounts.values().all(|account| account.password.is_some())
    }

    /// Whether this is the password of this name. It costs one PBKDF2, whoever
    /// was asked for.
    pub fn check(&self, name: &str, password: &[u8]) -> bool {
        let (record, is_known) = self.record(name);
        let tried = Record::derive(password, &record.salt, record.iterations);
        self.is_same(&tried.stored_key, &record.stored_key) && is_known
    }

    /// The password of this name and true, or a stand-in and false, also for a name
    /// whose password is not stored as it is.
    pub fn password(&self, name: &str) -> (String, bool) {
        let name = self.canonical(name);
        let stand_in = BASE64.encode(self.made_up("password", &name));
        match self.accounts.get(&name).and_then(|account| account.password.clone()) {
            Some(password) => (password, true),
            None => (stand_in, false),
        }
    }

    /// The record of this name and true, or a stand-in and false. The stand-in
    /// is made in both cases: else its time would tell them apart.
    pub fn record(&self, name: &str) -> (Record, bool) {
        let name = self.canonical(name);
        let stand_in = self.stand_in(&name);
        match self.accounts.get(&name) {
            Some(account) => (account.record.clone(), true),
            None => (stand_in, false),
        }
    }

    /// A record that nobody has the password of. As iterations and length of
    /// the salt are shown to clients, it borrows them from one of the users,
    /// always the same for the same name.
    fn stand_in(&self, name: &str) -> Record {
        let [a, b, c, d, ..] = self.made_up("model", name);
        let pick = u32::from_be_bytes([a, b, c, d]) as usize % self.accounts.len().max(1);
        let model = self.accounts.values().nth(pick).map(|account| &account.record);
        let salt_len = model.map_or(SALT_LEN, |record| record.salt.len());
        Record {
            iterations: model.map_or(ITERATIONS, |record| record.iterations),
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

    /// Compares in a time that does not depend on where the two differ. What is compared
    /// are two hashes that no client can foresee.
    pub fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        let tag = hmac::sign(&self.process_secret, other);
        hmac::verify(&self.process_secret, one, tag.as_ref()).is_ok()
    }
}

// By hand, so that no `{:?}` in a log line or a failed test ever shows a secret.
impl Debug for Users {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_set().entries(self.accounts.keys()).finish()
    }
}

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

    /// What a SCRAM client is told before it can prove anything.
    fn scram_parameters(users: &Users, name: &str) -> (Vec<u8>, u32) {
        let (record, _) = users.record(name);
        (record.salt, record.iterations.get())
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
            assert_eq!(users.check(name, password.as_bytes()), is_right, "{name} {password}");
        }
        assert_eq!(users.accounts.keys().collect::<Vec<_>>(), ["ann", "user"]);
    }

    #[test]
    fn what_doveadm_made_is_read_and_what_we_make_is_read_back() {
        // doveadm pw -s SCRAM-SHA-256 -p secret
        let from_doveadm = "{SCRAM-SHA-256}4096,G53IP8bJimlkNWNCz5ZErg==,\
            rwuhnUV1ba1PX2YtAhp6QwP2jrLHxnfWUaT3gLAXwwc=,LGGe8vnSH2i6F39vS/9jRIz4RBW1IPtNt6krZotStL4=";
        assert!(users(&[("ann", from_doveadm)]).check("ann", b"secret"));
        assert_eq!(Secret::parse(from_doveadm).unwrap().reveal(), from_doveadm);

        let ours = Secret::scram("gr\u{fc}n", &[9; SALT_LEN]).reveal();
        assert!(users(&[("ann", &ours)]).check("ann", "gr\u{fc}n".as_bytes()));
        assert_eq!(Secret::parse("{cleartext}a}b,c").unwrap().reveal(), "{PLAIN}a}b,c");
    }

    #[test]
    fn all_are_plain_only_if_every_password_is_stored_as_it_is() {
        assert!(users(&[("ann", "{PLAIN}a"), ("bob", "{PLAIN}b")]).all_plain());
        let mixed = users(&[("ann", "{PLAIN}a"), ("user", PENCIL)]);
        assert!(!mixed.all_plain());
        assert!(!mixed.password("user").1 && mixed.password("ANN").1);
    }

    /// Against finding out which names exist: a made-up record looks like a
    /// real one, and looks the same every time.
    #[test]
    fn a_name_that_nobody_has_gets_a_salt_of_its_own_for_good() {
        let users = users(&[("user", PENCIL)]);
        let (salt, iterations) = scram_parameters(&users, "bob");
        assert_eq!((salt.len(), iterations), (SALT_LEN, 4096));
        assert_eq!(scram_parameters(&users, "BOB"), (salt.clone(), iterations));
        assert_ne!(scram_parameters(&users, "cem").0, salt);

        let same_process = Users::new(Vec::new(), [7; 32]);
        assert_eq!(scram_parameters(&same_process, "bob").0, salt);
        let other_process = Users::new(Vec::new(), [8; 32]);
        assert_ne!(scram_parameters(&other_process, "bob").0, salt);
    }

    #[test]
    fn a_made_up_record_has_the_iterations_of_some_user() {
        let slow = PENCIL.replace("4096", "9999");
        let users = users(&[("one", PENCIL), ("two", &slow)]);
        let iterations = |name: u32| scram_parameters(&users, &name.to_string()).1;
        let found: Vec<u32> = (0..32).map(iterations).collect();
        assert!(found.contains(&4096) && found.contains(&9999), "{found:?}");
        assert!(found.iter().all(|number| [4096, 9999].contains(number)), "{found:?}");
    }

    #[test]
    fn bare_names_log_in_under_each_of_our_domains() {
        let ours = ["localhost", "xn--bcher-kva.example"].map(str::to_owned).into();
        let bare = users(&[("ann", "{PLAIN}tulip")]).at(&ours);
        for name in ["ann", "Ann@localhost", "ann@LOCALHOST", "ann@B\u{dc}cher.example"] {
            assert!(bare.check(name, b"tulip"), "{name}");
            assert_eq!(bare.canonical(name), "ann");
        }
        for name in ["ann@else.example", "ann@", "@localhost", "ann@localhost@localhost"] {
            assert!(!bare.check(name, b"tulip"), "{name}");
        }
        // Both spellings of a name that nobody has get the same salt.
        assert_eq!(scram_parameters(&bare, "zoe@localhost"), scram_parameters(&bare, "zoe"));
        assert!(bare.is_itself("ann@localhost", "ANN") && !bare.is_itself("ann@x.example", "ann"));

        let whole = users(&[("ann@localhost", "{PLAIN}tulip")]).at(&ours);
        assert!(whole.check("ann@Localhost", b"tulip") && !whole.check("ann", b"tulip"));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        assert_eq!(format!("{:?}", users(&[("ann", "{PLAIN}tulip")])), r#"{"ann"}"#);
    }
}
