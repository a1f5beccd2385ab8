//! Chapter 5: the state machine.

use std::time::{Duration, Instant};

use crate::common::{Client, TestServer};

/// How long these commands take, each of them refused.
fn refusals(client: &mut Client, count: usize) -> Vec<Duration> {
    let refusal = |_| {
        let start = Instant::now();
        let reply = client.ask("HELLO");
        assert!(reply.starts_with("500"), "{reply}");
        start.elapsed()
    };
    (0..count).map(refusal).collect()
}

/// The first ten commands that are refused with 5yz are answered at once, each further one half
/// a second late, until a message is accepted; then counting begins anew. The session still
/// ends with the refusal after the twentieth. Nothing in smtp/ sleeps or looks at a clock.
#[test]
#[ignore = "exercise 5.1"]
fn exercise_5_1_refusals_after_the_tenth_are_half_a_second_late() {
    let server = TestServer::start(&[]);
    let mut client = Client::connect(server.address);
    let half = Duration::from_millis(500);
    // A busy machine may make one late that should not be, but hardly all of them.
    assert!(refusals(&mut client, 10).into_iter().min() < Some(half / 2), "the first ten are late");
    assert!(refusals(&mut client, 3).into_iter().min() >= Some(half), "the eleventh is not late");
    client.all_granted(&["EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<bob@localhost>"]);
    assert!(client.ask("DATA").starts_with("354") && client.message("x\r\n").starts_with("250"));
    assert!(
        refusals(&mut client, 10).into_iter().min() < Some(half / 2),
        "after a letter ten are answered at once again"
    );
    refusals(&mut client, 10);
    assert!(client.ask("HELLO").starts_with("421"), "twenty are enough");
}
