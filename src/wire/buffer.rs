//! What has arrived on a connection and was not looked at yet.
//!
//! In: a [`Stream`] to read from. Out: octets, in the order in which they came,
//! until somebody takes them. Both ends of the wire read through this: `lines.rs`
//! commands and messages, `replies.rs` what other servers answer.
//!
//! Left to others: what the octets mean, how long they may be waited for (the
//! stream's deadline), and how many of them are too many.
//!
//! Book: docs/06-bytes.md.

use std::io::{self, Read};

use crate::wire::stream::Stream;

/// One buffer for input. It is filled only when it is empty, so nothing in it ever
/// has to be moved to make room.
#[derive(Debug)]
pub struct Buffer {
    octets: Vec<u8>,
    /// `octets[start..end]` is waiting; `start <= end <= octets.len()`.
    start: usize,
    end: usize,
}

impl Buffer {
    /// Room for `size` octets at a time.
    pub fn new(size: usize) -> Buffer {
        Buffer { octets: vec![0; size], start: 0, end: 0 }
    }

    /// What has arrived and was not taken.
    pub fn waiting(&mut self) -> &mut [u8] {
        let waiting = self.octets.get_mut(self.start..self.end);
        waiting.expect("every method here leaves start <= end <= the length")
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the last read filled it: the sender is faster than we are.
    pub fn was_filled(&self) -> bool {
        self.end == self.octets.len()
    }

    /// Room for `size` octets from now on. It has to be empty.
    pub fn resize(&mut self, size: usize) {
        self.discard();
        if size != self.octets.len() {
            self.octets = vec![0; size];
        }
    }

    /// Waits until something arrives, and says how much; zero is the end of all
    /// input. It has to be empty.
    pub fn fill(&mut self, stream: &mut Stream) -> io::Result<usize> {
        self.discard();
        self.end = stream.read(&mut self.octets)?;
        Ok(self.end)
    }

    /// The first `count` octets that wait were dealt with.
    pub fn take(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Moves what waits to the end of `line`, up to an LF and with it. Whether there
    /// was one: the line is whole then, and what follows it is still waiting.
    pub fn take_line(&mut self, line: &mut Vec<u8>) -> bool {
        let waiting = self.waiting();
        let newline = memchr::memchr(b'\n', waiting);
        let (taken, _) = waiting.split_at(newline.map_or(waiting.len(), |at| at + 1));
        line.extend_from_slice(taken);
        let count = taken.len();
        self.take(count);
        newline.is_some()
    }

    /// Forgets what is waiting.
    pub fn discard(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::socket::Socket;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::Duration;

    /// A stream on which these octets arrive, and then the end.
    fn arriving(octets: &[u8]) -> Stream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(octets).unwrap();
        Stream::Plain(Socket::new(Arc::new(tcp), Duration::from_secs(5)))
    }

    #[test]
    fn a_line_is_whole_however_small_the_buffer_is_and_what_follows_waits() {
        let input = b"NOOP\r\n\nQUIT";
        for size in 1..=input.len() {
            let (mut stream, mut buffer) = (arriving(input), Buffer::new(size));
            for wanted in [&b"NOOP\r\n"[..], b"\n"] {
                let mut line = Vec::new();
                while !buffer.take_line(&mut line) {
                    assert!(buffer.is_empty());
                    assert!(buffer.fill(&mut stream).unwrap() > 0);
                }
                assert_eq!(line, wanted, "with room for {size}");
            }
            let mut rest = Vec::new();
            loop {
                assert!(!buffer.take_line(&mut rest));
                if buffer.fill(&mut stream).unwrap() == 0 {
                    break;
                }
            }
            assert_eq!(rest, b"QUIT", "with room for {size}");
        }
    }

    #[test]
    fn what_was_taken_does_not_come_again_and_no_more_than_waits_can_be_taken() {
        let (mut stream, mut buffer) = (arriving(b"abcdef"), Buffer::new(4));
        assert_eq!(buffer.fill(&mut stream).unwrap(), 4);
        assert!(buffer.was_filled());
        buffer.take(1);
        assert_eq!(buffer.waiting(), b"bcd");
        buffer.take(9);
        assert!(buffer.is_empty());
        buffer.resize(2);
        assert_eq!(buffer.waiting(), b"");
        assert_eq!(buffer.fill(&mut stream).unwrap(), 2);
        assert!(buffer.was_filled());
        assert_eq!(buffer.waiting(), b"ef");
        buffer.discard();
        assert!(buffer.is_empty());
    }
}
