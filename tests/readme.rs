//! Runs the README as a reader would, in its order.
//!
//! Every `sh` fence goes to `sh -eu` in one temporary folder. A stand-in for
//! cargo comes first in PATH, so that `cargo run` starts the program that was
//! built for this test, and 2525 becomes a free port. The word behind `sh` says
//! how a fence is run:
//!
//! - `sh`: to its end, with exit code 0.
//! - `sh server`: until it prints `listening …`; it is left running.
//! - `sh interactive`: somebody types into it what the next `smtp` fence says.
//! - `sh other`: not run, it wants programs that may be missing. It is parsed.
//!
//! The table of flags is compared with `--help`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ehlo::config::{self, Request};
use ehlo::dialogue::Dialogue;
use ehlo::server::Config;
use tempfile::TempDir;

use common::markdown::{Fence, Page};

/// How long one fence may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to end after SIGTERM, before it is killed.
const GOODBYE: Duration = Duration::from_secs(5);
/// The port that the README speaks of.
const PORT: &str = "2525";

const FEWEST_FENCES: usize = 3;
const FEWEST_FLAGS: usize = 10;

/// What stands in for cargo. It notes its arguments; then it becomes the
/// program that cargo would have started.
const CARGO: &str = r#"#!/bin/sh
echo "cargo $*" >> "$README_LOG"
case "${1-}" in
test) exit 0 ;;
run) shift ;;
*) echo "the stand-in for cargo knows run and test, not: $*" >&2; exit 1 ;;
esac
example=
while [ $# -gt 0 ]; do
    case "$1" in
    --) shift; break ;;
    --example) example=$2; shift 2 ;;
    -q|--quiet|--release) shift ;;
    *) echo "the stand-in for cargo does not know $1" >&2; exit 1 ;;
    esac
done
if [ -n "$example" ]; then
    if ! [ -x "$README_EXAMPLES/$example" ]; then
        echo "$README_EXAMPLES/$example is not built: run cargo test, or cargo build --examples" >&2
        exit 1
    fi
    # Without an argument, talk calls 127.0.0.1:2525.
    [ "$example $#" != "talk 0" ] || set -- "127.0.0.1:$README_PORT"
    exec "$README_EXAMPLES/$example" "$@"
fi
case " $* " in
*" --smtp "*) ;;
*) set -- --smtp "127.0.0.1:$README_PORT" "$@" ;;
esac
exec "$README_EHLO" "$@"
"#;

#[test]
fn the_readme_runs_as_it_is_printed() {
    let fences = fences();
    let mut reader = Reader::new();
    for (index, fence) in fences.iter().enumerate() {
        match fence.info.as_str() {
            "sh" => reader.run(fence),
            "sh server" => reader.start(fence),
            "sh interactive" => {
                let dialogue = fences[index..].iter().find(|fence| fence.info == "smtp");
                reader.type_into(fence, dialogue.expect("a `smtp` fence after `sh interactive`"));
            }
            "sh other" => reader.parse(fence),
            info => assert!(!info.starts_with("sh"), "{}: what is `{info}`?", fence.place),
        }
    }
    let log = fs::read_to_string(reader.log()).unwrap();
    assert!(log.lines().any(|line| line == "cargo test"), "nobody ran `cargo test`:\n{log}");
}

#[test]
fn the_first_two_commands_are_cargo_run_and_cargo_test() {
    let fences = fences();
    let commands = fences.iter().filter(|fence| fence.info.starts_with("sh")).flat_map(|fence| {
        fence
            .lines
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    });
    assert_eq!(commands.take(2).collect::<Vec<_>>(), ["cargo run", "cargo test"]);
}

