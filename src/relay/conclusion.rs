//! What follows from an attempt: when the next one is, who is given up, what the sender
//! is told, and whether the entry is over.
//!
//! In: a claimed entry with the answers of an attempt. Out: the entry saved, ended, or
//! kept for a person; perhaps a report in a mailbox or in the queue. First the number of
//! attempts and the time of the next one are saved, so that they come further apart,
//! and the next hop is not asked for ever, even if nothing else works. Then the report is
//! stored, and only then do its recipients count as told.
//!
//! Left to others: the text of a report (`report/`).
//!
//! Book: docs/14-the-queue.md.

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;

use jiff::Timestamp;

use crate::relay::courier::Courier;
use crate::relay::plan::{after, pause};
use crate::relay::report::{About, Event, Original, Report};
use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath, ascii_domain};
use crate::smtp::answer::{Answer, Verdict};
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::reply::Enhanced;
use crate::smtp::session::Recipient;
use crate::smtp::site::{Destination, Resolved, Site};
use crate::smtp::text::printable;
use crate::store::envelope::{Entry, NextHop, QueuedRecipient, RecipientState, entries};
use crate::store::queue::Claim;
use crate::store::spool::Origin;
use crate::trust::dkim::sign::Signing;

/// Nobody is given up after fewer attempts, however old the letter seems to be: the
/// clock may have been wrong.
const FEWEST_ATTEMPTS: u32 = 2;

/// What became of an entry.
#[derive(Debug, Default)]
pub struct Conclusion {
    /// When to try again; `None` if the entry is gone.
    pub next: Option<Timestamp>,
    /// What was put into the queue for the sender.
    pub reports: Vec<(String, Entry)>,
}

/// Notes an answer about a recipient. `is_passed_on` says whether the next hop knows what
/// the sender wants to hear, and tells it then (RFC 3461 section 5.2.1).
pub fn note_answer(claim: &mut Claim, index: usize, answer: Answer, is_passed_on: bool) {
    let id = claim.id().to_owned();
    let entry = &mut claim.entry;
    let Some(recipient) = entry.recipients.get_mut(index) else { return };
    let wanted = recipient.dsn.wanted();
    let what = match answer.verdict {
        Verdict::Delivered => "delivered",
        Verdict::Later => "not yet delivered",
        Verdict::Never => "cannot be delivered",
    };
    log::info!(
        "{id}: from {} to {}: {what}, <{}> at {}: {answer}",
        printable(entry.letter.reverse_path.to_string()),
        printable(recipient.given.to_string()),
        printable(recipient.address.to_string()),
        printable(entry.next_hop.to_string()),
    );
    recipient.state = match answer.verdict {
        Verdict::Later => RecipientState::Waiting,
        Verdict::Delivered if wanted.success && !is_passed_on => RecipientState::Delivered,
        Verdict::Never if wanted.failure => RecipientState::Failed,
        Verdict::Delivered | Verdict::Never => RecipientState::Ended,
    };
    recipient.answer = Some(answer);
}

/// Ends an attempt. An error means that the state could not be saved.
pub fn conclude(
    courier: &Courier,
    site: &Site,
    claim: &mut Claim,
    now: Timestamp,
) -> io::Result<Conclusion> {
    note_attempt(courier, claim, now)?;
    let warn = after(claim.entry.letter.arrived, courier.warn);
    let is_delay = claim.entry.wants_warning() && now >= warn;
    let has_news = is_delay || claim.entry.has_news();
    let mut reports = Vec::new();
    if has_news {
        match report(courier, site, claim, now, is_delay) {
            Ok(Some(queued)) => {
                reports = queued;
                claim.entry.note_told(is_delay);
            }
            // Nobody can be told. Whoever has the letter needs no more.
            Ok(None) => claim.entry.note_nobody_to_tell(),
            Err(error) => {
                log::error!("{}: cannot write the report: {error}", claim.id());
                return Ok(Conclusion { next: Some(claim.entry.next), reports });
            }
        }
    }
    let next = settle(claim, has_news)?;
    Ok(Conclusion { next, reports })
}

/// Whether whoever still waits has waited long enough.
pub fn is_too_old(courier: &Courier, entry: &Entry, now: Timestamp) -> bool {
    now >= after(entry.letter.arrived, courier.give_up) && entry.attempts >= FEWEST_ATTEMPTS
}

