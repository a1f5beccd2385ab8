//! The order of commands in one SMTP session (RFC 5321 section 4.1.4).
//!
//! In: one line from the client, or what became of a message. Out: one
//! [`Step`]: the reply, and what the connection does next. This folder opens no
//! socket, reads no clock and touches no disk; `server/connection.rs` does that
//! and tells what it sees there ([`Outside`]).
//!
//! Which command is right in which state is in the one `match` of
//! `Session::command`. Facts that hold across states (the client's name, whether all
//! is encrypted) are fields of [`Session`], not states. Beside this file: what goes in
//! and out ([`step`]), what MAIL and RCPT do ([`transaction`]), AUTH ([`login`]), when
//! it is enough ([`patience`]), what comes of that ([`judge`]), and what a log may show
//! ([`shown`]).
//!
//! Book: docs/05-state-machine.md.

pub mod judge;
pub mod login;
pub mod patience;
pub mod shown;
pub mod step;
pub mod transaction;

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use crate::smtp::auth::exchange::ServerExchange;
use crate::smtp::command::{AUTH_LINE_LIMIT, COMMAND_LINE_LIMIT, Command, after_verb, ends_group};
use crate::smtp::reply::{self, Kind, Reply};
use crate::smtp::session::patience::{Patience, is_errand};
use crate::smtp::session::shown::{is_auth, is_bdat};
use crate::smtp::site::Site;

pub use crate::smtp::session::step::{
    BadLine, Distrust, Farewell, Next, Note, Outcome, Outside, Part, Step,
};
use crate::smtp::session::transaction::refuse_chunk;
pub use crate::smtp::session::transaction::{Envelope, Recipient};

/// The largest number that LIMITS can name: it has six digits at most (RFC 9422).
const LARGEST_LIMIT: usize = 999_999;

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
    /// A part of the message has come with BDAT, and the last one has not.
    Chunks {
        /// Who the message is for.
        envelope: Envelope,
        /// How much of it is here, in octets.
        received: u64,
    },
    /// Inside an AUTH exchange: what comes is no command, whatever it says.
    Auth(ServerExchange),
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

