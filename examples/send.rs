//! Sends one letter: `cargo run --example send -- --from ann@client.example --to bob@localhost`.
//!
//! The text comes from standard input, up to its end. Recipients of `--to`,
//! `--cc` and `--bcc` all get the letter, because all are in the envelope; only
//! the first two kinds are named in the header, which is all there is to a Bcc.
//! Refused recipients are told on standard error, and the others still get the
//! letter. Exit code 0 if everybody got it, 1 if not, 2 for a wrong flag.
//!
//! With `--starttls` or `--tls` the letter travels encrypted, to a server whose
//! certificate is valid for HOST, and only then `--login` is used: a password is
//! never sent in clear.
//!
//! Book: docs/01-a-letter-by-hand.md.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;

use argh::FromArgs;
use ehlo::smtp::address::Mailbox;
use ehlo::smtp::login::Login;
use ehlo::smtp::reply::{Kind, Reply, ReplyParser};
use ehlo::smtp::sasl::{self, Mechanism};
use ehlo::wire::body::Stuffer;
use jiff::Zoned;
use jiff::fmt::rfc2822;
use native_tls::{Certificate, TlsConnector};
use ring::rand::{SecureRandom, SystemRandom};

/// How long to wait for one reply. RFC 5321 section 4.5.3.2 gives the final dot ten minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Send one letter, with the text from standard input.
#[derive(FromArgs)]
struct Flags {
    /// the server (default 127.0.0.1:2525)
    #[argh(option, arg_name = "HOST:PORT", default = "String::from(\"127.0.0.1:2525\")")]
    server: String,

    /// encrypt with STARTTLS, or send nothing
    #[argh(switch)]
    starttls: bool,

    /// encrypt from the first octet
    #[argh(switch)]
    tls: bool,

    /// trust this certificate, too
    #[argh(option, arg_name = "PEM")]
    ca: Option<PathBuf>,

    /// log in with what stands in this file, user:password
    #[argh(option, arg_name = "FILE")]
    login: Option<PathBuf>,

    /// your address
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    from: Mailbox,

    /// a recipient; repeatable
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    to: Vec<Mailbox>,

    /// a recipient of a copy; repeatable
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    cc: Vec<Mailbox>,

    /// a recipient that the others do not see; repeatable
    #[argh(option, arg_name = "ADDRESS", from_str_fn(address))]
    bcc: Vec<Mailbox>,

    /// what the letter is about
    #[argh(option, arg_name = "TEXT", default = "String::new()")]
    subject: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let flags = match Flags::from_args(&["send"], &args) {
        Ok(flags) => flags,
        Err(exit) => {
            eprint!("{}", exit.output);
            return ExitCode::from(if exit.status.is_ok() { 0 } else { 2 });
        }
    };
    match send(&flags) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(why) => {
            eprintln!("send: {why}");
            ExitCode::from(1)
        }
    }
}

/// Sends the letter, and gives how many recipients were refused.
fn send(flags: &Flags) -> Result<usize, String> {
    let recipients: Vec<&Mailbox> = flags.to.iter().chain(&flags.cc).chain(&flags.bcc).collect();
    if recipients.is_empty() {
        return Err("nobody to send to: give --to, --cc or --bcc".to_owned());
    }
    let mut body = Vec::new();
    io::stdin().read_to_end(&mut body).map_err(|error| format!("standard input: {error}"))?;
    let letter = letter(flags, &body);

    if flags.login.is_some() && !flags.tls && !flags.starttls {
        return Err("--login needs --starttls or --tls: no password in clear".to_owned());
    }
    let mut server = Server::connect(flags)?;
    let mut hello = server.ask("EHLO localhost")?;
    if flags.starttls && !flags.tls {
        server.ask("STARTTLS")?;
        server = server.encrypted(flags)?;
        // What was offered in clear may have been somebody else's offer.
        hello = server.ask("EHLO localhost")?;
    }
    if let Some(file) = &flags.login {
        log_in(&mut server, &hello, file)?;
    }
    let parameters = parameters(&hello, flags, &recipients, &letter)?;
    server.ask(&format!("MAIL FROM:<{}>{parameters}", flags.from))?;

    let mut refused = 0;
    for to in &recipients {
        if let Err(why) = server.ask(&format!("RCPT TO:<{to}>")) {
            eprintln!("send: {to}: {why}");
            refused += 1;
        }
    }
    if refused < recipients.len() {
        server.ask("DATA")?;
        let mut wire = Vec::new();
        let mut stuffer = Stuffer::default();
        stuffer.push(&letter, &mut wire);
        stuffer.finish(&mut wire);
        println!("{}", server.send(&wire)?);
    }
    server.ask("QUIT")?;
    Ok(refused)
}

