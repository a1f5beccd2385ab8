//! Dot-stuffing and line ends of a message, in both directions, on slices.
//!
//! After DATA a message ends with a line that holds one dot, so every line of
//! the message that begins with a dot gets another one in front (RFC 5321
//! section 4.5.2). In the chunks of BDAT its length is known, and there are no such
//! dots (RFC 3030). On disk there are none either, and lines end with LF.
//!
//! In: octets as they arrive, cut anywhere. Out: the same octets cleaned, in the
//! place where they lie, and whether that was the end, or a CR or LF that stands
//! alone. Such octets are where two servers can disagree about where a message ends,
//! which lets a client smuggle a second message through the first server
//! (CVE-2023-51764 and kin). Because none gets in, CRLF to LF can be undone octet for
//! octet.
//!
//! No input or output is done here.
//!
//! Book: docs/06-bytes.md.

use memchr::memchr2;

/// Takes a message from its wire form to its file form.
#[derive(Debug, Clone)]
pub struct Unstuffer {
    at: At,
    octets: u64,
    /// Whether the dots of DATA are in it.
    has_dots: bool,
}

/// What the octets before this one were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A line begins here.
    LineStart,
    /// A dot, first in its line.
    Dot,
    /// A dot, first in its line, and a CR.
    DotCr,
    /// Somewhere in a line.
    Text,
    /// A CR after text, or first in its line.
    Cr,
}

/// What some input was.
#[derive(Debug, PartialEq, Eq)]
pub struct Cleaned<'a> {
    /// Octets of the message, in file form: none, perhaps, after a dot or a CR.
    pub text: &'a [u8],
    /// How many octets of the input they were. What follows them is not part of the
    /// message.
    pub taken: usize,
    /// What comes after them.
    pub then: Then,
}

/// How a message goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// With the next input.
    More,
    /// Not at all: the line with the single dot is over, the message is complete.
    Complete,
    /// Nobody knows: there was a CR without LF, or an LF without CR.
    BareNewline,
}

impl Default for Unstuffer {
    fn default() -> Unstuffer {
        Unstuffer { at: At::LineStart, octets: 0, has_dots: true }
    }
}

impl Unstuffer {
    /// For the chunks of BDAT, one after another: a dot is a dot, and
    /// [`Unstuffer::finish`] says where the message ends. All else is as after DATA.
    pub fn of_chunks() -> Unstuffer {
        Unstuffer { has_dots: false, ..Unstuffer::default() }
    }

