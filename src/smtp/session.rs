//! The order of commands in one SMTP session (RFC 5321 section 4.1.4).
//!
//! In: one line from the client, or what became of a message. Out: one
//! [`Step`]: the reply, and what the connection does next. This file opens no
//! socket, reads no clock and touches no disk; `server/connection.rs` does that
//! and asks here.
//!
//! Everything that depends on the order of commands is in the one `match` of
//! `Session::command`. Facts that hold across states (the client's name, how
//! often it was refused) are fields of [`Session`], not states.
//!
//! Book: docs/05-state-machine.md.

use std::fmt::{self, Display, Formatter};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::smtp::address::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::command::{AUTH_LINE_LIMIT, COMMAND_LINE_LIMIT, Command, Mail, Rcpt};
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::reply::{self, Kind, Reply};
use crate::smtp::sasl::{self, Exchange, Mechanism, Progress};
use crate::smtp::site::{Destination, LocalMailbox, Resolved, Site};
use crate::smtp::text::printable;

/// How many 5yz replies a client may collect between two messages that were
/// stored. People who type by hand stay far below, guessing machines do not.
const REFUSALS_LIMIT: u32 = 20;

/// How often a client may fail to log in before it is sent away.
const FAILED_LOGINS_LIMIT: u32 = 3;

/// How long the answer to a failed login waits: nothing for a person, and much
/// for a machine that guesses.
const FAILED_LOGIN_PAUSE: Duration = Duration::from_secs(1);

/// Room on disk that has to stay free beside a message, in octets. It is also
/// what a message of unknown size may need at least (RFC 5321 section 4.5.3.1.7).
const ROOM_RESERVE: u64 = 64 * 1024;

/// Where a session is in the sequence of commands. Each variant carries what is
/// known by then, and nothing else.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The greeting is out; the client has not said who it is.
    #[default]
    Connected,
    /// The client has a name; no transaction is open.
    Ready,
    /// MAIL was accepted; the envelope has no recipient yet.
    Mail(Envelope),
    /// The envelope has one recipient or more.
    Rcpt(Envelope),
    /// Inside an AUTH exchange: what comes is no command, whatever it says.
    Auth(Exchange),
    /// The last reply was given; whatever still arrives is not looked at.
    Closed,
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Port 25: takes mail for our own mailboxes from everybody.
    Smtp,
    /// Port 587: takes mail from our users, once they have logged in (RFC 6409).
    Submission,
    /// Port 465: the same, with TLS from the first octet (RFC 8314).
    Submissions,
}

/// What MAIL and RCPT said. Recipients are known only from here, never from the
/// header of the message: that is why a Bcc works.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where errors are reported to.
    pub reverse_path: ReversePath,
    /// One entry for each destination, however many addresses led to it.
    pub recipients: Vec<Recipient>,
    /// The client said SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// What the sender wants in a report (RFC 3461).
    pub dsn: MailDsn,
}

/// One accepted recipient.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The address as the client gave it, parsed.
    pub address: ForwardPath,
    /// Where it leads.
    pub destination: Destination,
    /// Which of our aliases led there, if one did.
    pub alias: Option<Mailbox>,
    /// When to tell the sender about it (RFC 3461).
    pub dsn: RcptDsn,
}

/// The answer to one line, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// How long to wait before the reply.
    pub pause: Duration,
    /// What to tell the client.
    pub reply: Reply,
    /// What the connection does once the reply is written.
    pub next: Next,
}

/// What the connection does after a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Read a command line.
    Command,
    /// Receive a message for this envelope, then say [`Session::stored`].
    Message(Envelope),
    /// Encrypt the connection, then say [`Session::encrypted`].
    StartTls,
    /// Close the connection.
    Close(Farewell),
}

/// Why the session closed the connection, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The client said QUIT.
    Quit,
    /// More than `REFUSALS_LIMIT` commands were refused.
    Refusals,
    /// Too many failed logins.
    FailedLogins,
    /// Something came right behind STARTTLS in the clear.
    Injection,
    /// A bare CR or LF inside a message.
    Smuggling,
    /// The client speaks HTTP.
    Http,
    /// The client speaks TLS where clear text is expected.
    Tls,
}

/// Why a line never reached the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLine {
    /// Longer than the limit; the rest was skipped.
    TooLong,
    /// The same, and it began with AUTH (RFC 4954 section 4 has a code for that).
    AuthTooLong,
    /// It ends in LF alone, or a CR stands alone in it.
    BareNewline,
    /// It holds a NUL.
    Nul,
    /// It is the start of a TLS handshake.
    Tls,
}

/// What became of a message after DATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// On disk, for every recipient, under this id.
    Stored(String),
    /// Larger than the limit.
    TooBig,
    /// A bare CR or LF inside it; the end of the message is not known.
    BareNewline,
    /// Too many `Received` fields.
    Loop,
    /// The disk is full.
    NoRoom,
    /// Another fault of ours, which the log tells.
    Failed,
}

