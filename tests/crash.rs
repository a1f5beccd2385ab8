//! Pulls the plug under load: what got a 250 is there, whole, for everybody.
//!
//! `EHLO_CRASH_ROUNDS=50 cargo test --test crash` does more rounds than the usual few.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::files;

const SESSIONS: usize = 8;
const RECIPIENTS: [&str; 3] = ["ann", "bob", "cem"];
/// The last line of every message: a file without it is not whole.
const LAST: &str = "the end\n";

fn start(spool: &Path) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ehlo"))
        .args(["--smtp", "127.0.0.1:0", "--spool"])
        .arg(spool)
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().strip_prefix("listening smtp ").unwrap().parse().unwrap())
}

/// Sends messages until the connection breaks, and gives the ids of those that
/// got a 250.
fn send_until_the_end(address: SocketAddr) -> Vec<String> {
    let mut ids = Vec::new();
    let Ok(tcp) = TcpStream::connect(address) else { return ids };
    let mut lines = BufReader::new(tcp);
    let mut line = String::new();
    // The answer to the last line of `text`, or None once the server is gone.
    let mut ask = |text: &str, replies: usize| -> Option<String> {
        lines.get_mut().write_all(text.as_bytes()).ok()?;
        for _ in 0..replies {
            line.clear();
            if lines.read_line(&mut line).ok()? == 0 || !line.ends_with('\n') {
                return None;
            }
        }
        Some(line.clone())
    };
    let text = "A line of text.\r\n".repeat(400);
    let message = format!("Subject: x\r\n\r\n{text}{}\r\n.\r\n", LAST.trim_end());
    let to: String = RECIPIENTS.iter().map(|to| format!("RCPT TO:<{to}@localhost>\r\n")).collect();
    if ask("HELO c\r\n", 2).is_none() {
        return ids;
    }
    while ask(&format!("MAIL FROM:<>\r\n{to}DATA\r\n"), 2 + RECIPIENTS.len()).is_some() {
        let Some(reply) = ask(&message, 1) else { break };
        ids.push(reply.trim().strip_prefix("250 2.6.0 stored as ").unwrap().to_owned());
    }
    ids
}

/// The middle of `seconds.id.host`.
fn id_of(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().split('.').nth(1).unwrap().to_owned()
}

#[test]
fn whatever_got_a_250_survives_kill_9() {
    let rounds = std::env::var("EHLO_CRASH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let spool = tempfile::tempdir().unwrap();
    let mut promised = Vec::new();
    for round in 0..rounds {
        let (mut child, address) = start(spool.path());
        let clients: Vec<_> =
            (0..SESSIONS).map(|_| thread::spawn(move || send_until_the_end(address))).collect();
        // Another moment in each round; which one does not matter.
        thread::sleep(Duration::from_millis(100 + (round * 37) % 100));
        child.kill().unwrap();
        child.wait().unwrap();
        for client in clients {
            promised.extend(client.join().unwrap());
        }
    }
    assert!(promised.len() > 10, "only {} messages: no load", promised.len());

    for to in RECIPIENTS {
        let new = spool.path().join("mail/localhost").join(to).join("new");
        let names: Vec<_> = files(&new);
        let ids: HashSet<String> = names.iter().map(|name| id_of(name)).collect();
        for id in &promised {
            assert!(ids.contains(id), "{to} has no {id}");
        }
        for name in &names {
            assert!(
                fs::read_to_string(name).unwrap().ends_with(LAST),
                "{} is a part",
                name.display()
            );
        }
    }
    println!("{rounds} rounds, {} messages promised", promised.len());
}
