//! OAUTHBEARER (RFC 7628) and XOAUTH2: a token in the place of a password.
//!
//! In: the message of a client. Out: whose it is, or why not. Both mechanisms say the
//! same in nearly the same words; XOAUTH2 is older, no standard, and what large
//! providers know
//! (<https://developers.google.com/workspace/gmail/imap/xoauth2-protocol>). A refused
//! token is answered by one more challenge, which holds JSON, and the client answers that
//! with anything, before it gets its 535 (RFC 7628 section 3.2.3).
//!
//! Whoever reads a token on its way can use it until it expires, so the session offers
//! these mechanisms under TLS only (section 3).
//!
//! Left to others: what makes a token good (`jwt.rs`). `host` and `port`, which a client
//! may say, are not compared: we do not know by which name we were found, and the
//! audience in the token binds it to us.
//!
//! Book: docs/11-auth.md.

use crate::smtp::auth::jwt::{Claimed, Refusal};
use crate::smtp::auth::mechanism::{Failure, text};
use crate::smtp::auth::scram::{escaped, unescaped};
use crate::smtp::auth::users::Users;

/// What stands between the parts of a message: control A.
const SEPARATOR: char = '\x01';

/// In whose words a token is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// RFC 7628.
    OauthBearer,
    /// Google's.
    Xoauth2,
}

/// What a message comes to that has the right form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It is this user, in the spelling of the users file.
    User(String),
    /// It is nobody.
    Refused(Refusal),
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
struct Said<'a> {
    /// Who it wants to be; may be empty.
    wanted: String,
    /// Such as `Bearer abc`.
    auth: &'a str,
}

impl Form {
    /// The message of a client.
    pub fn message(self, user: &str, token: &str) -> String {
        match self {
            Form::OauthBearer if user.is_empty() => format!("n,,\x01auth=Bearer {token}\x01\x01"),
            Form::OauthBearer => {
                format!("n,a={},\x01auth=Bearer {token}\x01\x01", escaped(user))
            }
            Form::Xoauth2 => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
        }
    }

    /// What the server says of a refused token: no more than that it is one (RFC 7628
    /// section 3.2.2). Clients of XOAUTH2 expect the number that HTTP has for it.
    pub fn refusal(self) -> &'static str {
        match self {
            Form::OauthBearer => r#"{"status":"invalid_token","schemes":"bearer"}"#,
            Form::Xoauth2 => r#"{"status":"401","schemes":"bearer"}"#,
        }
    }

    /// What the client answers to that.
    pub fn answer_to_refusal(self) -> &'static str {
        match self {
            Form::OauthBearer => "\x01",
            Form::Xoauth2 => "",
        }
    }

    /// Who a client is that says this now, in seconds from 1970.
    pub fn check(self, message: &[u8], users: &Users, now: i64) -> Result<Checked, Failure> {
        let said = self.parse(text(message)?).ok_or(Failure::Malformed)?;
        Ok(match user(&said, users, now) {
            Ok(name) => Checked::User(name),
            Err(why) => Checked::Refused(why),
        })
    }

    fn parse(self, message: &str) -> Option<Said<'_>> {
        match self {
            Form::OauthBearer => {
                let (header, pairs) = message.split_once(SEPARATOR)?;
                // n or y: no channel is bound. Nobody can ask for that here (RFC 5801
                // section 4).
                let wanted = header.strip_prefix("n,").or_else(|| header.strip_prefix("y,"))?;
                let wanted = match wanted.strip_suffix(',')? {
                    "" => String::new(),
                    wanted => unescaped(wanted.strip_prefix("a=")?)?,
                };
                Some(Said { wanted, auth: value("auth", pairs)? })
            }
            Form::Xoauth2 => {
                let wanted = value("user", message)?.to_owned();
                Some(Said { wanted, auth: value("auth", message)? })
            }
        }
    }
}

/// The value of a key among `key=value` pairs. Each pair ends with the separator, and so
/// do all of them together. A key that stands twice has no value; others than the one
/// asked for are passed over (RFC 7628 section 3.1).
fn value<'a>(key: &str, pairs: &'a str) -> Option<&'a str> {
    let pairs = pairs.strip_suffix(SEPARATOR)?.strip_suffix(SEPARATOR)?;
    let mut found = None;
    for pair in pairs.split(SEPARATOR) {
        let (name, value) = pair.split_once('=')?;
        let is_value = |c: char| matches!(c, ' '..='~' | '\t' | '\r' | '\n') || !c.is_ascii();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphabetic()) {
            return None;
        }
        if !value.chars().all(is_value) {
            return None;
        }
        if name.eq_ignore_ascii_case(key) && found.replace(value).is_some() {
            return None;
        }
    }
    found
}

