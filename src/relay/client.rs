//! An SMTP client: one connection to the next hop, and the transactions on it.
//!
//! In: an address, an envelope, a message in file form. Out: one [`Answer`] for
//! each recipient. It is the other half of `smtp/session.rs`, and simpler: the
//! client chooses the order of commands, so its state is the line of code it is
//! at.
//!
//! Two rules are kept here above all. The next hop has the letter when it gave
//! 2yz to the final dot, and never before. And what is not certain is tried
//! again: a lost connection, a wrong password, a server that makes no sense are
//! all temporary, because an error of ours must not return a letter for good.
//!
//! Left to others: which address to connect to (`attempt.rs`), and when again
//! (`attempt.rs`, `worker.rs`); octets, lines and deadlines (`wire/`).
//!
//! Book: docs/13-the-client-side.md.

use std::fmt::{self, Debug, Display, Formatter};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use native_tls::TlsConnector;
use ring::rand::{SecureRandom, SystemRandom};

use crate::relay::{Answer, Verdict};
use crate::smtp::address::{Mailbox, ReversePath, address_literal};
use crate::smtp::login::Login;
use crate::smtp::reply::{Enhanced, Kind, Reply};
use crate::smtp::sasl::{self, Mechanism};
use crate::smtp::text::printable;
use crate::wire::body::Stuffer;
use crate::wire::replies::{NoReply, Replies};
use crate::wire::socket::Socket;
use crate::wire::stream::{Stream, TlsError};
use crate::wire::trace::Trace;

/// How long a connection may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// How long a whole TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);
/// How long the reply to QUIT is waited for. Nothing depends on it.
const QUIT_TIME: Duration = Duration::from_secs(2);
/// Most commands in one write. Their replies fit into the buffers of both
/// systems, so the server never waits for us to read while we wait for it to
/// read (RFC 2920 section 3.1).
const BATCH: usize = 100;
/// How much of a message is read in one go.
const READ_BLOCK: usize = 16 * 1024;
/// How much of a message is sent in one go, each within its deadline.
const SEND_BLOCK: usize = 64 * 1024;

/// X.4.1, no answer from host (RFC 3463 section 3.5).
const NO_CONNECTION: (u16, u16) = (4, 1);

/// The step in which the message itself is sent.
const BODY: &str = "the message";

/// 421: the server closes the connection, whatever the command was
/// (RFC 5321 section 3.8).
const CLOSING: u16 = 421;
/// 452 to RCPT: this transaction is full (RFC 5321 section 4.5.3.1.10).
const TOO_MANY: u16 = 452;
/// What old servers say instead, and what has to be read as 452 (same section).
const TOO_MANY_OLD: u16 = 552;

/// How to begin a connection.
#[derive(Debug, Clone, Copy)]
pub struct Dial<'a> {
    /// Our own name for EHLO. One without a dot means nothing to others; then our
    /// address on this connection is said (RFC 5321 section 4.1.4).
    pub name: &'a str,
    /// How long most replies may take: RFC 5321 section 4.5.3.2 has five minutes.
    /// The deadlines of other steps are in proportion.
    pub patience: Duration,
    /// How the connection is encrypted.
    pub security: Security<'a>,
    /// Who we are. Used under [`Security::Verified`] and refused without it.
    pub login: Option<&'a Credentials>,
    /// Prints the dialogue.
    pub trace: Option<&'a Trace>,
}

/// How a connection is encrypted.
#[derive(Clone, Copy)]
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

/// A name and a password.
#[derive(Clone)]
pub struct Credentials {
    /// The name as the server knows it.
    pub user: String,
    /// In clear, as every mechanism needs it.
    pub password: String,
}

/// Why there is no connection that could be used.
#[derive(Debug)]
pub enum ConnectError {
    /// What this address, and no other, came to. Another address may do better.
    Answer(Answer),
    /// The handshake of [`Security::Opportunistic`] failed, and why. The same
    /// address may work with [`Security::Clear`].
    Handshake(String),
}

/// What MAIL has to say about a letter.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// Where errors are reported to.
    pub from: &'a ReversePath,
    /// In octets as sent: line ends are two, added dots do not count
    /// (RFC 1870 section 5).
    pub size: u64,
    /// Whether any octet is above 127 (RFC 6152).
    pub is_8bit: bool,
    /// Whether it came with SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
}

