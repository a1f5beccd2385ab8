//! A DNS server on loopback, with a zone of a few lines, that can be told to
//! misbehave. It answers over UDP and TCP at the same port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use simple_dns::rdata::{A, AAAA, CNAME, MX, PTR, RData, TXT};
use simple_dns::{CLASS, Name, Packet, RCODE, ResourceRecord};

/// What the server does instead of answering as it should.
#[derive(Clone, Copy)]
pub enum Trick {
    /// Over UDP: the datagrams to send, made from the honest answer.
    Udp(fn(&[u8]) -> Vec<Vec<u8>>),
    /// Over UDP: "too long, ask over TCP". Over TCP: this, with the honest answer.
    Tcp(fn(&mut TcpStream, &[u8])),
}

/// One question that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Such as `x.example MX`.
    pub question: String,
    pub id: u16,
    /// The port it came from.
    pub port: u16,
    pub over_tcp: bool,
}

pub struct DnsServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    zone: Vec<ResourceRecord<'static>>,
    /// For questions that begin with this: `x.example`, or `x.example MX`.
    tricks: Vec<(String, Trick)>,
    asked: Mutex<Vec<Asked>>,
    is_ending: AtomicBool,
}

impl DnsServer {
    /// A server that knows `zone`: lines such as `x.example MX 10 mx.example`,
    /// with the types A, AAAA, MX, CNAME, PTR and TXT (each word is a string of its
    /// own there). All other names do not exist.
    pub fn start(zone: &[&str]) -> DnsServer {
        DnsServer::with_tricks(zone, &[])
    }

    /// The same, and for questions that begin with a text (`x.example`, or
    /// `x.example MX`) it does as told.
    pub fn with_tricks(zone: &[&str], tricks: &[(&'static str, Trick)]) -> DnsServer {
        let words = |line: &&str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
        let zone = zone.iter().map(|line| record(&words(line))).collect();
        let tricks = tricks.iter().map(|(of, trick)| ((*of).to_owned(), *trick)).collect();
        DnsServer::with_records(zone, tricks)
    }

    /// The same, with records that no line of text could hold.
    pub fn with_records(
        zone: Vec<ResourceRecord<'static>>,
        tricks: Vec<(String, Trick)>,
    ) -> DnsServer {
        let (tcp, udp) = same_port();
        let address = tcp.local_addr().unwrap();
        let shared = Arc::new(Shared {
            zone,
            tricks,
            asked: Mutex::new(Vec::new()),
            is_ending: AtomicBool::new(false),
        });
        let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || one.serve_udp(&udp)),
            thread::spawn(move || two.serve_tcp(&tcp)),
        ];
        DnsServer { address, shared, threads }
    }

