//! Questions to DNS, and their answers (RFC 1035).
//!
//! In: a name and the type of the records that are wanted. Out: what those
//! records say, or why nobody knows. This is a stub resolver: it asks one server
//! that does the whole search, `--dns` or the first of `/etc/resolv.conf`. Every
//! datagram that is not the answer to exactly our question is dropped unread.
//!
//! Left to others: what the records mean for mail (`route.rs`). `simple-dns`
//! writes and reads the packets, the sockets are ours. Not done: a cache (the
//! server asked has one), DNSSEC, and EDNS (a long answer comes over TCP).
//!
//! Book: docs/15-finding-the-next-hop.md.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};

use crate::wire::socket::Socket;

/// RFC 1035 section 4.2.
const PORT: u16 = 53;
/// A datagram may be lost; three in a row seldom are.
const TRIES: u32 = 3;
/// No DNS server is waited for longer, and no sum of times overflows.
const PATIENCE_LIMIT: Duration = Duration::from_secs(3600);
/// Datagrams have 512 octets at most (RFC 1035 section 4.2.1). Some servers do
/// not count so well, and what they say is not wrong for that.
const DATAGRAM_LIMIT: usize = 4096;
/// The longest answer we read over TCP, which could carry 65,535 octets. Two
/// hundred MX records fit in.
const STREAM_LIMIT: usize = 16 * 1024;
/// A record has 11 octets at least: a name of one, then ten (RFC 1035 section 4.1.3).
const RECORD_OCTETS: usize = 11;
/// More records of one name and type than this are not read.
const RECORDS_LIMIT: usize = 100;
/// A name may be an alias of an alias; honest chains are shorter than this, and
/// loops are not.
const ALIASES_LIMIT: usize = 8;
/// The header of a packet (RFC 1035 section 4.1.1).
const HEADER_OCTETS: usize = 12;
/// In the third octet of the header: this is an answer, its kind of question, and
/// that it was cut off.
const QR: u8 = 0b1000_0000;
const OPCODE: u8 = 0b0111_1000;
const TC: u8 = 0b0000_0010;

/// Asks one recursive server.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Whom we ask.
    server: SocketAddr,
    /// How long one try may take.
    pub(super) patience: Duration,
}

/// Why there is no answer. The text of each completes "DNS about x.example: …".
#[derive(Debug)]
pub enum Trouble {
    /// NXDOMAIN: the name does not exist, with any type. The only lasting one,
    /// beside `BadName`.
    NoSuchName,
    /// A label over 63 octets, or a name over 253: nobody can ask for it.
    BadName,
    /// No answer, in none of the tries.
    Silence,
    /// The server says that it failed (SERVFAIL), or that it does not want to
    /// answer us (REFUSED), or something else of the kind.
    Failed(RCODE),
    /// The answer to our question, but it cannot be read.
    Malformed,
    /// An alias that leads to itself, or through too many others.
    TooManyAliases,
    /// The server cannot be reached, hangs up, or our own system refuses.
    System(io::Error),
}

