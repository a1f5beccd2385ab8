//! From an address to a connection on which MAIL can be sent.
//!
//! In: where the next hop listens, and how to begin. Out: a [`Client`] after TCP, the
//! greeting, EHLO, perhaps TLS, perhaps a login; or what this address came to. A
//! password or a token goes to a server that has proved its name, and stands in no text
//! of ours.
//!
//! Left to others: which address is tried, and whether it is tried once more in clear
//! after a handshake that failed.
//!
//! Book: docs/13-the-client-side.md.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use native_tls::TlsConnector;
use ring::rand::{SecureRandom, SystemRandom};

use crate::relay::client::extensions::Extensions;
use crate::relay::client::{Client, GREETING};
use crate::smtp::address::address_literal;
use crate::smtp::answer::Answer;
use crate::smtp::auth::exchange::{ClientExchange, Credentials, Evidence};
use crate::smtp::auth::mechanism::{self, Mechanism};
use crate::smtp::reply::{Kind, Reply};
use crate::wire::replies::Replies;
use crate::wire::socket::Socket;
use crate::wire::stream::{Stream, TlsError};
use crate::wire::trace::Trace;

/// How long a connection may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long a whole TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);

/// X.4.1, no answer from host (RFC 3463 section 3.5).
const NO_CONNECTION: (u16, u16) = (4, 1);
/// X.7.5, cryptographic failure (section 3.8).
const NO_TLS: (u16, u16) = (7, 5);

/// 220: a greeting, and no answer to EHLO.
const GREETED: u16 = 220;
/// With more octets than this, CR LF included, AUTH takes no initial response (RFC 4954
/// section 4): it is a command like others, and only what follows may be longer. Few
/// tokens fit.
const AUTH_LIMIT: usize = 512;

/// 504 and 534: this mechanism is unknown, or too weak; another may do (RFC 4954
/// sections 4 and 6).
const WRONG_MECHANISM: [u16; 2] = [504, 534];

/// How to begin a connection.
#[derive(Debug, Clone, Copy)]
pub struct Dial<'a> {
    /// Our own name for EHLO. One without a dot means nothing to others; then our
    /// address on this connection is said (RFC 5321 section 4.1.4).
    pub name: &'a str,
    /// How long most replies may take: RFC 5321 section 4.5.3.2 has five minutes.
    /// Those for the message are in proportion; the others have bounds of their own.
    pub timeout: Duration,
    /// How the connection is encrypted.
    pub security: Security<'a>,
    /// Who we are. Used under [`Security::Verified`] and refused without it.
    pub login: Option<&'a Credentials>,
    /// Prints the dialogue.
    pub trace: Option<&'a Trace>,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy)]
pub enum Security<'a> {
    /// With STARTTLS where it is offered and granted. The certificate is not
    /// checked: without encryption the letter would be sent all the same, so to
    /// insist on a name would make things worse (RFC 7435).
    Opportunistic,
    /// Not at all.
    Clear,
    /// By a server that proves its name, or nothing is sent.
    Verified {
        /// The name that has to be in the certificate.
        host: &'a str,
        /// Which authorities are trusted.
        connector: &'a TlsConnector,
        /// TLS begins at once (RFC 8314), not with STARTTLS.
        from_first_octet: bool,
    },
}

/// Why there is no connection that could be used.
#[derive(Debug)]
pub enum ConnectError {
    /// What this address, and no other, came to. Another address may do better.
    Answer(Answer),
    /// The handshake of [`Security::Opportunistic`] failed. The same address may work
    /// with [`Security::Clear`].
    Handshake(Answer),
}

impl Client {
    /// Connects to `address`, where the server `hop` is said to be, and goes on
    /// until MAIL can be sent: greeting, EHLO, perhaps TLS, perhaps a login. In
    /// answers an address given as `hop` stands in brackets, as no name does.
    pub fn connect(hop: &str, address: SocketAddr, dial: &Dial) -> Result<Client, ConnectError> {
        if dial.login.is_some() && !matches!(dial.security, Security::Verified { .. }) {
            return Err(ours((7, 4), "a password is sent to a verified server only"));
        }
        let (our_address, stream) = open(hop, address, dial)?;
        let is_name = dial.name.contains('.');
        let mut client = Client {
            replies: Replies::new(stream),
            hop: hop.parse().map_or_else(|_| hop.to_owned(), address_literal),
            name: if is_name { dial.name.to_owned() } else { address_literal(our_address) },
            timeout: dial.timeout,
            begun: Instant::now(),
            extensions: Extensions::default(),
            is_open: true,
            in_transaction: false,
            has_logged_in: false,
            trace: dial.trace.cloned(),
        };
        let may_encrypt = client.greet().and_then(|()| client.ask_for_tls(dial.security));
        let (mut client, may_encrypt) = client.or_quit(may_encrypt)?;
        let mut done = Ok(());
        if may_encrypt {
            client = client.start_tls(dial.security)?;
            // What was offered in the clear may have been somebody else's offer
            // (RFC 3207 section 4.2). EHLO puts the server's own in its place.
            done = client.ehlo().and_then(|reply| client.introduced(&reply));
        }
        if let Some(credentials) = dial.login {
            done = done.and_then(|()| client.log_in(credentials));
            client.has_logged_in = true;
        }
        client.or_quit(done).map(|(client, ())| client)
    }

