//! Chapter 8: a thread per client.

use std::fs;
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use crate::common::Client;
use crate::common::child::{ChildServer, EHLO};

/// How many threads of a process are there for clients.
fn client_threads(server: &ChildServer) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    tasks.filter_map(|task| name(task.ok()?).ok()).filter(|name| name.trim() == "client").count()
}

/// Whether the server says nothing to this client for a while.
fn is_waiting(client: &mut Client) -> bool {
    client.tcp().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let said = client.stream().read(&mut [0]);
    client.tcp().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    said.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// `--threads N`: N threads, made at the start and named `client`, serve all clients; whoever
/// comes while they are busy waits for the greeting, in the order in which clients came, and
/// no thread is made for it. A shutdown does not wait for those who wait. Without the flag each client
/// has a thread of its own.
#[test]
#[ignore = "exercise 8.1"]
fn exercise_8_1_a_pool_serves_all_clients_with_its_threads() {
    let spool = tempfile::tempdir().unwrap();
    let server = ChildServer::start(&[EHLO], spool.path(), &["--threads", "2"]).unwrap();
    let mut first = Client::connect(server.address);
    let _second = Client::connect(server.address);
    assert_eq!(client_threads(&server), 2, "threads for clients");
    let mut third = Client::silent(server.address);
    assert!(is_waiting(&mut third), "two threads are busy, and the third client is greeted");
    let mut fourth = Client::silent(server.address);
    assert_eq!(client_threads(&server), 2, "threads for clients, with two who wait");
    assert!(first.ask("QUIT").starts_with("221"));
    assert!(third.reply().starts_with("220"), "whoever came first is served first");
    assert!(is_waiting(&mut fourth), "the fourth client has to wait");
    third.all_granted(&["EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<bob@localhost>"]);
    assert!(third.ask("DATA").starts_with("354") && third.message("x\r\n").starts_with("250"));
    // A client that leaves while it waits costs nothing, and all threads are there afterwards.
    for _ in 0..5 {
        drop(Client::silent(server.address));
    }
    assert!(third.ask("QUIT").starts_with("221"));
    assert!(fourth.reply().starts_with("220"));
    assert_eq!(client_threads(&server), 2, "threads for clients, at the end");
    // Two are served and one waits; the shutdown tells the first two, and waits for nobody.
    let mut waiting = Client::silent(server.address);
    assert!(is_waiting(&mut waiting));
    let start = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "it took {:?}", start.elapsed());
    assert!(fourth.reply().starts_with("421"), "whoever is served hears of the shutdown");

    let server = ChildServer::start(&[EHLO], spool.path(), &[]).unwrap();
    let clients: Vec<Client> = (0..3).map(|_| Client::connect(server.address)).collect();
    assert_eq!(client_threads(&server), clients.len(), "without the flag");
}
