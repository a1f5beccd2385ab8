//! One connection to the server, as a client that measures wants it.
//!
//! In: an envelope and a message. Out: nothing, if the server took it, or one
//! line that says what it did instead. Sockets block. Each step is one `write`,
//! a reply is one `read`, and buffers are used again, so that the server is what
//! gets measured and not this.
//!
//! Book: docs/17-how-fast-how-many.md.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server that says nothing, or reads nothing, for so long has gone away.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is said before each message.
pub struct Envelope {
    /// Each command with the first digit of a good reply to it.
    steps: [(String, u8); 3],
    /// All three, for one write.
    together: String,
}

impl Envelope {
    /// For one recipient.
    pub fn to(address: &str) -> Envelope {
        let steps = [
            ("MAIL FROM:<load@client.example>\r\n".to_owned(), b'2'),
            (format!("RCPT TO:<{address}>\r\n"), b'2'),
            ("DATA\r\n".to_owned(), b'3'),
        ];
        let together = steps.iter().map(|(command, _)| command.as_str()).collect();
        Envelope { steps, together }
    }
}

/// A connection that has said EHLO.
pub struct Connection {
    tcp: BufReader<TcpStream>,
    is_pipelined: bool,
    /// The reply that was read last, all its lines.
    reply: Vec<u8>,
}

impl Connection {
    /// Connects to the first of these addresses that answers.
    pub fn open(server: &[SocketAddr], is_pipelined: bool) -> Result<Connection, String> {
        let fault = |error| format!("no connection to {server:?}: {error}");
        let tcp = TcpStream::connect(server).map_err(fault)?;
        tcp.set_read_timeout(Some(PATIENCE)).map_err(fault)?;
        tcp.set_write_timeout(Some(PATIENCE)).map_err(fault)?;
        // Without this the system may hold a small write back.
        tcp.set_nodelay(true).map_err(fault)?;
        let mut connection =
            Connection { tcp: BufReader::new(tcp), is_pipelined, reply: Vec::new() };
        connection.expect("the connection", b'2')?;
        connection.ask("EHLO load.client.example\r\n", b'2')?;
        let hello = String::from_utf8_lossy(&connection.reply).to_uppercase();
        match is_pipelined && !hello.lines().any(|line| line.ends_with("PIPELINING")) {
            true => Err("the server does not offer PIPELINING".to_owned()),
            false => Ok(connection),
        }
    }

    /// Sends one message, final dot included, and waits for its 250.
    pub fn deliver(&mut self, envelope: &Envelope, letter: &str) -> Result<(), String> {
        if self.is_pipelined {
            self.send(&envelope.together)?;
        }
        for (command, class) in &envelope.steps {
            match self.is_pipelined {
                true => self.expect(command, *class)?,
                false => self.ask(command, *class)?,
            }
        }
        self.send(letter)?;
        self.expect("the message", b'2')
    }

    /// Says goodbye, and closes.
    pub fn quit(mut self) -> Result<(), String> {
        self.ask("QUIT\r\n", b'2')
    }

    fn ask(&mut self, command: &str, class: u8) -> Result<(), String> {
        self.send(command)?;
        self.expect(command, class)
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        self.tcp.get_mut().write_all(text.as_bytes()).map_err(gone)
    }

    /// Reads the reply to `what`, which has to begin with the digit `class`.
    fn expect(&mut self, what: &str, class: u8) -> Result<(), String> {
        let what = what.trim_end();
        self.reply.clear();
        loop {
            let start = self.reply.len();
            self.tcp.read_until(b'\n', &mut self.reply).map_err(gone)?;
            // Half a line is no reply: who knows what it would have become.
            if self.reply.len() == start || !self.reply.ends_with(b"\n") {
                return Err(format!("the server closed the connection and owes a reply to {what}"));
            }
            // `250-` says that more lines follow.
            if self.reply.get(start + 3) != Some(&b'-') {
                break;
            }
        }
        match self.reply.first() == Some(&class) {
            true => Ok(()),
            false => {
                let reply = String::from_utf8_lossy(&self.reply);
                Err(format!("the server answered {what} with {}", reply.trim_end()))
            }
        }
    }
}

fn gone(error: io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("the server neither spoke nor read for {} s", PATIENCE.as_secs())
        }
        _ => format!("the server is gone: {error}"),
    }
}
