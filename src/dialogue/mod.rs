//! Scripts of SMTP dialogues, played against a server: any server.
//!
//! In: a script and an address. Out: nothing, if the server answered as the
//! script says; else the line where it did not. The tests, the book and
//! `examples/check.rs` play the same scripts. A script is read line by line:
//!
//! ```text
//! # A comment.
//! # level: 2                  how much a server has to know for this, from 1 to 5
//! needs: --max-size 1000      the server wants these flags; see below
//! S: 220 *                    the server says a line like this; * is any text
//! S: ...                      the server says any number of lines
//! C: EHLO client.example      the client says this, and CR LF
//! R: NOOP {x*600}\r\n         the client sends exactly these octets
//! C: [tls]                    the client does its TLS handshake
//! A: PLAIN ann secret         the client logs in; the next S: is the outcome
//! S: [closed]                 the server closes the connection
//! or: 221 5*                  foreign servers may say this in the place of that S:
//! ```
//!
//! All lines of the client up to the next `S:` are sent in one write: that is
//! how a script pipelines. In `R:`, `\r`, `\n`, `\t`, `\\`, `\{` and `\xNN` are
//! octets, and `{text*N}` is `text` N times, up to 16 MiB. After its last line the client
//! closes its side, and the server must have nothing more to say (but 421).
//!
//! `needs:` lines are not acted on here: whoever starts the server reads them
//! from [`Dialogue::needs`]. Beside flags there are `needs: mailboxes ann bob`, for
//! a server where these are the only mailboxes; `needs: users ann:{PLAIN}secret`,
//! for one with these lines in its users file, and `needs: aliases info: ann`;
//! `needs: tls`, for one with a certificate; `needs: tokens`, for one that knows the keys
//! of `tests/oauth/`; `needs: role submission`, for the listener that the script is
//! played against; and `needs: extension CHUNKING`, for a server that announces it.
//!
//! What is right is asked of a [`Judge`]: ehlo is held to its texts, other servers to
//! their codes. By codes a script's line that continues a reply (`250-`) is passed over,
//! and `or:` counts: words that are codes, with `*`, or `[closed]`.
//!
//! Book: docs/03-replies.md.

mod connection;
mod judge;
mod player;
mod script;

use std::net::SocketAddr;

use crate::dialogue::player::{Difference, Peer};

pub use crate::dialogue::connection::{ANSWER_LIMIT, TimedStream};
pub use crate::dialogue::judge::Judge;
pub use crate::dialogue::player::{PlayError, Terms};
pub use crate::dialogue::script::{Dialogue, ScriptError};

/// What came of playing a script once.
#[derive(Debug)]
pub struct Game {
    /// All that was said, as lines of a script.
    pub said: Vec<String>,
    /// Where the server did not answer as the script says, if anywhere.
    pub result: Result<(), PlayError>,
}

impl Dialogue {
    /// Plays the script on a new connection, and wants each line as it stands there.
    pub fn play(&self, server: SocketAddr) -> Result<(), PlayError> {
        self.play_under(server, &Terms::default()).result
    }

    /// Plays the script on a new connection.
    pub fn play_under(&self, server: SocketAddr, terms: &Terms) -> Game {
        let mut peer = match Peer::connect(server, terms) {
            Ok(peer) => peer,
            Err(error) => return Game { said: Vec::new(), result: Err(PlayError::Connect(error)) },
        };
        let result = self.play_with(&mut peer);
        Game { said: peer.said, result }
    }