#[test]
fn the_table_of_flags_is_what_help_says() {
    let help = flags_of_help();
    let table = flags_of_table(&Page::read("README.md"));
    let mut wrong = Vec::new();
    for (flag, said) in &help {
        match table.get(flag) {
            None => wrong.push(format!("{flag}: has no row")),
            Some(row) if row.default != said.default => {
                let (row, said) = (&row.default, &said.default);
                wrong.push(format!("{flag}: default `{row}`, --help says `{said}`"));
            }
            // A row may say more.
            Some(row) if !row.meaning.starts_with(&said.meaning) => {
                let (row, said) = (&row.meaning, &said.meaning);
                wrong.push(format!("{flag}: `{row}`\n    --help says `{said}`"));
            }
            Some(_) => {}
        }
    }
    for flag in table.keys().filter(|flag| !help.contains_key(*flag)) {
        wrong.push(format!("{flag}: --help does not know it"));
    }
    assert!(wrong.is_empty(), "the table of README.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_defaults_of_help_are_those_of_a_server_without_flags() {
    let mut args = Vec::new();
    for (flag, Flag { default, .. }) in flags_of_help() {
        // A switch has no default, and `the hostname` is not a value.
        let default = default.split(',').next().unwrap();
        if !default.is_empty() && !default.contains(' ') {
            args.extend([flag.split(' ').next().unwrap().to_owned(), default.to_owned()]);
        }
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Ok(Request::Serve(config)) = config::from_args(&args) else { panic!("{args:?}") };
    // `./spool` is what `spool` means.
    let said = format!("{config:?}").replace("\"./", "\"");
    assert_eq!(said, format!("{:?}", Config::default()), "left: --help; right: the default");
}

/// What is said of a flag.
struct Flag {
    /// Empty where there is none.
    default: String,
    meaning: String,
}

/// Each flag with its placeholder.
type Flags = BTreeMap<String, Flag>;

/// The flags in the form that argh prints them: `[--smtp <ADDR:PORT...>]` in
/// the first line, `--smtp   text (default 127.0.0.1:2525)` below.
fn flags_of_help() -> Flags {
    let output = Command::new(env!("CARGO_BIN_EXE_ehlo")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (usage, options) = help.split_once("Options:").unwrap();
    let mut said = BTreeMap::new();
    for option in options.split("\n  --").skip(1) {
        let text = option.split_whitespace().collect::<Vec<_>>().join(" ");
        let (name, text) = text.split_once(' ').unwrap();
        let (meaning, default) = text.split_once(" (default").unwrap_or((text, ""));
        let default = default.trim_start_matches(':').trim_end_matches(')').trim();
        said.insert(name.to_owned(), (meaning.to_owned(), default.to_owned()));
    }
    let mut flags = Flags::new();
    // argh leaves its own flag out of the first line.
    let names = usage.split("[--").skip(1).map(|flag| flag.split(']').next().unwrap());
    for flag in names.chain(["help"]) {
        let flag = flag.replace(['<', '>'], "").replace("...", "");
        let name = flag.split(' ').next().unwrap();
        let (meaning, default) = match name {
            "help" => ("print the flags".to_owned(), String::new()),
            name => said[name].clone(),
        };
        flags.insert(format!("--{flag}"), Flag { default, meaning });
    }
    assert!(flags.len() >= FEWEST_FLAGS, "only {} flags in --help", flags.len());
    flags
}

/// The rows of the README's table of flags, without Markdown. No default is an
/// empty cell, a dash or `off`.
fn flags_of_table(page: &Page) -> Flags {
    let mut flags = Flags::new();
    for (number, line) in page.prose() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 4 || !cells[1].starts_with("`--") {
            continue;
        }
        let [flag, default, meaning] = [cells[1], cells[2], cells[3]].map(without_markdown);
        let has_none = ["", "-", "–", "—", "off"].contains(&default.as_str());
        let default = if has_none { String::new() } else { default };
        let earlier = flags.insert(flag, Flag { default, meaning });
        assert!(earlier.is_none(), "README.md:{number}: {} has two rows", cells[1]);
    }
    flags
}

/// `[text](target)` and code as they read.
fn without_markdown(cell: &str) -> String {
    let mut text = cell.replace(['`', '['], "");
    while let Some((before, rest)) = text.split_once("](") {
        let (_, after) = rest.split_once(')').unwrap();
        text = format!("{before}{after}");
    }
    text
}

fn fences() -> Vec<Fence> {
    let fences = Page::read("README.md").fences();
    let commands = fences.iter().filter(|fence| fence.info.starts_with("sh")).count();
    assert!(commands >= FEWEST_FENCES, "only {commands} fences with commands in README.md");
    fences
}

/// Somebody who follows the README.
struct Reader {
    /// What `sh server` started. First, because the folders go after them.
    servers: Vec<Process>,
    /// Where all commands are run.
    home: TempDir,
    /// The stand-in for cargo, and what it noted.
    tools: TempDir,
    /// What 2525 becomes.
    port: String,
}

impl Reader {
    fn new() -> Reader {
        let tools = tempfile::tempdir().unwrap();
        let cargo = tools.path().join("cargo");
        fs::write(&cargo, CARGO).unwrap();
        fs::set_permissions(&cargo, Permissions::from_mode(0o755)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        Reader { servers: Vec::new(), home: tempfile::tempdir().unwrap(), tools, port }
    }

    /// What the stand-in for cargo was asked for.
    fn log(&self) -> PathBuf {
        self.tools.path().join("log")
    }

    /// `sh`: runs to its end.
    fn run(&self, fence: &Fence) {
        Process::start(self, fence, Stdio::null()).wait();
    }

    /// `sh server`: runs until the end of the test.
    fn start(&mut self, fence: &Fence) {
        let mut process = Process::start(self, fence, Stdio::null());
        process.wait_for("listening ");
        self.servers.push(process);
    }

    /// `sh interactive`: the player of dialogues speaks to a socket, and the
    /// socket to the process: what comes in is typed, what is printed goes out.
    fn type_into(&self, fence: &Fence, dialogue: &Fence) {
        let script = dialogue.lines.join("\n").replace(PORT, &self.port);
        let script: Dialogue =
            script.parse().unwrap_or_else(|error| panic!("{}: {error}", dialogue.place));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut process = Process::start(self, fence, Stdio::piped());

        let player = thread::spawn(move || script.play(address));
        let (socket, _) = listener.accept().unwrap();
        let (typed, keyboard) = (socket.try_clone().unwrap(), process.keyboard());
        let typing = thread::spawn(move || type_lines(typed, keyboard));
        process.show_lines(&socket);
        let _ = socket.shutdown(Shutdown::Both);
        let played = player.join().unwrap();
        typing.join().unwrap();

        if let Err(error) = played {
            process.fail(&format!("the dialogue of {} goes otherwise: {error}", dialogue.place));
        }
        process.wait();
    }

    /// `sh other`: is at least a script.
    fn parse(&self, fence: &Fence) {
        let mut shell = Command::new("sh");
        let output = shell.args(["-n", "-c", &fence.lines.join("\n")]).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {complaint}", fence.place);
    }
}

/// Passes the lines of a socket on as a keyboard would, without CR.
fn type_lines(socket: TcpStream, mut keyboard: ChildStdin) {
    for line in BufReader::new(socket).split(b'\n') {
        let Ok(mut line) = line else { return };
        line.pop_if(|octet| *octet == b'\r');
        line.push(b'\n');
        // Fails when the program ends first; what it printed tells why.
        let _ = keyboard.write_all(&line);
    }
}

/// A shell and all that it started, ended when dropped.
struct Process {
    /// The fence that it runs.
    place: String,
    shell: Child,
    /// The lines that it prints, as they come.
    lines: Receiver<String>,
    /// Those that were received.
    printed: String,
    /// The file with what it said on standard error.
    errors: PathBuf,
    deadline: Instant,
}

impl Process {
    fn start(reader: &Reader, fence: &Fence, input: Stdio) -> Process {
        let errors = reader.tools.path().join(format!("errors-{}", fence.line));
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("sh")
            .args(["-eu", "-c", &fence.lines.join("\n").replace(PORT, &reader.port)])
            .current_dir(&reader.home)
            .env("PATH", format!("{}:{path}", reader.tools.path().display()))
            .env("README_LOG", reader.log())
            .env("README_EHLO", env!("CARGO_BIN_EXE_ehlo"))
            .env("README_EXAMPLES", common::examples())
            .env("README_PORT", &reader.port)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap())
            // A group of its own, so that all of it can be ended.
            .process_group(0)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(shell.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let place = fence.place.clone();
        Process { place, shell, lines, printed: String::new(), errors, deadline }
    }

    fn keyboard(&mut self) -> ChildStdin {
        self.shell.stdin.take().unwrap()
    }

    /// The next line, or `None` when all that could print has ended.
    fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.printed += &format!("{line}\n");
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.fail("took too long"),
        }
    }

    /// Waits for a line that begins so.
    fn wait_for(&mut self, begin: &str) {
        while let Some(line) = self.line() {
            if line.starts_with(begin) {
                return;
            }
        }
        self.fail(&format!("ended without a line `{begin}…`"));
    }

    /// Sends what is printed to a socket, as a server would.
    fn show_lines(&mut self, mut socket: &TcpStream) {
        while let Some(line) = self.line() {
            // Fails when the player has seen enough.
            let _ = socket.write_all(format!("{line}\r\n").as_bytes());
        }
    }

    /// Waits for the end, which has to be a good one.
    fn wait(mut self) {
        while self.line().is_some() {}
        let status = self.shell.wait().unwrap();
        if !status.success() {
            self.fail(&status.to_string());
        }
    }

    /// Ends the test.
    fn fail(&self, why: &str) -> ! {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        panic!("{}: {why}\nprinted:\n{}\nerrors:\n{errors}", self.place, self.printed);
    }

    /// Sends a signal to the shell and all that it started.
    fn signal(&self, name: &str) {
        let group = format!("-{}", self.shell.id());
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", name, &group]);
        // There may be nobody left to be told.
        let _ = kill.stderr(Stdio::null()).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("TERM");
        self.deadline = Instant::now() + GOODBYE;
        // The end of its output is the end of all its processes.
        let left = || self.deadline.saturating_duration_since(Instant::now());
        while self.lines.recv_timeout(left()).is_ok() {}
        self.signal("KILL");
        let _ = self.shell.wait();
    }
}
