//! `--sender-checks` and `--dkim-key` over SMTP, with a DNS server on loopback: what is
//! written into a letter, what is refused, and what is signed.
//!
//! Book: docs/16-trust.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use ehlo::config::{self, Request};
use ehlo::dns::Resolver;
use ehlo::server::Server;
use ehlo::trust::dkim::DkimResult;
use ehlo::trust::dkim::sign::{Signer, Signing};
use ehlo::trust::dkim::verify::Verifier;
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use ehlo::trust::results::Verdicts;
use ehlo::trust::spf;
use jiff::Timestamp;
use simple_dns::rdata::{A, RData, TXT};
use simple_dns::{CLASS, CharacterString, ResourceRecord};

use common::dns::{DnsServer, Trick, name, tricks};
use common::hop::{Act, Moment, Step};
use common::mta::until;
use common::world::{ONE_HOP, World};
use common::{Client, TestServer};

/// The public half of `tests/trust/ed25519.pem`.
const KEY: &str = "v=DKIM1; k=ed25519; p=kkTMyZ5gUfaUx/FRi3rRQxxffnsaTvS536LvOKrnRoA=";
const OURS: &str = "Authentication-Results: localhost;";

/// Domains whose owners have said something about 127.0.0.1, and about letters that fail.
fn dns() -> DnsServer {
    let long = "l".repeat(400);
    let records = [
        ("pass.example", "v=spf1 ip4:127.0.0.1 -all"),
        ("_dmarc.pass.example", "v=DMARC1; p=reject"),
        ("fail.example", "v=spf1 ip4:192.0.2.1 -all exp=why.fail.example"),
        ("why.fail.example", "%{i} is not ours"),
        ("long.example", "v=spf1 -all exp=why.long.example"),
        ("why.long.example", &long),
        ("odd.example", "v=spf1 -all exp=why.odd.example"),
        ("why.odd.example", "a bell: \u{7}"),
        ("plus.example", "v=spf1 exists:%{l1r+}._u.%{d} -all"),
        ("xn--bcher-kva.example", "v=spf1 ip4:127.0.0.1 -all"),
        ("bank.example", "v=spf1 -all"),
        ("_dmarc.bank.example", "v=DMARC1; p=reject"),
        ("quiet.example", "v=spf1 -all"),
        ("_dmarc.quiet.example", "v=DMARC1; p=quarantine"),
        ("key._domainkey.bank.example", KEY),
        ("key._domainkey.localhost.example", KEY),
        ("key._domainkey.xn--bcher-kva.example", KEY),
    ];
    let record = |(owner, text): &(&str, &str)| {
        let mut data = TXT::new();
        for part in text.as_bytes().chunks(255) {
            data.add_char_string(CharacterString::new(part).unwrap().into_owned());
        }
        let data = RData::TXT(data);
        ResourceRecord::new(name(owner), CLASS::IN, 60, data)
    };
    let failing = [
        ("later.example TXT".to_owned(), Trick::Udp(tricks::failure)),
        ("_dmarc.slow.example TXT".to_owned(), Trick::Udp(tricks::failure)),
        ("silent.example TXT".to_owned(), Trick::Udp(tricks::silence)),
    ];
    let address = RData::A(A { address: u32::from(Ipv4Addr::LOCALHOST) });
    let plus = ResourceRecord::new(name("ann._u.plus.example"), CLASS::IN, 60, address);
    let records = records.iter().map(record).chain([plus]).collect();
    DnsServer::with_records(records, failing.to_vec())
}

fn server(dns: &DnsServer, rule: &str) -> TestServer {
    let dns = dns.address.to_string();
    TestServer::start(&["--dns", &dns, "--sender-checks", rule])
}

/// One letter for bob, and the reply to its final dot.
fn send(server: SocketAddr, from: &str, letter: &str) -> String {
    let mut client = Client::connect(server);
    let mail = format!("MAIL FROM:<{from}>");
    client.all_granted(&["EHLO mail.client.example", &mail, "RCPT TO:<bob@localhost>", "DATA"]);
    client.message(letter.replace('\n', "\r\n"))
}

