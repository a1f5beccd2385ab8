//! Holds the book to the program: code that is quoted is there, dialogues go as
//! printed, links lead somewhere, tables and drawings are the program's own.
//!
//! Each guard first asserts how much it checked, because a guard that finds
//! nothing to look at is blind, not content.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]
#![allow(clippy::duplicate_mod, reason = "both examples bring what reads their flags")]

mod common;
#[path = "../examples/retry.rs"]
#[allow(dead_code, reason = "its `main` is for people")]
mod retry;
#[path = "../examples/states.rs"]
#[allow(dead_code, reason = "its `main` is for people")]
mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use ehlo::dialogue::{Dialogue, PlayError};
use ehlo::server::Config;
use ehlo::smtp::command::Command;
use ehlo::smtp::reply;
use ehlo::smtp::session::patience::is_errand;
use ehlo::smtp::session::{Role, Session};
use ehlo::smtp::site::Site;

use common::TestServer;
use common::markdown::{Fence, Page};

const FEWEST_CHAPTERS: usize = 10;
const FEWEST_RUST_FENCES: usize = 30;
const FEWEST_DIALOGUES: usize = 30;
const FEWEST_SOURCES: usize = 20;
const FEWEST_EXAMPLES: usize = 2;
const FEWEST_LINKS: usize = 40;
const FEWEST_NAMED_FILES: usize = 20;
const FEWEST_COMMANDS: usize = 15;
const FEWEST_KEYWORDS: usize = 8;
const FEWEST_TERMS: usize = 50;
const FEWEST_LINKED_TERMS: usize = 200;

/// How many dialogues are played at a time.
const AT_A_TIME: usize = 8;

/// What every chapter has, in this order, each at the start of a line.
const PARTS: [&str; 5] =
    ["**Goal:**", "**Code:**", "## What real servers do", "## Exercises", "## RFC reading"];

/// What stands between the code and the first section: the question before the invariants,
/// which may give the answer away.
const BEFORE_THE_FIRST_SECTION: [&str; 2] = ["**A question to predict:**", "**Invariants:**"];

/// Words that mean something else in a chapter than in the glossary.
const NO_TERMS: [(&str, &&str); 4] =
    [("14", &"journal"), ("15", &"alias"), ("18", &"journal"), ("20", &"header")];

/// Files that may leave out their `//! Book:` line, because they are no more
/// than a list of modules or the way in.
const WITHOUT_BOOK_LINE: [&str; 3] = ["lib.rs", "main.rs", "mod.rs"];

// ---- code ----

#[test]
fn every_quoted_piece_of_code_is_in_its_file_exactly_once() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for fence in fences() {
        let Some(path) = fence.info.strip_prefix("rust,src=") else { continue };
        checked += 1;
        let Ok(source) = fs::read_to_string(root().join(path)) else {
            wrong.push(format!("{}: there is no {path}", fence.place));
            continue;
        };
        let source: Vec<&str> = source.lines().collect();
        let found = match fence.lines.iter().all(|line| line.trim().is_empty()) {
            true => 0,
            false => {
                source.windows(fence.lines.len()).filter(|lines| quotes(&fence, lines)).count()
            }
        };
        if found != 1 {
            let first = fence.lines.first().map_or("", String::as_str).trim();
            let place = &fence.place;
            let differs = match found {
                0 => first_difference(&fence, &source),
                _ => String::new(),
            };
            wrong.push(format!(
                "{place}: `{first}` … is in {path} {found} times, expected once{differs}"
            ));
        }
    }
    assert!(checked >= FEWEST_RUST_FENCES, "only {checked} pieces of code found");
    assert_none(wrong, "copy these from their files, in whole lines");
}

/// Whether a fence is these lines of a file. All of them may have lost the same
/// indentation.
fn quotes(fence: &Fence, source: &[&str]) -> bool {
    let mut pairs = fence.lines.iter().zip(source).filter(|(quoted, _)| !quoted.is_empty());
    let lost = match pairs.clone().next().map(|(quoted, line)| line.strip_suffix(quoted.as_str())) {
        Some(Some(lost)) if lost.trim().is_empty() => lost,
        _ => return false,
    };
    pairs.all(|(quoted, line)| line.strip_prefix(lost) == Some(quoted))
        && fence.lines.iter().zip(source).all(|(quoted, line)| quoted.is_empty() == line.is_empty())
}

