//! Where the mail for a domain goes (RFC 5321 section 5).
//!
//! In: the domain of an address. Out: the hosts to try, in this order, with
//! their addresses; or the [`Answer`] for the recipient, if no host can be tried.
//!
//! Left to others: the questions themselves (`dns/`), and what to do when a
//! host cannot be reached (`delivery.rs`). RCPT asks nothing of this: it would
//! have to wait for other people's servers while a client waits for it.
//!
//! Book: docs/15-finding-the-next-hop.md.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::rand::{SystemRandom, generate};

use crate::dns::{Family, Mx, Resolver, Trouble};
use crate::smtp::address::{Domain, ascii_domain};
use crate::smtp::answer::Answer;

/// RFC 3463 section 3.2: bad destination system address; RFC 7505 section 6:
/// recipient address has null MX.
const BAD_DOMAIN: (u16, u16) = (1, 2);
const NULL_MX: (u16, u16) = (1, 10);
/// RFC 3463 section 3.5: directory server failure, unable to route, routing loop
/// detected.
const DNS_FAILED: (u16, u16) = (4, 3);
const NO_ROUTE: (u16, u16) = (4, 4);
const LOOP: (u16, u16) = (4, 6);

/// How long all look-ups for one domain may take together: one with slow servers
/// must not keep a worker.
pub const LOOK_UPS: Duration = Duration::from_secs(36);
/// More hosts of one domain than this are not looked up. RFC 5321 section 5.1
/// wants two tried at least.
const HOSTS_LIMIT: usize = 10;
/// More addresses of one host and family than this are not kept: its other addresses
/// are the same host, and a second host should get its turn.
const EACH_FAMILY_LIMIT: usize = 3;

/// A host that may take the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its name, in lower case and without a dot at the end; or an address literal.
    pub name: String,
    /// Where it listens, in the order to try. Empty if that cannot be looked up now.
    pub addresses: Vec<SocketAddr>,
}

/// Where the mail for a domain may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hops {
    /// The hosts to try, in this order.
    pub hosts: Vec<Hop>,
    /// Whether there may be more hosts, or more addresses of these: DNS did not say it, or
    /// was not asked.
    pub may_be_more: bool,
}

/// What decides beside the domain.
pub struct Route<'a> {
    /// Whom to ask.
    pub resolver: &'a Resolver,
    /// When all look-ups have to be done; after [`LOOK_UPS`] usually.
    pub deadline: Instant,
    /// Where the hosts listen.
    pub port: u16,
    /// Our own name.
    pub hostname: &'a str,
    /// Whether we listen at an address.
    pub is_listening: &'a dyn Fn(SocketAddr) -> bool,
    /// Whether mail may go to servers on this machine itself.
    pub loopback_hops: bool,
}

/// What became of one host of a domain.
enum Host {
    /// It can be tried there. It may have more addresses, if there was trouble.
    At(Vec<SocketAddr>, Option<Trouble>),
    /// This server.
    Ours,
    /// It has no address, or is not tried for another reason: this one.
    Barred(String),
}

