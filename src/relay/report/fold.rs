//! Words in lines that are short enough for mail.
//!
//! In: text that strangers may have written. Out: lines of ours, of which none
//! begins with their words, and none is too long to be sent.
//!
//! Book: docs/14-the-queue.md.

/// How long our own lines are at most (RFC 5322 section 2.1.1). An address may be
/// longer, and is not broken here.
pub const OUR_LINE: usize = 78;
/// A longer word is broken, so that it fits after the blanks at the start of a line.
/// Most links in replies are shorter, and stay whole.
const WORD_LIMIT: usize = 74;
/// How long any line may be, with its LF (RFC 5322 section 2.1.1). We take longer ones;
/// MIME does not (RFC 2045 section 2.8).
const LINE_LIMIT: usize = 999;

/// `Name: value`, folded (RFC 5322 section 2.2.3).
pub fn field(name: &str, value: &str) -> String {
    wrap(&format!("{name}: "), " ", value)
}

/// Words in lines, the first one after `first` and the others after `next`. Line ends
/// among the words are blanks like others, so nothing in `words` can begin a line.
pub fn wrap(first: &str, next: &str, words: &str) -> String {
    let mut out = String::new();
    let mut line = first.to_owned();
    let mut glue = "";
    for word in words.split_whitespace().flat_map(pieces) {
        let width = line.chars().count() + glue.len() + word.chars().count();
        if !glue.is_empty() && width > OUR_LINE {
            out += &(line + "\n");
            (line, glue) = (next.to_owned(), "");
        }
        line += glue;
        line += &word;
        glue = " ";
    }
    out + &line + "\n"
}

/// A word, or its pieces if it is too long for a line.
fn pieces(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    letters.chunks(WORD_LIMIT).map(|piece| piece.iter().collect()).collect()
}

/// The same lines, folded where one is too long for MIME, and without the two octets
/// that must not be in text at all (RFC 2045 section 2.8).
pub fn short_lines(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for mut line in text.split_inclusive(|octet| *octet == b'\n') {
        let mut room = LINE_LIMIT;
        while line.len() > room {
            // UTF-8 is not cut inside a character.
            let is_start = |at: &usize| line.get(*at).is_some_and(|octet| octet & 0xc0 != 0x80);
            let cut = (room - 4..room).rev().find(is_start).unwrap_or(room - 1);
            let (start, rest) = line.split_at(cut);
            out.extend([start, b"\n "].concat());
            (line, room) = (rest, LINE_LIMIT - 1);
        }
        out.extend_from_slice(line);
    }
    let banned = out.iter_mut().filter(|octet| matches!(**octet, b'\0' | b'\r'));
    banned.for_each(|octet| *octet = b'?');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_folded_and_lose_nothing() {
        let header = format!("X: {}\nY: {}\n", "\u{fc}".repeat(2000), "y".repeat(998 - 3));
        let short = String::from_utf8(short_lines(header.as_bytes())).unwrap();
        assert!(short.lines().all(|line| line.len() <= 998));
        assert_eq!(short.replace("\n ", ""), header);
        assert_eq!(short_lines(b"a\0b\rc\n"), b"a?b?c\n");
    }

    #[test]
    fn words_are_kept_whole_and_a_link_too() {
        let link = format!("https://else.example/{}", "x".repeat(53));
        let words = format!("{}see {link}\r\n\tand \u{fc}", "no signature ".repeat(50));
        let out = field("Name", &words);
        assert!(out.lines().all(|line| line.chars().count() <= OUR_LINE));
        assert!(out.lines().skip(1).all(|line| line.starts_with(' ')));
        assert!(out.contains(&link));
        let unfolded = out.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(unfolded, format!("Name: {words}"));
    }

    #[test]
    fn an_endless_word_is_broken() {
        let out = wrap("", "    ", &"\u{fc}".repeat(3000));
        assert!(out.lines().all(|line| line.chars().count() <= OUR_LINE));
        assert_eq!(out.replace(['\n', ' '], ""), "\u{fc}".repeat(3000));
    }
}