/// The only letter of bob as it is in its file.
fn stored(server: &TestServer) -> String {
    let files = server.new_files("bob");
    assert_eq!(files.len(), 1);
    String::from_utf8_lossy(&fs::read(&files[0]).unwrap()).into_owned()
}

/// The letter with a signature of a domain in front.
fn signed(domain: &str, letter: &str) -> String {
    let pem = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trust/ed25519.pem"));
    let signer = Signer::from_pem(&pem.unwrap(), "key").unwrap();
    let mut signing = Signing::default();
    signing.write(letter.as_bytes());
    signer.sign(signing, |author| author == domain, Timestamp::now()).unwrap() + letter
}

/// What comes of the signatures of a letter.
fn results(dns: &DnsServer, letter: &str) -> Vec<DkimResult> {
    let resolver = Resolver::new(vec![dns.address], Duration::from_secs(5));
    let lookups = Lookups::new(&resolver, Instant::now() + Duration::from_secs(5));
    let mut verifier = Verifier::new(Timestamp::now());
    verifier.write(letter.as_bytes());
    let verdicts = verifier.finish(&lookups, &mut Steps::silent());
    verdicts.into_iter().map(|one| one.result).collect()
}

#[test]
fn note_writes_what_was_found_above_the_letter_and_takes_it() {
    let dns = dns();
    for (from, author, expected) in [
        ("ann@pass.example", "ann@pass.example", "spf=pass smtp.mailfrom=ann@pass.example"),
        ("ann@pass.example", "ann@pass.example", "dmarc=pass (the owner wants: reject)"),
        ("ann@fail.example", "ann@fail.example", "spf=fail smtp.mailfrom=ann@fail.example"),
        ("ann@none.example", "ann@none.example", "spf=none smtp.mailfrom=ann@none.example"),
        ("ann@later.example", "ann@none.example", "spf=temperror"),
        ("ann@pass.example", "eve@bank.example", "dmarc=fail (the owner wants: reject)"),
        ("", "ann@none.example", "spf=none smtp.helo=mail.client.example"),
        ("ann@pass.example", "a@pass.example, b@bank.example", "dmarc=fail"),
    ] {
        let server = server(&dns, "note");
        let letter = format!("From: {author}\nSubject: x\n\nhello\n");
        assert!(send(server.address, from, &letter).starts_with("250 2.6.0"), "{from}");
        let text = stored(&server);
        let (return_path, rest) = text.split_once('\n').unwrap();
        assert_eq!(return_path, format!("Return-Path: <{from}>"));
        assert!(rest.starts_with(OURS) && rest.contains(expected), "{expected}\n{text}");
        assert!(rest.contains("\nReceived: from mail.client.example ") && text.ends_with(&letter));
    }
}

