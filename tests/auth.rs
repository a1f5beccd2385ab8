//! AUTH: what never gets into log or trace, what failures cost, and what the
//! files of users and aliases must look like.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD};
use ehlo::smtp::auth::exchange::ClientExchange;
use ehlo::smtp::auth::mechanism::Mechanism;

use common::child::{ChildServer, EHLO, output};
use common::{Client, TestServer, files, test_file};

const PASSWORD: &str = "correct-horse-battery";

fn server(needs: &[&str]) -> TestServer {
    let needs: Vec<String> = needs.iter().map(|need| (*need).to_owned()).collect();
    TestServer::with_needs(&needs)
}

/// A server of its own process, with ann, without TLS, and with the flags given.
fn child(folder: &Path, flags: &[&str]) -> ChildServer {
    let users = folder.join("users");
    fs::write(&users, format!("ann:{{PLAIN}}{PASSWORD}\n")).unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let ours = ["--users", users.to_str().unwrap(), "--allow-plain-auth"];
    ChildServer::start(&[EHLO], &folder.join("spool"), &[&ours, flags].concat()).unwrap()
}

/// Logs in and gives the reply that ends the exchange.
fn log_in<S: Read + Write>(
    client: &mut Client<S>,
    mechanism: Mechanism,
    user: &str,
    password: &str,
) -> String {
    let (mut login, initial) =
        ClientExchange::begin(mechanism, user, password, "a-nonce-for-tests");
    let initial = initial.map(|text| format!(" {text}")).unwrap_or_default();
    let mut reply = client.ask(&format!("AUTH {}{initial}", mechanism.name()));
    while let Some(challenge) = reply.strip_prefix("334 ") {
        let response = login.answer(challenge).unwrap_or_else(|_| "*".to_owned());
        reply = client.ask(&response);
    }
    reply
}

/// What base64 makes of a text wherever in a message it begins: octets at its
/// edges share a digit with their neighbours, all others do not.
fn in_base64(text: &str) -> Vec<String> {
    (0..3)
        .map(|before| {
            let padded = [&"\0".repeat(before), text].concat();
            let digits = STANDARD_NO_PAD.encode(padded);
            let (start, end) = (before * 8_usize, digits.len() * 6);
            let first = start.div_ceil(6);
            let last = (end - end % 8) / 6 - 1;
            digits[first..last].to_owned()
        })
        .collect()
}

#[test]
fn base64_of_a_password_is_found_at_every_place() {
    for before in ["", "\0", "\0ann\0", "\0anna\0", "x\0anna\0"] {
        let message = BASE64.encode(format!("{before}{PASSWORD}"));
        let found = in_base64(PASSWORD).iter().filter(|part| message.contains(*part)).count();
        assert_eq!(found, 1, "{message}");
    }
}

