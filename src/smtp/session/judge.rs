//! What a reply costs the client that gets it.
//!
//! In: a step as the session decided it. Out: the same step, a slower one, or 421 in its
//! place, and a note for the log. What costs how much says `patience.rs`.
//!
//! Book: docs/05-state-machine.md.

use crate::smtp::command::after_verb;
use crate::smtp::reply::{self, Kind};
use crate::smtp::session::patience::{Enough, PAUSE, Price};
use crate::smtp::session::shown::is_path_command;
use crate::smtp::session::{Farewell, Next, Note, Session, State, Step};

impl Session {
    /// Notes a refused MAIL or RCPT for the log, and lets it cost what it costs.
    pub(super) fn judge_path(&mut self, line: &[u8], mut step: Step) -> Step {
        if let Some(reply) = &step.reply
            && matches!(reply.kind(), Kind::Later | Kind::Never)
            && is_path_command(line)
        {
            let said = self.shown_path(line);
            let what = format!("{said}: {reply}");
            step.note = if *reply == reply::too_many_this_hour() {
                Some(Note::OverAllowance(what))
            } else {
                Some(Note::Refused(what))
            };
            if after_verb(line, "RCPT").is_some() && self.is_forgiven(&mut step) {
                return step;
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

    /// The last step, where the session has lasted too long.
    pub(super) fn outlasted(&mut self) -> Option<Step> {
        let enough = self.patience.lasts(self.outside.age, self.site.timeout)?;
        let reply = enough.reply(&self.site.hostname);
        Some(self.end(enough, Step::new(reply, Next::Command)))
    }

    /// Whether a refused recipient beside accepted ones costs nothing, however it came
    /// to be refused. If not, its reply waits.
    fn is_forgiven(&mut self, step: &mut Step) -> bool {
        let State::Rcpt(envelope) = &self.state else { return false };
        if step.kind() != Some(Kind::Never) {
            return false;
        }
        let price = self.patience.recipient_refused(envelope.recipients.len());
        if price == Price::Late {
            step.pause = PAUSE;
        }
        price == Price::Nothing
    }

    /// 421 in the place of a step's reply. What goes before that stays, or the client would
    /// still be sending its chunk.
    pub(super) fn end(&mut self, enough: Enough, step: Step) -> Step {
        let last = self.part(enough.reply(&self.site.hostname), Farewell::Enough(enough));
        Step { skip: step.skip, pause: step.pause, note: step.note, ..last }
    }
}