/// Where a fence stops to be what is in a file, at the place where most of it is.
fn first_difference(fence: &Fence, source: &[&str]) -> String {
    let same_from = |start: usize| {
        let pairs = fence.lines.iter().zip(&source[start..]);
        pairs.take_while(|(quoted, line)| quoted.trim() == line.trim()).count()
    };
    let same = (0..source.len()).map(same_from).max().unwrap_or(0);
    // Where all lines are there, only their indentation differs.
    let same = same.min(fence.lines.len().saturating_sub(1));
    let (page, _) = fence.place.rsplit_once(':').unwrap();
    format!(", differs first at {page}:{}", fence.line + 1 + same)
}

#[test]
fn every_fence_is_of_a_kind_that_is_checked_or_is_plain_text() {
    let fences = fences();
    let fewest = FEWEST_RUST_FENCES + FEWEST_DIALOGUES;
    assert!(fences.len() >= fewest, "only {} fences found", fences.len());
    let mut wrong = Vec::new();
    for fence in fences {
        let is_known = match fence.info.as_str() {
            "smtp" | "sh" | "text" => true,
            "sh server" | "sh interactive" | "sh other" => fence.place.starts_with("README.md:"),
            info => info.starts_with("rust,src="),
        };
        if !is_known {
            wrong.push(format!("{}: `{}`", fence.place, fence.info));
        }
    }
    assert_none(wrong, "no test looks at fences of these kinds; say `text` if none should");
}

// ---- dialogues ----

#[test]
fn every_dialogue_goes_as_printed() {
    let dialogues: Vec<Fence> = fences().into_iter().filter(|fence| fence.info == "smtp").collect();
    assert!(dialogues.len() >= FEWEST_DIALOGUES, "only {} dialogues found", dialogues.len());

    let mut wrong = Vec::new();
    for some in dialogues.chunks(AT_A_TIME) {
        thread::scope(|scope| {
            let mut players = Vec::new();
            for fence in some {
                // The name of a thread stands in the message of its panic.
                let thread = thread::Builder::new().name(fence.place.clone());
                players.push((fence, thread.spawn_scoped(scope, || play(fence)).unwrap()));
            }
            for (fence, player) in players {
                match player.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => wrong.push(why),
                    Err(_) => wrong.push(format!("{}: see the panic above", fence.place)),
                }
            }
        });
    }
    assert_none(wrong, "the server answers otherwise");
}

/// Plays one fence on a server of its own.
fn play(fence: &Fence) -> Result<(), String> {
    let place = &fence.place;
    let dialogue: Dialogue =
        fence.lines.join("\n").parse().map_err(|error| format!("{place}: {error}"))?;
    if !fence.lines.iter().any(|line| line.starts_with("S:")) {
        return Err(format!("{place}: the server says nothing here"));
    }
    let server = TestServer::with_needs(dialogue.needs());
    dialogue.play(server.address).map_err(|error| match error {
        PlayError::Differs { line, expected, found, .. } => {
            let (page, _) = place.rsplit_once(':').unwrap();
            format!("{page}:{}: expected `{expected}`, found `{found}`", fence.line + line)
        }
        PlayError::Connect(_) => format!("{place}: {error}"),
    })
}

// ---- what belongs where ----

#[test]
fn every_source_file_belongs_to_exactly_one_chapter_and_says_so() {
    let mut chapters_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for chapter in chapters() {
        let lines = code_lines(&chapter);
        for link in links(&chapter).iter().filter(|link| lines.contains(&link.line)) {
            let Ok(path) = resolve(&chapter.path, &link.target) else { continue };
            chapters_of.entry(path).or_default().push(chapter.path.clone());
        }
    }

    let sources = files_under("src", ".rs");
    assert!(sources.len() >= FEWEST_SOURCES, "only {} files in src/", sources.len());
    let mut wrong = Vec::new();
    for path in sources {
        let chapters = chapters_of.get(&path).cloned().unwrap_or_default();
        let [chapter] = chapters.as_slice() else {
            wrong.push(format!("{path}: in the **Code:** line of {chapters:?}, expected one"));
            continue;
        };
        match book_line(&path) {
            Some(named) if named != *chapter => {
                wrong.push(format!("{path}: its header names {named}, but it is in {chapter}"));
            }
            None if !WITHOUT_BOOK_LINE.iter().any(|name| path.ends_with(name)) => {
                wrong.push(format!("{path}: its header has no line `//! Book: {chapter}.`"));
            }
            Some(_) | None => {}
        }
    }
    assert_none(wrong, "each file of src/ has its chapter");
}