#[test]
fn no_password_gets_into_log_or_trace() {
    let folder = tempfile::tempdir().unwrap();
    let server = child(folder.path(), &["--trace", "--max-per-client", "0"]);
    let address = server.address;
    let plain = BASE64.encode(format!("\0ann\0{PASSWORD}"));
    let bare = BASE64.encode(PASSWORD);
    let connect = || {
        let mut client = Client::connect(address);
        client.all_granted(&["EHLO c.example"]);
        client
    };

    for mechanism in Mechanism::ALL.into_iter().filter(|one| !one.takes_token()) {
        let reply = log_in(&mut connect(), mechanism, "ann", PASSWORD);
        assert_eq!(&reply[..3], "235", "{mechanism:?}");
    }
    // The right password for somebody else is a password too.
    let failing = thread::spawn(move || {
        for mechanism in [Mechanism::Plain, Mechanism::Login] {
            let mut client = Client::connect(address);
            client.all_granted(&["EHLO c.example"]);
            assert_eq!(&log_in(&mut client, mechanism, "eve", PASSWORD)[..3], "535");
            // Who does not read the reply goes on with it.
            assert_eq!(&client.ask(PASSWORD)[..3], "500");
        }
    });

    // Broken in every place, and then the client sends the rest all the same.
    for lines in [
        &[&format!("AUTH PLAIN {plain}x")[..], &bare][..],
        &[&format!("AUTH PLAIN {plain} x"), &bare],
        &[&format!("AUTH {plain}"), &bare],
        &[&format!("AUTH PLAIN\t{plain}"), PASSWORD],
        &[&format!(" AUTH PLAIN {plain}"), PASSWORD],
        &[&format!("AUTH\tPLAIN\t{plain}"), PASSWORD],
        &[&format!("AUTH=PLAIN {plain}")],
        &[&format!("AUTH LOGIN ann {PASSWORD}"), &bare],
        &[&format!("auth {PASSWORD}"), PASSWORD],
        &[&format!("AUTH GSSAPI {plain}"), &plain, &bare],
        &[&format!("AUTH CRAM-MD5 {plain}"), &plain],
        &["AUTH LOGIN", "not base64", &bare, PASSWORD],
        &["AUTH LOGIN", "*", "YW5u", &bare],
        &["AUTH PLAIN", &format!("{plain}!"), &plain],
        &["AUTH PLAIN", PASSWORD, PASSWORD],
        &["AUTH SCRAM-SHA-256", &plain, &plain],
        &["MAIL FROM:<ann@localhost>", "AUTH LOGIN", "YW5u", &bare],
        &["RSET", &format!("AUTH LOGIN {}", "A".repeat(13_000)), &bare],
    ] {
        let mut client = connect();
        for line in lines {
            assert_ne!(client.ask(line), "");
        }
    }
    // Before EHLO, and a whole exchange without a look at the replies.
    let mut client = Client::connect(address);
    client.send(format!("AUTH LOGIN\r\nYW5u\r\n{bare}\r\n{PASSWORD}\r\nQUIT\r\n"));
    while !client.reply().is_empty() {}
    failing.join().unwrap();

    let log = server.stop_and_read_log();
    for text in ["C: AUTH PLAIN <", "C: AUTH LOGIN", "C: AUTH SCRAM-SHA-256 <", "a login failed"] {
        assert!(log.contains(text), "no `{text}` in {log}");
    }
    assert!(log.matches(" octets>").count() >= 30, "{log}");
    let found: Vec<&str> = log
        .lines()
        .filter(|line| {
            let holds = |secret: &String| line.contains(secret.as_str());
            line.contains(PASSWORD) || in_base64(PASSWORD).iter().any(holds)
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_failed_login_is_answered_after_a_second_and_a_right_one_at_once() {
    let server = server(&["--allow-plain-auth", "users ann:{PLAIN}secret"]);
    let took = |user: &str, password: &str| {
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO c.example"]);
        let start = Instant::now();
        let reply = log_in(&mut client, Mechanism::Plain, user, password);
        (reply, start.elapsed())
    };
    let second = Duration::from_secs(1);
    thread::scope(|scope| {
        let wrong = scope.spawn(|| took("ann", "wrong"));
        let unknown = scope.spawn(|| took("nobody", "wrong"));
        let right = scope.spawn(|| took("ann", "secret"));
        let (wrong, unknown) = (wrong.join().unwrap(), unknown.join().unwrap());
        assert_eq!(wrong.0, unknown.0);
        assert!(wrong.1 >= second && unknown.1 >= second, "{wrong:?} {unknown:?}");
        let (reply, took) = right.join().unwrap();
        assert!(reply.starts_with("235") && took < second, "{reply} after {took:?}");
    });
}

#[test]
fn replies_that_are_owed_do_not_wait_with_the_answer_to_a_failed_login() {
    let server = server(&["--allow-plain-auth", "users ann:{PLAIN}secret"]);
    let mut client = Client::connect(server.address);
    let start = Instant::now();
    client.send("EHLO c.example\r\nNOOP\r\nAUTH PLAIN AGFubgB3cm9uZw==\r\nNOOP\r\n");
    assert_eq!(&client.reply()[..3], "250");
    assert_eq!(&client.reply()[..3], "250");
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(&client.reply()[..3], "535");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(&client.reply()[..3], "250");
}

#[test]
fn ten_failures_of_one_address_block_it_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--smtp", "[::1]:0"];
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let server = child(folder.path(), if has_ipv6 { &flags } else { &[] });
    let address = server.address;
    let connect = |address: SocketAddr| {
        let mut client = Client::connect(address);
        client.all_granted(&["EHLO c.example"]);
        client
    };

    let mut early = connect(address);
    let guessing: Vec<_> = (0..10)
        .map(|number| {
            let mut client = connect(address);
            thread::spawn(move || {
                let reply = log_in(&mut client, Mechanism::Plain, "ann", &format!("x{number}"));
                assert_eq!(&reply[..9], "535 5.7.8");
                client
            })
        })
        .collect();
    for _ in 0..10 {
        server.wait_for_log("a login failed");
    }
    // All ten still wait for their answers. Nobody waits for them.
    let start = Instant::now();
    if has_ipv6 {
        let mut other = connect(server.more_addresses[0]);
        assert_eq!(&log_in(&mut other, Mechanism::Login, "ann", PASSWORD)[..3], "235");
        other.all_granted(&["MAIL FROM:<ann@localhost>", "RCPT TO:<ann@localhost>", "DATA"]);
        assert_eq!(&other.message("hello\r\n")[..3], "250");
    } else {
        println!("skipped in part: no IPv6 here, so there is no other address");
    }
    // This address may not try any more, not even with the right password, not in
    // a session that was there before; but it may send mail.
    for client in [&mut early, &mut connect(address)] {
        assert_eq!(&log_in(client, Mechanism::Plain, "ann", PASSWORD)[..9], "454 4.7.0");
        assert_eq!(&log_in(client, Mechanism::ScramSha256, "ann", PASSWORD)[..9], "454 4.7.0");
        client.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<ann@localhost>"]);
    }
    // None of the four was answered a second later, as a failure is.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    for client in guessing {
        let mut client = client.join().unwrap();
        assert_eq!(&log_in(&mut client, Mechanism::Plain, "ann", PASSWORD)[..9], "454 4.7.0");
    }
}

#[test]
fn an_empty_challenge_is_334_and_a_blank() {
    // RFC 4954 section 4: some clients wait for the blank.
    let server = server(&["--allow-plain-auth", "users ann:{PLAIN}secret"]);
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example"]);
    client.send("AUTH PLAIN\r\n");
    let mut octets = [0; 6];
    let mut tcp: &TcpStream = client.tcp();
    tcp.read_exact(&mut octets).unwrap();
    assert_eq!(&octets, b"334 \r\n");
}

/// The last message of SCRAM, which needs the proof of the one before.
#[test]
fn the_last_step_of_scram_wants_an_empty_line_and_nothing_else() {
    let server = server(&["--allow-plain-auth", "users ann:{PLAIN}secret"]);
    let too_long = "A".repeat(12_287);
    for (last, expected) in [
        ("", "235 2.7.0"),
        ("*", "501 5.7.0"),
        ("QUIT", "501 5.5.2"),
        ("=", "501 5.5.2"),
        ("dGhhbmtz", "501 5.5.2"),
        (&too_long, "500 5.5.6"),
    ] {
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO c.example"]);
        let (mut login, first) =
            ClientExchange::begin(Mechanism::ScramSha256, "ann", "secret", "nonce");
        let reply = client.ask(&format!("AUTH SCRAM-SHA-256 {}", first.unwrap()));
        let proof = login.answer(reply.strip_prefix("334 ").unwrap()).unwrap();
        let reply = client.ask(&proof);
        assert_eq!(login.answer(reply.strip_prefix("334 ").unwrap()), Ok(String::new()));
        assert_eq!(&client.ask(last)[..9], expected, "{last:.20}");
        client.all_granted(&["NOOP"]);
    }
}

#[test]
fn a_wrong_line_of_a_file_is_exit_78_and_named_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let (users, aliases) = (folder.path().join("users"), folder.path().join("aliases"));
    let missing = folder.path().join("missing");
    let good = "ann:{PLAIN}secret\n";
    for (users_text, aliases_text, named) in [
        ("# x\n\nann\n", "", "users:3: expected name:{SCHEME}secret"),
        ("ann:hunter2\n", "", "users:1: expected {PLAIN} or {SCRAM-SHA-256}"),
        ("ann:{SHA512-CRYPT}hunter2\n", "", "users:1: expected {PLAIN} or {SCRAM-SHA-256}"),
        ("ann:{PLAIN}x\nANN:{PLAIN}hunter2\n", "", "users:2: expected a name"),
        ("ann:{PLAIN}x\nann:{PLAIN}hunter2\n", "", "users:2: expected each name once"),
        ("ann:{PLAIN}x\nbob@localhost:{PLAIN}x\n", "", "users:2: expected bare names or full"),
        (good, "info ann\n", "aliases:1: expected name: target, target"),
        (good, "info: ann,\n", "aliases:1: expected an address or a name"),
        (good, "info: ann\ninfo: ann\n", "aliases:2: expected each name once"),
        (good, "a: ann\n\nb: eve\n", "aliases:3: eve@localhost is no mailbox here"),
        (good, "a: eve@localhost\n", "aliases:1: eve@localhost is no mailbox here"),
        (good, "a: b\nb: a\n", "leads back to itself"),
    ] {
        fs::write(&users, users_text).unwrap();
        fs::write(&aliases, aliases_text).unwrap();
        let flags = ["--users", users.to_str().unwrap(), "--aliases", aliases.to_str().unwrap()];
        let spool = folder.path().join("spool");
        let output = output(&[&[EHLO], &flags[..]].concat(), &spool);
        let log = String::from_utf8(output.stderr).unwrap();
        let line = log.lines().last().unwrap();
        assert_eq!(output.status.code(), Some(78), "{log}");
        assert!(line.starts_with("ehlo: ") && line.contains(named), "{named}: {log}");
        assert!(!log.contains("hunter2") && !spool.exists(), "{log}");
    }
    for flag in ["--users", "--aliases"] {
        let flags = [EHLO, flag, missing.to_str().unwrap()];
        let output = output(&flags, &folder.path().join("spool"));
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{log}");
        assert!(log.contains("missing: No such file"), "{log}");
    }
}

