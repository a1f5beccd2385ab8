//! Watch a session as it happens:
//! `cargo run --example watch [-- --http 127.0.0.1:8025 FLAGS OF ehlo]`.
//!
//! This is the whole server, with a page beside it: who is connected, what is said, the
//! state of each session in the drawing of chapter 5, why a reply was what it was, the
//! queue, the mailboxes and their letters. The page is for the person at this machine: it
//! is on loopback only, changes nothing, and runs nothing of what clients and letters
//! say. The server never waits for it. On a machine with several users each of them can
//! read all mail there.
//!
//! Book: docs/08-threads.md.

#[path = "watch/http.rs"]
mod http;
#[path = "watch/mail.rs"]
mod mail;
#[path = "watch/page.rs"]
mod page;
#[path = "watch/script.rs"]
mod script;
#[path = "watch/sessions.rs"]
mod sessions;
#[path = "watch/why.rs"]
mod why;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use ehlo::config::{self, Config, Request};
use ehlo::server::{Events, Handle, Server};
use page::Page;
use sessions::Sessions;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// How many browsers are served at a time; the streams of pages count.
const BROWSERS: usize = 64;
/// Mail is for its owner alone, as in the program itself.
const UMASK: u32 = 0o077;
/// How often the thread that hears of sessions looks whether there is still a server.
const PATIENCE: Duration = Duration::from_secs(1);
/// What there is too little of, such as descriptors, is not there again at once.
const PAUSE: Duration = Duration::from_millis(100);

const FORM: &str = "The server, with a page beside it that shows each session as it happens.\n\n\
    usage: watch [--http ADDR:PORT] [flags of ehlo]\n\n\
    --http ADDR:PORT  the page, on loopback only (default 127.0.0.1:8025)\n\n\
    Exit code: 0 after Ctrl-C or SIGTERM, 2 if it cannot start.\n";

fn main() -> ExitCode {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info"));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("watch: {why}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), String> {
    let Some((page_at, config)) = flags()? else { return Ok(()) };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    let (spool, has_users) = (config.spool.clone(), config.users.is_some());
    let server = Server::bind(config).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(page_at)
        .map_err(|error| format!("cannot listen on {page_at}: {error}"))?;
    let page_at = listener.local_addr().map_err(|error| error.to_string())?;
    // A write that goes too far fails then, and ends nothing.
    flag::register(SIGXFSZ, Arc::default()).map_err(|error| error.to_string())?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1]);
    let signals = signals.map_err(|error| error.to_string())?;
    let handle = server.handle();
    thread::spawn(move || wait_for_signals(signals, &handle));

    let sessions = Arc::new(Sessions::new(has_users));
    if let Some(events) = server.events() {
        let sessions = Arc::clone(&sessions);
        thread::spawn(move || record(&events, &sessions));
    }
    let page = Arc::new(Page::new(sessions, spool));
    thread::spawn(move || show(&listener, &page));
    for (role, address) in server.addresses() {
        println!("listening {} {address}", format!("{role:?}").to_lowercase());
    }
    println!("watch http://{page_at}");
    server.run();
    Ok(())
}

/// What each signal does is what it does to the program itself.
fn wait_for_signals(mut signals: Signals, handle: &Handle) {
    let had_terminal = has_terminal();
    for signal in signals.forever() {
        match signal {
            // It comes as well when the terminal is closed, and then nobody watches any more.
            SIGHUP if has_terminal() || !had_terminal => match handle.reload() {
                Ok(()) => log::info!("read all files again"),
                Err(why) => log::error!("{why}; everything stays as it was"),
            },
            SIGUSR1 => handle.try_all_now(),
            _ => handle.shutdown(),
        }
    }
}

fn has_terminal() -> bool {
    io::stdin().is_terminal() || io::stderr().is_terminal()
}

/// Where the page is, and everything for the server; `None` if only help was wanted.
fn flags() -> Result<Option<(SocketAddr, Config)>, String> {
    let mut page_at = SocketAddr::from(([127, 0, 0, 1], 8025));
    let mut others = Vec::new();
    let args: Result<Vec<String>, OsString> =
        std::env::args_os().skip(1).map(OsString::into_string).collect();
    let mut args = args.map_err(|arg| format!("{arg:?} is not UTF-8"))?.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--http" {
            let value = args.next().unwrap_or_default();
            page_at = value.parse().map_err(|_| format!("--http {value:?} is no ADDR:PORT"))?;
        } else {
            others.push(arg);
        }
    }
    // Everybody who reaches the page reads all mail.
    if !page_at.ip().is_loopback() {
        return Err(format!("--http {page_at}: the page is on loopback only"));
    }
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    match config::from_args(&others).map_err(|error| error.to_string())? {
        Request::Serve(config) => Ok(Some((page_at, *config))),
        Request::Print(text) => {
            print!("{FORM}\n{text}");
            Ok(None)
        }
    }
}

/// Takes what the server tells, until there is none.
fn record(events: &Events, sessions: &Sessions) {
    loop {
        match events.next(PATIENCE) {
            Ok(event) => sessions.record(event, events.dropped()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// A thread for each request, as in the server.
fn show(listener: &TcpListener, page: &Arc<Page>) {
    // Each thread has one more of it, and gives it back however it ends.
    let place = Arc::new(());
    for browser in listener.incoming() {
        let Ok(browser) = browser else {
            thread::sleep(PAUSE);
            continue;
        };
        if Arc::strong_count(&place) > BROWSERS {
            continue;
        }
        let (page, place) = (Arc::clone(page), Arc::clone(&place));
        // Where no thread is to be had the browser is let go, and asks again.
        let _ = thread::Builder::new().spawn(move || {
            let _place = place;
            // A browser that is gone has what it wanted.
            let _ = page.serve(browser);
        });
    }
}
