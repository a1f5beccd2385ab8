//! Chapter 14: the queue.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp, Unit};

use crate::common::child::{ChildServer, EHLO};
use crate::common::hop::{Act, Hop, Moment, Step};
use crate::common::mta::{Net, mail, until};
use crate::common::world::{ONE_HOP, TEXT, World, all_flags, always, dns};
use crate::common::{Client, files};
use crate::{announced, built};

/// When the next attempt is, in seconds from now, after so many were made.
fn pause_after(attempts: u32, world: &World, id: &str) -> i64 {
    until("the letter was tried", || world.mta.attempts(id) == Some(attempts));
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
    let hours = 3 * 3600..=4 * 3600;
    let full = world.send(&["full@else.example"]);
    let pause = pause_after(1, &world, &full);
    assert!(hours.contains(&pause), "the next attempt is in {pause} seconds");
    let busy = world.send(&["busy@else.example"]);
    let pause = pause_after(1, &world, &busy);
    assert!(!hours.contains(&pause), "busy is not full: {pause} seconds");
    let both = world.send(&["full@else.example", "busy@else.example"]);
    let pause = pause_after(1, &world, &both);
    assert!(!hours.contains(&pause), "one of two is not full: {pause} seconds");
    // Whoever got the letter does not count.
    let one_of_two = world.send(&["full@else.example", "dan@else.example"]);
    let pause = pause_after(1, &world, &one_of_two);
    assert!(hours.contains(&pause), "only the full one waits: {pause} seconds");
}

/// The pause is the same after any attempt, and a letter goes back no later for it.
#[test]
#[ignore = "exercise 14.1"]
fn exercise_14_1_a_later_attempt_has_the_pause_too_and_it_puts_no_end_off() {
    let is_busy = AtomicBool::new(true);
    let world = World::with_hop("--retry 0.05", move |moment: Moment| match moment.step {
        Step::Rcpt if is_busy.swap(false, Ordering::SeqCst) => {
            Act::Say("451 4.3.2 busy".to_owned())
        }
        Step::Rcpt => Act::Say("452 4.2.2 full".to_owned()),
        _ => Act::Usual,
    });
    let id = world.send(&["full@else.example"]);
    let pause = pause_after(2, &world, &id);
    assert!(pause > 3 * 3600, "full at the second attempt: the third one is in {pause} seconds");

    let world = World::with_hop("--retry 0.05 --give-up 2", |moment: Moment| match moment.step {
        Step::Rcpt => Act::Say("452 4.2.2 full".to_owned()),
        _ => Act::Usual,
    });
    world.send(&["full@else.example"]);
    until("the letter is given up after two seconds, not four hours", || world.has_report());
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

/// A server with a listener for its users.
fn for_users(spool: &Path, users: &Path, flags: &str) -> ChildServer {
    fs::write(users, "ann:{PLAIN}secret\nbob:{PLAIN}b\ndan:{PLAIN}d\neve:{PLAIN}e\n").unwrap();
    let mut all = vec!["--submission", "127.0.0.1:0", "--allow-plain-auth", "--users"];
    all.push(users.to_str().unwrap());
    all.extend(flags.split_whitespace());
    ChildServer::start(&[EHLO], spool, &all).unwrap()
}

/// Ann, after her login, and all that EHLO announced before it.
fn ann(server: &ChildServer) -> (Client, String) {
    let mut client = Client::connect(server.more_addresses[0]);
    let announced = announced(&mut client);
    client.all_granted(&["AUTH PLAIN AGFubgBzZWNyZXQ="]);
    (client, announced)
}

/// Sends a letter, and gives the start of its envelope's name.
fn send_held(client: &mut Client, hold: &str, to: &str) -> String {
    let mail = format!("MAIL FROM:<ann@localhost> {hold}");
    client.all_granted(&[&mail, &format!("RCPT TO:<{to}>"), "DATA"]);
    let reply = client.message(TEXT);
    reply.strip_prefix("250 2.6.0 stored as ").unwrap_or_else(|| panic!("{reply}")).to_owned()
}

/// What the envelopes of the queue say, whatever they are called.
fn envelopes(spool: &Path) -> String {
    let all = files(&spool.join("queue"));
    let is_envelope = |path: &&PathBuf| path.extension().is_some_and(|end| end == "envelope");
    all.iter().filter(is_envelope).filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// FUTURERELEASE (RFC 4865): a user says `MAIL FROM:<…> HOLDFOR=seconds`, 1 to 999999999, or
/// `HOLDUNTIL=2026-12-24T06:00:00Z`, and the letter waits in the queue until then, also if it is
/// for a mailbox here. EHLO announces it with two values, the longest time in seconds and the
/// last moment: 30 days, `FUTURERELEASE 2592000 2026-12-27T06:00:00Z`. That is for users alone:
/// the role smtp does not announce it, and answers 555 5.5.4. A wrong form, both at once, and a
/// time that is too far away are 501 5.5.4; a moment that has passed is now. Neither a
/// restart lets a letter out, nor SIGUSR1, which has everything tried; `queue now` does, which sets
/// the time in the envelope. `--give-up` and `--warn` count from the release. A command line may
/// be 34 octets longer.
#[test]
#[ignore = "exercise 14.3"]
fn exercise_14_3_a_letter_waits_for_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, users) = (folder.path().join("spool"), folder.path().join("users"));
    let server = for_users(&spool, &users, "");
    let (mut client, announced) = ann(&server);
    let line = announced.lines().find(|line| line.contains("FUTURERELEASE"));
    let line = line.unwrap_or_else(|| panic!("{announced}"));
    let values: Vec<&str> = line[4..].split(' ').collect();
    assert_eq!(values[..2], ["FUTURERELEASE", "2592000"], "{line}");
    let last = values[2].parse::<Timestamp>().unwrap().as_second() - Timestamp::now().as_second();
    assert!((2_592_000 - 60..=2_592_000).contains(&last), "the last moment: {line}");

    let days = |count: i64| Timestamp::now() + SignedDuration::from_hours(24 * count);
    let moment = |moment: Timestamp| format!("HOLDUNTIL={}", moment.round(Unit::Second).unwrap());
    send_held(&mut client, "HOLDFOR=86400", "bob@localhost");
    send_held(&mut client, &moment(days(29)), "dan@localhost");
    send_held(&mut client, &moment(days(-1)), "eve@localhost");
    let mail = |name: &str| mail(&spool, "localhost", name).len();
    assert_eq!((mail("bob"), mail("dan"), mail("eve")), (0, 0, 1), "a moment passed is now");
    assert_eq!(envelopes(&spool).matches("ehlo-queue").count(), 2);
    drop(client);
    server.stop();

    let server = for_users(&spool, &users, "");
    let (mut client, _) = ann(&server);
    server.signal("-USR1");
    server.wait_for_log("trying everything");
    send_held(&mut client, "HOLDFOR=1", "eve@localhost");
    until("the last letter is there", || mail("eve") == 2);
    assert_eq!((mail("bob"), mail("dan")), (0, 0), "a restart is no release, nor is SIGUSR1");
    let spool_flag = spool.to_str().unwrap();
    let queue = Command::new(built("queue")).args(["--spool", spool_flag, "now"]).output().unwrap();
    assert!(queue.status.success(), "{}", String::from_utf8_lossy(&queue.stderr));
    server.signal("-USR1");
    until("the queue was emptied", || mail("bob") == 1 && mail("dan") == 1);
}

