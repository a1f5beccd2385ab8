//! The envelope of a letter in the queue, as text that a person can read.
//!
//! In: what the session knew of a letter, or the text of an envelope. Out: an
//! [`Entry`], whose `Display` is that text: SMTP's own words where SMTP has them.
//! An entry is a letter for one destination, so whatever is decided about it is
//! decided for that destination alone. Nothing here touches a file.
//!
//! Left to others: where the text is kept (`queue.rs`), and what becomes of the
//! recipients (`relay/`).
//!
//! Book: docs/14-the-queue.md.

use std::fmt::{self, Display, Formatter};
use std::str::{FromStr, Lines};

use jiff::Timestamp;

use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::smtp::answer::{Answer, Verdict};
use crate::smtp::command::{Mail, Rcpt, mail, rcpt};
use crate::smtp::dsn::{MailDsn, RcptDsn};
use crate::smtp::reply::Enhanced;
use crate::smtp::session::Recipient;
use crate::smtp::site::{Destination, LocalMailbox};
use crate::smtp::text::printable;

/// The first line of every envelope: which form the others have.
const FORM: &str = "ehlo-queue 2";

/// A letter on its way to one destination, as its envelope says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes.
    pub next_hop: NextHop,
    /// The alias that led there, if it led to another server. Its name goes along in
    /// `Delivered-To`, so that we know the letter again if it comes back.
    pub alias: Option<Mailbox>,
    /// When it is to be tried again.
    pub next: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether the sender was told that it takes long.
    pub is_warned: bool,
    /// What all entries of one message share.
    pub letter: Letter,
    /// Who it is for there; one or more.
    pub recipients: Vec<QueuedRecipient>,
}

/// Where an entry goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// A mailbox of this server.
    Mailbox(LocalMailbox),
    /// The mail hosts of a domain, or the host of an address literal.
    Domain(Domain),
    /// The server that takes all our mail for others.
    Smarthost,
    /// Nowhere: nobody gets it by this entry, and the sender wants to hear what was done.
    Nowhere,
}

/// What is known of a message, whoever it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where errors are reported to.
    pub reverse_path: ReversePath,
    /// What the sender wants in a report.
    pub dsn: MailDsn,
    /// When we took it.
    pub arrived: Timestamp,
    /// How many octets of the file are our own `Return-Path` line, which nobody
    /// else may get (RFC 5321 section 4.4).
    pub skip: u64,
    /// Its size as sent, without those octets: line ends are two, no dots are stuffed
    /// (RFC 1870 section 5).
    pub size: u64,
    /// Whether it has octets outside ASCII (RFC 6152).
    pub is_8bit: bool,
    /// Whether its header has, and its client said SMTPUTF8, which it then needs to go on
    /// (RFC 6531 section 3.4).
    pub needs_smtputf8: bool,
}

/// One recipient of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedRecipient {
    /// The address it goes to.
    pub address: Mailbox,
    /// The address that the sender gave. An alias may have made another one of it.
    pub given: ForwardPath,
    /// When to tell the sender about it.
    pub dsn: RcptDsn,
    /// What became of it.
    pub state: RecipientState,
    /// What was said about it last; `None` if nothing was yet.
    pub answer: Option<Answer>,
}

/// What became of a recipient. Each but the first is on disk before anything that
/// follows from it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecipientState {
    /// Nothing final yet.
    Waiting,
    /// The letter is where it should go, and the sender wants to hear of it.
    Delivered,
    /// An alias led to several addresses, and the sender wants to hear of that and not of
    /// each of them (RFC 3461 section 5.2.7.3).
    Expanded,
    /// It will not get there, and the sender has to hear of it.
    Failed,
    /// Nothing is left to do.
    Ended,
}

/// How each state is called in an envelope.
const STATES: [(RecipientState, &str); 5] = [
    (RecipientState::Waiting, "waiting"),
    (RecipientState::Delivered, "delivered"),
    (RecipientState::Expanded, "expanded"),
    (RecipientState::Failed, "failed"),
    (RecipientState::Ended, "ended"),
];

impl RecipientState {
    /// Whether the sender wants to hear of it, and with it what was said.
    fn is_news(self) -> bool {
        !matches!(self, RecipientState::Waiting | RecipientState::Ended)
    }
}