#[test]
fn files_that_others_can_read_and_passwords_in_clear_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let server = child(folder.path(), &[]);
    server.wait_for_log("passwords are taken in clear");
    fs::set_permissions(folder.path().join("users"), fs::Permissions::from_mode(0o604)).unwrap();
    server.signal("-HUP");
    let line = server.wait_for_log("users: everybody on this machine can get at it");
    assert!(line.contains("WARN") && line.contains("chmod 600 "), "{line}");

    let key = folder.path().join("key");
    fs::copy(test_file("key.pem"), &key).unwrap();
    let cert = test_file("cert.pem");
    let flags = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    for (mode, expected) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let spool = folder.path().join("spool");
        let log = ChildServer::start(&[EHLO], &spool, &flags).unwrap().stop_and_read_log();
        assert_eq!(log.matches("key: everybody").count(), expected, "{mode:o}: {log}");
    }
}

/// The fields that stand in the only file of a mailbox.
fn stored(server: &TestServer, mailbox: &str) -> String {
    let files = server.new_files(mailbox);
    assert_eq!(files.len(), 1, "{files:?}");
    let text = fs::read_to_string(&files[0]).unwrap();
    fs::remove_file(&files[0]).unwrap();
    text
}

/// Sends one letter from ann to herself and gives what was stored.
fn deliver<S: Read + Write>(server: &TestServer, client: &mut Client<S>, text: &str) -> String {
    client.all_granted(&["MAIL FROM:<ann@localhost>", "RCPT TO:<ann@localhost>", "DATA"]);
    assert_eq!(&client.message(text)[..3], "250");
    stored(server, "ann")
}

