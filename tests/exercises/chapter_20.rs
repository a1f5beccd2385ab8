//! Chapter 20: outgrowing one machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use tempfile::TempDir;

use crate::announced;
use crate::common::child::{ChildServer, EHLO};
use crate::common::mta::until;
use crate::common::{Client, TestServer, files};

/// Speaks for a client at this address, as a front server does at the beginning.
fn speaks_for(server: &TestServer, address: &str) -> Client {
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO front.example", &format!("XCLIENT ADDR={address} PROTO=ESMTP")]);
    client
}

/// `--xclient ADDR`, repeatable: a front server connects from there, and may say
/// `XCLIENT ADDR=192.0.2.1 NAME=client.example PROTO=ESMTP`, in any order, an IPv6 address as
/// `IPV6:2001:db8::1`. EHLO announces `XCLIENT ADDR NAME PROTO` to it, and to nobody else. It
/// is answered with 220, the greeting of a session that begins anew, and from there on the
/// client is at that address: for `Received`, the log, `--max-per-client` (a reply of 421, and
/// the end) and failed logins. It can be said once on a connection, because what comes after
/// it is the client's. In a transaction it is 503 5.5.1, without an address or in a wrong
/// form 501 5.5.4, and of anybody else 550 5.7.0. `--relay open` and `--xclient` do not go
/// together.
#[test]
#[ignore = "exercise 20.1"]
fn exercise_20_1_a_front_server_says_for_whom_it_speaks() {
    let spool = tempfile::tempdir().unwrap();
    let flags = ["--xclient", "192.0.2.9", "--xclient", "127.0.0.1"];
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).expect("--xclient is a flag");
    for (mailbox, said, seen) in [
        ("bob", "NAME=c.example ADDR=192.0.2.1 PROTO=ESMTP", "192.0.2.1"),
        ("six", "addr=IPV6:2001:db8::6 name=[UNAVAILABLE]", "IPv6:2001:db8::6"),
    ] {
        let mut client = Client::connect(server.address);
        let announced = announced(&mut client);
        assert!(announced.contains("XCLIENT ADDR NAME PROTO"), "{announced}");
        client.all_granted(&["MAIL FROM:<front@front.example>"]);
        let reply = client.ask("XCLIENT ADDR=192.0.2.1");
        assert!(reply.starts_with("503 5.5.1 "), "in a transaction: {reply}");
        client.all_granted(&["RSET"]);
        for wrong in ["", " NAME=c.example", " ADDR=c.example", " ADDR=192.0.2.1 COLOUR=red"] {
            let reply = client.ask(&format!("XCLIENT{wrong}"));
            assert!(reply.starts_with("501 5.5.4 "), "{wrong:?}: {reply}");
        }
        let reply = client.ask(&format!("XCLIENT {said}"));
        assert!(reply.starts_with("220 "), "{said}: {reply}");
        let reply = client.ask("MAIL FROM:<a@c.example>");
        assert!(reply.starts_with("503 5.5.1 "), "nobody has said EHLO since: {reply}");
        let to = format!("RCPT TO:<{mailbox}@localhost>");
        client.all_granted(&["EHLO c.example", "MAIL FROM:<a@c.example>", &to, "DATA"]);
        assert!(client.message("hello\r\n").starts_with("250"));
        let new = files(&spool.path().join("mail/localhost").join(mailbox).join("new"));
        let letter = fs::read_to_string(&new[0]).unwrap();
        assert!(letter.contains(&format!("Received: from c.example ([{seen}])")), "{letter}");
        let log = server.wait_for_log("stored M");
        assert!(log.contains(seen.trim_start_matches("IPv6:")), "{log}");
        // Whatever comes now is the client's, and it speaks for itself alone.
        let reply = client.ask("XCLIENT ADDR=192.0.2.200");
        assert!(reply.starts_with("550 5.7.0 "), "a second time: {reply}");
    }
}

#[test]
#[ignore = "exercise 20.1"]
fn exercise_20_1_nobody_else_speaks_for_others() {
    let server = TestServer::start(&["--xclient", "192.0.2.9"]);
    let mut client = Client::connect(server.address);
    assert!(client.ask("XCLIENT ADDR=192.0.2.1").starts_with("550 5.7.0 "));
    let announced = announced(&mut client);
    assert!(!announced.contains("XCLIENT"), "{announced}");
    let reply = client.ask("XCLIENT ADDR=192.0.2.1");
    assert!(reply.starts_with("550 5.7.0 "), "{reply}");
    client.all_granted(&["MAIL FROM:<a@c.example>", "RCPT TO:<bob@localhost>", "DATA"]);
    assert!(client.message("hello\r\n").starts_with("250"));
    let letter = fs::read_to_string(&server.new_files("bob")[0]).unwrap();
    assert!(letter.contains("([127.0.0.1])"), "{letter}");
    let spool = tempfile::tempdir().unwrap();
    let flags = ["--xclient", "127.0.0.1", "--relay", "open"];
    let said = ChildServer::start(&[EHLO], spool.path(), &flags).err().unwrap_or_default();
    assert!(said.contains("--relay open and --xclient"), "a front brings the world: {said}");
}