/// One client's session, from the greeting to the goodbye.
#[derive(Debug)]
pub struct Session {
    site: Arc<Site>,
    /// Our own address, as the client sees it.
    connected_to: IpAddr,
    state: State,
    /// What the client called itself in EHLO or HELO; empty before that.
    client_name: String,
    /// Whether it said EHLO, and not HELO.
    is_extended: bool,
    /// 5yz replies since the last message that was stored.
    refusals: u32,
    /// Octets that can still be stored, as far as we were told.
    room: u64,
    role: Role,
    /// Whether all that is said is encrypted.
    is_tls: bool,
    /// Who logged in.
    user: Option<String>,
    /// Logins that failed.
    failed_logins: u32,
    /// Whether this client's address failed to log in too often.
    is_blocked: bool,
    /// An exchange was refused or broken off: the next line may be the password.
    may_see_password: bool,
    /// Gives a text that nobody can guess, another one each time.
    nonce: fn() -> String,
}

impl Session {
    /// A session that begins now. `connected_to` is the server's address on this
    /// connection, `nonce` gives a text that nobody can guess.
    pub fn new(
        site: Arc<Site>,
        role: Role,
        connected_to: IpAddr,
        nonce: fn() -> String,
    ) -> Session {
        Session {
            site,
            role,
            is_tls: role == Role::Submissions,
            user: None,
            failed_logins: 0,
            is_blocked: false,
            may_see_password: false,
            nonce,
            connected_to,
            state: State::Connected,
            client_name: String::new(),
            is_extended: false,
            refusals: 0,
            room: u64::MAX,
        }
    }

    /// The session after the TLS handshake. It begins anew: whatever was said in
    /// the clear may have been said by somebody in between (RFC 3207 section 4.2).
    /// What the client did wrong before is not forgotten.
    pub fn encrypted(self) -> Session {
        Session {
            is_tls: true,
            refusals: self.refusals,
            failed_logins: self.failed_logins,
            ..Session::new(self.site, self.role, self.connected_to, self.nonce)
        }
    }

    /// Tells the session whether too many logins failed from this address lately.
    pub fn set_blocked(&mut self, is_blocked: bool) {
        self.is_blocked = is_blocked;
    }

    /// Who logged in.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// How many logins failed in this session.
    pub fn failed_logins(&self) -> u32 {
        self.failed_logins
    }

    /// The longest line to read now, CR LF included.
    pub fn line_limit(&self) -> usize {
        match (&self.state, &self.site.users) {
            (State::Auth(_), _) | (State::Ready, Some(_)) => AUTH_LINE_LIMIT,
            _ => COMMAND_LINE_LIMIT,
        }
    }

    /// What log and trace may show of a line, before it is answered: everything
    /// but what may be a password.
    pub fn shown(&self, line: &[u8]) -> String {
        let hidden = format!("<{} octets>", line.len());
        if let State::Auth(_) = self.state {
            return if line == b"*" { "*".to_owned() } else { hidden };
        }
        // Where there are users, people type passwords at the wrong moment, too.
        let may_hold_password = self.may_see_password || self.site.users.is_some();
        match Command::parse(line) {
            // What stands in the place of a mechanism and is none may be the password.
            Ok(Command::Auth { mechanism, initial }) => {
                let name = Mechanism::parse(&mechanism).map(Mechanism::name);
                let initial = initial.map(|text| format!(" <{} octets>", text.len()));
                match name {
                    Some(name) => format!("AUTH {name}{}", initial.unwrap_or_default()),
                    None => hidden,
                }
            }
            // These take any text, and MAIL any AUTH=, so there may be one in them.
            Ok(Command::Noop) if may_hold_password => "NOOP".to_owned(),
            Ok(Command::Help) if may_hold_password => "HELP".to_owned(),
            Ok(Command::Mail(mail)) if mail.auth => {
                format!("MAIL FROM:{} (and parameters)", printable(mail.from.to_string()))
            }
            Ok(_) => printable(line),
            Err(_) if may_hold_password || is_auth(line) => hidden,
            Err(_) => printable(line),
        }
    }

    /// Tells the session how many octets can still be stored. It asks nobody
    /// itself, and takes it that there is room until it is told otherwise.
    pub fn set_room(&mut self, octets: u64) {
        self.room = octets;
    }

    /// The greeting: the server speaks first.
    pub fn greet(&self) -> Reply {
        reply::greeting(&self.site.hostname)
    }