#[test]
fn spf_is_asked_about_the_address_as_it_was_sent_at_a_domain_as_dns_knows_it() {
    let dns = dns();
    for (path, expected) in [
        ("<ann+tag@plus.example>", "spf=pass smtp.mailfrom=ann+tag@plus.example;"),
        ("<a=b@pass.example>", "spf=pass smtp.mailfrom=a=b@pass.example;"),
        ("<\"a b\"@pass.example>", "spf=pass smtp.mailfrom=\"a b@pass.example\";"),
        ("<ann@b\u{fc}cher.example> SMTPUTF8", "spf=pass smtp.mailfrom=ann@xn--bcher-kva.example;"),
    ] {
        let server = server(&dns, "note");
        let mut client = Client::connect(server.address);
        let mail = format!("MAIL FROM:{path}");
        client.all_granted(&["EHLO mail.client.example", &mail, "RCPT TO:<bob@localhost>", "DATA"]);
        assert!(client.message("Subject: x\r\n\r\nhello\r\n").starts_with("250"));
        let text = stored(&server);
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn enforce_refuses_what_owners_want_refused_and_says_why() {
    let dns = dns();
    let long_header = format!("X: {}\n", "x".repeat(900)).repeat(300);
    for (from, author, expected) in [
        ("ann@pass.example", "eve@bank.example", "550 5.7.26 "),
        ("ann@bank.example", "ann@bank.example", "550 5.7.26 "),
        ("ann@fail.example", "ann@fail.example", "550 5.7.23 "),
        ("ann@long.example", "ann@long.example", "550 5.7.23 "),
        ("ann@odd.example", "ann@odd.example", "550 5.7.23 "),
        ("ann@later.example", "ann@none.example", "451 4.7.24 "),
        ("ann@none.example", "ann@slow.example", "451 4.7.26 "),
        ("ann@quiet.example", "ann@quiet.example", "250 2.6.0 "),
        ("ann@pass.example", "ann@pass.example", "250 2.6.0 "),
        ("ann@none.example", "ann@none.example", "250 2.6.0 "),
        // Two authors are no way around the policy of one of them.
        ("ann@pass.example", "ann@pass.example, eve@bank.example", "550 5.7.26 "),
        // Nor is an author about whom nobody can be asked.
        ("ann@pass.example", "service@bank..example", "550 5.7.1 "),
        ("ann@pass.example", "\"service@bank.example\"", "550 5.7.1 "),
        (
            "ann@pass.example",
            "a@1.example,a@2.example,a@3.example,a@4.example,a@bank.example",
            "550 5.7.1 ",
        ),
        (
            "ann@pass.example",
            &format!("ann@pass.example\n{long_header}From: eve@bank.example"),
            "550 5.7.1 ",
        ),
    ] {
        let server = server(&dns, "enforce");
        let reply = send(server.address, from, &format!("From: {author}\n\nhello\n"));
        assert!(reply.starts_with(expected), "{from} {author}: {reply}");
        if from == "ann@fail.example" {
            assert!(reply.contains(" says: 127.0.0.1 is not ours"), "{reply}");
        }
        if from == "ann@long.example" {
            let (_, said) = reply.split_once(" says: ").unwrap();
            assert_eq!(said, "l".repeat(300), "{reply}");
        }
        if from == "ann@odd.example" {
            assert!(reply.ends_with(" says: you may not send for it"), "{reply}");
        }
        let is_taken = expected.starts_with('2');
        assert_eq!(server.new_files("bob").len(), usize::from(is_taken), "{from}");
        assert!(server.drafts().is_empty());
    }
}

#[test]
fn a_forwarded_letter_fails_spf_and_lives_by_its_signature() {
    let dns = dns();
    let server = server(&dns, "enforce");
    let letter = signed("bank.example", "From: ann@bank.example\nSubject: x\n\nhello\n");
    assert!(send(server.address, "ann@bank.example", &letter).starts_with("250 2.6.0"));
    let text = stored(&server);
    for expected in ["spf=fail", "dkim=pass", "header.d=bank.example", "dmarc=pass"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let changed = letter.replace("hello", "hullo");
    assert!(send(server.address, "ann@bank.example", &changed).starts_with("550 5.7.26 "));
}

#[test]
fn a_record_of_spf_that_is_slow_leaves_time_for_the_signature_and_the_policy() {
    let dns = dns();
    let resolver = Resolver::new(vec![dns.address], Duration::from_secs(60));
    let lookups = Lookups::new(&resolver, Instant::now() + Duration::from_secs(6));
    let request = spf::Request {
        ip: Ipv4Addr::LOCALHOST.into(),
        helo: "mail.client.example",
        mail_from: "ann@silent.example",
        receiver: "here.example",
        now: Timestamp::now(),
    };
    let mut letter = Verifier::new(Timestamp::now());
    letter.write(signed("bank.example", "From: ann@bank.example\n\nhello\n").as_bytes());
    let verdicts = Verdicts::find(&request, letter, &lookups, &mut Steps::silent());
    assert_eq!(
        verdicts.to_string(),
        "spf=temperror dkim=pass (bank.example) dmarc=pass (bank.example)"
    );
}

/// Names `l0.deep.example` and so on, of which each leads to the next in nearly the longest
/// record that is read; the last one has this.
fn deep_dns(leads_to: &str, last: &str) -> DnsServer {
    let filler = "ip4:192.0.2.1 ".repeat(280);
    let (records, tricks) = (0..=10)
        .map(|level| {
            let rest = match level {
                10 => last.to_owned(),
                _ => format!("{leads_to}l{}.deep.example", level + 1),
            };
            let text = format!("v=spf1 {filler}{rest}");
            let mut data = TXT::new();
            for part in text.as_bytes().chunks(255) {
                data.add_char_string(CharacterString::new(part).unwrap().into_owned());
            }
            let owner = format!("l{level}.deep.example");
            let record = ResourceRecord::new(name(&owner), CLASS::IN, 60, RData::TXT(data));
            (record, (format!("{owner} TXT"), Trick::Tcp(tricks::with_length)))
        })
        .unzip();
    DnsServer::with_records(records, tricks)
}

/// The thread of a client has a small stack, and the check of SPF calls itself for each
/// record. A build for tests needs more of it than any other.
#[test]
fn ten_records_that_lead_to_each_other_fit_on_the_stack_of_a_client() {
    let letter = "From: ann@none.example\n\nhello\n";
    for (leads_to, last, expected) in [
        ("include:", "ip4:127.0.0.1", "spf=pass"),
        ("redirect=", "ip4:127.0.0.1", "spf=pass"),
        ("include:", "include:l0.deep.example", "spf=permerror"),
        ("redirect=", "redirect=l0.deep.example", "spf=permerror"),
    ] {
        let dns = deep_dns(leads_to, last);
        let server = server(&dns, "note");
        assert!(send(server.address, "ann@l0.deep.example", letter).starts_with("250 2.6.0 "));
        let text = stored(&server);
        assert!(text.contains(&format!("{expected} smtp.mailfrom=")), "{leads_to}{last}\n{text}");
    }
}

#[test]
fn forged_results_go_and_those_of_others_stay() {
    let dns = dns();
    let server = server(&dns, "note");
    let letter = "Authentication-Results: localhost; spf=pass one\n\
                  authentication-results :\n\t(a (b) comment) LOCALHOST. 1; spf=pass two\n\
                  Authentication-Results: \"localhost\"; spf=pass\n three\n\
                  Authentication-Results: other.example; spf=pass four\n\
                  From: ann@none.example\n\
                  Authentication-Results: localhost.evil.example; spf=pass five\n\
                  a line that is no field\n\
                  Authentication-Results: localhost; spf=pass six\n\nhello\n";
    assert!(send(server.address, "ann@none.example", letter).starts_with("250"));
    let text = stored(&server);
    assert_eq!(text.matches("localhost;").count(), 1, "{text}");
    for (word, stays) in [
        ("one", false),
        ("two", false),
        ("three", false),
        ("four", true),
        ("five", true),
        ("six", false),
    ] {
        assert_eq!(text.contains(&format!(" {word}\n")), stays, "{word}\n{text}");
    }
    assert!(text.contains("\nFrom: ann@none.example\n") && text.ends_with("\n\nhello\n"));
}

#[test]
fn a_letter_too_long_for_memory_is_whole_behind_the_field() {
    let dns = dns();
    let server = server(&dns, "note");
    let body: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let letter = signed("bank.example", &format!("From: ann@bank.example\n\n{body}"));
    assert!(letter.len() > 200_000);
    assert!(send(server.address, "ann@none.example", &letter).starts_with("250"));
    let text = stored(&server);
    assert!(text.contains(OURS) && text.contains("dkim=pass") && text.ends_with(&letter));
    assert!(server.drafts().is_empty());
}

#[test]
fn chunks_are_checked_like_any_letter() {
    let dns = dns();
    let server = server(&dns, "enforce");
    let letter = signed("bank.example", "From: ann@bank.example\n\nhello\n").replace('\n', "\r\n");
    let (one, two) = letter.split_at(100);
    let mut client = Client::connect(server.address);
    client.all_granted(&[
        "EHLO c.example",
        "MAIL FROM:<x@none.example>",
        "RCPT TO:<bob@localhost>",
    ]);
    client.send(format!("BDAT {}\r\n{one}", one.len()));
    assert_eq!(&client.reply()[..3], "250");
    client.send(format!("BDAT {} LAST\r\n{two}", two.len()));
    assert!(client.reply().starts_with("250 2.6.0"));
    assert!(stored(&server).contains("dkim=pass"));
}

#[test]
fn what_users_send_is_signed_as_it_is_stored_and_not_checked() {
    let dns = dns();
    let flags = [
        "users ann:{PLAIN}secret".to_owned(),
        "role submission".to_owned(),
        "--allow-plain-auth --sender-checks enforce --hostname localhost.example".to_owned(),
        format!("--dns {} --dkim-selector key", dns.address),
        format!("--dkim-key {}/tests/trust/ed25519.pem", env!("CARGO_MANIFEST_DIR")),
    ];
    // Bcc goes, Date and Message-ID come, and all that is signed: also where the letter is a
    // header and nothing else, and they come after its last octet.
    let header = "From: ann@localhost.example\r\nBcc: bob@localhost.example\r\nSubject: x\r\n\
         Authentication-Results: localhost.example; dmarc=pass\r\n"
        .to_owned();
    for letter in [header.clone() + "\r\nhello\r\n", header] {
        let server = TestServer::with_needs(&flags);
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO c.example", "AUTH PLAIN AGFubgBzZWNyZXQ="]);
        client.all_granted(&[
            "MAIL FROM:<ann@localhost.example>",
            "RCPT TO:<ann@localhost.example>",
            "DATA",
        ]);
        assert!(client.message(&letter).starts_with("250"));

        let folder = server.spool().join("mail/localhost.example/ann/new");
        let text = fs::read_to_string(common::files(&folder).remove(0)).unwrap();
        assert!(!text.contains("Authentication-Results") && !text.contains("Bcc:"), "{text}");
        let at = text.find("DKIM-Signature: v=1; a=ed25519-sha256;").unwrap();
        assert_eq!(results(&dns, &text[at..]), [DkimResult::Pass], "{text}");
        assert!(text.contains("h=From:") && text.contains(":\n\t Message-ID"), "{text}");
    }
}

#[test]
fn the_key_of_a_domain_outside_ascii_is_asked_for_as_dns_knows_it() {
    let dns = dns();
    // Its last tag is no signature, which only who has the key can tell.
    for (domain, expected) in [
        ("b\u{fc}cher.example", DkimResult::Fail),
        ("B\u{dc}CHER.example", DkimResult::Fail),
        ("m\u{fc}hle.example", DkimResult::PermError),
        ("b\u{fc} cher.example", DkimResult::Neutral),
    ] {
        let letter = format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; d={domain}; i=@{domain}; s=key; h=From;\n\t\
             bh=zS7KNTV0HyeorkDDGwxB1AV6enuRKzO5rthkhdHIRnY=; b=AAAA\nFrom: ann@a.example\n\nhello\n"
        );
        assert_eq!(results(&dns, &letter), [expected], "{domain}");
    }
}

#[test]
fn another_key_is_taken_at_a_reload_and_a_broken_one_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dkim.pem");
    let put = |name: &str| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trust").join(name);
        fs::copy(from, &path).unwrap();
    };
    put("ed25519.pem");
    let server = TestServer::with_needs(&[
        "users ann:{PLAIN}secret".to_owned(),
        "role submission".to_owned(),
        "--allow-plain-auth --hostname localhost.example --dkim-selector key".to_owned(),
        format!("--dkim-key {}", path.display()),
    ]);
    let sent = |subject: &str| {
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO c.example", "AUTH PLAIN AGFubgBzZWNyZXQ="]);
        client.all_granted(&["MAIL FROM:<ann@localhost.example>"]);
        client.all_granted(&["RCPT TO:<ann@localhost.example>", "DATA"]);
        let letter = format!("From: ann@localhost.example\r\nSubject: {subject}\r\n\r\nhello\r\n");
        assert!(client.message(&letter).starts_with("250"));
        let all = common::files(&server.spool().join("mail/localhost.example/ann/new"));
        let mut letters = all.iter().map(|file| fs::read_to_string(file).unwrap());
        letters.find(|text| text.contains(subject)).unwrap()
    };
    assert!(sent("first").contains("a=ed25519-sha256;"));
    put("rsa.pem");
    assert!(sent("second").contains("a=ed25519-sha256;"), "nobody has said that it changed");
    server.handle.reload().unwrap();
    assert!(sent("third").contains("a=rsa-sha256;"));
    fs::write(&path, "no key").unwrap();
    let why = server.handle.reload().unwrap_err();
    assert!(why.contains("dkim.pem"), "{why}");
    assert!(sent("fourth").contains("a=rsa-sha256;"), "the old one is still there");
}

