//! A dialogue, told as it happens: that of a client with us, or ours with another
//! server.
//!
//! In: lines and replies as they are read or written. Out: an [`Event`] for whoever
//! listens, and with `--trace` one line each on standard error, `C:` what the client said
//! and `S:` what the server said. In front is the client's number, or the id of the letter
//! that we carry on. Everything is made printable first. The inside of a message never
//! comes here.
//!
//! Book: docs/03-replies.md.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::smtp::reply::Reply;
use crate::smtp::text::printable;
use crate::wire::events::{Event, Teller, What};

/// Tells one dialogue.
#[derive(Debug, Clone)]
pub struct Trace {
    printer: Option<Printer>,
    /// Who else wants to hear of it, and the number of the session there.
    teller: Option<(u64, Teller)>,
}

/// Prints lines.
#[derive(Debug, Clone)]
struct Printer {
    label: String,
    is_coloured: bool,
}

impl Trace {
    /// Printed only, with this in front of each line.
    pub fn new(label: impl Display) -> Trace {
        Trace { printer: Some(Printer::new(label)), teller: None }
    }

    /// Of the session with this number; `None` if nobody wants to hear of it, so that
    /// nobody pays for it.
    pub fn of_session(number: u64, is_printed: bool, teller: Option<&Teller>) -> Option<Trace> {
        let printer = is_printed.then(|| Printer::new(number));
        let teller = teller.map(|teller| (number, teller.clone()));
        (printer.is_some() || teller.is_some()).then_some(Trace { printer, teller })
    }

    /// What may be shown of a line of the client: printable, and without secrets.
    pub fn client(&self, line: &str) {
        self.tell(What::Client(line.to_owned()));
    }

    /// Replies of the server: whole lines.
    pub fn server(&self, replies: &[u8]) {
        for line in replies.split_inclusive(|octet| *octet == b'\n') {
            self.tell(What::Server(printable(line.trim_ascii_end())));
        }
    }

    /// A reply of a login, without what it says: whoever has both sides of one by SCRAM or
    /// CRAM-MD5 can try passwords at leisure.
    pub fn hidden(&self, reply: &Reply) {
        let octets: usize = reply.lines().iter().map(String::len).sum();
        self.tell(What::Server(format!("{} <{octets} octets>", reply.code())));
    }

    /// Tells one thing. What is no line of the dialogue has its place in the log, and is
    /// not printed here.
    pub fn tell(&self, what: What) {
        if let Some(printer) = &self.printer {
            match &what {
                What::Client(line) => printer.print("C", "36", line),
                What::Server(line) => printer.print("S", "32", line),
                What::Connected { .. } | What::State(_) | What::Tls(_) | What::Closed(_) => {}
            }
        }
        if let Some((session, teller)) = &self.teller {
            teller.tell(Event { session: *session, what });
        }
    }
}

impl Printer {
    /// In colour when standard error is a terminal and NO_COLOR is not set.
    fn new(label: impl Display) -> Printer {
        let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Printer { label: label.to_string(), is_coloured }
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
