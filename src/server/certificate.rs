//! The server's certificate and key, from PEM files.
//!
//! In: two files, as an authority or an ACME client writes them. Out: what TLS
//! handshakes need, or one line that says which file is wrong and what was expected.
//!
//! Left to others: what kinds of TLS are accepted with it (`wire/tls.rs`).
//!
//! Book: docs/10-tls.md.

use std::fs;
use std::path::Path;

use crate::store::text_file::warn_if_readable_by_others;
use crate::wire::tls::{Acceptor, IdentityError};

/// Every binary form of certificates and keys begins with this octet.
const DER: u8 = 0x30;

/// Reads the certificate, with its chain after it, and the key. The error names the
/// file and what was expected.
pub fn read(cert: &Path, key: &Path) -> Result<Acceptor, String> {
    warn_if_readable_by_others(key);
    let cert_pem = read_pem(cert, "-----BEGIN CERTIFICATE-----", "a certificate")?;
    let key_pem = read_pem(key, "PRIVATE KEY-----", "a private key")?;
    // PKCS#8 says it where the key begins, the older forms in a line `Proc-Type: 4,ENCRYPTED`.
    if ["BEGIN ENCRYPTED", "4,ENCRYPTED"].iter().any(|mark| contains(&key_pem, mark)) {
        let why = "expected a key without a password: nobody is there to type it";
        return Err(format!("{}: {why}", key.display()));
    }
    Acceptor::new(&cert_pem, &key_pem).map_err(|error| match error {
        IdentityError::Certificate(_) => format!("{}: {error}", cert.display()),
        IdentityError::Key(_) => format!("{}: {error}", key.display()),
        IdentityError::NoPair(_) => {
            format!("{} and {} do not fit together: {error}", cert.display(), key.display())
        }
    })
}

/// The text of a file that holds `marker`, and so `what`. The text need not be UTF-8:
/// comments in it may be in any language.
fn read_pem(path: &Path, marker: &str, what: &str) -> Result<Vec<u8>, String> {
    let name = path.display();
    let pem = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    if contains(&pem, marker) {
        return Ok(pem);
    }
    let convert = if pem.first() == Some(&DER) {
        ", this is a binary file (DER or PKCS#12): \
         openssl x509, openssl pkey or openssl pkcs12 converts it"
    } else {
        ""
    };
    Err(format!("{name}: expected {what} in PEM form{convert}"))
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}
