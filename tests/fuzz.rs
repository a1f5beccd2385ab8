//! Random and mutated input: no panic, no hang, no reply out of step.
//!
//! Parsers are held against the same rules written down once more, as literally
//! and slowly as possible. A live server over a socket is held against a walk
//! through the same octets without sockets, buffers and threads.
//!
//! All of it comes from a seed, which every failure names:
//!
//! ```text
//! EHLO_FUZZ_SEED=7 EHLO_FUZZ_CASES=1000000 cargo test --release --test fuzz -- --nocapture
//! ```
//!
//! A case is one command line or one message, to the parsers or to the server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ehlo::dns::Resolver;
use ehlo::server::Config;
use ehlo::smtp::address::ForwardPath;
use ehlo::smtp::command::{COMMAND_LINE_LIMIT, Command};
use ehlo::smtp::reply::ReplyParser;
use ehlo::smtp::session::{BadLine, Envelope, Next, Outcome, Role, Session, Step};
use ehlo::smtp::site::{LocalMailbox, Site};
use ehlo::store::header::Header;
use ehlo::trust::dkim::DkimResult;
use ehlo::trust::dkim::verify::Verifier;
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use ehlo::trust::results::Verdicts;
use ehlo::trust::spf::Request;
use ehlo::wire::body::{Then, Unstuffer};

use jiff::Timestamp;
use simple_dns::rdata::{RData, TXT};
use simple_dns::{CLASS, CharacterString, ResourceRecord};

use common::TestServer;
use common::dns::{DnsServer, name};

/// Cases of each test.
fn cases() -> u64 {
    std::env::var("EHLO_FUZZ_CASES").map_or(10_000, |cases| cases.parse().unwrap())
}

fn seed() -> u64 {
    std::env::var("EHLO_FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap())
}

// ---- chance ----

/// Xorshift (Marsaglia 2003): a few lines, and the same numbers everywhere.
struct Chance(u64);

impl Chance {
    /// Neighbouring seeds begin far apart, and none at zero.
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        ((self.next() >> 16) % end as u64) as usize
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    fn octets(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// `octets` with a few mistakes: some dropped, doubled, changed, or others
    /// from `parts` put in.
    fn mutated(&mut self, octets: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut octets = octets.to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(octets.len() + 1);
            let end = (at + self.below(6)).min(octets.len());
            let replacement = match self.below(5) {
                0 => Vec::new(),
                1 => octets[at..end].repeat(2),
                2 => octets[at..end].iter().map(|octet| octet ^ (1 << self.below(8))).collect(),
                3 => self.octets(4),
                _ => self.one_of(parts).to_vec(),
            };
            octets.splice(at..end, replacement);
        }
        octets
    }
}

const MARKS: [&[u8]; 24] = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b".",
    b"..",
    b"<",
    b">",
    b"<>",
    b"@",
    b":",
    b" ",
    b"  ",
    b"\t",
    b"\"",
    b"\\",
    b"[",
    b"]",
    b"=",
    b"\xc3\xbc",
    b"\xc2\x9b",
    b"\xff",
    b"%00",
    b"IPv6:",
];

