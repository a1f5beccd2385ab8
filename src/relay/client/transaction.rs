//! One transaction: MAIL, RCPT, and the message after DATA or in chunks.
//!
//! In: a [`Client`] on which MAIL can be sent, a letter, its recipients. Out: what
//! became of each recipient. The letter is delivered to those who were accepted when
//! the final dot, or the last chunk, has its 2yz, and not before.
//!
//! DATA or BDAT (RFC 3030)? A long letter goes in chunks where that is offered: nothing in
//! it has to be stuffed, and a next hop that is full says so after the first chunk and not
//! after the last. A short one would be one chunk, and DATA does not cost it more. Each
//! chunk waits for its reply; several under way would save time on long lines only.
//!
//! Not done here: a letter that needs what the next hop does not offer is returned; it
//! is not made fit, as some servers do with quoted-printable.
//!
//! Book: docs/13-the-client-side.md.

use std::fmt::Display;
use std::io::Read;
use std::time::Instant;

use crate::relay::client::{BODY, Client, DOT, LAST};
use crate::smtp::address::Mailbox;
use crate::smtp::answer::Answer;
use crate::smtp::dsn::RcptDsn;
use crate::smtp::reply::{Kind, Reply};
use crate::store::envelope::Letter;
use crate::wire::body::Stuffer;

/// Most commands in one write. Their replies fit into the buffers of both
/// systems, so the server never waits for us to read while we wait for it to
/// read (RFC 2920 section 3.1).
const BATCH: usize = 100;
/// After so many time-outs nobody else is named in a transaction that has somebody.
const PATIENT_IN_TIMEOUTS: u32 = 3;
/// How much of a message is read, and sent, in one go, each within its deadline.
const BLOCK: usize = 64 * 1024;

/// 452 to RCPT: this transaction is full. Old servers say 552 instead, which has to be
/// read as 452 (RFC 5321 section 4.5.3.1.10).
const FULL: [u16; 2] = [452, 552];
/// X.5.3, too many recipients (RFC 3463 section 3.6).
const TOO_MANY: (u16, u16) = (5, 3);
/// X.3.1, mail system full (section 3.4).
const SYSTEM_FULL: (u16, u16) = (3, 1);

/// An extension without which a letter cannot be sent: its keyword, the parameter of
/// MAIL, the status where it is not offered, and why it is needed.
type Need = (&'static str, &'static str, (u16, u16), &'static str);
const EIGHT_BIT: Need = ("8BITMIME", " BODY=8BITMIME", (6, 3), "the message is not ASCII");
const UTF8: Need = ("SMTPUTF8", " SMTPUTF8", (6, 7), "an address or header needs it");

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
    /// Not asked in this transaction, which is full with those before it.
    Beyond,
    /// RCPT was granted: it gets what the message gets.
    Accepted,
    /// The transaction was full, as this says. It fits into another one, if somebody
    /// was accepted in this one.
    Full(Answer),
    /// Nothing more can happen to it.
    Ended(Answer),
}

impl Client {
    /// Sends one letter, and gives one result for each recipient, in order.
    /// `None` is for those who did not fit: call again for them, on the same
    /// connection and with the message from its start. At least one of the
    /// others was decided then, so this comes to an end.
    ///
    /// `message` gives file form: lines end with LF. If it fails the letter is
    /// not sent to anybody. What the sender wants to be told is passed on as it came
    /// where the server offers DSN, and else left out (RFC 3461 section 5.2).
    pub fn carry(
        &mut self,
        letter: &Letter,
        recipients: &[To],
        message: &mut dyn Read,
    ) -> Vec<Option<Answer>> {
        // What is known of a recipient before anything is sent.
        let first_look = |to: &To| match self.parameter(UTF8) {
            Err(answer) if to.mailbox.needs_smtputf8() => Fate::Ended(answer),
            _ => Fate::Open,
        };
        let mut fates: Vec<Fate> = recipients.iter().map(first_look).collect();
        // RFC 9422: it has said beforehand what it would refuse with 452.
        let open = fates.iter_mut().filter(|fate| **fate == Fate::Open);
        open.skip(self.extensions.recipients_limit()).for_each(|fate| *fate = Fate::Beyond);
        let asked = count_open(&fates);
        // What the message came to, or why it was not sent: to those who are left it is
        // one answer or the other.
        let (Ok(end) | Err(end)) = self.transaction(letter, recipients, &mut fates, message);
        let fits_another = self.is_open && fates.contains(&Fate::Accepted);
        // What was said to MAIL, or to nobody in particular, is for all.
        let was_decided = self.is_open && count_open(&fates) < asked;
        let result = |fate| match fate {
            Fate::Full(_) if fits_another => None,
            Fate::Beyond if was_decided => None,
            Fate::Full(answer) | Fate::Ended(answer) => Some(answer),
            Fate::Accepted | Fate::Open | Fate::Beyond => Some(end.clone()),
        };
        fates.into_iter().map(result).collect()
    }