#[test]
#[ignore = "exercise 14.3"]
fn exercise_14_3_wrong_times_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, users) = (folder.path().join("spool"), folder.path().join("users"));
    let server = for_users(&spool, &users, "");
    let (mut client, _) = ann(&server);
    let seconds = |count: i64| Timestamp::now() + SignedDuration::from_secs(count);
    let soon = format!("HOLDUNTIL={}", seconds(600));
    let too_late = format!("HOLDUNTIL={}", seconds(2_592_000 + 600));
    for wrong in [
        "HOLDFOR",
        "HOLDFOR=",
        "HOLDFOR=0",
        "HOLDFOR=-1",
        "HOLDFOR=+1",
        "HOLDFOR=1e3",
        "HOLDFOR=1000000000",
        "HOLDFOR=999999999",
        "HOLDFOR=2592001",
        "HOLDUNTIL",
        "HOLDUNTIL=",
        "HOLDUNTIL=tomorrow",
        "HOLDUNTIL=2026-12-24",
        &too_late,
        "HOLDFOR=60 HOLDFOR=60",
        &format!("HOLDFOR=60 {soon}"),
        &format!("{soon} HOLDFOR=60"),
    ] {
        let reply = client.ask(&format!("MAIL FROM:<ann@localhost> {wrong}"));
        assert!(reply.starts_with("501 5.5.4 "), "{wrong}: {reply}");
    }
    // The line may have grown by what the extension needs, and no more.
    let line = |blanks: usize| format!("MAIL FROM:<ann@localhost>{}HOLDFOR=60", " ".repeat(blanks));
    let limit = 512 + 26 + 17 + 10 + 500 + 34 - 2;
    let longest = line(limit - line(0).len());
    assert!(client.ask(&longest).starts_with("250"), "a line of the longest length");
    client.all_granted(&["RSET"]);
    assert!(client.ask(&(longest + " ")).starts_with("500 "), "one octet longer");
    // And in the other role nobody knows the words.
    let mut stranger = Client::connect(server.address);
    stranger.all_granted(&["EHLO client.example"]);
    for word in ["HOLDFOR=60", &soon] {
        let reply = stranger.ask(&format!("MAIL FROM:<ann@client.example> {word}"));
        assert!(reply.starts_with("555 5.5.4 "), "{word}: {reply}");
    }
}

#[test]
#[ignore = "exercise 14.3"]
fn exercise_14_3_its_days_in_the_queue_begin_with_the_release() {
    let net = Net::new();
    let hop =
        Hop::start(net.address(1), Box::new(always(Step::Mail, Act::Say("451 no".to_owned()))));
    let dns = dns(&net, ONE_HOP, &[]);
    let folder = tempfile::tempdir().unwrap();
    let (spool, users) = (folder.path().join("spool"), folder.path().join("users"));
    let flags = all_flags("--retry 1 --give-up 3 --warn 3", &net, &dns);
    let flags = flags.replace("--smtp 127.0.0.1:0", "").replace("--hostname here.example", "");
    let server = for_users(&spool, &users, &flags);
    let (mut client, _) = ann(&server);
    send_held(&mut client, "HOLDFOR=5", "dan@else.example");
    until("the letter was tried", || hop.count("MAIL") > 0);
    until("its first attempt is over", || envelopes(&spool).contains("ATTEMPTS 1"));
    let envelope = envelopes(&spool);
    assert!(envelope.contains("STATE waiting 4."), "it is not too old: {envelope}");
    until("it was given up in the end", || envelopes(&spool).is_empty());
    assert!(hop.count("MAIL") > 1, "it was tried again");
}
