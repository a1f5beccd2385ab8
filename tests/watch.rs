//! `examples/watch/`: what the page is told, what it may do, and who may ask it. How it
//! looks is not tried here.
//!
//! Book: docs/08-threads.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;
#[path = "../examples/watch/script.rs"]
mod script;
#[path = "../examples/watch/sessions.rs"]
mod sessions;
#[path = "../examples/watch/why.rs"]
mod why;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Client, examples, ticks_without_descriptors};
use ehlo::dialogue::Dialogue;
use ehlo::server::{Event, What};
use ehlo::smtp::session::Role;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use sessions::{LINES, SESSIONS, Sessions};
use tempfile::TempDir;

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program on ports of its own, ended when dropped.
struct Watch {
    smtp: SocketAddr,
    page: SocketAddr,
    child: Child,
    spool: TempDir,
}

impl Watch {
    fn start() -> Watch {
        Watch::start_at("127.0.0.1:0")
    }

    /// With its page there.
    fn start_at(page: &str) -> Watch {
        let spool = tempfile::tempdir().unwrap();
        let mut program = Command::new(examples().join("watch"));
        program.args(["--http", page, "--smtp", "127.0.0.1:0", "--max-per-client", "0"]);
        program.arg("--spool").arg(spool.path());
        let mut child = program.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |start: &str| {
            let line = lines.next().unwrap();
            line.strip_prefix(start).unwrap_or_else(|| panic!("{line}")).parse().unwrap()
        };
        let (smtp, page) = (address("listening smtp "), address("watch http://"));
        Watch { smtp, page, child, spool }
    }

    /// Everything that comes back, head and body, for a request with this `Host`.
    fn ask(&self, method: &str, path: &str, host: &str) -> (String, String) {
        let mut tcp = TcpStream::connect(self.page).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(format!("{method} {path} HTTP/1.1\r\n{host}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str) -> (String, String) {
        self.ask("GET", path, &format!("Host: {}", self.page))
    }

    fn json(&self, path: &str) -> Value {
        let (head, body) = self.get(path);
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        serde_json::from_str(&body).unwrap()
    }

    /// The session once it is over.
    fn over(&self, number: u64) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let list = self.json("/sessions");
            let found = list["sessions"]
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one["number"] == number && one["end"].is_string());
            if found {
                return self.json(&format!("/session?number={number}"));
            }
            assert!(Instant::now() < end, "session {number} is never over: {list}");
        }
    }

    fn deliver(&self, text: &str) {
        let reply = Client::in_data(self.smtp, "bob@localhost").message(text);
        assert!(reply.starts_with("250 2.6.0"), "{reply}");
    }

    /// Every file of the spool, and when it was changed.
    fn spool(&self) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        let (mut folders, mut found) = (vec![self.spool.path().to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            for file in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let data = file.metadata().unwrap();
                if data.is_dir() {
                    folders.push(file.path());
                }
                found.push((file.path(), data.len(), data.modified().unwrap()));
            }
        }
        found.sort();
        found
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that the page can ask for. `MAILBOX` and `FILE` are those of one letter.
const PATHS: [&str; 8] = [
    "/",
    "/sessions",
    "/session?number=1",
    "/dialogue?number=1",
    "/queue",
    "/mailboxes",
    "/letter?mailbox=MAILBOX&file=FILE",
    "/docs/05-state-machine.md",
];

fn paths(watch: &Watch) -> Vec<String> {
    let boxes = watch.json("/mailboxes");
    let first = &boxes["mailboxes"][0];
    let (mailbox, file) = (first["name"].as_str().unwrap(), &first["letters"][0]["file"]);
    let fill =
        |path: &str| path.replace("MAILBOX", mailbox).replace("FILE", file.as_str().unwrap());
    PATHS.iter().map(|path| fill(path)).collect()
}

#[test]
fn a_session_is_told_line_by_line_with_its_states_and_reasons() {
    let watch = Watch::start();
    let mut client = Client::connect(watch.smtp);
    client.ask("EHLO c.example");
    client.ask("RCPT TO:<bob@localhost>");
    client.ask("QUIT");
    let session = watch.over(1);
    let lines = session["lines"].as_array().unwrap();
    let texts: Vec<&str> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    for text in ["EHLO c.example", "Connected → Ready", "Ready → Closed", "over: QUIT"] {
        assert!(texts.contains(&text), "{text} is not in {texts:?}");
    }
    let refusal = lines.iter().find(|line| line["text"] == "503 5.5.1 say MAIL first").unwrap();
    let why = &refusal["why"];
    let arm = "RCPT adds one recipient; a refused one changes nothing (section 4.1.1.3).";
    assert_eq!(why["arm"], arm);
    assert!(why["reply"].as_str().unwrap().starts_with("a known command at the wrong moment"));
    let chapter = format!("/docs/{}", why["chapter"].as_str().unwrap());
    assert!(watch.get(&chapter).1.starts_with("# 5. "), "{chapter}");
}

