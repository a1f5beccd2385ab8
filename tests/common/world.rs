//! A server that relays, and the small world that it sends to: next hops that do what
//! a test tells them, and DNS that leads there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use super::dns::{DnsServer, Trick};
use super::hop::{Act, Hop, Moment, Step};
use super::mta::{Mta, Net, until};
use super::report::Report;

pub const TEXT: &str = "Subject: hello\r\n\r\n..A line with a dot.\r\n";
/// Who sends, unless a test has somebody else. She is here.
pub const ANN: &str = "ann@here.example";
/// Mail for else.example goes to the first hop.
pub const ONE_HOP: &[&str] = &["else.example MX 10 hop.example", "hop.example A {1}"];
/// The same, and to the second one if the first does not take it.
pub const TWO_HOPS: &[&str] = &[
    "else.example MX 10 hop.example",
    "hop.example A {1}",
    "else.example MX 20 next.example",
    "next.example A {2}",
];
/// Used unless a test has others.
const FLAGS: [(&str, &str); 5] = [
    ("--smtp", "127.0.0.1:0"),
    ("--hostname", "here.example"),
    ("--relay", "open"),
    ("--retry", "0.05"),
    ("--timeout", "5"),
];

pub type Rules = Box<dyn Fn(Moment) -> Act + Send + Sync>;

/// A server, and the world that it sends to. Fields are dropped in this order:
/// once the hops are gone nothing can hold the server's shutdown up.
pub struct World {
    pub hops: Vec<Hop>,
    pub mta: Mta,
    pub dns: DnsServer,
    folder: TempDir,
}

impl World {
    /// One next hop, for else.example.
    pub fn with_hop(flags: &str, rules: impl Fn(Moment) -> Act + Send + Sync + 'static) -> World {
        World::start(flags, ONE_HOP, vec![Box::new(rules)])
    }

    /// Next hops at the addresses 1, 2 …, and this zone.
    pub fn start(flags: &str, zone: &[&str], rules: Vec<Rules>) -> World {
        World::with_tricks(flags, zone, &[], rules)
    }

    pub fn with_tricks(
        flags: &str,
        zone: &[&str],
        tricks: &[(&'static str, Trick)],
        rules: Vec<Rules>,
    ) -> World {
        World::with_aliases("", flags, zone, tricks, rules)
    }

    /// The same, with this file of aliases unless it is empty.
    pub fn with_aliases(
        aliases: &str,
        flags: &str,
        zone: &[&str],
        tricks: &[(&'static str, Trick)],
        rules: Vec<Rules>,
    ) -> World {
        let net = Net::new();
        let hops =
            (1..).zip(rules).map(|(host, rules)| Hop::start(net.address(host), rules)).collect();
        let dns = dns(&net, zone, tricks);
        let folder = tempfile::tempdir().unwrap();
        let flags = format!("{flags}{}", aliases_flag(folder.path(), aliases));
        let mta = Mta::start(&folder.path().join("spool"), &all_flags(&flags, &net, &dns));
        World { hops, mta, dns, folder }
    }

    pub fn hop(&self) -> &Hop {
        &self.hops[0]
    }

    /// Ends the server and starts another one on its spool.
    pub fn restart(&mut self, flags: &str) {
        self.mta.stop();
        self.mta = self.another(flags);
    }

    /// One more server on the same spool, in the same world.
    pub fn another(&self, flags: &str) -> Mta {
        let flags = with_defaults(flags, self.hop().address.port(), &self.dns);
        Mta::start(&self.mta.spool, &flags)
    }

    /// From ann, who is here.
    pub fn send(&self, to: &[&str]) -> String {
        self.mta.submit(ANN, to, TEXT)
    }

    /// Waits until a letter has left the queue.
    pub fn until_over(&self, id: &str) {
        until("the letter has left the queue", || self.mta.envelope(id).is_none());
    }

    /// The only report that ann has.
    pub fn only_report(&self) -> Report {
        let mut reports = self.reports();
        assert_eq!(reports.len(), 1, "reports");
        reports.remove(0)
    }

    /// The reports that ann has, in order of arrival.
    pub fn reports(&self) -> Vec<Report> {
        let mail = self.mta.mail("here.example", "ann");
        mail.iter().map(|text| Report::read(text)).collect()
    }

    pub fn has_report(&self) -> bool {
        !self.mta.mail("here.example", "ann").is_empty()
    }

    /// A place for files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The flag for a file of aliases with this text; none for none.
pub fn aliases_flag(folder: &Path, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let path: PathBuf = folder.join("aliases");
    std::fs::write(&path, text).unwrap();
    format!(" --aliases {}", path.display())
}

pub fn dns(net: &Net, zone: &[&str], tricks: &[(&'static str, Trick)]) -> DnsServer {
    let zone = net.zone(zone);
    DnsServer::with_tricks(&zone.iter().map(String::as_str).collect::<Vec<_>>(), tricks)
}

/// The flags of a test, and of [`FLAGS`] those that it does not have itself.
pub fn all_flags(flags: &str, net: &Net, dns: &DnsServer) -> String {
    with_defaults(flags, net.port, dns)
}

fn with_defaults(flags: &str, port: u16, dns: &DnsServer) -> String {
    let missing: String = FLAGS
        .iter()
        .filter(|(flag, _)| !flags.split(' ').any(|one| one == *flag))
        .map(|(flag, value)| format!(" {flag} {value}"))
        .collect();
    format!("{flags}{missing} --loopback-hops --relay-port {port} --dns {}", dns.address)
}

/// A rule for a hop that takes nothing until it is opened.
pub fn closed_until(open: &Arc<AtomicBool>) -> impl Fn(Moment) -> Act + Send + Sync + 'static {
    let open = Arc::clone(open);
    move |moment| match moment.step {
        Step::Greeting if !open.load(Ordering::SeqCst) => {
            Act::SayAndClose("421 4.3.2 not yet".to_owned())
        }
        _ => Act::Usual,
    }
}

/// The same act at one step of the first connections.
pub fn at_first(step: Step, connections: usize, act: Act) -> impl Fn(Moment) -> Act + Send + Sync {
    move |moment| {
        if moment.step == step && moment.connection <= connections {
            act.clone()
        } else {
            Act::Usual
        }
    }
}

/// The same act at one step, always.
pub fn always(step: Step, act: Act) -> impl Fn(Moment) -> Act + Send + Sync {
    at_first(step, usize::MAX, act)
}

/// Runs the same test for several cases at a time.
pub fn in_parallel<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}
