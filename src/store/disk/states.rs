//! What a disk may hold after its power has failed.
//!
//! In: a [`DiskLog`] and the place in it where the power fails. Out: [`DiskState`]s, each a whole
//! disk that may be found then, pure, and laid out as files on demand. What was synced is
//! there. Of anything else any part may be there; the rules are those of [`Order`].
//!
//! A sync of a file says nothing about its names, and a sync of a folder nothing about
//! the files in it or about its own name: POSIX promises no more, and some file systems
//! do no more.
//!
//! Book: docs/07-maildir.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::store::disk::power::{DiskLog, Logged, Node};

/// In which order names get to the disk, if nobody waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Every change before every later one, and each sync takes along all that was
    /// changed before it: one journal for all, such as that of ext4.
    Journal,
    /// The names of one folder in the order of their changes, each folder for itself.
    Folder,
    /// In no order at all.
    None,
}

/// The orders to be tested. There is no state that a journal leaves and these two do not,
/// which is a test.
pub const ORDERS: [Order; 2] = [Order::Folder, Order::None];

/// A disk, as it is found when the power is back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskState {
    /// Only names that can be reached; each file by its number.
    pub names: BTreeMap<PathBuf, Node>,
    /// What stands in these files.
    pub texts: BTreeMap<usize, Vec<u8>>,
}

/// One change of names.
type NameChange<'a> = &'a [(PathBuf, Option<Node>)];

/// What is known when the power fails.
struct Cut<'a> {
    log: &'a DiskLog,
    /// All changes of names so far, and whether each is on disk for certain.
    changes: Vec<(NameChange<'a>, bool)>,
    /// What may stand in each file, by number.
    texts: Vec<Vec<Vec<u8>>>,
}

/// States that a disk of this order may be in if the power fails after the first `cut`
/// events: all of them if there are up to `effort` ways to choose from the names,
/// or else the extremes, and so many others by chance, the same in each run.
pub fn states(log: &DiskLog, cut: usize, order: Order, effort: usize) -> BTreeSet<DiskState> {
    let cut = Cut::new(log, cut, order);
    let mut chance = Chance(1);
    let mut found = BTreeSet::new();
    for wish in wishes(cut.open().count(), effort, &mut chance) {
        let names = cut.names(&granted(order, cut.open(), &wish));
        // All files alike, and then each by chance.
        let most = cut.texts.iter().map(Vec::len).max().unwrap_or(1);
        for choice in 0..most {
            found.insert(cut.state(names.clone(), |_| choice));
        }
        for _ in 0..if most > 1 { effort.min(20) } else { 0 } {
            found.insert(cut.state(names.clone(), |_| chance.below(most)));
        }
    }
    found
}

impl<'a> Cut<'a> {
    fn new(log: &'a DiskLog, cut: usize, order: Order) -> Cut<'a> {
        let mut now = log.texts.clone();
        let mut synced: Vec<_> = log.texts.iter().cloned().map(Some).collect();
        let mut changes: Vec<(NameChange, bool)> = Vec::new();
        for event in &log.events[..cut] {
            match event {
                Logged::Write(file, text) => now[*file].clone_from(text),
                Logged::Names(change) => {
                    changes.push((change, false));
                    if change.iter().any(|(_, node)| *node == Some(Node::File(now.len()))) {
                        now.push(Vec::new());
                        synced.push(None);
                    }
                }
                Logged::SyncFile(file, _) => synced[*file] = Some(now[*file].clone()),
                Logged::SyncFolder(..) | Logged::Told(_) => {}
            }
            for (change, lasts) in &mut changes {
                *lasts |= match event {
                    Logged::SyncFolder(folder, _) => {
                        order == Order::Journal || new_place(change) == folder
                    }
                    Logged::SyncFile(..) => order == Order::Journal,
                    Logged::Write(..) | Logged::Names(_) | Logged::Told(_) => false,
                };
            }
        }
        let texts = now.iter().zip(&synced);
        let texts = texts.map(|(now, synced)| possible_texts(now, synced.as_deref())).collect();
        Cut { log, changes, texts }
    }

    /// The changes of names that may be on disk or not.
    fn open(&self) -> impl Iterator<Item = NameChange<'a>> {
        self.changes.iter().filter(|(_, lasts)| !lasts).map(|(change, _)| *change)
    }