#[test]
fn every_reply_of_a_letter_has_a_reason() {
    let watch = Watch::start();
    watch.deliver("Subject: hello\r\n\r\nhello\r\n");
    let session = watch.over(1);
    let lines = session["lines"].as_array().unwrap();
    let replies: Vec<&Value> = lines
        .iter()
        .filter(|line| line["who"] == "S" && line["text"].as_str().unwrap().as_bytes()[3] == b' ')
        .collect();
    assert!(replies.len() >= 6, "{replies:?}");
    for reply in replies {
        assert!(reply["why"]["reply"].is_string(), "{reply}");
    }
    // DATA and the message each have a reply, and a reason of their own.
    let why = |start: &str| {
        let is_this = |line: &&Value| line["text"].as_str().unwrap().starts_with(start);
        &lines.iter().rfind(is_this).unwrap()["why"]
    };
    assert!(why("354")["arm"].as_str().unwrap().starts_with("DATA needs a recipient"));
    assert_eq!(why("250 2.6.0")["arm"], Value::Null);
    assert_eq!(why("250 2.6.0")["chapter"], "07-maildir.md");
    let boxes = watch.json("/mailboxes");
    assert_eq!(boxes["mailboxes"][0]["letters"][0]["subject"], "hello");
}

#[test]
fn a_reply_to_a_line_that_is_hidden_leads_to_the_chapter_on_logins() {
    for (state, asked, reply) in [
        ("Ready", "AUTH PLAIN <16 octets>", "235 2.7.0 welcome"),
        ("Auth", "<8 octets>", "535 5.7.8 no"),
    ] {
        let why = why::Why::of(state, asked, reply).unwrap().told();
        assert_eq!(why["chapter"], "11-auth.md", "{asked}");
    }
}

#[test]
fn a_session_that_was_saved_can_be_played_again() {
    let watch = Watch::start();
    watch.deliver("Subject: hello\r\n\r\nhello\r\n");
    watch.over(1);
    let (head, text) = watch.get("/dialogue?number=1");
    assert!(head.contains("200 OK"), "{head}");
    assert!(text.contains("C: DATA\nS: 354 *\n"), "{text}");
    let dialogue: Dialogue = text.parse().unwrap();
    dialogue.play(watch.smtp).unwrap();
    let mut client = Client::connect(watch.smtp);
    client.ask("EHLO c.example");
    client.ask("QUIT");
    watch.over(3);
    let text = watch.get("/dialogue?number=3").1;
    assert!(text.ends_with("S: 221 2.0.0 *\nS: [closed]\n"), "{text}");
    text.parse::<Dialogue>().unwrap().play(watch.smtp).unwrap();
}

#[test]
fn a_line_that_is_not_there_as_it_was_said_ends_what_is_saved() {
    let saved = |lines: &[&str], has_users| {
        script::script(lines.iter().map(|line| ('C', *line)), has_users, false)
    };
    let end = "C: RSET\n# Here was a line that is not shown, or not whole.\n";
    for line in [r"NOOP a\\b", r"NOOP \x1b", "<8 octets>", "NOOP …"] {
        assert!(saved(&["RSET", line], false).ends_with(end), "{line}");
    }
    for line in ["NOOP", "HELP", "VRFY", "EXPN"] {
        assert!(saved(&["RSET", line], true).ends_with(end), "{line}");
        assert!(saved(&["RSET", line], false).ends_with(&format!("C: RSET\nC: {line}\n")));
        let after_login = saved(&["AUTH LOGIN", "RSET", line], false);
        assert!(after_login.ends_with(end), "{line}");
    }
}