#[test]
fn an_example_is_spoken_of_in_the_chapter_that_its_header_names() {
    let examples = files_under("examples", ".rs");
    assert!(examples.len() >= FEWEST_EXAMPLES, "only {} examples", examples.len());
    let mut wrong = Vec::new();
    for path in examples {
        let Some(chapter) = book_line(&path) else {
            wrong.push(format!("{path}: its header has no line `//! Book: …`"));
            continue;
        };
        let name = Path::new(&path).file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(root().join(&chapter)).unwrap_or_default();
        let ways = [path.clone(), format!("--example {name}"), format!("`{name}`")];
        if !ways.iter().any(|way| text.contains(way)) {
            wrong.push(format!("{path}: {chapter} is missing or does not speak of it"));
        }
    }
    assert_none(wrong, "a reader would look for these in vain");
}

#[test]
fn every_chapter_has_the_same_parts_in_the_same_order() {
    let chapters = chapters();
    assert!(chapters.len() >= FEWEST_CHAPTERS, "only {} chapters", chapters.len());

    let mut wrong = Vec::new();
    let mut before = 0;
    for chapter in &chapters {
        let path = &chapter.path;
        // Chapters are not written in their order, so numbers may be left out.
        let digits = path.trim_start_matches("docs/").split('-').next().unwrap();
        let number = digits.parse().unwrap_or(0);
        if digits.len() != 2 || number <= before {
            wrong.push(format!("{path}: expected docs/NN-…, NN above {before:02}"));
        }
        before = number;
        if !chapter.text.starts_with(&format!("# {number}. ")) {
            wrong.push(format!("{path}:1: expected `# {number}. Title`"));
        }
        let prose = chapter.prose();
        let mut last = 0;
        for part in PARTS {
            let lines = || prose.iter().filter(|(_, line)| line.starts_with(part));
            match lines().next() {
                Some((line, _)) if *line > last && lines().count() == 1 => last = *line,
                Some((line, _)) => wrong.push(format!("{path}:{line}: `{part}` is out of order")),
                None => wrong.push(format!("{path}: no line begins with `{part}`")),
            }
        }
        let at = |part: &str| prose.iter().find(|(_, line)| line.starts_with(part));
        let first_section = at("## ").map_or(usize::MAX, |(line, _)| *line);
        for part in BEFORE_THE_FIRST_SECTION {
            if at(part).is_none_or(|(line, _)| *line > first_section) {
                wrong.push(format!("{path}: `{part}` does not stand before the first section"));
            }
        }
        let [question, invariants] =
            BEFORE_THE_FIRST_SECTION.map(|part| at(part).map(|(line, _)| *line));
        if question > invariants {
            wrong.push(format!("{path}: the invariants stand before the question"));
        }
    }
    assert_none(wrong, "a chapter looks like every other");
}

#[test]
fn the_summary_lists_every_chapter_once_and_in_order() {
    let summary = Page::read("docs/SUMMARY.md");
    let mut listed: Vec<String> = links(&summary)
        .iter()
        .map(|link| resolve(&summary.path, &link.target).unwrap_or_else(|why| panic!("{why}")))
        .collect();
    let mut expected = vec!["docs/README.md".to_owned()];
    expected.extend(chapters().into_iter().map(|chapter| chapter.path));
    assert!(expected.len() > FEWEST_CHAPTERS, "only {} pages", expected.len());
    // What is neither may be listed or not.
    listed.retain(|path| expected[0] == *path || is_chapter(path));
    assert_eq!(listed, expected, "left: docs/SUMMARY.md; right: the chapters there are");
}

