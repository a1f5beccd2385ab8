//! Sends many messages at once and measures: `cargo run --release --example load -- --sessions 50`.
//!
//! In: how many sessions and messages, how large, in which way. Out: the rate,
//! the latencies, a drawing of them if wanted, and a look into the Maildir: each
//! message that got its 250 has to be there, once and whole. Without `--server`
//! it starts a server in this process, on a free port, with a temporary spool.
//! Exit code 0 if all is well, 1 if not, 2 for a wrong flag.
//!
//! Each session is a thread. It is no mail program: it never sends a message a
//! second time. How one is sent is in `load/connection.rs`, what is sent and how
//! it is found again in `load/letters.rs`, what is made of the latencies in
//! `load/latency.rs`.
//!
//! Book: docs/17-how-fast-how-many.md.

#[path = "load/connection.rs"]
mod connection;
#[path = "flags/mod.rs"]
mod flags;
#[path = "load/latency.rs"]
mod latency;
#[path = "load/letters.rs"]
mod letters;

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use argh::FromArgs;
use ehlo::server::{Config, Handle, Server};
use ehlo::smtp::address::{ForwardPath, Mailbox};
use ehlo::smtp::site::{Destination, Site};
use ehlo::store::folder::folder;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use connection::{Connection, Envelope};
use letters::Letters;

/// Send many messages at once, and measure.
#[derive(FromArgs)]
struct Flags {
    /// the server (default: one of our own, in this process)
    #[argh(option, arg_name = "HOST:PORT")]
    server: Option<String>,

    /// how many sessions at a time (default 10)
    #[argh(option, arg_name = "N", default = "10", from_str_fn(positive))]
    sessions: usize,

    /// how many messages, over all sessions (default 1000)
    #[argh(option, arg_name = "N", default = "1000", from_str_fn(positive))]
    messages: usize,

    /// the size of each message, header and line ends included (default 1024)
    #[argh(option, arg_name = "OCTETS", default = "1024", from_str_fn(positive))]
    size: usize,

    /// a new connection for each message
    #[argh(switch)]
    reconnect: bool,

    /// MAIL, RCPT and DATA in one write (RFC 2920)
    #[argh(switch)]
    pipelined: bool,

    /// the recipient (default load@localhost)
    #[argh(
        option,
        arg_name = "ADDRESS",
        default = "String::from(\"load@localhost\")",
        from_str_fn(address)
    )]
    to: String,

    /// look for the messages in this Maildir (default: the one of our own server)
    #[argh(option, arg_name = "DIR")]
    maildir: Option<PathBuf>,

    /// draw the latencies
    #[argh(option, arg_name = "FILE")]
    svg: Option<PathBuf>,
}

fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a number of 1 or more".to_owned())
}

fn address(text: &str) -> Result<String, String> {
    match Mailbox::parse(text) {
        Ok((_, "")) => Ok(text.to_owned()),
        Ok(_) => Err(format!("{text}: text after the address")),
        Err(why) => Err(format!("{text}: {why}")),
    }
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("load", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let letters = match Letters::new(&flags.to, flags.size) {
        Ok(letters) => letters,
        Err(least) => {
            eprintln!("load: --size: a message to {} has {least} octets or more", flags.to);
            return ExitCode::from(2);
        }
    };
    match run(&flags, &letters) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("load: {why}");
            ExitCode::from(1)
        }
    }
}

/// The whole run, and whether all went well. A server that failed half-way is
/// still held to every 250 it gave.
fn run(flags: &Flags, letters: &Letters) -> Result<bool, Box<dyn Error>> {
    let own = if flags.server.is_none() { Some(OwnServer::start(flags)?) } else { None };
    let server = match (&flags.server, &own) {
        (Some(name), _) => {
            name.to_socket_addrs().map_err(|why| format!("{name}: {why}"))?.collect()
        }
        (None, own) => own.iter().map(|own| own.address).collect(),
    };
    let maildir = flags.maildir.as_ref().or(own.as_ref().map(|own| &own.maildir));
    let before = maildir.map_or(Ok(Vec::new()), |maildir| letters::files(maildir))?;

    let start = Instant::now();
    let (sent, outcome) = load(flags, server, letters);
    report(flags, &sent, start.elapsed())?;
    let all_found = match maildir {
        Some(maildir) => look_for(&sent, maildir, &before, letters)?,
        None => {
            println!("not looked for: --maildir says where");
            true
        }
    };
    outcome?;
    Ok(all_found)
}

/// A server in this process, ended when dropped, and its mail with it.
struct OwnServer {
    address: SocketAddr,
    maildir: PathBuf,
    handle: Handle,
    running: Option<JoinHandle<()>>,
    /// Goes last, when the server is done with it.
    _spool: TempDir,
}

