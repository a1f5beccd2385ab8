//! How long a session bears with its client: one policy.
//!
//! In: what was refused, asked and tried, and how long the session has lasted. Out:
//! whether the reply has to wait, and whether the session has had enough. A message
//! that was accepted makes up for everything before it, except for failed logins; and of
//! the refused recipients that no accepted ones paid for, it makes up for one. Otherwise a
//! guesser would buy five answers with each letter to an address that he knows.
//!
//! | what a client does without a message that is accepted | what it gets |
//! | --- | --- |
//! | it is refused with 5yz, a recipient included while none is accepted | 20 times; then 421 |
//! | a recipient is refused beside accepted ones | counts as nothing while those are twice as many, and 5 times besides; then it counts, and its reply waits a second |
//! | a sender or a recipient is refused with 4yz | nothing, and the log tells of 20 |
//! | it says NOOP, RSET, VRFY, HELP, EHLO, HELO or `BDAT 0` | 100 times; then 421 |
//! | it stays | 12 × `--timeout`, and one more for each 64 KiB of a message in chunks; then 421 |
//! | it fails to log in | twice, a second late; the third time 421, a message or not |
//!
//! Closing is a measure for attacks (RFC 5321 section 7.8), not for mistakes, hence
//! these numbers: an honest client stays far below them. `judge.rs` applies them to each
//! reply to a command, `login.rs` to logins, and `mod.rs` to messages and to commands that
//! bring none. Not counted here: failed logins over several sessions (`server/failures.rs`).
//!
//! Book: docs/05-state-machine.md.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::smtp::command::{Chunk, Command};
use crate::smtp::reply::{self, Reply};

/// How many 5yz replies a client may collect. People who type by hand stay far
/// below, guessing machines do not.
pub const REFUSALS_LIMIT: u32 = 20;

/// How many 4yz replies to MAIL and RCPT the log tells of. They cost the client nothing: a list
/// that is longer than a transaction may be gets one for each recipient too many.
const PUT_OFF_TOLD: u32 = 20;

/// How many refused recipients are forgiven beside accepted ones, whatever their
/// number: as many as a guesser gets for nothing.
pub const FORGIVEN_LIMIT: u32 = 5;

/// How many accepted recipients pay for a refused one. A mailing list with a third of
/// its addresses dead gets through; a guesser who knows one address does not.
const ACCEPTED_FOR_ONE: usize = 2;

/// How many commands that bring no letter on its way are answered.
pub const ERRANDS_LIMIT: u32 = 100;

/// How often a client may fail to log in before it is sent away.
pub const FAILED_LOGINS_LIMIT: u32 = 3;

/// How many times `--timeout` a session may last.
pub const LONGEST_IN_TIMEOUTS: u32 = 12;

/// How many octets of a message may take one `--timeout`.
pub const STRETCH: u64 = 64 * 1024;

/// How long a reply waits that a guesser wants: nothing for a person, and much for a
/// machine.
pub const PAUSE: Duration = Duration::from_secs(1);

/// What one session has cost so far. Nothing here is forgotten when TLS begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patience {
    /// 5yz replies that count, since the last message that was accepted.
    refusals: u32,
    /// 4yz replies to MAIL and RCPT, since then.
    put_off: u32,
    /// Recipients that were refused beside accepted ones, since then.
    refused_recipients: usize,
    /// Refused recipients that no accepted ones paid for, in the whole session, less one
    /// for each message that was accepted.
    unpaid: u32,
    /// Commands that bring no letter on its way, since then.
    errands: u32,
    /// When that message was accepted, counted from the start of the session.
    accepted_at: Duration,
    /// Logins that failed.
    failed_logins: u32,
}

/// Why a session ends before its client wants it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// More than [`REFUSALS_LIMIT`] commands were refused.
    Refusals,
    /// More than [`ERRANDS_LIMIT`] commands brought no letter on its way.
    Errands,
    /// It has lasted longer than [`LONGEST_IN_TIMEOUTS`] time-outs.
    Lasting,
    /// [`FAILED_LOGINS_LIMIT`] logins failed.
    FailedLogins,
}

/// What a refused recipient costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// Nothing.
    Nothing,
    /// It counts as any refusal does.
    Counts,
    /// The same, and its reply waits for [`PAUSE`].
    CountsLate,
}

impl Patience {
    /// One more 5yz reply. Says whether it was one too many.
    pub fn refused(&mut self) -> Option<Enough> {
        self.refusals += 1;
        (self.refusals > REFUSALS_LIMIT).then_some(Enough::Refusals)
    }

