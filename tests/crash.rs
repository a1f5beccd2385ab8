//! Pulls the plug under load: what got a 250 is there, whole, for everybody; or it
//! gets there, if it has to go elsewhere.
//!
//! `EHLO_CRASH_ROUNDS=50 cargo test --test crash` does more rounds than the usual few.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{dns, files, hop, mta};

const SESSIONS: usize = 8;
const RECIPIENTS: [&str; 3] = ["ann", "bob", "cem"];
/// Where letters go that leave: each is an entry of its own.
const ELSEWHERE: [&str; 3] = ["one.example", "two.example", "three.example"];
/// The last line of every message: a file without it is not whole.
const LAST: &str = "the end\n";

fn start(spool: &Path, flags: &[&str]) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ehlo"))
        .args(["--smtp", "127.0.0.1:0", "--spool"])
        .arg(spool)
        .args(flags)
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().strip_prefix("listening smtp ").unwrap().parse().unwrap())
}

/// How many rounds to do, if not the usual few.
fn rounds() -> usize {
    std::env::var("EHLO_CRASH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap())
}

/// Sends messages to `to` until the connection breaks, and gives the ids of those
/// that got a 250.
fn send_until_the_end(address: SocketAddr, to: &[&str], promises: &AtomicUsize) -> Vec<String> {
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
    let count = to.len();
    let to: String = to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
    if ask("HELO c\r\n", 2).is_none() {
        return ids;
    }
    while ask(&format!("MAIL FROM:<>\r\n{to}DATA\r\n"), 2 + count).is_some() {
        let Some(reply) = ask(&message, 1) else { break };
        ids.push(reply.trim().strip_prefix("250 2.6.0 stored as ").unwrap().to_owned());
        promises.fetch_add(1, Ordering::SeqCst);
    }
    ids
}

/// Sends messages in several sessions, kills the server under them, and gives the
/// ids of those that got a 250.
fn load_and_kill(
    child: &mut Child,
    address: SocketAddr,
    sessions: usize,
    to: &[&str],
    round: usize,
) -> Vec<String> {
    let promises = AtomicUsize::new(0);
    thread::scope(|scope| {
        let client = || send_until_the_end(address, to, &promises);
        let clients: Vec<_> = (0..sessions).map(|_| scope.spawn(client)).collect();
        // Another moment in each round; which one does not matter.
        let enough = 5 + (round * 37) % 20;
        mta::until("enough was promised", || promises.load(Ordering::SeqCst) >= enough);
        child.kill().unwrap();
        child.wait().unwrap();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// A server that is killed when the test ends, whatever its end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The middle of `seconds.id.host`.
fn id_of(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().split('.').nth(1).unwrap().to_owned()
}

#[test]
fn whatever_got_a_250_survives_kill_9() {
    let rounds = rounds();
    let to = RECIPIENTS.map(|to| format!("{to}@localhost"));
    let to = to.each_ref().map(String::as_str);
    let spool = tempfile::tempdir().unwrap();
    let mut promised = Vec::new();
    for round in 0..rounds {
        let (mut child, address) = start(spool.path(), &[]);
        promised.extend(load_and_kill(&mut child, address, SESSIONS, &to, round));
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

/// The id in the only `Received` field.
fn id_in(letter: &hop::Letter) -> String {
    let (_, rest) = letter.text.split_once(" id ").unwrap();
    rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
}

#[test]
// The next hop has an address of its own, as on Linux all of 127.0.0.0/8 are ours.
#[cfg(target_os = "linux")]
fn whatever_got_a_250_gets_to_another_server_through_kill_9() {
    let net = mta::Net::new();
    // A slow one, so that there is always a letter under way, at every step.
    let slow = |moment: hop::Moment| {
        if matches!(moment.step, hop::Step::Mail | hop::Step::Data | hop::Step::Dot) {
            thread::sleep(Duration::from_millis(3));
        }
        hop::Act::Usual
    };
    let next = hop::Hop::start(net.address(1), slow);
    let zone = net
        .zone(&ELSEWHERE.map(|domain| format!("{domain} A {{1}}")).each_ref().map(String::as_str));
    let dns = dns::DnsServer::start(&zone.iter().map(String::as_str).collect::<Vec<_>>());
    let (port, dns) = (net.port.to_string(), dns.address.to_string());
    let flags = [
        "--relay",
        "open",
        "--loopback-hops",
        "--relay-port",
        &port,
        "--dns",
        &dns,
        "--retry",
        "0.1",
    ];

    let rounds = rounds();
    // The last two share an entry.
    let elsewhere =
        ["bob@one.example", "cem@two.example", "dan@three.example", "eve@three.example"];
    let to = [&["ann@localhost"], &elsewhere[..]].concat();
    let spool = tempfile::tempdir().unwrap();
    let queue = spool.path().join("queue");
    let waiting = || {
        let is_entry = |path: &PathBuf| path.extension().is_some_and(|end| end == "envelope");
        files(&queue).iter().filter(|path| is_entry(path)).count()
    };
    let (mut promised, mut most) = (Vec::new(), 0);
    for round in 0..rounds {
        let (mut child, address) = start(spool.path(), &flags);
        promised.extend(load_and_kill(&mut child, address, SESSIONS / 2, &to, round));
        most = most.max(waiting());
    }
    assert!(promised.len() > 10, "only {} messages: no load", promised.len());
    assert!(most > 0, "nothing ever waited: nothing was tested");
    let _last = Running(start(spool.path(), &flags).0);
    let mut left = waiting();
    while left > 0 {
        mta::until("one more is out", || waiting() < left);
        left = waiting();
    }

    let letters = next.letters();
    assert!(letters.iter().all(|letter| letter.text.ends_with(LAST)), "a part was sent");
    let sent = letters.iter().flat_map(|letter| {
        let id = id_in(letter);
        letter.to.iter().map(move |to| (id.clone(), to.clone()))
    });
    let sent: Vec<(String, String)> = sent.collect();
    let once: HashSet<&(String, String)> = sent.iter().collect();
    let new = spool.path().join("mail/localhost/ann/new");
    let here: HashSet<String> = files(&new).iter().map(|name| id_of(name)).collect();
    for id in &promised {
        for to in elsewhere {
            assert!(once.contains(&(id.clone(), to.to_owned())), "{id} was not sent to {to}");
        }
        assert!(here.contains(id), "ann has no {id}");
    }
    let bad =
        files(&queue).into_iter().find(|path| path.extension().is_some_and(|end| end == "bad"));
    assert_eq!(bad, None);
    println!(
        "{rounds} rounds, {} messages promised, at most {most} waiting, {} recipients twice",
        promised.len(),
        sent.len() - once.len()
    );
}
