//! AUTH inside the session: when it is allowed, and what its outcome means.
//!
//! In: the AUTH command, when it is time for it, then what comes in its exchange. Out:
//! steps.
//!
//! Left to others: the sequence (the one `match`), the exchange itself (`auth/`), and
//! failures over several sessions (`server/failures.rs`).
//!
//! Book: docs/11-auth.md.

use crate::smtp::auth::exchange::{self, Progress, ServerExchange};
use crate::smtp::auth::jwt::Refusal;
use crate::smtp::auth::mechanism::{Failure, Mechanism};
use crate::smtp::auth::users::Users;
use crate::smtp::reply;
use crate::smtp::session::patience::PAUSE;
use crate::smtp::session::{Farewell, Next, Note, Role, Session, State, Step, go};

impl Session {
    /// The mechanisms that would be accepted now if no address were blocked, the best first.
    pub(super) fn mechanisms(&self) -> Vec<Mechanism> {
        match self.site.users() {
            Some(users) if self.user.is_none() && self.may_log_in() => {
                let works = |one: &Mechanism| one.works_for(users) && self.may_say(*one);
                Mechanism::ALL.into_iter().filter(works).collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Whether this port is for users, and this client has not shown to be one.
    pub(super) fn must_log_in(&self) -> bool {
        self.role != Role::Smtp && self.user.is_none()
    }

    /// Whether a login may begin now: what is said of it is encrypted, or
    /// `--allow-plain-auth` lets it go in clear, as in a classroom.
    fn may_log_in(&self) -> bool {
        self.is_tls || self.site.allow_plain_auth
    }

    /// Whether what this mechanism sends may be said now. A token is never taken in clear.
    fn may_say(&self, mechanism: Mechanism) -> bool {
        self.is_tls || !mechanism.takes_token()
    }

    /// Whether AUTH is a command of this server: there are users, and it takes their
    /// passwords now or after STARTTLS.
    pub(super) fn knows_auth(&self) -> bool {
        self.site.users().is_some() && (self.may_log_in() || self.site.has_tls)
    }

    /// The mechanism of this name, if it works for the users of this server.
    pub(super) fn known(&self, mechanism: &str) -> Option<Mechanism> {
        let users = self.site.users()?;
        Mechanism::parse(mechanism).filter(|mechanism| mechanism.works_for(users))
    }

    /// Answers AUTH, where it is in its place: policy first, then resources.
    pub(super) fn authenticate(&mut self, mechanism: &str, initial: Option<&str>) -> (State, Step) {
        // The one `match` lets no other mechanism come here.
        let (Some(mechanism), Some(users)) = (self.known(mechanism), self.site.users()) else {
            return go(State::Ready, reply::unknown_mechanism());
        };
        if !self.may_log_in() || !self.may_say(mechanism) {
            return go(State::Ready, reply::encrypt_first());
        }
        if self.outside.is_blocked {
            return go(State::Ready, reply::no_auth_now());
        }
        let (nonce, hostname, now) = ((self.nonce)(), &self.site.hostname, self.outside.now);
        self.proceed(exchange::begin(mechanism, initial, &nonce, hostname, users, now))
    }

    /// Answers a line inside the exchange.
    pub(super) fn continue_login(
        &mut self,
        exchange: ServerExchange,
        line: &[u8],
    ) -> (State, Step) {
        // What ends an exchange tries nothing.
        let is_end = line == b"*" || matches!(exchange, ServerExchange::TokenRefused);
        if self.outside.is_blocked && !is_end {
            return go(State::Ready, reply::no_auth_now());
        }
        let answer = |users: &Users| exchange.answer(line, users, self.outside.now);
        // An exchange begins only where there are users, and they stay.
        let progress = self.site.users().map(answer);
        self.proceed(progress.unwrap_or(Progress::Failed(Failure::Refused)))
    }

    /// What the session makes of one step of the exchange.
    fn proceed(&mut self, progress: Progress) -> (State, Step) {
        match progress {
            Progress::Challenge(exchange, text) => {
                go(State::Auth(exchange), reply::challenge(&text))
            }
            Progress::Refused(exchange, text, why) => {
                self.login_failed(go(State::Auth(exchange), reply::challenge(&text)), Some(why))
            }
            Progress::Done(user) => {
                let note = Some(Note::LoggedIn(user.clone()));
                self.user = Some(user);
                let (state, step) = go(State::Ready, reply::authenticated());
                (state, Step { note, ..step })
            }
            Progress::Failed(Failure::Premature) => go(State::Ready, reply::server_begins()),
            Progress::Failed(Failure::Malformed) => go(State::Ready, reply::bad_auth_response()),
            Progress::Failed(Failure::Cancelled) => go(State::Ready, reply::auth_cancelled()),
            Progress::Failed(Failure::Refused) => {
                self.login_failed(go(State::Ready, reply::bad_credentials()), None)
            }
            Progress::Failed(Failure::RefusedBefore) => go(State::Ready, reply::bad_token()),
        }
    }

    /// A login that failed is counted, and its answer waits; one too many ends the session.
    fn login_failed(&mut self, next: (State, Step), why: Option<Refusal>) -> (State, Step) {
        let (state, step) = match self.patience.login_failed() {
            Some(enough) => {
                let reply = enough.reply(&self.site.hostname);
                (State::Closed, Step::new(reply, Next::Close(Farewell::Enough(enough))))
            }
            None => next,
        };
        (state, Step { pause: PAUSE, note: Some(Note::LoginFailed(why)), ..step })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::session::Outside;
    use crate::smtp::session::patience::Enough;
    use crate::smtp::session::tests::{RIGHT, WRONG, codes, private};
    use std::time::Duration;

    #[test]
    fn a_failed_login_waits_and_the_third_closes() {
        let mut session = private(Role::Submission);
        session.line(b"EHLO c");
        for (code, next) in [
            (535, Next::Command),
            (535, Next::Command),
            (421, Next::Close(Farewell::Enough(Enough::FailedLogins))),
        ] {
            let step = session.line(WRONG.as_bytes());
            assert_eq!((step.code(), step.next), (code, next));
            assert_eq!(step.pause, PAUSE);
        }
    }

    #[test]
    fn a_blocked_address_is_told_at_once_and_its_password_is_not_looked_at() {
        let mut session = private(Role::Smtp);
        session.line(b"EHLO c");
        session.set_outside(Outside { is_blocked: true, ..Outside::default() });
        let step = session.line(RIGHT.as_bytes());
        assert_eq!((step.code(), step.pause), (454, Duration::ZERO));
        session.set_outside(Outside::default());
        // Blocked in the middle: what ends the exchange has its own answer.
        for (line, code) in [("*", 501), ("Ym9i", 454)] {
            session.set_outside(Outside::default());
            assert_eq!(session.line(b"AUTH LOGIN").code(), 334);
            session.set_outside(Outside { is_blocked: true, ..Outside::default() });
            assert_eq!(session.line(line.as_bytes()).code(), code);
        }
        session.set_outside(Outside::default());
        assert_eq!(session.line(RIGHT.as_bytes()).code(), 235);
    }

    #[test]
    fn the_log_hears_of_logins_and_of_failures() {
        let mut session = private(Role::Submission);
        session.line(b"EHLO c");
        assert_eq!(session.line(WRONG.as_bytes()).note, Some(Note::LoginFailed(None)));
        assert_eq!(session.line(b"AUTH PLAIN =").note, None);
        assert_eq!(session.line(RIGHT.as_bytes()).note, Some(Note::LoggedIn("bob".to_owned())));
    }

    /// Mail programs fill in a whole address, and some send Latin-1.
    #[test]
    fn a_whole_address_logs_in_and_a_password_outside_utf_8_is_a_failure_that_counts() {
        let mut session = private(Role::Submission);
        // NUL bob@HOST.example NUL secret, and NUL bob NUL s\xe4.
        let (whole, latin) =
            ("AUTH PLAIN AGJvYkBIT1NULmV4YW1wbGUAc2VjcmV0", "AUTH PLAIN AGJvYgBz5A==");
        assert_eq!(codes(&mut session, &["EHLO c", latin, latin, whole]), [250, 535, 535, 235]);
        assert_eq!(session.user(), Some("bob"));
        let mut session = private(Role::Submission);
        assert_eq!(codes(&mut session, &["EHLO c", latin, latin, latin]), [250, 535, 535, 421]);
    }
}
