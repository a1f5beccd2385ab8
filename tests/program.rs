//! The program as a person meets it: flags, exit codes, signals, the ready line.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use signal_hook::consts::SIGTERM;

use common::{Client, files};

const EHLO: &str = env!("CARGO_BIN_EXE_ehlo");

/// Runs the program to its end, in an empty folder.
fn output(args: &[&str], folder: &Path) -> Output {
    Command::new(EHLO).args(args).current_dir(folder).output().unwrap()
}

/// A running server, killed if the test fails.
struct Program {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(args: &[&str], folder: &Path) -> Program {
        Program::start_with(EHLO, args, folder)
    }

    /// With limits that only a shell can set: `program` ends in `exec`.
    fn start_with(program: &str, args: &[&str], folder: &Path) -> Program {
        let mut child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Program { child, stdout }
    }

    fn ready_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Where the server listens, once it does.
    fn address(&mut self) -> SocketAddr {
        self.ready_line().strip_prefix("listening smtp ").unwrap().parse().unwrap()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The exit code, and what was written to standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (code, log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_bad_flag_is_exit_2_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = output(&["--smtp", "2525"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("ehlo: ") && text.contains("127.0.0.1:2525"), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert!(output.stdout.is_empty());
}

#[test]
fn help_and_version_go_to_standard_output_and_make_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (flag, text) in [("--help", "--max-per-client"), ("--version", "ehlo 0.")] {
        let output = output(&[flag], folder.path());
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains(text));
    }
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_port_in_use_is_exit_71_and_leaves_no_spool() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = output(&["--smtp", &address], folder.path());
    assert_eq!(output.status.code(), Some(71));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&address) && text.lines().count() == 1, "{text}");
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_spool_that_is_no_folder_is_exit_78() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("spool"), "").unwrap();
    let output = output(&["--smtp", "127.0.0.1:0"], folder.path());
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot keep mail in spool") && text.lines().count() == 1, "{text}");
}

#[test]
fn each_listener_is_announced_with_its_port_and_a_signal_ends_with_0() {
    for signal in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let args = ["--smtp", "127.0.0.1:0", "--smtp", "127.0.0.1:0", "--trace"];
        let mut program = Program::start(&args, folder.path());
        let lines = [program.ready_line(), program.ready_line()];
        for line in &lines {
            let address = line.strip_prefix("listening smtp ").unwrap();
            let mut client = Client::connect(address.parse().unwrap());
            assert_eq!(&client.ask("NOOP \u{1b}[2J")[..3], "250");
        }
        assert_ne!(lines[0], lines[1]);
        program.signal(signal);
        let (code, log) = program.end();
        assert_eq!(code, Some(0));
        assert!(log.contains("C: NOOP \\x1b[2J") && log.contains("S: 250 2.0.0 ok"), "{log}");
    }
}

#[test]
fn the_connection_that_wakes_the_server_for_its_end_is_no_client() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(&["--smtp", "127.0.0.1:0"], folder.path());
    program.address();
    program.signal("-TERM");
    let (code, log) = program.end();
    assert_eq!(code, Some(0));
    assert!(!log.contains("client"), "{log}");
}

#[test]
fn a_second_signal_does_not_wait_for_a_message_in_hand() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(&["--smtp", "127.0.0.1:0"], folder.path());
    let address = program.address();
    let mut client = Client::in_data(address, "bob@localhost");
    client.send("half");
    program.signal("-TERM");
    // The listener is closed once the first signal was acted on.
    while std::net::TcpStream::connect(address).is_ok() {}
    program.signal("-TERM");
    let (code, _) = program.end();
    assert_eq!(code, Some(1));
}

/// Writes to a pipe, once somebody has opened it to read.
fn write_to(pipe: &Path) -> File {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let no_wait = OFlags::NONBLOCK.bits() as i32;
        match File::options().write(true).custom_flags(no_wait).open(pipe) {
            Ok(file) => return file,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::yield_now();
    }
}

/// A server in the middle of its start: it reads its users from a pipe, to which this writes.
fn starting(folder: &Path) -> (Program, File) {
    let pipe = folder.join("users");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let args = ["--smtp", "127.0.0.1:0", "--users", "users"];
    (Program::start(&args, folder), write_to(&pipe))
}

#[test]
fn signals_that_steer_the_server_wait_until_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let (mut program, mut users) = starting(folder.path());
    program.signal("-HUP");
    program.signal("-USR1");
    users.write_all(b"ann:{PLAIN}secret\n").unwrap();
    drop(users);
    Client::connect(program.address());
    // The file is read once more.
    write_to(&folder.path().join("users"));
    program.signal("-TERM");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_signal_that_ends_the_server_ends_its_start_at_once() {
    // Not SIGINT, which a shell lets the programs ignore that it starts in the background.
    let folder = tempfile::tempdir().unwrap();
    let (mut program, _users) = starting(folder.path());
    program.signal("-TERM");
    assert_eq!(program.child.wait().unwrap().signal(), Some(SIGTERM));
}