    /// Cleans the next input of a message, and takes all of it unless the message ends
    /// in it. What is kept moves to the front, so that it is one piece; what stands
    /// after it in `input` is worth nothing then, up to what was not taken. After
    /// `Complete` or `BareNewline` this must not be called again.
    pub fn clean<'a>(&mut self, input: &'a mut [u8]) -> Cleaned<'a> {
        let (mut taken, mut kept) = (0, 0);
        let mut then = Then::More;
        while let (Then::More, Some(&first)) = (then, input.get(taken)) {
            // Where the machine is next, how many octets it takes, how many of them stay.
            let (at, takes, keeps) = match (self.at, first) {
                // A dot at the start of a line is never part of the message.
                (At::LineStart, b'.') if self.has_dots => (At::Dot, 1, 0),
                (At::Dot, b'\r') => (At::DotCr, 1, 0),
                (At::LineStart | At::Text, b'\r') => (At::Cr, 1, 0),
                // A CR disappears, and the LF after it stands for both.
                (At::Cr, b'\n') => {
                    self.octets += 1;
                    (At::LineStart, 1, 1)
                }
                (At::DotCr, b'\n') => {
                    then = Then::Complete;
                    (At::LineStart, 1, 0)
                }
                (At::Cr | At::DotCr, _) | (_, b'\n') => {
                    then = Then::BareNewline;
                    (At::Text, 1, 0)
                }
                (At::LineStart | At::Dot | At::Text, _) => {
                    let text = length_of_text(input, taken);
                    match input.get_mut(taken + text..taken + text + 2) {
                        // Most line ends are whole: two steps less for each line.
                        Some([end, b'\n']) if *end == b'\r' => {
                            *end = b'\n';
                            self.octets += 1;
                            (At::LineStart, text + 2, text + 1)
                        }
                        _ => (At::Text, text, text),
                    }
                }
            };
            input.copy_within(taken..taken + keeps, kept);
            (self.at, taken, kept) = (at, taken + takes, kept + keeps);
        }
        self.octets += kept as u64;
        let (text, _) = input.split_at(kept);
        Cleaned { text, taken, then }
    }

    /// The last chunk is over: what has to follow it in file form, or `None` after a CR
    /// that will not get its LF.
    ///
    /// A message is text, and text is lines, each with its CR LF (RFC 3030 section 2).
    /// Nothing says what becomes of a last one without it; after DATA the client would
    /// have had to complete it (RFC 5321 section 4.1.1.4), so here that is done for it.
    pub fn finish(&mut self) -> Option<&'static [u8]> {
        match self.at {
            At::LineStart => Some(b""),
            At::Cr | At::DotCr => None,
            At::Text | At::Dot => {
                (self.at, self.octets) = (At::LineStart, self.octets + 2);
                Some(b"\n")
            }
        }
    }

    /// How large the message is so far: octets as sent, line ends as two, without
    /// the dots that stuffing added and the final one (RFC 1870 section 5).
    pub fn octets(&self) -> u64 {
        self.octets
    }
}

/// How many octets there are from `start` to the next CR or LF.
fn length_of_text(input: &[u8], start: usize) -> usize {
    let (_, text) = input.split_at(start);
    memchr2(b'\r', b'\n', text).unwrap_or(text.len())
}

/// Takes a message from its file form to its wire form: what a client sends.
#[derive(Debug, Clone)]
pub struct Stuffer {
    at_line_start: bool,
    /// Whether it goes after DATA, with dots.
    has_dots: bool,
}

impl Default for Stuffer {
    fn default() -> Stuffer {
        Stuffer { at_line_start: true, has_dots: true }
    }
}

impl Stuffer {
    /// For the chunks of BDAT: line ends become CR LF, and there are no dots.
    pub fn of_chunks() -> Stuffer {
        Stuffer { has_dots: false, ..Stuffer::default() }
    }

