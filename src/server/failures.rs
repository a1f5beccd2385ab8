//! Failed logins, counted for each client address.
//!
//! In: failures as they happen. Out: whether an address has failed too often
//! lately. Time is an argument.
//!
//! What is not done: an address is asked about before a login, and a failure is counted
//! after it. Connections of one address that log in at the same moment may each have one
//! guess more.
//!
//! Book: docs/11-auth.md.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::server::clients::group;

/// How long a failure counts.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// From this many on, an address may not try again for the moment.
const LIMIT: usize = 10;
/// How many addresses are remembered: a bound on memory. When a new one comes beyond it, all
/// are forgotten: whoever has that many addresses needs no second try from one.
const ADDRESSES: usize = 10_000;

/// The failures of the last quarter of an hour.
#[derive(Debug, Default)]
pub struct Failures {
    /// Never an empty list; the latest failure is the last.
    by_address: Mutex<HashMap<IpAddr, Vec<Instant>>>,
}

impl Failures {
    /// One more failure of this address.
    pub fn record(&self, address: IpAddr, now: Instant) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if by_address.len() >= ADDRESSES {
            by_address.retain(|_, times| times.last().is_some_and(|time| is_recent(*time, now)));
        }
        if by_address.len() >= ADDRESSES && !by_address.contains_key(&group(address)) {
            by_address.clear();
        }
        let times = by_address.entry(group(address)).or_default();
        times.retain(|time| is_recent(*time, now));
        // More than the limit need no more memory.
        if times.len() == LIMIT {
            times.remove(0);
        }
        times.push(now);
    }

    /// Whether this address has failed too often.
    pub fn is_blocked(&self, address: IpAddr, now: Instant) -> bool {
        let by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let times = by_address.get(&group(address));
        times.is_some_and(|times| {
            times.iter().filter(|time| is_recent(**time, now)).count() >= LIMIT
        })
    }
}

fn is_recent(time: Instant, now: Instant) -> bool {
    now.saturating_duration_since(time) < MEMORY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_block_an_address_for_a_quarter_of_an_hour_and_no_other() {
        let failures = Failures::default();
        let (bad, good): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        for number in 0..25 {
            assert_eq!(failures.is_blocked(bad, start), number >= LIMIT, "{number}");
            failures.record(bad, start);
        }
        assert!(!failures.is_blocked(good, start));
        assert!(failures.is_blocked(bad, start + MEMORY - Duration::from_secs(1)));
        assert!(!failures.is_blocked(bad, start + MEMORY));
    }

    #[test]
    fn many_addresses_need_bounded_memory() {
        let failures = Failures::default();
        let start = Instant::now();
        for number in 0..ADDRESSES as u32 + 5 {
            failures.record(IpAddr::V4(number.into()), start);
        }
        assert!(failures.by_address.lock().unwrap().len() <= ADDRESSES);
    }

    #[test]
    fn a_known_address_makes_nobody_forgotten() {
        let failures = Failures::default();
        let start = Instant::now();
        for number in 0..ADDRESSES as u32 {
            failures.record(IpAddr::V4(number.into()), start);
        }
        failures.record(IpAddr::V4(0.into()), start);
        assert_eq!(failures.by_address.lock().unwrap().len(), ADDRESSES);
    }
}