// ---- links and names ----

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for link in links(&page) {
            checked += 1;
            if let Err(why) = follow(&page, &link) {
                wrong.push(format!("{}:{}: {why}", page.path, link.line));
            }
        }
    }
    assert!(checked >= FEWEST_LINKS, "only {checked} links found");
    assert_none(wrong, "these links are dead");
}

/// Goes where a link leads.
fn follow(page: &Page, link: &Link) -> Result<(), String> {
    let path = resolve(&page.path, &link.target)?;
    if let Some((_, anchor)) = link.target.split_once('#') {
        if !path.ends_with(".md") {
            return Err(format!("{path} has no headings to link to"));
        }
        if !anchors(&Page::read(&path)).contains(anchor) {
            return Err(format!("no heading of {path} has the anchor #{anchor}"));
        }
    }
    // A text such as `src/main.rs` promises that file; a folder promises less.
    let promised = link.text.trim_matches('`');
    let is_promise = link.text.starts_with('`') && is_file_name(promised);
    match is_promise && !promised.ends_with('/') && promised != path {
        true => Err(format!("the link says {promised} and leads to {path}")),
        false => Ok(()),
    }
}

#[test]
fn every_chapter_links_a_term_of_the_glossary_where_it_first_stands() {
    let glossary = Page::read("docs/glossary.md");
    let prose = glossary.prose();
    let terms: Vec<&str> = prose.iter().filter_map(|(_, line)| line.strip_prefix("### ")).collect();
    assert!(terms.len() >= FEWEST_TERMS, "only {} terms found", terms.len());
    assert!(terms.windows(2).all(|two| two[0].to_lowercase() < two[1].to_lowercase()));
    let mut wrong = Vec::new();
    let mut checked = 0;
    for chapter in chapters() {
        let text = before_the_exercises(&chapter);
        let without_links = blank(&text, '[', ']');
        for term in &terms {
            let is_other = NO_TERMS.contains(&(&chapter.path[5..7], term));
            let at = find_word(&without_links, term).filter(|_| !is_other);
            // Another form of it may have been linked before, such as its plural.
            let target = format!("]: glossary.md#{}", term.to_lowercase().replace(' ', "-"));
            let forms = chapter.text.lines().filter_map(|line| {
                line.strip_suffix(&target)?.strip_prefix('[').map(|form| format!("[{form}]"))
            });
            let linked = forms.filter_map(|form| text.find(&form)).min();
            checked += usize::from(linked.is_some());
            if at.is_some_and(|at| linked.is_none_or(|linked| linked > at)) {
                wrong.push(format!("{}: {term}", chapter.path));
            }
        }
    }
    assert!(checked >= FEWEST_LINKED_TERMS, "only {checked} terms found in chapters");
    assert_none(
        wrong,
        "write `[term]` where it first stands, and `[term]: glossary.md#term` below",
    );
}

/// The words of a chapter, without code, headings, tables and what stands in other links.
fn before_the_exercises(chapter: &Page) -> String {
    let code = code_lines(chapter);
    let lines = chapter.prose().into_iter().take_while(|(_, line)| *line != "## Exercises");
    let mut text: String = lines
        .filter(|(number, line)| !code.contains(number) && !line.starts_with(['#', '<', '|']))
        .map(|(_, line)| without_code(line) + "\n")
        .collect();
    // `[text](page.md)`
    while let Some(at) = text.find("](") {
        let begin = text[..at].rfind('[').unwrap_or(at);
        let end = text[at..].find(')').map_or(text.len(), |end| at + end + 1);
        text.replace_range(begin..end, "");
    }
    text
}

/// A text with blanks in the place of what stands between two marks.
fn blank(text: &str, from: char, to: char) -> String {
    let mut is_between = false;
    let mut masked = String::new();
    for c in text.chars() {
        is_between |= c == from;
        // Every octet stays where it was.
        masked += &if is_between { " ".repeat(c.len_utf8()) } else { c.to_string() };
        is_between &= c != to;
    }
    masked
}

/// Where a text has a word, and not only as a part of another one.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || "-_./:".contains(c);
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let after = &text[at + word.len()..];
        let ends = !after.starts_with(|c: char| c.is_alphanumeric() || "-_:".contains(c));
        let has_more = after.starts_with('.') && after[1..].starts_with(char::is_alphanumeric);
        !text[..*at].ends_with(is_part) && ends && !has_more
    })
}

