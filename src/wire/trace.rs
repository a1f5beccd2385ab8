//! A dialogue, printed as it happens (`--trace`): that of a client with us, or ours
//! with another server.
//!
//! In: lines and replies as they are read or written. Out: one line each on standard
//! error, `C:` what the client said and `S:` what the server said. In front is the
//! client's number, or the id of the letter that we carry on. Everything is made
//! printable first. The inside of a message never comes here.
//!
//! Book: docs/03-replies.md.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::smtp::text::printable;

/// Prints one dialogue.
#[derive(Debug, Clone)]
pub struct Trace {
    label: String,
    is_coloured: bool,
}

impl Trace {
    /// With this in front of each line. In colour when standard error is a terminal
    /// and NO_COLOR is not set.
    pub fn new(label: impl Display) -> Trace {
        let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Trace { label: label.to_string(), is_coloured }
    }

    /// What may be shown of a line of the client: printable, and without secrets.
    pub fn client(&self, line: &str) {
        self.print("C", "36", line);
    }

    /// Replies of the server: whole lines.
    pub fn server(&self, replies: &[u8]) {
        for line in replies.split_inclusive(|octet| *octet == b'\n') {
            self.print("S", "32", &printable(line.trim_ascii_end()));
        }
    }

    fn print(&self, who: &str, colour: &str, text: &str) {
        let line = if self.is_coloured {
            format!("[{}] \x1b[{colour}m{who}: {text}\x1b[0m\n", self.label)
        } else {
            format!("[{}] {who}: {text}\n", self.label)
        };
        // A trace that nobody can read is no reason to end a session.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