/// The letter as a file: lines end with LF. There is no Bcc in it.
fn letter(flags: &Flags, body: &[u8]) -> Vec<u8> {
    let now = Zoned::now();
    let date = rfc2822::to_string(&now).unwrap_or_default();
    let id =
        format!("{}.{}@{}", now.timestamp().as_microsecond(), process::id(), flags.from.domain);
    let mut header = format!("From: <{}>\n", flags.from);
    for (name, addresses) in [("To", &flags.to), ("Cc", &flags.cc)] {
        let addresses: Vec<String> = addresses.iter().map(|to| format!("<{to}>")).collect();
        if !addresses.is_empty() {
            header += &format!("{name}: {}\n", addresses.join(",\n "));
        }
    }
    header += &format!("Subject:{}\n", encoded(&flags.subject));
    header += &format!("Date: {date}\nMessage-ID: <{id}>\nMIME-Version: 1.0\n");
    header += "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n";

    // CR LF from a Windows editor is a line end too; a CR alone cannot be sent.
    let body: Vec<u8> = body.iter().copied().filter(|octet| *octet != b'\r').collect();
    [header.as_bytes(), &body].concat()
}

/// A field body in encoded words (RFC 2047), so that text outside ASCII, and a
/// line end that would begin a field of its own, are only text. Every octet is
/// written `=NN` where one is needed: 20 of them keep a word below its 75.
fn encoded(text: &str) -> String {
    if text.bytes().all(|octet| (b' '..=b'~').contains(&octet)) {
        return format!(" {text}");
    }
    let mut words = String::new();
    let mut length = 0;
    for c in text.chars() {
        if length == 0 || length + c.len_utf8() > 20 {
            words += if length == 0 { " =?utf-8?Q?" } else { "?=\n =?utf-8?Q?" };
            length = 0;
        }
        for octet in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a String cannot fail.
            let _ = write!(words, "={octet:02X}");
        }
        length += c.len_utf8();
    }
    words + "?="
}

/// What MAIL has to say about this letter, in the extensions the server offers.
fn parameters(
    hello: &Reply,
    flags: &Flags,
    recipients: &[&Mailbox],
    letter: &[u8],
) -> Result<String, String> {
    let offers = |keyword: &str| {
        let keywords = hello.lines().iter().skip(1).filter_map(|line| line.split(' ').next());
        keywords.into_iter().any(|offered| offered.eq_ignore_ascii_case(keyword))
    };
    let mut parameters = String::new();
    if offers("SIZE") {
        // On the wire each line end is two octets.
        let line_ends = letter.iter().filter(|octet| **octet == b'\n').count();
        parameters += &format!(" SIZE={}", letter.len() + line_ends);
    }
    if !letter.is_ascii() {
        if !offers("8BITMIME") {
            return Err("the letter is not ASCII, and the server has no 8BITMIME".to_owned());
        }
        parameters += " BODY=8BITMIME";
    }
    let mut addresses = recipients.iter().copied().chain([&flags.from]);
    if addresses.any(|address| !address.to_string().is_ascii()) {
        if !offers("SMTPUTF8") {
            return Err("an address is not ASCII, and the server has no SMTPUTF8".to_owned());
        }
        parameters += " SMTPUTF8";
    }
    Ok(parameters)
}

