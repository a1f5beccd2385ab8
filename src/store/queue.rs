//! What still has to go to other servers, as files that a person can read.
//!
//! ```text
//! queue/<id>.message    the message: a name for the file that mailboxes may share
//! queue/<id>.envelope   who it is for, and what was tried
//! queue/<id>.bad        an envelope that cannot be used, for a person to look at
//! queue/<id>.dead       that of a message which can neither be delivered nor sent back
//! ```
//!
//! In: a draft and its recipients elsewhere. Out: entries, one by one, each to
//! whoever claims it first. The files *are* the state: an entry exists from the
//! moment its envelope has its name, and until that name is gone. The message is
//! named before the envelope and removed after it, so a crash between any two
//! steps leaves an entry that is whole, or a message that nobody waits for.
//!
//! Left to others: what stands in an envelope (`envelope.rs`); when an entry is tried,
//! where, and what the answers mean (`relay/`).
//!
//! Book: docs/14-the-queue.md.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::store::disk::{
    LEFTOVER_AGE, make_folder, overwrite_file, remove_file, rename, sync_folder,
};
use crate::store::draft::{Draft, Way};
use crate::store::envelope::{BadEnvelope, Entry, Letter};

/// The folder of entries.
#[derive(Debug)]
pub struct Queue {
    folder: PathBuf,
    tmp: PathBuf,
}

/// An entry that nobody else may touch, in this process or another, until this
/// is dropped.
#[derive(Debug)]
pub struct Claim<'a> {
    queue: &'a Queue,
    id: String,
    /// Locked. Never rewritten, so that its lock stays in place.
    message: File,
    /// What the envelope said when it was claimed. Changes count once they are saved.
    pub entry: Entry,
}

impl Queue {
    /// The queue of a spool. Nothing is opened or made.
    pub fn new(spool: &Path) -> Queue {
        Queue { folder: spool.join("queue"), tmp: spool.join("tmp") }
    }

    /// Makes the folder, if it is missing.
    pub fn make(&self) -> io::Result<()> {
        make_folder(&self.folder)?;
        self.folder.parent().map_or(Ok(()), sync_folder)
    }

    /// Finds out whether entries can be made: whether a name can move into the folder.
    /// It cannot where the folder is on a file system of its own.
    pub fn try_to_write(&self, probe: &str) -> io::Result<()> {
        let (from, to) = (self.tmp.join(probe), self.folder.join(probe));
        fs::create_dir(&from)?;
        fs::rename(&from, &to).inspect_err(|_| drop(fs::remove_dir(&from)))?;
        fs::remove_dir(&to)
    }

    /// Takes a draft over, complete and on disk, for good. The rename of the
    /// envelope is the commit: no worker sees the entry before it, and nothing is
    /// taken back after it.
    pub fn commit(&self, draft: &mut Draft, id: &str, letter: &Letter) -> io::Result<()> {
        let entry = Entry::new(letter, &mut draft.reader()?)?;
        let message = self.path(id, "message");
        draft.put(Way::Move, &message, &self.tmp.join(format!("{id}.message")))?;
        if let Err(error) = self.name_envelope(id, &entry, "envelope") {
            // Nobody has seen it. If this fails too, the sweep finds it.
            let _ = remove_file(&message);
            return Err(error);
        }
        sync_folder(&self.folder)
    }

