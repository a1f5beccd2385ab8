//! What still has to go somewhere, as files that a person can read.
//!
//! ```text
//! queue/<id>.message    the message: one more name for the file that mailboxes share
//! queue/<id>.envelope   who it is for at one destination, and what was tried
//! queue/<id>.bad        an envelope that cannot be used, for a person to look at
//! queue/<id>.dead       that of a letter which can neither be delivered nor sent back
//! ```
//!
//! In: a draft and its entries. Out: entries, one by one, each to whoever claims it
//! first. The files *are* the state: an entry exists from the moment its envelope has
//! its name, and until that name is gone. The message is named before the envelope and
//! removed after it, so a crash between any two steps leaves an entry that is whole,
//! or a message that nobody waits for.
//!
//! A claim is a lock on the envelope. A new envelope is locked before it takes the name
//! of the old one, so the name leads to a locked file for as long as the claim lasts,
//! and several processes may share one queue.
//!
//! Left to others: what stands in an envelope (`envelope.rs`); when an entry is tried,
//! where, and what the answers mean (`relay/`).
//!
//! Book: docs/14-the-queue.md.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::Access;

use crate::store::disk::{
    Way, if_there, make_folder, overwrite_file, put, remove_file, remove_folder, remove_leftover,
    rename, sync_file, sync_folder,
};
use crate::store::envelope::{BadEnvelope, Entry};

/// How much room an answer takes in an envelope: its text, a status and a name.
const ANSWER_OCTETS: usize = 1024;

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
    /// The file that the name of the envelope leads to. Locked.
    envelope: File,
    /// What the envelope said when it was claimed. Changes count once they are saved.
    pub entry: Entry,
}

/// What came of wanting an entry.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "whoever gets one takes it apart at once")]
pub enum Claimed<'a> {
    /// It is ours.
    Ours(Claim<'a>),
    /// Somebody else has it.
    Taken,
    /// There is no such entry, or no more; or it could not be used, and was set aside.
    Gone,
}

impl Queue {
    /// The queue of a spool. Nothing is opened or made.
    pub fn new(spool: &Path) -> Queue {
        Queue { folder: spool.join("queue"), tmp: spool.join("tmp") }
    }

    /// Makes the folder, if it is missing.
    pub fn make(&self) -> io::Result<()> {
        make_folder(&self.folder)?;
        if let Some(spool) = self.folder.parent() { sync_folder(spool) } else { Ok(()) }
    }

    /// Finds out whether entries can be made: whether a name can move into the folder.
    /// It cannot where the folder is on a file system of its own.
    pub fn try_to_write(&self, probe: &str) -> io::Result<()> {
        let (from, to) = (self.tmp.join(probe), self.folder.join(probe));
        make_folder(&from)?;
        rename(&from, &to).inspect_err(|_| drop(remove_folder(&from)))?;
        remove_folder(&to)
    }

    /// Prepares an entry of the message at `from`, which is complete and on disk. Nobody
    /// sees it yet.
    pub fn prepare(&self, from: &Path, by: Way, id: &str, entry: &Entry) -> io::Result<()> {
        put(from, by, &self.path(id, "message"), &self.tmp)?;
        let file = self.write_envelope(id, entry)?;
        sync_file(&file)
    }

    /// Names the envelope that was prepared: the commit. No worker sees the entry before
    /// it, and no letter is taken back after it. It lasts once [`Queue::sync`] has returned.
    pub fn commit(&self, id: &str) -> io::Result<()> {
        rename(&self.new_envelope(id), &self.path(id, "envelope"))
    }

    /// Takes back what was prepared. What cannot be removed is swept some day.
    pub fn discard(&self, id: &str) {
        let _ = remove_file(&self.new_envelope(id));
        let _ = remove_file(&self.path(id, "message"));
    }

    /// Waits until the names of all entries are on disk.
    #[track_caller]
    pub fn sync(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }

    /// The ids of all entries with the time of their last change, in no order.
    pub fn ids(&self) -> io::Result<Vec<(String, SystemTime)>> {
        let mut ids = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let name = file.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".envelope"))
                // One that is gone by now is no error.
                && let Ok(changed) = file.metadata().and_then(|data| data.modified())
            {
                ids.push((id.to_owned(), changed));
            }
        }
        Ok(ids)
    }

    /// Reads an entry without claiming it, to look at it. `None` if it is gone.
    pub fn read(&self, id: &str) -> io::Result<Option<Result<Entry, BadEnvelope>>> {
        let text = if_there(fs::read(self.path(id, "envelope")))?;
        Ok(text.map(|text| Entry::parse(&text)))
    }

    /// Claims an entry. If it cannot be used it is set aside as `.bad`, and the log
    /// says why.
    pub fn claim(&self, id: &str) -> io::Result<Claimed<'_>> {
        let path = self.path(id, "envelope");
        // For writing, because over NFS only such a file can be locked for one alone.
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let Some(mut envelope) = if_there(opened)? else { return Ok(Claimed::Gone) };
        match envelope.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Claimed::Taken),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had the lock before us may have given the name to another file, or
        // taken it away. A new file is somebody's again: we come back for it.
        let Some(now) = if_there(fs::metadata(&path))? else { return Ok(Claimed::Gone) };
        if !is_same_file(&now, &envelope.metadata()?) {
            return Ok(Claimed::Taken);
        }
        let mut text = Vec::new();
        envelope.read_to_end(&mut text)?;
        let why = match Entry::parse(&text) {
            Ok(entry) if self.path(id, "message").try_exists()? => {
                let id = id.to_owned();
                return Ok(Claimed::Ours(Claim { queue: self, id, envelope, entry }));
            }
            Ok(_) => "its message is missing".to_owned(),
            Err(why) => why.to_string(),
        };
        log::error!("queue entry {id}: {why}; its envelope is kept as {id}.bad");
        // Not synced: if the entry comes back after a power cut, it is set aside once more.
        rename(&path, &self.path(id, "bad"))?;
        Ok(Claimed::Gone)
    }

    /// Removes what a crash left behind and nobody waits for: messages without an
    /// envelope, and what was never renamed into the queue.
    pub fn sweep(&self, now: SystemTime) -> io::Result<()> {
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            // One that cannot be looked at may be there.
            let is_named = |what: &&str| path.with_extension(what).try_exists().unwrap_or(true);
            // One whose envelope was set aside waits, too: for a person.
            let is_wanted = ["envelope", "bad", "dead"].iter().any(is_named);
            if is_of_entry(&path, &["message"]) && !is_wanted {
                remove_leftover(&path, now, "what belongs to nothing");
            }
        }
        for file in fs::read_dir(&self.tmp)? {
            let path = file?.path();
            if is_of_entry(&path, &["message", "envelope"]) {
                remove_leftover(&path, now, "what belongs to nothing");
            }
        }
        Ok(())
    }

    /// Writes an envelope beside the queue, and makes sure that it can be read again.
    fn write_envelope(&self, id: &str, entry: &Entry) -> io::Result<File> {
        let text = entry.to_string();
        if Entry::parse(text.as_bytes()).as_ref() != Ok(entry) {
            return Err(io::Error::other(format!("a bug: this is no envelope of {id}: {text:?}")));
        }
        let mut file = overwrite_file(&self.new_envelope(id))?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    }

    /// Where an envelope is written before it gets its name.
    fn new_envelope(&self, id: &str) -> PathBuf {
        self.tmp.join(format!("{id}.envelope"))
    }

    fn path(&self, id: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{id}.{what}"))
    }
}