    /// This client, if it got that far; else it leaves as politely as it can.
    fn or_quit<T>(self, done: Result<T, Answer>) -> Result<(Client, T), ConnectError> {
        match done {
            Ok(found) => Ok((self, found)),
            Err(answer) => {
                self.quit();
                Err(ConnectError::Answer(answer))
            }
        }
    }

    /// Waits for the greeting and introduces us. Some servers greet twice, and the
    /// second time may come with the first or after EHLO was sent. Nothing else may be
    /// said twice.
    fn greet(&mut self) -> Result<(), Answer> {
        let greeting = self.reply(GREETING)?;
        self.wants(Kind::Done, GREETING, &greeting)?;
        let is_second_here = self.replies.has_input();
        if is_second_here {
            let second = self.reply(GREETING)?;
            if second.code() != GREETED {
                return Err(self.confused(GREETING, &second));
            }
        }
        let mut reply = self.ehlo()?;
        if reply.code() == GREETED && !is_second_here {
            reply = self.reply("EHLO")?;
        }
        self.introduced(&reply)
    }

    fn ehlo(&mut self) -> Result<Reply, Answer> {
        self.ask("EHLO", &format!("EHLO {}", self.name))
    }

    /// What follows from the reply to EHLO: HELO where EHLO is not known. A server
    /// that says 4yz knows EHLO and does not want us now (RFC 5321 section 3.2).
    fn introduced(&mut self, reply: &Reply) -> Result<(), Answer> {
        if reply.kind() == Kind::Never {
            self.extensions = Extensions::default();
            let reply = self.ask("HELO", &format!("HELO {}", self.name))?;
            return self.wants(Kind::Done, "HELO", &reply);
        }
        if reply.code() == GREETED {
            return Err(self.confused("EHLO", reply));
        }
        self.wants(Kind::Done, "EHLO", reply)?;
        self.extensions = Extensions::of(reply);
        Ok(())
    }

    /// Asks for TLS where it is wanted and not there yet. Says whether the handshake
    /// may begin.
    fn ask_for_tls(&mut self, security: Security) -> Result<bool, Answer> {
        let is_wanted = match security {
            Security::Clear | Security::Verified { from_first_octet: true, .. } => false,
            Security::Opportunistic => self.extensions.has("STARTTLS"),
            // Also where it is not offered: somebody in between may have cut the
            // offer out, and if not, the server's own words explain it best.
            Security::Verified { .. } => true,
        };
        if !is_wanted {
            return Ok(false);
        }
        let reply = self.ask("STARTTLS", "STARTTLS")?;
        match (reply.kind(), security) {
            (Kind::Done, _) => Ok(true),
            (Kind::Later | Kind::Never, Security::Opportunistic) if self.is_open => Ok(false),
            _ => Err(self.not_now("STARTTLS", &reply)),
        }
    }

    /// The handshake after a granted STARTTLS.
    fn start_tls(self, security: Security) -> Result<Client, ConnectError> {
        let limit = self.timeout.min(HANDSHAKE_TIME);
        let done = match security {
            Security::Verified { host, connector, .. } => {
                self.replies.start_tls(connector, host, limit)
            }
            _ => unchecked(&self.hop)
                .map_err(|error| TlsError::Handshake(error.to_string()))
                .and_then(|connector| self.replies.start_tls(&connector, &self.hop, limit)),
        };
        let because = |why: &dyn Display| Answer::later(NO_TLS, format!("{}: {why}", self.hop));
        match (done, security) {
            (Ok(replies), _) => Ok(Client { replies, ..self }),
            (Err(TlsError::Injected), _) => {
                let why = "octets came between STARTTLS and the handshake";
                Err(ConnectError::Answer(because(&why)))
            }
            (Err(error), Security::Verified { .. }) => Err(ConnectError::Answer(because(&error))),
            (Err(error), _) => Err(ConnectError::Handshake(because(&error))),
        }
    }

