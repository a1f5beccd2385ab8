//! Text from a client, made harmless.
//!
//! A client chooses its name, its addresses and its mistakes, and we repeat
//! some of them: in header fields, replies, the log, the trace, and as names of
//! folders. A CR LF among them would start a header line of its own, an ESC would
//! move the cursor of whoever reads the log, a `../` would lead out of the spool.
//! Everything a client said passes through here first, but for addresses in
//! fields: their grammar lets no control character in.
//!
//! Book: docs/04-commands-and-addresses.md.

use std::fmt::Write as _;

/// The longest name of a folder, in octets, on every file system there is.
pub const FOLDER_NAME_LIMIT: usize = 255;

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

/// The same as one word of a header field, whatever it was: blanks too stand as
/// `\x20`, and so do the characters by which `Received` parts its words, so that a
/// client cannot call itself `x ([192.0.2.1]) by` and more.
pub fn one_word(text: impl AsRef<[u8]>) -> String {
    let mut word = String::new();
    for c in printable(text).chars() {
        match c {
            ' ' | '(' | ')' | '<' | '>' | ',' | ';' | '"' => {
                write!(word, "\\x{:02x}", u32::from(c)).unwrap_or_default();
            }
            _ => word.push(c),
        }
    }
    word
}

/// A name as that of a folder, which no other name has: `a`–`z`, `0`–`9`, `-`, `_`
/// and a dot that is not the first stand for themselves, everything else, `%` too,
/// as `%NN`. Upper case does not: some file systems take `A` and `a` for one. The
/// empty name is `%` alone, which no other name becomes.
pub fn folder_name(name: &str) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut safe = String::with_capacity(name.len());
    for octet in name.bytes() {
        match octet {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => safe.push(char::from(octet)),
            b'.' if !safe.is_empty() => safe.push('.'),
            // Writing to a String cannot fail.
            _ => write!(safe, "%{octet:02x}").unwrap_or_default(),
        }
    }
    safe
}

/// An address in ASCII, from which a program can tell what it was (utf-8-addr-xtext,
/// RFC 6533 section 3).
pub fn ascii_address(address: &str) -> String {
    let spelt = |c: char| {
        let is_plain = c.is_ascii_graphic() && !"\\+=".contains(c);
        if is_plain { c.to_string() } else { format!("\\x{{{:02X}}}", u32::from(c)) }
    };
    address.chars().map(spelt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_cannot_be_taken_for_several() {
        assert_eq!(one_word("[192.0.2.1]"), "[192.0.2.1]");
        assert_eq!(one_word("x ([1]) by\\"), "x\\x20\\x28[1]\\x29\\x20by\\\\");
        assert_eq!(one_word(b"b\xfcro"), "b\\xfcro");
    }

    #[test]
    fn names_of_folders_are_harmless_and_tell_names_apart() {
        for (name, folder) in [
            ("ann.b-c_1", "ann.b-c_1"),
            ("../x", "%2e.%2fx"),
            (".hidden", "%2ehidden"),
            ("a%2fb", "a%252fb"),
            ("A", "%41"),
            ("\u{fc}", "%c3%bc"),
            ("", "%"),
        ] {
            assert_eq!(folder_name(name), folder);
        }
        fn holds(one: String, other: String) -> bool {
            (one == other) == (folder_name(&one) == folder_name(&other))
        }
        quickcheck::quickcheck(holds as fn(String, String) -> bool);
    }

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
