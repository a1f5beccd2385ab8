//! Whether an answer of a server is the one that a script wants.
//!
//! In: what the script says, and a line of the server. Out: yes or no. Nothing is
//! read or sent here. ehlo is held to its own words; a foreign server is held to
//! its codes, and only as far as the RFCs go.
//!
//! Book: docs/03-replies.md.

use crate::dialogue::script::Answer;

/// What counts as the right answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Each line as the script has it, `*` aside.
    Texts,
    /// The three digits of each reply. Its text and the number of its lines are free.
    Codes {
        /// Where the script has an enhanced code, there is one, and its class is the
        /// reply's first digit (RFC 2034 section 4). Which one it is stays free: RFC 3463
        /// leaves it to the server how much it tells.
        enhanced: bool,
    },
}

/// Where RFC 5321 leaves a choice: the code that scripts have, and those that are taken
/// beside it unless the script has an `or:` of its own. All of them are of one first digit,
/// so a client does the same (section 4.2.1).
const ALIKE: [(&str, &[&str]); 7] = [
    // 500 for a verb that is not known is a SHOULD (section 4.2.4); 501 if the rest of
    // the line is what is wrong.
    ("500", &["501", "502", "503", "554"]),
    // 500 "may include errors such as command line too long" (section 4.2.3), 553 and
    // 550 refuse an address, 555 a parameter (section 4.3.2).
    ("501", &["500", "504", "550", "553", "554", "555"]),
    ("502", &["500", "501", "503", "504", "550"]),
    // Without a recipient DATA may get 503 or 554 (section 3.3).
    ("503", &["500", "501", "502", "554"]),
    // 550, 551 and 553 refuse a recipient (section 3.3), 554 says no more than "no".
    ("550", &["551", "553", "554"]),
    ("553", &["500", "501", "550", "554", "555"]),
    ("555", &["500", "501", "504", "554"]),
];

impl Judge {
    /// Whether this line, the last of its reply, is an answer that the script takes.
    pub(super) fn takes(self, answer: &Answer, line: &str) -> bool {
        let Judge::Codes { enhanced } = self else { return matches(&answer.pattern, line) };
        let Some(code) = line.get(..3) else { return false };
        let wanted = answer.pattern.split([' ', '-']).next().unwrap_or_default();
        let has_code =
            matches(wanted, code) || others(answer, wanted).any(|other| matches(other, code));
        has_code && !(enhanced && wants_enhanced(&answer.pattern) && lacks_enhanced(line))
    }

    /// Whether the script's line only continues a reply, which is judged by its last line.
    pub(super) fn passes_over(self, answer: &Answer) -> bool {
        self != Judge::Texts && answer.pattern.as_bytes().get(3) == Some(&b'-')
    }

    /// Whether this answer is taken in the place of a connection that closes, or the other
    /// way round.
    pub(super) fn takes_instead(self, answer: &Answer, found: &str) -> bool {
        self != Judge::Texts && answer.others.iter().any(|other| matches(other, found))
    }

    /// What would have been right, for a person.
    pub(super) fn wanted(self, answer: &Answer) -> String {
        let Judge::Codes { enhanced } = self else { return answer.pattern.clone() };
        let wanted = answer.pattern.split([' ', '-']).next().unwrap_or_default();
        let codes = others(answer, wanted).fold(wanted.to_owned(), |text, one| text + " or " + one);
        let has_more = enhanced && wants_enhanced(&answer.pattern);
        if has_more { codes + ", and an enhanced code" } else { codes }
    }
}

/// The codes that are taken beside the wanted one.
fn others<'a>(answer: &'a Answer, wanted: &str) -> impl Iterator<Item = &'a str> {
    let own = answer.others.iter().map(String::as_str);
    let alike = ALIKE.iter().find(|(code, _)| *code == wanted && answer.others.is_empty());
    own.chain(alike.into_iter().flat_map(|(_, codes)| codes.iter().copied()))
}

/// Whether the pattern has an enhanced code behind the three digits.
fn wants_enhanced(pattern: &str) -> bool {
    pattern.split(' ').nth(1).is_some_and(|word| word.matches('.').count() == 2)
}

