//! Tells step by step who really wrote a letter:
//! `cargo run --example trust -- --ip 192.0.2.1 --helo mail.x.example --from ann@x.example letter.eml`.
//!
//! It asks the same questions as a server with `--sender-checks`, and prints each step: the
//! record that was found, the mechanism that matched, the fields that were hashed, the walk
//! up the tree, and the field that the server would add. It is for the person who asks why
//! a letter fails. With `--json` it reads one JSON object a line from standard input and
//! answers each with another (`trust/json.rs`), which suits test suites.
//!
//! Book: docs/16-trust.md.

#[path = "flags/mod.rs"]
mod flags;
#[path = "trust/json.rs"]
mod json;

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use argh::FromArgs;
use ehlo::dns::{PATIENCE, Resolver};
use ehlo::smtp::session::Distrust;
use ehlo::trust::dkim::verify::Verifier;
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::{self, Lookups};
use ehlo::trust::results::Verdicts;
use ehlo::trust::spf::Request;
use jiff::Timestamp;

/// Tell step by step who really wrote a letter.
#[derive(FromArgs)]
struct Flags {
    /// where the client connected from
    #[argh(option, arg_name = "ADDR")]
    ip: Option<IpAddr>,

    /// the name in its EHLO (default client.example)
    #[argh(option, arg_name = "NAME", default = "String::from(\"client.example\")")]
    helo: String,

    /// the address in MAIL FROM; leave it out for <>
    #[argh(option, arg_name = "ADDRESS", default = "String::new()")]
    from: String,

    /// the name of the server that asks (default localhost)
    #[argh(option, arg_name = "NAME", default = "String::from(\"localhost\")")]
    hostname: String,

    /// the DNS server to ask; repeatable (default: those of this system)
    #[argh(option, arg_name = "ADDR:PORT")]
    dns: Vec<SocketAddr>,

    /// read JSON objects from standard input, one a line, and answer each
    #[argh(switch)]
    json: bool,

    /// the letter; standard input if there is none
    #[argh(positional, arg_name = "FILE")]
    letter: Option<PathBuf>,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("trust", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    if flags.json && (flags.ip.is_some() || !flags.dns.is_empty() || flags.letter.is_some()) {
        eprintln!("trust: with --json each line says this: ip, resolver, message");
        return ExitCode::from(2);
    }
    let done = if flags.json { json::answer_all() } else { explain(&flags) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("trust: {why}");
            ExitCode::from(1)
        }
    }
}

/// Prints the steps of all three checks, and what a server makes of them.
fn explain(flags: &Flags) -> Result<(), String> {
    let ip = flags.ip.ok_or("--ip is missing: where did the client connect from?")?;
    let octets = match &flags.letter {
        Some(path) => fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => {
            let mut octets = Vec::new();
            io::stdin()
                .read_to_end(&mut octets)
                .map_err(|error| format!("standard input: {error}"))?;
            octets
        }
    };
    let servers = if flags.dns.is_empty() { Resolver::system_servers() } else { flags.dns.clone() };
    let resolver = Resolver::new(servers, PATIENCE);
    let lookups = Lookups::new(&resolver, Instant::now() + lookups::PATIENCE);
    let request = Request {
        ip,
        helo: &flags.helo,
        mail_from: &flags.from,
        receiver: &flags.hostname,
        now: Timestamp::now(),
    };
    let mut steps = Steps::told();
    let verdicts = Verdicts::find(&request, read(&octets), &lookups, &mut steps);
    for line in steps.into_lines() {
        // A question is a title; what follows are the steps to its answer.
        println!("{}{line}", if line.ends_with('?') { "\n" } else { "  " });
    }
    println!("\nThe field that a server adds:\n");
    print!("{}", verdicts.to_field(&flags.hostname, &request));
    let what = match verdicts.distrust() {
        None => "taken",
        Some(Distrust::NoAuthor) => "refused with 550 5.7.1",
        Some(Distrust::Dmarc) => "refused with 550 5.7.26",
        Some(Distrust::Spf(_)) => "refused with 550 5.7.23",
        Some(Distrust::DmarcLater) => "put off with 451 4.7.26",
        Some(Distrust::SpfLater) => "put off with 451 4.7.24",
    };
    println!("\nWith --sender-checks enforce the letter is {what}.");
    Ok(())
}

/// A letter, read to its end.
fn read(octets: &[u8]) -> Verifier {
    let mut verifier = Verifier::new(Timestamp::now());
    verifier.write(&file_form(octets));
    verifier
}

/// A letter with the line ends of a file, whichever it came with.
fn file_form(octets: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => text.extend_from_slice(&[line, b"\n"].concat()),
            None => text.extend_from_slice(line),
        }
    }
    text
}
