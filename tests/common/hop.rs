//! A next hop: an SMTP server that does what a test tells it at each step, and
//! keeps what it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Where a dialogue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Greeting,
    Ehlo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// The final dot.
    Dot,
    /// BDAT with its chunk, after which more are to come.
    Chunk,
    /// BDAT with the last chunk.
    Last,
    /// Anything else, such as QUIT.
    Other,
}

/// A step, as a test is asked about it.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    pub step: Step,
    /// The command; empty for the greeting and the dot.
    pub line: &'a str,
    /// Which connection this is, from 1.
    pub connection: usize,
}

/// What the server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// What every server would.
    Usual,
    /// These octets, and a line end.
    Say(String),
    /// These octets with a line end, and a close.
    SayAndClose(String),
    /// Nothing at all, until the client has gone.
    Hang,
    /// A close without a word.
    Close,
    /// To DATA: a close when the first line of the message is in.
    CloseInside,
    /// To the final dot or the last chunk: the letter is kept, and the client is not told.
    KeepAndClose,
    /// A reply that never ends.
    Endless,
}

/// A letter that the client was told 250 for, or that was kept without a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The MAIL command.
    pub mail: String,
    /// The addresses that were accepted.
    pub to: Vec<String>,
    /// The message, with LF.
    pub text: String,
}

type Rules = dyn Fn(Moment) -> Act + Send + Sync;

/// A running next hop. All its connections end when it is dropped.
pub struct Hop {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    rules: Box<Rules>,
    clients: Mutex<Vec<TcpStream>>,
    letters: Mutex<Vec<Letter>>,
    commands: Mutex<Vec<String>>,
    is_ending: AtomicBool,
}

/// The rule to say something at one step, always.
pub fn say(step: Step, text: &'static str) -> impl Fn(Moment) -> Act + Send + Sync + 'static {
    move |moment| if moment.step == step { Act::Say(text.to_owned()) } else { Act::Usual }
}

/// The rule of a server that behaves.
pub fn usual(_: Moment) -> Act {
    Act::Usual
}

impl Hop {
    /// Listens there, and does at each step what `rules` say.
    pub fn start(
        address: SocketAddr,
        rules: impl Fn(Moment) -> Act + Send + Sync + 'static,
    ) -> Hop {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            rules: Box::new(rules),
            clients: Mutex::default(),
            letters: Mutex::default(),
            commands: Mutex::default(),
            is_ending: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            for client in listener.incoming() {
                if for_thread.is_ending.load(Ordering::SeqCst) {
                    return;
                }
                let client = client.unwrap();
                for_thread.clients.lock().unwrap().push(client.try_clone().unwrap());
                let shared = Arc::clone(&for_thread);
                thread::spawn(move || {
                    let closing = client.try_clone().unwrap();
                    // A client that has gone ends the dialogue, and nothing else.
                    shared.serve(client).unwrap_or_default();
                    let _ = closing.shutdown(Shutdown::Both);
                });
            }
        });
        Hop { address, shared, accepting: Some(accepting) }
    }

    /// The letters so far.
    pub fn letters(&self) -> Vec<Letter> {
        self.shared.letters.lock().unwrap().clone()
    }

    /// Each recipient that was ever accepted with a letter, sorted.
    pub fn recipients(&self) -> Vec<String> {
        let mut all: Vec<_> = self.letters().into_iter().flat_map(|letter| letter.to).collect();
        all.sort();
        all
    }

    /// Everything that was ever said outside messages.
    pub fn commands(&self) -> Vec<String> {
        self.shared.commands.lock().unwrap().clone()
    }

    /// How many commands began like this.
    pub fn count(&self, start: &str) -> usize {
        self.commands().iter().filter(|command| command.starts_with(start)).count()
    }

    /// How often somebody came.
    pub fn connections(&self) -> usize {
        self.shared.clients.lock().unwrap().len()
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for client in self.shared.clients.lock().unwrap().iter() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// One dialogue. An error is a client that has gone.
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let connection = self.clients.lock().unwrap().len();
        let mut wire = BufReader::new(client);
        let mut letter = Letter { mail: String::new(), to: Vec::new(), text: String::new() };
        let mut line = String::new();
        let mut step = Step::Greeting;
        loop {
            let mut act = (self.rules)(Moment { step, line: line.trim_end(), connection });
            if act == Act::Usual {
                act = Act::Say(usual_reply(step, &line).to_owned());
            }
            match act {
                Act::Usual => unreachable!("replaced above"),
                Act::Say(text) => {
                    let is_granted = text.starts_with('2');
                    match step {
                        Step::Mail => letter.mail = line.trim_end().to_owned(),
                        Step::Rcpt if is_granted => letter.to.push(in_brackets(&line)),
                        Step::Dot | Step::Last if is_granted => {
                            self.letters.lock().unwrap().push(letter.clone());
                        }
                        _ => {}
                    }
                    if matches!(step, Step::Dot | Step::Last) {
                        letter.to.clear();
                    }
                    send(&mut wire, &text)?;
                    if step == Step::Data && text.starts_with("354") {
                        letter.text = message(&mut wire)?;
                        (step, line) = (Step::Dot, String::new());
                        continue;
                    }
                }
                Act::SayAndClose(text) => return send(&mut wire, &text),
                Act::Close => return Ok(()),
                Act::CloseInside => {
                    send(&mut wire, "354 go on")?;
                    wire.read_line(&mut line)?;
                    return Ok(());
                }
                Act::KeepAndClose => {
                    self.letters.lock().unwrap().push(letter);
                    return Ok(());
                }
                Act::Hang => {
                    while wire.read_until(b'\n', &mut Vec::new())? > 0 {}
                    return Ok(());
                }
                Act::Endless => loop {
                    send(&mut wire, "250-and")?;
                },
            }
            line.clear();
            let mut octets = Vec::new();
            if wire.read_until(b'\n', &mut octets)? == 0 {
                return Ok(());
            }
            line.push_str(&String::from_utf8_lossy(&octets));
            self.commands.lock().unwrap().push(line.trim_end().to_owned());
            step = step_of(&line);
            match step {
                Step::Mail => {
                    letter.to.clear();
                    letter.text.clear();
                }
                Step::Chunk | Step::Last => letter.text += &chunk(&mut wire, &line)?,
                _ => {}
            }
        }
    }
}

