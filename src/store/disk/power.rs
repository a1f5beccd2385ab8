//! The power of the disk, in tests: it can be cut, and it can be watched.
//!
//! In: each change, just before it is made. Out: an error instead of it, where a test
//! wants one; and a [`DiskLog`] of all that was done, from which `states.rs` works out what
//! a power cut would leave. All of it belongs to one thread, so tests run side by side.
//!
//! Left to others: what a disk may hold after a cut (`states.rs`), and what it has to
//! hold (`store/power_cut.rs`).
//!
//! Book: docs/07-maildir.md.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::panic::Location;
use std::path::{Path, PathBuf};

use crate::store::disk::Change;

thread_local! {
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    static FAULT: Cell<(usize, ErrorKind)> = const { Cell::new((0, ErrorKind::Other)) };
    static FAR: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// What a name leads to. Files have numbers, so that one can be followed through all
/// of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// To a folder.
    Folder,
    /// To the file of this number.
    File(usize),
}

/// Something that was done, with paths below the folder that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logged {
    /// This is now all that stands in the file of this number.
    Write(usize, Vec<u8>),
    /// What the names lead to now, `None` for nothing; all at once, so a rename has two.
    /// It lasts when the folder of the last one is synced.
    Names(Vec<(PathBuf, Option<Node>)>),
    /// A sync of a file, and the line that asked for it.
    SyncFile(usize, Caller),
    /// A sync of a folder, and the line that asked for it.
    SyncFolder(PathBuf, Caller),
    /// Not of the disk: from here on somebody relies on this.
    Told(Promise),
}

/// What has to be true of a letter, whatever happens to the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// This one has it, whole, at least once, when everything is worked off.
    Has(&'static str),
    /// This one has no more copies of it than so many; none, for one who had it before the
    /// cut, when that was written down.
    AtMost(&'static str, usize),
    /// It is kept for a person to look at.
    Kept,
}

/// A line that asks for a sync.
pub type Caller = &'static Location<'static>;

/// All that was done in a folder, one after the other.
#[derive(Debug, Clone)]
pub struct DiskLog {
    /// What was there before, for good.
    pub names: BTreeMap<PathBuf, Node>,
    /// What stood in the files, by number.
    pub texts: Vec<Vec<u8>>,
    /// What was done then.
    pub events: Vec<Logged>,
}

/// A folder whose changes are written down.
struct Watched {
    root: PathBuf,
    log: DiskLog,
    /// What every process sees now, whatever is on disk of it.
    names: BTreeMap<PathBuf, Node>,
    texts: Vec<Vec<u8>>,
}

/// Lets the change of this number fail, counted from 1, and no other.
pub fn fail_at(change: usize) {
    FAULT.set((change, ErrorKind::Other));
}

/// The same, as on a disk that is full.
pub fn fill_at(change: usize) {
    FAULT.set((change, ErrorKind::StorageFull));
}

/// Lets `changes` more changes happen, or with `None` any number. Once they are used up
/// nothing changes any more, whatever the program tries, as if it had been killed there.
pub fn set(changes: Option<usize>) {
    LEFT.set(changes);
}

/// While `act` runs, this folder is a file system of its own: no file is in it and
/// outside of it at the same time.
pub fn with_far<T>(folder: &Path, act: impl FnOnce() -> T) -> T {
    FAR.set(Some(folder.to_owned()));
    let done = act();
    FAR.set(None);
    done
}

/// Writes down what `act` does to the folder `root`.
pub fn watch(root: &Path, act: impl FnOnce()) -> DiskLog {
    WATCHED.set(Some(Watched::new(root)));
    act();
    let mut watched = WATCHED.take().unwrap();
    watched.look();
    // Nothing has gone past us.
    let (here, there) = (&watched.names, Watched::new(root).names);
    assert!(here.keys().eq(there.keys()), "{here:?}\n{there:?}");
    watched.log
}

/// Writes down that somebody relies on something from now on.
pub fn told(promise: Promise) {
    WATCHED.with_borrow_mut(|watched| {
        watched.as_mut().unwrap().log.events.push(Logged::Told(promise));
    });
}

/// Whether a change may be made, and notes it.
#[track_caller]
pub fn announced(change: Change) -> io::Result<()> {
    let (left, kind) = FAULT.get();
    FAULT.set((left.saturating_sub(1), kind));
    if left == 1 {
        return Err(io::Error::new(kind, "a fault of the disk"));
    }
    match LEFT.get() {
        Some(0) => return Err(io::Error::other("the power is off")),
        Some(left) => LEFT.set(Some(left - 1)),
        None => {}
    }
    if let Change::Link(from, to) | Change::Rename(from, to) = change {
        let is_far = |path: &Path| {
            FAR.with_borrow(|far| far.as_ref().is_some_and(|far| path.starts_with(far)))
        };
        if is_far(from) != is_far(to) {
            return Err(ErrorKind::CrossesDevices.into());
        }
    }
    let by = Location::caller();
    WATCHED.with_borrow_mut(|watched| {
        if let Some(watched) = watched {
            watched.look();
            watched.note(change, by);
        }
    });
    Ok(())
}

impl Logged {
    /// The line that asked for a sync, if it is one.
    pub fn caller(&self) -> Option<Caller> {
        match self {
            Logged::SyncFile(_, by) | Logged::SyncFolder(_, by) => Some(by),
            Logged::Write(..) | Logged::Names(_) | Logged::Told(_) => None,
        }
    }
}

/// As a person tells it.
impl Display for Logged {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Logged::Write(file, text) => write!(f, "file {file} has {} octets", text.len()),
            Logged::Names(change) => match change.as_slice() {
                [(name, None)] => write!(f, "{} is removed", name.display()),
                [(name, Some(Node::Folder))] => write!(f, "{}/ is made", name.display()),
                [(name, Some(Node::File(file)))] => {
                    write!(f, "{} is file {file}", name.display())
                }
                [(from, _), (to, _)] => write!(f, "{} becomes {}", from.display(), to.display()),
                _ => unreachable!("a change has one name or two"),
            },
            Logged::SyncFile(file, by) => write!(f, "file {file} is synced, {by}"),
            Logged::SyncFolder(folder, by) => write!(f, "{}/ is synced, {by}", folder.display()),
            Logged::Told(promise) => write!(f, "promised: {promise:?}"),
        }
    }
}

