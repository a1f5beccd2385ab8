//! `check` as a teacher runs it: against ehlo, against worse servers, and against none.
//!
//! `cargo test` builds the example; `cargo test --test grader` alone does not, and would
//! run an old one.
//!
//! Book: docs/03-replies.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use common::{NOBODY, TestServer, examples};

/// What `check` printed, and its exit code.
struct Ran {
    code: Option<i32>,
    text: String,
    errors: String,
}

fn command() -> Command {
    Command::new(examples().join("check"))
}

fn check(server: SocketAddr, args: &[&str]) -> Ran {
    run(command().arg(server.to_string()).args(args))
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let [text, errors] = [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap());
    Ran { code: output.status.code(), text, errors }
}

/// A folder with these scripts: (file name, text).
fn folder(scripts: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in scripts {
        fs::write(folder.path().join(name), script).unwrap();
    }
    folder
}

fn path(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

/// A server in thirty lines, as one writes it on the first evening: one client after the
/// other, no order, no forms, a line is what ends in LF.
fn naive() -> SocketAddr {
    serve(|tcp| {
        let (mut lines, mut say) = (BufReader::new(tcp.try_clone().unwrap()), tcp);
        say.write_all(b"220 naive\r\n")?;
        let (mut line, mut in_message) = (String::new(), false);
        while lines.read_line(&mut line)? > 0 {
            let command = line.trim().to_uppercase();
            line.clear();
            let reply = match command.split([' ', ':']).next().unwrap_or_default() {
                "." if in_message => "250 taken",
                _ if in_message => continue,
                "HELO" | "EHLO" | "MAIL" | "RCPT" | "NOOP" | "RSET" => "250 fine",
                "DATA" => "354 go on",
                "QUIT" => "221 bye",
                _ => "500 what?",
            };
            in_message = reply.starts_with("354");
            say.write_all(format!("{reply}\r\n").as_bytes())?;
            if reply.starts_with("221") {
                break;
            }
        }
        Ok(())
    })
}

/// A server that does this with one client after the other, as long as the test runs.
fn serve(talk: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            // A client that has gone is no reason to end.
            let _ = talk(tcp.unwrap());
        }
    });
    address
}

/// A server that does this with all clients at a time. The first one has the number 1.
fn serve_beside(
    talk: impl Fn(usize, TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, tcp) in (1..).zip(listener.incoming()) {
            let talk = talk.clone();
            thread::spawn(move || talk(number, tcp.unwrap()));
        }
    });
    address
}

#[test]
fn all_that_ehlo_is_asked_it_answers_by_codes_and_by_texts() {
    let server = TestServer::start(&["--max-per-client", "0"]);
    for args in [&[][..], &["--texts"]] {
        let ran = check(server.address, args);
        assert_eq!(ran.code, Some(0), "{}", ran.text);
        assert!(ran.text.contains(" 0 wrong, "), "{}", ran.text);
        assert!(!ran.text.contains("one client at a time"), "{}", ran.text);
        for level in ["1 talks", "2 order", "3 forms", "4 bytes", "5 beyond"] {
            assert!(ran.text.contains(level), "{level}: {}", ran.text);
        }
    }
}

