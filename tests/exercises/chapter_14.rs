//! Chapter 14: the queue.

use jiff::Timestamp;

use crate::common::hop::{Act, Moment, Step};
use crate::common::mta::until;
use crate::common::world::{ONE_HOP, TEXT, World};

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
    let world = World::with_hop("--retry 300", |moment: Moment| match moment.step {
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

/// An alias `list` is a mailing list if there is an alias `owner-list` as well. Letters that go
/// on through it to other servers have the envelope sender `owner-list@` and the domain, so
/// whoever keeps the list hears of dead members, and the author does not; and the list answers
/// for its members itself, so nothing of the author's NOTIFY, RET or ENVID goes along (RFC
/// 3461 section 5.2.7.3). An alias without an owner passes all of that on.
#[test]
#[ignore = "exercise 14.2"]
fn exercise_14_2_a_list_has_a_sender_of_its_own() {
    let aliases = "list: dan@else.example, dead@else.example\nowner-list: ann\n\
                   plain: eve@else.example\n";
    let rules = |moment: Moment| match moment.step {
        Step::Ehlo => Act::Say("250-hop.example\r\n250 DSN".to_owned()),
        Step::Rcpt if moment.line.contains("dead") => Act::Say("550 5.1.1 nobody".to_owned()),
        _ => Act::Usual,
    };
    let world = World::with_aliases(aliases, "", ONE_HOP, &[], vec![Box::new(rules)]);
    let from = "<carol@here.example> RET=HDRS ENVID=7";
    let id = world.mta.submit_with(from, &["<list@here.example> NOTIFY=SUCCESS"], TEXT);
    world.until_over(&id);
    let letters = world.hop().letters();
    assert_eq!(letters.len(), 1, "one letter arrived");
    assert_eq!(letters[0].to, ["dan@else.example"]);
    let mail = &letters[0].mail;
    assert!(mail.contains("<owner-list@here.example>"), "the list is the sender: {mail}");
    assert!(!mail.contains("ENVID") && !mail.contains("RET="), "{mail}");
    let commands = world.hop().commands().join("\n");
    assert!(!commands.contains("NOTIFY"), "NOTIFY stays here: {commands}");
    // Ann keeps the list, and hears of the dead member.
    until("ann hears of the dead member", || world.has_report());
    assert_eq!(world.only_report().addresses(), ["dead@else.example"]);
    let told = world.mta.mail("here.example", "carol");
    let is_about_dead = |mail: &Vec<u8>| String::from_utf8_lossy(mail).contains("dead@");
    assert!(!told.iter().any(is_about_dead), "carol need not know the members");
    // The stored text is one for all, and says who wrote it.
    assert!(letters[0].text.contains("Subject: hello"), "{}", letters[0].text);
    let id = world.mta.submit_with(from, &["<plain@here.example>"], TEXT);
    world.until_over(&id);
    let mail = &world.hop().letters()[1].mail;
    assert!(mail.contains("<carol@here.example>") && mail.contains("ENVID=7"), "{mail}");
}
