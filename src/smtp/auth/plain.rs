//! PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login): the password itself.
//!
//! In: what a client sent, base64 undone. Out: who it is, or why that is nobody. The
//! client's half of PLAIN stands beside the server's; LOGIN's is the name, and then
//! the password.
//!
//! Book: docs/11-auth.md.

use crate::smtp::auth::mechanism::{Failure, text};
use crate::smtp::auth::users::Users;

/// What LOGIN asks first …
pub const ASK_NAME: &str = "Username:";
/// … and then.
pub const ASK_PASSWORD: &str = "Password:";

/// The client's only message: `[wanted identity] NUL name NUL password`.
pub fn message(name: &str, password: &str) -> String {
    format!("\0{name}\0{password}")
}

/// Reads the same (RFC 4616 section 2).
pub fn check(message: &[u8], users: &Users) -> Result<String, Failure> {
    let parts: Vec<&[u8]> = message.split(|octet| *octet == 0).collect();
    let [wanted, name, password] = parts.as_slice() else {
        return Err(Failure::Malformed);
    };
    if name.is_empty() || password.is_empty() {
        return Err(Failure::Malformed);
    }
    let (wanted, name) = (text(wanted)?, text(name)?);
    if users.check(name, password) && users.is_itself(wanted, name) {
        Ok(users.canonical(name))
    } else {
        Err(Failure::Refused)
    }
}

/// The second message of LOGIN, where the first was the name.
pub fn check_login(name: &str, password: &[u8], users: &Users) -> Result<String, Failure> {
    if users.check(name, password) { Ok(users.canonical(name)) } else { Err(Failure::Refused) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::secret::Secret;
    use std::sync::LazyLock;

    static USERS: LazyLock<Users> = LazyLock::new(|| {
        let entry =
            |name: &str, password: &str| (name.to_owned(), Secret::Plain(password.to_owned()));
        Users::new(vec![entry("tim", "tanstaaftanstaaf"), entry("kurt", "xipj3plmq")], [3; 32])
    });

    /// The examples of RFC 4616 section 4.
    #[test]
    fn plain_takes_a_name_and_a_password() {
        let tim = message("tim", "tanstaaftanstaaf");
        assert_eq!(check(tim.as_bytes(), &USERS), Ok("tim".to_owned()));
        // The RFC's Kurt may act as Ursel. Here nobody may act as anybody else.
        assert_eq!(check(b"Ursel\0Kurt\0xipj3plmq", &USERS), Err(Failure::Refused));
        assert_eq!(check(b"kurt\0Kurt\0xipj3plmq", &USERS), Ok("kurt".to_owned()));
    }

    #[test]
    fn plain_has_two_nuls_a_name_and_a_password() {
        for message in
            ["", "\0", "tim", "\0tim", "tim\0tanstaaftanstaaf", "\0\0x", "\0tim\0", "\0tim\0x\0"]
        {
            assert_eq!(check(message.as_bytes(), &USERS), Err(Failure::Malformed), "{message:?}");
        }
        assert_eq!(check(b"\0t\xedm\0x", &USERS), Err(Failure::Malformed));
    }

    /// Some mail programs send passwords in Latin-1: wrong, and not malformed, so
    /// that it is answered late and counted.
    #[test]
    fn a_password_outside_utf_8_is_a_wrong_one() {
        assert_eq!(check(b"\0tim\0gr\xfcn", &USERS), Err(Failure::Refused));
        assert_eq!(check_login("tim", b"gr\xfcn", &USERS), Err(Failure::Refused));
    }
}
