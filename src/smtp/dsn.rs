//! What a sender wants to be told about a letter (RFC 3461).
//!
//! In: the values of `RET=`, `ENVID=`, `NOTIFY=` and `ORCPT=`. Out: the same as
//! facts, which print back in the form that goes over the wire, so that the next
//! server gets them as we did.
//!
//! Left to others: who says these words when (`command.rs`), and the reports that
//! follow from them (`relay/report/`).
//!
//! Book: docs/14-the-queue.md.

use std::fmt::{self, Display, Formatter};

use crate::smtp::text::ascii_address;

/// The longest `ENVID` and the longest `ORCPT`, in octets of the form in which they go on (RFC
/// 3461 sections 4.4 and 4.2).
const ENVID_LIMIT: usize = 100;
const ORCPT_LIMIT: usize = 500;

/// How much of a letter comes back with a report of failure (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

/// What MAIL says about reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailDsn {
    /// How much of the letter comes back.
    pub ret: Option<Ret>,
    /// A text by which the sender knows the letter again, in xtext (section 4.4).
    pub envid: Option<String>,
}

/// What RCPT says about reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptDsn {
    /// When to tell the sender; `None` leaves it to us: of a failure.
    pub notify: Option<Notify>,
    /// The address as its first sender wrote it.
    pub orcpt: Option<OriginalRecipient>,
}

/// The value of `NOTIFY=` (section 4.1). With all three false it is `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify {
    /// Once the letter is in the mailbox.
    pub success: bool,
    /// If it cannot be delivered.
    pub failure: bool,
    /// If it takes long.
    pub delay: bool,
}

/// The value of `ORCPT=`: `type;address` (section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// Such as `rfc822`; an atom.
    pub address_type: String,
    /// In xtext. One outside ASCII, which RFC 6533 allows, is spelt in ASCII.
    pub address: String,
}

impl Ret {
    /// Reads `FULL` or `HDRS`, in any case.
    pub fn parse(value: &str) -> Option<Ret> {
        match value.to_ascii_uppercase().as_str() {
            "FULL" => Some(Ret::Full),
            "HDRS" => Some(Ret::Headers),
            _ => None,
        }
    }
}

impl Notify {
    /// The sender has said nothing: failures are reported (RFC 3461 section 4.1).
    pub const DEFAULT: Notify = Notify { success: false, failure: true, delay: false };
    /// The sender wants to hear nothing.
    pub const NEVER: Notify = Notify { success: false, failure: false, delay: false };

    /// Reads `NEVER`, or one or more of the other three words, in any case.
    pub fn parse(value: &str) -> Option<Notify> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Notify::NEVER);
        }
        let mut notify = Notify::NEVER;
        for word in value.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => notify.success = true,
                "FAILURE" => notify.failure = true,
                "DELAY" => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }
}

impl RcptDsn {
    /// What to tell the sender about this recipient.
    pub fn wanted(&self) -> Notify {
        self.notify.unwrap_or(Notify::DEFAULT)
    }

    /// What two addresses of one mailbox want together; NEVER only if both say so.
    pub fn wanted_with(&self, other: &RcptDsn) -> Option<Notify> {
        if self.notify.is_none() && other.notify.is_none() {
            return None;
        }
        let (one, two) = (self.wanted(), other.wanted());
        Some(Notify {
            success: one.success || two.success,
            failure: one.failure || two.failure,
            delay: one.delay || two.delay,
        })
    }

    /// The same without a success, which is told once where an alias leads to several
    /// (section 5.2.7).
    pub fn without_success(&self) -> RcptDsn {
        let notify = self.notify.map(|notify| Notify { success: false, ..notify });
        RcptDsn { notify, orcpt: self.orcpt.clone() }
    }
}

impl OriginalRecipient {
    /// Reads `type;address`.
    pub fn parse(value: &str) -> Option<OriginalRecipient> {
        let (address_type, address) = value.split_once(';')?;
        let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        let is_type = !address_type.is_empty() && address_type.chars().all(is_atom);
        // An address of this type may stand outside ASCII (RFC 6533 section 3). It goes on in
        // ASCII, because the next server may take nothing else, and that form has to fit.
        let is_utf8 = address_type.eq_ignore_ascii_case("utf-8");
        let spelt = |c: char| {
            if is_utf8 && is_utf8_text(c) {
                ascii_address(c.encode_utf8(&mut [0; 4]))
            } else {
                c.to_string()
            }
        };
        let address: String = address.chars().map(spelt).collect();
        let is_short = address_type.len() + 1 + address.len() <= ORCPT_LIMIT;
        let is_fine = is_type && is_xtext(&address) && is_short;
        is_fine.then(|| OriginalRecipient { address_type: address_type.to_owned(), address })
    }
}

/// Whether a character may stand in an address outside ASCII.
fn is_utf8_text(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
}

/// Whether a text may stand after `ENVID=`.
pub fn is_envid(value: &str) -> bool {
    is_xtext(value) && value.len() <= ENVID_LIMIT
}

/// Printable ASCII, in which `+`, `=` and everything else stand as `+NN` (section 4), but for
/// control characters: a line end has no business in an address or a name.
pub fn is_xtext(value: &str) -> bool {
    octets_of(value).is_some_and(|octets| {
        octets.iter().all(|octet| !octet.is_ascii_control() || *octet == b'\t')
    })
}

/// The text that xtext stands for; `None` if that is no UTF-8.
pub fn from_xtext(xtext: &str) -> Option<String> {
    String::from_utf8(octets_of(xtext)?).ok()
}

