//! One attempt at one letter: everybody who still waits for it, once.
//!
//! In: a claimed entry of the queue. Out: the same entry with what was found out,
//! saved; perhaps a bounce on its way to the sender. What a next hop has taken is
//! on disk before anything else is said to it. What will never work is on disk
//! once its bounce is. So a stop at any point leaves somebody waiting who is tried
//! again, and never somebody who waits and is forgotten.
//!
//! Left to others: when the next attempt is made (`worker.rs`), the dialogue
//! (`client.rs`), DNS (`route.rs`), the text of a bounce (`bounce.rs`).
//!
//! Book: docs/14-the-queue.md.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use native_tls::TlsConnector;

use crate::relay::bounce::{Bounce, Failed, header_of};
use crate::relay::client::{Client, ConnectError, Credentials, Dial, Letter, Security};
use crate::relay::dns::Resolver;
use crate::relay::route::Hop;
use crate::relay::{Answer, Verdict};
use crate::smtp::address::{Domain, ForwardPath, ReversePath};
use crate::smtp::reply::Enhanced;
use crate::smtp::site::{Destination, Site};
use crate::smtp::text::printable;
use crate::store::envelope::{self, State};
use crate::store::queue::Claim;
use crate::store::spool::Spool;
use crate::wire::trace::Trace;

/// Addresses of one destination that are tried in one attempt; RFC 5321 section 5.1
/// wants at least two.
const ADDRESSES_LIMIT: usize = 12;
/// Nobody is given up after fewer attempts, however old the letter seems to be: the
/// clock may have been wrong.
const FEWEST_ATTEMPTS: u32 = 2;
/// Retries come further and further apart, up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(4 * 3600);

/// Who carries letters on: everything that all attempts share.
pub struct Courier {
    /// Where letters wait, and where bounces to our own mailboxes go.
    pub spool: Arc<Spool>,
    /// Names and mailboxes, as they are now.
    pub site: Box<dyn Fn() -> Arc<Site> + Send + Sync>,
    /// Where next hops are looked up, if there is no smarthost.
    pub resolver: Resolver,
    /// The port of next hops found by DNS.
    pub port: u16,
    /// The server that takes everything.
    pub smarthost: Option<Smarthost>,
    /// Whether this address is one that we listen on.
    pub is_listening: Box<dyn Fn(SocketAddr) -> bool + Send + Sync>,
    /// Whether dialogues are printed.
    pub trace: bool,
    /// How long one command may take; the other deadlines follow from it.
    pub patience: Duration,
    /// How long after the first attempt the second one is.
    pub retry: Duration,
    /// How old a letter gets before its sender is told that it did not get there.
    pub give_up: Duration,
}

/// What an attempt asks of whoever keeps order among all that are under way.
pub trait Turns {
    /// Whether a letter may go to this destination now.
    fn may_go_to(&mut self, destination: &Domain) -> bool;
    /// What came of it: whether anything was said there about a recipient.
    fn report(&mut self, destination: &Domain, was_heard: bool);
    /// Whether nothing was said there the last time.
    fn is_in_trouble(&self, destination: &Domain) -> bool;
}

/// A server that takes all our mail for others (RFC 5321 section 5 does without DNS then).
pub struct Smarthost {
    /// A name or an IP address.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// Whether TLS begins with the first octet.
    pub is_tls_at_once: bool,
    /// Who we are there.
    pub credentials: Option<Credentials>,
    /// Checks its certificate; `None` to encrypt if it can be had, and check nothing.
    pub connector: Option<TlsConnector>,
}

/// One attempt under way.
struct Attempt<'a, 'q> {
    courier: &'a Courier,
    site: Arc<Site>,
    claim: &'a mut Claim<'q>,
    /// Who will never get it, and why. They count as waiting until their sender has
    /// been told, at the end.
    failed: Vec<(usize, Answer)>,
    /// Who may get it later, and why not now.
    deferred: Vec<(usize, Answer)>,
    /// Whether the entry is gone from the queue.
    is_over: bool,
}

