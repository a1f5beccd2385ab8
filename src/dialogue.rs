//! Scripts of SMTP dialogues, played against a server: any server.
//!
//! In: a script and an address. Out: nothing, if the server answered as the
//! script says; else the line where it did not. The tests, the book and
//! `examples/check.rs` play the same scripts. A script is read line by line:
//!
//! ```text
//! # A comment.
//! needs: --max-size 1000      the server wants these flags; see below
//! S: 220 * ESMTP *            the server says a line like this; * is any text
//! S: ...                      the server says any number of lines
//! C: EHLO client.example      the client says this, and CR LF
//! R: NOOP {x*600}\r\n         the client sends exactly these octets
//! C: [tls]                    the client does its TLS handshake
//! A: PLAIN ann secret         the client logs in; the next S: is the outcome
//! S: [closed]                 the server closes the connection
//! ```
//!
//! All lines of the client up to the next `S:` are sent in one write: that is
//! how a script pipelines. In `R:`, `\r`, `\n`, `\t`, `\\`, `\{` and `\xNN` are
//! octets, and `{text*N}` is `text` N times. After its last line the client
//! closes its side, and the server must have nothing more to say (but 421).
//!
//! `needs:` lines are not acted on here: whoever starts the server reads them
//! from [`Dialogue::needs`]. Beside flags there are `needs: mailboxes ann bob`, for
//! a server where these are the only mailboxes; `needs: users ann:{PLAIN}secret`,
//! for one with these lines in its users file, and `needs: aliases info: ann`;
//! `needs: tls`, for one with a certificate; `needs: tokens`, for one that knows the keys
//! of `tests/oauth/`; and `needs: role submission`, for the
//! listener that the script is played against. Any certificate is taken: a script
//! tests what a server says, not who it is.
//!
//! Book: docs/03-replies.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

use native_tls::{TlsConnector, TlsStream};
use ring::rand::{SecureRandom, SystemRandom};

use crate::smtp::auth::exchange::ClientExchange;
use crate::smtp::auth::mechanism::{self, Mechanism};
use crate::smtp::text::printable;

/// How long the player waits for one line of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A script, ready to be played as often as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialogue {
    needs: Vec<String>,
    steps: Vec<Step>,
}

/// One line of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// Its place in the script, from 1.
    line: usize,
    action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// `C:` and `R:`
    Send(Vec<u8>),
    /// `C: [tls]`
    StartTls,
    /// `A: mechanism user password`
    LogIn(Mechanism, String, String),
    /// `S: pattern`
    Expect(String),
    /// `S: ...`
    Skip,
    /// `S: [closed]`
    ExpectClose,
}

/// A script that cannot be read: the line, from 1, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    line: usize,
    why: &'static str,
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
    },
    /// There was no connection.
    Connect(io::Error),
}

impl Dialogue {
    /// The texts behind `needs:`, in order.
    pub fn needs(&self) -> &[String] {
        &self.needs
    }

    /// Plays the script on a new connection.
    pub fn play(&self, server: SocketAddr) -> Result<(), PlayError> {
        let tcp = TcpStream::connect_timeout(&server, PATIENCE).map_err(PlayError::Connect)?;
        let setup = tcp.set_read_timeout(Some(PATIENCE)).and_then(|()| tcp.set_nodelay(true));
        setup.map_err(PlayError::Connect)?;
        let mut server = Peer {
            lines: BufReader::new(Connection::Plain(tcp)),
            skipping: false,
            unsent: Vec::new(),
            read_ahead: None,
        };
        for step in &self.steps {
            server.act(&step.action).map_err(|(expected, found)| PlayError::Differs {
                line: step.line,
                expected,
                found,
            })?;
        }
        let last = self.steps.last().map_or(0, |step| step.line);
        server.end().map_err(|(expected, found)| PlayError::Differs { line: last, expected, found })
    }
}

/// The server, as the player sees it.
struct Peer {
    lines: BufReader<Connection>,
    /// Behind `S: ...`: lines that do not match the next pattern are passed over.
    skipping: bool,
    /// What the client says next, kept for one write.
    unsent: Vec<u8>,
    /// The outcome of a login, for the next `S:`.
    read_ahead: Option<Result<String, String>>,
}

