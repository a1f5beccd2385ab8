//! What a reply to a command costs the client that gets it.
//!
//! In: a step as the session decided it. Out: the same step, a slower one, or 421 in its
//! place, and a note for the log. What costs how much says `patience.rs`.
//!
//! Book: docs/05-state-machine.md.

use crate::smtp::command::after_verb;
use crate::smtp::reply::{self, Kind, Reply};
use crate::smtp::session::patience::{Enough, PAUSE, Price};
use crate::smtp::session::shown::is_path_command;
use crate::smtp::session::{Farewell, Next, Note, Session, State, Step};

impl Session {
    /// Lets the reply to a command cost what it costs. A refused MAIL or RCPT is noted for
    /// the log, too.
    pub(super) fn judge(&mut self, line: &[u8], mut step: Step) -> Step {
        if let Some(reply) = &step.reply
            && matches!(reply.kind(), Kind::Later | Kind::Never)
            && is_path_command(line)
        {
            let is_over_allowance = *reply == reply::too_many_this_hour();
            if reply.kind() == Kind::Later && !is_over_allowance && !self.patience.put_off() {
                return step;
            }
            let said = self.shown_path(line);
            let what = format!("{said}: {reply}");
            let note =
                if is_over_allowance { Note::OverAllowance(what) } else { Note::Refused(what) };
            let is_rcpt = after_verb(line, "RCPT").is_some();
            let price = if is_rcpt { self.price_refusal(reply) } else { Price::Counts };
            step.note = Some(note);
            match price {
                Price::Nothing => return step,
                Price::Counts => {}
                Price::CountsLate => step.pause = PAUSE,
            }
        }
        self.charge(step)
    }

    /// Counts a refusal, and puts 421 in its place when there were too many.
    pub(super) fn charge(&mut self, step: Step) -> Step {
        if step.kind() != Some(Kind::Never) {
            return step;
        }
        match self.patience.refused() {
            Some(enough) => self.end(enough, step),
            None => step,
        }
    }

    /// The last step, where the session has lasted too long. A letter in chunks may take as
    /// long as one after DATA, during which nobody asks.
    pub(super) fn outlasted(&mut self) -> Option<Step> {
        let received = match self.state {
            State::Chunks { received, .. } => received,
            _ => 0,
        };
        let enough = self.patience.lasts(self.outside.age, self.site.timeout, received)?;
        let reply = enough.reply(&self.site.hostname);
        Some(self.end(enough, Step::new(reply, Next::Command)))
    }

    /// Counts a recipient who was refused with `reply`, and says what that costs. It has
    /// a price of its own in a transaction only, however it came to be refused.
    fn price_refusal(&mut self, reply: &Reply) -> Price {
        match &self.state {
            State::Mail(envelope) | State::Rcpt(envelope) if reply.kind() == Kind::Never => {
                self.patience.recipient_refused(envelope.accepted())
            }
            _ => Price::Counts,
        }
    }

    /// 421 in the place of a step's reply. What goes before that stays, or the client would
    /// still be sending its chunk.
    pub(super) fn end(&mut self, enough: Enough, step: Step) -> Step {
        let last = self.hang_up(enough.reply(&self.site.hostname), Farewell::Enough(enough));
        Step { skip: step.skip, pause: step.pause, note: step.note, ..last }
    }
}
