//! What goes into a session and what comes out of it.
//!
//! In: beside the lines of the client a [`BadLine`], the [`Outcome`] of a message, and
//! what the connection sees [`Outside`]. Out: a [`Step`]. These are the words in which
//! the session and whoever does its work talk to each other.
//!
//! Book: docs/05-state-machine.md.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::smtp::auth::jwt::Refusal;
use crate::smtp::command::Chunk;
use crate::smtp::reply::{Kind, Reply};
use crate::smtp::session::patience::Enough;
use crate::smtp::session::shown::{is_auth, is_bdat};
use crate::smtp::session::transaction::Envelope;

/// The answer to one line, and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// How many octets to read and forget before anything else: a chunk that is not
    /// wanted.
    pub skip: u64,
    /// How long to wait before the reply.
    pub pause: Duration,
    /// Whether the reply goes out at once, even if more commands have arrived.
    pub is_urgent: bool,
    /// What to tell the client. `None` before [`Next::Chunk`]: a BDAT is answered after its
    /// chunk, and with what became of it.
    pub reply: Option<Reply>,
    /// What the connection does once the reply is written.
    pub next: Next,
    /// What the log should know of it.
    pub note: Option<Note>,
}

/// What the connection does after a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Read a command line.
    Command,
    /// Receive a message for this envelope, then say `Session::message_ended`.
    Message(Envelope),
    /// Receive a chunk, then say `Session::chunk_ended`, or `Session::message_ended` if
    /// the message ended with it.
    Chunk(Part),
    /// Encrypt the connection, then say `Session::after_handshake`.
    StartTls,
    /// Close the connection.
    Close(Farewell),
}

/// A part of a message that comes in chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Who the message is for.
    pub envelope: Envelope,
    /// What comes now.
    pub chunk: Chunk,
    /// How large the message is with it, in octets.
    pub received: u64,
}

/// What the log should know of a step; a client's text in it is harmless already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// MAIL or RCPT was refused: what was said, and the reply.
    Refused(String),
    /// The same, because this user has had its recipients elsewhere for this hour.
    OverAllowance(String),
    /// So many recipients elsewhere were accepted from a user.
    Elsewhere(usize),
    /// This user has logged in.
    LoggedIn(String),
    /// A login failed. With a token there is more to tell than that it was wrong.
    LoginFailed(Option<Refusal>),
}

/// Why the session closed the connection, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// The client said QUIT.
    Quit,
    /// The session has had enough of it.
    Enough(Enough),
    /// Something came right after STARTTLS in the clear.
    Injection,
    /// A bare CR or LF inside a command.
    BareNewline,
    /// A bare CR or LF inside a message.
    Smuggling,
    /// A BDAT that does not say how much follows.
    UnknownChunk,
    /// A chunk that is not worth reading to its end.
    HugeChunk,
    /// The client speaks HTTP.
    Http,
    /// The client speaks TLS where clear text is expected.
    Tls,
}

impl Step {
    /// An answer at once, of which the log need not know.
    pub fn new(reply: Reply, next: Next) -> Step {
        let (skip, pause, is_urgent) = (0, Duration::ZERO, false);
        Step { skip, pause, is_urgent, reply: Some(reply), next, note: None }
    }

    /// What the first digit of the reply says.
    pub fn kind(&self) -> Option<Kind> {
        self.reply.as_ref().map(Reply::kind)
    }

    /// The three digits, where a test is sure that there is a reply.
    #[cfg(test)]
    pub fn code(&self) -> u16 {
        self.reply.as_ref().expect("only a chunk that is wanted has none yet").code()
    }
}

/// Why a line never reached the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLine {
    /// Longer than the limit; the rest was skipped.
    TooLong,
    /// The same, and it began with AUTH (RFC 4954 section 4 has a code for that).
    AuthTooLong,
    /// It ends in LF alone, or a CR stands alone in it. Where the next command begins
    /// is not known any more.
    BareNewline,
    /// It holds a NUL.
    Nul,
    /// It is too long or holds a NUL, and began with BDAT: how much of a message follows is not
    /// known.
    Bdat,
    /// It is the start of a TLS handshake.
    Tls,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// On disk, for every recipient, under this id.
    Stored(String),
    /// Larger than the limit.
    TooBig,
    /// A bare CR or LF inside it; after DATA its end is not known.
    BareNewline,
    /// Too many `Received` fields, or it has passed all its aliases already.
    Loop,
    /// The disk is full.
    NoRoom,
    /// Another fault of ours, which the log tells.
    Failed,
    /// Nobody knows who really wrote it, and we were told to ask.
    Untrusted(Distrust),
}

