//! What all attempts share: made once from flags; what files say is asked for anew.
//! Without `Debug`, because a password may be in it.
//!
//! In: the answers to where letters wait, who we are, how next hops are found, and how
//! long everything may take. Out: nothing of its own; `delivery.rs` and
//! `conclusion.rs` ask here.
//!
//! Book: docs/14-the-queue.md.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use native_tls::TlsConnector;

use crate::dns::Resolver;
use crate::relay::client::Credentials;
use crate::smtp::site::Site;
use crate::store::spool::Spool;
use crate::trust::dkim::sign::Signer;

/// Who carries letters on: everything that all attempts share.
pub struct Courier {
    /// Where letters wait, and where reports begin.
    pub spool: Arc<Spool>,
    /// Names and mailboxes, as they are now.
    pub site: Box<dyn Fn() -> Arc<Site> + Send + Sync>,
    /// Where next hops are looked up, if there is no smarthost.
    pub resolver: Resolver,
    /// The port of next hops that DNS or an address literal names.
    pub port: u16,
    /// Whether mail may go to servers on this machine itself.
    pub loopback_hops: bool,
    /// The server that takes everything, as its files say now.
    pub smarthost: Box<dyn Fn() -> Option<Arc<Smarthost>> + Send + Sync>,
    /// Who signs our reports, as its file says now.
    pub signer: Box<dyn Fn() -> Option<Arc<Signer>> + Send + Sync>,
    /// Whether this address and port is one that we listen on.
    pub is_listening: Box<dyn Fn(SocketAddr) -> bool + Send + Sync>,
    /// Whether we listen on this address, at any port.
    pub is_our_address: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// Whether dialogues are printed.
    pub trace: bool,
    /// How long one command may take; the other deadlines follow from it.
    pub timeout: Duration,
    /// How long after the first attempt the second one is.
    pub retry: Duration,
    /// How old a letter gets before a sender who asked for it hears of the delay.
    pub warn: Duration,
    /// How old a letter gets before its sender is told that it did not get there.
    pub give_up: Duration,
}

/// Says who we are at the smarthost.
pub type Login = dyn Fn() -> Result<Credentials, String> + Send + Sync;

/// A server that takes all our mail for others. The system looks its name up, without MX.
pub struct Smarthost {
    /// A name or an IP address.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// Whether TLS begins with the first octet.
    pub is_tls_at_once: bool,
    /// Who we are there. Asked before each login, since a token lasts an hour or so; the
    /// error is for the log.
    pub login: Option<Box<Login>>,
    /// Checks its certificate; `None` to encrypt if it can be had, and check nothing.
    pub connector: Option<TlsConnector>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::ReversePath;
    use crate::smtp::dsn::MailDsn;
    use crate::smtp::session::Recipient;
    use crate::store::disk::Way;
    use crate::store::envelope::entries;
    use jiff::Timestamp;
    use std::path::Path;

    /// For the tests of all files that need one.
    impl Courier {
        /// For host.example, on a spool of its own, where every name is a mailbox. It asks no
        /// DNS server: of the next hops only mailboxes here can be reached.
        pub fn without_network(root: &Path) -> Courier {
            let site = Arc::new(Site::new("mx.host.example", "host.example", &[], None));
            Courier {
                spool: Arc::new(Spool::open(root, "mx.host.example").unwrap()),
                site: Box::new(move || Arc::clone(&site)),
                resolver: Resolver::new(Vec::new(), Duration::ZERO),
                port: 25,
                loopback_hops: false,
                smarthost: Box::new(|| None),
                signer: Box::new(|| None),
                is_listening: Box::new(|_| false),
                is_our_address: Box::new(|_| false),
                trace: false,
                timeout: Duration::ZERO,
                retry: Duration::from_secs(300),
                warn: Duration::from_secs(4 * 3600),
                give_up: Duration::from_secs(5 * 24 * 3600),
            }
        }

        /// Puts a letter into the queue, as if its mailboxes could not take it: an entry for
        /// each destination. Gives the ids.
        pub fn queue(
            &self,
            from: &ReversePath,
            recipients: Vec<Recipient>,
            arrived: Timestamp,
        ) -> Vec<String> {
            let name = self.spool.new_name(arrived);
            let trace = format!("Return-Path: {from}\n");
            let mut draft = self.spool.draft(&name, &trace, None).unwrap();
            draft.write(b"Subject: hello\n\nThe text.\n").unwrap();
            draft.sync().unwrap();
            let letter = draft.letter(from.clone(), MailDsn::default(), arrived);
            let entries = entries(&letter, recipients, false);
            let numbered = entries.iter().zip(1..);
            let ids = numbered.map(|(entry, number)| {
                let id = format!("{}-{number}", name.id);
                self.spool.queue().prepare(draft.path(), Way::Link, &id, entry).unwrap();
                self.spool.queue().commit(&id).unwrap();
                id
            });
            ids.collect()
        }
    }
}
