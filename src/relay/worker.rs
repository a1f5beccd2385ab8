//! When each letter is tried, and by which thread.
//!
//! In: ids of entries, as they arrive or are found in the queue. Out: one attempt
//! after the other, each in a thread of its own, at the time its envelope names.
//! There is a bound on threads, and a lower one on threads for one destination, so
//! that a host which is dead, and keeps everybody waiting who talks to it, does
//! not stop the mail for others.
//!
//! The schedule is only a memory of what the files say. Several processes may share
//! a queue: whoever claims an entry first tries it, and now and then each looks for
//! entries that it does not know.
//!
//! Left to others: what is done in an attempt (`attempt.rs`).
//!
//! Book: docs/14-the-queue.md.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::relay::attempt::{Courier, Turns, after};
use crate::smtp::address::Domain;
use crate::store::envelope::{Entry, State};
use crate::store::queue::Queue;

/// Letters under way at a time.
const THREADS: usize = 32;
/// Letters under way at a time to one destination.
const THREADS_EACH: usize = 8;
/// The same, where nothing was heard the last time (RFC 5321 section 4.5.4.1 wants such
/// hosts remembered): it is tried on, but it shall not keep many threads waiting.
const THREADS_IN_TROUBLE: usize = 2;
/// How many such destinations are remembered: a bound on memory.
const TROUBLES_LIMIT: usize = 10_000;
/// How often to look for entries of other processes.
const RESCAN: Duration = Duration::from_secs(60);
/// How long to wait when the system has no thread for us, or another process has the
/// letter.
const PAUSE: Duration = Duration::from_secs(1);
/// An attempt uses few buffers on the stack, and nothing recurses.
const STACK: usize = 256 * 1024;

/// What is to be tried when.
#[derive(Debug)]
pub struct Schedule {
    plan: Mutex<Plan>,
    /// Told whenever there may be something to do.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Plan {
    /// For each destination: when its letters are due.
    waiting: BTreeMap<String, BTreeSet<(Timestamp, String)>>,
    /// Every id in `waiting` or under way, so that none is there twice.
    known: HashSet<String>,
    /// How many letters are under way to each destination; no entry for none.
    under_way: HashMap<String, usize>,
    /// All of them together.
    threads: usize,
    /// Where nothing was said about a recipient the last time.
    troubles: HashSet<String>,
    /// Whether all letters have the same next hop.
    has_smarthost: bool,
    /// Ids that are tried whatever their envelope says about the time.
    at_once: HashSet<String>,
    /// Somebody wants everything tried now.
    is_all_wanted: bool,
    is_stopping: bool,
}

/// A letter that is due.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    destination: String,
    id: String,
    /// Whether it is tried even before its time.
    at_once: bool,
}

impl Schedule {
    /// For an empty queue. With a smarthost there is one destination for all.
    pub fn new(has_smarthost: bool) -> Schedule {
        let plan = Plan { has_smarthost, ..Plan::default() };
        Schedule { plan: Mutex::new(plan), changed: Condvar::new() }
    }

    /// A new entry is in the queue: it is tried at once.
    pub fn arrived(&self, queue: &Queue, id: &str) {
        self.learn(queue, id);
        self.changed.notify_all();
    }

    /// Everything in the queue is tried now, whatever its time.
    pub fn try_all_now(&self) {
        self.plan().is_all_wanted = true;
        self.changed.notify_all();
    }

    /// No attempt begins any more.
    pub fn stop(&self) {
        self.plan().is_stopping = true;
        self.changed.notify_all();
    }

