//! One client, the server, and what the rules make of their dialogue.
//!
//! In: a connection. Out: the dialogue, as the rules let it through. One line of the
//! client is passed on, then the reply to it comes back, so each reply belongs to the
//! line before it, whoever gave it. Only after `inject` the server has one line more to
//! answer, and from there on each reply comes one line late.
//!
//! Book: docs/13-the-client-side.md.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::lines::{read_line, read_reply, without_secret, write};
use crate::rule::{Act, Moment, Rules};
use crate::teller::Teller;

/// What comes after a line: the next one, or nothing any more.
type Then = ControlFlow<()>;
const GO_ON: Then = ControlFlow::Continue(());
const OVER: Then = ControlFlow::Break(());

/// Two connections, and what happens between them.
struct Session<'a> {
    client: BufReader<TcpStream>,
    server: BufReader<TcpStream>,
    rules: &'a Rules,
    teller: &'a Teller,
    /// Octets a second, once a rule has said so.
    pace: Option<u64>,
    /// Whether the server has taken a recipient, so that DATA would be right.
    has_recipient: bool,
    /// Whether the last reply that the client got was a 334: then its next line is no command,
    /// and may be a password.
    is_asked: bool,
}

/// Serves a client until one of the three has had enough.
pub fn serve(
    client: TcpStream,
    server: SocketAddr,
    rules: &Rules,
    teller: &Teller,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = match TcpStream::connect(server) {
        Ok(server) => server,
        Err(error) => {
            teller.meddle(&format!("the server at {server} cannot be reached: {error}"));
            return (&client).write_all(b"421 4.3.2 there is no server behind meddle\r\n");
        }
    };
    server.set_nodelay(true)?;
    let (client, server) = (BufReader::new(client), BufReader::new(server));
    let (pace, has_recipient, is_asked) = (None, false, false);
    Session { client, server, rules, teller, pace, has_recipient, is_asked }.run()
}

