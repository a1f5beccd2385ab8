//! One transaction: MAIL, RCPT, DATA, the message, the final dot.
//!
//! In: a [`Client`] on which MAIL can be sent, a letter, its recipients. Out: what
//! became of each recipient. The letter is delivered to those who were accepted when
//! the final dot has its 2yz, and not before.
//!
//! Not done here: a letter that needs what the next hop does not offer is returned; it
//! is not made fit, as some servers do with quoted-printable.
//!
//! Book: docs/13-the-client-side.md.

use std::fmt::Display;
use std::io::{ErrorKind, Read};

use crate::relay::client::{BODY, CLOSING, Client, DOT};
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::answer::Answer;
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::reply::{Kind, Reply};
use crate::wire::body::Stuffer;

/// Most commands in one write. Their replies fit into the buffers of both
/// systems, so the server never waits for us to read while we wait for it to
/// read (RFC 2920 section 3.1).
const BATCH: usize = 100;
/// How much of a message is read in one go.
const READ_BLOCK: usize = 16 * 1024;
/// How much of a message is sent in one go, each within its deadline.
const SEND_BLOCK: usize = 64 * 1024;

/// 452 to RCPT: this transaction is full. Old servers say 552 instead, which has to be
/// read as 452 (RFC 5321 section 4.5.3.1.10).
const FULL: [u16; 2] = [452, 552];
/// X.5.3, too many recipients (RFC 3463 section 3.6).
const TOO_MANY: (u16, u16) = (5, 3);
/// X.3.1, mail system full (section 3.4).
const SYSTEM_FULL: (u16, u16) = (3, 1);

/// What MAIL has to say about a letter.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where errors are reported to.
    pub from: &'a ReversePath,
    /// In octets as sent: line ends are two, added dots do not count
    /// (RFC 1870 section 5).
    pub size: u64,
    /// Whether any octet is above 127 (RFC 6152).
    pub is_8bit: bool,
    /// Whether an octet of the header is above 127 (RFC 6531 section 3.4), wherever
    /// that is: a text of 8 bits under a header in ASCII needs less. Addresses are
    /// looked at here.
    pub needs_smtputf8: bool,
    /// What the sender wants to be told. It is passed on as it came where the next hop
    /// offers DSN, and else left out (RFC 3461 section 5.2).
    pub dsn: &'a MailDsn,
}

/// One recipient: what RCPT has to say.
#[derive(Debug, Clone, Copy)]
pub struct To<'a> {
    /// Who.
    pub mailbox: &'a Mailbox,
    /// What the sender wants to be told of it; like that of the letter.
    pub dsn: &'a RcptDsn,
}

/// What became of one recipient so far.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Not asked yet.
    Open,
    /// RCPT was granted: it gets what the message gets.
    Accepted,
    /// The transaction was full, as this says. It fits into another one, if somebody
    /// was accepted in this one.
    Full(Answer),
    /// Nothing more can happen to it.
    Ended(Answer),
}

/// A command, and whose fate its reply decides; MAIL decides that of all.
type Command<'a> = (String, Option<&'a mut Fate>);

impl Client {
    /// Sends one letter, and gives one result for each recipient, in order.
    /// `None` is for those who did not fit: call again for them, on the same
    /// connection and with the message from its start. At least one of the
    /// others was decided then, so this comes to an end.
    ///
    /// `message` gives file form: lines end with LF. If it fails the letter is
    /// not sent to anybody.
    pub fn deliver(
        &mut self,
        letter: &Outgoing,
        recipients: &[To],
        message: &mut dyn Read,
    ) -> Vec<Option<Answer>> {
        let mut fates: Vec<Fate> = recipients.iter().map(|to| self.first_look(to)).collect();
        let end = self.transaction(letter, recipients, &mut fates, message);
        let end = end.unwrap_or_else(|why| why);
        let fits_another = self.is_open && fates.contains(&Fate::Accepted);
        let result = |fate| match fate {
            Fate::Full(_) if fits_another => None,
            Fate::Full(answer) | Fate::Ended(answer) => Some(answer),
            Fate::Accepted | Fate::Open => Some(end.clone()),
        };
        fates.into_iter().map(result).collect()
    }

    /// What is known of a recipient before anything is sent.
    fn first_look(&self, to: &To) -> Fate {
        if to.mailbox.needs_smtputf8() && !self.extensions.has("SMTPUTF8") {
            return Fate::Ended(self.no_smtputf8());
        }
        Fate::Open
    }

    /// One transaction. Gives the answer for all who are `Open` or `Accepted` by then:
    /// that of the message, or why there was none.
    fn transaction(
        &mut self,
        letter: &Outgoing,
        recipients: &[To],
        fates: &mut [Fate],
        message: &mut dyn Read,
    ) -> Result<Answer, Answer> {
        if !self.is_open {
            return Err(Answer::later((4, 2), format!("{}: the connection is closed", self.hop)));
        }
        let mut needs_smtputf8 = letter.needs_smtputf8 || letter.from.needs_smtputf8();
        let mut commands = Vec::new();
        for (to, fate) in recipients.iter().zip(&mut *fates) {
            if *fate == Fate::Open {
                needs_smtputf8 |= to.mailbox.needs_smtputf8();
                let dsn = self.offered_dsn(to.dsn);
                commands.push((format!("RCPT TO:<{}>{dsn}\r\n", to.mailbox), Some(fate)));
            }
        }
        if commands.is_empty() {
            return Err(self.nobody());
        }
        let parameters = self.parameters(letter, needs_smtputf8)?;
        commands.insert(0, (format!("MAIL FROM:{}{parameters}\r\n", letter.from), None));
        self.reset()?;
        self.envelope(commands)?;
        if !fates.contains(&Fate::Accepted) {
            return Err(self.nobody());
        }
        self.data(message)
    }

