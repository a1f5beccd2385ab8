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

use native_tls::{HandshakeError, TlsAcceptor, TlsConnector, TlsStream};

use crate::wire::socket::Socket;

/// Every TLS connection begins with this octet, and no command does.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// One connection, encrypted or not.
#[derive(Debug)]
pub enum Stream {
    /// As it is on the wire.
    Plain(Socket),
    /// Encrypted. In a box, because it is many times as large.
    Tls(Box<TlsStream<Socket>>),
}

/// Why there is no encrypted connection. The old one cannot be used any more.
#[derive(Debug)]
pub enum TlsError {
    /// Something arrived behind STARTTLS in the clear: somebody tries to have it
    /// run as if it had come encrypted (CVE-2011-0411).
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
    /// Waits for the client's handshake, at most until the socket's deadline.
    pub fn start_tls(self, acceptor: &TlsAcceptor) -> Result<Stream, TlsError> {
        let Stream::Plain(mut socket) = self else { return Err(TlsError::AlreadyOn) };
        // The library would say no more than that a number is wrong.
        match socket.first_octet() {
            Ok(TLS_HANDSHAKE) => {}
            Ok(_) => return Err(TlsError::NotTls),
            Err(error) => return Err(TlsError::Handshake(error.to_string())),
        }
        encrypted(acceptor.accept(socket))
    }

    /// The other half: begins a handshake with a server called `host`, at most
    /// until the socket's deadline. Whether its certificate has to be valid, and
    /// for that name, is up to the connector.
    pub fn connect_tls(self, connector: &TlsConnector, host: &str) -> Result<Stream, TlsError> {
        let Stream::Plain(socket) = self else { return Err(TlsError::AlreadyOn) };
        encrypted(connector.connect(host, socket))
    }

    /// Whether what we write is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Everything from here on has to be done within `limit`.
    pub fn set_deadline(&mut self, limit: Duration) {
        match self {
            Stream::Plain(socket) => socket.set_deadline(limit),
            Stream::Tls(tls) => tls.get_mut().set_deadline(limit),
        }
    }

    /// Tells the peer that we write no more: under TLS with a close_notify, so
    /// that nobody in between can cut us short unnoticed.
    pub fn end_of_output(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.end_of_output(),
            Stream::Tls(tls) => {
                tls.shutdown()?;
                tls.get_ref().end_of_output()
            }
        }
    }

    /// Reads what arrives below the encryption, once nobody is interested in
    /// what it means.
    pub fn read_below(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(tls) => tls.get_mut().read(buffer),
        }
    }
}

/// The stream behind a handshake, if that worked.
fn encrypted(
    handshake: Result<TlsStream<Socket>, HandshakeError<Socket>>,
) -> Result<Stream, TlsError> {
    match handshake {
        Ok(tls) => Ok(Stream::Tls(Box::new(tls))),
        Err(HandshakeError::Failure(error)) => Err(TlsError::Handshake(error.to_string())),
        // The socket never says "try again"; a blocking one has no reason to.
        Err(HandshakeError::WouldBlock(_)) => Err(TlsError::Handshake("interrupted".to_owned())),
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(octets),
            Stream::Tls(tls) => tls.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

impl Display for TlsError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            TlsError::Injected => f.write_str("commands came right behind STARTTLS in the clear"),
            TlsError::AlreadyOn => f.write_str("TLS is on already"),
            TlsError::NoIdentity => f.write_str("there is no certificate"),
            TlsError::NotTls => {
                f.write_str("clear text where a TLS handshake was expected, wrong port or setting")
            }
            TlsError::Handshake(why) => write!(f, "the TLS handshake failed: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}