/// A connection on which letters can be sent.
#[derive(Debug)]
pub struct Client {
    replies: Replies,
    /// The name of the next hop, for answers.
    hop: String,
    /// Our own, for EHLO.
    name: String,
    patience: Duration,
    extensions: Extensions,
    /// Cleared once the next reply could not be trusted, or will not come.
    is_open: bool,
    /// Whether a MAIL was sent that no final dot has ended.
    in_transaction: bool,
    /// Whether a reply to RCPT came, or more.
    was_heard: bool,
    trace: Option<Trace>,
}

/// What became of one recipient so far.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Not asked yet.
    Open,
    /// RCPT was granted: it gets what the message gets.
    Accepted,
    /// Wants another transaction: this one is full.
    Another,
    /// Nothing more can happen to it.
    Ended(Answer),
}

/// What the server offers: the lines of its reply to EHLO (RFC 5321 section 4.1.1.1).
#[derive(Debug, Default)]
struct Extensions(Vec<String>);

impl Client {
    /// Connects to `address`, where the server `hop` is said to be, and goes on
    /// until MAIL can be sent: greeting, EHLO, perhaps TLS, perhaps a login.
    pub fn connect(hop: &str, address: SocketAddr, dial: &Dial) -> Result<Client, ConnectError> {
        if dial.login.is_some() && !matches!(dial.security, Security::Verified { .. }) {
            return Err(ours((7, 4), "a password is sent to a verified server only"));
        }
        let (our_address, stream) = open(hop, address, dial)?;
        let name = match dial.name.contains('.') {
            true => dial.name.to_owned(),
            false => address_literal(our_address),
        };
        let mut client = Client::new(hop, name, stream, dial.patience);
        client.trace = dial.trace.cloned();
        let done = client.greet();
        let mut client = client.or_quit(done)?.secured(dial)?;
        let done = match dial.login {
            Some(credentials) => client.log_in(credentials),
            None => Ok(()),
        };
        client.or_quit(done)
    }

    /// Sends one letter, and gives one result for each recipient, in order.
    /// `None` is for those who did not fit: call again for them, on the same
    /// connection and with the message from its start. At least one of the
    /// others was decided then, so this comes to an end.
    ///
    /// `message` gives file form: lines end with LF. If it fails the letter is
    /// not sent to anybody.
    pub fn deliver(
        &mut self,
        letter: &Letter,
        recipients: &[Mailbox],
        message: &mut dyn Read,
    ) -> Vec<Option<Answer>> {
        let mut fates: Vec<Fate> = recipients.iter().map(|to| self.first_look(to)).collect();
        let end = self.transaction(letter, recipients, &mut fates, message);
        let end = end.unwrap_or_else(|why| why);
        let result = |fate| match fate {
            Fate::Ended(answer) => Some(answer),
            Fate::Another if self.is_open => None,
            Fate::Another | Fate::Accepted | Fate::Open => Some(end.clone()),
        };
        fates.into_iter().map(result).collect()
    }

    /// Whether another letter can be sent. Not after 421, a lost connection, or
    /// anything else that leaves open what the next reply would mean.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether the server has said something about a recipient. If it hung up before
    /// that, another address may do better.
    pub fn was_heard(&self) -> bool {
        self.was_heard
    }

    /// Says goodbye and closes. What the server thinks of it does not matter.
    pub fn quit(mut self) {
        if self.is_open {
            let _ = self.ask("QUIT", "QUIT", self.patience.min(QUIT_TIME));
            self.replies.close();
        }
    }

    fn new(hop: &str, name: String, stream: Stream, patience: Duration) -> Client {
        Client {
            replies: Replies::new(stream),
            hop: hop.to_owned(),
            name,
            patience,
            extensions: Extensions::default(),
            is_open: true,
            in_transaction: false,
            was_heard: false,
            trace: None,
        }
    }

    /// Waits for the greeting and introduces us.
    fn greet(&mut self) -> Result<(), Answer> {
        let greeting = self.reply("the greeting", self.patience)?;
        self.wants(Kind::Done, "the greeting", &greeting)?;
        self.hello()
    }