    /// Answers one line, without its CR LF.
    pub fn line(&mut self, line: &[u8]) -> Step {
        // Whatever is said from here on may hold a password, also what a client
        // sends without waiting for our answer.
        self.may_see_password |= is_auth(line);
        // `take` leaves `Connected` behind for the length of this call only.
        let state = mem::take(&mut self.state);
        if line.len() + 2 > COMMAND_LINE_LIMIT && !is_auth(line) && !matches!(state, State::Auth(_))
        {
            self.state = state;
            return self.bad_line(BadLine::TooLong);
        }
        // A list with dead addresses is no attack while some of them are alive.
        let verb = line.split(|octet| *octet == b' ').next().unwrap_or_default();
        let is_rcpt = verb.eq_ignore_ascii_case(b"RCPT");
        let is_forgiven = is_rcpt && matches!(state, State::Rcpt(_));

        let (state, step) = match (state, Command::parse(line)) {
            (State::Auth(_), _) if self.is_blocked => go(State::Ready, reply::no_auth_now()),
            (State::Auth(exchange), _) => self.progress(self.answer(exchange, line)),
            (State::Closed, _) => {
                (State::Closed, self.close(reply::stopping(&self.site.hostname), Farewell::Quit))
            }
            (state, Ok(command)) => self.command(state, command),
            (state, Err(reply)) => go(state, reply),
        };
        self.state = state;
        if is_forgiven { step } else { self.count_refusals(step) }
    }

    /// Answers a line that is no text to parse. Nothing of it is run.
    pub fn bad_line(&mut self, why: BadLine) -> Step {
        let was_auth = matches!(self.state, State::Auth(_));
        if was_auth {
            self.state = State::Ready;
        }
        // It may have been an AUTH that we did not read.
        self.may_see_password |= self.site.users.is_some();
        let step = match why {
            BadLine::TooLong if was_auth => step(reply::auth_line_too_long(), Next::Command),
            BadLine::AuthTooLong => step(reply::auth_line_too_long(), Next::Command),
            BadLine::TooLong => step(reply::line_too_long(), Next::Command),
            BadLine::BareNewline => step(reply::bare_newline(), Next::Command),
            BadLine::Nul => step(reply::nul_in_command(), Next::Command),
            BadLine::Tls => self.close(reply::not_tls(), Farewell::Tls),
        };
        self.count_refusals(step)
    }

    /// Answers the final dot. The transaction is over, whatever the outcome.
    pub fn stored(&mut self, outcome: &Outcome) -> Step {
        let reply = match outcome {
            Outcome::Stored(id) => reply::stored(id),
            Outcome::TooBig => reply::too_big(self.site.max_size),
            Outcome::Loop => reply::mail_loop(),
            Outcome::NoRoom => reply::no_room(),
            Outcome::Failed => reply::local_fault(),
            // Where the message ends is not known any more, so nothing that
            // follows may be taken for a command.
            Outcome::BareNewline => {
                return self.close(reply::bare_newline_in_message(), Farewell::Smuggling);
            }
        };
        match reply.kind() {
            Kind::Done => self.refusals = 0,
            Kind::Never => self.refusals += 1,
            Kind::GoOn | Kind::Later => {}
        }
        match self.refusals > REFUSALS_LIMIT {
            // 421 does not take the place of this reply: the client would take it
            // for an invitation to send the same message again.
            true => self.close(reply, Farewell::Refusals),
            false => step(reply, Next::Command),
        }
    }

    /// Answers STARTTLS when more had arrived behind it: instead of 220.
    pub fn injected(&mut self) -> Step {
        self.close(reply::input_behind_starttls(), Farewell::Injection)
    }

    /// What the port of this session is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What this server knows of itself, as it was when the session began.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The state the session is in.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the client called itself.
    pub fn client_name(&self) -> &str {
        &self.client_name
    }

