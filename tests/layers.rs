//! Holds src/ to the map in `src/lib.rs`: arrows run down only.
//!
//! The rules are read off the text of each file, mostly off its `use` lines.
//! Comments do not count; unit tests inside a file do. A `use` that groups
//! several modules in one pair of braces would hide them, so none does.
//!
//! Book: docs/08-threads.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms of the house, from the roof to the ground. Rooms on one floor do
/// not know each other.
const HOUSE: [&[&str]; 7] = [
    &["main"],
    &["server"],
    &["config", "relay"],
    &["trust"],
    &["dns"],
    &["store", "wire"],
    &["smtp"],
];

/// The floors inside smtp/.
const SMTP: [&[&str]; 6] = [
    &["session"],
    &["site", "command", "answer"],
    &["auth"],
    &["address", "reply"],
    &["dsn"],
    &["text"],
];

/// What smtp/ may take from `std::net`: addresses are text, all else is a socket.
const ADDRESS_TYPES: [&str; 3] = ["IpAddr", "Ipv4Addr", "Ipv6Addr"];

/// What smtp/ takes nothing from: files, sockets, threads, clocks.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::io",
    "std::thread",
    "Instant",
    "SystemTime",
    "std::process",
    "std::env",
    "jiff",
    "log::",
    "println!",
];

/// Less than this was not the whole program: the scanner is blind then.
const FEWEST_FILES: usize = 20;
const FEWEST_ARROWS: usize = 40;

/// One file of src/, without its comments.
struct Source {
    /// Such as `src/smtp/reply/ours.rs`.
    path: String,
    /// Such as `smtp`: the folder, or the file itself where it stands in src/.
    room: String,
    /// Such as `reply`: the file, or the folder where it stands in one.
    module: String,
    /// Such as `ours`.
    file: String,
    /// Line number, from 1, and text.
    lines: Vec<(usize, String)>,
}

/// One `use` of our own code: `from` is `src/smtp/reply/mod.rs:15`, `to` is
/// `["smtp", "text", "printable"]`.
struct Arrow<'a> {
    from: String,
    source: &'a Source,
    to: Vec<String>,
    is_for_tests: bool,
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let sources = sources();
    let wrong = wrong_arrows(&sources, |arrow| {
        let (from, to) = (arrow.source.room.as_str(), arrow.to[0].as_str());
        from == "dialogue" || from == to || floor(&HOUSE, from) < floor(&HOUSE, to)
    });
    assert!(wrong.is_empty(), "these arrows of the map do not run down:\n{}", wrong.join("\n"));
}

#[test]
fn dialogue_uses_only_smtp_and_nothing_uses_dialogue() {
    let sources = sources();
    let wrong = wrong_arrows(&sources, |arrow| {
        let [from, to] = [&arrow.source.room, &arrow.to[0]].map(|room| room == "dialogue");
        from == to || from && arrow.to[0] == "smtp"
    });
    assert!(wrong.is_empty(), "dialogue/ stands beside the server:\n{}", wrong.join("\n"));
}

#[test]
fn dns_uses_only_wire() {
    let wrong = wrong_arrows(&sources(), |arrow| {
        arrow.source.room != "dns" || ["dns", "wire"].contains(&arrow.to[0].as_str())
    });
    assert!(wrong.is_empty(), "dns/ knows nothing of mail:\n{}", wrong.join("\n"));
}

#[test]
fn inside_smtp_a_file_uses_only_files_below_it() {
    let sources = sources();
    let wrong = wrong_arrows(&sources, |arrow| {
        let from = arrow.source;
        if from.room != "smtp" || arrow.to[0] != "smtp" {
            return true;
        }
        // `use crate::smtp` alone would open the door to every file in it.
        let Some(to) = arrow.to.get(1) else { return false };
        *to == from.module || floor(&SMTP, &from.module) < floor(&SMTP, to)
    });
    assert!(wrong.is_empty(), "inside smtp/ these run upwards:\n{}", wrong.join("\n"));
}

/// Where arrows lead round in a circle, none of the files can be read, or tried, before
/// the others: there is no order in which all of them run down. A folder inside a room
/// counts as one file here, since its parts may use what its mod.rs says of all, and unit
/// tests do not count: they may need something that stands above.
#[test]
fn inside_a_room_no_way_leads_back_to_where_it_began() {
    let sources = sources();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for arrow in sources.iter().flat_map(arrows).filter(|arrow| !arrow.is_for_tests) {
        let (from, to) = (unit(arrow.source), target(&sources, &arrow.to).map(unit));
        if let Some(to) = to.filter(|to| *to != from) {
            uses.entry(from).or_default().insert(to);
        }
    }
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() >= FEWEST_ARROWS);
    let wrong: Vec<(&String, &BTreeSet<String>)> =
        uses.iter().filter(|(from, _)| reached(&uses, from).contains(from.as_str())).collect();
    assert!(wrong.is_empty(), "each of these uses itself in the end: {wrong:#?}");
}

/// Such as `server/listener`, or `relay/client` for all files in that folder.
fn unit(source: &Source) -> String {
    format!("{}/{}", source.room, source.module)
}

/// All files that a file uses, and those that they use, and so on.
fn reached<'a>(uses: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(file) = next.pop() {
        for to in uses.get(file.as_str()).into_iter().flatten() {
            if reached.insert(to.as_str()) {
                next.push(to.clone());
            }
        }
    }
    reached
}