impl Courier {
    /// Tries everybody who waits for this letter. Gives the id of the bounce, if there
    /// is one and it has to travel, too. An error means that something could not be
    /// written down; the entry is as it was, or as the last answer left it.
    pub fn attempt(&self, claim: &mut Claim, turns: &mut dyn Turns) -> io::Result<Option<String>> {
        claim.try_to_write()?;
        let mut attempt = Attempt {
            courier: self,
            site: (self.site)(),
            claim,
            failed: Vec::new(),
            deferred: Vec::new(),
            is_over: false,
        };
        let mut groups = attempt.by_destination();
        // Those from whom nothing was heard the last time come last.
        groups.sort_by_key(|(domain, _)| turns.is_in_trouble(domain));
        for (domain, indices) in groups {
            // Whoever is left out, because too many letters are under way there, has
            // another turn when the others have.
            if turns.may_go_to(&domain) {
                let was_heard = attempt.try_destination(&indices)?;
                turns.report(&domain, was_heard);
            }
        }
        attempt.finish(Timestamp::now())
    }
}

/// How long to wait after this many attempts: `retry` after the first one, and twice
/// as long each time, up to 4 hours.
pub fn pause(retry: Duration, attempts: u32) -> Duration {
    let doubled = 2_u32.checked_pow(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    retry.saturating_mul(doubled).min(LONGEST_RETRY.max(retry))
}

impl Attempt<'_, '_> {
    /// The recipients that wait, by number, those with one next hop together.
    fn by_destination(&self) -> Vec<(Domain, Vec<usize>)> {
        let mut groups: Vec<(Domain, Vec<usize>)> = Vec::new();
        for (index, recipient) in self.claim.entry.recipients.iter().enumerate() {
            if recipient.state != State::Waiting {
                continue;
            }
            let domain = &recipient.address.domain;
            let has_smarthost = self.courier.smarthost.is_some();
            match groups.iter_mut().find(|(same, _)| has_smarthost || same == domain) {
                Some((_, indices)) => indices.push(index),
                None => groups.push((domain.clone(), vec![index])),
            }
        }
        groups
    }

    /// Finds the next hop of these recipients and goes through its addresses until
    /// one has said something about them. Says whether any did, or whether it is
    /// certain without that.
    fn try_destination(&mut self, indices: &[usize]) -> io::Result<bool> {
        let hops = match self.hops(indices) {
            Ok(hops) => hops,
            Err(answer) => {
                self.record_for_all(indices, &answer);
                return Ok(answer.verdict == Verdict::Never);
            }
        };
        let addresses: Vec<(&str, SocketAddr)> = hops
            .iter()
            .flat_map(|hop| hop.addresses.iter().map(|address| (hop.name.as_str(), *address)))
            .collect();
        let mut last = Answer::later((4, 1), "not all mail hosts could be looked up");
        // A host that was not asked may take what all others refuse.
        let mut are_all_never =
            addresses.len() <= ADDRESSES_LIMIT && hops.iter().all(|hop| !hop.addresses.is_empty());
        for (name, address) in addresses.into_iter().take(ADDRESSES_LIMIT) {
            let answer = match self.connect(name, address) {
                Ok(client) => match self.deliver(client, indices)? {
                    None => return Ok(true),
                    Some(answer) => answer,
                },
                Err(answer) => answer,
            };
            log::info!("{}: {address}: {answer}", self.claim.id());
            // One that may take it later outweighs all that never will.
            if answer.verdict == Verdict::Later || are_all_never {
                are_all_never &= answer.verdict == Verdict::Never;
                last = answer;
            }
        }
        self.record_for_all(indices, &last);
        Ok(last.verdict == Verdict::Never)
    }

    /// The servers to try, in this order.
    fn hops(&self, indices: &[usize]) -> Result<Vec<Hop>, Answer> {
        if let Some(smarthost) = &self.courier.smarthost {
            let Smarthost { host, port, .. } = smarthost;
            let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
                Answer::later((4, 3), format!("cannot find the smarthost {host}: {error}"))
            })?;
            return Ok(vec![Hop { name: host.clone(), addresses: addresses.collect() }]);
        }
        let first = indices.first().and_then(|index| self.claim.entry.recipients.get(*index));
        let Some(recipient) = first else { return Ok(Vec::new()) };
        let is_own = |name: &str, addresses: &[SocketAddr]| {
            name.eq_ignore_ascii_case(&self.site.hostname)
                || self.site.has_domain(&name.to_ascii_lowercase())
                || addresses.iter().any(|address| (self.courier.is_listening)(*address))
        };
        let domain = &recipient.address.domain;
        self.courier.resolver.next_hops(domain, self.courier.port, &is_own)
    }

    /// A connection on which a transaction can begin. Encrypted if it can be had;
    /// to a smarthost that knows us, encrypted and checked or not at all.
    fn connect(&self, name: &str, address: SocketAddr) -> Result<Client, Answer> {
        let courier = self.courier;
        let smarthost = courier.smarthost.as_ref();
        let security = match smarthost.and_then(|one| Some((one, one.connector.as_ref()?))) {
            Some((smarthost, connector)) => Security::Verified {
                host: &smarthost.host,
                connector,
                from_first_octet: smarthost.is_tls_at_once,
            },
            None => Security::Opportunistic,
        };
        let trace = courier.trace.then(|| Trace::new(self.claim.id()));
        let mut dial = Dial {
            trace: trace.as_ref(),
            name: &self.site.hostname,
            patience: courier.patience,
            security,
            login: smarthost.and_then(|one| one.credentials.as_ref()),
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
            ConnectError::Answer(answer) => answer,
            ConnectError::Handshake(why) => Answer::later((7, 5), why),
        })
    }

    /// Transactions on one connection, until everybody has an answer. If the server
    /// hangs up before it has said anything about anybody, this gives its last words,
    /// and nobody has an answer.
    fn deliver(&mut self, mut client: Client, indices: &[usize]) -> io::Result<Option<Answer>> {
        let mut left = indices.to_vec();
        while !left.is_empty() && client.is_open() {
            let entry = &self.claim.entry;
            let recipients: Vec<_> = left
                .iter()
                .filter_map(|index| entry.recipients.get(*index))
                .map(|recipient| recipient.address.clone())
                .collect();
            let letter = Letter {
                from: &entry.reverse_path,
                size: entry.size,
                is_8bit: entry.is_8bit,
                // In pure ASCII it needs nothing from the next hop that all do not have.
                smtputf8: entry.smtputf8 && entry.is_8bit,
            };
            let answers = client.deliver(&letter, &recipients, &mut self.claim.message()?);
            if !client.is_open() && !client.was_heard() {
                let lost = answers.iter().flatten().find(|one| one.verdict == Verdict::Later);
                if let Some(lost) = lost {
                    return Ok(Some(lost.clone()));
                }
            }
            let mut again = Vec::new();
            let mut is_news = false;
            for (index, answer) in left.iter().zip(answers) {
                match answer {
                    Some(answer) => is_news |= self.record(*index, answer),
                    None => again.push(*index),
                }
            }
            // On disk before QUIT, and before the next transaction: if we stop now,
            // nobody who has the letter gets it again.
            if is_news {
                self.save()?;
            }
            // The client decides about somebody each time; or this would not end.
            if again.len() == left.len() {
                break;
            }
            left = again;
        }
        let too_many = Answer::later((5, 3), "the next hop takes no more recipients now");
        self.record_for_all(&left, &too_many);
        client.quit();
        Ok(None)
    }

    fn record_for_all(&mut self, indices: &[usize], answer: &Answer) {
        for index in indices {
            self.record(*index, answer.clone());
        }
    }

    /// Notes an answer, and says whether a recipient has the letter now.
    fn record(&mut self, index: usize, answer: Answer) -> bool {
        let id = self.claim.id().to_owned();
        let Some(recipient) = self.claim.entry.recipients.get_mut(index) else { return false };
        recipient.last = answer.to_string();
        let what = match answer.verdict {
            Verdict::Delivered => "delivered to",
            Verdict::Later => "not yet delivered to",
            Verdict::Never => "cannot be delivered to",
        };
        let to = printable(recipient.address.to_string());
        log::info!("{id}: {what} <{to}>: {answer}");
        match answer.verdict {
            Verdict::Delivered => recipient.state = State::Delivered,
            Verdict::Later => self.deferred.push((index, answer)),
            Verdict::Never => self.failed.push((index, answer)),
        }
        recipient.state == State::Delivered
    }

    /// Tells the sender about everybody who will never get it, then writes down when
    /// the others are tried again.
    fn finish(mut self, now: Timestamp) -> io::Result<Option<String>> {
        let courier = self.courier;
        let give_up = after(self.claim.entry.arrived, courier.give_up);
        let attempts = self.claim.entry.attempts.saturating_add(1);
        if now >= give_up && attempts >= FEWEST_ATTEMPTS {
            self.give_up();
        }
        let bounce = self.report(now)?;
        for (index, _) in &self.failed {
            if let Some(recipient) = self.claim.entry.recipients.get_mut(*index) {
                recipient.state = State::Failed;
            }
        }
        let entry = &mut self.claim.entry;
        entry.attempts = attempts;
        // Not later than the moment at which we give up, so that the sender hears of
        // it then.
        let next = after(now, pause(courier.retry, attempts));
        entry.next = if give_up > now { next.min(give_up) } else { next };
        if !self.is_over {
            self.save()?;
        }
        Ok(bounce)
    }

    /// Makes last what was found out so far. A letter for which nobody waits any more
    /// leaves the queue; one that was lost, with nobody to tell, is kept.
    fn save(&mut self) -> io::Result<()> {
        let entry = &self.claim.entry;
        self.is_over = !entry.is_waiting();
        let has_failed = entry.recipients.iter().any(|one| one.state == State::Failed);
        match self.is_over && has_failed && self.way_back().is_none() {
            true => {
                log::error!(
                    "{0}: nobody to tell; the message is kept as {0}.dead",
                    self.claim.id()
                );
                self.claim.bury()
            }
            false => self.claim.save(),
        }
    }

    /// Where a bounce goes; `None` if nobody can be told.
    fn way_back(&self) -> Option<Vec<Destination>> {
        let ReversePath::Mailbox(sender) = &self.claim.entry.reverse_path else { return None };
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let way = self.site.resolve(&ForwardPath::Mailbox(sender.clone()), nowhere, true);
        way.ok().map(|resolved| resolved.destinations)
    }

    /// Whoever waits still has waited long enough. Their sender gets the last answer,
    /// under the code for a time that is over (RFC 3463 section 3.5).
    fn give_up(&mut self) {
        for (index, answer) in mem::take(&mut self.deferred) {
            log::info!("{}: given up after: {answer}", self.claim.id());
            let status = Enhanced { class: 5, subject: 4, detail: 7 };
            self.failed.push((index, Answer { verdict: Verdict::Never, status, ..answer }));
        }
    }

    /// Sends a bounce for all who failed, if there is anybody to send it to. It is on
    /// disk when this returns. Gives its id if it has to go to another server.
    fn report(&self, now: Timestamp) -> io::Result<Option<String>> {
        let ReversePath::Mailbox(sender) = &self.claim.entry.reverse_path else { return Ok(None) };
        if self.failed.is_empty() {
            return Ok(None);
        }
        let Some(destinations) = self.way_back() else {
            let to = printable(sender.to_string());
            log::error!("{}: no bounce to <{to}>, who is refused here", self.claim.id());
            return Ok(None);
        };
        let name = self.courier.spool.name(now);
        let recipients = &self.claim.entry.recipients;
        let failed: Vec<Failed> = self
            .failed
            .iter()
            .filter_map(|(index, answer)| {
                Some(Failed { address: &recipients.get(*index)?.address, answer })
            })
            .collect();
        let bounce = Bounce {
            hostname: &self.site.hostname,
            domain: self.site.home(),
            id: &name.id,
            when: now,
            arrived: self.claim.entry.arrived,
            original_id: self.claim.id(),
            to: sender,
            failed: &failed,
            header: &header_of(&mut self.claim.message()?)?,
            is_utf8: self.claim.entry.smtputf8,
        };
        let mut draft = self.courier.spool.draft(&name, "Return-Path: <>\n", &[])?;
        draft.write(&bounce.to_text())?;
        let mailboxes: Vec<_> = destinations.iter().filter_map(Destination::mailbox).collect();
        let letter = envelope::Letter {
            reverse_path: ReversePath::Null,
            smtputf8: self.claim.entry.smtputf8,
            recipients: destinations.iter().filter_map(Destination::address).cloned().collect(),
            arrived: now,
        };
        let elsewhere = Some(&letter).filter(|letter| !letter.recipients.is_empty());
        self.courier.spool.deliver(draft, &name, &mailboxes, elsewhere)?;
        let to = printable(sender.to_string());
        log::info!("{}: told <{to}> in {}", self.claim.id(), name.id);
        Ok(elsewhere.map(|_| name.id))
    }
}

/// A moment so much later; one beyond all calendars is the last they have.
pub fn after(start: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    start.checked_add(time).unwrap_or(Timestamp::MAX)
}

/// A password may be in it.
impl Debug for Courier {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("Courier")
    }
}
