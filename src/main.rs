//! The program: flags in, exit code out, and the signals that steer it: two end it, one
//! has its files read again, one has the queue tried now.
//!
//! Exit codes: 0 after a shutdown, 1 if SIGINT or SIGTERM did not let it finish, 2 for
//! a wrong flag, 71 if a port cannot be opened or signals cannot be caught, 78 if a file or
//! the spool cannot be used or flags do not fit together (the last two are EX_OSERR and
//! EX_CONFIG of `sysexits.h`).
//!
//! Nothing here that ends the program waits for the log: somebody may hold its pipe open
//! and read nothing.
//!
//! Book: docs/08-threads.md.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ehlo::config::{self, Request};
use ehlo::server::{BindError, Handle, Server};
use ehlo::smtp::session::Role;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

const USAGE: u8 = 2;
const CANNOT_LISTEN: u8 = 71;
const BAD_CONFIGURATION: u8 = 78;
/// After a signal during the shutdown: it was not finished.
const IMPATIENT: i32 = 1;

/// Whatever the umask was: mail is for its owner alone, and the owner can read it.
const UMASK: u32 = 0o077;

fn main() -> ExitCode {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("info"));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, line)) => {
            // With nobody to read it there is still the exit code.
            let _ = writeln!(io::stderr(), "ehlo: {line}");
            ExitCode::from(code)
        }
    }
}

/// Does everything; the error is an exit code and one line for a person.
fn run() -> Result<(), (u8, String)> {
    let config = match request().map_err(|why| (USAGE, why))? {
        Request::Serve(config) => config,
        Request::Print(text) => {
            // Somebody who closes the pipe, `ehlo --help | head -1`, has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return Ok(());
        }
    };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    let not_caught = |error| (CANNOT_LISTEN, format!("cannot catch signals: {error}"));
    let signals = catch_signals().map_err(not_caught)?;
    let terminal = Terminal::now();
    let server = Server::bind(*config).map_err(|error| match error {
        BindError::Listen(..) => (CANNOT_LISTEN, error.to_string()),
        BindError::Spool(..) | BindError::Configuration(_) => {
            (BAD_CONFIGURATION, error.to_string())
        }
    })?;
    let is_stopping = catch_ends(&signals).map_err(not_caught)?;
    let handle = server.handle();
    thread::spawn(move || wait_for_signals(signals, &handle, terminal, &is_stopping));
    say_ready(&server);
    server.run();
    Ok(())
}

/// What the arguments ask for; the error is a line for a person.
fn request() -> Result<Request, String> {
    let args: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(|arg| arg.into_string()).collect();
    let args = args.map_err(|arg| format!("{arg:?} is not UTF-8"))?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    config::from_args(&args).map_err(|error| error.to_string())
}

/// The ports are open. These lines tell scripts that they can begin.
fn say_ready(server: &Server) {
    let mut ready = String::new();
    for (role, address) in server.addresses() {
        let role = match role {
            Role::Smtp => "smtp",
            Role::Submission => "submission",
            Role::Submissions => "submissions",
        };
        ready += &format!("listening {role} {address}\n");
    }
    let mut stdout = io::stdout();
    // A server whose standard output is closed still serves.
    let _ = stdout.write_all(ready.as_bytes()).and_then(|()| stdout.flush());
}

/// Catches what must not end the program, before anything takes long. Until
/// [`wait_for_signals`] hears of it, it waits in a pipe.
fn catch_signals() -> io::Result<Signals> {
    // A file larger than `ulimit -f` would end the program. Once the signal is caught the
    // write fails instead, and a write that fails is a 451 like any other.
    flag::register(SIGXFSZ, Arc::default())?;
    Signals::new([SIGHUP, SIGUSR1])
}

/// Catches what ends the program, once there is something to shut down. Before that these
/// signals end it at once, as they end any program. What is returned is set when a shutdown
/// begins.
fn catch_ends(signals: &Signals) -> io::Result<Arc<AtomicBool>> {
    let is_stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signals.handle().add_signal(signal)?;
        // During a shutdown it ends the program in the signal handler itself, whatever all
        // threads are busy with.
        flag::register_conditional_shutdown(signal, IMPATIENT, Arc::clone(&is_stopping))?;
        flag::register(signal, Arc::clone(&is_stopping))?;
    }
    Ok(is_stopping)
}

/// SIGHUP reads the files again, SIGUSR1 tries the queue, the others begin the shutdown,
/// and so does SIGHUP if the terminal is gone.
fn wait_for_signals(
    mut signals: Signals,
    handle: &Handle,
    terminal: Terminal,
    is_stopping: &AtomicBool,
) {
    for signal in signals.forever() {
        match signal {
            SIGHUP if !terminal.is_gone() => {
                let handle = handle.clone();
                beside(move || reload(&handle));
            }
            SIGUSR1 => {
                handle.try_all_now();
                beside(|| log::info!("trying everything in the queue"));
            }
            _ => {
                // The handler of the others has set it, or does so in this moment.
                if signal == SIGHUP {
                    is_stopping.store(true, Ordering::SeqCst);
                }
                handle.shutdown();
                beside(|| log::info!("shutting down, SIGTERM or SIGINT now ends it at once"));
            }
        }
    }
}

/// In a thread of its own: a file or a log that takes long must not hold up SIGTERM.
fn beside(work: impl FnOnce() + Send + 'static) {
    // Where there is no thread to be had, this is the least that is missing.
    let _ = thread::Builder::new().spawn(work);
}

fn reload(handle: &Handle) {
    match handle.reload() {
        Ok(()) => log::info!("read all files again"),
        Err(why) => log::error!("{why}; everything stays as it was"),
    }
}

/// Which of our standard input and standard error were a terminal at the start. When a
/// terminal is closed SIGHUP comes, and the two are no terminal any more; a SIGHUP from
/// `kill` changes nothing about them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Terminal {
    is_input: bool,
    is_error: bool,
}

impl Terminal {
    fn now() -> Terminal {
        Terminal { is_input: io::stdin().is_terminal(), is_error: io::stderr().is_terminal() }
    }

    /// Whether there was one, and nothing of it is left. If the program was disowned and has
    /// outlived its terminal, the first `kill -HUP` looks the same; such a program is better
    /// started with `</dev/null 2>log`.
    fn is_gone(self) -> bool {
        const NONE: Terminal = Terminal { is_input: false, is_error: false };
        self != NONE && Terminal::now() == NONE
    }
}