    /// The word after `with` in a `Received` field (RFC 3848, RFC 6531 section 4.3).
    pub fn protocol(&self, envelope: &Envelope) -> &'static str {
        match (envelope.smtputf8, self.is_extended, self.is_tls, self.user.is_some()) {
            (true, _, false, false) => "UTF8SMTP",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, true, true) => "UTF8SMTPSA",
            (false, false, _, _) => "SMTP",
            (false, true, false, false) => "ESMTP",
            (false, true, false, true) => "ESMTPA",
            (false, true, true, false) => "ESMTPS",
            (false, true, true, true) => "ESMTPSA",
        }
    }

    /// Every state times every command. A wildcard stands for the state, never
    /// for the command, so that a new command does not compile before each state
    /// has an answer. `Closed` does not get here, `line` answers for it.
    fn command(&mut self, state: State, command: Command) -> (State, Step) {
        match (state, command) {
            // EHLO and HELO also end an open transaction, as RSET does (RFC 5321 section 4.1.4).
            (_, Command::Ehlo(name)) => go(State::Ready, self.hello(name, true)),
            (_, Command::Helo(name)) => go(State::Ready, self.hello(name, false)),

            // Submission is for users who have logged in (RFC 6409 section 4.3).
            (State::Ready, Command::Mail(_)) if self.must_log_in() => {
                go(State::Ready, reply::log_in_first())
            }
            // Nor do these two tell a stranger anything there.
            (state, Command::Vrfy | Command::Expn) if self.must_log_in() => {
                go(state, reply::log_in_first())
            }

            // MAIL opens a transaction; there is one at a time (section 4.1.4).
            (State::Ready, Command::Mail(mail)) => self.sender(mail),
            (State::Connected, Command::Mail(_)) => {
                go(State::Connected, reply::bad_sequence("say EHLO first"))
            }
            (state, Command::Mail(_)) => {
                go(state, reply::bad_sequence("a transaction is open, RSET drops it"))
            }

            // RCPT adds one recipient; a refused one changes nothing (section 4.1.1.3).
            (State::Mail(envelope) | State::Rcpt(envelope), Command::Rcpt(rcpt)) => {
                self.recipient(envelope, rcpt)
            }
            (state, Command::Rcpt(_)) => go(state, reply::bad_sequence("say MAIL first")),

            // DATA needs a recipient; after the message there is no transaction (section 4.1.1.4).
            (State::Rcpt(envelope), Command::Data) => receive(envelope),
            (State::Mail(envelope), Command::Data) => {
                go(State::Mail(envelope), reply::bad_sequence("no recipient was accepted"))
            }
            (state, Command::Data) => go(state, reply::bad_sequence("say MAIL and RCPT first")),

            // RSET drops the transaction and keeps the client's name (section 4.1.1.5).
            (State::Mail(_) | State::Rcpt(_), Command::Rset) => go(State::Ready, reply::ok()),
            (state, Command::Rset) => go(state, reply::ok()),

            // These change nothing, and are answered in every state (section 4.1.4).
            (state, Command::Noop) => go(state, reply::ok()),
            (state, Command::Help) => go(state, reply::help()),
            (state, Command::Vrfy) => go(state, reply::not_verified()),
            (state, Command::Expn) => go(state, reply::not_offered("EXPN")),

            // STARTTLS and AUTH belong between EHLO and MAIL (RFC 3207, RFC 4954).
            (State::Ready, Command::StartTls) => (State::Ready, self.start_tls()),
            (State::Ready, Command::Auth { mechanism, initial }) => {
                self.authenticate(&mechanism, initial.as_deref())
            }
            (state, Command::StartTls | Command::Auth { .. }) => {
                go(state, reply::bad_sequence("only after EHLO and before MAIL"))
            }

            // QUIT is always granted (section 4.1.1.10).
            (_, Command::Quit) => {
                (State::Closed, self.close(reply::bye(&self.site.hostname), Farewell::Quit))
            }

            // A browser can be made to send our commands inside an HTTP request,
            // so nothing after its first line may be read.
            (_, Command::Http) => (State::Closed, self.close(reply::not_http(), Farewell::Http)),
        }
    }

    /// Takes the client's name, and says ours.
    fn hello(&mut self, name: String, is_extended: bool) -> Reply {
        self.client_name = name;
        self.is_extended = is_extended;
        match is_extended {
            true => {
                reply::extended_hello(&self.site.hostname, &self.client_name, self.extensions())
            }
            false => reply::hello(&self.site.hostname, &self.client_name),
        }
    }

    /// What EHLO announces: each keyword only because it works here and now.
    fn extensions(&self) -> Vec<String> {
        let mut extensions = vec![
            format!("SIZE {}", self.site.max_size),
            "PIPELINING".to_owned(),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
        ];
        if self.site.has_tls && !self.is_tls {
            extensions.push("STARTTLS".to_owned());
        }
        let mechanisms: Vec<&str> = self.mechanisms().iter().map(|one| one.name()).collect();
        if !mechanisms.is_empty() {
            extensions.push(format!("AUTH {}", mechanisms.join(" ")));
        }
        extensions
    }

    /// The mechanisms that would be accepted now, the best first.
    fn mechanisms(&self) -> Vec<Mechanism> {
        let Some(users) = &self.site.users else { return Vec::new() };
        if self.user.is_some() || !(self.is_tls || self.site.allow_plain_auth) {
            return Vec::new();
        }
        Mechanism::ALL.into_iter().filter(|mechanism| mechanism.works_for(users)).collect()
    }

    fn must_log_in(&self) -> bool {
        self.role != Role::Smtp && self.user.is_none()
    }

    fn start_tls(&self) -> Step {
        match (self.is_tls, self.site.has_tls) {
            (true, _) => step(reply::bad_sequence("TLS is on already"), Next::Command),
            (false, true) => step(reply::start_tls(), Next::StartTls),
            (false, false) => step(reply::not_offered("STARTTLS"), Next::Command),
        }
    }

    /// Begins an AUTH exchange, or says why not.
    fn authenticate(&mut self, mechanism: &str, initial: Option<&str>) -> (State, Step) {
        let refuse = |reply| go(State::Ready, reply);
        let Some(users) = &self.site.users else { return refuse(reply::not_offered("AUTH")) };
        if self.user.is_some() {
            return refuse(reply::bad_sequence("you have logged in already"));
        }
        if !self.is_extended {
            return refuse(reply::bad_sequence("AUTH needs EHLO, not HELO"));
        }
        if !self.is_tls && !self.site.allow_plain_auth {
            return match self.site.has_tls {
                true => refuse(reply::encrypt_first()),
                false => refuse(reply::not_offered("AUTH")),
            };
        }
        let offered = Mechanism::parse(mechanism).filter(|it| self.mechanisms().contains(it));
        let Some(mechanism) = offered else { return refuse(reply::unknown_mechanism()) };
        if self.is_blocked {
            return refuse(reply::no_auth_now());
        }
        let progress = sasl::begin(mechanism, initial, &(self.nonce)(), &self.site.hostname, users);
        self.progress(progress)
    }

    /// The client's response, given to the mechanism.
    fn answer(&self, exchange: Exchange, line: &[u8]) -> Progress {
        match &self.site.users {
            Some(users) => exchange.answer(line, users),
            None => Progress::Refused,
        }
    }

    /// What the session makes of the last line of an AUTH exchange.
    fn progress(&mut self, progress: Progress) -> (State, Step) {
        match progress {
            Progress::Challenge(exchange, text) => {
                go(State::Auth(exchange), reply::challenge(&text))
            }
            Progress::Done(user) => {
                self.user = Some(user);
                self.may_see_password = false;
                go(State::Ready, reply::authenticated())
            }
            Progress::Premature => go(State::Ready, reply::server_begins()),
            Progress::Malformed => go(State::Ready, reply::bad_auth_response()),
            Progress::Cancelled => go(State::Ready, reply::auth_cancelled()),
            Progress::Refused => {
                self.failed_logins += 1;
                let (state, step) = match self.failed_logins < FAILED_LOGINS_LIMIT {
                    true => go(State::Ready, reply::bad_credentials()),
                    false => {
                        let last = reply::too_many_failed_logins(&self.site.hostname);
                        (State::Closed, self.close(last, Farewell::FailedLogins))
                    }
                };
                (state, Step { pause: FAILED_LOGIN_PAUSE, ..step })
            }
        }
    }

    /// Opens a transaction for `mail`, or says why not.
    fn sender(&self, mail: Mail) -> (State, Step) {
        if mail.auth && self.site.users.is_none() {
            return go(State::Ready, reply::unknown_parameter("AUTH"));
        }
        if self.user.as_ref().is_some_and(|user| !self.site.may_send_as(user, &mail.from)) {
            return go(State::Ready, reply::not_your_address());
        }
        if mail.from.needs_smtputf8() && !mail.smtputf8 {
            return go(State::Ready, reply::needs_smtputf8());
        }
        if mail.size.is_some_and(|size| size > self.site.max_size) {
            return go(State::Ready, reply::too_big(self.site.max_size));
        }
        // Better to say it now than after the whole message has come (RFC 1870 section 6.1).
        if mail.size.unwrap_or(0).saturating_add(ROOM_RESERVE) > self.room {
            return go(State::Ready, reply::no_room());
        }
        let envelope = Envelope {
            reverse_path: mail.from,
            recipients: Vec::new(),
            smtputf8: mail.smtputf8,
            dsn: mail.dsn,
        };
        go(State::Mail(envelope), reply::sender_ok())
    }

    /// Adds a recipient to the transaction, or says why not.
    fn recipient(&self, mut envelope: Envelope, rcpt: Rcpt) -> (State, Step) {
        let is_user = self.user.is_some();
        let reply = match self.site.resolve(&rcpt.to, self.connected_to, is_user) {
            _ if rcpt.to.needs_smtputf8() && !envelope.smtputf8 => reply::needs_smtputf8(),
            Err(refusal) => refusal,
            Ok(mut resolved) => {
                // The second address of a mailbox is welcome, and brings no second copy.
                resolved.destinations.retain(|destination| !envelope.has(destination));
                let room = self.site.max_recipients.saturating_sub(envelope.recipients.len());
                if resolved.destinations.len() <= room {
                    envelope.add(&rcpt, resolved);
                    reply::recipient_ok()
                } else {
                    reply::too_many_recipients()
                }
            }
        };
        match envelope.recipients.is_empty() {
            true => go(State::Mail(envelope), reply),
            false => go(State::Rcpt(envelope), reply),
        }
    }

    /// Puts 421 in the place of a refusal when there were too many.
    fn count_refusals(&mut self, step: Step) -> Step {
        if step.reply.kind() != Kind::Never {
            return step;
        }
        self.refusals += 1;
        match self.refusals > REFUSALS_LIMIT {
            true => {
                let last = reply::too_many_refusals(&self.site.hostname);
                Step { pause: step.pause, ..self.close(last, Farewell::Refusals) }
            }
            false => step,
        }
    }

    /// The last step of a session.
    fn close(&mut self, reply: Reply, why: Farewell) -> Step {
        self.state = State::Closed;
        step(reply, Next::Close(why))
    }
}

