//! What a script says, line by line.
//!
//! In: the text of a script, as `dialogue/mod.rs` describes it. Out: a
//! [`Dialogue`]: its level, what it needs, and its steps; or the first line that
//! is none. Who plays the steps, and against what, is of no concern here.
//!
//! Book: docs/03-replies.md.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use crate::smtp::auth::mechanism::Mechanism;

/// How a script spells that the server closes the connection.
pub(super) const CLOSED: &str = "[closed]";

/// The most octets that one `{text*N}` stands for.
const REPEATED_LIMIT: usize = 16 * 1024 * 1024;

/// A script, ready to be played as often as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialogue {
    level: Option<u8>,
    needs: Vec<String>,
    steps: Vec<Step>,
}

/// One line of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Its place in the script, from 1.
    pub line: usize,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// `C:` and `R:`
    Send(Vec<u8>),
    /// `C: [tls]`
    StartTls,
    /// `A: mechanism user password`
    LogIn(Mechanism, String, String),
    /// `S: pattern`
    Expect(Answer),
    /// `S: ...`
    Skip,
    /// `S: [closed]`
    ExpectClose(Answer),
}

/// What `S:` wants to hear, and what `or:` takes as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub pattern: String,
    /// Patterns of codes, or `[closed]`.
    pub others: Vec<String>,
}

/// A script that cannot be read: the line, from 1, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    line: usize,
    why: &'static str,
}

impl Dialogue {
    /// How much a server has to know for this one: 1 it talks, 2 order, 3 forms, 4 bytes,
    /// 5 beyond. A script need not say.
    pub fn level(&self) -> Option<u8> {
        self.level
    }

    /// The texts behind `needs:`, in order.
    pub fn needs(&self) -> &[String] {
        &self.needs
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What a `#` line says beside words for people.
    fn comment(&mut self, text: &str) -> Result<(), &'static str> {
        if let Some(level) = text.strip_prefix("# level: ") {
            let level = level.parse().ok().filter(|level| (1..=5).contains(level));
            self.level = Some(level.ok_or("a level is one of 1 to 5")?);
        }
        Ok(())
    }

    /// `or:` belongs to the `S:` line before it.
    fn also_take(&mut self, text: &str) -> Result<(), &'static str> {
        match self.steps.last_mut().map(|step| &mut step.action) {
            Some(Action::Expect(answer) | Action::ExpectClose(answer)) => {
                answer.others.extend(text.split_whitespace().map(str::to_owned));
                Ok(())
            }
            _ => Err("or: stands behind S:"),
        }
    }
}

impl FromStr for Dialogue {
    type Err = ScriptError;

    fn from_str(script: &str) -> Result<Dialogue, ScriptError> {
        let mut dialogue = Dialogue { level: None, needs: Vec::new(), steps: Vec::new() };
        for (number, text) in script.lines().enumerate() {
            let line = number + 1;
            let wrong = |why| ScriptError { line, why };
            if text.is_empty() || text.starts_with('#') {
                dialogue.comment(text).map_err(wrong)?;
                continue;
            }
            let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            match kind {
                "needs" => dialogue.needs.push(rest.to_owned()),
                "or" => dialogue.also_take(rest).map_err(wrong)?,
                _ => {
                    let action = action(kind, rest).map_err(wrong)?;
                    dialogue.steps.push(Step { line, action });
                }
            }
        }
        Ok(dialogue)
    }
}

/// What a line of one speaker asks for.
fn action(kind: &str, rest: &str) -> Result<Action, &'static str> {
    let answer = |pattern: &str| Answer { pattern: pattern.to_owned(), others: Vec::new() };
    Ok(match kind {
        "C" if rest == "[tls]" => Action::StartTls,
        "C" => Action::Send([rest.as_bytes(), b"\r\n"].concat()),
        "R" => Action::Send(raw(rest)?),
        "A" => log_in(rest)?,
        "S" if rest == CLOSED => Action::ExpectClose(answer(rest)),
        "S" if rest == "..." => Action::Skip,
        "S" => Action::Expect(answer(rest)),
        _ => return Err("expected C:, R:, A:, S:, or:, needs: or #"),
    })
}

/// What an `A:` line says.
fn log_in(text: &str) -> Result<Action, &'static str> {
    let mut words = text.splitn(3, ' ');
    let mechanism = words.next().and_then(Mechanism::parse);
    match (mechanism, words.next(), words.next()) {
        (Some(mechanism), Some(user), Some(password)) => {
            Ok(Action::LogIn(mechanism, user.to_owned(), password.to_owned()))
        }
        _ => Err("expected A: mechanism user password"),
    }
}

