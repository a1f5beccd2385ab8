//! The letter that tells a sender what became of another one.
//!
//! In: what became of a letter for whom, what servers said about it, and as much of
//! the letter as its sender wants back. Out: a delivery status notification in file
//! form (RFC 3464): about failures, which is a bounce, about delays and about
//! successes (RFC 3461). It has three parts (RFC 6522): one for a person (`human.rs`),
//! one for a program (`status.rs`), and the letter or its header (`original.rs`).
//!
//! Almost every word in it comes from strangers: replies, names of servers, `ENVID`,
//! `ORCPT`, the header. None of them may begin a line of ours, or end a part.
//!
//! A report about a letter without SMTPUTF8 is in ASCII throughout. It has to reach
//! the sender, and the servers on its way promise no more than that.
//!
//! Left to others: who is told what when, whether at all (never about a letter from
//! `<>`), and how the report itself is stored and sent.
//!
//! Book: docs/14-the-queue.md.

mod fold;
mod human;
mod original;
mod status;

use jiff::Timestamp;

pub use crate::relay::report::original::Original;

use crate::relay::report::fold::short_lines;
use crate::smtp::address::ForwardPath;
use crate::smtp::answer::Answer;
use crate::smtp::dsn::OriginalRecipient;
use crate::store::envelope::Letter;
use crate::store::trace::date;

/// How much of the id stands in the boundary, which has 70 characters at most
/// (RFC 2046 section 5.1.1).
const ID_LIMIT: usize = 50;

/// What a report says.
#[derive(Debug)]
pub struct Report<'a> {
    /// The name of this server, which reports. There may be no mailboxes there.
    pub hostname: &'a str,
    /// Our first domain, whose postmaster the sender can ask.
    pub domain: &'a str,
    /// The id of the report, an atom.
    pub id: &'a str,
    /// Now: when the last attempt ended.
    pub when: Timestamp,
    /// The letter. Its reverse-path is told.
    pub letter: &'a Letter,
    /// The id that the letter has here, as in our log.
    pub original_id: &'a str,
    /// Who it was for; one or more, and none whose sender does not want to hear of it.
    pub about: &'a [About<'a>],
    /// What can come back of the letter.
    pub original: &'a Original,
}

/// What became of a letter for one recipient.
#[derive(Debug)]
pub struct About<'a> {
    /// The address that the sender gave, never what an alias made of it.
    pub address: &'a ForwardPath,
    /// What its first sender called it (RFC 3461 section 4.2).
    pub orcpt: Option<&'a OriginalRecipient>,
    /// What became of it.
    pub event: Event,
    /// Why. Its status has the class 4 for a delay and 2 for a success.
    pub answer: &'a Answer,
}

/// What may become of a letter (RFC 3464 section 2.3.3), what matters most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// It is given up.
    Failed,
    /// It still waits.
    Delayed {
        /// When it will be given up.
        will_retry_until: Timestamp,
    },
    /// A server has it that reports no successes itself.
    Relayed,
    /// It reached an alias, and goes on to several others (RFC 3461 section 5.2.7.3).
    Expanded,
    /// It is in the mailbox.
    Delivered,
}

impl Event {
    /// The word of the RFC, and the subject of a report in which nothing is worse.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Event::Failed => ("failed", "Your letter could not be delivered"),
            Event::Delayed { .. } => ("delayed", "Your letter has not been delivered yet"),
            Event::Relayed => ("relayed", "Your letter was handed on"),
            Event::Expanded => ("expanded", "Your letter was delivered"),
            Event::Delivered => ("delivered", "Your letter was delivered"),
        }
    }
}

/// One part of the MIME message (RFC 2046 section 5.1).
#[derive(Debug)]
struct Part {
    content_type: &'static str,
    /// Lines that end with LF, however long; the last one may have none.
    text: Vec<u8>,
}

