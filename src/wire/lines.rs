//! Command lines in, replies out, and a close that loses neither.
//!
//! In: a [`Stream`]. Out: lines that ended with CR LF, whatever way TCP cut
//! them, and the reasons why others did not count.
//!
//! Replies are owed to the client first and sent later, several in one write
//! (PIPELINING, RFC 2920). It is decided here when: before we wait for input, before
//! anything else that can take long (a pause, a handshake, a message on its way to the
//! disk), when more than 4 KiB are owed, and at the close. Only for a reply after which
//! the client waits anyway the session decides (`Step::is_urgent`).
//!
//! Left to others: what a line means (`smtp/`), and the inside of a message
//! (`body.rs`; this file only hands out what has arrived of it).
//!
//! Book: docs/06-bytes.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::Duration;

use crate::smtp::reply::{Reply, is_challenge};
use crate::smtp::session::BadLine;
use crate::smtp::session::patience::STRETCH;
use crate::wire::buffer::Buffer;
use crate::wire::socket::Linger;
use crate::wire::stream::{Stream, TLS_HANDSHAKE, TlsError};
use crate::wire::tls::Acceptor;
use crate::wire::trace::Trace;

/// Input buffer while we wait for commands. An idle client costs this much, as much again for
/// its last line at most, the most replies that it was owed so far, and its thread's stack.
const COMMAND_BUFFER: usize = 2 * 1024;
/// Input buffer while a message comes in, so that a megabyte is a few reads.
const MESSAGE_BUFFER: usize = 64 * 1024;
/// Replies kept back before they are sent although more commands are waiting.
const OWED_LIMIT: usize = 4 * 1024;
/// How long the last replies and the goodbye of TLS may take.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// One connection, seen as lines and replies.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    /// How long one command line, one write, or 64 KiB of a message may take.
    timeout: Duration,
    input: Buffer,
    /// The line that was read last; kept, so that its memory is used again.
    line: Vec<u8>,
    /// A line held a bare CR or LF, so nobody knows where the next one begins.
    has_bare_newline: bool,
    /// Replies not sent yet.
    owed: Vec<u8>,
    /// Octets of the message since its deadline was renewed.
    stretch: u64,
    trace: Option<Trace>,
}

/// Why there is no line to run.
#[derive(Debug)]
pub enum LineError {
    /// What came is not to be parsed.
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
    /// `timeout` is the time one command line, one write, or 64 KiB of a
    /// message may take.
    pub fn new(stream: Stream, timeout: Duration, trace: Option<Trace>) -> Wire {
        Wire {
            stream,
            timeout,
            input: Buffer::new(COMMAND_BUFFER),
            line: Vec::new(),
            has_bare_newline: false,
            owed: Vec::new(),
            stretch: 0,
            trace,
        }
    }

    /// Reads one line of at most `limit` octets, CR LF included: [`Wire::line`] is what it
    /// says. A line that is too long is skipped to its end in constant memory. A last line
    /// without an end is not run: the client may have meant to say more. After a bare CR or
    /// LF there are no more lines.
    pub fn read_line(&mut self, limit: usize) -> Result<(), LineError> {
        self.line.clear();
        self.line.shrink_to(COMMAND_BUFFER);
        self.stream.set_deadline(self.timeout);
        while !self.has_bare_newline {
            if self.line.is_empty() && self.input.waiting().first() == Some(&TLS_HANDSHAKE) {
                return Err(LineError::Bad(BadLine::Tls));
            }
            let is_whole = self.input.take_line(&mut self.line);
            // CR LF and nothing else ends a line (RFC 5321 section 2.3.8).
            self.has_bare_newline =
                has_bare_cr(&self.line) || (is_whole && !self.line.ends_with(b"\r\n"));
            if is_whole || self.has_bare_newline {
                break;
            }
            // Of a line that is too long the beginning is kept, and the newest octet,
            // which may be the CR before the LF.
            if self.line.len() > limit
                && let Some(newest) = self.line.pop()
            {
                self.line.truncate(limit);
                self.line.push(newest);
            }
            // What a message needed is too much for a client that waits.
            self.input.resize(COMMAND_BUFFER);
            self.wait()?;
        }
        if self.has_bare_newline {
            return Err(LineError::Bad(BadLine::BareNewline));
        }
        if self.line.len() > limit {
            return Err(LineError::Bad(BadLine::too_long(&self.line)));
        }
        if self.line.contains(&0) {
            return Err(LineError::Bad(BadLine::nul(&self.line)));
        }
        self.line.truncate(self.line.len() - b"\r\n".len());
        Ok(())
    }