const LINES: [&[u8]; 45] = [
    b"EHLO client.example",
    b"EHLO [127.0.0.1]",
    b"EHLO [IPv6:2001:db8::1]",
    b"HELO my_laptop",
    b"helo x",
    b"EHLO",
    b"MAIL FROM:<a@b.example>",
    b"MAIL FROM:<a@b.example>",
    b"MAIL FROM:<>",
    b"mail from:<\"a b\"@c.example> SIZE=100",
    b"MAIL FROM:<a@b.example> BODY=8BITMIME SMTPUTF8",
    b"MAIL FROM:<\xc3\xbc@b.example> SMTPUTF8",
    b"MAIL FROM:<a@b.example> SIZE=99999999999999999999",
    b"MAIL FROM:<a@b.example> RET=HDRS",
    b"MAIL FROM: <a@b.example>",
    b"RCPT TO:<ann@localhost>",
    b"RCPT TO:<ann@localhost>",
    b"RCPT TO:<bob@localhost>",
    b"rcpt to:<@relay.example,@other.example:Bob+x@LOCALHOST>",
    b"RCPT TO:<\"ann\"@[127.0.0.1]>",
    b"RCPT TO:<postmaster>",
    b"RCPT TO:<nobody@localhost>",
    b"RCPT TO:<ann@elsewhere.example>",
    b"RCPT TO:<>",
    b"RCPT TO:<ann@localhost> NOTIFY=NEVER",
    b"DATA",
    b"DATA",
    b"DATA",
    b"data",
    b"DATA now",
    b"RSET",
    b"NOOP",
    b"NOOP a b c",
    b"HELP",
    b"VRFY ann",
    b"VRFY",
    b"EXPN list",
    b"STARTTLS",
    b"AUTH PLAIN AGFubgBzZWNyZXQ=",
    b"Subject: hello",
    b"QUIT",
    b"",
    b".",
    b"GET / HTTP/1.1",
    b"\x16\x03\x01\x02\0",
];

/// One command line, without its end: as it should be, with mistakes, or noise.
fn line(chance: &mut Chance) -> Vec<u8> {
    let known: &[u8] = chance.one_of(&LINES);
    match chance.below(20) {
        0..=11 => known.to_vec(),
        12..=17 => chance.mutated(known, &MARKS),
        18 => chance.octets(40),
        // Around the limit, and far beyond it.
        _ => {
            let length = chance.one_of(&[&500, &560, &563, &564, &600, &3000, &5000]);
            [known, &b"x".repeat(*length)].concat()
        }
    }
}

/// Parts of messages, so that what is interesting meets.
const TEXTS: [&[u8]; 20] = [
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b"\r\n.",
    b"\r\n..",
    b"\r\n.x",
    b"a",
    b"hello world",
    b"Subject: x",
    b"Return-Path: <x@y.example>",
    b"return-path",
    b"Return-Path     ",
    b"Received: by x.example",
    b"\r\n\tfolded",
    b"\r\n folded",
    b": value",
    b"A-Rather-Long-Field-Name: x",
    b"\xff\0",
    b"QUIT",
    b"MAIL FROM:<x@y.example>",
];

/// The inside of a message, in wire form, up to and without its final dot.
fn message(chance: &mut Chance) -> Vec<u8> {
    let mut octets = Vec::new();
    for _ in 0..chance.below(30) {
        octets.extend_from_slice(chance.one_of(&TEXTS));
    }
    if chance.once_in(8) {
        octets = chance.mutated(&octets, &MARKS);
    }
    octets
}

/// Runs `check` with the chance of this case, and names the case if it panics.
fn one_case(seed: u64, case: u64, check: impl FnOnce(&mut Chance)) {
    let seed = seed.wrapping_add(case);
    let run = || check(&mut Chance::new(seed));
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        panic!("case {case}; again with EHLO_FUZZ_SEED={seed} EHLO_FUZZ_CASES=1");
    }
}

fn for_each_case(check: impl Fn(&mut Chance)) {
    let seed = seed();
    for case in 0..cases() {
        one_case(seed, case, &check);
    }
}

// ---- trust ----

/// Records that strangers write, each with one or more mistakes in it.
const RECORDS: [&[u8]; 6] = [
    b"v=spf1 include:%{d2}.example redirect=_spf.d0.example exp=why.d0.example -all",
    b"v=spf1 a/24//64 mx:%{l}.%{ir}.x.example exists:%{h1-}.d1.example ptr ip4:127.0.0.1 ?all",
    b"v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; t=y; psd=n; rua=mailto:a@b.example",
    b"v=DKIM1; k=ed25519; p=kkTMyZ5gUfaUx/FRi3rRQxxffnsaTvS536LvOKrnRoA=; h=sha256; t=s",
    b"v=DKIM1; k=rsa; s=email; n=note; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
    b"v=spf1 +all",
];

