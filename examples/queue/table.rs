//! The table of `examples/queue.rs`, pure text.
//!
//! In: entries or rows, and what time it is. Out: lines with aligned columns.
//!
//! Book: docs/20-outgrowing-one-machine.md.

use std::array;

use ehlo::store::envelope::{Entry, QueuedRecipient, RecipientState};
use jiff::Timestamp;

const TITLES: [&str; 8] =
    ["ID", "AGE", "ATTEMPTS", "NEXT", "DESTINATION", "SENDER", "RECIPIENT", "LAST REPLY"];

/// One recipient who waits, or of whom the sender has to hear.
#[derive(Debug, Clone)]
pub struct Row {
    /// The id of the entry, as in the log.
    pub id: String,
    /// When it came.
    pub arrived: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is to be tried again.
    pub next: Timestamp,
    /// Where it goes, as the log calls it.
    pub destination: String,
    /// The reverse-path, with its brackets.
    pub sender: String,
    /// The forward-path, with its brackets.
    pub recipient: String,
    /// What was said last; empty before the first attempt.
    pub last: String,
}

/// A row for each recipient about whom something is left to do.
pub fn rows(id: &str, entry: &Entry) -> Vec<Row> {
    let left = entry.recipients.iter().filter(|one| one.state != RecipientState::Ended);
    let row = |recipient: &QueuedRecipient| Row {
        id: id.to_owned(),
        arrived: entry.letter.arrived,
        attempts: entry.attempts,
        next: entry.next,
        destination: entry.next_hop.to_string(),
        sender: entry.letter.reverse_path.to_string(),
        recipient: format!("<{}>", recipient.address),
        last: last(recipient),
    };
    left.map(row).collect()
}

/// The last reply, and the state before it of whoever does not wait any more.
fn last(recipient: &QueuedRecipient) -> String {
    let said = recipient.answer.as_ref().map(ToString::to_string).unwrap_or_default();
    match recipient.state {
        RecipientState::Waiting => said,
        state => format!("{state}, a report is owed: {said}"),
    }
}

/// All rows under a line of titles. Each line ends with LF.
pub fn table(rows: &[Row], now: Timestamp) -> String {
    let titles = TITLES.map(str::to_owned);
    let lines: Vec<[String; 8]> =
        [titles].into_iter().chain(rows.iter().map(|row| cells(row, now))).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; 8] = array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &Row, now: Timestamp) -> [String; 8] {
    [
        row.id.clone(),
        age(row.arrived, now),
        row.attempts.to_string(),
        when(row.next, now),
        row.destination.clone(),
        row.sender.clone(),
        row.recipient.clone(),
        if row.last.is_empty() { "-".to_owned() } else { row.last.clone() },
    ]
}

/// How long ago something was, such as `5m`.
pub fn age(from: Timestamp, now: Timestamp) -> String {
    span(seconds(from, now))
}

/// How far away something is: `in 5m`, or `now`.
pub fn when(next: Timestamp, now: Timestamp) -> String {
    let left = seconds(now, next);
    if left > 0 { format!("in {}", span(left)) } else { "now".to_owned() }
}

/// From one moment to a later one; 0 where the clock was set back.
fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second().saturating_sub(from.as_second())).unwrap_or(0)
}

/// `45s`, `5m`, `3h` or `2d`: in the largest unit of which there is one.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