impl Session<'_> {
    fn run(mut self) -> io::Result<()> {
        let greeting = self.read_reply()?;
        let acts = self.rules.at(Moment::Connect);
        self.before(&acts);
        let mut then = self.answer(&acts, greeting)?;
        while then.is_continue() {
            let line = read_line(&mut self.client)?;
            if line.is_empty() {
                self.teller.meddle("the client has hung up");
                break;
            }
            let acts = if self.is_asked {
                self.teller.client(format!("<{} octets>", line.trim_ascii_end().len()).as_bytes());
                Vec::new()
            } else {
                self.teller.client(&without_secret(&line));
                let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                self.rules.at(Moment::Command(&text))
            };
            then = self.command(&line, &acts)?;
        }
        Ok(())
    }

    /// One line of the client, and the reply to it.
    fn command(&mut self, line: &[u8], acts: &[Act]) -> io::Result<Then> {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let is_alone = acts.iter().any(|act| matches!(act, Act::Reply(_)));
        // Whatever else is done at DATA needs the server, or ends it all.
        if verb == b"DATA"
            && self.has_recipient
            && acts.iter().all(is_patient)
            && let Some(reply) = self.rules.take_reply_to_dot()
        {
            return self.keep_message(acts, &reply);
        }
        if is_alone || acts.iter().any(ends_it) {
            return self.answer(acts, Vec::new());
        }
        self.before(acts);
        let injected = acts.iter().find_map(|act| match act {
            Act::Inject(more) => Some(format!("{more}\r\n")),
            _ => None,
        });
        if let Some(more) = &injected {
            self.teller.meddle(&format!("adds to what the client said: {}", more.trim_end()));
        }
        let octets = [line, injected.unwrap_or_default().as_bytes()].concat();
        self.send_to_server(&octets)?;
        let mut reply = self.read_reply()?;
        let code = reply.get(..3).unwrap_or_default().to_vec();
        if verb == b"EHLO" {
            reply = self.changed(&reply, acts);
        }
        match verb.as_slice() {
            b"RCPT" => self.has_recipient |= code == b"250",
            b"MAIL" | b"RSET" | b"EHLO" | b"HELO" => self.has_recipient = false,
            _ => {}
        }
        let then = self.answer(acts, reply)?;
        if then.is_break() {
            return Ok(OVER);
        }
        let is_tls = line.to_ascii_uppercase().starts_with(b"STARTTLS");
        match code.as_slice() {
            b"354" => self.pass_message(acts),
            b"220" if is_tls => {
                self.teller.meddle("the rest is under TLS: it passes as it is");
                self.pass_all()
            }
            _ => Ok(GO_ON),
        }
    }

    /// What has to be done before the line goes to the server.
    fn before(&mut self, acts: &[Act]) {
        for act in acts {
            match act {
                Act::Wait(time) => {
                    self.teller.meddle(&format!("waits {} seconds", time.as_secs_f64()));
                    thread::sleep(*time);
                }
                Act::Slow(pace) => {
                    self.teller.meddle(&format!("{pace} octets a second from here on"));
                    self.pace = Some(*pace);
                }
                _ => {}
            }
        }
    }

    /// Gives the client its reply: that of the server, or what the rules say.
    fn answer(&mut self, acts: &[Act], reply: Vec<u8>) -> io::Result<Then> {
        for act in acts {
            match act {
                Act::Reply(text) => return self.say_ourselves(text),
                Act::Close | Act::Lose => return self.hang_up("hangs up"),
                Act::Reset => {
                    set_socket_linger(self.client.get_ref(), Some(Duration::ZERO))?;
                    return self.hang_up("resets the connection");
                }
                Act::Silent => return self.be_silent(),
                Act::Append(more) => {
                    self.teller.meddle(&format!("adds to what the server said: {more}"));
                    let octets = [&reply, format!("{more}\r\n").as_bytes()].concat();
                    return self.send_to_client(&octets).map(|()| GO_ON);
                }
                _ => {}
            }
        }
        if reply.is_empty() {
            return self.hang_up("the server has hung up");
        }
        self.send_to_client(&reply)?;
        Ok(GO_ON)
    }

    fn say_ourselves(&mut self, text: &str) -> io::Result<Then> {
        self.teller.meddle(&format!("answers in the server's place: {text}"));
        self.send_to_client(format!("{text}\r\n").as_bytes())?;
        // After a 421 a server closes (RFC 5321 section 3.8).
        if text.starts_with("421") { self.hang_up("hangs up after 421") } else { Ok(GO_ON) }
    }

    fn hang_up(&self, why: &str) -> io::Result<Then> {
        self.teller.meddle(why);
        Ok(OVER)
    }

    /// Reads what the client says until it leaves.
    fn be_silent(&mut self) -> io::Result<Then> {
        self.teller.meddle("is silent");
        io::copy(&mut self.client, &mut io::sink())?;
        self.hang_up("the client has hung up")
    }

    /// The lines of a reply to EHLO, as the rules want them.
    fn changed(&self, reply: &[u8], acts: &[Act]) -> Vec<u8> {
        let text = String::from_utf8_lossy(reply).into_owned();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let tell = |line: &str, why: &str| self.teller.meddle(&format!("{why} {line}"));
        lines.retain(|line| {
            let is_dropped = is_keyword(line, "CHUNKING")
                || acts.iter().any(|act| {
                    matches!(act, Act::Drop(words) if words.iter().any(|word| is_keyword(line, word)))
                });
            if is_dropped {
                tell(line, "takes out");
            }
            !is_dropped
        });
        for act in acts {
            let Act::Change(word, text) = act else { continue };
            for line in lines.iter_mut().filter(|line| is_keyword(line, word)) {
                tell(line, "changes");
                line.replace_range(4.., text);
            }
        }
        let last = lines.len().saturating_sub(1);
        let ended = lines.iter().enumerate().map(|(at, line)| {
            let (code, text) = line.split_at_checked(4).unwrap_or((line, ""));
            let mark = if at == last { ' ' } else { '-' };
            format!("{}{mark}{text}\r\n", code.get(..3).unwrap_or(code))
        });
        ended.collect::<String>().into_bytes()
    }

    /// Passes a message on, up to the final dot, and then the reply to it.
    fn pass_message(&mut self, acts: &[Act]) -> io::Result<Then> {
        let limit = acts.iter().find_map(|act| match act {
            Act::Cut(octets) => Some(*octets),
            _ => None,
        });
        let mut passed = 0;
        // A line that is longer than what is read at once has its dots inside.
        let mut begins_line = true;
        self.has_recipient = false;
        loop {
            let mut line = read_line(&mut self.client)?;
            if line.is_empty() {
                return self.hang_up("the client has hung up in its message");
            }
            if begins_line && line == b".\r\n" {
                break;
            }
            begins_line = line.ends_with(b"\n");
            let left = limit.map(|limit| limit.saturating_sub(passed));
            passed += line.len() as u64;
            if left.is_some_and(|left| (line.len() as u64) >= left) {
                line.truncate(usize::try_from(left.unwrap_or_default()).unwrap_or(usize::MAX));
                self.send_to_server(&line)?;
                return self.hang_up("hangs up in the middle of the message");
            }
            self.send_to_server(&line)?;
        }
        self.teller.client(format!("<a message of {passed} octets>").as_bytes());
        self.teller.client(b".");
        let acts = self.rules.at(Moment::Dot);
        let then = self.command(b".\r\n", &acts)?;
        if acts.iter().any(|act| matches!(act, Act::Reply(_))) {
            return self.hang_up("hangs up, as the server still waits for the dot");
        }
        Ok(then)
    }

    /// Takes a message that the server never sees, and answers it.
    fn keep_message(&mut self, acts: &[Act], reply: &str) -> io::Result<Then> {
        self.before(acts);
        self.teller.meddle("keeps this message to itself");
        self.send_to_client(b"354 go on, and end with a dot\r\n")?;
        self.has_recipient = false;
        let mut begins_line = true;
        loop {
            match read_line(&mut self.client)?.as_slice() {
                b"" => return self.hang_up("the client has hung up in its message"),
                b".\r\n" if begins_line => break,
                line => begins_line = line.ends_with(b"\n"),
            }
        }
        self.teller.client(b".");
        // The server still waits for DATA.
        self.server.get_mut().write_all(b"RSET\r\n")?;
        read_reply(&mut self.server)?;
        self.say_ourselves(reply)
    }

    /// Octets, both ways, until both are done.
    fn pass_all(&mut self) -> io::Result<Then> {
        let mut back = self.client.get_ref().try_clone()?;
        let mut from_server = self.server.get_ref().try_clone()?;
        let there = thread::spawn(move || {
            let _ = io::copy(&mut from_server, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        let _ = io::copy(&mut self.client, self.server.get_mut());
        let _ = self.server.get_ref().shutdown(Shutdown::Write);
        let _ = there.join();
        self.hang_up("both have hung up")
    }

    fn read_reply(&mut self) -> io::Result<Vec<u8>> {
        let reply = read_reply(&mut self.server)?;
        for line in reply.split_inclusive(|octet| *octet == b'\n') {
            self.teller.server(line);
        }
        Ok(reply)
    }

    fn send_to_client(&mut self, octets: &[u8]) -> io::Result<()> {
        let last = octets.split_inclusive(|octet| *octet == b'\n').next_back();
        self.is_asked = last.is_some_and(|line| line.starts_with(b"334"));
        write(self.client.get_mut(), octets, self.pace)
    }

    fn send_to_server(&mut self, octets: &[u8]) -> io::Result<()> {
        write(self.server.get_mut(), octets, self.pace)
    }
}

/// Whether a line is only passed on later, or as it is.
fn is_patient(act: &Act) -> bool {
    matches!(act, Act::Wait(_) | Act::Slow(_) | Act::Pass)
}

/// Whether nothing of a line goes to the server. (`lose` passes it on.)
fn ends_it(act: &Act) -> bool {
    matches!(act, Act::Close | Act::Reset | Act::Silent)
}

/// Whether a line of the reply to EHLO is about a keyword.
fn is_keyword(line: &str, word: &str) -> bool {
    let text = line.get(4..).unwrap_or_default();
    text.split([' ', '=']).next().is_some_and(|first| first.eq_ignore_ascii_case(word))
}
