//! The spool folder: where messages begin, and how they reach all recipients.
//!
//! ```text
//! spool/tmp/                                   messages being received
//! spool/mail/<domain>/<mailbox>/{tmp,new,cur}  a Maildir for each mailbox
//! spool/queue/                                 what still has to go somewhere
//! ```
//!
//! In: a draft and its entries, one for each destination. Out: the message is in the
//! mailboxes and in the queue, and survives a power cut; or an error, and then the
//! client is asked to send it again. The order is: the file synced; then a name in
//! each `new/` and that folder synced; then the entries of the queue, and that folder
//! synced. Only then may the client be told 250.
//!
//! After an error the names in mailboxes are taken back as far as that goes, and with them
//! the news for the sender. What else the queue has is not: a worker may be sending it. So
//! somebody may get the letter twice, and nobody gets a part of it or nothing.
//!
//! Book: docs/07-maildir.md.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::smtp::site::LocalMailbox;
use crate::smtp::text::printable;
use crate::store::disk::{Way, if_there, make_folder, remove_folder, remove_leftover, sync_folder};
use crate::store::draft::Draft;
use crate::store::envelope::{Entry, NextHop, news_of};
use crate::store::folder::folder;
use crate::store::header::Submission;
use crate::store::maildir::Maildir;
use crate::store::queue::{Claim, Claimed, Queue, is_id, is_number};

/// How many mailboxes are remembered as made before we begin to forget: a bound
/// on memory, where every name is a mailbox.
const KNOWN_LIMIT: usize = 10_000;

/// How long the room on the disk is taken to be what it was: to ask the system for every
/// letter costs more than to be a second late.
const ROOM_TIME: Duration = Duration::from_secs(1);

/// How much of the hostname stands in a file name, which has 255 octets in all.
const HOSTNAME_LIMIT: usize = 128;

/// The folder that holds all mail.
#[derive(Debug)]
pub struct Spool {
    tmp: PathBuf,
    mail: PathBuf,
    queue: Queue,
    /// Stands at the end of file names: several hosts may share a Maildir.
    hostname: String,
    /// Our process id; asking for it is a system call.
    process: u32,
    /// Messages begun by this process.
    count: AtomicU64,
    /// Mailboxes whose folders this process has seen to disk.
    known: Mutex<HashMap<LocalMailbox, Arc<Maildir>>>,
    /// What room there was, and when that was asked.
    room: Mutex<Option<(Instant, u64)>>,
}

/// How one message is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageName {
    /// In the 250 reply, the `Received` field and the log; no dots, because
    /// `Received` wants an atom there (RFC 5321 section 4.4).
    pub id: String,
    /// In folders: `seconds.id.host`, as the Maildir rules want it.
    pub file: String,
}

/// Who wants a message delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client, which can be asked to send it again later.
    Client,
    /// This server: a report. Nobody has it but us, so it goes into the queue where
    /// a client would be refused.
    Ourselves,
}

impl Spool {
    /// Opens the spool, or makes it, and removes old leftovers.
    pub fn open(root: &Path, hostname: &str) -> io::Result<Spool> {
        let spool = Spool {
            tmp: root.join("tmp"),
            mail: root.join("mail"),
            queue: Queue::new(root),
            hostname: hostname.chars().take(HOSTNAME_LIMIT).collect(),
            process: process::id(),
            count: AtomicU64::new(0),
            known: Mutex::default(),
            room: Mutex::default(),
        };
        make_root(root)?;
        spool.make_folders()?;
        spool.try_to_write()?;
        spool.sweep(SystemTime::now())?;
        spool.queue.sweep(SystemTime::now())?;
        Ok(spool)
    }

    /// A name that no message had before: the time in microseconds, this
    /// process, and how many messages it has begun.
    pub fn new_name(&self, when: Timestamp) -> MessageName {
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        let id = format!("M{}P{}Q{count}", when.as_microsecond(), self.process);
        let file = self.file_name(&id, when);
        MessageName { id, file }
    }

    fn file_name(&self, id: &str, when: Timestamp) -> String {
        format!("{}.{id}.{}", when.as_second(), self.hostname)
    }

