//! `examples/trust.rs` and `examples/dkim_key.rs`, as a person and a test suite run them.
//!
//! Book: docs/16-trust.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ehlo::dns::Resolver;
use ehlo::trust::dkim::DkimResult;
use ehlo::trust::dkim::sign::{Signer, Signing};
use ehlo::trust::dkim::verify::Verifier;
use ehlo::trust::explain::Steps;
use ehlo::trust::lookups::Lookups;
use jiff::Timestamp;
use serde_json::{Value, json};
use simple_dns::rdata::{RData, TXT};
use simple_dns::{CLASS, CharacterString, ResourceRecord};

use common::dns::{DnsServer, name};
use common::{examples, run_with_input};

fn dns() -> DnsServer {
    let records = [
        ("bank.example", "v=spf1 ip4:192.0.2.1 -all exp=why.bank.example"),
        ("why.bank.example", "%{c} is not ours"),
        ("_dmarc.bank.example", "v=DMARC1; p=reject"),
        (
            "key._domainkey.bank.example",
            "v=DKIM1; k=ed25519; p=kkTMyZ5gUfaUx/FRi3rRQxxffnsaTvS536LvOKrnRoA=",
        ),
    ];
    let record = |(owner, text): &(&str, &str)| {
        let string = CharacterString::new(text.as_bytes()).unwrap().into_owned();
        let data = RData::TXT(TXT::new().with_char_string(string));
        ResourceRecord::new(name(owner), CLASS::IN, 60, data)
    };
    DnsServer::with_records(records.iter().map(record).collect(), Vec::new())
}

/// A letter of the bank, with its signature, as it travels.
fn letter() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trust");
    let pem = fs::read_to_string(format!("{folder}/ed25519.pem")).unwrap();
    let text = "From: ann@bank.example\nSubject: x\n\nhello\n";
    let mut signing = Signing::default();
    signing.write(text.as_bytes());
    let signer = Signer::from_pem(&pem, "key").unwrap();
    let field = signer.sign(signing, |_| true, Timestamp::now()).unwrap();
    (field + text).replace('\n', "\r\n")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
fn trust_answers_each_line_of_json_with_one_of_the_same_id() {
    let dns = dns();
    let resolver = dns.address.to_string();
    let message = BASE64.encode(letter());
    let client = json!({"ip": "192.0.2.9", "helo": "mail.example", "mailfrom": "ann@bank.example"});
    let question = |kind: &str, id: Value, more: &Value| {
        let mut all = json!({"kind": kind, "id": id, "resolver": resolver, "timeout_ms": 5000});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all.to_string()
    };
    let mut whole = client.clone();
    whole["message"] = json!(message);
    let questions = [
        question("spf", json!(1), &client),
        question("dkim", json!("two"), &json!({ "message": message })),
        question(
            "dmarc",
            json!(3),
            &json!({
                "from": "bank.example", "spf": {"result": "pass", "domain": "evil.example"},
                "dkim": [{"result": "fail", "domain": "bank.example"}],
            }),
        ),
        question("message", json!(4), &whole),
        "no json".to_owned(),
        question("spf", json!(6), &json!({"ip": "nowhere"})),
        question("odd", json!(7), &json!({})),
    ];
    let mut program = Command::new(examples().join("trust"));
    let output = run_with_input(program.arg("--json"), &(questions.join("\n") + "\n"));
    assert!(output.status.success(), "{output:?}");
    let answers: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let spf = json!({"result": "fail", "explanation": "192.0.2.9 is not ours"});
    let dkim = json!({
        "result": "pass",
        "dkim": [{"result": "pass", "domain": "bank.example", "selector": "key", "why": ""}],
    });
    let record = "v=DMARC1; p=reject";
    let with_id = |id: Value, mut answer: Value| {
        answer["id"] = id;
        answer
    };
    assert_eq!(answers.len(), 7);
    assert_eq!(answers[0], with_id(json!(1), spf.clone()));
    assert_eq!(answers[1], with_id(json!("two"), dkim.clone()));
    let dmarc = json!({"result": "fail", "policy": "reject", "record": record});
    assert_eq!(answers[2], with_id(json!(3), dmarc));
    let dmarc = json!({"result": "pass", "policy": "reject", "record": record});
    let all = json!({"spf": spf, "dkim": dkim, "dmarc": dmarc});
    assert_eq!(answers[3], with_id(json!(4), all));
    for (answer, id) in answers[4..].iter().zip([json!(null), json!(6), json!(7)]) {
        assert!(answer["error"].is_string() && answer["id"] == id, "{answer}");
    }
}

