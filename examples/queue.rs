//! Shows what still has to go somewhere, and changes it:
//! `cargo run --example queue [-- [--spool DIR] show ID | now [ID] | drop ID | bounce ID]`.
//!
//! Without a command there is one line for each recipient who waits, the oldest letter
//! first. `show` tells everything about an entry. `now` makes it due, which a server sees
//! within a minute, `drop` ends it and tells nobody, `bounce` gives it back to its sender.
//! An ID is that of an entry, such as M1P2Q3-1, or of a message, M1P2Q3, and means all its
//! entries then.
//!
//! The list and `show` only read, and claim nothing, so they disturb no server and show
//! what one is just trying. A change is made under the lock of its entry, so servers may
//! work on the same spool. Whoever changes an envelope owns it after that: run this as
//! the user whose server it is. Exit code 0, 1 if something could not be read or
//! changed, 2 for a wrong flag or command.
//!
//! Book: docs/20-outgrowing-one-machine.md.

#[path = "queue/change.rs"]
mod change;
#[path = "queue/details.rs"]
mod details;
#[path = "flags/mod.rs"]
mod flags;
#[path = "queue/table.rs"]
mod table;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;
use change::Change;
use details::details;
use ehlo::store::envelope::Entry;
use ehlo::store::header::header_of;
use ehlo::store::queue::{Claimed, Queue};
use jiff::Timestamp;
use table::{rows, table};

const FORM: &str = "usage: queue [--spool DIR] [show ID | now [ID] | drop ID | bounce ID]\n";
/// How much of a letter is read, in octets, to find its header.
const HEADER_LIMIT: u64 = 64 * 1024;

/// Show what still has to go somewhere, or change it. An ID is that of an entry or of a
/// message, as in the log.
#[derive(FromArgs)]
struct Flags {
    /// the spool of the server (default ./spool)
    #[argh(option, arg_name = "DIR", default = "PathBuf::from(\"spool\")")]
    spool: PathBuf,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Show(Show),
    Now(Now),
    Drop(Drop),
    Bounce(Bounce),
}

/// Tell everything about an entry, with the header of the letter.
#[derive(FromArgs)]
#[argh(subcommand, name = "show")]
struct Show {
    #[argh(positional, arg_name = "ID")]
    id: String,
}

/// Make an entry due now, or all of them.
#[derive(FromArgs)]
#[argh(subcommand, name = "now")]
struct Now {
    #[argh(positional, arg_name = "ID")]
    id: Option<String>,
}

/// End an entry, and tell nobody.
#[derive(FromArgs)]
#[argh(subcommand, name = "drop")]
struct Drop {
    #[argh(positional, arg_name = "ID")]
    id: String,
}

/// Give the letter back to its sender, with a report.
#[derive(FromArgs)]
#[argh(subcommand, name = "bounce")]
struct Bounce {
    #[argh(positional, arg_name = "ID")]
    id: String,
}

fn main() -> ExitCode {
    // An envelope that cannot be used is set aside, and the log says why.
    env_logger::builder().filter_level(log::LevelFilter::Error).init();
    let Flags { spool, command } = match flags::read("queue", FORM) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let done = match command {
        None => list(&spool),
        Some(Command::Show(Show { id })) => show(&spool, &id),
        Some(Command::Now(Now { id })) => change(&spool, id.as_deref(), change::now),
        Some(Command::Drop(Drop { id })) => change(&spool, Some(&id), change::drop),
        Some(Command::Bounce(Bounce { id })) => change(&spool, Some(&id), change::bounce),
    };
    match done {
        Ok(Done::All) => ExitCode::SUCCESS,
        Ok(Done::NotAll) => ExitCode::from(1),
        Err(why) => {
            eprintln!("queue: {why}");
            ExitCode::from(1)
        }
    }
}

/// How far something was done. What is missing was named.
#[derive(PartialEq)]
enum Done {
    All,
    NotAll,
}