#[test]
fn a_key_that_cannot_be_used_stops_the_server_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dkim.pem");
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let key = path.to_str().unwrap();
    for (flags, why) in [
        (vec!["--dkim-key", key], "--dkim-key and --dkim-selector need each other"),
        (vec!["--dkim-selector", "key"], "--dkim-key and --dkim-selector need each other"),
        (vec!["--dkim-key", key, "--dkim-selector", "key"], "dkim.pem: its first PEM block is no"),
        (vec!["--dkim-key", "/nowhere.pem", "--dkim-selector", "key"], "/nowhere.pem: "),
    ] {
        let Ok(Request::Serve(mut config)) = config::from_args(&flags) else { panic!("{flags:?}") };
        config.spool = folder.path().join("spool");
        config.smtp = vec!["127.0.0.1:0".parse().unwrap()];
        let error = Server::bind(*config).err().unwrap().to_string();
        assert!(error.contains(why), "{flags:?}: {error}");
    }
    for flags in [["--dkim-selector", "a b"], ["--sender-checks", "maybe"]] {
        assert!(config::from_args(&flags).is_err(), "{flags:?}");
    }
}

#[test]
fn a_user_who_comes_to_the_port_of_strangers_is_not_checked() {
    let dns = dns();
    let flags = [
        "users ann:{PLAIN}secret".to_owned(),
        format!("--allow-plain-auth --sender-checks enforce --dns {}", dns.address),
    ];
    let server = TestServer::with_needs(&flags);
    let letter = "From: ann@bank.example\r\n\r\nhello\r\n";
    let rest = ["MAIL FROM:<ann@localhost>", "RCPT TO:<ann@localhost>", "DATA"];
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example"]);
    client.all_granted(&rest);
    assert!(client.message(letter).starts_with("550 5.7.26 "), "a stranger with the same letter");
    client.all_granted(&["AUTH PLAIN AGFubgBzZWNyZXQ="]);
    client.all_granted(&rest);
    let before = dns.asked().len();
    assert!(client.message(letter).starts_with("250 2.6.0 "));
    assert_eq!(dns.asked().len(), before, "nobody was asked");
}

