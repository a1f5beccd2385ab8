//! What can go wrong around the server: a disk, a table of descriptors, a supply
//! of threads that are used up; crowds; a log that nobody takes.
//!
//! Each fault that the book's chapter 18 lists is held by a test:
//!
//! | fault | tests |
//! | --- | --- |
//! | unknown flag, bad value | `a_bad_flag_is_exit_2_and_one_line` in program.rs; `config.rs` |
//! | port in use | `a_port_in_use_is_exit_71_and_leaves_no_spool` in program.rs |
//! | spool is a file | `a_spool_that_is_no_folder_is_exit_78` in program.rs |
//! | spool not writable, no space for it | `a_spool_that_cannot_be_written_…`, `a_disk_without_room_…` here |
//! | too many clients | limits.rs; `clients.rs` |
//! | no descriptor | `without_descriptors_…` here |
//! | no thread | `without_threads_…` here |
//! | silent or slow client | deadlines.rs; two dialogues, `silence_…`; a crowd of them: `a_crowd_…` here |
//! | disk full | `a_full_disk_…`, `a_disk_without_…` here; `spool.rs` |
//! | disk read-only, folder gone | `a_disk_that_turns_read_only_…`, `a_spool_that_is_gone_…` here; storage.rs; `spool.rs` |
//! | garbage | `garbage_is_…` here; fuzz.rs |
//! | TLS, HTTP | `tls_and_http_on_the_plain_port_are_named_in_the_log` in program.rs; five dialogues |
//! | kill -9 | crash.rs; leftovers: `spool.rs` |
//! | a bug in one session | `a_panic_gives_the_place_back` in `clients.rs` |
//! | endless input | memory.rs |
//! | the log cannot be written | `a_log_…` here |
//!
//! Several need what only Linux has, or only root: they say why when they skip
//! themselves. `EHLO_FULL=1` makes the crowd 1,000 silent and 200 slow clients.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::child::{ChildServer, EHLO, output};
use common::{Client, TestServer, files, without_trace_fields};
use tempfile::TempDir;

// ---- a disk of one's own ----

/// A server whose spool is a small file system of its own.
struct OnSmallDisk {
    server: ChildServer,
    /// The spool, as this test sees it.
    spool: PathBuf,
    /// The folder it is mounted on, as the server sees it.
    mounted: TempDir,
}

/// How to get a mount that nobody else sees, and that is gone with the process:
/// as root, or as root of a user namespace.
const UNSHARE: [&[&str]; 2] =
    [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];

/// `unshare … sh -c 'mount a small disk, then run the rest' ehlo`.
fn on_small_disk(options: &str, mounted: &Path) -> Result<Vec<String>, String> {
    let mount = format!("mount -t tmpfs -o {options} none '{}'", mounted.display());
    let mut why = String::new();
    for unshare in UNSHARE {
        let tried =
            Command::new(unshare[0]).args(&unshare[1..]).args(["sh", "-c", &mount]).output();
        match tried {
            Ok(output) if output.status.success() => {
                let script = format!("{mount}; exec \"$0\" \"$@\"");
                let words = [unshare, &["sh", "-c", &script, EHLO]].concat();
                return Ok(words.into_iter().map(str::to_owned).collect());
            }
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
            Err(error) => why = format!("unshare: {error}"),
        }
    }
    Err(format!("no small file system can be mounted here ({why})"))
}

impl OnSmallDisk {
    /// `None`, and a printed reason, where this cannot be had.
    fn start(options: &str) -> Option<OnSmallDisk> {
        let mounted = tempfile::tempdir().unwrap();
        let program = on_small_disk(options, mounted.path())
            .inspect_err(|why| println!("skipped: {why}"))
            .ok()?;
        let server = ChildServer::start(&program, mounted.path(), &[]).unwrap();
        let spool = server.view(mounted.path());
        Some(OnSmallDisk { server, spool, mounted })
    }

    /// `mount -o remount,…`, in the world of the server.
    fn remount(&self, options: &str) {
        let pid = self.server.pid().to_string();
        let is_user = fs::read_link("/proc/self/ns/user").unwrap()
            != fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &pid, "--mount"]);
        if is_user {
            nsenter.args(["--user", "--preserve-credentials"]);
        }
        let remount = format!("remount,{options}");
        // With a source named, `mount` adds no options of its own.
        nsenter.args(["mount", "-o", &remount, "none"]).arg(self.mounted.path());
        let status = nsenter.status();
        assert!(status.unwrap().success());
    }

    fn new_files(&self, mailbox: &str) -> Vec<PathBuf> {
        files(&self.spool.join("mail/localhost").join(mailbox).join("new"))
    }

    fn drafts(&self) -> Vec<PathBuf> {
        files(&self.spool.join("tmp"))
    }
}

