//! The server that takes all our mail for others, as flags and files describe it.
//!
//! In: the flags, and two files: who we are there, and an authority that vouches for
//! it. Out: a [`Smarthost`], or one line that says which file is wrong and what was
//! expected. A password is read with the flags and at each SIGHUP, a token before each login:
//! other programs renew it in its file.
//!
//! Book: docs/14-the-queue.md.

use std::fs;
use std::path::Path;

use native_tls::{Certificate, TlsConnector};

use crate::config::Config;
use crate::relay::client::{Credentials, Evidence};
use crate::relay::courier::{Login, Smarthost};
use crate::store::text_file::warn_if_readable_by_others;

/// The port on which TLS begins at once (RFC 8314 section 7.3).
const SUBMISSIONS_PORT: u16 = 465;

/// Reads what belongs to the smarthost. The error names the file, and what was
/// expected in it.
pub fn read(config: &Config) -> Result<Option<Smarthost>, String> {
    let Some((host, port)) = config.smarthost.clone() else { return Ok(None) };
    let login = login(config)?;
    // Whoever gets a password, or is trusted by name, has to prove the name.
    let is_checked = login.is_some() || config.smarthost_ca.is_some() || port == SUBMISSIONS_PORT;
    let ca = config.smarthost_ca.as_deref();
    let connector = if is_checked { Some(connector(ca)?) } else { None };
    let is_tls_at_once = port == SUBMISSIONS_PORT;
    Ok(Some(Smarthost { host, port, is_tls_at_once, login, connector }))
}

/// Who we are there, if we are anybody.
fn login(config: &Config) -> Result<Option<Box<Login>>, String> {
    if let Some(path) = config.smarthost_token.clone() {
        warn_if_readable_by_others(&path);
        // What is wrong with the file now is better told now.
        token(&path)?;
        return Ok(Some(Box::new(move || token(&path))));
    }
    let Some(path) = &config.smarthost_login else { return Ok(None) };
    warn_if_readable_by_others(path);
    let credentials = password(path)?;
    Ok(Some(Box::new(move || Ok(credentials.clone()))))
}

/// The user on the first line, the token on the second.
fn token(path: &Path) -> Result<Credentials, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    match lines.as_slice() {
        [user, token] if is_user(user) && is_token(token) => {
            let evidence = Evidence::Token((*token).to_owned());
            Ok(Credentials { user: (*user).to_owned(), evidence })
        }
        _ => Err(wrong("expected two lines, the user and the token".to_owned())),
    }
}

fn is_user(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

/// RFC 6750 section 2.1: nothing in it can end a message of OAUTHBEARER before its time.
fn is_token(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let is_digit = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~+/".contains(&octet);
    !digits.is_empty() && digits.bytes().all(is_digit)
}

/// `user:password`, in one line.
fn password(path: &Path) -> Result<Credentials, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let line = text.trim_end_matches(['\r', '\n']);
    match line.split_once(':') {
        Some((user, password)) if !user.is_empty() && !line.contains('\n') => {
            let evidence = Evidence::Password(password.to_owned());
            Ok(Credentials { user: user.to_owned(), evidence })
        }
        _ => Err(wrong("expected one line, user:password".to_owned())),
    }
}

/// Checks certificates against the authorities of the system, and this one.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let mut builder = TlsConnector::builder();
    if let Some(path) = ca {
        let wrong = |why: String| format!("{}: {why}", path.display());
        let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| {
            wrong(format!("expected a certificate that begins with -----BEGIN: {error}"))
        })?;
        builder.add_root_certificate(authority);
    }
    builder.build().map_err(|error| format!("no TLS for the smarthost: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_one_line_with_a_colon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login");
        for (text, wanted) in [
            ("ann:a:b\n", Some(("ann", "a:b"))),
            ("ann:\r\n", Some(("ann", ""))),
            ("ann", None),
            (":x", None),
            ("ann:x\nbob:y\n", None),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(password(&path)), wanted.map(owned), "{text:?}");
        }
    }

    #[test]
    fn a_token_is_the_second_line_and_its_user_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, wanted) in [
            ("ann@x.example\na.b-c_d~e+f/g==\n", Some(("ann@x.example", "a.b-c_d~e+f/g=="))),
            ("ann\r\nabc", Some(("ann", "abc"))),
            ("ann", None),
            ("ann\n", None),
            ("ann\n\n", None),
            ("\nabc\n", None),
            ("ann\nab c\n", None),
            ("ann\nab\x01c\n", None),
            ("ann\x01\nabc\n", None),
            ("ann\na=b\n", None),
            ("ann\nabc\nabc\n", None),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(token(&path)), wanted.map(owned), "{text:?}");
        }
    }

    fn read(found: Result<Credentials, String>) -> Option<(String, String)> {
        let Credentials { user, evidence } = found.ok()?;
        let (Evidence::Password(secret) | Evidence::Token(secret)) = evidence;
        Some((user, secret))
    }

    fn owned((user, secret): (&str, &str)) -> (String, String) {
        (user.to_owned(), secret.to_owned())
    }
}
