//! The program: flags in, exit code out, and the signals that end it.
//!
//! Exit codes: 0 after SIGINT or SIGTERM, 2 for a wrong flag, 71 if a port
//! cannot be opened, 78 if a file or the spool cannot be used or flags do not fit
//! together (the last two are EX_OSERR and EX_CONFIG of `sysexits.h`).

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use ehlo::config::{self, Request};
use ehlo::server::{BindError, Handle, Server};
use ehlo::smtp::session::Role;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

const USAGE: u8 = 2;
const CANNOT_LISTEN: u8 = 71;
const BAD_CONFIGURATION: u8 = 78;
/// After a second signal: the shutdown was not finished.
const IMPATIENT: i32 = 1;

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

/// Whatever the umask was: mail is for its owner alone, and the owner can read it.
const UMASK: u32 = 0o077;

/// Does everything; the error is an exit code and one line for a person.
fn run() -> Result<(), (u8, String)> {
    let args: Result<Vec<String>, _> =
        std::env::args_os().skip(1).map(|arg| arg.into_string()).collect();
    let args = args.map_err(|arg| (USAGE, format!("{arg:?} is not UTF-8")))?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let config = match config::from_args(&args).map_err(|error| (USAGE, error.to_string()))? {
        Request::Serve(config) => config,
        Request::Print(text) => {
            // Somebody who closes the pipe, `ehlo --help | head -1`, has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return Ok(());
        }
    };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    let server = Server::bind(*config).map_err(|error| match error {
        BindError::Listen(..) => (CANNOT_LISTEN, error.to_string()),
        BindError::Spool(..) | BindError::Configuration(_) => {
            (BAD_CONFIGURATION, error.to_string())
        }
    })?;
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])
        .map_err(|error| (CANNOT_LISTEN, format!("cannot catch signals: {error}")))?;
    let handle = server.handle();
    thread::spawn(move || wait_for_signals(signals, &handle));

    // The ports are open. These lines tell scripts that they can begin.
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
    server.run();
    Ok(())
}

fn reload(handle: &Handle) {
    match handle.reload() {
        Ok(()) => log::info!("read users, aliases and certificate again"),
        Err(why) => log::error!("{why}; users, aliases and certificate stay as they were"),
    }
}

/// SIGHUP reads the files again, SIGUSR1 tries the queue. The first of the others begins the shutdown, a
/// second one ends the program at once.
fn wait_for_signals(mut signals: Signals, handle: &Handle) {
    let mut is_stopping = false;
    for signal in signals.forever() {
        match signal {
            // In a thread of its own: a file that takes long must not hold up SIGTERM.
            SIGHUP => drop(thread::spawn({
                let handle = handle.clone();
                move || reload(&handle)
            })),
            SIGUSR1 => {
                log::info!("trying everything in the queue");
                handle.try_all_now();
            }
            _ if is_stopping => std::process::exit(IMPATIENT),
            _ => {
                is_stopping = true;
                // Before the log: nobody may be reading that, and then it blocks.
                handle.shutdown();
                log::info!("shutting down, the signal again ends it at once");
            }
        }
    }
}