impl Envelope {
    fn add(&mut self, rcpt: &Rcpt, resolved: Resolved) {
        let mut dsn = rcpt.dsn.clone();
        for destination in resolved.destinations {
            let alias = resolved.alias.clone();
            let rest = dsn.without_success();
            let dsn = mem::replace(&mut dsn, rest);
            self.recipients.push(Recipient { address: rcpt.to.clone(), destination, alias, dsn });
        }
    }

    /// The mailboxes of this server among the destinations.
    pub fn mailboxes(&self) -> Vec<&LocalMailbox> {
        self.recipients.iter().filter_map(|to| to.destination.mailbox()).collect()
    }

    /// The addresses at other servers among the destinations.
    pub fn elsewhere(&self) -> Vec<&Mailbox> {
        self.recipients.iter().filter_map(|to| to.destination.address()).collect()
    }

    /// The address of the recipients, if they were all reached by a single one.
    pub fn only_address(&self) -> Option<&ForwardPath> {
        let (first, rest) = self.recipients.split_first()?;
        rest.iter().all(|other| other.address == first.address).then_some(&first.address)
    }

    fn has(&self, destination: &Destination) -> bool {
        self.recipients.iter().any(|recipient| recipient.destination == *destination)
    }
}

/// Answers, and waits for the next command in `state`.
fn go(state: State, reply: Reply) -> (State, Step) {
    (state, step(reply, Next::Command))
}