#[test]
fn a_server_that_takes_few_connections_gets_few() {
    let server = TestServer::start(&["--max-per-client", "2"]);
    let ran = check(server.address, &["--level", "2", "--jobs", "8"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
}

/// Two are greeted before it begins. Of the next two the one that has nothing to do any more
/// must not be waited for.
#[test]
fn a_dialogue_that_was_turned_away_late_is_played_all_the_same() {
    let scripts = folder(&[("a.smtp", "S: 220 *\n"), ("b.smtp", "S: 220 *\n")]);
    let server = serve_beside(|number, mut tcp| {
        if number == 4 {
            thread::sleep(Duration::from_millis(500));
        }
        tcp.write_all(if number == 4 { b"421 full\r\n" } else { b"220 hello\r\n" })?;
        let is_asked = BufReader::new(&tcp).read_line(&mut String::new())? > 0;
        if is_asked { tcp.write_all(b"221 bye\r\n") } else { Ok(()) }
    });
    let ran = check(server, &[path(&scripts), "--jobs", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(ran.text.contains("2 right, 0 wrong, 0 skipped"), "{}", ran.text);
}

#[test]
fn a_naive_server_has_its_points_for_talking_and_loses_those_for_order() {
    let ran = check(naive(), &["--level", "2", "--timeout", "1"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.text, ran.errors);
    let points = |level: &str| {
        let line = ran.text.lines().find(|line| line.starts_with(level)).unwrap().to_owned();
        let (right, of) = line.split_whitespace().nth(2).unwrap().split_once('/').unwrap();
        (right.parse::<u32>().unwrap(), of.parse::<u32>().unwrap())
    };
    let (right, of) = points("1 talks");
    assert!(right == of && of >= 9, "{}", ran.text);
    let (right, of) = points("2 order");
    assert!(right >= 3 && of - right >= 6, "{}", ran.text);

    let place = ran.text.find("WRONG 2  rcpt before mail is refused").unwrap();
    let shown: Vec<&str> = ran.text[place..].lines().skip(1).take(9).map(str::trim).collect();
    assert_eq!(shown[0], "tests/dialogues/rcpt_before_mail_is_refused_and_changes_nothing.smtp");
    assert_eq!(
        shown[1],
        "# RFC 5321 section 3.3: MAIL comes first. The refused recipient is not kept for"
    );
    assert_eq!(
        shown[3..7],
        ["S: 220 naive", "C: EHLO client.example", "S: 250 fine", "C: RCPT TO:<bob@localhost>"]
    );
    let end = "line 9 of the script: expected `503 or 500 or 501 or 502 or 554`, found `250 fine`";
    assert_eq!(shown[7..], ["S: 250 fine", end]);
    assert!(ran.text.contains("\nThis server greets one client at a time;"), "{}", ran.text);
    // It announces nothing.
    assert!(ran.text.contains("(PIPELINING is not announced)"), "{}", ran.text);
}

#[test]
fn a_server_that_cannot_be_tried_is_not_a_wrong_one_and_what_it_did_is_told() {
    let begin = Instant::now();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let greets = |greeting: &'static str| {
        serve(move |mut tcp| {
            tcp.write_all(greeting.as_bytes())?;
            tcp.read_to_end(&mut Vec::new()).map(drop)
        })
    };
    for (server, told) in [
        (NOBODY, "nothing could be tried: no connection: "),
        (silent.local_addr().unwrap(), "no greeting came; nothing more for 0.3 seconds"),
        (greets("220 hel"), "the greeting `220 hel` has no line end; nothing more for 0.3"),
        (greets("421 full\r\n"), "the server turns us away: `421 full`"),
        (serve(|_| Ok(())), "no greeting came; the server closed"),
    ] {
        let ran = check(server, &["--level", "1", "--timeout", "0.3"]);
        assert_eq!(ran.code, Some(3), "{}{}", ran.text, ran.errors);
        assert!(ran.text.starts_with("nothing could be tried: "), "{}", ran.text);
        assert!(ran.text.contains(told), "{}", ran.text);
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn a_server_that_never_ends_a_line_or_a_reply_is_not_waited_for() {
    let says_again = |says: &'static [u8], pause| {
        serve_beside(move |_, mut tcp| {
            let end = Instant::now() + Duration::from_secs(30);
            while Instant::now() < end {
                tcp.write_all(says)?;
                thread::sleep(Duration::from_millis(pause));
            }
            Ok(())
        })
    };
    for (server, told) in [
        (says_again(b"2", 100), "has no line end; nothing more for 0.5 seconds"),
        (says_again(b"220-hi\r\n", 100), "no greeting came; nothing more for 0.5 seconds"),
        (says_again(b"22222222", 0), "has no line end; that is too long"),
    ] {
        let begin = Instant::now();
        let ran = check(server, &["--level", "1", "--timeout", "0.5"]);
        assert_eq!(ran.code, Some(3), "{}{}", ran.text, ran.errors);
        assert!(ran.text.contains(told), "{}", ran.text);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}

/// Dies of `DATA`, which the first of two dialogues says.
#[test]
fn a_server_that_dies_has_died_of_the_dialogue_that_it_heard_last() {
    let scripts = folder(&[
        ("a_deadly_one.smtp", "S: 220 *\nC: DATA\nS: 503 *\n"),
        ("b_harmless.smtp", "S: 220 *\n"),
    ]);
    for (jobs, told) in [
        ("1", "since \"a deadly one\" (no connection: "),
        ("2", " or what was played beside it; --jobs 1 tells (no connection: "),
    ] {
        let ran = check(dies_of_data(), &[path(&scripts), "--jobs", jobs, "--timeout", "1"]);
        assert_eq!(ran.code, Some(3), "{}{}", ran.text, ran.errors);
        assert!(ran.text.contains(told), "{}", ran.text);
        let is_told_as_not_tried = ran.text.contains("      1  b harmless (not tried)\n");
        assert!(is_told_as_not_tried || jobs == "2", "{}", ran.text);
        assert!(ran.text.contains("  1  b harmless"), "{}", ran.text);
    }
}

/// A server that greets everybody at once, and is no more after a `DATA`.
fn dies_of_data() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let is_dead = Arc::new(AtomicBool::new(false));
    let pause = Duration::from_millis(5);
    thread::spawn(move || {
        while !is_dead.load(Ordering::SeqCst) {
            let Ok((mut tcp, _)) = listener.accept() else {
                thread::sleep(pause);
                continue;
            };
            let is_dead = Arc::clone(&is_dead);
            thread::spawn(move || {
                tcp.set_nonblocking(false).unwrap();
                tcp.write_all(b"220 hello\r\n").unwrap();
                let mut line = String::new();
                let _ = BufReader::new(&mut tcp).read_line(&mut line);
                if line.starts_with("DATA") {
                    is_dead.store(true, Ordering::SeqCst);
                    thread::sleep(20 * pause);
                }
            });
        }
    });
    address
}

#[test]
fn what_the_client_did_is_shown_octet_by_octet() {
    let long = format!("R: NOOP {{x*200}}\\n\n{}", "S: 250 *\n");
    let scripts = folder(&[
        ("a.smtp", "S: 220 *\nR: NO\nS: 250 *\n"),
        ("b.smtp", &format!("S: 220 *\n{long}")),
        ("c.smtp", "S: 220 *\nC: NOOP\nS: 250 *\n"),
    ]);
    let talks_on = serve(|mut tcp| {
        tcp.write_all(b"220 hi\r\n")?;
        tcp.read_exact(&mut [0; 6])?;
        tcp.write_all(b"250 ok\r\n250 and more\r\n")
    });
    let ran = check(talks_on, &[path(&scripts), "--jobs", "1", "--timeout", "0.3"]);
    for told in [
        "R: NO\n",
        &format!("R: NOOP {} … {}\\n\n", "x".repeat(72), "x".repeat(18)),
        "C: NOOP\n        S: 250 ok\n        # The client closes its side.\n        S: 250 and more",
        "line 3 of the script: expected `nothing more`, found `250 and more`",
    ] {
        assert!(ran.text.contains(told), "{told}: {}", ran.text);
    }
}

#[test]
fn both_forms_of_the_results_are_json_and_count_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, gradescope] = ["plain.json", "results.json"].map(|name| folder.path().join(name));
    let ran = run(command()
        .args([&naive().to_string(), "--level", "1", "--timeout", "1", "--json"])
        .arg(&plain)
        .arg("--gradescope")
        .arg(&gradescope));
    assert_eq!(ran.code, Some(0), "{}{}", ran.text, ran.errors);
    let read = |path: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let (plain, gradescope) = (read(&plain), read(&gradescope));
    let server = &plain["servers"][0];
    let played = |outcome: &str| {
        let dialogues = server["dialogues"].as_array().unwrap();
        dialogues.iter().filter(|dialogue| dialogue["outcome"] == outcome).count() as u64
    };
    assert!(played("right") >= 9);
    assert_eq!(server["points"].as_u64().unwrap(), played("right"));
    assert_eq!(server["of"].as_u64().unwrap(), played("right") + played("wrong"));
    assert_eq!(server["levels"][0]["points"], server["points"]);
    assert_eq!(gradescope["score"], server["points"]);
    let tests = gradescope["tests"].as_array().unwrap();
    assert_eq!(tests.len() as u64, played("right") + played("wrong"));
    assert!(tests.iter().all(|test| test["max_score"] == 1 && test["status"] == "passed"));
}

#[test]
fn who_stops_reading_stops_the_run_without_a_panic() {
    let server = TestServer::start(&["--max-per-client", "0"]);
    let mut command = command();
    command.arg(server.address.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn several_servers_have_one_line_each_and_the_worst_decides() {
    let (good, bad) = (TestServer::start(&[]), naive());
    let names = [good.address.to_string(), bad.to_string(), NOBODY.to_string()];
    let talk = folder(&[("a.smtp", "# level: 2\nS: 220 *\nC: HELP\nS: 214 *\nor: 211\n")]);
    for (count, code) in [(1, 0), (2, 1), (3, 3)] {
        let ran = run(command().args(&names[..count]).args([path(&talk), "--timeout", "1"]));
        assert_eq!(ran.code, Some(code), "{}{}", ran.text, ran.errors);
        if count > 1 {
            let lines: Vec<&str> = ran.text.lines().collect();
            assert_eq!(lines.len(), count, "{}", ran.text);
            for (name, line) in names.iter().zip(&lines) {
                assert!(line.starts_with(name.as_str()), "{line}");
            }
            assert!(lines[0].contains("2: 1/1") && lines[1].contains("2: 0/1"), "{}", ran.text);
        }
    }
}

#[test]
fn what_a_server_is_not_is_told_and_skipped_unless_the_file_is_named_or_the_need_is_met() {
    let server = TestServer::start(&[]);
    let script = "needs: mailboxes ann\nS: 220 *\nC: NOOP\nS: 251 *\n";
    let scripts = folder(&[("a_claim.smtp", script)]);
    let ran = check(server.address, &[path(&scripts)]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.text.starts_with("skip  1  a claim (needs mailboxes ann)\n"), "{}", ran.text);

    let ran = check(server.address, &[path(&scripts), "--have", "mailboxes ann"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    let file = scripts.path().join("a_claim.smtp");
    let ran = check(server.address, &[file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    for told in [
        "This dialogue is for a server with: mailboxes ann",
        "line 4 of the script: expected `251`, found `250 2.0.0 ok`",
    ] {
        assert!(ran.text.contains(told), "{}", ran.text);
    }
}

#[test]
fn a_file_that_is_named_is_played_whatever_its_level() {
    let server = TestServer::start(&[]);
    let scripts = folder(&[("a.smtp", "# level: 5\nS: 220 *\n")]);
    let file = scripts.path().join("a.smtp");
    let ran = check(server.address, &["--level", "1", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    assert!(ran.text.contains("1 right, 0 wrong"), "{}", ran.text);
}

#[test]
fn letters_go_to_the_mailboxes_that_the_user_names() {
    let server = TestServer::start(&["--domain", "one.example"]);
    let level = ["--level", "1"];
    assert_eq!(check(server.address, &level).code, Some(1));
    let mailboxes = ["--mailbox", "eve@one.example", "--mailbox", "zoe@one.example"];
    let ran = check(server.address, &[&level[..], &mailboxes].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.text);
}

#[test]
fn a_wrong_flag_or_script_is_told_with_code_2() {
    let server = TestServer::start(&[]);
    let address = server.address.to_string();
    let broken = folder(&[("a.smtp", "nonsense\n")]);
    let (hard, empty) = (folder(&[("a.smtp", "# level: 2\nS: 220 *\n")]), folder(&[]));
    for (args, told) in [
        (&[][..], "which server?"),
        (&["no.such.file.smtp"], "no such file, and no HOST:PORT"),
        (&[&address, path(&broken)], "line 1 of the script"),
        (&[&address, path(&hard), "--level", "1"], "no dialogues up to level 1"),
        (&[&address, path(&empty)], "no dialogues up to level 5"),
        (&[&address, "--timeout", "0"], "--timeout is a number of seconds"),
        (&[&address, "--level", "9"], "--level is one of 1 to 5"),
        (&[&address, &address, "--gradescope", "x"], "--gradescope is for one server"),
    ] {
        let ran = run(command().args(args));
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.text);
        assert!(ran.errors.contains(told), "{args:?}: {}", ran.errors);
    }
}
