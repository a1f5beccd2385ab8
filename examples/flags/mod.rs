//! The flags of the examples, read by all of them in one way.
//!
//! In: the arguments of the process. Out: the flags; or an exit code, if there is nothing
//! left to do: 0 after `--help`, which goes to standard output, and 2 after a wrong flag,
//! which is told on standard error.
//!
//! Book: docs/README.md.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use argh::{EarlyExit, FromArgs};

/// Reads the flags of the program with this name. `more` is what its help and its errors
/// say at their end.
pub fn read<F: FromArgs>(name: &str, more: &str) -> Result<F, ExitCode> {
    let args: Result<Vec<String>, OsString> =
        env::args_os().skip(1).map(OsString::into_string).collect();
    let flags = match &args {
        Ok(args) => {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            F::from_args(&[name], &args)
        }
        Err(arg) => Err(EarlyExit::from(format!("{arg:?} is not UTF-8\n"))),
    };
    flags.map_err(|EarlyExit { output, status }| {
        let text = format!("{}\n{more}", output.trim_end());
        // Whoever closes the pipe, `--help | head -1`, has seen enough.
        let _ = match status {
            Ok(()) => io::stdout().write_all(text.as_bytes()),
            Err(()) => io::stderr().write_all(text.as_bytes()),
        };
        ExitCode::from(if status.is_ok() { 0 } else { 2 })
    })
}