/// What one answer says about one question.
#[derive(Debug, PartialEq)]
enum Found {
    /// The records asked for; none if the name has none of this type.
    Records(Vec<RData<'static>>),
    /// The name stands for another one, about which the answer says nothing.
    Alias(Name<'static>),
}

impl Resolver {
    /// Asks `server`, and waits for `patience` in each of three tries.
    pub fn new(server: SocketAddr, patience: Duration) -> Resolver {
        Resolver { server, patience: patience.min(PATIENCE_LIMIT) }
    }

    /// The first server of `/etc/resolv.conf` that can be used; this host, where
    /// there is none.
    pub fn system_server() -> SocketAddr {
        let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let address = first_server(&text).unwrap_or(Ipv4Addr::LOCALHOST.into());
        SocketAddr::new(address, PORT)
    }

    /// What the records of `name` with this type hold, aliases followed. An empty
    /// list means that the name exists and has no such record.
    pub fn query(&self, name: &str, kind: TYPE) -> Result<Vec<RData<'static>>, Trouble> {
        let mut name = Name::new(name).map_err(|_| Trouble::BadName)?.into_owned();
        let start = Instant::now();
        for _ in 0..ALIASES_LIMIT {
            // Each step of a chain may come just in time. All of them may not.
            if start.elapsed() > self.patience * TRIES {
                return Err(Trouble::Silence);
            }
            match self.ask(&name, kind)? {
                Found::Records(records) => return Ok(records),
                // Servers that search for us follow aliases themselves, but some
                // stop half-way.
                Found::Alias(target) => name = target,
            }
        }
        Err(Trouble::TooManyAliases)
    }

    /// One question, and what the answer says about it.
    fn ask(&self, name: &Name<'static>, kind: TYPE) -> Result<Found, Trouble> {
        let mut last = Trouble::Silence;
        for _ in 0..TRIES {
            let query = question(random_id()?, name, kind)?;
            match self.exchange(&query) {
                Ok(answer) => return read_answer(&answer, name, kind),
                // "Connection refused" comes from a host where nothing listens.
                // The next try may find that it does again.
                Err(error) if is_late(&error) => last = Trouble::Silence,
                Err(error) => last = Trouble::System(error),
            }
        }
        Err(last)
    }

    /// Sends the query; gives the answer to it, over TCP if it is too long.
    fn exchange(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let answer = self.over_udp(query)?;
        match answer.get(2).is_some_and(|flags| flags & TC != 0) {
            true => self.over_tcp(query),
            false => Ok(answer),
        }
    }

    /// RFC 5452: whoever wants to forge an answer has to guess the port of this
    /// socket, which the system picks at random anew for each try, and the id.
    fn over_udp(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let any: IpAddr = match self.server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // A connected socket takes datagrams from this one peer, and hears that
        // nothing listens there.
        socket.connect(self.server)?;
        socket.send(query)?;
        let deadline = Instant::now() + self.patience;
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
    fn over_tcp(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.patience;
        let tcp = TcpStream::connect_timeout(&self.server, self.patience)?;
        let mut socket = Socket::new(Arc::new(tcp), time_left(deadline)?);
        // Our queries have 300 octets at most.
        socket.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat())?;
        let mut length = [0; 2];
        socket.read_exact(&mut length)?;
        let length = usize::from(u16::from_be_bytes(length));
        if length > STREAM_LIMIT {
            return Err(io::Error::other("an answer over the limit"));
        }
        let mut packet = vec![0; length];
        socket.read_exact(&mut packet)?;
        match is_answer(query, &packet) {
            true => Ok(packet),
            false => Err(io::Error::other("an answer to another question")),
        }
    }
}

impl Trouble {
    /// Whether asking again later will not help.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Trouble::NoSuchName | Trouble::BadName)
    }
}

/// Whether `packet` answers `query`: the same id, marked as an answer to a
/// standard query, and the same single question, where upper and lower case are
/// one. The question stands at the same place in both, and no name before it
/// could be pointed at, so its octets are compared as they are. What fails here
/// is not parsed at all.
fn is_answer(query: &[u8], packet: &[u8]) -> bool {
    let asked = query.get(HEADER_OCTETS..).unwrap_or_default();
    let echo = packet.get(HEADER_OCTETS..query.len()).unwrap_or_default();
    packet.get(..2) == query.get(..2)
        && packet.get(2).is_some_and(|flags| flags & (QR | OPCODE) == QR)
        && packet.get(4..6) == query.get(4..6)
        && echo.eq_ignore_ascii_case(asked)
}

/// A packet with one question, recursion desired.
fn question(id: u16, name: &Name<'static>, kind: TYPE) -> Result<Vec<u8>, Trouble> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name.clone(), kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(|_| Trouble::BadName)
}

