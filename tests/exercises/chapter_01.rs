//! Chapter 1: a letter by hand.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use ehlo::dialogue::Dialogue;

use crate::built;
use crate::common::TestServer;

/// `talk --marks` puts `S: ` in front of each line of the server, and prints each line that
/// it sends after `C: `. What is on its output is then a dialogue that `check` can play.
#[test]
#[ignore = "exercise 1.1"]
fn exercise_1_1_what_was_said_can_be_played_again() {
    // If a line of the server has no mark, nobody says anything any more, and it ends this soon.
    let server = TestServer::start(&["--timeout", "5"]);
    let mut talk = Command::new(built("talk"))
        .args(["--marks", &server.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(talk.stdout.take().unwrap()).lines();
    let mut typed = talk.stdin.take().unwrap();
    let mut script = String::new();
    for line in ["", "HELO client.example", "MAIL FROM:<ann@client.example>", "RSET", "QUIT"] {
        if !line.is_empty() {
            writeln!(typed, "{line}").unwrap();
        }
        // Up to the reply: one line of the server after each of ours, and the greeting.
        let mut marked = String::new();
        while !marked.starts_with("S: ") {
            let line = said.next().unwrap_or_else(|| {
                panic!("no line with `S: ` came, in spite of --marks; what came is\n{script}")
            });
            marked = line.unwrap();
            script += &format!("{marked}\n");
        }
    }
    drop(typed);
    talk.wait().unwrap();
    for line in ["C: HELO client.example\n", "C: MAIL FROM:<ann@client.example>\n", "C: QUIT\n"] {
        assert!(script.contains(line), "{line:?} is not in\n{script}");
    }
    let dialogue: Dialogue = (script.clone() + "S: [closed]\n").parse().unwrap();
    dialogue.play(server.address).unwrap_or_else(|error| panic!("{error}\n{script}"));
}
