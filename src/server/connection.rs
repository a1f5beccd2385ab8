//! The loop of one client.
//!
//! In: a client that has a place. Out: its whole session, and a line in the log about its
//! end, beside those about what happens in it. This file decides nothing about SMTP: it does
//! what each [`Step`] says, and chooses no reply but 421.
//!
//! [`Step`]: crate::smtp::session::Step
//!
//! Book: docs/08-threads.md.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

use crate::server::clients::{Client, Place};
use crate::server::receive::{Incoming, Received, receive, receive_chunk};
use crate::server::shared::Shared;
use crate::smtp::auth::mechanism;
use crate::smtp::reply;
use crate::smtp::session::{
    Envelope, Farewell, Next, Note, Outside, Part, Role, Session, State, Step,
};
use crate::wire::events::What;
use crate::wire::lines::{LineError, Lost, Wire};
use crate::wire::socket::{Linger, Socket};
use crate::wire::stream::{Stream, TlsError};
use crate::wire::trace::Trace;

/// How long a whole TLS handshake may take, if --timeout is not shorter.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);

/// A client that has sent nothing for that long, in a message that we refused, has no more
/// of it. Networks are silent for a few seconds while they send lost packets again.
const MESSAGE_SILENCE: Duration = Duration::from_secs(10);

/// Why a session ended although nobody had said that it should.
#[derive(Debug)]
enum Cut {
    /// The server is shutting down.
    Stopping,
    /// The connection broke, or was too slow.
    Lost(Lost),
    /// There is no encrypted connection, and nothing is said in clear instead. With what the
    /// log says if the client sent clear text.
    NoTls(TlsError, &'static str),
}

/// Serves one client from the greeting to the close.
pub fn serve(place: &Place, role: Role, shared: &Shared) {
    let client = place.client();
    let tcp = Arc::clone(&client.tcp);
    // Without this the system holds a small reply back, hoping for more to send.
    let _ = tcp.set_nodelay(true);
    let trace = Trace::of_session(client.number, shared.trace, shared.teller.get());
    let stream = Stream::Plain(Socket::new(tcp, shared.timeout));
    let wire = Wire::new(stream, shared.timeout, trace.clone());
    let session = Session::new(shared.site(), role, client.our_address(), nonce);
    let mut talk = Talk { client, shared, trace, start: Instant::now(), encryption: String::new() };
    talk.tell(|| What::Connected { client: client.address(), role });
    let end = talk.run(wire, session);
    let why = end.map_or_else(|cut| cut.to_string(), |farewell| farewell.to_string());
    log::info!("{client} is gone: {why}{}", talk.encryption);
    talk.tell(|| What::Closed(why));
}

/// What surrounds one session.
struct Talk<'a> {
    client: &'a Client,
    shared: &'a Shared,
    trace: Option<Trace>,
    /// When it began.
    start: Instant,
    /// How it was encrypted, for the log.
    encryption: String,
}

impl<'a> Talk<'a> {
    /// The whole session, from the first octet.
    fn run(&mut self, mut wire: Wire, session: Session) -> Result<Farewell, Cut> {
        if session.role() == Role::Submissions {
            wire = self.start_tls(wire, "wrong port or setting")?;
        }
        self.converse(wire, session)
    }

    /// Reply, then do what comes next: that is all a server does.
    fn converse(&mut self, mut wire: Wire, mut session: Session) -> Result<Farewell, Cut> {
        let mut step = session.greet();
        // A message in chunks lives from one command to the next.
        let mut incoming = None;
        loop {
            // Whatever ends the transaction ends its message as well: RSET, EHLO, a refusal.
            if !matches!(step.next, Next::Chunk(_)) && !session.is_between_chunks() {
                incoming = None;
            }
            self.take_note(step.note.as_ref(), session.user());
            let answer = match (say(&mut wire, &step), step.next) {
                (Err(lost), _) => Err(self.cut(lost)),
                (Ok(()), Next::Command) => self.answer(&mut wire, &mut session),
                (Ok(()), Next::Message(envelope)) => {
                    self.receive(&mut wire, &mut session, envelope)
                }
                (Ok(()), Next::Chunk(part)) => {
                    self.receive_chunk(&mut wire, &mut session, &mut incoming, part)
                }
                (Ok(()), Next::StartTls) => {
                    // Without a handshake nothing more is said: never go on in clear.
                    wire = self.start_tls(wire, "after STARTTLS")?;
                    session = session.after_handshake();
                    self.answer(&mut wire, &mut session)
                }
                (Ok(()), Next::Close(farewell)) => {
                    self.tell(|| What::State(session.state().name()));
                    self.close(wire, self.linger(farewell, &session));
                    return Ok(farewell);
                }
            };
            step = match answer {
                Ok(step) => step,
                Err(cut) => {
                    drop(incoming);
                    return Err(self.break_off(wire, &session, cut));
                }
            };
        }
    }

