//! Makes a line for the users file: `cargo run --example passwd -- NAME [--plain]`.
//!
//! It asks for the password twice and does not show it; where standard input is
//! no terminal, one line of it is the password. The line goes to standard output
//! and nothing else does, so that `>> users` adds it to a file. `--plain` stores
//! the password as it is, which CRAM-MD5 needs; without it the line tells whether
//! a password is right, and not what it is. Exit code 1 if there is no line, 2 for a wrong
//! flag.
//!
//! Book: docs/11-auth.md.

#[path = "flags/mod.rs"]
mod flags;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use argh::FromArgs;
use ehlo::smtp::auth::secret::{SALT_LEN, Secret};
use ehlo::smtp::auth::users::Users;
use ehlo::store::users;
use ring::rand::{self, SystemRandom};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Make a line for the users file, of a password from standard input.
#[derive(FromArgs)]
struct Flags {
    /// the name that logs in, such as ann or ann@host.example
    #[argh(positional)]
    name: String,

    /// keep the password as it is, which CRAM-MD5 needs
    #[argh(switch)]
    plain: bool,
}

fn main() -> ExitCode {
    let Flags { name, plain } = match flags::read("passwd", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match line_for(&name, plain) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("passwd: {why}");
            ExitCode::from(1)
        }
    }
}

/// Asks for the password and gives the line. The server's own code reads it and
/// tries the password before anybody else has to.
fn line_for(name: &str, is_plain: bool) -> Result<String, String> {
    // With any secret, so that a wrong name shows before the password is asked for.
    read(name, &format!("{name}:{{PLAIN}}x"))?;
    let password = ask().map_err(|error| error.to_string())?;
    if password.contains(char::is_control) {
        return Err("expected a password without control characters".to_owned());
    }
    let secret = if is_plain {
        Secret::Plain(password.clone())
    } else {
        let salt = rand::generate::<[u8; SALT_LEN]>(&SystemRandom::new());
        let salt = salt.map_err(|_| "the system gives no random numbers")?.expose();
        Secret::scram(&password, &salt)
    };
    let line = format!("{name}:{}", secret.reveal());
    if !read(name, &line)?.check(name, password.as_bytes()) {
        return Err("with --plain a password has no colon: it would end there".to_owned());
    }
    Ok(line)
}

/// The users of a file of this one line.
fn read(name: &str, line: &str) -> Result<Users, String> {
    let entries = users::parse(line.as_bytes()).map_err(|error| error.why)?;
    match entries.as_slice() {
        [(found, _)] if found == name => Ok(Users::new(entries, [0; 32])),
        _ => Err("expected a name, and nothing else of a line".to_owned()),
    }
}

fn ask() -> io::Result<String> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let _hidden = Hidden::new()?;
    eprint!("password: ");
    let password = read_line()?;
    eprint!("once more: ");
    match read_line()? == password {
        true => Ok(password),
        false => Err(io::Error::other("these were two different passwords")),
    }
}

fn read_line() -> io::Result<String> {
    let no_line = || io::Error::other("no password was given");
    io::stdin().lines().next().ok_or_else(no_line)?.and_then(|line| match line.is_empty() {
        true => Err(no_line()),
        false => Ok(line),
    })
}

/// A terminal that does not show what is typed, until this is dropped. After
/// ^C nobody drops it: shells put their terminal right then, or `stty echo` does.
struct Hidden(Termios);

impl Hidden {
    fn new() -> io::Result<Hidden> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // The line end is shown, or the next line would stand beside this one.
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
