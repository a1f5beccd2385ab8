//! Makes a token to try out: `cargo run --example token -- --user ann`.
//!
//! It plays the issuer: into a folder go its private key (`issuer.pem`), the keys that it
//! would publish (`keys.json`) and a token for one user, in the form that
//! `--smarthost-token` reads. A key that is there already is used again, so that
//! a second run gives a token for somebody else under the same key set. A real issuer
//! asks people for a password first, and does it in a browser.
//!
//! Book: docs/11-auth.md.

#[path = "flags/mod.rs"]
mod flags;

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// What the key is called in the key set. One is enough here.
const KEY_NAME: &str = "example";

/// Make a key pair, a key set and a token, for trying out.
#[derive(FromArgs)]
struct Flags {
    /// whose token it is: a name of the users file
    #[argh(option, arg_name = "NAME")]
    user: String,

    /// who makes it (default https://login.example)
    #[argh(option, arg_name = "URL", default = "String::from(\"https://login.example\")")]
    issuer: String,

    /// for whom it is (default mail.example)
    #[argh(option, arg_name = "NAME", default = "String::from(\"mail.example\")")]
    audience: String,

    /// how long it lasts; may be negative (default 3600)
    #[argh(option, arg_name = "SECS", default = "3600")]
    expires: i64,

    /// where the files go (default ./oauth)
    #[argh(option, arg_name = "DIR", default = "PathBuf::from(\"oauth\")")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("token", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(&flags) {
        Ok(token) => {
            explain(&flags, &token);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("token: {why}");
            ExitCode::from(1)
        }
    }
}

/// Writes the three files, and gives the token.
fn run(flags: &Flags) -> Result<String, String> {
    let at = |name: &str| flags.folder.join(name);
    let wrong =
        |path: &Path, error: &dyn ToString| format!("{}: {}", path.display(), error.to_string());
    fs::create_dir_all(&flags.folder).map_err(|error| wrong(&flags.folder, &error))?;
    let path = at("issuer.pem");
    let key = key(&path).map_err(|error| wrong(&path, &error))?;
    let path = at("keys.json");
    let keys = format!("{:#}\n", key_set(&key));
    fs::write(&path, keys).map_err(|error| wrong(&path, &error))?;
    let path = at("token");
    let token = sign(&key, &claims(flags));
    let file = format!("{}\n{token}\n", flags.user);
    write_private(&path, &file).map_err(|error| wrong(&path, &error))?;
    Ok(token)
}

/// The key in this file, or a new one.
fn key(path: &Path) -> io::Result<Ed25519KeyPair> {
    let pem = match fs::read_to_string(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let new = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|_| io::Error::other("the system gives no random numbers"))?;
            let base64 = BASE64.encode(new.as_ref());
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
            write_private(path, &pem)?;
            pem
        }
        Err(error) => return Err(error),
    };
    let base64: String = pem.lines().filter(|line| !line.contains(' ')).collect();
    let der = BASE64.decode(base64).unwrap_or_default();
    // Unchecked: keys of openssl do not hold the public half.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
        .map_err(|_| io::Error::other("expected an Ed25519 key in PKCS#8 and PEM"))
}

/// What an issuer publishes: a JWK set (RFC 7517 section 5) with the public half.
fn key_set(key: &Ed25519KeyPair) -> Value {
    let x = BASE64URL.encode(key.public_key());
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig", "alg": "EdDSA", "kid": KEY_NAME,
    });
    json!({ "keys": [key] })
}

/// What the token says (RFC 9068 section 2.2).
fn claims(flags: &Flags) -> Value {
    let now = Timestamp::now().as_second();
    // A whole address is the claim that issuers have for addresses, too.
    let name = if flags.user.contains('@') { "email" } else { "sub" };
    json!({
        "iss": flags.issuer, "aud": flags.audience, name: flags.user,
        "iat": now, "exp": now.saturating_add(flags.expires), "client_id": KEY_NAME,
    })
}

/// Header, claims and signature (RFC 7515 section 3.1).
fn sign(key: &Ed25519KeyPair, claims: &Value) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": KEY_NAME });
    let part = |value: &Value| BASE64URL.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(claims));
    let signature = BASE64URL.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// Whoever reads one of these can log in.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}

fn explain(flags: &Flags, token: &str) {
    let Flags { user, issuer, audience, folder, .. } = flags;
    let folder = folder.display();
    let address = if user.contains('@') { user.clone() } else { format!("{user}@localhost") };
    println!(
        "A token for {user} is in {folder}/token. A server that takes it, where users, cert.pem and
key.pem are its files:

  ehlo --users users --cert cert.pem --key key.pem --oauth-keys {folder}/keys.json \\
      --oauth-issuer {issuer} --oauth-audience {audience}

A program that logs in with it:

  curl --url smtp://localhost:2525 --ssl-reqd --cacert cert.pem --user {user}: \\
      --oauth2-bearer \"$(tail -1 {folder}/token)\" --mail-from {address} \\
      --mail-rcpt {address} --upload-file letter.eml

What is in it:
"
    );
    for part in token.split('.').take(2) {
        let text = BASE64URL.decode(part).unwrap_or_default();
        println!("  {}", String::from_utf8_lossy(&text));
    }
}