    /// One more 4yz reply to MAIL or RCPT. Says whether the log hears of it.
    pub fn put_off(&mut self) -> bool {
        self.put_off = self.put_off.saturating_add(1);
        self.put_off <= PUT_OFF_TOLD
    }

    /// One more recipient was refused in a transaction with `accepted` ones. Those of a
    /// transaction that came to nothing still count, or RSET would buy further guesses.
    pub fn recipient_refused(&mut self, accepted: usize) -> Price {
        if accepted > 0 {
            self.refused_recipients += 1;
            if self.refused_recipients * ACCEPTED_FOR_ONE <= accepted {
                return Price::Nothing;
            }
        }
        self.unpaid += 1;
        match accepted {
            0 if self.unpaid <= REFUSALS_LIMIT => Price::Counts,
            1.. if self.unpaid <= FORGIVEN_LIMIT => Price::Nothing,
            _ => Price::CountsLate,
        }
    }

    /// One more command that brings no letter on its way.
    pub fn errand(&mut self) -> Option<Enough> {
        self.errands += 1;
        (self.errands > ERRANDS_LIMIT).then_some(Enough::Errands)
    }

    /// Whether a session of this age has lasted too long, with so many octets of a message
    /// that is not complete.
    pub fn lasts(&self, age: Duration, timeout: Duration, received: u64) -> Option<Enough> {
        let stretches = u32::try_from(received / STRETCH).unwrap_or(u32::MAX);
        let longest = timeout.saturating_mul(LONGEST_IN_TIMEOUTS.saturating_add(stretches));
        let since = age.saturating_sub(self.accepted_at);
        (since > longest).then_some(Enough::Lasting)
    }

    /// One more failed login.
    pub fn login_failed(&mut self) -> Option<Enough> {
        self.failed_logins += 1;
        (self.failed_logins >= FAILED_LOGINS_LIMIT).then_some(Enough::FailedLogins)
    }

    /// A message was accepted, at this age of the session.
    pub fn accepted(&mut self, age: Duration) {
        *self = Patience {
            accepted_at: age,
            unpaid: self.unpaid.saturating_sub(1),
            failed_logins: self.failed_logins,
            ..Patience::default()
        };
    }
}

/// Whether a command brings no letter on its way. Without a wildcard, so that a new
/// command does not compile before somebody has thought of it.
pub fn is_errand(command: &Command) -> bool {
    match command {
        Command::Ehlo(_)
        | Command::Helo(_)
        | Command::Rset
        | Command::Noop
        | Command::Help
        | Command::Vrfy
        | Command::Expn => true,
        // A chunk of nothing is one, unless the message ends with it.
        Command::Bdat(Chunk { size, is_last }) => *size == 0 && !is_last,
        Command::Mail(_)
        | Command::Rcpt(_)
        | Command::Data
        | Command::StartTls
        | Command::Auth { .. }
        | Command::Quit
        | Command::Http => false,
    }
}

impl Enough {
    /// The 421 with which the session ends.
    pub fn reply(self, hostname: &str) -> Reply {
        match self {
            Enough::Refusals => reply::too_many_refusals(hostname),
            Enough::Errands => reply::too_many_errands(hostname),
            Enough::Lasting => reply::too_long_a_session(hostname),
            Enough::FailedLogins => reply::too_many_failed_logins(hostname),
        }
    }
}

impl Display for Enough {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Enough::Refusals => "too many refused commands",
            Enough::Errands => "too many commands without a message",
            Enough::Lasting => "too long a session without a message",
            Enough::FailedLogins => "too many failed logins",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Kind;
    use crate::smtp::session::tests::{TRANSACTION, codes, session};
    use crate::smtp::session::{BadLine, Farewell, Next, Note, Outcome, Outside, Session};

    #[test]
    fn each_limit_ends_the_session_one_beyond_it() {
        let mut patience = Patience::default();
        for number in 1..=REFUSALS_LIMIT + 1 {
            assert_eq!(patience.refused().is_some(), number > REFUSALS_LIMIT, "{number}");
        }
        for number in 1..=ERRANDS_LIMIT + 1 {
            assert_eq!(patience.errand().is_some(), number > ERRANDS_LIMIT, "{number}");
        }
        for number in 1..=FAILED_LOGINS_LIMIT {
            assert_eq!(patience.login_failed().is_some(), number == FAILED_LOGINS_LIMIT);
        }
        let timeout = Duration::from_secs(300);
        assert_eq!(patience.lasts(timeout * LONGEST_IN_TIMEOUTS, timeout, 0), None);
        let longer = timeout * LONGEST_IN_TIMEOUTS + Duration::from_millis(1);
        assert_eq!(patience.lasts(longer, timeout, STRETCH - 1), Some(Enough::Lasting));
        assert_eq!(patience.lasts(longer, timeout, STRETCH), None);
    }

