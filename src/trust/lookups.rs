//! The DNS of one letter: all its questions together have one end.
//!
//! In: names. Out: what their records say, as `dns/` found it, until the time of the
//! letter is over; then there is no answer, as from a server that is silent. No answer
//! is kept for the next letter: the server that is asked has a cache.
//!
//! Book: docs/16-trust.md.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::dns::{Family, Mx, Resolver, Trouble};

/// How long all questions about one letter may take together. A client waits for the
/// reply to its final dot ten minutes (RFC 5321 section 4.5.3.2.6). RFC 7208 section 4.6.4
/// wants at least 20 seconds for SPF, which has half of it.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Asks DNS about one letter.
#[derive(Debug)]
pub struct Lookups<'a> {
    resolver: &'a Resolver,
    deadline: Instant,
}

impl<'a> Lookups<'a> {
    /// Answers have to be there by the `deadline`: usually [`PATIENCE`] from now.
    pub fn new(resolver: &'a Resolver, deadline: Instant) -> Lookups<'a> {
        Lookups { resolver, deadline }
    }

    /// The same, with half of the time that is left.
    pub fn half(&self) -> Lookups<'a> {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        Lookups { resolver: self.resolver, deadline: now + left / 2 }
    }

    /// The texts at a name, the strings of each record joined to one.
    pub fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, Trouble> {
        self.resolver.txt(name, self.deadline)
    }

    /// The hosts that take the mail of a domain, in no order.
    pub fn mx(&self, name: &str) -> Result<Vec<Mx>, Trouble> {
        self.resolver.mx(name, self.deadline)
    }

    /// The addresses of a host, of one family.
    pub fn addresses(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, Trouble> {
        self.resolver.addresses(name, family, self.deadline)
    }

    /// The names that an address claims to have.
    pub fn names(&self, address: IpAddr) -> Result<Vec<String>, Trouble> {
        self.resolver.ptr(address, self.deadline)
    }
}
