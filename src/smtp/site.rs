//! What this server knows of itself: its names, its mailboxes, its limits.
//!
//! The session asks here whose mail this is. All look-ups are pure: the data
//! was read and checked by others, and is never changed while sessions use it.
//!
//! Not known here: whether a folder exists yet (`store/maildir.rs` makes it).
//!
//! Book: docs/04-commands-and-addresses.md.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::smtp::address::{Domain, ForwardPath, ascii_domain};
use crate::smtp::reply::{self, Reply};

/// The mailbox that no policy refuses (RFC 5321 section 4.5.1).
const POSTMASTER: &str = "postmaster";

/// 25 MiB: what large providers take.
pub const DEFAULT_MAX_SIZE: u64 = 25 * 1024 * 1024;
/// Ten times what RFC 5321 section 4.5.3.1.8 asks for at least.
pub const DEFAULT_MAX_RECIPIENTS: usize = 1000;

/// Names, mailboxes and limits of this server.
#[derive(Debug, Clone)]
pub struct Site {
    /// How the server calls itself in replies and trace fields.
    pub hostname: String,
    /// The largest message taken, in octets (RFC 1870).
    pub max_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// The first of our domains: where a bare `<postmaster>` lives.
    home: String,
    /// All our domains, as [`ascii_domain`] spells them.
    domains: BTreeSet<String>,
    /// The only mailboxes, by their local-part in lower case; `None` where every
    /// name is a mailbox.
    mailboxes: Option<BTreeSet<String>>,
}

/// One mailbox of this server. However an address was written, what leads to
/// the same mailbox compares as equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalMailbox {
    /// One of the server's domains, in lower case and A-labels.
    pub domain: String,
    /// The local-part: unquoted, in lower case, without `+detail`.
    pub name: String,
}

impl Site {
    /// `home` and `more_domains` are what this server receives mail for;
    /// `mailboxes` are the only local-parts it takes there, or `None` to take
    /// every one. With a list each name is one mailbox, under `home`, whichever
    /// of the domains was addressed.
    pub fn new(
        hostname: &str,
        home: &str,
        more_domains: &[String],
        mailboxes: Option<&[String]>,
    ) -> Site {
        let fold = |name: &str| ascii_domain(name).unwrap_or_else(|| name.to_ascii_lowercase());
        let mut domains: BTreeSet<String> = more_domains.iter().map(|name| fold(name)).collect();
        domains.insert(fold(home));
        Site {
            hostname: hostname.to_owned(),
            max_size: DEFAULT_MAX_SIZE,
            max_recipients: DEFAULT_MAX_RECIPIENTS,
            home: fold(home),
            domains,
            mailboxes: mailboxes
                .map(|names| names.iter().map(|name| name.to_ascii_lowercase()).collect()),
        }
    }

    /// The mailbox that a recipient leads to, or the reply that refuses it.
    /// `connected_to` is our own address that the client chose.
    pub fn mailbox(&self, to: &ForwardPath, connected_to: IpAddr) -> Result<LocalMailbox, Reply> {
        let (local_part, domain) = match to {
            ForwardPath::Postmaster => (POSTMASTER, self.home.clone()),
            ForwardPath::Mailbox(mailbox) => {
                let domain = self.local_domain(&mailbox.domain, connected_to);
                (mailbox.local_part.as_str(), domain.ok_or_else(reply::relaying_denied)?)
            }
        };
        let name = self.name(local_part).ok_or_else(reply::no_such_mailbox)?;
        let domain = if self.mailboxes.is_some() { self.home.clone() } else { domain };
        Ok(LocalMailbox { domain, name })
    }

    /// The domain in the form of `domains`, if it is one of ours.
    /// `user@[literal]` is ours if the client came to that very address.
    fn local_domain(&self, domain: &Domain, connected_to: IpAddr) -> Option<String> {
        match domain {
            Domain::Name(name) => ascii_domain(name).filter(|name| self.domains.contains(name)),
            Domain::Literal(address) => {
                (address.to_canonical() == connected_to).then(|| self.home.clone())
            }
        }
    }

    /// The mailbox name for a local-part. An exact name wins over `name+detail`
    /// (RFC 5233), so that a mailbox may have a plus in its name.
    fn name(&self, local_part: &str) -> Option<String> {
        let exact = local_part.to_ascii_lowercase();
        let base = match exact.split_once('+') {
            Some((base, _)) if !base.is_empty() => base.to_owned(),
            _ => exact.clone(),
        };
        let Some(mailboxes) = &self.mailboxes else {
            return Some(base);
        };
        [exact, base].into_iter().find(|name| name == POSTMASTER || mailboxes.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn site(mailboxes: Option<&[String]>) -> Site {
        Site::new("mx.host.example", "Host.example", &["b\u{fc}cher.example".to_owned()], mailboxes)
    }

    /// `name at domain`, or the code of the refusal.
    fn look_up(site: &Site, path: &str) -> String {
        let (to, _) = ForwardPath::parse(path).unwrap();
        match site.mailbox(&to, HERE) {
            Ok(LocalMailbox { domain, name }) => format!("{name} at {domain}"),
            Err(reply) => format!("{} {}", reply.code(), reply.enhanced().unwrap()),
        }
    }

    #[test]
    fn case_quotes_and_detail_lead_to_the_same_mailbox() {
        let site = site(None);
        for path in [
            "<ann@host.example>",
            "<ANN@HOST.example>",
            "<\"ann\"@host.example>",
            "<ann+lists@host.example>",
            "<ann@[127.0.0.1]>",
            "<ann@[IPv6:::ffff:127.0.0.1]>",
        ] {
            assert_eq!(look_up(&site, path), "ann at host.example", "{path}");
        }
        assert_eq!(look_up(&site, "<+x@host.example>"), "+x at host.example");
    }

    #[test]
    fn a_domain_is_the_same_in_u_labels_and_a_labels() {
        let site = site(None);
        for path in ["<ann@b\u{fc}cher.example>", "<ann@xn--bcher-kva.example>"] {
            assert_eq!(look_up(&site, path), "ann at xn--bcher-kva.example");
        }
    }

    #[test]
    fn every_other_domain_and_address_is_relaying() {
        let site = site(None);
        for path in ["<ann@else.example>", "<ann@[127.0.0.2]>", "<ann@sub.host.example>"] {
            assert_eq!(look_up(&site, path), "550 5.7.1", "{path}");
        }
    }

    #[test]
    fn with_a_list_its_names_are_the_only_mailboxes_and_live_at_home() {
        let names = ["Ann", "a+b"].map(str::to_owned);
        let site = site(Some(&names));
        assert_eq!(look_up(&site, "<ann@b\u{fc}cher.example>"), "ann at host.example");
        assert_eq!(look_up(&site, "<ann+x@host.example>"), "ann at host.example");
        assert_eq!(look_up(&site, "<a+b@host.example>"), "a+b at host.example");
        assert_eq!(look_up(&site, "<a@host.example>"), "550 5.1.1");
        assert_eq!(look_up(&site, "<bob@host.example>"), "550 5.1.1");
    }

    #[test]
    fn postmaster_is_never_refused() {
        let site = site(Some(&[]));
        for path in
            ["<Postmaster>", "<POSTMASTER@host.example>", "<postmaster@b\u{fc}cher.example>"]
        {
            assert_eq!(look_up(&site, path), "postmaster at host.example", "{path}");
        }
        assert_eq!(look_up(&site, "<postmaster@else.example>"), "550 5.7.1");
    }
}