    #[test]
    fn an_accepted_message_begins_anew_for_all_but_logins_and_guesses() {
        let mut patience = Patience::default();
        for _ in 0..REFUSALS_LIMIT {
            patience.refused();
            patience.errand();
            patience.recipient_refused(1);
        }
        patience.login_failed();
        let timeout = Duration::from_secs(1);
        patience.accepted(timeout * LONGEST_IN_TIMEOUTS);
        assert_eq!(patience.refused(), None);
        assert_eq!(patience.errand(), None);
        assert_eq!(patience.recipient_refused(1), Price::CountsLate);
        assert_eq!(patience.recipient_refused(4), Price::Nothing);
        assert_eq!(patience.lasts(timeout * LONGEST_IN_TIMEOUTS * 2, timeout, 0), None);
        assert_eq!(patience.failed_logins, 1);
    }

    /// Harvesting of addresses: the one that is known to be accepted buys five answers.
    #[test]
    fn a_guesser_with_one_address_pays_from_the_sixth_guess_on() {
        let mut patience = Patience::default();
        let prices: Vec<Price> = (0..8).map(|_| patience.recipient_refused(1)).collect();
        assert_eq!(prices[..5], [Price::Nothing; 5]);
        assert_eq!(prices[5..], [Price::CountsLate; 3]);
        // A further transaction is no further chance.
        assert_eq!(patience.recipient_refused(1), Price::CountsLate);
        assert_eq!(patience.recipient_refused(17), Price::CountsLate);
        assert_eq!(patience.recipient_refused(22), Price::Nothing);
    }

    #[test]
    fn a_list_with_a_third_of_its_addresses_dead_pays_nothing() {
        let mut patience = Patience::default();
        let (mut accepted, mut refused) = (0, 0);
        for number in 0..1000 {
            if number % 3 == 2 {
                assert_eq!(patience.recipient_refused(accepted), Price::Nothing);
                refused += 1;
            } else {
                accepted += 1;
            }
        }
        assert_eq!((accepted, refused, patience.unpaid), (667, 333, 0));
    }

    /// A session beside the one recipient it may have.
    fn beside_an_accepted_recipient() -> Session {
        let mut session = session();
        codes(&mut session, &TRANSACTION);
        session
    }

    #[test]
    fn after_twenty_refusals_the_next_one_closes_and_a_stored_message_begins_anew() {
        let mut session = session();
        for _ in 0..20 {
            assert_eq!(session.line(b"NONSENSE").code(), 500);
        }
        session.message_ended(&Outcome::Stored("M1".to_owned()));
        for _ in 0..20 {
            assert_eq!(session.bad_line(BadLine::TooLong).code(), 500);
        }
        // Neither a good command nor a temporary refusal changes the count.
        assert_eq!(codes(&mut session, &["NOOP", "RSET"]), [250, 250]);
        session.message_ended(&Outcome::NoRoom);
        let step = session.line(b"NONSENSE");
        assert_eq!(
            (step.code(), step.next),
            (421, Next::Close(Farewell::Enough(Enough::Refusals)))
        );
    }

    #[test]
    fn refused_messages_keep_their_reply_and_close_when_there_were_too_many() {
        let mut session = session();
        for _ in 0..20 {
            assert_eq!(session.message_ended(&Outcome::Loop).next, Next::Command);
        }
        let step = session.message_ended(&Outcome::Loop);
        assert_eq!(
            (step.code(), step.next),
            (554, Next::Close(Farewell::Enough(Enough::Refusals)))
        );
    }