/// A letter of a domain with two signatures that were right once.
fn signed_letter(domain: &str) -> Vec<u8> {
    let field = |algorithm: &str, canon: &str| {
        format!(
            "DKIM-Signature: v=1; a={algorithm}; c={canon}; d={domain};\n\ts=key; t=1; x=99999999999;\n\
             \th=From:From:Subject; l=6; i=@{domain}; z=From:x|To:y;\n\
             \tbh=8DzMSCp6SEt3POvdHLEPyzVR/FmgEBBR1MoSQ2lYZG8=; b=AAAA\n\tAAAA\n"
        )
    };
    let (one, two) = (field("ed25519-sha256", "simple/relaxed"), field("rsa-sha256", "relaxed"));
    let from = format!("From: \"a, b\" (c) <ann@{domain}>, Group: bob@{domain};\nSubject: x\n y\n");
    format!("{one}{two}{from}\nhello\n\n").into_bytes()
}

#[test]
fn any_letter_and_any_record_have_a_verdict_that_fits_into_its_field() {
    // A domain has its records for several cases: it is the letters that are many.
    const DOMAINS: usize = 64;
    let mut chance = Chance::new(seed());
    let mut zone = Vec::new();
    for number in 0..DOMAINS {
        for prefix in ["", "_dmarc.", "key._domainkey.", "_spf."] {
            let owner = name(&format!("{prefix}d{number}.example"));
            let text = chance.one_of(&RECORDS).to_vec();
            let text = chance.mutated(&text, &MARKS);
            let parts =
                text.chunks(100).map(|part| CharacterString::new(part).unwrap().into_owned());
            let data = RData::TXT(parts.fold(TXT::new(), |txt, part| {
                let mut txt = txt;
                txt.add_char_string(part);
                txt
            }));
            zone.push(ResourceRecord::new(owner, CLASS::IN, 60, data));
        }
    }
    let dns = DnsServer::with_records(zone, Vec::new());
    let resolver = Resolver::new(vec![dns.address], Duration::from_secs(5));
    for case in 0..cases() / 20 {
        one_case(seed(), case, |chance| {
            let domain = format!("d{}.example", chance.below(DOMAINS));
            let letter = chance.mutated(&signed_letter(&domain), &MARKS);
            let mut verifier = Verifier::new(Timestamp::now());
            for part in letter.chunks(1 + chance.below(letter.len())) {
                verifier.write(part);
            }
            let helo =
                String::from_utf8_lossy(&chance.mutated(b"mail.d1.example", &MARKS)).into_owned();
            let mail_from = format!("ann@{domain}");
            let request = Request {
                ip: if chance.once_in(2) { "127.0.0.1" } else { "2001:db8::1" }.parse().unwrap(),
                helo: &helo,
                mail_from: if chance.once_in(4) { "" } else { &mail_from },
                receiver: "here.example",
                now: Timestamp::now(),
            };
            let end = Instant::now() + Duration::from_secs(20);
            let lookups = Lookups::new(&resolver, end);
            let verdicts = Verdicts::find(&request, verifier, &lookups, &mut Steps::told());
            assert!(Instant::now() < end, "it took too long");
            assert!(verdicts.dkim.len() <= 8);
            let proven = verdicts.dkim.iter().any(|one| one.result == DkimResult::Pass);
            assert!(!proven, "nobody has made this signature");
            let field = verdicts.to_field("here.example", &request);
            let mut lines = field.strip_suffix('\n').unwrap().split('\n');
            assert_eq!(lines.next(), Some("Authentication-Results: here.example;"));
            for line in lines {
                assert!(line.starts_with('\t') && line.is_ascii() && line.len() < 998, "{line:?}");
                assert!(line[1..].bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
            }
        });
    }
}

// ---- parsers ----

#[test]
fn any_line_is_a_command_or_a_refusal() {
    for_each_case(|chance| {
        let line = line(chance);
        match Command::parse(&line) {
            Ok(_) => {}
            Err(reply) => {
                assert!([500, 501, 555].contains(&reply.code()), "{line:?}: {reply}");
                // A refused EHLO or HELO has none (RFC 2034 section 4).
                assert!(reply.enhanced().is_none_or(|enhanced| enhanced.class == 5));
                let mut octets = Vec::new();
                reply.write_to(&mut octets);
                assert!(octets.ends_with(b"\r\n") && octets.len() <= 512, "{line:?}");
                let text = octets.strip_suffix(b"\r\n").unwrap();
                assert!(text.iter().all(|octet| (b' '..=b'~').contains(octet)), "{line:?}");
            }
        }
    });
}

#[test]
fn an_address_that_is_taken_prints_as_an_address_that_is_the_same() {
    const PATHS: [&[u8]; 12] = [
        b"<ann@host.example>",
        b"<\"a \\\" b\"@host.example>",
        b"<@a.example,@b.example:x@c.example>",
        b"<a.b+c@[192.0.2.1]>",
        b"<x@[IPv6:2001:db8::1]>",
        b"<x@[IPv6:::ffff:192.0.2.1]>",
        b"<\xc3\xbc@b\xc3\xbccher.example>",
        b"<postmaster>",
        b"<>",
        b"<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@x.example>",
        b"<x@a-b.c-d.example> rest",
        b"<!#$%&'*+-/=?^_`{|}~@x>",
    ];
    for_each_case(|chance| {
        let known = chance.one_of(&PATHS);
        let octets = chance.mutated(known, &MARKS);
        let Ok(text) = std::str::from_utf8(&octets) else { return };
        let Ok((path, rest)) = ForwardPath::parse(text) else { return };
        assert!(text.ends_with(rest) && text.len() > rest.len(), "{text:?}");
        let printed = path.to_string();
        assert!(!printed.chars().any(char::is_control), "{text:?}");
        assert_eq!(ForwardPath::parse(&printed), Ok((path, "")), "{text:?}");
    });
}

#[test]
fn lines_of_another_server_are_a_reply_or_an_error() {
    const REPLIES: [&[u8]; 10] = [
        b"250 ok",
        b"250-first",
        b"250",
        b"250-",
        b"354 go on",
        b"550 5.1.1 no such mailbox",
        b"450-4.2.0 later",
        b"199 x",
        b"600 x",
        b"25 x",
    ];
    for_each_case(|chance| {
        let mut parser = ReplyParser::keeping(1000);
        // What was seen of the reply that has begun, and is not at its end.
        let mut begun: Option<usize> = None;
        for _ in 0..chance.below(200) {
            let some = if chance.once_in(2) { 2 } else { REPLIES.len() };
            let known = chance.one_of(&REPLIES[..some]);
            let line =
                if chance.once_in(4) { chance.mutated(known, &MARKS) } else { known.to_vec() };
            let found = parser.line(&line);

            let code = line.get(..3).filter(|code| {
                code.iter().all(u8::is_ascii_digit) && (b'2'..=b'5').contains(&code[0])
            });
            let separator = line.get(3).copied();
            let (Some(code), None | Some(b' ' | b'-')) = (code, separator) else {
                assert!(found.is_err(), "{line:?}");
                return;
            };
            let lines = begun.take().unwrap_or(0);
            if lines == 128 {
                assert!(found.is_err(), "{line:?} after {lines} lines");
                return;
            }
            if separator == Some(b'-') {
                assert_eq!(found, Ok(None), "{line:?}");
                begun = Some(lines + 1);
            } else {
                let reply = found.unwrap().unwrap();
                assert_eq!(reply.code().to_string().as_bytes(), code);
                assert_eq!(reply.lines().len(), lines + 1);
            }
        }
    });
}

// ---- the inside of a message ----

/// What became of the octets after a 354.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    /// In file form; its size as sent; how many octets belong to it, the final
    /// dot included.
    Message { text: Vec<u8>, size: u64, taken: usize },
    /// A CR or LF alone, this many octets after the start at the latest.
    BareNewline,
    /// There is more to come.
    Unfinished,
}

