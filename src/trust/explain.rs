//! The way to a verdict, told step by step.
//!
//! In: what a check found, as it finds it. Out: lines for a person
//! (`examples/trust.rs`), or nothing: a server only wants the verdict, and then no
//! line is even made.
//!
//! Book: docs/16-trust.md.

/// What was found so far, if somebody wants to know.
#[derive(Debug, Default)]
pub struct Steps {
    lines: Option<Vec<String>>,
}

impl Steps {
    /// For nobody: keeps nothing.
    pub fn silent() -> Steps {
        Steps::default()
    }

    /// Keeps each line.
    pub fn told() -> Steps {
        Steps { lines: Some(Vec::new()) }
    }

    /// The next step, made only if it is kept. A text of others in it has to be made
    /// printable first.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }

    /// What was kept, in order.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
