//! Where the mail for a domain goes (RFC 5321 section 5).
//!
//! In: the domain of an address. Out: the hosts to try, in this order, with
//! their addresses; or the [`Answer`] for the recipient, if no host can be tried.
//!
//! Left to others: the questions themselves (`dns.rs`), and what to do when a
//! host cannot be reached (`attempt.rs`). RCPT asks nothing of this: it would
//! have to wait for other people's servers while a client waits for it.
//!
//! Book: docs/15-finding-the-next-hop.md.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ring::rand::{SecureRandom, SystemRandom};
use simple_dns::rdata::{MX, RData};
use simple_dns::{Name, TYPE};

use crate::relay::Answer;
use crate::relay::dns::{Resolver, Trouble};
use crate::smtp::address::{Domain, ascii_domain};

/// RFC 3463 section 3.2: bad destination system address; RFC 7505 section 6:
/// recipient address has null MX.
const BAD_DOMAIN: (u16, u16) = (1, 2);
const NULL_MX: (u16, u16) = (1, 10);
/// RFC 3463 section 3.5: directory server failure, unable to route, routing loop
/// detected.
const DNS_FAILED: (u16, u16) = (4, 3);
const NO_ROUTE: (u16, u16) = (4, 4);
const LOOP: (u16, u16) = (4, 6);

/// More hosts of one domain than this are not looked up. RFC 5321 section 5.1
/// wants two tried at least.
const HOSTS_LIMIT: usize = 10;
/// More addresses of one host and family than this are not kept: its other addresses
/// are the same host, and a second host should get its turn.
const EACH_FAMILY_LIMIT: usize = 3;
/// After this many times the patience of one try no further host is looked up:
/// a domain with slow servers must not keep a worker.
const LOOK_UPS_LIMIT: u32 = 12;

/// A host that may take the mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its name, in lower case and without a dot at the end; or an address literal.
    pub name: String,
    /// Where it listens, in the order to try. Empty if that cannot be looked up now.
    pub addresses: Vec<SocketAddr>,
}

/// One MX record that names a host.
struct Exchange {
    /// Lower numbers are tried first.
    preference: u16,
    /// Drawn anew each time: it decides among equal preferences.
    lot: u64,
    host: String,
}

impl Resolver {
    /// The hosts to try for `domain`, in this order, at `port`.
    ///
    /// `is_own` says whether a host is this server, by its name or by its
    /// addresses (of which there may be none).
    pub fn next_hops(
        &self,
        domain: &Domain,
        port: u16,
        is_own: &dyn Fn(&str, &[SocketAddr]) -> bool,
    ) -> Result<Vec<Hop>, Answer> {
        let name = match domain {
            Domain::Literal(address) => {
                let name = domain.to_string();
                let address = address.to_canonical();
                let addresses = vec![SocketAddr::new(address, port)];
                return match is_own(&name, &addresses) {
                    _ if !is_host(address) => {
                        Err(Answer::never(BAD_DOMAIN, format!("no host has the address {name}")))
                    }
                    true => Err(to_ourselves(&name, &name)),
                    false => Ok(vec![Hop { name, addresses }]),
                };
            }
            Domain::Name(name) => {
                ascii_domain(name).ok_or_else(|| failed(name, &Trouble::BadName))?
            }
        };
        let exchanges = self.exchanges(&name)?;
        self.hops(&name, &exchanges, port, is_own)
    }

    /// The hosts that the MX records name, in the order to try. Without any MX
    /// record the domain is its own host (RFC 5321 section 5.1).
    fn exchanges(&self, domain: &str) -> Result<Vec<Exchange>, Answer> {
        let records = self.query(domain, TYPE::MX).map_err(|trouble| failed(domain, &trouble))?;
        let records: Vec<MX> = records
            .into_iter()
            .filter_map(|data| match data {
                RData::MX(mx) => Some(mx),
                _ => None,
            })
            .collect();
        if records.is_empty() {
            return Ok(vec![Exchange { preference: 0, lot: 0, host: domain.to_owned() }]);
        }
        // RFC 7505 section 3 wants a single one, with preference 0. Two of them, or
        // another number, would mean no less.
        if records.iter().all(|mx| is_root(&mx.exchange)) {
            return Err(Answer::never(NULL_MX, format!("{domain} takes no mail (null MX)")));
        }
        let mut exchanges: Vec<Exchange> = records
            .iter()
            .filter_map(|mx| {
                let host = host_name(&mx.exchange)?;
                Some(Exchange { preference: mx.preference, lot: random_lot(), host })
            })
            .collect();
        exchanges.sort_by_key(|exchange| (exchange.preference, exchange.lot));
        Ok(exchanges)
    }

