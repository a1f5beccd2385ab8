//! One attempt at one entry of the queue: a letter for one destination.
//!
//! In: a claimed entry. Out: the same entry with what was found out, saved; perhaps a
//! report on its way to the sender. What a next hop has taken is on disk before
//! anything else is said to it. The number of attempts and the time of the next one are
//! on disk before a report is written, and the report is before its recipients count as
//! told. So a stop at any point leaves something that is tried again, and nothing that
//! waits and is forgotten; and whatever fails, the attempts come further apart, and the next
//! hop is not asked for ever.
//!
//! Left to others: when the next attempt is made (`plan.rs`, `worker.rs`), the dialogue
//! (`client/`), DNS (`route.rs`), the text of a report (`report/`).
//!
//! Book: docs/14-the-queue.md.

use std::io::{self, Cursor, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::relay::client::{Client, ConnectError, Dial, LONGEST_IN_TIMEOUTS, Security, To};
use crate::relay::conclusion::{self, Conclusion, note_answer};
use crate::relay::courier::{Courier, Smarthost};
use crate::relay::plan::Manner;
use crate::relay::route::{Hop, Hops, LOOK_UPS, Route};
use crate::smtp::address::Domain;
use crate::smtp::answer::{Answer, Verdict};
use crate::smtp::site::Site;
use crate::smtp::text::ascii_address;
use crate::store::draft::crlf_octets;
use crate::store::envelope::NextHop;
use crate::store::queue::Claim;
use crate::wire::trace::Trace;

/// Addresses of one destination that are tried in one attempt; RFC 5321 section 5.1
/// wants at least two.
const ADDRESSES_LIMIT: usize = 12;

/// X.1.5, the address is valid (RFC 3463 section 3.2).
const VALID: (u16, u16) = (1, 5);
/// X.2.0, other or undefined mailbox status (section 3.3).
const MAILBOX: (u16, u16) = (2, 0);
/// X.3.5, system incorrectly configured (section 3.4).
const NOT_CONFIGURED: (u16, u16) = (3, 5);

/// An attempt under way.
struct Delivery<'a, 'q> {
    courier: &'a Courier,
    site: Arc<Site>,
    /// The server that takes everything, if there is one.
    smarthost: Option<Arc<Smarthost>>,
    claim: &'a mut Claim<'q>,
    /// Whether anything was said about the letter; unknown while nobody had to be asked.
    manner: Manner,
    /// Whether somebody got the letter of whom the envelope does not know it yet.
    is_unsaved: bool,
    /// Whether the entry is gone from the queue.
    is_over: bool,
}

/// A recipient who has no final answer in this attempt, by number, and what was said
/// about it so far.
struct Open {
    index: usize,
    said: Option<Answer>,
}

/// Tries everybody who waits for this letter. Says how the destination was, and what
/// follows. `before` is how the destination was the last time. An error means that something
/// could not be written down; the entry is as it was, or as the last answer left it.
pub fn attempt(
    courier: &Courier,
    claim: &mut Claim,
    before: Manner,
) -> io::Result<(Manner, Conclusion)> {
    // Better to find out now than after the next hop has the letter.
    claim.try_to_write()?;
    let mut delivery = Delivery {
        courier,
        site: (courier.site)(),
        smarthost: (courier.smarthost)(),
        claim,
        manner: Manner::Unknown,
        is_unsaved: false,
        is_over: false,
    };
    // A host that was silent the last time has few places. Letters that are too old leave them
    // to those that are not.
    let is_too_old = conclusion::is_too_old(courier, &delivery.claim.entry, Timestamp::now());
    if before != Manner::Silent || !is_too_old {
        delivery.try_waiting()?;
    }
    let Delivery { site, manner, is_over, .. } = delivery;
    if is_over {
        return Ok((manner, Conclusion::default()));
    }
    Ok((manner, conclusion::conclude(courier, &site, claim, Timestamp::now())?))
}

impl Delivery<'_, '_> {
    /// Tries to bring the letter to everybody who waits for it.
    fn try_waiting(&mut self) -> io::Result<()> {
        let waiting = self.claim.entry.waiting();
        if waiting.is_empty() {
            return Ok(());
        }
        if let NextHop::Mailbox(mailbox) = &self.claim.entry.next_hop {
            let answer = match self.courier.spool.deliver_waiting(self.claim, mailbox) {
                Ok(()) => Answer::delivered(VALID, "the letter is in the mailbox"),
                Err(error) => {
                    Answer::later(MAILBOX, format!("the mailbox cannot be written: {error}"))
                }
            };
            self.manner = Manner::Heard;
            for index in waiting {
                self.record(index, answer.clone(), false);
            }
            return self.write_down();
        }
        // Until somebody says something.
        self.manner = Manner::Silent;
        let start = Instant::now();
        for (domain, indices) in self.by_domain(&waiting) {
            self.try_domain(&domain, &indices)?;
        }
        // To say something now and then, so that each step is in time, is as good as silence.
        let is_slow = start.elapsed() > self.courier.timeout;
        if is_slow && self.claim.entry.waiting().len() == waiting.len() {
            self.manner = Manner::Silent;
        }
        Ok(())
    }

    /// The recipients, by number, those with one next hop together. That is everybody,
    /// unless the entry was made for a smarthost that we do not have any more.
    fn by_domain(&self, waiting: &[usize]) -> Vec<(Domain, Vec<usize>)> {
        let mut groups: Vec<(Domain, Vec<usize>)> = Vec::new();
        let has_smarthost = self.smarthost.is_some();
        for &index in waiting {
            let Some(recipient) = self.claim.entry.recipients.get(index) else { continue };
            let domain = &recipient.address.domain;
            match groups.iter_mut().find(|(same, _)| has_smarthost || same == domain) {
                Some((_, indices)) => indices.push(index),
                None => groups.push((domain.clone(), vec![index])),
            }
        }
        groups
    }

    /// Goes through the addresses of the next hop until everybody has a final answer
    /// (RFC 5321 section 5.1): after every 4yz, close or time-out the next address may do
    /// better.
    fn try_domain(&mut self, domain: &Domain, indices: &[usize]) -> io::Result<()> {
        let mut open: Vec<Open> = indices.iter().map(|&index| Open { index, said: None }).collect();
        let Hops { hosts, may_be_more } = match self.hops(domain) {
            Ok(hops) => hops,
            Err(answer) => {
                self.hear(&answer);
                self.record_open(open, &answer);
                return Ok(());
            }
        };
        let addresses: Vec<(&str, SocketAddr)> = hosts
            .iter()
            .flat_map(|hop| hop.addresses.iter().map(|address| (hop.name.as_str(), *address)))
            .collect();
        let mut are_all_asked = addresses.len() <= ADDRESSES_LIMIT && !may_be_more;
        let mut refusals = Vec::new();
        let start = Instant::now();
        for (number, &(name, address)) in addresses.iter().enumerate().take(ADDRESSES_LIMIT) {
            // Two are tried in any case. After them a host that was silent the last time has
            // no more time than one server has to answer, and any other what one may take.
            let is_silent = self.manner == Manner::Silent;
            let timeouts = if is_silent { 1 } else { LONGEST_IN_TIMEOUTS };
            if number >= 2 && start.elapsed() > self.courier.timeout.saturating_mul(timeouts) {
                are_all_asked = false;
                break;
            }
            match self.connect(name, address) {
                Ok(client) => open = self.converse(client, open)?,
                Err(answer) => {
                    log::info!("{}: {address}: {answer}", self.claim.id());
                    self.hear(&answer);
                    refusals.push(answer);
                }
            }
            if open.is_empty() {
                return Ok(());
            }
        }
        // What hosts lack is final if all of them lack something, and none may come back.
        let is_never = |answer: &Answer| answer.verdict == Verdict::Never;
        if !(are_all_asked && refusals.iter().all(is_never)) {
            open.iter_mut().for_each(|one| drop(one.said.take_if(|said| is_never(said))));
        }
        self.record_open(open, &sum_of(&refusals, are_all_asked));
        Ok(())
    }

    /// The servers to try; or what is said of the recipients, if there are none.
    fn hops(&self, domain: &Domain) -> Result<Hops, Answer> {
        if let Some(Smarthost { host, port, .. }) = self.smarthost.as_deref() {
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
                Answer::later((4, 3), format!("cannot find the smarthost {host}: {error}"))
            })?;
            let addresses: Vec<_> = addresses.collect();
            if addresses.iter().any(|address| (self.courier.is_listening)(*address)) {
                let why = format!("the smarthost {host}:{port} is this server: a loop");
                return Err(Answer::never((4, 6), why));
            }
            let hosts = vec![Hop { name: host.clone(), addresses }];
            return Ok(Hops { hosts, may_be_more: false });
        }
        let route = Route {
            resolver: &self.courier.resolver,
            deadline: Instant::now() + LOOK_UPS,
            port: self.courier.port,
            hostname: &self.site.hostname,
            is_listening: &self.courier.is_listening,
            loopback_hops: self.courier.loopback_hops,
        };
        route.next_hops(domain)
    }

    /// A connection on which a transaction can begin. Encrypted if it can be had;
    /// to a smarthost with a login, an authority of its own or port 465, encrypted and checked
    /// or not at all.
    fn connect(&self, name: &str, address: SocketAddr) -> Result<Client, Answer> {
        let smarthost = self.smarthost.as_deref();
        let security = match smarthost {
            Some(Smarthost { host, connector: Some(connector), is_tls_at_once, .. }) => {
                Security::Verified { host, connector, from_first_octet: *is_tls_at_once }
            }
            _ => Security::Opportunistic,
        };
        let login = smarthost.and_then(|one| one.login.as_ref());
        let credentials = login.map(|login| login()).transpose().map_err(|why| {
            // The sender may read the answer in a report, and our file is none of its
            // business.
            log::error!("{}: {why}", self.claim.id());
            Answer::later(NOT_CONFIGURED, format!("{name}: we have no login for it now"))
        })?;
        let trace = self.courier.trace.then(|| Trace::new(self.claim.id()));
        let mut dial = Dial {
            trace: trace.as_ref(),
            name: &self.site.hostname,
            timeout: self.courier.timeout,
            security,
            login: credentials.as_ref(),
        };
        let mut connected = Client::connect(name, address, &dial);
        if let Err(ConnectError::Handshake(why)) = &connected {
            log::warn!("{}: {why}; once more in clear", self.claim.id());
            dial.security = Security::Clear;
            connected = Client::connect(name, address, &dial);
        }
        connected.map_err(|(ConnectError::Answer(answer) | ConnectError::Handshake(answer))| answer)
    }

    /// Transactions on one connection, until nobody is left who could be asked on it.
    /// Gives those who have no final answer.
    fn converse(&mut self, mut client: Client, open: Vec<Open>) -> io::Result<Vec<Open>> {
        let (mut left, mut later) = (open, Vec::new());
        while !left.is_empty() && client.is_open() {
            let answers = self.send_to(&mut client, &left);
            let mut again = Vec::new();
            for (one, answer) in left.into_iter().zip(answers) {
                let Some(answer) = answer else {
                    // It did not fit into this transaction.
                    again.push(one);
                    continue;
                };
                self.hear(&answer);
                // What we found out about this host is no answer for all of them, and does
                // not outweigh one that may take it later.
                if answer.verdict == Verdict::Later || answer.by.is_none() {
                    let is_less = answer.verdict == Verdict::Never;
                    let before = one.said.filter(|said| is_less && said.verdict == Verdict::Later);
                    later.push(Open { index: one.index, said: before.or(Some(answer)) });
                } else {
                    self.record(one.index, answer, client.has_dsn());
                }
            }
            // On disk before QUIT, and before the next transaction: if we stop now,
            // nobody who has the letter gets it again.
            self.write_down()?;
            left = again;
        }
        let full = Answer::later((5, 3), "the next hop takes no more recipients now");
        later.extend(left.into_iter().map(|one| Open { said: Some(full.clone()), ..one }));
        client.quit();
        Ok(later)
    }

    /// One transaction for everybody who is left.
    fn send_to(&self, client: &mut Client, left: &[Open]) -> Vec<Option<Answer>> {
        let entry = &self.claim.entry;
        let message = match self.claim.message() {
            Ok(message) => message,
            // An attempt that has come to nothing, like any other: it counts.
            Err(error) => {
                let why = format!("the message cannot be read: {error}");
                return vec![Some(Answer::later((3, 0), why)); left.len()];
            }
        };
        let recipients: Vec<_> = left
            .iter()
            .filter_map(|one| entry.recipients.get(one.index))
            .map(|one| To { mailbox: &one.address, dsn: &one.dsn })
            .collect();
        // Whoever gets it through an alias, and whoever gets it back, can see so.
        let delivered_to = match &entry.alias {
            Some(alias) => format!("Delivered-To: {}\n", ascii_address(&alias.to_string())),
            None => String::new(),
        };
        let mut letter = entry.letter.clone();
        letter.size += crlf_octets(&delivered_to);
        client.carry(&letter, &recipients, &mut Cursor::new(delivered_to).chain(message))
    }

    /// Whoever is still open is put off, with what was said about it, or with what was
    /// found out about the next hop.
    fn record_open(&mut self, open: Vec<Open>, answer: &Answer) {
        for Open { index, said } in open {
            self.record(index, said.unwrap_or_else(|| answer.clone()), false);
        }
    }

    fn record(&mut self, index: usize, answer: Answer, is_passed_on: bool) {
        self.is_unsaved |= answer.verdict == Verdict::Delivered;
        note_answer(self.claim, index, answer, is_passed_on);
    }

    /// Takes note whether a server has said this. What is certain without one, or of one
    /// that lacks what the letter needs, is as good as its word.
    fn hear(&mut self, answer: &Answer) {
        if answer.by.is_some() || answer.verdict == Verdict::Never {
            self.manner = Manner::Heard;
        }
    }

    /// Writes down who has the letter. An entry about which nothing is left to do leaves
    /// the queue.
    fn write_down(&mut self) -> io::Result<()> {
        self.is_over = self.claim.entry.is_over();
        if self.is_over {
            return self.claim.end();
        }
        if std::mem::take(&mut self.is_unsaved) { self.claim.save() } else { Ok(()) }
    }
}

/// What is said to those whom no host would hear. One that may take the letter later
/// outweighs all that never will, and so does one that was not asked.
fn sum_of(refusals: &[Answer], are_all_asked: bool) -> Answer {
    let put_off = refusals.iter().rfind(|answer| answer.verdict == Verdict::Later);
    let refused = refusals.last().filter(|_| are_all_asked);
    let not_asked = || Answer::later((4, 1), "not all mail hosts were asked");
    put_off.or(refused).cloned().unwrap_or_else(not_asked)
}