    /// Encrypts the connection. Without a handshake it is closed, and if there was clear
    /// text instead, `clear` tells the log more.
    fn start_tls(&mut self, wire: Wire, clear: &'static str) -> Result<Wire, Cut> {
        let limit = HANDSHAKE_TIME.min(self.shared.timeout);
        let wire = wire.start_tls(self.shared.acceptor(), limit);
        let wire = wire.map_err(|error| Cut::NoTls(error, clear))?;
        self.encryption = wire.encryption().map_or(String::new(), |how| format!(", {how}"));
        self.tell(|| What::Tls(wire.encryption().unwrap_or_default()));
        Ok(wire)
    }

    /// Nobody pays for an event that nobody wants.
    fn tell(&self, what: impl FnOnce() -> What) {
        if let Some(trace) = &self.trace {
            trace.tell(what());
        }
    }

    /// Reads one line and asks the session for the answer. A shutdown waits for a message
    /// of which a part is here.
    fn answer(&self, wire: &mut Wire, session: &mut Session) -> Result<Step, Cut> {
        if self.shared.is_stopping() && !session.is_between_chunks() {
            return Err(Cut::Stopping);
        }
        self.tell(|| What::State(session.state().name()));
        match wire.read_line(session.line_limit()) {
            Ok(()) => {
                session.set_outside(self.outside(wire, session));
                self.tell(|| What::Client(session.shown(wire.line())));
                Ok(session.line(wire.line()))
            }
            Err(LineError::Bad(why)) => {
                session.set_outside(self.outside(wire, session));
                self.tell(|| What::Client(format!("({why})")));
                Ok(session.bad_line(why))
            }
            Err(LineError::Lost(lost)) => Err(self.cut(lost)),
        }
    }

    /// Receives a message and tells the session what became of it.
    fn receive(
        &self,
        wire: &mut Wire,
        session: &mut Session,
        envelope: Envelope,
    ) -> Result<Step, Cut> {
        let outcome = receive(wire, session, envelope, self.client, self.shared);
        let outcome = outcome.map_err(|lost| self.cut(lost))?;
        session.set_outside(self.outside(wire, session));
        Ok(session.message_ended(&outcome))
    }

    /// Receives a chunk and tells the session what became of it, or of the message.
    fn receive_chunk(
        &self,
        wire: &mut Wire,
        session: &mut Session,
        incoming: &mut Option<Incoming<'a>>,
        part: Part,
    ) -> Result<Step, Cut> {
        let received = receive_chunk(wire, session, incoming, part, self.client, self.shared);
        let received = received.map_err(|lost| self.cut(lost))?;
        session.set_outside(self.outside(wire, session));
        Ok(match received {
            Received::Part(part) => session.chunk_ended(part),
            Received::Message(outcome) => session.message_ended(&outcome),
        })
    }

    /// A shutdown ends our input; that is how a thread that waits for it hears of it.
    fn cut(&self, lost: Lost) -> Cut {
        match lost {
            Lost::Gone if self.client.is_seen_out() => Cut::Stopping,
            lost => Cut::Lost(lost),
        }
    }