#[test]
fn every_file_that_the_book_names_exists() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for (line, text) in page.prose() {
            for name in text.split('`').skip(1).step_by(2).filter(|name| is_file_name(name)) {
                checked += 1;
                if let Err(why) = look_up(name) {
                    wrong.push(format!("{}:{line}: {why}", page.path));
                }
            }
        }
        for (index, line) in page.text.lines().enumerate() {
            for (flag, folder) in [("--test ", "tests"), ("--example ", "examples")] {
                for after in line.split(flag).skip(1) {
                    let end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
                    let name = after.split(end).next().unwrap();
                    let paths = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/main.rs")];
                    if !name.is_empty() && !paths.iter().any(|path| root().join(path).is_file()) {
                        wrong.push(format!("{}:{}: there is no {name}", page.path, index + 1));
                    }
                }
            }
        }
    }
    assert!(checked >= FEWEST_NAMED_FILES, "only {checked} names found");
    assert_none(wrong, "these names are wrong");
}

#[test]
fn every_page_that_the_code_names_exists() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in [files_under("src", ".rs"), files_under("examples", ".rs")].concat() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for (index, line) in text.lines().enumerate() {
            for after in line.split("docs/").skip(1) {
                let end = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
                let page = after.split(end).next().unwrap().trim_end_matches('.');
                checked += 1;
                if !root().join("docs").join(page).exists() {
                    wrong.push(format!("{path}:{}: there is no docs/{page}", index + 1));
                }
            }
        }
    }
    assert!(checked >= FEWEST_SOURCES, "only {checked} pages named");
    assert_none(wrong, "the code sends its reader to pages that do not exist");
}

/// Where names begin that promise a file of this project.
const FOLDERS: [&str; 4] = ["src/", "tests/", "examples/", "docs/"];

/// `tests/book.rs`, but not `tests/*.rs` and not `src/…`.
fn is_file_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    FOLDERS.iter().any(|folder| name.starts_with(folder)) && name.chars().all(is_plain)
}

/// Finds `tests/book.rs`, `tests/dialogues/`, or `tests/book.rs::a_test`.
fn look_up(name: &str) -> Result<(), String> {
    let (path, function) = name.split_once("::").unwrap_or((name, ""));
    if !root().join(path).exists() {
        return Err(format!("there is no {path}"));
    }
    let function = function.rsplit("::").next().unwrap();
    let text = || fs::read_to_string(root().join(path)).unwrap_or_default();
    match function.is_empty() || text().contains(&format!("fn {function}(")) {
        true => Ok(()),
        false => Err(format!("there is no fn {function} in {path}")),
    }
}

// ---- commands and extensions ----

/// Commands that HELP need not list: EXPN is never granted, and GET is none of ours.
const NOT_IN_HELP: [&str; 2] = ["EXPN", "GET"];
/// Commands that bring a letter on its way, or end the session: patience does not count
/// them. (`BDAT 0` is counted, and has its test in `src/smtp/session/transaction.rs`.)
const NO_ERRANDS: [&str; 8] = ["MAIL", "RCPT", "DATA", "BDAT", "STARTTLS", "AUTH", "QUIT", "GET"];
/// Keywords with a chapter of their own, instead of a section in chapter 9.
const WITH_A_CHAPTER: [&str; 2] = ["STARTTLS", "AUTH"];

/// The compiler asks for a new command in every state. What it cannot ask for is here.
#[test]
fn every_command_has_a_row_in_the_state_table_a_line_in_help_and_a_dialogue() {
    let verbs = verbs();
    assert!(verbs.len() >= FEWEST_COMMANDS, "only {} commands", verbs.len());
    let table = states::table();
    let help = reply::help().lines().join("\n");
    let dialogues: Vec<String> = files_under("tests/dialogues", ".smtp")
        .iter()
        .map(|path| fs::read_to_string(root().join(path)).unwrap().to_ascii_uppercase())
        .collect();
    let mut wrong = Vec::new();
    for verb in verbs {
        let is_said = |line: &str| {
            let said = line.strip_prefix("C: ").or(line.strip_prefix("R: "));
            said.is_some_and(|said| begins_with_word(said, &verb))
        };
        if !table.lines().any(|row| begins_with_word(row.trim_start_matches("| `"), &verb)) {
            wrong.push(format!("{verb}: no row in the table, see rows() in examples/states.rs"));
        }
        let is_listed = help.split_whitespace().any(|word| begins_with_word(word, &verb));
        if is_listed == NOT_IN_HELP.contains(&verb.as_str()) {
            wrong.push(format!("{verb}: see help() in src/smtp/reply/ours.rs"));
        }
        if !dialogues.iter().any(|dialogue| dialogue.lines().any(is_said)) {
            wrong.push(format!("{verb}: nobody says it in tests/dialogues"));
        }
    }
    assert_none(wrong, "these commands are not quite there");
}