/// As far as the 354, in a session that has said EHLO.
fn begin_message(client: &mut Client, to: &str) {
    assert_eq!(&client.ask("MAIL FROM:<a@b.example>")[..9], "250 2.1.0");
    assert_eq!(&client.ask(&format!("RCPT TO:<{to}>"))[..9], "250 2.1.5");
    assert_eq!(&client.ask("DATA")[..3], "354");
}

#[test]
fn a_full_disk_is_452_with_nothing_partial_and_over_when_there_is_room() {
    let Some(disk) = OnSmallDisk::start("size=2m") else { return };
    let address = disk.server.address;

    // More than fits, and the client does not say how much it will be.
    let mut client = Client::in_data(address, "bob@localhost");
    let line = format!("{}\r\n", "x".repeat(998));
    assert_eq!(&client.message(line.repeat(3000))[..9], "452 4.3.1");
    assert!(disk.drafts().is_empty());
    // One that says so is told before it sends anything.
    assert_eq!(&client.ask("MAIL FROM:<> SIZE=3000000")[..9], "452 4.3.1");

    // The disk fills with letters, in the same session: 100 KB each.
    let letter = line.repeat(100);
    let mut stored = 0;
    let refusal = loop {
        let reply = client.ask("MAIL FROM:<a@b.example>");
        if !reply.starts_with("250") {
            break reply;
        }
        client.ask("RCPT TO:<bob@localhost>");
        client.ask("DATA");
        let reply = client.message(&letter);
        if !reply.starts_with("250") {
            break reply;
        }
        stored += 1;
    };
    assert_eq!(&refusal[..9], "452 4.3.1");
    assert!((15..=20).contains(&stored), "{stored} letters of 100 KB on 2 MB");
    assert!(disk.drafts().is_empty());
    let letters = disk.new_files("bob");
    assert_eq!(letters.len(), stored);
    let whole = letter.replace('\r', "");
    for file in &letters {
        assert_eq!(without_trace_fields(&fs::read(file).unwrap()), whole.as_bytes());
    }

    // Bob reads a few and throws them away.
    for file in &letters[..3] {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(&client.ask("RSET")[..3], "250");
    begin_message(&mut client, "bob@localhost");
    assert_eq!(&client.message(&letter)[..9], "250 2.6.0");
    assert_eq!(disk.new_files("bob").len(), stored - 2);
}

#[test]
fn a_disk_without_inodes_is_452_and_over_when_there_are_some() {
    // Room for the spool and a part of the first mailbox.
    let Some(disk) = OnSmallDisk::start("size=2m,nr_inodes=7") else { return };
    let mut client = Client::in_data(disk.server.address, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "452 4.3.1");
    assert!(disk.drafts().is_empty());
    disk.remount("nr_inodes=100");
    begin_message(&mut client, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "250 2.6.0");
    assert_eq!(disk.new_files("bob").len(), 1);
}

#[test]
fn a_disk_without_room_for_one_of_two_mailboxes_is_452_and_nobody_has_the_letter() {
    // Room for Ann's mailbox with a letter, a draft, and one name more.
    let Some(disk) = OnSmallDisk::start("size=2m,nr_inodes=12") else { return };
    let mut client = Client::in_data(disk.server.address, "ann@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "250 2.6.0");
    client.ask("MAIL FROM:<a@b.example>");
    client.ask("RCPT TO:<ann@localhost>");
    client.ask("RCPT TO:<bob@localhost>");
    client.ask("DATA");
    assert_eq!(&client.message("x\r\n")[..9], "452 4.3.1");
    assert_eq!(disk.new_files("ann").len(), 1);
    assert!(disk.drafts().is_empty() && files(&disk.spool.join("queue")).is_empty());
}

#[test]
fn a_disk_that_turns_read_only_is_451_and_over_when_it_turns_back() {
    let Some(disk) = OnSmallDisk::start("size=2m") else { return };
    let mut client = Client::in_data(disk.server.address, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "250 2.6.0");
    disk.remount("ro");
    for _ in 0..2 {
        begin_message(&mut client, "bob@localhost");
        assert_eq!(&client.message("x\r\n")[..9], "451 4.3.0");
    }
    disk.server.wait_for_log(": Read-only file system");
    disk.remount("rw");
    begin_message(&mut client, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "250 2.6.0");
    assert_eq!(disk.new_files("bob").len(), 2);
}

#[test]
fn a_spool_that_is_gone_is_451_and_over_when_it_is_back() {
    let server = TestServer::start(&[]);
    let mut client = Client::in_data(server.address, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "250 2.6.0");
    fs::remove_dir_all(server.spool()).unwrap();
    begin_message(&mut client, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "451 4.3.0");
    // The folders inside it are the server's own business.
    fs::create_dir(server.spool()).unwrap();
    begin_message(&mut client, "bob@localhost");
    assert_eq!(&client.message("x\r\n")[..9], "250 2.6.0");
    assert_eq!(server.only_message("bob"), b"x\n");
}

// ---- a server that cannot start ----

/// One line on standard error, exit 78.
fn is_bad_configuration(output: &std::process::Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.starts_with("ehlo: cannot keep mail in ") && said.contains(why), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_spool_that_cannot_be_written_is_exit_78_and_nothing_is_made() {
    let Some(home) = Stranger::new() else { return };
    let folder = home.path().join("locked");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let output = output(&home.program(&[]), &folder.join("spool"));
    is_bad_configuration(&output, "Permission denied");
    assert!(files(&folder).is_empty());
}

#[test]
fn a_disk_without_room_for_the_spool_is_exit_78_and_nothing_is_made() {
    let mounted = tempfile::tempdir().unwrap();
    // The one inode is the folder itself.
    match on_small_disk("nr_inodes=1", mounted.path()) {
        Err(why) => println!("skipped: {why}"),
        Ok(program) => {
            let output = output(&program, &mounted.path().join("spool"));
            is_bad_configuration(&output, "No space left on device");
        }
    }
}

// ---- descriptors and threads ----

/// Over the next second, the server uses next to no processor time (Linux).
fn is_at_rest(server: &ChildServer) {
    let Some(before) = server.processor_time() else {
        println!("not looked at: the processor time, for want of /proc");
        return;
    };
    thread::sleep(Duration::from_secs(1));
    let used = server.processor_time().unwrap() - before;
    // A busy loop would use all of it; twenty looks a second are hardly seen.
    assert!(used < Duration::from_millis(300), "{used:?} in a second");
}

/// Sends one letter in a session of its own.
fn send_letter(address: SocketAddr) {
    let done = when_it_recovers(|| {
        let mut client = Client::silent(address);
        let reply = client.reply();
        if !reply.starts_with("220") {
            return reply;
        }
        assert_eq!(&client.ask("HELO c.example")[..3], "250");
        begin_message(&mut client, "bob@localhost");
        let reply = client.message("x\r\n");
        assert_eq!(&client.ask("QUIT")[..3], "221");
        reply
    });
    assert_eq!(&done[..9], "250 2.6.0");
}

/// Tries until the reply is not one that says: later. When the system gives back
/// descriptors and threads of those who have left, no client can see.
fn when_it_recovers(mut attempt: impl FnMut() -> String) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = attempt();
        if !reply.is_empty() && !reply.starts_with('4') {
            return reply;
        }
        assert!(Instant::now() < end, "the server does not recover: {reply}");
        thread::yield_now();
    }
}

#[test]
fn without_descriptors_the_server_waits_and_those_inside_lose_nothing() {
    let spool = tempfile::tempdir().unwrap();
    let program = ["sh", "-c", "ulimit -n 64; exec \"$0\" \"$@\"", EHLO];
    let flags = ["--max-per-client", "0"];
    let server = ChildServer::start(&program, spool.path(), &flags).unwrap();

    let mut inside = Client::connect(server.address);
    inside.ask("EHLO c.example");
    // They connect all the same: the system accepts for us, up to its own limit.
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    server.wait_for_log("cannot take more clients now: Too many open files");
    is_at_rest(&server);
    assert_eq!(server.count_in_log("cannot take more clients"), 0, "it was said before");

    // A message needs a descriptor, too.
    begin_message(&mut inside, "ann@localhost");
    assert_eq!(&inside.message("x\r\n")[..9], "451 4.3.0");
    assert_eq!(&inside.ask("NOOP")[..3], "250");

    drop(crowd);
    server.wait_for_log("taking clients again");
    let address = server.address;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| send_letter(address)));
        }
    });
    let reply = when_it_recovers(|| {
        begin_message(&mut inside, "ann@localhost");
        inside.message("x\r\n")
    });
    assert_eq!(&reply[..9], "250 2.6.0");
    assert_eq!(files(&spool.path().join("mail/localhost/bob/new")).len(), 100);
    assert_eq!(files(&spool.path().join("mail/localhost/ann/new")).len(), 1);
    assert!(files(&spool.path().join("tmp")).is_empty());
    assert_eq!(server.stop(), Some(0));
}

