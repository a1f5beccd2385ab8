//! A server that takes all mail for others: whom it may be, and what it is told.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::hop::{Act, Hop, Moment, Step, usual};
use common::mta::{Mta, Net, until};
use common::report::Report;
use common::world::{ANN, TEXT, World, all_flags, dns, in_parallel};
use common::{AUDIENCE, ISSUER, oauth_file, test_file};

/// A file with a login for the smarthost.
fn login(folder: &Path, password: &str) -> PathBuf {
    let path = folder.join("login");
    fs::write(&path, format!("ann:{password}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_smarthost_that_proves_its_name_gets_the_password_and_no_other_does() {
    let cases = [
        ("secret", "cert.pem", None),
        ("wrong", "cert.pem", Some("refused with 535")),
        ("secret", "other-cert.pem", Some("certificate")),
    ];
    in_parallel(cases, |(password, authority, why)| {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users");
        fs::write(&users, "ann:{PLAIN}secret\nbob:{PLAIN}x\n").unwrap();
        let flags = format!(
            "--submission 127.0.0.1:0 --users {} --cert {} --key {}",
            users.display(),
            test_file("cert.pem").display(),
            test_file("key.pem").display()
        );
        let smarthost = Mta::start(&folder.path().join("smarthost"), &flags);
        let flags = format!(
            "--smtp 127.0.0.1:0 --relay open --hostname here.example --retry 3600 --dns 127.0.0.1:9 \
             --smarthost localhost:{} --smarthost-login {} --smarthost-ca {}",
            smarthost.address.port(),
            login(folder.path(), password).display(),
            test_file(authority).display()
        );
        let mta = Mta::start(&folder.path().join("spool"), &flags);
        let id = mta.submit("ann@localhost", &["bob@localhost"], TEXT);
        match why {
            None => {
                until("it has left", || mta.envelope(&id).is_none());
                let mail = smarthost.mail("localhost", "bob");
                let text = str::from_utf8(&mail[0]).unwrap();
                assert!(text.contains(" with ESMTPSA (TLS"), "{text}");
            }
            Some(why) => {
                until("it was tried", || mta.attempts(&id) == Some(1));
                let envelope = mta.envelope(&id).unwrap();
                assert!(envelope.contains(why), "{envelope}");
                assert!(
                    envelope
                        .contains("RCPT TO:<bob@localhost>\nGIVEN <bob@localhost>\nSTATE waiting"),
                    "{envelope}"
                );
                assert!(smarthost.mail("localhost", "bob").is_empty());
            }
        }
    });
}

#[test]
fn login_and_authority_are_read_again_with_the_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "ann:{PLAIN}secret\nbob:{PLAIN}x\n").unwrap();
    let flags = format!(
        "--submission 127.0.0.1:0 --users {} --cert {} --key {}",
        users.display(),
        test_file("cert.pem").display(),
        test_file("key.pem").display()
    );
    let smarthost = Mta::start(&folder.path().join("smarthost"), &flags);
    let authority = folder.path().join("authority");
    fs::copy(test_file("other-cert.pem"), &authority).unwrap();
    let flags = format!(
        "--smtp 127.0.0.1:0 --relay open --hostname here.example --retry 3600 --dns 127.0.0.1:9 \
         --smarthost localhost:{} --smarthost-login {} --smarthost-ca {}",
        smarthost.address.port(),
        login(folder.path(), "wrong").display(),
        authority.display()
    );
    let mta = Mta::start(&folder.path().join("spool"), &flags);
    let id = mta.submit("ann@localhost", &["bob@localhost"], TEXT);
    until("it was tried", || mta.attempts(&id) == Some(1));

    // A file that is wrong changes nothing.
    fs::write(folder.path().join("login"), "ann\n").unwrap();
    assert!(mta.handle.reload().unwrap_err().contains("expected one line, user:password"));
    login(folder.path(), "secret");
    fs::copy(test_file("cert.pem"), &authority).unwrap();
    mta.handle.reload().unwrap();
    until("it has left", || {
        mta.handle.try_all_now();
        mta.envelope(&id).is_none()
    });
    assert_eq!(smarthost.mail("localhost", "bob").len(), 1);
}

