//! As much of HTTP as the page needs: GET, one request for each connection.
//!
//! In: a connection from this machine. Out: the request, if it is one that this page
//! makes. Asked for under another name than that of this machine it is refused: a page of
//! somebody else could make its own name point here, and read mail through that (DNS
//! rebinding). Nothing but GET is known, and no answer to a GET changes anything.
//!
//! Book: docs/08-threads.md.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a request may take to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// A browser that has taken nothing for so long is let go.
pub const WRITE_TIME: Duration = Duration::from_secs(5);
/// The longest head of a request, in octets.
const HEAD_LIMIT: usize = 8 * 1024;

/// What a browser asks for.
#[derive(Debug)]
pub struct Request {
    /// Such as `/sessions`.
    pub path: String,
    /// Names and values behind `?`.
    query: Vec<(String, String)>,
}

/// An answer that is whole.
#[derive(Debug)]
pub struct Answer {
    /// Such as `200 OK`.
    pub status: &'static str,
    /// Such as `text/html`.
    pub kind: &'static str,
    /// What is said.
    pub body: Vec<u8>,
}

impl Answer {
    /// With a text for people.
    pub fn text(status: &'static str, text: &str) -> Answer {
        Answer { status, kind: "text/plain; charset=utf-8", body: text.as_bytes().to_vec() }
    }

    /// Data for the page.
    pub fn json(value: &serde_json::Value) -> Answer {
        let body = value.to_string().into_bytes();
        Answer { status: "200 OK", kind: "application/json", body }
    }

    /// There is no such thing, or not any more.
    pub fn missing() -> Answer {
        Answer::text("404 Not Found", "there is no such thing here, or not any more\n")
    }
}

impl Request {
    /// Reads one; the error is the answer to what is none. Browsers also open connections
    /// on which they ask nothing: there an answer would be taken for that to a later
    /// request, so there is none.
    pub fn read(browser: &mut TcpStream) -> Result<Request, Option<Answer>> {
        let head = read_head(browser).map_err(|_| None)?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Request::parse(&head, browser.local_addr().unwrap_or(nowhere)).map_err(Some)
    }

    /// Reads the head of one that came to this address.
    fn parse(head: &str, at: SocketAddr) -> Result<Request, Answer> {
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        if method != Some("GET") {
            return Err(Answer::text("405 Method Not Allowed", "only GET is known here\n"));
        }
        let mut hosts = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("host").then(|| value.trim())
        });
        let host = hosts.next().unwrap_or_default();
        if hosts.next().is_some() || !is_ours(host, at) {
            let text = "this page has no such name: use the address that watch prints\n";
            return Err(Answer::text("421 Misdirected Request", text));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
        Ok(Request { path: path.to_owned(), query })
    }

    /// The value of this name behind `?`, or nothing.
    pub fn value(&self, name: &str) -> &str {
        let found = self.query.iter().find(|(one, _)| one == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Up to the empty line. What a browser sends behind it is of no interest.
fn read_head(browser: &mut TcpStream) -> io::Result<String> {
    let end = Instant::now() + REQUEST_TIME;
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() >= HEAD_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        browser.set_read_timeout(Some(left))?;
        let mut part = [0; 1024];
        let count = browser.read(&mut part)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(part.get(..count).unwrap_or_default());
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Whether a `Host` field names this machine by a name that nobody else can have, or is the
/// address that was connected to.
fn is_ours(host: &str, at: SocketAddr) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    let is_local = ["127.0.0.1", "localhost", "[::1]"].contains(&name);
    (is_local && port == at.port().to_string()) || format!("{name}:{port}") == at.to_string()
}

/// Without `%41` and the like. What is no octet stays as it is.
fn decoded(text: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let octet = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        if let (b'%', Some(octet)) = (first, octet) {
            octets.push(octet);
            rest = after.get(2..).unwrap_or_default();
        } else {
            octets.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// What goes before every answer. Nothing may be framed, guessed to be something else, or
/// kept; and a page may run and fetch only what `policy` says.
pub fn head(status: &str, kind: &str, policy: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Security-Policy: {policy}\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-store\r\n\
         Connection: close\r\n"
    )
}

/// Writes a whole answer.
pub fn write(browser: &mut TcpStream, answer: &Answer, policy: &str) -> io::Result<()> {
    browser.set_write_timeout(Some(WRITE_TIME))?;
    let head = head(answer.status, answer.kind, policy);
    browser.write_all(format!("{head}Content-Length: {}\r\n\r\n", answer.body.len()).as_bytes())?;
    browser.write_all(&answer.body)
}
