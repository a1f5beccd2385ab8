//! Everything about one entry of the queue, pure text.
//!
//! In: an entry, the header of its letter, and what time it is. Out: lines. The header
//! is a stranger's, so it is made harmless: it cannot move the cursor of a terminal.
//!
//! Book: docs/20-outgrowing-one-machine.md.

use ehlo::smtp::text::printable;
use ehlo::store::envelope::{Entry, Letter, QueuedRecipient, RecipientState};
use jiff::Timestamp;

use crate::table::{age, when};

/// The entry in words, then the header of its letter. Each line ends with LF.
pub fn details(id: &str, entry: &Entry, header: &[u8], now: Timestamp) -> String {
    let Letter { reverse_path, dsn, arrived, size, is_8bit, needs_smtputf8, .. } = &entry.letter;
    let mut text = format!("{id}\n");
    let mut line = |name: &str, value: String| text += &format!("  {name:12}  {value}\n");
    line("destination", entry.next_hop.to_string());
    line("alias", entry.alias.as_ref().map_or("none".to_owned(), |alias| format!("<{alias}>")));
    line("sender", reverse_path.to_string());
    line("arrived", format!("{arrived:.0}, {} ago", age(*arrived, now)));
    line("next", format!("{:.0}, {}", entry.next, when(entry.next, now)));
    let warned = if entry.is_warned { "; the sender was told that it takes long" } else { "" };
    line("attempts", format!("{}{warned}", entry.attempts));
    let octets = if *is_8bit { "8-bit octets" } else { "octets" };
    let smtputf8 = if *needs_smtputf8 { ", the header needs SMTPUTF8" } else { "" };
    line("size", format!("{size} {octets}{smtputf8}"));
    line("wants", said(&dsn.to_string(), "nothing said, so the header comes back with a report"));
    for QueuedRecipient { address, given, dsn, state, answer } in &entry.recipients {
        line("recipient", format!("<{address}>"));
        line("  given as", given.to_string());
        line("  wants", said(&dsn.to_string(), "nothing said, so a report of failure"));
        line("  state", state_in_words(*state).to_owned());
        let last = answer.as_ref().map_or("none".to_owned(), ToString::to_string);
        line("  last reply", last);
    }
    text += "\n";
    for line in header.split_inclusive(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        // A field goes on in a line that begins with a tab.
        let (tab, rest) = line.strip_prefix(b"\t").map_or(("", line), |rest| ("    ", rest));
        text += &format!("  {tab}{}\n", printable(rest));
    }
    text
}

fn state_in_words(state: RecipientState) -> &'static str {
    match state {
        RecipientState::Waiting => "waiting",
        RecipientState::Delivered => "delivered, a report is owed",
        RecipientState::Expanded => "passed on to several addresses, a report is owed",
        RecipientState::Failed => "failed, a report is owed",
        RecipientState::Ended => "ended, nothing is left to do",
    }
}

/// What was said, or what follows if nothing was.
fn said(words: &str, otherwise: &str) -> String {
    if words.is_empty() { otherwise.to_owned() } else { words.trim_start().to_owned() }
}