#[test]
fn the_page_has_to_be_asked_for_under_the_name_of_this_machine() {
    let watch = Watch::start();
    watch.deliver("Subject: hello\r\n\r\nsecret\r\n");
    let port = watch.page.port();
    let good = [format!("Host: 127.0.0.1:{port}"), format!("host: localhost:{port}")];
    let bad = [
        format!("Host: rebound.example:{port}"),
        format!("Host: 127.0.0.1.rebound.example:{port}"),
        "Host: 127.0.0.1:1".to_owned(),
        "Host: 127.0.0.1".to_owned(),
        "X-Host: none".to_owned(),
        format!("Host: 127.0.0.1:{port}\r\nHost: rebound.example"),
    ];
    let mut paths = paths(&watch);
    for path in &paths {
        for host in &good {
            assert!(watch.ask("GET", path, host).0.starts_with("HTTP/1.1 200 "), "{path} {host}");
        }
    }
    paths.push("/events".to_owned());
    for path in paths {
        for host in &bad {
            let (head, body) = watch.ask("GET", &path, host);
            assert!(head.starts_with("HTTP/1.1 421 "), "{path} {host}: {head}");
            assert!(!body.contains("secret"));
        }
    }
}

#[test]
fn the_page_is_there_under_the_address_that_it_was_given() {
    let watch = Watch::start_at("127.0.0.2:0");
    assert!(watch.get("/sessions").0.starts_with("HTTP/1.1 200 "));
    let host = format!("Host: 127.0.0.3:{}", watch.page.port());
    assert!(watch.ask("GET", "/sessions", &host).0.starts_with("HTTP/1.1 421 "));
}

#[test]
fn the_page_runs_its_own_script_and_nothing_else() {
    let watch = Watch::start();
    let (head, page) = watch.get("/");
    let policy = head.lines().find_map(|line| line.strip_prefix("Content-Security-Policy: "));
    let policy = policy.unwrap();
    for (directive, tag) in [("script-src", "script"), ("style-src", "style")] {
        let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
        assert_eq!(page.matches(&format!("<{tag}")).count(), 1, "one {tag}");
        let inside = page.split_once(&begin).unwrap().1.split_once(&end).unwrap().0;
        let hash = STANDARD.encode(digest(&SHA256, inside.as_bytes()));
        assert!(policy.contains(&format!("{directive} 'sha256-{hash}';")), "{policy}");
    }
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    // Texts of others become text nodes; nothing makes HTML or code of them.
    let ways = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "srcdoc",
        " style=",
        "javascript:",
    ];
    for way in ways {
        assert!(!page.contains(way), "{way}");
    }
    let elsewhere: Vec<&str> = page.split("http").skip(1).collect();
    assert_eq!(elsewhere.len(), 1, "only the namespace of SVG has an address");
    for path in paths_without_letter() {
        assert!(watch.get(path).0.contains("X-Content-Type-Options: nosniff"), "{path}");
    }
}

fn paths_without_letter() -> impl Iterator<Item = &'static str> {
    PATHS.into_iter().filter(|path| !path.contains("MAILBOX"))
}

#[test]
fn no_request_changes_anything() {
    let watch = Watch::start();
    watch.deliver("Subject: hello\r\n\r\nhello\r\n");
    watch.over(1);
    let (spool, list) = (watch.spool(), watch.json("/sessions"));
    assert!(spool.len() > 5, "{spool:?}");
    for path in paths(&watch) {
        watch.get(&path);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"] {
            let (head, _) = watch.ask(method, &path, &format!("Host: {}", watch.page));
            assert!(head.starts_with("HTTP/1.1 405 "), "{method} {path}: {head}");
        }
    }
    assert_eq!(watch.spool(), spool);
    assert_eq!(watch.json("/sessions"), list);
}

#[test]
fn a_letter_is_found_by_its_name_and_no_other_file_is() {
    let watch = Watch::start();
    watch.deliver("Subject: hello\r\n\r\nhello\r\n");
    fs::write(watch.spool.path().join("private"), "secret").unwrap();
    let letters = watch.spool.path().join("mail/localhost/bob/new");
    fs::write(watch.spool.path().join("elsewhere"), "Subject: secret\n\n").unwrap();
    std::os::unix::fs::symlink("../../../../elsewhere", letters.join("9.link.localhost")).unwrap();
    let good = paths(&watch).into_iter().find(|path| path.starts_with("/letter")).unwrap();
    let link = "/letter?mailbox=localhost/bob&file=new/9.link.localhost";
    for path in [
        link,
        "/letter?mailbox=localhost/bob&file=new/../../../../private",
        "/letter?mailbox=..%2f..&file=new/private",
        "/letter?mailbox=localhost/..&file=new/x",
        "/letter?mailbox=localhost/bob&file=tmp/x",
        "/letter?mailbox=localhost/bob&file=new/",
        "/letter?mailbox=localhost/bob&file=new/%00",
        "/letter",
        "/../private",
        "/session?number=99",
        "/session?number=-1",
    ] {
        let (head, body) = watch.get(path);
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
        assert!(!body.contains("secret"), "{path}");
    }
    // The newest name is the link, so the letter is the second.
    let boxes = watch.json("/mailboxes");
    let file = boxes["mailboxes"][0]["letters"][1]["file"].as_str().unwrap();
    assert!(good.contains("link") && !boxes.to_string().contains("secret"), "{good} {boxes}");
    let letter = watch.json(&format!("/letter?mailbox=localhost/bob&file={file}"));
    assert_eq!(letter["text"], "hello\n");
    assert!(letter["source"].as_str().unwrap().starts_with("Return-Path: <"), "{letter}");
}