/// In clear or encrypted.
enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake failed; nothing can be said any more.
    Broken,
}

/// What was expected, and what was found.
type Difference = (String, String);

impl Peer {
    fn act(&mut self, action: &Action) -> Result<(), Difference> {
        match action {
            Action::Send(octets) => self.unsent.extend_from_slice(octets),
            Action::StartTls => self.start_tls()?,
            Action::LogIn(mechanism, user, password) => self.log_in(*mechanism, user, password),
            Action::Skip => self.skipping = true,
            Action::Expect(pattern) => loop {
                match self.line() {
                    Ok(line) if matches(pattern, &line) => {
                        self.skipping = false;
                        break;
                    }
                    Ok(_) if self.skipping => {}
                    Ok(found) | Err(found) => return Err((pattern.clone(), found)),
                }
            },
            Action::ExpectClose => match self.line() {
                Err(what) if what == CLOSED => {}
                Ok(found) | Err(found) => return Err((CLOSED.to_owned(), found)),
            },
        }
        Ok(())
    }

    fn start_tls(&mut self) -> Result<(), Difference> {
        self.send();
        let different = |found: String| ("a TLS handshake".to_owned(), found);
        if !self.lines.buffer().is_empty() {
            return Err(different(printable(self.lines.buffer())));
        }
        let broken = mem::replace(self.lines.get_mut(), Connection::Broken);
        let Connection::Plain(tcp) = broken else { return Err(different("TLS twice".to_owned())) };
        let connector = TlsConnector::builder()
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true)
            .build()
            .map_err(|error| different(error.to_string()))?;
        let tls = connector.connect("localhost", tcp);
        *self.lines.get_mut() =
            Connection::Tls(Box::new(tls.map_err(|error| different(error.to_string()))?));
        Ok(())
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
        loop {
            let line = self.line();
            let challenge = line.as_ref().ok().and_then(|line| line.strip_prefix("334 "));
            let Some(challenge) = challenge else {
                let is_early = line.as_ref().is_ok_and(|line| line.starts_with("235"));
                self.read_ahead = Some(if is_early && !login.is_done() {
                    Err("235 without the server's own proof".to_owned())
                } else {
                    line
                });
                return;
            };
            // `*` breaks the exchange off, as RFC 4954 section 4 wants it.
            let response = login.answer(challenge).unwrap_or_else(|_| "*".to_owned());
            self.unsent.extend_from_slice(format!("{response}\r\n").as_bytes());
        }
    }

    /// The client has nothing more to say.
    fn end(&mut self) -> Result<(), Difference> {
        self.send();
        // Fails where the server has closed already, and that is what we want.
        let _ = self.lines.get_mut().end_of_output();
        match self.line() {
            Err(what) if what == CLOSED => Ok(()),
            Ok(line) if line.starts_with("421") => Ok(()),
            Ok(found) | Err(found) => Err(("nothing more".to_owned(), found)),
        }
    }

    /// The server's next line, or why there is none.
    fn line(&mut self) -> Result<String, String> {
        if let Some(line) = self.read_ahead.take() {
            return line;
        }
        self.send();
        let mut line = Vec::new();
        match self.lines.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\r\n") => Ok(printable(line.trim_ascii_end())),
            Ok(0) => Err(CLOSED.to_owned()),
            Ok(_) => Err(format!("a line without CR LF: {}", printable(line))),
            // A reset is a close that was in a hurry.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(CLOSED.to_owned()),
            Err(error) => Err(no_answer(&error)),
        }
    }

    /// Sends what the client has to say. A server may close before it has read
    /// all of it; what it said before that is in the next line.
    fn send(&mut self) {
        let _ = self.lines.get_mut().write_all(&self.unsent);
        self.unsent.clear();
    }
}

