//! Shows what still has to go elsewhere: `cargo run --example queue [-- --spool DIR]`.
//!
//! One line for each recipient who waits, the oldest letter first. It only reads,
//! and claims nothing, so it disturbs no server that works on the same spool, and
//! needs none. An entry that is gone before it is read is left out. Exit code 0,
//! 1 if the queue or one of its entries cannot be read, 2 for a wrong flag.
//!
//! Book: docs/20-outgrowing-one-machine.md.

#[path = "queue/table.rs"]
mod table;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;
use ehlo::store::envelope::{Entry, Recipient, State};
use ehlo::store::queue::Queue;
use jiff::Timestamp;
use table::{Row, table};

/// Show what still has to go to other servers.
#[derive(FromArgs)]
struct Flags {
    /// the spool of the server (default ./spool)
    #[argh(option, arg_name = "DIR", default = "PathBuf::from(\"spool\")")]
    spool: PathBuf,
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let flags = match Flags::from_args(&["queue"], &args) {
        Ok(flags) => flags,
        Err(exit) => {
            eprint!("{}", exit.output);
            return ExitCode::from(if exit.status.is_ok() { 0 } else { 2 });
        }
    };
    let (entries, is_whole) = match entries(&flags.spool) {
        Ok(found) => found,
        Err(why) => {
            eprintln!("queue: {why}");
            return ExitCode::from(1);
        }
    };
    let rows: Vec<Row> = entries.iter().flat_map(rows).collect();
    if !rows.is_empty() {
        print!("{}", table(&rows, Timestamp::now()));
    } else if is_whole {
        println!("Nobody waits: the queue is empty.");
    }
    if is_whole { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// All entries with their ids, the oldest first; and whether all could be read.
fn entries(spool: &Path) -> Result<(Vec<(String, Entry)>, bool), String> {
    let queue = Queue::new(spool);
    let folder = spool.join("queue");
    let ids = queue.ids().map_err(|error| format!("{}: {error}", folder.display()))?;
    let (mut entries, mut is_whole) = (Vec::new(), true);
    for id in ids {
        let why = match queue.read(&id) {
            Ok(Some(Ok(entry))) => {
                entries.push((id, entry));
                continue;
            }
            // Delivered meanwhile, or given up.
            Ok(None) => continue,
            Ok(Some(Err(bad))) => bad.to_string(),
            Err(error) => error.to_string(),
        };
        eprintln!("queue: {}: {why}", folder.join(format!("{id}.envelope")).display());
        is_whole = false;
    }
    entries.sort_by(|(a_id, a), (b_id, b)| (a.arrived, a_id).cmp(&(b.arrived, b_id)));
    Ok((entries, is_whole))
}

/// A row for each recipient who waits.
fn rows((id, entry): &(String, Entry)) -> Vec<Row> {
    let waiting = entry.recipients.iter().filter(|recipient| recipient.state == State::Waiting);
    let row = |recipient: &Recipient| Row {
        id: id.clone(),
        arrived: entry.arrived,
        attempts: entry.attempts,
        next: entry.next,
        sender: entry.reverse_path.to_string(),
        recipient: format!("<{}>", recipient.address),
        last: recipient.last.clone(),
    };
    waiting.map(row).collect()
}
