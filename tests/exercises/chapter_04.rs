//! Chapter 4: commands and addresses.

use crate::common::{Client, TestServer};

/// Sends a letter to an address, and says whose mailbox it is in; nobody's if it was refused.
fn who_has_it(server: &TestServer, to: &str) -> Option<String> {
    let mut client = Client::connect(server.address);
    client.all_granted(&["EHLO c.example", "MAIL FROM:<a@c.example>"]);
    if !client.ask(&format!("RCPT TO:<{to}>")).starts_with("250") {
        return None;
    }
    client.all_granted(&["DATA"]);
    let text = format!("X-To: {to}\r\n\r\n");
    assert!(client.message(text).starts_with("250"), "{to}");
    let line = format!("X-To: {to}\n");
    let names = ["mary", "mary-ann", "mary%2blists", "-lists"];
    let has_it = |name: &&&str| {
        let mut files = server.new_files(name).into_iter();
        files.any(|file| std::fs::read_to_string(file).unwrap().contains(&line))
    };
    names.iter().find(has_it).map(|name| (*name).to_owned())
}

/// `--detail CHAR`: the sign between a name and its detail, which is `+` without the flag. An
/// exact mailbox is still preferred, a name that begins with the sign has no detail, and the sign
/// that is not chosen is a letter like any other. The sign is one character that an address may
/// have without quotes, and neither a letter, a digit nor a dot; anything else is a wrong flag.
#[test]
#[ignore = "exercise 4.1"]
fn exercise_4_1_another_sign_may_stand_before_the_detail() {
    let listed = "mailboxes mary mary-ann".to_owned();
    let usual = TestServer::with_needs(std::slice::from_ref(&listed));
    let minus = TestServer::with_needs(&["--detail -".to_owned(), listed]);
    for (to, with_plus, with_minus) in [
        ("mary+lists@localhost", Some("mary"), None),
        ("mary-lists@localhost", None, Some("mary")),
        ("Mary-Lists-2026@localhost", None, Some("mary")),
        ("mary-ann@localhost", Some("mary-ann"), Some("mary-ann")),
        ("mary-ann-lists@localhost", None, Some("mary")),
        ("-lists@localhost", None, None),
    ] {
        assert_eq!(who_has_it(&usual, to).as_deref(), with_plus, "{to} without the flag");
        assert_eq!(who_has_it(&minus, to).as_deref(), with_minus, "{to} with --detail -");
    }
    // Where every name is a mailbox, the detail goes all the same.
    let all = TestServer::start(&["--detail", "-"]);
    assert_eq!(who_has_it(&all, "mary-ann@localhost").as_deref(), Some("mary"));
    assert_eq!(who_has_it(&all, "mary+lists@localhost").as_deref(), Some("mary%2blists"));
    assert_eq!(who_has_it(&all, "-lists@localhost").as_deref(), Some("-lists"));
    for wrong in ["", "a", "7", ".", "--", "@", " ", "\u{fc}"] {
        let flags = ["--detail", wrong];
        assert!(ehlo::config::from_args(&flags).is_err(), "{wrong:?} is no sign");
    }
}
