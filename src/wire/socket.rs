//! A TCP connection with one absolute deadline.
//!
//! A time-out for each `read` is not enough: a client that sends one octet just
//! before each time-out holds its thread for ever. So the time left is worked
//! out anew before every read and write, and when there is none the operation
//! fails with [`ErrorKind::TimedOut`]. Being below everything else, this also
//! holds for whatever is layered on top, an encrypted stream for example.
//!
//! The system is told a time-out only when it has to change, in steps of 1/64 of
//! the limit. So a deadline may be missed by that much, and a client that is
//! quick costs no system call for it.
//!
//! Book: docs/08-threads.md.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A TCP stream that fails once its deadline has passed.
#[derive(Debug)]
pub struct Socket {
    /// Shared with the list of live clients, which may end our reading.
    tcp: Arc<TcpStream>,
    /// How long after it was set the deadline is.
    limit: Duration,
    deadline: Instant,
    /// What the system was told last; zero for nothing yet.
    read_timeout: Duration,
    write_timeout: Duration,
}

/// How long a connection that we have closed is still read, so that the other side
/// comes to read what we said last.
#[derive(Debug, Clone, Copy)]
pub struct Linger {
    /// For that long in all.
    pub time: Duration,
    /// And not once nothing has come for that long.
    pub silence: Duration,
    /// This many octets at most.
    pub octets: u64,
}

/// The time-outs of the system follow the deadline in this many steps.
const STEPS: u32 = 64;
/// As good as no limit; the clock itself ends somewhere.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Whoever sends nothing for that long has nothing under way.
const SILENCE: Duration = Duration::from_secs(2);
/// How much is read at a time and thrown away.
const AWAY: usize = 16 * 1024;

impl Linger {
    /// Enough for what was on its way, too little to keep a thread busy.
    pub const SHORT: Linger = Linger { time: SILENCE, silence: SILENCE, octets: 1024 * 1024 };
}

impl Socket {
    /// `tcp` with `limit` from now as its first deadline.
    pub fn new(tcp: Arc<TcpStream>, limit: Duration) -> Socket {
        let mut socket = Socket {
            tcp,
            limit,
            deadline: Instant::now(),
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
        };
        socket.set_deadline(limit);
        socket
    }

    /// Everything from here on has to be done within `limit`.
    pub fn set_deadline(&mut self, limit: Duration) {
        self.limit = limit.min(FAR);
        self.deadline = Instant::now() + self.limit;
    }

