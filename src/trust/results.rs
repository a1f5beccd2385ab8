//! The field that says what came out: `Authentication-Results` (RFC 8601), and what it
//! means for a letter.
//!
//! In: the verdicts about one letter. Out: the field, in file form; a few words for the
//! log; whether the letter is refused, where that is wanted. What others wrote enters the
//! field only as a word or in quotes, so it cannot begin a line or say more than it is.
//!
//! Book: docs/16-trust.md.

use std::fmt::{self, Display, Formatter};

use crate::smtp::session::Distrust;
use crate::smtp::text::printable;
use crate::trust::author::NoAuthor;
use crate::trust::dkim::DkimVerdict;
use crate::trust::dkim::verify::Verifier;
use crate::trust::dmarc::{self, DmarcResult, DmarcVerdict, Policy, Proven};
use crate::trust::explain::Steps;
use crate::trust::lookups::Lookups;
use crate::trust::spf::{self, Request, SpfResult, SpfVerdict};

/// A longer value is cut: lines have an end (RFC 5322 section 2.1.1).
const VALUE_LIMIT: usize = 200;

/// All that was found about one letter.
#[derive(Debug, Clone)]
pub struct Verdicts {
    /// Whom a reader takes for the author.
    pub author: Result<String, NoAuthor>,
    /// About the reverse-path, or HELO where that is empty.
    pub spf: SpfVerdict,
    /// About the HELO name, where the reverse-path was asked about.
    pub helo: Option<SpfVerdict>,
    /// Of each signature; empty if there is none.
    pub dkim: Vec<DkimVerdict>,
    /// Whether that fits the author.
    pub dmarc: DmarcVerdict,
}

impl Verdicts {
    /// Makes all checks of a letter that has been read.
    pub fn find(
        request: &Request,
        letter: Verifier,
        lookups: &Lookups,
        steps: &mut Steps,
    ) -> Verdicts {
        // However slow the DNS of the sender is, the author may have signed.
        let half = lookups.half();
        steps.say(|| "SPF: may this client send for the domain of the sender?".to_owned());
        let spf = spf::check_mail_from(request, &half, steps);
        let has_sender = !request.mail_from.is_empty();
        let helo = has_sender.then(|| {
            steps.say(|| "SPF: and for the name in its EHLO?".to_owned());
            spf::check_helo(request, &half, steps)
        });
        steps.say(|| "DKIM: which domain has signed what arrived?".to_owned());
        let author = letter.author();
        let dkim = letter.finish(lookups, steps);
        steps.say(|| "DMARC: is one of them the domain that a reader sees?".to_owned());
        let proven = Proven {
            spf: (spf.result, &spf.domain),
            dkim: dkim.iter().map(|one| (one.result, one.domain.as_str())).collect(),
        };
        let dmarc = dmarc::check(&author, &proven, lookups, steps);
        Verdicts { author, spf, helo, dkim, dmarc }
    }

    /// The whole field in file form, folded, with its line end. `our_name` is who says so.
    pub fn to_field(&self, our_name: &str, request: &Request) -> String {
        let mut results = Vec::new();
        if self.helo.is_some() {
            results.push(format!(
                "spf={} smtp.mailfrom={}",
                self.spf.result,
                value(request.mail_from)
            ));
        }
        let helo = self.helo.as_ref().unwrap_or(&self.spf);
        results.push(format!("spf={} smtp.helo={}", helo.result, value(request.helo)));
        for one in &self.dkim {
            let why = if one.why.is_empty() { String::new() } else { format!(" ({})", one.why) };
            let (domain, selector) = (value(&one.domain), value(&one.selector));
            results.push(format!(
                "dkim={}{why}\n\t header.d={domain} header.s={selector} header.b={}",
                one.result,
                value(&one.signature)
            ));
        }
        if self.dkim.is_empty() {
            results.push("dkim=none".to_owned());
        }
        let DmarcVerdict { result, policy, domain, .. } = &self.dmarc;
        results.push(format!(
            "dmarc={result} (the owner wants: {policy}) header.from={}",
            value(domain)
        ));
        format!("Authentication-Results: {our_name};\n\t{}\n", results.join(";\n\t"))
    }

