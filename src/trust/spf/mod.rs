//! SPF: may this client send for that domain? (RFC 7208)
//!
//! In: a client and what it said. Out: what the owner of the domain says about it, in a
//! TXT record that may lead on to other names. Whoever sends a letter chooses the domain,
//! so everything here is bounded: ten terms that ask DNS, two questions without an answer,
//! ten hosts for each term, and the time of [`Lookups`].
//!
//! `record.rs` reads the record, `macros.rs` the names with `%` in them.
//!
//! Book: docs/16-trust.md.

pub mod macros;
pub mod record;

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use jiff::Timestamp;

use crate::dns::{Family, Trouble};
use crate::smtp::text::printable;
use crate::trust::explain::Steps;
use crate::trust::lookups::Lookups;
use crate::trust::spf::macros::{Known, MacroString};
use crate::trust::spf::record::{Directive, Mechanism, Prefixes, Record};

/// So many terms may ask DNS, those of included records among them (section 4.6.4).
const TERMS_LIMIT: usize = 10;
/// So many questions may have no answer (section 4.6.4).
const VOID_LIMIT: usize = 2;
/// So many hosts of an `mx`, and names of a `ptr`, are looked at (section 4.6.4).
const HOSTS_LIMIT: usize = 10;
/// So much of an owner's explanation is kept: it has to fit into a reply.
const EXPLANATION_LIMIT: usize = 300;

/// What is known of a client when it has said MAIL.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where it connects from.
    pub ip: IpAddr,
    /// The name in its EHLO or HELO.
    pub helo: &'a str,
    /// The reverse-path, without brackets; empty for `<>`.
    pub mail_from: &'a str,
    /// Our own name, for the macro `r` in an explanation.
    pub receiver: &'a str,
    /// When, for the macro `t` in an explanation.
    pub now: Timestamp,
}

/// What came out (RFC 7208 section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpfResult {
    /// There is no record, or no domain to ask about.
    None,
    /// The owner says nothing about this client.
    Neutral,
    /// It may.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// DNS failed; later there may be an answer.
    TempError,
    /// The record cannot be used.
    PermError,
}

/// The answer, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpfVerdict {
    /// What came out.
    pub result: SpfResult,
    /// The domain asked about: of the reverse-path, or of HELO where that is empty.
    pub domain: String,
    /// What the owner says to those who may not (`exp=`), harmless and short.
    pub explanation: Option<String>,
}

/// Why there is no answer. Both words of it are results.
enum Stop {
    /// DNS failed.
    Temp(String),
    /// The record is wrong, or costs too much.
    Perm(String),
}

/// Where the explanation of a failure stands, and whose it is.
struct Failure {
    target: MacroString,
    domain: String,
}

/// One check, with what it has cost so far.
struct Check<'a> {
    request: &'a Request<'a>,
    local_part: &'a str,
    sender_domain: &'a str,
    lookups: &'a Lookups<'a>,
    steps: &'a mut Steps,
    /// Terms that asked DNS.
    terms: usize,
    /// Questions that had no answer.
    void: usize,
}

/// Checks the reverse-path, or `postmaster` at the HELO name where it is empty (section
/// 2.4).
pub fn check_mail_from(request: &Request, lookups: &Lookups, steps: &mut Steps) -> SpfVerdict {
    match request.mail_from.rsplit_once('@') {
        Some((local_part, domain)) => check(local_part, domain, request, lookups, steps),
        None => check_helo(request, lookups, steps),
    }
}

/// Checks the HELO name (section 2.3).
pub fn check_helo(request: &Request, lookups: &Lookups, steps: &mut Steps) -> SpfVerdict {
    check("", request.helo, request, lookups, steps)
}

fn check(
    local_part: &str,
    domain: &str,
    request: &Request,
    lookups: &Lookups,
    steps: &mut Steps,
) -> SpfVerdict {
    // A mapped address is an IPv4 one (section 5).
    let request = &Request { ip: request.ip.to_canonical(), ..*request };
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let local_part = if local_part.is_empty() { "postmaster" } else { local_part };
    let mut check =
        Check { request, local_part, sender_domain: domain, lookups, steps, terms: 0, void: 0 };
    let (result, explanation) = match check.host(domain) {
        Ok((result, failure)) => (result, failure.and_then(|failure| check.explanation(&failure))),
        Err(Stop::Temp(why)) => {
            check.steps.say(|| format!("no answer today: {why}"));
            (SpfResult::TempError, None)
        }
        Err(Stop::Perm(why)) => {
            check.steps.say(|| format!("no answer ever: {why}"));
            (SpfResult::PermError, None)
        }
    };
    let client = request.ip;
    steps.say(|| format!("so {client} for {}: {result}", printable(domain)));
    SpfVerdict { result, domain: domain.to_ascii_lowercase(), explanation }
}