/// One line for each recipient who waits, or whose sender has to hear something.
fn list(spool: &Path) -> Result<Done, String> {
    let (mut entries, mut done) = (Vec::new(), Done::All);
    for id in ids(spool, None)? {
        match read(spool, &id) {
            Ok(Some(entry)) => entries.push((id, entry)),
            Ok(None) => {}
            Err(why) => done = not_all(&id, &why),
        }
    }
    entries.sort_by(|(a_id, a), (b_id, b)| {
        (a.letter.arrived, a_id.len(), a_id).cmp(&(b.letter.arrived, b_id.len(), b_id))
    });
    let rows: Vec<_> = entries.iter().flat_map(|(id, entry)| rows(id, entry)).collect();
    if !rows.is_empty() {
        say(table(&rows, Timestamp::now()).trim_end());
    } else if done == Done::All {
        say("Nobody waits: the queue is empty.");
    }
    Ok(done)
}

/// Everything about the entries that an id means.
fn show(spool: &Path, wanted: &str) -> Result<Done, String> {
    let mut done = Done::All;
    for id in ids(spool, Some(wanted))? {
        let shown = read(spool, &id).and_then(|entry| {
            let entry = entry.ok_or("it has just left the queue")?;
            let header = header(spool, &id, entry.letter.skip);
            let header = header.map_err(|error| format!("its message: {error}"))?;
            Ok(details(&id, &entry, &header, Timestamp::now()))
        });
        match shown {
            Ok(text) => say(text.trim_end()),
            Err(why) => done = not_all(&id, &why),
        }
    }
    Ok(done)
}

/// Makes a change to all entries that an id means, each under its lock.
fn change(spool: &Path, wanted: Option<&str>, act: Change) -> Result<Done, String> {
    let queue = Queue::new(spool);
    let (mut done, mut has_work) = (Done::All, false);
    for id in ids(spool, wanted)? {
        let changed = match queue.claim(&id) {
            Ok(Claimed::Ours(mut claim)) => act(&mut claim, Timestamp::now()),
            Ok(Claimed::Taken) => Err(io::Error::other("in use, try again")),
            Ok(Claimed::Gone) => Err(io::Error::other("it is not in the queue any more")),
            Err(error) => Err(error),
        };
        match changed {
            Ok(changed) => {
                has_work |= changed.has_work;
                say(&format!("{id}: {}", changed.what));
            }
            Err(why) => done = not_all(&id, &why.to_string()),
        }
    }
    if has_work {
        say(
            "A running server sees this within a minute. After SIGUSR1 it tries everything at once.",
        );
    }
    Ok(done)
}

/// The entries that an id means, or all, those of one message in order.
fn ids(spool: &Path, wanted: Option<&str>) -> Result<Vec<String>, String> {
    let all = Queue::new(spool).ids();
    let all = all.map_err(|error| format!("{}: {error}", spool.join("queue").display()))?;
    let is_wanted = |id: &String| {
        let message = id.split_once('-').map(|(message, _)| message);
        wanted.is_none_or(|wanted| id == wanted || message == Some(wanted))
    };
    let mut ids: Vec<String> = all.into_iter().map(|(id, _)| id).filter(is_wanted).collect();
    ids.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    match wanted {
        Some(wanted) if ids.is_empty() => Err(format!("{wanted}: no such entry")),
        _ => Ok(ids),
    }
}

/// An entry, without a claim; `None` if it was delivered meanwhile, or given up.
fn read(spool: &Path, id: &str) -> Result<Option<Entry>, String> {
    match Queue::new(spool).read(id) {
        Ok(Some(Ok(entry))) => Ok(Some(entry)),
        Ok(None) => Ok(None),
        Ok(Some(Err(bad))) => Err(format!("its envelope: {bad}")),
        Err(error) => Err(format!("its envelope: {error}")),
    }
}

/// The header of the letter, from behind our `Return-Path`.
fn header(spool: &Path, id: &str, skip: u64) -> io::Result<Vec<u8>> {
    let mut message = File::open(spool.join("queue").join(format!("{id}.message")))?;
    message.seek(SeekFrom::Start(skip))?;
    let mut start = Vec::new();
    message.take(HEADER_LIMIT).read_to_end(&mut start)?;
    Ok(header_of(&start))
}

fn not_all(id: &str, why: &str) -> Done {
    eprintln!("queue: {id}: {why}");
    Done::NotAll
}

/// One line or more. A reader who has gone, as `head` does, stops no change.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
