//! One question to one DNS server, and its answer: over UDP, or over TCP where it is
//! too long for that (RFC 1035 section 4.2).
//!
//! In: the octets of a question, and until when. Out: the octets of the
//! answer to it, unread. Every datagram that is not the answer to exactly this
//! question is dropped.
//!
//! Left to others: what the octets say (`message.rs`), and whom to ask next
//! (`mod.rs`). Not done: EDNS (a long answer comes over TCP).
//!
//! Book: docs/15-finding-the-next-hop.md.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dns::message::{is_answer, is_cut_off};
use crate::wire::socket::Socket;

/// Datagrams have 512 octets at most (RFC 1035 section 4.2.1). Some servers do
/// not count so well, and what they say is not wrong for that.
const DATAGRAM_LIMIT: usize = 4096;

/// Sends the query; gives the answer to it, over TCP if it is too long.
pub fn exchange(server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let answer = over_udp(server, query, deadline)?;
    if is_cut_off(&answer) { over_tcp(server, query, deadline) } else { Ok(answer) }
}

/// RFC 5452: whoever wants to forge an answer has to guess the port of this
/// socket, which the system picks at random anew for each try, and the id.
fn over_udp(server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    // Nobody is asked what nobody can answer in time.
    time_left(deadline)?;
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    // A connected socket takes datagrams from this one peer, and hears that
    // nothing listens there.
    socket.connect(server)?;
    socket.send(query)?;
    let mut datagram = [0; DATAGRAM_LIMIT];
    loop {
        socket.set_read_timeout(Some(time_left(deadline)?))?;
        let length = match socket.recv(&mut datagram) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            received => received?,
        };
        // Anything else does not end the wait: a forger could otherwise make
        // us give up, or give in, with one wrong guess.
        if let Some(packet) = datagram.get(..length)
            && is_answer(query, packet)
        {
            return Ok(packet.to_vec());
        }
    }
}

/// Over TCP, a packet has its length in front (RFC 1035 section 4.2.2).
fn over_tcp(server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let tcp = TcpStream::connect_timeout(&server, time_left(deadline)?)?;
    let mut socket = Socket::new(Arc::new(tcp), time_left(deadline)?);
    // Our queries have 300 octets at most.
    socket.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    socket.read_exact(&mut length)?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut packet)?;
    if !is_answer(query, &packet) {
        return Err(io::Error::other("an answer to another question"));
    }
    Ok(packet)
}

/// Whether an exchange failed because nothing came in time.
pub fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// An error when there is none: zero would mean "for ever" to the system.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}
