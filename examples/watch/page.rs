//! The page: what it is asked for, and what it may do.
//!
//! In: a connection from this machine. Out: the page with the drawing in it, data, or the
//! stream of changes. The page may run the one script that is in it and no other, which is
//! known by its hash; it loads nothing from elsewhere, and asks only this server.
//!
//! Book: docs/08-threads.md.

use std::io::{self, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use crate::http::{self, Answer, Request};
use crate::mail;
use crate::sessions::Sessions;

/// The page without the drawing.
const PAGE: &str = include_str!("page.html");
/// Where the drawing goes.
const DRAWING_PLACE: &str = "<!-- docs/states.svg -->";
const DRAWING: &str = include_str!("../../docs/states.svg");
/// The chapters that explain a reply, so that links work without network.
const CHAPTERS: [(&str, &str); 6] = [
    ("/docs/03-replies.md", include_str!("../../docs/03-replies.md")),
    ("/docs/05-state-machine.md", include_str!("../../docs/05-state-machine.md")),
    ("/docs/07-maildir.md", include_str!("../../docs/07-maildir.md")),
    ("/docs/09-extensions.md", include_str!("../../docs/09-extensions.md")),
    ("/docs/10-tls.md", include_str!("../../docs/10-tls.md")),
    ("/docs/11-auth.md", include_str!("../../docs/11-auth.md")),
];
/// A page hears of changes no more often than this.
const CALM: Duration = Duration::from_millis(200);
/// And so often at least, so that a browser that is gone is noticed.
const BEAT: Duration = Duration::from_secs(5);

/// What every answer is made of.
#[derive(Debug)]
pub struct Page {
    /// What happened.
    pub sessions: Arc<Sessions>,
    /// Where the mail is.
    pub spool: PathBuf,
    html: String,
    policy: String,
}

impl Page {
    /// Of this server.
    pub fn new(sessions: Arc<Sessions>, spool: PathBuf) -> Page {
        let html = PAGE.replace(DRAWING_PLACE, DRAWING);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash_of(&html, "<script>", "</script>"),
            hash_of(&html, "<style>", "</style>"),
        );
        Page { sessions, spool, html, policy }
    }

    /// One request, from its first octet to the close.
    pub fn serve(&self, mut browser: TcpStream) -> io::Result<()> {
        let answer = match Request::read(&mut browser) {
            Ok(request) if request.path == "/events" => return self.stream(browser),
            Ok(request) => self.answer(&request),
            Err(Some(answer)) => answer,
            Err(None) => return Ok(()),
        };
        http::write(&mut browser, &answer, &self.policy)
    }

    fn answer(&self, request: &Request) -> Answer {
        let number = || request.value("number").parse().ok();
        match request.path.as_str() {
            "/" => Answer {
                status: "200 OK",
                kind: "text/html; charset=utf-8",
                body: self.html.as_bytes().to_vec(),
            },
            "/sessions" => Answer::json(&self.sessions.list()),
            "/session" => {
                let from = request.value("from").parse().unwrap_or(0);
                let session = number().and_then(|number| self.sessions.one(number, from));
                session.map_or_else(Answer::missing, |session| Answer::json(&session))
            }
            "/dialogue" => {
                let script = number().and_then(|number| self.sessions.dialogue(number));
                script.map_or_else(Answer::missing, |script| Answer::text("200 OK", &script))
            }
            "/queue" => Answer::json(&mail::queue(&self.spool)),
            "/mailboxes" => Answer::json(&mail::mailboxes(&self.spool)),
            "/letter" => {
                let (mailbox, file) = (request.value("mailbox"), request.value("file"));
                let letter = mail::letter(&self.spool, mailbox, file);
                letter.map_or_else(Answer::missing, |letter| Answer::json(&letter))
            }
            path => {
                let chapter = CHAPTERS.iter().find(|(name, _)| *name == path);
                chapter.map_or_else(Answer::missing, |(_, text)| Answer::text("200 OK", text))
            }
        }
    }

    /// Tells that there is something new, not what: the page asks for that when it can.
    /// So a page that reads nothing holds up this thread for a while, and nothing else.
    fn stream(&self, mut browser: TcpStream) -> io::Result<()> {
        browser.set_write_timeout(Some(http::WRITE_TIME))?;
        let head = http::head("200 OK", "text/event-stream", &self.policy);
        browser.write_all(format!("{head}\r\n").as_bytes())?;
        let mut version = 0;
        loop {
            browser.write_all(format!("data: {version}\n\n").as_bytes())?;
            thread::sleep(CALM);
            version = self.sessions.newer_than(version, BEAT);
        }
    }
}

/// What a policy calls the one script, or the one style, of the page.
fn hash_of(html: &str, begin: &str, end: &str) -> String {
    let inside = html.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    let inside = inside.map_or("", |(inside, _)| inside);
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, inside.as_bytes())))
}