/// The mailboxes of this server among the destinations.
fn mailboxes(envelope: &Envelope) -> impl Iterator<Item = &LocalMailbox> {
    envelope.recipients.iter().filter_map(|to| to.destination.mailbox())
}

/// The rules of RFC 5321 sections 2.3.8 and 4.5.2, as literally as they can be
/// put: lines end with CR LF, no CR or LF stands elsewhere, a line of one dot is
/// the end, and of other lines a first dot goes.
fn by_the_book(input: &[u8]) -> Body {
    let mut text = Vec::new();
    let mut size = 0;
    let mut taken = 0;
    for line in input.split_inclusive(|octet| *octet == b'\n') {
        taken += line.len();
        let Some(end) = line.iter().position(|octet| b"\r\n".contains(octet)) else {
            return Body::Unfinished;
        };
        match &line[end..] {
            b"\r\n" => {}
            b"\r" => return Body::Unfinished,
            _ => return Body::BareNewline,
        }
        let line = &line[..end];
        if line == b"." {
            return Body::Message { text, size, taken };
        }
        let line = line.strip_prefix(b".").unwrap_or(line);
        size += line.len() as u64 + 2;
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    Body::Unfinished
}

/// The same for a message in chunks, so far or whole (RFC 3030 section 2): its file form,
/// or `None` where a CR or LF stands alone.
fn chunks_by_the_book(input: &[u8], is_whole: bool) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for (at, &octet) in input.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| input[before]);
        match (octet, input.get(at + 1)) {
            (b'\n', _) if before != Some(b'\r') => return None,
            (b'\r', Some(b'\n')) => {}
            (b'\r', None) if !is_whole => {}
            (b'\r', _) => return None,
            _ => text.push(octet),
        }
    }
    if is_whole && !matches!(text.last(), None | Some(b'\n')) {
        text.push(b'\n');
    }
    Some(text)
}