/// Programs that renew tokens write them into the file, and tell nobody.
#[test]
fn a_token_is_read_anew_before_each_login_and_a_refused_one_is_temporary() {
    // Both are made for the year 2100, by the key in tests/oauth; the second is signed.
    let unsigned = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJub25lIiwia2lkIjoiZXhhbXBsZSJ9.eyJpc3MiOiJodHRwczovL2xvZ2l\
        uLmV4YW1wbGUiLCJhdWQiOiJtYWlsLmV4YW1wbGUiLCJzdWIiOiJhbm4iLCJleHAiOjQxMDI0NDQ4MDB9.";
    let good = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6ImV4YW1wbGUifQ.eyJpc3MiOiJodHRwczovL2xvZ\
        2luLmV4YW1wbGUiLCJhdWQiOiJtYWlsLmV4YW1wbGUiLCJzdWIiOiJhbm4iLCJleHAiOjQxMDI0NDQ4MDB9.LECn\
        bZgwjpRZ169c3j0eUWgaD_s2r4cwIGdGY-dQQiTaksefXeWFNtaKDw0rblqS9bLSllpw1sDwUP7slAsPDA";
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "ann:{PLAIN}secret\nbob:{PLAIN}x\n").unwrap();
    let flags = format!(
        "--submission 127.0.0.1:0 --users {} --cert {} --key {} --oauth-keys {} \
         --oauth-issuer {ISSUER} --oauth-audience {AUDIENCE}",
        users.display(),
        test_file("cert.pem").display(),
        test_file("key.pem").display(),
        oauth_file("keys.json").display(),
    );
    let smarthost = Mta::start(&folder.path().join("smarthost"), &flags);
    let file = folder.path().join("token");
    fs::write(&file, format!("ann\n{unsigned}\n")).unwrap();
    let flags = format!(
        "--smtp 127.0.0.1:0 --relay open --hostname here.example --retry 3600 --dns 127.0.0.1:9 \
         --smarthost localhost:{} --smarthost-token {} --smarthost-ca {}",
        smarthost.address.port(),
        file.display(),
        test_file("cert.pem").display()
    );
    let mta = Mta::start(&folder.path().join("spool"), &flags);
    let id = mta.submit("ann@localhost", &["bob@localhost"], TEXT);
    until("it was tried", || mta.attempts(&id) == Some(1));
    assert!(mta.envelope(&id).unwrap().contains("the login was refused with 535"));

    // Half written, as a program may be that was interrupted.
    fs::write(&file, "ann\n").unwrap();
    // An attempt is on disk before its worker is done with it, and is not interrupted.
    until("it was tried again", || {
        mta.handle.try_all_now();
        mta.attempts(&id) >= Some(2)
    });
    let envelope = mta.envelope(&id).unwrap();
    assert!(envelope.contains("we have no login for it now"), "{envelope}");
    let folder = folder.path().to_str().unwrap();
    assert!(!envelope.contains(folder), "our file is nobody's business: {envelope}");

    fs::write(&file, format!("ann\n{good}\n")).unwrap();
    until("it has left", || {
        mta.handle.try_all_now();
        mta.envelope(&id).is_none()
    });
    let letter = smarthost.mail("localhost", "bob").remove(0);
    assert!(String::from_utf8(letter).unwrap().contains(" with ESMTPSA (TLS"));
}