/// Notes that there was an attempt, and when the next one is; and gives up whoever has
/// waited long enough. Saved before anything else is done about it.
fn note_attempt(courier: &Courier, claim: &mut Claim, now: Timestamp) -> io::Result<()> {
    let entry = &mut claim.entry;
    entry.attempts = entry.attempts.saturating_add(1);
    let give_up = after(entry.letter.arrived, courier.give_up);
    let warn = after(entry.letter.arrived, courier.warn);
    // Not later than the moments at which the sender is to hear something.
    let moments = [Some(give_up), entry.wants_warning().then_some(warn)];
    let next = after(now, pause(courier.retry, entry.attempts));
    let ahead = moments.into_iter().flatten().filter(|moment| *moment > now);
    entry.next = ahead.fold(next, Timestamp::min);
    if is_too_old(courier, entry, now) {
        for index in entry.waiting() {
            give_up_on(claim, index);
        }
    }
    claim.save()
}

/// The sender gets the last answer, under the code for a time that is over (RFC 3463
/// section 3.5).
fn give_up_on(claim: &mut Claim, index: usize) {
    let recipient = claim.entry.recipients.get(index);
    let last = recipient.and_then(|one| one.answer.clone());
    let last = last.unwrap_or_else(|| Answer::later((4, 7), "nothing was heard"));
    let status = Enhanced { class: 5, subject: 4, detail: 7 };
    note_answer(claim, index, Answer { verdict: Verdict::Never, status, ..last }, false);
}

/// Ends the entry if nobody waits any more. A letter that did not arrive, and of which
/// nobody can be told, is kept. Gives the time of the next attempt.
fn settle(claim: &mut Claim, has_news: bool) -> io::Result<Option<Timestamp>> {
    if claim.entry.has(RecipientState::Waiting) {
        if has_news {
            claim.save()?;
        }
        return Ok(Some(claim.entry.next));
    }
    if !claim.entry.has(RecipientState::Failed) {
        return claim.end().map(|()| None);
    }
    let failed = |one: &&QueuedRecipient| one.state == RecipientState::Failed;
    let lost = claim.entry.recipients.iter().filter(failed);
    let lost: Vec<_> = lost.map(|one| printable(one.given.to_string())).collect();
    let id = claim.id();
    log::error!("{id}: nobody to tell about {}; kept as {id}.dead", lost.join(" "));
    claim.bury().map(|()| None)
}

/// Stores a report about everybody there is news of, if there is anybody to tell; it is
/// on disk when this returns. Gives what has to be delivered further, or `None` if nobody
/// can be told.
fn report(
    courier: &Courier,
    site: &Site,
    claim: &Claim,
    now: Timestamp,
    is_delay: bool,
) -> io::Result<Option<Vec<(String, Entry)>>> {
    let letter = &claim.entry.letter;
    let ReversePath::Mailbox(sender) = &letter.reverse_path else { return Ok(None) };
    let Some(recipients) = way_back(courier, site, sender) else {
        let to = printable(sender.to_string());
        log::error!("{}: no report to <{to}>, who is refused here", claim.id());
        return Ok(None);
    };
    let name = courier.spool.new_name(now);
    let will_retry_until = after(letter.arrived, courier.give_up);
    let known = as_the_sender_knows_them(&claim.entry);
    let about: Vec<About> =
        known.iter().filter_map(|one| news(claim, one, is_delay, will_retry_until)).collect();
    let report = Report {
        hostname: &site.hostname,
        domain: site.home(),
        id: &name.id,
        when: now,
        letter,
        original_id: claim.message_id(),
        about: &about,
        original: &Original::read(&mut claim.message()?, letter.dsn.ret)?,
    };
    let text = report.to_text();
    let signature = (courier.signer)().and_then(|signer| {
        let mut signing = Signing::default();
        signing.write(&text);
        signer.sign(signing, |domain| site.has_domain(domain), now)
    });
    let mut draft = courier.spool.draft(&name, "Return-Path: <>\n", None)?;
    draft.write(signature.unwrap_or_default().as_bytes())?;
    draft.write(&text)?;
    draft.sync()?;
    let letter = draft.letter(ReversePath::Null, MailDsn::default(), now);
    let entries = entries(&letter, recipients, (courier.smarthost)().is_some());
    let queued = courier.spool.deliver(draft, &name, entries, Origin::Ourselves)?;
    log::info!("{}: told <{}> in {}", claim.id(), printable(sender.to_string()), name.id);
    Ok(Some(queued))
}