/// The longest part, in which input is cut.
const PARTS: [usize; 6] = [1, 2, 7, 100, 2048, 10_000];

/// Cuts `octets` by chance into parts of up to one of `sizes`, until `with`
/// has had enough.
fn in_parts(
    chance: &mut Chance,
    mut octets: &[u8],
    sizes: &[usize],
    mut with: impl FnMut(&[u8]) -> bool,
) {
    let most = sizes[chance.below(sizes.len())];
    while !octets.is_empty() {
        let (part, rest) = octets.split_at((1 + chance.below(most)).min(octets.len()));
        if !with(part) {
            return;
        }
        octets = rest;
    }
}

#[test]
fn a_message_is_what_the_rfc_says_however_it_is_cut() {
    for_each_case(|chance| {
        let mut octets = [message(chance), b"\r\n.\r\n".to_vec(), message(chance)].concat();
        if chance.once_in(4) {
            octets = chance.mutated(&octets, &MARKS);
        }
        let mut unstuffer = Unstuffer::default();
        let (mut text, mut taken) = (Vec::new(), 0);
        let mut found = Body::Unfinished;
        in_parts(chance, &octets, &PARTS, |part| {
            let mut part = part.to_vec();
            let cleaned = unstuffer.clean(&mut part);
            text.extend_from_slice(cleaned.text);
            taken += cleaned.taken;
            match cleaned.then {
                Then::More => return true,
                Then::BareNewline => found = Body::BareNewline,
                Then::Complete => {
                    let text = std::mem::take(&mut text);
                    found = Body::Message { text, size: unstuffer.octets(), taken };
                }
            }
            false
        });
        assert_eq!(found, by_the_book(&octets), "{octets:?}");
    });
}