    /// What the session cannot see by itself.
    fn outside(&self, wire: &Wire, session: &Session) -> Outside {
        let (address, now) = (self.client.address().ip(), Instant::now());
        // These questions cost something, and are of interest in few states.
        let is_ready = *session.state() == State::Ready;
        let sender = match session.state() {
            State::Mail(_) | State::Rcpt(_) => session.user(),
            _ => None,
        };
        let allowance = &self.shared.allowance;
        let may_log_in = is_ready || matches!(session.state(), State::Auth(_));
        Outside {
            room: if is_ready { self.shared.spool.room() } else { u64::MAX },
            is_blocked: may_log_in && self.shared.failures.is_blocked(address, now),
            elsewhere_left: sender.map_or(usize::MAX, |user| allowance.left(user, now)),
            has_more: wire.has_input(),
            age: now.saturating_duration_since(self.start),
            now: Timestamp::now().as_second(),
        }
    }

    /// Logs what the log should know, and counts what is counted over several sessions:
    /// whether a client may log in, and send on, rests on this.
    fn take_note(&self, note: Option<&Note>, user: Option<&str>) {
        let Some(note) = note else { return };
        let (now, user) = (Instant::now(), user.unwrap_or_default());
        match note {
            Note::Elsewhere(count) => self.shared.allowance.record(user, *count, now),
            Note::Refused(_) | Note::LoggedIn(_) => log::info!("{}: {note}", self.client),
            Note::OverAllowance(_) => {
                log::info!("{}: {note}", self.client);
                if self.shared.allowance.is_news(user, now) {
                    log::warn!("user {user} wants more recipients elsewhere than --max-per-hour");
                }
            }
            Note::LoginFailed(_) => {
                log::warn!("{}: {note}", self.client);
                self.shared.failures.record(self.client.address().ip(), now);
            }
        }
    }

    /// How long a client is heard after our last reply. One that is in the middle of a
    /// message reads that only when it has sent all of it.
    fn linger(&self, farewell: Farewell, session: &Session) -> Linger {
        match farewell {
            Farewell::Smuggling | Farewell::HugeChunk => {
                let time = self.shared.timeout;
                Linger { time, silence: MESSAGE_SILENCE.min(time), octets: session.site().max_size }
            }
            _ => Linger::SHORT,
        }
    }

    /// Ends a session that was cut short: says why, if anybody may still hear it.
    fn break_off(&self, mut wire: Wire, session: &Session, cut: Cut) -> Cut {
        let hostname = &session.site().hostname;
        // These replies are the last: if they cannot be sent, nothing else can.
        let _ = match &cut {
            Cut::Stopping => wire.reply(&reply::stopping(hostname)),
            Cut::Lost(Lost::Late) => wire.reply(&reply::too_slow(hostname)),
            // Without a handshake there is no wire left to say it on, and nobody gets here.
            Cut::Lost(_) | Cut::NoTls(..) => Ok(()),
        };
        self.close(wire, Linger::SHORT);
        cut
    }

    /// Closes. A shutdown that begins meanwhile lets the client read our last reply.
    fn close(&self, wire: Wire, linger: Linger) {
        let _busy = self.client.busy();
        wire.close(linger);
    }
}

/// What a step says, and what goes before that.
fn say(wire: &mut Wire, step: &Step) -> Result<(), Lost> {
    wire.skip_chunk(step.skip)?;
    wire.pause(step.pause)?;
    step.reply.as_ref().map_or(Ok(()), |reply| wire.reply(reply))?;
    if step.is_urgent { wire.flush() } else { Ok(()) }
}

/// A text that nobody can guess, in a form that every AUTH mechanism can carry.
fn nonce() -> String {
    mechanism::nonce(random_octets())
}

/// Octets that nobody can guess.
pub fn random_octets<const COUNT: usize>() -> [u8; COUNT] {
    let mut octets = [0; COUNT];
    // It fails only where the system has no randomness at all. A challenge that
    // can be guessed would be worse than none, so that ends this session, or the start.
    let filled = SystemRandom::new().fill(&mut octets);
    filled.expect("the operating system gives random octets");
    octets
}

impl Display for Cut {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Cut::Stopping => f.write_str("the server is shutting down"),
            Cut::NoTls(TlsError::NotTls, clear) => write!(f, "{}, {clear}", TlsError::NotTls),
            Cut::NoTls(error, _) => error.fmt(f),
            Cut::Lost(lost) => lost.fmt(f),
        }
    }
}