/// The recipients as a report may show them. Where an alias leads to is none of the
/// sender's business, and servers there name it in what they say: that stays in our log.
/// Several targets with the same fate are one address, which is told once.
fn as_the_sender_knows_them(entry: &Entry) -> Vec<QueuedRecipient> {
    let mut known = entry.recipients.clone();
    if entry.alias.is_none() {
        return known;
    }
    for answer in known.iter_mut().filter_map(|one| one.answer.as_mut()) {
        let hidden = "this address leads to another one, and what was said there is not shown";
        *answer = Answer { by: None, text: hidden.to_owned(), ..*answer };
    }
    let mut fates = HashSet::new();
    known.retain(|one| fates.insert((one.given.to_string(), one.state)));
    known
}

/// What the sender has to hear about one recipient, if there is anything.
fn news<'a>(
    claim: &Claim,
    recipient: &'a QueuedRecipient,
    is_delay: bool,
    will_retry_until: Timestamp,
) -> Option<About<'a>> {
    let event = match (recipient.state, &claim.entry.next_hop) {
        (RecipientState::Failed, _) => Event::Failed,
        (RecipientState::Delivered, NextHop::Mailbox(_) | NextHop::Nowhere) => Event::Delivered,
        (RecipientState::Expanded, _) => Event::Expanded,
        (RecipientState::Delivered, _) => Event::Relayed,
        (RecipientState::Waiting, _) if is_delay && recipient.dsn.wanted().delay => {
            Event::Delayed { will_retry_until }
        }
        (RecipientState::Waiting | RecipientState::Ended, _) => return None,
    };
    let QueuedRecipient { given: address, dsn, answer, .. } = recipient;
    Some(About { address, orcpt: dsn.orcpt.as_ref(), event, answer: answer.as_ref()? })
}

