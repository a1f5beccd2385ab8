//! The connection that a script is played on: in clear, or encrypted from some step on.
//!
//! In and out: octets. A handshake takes any certificate: a script tests what a server
//! says, not who it is.
//!
//! Book: docs/03-replies.md.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use native_tls::{TlsConnector, TlsStream};

/// In clear or encrypted.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake failed; nothing can be said any more.
    Broken,
}

impl Connection {
    /// The client's half of a handshake, or why there is none.
    pub fn start_tls(&mut self) -> Result<(), String> {
        let Connection::Plain(tcp) = mem::replace(self, Connection::Broken) else {
            return Err("TLS twice".to_owned());
        };
        let connector = TlsConnector::builder()
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true)
            .build()
            .map_err(|error| error.to_string())?;
        let tls = connector.connect("localhost", tcp).map_err(|error| error.to_string())?;
        *self = Connection::Tls(Box::new(tls));
        Ok(())
    }

    /// How long each read may wait from here on.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match self {
            Connection::Plain(tcp) => tcp.set_read_timeout(Some(patience)),
            Connection::Tls(tls) => tls.get_ref().set_read_timeout(Some(patience)),
            Connection::Broken => Ok(()),
        }
    }

    pub fn end_of_output(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(tcp) => tcp.shutdown(Shutdown::Write),
            Connection::Tls(tls) => tls.shutdown(),
            Connection::Broken => Ok(()),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => tcp.read(buffer),
            Connection::Tls(tls) => tls.read(buffer),
            Connection::Broken => Ok(0),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(tcp) => tcp.write(octets),
            Connection::Tls(tls) => tls.write(octets),
            Connection::Broken => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Plain(tcp) => tcp.flush(),
            Connection::Tls(tls) => tls.flush(),
            Connection::Broken => Ok(()),
        }
    }
}
