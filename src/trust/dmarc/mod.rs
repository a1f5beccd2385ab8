//! DMARC: is what was proven the domain that the reader sees? (RFC 9989)
//!
//! In: the author's domain, and what SPF and DKIM have proven. Out: whether one of the
//! proven domains is the author's, and what the owner of the domain wants if none is. The
//! owner says so at `_dmarc.` and the domain, or above it: a walk goes up the tree, one label
//! after the other, with at most eight questions for one name. It also tells which names
//! belong together, so no list of public suffixes is needed.
//!
//! `record.rs` reads what the owner has written.
//!
//! Book: docs/16-trust.md.

pub mod record;

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

use crate::dns::{Family, Trouble};
use crate::smtp::text::printable;
use crate::trust::author::NoAuthor;
use crate::trust::dkim::DkimResult;
use crate::trust::dmarc::record::Record;
use crate::trust::explain::Steps;
use crate::trust::lookups::Lookups;
use crate::trust::spf::SpfResult;

pub use crate::trust::dmarc::record::Policy;

/// A longer name is asked for as it is, and then without its first labels (section 4.10).
const LABELS_LIMIT: usize = 7;

/// What came out (RFC 8601 section 2.7, with the words of RFC 9989).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmarcResult {
    /// The owner has no policy.
    None,
    /// One of the proven domains is the author's.
    Pass,
    /// None is.
    Fail,
    /// DNS failed; later there may be an answer.
    TempError,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcVerdict {
    /// What came out.
    pub result: DmarcResult,
    /// The author's domain: that of `From`; empty if there is not exactly one.
    pub domain: String,
    /// What the owner wants; nothing without a record.
    pub policy: Policy,
    /// The record that counts, as its owner wrote it, printable.
    pub record: Option<String>,
}

/// What SPF and DKIM have found: results with their domains, in lower case.
#[derive(Debug, Clone)]
pub struct Proven<'a> {
    /// That of the reverse-path, or of HELO where that is empty.
    pub spf: (SpfResult, &'a str),
    /// One for each signature.
    pub dkim: Vec<(DkimResult, &'a str)>,
}

impl Proven<'_> {
    fn has_passed(&self, domain: &str) -> bool {
        self.spf == (SpfResult::Pass, domain) || self.dkim.contains(&(DkimResult::Pass, domain))
    }
}

/// The walk, with what was found on it so far.
struct Walk<'a> {
    lookups: &'a Lookups<'a>,
    steps: &'a mut Steps,
    found: HashMap<String, Option<Record>>,
}

/// Looks for the policy of the author's domain, and whether what was proven fits. A letter
/// without exactly one author fails; of several domains the strictest policy counts, or a
/// second author would be a way around it (section 11).
pub fn check(
    author: &Result<String, NoAuthor>,
    proven: &Proven,
    lookups: &Lookups,
    steps: &mut Steps,
) -> DmarcVerdict {
    let mut walk = Walk { lookups, steps, found: HashMap::new() };
    let domains: &[String] = match author {
        Ok(domain) => std::slice::from_ref(domain),
        Err(why) => {
            walk.steps.say(|| why.to_string());
            if let NoAuthor::Several(domains) = why { domains } else { &[] }
        }
    };
    let mut verdict = DmarcVerdict {
        result: if author.is_ok() { DmarcResult::None } else { DmarcResult::Fail },
        domain: author.clone().unwrap_or_default(),
        policy: Policy::None,
        record: None,
    };
    for domain in domains {
        let (result, policy, record) = match walk.check(domain, proven) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => continue,
            Err(trouble) => {
                walk.steps.say(|| format!("no answer today: {trouble}"));
                verdict.result = DmarcResult::TempError;
                continue;
            }
        };
        if author.is_ok() {
            verdict.result = result;
        }
        if verdict.record.is_none() || policy > verdict.policy {
            (verdict.policy, verdict.record) = (policy, Some(record.text));
        }
    }
    let (result, policy) = (verdict.result, verdict.policy);
    walk.steps.say(|| format!("so DMARC: {result}, and the owner wants: {policy}"));
    verdict
}

