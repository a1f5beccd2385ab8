//! Holds the exercises to one form: a heading in a chapter, a test, a patch and a page each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::markdown::Page;

/// Fewer were not all of them.
const FEWEST: usize = 29;

/// What every exercise has in its chapter, after its heading.
const PARTS: [&str; 4] = [
    "Files: `",
    "You are done when `cargo test exercise_",
    "<details><summary>Hint</summary>",
    "</details>",
];

#[test]
fn every_exercise_has_a_test_a_patch_and_a_page_of_reasons() {
    let exercises = exercises();
    assert!(exercises.len() >= FEWEST, "only {} exercises found", exercises.len());
    let solutions = folder("docs/solutions");
    let files = folder("tests/exercises");
    let tests: String = files
        .iter()
        .filter(|name| name.ends_with(".rs"))
        .map(|name| fs::read_to_string(root().join("tests/exercises").join(name)).unwrap())
        .collect();
    let mut wrong = Vec::new();
    for (id, text) in &exercises {
        let (name, ignored) = (
            id.replace('.', "_"),
            format!("#[ignore = \"exercise {id}\"]\nfn exercise_{}", id.replace('.', "_")),
        );
        let promise = format!("You are done when `cargo test exercise_{name} -- --ignored` passes");
        let mut missing: Vec<&str> =
            PARTS.iter().copied().filter(|part| !text.contains(part)).collect();
        if !text.contains(&promise) {
            missing.push(&promise);
        }
        if !tests.contains(&ignored) {
            missing.push(&ignored);
        }
        for file in [format!("{id}.patch"), format!("{id}.md")] {
            if !solutions.contains(&file) {
                wrong.push(format!("{id}: docs/solutions/{file} is missing"));
            }
        }
        wrong.extend(missing.iter().map(|what| format!("{id}: {what} is missing")));
    }
    // And nothing that belongs to no exercise.
    for file in &solutions {
        let id = file.trim_end_matches(".patch").trim_end_matches(".md");
        if !exercises.contains_key(id) {
            wrong.push(format!("docs/solutions/{file} belongs to no exercise"));
        }
    }
    let count = tests.matches("#[ignore = \"exercise ").count();
    let named = exercises.keys().filter(|id| tests.contains(&format!("\"exercise {id}\""))).count();
    assert!(
        count >= named && named == exercises.len(),
        "{count} tests, {named} exercises with one"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What was an exercise once may be a question now.
#[test]
fn every_exercise_that_a_page_mentions_is_there() {
    let exercises = exercises();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for file in folder("docs").iter().filter(|name| name.ends_with(".md")) {
        for (number, line) in (1..).zip(Page::read(&format!("docs/{file}")).text.lines()) {
            for (_, after) in
                line.match_indices("xercise ").map(|(at, word)| line.split_at(at + word.len()))
            {
                let id = after.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap();
                let id = id.trim_end_matches('.');
                if id.contains('.') {
                    checked += 1;
                    if !exercises.contains_key(id) {
                        wrong.push(format!("docs/{file}:{number}: there is no exercise {id}"));
                    }
                }
            }
        }
    }
    assert!(checked > 0, "nothing was looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The text of each exercise by its number, such as `5.2`.
fn exercises() -> BTreeMap<String, String> {
    let mut exercises = BTreeMap::new();
    for file in folder("docs").iter().filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
    {
        let page = Page::read(&format!("docs/{file}"));
        let chapter = file[..2].parse::<u32>().unwrap();
        let after = page.text.split("\n## Exercises\n").nth(1).unwrap_or_default();
        let section = after.split("\n## ").next().unwrap();
        for part in section.split("\n### ").skip(1) {
            let heading = part.lines().next().unwrap();
            let Some((id, rest)) =
                heading.split_once(' ').filter(|(_, rest)| rest.starts_with('★'))
            else {
                continue;
            };
            assert!(id.starts_with(&format!("{chapter}.")), "{file}: {heading}");
            let stars = rest.chars().take_while(|c| *c == '★').count();
            assert!((1..=4).contains(&stars) && rest.ends_with([')']), "{file}: {heading}");
            assert!(exercises.insert(id.to_owned(), part.to_owned()).is_none(), "{id} twice");
        }
    }
    exercises
}

/// The names of the files in a folder of the project.
fn folder(path: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(path)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