/// Where a report goes; `None` if its reader is refused here.
fn way_back(courier: &Courier, site: &Site, sender: &Mailbox) -> Option<Vec<Recipient>> {
    let to = ForwardPath::Mailbox(sender.clone());
    let (is_ours, our_address) = match &sender.domain {
        Domain::Literal(address) => ((courier.is_our_address)(*address), Some(*address)),
        Domain::Name(name) => (ascii_domain(name).is_some_and(|it| site.has_domain(&it)), None),
    };
    // Of all addresses only this one can make a literal ours.
    let our_address = our_address.filter(|_| is_ours).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let (destinations, alias) = match site.resolve(&to, our_address.to_canonical(), true) {
        Ok(Resolved { destinations, alias }) => (destinations, alias),
        Err(_) if is_ours => return None,
        // Whoever may relay, a report of ours may leave.
        Err(_) => (vec![Destination::Elsewhere(sender.clone())], None),
    };
    let recipient = |destination| Recipient {
        address: to.clone(),
        destination,
        alias: alias.clone(),
        dsn: RcptDsn::default(),
    };
    Some(destinations.into_iter().map(recipient).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::dsn::Notify;
    use crate::store::disk::power;
    use crate::store::queue::{Claimed, Queue};
    use std::cell::RefCell;
    use std::fs;
    use std::path::Path;
    use std::sync::Once;

    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    /// Keeps what this thread logs.
    struct Log;

    thread_local! {
        static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    impl log::Log for Log {
        fn enabled(&self, _: &log::Metadata) -> bool {
            true
        }

        fn log(&self, record: &log::Record) {
            LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
        }

        fn flush(&self) {}
    }

    /// So many seconds after the letter came.
    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_324_479 + second).unwrap()
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap().0
    }

    fn ann() -> ReversePath {
        ReversePath::Mailbox(mailbox("ann@host.example"))
    }

    /// Somebody elsewhere, whose sender wants this.
    fn to(address: &str, notify: Option<&str>) -> Recipient {
        let notify = notify.map(|text| Notify::parse(text).unwrap());
        Recipient {
            address: ForwardPath::Mailbox(mailbox(address)),
            destination: Destination::Elsewhere(mailbox(address)),
            alias: None,
            dsn: RcptDsn { notify, orcpt: None },
        }
    }

    /// A spool with one entry, and what is to be concluded about it.
    struct World {
        root: tempfile::TempDir,
        courier: Courier,
        id: String,
    }

    impl World {
        fn new(from: &ReversePath, recipients: Vec<Recipient>) -> World {
            let root = tempfile::tempdir().unwrap();
            let courier = Courier::without_network(root.path());
            let id = courier.queue(from, recipients, at(0)).remove(0);
            World { root, courier, id }
        }

        /// One attempt, in which this was said about everybody who waits.
        fn conclude(
            &self,
            answer: &Answer,
            is_passed_on: bool,
            now: i64,
        ) -> io::Result<Conclusion> {
            let queue = self.courier.spool.queue();
            let Claimed::Ours(mut claim) = queue.claim(&self.id).unwrap() else { panic!() };
            for index in claim.entry.waiting() {
                note_answer(&mut claim, index, answer.clone(), is_passed_on);
            }
            conclude(&self.courier, &(self.courier.site)(), &mut claim, at(now))
        }

        /// The envelope, as it is on disk.
        fn saved(&self) -> Option<Entry> {
            Queue::new(self.root.path()).read(&self.id).unwrap().map(Result::unwrap)
        }

        /// What ann has in her mailbox.
        fn reports(&self) -> Vec<String> {
            let Ok(files) = fs::read_dir(self.root.path().join(ANNS).join("new")) else {
                return Vec::new();
            };
            files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
        }

        /// Entries of the queue that are not the letter itself: reports that wait.
        fn waiting_reports(&self) -> usize {
            let ids = self.courier.spool.queue().ids().unwrap();
            ids.iter().filter(|(id, _)| *id != self.id).count()
        }
    }

    /// Ann's mailbox, in the spool.
    const ANNS: &str = "mail/host.example/ann";

    /// Puts a file where ann's mailbox should be.
    fn break_mailbox(root: &Path) {
        fs::create_dir_all(root.join("mail/host.example")).unwrap();
        fs::write(root.join(ANNS), "").unwrap();
    }

    fn refused() -> Answer {
        Answer::never((1, 1), "no such mailbox")
    }

    fn not_now() -> Answer {
        Answer::later((4, 1), "no host answers")
    }

    #[test]
    fn attempts_and_next_time_are_saved_whatever_fails_after_that() {
        // One change that fails, or all from one on; first the mailbox is fine, then only
        // the queue can take the report.
        let faults: [fn(usize); 2] = [power::fail_at, |change| power::set(Some(change - 1))];
        for (fault, is_mailbox_broken) in
            faults.into_iter().flat_map(|it| [(it, false), (it, true)])
        {
            let mut unwritten = 0;
            for change in 1..40 {
                let world = World::new(&ann(), vec![to("bob@b.example", None)]);
                if is_mailbox_broken {
                    break_mailbox(world.root.path());
                }
                fault(change);
                let concluded = world.conclude(&refused(), false, 10);
                power::fail_at(0);
                power::set(None);
                let reports = world.reports().len() + world.waiting_reports();
                let Some(entry) = world.saved() else {
                    assert!(reports > 0, "nobody was told, change {change}");
                    continue;
                };
                // Before the first save everything is as it was.
                assert!(entry.attempts == 1 || concluded.is_err(), "change {change}");
                if entry.attempts == 1 {
                    assert_eq!(entry.next, at(10 + 300), "change {change}");
                    assert!(entry.has(RecipientState::Failed), "change {change}");
                    unwritten += usize::from(reports == 0);
                }
            }
            assert!(unwritten > 1, "{unwritten}");
        }
    }

    #[test]
    fn a_report_that_could_not_be_written_is_written_at_the_next_attempt() {
        let world = World::new(&ann(), vec![to("bob@b.example", None)]);
        // The mailbox is broken, and all of the disk after the four changes of a save.
        break_mailbox(world.root.path());
        power::set(Some(4));
        let concluded = world.conclude(&refused(), false, 10).unwrap();
        power::set(None);
        assert_eq!((concluded.next, world.waiting_reports()), (Some(at(310)), 0));
        // Nobody waits any more, so nobody is asked.
        let concluded = world.conclude(&not_now(), false, 310).unwrap();
        assert_eq!((concluded.next, concluded.reports.len()), (None, 1));
        assert_eq!((world.saved(), world.waiting_reports()), (None, 1));
    }

    #[test]
    fn nobody_is_given_up_before_the_second_attempt_however_old_the_letter_is() {
        let world = World::new(&ann(), vec![to("bob@b.example", None)]);
        let next = world.conclude(&not_now(), false, 9 * DAY).unwrap().next;
        assert_eq!(next, Some(at(9 * DAY + 300)));
        assert!(world.saved().unwrap().has(RecipientState::Waiting) && world.reports().is_empty());
        assert_eq!(world.conclude(&not_now(), false, 9 * DAY + 300).unwrap().next, None);
        let reports = world.reports();
        assert_eq!((world.saved(), reports.len()), (None, 1));
        assert!(reports[0].contains("\nStatus: 5.4.7\n"), "{}", reports[0]);
        assert!(reports[0].contains("no host answers"), "{}", reports[0]);
    }

    #[test]
    fn a_delay_is_reported_once_when_it_is_time_and_only_to_whoever_asked() {
        let recipients =
            vec![to("bob@b.example", Some("FAILURE,DELAY")), to("cem@b.example", None)];
        let world = World::new(&ann(), recipients);
        // The next retry would be later than the moment to warn.
        let next = world.conclude(&not_now(), false, 4 * HOUR - 10).unwrap().next;
        assert_eq!((next, world.reports().len()), (Some(at(4 * HOUR)), 0));
        world.conclude(&not_now(), false, 4 * HOUR).unwrap();
        let reports = world.reports();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains("Action: delayed\n"), "{}", reports[0]);
        assert!(!reports[0].contains("cem@b.example"), "{}", reports[0]);
        let saved = world.saved().unwrap();
        assert_eq!((saved.is_warned, saved.waiting().len()), (true, 2));
        world.conclude(&not_now(), false, 6 * HOUR).unwrap();
        assert_eq!(world.reports().len(), 1);
    }

    #[test]
    fn a_letter_nobody_can_be_told_about_stays_as_dead_and_the_log_says_for_whom() {
        static LOG: Once = Once::new();
        LOG.call_once(|| log::set_logger(&Log).unwrap());
        log::set_max_level(log::LevelFilter::Error);
        let world = World::new(&ReversePath::Null, vec![to("bob@b.example", None)]);
        assert_eq!(world.conclude(&refused(), false, 10).unwrap().next, None);
        let id = &world.id;
        let line = format!("{id}: nobody to tell about <bob@b.example>; kept as {id}.dead");
        assert_eq!(LINES.take(), [line]);
        let file = |what: &str| world.root.path().join(format!("queue/{id}.{what}"));
        assert!(fs::read_to_string(file("dead")).unwrap().contains("STATE failed 5.1.1"));
        assert!(file("message").exists() && !file("envelope").exists());
        assert_eq!(world.waiting_reports(), 0);
    }

    #[test]
    fn who_wants_to_hear_nothing_hears_nothing_and_the_letter_ends() {
        for answer in [refused(), Answer::delivered((0, 0), "taken")] {
            let world = World::new(&ann(), vec![to("bob@b.example", Some("NEVER"))]);
            assert_eq!(world.conclude(&answer, false, 10).unwrap().next, None);
            let left = (world.saved(), world.reports().len(), world.waiting_reports());
            assert_eq!(left, (None, 0, 0));
        }
    }

    #[test]
    fn a_success_is_reported_as_relayed_unless_the_next_hop_will_tell() {
        for (is_passed_on, actions) in [(false, 1), (true, 0)] {
            let world = World::new(&ann(), vec![to("bob@b.example", Some("SUCCESS"))]);
            let taken = Answer::delivered((0, 0), "taken");
            assert_eq!(world.conclude(&taken, is_passed_on, 10).unwrap().next, None);
            assert_eq!(world.saved(), None);
            let reports = world.reports();
            let relayed = reports.iter().filter(|text| text.contains("Action: relayed\n"));
            assert_eq!((relayed.count(), reports.len()), (actions, actions));
        }
    }

    #[test]
    fn a_report_names_the_address_that_was_given_and_not_what_an_alias_made_of_it() {
        let mut carol = to("carol@secret.example", None);
        carol.address = ForwardPath::Mailbox(mailbox("friends@host.example"));
        carol.alias = Some(mailbox("friends@host.example"));
        let world = World::new(&ann(), vec![carol]);
        world.conclude(&refused(), false, 10).unwrap();
        let reports = world.reports();
        assert!(reports[0].contains("Final-Recipient: rfc822; friends@host.example\n"));
        assert!(!reports[0].contains("secret"), "{}", reports[0]);
    }
}
