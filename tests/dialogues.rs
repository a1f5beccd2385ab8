//! Plays every script in `tests/dialogues/`, each against a server of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ehlo::dialogue::Dialogue;

use common::{TestServer, files};

#[test]
fn the_server_answers_as_every_dialogue_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let scripts = files(&folder);
    assert!(scripts.len() >= 80, "only {} dialogues", scripts.len());

    let mut wrong = Vec::new();
    for path in &scripts {
        let dialogue: Dialogue = fs::read_to_string(path).unwrap().parse().unwrap();
        let server = TestServer::with_needs(dialogue.needs());
        if let Err(error) = dialogue.play(server.address) {
            wrong.push(format!("{}: {error}", path.display()));
        }
    }
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