/// A line of an envelope that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEnvelope {
    /// Counts from 1; 0 if it is not about one line.
    pub line: usize,
    /// What was expected.
    pub expected: &'static str,
}

impl Entry {
    /// Whether there is a recipient in this state.
    pub fn has(&self, state: RecipientState) -> bool {
        self.recipients.iter().any(|recipient| recipient.state == state)
    }

    /// Whether the sender wants to hear that the letter arrived.
    pub fn wants_success(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.dsn.wanted().success)
    }

    /// Whether there is something that the sender wants to hear.
    pub fn has_news(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.state.is_news())
    }

    /// Whether somebody who waits has a sender who wants to hear that it takes long, and
    /// has not heard it.
    pub fn wants_warning(&self) -> bool {
        let wants =
            |one: &QueuedRecipient| one.state == RecipientState::Waiting && one.dsn.wanted().delay;
        !self.is_warned && self.recipients.iter().any(wants)
    }

    /// The numbers of those about whom nothing final is known.
    pub fn waiting(&self) -> Vec<usize> {
        let all = self.recipients.iter().zip(0..);
        let waiting = all.filter(|(one, _)| one.state == RecipientState::Waiting);
        waiting.map(|(_, number)| number).collect()
    }

    /// The sender was told about everybody there was news of.
    pub fn note_told(&mut self, is_delay: bool) {
        self.is_warned |= is_delay;
        self.end_all(&[
            RecipientState::Delivered,
            RecipientState::Expanded,
            RecipientState::Failed,
        ]);
    }

    /// Nobody can be told. Those who have the letter need nothing more.
    pub fn note_nobody_to_tell(&mut self) {
        self.is_warned = true;
        self.end_all(&[RecipientState::Delivered, RecipientState::Expanded]);
    }

    fn end_all(&mut self, states: &[RecipientState]) {
        let ended = self.recipients.iter_mut().filter(|one| states.contains(&one.state));
        ended.for_each(|one| one.state = RecipientState::Ended);
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.state == RecipientState::Ended)
    }

    /// Reads what [`Entry`]'s `Display` writes.
    pub fn parse(text: &[u8]) -> Result<Entry, BadEnvelope> {
        // Every line has its end, or the file was cut short.
        let text = str::from_utf8(text).ok().filter(|text| text.ends_with('\n'));
        let whole = BadEnvelope { line: 0, expected: "whole lines of UTF-8" };
        let mut lines = text.ok_or(whole)?.lines();
        if lines.next() != Some(FORM) {
            return Err(BadEnvelope { line: 1, expected: FORM });
        }
        let mut fields = Fields { lines, number: 1 };
        let next_hop = fields.value("FOR mailbox, domain, smarthost or nowhere", next_hop)?;
        let alias = fields.value("ALIAS <address> or none", |text| {
            if text == "none" { Some(None) } else { mailbox(text).map(Some) }
        })?;
        let arrived = fields.parsed("ARRIVED and a time such as 2026-11-22T05:14:39Z")?;
        let next = fields.parsed("NEXT and a time such as 2026-11-22T05:14:39Z")?;
        let attempts = fields.parsed("ATTEMPTS and a number")?;
        let is_warned = fields.parsed("WARNED true or false")?;
        let skip = fields.parsed("SKIP and a number")?;
        let letter = fields.value("MAIL FROM:<address> SIZE=number", |text| {
            let Mail { from: reverse_path, size, is_8bit, smtputf8, dsn, .. } = mail(text).ok()?;
            let (size, needs_smtputf8) = (size?, smtputf8);
            Some(Letter { reverse_path, dsn, arrived, skip, size, is_8bit, needs_smtputf8 })
        })?;
        let mut recipients = Vec::new();
        while recipients.is_empty() || fields.lines.clone().next().is_some() {
            recipients.push(fields.recipient()?);
        }
        Ok(Entry { next_hop, alias, next, attempts, is_warned, letter, recipients })
    }
}