/// The octets that xtext stands for, one or more.
fn octets_of(xtext: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(xtext.len());
    let mut rest = xtext.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'!'..=b'~' if octet != b'=' => octet,
            _ => return None,
        });
    }
    Some(octets).filter(|octets| !octets.is_empty())
}

/// A digit of xtext, which has no small ones.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// ` RET=HDRS ENVID=…`, each where it was given: the end of a MAIL command.
impl Display for MailDsn {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self.ret {
            Some(Ret::Full) => f.write_str(" RET=FULL")?,
            Some(Ret::Headers) => f.write_str(" RET=HDRS")?,
            None => {}
        }
        match &self.envid {
            Some(envid) => write!(f, " ENVID={envid}"),
            None => Ok(()),
        }
    }
}

/// ` NOTIFY=FAILURE ORCPT=rfc822;…`, each where it was given: the end of a RCPT
/// command.
impl Display for RcptDsn {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if let Some(notify) = self.notify {
            write!(f, " NOTIFY={notify}")?;
        }
        match &self.orcpt {
            Some(orcpt) => write!(f, " ORCPT={orcpt}"),
            None => Ok(()),
        }
    }
}

impl Display for Notify {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let all = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let words: Vec<_> =
            all.iter().filter(|(is_wanted, _)| *is_wanted).map(|one| one.1).collect();
        f.write_str(if words.is_empty() { "NEVER".to_owned() } else { words.join(",") }.as_str())
    }
}

impl Display for OriginalRecipient {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{};{}", self.address_type, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_or_a_list_of_the_other_words() {
        for (text, printed) in [
            ("never", "NEVER"),
            ("success", "SUCCESS"),
            ("Delay,FAILURE", "FAILURE,DELAY"),
            ("SUCCESS,FAILURE,DELAY", "SUCCESS,FAILURE,DELAY"),
        ] {
            assert_eq!(Notify::parse(text).map(|it| it.to_string()), Some(printed.to_owned()));
        }
        for text in ["", "NEVER,FAILURE", "FAILURE,", "ALWAYS", "SUCCESS FAILURE"] {
            assert_eq!(Notify::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_original_recipient_has_a_type_and_an_address_in_xtext() {
        for text in [
            "rfc822;bob@host.example",
            "rfc822;a+2Bb@host.example",
            "x400;+20",
            "UTF-8;\\x{FC}@b.example",
        ] {
            assert_eq!(
                OriginalRecipient::parse(text).map(|it| it.to_string()).as_deref(),
                Some(text)
            );
        }
        for (text, kept) in [
            ("utf-8;\u{fc}@b.example", "utf-8;\\x{FC}@b.example"),
            // Half of it is spelt already.
            ("utf-8;\u{fc}\\x{2B}x", "utf-8;\\x{FC}\\x{2B}x"),
        ] {
            let read = OriginalRecipient::parse(text).unwrap();
            assert_eq!(read.to_string(), kept);
            assert_eq!(OriginalRecipient::parse(kept), Some(read), "it is read back");
        }
        // A blank that is no ASCII, a control, a line end, and what xtext and UTF-8 both spell.
        let odd = ["utf-8;a\u{a0}b", "utf-8;a\u{85}b", "rfc822;a+0D+0Ab", "utf-8;a=b", "utf-8;a+b"];
        let wrong = ["", "rfc822", "rfc822;", ";bob", "rfc 822;bob", "rfc822;a+b", "rfc822;a=b"];
        for text in wrong.into_iter().chain(odd) {
            assert_eq!(OriginalRecipient::parse(text), None, "{text}");
        }
        let long = |octets: usize| format!("rfc822;{}", "b".repeat(octets - 7));
        assert!(OriginalRecipient::parse(&long(500)).is_some());
        assert!(OriginalRecipient::parse(&long(501)).is_none());
        // What is kept has to fit: each of these is six octets then.
        let umlauts = |count| format!("utf-8;{}", "\u{fc}".repeat(count));
        assert!(OriginalRecipient::parse(&umlauts(82)).is_some());
        assert!(OriginalRecipient::parse(&umlauts(83)).is_none());
    }

    #[test]
    fn where_a_success_is_told_once_the_other_wishes_stay() {
        let notify = Notify::parse("SUCCESS,DELAY");
        let dsn = RcptDsn { notify, orcpt: OriginalRecipient::parse("rfc822;b@host.example") };
        assert_eq!(dsn.without_success().to_string(), " NOTIFY=DELAY ORCPT=rfc822;b@host.example");
    }

    #[test]
    fn an_envid_has_at_most_100_octets_of_xtext() {
        assert!(is_envid("QQ314159") && is_envid("a+3Db"));
        assert!(!is_envid("") && !is_envid("a b") && !is_envid(&"a".repeat(101)));
        assert!(!is_envid("a+0D+0Ab") && !is_envid("a+7F") && is_envid("a+09b+20"));
    }

    #[test]
    fn xtext_stands_for_any_octets() {
        for (xtext, text) in [
            ("bob@host.example", Some("bob@host.example")),
            ("b+2Bb+3Db", Some("b+b=b")),
            ("gr+C3+BCn", Some("gr\u{fc}n")),
            ("+FF", None),
            ("a+", None),
            ("a+2b", None),
        ] {
            assert_eq!(from_xtext(xtext).as_deref(), text, "{xtext}");
        }
        assert!(is_xtext("+FF"), "which is no UTF-8, and may still stand there");
    }
}
