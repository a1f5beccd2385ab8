//! The client of a script: says its lines and hears the server's.
//!
//! In: the steps of a script, one at a time, and a connection. Out: whether the server
//! did as the step says, and a record of all that was said. Whether an answer is the
//! right one is asked in `judge.rs`.
//!
//! Book: docs/03-replies.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use crate::dialogue::connection::{ANSWER_LIMIT, Connection, TimedStream};
use crate::dialogue::judge::Judge;
use crate::dialogue::script::{self, Action, Answer, CLOSED};
use crate::smtp::auth::exchange::ClientExchange;
use crate::smtp::auth::mechanism::{self, Mechanism};
use crate::smtp::text::printable;

/// How long a foreign server may take to say more than it should, at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a script is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What counts as the right answer.
    pub judge: Judge,
    /// How long the player waits for one answer of the server, from its first octet to its last.
    pub patience: Duration,
    /// Who gets the letters to `bob@localhost`, and behind it those to others there: for a
    /// server that has mailboxes of its own. None: whoever the script names.
    pub mailboxes: Vec<String>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { judge: Judge::Texts, patience: Duration::from_secs(10), mailboxes: Vec::new() }
    }
}

/// The server did not answer as the script says.
#[derive(Debug)]
pub enum PlayError {
    /// It said `found` where line `line` of the script expects something else.
    Differs {
        /// Counts from 1.
        line: usize,
        /// The pattern, or what else should have happened.
        expected: String,
        /// The line of the server, made printable, or what else happened.
        found: String,
        /// It said nothing: it closed, or was silent for longer than the player's patience.
        said_nothing: bool,
    },
    /// There was no connection.
    Connect(io::Error),
}

/// The server, as the player sees it.
pub(super) struct Peer<'a> {
    terms: &'a Terms,
    lines: BufReader<Connection>,
    /// All that was said, as lines of a script.
    pub said: Vec<String>,
    /// Behind `S: ...`: lines that do not match the next pattern are passed over; without one
    /// all of them are.
    skipping: bool,
    /// How many octets of this answer may still come.
    left: u64,
    /// How many lines of the client may still be unanswered.
    unanswered: usize,
    /// What the client says next, kept for one write.
    unsent: Vec<u8>,
    /// The outcome of a login, for the next `S:`.
    read_ahead: Option<Result<String, NoLine>>,
}

/// What was expected, and what was found.
pub(super) type Difference = (String, NoLine);

/// What there is in the place of the line that was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoLine {
    /// The connection is closed.
    Closed,
    /// Nothing came in time: for how long that was.
    Silence(Duration),
    /// Another line, or octets that are none, or an error.
    Other(String),
}

