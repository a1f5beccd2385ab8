//! When each letter is tried, where, and how many at once.
//!
//! In: entries with the time of their next attempt, what came of each attempt, and
//! what time it is. Out: which entry is to be tried next. Nothing here sleeps, reads a
//! clock, or touches a file: the plan is a memory of what the envelopes say, and
//! `worker.rs` does what it says.
//!
//! A host that is dead keeps everybody waiting who talks to it, so it must not get
//! many threads. Who answers may have more of them.
//!
//! Book: docs/14-the-queue.md.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Deliveries under way at a time.
const LIMIT: usize = 32;
/// Deliveries under way to one destination from which something was heard.
const EACH_LIMIT: usize = 8;
/// The same, before anything was heard: who knows whether there will be?
const UNKNOWN_LIMIT: usize = 1;
/// The same, where nothing was heard the last time (RFC 5321 section 4.5.4.1 wants such
/// hosts remembered).
const SILENT_LIMIT: usize = 2;
/// Deliveries under way to all destinations together that were silent the last time. The
/// others are left for those who may answer.
const ALL_SILENT_LIMIT: usize = LIMIT / 2;
/// The same for those that were never heard, or not the last time. What is left is for
/// those that do answer, however many new ones do not.
const ALL_UNHEARD_LIMIT: usize = LIMIT - 1;
/// Beyond so many destinations, those without a letter are forgotten: a bound on memory.
const MEMORY_LIMIT: usize = 10_000;
/// Due before everything else, and whatever the envelope says.
const WANTED_NOW: Timestamp = Timestamp::MIN;
/// Retries come further and further apart, up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(4 * 3600);

/// What waits, and what is under way.
#[derive(Debug, Default)]
pub struct Plan {
    destinations: HashMap<Arc<str>, Destination>,
    /// For each destination that may have one more delivery, when its first entry is
    /// due: in three lines, by what came of the last attempt there.
    unknown: Line,
    heard: Line,
    silent: Line,
    /// Every entry, by its id, so that none is there twice.
    known: HashMap<Arc<str>, Known>,
}

/// What is known of an entry.
#[derive(Debug, Clone)]
enum Known {
    /// It waits for its turn at this destination, and is due then.
    Waiting(Arc<str>, Timestamp),
    UnderWay,
}

/// Destinations in the order in which they are due.
#[derive(Debug, Default)]
struct Line {
    due: BTreeSet<(Timestamp, Arc<str>)>,
    /// How many deliveries came out of this line and are under way.
    under_way: usize,
}

/// One destination, and the entries for it.
#[derive(Debug, Default)]
struct Destination {
    /// In the order in which they are due.
    waiting: BTreeSet<(Timestamp, Arc<str>)>,
    under_way: usize,
    manner: Manner,
    /// In which line of the plan it stands, and since when it is due.
    lined_up: Option<(Manner, Timestamp)>,
}

/// What came of an attempt at a destination, the last one there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// There was none yet, or nobody was asked.
    #[default]
    Unknown,
    /// Something was said about a letter, good or bad.
    Heard,
    /// Nothing was said about a letter: there was no answer in time, or what came before it,
    /// such as the certificate of a smarthost, was no good. Or it took longer than one server
    /// may be silent, and all who waited still wait.
    Silent,
}

/// An entry that is due. It counts as under way until [`Plan::done`] is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its id.
    pub id: Arc<str>,
    /// Where it goes.
    pub destination: Arc<str>,
    /// Somebody wants it tried whatever its envelope says about the time.
    pub is_wanted_now: bool,
    /// What came of the last attempt there.
    pub manner: Manner,
}

impl Plan {
    /// Takes an entry in, or notes that one which waits is due at another time.
    pub fn add(&mut self, id: &str, destination: &str, due: Timestamp) {
        let id: Arc<str> = id.into();
        match self.known.get(&id).cloned() {
            Some(Known::UnderWay) => return,
            // Somebody wants it now, whatever its envelope says.
            Some(Known::Waiting(_, before)) if before == WANTED_NOW => return,
            Some(Known::Waiting(name, before)) => {
                if let Some(destination) = self.destinations.get_mut(&name) {
                    destination.waiting.remove(&(before, Arc::clone(&id)));
                }
                self.line_up(&name);
            }
            None => {}
        }
        self.put(id, destination.into(), due);
    }

