//! The dialogues that a server is graded by.
//!
//! In: names of files and folders. Out: their dialogues, by level and name; and what a
//! server would have to be for one of them. No dialogue at all is an error.
//!
//! Book: docs/03-replies.md.

use std::fs;
use std::path::{Path, PathBuf};

use ehlo::dialogue::Dialogue;

/// One dialogue, which is one claim about a server.
pub struct Task {
    /// As it is shown: inside the repository, if it stands there.
    pub path: PathBuf,
    /// Its file name, as words.
    pub claim: String,
    /// A dialogue without a level is one of the user's own, and counts as 1.
    pub level: u8,
    /// Its comments: why it matters.
    pub why: Vec<String>,
    /// The file itself was asked for, so it is played whatever its level and its needs.
    pub is_named: bool,
    pub dialogue: Dialogue,
}

/// Reads the files, those in the folders, or all there are, up to a level.
pub fn read(named: &[&String], level: u8) -> Result<Vec<Task>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut tasks = Vec::new();
    let all = [folder];
    let named: Vec<&Path> = named.iter().map(Path::new).collect();
    let places = if named.is_empty() { all.iter().map(PathBuf::as_path).collect() } else { named };
    for place in places {
        if place.is_dir() {
            let entries = fs::read_dir(place).map_err(|error| format!("{place:?}: {error}"))?;
            let paths = entries.flatten().map(|entry| entry.path());
            for path in paths.filter(|path| path.extension().is_some_and(|end| end == "smtp")) {
                tasks.push(task(&path, false)?);
            }
        } else {
            tasks.push(task(place, true)?);
        }
    }
    tasks.retain(|task| task.is_named || task.level <= level);
    if tasks.is_empty() {
        return Err(format!("no dialogues up to level {level}; a folder has them as *.smtp"));
    }
    tasks.sort_by(|a, b| (a.level, &a.path).cmp(&(b.level, &b.path)));
    Ok(tasks)
}

fn task(path: &Path, is_named: bool) -> Result<Task, String> {
    let script = fs::read_to_string(path).map_err(|error| format!("{path:?}: {error}"))?;
    let dialogue: Dialogue = script.parse().map_err(|error| format!("{path:?}: {error}"))?;
    let comments = script.lines().filter(|line| line.starts_with('#'));
    Ok(Task {
        path: path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).to_owned(),
        claim: path.file_stem().unwrap_or_default().to_string_lossy().replace('_', " "),
        level: dialogue.level().unwrap_or(1),
        why: comments.filter(|line| !line.starts_with("# level:")).map(str::to_owned).collect(),
        is_named,
        dialogue,
    })
}

impl Task {
    /// What of its needs a server does not meet that announces these extensions, and of
    /// which the user says that it has these.
    pub fn missing(&self, announced: &[String], have: &[String]) -> Vec<&str> {
        let announces = |keyword: &str| announced.iter().any(|known| known == keyword);
        let is_met = |need: &str| {
            have.iter().any(|known| known == need)
                || need == "tls" && announces("STARTTLS")
                || need.strip_prefix("extension ").is_some_and(announces)
        };
        let needs = self.dialogue.needs().iter().map(String::as_str);
        needs.filter(|need| !is_met(need)).collect()
    }
}