impl Report<'_> {
    /// The whole report in file form. All lines are short enough to be sent. It has
    /// octets outside ASCII only for a letter with SMTPUTF8, where an address or the
    /// letter has them.
    pub fn to_text(&self) -> Vec<u8> {
        let has_failed = self.about.iter().any(|one| one.event == Event::Failed);
        let original = original::part(self.original, has_failed, self.is_utf8());
        let parts = [human::part(self, original.what()), status::part(self), original];
        let boundary = boundary(self.id, &parts);
        let mut body = Vec::new();
        for Part { content_type, text } in &parts {
            let head = format!(
                "\n--{boundary}\n\
                 Content-Type: {content_type}\n\
                 Content-Transfer-Encoding: {}\n\n",
                encoding(text)
            );
            body.extend([head.as_bytes(), text].concat());
        }
        body.extend(format!("\n--{boundary}--\n").bytes());
        let header = self.own_header(&boundary, encoding(&body));
        short_lines(&[header.as_bytes(), &body].concat())
    }

    /// Whether the letter used SMTPUTF8 (RFC 6531). Whoever has such an address, or wrote
    /// such a header, can read it. Others may be behind a server that cannot even take it.
    fn is_utf8(&self) -> bool {
        self.letter.needs_smtputf8 || self.letter.reverse_path.needs_smtputf8()
    }

    /// `Auto-Submitted` asks other programs not to answer (RFC 3834 section 5).
    /// The parts after it may be 8-bit only if it says so itself (RFC 2045
    /// section 6.4). The subject is the worst news.
    fn own_header(&self, boundary: &str, encoding: &str) -> String {
        let Report { hostname, domain, id, letter, .. } = self;
        let worst = self.about.iter().map(|one| one.event).min().unwrap_or(Event::Failed);
        let (_, subject) = worst.words();
        format!(
            "From: Mail Delivery System <postmaster@{domain}>\n\
             To: {}\n\
             Subject: {subject}\n\
             Date: {}\n\
             Message-ID: <{id}@{hostname}>\n\
             Auto-Submitted: auto-replied\n\
             MIME-Version: 1.0\n\
             Content-Type: multipart/report; report-type=delivery-status;\n\
             \tboundary=\"{boundary}\"\n\
             Content-Transfer-Encoding: {encoding}\n",
            letter.reverse_path,
            date(self.when),
        )
    }
}

impl About<'_> {
    /// The address without brackets.
    fn address(&self) -> String {
        match self.address {
            ForwardPath::Postmaster => "postmaster".to_owned(),
            ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
        }
    }
}

impl Part {
    /// What of the letter this is, in words.
    fn what(&self) -> &'static str {
        let is_header = self.content_type.ends_with("headers");
        if is_header { "The header of your letter" } else { "Your letter" }
    }
}

/// How this is sent (RFC 2045 section 6.2).
fn encoding(text: &[u8]) -> &'static str {
    if text.is_ascii() { "7bit" } else { "8bit" }
}