    /// For a transaction that has no recipient left. So nobody gets this.
    fn nobody(&self) -> Answer {
        Answer::later((5, 0), format!("{}: no recipient was accepted", self.hop))
    }

    /// What stands after the reverse-path, in the extensions that are offered;
    /// or why this letter cannot be sent through them.
    fn parameters(&self, letter: &Outgoing, needs_smtputf8: bool) -> Result<String, Answer> {
        let mut parameters = String::new();
        if let Some(limit) = self.extensions.size_limit() {
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
        Ok(parameters + &self.offered_dsn(letter.dsn))
    }

    /// The parameters of DSN, where it is offered.
    fn offered_dsn(&self, parameters: &impl Display) -> String {
        if self.has_dsn() { parameters.to_string() } else { String::new() }
    }

    fn no_smtputf8(&self) -> Answer {
        let why = format!("{} has no SMTPUTF8, and an address or header needs it", self.hop);
        Answer::never((6, 7), why)
    }

    /// Ends a transaction that came to nothing.
    fn reset(&mut self) -> Result<(), Answer> {
        if self.in_transaction {
            let reply = self.ask("RSET", "RSET")?;
            if reply.kind() != Kind::Done {
                return Err(self.confused("RSET", &reply));
            }
        }
        Ok(())
    }

    /// Sends MAIL and the RCPTs, and notes what each recipient was told. With
    /// PIPELINING many go in one write; without it one (RFC 2920).
    fn envelope(&mut self, mut commands: Vec<Command>) -> Result<(), Answer> {
        self.in_transaction = true;
        let size = if self.extensions.has("PIPELINING") { BATCH } else { 1 };
        for batch in commands.chunks_mut(size) {
            let text: String = batch.iter().map(|(command, _)| command.as_str()).collect();
            self.send(if text.starts_with("MAIL") { "MAIL" } else { "RCPT" }, text.as_bytes())?;
            self.answers_to(batch)?;
        }
        Ok(())
    }

    /// Reads the replies to one batch. After a refused MAIL no recipient counts, but
    /// each has its reply.
    fn answers_to(&mut self, batch: &mut [Command]) -> Result<(), Answer> {
        let mut mail = Ok(());
        for (_, fate) in batch {
            let step = if fate.is_none() { "MAIL" } else { "RCPT" };
            let reply = match self.reply(step) {
                Ok(reply) => reply,
                // What was said to MAIL counts more than that nothing follows.
                Err(lost) => return mail.and(Err(lost)),
            };
            match fate {
                None => mail = self.wants(Kind::Done, step, &reply),
                Some(_) if mail.is_err() => {}
                Some(fate) => **fate = self.told(&reply),
            }
            if !self.is_open {
                return mail.and_then(|()| Err(self.not_now(step, &reply)));
            }
        }
        mail
    }

    /// What a reply to RCPT means for its recipient.
    fn told(&mut self, reply: &Reply) -> Fate {
        self.was_heard |= reply.code() != CLOSING;
        match reply.kind() {
            Kind::Done => Fate::Accepted,
            Kind::GoOn => Fate::Ended(self.confused("RCPT", reply)),
            Kind::Later | Kind::Never if is_full(reply) => Fate::Full(self.not_now("RCPT", reply)),
            Kind::Later | Kind::Never => Fate::Ended(Answer::of(reply, &self.hop)),
        }
    }

    /// DATA, the message, the final dot, and the reply that decides.
    fn data(&mut self, message: &mut dyn Read) -> Result<Answer, Answer> {
        let reply = self.ask("DATA", "DATA")?;
        self.wants(Kind::GoOn, "DATA", &reply)?;
        self.message(message)?;
        let reply = self.reply(DOT)?;
        self.in_transaction = false;
        self.wants(Kind::Done, DOT, &reply)?;
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
                return self.send(BODY, &wire);
            }
            stuffer.push(block.get(..count).unwrap_or_default(), &mut wire);
            if wire.len() >= SEND_BLOCK {
                self.send(BODY, &wire)?;
                wire.clear();
            }
        }
    }
}

/// Whether a refusal of RCPT is about this transaction, which has no room for one more
/// recipient, and not about the recipient. An enhanced code that names something else
/// tells: 452 4.2.2 and 552 5.2.2 are a mailbox that is full, 552 5.3.4 a letter that
/// is too big. One that names nothing (X.0.0, X.3.0, X.5.0) leaves it at the three digits.
fn is_full(reply: &Reply) -> bool {
    let is_full = FULL.contains(&reply.code());
    match reply.enhanced().map(|status| (status.subject, status.detail)) {
        None | Some((0 | 3 | 5, 0) | SYSTEM_FULL) => is_full,
        Some(TOO_MANY) => true,
        Some(_) => false,
    }
}
