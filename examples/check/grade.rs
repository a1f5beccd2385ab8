//! Plays all dialogues against one server, several at a time, until the end of either.
//!
//! In: an address, dialogues, and rules. Out: what came of each. A server that takes fewer
//! connections gets fewer; one that does not greet any more is dead, and the rest is not
//! tried. What is not asked here: whether an answer is right; `ehlo::dialogue` knows.
//!
//! Book: docs/03-replies.md.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ehlo::dialogue::{ANSWER_LIMIT, Game, Judge, PlayError, Terms, TimedStream};
use ehlo::smtp::text::printable;

use crate::tasks::Task;

/// How often a server that does not greet is asked again, and how long apart: a restart, or
/// the end of a connection that it still waits for, takes a moment.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// How much is told of a greeting that is none, in characters.
const SHOWN: usize = 100;

/// How the user wants servers to be graded.
pub struct Rules {
    pub texts: bool,
    pub patience: Duration,
    pub mailboxes: Vec<String>,
    pub have: Vec<String>,
    pub jobs: usize,
}

/// What came of one dialogue.
pub enum Outcome {
    Right,
    /// What went wrong, and all that was said until then.
    Wrong(PlayError, Vec<String>),
    /// What the server would have to announce or to be.
    Skipped(Vec<String>),
    /// The server was dead by then.
    NotTried,
}

/// What came of one server.
pub struct Grade {
    pub server: String,
    /// One for each task, in their order.
    pub outcomes: Vec<Outcome>,
    /// How many clients it greets at a time, as far as it was asked.
    pub clients: usize,
    /// Why not all could be tried.
    pub stopped: Option<String>,
    pub time: Duration,
}

impl Grade {
    pub fn wrong(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Wrong(..))).count()
    }
}

/// What the workers share.
struct Court<'a> {
    server: SocketAddr,
    tasks: &'a [Task],
    terms: Terms,
    /// How many play at first.
    jobs: usize,
    left: Mutex<Left>,
    stopped: Mutex<Option<String>>,
}

/// What there is to do, and how many are at it. Both are under one lock: who finds nothing to
/// do leaves, and who puts something back may not count on him.
struct Left {
    /// What is still to be played, and how often each was turned away.
    tasks: VecDeque<(usize, u32)>,
    workers: usize,
}

/// Grades a server. Each outcome goes to `tell` too, in order; where that gives false, nobody
/// wants to know any more.
pub fn grade(
    name: &str,
    server: SocketAddr,
    tasks: &[Task],
    rules: &Rules,
    tell: impl Fn(&Task, &Outcome) -> bool,
) -> Grade {
    let begin = Instant::now();
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut clients = 0;
    let stopped = match meet(server, rules) {
        Err(why) => Some(why),
        Ok((announced, greeted)) => {
            clients = greeted;
            let jobs = clients.min(rules.jobs);
            let enhanced = announced.iter().any(|keyword| keyword == "ENHANCEDSTATUSCODES");
            let judge = if rules.texts { Judge::Texts } else { Judge::Codes { enhanced } };
            let mut left = Left { tasks: VecDeque::new(), workers: jobs };
            for (number, task) in tasks.iter().enumerate() {
                let missing = task.missing(&announced, &rules.have);
                if missing.is_empty() || task.is_named {
                    left.tasks.push_back((number, 0));
                } else {
                    let missing = missing.into_iter().map(str::to_owned).collect();
                    outcomes.insert(number, Outcome::Skipped(missing));
                }
            }
            let terms =
                Terms { judge, patience: rules.patience, mailboxes: rules.mailboxes.clone() };
            let court = Court {
                server,
                tasks,
                terms,
                jobs,
                left: Mutex::new(left),
                stopped: Mutex::new(None),
            };
            court.hold(&mut outcomes, tell);
            court.stopped.into_inner().unwrap_or_default()
        }
    };
    let outcome = |number| outcomes.remove(&number).unwrap_or(Outcome::NotTried);
    let outcomes = (0..tasks.len()).map(outcome).collect();
    Grade { server: name.to_owned(), outcomes, clients, stopped, time: begin.elapsed() }
}

