//! Chapter 10: TLS.

use native_tls::{Protocol, TlsConnector};

use crate::common::{Client, TestServer, connector};

/// A connector that knows nothing newer than TLS 1.2.
fn old_connector() -> TlsConnector {
    TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .max_protocol_version(Some(Protocol::Tlsv12))
        .build()
        .unwrap()
}

/// `Received` has the clause `tls` with the name that IANA has for the cipher (RFC 8314 section
/// 4.3), after `for` where that stands, and before the semicolon; and nothing of it in clear.
#[test]
#[ignore = "exercise 10.1"]
fn exercise_10_1_received_has_a_clause_for_the_cipher() {
    let server = TestServer::with_needs(&["tls".to_owned()]);
    for (user, connector, cipher) in
        [("new", connector(), "TLS_AES_"), ("old", old_connector(), "TLS_ECDHE_RSA_WITH_AES_")]
    {
        let mut client = Client::connect(server.address);
        client.all_granted(&["EHLO c.example", "STARTTLS"]);
        let tcp = client.tcp().try_clone().unwrap();
        let mut client = Client::over(connector.connect("localhost", tcp).unwrap());
        client.all_granted(&["EHLO c.example", "MAIL FROM:<a@c.example>"]);
        client.all_granted(&[&format!("RCPT TO:<{user}@localhost>"), "DATA"]);
        assert!(client.message("Subject: x\r\n\r\n").starts_with("250"));
        let file = server.new_files(user).remove(0);
        let text = std::fs::read_to_string(file).unwrap();
        let received = text[text.find("Received: ").unwrap()..].replace("\n\t", " ");
        let line = received.lines().next().unwrap();
        let after_for = line.split(&format!(" for <{user}@localhost> ")).nth(1);
        let clause = after_for.unwrap_or_else(|| panic!("nothing follows `for`: {line}"));
        let Some(name) = clause.strip_prefix("tls ").and_then(|rest| rest.split(';').next()) else {
            panic!("no clause tls: {line}");
        };
        assert!(name.starts_with(cipher) && !name.contains(' '), "{line}");
        assert!(line.contains("with ESMTPS"), "{line}");
    }
    // A letter in clear has no such clause.
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<clear@localhost>"]);
    client.all_granted(&["DATA"]);
    assert!(client.message("Subject: x\r\n\r\n").starts_with("250"));
    let text = std::fs::read_to_string(server.new_files("clear").remove(0)).unwrap();
    assert!(!text.contains("tls "), "{text}");
}