impl Connection {
    fn end_of_output(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(tcp) => tcp.shutdown(Shutdown::Write),
            Connection::Tls(tls) => tls.shutdown(),
            Connection::Broken => Ok(()),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => tcp.read(buffer),
            Connection::Tls(tls) => tls.read(buffer),
            Connection::Broken => Ok(0),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => tcp.write(octets),
            Connection::Tls(tls) => tls.write(octets),
            Connection::Broken => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(tcp) => tcp.flush(),
            Connection::Tls(tls) => tls.flush(),
            Connection::Broken => Ok(()),
        }
    }
}

const CLOSED: &str = "[closed]";

/// Why there is no line. A system has two names for a read that waited too long.
fn no_answer(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("no answer within {} seconds", PATIENCE.as_secs())
        }
        _ => format!("no answer: {error}"),
    }
}

impl FromStr for Dialogue {
    type Err = ScriptError;

    fn from_str(script: &str) -> Result<Dialogue, ScriptError> {
        let mut dialogue = Dialogue { needs: Vec::new(), steps: Vec::new() };
        for (number, text) in script.lines().enumerate() {
            let line = number + 1;
            let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            let action = match kind {
                _ if text.is_empty() || text.starts_with('#') => continue,
                "needs" => {
                    dialogue.needs.push(rest.to_owned());
                    continue;
                }
                "C" if rest == "[tls]" => Action::StartTls,
                "A" => log_in(rest).map_err(|why| ScriptError { line, why })?,
                "C" => Action::Send([rest.as_bytes(), b"\r\n"].concat()),
                "R" => Action::Send(raw(rest).map_err(|why| ScriptError { line, why })?),
                "S" if rest == CLOSED => Action::ExpectClose,
                "S" if rest == "..." => Action::Skip,
                "S" => Action::Expect(rest.to_owned()),
                _ => return Err(ScriptError { line, why: "expected C:, R:, A:, S:, needs: or #" }),
            };
            dialogue.steps.push(Step { line, action });
        }
        Ok(dialogue)
    }
}

/// What an `A:` line says.
fn log_in(text: &str) -> Result<Action, &'static str> {
    let mut words = text.splitn(3, ' ');
    let mechanism = words.next().and_then(Mechanism::parse);
    match (mechanism, words.next(), words.next()) {
        (Some(mechanism), Some(user), Some(password)) => {
            Ok(Action::LogIn(mechanism, user.to_owned(), password.to_owned()))
        }
        _ => Err("expected A: mechanism user password"),
    }
}

/// The octets that an `R:` line stands for.
fn raw(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '\\' => rest = escape(rest, &mut octets)?,
            '{' => {
                let (inside, after) = rest.split_once('}').ok_or("{ without }")?;
                let (repeated, times) = inside.rsplit_once('*').ok_or("expected {text*N}")?;
                let times: usize = times.parse().map_err(|_| "expected a number after *")?;
                octets.extend(raw(repeated)?.repeat(times));
                rest = after;
            }
            _ => octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(octets)
}

/// Reads what follows a backslash, and gives what follows that.
fn escape<'a>(text: &'a str, octets: &mut Vec<u8>) -> Result<&'a str, &'static str> {
    const WRONG: &str = "expected \\r, \\n, \\t, \\\\, \\{ or \\xNN";
    let (c, rest) = text.split_at_checked(1).ok_or(WRONG)?;
    octets.push(match c {
        "r" => b'\r',
        "n" => b'\n',
        "t" => b'\t',
        "\\" => b'\\',
        "{" => b'{',
        "x" => {
            let (digits, rest) = rest.split_at_checked(2).ok_or(WRONG)?;
            octets.push(u8::from_str_radix(digits, 16).map_err(|_| WRONG)?);
            return Ok(rest);
        }
        _ => return Err(WRONG),
    });
    Ok(rest)
}

/// Whether `line` is like `pattern`, where each `*` stands for any text. The
/// parts between the stars have to be found in order, the first at the start
/// and the last at the end.
fn matches(pattern: &str, line: &str) -> bool {
    let Some((first, others)) = pattern.split_once('*') else { return pattern == line };
    let (middle, last) = others.rsplit_once('*').unwrap_or(("", others));
    let inner = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    let Some(mut inner) = inner else { return false };
    middle.split('*').all(|part| match inner.split_once(part) {
        Some((_, after)) => {
            inner = after;
            true
        }
        None => false,
    })
}