/// Logs in with the best mechanism that the server offers and we know.
fn log_in(server: &mut Server, hello: &Reply, file: &Path) -> Result<(), String> {
    let wrong = |why: String| format!("{}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let (user, password) = text
        .trim_end_matches(['\r', '\n'])
        .split_once(':')
        .ok_or_else(|| wrong("expected user:password".to_owned()))?;

    let offered = hello.lines().iter().find_map(|line| line.strip_prefix("AUTH "));
    let offered: Vec<&str> = offered.unwrap_or_default().split(' ').collect();
    let mechanism = Mechanism::ALL.into_iter().find(|one| offered.contains(&one.name()));
    let mechanism = mechanism.ok_or("the server offers no login that we know")?;

    let mut nonce = [0; 18];
    SystemRandom::new().fill(&mut nonce).map_err(|_| "no random octets".to_owned())?;
    let (mut login, initial) = Login::begin(mechanism, user, password, &sasl::nonce(nonce));
    let initial = initial.map(|text| format!(" {text}")).unwrap_or_default();
    let mut reply = server.ask(&format!("AUTH {}{initial}", mechanism.name()))?;
    while reply.kind() == Kind::GoOn {
        let challenge = reply.lines().first().map(String::as_str).unwrap_or_default();
        let response = login.answer(challenge);
        reply = server.ask(&response.map_err(|_| "the server's challenge is wrong".to_owned())?)?;
    }
    if !login.is_done() {
        return Err("the server did not prove that it knows the password".to_owned());
    }
    Ok(())
}

/// Octets in and out, in clear or encrypted.
trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// The server at the other end.
struct Server {
    tcp: TcpStream,
    lines: BufReader<Box<dyn Connection>>,
}

impl Server {
    /// Connects, perhaps encrypted, and waits for the greeting.
    fn connect(flags: &Flags) -> Result<Server, String> {
        let address = &flags.server;
        let tcp = TcpStream::connect(address).map_err(|error| {
            format!("nobody answers at {address} ({error}); is the server running?")
        })?;
        tcp.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        let clone = tcp.try_clone().map_err(|error| error.to_string())?;
        let mut server = Server { tcp, lines: BufReader::new(Box::new(clone)) };
        if flags.tls {
            server = server.encrypted(flags)?;
        }
        server.reply()?;
        Ok(server)
    }

    /// The same server, behind a handshake in which it proved its name.
    fn encrypted(self, flags: &Flags) -> Result<Server, String> {
        if !self.lines.buffer().is_empty() {
            return Err("the server said more in clear than it should".to_owned());
        }
        let mut builder = TlsConnector::builder();
        if let Some(file) = &flags.ca {
            let wrong = |why: String| format!("{}: {why}", file.display());
            let pem = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            let start = pem.find("-----BEGIN").unwrap_or_default();
            let pem = pem.get(start..).unwrap_or_default();
            let ca =
                Certificate::from_pem(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
            builder.add_root_certificate(ca);
        }
        let host = flags.server.rsplit_once(':').map_or(flags.server.as_str(), |(host, _)| host);
        let clone = self.tcp.try_clone().map_err(|error| error.to_string())?;
        let connector = builder.build().map_err(|error| error.to_string())?;
        let tls = connector.connect(host, clone).map_err(|error| format!("no TLS: {error}"))?;
        Ok(Server { tcp: self.tcp, lines: BufReader::new(Box::new(tls)) })
    }

    /// One command, and its reply; a refusal is the error.
    fn ask(&mut self, command: &str) -> Result<Reply, String> {
        self.send(format!("{command}\r\n").as_bytes())
    }

    fn send(&mut self, octets: &[u8]) -> Result<Reply, String> {
        self.lines.get_mut().write_all(octets).map_err(|error| error.to_string())?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply, String> {
        let mut parser = ReplyParser::default();
        loop {
            let mut line = Vec::new();
            self.lines.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
            if !line.ends_with(b"\n") {
                return Err("the server closed the connection".to_owned());
            }
            let parsed = parser.line(line.trim_ascii_end()).map_err(|error| error.to_string())?;
            match parsed {
                Some(reply) if matches!(reply.kind(), Kind::Done | Kind::GoOn) => return Ok(reply),
                Some(refusal) => return Err(refusal.to_string()),
                None => {}
            }
        }
    }
}

fn address(text: &str) -> Result<Mailbox, String> {
    match Mailbox::parse(text) {
        Ok((mailbox, "")) => Ok(mailbox),
        Ok(_) => Err(format!("{text}: text after the address")),
        Err(why) => Err(format!("{text}: {why}")),
    }
}