impl Check<'_> {
    /// What the record of a domain says: `check_host` of the RFC (section 4). It calls
    /// itself for each `include` and `redirect`, and so ten times at most.
    fn host(&mut self, domain: &str) -> Result<(SpfResult, Option<Failure>), Stop> {
        let Some(record) = self.record(domain)? else { return Ok((SpfResult::None, None)) };
        for directive in &record.directives {
            if self.matches(directive, domain)? {
                self.steps.say(|| format!("{} matches", directive.text));
                let target = record.exp.filter(|_| directive.result == SpfResult::Fail);
                let failure = target.map(|target| Failure { target, domain: domain.to_owned() });
                return Ok((directive.result, failure));
            }
            self.steps.say(|| format!("{} does not match", directive.text));
        }
        let Some(target) = &record.redirect else { return Ok((SpfResult::Neutral, None)) };
        self.count_term()?;
        let target = self.name(Some(target), domain)?;
        self.steps.say(|| format!("redirect: the record of {} counts", printable(&target)));
        match self.host(&target)? {
            (SpfResult::None, _) => {
                Err(Stop::Perm("it leads to a name without a record".to_owned()))
            }
            found => Ok(found),
        }
    }

    /// The record of a domain; none if it has none, or is no name that could have one.
    fn record(&mut self, domain: &str) -> Result<Option<Record>, Stop> {
        // Names with one label only, such as `localhost`, and address literals have no
        // owner who could say anything (section 4.3).
        if !domain.contains('.') || domain.starts_with('[') {
            self.steps
                .say(|| format!("{} is no domain that could have a record", printable(domain)));
            return Ok(None);
        }
        let mut texts = match self.lookups.txt(domain) {
            Ok(texts) => texts,
            Err(trouble) if trouble.is_lasting() => Vec::new(),
            Err(trouble) => return Err(temp(domain, &trouble)),
        };
        texts.retain(|text| Record::is_one(text));
        let Some(text) = texts.pop() else {
            self.steps.say(|| format!("{} has no record", printable(domain)));
            return Ok(None);
        };
        if !texts.is_empty() {
            return Err(Stop::Perm(format!("{} has several records", printable(domain))));
        }
        self.steps.say(|| format!("the record of {}: {}", printable(domain), printable(&text)));
        let record = Record::parse(&text);
        record.map(Some).map_err(|why| {
            Stop::Perm(format!("its record cannot be read: {}", printable(why.to_string())))
        })
    }

    fn matches(&mut self, directive: &Directive, domain: &str) -> Result<bool, Stop> {
        match &directive.mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, bits) => {
                Ok(agree(self.request.ip, (*network).into(), Prefixes { v4: *bits, v6: 128 }))
            }
            Mechanism::Ip6(network, bits) => {
                Ok(agree(self.request.ip, (*network).into(), Prefixes { v4: 32, v6: *bits }))
            }
            Mechanism::Include(name) => {
                self.count_term()?;
                let name = self.name(Some(name), domain)?;
                match self.host(&name)?.0 {
                    SpfResult::Pass => Ok(true),
                    SpfResult::None => {
                        Err(Stop::Perm(format!("{} has no record to include", printable(&name))))
                    }
                    _ => Ok(false),
                }
            }
            Mechanism::A(name, prefixes) => {
                self.count_term()?;
                let name = self.name(name.as_ref(), domain)?;
                self.has_address(&name, *prefixes)
            }
            Mechanism::Mx(name, prefixes) => {
                self.count_term()?;
                let name = self.name(name.as_ref(), domain)?;
                self.has_address_of_mx(&name, *prefixes)
            }
            Mechanism::Ptr(name) => {
                self.count_term()?;
                let name = self.name(name.as_ref(), domain)?;
                Ok(self.client_names().iter().any(|one| is_in_domain(one, &name)))
            }
            Mechanism::Exists(name) => {
                self.count_term()?;
                let name = self.name(Some(name), domain)?;
                // Always an A record, also where the client has an IPv6 address.
                let answer = self.lookups.addresses(&name, Family::V4);
                self.answer(answer, &name).map(|addresses| !addresses.is_empty())
            }
        }
    }

    /// The name that a term is about: the domain itself where it names none.
    fn name(&mut self, spec: Option<&MacroString>, domain: &str) -> Result<String, Stop> {
        let Some(spec) = spec else { return Ok(domain.to_owned()) };
        let name = if spec.wants_name() {
            // The look-up of the name counts (section 4.6.4).
            self.count_term()?;
            self.client_name(domain)
        } else {
            String::new()
        };
        Ok(spec.expand_name(&self.known(domain, &name)))
    }

    fn known<'b>(&'b self, domain: &'b str, name: &'b str) -> Known<'b> {
        Known {
            local_part: self.local_part,
            sender_domain: self.sender_domain,
            domain,
            ip: self.request.ip,
            name,
            helo: self.request.helo,
            receiver: self.request.receiver,
            now: self.request.now.as_second(),
        }
    }

    fn has_address(&mut self, name: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let answer = self.lookups.addresses(name, self.family());
        let addresses = self.answer(answer, name)?;
        Ok(addresses.into_iter().any(|address| agree(self.request.ip, address, prefixes)))
    }

    fn has_address_of_mx(&mut self, name: &str, prefixes: Prefixes) -> Result<bool, Stop> {
        let answer = self.lookups.mx(name);
        let hosts = self.answer(answer, name)?;
        if hosts.len() > HOSTS_LIMIT {
            return Err(Stop::Perm(format!("{} has more than ten MX", printable(name))));
        }
        // An empty name is the null MX (RFC 7505): no host.
        for host in hosts.iter().filter(|mx| !mx.host.is_empty()) {
            if self.has_address(&host.host, prefixes)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What DNS said, where an answer without records counts.
    fn answer<T>(&mut self, answer: Result<Vec<T>, Trouble>, name: &str) -> Result<Vec<T>, Stop> {
        let records = match answer {
            Ok(records) => records,
            // Nobody was asked: such a name cannot be in DNS (section 4.3).
            Err(Trouble::BadName) => return Ok(Vec::new()),
            Err(Trouble::NoSuchName) => Vec::new(),
            Err(trouble) => return Err(temp(name, &trouble)),
        };
        if records.is_empty() {
            self.void += 1;
            self.steps.say(|| format!("{} has no such record", printable(name)));
        }
        if self.void > VOID_LIMIT {
            return Err(Stop::Perm("more than two questions have no answer".to_owned()));
        }
        Ok(records)
    }

    /// The names that the client's address claims and that lead back to it (section 5.5).
    /// Trouble with one of them only means that it is none.
    fn client_names(&self) -> Vec<String> {
        let ip = self.request.ip;
        let mut names = self.lookups.names(ip).unwrap_or_default();
        names.truncate(HOSTS_LIMIT);
        names.retain(|name| {
            self.lookups
                .addresses(name, self.family())
                .is_ok_and(|addresses| addresses.contains(&ip))
        });
        names
    }

    /// One of them: the domain itself if it is there, then one inside it, then any
    /// (section 7.3).
    fn client_name(&self, domain: &str) -> String {
        let names = self.client_names();
        let is_it = |name: &&String| name.eq_ignore_ascii_case(domain);
        let best = names.iter().find(is_it);
        let best = best.or_else(|| names.iter().find(|name| is_in_domain(name, domain)));
        best.or(names.first()).cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    fn family(&self) -> Family {
        if self.request.ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn count_term(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        if self.terms > TERMS_LIMIT {
            return Err(Stop::Perm("more than ten terms ask DNS".to_owned()));
        }
        Ok(())
    }

    /// The owner's text for those who may not. Whatever is wrong with it, there is none
    /// then (section 6.2). These look-ups are not counted.
    fn explanation(&self, failure: &Failure) -> Option<String> {
        let name = |spec: &MacroString| {
            if spec.wants_name() { self.client_name(&failure.domain) } else { String::new() }
        };
        let client_name = name(&failure.target);
        let target = failure.target.expand_name(&self.known(&failure.domain, &client_name));
        let texts = self.lookups.txt(&target).ok()?;
        let [text] = texts.as_slice() else { return None };
        let text = MacroString::explanation(str::from_utf8(text).ok()?)?;
        let client_name = name(&text);
        let known = self.known(&failure.domain, &client_name);
        let text = printable(text.expand(&known, EXPLANATION_LIMIT));
        // What is printable is ASCII, so it may be cut anywhere.
        Some(text.chars().take(EXPLANATION_LIMIT).collect())
    }
}

/// Trouble that may be over later.
fn temp(name: &str, trouble: &Trouble) -> Stop {
    Stop::Temp(format!("DNS about {}: {trouble}", printable(name)))
}

/// Whether a name is a domain, or stands below it.
fn is_in_domain(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    name.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether two addresses of one kind agree in so many bits.
fn agree(one: IpAddr, other: IpAddr, prefixes: Prefixes) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let different = one.to_bits() ^ other.to_bits();
            different.leading_zeros() >= u32::from(prefixes.v4)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let different = one.to_bits() ^ other.to_bits();
            different.leading_zeros() >= u32::from(prefixes.v6)
        }
        _ => false,
    }
}

/// In the words of RFC 8601 section 2.7.2.
impl Display for SpfResult {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            SpfResult::None => "none",
            SpfResult::Neutral => "neutral",
            SpfResult::Pass => "pass",
            SpfResult::Fail => "fail",
            SpfResult::SoftFail => "softfail",
            SpfResult::TempError => "temperror",
            SpfResult::PermError => "permerror",
        })
    }
}
