//! The queue through a stop, a start, and under several servers at a time.
//!
//! `EHLO_FULL=1 cargo test --test queue_processes` takes many more letters.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::hop::{Act, Step};
use common::mta::until;
use common::world::{ANN, TEXT, World, at_first, closed_until};

/// How many letters two servers fight over: 3,000 with `EHLO_FULL=1`.
fn letters() -> usize {
    if std::env::var_os("EHLO_FULL").is_some() { 3_000 } else { 200 }
}

#[test]
fn letters_wait_through_a_stop_and_go_out_afterwards() {
    let open = Arc::new(AtomicBool::new(false));
    let mut world = World::with_hop("--retry 0.2", closed_until(&open));
    let to: Vec<String> = (0..5).map(|n| format!("u{n}@else.example")).collect();
    let ids: Vec<String> = to.iter().map(|to| world.send(&[to])).collect();
    until("all were tried", || ids.iter().all(|id| world.mta.attempts(id) >= Some(1)));
    world.mta.stop();
    open.store(true, Ordering::SeqCst);
    assert_eq!(world.mta.queue().len(), 10);
    assert!(world.hop().letters().is_empty());
    world.restart("");
    until("all are out", || world.mta.queue().is_empty());
    assert_eq!(world.hop().recipients(), to);
}

#[test]
fn a_letter_that_was_put_off_into_another_age_is_tried_now() {
    let mut world =
        World::with_hop("--retry 3600", at_first(Step::Mail, 1, Act::Say("451 no".to_owned())));
    let id = world.send(&["eve@else.example"]);
    until("it was tried", || world.mta.attempts(&id) == Some(1));
    world.mta.stop();
    // As it is where the clock was ahead at the last attempt.
    let path = world.mta.spool.join("queue").join(format!("{id}-1.envelope"));
    let next = |line: &str| {
        let is_next = line.starts_with("NEXT ");
        if is_next { "NEXT 2099-01-01T00:00:00Z\n".to_owned() } else { format!("{line}\n") }
    };
    let envelope: String = fs::read_to_string(&path).unwrap().lines().map(next).collect();
    fs::write(&path, envelope).unwrap();
    world.restart("--retry 3600");
    world.until_over(&id);
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
}

#[test]
fn whoever_asks_has_everything_tried_now() {
    let world =
        World::with_hop("--retry 3600", at_first(Step::Mail, 1, Act::Say("451 no".to_owned())));
    let id = world.send(&["eve@else.example"]);
    until("it was tried", || world.mta.attempts(&id) == Some(1));
    // The first time may be too early: its thread is perhaps not done.
    until("it is out", || {
        world.mta.handle.try_all_now();
        world.mta.envelope(&id).is_none()
    });
    assert_eq!(world.hop().recipients(), ["eve@else.example"]);
}

#[test]
fn two_servers_share_one_spool_and_no_letter_goes_twice() {
    let open = Arc::new(AtomicBool::new(false));
    let world = World::with_hop("--retry 3600", closed_until(&open));
    let other = world.another("--retry 3600");
    let to: BTreeSet<String> = (0..50).map(|n| format!("u{n}@else.example")).collect();
    for (number, to) in to.iter().enumerate() {
        let mta = if number % 2 == 0 { &world.mta } else { &other };
        mta.submit(ANN, &[to], TEXT);
    }
    open.store(true, Ordering::SeqCst);
    until("all are out", || {
        world.mta.handle.try_all_now();
        other.handle.try_all_now();
        world.mta.queue().is_empty()
    });
    assert_eq!(world.hop().recipients(), to.into_iter().collect::<Vec<_>>());
}

#[test]
fn two_servers_that_find_the_same_full_queue_send_everything_once() {
    let zone = ["one.example A {1}", "two.example A {1}", "three.example A {1}"];
    let open = Arc::new(AtomicBool::new(false));
    let mut world = World::start("--retry 3600", &zone, vec![Box::new(closed_until(&open))]);
    let count = letters();
    let to = |n: usize| ["one", "two", "three"].map(|domain| format!("u{n:04}@{domain}.example"));
    let mta = &world.mta;
    thread::scope(|scope| {
        for quarter in 0..4 {
            scope.spawn(move || {
                for number in (quarter..count).step_by(4) {
                    mta.submit(ANN, &to(number).each_ref().map(String::as_str), TEXT);
                }
            });
        }
    });
    world.mta.stop();
    assert_eq!(world.mta.queue().len(), count * 3 * 2);
    open.store(true, Ordering::SeqCst);

    // Both look at every entry, and at once.
    world.restart("--retry 3600");
    let other = world.another("--retry 3600 --hostname other.example");
    let begun = Instant::now();
    world.mta.handle.try_all_now();
    other.handle.try_all_now();
    let mut left = usize::MAX;
    while left > 0 {
        until("one more is out", || world.mta.queue().len() < left);
        left = world.mta.queue().len();
    }
    println!("{count} letters for three destinations each: {:?}", begun.elapsed());
    let mut wanted: Vec<String> = (0..count).flat_map(to).collect();
    wanted.sort();
    assert_eq!(world.hop().recipients(), wanted);
    for server in ["here.example", "other.example"] {
        assert!(world.hop().count(&format!("EHLO {server}")) > count / 2, "{server} was idle");
    }
    assert!(world.mta.mail("here.example", "ann").is_empty());
}

#[test]
fn a_shutdown_ends_while_a_letter_is_under_way_and_the_letter_stays() {
    let mut world = World::with_hop("--timeout 0.5", at_first(Step::Dot, 1, Act::Hang));
    let id = world.send(&["eve@else.example"]);
    until("it is under way", || world.hop().count("DATA") == 1);
    let start = Instant::now();
    world.mta.stop();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let envelope = world.mta.envelope(&id).unwrap();
    assert!(envelope.contains("GIVEN <eve@else.example>\nSTATE waiting"), "{envelope}");
    assert!(world.mta.spool.join("queue").join(format!("{id}-1.message")).exists());
}