impl<'a> Peer<'a> {
    /// Connects, and says nothing yet.
    pub fn connect(server: SocketAddr, terms: &'a Terms) -> io::Result<Peer<'a>> {
        let stream = TimedStream::connect(server, terms.patience)?;
        let lines = BufReader::new(Connection::Plain(stream));
        let (said, unsent) = (Vec::new(), Vec::new());
        let (left, unanswered, skipping) = (ANSWER_LIMIT, 0, false);
        Ok(Peer { terms, lines, said, skipping, left, unanswered, unsent, read_ahead: None })
    }

    pub fn act(&mut self, action: &Action) -> Result<(), Difference> {
        match action {
            Action::Send(octets) => self.unsent.extend(addressed(octets, &self.terms.mailboxes)),
            Action::StartTls => self.start_tls()?,
            Action::LogIn(mechanism, user, password) => self.log_in(*mechanism, user, password),
            Action::Skip => self.skipping = true,
            Action::Expect(answer) => self.expect(answer)?,
            Action::ExpectClose(answer) => self.expect_close(answer)?,
        }
        Ok(())
    }

    fn expect(&mut self, answer: &Answer) -> Result<(), Difference> {
        let judge = self.terms.judge;
        if judge.passes_over(answer) {
            return Ok(());
        }
        self.send();
        let mut skipped = None;
        loop {
            let found = match self.reply() {
                Ok(line) if judge.takes(answer, &line) => break,
                Ok(line) if self.skipping => {
                    self.pass_over();
                    skipped = Some(line);
                    continue;
                }
                Ok(line) => NoLine::Other(line),
                Err(NoLine::Closed) if judge.takes_instead(answer, CLOSED) => break,
                // What was wrong is what came last, if anything did.
                Err(NoLine::Silence(time)) => skipped.map_or(NoLine::Silence(time), NoLine::Other),
                Err(other) => other,
            };
            return Err((judge.wanted(answer), found));
        }
        self.skipping = false;
        Ok(())
    }

    fn expect_close(&mut self, answer: &Answer) -> Result<(), Difference> {
        self.send();
        let judge = self.terms.judge;
        let is_code = |line: &str| judge.takes_instead(answer, line.get(..3).unwrap_or_default());
        let found = loop {
            match self.reply() {
                Err(NoLine::Closed) => break None,
                Ok(line) if is_code(&line) => break None,
                Ok(_) if self.skipping => self.pass_over(),
                Ok(line) => break Some(NoLine::Other(line)),
                Err(other) => break Some(other),
            }
        };
        self.skipping = false;
        found.map_or(Ok(()), |found| Err((judge.wanted(answer), found)))
    }

    fn start_tls(&mut self) -> Result<(), Difference> {
        self.send();
        self.said.push("C: [tls]".to_owned());
        let different = |found: String| ("a TLS handshake".to_owned(), NoLine::Other(found));
        if !self.lines.buffer().is_empty() {
            return Err(different(printable(self.lines.buffer())));
        }
        self.lines.get_mut().start_tls().map_err(different)
    }

    /// Answers challenges to the end, and keeps what comes after the last.
    fn log_in(&mut self, mechanism: Mechanism, user: &str, password: &str) {
        let mut nonce = [0; 18];
        // Without randomness this login would be weak; it is a test all the same.
        let _ = SystemRandom::new().fill(&mut nonce);
        let (mut login, initial) =
            ClientExchange::begin(mechanism, user, password, &mechanism::nonce(nonce));
        let initial = initial.map(|text| format!(" {text}")).unwrap_or_default();
        self.unsent.extend_from_slice(format!("AUTH {}{initial}\r\n", mechanism.name()).as_bytes());
        let mut is_broken_off = false;
        loop {
            self.send();
            let line = self.reply();
            let challenge = line.as_ref().ok().and_then(|line| line.strip_prefix("334 "));
            let Some(challenge) = challenge.filter(|_| !is_broken_off) else {
                let is_early = line.as_ref().is_ok_and(|line| line.starts_with("235"));
                self.read_ahead = Some(if is_early && !login.is_done() {
                    Err(NoLine::Other("235 without the server's own proof".to_owned()))
                } else {
                    line
                });
                return;
            };
            // `*` breaks the exchange off, as RFC 4954 section 4 wants it.
            let response = login.answer(challenge).ok();
            is_broken_off = response.is_none();
            let response = response.unwrap_or_else(|| "*".to_owned());
            self.unsent.extend_from_slice(format!("{response}\r\n").as_bytes());
        }
    }

    /// The client has nothing more to say.
    pub fn end(&mut self) -> Result<(), Difference> {
        self.send();
        self.said.push("# The client closes its side.".to_owned());
        // Fails where the server has closed already, and that is what we want.
        let _ = self.lines.get_mut().end_of_output();
        let is_foreign = self.terms.judge != Judge::Texts;
        if is_foreign {
            self.lines.get_mut().wait(LAST_WORDS.min(self.terms.patience));
        }
        let reply = loop {
            match self.reply() {
                Ok(_) if self.skipping => self.pass_over(),
                reply => break reply,
            }
        };
        match reply {
            Err(NoLine::Closed) => Ok(()),
            // Nobody has to see at once that a client has gone.
            Err(NoLine::Silence(_)) if is_foreign => Ok(()),
            Ok(line) if line.starts_with("421") => Ok(()),
            Ok(line) => Err(("nothing more".to_owned(), NoLine::Other(line))),
            Err(found) => Err(("nothing more".to_owned(), found)),
        }
    }

    /// What is judged as one: the server's next line, or by codes its next reply, of which
    /// this is the last line.
    fn reply(&mut self) -> Result<String, NoLine> {
        let first = self.line()?;
        if self.terms.judge == Judge::Texts {
            return Ok(first);
        }
        let code = first.get(..3).unwrap_or_default().to_owned();
        let mut line = first;
        loop {
            let is_of_reply = line.get(..3) == Some(code.as_str());
            let is_code = code.len() == 3 && code.bytes().all(|c| c.is_ascii_digit());
            // All lines of a reply have one code (RFC 5321 section 4.2.1).
            match line.as_bytes().get(3) {
                None | Some(b' ') if is_of_reply && is_code => return Ok(line),
                Some(b'-') if is_of_reply && is_code => line = self.line()?,
                _ => return Err(NoLine::Other(format!("no line of a reply: {line}"))),
            }
        }
    }

    /// The server's next line, or why there is none.
    fn line(&mut self) -> Result<String, NoLine> {
        if let Some(line) = self.read_ahead.take() {
            return line;
        }
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(self.left).read_until(b'\n', &mut line);
        self.left = self.left.saturating_sub(line.len() as u64);
        if !line.is_empty() {
            self.said.push(format!("S: {}", printable(line.trim_ascii_end())));
        }
        match read {
            Ok(_) if line.ends_with(b"\r\n") => Ok(printable(line.trim_ascii_end())),
            Ok(_) if self.left == 0 => {
                Err(NoLine::Other(format!("more than {ANSWER_LIMIT} octets of an answer")))
            }
            Ok(0) => Err(NoLine::Closed),
            Ok(_) => Err(NoLine::Other(format!("a line without CR LF: {}", printable(&line)))),
            Err(error) => Err(no_answer(&error, self.terms.patience)),
        }
    }

    /// Whatever answers the client's next line has a time of its own. A server that says more
    /// than it was asked for does not get more time by that.
    fn pass_over(&mut self) {
        if self.unanswered > 0 {
            self.unanswered -= 1;
            self.lines.get_mut().wait(self.terms.patience);
        }
    }

    /// Sends what the client has to say, and from then on an answer has its time and its
    /// length. A server may close before it has read all of it; what it said before that is
    /// in the next line.
    fn send(&mut self) {
        let lines = self.unsent.split_inclusive(|octet| *octet == b'\n');
        self.unanswered += lines.clone().count();
        self.said.extend(lines.map(script::client_line));
        let _ = self.lines.get_mut().write_all(&self.unsent);
        self.unsent.clear();
        self.left = ANSWER_LIMIT;
        self.lines.get_mut().wait(self.terms.patience);
    }
}

/// Why there is no line.
fn no_answer(error: &io::Error, patience: Duration) -> NoLine {
    match error.kind() {
        // A system has two names for a read that waited too long.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => NoLine::Silence(patience),
        // A reset is a close that was in a hurry.
        ErrorKind::ConnectionReset => NoLine::Closed,
        _ => NoLine::Other(format!("no answer: {error}")),
    }
}

/// The octets, with each `TO:<name@localhost>` going to a mailbox of the server: the first
/// one is Bob, and the last one all others.
fn addressed(octets: &[u8], mailboxes: &[String]) -> Vec<u8> {
    const AT: &[u8] = b"@localhost>";
    let (Some(first), Some(last)) = (mailboxes.first(), mailboxes.last()) else {
        return octets.to_vec();
    };
    let mut out = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let name = line
            .get(..9)
            .filter(|start| start.eq_ignore_ascii_case(b"RCPT TO:<"))
            .and_then(|_| line.get(9..))
            .and_then(|rest| Some((rest, rest.windows(AT.len()).position(|at| at == AT)?)))
            .and_then(|(rest, at)| rest.split_at_checked(at))
            .filter(|(name, _)| name.iter().all(u8::is_ascii_alphanumeric));
        match name {
            Some((name, rest)) => {
                let mailbox = if name.eq_ignore_ascii_case(b"bob") { first } else { last };
                out.extend_from_slice(format!("RCPT TO:<{mailbox}>").as_bytes());
                out.extend_from_slice(rest.get(AT.len()..).unwrap_or_default());
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

impl NoLine {
    pub fn is_nothing(&self) -> bool {
        matches!(self, NoLine::Silence(_) | NoLine::Closed)
    }
}

impl Display for NoLine {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            NoLine::Closed => f.write_str(CLOSED),
            NoLine::Silence(time) => write!(f, "no answer within {} seconds", time.as_secs_f32()),
            NoLine::Other(what) => f.write_str(what),
        }
    }
}

impl Display for PlayError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            PlayError::Differs { line, expected, found, said_nothing: _ } => {
                write!(f, "line {line} of the script: expected `{expected}`, found `{found}`")
            }
            PlayError::Connect(error) => write!(f, "no connection: {error}"),
        }
    }
}