    /// Proves who we are: by the best mechanism that both sides know, and where that
    /// one is refused by the next. Every failure is temporary, and no text of the
    /// server's is kept: it may repeat what we sent, which can be the password.
    fn log_in(&mut self, credentials: &Credentials) -> Result<(), Answer> {
        let mut why = "the server offers no login that we know".to_owned();
        let takes_token = matches!(credentials.evidence, Evidence::Token(_));
        let mechanisms = self.extensions.mechanisms().into_iter();
        for mechanism in mechanisms.filter(|one| one.takes_token() == takes_token) {
            let reply = self.exchange(mechanism, credentials)?;
            if reply.kind() == Kind::Done {
                return Ok(());
            }
            why = format!("the login was refused with {}", reply.code());
            if !WRONG_MECHANISM.contains(&reply.code()) {
                break;
            }
        }
        Err(self.no_login(&why))
    }

    /// One exchange of AUTH (RFC 4954 section 4). Gives the reply that ended it.
    fn exchange(&mut self, by: Mechanism, credentials: &Credentials) -> Result<Reply, Answer> {
        let mut random = [0; 18];
        if SystemRandom::new().fill(&mut random).is_err() {
            return Err(Answer::later((3, 0), "the system has no random octets"));
        }
        let (Evidence::Password(secret) | Evidence::Token(secret)) = &credentials.evidence;
        let (mut login, mut initial) =
            ClientExchange::begin(by, &credentials.user, secret, &mechanism::nonce(random));
        let command = format!("AUTH {}", by.name());
        let len = |initial: &String| command.len() + " \r\n".len() + initial.len();
        let mut line = match initial.take_if(|initial| len(initial) <= AUTH_LIMIT) {
            Some(initial) => format!("{command} {initial}"),
            None => command,
        };
        loop {
            let reply = self.ask("AUTH", &line)?;
            match reply.kind() {
                Kind::GoOn => {}
                Kind::Done if !login.is_done() => {
                    self.is_open = false;
                    return Err(self.no_login("the server does not know the password itself"));
                }
                Kind::Done | Kind::Later | Kind::Never => return Ok(reply),
            }
            if let Some(held_back) = initial.take() {
                line = held_back;
                continue;
            }
            let challenge = reply.lines().first().map(String::as_str).unwrap_or_default();
            let Ok(response) = login.answer(challenge) else {
                // The server waits for a response that we do not have.
                self.is_open = false;
                return Err(self.no_login("the server's challenge is wrong"));
            };
            line = response;
        }
    }

    fn no_login(&self, why: &str) -> Answer {
        Answer::later((7, 8), format!("{}: {why}", self.hop))
    }
}

/// The TCP connection, with TLS on it if that comes first.
fn open(hop: &str, address: SocketAddr, dial: &Dial) -> Result<(IpAddr, Stream), ConnectError> {
    let no_answer =
        |error| ours(NO_CONNECTION, format!("{hop}: no connection to {address}: {error}"));
    let limit = dial.timeout.min(CONNECT_TIME);
    let tcp = TcpStream::connect_timeout(&address, limit).map_err(no_answer)?;
    // What we write is whole: nothing is won by waiting for more.
    tcp.set_nodelay(true).map_err(no_answer)?;
    let our_address = tcp.local_addr().map_err(no_answer)?.ip();
    let limit = dial.timeout.min(HANDSHAKE_TIME);
    let stream = Stream::Plain(Socket::new(Arc::new(tcp), limit));
    let stream = match dial.security {
        Security::Verified { host, connector, from_first_octet: true } => stream
            .connect_tls(connector, host)
            .map_err(|error| ours(NO_TLS, format!("{hop}: {error}")))?,
        _ => stream,
    };
    Ok((our_address, stream))
}

/// A connector that takes any certificate, under TLS 1.2 or later, as connectors of this
/// crate do unless they are told otherwise. Only a name may be said in the handshake,
/// and not an address (RFC 6066 section 3).
fn unchecked(hop: &str) -> native_tls::Result<TlsConnector> {
    TlsConnector::builder()
        .use_sni(!hop.starts_with('['))
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .disable_built_in_roots(true)
        .build()
}

/// Nothing came of this address, and we found out why.
fn ours(status: (u16, u16), why: impl Into<String>) -> ConnectError {
    ConnectError::Answer(Answer::later(status, why))
}

impl ConnectError {
    /// Whether nobody listens at the address, or nobody that we can reach.
    pub fn is_no_connection(&self) -> bool {
        let ConnectError::Answer(Answer { status, by: None, .. }) = self else { return false };
        (status.subject, status.detail) == NO_CONNECTION
    }
}

impl Display for ConnectError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (ConnectError::Answer(answer) | ConnectError::Handshake(answer)) = self;
        f.write_str(&answer.text)
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed() {
        let evidence = Evidence::Password("secret".to_owned());
        let credentials = Credentials { user: "ann".to_owned(), evidence };
        let dial = Dial {
            name: "c.example",
            timeout: Duration::ZERO,
            security: Security::Clear,
            login: Some(&credentials),
            trace: None,
        };
        let text = format!("{dial:?}");
        assert!(text.contains("ann") && !text.contains("secret"), "{text}");
    }
}