impl OwnServer {
    /// Without caps, because it is here to be loaded, and without a log.
    fn start(flags: &Flags) -> Result<OwnServer, Box<dyn Error>> {
        let spool = tempfile::tempdir()?;
        let config = Config {
            smtp: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            spool: spool.path().to_owned(),
            max_size: u64::MAX,
            max_connections: usize::MAX,
            max_per_client: 0,
            ..Config::default()
        };
        let (to, _) = Mailbox::parse(&flags.to).map_err(|why| format!("{}: {why}", flags.to))?;
        let site = Site::new(&config.hostname, &config.hostname, &[], None);
        let to = ForwardPath::Mailbox(to);
        let resolved = site.resolve(&to, Ipv4Addr::LOCALHOST.into(), false);
        let resolved = resolved.map_err(|refusal| format!("{}: {refusal}", flags.to))?;
        let mailbox = resolved.destinations.iter().find_map(Destination::mailbox);
        let mailbox = mailbox.ok_or("a recipient without a mailbox")?;
        let server = Server::bind(config)?;
        Ok(OwnServer {
            address: server.addresses().first().ok_or("a server without an address")?.1,
            maildir: spool.path().join("mail").join(folder(mailbox)),
            handle: server.handle(),
            running: Some(thread::spawn(move || server.run())),
            _spool: spool,
        })
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.handle.shutdown();
        // A server that panicked has said so itself.
        let _ = self.running.take().map(JoinHandle::join);
    }
}

/// One message that got its 250.
struct Sent {
    number: usize,
    /// From the first octet of MAIL to the last one of the 250.
    latency: Duration,
}

/// What all sessions of a run share.
struct Job<'a> {
    flags: &'a Flags,
    /// All addresses of the server, in the order in which they are tried.
    server: Vec<SocketAddr>,
    letters: &'a Letters,
    envelope: Envelope,
    /// The number of the next message; behind the last one the sessions end.
    next: AtomicUsize,
    bar: ProgressBar,
}

/// Sends all messages, or stops at the first fault. Gives those that were taken
/// in either case.
fn load(
    flags: &Flags,
    server: Vec<SocketAddr>,
    letters: &Letters,
) -> (Vec<Sent>, Result<(), String>) {
    // It draws on standard error, and only if that is a terminal.
    let bar = ProgressBar::new(flags.messages as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len}, {per_sec}") {
        bar.set_style(style);
    }
    let envelope = Envelope::to(&flags.to);
    let job = Job { flags, server, letters, envelope, next: AtomicUsize::new(0), bar };
    let mut sent = Vec::new();
    let mut outcome = Ok(());
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..flags.sessions)
            .map(|_| {
                scope.spawn(|| {
                    let mut sent = Vec::new();
                    let end = session(&job, &mut sent);
                    // After a fault there is no next message, for nobody.
                    let stop = |_: &String| job.next.store(flags.messages, Ordering::Relaxed);
                    (sent, end.inspect_err(stop))
                })
            })
            .collect();
        for session in sessions {
            let bug = |_| (Vec::new(), Err("a bug of ours ended a session".to_owned()));
            let (of_session, end) = session.join().unwrap_or_else(bug);
            sent.extend(of_session);
            // The first fault is told; most others follow from it.
            outcome = outcome.clone().and(end);
        }
    });
    job.bar.finish_and_clear();
    (sent, outcome)
}

/// One session: takes numbers and sends messages until there are no more.
fn session(job: &Job, sent: &mut Vec<Sent>) -> Result<(), String> {
    let mut letter = String::new();
    let mut open = None;
    loop {
        let number = job.next.fetch_add(1, Ordering::Relaxed);
        if number >= job.flags.messages {
            return open.map_or(Ok(()), Connection::quit);
        }
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => Connection::open(&job.server, job.flags.pipelined)?,
        };
        job.letters.write(number, &mut letter);
        let start = Instant::now();
        connection.deliver(&job.envelope, &letter)?;
        sent.push(Sent { number, latency: start.elapsed() });
        job.bar.inc(1);
        match job.flags.reconnect {
            true => connection.quit()?,
            false => open = Some(connection),
        }
    }
}

/// Prints the rate and the latencies, and draws them if wanted.
fn report(flags: &Flags, sent: &[Sent], elapsed: Duration) -> Result<(), Box<dyn Error>> {
    let way = if flags.reconnect { "a connection for each" } else { "persistent" };
    let way = if flags.pipelined { format!("{way}, pipelined") } else { way.to_owned() };
    let title = format!(
        "{} messages of {} octets, sessions: {}, {way}",
        sent.len(),
        flags.size,
        flags.sessions
    );
    println!("{title}");
    let rate = sent.len() as f64 / elapsed.as_secs_f64();
    println!("{rate:.0} messages/s, {:.2} MB/s", rate * flags.size as f64 / 1e6);

    let mut sorted: Vec<f64> = sent.iter().map(|sent| sent.latency.as_secs_f64() * 1e3).collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return Ok(());
    }
    println!("latency in ms: {}", latency::summary(&sorted));
    flags.svg.as_ref().map_or(Ok(()), |file| latency::draw(file, &title, &sorted))
}

/// Prints how many of the messages are in the Maildir, and gives whether all are.
fn look_for(
    sent: &[Sent],
    maildir: &Path,
    before: &[PathBuf],
    letters: &Letters,
) -> io::Result<bool> {
    let found = letters::count(letters, maildir, before)?;
    let times = |sent: &&Sent| found.whole.get(&sent.number).copied().unwrap_or(0);
    let missing = sent.iter().filter(|sent| times(sent) == 0).count();
    let twice = sent.iter().filter(|sent| times(sent) > 1).count();
    let place = maildir.display();
    println!("found {} of {} messages in {place}", sent.len() - missing, sent.len());
    let is_good = missing + twice + found.broken == 0;
    if !is_good {
        let broken = found.broken;
        eprintln!("load: {missing} MISSING, {broken} NOT WHOLE, {twice} more than once in {place}");
    }
    Ok(is_good)
}