/// Whether a reply that should begin with an enhanced code of its class does not.
fn lacks_enhanced(line: &str) -> bool {
    let mut words = line.split(' ');
    let class = words.next().unwrap_or_default().get(..1).unwrap_or_default();
    let mut numbers = words.next().unwrap_or_default().split('.');
    let has_class = numbers.next() == Some(class);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let details: Vec<&str> = numbers.collect();
    // A 3yz reply has none (RFC 2034 section 4).
    class != "3" && !(has_class && details.len() == 2 && details.into_iter().all(is_number))
}

/// Whether `line` is like `pattern`, where each `*` stands for any text. The
/// parts between the stars have to be found in order, the first at the start
/// and the last at the end.
fn matches(pattern: &str, line: &str) -> bool {
    let Some((first, others)) = pattern.split_once('*') else { return pattern == line };
    let (middle, last) = others.rsplit_once('*').unwrap_or(("", others));
    let inner = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    let Some(mut inner) = inner else { return false };
    middle.split('*').all(|part| match inner.split_once(part) {
        Some((_, after)) => {
            inner = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pattern: &str, others: &[&str]) -> Answer {
        let others = others.iter().map(|other| (*other).to_owned()).collect();
        Answer { pattern: pattern.to_owned(), others }
    }

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_does() {
        for (pattern, line, same) in [
            ("220 *", "220 host", true),
            ("220 *", "220 ", true),
            ("220 *", "220", false),
            ("220 * ESMTP *", "220 host ESMTP x", true),
            ("220 * ESMTP *", "220 host SMTP x", false),
            ("250 a*a", "250 a", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("250 ok", "250 okay", false),
        ] {
            assert_eq!(matches(pattern, line), same, "{pattern} {line}");
        }
    }

    #[test]
    fn by_codes_the_text_is_free_and_another_digit_is_not() {
        let codes = Judge::Codes { enhanced: false };
        for (pattern, line, taken) in [
            ("250 2.1.0 *", "250 OK", true),
            ("250 2.1.0 *", "250", true),
            ("250 2.1.0 *", "251 2.1.0 x", false),
            ("50* 5.5.* *", "502 no", true),
            ("503 5.5.1 *", "554 no valid recipients", true),
            ("503 5.5.1 *", "451 later", false),
            ("550 5.7.1 *", "250 OK", false),
            ("334", "334 VXNlcm5hbWU6", true),
            ("250 *", "25", false),
        ] {
            assert_eq!(codes.takes(&answer(pattern, &[]), line), taken, "{pattern} {line}");
        }
        assert!(!Judge::Texts.takes(&answer("503 5.5.1 *", &[]), "554 5.5.1 x"));
    }

    #[test]
    fn or_takes_what_it_names_and_nothing_else_and_only_by_codes() {
        let (codes, either) = (Judge::Codes { enhanced: false }, answer("503 *", &["250", "55*"]));
        for (line, taken) in [("503 x", true), ("250 x", true), ("554 x", true), ("501 x", false)] {
            assert_eq!(codes.takes(&either, line), taken, "{line}");
        }
        assert!(!Judge::Texts.takes(&either, "250 x"));
        assert_eq!(codes.wanted(&either), "503 or 250 or 55*");
        assert_eq!(Judge::Texts.wanted(&either), "503 *");
        let closed = answer("[closed]", &["221"]);
        assert!(codes.takes_instead(&closed, "221") && !codes.takes_instead(&closed, "250"));
        assert!(!Judge::Texts.takes_instead(&closed, "221"));
    }

    #[test]
    fn an_enhanced_code_is_wanted_where_it_was_announced_and_has_the_class_of_its_reply() {
        let codes = Judge::Codes { enhanced: true };
        for (pattern, line, taken) in [
            ("250 2.1.0 *", "250 2.6.10 whatever", true),
            ("250 2.1.0 *", "250 OK", false),
            ("250 2.1.0 *", "250 5.1.0 OK", false),
            ("250 2.1.0 *", "250 2.1 OK", false),
            ("250 2.1.0 *", "250 2.1.x OK", false),
            ("250 *", "250 OK", true),
            ("503 5.5.1 *", "554 5.5.1 none", true),
        ] {
            assert_eq!(codes.takes(&answer(pattern, &[]), line), taken, "{pattern} {line}");
        }
        assert_eq!(codes.wanted(&answer("250 2.1.0 *", &[])), "250, and an enhanced code");
        assert_eq!(codes.wanted(&answer("354 *", &[])), "354");
        assert!(codes.takes(&answer("554 5.6.0 *", &["354"]), "354 go on"));
    }
}
