//! The mechanisms of AUTH by name, and what they have in common.
//!
//! In: a name, or what a client sent in base64. Out: a [`Mechanism`]; the octets of
//! the message; or the [`Failure`] that ends the exchange.
//!
//! Book: docs/11-auth.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::smtp::auth::users::Users;

/// A way to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password in one message, readable by anyone (RFC 4616).
    Plain,
    /// The same in two messages. Older than any standard, but some clients know
    /// nothing else (draft-murchison-sasl-login).
    Login,
    /// A hash of a challenge and the password (RFC 2195).
    CramMd5,
    /// Both sides prove that they know the password, and neither sends it
    /// (RFC 5802, RFC 7677).
    ScramSha256,
    /// A token in the place of the password (RFC 7628).
    OauthBearer,
    /// The same in Google's words.
    Xoauth2,
}

/// Why an exchange ended, and nobody has logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 535 5.7.8: wrong, unknown, or somebody else than it proved to be.
    Refused,
    /// 501 5.5.2: not base64, or not in the shape of the mechanism.
    Malformed,
    /// 501 5.7.0: an initial response, where the server has to begin.
    Premature,
    /// 501 5.7.0: the client sent `*`.
    Cancelled,
    /// 535 5.7.8: its token was refused one step before, and that counted.
    RefusedBefore,
}

/// What the server sent is no challenge of this mechanism, or does not prove
/// that it knows the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChallenge;

impl Mechanism {
    /// All of them; those come first by which a thief in between would learn the least.
    pub const ALL: [Mechanism; 6] = [
        Mechanism::ScramSha256,
        Mechanism::CramMd5,
        Mechanism::OauthBearer,
        Mechanism::Xoauth2,
        Mechanism::Plain,
        Mechanism::Login,
    ];

    /// Reads the name of a mechanism, in any case.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// The name as EHLO announces it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::OauthBearer => "OAUTHBEARER",
            Mechanism::Xoauth2 => "XOAUTH2",
        }
    }

    /// Whether it takes a token, and no password. These are for TLS only (RFC 7628
    /// section 3): what was read on its way is as good as the original.
    pub fn takes_token(self) -> bool {
        match self {
            Mechanism::OauthBearer | Mechanism::Xoauth2 => true,
            Mechanism::Plain | Mechanism::Login | Mechanism::CramMd5 | Mechanism::ScramSha256 => {
                false
            }
        }
    }

    /// Whether every one of the users can log in with it. Clients choose
    /// CRAM-MD5 when they see it, and try nothing else when it fails.
    pub fn works_for(self, users: &Users) -> bool {
        match self {
            Mechanism::CramMd5 => users.all_plain(),
            Mechanism::OauthBearer | Mechanism::Xoauth2 => users.issuer().is_some(),
            Mechanism::Plain | Mechanism::Login | Mechanism::ScramSha256 => true,
        }
    }
}

/// A text that nobody can guess, from random octets: printable ASCII without a
/// comma, as RFC 5802 section 5.1 wants it, and without anything that could not
/// stand in an address, as RFC 2195 section 2 wants it.
pub fn nonce(random: [u8; 18]) -> String {
    BASE64.encode(random)
}

/// Nothing but base64 with its padding, as RFC 4954 section 4 demands.
pub fn octets(text: impl AsRef<[u8]>) -> Result<Vec<u8>, Failure> {
    BASE64.decode(text).map_err(|_| Failure::Malformed)
}

/// The same, and in it no controls, which SASLprep forbids (RFC 4013 section 2.3),
/// except the NUL that PLAIN has between its parts. So most commands are no answer: `QUIT`
/// is base64 too, of `AB` and a control.
pub fn without_controls(text: impl AsRef<[u8]>) -> Result<Vec<u8>, Failure> {
    let octets = octets(text)?;
    // Octets outside UTF-8 are a password in another character set, which is a wrong
    // one and no broken exchange. The controls of Unicode beyond ASCII are in UTF-8.
    let has_controls = match std::str::from_utf8(&octets) {
        Ok(text) => text.chars().any(|c| c.is_control() && c != '\0'),
        Err(_) => octets.iter().any(|octet| octet.is_ascii_control() && *octet != 0),
    };
    if has_controls { Err(Failure::Malformed) } else { Ok(octets) }
}

/// A message, or a part of one, that has to be UTF-8: a name is, and only a password need
/// not be.
pub fn text(octets: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(octets).map_err(|_| Failure::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::secret::Secret;

    #[test]
    fn a_mechanism_is_read_by_its_name_in_any_case() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(&mechanism.name().to_lowercase()), Some(mechanism));
        }
        for name in ["", "DIGEST-MD5", "SCRAM-SHA-256-PLUS", "PLAIN "] {
            assert_eq!(Mechanism::parse(name), None, "{name}");
        }
    }

    #[test]
    fn cram_md5_is_not_for_users_who_keep_no_password_and_tokens_need_an_issuer() {
        let works = |secret| {
            let users = Users::new(vec![("tim".to_owned(), secret)], [3; 32]);
            Mechanism::ALL.map(|mechanism| mechanism.works_for(&users))
        };
        let scram = works(Secret::scram("x", b"salt"));
        assert_eq!(scram, [true, false, false, false, true, true]);
        let plain = works(Secret::Plain("x".to_owned()));
        assert_eq!(plain, [true, true, false, false, true, true]);
    }

    #[test]
    fn a_nonce_fits_scram_and_an_address() {
        let nonce = nonce([0xfb; 18]);
        assert_eq!(nonce.len(), 24);
        assert!(nonce.bytes().all(|octet| octet.is_ascii_graphic() && !b",=<>@".contains(&octet)));
    }

    #[test]
    fn what_is_no_base64_or_holds_a_control_is_malformed() {
        for text in ["QUIT", "RSET", "DATA", "EHLO", "VGlt ", "AAA", "AB==", "=", "*", "wpg="] {
            assert_eq!(without_controls(text), Err(Failure::Malformed), "{text}");
        }
        assert_eq!(without_controls("AHgA"), Ok(b"\0x\0".to_vec()));
        // `grün` in Latin-1.
        assert_eq!(without_controls("Z3L8bg=="), Ok(b"gr\xfcn".to_vec()));
        assert_eq!(text(b"gr\xfcn"), Err(Failure::Malformed));
    }
}
