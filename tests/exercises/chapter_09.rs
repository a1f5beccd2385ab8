//! Chapter 9: extensions.

use crate::announced;
use crate::common::{Client, TestServer};

/// With the flag `--no-smtputf8` the server does not offer SMTPUTF8. It is not announced, and all
/// other keywords are; `MAIL FROM:<…> SMTPUTF8` is 555 5.5.4, as every parameter that was not
/// announced. An address outside ASCII, of a sender or of a recipient, is 553 5.6.7, and
/// the text does not tell the client to say SMTPUTF8. Nothing of that changes the transaction. If
/// MAIL is not allowed at all (503, 530), any of the codes may come first. A
/// letter with octets outside ASCII in its header is taken as today, and without the flag all
/// is as it was.
#[test]
#[ignore = "exercise 9.1"]
fn exercise_9_1_an_extension_less_is_not_offered_and_not_granted() {
    let offering = TestServer::start(&[]);
    let expected =
        announced(&mut Client::connect(offering.address)).replace("250-SMTPUTF8\r\n", "");
    let server = TestServer::start(&["--no-smtputf8"]);
    let mut client = Client::connect(server.address);
    assert_eq!(
        announced(&mut client),
        expected,
        "with the flag (left), and without it but for the keyword (right): the others keep their order"
    );

    for sender in ["<ann@client.example>", "<j\u{fc}rgen@client.example>", "<>"] {
        let reply = client.ask(&format!("MAIL FROM:{sender} SMTPUTF8"));
        assert!(reply.starts_with("555 5.5.4 "), "{sender} SMTPUTF8: {reply}");
    }
    let refused = |client: &mut Client, line: &str| {
        let reply = client.ask(line);
        assert!(reply.starts_with("553 5.6.7 "), "{line}: {reply}");
        assert!(!reply.contains("SMTPUTF8"), "{line}: it is of no use: {reply}");
    };
    refused(&mut client, "MAIL FROM:<j\u{fc}rgen@client.example>");
    refused(&mut client, "MAIL FROM:<ann@m\u{fc}ller.example>");
    client.all_granted(&["MAIL FROM:<ann@client.example>"]);
    refused(&mut client, "RCPT TO:<j\u{fc}rgen@localhost>");
    client.all_granted(&["RCPT TO:<bob@localhost>"]);
    refused(&mut client, "RCPT TO:<bob@m\u{fc}ller.example>");
    client.all_granted(&["DATA"]);
    assert!(client.message("Subject: \u{fc}ber\r\n\r\nhello\r\n").starts_with("250"));
    assert!(String::from_utf8(server.only_message("bob")).unwrap().contains("\u{fc}ber"));
}

/// Users on the other ports are offered no more.
#[test]
#[ignore = "exercise 9.1"]
fn exercise_9_1_it_is_not_offered_to_users_either() {
    let needs = ["role submission", "users ann:{PLAIN}secret", "--allow-plain-auth --no-smtputf8"];
    let server = TestServer::with_needs(&needs.map(str::to_owned));
    let mut client = Client::connect(server.address);
    let announced = announced(&mut client);
    assert!(!announced.contains("SMTPUTF8") && announced.contains("AUTH"), "{announced}");
    client.all_granted(&["AUTH PLAIN AGFubgBzZWNyZXQ="]);
    let reply = client.ask("MAIL FROM:<ann@localhost> SMTPUTF8");
    assert!(reply.starts_with("555 5.5.4 "), "{reply}");
}