/// One client's session, from the greeting to the goodbye.
#[derive(Debug)]
pub struct Session {
    site: Arc<Site>,
    role: Role,
    /// Our own address, as the client sees it.
    connected_to: IpAddr,
    /// Gives a text that nobody can guess, another one each time.
    nonce: fn() -> String,
    state: State,
    /// What the client called itself in EHLO or HELO; empty before that.
    client_name: Vec<u8>,
    /// Whether it said EHLO, and not HELO.
    is_extended: bool,
    /// Whether all that is said is encrypted.
    is_tls: bool,
    /// Who logged in.
    user: Option<String>,
    /// The client has said AUTH, or a line that we did not read and that may have been one:
    /// from here on any line may be a password.
    may_see_password: bool,
    outside: Outside,
    patience: Patience,
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
            connected_to,
            nonce,
            state: State::Connected,
            client_name: Vec::new(),
            is_extended: false,
            is_tls: role == Role::Submissions,
            user: None,
            may_see_password: false,
            outside: Outside::default(),
            patience: Patience::default(),
        }
    }

    /// The session after the TLS handshake. It begins anew: whatever was said in
    /// the clear may have been said by somebody in between (RFC 3207 section 4.2).
    /// What the client did wrong before is not forgotten.
    pub fn after_handshake(self) -> Session {
        Session {
            is_tls: true,
            patience: self.patience,
            ..Session::new(self.site, self.role, self.connected_to, self.nonce)
        }
    }

    /// Tells the session what it cannot see by itself. Until it is told, nothing but the
    /// clock of a token stands in the way.
    pub fn set_outside(&mut self, outside: Outside) {
        self.outside = outside;
    }

    /// The longest line to read now, CR LF included.
    pub fn line_limit(&self) -> usize {
        match &self.state {
            State::Auth(_) => AUTH_LINE_LIMIT,
            State::Ready if self.site.users().is_some() => AUTH_LINE_LIMIT,
            _ => COMMAND_LINE_LIMIT,
        }
    }

    /// The greeting: the server speaks first.
    pub fn greet(&self) -> Step {
        Step::new(reply::greeting(&self.site.hostname), Next::Command)
    }

    /// Answers one line, without its CR LF.
    pub fn line(&mut self, line: &[u8]) -> Step {
        // Whatever is said from here on may hold a password, also what a client
        // sends without waiting for our answer.
        self.may_see_password |= is_auth(line);
        // `line_limit` lets longer ones in for AUTH alone.
        let is_too_long = line.len() + "\r\n".len() > COMMAND_LINE_LIMIT && !is_auth(line);
        if is_too_long && !matches!(self.state, State::Auth(_)) {
            return self.bad_line(BadLine::too_long(line));
        }
        // Whoever goes by himself is not sent away.
        if after_verb(line, "QUIT").is_none()
            && let Some(step) = self.outlasted()
        {
            return step;
        }
        // `take` leaves `Connected` behind for the length of this call only.
        match mem::take(&mut self.state) {
            State::Auth(exchange) => {
                let (state, step) = self.continue_login(exchange, line);
                self.state = state;
                self.charge(step)
            }
            State::Closed => self.hang_up(reply::stopping(&self.site.hostname), Farewell::Quit),
            state => self.command_line(state, line),
        }
    }

    /// Answers a line that is a command, or should be one.
    fn command_line(&mut self, state: State, line: &[u8]) -> Step {
        let command = Command::parse(line);
        let is_errand = command.as_ref().is_ok_and(is_errand);
        let is_urgent = command.as_ref().map_or(true, ends_group);
        let (state, step) = match command {
            Ok(command) => self.command(state, command),
            // What follows may be a letter, and not a line of it may be run.
            Err(reply) if is_bdat(line) => close(reply, Farewell::UnknownChunk),
            Err(reply) => go(state, reply),
        };
        self.state = state;
        let step = self.judge(line, Step { is_urgent, ..step });
        if is_errand && let Some(enough) = self.patience.errand() {
            return self.end(enough, step);
        }
        step
    }

    /// Answers a line that is no text to parse. Nothing of it is run.
    pub fn bad_line(&mut self, why: BadLine) -> Step {
        if let Some(step) = self.outlasted() {
            return step;
        }
        let was_auth = matches!(self.state, State::Auth(_));
        if was_auth {
            self.state = State::Ready;
        }
        // It may have been an AUTH that we did not read.
        self.may_see_password = true;
        let reply = match why {
            BadLine::TooLong if !was_auth => reply::line_too_long(),
            BadLine::TooLong | BadLine::AuthTooLong => reply::auth_line_too_long(),
            // Inside an exchange it was no command.
            BadLine::Nul | BadLine::Bdat if was_auth => reply::bad_auth_response(),
            BadLine::Nul => reply::nul_in_command(),
            BadLine::Bdat => return self.hang_up(reply::bad_chunk(), Farewell::UnknownChunk),
            // Somebody may have wanted the rest to be taken for a command.
            BadLine::BareNewline => {
                return self.hang_up(reply::bare_newline(), Farewell::BareNewline);
            }
            BadLine::Tls => return self.hang_up(reply::not_tls(), Farewell::Tls),
        };
        // A client waits for it, as after a command that nobody knows.
        self.charge(Step { is_urgent: true, ..Step::new(reply, Next::Command) })
    }

    /// Answers a chunk after which more are to come. What was received before it and is
    /// kept for this message is still wanted.
    pub fn chunk_ended(&mut self, part: Part) -> Step {
        let Part { envelope, chunk, received } = part;
        self.state = State::Chunks { envelope, received };
        Step::new(reply::chunk_taken(chunk.size), Next::Command)
    }

    /// Answers a message: after its final dot or its last chunk, or where it came to nothing,
    /// such as at a bare CR or LF. The transaction is over, whatever the outcome.
    pub fn message_ended(&mut self, outcome: &Outcome) -> Step {
        let reply = match outcome {
            Outcome::Stored(id) => reply::stored(id),
            Outcome::TooBig => reply::too_big(self.site.max_size),
            Outcome::Loop => reply::mail_loop(),
            Outcome::NoRoom => reply::no_room(),
            Outcome::Failed => reply::local_fault(),
            Outcome::BareNewline => reply::bare_newline_in_message(),
            Outcome::Untrusted(Distrust::NoAuthor) => reply::no_author(),
            Outcome::Untrusted(Distrust::Dmarc) => reply::dmarc_fails(),
            Outcome::Untrusted(Distrust::Spf(why)) => reply::spf_fails(why.as_deref()),
            Outcome::Untrusted(Distrust::DmarcLater) => reply::dmarc_later(),
            Outcome::Untrusted(Distrust::SpfLater) => reply::spf_later(),
        };
        let enough = match reply.kind() {
            Kind::Done => {
                self.patience.accepted(self.outside.age);
                None
            }
            Kind::Never => self.patience.refused(),
            Kind::GoOn | Kind::Later => None,
        };
        match (outcome, enough) {
            // After DATA it is not known any more where the message ends, so nothing that
            // follows may be taken for a command. After a chunk it is, but one rule is enough:
            // whoever sends this is no mail program.
            (Outcome::BareNewline, _) => self.hang_up(reply, Farewell::Smuggling),
            // 421 does not take the place of this reply: the client would take it
            // for an invitation to send the same message again.
            (_, Some(enough)) => self.hang_up(reply, Farewell::Enough(enough)),
            (_, None) => Step::new(reply, Next::Command),
        }
    }

    /// What the port of this session is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What this server knows of itself, as it was when the session began.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Who logged in.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The state the session is in.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a part of a message is here, and the rest has to come.
    pub fn is_between_chunks(&self) -> bool {
        matches!(self.state, State::Chunks { .. })
    }

    /// What the client called itself.
    pub fn client_name(&self) -> &[u8] {
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
    /// has an answer. `Auth` and `Closed` do not get here: there a line is no command.
    /// Of several arms for one command in one state the first that fits answers, in
    /// the order syntax, sequence, policy; AUTH asks first whether it is offered.
    fn command(&mut self, state: State, command: Command) -> (State, Step) {
        match (state, command) {
            // EHLO comes first; later it ends a transaction, as RSET does (RFC 5321 section 4.1.4).
            (_, Command::Ehlo(name)) => go(State::Ready, self.hello(name, true)),
            (_, Command::Helo(name)) => go(State::Ready, self.hello(name, false)),

            // Where nobody can log in, AUTH is no parameter of MAIL (RFC 4954 section 5).
            (state, Command::Mail(mail)) if mail.auth && !self.knows_auth() => {
                go(state, reply::unknown_parameter("AUTH"))
            }
            // Submission is for users who have logged in (RFC 6409 section 4.3).
            (State::Ready, Command::Mail(_)) if self.must_log_in() => {
                go(State::Ready, reply::log_in_first())
            }
            // MAIL opens a transaction, behind EHLO and one at a time (section 4.1.4).
            (State::Ready, Command::Mail(mail)) => self.open_transaction(mail),
            (State::Connected, Command::Mail(_)) => {
                go(State::Connected, reply::bad_sequence("say EHLO first"))
            }
            (state, Command::Mail(_)) => {
                go(state, reply::bad_sequence("a transaction is open, RSET drops it"))
            }

            // RCPT adds one recipient; a refused one changes nothing (section 4.1.1.3).
            (State::Mail(envelope) | State::Rcpt(envelope), Command::Rcpt(rcpt)) => {
                self.add_recipient(envelope, &rcpt)
            }
            (state @ State::Chunks { .. }, Command::Rcpt(_)) => {
                go(state, reply::bad_sequence("the message has begun, RSET drops it"))
            }
            (state, Command::Rcpt(_)) => go(state, reply::bad_sequence("say MAIL first")),

            // DATA needs a recipient; after the message there is no transaction (section 4.1.1.4).
            (State::Rcpt(envelope), Command::Data) => ask_for_message(envelope),
            (State::Mail(envelope), Command::Data) => {
                go(State::Mail(envelope), reply::bad_sequence("no recipient was accepted"))
            }
            (state @ State::Chunks { .. }, Command::Data) => {
                go(state, reply::bad_sequence("the message comes with BDAT, RSET drops it"))
            }
            (state, Command::Data) => go(state, reply::bad_sequence("say MAIL and RCPT first")),

            // BDAT needs a recipient, too, and brings a part of the message. Whatever is
            // answered, its octets are read before that (RFC 3030 section 2), unless there
            // would be no end to them.
            (_, Command::Bdat(chunk)) if self.is_endless(chunk) => {
                close(reply::too_big(self.site.max_size), Farewell::HugeChunk)
            }
            (State::Rcpt(envelope), Command::Bdat(chunk)) => self.take_chunk(envelope, 0, chunk),
            (State::Chunks { envelope, received }, Command::Bdat(chunk)) => {
                self.take_chunk(envelope, received, chunk)
            }
            (state @ State::Mail(_), Command::Bdat(chunk)) => {
                refuse_chunk(state, chunk, reply::bad_sequence("no recipient was accepted"))
            }
            (state, Command::Bdat(chunk)) => {
                refuse_chunk(state, chunk, reply::bad_sequence("say MAIL and RCPT first"))
            }

            // RSET drops the transaction and keeps the client's name (section 4.1.1.5).
            (State::Mail(_) | State::Rcpt(_) | State::Chunks { .. }, Command::Rset) => {
                go(State::Ready, reply::ok())
            }
            (state, Command::Rset) => go(state, reply::ok()),

            // These change nothing, and are answered in every state (section 4.1.4).
            (state, Command::Noop) => go(state, reply::ok()),
            (state, Command::Help) => go(state, reply::help()),

            // These two tell nothing, and strangers on a submission port not even that.
            (state, Command::Vrfy | Command::Expn) if self.must_log_in() => {
                go(state, reply::log_in_first())
            }
            (state, Command::Vrfy) => go(state, reply::not_verified()),
            (state, Command::Expn) => go(state, reply::not_offered("EXPN")),

            // STARTTLS and AUTH belong between EHLO and MAIL, where they are offered; and
            // each is wanted once (RFC 3207 section 4, RFC 4954 section 4).
            (State::Ready, Command::StartTls) if !self.site.has_tls => {
                go(State::Ready, reply::not_offered("STARTTLS"))
            }
            (State::Ready, Command::StartTls) if self.is_tls => {
                go(State::Ready, reply::bad_sequence("TLS is on already"))
            }
            (State::Ready, Command::StartTls) => self.start_tls(),
            (State::Ready, Command::Auth { .. }) if !self.knows_auth() => {
                go(State::Ready, reply::not_offered("AUTH"))
            }
            (State::Ready, Command::Auth { .. }) if self.user.is_some() => {
                go(State::Ready, reply::bad_sequence("you have logged in already"))
            }
            (State::Ready, Command::Auth { mechanism, .. }) if self.known(&mechanism).is_none() => {
                go(State::Ready, reply::unknown_mechanism())
            }
            (State::Ready, Command::Auth { .. }) if !self.is_extended => {
                go(State::Ready, reply::bad_sequence("AUTH needs EHLO, not HELO"))
            }
            (State::Ready, Command::Auth { mechanism, initial }) => {
                self.authenticate(&mechanism, initial.as_deref())
            }
            (state, Command::StartTls | Command::Auth { .. }) => {
                go(state, reply::bad_sequence("only after EHLO and before MAIL"))
            }

            // QUIT is always granted (section 4.1.1.10).
            (_, Command::Quit) => close(reply::bye(&self.site.hostname), Farewell::Quit),

            // A browser can be made to send our commands inside an HTTP request,
            // so nothing after its first line may be read.
            (_, Command::Http) => close(reply::not_http(), Farewell::Http),
        }
    }

    /// Takes the client's name, and says ours.
    fn hello(&mut self, name: Vec<u8>, is_extended: bool) -> Reply {
        self.client_name = name;
        self.is_extended = is_extended;
        if is_extended {
            reply::extended_hello(&self.site.hostname, &self.client_name, self.extensions())
        } else {
            reply::hello(&self.site.hostname, &self.client_name)
        }
    }

    /// What EHLO announces: each keyword only because it works here and now.
    fn extensions(&self) -> Vec<String> {
        let mut extensions = vec![
            format!("SIZE {}", self.site.max_size),
            "PIPELINING".to_owned(),
            "8BITMIME".to_owned(),
            "DSN".to_owned(),
            "SMTPUTF8".to_owned(),
            "CHUNKING".to_owned(),
            // How many RCPTs one transaction may have (RFC 9422). We count destinations: an
            // alias may take the place of several, and a second address of a mailbox none.
            format!("LIMITS RCPTMAX={}", self.site.max_recipients.min(LARGEST_LIMIT)),
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

    fn start_tls(&self) -> (State, Step) {
        // Somebody in between may have put it there, to be run as if it had come
        // encrypted (CVE-2011-0411).
        if self.outside.has_more {
            return close(reply::input_behind_starttls(), Farewell::Injection);
        }
        (State::Ready, Step::new(reply::start_tls(), Next::StartTls))
    }

    /// Answers, and that is the end of the session, whatever state it was in.
    fn hang_up(&mut self, reply: Reply, why: Farewell) -> Step {
        let (state, step) = close(reply, why);
        self.state = state;
        step
    }
}

/// Answers, and waits for the next command in `state`.
fn go(state: State, reply: Reply) -> (State, Step) {
    (state, Step::new(reply, Next::Command))
}

/// Answers, and that is the end of the session.
fn close(reply: Reply, why: Farewell) -> (State, Step) {
    (State::Closed, Step::new(reply, Next::Close(why)))
}

/// Asks for the message. With it the envelope leaves the session.
fn ask_for_message(envelope: Envelope) -> (State, Step) {
    (State::Ready, Step::new(reply::send_message(), Next::Message(envelope)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::secret::Secret;
    use crate::smtp::auth::users::Users;
    use std::net::Ipv4Addr;

    /// A session of a server with two mailboxes, which takes one recipient at a time.
    pub fn session() -> Session {
        let names = ["bob".to_owned(), "cem".to_owned()];
        let mut site = Site::new("host.example", "host.example", &[], Some(&names));
        site.max_recipients = 1;
        Session::new(Arc::new(site), Role::Smtp, Ipv4Addr::LOCALHOST.into(), || "nonce".to_owned())
    }

    /// The code of the answer to each line, in order.
    pub fn codes(session: &mut Session, lines: &[&str]) -> Vec<u16> {
        lines.iter().map(|line| session.line(line.as_bytes()).code()).collect()
    }

    pub const TRANSACTION: [&str; 3] = ["EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<bob@host.example>"];

    #[test]
    fn a_transaction_ends_with_the_envelope_in_the_hands_of_the_connection() {
        let mut session = session();
        assert_eq!(codes(&mut session, &TRANSACTION), [250, 250, 250]);
        let step = session.line(b"DATA");
        assert_eq!(step.code(), 354);
        let Next::Message(envelope) = step.next else { panic!("{step:?}") };
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
            let step = session().message_ended(&outcome);
            assert_eq!(step.code(), code, "{outcome:?}");
            assert_eq!(step.next != Next::Command, closes, "{outcome:?}");
        }
    }

    #[test]
    fn a_reply_after_which_a_client_waits_is_not_kept_back() {
        let mut session = session();
        for (line, is_urgent) in [
            ("WHAT", true),
            ("EHLO c", true),
            ("NOOP", true),
            ("VRFY bob", true),
            ("EXPN list", true),
            ("MAIL FROM:<>", false),
            ("RSET", false),
            ("MAIL FROM:<>", false),
            ("RCPT TO:<bob@host.example>", false),
            ("RCPT TO:<eve@else.example>", false),
            ("DATA", true),
        ] {
            assert_eq!(session.line(line.as_bytes()).is_urgent, is_urgent, "{line}");
        }
        for bad in [BadLine::TooLong, BadLine::Nul] {
            assert!(session.bad_line(bad).is_urgent, "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_run_after_the_goodbye() {
        for last in ["QUIT", "GET / HTTP/1.1"] {
            let mut session = session();
            session.line(last.as_bytes());
            let step = session.line(b"NOOP");
            assert_eq!((step.code(), session.state()), (421, &State::Closed), "{last}");
            assert!(matches!(step.next, Next::Close(_)));
        }
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
        chunks: bool,
    }

    impl Model {
        fn code(&mut self, line: &str) -> u16 {
            let code = match line {
                "EHLO" => 501,
                "MAIL FROM:<a@b>" if !self.hello || self.mail => 503,
                "RCPT TO:<dead@host.example>" if self.mail && !self.chunks => 550,
                line if line.starts_with("RCPT") && (!self.mail || self.chunks) => 503,
                "DATA" if !self.rcpt || self.chunks => 503,
                "DATA" => 354,
                "BDAT 5" | "BDAT 0 LAST" if !self.rcpt => 503,
                "NONSENSE" => 500,
                _ => 250,
            };
            match line {
                "EHLO c" => *self = Model { hello: true, ..Model::default() },
                "RSET" | "DATA" | "BDAT 0 LAST" if line == "RSET" || code < 500 => {
                    *self = Model { hello: self.hello, ..Model::default() };
                }
                "MAIL FROM:<a@b>" if code == 250 => self.mail = true,
                "RCPT TO:<bob@host.example>" if code == 250 => self.rcpt = true,
                "BDAT 5" if code == 250 => self.chunks = true,
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
                "BDAT 5",
                "BDAT 0 LAST",
                "RSET",
                "NOOP",
                "NONSENSE",
            ];
            let (mut session, mut model) = (session(), Model::default());
            order.iter().all(|&number| {
                let line = lines[usize::from(number) % lines.len()];
                let mut step = session.line(line.as_bytes());
                if let Next::Chunk(part) = step.next {
                    step = if part.chunk.is_last {
                        session.message_ended(&Outcome::Stored("M1".to_owned()))
                    } else {
                        session.chunk_ended(part)
                    };
                }
                session.patience = Patience::default();
                step.code() == model.code(line)
            })
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>) -> bool);
    }

    /// A session of `role`, encrypted, of a server with the user bob, password secret.
    pub fn private(role: Role) -> Session {
        let mut site = Site::new("host.example", "host.example", &[], Some(&["bob".to_owned()]));
        site.has_tls = true;
        let secret = Secret::parse("{PLAIN}secret").unwrap();
        site.set_users(Users::new(vec![("bob".to_owned(), secret)], [7; 32]));
        let nonce = || "nonce".to_owned();
        Session::new(Arc::new(site), role, Ipv4Addr::LOCALHOST.into(), nonce).after_handshake()
    }

    pub const RIGHT: &str = "AUTH PLAIN AGJvYgBzZWNyZXQ=";
    pub const WRONG: &str = "AUTH PLAIN AGJvYgB3cm9uZw==";

    #[test]
    fn encryption_forgets_what_was_said_but_not_what_was_done_wrong() {
        let mut session = private(Role::Smtp);
        codes(&mut session, &["EHLO c", WRONG, "NONSENSE", RIGHT]);
        let before = session.patience.clone();
        assert_ne!(before, Patience::default());
        let session = session.after_handshake();
        assert_eq!((session.state(), session.client_name()), (&State::Connected, &b""[..]));
        assert_eq!((session.user(), &session.patience), (None, &before));
    }

    #[test]
    fn a_bare_newline_in_a_command_ends_the_session_also_inside_a_login() {
        for lines in [&["EHLO c"][..], &["EHLO c", "AUTH PLAIN"]] {
            let mut session = private(Role::Smtp);
            codes(&mut session, lines);
            let step = session.bad_line(BadLine::BareNewline);
            assert_eq!(step.code(), 500);
            assert_eq!(step.next, Next::Close(Farewell::BareNewline));
            assert_eq!(session.state(), &State::Closed);
        }
    }

    #[test]
    fn inside_a_login_a_bad_line_ends_that_alone_whatever_it_begins_with() {
        for why in [BadLine::Bdat, BadLine::TooLong, BadLine::Nul] {
            let mut session = private(Role::Smtp);
            codes(&mut session, &["EHLO c", "AUTH PLAIN"]);
            let step = session.bad_line(why);
            assert_eq!((step.kind(), step.next), (Some(Kind::Never), Next::Command), "{why:?}");
            assert_eq!(session.state(), &State::Ready);
        }
    }

    #[test]
    fn with_anything_after_starttls_there_is_no_handshake() {
        let mut site = Site::new("host.example", "host.example", &[], None);
        site.has_tls = true;
        let nonce = || "nonce".to_owned();
        let mut session =
            Session::new(Arc::new(site), Role::Smtp, Ipv4Addr::LOCALHOST.into(), nonce);
        session.line(b"EHLO c");
        session.set_outside(Outside { has_more: true, ..Outside::default() });
        let step = session.line(b"STARTTLS");
        assert_eq!((step.code(), step.next), (554, Next::Close(Farewell::Injection)));
    }

    /// The order of checks. What a line says is looked at before its moment, the
    /// moment before policy, and in its place what is offered at all comes first.
    #[test]
    fn syntax_is_told_before_sequence_and_sequence_before_policy() {
        let mut plain = session();
        let lines = ["MAIL FROM:<> AUTH=<>", "MAIL FROM:<>", "AUTH PLAIN", "STARTTLS"];
        assert_eq!(codes(&mut plain, &lines), [555, 503, 503, 503]);
        let lines = ["HELO c", "AUTH PLAIN", "STARTTLS", "MAIL FROM:<> AUTH=<>"];
        assert_eq!(codes(&mut plain, &lines), [250, 502, 502, 555]);

        let mut private = private(Role::Submission);
        let lines = ["AUTH NTLM", "RCPT TO:<eve@else.example>", "STARTTLS x", "DATA"];
        assert_eq!(codes(&mut private, &lines), [503, 503, 501, 503]);
        let lines = ["HELO c", "AUTH NTLM", "AUTH PLAIN", "STARTTLS", "MAIL FROM:<a@b>", "VRFY x"];
        assert_eq!(codes(&mut private, &lines), [250, 504, 503, 503, 530, 530]);
    }
}