/// The compiler asks whether a new command is an errand, and takes any answer. Here the
/// answer has to be given a second time, as a row or as a name in a list.
#[test]
fn every_command_that_is_an_errand_has_a_row_in_the_table_of_patience() {
    let verbs = verbs();
    assert!(verbs.len() >= FEWEST_COMMANDS, "only {} commands", verbs.len());
    let (table, patience) = (states::table(), states::patience());
    let mut wrong = Vec::new();
    for verb in verbs {
        let is_none = NO_ERRANDS.contains(&verb.as_str());
        let has_row = patience
            .lines()
            .filter_map(|row| row.strip_prefix("| says `")?.split_once("` | "))
            .any(|(line, _)| begins_with_word(line, &verb));
        if has_row == is_none {
            wrong.push(format!(
                "{verb}: either a row, see patience() in examples/states.rs, or one of NO_ERRANDS"
            ));
        }
        // The lines of the state table that are this command.
        let commands: Vec<Command> = table
            .lines()
            .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
            .filter(|line| begins_with_word(line, &verb))
            .filter_map(|line| Command::parse(line.as_bytes()).ok())
            .collect();
        if commands.is_empty() || commands.iter().any(|command| is_errand(command) == is_none) {
            wrong.push(format!("{verb}: see is_errand() in src/smtp/session/patience.rs"));
        }
    }
    assert_none(wrong, "what does patience count?");
}

/// The verb of each variant of `Command`, which its comment begins with.
fn verbs() -> Vec<String> {
    let path = "src/smtp/command.rs";
    let source = fs::read_to_string(root().join(path)).unwrap();
    let (_, rest) = source.split_once("pub enum Command {\n").expect("the enum is there");
    let (variants, _) = rest.split_once("\n}\n").expect("it has an end");
    let mut verbs = Vec::new();
    let mut verb: Option<String> = None;
    for line in variants.lines().filter_map(|line| line.strip_prefix("    ")) {
        if let Some(comment) = line.strip_prefix("/// ") {
            let word = comment.strip_prefix('`').and_then(|text| text.split([' ', '`']).next());
            verb = verb.or(word.map(str::to_owned));
        } else if line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let verb = verb.take();
            verbs.push(verb.unwrap_or_else(|| panic!("{path}: {line} begins with no `VERB`")));
        }
    }
    verbs
}

