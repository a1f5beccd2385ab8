//! Logins by token over real sockets: what they cost, what never shows, and what files
//! must look like. What makes a token good is tested where it is decided, in
//! `src/smtp/auth/jwt.rs`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use ehlo::smtp::auth::exchange::ClientExchange;
use ehlo::smtp::auth::mechanism::Mechanism;
use jiff::Timestamp;
use ring::signature::Ed25519KeyPair;

use common::child::{ChildServer, EHLO, output};
use common::mta::{mail, submit, until};
use common::{AUDIENCE, Client, ISSUER, TestServer, examples, files, oauth_file, test_file};

const BOTH: [Mechanism; 2] = [Mechanism::OauthBearer, Mechanism::Xoauth2];

/// A token for this user that lasts for so many seconds, and is `pad` octets longer than
/// it need be.
fn token(user: &str, secs: i64, pad: usize) -> String {
    let pem = fs::read_to_string(oauth_file("issuer.pem")).unwrap();
    let base64: String = pem.lines().filter(|line| !line.contains(' ')).collect();
    let der = BASE64.decode(base64).unwrap();
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
    let exp = Timestamp::now().as_second() + secs;
    let pad = "x".repeat(pad);
    let claims = format!(
        r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","exp":{exp},"sub":"{user}","pad":"{pad}"}}"#
    );
    let signed = format!(
        "{}.{}",
        BASE64URL.encode(r#"{"alg":"EdDSA","kid":"example","typ":"at+jwt"}"#),
        BASE64URL.encode(claims)
    );
    format!("{signed}.{}", BASE64URL.encode(key.sign(signed.as_bytes())))
}

fn server() -> TestServer {
    TestServer::with_needs(&["tls", "tokens", "users ann:{PLAIN}secret"].map(str::to_owned))
}

/// The flags of a server that takes tokens, with its files in `folder`.
fn flags(folder: &Path) -> Vec<String> {
    let users = folder.join("users");
    fs::write(&users, "ann:{PLAIN}secret\nbob:{PLAIN}x\n").unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let keys = folder.join("keys.json");
    fs::copy(oauth_file("keys.json"), &keys).unwrap();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (cert, key) = (text(test_file("cert.pem")), text(test_file("key.pem")));
    let mut flags = vec!["--users".to_owned(), text(users), "--cert".to_owned(), cert];
    flags.extend(["--key".to_owned(), key, "--oauth-keys".to_owned(), text(keys)]);
    flags.extend(["--oauth-issuer", ISSUER, "--oauth-audience", AUDIENCE].map(str::to_owned));
    flags
}

/// Says the token, and gives all replies to the end.
fn log_in<S: Read + Write>(client: &mut Client<S>, by: Mechanism, token: &str) -> Vec<String> {
    let (mut login, initial) = ClientExchange::begin(by, "ann", token, "");
    let mut replies = vec![client.ask(&format!("AUTH {} {}", by.name(), initial.unwrap()))];
    while let Some(challenge) = replies[replies.len() - 1].strip_prefix("334 ") {
        let response = login.answer(challenge).unwrap();
        replies.push(client.ask(&response));
    }
    replies
}

#[test]
fn a_token_logs_in_until_it_expires_as_often_as_one_likes() {
    let server = server();
    let (good, expired) = (token("ann", 3600, 0), token("ann", -61, 0));
    for mechanism in BOTH {
        for _ in 0..2 {
            let mut client = Client::encrypted(server.address);
            assert_eq!(log_in(&mut client, mechanism, &good), ["235 2.7.0 authenticated"]);
            client.all_granted(&["MAIL FROM:<ann@localhost>", "RCPT TO:<x@else.example>"]);
        }
    }
    let mut client = Client::encrypted(server.address);
    let replies = log_in(&mut client, Mechanism::OauthBearer, &expired);
    assert_eq!(replies[1], "535 5.7.8 the token was refused");
    assert_eq!(&client.ask("RCPT TO:<x@else.example>")[..3], "503");
}

#[test]
fn a_token_of_many_levels_is_refused_and_the_server_lives() {
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(folder.path());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let spool = folder.path().join("spool");
    // A process of its own: a thread whose stack is full ends the process.
    let server = ChildServer::start(&[EHLO], &spool, &flags).unwrap();
    for levels in [60, 120, 1000] {
        let header = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let token = format!("{}.e30.e30", BASE64URL.encode(header));
        let replies = log_in(&mut Client::encrypted(server.address), Mechanism::Xoauth2, &token);
        assert_eq!(replies.last().unwrap(), "535 5.7.8 the token was refused", "{levels}");
    }
}

#[test]
fn a_long_token_fits_until_its_line_is_full() {
    let server = server();
    // In the token and on the line it is base64: 16 octets for 9.
    let mut longest = 0;
    for pad in [1000, 6500, 8000] {
        let mut client = Client::encrypted(server.address);
        let token = token("ann", 60, pad);
        let reply = &log_in(&mut client, Mechanism::OauthBearer, &token)[0];
        match reply.get(..3) {
            Some("235") => longest = pad,
            _ => assert_eq!(reply.get(..9), Some("500 5.5.6"), "{pad}"),
        }
    }
    assert_eq!(longest, 6500);
}

#[test]
fn a_refused_token_is_told_after_a_second_and_the_rest_at_once() {
    let server = server();
    let mut client = Client::encrypted(server.address);
    let (mut login, initial) = ClientExchange::begin(Mechanism::OauthBearer, "ann", "x.y.z", "");
    let start = Instant::now();
    let reply = client.ask(&format!("AUTH OAUTHBEARER {}", initial.unwrap()));
    let told = start.elapsed();
    assert!(reply.starts_with("334 ") && told >= Duration::from_secs(1), "{told:?}");
    let response = login.answer(&reply[4..]).unwrap();
    assert_eq!(&client.ask(&response)[..9], "535 5.7.8");
    assert!(start.elapsed() - told < Duration::from_secs(1));
}

/// Else a guesser would hang up there.
#[test]
fn a_refused_token_is_counted_though_nobody_waits_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(folder.path());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = ChildServer::start(&[EHLO], &folder.path().join("spool"), &flags).unwrap();
    let address = server.address;
    let guessing: Vec<_> = (0..10)
        .map(|number| {
            thread::spawn(move || {
                let mut client = Client::encrypted(address);
                let guess = format!("x.y.{number}");
                let (_, initial) = ClientExchange::begin(BOTH[1], "ann", &guess, "");
                client.send(format!("AUTH XOAUTH2 {}\r\n", initial.unwrap()));
            })
        })
        .collect();
    for one in guessing {
        one.join().unwrap();
        // The log knows why; the client hears only that.
        server.wait_for_log("a login failed: the token has not the form of a signed JWT");
    }
    let good = token("ann", 60, 0);
    let replies = log_in(&mut Client::encrypted(address), Mechanism::OauthBearer, &good);
    assert_eq!(&replies[0][..9], "454 4.7.0");
}

