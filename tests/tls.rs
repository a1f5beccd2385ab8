//! TLS: handshakes that do not come, files that do not fit, and what is the same
//! as in clear.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::child::{ChildServer, EHLO, output};
use common::{Client, TestServer, connector, files, test_file};

/// The start of a handshake record of 512 octets, of which no more follows.
const HELLO: [u8; 6] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];

fn server(needs: &[&str]) -> TestServer {
    let needs: Vec<String> = needs.iter().map(|need| (*need).to_owned()).collect();
    TestServer::with_needs(&needs)
}

/// The flags for a certificate, after others.
fn with_files<'a>(flags: &[&'a str], cert: &'a Path, key: &'a Path) -> Vec<&'a str> {
    let files = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    [flags, &files].concat()
}

/// Waits until the server has closed, and gives what it said before.
fn until_close(mut tcp: &TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match tcp.read_to_end(&mut said) {
        Ok(_) => said,
        // What we sent and nobody read turns a close into a reset.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => said,
        Err(error) => panic!("no close: {error}"),
    }
}

#[test]
fn a_handshake_that_does_not_end_is_cut_off_at_its_deadline() {
    let clear = server(&["tls", "--timeout 1"]);
    let encrypted = server(&["tls", "users ann:{PLAIN}x", "role submissions", "--timeout 1"]);
    let after_starttls = || {
        let mut client = Client::connect(clear.address);
        client.all_granted(&["EHLO c.example", "STARTTLS"]);
        client.tcp().try_clone().unwrap()
    };
    let at_once = || Client::silent(encrypted.address).tcp().try_clone().unwrap();
    let zeros = [0; 512];
    thread::scope(|scope| {
        for (tcp, first) in [
            (after_starttls(), &[][..]),
            (at_once(), &[][..]),
            (after_starttls(), &HELLO[..]),
            (at_once(), &HELLO[..]),
        ] {
            scope.spawn(move || {
                let start = Instant::now();
                let mut dripping = tcp.try_clone().unwrap();
                let drip = thread::spawn(move || {
                    for octet in first.iter().chain(&zeros).take(first.len() * 100) {
                        if dripping.write_all(&[*octet]).is_err() {
                            break;
                        }
                        thread::sleep(Duration::from_millis(100));
                    }
                });
                assert_eq!(until_close(&tcp), b"");
                let took = start.elapsed();
                assert!(took >= Duration::from_millis(900), "{took:?}");
                assert!(took < Duration::from_secs(4), "{took:?}");
                tcp.shutdown(Shutdown::Both).unwrap_or_default();
                drip.join().unwrap();
            });
        }
    });
}

#[test]
fn clear_text_and_tls_on_the_wrong_port_are_named_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "ann:{PLAIN}secret\n").unwrap();
    let flags = ["--users", users.to_str().unwrap(), "--submissions", "127.0.0.1:0"];
    let (cert, key) = (test_file("cert.pem"), test_file("key.pem"));
    let flags = with_files(&flags, &cert, &key);
    let server = ChildServer::start(&[EHLO], &folder.path().join("spool"), &flags).unwrap();

    let mut clear = Client::silent(server.more_addresses[0]);
    clear.send("EHLO c.example\r\n");
    assert_eq!(clear.tcp().read_to_end(&mut Vec::new()).unwrap(), 0);
    // What comes is read away for a moment: a reset would eat what was said before it.
    thread::sleep(Duration::from_millis(100));
    clear.tcp().write_all(b"NOOP\r\n").unwrap();
    server.wait_for_log("clear text where a TLS handshake was expected, wrong port or setting");

    let encrypted = TcpStream::connect(server.address).unwrap();
    assert!(connector().connect("localhost", encrypted).is_err());
    server.wait_for_log("TLS on the clear port, the client should use STARTTLS or another port");

    let mut instead = Client::connect(server.address);
    instead.all_granted(&["EHLO c.example", "STARTTLS"]);
    instead.send("MAIL FROM:<eve@c.example>\r\n");
    assert_eq!(until_close(instead.tcp()), b"");
    server.wait_for_log("clear text where a TLS handshake was expected, after STARTTLS");

    let mut injected = Client::connect(server.address);
    injected.all_granted(&["EHLO c.example"]);
    assert_eq!(&injected.ask("STARTTLS\r\nMAIL FROM:<>")[..9], "554 5.5.1");
    assert_eq!(injected.reply(), "");
    server.wait_for_log("commands right after STARTTLS");
}

