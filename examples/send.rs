//! Sends one letter: `cargo run --example send -- --from ann@client.example --to bob@localhost`.
//!
//! The text comes from standard input, up to its end. Recipients of `--to`,
//! `--cc` and `--bcc` all get the letter, because all are in the envelope; only
//! the first two kinds are named in the header, which is all there is to a Bcc.
//! Refused recipients are told on standard error, and the others still get the
//! letter. Exit code 0 if everybody got it, 1 if not, 2 for a wrong flag.
//!
//! With `--starttls` or `--tls` the letter travels encrypted, to a server whose
//! certificate is valid for HOST, and only then `--login` is used: a password is
//! never sent in clear.
//!
//! Book: docs/01-a-letter-by-hand.md.

#[path = "flags/mod.rs"]
mod flags;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;

use argh::FromArgs;
use ehlo::relay::client::{Client, Credentials, Dial, Evidence, Security, To};
use ehlo::smtp::address::{Mailbox, ReversePath};
use ehlo::smtp::answer::{Answer, Verdict};
use ehlo::smtp::dsn::{MailDsn, RcptDsn};
use ehlo::store::envelope::Letter;
use jiff::fmt::rfc2822;
use jiff::{Timestamp, Zoned};
use native_tls::{Certificate, TlsConnector};

/// How long to wait for most replies (RFC 5321 section 4.5.3.2).
const PATIENCE: Duration = Duration::from_secs(300);

/// Send one letter, with the text from standard input.
#[derive(FromArgs)]
struct Flags {
    /// the server (default 127.0.0.1:2525)
    #[argh(option, arg_name = "HOST:PORT", default = "String::from(\"127.0.0.1:2525\")")]
    server: String,

    /// encrypt with STARTTLS, or send nothing
    #[argh(switch)]
    starttls: bool,

    /// encrypt from the first octet
    #[argh(switch)]
    tls: bool,

    /// trust this certificate, too
    #[argh(option, arg_name = "PEM")]
    ca: Option<PathBuf>,

    /// log in with what stands in this file, user:password
    #[argh(option, arg_name = "FILE")]
    login: Option<PathBuf>,

    /// your address
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    from: Mailbox,

    /// a recipient; repeatable
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    to: Vec<Mailbox>,

    /// a recipient of a copy; repeatable
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    cc: Vec<Mailbox>,

    /// a recipient that the others do not see; repeatable
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    bcc: Vec<Mailbox>,

    /// what the letter is about
    #[argh(option, arg_name = "TEXT", default = "String::new()")]
    subject: String,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("send", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    if let Err(why) = fit_together(&flags) {
        eprintln!("send: {why}");
        return ExitCode::from(2);
    }
    match send(&flags) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(why) => {
            eprintln!("send: {why}");
            ExitCode::from(1)
        }
    }
}

/// Whether the flags make sense as a whole, or why not.
fn fit_together(flags: &Flags) -> Result<(), &'static str> {
    if flags.to.is_empty() && flags.cc.is_empty() && flags.bcc.is_empty() {
        return Err("nobody to send to: give --to, --cc or --bcc");
    }
    if flags.login.is_some() && !flags.tls && !flags.starttls {
        return Err("--login needs --starttls or --tls: no password in clear");
    }
    Ok(())
}

/// Sends the letter, and gives how many recipients were refused.
fn send(flags: &Flags) -> Result<usize, String> {
    let recipients: Vec<&Mailbox> = flags.to.iter().chain(&flags.cc).chain(&flags.bcc).collect();
    let mut body = Vec::new();
    io::stdin().read_to_end(&mut body).map_err(|error| format!("standard input: {error}"))?;
    let message = letter(flags, &body);

    let mut client = connect(flags)?;
    // On the wire each line end is two octets.
    let line_ends = message.iter().filter(|octet| **octet == b'\n').count();
    let letter = Letter {
        reverse_path: ReversePath::Mailbox(flags.from.clone()),
        dsn: MailDsn::default(),
        arrived: Timestamp::now(),
        skip: 0,
        size: (message.len() + line_ends) as u64,
        is_8bit: !message.is_ascii(),
        // All of them stand in the envelope, and those of To and Cc in the header.
        needs_smtputf8: recipients.iter().any(|to| to.needs_smtputf8()),
    };

    let mut refused = 0;
    let dsn = RcptDsn::default();
    let mut waiting: Vec<To> =
        recipients.into_iter().map(|mailbox| To { mailbox, dsn: &dsn }).collect();
    // Those who do not fit into one transaction get one of their own.
    while !waiting.is_empty() {
        let answers = client.carry(&letter, &waiting, &mut message.as_slice());
        let mut granted: Option<Answer> = None;
        let mut left = Vec::new();
        for (to, answer) in waiting.into_iter().zip(answers) {
            match answer {
                None => left.push(to),
                Some(answer) if answer.verdict == Verdict::Delivered => granted = Some(answer),
                Some(answer) => {
                    eprintln!("send: {}: {}", to.mailbox, answer.text);
                    refused += 1;
                }
            }
        }
        if let Some(answer) = granted {
            println!("{}", answer.text);
        }
        waiting = left;
    }
    client.quit();
    Ok(refused)
}