#[test]
fn no_token_gets_into_log_or_trace_of_a_server_or_of_a_client() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = flags(folder.path());
    flags.push("--trace".to_owned());
    let server_flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let spool = |name: &str| folder.path().join(name);
    let spool_of_server = spool("server");
    let server = ChildServer::start(&[EHLO], &spool_of_server, &server_flags).unwrap();
    let (good, long) = (token("ann", 60, 0), token("ann", 60, 1000));
    let refused = token("zoe", 60, 0);
    for (mechanism, token) in
        [(BOTH[0], &good), (BOTH[1], &long), (BOTH[0], &refused), (BOTH[1], &refused)]
    {
        log_in(&mut Client::encrypted(server.address), mechanism, token);
    }
    // Where it does not belong.
    let bare = |line: String| {
        let mut client = Client::encrypted(server.address);
        assert_eq!(&client.ask(&line)[..1], "5", "{line}");
        assert_eq!(&client.ask(&good)[..1], "5");
    };
    bare(format!("AUTH BEARER {good}"));
    bare(format!("AUTH {good}"));
    bare(format!("AUTH OAUTHBEARER {good}"));
    bare(format!("Authorization: Bearer {good}"));

    // Through a client of ours that relays, once with a good token and once with another.
    for (name, token) in [("good", &long), ("refused", &refused)] {
        let file = folder.path().join(name);
        fs::write(&file, format!("ann\n{token}\n")).unwrap();
        let smarthost = format!("localhost:{}", server.address.port());
        let (ca, spool) = (test_file("cert.pem"), spool(&format!("{name}-spool")));
        let flags = [
            &["--trace", "--relay", "open", "--hostname", "relay.example"][..],
            &["--smarthost", &smarthost, "--smarthost-token", file.to_str().unwrap()],
            &["--smarthost-ca", ca.to_str().unwrap()],
        ]
        .concat();
        let relay = ChildServer::start(&[EHLO], &spool, &flags).unwrap();
        submit(relay.address, "ann@localhost", &["bob@localhost"], "Subject: x\r\n\r\nhi\r\n");
        if name == "good" {
            until("it has come", || !mail(&spool_of_server, "localhost", "bob").is_empty());
        } else {
            let is_told = |path: &PathBuf| {
                fs::read_to_string(path).is_ok_and(|text| text.contains("refused with 535"))
            };
            until("it was tried", || files(&spool.join("queue")).iter().any(is_told));
        }
        let log = relay.stop_and_read_log();
        assert!(log.contains("C: AUTH") || log.contains("C: <"), "{log}");
        // What a server says during a login is hidden, too, such as why it refuses.
        assert!(log.contains("S: 334 <") && !log.contains("S: 334 e"), "{log}");
        assert_hidden(&log, &[&good, &long, &refused]);
    }
    let log = server.stop_and_read_log();
    for text in ["C: AUTH OAUTHBEARER <", "C: AUTH XOAUTH2 <", "who is no user here"] {
        assert!(log.contains(text), "no `{text}` in {log}");
    }
    assert_hidden(&log, &[&good, &long, &refused]);
}