impl Display for ScriptError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "line {} of the script: {}", self.line, self.why)
    }
}

impl std::error::Error for ScriptError {}

impl Display for PlayError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            PlayError::Differs { line, expected, found } => {
                write!(f, "line {line}: expected `{expected}`, found `{found}`")
            }
            PlayError::Connect(error) => write!(f, "no connection: {error}"),
        }
    }
}

impl std::error::Error for PlayError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Plays `script` against a server that says `says` and nothing else.
    fn play(script: &str, says: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            tcp.write_all(says.as_bytes()).unwrap();
            tcp.shutdown(Shutdown::Write).unwrap();
            io::copy(&mut tcp, &mut io::sink()).unwrap();
        });
        let result = script.parse::<Dialogue>().unwrap().play(address);
        server.join().unwrap();
        result.map_or_else(|error| error.to_string(), |()| "played".to_owned())
    }

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_does() {
        for (pattern, line, same) in [
            ("220 *", "220 host", true),
            ("220 *", "220 ", true),
            ("220 *", "220", false),
            ("220 * ESMTP *", "220 host ESMTP x", true),
            ("220 * ESMTP *", "220 host SMTP x", false),
            ("250 a*a", "250 a", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("250 ok", "250 okay", false),
        ] {
            assert_eq!(matches(pattern, line), same, "{pattern} {line}");
        }
    }

    #[test]
    fn the_first_line_that_differs_is_named() {
        let script = "# greeting\nS: 220 *\nC: NOOP\nS: 250 *";
        assert_eq!(play(script, "220 hi\r\n250 ok\r\n"), "played");
        assert_eq!(
            play(script, "220 hi\r\n500 no\r\n"),
            "line 4: expected `250 *`, found `500 no`"
        );
        assert_eq!(play(script, "220 hi\r\n"), "line 4: expected `250 *`, found `[closed]`");
        assert_eq!(
            play(script, "220 hi\n"),
            "line 2: expected `220 *`, found `a line without CR LF: 220 hi\\x0a`"
        );
    }

    #[test]
    fn what_the_server_says_beyond_the_script_is_a_difference() {
        assert!(play("S: 220 *", "220 hi\r\n250 what\r\n").contains("nothing more"));
        assert!(play("S: [closed]", "220 hi\r\n").contains("220 hi"));
        assert_eq!(play("S: 220 *", "220 hi\r\n421 bye\r\n"), "played");
    }

    #[test]
    fn three_dots_pass_over_lines_until_one_matches() {
        let says = "250-a\r\n250-b\r\n250 c\r\n";
        assert_eq!(play("S: ...\nS: 250 *", says), "played");
        assert_eq!(play("S: 250-a\nS: ...\nS: 250-b\nS: 250 c", says), "played");
        assert!(play("S: ...\nS: 251 *", says).contains("[closed]"));
    }

    #[test]
    fn a_server_that_says_nothing_is_waited_for_and_the_time_is_named() {
        for kind in [ErrorKind::WouldBlock, ErrorKind::TimedOut] {
            assert_eq!(no_answer(&kind.into()), "no answer within 10 seconds");
        }
        let other = no_answer(&ErrorKind::BrokenPipe.into());
        assert!(other.starts_with("no answer: "), "{other}");
    }

    #[test]
    fn raw_lines_are_octets() {
        assert_eq!(raw("a\\r\\n\\x00\\{{ab*2}{\\x2e*3}").unwrap(), b"a\r\n\0{abab...");
        for wrong in ["\\", "\\q", "\\x0", "\\x\u{fc}", "{a", "{a}", "{a*b}"] {
            assert!(raw(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_of_no_known_kind_is_an_error() {
        let error = "S: 220 *\nQUIT".parse::<Dialogue>().unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the script: expected C:, R:, A:, S:, needs: or #");
    }

    #[test]
    fn needs_are_handed_on() {
        let dialogue: Dialogue = "needs: --max-size 9\nneeds: mailboxes ann\n".parse().unwrap();
        assert_eq!(dialogue.needs(), ["--max-size 9", "mailboxes ann"]);
    }
}
