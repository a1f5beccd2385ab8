//! A letter while it is read: its header is kept, its body passes by.
//!
//! In: parts of a letter in file form. Out: the header, once it is over, and each part of
//! the body. A header may have any size, so only so much of it is kept.
//!
//! Book: docs/16-trust.md.

/// What is kept of a header. Real ones have some 10 KiB.
pub const HEADER_LIMIT: usize = 256 * 1024;

/// What was read so far.
#[derive(Debug)]
pub struct Reading {
    header: Vec<u8>,
    /// How many octets it has; more than were kept, if it is too long.
    octets: usize,
    at_line_start: bool,
    is_over: bool,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading { header: Vec::new(), octets: 0, at_line_start: true, is_over: false }
    }
}

impl Reading {
    /// Takes what is still header; the rest is body. None as long as the header goes on.
    pub fn take<'a>(&mut self, mut text: &'a [u8]) -> Option<&'a [u8]> {
        while !self.is_over && !text.is_empty() {
            let end = memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1);
            let (line, after) = text.split_at(end);
            // The empty line belongs to neither.
            if self.at_line_start && line == b"\n" {
                self.is_over = true;
            } else {
                let room = HEADER_LIMIT.saturating_sub(self.header.len()).min(line.len());
                self.header.extend_from_slice(line.get(..room).unwrap_or_default());
                self.octets += line.len();
            }
            self.at_line_start = line.ends_with(b"\n");
            text = after;
        }
        self.is_over.then_some(text)
    }

    /// All fields, as far as they were kept.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Whether all of the header was kept.
    pub fn is_whole(&self) -> bool {
        self.octets <= HEADER_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_are_parted_wherever_the_letter_is_cut() {
        for (letter, header, body) in [
            ("A: 1\nB: 2\n\nbody\n\n", "A: 1\nB: 2\n", "body\n\n"),
            ("\nbody", "", "body"),
            ("A: 1\n", "A: 1\n", ""),
            ("A: 1", "A: 1", ""),
            ("A: 1\n \n\nb", "A: 1\n \n", "b"),
        ] {
            for part in 1..=letter.len() {
                let mut reading = Reading::default();
                let mut seen = Vec::new();
                for octets in letter.as_bytes().chunks(part) {
                    seen.extend_from_slice(reading.take(octets).unwrap_or_default());
                }
                assert_eq!(
                    (reading.header(), seen.as_slice()),
                    (header.as_bytes(), body.as_bytes())
                );
            }
        }
    }

    #[test]
    fn only_so_much_of_a_header_is_kept() {
        let mut reading = Reading::default();
        let line = format!("A: {}\n", "x".repeat(996));
        for _ in 0..1000 {
            assert_eq!(reading.take(line.as_bytes()), None);
        }
        assert_eq!(reading.header().len(), HEADER_LIMIT);
        assert!(!reading.is_whole());
        assert_eq!(reading.take(b"\nbody"), Some(&b"body"[..]));
    }
}
