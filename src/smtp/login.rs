//! The client's half of AUTH (RFC 4954).
//!
//! In: a name, a password, and the server's challenges. Out: the responses, in
//! base64, as they go over the wire. Used by whoever sends mail: the dialogue
//! player, `examples/send.rs`.
//!
//! Not done here: the choice of the mechanism, and the replies around it.
//!
//! Book: docs/11-auth.md.

use std::fmt::{self, Debug, Formatter};
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use crate::smtp::credentials::cram_md5;
use crate::smtp::sasl::Mechanism;

/// A server that asks for more hashing than this wants to keep us busy.
const MOST_ITERATIONS: u32 = 10_000_000;

/// An exchange that has begun.
pub struct Login {
    user: String,
    password: String,
    next: Next,
}

/// The password is nobody's business.
impl Debug for Login {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What the server's next challenge will be.
enum Next {
    /// `AUTH PLAIN` sends everything at once.
    Nothing,
    LoginName,
    LoginPassword,
    CramMd5,
    /// `r=…,s=…,i=…`; here is what we said first, without its header.
    ScramFirst {
        said: String,
        nonce: String,
    },
    /// `v=…`, which proves that the server knows us, too.
    ScramFinal {
        signature: String,
    },
}

/// What the server sent is no challenge of this mechanism, or does not prove
/// that it knows the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChallenge;

impl Login {
    /// Begins an exchange. Gives it, and the initial response for mechanisms in
    /// which the client begins. The nonce is a text without commas that nobody
    /// can guess; only SCRAM needs it.
    pub fn begin(
        mechanism: Mechanism,
        user: &str,
        password: &str,
        nonce: &str,
    ) -> (Login, Option<String>) {
        let (next, initial) = match mechanism {
            Mechanism::Plain => (Next::Nothing, Some(format!("\0{user}\0{password}"))),
            Mechanism::Login => (Next::LoginName, None),
            Mechanism::CramMd5 => (Next::CramMd5, None),
            Mechanism::ScramSha256 => {
                let name = user.replace('=', "=3D").replace(',', "=2C");
                let said = format!("n={name},r={nonce}");
                let initial = format!("n,,{said}");
                (Next::ScramFirst { said, nonce: nonce.to_owned() }, Some(initial))
            }
        };
        let login = Login { user: user.to_owned(), password: password.to_owned(), next };
        (login, initial.map(|text| BASE64.encode(text)))
    }

    /// Whether nothing is open any more. A server that says 235 before that has
    /// not proved that it knows the password, where the mechanism wants it to.
    pub fn is_done(&self) -> bool {
        matches!(self.next, Next::Nothing)
    }

    /// The response to a challenge, the text behind `334 `.
    pub fn answer(&mut self, challenge: &str) -> Result<String, BadChallenge> {
        let challenge = BASE64.decode(challenge).map_err(|_| BadChallenge)?;
        let challenge = String::from_utf8(challenge).map_err(|_| BadChallenge)?;
        let (next, response) = match &self.next {
            Next::Nothing => return Err(BadChallenge),
            Next::LoginName => (Next::LoginPassword, self.user.clone()),
            Next::LoginPassword => (Next::Nothing, self.password.clone()),
            Next::CramMd5 => {
                let response = format!("{} {}", self.user, cram_md5(&self.password, &challenge));
                (Next::Nothing, response)
            }
            Next::ScramFirst { said, nonce } => scram(&self.password, said, nonce, &challenge)?,
            Next::ScramFinal { signature } if challenge == *signature => {
                (Next::Nothing, String::new())
            }
            Next::ScramFinal { .. } => return Err(BadChallenge),
        };
        self.next = next;
        Ok(BASE64.encode(response))
    }
}

/// The last message of a SCRAM client, and what the server has to answer
/// (RFC 5802 section 3).
fn scram(
    password: &str,
    said: &str,
    nonce: &str,
    challenge: &str,
) -> Result<(Next, String), BadChallenge> {
    let field = |key: &str| challenge.split(',').find_map(|part| part.strip_prefix(key));
    let whole_nonce = field("r=").filter(|whole| whole.starts_with(nonce)).ok_or(BadChallenge)?;
    let salt = field("s=").and_then(|salt| BASE64.decode(salt).ok()).ok_or(BadChallenge)?;
    let iterations = field("i=")
        .and_then(|count| count.parse::<NonZeroU32>().ok())
        .filter(|count| count.get() <= MOST_ITERATIONS)
        .ok_or(BadChallenge)?;

    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
    let client_key = sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    // "biws" is the header `n,,` in base64: no channel binding.
    let without_proof = format!("c=biws,r={whole_nonce}");
    let all = format!("{said},{challenge},{without_proof}");
    let signature = sign(stored_key.as_ref(), all.as_bytes());
    let proof: Vec<u8> = client_key
        .as_ref()
        .iter()
        .zip(signature.as_ref())
        .map(|(one, other)| one ^ other)
        .collect();

    let server_key = sign(&salted, b"Server Key");
    let expected = BASE64.encode(sign(server_key.as_ref(), all.as_bytes()));
    let response = format!("{without_proof},p={}", BASE64.encode(proof));
    Ok((Next::ScramFinal { signature: format!("v={expected}") }, response))
}

fn sign(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::credentials::{Secret, Users};
    use crate::smtp::sasl::{self, Progress};

    fn users() -> Users {
        let secret = Secret::parse("{PLAIN}s=e,cret").unwrap();
        Users::new(vec![("ann".to_owned(), secret)], [7; 32])
    }

    /// Lets both halves talk to each other to the end.
    fn talk(mechanism: Mechanism, user: &str, password: &str) -> Progress {
        let users = users();
        let (mut login, initial) = Login::begin(mechanism, user, password, "client");
        let mut progress =
            sasl::begin(mechanism, initial.as_deref(), "server", "host.example", &users);
        while let Progress::Challenge(exchange, challenge) = progress {
            let response = login.answer(&challenge).unwrap();
            progress = exchange.answer(response.as_bytes(), &users);
        }
        progress
    }

    #[test]
    fn both_halves_understand_each_other() {
        for mechanism in Mechanism::ALL {
            assert_eq!(talk(mechanism, "ann", "s=e,cret"), Progress::Done("ann".to_owned()));
            assert_eq!(talk(mechanism, "ann", "wrong"), Progress::Refused);
            assert_eq!(talk(mechanism, "nobody", "s=e,cret"), Progress::Refused);
        }
    }

    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let (mut login, initial) = Login::begin(Mechanism::ScramSha256, "user", "pencil", nonce);
        assert_eq!(initial.unwrap(), BASE64.encode("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"));
        let challenge = BASE64.encode(
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        );
        let response = login.answer(&challenge).unwrap();
        assert_eq!(
            String::from_utf8(BASE64.decode(response).unwrap()).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let right = BASE64.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(login.answer(&right), Ok(String::new()));
        assert!(login.is_done());
        assert!(!format!("{login:?}").contains("pencil"));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let (mut login, _) = Login::begin(Mechanism::ScramSha256, "ann", "secret", "client");
        for wrong in ["r=other,s=AAAA,i=4096", "r=clientx,s=AAAA,i=0", "r=clientx,i=1", "x"] {
            assert_eq!(login.answer(&BASE64.encode(wrong)), Err(BadChallenge), "{wrong}");
        }
        login.answer(&BASE64.encode("r=clientx,s=AAAA,i=1")).unwrap();
        assert!(!login.is_done());
        assert_eq!(login.answer(&BASE64.encode("v=AAAA")), Err(BadChallenge));
        assert_eq!(login.answer("no base64!"), Err(BadChallenge));
    }
}