    /// Those of the exchanges that have an address and come before ourselves.
    fn hops(
        &self,
        domain: &str,
        exchanges: &[Exchange],
        port: u16,
        is_own: &dyn Fn(&str, &[SocketAddr]) -> bool,
    ) -> Result<Vec<Hop>, Answer> {
        let start = Instant::now();
        let (mut found, mut trouble, mut own) = (Vec::new(), None, None);
        for exchange in exchanges.iter().take(HOSTS_LIMIT) {
            if start.elapsed() > self.patience * LOOK_UPS_LIMIT {
                trouble = Some(Trouble::Silence);
                break;
            }
            let (addresses, is_known) = match self.addresses(&exchange.host, port) {
                Ok(addresses) => (addresses, true),
                Err(error) => {
                    trouble = Some(error);
                    (Vec::new(), false)
                }
            };
            // Those at our own level, or behind us, would send it to us: only
            // hosts that are nearer to the goal are left (RFC 5321 section 5.1).
            // The list is sorted, so all that follow are not.
            if is_own(&exchange.host, &addresses) {
                found.retain(|(preference, _)| *preference < exchange.preference);
                own = Some(&exchange.host);
                break;
            }
            // One that has none is no host. One whose addresses nobody knows now may be.
            if !addresses.is_empty() || !is_known {
                found.push((exchange.preference, Hop { name: exchange.host.clone(), addresses }));
            }
        }
        let has_addresses = found.iter().any(|(_, hop)| !hop.addresses.is_empty());
        match (has_addresses, trouble, own) {
            (true, _, _) => Ok(found.into_iter().map(|(_, hop)| hop).collect()),
            (false, Some(trouble), _) => Err(failed(domain, &trouble)),
            (false, None, Some(own)) => Err(to_ourselves(domain, own)),
            (false, None, None) if exchanges.len() > HOSTS_LIMIT => {
                let why = format!("the first {HOSTS_LIMIT} mail hosts of {domain} have no address");
                Err(Answer::later(NO_ROUTE, why))
            }
            (false, None, None) => {
                Err(Answer::never(NO_ROUTE, format!("no mail host of {domain} has an address")))
            }
        }
    }

    /// All addresses of a host; none if it has none. An error means that there
    /// may be some.
    fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Trouble> {
        let (mut addresses, mut trouble) = (Vec::new(), None);
        for kind in [TYPE::AAAA, TYPE::A] {
            match self.query(host, kind) {
                Ok(records) => {
                    let usable = records.iter().filter_map(address).take(EACH_FAMILY_LIMIT);
                    addresses.extend(usable.map(|address| SocketAddr::new(address, port)));
                }
                // There are servers that deny the name when it has no AAAA, so
                // the other question is asked in any case.
                Err(error) if error.is_lasting() => {}
                Err(error) => trouble = Some(error),
            }
        }
        match trouble {
            Some(trouble) if addresses.is_empty() => Err(trouble),
            _ => Ok(addresses),
        }
    }
}

fn to_ourselves(domain: &str, own: &str) -> Answer {
    Answer::never(LOOP, format!("mail for {domain} goes to {own}, which is this server: a loop"))
}

/// What trouble with DNS means for a recipient in `domain`.
fn failed(domain: &str, trouble: &Trouble) -> Answer {
    match trouble {
        Trouble::NoSuchName => Answer::never(BAD_DOMAIN, format!("no such domain: {domain}")),
        Trouble::BadName => {
            Answer::never(BAD_DOMAIN, format!("no name that DNS can carry: {domain}"))
        }
        trouble => Answer::later(DNS_FAILED, format!("DNS about {domain}: {trouble}")),
    }
}

/// The address in a record. An IPv4 address inside IPv6 is taken out, so that it
/// cannot hide that it is our own; "no address" and "everybody" are no hosts.
fn address(data: &RData) -> Option<IpAddr> {
    let address = match data {
        RData::A(a) => IpAddr::V4(a.address.into()),
        RData::AAAA(aaaa) => IpAddr::V6(aaaa.address.into()).to_canonical(),
        _ => return None,
    };
    is_host(address).then_some(address)
}

/// Whether an address can be that of one host.
fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

fn is_root(name: &Name) -> bool {
    name.get_labels().is_empty()
}

/// The text of a name that can be one of a host. DNS carries any octet in a
/// label; names go into the log, and real hosts have letters, digits, `-`, and,
/// against the rule, `_`.
fn host_name(name: &Name) -> Option<String> {
    let is_fine = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let labels = name.get_labels();
    let is_host =
        !labels.is_empty() && labels.iter().all(|label| label.as_ref().iter().all(is_fine));
    is_host.then(|| name.to_string().to_ascii_lowercase())
}

/// Equal preferences share the load by chance. Without random numbers they keep
/// the order of the answer.
fn random_lot() -> u64 {
    let mut octets = [0; 8];
    match SystemRandom::new().fill(&mut octets) {
        Ok(()) => u64::from_be_bytes(octets),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::Label;
    use simple_dns::rdata::{A, AAAA};

    #[test]
    fn a_name_from_dns_is_taken_only_if_it_can_be_one_of_a_host() {
        let host = |text: &str| host_name(&Name::new(text).unwrap());
        assert_eq!(host("MX_1.x-Y.example."), Some("mx_1.x-y.example".to_owned()));
        assert_eq!(host("."), None);
        assert_eq!(host("a b.example"), None);
        assert_eq!(host(r"a\.b.example"), None);
        let escape = Name::new_with_labels(&[Label::new(&b"\x1b[2J"[..]).unwrap()]);
        assert_eq!(host_name(&escape), None);
    }

    #[test]
    fn an_address_inside_another_is_taken_out_and_no_address_is_none() {
        let v4 = |text: &str| {
            let bits = text.parse::<std::net::Ipv4Addr>().unwrap().to_bits();
            address(&RData::A(A { address: bits })).map(|address| address.to_string())
        };
        let v6 = |text: &str| {
            let bits = text.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
            address(&RData::AAAA(AAAA { address: bits })).map(|address| address.to_string())
        };
        assert_eq!(v4("192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(v6("2001:db8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(v6("::ffff:127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!((v4("0.0.0.0"), v6("::"), v4("224.0.0.1")), (None, None, None));
    }
}