#[test]
fn a_password_never_crosses_in_clear() {
    let answers = [
        ("250-hop.example\r\n250 AUTH PLAIN LOGIN CRAM-MD5", Act::Usual),
        ("250-hop.example\r\n250-STARTTLS\r\n250 AUTH PLAIN", Act::Say("454 4.7.0 no".to_owned())),
        ("250-hop.example\r\n250-STARTTLS\r\n250 AUTH PLAIN", Act::Say("554 5.7.0 no".to_owned())),
        (
            "250-hop.example\r\n250-STARTTLS\r\n250 AUTH PLAIN",
            Act::SayAndClose("220 go".to_owned()),
        ),
    ];
    in_parallel(answers, |(ehlo, act)| {
        let hop = Hop::start(Net::new().address(1), move |moment: Moment| match moment.step {
            Step::Ehlo => Act::Say(ehlo.to_owned()),
            Step::StartTls => act.clone(),
            _ => Act::Usual,
        });
        let folder = tempfile::tempdir().unwrap();
        let flags = format!(
            "--smtp 127.0.0.1:0 --relay open --hostname here.example --retry 0.05 --dns 127.0.0.1:9 \
             --smarthost {} --smarthost-login {} --smarthost-ca {}",
            hop.address,
            login(folder.path(), "secret").display(),
            test_file("cert.pem").display()
        );
        let mta = Mta::start(&folder.path().join("spool"), &flags);
        let id = mta.submit(ANN, &["eve@else.example"], TEXT);
        until("it was tried twice", || mta.attempts(&id) >= Some(2));
        assert!(hop.count("STARTTLS") >= 2);
        assert_eq!((hop.count("AUTH"), hop.count("MAIL")), (0, 0), "{:?}", hop.commands());
        assert!(mta.mail("here.example", "ann").is_empty());
    });
}

#[test]
fn whoever_is_elsewhere_has_the_same_entry_and_transaction_at_the_smarthost() {
    let net = Net::new();
    let hop = Hop::start(net.address(1), usual);
    let dns = dns(&net, &[], &[]);
    let folder = tempfile::tempdir().unwrap();
    let flags = format!("--smarthost {}", hop.address);
    let mta = Mta::start(folder.path(), &all_flags(&flags, &net, &dns));
    let to = ["bob@one.example", "cem@two.example", "dan@three.example"];
    let id = mta.submit(ANN, &to, TEXT);
    until("it has left", || mta.envelope(&id).is_none());
    assert_eq!((hop.letters().len(), hop.recipients()), (1, to.map(str::to_owned).to_vec()));
    assert_eq!(dns.questions(), [""; 0]);
}

#[test]
fn what_waited_for_a_smarthost_that_is_no_more_goes_where_dns_says() {
    let zone = ["one.example A {1}", "two.example A {2}"];
    let mut world = World::start(
        "--smarthost 127.0.0.1:1 --retry 0.3",
        &zone,
        vec![Box::new(usual), Box::new(usual)],
    );
    let id = world.send(&["bob@one.example", "cem@two.example"]);
    until("it was tried", || world.mta.attempts(&id) >= Some(1));
    world.restart("");
    world.until_over(&id);
    assert_eq!(world.hops[0].recipients(), ["bob@one.example"]);
    assert_eq!(world.hops[1].recipients(), ["cem@two.example"]);
}

#[test]
fn a_smarthost_that_is_this_server_is_a_loop_at_once_and_nothing_goes_round() {
    let net = Net::new();
    let dns = dns(&net, &[], &[]);
    let folder = tempfile::tempdir().unwrap();
    let address = net.address(1);
    let flags = format!("--smtp {address} --smarthost {address}");
    let mta = Mta::start(folder.path(), &all_flags(&flags, &net, &dns));
    mta.submit(ANN, &["eve@else.example"], TEXT);
    until("ann knows", || !mta.mail("here.example", "ann").is_empty());
    until("it is quiet", || mta.queue().is_empty());
    let mail = mta.mail("here.example", "ann");
    assert_eq!(mail.len(), 1);
    assert_eq!(&Report::read(&mail[0]).only()["Status"], "5.4.6");
    // The letter had the first name, and its report the second.
    let id = mta.submit(ANN, &["bob@here.example"], TEXT);
    assert!(id.ends_with("Q2"), "{id}");
}
