//! Macros: `%{ir}.%{d2}` in a record stands for what is known of the client (RFC 7208
//! section 7).
//!
//! In: the text of a record. Out: a [`MacroString`], whose syntax is right, and later the
//! text that it stands for. `%{p}`, the name of the client's address, is asked of DNS by
//! `mod.rs`, and only where a macro wants it.
//!
//! Book: docs/16-trust.md.

use std::net::IpAddr;

/// A name in DNS has at most so many octets (RFC 7208 section 7.3).
const NAME_LIMIT: usize = 253;
/// What a macro may be cut into parts at (RFC 7208 section 7.1).
const DELIMITERS: &str = ".-+,/_=";

/// A text with macros in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacroString {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// `%%`, `%_` and `%-`: what they stand for.
    Escape(&'static str),
    Macro(Macro),
}

/// `%{ir2-}`: what, how many parts of it, in which order, and where it is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Macro {
    letter: char,
    is_escaped: bool,
    parts: usize,
    is_reversed: bool,
    delimiters: String,
}

/// What macros stand for.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// `l`: the part before the `@` of the sender.
    pub local_part: &'a str,
    /// `o`: the part after it.
    pub sender_domain: &'a str,
    /// `d`: the domain whose record this is.
    pub domain: &'a str,
    /// `i`, `c`, `v`: the client.
    pub ip: IpAddr,
    /// `p`: a name of the client's address that leads back to it.
    pub name: &'a str,
    /// `h`: what it said in EHLO.
    pub helo: &'a str,
    /// `r`: us.
    pub receiver: &'a str,
    /// `t`: now, in seconds since 1970.
    pub now: i64,
}

impl MacroString {
    /// A name with macros: `domain-spec` of the grammar, which ends with a macro or with
    /// a top-level domain (section 7.1). None where that is not so.
    pub fn domain(text: &str) -> Option<MacroString> {
        let name = MacroString::parse(text, "slodiphv", false)?;
        let ends_well = match name.pieces.last()? {
            Piece::Literal(end) => {
                let end = end.strip_suffix('.').unwrap_or(end);
                end.rsplit_once('.').is_some_and(|(_, label)| is_top_label(label))
            }
            Piece::Escape(_) | Piece::Macro(_) => true,
        };
        ends_well.then_some(name)
    }

    /// The value of a modifier that nobody knows.
    pub fn value(text: &str) -> Option<MacroString> {
        MacroString::parse(text, "slodiphv", false)
    }

    /// The text that an owner has for those who may not send (section 6.2).
    pub fn explanation(text: &str) -> Option<MacroString> {
        MacroString::parse(text, "slodiphvcrt", true)
    }

    fn parse(text: &str, letters: &str, may_have_blanks: bool) -> Option<MacroString> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(body) = rest.strip_prefix("%{") {
                let (inside, after) = body.split_once('}')?;
                pieces.push(Piece::Macro(Macro::parse(inside, letters)?));
                rest = after;
            } else if first == '%' {
                let (escape, after) = rest.split_at_checked(2)?;
                pieces.push(Piece::Escape(match escape {
                    "%%" => "%",
                    "%_" => " ",
                    "%-" => "%20",
                    _ => return None,
                }));
                rest = after;
            } else {
                let (literal, after) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
                let is_allowed = |c: char| c.is_ascii_graphic() || (c == ' ' && may_have_blanks);
                if !literal.chars().all(is_allowed) {
                    return None;
                }
                pieces.push(Piece::Literal(literal.to_owned()));
                rest = after;
            }
        }
        Some(MacroString { pieces })
    }

    /// Whether it wants the name of the client's address, which costs look-ups.
    pub fn wants_name(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Macro(one) if one.letter == 'p'))
    }

    /// What it stands for, or at least `limit` octets of it: a text may name the sender
    /// thousands of times.
    pub fn expand(&self, known: &Known, limit: usize) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            if text.len() < limit {
                text += &piece.expand(known);
            }
        }
        text
    }

    /// What it stands for, as a name: labels in front are left out until it is short
    /// enough (section 7.3).
    pub fn expand_name(&self, known: &Known) -> String {
        let mut name = String::new();
        for piece in self.pieces.iter().rev() {
            // One octet more is the dot at the end. What stands in front of so many goes.
            if name.len() <= NAME_LIMIT + 1 {
                name.insert_str(0, &piece.expand(known));
            }
        }
        let mut name = name.strip_suffix('.').unwrap_or(&name);
        while name.len() > NAME_LIMIT {
            let Some((_, rest)) = name.split_once('.') else { break };
            name = rest;
        }
        name.to_owned()
    }
}

impl Piece {
    fn expand(&self, known: &Known) -> String {
        match self {
            Piece::Literal(text) => text.clone(),
            Piece::Escape(text) => (*text).to_owned(),
            Piece::Macro(one) => one.expand(known),
        }
    }
}

impl Macro {
    fn parse(inside: &str, letters: &str) -> Option<Macro> {
        let mut chars = inside.chars();
        let first = chars.next()?;
        let letter = first.to_ascii_lowercase();
        let rest = chars.as_str();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (count, rest) = rest.split_at(digits);
        let reversed = rest.strip_prefix(['r', 'R']);
        let delimiters = reversed.unwrap_or(rest);
        // More parts than a usize can count are all of them.
        let parts = if count.is_empty() { usize::MAX } else { count.parse().unwrap_or(usize::MAX) };
        let is_right = letters.contains(letter)
            && parts > 0
            && delimiters.chars().all(|c| DELIMITERS.contains(c));
        is_right.then(|| Macro {
            letter,
            is_escaped: first.is_ascii_uppercase(),
            parts,
            is_reversed: reversed.is_some(),
            delimiters: if delimiters.is_empty() { ".".to_owned() } else { delimiters.to_owned() },
        })
    }