#[test]
fn each_kind_of_wrong_file_is_exit_78_and_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let broken = file("broken", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n");
    let locked = file("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n");
    let old_locked = file("old", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n");
    let garbage = file("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let empty = file("empty", "");
    let der = folder.path().join("der");
    fs::write(&der, b"0\x82\x03\x09\xff\xfe").unwrap();
    let missing = folder.path().join("missing");
    let (cert, key) = (test_file("cert.pem"), test_file("key.pem"));
    let other = test_file("other-key.pem");
    for (cert, key, named, why) in [
        (&cert, &broken, &broken, "no key"),
        (&cert, &locked, &locked, "expected a key without a password"),
        (&cert, &old_locked, &old_locked, "expected a key without a password"),
        (&cert, &other, &other, "do not fit together"),
        (&cert, &missing, &missing, "No such file"),
        (&missing, &key, &missing, "No such file"),
        (&cert, &empty, &empty, "expected a private key in PEM form"),
        (&cert, &cert, &cert, "expected a private key in PEM form"),
        (&cert, &der, &der, "expected a private key in PEM form, this is a binary file"),
        (&der, &key, &der, "expected a certificate in PEM form, this is a binary file"),
        (&key, &key, &key, "expected a certificate in PEM form"),
        (&garbage, &key, &garbage, ""),
    ] {
        let spool = folder.path().join("spool");
        let output = output(&with_files(&[EHLO], cert, key), &spool);
        let log = String::from_utf8(output.stderr).unwrap();
        let line = log.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(78), "{log}");
        assert!(line.starts_with("ehlo: ") && line.contains(why), "expected {why}: {log}");
        assert!(line.contains(named.to_str().unwrap()), "expected {}: {log}", named.display());
        assert!(output.stdout.is_empty() && !spool.exists(), "{log}");
    }
}

#[test]
fn a_certificate_without_a_key_or_a_port_without_a_certificate_is_exit_78() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "ann:{PLAIN}secret\n").unwrap();
    let (cert, users) = (test_file("cert.pem"), users.to_str().unwrap().to_owned());
    for (flags, why) in [
        (&["--cert", cert.to_str().unwrap()][..], "--key"),
        (&["--key", cert.to_str().unwrap()], "--cert"),
        (&["--submissions", "127.0.0.1:0", "--users", &users], "--cert"),
        (&["--submission", "127.0.0.1:0", "--users", &users], "--allow-plain-auth"),
        (&["--submission", "127.0.0.1:0", "--allow-plain-auth"], "--users"),
    ] {
        let output = output(&[&[EHLO], flags].concat(), &folder.path().join("spool"));
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{log}");
        assert!(log.starts_with("ehlo: ") && log.contains(why), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}

/// The same keys in all forms that ACME clients and `openssl` write, with text around
/// them and without. Other systems want PKCS#8.
#[cfg(target_os = "linux")]
#[test]
fn keys_are_taken_as_other_programs_write_them() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: no openssl here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str| {
        let command = Command::new("sh").args(["-c", command]).current_dir(folder.path()).output();
        let done = command.unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    run(&format!(
        "cp {} rsa-cert; cp {} rsa-pkcs8",
        test_file("cert.pem").display(),
        test_file("key.pem").display()
    ));
    run("openssl rsa -traditional -in rsa-pkcs8 -out rsa-pkcs1");
    // This writes a block of parameters before that of the key.
    run("openssl ecparam -name prime256v1 -genkey -out ec-parameters");
    run("openssl ec -in ec-parameters -out ec-sec1");
    run("openssl pkcs8 -topk8 -nocrypt -in ec-sec1 -out ec-pkcs8");
    run("openssl req -x509 -key ec-sec1 -days 3 -subj /CN=localhost -out ec-cert");
    // Octets that are no UTF-8, as a comment may have them.
    let comment = b"Bag Attributes\n    friendlyName: B\xfcro\nsubject=CN = localhost\n\n";
    for (cert, key) in [
        ("rsa-cert", "rsa-pkcs8"),
        ("rsa-cert", "rsa-pkcs1"),
        ("ec-cert", "ec-pkcs8"),
        ("ec-cert", "ec-sec1"),
        ("ec-cert", "ec-parameters"),
    ] {
        for before in [&b""[..], comment] {
            let copy = |name: &str| {
                let path = folder.path().join(format!("copy-of-{name}"));
                let pem = fs::read(folder.path().join(name)).unwrap();
                fs::write(&path, [before, &pem, before].concat()).unwrap();
                path
            };
            let (cert, key) = (copy(cert), copy(key));
            let flags = with_files(&[], &cert, &key);
            let spool = folder.path().join("spool");
            let server = ChildServer::start(&[EHLO], &spool, &flags).unwrap();
            Client::encrypted(server.address).all_granted(&["NOOP"]);
        }
    }
}

#[test]
fn comments_in_front_of_certificate_chain_and_key_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let read = |name: &str| fs::read_to_string(test_file(name)).unwrap();
    let comment = "Bag Attributes\n    friendlyName: NOT ENCRYPTED\nsubject=CN = localhost\n\n";
    let chain = [comment, &read("cert.pem"), comment, &read("other-cert.pem")].concat();
    let cert = file("chain.pem", chain);
    let key = file("key.pem", [comment, &read("key.pem")].concat());
    let flags = with_files(&[], &cert, &key);
    let server = ChildServer::start(&[EHLO], &folder.path().join("spool"), &flags).unwrap();
    Client::encrypted(server.address).all_granted(&["NOOP"]);
}

