//! What is said of the grades: to a person, and to a program.
//!
//! In: tasks and what came of them. Out: text; printing and writing it is left to
//! `check.rs`.
//!
//! Book: docs/03-replies.md.

use std::fmt::Write;

use ehlo::dialogue::PlayError;
use serde_json::{Value, json};

use crate::grade::{Grade, Outcome};
use crate::tasks::Task;

/// Of a dialogue that is longer, only the end is shown: what went wrong is there.
const LINES_SHOWN: usize = 30;
/// Of a line that is longer than both, only so much of its beginning and of its end.
const CHARS_SHOWN: (usize, usize) = (80, 20);

/// The names of the levels, from 1.
const LEVELS: [&str; 5] = ["talks", "order", "forms", "bytes", "beyond"];

/// How many dialogues of a level came out how.
#[derive(Default, Clone, Copy)]
struct Count {
    right: usize,
    wrong: usize,
    skipped: usize,
    not_tried: usize,
}

impl Count {
    /// All that could have been right.
    fn points(self) -> usize {
        self.right + self.wrong + self.not_tried
    }
}

/// The line for one dialogue, and below it what went wrong.
pub fn outcome(task: &Task, outcome: &Outcome) -> String {
    let Task { claim, level, .. } = task;
    match outcome {
        Outcome::Right => format!("ok    {level}  {claim}"),
        Outcome::Skipped(missing) => format!("skip  {level}  {claim} ({})", why_skipped(missing)),
        Outcome::NotTried => format!("      {level}  {claim} (not tried)"),
        Outcome::Wrong(error, said) => {
            format!("WRONG {level}  {claim}\n{}", indented(&details(task, error, said)))
        }
    }
}

/// What is not announced is one thing, a server of another kind is another.
fn why_skipped(missing: &[String]) -> String {
    let announced: Vec<&str> = missing
        .iter()
        .filter_map(|need| {
            need.strip_prefix("extension ").or((need == "tls").then_some("STARTTLS"))
        })
        .collect();
    if announced.is_empty() {
        format!("needs {}", missing.join(", "))
    } else {
        format!("{} is not announced", announced.join(", "))
    }
}

/// Why it matters, what was said, and where that went wrong.
fn details(task: &Task, error: &PlayError, said: &[String]) -> String {
    let mut text = format!("{}\n", task.path.display());
    for line in &task.why {
        let _ = writeln!(text, "{line}");
    }
    if !task.dialogue.needs().is_empty() {
        let _ = writeln!(
            text,
            "This dialogue is for a server with: {}",
            task.dialogue.needs().join(", ")
        );
    }
    let hidden = said.len().saturating_sub(LINES_SHOWN);
    if hidden > 0 {
        let _ = writeln!(text, "  ({hidden} lines)");
    }
    for line in said.iter().skip(hidden) {
        let _ = writeln!(text, "  {}", shortened(line));
    }
    let _ = write!(text, "{error}");
    text
}