    /// EHLO, or HELO where EHLO is not known. A server that says 4yz knows EHLO
    /// and does not want us now (RFC 5321 section 3.2).
    fn hello(&mut self) -> Result<(), Answer> {
        let reply = self.ask("EHLO", &format!("EHLO {}", self.name), self.patience)?;
        if reply.kind() == Kind::Never {
            self.extensions = Extensions::default();
            let reply = self.ask("HELO", &format!("HELO {}", self.name), self.patience)?;
            return self.wants(Kind::Done, "HELO", &reply);
        }
        self.wants(Kind::Done, "EHLO", &reply)?;
        self.extensions = Extensions::of(&reply);
        Ok(())
    }

    /// The same server, as well encrypted as is wanted.
    fn secured(self, dial: &Dial) -> Result<Client, ConnectError> {
        match dial.security {
            Security::Clear | Security::Verified { from_first_octet: true, .. } => Ok(self),
            Security::Opportunistic if !self.extensions.has("STARTTLS") => Ok(self),
            Security::Opportunistic => self.perhaps_encrypted(),
            // Also where it is not offered: somebody in between may have cut the
            // offer out, and if not, the server's own words explain it best.
            Security::Verified { host, connector, .. } => self.encrypted(host, connector),
        }
    }

    /// Under TLS, or in clear as before if the server refuses.
    fn perhaps_encrypted(mut self) -> Result<Client, ConnectError> {
        let reply = self.ask_for_tls().map_err(ConnectError::Answer)?;
        match reply.kind() {
            Kind::Done => {
                let connector = unchecked(&self.hop)
                    .map_err(|error| ConnectError::Handshake(error.to_string()))?;
                let hop = self.hop.clone();
                self.start_tls(&connector, &hop, ConnectError::Handshake)
            }
            Kind::Later | Kind::Never if self.is_open => Ok(self),
            _ => Err(ConnectError::Answer(self.not_now("STARTTLS", &reply))),
        }
    }

    /// Under TLS with `host`, or not at all.
    fn encrypted(mut self, host: &str, connector: &TlsConnector) -> Result<Client, ConnectError> {
        let reply = self.ask_for_tls().map_err(ConnectError::Answer)?;
        match reply.kind() {
            Kind::Done => self.start_tls(connector, host, |why| ours((7, 5), why)),
            _ => {
                let refused = self.not_now("STARTTLS", &reply);
                self.or_quit(Err(refused))
            }
        }
    }

    fn ask_for_tls(&mut self) -> Result<Reply, Answer> {
        self.ask("STARTTLS", "STARTTLS", self.patience)
    }

    /// The handshake behind a granted STARTTLS, and EHLO again: what was offered
    /// in the clear may have been somebody else's offer (RFC 3207 section 4.2).
    fn start_tls(
        self,
        connector: &TlsConnector,
        host: &str,
        failed: impl Fn(String) -> ConnectError,
    ) -> Result<Client, ConnectError> {
        let limit = self.patience.min(HANDSHAKE_TIME);
        let replies = match self.replies.start_tls(connector, host, limit) {
            Ok(replies) => replies,
            Err(TlsError::Injected) => {
                let why = format!("{}: octets came between STARTTLS and the handshake", self.hop);
                return Err(ours((7, 5), why));
            }
            Err(error) => return Err(failed(format!("{}: {error}", self.hop))),
        };
        let mut client = Client { replies, extensions: Extensions::default(), ..self };
        let done = client.hello();
        client.or_quit(done)
    }

