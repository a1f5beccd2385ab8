//! The dialogue of one client, printed as it happens (`--trace`).
//!
//! In: lines that were read, replies that were written. Out: one line each on
//! standard error, `C:` what the client said and `S:` what the server said, the
//! client's number in front. Everything is made printable first. The inside of
//! a message never comes here.
//!
//! Book: docs/03-replies.md.

use std::io::{self, IsTerminal, Write};

use crate::smtp::text::printable;

/// Prints the dialogue of one client.
#[derive(Debug, Clone)]
pub struct Trace {
    client: u64,
    colour: bool,
}

impl Trace {
    /// For the client of this number. In colour when standard error is a
    /// terminal and NO_COLOR is not set.
    pub fn new(client: u64) -> Trace {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Trace { client, colour }
    }

    /// What may be shown of a line that the client sent: printable, and without secrets.
    pub fn client(&self, line: &str) {
        self.print("C", "36", line);
    }

    /// Replies of ours: whole lines.
    pub fn server(&self, replies: &[u8]) {
        for line in replies.split_inclusive(|octet| *octet == b'\n') {
            self.print("S", "32", &printable(line.trim_ascii_end()));
        }
    }

    fn print(&self, who: &str, colour: &str, text: &str) {
        let line = match self.colour {
            true => format!("[{}] \x1b[{colour}m{who}: {text}\x1b[0m\n", self.client),
            false => format!("[{}] {who}: {text}\n", self.client),
        };
        // A trace that nobody can read is no reason to end a session.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
