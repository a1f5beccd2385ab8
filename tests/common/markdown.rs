//! The little of Markdown that the guards of the book have to understand.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

use std::fs;
use std::path::Path;

/// One Markdown file.
pub struct Page {
    /// From the root of the project, such as `docs/03-replies.md`.
    pub path: String,
    pub text: String,
}

/// One fenced block.
pub struct Fence {
    /// Such as `docs/03-replies.md:40`: where it opens.
    pub place: String,
    /// The number of its opening line, from 1.
    pub line: usize,
    /// What stands behind the three backticks.
    pub info: String,
    /// The lines between, without the indentation of the fence itself.
    pub lines: Vec<String>,
}

impl Page {
    /// Reads a page of this project.
    pub fn read(path: &str) -> Page {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        Page { path: path.to_owned(), text }
    }

    /// Its fences, in order. One that is never closed is a mistake.
    pub fn fences(&self) -> Vec<Fence> {
        self.split().0
    }

    /// Its lines outside fences, with their numbers from 1.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        self.split().1
    }

    fn split(&self) -> (Vec<Fence>, Vec<(usize, &str)>) {
        let (mut fences, mut prose) = (Vec::new(), Vec::new());
        let mut lines = self.text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let unindented = line.trim_start();
            let ticks = unindented.chars().take_while(|c| *c == '`').count();
            if ticks < 3 {
                prose.push((index + 1, line));
                continue;
            }
            let indent = line.len() - unindented.len();
            let place = format!("{}:{}", self.path, index + 1);
            let mut inside = Vec::new();
            loop {
                let (_, line) =
                    lines.next().unwrap_or_else(|| panic!("{place}: this fence is never closed"));
                if line.trim() == "`".repeat(ticks) {
                    break;
                }
                let blanks = line.len() - line.trim_start_matches(' ').len();
                inside.push(line[indent.min(blanks)..].to_owned());
            }
            let info = unindented[ticks..].trim().to_owned();
            fences.push(Fence { place, line: index + 1, info, lines: inside });
        }
        (fences, prose)
    }
}
