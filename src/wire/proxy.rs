//! The PROXY header, by which a balancer says for whom it connects.
//!
//! In: a connection of a balancer, of which nothing has been read. Out: the client's
//! two ends of it ([`Ends`]), or that it is the balancer's own; and the connection, at
//! the first octet that is the client's. Exactly the header is read from the socket,
//! since what follows it may be a TLS handshake, and belongs to somebody else.
//!
//! Versions 1 and 2, of HAProxy's `proxy-protocol.txt`: it is no RFC. What stands in a
//! header is read by the `proxy-header` crate; how long it is, is decided here. Nothing
//! is done with the further values that version 2 can carry (TLV), nor are they checked.
//!
//! Left to others: whose header is believed (`server/clients.rs`). This file would
//! believe anybody's.
//!
//! Book: docs/20-outgrowing-one-machine.md.

use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};

/// Version 1 begins with this, and is one line (section 2.1).
const TEXT: &[u8] = b"PROXY ";
/// The shortest line of version 1: `PROXY UNKNOWN`, CR LF.
const TEXT_SHORTEST: usize = 15;
/// The longest one.
const TEXT_LONGEST: usize = 107;
/// Version 2 begins with this: octets that no other protocol begins with (section 2.2).
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// With it, and with what says how much follows.
const BINARY_FIXED: usize = 16;
/// Version and command, after the signature: the connection is the balancer's own.
const BINARY_LOCAL: u8 = 0x20;
/// Read at once at most.
const CHUNK: usize = 256;

/// Both ends of a connection, as its client sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: SocketAddr,
    /// What it connected to.
    pub server: SocketAddr,
}

/// For whom a balancer connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// For this client.
    Client(Ends),
    /// For itself, to see whether we are well; or for somebody it cannot name.
    Balancer,
}

/// Why nobody knows whose connection it is.
#[derive(Debug)]
pub enum HeaderError {
    /// It was closed, or broke, before the first octet.
    Silence,
    /// What came is no header, or a broken one.
    Malformed,
    /// There was no whole header before the deadline.
    Late,
    /// It was closed in the middle, or broke.
    Lost(io::Error),
}

/// Reads the header, and nothing that follows it, before the deadline of `connection`.
pub fn read_header(connection: &mut impl Read) -> Result<Caller, HeaderError> {
    let mut header = Vec::new();
    loop {
        let missing = missing(&header)?;
        if missing == 0 {
            return parse(&header);
        }
        let mut chunk = [0; CHUNK];
        let read = connection.by_ref().take(missing as u64).read(&mut chunk);
        match read {
            Ok(0) if header.is_empty() => return Err(HeaderError::Silence),
            Ok(0) => return Err(HeaderError::Lost(ErrorKind::UnexpectedEof.into())),
            Ok(count) => header.extend(chunk.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Err(HeaderError::Late),
            Err(_) if header.is_empty() => return Err(HeaderError::Silence),
            Err(error) => return Err(HeaderError::Lost(error)),
        }
    }
}

/// How many octets are missing at least from a header that begins like this: none where
/// it is whole. One that cannot become a header is told as soon as it can be seen.
fn missing(header: &[u8]) -> Result<usize, HeaderError> {
    // Which version it is, the first octet tells; neither is shorter than this.
    if header.is_empty() {
        return Ok(TEXT_SHORTEST);
    }
    let may_be = |begin: &[u8]| begin.iter().zip(header).all(|(wanted, octet)| wanted == octet);
    if may_be(BINARY) {
        let more = match header.get(BINARY_FIXED - 2..BINARY_FIXED) {
            Some([high, low]) => usize::from(u16::from_be_bytes([*high, *low])),
            _ => 0,
        };
        return Ok((BINARY_FIXED + more).saturating_sub(header.len()));
    }
    if !may_be(TEXT) || header.len() > TEXT_LONGEST {
        return Err(HeaderError::Malformed);
    }
    if header.ends_with(b"\n") {
        return Ok(0);
    }
    // How long the line is nobody knows before its end: one octet at a time.
    Ok(TEXT_SHORTEST.saturating_sub(header.len()).max(1))
}

/// What a whole header says.
fn parse(header: &[u8]) -> Result<Caller, HeaderError> {
    // Of such a header nothing more counts, not even whether it makes sense (section 2.2).
    if header.starts_with(BINARY) && header.get(BINARY.len()) == Some(&BINARY_LOCAL) {
        return Ok(Caller::Balancer);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(header, config) {
        Ok((parsed, length)) if length == header.len() => Ok(caller(&parsed)),
        Ok(_) | Err(_) => Err(HeaderError::Malformed),
    }
}

/// A sender that no internet address belongs to counts as the balancer, as if the header
/// had said UNKNOWN. So does a datagram, which this connection is not.
fn caller(header: &ProxyHeader) -> Caller {
    match header.proxied_address() {
        Some(proxied) if proxied.protocol == Protocol::Stream => {
            Caller::Client(Ends { client: proxied.source, server: proxied.destination })
        }
        Some(_) | None => Caller::Balancer,
    }
}

/// As the log names whoever is refused.
impl Display for Caller {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Caller::Client(ends) => write!(f, "a client from {}", ends.client),
            Caller::Balancer => f.write_str("a balancer for itself"),
        }
    }
}

