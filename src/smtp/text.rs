//! Text from a client, made harmless.
//!
//! A client chooses its name, its addresses and its mistakes, and we repeat
//! some of them: in header fields, replies, the log and the trace. A CR LF among
//! them would start a header line of its own, an ESC would move the cursor of
//! whoever reads the log. Everything a client said passes through here first.
//!
//! Book: docs/04-commands-and-addresses.md.

use std::fmt::Write as _;

/// The same text with every octet outside printable ASCII as `\xNN`, and `\`
/// as `\\`, so that what was escaped can be told from what was said.
pub fn printable(text: impl AsRef<[u8]>) -> String {
    let text = text.as_ref();
    let mut safe = String::with_capacity(text.len());
    for &octet in text {
        match octet {
            b'\\' => safe.push_str("\\\\"),
            b' '..=b'~' => safe.push(char::from(octet)),
            // Writing to a String cannot fail.
            _ => write!(safe, "\\x{octet:02x}").unwrap_or_default(),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_ascii_comes_out() {
        fn holds(text: Vec<u8>) -> bool {
            printable(text).bytes().all(|octet| (b' '..=b'~').contains(&octet))
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>) -> bool);
    }

    #[test]
    fn line_ends_and_escapes_are_shown_not_obeyed() {
        assert_eq!(printable("a\r\nBcc: b\u{1b}[2J\\"), "a\\x0d\\x0aBcc: b\\x1b[2J\\\\");
    }
}