/// Whether `text` begins with `word`, and not with a longer one.
fn begins_with_word(text: &str, word: &str) -> bool {
    let rest = text.strip_prefix(word);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[test]
fn every_keyword_that_ehlo_announces_has_its_section() {
    let page = Page::read("docs/09-extensions.md");
    let site = Site::new("localhost", "localhost", &[], None);
    let ours = Ipv4Addr::LOCALHOST.into();
    let mut session = Session::new(Arc::new(site), Role::Smtp, ours, String::new);
    let reply = session.line(b"EHLO c").reply.unwrap();
    let keywords = reply.lines().iter().skip(1).map(|line| line.split(' ').next().unwrap());
    let keywords: Vec<&str> = keywords.chain(WITH_A_CHAPTER).collect();
    assert!(keywords.len() >= FEWEST_KEYWORDS, "only {keywords:?}");
    let has_section = |word: &str| page.text.contains(&format!("\n## {word}\n"));
    let wrong =
        keywords.into_iter().filter(|word| has_section(word) == WITH_A_CHAPTER.contains(word));
    assert_none(wrong.map(str::to_owned).collect(), "chapter 9 says nothing of these");
}

// ---- what the program prints ----

#[test]
fn the_state_table_is_what_the_state_machine_says() {
    let chapter = Page::read("docs/05-state-machine.md");
    let printed = chapter.text.split_once("<!-- states -->").and_then(|(_, rest)| {
        let (table, _) = rest.split_once("<!-- /states -->")?;
        Some(table.trim())
    });
    let printed = printed.expect("chapter 5 has the lines <!-- states --> and <!-- /states -->");
    let expected = states::table();
    assert!(expected.lines().count() > 20, "a table of {} lines", expected.lines().count());
    let differs = printed.lines().zip(expected.lines()).find(|(book, machine)| book != machine);
    assert!(
        printed == expected.trim(),
        "chapter 5 differs from the state machine: {differs:?}\n\
         put what this prints between its two marks: cargo run --example states"
    );
}

#[test]
fn the_table_of_patience_is_what_the_state_machine_says() {
    let chapter = Page::read("docs/05-state-machine.md");
    let printed = chapter.text.split_once("<!-- patience -->").and_then(|(_, rest)| {
        let (table, _) = rest.split_once("<!-- /patience -->")?;
        Some(table.trim())
    });
    let printed =
        printed.expect("chapter 5 has the lines <!-- patience --> and <!-- /patience -->");
    let expected = states::patience();
    assert!(expected.lines().count() > 10, "a table of {} lines", expected.lines().count());
    assert_eq!(
        printed,
        expected.trim(),
        "left: chapter 5; put what this prints between its two marks: \
         cargo run --example states -- --patience"
    );
}

#[test]
fn the_state_drawing_is_what_the_state_machine_says() {
    let drawing = fs::read_to_string(root().join("docs/states.svg")).unwrap_or_default();
    let expected = states::svg();
    assert!(expected.matches("marker-end").count() >= 9, "too few arrows");
    assert!(
        drawing == expected,
        "docs/states.svg is missing or old, this makes it anew:\n\
         cargo run --example states -- --svg > docs/states.svg"
    );
}

#[test]
fn the_retry_table_and_its_drawing_are_what_the_arithmetic_says() {
    let chapter = Page::read("docs/14-the-queue.md");
    let printed = chapter.text.split_once("<!-- retry -->").and_then(|(_, rest)| {
        let (table, _) = rest.split_once("<!-- /retry -->")?;
        Some(table.trim())
    });
    let printed = printed.expect("chapter 14 has the lines <!-- retry --> and <!-- /retry -->");
    let Config { retry, give_up, .. } = Config::default();
    let ages = retry::ages(retry, give_up);
    assert!(ages.len() > 20, "only {} attempts", ages.len());
    assert_eq!(
        printed,
        retry::table(&ages).trim(),
        "left: chapter 14; put what this prints between its two marks: cargo run --example retry"
    );
    let drawing = fs::read_to_string(root().join("docs/retry.svg")).unwrap_or_default();
    assert!(
        drawing == retry::svg(&ages).unwrap(),
        "docs/retry.svg is missing or old, this makes it anew:\n\
         cargo run --example retry -- --svg > docs/retry.svg"
    );
}

// ---- the pages ----

/// A link inside the project.
struct Link {
    /// Where it stands, from 1.
    line: usize,
    /// What is shown, between the brackets.
    text: String,
    /// Where it leads, with its `#anchor`.
    target: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and all of docs/.
fn pages() -> Vec<Page> {
    let mut pages = vec![Page::read("README.md")];
    pages.extend(files_under("docs", ".md").iter().map(|path| Page::read(path)));
    pages
}

/// The chapters, in order.
fn chapters() -> Vec<Page> {
    let mut paths = files_under("docs", ".md");
    paths.retain(|path| is_chapter(path));
    paths.iter().map(|path| Page::read(path)).collect()
}

/// Chapters are the pages whose names begin with a number.
fn is_chapter(path: &str) -> bool {
    path.trim_start_matches("docs/").starts_with(|c: char| c.is_ascii_digit())
}

fn fences() -> Vec<Fence> {
    pages().iter().flat_map(Page::fences).collect()
}

/// The files in a folder and below, as paths from the root, sorted.
fn files_under(folder: &str, extension: &str) -> Vec<String> {
    let mut files = Vec::new();
    for path in common::files(&root().join(folder)) {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(files_under(&name, extension));
        } else if name.ends_with(extension) {
            files.push(name);
        }
    }
    files
}

/// The page that the `//! Book:` line of a file names.
fn book_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let named = text.lines().find_map(|line| line.strip_prefix("//! Book: "))?;
    Some(named.trim_end_matches('.').to_owned())
}

