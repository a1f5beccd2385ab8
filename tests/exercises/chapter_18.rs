//! Chapter 18: what can go wrong.

use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tempfile::TempDir;

use crate::common::Client;

const EHLO: &str = env!("CARGO_BIN_EXE_ehlo");
/// Is in each line about a session of these tests, and in no other.
const SESSION: &str = "client ";
const LOST: &str = " lines of the log were lost";

/// A server whose standard error is a pipe that is full. Its folder goes after it.
struct Server {
    address: SocketAddr,
    child: Child,
    log: PipeReader,
    _folder: TempDir,
}

impl Server {
    fn start() -> Server {
        let (log, mut writer) = io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while writer.write(b"x").is_ok() {}
        fcntl_setfl(&writer, flags).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(EHLO)
            .args(["--smtp", "127.0.0.1:0", "--max-per-client", "0", "--spool"])
            .arg(folder.path())
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(writer)
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.trim_end().strip_prefix("listening smtp ").unwrap().parse().unwrap();
        Server { address, child, log, _folder: folder }
    }

    /// A letter and a goodbye: two lines of log, the first one before a reply.
    fn letter(&self) {
        let mut client = Client::connect(self.address);
        client.tcp().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let envelope = ["EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<bob@localhost>"];
        client.all_granted(&envelope);
        assert!(client.ask("DATA").starts_with("354"));
        client.send("hello\r\n.\r\n");
        assert!(
            client.tcp().peek(&mut [0]).is_ok(),
            "there is no reply: the session waits for the log"
        );
        assert!(client.reply().starts_with("250"));
        assert!(client.ask("QUIT").starts_with("221"));
    }

    /// So many greetings and goodbyes: one line of log each.
    fn sessions(&self, count: usize) {
        for _ in 0..count {
            let mut client = Client::connect(self.address);
            client.tcp().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert!(client.ask("QUIT").starts_with("221"));
        }
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Reads the log from now on, line by line.
    fn read_log(&self) -> Receiver<String> {
        let log = BufReader::new(self.log.try_clone().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                // The test may have lost interest.
                let _ = sender.send(line);
            }
        });
        lines
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many lines a line of the log says were lost.
fn lost(line: &str) -> Option<usize> {
    let (before, _) = line.split_once(LOST)?;
    before.rsplit(' ').next()?.parse().ok()
}

/// A session never waits for the log. Lines go into a queue of 1000, and a thread of its own writes
/// them to standard error, in their order. A line that finds the queue full is dropped and
/// counted. When there is room again, at the latest with the next line, the log has a line that ends in
/// `17 lines of the log were lost`, with their number, in the place where they are missing. Each
/// line is written or counted, once. (What `--trace` prints is no log.)
#[test]
#[ignore = "exercise 18.1"]
fn exercise_18_1_sessions_go_on_when_nobody_reads_the_log() {
    const SESSIONS: usize = 1500;
    let mut server = Server::start();
    server.letter();
    server.sessions(SESSIONS);
    let mut all = SESSIONS + 2;

    let log = server.read_log();
    let mut lines = Vec::new();
    let end = Instant::now() + Duration::from_secs(20);
    while !lines.iter().any(|line: &String| lost(line).is_some()) {
        assert!(Instant::now() < end, "nothing is said of lines that were lost");
        match log.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => lines.push(line),
            Err(_) => {
                server.sessions(1);
                all += 1;
            }
        }
    }
    let before = lines.iter().filter(|line| line.contains(SESSION)).count();
    // One more may be in the hand of whoever writes.
    assert!((1000..=1010).contains(&before), "{before} lines stood in a queue of 1000");

    server.sessions(10);
    all += 10;
    server.terminate();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    // The other end of the pipe is closed now.
    lines.extend(log.iter());
    let written = lines.iter().filter(|line| line.contains(SESSION)).count();
    let counted: usize = lines.iter().filter_map(|line| lost(line)).sum();
    assert_eq!(written + counted, all, "{written} written and {counted} lost, of {all}");
}

/// At an orderly end (SIGTERM) what is in the queue is still written. The program waits for that
/// for two seconds at most: nobody may be reading.
#[test]
#[ignore = "exercise 18.1"]
fn exercise_18_1_an_orderly_end_writes_what_is_queued() {
    let mut server = Server::start();
    server.letter();
    server.sessions(300);
    server.terminate();
    // For a program that waits for nothing half a second is long.
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        let ended = server.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before its log was read");
        thread::yield_now();
    }
    let log = server.read_log();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let lines: Vec<String> = log.iter().collect();
    let written = lines.iter().filter(|line| line.contains(SESSION)).count();
    assert_eq!(written, 302, "lines are missing at the end");
    assert!(lines.iter().all(|line| lost(line).is_none()), "there was room for all");
}
