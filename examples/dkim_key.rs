//! Makes a key for DKIM: `cargo run --example dkim_key -- --domain x.example --selector key1`.
//!
//! The private key goes into a file that only its owner reads, for `--dkim-key`. The
//! public key is printed as the TXT record that whoever runs the DNS of the domain has to
//! publish. A key that is there already is used again, so that a second run prints the
//! record of the first. The program `openssl` makes the key: it is what made the
//! certificate, too.
//!
//! Book: docs/16-trust.md.

#[path = "flags/mod.rs"]
mod flags;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use argh::FromArgs;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What one string of a TXT record holds (RFC 1035 section 3.3.14).
const STRING_LIMIT: usize = 255;
/// An Ed25519 key is the last octets of the form in which `openssl` writes it (RFC 8410
/// section 4); the record holds it alone (RFC 8463 section 4).
const ED25519_OCTETS: usize = 32;

/// Make a key for DKIM, and print the record that has to be in DNS.
#[derive(FromArgs)]
struct Flags {
    /// the domain of the addresses in From
    #[argh(option, arg_name = "NAME")]
    domain: String,

    /// what this key is called; a domain may have many (default key1)
    #[argh(option, arg_name = "NAME", default = "String::from(\"key1\")")]
    selector: String,

    /// make an Ed25519 key (RFC 8463): a short record, but not everybody can check it
    #[argh(switch)]
    ed25519: bool,

    /// where the private key is, or goes (default ./dkim.pem)
    #[argh(option, arg_name = "PEM", default = "PathBuf::from(\"dkim.pem\")")]
    key: PathBuf,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("dkim_key", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(&flags) {
        Ok(value) => {
            explain(&flags, &value);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("dkim_key: {why}");
            ExitCode::from(1)
        }
    }
}

/// Sees that there is a key, and gives the value of its record.
fn run(flags: &Flags) -> Result<String, String> {
    if !flags.key.exists() {
        make(&flags.key, flags.ed25519)?;
    }
    let path = flags.key.to_string_lossy();
    let public = openssl(&["pkey", "-in", &path, "-pubout", "-outform", "DER"])
        .map_err(|why| format!("{path}: expected a private key in PEM form: {why}"))?;
    let text =
        String::from_utf8_lossy(&openssl(&["pkey", "-in", &path, "-noout", "-text"])?).into_owned();
    let (kind, key) = if text.starts_with("ED25519") {
        let (_, key) = public.split_at(public.len().saturating_sub(ED25519_OCTETS));
        ("ed25519", key)
    } else {
        ("rsa", public.as_slice())
    };
    Ok(format!("v=DKIM1; k={kind}; p={}", BASE64.encode(key)))
}

/// Writes a new private key. The file must not exist: a key that was lost cannot be
/// had again.
fn make(path: &Path, ed25519: bool) -> Result<(), String> {
    let pem = if ed25519 {
        openssl(&["genpkey", "-algorithm", "ed25519"])?
    } else {
        // 2,048 bits: the most that fits every DNS server without thought (RFC 8301
        // section 3.2 asks for that much).
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(&pem))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// What `openssl` prints.
fn openssl(args: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new("openssl").args(args).output();
    let output = output.map_err(|error| format!("the program openssl does not run: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(why.lines().next().unwrap_or("openssl says nothing").to_owned())
}

fn explain(flags: &Flags, value: &str) {
    let Flags { domain, selector, key, .. } = flags;
    let key = key.display();
    println!(
        "The private key is in {key}. The record for DNS, as a line of a zone file:

  {selector}._domainkey.{domain}. TXT {}

A server that signs with it:

  ehlo --domain {domain} --dkim-key {key} --dkim-selector {selector}
",
        strings(value)
    );
}

/// A value as the strings of a TXT record; whoever reads it joins them again.
fn strings(value: &str) -> String {
    let mut rest = value;
    let mut strings = Vec::new();
    while !rest.is_empty() {
        // All of it is ASCII.
        let (string, after) = rest.split_at(rest.len().min(STRING_LIMIT));
        strings.push(format!("\"{string}\""));
        rest = after;
    }
    strings.join(" ")
}