impl Walk<'_> {
    /// One author; nothing where the owner has no policy.
    fn check(
        &mut self,
        author: &str,
        proven: &Proven,
    ) -> Result<Option<(DmarcResult, Policy, Record)>, Trouble> {
        // A name with a record that has itself passed counts as the organization (section 4.10.2).
        let own = if proven.has_passed(author) { self.record(author)? } else { None };
        let is_enough = own.is_some();
        let way = match own {
            Some(record) => vec![(author.to_owned(), record)],
            None => self.up(author)?,
        };
        let organization = organization_of(author, &way);
        self.steps.say(|| {
            if is_enough {
                format!("{author} has passed itself, so nobody above it is asked")
            } else {
                format!("{author} belongs to the organization {organization}")
            }
        });
        let Some((at, record)) = policy_record(author, &organization, &way) else {
            self.steps.say(|| format!("no policy for {author}"));
            return Ok(None);
        };
        if record.is_wrong && !record.has_reports {
            self.steps.say(|| format!("the record at {at} has no policy that there is"));
            return Ok(None);
        }
        let policy = self.policy(author, at, record)?;
        let result = self.alignment(author, &organization, record, proven)?;
        Ok(Some((result, policy, record.clone())))
    }

    /// All records from a name up to the root, the longest name first (section 4.10).
    fn up(&mut self, start: &str) -> Result<Vec<(String, Record)>, Trouble> {
        let mut way = Vec::new();
        for name in names_up(start) {
            let Some(record) = self.record(&name)? else { continue };
            let ends_here = record.psd.is_some();
            way.push((name, record));
            if ends_here {
                break;
            }
        }
        Ok(way)
    }

    /// The record of one name; none where there are several.
    fn record(&mut self, name: &str) -> Result<Option<Record>, Trouble> {
        if let Some(found) = self.found.get(name) {
            return Ok(found.clone());
        }
        let texts = match self.lookups.txt(&format!("_dmarc.{name}")) {
            Ok(texts) => texts,
            Err(trouble) if trouble.is_lasting() => Vec::new(),
            Err(trouble) => return Err(trouble),
        };
        let mut records: Vec<Record> =
            texts.iter().filter_map(|text| Record::parse(text)).collect();
        let found = if records.len() == 1 { records.pop() } else { None };
        self.steps.say(|| match &found {
            Some(record) => format!("_dmarc.{}: {}", printable(name), record.text),
            None => format!("_dmarc.{}: no record", printable(name)),
        });
        self.found.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    /// What the owner wants for this name (section 4.10.1).
    fn policy(&mut self, author: &str, at: &str, record: &Record) -> Result<Policy, Trouble> {
        let own = if record.is_wrong { Policy::None } else { record.p.unwrap_or(Policy::None) };
        let mut policy = own;
        if at != author && !record.is_wrong {
            policy = record.sp.unwrap_or(own);
            // Only whoever has `np` wants to know whether the name exists (RFC 8020).
            if let Some(np) = record.np {
                match self.lookups.addresses(author, Family::V4) {
                    Err(Trouble::NoSuchName) => policy = np,
                    Ok(_) => {}
                    Err(trouble) => return Err(trouble),
                }
            }
        }
        Ok(if record.is_test { policy.softer() } else { policy })
    }

    /// Whether one of the proven domains is the author's.
    fn alignment(
        &mut self,
        author: &str,
        organization: &str,
        record: &Record,
        proven: &Proven,
    ) -> Result<DmarcResult, Trouble> {
        let (spf, spf_domain) = proven.spf;
        let mut all = vec![(
            "SPF",
            spf == SpfResult::Pass,
            spf == SpfResult::TempError,
            spf_domain,
            record.is_spf_strict,
        )];
        all.extend(proven.dkim.iter().map(|(result, domain)| {
            let (is_pass, is_temp) =
                (*result == DkimResult::Pass, *result == DkimResult::TempError);
            ("DKIM", is_pass, is_temp, *domain, record.is_dkim_strict)
        }));
        // The author's own name comes first, since nobody has to be asked about it.
        all.sort_by_key(|(_, _, _, domain, _)| *domain != author);
        let mut trouble = None;
        let mut may_pass_later = false;
        for (what, is_pass, is_temp, domain, is_strict) in all {
            if !is_pass && !is_temp {
                continue;
            }
            let is_aligned = match self.is_aligned(author, organization, domain, is_strict) {
                Ok(is_aligned) => is_aligned,
                Err(error) => {
                    trouble = Some(error);
                    continue;
                }
            };
            self.steps.say(|| {
                let verb = if is_aligned { "is" } else { "is not" };
                let how = if is_strict { "strict" } else { "relaxed" };
                format!("{what} for {}: {verb} the author's ({how})", printable(domain))
            });
            if is_aligned && is_pass {
                return Ok(DmarcResult::Pass);
            }
            may_pass_later |= is_aligned;
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None if may_pass_later => Ok(DmarcResult::TempError),
            None => Ok(DmarcResult::Fail),
        }
    }

    /// Whether a domain is the author's, or belongs to the same organization (section 4.4).
    fn is_aligned(
        &mut self,
        author: &str,
        organization: &str,
        domain: &str,
        is_strict: bool,
    ) -> Result<bool, Trouble> {
        // An organization is the end of each of its names: all others are not asked about.
        let may_belong = domain == organization || domain.ends_with(&format!(".{organization}"));
        if domain == author || is_strict || !may_belong {
            return Ok(domain == author);
        }
        let way = self.up(domain)?;
        Ok(organization_of(domain, &way) == organization)
    }
}