    /// Appends the wire form of `input`, which may be cut anywhere, to `out`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for line in input.split_inclusive(|octet| *octet == b'\n') {
            if self.has_dots && self.at_line_start && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            match line.strip_suffix(b"\n") {
                Some(text) => {
                    out.extend_from_slice(text);
                    out.extend_from_slice(b"\r\n");
                    self.at_line_start = true;
                }
                None => {
                    out.extend_from_slice(line);
                    self.at_line_start = false;
                }
            }
        }
    }

    /// Appends the end of the message: the last line end, if the message had
    /// none, and after DATA the line with the single dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if !self.at_line_start {
            out.extend_from_slice(b"\r\n");
        }
        if self.has_dots {
            out.extend_from_slice(b".\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What became of a whole input: the text, whether it ended, and how many
    /// octets were left over.
    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Read {
        Message { text: Vec<u8>, octets: u64, left: usize },
        BareNewline,
        Unfinished,
    }

    /// Feeds `input` in parts that end at `cuts`.
    fn read(input: &[u8], cuts: &[usize]) -> Read {
        let mut unstuffer = Unstuffer::default();
        let mut text = Vec::new();
        let mut start = 0;
        for &end in cuts.iter().chain([&input.len()]) {
            let mut part = input[start..end].to_vec();
            let Cleaned { text: cleaned, taken, then } = unstuffer.clean(&mut part);
            text.extend_from_slice(cleaned);
            start += taken;
            match then {
                Then::More => assert_eq!(start, end, "all of it has to be taken"),
                Then::BareNewline => return Read::BareNewline,
                Then::Complete => {
                    let left = input.len() - start;
                    return Read::Message { text, octets: unstuffer.octets(), left };
                }
            }
        }
        Read::Unfinished
    }

    /// The same, after the rules of the RFC as literally as they can be put.
    fn by_the_book(input: &[u8]) -> Read {
        let mut text = Vec::new();
        let mut octets = 0;
        let mut rest = input;
        loop {
            let Some(lf) = rest.iter().position(|&octet| octet == b'\n') else {
                let bare = rest.windows(2).any(|two| two[0] == b'\r');
                return if bare { Read::BareNewline } else { Read::Unfinished };
            };
            let Some(line) = rest[..lf].strip_suffix(b"\r") else {
                return Read::BareNewline;
            };
            if line.contains(&b'\r') {
                return Read::BareNewline;
            }
            rest = &rest[lf + 1..];
            if line == b"." {
                return Read::Message { text, octets, left: rest.len() };
            }
            let line = line.strip_prefix(b".").unwrap_or(line);
            octets += line.len() as u64 + 2;
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }

    const INPUTS: [&[u8]; 14] = [
        b".\r\n",
        b"a\r\n.\r\nQUIT\r\n",
        b"\r\n\r\n.\r\n",
        b"..\r\n...\r\n..a\r\n.a\r\n.\r\n",
        b"a.\r\n.\r\n",
        b"a\r\n.",
        b"a\n.\n",
        b"a\r\n.\n.\r\n",
        b"a\r.\r\r\n",
        b"a\r\n.\r.\r\n",
        b"a\r\n\n.\r\n",
        b"a\n.\r\nMAIL FROM:<x@y.example>\r\n",
        b"a\r\r\n.\r\n",
        b"\x00\xff\r\n.\r\n\r\n",
    ];

    #[test]
    fn every_input_reads_the_same_at_every_pair_of_cuts() {
        for input in INPUTS {
            let whole = by_the_book(input);
            for first in 0..=input.len() {
                for second in first..=input.len() {
                    assert_eq!(read(input, &[first, second]), whole, "{input:?} {first} {second}");
                }
            }
        }
    }

    /// Octets from a small alphabet, so that the interesting ones meet.
    fn from_alphabet(octets: &[u8]) -> Vec<u8> {
        octets
            .iter()
            .flat_map(|octet| {
                [&b"\r\n"[..], b".", b"a", b"\r\n.\r\n", b"\r", b"\n", b"b", b"\r\n."]
                    [usize::from(octet % 8)]
                .to_vec()
            })
            .collect()
    }

    #[test]
    fn random_input_reads_as_the_rfc_says_however_it_is_cut() {
        fn holds(octets: Vec<u8>, cuts: Vec<u8>) -> bool {
            let input = from_alphabet(&octets);
            let mut cuts: Vec<usize> =
                cuts.iter().map(|&cut| usize::from(cut).min(input.len())).collect();
            cuts.sort_unstable();
            read(&input, &cuts) == by_the_book(&input)
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>, Vec<u8>) -> bool);
    }

    #[test]
    fn what_is_stuffed_in_any_parts_comes_back_octet_for_octet() {
        fn holds(octets: Vec<u8>, cut: usize) -> bool {
            let mut file = from_alphabet(&octets);
            file.retain(|&octet| octet != b'\r');
            if !file.is_empty() && file.last() != Some(&b'\n') {
                file.push(b'\n');
            }
            let cut = cut % (file.len() + 1);
            let mut wire = Vec::new();
            let mut stuffer = Stuffer::default();
            stuffer.push(&file[..cut], &mut wire);
            stuffer.push(&file[cut..], &mut wire);
            stuffer.finish(&mut wire);
            let octets = (file.len() + file.iter().filter(|&&octet| octet == b'\n').count()) as u64;
            read(&wire, &[]) == Read::Message { text: file, octets, left: 0 }
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>, usize) -> bool);
    }

    /// What becomes of a message in chunks that end at `cuts`.
    fn in_chunks(input: &[u8], cuts: &[usize]) -> Read {
        let mut unstuffer = Unstuffer::of_chunks();
        let mut text = Vec::new();
        let mut start = 0;
        for &end in cuts.iter().chain([&input.len()]) {
            let mut chunk = input[start..end].to_vec();
            let Cleaned { text: cleaned, taken, then } = unstuffer.clean(&mut chunk);
            text.extend_from_slice(cleaned);
            match then {
                Then::More => assert_eq!(taken, end - start, "all of it has to be taken"),
                Then::BareNewline => return Read::BareNewline,
                Then::Complete => panic!("there is no dot in {input:?}"),
            }
            start = end;
        }
        match unstuffer.finish() {
            Some(end) => {
                text.extend_from_slice(end);
                Read::Message { text, octets: unstuffer.octets(), left: 0 }
            }
            None => Read::BareNewline,
        }
    }

    /// A chunk may end anywhere, between CR and LF too.
    #[test]
    fn a_message_in_any_chunks_is_what_it_is_after_data() {
        fn holds(octets: Vec<u8>, cuts: Vec<u8>) -> bool {
            let message = from_alphabet(&octets);
            let mut cuts: Vec<usize> =
                cuts.iter().map(|&cut| usize::from(cut).min(message.len())).collect();
            cuts.sort_unstable();
            // What an honest client makes of the same message for DATA.
            let mut stuffed = Vec::new();
            for line in message.split_inclusive(|&octet| octet == b'\n') {
                if line.starts_with(b".") {
                    stuffed.push(b'.');
                }
                stuffed.extend_from_slice(line);
            }
            if !matches!(message.last(), None | Some(b'\r' | b'\n')) {
                stuffed.extend_from_slice(b"\r\n");
            }
            stuffed.extend_from_slice(b".\r\n");
            in_chunks(&message, &cuts) == by_the_book(&stuffed)
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>, Vec<u8>) -> bool);
    }

    #[test]
    fn in_chunks_nothing_but_the_line_ends_changes() {
        let message = |text: &[u8], octets| Read::Message { text: text.to_vec(), octets, left: 0 };
        for (input, whole) in [
            (&b""[..], message(b"", 0)),
            (b".\r\n", message(b".\n", 3)),
            (b"..a\r\n.\r\n", message(b"..a\n.\n", 8)),
            (b"a", message(b"a\n", 3)),
            (b".", message(b".\n", 3)),
            (b"a\r\n\r\n", message(b"a\n\n", 5)),
            (b"a\r", Read::BareNewline),
            (b".\r", Read::BareNewline),
            (b"a\n", Read::BareNewline),
            (b"\r\r\n", Read::BareNewline),
        ] {
            for first in 0..=input.len() {
                for second in first..=input.len() {
                    assert_eq!(
                        in_chunks(input, &[first, second]),
                        whole,
                        "{input:?} {first} {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_sent_in_chunks_comes_back_octet_for_octet() {
        let file = b".\n..a\n\nb\n";
        let mut stuffer = Stuffer::of_chunks();
        let mut wire = Vec::new();
        stuffer.push(file, &mut wire);
        stuffer.finish(&mut wire);
        assert_eq!(wire, b".\r\n..a\r\n\r\nb\r\n");
        assert_eq!(
            in_chunks(&wire, &[2, 3]),
            Read::Message { text: file.to_vec(), octets: 13, left: 0 }
        );
    }

    #[test]
    fn a_message_without_a_last_line_end_gets_one() {
        let mut wire = Vec::new();
        let mut stuffer = Stuffer::default();
        stuffer.push(b".a", &mut wire);
        stuffer.finish(&mut wire);
        assert_eq!(wire, b"..a\r\n.\r\n");
    }
}