/// Answers at once.
fn step(reply: Reply, next: Next) -> Step {
    Step { pause: Duration::ZERO, reply, next }
}

/// Whether a line is, or wants to be, an AUTH command.
fn is_auth(line: &[u8]) -> bool {
    line.trim_ascii_start().get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH"))
}

/// Asks for the message.
fn receive(envelope: Envelope) -> (State, Step) {
    (State::Ready, step(reply::send_message(), Next::Message(envelope)))
}

impl BadLine {
    /// A line that is too long, of which this is the start.
    pub fn too_long(start: &[u8]) -> BadLine {
        if is_auth(start) { BadLine::AuthTooLong } else { BadLine::TooLong }
    }
}

impl Display for BadLine {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            BadLine::TooLong | BadLine::AuthTooLong => "a line that is too long",
            BadLine::BareNewline => "a line with a bare CR or LF",
            BadLine::Nul => "a line with a NUL",
            BadLine::Tls => "the beginning of a TLS handshake",
        })
    }
}

impl Display for Farewell {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Farewell::Quit => "QUIT",
            Farewell::Refusals => "too many refused commands",
            Farewell::FailedLogins => "too many failed logins",
            Farewell::Injection => "commands right behind STARTTLS, perhaps somebody in between",
            Farewell::Smuggling => "bare CR or LF in a message, perhaps an attempt to smuggle one",
            Farewell::Http => "HTTP on the SMTP port, probably a browser or a scanner",
            Farewell::Tls => {
                "TLS on the clear port, the client should use STARTTLS or another port"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::credentials::{Secret, Users};
    use std::net::Ipv4Addr;

    fn session() -> Session {
        let names = ["bob".to_owned(), "cem".to_owned()];
        let mut site = Site::new("host.example", "host.example", &[], Some(&names));
        site.max_recipients = 1;
        Session::new(Arc::new(site), Role::Smtp, Ipv4Addr::LOCALHOST.into(), || "nonce".to_owned())
    }

    /// The code of the answer to each line, in order.
    fn codes(session: &mut Session, lines: &[&str]) -> Vec<u16> {
        lines.iter().map(|line| session.line(line.as_bytes()).reply.code()).collect()
    }

    const TRANSACTION: [&str; 3] = ["EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<bob@host.example>"];

    #[test]
    fn a_transaction_ends_with_the_envelope_in_the_hands_of_the_connection() {
        let mut session = session();
        assert_eq!(codes(&mut session, &TRANSACTION), [250, 250, 250]);
        let step = session.line(b"DATA");
        let Next::Message(envelope) = step.next else { panic!("{step:?}") };
        assert_eq!(step.reply.code(), 354);
        assert_eq!(envelope.reverse_path.to_string(), "<a@b>");
        assert_eq!(envelope.recipients.len(), 1);
        assert_eq!(session.state(), &State::Ready);
    }

    #[test]
    fn every_outcome_of_a_message_has_its_reply_and_only_one_closes() {
        for (outcome, code, closes) in [
            (Outcome::Stored("M1".to_owned()), 250, false),
            (Outcome::TooBig, 552, false),
            (Outcome::BareNewline, 554, true),
            (Outcome::Loop, 554, false),
            (Outcome::NoRoom, 452, false),
            (Outcome::Failed, 451, false),
        ] {
            let step = session().stored(&outcome);
            assert_eq!(step.reply.code(), code, "{outcome:?}");
            assert_eq!(step.next != Next::Command, closes, "{outcome:?}");
        }
    }

    #[test]
    fn mail_is_taken_only_while_its_size_and_a_reserve_fit_the_disk() {
        let mut session = session();
        session.line(b"EHLO c");
        for (room, line, code) in [
            (ROOM_RESERVE, "MAIL FROM:<>", 250),
            (ROOM_RESERVE - 1, "MAIL FROM:<>", 452),
            (ROOM_RESERVE + 9, "MAIL FROM:<> SIZE=9", 250),
            (ROOM_RESERVE + 8, "MAIL FROM:<> SIZE=9", 452),
        ] {
            session.set_room(room);
            assert_eq!(codes(&mut session, &[line, "RSET"]), [code, 250], "{room} {line}");
        }
    }

    #[test]
    fn nothing_is_run_after_the_goodbye() {
        for last in ["QUIT", "GET / HTTP/1.1"] {
            let mut session = session();
            session.line(last.as_bytes());
            let step = session.line(b"NOOP");
            assert_eq!((step.reply.code(), session.state()), (421, &State::Closed), "{last}");
            assert!(matches!(step.next, Next::Close(_)));
        }
    }

    #[test]
    fn after_twenty_refusals_the_next_one_closes_and_a_stored_message_begins_anew() {
        let mut session = session();
        for _ in 0..20 {
            assert_eq!(session.line(b"NONSENSE").reply.code(), 500);
        }
        session.stored(&Outcome::Stored("M1".to_owned()));
        for _ in 0..20 {
            assert_eq!(session.bad_line(BadLine::TooLong).reply.code(), 500);
        }
        // Neither a good command nor a temporary refusal changes the count.
        assert_eq!(codes(&mut session, &["NOOP", "RSET"]), [250, 250]);
        session.stored(&Outcome::NoRoom);
        let step = session.line(b"NONSENSE");
        assert_eq!((step.reply.code(), step.next), (421, Next::Close(Farewell::Refusals)));
    }

    #[test]
    fn refused_messages_keep_their_reply_and_close_when_there_were_too_many() {
        let mut session = session();
        for _ in 0..20 {
            assert_eq!(session.stored(&Outcome::Loop).next, Next::Command);
        }
        let step = session.stored(&Outcome::Loop);
        assert_eq!((step.reply.code(), step.next), (554, Next::Close(Farewell::Refusals)));
    }

    #[test]
    fn dead_addresses_beside_a_living_one_are_no_refusals() {
        let mut session = session();
        codes(&mut session, &TRANSACTION);
        for _ in 0..30 {
            assert_eq!(session.line(b"RCPT TO:<dead@host.example>").reply.code(), 550);
        }
        assert_eq!(session.line(b"DATA").reply.code(), 354);
    }

    #[test]
    fn a_second_address_of_a_mailbox_takes_no_room() {
        let mut session = session();
        codes(&mut session, &TRANSACTION);
        let more = ["RCPT TO:<BOB+x@host.example>", "RCPT TO:<cem@host.example>"];
        assert_eq!(codes(&mut session, &more), [250, 452]);
    }

    #[test]
    fn the_received_field_names_the_protocol_that_was_used() {
        for (lines, protocol) in [
            (["HELO c", "MAIL FROM:<a@b>", "RCPT TO:<bob@host.example>"], "SMTP"),
            (TRANSACTION, "ESMTP"),
            (["EHLO c", "MAIL FROM:<a@b> SMTPUTF8", "RCPT TO:<bob@host.example>"], "UTF8SMTP"),
        ] {
            let mut session = session();
            codes(&mut session, &lines);
            let Next::Message(envelope) = session.line(b"DATA").next else { panic!("{lines:?}") };
            assert_eq!(session.protocol(&envelope), protocol);
        }
    }

    /// The order of commands told another way, with flags.
    #[derive(Default)]
    struct Model {
        hello: bool,
        mail: bool,
        rcpt: bool,
    }

    impl Model {
        fn code(&mut self, line: &str) -> u16 {
            let code = match line {
                "EHLO" => 501,
                "MAIL FROM:<a@b>" if !self.hello || self.mail => 503,
                "RCPT TO:<dead@host.example>" if self.mail => 550,
                line if line.starts_with("RCPT") && !self.mail => 503,
                "DATA" if !self.rcpt => 503,
                "DATA" => 354,
                "NONSENSE" => 500,
                _ => 250,
            };
            match line {
                "EHLO c" => *self = Model { hello: true, ..Model::default() },
                "RSET" | "DATA" if line == "RSET" || code == 354 => {
                    *self = Model { hello: self.hello, ..Model::default() };
                }
                "MAIL FROM:<a@b>" if code == 250 => self.mail = true,
                "RCPT TO:<bob@host.example>" if code == 250 => self.rcpt = true,
                _ => {}
            }
            code
        }
    }

    #[test]
    fn any_order_of_commands_is_answered_as_flags_would_answer_it() {
        fn holds(order: Vec<u8>) -> bool {
            let lines = [
                "EHLO c",
                "EHLO",
                "MAIL FROM:<a@b>",
                "RCPT TO:<bob@host.example>",
                "RCPT TO:<dead@host.example>",
                "DATA",
                "RSET",
                "NOOP",
                "NONSENSE",
            ];
            let (mut session, mut model) = (session(), Model::default());
            order.iter().all(|&number| {
                let line = lines[usize::from(number) % lines.len()];
                let code = session.line(line.as_bytes()).reply.code();
                session.refusals = 0;
                code == model.code(line)
            })
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>) -> bool);
    }