/// A name, and those above it that are asked about: at most eight (section 4.10).
fn names_up(start: &str) -> Vec<String> {
    let labels: Vec<&str> = start.split('.').collect();
    let above = labels.len().saturating_sub(1).min(LABELS_LIMIT);
    let names = (1..=above)
        .rev()
        .map(|count| labels.get(labels.len() - count..).unwrap_or_default().join("."));
    std::iter::once(start.to_owned()).chain(names).collect()
}

/// Which organization a name belongs to, by the records on the way up (section 4.10.2).
fn organization_of(start: &str, way: &[(String, Record)]) -> String {
    for (name, record) in way {
        match record.psd {
            Some(false) => return name.clone(),
            Some(true) if name != start => return one_below(start, name),
            _ => {}
        }
    }
    way.last().map_or(start, |(name, _)| name).to_owned()
}

/// The name one label below `above`, on the way to `start`.
fn one_below(start: &str, above: &str) -> String {
    let labels: Vec<&str> = start.split('.').collect();
    let count = above.split('.').count() + 1;
    labels.get(labels.len().saturating_sub(count)..).unwrap_or_default().join(".")
}

/// Whose record counts: the author's own, else that of its organization, else that of the
/// public suffix above (section 4.10.1).
fn policy_record<'a>(
    author: &str,
    organization: &str,
    way: &'a [(String, Record)],
) -> Option<(&'a str, &'a Record)> {
    let at = |wanted: &str| way.iter().find(|(name, _)| name == wanted);
    let suffix = || way.iter().find(|(_, record)| record.psd == Some(true));
    let found = at(author).or_else(|| at(organization)).or_else(suffix);
    found.map(|(name, record)| (name.as_str(), record))
}

impl Display for DmarcResult {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            DmarcResult::None => "none",
            DmarcResult::Pass => "pass",
            DmarcResult::Fail => "fail",
            DmarcResult::TempError => "temperror",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_of_the_rfc_has_eight_questions() {
        let names = names_up("a.b.c.d.e.f.g.h.i.j.mail.example.com");
        let expected = [
            "a.b.c.d.e.f.g.h.i.j.mail.example.com",
            "g.h.i.j.mail.example.com",
            "h.i.j.mail.example.com",
            "i.j.mail.example.com",
            "j.mail.example.com",
            "mail.example.com",
            "example.com",
            "com",
        ];
        assert_eq!(names, expected);
        assert_eq!(names_up("mail.example"), ["mail.example", "example"]);
        assert_eq!(names_up("example"), ["example"]);
    }

    /// What a walk finds: names and the rest of their records.
    fn way(found: &[(&str, &str)]) -> Vec<(String, Record)> {
        let record = |text: &str| Record::parse(format!("v=DMARC1; p=none; {text}").as_bytes());
        found.iter().map(|(name, text)| ((*name).to_owned(), record(text).unwrap())).collect()
    }

    #[test]
    fn the_organization_is_where_the_rfc_says() {
        // The examples of section 4.10.2.
        let start = "a.mail.example.com";
        for (found, expected) in [
            (way(&[("mail.example.com", ""), ("example.com", "")]), "example.com"),
            (way(&[("mail.example.com", "psd=n")]), "mail.example.com"),
            (way(&[("com", "psd=y")]), "example.com"),
            (way(&[]), "a.mail.example.com"),
            (way(&[("a.mail.example.com", "psd=y")]), "a.mail.example.com"),
            (way(&[("a.mail.example.com", ""), ("example.com", "psd=u")]), "example.com"),
        ] {
            assert_eq!(organization_of(start, &found), expected, "{found:?}");
        }
    }

    quickcheck::quickcheck! {
        fn no_name_has_more_than_eight_questions(name: String) -> bool {
            names_up(&name).len() <= LABELS_LIMIT + 1
        }
    }
}