/// A line between the parts that stands in none of them, or a part could end
/// itself (RFC 2046 section 5.1.1).
fn boundary(id: &str, parts: &[Part]) -> String {
    let id: String = id.chars().take(ID_LIMIT).collect();
    let is_in =
        |boundary: &[u8], part: &Part| part.text.windows(boundary.len()).any(|w| w == boundary);
    let is_free = |boundary: &String| !parts.iter().any(|part| is_in(boundary.as_bytes(), part));
    // There are more numbers than a part has octets.
    (0_u64..).map(|number| format!("{id}={number}")).find(is_free).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use mail_parser::{Message, MessageParser, MimeHeaders};

    use super::*;
    use crate::smtp::address::{Domain, Mailbox, ReversePath};
    use crate::smtp::answer::Verdict;
    use crate::smtp::dsn::MailDsn;
    use crate::smtp::reply::Enhanced;

    const HEADER: &[u8] = b"Received: from client.example\nSubject: hello\n";
    const UNTIL: i64 = 1_795_756_479;

    /// Letters of ann's, without SMTPUTF8 and with it.
    static LETTER: LazyLock<Letter> = LazyLock::new(|| Letter {
        reverse_path: ReversePath::parse("<ann@host.example>").unwrap().0,
        dsn: MailDsn::default(),
        arrived: at(1_795_324_479),
        skip: 0,
        size: 0,
        is_8bit: false,
        needs_smtputf8: false,
    });
    static UTF8_LETTER: LazyLock<Letter> =
        LazyLock::new(|| Letter { needs_smtputf8: true, ..LETTER.clone() });

    fn path(text: &str) -> ForwardPath {
        ForwardPath::Mailbox(Mailbox::parse(text).unwrap().0)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn delayed() -> Event {
        Event::Delayed { will_retry_until: at(UNTIL) }
    }

    /// An answer of the server `by`, or of ours.
    fn answer(verdict: Verdict, status: (u8, u16, u16), text: &str, by: Option<&str>) -> Answer {
        let (class, subject, detail) = status;
        let status = Enhanced { class, subject, detail };
        Answer { verdict, status, text: text.to_owned(), by: by.map(str::to_owned) }
    }

    fn refusal(text: &str) -> Answer {
        answer(Verdict::Never, (5, 1, 1), text, Some("mx.else.example"))
    }

    /// A report about these recipients, to ann.
    fn report<'a>(about: &'a [About], original: &'a Original, is_utf8: bool) -> Report<'a> {
        Report {
            hostname: "mx.host.example",
            domain: "host.example",
            id: "M5P6Q7",
            when: at(1_795_324_500),
            letter: if is_utf8 { &UTF8_LETTER } else { &LETTER },
            original_id: "M1P2Q3",
            about,
            original,
        }
    }

    fn text_of(about: &[About], original: &Original, is_utf8: bool) -> Vec<u8> {
        report(about, original, is_utf8).to_text()
    }

    /// A report that the letter failed for these.
    fn bounce(failed: &[(&ForwardPath, &Answer)], header: &[u8], is_utf8: bool) -> Vec<u8> {
        let about: Vec<About> = failed
            .iter()
            .map(|(address, answer)| About { address, orcpt: None, event: Event::Failed, answer })
            .collect();
        text_of(&about, &Original::Header(header.to_vec()), is_utf8)
    }

    /// The content type and the text of each part, as a mail program reads them.
    fn parts<'a>(report: &'a Message) -> Vec<(String, &'a [u8])> {
        let types = report.parts.iter().skip(1).map(|part| {
            let content_type = part.content_type().unwrap();
            let subtype = content_type.subtype().unwrap();
            let text = &report.raw_message()[part.offset_body as usize..part.offset_end as usize];
            (format!("{}/{subtype}", content_type.ctype()), text)
        });
        types.collect()
    }

    /// One field of one group of the second part; group 0 is about the letter.
    fn status_field(report: &Message, group: usize, name: &str) -> Option<String> {
        let status = String::from_utf8(parts(report)[1].1.to_vec()).unwrap();
        let group = format!("{}\n\n", status.split("\n\n").nth(group)?);
        let group = MessageParser::default().parse(group.as_bytes())?;
        Some(group.header_raw(name)?.trim().to_owned())
    }

    fn parse(text: &[u8]) -> Message<'_> {
        MessageParser::default().parse(text).unwrap()
    }

    #[test]
    fn a_bounce_is_a_report_of_three_parts() {
        let text = bounce(
            &[(&path("bob@else.example"), &refusal("550 5.1.1 no such mailbox here"))],
            HEADER,
            false,
        );
        let expected = "\
From: Mail Delivery System <postmaster@host.example>
To: <ann@host.example>
Subject: Your letter could not be delivered
Date: Sun, 22 Nov 2026 05:15:00 +0000
Message-ID: <M5P6Q7@mx.host.example>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"M5P6Q7=0\"
Content-Transfer-Encoding: 7bit

--M5P6Q7=0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 7bit

This is the mail server mx.host.example.

Your letter, which came here on Sun, 22 Nov 2026 05:14:39 +0000, could not be
delivered to this address, and it will not be tried again:

<bob@else.example>
    mx.else.example answered: 550 5.1.1 no such mailbox here
    There is no mailbox of this name. Please look for a typing error before
    the @. If there is none, the address may have been given up.

If it was for others too, this says nothing about them. The header of your
letter is attached. Should you ask postmaster@host.example about it, give the
id M1P2Q3.

--M5P6Q7=0
Content-Type: message/delivery-status
Content-Transfer-Encoding: 7bit

Reporting-MTA: dns; mx.host.example
Arrival-Date: Sun, 22 Nov 2026 05:14:39 +0000

Final-Recipient: rfc822; bob@else.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.else.example
Diagnostic-Code: smtp; 550 5.1.1 no such mailbox here

--M5P6Q7=0
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 7bit

Received: from client.example
Subject: hello

--M5P6Q7=0--
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_mail_program_finds_every_recipient_and_its_status() {
        let (bob, eve) = (path("bob@else.example"), path("\"e v;e\"@[192.0.2.9]"));
        let full = answer(Verdict::Never, (5, 2, 2), "552 5.2.2 full", Some("[127.0.0.2]"));
        let none = Answer::never((1, 2), "no such domain");
        let text = bounce(&[(&bob, &full), (&eve, &none)], HEADER, false);
        let report = parse(&text);
        assert_eq!(report.header_raw("Auto-Submitted").unwrap().trim(), "auto-replied");
        assert_eq!(
            report.content_type().unwrap().attribute("report-type"),
            Some("delivery-status")
        );
        let field = |group, name| status_field(&report, group, name);
        assert_eq!(field(0, "Reporting-MTA").unwrap(), "dns; mx.host.example");
        assert_eq!(field(0, "Original-Envelope-Id"), None);
        assert_eq!(field(1, "Original-Recipient"), None);
        assert_eq!(field(1, "Final-Recipient").unwrap(), "rfc822; bob@else.example");
        assert_eq!(field(1, "Status").unwrap(), "5.2.2");
        assert_eq!(field(1, "Remote-MTA").unwrap(), "dns; [127.0.0.2]");
        assert_eq!(field(1, "Diagnostic-Code").unwrap(), "smtp; 552 5.2.2 full");
        assert_eq!(field(2, "Final-Recipient").unwrap(), "rfc822; \"e v;e\"@[192.0.2.9]");
        assert_eq!(field(2, "Action").unwrap(), "failed");
        assert_eq!(field(2, "Status").unwrap(), "5.1.2");
        // Nobody answered, so nobody is named (RFC 3464 section 2.3.5).
        assert_eq!(field(2, "Remote-MTA"), None);
        assert_eq!(field(2, "Diagnostic-Code").unwrap(), "X-Ehlo; no such domain");
    }

    #[test]
    fn every_event_has_its_words_and_its_fields() {
        let busy = answer(Verdict::Later, (4, 3, 2), "450 4.3.2 busy", Some("mx.else.example"));
        let taken = answer(Verdict::Delivered, (2, 0, 0), "250 thanks", Some("mx.else.example"));
        let ours = answer(Verdict::Delivered, (2, 1, 5), "in the mailbox", None);
        for (event, answer, action, subject, words) in [
            (Event::Failed, &refusal("550 no"), "failed", "could not be delivered", "typing error"),
            (delayed(), &busy, "delayed", "has not been delivered yet", "450 4.3.2 busy"),
            (Event::Relayed, &taken, "relayed", "was handed on", "250 thanks"),
            (Event::Expanded, &ours, "expanded", "was delivered", "goes on from there"),
            (Event::Delivered, &ours, "delivered", "was delivered", "was put into"),
        ] {
            let address = &path("bob@else.example");
            let about = [About { address, orcpt: None, event, answer }];
            let text = text_of(&about, &Original::Header(HEADER.to_vec()), false);
            let report = parse(&text);
            let field = |name| status_field(&report, 1, name);
            assert_eq!(report.subject(), Some(format!("Your letter {subject}").as_str()));
            assert_eq!(field("Action").as_deref(), Some(action));
            assert_eq!(field("Status"), Some(answer.status.to_string()));
            assert_eq!(field("Remote-MTA").is_some(), answer.by.is_some(), "{action}");
            assert_eq!(field("Diagnostic-Code").is_some(), answer.by.is_some(), "{action}");
            let until = (event == delayed()).then(|| "Fri, 27 Nov 2026 05:14:39 +0000".to_owned());
            assert_eq!(field("Will-Retry-Until"), until, "{action}");
            let for_a_person = report.body_text(0).unwrap();
            assert!(for_a_person.contains("<bob@else.example>\n"), "{for_a_person}");
            assert!(for_a_person.contains(words), "{for_a_person}");
            assert_eq!(for_a_person.contains("typing error"), event == Event::Failed);
            assert!(!for_a_person.contains("The reason"), "{for_a_person}");
        }
    }

    #[test]
    fn a_report_of_several_events_begins_with_the_worst_and_keeps_their_order() {
        let taken = answer(Verdict::Delivered, (2, 0, 0), "250 thanks", Some("mx.else.example"));
        let busy = answer(Verdict::Later, (4, 3, 2), "450 4.3.2 busy", Some("mx.else.example"));
        let paths = ["b@x.example", "c@x.example", "d@x.example", "e@x.example"].map(path);
        let no = refusal("550 no");
        let events = [
            (Event::Relayed, &taken),
            (Event::Failed, &no),
            (delayed(), &busy),
            (Event::Failed, &no),
        ];
        let about: Vec<About> = paths
            .iter()
            .zip(events)
            .map(|(address, (event, answer))| About { address, orcpt: None, event, answer })
            .collect();
        let text = text_of(&about, &Original::Header(HEADER.to_vec()), false);
        let report = parse(&text);
        assert_eq!(report.subject(), Some("Your letter could not be delivered"));
        let actions: Vec<_> =
            (1..=5).map_while(|group| status_field(&report, group, "Action")).collect();
        assert_eq!(actions, ["relayed", "failed", "delayed", "failed"]);
        let for_a_person = report.body_text(0).unwrap();
        let order: Vec<&str> = for_a_person
            .lines()
            .filter_map(|line| {
                let is_telling = ["Your letter", "It ", "<"].iter().any(|a| line.starts_with(a));
                is_telling.then(|| line.split([' ', '@']).next().unwrap())
            })
            .collect();
        assert_eq!(order, ["Your", "<c", "<e", "It", "<d", "It", "<b"]);
        assert!(for_a_person.contains("delivered to these addresses, and"));
        assert!(for_a_person.contains("It has not reached this address yet"));
    }

    #[test]
    fn what_the_sender_called_letter_and_recipient_comes_back_decoded() {
        let orcpt = OriginalRecipient::parse("rfc822;bob+2Bnews@host.example").unwrap();
        let (no, address) = (refusal("550 no"), &ForwardPath::Postmaster);
        let about = [About { address, orcpt: Some(&orcpt), event: Event::Failed, answer: &no }];
        let original = Original::Header(HEADER.to_vec());
        for (envid, shown) in [
            ("QQ314159", "QQ314159"),
            ("a+20b+3Dc\\d", "a b=c\\d"),
            ("a+0D+0AAction:+20expanded", "a+0D+0AAction:+20expanded"),
            ("b+C3+BC", "b+C3+BC"),
            // Not even what no client can say here.
            ("a\n\n--M5P6Q7=0--", "a\\x0a\\x0a--M5P6Q7=0--"),
        ] {
            let report = report(&about, &original, true);
            let dsn = MailDsn { envid: Some(envid.to_owned()), ret: None };
            let letter = &Letter { dsn, ..report.letter.clone() };
            let report = Report { hostname: "localhost", letter, ..report };
            let text = report.to_text();
            let report = parse(&text);
            let field = |group, name| status_field(&report, group, name).unwrap();
            assert_eq!(field(0, "Original-Envelope-Id"), shown);
            assert_eq!(field(0, "Reporting-MTA"), "x-local-hostname; localhost");
            assert_eq!(field(1, "Original-Recipient"), "rfc822; bob+news@host.example");
            assert_eq!(field(1, "Final-Recipient"), "rfc822; postmaster");
            assert_eq!((parts(&report).len(), status_field(&report, 2, "Action")), (3, None));
        }
    }

    #[test]
    fn the_whole_letter_comes_back_with_a_failure_and_ends_no_part() {
        let letter = b"Subject: x\n\n--M5P6Q7=0--\nhello\n\n".to_vec();
        let original = Original::Letter(letter.clone());
        let (no, address) = (refusal("550 no"), &path("bob@else.example"));
        for (event, content_type, what) in [
            (Event::Failed, "message/rfc822", "Your letter is attached."),
            (delayed(), "text/rfc822-headers", "The header of your letter is attached."),
        ] {
            let text =
                text_of(&[About { address, orcpt: None, event, answer: &no }], &original, false);
            let report = parse(&text);
            let parts = parts(&report);
            assert_eq!((parts.len(), parts[2].0.as_str()), (3, content_type));
            let words =
                report.body_text(0).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains(what), "{words}");
            let whole = letter.strip_suffix(b"\n").unwrap();
            assert_eq!(parts[2].1.starts_with(whole), event == Event::Failed);
        }
    }

    #[test]
    fn addresses_outside_ascii_make_a_global_report() {
        let answer = Answer::never((6, 7), "SMTPUTF8 is not offered");
        let header = "Subject: gr\u{fc}\u{df}e\n".as_bytes();
        let text = bounce(&[(&path("b\u{fc}ro@else.example"), &answer)], header, true);
        let report = parse(&text);
        let types: Vec<String> = parts(&report).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(
            types,
            ["text/plain", "message/global-delivery-status", "message/global-headers"]
        );
        let recipient = status_field(&report, 1, "Final-Recipient").unwrap();
        assert_eq!(recipient, "utf-8; b\u{fc}ro@else.example");
        assert_eq!(report.content_transfer_encoding(), Some("8bit"));
    }

    #[test]
    fn octets_that_nobody_has_called_utf8_are_not_called_so_here() {
        let bob = path("bob@else.example");
        let answer = Answer::never((6, 3), "8BITMIME is not offered");
        let latin1: &[u8] = b"Subject: gr\xfc\xdfe\n";
        let utf8 = "Subject: gr\u{fc}\u{df}e\n".as_bytes();
        let cases = [
            (latin1, false, "7bit", &b"Subject: gr??e\n"[..]),
            (utf8, false, "7bit", b"Subject: gr????e\n"),
            (latin1, true, "8bit", latin1),
        ];
        for (header, is_utf8, encoding, expected) in cases {
            let text = bounce(&[(&bob, &answer)], header, is_utf8);
            let report = parse(&text);
            assert_eq!(parts(&report)[2].0, "text/rfc822-headers");
            assert!(parts(&report)[2].1.starts_with(expected.trim_ascii_end()));
            assert_eq!(report.content_transfer_encoding(), Some(encoding));
            assert_eq!(report.parts[3].content_transfer_encoding(), Some(encoding));
            assert_eq!(report.parts[2].content_transfer_encoding(), Some("7bit"));
        }
    }

    #[test]
    fn an_address_outside_ascii_in_a_letter_without_smtputf8_is_spelt_in_ascii() {
        let address = path("b\u{fc}ro+\u{1f4ee}@else.example");
        let answer = Answer::never((6, 7), "SMTPUTF8 is not offered");
        let text = bounce(&[(&address, &answer)], HEADER, false);
        assert!(text.is_ascii());
        let report = parse(&text);
        assert_eq!(parts(&report)[1].0, "message/delivery-status");
        let recipient = status_field(&report, 1, "Final-Recipient").unwrap();
        assert_eq!(recipient, "utf-8; b\\x{FC}ro\\x{2B}\\x{1F4EE}@else.example");
    }

    #[test]
    fn a_header_that_knows_the_boundary_gets_another_one() {
        let header = b"X: 1\n--M5P6Q7=0--\n--M5P6Q7=1\n";
        let text = bounce(&[(&path("b@c.example"), &Answer::never((0, 0), ""))], header, false);
        let report = parse(&text);
        assert_eq!(report.content_type().unwrap().attribute("boundary"), Some("M5P6Q7=2"));
        assert_eq!(parts(&report).len(), 3);
        assert!(parts(&report)[2].1.starts_with(header.strip_suffix(b"\n").unwrap()));
    }

    #[test]
    fn no_octets_of_strangers_break_the_report() {
        fn holds(letter: Vec<u8>, words: Vec<u8>, by: Option<String>, local_part: String) -> bool {
            // What an address cannot hold (`smtp/address.rs`).
            let local_part: String = local_part
                .chars()
                .filter(|c| *c == ' ' || !c.is_control() && !c.is_whitespace())
                .collect();
            let domain = Domain::Name("else.example".to_owned());
            let wild = ForwardPath::Mailbox(Mailbox { local_part, domain });
            let bob = path("bob@else.example");
            let words = String::from_utf8_lossy(&words);
            let answer = answer(Verdict::Never, (5, 7, 1), &words, by.as_deref());
            let about = |address, event| About { address, orcpt: None, event, answer: &answer };
            let about = [about(&wild, Event::Failed), about(&bob, delayed())];
            [Original::Header(letter.clone()), Original::Letter(letter)].iter().all(|original| {
                [true, false].into_iter().all(|is_utf8| {
                    let text = &text_of(&about, original, is_utf8);
                    let report = parse(text);
                    let field =
                        |group, name| status_field(&report, group, name).unwrap_or_default();
                    let address = wild_text(&wild);
                    let address_type = if address.is_ascii() { "rfc822" } else { "utf-8" };
                    let shown = status::spelt(&address, is_utf8);
                    parts(&report).len() == 3
                        // An answer is printable, so outside this test the words are ASCII.
                        && (is_utf8 || !answer.text.is_ascii() || text.is_ascii())
                        && field(1, "Final-Recipient") == format!("{address_type}; {shown}")
                        && field(2, "Final-Recipient") == "rfc822; bob@else.example"
                        && (1..=2).all(|group| field(group, "Status") == "5.7.1")
                        && field(3, "Status").is_empty()
                        && text.split(|octet| *octet == b'\n').all(|line| line.len() <= 998)
                })
            })
        }
        fn wild_text(path: &ForwardPath) -> String {
            path.to_string().trim_start_matches('<').trim_end_matches('>').to_owned()
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>, Vec<u8>, Option<String>, String) -> bool);
        // What chance does not find.
        let forged = b"550 x\r\n\r\nFinal-Recipient: rfc822; eve@else.example\n\n--M5P6Q7=0--";
        assert!(holds(forged.to_vec(), forged.to_vec(), None, "\"\\ --M5P6Q7=0 <".to_owned()));
        assert!(holds(vec![b'\n'; 3], vec![b'x'; 9000], Some("\n\nx".to_owned()), " ".to_owned()));
    }

    #[test]
    fn an_address_of_any_length_makes_no_line_too_long() {
        let domain = Domain::Name("else.example".to_owned());
        let answer = &refusal("550 no");
        let original = Original::Header(HEADER.to_vec());
        for (letter_of_it, is_utf8) in [("\u{1f4ee}", true), ("x", false)] {
            let local_part = letter_of_it.repeat(2000);
            let to = Mailbox { local_part, domain: domain.clone() };
            let address = &ForwardPath::Mailbox(to.clone());
            let about = [About { address, orcpt: None, event: Event::Failed, answer }];
            let letter = &Letter { reverse_path: ReversePath::Mailbox(to), ..LETTER.clone() };
            let report = Report { letter, ..report(&about, &original, false) };
            assert_eq!(report.is_utf8(), is_utf8);
            let text = report.to_text();
            assert!(text.split(|octet| *octet == b'\n').all(|line| line.len() <= 998));
            assert_eq!(parts(&parse(&text)).len(), 3);
        }
    }
}