    /// The names if these of the open changes are on disk.
    fn names(&self, is_done: &[bool]) -> BTreeMap<PathBuf, Node> {
        let mut names = self.log.names.clone();
        let mut is_done = is_done.iter();
        // In their order: of two changes of one name, the later counts.
        for (change, lasts) in &self.changes {
            if *lasts || is_done.next() == Some(&true) {
                for (name, node) in *change {
                    match *node {
                        Some(node) => names.insert(name.clone(), node),
                        None => names.remove(name),
                    };
                }
            }
        }
        // What is in a folder that is not there cannot be reached.
        let all = names.clone();
        let is_folder =
            |path: &Path| path.as_os_str().is_empty() || all.get(path) == Some(&Node::Folder);
        names.retain(|name, _| name.ancestors().skip(1).all(is_folder));
        names
    }

    /// With a text for each file.
    fn state(
        &self,
        names: BTreeMap<PathBuf, Node>,
        mut choose: impl FnMut(usize) -> usize,
    ) -> DiskState {
        let mut texts = BTreeMap::new();
        for node in names.values() {
            if let Node::File(file) = *node {
                let possible = &self.texts[file];
                let choice = choose(file).min(possible.len() - 1);
                texts.entry(file).or_insert_with(|| possible[choice].clone());
            }
        }
        DiskState { names, texts }
    }
}

impl DiskState {
    /// Makes the files. Names of one file share it, as they did.
    pub fn lay_out(&self, root: &Path) {
        let mut first_name: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for (name, node) in &self.names {
            let path = root.join(name);
            match node {
                Node::Folder => fs::create_dir(path).unwrap(),
                Node::File(file) => match first_name.get(file) {
                    Some(first) => fs::hard_link(first, path).unwrap(),
                    None => {
                        fs::write(&path, &self.texts[file]).unwrap();
                        first_name.insert(*file, path);
                    }
                },
            }
        }
    }
}

/// What may stand in a file: what was synced, or any part of what was written since.
/// A file may also be as long as it should be, with nothing in it.
fn possible_texts(now: &[u8], synced: Option<&[u8]>) -> Vec<Vec<u8>> {
    if synced == Some(now) {
        return vec![now.to_vec()];
    }
    let last_line = now.iter().rev().skip(1).position(|octet| *octet == b'\n').unwrap_or(0);
    vec![
        synced.unwrap_or_default().to_vec(),
        now[..now.len() / 2].to_vec(),
        now[..now.len() - now.len().min(last_line + 1)].to_vec(),
        vec![0; now.len()],
        Vec::new(),
        now.to_vec(),
    ]
}

/// The folder of the name that a change gives or takes: that of the last.
fn new_place(change: NameChange<'_>) -> &Path {
    change.last().and_then(|(name, _)| name.parent()).unwrap()
}

/// What of a wish this order allows: a change waits for those before it.
fn granted<'a>(
    order: Order,
    changes: impl Iterator<Item = NameChange<'a>>,
    wish: &[bool],
) -> Vec<bool> {
    // Folders in which nothing more can be on disk, because something before it is not.
    let mut closed: BTreeSet<&Path> = BTreeSet::new();
    let mut is_done = Vec::new();
    for (change, wanted) in changes.zip(wish) {
        let folders = || {
            change.iter().map(|(name, _)| match order {
                // The journal is as one folder of everything.
                Order::Journal => Path::new(""),
                Order::Folder | Order::None => name.parent().unwrap(),
            })
        };
        let is_possible = *wanted && !folders().any(|folder| closed.contains(folder));
        if !is_possible && order != Order::None {
            closed.extend(folders());
        }
        is_done.push(is_possible);
    }
    is_done
}

