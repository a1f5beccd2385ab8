//! The threads of the relay.
//!
//! In: entries as they arrive or are found in the queue. Out: one attempt after the
//! other, each in a thread of its own, in the order and at the time that the plan says.
//! One thread hands out what is due, one looks into the folder for entries of other
//! processes and for changes by hand.
//!
//! Several processes may share a queue: each has a plan, and whoever claims an entry
//! first tries it.
//!
//! Left to others: which entry comes next (`plan.rs`), what is done in an attempt
//! (`delivery.rs`).
//!
//! Book: docs/14-the-queue.md.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::relay::conclusion::Conclusion;
use crate::relay::courier::Courier;
use crate::relay::delivery;
use crate::relay::plan::{Due, Manner, Plan, after, due_at, pause};
use crate::store::envelope::{Entry, NextHop};
use crate::store::queue::{Claimed, Queue};

/// How often to look into the folder.
const RESCAN: Duration = Duration::from_secs(60);
/// How much older than its name an envelope may be: it is written and synced first, and
/// the clock of a file system is slow.
const NAMING: Duration = Duration::from_secs(10);
/// How long to wait when the system has no thread for us, or another process has the
/// letter.
const PAUSE: Duration = Duration::from_secs(1);
/// An attempt uses few buffers on the stack, and nothing recurses.
const STACK: usize = 256 * 1024;

/// What is to be tried when, and what all threads of the relay are told.
#[derive(Debug)]
pub struct Schedule {
    /// Whether all letters for other servers have the same next hop.
    has_smarthost: bool,
    /// How long after the first attempt the second one is.
    retry: Duration,
    state: Mutex<State>,
    /// Told whenever there may be something to do.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    /// How often in a row an attempt could not be written down, where it could not.
    unwritten: HashMap<Arc<str>, u32>,
    /// Somebody wants everything tried now.
    is_all_wanted: bool,
    is_stopping: bool,
}

