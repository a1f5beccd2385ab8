//! Lists of tags: `v=1; a=rsa-sha256; …` (RFC 6376 section 3.2).
//!
//! In: the value of a field, or the text of a TXT record. Out: its tags, each once.
//! Blanks and line ends may stand around names and values; a tag without a known name is
//! passed over by whoever asks.
//!
//! Book: docs/16-trust.md.

/// Names and values, without the blanks around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags<'a> {
    tags: Vec<(&'a str, &'a str)>,
}

impl<'a> Tags<'a> {
    /// Reads a list. None where it is not one, or has a name twice.
    pub fn parse(text: &'a str) -> Option<Tags<'a>> {
        let mut tags: Vec<(&str, &str)> = Vec::new();
        let mut parts = text.split(';').peekable();
        while let Some(part) = parts.next() {
            // A semicolon may stand at the end.
            if parts.peek().is_none() && part.trim_matches(is_blank).is_empty() {
                break;
            }
            let (name, value) = part.split_once('=')?;
            let name = name.trim_matches(is_blank);
            tags.push((name, value.trim_matches(is_blank)));
            let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(is_inner) {
                return None;
            }
        }
        let mut names: Vec<&str> = tags.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let is_twice = names.windows(2).any(|pair| pair.first() == pair.last());
        (!is_twice && !tags.is_empty()).then_some(Tags { tags })
    }

    /// The value of a tag. Names have a case.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.tags.iter().find(|(one, _)| *one == name).map(|(_, value)| *value)
    }

    /// The name of the first tag.
    pub fn first(&self) -> &'a str {
        self.tags.first().map_or("", |(name, _)| name)
    }
}

/// What may be folded away (section 2.8).
pub fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_line_ends_do_not_count() {
        let tags = Tags::parse(" v = 1;\n\ta=rsa-sha256 ; b=\n ab\n\tcd ; x_1=;").unwrap();
        assert_eq!(tags.get("v"), Some("1"));
        assert_eq!(tags.get("a"), Some("rsa-sha256"));
        assert_eq!(tags.get("b"), Some("ab\n\tcd"));
        assert_eq!(tags.get("x_1"), Some(""));
        assert_eq!((tags.get("V"), tags.first()), (None, "v"));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", ";", "a", "a=1;;b=2", "a=1; a=2", "1=a", "=a", "a b=1", "a=1;b"] {
            assert_eq!(Tags::parse(text), None, "{text}");
        }
    }

    quickcheck::quickcheck! {
        fn no_text_stops_the_parser(text: String) -> bool {
            let _ = Tags::parse(&text);
            true
        }
    }
}
