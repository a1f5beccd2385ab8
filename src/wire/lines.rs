//! Command lines in, replies out, and a close that loses neither.
//!
//! In: a [`Stream`]. Out: lines that ended with CR LF, whatever way TCP cut
//! them, and the reasons why others did not count. Replies are collected here
//! and sent together: before we wait for input, beyond 4 KiB, at the close.
//! Nothing else in the program knows that rule (PIPELINING, RFC 2920).
//!
//! Left to others: what a line means (`smtp/`), and the inside of a message
//! (`body.rs`; this file only lends its input buffer).
//!
//! Book: docs/06-bytes.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use native_tls::TlsAcceptor;

use crate::smtp::reply::Reply;
use crate::smtp::session::BadLine;
use crate::wire::stream::{Stream, TLS_HANDSHAKE, TlsError};
use crate::wire::trace::Trace;

/// Input buffer while we wait for commands. An idle client costs this much, and
/// its thread's stack.
const COMMAND_BUFFER: usize = 2 * 1024;
/// Input buffer while a message comes in, so that a megabyte is a few reads.
const MESSAGE_BUFFER: usize = 64 * 1024;
/// How much of a message has to arrive before its deadline is renewed.
const MESSAGE_STRETCH: usize = 64 * 1024;
/// Replies kept back before they are sent although more commands are waiting.
const OWED_LIMIT: usize = 4 * 1024;
/// How long a closing connection still takes in what the client sends …
const LINGER_TIME: Duration = Duration::from_secs(2);
/// … and how much of it.
const LINGER_OCTETS: usize = 1024 * 1024;

/// One connection, seen as lines and replies.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    /// How long one command line, one write, or 64 KiB of a message may take.
    patience: Duration,
    /// `input[start..end]` has arrived and was not looked at yet.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// The line that was read last; kept, so that its memory is used again.
    line: Vec<u8>,
    /// Replies not sent yet.
    owed: Vec<u8>,
    /// Octets of the message since its deadline was renewed.
    stretch: usize,
    trace: Option<Trace>,
}

/// Why there is no line to run.
#[derive(Debug)]
pub enum LineError {
    /// The line was read to its end, and is not to be parsed.
    Bad(BadLine),
    /// There will be no more lines.
    Lost(Lost),
}

/// Why the connection is of no more use.
#[derive(Debug)]
pub enum Lost {
    /// The client closed it: normal between two commands, fatal for a message.
    Gone,
    /// The deadline passed before the client said what we wait for.
    Late,
    /// The deadline passed before the client took our replies. Nothing more is
    /// written: nobody knows how much of them arrived.
    Deaf,
    /// The operating system reports something else.
    Io(io::Error),
}

impl Wire {
    /// `patience` is the time one command line, one write, or 64 KiB of a
    /// message may take.
    pub fn new(stream: Stream, patience: Duration, trace: Option<Trace>) -> Wire {
        Wire {
            stream,
            patience,
            input: vec![0; COMMAND_BUFFER],
            start: 0,
            end: 0,
            line: Vec::new(),
            owed: Vec::new(),
            stretch: 0,
            trace,
        }
    }

    /// Reads one line of at most `limit` octets, CR LF included, and gives it
    /// without them. An over-long line is skipped to its end in constant memory.
    /// A last line without an end is not run: the client may have meant more.
    pub fn read_line(&mut self, limit: usize) -> Result<&[u8], LineError> {
        self.line.clear();
        // Replies go out before we wait, and get a deadline of their own. With a
        // whole line at hand we do not wait: the client is pipelining.
        if !self.waiting().contains(&b'\n') {
            self.flush()?;
        }
        self.stream.set_deadline(self.patience);
        while self.line.last() != Some(&b'\n') {
            if self.start == self.end {
                // What a message needed is too much for a client that waits.
                self.input.truncate(COMMAND_BUFFER);
                self.input.shrink_to_fit();
                self.fill()?;
            }
            // The fields are borrowed one by one from here on, because `waiting()`
            // would borrow all of `self` while `line` is written to.
            let waiting = self.input.get(self.start..self.end).unwrap_or_default();
            if self.line.is_empty() && waiting.first() == Some(&TLS_HANDSHAKE) {
                return Err(LineError::Bad(BadLine::Tls));
            }
            let newline = waiting.iter().position(|octet| *octet == b'\n');
            let taken = newline.map_or(waiting.len(), |at| at + 1);
            self.line.extend_from_slice(waiting.get(..taken).unwrap_or_default());
            self.start += taken;
            // Only the fact that it is too long is kept, and the last octet.
            if self.line.len() > limit {
                self.line.drain(limit..self.line.len() - 1);
            }
        }
        whole_line(&self.line, limit)
    }

