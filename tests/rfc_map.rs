//! Holds `docs/rfc-map.md` to the code: each name in it is there, each section has a row.
//!
//! The list of sections was drawn up from the RFC texts first, and then the rows, so that
//! a requirement nobody thought of while writing code leaves a gap that is seen. What a row
//! *says* no test can hold; that is what reviews are for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;
#[path = "rfc_map/sections.rs"]
mod sections;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::markdown::Page;
use sections::SECTIONS;

const MAP: &str = "docs/rfc-map.md";
const FEWEST_ROWS: usize = 600;
const FEWEST_SECTIONS: usize = 400;
const FEWEST_RFCS: usize = 35;
const FEWEST_NAMES: usize = 500;

/// How a row begins that names no code: nothing was built, and it says why.
const NOT_DONE: &str = "*Not done:*";
/// How a row begins that tells what is done in the place of what was asked.
const OTHERWISE: &str = "*Otherwise:*";
/// What may stand in the second column.
const LEVELS: [&str; 4] = ["MUST", "SHOULD", "MAY", "is"];

/// One row: a requirement, and where it is met.
struct Row {
    line: usize,
    rfc: u32,
    section: String,
    level: String,
    requirement: String,
    code: Vec<String>,
    tests: Vec<String>,
    chapter: String,
}

#[test]
fn every_item_of_code_is_defined_in_the_file_that_a_row_names() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for row in rows() {
        for name in &row.code {
            checked += 1;
            let (file, item) = name.split_once("::").unwrap_or((name, ""));
            if let Err(why) = find(&Path::new("src").join(file), item, false) {
                wrong.push(format!("{}: {why}", row.place()));
            }
        }
    }
    assert!(checked >= FEWEST_NAMES / 2, "only {checked} names of code");
    assert_none(wrong, "these are not in src/");
}

#[test]
fn every_test_and_dialogue_that_a_row_names_is_there() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for row in rows() {
        for name in &row.tests {
            checked += 1;
            if let Err(why) = find_test(name) {
                wrong.push(format!("{}: {why}", row.place()));
            }
        }
    }
    assert!(checked >= FEWEST_NAMES / 2, "only {checked} names of tests");
    assert_none(wrong, "these show nothing");
}

/// Where a chapter leads is held by `tests/book.rs`, as for every link; here, that it is one.
#[test]
fn every_row_has_a_chapter_whose_number_is_that_of_its_page() {
    let rows = rows();
    assert!(rows.len() >= FEWEST_ROWS, "only {} rows", rows.len());
    let wrong = rows.iter().filter(|row| {
        let link = row.chapter.strip_prefix('[').and_then(|rest| rest.strip_suffix(')'));
        let Some((number, page)) = link.and_then(|link| link.split_once("](")) else { return true };
        let page = page.split('#').next().unwrap();
        let is_its_page = number.parse().is_ok_and(|n: u32| page.starts_with(&format!("{n:02}-")));
        !(is_its_page && root().join("docs").join(page).is_file())
    });
    assert_none(wrong.map(Row::place).collect(), "expected `[N](NN-topic.md)` in the last column");
}

#[test]
fn every_section_of_the_list_has_a_row_and_every_row_a_section_of_the_list() {
    let mut have: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for row in rows() {
        have.entry(row.rfc).or_default().insert(row.section);
    }
    let mut wrong = Vec::new();
    let mut checked = 0;
    let mut listed = BTreeSet::new();
    for (rfc, sections) in SECTIONS {
        assert!(listed.insert(*rfc), "RFC {rfc} stands twice in the list");
        let wanted: BTreeSet<String> = sections.split_whitespace().map(str::to_owned).collect();
        checked += wanted.len();
        let have = have.remove(rfc).unwrap_or_default();
        wrong.extend(wanted.difference(&have).map(|s| format!("RFC {rfc} section {s}: no row")));
        wrong
            .extend(have.difference(&wanted).map(|s| format!("RFC {rfc} section {s}: not listed")));
    }
    wrong.extend(have.keys().map(|rfc| format!("RFC {rfc}: has a table and no list")));
    assert!(checked >= FEWEST_SECTIONS, "only {checked} sections listed");
    assert!(listed.len() >= FEWEST_RFCS, "only {} RFCs listed", listed.len());
    assert_none(wrong, "tests/rfc_map/sections.rs and the map differ");
}