impl DiskLog {
    /// The same without the syncs of one line, as if the program did without them.
    pub fn without(&self, caller: Caller) -> DiskLog {
        let is_other = |event: &&Logged| event.caller() != Some(caller);
        let events = self.events.iter().filter(is_other).cloned().collect();
        DiskLog { events, ..self.clone() }
    }
}

impl Watched {
    fn new(root: &Path) -> Watched {
        let (mut names, mut texts, mut numbers) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_owned();
                if path.is_dir() {
                    names.insert(name, Node::Folder);
                    folders.push(path);
                } else {
                    // Names that share a file share its number.
                    let number =
                        *numbers.entry(inode(&path.metadata().unwrap())).or_insert_with(|| {
                            texts.push(fs::read(&path).unwrap());
                            texts.len() - 1
                        });
                    names.insert(name, Node::File(number));
                }
            }
        }
        let log = DiskLog { names: names.clone(), texts: texts.clone(), events: Vec::new() };
        Watched { root: root.to_owned(), log, names, texts }
    }

    /// Notes what was written since the last change. Writes do not pass through `disk.rs`,
    /// and a cut between two of them is as one that leaves a part of both.
    fn look(&mut self) {
        for (name, node) in &self.names {
            let Node::File(file) = *node else { continue };
            let text = fs::read(self.root.join(name)).unwrap();
            if text != self.texts[file] {
                self.texts[file].clone_from(&text);
                self.log.events.push(Logged::Write(file, text));
            }
        }
    }

    /// Notes a change, unless the system is going to refuse it.
    fn note(&mut self, change: Change, by: Caller) {
        let name = |path: &Path| path.strip_prefix(&self.root).unwrap().to_owned();
        let node = |name: &PathBuf| self.names.get(name).copied();
        let event = match change {
            Change::Create(path) | Change::Overwrite(path) => match node(&name(path)) {
                None => Logged::Names(vec![(name(path), Some(Node::File(self.texts.len())))]),
                Some(Node::File(file)) if matches!(change, Change::Overwrite(_)) => {
                    Logged::Write(file, Vec::new())
                }
                Some(_) => return,
            },
            Change::MakeFolder(path) if node(&name(path)).is_none() => {
                Logged::Names(vec![(name(path), Some(Node::Folder))])
            }
            Change::Link(from, to) if node(&name(to)).is_none() => {
                let Some(file) = node(&name(from)) else { return };
                Logged::Names(vec![(name(to), Some(file))])
            }
            Change::Rename(from, to) => match node(&name(from)) {
                // Of two names of one file the system leaves both.
                Some(moved) if node(&name(to)) != Some(moved) || moved == Node::Folder => {
                    Logged::Names(vec![(name(from), None), (name(to), Some(moved))])
                }
                _ => return,
            },
            Change::Remove(path) if node(&name(path)).is_some() => {
                Logged::Names(vec![(name(path), None)])
            }
            Change::MakeFolder(_) | Change::Link(..) | Change::Remove(_) => return,
            Change::SyncFile(file) => match self.number(file) {
                Some(file) => Logged::SyncFile(file, by),
                None => return,
            },
            Change::SyncFolder(path) if path.starts_with(&self.root) => {
                Logged::SyncFolder(name(path), by)
            }
            // Above of what is watched.
            Change::SyncFolder(_) => return,
        };
        self.apply(&event);
        self.log.events.push(event);
    }

    fn apply(&mut self, event: &Logged) {
        match event {
            Logged::Write(file, text) => self.texts[*file].clone_from(text),
            Logged::Names(changed) => {
                for (name, node) in changed {
                    match *node {
                        Some(node) => self.names.insert(name.clone(), node),
                        None => self.names.remove(name),
                    };
                    if *node == Some(Node::File(self.texts.len())) {
                        self.texts.push(Vec::new());
                    }
                }
            }
            Logged::SyncFile(..) | Logged::SyncFolder(..) | Logged::Told(_) => {}
        }
    }

    /// The number of an open file, if it has a name.
    fn number(&self, file: &File) -> Option<usize> {
        let wanted = inode(&file.metadata().unwrap());
        self.names.iter().find_map(|(name, node)| match *node {
            Node::File(file) if inode(&self.root.join(name).metadata().unwrap()) == wanted => {
                Some(file)
            }
            _ => None,
        })
    }
}

fn inode(data: &Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}