/// No part of a token is in it, nor of its base64, wherever that began.
fn assert_hidden(log: &str, tokens: &[&String]) {
    assert!(log.contains("[") && log.len() > 100, "{log}");
    for token in tokens {
        for part in token.split('.') {
            let middle = &part[part.len() / 2..part.len() / 2 + 12];
            let again = (0..3).map(|at| BASE64.encode(&part[at..at + 12]));
            for secret in again.chain([middle.to_owned(), part[..12].to_owned()]) {
                assert!(!log.contains(&secret), "{secret} in {log}");
            }
        }
    }
}

#[test]
fn keys_are_read_again_and_a_wrong_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(folder.path());
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--spool", "unused"]);
    let Ok(ehlo::config::Request::Serve(config)) = ehlo::config::from_args(&flags) else {
        panic!();
    };
    let server = TestServer::from_config(*config);
    let good = token("ann", 600, 0);
    let first_reply = || log_in(&mut Client::encrypted(server.address), BOTH[0], &good)[0].clone();
    assert_eq!(&first_reply()[..3], "235");
    let keys = folder.path().join("keys.json");
    let ours = fs::read_to_string(&keys).unwrap();
    fs::write(&keys, "{}").unwrap();
    let why = server.handle.reload().unwrap_err();
    assert!(why.contains("keys.json: expected a JWK set"), "{why}");
    assert_eq!(&first_reply()[..3], "235");
    // The issuer signs with another key from now on.
    fs::write(&keys, ours.replace("8mfV", "9mfV")).unwrap();
    server.handle.reload().unwrap();
    assert_eq!(&first_reply()[..3], "334");
}