/// The flags of a server that signs.
fn signing() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trust");
    format!(" --dkim-selector key --dkim-key {folder}/ed25519.pem")
}

#[test]
fn a_report_of_our_own_is_signed() {
    let refuse = |moment: Moment| match moment.step {
        Step::Rcpt => Act::Say("550 5.1.1 no such mailbox".to_owned()),
        _ => Act::Usual,
    };
    let world = World::with_hop(&signing(), refuse);
    world.send(&["bob@else.example"]);
    until("ann has the report", || world.has_report());
    let report = world.mta.mail("here.example", "ann").remove(0);
    let report = String::from_utf8(report).unwrap();
    let record = ResourceRecord::new(
        name("key._domainkey.here.example"),
        CLASS::IN,
        60,
        RData::TXT(TXT::new().with_char_string(CharacterString::new(KEY.as_bytes()).unwrap())),
    );
    let dns = DnsServer::with_records(vec![record], Vec::new());
    assert_eq!(results(&dns, &report), [DkimResult::Pass], "{report}");
}

#[test]
fn a_letter_that_an_alias_sends_on_is_not_changed() {
    let aliases = "list: bob@else.example\n";
    let rules: common::world::Rules = Box::new(|_| Act::Usual);
    let world = World::with_aliases(aliases, &signing(), ONE_HOP, &[], vec![rules]);
    let letter = signed("bank.example", "From: ann@bank.example\nSubject: x\n\nhello\n");
    let id =
        world.mta.submit("ann@bank.example", &["list@here.example"], &letter.replace('\n', "\r\n"));
    world.until_over(&id);
    let arrived = world.hop().letters().remove(0).text;
    assert!(arrived.ends_with(&letter), "{arrived}");
    assert_eq!(arrived.matches("DKIM-Signature").count(), 1, "{arrived}");
}
