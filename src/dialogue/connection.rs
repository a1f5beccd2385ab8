//! The connection that a script is played on: in clear, or encrypted from some step on.
//!
//! In and out: octets. All reads of one answer together have one time, however few octets
//! each of them brings. A handshake takes any certificate: a script tests what a server
//! says, not who it is.
//!
//! Book: docs/03-replies.md.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use native_tls::{TlsConnector, TlsStream};

/// The most octets of one answer that are read.
pub const ANSWER_LIMIT: u64 = 64 * 1024;

/// A connection whose reads end together.
#[derive(Debug)]
pub struct TimedStream {
    tcp: TcpStream,
    /// When they end; never, if that is too far away to be told.
    end: Option<Instant>,
}

impl TimedStream {
    /// Connects. Each write may take so long, and so may all reads until [`TimedStream::wait`].
    pub fn connect(server: SocketAddr, patience: Duration) -> io::Result<TimedStream> {
        let tcp = TcpStream::connect_timeout(&server, patience)?;
        // A server that does not read must not hold us either.
        tcp.set_write_timeout(Some(patience))?;
        tcp.set_nodelay(true)?;
        let mut stream = TimedStream { tcp, end: None };
        stream.wait(patience);
        Ok(stream)
    }

    /// How long all reads from here on may take together.
    pub fn wait(&mut self, patience: Duration) {
        self.end = Instant::now().checked_add(patience);
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(ErrorKind::TimedOut.into());
        }
        self.tcp.set_read_timeout(left)?;
        self.tcp.read(buffer)
    }
}

impl Write for TimedStream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.tcp.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// In clear or encrypted.
pub(super) enum Connection {
    Plain(TimedStream),
    Tls(Box<TlsStream<TimedStream>>),
    /// A handshake failed; nothing can be said any more.
    Broken,
}

impl Connection {
    /// The client's half of a handshake, or why there is none.
    pub fn start_tls(&mut self) -> Result<(), String> {
        let Connection::Plain(stream) = mem::replace(self, Connection::Broken) else {
            return Err("TLS twice".to_owned());
        };
        let connector = TlsConnector::builder()
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true)
            .build()
            .map_err(|error| error.to_string())?;
        let tls = connector.connect("localhost", stream).map_err(|error| error.to_string())?;
        *self = Connection::Tls(Box::new(tls));
        Ok(())
    }

    /// How long all reads from here on may take together.
    pub fn wait(&mut self, patience: Duration) {
        match self {
            Connection::Plain(stream) => stream.wait(patience),
            Connection::Tls(tls) => tls.get_mut().wait(patience),
            Connection::Broken => {}
        }
    }

    pub fn end_of_output(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.tcp.shutdown(Shutdown::Write),
            Connection::Tls(tls) => tls.shutdown(),
            Connection::Broken => Ok(()),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.read(buffer),
            Connection::Tls(tls) => tls.read(buffer),
            Connection::Broken => Ok(0),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.write(octets),
            Connection::Tls(tls) => tls.write(octets),
            Connection::Broken => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.flush(),
            Connection::Tls(tls) => tls.flush(),
            Connection::Broken => Ok(()),
        }
    }
}