    /// Proves who we are, by the best mechanism that both sides know. Every
    /// failure is temporary, and no text of the server's is kept: it may repeat
    /// what we sent, which can be the password.
    fn log_in(&mut self, credentials: &Credentials) -> Result<(), Answer> {
        let refused = |hop: &str, why: &str| Answer::later((7, 8), format!("{hop}: {why}"));
        let Some(mechanism) = self.extensions.best_mechanism() else {
            return Err(refused(&self.hop, "the server offers no login that we know"));
        };
        let mut random = [0; 18];
        if SystemRandom::new().fill(&mut random).is_err() {
            return Err(Answer::later((3, 0), "the system has no random octets"));
        }
        let Credentials { user, password } = credentials;
        let (mut login, initial) = Login::begin(mechanism, user, password, &sasl::nonce(random));
        let initial = initial.map(|text| format!(" {text}")).unwrap_or_default();
        let mut line = format!("AUTH {}{initial}", mechanism.name());
        loop {
            let reply = self.ask("AUTH", &line, self.patience)?;
            match reply.kind() {
                Kind::Done if login.is_done() => return Ok(()),
                Kind::GoOn => {}
                Kind::Done => {
                    self.is_open = false;
                    return Err(refused(&self.hop, "the server does not know the password itself"));
                }
                Kind::Later | Kind::Never => {
                    let why = format!("the login was refused with {}", reply.code());
                    return Err(refused(&self.hop, &why));
                }
            }
            let challenge = reply.lines().first().map(String::as_str).unwrap_or_default();
            match login.answer(challenge) {
                Ok(response) => line = response,
                Err(_) => {
                    // The server waits for a response that we do not have.
                    self.is_open = false;
                    return Err(refused(&self.hop, "the server's challenge is wrong"));
                }
            }
        }
    }

    /// What is known of a recipient before anything is sent.
    fn first_look(&self, to: &Mailbox) -> Fate {
        match is_ascii(to) || self.extensions.has("SMTPUTF8") {
            true => Fate::Open,
            false => Fate::Ended(self.no_smtputf8()),
        }
    }

    /// One transaction. Gives the answer for all who are not `Ended` by then:
    /// that of the message, or why there was none.
    fn transaction(
        &mut self,
        letter: &Letter,
        recipients: &[Mailbox],
        fates: &mut [Fate],
        message: &mut dyn Read,
    ) -> Result<Answer, Answer> {
        if !self.is_open {
            return Err(Answer::later((4, 2), format!("{}: the connection is closed", self.hop)));
        }
        let mut commands = vec![(String::new(), None)];
        let mut needs_smtputf8 = letter.smtputf8 || letter.from.needs_smtputf8();
        for (to, fate) in recipients.iter().zip(fates.iter_mut()) {
            if *fate == Fate::Open {
                needs_smtputf8 |= !is_ascii(to);
                commands.push((format!("RCPT TO:<{to}>\r\n"), Some(fate)));
            }
        }
        let parameters = self.parameters(letter, needs_smtputf8)?;
        if let Some((mail, _)) = commands.first_mut() {
            *mail = format!("MAIL FROM:{}{parameters}\r\n", letter.from);
        }
        match commands.len() {
            1 => Err(self.nobody()),
            _ => {
                self.reset()?;
                self.envelope(commands)?;
                match fates.contains(&Fate::Accepted) {
                    true => self.data(message),
                    false => Err(self.nobody()),
                }
            }
        }
    }

    /// For a transaction that has no recipient left. So nobody gets this.
    fn nobody(&self) -> Answer {
        Answer::later((5, 0), format!("{}: no recipient was accepted", self.hop))
    }

    /// What stands behind the reverse-path, in the extensions that are offered;
    /// or why this letter cannot be sent through them.
    fn parameters(&self, letter: &Letter, needs_smtputf8: bool) -> Result<String, Answer> {
        let mut parameters = String::new();
        if let Some(limit) = self.extensions.get("SIZE") {
            // 0 and no number are no limit (RFC 1870 section 3).
            let limit = limit.parse().ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
            if letter.size > limit {
                let why = format!(
                    "{} takes messages of at most {limit} octets, this one has {}",
                    self.hop, letter.size
                );
                return Err(Answer::never((3, 4), why));
            }
            parameters += &format!(" SIZE={}", letter.size);
        }
        if letter.is_8bit {
            if !self.extensions.has("8BITMIME") {
                let why = format!("{} has no 8BITMIME, and the message is not ASCII", self.hop);
                return Err(Answer::never((6, 3), why));
            }
            parameters += " BODY=8BITMIME";
        }
        if needs_smtputf8 {
            if !self.extensions.has("SMTPUTF8") {
                return Err(self.no_smtputf8());
            }
            parameters += " SMTPUTF8";
        }
        Ok(parameters)
    }

    fn no_smtputf8(&self) -> Answer {
        let why = format!("{} has no SMTPUTF8, and an address or header needs it", self.hop);
        Answer::never((6, 7), why)
    }