/// The octets that an `R:` line stands for.
fn raw(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '\\' => rest = escape(rest, &mut octets)?,
            '{' => {
                let (inside, after) = rest.split_once('}').ok_or("{ without }")?;
                let (repeated, times) = inside.rsplit_once('*').ok_or("expected {text*N}")?;
                let times: usize = times.parse().map_err(|_| "expected a number after *")?;
                let repeated = raw(repeated)?;
                let length = repeated.len().checked_mul(times);
                length
                    .filter(|length| *length <= REPEATED_LIMIT)
                    .ok_or("{text*N} stands for 16777216 octets at most")?;
                octets.extend(repeated.repeat(times));
                rest = after;
            }
            _ => octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(octets)
}

/// Reads what follows a backslash, and gives what follows that.
fn escape<'a>(text: &'a str, octets: &mut Vec<u8>) -> Result<&'a str, &'static str> {
    const WRONG: &str = "expected \\r, \\n, \\t, \\\\, \\{ or \\xNN";
    let (c, rest) = text.split_at_checked(1).ok_or(WRONG)?;
    octets.push(match c {
        "r" => b'\r',
        "n" => b'\n',
        "t" => b'\t',
        "\\" => b'\\',
        "{" => b'{',
        "x" => {
            let (digits, rest) = rest.split_at_checked(2).ok_or(WRONG)?;
            octets.push(u8::from_str_radix(digits, 16).map_err(|_| WRONG)?);
            return Ok(rest);
        }
        _ => return Err(WRONG),
    });
    Ok(rest)
}

/// A line that the client sent, as a script has it: `C:` if it is printable and ends in CR LF,
/// or else `R:`, where each octet can be seen.
pub(super) fn client_line(octets: &[u8]) -> String {
    let text = octets.strip_suffix(b"\r\n").filter(|text| text.iter().all(is_printable));
    match text {
        Some(text) => format!("C: {}", String::from_utf8_lossy(text)),
        None => format!("R: {}", spelled(octets)),
    }
}

/// What `raw` makes into these octets.
fn spelled(octets: &[u8]) -> String {
    let mut text = String::new();
    for octet in octets {
        match octet {
            b'\r' => text += "\\r",
            b'\n' => text += "\\n",
            b'\\' | b'{' => text.extend(['\\', char::from(*octet)]),
            octet if is_printable(octet) => text.push(char::from(*octet)),
            octet => text += &format!("\\x{octet:02x}"),
        }
    }
    text
}

fn is_printable(octet: &u8) -> bool {
    (b' '..=b'~').contains(octet)
}

impl Display for ScriptError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "line {} of the script: {}", self.line, self.why)
    }
}

impl std::error::Error for ScriptError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_lines_are_octets() {
        assert_eq!(raw("a\\r\\n\\x00\\{{ab*2}{\\x2e*3}").unwrap(), b"a\r\n\0{abab...");
        for wrong in ["\\", "\\q", "\\x0", "\\x\u{fc}", "{a", "{a}", "{a*b}"] {
            assert!(raw(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_octet_is_spelled_so_that_it_is_read_again() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(raw(&spelled(&all)).unwrap(), all);
        assert_eq!(client_line(b"NOOP {a\\\r\n"), "C: NOOP {a\\");
        assert_eq!(client_line(b"NOOP {\\\n"), "R: NOOP \\{\\\\\\n");
        assert_eq!(client_line(b"NO"), "R: NO");
    }

    #[test]
    fn what_is_no_line_of_a_script_is_an_error_and_its_place_is_told() {
        for (script, message) in [
            ("S: 220 *\nQUIT", "line 2 of the script: expected C:, R:, A:, S:, or:, needs: or #"),
            ("# level: 6", "line 1 of the script: a level is one of 1 to 5"),
            (
                "R: {x*16777217}",
                "line 1 of the script: {text*N} stands for 16777216 octets at most",
            ),
            (
                "R: {xxx*9999999999999999999}",
                "line 1 of the script: {text*N} stands for 16777216 octets at most",
            ),
            ("C: NOOP\nor: 250", "line 2 of the script: or: stands behind S:"),
            ("S: ...\nor: 250", "line 2 of the script: or: stands behind S:"),
        ] {
            assert_eq!(script.parse::<Dialogue>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn level_and_needs_are_handed_on() {
        let script = "# level: 3\nneeds: --max-size 9\nneeds: mailboxes ann\n";
        let dialogue: Dialogue = script.parse().unwrap();
        assert_eq!(dialogue.level(), Some(3));
        assert_eq!(dialogue.needs(), ["--max-size 9", "mailboxes ann"]);
    }
}