impl Schedule {
    /// For an empty queue.
    pub fn new(has_smarthost: bool, retry: Duration) -> Schedule {
        Schedule { has_smarthost, retry, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Whether all letters for other servers have the same next hop.
    pub fn has_smarthost(&self) -> bool {
        self.has_smarthost
    }

    /// New entries are in the queue: they are tried at once.
    pub fn arrived(&self, entries: &[(String, Entry)]) {
        for (id, entry) in entries {
            self.note(id, entry, entry.next);
        }
    }

    fn note(&self, id: &str, entry: &Entry, due: Timestamp) {
        let destination = self.destination(entry);
        let mut state = self.state();
        if matches!(entry.next_hop, NextHop::Mailbox(_) | NextHop::Nowhere) {
            state.plan.is_here(&destination);
        }
        state.plan.add(id, &destination, due);
        self.changed.notify_all();
    }

    /// Everything in the queue is tried now, whatever its time.
    pub fn try_all_now(&self) {
        self.state().is_all_wanted = true;
        self.changed.notify_all();
    }

    /// No attempt begins any more.
    pub fn stop(&self) {
        self.state().is_stopping = true;
        self.changed.notify_all();
    }

    /// The turn of an entry is over; `next` is when it is tried again, if it is not gone.
    fn done(&self, due: &Due, manner: Manner, next: Option<Timestamp>) {
        self.state().plan.done(due, manner, next);
        self.changed.notify_all();
    }

    /// Waits until no attempt is under way or `limit` has passed, and says how many
    /// are left.
    pub fn drain(&self, limit: Duration) -> usize {
        let is_busy = |state: &mut State| state.plan.under_way() > 0;
        let waited = self.changed.wait_timeout_while(self.state(), limit, is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0.plan.under_way()
    }

    /// One more attempt could not be written down, so the envelope does not know it. Gives
    /// how many they are in a row.
    fn count_unwritten(&self, id: &Arc<str>) -> u32 {
        let mut state = self.state();
        let failures = state.unwritten.entry(Arc::clone(id)).or_default();
        *failures = failures.saturating_add(1);
        *failures
    }

    /// What an entry is counted under.
    fn destination(&self, entry: &Entry) -> String {
        match &entry.next_hop {
            NextHop::Domain(_) if self.has_smarthost => NextHop::Smarthost.to_string(),
            // Made for a smarthost that we do not have any more: it goes where the first
            // of its recipients is.
            NextHop::Smarthost if !self.has_smarthost => {
                let domain = entry.recipients.first().map(|one| one.address.domain.clone());
                domain.map_or(String::new(), |domain| NextHop::Domain(domain).to_string())
            }
            next_hop => next_hop.to_string(),
        }
    }

    /// Reads an envelope and notes when it is due.
    fn learn(&self, queue: &Queue, id: &str) {
        match queue.read(id) {
            Ok(Some(Ok(entry))) => {
                self.note(id, &entry, due_at(entry.next, Timestamp::now(), self.retry));
            }
            Ok(None) => {}
            // A claim sets it aside, and says why.
            Ok(Some(Err(_))) => drop(queue.claim(id)),
            Err(error) => log::error!("cannot read the queue entry {id}: {error}"),
        }
    }

    /// Looks for entries that we do not know, such as those of another process, or of one
    /// that is gone; and for those that somebody changed after `since`.
    fn scan(&self, queue: &Queue, since: SystemTime) {
        let ids = match queue.ids() {
            Ok(ids) => ids,
            Err(error) => return log::error!("cannot read the queue: {error}"),
        };
        // Where the clock was set back, everything may be due at another time than we think.
        let is_set_back = SystemTime::now() < since;
        let since = since.checked_sub(NAMING).unwrap_or(since);
        for (id, changed) in ids {
            let is_news = is_set_back || changed >= since || !self.state().plan.knows(&id);
            if is_news && !self.state().is_stopping {
                self.learn(queue, &id);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries what is due, until [`Schedule::stop`].
pub fn run(schedule: &Arc<Schedule>, courier: &Arc<Courier>) {
    thread::scope(|scope| {
        scope.spawn(|| watch_folder(schedule, courier));
        hand_out(schedule, courier);
    });
}

/// Looks into the folder now and then, and whenever everything is wanted.
fn watch_folder(schedule: &Schedule, courier: &Courier) {
    let mut since = SystemTime::UNIX_EPOCH;
    loop {
        let begun = SystemTime::now();
        schedule.scan(courier.spool.queue(), since);
        since = begun;
        let mut state = schedule.state();
        if mem::take(&mut state.is_all_wanted) {
            state.plan.want_all();
            schedule.changed.notify_all();
        }
        let is_quiet = |state: &mut State| !state.is_stopping && !state.is_all_wanted;
        let waited = schedule.changed.wait_timeout_while(state, RESCAN, is_quiet);
        if waited.unwrap_or_else(PoisonError::into_inner).0.is_stopping {
            return;
        }
    }
}

/// Gives each entry that is due a thread of its own.
fn hand_out(schedule: &Arc<Schedule>, courier: &Arc<Courier>) {
    let mut state = schedule.state();
    while !state.is_stopping {
        let now = Timestamp::now();
        if let Some(due) = state.plan.take(now) {
            drop(state);
            start(&due, schedule, courier);
            state = schedule.state();
            continue;
        }
        // Not longer, however long it is: this machine may sleep meanwhile.
        let wait = state.plan.time_to_next(now).map_or(RESCAN, |wait| wait.min(RESCAN));
        let waited = schedule.changed.wait_timeout(state, wait);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Begins an attempt in a thread of its own.
fn start(due: &Due, schedule: &Arc<Schedule>, courier: &Arc<Courier>) {
    let (ours, turn) = ((Arc::clone(schedule), Arc::clone(courier)), due.clone());
    let work = move || {
        let (schedule, courier) = ours;
        let next = Some(after(Timestamp::now(), courier.retry));
        let mut turn = Turn { schedule, due: turn, manner: Manner::Unknown, next };
        match turn.take(&courier) {
            Ok(()) => drop(turn.schedule.state().unwritten.remove(&turn.due.id)),
            Err(error) => {
                log::error!("{}: its entry cannot be read or written: {error}", turn.due.id);
                let failures = turn.schedule.count_unwritten(&turn.due.id);
                turn.next = Some(after(Timestamp::now(), pause(courier.retry, failures)));
            }
        }
    };
    let thread = thread::Builder::new().name("relay".to_owned()).stack_size(STACK).spawn(work);
    if let Err(error) = thread {
        log::warn!("{}: no thread for it now: {error}", due.id);
        schedule.done(due, Manner::Unknown, Some(after(Timestamp::now(), PAUSE)));
        thread::sleep(PAUSE);
    }
}

/// A place among those under way, given back when it is dropped, also by a panic.
struct Turn {
    schedule: Arc<Schedule>,
    due: Due,
    /// What came of it.
    manner: Manner,
    /// When the entry is tried again, if it is not gone. What counts at first is for a bug
    /// that ends the attempt.
    next: Option<Timestamp>,
}

impl Turn {
    /// Claims the entry and tries it, and notes what came of it.
    fn take(&mut self, courier: &Courier) -> io::Result<()> {
        match courier.spool.queue().claim(&self.due.id)? {
            Claimed::Gone => self.next = None,
            // Another process has it: we look again later.
            Claimed::Taken => self.next = Some(after(Timestamp::now(), PAUSE)),
            Claimed::Ours(mut claim) => {
                let now = Timestamp::now();
                let next = due_at(claim.entry.next, now, courier.retry);
                if next > now && !self.due.is_wanted_now {
                    // Another process has tried it meanwhile.
                    self.next = Some(next);
                    return Ok(());
                }
                let (manner, Conclusion { next, reports }) =
                    delivery::attempt(courier, &mut claim, self.due.manner)?;
                (self.manner, self.next) = (manner, next);
                self.schedule.arrived(&reports);
            }
        }
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.schedule.done(&self.due, self.manner, self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath};
    use crate::smtp::dsn::RcptDsn;
    use crate::smtp::session::Recipient;
    use crate::smtp::site::{Destination, LocalMailbox};
    use std::fs::{self, File};
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use tempfile::TempDir;

    const RETRY: Duration = Duration::from_secs(300);

    /// A spool with one entry, for bob's mailbox here, which can be written again.
    struct World {
        root: TempDir,
        courier: Courier,
        id: String,
        schedule: Arc<Schedule>,
    }

    impl World {
        fn new() -> World {
            let root = tempfile::tempdir().unwrap();
            let courier = Courier::without_network(root.path());
            let mailbox =
                LocalMailbox { domain: "host.example".to_owned(), name: "bob".to_owned() };
            let address = ForwardPath::Mailbox(mailbox.address());
            let destination = Destination::Here(mailbox);
            let bob = Recipient { address, destination, alias: None, dsn: RcptDsn::default() };
            let id = courier.queue(&ReversePath::Null, vec![bob], Timestamp::now()).remove(0);
            let schedule = Arc::new(Schedule::new(false, RETRY));
            World { root, courier, id, schedule }
        }

        fn queue(&self) -> &Queue {
            self.courier.spool.queue()
        }

        /// Changes the envelope as another process would.
        fn change(&self, change: impl Fn(&mut Entry)) {
            let other = Queue::new(self.root.path());
            let Claimed::Ours(mut claim) = other.claim(&self.id).unwrap() else { panic!() };
            change(&mut claim.entry);
            claim.save().unwrap();
        }

        /// Takes the entry out of the plan at this time.
        fn take(&self, now: Timestamp) -> Option<Turn> {
            let due = self.schedule.state().plan.take(now)?;
            let schedule = Arc::clone(&self.schedule);
            Some(Turn { schedule, due, manner: Manner::Unknown, next: None })
        }

        fn letters(&self) -> usize {
            let new = self.root.path().join("mail/host.example/bob/new");
            fs::read_dir(new).map_or(0, Iterator::count)
        }
    }

    /// In so many minutes.
    fn in_minutes(minutes: u64) -> Timestamp {
        after(Timestamp::now(), Duration::from_secs(60 * minutes))
    }

    #[test]
    fn an_entry_of_another_process_is_found_in_the_folder_and_tried() {
        let world = World::new();
        world.schedule.scan(world.queue(), SystemTime::now());
        let mut turn = world.take(Timestamp::now()).unwrap();
        turn.take(&world.courier).unwrap();
        assert_eq!((turn.next, world.letters()), (None, 1));
        drop(turn);
        assert!(!world.schedule.state().plan.knows(&world.id));
    }

    #[test]
    fn a_change_by_another_process_is_noticed_though_its_file_is_older_than_its_name() {
        let world = World::new();
        world.change(|entry| entry.next = in_minutes(60));
        world.schedule.scan(world.queue(), SystemTime::now());
        assert!(world.take(Timestamp::now()).is_none());
        world.change(|entry| entry.next = Timestamp::now());
        let begun = SystemTime::now();
        let envelope = world.root.path().join(format!("queue/{}.envelope", world.id));
        let written = |before: u64| {
            let file = File::options().write(true).open(&envelope).unwrap();
            file.set_modified(begun - Duration::from_secs(before)).unwrap();
        };
        // One that was read long ago is not read again.
        written(3600);
        world.schedule.scan(world.queue(), begun);
        assert!(world.take(Timestamp::now()).is_none());
        written(2);
        world.schedule.scan(world.queue(), begun);
        assert!(world.take(Timestamp::now()).is_some());
    }

    #[test]
    fn an_envelope_that_cannot_be_read_is_set_aside_by_whoever_looks() {
        let world = World::new();
        let file = |what: &str| world.root.path().join(format!("queue/{}.{what}", world.id));
        fs::write(file("envelope"), "nonsense\n").unwrap();
        world.schedule.scan(world.queue(), SystemTime::now());
        assert!(file("bad").exists() && !world.schedule.state().plan.knows(&world.id));
    }

    #[test]
    fn an_entry_that_another_process_holds_is_looked_at_again_soon() {
        let world = World::new();
        world.schedule.scan(world.queue(), SystemTime::now());
        let other = Queue::new(world.root.path());
        let held = other.claim(&world.id).unwrap();
        let mut turn = world.take(Timestamp::now()).unwrap();
        turn.take(&world.courier).unwrap();
        assert!(turn.next.is_some_and(|next| next <= after(Timestamp::now(), PAUSE)));
        assert_eq!(world.letters(), 0);
        drop((turn, held));
        assert!(world.take(in_minutes(1)).is_some());
    }

    #[test]
    fn what_another_process_has_put_off_is_not_tried_before_its_time_unless_it_is_wanted() {
        for is_wanted in [false, true] {
            let world = World::new();
            world.schedule.scan(world.queue(), SystemTime::now());
            if is_wanted {
                world.schedule.state().plan.want_all();
            }
            let next = in_minutes(60);
            world.change(|entry| (entry.next, entry.attempts) = (next, 5));
            let mut turn = world.take(Timestamp::now()).unwrap();
            turn.take(&world.courier).unwrap();
            let wanted = if is_wanted { (None, 1) } else { (Some(next), 0) };
            assert_eq!((turn.next, world.letters()), wanted);
        }
    }

    #[test]
    fn an_attempt_that_cannot_be_noted_is_made_again_after_a_pause_and_takes_no_place() {
        let world = World::new();
        world.schedule.scan(world.queue(), SystemTime::now());
        // Where a new envelope would be written.
        fs::create_dir(world.root.path().join(format!("tmp/{}.envelope", world.id))).unwrap();
        let due = world.schedule.state().plan.take(Timestamp::now()).unwrap();
        let World { root: _root, courier, schedule, .. } = world;
        start(&due, &schedule, &Arc::new(courier));
        assert_eq!(schedule.drain(Duration::from_secs(20)), 0);
        let left = schedule.state().plan.time_to_next(Timestamp::now()).unwrap();
        assert!(left > RETRY / 2 && left <= RETRY, "{left:?}");
    }

    #[test]
    fn what_cannot_be_written_down_is_tried_less_and_less_often() {
        let world = World::new();
        world.schedule.scan(world.queue(), SystemTime::now());
        let obstacle = world.root.path().join(format!("tmp/{}.envelope", world.id));
        fs::create_dir(&obstacle).unwrap();
        let World { root: _root, courier, schedule, id } = world;
        let courier = Arc::new(courier);
        let attempt = || {
            let due = schedule.state().plan.take(in_minutes(1000)).unwrap();
            start(&due, &schedule, &courier);
            assert_eq!(schedule.drain(Duration::from_secs(20)), 0);
        };
        for wait in [RETRY, 2 * RETRY, 4 * RETRY] {
            attempt();
            let left = schedule.state().plan.time_to_next(Timestamp::now()).unwrap();
            assert!(left > wait * 3 / 4 && left <= wait, "{left:?} of {wait:?}");
        }
        fs::remove_dir(&obstacle).unwrap();
        attempt();
        assert!(!schedule.state().plan.knows(&id) && schedule.state().unwritten.is_empty());
    }

    #[test]
    fn a_letter_that_is_too_old_is_not_tried_once_more_at_a_host_that_was_silent() {
        // With too few attempts, or after a restart, nobody knows what the host is like.
        for (before, attempts, is_asked) in
            [(Manner::Silent, 2, false), (Manner::Silent, 1, true), (Manner::Unknown, 2, true)]
        {
            let world = World::new();
            world.change(|entry| {
                entry.next_hop = NextHop::Domain(Domain::Name("b.example".to_owned()));
                entry.letter.arrived = Timestamp::UNIX_EPOCH;
                entry.attempts = attempts;
            });
            world.schedule.scan(world.queue(), SystemTime::now());
            let mut turn = world.take(Timestamp::now()).unwrap();
            (turn.manner, turn.next) = (before, Some(Timestamp::now()));
            drop(turn);
            let mut turn = world.take(Timestamp::now()).unwrap();
            turn.take(&world.courier).unwrap();
            assert_eq!(turn.next, None, "it is given up");
            // Where nobody was asked, nobody was silent.
            assert_eq!(turn.manner == Manner::Silent, is_asked, "{before:?}, {attempts}");
        }
    }

    /// Where a server listens that refuses everybody for now, and needs so long for each answer.
    fn refusing_hop(pause: Duration) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut wire = BufReader::new(listener.accept().unwrap().0);
            let _ = wire.get_mut().write_all(b"220 hop.example\r\n");
            let mut line = String::new();
            while wire.read_line(&mut line).is_ok_and(|count| count > 0) {
                thread::sleep(pause);
                let is_rcpt = line.starts_with("RCPT");
                let reply = if is_rcpt { "451 4.2.0 later" } else { "250 ok" };
                let _ = write!(wire.get_mut(), "{reply}\r\n");
                line.clear();
            }
        });
        port
    }

    #[test]
    fn a_host_that_answers_late_and_takes_nothing_counts_as_silent() {
        let millis = Duration::from_millis;
        for (pause, timeout, manner) in [(0, 10_000, Manner::Heard), (120, 200, Manner::Silent)] {
            let mut world = World::new();
            world.courier.port = refusing_hop(millis(pause));
            (world.courier.timeout, world.courier.loopback_hops) = (millis(timeout), true);
            world.change(|entry| {
                let domain = Domain::Literal(Ipv4Addr::LOCALHOST.into());
                entry.recipients[0].address.domain = domain.clone();
                entry.next_hop = NextHop::Domain(domain);
            });
            world.schedule.scan(world.queue(), SystemTime::now());
            let mut turn = world.take(Timestamp::now()).unwrap();
            turn.take(&world.courier).unwrap();
            assert_eq!(turn.manner, manner);
        }
    }

    #[test]
    fn where_the_clock_was_set_back_everything_is_read_again() {
        let world = World::new();
        world.schedule.scan(world.queue(), SystemTime::now());
        world.change(|entry| entry.next = in_minutes(60));
        let envelope = world.root.path().join(format!("queue/{}.envelope", world.id));
        let begun = SystemTime::now();
        let file = File::options().write(true).open(envelope).unwrap();
        file.set_modified(begun - Duration::from_secs(3600)).unwrap();
        // Read before the change, and by its time not changed since.
        world.schedule.scan(world.queue(), begun);
        assert!(world.schedule.state().plan.time_to_next(in_minutes(0)).unwrap().is_zero());
        world.schedule.scan(world.queue(), begun + Duration::from_secs(3600));
        assert!(!world.schedule.state().plan.time_to_next(in_minutes(0)).unwrap().is_zero());
    }

    #[test]
    fn where_there_is_no_smarthost_any_more_an_entry_for_it_counts_under_its_domain() {
        let world = World::new();
        let mut entry = world.queue().read(&world.id).unwrap().unwrap().unwrap();
        entry.next_hop = NextHop::Smarthost;
        entry.recipients[0].address = Mailbox::parse("cem@b.example").unwrap().0;
        assert_eq!(world.schedule.destination(&entry), "domain b.example");
        assert_eq!(Schedule::new(true, RETRY).destination(&entry), "smarthost");
    }
}