/// The letter as a file: lines end with LF. There is no Bcc in it.
fn letter(flags: &Flags, body: &[u8]) -> Vec<u8> {
    let now = Zoned::now();
    let date = rfc2822::to_string(&now).unwrap_or_default();
    let id =
        format!("{}.{}@{}", now.timestamp().as_microsecond(), process::id(), flags.from.domain);
    let mut header = format!("From: <{}>\n", flags.from);
    for (name, addresses) in [("To", &flags.to), ("Cc", &flags.cc)] {
        let addresses: Vec<String> = addresses.iter().map(|to| format!("<{to}>")).collect();
        if !addresses.is_empty() {
            header += &format!("{name}: {}\n", addresses.join(",\n "));
        }
    }
    header += &format!("Subject:{}\n", encoded(&flags.subject));
    header += &format!("Date: {date}\nMessage-ID: <{id}>\nMIME-Version: 1.0\n");
    header += "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n";

    // CR LF from a Windows editor is a line end too; a CR alone cannot be sent.
    let body: Vec<u8> = body.iter().copied().filter(|octet| *octet != b'\r').collect();
    [header.as_bytes(), &body].concat()
}

/// A field body in encoded words (RFC 2047), so that text outside ASCII, and a
/// line end that would begin a field of its own, are only text. Every octet is
/// written `=NN` where one is needed: 20 of them keep a word below its 75.
fn encoded(text: &str) -> String {
    if text.bytes().all(|octet| (b' '..=b'~').contains(&octet)) {
        return format!(" {text}");
    }
    let mut words = String::new();
    let mut length = 0;
    for c in text.chars() {
        if length == 0 || length + c.len_utf8() > 20 {
            words += if length == 0 { " =?utf-8?Q?" } else { "?=\n =?utf-8?Q?" };
            length = 0;
        }
        for octet in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a String cannot fail.
            let _ = write!(words, "={octet:02X}");
        }
        length += c.len_utf8();
    }
    words + "?="
}

/// Connects, perhaps encrypted, and perhaps logs in.
fn connect(flags: &Flags) -> Result<Client, String> {
    let server = &flags.server;
    let nobody = |why: &str| format!("nobody answers at {server} ({why}); is the server running?");
    let host = server.rsplit_once(':').map_or(server.as_str(), |(host, _)| host);
    // An IPv6 address stands in brackets, and in a certificate without.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connector = connector(flags.ca.as_deref())?;
    let security = match flags.tls || flags.starttls {
        true => Security::Verified { host, connector: &connector, from_first_octet: flags.tls },
        false => Security::Clear,
    };
    let login = flags.login.as_deref().map(credentials).transpose()?;
    let login = login.as_ref();
    let dial = Dial { name: "localhost", timeout: PATIENCE, security, login, trace: None };

    let mut problem = nobody("no address has this name");
    for address in server.to_socket_addrs().map_err(|error| nobody(&error.to_string()))? {
        match Client::connect(server, address, &dial) {
            Ok(client) => return Ok(client),
            Err(error) if error.is_no_connection() => problem = nobody(&error.to_string()),
            Err(error) => problem = error.to_string(),
        }
    }
    Err(problem)
}

/// Trusts whom the system trusts, and the authority in `ca`.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let mut builder = TlsConnector::builder();
    if let Some(file) = ca {
        let wrong = |why: String| format!("{}: {why}", file.display());
        let pem = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let start = pem.find("-----BEGIN").unwrap_or_default();
        let pem = pem.get(start..).unwrap_or_default();
        let ca = Certificate::from_pem(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        builder.add_root_certificate(ca);
    }
    builder.build().map_err(|error| error.to_string())
}

/// What stands in the file of `--login`.
fn credentials(file: &Path) -> Result<Credentials, String> {
    let wrong = |why: String| format!("{}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let (user, password) = text
        .trim_end_matches(['\r', '\n'])
        .split_once(':')
        .ok_or_else(|| wrong("expected user:password".to_owned()))?;
    let evidence = Evidence::Password(password.to_owned());
    Ok(Credentials { user: user.to_owned(), evidence })
}

fn address(text: &str) -> Result<Mailbox, String> {
    match Mailbox::parse(text) {
        Ok((mailbox, "")) => Ok(mailbox),
        Ok(_) => Err(format!("{text}: text after the address")),
        Err(why) => Err(format!("{text}: {why}")),
    }
}
