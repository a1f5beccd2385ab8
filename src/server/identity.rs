//! The server's certificate and key, from PEM files.
//!
//! In: two files. Out: what a TLS handshake needs, or one line that says which
//! file is wrong and what to do about it.
//!
//! Book: docs/10-tls.md.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use native_tls::{Identity, Protocol, TlsAcceptor, TlsConnector};

use crate::store::text_file::warn_if_readable_by_others;

/// The beginning of the only kind of key that every TLS library takes.
const PKCS8: &str = "-----BEGIN PRIVATE KEY-----";

/// Reads certificate (with the chain behind it) and key. The error names the
/// file and what was expected.
pub fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    warn_if_readable_by_others(key);
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (cert_pem, key_pem) = (read(cert)?, read(key)?);
    // Tools write comments in front of a certificate; the library wants none.
    let cert_pem = from_marker(&cert_pem, "-----BEGIN CERTIFICATE-----")
        .ok_or_else(|| format!("{}: expected a certificate in PEM form", cert.display()))?;
    let Some(key_pem) = from_marker(&key_pem, PKCS8) else {
        return Err(wrong_key(&key_pem, key));
    };
    let identity =
        Identity::from_pkcs8(cert_pem.as_bytes(), key_pem.as_bytes()).map_err(|error| {
            format!("{} and {} do not fit together: {error}", cert.display(), key.display())
        })?;
    let acceptor = TlsAcceptor::builder(identity)
        // RFC 8996: nothing older is safe.
        .min_protocol_version(Some(Protocol::Tlsv12))
        .build()
        .map_err(|error| format!("{}: {error}", cert.display()))?;
    match is_pair(&acceptor) {
        true => Ok(acceptor),
        false => Err(format!("{} and {} do not fit together", cert.display(), key.display())),
    }
}

/// The library takes a certificate with the key of another one, and fails at
/// every handshake. So we try one, with ourselves.
fn is_pair(acceptor: &TlsAcceptor) -> bool {
    let connector = TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .build();
    let (Ok(connector), Ok((ours, theirs))) = (connector, UnixStream::pair()) else { return true };
    thread::scope(|scope| {
        scope.spawn(move || connector.connect("localhost", theirs).map(drop));
        acceptor.accept(ours).is_ok()
    })
}

/// What to do about a key of another kind.
fn wrong_key(pem: &str, path: &Path) -> String {
    let path = path.display();
    if pem.contains("PRIVATE KEY-----") {
        return format!(
            "{path}: this kind of key is not taken, convert it: \
             openssl pkcs8 -topk8 -nocrypt -in {path} -out {path}.pkcs8"
        );
    }
    format!("{path}: expected a private key in PEM form")
}

/// `text` from the first `marker` on.
fn from_marker<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    text.find(marker).and_then(|start| text.get(start..))
}
