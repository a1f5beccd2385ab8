//! Chapter 14: the queue.

use jiff::Timestamp;

use crate::common::hop::{Act, Moment, Step};
use crate::common::mta::until;
use crate::common::world::World;

/// When the next attempt is, in seconds from now, after the first one was made.
fn pause_after_the_first_attempt(world: &World, id: &str) -> i64 {
    until("the letter was tried", || world.mta.attempts(id) == Some(1));
    let envelope = world.mta.envelope(id).unwrap();
    let next = envelope.lines().find_map(|line| line.strip_prefix("NEXT ")).unwrap();
    next.parse::<Timestamp>().unwrap().as_second() - Timestamp::now().as_second()
}

/// A full mailbox (4.2.2) is not empty in five minutes. If all recipients that still wait have
/// heard that, the next attempt is four hours away; if one of them has heard something else,
/// it is when it would have been.
#[test]
#[ignore = "exercise 14.1"]
fn exercise_14_1_a_full_mailbox_is_tried_again_in_four_hours() {
    let world = World::with_hop("", |moment: Moment| match moment.step {
        Step::Rcpt if moment.line.contains("full") => Act::Say("452 4.2.2 full".to_owned()),
        Step::Rcpt if moment.line.contains("busy") => Act::Say("451 4.3.2 busy".to_owned()),
        _ => Act::Usual,
    });
    let hours = 3600..=4 * 3600;
    let full = world.send(&["full@else.example"]);
    let pause = pause_after_the_first_attempt(&world, &full);
    assert!((3 * 3600..=4 * 3600).contains(&pause), "the next attempt is in {pause} seconds");
    let busy = world.send(&["busy@else.example"]);
    let pause = pause_after_the_first_attempt(&world, &busy);
    assert!(!hours.contains(&pause), "busy is not full: {pause} seconds");
    let both = world.send(&["full@else.example", "busy@else.example"]);
    let pause = pause_after_the_first_attempt(&world, &both);
    assert!(!hours.contains(&pause), "one of two is not full: {pause} seconds");
    // Whoever got the letter does not count.
    let one_of_two = world.send(&["full@else.example", "dan@else.example"]);
    let pause = pause_after_the_first_attempt(&world, &one_of_two);
    assert!(hours.contains(&pause), "only the full one waits: {pause} seconds");
}