    /// One transaction. Gives the answer for all who are `Open` or `Accepted` by then:
    /// that of the message, or why there was none.
    fn transaction(
        &mut self,
        letter: &Letter,
        recipients: &[To],
        fates: &mut [Fate],
        message: &mut dyn Read,
    ) -> Result<Answer, Answer> {
        if !self.is_open {
            return Err(Answer::later((4, 2), format!("{}: the connection is closed", self.hop)));
        }
        // For a transaction that has no recipient left. So nobody gets this.
        let nobody = Answer::later((5, 0), "no recipient was accepted");
        let open = recipients.iter().zip(&*fates).filter(|(_, fate)| **fate == Fate::Open);
        let open: Vec<&To> = open.map(|(to, _)| to).collect();
        if open.is_empty() {
            return Err(nobody);
        }
        self.begun = Instant::now();
        let needs_smtputf8 = letter.needs_smtputf8
            || letter.reverse_path.needs_smtputf8()
            || open.iter().any(|to| to.mailbox.needs_smtputf8());
        let mail = self.parameters(letter, needs_smtputf8)?;
        let mut commands = vec![format!("MAIL FROM:{}{mail}\r\n", letter.reverse_path)];
        let rcpt = |to: &&To| format!("RCPT TO:<{}>{}\r\n", to.mailbox, self.offered_dsn(to.dsn));
        commands.extend(open.iter().map(rcpt));
        self.reset()?;
        self.envelope(&commands, fates)?;
        if !fates.contains(&Fate::Accepted) {
            return Err(nobody);
        }
        if self.extensions.has("CHUNKING") && letter.size > BLOCK as u64 {
            self.chunks(message)
        } else {
            self.data(message)
        }
    }

    /// What stands after the reverse-path, in the extensions that are offered;
    /// or why this letter cannot be sent through them.
    fn parameters(&self, letter: &Letter, needs_smtputf8: bool) -> Result<String, Answer> {
        let (hop, size) = (&self.hop, letter.size);
        let mut parameters = String::new();
        if let Some(limit) = self.extensions.size_limit() {
            if size > limit {
                let why =
                    format!("{hop} takes messages of at most {limit} octets, this one has {size}");
                return Err(Answer::never((3, 4), why));
            }
            parameters += &format!(" SIZE={size}");
        }
        if letter.is_8bit {
            parameters += self.parameter(EIGHT_BIT)?;
        }
        if needs_smtputf8 {
            parameters += self.parameter(UTF8)?;
        }
        // Whoever submitted the letter, we do not vouch for them (RFC 4954 section 5).
        if self.has_logged_in {
            parameters += " AUTH=<>";
        }
        Ok(parameters + &self.offered_dsn(&letter.dsn))
    }