fn step_of(line: &str) -> Step {
    let verb = line.split([' ', ':', '\r', '\n']).next().unwrap_or_default();
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" | "HELO" => Step::Ehlo,
        "STARTTLS" => Step::StartTls,
        "MAIL" => Step::Mail,
        "RCPT" => Step::Rcpt,
        "DATA" => Step::Data,
        "BDAT" if line.trim_end().ends_with("LAST") => Step::Last,
        "BDAT" => Step::Chunk,
        _ => Step::Other,
    }
}

fn usual_reply(step: Step, line: &str) -> &'static str {
    match step {
        Step::Greeting => "220 hop.example ESMTP",
        Step::Ehlo => "250-hop.example\r\n250-PIPELINING\r\n250 8BITMIME",
        Step::StartTls => "502 5.5.1 no TLS here",
        Step::Mail => "250 2.1.0 yes",
        Step::Rcpt => "250 2.1.5 yes",
        Step::Data => "354 go on",
        Step::Dot | Step::Last => "250 2.6.0 taken",
        Step::Chunk => "250 2.0.0 more",
        Step::Other if line.starts_with("QUIT") => "221 2.0.0 bye",
        Step::Other if line.starts_with("RSET") => "250 2.0.0 yes",
        Step::Other => "500 5.5.2 what?",
    }
}

fn send(wire: &mut BufReader<TcpStream>, text: &str) -> std::io::Result<()> {
    wire.get_mut().write_all(format!("{text}\r\n").as_bytes())
}

/// A message up to its final dot, with the dots taken out and LF.
fn message(wire: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut text = Vec::new();
    loop {
        let mut line = Vec::new();
        if wire.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        let line = line.strip_suffix(b"\r\n").expect("we send CR LF");
        text.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        text.push(b'\n');
    }
}

/// The chunk after a BDAT, with LF; our client cuts after no CR.
fn chunk(wire: &mut BufReader<TcpStream>, line: &str) -> std::io::Result<String> {
    let size = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut octets = vec![0; size];
    wire.read_exact(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).replace("\r\n", "\n"))
}

fn in_brackets(line: &str) -> String {
    let (_, rest) = line.split_once('<').unwrap();
    rest.split_once('>').unwrap().0.to_owned()
}
