//! The person in the middle, before any SMTP server:
//! `cargo run --example meddle -- --rule '2x connect -> 421 4.3.2 busy' --rule 'EHLO -> drop STARTTLS'`.
//!
//! It listens, passes on to a server in any language, and does what its rules say: it
//! answers in the server's place, hangs up, is silent or slow, cuts a message, takes a
//! keyword out of the reply to EHLO. It says what it does, line by line. It is for those
//! who test a mail program, and it is the attacker of chapters 6 and 10.
//!
//! One line of the client, then the reply to it: so a client that pipelines is served,
//! too, only more slowly. What is under TLS passes as it is, and unread. CHUNKING is
//! never announced, so that every message has a final dot.
//!
//! Book: docs/13-the-client-side.md.

#[path = "flags/mod.rs"]
mod flags;
#[path = "meddle/lines.rs"]
mod lines;
#[path = "meddle/rule.rs"]
mod rule;
#[path = "meddle/session.rs"]
mod session;
#[path = "meddle/teller.rs"]
mod teller;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use argh::FromArgs;

use rule::{FORMS, Rules};
use teller::Teller;

/// What there is too little of, such as descriptors, is not there again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Stand between a mail program and a server, and do what the rules say.
#[derive(FromArgs)]
struct Flags {
    /// where mail programs come (default 127.0.0.1:2526)
    #[argh(option, arg_name = "ADDR:PORT", default = "SocketAddr::from(([127, 0, 0, 1], 2526))")]
    listen: SocketAddr,

    /// the server (default 127.0.0.1:2525)
    #[argh(option, arg_name = "ADDR:PORT", default = "SocketAddr::from(([127, 0, 0, 1], 2525))")]
    to: SocketAddr,

    /// what to do, and when: [Nx] MOMENT -> ACT; repeatable; the forms are below
    #[argh(option, arg_name = "RULE")]
    rule: Vec<String>,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("meddle", &format!("\nRules:\n{FORMS}\n")) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let rules = match Rules::parse(&flags.rule) {
        Ok(rules) => rules,
        Err(why) => {
            eprintln!("meddle: {why}");
            return ExitCode::from(2);
        }
    };
    for (number, why) in rules.doubtful() {
        eprintln!("meddle: rule {number} {why}");
    }
    match listen(&flags, rules) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("meddle: {why}");
            ExitCode::from(1)
        }
    }
}

/// A thread for each client, as in the server.
fn listen(flags: &Flags, rules: Rules) -> Result<(), String> {
    let listener = TcpListener::bind(flags.listen);
    let listener =
        listener.map_err(|error| format!("cannot listen at {}: {error}", flags.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("listening smtp {address}\nbefore {}", flags.to);
    let rules = Arc::new(rules);
    for (number, client) in (1..).zip(listener.incoming()) {
        let Ok(client) = client else {
            thread::sleep(PAUSE);
            continue;
        };
        let (rules, server) = (Arc::clone(&rules), flags.to);
        let begun = thread::Builder::new().spawn(move || {
            let teller = Teller::new(number);
            if let Err(error) = session::serve(client, server, &rules, &teller) {
                teller.meddle(&error.to_string());
            }
        });
        if let Err(error) = begun {
            eprintln!("meddle: no thread for client {number}: {error}");
        }
    }
    Ok(())
}