/// Which of so many changes are to be on disk: every choice, if there are up to `effort`;
/// or else none, all, one alone, all but one, and as many others by chance.
fn wishes(changes: usize, effort: usize, chance: &mut Chance) -> Vec<Vec<bool>> {
    if 1_usize.checked_shl(changes as u32).is_some_and(|all| all <= effort) {
        let choice = |all: usize| (0..changes).map(|bit| all >> bit & 1 == 1).collect();
        return (0..1 << changes).map(choice).collect();
    }
    let mut wishes = vec![vec![false; changes], vec![true; changes]];
    for one in 0..changes {
        for is_alone in [true, false] {
            wishes.push((0..changes).map(|change| (change == one) == is_alone).collect());
        }
        // As a disk that keeps the order stops after one of them.
        wishes.push((0..changes).map(|change| change < one).collect());
    }
    for _ in 0..effort {
        wishes.push((0..changes).map(|_| chance.below(2) == 1).collect());
    }
    wishes
}

/// Numbers that look like chance and are the same in each run (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::power::watch;
    use crate::store::disk::{create_file, rename, sync_file, sync_folder};
    use std::io::Write;

    /// Makes a file in the folder `tmp` and moves it to `new`, with all syncs.
    fn delivery() -> DiskLog {
        let root = tempfile::tempdir().unwrap();
        let [tmp, new] = ["tmp", "new"].map(|name| root.path().join(name));
        fs::create_dir(&tmp).unwrap();
        fs::create_dir(&new).unwrap();
        watch(root.path(), || {
            let mut file = create_file(&tmp.join("letter")).unwrap();
            file.write_all(b"one\ntwo\n").unwrap();
            sync_file(&file).unwrap();
            rename(&tmp.join("letter"), &new.join("letter")).unwrap();
            sync_folder(&new).unwrap();
        })
    }

    /// What may be found after so many events: where the letter is, and what is in it.
    fn found(log: &DiskLog, cut: usize, order: Order) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for state in states(log, cut, order, 100) {
            let names = state.names.iter().filter_map(|(name, node)| match node {
                Node::File(file) => Some((name.display().to_string(), &state.texts[file])),
                Node::Folder => None,
            });
            let texts = names.map(|(name, text)| (name, String::from_utf8_lossy(text).into()));
            let texts: Vec<(String, String)> = texts.collect();
            assert!(texts.len() < 2, "the letter has both names: {texts:?}");
            found.extend(texts.into_iter().next().or(Some(Default::default())));
        }
        found
    }

    fn set(all: &[(&str, &str)]) -> BTreeSet<(String, String)> {
        all.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    #[test]
    fn what_is_not_synced_may_be_there_in_any_part_and_what_is_synced_is_whole() {
        let log = delivery();
        // Created, written.
        let zeros = "\0".repeat(8);
        let parts = ["", "one\n", &zeros, "one\ntwo\n"].map(|text| ("tmp/letter", text));
        let mut any = set(&parts);
        any.extend(set(&[("", "")]));
        assert_eq!(found(&log, 2, Order::None), any);
        // Synced: the file, not its name.
        let whole = set(&[("", ""), ("tmp/letter", "one\ntwo\n")]);
        assert_eq!(found(&log, 3, Order::None), whole);
        // Moved.
        let moved = set(&[("new/letter", "one\ntwo\n")]);
        assert_eq!(found(&log, 4, Order::None), &whole | &moved);
        assert_eq!(found(&log, 5, Order::None), moved);
    }

    #[test]
    fn what_is_kept_in_order_has_nothing_late_without_what_came_before() {
        let root = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| root.path().join(name));
        let log = watch(root.path(), || {
            create_file(&one).unwrap();
            create_file(&other).unwrap();
        });
        let has_only_the_other = |order| {
            let states = states(&log, log.events.len(), order, 100);
            states.iter().any(|state| state.names.keys().eq([Path::new("other")]))
        };
        assert!(has_only_the_other(Order::None));
        assert!(!has_only_the_other(Order::Folder) && !has_only_the_other(Order::Journal));
    }

    #[test]
    fn only_a_journal_takes_the_name_of_a_synced_file_along() {
        let log = delivery();
        let may_be_lost = |order| found(&log, 3, order).contains(&<_>::default());
        assert!(may_be_lost(Order::None) && may_be_lost(Order::Folder));
        assert!(!may_be_lost(Order::Journal));
    }
}