    /// Nobody's server has to be waited for at this destination: it is at this server.
    pub fn is_here(&mut self, destination: &str) {
        let name: Arc<str> = destination.into();
        self.destinations.entry(Arc::clone(&name)).or_default().manner = Manner::Heard;
        self.line_up(&name);
    }

    /// Whether an entry waits or is under way.
    pub fn knows(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// Takes out the entry that has been due longest, of those whose destination may
    /// have one more delivery. `None` if there is none at this time.
    pub fn take(&mut self, now: Timestamp) -> Option<Due> {
        let (_, name) = self.first().filter(|(due, _)| *due <= now)?;
        let destination = self.destinations.get_mut(&name)?;
        let (due, id) = destination.waiting.pop_first()?;
        destination.under_way += 1;
        let manner = destination.manner;
        self.line(manner).under_way += 1;
        self.known.insert(Arc::clone(&id), Known::UnderWay);
        self.line_up(&name);
        Some(Due { id, destination: name, is_wanted_now: due == WANTED_NOW, manner })
    }

    /// A delivery is over, and this came of it. The entry waits until `next`, if it is not
    /// gone.
    pub fn done(&mut self, due: &Due, manner: Manner, next: Option<Timestamp>) {
        self.line(due.manner).under_way -= 1;
        if let Some(destination) = self.destinations.get_mut(&due.destination) {
            destination.under_way -= 1;
            if manner != Manner::Unknown {
                destination.manner = manner;
            }
        }
        match next {
            Some(next) => self.put(Arc::clone(&due.id), Arc::clone(&due.destination), next),
            None => {
                self.known.remove(&due.id);
                self.line_up(&due.destination);
                self.perhaps_forget(&due.destination);
            }
        }
    }

    /// Makes everything that waits due now, and forgets who was silent.
    pub fn want_all(&mut self) {
        let names: Vec<Arc<str>> = self.destinations.keys().cloned().collect();
        for name in names {
            let Some(destination) = self.destinations.get_mut(&name) else { continue };
            if destination.manner == Manner::Silent {
                destination.manner = Manner::Unknown;
            }
            for (_, id) in mem::take(&mut destination.waiting) {
                self.put(id, Arc::clone(&name), WANTED_NOW);
            }
            self.line_up(&name);
        }
    }

    /// How long nothing has to be done, unless something changes; `None` for ever.
    pub fn time_to_next(&self, now: Timestamp) -> Option<Duration> {
        let (due, _) = self.first()?;
        Some(Duration::try_from(due.duration_since(now)).unwrap_or_default())
    }

    /// How many deliveries are under way.
    pub fn under_way(&self) -> usize {
        self.unknown.under_way + self.heard.under_way + self.silent.under_way
    }

    fn line(&mut self, manner: Manner) -> &mut Line {
        match manner {
            Manner::Unknown => &mut self.unknown,
            Manner::Heard => &mut self.heard,
            Manner::Silent => &mut self.silent,
        }
    }

    /// Lets an entry wait at a destination.
    fn put(&mut self, id: Arc<str>, name: Arc<str>, due: Timestamp) {
        self.known.insert(Arc::clone(&id), Known::Waiting(Arc::clone(&name), due));
        self.destinations.entry(Arc::clone(&name)).or_default().waiting.insert((due, id));
        self.line_up(&name);
    }

    /// The destination whose first entry has been due longest, and since when.
    fn first(&self) -> Option<(Timestamp, Arc<str>)> {
        let silent = self.silent.under_way;
        let may_all = self.under_way() < LIMIT;
        let may_unheard = may_all && self.unknown.under_way + silent < ALL_UNHEARD_LIMIT;
        let may_silent = may_unheard && silent < ALL_SILENT_LIMIT;
        let lines =
            [(&self.heard, may_all), (&self.unknown, may_unheard), (&self.silent, may_silent)];
        let open = lines.into_iter().filter(|(_, may)| *may);
        open.filter_map(|(line, _)| line.due.first()).min_by_key(|(due, _)| *due).cloned()
    }

    /// Puts a destination where [`Plan::first`] looks for it, or nowhere if it has as many
    /// deliveries as it may have. To be called after every change of it.
    fn line_up(&mut self, name: &Arc<str>) {
        let Some(destination) = self.destinations.get_mut(name) else { return };
        let manner = destination.manner;
        let limit = match manner {
            Manner::Unknown => UNKNOWN_LIMIT,
            Manner::Heard => EACH_LIMIT,
            Manner::Silent => SILENT_LIMIT,
        };
        let first = destination.waiting.first().filter(|_| destination.under_way < limit);
        let now = first.map(|(due, _)| (manner, *due));
        let before = mem::replace(&mut destination.lined_up, now);
        if let Some((manner, due)) = before {
            self.line(manner).due.remove(&(due, Arc::clone(name)));
        }
        if let Some((manner, due)) = now {
            self.line(manner).due.insert((due, Arc::clone(name)));
        }
    }

    /// Beyond a bound on memory nobody remembers how a destination was that has no letter.
    fn perhaps_forget(&mut self, name: &Arc<str>) {
        let is_idle = |one: &Destination| one.waiting.is_empty() && one.under_way == 0;
        let has_too_many = self.destinations.len() > MEMORY_LIMIT;
        if has_too_many && self.destinations.get(name).is_some_and(is_idle) {
            self.destinations.remove(name);
        }
    }
}

/// How long to wait after this many attempts: `retry` after the first one, and twice
/// as long each time, up to 4 hours, or to `retry` if that is longer. Doubling spares a
/// host that is coming back from all of us at once.
pub fn pause(retry: Duration, attempts: u32) -> Duration {
    let doubled = 2_u32.checked_pow(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    retry.saturating_mul(doubled).min(LONGEST_RETRY.max(retry))
}

/// When an entry is due whose envelope says `next`. If that is further away than the
/// longest pause, the clock was wrong, and it is due now.
pub fn due_at(next: Timestamp, now: Timestamp, retry: Duration) -> Timestamp {
    if next > after(now, LONGEST_RETRY.max(retry)) { now } else { next }
}

/// A moment so much later; one beyond all calendars is the last they have.
pub fn after(start: Timestamp, time: Duration) -> Timestamp {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    start.checked_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Each letter is `destination id`, and due at its own second, in this order.
    fn plan(letters: &[(&str, &str)]) -> Plan {
        let mut plan = Plan::default();
        for ((destination, id), second) in letters.iter().zip(0..) {
            plan.add(id, destination, at(second));
        }
        plan
    }

    /// As many letters for each destination, all due at once.
    fn many(destinations: &[&str], each: usize) -> Plan {
        let mut plan = Plan::default();
        for destination in destinations {
            (0..each).for_each(|n| plan.add(&format!("{destination}{n}"), destination, at(0)));
        }
        plan
    }

    fn take_all(plan: &mut Plan, now: Timestamp) -> Vec<Due> {
        std::iter::from_fn(|| plan.take(now)).take(1000).collect()
    }

    /// Lets one letter to each of these destinations fail in silence.
    fn silence(plan: &mut Plan, destinations: &[&str]) {
        for destination in destinations {
            plan.add(&format!("{destination}?"), destination, at(-1));
            let due = plan.take(at(-1)).unwrap();
            plan.done(&due, Manner::Silent, None);
        }
    }

    #[test]
    fn what_has_been_due_longest_comes_first_and_nothing_before_its_time() {
        let mut plan = plan(&[("b", "1"), ("c", "2"), ("d", "3")]);
        assert_eq!(plan.take(at(-1)), None);
        assert_eq!(plan.time_to_next(at(-1)), Some(Duration::from_secs(1)));
        let ids: Vec<_> = take_all(&mut plan, at(1)).iter().map(|due| due.id.to_string()).collect();
        assert_eq!(ids, ["1", "2"]);
        assert_eq!(plan.time_to_next(at(1)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn an_entry_is_in_the_plan_once() {
        let mut plan = plan(&[("b", "1"), ("b", "1"), ("c", "1")]);
        let due = plan.take(at(9)).unwrap();
        plan.add("1", "b", at(0));
        assert_eq!((plan.take(at(9)), plan.under_way(), due.destination.as_ref()), (None, 1, "c"));
        plan.done(&due, Manner::Heard, None);
        assert!(!plan.knows("1"));
    }

    #[test]
    fn a_destination_gets_one_delivery_and_once_it_was_heard_eight() {
        let mut plan = many(&["b"], 20);
        let first = take_all(&mut plan, at(0));
        assert_eq!(first.len(), UNKNOWN_LIMIT);
        plan.done(&first[0], Manner::Heard, None);
        let taken = take_all(&mut plan, at(0));
        assert_eq!(taken.len(), EACH_LIMIT);
        plan.done(&taken[0], Manner::Silent, None);
        assert_eq!(take_all(&mut plan, at(0)).len(), 0);
    }

    #[test]
    fn there_is_a_bound_on_all_deliveries_together() {
        let mut plan = many(&["a", "b", "c", "d", "e"], 20);
        for due in take_all(&mut plan, at(0)) {
            plan.done(&due, Manner::Heard, None);
        }
        let taken = take_all(&mut plan, at(0));
        assert_eq!((taken.len(), plan.time_to_next(at(0))), (LIMIT, None));
        plan.done(&taken[0], Manner::Heard, Some(at(2000)));
        assert!(plan.take(at(0)).is_some());
    }

    #[test]
    fn however_many_new_hosts_say_nothing_one_that_answers_has_a_thread() {
        let names: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        let mut plan = many(&names.iter().map(String::as_str).collect::<Vec<_>>(), 2);
        plan.add("known", "alive", at(-1));
        let known = plan.take(at(-1)).unwrap();
        plan.done(&known, Manner::Heard, None);
        assert_eq!(take_all(&mut plan, at(0)).len(), ALL_UNHEARD_LIMIT);
        plan.add("late", "alive", at(5));
        assert_eq!(plan.take(at(9)).unwrap().id.as_ref(), "late");
    }

    #[test]
    fn silent_hosts_take_half_of_the_threads_at_most_however_many_they_are() {
        let names: Vec<String> = (0..30).map(|n| format!("silent{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut plan = many(&names, 0);
        silence(&mut plan, &names);
        for name in &names {
            (0..3).for_each(|n| plan.add(&format!("{name} {n}"), name, at(0)));
        }
        assert_eq!(take_all(&mut plan, at(9)).len(), ALL_SILENT_LIMIT);
        // A letter for somebody else, though it came last, goes at once.
        plan.add("late", "alive", at(8));
        assert_eq!(plan.take(at(9)).unwrap().id.as_ref(), "late");
    }

    #[test]
    fn one_silent_host_gets_two_threads_until_it_is_heard_again() {
        let mut plan = Plan::default();
        silence(&mut plan, &["dead"]);
        (0..9).for_each(|n| plan.add(&n.to_string(), "dead", at(0)));
        let taken = take_all(&mut plan, at(0));
        assert_eq!(taken.len(), SILENT_LIMIT);
        plan.done(&taken[0], Manner::Heard, None);
        assert_eq!(take_all(&mut plan, at(0)).len(), EACH_LIMIT - 1);
        assert_eq!(plan.silent.under_way, 1);
    }

    #[test]
    fn what_nobody_was_asked_about_says_nothing_of_a_destination() {
        let mut plan = Plan::default();
        silence(&mut plan, &["dead"]);
        plan.add("taken by another process", "dead", at(0));
        let due = plan.take(at(0)).unwrap();
        plan.done(&due, Manner::Unknown, None);
        assert_eq!(plan.destinations["dead"].manner, Manner::Silent);
    }

    #[test]
    fn everything_can_be_wanted_at_once() {
        let mut plan = plan(&[("b", "1"), ("c", "2")]);
        plan.want_all();
        // A look into the folder does not change that.
        plan.add("2", "c", at(99));
        let taken = take_all(&mut plan, at(-1000));
        assert!(taken.len() == 2 && taken.iter().all(|due| due.is_wanted_now));
        plan.done(&taken[0], Manner::Heard, Some(at(5)));
        assert_eq!(plan.take(at(4)), None);
        assert!(!plan.take(at(5)).unwrap().is_wanted_now);
    }

    #[test]
    fn when_everything_is_wanted_who_was_silent_is_forgotten_and_who_was_heard_is_not() {
        let mut plan = plan(&[("b", "1"), ("c", "2")]);
        for manner in [Manner::Heard, Manner::Silent] {
            let due = plan.take(at(99)).unwrap();
            plan.done(&due, manner, Some(at(99)));
        }
        plan.want_all();
        let manner = |name: &str| plan.destinations[name].manner;
        assert_eq!((manner("b"), manner("c")), (Manner::Heard, Manner::Unknown));
    }

    #[test]
    fn what_is_for_this_server_waits_for_no_host_that_nobody_knows() {
        let names: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        let mut plan = many(&names.iter().map(String::as_str).collect::<Vec<_>>(), 1);
        assert_eq!(take_all(&mut plan, at(0)).len(), ALL_UNHEARD_LIMIT);
        plan.is_here("mailbox");
        plan.add("local", "mailbox", at(5));
        assert_eq!(plan.take(at(9)).unwrap().id.as_ref(), "local");
    }

    #[test]
    fn an_entry_may_be_due_at_another_time_than_it_was() {
        let mut plan = plan(&[("b", "1")]);
        plan.add("1", "b", at(9));
        assert_eq!(plan.take(at(8)), None);
        assert!(plan.take(at(9)).is_some());
        assert_eq!(plan.take(at(9)), None);
    }

    #[test]
    fn destinations_without_letters_are_not_remembered_for_ever() {
        let mut plan = Plan::default();
        for number in 0..MEMORY_LIMIT + 50 {
            silence(&mut plan, &[&number.to_string()]);
        }
        assert!(plan.destinations.len() <= MEMORY_LIMIT + 1);
    }

    #[test]
    fn the_lines_hold_each_destination_at_most_once_whatever_happens() {
        fn holds(steps: Vec<(u8, u8, u8)>) -> bool {
            let mut plan = Plan::default();
            let mut taken = Vec::new();
            for (what, which, time) in steps {
                let now = at(i64::from(time));
                match what % 4 {
                    0 => plan.add(&which.to_string(), &(which % 5).to_string(), now),
                    1 => taken.extend(plan.take(now)),
                    2 if !taken.is_empty() => {
                        let due = taken.swap_remove(usize::from(which) % taken.len());
                        let manners = [Manner::Heard, Manner::Silent, Manner::Unknown];
                        let manner = manners[usize::from(time) % 3];
                        plan.done(&due, manner, (time % 2 == 0).then_some(now));
                    }
                    _ => plan.want_all(),
                }
            }
            let lines = [&plan.unknown, &plan.heard, &plan.silent];
            let lined: Vec<_> = lines.iter().flat_map(|line| &line.due).map(|one| &one.1).collect();
            let waiting: usize = plan.destinations.values().map(|one| one.waiting.len()).sum();
            lined.len() == lined.iter().collect::<HashSet<_>>().len()
                && waiting + taken.len() == plan.known.len()
                && plan.under_way() == taken.len()
                && plan.silent.under_way <= ALL_SILENT_LIMIT
        }
        quickcheck::quickcheck(holds as fn(Vec<(u8, u8, u8)>) -> bool);
    }

    #[test]
    fn a_time_that_no_pause_explains_counts_as_now() {
        let (now, retry) = (at(1000), Duration::from_secs(300));
        let four_hours = after(now, LONGEST_RETRY);
        assert_eq!(due_at(four_hours, now, retry), four_hours);
        assert_eq!(due_at(after(four_hours, Duration::from_secs(1)), now, retry), now);
        assert_eq!(due_at(at(5), now, retry), at(5));
    }

    #[test]
    fn pauses_double_up_to_four_hours() {
        let retry = Duration::from_secs(300);
        let pauses = [1, 2, 3, 7, 99].map(|attempts| pause(retry, attempts).as_secs());
        assert_eq!(pauses, [300, 600, 1200, 14_400, 14_400]);
        assert_eq!(pause(Duration::from_secs(99_999), 3).as_secs(), 99_999);
    }
}
