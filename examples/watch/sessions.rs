//! What the page knows of sessions: 200 of them, and the last 500 lines of each.
//!
//! In: the events of the server, one after the other. Out: what the page asks for. Memory
//! is bounded whatever clients do: the oldest session that is over goes first. What had to be
//! let go is counted, and the page says so.
//! Pages ask again after each change, so nothing is kept for a page that reads slowly.
//!
//! Book: docs/08-threads.md.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ehlo::server::{Event, What};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::why::Why;

/// How many sessions are kept.
pub const SESSIONS: usize = 200;
/// How many lines of each.
pub const LINES: usize = 500;
/// How much of a line, in characters: a client's line may be much longer, printed.
const LINE_LIMIT: usize = 300;

/// All that is known.
#[derive(Debug, Default)]
pub struct Sessions {
    board: Mutex<Board>,
    changed: Condvar,
    /// Whether people log in here, so that lines may be hidden.
    has_users: bool,
}

#[derive(Debug, Default)]
struct Board {
    /// Counts changes.
    version: u64,
    /// By number: the oldest first.
    sessions: BTreeMap<u64, Session>,
    /// How many were let go.
    forgotten: u64,
    /// How many events the server dropped, as we were too slow.
    dropped: u64,
}

#[derive(Debug)]
struct Session {
    client: String,
    role: String,
    began: Timestamp,
    state: &'static str,
    /// Why it is over.
    end: Option<String>,
    lines: VecDeque<Line>,
    /// How many lines were let go.
    forgotten: usize,
}

#[derive(Debug)]
struct Line {
    /// `C` and `S` as in a dialogue, `-` for what lies between.
    who: char,
    text: String,
    /// Of a reply: the state it was given in, and the line it answers.
    why: Option<Why>,
}

impl Sessions {
    /// Of a server that has users, or has none.
    pub fn new(has_users: bool) -> Sessions {
        Sessions { has_users, ..Sessions::default() }
    }

    /// Takes one event, and how many were dropped so far.
    pub fn record(&self, event: Event, dropped: u64) {
        let mut board = self.board();
        board.version += 1;
        board.dropped = dropped;
        board.record(event);
        self.changed.notify_all();
    }

    /// Waits until there is something newer than `version`, but not for ever.
    pub fn newer_than(&self, version: u64, patience: Duration) -> u64 {
        let waited = self
            .changed
            .wait_timeout_while(self.board(), patience, |board| board.version == version);
        waited.unwrap_or_else(PoisonError::into_inner).0.version
    }

    /// The list, the newest first.
    pub fn list(&self) -> Value {
        let board = self.board();
        let list = board.sessions.iter().rev().map(|(number, session)| session.summary(*number));
        json!({
            "sessions": list.collect::<Vec<_>>(), "forgotten": board.forgotten,
            "dropped": board.dropped, "most_sessions": SESSIONS, "most_lines": LINES,
        })
    }

    /// One session, from this line on.
    pub fn one(&self, number: u64, from: usize) -> Option<Value> {
        let board = self.board();
        let session = board.sessions.get(&number)?;
        let mut told = session.summary(number);
        let skip = from.saturating_sub(session.forgotten);
        let lines = session.lines.iter().skip(skip).map(|line| {
            let why = line.why.as_ref().map(Why::told);
            json!({ "who": line.who, "text": line.text, "why": why })
        });
        told.extend([
            ("first".to_owned(), json!(session.forgotten + skip.min(session.lines.len()))),
            ("forgotten".to_owned(), json!(session.forgotten)),
            ("lines".to_owned(), lines.collect()),
        ]);
        Some(Value::Object(told))
    }

    /// A session as a script for `check`, if its beginning is still here.
    pub fn dialogue(&self, number: u64) -> Option<String> {
        let board = self.board();
        let session = board.sessions.get(&number)?;
        let lines = session.lines.iter().map(|line| (line.who, line.text.as_str()));
        let is_closed = session.state == "Closed";
        (session.forgotten == 0).then(|| crate::script::script(lines, self.has_users, is_closed))
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn record(&mut self, event: Event) {
        if let What::Connected { client, role } = &event.what {
            self.make_room();
            self.sessions.insert(
                event.session,
                Session {
                    client: client.to_string(),
                    role: format!("{role:?}").to_lowercase(),
                    began: Timestamp::now(),
                    state: "",
                    end: None,
                    lines: VecDeque::new(),
                    forgotten: 0,
                },
            );
        }
        // What happens in a session that was let go is of no interest any more.
        let Some(session) = self.sessions.get_mut(&event.session) else { return };
        match event.what {
            What::Connected { .. } => {}
            What::Client(line) => session.push('C', &line),
            What::Server(line) => session.push('S', &line),
            What::State(name) if name == session.state => {}
            What::State(name) => {
                session.push('-', format!("{} → {name}", session.state).trim_start());
                session.state = name;
            }
            What::Tls(how) => session.push('-', format!("TLS {how}").trim_end()),
            What::Closed(why) => {
                session.push('-', &format!("over: {why}"));
                session.end = Some(why);
            }
        }
    }

    /// Lets go of the oldest session that is over, or of the oldest.
    fn make_room(&mut self) {
        while self.sessions.len() >= SESSIONS {
            let is_over =
                |(number, session): (&u64, &Session)| session.end.is_some().then_some(*number);
            let over = self.sessions.iter().find_map(is_over);
            let Some(number) = over.or_else(|| self.sessions.keys().next().copied()) else {
                return;
            };
            self.sessions.remove(&number);
            self.forgotten += 1;
        }
    }
}

/// What is told in the place of a chunk: the line that announced it is what is answered.
fn is_chunk(line: &str) -> bool {
    line.starts_with("(a chunk of ")
}

impl Session {
    fn push(&mut self, who: char, text: &str) {
        let mut text = text.to_owned();
        if let Some((end, _)) = text.char_indices().nth(LINE_LIMIT) {
            text.truncate(end);
            text.push('…');
        }
        if self.lines.len() >= LINES {
            self.lines.pop_front();
            self.forgotten += 1;
        }
        let why = (who == 'S').then(|| {
            let asked =
                self.lines.iter().rev().find(|line| line.who == 'C' && !is_chunk(&line.text));
            Why::of(self.state, asked.map_or("", |line| line.text.as_str()), &text)
        });
        self.lines.push_back(Line { who, text, why: why.flatten() });
    }

    /// What the list tells of it.
    fn summary(&self, number: u64) -> Map<String, Value> {
        let began = format!("{:.0}", self.began);
        let told = [
            ("number", json!(number)),
            ("client", json!(self.client)),
            ("role", json!(self.role)),
            ("state", json!(self.state)),
            ("began", json!(began)),
            ("end", json!(self.end)),
            ("total", json!(self.forgotten + self.lines.len())),
        ];
        told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