    /// Waits until no attempt is under way or `limit` has passed, and says how many
    /// are left.
    pub fn drain(&self, limit: Duration) -> usize {
        let plan = self.plan();
        let busy = |plan: &mut Plan| plan.threads > 0;
        let waited = self.changed.wait_timeout_while(plan, limit, busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads
    }

    /// Reads an envelope and notes when it is due.
    fn learn(&self, queue: &Queue, id: &str) {
        if self.plan().known.contains(id) {
            return;
        }
        match queue.read(id) {
            Ok(Some(Ok(entry))) => self.plan().add(id, &entry),
            Ok(None) => {}
            // A claim sets it aside, and says why.
            Ok(Some(Err(_))) => drop(queue.claim(id)),
            Err(error) => log::error!("cannot read the queue entry {id}: {error}"),
        }
    }

    /// Looks for entries that we do not know, such as those of another process, or
    /// of one that is gone.
    fn rescan(&self, queue: &Queue) {
        match queue.ids() {
            Ok(ids) => ids.iter().for_each(|id| self.learn(queue, id)),
            Err(error) => log::error!("cannot read the queue: {error}"),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        // Nothing panics while it holds this lock.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries what is due, until [`Schedule::stop`].
pub fn run(schedule: &Arc<Schedule>, courier: &Arc<Courier>) {
    let mut next_rescan = Instant::now();
    loop {
        if next_rescan <= Instant::now() {
            schedule.rescan(courier.spool.queue());
            next_rescan = Instant::now() + RESCAN;
        }
        let mut plan = schedule.plan();
        if plan.is_stopping {
            return;
        }
        if mem::take(&mut plan.is_all_wanted) {
            drop(plan);
            schedule.rescan(courier.spool.queue());
            schedule.plan().want_all();
            continue;
        }
        let now = Timestamp::now();
        if let Some(due) = plan.take(now) {
            drop(plan);
            start(due, schedule, courier);
            continue;
        }
        let wait = plan.time_to_next(now).unwrap_or(RESCAN);
        let wait = wait.min(next_rescan.saturating_duration_since(Instant::now()));
        drop(schedule.changed.wait_timeout(plan, wait));
    }
}

/// One attempt in a thread of its own.
fn start(due: Due, schedule: &Arc<Schedule>, courier: &Arc<Courier>) {
    let (schedule, courier) = (Arc::clone(schedule), Arc::clone(courier));
    let id = due.id.clone();
    // The time that counts if there is no thread, or if a bug ends it.
    let next = Some(after(Timestamp::now(), courier.retry));
    let waits_for = due.destination.clone();
    let mut ticket = Ticket { schedule, due, next, waits_for };
    let work = move || {
        ticket.next = attempt(&mut ticket, &courier).unwrap_or_else(|error| {
            log::error!("{}: {error}", ticket.due.id);
            // What could not be written down is not known to the envelope.
            Some(after(Timestamp::now(), courier.retry))
        });
    };
    let thread = thread::Builder::new().name("relay".to_owned()).stack_size(STACK).spawn(work);
    if let Err(error) = thread {
        log::warn!("{id}: no thread for it now: {error}");
        thread::sleep(PAUSE);
    }
}

/// Claims an entry and tries it. Gives the time of the next attempt, or `None` if the
/// entry is gone.
fn attempt(ticket: &mut Ticket, courier: &Courier) -> io::Result<Option<Timestamp>> {
    let queue = courier.spool.queue();
    let Some(mut claim) = queue.claim(&ticket.due.id)? else {
        // Gone; or another process has it, and then we look again later.
        return Ok(queue.read(&ticket.due.id)?.map(|_| after(Timestamp::now(), PAUSE)));
    };
    let is_due = ticket.due.at_once || claim.entry.next <= Timestamp::now();
    if is_due && let Some(bounce) = courier.attempt(&mut claim, ticket)? {
        ticket.schedule.arrived(queue, &bounce);
    }
    // It waits where its next attempt begins, which may be another destination.
    ticket.waits_for = ticket.schedule.plan().destination(&claim.entry);
    Ok(claim.entry.is_waiting().then_some(claim.entry.next))
}

/// A place among the threads, given back when it is dropped: also by a panic, and
/// where there was no thread.
struct Ticket {
    schedule: Arc<Schedule>,
    due: Due,
    /// When to try again; `None` for never.
    next: Option<Timestamp>,
    /// The destination under which it waits until then.
    waits_for: String,
}

impl Turns for Ticket {
    /// Gives the place up for one at another destination, if there is any.
    fn may_go_to(&mut self, destination: &Domain) -> bool {
        let mut plan = self.schedule.plan();
        let destination = plan.name(destination);
        let is_free = !plan.is_stopping && plan.move_to(&mut self.due, destination);
        self.schedule.changed.notify_all();
        is_free
    }

    fn report(&mut self, destination: &Domain, was_heard: bool) {
        let mut plan = self.schedule.plan();
        let destination = plan.name(destination);
        plan.note(destination, was_heard);
    }

    fn is_in_trouble(&self, destination: &Domain) -> bool {
        let plan = self.schedule.plan();
        plan.troubles.contains(&plan.name(destination))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut plan = self.schedule.plan();
        let waits_for = mem::take(&mut self.waits_for);
        plan.put_back(&self.due, self.next.map(|next| (next, waits_for)));
        self.schedule.changed.notify_all();
    }
}

impl Plan {
    fn add(&mut self, id: &str, entry: &Entry) {
        if self.known.insert(id.to_owned()) {
            let destination = self.destination(entry);
            self.wait(destination, id, entry.next);
        }
    }

    fn wait(&mut self, destination: String, id: &str, due: Timestamp) {
        self.waiting.entry(destination).or_default().insert((due, id.to_owned()));
    }

    /// Where an entry goes first, which is what it is counted under: where there is a
    /// place, and no trouble, if it has a choice.
    fn destination(&self, entry: &Entry) -> String {
        let waiting = entry.recipients.iter().filter(|one| one.state == State::Waiting);
        let names = waiting.map(|one| self.name(&one.address.domain));
        let best = names.min_by_key(|name| (self.troubles.contains(name), !self.has_place(name)));
        best.unwrap_or_default()
    }

    fn name(&self, domain: &Domain) -> String {
        if self.has_smarthost { "the smarthost".to_owned() } else { domain.to_string() }
    }

    /// Remembers whether anything was heard from there.
    fn note(&mut self, destination: String, was_heard: bool) {
        if was_heard {
            self.troubles.remove(&destination);
        } else {
            if self.troubles.len() >= TROUBLES_LIMIT {
                self.troubles.clear();
            }
            self.troubles.insert(destination);
        }
    }

    /// Makes everything that waits due, and forgets what was in trouble.
    fn want_all(&mut self) {
        self.troubles.clear();
        for ids in self.waiting.values_mut() {
            self.at_once.extend(ids.iter().map(|(_, id)| id.clone()));
            *ids = ids.iter().map(|(_, id)| (Timestamp::MIN, id.clone())).collect();
        }
    }

    /// Takes out the letter that has been due longest, of those for which there is a
    /// thread, and counts it as under way.
    fn take(&mut self, now: Timestamp) -> Option<Due> {
        if self.threads >= THREADS {
            return None;
        }
        let (_, destination) = self.first().filter(|(due, _)| *due <= now)?;
        let ids = self.waiting.get_mut(&destination)?;
        let (_, id) = ids.pop_first()?;
        if ids.is_empty() {
            self.waiting.remove(&destination);
        }
        self.enter(&destination);
        self.threads += 1;
        let at_once = self.at_once.remove(&id);
        Some(Due { destination, id, at_once })
    }

    /// An attempt goes on at another destination, if that has a place.
    fn move_to(&mut self, due: &mut Due, destination: String) -> bool {
        if due.destination == destination {
            return true;
        }
        if !self.has_place(&destination) {
            return false;
        }
        self.leave(&due.destination);
        self.enter(&destination);
        due.destination = destination;
        true
    }

    /// The attempt is over. The letter waits until then, for that destination.
    fn put_back(&mut self, due: &Due, next: Option<(Timestamp, String)>) {
        self.threads -= 1;
        self.leave(&due.destination);
        match next {
            Some((next, destination)) => self.wait(destination, &due.id, next),
            None => drop(self.known.remove(&due.id)),
        }
    }

    fn enter(&mut self, destination: &str) {
        *self.under_way.entry(destination.to_owned()).or_default() += 1;
    }

    fn leave(&mut self, destination: &str) {
        match self.under_way.get_mut(destination) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.under_way.remove(destination)),
        }
    }

    fn has_place(&self, destination: &str) -> bool {
        let is_in_trouble = self.troubles.contains(destination);
        let limit = if is_in_trouble { THREADS_IN_TROUBLE } else { THREADS_EACH };
        self.under_way.get(destination).copied().unwrap_or(0) < limit
    }

    /// How long until something is due for which there is a thread.
    fn time_to_next(&self, now: Timestamp) -> Option<Duration> {
        if self.threads >= THREADS {
            return None;
        }
        let (due, _) = self.first()?;
        Some(Duration::try_from(due.duration_since(now)).unwrap_or_default())
    }

    /// The earliest letter of all destinations that may have one more thread.
    fn first(&self) -> Option<(Timestamp, String)> {
        let heads = self.waiting.iter().filter(|(destination, _)| self.has_place(destination));
        let heads = heads.filter_map(|(destination, ids)| Some((ids.first()?.0, destination)));
        heads.min_by_key(|(due, _)| *due).map(|(due, destination)| (due, destination.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Each letter is `destination id`, and due at its own second, in this order.
    fn plan(letters: &[(&str, &str)]) -> Plan {
        let mut plan = Plan::default();
        for ((destination, id), second) in letters.iter().zip(0..) {
            plan.known.insert((*id).to_owned());
            plan.wait((*destination).to_owned(), id, at(second));
        }
        plan
    }

    #[test]
    fn what_has_been_due_longest_comes_first_and_nothing_before_its_time() {
        let mut plan = plan(&[("b", "1"), ("c", "2"), ("b", "3")]);
        assert_eq!(plan.take(at(-1)), None);
        assert_eq!(plan.time_to_next(at(-1)), Some(Duration::from_secs(1)));
        let ids: Vec<_> = (0..3).map_while(|_| plan.take(at(1))).map(|due| due.id).collect();
        assert_eq!(ids, ["1", "2"]);
        assert_eq!(plan.time_to_next(at(1)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_destination_gets_only_its_share_of_the_threads() {
        let ids: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        let mut letters: Vec<_> = ids.iter().map(|id| ("dead", id.as_str())).collect();
        letters.push(("alive", "last"));
        let mut plan = plan(&letters);
        let taken: Vec<Due> = (0..1000).map_while(|_| plan.take(at(1000))).collect();
        assert_eq!(taken.len(), THREADS_EACH + 1);
        assert_eq!(taken.last().unwrap().id, "last");
        // One is over: the next one has its place.
        plan.put_back(&taken[0], None);
        assert_eq!(plan.take(at(1000)).unwrap().id, THREADS_EACH.to_string());
        assert_eq!(plan.take(at(1000)), None);
    }

    #[test]
    fn where_nothing_was_heard_few_threads_wait() {
        let ids: Vec<String> = (0..9).map(|id| id.to_string()).collect();
        let letters: Vec<_> = ids.iter().map(|id| ("dead", id.as_str())).collect();
        let mut plan = plan(&letters);
        plan.note("dead".to_owned(), false);
        let taken: Vec<Due> = (0..9).map_while(|_| plan.take(at(9))).collect();
        assert_eq!(taken.len(), THREADS_IN_TROUBLE);
        plan.note("dead".to_owned(), true);
        assert!(plan.take(at(9)).is_some());
    }

    #[test]
    fn an_attempt_that_goes_on_elsewhere_gives_its_place_to_others() {
        let mut plan = plan(&[("b", "1"), ("c", "2")]);
        let mut due = plan.take(at(0)).unwrap();
        plan.under_way.insert("full".to_owned(), THREADS_EACH);
        assert!(!plan.move_to(&mut due, "full".to_owned()));
        assert!(plan.move_to(&mut due, "c".to_owned()));
        let count = |plan: &Plan, name: &str| plan.under_way.get(name).copied();
        assert_eq!((count(&plan, "b"), count(&plan, "c")), (None, Some(1)));
        plan.put_back(&due, None);
        assert_eq!((count(&plan, "c"), plan.threads), (None, 0));
    }

    #[test]
    fn there_is_a_bound_on_all_threads_together() {
        let names: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        let letters: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        let mut plan = plan(&letters);
        let taken: Vec<Due> = (0..1000).map_while(|_| plan.take(at(1000))).collect();
        assert_eq!(taken.len(), THREADS);
        assert_eq!(plan.time_to_next(at(1000)), None);
        for due in &taken {
            plan.put_back(due, Some((at(2000), due.destination.clone())));
        }
        assert!(plan.under_way.is_empty());
        assert_eq!(plan.take(at(1000)).unwrap().id, names[THREADS]);
    }

    #[test]
    fn everything_can_be_wanted_at_once() {
        let mut plan = plan(&[("b", "1"), ("c", "2")]);
        plan.want_all();
        let taken: Vec<Due> = (0..3).map_while(|_| plan.take(at(-1000))).collect();
        assert!(taken.len() == 2 && taken.iter().all(|due| due.at_once));
        plan.put_back(&taken[0], Some((at(5), "b".to_owned())));
        assert_eq!(plan.take(at(4)), None);
        assert!(!plan.take(at(5)).unwrap().at_once);
    }
}