    fn expand(&self, known: &Known) -> String {
        let value = match self.letter {
            's' => format!("{}@{}", known.local_part, known.sender_domain),
            'l' => known.local_part.to_owned(),
            'o' => known.sender_domain.to_owned(),
            'd' => known.domain.to_owned(),
            'i' => dotted(known.ip),
            'p' => known.name.to_owned(),
            'v' => if known.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            'h' => known.helo.to_owned(),
            'c' => known.ip.to_string(),
            'r' => known.receiver.to_owned(),
            // 't': the parser lets nothing else in.
            _ => known.now.to_string(),
        };
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.is_reversed {
            parts.reverse();
        }
        let skipped = parts.len().saturating_sub(self.parts);
        let text = parts.into_iter().skip(skipped).collect::<Vec<_>>().join(".");
        if self.is_escaped { url_escaped(&text) } else { text }
    }
}

/// An address in parts: four numbers, or 32 digits.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let nibbles = |octet: u8| [octet >> 4, octet & 0xf].map(|nibble| format!("{nibble:X}"));
            ip.octets().into_iter().flat_map(nibbles).collect::<Vec<_>>().join(".")
        }
    }
}

/// All but letters, digits and `-._~` as `%XX` (RFC 3986 section 2.1).
fn url_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            escaped.push(char::from(octet));
        } else {
            escaped += &format!("%{octet:02X}");
        }
    }
    escaped
}

/// Letters, digits and inner hyphens, and not digits alone.
fn is_top_label(label: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !label.is_empty()
        && label.chars().all(is_inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !label.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client of RFC 7208 section 7.4.
    fn known(ip: &str) -> Known<'_> {
        Known {
            local_part: "strong-bad",
            sender_domain: "email.example.com",
            domain: "email.example.com",
            ip: ip.parse().unwrap(),
            name: "mx.example.org",
            helo: "mx.example.org",
            receiver: "here.example",
            now: 7,
        }
    }

    #[test]
    fn the_expansions_of_the_rfc() {
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{S}", "strong-bad%40email.example.com"),
            ("a%%b%_c%-d", "a%b c%20d"),
        ] {
            let text = MacroString::value(text).unwrap();
            assert_eq!(text.expand(&known("192.0.2.3"), 1000), expected);
        }
        let text = MacroString::domain("%{ir}.%{v}._spf.%{d2}").unwrap();
        let reversed = "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2";
        assert_eq!(
            text.expand(&known("2001:db8::cb01"), 1000),
            format!("{reversed}.ip6._spf.example.com")
        );
        let text = MacroString::explanation("%{c} at %{t} for %{r}").unwrap();
        assert_eq!(text.expand(&known("192.0.2.3"), 1000), "192.0.2.3 at 7 for here.example");
    }

    #[test]
    fn what_is_no_macro_is_refused() {
        for text in ["%", "%a", "%{", "%{}", "%{d", "%{x}", "%{d0}", "%{d2x}", "%{c}", "a b", "ü"]
        {
            assert_eq!(MacroString::value(text), None, "{text}");
        }
        for text in ["example", "example.", "a.1", "a.-b", "a.b-", "%{d}com", "a.b:8080", ""] {
            assert_eq!(MacroString::domain(text), None, "{text}");
        }
        for text in ["a.example", "a.example.", "%{d}", "x%{d}", "%{d}.com", "a.xn--p1ai", "a.b-c"]
        {
            assert!(MacroString::domain(text).is_some(), "{text}");
        }
    }

    #[test]
    fn no_more_is_expanded_than_is_wanted() {
        let known = known("192.0.2.3");
        let (many, one) = ("%{S}.".repeat(800), "strong-bad%40email.example.com.");
        let name = MacroString::domain(&format!("{many}x.example")).unwrap().expand_name(&known);
        let whole = format!("{}x.example", one.repeat(800));
        let mut expected = whole.as_str();
        while expected.len() > NAME_LIMIT {
            (_, expected) = expected.split_once('.').unwrap();
        }
        assert_eq!(name, expected);
        let text = MacroString::explanation(&many).unwrap();
        assert_eq!(text.expand(&known, 40), format!("{one}{}", one.trim_end_matches('.')));
    }

    #[test]
    fn a_name_that_is_too_long_loses_labels_in_front() {
        let long = format!("{}.{}.example", "a".repeat(200), "b".repeat(60));
        let text = MacroString::domain(&long).unwrap();
        let expected = format!("{}.example", "b".repeat(60));
        assert_eq!(text.expand_name(&known("192.0.2.3")), expected);
    }

    quickcheck::quickcheck! {
        fn no_text_stops_the_parser_and_a_name_is_never_too_long(text: String) -> bool {
            let name = MacroString::value(&text);
            name.is_none_or(|name| {
                let name = name.expand_name(&known("2001:db8::1"));
                name.len() <= NAME_LIMIT || !name.contains('.')
            })
        }
    }
}