/// A pipe that is full, and its other end, from which nobody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b"x").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Starts a server whose standard error is this.
fn with_log(log: impl Into<Stdio>, folder: &Path) -> Program {
    let mut child = Command::new(EHLO)
        .args(["--smtp", "127.0.0.1:0"])
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    Program { child, stdout }
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let (_nobody, log) = full_pipe();
    let mut program = with_log(log, folder.path());
    program.address();
    program.signal("-USR1");
    program.signal("-TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_session_that_waits_for_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (_nobody, log) = full_pipe();
    let mut program = with_log(log, folder.path());
    let address = program.address();
    // It is stored, and a line of log stands before the reply.
    let mut client = Client::in_data(address, "bob@localhost");
    client.send("x\r\n.\r\n");
    while files(&folder.path().join("spool/mail/localhost/bob/new")).is_empty() {
        thread::yield_now();
    }
    program.signal("-TERM");
    while TcpStream::connect(address).is_ok() {}
    program.signal("-TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_letter_over_the_limit_for_files_is_a_4yz_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let script = "ulimit -f 200; exec \"$0\" --smtp 127.0.0.1:0";
    let mut program = Program::start_with("sh", &["-c", script, EHLO], folder.path());
    let mut client = Client::in_data(program.address(), "bob@localhost");
    let reply = client.message(format!("{}\r\n", "x".repeat(998)).repeat(600));
    assert_eq!(&reply[..2], "45", "{reply}");
    client.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"]);
    assert_eq!(&client.message("hello\r\n")[..3], "250");
    program.signal("-TERM");
    assert_eq!(program.end().0, Some(0));
}

/// A server whose log is on a terminal, and the screen of that.
fn on_terminal(folder: &Path) -> (Program, BufReader<File>) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    // Our end alone: while anybody has it open, the terminal is there.
    fcntl_setfd(&terminal, FdFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let other_end = File::options().write(true).open(name.to_str().unwrap()).unwrap();
    (with_log(other_end, folder), BufReader::new(File::from(terminal)))
}

/// Ends the terminal, and returns once the listener is closed.
fn close_window(screen: BufReader<File>, program: &Program, address: SocketAddr) {
    drop(screen);
    // A process that another test is just making may have the terminal for a moment more.
    while TcpStream::connect(address).is_ok() {
        program.signal("-HUP");
    }
}

#[test]
fn a_hangup_reads_files_again_but_not_when_the_terminal_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut program, mut screen) = on_terminal(folder.path());
    let address = program.address();
    let mut seen = String::new();
    program.signal("-HUP");
    while !seen.contains("read all files again") {
        screen.read_line(&mut seen).unwrap();
    }
    Client::connect(address);
    close_window(screen, &program, address);
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_does_not_wait_for_a_message_after_the_end_of_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let (mut program, screen) = on_terminal(folder.path());
    let address = program.address();
    let mut client = Client::in_data(address, "bob@localhost");
    client.send("half");
    close_window(screen, &program, address);
    program.signal("-TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(1));
}

#[test]
fn an_empty_path_is_exit_2_and_makes_nothing() {
    for flag in ["--spool", "--users", "--aliases", "--cert", "--key", "--smarthost-ca"] {
        let folder = tempfile::tempdir().unwrap();
        let output = output(&["--smtp", "127.0.0.1:0", flag, ""], folder.path());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(flag) && text.contains("expected a path"), "{text}");
        assert!(files(folder.path()).is_empty(), "{flag}");
    }
}

#[test]
fn tls_and_http_on_the_plain_port_are_named_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(&["--smtp", "127.0.0.1:0"], folder.path());
    let address = program.address();
    for (first, reply) in [(&b"\x16\x03\x01\x02\x00"[..], "500"), (b"GET / HTTP/1.1\r\n", "500")] {
        let mut client = Client::connect(address);
        client.send(first);
        assert_eq!(&client.reply()[..3], reply);
        assert_eq!(client.reply(), "");
    }
    program.signal("-TERM");
    let (_, log) = program.end();
    assert!(
        log.contains("TLS on the clear port") && log.contains("HTTP on the SMTP port"),
        "{log}"
    );
}

#[test]
fn a_server_that_was_stopped_and_continued_has_lost_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(&["--smtp", "127.0.0.1:0"], folder.path());
    let address = program.address();
    let mut idle = Client::connect(address);
    let mut sending = Client::in_data(address, "bob@localhost");
    for signal in ["-STOP", "-CONT"] {
        program.signal(signal);
    }
    assert_eq!(&idle.ask("NOOP")[..3], "250");
    assert_eq!(&sending.message("hello\r\n")[..3], "250");
}

#[test]
fn a_shutdown_works_with_no_descriptor_left() {
    let folder = tempfile::tempdir().unwrap();
    let script = "ulimit -n 40; exec \"$0\" --smtp 127.0.0.1:0";
    let mut program = Program::start_with("sh", &["-c", script, EHLO], folder.path());
    let address = program.address();
    let mut inside = Vec::new();
    // The last of these wait in the system's queue: nobody can accept them.
    let clients: Vec<_> = (0..60).map(|_| Client::silent(address)).collect();
    for mut client in clients {
        if inside.len() < 20 {
            assert_eq!(&client.reply()[..3], "220");
        }
        inside.push(client);
    }
    program.signal("-TERM");
    assert_eq!(&inside[0].reply()[..9], "421 4.3.2");
    drop(inside);
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn files_and_folders_belong_to_their_owner_alone_under_every_umask() {
    for umask in ["0000", "0277"] {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("umask {umask}; exec \"$0\" --smtp 127.0.0.1:0");
        let mut program = Program::start_with("sh", &["-c", &script, EHLO], folder.path());
        let mut client = Client::in_data(program.address(), "bob@localhost");
        assert_eq!(&client.message("hello\r\n")[..3], "250");
        let new = folder.path().join("spool/mail/localhost/bob/new");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&new), 0o700);
        assert_eq!(mode(&files(&new)[0]), 0o600);
    }
}

#[test]
fn an_argument_that_is_no_text_is_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(EHLO)
        .arg("--spool")
        .arg(OsStr::from_bytes(b"a\xff"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(files(folder.path()).is_empty());
}
