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

    /// One line the client sent, with or without its line end.
    pub fn client(&self, line: &[u8]) {
        // AUTH is not offered, but there are clients that send a password unasked.
        let is_auth = line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"));
        self.print("C", "36", if is_auth { b"AUTH (not shown)" } else { line });
    }

    /// Replies of ours: whole lines.
    pub fn server(&self, replies: &[u8]) {
        for line in replies.split_inclusive(|octet| *octet == b'\n') {
            self.print("S", "32", line);
        }
    }

    fn print(&self, who: &str, colour: &str, line: &[u8]) {
        let text = printable(line.trim_ascii_end());
        let line = match self.colour {
            true => format!("[{}] \x1b[{colour}m{who}: {text}\x1b[0m\n", self.client),
            false => format!("[{}] {who}: {text}\n", self.client),
        };
        // A trace that nobody can read is no reason to end a session.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