/// What becomes of a handshake of a client that knows this version and these ciphers
/// alone: how the session is encrypted.
#[cfg(target_os = "linux")]
fn encrypted_by(
    address: SocketAddr,
    version: openssl::ssl::SslVersion,
    ciphers: &str,
) -> Option<String> {
    use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    // Level 0 lets a client ask for what is not safe any more.
    builder.set_cipher_list(&format!("{ciphers}:@SECLEVEL=0")).unwrap();
    let mut client = Client::connect(address);
    client.all_granted(&["EHLO c.example", "STARTTLS"]);
    let tcp = client.tcp().try_clone().unwrap();
    let tls = builder.build().connect("localhost", tcp).ok()?;
    let how = format!("{} {}", tls.ssl().version_str(), tls.ssl().current_cipher()?.name());
    let mut client = Client::over(tls);
    client.all_granted(&["NOOP", "QUIT"]);
    Some(how)
}

#[cfg(target_os = "linux")]
#[test]
fn tls_is_1_2_or_1_3_and_always_with_forward_secrecy() {
    use openssl::ssl::SslVersion;

    let server = server(&["tls"]);
    let by = |version, ciphers| encrypted_by(server.address, version, ciphers);
    assert_eq!(by(SslVersion::TLS1_3, "ALL").as_deref(), Some("TLSv1.3 TLS_AES_128_GCM_SHA256"));
    let good = "ECDHE-RSA-AES128-GCM-SHA256";
    assert_eq!(
        by(SslVersion::TLS1_2, good).as_deref(),
        Some("TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256")
    );
    // No forward secrecy; CBC; and both.
    for weak in ["AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA", "AES128-SHA"] {
        assert_eq!(by(SslVersion::TLS1_2, weak), None, "{weak}");
    }
    for old in [SslVersion::TLS1, SslVersion::TLS1_1] {
        assert_eq!(by(old, "ALL"), None, "{old:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_session_is_taken_up_again() {
    use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};

    let server = server(&["tls"]);
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example", "STARTTLS"]);
    let tcp = client.tcp().try_clone().unwrap();
    let tls = builder.build().connect("localhost", tcp).unwrap();
    // The server's, or made of its ticket: by it the client would take the session up.
    assert_eq!(tls.ssl().session().unwrap().id(), b"");
}

#[cfg(target_os = "linux")]
#[test]
fn version_and_cipher_stand_in_the_log_and_in_received() {
    let spool = tempfile::tempdir().unwrap();
    let (cert, key) = (test_file("cert.pem"), test_file("key.pem"));
    let flags = with_files(&[], &cert, &key);
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).unwrap();
    let how = "TLSv1.3 TLS_AES_128_GCM_SHA256";
    for (is_encrypted, with) in
        [(false, "with ESMTP id"), (true, &format!("with ESMTPS ({how}) id"))]
    {
        let bob = spool.path().join("mail/localhost/bob/new");
        let before = files(&bob);
        let letter =
            ["EHLO c.example", "MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"];
        if is_encrypted {
            let mut client = Client::encrypted(server.address);
            client.all_granted(&letter);
            client.message("x\r\n");
            client.all_granted(&["QUIT"]);
        } else {
            let mut client = Client::connect(server.address);
            client.all_granted(&letter);
            client.message("x\r\n");
            client.all_granted(&["QUIT"]);
        }
        let line = server.wait_for_log("is gone: QUIT");
        assert_eq!(line.ends_with(how), is_encrypted, "{line}");
        let new = files(&bob).into_iter().find(|file| !before.contains(file)).unwrap();
        let text = fs::read_to_string(new).unwrap();
        assert!(text.contains(with), "{text}");
    }
}

