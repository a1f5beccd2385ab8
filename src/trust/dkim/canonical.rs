//! What is signed of a letter: the same octets, though small things change on the way
//! (RFC 6376 section 3.4).
//!
//! In: header fields, and the body as it arrives, in file form (lines end with LF). Out:
//! their canonical form, with CR LF: `simple` forgives hardly anything, `relaxed` forgives
//! other blanks and another folding. The body is hashed while it streams by: blanks
//! and line ends wait, as a flag and a count, until it is known whether they are the last.
//!
//! Book: docs/16-trust.md.

use ring::digest::{Context, SHA256};

use crate::trust::fields::Field;

/// How much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canon {
    /// Empty lines at the end of the body, and nothing else.
    Simple,
    /// Any change of blanks, and the case of field names.
    Relaxed,
}

impl Canon {
    /// The canonical form of a field, with CR LF at its end.
    pub fn field(self, field: &Field) -> Vec<u8> {
        match self {
            Canon::Simple => with_crlf(field.raw),
            Canon::Relaxed => relaxed(field),
        }
    }
}

fn with_crlf(text: &[u8]) -> Vec<u8> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let lines: Vec<&[u8]> = text.split(|octet| *octet == b'\n').collect();
    [&lines.join(&b"\r\n"[..]), &b"\r\n"[..]].concat()
}

