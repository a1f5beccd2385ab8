//! Talk to an SMTP server by hand: `cargo run --example talk -- HOST:PORT`.
//!
//! In: lines from the keyboard, or from a pipe. They go out one by one, each
//! with CR LF at its end. Out: the lines the server says, as they come. It ends
//! when the server closes; the end of the input (Ctrl-D) tells the server that
//! no more will follow. Without an argument it calls 127.0.0.1:2525.
//!
//! It does not know SMTP: whoever types is the client. Octets that are no UTF-8 go out as
//! they are; where the server says some, a mark stands in their place.
//!
//! Book: docs/01-a-letter-by-hand.md.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::{env, process, thread};

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2525".to_owned());
    let server = TcpStream::connect(&address).unwrap_or_else(|error| {
        eprintln!("talk: no server at {address} ({error})");
        eprintln!("talk: start one in another terminal: cargo run");
        process::exit(1);
    });
    // Two directions, two threads: the server may speak while we wait for the
    // keyboard. The thread is not joined: once the server has closed, nobody
    // waits for one more line to be typed.
    let to_server = server.try_clone()?;
    thread::spawn(move || send_lines(to_server));
    for line in BufReader::new(server).split(b'\n') {
        println!("{}", String::from_utf8_lossy(line?.trim_ascii_end()));
    }
    Ok(())
}

fn send_lines(mut server: TcpStream) -> io::Result<()> {
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        // On the wire a line ends with CR LF, whatever Enter makes of it here.
        server.write_all(&[line, b"\r\n"].concat())?;
    }
    server.shutdown(Shutdown::Write)
}
