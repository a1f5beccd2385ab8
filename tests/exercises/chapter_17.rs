//! Chapter 17: how fast, how many.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::built;
use crate::common::TestServer;

/// How long the slow server needs for each message.
const SLOW: Duration = Duration::from_millis(50);

/// A server that takes everything, one message after the other, and each of them slowly.
fn slow_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let _ = serve(client.unwrap());
        }
    });
    address
}

fn serve(mut client: TcpStream) -> std::io::Result<()> {
    client.write_all(b"220 slow\r\n")?;
    let mut in_data = false;
    for line in BufReader::new(client.try_clone()?).lines() {
        let line = line?;
        if in_data && line != "." {
            continue;
        }
        if in_data {
            thread::sleep(SLOW);
        }
        in_data = line == "DATA";
        client.write_all(if in_data { b"354 go\r\n" } else { b"250 ok\r\n" })?;
    }
    Ok(())
}

/// Runs `load`, and gives its longest latency in milliseconds and the time of the run.
fn load(args: &[&str]) -> (f64, Duration) {
    let start = Instant::now();
    let output = Command::new(built("load")).args(args).output().unwrap();
    let elapsed = start.elapsed();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "load {args:?}: {errors}{said}");
    let max = said.split(", max ").nth(1).and_then(|rest| rest.lines().next());
    (max.unwrap_or_else(|| panic!("no max in {said}")).trim().parse().unwrap(), elapsed)
}

/// `load --rate N`: message n is due n / N seconds after the start, whether those before it are
/// done or not, and its latency counts from when it was due. So a server that is too slow for
/// the rate gets longer and longer latencies; one that is fast enough is given the messages at that
/// rate and not faster. Without the flag everything is as before.
#[test]
#[ignore = "exercise 17.1"]
fn exercise_17_1_the_latency_counts_from_when_the_message_was_due() {
    let slow = slow_server().to_string();
    let one = ["--server", &slow, "--sessions", "1", "--messages", "20"];
    // 50 ms each, and one due every 20 ms: the last one waits for some 600 ms.
    let (max, _) = load(&[&one[..], &["--rate", "50"]].concat());
    assert!(max >= 500.0, "the last message was late by more than {max} ms");
    let (max, _) = load(&one);
    assert!(max < 500.0, "in a closed loop nobody waits in line: {max} ms");
    let server = TestServer::start(&[]);
    let fast = server.address.to_string();
    let flags = ["--server", &fast, "--sessions", "4", "--messages", "41", "--rate", "40"];
    let (_, elapsed) = load(&flags);
    assert!(elapsed >= Duration::from_secs(1), "41 messages at 40 a second took {elapsed:?}");
}
