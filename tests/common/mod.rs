//! What the tests over real sockets share: a server of one's own, and clients.

#![allow(dead_code, reason = "each test file uses its own part of this one")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

pub mod child;
pub mod dns;
pub mod hop;
pub mod markdown;
pub mod mta;
pub mod report;
pub mod world;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ehlo::config::{self, Request};
use ehlo::server::{Config, Handle, Server};
use native_tls::{TlsConnector, TlsStream};
use tempfile::TempDir;

/// Where nobody listens. A port that was free a moment ago may be somebody else's by now, and
/// one that was closed is open until each process has let go of it that was just being made.
pub const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

/// How many hundredths of a second of processor time a program uses in one second in which
/// there is no descriptor for a client. It has two more than it uses now: one for each of
/// two clients, or both for the first one.
pub fn ticks_without_descriptors(child: &Child, address: SocketAddr) -> u64 {
    let process = format!("/proc/{}", child.id());
    let is_free = |fd: &u64| fs::symlink_metadata(format!("{process}/fd/{fd}")).is_err();
    let nofile = (0..).filter(is_free).nth(2).unwrap();
    let mut limit = Command::new("prlimit");
    limit.args([format!("--nofile={nofile}"), format!("--pid={}", child.id())]);
    assert!(limit.status().unwrap().success());
    let _clients = [(); 2].map(|()| {
        let client = TcpStream::connect(address).unwrap();
        thread::sleep(Duration::from_millis(300));
        client
    });
    let ticks = || {
        let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
        // Behind the name, which may have blanks: user and system time are fields 14 and 15.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = ticks();
    thread::sleep(Duration::from_secs(1));
    ticks() - before
}

/// A server on a free port, with a spool of its own, ended when dropped.
pub struct TestServer {
    pub address: SocketAddr,
    pub handle: Handle,
    spool: TempDir,
    /// Users and aliases, for a server that reads them again.
    files: Option<TempDir>,
    running: Option<JoinHandle<()>>,
}

impl TestServer {
    /// With the flags given, as on the command line.
    pub fn start(flags: &[&str]) -> TestServer {
        TestServer::with_needs(&[flags.join(" ")])
    }

    /// With what the `needs:` lines of a dialogue say.
    pub fn with_needs(needs: &[String]) -> TestServer {
        let (mut flags, mut role) = (Vec::new(), "smtp");
        let (mut users, mut aliases) = (String::new(), String::new());
        let (mut has_tls, mut has_tokens) = (false, false);
        for need in needs {
            let (what, rest) = need.split_once(' ').unwrap_or((need, ""));
            match what {
                "mailboxes" => {
                    flags.extend(rest.split_whitespace().flat_map(|name| ["--mailbox", name]));
                }
                "users" => {
                    users += &(rest.split_whitespace().collect::<Vec<_>>().join("\n") + "\n")
                }
                "aliases" => aliases += &format!("{rest}\n"),
                "tls" => has_tls = true,
                "tokens" => has_tokens = true,
                "role" => role = rest,
                // ehlo announces all that dialogues ask for; tests/dialogues.rs holds it to that.
                "extension" => {}
                _ => flags.extend(need.split_whitespace()),
            }
        }
        let Ok(Request::Serve(mut config)) = config::from_args(&flags) else {
            panic!("no flags for a server: {flags:?}");
        };
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        if !users.is_empty() {
            config.users = file("users", &users);
        }
        if !aliases.is_empty() {
            config.aliases = file("aliases", &aliases);
        }
        if has_tls {
            (config.cert, config.key) = (Some(test_file("cert.pem")), Some(test_file("key.pem")));
        }
        if has_tokens {
            config.oauth_keys = Some(oauth_file("keys.json"));
            config.oauth_issuer = Some(ISSUER.to_owned());
            config.oauth_audience = Some(AUDIENCE.to_owned());
        }
        let mut server = TestServer::in_role(*config, role);
        server.files = Some(folder);
        server
    }

    /// With this configuration, but on a free port and in a spool of its own.
    pub fn from_config(config: Config) -> TestServer {
        TestServer::in_role(config, "smtp")
    }

    /// The same, with its only listener in this role.
    fn in_role(mut config: Config, role: &str) -> TestServer {
        let spool = tempfile::tempdir().unwrap();
        config.smtp.clear();
        let listener = match role {
            "smtp" => &mut config.smtp,
            "submission" => &mut config.submission,
            "submissions" => &mut config.submissions,
            _ => panic!("no such role: {role}"),
        };
        listener.push("127.0.0.1:0".parse().unwrap());
        config.spool = spool.path().to_owned();
        let server = Server::bind(config).unwrap();
        let address = server.addresses()[0].1;
        let handle = server.handle();
        let running = Some(thread::spawn(move || server.run()));
        TestServer { address, handle, spool, files: None, running }
    }

    /// Where users and aliases are.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.as_ref().unwrap().path().join(name)
    }

    pub fn spool(&self) -> &Path {
        self.spool.path()
    }

    /// The files in the `new` folder of a mailbox at localhost, in order of arrival.
    pub fn new_files(&self, mailbox: &str) -> Vec<PathBuf> {
        files(&self.spool().join("mail/localhost").join(mailbox).join("new"))
    }

    /// The only message of a mailbox at localhost, without our two trace fields.
    pub fn only_message(&self, mailbox: &str) -> Vec<u8> {
        let files = self.new_files(mailbox);
        assert_eq!(files.len(), 1, "{files:?}");
        without_trace_fields(&fs::read(&files[0]).unwrap())
    }

    /// Messages that are being received.
    pub fn drafts(&self) -> Vec<PathBuf> {
        files(&self.spool().join("tmp"))
    }

    /// Begins the shutdown and waits for its end.
    pub fn stop(&mut self) {
        self.handle.shutdown();
        if let Some(running) = self.running.take() {
            running.join().unwrap();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

/// Runs a program to its end, with this input, which it need not read.
pub fn run_with_input(program: &mut Command, input: &str) -> Output {
    let piped = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Where cargo puts examples: beside the folder of the running test.
pub fn examples() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples")
}

/// A certificate or key for tests: nobody trusts them, and everybody has the key.
pub fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Who signs the tokens of `needs: tokens`, and for whom.
pub const ISSUER: &str = "https://login.example";
pub const AUDIENCE: &str = "mail.example";

/// The key that these are signed with, and the set that they are checked with.
pub fn oauth_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oauth").join(name)
}

/// All files in a folder, sorted by name; none if there is no such folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A stored message as the client sent it: less `Return-Path`, `Received` and
/// the folded lines of the latter.
pub fn without_trace_fields(file: &[u8]) -> Vec<u8> {
    let mut lines = file.split_inclusive(|octet| *octet == b'\n').peekable();
    assert!(lines.next().unwrap().starts_with(b"Return-Path: <"));
    assert!(lines.next().unwrap().starts_with(b"Received: from "));
    while lines.next_if(|line| line.starts_with(b"\t")).is_some() {}
    lines.collect::<Vec<_>>().concat()
}

/// A client for what no script can say: raw octets, and time.
pub struct Client<S: Read + Write = TcpStream> {
    lines: BufReader<S>,
}

impl Client {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> Client {
        let mut client = Client::silent(address);
        assert_eq!(&client.reply()[..4], "220 ");
        client
    }

    /// Connects and reads nothing.
    pub fn silent(address: SocketAddr) -> Client {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        tcp.set_nodelay(true).unwrap();
        Client { lines: BufReader::new(tcp) }
    }

    /// Connects and goes as far as the 354 for a message to `to`.
    pub fn in_data(address: SocketAddr, to: &str) -> Client {
        let mut client = Client::connect(address);
        for line in ["EHLO c.example", "MAIL FROM:<a@b.example>", &format!("RCPT TO:<{to}>")] {
            assert_eq!(&client.ask(line)[..3], "250", "{line}");
        }
        assert_eq!(&client.ask("DATA")[..3], "354");
        client
    }

    pub fn tcp(&self) -> &TcpStream {
        self.lines.get_ref()
    }

    /// Connects, asks for TLS, and says EHLO under it.
    pub fn encrypted(address: SocketAddr) -> Client<TlsStream<TcpStream>> {
        let mut client = Client::connect(address);
        assert_eq!(&client.ask("EHLO c.example")[..3], "250");
        assert_eq!(&client.ask("STARTTLS")[..3], "220");
        let mut client = client.handshake();
        assert_eq!(&client.ask("EHLO c.example")[..3], "250");
        client
    }

    /// Does the TLS handshake. Any certificate will do.
    pub fn handshake(self) -> Client<TlsStream<TcpStream>> {
        Client::over(connector().connect("localhost", self.lines.into_inner()).unwrap())
    }
}

/// A client's half of TLS, which trusts everybody.
pub fn connector() -> TlsConnector {
    TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .build()
        .unwrap()
}

impl<S: Read + Write> Client<S> {
    /// Over a connection that is there already.
    pub fn over(stream: S) -> Client<S> {
        Client { lines: BufReader::new(stream) }
    }

    pub fn stream(&mut self) -> &mut S {
        self.lines.get_mut()
    }

    pub fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.lines.get_mut().write_all(octets.as_ref()).unwrap();
    }

    /// The last line of the next reply, without CR LF; empty at the end of the
    /// connection.
    pub fn reply(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return String::new();
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Several commands, each to be granted.
    pub fn all_granted(&mut self, lines: &[&str]) {
        for line in lines {
            let reply = self.ask(line);
            assert!(reply.starts_with(['2', '3']), "{line}: {reply}");
        }
    }

    /// One command and the last line of its reply.
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// Sends a message, dots and all, and gives the reply to its end.
    pub fn message(&mut self, octets: impl AsRef<[u8]>) -> String {
        self.send(octets);
        self.send(b".\r\n");
        self.reply()
    }
}