/// The one of our users whose token it is.
fn user(said: &Said, users: &Users, now: i64) -> Result<String, Refusal> {
    let (scheme, token) = said.auth.split_once(' ').ok_or(Refusal::NoToken)?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(Refusal::NoToken);
    }
    let issuer = users.issuer().ok_or(Refusal::Issuer)?;
    let name = match issuer.verify(token.trim_start_matches(' '), now)? {
        Claimed::Email(address) => users.canonical(&address),
        Claimed::Subject(subject) => {
            let name = users.canonical(&subject);
            // `Ann` and `ann` may be two people to the issuer (RFC 7519 section 4.1.2).
            if local_part(&name) != local_part(&subject) {
                return Err(Refusal::Unknown);
            }
            name
        }
    };
    // Neither an alias nor a detail leads to a user here: it has to be the name itself.
    if !users.has(&name) {
        return Err(Refusal::Unknown);
    }
    if !users.is_itself(&said.wanted, &name) {
        return Err(Refusal::SomebodyElse);
    }
    Ok(name)
}

fn local_part(name: &str) -> &str {
    name.rsplit_once('@').map_or(name, |(local_part, _)| local_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::jwt::tests::{CLAIMS, NOW, Signer};
    use crate::smtp::auth::secret::Secret;

    const FORMS: [Form; 2] = [Form::OauthBearer, Form::Xoauth2];

    fn users(names: &[&str], signer: &Signer) -> Users {
        let entry = |name: &&str| (name.to_string(), Secret::Plain("x".to_owned()));
        let users = Users::new(names.iter().map(entry).collect(), [3; 32]);
        users.at(&["host.example".to_owned()].into()).trusting(signer.issuer())
    }

    /// What both mechanisms make of a token with this name in it.
    fn claimed(users: &Users, signer: &Signer, wanted: &str, name: &str) -> Checked {
        let token = signer.token(&CLAIMS.replace(r#""sub":"ann""#, name));
        let check = |form: Form| form.check(form.message(wanted, &token).as_bytes(), users, NOW);
        let [one, other] = FORMS.map(check);
        assert_eq!(one, other);
        one.unwrap()
    }

    fn ann() -> Checked {
        Checked::User("ann".to_owned())
    }

    #[test]
    fn a_token_names_a_user_bare_or_at_one_of_our_domains() {
        let signer = Signer::with_new_keys();
        let users = users(&["ann", "bob", "carol"], &signer);
        for (name, expected) in [
            (r#""sub":"ann""#, ann()),
            (r#""sub":"ann@host.example""#, ann()),
            (r#""email":"ann@host.example""#, ann()),
            (r#""email":"Ann@HOST.example""#, ann()),
            // The issuer's Ann need not be its ann.
            (r#""sub":"Ann""#, Checked::Refused(Refusal::Unknown)),
            (r#""sub":"ann@other.example""#, Checked::Refused(Refusal::Unknown)),
            (r#""email":"ann@other.example""#, Checked::Refused(Refusal::Unknown)),
            (r#""email":"ann+x@host.example""#, Checked::Refused(Refusal::Unknown)),
            (r#""email":"postmaster@host.example""#, Checked::Refused(Refusal::Unknown)),
            (r#""sub":"""#, Checked::Refused(Refusal::Unknown)),
            (r#""sub":"ann\u0000""#, Checked::Refused(Refusal::Unknown)),
            (r#""sub":" ann""#, Checked::Refused(Refusal::Unknown)),
        ] {
            assert_eq!(claimed(&users, &signer, "", name), expected, "{name}");
        }
    }

    #[test]
    fn whole_addresses_are_meant_whole() {
        let signer = Signer::with_new_keys();
        let users = users(&["ann@host.example"], &signer);
        let whole = Checked::User("ann@host.example".to_owned());
        assert_eq!(claimed(&users, &signer, "", r#""email":"ann@HOST.example""#), whole);
        let bare = claimed(&users, &signer, "", r#""sub":"ann""#);
        assert_eq!(bare, Checked::Refused(Refusal::Unknown));
    }

    #[test]
    fn the_name_that_a_client_wants_is_that_of_its_token_or_nobodys() {
        let signer = Signer::with_new_keys();
        let users = users(&["ann", "bob"], &signer);
        for (wanted, expected) in [
            ("", ann()),
            ("ann", ann()),
            ("ANN@host.example", ann()),
            ("bob", Checked::Refused(Refusal::SomebodyElse)),
            ("ann@other.example", Checked::Refused(Refusal::SomebodyElse)),
            ("a,n=n", Checked::Refused(Refusal::SomebodyElse)),
        ] {
            assert_eq!(claimed(&users, &signer, wanted, r#""sub":"ann""#), expected, "{wanted}");
        }
    }

    /// The examples of RFC 7628 section 4.1 and of Google's description.
    #[test]
    fn messages_are_as_their_descriptions_have_them() {
        let token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";
        let message = "n,a=user@example.com,\x01host=server.example.com\x01port=587\x01\
            auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let auth = format!("Bearer {token}");
        let said = Said { wanted: "user@example.com".to_owned(), auth: &auth };
        assert_eq!(Form::OauthBearer.parse(message), Some(said));
        let ours = Form::OauthBearer.message("user@example.com", token);
        assert_eq!(ours, message.replace("host=server.example.com\x01port=587\x01", ""));

        let message = "user=someuser@example.com\x01auth=Bearer ya29.vF9dft4\x01\x01";
        assert_eq!(Form::Xoauth2.message("someuser@example.com", "ya29.vF9dft4"), message);
        let said = Form::Xoauth2.parse(message).unwrap();
        assert_eq!((&*said.wanted, said.auth), ("someuser@example.com", "Bearer ya29.vF9dft4"));
    }

    #[test]
    fn a_message_of_another_form_is_malformed() {
        let signer = Signer::with_new_keys();
        let users = users(&["ann"], &signer);
        for message in [
            "",
            "\x01",
            "\x01\x01",
            "n,,",
            "n,,\x01",
            "n,,\x01\x01",
            "n,,\x01auth=Bearer x",
            "n,,\x01auth=Bearer x\x01",
            "n,\x01auth=Bearer x\x01\x01",
            "x,,\x01auth=Bearer x\x01\x01",
            // Nobody can bind a channel here.
            "p=tls-exporter,,\x01auth=Bearer x\x01\x01",
            "n,a=,\x01auth=Bearer x\x01\x01",
            "n,a=a=b,\x01auth=Bearer x\x01\x01",
            // An error in section 4.4 of the RFC.
            "n,user=ann,\x01auth=Bearer x\x01\x01",
            "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
            "n,,\x01auth=Bearer x\x01AUTH=Bearer y\x01\x01",
            "n,,\x01host\x01auth=Bearer x\x01\x01",
            "n,,\x01=x\x01auth=Bearer x\x01\x01",
            // The name of a key has letters only.
            "n,,\x01h2=x\x01auth=Bearer x\x01\x01",
            "n,,\x01host=\0\x01auth=Bearer x\x01\x01",
            "n,,\x01\x01auth=Bearer x\x01\x01",
            "user=ann\x01auth=Bearer x\x01\x01",
        ] {
            let checked = Form::OauthBearer.check(message.as_bytes(), &users, NOW);
            assert_eq!(checked, Err(Failure::Malformed), "{message:?}");
        }
        for message in [
            "user=ann\x01\x01",
            "auth=Bearer x\x01\x01",
            "user=ann\x01auth=Bearer x\x01",
            "user=ann\x01user=bob\x01auth=Bearer x\x01\x01",
            "n,,\x01auth=Bearer x\x01\x01",
        ] {
            let checked = Form::Xoauth2.check(message.as_bytes(), &users, NOW);
            assert_eq!(checked, Err(Failure::Malformed), "{message:?}");
        }
        let latin1 = b"user=\xe4\x01auth=Bearer x\x01\x01";
        assert_eq!(Form::Xoauth2.check(latin1, &users, NOW), Err(Failure::Malformed));
    }

    #[test]
    fn a_scheme_has_no_case_and_others_than_bearer_are_refused() {
        let signer = Signer::with_new_keys();
        let users = users(&["ann"], &signer);
        let token = signer.token(CLAIMS);
        let check = |auth: &str| {
            let message = format!("y,,\x01port=587\x01Auth={auth}\x01x=\x01\x01");
            Form::OauthBearer.check(message.as_bytes(), &users, NOW).unwrap()
        };
        for scheme in ["Bearer", "bearer", "BEARER", "BeArEr"] {
            assert_eq!(check(&format!("{scheme} {token}")), ann());
        }
        // The empty one is how a client asks what we would want (RFC 7628 section 4.3).
        for auth in ["", "Bearer", &token, &format!("Basic {token}"), &format!("Bearer={token}")] {
            assert_eq!(check(auth), Checked::Refused(Refusal::NoToken), "{auth}");
        }
        assert_eq!(check(&format!("Bearer {token} x")), Checked::Refused(Refusal::Form));
        assert_eq!(check("Bearer "), Checked::Refused(Refusal::Form));
    }
}