    fn play_with(&self, peer: &mut Peer) -> Result<(), PlayError> {
        let differs = |line, (expected, found): Difference| PlayError::Differs {
            line,
            expected,
            found: found.to_string(),
            said_nothing: found.is_nothing(),
        };
        for step in self.steps() {
            peer.act(&step.action).map_err(|difference| differs(step.line, difference))?;
        }
        let last = self.steps().last().map_or(0, |step| step.line);
        peer.end().map_err(|difference| differs(last, difference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::net::{Shutdown, TcpListener};
    use std::thread;
    use std::time::{Duration, Instant};

    /// Plays `script` against a server that says `says` and nothing else.
    fn play_by(judge: Judge, script: &str, says: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            tcp.write_all(says.as_bytes()).unwrap();
            tcp.shutdown(Shutdown::Write).unwrap();
            io::copy(&mut tcp, &mut io::sink()).unwrap();
        });
        let terms = Terms { judge, ..Terms::default() };
        let game = script.parse::<Dialogue>().unwrap().play_under(address, &terms);
        server.join().unwrap();
        game.result.map_or_else(|error| error.to_string(), |()| "played".to_owned())
    }

    fn play(script: &str, says: &'static str) -> String {
        play_by(Judge::Texts, script, says)
    }

    #[test]
    fn the_first_line_that_differs_is_named() {
        let script = "# greeting\nS: 220 *\nC: NOOP\nS: 250 *";
        assert_eq!(play(script, "220 hi\r\n250 ok\r\n"), "played");
        assert_eq!(
            play(script, "220 hi\r\n500 no\r\n"),
            "line 4 of the script: expected `250 *`, found `500 no`"
        );
        assert_eq!(
            play(script, "220 hi\r\n"),
            "line 4 of the script: expected `250 *`, found `[closed]`"
        );
        assert_eq!(
            play(script, "220 hi\n"),
            "line 2 of the script: expected `220 *`, found `a line without CR LF: 220 hi\\x0a`"
        );
    }

    #[test]
    fn what_the_server_says_beyond_the_script_is_a_difference() {
        assert!(play("S: 220 *", "220 hi\r\n250 what\r\n").contains("nothing more"));
        assert!(play("S: [closed]", "220 hi\r\n").contains("220 hi"));
        assert_eq!(play("S: 220 *", "220 hi\r\n421 bye\r\n"), "played");
    }

    #[test]
    fn three_dots_pass_over_lines_until_one_matches() {
        let says = "250-a\r\n250-b\r\n250 c\r\n";
        assert_eq!(play("S: ...\nS: 250 *", says), "played");
        assert_eq!(play("S: 250-a\nS: ...\nS: 250-b\nS: 250 c", says), "played");
        assert!(play("S: ...\nS: 251 *", says).contains("[closed]"));
        assert_eq!(play("S: 250-a\nS: ...\nS: [closed]", says), "played");
        assert_eq!(play("S: 250-a\nS: ...", says), "played");
    }

    #[test]
    fn by_codes_a_reply_is_one_however_many_lines_it_has() {
        let play = |script, says| play_by(Judge::Codes { enhanced: false }, script, says);
        let script = "S: 220 *\nC: EHLO c\nS: 250-*\nS: ...\nS: 250 *\nC: NOOP\nS: 250 *\n";
        assert_eq!(
            play(script, "220-hi\r\n220 ho\r\n250-x\r\n250-y\r\n250 z\r\n250\r\n"),
            "played"
        );
        assert_eq!(play(script, "220 hi\r\n250 x\r\n250 ok\r\n"), "played");
        assert!(play(script, "220 hi\r\n250-x\r\n251 y\r\n").contains("no line of a reply: 251 y"));
        assert!(play(script, "220 hi\r\n250+x\r\n").contains("no line of a reply: 250+x"));
        assert!(play(script, "hello\r\n").contains("no line of a reply: hello"));
        assert!(play(script, "220 hi\r\n250 x\r\n250 ok\r\n250 x\r\n").contains("nothing more"));
    }

    #[test]
    fn by_codes_a_reply_may_stand_in_the_place_of_a_close_and_the_other_way_round() {
        let play = |script, says| play_by(Judge::Codes { enhanced: false }, script, says);
        let script = "S: 220 *\nS: 554 *\nor: 250\nS: [closed]\nor: 221";
        assert_eq!(play(script, "220 hi\r\n554 no\r\n"), "played");
        assert_eq!(play(script, "220 hi\r\n250 ok\r\n221 bye\r\n"), "played");
        assert!(play(script, "220 hi\r\n250 ok\r\n250 ok\r\n").contains("[closed] or 221"));
        assert_eq!(play("S: 220 *\nor: [closed]", ""), "played");
    }

    /// What is wrong with a server that says `says` again and again.
    fn play_endless(judge: Judge, script: &str, says: &'static str, pause: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            while Instant::now() < end && tcp.write_all(says.as_bytes()).is_ok() {
                thread::sleep(pause);
            }
        });
        let terms = Terms { judge, patience: Duration::from_millis(500), ..Terms::default() };
        let begin = Instant::now();
        let error = script.parse::<Dialogue>().unwrap().play_under(address, &terms).result;
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        server.join().unwrap();
        error.unwrap_err().to_string()
    }

    #[test]
    fn an_answer_has_one_time_for_all_its_octets() {
        let (codes, pause) = (Judge::Codes { enhanced: false }, Duration::from_millis(100));
        for judge in [Judge::Texts, codes] {
            let error = play_endless(judge, "S: 220 *", "2", pause);
            assert!(error.contains("no answer within 0.5 seconds"), "{error}");
        }
        let error = play_endless(codes, "S: 220 *", "220-hi\r\n", pause);
        assert!(error.contains("no answer within 0.5 seconds"), "{error}");
        let error = play_endless(Judge::Texts, "S: ...\nS: 220 *", "220-hi\r\n", pause);
        assert!(error.contains("found `220-hi`"), "{error}");
    }

    #[test]
    fn answers_to_several_lines_have_each_their_time_also_where_they_are_passed_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            tcp.write_all(b"220 hi\r\n").unwrap();
            for reply in ["250 a\r\n", "250 b\r\n", "250 c\r\n", "251 d\r\n"] {
                thread::sleep(Duration::from_millis(300));
                tcp.write_all(reply.as_bytes()).unwrap();
            }
        });
        let terms = Terms { patience: Duration::from_millis(600), ..Terms::default() };
        let script = "S: 220 *\nR: {NOOP\\r\\n*4}\nS: ...\nS: 251 *\nS: [closed]";
        let dialogue: Dialogue = script.parse().unwrap();
        let game = dialogue.play_under(address, &terms);
        server.join().unwrap();
        assert!(game.result.is_ok(), "{:?}", game.result);
    }

    #[test]
    fn a_server_that_asks_again_after_a_login_was_broken_off_is_not_answered() {
        let script = "S: 334 *\nA: LOGIN ann secret\nS: 535 *";
        let error = play_endless(Judge::Texts, script, "334 eA==\r\n", Duration::from_millis(10));
        assert!(error.contains("expected `535 *`, found `334 eA==`"), "{error}");
    }

    #[test]
    fn an_answer_without_an_end_is_not_read_for_ever() {
        for (script, says) in [("S: 220 *", "22222222"), ("S: ...\nS: 220 *", "220-hi\r\n")] {
            let error = play_endless(Judge::Texts, script, says, Duration::ZERO);
            assert!(error.contains("found `more than 65536 octets of an answer`"), "{error}");
        }
    }

    #[test]
    fn what_was_said_is_kept_and_a_silence_is_told_from_a_wrong_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            tcp.write_all(b"220 hi\r\n").unwrap();
            io::copy(&mut tcp, &mut io::sink()).unwrap();
        });
        let terms = Terms { patience: Duration::from_millis(200), ..Terms::default() };
        let dialogue: Dialogue = "S: 220 *\nR: NO\\x1bOP\\r\\n\nS: 250 *".parse().unwrap();
        let game = dialogue.play_under(address, &terms);
        server.join().unwrap();
        assert_eq!(game.said, ["S: 220 hi", "R: NO\\x1bOP\\r\\n"]);
        let Err(PlayError::Differs { line: 3, said_nothing: true, .. }) = game.result else {
            panic!("{:?}", game.result);
        };
    }
}