/// The message without its `Return-Path` fields, and how many `Received` fields
/// it has. Looks at whole lines; a colon counts within the octets that a line may
/// have.
fn header_by_the_book(text: &[u8]) -> (Vec<u8>, usize) {
    const LIMIT: usize = 998;
    let (mut kept, mut received) = (Vec::new(), 0);
    // The fate of the field before: none at the start, and none in the body.
    let mut in_header = true;
    let mut keeps: Option<bool> = None;
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        let start = &line[..line.len().min(LIMIT)];
        let colon = start.iter().position(|octet| *octet == b':');
        let name = start[..colon.unwrap_or(0)].trim_ascii_end();
        let is_field = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
        if in_header && is_folded && keeps.is_some() {
            // It shares the fate of its field.
        } else if in_header && is_field && !is_folded {
            keeps = Some(!name.eq_ignore_ascii_case(b"Return-Path"));
            received += usize::from(name.eq_ignore_ascii_case(b"Received"));
        } else {
            if keeps.is_none() && is_folded {
                kept.push(b'\n');
            }
            in_header = false;
            keeps = Some(true);
        }
        if keeps == Some(true) {
            kept.extend_from_slice(line);
        }
    }
    (kept, received)
}

#[test]
fn the_header_loses_its_return_paths_and_nothing_else_however_it_is_cut() {
    for_each_case(|chance| {
        let wire = [message(chance), b"\r\n.\r\n".to_vec()].concat();
        let Body::Message { text, .. } = by_the_book(&wire) else { return };
        let mut header = Header::default();
        let mut kept = Vec::new();
        in_parts(chance, &text, &PARTS, |part| {
            header.filter(part, &mut kept).unwrap();
            true
        });
        assert_eq!((kept, header.facts().received), header_by_the_book(&text), "{text:?}");
    });
}

// ---- a live session ----

const MAX_SIZE: u64 = 300;
const MAX_RECIPIENTS: usize = 2;
const MAILBOXES: [&str; 2] = ["ann", "bob"];
/// Steps of one conversation at most: command lines and messages.
const STEPS: u64 = 30;
/// Conversations at a time.
const AT_A_TIME: usize = 4;

/// BDAT and its chunk. Now and then the size is wrong.
fn chunk(chance: &mut Chance, is_last: bool) -> Vec<u8> {
    let mut octets = message(chance);
    octets.truncate(MAX_SIZE as usize * 2 / 3);
    let mut size = octets.len();
    if chance.once_in(10) {
        size = (size + chance.below(20)).saturating_sub(10);
    }
    let last = if is_last { " LAST" } else { "" };
    [format!("BDAT {size}{last}\r\n").as_bytes(), &octets].concat()
}

/// What one client says, and what it must hear: worked out without sockets and
/// buffers, by looking at all input at once and asking the state machine.
struct Conversation {
    said: Vec<u8>,
    /// Replies, whole lines.
    heard: Vec<u8>,
    /// The mailbox and the text of every message that was taken.
    taken: Vec<(String, Vec<u8>)>,
    steps: u64,
    session: Session,
    /// Where the input is that was not understood yet.
    start: usize,
    next: Next,
    /// A step whose chunk has to be skipped before it is heard.
    waiting: Option<Step>,
    /// The chunks of a message, as they came.
    chunks: Vec<u8>,
}

