//! Plays every script in `tests/dialogues/`, each against a server of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ehlo::dialogue::{Dialogue, PlayError};

use common::{TestServer, files};

const PLAYERS: usize = 8;

/// All of them; fewer than this would not be all.
fn scripts() -> Vec<PathBuf> {
    let scripts = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues"));
    assert!(scripts.len() >= 250, "only {} dialogues", scripts.len());
    scripts
}

fn dialogue(path: &Path) -> Dialogue {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Plays a script against a server of its own.
fn play(path: &Path) -> Result<(), PlayError> {
    let dialogue = dialogue(path);
    let server = TestServer::with_needs(dialogue.needs());
    dialogue.play(server.address)
}

#[test]
fn the_server_answers_as_every_dialogue_says() {
    let scripts = scripts();
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

/// A course goes up the levels, so none of them may run empty.
#[test]
fn each_dialogue_has_a_level_and_each_level_has_enough_of_them() {
    let mut counts = BTreeMap::new();
    for path in scripts() {
        let level = dialogue(&path).level().unwrap_or_else(|| panic!("{path:?} has no level"));
        *counts.entry(level).or_insert(0) += 1;
    }
    for (level, fewest) in [(1, 10), (2, 14), (3, 18), (4, 30), (5, 100)] {
        let found = counts.get(&level).copied().unwrap_or_default();
        assert!(found >= fewest, "level {level} has {found} dialogues");
    }
}

/// `check` shows the comments of a dialogue to whoever failed it.
#[test]
fn each_dialogue_says_where_to_read_why() {
    for path in scripts() {
        let script = fs::read_to_string(&path).unwrap();
        let comments: Vec<&str> = script.lines().filter(|line| line.starts_with('#')).collect();
        let comments = comments.join(" ");
        let words: Vec<&str> = comments.split_whitespace().collect();
        let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let names_a_chapter =
            words.windows(2).any(|pair| pair[0].to_lowercase() == "chapter" && is_number(pair[1]));
        let names_a_section = words.windows(4).any(|words| {
            let is_section = ["section", "sections", "appendix"].contains(&words[2]);
            words[0].ends_with("RFC") && is_number(words[1]) && is_section
        });
        assert!(names_a_chapter || names_a_section, "{path:?} names no RFC and no chapter");
    }
}

#[test]
fn ehlo_announces_what_dialogues_need() {
    let needs = |path| dialogue(path).needs().to_vec();
    let needs: BTreeSet<String> = scripts().iter().flat_map(|path| needs(path)).collect();
    let keywords: Vec<&str> =
        needs.iter().filter_map(|need| need.strip_prefix("extension ")).collect();
    assert!(keywords.len() >= 5, "only {keywords:?}");
    let server = TestServer::start(&[]);
    for keyword in keywords {
        let script = format!("S: 220 *\nC: EHLO c\nS: ...\nS: 250-{keyword}*\nS: ...\nS: 250 *");
        script.parse::<Dialogue>().unwrap().play(server.address).unwrap();
    }
}

#[test]
fn no_two_dialogues_are_alike() {
    let mut seen = BTreeMap::new();
    for path in scripts() {
        if let Some(other) = seen.insert(format!("{:?}", dialogue(&path)), path.clone()) {
            panic!("{} and {} are alike", path.display(), other.display());
        }
    }
}