    /// Ends a transaction that came to nothing.
    fn reset(&mut self) -> Result<(), Answer> {
        if self.in_transaction {
            let reply = self.ask("RSET", "RSET", self.patience)?;
            if reply.kind() != Kind::Done {
                return Err(self.confused("RSET", &reply));
            }
        }
        Ok(())
    }

    /// Sends MAIL and the RCPTs, and notes what each recipient was told. With
    /// PIPELINING many go in one write; without it one (RFC 2920).
    fn envelope(&mut self, mut commands: Vec<(String, Option<&mut Fate>)>) -> Result<(), Answer> {
        self.in_transaction = true;
        let size = if self.extensions.has("PIPELINING") { BATCH } else { 1 };
        let mut somebody_was_accepted = false;
        for batch in commands.chunks_mut(size) {
            let text: String = batch.iter().map(|(command, _)| command.as_str()).collect();
            let step = if text.starts_with("MAIL") { "MAIL" } else { "RCPT" };
            self.send(step, text.as_bytes(), self.patience)?;
            let mut mail_refused = None;
            for (_, fate) in batch {
                let step = if fate.is_none() { "MAIL" } else { "RCPT" };
                let reply = match self.reply(step, self.patience) {
                    Ok(reply) => reply,
                    // What was said to MAIL counts more than that nothing follows.
                    Err(why) => return Err(mail_refused.unwrap_or(why)),
                };
                match fate {
                    None => mail_refused = self.wants(Kind::Done, step, &reply).err(),
                    // Without a sender no recipient counts. But each has its reply.
                    Some(_) if mail_refused.is_some() => {}
                    Some(fate) => {
                        self.was_heard |= reply.code() != CLOSING;
                        **fate = self.told(&reply, somebody_was_accepted);
                        somebody_was_accepted |= **fate == Fate::Accepted;
                    }
                }
                if !self.is_open {
                    return Err(mail_refused.unwrap_or_else(|| self.not_now(step, &reply)));
                }
            }
            if let Some(answer) = mail_refused {
                return Err(answer);
            }
        }
        Ok(())
    }

    /// What a reply to RCPT means for its recipient.
    fn told(&mut self, reply: &Reply, somebody_was_accepted: bool) -> Fate {
        let is_full = matches!(reply.code(), TOO_MANY | TOO_MANY_OLD);
        match reply.kind() {
            Kind::Done => Fate::Accepted,
            Kind::GoOn => Fate::Ended(self.confused("RCPT", reply)),
            Kind::Later | Kind::Never if is_full && somebody_was_accepted => Fate::Another,
            Kind::Later | Kind::Never if is_full => Fate::Ended(self.not_now("RCPT", reply)),
            Kind::Later | Kind::Never => Fate::Ended(Answer::of(reply, &self.hop)),
        }
    }

    /// DATA, the message, the final dot, and the reply that decides.
    fn data(&mut self, message: &mut dyn Read) -> Result<Answer, Answer> {
        // Two minutes where other replies have five (RFC 5321 section 4.5.3.2.4).
        let reply = self.ask("DATA", "DATA", self.patience.saturating_mul(2) / 5)?;
        self.wants(Kind::GoOn, "DATA", &reply)?;
        self.message(message)?;
        // Ten minutes: a server that is asked too early has the letter, and we
        // send it once more (section 4.5.3.2.6).
        let limit = self.patience.saturating_mul(2);
        let reply = self.reply("the final dot", limit).map_err(|why| {
            let text = format!("{}; the letter may have arrived", why.text);
            Answer { text, ..why }
        })?;
        self.in_transaction = false;
        self.wants(Kind::Done, "the final dot", &reply)?;
        Ok(Answer::of(&reply, &self.hop))
    }