#[test]
fn keys_that_are_no_use_are_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(folder.path());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let keys = folder.path().join("keys.json");
    let private = fs::read_to_string(oauth_file("issuer.pem")).unwrap();
    for (text, expected) in [
        ("", "expected a JWK set, or public keys in PEM form"),
        (&private, "expected public keys only"),
        (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, "it is symmetric"),
    ] {
        fs::write(&keys, text).unwrap();
        let output = output(&[&[EHLO], &flags[..]].concat(), &folder.path().join("spool"));
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{log}");
        assert!(log.contains("keys.json: ") && log.contains(expected), "{log}");
    }
    // One that is passed over is told, and named by its place.
    let two = fs::read_to_string(oauth_file("keys.json")).unwrap();
    let two = two.replace("\"keys\": [", "\"keys\": [{\"kty\":\"oct\",\"k\":\"x\"},");
    fs::write(&keys, two).unwrap();
    let server = ChildServer::start(&[EHLO], &folder.path().join("spool"), &flags).unwrap();
    assert!(server.wait_for_log("key 1 is not used").contains("it is symmetric"));
    // And the same keys in the other form, as `openssl pkey -pubout` writes them.
    let point = BASE64URL.decode("8mfV4Gx3YrUQtMH0A5oVk8ndaGyYHHAT4l8P_vyqfKs").unwrap();
    let der = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", &point[..]].concat();
    let pem = BASE64.encode(der);
    fs::write(&keys, format!("-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n"))
        .unwrap();
    let server = ChildServer::start(&[EHLO], &folder.path().join("spool"), &flags).unwrap();
    let replies = log_in(&mut Client::encrypted(server.address), BOTH[0], &token("ann", 60, 0));
    assert_eq!(&replies[0][..3], "235");
}

#[test]
fn the_example_shows_a_user_who_is_an_address_as_that_address() {
    let folder = tempfile::tempdir().unwrap();
    for (user, address) in [("ann@x.example", "ann@x.example"), ("ann", "ann@localhost")] {
        let mut program = Command::new(examples().join("token"));
        let output = program.args(["--user", user, "--folder"]).arg(folder.path()).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(text.contains(&format!("--mail-from {address} ")), "{text}");
        assert!(text.contains(&format!("--mail-rcpt {address} ")), "{text}");
    }
}

/// What `cargo run --example token` makes is taken by a server that is started as it says.
#[test]
fn the_example_makes_a_token_that_logs_in() {
    let folder = tempfile::tempdir().unwrap();
    let oauth = folder.path().join("oauth");
    let make = |user: &str, secs: &str| {
        let mut program = Command::new(examples().join("token"));
        let program = program.args(["--user", user, "--expires", secs, "--folder"]).arg(&oauth);
        let output = program.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = fs::read_to_string(oauth.join("token")).unwrap();
        file.strip_prefix(&format!("{user}\n")).unwrap().trim_end().to_owned()
    };
    let good = make("ann", "60");
    for name in ["issuer.pem", "token"] {
        let mode = fs::metadata(oauth.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let flags = flags(folder.path());
    fs::copy(oauth.join("keys.json"), folder.path().join("keys.json")).unwrap();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = ChildServer::start(&[EHLO], &folder.path().join("spool"), &flags).unwrap();
    let first = |token: &str| {
        log_in(&mut Client::encrypted(server.address), Mechanism::OauthBearer, token)[0].clone()
    };
    assert_eq!(&first(&good)[..3], "235");
    // The same key again, so the server need not be told.
    assert_eq!(&first(&make("ann@localhost", "60"))[..3], "235");
    assert_eq!(&first(&make("ann", "-100"))[..3], "334");
}

/// `cargo test --release --test tokens -- --ignored --nocapture`
#[test]
#[ignore = "measures time: alone, and in release"]
fn a_login_by_token_takes_less_than_two_milliseconds() {
    let server = server();
    let token = token("ann", 600, 500);
    for mechanism in BOTH {
        let mut took: Vec<Duration> = (0..100)
            .map(|_| {
                let mut client = Client::encrypted(server.address);
                let start = Instant::now();
                assert_eq!(&log_in(&mut client, mechanism, &token)[0][..3], "235");
                start.elapsed()
            })
            .collect();
        took.sort();
        println!("{}: {:?} (median of {})", mechanism.name(), took[50], took.len());
        assert!(took[50] < Duration::from_millis(2), "{took:?}");
    }
}