/// The entries of a message: one for each destination, and one more for each alias that
/// leads there. With a smarthost all other servers are one destination.
pub fn entries(letter: &Letter, recipients: Vec<Recipient>, has_smarthost: bool) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for Recipient { address: given, destination, alias, dsn } in recipients {
        let (mut state, mut answer) = (RecipientState::Waiting, None);
        // A mailbox here has one entry, and its owner knows the aliases.
        let alias = alias.filter(|_| matches!(destination, Destination::Elsewhere(_)));
        let (next_hop, address) = match destination {
            Destination::Here(mailbox) => (NextHop::Mailbox(mailbox.clone()), mailbox.address()),
            Destination::Elsewhere(address) if has_smarthost => (NextHop::Smarthost, address),
            Destination::Elsewhere(address) => (NextHop::Domain(address.domain.clone()), address),
            Destination::Expansion(alias) => {
                state = RecipientState::Expanded;
                answer = Some(Answer::delivered((0, 0), "passed on to several addresses"));
                (NextHop::Nowhere, alias)
            }
        };
        let recipient = QueuedRecipient { address, given, dsn, state, answer };
        let is_it = |entry: &&mut Entry| entry.next_hop == next_hop && entry.alias == alias;
        if let Some(entry) = entries.iter_mut().find(is_it) {
            entry.recipients.push(recipient);
        } else {
            entries.push(Entry {
                next_hop,
                alias,
                next: letter.arrived,
                attempts: 0,
                is_warned: false,
                letter: letter.clone(),
                recipients: vec![recipient],
            });
        }
    }
    entries
}

/// What the sender wants to hear of those who have the letter already, in one entry.
pub fn news_of(stored: &[Entry]) -> Option<Entry> {
    let told = stored.iter().flat_map(|entry| &entry.recipients);
    let told = told.filter(|one| one.dsn.wanted().success).map(|one| QueuedRecipient {
        state: RecipientState::Delivered,
        answer: Some(Answer::delivered((1, 5), "the letter is in the mailbox")),
        ..one.clone()
    });
    let recipients: Vec<_> = told.collect();
    let entry = stored.first().filter(|_| !recipients.is_empty())?;
    Some(Entry { next_hop: NextHop::Nowhere, recipients, ..entry.clone() })
}

/// The lines of an envelope, one after the other.
struct Fields<'a> {
    lines: Lines<'a>,
    number: usize,
}

impl<'a> Fields<'a> {
    /// What stands on the next line after the first word of `expected`, read by `read`.
    fn value<T>(
        &mut self,
        expected: &'static str,
        read: impl Fn(&'a str) -> Option<T>,
    ) -> Result<T, BadEnvelope> {
        self.number += 1;
        let (word, _) = expected.split_once(' ').unwrap_or_default();
        let line = self.lines.next().and_then(|line| line.split_once(' '));
        let value = line.filter(|(first, _)| *first == word).and_then(|(_, value)| read(value));
        value.ok_or(BadEnvelope { line: self.number, expected })
    }

    /// The same for a value that the standard library can read.
    fn parsed<T: FromStr>(&mut self, expected: &'static str) -> Result<T, BadEnvelope> {
        self.value(expected, |text| text.parse().ok())
    }

    /// The three lines about one recipient.
    fn recipient(&mut self) -> Result<QueuedRecipient, BadEnvelope> {
        let (address, dsn) = self.value("RCPT TO:<address>", |text| match rcpt(text).ok()? {
            Rcpt { to: ForwardPath::Mailbox(address), dsn } => Some((address, dsn)),
            Rcpt { to: ForwardPath::Postmaster, .. } => None,
        })?;
        let given = self.value("GIVEN <address>", |text| whole(ForwardPath::parse(text)))?;
        let (state, answer) = self.value("STATE waiting, or another with an answer", state)?;
        Ok(QueuedRecipient { address, given, dsn, state, answer })
    }
}

/// What `Display` writes of a next hop.
fn next_hop(text: &str) -> Option<NextHop> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("smarthost", "") => Some(NextHop::Smarthost),
        ("nowhere", "") => Some(NextHop::Nowhere),
        ("domain", domain) => whole(Domain::parse(domain)).map(NextHop::Domain),
        ("mailbox", address) => match mailbox(address)? {
            Mailbox { local_part: name, domain: Domain::Name(domain) } => {
                Some(NextHop::Mailbox(LocalMailbox { domain, name }))
            }
            Mailbox { domain: Domain::Literal(_), .. } => None,
        },
        _ => None,
    }
}

