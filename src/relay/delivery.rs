//! One attempt at one entry of the queue: a letter for one destination.
//!
//! In: a claimed entry. Out: the same entry with what was found out, saved; perhaps a
//! report on its way to the sender. What a next hop has taken is on disk before
//! anything else is said to it. The number of attempts and the time of the next one are
//! on disk before a report is written, and the report is before its recipients count as
//! told. So a stop at any point leaves something that is tried again, and nothing that
//! waits and is forgotten; and whatever fails, the attempts come further apart and end.
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

use crate::relay::client::{Client, ConnectError, Dial, Outgoing, Security, To};
use crate::relay::conclusion::{self, Conclusion};
use crate::relay::courier::{Courier, Smarthost};
use crate::relay::mailbox;
use crate::relay::route::{Hop, LOOK_UPS, Route};
use crate::smtp::address::Domain;
use crate::smtp::answer::{Answer, Verdict};
use crate::smtp::site::Site;
use crate::smtp::text::ascii_address;
use crate::store::envelope::NextHop;
use crate::store::queue::Claim;
use crate::wire::trace::Trace;

/// Addresses of one destination that are tried in one attempt; RFC 5321 section 5.1
/// wants at least two.
const ADDRESSES_LIMIT: usize = 12;
/// X.3.5, system incorrectly configured (RFC 3463 section 3.4).
const NOT_CONFIGURED: (u16, u16) = (3, 5);

/// An attempt under way.
struct Delivery<'a, 'q> {
    courier: &'a Courier,
    site: Arc<Site>,
    claim: &'a mut Claim<'q>,
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

/// Tries everybody who waits for this letter. Says whether anything was said about it,
/// `None` if nobody had to be asked, and what follows from it. An error means that
/// something could not be written down; the entry is as it was, or as the last answer
/// left it.
pub fn attempt(courier: &Courier, claim: &mut Claim) -> io::Result<(Option<bool>, Conclusion)> {
    // Better to find out now than after the next hop has the letter.
    claim.try_to_write()?;
    let site = (courier.site)();
    let mut delivery = Delivery { courier, site, claim, is_unsaved: false, is_over: false };
    let was_heard = delivery.try_waiting()?;
    let conclusion = if delivery.is_over {
        Conclusion::default()
    } else {
        conclusion::conclude(courier, &delivery.site, delivery.claim, Timestamp::now())?
    };
    Ok((was_heard, conclusion))
}

impl Delivery<'_, '_> {
    /// Tries to bring the letter to everybody who waits for it. Says whether anything
    /// was said about it; `None` if nobody waits.
    fn try_waiting(&mut self) -> io::Result<Option<bool>> {
        let waiting = self.claim.entry.waiting();
        if waiting.is_empty() {
            return Ok(None);
        }
        if let NextHop::Mailbox(mailbox) = &self.claim.entry.next_hop {
            let answer = mailbox::deliver(&self.courier.spool, self.claim, mailbox);
            for index in waiting {
                self.record(index, answer.clone(), false);
            }
            self.save_if_delivered()?;
            return Ok(Some(true));
        }
        let mut was_heard = false;
        for (domain, indices) in self.by_domain(&waiting) {
            was_heard |= self.try_domain(&domain, &indices)?;
        }
        Ok(Some(was_heard))
    }

