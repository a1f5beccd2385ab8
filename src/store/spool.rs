//! The spool folder: where messages begin, and how they reach all recipients.
//!
//! ```text
//! spool/tmp/                                   messages being received
//! spool/mail/<domain>/<mailbox>/{tmp,new,cur}  a Maildir for each mailbox
//! spool/queue/                                 what still has to go elsewhere
//! ```
//!
//! In: a draft and its recipients. Out: either the message is in all mailboxes
//! and in the queue, and survives a power cut, or it is nowhere. The order is: the
//! file synced, then a name in each `new/` and that folder synced, then the entry
//! in the queue; the last name in the place of the temporary one. Only then may
//! the client be told 250.
//!
//! Book: docs/07-maildir.md.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::smtp::site::LocalMailbox;
use crate::store::disk::{LEFTOVER_AGE, make_folder, remove_file, sync_folder};
use crate::store::draft::{Draft, Way};
use crate::store::envelope::Letter;
use crate::store::folder::folder;
use crate::store::header::Field;
use crate::store::maildir;
use crate::store::queue::{Queue, is_id, is_number};

/// How many mailboxes are remembered as made before we begin to forget: a bound
/// on memory, where every name is a mailbox.
const KNOWN_LIMIT: usize = 10_000;

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
    known: Mutex<HashSet<LocalMailbox>>,
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
        };
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.is_dir();
        let missing: Vec<&Path> = root.ancestors().take_while(is_missing).collect();
        for folder in missing.into_iter().rev() {
            make_folder(folder)?;
            // A path without a parent is one name, in the folder we run in.
            let parent = folder.parent().filter(|path| !path.as_os_str().is_empty());
            sync_folder(parent.unwrap_or(Path::new(".")))?;
        }
        spool.make_folders()?;
        spool.try_to_write()?;
        spool.sweep(SystemTime::now())?;
        spool.queue.sweep(SystemTime::now())?;
        Ok(spool)
    }

    /// A name that no message had before: the time in microseconds, this
    /// process, and how many messages it has begun.
    pub fn name(&self, when: Timestamp) -> MessageName {
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        let id = format!("M{}P{}Q{count}", when.as_microsecond(), self.process);
        let file = format!("{}.{id}.{}", when.as_second(), self.hostname);
        MessageName { id, file }
    }

    /// How many octets can still be stored. Where the system does not tell, more
    /// than enough: the disk itself will say no.
    pub fn room(&self) -> u64 {
        match rustix::fs::statvfs(&self.tmp) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            Err(_) => u64::MAX,
        }
    }

    /// Begins a message with our trace fields; the fields `wanted` are added unless
    /// it has them.
    pub fn draft(
        &self,
        name: &MessageName,
        trace_fields: &str,
        wanted: &[Field],
    ) -> io::Result<Draft> {
        let create = || Draft::create(self.tmp.join(&name.file), trace_fields, wanted.to_vec());
        match create() {
            // Somebody emptied the spool while we run: that must not stop the mail.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_folders()?;
                create()
            }
            done => done,
        }
    }

    /// What still has to go elsewhere.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Delivers a draft to every mailbox, and as a letter to the queue, for good;
    /// or to none. Each mailbox may be named once.
    pub fn deliver(
        &self,
        mut draft: Draft,
        name: &MessageName,
        mailboxes: &[&LocalMailbox],
        elsewhere: Option<&Letter>,
    ) -> io::Result<()> {
        draft.sync()?;
        let names = mailboxes.len() + usize::from(elsewhere.is_some());
        let mut done = 0;
        let mut deliver = || {
            for mailbox in mailboxes {
                let by = if done + 1 == names { Way::Move } else { Way::Link };
                self.deliver_to(&mut draft, by, name, mailbox)?;
                done += 1;
            }
            match elsewhere {
                Some(letter) => self.queue.commit(&mut draft, &name.id, letter),
                None => Ok(()),
            }
        };
        deliver().inspect_err(|_| {
            for mailbox in mailboxes.iter().take(done) {
                maildir::take_back(&self.mail.join(folder(mailbox)), &name.file);
            }
        })
    }

    fn deliver_to(
        &self,
        draft: &mut Draft,
        by: Way,
        name: &MessageName,
        mailbox: &LocalMailbox,
    ) -> io::Result<()> {
        let folder = folder(mailbox);
        let mut deliver = || maildir::deliver(draft, by, &self.mail.join(&folder), &name.file);
        if self.known().contains(mailbox) {
            match deliver() {
                // The mailbox was removed since; it is made again below.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done,
            }
        }
        maildir::make(&self.mail, &folder)?;
        deliver()?;
        let mut known = self.known();
        if known.len() >= KNOWN_LIMIT {
            known.clear();
        }
        known.insert(mailbox.clone());
        Ok(())
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
        for folder in [&self.tmp, &self.mail] {
            let probe = folder.join(format!(".probe-{}", self.process));
            fs::create_dir(&probe)?;
            fs::remove_dir(&probe)?;
        }
        self.queue.try_to_write(&format!(".probe-{}", self.process))
    }

    /// Removes drafts that a server left behind when it was killed. Whatever else
    /// somebody keeps in this folder is none of our business.
    fn sweep(&self, now: SystemTime) -> io::Result<()> {
        for entry in fs::read_dir(&self.tmp)? {
            let entry = entry?;
            if !is_draft_name(&entry.file_name().to_string_lossy()) {
                continue;
            }
            // A draft of another server on this spool may be gone by now.
            let Ok(modified) = entry.metadata().and_then(|data| data.modified()) else { continue };
            if now.duration_since(modified).unwrap_or_default() > LEFTOVER_AGE {
                let path = entry.path();
                log::info!("removing a message that was never complete: {}", path.display());
                if let Err(error) = remove_file(&path) {
                    log::warn!("cannot remove {}: {error}", path.display());
                }
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashSet<LocalMailbox>> {
        // A panic elsewhere cannot leave a set half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file is called as [`Spool::name`] calls them.
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
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

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
                match path.is_dir() {
                    true => folders.push(path),
                    false => names.push(path.strip_prefix(folder).unwrap().display().to_string()),
                }
            }
        }
        names.sort();
        names
    }

    fn deliver(spool: &Spool, to: &[&str]) -> io::Result<MessageName> {
        let name = spool.name(Timestamp::now());
        let mut draft = spool.draft(&name, "Return-Path: <>\n", &[])?;
        draft.write(b"\nhello\n")?;
        let mailboxes: Vec<_> = to.iter().map(|name| mailbox(name)).collect();
        spool.deliver(draft, &name, &mailboxes.iter().collect::<Vec<_>>(), None)?;
        Ok(name)
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
        let (one, other) = (spool.name(when), spool.name(when));
        assert_ne!(one.id, other.id);
        assert_eq!(one.file, format!("1795324479.{}.host.example", one.id));
        assert!(one.id.bytes().all(|octet| octet.is_ascii_alphanumeric()), "{}", one.id);
    }

    #[test]
    fn there_is_room_and_a_missing_folder_does_not_deny_it() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        assert!((1..u64::MAX).contains(&spool.room()));
        fs::remove_dir_all(root.path()).unwrap();
        assert_eq!(spool.room(), u64::MAX);
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        drop(spool.draft(&spool.name(Timestamp::now()), "Return-Path: <>\n", &[]).unwrap());
        assert!(tree(root.path()).is_empty());
    }

    #[test]
    fn when_one_mailbox_fails_the_message_is_in_none() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "host.example").unwrap();
        // A file where the folder of the second mailbox should be.
        fs::create_dir(root.path().join("mail/host.example")).unwrap();
        fs::write(root.path().join("mail/host.example/bob"), "").unwrap();
        assert!(deliver(&spool, &["ann", "bob"]).is_err());
        assert_eq!(tree(root.path()), ["mail/host.example/bob"]);
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
        let draft = format!("tmp/{}", spool.name(Timestamp::now()).file);
        fs::write(root.path().join(&draft), "From").unwrap();
        fs::write(root.path().join("tmp/thesis.txt"), "a year of work").unwrap();
        fs::create_dir(root.path().join("tmp/1.M1P1Q1.a-folder")).unwrap();
        let now = SystemTime::now();
        spool.sweep(now + LEFTOVER_AGE - Duration::from_secs(60)).unwrap();
        assert_eq!(tree(root.path()), [draft.as_str(), "tmp/thesis.txt"]);
        spool.sweep(now + LEFTOVER_AGE + Duration::from_secs(60)).unwrap();
        assert_eq!(tree(root.path()), ["tmp/thesis.txt"]);
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
        spool.known().extend((0..KNOWN_LIMIT).map(|number| mailbox(&number.to_string())));
        deliver(&spool, &["ann"]).unwrap();
        assert_eq!(spool.known().len(), 1);
    }
}