impl Claim<'_> {
    /// The id, as in the log.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id in the 250 that took the letter: that of the entry without its number.
    pub fn message_id(&self) -> &str {
        self.id.split_once('-').map_or(self.id.as_str(), |(id, _)| id)
    }

    /// Where the message is, with our `Return-Path` line in front.
    pub fn message_path(&self) -> PathBuf {
        self.queue.path(&self.id, "message")
    }

    /// The message, in file form, from behind our `Return-Path` line.
    pub fn message(&self) -> io::Result<File> {
        let mut message = File::open(self.message_path())?;
        message.seek(SeekFrom::Start(self.entry.letter.skip))?;
        Ok(message)
    }

    /// Finds out whether changes could be saved now: better before somebody has the
    /// letter than after it, because then it would go there again and again.
    pub fn try_to_write(&self) -> io::Result<()> {
        rustix::fs::access(&self.queue.folder, Access::WRITE_OK)?;
        let mut file = self.queue.write_envelope(&self.id, &self.entry)?;
        // With the answers it will be larger.
        file.write_all(&vec![b' '; self.entry.recipients.len() * ANSWER_OCTETS])
    }

    /// Makes the changes of the entry last. The new envelope is written beside the queue and
    /// takes the name of the old one: all of it appears, or nothing. It is locked before it
    /// has the name, so nobody can claim it.
    pub fn save(&mut self) -> io::Result<()> {
        let file = self.queue.write_envelope(&self.id, &self.entry)?;
        file.lock()?;
        sync_file(&file)?;
        rename(&self.queue.new_envelope(&self.id), &self.queue.path(&self.id, "envelope"))?;
        self.envelope = file;
        self.queue.sync()
    }

    /// Ends an entry about which nothing is left to do: the envelope goes first, then
    /// the message.
    pub fn end(&self) -> io::Result<()> {
        remove_file(&self.queue.path(&self.id, "envelope"))?;
        self.queue.sync()?;
        // Only a trial leaves one behind.
        if_there(remove_file(&self.queue.new_envelope(&self.id)))?;
        remove_file(&self.message_path())
    }

    /// Ends the entry of a letter that can neither be delivered nor sent back. The
    /// message stays, and its envelope as `.dead`, with what was said last. That is one
    /// change of names, so at no time the message is without either. It is not synced: an
    /// entry that comes back after a power cut is buried once more.
    pub fn bury(&mut self) -> io::Result<()> {
        self.save()?;
        rename(&self.queue.path(&self.id, "envelope"), &self.queue.path(&self.id, "dead"))
    }
}

fn is_same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether a file is one of these of an entry, whose id is that of a message, `-`, and a
/// number.
fn is_of_entry(path: &Path, kinds: &[&str]) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    let parts = name.and_then(|name| name.split_once('.')).filter(|(_, kind)| kinds.contains(kind));
    let numbers = parts.and_then(|(id, _)| id.split_once('-'));
    numbers.is_some_and(|(id, number)| is_id(id) && is_number(number))
}

/// Whether a text is the id of a message, as `Spool::new_name` makes them.
pub fn is_id(text: &str) -> bool {
    let parts = text.strip_prefix('M').and_then(|rest| rest.split_once('P'));
    parts.is_some_and(|(time, rest)| {
        let numbers = rest.split_once('Q');
        numbers.is_some_and(|(process, count)| [time, process, count].into_iter().all(is_number))
    })
}

