//! The promise behind a 250, held against a power cut at every point.
//!
//! Each [`Scenario`] does something to a spool, and all that it does to the disk is
//! written down. Then every state that the disk may be in, if the power fails at any point
//! of it, is laid out in a folder of its own, opened as a new process would open it, and
//! worked off. What is found then is held to the promise: whoever was told something can
//! rely on it, nothing partial is ever in a mailbox or sent, and the start succeeds.
//!
//! The test has to fail if the program lacks any one of its syncs, and that is tested too:
//! the sync is struck from what was written down.
//!
//! `EHLO_FULL=1 cargo test --release --lib power_cut -- --nocapture` looks at far more
//! states than the usual sample.
//!
//! Left to others: what changes the disk and in which order (`disk/power.rs`), what a disk
//! may hold then (`disk/states.rs`), and reports
//! (`relay/conclusion_cuts.rs`).
//!
//! Book: docs/07-maildir.md.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::smtp::address::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::session::Recipient;
use crate::smtp::site::{Destination, LocalMailbox};
use crate::store::disk::power::{Caller, DiskLog, Logged, Node, Promise};
use crate::store::disk::states::{DiskState, ORDERS, Order, states};
use crate::store::envelope::{Entry, NextHop, entries};
use crate::store::queue::{Claim, Claimed};
use crate::store::spool::{Origin, Spool};

mod scenarios;

/// What stands in front of each letter here, as our own trace fields do.
const RETURN_PATH: &str = "Return-Path: <ann@client.example>\n";
/// The letter that the promise is about.
pub const LETTER: &str = "Received: x\nSubject: on its way\n\nHello.\nYours, Ann\n";
/// One that came before, so that its mailbox is known already.
const EARLIER: &str = "Received: x\n\nhello\n";
/// The spool is made in this folder. The first part of the path is missing, too.
pub const SPOOL: &str = "var/spool";

