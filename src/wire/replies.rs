//! Commands out, replies in: the client's end of the wire.
//!
//! In: a [`Stream`], and octets to send. Out: whole replies, however TCP cut
//! them, and the reasons why there is none. `lines.rs` is the other end.
//!
//! A server is not trusted to keep the protocol. A reply has one absolute
//! deadline, a limited number of lines, lines of a limited length, and no more text is
//! kept of it than is asked for. Octets that were read before we asked would be taken
//! for the answer to what we ask next, so they end the connection. What the system
//! still keeps is not looked at: an early reply that comes in a packet of its own is
//! not found out.
//!
//! Left to others: which commands, and what a reply means (`relay/client/`).
//!
//! Book: docs/13-the-client-side.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use native_tls::TlsConnector;

use crate::smtp::reply::{Reply, ReplyError, ReplyParser};
use crate::wire::buffer::Buffer;
use crate::wire::stream::{Stream, TlsError};

/// Input buffer: most replies fit into it several times.
const BUFFER: usize = 2 * 1024;
/// The longest reply line that is read, line end included. The RFC has 512
/// octets (RFC 5321 section 4.5.3.1.5); some servers write more.
const LINE_LIMIT: usize = 4096;

/// One connection to a server.
#[derive(Debug)]
pub struct Replies {
    stream: Stream,
    input: Buffer,
}

/// Why there is no reply. The connection is of no more use: nobody knows which
/// command the next reply would belong to.
#[derive(Debug)]
pub enum NoReply {
    /// The server closed it.
    Closed,
    /// The deadline passed before the reply was whole.
    Late,
    /// The deadline passed before the server took what we send.
    Deaf,
    /// The operating system, or TLS, reports something else.
    Io(io::Error),
    /// A line longer than `LINE_LIMIT`.
    LineTooLong,
    /// Lines that are no reply.
    Malformed(ReplyError),
    /// More was read than was asked for.
    Early,
}

impl Replies {
    /// Over a connection on which nothing was read yet.
    pub fn new(stream: Stream) -> Replies {
        Replies { stream, input: Buffer::new(BUFFER) }
    }

    /// Sends `octets`, all of them within `limit`.
    pub fn send(&mut self, octets: &[u8], limit: Duration) -> Result<(), NoReply> {
        if !self.input.is_empty() {
            return Err(NoReply::Early);
        }
        self.stream.set_deadline(limit);
        let sent = self.stream.write_all(octets).and_then(|()| self.stream.flush());
        sent.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => NoReply::Deaf,
            _ => error.into(),
        })
    }

    /// The next reply, all its lines within `limit` from now, and at most `kept`
    /// octets of its text.
    pub fn reply(&mut self, limit: Duration, kept: usize) -> Result<Reply, NoReply> {
        self.stream.set_deadline(limit);
        let mut parser = ReplyParser::keeping(kept);
        loop {
            let line = self.line()?;
            if let Some(reply) = parser.line(&line).map_err(NoReply::Malformed)? {
                return Ok(reply);
            }
        }
    }

    /// Begins TLS with a server called `host`, within `limit`. What was said
    /// in the clear is not carried over, and if more was said than was asked
    /// for there is no handshake (CVE-2011-0411, on the side of the client).
    pub fn start_tls(
        mut self,
        connector: &TlsConnector,
        host: &str,
        limit: Duration,
    ) -> Result<Replies, TlsError> {
        if !self.input.is_empty() {
            return Err(TlsError::Injected);
        }
        self.stream.set_deadline(limit);
        Ok(Replies::new(self.stream.connect_tls(connector, host)?))
    }

    /// Tells the server that nothing more comes. An error means that it knows.
    pub fn close(mut self) {
        let _ = self.stream.end_of_output();
    }

    /// Whether something was read that nobody has asked for yet.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// One line without its end. CR LF or LF alone will do: a message cannot be
    /// smuggled in a reply, and old servers are careless.
    fn line(&mut self) -> Result<Vec<u8>, NoReply> {
        let mut line = Vec::new();
        while !self.input.take_line(&mut line) && line.len() <= LINE_LIMIT {
            if self.input.fill(&mut self.stream)? == 0 {
                return Err(NoReply::Closed);
            }
        }
        if line.len() > LINE_LIMIT {
            return Err(NoReply::LineTooLong);
        }
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }
}

impl From<io::Error> for NoReply {
    fn from(error: io::Error) -> NoReply {
        match error.kind() {
            ErrorKind::TimedOut => NoReply::Late,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => NoReply::Closed,
            _ => NoReply::Io(error),
        }
    }
}

impl Display for NoReply {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            NoReply::Closed => f.write_str("the server closed the connection"),
            NoReply::Late => f.write_str("the server did not answer in time"),
            NoReply::Deaf => f.write_str("the server did not take what was sent in time"),
            NoReply::Io(error) => error.fmt(f),
            NoReply::LineTooLong => f.write_str("the server sent a line that does not end"),
            NoReply::Malformed(why) => write!(f, "the server sent {why}"),
            NoReply::Early => f.write_str("the server spoke before it was asked"),
        }
    }
}

impl std::error::Error for NoReply {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::socket::Socket;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    const LIMIT: Duration = Duration::from_secs(5);

    /// What is read of a server that says `octets` in one write and closes.
    fn said(octets: &[u8]) -> Replies {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(octets).unwrap();
        Replies::new(Stream::Plain(Socket::new(Arc::new(tcp), LIMIT)))
    }

    #[test]
    fn replies_end_with_their_last_line_and_lines_with_crlf_or_lf() {
        let mut replies = said(b"250-a\r\n250 b\r\n354 c\n221\r\n");
        let texts = [0; 3].map(|_| replies.reply(LIMIT, 500).unwrap().to_string());
        assert_eq!(texts, ["250 b", "354 c", "221 "]);
        assert!(matches!(replies.reply(LIMIT, 500), Err(NoReply::Closed)));
    }

    #[test]
    fn half_a_reply_is_none() {
        for half in ["250-a\r\n", "250 a", ""] {
            assert!(
                matches!(said(half.as_bytes()).reply(LIMIT, 500), Err(NoReply::Closed)),
                "{half}"
            );
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_given_up() {
        let line = [&b"250 "[..], &[b'x'; 2 * LINE_LIMIT]].concat();
        assert!(matches!(said(&line).reply(LIMIT, 500), Err(NoReply::LineTooLong)));
    }

    #[test]
    fn nothing_is_sent_to_a_server_that_has_said_too_much() {
        let mut replies = said(b"220 a\r\n250 b\r\n");
        replies.reply(LIMIT, 500).unwrap();
        assert!(replies.has_input());
        assert!(matches!(replies.send(b"EHLO c.example\r\n", LIMIT), Err(NoReply::Early)));
    }

    #[test]
    fn each_send_has_its_own_time_whatever_was_waited_for_before() {
        let mut replies = said(b"220 a\r\n");
        replies.reply(Duration::from_millis(500), 500).unwrap();
        assert!(!replies.has_input());
        std::thread::sleep(Duration::from_millis(600));
        replies.send(b"EHLO c.example\r\n", LIMIT).unwrap();
    }
}