    /// Sends the message with its final dot. If the message cannot be read to
    /// its end the dot is never sent: what is there would look like all of it.
    fn message(&mut self, message: &mut dyn Read) -> Result<(), Answer> {
        let mut block = vec![0; READ_BLOCK];
        let mut wire = Vec::new();
        let mut stuffer = Stuffer::default();
        loop {
            let count = match message.read(&mut block) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.is_open = false;
                    return Err(Answer::later((3, 0), format!("reading the message: {error}")));
                }
                Ok(count) => count,
            };
            if count == 0 {
                stuffer.finish(&mut wire);
                return self.send_block(&wire);
            }
            stuffer.push(block.get(..count).unwrap_or_default(), &mut wire);
            if wire.len() >= SEND_BLOCK {
                self.send_block(&wire)?;
                wire.clear();
            }
        }
    }

    /// Three minutes for each block (RFC 5321 section 4.5.3.2.5).
    fn send_block(&mut self, octets: &[u8]) -> Result<(), Answer> {
        self.send(BODY, octets, self.patience.saturating_mul(3) / 5)
    }

    /// One command and its reply. `step` names it in texts: the line of an AUTH
    /// exchange must not get there.
    fn ask(&mut self, step: &str, line: &str, limit: Duration) -> Result<Reply, Answer> {
        self.send(step, format!("{line}\r\n").as_bytes(), limit)?;
        self.reply(step, limit)
    }

    fn send(&mut self, step: &str, octets: &[u8], limit: Duration) -> Result<(), Answer> {
        if let Some(trace) = &self.trace {
            match step {
                // What belongs to a login may be the password, and so may what a careless
                // server says to it.
                "AUTH" => trace.client(&format!("<{} octets>", octets.len())),
                BODY => trace.client(&format!("({} octets of the message)", octets.len())),
                _ => octets.split_inclusive(|octet| *octet == b'\n').for_each(|line| {
                    trace.client(&printable(line.trim_ascii_end()));
                }),
            }
        }
        self.replies.send(octets, limit).map_err(|why| self.lost(step, &why))
    }

    fn reply(&mut self, step: &str, limit: Duration) -> Result<Reply, Answer> {
        let reply = self.replies.reply(limit).map_err(|why| self.lost(step, &why))?;
        if let Some(trace) = &self.trace {
            let mut octets = Vec::new();
            match step {
                "AUTH" => octets.extend(format!("{} (…)", reply.code()).bytes()),
                _ => reply.write_to(&mut octets),
            }
            trace.server(&octets);
        }
        if reply.code() == CLOSING {
            self.is_open = false;
        }
        Ok(reply)
    }

    /// An error unless the reply is of this kind. One that is neither that nor a
    /// refusal has no meaning here.
    fn wants(&mut self, kind: Kind, step: &str, reply: &Reply) -> Result<(), Answer> {
        match reply.kind() {
            found if found == kind => Ok(()),
            Kind::Later | Kind::Never => Err(Answer::of(reply, &self.hop)),
            Kind::Done | Kind::GoOn => Err(self.confused(step, reply)),
        }
    }

    /// No reply: nothing is known about the next one either.
    fn lost(&mut self, step: &str, why: &NoReply) -> Answer {
        self.is_open = false;
        let status = match why {
            NoReply::Closed | NoReply::Late | NoReply::Deaf | NoReply::Io(_) => (4, 2),
            NoReply::LineTooLong | NoReply::Malformed(_) | NoReply::Early => (5, 0),
        };
        Answer::later(status, format!("{}, {step}: {why}", self.hop))
    }

    /// A reply that cannot be one to this step: server and client do not talk
    /// about the same thing any more.
    fn confused(&mut self, step: &str, reply: &Reply) -> Answer {
        self.is_open = false;
        Answer::later((5, 0), format!("{}: {step} was answered with {}", self.hop, reply.code()))
    }

    /// A refusal that is temporary for us, whatever its first digit says.
    fn not_now(&mut self, step: &str, reply: &Reply) -> Answer {
        match reply.kind() {
            Kind::Done | Kind::GoOn => self.confused(step, reply),
            Kind::Later | Kind::Never => {
                let answer = Answer::of(reply, &self.hop);
                let status = Enhanced { class: 4, ..answer.status };
                Answer { verdict: Verdict::Later, status, ..answer }
            }
        }
    }

    /// This client, if it got that far; else it leaves as politely as it can.
    fn or_quit(self, done: Result<(), Answer>) -> Result<Client, ConnectError> {
        match done {
            Ok(()) => Ok(self),
            Err(answer) => {
                self.quit();
                Err(ConnectError::Answer(answer))
            }
        }
    }
}