    /// Why the letter is refused where the owners' wishes count (`enforce`); nothing if it
    /// is taken. SPF alone counts only if the domain in `From` has no policy of DMARC: a
    /// forwarded letter fails there, and its author's signature may still be right.
    pub fn distrust(&self) -> Option<Distrust> {
        // Of several authors each could be asked about.
        if !matches!(self.author, Ok(_) | Err(NoAuthor::Several(_))) {
            return Some(Distrust::NoAuthor);
        }
        match (self.dmarc.result, self.dmarc.policy) {
            (DmarcResult::TempError, _) => return Some(Distrust::DmarcLater),
            (DmarcResult::Fail, Policy::Reject) => return Some(Distrust::Dmarc),
            _ => {}
        }
        let has_policy = self.dmarc.record.is_some();
        match self.spf.result {
            SpfResult::Fail if !has_policy => Some(Distrust::Spf(self.spf.explanation.clone())),
            SpfResult::TempError if !has_policy => Some(Distrust::SpfLater),
            _ => None,
        }
    }
}

/// A word or an address as it is, and anything else in quotes (RFC 8601 section 2.2).
fn value(text: &str) -> String {
    let text: String = printable(text).chars().take(VALUE_LIMIT).collect();
    // A word is a token of RFC 2045 section 5.1, which has no `/` and no `=`; before the
    // `@` of an address they may stand (RFC 5322 section 3.2.3).
    let has_only = |part: &str, more: &str| {
        let is_one = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-^_`{|}~.".contains(c);
        !part.is_empty() && part.chars().all(|c| is_one(c) || more.contains(c))
    };
    let is_plain = match text.rsplit_once('@') {
        Some((local, domain)) => has_only(local, "/=?") && has_only(domain, ""),
        None => has_only(&text, ""),
    };
    if is_plain {
        return text;
    }
    let inside: String = text.chars().filter(|c| !"\"\\".contains(*c)).collect();
    format!("\"{inside}\"")
}

/// For the log.
impl Display for Verdicts {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "spf={}", self.spf.result)?;
        for one in &self.dkim {
            write!(f, " dkim={} ({})", one.result, value(&one.domain))?;
        }
        if self.dkim.is_empty() {
            f.write_str(" dkim=none")?;
        }
        write!(f, " dmarc={} ({})", self.dmarc.result, value(&self.dmarc.domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::dkim::DkimResult;
    use jiff::Timestamp;

    fn verdicts(spf: SpfResult, dmarc: DmarcResult, policy: Policy, record: bool) -> Verdicts {
        let spf = SpfVerdict {
            result: spf,
            domain: "x.example".to_owned(),
            explanation: Some("go away".to_owned()),
        };
        let dkim = DkimVerdict {
            result: DkimResult::Fail,
            domain: "x.example".to_owned(),
            selector: "key 1".to_owned(),
            signature: "abc+/def".to_owned(),
            why: "the body was changed",
        };
        let dmarc = DmarcVerdict {
            result: dmarc,
            domain: "x.example".to_owned(),
            policy,
            record: record.then(|| "v=DMARC1".to_owned()),
        };
        let author = Ok("x.example".to_owned());
        Verdicts { author, helo: Some(spf.clone()), spf, dkim: vec![dkim], dmarc }
    }

    #[test]
    fn what_others_wrote_cannot_leave_its_place_in_the_field() {
        let all = verdicts(SpfResult::Pass, DmarcResult::Pass, Policy::Reject, true);
        let request = Request {
            ip: "192.0.2.1".parse().unwrap(),
            helo: "a;\r\n\"b\\",
            mail_from: "ann@x.example",
            receiver: "here.example",
            now: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(
            all.to_field("here.example", &request),
            "Authentication-Results: here.example;\n\tspf=pass smtp.mailfrom=ann@x.example;\n\
             \tspf=pass smtp.helo=\"a;x0dx0ab\";\n\tdkim=fail (the body was changed)\n\
             \t header.d=x.example header.s=\"key 1\" header.b=\"abc+/def\";\n\
             \tdmarc=pass (the owner wants: reject) header.from=x.example\n"
        );
        assert_eq!(all.to_string(), "spf=pass dkim=fail (x.example) dmarc=pass (x.example)");
    }

    #[test]
    fn what_others_wrote_makes_no_long_line_in_the_log() {
        let mut all = verdicts(SpfResult::Pass, DmarcResult::Pass, Policy::Reject, true);
        all.dkim[0].domain = "\u{fc}".repeat(100_000);
        assert!(all.to_string().len() < 1000);
    }

    #[test]
    fn words_and_addresses_stand_as_they_are_and_all_else_in_quotes() {
        for text in ["x.example", "abc+def", "b-a=to.example@list.example", "a/b@x.example"] {
            assert_eq!(value(text), text);
        }
        for text in ["", "abc/def", "abc=", "a@b@x.example", "a@x/y", "@x.example", "a b", "a;b"] {
            assert_eq!(value(text), format!("\"{text}\""));
        }
        assert_eq!(value("a\"b\\"), "\"ab\"");
        assert_eq!(value(&"x".repeat(1000)).len(), VALUE_LIMIT);
    }

    quickcheck::quickcheck! {
        fn a_value_is_one_short_piece_of_a_line(text: String) -> bool {
            let value = value(&text);
            let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
            let inside = value.trim_matches('"');
            let is_safe = |c: char| c == ' ' || c.is_ascii_graphic() && !"\"\\".contains(c);
            value.len() <= VALUE_LIMIT + 2
                && inside.chars().all(is_safe)
                && (is_quoted || !inside.contains([' ', ';', '(', ')']))
        }
    }

    #[test]
    fn a_letter_is_refused_only_where_its_owner_wants_it() {
        use DmarcResult as D;
        use SpfResult as S;
        for (spf, dmarc, policy, record, expected) in [
            (S::Fail, D::Fail, Policy::Reject, true, Some(Distrust::Dmarc)),
            (S::Fail, D::Fail, Policy::Quarantine, true, None),
            (S::Fail, D::Fail, Policy::None, true, None),
            (S::Fail, D::Pass, Policy::Reject, true, None),
            (
                S::Fail,
                D::None,
                Policy::None,
                false,
                Some(Distrust::Spf(Some("go away".to_owned()))),
            ),
            (S::SoftFail, D::None, Policy::None, false, None),
            (S::TempError, D::None, Policy::None, false, Some(Distrust::SpfLater)),
            (S::TempError, D::Pass, Policy::Reject, true, None),
            // Whatever SPF said later, it would be taken.
            (S::TempError, D::Fail, Policy::None, true, None),
            (S::TempError, D::Fail, Policy::Quarantine, true, None),
            (S::TempError, D::Fail, Policy::Reject, true, Some(Distrust::Dmarc)),
            (S::Pass, D::TempError, Policy::None, false, Some(Distrust::DmarcLater)),
            (S::PermError, D::None, Policy::None, false, None),
            (S::Neutral, D::None, Policy::None, false, None),
            (S::None, D::None, Policy::None, false, None),
        ] {
            let all = verdicts(spf, dmarc, policy, record);
            assert_eq!(all.distrust(), expected, "{spf} {dmarc} {policy}");
        }
    }

    #[test]
    fn an_author_who_cannot_be_asked_about_is_refused_and_several_are_asked() {
        let mut all = verdicts(SpfResult::Pass, DmarcResult::Fail, Policy::None, false);
        for author in [NoAuthor::Missing, NoAuthor::NoDomain, NoAuthor::TooMuch] {
            all.author = Err(author);
            assert_eq!(all.distrust(), Some(Distrust::NoAuthor));
        }
        all.author = Err(NoAuthor::Several(vec!["x.example".to_owned()]));
        assert_eq!(all.distrust(), None);
    }
}