    /// A session of `role`, encrypted, of a server with the user bob, password secret.
    fn private(role: Role) -> Session {
        let mut site = Site::new("host.example", "host.example", &[], Some(&["bob".to_owned()]));
        site.has_tls = true;
        let secret = Secret::parse("{PLAIN}secret").unwrap();
        site.users = Some(Users::new(vec![("bob".to_owned(), secret)], [7; 32]));
        let nonce = || "nonce".to_owned();
        Session::new(Arc::new(site), role, Ipv4Addr::LOCALHOST.into(), nonce).encrypted()
    }

    const RIGHT: &str = "AUTH PLAIN AGJvYgBzZWNyZXQ=";
    const WRONG: &str = "AUTH PLAIN AGJvYgB3cm9uZw==";

    #[test]
    fn a_failed_login_waits_and_the_third_closes() {
        let mut session = private(Role::Submission);
        session.line(b"EHLO c");
        for (code, next) in
            [(535, Next::Command), (535, Next::Command), (421, Next::Close(Farewell::FailedLogins))]
        {
            let step = session.line(WRONG.as_bytes());
            assert_eq!((step.reply.code(), step.next), (code, next));
            assert_eq!(step.pause, FAILED_LOGIN_PAUSE);
        }
        assert_eq!(session.failed_logins(), 3);
    }