/// What an answer that passed [`is_answer`] says. Only the records that the
/// question leads to count; others could be about anything.
fn read_answer(answer: &[u8], name: &Name<'static>, kind: TYPE) -> Result<Found, Trouble> {
    if claimed_records(answer) > answer.len() / RECORD_OCTETS {
        return Err(Trouble::Malformed);
    }
    let packet = Packet::parse(answer).map_err(|_| Trouble::Malformed)?;
    let code = packet.rcode();
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Err(Trouble::Malformed);
    }
    if !matches!(code, RCODE::NoError | RCODE::NameError) {
        return Err(Trouble::Failed(code));
    }
    let mut owner = name.clone();
    for _ in 0..ALIASES_LIMIT {
        let owned = || {
            packet.answers.iter().filter(|record| record.name == owner && record.class == CLASS::IN)
        };
        let records: Vec<_> = owned()
            .filter(|record| record.rdata.type_code() == kind)
            .take(RECORDS_LIMIT)
            .map(|record| record.rdata.clone().into_owned())
            .collect();
        // A record without data is not the same as no record.
        if records.iter().any(|data| matches!(data, RData::Empty(_))) {
            return Err(Trouble::Malformed);
        }
        if !records.is_empty() {
            return Ok(Found::Records(records));
        }
        let target = owned().find_map(|record| match &record.rdata {
            RData::CNAME(alias) => Some(alias.0.clone().into_owned()),
            _ => None,
        });
        match target {
            Some(target) => owner = target,
            // The code is about the last name of the chain (RFC 2308 section 2.1).
            None if code == RCODE::NameError => return Err(Trouble::NoSuchName),
            None if owner == *name => return Ok(Found::Records(Vec::new())),
            None => return Ok(Found::Alias(owner)),
        }
    }
    Err(Trouble::TooManyAliases)
}

/// The sum of the three counts of records in the header. The parser reserves room
/// for what they claim, so they are held against the length first.
fn claimed_records(answer: &[u8]) -> usize {
    let counts = answer.get(6..HEADER_OCTETS).unwrap_or_default();
    counts
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |sum, &octet| sum << 8 | usize::from(octet)))
        .sum()
}

/// The address in the first `nameserver` line that has one. An address with a
/// scope (`fe80::1%eth0`) is passed over: the standard library does not read it.
fn first_server(resolv_conf: &str) -> Option<IpAddr> {
    resolv_conf.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => address.parse().ok(),
            _ => None,
        }
    })
}

fn random_id() -> Result<u16, Trouble> {
    let mut octets = [0; 2];
    match SystemRandom::new().fill(&mut octets) {
        Ok(()) => Ok(u16::from_be_bytes(octets)),
        Err(_) => Err(Trouble::System(io::Error::other("no random numbers"))),
    }
}

/// An error when there is none: zero would mean "for ever" to the system.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Trouble::NoSuchName => f.write_str("the name does not exist"),
            Trouble::BadName => f.write_str("the name is too long to ask for"),
            Trouble::Silence => f.write_str("no answer in time"),
            Trouble::Failed(RCODE::ServerFailure) => f.write_str("the server failed (SERVFAIL)"),
            Trouble::Failed(RCODE::Refused) => {
                f.write_str("the server refused to answer (REFUSED)")
            }
            Trouble::Failed(code) => write!(f, "the server answered with the error {code:?}"),
            Trouble::Malformed => f.write_str("the answer cannot be read"),
            Trouble::TooManyAliases => f.write_str("aliases in a circle, or too many of them"),
            Trouble::System(error) => write!(f, "the exchange with the server failed: {error}"),
        }
    }
}

