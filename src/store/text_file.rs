//! Files that people write: users and aliases, line by line.
//!
//! In: the octets of a file, from whatever editor. Out: the lines that count, with
//! their numbers, or the line that is no UTF-8. Empty lines and lines that begin with
//! `#` do not count; a mark of the byte order at the start, as some editors put it
//! there, and CR LF do not matter.
//!
//! Left to others: what a line says (`users.rs`, `aliases.rs`), and reading the file.
//!
//! Book: docs/11-auth.md.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str;

/// Text to an editor, and no part of the first name to us.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The bits of a file's mode that let everybody read or write it.
const OTHERS: u32 = 0o006;

/// What is wrong with a users or aliases file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The line, counted from 1.
    pub line: usize,
    /// What was expected there.
    pub why: String,
}

/// The lines that count, with their numbers, without LF or CR LF.
pub fn entries(file: &[u8]) -> Result<Vec<(usize, &str)>, FileError> {
    // The line itself is not shown: it may hold a password.
    let text = str::from_utf8(file).map_err(|error| FileError {
        line: 1 + file.iter().take(error.valid_up_to()).filter(|octet| **octet == b'\n').count(),
        why: "expected UTF-8; this may be Latin-1, or UTF-16".to_owned(),
    })?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let lines = (1..).zip(text.strip_suffix('\r').unwrap_or(text).lines());
    Ok(lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')).collect())
}

/// Logs a warning if everybody on this machine can read, or even change, a file
/// that holds secrets. Its group may: that is how two servers share it.
pub fn warn_if_readable_by_others(path: &Path) {
    if is_open_to_others(path) {
        let path = path.display();
        log::warn!("{path}: everybody on this machine can get at it (chmod 600 {path})");
    }
}

/// A file that is not there is not open: whoever reads it will tell.
fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_crlf_comments_and_empty_lines_do_not_matter() {
        let file = b"\xef\xbb\xbfann\r\n# comment\r\n\r\n \t \r\nb\xc3\xbcro ";
        assert_eq!(entries(file), Ok(vec![(1, "ann"), (5, "b\u{fc}ro ")]));
        assert_eq!(entries(b"ann\r"), Ok(vec![(1, "ann")]));
        assert_eq!(entries(b""), Ok(vec![]));
        assert_eq!(entries(b"\xef\xbb\xbf"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_utf_8_is_named_with_its_line() {
        for (file, line) in [
            (&b"ann\n# b\xfcro\n"[..], 2),
            // What Windows calls Unicode.
            (b"\xff\xfea\0n\0n\0", 1),
        ] {
            let error = entries(file).unwrap_err();
            assert_eq!(error.line, line);
            assert!(error.why.starts_with("expected UTF-8"));
        }
    }

    #[test]
    fn a_file_is_open_if_everybody_can_read_or_write_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert!(!is_open_to_others(&path));
        fs::write(&path, "").unwrap();
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_others(&path), is_open, "{mode:o}");
        }
    }
}