    /// The line that was read last, without its CR LF.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Whether the client has sent more than was read so far.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Waits for the client's TLS handshake, at most `limit`. What came before it in
    /// the clear is not carried over. Without a handshake the connection is closed.
    pub fn start_tls(
        mut self,
        acceptor: Option<Acceptor>,
        limit: Duration,
    ) -> Result<Wire, TlsError> {
        let acceptor = acceptor.ok_or(TlsError::NoIdentity)?;
        self.flush().map_err(|lost| TlsError::Handshake(lost.to_string()))?;
        self.stream.set_deadline(limit);
        let stream = self.stream.start_tls(&acceptor)?;
        Ok(Wire::new(stream, self.timeout, self.trace))
    }

    /// How what is said here is encrypted: protocol and cipher, where the TLS
    /// library tells; `None` in clear.
    pub fn encryption(&self) -> Option<String> {
        self.stream.encryption()
    }

    /// Owes the client a reply. It is sent at once only if much is owed already.
    pub fn reply(&mut self, reply: &Reply) -> Result<(), Lost> {
        let before = self.owed.len();
        reply.write_to(&mut self.owed);
        if let Some(trace) = &self.trace {
            let (_, new) = self.owed.split_at(before);
            if is_challenge(reply) { trace.hidden(reply) } else { trace.server(new) }
        }
        if self.owed.len() > OWED_LIMIT {
            self.flush()?;
        }
        Ok(())
    }

    /// Lets the client wait.
    pub fn pause(&mut self, time: Duration) -> Result<(), Lost> {
        if !time.is_zero() {
            self.flush()?;
            thread::sleep(time);
        }
        Ok(())
    }

    /// From here to [`Wire::end_message`] or [`Wire::show_chunk`] the input is a message.
    pub fn begin_message(&mut self) {
        self.renew_stretch();
    }

    /// What has arrived of the message and was not taken; waits for at least one
    /// octet. The caller may change it.
    pub fn arrived(&mut self) -> Result<&mut [u8], Lost> {
        if self.input.is_empty() {
            // The client sends faster than we read: a larger buffer means fewer reads.
            if self.input.was_filled() {
                self.input.resize(MESSAGE_BUFFER);
            }
            self.wait()?;
        }
        Ok(self.input.waiting())
    }

    /// The first `count` octets that have arrived were dealt with.
    pub fn take(&mut self, count: usize) {
        self.input.take(count);
        self.stretch += count as u64;
        if self.stretch >= STRETCH {
            self.renew_stretch();
        }
    }

    /// The same for what is far more than any message. It renews no deadline, so that a
    /// message without an end comes to one.
    pub fn forget(&mut self, count: usize) {
        self.input.take(count);
    }

    /// The same as [`Wire::arrived`] for a chunk of which `left` octets are still to come:
    /// no more than these are handed out. What follows them is a command.
    pub fn arrived_of(&mut self, left: u64) -> Result<&mut [u8], Lost> {
        let arrived = self.arrived()?;
        let count = arrived.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (chunk, _) = arrived.split_at_mut(count);
        Ok(chunk)
    }

    /// A chunk of `octets` was read; commands follow.
    pub fn show_chunk(&self, octets: u64) {
        self.show(&format!("(a chunk of {octets} octets)"));
    }

    /// Reads a chunk of `octets` and forgets it; none, and there was none.
    pub fn skip_chunk(&mut self, octets: u64) -> Result<(), Lost> {
        if octets == 0 {
            return Ok(());
        }
        self.begin_message();
        let mut left = octets;
        while left > 0 {
            let count = self.arrived_of(left)?.len();
            self.take(count);
            left = left.saturating_sub(count as u64);
        }
        self.show_chunk(octets);
        Ok(())
    }

