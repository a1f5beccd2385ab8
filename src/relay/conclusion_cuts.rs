//! What a sender is told, held against a power cut at every point.
//!
//! In: nothing. Out: the scenarios of reports and attempts, each held to its promises by
//! `store/power_cut.rs`. Where the letter goes elsewhere the next hop is a stub: no socket
//! is opened.
//!
//! Book: docs/07-maildir.md.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::dns::Resolver;
use crate::relay::conclusion::{conclude, note_answer};
use crate::relay::courier::Courier;
use crate::relay::delivery::attempt;
use crate::relay::plan::Manner;
use crate::smtp::address::{Domain, ReversePath};
use crate::smtp::answer::Answer;
use crate::smtp::dsn::Notify;
use crate::smtp::site::Site;
use crate::store::disk::power::{DiskLog, Promise, told, watch};
use crate::store::envelope::NextHop;
use crate::store::power_cut::{
    AfterCut, LETTER, Scenario, check, claim, deliver_from, effort, folder, mailbox, open,
    recipient, send,
};
use crate::store::queue::Claim;
use crate::store::spool::Spool;

/// A sender with a mailbox here, and one elsewhere.
const HERE: &str = "ann@host.example";
const ELSEWHERE: &str = "ann@client.example";

/// Everything that comes to a report, or should.
const SCENARIOS: [Scenario; 4] = [
    ("a report to a mailbox here", |root| refusal(root, HERE)),
    ("a report to another server", |root| refusal(root, ELSEWHERE)),
    ("a delivery that the sender wants to hear of", success),
    ("a letter that nobody can be told of", nobody_to_tell),
];

#[test]
fn a_power_cut_at_any_point_leaves_no_sender_untold() {
    let mut sum = 0;
    for (name, act) in SCENARIOS {
        let log = act(folder().path());
        let states = check(&log, work, effort()).unwrap_or_else(|why| panic!("{name}: {why}"));
        println!("{name}: {} events, {states} states", log.events.len());
        sum += states;
    }
    assert!(sum > 100, "only {sum} states were looked at");
}

/// Another server refuses Eva, and the sender has to hear of it.
fn refusal(root: &Path, sender: &'static str) -> DiskLog {
    let spool = open(root);
    let from = ReversePath::Mailbox(mailbox(sender));
    let id = deliver_from(&spool, from, LETTER, vec![recipient("eva@b.example")]).unwrap().concat();
    watch(root, || {
        told(Promise::Has(sender));
        refuse(&spool, claim(&spool, &id)).unwrap();
        told(Promise::AtMost(sender, 1));
    })
}

/// The sender wants to hear that Bob has the letter.
fn success(root: &Path) -> DiskLog {
    let spool = open(root);
    let mut bob = recipient("bob@host.example");
    bob.dsn.notify = Notify::parse("SUCCESS");
    let from = ReversePath::Mailbox(mailbox(HERE));
    let id = deliver_from(&spool, from, LETTER, vec![bob]).unwrap().concat();
    watch(root, || {
        told(Promise::Has("bob@host.example"));
        told(Promise::Has(HERE));
        attempt(&courier(&spool), &mut claim(&spool, &id), Manner::Heard).unwrap();
        told(Promise::AtMost("bob@host.example", 1));
        told(Promise::AtMost(HERE, 1));
    })
}

/// A report that cannot be delivered: there is nobody to tell about it.
fn nobody_to_tell(root: &Path) -> DiskLog {
    let spool = open(root);
    let to = vec![recipient("eva@b.example")];
    let id = deliver_from(&spool, ReversePath::Null, LETTER, to).unwrap().concat();
    watch(root, || {
        told(Promise::Kept);
        refuse(&spool, claim(&spool, &id)).unwrap();
    })
}

/// Works off an entry as the relay does.
fn work(spool: &Arc<Spool>, mut claim: Claim, found: &mut AfterCut) -> io::Result<()> {
    match &claim.entry.next_hop {
        NextHop::Mailbox(_) | NextHop::Nowhere => {
            attempt(&courier(spool), &mut claim, Manner::Heard).map(drop)
        }
        NextHop::Domain(Domain::Name(name)) if name == "b.example" => refuse(spool, claim),
        _ => send(spool, claim, found),
    }
}

/// The next hop refuses the letter for all who wait, and what follows from that.
fn refuse(spool: &Arc<Spool>, mut claim: Claim) -> io::Result<()> {
    for index in claim.entry.waiting() {
        note_answer(&mut claim, index, Answer::never((1, 1), "550 no such mailbox"), false);
    }
    conclude(&courier(spool), &site(), &mut claim, Timestamp::now()).map(drop)
}

fn site() -> Site {
    Site::new("mx.host.example", "host.example", &[], None)
}

/// All that an attempt needs where nothing goes over a network.
fn courier(spool: &Arc<Spool>) -> Courier {
    let day = Duration::from_secs(24 * 3600);
    Courier {
        spool: Arc::clone(spool),
        site: Box::new(|| Arc::new(site())),
        resolver: Resolver::new(Vec::new(), Duration::ZERO),
        port: 25,
        loopback_hops: false,
        smarthost: Box::new(|| None),
        signer: Box::new(|| None),
        is_listening: Box::new(|_| false),
        is_our_address: Box::new(|_| false),
        trace: false,
        timeout: Duration::ZERO,
        retry: day,
        warn: day,
        give_up: 5 * day,
    }
}