#[test]
fn a_message_under_tls_is_stored_octet_for_octet() {
    let server = server(&["tls"]);
    let mut client = Client::encrypted(server.address);
    client.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"]);
    // Every octet but the two of a line end, in lines of many lengths.
    let octets: Vec<u8> = (0..=255).filter(|octet| !b"\r\n.".contains(octet)).collect();
    let mut text = b"\r\n".to_vec();
    for length in (1..500).chain([100_000]) {
        text.extend(octets.iter().cycle().skip(length).take(length));
        text.extend_from_slice(b"\r\n");
    }
    assert_eq!(&client.message(&text)[..3], "250");
    let stored = server.only_message("bob");
    let expected: Vec<u8> = text.into_iter().filter(|octet| *octet != b'\r').collect();
    assert!(stored == expected, "{} octets, {} stored", expected.len(), stored.len());
    client.all_granted(&["QUIT"]);
}

#[test]
fn an_end_inside_a_message_discards_it_with_a_close_notify_or_without() {
    let server = server(&["tls"]);
    for says_goodbye in [true, false] {
        let mut client = Client::encrypted(server.address);
        client.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"]);
        client.send("half a message\r\n");
        while server.drafts().is_empty() {
            thread::yield_now();
        }
        if says_goodbye {
            client.stream().shutdown().unwrap();
        } else {
            client.stream().get_ref().shutdown(Shutdown::Both).unwrap();
        }
        while !server.drafts().is_empty() {
            thread::yield_now();
        }
        assert!(server.new_files("bob").is_empty());
    }
}