/// The file that a `use` leads to: the longest part of the path that is one.
fn target<'a>(sources: &'a [Source], to: &[String]) -> Option<&'a Source> {
    (1..=to.len()).rev().find_map(|count| {
        let path = format!("src/{}", to[..count].join("/"));
        let names = [format!("{path}.rs"), format!("{path}/mod.rs")];
        sources.iter().find(|source| names.contains(&source.path))
    })
}

#[test]
fn smtp_opens_nothing_reads_no_clock_and_starts_no_thread() {
    let sources = sources();
    let pure: Vec<_> = sources.iter().filter(|source| source.room == "smtp").collect();
    assert!(pure.len() >= 7, "only {} files in src/smtp/", pure.len());

    let mut wrong = Vec::new();
    for source in pure {
        for (number, line) in &source.lines {
            let is_impure = IMPURE.iter().any(|name| line.contains(name))
                || line.split("std::net::").skip(1).any(|after| !is_address_type(after))
                || line.contains("std::net;")
                || line.contains("std::{");
            if is_impure {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "smtp/ is text and order only:\n{}", wrong.join("\n"));
}

#[test]
fn our_own_modules_are_named_only_in_use_lines() {
    let mut wrong = Vec::new();
    for source in &sources() {
        for (number, line) in &source.lines {
            let is_hidden = ["crate::", "ehlo::", "super::", "self::"]
                .iter()
                .any(|path| !is_use(line) && line.contains(path));
            // A unit test sees the file it stands in, and nothing else this way.
            let is_relative = is_use(line)
                && (line.contains("self::") || line.contains("super::"))
                && line.trim() != "use super::*;";
            let is_group = is_use(line)
                && ["crate::{", "crate::smtp::{", "ehlo::{"].iter().any(|path| line.contains(path));
            if is_hidden || is_relative || is_group {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "write `use crate::room::file::…` instead:\n{}", wrong.join("\n"));
}

#[test]
fn the_map_names_every_file_and_no_other() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let map = lib.split("```").nth(1).unwrap();
    let words = || map.split_whitespace();
    let named: BTreeSet<&str> = words()
        .filter_map(|word| word.trim_end_matches(',').strip_suffix(".rs"))
        .chain(words().filter_map(|word| word.strip_suffix('/')))
        .collect();

    let sources = sources();
    let mut present = BTreeSet::new();
    for source in sources.iter().filter(|source| source.module != "lib") {
        let parts = [&source.room, &source.module, &source.file];
        present.extend(parts.map(String::as_str));
    }
    let mods = sources.iter().filter(|source| source.file == "mod").count();
    assert_eq!(map.matches("mod.rs").count(), mods, "every mod.rs has a place on the map");
    assert_eq!(named, present, "left: the map in src/lib.rs; right: what is in src/");
}

/// The arrows that `is_right` refuses, as lines for a person.
fn wrong_arrows(sources: &[Source], is_right: impl Fn(&Arrow) -> bool) -> Vec<String> {
    let arrows: Vec<Arrow> = sources.iter().flat_map(arrows).collect();
    assert!(arrows.len() >= FEWEST_ARROWS, "only {} arrows found", arrows.len());
    let wrong = arrows.iter().filter(|arrow| !is_right(arrow));
    wrong.map(|arrow| format!("{} uses {}", arrow.from, arrow.to.join("::"))).collect()
}

/// What a file uses of our own code.
fn arrows(source: &Source) -> Vec<Arrow<'_>> {
    let mut arrows = Vec::new();
    let tests = source.lines.iter().find(|(_, line)| line.trim() == "#[cfg(test)]");
    let tests = tests.map_or(usize::MAX, |(number, _)| *number);
    for (number, line) in source.lines.iter().filter(|(_, line)| is_use(line)) {
        // main.rs is a program of its own, to which the library is a crate.
        let path = line.split("crate::").nth(1).or_else(|| line.split(" ehlo::").nth(1));
        let Some(path) = path else { continue };
        let to: Vec<String> = path.split("::").map(|word| word.replace(';', "")).collect();
        let from = format!("{}:{number}", source.path);
        arrows.push(Arrow { from, source, to, is_for_tests: *number > tests });
    }
    arrows
}

fn is_use(line: &str) -> bool {
    let line = line.trim_start();
    ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
        .iter()
        .any(|word| line.starts_with(word))
}

/// Whether text after `std::net::` names addresses and nothing else.
fn is_address_type(after: &str) -> bool {
    let end = |c: char| !c.is_alphanumeric();
    match after.strip_prefix('{') {
        Some(group) => {
            let names = group.split('}').next().unwrap_or_default();
            names.split(',').all(|name| ADDRESS_TYPES.contains(&name.trim()))
        }
        None => ADDRESS_TYPES.contains(&after.split(end).next().unwrap_or_default()),
    }
}

/// The floor of a room, counted from the roof.
fn floor(house: &[&[&str]], room: &str) -> usize {
    let floor = house.iter().position(|rooms| rooms.contains(&room));
    floor.unwrap_or_else(|| {
        panic!("{room} has no place in tests/layers.rs and the map in src/lib.rs")
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of src/.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(source(&path));
            }
        }
    }
    assert!(sources.len() >= FEWEST_FILES, "only {} files found in src/", sources.len());
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn source(path: &Path) -> Source {
    let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let inner = name.trim_start_matches("src/").trim_end_matches(".rs");
    let (room, rest) = inner.split_once('/').unwrap_or((inner, inner));
    let (module, file) = rest.split_once('/').unwrap_or((rest, rest));
    let text = fs::read_to_string(path).unwrap();
    // A `//` inside a string cuts that line short, which hides nothing we look for.
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, code(line))).collect();
    let [room, module, file] = [room, module, file].map(str::to_owned);
    Source { room, module, file, lines, path: name }
}