/// Name in lower case, no folding, one blank for many, none around the colon and at the
/// end (section 3.4.2).
fn relaxed(field: &Field) -> Vec<u8> {
    let value = field.raw.splitn(2, |octet| *octet == b':').nth(1).unwrap_or_default();
    let mut words = value.split(|octet| b" \t\n".contains(octet)).filter(|word| !word.is_empty());
    let mut text = field.name.to_ascii_lowercase().into_bytes();
    text.push(b':');
    text.extend_from_slice(words.next().unwrap_or_default());
    for word in words {
        text.push(b' ');
        text.extend_from_slice(word);
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// What waits before it is hashed: short words cost less together.
const BUFFER: usize = 8 * 1024;

/// The hashes of a body that is read once, in one canonical form.
pub struct BodyHash {
    canon: Canon,
    /// Of the whole body, or of its beginning (`l=`).
    hashes: Vec<Hash>,
    out: Vec<u8>,
    /// How many octets the canonical form has.
    octets: u64,
    /// Line ends that count only if something follows.
    line_ends: u64,
    /// Whether a blank counts if a word follows in its line.
    has_blank: bool,
}

struct Hash {
    /// How many octets still count.
    left: u64,
    context: Context,
}

impl BodyHash {
    /// One hash for each limit: of so many octets of the canonical form, or of all.
    pub fn new(canon: Canon, limits: &[Option<u64>]) -> BodyHash {
        let hash = |limit: &Option<u64>| Hash {
            left: limit.unwrap_or(u64::MAX),
            context: Context::new(&SHA256),
        };
        BodyHash {
            canon,
            hashes: limits.iter().map(hash).collect(),
            out: Vec::with_capacity(BUFFER),
            octets: 0,
            line_ends: 0,
            has_blank: false,
        }
    }

    /// Adds the next part of a body in file form.
    pub fn write(&mut self, mut text: &[u8]) {
        while let Some(&first) = text.first() {
            let is_blank = |octet: u8| self.canon == Canon::Relaxed && b" \t".contains(&octet);
            if first == b'\n' {
                // Blanks before it never count.
                self.has_blank = false;
                self.line_ends += 1;
                text = text.get(1..).unwrap_or_default();
            } else if is_blank(first) {
                self.has_blank = true;
                let end = text.iter().position(|octet| !b" \t".contains(octet));
                text = text.get(end.unwrap_or(text.len())..).unwrap_or_default();
            } else {
                let end = match self.canon {
                    Canon::Simple => memchr::memchr(b'\n', text),
                    Canon::Relaxed => memchr::memchr3(b'\n', b' ', b'\t', text),
                };
                let (word, after) = text.split_at(end.unwrap_or(text.len()));
                self.add_what_waits();
                self.add(word);
                text = after;
            }
        }
    }

    /// The hashes, in the order of the limits, and how many octets the canonical form has.
    /// Empty lines at the end never count, and a body that is not empty ends with one line
    /// end; so does an empty one that is `simple` (section 3.4.3).
    pub fn finish(mut self) -> (Vec<[u8; 32]>, u64) {
        if self.octets > 0 || self.canon == Canon::Simple {
            self.add(b"\r\n");
        }
        self.hash();
        let digest = |hash: Hash| hash.context.finish().as_ref().try_into();
        // SHA-256 has 32 octets.
        let hashes = self.hashes.into_iter().map(|hash| digest(hash).unwrap_or_default());
        (hashes.collect(), self.octets)
    }

    fn add_what_waits(&mut self) {
        for _ in 0..self.line_ends {
            self.add(b"\r\n");
        }
        if self.has_blank {
            self.add(b" ");
        }
        (self.line_ends, self.has_blank) = (0, false);
    }

    fn add(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        self.out.extend_from_slice(octets);
        if self.out.len() >= BUFFER {
            self.hash();
        }
    }

    fn hash(&mut self) {
        for Hash { left, context } in &mut self.hashes {
            let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.out.len());
            context.update(self.out.get(..count).unwrap_or_default());
            *left -= count as u64;
        }
        self.out.clear();
    }
}

impl std::fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "BodyHash({:?}, {} octets)", self.canon, self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fields::fields;

    /// The hash of a body that comes in parts of so many octets.
    fn hash(canon: Canon, limit: Option<u64>, body: &[u8], part: usize) -> ([u8; 32], u64) {
        let mut hash = BodyHash::new(canon, &[limit]);
        body.chunks(part).for_each(|part| hash.write(part));
        let (hashes, octets) = hash.finish();
        (hashes[0], octets)
    }

    /// A slow canonical form, by the words of the RFC.
    fn slow(canon: Canon, body: &[u8]) -> Vec<u8> {
        let text = body.strip_suffix(b"\n").unwrap_or(body);
        let mut lines: Vec<Vec<u8>> =
            text.split(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect();
        if canon == Canon::Relaxed {
            for line in &mut lines {
                let mut out = Vec::new();
                for &octet in line.iter() {
                    let octet = if octet == b'\t' { b' ' } else { octet };
                    if octet != b' ' || out.last() != Some(&b' ') {
                        out.push(octet);
                    }
                }
                if out.last() == Some(&b' ') {
                    out.pop();
                }
                *line = out;
            }
        }
        while lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        let text: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
        if text.is_empty() && canon == Canon::Simple { b"\r\n".to_vec() } else { text }
    }

    /// A few octets that matter, in any order.
    fn body_of(choice: &[u8]) -> Vec<u8> {
        choice.iter().map(|octet| b"\n\n \tab."[usize::from(octet % 7)]).collect()
    }

    #[test]
    fn the_bodies_of_the_rfc() {
        // Section 3.4.5, and the hashes of an empty body from section 3.4.3 and 3.4.4.
        let body = b" C \nD \t E\n\n\n";
        assert_eq!(slow(Canon::Simple, body), b" C \r\nD \t E\r\n");
        assert_eq!(slow(Canon::Relaxed, body), b" C\r\nD E\r\n");
        use base64::Engine as _;
        let base64 =
            |canon| base64::engine::general_purpose::STANDARD.encode(hash(canon, None, b"", 1).0);
        assert_eq!(base64(Canon::Simple), "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=");
        assert_eq!(base64(Canon::Relaxed), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_fields_of_the_rfc() {
        // Section 3.4.5.
        let header = b"A: X\nB : Y\t\n\tZ  \n";
        let fields = fields(header);
        let text =
            |canon: Canon| fields.iter().flat_map(|one| canon.field(one)).collect::<Vec<u8>>();
        assert_eq!(text(Canon::Simple), b"A: X\r\nB : Y\t\r\n\tZ  \r\n");
        assert_eq!(text(Canon::Relaxed), b"a:X\r\nb:Y Z\r\n");
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_not_hashed() {
        let (hashed, octets) = hash(Canon::Simple, Some(3), b"abcdef\n", 2);
        assert_eq!(octets, 8);
        let mut context = Context::new(&SHA256);
        context.update(b"abc");
        assert_eq!(hashed, context.finish().as_ref());
    }

    quickcheck::quickcheck! {
        fn a_body_in_any_parts_has_the_hash_of_its_canonical_form(choice: Vec<u8>, part: u8) -> bool {
            let body = body_of(&choice);
            [Canon::Simple, Canon::Relaxed].into_iter().all(|canon| {
                let expected = slow(canon, &body);
                let mut context = Context::new(&SHA256);
                context.update(&expected);
                let (hashed, octets) = hash(canon, None, &body, usize::from(part % 5) + 1);
                hashed == context.finish().as_ref() && octets == expected.len() as u64
            })
        }
    }
}
