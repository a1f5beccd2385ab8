//! The server that takes all our mail for others, as flags and files describe it.
//!
//! In: the flags, and two files: who we are there, and an authority that vouches for
//! it. Out: a [`Smarthost`], or one line that says which file is wrong and what was
//! expected.
//!
//! Book: docs/14-the-queue.md.

use std::fs;
use std::path::Path;

use native_tls::{Certificate, TlsConnector};

use crate::config::Config;
use crate::relay::client::Credentials;
use crate::relay::courier::Smarthost;
use crate::store::text_file::warn_if_readable_by_others;

/// The port on which TLS begins at once (RFC 8314 section 7.3).
const SUBMISSIONS_PORT: u16 = 465;

/// Reads what belongs to the smarthost. The error names the file, and what was
/// expected in it.
pub fn read(config: &Config) -> Result<Option<Smarthost>, String> {
    let Some((host, port)) = config.smarthost.clone() else {
        if config.smarthost_login.is_some() || config.smarthost_ca.is_some() {
            return Err("--smarthost-login and --smarthost-ca need --smarthost".to_owned());
        }
        return Ok(None);
    };
    let credentials = config.smarthost_login.as_deref().map(credentials).transpose()?;
    // Whoever gets a password, or is trusted by name, has to prove the name.
    let is_checked =
        credentials.is_some() || config.smarthost_ca.is_some() || port == SUBMISSIONS_PORT;
    let ca = config.smarthost_ca.as_deref();
    let connector = if is_checked { Some(connector(ca)?) } else { None };
    let is_tls_at_once = port == SUBMISSIONS_PORT;
    Ok(Some(Smarthost { host, port, is_tls_at_once, credentials, connector }))
}

/// `user:password`, in one line.
fn credentials(path: &Path) -> Result<Credentials, String> {
    warn_if_readable_by_others(path);
    let wrong = |why: String| format!("{}: {why}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let line = text.trim_end_matches(['\r', '\n']);
    match line.split_once(':') {
        Some((user, password)) if !user.is_empty() && !line.contains('\n') => {
            Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
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
            let found = credentials(&path);
            let found = found.as_ref().map(|one| (one.user.as_str(), one.password.as_str())).ok();
            assert_eq!(found, wanted, "{text:?}");
        }
    }
}