/// `waiting`, or a state with what was said last: `failed 5.1.1 mx.b.example 550 …`. What
/// the sender is told needs it: without it nobody would be told.
fn state(text: &str) -> Option<(RecipientState, Option<Answer>)> {
    let (word, said) = text.split_once(' ').unwrap_or((text, ""));
    let (state, _) = *STATES.iter().find(|(_, known)| *known == word)?;
    if said.is_empty() {
        return (!state.is_news()).then_some((state, None));
    }
    let mut parts = said.splitn(3, ' ');
    let status: Enhanced = parts.next()?.parse().ok()?;
    let by = Some(parts.next()?).filter(|by| *by != "-").map(str::to_owned);
    let verdict = match status.class {
        2 => Verdict::Delivered,
        4 => Verdict::Later,
        _ => Verdict::Never,
    };
    Some((state, Some(Answer { verdict, status, text: parts.next()?.to_owned(), by })))
}

/// `<address>`
fn mailbox(text: &str) -> Option<Mailbox> {
    whole(Mailbox::parse(text.strip_prefix('<')?.strip_suffix('>')?))
}

/// What was read, if it was all there is.
fn whole<T, E>(read: Result<(T, &str), E>) -> Option<T> {
    read.ok().filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

/// The form that stands in the file.
impl Display for Entry {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Letter { reverse_path, dsn, arrived, skip, size, is_8bit, needs_smtputf8 } =
            &self.letter;
        let alias = self.alias.as_ref().map_or("none".to_owned(), |alias| format!("<{alias}>"));
        writeln!(f, "{FORM}\nFOR {}\nALIAS {alias}", self.next_hop)?;
        writeln!(f, "ARRIVED {arrived}\nNEXT {}\nATTEMPTS {}", self.next, self.attempts)?;
        writeln!(f, "WARNED {}\nSKIP {skip}", self.is_warned)?;
        let body = if *is_8bit { " BODY=8BITMIME" } else { "" };
        let smtputf8 = if *needs_smtputf8 { " SMTPUTF8" } else { "" };
        writeln!(f, "MAIL FROM:{reverse_path} SIZE={size}{body}{smtputf8}{dsn}")?;
        self.recipients.iter().try_for_each(|recipient| recipient.fmt(f))
    }
}

/// As the log and the queue's envelopes name it.
impl Display for NextHop {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            NextHop::Mailbox(mailbox) => write!(f, "mailbox <{}>", mailbox.address()),
            NextHop::Domain(domain) => write!(f, "domain {domain}"),
            NextHop::Smarthost => f.write_str("smarthost"),
            NextHop::Nowhere => f.write_str("nowhere"),
        }
    }
}

impl Display for QueuedRecipient {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        writeln!(f, "RCPT TO:<{}>{}\nGIVEN {}", self.address, self.dsn, self.given)?;
        write!(f, "STATE {}", self.state)?;
        if let Some(Answer { status, by, text, .. }) = &self.answer {
            // What a server said, or its name, must not become a line of its own.
            let by = by.as_deref().map(|by| one_line(by).replace(' ', "_"));
            write!(f, " {status} {} {}", by.as_deref().unwrap_or("-"), one_line(text))?;
        }
        writeln!(f)
    }
}

impl Display for RecipientState {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let known = STATES.iter().find(|(state, _)| state == self);
        f.write_str(known.map_or("", |(_, word)| word))
    }
}

impl Display for BadEnvelope {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self.line {
            0 => write!(f, "expected {}", self.expected),
            line => write!(f, "line {line}: expected {}", self.expected),
        }
    }
}

impl std::error::Error for BadEnvelope {}