/// The end is shown too: that is where a line end is missing.
fn shortened(line: &str) -> String {
    let ((begin, end), length) = (CHARS_SHOWN, line.chars().count());
    if length <= begin + end {
        return line.to_owned();
    }
    let head: String = line.chars().take(begin).collect();
    let tail: String = line.chars().skip(length - end).collect();
    format!("{head} … {tail}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
}

/// The table at the end: points by level.
pub fn summary(grade: &Grade, tasks: &[Task]) -> String {
    let all = total(grade, tasks);
    if let (Some(why), true) = (&grade.stopped, all.right + all.wrong == 0) {
        return format!("nothing could be tried: {why}");
    }
    let mut text = String::from("\nlevel      points  skipped\n");
    for (number, count) in counts(grade, tasks).into_iter().enumerate() {
        let name = LEVELS.get(number).copied().unwrap_or_default();
        if count.points() + count.skipped > 0 {
            let points = format!("{}/{}", count.right, count.points());
            let _ = writeln!(text, "{} {name:8} {points:>6} {:>8}", number + 1, count.skipped);
        }
    }
    let _ = write!(text, "{} right, {} wrong, {} skipped", all.right, all.wrong, all.skipped);
    if let Some(why) = &grade.stopped {
        let _ = write!(text, ", {} not tried: {why}", all.not_tried);
    }
    if grade.clients == 1 {
        text += "\nThis server greets one client at a time; a second one waits, or is turned away.";
    }
    text
}

/// One server in one line, where there are several.
pub fn line(grade: &Grade, tasks: &[Task]) -> String {
    let mut text = format!("{:22}", grade.server);
    for (number, count) in counts(grade, tasks).into_iter().enumerate() {
        let _ = write!(text, "  {}: {}/{}", number + 1, count.right, count.points());
    }
    let all = total(grade, tasks);
    let _ = write!(text, "  all: {}/{}, {} skipped", all.right, all.points(), all.skipped);
    if let Some(why) = &grade.stopped {
        let _ = write!(text, "; {} not tried: {why}", all.not_tried);
    }
    text
}

fn counts(grade: &Grade, tasks: &[Task]) -> [Count; 5] {
    let mut counts = [Count::default(); 5];
    for (task, outcome) in tasks.iter().zip(&grade.outcomes) {
        let Some(count) = counts.get_mut(usize::from(task.level) - 1) else { continue };
        match outcome {
            Outcome::Right => count.right += 1,
            Outcome::Wrong(..) => count.wrong += 1,
            Outcome::Skipped(_) => count.skipped += 1,
            Outcome::NotTried => count.not_tried += 1,
        }
    }
    counts
}

fn total(grade: &Grade, tasks: &[Task]) -> Count {
    counts(grade, tasks).into_iter().fold(Count::default(), |sum, count| Count {
        right: sum.right + count.right,
        wrong: sum.wrong + count.wrong,
        skipped: sum.skipped + count.skipped,
        not_tried: sum.not_tried + count.not_tried,
    })
}

/// All grades in a plain form.
pub fn json(grades: &[Grade], tasks: &[Task]) -> String {
    let servers: Vec<Value> = grades.iter().map(|grade| server(grade, tasks)).collect();
    format!("{:#}\n", json!({ "servers": servers }))
}

fn server(grade: &Grade, tasks: &[Task]) -> Value {
    let levels = counts(grade, tasks).into_iter().enumerate().map(|(number, count)| {
        json!({
            "level": number + 1,
            "points": count.right,
            "of": count.points(),
            "skipped": count.skipped,
        })
    });
    let dialogues = tasks.iter().zip(&grade.outcomes).map(|(task, outcome)| {
        let (name, text) = match outcome {
            Outcome::Right => ("right", String::new()),
            Outcome::Wrong(error, said) => ("wrong", details(task, error, said)),
            Outcome::Skipped(missing) => ("skipped", why_skipped(missing)),
            Outcome::NotTried => ("not tried", String::new()),
        };
        json!({ "claim": task.claim, "level": task.level, "outcome": name, "text": text })
    });
    let all = total(grade, tasks);
    json!({
        "server": grade.server,
        "points": all.right,
        "of": all.points(),
        "skipped": all.skipped,
        "clients": grade.clients,
        "stopped": grade.stopped,
        "seconds": grade.time.as_secs_f64(),
        "levels": levels.collect::<Vec<_>>(),
        "dialogues": dialogues.collect::<Vec<_>>(),
    })
}

/// The form that Gradescope reads: a test for each dialogue that was not skipped.
pub fn gradescope(grade: &Grade, tasks: &[Task]) -> String {
    let tests = tasks.iter().zip(&grade.outcomes).filter_map(|(task, outcome)| {
        let (score, text) = match outcome {
            Outcome::Right => (1, String::new()),
            Outcome::Wrong(error, said) => (0, details(task, error, said)),
            Outcome::Skipped(_) => return None,
            Outcome::NotTried => (0, "not tried".to_owned()),
        };
        let status = if score == 1 { "passed" } else { "failed" };
        let name = format!("level {}: {}", task.level, task.claim);
        let max_score = 1;
        Some(json!({
            "name": name,
            "score": score,
            "max_score": max_score,
            "status": status,
            "output": text,
        }))
    });
    let all = total(grade, tasks);
    let text = json!({
        "score": all.right,
        "execution_time": grade.time.as_secs(),
        "output": summary(grade, tasks),
        "tests": tests.collect::<Vec<_>>(),
    });
    format!("{text:#}\n")
}