#[test]
#[ignore = "exercise 20.1"]
fn exercise_20_1_places_and_failed_logins_are_the_clients() {
    let server = TestServer::with_needs(&[
        "--xclient 127.0.0.1 --max-per-client 2 --allow-plain-auth".to_owned(),
        "users ann:{PLAIN}secret".to_owned(),
    ]);
    // The front itself is no client, however many connections it has.
    let mut fronts: Vec<Client> = (0..4).map(|_| Client::connect(server.address)).collect();
    for front in &mut fronts {
        assert!(front.ask("NOOP").starts_with("250"));
    }
    let two = [speaks_for(&server, "192.0.2.1"), speaks_for(&server, "192.0.2.1")];
    let said = fronts[0].ask("XCLIENT ADDR=192.0.2.1");
    assert!(said.starts_with("421 4.3.2 "), "a third one from one address: {said}");
    assert_eq!(fronts[0].reply(), "", "and that is the end");
    assert!(fronts[1].ask("XCLIENT ADDR=192.0.2.2").starts_with("220 "));
    // A place is given back when its client goes.
    drop(two);
    until("there is room again", || {
        Client::connect(server.address).ask("XCLIENT ADDR=192.0.2.1").starts_with("220 ")
    });
    for number in 0..5 {
        let mut guesser = speaks_for(&server, "192.0.2.7");
        guesser.all_granted(&["EHLO c.example"]);
        for half in ["a", "b"] {
            let guess = BASE64.encode(format!("\0ann\0guess {number}{half}"));
            assert!(guesser.ask(&format!("AUTH PLAIN {guess}")).starts_with("535"));
        }
    }
    let login = "AUTH PLAIN AGFubgBzZWNyZXQ=";
    let mut guesser = speaks_for(&server, "192.0.2.7");
    guesser.all_granted(&["EHLO c.example"]);
    let reply = guesser.ask(login);
    assert!(reply.starts_with("454 "), "ten failures from there: {reply}");
    let mut ann = speaks_for(&server, "192.0.2.8");
    ann.all_granted(&["EHLO c.example", login]);
}

/// The salts that a server names for ann, who is there, and for a name that nobody has.
fn salts(server: &ChildServer) -> [String; 2] {
    ["ann", "nobody"].map(|name| {
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO client.example"]);
        let first = BASE64.encode(format!("n,,n={name},r=abc"));
        let reply = client.ask(&format!("AUTH SCRAM-SHA-256 {first}"));
        let challenge = BASE64.decode(reply.trim_end().strip_prefix("334 ").unwrap()).unwrap();
        let challenge = String::from_utf8(challenge).unwrap();
        let salt = challenge.split(',').find_map(|part| part.strip_prefix("s="));
        salt.unwrap_or_else(|| panic!("{challenge}")).to_owned()
    })
}

/// A folder with a file of users.
fn folder_with_users() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("users"), "ann:{PLAIN}secret\n").unwrap();
    folder
}

/// A server on this spool, with ann.
fn with_ann(folder: &Path, spool: &str) -> Result<ChildServer, String> {
    let users = folder.join("users");
    let flags = ["--allow-plain-auth", "--users", users.to_str().unwrap()];
    ChildServer::start(&[EHLO], &folder.join(spool), &flags)
}

/// All processes that have a spool make up the same salts, for users whose password is stored
/// as it is and for names that nobody has, also after a restart, and also if they start on a new spool
/// at the same moment. What they share is in the file `secret` in the spool, 32 octets that
/// only its owner can read; another spool has others. A file `secret` of another length stops the start
/// with an error that names it.
#[test]
#[ignore = "exercise 20.2"]
fn exercise_20_2_all_processes_make_up_the_same() {
    let folder = folder_with_users();
    let start = |spool: &str| with_ann(folder.path(), spool).unwrap();
    let first = start("one");
    let made_up = salts(&first);
    assert_ne!(made_up[0], made_up[1]);
    assert_eq!(salts(&start("one")), made_up, "a second process");
    first.stop();
    assert_eq!(salts(&start("one")), made_up, "after a restart");
    assert_ne!(salts(&start("two")), made_up, "another spool");
    let secret = folder.path().join("one/secret");
    let data = fs::metadata(&secret).unwrap();
    assert_eq!((data.len(), data.permissions().mode() & 0o777), (32, 0o600));
    fs::write(&secret, "short").unwrap();
    let said = with_ann(folder.path(), "one").err().expect("half a secret is none");
    assert!(said.contains("one/secret"), "{said}");
}

#[test]
#[ignore = "exercise 20.2"]
fn exercise_20_2_the_first_of_many_makes_it() {
    let folder = folder_with_users();
    for round in 0..5 {
        let spool = format!("spool{round}");
        let starting: Vec<Result<ChildServer, String>> = thread::scope(|scope| {
            let start = || with_ann(folder.path(), &spool);
            let all: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let all: Vec<_> = starting.iter().map(|server| salts(server.as_ref().unwrap())).collect();
        assert!(all.iter().all(|one| *one == all[0]), "round {round}: {all:?}");
        let left = files(&folder.path().join(&spool).join("tmp"));
        assert!(left.is_empty(), "{left:?}");
    }
}