/// Something that is done to the spool below a folder, and what was written down of it.
pub type Scenario = (&'static str, fn(&Path) -> DiskLog);

/// Works off one entry, as a relay would.
pub type Work = fn(&Arc<Spool>, Claim, &mut AfterCut) -> io::Result<()>;

/// What is there after everything was worked off.
#[derive(Debug, Default)]
pub struct AfterCut {
    /// Who has which letter: in a mailbox, or it was sent to them after the cut.
    pub has: Vec<(String, String)>,
    /// Letters of entries about which nobody can be told.
    pub kept: Vec<String>,
    /// Entries that cannot be used, and whether at least the envelope can be read.
    pub bad: Vec<(String, bool)>,
}

impl AfterCut {
    /// How often somebody has the letter.
    pub fn count(&self, who: &str) -> usize {
        self.has.iter().filter(|(name, text)| name == who && text != EARLIER).count()
    }
}

/// Whether the sample is to be large.
pub fn is_thorough() -> bool {
    env::var_os("EHLO_FULL").is_some()
}

/// How much is tried of each cut.
pub fn effort() -> usize {
    if is_thorough() { 1 << 12 } else { 24 }
}

/// Holds what was written down to its promises at every cut, and gives how many states
/// there were.
pub fn check(log: &DiskLog, work: Work, effort: usize) -> Result<usize, String> {
    let mut seen: BTreeSet<(usize, DiskState)> = BTreeSet::new();
    let mut promises = Vec::new();
    for cut in 0..=log.events.len() {
        if let Some(Logged::Told(promise)) = cut.checked_sub(1).map(|last| &log.events[last]) {
            promises.push(*promise);
        }
        for order in ORDERS {
            for state in states(log, cut, order, effort) {
                // The same disk may be found after many cuts, and by both orders.
                let key = (promises.len(), state);
                if !seen.contains(&key) {
                    found(&key.1, work)
                        .and_then(|found| is_kept(log, &found, &promises))
                        .map_err(|why| story(log, cut, order, &key.1, &why))?;
                    seen.insert(key);
                }
            }
        }
    }
    Ok(seen.len())
}

/// Opens a disk as a new process would, and works it off.
fn found(state: &DiskState, work: Work) -> Result<AfterCut, String> {
    let root = folder();
    state.lay_out(root.path());
    let spool = Spool::open(&root.path().join(SPOOL), "host.example")
        .map_err(|error| format!("the start fails: {error}"))?;
    let spool = Arc::new(spool);
    let mut found = AfterCut::default();
    // A report makes an entry more, which waits as well.
    while let Some((id, _)) = spool.queue().ids().unwrap().pop() {
        match spool.queue().claim(&id).unwrap() {
            Claimed::Ours(claim) => {
                let worked = work(&spool, claim, &mut found);
                worked.map_err(|error| format!("{id} cannot be worked off: {error}"))?;
            }
            Claimed::Gone => {}
            Claimed::Taken => return Err(format!("{id} is taken, and nobody is there")),
        }
    }
    look(&root.path().join(SPOOL), &mut found);
    Ok(found)
}

/// A folder for one disk: in memory where the system has such a place, because thousands
/// of them are made.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// Reads what is in mailboxes, and what is kept in the queue.
fn look(spool: &Path, found: &mut AfterCut) {
    for domain in files(&spool.join("mail")) {
        for mailbox in files(&domain) {
            let [name, domain] = [&mailbox, &domain].map(|path| path.file_name().unwrap());
            let who = format!("{}@{}", name.display(), domain.display());
            for letter in files(&mailbox.join("new")) {
                let text = String::from_utf8(fs::read(letter).unwrap()).unwrap();
                let text = text.split_once('\n').map_or("", |(_, text)| text);
                found.has.push((who.clone(), text.to_owned()));
            }
        }
    }
    for path in files(&spool.join("queue")) {
        match path.extension().and_then(|end| end.to_str()) {
            Some("dead") => {
                let text = fs::read_to_string(path.with_extension("message")).unwrap_or_default();
                found.kept.push(text.replacen(RETURN_PATH, "", 1));
            }
            Some("bad") => {
                let is_whole = Entry::parse(&fs::read(&path).unwrap()).is_ok();
                let id = path.file_stem().unwrap().display().to_string();
                found.bad.push((id, is_whole));
            }
            _ => {}
        }
    }
}

/// What is in a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    // A folder that is not there has nothing in it.
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What has to be true in any case, and then what was promised before the cut.
fn is_kept(log: &DiskLog, found: &AfterCut, promises: &[Promise]) -> Result<(), String> {
    let letters = found.has.iter().map(|(who, text)| (who.as_str(), text));
    for (who, text) in letters.chain(found.kept.iter().map(|text| ("queue/", text))) {
        if ![LETTER, EARLIER].contains(&text.as_str()) && !is_report(text) {
            return Err(format!("{who} has a part of a letter: {text:?}"));
        }
    }
    for (id, is_whole) in &found.bad {
        // Where the disk keeps no order, the envelope of a new entry may be there and its
        // message not. Nobody was told that it is here, or else a promise is broken below.
        // But an entry that was there for good has both, or no envelope.
        let envelope = Path::new(SPOOL).join(format!("queue/{id}.envelope"));
        if !is_whole || log.names.contains_key(&envelope) {
            return Err(format!("the entry {id} cannot be used"));
        }
    }
    for promise in promises {
        match *promise {
            Promise::Has(who) if found.count(who) == 0 => {
                return Err(format!("{who} does not have the letter"));
            }
            Promise::AtMost(who, times) if found.count(who) > times => {
                return Err(format!("{who} has the letter once more than is right"));
            }
            Promise::Kept if found.kept.is_empty() => {
                return Err("the letter is not kept".to_owned());
            }
            Promise::Has(_) | Promise::AtMost(..) | Promise::Kept => {}
        }
    }
    Ok(())
}

/// The lines that ask for the syncs in a log, and what is broken without each of them;
/// `None` if nothing is.
pub fn without_each_sync(log: &DiskLog, work: Work) -> Vec<(String, Option<String>)> {
    let callers: BTreeSet<Caller> = log.events.iter().filter_map(Logged::caller).collect();
    let result = |caller: Caller| {
        // The extremes are enough to find it out.
        let broken = check(&log.without(caller), work, 0).err();
        (format!("{}:{}", caller.file(), caller.line()), broken)
    };
    callers.into_iter().map(result).collect()
}

/// A report is whole if its last line ends it (RFC 2046 section 5.1.1).
pub fn is_report(text: &str) -> bool {
    let boundary = text.split_once("boundary=\"").and_then(|(_, rest)| rest.split_once('"'));
    boundary.is_some_and(|(name, _)| text.ends_with(&format!("\n--{name}--\n")))
}

/// What went wrong, so that a person can follow it.
fn story(log: &DiskLog, cut: usize, order: Order, state: &DiskState, why: &str) -> String {
    let mut story = format!("{why}\nif the power fails after these steps:\n");
    for event in &log.events[..cut] {
        story += &format!("    {event}\n");
    }
    story += &format!("and the disk (order of names: {order:?}) has then:\n");
    for (name, node) in &state.names {
        match node {
            Node::Folder => story += &format!("    {}/\n", name.display()),
            Node::File(file) => {
                let octets = state.texts[file].len();
                story += &format!("    {}: file {file}, {octets} octets\n", name.display());
            }
        }
    }
    story
}

/// Makes the spool, and has a mailbox in it known to it.
pub fn open(root: &Path) -> Arc<Spool> {
    let spool = Spool::open(&root.join(SPOOL), "host.example").unwrap();
    deliver(&spool, EARLIER, &["bob@host.example"]).unwrap();
    Arc::new(spool)
}

/// Receives a letter and delivers it, as a session does, and gives the ids in the queue.
pub fn deliver(spool: &Spool, text: &str, to: &[&str]) -> io::Result<Vec<String>> {
    let to = to.iter().map(|who| recipient(who)).collect();
    deliver_from(spool, ReversePath::Mailbox(mailbox("ann@client.example")), text, to)
}

/// The same for any sender, who may want to hear of it.
pub fn deliver_from(
    spool: &Spool,
    from: ReversePath,
    text: &str,
    to: Vec<Recipient>,
) -> io::Result<Vec<String>> {
    let now = Timestamp::now();
    let name = spool.new_name(now);
    let mut draft = spool.draft(&name, RETURN_PATH, None)?;
    draft.write(text.as_bytes())?;
    draft.sync()?;
    let letter = draft.letter(from, MailDsn::default(), now);
    let entries = entries(&letter, to, false);
    let queued = spool.deliver(draft, &name, entries, Origin::Client)?;
    Ok(queued.into_iter().map(|(id, _)| id).collect())
}

/// Somebody here or elsewhere.
pub fn recipient(who: &str) -> Recipient {
    let address = mailbox(who);
    let destination = match who.strip_suffix("@host.example") {
        Some(name) => Destination::Here(LocalMailbox {
            domain: "host.example".to_owned(),
            name: name.to_owned(),
        }),
        None => Destination::Elsewhere(address.clone()),
    };
    let address = ForwardPath::Mailbox(address);
    Recipient { address, destination, alias: None, dsn: RcptDsn::default() }
}

/// An address.
pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap().0
}

/// Claims an entry that nobody else has.
pub fn claim<'a>(spool: &'a Spool, id: &str) -> Claim<'a> {
    match spool.queue().claim(id).unwrap() {
        Claimed::Ours(claim) => claim,
        other => panic!("{id}: {other:?}"),
    }
}

/// Brings the letter to all who wait for it, and ends the entry. A next hop takes
/// whatever it is given.
pub fn send(spool: &Arc<Spool>, mut claim: Claim, found: &mut AfterCut) -> io::Result<()> {
    let waiting = claim.entry.waiting();
    if waiting.is_empty() {
        return claim.bury();
    }
    if let NextHop::Mailbox(mailbox) = &claim.entry.next_hop {
        spool.deliver_waiting(&claim, mailbox)?;
        return claim.end();
    }
    for number in waiting {
        let mut text = String::new();
        // A part that is no text any more is a part.
        claim.message()?.read_to_string(&mut text)?;
        found.has.push((claim.entry.recipients[number].address.to_string(), text));
    }
    claim.end()
}
