//! Plays every script in `tests/dialogues/`, each against a server of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ehlo::dialogue::{Dialogue, PlayError};

use common::{TestServer, files};

const PLAYERS: usize = 8;

/// Plays a script against a server of its own.
fn play(path: &Path) -> Result<(), PlayError> {
    let dialogue: Dialogue = fs::read_to_string(path).unwrap().parse().unwrap();
    let server = TestServer::with_needs(dialogue.needs());
    dialogue.play(server.address)
}

#[test]
fn the_server_answers_as_every_dialogue_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let scripts = files(&folder);
    assert!(scripts.len() >= 150, "only {} dialogues", scripts.len());

    // Several at a time: a failed login is answered after a second.
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..PLAYERS {
            scope.spawn(|| {
                while let Some(path) = scripts.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if let Err(error) = play(path) {
                        wrong.lock().unwrap().push(format!("{}: {error}", path.display()));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_two_dialogues_are_alike() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut seen = BTreeMap::new();
    for path in files(&folder) {
        let dialogue: Dialogue = fs::read_to_string(&path).unwrap().parse().unwrap();
        if let Some(other) = seen.insert(format!("{:?}", dialogue), path.clone()) {
            panic!("{} and {} are alike", path.display(), other.display());
        }
    }
}