    /// The recipients, by number, those with one next hop together. That is everybody,
    /// unless the entry was made for a smarthost that we do not have any more.
    fn by_domain(&self, waiting: &[usize]) -> Vec<(Domain, Vec<usize>)> {
        let mut groups: Vec<(Domain, Vec<usize>)> = Vec::new();
        let has_smarthost = (self.courier.smarthost)().is_some();
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
    /// better. Says whether a server said anything about the letter, or whether it is
    /// certain without that.
    fn try_domain(&mut self, domain: &Domain, indices: &[usize]) -> io::Result<bool> {
        let mut open: Vec<Open> = indices.iter().map(|&index| Open { index, said: None }).collect();
        let hops = match self.hops(domain) {
            Ok(hops) => hops,
            Err(answer) => {
                let is_certain = answer.verdict == Verdict::Never;
                self.record_open(open, &answer);
                return Ok(is_certain);
            }
        };
        let addresses: Vec<(&str, SocketAddr)> = hops
            .iter()
            .flat_map(|hop| hop.addresses.iter().map(|address| (hop.name.as_str(), *address)))
            .collect();
        // A host that was not asked may take what all others refuse.
        let mut are_all_asked =
            addresses.len() <= ADDRESSES_LIMIT && hops.iter().all(|hop| !hop.addresses.is_empty());
        let mut do_all_refuse = are_all_asked;
        let mut last = Answer::later((4, 1), "not all mail hosts could be looked up");
        let mut was_heard = false;
        let start = Instant::now();
        for (number, (name, address)) in addresses.into_iter().enumerate().take(ADDRESSES_LIMIT) {
            // Two are tried in any case. More of them may not be silent for ever longer.
            if number >= 2 && !was_heard && start.elapsed() > self.courier.patience {
                are_all_asked = false;
                break;
            }
            match self.connect(name, address) {
                Ok(client) => {
                    (open, was_heard) = self.converse(client, open, was_heard)?;
                    do_all_refuse = false;
                }
                Err(answer) => {
                    log::info!("{}: {address}: {answer}", self.claim.id());
                    was_heard |= answer.by.is_some();
                    are_all_asked &= answer.verdict == Verdict::Never;
                    // One that may take it later outweighs all that never will.
                    if answer.verdict == Verdict::Later || do_all_refuse {
                        do_all_refuse &= answer.verdict == Verdict::Never;
                        last = answer;
                    }
                }
            }
            if open.is_empty() {
                return Ok(was_heard);
            }
        }
        if !are_all_asked {
            for one in &mut open {
                one.said.take_if(|said| said.verdict == Verdict::Never);
            }
        }
        self.record_open(open, &last);
        Ok(was_heard)
    }

    /// The servers to try, in this order.
    fn hops(&self, domain: &Domain) -> Result<Vec<Hop>, Answer> {
        if let Some(smarthost) = (self.courier.smarthost)() {
            let Smarthost { host, port, .. } = &*smarthost;
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
                Answer::later((4, 3), format!("cannot find the smarthost {host}: {error}"))
            })?;
            let addresses: Vec<_> = addresses.collect();
            if addresses.iter().any(|address| (self.courier.is_listening)(*address)) {
                let why = format!("the smarthost {host}:{port} is this server: a loop");
                return Err(Answer::never((4, 6), why));
            }
            return Ok(vec![Hop { name: host.clone(), addresses }]);
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
    /// to a smarthost that knows us, encrypted and checked or not at all.
    fn connect(&self, name: &str, address: SocketAddr) -> Result<Client, Answer> {
        let courier = self.courier;
        let smarthost = (courier.smarthost)();
        let smarthost = smarthost.as_deref();
        let security = match smarthost.and_then(|one| Some((one, one.connector.as_ref()?))) {
            Some((smarthost, connector)) => Security::Verified {
                host: &smarthost.host,
                connector,
                from_first_octet: smarthost.is_tls_at_once,
            },
            None => Security::Opportunistic,
        };
        let credentials = match smarthost.and_then(|one| one.login.as_ref()) {
            Some(login) => Some(login().map_err(|why| {
                // The sender may read the answer in a report, and our file is none of its
                // business.
                log::error!("{}: {why}", self.claim.id());
                Answer::later(NOT_CONFIGURED, format!("{name}: we have no login for it now"))
            })?),
            None => None,
        };
        let trace = courier.trace.then(|| Trace::new(self.claim.id()));
        let mut dial = Dial {
            trace: trace.as_ref(),
            name: &self.site.hostname,
            patience: courier.patience,
            security,
            login: credentials.as_ref(),
        };
        match Client::connect(name, address, &dial) {
            Err(ConnectError::Handshake(why)) => {
                log::warn!("{}: {name}: {why}; once more in clear", self.claim.id());
                dial.security = Security::Clear;
                Client::connect(name, address, &dial)
            }
            connected => connected,
        }
        .map_err(|error| match error {
            ConnectError::Answer(answer) | ConnectError::Handshake(answer) => answer,
        })
    }

    /// Transactions on one connection, until nobody is left who could be asked on it.
    /// Gives those who have no final answer, and whether the server said anything.
    fn converse(
        &mut self,
        mut client: Client,
        open: Vec<Open>,
        mut was_heard: bool,
    ) -> io::Result<(Vec<Open>, bool)> {
        let mut later = Vec::new();
        let mut left = open;
        while !left.is_empty() && client.is_open() {
            let answers = self.transaction(&mut client, &left);
            let mut again = Vec::new();
            for (one, answer) in left.into_iter().zip(answers) {
                match answer {
                    // It did not fit into this transaction.
                    None => again.push(one),
                    Some(answer) => {
                        was_heard |= answer.by.is_some();
                        // What we found out about this host is no answer for all of them.
                        if answer.verdict == Verdict::Later || answer.by.is_none() {
                            // Nor does it outweigh one that may take it later.
                            let is_later = answer.verdict == Verdict::Later;
                            let before =
                                one.said.filter(|said| !is_later && said.verdict == Verdict::Later);
                            let said = before.or(Some(answer));
                            later.push(Open { index: one.index, said });
                        } else {
                            self.record(one.index, answer, client.has_dsn());
                        }
                    }
                }
            }
            // On disk before QUIT, and before the next transaction: if we stop now,
            // nobody who has the letter gets it again.
            self.save_if_delivered()?;
            left = again;
        }
        let full = Answer::later((5, 3), "the next hop takes no more recipients now");
        later.extend(left.into_iter().map(|one| Open { said: Some(full.clone()), ..one }));
        client.quit();
        Ok((later, was_heard))
    }

    /// One transaction for everybody who is left.
    fn transaction(&self, client: &mut Client, left: &[Open]) -> Vec<Option<Answer>> {
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
        let letter = &entry.letter;
        let outgoing = Outgoing {
            from: &letter.reverse_path,
            dsn: &letter.dsn,
            size: letter.size + (delivered_to.len() + delivered_to.lines().count()) as u64,
            is_8bit: letter.is_8bit,
            needs_smtputf8: letter.needs_smtputf8,
        };
        client.deliver(&outgoing, &recipients, &mut Cursor::new(delivered_to).chain(message))
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
        conclusion::record(self.claim, index, answer, is_passed_on);
    }

    /// Writes down who has the letter. An entry about which nothing is left to do leaves
    /// the queue.
    fn save_if_delivered(&mut self) -> io::Result<()> {
        if self.claim.entry.is_over() {
            self.is_over = true;
            return self.claim.end();
        }
        if std::mem::take(&mut self.is_unsaved) { self.claim.save() } else { Ok(()) }
    }
}