    /// The ids of all entries, in no order.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            if let Some(id) =
                file?.file_name().to_str().and_then(|name| name.strip_suffix(".envelope"))
            {
                ids.push(id.to_owned());
            }
        }
        Ok(ids)
    }

    /// Reads an entry without claiming it, to look at it. `None` if it is gone.
    pub fn read(&self, id: &str) -> io::Result<Option<Result<Entry, BadEnvelope>>> {
        match fs::read(self.path(id, "envelope")) {
            Ok(text) => Ok(Some(Entry::parse(&text))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Claims an entry. `None` if somebody else has it, or if it is gone, or if it
    /// cannot be used; then it is set aside as `.bad`, and the log says why.
    pub fn claim(&self, id: &str) -> io::Result<Option<Claim<'_>>> {
        let message = match File::open(self.path(id, "message")) {
            Ok(message) => Some(message),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match message.as_ref().map(File::try_lock) {
            Some(Err(TryLockError::WouldBlock)) => return Ok(None),
            Some(Err(TryLockError::Error(error))) => return Err(error),
            Some(Ok(())) | None => {}
        }
        // Only now is the envelope looked at: whoever had the lock before us may
        // have changed it, or removed it.
        match (self.read(id)?, message) {
            (None, _) => Ok(None),
            (Some(Ok(entry)), Some(message)) => {
                Ok(Some(Claim { queue: self, id: id.to_owned(), message, entry }))
            }
            (Some(Ok(_)), None) => self.set_aside(id, "its message is missing").map(|()| None),
            (Some(Err(why)), _) => self.set_aside(id, &why.to_string()).map(|()| None),
        }
    }

    /// Removes what a crash left behind and nobody waits for: messages without an
    /// envelope, and what was never renamed into the queue.
    pub fn sweep(&self, now: SystemTime) -> io::Result<()> {
        for folder in [&self.folder, &self.tmp] {
            for file in fs::read_dir(folder)? {
                let path = file?.path();
                let is = |what: &str| path.extension().is_some_and(|end| end == what);
                let is_ours = (is("message") || folder == &self.tmp && is("envelope"))
                    && path.file_stem().and_then(OsStr::to_str).is_some_and(is_id);
                // Another server on this spool may have removed it by now.
                let Ok(changed) = fs::metadata(&path).and_then(|data| data.modified()) else {
                    continue;
                };
                let is_old = now.duration_since(changed).unwrap_or_default() > LEFTOVER_AGE;
                let is_named = |what: &str| path.with_extension(what).exists();
                // One whose envelope was set aside waits, too: for a person.
                let is_waited_for = || {
                    folder == &self.folder && ["envelope", "bad", "dead"].into_iter().any(is_named)
                };
                if !is_ours || !is_old || is_waited_for() {
                    continue;
                }
                log::info!("removing {}, which belongs to nothing", path.display());
                if let Err(error) = remove_file(&path) {
                    log::warn!("cannot remove {}: {error}", path.display());
                }
            }
        }
        Ok(())
    }

    /// Writes the envelope beside the queue, waits until it is on disk, and names
    /// it: all of it appears, or nothing.
    fn name_envelope(&self, id: &str, entry: &Entry, what: &str) -> io::Result<()> {
        self.write_envelope(id, entry)?.sync_all()?;
        rename(&self.new_envelope(id), &self.path(id, what))
    }

    fn write_envelope(&self, id: &str, entry: &Entry) -> io::Result<File> {
        let mut file = overwrite_file(&self.new_envelope(id))?;
        file.write_all(entry.to_string().as_bytes())?;
        Ok(file)
    }

    /// Where an envelope is written before it gets its name.
    fn new_envelope(&self, id: &str) -> PathBuf {
        self.tmp.join(format!("{id}.envelope"))
    }

    fn set_aside(&self, id: &str, why: &str) -> io::Result<()> {
        log::error!("queue entry {id}: {why}; its envelope is kept as {id}.bad");
        rename(&self.path(id, "envelope"), &self.path(id, "bad"))?;
        sync_folder(&self.folder)
    }

    fn path(&self, id: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{id}.{what}"))
    }
}

impl Claim<'_> {
    /// The id, as in the log and the 250 that took the letter.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The message, in file form, from behind our `Return-Path` line.
    pub fn message(&self) -> io::Result<impl Read> {
        let mut message = &self.message;
        message.seek(SeekFrom::Start(self.entry.skip))?;
        Ok(message)
    }

    /// Finds out whether changes could be saved now: better before somebody has the
    /// letter than after it, because then it would go there again and again.
    pub fn try_to_write(&self) -> io::Result<()> {
        self.queue.write_envelope(&self.id, &self.entry).map(drop)
    }

    /// Makes the changes of the entry last. When nobody waits any more, this ends
    /// the entry: the envelope goes first, then the message.
    pub fn save(&self) -> io::Result<()> {
        if self.entry.is_waiting() {
            self.queue.name_envelope(&self.id, &self.entry, "envelope")?;
            return sync_folder(&self.queue.folder);
        }
        self.end()?;
        remove_file(&self.queue.path(&self.id, "message"))
    }

    /// Ends the entry of a message that can neither be delivered nor sent back. The
    /// message stays, and its envelope as `.dead`, with what was said last.
    pub fn bury(&self) -> io::Result<()> {
        self.queue.name_envelope(&self.id, &self.entry, "dead")?;
        self.end()
    }

    fn end(&self) -> io::Result<()> {
        remove_file(&self.queue.path(&self.id, "envelope"))?;
        sync_folder(&self.queue.folder)?;
        match remove_file(&self.queue.new_envelope(&self.id)) {
            // Only a trial leaves one behind.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Whether a text is the id of a message, as `Spool::name` makes them.
pub fn is_id(text: &str) -> bool {
    let numbers = text.strip_prefix('M').map(|rest| rest.split(['P', 'Q']));
    numbers.is_some_and(|mut numbers| numbers.all(is_number))
}

/// Whether a text is digits, one or more.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::{Mailbox, ReversePath};
    use crate::smtp::site::LocalMailbox;
    use crate::store::disk::power;
    use crate::store::envelope::State;
    use crate::store::spool::Spool;
    use jiff::Timestamp;
    use std::time::Duration;

    const TEXT: &str = "Return-Path: <ann@client.example>\nSubject: x\n\nGr\u{fc}\u{df}e\n";

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap().0
    }

    fn letter(to: &[&str]) -> Letter {
        Letter {
            reverse_path: ReversePath::Mailbox(mailbox("ann@client.example")),
            smtputf8: false,
            recipients: to.iter().map(|to| mailbox(to)).collect(),
            arrived: Timestamp::now(),
        }
    }

    /// Delivers to Bob here and to two people elsewhere, and gives the id.
    fn deliver(spool: &Spool) -> io::Result<String> {
        let name = spool.name(Timestamp::now());
        let draft = spool.draft(&name, TEXT, &[])?;
        let bob = LocalMailbox { domain: "host.example".to_owned(), name: "bob".to_owned() };
        let elsewhere = letter(&["cem@b.example", "dee@c.example"]);
        spool.deliver(draft, &name, &[&bob], Some(&elsewhere)).map(|()| name.id)
    }

    fn names(folder: &Path) -> Vec<String> {
        let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
        let name = |file: io::Result<fs::DirEntry>| file.unwrap().file_name();
        let mut names: Vec<_> = files.map(|file| name(file).into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What somebody who claims the only entry would send, and to how many.
    fn sent_from(queue: &Queue) -> Option<(String, usize)> {
        let ids = queue.ids().unwrap();
        let claim = queue.claim(ids.first()?).unwrap()?;
        let mut text = String::new();
        claim.message().unwrap().read_to_string(&mut text).unwrap();
        let waiting = claim.entry.recipients.iter().filter(|one| one.state == State::Waiting);
        Some((text, waiting.count()))
    }

    #[test]
    fn an_entry_is_two_files_and_holds_what_was_measured() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap();
        let files = [format!("{id}.envelope"), format!("{id}.message")];
        assert_eq!(names(&root.path().join("queue")), files);
        let entry = spool.queue().read(&id).unwrap().unwrap().unwrap();
        let (_, sent) = TEXT.split_once('\n').unwrap();
        assert_eq!(entry.size, sent.replace('\n', "\r\n").len() as u64);
        assert!(entry.is_8bit);
        assert_eq!(sent_from(spool.queue()), Some((sent.to_owned(), 2)));
        assert!(names(&root.path().join("tmp")).is_empty());
        assert_eq!(names(&root.path().join("mail/host.example/bob/new")).len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_kept_for_a_person() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        for (what, spoil) in [
            (
                "envelope",
                (|path: &Path| fs::write(path, "nonsense\n")) as fn(&Path) -> io::Result<()>,
            ),
            ("message", |path| fs::remove_file(path)),
        ] {
            let id = deliver(&spool).unwrap();
            spoil(&spool.queue().path(&id, what)).unwrap();
            assert!(spool.queue().claim(&id).unwrap().is_none());
            assert!(spool.queue().path(&id, "bad").exists(), "{what}");
            assert!(spool.queue().ids().unwrap().is_empty());
        }
    }

    #[test]
    fn an_entry_is_claimed_by_one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap();
        // Another process has its own Queue for the same folder.
        let other = Queue::new(root.path());
        let claim = spool.queue().claim(&id).unwrap().unwrap();
        assert!(other.claim(&id).unwrap().is_none());
        drop(claim);
        assert!(other.claim(&id).unwrap().is_some());
        assert!(other.claim("M1P1Q1").unwrap().is_none());
    }

    #[test]
    fn changes_last_once_they_are_saved_and_the_last_one_ends_the_entry() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap();
        for (left, state) in [(1, State::Delivered), (0, State::Failed)] {
            let mut claim = spool.queue().claim(&id).unwrap().unwrap();
            claim.entry.attempts += 1;
            claim.entry.recipients[left].state = state;
            claim.entry.recipients[left].last = "250 2.0.0 a\r\nRCPT TO:<x@y.example>".to_owned();
            claim.save().unwrap();
            drop(claim);
            let entry = spool.queue().read(&id).unwrap();
            assert_eq!(entry.map(|entry| entry.unwrap().recipients.len()), (left > 0).then_some(2));
        }
        assert!(names(&root.path().join("queue")).is_empty());
    }

    #[test]
    fn a_buried_message_stays_and_its_entry_goes() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap();
        spool.queue().claim(&id).unwrap().unwrap().bury().unwrap();
        let left = ["dead", "message"].map(|what| format!("{id}.{what}"));
        assert_eq!(names(&root.path().join("queue")), left);
        assert!(spool.queue().claim(&id).unwrap().is_none());
    }

    #[test]
    fn only_old_leftovers_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap();
        let queue = root.path().join("queue");
        for name in
            ["M1P1Q1.message", "M2P2Q2.dead", "M3P3Q3.bad", "M3P3Q3.message", "thesis.message"]
        {
            fs::write(queue.join(name), "").unwrap();
        }
        fs::write(root.path().join("tmp/M4P4Q4.envelope"), "").unwrap();
        let (now, before) = (SystemTime::now(), names(&queue));
        spool.queue().sweep(now + LEFTOVER_AGE - Duration::from_secs(60)).unwrap();
        assert_eq!(names(&queue), before);
        assert_eq!(names(&root.path().join("tmp")).len(), 1);
        spool.queue().sweep(now + LEFTOVER_AGE + Duration::from_secs(60)).unwrap();
        let (envelope, message) = (format!("{id}.envelope"), format!("{id}.message"));
        let left =
            [&envelope, &message, "M2P2Q2.dead", "M3P3Q3.bad", "M3P3Q3.message", "thesis.message"];
        assert_eq!(names(&queue).len(), left.len());
        assert!(left.iter().all(|name| queue.join(name).exists()));
        assert!(names(&root.path().join("tmp")).is_empty());
    }

    /// Stops the disk after each change of `act` in turn, up to the point where it
    /// gets through. After each stop the power is on again, and `check` is told
    /// whether `act` had finished. Gives how many stops there were.
    fn at_every_stop(
        prepare: impl Fn(&Spool),
        act: impl Fn(&Spool) -> io::Result<()>,
        check: impl Fn(&Path, bool),
    ) -> usize {
        for changes in 0.. {
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(root.path(), "host.example").unwrap();
            prepare(&spool);
            power::set(Some(changes));
            let done = act(&spool);
            power::set(None);
            drop(spool);
            // What a new process finds.
            Spool::open(root.path(), "host.example").unwrap();
            check(root.path(), done.is_ok());
            assert!(names(&root.path().join("queue")).iter().all(|name| !name.ends_with(".bad")));
            if done.is_ok() {
                return changes;
            }
        }
        unreachable!("the loop has no end of its own")
    }

    #[test]
    fn a_stop_while_a_letter_is_taken_leaves_all_of_an_entry_or_none() {
        let (_, sent) = TEXT.split_once('\n').unwrap();
        let whole = Some((sent.to_owned(), 2));
        let stops = at_every_stop(
            |_| {},
            |spool| deliver(spool).map(drop),
            |root, is_done| {
                let found = sent_from(&Queue::new(root));
                assert!(found == whole || (found.is_none() && !is_done), "{found:?}");
                // Bob has his letter before there is an entry: a duplicate for him
                // when the client tries again, never a loss.
                let bob = names(&root.join("mail/host.example/bob/new"));
                assert!(bob.len() == 1 || found.is_none());
            },
        );
        assert!(stops > 10, "{stops}");
    }

    #[test]
    fn a_stop_while_an_answer_is_recorded_keeps_the_old_state_or_the_new() {
        let (_, sent) = TEXT.split_once('\n').unwrap();
        let delivered = |recipients: usize| {
            move |spool: &Spool| {
                let ids = spool.queue().ids().unwrap();
                let mut claim = spool.queue().claim(&ids[0])?.unwrap();
                for recipient in claim.entry.recipients.iter_mut().take(recipients) {
                    recipient.state = State::Delivered;
                }
                claim.save()
            }
        };
        for (recipients, left) in [(1, Some((sent.to_owned(), 1))), (2, None)] {
            let stops = at_every_stop(
                |spool| drop(deliver(spool).unwrap()),
                delivered(recipients),
                |root, is_done| {
                    let found = sent_from(&Queue::new(root));
                    let is_old = found == Some((sent.to_owned(), 2));
                    assert!(found == left || (is_old && !is_done), "{found:?}");
                },
            );
            assert!(stops >= 3, "{stops}");
        }
    }

    #[test]
    fn a_stop_while_a_message_is_buried_leaves_it_there_in_one_form() {
        let bury = |spool: &Spool| {
            let ids = spool.queue().ids().unwrap();
            spool.queue().claim(&ids[0])?.unwrap().bury()
        };
        let stops = at_every_stop(
            |spool| drop(deliver(spool).unwrap()),
            bury,
            |root, is_done| {
                let files = names(&root.join("queue"));
                let has = |end: &str| files.iter().any(|name| name.ends_with(end));
                assert!(has(".message") && (has(".envelope") || has(".dead")), "{files:?}");
                assert_eq!(has(".envelope"), !is_done && sent_from(&Queue::new(root)).is_some());
            },
        );
        assert!(stops >= 4, "{stops}");
    }

    #[test]
    fn a_trial_tells_a_full_disk_and_leaves_nothing_behind_in_the_end() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap();
        let mut claim = spool.queue().claim(&id).unwrap().unwrap();
        power::set(Some(0));
        assert!(claim.try_to_write().is_err());
        power::set(None);
        claim.try_to_write().unwrap();
        for recipient in &mut claim.entry.recipients {
            recipient.state = State::Delivered;
        }
        claim.save().unwrap();
        assert!(names(&root.path().join("tmp")).is_empty());
        assert!(names(&root.path().join("queue")).is_empty());
    }
}
