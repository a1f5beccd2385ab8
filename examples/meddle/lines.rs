//! Lines and replies, as they are read and written; nothing here knows a rule.
//!
//! Book: docs/13-the-client-side.md.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

/// The most of a line that is read at once. A longer one is passed on in parts.
const LINE_LIMIT: u64 = 64 * 1024;
/// How often a second a slow connection gets its part.
const PARTS_A_SECOND: u64 = 10;

/// Writes, and no faster than that.
pub fn write(to: &mut TcpStream, octets: &[u8], pace: Option<u64>) -> io::Result<()> {
    let Some(pace) = pace else { return to.write_all(octets) };
    // One octet at a time where a part would be less than that.
    let part = usize::try_from(pace / PARTS_A_SECOND).unwrap_or(usize::MAX).max(1);
    for octets in octets.chunks(part) {
        thread::sleep(Duration::from_secs_f64(octets.len() as f64 / pace as f64));
        to.write_all(octets)?;
    }
    Ok(())
}

/// A line with its end; empty at the end of the connection.
pub fn read_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(LINE_LIMIT).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// All lines of a reply (RFC 5321 section 4.2.1); empty at the end of the connection.
pub fn read_reply(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    loop {
        let line = read_line(from)?;
        let is_last = line.get(3) != Some(&b'-');
        reply.extend_from_slice(&line);
        if is_last || reply.len() as u64 > LINE_LIMIT {
            return Ok(reply);
        }
    }
}

/// A command without the password that an AUTH may bring.
pub fn without_secret(line: &[u8]) -> Vec<u8> {
    let mut words = line.splitn(3, |octet| *octet == b' ');
    let (verb, mechanism, secret) = (words.next(), words.next(), words.next());
    match (verb, mechanism, secret) {
        (Some(verb), Some(mechanism), Some(secret)) if verb.eq_ignore_ascii_case(b"AUTH") => {
            let octets = format!("<{} octets>", secret.trim_ascii_end().len());
            [verb, mechanism, octets.as_bytes()].join(&b' ')
        }
        _ => line.to_vec(),
    }
}
