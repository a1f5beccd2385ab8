//! Chapter 19: extending ehlo.

use crate::common::{Client, TestServer};

/// `TURN` is a command of this server, known and not offered: 502 5.5.1 in every state, also
/// before EHLO and between two chunks, and 501 5.5.4 if something follows it. It changes nothing, and
/// is counted as a command that brings no letter on its way. HELP does not list it. The tests of
/// the book hold everything else that a command needs.
#[test]
#[ignore = "exercise 19.1"]
fn exercise_19_1_turn_is_known_and_not_offered() {
    let server = TestServer::start(&[]);
    let mut client = Client::connect(server.address);
    let turn = |client: &mut Client, when: &str| {
        for (line, code) in
            [("TURN", "502 5.5.1 "), ("turn", "502 5.5.1 "), ("TURN x", "501 5.5.4 ")]
        {
            let reply = client.ask(line);
            assert!(reply.starts_with(code), "{line} {when}: {reply}");
        }
    };
    turn(&mut client, "before EHLO");
    client.all_granted(&["EHLO client.example"]);
    turn(&mut client, "after EHLO");
    client.all_granted(&["MAIL FROM:<ann@client.example>"]);
    turn(&mut client, "after MAIL");
    client.all_granted(&["RCPT TO:<bob@localhost>"]);
    turn(&mut client, "after RCPT");
    client.send("BDAT 7\r\nhello\r\n");
    assert!(client.reply().starts_with("250"));
    turn(&mut client, "between two chunks");
    client.send("BDAT 0 LAST\r\n");
    assert!(client.reply().starts_with("250 2.6.0 "), "it changed nothing");
    assert!(!client.ask("HELP").contains("TURN"), "HELP lists what is granted");
}

#[test]
#[ignore = "exercise 19.1"]
fn exercise_19_1_it_is_an_errand_like_others() {
    let server = TestServer::start(&[]);
    let mut client = Client::connect(server.address);
    // One too many of those that bring no letter on its way closes.
    let replies: Vec<String> = (0..21).map(|_| client.ask("TURN")).collect();
    let (last, others) = replies.split_last().unwrap();
    assert!(others.iter().all(|reply| reply.starts_with("502 ")), "{replies:?}");
    assert!(last.starts_with("421 "), "{last}");
}