impl Display for HeaderError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            HeaderError::Silence => f.write_str("it was closed before a PROXY header"),
            HeaderError::Malformed => f.write_str("what came first is no PROXY header"),
            HeaderError::Late => f.write_str("there was no PROXY header in time"),
            HeaderError::Lost(error) => write!(f, "it broke off before a PROXY header: {error}"),
        }
    }
}

impl std::error::Error for HeaderError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that gives out so many octets at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len());
            self.0.read(&mut buffer[..count])
        }
    }

    const V4: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\0\x19";

    fn binary(command_and_family: &[u8], rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [BINARY, command_and_family, &length, rest].concat()
    }

    fn client(client: &str, server: &str) -> Option<Caller> {
        let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
        Some(Caller::Client(Ends { client, server }))
    }

    fn read(octets: &[u8]) -> Option<Caller> {
        read_header(&mut &*octets).ok()
    }

    #[test]
    fn both_versions_name_the_client_and_what_it_called() {
        let v6 = "PROXY TCP6 2001:db8::1 2001:db8::2 40000 25\r\n";
        for (header, wanted) in [
            (&b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n"[..], ["192.0.2.1", "192.0.2.2"]),
            (v6.as_bytes(), ["[2001:db8::1]", "[2001:db8::2]"]),
            (V4, ["192.0.2.1", "192.0.2.2"]),
        ] {
            let [from, to] = wanted;
            assert_eq!(read(header), client(&format!("{from}:40000"), &format!("{to}:25")));
        }
        let mut v6 = vec![0x20, 1, 0x0d, 0xb8];
        v6.extend([0; 11]);
        v6.extend([1, 0x20, 1, 0x0d, 0xb8]);
        v6.extend([0; 11]);
        v6.extend([2, 0x9c, 0x40, 0, 25]);
        // A further value stands after the addresses.
        v6.extend(b"\x02\0\x0bmx.example.");
        let wanted = client("[2001:db8::1]:40000", "[2001:db8::2]:25");
        assert_eq!(read(&binary(&[0x21, 0x21], &v6)), wanted);
        // Nobody looks whether such a value is whole.
        v6.truncate(38);
        assert_eq!(read(&binary(&[0x21, 0x21], &v6)), wanted);
    }

    #[test]
    fn local_and_unknown_are_the_balancer_whatever_else_they_say() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(TEXT_LONGEST - 16));
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            longest.into_bytes(),
            binary(&[0x20, 0x00], b""),
            // Its family is ignored, and what follows is skipped.
            binary(&[0x20, 0x11], b""),
            binary(&[0x20, 0xff], b"nonsense"),
            // Of no protocol, by datagram, and from a socket in the file system.
            binary(&[0x21, 0x00], b""),
            binary(&[0x21, 0x12], &V4[16..]),
            binary(&[0x21, 0x31], &[b'/'; 216]),
        ] {
            assert_eq!(read(&header), Some(Caller::Balancer), "{header:?}");
        }
    }

    #[test]
    fn what_does_not_exactly_fit_is_no_header() {
        let endless = format!("PROXY UNKNOWN {}\r\n", "f".repeat(TEXT_LONGEST));
        // The longest of section 2.1 has 107 octets.
        let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(108 - 16));
        for header in [
            b"EHLO c.example\r\n".to_vec(),
            b"PROXY\r\n".to_vec(),
            b"proxy UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 40000\r25\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 192.0.2.2 40000 25\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 2001:db8::2 40000 25\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 192.0.2.2 40000 25\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1\r\nEHLO c.example\r\n".to_vec(),
            endless.into_bytes(),
            too_long.into_bytes(),
            // A version and a command that do not exist, too short, and of unknown family.
            binary(&[0x11, 0x11], &V4[16..]),
            binary(&[0x22, 0x11], &V4[16..]),
            binary(&[0x21, 0x11], &V4[16..27]),
            binary(&[0x21, 0x11], b""),
            binary(&[0x21, 0x41], &V4[16..]),
        ] {
            let error = read_header(&mut &header[..]);
            assert!(matches!(error, Err(HeaderError::Malformed)), "{header:?}: {error:?}");
        }
    }

    #[test]
    fn no_more_than_the_header_is_read_in_whatever_pieces_it_comes() {
        let text = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n";
        let long = binary(&[0x20, 0x00], &[b'x'; 65535]);
        for header in [&text[..], V4, b"PROXY UNKNOWN\r\n", &long] {
            let octets = [header, b"EHLO"].concat();
            for piece in (1..300).chain([octets.len()]) {
                let mut connection = Drops(&octets, piece);
                read_header(&mut connection).unwrap();
                assert_eq!(connection.0, b"EHLO", "{piece}");
            }
        }
    }

    #[test]
    fn a_header_that_is_cut_off_is_lost_and_none_at_all_is_silence() {
        for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n"[..], V4] {
            for length in 0..header.len() {
                match read_header(&mut &header[..length]) {
                    Err(HeaderError::Silence) => assert_eq!(length, 0),
                    Err(HeaderError::Lost(_)) => assert_ne!(length, 0),
                    other => panic!("{length}: {other:?}"),
                }
            }
        }
    }

    /// A connection that is reset after these octets.
    struct Reset<'a>(&'a [u8]);

    impl Read for Reset<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(ErrorKind::ConnectionReset.into()),
                count => Ok(count),
            }
        }
    }

    #[test]
    fn a_reset_before_the_first_octet_is_silence() {
        assert!(matches!(read_header(&mut Reset(b"")), Err(HeaderError::Silence)));
        assert!(matches!(read_header(&mut Reset(b"PROXY ")), Err(HeaderError::Lost(_))));
    }

    /// Neither ours nor the crate's code: whatever comes is a value, and no panic.
    #[test]
    fn any_octets_have_an_answer() {
        fn holds(command: u8, family: u8, rest: Vec<u8>) -> bool {
            let _ = read(&binary(&[command, family], &rest));
            let _ = read(&[TEXT, &rest, b"\r\n"].concat());
            let _ = read(&[b"PROXY TCP6 ", &rest[..], b" 1 2\r\n"].concat());
            read(&rest).is_none() || rest.starts_with(TEXT) || rest.starts_with(BINARY)
        }
        quickcheck::quickcheck(holds as fn(u8, u8, Vec<u8>) -> bool);
    }
}