    /// The 5 for nothing, 20 that count and come late, and the end.
    #[test]
    fn dead_addresses_beside_a_living_one_cost_a_second_each_after_the_fifth() {
        let mut session = beside_an_accepted_recipient();
        for number in 1..=25 {
            let step = session.line(b"RCPT TO:<dead@host.example>");
            let pause = if number <= 5 { Duration::ZERO } else { PAUSE };
            assert_eq!((step.code(), step.pause), (550, pause), "{number}");
        }
        // RSET and a new transaction forgive nothing.
        codes(&mut session, &["RSET", "MAIL FROM:<a@b>", "RCPT TO:<bob@host.example>"]);
        let step = session.line(b"RCPT TO:<dead@host.example>");
        assert_eq!(
            (step.code(), step.next),
            (421, Next::Close(Farewell::Enough(Enough::Refusals)))
        );
    }

    #[test]
    fn a_message_that_is_accepted_lets_the_session_go_on_and_pays_for_one_guess() {
        let mut session = session();
        session.line(b"EHLO c");
        for letter in 0..50 {
            codes(&mut session, &TRANSACTION[1..]);
            for number in 0..5 {
                let step = session.line(b"RCPT TO:<dead@host.example>");
                let pause = if letter * 5 + number <= 5 { Duration::ZERO } else { PAUSE };
                assert_eq!((step.code(), step.pause), (550, pause), "{letter}, {number}");
            }
            assert_eq!(session.line(b"DATA").code(), 354);
            session.message_ended(&Outcome::Stored("M1".to_owned()));
        }
    }

    /// The same for a guesser who names the address that he knows last.
    #[test]
    fn guesses_before_the_first_accepted_recipient_are_late_after_the_twentieth() {
        let mut session = session();
        session.line(b"EHLO c");
        for letter in 0..3 {
            session.line(b"MAIL FROM:<a@b>");
            for number in 0..20 {
                let step = session.line(b"RCPT TO:<dead@host.example>");
                let pause = if letter * 20 + number <= 20 { Duration::ZERO } else { PAUSE };
                assert_eq!((step.code(), step.pause), (550, pause), "{letter}, {number}");
            }
            codes(&mut session, &["RCPT TO:<bob@host.example>", "DATA"]);
            session.message_ended(&Outcome::Stored("M1".to_owned()));
        }
    }

    #[test]
    fn a_hundred_errands_are_done_and_one_more_ends_the_session() {
        let errands = ["NOOP", "RSET", "VRFY x", "HELP", "EHLO c", "HELO c", "RSET"];
        let mut session = session();
        for number in 0..ERRANDS_LIMIT as usize {
            let step = session.line(errands[number % errands.len()].as_bytes());
            assert_eq!(step.kind(), Some(Kind::Done), "{number}");
        }
        let step = session.line(b"NOOP");
        assert_eq!((step.code(), step.next), (421, Next::Close(Farewell::Enough(Enough::Errands))));
    }

    #[test]
    fn a_session_may_last_as_long_as_it_brings_messages() {
        let mut session = session();
        let hours =
            |hours: u64| Outside { age: Duration::from_secs(hours * 3600), ..Outside::default() };
        session.set_outside(hours(1));
        codes(&mut session, &TRANSACTION);
        session.message_ended(&Outcome::Stored("M1".to_owned()));
        session.set_outside(hours(2));
        assert_eq!(session.line(b"NOOP").code(), 250);
        session.set_outside(hours(3));
        for step in [session.line(b"NOOP"), session.bad_line(BadLine::Nul)] {
            assert_eq!(
                (step.code(), step.next),
                (421, Next::Close(Farewell::Enough(Enough::Lasting)))
            );
        }
    }

    #[test]
    fn whoever_goes_by_himself_is_not_told_that_he_has_stayed_too_long() {
        let mut session = session();
        session.set_outside(Outside { age: Duration::from_secs(7200), ..Outside::default() });
        assert_eq!(session.line(b"QUIT").code(), 221);
    }

    /// Harvesting is to be seen in the log.
    #[test]
    fn every_refused_mail_and_recipient_is_noted_with_its_reply() {
        let mut session = session();
        session.line(b"EHLO c");
        for (line, note) in [
            ("MAIL FROM:a\\@b", "MAIL FROM:a\\\\@b: 501 5.1.7 "),
            ("rcpt TO:<x@host.example>", "rcpt TO:<x@host.example>: 503 5.5.1 "),
            ("MAIL FROM:<a@b>", ""),
            ("RCPT TO:<dead@host.example>", "RCPT TO:<dead@host.example>: 550 5.1.1 "),
            ("NONSENSE", ""),
        ] {
            match session.line(line.as_bytes()).note {
                Some(Note::Refused(text)) if !note.is_empty() => {
                    assert!(text.starts_with(note), "{text}")
                }
                None if note.is_empty() => {}
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