#[test]
fn attachments_are_named_and_html_stays_source() {
    let watch = Watch::start();
    let evil = "<script>alert(1)</script>";
    watch.deliver(&format!(
        "Subject: {evil}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/html\r\n\r\n{evil}\r\n\
         --b\r\nContent-Type: application/pdf\r\n\
         Content-Disposition: attachment; filename=\"{evil}\"\r\n\r\n%PDF\r\n--b--\r\n"
    ));
    let path = paths(&watch).into_iter().find(|path| path.starts_with("/letter")).unwrap();
    assert!(watch.get(&path).0.contains("Content-Type: application/json"));
    let letter = watch.json(&path);
    assert_eq!((&letter["text"], letter["html"].as_str()), (&Value::Null, Some(evil)));
    assert_eq!(letter["attachments"][0]["name"], evil);
    assert_eq!(letter["attachments"][0]["kind"], "application/pdf");
}

#[test]
fn a_letter_of_many_attachments_tells_how_many_are_not_shown() {
    let watch = Watch::start();
    let (long, html) = ("x".repeat(70_000), "<p>".repeat(30_000));
    watch.deliver("Subject: small\r\n\r\nhello\r\n");
    let part = "--b\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=";
    let text = format!(
        "Subject: {}\nContent-Type: multipart/mixed; boundary=b\n\n\
         --b\nContent-Type: text/html\n\n{html}\n{part}{long}\n\nx\n{}--b--\n",
        "s".repeat(100),
        format!("{part}a.pdf\n\nx\n").repeat(149)
    );
    let letters = watch.spool.path().join("mail/localhost/bob/new");
    fs::write(letters.join("9999999999.many.localhost"), text).unwrap();
    let letter = watch.json("/letter?mailbox=localhost/bob&file=new/9999999999.many.localhost");
    assert_eq!(letter["attachments"].as_array().unwrap().len(), 100);
    assert_eq!(letter["attachment_count"], 150);
    let name = letter["attachments"][0]["name"].as_str().unwrap();
    assert!(name.ends_with("x…") && name.len() < 66_000, "{}", name.len());
    assert_eq!((&letter["is_html_cut"], &letter["is_text_cut"]), (&true.into(), &false.into()));
    let boxes = watch.json("/mailboxes");
    assert_eq!(boxes["mailboxes"][0]["letters"][0]["subject"], "s".repeat(80) + "…");
}