    /// How many octets can still be stored, as of a moment ago. Where the system does not
    /// tell, more than enough: the disk itself will say no.
    pub fn room(&self) -> u64 {
        // Nothing panics while it holds this lock.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, octets)) = room.filter(|(asked, _)| asked.elapsed() < ROOM_TIME) {
            return octets;
        }
        let disk = rustix::fs::statvfs(&self.tmp);
        let octets = disk.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        *room = Some((Instant::now(), octets));
        octets
    }

    /// Begins a message with our trace fields. What a user submits is put right.
    pub fn draft(
        &self,
        name: &MessageName,
        trace_fields: &str,
        submission: Option<&Submission>,
    ) -> io::Result<Draft> {
        self.in_folders(|| Draft::create(self.tmp.join(&name.file), trace_fields, submission))
    }

    /// The same, for a message that gets a field above it at its end: see
    /// [`Draft::create_held`].
    pub fn draft_held(
        &self,
        name: &MessageName,
        trace_fields: &str,
        submission: Option<&Submission>,
    ) -> io::Result<Draft> {
        let path = || self.tmp.join(&name.file);
        self.in_folders(|| Draft::create_held(path(), trace_fields, submission))
    }

    /// What still has to go somewhere.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Delivers a draft that is complete and on disk: at once where the destination is
    /// a mailbox, and through the queue everywhere else. A mailbox that cannot be
    /// written keeps nobody else waiting: its letter goes into the queue. Gives what is
    /// in the queue now. An error means that the queue cannot be written or, for a client,
    /// that no mailbox could be.
    pub fn deliver(
        &self,
        draft: Draft,
        name: &MessageName,
        entries: Vec<Entry>,
        origin: Origin,
    ) -> io::Result<Vec<(String, Entry)>> {
        let mut stored = Vec::new();
        let placed = self
            .put_into_mailboxes(&draft, name, entries, origin, &mut stored)
            .and_then(|rest| self.enqueue(&draft, name, rest));
        let queued = placed.inspect_err(|_| {
            for entry in &stored {
                if let NextHop::Mailbox(mailbox) = &entry.next_hop {
                    self.maildir(mailbox).take_back(&name.file);
                }
            }
        })?;
        stored.iter().for_each(|entry| log_recipients(name, entry, "stored"));
        queued.iter().for_each(|(id, entry)| {
            log_recipients(name, entry, &format!("queued as {id}"));
        });
        Ok(queued)
    }

    /// Gives the mailboxes among the destinations the message, and hands back what has
    /// to go into the queue: what is for elsewhere, what was not `stored`, and the news of
    /// what was, because relay/ writes the reports.
    fn put_into_mailboxes(
        &self,
        draft: &Draft,
        name: &MessageName,
        entries: Vec<Entry>,
        origin: Origin,
        stored: &mut Vec<Entry>,
    ) -> io::Result<Vec<Entry>> {
        let is_reported = entries.iter().any(Entry::wants_success);
        let is_here = |entry: &Entry| matches!(entry.next_hop, NextHop::Mailbox(_));
        let (here, mut rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_here);
        let are_all_here = rest.is_empty();
        let (last, mut fault) = (here.len(), None);
        for (entry, number) in here.into_iter().zip(1..) {
            let NextHop::Mailbox(mailbox) = &entry.next_hop else { continue };
            // The last name takes the place of the temporary one.
            let is_last = number == last && rest.is_empty() && !is_reported;
            let by = if is_last { Way::Move } else { Way::Link };
            match self.put_into(mailbox, draft.path(), by, &name.file) {
                Ok(()) => stored.push(entry),
                Err(error) => {
                    let path = self.mail.join(folder(mailbox));
                    log::error!("{}: {}: {}: {error}", name.id, entry.next_hop, path.display());
                    fault = Some(error);
                    rest.push(entry);
                }
            }
        }
        // Where not one mailbox could take it, and nobody else is to get it.
        let is_lost = are_all_here && stored.is_empty() && origin == Origin::Client;
        if let Some(error) = fault.filter(|_| is_lost) {
            return Err(error);
        }
        rest.extend(news_of(stored));
        Ok(rest)
    }

    /// Puts entries into the queue, for good. What needs room on the disk comes first, so
    /// that a full one leaves none of them.
    fn enqueue(
        &self,
        draft: &Draft,
        name: &MessageName,
        entries: Vec<Entry>,
    ) -> io::Result<Vec<(String, Entry)>> {
        let last = entries.len();
        let mut queued = Vec::with_capacity(last);
        for (entry, number) in entries.into_iter().zip(1..) {
            let id = format!("{}-{number}", name.id);
            let by = if number == last { Way::Move } else { Way::Link };
            let prepared = self.in_folders(|| self.queue.prepare(draft.path(), by, &id, &entry));
            queued.push((id, entry));
            prepared.inspect_err(|_| queued.iter().for_each(|(id, _)| self.queue.discard(id)))?;
        }
        self.commit(&queued).inspect_err(|_| {
            let is_news = |(_, entry): &&(_, Entry)| entry.next_hop == NextHop::Nowhere;
            for (id, _) in queued.iter().filter(is_news) {
                // Nobody's letter is in it, and what it tells is not so.
                if let Ok(Claimed::Ours(claim)) = self.queue.claim(id) {
                    let _ = claim.end();
                }
            }
        })?;
        Ok(queued)
    }

    fn commit(&self, prepared: &[(String, Entry)]) -> io::Result<()> {
        prepared.iter().try_for_each(|(id, _)| self.queue.commit(id))?;
        if prepared.is_empty() { Ok(()) } else { self.queue.sync() }
    }

    /// Delivers a letter that waits in the queue to a mailbox here, for good. Its file
    /// has the same name as it would have had at once, so a second try after a crash
    /// makes no second copy.
    pub fn deliver_waiting(&self, claim: &Claim, mailbox: &LocalMailbox) -> io::Result<()> {
        let file = self.file_name(claim.message_id(), claim.entry.letter.arrived);
        self.put_into(mailbox, &claim.message_path(), Way::Link, &file)
    }

    /// Delivers into a mailbox, which is made if it is missing, or a part of it.
    fn put_into(&self, mailbox: &LocalMailbox, from: &Path, by: Way, file: &str) -> io::Result<()> {
        let known = self.known().get(mailbox).cloned();
        if let Some(maildir) = known.filter(|maildir| maildir.is_whole())
            && if_there(maildir.deliver(from, by, file))?.is_some()
        {
            return Ok(());
        }
        let maildir = self.maildir(mailbox);
        self.in_folders(|| maildir.make())?;
        maildir.deliver(from, by, file)?;
        let mut known = self.known();
        if known.len() >= KNOWN_LIMIT {
            known.clear();
        }
        known.insert(mailbox.clone(), Arc::new(maildir));
        Ok(())
    }

    fn maildir(&self, mailbox: &LocalMailbox) -> Maildir {
        Maildir::new(&self.mail, &folder(mailbox))
    }

    /// Does something in our folders. If somebody emptied the spool while we run, that
    /// must not stop the mail: they are made again.
    fn in_folders<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match if_there(act())? {
            Some(done) => Ok(done),
            None => self.make_folders().and_then(|()| act()),
        }
    }

    fn make_folders(&self) -> io::Result<()> {
        for folder in [&self.tmp, &self.mail] {
            make_folder(folder)?;
        }
        // The last one syncs their parent, which is the same for all three.
        self.queue.make()
    }

    /// Better to find out at the start than at the first message.
    fn try_to_write(&self) -> io::Result<()> {
        let probe = format!(".probe-{}", self.process);
        for folder in [&self.tmp, &self.mail] {
            // One that is there was left by a process of our number.
            make_folder(&folder.join(&probe))?;
            remove_folder(&folder.join(&probe))?;
        }
        self.queue.try_to_write(&probe)
    }

    /// Removes drafts that a server left behind when it was killed. Whatever else
    /// somebody keeps in this folder is none of our business.
    fn sweep(&self, now: SystemTime) -> io::Result<()> {
        for entry in fs::read_dir(&self.tmp)? {
            let entry = entry?;
            if is_draft_name(&entry.file_name().to_string_lossy()) {
                remove_leftover(&entry.path(), now, "a message that was never complete");
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<LocalMailbox, Arc<Maildir>>> {
        // A panic elsewhere cannot leave the map half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the folder of the spool, and those above it that are missing, so that their names
/// last. The lowest one that is there may have been made by a process that was killed
/// before its sync; what is above that one was synced before it was made.
fn make_root(root: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.is_dir();
    let missing = root.ancestors().take_while(is_missing).count();
    let folders: Vec<&Path> = root.ancestors().take(missing + 1).collect();
    for folder in folders.into_iter().rev() {
        // The first folder of a path has none above it.
        let Some(parent) = folder.parent() else { continue };
        let is_missing = is_missing(&folder);
        if is_missing {
            make_folder(folder)?;
        }
        // A path without a parent is one name, in the folder we run in.
        let is_here = parent.as_os_str().is_empty();
        let synced = sync_folder(if is_here { Path::new(".") } else { parent });
        // Where we may not look we made nothing before.
        if is_missing {
            synced?;
        }
    }
    Ok(())
}

/// One line for each recipient of a message that was taken.
fn log_recipients(name: &MessageName, entry: &Entry, what: &str) {
    for recipient in &entry.recipients {
        log::info!(
            "{}: from {} to {}: {what}, {}",
            name.id,
            printable(entry.letter.reverse_path.to_string()),
            printable(recipient.given.to_string()),
            printable(entry.next_hop.to_string()),
        );
    }
}

/// Whether a file is called as [`Spool::new_name`] calls them.
fn is_draft_name(name: &str) -> bool {
    let mut parts = name.splitn(3, '.');
    let (Some(seconds), Some(id), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    is_number(seconds) && is_id(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::{ForwardPath, ReversePath};
    use crate::smtp::dsn::{MailDsn, Notify, RcptDsn};
    use crate::smtp::session::Recipient;
    use crate::smtp::site::Destination;
    use crate::store::disk::{is_full, power};
    use crate::store::envelope::entries;
    use std::os::unix::fs::PermissionsExt;

    fn mailbox(name: &str) -> LocalMailbox {
        LocalMailbox { domain: "host.example".to_owned(), name: name.to_owned() }
    }

    /// Names of all files below `folder`, relative to it, sorted.
    fn tree(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    names.push(path.strip_prefix(folder).unwrap().display().to_string());
                }
            }
        }
        names.sort();
        names
    }

    /// Delivers to mailboxes here, and gives the name and how many entries are queued.
    fn deliver_from(
        spool: &Spool,
        to: &[&str],
        origin: Origin,
    ) -> io::Result<(MessageName, usize)> {
        deliver_with(spool, to, origin, RcptDsn::default())
    }

    fn deliver_with(
        spool: &Spool,
        to: &[&str],
        origin: Origin,
        dsn: RcptDsn,
    ) -> io::Result<(MessageName, usize)> {
        let now = Timestamp::now();
        let name = spool.new_name(now);
        let mut draft = spool.draft(&name, "Return-Path: <>\n", None)?;
        draft.write(b"\nhello\n")?;
        draft.sync()?;
        let recipient = |name: &&str| Recipient {
            address: ForwardPath::Postmaster,
            destination: Destination::Here(mailbox(name)),
            alias: None,
            dsn: dsn.clone(),
        };
        let letter = draft.letter(ReversePath::Null, MailDsn::default(), now);
        let entries = entries(&letter, to.iter().map(recipient).collect(), false);
        let queued = spool.deliver(draft, &name, entries, origin)?;
        Ok((name, queued.len()))
    }

    fn deliver(spool: &Spool, to: &[&str]) -> io::Result<MessageName> {
        deliver_from(spool, to, Origin::Client).map(|(name, _)| name)
    }

    /// Puts a file where the folder of this mailbox should be.
    fn break_mailbox(root: &Path, name: &str) {
        fs::create_dir_all(root.join("mail/host.example")).unwrap();
        fs::write(root.join("mail/host.example").join(name), "").unwrap();
    }

    #[test]
    fn a_message_is_one_file_with_a_name_in_each_mailbox_and_none_in_tmp() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let name = deliver(&spool, &["ann", "bob"]).unwrap();
        let in_mailbox = |who| format!("mail/host.example/{who}/new/{}", name.file);
        assert_eq!(tree(root.path()), [in_mailbox("ann"), in_mailbox("bob")]);
        let file = root.path().join(in_mailbox("ann"));
        assert_eq!(fs::read(&file).unwrap(), b"Return-Path: <>\n\nhello\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_name_holds_its_id_and_no_two_are_alike() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let when = Timestamp::from_microsecond(1_795_324_479_000_007).unwrap();
        let (one, other) = (spool.new_name(when), spool.new_name(when));
        assert_ne!(one.id, other.id);
        assert_eq!(one.file, format!("1795324479.{}.host.example", one.id));
        assert!(one.id.bytes().all(|octet| octet.is_ascii_alphanumeric()), "{}", one.id);
    }

    #[test]
    fn there_is_room_and_a_missing_folder_does_not_deny_it() {
        let root = tempfile::tempdir().unwrap();
        let open = || Spool::open(root.path(), "host.example").unwrap();
        let (spool, other) = (open(), open());
        assert!((1..u64::MAX).contains(&spool.room()));
        assert!(spool.room.lock().unwrap().is_some_and(|(_, octets)| octets < u64::MAX));
        fs::remove_dir_all(root.path()).unwrap();
        assert_eq!(other.room(), u64::MAX);
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        drop(spool.draft(&spool.new_name(Timestamp::now()), "Return-Path: <>\n", None).unwrap());
        assert!(tree(root.path()).is_empty());
    }

    #[test]
    fn one_broken_mailbox_keeps_nobody_else_waiting() {
        // Whether it is the first, in the middle, or the last, whose file would be moved.
        for broken in ["ann", "bob", "cem"] {
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(root.path(), "host.example").unwrap();
            break_mailbox(root.path(), broken);
            let (name, queued) =
                deliver_from(&spool, &["ann", "bob", "cem"], Origin::Client).unwrap();
            assert_eq!(queued, 1, "{broken}");
            let id = format!("{}-1", name.id);
            let entry = spool.queue().read(&id).unwrap().unwrap().unwrap();
            assert_eq!(entry.next_hop, NextHop::Mailbox(mailbox(broken)));
            assert_eq!(tree(&root.path().join("mail")).len(), 3, "two letters and the file");

            // Mended: the letter is delivered under the name it would have had.
            fs::remove_file(root.path().join("mail/host.example").join(broken)).unwrap();
            let Claimed::Ours(claim) = spool.queue().claim(&id).unwrap() else { panic!() };
            // Twice, as after a crash between the delivery and its note.
            for _ in 0..2 {
                spool.deliver_waiting(&claim, &mailbox(broken)).unwrap();
            }
            claim.end().unwrap();
            let in_mailbox = |who: &str| format!("mail/host.example/{who}/new/{}", name.file);
            assert_eq!(tree(root.path()), ["ann", "bob", "cem"].map(in_mailbox));
        }
    }

    #[test]
    fn a_client_is_asked_again_if_nobody_could_be_served_and_we_are_not() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        break_mailbox(root.path(), "ann");
        assert!(deliver(&spool, &["ann"]).is_err());
        assert_eq!(tree(root.path()), ["mail/host.example/ann"]);
        let (_, queued) = deliver_from(&spool, &["ann"], Origin::Ourselves).unwrap();
        assert_eq!(queued, 1);
    }

    #[test]
    fn a_mailbox_on_a_full_disk_of_its_own_keeps_nobody_else_waiting() {
        // The draft is made and synced. Then each name is given and its folder synced; the
        // last one is moved.
        for change in [3, 5, 7] {
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(root.path(), "host.example").unwrap();
            let to = ["ann", "bob", "cem"];
            deliver(&spool, &to).unwrap();
            power::fill_at(change);
            let (_, queued) = deliver_from(&spool, &to, Origin::Client).unwrap();
            let letters = tree(&root.path().join("mail")).len();
            assert_eq!((queued, letters), (1, 3 + 2), "change {change}");
        }
    }

    #[test]
    fn a_report_for_a_mailbox_on_a_full_disk_waits_in_the_queue() {
        for (origin, queued) in [(Origin::Client, None), (Origin::Ourselves, Some(1))] {
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(root.path(), "host.example").unwrap();
            deliver(&spool, &["ann"]).unwrap();
            // The draft is made and synced; then it has no room in the mailbox.
            power::fill_at(3);
            let delivered = deliver_from(&spool, &["ann"], origin);
            assert!(delivered.as_ref().err().is_none_or(is_full));
            assert_eq!(delivered.ok().map(|(_, queued)| queued), queued, "{origin:?}");
        }
    }

    #[test]
    fn nobody_is_told_that_a_letter_arrived_which_was_refused() {
        let dsn = RcptDsn { notify: Notify::parse("SUCCESS"), orcpt: None };
        let mut refused = 0;
        for change in 1..30 {
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(root.path(), "host.example").unwrap();
            power::fail_at(change);
            let delivered = deliver_with(&spool, &["ann", "bob"], Origin::Client, dsn.clone());
            power::fail_at(0);
            let told = spool.queue().ids().unwrap().len();
            assert!(delivered.is_ok() || told == 0, "change {change}");
            refused += usize::from(delivered.is_err());
        }
        assert!(refused > 5, "{refused} were refused");
    }

    #[test]
    fn a_part_of_a_mailbox_that_is_gone_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        deliver(&spool, &["ann"]).unwrap();
        for part in ["cur", "tmp", "new"] {
            let folder = root.path().join("mail/host.example/ann").join(part);
            fs::remove_dir_all(&folder).unwrap();
            deliver(&spool, &["ann"]).unwrap();
            assert!(folder.is_dir(), "{part}");
        }
    }

    #[test]
    fn a_probe_that_was_left_behind_does_not_stop_the_start() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["tmp", "mail", "queue"] {
            fs::create_dir(root.path().join(folder)).unwrap();
            let probe = format!("{folder}/.probe-{}", process::id());
            fs::create_dir(root.path().join(probe)).unwrap();
        }
        Spool::open(root.path(), "host.example").unwrap();
    }

    #[test]
    fn a_spool_emptied_under_the_server_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        deliver(&spool, &["ann"]).unwrap();
        fs::remove_dir_all(root.path().join("mail")).unwrap();
        fs::remove_dir_all(root.path().join("tmp")).unwrap();
        deliver(&spool, &["ann"]).unwrap();
        fs::remove_dir_all(root.path().join("mail/host.example/ann")).unwrap();
        deliver(&spool, &["ann"]).unwrap();
        assert_eq!(tree(root.path()).len(), 1);
    }

    #[test]
    fn only_old_drafts_are_swept_and_nothing_that_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let draft = format!("tmp/{}", spool.new_name(Timestamp::now()).file);
        fs::write(root.path().join(&draft), "From").unwrap();
        // As other programs call theirs.
        let others = ["tmp/1.M20046P2137.host", "tmp/1.MaP1Q1.host", "tmp/thesis.txt"];
        for name in others {
            fs::write(root.path().join(name), "a year of work").unwrap();
        }
        fs::create_dir(root.path().join("tmp/1.M1P1Q1.a-folder")).unwrap();
        let (now, age) = (SystemTime::now(), Duration::from_secs(36 * 3600));
        spool.sweep(now + age - Duration::from_secs(60)).unwrap();
        assert_eq!(tree(root.path()), [others[0], others[1], draft.as_str(), others[2]]);
        spool.sweep(now + age + Duration::from_secs(60)).unwrap();
        assert_eq!(tree(root.path()), others);
    }

    #[test]
    fn a_spool_that_cannot_hold_mail_is_found_at_the_start() {
        for name in ["tmp", "mail"] {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(name), "").unwrap();
            assert!(Spool::open(root.path(), "host.example").is_err(), "{name}");
        }
    }

    #[test]
    fn a_spool_deep_in_folders_that_do_not_exist_is_made_private() {
        let root = tempfile::tempdir().unwrap();
        Spool::open(&root.path().join("a/b/spool"), "host.example").unwrap();
        for name in ["a", "a/b", "a/b/spool", "a/b/spool/tmp"] {
            let mode = fs::metadata(root.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
    }

    #[test]
    fn a_very_long_hostname_fits_a_file_name() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), &"h".repeat(255)).unwrap();
        deliver(&spool, &["ann"]).unwrap();
    }

    #[test]
    fn more_mailboxes_than_are_remembered_are_no_trouble() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let maildir = Arc::new(spool.maildir(&mailbox("ann")));
        let fill = |number: usize| (mailbox(&number.to_string()), Arc::clone(&maildir));
        spool.known().extend((0..KNOWN_LIMIT).map(fill));
        deliver(&spool, &["ann"]).unwrap();
        assert_eq!(spool.known().len(), 1);
    }
}