/// The TCP connection, with TLS on it if that comes first.
fn open(hop: &str, address: SocketAddr, dial: &Dial) -> Result<(IpAddr, Stream), ConnectError> {
    let no_answer =
        |error| ours(NO_CONNECTION, format!("{hop}: no connection to {address}: {error}"));
    let limit = dial.patience.min(CONNECT_TIME);
    let tcp = TcpStream::connect_timeout(&address, limit).map_err(no_answer)?;
    // What we write is whole: nothing is won by waiting for more.
    tcp.set_nodelay(true).map_err(no_answer)?;
    let our_address = tcp.local_addr().map_err(no_answer)?.ip();
    let limit = dial.patience.min(HANDSHAKE_TIME);
    let stream = Stream::Plain(Socket::new(Arc::new(tcp), limit));
    match dial.security {
        Security::Verified { host, connector, from_first_octet: true } => stream
            .connect_tls(connector, host)
            .map(|stream| (our_address, stream))
            .map_err(|error| ours((7, 5), format!("{hop}: {error}"))),
        _ => Ok((our_address, stream)),
    }
}

/// A connector that takes any certificate. Only a name may be said in the handshake,
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

fn is_ascii(mailbox: &Mailbox) -> bool {
    mailbox.to_string().is_ascii()
}

impl Extensions {
    fn of(reply: &Reply) -> Extensions {
        // The first line is the server's name.
        Extensions(reply.lines().iter().skip(1).cloned().collect())
    }

    fn has(&self, keyword: &str) -> bool {
        self.get(keyword).is_some()
    }

    /// What stands behind a keyword; it may be empty. Keywords have no case.
    fn get(&self, keyword: &str) -> Option<&str> {
        self.0.iter().find_map(|line| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            word.eq_ignore_ascii_case(keyword).then_some(rest.trim())
        })
    }

    /// The best of those that we know: one that does not send the password.
    fn best_mechanism(&self) -> Option<Mechanism> {
        let offered: Vec<Mechanism> =
            self.get("AUTH")?.split_whitespace().filter_map(Mechanism::parse).collect();
        Mechanism::ALL.into_iter().find(|mechanism| offered.contains(mechanism))
    }
}

impl Debug for Security<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Security::Opportunistic => f.write_str("Opportunistic"),
            Security::Clear => f.write_str("Clear"),
            Security::Verified { host, .. } => write!(f, "Verified({host})"),
        }
    }
}

/// The password is nobody's business.
impl Debug for Credentials {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl ConnectError {
    /// Whether nobody listens at the address, or nobody that we can reach.
    pub fn is_no_connection(&self) -> bool {
        match self {
            ConnectError::Answer(Answer { status, by: None, .. }) => {
                (status.subject, status.detail) == NO_CONNECTION
            }
            ConnectError::Answer(_) | ConnectError::Handshake(_) => false,
        }
    }
}

impl Display for ConnectError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            ConnectError::Answer(answer) => f.write_str(&answer.text),
            ConnectError::Handshake(why) => f.write_str(&printable(why)),
        }
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(lines: &[&str]) -> Extensions {
        Extensions(lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn a_keyword_is_found_in_any_case_and_only_as_a_whole_word() {
        let offered = extensions(&["size 1000", "8BitMime", "PIPELININGX", "AUTH=PLAIN"]);
        assert_eq!(offered.get("SIZE"), Some("1000"));
        assert_eq!(offered.get("8BITMIME"), Some(""));
        assert!(!offered.has("PIPELINING") && !offered.has("AUTH"));
    }

    #[test]
    fn of_the_mechanisms_offered_one_is_taken_that_does_not_send_the_password() {
        for (offer, best) in [
            ("AUTH PLAIN LOGIN cram-md5 GSSAPI", Some(Mechanism::CramMd5)),
            ("AUTH LOGIN PLAIN", Some(Mechanism::Plain)),
            ("auth plain scram-sha-256", Some(Mechanism::ScramSha256)),
            ("AUTH GSSAPI", None),
            ("AUTH", None),
            ("SIZE", None),
        ] {
            assert_eq!(extensions(&[offer]).best_mechanism(), best, "{offer}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials = Credentials { user: "ann".to_owned(), password: "secret".to_owned() };
        let dial = Dial {
            name: "c.example",
            patience: Duration::ZERO,
            security: Security::Clear,
            login: Some(&credentials),
            trace: None,
        };
        let text = format!("{dial:?}");
        assert!(text.contains("ann") && !text.contains("secret"), "{text}");
    }
}