#[test]
fn of_a_large_letter_only_the_beginning_is_read() {
    let watch = Watch::start();
    watch.deliver("Subject: small\r\n\r\nhello\r\n");
    let letters = watch.spool.path().join("mail/localhost/bob/new");
    let mut text = b"Subject: large\n\n".to_vec();
    text.extend(b"0123456789abcde\n".repeat(25 * 64 * 1024));
    fs::write(letters.join("9999999999.large.localhost"), &text).unwrap();
    let path = "/letter?mailbox=localhost/bob&file=new/9999999999.large.localhost";
    let letter = watch.json(path);
    assert_eq!(letter["size"], text.len());
    assert_eq!(
        (&letter["is_read_cut"], &letter["is_source_cut"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    assert_eq!(letter["is_text_cut"], true);
    assert!(watch.get(path).1.len() < 1024 * 1024);
}

#[test]
fn browsers_that_do_not_read_hold_up_nobody() {
    let watch = Watch::start();
    // More than are served at a time; none of them ever reads.
    let mut silent = Vec::new();
    for path in ["/events", "/"] {
        for _ in 0..50 {
            let mut tcp = TcpStream::connect(watch.page).unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", watch.page);
            // What is one too many may be closed by now.
            let _ = tcp.write_all(request.as_bytes());
            silent.push(tcp);
        }
    }
    let start = Instant::now();
    for _ in 0..5 {
        watch.deliver("Subject: hello\r\n\r\nhello\r\n");
    }
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(silent.len(), 100);
    drop(silent);
    // And the page is there again, once it is noticed that they are gone.
    let end = Instant::now() + PATIENCE;
    let host = format!("GET /sessions HTTP/1.1\r\nHost: {}\r\n\r\n", watch.page);
    loop {
        let mut tcp = TcpStream::connect(watch.page).unwrap();
        let mut answer = String::new();
        let _ = tcp.write_all(host.as_bytes()).and_then(|()| tcp.read_to_string(&mut answer));
        if answer.starts_with("HTTP/1.1 200 ") {
            return;
        }
        assert!(Instant::now() < end, "no place for a browser any more: {answer}");
    }
}

#[test]
fn without_descriptors_it_waits_and_does_not_spin() {
    let watch = Watch::start();
    let used = ticks_without_descriptors(&watch.child, watch.page);
    assert!(used < 40, "{used} of a hundred");
}

#[test]
fn a_page_hears_of_a_session_without_asking() {
    let watch = Watch::start();
    let mut tcp = TcpStream::connect(watch.page).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(tcp, "GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", watch.page).unwrap();
    let mut lines = BufReader::new(tcp).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "Content-Type: text/event-stream"));
    assert!(lines.any(|line| line == "data: 0"));
    let _client = Client::connect(watch.smtp);
    assert!(lines.any(|line| line.starts_with("data: ") && line != "data: 0"));
}

#[test]
fn the_page_is_on_loopback_only() {
    for (address, why) in [("0.0.0.0:0", "loopback"), ("[::]:0", "loopback"), ("8025", "ADDR:PORT")]
    {
        let spool = tempfile::tempdir().unwrap();
        let mut program = Command::new(examples().join("watch"));
        program.args(["--http", address, "--smtp", "127.0.0.1:0", "--spool"]).arg(spool.path());
        let output = program.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{address}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn signals_do_what_they_do_to_the_program_itself() {
    let watch = Watch::start();
    for signal in ["-HUP", "-USR1"] {
        let sent = Command::new("kill").args([signal, &watch.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        thread::sleep(Duration::from_millis(200));
        watch.deliver("Subject: still here\r\n\r\nhello\r\n");
    }
}

fn connected(sessions: &Sessions, session: u64) {
    let client = "127.0.0.1:1".parse().unwrap();
    sessions.record(Event { session, what: What::Connected { client, role: Role::Smtp } }, 0);
}

#[test]
fn a_thousand_sessions_leave_the_last_two_hundred_and_those_that_go_on_longest() {
    let sessions = Sessions::new(false);
    for number in 1..=1000 {
        connected(&sessions, number);
        if number > 1 {
            sessions.record(Event { session: number, what: What::Closed("QUIT".to_owned()) }, 7);
        }
    }
    let list = sessions.list();
    let numbers: Vec<u64> = list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["number"].as_u64().unwrap())
        .collect();
    assert_eq!((numbers.len(), numbers[0]), (SESSIONS, 1000));
    assert_eq!(numbers.last(), Some(&1), "it is not over yet");
    assert_eq!((&list["forgotten"], &list["dropped"]), (&Value::from(800), &Value::from(7)));
    assert!(sessions.one(2, 0).is_none() && sessions.dialogue(2).is_none());
    assert!(sessions.newer_than(0, Duration::ZERO) > 1000);
}

#[test]
fn a_session_of_a_million_lines_leaves_the_last_five_hundred_and_no_long_ones() {
    let sessions = Sessions::new(false);
    connected(&sessions, 1);
    for number in 0..1_000_000 {
        let text = if number < 999_600 { number.to_string() } else { "ü".repeat(4000) };
        sessions.record(Event { session: 1, what: What::Client(text) }, 0);
    }
    let session = sessions.one(1, 0).unwrap();
    let lines = session["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &session["first"]), (LINES, &Value::from(999_500)));
    assert_eq!(session["total"], 1_000_000);
    assert_eq!(lines[0]["text"], "999500");
    assert!(session.to_string().len() < 500 * 700);
    assert!(sessions.dialogue(1).is_none(), "without its beginning it cannot be played");
    assert_eq!(sessions.one(1, 999_999).unwrap()["lines"].as_array().unwrap().len(), 1);
}
