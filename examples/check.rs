//! Plays dialogues against any server: `cargo run --example check -- HOST:PORT [FILES]`.
//!
//! Without files it plays all of `tests/dialogues/`. One line for each, and exit
//! code 0 if every one was answered as the script says, 1 if not, 2 if it could
//! not be tried. A dialogue that needs flags of ehlo or certain mailboxes is
//! passed over, unless it is named: a server of your own may not have them.
//!
//! Book: docs/03-replies.md.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use ehlo::dialogue::Dialogue;

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let Some(server) = args.next().as_deref().and_then(resolve) else {
        eprintln!("usage: check HOST:PORT [FILES]");
        return ExitCode::from(2);
    };
    let named: Vec<PathBuf> = args.map(PathBuf::from).collect();
    match check(server, named) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(why) => {
            eprintln!("check: {why}");
            ExitCode::from(2)
        }
    }
}

fn resolve(server: &str) -> Option<SocketAddr> {
    server.to_socket_addrs().ok()?.next()
}

/// Plays the files, or all there are, and gives how many went wrong.
fn check(server: SocketAddr, named: Vec<PathBuf>) -> Result<usize, String> {
    let plays_all = named.is_empty();
    let files = if plays_all { all_dialogues()? } else { named };
    let (mut right, mut wrong, mut passed_over) = (0, 0, 0);
    for path in files {
        let claim = path.file_stem().unwrap_or_default().to_string_lossy().replace('_', " ");
        let script = fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?;
        let dialogue: Dialogue = script.parse().map_err(|error| format!("{path:?}: {error}"))?;
        if plays_all && !dialogue.needs().is_empty() {
            println!("skip  {claim} (needs {})", dialogue.needs().join(", "));
            passed_over += 1;
            continue;
        }
        match dialogue.play(server) {
            Ok(()) => {
                println!("ok    {claim}");
                right += 1;
            }
            Err(error) => {
                let shown = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path);
                println!("WRONG {claim}\n      {}, {error}", shown.display());
                wrong += 1;
            }
        }
    }
    println!("{right} right, {wrong} wrong, {passed_over} passed over");
    Ok(wrong)
}

fn all_dialogues() -> Result<Vec<PathBuf>, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialogues");
    let entries = fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}