impl Conversation {
    /// At most `STEPS` steps, and then a probe.
    fn new(chance: &mut Chance) -> Conversation {
        let mut site =
            Site::new("localhost", "localhost", &[], Some(&MAILBOXES.map(str::to_owned)));
        site.max_size = MAX_SIZE;
        site.max_recipients = MAX_RECIPIENTS;
        let mut this = Conversation {
            said: Vec::new(),
            heard: Vec::new(),
            taken: Vec::new(),
            steps: 0,
            session: Session::new(
                Arc::new(site),
                Role::Smtp,
                Ipv4Addr::LOCALHOST.into(),
                String::new,
            ),
            start: 0,
            next: Next::Command,
            waiting: None,
            chunks: Vec::new(),
        };
        let greeting = this.session.greet();
        this.hear(greeting);
        while this.steps < STEPS {
            match this.next {
                Next::Close(_) | Next::StartTls => return this,
                Next::Message(_) => this.say(&[&message(chance)[..], b"\r\n.\r\n"].concat()),
                // By chance alone few would ever come as far as DATA.
                Next::Command if chance.once_in(5) => {
                    this.say(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<ann@localhost>\r\nDATA\r\n");
                }
                Next::Command if chance.once_in(8) => {
                    this.say(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<bob@localhost>\r\n");
                    for number in (0..1 + chance.below(4)).rev() {
                        let chunk = chunk(chance, number == 0);
                        this.say(&chunk);
                    }
                }
                Next::Command if chance.once_in(20) => {
                    let chunk = chunk(chance, true);
                    this.say(&chunk);
                }
                // A chunk that is longer than was said swallows what was meant as commands.
                Next::Command | Next::Chunk(_) => {
                    let end = if chance.once_in(20) { chance.one_of(&MARKS) } else { b"\r\n" };
                    this.say(&[&line(chance), end].concat());
                }
            }
            this.steps += 1;
        }
        while let Next::Message(_) = this.next {
            this.say(b"\r\n.\r\n");
        }
        while this.waiting.is_some() || matches!(this.next, Next::Chunk(_)) {
            this.say(b"x");
        }
        // An answer that only this can have: if it is not the last, and in its
        // place, something is out of step.
        this.say(b"\r\nVRFY probe\r\n");
        this
    }

    fn say(&mut self, octets: &[u8]) {
        self.said.extend_from_slice(octets);
        while let Some((taken, step)) = self.step() {
            self.start += taken;
            self.hear(step);
        }
    }

    /// What the next unit of the input leads to, and how long that is; `None` if
    /// it is not complete, or if nobody listens any more.
    fn step(&mut self) -> Option<(usize, Step)> {
        let input = &self.said[self.start..];
        if let Some(step) = self.waiting.take_if(|step| step.skip <= input.len() as u64) {
            return Some((step.skip as usize, Step { skip: 0, ..step }));
        }
        if self.waiting.is_some() {
            return None;
        }
        if !self.session.is_between_chunks() && !matches!(self.next, Next::Chunk(_)) {
            self.chunks.clear();
        }
        let (taken, outcome) = match &self.next {
            Next::Close(_) | Next::StartTls => return None,
            Next::Chunk(part) if part.chunk.size > input.len() as u64 => return None,
            Next::Chunk(part) => {
                let taken = part.chunk.size as usize;
                self.chunks.extend_from_slice(&input[..taken]);
                match chunks_by_the_book(&self.chunks, part.chunk.is_last) {
                    None => (taken, Outcome::BareNewline),
                    Some(text) if part.chunk.is_last => {
                        let (text, _) = header_by_the_book(&text);
                        for mailbox in mailboxes(&part.envelope) {
                            self.taken.push((mailbox.name.clone(), text.clone()));
                        }
                        (taken, Outcome::Stored("*".to_owned()))
                    }
                    Some(_) => {
                        let next = std::mem::replace(&mut self.next, Next::Command);
                        let Next::Chunk(part) = next else { unreachable!("it was one") };
                        return Some((taken, self.session.chunk_ended(part)));
                    }
                }
            }
            Next::Command if input.first() == Some(&0x16) => {
                return Some((1, self.session.bad_line(BadLine::Tls)));
            }
            Next::Command => {
                let taken = input.iter().position(|octet| *octet == b'\n')? + 1;
                let line = &input[..taken];
                let text = line.strip_suffix(b"\r\n").filter(|text| !text.contains(&b'\r'));
                let step = match text {
                    None => self.session.bad_line(BadLine::BareNewline),
                    Some(_) if taken > COMMAND_LINE_LIMIT => {
                        self.session.bad_line(BadLine::too_long(line))
                    }
                    Some(text) if text.contains(&0) => self.session.bad_line(BadLine::Nul),
                    Some(text) => self.session.line(text),
                };
                return Some((taken, step));
            }
            Next::Message(envelope) => match by_the_book(input) {
                Body::Unfinished => return None,
                Body::BareNewline => (input.len(), Outcome::BareNewline),
                Body::Message { size, taken, .. } if size > MAX_SIZE => (taken, Outcome::TooBig),
                Body::Message { text, taken, .. } => {
                    let (text, _) = header_by_the_book(&text);
                    for mailbox in mailboxes(envelope) {
                        self.taken.push((mailbox.name.clone(), text.clone()));
                    }
                    (taken, Outcome::Stored("*".to_owned()))
                }
            },
        };
        Some((taken, self.session.message_ended(&outcome)))
    }

    fn hear(&mut self, step: Step) {
        if step.skip > 0 {
            self.waiting = Some(step);
            return;
        }
        if let Some(reply) = &step.reply {
            reply.write_to(&mut self.heard);
        }
        self.next = step.next;
    }

    /// Has the same conversation with a server; gives the number of lines heard.
    fn hold(&self, chance: &mut Chance, server: SocketAddr) -> usize {
        let mut tcp = TcpStream::connect(server).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let slowly = self.said.len() < 5000;
        in_parts(chance, &self.said, if slowly { &PARTS } else { &PARTS[3..] }, |part| {
            tcp.write_all(part).is_ok()
        });
        // The server may have closed by now, and then there is nothing to shut down.
        let _ = tcp.shutdown(Shutdown::Write);
        let mut heard = Vec::new();
        tcp.read_to_end(&mut heard).expect("the server answers and closes");
        let heard = lines(&heard);
        let expected = lines(&self.heard);
        let at = heard.iter().zip(&expected).take_while(|(one, other)| one == other).count();
        assert!(
            heard == expected,
            "reply line {at}: {:?}, expected {:?}\nafter: {}",
            heard.get(at),
            expected.get(at),
            self.said.escape_ascii()
        );
        at
    }
}

/// The lines of replies, without the ids of messages.
fn lines(replies: &[u8]) -> Vec<String> {
    let replies = String::from_utf8_lossy(replies);
    let line = |line: &str| match line.split_once("stored as ") {
        Some((before, _)) => before.to_owned(),
        None => line.to_owned(),
    };
    replies.split_inclusive('\n').map(line).collect()
}

/// Our own two fields end with the date. What follows may begin with a blank, and
/// is still the client's.
fn end_of_trace_fields(file: &[u8]) -> usize {
    const END: &[u8] = b" +0000\n";
    assert!(file.starts_with(b"Return-Path: <"));
    file.windows(END.len()).position(|octets| octets == END).unwrap() + END.len()
}

#[test]
fn a_live_server_answers_every_line_in_its_place_and_keeps_what_it_took() {
    let mut config =
        Config { max_size: MAX_SIZE, max_recipients: MAX_RECIPIENTS, ..Config::default() };
    config.mailboxes = MAILBOXES.map(str::to_owned).to_vec();
    let server = TestServer::from_config(config);
    let (number, steps, replies) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let letters = Mutex::new(Vec::new());
    let seed = seed();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while steps.load(Ordering::SeqCst) < cases() {
                    let number = number.fetch_add(1, Ordering::SeqCst);
                    one_case(seed, number, |chance| {
                        let conversation = Conversation::new(chance);
                        steps.fetch_add(conversation.steps, Ordering::SeqCst);
                        let lines = conversation.hold(chance, server.address) as u64;
                        replies.fetch_add(lines, Ordering::SeqCst);
                        letters.lock().unwrap().extend(conversation.taken);
                    });
                }
            });
        }
    });

    let mut expected = letters.into_inner().unwrap();
    let mut found = Vec::new();
    for mailbox in ["ann", "bob", "postmaster"] {
        for file in server.new_files(mailbox) {
            let file = fs::read(file).unwrap();
            found.push((mailbox.to_owned(), file[end_of_trace_fields(&file)..].to_vec()));
        }
    }
    assert!(expected.len() as u64 >= cases() / 100, "only {} letters were taken", expected.len());
    expected.sort();
    found.sort();
    let missing = expected.iter().find(|letter| found.binary_search(letter).is_err());
    if let Some((to, text)) = missing {
        panic!("a letter to {to} is not there: {}", text.escape_ascii());
    }
    assert!(found == expected, "{} letters, {} were taken", found.len(), expected.len());
    println!(
        "{number:?} conversations with {steps:?} lines and messages: {replies:?} lines of replies, \
         {} letters, none out of step",
        found.len()
    );
    assert!(server.drafts().is_empty());
}