    #[test]
    fn a_blocked_address_is_told_at_once_and_its_password_is_not_looked_at() {
        let mut session = private(Role::Smtp);
        session.line(b"EHLO c");
        session.set_blocked(true);
        let step = session.line(RIGHT.as_bytes());
        assert_eq!((step.reply.code(), step.pause), (454, Duration::ZERO));
        session.set_blocked(false);
        assert_eq!(session.line(RIGHT.as_bytes()).reply.code(), 235);
    }

    #[test]
    fn encryption_forgets_what_was_said_but_not_what_was_done_wrong() {
        let mut session = private(Role::Smtp);
        codes(&mut session, &["EHLO c", WRONG, "NONSENSE", RIGHT]);
        let session = session.encrypted();
        assert_eq!((session.state(), session.client_name()), (&State::Connected, ""));
        assert_eq!(
            (session.user.as_deref(), session.failed_logins, session.refusals),
            (None, 1, 2)
        );
    }

    #[test]
    fn nothing_that_may_be_a_password_is_shown() {
        let mut session = private(Role::Smtp);
        session.line(b"EHLO c");
        assert_eq!(session.shown(RIGHT.as_bytes()), "AUTH PLAIN <16 octets>");
        assert_eq!(session.shown(b"AUTHPLAIN secret"), "<16 octets>");
        assert_eq!(session.shown(b"secret"), "<6 octets>");
        assert_eq!(session.shown(b"NOOP secret"), "NOOP");
        assert_eq!(
            session.shown(b"MAIL FROM:<a@b> AUTH=secret SIZE=1"),
            "MAIL FROM:<a@b> (and parameters)"
        );
        session.line(b"AUTH LOGIN");
        assert_eq!(session.shown(b"c2VjcmV0"), "<8 octets>");
        assert_eq!(session.shown(b"*"), "*");
        session.line(b"!");
        // The exchange is broken, and the client may not have noticed.
        assert_eq!(session.shown(b"c2VjcmV0"), "<8 octets>");
        assert_eq!(session.shown(b"NOOP"), "NOOP");
        session.line(RIGHT.as_bytes());
        assert_eq!(session.shown(b"secret"), "<6 octets>");
    }
}