    /// Whether something the client sent was not read yet.
    pub fn has_input(&self) -> bool {
        self.start < self.end
    }

    /// Sends what is owed and waits for the client's TLS handshake, at most
    /// `limit`. What came before it in the clear is not carried over.
    pub fn start_tls(
        mut self,
        acceptor: Option<TlsAcceptor>,
        limit: Duration,
    ) -> Result<Wire, TlsError> {
        let acceptor = acceptor.ok_or(TlsError::NoIdentity)?;
        if self.has_input() {
            return Err(TlsError::Injected);
        }
        self.flush().map_err(|lost| TlsError::Handshake(lost.to_string()))?;
        self.stream.set_deadline(limit);
        let stream = self.stream.start_tls(&acceptor)?;
        Ok(Wire::new(stream, self.patience, self.trace))
    }

    /// Owes the client a reply. It is sent at once only if much is owed already.
    pub fn reply(&mut self, reply: &Reply) -> Result<(), Lost> {
        let before = self.owed.len();
        reply.write_to(&mut self.owed);
        if let Some(trace) = &self.trace {
            trace.server(self.owed.get(before..).unwrap_or_default());
        }
        match self.owed.len() > OWED_LIMIT {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Sends what is owed. To be called before a pause.
    pub fn flush(&mut self) -> Result<(), Lost> {
        if !self.owed.is_empty() {
            self.stream.set_deadline(self.patience);
            let sent = self.stream.write_all(&self.owed);
            // After an error too: the same replies must not be sent a second time.
            self.owed.clear();
            sent.map_err(|error| match error.kind() {
                ErrorKind::TimedOut => Lost::Deaf,
                _ => error.into(),
            })?;
        }
        Ok(())
    }

    /// From here to [`Wire::end_message`] the input is a message.
    pub fn begin_message(&mut self) -> Result<(), Lost> {
        self.flush()?;
        self.renew_stretch();
        Ok(())
    }

    /// What has arrived of the message and was not consumed; waits for at least
    /// one octet.
    pub fn message(&mut self) -> Result<&[u8], Lost> {
        if self.start == self.end {
            // The client sends faster than we read: a larger buffer means fewer reads.
            if self.end == self.input.len() {
                self.input.resize(MESSAGE_BUFFER, 0);
            }
            self.fill()?;
        }
        Ok(self.waiting())
    }

    /// `count` octets of the message were dealt with.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        self.stretch += count;
        if self.stretch >= MESSAGE_STRETCH {
            self.renew_stretch();
        }
    }

    /// The message had `octets`; commands follow. What the client has sent behind
    /// it stays.
    pub fn end_message(&mut self, octets: u64) {
        if let Some(trace) = &self.trace {
            trace.client(&format!("(a message of {octets} octets)"));
        }
    }

    /// Sends what is owed and closes, so that the client can still read it. A
    /// plain close would answer octets on their way to us with a reset, and with
    /// that the client's next write fails, and its system may throw away what it
    /// has received and not read yet: our last reply.
    pub fn close(mut self) {
        self.stream.set_deadline(LINGER_TIME);
        if self.stream.write_all(&self.owed).is_err() || self.stream.end_of_output().is_err() {
            return;
        }
        let mut left = LINGER_OCTETS;
        while left > 0 {
            match self.stream.read_below(&mut self.input) {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    }

    fn waiting(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    fn fill(&mut self) -> Result<(), Lost> {
        self.start = 0;
        self.end = 0;
        match self.stream.read(&mut self.input)? {
            0 => Err(Lost::Gone),
            count => {
                self.end = count;
                Ok(())
            }
        }
    }

    fn renew_stretch(&mut self) {
        self.stretch = 0;
        self.stream.set_deadline(self.patience);
    }
}

/// `line` without its CR LF, if it is one that may be run.
fn whole_line(line: &[u8], limit: usize) -> Result<&[u8], LineError> {
    if line.len() > limit {
        return Err(LineError::Bad(BadLine::too_long(line)));
    }
    // CR LF and nothing else ends a line (RFC 5321 section 2.3.8).
    match line.strip_suffix(b"\r\n") {
        None => Err(LineError::Bad(BadLine::BareNewline)),
        Some(text) if text.contains(&b'\r') => Err(LineError::Bad(BadLine::BareNewline)),
        Some(text) if text.contains(&0) => Err(LineError::Bad(BadLine::Nul)),
        Some(text) => Ok(text),
    }
}

impl From<Lost> for LineError {
    fn from(lost: Lost) -> LineError {
        LineError::Lost(lost)
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Lost {
        match error.kind() {
            ErrorKind::TimedOut => Lost::Late,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Lost::Gone,
            _ => Lost::Io(error),
        }
    }
}

impl Display for Lost {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Lost::Gone => f.write_str("the client closed the connection"),
            Lost::Late => f.write_str("the client was too slow"),
            Lost::Deaf => f.write_str("the client did not take our replies"),
            Lost::Io(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply;
    use crate::wire::socket::Socket;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    const LIMIT: usize = 100;

    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nodelay(true).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        let patience = Duration::from_secs(5);
        (Wire::new(Stream::Plain(Socket::new(Arc::new(tcp), patience)), patience, None), peer)
    }

    /// What `read_line` gives, in one word for comparing.
    fn next(wire: &mut Wire) -> String {
        match wire.read_line(LIMIT) {
            Ok(line) => String::from_utf8_lossy(line).into_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn lines_are_the_same_however_the_octets_are_cut() {
        let input = b"EHLO a\r\nNOOP\r\n\r\nbare\nMAIL\rFROM\r\nnul\0\r\nQUIT\r\n";
        let lines = [
            "EHLO a",
            "NOOP",
            "",
            "Bad(BareNewline)",
            "Bad(BareNewline)",
            "Bad(Nul)",
            "QUIT",
            "Lost(Gone)",
        ];
        for part in [1, 2, 3, 7, input.len()] {
            let (mut wire, mut peer) = pair();
            let sender = std::thread::spawn(move || {
                for octets in input.chunks(part) {
                    peer.write_all(octets).unwrap();
                }
            });
            for line in lines {
                assert_eq!(next(&mut wire), line, "in parts of {part}");
            }
            sender.join().unwrap();
        }
    }

    #[test]
    fn the_limit_counts_the_line_end_and_a_longer_line_is_skipped_whole() {
        let (mut wire, mut peer) = pair();
        for length in [LIMIT - 2, LIMIT - 1, 50_000] {
            peer.write_all("x".repeat(length).as_bytes()).unwrap();
            peer.write_all(b"\r\n").unwrap();
        }
        peer.write_all(b"NOOP\r\n").unwrap();
        assert_eq!(next(&mut wire), "x".repeat(LIMIT - 2));
        assert_eq!(next(&mut wire), "Bad(TooLong)");
        assert_eq!(next(&mut wire), "Bad(TooLong)");
        assert!(wire.line.capacity() <= LIMIT + COMMAND_BUFFER * 2, "{}", wire.line.capacity());
        assert_eq!(next(&mut wire), "NOOP");
    }

    #[test]
    fn a_line_without_an_end_is_never_run() {
        let (mut wire, mut peer) = pair();
        peer.write_all(b"QUIT").unwrap();
        drop(peer);
        assert_eq!(next(&mut wire), "Lost(Gone)");
    }

    #[test]
    fn a_tls_handshake_is_recognised_before_any_line_end() {
        let (mut wire, mut peer) = pair();
        peer.write_all(&[0x16, 0x03, 0x01]).unwrap();
        assert_eq!(next(&mut wire), "Bad(Tls)");
    }

    #[test]
    fn replies_wait_while_commands_are_waiting_and_go_out_before_we_wait() {
        let (mut wire, mut peer) = pair();
        peer.write_all(b"NOOP\r\nNOOP\r\n").unwrap();
        for owed in [false, true] {
            assert_eq!(next(&mut wire), "NOOP");
            assert_eq!(!wire.owed.is_empty(), owed);
            wire.reply(&reply::ok()).unwrap();
        }
        drop(peer.shutdown(std::net::Shutdown::Write));
        assert_eq!(next(&mut wire), "Lost(Gone)");
        drop(wire);
        let mut replies = String::new();
        peer.read_to_string(&mut replies).unwrap();
        assert_eq!(replies, "250 2.0.0 ok\r\n250 2.0.0 ok\r\n");
    }

    #[test]
    fn much_owed_is_sent_although_commands_are_waiting() {
        let (mut wire, _peer) = pair();
        for _ in 0..10_000 {
            wire.reply(&reply::ok()).unwrap();
            assert!(wire.owed.len() <= OWED_LIMIT);
        }
    }

    #[test]
    fn what_follows_a_message_in_the_same_write_is_still_there() {
        let (mut wire, mut peer) = pair();
        let tail = "NOOP\r\n".repeat(1000);
        peer.write_all(format!("x{tail}").as_bytes()).unwrap();
        drop(peer);
        wire.begin_message().unwrap();
        assert_eq!(wire.message().unwrap().first(), Some(&b'x'));
        wire.consume(1);
        wire.end_message(1);
        for _ in 0..1000 {
            assert_eq!(next(&mut wire), "NOOP");
        }
        assert_eq!(next(&mut wire), "Lost(Gone)");
    }
}
