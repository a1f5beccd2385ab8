//! How many deliveries a destination may have: one that is silent stops no mail for the
//! others.

// Each server needs an address of its own, and only Linux gives out all of 127.0.0.0/8.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use common::hop::{Act, Hop, Moment, Step, usual};
use common::mta::{Mta, Net, until};
use common::world::{ANN, ONE_HOP, TEXT, World, all_flags, always, dns};

/// As many as a destination gets from which nothing was heard yet.
const UNKNOWN: usize = 1;
/// As many as one gets that answers.
const HEARD: usize = 8;
/// As many as all get together that were silent the last time.
const ALL_SILENT: usize = 16;

/// A world with a silent host for else.example, and another one.
fn with_silent_host() -> World {
    let zone = [ONE_HOP, &["live.example A {2}"]].concat();
    let hang = always(Step::Greeting, Act::Hang);
    World::start("--timeout 300", &zone, vec![Box::new(hang), Box::new(usual)])
}

#[test]
fn a_hop_that_hangs_does_not_stop_mail_for_others() {
    let world = with_silent_host();
    for _ in 0..12 {
        world.send(&["eve@else.example"]);
    }
    until("the dead hop holds threads", || world.hop().connections() == UNKNOWN);
    let id = world.send(&["bob@live.example"]);
    world.until_over(&id);
    assert_eq!(world.hops[1].recipients(), ["bob@live.example"]);
    assert_eq!(world.hop().connections(), UNKNOWN);
}

#[test]
fn a_letter_for_a_silent_host_and_another_reaches_the_other_at_once() {
    let world = with_silent_host();
    for number in 0..12 {
        world.send(&["eve@else.example", "bob@live.example"]);
        until("bob has it", || world.hops[1].letters().len() == number + 1);
    }
    until("the silent host has its share", || world.hop().connections() == UNKNOWN);
    let is_for_eve = |name: &String| name.contains("-1.");
    until("nothing is left of bob's", || world.mta.queue().iter().all(is_for_eve));
    // Eve's were never tried, or are being tried for the first time.
    assert!(world.mta.all_attempts().iter().all(|attempts| *attempts == 0));
}

#[test]
fn whoever_waits_for_a_place_is_charged_no_attempt() {
    let hang = always(Step::Greeting, Act::Hang);
    let world = World::with_hop("--timeout 0.2 --retry 3600", hang);
    for _ in 0..3 * UNKNOWN {
        world.send(&["eve@else.example"]);
    }
    until("all were tried", || world.mta.all_attempts().iter().all(|attempts| *attempts > 0));
    assert_eq!(world.mta.all_attempts(), [1; 3 * UNKNOWN]);
    assert_eq!(world.hop().connections(), 3 * UNKNOWN);
}

#[test]
fn a_hop_that_answers_gets_more_threads_than_one_that_does_not() {
    let hang_later = |moment: Moment| {
        if moment.step == Step::Mail && moment.connection > 1 { Act::Hang } else { Act::Usual }
    };
    let world = World::with_hop("--timeout 300", hang_later);
    let id = world.send(&["eve@else.example"]);
    world.until_over(&id);
    for _ in 0..12 {
        world.send(&["eve@else.example"]);
    }
    until("it has its share", || world.hop().connections() == 1 + HEARD);
    let other = world.send(&["ann@here.example"]);
    world.until_over(&other);
    assert_eq!(world.hop().connections(), 1 + HEARD);
}

#[test]
fn a_hop_that_lacks_what_a_letter_needs_was_not_silent() {
    let rules = |moment: Moment| match moment.step {
        Step::Ehlo if moment.connection == 1 => Act::Say("250 hop.example".to_owned()),
        Step::Mail => Act::Hang,
        _ => Act::Usual,
    };
    let world = World::with_hop("--timeout 300", rules);
    let id = world.mta.submit(ANN, &["eve@else.example"], "Subject: 8 bits\r\n\r\n\u{fc}\r\n");
    world.until_over(&id);
    for _ in 0..12 {
        world.send(&["eve@else.example"]);
    }
    until("it has its share", || world.hop().connections() == 1 + HEARD);
}

#[test]
fn all_that_were_silent_the_last_time_get_half_of_the_threads_together() {
    let net = Net::new();
    let names: Vec<String> = (0..20).map(|n| format!("silent{n}.example")).collect();
    let mut zone: Vec<String> = names.iter().map(|name| format!("{name} A {{2}}")).collect();
    zone.push("live.example A {1}".to_owned());
    let live = Hop::start(net.address(1), usual);
    let dns = dns(&net, &zone.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let flags = all_flags("--timeout 300 --retry 0.2", &net, &dns);
    let mta = Mta::start(&folder.path().join("spool"), &flags);
    // Nobody listens there yet, so all of them fail at once, and in silence.
    for name in &names {
        mta.submit(ANN, &[&format!("eve@{name}")], TEXT);
    }
    until("all were tried", || mta.all_attempts().iter().all(|attempts| *attempts > 0));
    let silent = Hop::start(net.address(2), always(Step::Greeting, Act::Hang));
    until("they have their share", || silent.connections() == ALL_SILENT);
    let id = mta.submit(ANN, &["bob@live.example"], TEXT);
    until("bob has his letter", || mta.envelope(&id).is_none());
    assert_eq!(live.recipients(), ["bob@live.example"]);
    assert_eq!(silent.connections(), ALL_SILENT);
    // The server can end only once nothing hangs any more.
    drop(silent);
}

#[test]
fn a_smarthost_that_hangs_gets_its_share_of_the_threads_whatever_the_domains() {
    let net = Net::new();
    let hop = Hop::start(net.address(1), always(Step::Greeting, Act::Hang));
    let flags = format!("--timeout 300 --smarthost {}", hop.address);
    let dns = dns(&net, &[], &[]);
    let folder = tempfile::tempdir().unwrap();
    let mta = Mta::start(&folder.path().join("spool"), &all_flags(&flags, &net, &dns));
    for number in 0..12 {
        mta.submit(ANN, &[&format!("bob@domain{number}.example")], TEXT);
    }
    until("it has its share", || hop.connections() == UNKNOWN);
    let local = mta.submit(ANN, &["bob@here.example"], TEXT);
    until("a letter for somebody here is there", || mta.envelope(&local).is_none());
    assert_eq!(hop.connections(), UNKNOWN);
    drop(hop);
}

#[test]
fn sixteen_hosts_that_nobody_knows_and_that_say_nothing_do_not_stop_mail_for_another() {
    let names: Vec<String> = (0..16).map(|number| format!("silent{number}.example")).collect();
    let zone: Vec<String> = names.iter().map(|name| format!("{name} A {{1}}")).collect();
    let zone: Vec<&str> = zone.iter().map(String::as_str).chain(["live.example A {2}"]).collect();
    let hang = always(Step::Greeting, Act::Hang);
    let world = World::start("--timeout 300", &zone, vec![Box::new(hang), Box::new(usual)]);
    let to: Vec<String> = names.iter().map(|name| format!("eve@{name}")).collect();
    for _ in 0..2 {
        world.send(&to.iter().map(String::as_str).collect::<Vec<_>>());
    }
    until("all silent hosts are being tried", || world.hop().connections() == names.len());
    let id = world.send(&["bob@live.example"]);
    world.until_over(&id);
    assert_eq!(world.hops[1].recipients(), ["bob@live.example"]);
}