    /// The message had `octets` and is over, whatever becomes of it; commands follow. What
    /// the client has sent after it stays.
    pub fn end_message(&mut self, octets: u64) -> Result<(), Lost> {
        self.show(&format!("({octets} octets of the message)"));
        // A client that sent its chunks right behind RCPT has not got our replies yet, and a
        // disk may take long.
        self.flush()
    }

    /// Sends what is owed and closes, so that the client can still read it: says that
    /// we write no more, and reads on within the limits of `linger`. A plain close
    /// would answer octets on their way to us with a reset, and with that the client's
    /// next write fails, and its system may throw away what it has received and not
    /// read yet: our last reply. After a shutdown has ended our input there is nothing to
    /// read on, and this is a plain close.
    pub fn close(mut self, linger: Linger) {
        self.stream.set_deadline(GOODBYE_TIME);
        let is_said = self.stream.write_all(&self.owed);
        // Whoever does not take these replies has nothing to wait for.
        if is_said.and_then(|()| self.stream.end_of_output()).is_ok() {
            self.stream.socket().read_away(linger);
        }
    }

    /// Puts what is not shown octet for octet into the trace.
    fn show(&self, what: &str) {
        if let Some(trace) = &self.trace {
            trace.client(what);
        }
    }

    /// Waits for input, and before that sends what is owed.
    fn wait(&mut self) -> Result<(), Lost> {
        self.flush()?;
        match self.input.fill(&mut self.stream)? {
            0 => Err(Lost::Gone),
            _ => Ok(()),
        }
    }

    /// Sends what is owed. That has a deadline of its own, and so has what follows.
    pub fn flush(&mut self) -> Result<(), Lost> {
        if self.owed.is_empty() {
            return Ok(());
        }
        self.stream.set_deadline(self.timeout);
        let sent = self.stream.write_all(&self.owed);
        // After an error too: the same replies must not be sent a second time.
        self.owed.clear();
        sent.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => Lost::Deaf,
            _ => error.into(),
        })?;
        self.stream.set_deadline(self.timeout);
        Ok(())
    }

    fn renew_stretch(&mut self) {
        self.stretch = 0;
        self.stream.set_deadline(self.timeout);
    }
}