    /// What MAIL says of a need, if it can be had.
    fn parameter(&self, need: Need) -> Result<&'static str, Answer> {
        let (keyword, parameter, status, why) = need;
        if self.extensions.has(keyword) {
            return Ok(parameter);
        }
        Err(Answer::never(status, format!("{} has no {keyword}, and {why}", self.hop)))
    }

    /// The parameters of DSN, where it is offered.
    fn offered_dsn(&self, parameters: &impl Display) -> String {
        if self.has_dsn() { parameters.to_string() } else { String::new() }
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

    /// Sends MAIL and the RCPTs to those who are `Open`, and notes what each was told. With
    /// PIPELINING many go in one write; without it one (RFC 2920).
    fn envelope(&mut self, commands: &[String], fates: &mut [Fate]) -> Result<(), Answer> {
        self.in_transaction = true;
        let mut open = fates.iter_mut().filter(|fate| **fate == Fate::Open);
        let size = if self.extensions.has("PIPELINING") { BATCH } else { 1 };
        let (mut are_some_accepted, mut is_slow) = (false, false);
        for batch in commands.chunks(size) {
            if is_slow {
                // Whoever was accepted gets the letter now, and the others go in another
                // transaction.
                open.for_each(|fate| *fate = Fate::Beyond);
                break;
            }
            let text = batch.concat();
            self.send(step_of(&text), text.as_bytes())?;
            let mut mail = Ok(());
            for command in batch {
                let step = step_of(command);
                let reply = match self.reply(step) {
                    Ok(reply) => reply,
                    // What was said to MAIL counts more than that nothing follows.
                    Err(lost) => return mail.and(Err(lost)),
                };
                if step == "MAIL" {
                    mail = self.wants(Kind::Done, step, &reply);
                // After a refused MAIL no recipient counts, but each has its reply.
                } else if mail.is_ok()
                    && let Some(fate) = open.next()
                {
                    *fate = self.told(&reply);
                    are_some_accepted |= *fate == Fate::Accepted;
                }
                if !self.is_open {
                    return mail.and_then(|()| Err(self.not_now(step, &reply)));
                }
            }
            mail?;
            is_slow = are_some_accepted
                && self.begun.elapsed() > self.timeout.saturating_mul(PATIENT_IN_TIMEOUTS);
        }
        Ok(())
    }

    /// What a reply to RCPT means for its recipient.
    fn told(&mut self, reply: &Reply) -> Fate {
        match reply.kind() {
            Kind::Done => Fate::Accepted,
            Kind::Later | Kind::Never if is_full(reply) => Fate::Full(self.not_now("RCPT", reply)),
            Kind::Later | Kind::Never | Kind::GoOn => Fate::Ended(self.refusal("RCPT", reply)),
        }
    }

    /// DATA, the message, the final dot, and the reply that decides. If the message cannot
    /// be read to its end the dot is never sent: what is there would look like all of it.
    fn data(&mut self, message: &mut dyn Read) -> Result<Answer, Answer> {
        let reply = self.ask("DATA", "DATA")?;
        self.wants(Kind::GoOn, "DATA", &reply)?;
        let (mut block, mut wire) = (Vec::new(), Vec::new());
        let mut stuffer = Stuffer::default();
        loop {
            self.read_block(message, &mut block)?;
            wire.clear();
            stuffer.push(&block, &mut wire);
            if block.len() < BLOCK {
                stuffer.finish(&mut wire);
                self.send(BODY, &wire)?;
                return self.verdict(DOT);
            }
            self.send(BODY, &wire)?;
        }
    }

    /// The message in chunks, each with its reply, and the last one with the reply that
    /// decides. After a refused chunk no other is sent (RFC 3030 section 2), and none is
    /// the last of a message that cannot be read to its end.
    fn chunks(&mut self, message: &mut dyn Read) -> Result<Answer, Answer> {
        let (mut block, mut wire) = (Vec::new(), Vec::new());
        let mut stuffer = Stuffer::of_chunks();
        loop {
            self.read_block(message, &mut block)?;
            wire.clear();
            stuffer.push(&block, &mut wire);
            if block.len() < BLOCK {
                stuffer.finish(&mut wire);
                self.send("BDAT", format!("BDAT {} LAST\r\n", wire.len()).as_bytes())?;
                self.send(BODY, &wire)?;
                return self.verdict(LAST);
            }
            self.send("BDAT", format!("BDAT {}\r\n", wire.len()).as_bytes())?;
            self.send(BODY, &wire)?;
            let reply = self.reply("BDAT")?;
            self.wants(Kind::Done, "BDAT", &reply)?;
        }
    }

    /// The next part of the message, a whole block unless it is the last.
    fn read_block(&mut self, message: &mut dyn Read, block: &mut Vec<u8>) -> Result<(), Answer> {
        block.clear();
        if let Err(error) = Read::take(message, BLOCK as u64).read_to_end(block) {
            self.is_open = false;
            return Err(Answer::later((3, 0), format!("reading the message: {error}")));
        }
        Ok(())
    }

    /// The reply to a whole message.
    fn verdict(&mut self, step: &str) -> Result<Answer, Answer> {
        let reply = self.reply(step)?;
        self.in_transaction = false;
        self.wants(Kind::Done, step, &reply)?;
        Ok(Answer::of(&reply, &self.hop))
    }
}

/// How many recipients nothing was said about.
fn count_open(fates: &[Fate]) -> usize {
    fates.iter().filter(|fate| **fate == Fate::Open).count()
}

/// Which step a command is, by its verb.
fn step_of(command: &str) -> &str {
    command.split(' ').next().unwrap_or_default()
}

/// Whether a refusal of RCPT is about this transaction, which has no room for one more
/// recipient, and not about the recipient. An enhanced code that names something else
/// tells: 452 4.2.2 and 552 5.2.2 are a mailbox that is full, 552 5.3.4 a letter that
/// is too big. One that names nothing (X.0.0, X.3.0, X.5.0) leaves it at the three digits.
fn is_full(reply: &Reply) -> bool {
    match reply.enhanced().map(|status| (status.subject, status.detail)) {
        None | Some((0 | 3 | 5, 0) | SYSTEM_FULL) => FULL.contains(&reply.code()),
        Some(named) => named == TOO_MANY,
    }
}