impl Route<'_> {
    /// The hosts to try for `domain`; or what is said of its recipients, if there are none.
    pub fn next_hops(&self, domain: &Domain) -> Result<Hops, Answer> {
        match domain {
            Domain::Literal(address) => self.literal(domain.to_string(), address.to_canonical()),
            Domain::Name(name) => {
                let name = ascii_domain(name).ok_or_else(|| failed(name, &Trouble::BadName))?;
                self.hops(&name, &self.exchanges(&name)?)
            }
        }
    }

    /// A sender named the address, so no question is left.
    fn literal(&self, name: String, address: IpAddr) -> Result<Hops, Answer> {
        let at = SocketAddr::new(address, self.port);
        if (self.is_listening)(at) {
            return Err(to_ourselves(&name, &name));
        }
        if let Some(bar) = self.bar(address) {
            return Err(Answer::never(BAD_DOMAIN, format!("{address} {bar}")));
        }
        Ok(Hops { hosts: vec![Hop { name, addresses: vec![at] }], may_be_more: false })
    }

    /// The hosts that the MX records name, in the order to try. Without any MX
    /// record the domain is its own host (RFC 5321 section 5.1).
    fn exchanges(&self, domain: &str) -> Result<Vec<Mx>, Answer> {
        let records = self.resolver.mx(domain, self.deadline);
        let mut exchanges = records.map_err(|trouble| failed(domain, &trouble))?;
        if exchanges.is_empty() {
            return Ok(vec![Mx { preference: 0, host: domain.to_owned() }]);
        }
        // RFC 7505 section 3 wants a single one, with preference 0. Two of them, or
        // another number, would mean no less.
        exchanges.retain(|mx| !mx.host.is_empty());
        if exchanges.is_empty() {
            return Err(Answer::never(NULL_MX, format!("{domain} takes no mail (null MX)")));
        }
        exchanges.sort_by_cached_key(|mx| (mx.preference, random_lot()));
        Ok(exchanges)
    }

    /// Those of the exchanges that can be tried and come before ourselves.
    fn hops(&self, domain: &str, exchanges: &[Mx]) -> Result<Hops, Answer> {
        let (mut found, mut barred, mut own) = (Vec::new(), Vec::new(), None);
        let few = exchanges.iter().take(HOSTS_LIMIT);
        for (left, Mx { preference, host }) in (1..=few.len() as u32).rev().zip(few) {
            // Names that DNS is silent about leave time for those after them.
            let route = Route { deadline: self.share(left), ..*self };
            match route.host(domain, host) {
                Host::At(addresses, trouble) => {
                    found.push((preference, Hop { name: host.clone(), addresses }, trouble));
                }
                // Those at our own level, or after us, would send it to us: only
                // hosts that are nearer to the goal are left (RFC 5321 section 5.1).
                // The list is sorted, so all that follow are not.
                Host::Ours => {
                    found.retain(|(nearer, ..)| *nearer < preference);
                    own = Some(host);
                    break;
                }
                Host::Barred(why) => barred.push(why),
            }
        }
        if found.iter().any(|(_, hop, _)| !hop.addresses.is_empty()) {
            let is_cut = own.is_none() && exchanges.len() > HOSTS_LIMIT;
            let may_be_more = is_cut || found.iter().any(|(.., trouble)| trouble.is_some());
            let hosts = found.into_iter().map(|(_, hop, _)| hop).collect();
            return Ok(Hops { hosts, may_be_more });
        }
        let trouble = found.into_iter().rev().find_map(|(.., trouble)| trouble);
        Err(match (trouble, own) {
            (Some(trouble), _) => failed(domain, &trouble),
            (None, Some(own)) => to_ourselves(domain, own),
            (None, None) if exchanges.len() > HOSTS_LIMIT => {
                let why = format!("none of the first {HOSTS_LIMIT} mail hosts of {domain} will do");
                Answer::later(NO_ROUTE, why)
            }
            (None, None) => Answer::never(NO_ROUTE, barred.join("; ")),
        })
    }

    /// Looks one host of the domain up.
    fn host(&self, domain: &str, host: &str) -> Host {
        // A mail domain of ours may be the name of a host elsewhere: only our own name,
        // or an address where we listen, says that the host is this server.
        if host.eq_ignore_ascii_case(self.hostname) {
            return Host::Ours;
        }
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Host::Barred(format!(
                "the MX record of {domain} holds the address {address} where a host name belongs"
            ));
        }
        if !is_host_name(host) {
            return Host::Barred(format!("the MX record of {domain} names no host: {host}"));
        }
        let (addresses, trouble) = self.addresses(host);
        if addresses.iter().any(|address| (self.is_listening)(*address)) {
            return Host::Ours;
        }
        let usable = |is_v4| {
            let family = addresses.iter().filter(move |address| address.is_ipv4() == is_v4);
            family.filter(|address| self.bar(address.ip()).is_none()).take(EACH_FAMILY_LIMIT)
        };
        let few: Vec<_> = usable(false).chain(usable(true)).copied().collect();
        if !few.is_empty() || trouble.is_some() {
            return Host::At(few, trouble);
        }
        let why = |ip| Some(format!("{ip}, the address of {host}, {}", self.bar(ip)?));
        let why = addresses.first().and_then(|address| why(address.ip()));
        Host::Barred(why.unwrap_or_else(|| format!("{host} has no address")))
    }

    /// The addresses of a host. Trouble means that there may be more. An IPv4 address
    /// inside IPv6 is taken out, so that it cannot hide that it is our own.
    fn addresses(&self, host: &str) -> (Vec<SocketAddr>, Option<Trouble>) {
        let (mut addresses, mut trouble) = (Vec::new(), None);
        for (family, left) in [(Family::V6, 2), (Family::V4, 1)] {
            // Silence about one family leaves time for the other.
            match self.resolver.addresses(host, family, self.share(left)) {
                Ok(all) => addresses.extend(
                    all.iter().map(|address| SocketAddr::new(address.to_canonical(), self.port)),
                ),
                // There are servers that deny the name when it has no AAAA, so
                // the other question is asked in any case.
                Err(error) if error.is_lasting() => {}
                Err(error) => trouble = Some(error),
            }
        }
        (addresses, trouble)
    }

    /// When the next look-up has to be done, if so many are `left` that share the time.
    fn share(&self, left: u32) -> Instant {
        let now = Instant::now();
        now + self.deadline.saturating_duration_since(now) / left
    }

    /// Why no mail goes to an address. On this machine a server may trust us, and DNS,
    /// or the sender, is a stranger who would speak with our voice.
    fn bar(&self, address: IpAddr) -> Option<&'static str> {
        if address.is_unspecified() || address.is_multicast() {
            return Some("is an address that no host has");
        }
        (address.is_loopback() && !self.loopback_hops)
            .then_some("is this machine itself, where mail goes only with --loopback-hops")
    }
}

fn to_ourselves(domain: &str, own: &str) -> Answer {
    Answer::never(LOOP, format!("mail for {domain} goes to {own}, which is this server: a loop"))
}

/// What trouble with DNS means for a recipient in `domain`.
fn failed(domain: &str, trouble: &Trouble) -> Answer {
    let why = match trouble {
        Trouble::NoSuchName => format!("no such domain: {domain}"),
        trouble => format!("DNS about {domain}: {trouble}"),
    };
    if trouble.is_lasting() {
        Answer::never(BAD_DOMAIN, why)
    } else {
        Answer::later(DNS_FAILED, why)
    }
}

/// Whether a name can be one of a host. Names go into the log, and real hosts have
/// letters, digits, `-`, and, against the rule, `_`.
fn is_host_name(name: &str) -> bool {
    name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
}

/// Equal preferences share the load by chance. Without random numbers they keep
/// the order of the answer.
fn random_lot() -> u64 {
    generate(&SystemRandom::new()).map_or(0, |lot| u64::from_be_bytes(lot.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_dns_is_taken_only_if_it_can_be_one_of_a_host() {
        for good in ["mx_1.x-y.example", "localhost"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in [r"a\032b.example", r"\027[2j", "a/b.example", "mx:25"] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