impl std::error::Error for Trouble {}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};

    fn name(text: &str) -> Name<'static> {
        Name::new(text).unwrap().into_owned()
    }

    fn query() -> Vec<u8> {
        question(0x1234, &name("x.example"), TYPE::A).unwrap()
    }

    /// An answer to `query()` with these aliases and addresses.
    fn answer(records: Vec<(&'static str, RData<'static>)>) -> Vec<u8> {
        let query = query();
        let mut packet = Packet::parse(&query).unwrap().into_reply();
        for (owner, data) in records {
            packet.answers.push(ResourceRecord::new(name(owner), CLASS::IN, 60, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn alias(target: &str) -> RData<'static> {
        RData::CNAME(CNAME(name(target)))
    }

    fn address(last: u8) -> RData<'static> {
        RData::A(A { address: u32::from_be_bytes([192, 0, 2, last]) })
    }

    fn read(answer: &[u8]) -> Result<Found, Trouble> {
        read_answer(answer, &name("x.example"), TYPE::A)
    }

    #[test]
    fn the_first_server_that_can_be_used_is_taken() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver fe80::1%eth0\n\
                    nameserver\n nameserver 2001:db8::1\nnameserver 192.0.2.1\n";
        assert_eq!(first_server(text), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(first_server("nameserver dns.example\nnameservers 192.0.2.1\n"), None);
    }

    #[test]
    fn only_an_answer_to_exactly_our_question_is_one() {
        let (query, good) = (query(), answer(vec![("x.example", address(1))]));
        assert!(is_answer(&query, &good));
        assert!(is_answer(&query, &good.iter().map(u8::to_ascii_uppercase).collect::<Vec<_>>()));
        assert!(!is_answer(&query, &query), "a query is no answer");
        // One wrong bit anywhere in id, kind, number of questions, or the question.
        let letter_case = 0x20;
        for at in [0, 1, 4, 5].into_iter().chain(HEADER_OCTETS..query.len()) {
            for bit in (0..8).map(|bit| 1 << bit).filter(|bit| *bit != letter_case || at < 12) {
                let mut bad = good.clone();
                bad[at] ^= bit;
                assert!(!is_answer(&query, &bad), "octet {at}, bit {bit}");
            }
        }
        for bit in [3, 4, 5, 6, 7] {
            let mut bad = good.clone();
            bad[2] ^= 1 << bit;
            assert!(!is_answer(&query, &bad), "flag {bit}");
        }
        for length in 0..query.len() {
            assert!(!is_answer(&query, &good[..length]), "{length} octets");
        }
    }

    #[test]
    fn aliases_are_followed_inside_one_answer_in_any_order_and_case() {
        let records = vec![
            ("z.example", address(1)),
            ("Y.example", alias("Z.example")),
            ("X.Example", alias("y.EXAMPLE")),
        ];
        assert_eq!(read(&answer(records)).unwrap(), Found::Records(vec![address(1)]));
    }

    #[test]
    fn records_that_the_question_does_not_lead_to_are_not_taken() {
        let records = vec![("bank.example", address(6)), ("x.example", address(1))];
        assert_eq!(read(&answer(records)).unwrap(), Found::Records(vec![address(1)]));
        assert_eq!(
            read(&answer(vec![("bank.example", address(6))])).unwrap(),
            Found::Records(Vec::new())
        );
    }

    #[test]
    fn an_answer_that_ends_at_an_alias_names_it() {
        let records = vec![("x.example", alias("y.example"))];
        assert_eq!(read(&answer(records)).unwrap(), Found::Alias(name("y.example")));
    }

    #[test]
    fn a_record_without_data_is_malformed_and_not_no_record() {
        let records = vec![("x.example", RData::Empty(TYPE::A))];
        assert!(matches!(read(&answer(records)), Err(Trouble::Malformed)));
    }

    #[test]
    fn a_circle_of_aliases_ends() {
        let records = vec![("x.example", alias("y.example")), ("y.example", alias("x.example"))];
        assert!(matches!(read(&answer(records)), Err(Trouble::TooManyAliases)));
    }

    #[test]
    fn counts_that_promise_more_than_the_packet_holds_are_not_believed() {
        let mut bad = answer(vec![("x.example", address(1))]);
        bad[6..12].fill(0xff);
        assert!(matches!(read(&bad), Err(Trouble::Malformed)));
    }

    #[test]
    fn a_name_that_points_to_itself_is_malformed() {
        let mut bad = query();
        bad[2] |= QR;
        bad[7] = 1;
        let here = bad.len() as u8;
        bad.extend([0xc0, here, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1]);
        assert!(is_answer(&query(), &bad));
        assert!(matches!(read(&bad), Err(Trouble::Malformed)));
    }

    #[test]
    fn no_octets_make_it_panic() {
        fn holds(mut tail: Vec<u8>, counts: (u8, u8, u8), flips: Vec<(u8, u8)>) -> bool {
            let mut packet =
                answer(vec![("x.example", alias("y.example")), ("y.example", address(1))]);
            (packet[7], packet[9], packet[11]) = counts;
            packet.append(&mut tail);
            for (at, octet) in flips {
                let at = usize::from(at) % packet.len();
                packet[at] = octet;
            }
            let _ = (is_answer(&query(), &packet), read(&packet));
            true
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>, (u8, u8, u8), Vec<(u8, u8)>) -> bool);
    }
}