#[test]
fn date_and_message_id_are_added_on_submission_only() {
    let submission = server(&["--allow-plain-auth", "users ann:{PLAIN}secret", "role submission"]);
    let smtp = server(&["--allow-plain-auth", "users ann:{PLAIN}secret"]);
    for (server, is_added) in [(&submission, 1), (&smtp, 0)] {
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO c.example"]);
        assert_eq!(&log_in(&mut client, Mechanism::Plain, "ann", "secret")[..3], "235");

        let text = deliver(server, &mut client, "Subject: x\r\n\r\nDate: in the body\r\n");
        let (header, body) = text.split_once("\n\n").unwrap();
        assert_eq!(header.matches("\nDate: ").count(), is_added, "{text}");
        assert_eq!(header.matches("\nMessage-ID: <").count(), is_added, "{text}");
        assert_eq!(body, "Date: in the body\n");

        let text = deliver(server, &mut client, "DATE: mine\r\nmessage-id : <me@x>\r\n\r\n");
        assert!(text.ends_with(" +0000\nDATE: mine\nmessage-id : <me@x>\n\n"), "{text}");

        // A header that is all of the message, and none at all.
        for (sent, whole) in [("Subject: x\r\n", "Subject: x\n"), ("", "")] {
            let text = deliver(server, &mut client, sent);
            assert_eq!(text.matches("\nDate: ").count(), is_added, "{text}");
            assert!(text.contains(whole), "{text}");
        }
    }
}