#[test]
fn a_shutdown_tells_clients_under_tls_and_finishes_their_message_in_hand() {
    let mut server = server(&["tls"]);
    let mut idle: Vec<_> = (0..10).map(|_| Client::encrypted(server.address)).collect();
    let mut sending = Client::encrypted(server.address);
    sending.all_granted(&["MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA"]);
    sending.send("begun ");
    while server.drafts().is_empty() {
        thread::yield_now();
    }
    let mut half_way = Client::connect(server.address);
    half_way.all_granted(&["EHLO c.example", "STARTTLS"]);
    server.handle.shutdown();
    for client in &mut idle {
        assert_eq!(&client.reply()[..9], "421 4.3.2");
        assert_eq!(client.reply(), "");
        client.stream().get_ref().shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(until_close(half_way.tcp()), b"");
    assert_eq!(&sending.message("and finished\r\n")[..3], "250");
    assert_eq!(&sending.reply()[..9], "421 4.3.2");
    drop(sending);
    server.stop();
    assert_eq!(server.only_message("bob"), b"begun and finished\n");
}

/// A stream that remembers what was read from it.
#[derive(Debug)]
struct Recorder(TcpStream, Vec<u8>);

impl Read for Recorder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

impl Write for Recorder {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Without it nobody could tell the end from somebody in between who cuts the
/// connection.
#[test]
fn the_last_record_before_the_close_is_a_close_notify() {
    let server = server(&["tls", "users ann:{PLAIN}x", "role submissions"]);
    let tcp = TcpStream::connect(server.address).unwrap();
    // In TLS 1.3 all records look alike.
    let until_1_2 = native_tls::TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .max_protocol_version(Some(native_tls::Protocol::Tlsv12))
        .build();
    let tls = until_1_2.unwrap().connect("localhost", Recorder(tcp, Vec::new())).unwrap();
    let mut client = Client::over(tls);
    assert_eq!(&client.reply()[..3], "220");
    client.all_granted(&["QUIT"]);
    assert_eq!(client.reply(), "");
    // A record: its kind, two octets of version, two of length, and the rest.
    let (mut rest, mut kinds) = (&client.stream().get_ref().1[..], Vec::new());
    while let [kind, _, _, high, low, after @ ..] = rest {
        kinds.push(*kind);
        rest = &after[usize::from(u16::from_be_bytes([*high, *low]))..];
    }
    let (handshake, data, alert) = (22, 23, 21);
    assert_eq!((kinds[0], &kinds[kinds.len() - 2..]), (handshake, &[data, alert][..]));
}

/// What a new client under TLS is shown.
fn certificate(address: SocketAddr) -> Vec<u8> {
    let mut client = Client::encrypted(address);
    client.stream().peer_certificate().unwrap().unwrap().to_der().unwrap()
}

/// Whether a new client can log in so.
fn can_log_in(address: SocketAddr, base64: &str) -> bool {
    let mut client = Client::encrypted(address);
    client.ask(&format!("AUTH PLAIN {base64}")).starts_with("235")
}

#[test]
fn a_reload_drops_nobody_and_a_broken_file_changes_nothing() {
    const ANN: &str = "AGFubgBzZWNyZXQ=";
    const BOB: &str = "AGJvYgB3b3Jk";
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (cert, key, users, aliases) = (path("cert"), path("key"), path("users"), path("aliases"));
    let copy = |name: &str, to: &Path| fs::copy(test_file(name), to).unwrap();
    copy("cert.pem", &cert);
    copy("key.pem", &key);
    fs::write(&users, "ann:{PLAIN}secret\n").unwrap();
    fs::write(&aliases, "info: ann\n").unwrap();
    let flags = ["--users", users.to_str().unwrap(), "--aliases", aliases.to_str().unwrap()];
    let flags = with_files(&flags, &cert, &key);
    let server = ChildServer::start(
        &[EHLO],
        &path("spool"),
        &[&flags[..], &["--max-per-client", "0"]].concat(),
    )
    .unwrap();
    let reload = |what: &str| {
        server.signal("-HUP");
        server.wait_for_log(what)
    };

    let mut clear: Vec<_> = (0..50).map(|_| Client::connect(server.address)).collect();
    let mut encrypted: Vec<_> = (0..50).map(|_| Client::encrypted(server.address)).collect();
    let before = certificate(server.address);
    assert!(can_log_in(server.address, ANN));

    fs::write(&users, "ann:{PLAIN}secret\nbob:{PLAIN}word\n").unwrap();
    fs::write(&aliases, "info: bob\n").unwrap();
    copy("other-cert.pem", &cert);
    copy("other-key.pem", &key);
    reload("read all files again");

    // Sessions that were there see the users of their beginning …
    assert_eq!(&encrypted[0].ask(&format!("AUTH PLAIN {ANN}"))[..3], "235");
    assert_eq!(&encrypted[1].ask("MAIL FROM:<a@b.example>")[..3], "250");
    assert_eq!(&encrypted[1].ask("RCPT TO:<bob@localhost>")[..9], "550 5.1.1");
    // … and new ones the new.
    let after = certificate(server.address);
    assert_ne!(after, before);
    assert!(can_log_in(server.address, BOB));

    // Each of the files can be the broken one.
    for (file, text, named) in [
        (&users, "ann:{PLAIN}secret\nbob:word\n", "users:2: expected {PLAIN} or"),
        (&aliases, "# x\ninfo: nobody\n", "aliases:2: nobody@localhost is no mailbox here"),
        (&cert, "", "cert: expected a certificate in PEM form"),
        (&key, "", "key: expected a private key in PEM form"),
    ] {
        let good = fs::read(file).unwrap();
        fs::write(file, text).unwrap();
        let line = reload("everything stays as it was");
        assert!(line.contains(named), "{line}");
        fs::write(file, good).unwrap();
        assert_eq!(certificate(server.address), after);
        assert!(can_log_in(server.address, BOB));
    }

    for client in &mut clear {
        client.all_granted(&["NOOP"]);
    }
    for client in &mut encrypted {
        client.all_granted(&["NOOP"]);
    }
    assert_eq!(server.stop(), Some(0));
}