impl std::error::Error for PlayError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_says_nothing_is_waited_for_and_the_time_is_named() {
        for kind in [ErrorKind::WouldBlock, ErrorKind::TimedOut] {
            let silence = no_answer(&kind.into(), Duration::from_millis(2500));
            assert_eq!(silence.to_string(), "no answer within 2.5 seconds");
        }
        let closed = no_answer(&ErrorKind::ConnectionReset.into(), Duration::ZERO);
        assert_eq!(closed, NoLine::Closed);
        let other = no_answer(&ErrorKind::BrokenPipe.into(), Duration::ZERO).to_string();
        assert!(other.starts_with("no answer: "), "{other}");
    }

    #[test]
    fn letters_go_to_the_mailboxes_of_the_server() {
        let mailboxes = ["eve@one.example".to_owned(), "zoe@one.example".to_owned()];
        for (line, sent) in [
            ("RCPT TO:<bob@localhost>\r\n", "RCPT TO:<eve@one.example>\r\n"),
            ("rcpt to:<cem@localhost> X=1\r\n", "RCPT TO:<zoe@one.example> X=1\r\n"),
            ("RCPT TO:<bob@else.example>\r\n", "RCPT TO:<bob@else.example>\r\n"),
            ("RCPT TO:<\"a b\"@localhost>\r\n", "RCPT TO:<\"a b\"@localhost>\r\n"),
            ("MAIL FROM:<bob@localhost>\r\n", "MAIL FROM:<bob@localhost>\r\n"),
            (
                "NOOP\r\nRCPT TO:<bob@localhost>\r\nDATA",
                "NOOP\r\nRCPT TO:<eve@one.example>\r\nDATA",
            ),
        ] {
            assert_eq!(addressed(line.as_bytes(), &mailboxes), sent.as_bytes());
            assert_eq!(addressed(line.as_bytes(), &[]), line.as_bytes());
        }
    }
}
