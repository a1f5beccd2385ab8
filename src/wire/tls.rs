//! The server's half of TLS, behind one small type.
//!
//! In: a certificate and its key, in PEM form. Out: an [`Acceptor`], which makes
//! a [`ServerSide`] of a [`Socket`] whose client begins a handshake. What is
//! accepted is decided here and nowhere else: TLS 1.2 and 1.3, and on Linux only key exchanges
//! with forward secrecy, so that whoever records a session today and steals the key
//! next year cannot read it (RFC 9325 sections 3.1.1 and 4).
//!
//! On Linux the library is OpenSSL, by the crate that `native-tls` uses there too:
//! its own acceptor rules TLS 1.3 out and still takes key exchanges without forward
//! secrecy. On other systems it is `native-tls`, TLS 1.2 or newer, and what
//! else the system does by default.
//!
//! Left to others: the files, and what is wrong with them
//! (`server/certificate.rs`); the client's half (`stream.rs`).
//!
//! Book: docs/10-tls.md.

use std::fmt::{self, Debug, Display, Formatter};
use std::io::{self, Read, Write};

use crate::wire::socket::Socket;

/// Certificate and key, ready for handshakes. A copy of it is as good and costs
/// nothing.
#[derive(Clone)]
pub struct Acceptor(library::Acceptor);

/// A connection under TLS, of which we are the server.
#[derive(Debug)]
pub struct ServerSide(library::Stream);

/// Why there is no [`Acceptor`].
#[derive(Debug)]
pub enum IdentityError {
    /// This is no certificate.
    Certificate(String),
    /// This is no key.
    Key(String),
    /// They do not fit together.
    NoPair(String),
}

impl Acceptor {
    /// Of a certificate, with the authorities between it and the root after it, and
    /// its key. Text before and between the PEM blocks does not matter.
    pub fn new(cert: &[u8], key: &[u8]) -> Result<Acceptor, IdentityError> {
        library::acceptor(cert, key).map(Acceptor)
    }

    /// Makes the handshake with a client, at most until the socket's deadline. The
    /// error is what the library says.
    pub fn accept(&self, socket: Socket) -> Result<ServerSide, String> {
        library::accept(&self.0, socket).map(ServerSide)
    }
}

impl ServerSide {
    /// The connection below.
    pub fn socket(&mut self) -> &mut Socket {
        self.0.get_mut()
    }

    /// Protocol and cipher, such as `TLSv1.3 TLS_AES_256_GCM_SHA384`, where the
    /// library tells.
    pub fn encryption(&self) -> Option<String> {
        library::encryption(&self.0)
    }

    /// Says that nothing more comes, so that nobody in between can cut us short
    /// unnoticed (close_notify, RFC 8446 section 6.1).
    pub fn say_goodbye(&mut self) -> io::Result<()> {
        library::say_goodbye(&mut self.0)
    }
}

/// OpenSSL.
#[cfg(target_os = "linux")]
mod library {
    use std::io;

    use openssl::error::ErrorStack;
    use openssl::pkey::PKey;
    use openssl::ssl::{
        HandshakeError, SslAcceptor, SslMethod, SslOptions, SslSessionCacheMode, SslStream,
    };
    use openssl::x509::X509;

    use crate::wire::socket::Socket;
    use crate::wire::tls::IdentityError;

    /// Of Mozilla's list for TLS 1.2, those with Diffie and Hellman on elliptic curves: for
    /// the older kind all servers share a few groups, which makes these worth an attack.
    const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";

    pub type Acceptor = SslAcceptor;
    pub type Stream = SslStream<Socket>;