#[test]
fn the_id_of_an_added_message_id_is_that_of_the_reply() {
    let server = server(&["--allow-plain-auth", "users ann:{PLAIN}secret", "role submission"]);
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example"]);
    log_in(&mut client, Mechanism::Plain, "ann", "secret");
    client.all_granted(&["MAIL FROM:<>", "RCPT TO:<ann@localhost>", "DATA"]);
    let reply = client.message("Subject: x\r\n\r\n");
    let (_, id) = reply.split_once("stored as ").unwrap();
    assert!(stored(&server, "ann").contains(&format!("\nMessage-ID: <{id}@localhost>\n")));
}

#[test]
fn received_says_whether_it_was_encrypted_and_whether_somebody_logged_in() {
    let server = server(&["tls", "--allow-plain-auth", "users ann:{PLAIN}secret"]);
    let mut with = Vec::new();
    for logs_in in [false, true] {
        let mut clear = Client::connect(server.address);
        clear.all_granted(&["EHLO c.example"]);
        let mut encrypted = Client::encrypted(server.address);
        if logs_in {
            assert_eq!(&log_in(&mut clear, Mechanism::CramMd5, "ann", "secret")[..3], "235");
            assert_eq!(&log_in(&mut encrypted, Mechanism::Plain, "ann", "secret")[..3], "235");
        }
        with.push(deliver(&server, &mut clear, "x\r\n"));
        with.push(deliver(&server, &mut encrypted, "x\r\n"));
    }
    let utf8 = ["MAIL FROM:<ann@localhost> SMTPUTF8", "RCPT TO:<ann@localhost>", "DATA"];
    let mut encrypted = Client::encrypted(server.address);
    log_in(&mut encrypted, Mechanism::ScramSha256, "ann", "secret");
    encrypted.all_granted(&utf8);
    assert_eq!(&encrypted.message("x\r\n")[..3], "250");
    with.push(stored(&server, "ann"));
    let words: Vec<&str> = with
        .iter()
        .map(|text| text.split_once(" with ").unwrap().1.split(' ').next().unwrap())
        .collect();
    assert_eq!(words, ["ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA", "UTF8SMTPSA"]);
    assert!(!with.concat().contains("secret"));
}

/// Dovecot's own tool makes a line, and it is taken as it is.
#[test]
fn a_line_that_doveadm_made_logs_in() {
    let doveadm = Command::new("doveadm")
        .args(["pw", "-s", "SCRAM-SHA-256", "-p", PASSWORD])
        .output()
        .ok()
        .filter(|output| output.status.success());
    let Some(output) = doveadm else {
        println!("skipped: no doveadm here");
        return;
    };
    let secret = String::from_utf8(output.stdout).unwrap();
    let server = server(&["--allow-plain-auth", &format!("users ann:{}", secret.trim_end())]);
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256] {
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO c.example"]);
        assert_eq!(&log_in(&mut client, mechanism, "ann", PASSWORD)[..3], "235");
    }
    assert!(files(&server.spool().join("mail")).is_empty());
}
