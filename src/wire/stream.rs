//! A connection in clear or under TLS, above the deadline.
//!
//! In: a [`Socket`]. Out: octets, which look the same to everybody above. The
//! deadline is below the encryption, so a handshake that never ends is cut off
//! like any other silence.
//!
//! Book: docs/10-tls.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Read, Write};
use std::time::Duration;

use native_tls::{HandshakeError, TlsConnector, TlsStream};

use crate::wire::socket::{Linger, Socket};
use crate::wire::tls::{Acceptor, ServerSide};

/// Every TLS connection begins with this octet, and no command does.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// One connection, encrypted or not.
#[derive(Debug)]
pub enum Stream {
    /// As it is on the wire.
    Plain(Socket),
    /// Encrypted, and we are the server. In a box, because it is many times as large.
    Server(Box<ServerSide>),
    /// Encrypted, and we are the client.
    Client(Box<TlsStream<Socket>>),
}

/// Why there is no encrypted connection. The old one cannot be used any more.
#[derive(Debug)]
pub enum TlsError {
    /// The server said more in the clear than was asked for: somebody tries to have it
    /// taken as if it had come encrypted (CVE-2011-0411).
    Injected,
    /// TLS is on already.
    AlreadyOn,
    /// There is no certificate to begin with.
    NoIdentity,
    /// What came first is no handshake.
    NotTls,
    /// The handshake failed, or took too long.
    Handshake(String),
}

impl Stream {
    /// Waits for the client's handshake, at most until the socket's deadline. If there
    /// is none the connection is closed, but so that the client can read why.
    pub fn start_tls(self, acceptor: &Acceptor) -> Result<Stream, TlsError> {
        let Stream::Plain(socket) = self else { return Err(TlsError::AlreadyOn) };
        let mut below = socket.share();
        let encrypted = accept(acceptor, socket);
        if encrypted.is_err() && below.end_of_output().is_ok() {
            below.read_away(Linger::SHORT);
        }
        encrypted.map(|tls| Stream::Server(Box::new(tls)))
    }

    /// The other half: begins a handshake with a server called `host`, at most
    /// until the socket's deadline. Whether its certificate has to be valid, and
    /// for that name, is up to the connector.
    pub fn connect_tls(self, connector: &TlsConnector, host: &str) -> Result<Stream, TlsError> {
        let Stream::Plain(socket) = self else { return Err(TlsError::AlreadyOn) };
        match connector.connect(host, socket) {
            Ok(tls) => Ok(Stream::Client(Box::new(tls))),
            Err(HandshakeError::Failure(error)) => Err(TlsError::Handshake(error.to_string())),
            // The socket never says "try again"; a blocking one has no reason to.
            Err(HandshakeError::WouldBlock(_)) => {
                Err(TlsError::Handshake("interrupted".to_owned()))
            }
        }
    }

    /// How it is encrypted: protocol and cipher, where the library tells; `None` in
    /// clear.
    pub fn encryption(&self) -> Option<String> {
        match self {
            Stream::Server(tls) => tls.encryption(),
            Stream::Plain(_) | Stream::Client(_) => None,
        }
    }

    /// The connection below the encryption.
    pub fn socket(&mut self) -> &mut Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Server(tls) => tls.socket(),
            Stream::Client(tls) => tls.get_mut(),
        }
    }

    /// Everything from here on has to be done within `limit`.
    pub fn set_deadline(&mut self, limit: Duration) {
        self.socket().set_deadline(limit);
    }

    /// Tells the peer that we write no more: under TLS with a close_notify, so
    /// that nobody in between can cut us short unnoticed.
    pub fn end_of_output(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => {}
            Stream::Server(tls) => tls.say_goodbye()?,
            Stream::Client(tls) => tls.shutdown()?,
        }
        self.socket().end_of_output()
    }
}

/// The handshake, if it is one.
fn accept(acceptor: &Acceptor, mut socket: Socket) -> Result<ServerSide, TlsError> {
    // The library would say no more than that a number is wrong.
    match socket.peek_octet() {
        Ok(TLS_HANDSHAKE) => acceptor.accept(socket).map_err(TlsError::Handshake),
        Ok(_) => Err(TlsError::NotTls),
        Err(error) => Err(TlsError::Handshake(error.to_string())),
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Server(tls) => tls.read(buffer),
            Stream::Client(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(octets),
            Stream::Server(tls) => tls.write(octets),
            Stream::Client(tls) => tls.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Server(tls) => tls.flush(),
            Stream::Client(tls) => tls.flush(),
        }
    }
}

impl Display for TlsError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            TlsError::Injected => f.write_str("more was said in the clear than was asked for"),
            TlsError::AlreadyOn => f.write_str("TLS is on already"),
            TlsError::NoIdentity => f.write_str("there is no certificate"),
            TlsError::NotTls => f.write_str("clear text where a TLS handshake was expected"),
            TlsError::Handshake(why) => write!(f, "the TLS handshake failed: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}