    pub fn acceptor(cert: &[u8], key: &[u8]) -> Result<SslAcceptor, IdentityError> {
        let no_cert = |error: ErrorStack| IdentityError::Certificate(error.to_string());
        let mut chain = X509::stack_from_pem(cert).map_err(no_cert)?.into_iter();
        let ours = chain.next();
        let ours = ours.ok_or_else(|| IdentityError::Certificate("there is none".to_owned()))?;
        // With a password given, though an empty one, nobody is asked for it at the
        // terminal.
        let key = PKey::private_key_from_pem_passphrase(key, b"")
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        // Mozilla's settings for servers with clients of many ages: no older TLS than 1.2
        // (RFC 8996).
        let mut builder =
            SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).map_err(no_cert)?;
        builder.set_cipher_list(CIPHERS).map_err(no_cert)?;
        // Our order counts. And to begin anew in the middle of a session is a lot of work
        // for us and none for the client.
        builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE | SslOptions::NO_RENEGOTIATION);
        // No session is taken up again. Its secrets would lie in our memory, or in a ticket at
        // the client, encrypted by a key as old as this process (RFC 9325 section 3.4).
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_options(SslOptions::NO_TICKET);
        // Under TLS 1.3 the library makes tickets all the same, which nobody can use. Without
        // one many clients would wait until we acknowledge their last words; two cost more.
        builder.set_num_tickets(1).map_err(no_cert)?;
        builder.set_certificate(&ours).map_err(no_cert)?;
        for authority in chain {
            builder.add_extra_chain_cert(authority).map_err(no_cert)?;
        }
        builder.set_private_key(&key).and_then(|()| builder.check_private_key()).map_err(|_| {
            IdentityError::NoPair("the key belongs to another certificate".to_owned())
        })?;
        Ok(builder.build())
    }

    pub fn accept(acceptor: &SslAcceptor, socket: Socket) -> Result<Stream, String> {
        acceptor.accept(socket).map_err(|error| match error {
            HandshakeError::SetupFailure(error) => error.to_string(),
            HandshakeError::Failure(broken) | HandshakeError::WouldBlock(broken) => {
                broken.error().to_string()
            }
        })
    }

    pub fn encryption(stream: &Stream) -> Option<String> {
        let cipher = stream.ssl().current_cipher()?;
        Some(format!("{} {}", stream.ssl().version_str(), cipher.name()))
    }

    pub fn say_goodbye(stream: &mut Stream) -> io::Result<()> {
        match stream.shutdown() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.into_io_error().unwrap_or_else(io::Error::other)),
        }
    }
}

/// What the system brings.
#[cfg(not(target_os = "linux"))]
mod library {
    use std::io;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use native_tls::{HandshakeError, Identity, Protocol, TlsAcceptor, TlsConnector, TlsStream};

    use crate::wire::socket::Socket;
    use crate::wire::tls::IdentityError;

    pub type Acceptor = TlsAcceptor;
    pub type Stream = TlsStream<Socket>;

    pub fn acceptor(cert: &[u8], key: &[u8]) -> Result<TlsAcceptor, IdentityError> {
        // These libraries want no text before a block, and the key in PKCS#8.
        let cert = from_marker(cert, "-----BEGIN CERTIFICATE-----")
            .ok_or_else(|| IdentityError::Certificate("there is none".to_owned()))?;
        let key = from_marker(key, "-----BEGIN PRIVATE KEY-----").ok_or_else(|| {
            let convert = "convert it with openssl pkcs8 -topk8 -nocrypt";
            IdentityError::Key(format!("this system takes PKCS#8 keys only, {convert}"))
        })?;
        let wrong = |error: native_tls::Error| IdentityError::NoPair(error.to_string());
        let mut builder = TlsAcceptor::builder(Identity::from_pkcs8(cert, key).map_err(wrong)?);
        // RFC 8996: nothing older is safe.
        let acceptor = builder.min_protocol_version(Some(Protocol::Tlsv12)).build();
        let acceptor = acceptor.map_err(wrong)?;
        if is_pair(&acceptor) {
            Ok(acceptor)
        } else {
            Err(IdentityError::NoPair("no handshake works with them".to_owned()))
        }
    }

    /// These libraries take a certificate with the key of another one, and fail at
    /// every handshake. So we try one, with ourselves.
    fn is_pair(acceptor: &TlsAcceptor) -> bool {
        let connector = TlsConnector::builder()
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true)
            .build();
        let pair = TcpListener::bind("127.0.0.1:0").and_then(|listener| {
            let ours = TcpStream::connect(listener.local_addr()?)?;
            Ok((ours, listener.accept()?.0))
        });
        let (Ok(connector), Ok((ours, theirs))) = (connector, pair) else { return true };
        thread::scope(|scope| {
            scope.spawn(move || connector.connect("localhost", theirs).map(drop));
            acceptor.accept(ours).is_ok()
        })
    }

    /// From the first `marker` on.
    fn from_marker<'a>(text: &'a [u8], marker: &str) -> Option<&'a [u8]> {
        let start = text.windows(marker.len()).position(|part| part == marker.as_bytes())?;
        text.get(start..)
    }

    pub fn accept(acceptor: &TlsAcceptor, socket: Socket) -> Result<Stream, String> {
        acceptor.accept(socket).map_err(|error| match error {
            HandshakeError::Failure(error) => error.to_string(),
            // The socket never says "try again".
            HandshakeError::WouldBlock(_) => "interrupted".to_owned(),
        })
    }

    pub fn encryption(_: &Stream) -> Option<String> {
        None
    }

    pub fn say_goodbye(stream: &mut Stream) -> io::Result<()> {
        stream.shutdown()
    }
}

impl Read for ServerSide {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ServerSide {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The key in it is nobody's business.
impl Debug for Acceptor {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Display for IdentityError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            IdentityError::Certificate(why) => write!(f, "no certificate: {why}"),
            IdentityError::Key(why) => write!(f, "no key: {why}"),
            IdentityError::NoPair(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for IdentityError {}
