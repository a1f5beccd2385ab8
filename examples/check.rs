//! Grades SMTP servers by dialogues: `cargo run --example check -- HOST:PORT… [FILES…]`.
//!
//! In: one or more servers, and dialogues: files, folders, or all of `tests/dialogues/`.
//! Out: one line for each dialogue, what went wrong where one was not answered as it says,
//! and the points of each level; for several servers one line each. Exit code 0 if all
//! answers were right, 1 if one was not, 2 for a wrong flag or script, 3 if a server could
//! not be tried to the end.
//!
//! A dialogue whose needs the server does not meet is skipped, and one above `--level` is
//! left out, unless its file is named.
//! How the dialogues are read is in `check/tasks.rs`, how they are played in
//! `check/grade.rs`, and what is printed and written of it in `check/report.rs`.
//!
//! Book: docs/03-replies.md.

#[path = "flags/mod.rs"]
mod flags;
#[path = "check/grade.rs"]
mod grade;
#[path = "check/report.rs"]
mod report;
#[path = "check/tasks.rs"]
mod tasks;

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;

use grade::{Grade, Rules};

/// Grade SMTP servers by dialogues. Exit code: 0 all right, 1 something wrong, 2 a wrong flag
/// or script, 3 could not be tried.
#[derive(FromArgs)]
struct Flags {
    /// servers, and files or folders of dialogues (default: all of tests/dialogues/)
    #[argh(positional, arg_name = "HOST:PORT or FILE")]
    what: Vec<String>,

    /// only dialogues up to this level: 1 talks, 2 order, 3 forms, 4 bytes, 5 beyond (default 5)
    #[argh(option, arg_name = "N", default = "5")]
    level: u8,

    /// want the texts of ehlo, and not only the codes
    #[argh(switch)]
    texts: bool,

    /// a mailbox of the server, in the place of bob@localhost; a second one is for all others
    #[argh(option, arg_name = "NAME@DOMAIN")]
    mailbox: Vec<String>,

    /// what the server meets, as a needs: line has it, such as "extension CHUNKING"
    #[argh(option, arg_name = "NEED")]
    have: Vec<String>,

    /// how long to wait for one answer of the server, all of it (default 3)
    #[argh(option, arg_name = "SECS", default = "3.0")]
    timeout: f64,

    /// how many dialogues at a time, if the server takes so many (default 8)
    #[argh(option, arg_name = "N", default = "8")]
    jobs: usize,

    /// write all results to this file, as JSON
    #[argh(option, arg_name = "FILE")]
    json: Option<PathBuf>,

    /// write the results.json of Gradescope to this file; for one server
    #[argh(option, arg_name = "FILE")]
    gradescope: Option<PathBuf>,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("check", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(&flags) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("check: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(flags: &Flags) -> Result<ExitCode, String> {
    // What there is on the disk is a dialogue, everything else is a server.
    let (named, servers): (Vec<&String>, Vec<&String>) =
        flags.what.iter().partition(|name| Path::new(name).exists());
    let servers = servers.into_iter().map(|name| resolve(name)).collect::<Result<Vec<_>, _>>()?;
    if servers.is_empty() {
        return Err("which server? HOST:PORT; --help tells more".to_owned());
    }
    let is_one = servers.len() == 1;
    if flags.gradescope.is_some() && !is_one {
        return Err("--gradescope is for one server".to_owned());
    }
    if !(1..=5).contains(&flags.level) {
        return Err("--level is one of 1 to 5".to_owned());
    }
    let tasks = tasks::read(&named, flags.level)?;
    let rules = Rules {
        texts: flags.texts,
        patience: Duration::try_from_secs_f64(flags.timeout)
            .ok()
            .filter(|time| !time.is_zero())
            .ok_or("--timeout is a number of seconds above 0")?,
        mailboxes: flags.mailbox.clone(),
        have: flags.have.clone(),
        jobs: flags.jobs.max(1),
    };
    let mut grades = Vec::new();
    for (name, address) in servers {
        let grade = grade::grade(name, address, &tasks, &rules, |task, outcome| {
            !is_one || say(&report::outcome(task, outcome))
        });
        let ending =
            if is_one { report::summary(&grade, &tasks) } else { report::line(&grade, &tasks) };
        say(&ending);
        grades.push(grade);
    }
    if let Some(path) = &flags.json {
        write(path, &report::json(&grades, &tasks))?;
    }
    if let (Some(path), [grade]) = (&flags.gradescope, grades.as_slice()) {
        write(path, &report::gradescope(grade, &tasks))?;
    }
    Ok(exit_code(&grades))
}

fn resolve(name: &str) -> Result<(&str, SocketAddr), String> {
    let address = name.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    address.map(|address| (name, address)).ok_or(format!("{name}: no such file, and no HOST:PORT"))
}

/// Prints, and says whether somebody still reads: `| head` does not for long.
fn say(text: &str) -> bool {
    writeln!(io::stdout(), "{text}").is_ok()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn exit_code(grades: &[Grade]) -> ExitCode {
    if grades.iter().any(|grade| grade.stopped.is_some()) {
        ExitCode::from(3)
    } else if grades.iter().any(|grade| grade.wrong() > 0) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}
