//! What a server offers: the lines of its reply to EHLO (RFC 5321 section 4.1.1.1).
//!
//! In: that reply. Out: whether a keyword is in it, and what stands after it. A server
//! that only knows HELO offers nothing.
//!
//! Book: docs/13-the-client-side.md.

use crate::smtp::auth::mechanism::Mechanism;
use crate::smtp::reply::Reply;

/// One line each, such as `SIZE 1000`.
#[derive(Debug, Default)]
pub struct Extensions(Vec<String>);

impl Extensions {
    /// Those in a reply to EHLO. Its first line is the server's name.
    pub fn of(reply: &Reply) -> Extensions {
        Extensions(reply.lines().iter().skip(1).cloned().collect())
    }

    /// Whether this one is offered.
    pub fn has(&self, keyword: &str) -> bool {
        self.get(keyword).is_some()
    }

    /// The size that a message may have, in octets as sent. `None` if nothing is said
    /// about sizes; 0, or no number, is said and is no limit (RFC 1870 section 3).
    pub fn size_limit(&self) -> Option<u64> {
        let limit = self.get("SIZE")?.parse().ok();
        Some(limit.filter(|limit| *limit > 0).unwrap_or(u64::MAX))
    }

    /// How many RCPTs one transaction may have (RFC 9422). What is no number there,
    /// or no LIMITS at all, is no limit; 452 still is one.
    pub fn recipients_limit(&self) -> usize {
        let limits = self.get("LIMITS").unwrap_or_default().split(' ');
        let mut limits = limits.filter_map(|limit| limit.split_once('='));
        let limit = limits.find(|(name, _)| name.eq_ignore_ascii_case("RCPTMAX"));
        let limit = limit.and_then(|(_, value)| value.parse().ok());
        limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX)
    }

    /// The mechanisms of AUTH that we know, too, in the order of [`Mechanism::ALL`].
    /// `AUTH=PLAIN` is the form of a draft from before RFC 2554, which old clients looked
    /// for; some servers say that line alone, some both with different lists.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let lines = self.0.iter().filter_map(|line| line.split_once([' ', '=']));
        let lists = lines.filter(|(word, _)| word.eq_ignore_ascii_case("AUTH"));
        let words = lists.flat_map(|(_, list)| list.split([' ', '=']));
        let offered: Vec<_> = words.filter_map(Mechanism::parse).collect();
        Mechanism::ALL.into_iter().filter(|mechanism| offered.contains(mechanism)).collect()
    }

    /// What stands after a keyword; it may be empty. Keywords have no case.
    fn get(&self, keyword: &str) -> Option<&str> {
        self.0.iter().find_map(|line| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            word.eq_ignore_ascii_case(keyword).then_some(rest.trim())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(lines: &[&str]) -> Extensions {
        Extensions(lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn a_keyword_is_found_in_any_case_and_only_as_a_whole_word() {
        let offered = extensions(&["size 1000", "8BitMime", "PIPELININGX"]);
        assert_eq!(offered.size_limit(), Some(1000));
        assert_eq!(offered.get("8BITMIME"), Some(""));
        assert!(!offered.has("PIPELINING"));
    }

    #[test]
    fn a_limit_of_recipients_is_a_number_above_zero() {
        for (offer, limit) in [
            ("LIMITS RCPTMAX=5", 5),
            ("limits MAILMAX=3 rcptmax=1", 1),
            ("LIMITS RCPTMAX=0", usize::MAX),
            ("LIMITS RCPTMAX RCPTDOMAINMAX=2", usize::MAX),
            ("LIMITS RCPTMAX=many", usize::MAX),
            ("LIMITS", usize::MAX),
            ("XLIMITS RCPTMAX=5", usize::MAX),
        ] {
            assert_eq!(extensions(&[offer]).recipients_limit(), limit, "{offer}");
        }
    }

    #[test]
    fn of_the_mechanisms_offered_those_come_first_that_do_not_send_the_password() {
        use Mechanism::{CramMd5, Login, Plain, ScramSha256};
        for (offer, known) in [
            (&["AUTH PLAIN LOGIN cram-md5 GSSAPI"][..], &[CramMd5, Plain, Login][..]),
            (&["auth plain scram-sha-256"], &[ScramSha256, Plain]),
            (&["AUTH=LOGIN PLAIN"], &[Plain, Login]),
            (&["AUTH CRAM-MD5", "Auth=Login"], &[CramMd5, Login]),
            (&["AUTH GSSAPI"], &[]),
            (&["AUTH", "AUTH=", "SIZE", "AUTHPLAIN PLAIN", "X AUTH PLAIN"], &[]),
        ] {
            assert_eq!(extensions(offer).mechanisms(), known, "{offer:?}");
        }
    }
}