/// Another user, with a folder and a copy of the program in it: root may write
/// everywhere and start as many threads as it likes, others may not.
struct Stranger {
    home: TempDir,
    is_root: bool,
}

impl Stranger {
    /// Nobody, with no process but those of one test.
    const UID: u32 = 54321;

    /// `None`, and a printed reason, where we cannot be somebody else.
    fn new() -> Option<Stranger> {
        let home = tempfile::tempdir().unwrap();
        let is_root = fs::metadata(home.path()).unwrap().uid() == 0;
        let stranger = Stranger { home, is_root };
        if is_root {
            fs::set_permissions(stranger.path(), Permissions::from_mode(0o755)).unwrap();
            chown(stranger.path(), Some(Stranger::UID), Some(Stranger::UID)).unwrap();
            fs::copy(EHLO, stranger.path().join("ehlo")).unwrap();
        }
        let program = stranger.program(&[]);
        let why = match Command::new(&program[0]).args(&program[1..]).arg("--version").output() {
            Ok(output) if output.status.success() => return Some(stranger),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
            Err(error) => format!("{}: {error}", program[0]),
        };
        println!("skipped: {why}");
        None
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// Runs the program as that user, by way of `between`.
    fn program(&self, between: &[&str]) -> Vec<String> {
        let uid = Stranger::UID;
        let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        let copy = self.path().join("ehlo");
        let words = match self.is_root {
            true => {
                [&["setpriv", &reuid, &regid, "--clear-groups"], between, &[copy.to_str().unwrap()]]
                    .concat()
            }
            false => [between, &[EHLO]].concat(),
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn without_threads_a_client_is_told_421_and_those_inside_notice_nothing() {
    let Some(home) = Stranger::new() else { return };
    // Three threads are the server's own. The limit counts all of a user; in a
    // namespace of its own an ordinary user has no others.
    let limit: &[&str] = match home.is_root {
        true => &["prlimit", "--nproc=12"],
        false => &["unshare", "--user", "prlimit", "--nproc=12"],
    };
    let spool = home.path().join("spool");
    let server = match ChildServer::start(&home.program(limit), &spool, &[]) {
        Ok(server) => server,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut inside: Vec<Client> = Vec::new();
    let refusal = loop {
        let mut client = Client::silent(server.address);
        let greeting = client.reply();
        if !greeting.starts_with("220") {
            break greeting;
        }
        inside.push(client);
    };
    assert_eq!(&refusal[..9], "421 4.3.2");
    assert!((5..12).contains(&inside.len()), "{} clients with 12 threads", inside.len());
    server.wait_for_log("cannot take more clients now: Resource temporarily unavailable");

    // A client that never gives up is told so again and again, at our pace.
    let (is_over, address) = (AtomicBool::new(false), server.address);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                assert_eq!(&Client::silent(address).reply()[..9], "421 4.3.2");
            }
        });
        is_at_rest(&server);
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(server.count_in_log("cannot take more clients"), 0, "it was said before");
    for client in &mut inside {
        assert_eq!(&client.ask("HELO c.example")[..3], "250");
        begin_message(client, "ann@localhost");
        assert_eq!(&client.message("x\r\n")[..9], "250 2.6.0");
    }

    let clients = inside.len();
    drop(inside);
    send_letter(server.address);
    server.wait_for_log("taking clients again");
    assert_eq!(files(&spool.join("mail/localhost/ann/new")).len(), clients);
    assert_eq!(files(&spool.join("mail/localhost/bob/new")).len(), 1);
}

// ---- crowds ----

#[test]
fn a_crowd_of_silent_and_slow_clients_does_not_slow_another_and_is_seen_out() {
    let is_full = std::env::var_os("EHLO_FULL").is_some();
    let (silent, slow, secs) = if is_full { (1000, 200, 10) } else { (100, 20, 2) };
    let pace = Duration::from_millis(if is_full { 1000 } else { 200 });
    let spool = tempfile::tempdir().unwrap();
    let time_out = secs.to_string();
    let flags =
        ["--max-per-client", "0", "--max-connections", "2000", "--timeout", time_out.as_str()];
    let server = ChildServer::start(&[EHLO], spool.path(), &flags).unwrap();
    let alone = pace_of_letters(server.address, Duration::from_millis(500));

    let start = Instant::now();
    let mut crowd: Vec<Client> = (0..silent).map(|_| Client::connect(server.address)).collect();
    for _ in 0..slow / 2 {
        crowd.push(Client::connect(server.address));
        crowd.push(Client::in_data(server.address, "cem@localhost"));
    }
    let gathered = start.elapsed();
    let is_over = AtomicBool::new(false);
    let among = thread::scope(|scope| {
        let dripping: Vec<TcpStream> =
            crowd[silent..].iter().map(|client| client.tcp().try_clone().unwrap()).collect();
        scope.spawn(|| {
            let dripping = dripping;
            while !is_over.load(Ordering::SeqCst) {
                for mut tcp in &dripping {
                    // Fails once the server has had enough of it.
                    let _ = tcp.write_all(b"x");
                }
                thread::sleep(pace);
            }
        });
        // All of the crowd are inside for as long as this takes.
        let among = pace_of_letters(server.address, Duration::from_secs(secs / 2));
        for client in &mut crowd {
            assert_eq!(&client.reply()[..9], "421 4.4.2");
        }
        is_over.store(true, Ordering::SeqCst);
        among
    });
    println!("{silent} silent and {slow} slow clients, gathered in {gathered:?}");
    println!("letters, one after the other: alone {alone}, among them {among}");
    assert!(among.slowest < Duration::from_secs(1), "{among}");
    assert!(files(&spool.path().join("tmp")).is_empty());
    send_letter(server.address);
}

/// How long letters took, each in a session of its own.
struct Pace {
    median: Duration,
    slowest: Duration,
    count: usize,
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Pace { median, slowest, count } = self;
        write!(f, "{count} of them, median {median:?}, slowest {slowest:?}")
    }
}

/// Sends letters one after the other for that long.
fn pace_of_letters(address: SocketAddr, long: Duration) -> Pace {
    let begin = Instant::now();
    let mut took = Vec::new();
    while begin.elapsed() < long {
        let start = Instant::now();
        send_letter(address);
        took.push(start.elapsed());
    }
    took.sort();
    Pace { median: took[took.len() / 2], slowest: took[took.len() - 1], count: took.len() }
}

// ---- garbage, and a log that nobody takes ----

#[test]
fn garbage_is_answered_line_by_line_and_closed_with_one_line_of_log() {
    let spool = tempfile::tempdir().unwrap();
    let server = ChildServer::start(&[EHLO], spool.path(), &[]).unwrap();
    let mut client = Client::connect(server.address);
    let garbage: Vec<u8> = (0..=255).filter(|octet| !b"\x16\r\n".contains(octet)).collect();
    // The server hangs up before the end, so the last of it may find nobody.
    let _ = client.tcp().write_all(&[&garbage[..], b"\r\n"].concat().repeat(30));
    let mut replies = Vec::new();
    while let Some(reply) = Some(client.reply()).filter(|reply| !reply.is_empty()) {
        replies.push(reply);
    }
    let (last, others) = replies.split_last().unwrap();
    assert_eq!(others.len(), 20);
    assert!(others.iter().all(|reply| reply.starts_with("500 5.5.2")), "{others:?}");
    assert_eq!(&last[..9], "421 4.7.0");
    server.wait_for_log("is gone: too many refused commands");
}

#[test]
fn a_log_that_cannot_be_written_stops_no_mail() {
    if !Path::new("/dev/full").exists() {
        return println!("skipped: there is no /dev/full");
    }
    for script in ["exec \"$0\" \"$@\" 2>/dev/full", "exec \"$0\" \"$@\" 2>&-"] {
        let spool = tempfile::tempdir().unwrap();
        let program = ["sh", "-c", script, EHLO];
        let server = ChildServer::start(&program, spool.path(), &["--trace"]).unwrap();
        for _ in 0..3 {
            send_letter(server.address);
        }
        assert_eq!(files(&spool.path().join("mail/localhost/bob/new")).len(), 3);
        assert_eq!(server.stop(), Some(0));
    }
}