/// The numbers of the lines in which a chapter says which files are its own.
/// Where they begin with `none`, the files after it belong to other chapters.
fn code_lines(chapter: &Page) -> BTreeSet<usize> {
    let prose = chapter.prose();
    let begin = prose.iter().skip_while(|(_, line)| !line.starts_with("**Code:**"));
    let is_over = |line: &str| {
        line.starts_with("**Code:** none")
            || (line.starts_with("**") && !line.starts_with("**Code:**"))
    };
    begin.take_while(|(_, line)| !is_over(line)).map(|(number, _)| *number).collect()
}

/// All links of a page that stay in the project.
fn links(page: &Page) -> Vec<Link> {
    let mut links = Vec::new();
    for (line, shown) in page.prose() {
        let masked = without_code(shown);
        let mut add = |text: &str, target: &str| {
            // `(page.md "a title")`
            let target = target.split_whitespace().next().unwrap_or_default().to_owned();
            let is_elsewhere =
                ["http:", "https:", "mailto:"].iter().any(|it| target.starts_with(it));
            if !is_elsewhere {
                links.push(Link { line, text: text.to_owned(), target });
            }
        };
        for (at, _) in masked.match_indices("](") {
            let begin = masked[..at].rfind('[').map_or(0, |bracket| bracket + 1);
            let end = masked[at..].find(')').map_or(masked.len(), |bracket| at + bracket);
            add(&shown[begin..at], &shown[at + 2..end]);
        }
        // `[name]: page.md`
        if let Some((name, target)) = masked.split_once("]: ").filter(|_| masked.starts_with('[')) {
            add(name, target);
        }
        for attribute in ["src=\"", "href=\""] {
            for after in masked.split(attribute).skip(1) {
                add("", after.split('"').next().unwrap_or_default());
            }
        }
    }
    links
}

/// A line with blanks in the place of `code`, every octet where it was.
fn without_code(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    let mut masked = String::new();
    for (index, part) in parts.iter().enumerate() {
        // The last part follows a backtick that nothing closes.
        let is_code = index % 2 == 1 && index + 1 < parts.len();
        masked += &if is_code { " ".repeat(part.len()) } else { (*part).to_owned() };
        masked.push(' ');
    }
    masked
}

/// The file a link leads to, from the root of the project.
fn resolve(page: &str, target: &str) -> Result<String, String> {
    let (path, _) = target.split_once('#').unwrap_or((target, ""));
    if path.is_empty() && target.starts_with('#') {
        return Ok(page.to_owned());
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| format!("{target} leads out of the project"))?;
            }
            _ => parts.push(part),
        }
    }
    let resolved = parts.join("/");
    match path.is_empty() || path.starts_with('/') || !root().join(&resolved).exists() {
        true => Err(format!("{target} leads nowhere")),
        false => Ok(resolved),
    }
}

/// The anchors of a page, as forges make them from its headings: lower case,
/// blanks become dashes, punctuation goes; a second one of a name gets `-1`.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (_, line) in page.prose() {
        let heading = line.trim_start_matches('#');
        let is_heading =
            (1..=6).contains(&(line.len() - heading.len())) && heading.starts_with(' ');
        if is_heading {
            let anchor: String = without_targets(heading.trim())
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let count = seen.entry(anchor.clone()).or_default();
            anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
            *count += 1;
        }
        for after in line.split("<a id=\"").skip(1) {
            anchors.extend(after.split('"').next().map(str::to_owned));
        }
    }
    anchors
}

/// `[text](target)` as `text`.
fn without_targets(heading: &str) -> String {
    let mut parts = heading.split("](");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text += part.split_once(')').map_or(part, |(_, after)| after);
    }
    text
}

/// Fails with one line for each thing that is wrong.
fn assert_none(wrong: Vec<String>, what: &str) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}