/// Why a letter of a stranger is refused (RFC 7372 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// Its author cannot be asked about: `From` is missing, has no domain or too many, or is
    /// behind more header than is read.
    NoAuthor,
    /// DMARC fails, and the owner of the author's domain says reject.
    Dmarc,
    /// SPF fails; perhaps with what the owner says to those who may not.
    Spf(Option<String>),
    /// DMARC has no answer today.
    DmarcLater,
    /// SPF has none.
    SpfLater,
}

/// What the session cannot see by itself. The connection tells it before each line and
/// after each message; for the greeting nothing of it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outside {
    /// Octets that can still be stored. It is asked for at MAIL, in `Ready`.
    pub room: u64,
    /// Whether too many logins failed from this client's address lately. It is asked
    /// for in `Ready` and `Auth`.
    pub is_blocked: bool,
    /// How many more recipients elsewhere this user may have now. It is asked for in
    /// `Mail` and `Rcpt`, where somebody has logged in.
    pub elsewhere_left: usize,
    /// Whether more has arrived than the line that comes now.
    pub has_more: bool,
    /// How long the session has lasted.
    pub age: Duration,
    /// What the clock says, in seconds from 1970.
    pub now: i64,
}

/// Nothing stands in the way: room for everything and everybody, and time. Only tokens have
/// all expired, until somebody tells what the clock says.
impl Default for Outside {
    fn default() -> Outside {
        Outside {
            room: u64::MAX,
            is_blocked: false,
            elsewhere_left: usize::MAX,
            has_more: false,
            age: Duration::ZERO,
            now: i64::MAX,
        }
    }
}

impl BadLine {
    /// A line that is too long, of which this is the start.
    pub fn too_long(start: &[u8]) -> BadLine {
        if is_auth(start) {
            BadLine::AuthTooLong
        } else if is_bdat(start) {
            BadLine::Bdat
        } else {
            BadLine::TooLong
        }
    }

    /// This line, which holds a NUL.
    pub fn nul(line: &[u8]) -> BadLine {
        if is_bdat(line) { BadLine::Bdat } else { BadLine::Nul }
    }
}

impl Display for BadLine {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            BadLine::TooLong | BadLine::AuthTooLong => "a line that is too long",
            BadLine::BareNewline => "a line with a bare CR or LF",
            BadLine::Nul => "a line with a NUL",
            BadLine::Bdat => "a BDAT that is too long or has a NUL",
            BadLine::Tls => "the beginning of a TLS handshake",
        })
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Note::Refused(what) | Note::OverAllowance(what) => write!(f, "refused {what}"),
            Note::Elsewhere(count) => write!(f, "{count} more recipients elsewhere"),
            Note::LoggedIn(user) => write!(f, "{user} logged in"),
            Note::LoginFailed(None) => f.write_str("a login failed"),
            Note::LoginFailed(Some(why)) => write!(f, "a login failed: {why}"),
        }
    }
}

impl Display for Farewell {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Farewell::Enough(enough) => return enough.fmt(f),
            Farewell::Quit => "QUIT",
            Farewell::Injection => "commands right after STARTTLS, perhaps somebody in between",
            Farewell::BareNewline => "bare CR or LF in a command",
            Farewell::Smuggling => "bare CR or LF in a message, perhaps an attempt to smuggle one",
            Farewell::UnknownChunk => "a BDAT of another form, and nobody knows what follows it",
            Farewell::HugeChunk => "a chunk that would never end",
            Farewell::Http => "HTTP on the SMTP port, probably a browser or a scanner",
            Farewell::Tls => {
                "TLS on the clear port, the client should use STARTTLS or another port"
            }
        })
    }
}