    /// Waits for one octet and leaves it where it is.
    pub fn peek_octet(&mut self) -> io::Result<u8> {
        let mut octet = [0];
        loop {
            self.update_read_timeout()?;
            match self.tcp.peek(&mut octet) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(late(error)),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(octet[0]),
            }
        }
    }

    /// Tells the peer that we write no more; it can still read what we wrote.
    pub fn end_of_output(&self) -> io::Result<()> {
        self.tcp.shutdown(Shutdown::Write)
    }

    /// The same connection once more, for whoever gives this one away.
    pub fn share(&self) -> Socket {
        Socket::new(Arc::clone(&self.tcp), self.limit)
    }

    /// After the end of our output: reads and forgets what the peer still sends, until
    /// it closes as well or `linger` is used up.
    pub fn read_away(&mut self, linger: Linger) {
        let start = Instant::now();
        let mut left = linger.octets;
        let mut buffer = vec![0; AWAY];
        while left > 0 {
            self.set_deadline(linger.silence.min(linger.time.saturating_sub(start.elapsed())));
            match self.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count as u64),
            }
        }
    }

    fn update_read_timeout(&mut self) -> io::Result<()> {
        let timeout = self.timeout()?;
        if timeout != self.read_timeout {
            self.tcp.set_read_timeout(Some(timeout))?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// The time left, rounded up to a full step; an error if there is none.
    fn timeout(&self) -> io::Result<Duration> {
        let step = self.limit / STEPS;
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Zero means "no time-out" to the operating system, so it must not get there. A
        // limit that is too short for 64 steps is over as well as begun.
        if left.is_zero() || step.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let steps = left.as_nanos().div_ceil(step.as_nanos());
        Ok(step.saturating_mul(steps as u32))
    }
}

/// A socket that timed out says `WouldBlock` on Unix, which a layer above would
/// take for "try again".
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.update_read_timeout()?;
            match (&*self.tcp).read(buffer) {
                // A process that was stopped and continued: the client is still there.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done.map_err(late),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        loop {
            let timeout = self.timeout()?;
            if timeout != self.write_timeout {
                self.tcp.set_write_timeout(Some(timeout))?;
                self.write_timeout = timeout;
            }
            match (&*self.tcp).write(octets) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done.map_err(late),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Half of what is waited for: the system counts its waits in ticks of some milliseconds,
    /// so one may be a little short.
    const ABOUT: Duration = Duration::from_millis(50);

    fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        (Socket::new(Arc::new(tcp), Duration::from_secs(5)), peer)
    }

    #[test]
    fn octets_that_keep_coming_do_not_move_the_deadline() {
        let (mut socket, mut peer) = pair();
        std::thread::spawn(move || {
            while peer.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let start = Instant::now();
        socket.set_deadline(2 * ABOUT);
        let mut buffer = [0];
        let error = loop {
            if let Err(error) = socket.read(&mut buffer) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= ABOUT);
    }

    #[test]
    fn a_peer_that_does_not_read_ends_our_writing_at_the_deadline() {
        let (mut socket, _peer) = pair();
        socket.set_deadline(Duration::from_millis(100));
        let much = vec![b'x'; 1 << 20];
        let error = loop {
            if let Err(error) = socket.write(&much) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    /// A peer that sends `octets` as fast as it can, and how many of them it was rid of.
    fn sent_while_lingering(linger: Linger, octets: usize) -> usize {
        let (mut socket, mut peer) = pair();
        let sender = std::thread::spawn(move || {
            let parts = 0..octets / 1000;
            parts.take_while(|_| peer.write_all(&[b'x'; 1000]).is_ok()).count() * 1000
        });
        socket.end_of_output().unwrap();
        socket.read_away(linger);
        drop(socket);
        sender.join().unwrap()
    }

    #[test]
    fn what_still_comes_is_read_for_as_long_and_as_much_as_the_limit_says() {
        let minute = Duration::from_secs(60);
        let much = 20_000_000;
        let all = Linger { time: minute, silence: SILENCE, octets: much as u64 };
        assert_eq!(sent_while_lingering(all, much), much);
        assert!(sent_while_lingering(Linger { octets: 1000, ..all }, much) < much);
        assert!(sent_while_lingering(Linger { time: Duration::ZERO, ..all }, much) < much);
    }

    #[test]
    fn a_peer_that_has_fallen_silent_is_not_waited_for() {
        let (mut socket, _peer) = pair();
        let start = Instant::now();
        let silence = 2 * ABOUT;
        socket.read_away(Linger { time: Duration::from_secs(60), silence, octets: 1000 });
        assert!(start.elapsed() >= ABOUT && start.elapsed() < Duration::from_secs(30));
    }

    /// On Linux a call with a time-out does not go on by itself after a stop.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_was_stopped_while_it_waited_goes_on_waiting() {
        let wait = |call: fn(&mut Socket) -> io::Result<()>| {
            std::thread::spawn(move || {
                let (mut socket, _peer) = pair();
                socket.set_deadline(Duration::from_millis(500));
                loop {
                    if let Err(error) = call(&mut socket) {
                        break error.kind();
                    }
                }
            })
        };
        let calls = [
            wait(|socket| socket.write(&[b'x'; 1 << 16]).map(drop)),
            wait(|socket| socket.read(&mut [0]).map(drop)),
            wait(|socket| socket.peek_octet().map(drop)),
        ];
        let me = std::process::id().to_string();
        for _ in 0..20 {
            let mut shell = std::process::Command::new("sh");
            // Only a stop that has happened interrupts; one that is pending is taken back.
            let script = "kill -STOP $0
                until grep -q '^State:.T' /proc/$0/status; do :; done
                kill -CONT $0";
            let status = shell.args(["-c", script, &me]).status();
            assert!(status.unwrap().success());
        }
        for call in calls {
            assert_eq!(call.join().unwrap(), ErrorKind::TimedOut);
        }
    }

    #[test]
    fn an_endless_limit_is_no_overflow() {
        let (mut socket, mut peer) = pair();
        socket.set_deadline(Duration::MAX);
        peer.write_all(b"x").unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap(), 1);
    }
}