impl Court<'_> {
    /// Lets the workers play, and tells each outcome as soon as those before it are known; at
    /// the end the rest, tried or not.
    fn hold(
        &self,
        outcomes: &mut BTreeMap<usize, Outcome>,
        tell: impl Fn(&Task, &Outcome) -> bool,
    ) {
        thread::scope(|scope| {
            let (sender, played) = mpsc::channel();
            for _ in 0..self.jobs {
                let sender = sender.clone();
                scope.spawn(move || self.work(&sender));
            }
            drop(sender);
            let mut told = 0;
            loop {
                while let (Some(task), Some(outcome)) = (self.tasks.get(told), outcomes.get(&told))
                {
                    told += 1;
                    if !tell(task, outcome) {
                        self.stop("nobody reads the results");
                    }
                }
                let Ok((number, outcome)) = played.recv() else { break };
                outcomes.insert(number, outcome);
            }
            // A server that died leaves gaps, and behind them may be what others played.
            for (number, task) in self.tasks.iter().enumerate().skip(told) {
                if !tell(task, outcomes.get(&number).unwrap_or(&Outcome::NotTried)) {
                    break;
                }
            }
        });
    }

    /// One worker: plays until nothing is left.
    fn work(&self, sender: &Sender<(usize, Outcome)>) {
        // A server that does not even greet has died of what was played before.
        let mut suspect = "the beginning";
        while let Some((number, tries, task)) = self.next() {
            let Game { said, result } = task.dialogue.play_under(self.server, &self.terms);
            if !said.is_empty() {
                suspect = &task.claim;
            }
            let Err(error) = result else {
                let _ = sender.send((number, Outcome::Right));
                continue;
            };
            let said_nothing = matches!(error, PlayError::Differs { said_nothing: true, .. });
            let was_turned_away = said.iter().all(|line| line.starts_with("S: 421"));
            if was_turned_away && tries + 1 < TRIES {
                if self.put_back(number, tries + 1) {
                    return;
                }
            } else {
                let _ = sender.send((number, Outcome::Wrong(error, said)));
            }
            if said_nothing || was_turned_away {
                self.look_for_life(suspect);
            }
        }
    }

    /// The next task; without one the worker leaves.
    fn next(&self) -> Option<(usize, u32, &Task)> {
        if self.stopped.lock().is_ok_and(|stopped| stopped.is_some()) {
            return None;
        }
        let mut left = self.left.lock().ok()?;
        let Some((number, tries)) = left.tasks.pop_front() else {
            left.workers -= 1;
            return None;
        };
        Some((number, tries, self.tasks.get(number)?))
    }

    /// Puts a task back, and says whether this worker leaves: a server that turns somebody
    /// away has too many of us. The last one stays.
    fn put_back(&self, number: usize, tries: u32) -> bool {
        let Ok(mut left) = self.left.lock() else { return true };
        left.tasks.push_back((number, tries));
        let leaves = left.workers > 1;
        left.workers -= usize::from(leaves);
        leaves
    }

    /// Stops everything if the server does not greet any more. With several workers it may
    /// have died of what another one played.
    fn look_for_life(&self, suspect: &str) {
        let mut why = String::new();
        for _ in 0..TRIES {
            match greeted(self.server, self.terms.patience) {
                Ok(server) => return leave(server, self.terms.patience),
                Err(error) => why = error,
            }
            thread::sleep(PAUSE);
        }
        let others =
            if self.jobs > 1 { " or what was played beside it; --jobs 1 tells" } else { "" };
        self.stop(&format!(
            "the server greets nobody any more, since \"{suspect}\"{others} ({why})"
        ));
    }

    fn stop(&self, why: &str) {
        if let Ok(mut stopped) = self.stopped.lock() {
            stopped.get_or_insert_with(|| why.to_owned());
        }
    }
}

/// What the server announces, and how many clients it greets at a time, up to `jobs`, but at
/// least two are tried: a plain loop serves one after the other, and lets the second one wait.
fn meet(server: SocketAddr, rules: &Rules) -> Result<(Vec<String>, usize), String> {
    let mut first = greeted(server, rules.patience)?;
    let announced = announced(&mut first, rules.patience);
    let mut open = vec![first];
    while open.len() < rules.jobs.max(2) {
        let Ok(another) = greeted(server, rules.patience) else { break };
        open.push(another);
    }
    let clients = open.len();
    open.into_iter().for_each(|server| leave(server, rules.patience));
    Ok((announced, clients))
}

/// Says good-bye and waits until the server has heard it, so that our place is free again.
fn leave(mut server: BufReader<TimedStream>, patience: Duration) {
    let said = server.get_mut().write_all(b"QUIT\r\n");
    server.get_mut().wait(patience);
    let _ = said.and_then(|()| io::copy(&mut server, &mut io::sink()));
}

/// A connection on which the server has said something that is no "too many", or why there
/// is none.
fn greeted(server: SocketAddr, patience: Duration) -> Result<BufReader<TimedStream>, String> {
    let stream = TimedStream::connect(server, patience)
        .map_err(|error| format!("no connection: {error}"))?;
    let mut server = BufReader::new(stream);
    let mut lines = server.by_ref().take(ANSWER_LIMIT);
    loop {
        let mut line = Vec::new();
        let read = lines.read_until(b'\n', &mut line);
        let text: String = printable(line.trim_ascii_end()).chars().take(SHOWN).collect();
        if !line.ends_with(b"\n") {
            let end = match read {
                Ok(_) if lines.limit() == 0 => "that is too long".to_owned(),
                Ok(_) => "the server closed".to_owned(),
                Err(_) => format!("nothing more for {} seconds", patience.as_secs_f32()),
            };
            let what = if line.is_empty() {
                "no greeting came".to_owned()
            } else {
                format!("the greeting `{text}` has no line end")
            };
            return Err(format!("connected, but {what}; {end}"));
        }
        if line.starts_with(b"421") {
            return Err(format!("the server turns us away: `{text}`"));
        }
        if !line.starts_with(b"220-") {
            return Ok(server);
        }
    }
}

/// The keywords of the reply to EHLO, in upper case; none if it is refused.
fn announced(server: &mut BufReader<TimedStream>, patience: Duration) -> Vec<String> {
    let mut keywords = Vec::new();
    if server.get_mut().write_all(b"EHLO client.example\r\n").is_err() {
        return keywords;
    }
    server.get_mut().wait(patience);
    for line in server.take(ANSWER_LIMIT).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let (code, text) = line.split_at_checked(4).unwrap_or((&line, ""));
        let keyword = text.split_whitespace().next().unwrap_or_default();
        keywords.push(keyword.to_ascii_uppercase());
        if code != "250-" {
            break;
        }
    }
    // The first line greets.
    keywords.split_off(1.min(keywords.len()))
}
