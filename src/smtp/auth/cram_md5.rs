//! CRAM-MD5 (RFC 2195): a hash of a challenge and the password.
//!
//! In: what the other side sent, base64 undone. Out: the challenge, the response, or
//! who it is. Whether a digest is right is asked here, with the password that
//! `users.rs` has, or makes up.
//!
//! Book: docs/11-auth.md.

use crate::smtp::auth::mechanism::{Failure, text};
use crate::smtp::auth::users::Users;

/// The server's only message. The nonce must never have been used before.
pub fn challenge(nonce: &str, hostname: &str) -> String {
    format!("<{nonce}@{hostname}>")
}

/// The client's answer to it: `name digest` (RFC 2195 section 2).
pub fn response(name: &str, password: &str, challenge: &str) -> String {
    format!("{name} {}", digest(password, challenge))
}

/// Reads the same. A name may hold blanks, a digest cannot.
pub fn check(response: &[u8], challenge: &str, users: &Users) -> Result<String, Failure> {
    let (name, tried) = text(response)?.rsplit_once(' ').ok_or(Failure::Malformed)?;
    // A name that nobody has is hashed for, too, with a password made up.
    let (password, is_known) = users.password(name);
    if users.is_same(digest(&password, challenge).as_bytes(), tried.as_bytes()) && is_known {
        Ok(users.canonical(name))
    } else {
        Err(Failure::Refused)
    }
}

/// HMAC (RFC 2104) with MD5 of the challenge under the password, as lower-case
/// hexadecimal digits.
fn digest(password: &str, challenge: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::secret::Secret;

    const DIGEST: &str = "b913a602c7eda7a495b4e6e7334d3890";
    const CHALLENGE: &str = "<1896.697170952@postoffice.reston.mci.net>";

    fn users() -> Users {
        let tim = ("tim".to_owned(), Secret::Plain("tanstaaftanstaaf".to_owned()));
        Users::new(vec![tim], [3; 32])
    }

    /// The example of RFC 2195 section 2, and two of RFC 2202 section 2.
    #[test]
    fn a_digest_is_hmac_md5() {
        assert_eq!(challenge("1896.697170952", "postoffice.reston.mci.net"), CHALLENGE);
        assert_eq!(response("tim", "tanstaaftanstaaf", CHALLENGE), format!("tim {DIGEST}"));
        // A key longer than a block of 64 octets is hashed first, and one of 64 is not.
        assert_eq!(digest(&"*".repeat(64), "x"), "34984f890e534328d13e0c0772ec7741");
        assert_eq!(digest(&"*".repeat(80), "x"), "525e63865bf65f63ad755806591e6a23");
        let jefe = digest("Jefe", "what do ya want for nothing?");
        assert_eq!(jefe, "750c783e6ab0b503eaa86e310a5db738");
    }

    #[test]
    fn only_the_digest_of_this_name_and_challenge_is_right() {
        let users = users();
        let tried = |response: &str, challenge| check(response.as_bytes(), challenge, &users);
        assert_eq!(tried(&format!("Tim {DIGEST}"), CHALLENGE), Ok("tim".to_owned()));
        assert_eq!(tried(&format!("tim {DIGEST}"), "<2@mci.net>"), Err(Failure::Refused));
        for response in
            ["tim x", "tim ", &format!("tom {DIGEST}"), &format!("tim {}", DIGEST.to_uppercase())]
        {
            assert_eq!(tried(response, CHALLENGE), Err(Failure::Refused), "{response}");
        }
        for response in ["", "tim", DIGEST] {
            assert_eq!(tried(response, CHALLENGE), Err(Failure::Malformed), "{response}");
        }
        assert_eq!(check(b"t\xedm x", CHALLENGE, &users), Err(Failure::Malformed));
    }

    #[test]
    fn nobody_logs_in_whose_password_is_not_stored_as_it_is() {
        let tim = ("tim".to_owned(), Secret::scram("pencil", b"salt"));
        let users = Users::new(vec![tim], [3; 32]);
        let response = response("tim", "pencil", CHALLENGE);
        assert_eq!(check(response.as_bytes(), CHALLENGE, &users), Err(Failure::Refused));
    }
}