fn one_line(text: &str) -> String {
    if text.chars().any(char::is_control) { printable(text) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::dsn::{Notify, OriginalRecipient};
    use crate::smtp::site::expansion::{Alias, Target};
    use crate::smtp::site::{Relay, Site};
    use std::net::{IpAddr, Ipv4Addr};

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap().0
    }

    fn letter() -> Letter {
        Letter {
            reverse_path: ReversePath::Mailbox(mailbox("ann@client.example")),
            dsn: MailDsn::default(),
            arrived: Timestamp::from_second(1_795_324_479).unwrap(),
            skip: 34,
            size: 1000,
            is_8bit: false,
            needs_smtputf8: false,
        }
    }

    fn recipient(given: &str, destination: Destination, alias: Option<&str>) -> Recipient {
        let (address, _) = ForwardPath::parse(given).unwrap();
        Recipient { address, destination, alias: alias.map(mailbox), dsn: RcptDsn::default() }
    }

    fn elsewhere(text: &str) -> Destination {
        Destination::Elsewhere(mailbox(text))
    }

    fn is_read_back(entry: &Entry) -> bool {
        Entry::parse(entry.to_string().as_bytes()).as_ref() == Ok(entry)
    }

    #[test]
    fn an_envelope_is_text_that_a_person_can_read() {
        let given = "<list@host.example>";
        let recipients =
            vec![recipient(given, elsewhere("cem@b.example"), Some("list@host.example"))];
        let mut entry = entries(&letter(), recipients, false).remove(0);
        entry.recipients[0].dsn.notify = Notify::parse("FAILURE,DELAY");
        entry.recipients[0].dsn.orcpt = OriginalRecipient::parse("rfc822;list@host.example");
        entry.recipients[0].answer = Some(Answer {
            verdict: Verdict::Later,
            status: "4.2.1".parse().unwrap(),
            text: "450 4.2.1 not now".to_owned(),
            by: Some("mx.b.example".to_owned()),
        });
        assert_eq!(
            entry.to_string(),
            "ehlo-queue 2\n\
             FOR domain b.example\n\
             ALIAS <list@host.example>\n\
             ARRIVED 2026-11-22T05:14:39Z\n\
             NEXT 2026-11-22T05:14:39Z\n\
             ATTEMPTS 0\n\
             WARNED false\n\
             SKIP 34\n\
             MAIL FROM:<ann@client.example> SIZE=1000\n\
             RCPT TO:<cem@b.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;list@host.example\n\
             GIVEN <list@host.example>\n\
             STATE waiting 4.2.1 mx.b.example 450 4.2.1 not now\n"
        );
        assert!(is_read_back(&entry));
    }

    #[test]
    fn a_message_has_an_entry_for_each_destination_and_alias() {
        let here = LocalMailbox { domain: "host.example".to_owned(), name: "bob".to_owned() };
        let recipients = || {
            vec![
                recipient("<cem@b.example>", elsewhere("cem@b.example"), None),
                recipient("<dee@b.example>", elsewhere("dee@b.example"), None),
                recipient("<eva@c.example>", elsewhere("eva@c.example"), None),
                recipient(
                    "<list@host.example>",
                    elsewhere("fay@c.example"),
                    Some("list@host.example"),
                ),
                recipient("<bob@host.example>", Destination::Here(here.clone()), None),
            ]
        };
        let shown = |has_smarthost| -> Vec<String> {
            let shown = |entry: &Entry| {
                let to: Vec<_> =
                    entry.recipients.iter().map(|one| one.address.local_part.as_str()).collect();
                format!("{}: {}", entry.next_hop, to.join(" "))
            };
            entries(&letter(), recipients(), has_smarthost).iter().map(shown).collect()
        };
        let bob = "mailbox <bob@host.example>: bob";
        assert_eq!(
            shown(false),
            ["domain b.example: cem dee", "domain c.example: eva", "domain c.example: fay", bob]
        );
        assert_eq!(shown(true), ["smarthost: cem dee eva", "smarthost: fay", bob]);
    }

    /// A text of the address grammar, from numbers: plain, quoted and UTF-8 local-parts,
    /// long names, IDN, address literals, and what is nearly an address.
    fn path((local, domain, size): (u8, u8, u8), text: &str) -> String {
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let local = match local % 6 {
            0 => "a".repeat(usize::from(size)),
            1 => format!("\"{quoted}\""),
            2 => format!("gr\u{fc}n+{}", size),
            3 => "\"a > b\"".to_owned(),
            4 => "list".to_owned(),
            _ => text,
        };
        let length = 1 + u32::from(size) % 70;
        let long = |first: u32, step: u32| -> String {
            (0..length).filter_map(|n| char::from_u32(first + n * step)).collect()
        };
        let domain = match domain % 7 {
            0 => "host.example".to_owned(),
            1 => format!("{}.example", long(0x4e00, 137)),
            2 => format!("{0}.{0}.{0}.{0}.example", "b".repeat(length as usize)),
            3 => format!("[IPv6:2001:db8::{size:x}]"),
            4 => format!("[192.0.2.{size}]"),
            5 => "B\u{dc}CHER.example".to_owned(),
            _ => format!("b{size}.example"),
        };
        format!("<{local}@{domain}>")
    }

    #[test]
    fn whatever_an_address_leads_to_is_read_back_unchanged() {
        fn holds(numbers: (u8, u8, u8), text: String, last: String, flags: (bool, bool)) -> bool {
            let mut site = Site::new("mx.host.example", "host.example", &[], None);
            site.relay = Relay::Everybody;
            // The target of an alias is read as addresses are.
            let target = path((numbers.1, numbers.2, numbers.0), &last);
            if let Ok((ForwardPath::Mailbox(target), "")) = ForwardPath::parse(&target) {
                let targets = vec![Target::Mailbox(target)];
                let alias = Alias { line: 1, name: "list".to_owned(), domain: None, targets };
                // One that leads to itself is refused, and then there is none.
                let _ = site.set_aliases(vec![alias]);
            }
            let given = path(numbers, &text);
            let Ok((to, "")) = ForwardPath::parse(&given) else { return true };
            let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let Ok(resolved) = site.resolve(&to, nowhere, true) else { return true };
            let recipients = resolved.destinations.into_iter().map(|destination| Recipient {
                address: to.clone(),
                destination,
                alias: resolved.alias.clone(),
                dsn: RcptDsn {
                    notify: Some(Notify::DEFAULT),
                    orcpt: OriginalRecipient::parse("rfc822;x"),
                },
            });
            let mut all = entries(&letter(), recipients.collect(), flags.0);
            for entry in &mut all {
                entry.is_warned = flags.1;
                entry.recipients[0].answer = Some(Answer::later((4, 1), last.clone()));
            }
            all.iter().all(is_read_back)
        }
        quickcheck::QuickCheck::new()
            .tests(2000)
            .quickcheck(holds as fn((u8, u8, u8), String, String, (bool, bool)) -> bool);
    }

    #[test]
    fn every_state_and_answer_is_read_back() {
        fn holds(state: u8, status: (u16, u16), text: String, by: Option<String>) -> bool {
            let (state, verdict, class) = [
                (RecipientState::Waiting, Verdict::Later, 4),
                (RecipientState::Delivered, Verdict::Delivered, 2),
                (RecipientState::Expanded, Verdict::Delivered, 2),
                (RecipientState::Failed, Verdict::Never, 5),
                (RecipientState::Ended, Verdict::Never, 5),
                (RecipientState::Ended, Verdict::Delivered, 2),
            ][usize::from(state) % 6];
            let recipients = vec![recipient("<a@b.example>", elsewhere("a@b.example"), None)];
            let mut entry = entries(&letter(), recipients, false).remove(0);
            let (subject, detail) = (status.0 % 1000, status.1 % 1000);
            let status = Enhanced { class, subject, detail };
            let by = by.map(|by| format!("mx{}", one_line(&by).replace(' ', "_")));
            let answer = Answer { verdict, status, text: one_line(&text), by };
            entry.recipients[0].state = state;
            entry.recipients[0].answer = Some(answer);
            is_read_back(&entry)
        }
        quickcheck::quickcheck(holds as fn(u8, (u16, u16), String, Option<String>) -> bool);
    }

    #[test]
    fn a_state_that_the_sender_hears_of_has_an_answer() {
        let recipients = vec![recipient("<a@b.example>", elsewhere("a@b.example"), None)];
        let whole = entries(&letter(), recipients, false).remove(0).to_string();
        for (_, word) in STATES {
            let text = whole.replace("STATE waiting", &format!("STATE {word}"));
            let is_read = Entry::parse(text.as_bytes()).is_ok();
            assert_eq!(is_read, ["waiting", "ended"].contains(&word), "{word}");
        }
    }

    #[test]
    fn an_envelope_that_lost_a_part_is_no_envelope() {
        let recipients = vec![recipient("<a@b.example>", elsewhere("a@b.example"), None)];
        let entry = entries(&letter(), recipients, false).remove(0);
        let whole = entry.to_string();
        for end in 0..whole.len() {
            assert!(Entry::parse(&whole.as_bytes()[..end]).is_err(), "{}", &whole[..end]);
        }
        for (line, text) in whole.lines().enumerate() {
            let other = whole.replace(text, "QUIT");
            assert_eq!(Entry::parse(other.as_bytes()).unwrap_err().line, line + 1, "{other}");
        }
    }
}