#[test]
fn every_row_says_what_is_done_and_what_shows_it_or_why_nothing_is() {
    let rows = rows();
    assert!(rows.len() >= FEWEST_ROWS, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for row in &rows {
        if !LEVELS.contains(&row.level.trim_end_matches(" NOT")) {
            wrong.push(format!("{}: `{}` is none of {LEVELS:?}", row.place(), row.level));
        }
        let is_bare = row.code.is_empty() || row.tests.is_empty();
        let says_why = [NOT_DONE, OTHERWISE].iter().any(|it| row.requirement.starts_with(it));
        if is_bare && !says_why {
            wrong.push(format!("{}: no code or no test, and no `{NOT_DONE}`", row.place()));
        }
        if row.requirement.starts_with(NOT_DONE) && !row.code.is_empty() {
            wrong.push(format!("{}: not done, and yet there is code", row.place()));
        }
        if row.requirement.len() < 10 || !seen.insert((row.rfc, &row.section, &row.requirement)) {
            wrong.push(format!("{}: says nothing, or the same as another row", row.place()));
        }
    }
    assert_none(wrong, "a row is a requirement, code, and a test");
}

/// Whatever `src/` goes by is in the map, or in the list of those that it says no more
/// about at its end.
#[test]
fn every_rfc_that_the_code_names_is_in_the_map() {
    let text = fs::read_to_string(root().join(MAP)).unwrap();
    let mut named: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in sources(&root().join("src")) {
        let source = fs::read_to_string(&path).unwrap();
        for after in source.split("RFC ").skip(1) {
            let number: String = after.chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() {
                named.entry(number).or_insert_with(|| path.clone());
            }
        }
    }
    assert!(named.len() >= FEWEST_RFCS, "only {} RFCs named in src/", named.len());
    let wrong = named.iter().filter(|(number, _)| !text.contains(&format!("RFC {number}")));
    let wrong = wrong.map(|(number, path)| format!("RFC {number}, in {}", path.display()));
    assert_none(wrong.collect(), "the map does not know these");
}

impl Row {
    fn place(&self) -> String {
        format!("{MAP}:{}: RFC {} section {}", self.line, self.rfc, self.section)
    }
}

/// The rows of all tables under a heading `## RFC NNNN…`.
fn rows() -> Vec<Row> {
    let page = Page::read(MAP);
    let (mut rows, mut rfc) = (Vec::new(), None);
    for (line, text) in page.prose() {
        if let Some(heading) = text.strip_prefix("## ") {
            let number = heading.strip_prefix("RFC ").and_then(|rest| rest.split(':').next());
            rfc = number.map(|number| number.parse().unwrap_or_else(|_| panic!("{MAP}:{line}")));
        }
        let (Some(rfc), Some(cells)) = (rfc, text.strip_prefix("| ")) else { continue };
        let cells: Vec<&str> = cells.trim_end_matches('|').split(" | ").map(str::trim).collect();
        if cells[0] == "§" || cells[0].starts_with("---") {
            continue;
        }
        let [section, level, requirement, code, tests, chapter] = cells[..] else {
            panic!("{MAP}:{line}: {} cells, expected 6", cells.len());
        };
        rows.push(Row {
            line,
            rfc,
            section: section.to_owned(),
            level: level.to_owned(),
            requirement: requirement.to_owned(),
            code: names(code),
            tests: names(tests),
            chapter: chapter.to_owned(),
        });
    }
    rows
}

/// What stands in backticks. Anything else but blanks and `—` is a mistake.
fn names(cell: &str) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), String::new());
    for (index, part) in cell.split('`').enumerate() {
        if index % 2 == 1 {
            names.push(part.to_owned());
        } else {
            rest += part;
        }
    }
    assert!(matches!(rest.trim(), "" | "—"), "{MAP}: what is `{rest}` in the cell {cell}?");
    names
}

/// `name.smtp`, `file::test` of tests/, or `room/file.rs::test` of src/.
fn find_test(name: &str) -> Result<(), String> {
    if name.ends_with(".smtp") {
        let path = Path::new("tests/dialogues").join(name);
        let is_there = root().join(&path).is_file();
        return if is_there { Ok(()) } else { Err(format!("there is no {}", path.display())) };
    }
    let (file, test) = name.split_once("::").ok_or(format!("{name} is no name of a test"))?;
    let path = match file.ends_with(".rs") {
        true => Path::new("src").join(file),
        false => Path::new("tests").join(format!("{file}.rs")),
    };
    find(&path, test, true)
}

/// Looks for a definition. A test has the line `#[test]` close above it, an item has not.
fn find(path: &Path, item: &str, is_test: bool) -> Result<(), String> {
    let text = fs::read_to_string(root().join(path))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if defines(line, item) && marked == is_test {
            return Ok(());
        }
        // Between the mark and its function may be other attributes and comments.
        marked = line == "#[test]" || marked && (line.starts_with('#') || line.starts_with("//"));
    }
    let what = if is_test { "no #[test] fn" } else { "no item" };
    Err(format!("{what} `{item}` in {}", path.display()))
}

/// Whether a line is where `item` is defined.
fn defines(line: &str, item: &str) -> bool {
    const KINDS: [&str; 8] =
        ["fn ", "struct ", "enum ", "const ", "static ", "type ", "trait ", "const fn "];
    let mut line = line;
    for visible in ["pub(super) ", "pub(crate) ", "pub "] {
        line = line.strip_prefix(visible).unwrap_or(line);
    }
    let after = KINDS.iter().find_map(|kind| line.strip_prefix(kind)?.strip_prefix(item));
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    !item.is_empty() && after.is_some_and(ends)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let (folders, files): (Vec<_>, Vec<_>) =
        common::files(folder).into_iter().partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
        .chain(below)
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(wrong: Vec<String>, what: &str) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}