/// Whether a CR has something else than LF after it. One at the very end may still
/// get its LF.
fn has_bare_cr(line: &[u8]) -> bool {
    memchr::memchr_iter(b'\r', line).any(|at| line.get(at + 1).is_some_and(|next| *next != b'\n'))
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
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    const LIMIT: usize = 100;

    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nodelay(true).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        let timeout = Duration::from_secs(5);
        (Wire::new(Stream::Plain(Socket::new(Arc::new(tcp), timeout)), timeout, None), peer)
    }

    /// What `read_line` gives, in one word for comparing.
    fn next(wire: &mut Wire) -> String {
        match wire.read_line(LIMIT) {
            Ok(()) => String::from_utf8_lossy(wire.line()).into_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn lines_are_the_same_however_the_octets_are_cut() {
        let input = b"EHLO a\r\nNOOP\r\n\r\nnul\0\r\nQUIT\r\n";
        let lines = ["EHLO a", "NOOP", "", "Bad(Nul)", "QUIT", "Lost(Gone)"];
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
    fn nothing_after_a_bare_newline_is_a_line_however_the_octets_are_cut() {
        let long = "x".repeat(5 * LIMIT);
        for bare in [
            "MAIL FROM:<a@b.example>\nRCPT TO:<c@d.example>",
            "MAIL\rFROM",
            "MAIL FROM:<a@b.example>\r\r",
            &format!("{long}\nRSET"),
            &format!("{long}\rRSET"),
        ] {
            let input = format!("NOOP\r\n{bare}\r\nQUIT\r\n").into_bytes();
            for part in [1, 2, 3, 7, input.len()] {
                let (mut wire, mut peer) = pair();
                let input = input.clone();
                let sender = std::thread::spawn(move || {
                    // The server may be gone before the last of them.
                    input.chunks(part).all(|octets| peer.write_all(octets).is_ok())
                });
                assert_eq!(next(&mut wire), "NOOP");
                for _ in 0..3 {
                    assert_eq!(next(&mut wire), "Bad(BareNewline)", "{bare:?} in parts of {part}");
                }
                drop(wire);
                sender.join().unwrap();
            }
        }
    }

    #[test]
    fn the_limit_counts_the_line_end_and_a_longer_line_is_skipped_whole() {
        let (mut wire, mut peer) = pair();
        for length in [LIMIT - 2, LIMIT - 1, LIMIT, 50_000] {
            peer.write_all("x".repeat(length).as_bytes()).unwrap();
            peer.write_all(b"\r\n").unwrap();
        }
        peer.write_all(b"NOOP\r\n").unwrap();
        assert_eq!(next(&mut wire), "x".repeat(LIMIT - 2));
        for _ in 0..3 {
            assert_eq!(next(&mut wire), "Bad(TooLong)");
        }
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
    fn nothing_is_owed_while_a_client_has_to_wait() {
        let (mut wire, mut peer) = pair();
        wire.reply(&reply::ok()).unwrap();
        wire.pause(Duration::from_millis(1)).unwrap();
        assert!(wire.owed.is_empty());
        wire.reply(&reply::send_message()).unwrap();
        peer.write_all(b"x").unwrap();
        wire.begin_message();
        wire.arrived().unwrap();
        assert!(wire.owed.is_empty(), "a client waits for the 354");
    }

    #[test]
    fn a_client_that_did_not_wait_for_the_354_has_it_before_its_message_is_stored() {
        let (mut wire, mut peer) = pair();
        peer.write_all(b"DATA\r\nx").unwrap();
        assert_eq!(next(&mut wire), "DATA");
        while !wire.has_input() {
            wire.wait().unwrap();
        }
        wire.reply(&reply::send_message()).unwrap();
        wire.begin_message();
        assert_eq!(wire.arrived().unwrap(), b"x");
        wire.take(1);
        assert!(!wire.owed.is_empty());
        wire.end_message(1).unwrap();
        assert!(wire.owed.is_empty());
    }

    #[test]
    fn a_chunk_is_so_many_octets_however_they_are_cut_and_commands_follow() {
        let input = b"NOOP\r\nRSET\r\nQUIT\r\nHELP\r\n";
        for part in [1, 2, 3, 7, input.len()] {
            let (mut wire, mut peer) = pair();
            let sender = std::thread::spawn(move || {
                for octets in input.chunks(part) {
                    peer.write_all(octets).unwrap();
                }
            });
            assert_eq!(next(&mut wire), "NOOP");
            wire.skip_chunk(6).unwrap();
            wire.skip_chunk(0).unwrap();
            assert_eq!(next(&mut wire), "QUIT", "in parts of {part}");
            wire.begin_message();
            let mut left = 5;
            while left > 0 {
                let count = wire.arrived_of(left).unwrap().len();
                assert!((1..=left).contains(&(count as u64)));
                wire.take(count);
                left -= count as u64;
            }
            wire.show_chunk(5);
            assert!(matches!(wire.read_line(LIMIT), Err(LineError::Bad(BadLine::BareNewline))));
            sender.join().unwrap();
        }
    }

    #[test]
    fn a_client_that_goes_inside_a_chunk_is_gone() {
        let (mut wire, mut peer) = pair();
        peer.write_all(b"12345").unwrap();
        drop(peer);
        assert!(matches!(wire.skip_chunk(6), Err(Lost::Gone)));
    }

    #[test]
    fn what_follows_a_message_in_the_same_write_is_still_there() {
        let (mut wire, mut peer) = pair();
        let tail = "NOOP\r\n".repeat(1000);
        peer.write_all(format!("x{tail}").as_bytes()).unwrap();
        drop(peer);
        wire.begin_message();
        assert_eq!(wire.arrived().unwrap().first(), Some(&b'x'));
        wire.take(1);
        wire.end_message(1).unwrap();
        for _ in 0..1000 {
            assert_eq!(next(&mut wire), "NOOP");
        }
        assert_eq!(next(&mut wire), "Lost(Gone)");
    }
}
