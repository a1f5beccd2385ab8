//! Questions to DNS, and their answers (RFC 1035).
//!
//! In: a name, and when the answer has to be there. Out: what its records of one type
//! say, or why nobody knows. This is a stub resolver: it asks servers that do the
//! whole search, those of `--dns` or of `/etc/resolv.conf`. What one of them says about
//! a name is believed; one that is silent, fails or sends nonsense is passed over.
//!
//! Left to others: the octets of the packets (`message.rs`), and their way to a server
//! and back (`exchange.rs`); what the records mean for mail. Not done: a cache (the
//! servers asked have one), and DNSSEC.
//!
//! Book: docs/15-finding-the-next-hop.md.

mod exchange;
mod message;

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ring::rand::{SystemRandom, generate};
use simple_dns::rdata::RData;
use simple_dns::{Name, TYPE};

use crate::dns::exchange::{exchange, is_late};
use crate::dns::message::{ALIASES_LIMIT, Found, joined, name_of, question, read_answer, text_of};

/// RFC 1035 section 4.2.
const PORT: u16 = 53;
/// How long one question may take, asked of all servers in all rounds.
pub const PATIENCE: Duration = Duration::from_secs(9);
/// A datagram may be lost; three in a row seldom are.
const ROUNDS: usize = 3;

/// Asks recursive servers.
#[derive(Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    time: Duration,
    /// The one that answered last, by number, is asked first: a dead one costs its
    /// time once, and not for every question.
    first: AtomicUsize,
}

/// Why there is no answer. The text of each completes "DNS about x.example: …".
#[derive(Debug)]
pub enum Trouble {
    /// NXDOMAIN: the name does not exist, with any type. The only lasting one,
    /// beside `BadName`.
    NoSuchName,
    /// An empty label, one over 63 octets, a name over 253, or letters outside ASCII:
    /// nobody can ask for it.
    BadName,
    /// No server has answered in time, in any round.
    Silence,
    /// The server says that it failed (SERVFAIL), or that it does not want to
    /// answer us (REFUSED), sends what cannot be read, cannot be reached or hangs up; or
    /// our own system refuses. The text says which server, and what it was.
    Failed(String),
    /// An alias that leads to itself, or through too many others.
    TooManyAliases,
}

/// Values of records, or why there are none.
type Values<T> = Result<Vec<T>, Trouble>;

/// Which addresses are asked for: each has a type of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records (RFC 3596).
    V6,
}

/// One MX record (RFC 1035 section 3.3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// Lower numbers are tried first.
    pub preference: u16,
    /// In lower case, without a dot at the end; empty for the root (RFC 7505). What is
    /// not printed, and a dot or backslash inside a label, stands as `\ddd`.
    pub host: String,
}

/// Each look-up follows aliases, and ends at its deadline. An empty list means that
/// the name exists and has no such record.
impl Resolver {
    /// Asks these servers, and takes `time` for one question, [`PATIENCE`] usually.
    pub fn new(servers: Vec<SocketAddr>, time: Duration) -> Resolver {
        Resolver { servers, time, first: AtomicUsize::new(0) }
    }

