//! Why a reply was what it was: in the words of the source.
//!
//! In: a state, a line of the client, and the reply. Out: the sentence above the arm of
//! the state machine that answered (`src/smtp/session/mod.rs`), and the one above the
//! reply (`src/smtp/reply/ours.rs`). Both are read from the files themselves, so they
//! cannot be old. An arm with a condition is known by its reply; what no arm answers, a
//! line that is no command or a message, has the sentence of its reply alone.
//!
//! Book: docs/08-threads.md.

use std::sync::LazyLock;

use ehlo::smtp::command::Command;
use serde_json::{Value, json};

use crate::script::is_message;

static TABLE: LazyLock<Vec<Arm>> =
    LazyLock::new(|| arms(include_str!("../../src/smtp/session/mod.rs")));
static REPLIES: LazyLock<Vec<Known>> =
    LazyLock::new(|| replies(include_str!("../../src/smtp/reply/ours.rs")));

/// Why a reply was what it was.
#[derive(Debug)]
pub struct Why {
    arm: Option<&'static str>,
    reply: Option<&'static str>,
    chapter: &'static str,
}

/// One arm of the table.
#[derive(Debug, Default)]
struct Arm {
    sentence: String,
    /// Its text up to `=>`.
    pattern: String,
    /// And behind it.
    body: String,
}

/// One reply of ours.
#[derive(Debug, Default)]
struct Known {
    name: String,
    /// `250 2.1.0`.
    codes: String,
    sentence: String,
    /// What stands between quotes in it, cut where something is filled in.
    texts: Vec<String>,
}

impl Why {
    /// Of the last line of a reply; other lines only go on with it. `asked` is what the
    /// client said, or what is told in its place: a message, or a line that is hidden.
    pub fn of(state: &str, asked: &str, reply: &str) -> Option<Why> {
        let (code, rest) = reply.split_at_checked(3)?;
        if rest.starts_with('-') {
            return None;
        }
        let command = Command::parse(asked.as_bytes()).ok();
        let verb = command.map(|command| format!("{command:?}"));
        let verb = verb.as_deref().and_then(|text| text.split([' ', '(', '{']).next());
        let arm = verb.and_then(|verb| arm_of(state, verb, code));
        let known = known(reply);
        let chapter = match verb {
            Some("StartTls") => "10-tls.md",
            Some("Auth") => "11-auth.md",
            Some("Bdat") => "09-extensions.md",
            Some(_) => "05-state-machine.md",
            // What a 250 promises.
            None if is_message(asked) => "07-maildir.md",
            None if state == "Auth" || asked.starts_with("AUTH ") => "11-auth.md",
            None => "03-replies.md",
        };
        let (arm, reply) = (arm.map(|arm| arm.sentence.as_str()), known);
        Some(Why { arm, reply: reply.map(|known| known.sentence.as_str()), chapter })
    }

    /// For the page.
    pub fn told(&self) -> Value {
        json!({ "arm": self.arm, "reply": self.reply, "chapter": self.chapter })
    }
}

/// The first arm for this state and command that can have answered so.
fn arm_of(state: &str, verb: &str, code: &str) -> Option<&'static Arm> {
    TABLE.iter().find(|arm| {
        let is_command = words(&arm.pattern, "Command::").any(|one| one == verb);
        let mut states = words(&arm.pattern, "State::").peekable();
        let is_state = states.peek().is_none() || states.any(|one| one == state);
        let mut codes = words(&arm.body, "reply::").filter_map(|name| {
            let known = REPLIES.iter().find(|known| known.name == name)?;
            known.codes.split(' ').next()
        });
        // An arm that names no reply asks somebody else for it.
        is_command && is_state && codes.next().is_none_or(|one| one == code)
    })
}

/// The reply of ours with these codes, and of several the one with most of this text.
fn known(reply: &str) -> Option<&'static Known> {
    let common = |known: &Known| -> usize {
        let texts = known.texts.iter().filter(|text| reply.contains(text.as_str()));
        texts.map(String::len).sum()
    };
    let has_codes = |known: &&Known| {
        let after = reply.strip_prefix(known.codes.as_str());
        after.is_some_and(|rest| rest.starts_with(' '))
    };
    REPLIES.iter().filter(has_codes).max_by_key(|known| common(known))
}

/// The words of Rust that stand behind `prefix`.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(prefix).skip(1).map(|rest| {
        rest.split(|one: char| !one.is_alphanumeric() && one != '_').next().unwrap_or_default()
    })
}

/// The arms of `fn command`. A sentence is for all arms up to the next empty line.
fn arms(source: &str) -> Vec<Arm> {
    let table = source.split_once("match (state, command) {").map_or("", |(_, table)| table);
    let mut arms: Vec<Arm> = Vec::new();
    let mut sentence = String::new();
    let mut is_in_comment = false;
    for line in table.lines().take_while(|line| *line != "    }") {
        let text = line.trim();
        if let Some(comment) = text.strip_prefix("// ") {
            if !is_in_comment {
                sentence.clear();
            }
            sentence += &format!("{comment} ");
        } else if line.starts_with("            (") {
            let (pattern, body) = text.split_once("=>").unwrap_or((text, ""));
            let (pattern, body) = (pattern.to_owned(), body.to_owned());
            arms.push(Arm { sentence: sentence.trim_end().to_owned(), pattern, body });
        } else if let Some(arm) = arms.last_mut() {
            arm.body += text;
        }
        is_in_comment = text.starts_with("// ");
    }
    arms
}

/// The constructors of `ours.rs`, each with the comment above it.
fn replies(source: &str) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    let mut comment = String::new();
    for line in source.lines() {
        let text = line.trim();
        if let Some(more) = text.strip_prefix("/// ") {
            comment += &format!("{more} ");
        } else if let Some(signature) = text.strip_prefix("pub fn ") {
            let name = signature.split('(').next().unwrap_or_default().to_owned();
            let (codes, sentence) = comment.split_once(": ").unwrap_or_default();
            let codes = codes.split(" to ").next().unwrap_or_default().to_owned();
            let sentence = sentence.trim_end().to_owned();
            known.push(Known { name, codes, sentence, texts: Vec::new() });
            comment.clear();
        } else if let Some(last) = known.last_mut() {
            let quoted = text.split('"').skip(1).step_by(2);
            let pieces = quoted.flat_map(|text| text.split(['{', '}']).step_by(2));
            last.texts.extend(pieces.map(str::to_owned));
        }
    }
    known
}