    /// Every question that came, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The questions alone: `x.example MX`.
    pub fn questions(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.question).collect()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        let _ = UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], self.address);
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve_udp(&self, udp: &UdpSocket) {
        let mut datagram = [0; 512];
        loop {
            let (length, client) = udp.recv_from(&mut datagram).unwrap();
            if self.is_ending.load(Ordering::SeqCst) {
                return;
            }
            let (answer, trick) = self.answer(&datagram[..length], client, false);
            let datagrams = match trick {
                Some(Trick::Udp(trick)) => trick(&answer),
                Some(Trick::Tcp(_)) => tricks::cut_off(&answer),
                None => vec![answer],
            };
            for datagram in datagrams {
                // The client may have gone.
                let _ = udp.send_to(&datagram, client);
            }
        }
    }

    fn serve_tcp(&self, tcp: &TcpListener) {
        for client in tcp.incoming() {
            let mut client = client.unwrap();
            if self.is_ending.load(Ordering::SeqCst) {
                return;
            }
            let mut length = [0; 2];
            client.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            client.read_exact(&mut query).unwrap();
            let (answer, trick) = self.answer(&query, client.peer_addr().unwrap(), true);
            match trick {
                Some(Trick::Tcp(trick)) => trick(&mut client, &answer),
                _ => tricks::with_length(&mut client, &answer),
            }
        }
    }

    /// The honest answer, and what to do instead of sending it.
    fn answer(&self, query: &[u8], client: SocketAddr, over_tcp: bool) -> (Vec<u8>, Option<Trick>) {
        let query = Packet::parse(query).unwrap();
        // However it is spelled, it is one name (RFC 4343).
        let name = query.questions[0].qname.to_string().to_ascii_lowercase();
        let kind = query.questions[0].qtype;
        let simple_dns::QTYPE::TYPE(kind) = kind else { panic!("{kind:?}") };
        let question = format!("{name} {kind:?}");
        let (id, port) = (query.id(), client.port());
        self.asked.lock().unwrap().push(Asked { question: question.clone(), id, port, over_tcp });

        let mut reply = query.into_reply();
        let mut owner = name;
        // An alias of an alias is followed, a circle not for ever.
        for _ in 0..10 {
            let name = |record: &ResourceRecord| record.name.to_string().to_ascii_lowercase();
            let of_owner = || self.zone.iter().filter(|record| name(record) == owner);
            let exists = self.zone.iter().any(|record| name(record).ends_with(&owner));
            *reply.rcode_mut() = if exists { RCODE::NoError } else { RCODE::NameError };
            let wanted = |record: &&ResourceRecord| record.rdata.type_code() == kind;
            reply.answers.extend(of_owner().filter(wanted).cloned());
            let mut aliases = of_owner().filter_map(|record| match &record.rdata {
                RData::CNAME(alias) => Some((record, alias.0.to_string())),
                _ => None,
            });
            let Some((alias, target)) = aliases.next() else { break };
            reply.answers.push(alias.clone());
            owner = target.to_ascii_lowercase();
        }
        let trick = self.tricks.iter().find(|(of, _)| {
            question.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        });
        (reply.build_bytes_vec_compressed().unwrap(), trick.map(|(_, trick)| *trick))
    }
}

/// Some misbehaviour that several tests want.
pub mod tricks {
    use super::*;

    /// No answer at all.
    pub fn silence(_: &[u8]) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// SERVFAIL: "I tried, and failed".
    pub fn failure(answer: &[u8]) -> Vec<Vec<u8>> {
        with_code(answer, 2)
    }

    /// REFUSED: "not for you".
    pub fn refusal(answer: &[u8]) -> Vec<Vec<u8>> {
        with_code(answer, 5)
    }

    /// Header and question only, marked as cut off.
    pub fn cut_off(answer: &[u8]) -> Vec<Vec<u8>> {
        let mut packet = Packet::parse(answer).unwrap();
        packet.set_flags(simple_dns::PacketFlag::TRUNCATION);
        packet.answers.clear();
        vec![packet.build_bytes_vec().unwrap()]
    }

    /// A packet as TCP carries it.
    pub fn with_length(client: &mut TcpStream, answer: &[u8]) {
        let length = (answer.len() as u16).to_be_bytes();
        let _ = client.write_all(&[&length, answer].concat());
    }

    fn with_code(answer: &[u8], code: u8) -> Vec<Vec<u8>> {
        let mut packet = Packet::parse(answer).unwrap();
        packet.answers.clear();
        *packet.rcode_mut() = u16::from(code).into();
        vec![packet.build_bytes_vec().unwrap()]
    }
}

fn record(line: &[String]) -> ResourceRecord<'static> {
    let data = match line[1].as_str() {
        "A" => RData::A(A { address: line[2].parse::<Ipv4Addr>().unwrap().to_bits() }),
        "AAAA" => RData::AAAA(AAAA { address: line[2].parse::<Ipv6Addr>().unwrap().to_bits() }),
        "CNAME" => RData::CNAME(CNAME(name(&line[2]))),
        "MX" => RData::MX(MX { preference: line[2].parse().unwrap(), exchange: name(&line[3]) }),
        "PTR" => RData::PTR(PTR(name(&line[2]))),
        "TXT" => {
            let strings = line[2..].iter().fold(TXT::new(), |mut txt, word| {
                txt.add_string(word).unwrap();
                txt
            });
            RData::TXT(strings.into_owned())
        }
        kind => panic!("no records of type {kind}"),
    };
    ResourceRecord::new(name(&line[0]), CLASS::IN, 60, data)
}

/// A name as DNS has it; a dot at the end may be there or not.
pub fn name(text: &str) -> Name<'static> {
    Name::new(text.strip_suffix('.').unwrap_or(text)).unwrap().into_owned()
}

/// The port of a TCP listener is usually free for UDP as well.
fn same_port() -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port that is free for both");
}