    /// The servers of `/etc/resolv.conf` that can be used; this host, where there are none.
    pub fn system_servers() -> Vec<SocketAddr> {
        servers_in(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// The hosts that take the mail of a domain, in no order.
    pub fn mx(&self, name: &str, deadline: Instant) -> Values<Mx> {
        self.records(name, TYPE::MX, deadline, |data| match data {
            RData::MX(mx) => Some(Mx { preference: mx.preference, host: text_of(&mx.exchange) }),
            _ => None,
        })
    }

    /// The addresses of a host, of one family. An IPv4 address inside IPv6 stays there.
    pub fn addresses(&self, name: &str, family: Family, deadline: Instant) -> Values<IpAddr> {
        let kind = if family == Family::V4 { TYPE::A } else { TYPE::AAAA };
        self.records(name, kind, deadline, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.address.into())),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.address.into())),
            _ => None,
        })
    }

    /// The texts at a name, the strings of each record joined to one. Any octets.
    pub fn txt(&self, name: &str, deadline: Instant) -> Values<Vec<u8>> {
        self.records(name, TYPE::TXT, deadline, |data| match data {
            RData::TXT(txt) => Some(joined(txt)),
            _ => None,
        })
    }

    /// The names that an address claims to have, spelled as in [`Mx`].
    pub fn ptr(&self, address: IpAddr, deadline: Instant) -> Values<String> {
        self.records(&reverse(address), TYPE::PTR, deadline, |data| match data {
            RData::PTR(ptr) => Some(text_of(&ptr.0)),
            _ => None,
        })
    }

    fn records<T>(
        &self,
        name: &str,
        kind: TYPE,
        deadline: Instant,
        value: fn(RData<'static>) -> Option<T>,
    ) -> Values<T> {
        let mut name = name_of(name).ok_or(Trouble::BadName)?;
        for _ in 0..ALIASES_LIMIT {
            match self.ask(&name, kind, deadline)? {
                Found::Records(records) => {
                    return Ok(records.into_iter().filter_map(value).collect());
                }
                // Servers that search for us follow aliases themselves, but some
                // stop half-way.
                Found::Alias(target) => name = target,
                Found::NoSuchName => return Err(Trouble::NoSuchName),
                Found::Ring => break,
            }
        }
        Err(Trouble::TooManyAliases)
    }

    /// One question, to one server after the other, until one says something about
    /// the name. If none does, this gives the last trouble that was more than silence.
    fn ask(&self, name: &Name<'static>, kind: TYPE, deadline: Instant) -> Result<Found, Trouble> {
        let tries = self.servers.len().saturating_mul(ROUNDS);
        let time = self.time / u32::try_from(tries).unwrap_or(u32::MAX).max(1);
        let mut last = Trouble::Silence;
        let mut spoilt = Vec::new();
        let first = self.first.load(Ordering::Relaxed);
        for (number, &server) in self.servers.iter().enumerate().cycle().skip(first).take(tries) {
            // It said that it does not know. It will not know a second later.
            if spoilt.contains(&number) {
                continue;
            }
            let query = question(random_id()?, name, kind).ok_or(Trouble::BadName)?;
            let end = Instant::now().checked_add(time);
            match exchange(server, &query, end.map_or(deadline, |end| end.min(deadline))) {
                Ok(answer) => match read_answer(&answer, name, kind) {
                    Ok(found) => {
                        self.first.store(number, Ordering::Relaxed);
                        return Ok(found);
                    }
                    Err(fault) => {
                        spoilt.push(number);
                        last = Trouble::Failed(format!("the server {server} {fault}"));
                    }
                },
                Err(error) if is_late(&error) => {}
                // "Connection refused" comes from a host where nothing listens.
                // The next round may find that it does again.
                Err(error) => {
                    let what = format!("the exchange with the server {server} failed: {error}");
                    last = Trouble::Failed(what);
                }
            }
        }
        Err(last)
    }
}

impl Trouble {
    /// Whether asking again later will not help.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Trouble::NoSuchName | Trouble::BadName)
    }
}

/// Where the names of an address stand (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = |octet: &u8| format!("{:x}.{:x}.", octet & 0xf, octet >> 4);
            address.octets().iter().rev().map(nibbles).collect::<String>() + "ip6.arpa"
        }
    }
}

/// The addresses in the `nameserver` lines, or loopback. One with a scope
/// (`fe80::1%eth0`) is passed over: the standard library does not read it.
fn servers_in(resolv_conf: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        Some(SocketAddr::new(words.next()?.parse().ok()?, PORT))
    };
    let mut servers: Vec<SocketAddr> = resolv_conf.lines().filter_map(server).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

fn random_id() -> Result<u16, Trouble> {
    let no_numbers = |_| Trouble::Failed("the system has no random numbers".to_owned());
    Ok(u16::from_be_bytes(generate(&SystemRandom::new()).map_err(no_numbers)?.expose()))
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Trouble::NoSuchName => "the name does not exist",
            Trouble::BadName => "no name that DNS can carry",
            Trouble::Silence => "no answer in time",
            Trouble::Failed(what) => what,
            Trouble::TooManyAliases => "aliases in a circle, or too many of them",
        })
    }
}

impl std::error::Error for Trouble {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_that_can_be_used_is_taken_in_order() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver fe80::1%eth0\n\
                    nameserver\n nameserver 2001:db8::1\nnameserver 192.0.2.1 # one\n";
        let servers = |addresses: &[&str]| -> Vec<SocketAddr> {
            addresses.iter().map(|address| address.parse().unwrap()).collect()
        };
        assert_eq!(servers_in(text), servers(&["[2001:db8::1]:53", "192.0.2.1:53"]));
        let none = "nameserver dns.example\nnameservers 192.0.2.1\n";
        assert_eq!(servers_in(none), servers(&["127.0.0.1:53"]));
    }

    #[test]
    fn an_address_is_turned_around_to_ask_for_its_names() {
        for (address, name) in [
            ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
            ("::ffff:192.0.2.1", "1.2.0.192.in-addr.arpa"),
            (
                "2001:db8::567:89ab",
                "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ] {
            assert_eq!(reverse(address.parse().unwrap()), name);
        }
    }
}