/// Whether a text is digits, one or more.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath};
    use crate::smtp::answer::Answer;
    use crate::smtp::dsn::{MailDsn, RcptDsn};
    use crate::smtp::session::Recipient;
    use crate::smtp::site::{Destination, LocalMailbox};
    use crate::store::disk::power;
    use crate::store::envelope::{RecipientState, entries};
    use crate::store::spool::{Origin, Spool};
    use jiff::Timestamp;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    const TRACE: &str = "Return-Path: <ann@client.example>\nReceived: x\n";
    const TEXT: &str = "Subject: x\n\nGr\u{fc}\u{df}e\n";

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap().0
    }

    fn to(destination: Destination) -> Recipient {
        let address = ForwardPath::Postmaster;
        Recipient { address, destination, alias: None, dsn: RcptDsn::default() }
    }

    /// Delivers to Bob here and to one at each of two domains, and gives the ids.
    fn deliver(spool: &Spool) -> io::Result<Vec<String>> {
        let now = Timestamp::now();
        let name = spool.new_name(now);
        let mut draft = spool.draft(&name, TRACE, None)?;
        draft.write(TEXT.as_bytes())?;
        draft.sync()?;
        let bob = LocalMailbox { domain: "host.example".to_owned(), name: "bob".to_owned() };
        let recipients = [
            to(Destination::Here(bob)),
            to(Destination::Elsewhere(mailbox("cem@b.example"))),
            to(Destination::Elsewhere(mailbox("dee@c.example"))),
        ];
        let from = ReversePath::Mailbox(mailbox("ann@client.example"));
        let letter = draft.letter(from, MailDsn::default(), now);
        let entries = entries(&letter, recipients.into(), false);
        let queued = spool.deliver(draft, &name, entries, Origin::Client)?;
        Ok(queued.into_iter().map(|(id, _)| id).collect())
    }

    fn names(folder: &Path) -> Vec<String> {
        let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
        let name = |file: io::Result<fs::DirEntry>| file.unwrap().file_name();
        let mut names: Vec<_> = files.map(|file| name(file).into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn claim<'a>(queue: &'a Queue, id: &str) -> Claim<'a> {
        match queue.claim(id).unwrap() {
            Claimed::Ours(claim) => claim,
            other => panic!("{id}: {other:?}"),
        }
    }

    /// Where the entries go that somebody could claim now, and what would be sent.
    fn to_send(root: &Path) -> Vec<(String, String)> {
        let queue = Queue::new(root);
        let mut all = Vec::new();
        for (id, _) in queue.ids().unwrap() {
            if let Claimed::Ours(claim) = queue.claim(&id).unwrap() {
                let mut text = String::new();
                claim.message().unwrap().read_to_string(&mut text).unwrap();
                all.push((claim.entry.next_hop.to_string(), text));
            }
        }
        all.sort();
        all
    }

    fn whole_queue() -> Vec<(String, String)> {
        let sent = format!("Received: x\n{TEXT}");
        ["domain b.example", "domain c.example"].map(|hop| (hop.to_owned(), sent.clone())).into()
    }

    #[test]
    fn a_claim_finds_out_that_the_queue_cannot_be_written_before_anything_is_sent() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let ids = deliver(&spool).unwrap();
        let claim = claim(spool.queue(), &ids[0]);
        claim.try_to_write().unwrap();
        let folder = root.path().join("queue");
        // Permissions do not stop root.
        let permissions =
            |mode| fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        permissions(0o555);
        let is_root = File::create(folder.join("probe")).is_ok();
        assert!(is_root || claim.try_to_write().is_err());
        permissions(0o755);
        // A folder that is gone stops everybody.
        fs::rename(&folder, root.path().join("aside")).unwrap();
        assert!(claim.try_to_write().is_err());
        fs::rename(root.path().join("aside"), &folder).unwrap();
        claim.try_to_write().unwrap();
    }

    #[test]
    fn each_destination_has_an_entry_of_two_files_that_share_the_message() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let ids = deliver(&spool).unwrap();
        let files =
            ids.iter().flat_map(|id| ["envelope", "message"].map(|it| format!("{id}.{it}")));
        assert_eq!(names(&root.path().join("queue")), files.collect::<Vec<_>>());
        assert_eq!(to_send(root.path()), whole_queue());
        let entry = spool.queue().read(&ids[0]).unwrap().unwrap().unwrap();
        assert_eq!(
            entry.letter.size,
            format!("Received: x\n{TEXT}").replace('\n', "\r\n").len() as u64
        );
        assert!(entry.letter.is_8bit && !entry.letter.needs_smtputf8);
        let inode = |id: &String| fs::metadata(spool.queue().path(id, "message")).unwrap().ino();
        assert_eq!(inode(&ids[0]), inode(&ids[1]));
        assert!(names(&root.path().join("tmp")).is_empty());
        assert_eq!(names(&root.path().join("mail/host.example/bob/new")).len(), 1);
    }

    #[test]
    fn what_cannot_be_used_is_kept_for_a_person_and_costs_the_others_nothing() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        for what in ["envelope", "message"] {
            let ids = deliver(&spool).unwrap();
            let path = spool.queue().path(&ids[0], what);
            fs::remove_file(&path).unwrap();
            if what == "envelope" {
                fs::write(&path, "nonsense\n").unwrap();
            }
            assert!(matches!(spool.queue().claim(&ids[0]).unwrap(), Claimed::Gone));
            assert!(spool.queue().path(&ids[0], "bad").exists(), "{what}");
            claim(spool.queue(), &ids[1]).end().unwrap();
            assert!(spool.queue().ids().unwrap().is_empty());
        }
    }

    #[test]
    fn an_entry_is_claimed_by_one_at_a_time_whatever_the_one_saves() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let ids = deliver(&spool).unwrap();
        // Another process has its own Queue for the same folder.
        let other = Queue::new(root.path());
        let mut ours = claim(spool.queue(), &ids[0]);
        assert!(matches!(other.claim(&ids[0]).unwrap(), Claimed::Taken));
        ours.entry.attempts += 1;
        ours.save().unwrap();
        assert!(matches!(other.claim(&ids[0]).unwrap(), Claimed::Taken));
        // The other entry of the message is not ours.
        drop(claim(&other, &ids[1]));
        drop(ours);
        assert_eq!(claim(&other, &ids[0]).entry.attempts, 1);
        assert!(matches!(other.claim("M1P1Q1-1").unwrap(), Claimed::Gone));
    }

    #[test]
    fn a_claimed_envelope_is_open_for_writing_as_a_lock_over_nfs_wants_it() {
        use rustix::fs::{OFlags, fcntl_getfl};
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let ids = deliver(&spool).unwrap();
        let mut claim = claim(spool.queue(), &ids[0]);
        let mode = |claim: &Claim| fcntl_getfl(&claim.envelope).unwrap() & OFlags::ACCMODE;
        assert_eq!(mode(&claim), OFlags::RDWR);
        claim.save().unwrap();
        assert_ne!(mode(&claim), OFlags::RDONLY);
    }

    #[test]
    fn whoever_opened_an_envelope_before_it_was_replaced_has_no_claim() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap().remove(0);
        let path = spool.queue().path(&id, "envelope");
        let old = fs::metadata(&path).unwrap();
        let mut ours = claim(spool.queue(), &id);
        ours.save().unwrap();
        assert!(!is_same_file(&fs::metadata(&path).unwrap(), &old));
        ours.end().unwrap();
        assert!(matches!(spool.queue().claim(&id).unwrap(), Claimed::Gone));
    }

    #[test]
    fn changes_last_once_they_are_saved_and_an_end_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let ids = deliver(&spool).unwrap();
        let mut ours = claim(spool.queue(), &ids[0]);
        ours.entry.recipients[0].state = RecipientState::Delivered;
        drop(ours);
        let mut ours = claim(spool.queue(), &ids[0]);
        assert_eq!(ours.entry.recipients[0].state, RecipientState::Waiting);
        ours.entry.recipients[0].state = RecipientState::Failed;
        ours.entry.recipients[0].answer = Some(Answer::never((1, 1), "no such mailbox"));
        ours.save().unwrap();
        drop(ours);
        let ours = claim(spool.queue(), &ids[0]);
        assert_eq!(ours.entry.recipients[0].state, RecipientState::Failed);
        ours.end().unwrap();
        claim(spool.queue(), &ids[1]).end().unwrap();
        assert!(names(&root.path().join("queue")).is_empty());
        assert!(names(&root.path().join("tmp")).is_empty());
    }

    #[test]
    fn what_could_not_be_read_again_is_never_written() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap().remove(0);
        let mut ours = claim(spool.queue(), &id);
        ours.entry.recipients[0].address.domain = Domain::Name("no domain".to_owned());
        assert!(ours.save().is_err());
        assert!(spool.queue().read(&id).unwrap().unwrap().is_ok());
    }

    #[test]
    fn a_buried_message_stays_and_its_entry_goes() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let ids = deliver(&spool).unwrap();
        claim(spool.queue(), &ids[0]).bury().unwrap();
        claim(spool.queue(), &ids[1]).end().unwrap();
        let left = ["dead", "message"].map(|what| format!("{}.{what}", ids[0]));
        assert_eq!(names(&root.path().join("queue")), left);
        assert!(matches!(spool.queue().claim(&ids[0]).unwrap(), Claimed::Gone));
    }

    #[test]
    fn only_old_leftovers_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        deliver(&spool).unwrap();
        let queue = root.path().join("queue");
        let kept = ["M2P2Q2-1.dead", "M3P3Q3-1.bad", "M3P3Q3-1.message", "thesis.message"];
        for name in kept.iter().chain(&["M1P1Q1-1.message"]) {
            fs::write(queue.join(name), "").unwrap();
        }
        fs::write(root.path().join("tmp/M4P4Q4-1.envelope"), "").unwrap();
        let (now, before) = (SystemTime::now(), names(&queue));
        let age = Duration::from_secs(36 * 3600);
        spool.queue().sweep(now + age - Duration::from_secs(60)).unwrap();
        assert_eq!(names(&queue), before);
        assert_eq!(names(&root.path().join("tmp")).len(), 1);
        spool.queue().sweep(now + age + Duration::from_secs(60)).unwrap();
        assert_eq!(names(&queue).len(), before.len() - 1);
        assert!(kept.iter().all(|name| queue.join(name).exists()));
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
    fn a_stop_while_a_letter_is_taken_leaves_all_of_an_entry_or_none_of_it() {
        let stops = at_every_stop(
            |_| {},
            |spool| deliver(spool).map(drop),
            |root, is_done| {
                // Some destinations may have the letter when the client tries again:
                // a duplicate, never a loss and never a part.
                let found = to_send(root);
                let whole = whole_queue();
                assert!(found.iter().all(|entry| whole.contains(entry)), "{found:?}");
                assert!(!is_done || found == whole, "{found:?}");
                let bob = names(&root.join("mail/host.example/bob/new"));
                assert!(bob.len() == 1 || found.is_empty());
            },
        );
        assert!(stops > 15, "{stops}");
    }

    /// Whoever has the letter, or will have it from the queue: all of it each time.
    fn served(root: &Path) -> Vec<String> {
        let new = root.join("mail/host.example/bob/new");
        let mut served = Vec::new();
        for name in names(&new) {
            assert_eq!(fs::read_to_string(new.join(name)).unwrap(), format!("{TRACE}{TEXT}"));
            served.push("mailbox <bob@host.example>".to_owned());
        }
        for (hop, text) in to_send(root) {
            assert_eq!(text, format!("Received: x\n{TEXT}"));
            served.push(hop);
        }
        served
    }

    #[test]
    fn after_a_fault_at_any_step_the_client_sends_it_again_and_nobody_loses_it() {
        let everybody = ["domain b.example", "domain c.example", "mailbox <bob@host.example>"];
        let has_all = |root: &Path| {
            let served = served(root);
            everybody.iter().all(|one| served.iter().any(|other| other == one))
        };
        let mut refused = 0;
        for step in 1..100 {
            let root = tempfile::tempdir().unwrap();
            let spool = Spool::open(root.path(), "host.example").unwrap();
            power::fail_at(step);
            let done = deliver(&spool);
            power::fail_at(0);
            if done.is_err() {
                refused += 1;
                // Nobody has a part now, and whoever is in the queue stays there.
                served(root.path());
                deliver(&spool).unwrap();
            }
            assert!(has_all(root.path()), "a fault at step {step}");
        }
        assert!(refused > 5, "{refused} faults were told to the client");
    }

    #[test]
    fn a_stop_while_an_answer_is_recorded_keeps_the_old_state_or_the_new() {
        let record = |spool: &Spool| {
            let ids = spool.queue().ids().unwrap();
            let mut ours = claim(spool.queue(), &ids[0].0);
            ours.entry.attempts = 7;
            ours.save()
        };
        let stops = at_every_stop(
            |spool| drop(deliver(spool).unwrap()),
            record,
            |root, is_done| {
                assert_eq!(to_send(root), whole_queue());
                let queue = Queue::new(root);
                let ids = queue.ids().unwrap();
                let attempts = ids.iter().map(|(id, _)| claim(&queue, id).entry.attempts);
                let sum: u32 = attempts.sum();
                assert!(sum == 7 || (sum == 0 && !is_done), "{sum}");
            },
        );
        assert!(stops >= 3, "{stops}");
    }

    #[test]
    fn a_stop_while_an_entry_ends_leaves_it_whole_or_nothing_of_it_to_send() {
        let end = |spool: &Spool| {
            let ids = spool.queue().ids().unwrap();
            claim(spool.queue(), &ids[0].0).end()
        };
        let stops = at_every_stop(
            |spool| drop(deliver(spool).unwrap()),
            end,
            |root, is_done| {
                let left = to_send(root);
                assert!(left == whole_queue() && !is_done || left.len() == 1, "{left:?}");
            },
        );
        assert!(stops >= 3, "{stops}");
    }

    #[test]
    fn a_stop_while_a_message_is_buried_leaves_it_there_in_one_form() {
        let bury = |spool: &Spool| {
            let ids = spool.queue().ids().unwrap();
            claim(spool.queue(), &ids[0].0).bury()
        };
        let stops = at_every_stop(
            |spool| drop(deliver(spool).unwrap()),
            bury,
            |root, is_done| {
                let files = names(&root.join("queue"));
                let count = |end: &str| files.iter().filter(|name| name.ends_with(end)).count();
                assert_eq!(count(".message"), 2, "{files:?}");
                assert!(count(".envelope") + count(".dead") >= 2, "{files:?}");
                assert!(!is_done || (count(".envelope"), count(".dead")) == (1, 1), "{files:?}");
            },
        );
        assert!(stops >= 4, "{stops}");
    }

    #[test]
    fn a_trial_tells_a_full_disk_and_leaves_nothing_behind_in_the_end() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        let id = deliver(&spool).unwrap().remove(0);
        let ours = claim(spool.queue(), &id);
        power::set(Some(0));
        assert!(ours.try_to_write().is_err());
        power::set(None);
        ours.try_to_write().unwrap();
        ours.end().unwrap();
        assert!(names(&root.path().join("tmp")).is_empty());
    }
}
