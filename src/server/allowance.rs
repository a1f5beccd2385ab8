//! How many recipients elsewhere each user may still have, counted over an hour.
//!
//! In: recipients as they are accepted. Out: how many more there may be now, and
//! whether it is time to warn. Time is an argument.
//!
//! The hour slides, in steps of five minutes: nobody gets twice the number by coming at
//! the end of one hour and at the beginning of the next, as with hours of a clock, and
//! nobody waits for a whole hour, either. For that a user costs thirteen pairs of
//! numbers at most; users are as many as the users file has named since the start.
//!
//! What is not done: nothing is written down, so a restart forgets, and each process
//! counts by itself. Sessions of one user that ask in the same instant may each get all
//! that is left, once.
//!
//! Book: docs/12-who-may-relay.md.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is counted together. It is forgotten together, when the last of it may be an
/// hour old.
const STEP: Duration = Duration::from_secs(5 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Who has had how much of the allowance.
#[derive(Debug)]
pub struct Allowance {
    /// Recipients within an hour, `None` for no limit.
    limit: Option<usize>,
    by_user: Mutex<HashMap<String, Record>>,
}

/// What is kept of one user.
#[derive(Debug, Default)]
struct Record {
    /// When each step began, and the recipients in it, the latest last. Never empty
    /// steps, so the times are at least [`STEP`] apart.
    steps: Vec<(Instant, usize)>,
    /// When the log was last told that it is too much.
    warned: Option<Instant>,
}

impl Allowance {
    /// `limit` recipients for each user, where 0 means as many as it likes.
    pub fn new(limit: usize) -> Allowance {
        let limit = if limit == 0 { None } else { Some(limit) };
        Allowance { limit, by_user: Mutex::default() }
    }

    /// How many more recipients this user may have.
    pub fn left(&self, user: &str, now: Instant) -> usize {
        let Some(limit) = self.limit else { return usize::MAX };
        let by_user = self.by_user();
        let had = by_user.get(user).map_or(0, |record| record.had(now));
        limit.saturating_sub(had)
    }

    /// This user has so many more.
    pub fn record(&self, user: &str, count: usize, now: Instant) {
        // Without a limit nobody asks.
        if self.limit.is_some() {
            self.by_user().entry(user.to_owned()).or_default().add(count, now);
        }
    }

    /// Whether the log should be warned that this user wants too many: once an hour.
    pub fn is_news(&self, user: &str, now: Instant) -> bool {
        let mut by_user = self.by_user();
        let record = by_user.entry(user.to_owned()).or_default();
        let is_news = record.warned.is_none_or(|then| since(then, now) >= HOUR);
        if is_news {
            record.warned = Some(now);
        }
        is_news
    }

    fn by_user(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        // Nothing panics while it holds this lock.
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn had(&self, now: Instant) -> usize {
        let counts = self.steps.iter().filter(|(begun, _)| counts(*begun, now));
        counts.map(|(_, count)| count).sum()
    }

    fn add(&mut self, count: usize, now: Instant) {
        self.steps.retain(|(begun, _)| counts(*begun, now));
        match self.steps.last_mut() {
            Some((begun, so_far)) if since(*begun, now) < STEP => *so_far += count,
            _ => self.steps.push((now, count)),
        }
    }
}

/// Whether some of what came in the step that began then may be less than an hour old.
fn counts(begun: Instant, now: Instant) -> bool {
    since(begun, now) < HOUR + STEP
}

/// Threads look at the clock and then wait for the lock, so `then` may be the later one.
fn since(then: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(then)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_user_has_its_limit_and_another_user_has_its_own() {
        let (allowance, now) = (Allowance::new(3), Instant::now());
        allowance.record("ann", 2, now);
        assert_eq!(allowance.left("ann", now), 1);
        allowance.record("ann", 1, now);
        assert_eq!((allowance.left("ann", now), allowance.left("bob", now)), (0, 3));
    }

    #[test]
    fn zero_is_no_limit_and_keeps_nothing() {
        let (allowance, now) = (Allowance::new(0), Instant::now());
        allowance.record("ann", usize::MAX, now);
        allowance.record("ann", 1, now);
        assert_eq!(allowance.left("ann", now), usize::MAX);
        assert!(allowance.by_user().is_empty());
    }

    /// With hours of a clock somebody could have twice the limit around the full hour.
    #[test]
    fn within_no_hour_are_there_more_than_the_limit() {
        let (allowance, start) = (Allowance::new(100), Instant::now());
        let mut taken = Vec::new();
        for minute in 0..600 {
            let now = start + minute * MINUTE;
            // At first slowly, so that there are several steps, then whatever comes free.
            let left = allowance.left("eve", now);
            let count = if minute < 20 { left.min(7) } else { left };
            if count > 0 {
                allowance.record("eve", count, now);
                taken.push((now, count));
            }
            let hour = taken.iter().filter(|(then, _)| since(*then, now) < HOUR);
            assert!(hour.map(|(_, count)| count).sum::<usize>() <= 100, "minute {minute}");
            assert!(allowance.by_user()["eve"].steps.len() <= 13, "minute {minute}");
        }
        // And it gets nearly all of that: 100 in each 65 minutes.
        let all: usize = taken.iter().map(|(_, count)| count).sum();
        assert!(all >= 900, "{all}");
    }

    #[test]
    fn what_was_had_comes_back_after_an_hour_step_by_step() {
        let (allowance, start) = (Allowance::new(10), Instant::now());
        allowance.record("ann", 6, start);
        allowance.record("ann", 4, start + 30 * MINUTE);
        assert_eq!(allowance.left("ann", start + HOUR), 0);
        assert_eq!(allowance.left("ann", start + HOUR + STEP), 6);
        assert_eq!(allowance.left("ann", start + 30 * MINUTE + HOUR + STEP), 10);
    }

    #[test]
    fn the_log_is_warned_once_an_hour_for_each_user() {
        let (allowance, start) = (Allowance::new(1), Instant::now());
        assert!(allowance.is_news("ann", start));
        assert!(!allowance.is_news("ann", start + HOUR - MINUTE));
        assert!(allowance.is_news("bob", start));
        assert!(allowance.is_news("ann", start + HOUR));
    }
}
