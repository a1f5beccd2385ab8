//! A server in a process of its own: for what must not happen to the process of
//! the tests (limits of the system, a disk of its own), and for what can only be
//! measured from outside (memory, processor time).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

pub const EHLO: &str = env!("CARGO_BIN_EXE_ehlo");

/// A running server, killed when dropped.
pub struct ChildServer {
    pub address: SocketAddr,
    /// The other listeners of the flags, in the order in which they are announced.
    pub more_addresses: Vec<SocketAddr>,
    child: Child,
    /// Its log, line by line, as it is written.
    log: Receiver<String>,
}

impl ChildServer {
    /// Starts `program --smtp 127.0.0.1:0 --spool spool flags`, where `program`
    /// is [`EHLO`], perhaps after another one that runs its arguments, such as
    /// `prlimit`. The error is what was said instead of the ready line.
    pub fn start(
        program: &[impl AsRef<OsStr>],
        spool: &Path,
        flags: &[&str],
    ) -> Result<ChildServer, String> {
        let mut child = command(program, spool, flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program[0].as_ref().display()))?;
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let Some(address) = ready.trim_end().strip_prefix("listening smtp ") else {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            child.wait().unwrap();
            return Err(said.trim_end().to_owned());
        };
        let listeners = ["--smtp", "--submission", "--submissions"];
        let more = flags.iter().filter(|flag| listeners.contains(flag)).map(|_| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line.split_whitespace().last().unwrap().parse().unwrap()
        });
        let more_addresses = more.collect();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            // Read on after the test has lost interest: a full pipe would block the server.
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(ChildServer { address: address.parse().unwrap(), more_addresses, child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the log that holds `text`; lines before it are gone.
    pub fn wait_for_log(&self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("no `{text}` in the log: {error}"),
            }
        }
    }

    /// How many lines of the log, from where it was read to, hold `text`.
    pub fn count_in_log(&self, text: &str) -> usize {
        self.log.try_iter().filter(|line| line.contains(text)).count()
    }

    /// The most resident memory it ever had, in KiB (Linux).
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// The processor time it has used so far (Linux).
    pub fn processor_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The second field is a name in parentheses; user and system time are
        // fields 14 and 15, in hundredths of a second on every Linux.
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks * 10))
    }

    /// A path as the server sees it, where it has a file system of its own (Linux).
    pub fn view(&self, path: &Path) -> PathBuf {
        Path::new("/proc")
            .join(self.pid().to_string())
            .join("root")
            .join(path.strip_prefix("/").unwrap())
    }

    /// Sends it a signal, such as `-HUP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends it with SIGTERM and gives its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }

    /// The same, and gives all of the log that was not read yet.
    pub fn stop_and_read_log(mut self) -> String {
        self.signal("-TERM");
        self.child.wait().unwrap();
        // It ends when the thread that reads has seen the end of the pipe.
        self.log.iter().map(|line| line + "\n").collect()
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a server that is expected not to start.
pub fn output(program: &[impl AsRef<OsStr>], spool: &Path) -> Output {
    let mut child =
        command(program, spool, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    if !ready.is_empty() {
        // It did start, and would run for ever.
        child.kill().unwrap();
    }
    let mut output = child.wait_with_output().unwrap();
    output.stdout = ready.into_bytes();
    output
}

fn command(program: &[impl AsRef<OsStr>], spool: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(["--smtp", "127.0.0.1:0", "--spool"]).arg(spool).args(flags);
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}
