//! The whole idea of an SMTP server, before any architecture: one loop.
//!
//! `cargo run --example plain_loop -- ADDR:PORT FOLDER` listens on ADDR:PORT
//! (127.0.0.1:2526 if not given) and writes each message as a numbered file
//! into FOLDER (plain_loop-mail if not given).
//!
//! This is not a server to use. It takes mail from real clients, and it is
//! wrong in many ways, on purpose: each flaw is marked, the chapter shows what
//! it leads to, and later chapters mend it.
//!
//! Book: docs/02-a-plain-loop.md.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:2526".to_owned());
    let folder = PathBuf::from(args.next().unwrap_or_else(|| "plain_loop-mail".to_owned()));
    fs::create_dir_all(&folder)?;
    let listener = TcpListener::bind(address)?;
    println!("listening plain {}", listener.local_addr()?);
    // FLAW 1: one client at a time. The next one waits until this one is gone.
    for client in listener.incoming() {
        if let Err(error) = serve(client?, &folder) {
            eprintln!("a client is gone: {error}");
        }
    }
    Ok(())
}

fn serve(mut client: TcpStream, folder: &Path) -> io::Result<()> {
    // FLAW 2: no time-out. A client that says nothing is waited for for ever.
    let mut input = BufReader::new(client.try_clone()?);
    let mut message = String::new();
    let (mut have_name, mut have_mail, mut have_rcpt, mut in_data) = (false, false, false, false);

    client.write_all(b"220 plain loop\r\n")?;
    loop {
        let mut line = String::new();
        // FLAW 3: no limit. A line without an end fills the memory.
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        // FLAW 4: LF alone ends a line too, so `LF . LF` ends a message.
        let line = line.trim_end_matches(['\r', '\n']);
        let upper = line.to_ascii_uppercase();

        let reply = if in_data && line != "." {
            let text = line.strip_prefix('.').unwrap_or(line);
            message.push_str(text);
            message.push('\n');
            continue;
        } else if in_data {
            // FLAW 5: 250 is a promise, and nothing here makes sure that the
            // file is on disk when it is given.
            let count = fs::read_dir(folder)?.count();
            fs::write(folder.join(format!("{count}.txt")), &message)?;
            // FLAW 6: `have_rcpt` should have been reset as well.
            (in_data, have_mail) = (false, false);
            "250 stored"
        } else if upper.starts_with("EHLO ") || upper.starts_with("HELO ") {
            have_name = true;
            "250 hello"
        // FLAW 7: what stands after the colon is not looked at.
        } else if upper.starts_with("MAIL FROM:") && have_name {
            have_mail = true;
            message = format!("envelope: {line}\n");
            "250 sender ok"
        } else if upper.starts_with("RCPT TO:") && have_mail {
            have_rcpt = true;
            message.push_str(&format!("envelope: {line}\n"));
            "250 recipient ok"
        } else if upper == "DATA" && have_rcpt {
            in_data = true;
            "354 send the message, end it with a line that holds one dot"
        } else if upper == "QUIT" {
            client.write_all(b"221 goodbye\r\n")?;
            return Ok(());
        } else {
            // FLAW 8: unknown, misspelt, too early: the client cannot tell.
            "500 what?"
        };
        client.write_all(format!("{reply}\r\n").as_bytes())?;
    }
}