#[test]
fn trust_tells_a_person_each_step_and_what_a_server_would_do() {
    let dns = dns();
    let ask = |letter: &str| -> Output {
        let mut program = Command::new(examples().join("trust"));
        program.args(["--dns", &dns.address.to_string(), "--ip", "192.0.2.9"]);
        run_with_input(program.args(["--from", "ann@bank.example"]), letter)
    };
    let told = text(&ask(&letter()).stdout);
    for line in [
        "  -all matches\n",
        "  so 192.0.2.9 for bank.example: fail\n",
        "  the body is what was signed\n",
        "  so the signature of bank.example: pass\n",
        "  DKIM for bank.example: is the author's (relaxed)\n",
        "\nAuthentication-Results: localhost;\n",
        "With --sender-checks enforce the letter is taken.\n",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    let told = text(&ask(&letter().replace("hello", "hullo")).stdout);
    assert!(told.contains("  so the signature of bank.example: fail, the body was changed\n"));
    assert!(told.ends_with("the letter is refused with 550 5.7.26.\n"), "{told}");

    let output = run_with_input(&mut Command::new(examples().join("trust")), "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--ip is missing"));
}

#[test]
fn a_line_that_is_no_text_is_answered_and_so_is_the_next_one() {
    let mut program = Command::new(examples().join("trust"));
    let program = program.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = program.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"id\": \"\xff\"}\n{\"id\": 2}\n").unwrap();
    let answers = text(&child.wait_with_output().unwrap().stdout);
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines.len(), 2, "{answers}");
    assert!(lines[0].contains("error") && lines[1].contains("\"id\":2"), "{answers}");
}

#[test]
fn flags_that_json_does_not_heed_are_refused() {
    for args in [&["--dns", "192.0.2.1:53"][..], &["--ip", "192.0.2.1"], &["letter.eml"]] {
        let mut program = Command::new(examples().join("trust"));
        let output = run_with_input(program.arg("--json").args(args), "");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains("with --json"), "{args:?}");
    }
}

/// What comes of a letter that is signed with this key, if this is its record in DNS.
fn results(key: &Path, record: &str) -> Vec<DkimResult> {
    let signer = Signer::from_pem(&fs::read_to_string(key).unwrap(), "key1").unwrap();
    let letter = "From: ann@x.example\n\nhello\n";
    let mut signing = Signing::default();
    signing.write(letter.as_bytes());
    let field = signer.sign(signing, |_| true, Timestamp::now()).unwrap();
    let strings = record.as_bytes().chunks(255).fold(TXT::new(), |txt, string| {
        txt.with_char_string(CharacterString::new(string).unwrap()).into_owned()
    });
    let owner = name("key1._domainkey.x.example");
    let record = ResourceRecord::new(owner, CLASS::IN, 60, RData::TXT(strings));
    let dns = DnsServer::with_records(vec![record], Vec::new());
    let resolver = Resolver::new(vec![dns.address], Duration::from_secs(5));
    let lookups = Lookups::new(&resolver, Instant::now() + Duration::from_secs(5));
    let mut verifier = Verifier::new(Timestamp::now());
    verifier.write((field + letter).as_bytes());
    let verdicts = verifier.finish(&lookups, &mut Steps::silent());
    verdicts.into_iter().map(|one| one.result).collect()
}

/// The program `openssl` makes the keys. Where there is none, `dkim_key` has to say so.
#[test]
fn the_record_of_dkim_key_has_the_public_half_of_its_key() {
    let has_openssl = Command::new("openssl").arg("version").output().is_ok();
    let folder = tempfile::tempdir().unwrap();
    for flag in [None, Some("--ed25519")] {
        let path = folder.path().join(flag.unwrap_or("rsa"));
        let make = || {
            let mut program = Command::new(examples().join("dkim_key"));
            program.args(["--domain", "x.example", "--key", path.to_str().unwrap()]).args(flag);
            program.output().unwrap()
        };
        let output = make();
        if !has_openssl {
            assert!(text(&output.stderr).contains("the program openssl does not run"));
            continue;
        }
        let said = text(&output.stdout);
        let strings = said.split("key1._domainkey.x.example. TXT \"").nth(1).unwrap();
        let record = strings.lines().next().unwrap().trim_end_matches('"').replace("\" \"", "");
        assert_eq!(results(&path, &record), [DkimResult::Pass], "{said}");
        // A second run keeps the key, and prints the same.
        assert_eq!(text(&make().stdout), said);
    }
}
