//! The loop of one client.
//!
//! In: a client that has a place. Out: its whole session, and one line in the
//! log. This file decides nothing about SMTP: it does what each [`Step`] says,
//! and chooses no reply but 421.
//!
//! [`Step`]: crate::smtp::session::Step
//!
//! Book: docs/08-threads.md.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use crate::server::Shared;
use crate::server::clients::{Client, Place};
use crate::server::receive::receive;
use crate::smtp::auth::mechanism;
use crate::smtp::reply;
use crate::smtp::session::{Farewell, Next, Note, Outside, Role, Session, State, Step};
use crate::wire::lines::{LineError, Lost, Wire};
use crate::wire::socket::Socket;
use crate::wire::stream::{Stream, TlsError};
use crate::wire::trace::Trace;

/// How long a whole TLS handshake may take, if --timeout is not shorter.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The session itself closed it.
    Closed(Farewell),
    /// It goes on encrypted.
    StartTls,
    /// The server is shutting down.
    Stopping,
    /// The connection broke, or was too slow.
    Lost(Lost),
    /// There is no encrypted connection, and nothing is said in clear instead.
    NoTls(TlsError),
}

/// Serves one client from the greeting to the close.
pub fn serve(place: &Place, role: Role, shared: &Shared) {
    let client = place.client();
    let tcp = Arc::clone(&client.tcp);
    // Without this the system holds a small reply back, hoping for more to send.
    let _ = tcp.set_nodelay(true);
    let our_address = match tcp.local_addr() {
        Ok(address) => address.ip().to_canonical(),
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let trace = shared.trace.then(|| Trace::new(client.number));
    let stream = Stream::Plain(Socket::new(tcp, shared.timeout));
    let wire = Wire::new(stream, shared.timeout, trace.clone());
    let session = Session::new(shared.site(), role, our_address, nonce);
    let talk = Talk { client, shared, trace, start: Instant::now() };
    let end = talk.run(wire, session, role).unwrap_or_else(End::NoTls);
    log::info!("{client} is gone: {end}");
}

/// What does not change while one client is served.
struct Talk<'a> {
    client: &'a Client,
    shared: &'a Shared,
    trace: Option<Trace>,
    /// When the session began.
    start: Instant,
}

impl Talk<'_> {
    /// The whole session: in clear, under TLS, or first one and then the other.
    /// Without a handshake nothing more is said: never go on in clear.
    fn run(&self, mut wire: Wire, mut session: Session, role: Role) -> Result<End, TlsError> {
        if role == Role::Submissions {
            wire = wire.start_tls(self.shared.acceptor(), self.handshake_time())?;
        }
        let mut end = self.greet_and_converse(&mut wire, &mut session);
        while let Ok(End::StartTls) = end {
            wire = wire.start_tls(self.shared.acceptor(), self.handshake_time())?;
            session = session.after_handshake();
            end = self.converse(&mut wire, &mut session);
        }
        let end = match end {
            // A shutdown ends our input; that is how a waiting thread hears of it.
            Err(Lost::Gone) if self.shared.is_stopping() => End::Stopping,
            Err(lost) => End::Lost(lost),
            Ok(end) => end,
        };
        // These replies are the last: if they cannot be sent, nothing else can.
        let _ = match end {
            End::Stopping => wire.reply(&reply::stopping(&session.site().hostname)),
            End::Lost(Lost::Late) => wire.reply(&reply::too_slow(&session.site().hostname)),
            End::Closed(_) | End::StartTls | End::Lost(_) | End::NoTls(_) => Ok(()),
        };
        wire.close();
        Ok(end)
    }

    fn handshake_time(&self) -> Duration {
        HANDSHAKE_TIME.min(self.shared.timeout)
    }

    fn greet_and_converse(&self, wire: &mut Wire, session: &mut Session) -> Result<End, Lost> {
        wire.reply(&session.greet().reply)?;
        self.converse(wire, session)
    }

    /// Do what comes next, then reply: that is all a server does.
    fn converse(&self, wire: &mut Wire, session: &mut Session) -> Result<End, Lost> {
        let mut next = Next::Command;
        loop {
            let step = match next {
                Next::Command if self.shared.is_stopping() => return Ok(End::Stopping),
                Next::Command => self.answer(wire, session)?,
                Next::Message(envelope) => {
                    let outcome = receive(wire, session, envelope, self.client, self.shared)?;
                    let age = self.start.elapsed();
                    session.set_outside(Outside { age, ..Outside::default() });
                    session.message_ended(&outcome)
                }
                Next::StartTls => return Ok(End::StartTls),
                Next::Close(farewell) => return Ok(End::Closed(farewell)),
            };
            if let Some(note) = &step.note {
                self.log(note);
            }
            if !step.pause.is_zero() {
                wire.flush()?;
                thread::sleep(step.pause);
            }
            wire.reply(&step.reply)?;
            next = step.next;
        }
    }

    /// Reads one line and asks the session for the answer.
    fn answer(&self, wire: &mut Wire, session: &mut Session) -> Result<Step, Lost> {
        let line = match wire.read_line(session.line_limit()) {
            Ok(line) => line,
            Err(LineError::Bad(why)) => {
                if let Some(trace) = &self.trace {
                    trace.client(&format!("({why})"));
                }
                session.set_outside(self.outside(wire, session));
                return Ok(session.bad_line(why));
            }
            Err(LineError::Lost(lost)) => return Err(lost),
        };
        if let Some(trace) = &self.trace {
            trace.client(&session.shown(line));
        }
        // A copy, because what else has arrived is asked of the wire as well.
        let line = line.to_vec();
        session.set_outside(self.outside(wire, session));
        Ok(session.line(&line))
    }

    /// What the session cannot see by itself.
    fn outside(&self, wire: &Wire, session: &Session) -> Outside {
        let (address, now) = (self.client.address.ip(), Instant::now());
        // Both questions cost something, and are of interest in few states.
        let is_ready = *session.state() == State::Ready;
        let may_log_in = is_ready || matches!(session.state(), State::Auth(_));
        Outside {
            room: if is_ready { self.shared.spool.room() } else { u64::MAX },
            is_blocked: may_log_in && self.shared.failures.is_blocked(address, now),
            has_more: wire.has_input(),
            age: now.saturating_duration_since(self.start),
        }
    }

    fn log(&self, note: &Note) {
        match note {
            Note::Refused(_) | Note::LoggedIn(_) => log::info!("{}: {note}", self.client),
            Note::LoginFailed => {
                log::warn!("{}: {note}", self.client);
                self.shared.failures.count(self.client.address.ip(), Instant::now());
            }
        }
    }
}

/// A text that nobody can guess, in a form that every AUTH mechanism can carry.
fn nonce() -> String {
    mechanism::nonce(random_octets())
}

/// Octets that nobody can guess.
pub fn random_octets<const COUNT: usize>() -> [u8; COUNT] {
    let mut octets = [0; COUNT];
    // It fails only where the system has no randomness at all. A challenge that
    // can be guessed would be worse than none, so that ends this session.
    let filled = SystemRandom::new().fill(&mut octets);
    filled.expect("the operating system gives random octets");
    octets
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            End::Closed(farewell) => farewell.fmt(f),
            End::StartTls => f.write_str("STARTTLS"),
            End::Stopping => f.write_str("the server is shutting down"),
            End::NoTls(error) => error.fmt(f),
            End::Lost(lost) => lost.fmt(f),
        }
    }
}
