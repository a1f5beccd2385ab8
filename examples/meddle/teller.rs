//! Says what happens, one line for each thing, in colour on a terminal.
//!
//! Book: docs/13-the-client-side.md.

use std::io::{self, IsTerminal, Write};

use ehlo::smtp::text::printable;

/// Tells about one connection.
#[derive(Debug)]
pub struct Teller {
    number: u64,
    is_coloured: bool,
}

impl Teller {
    /// About the client with this number.
    pub fn new(number: u64) -> Teller {
        let is_coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Teller { number, is_coloured }
    }

    /// What the client said.
    pub fn client(&self, line: &[u8]) {
        self.say("36", &format!("C: {}", printable(line.trim_ascii_end())));
    }

    /// What the server said.
    pub fn server(&self, line: &[u8]) {
        self.say("32", &format!("S: {}", printable(line.trim_ascii_end())));
    }

    /// What we did.
    pub fn meddle(&self, what: &str) {
        self.say("33", &format!("-- {what}"));
    }

    fn say(&self, colour: &str, text: &str) {
        let line = if self.is_coloured {
            format!("[{}] \x1b[{colour}m{text}\x1b[0m\n", self.number)
        } else {
            format!("[{}] {text}\n", self.number)
        };
        // Nobody may be reading any more; the connection goes on all the same.
        let _ = io::stdout().write_all(line.as_bytes());
    }
}
