//! What this server knows of itself: its names, its mailboxes, its limits.
//!
//! The session asks here whose mail this is. All look-ups are pure: the data
//! was read and checked by others, and is never changed while sessions use it.
//! What an alias leads to in the end is worked out in [`expansion`], once; who may
//! send under which address is decided in [`senders`].
//!
//! Not known here: whether a folder exists yet (`store/maildir.rs` makes it).
//!
//! Book: docs/04-commands-and-addresses.md.

pub mod expansion;
pub mod senders;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::smtp::address::{Domain, ForwardPath, Mailbox, ascii_domain};
use crate::smtp::auth::users::Users;
use crate::smtp::reply::{self, Reply};
use crate::smtp::text::{FOLDER_NAME_LIMIT, folder_name};

/// The mailbox that is there at each of our domains, whoever is not (RFC 5321 section 4.5.1).
const POSTMASTER: &str = "postmaster";

/// The alias that takes what nobody else takes.
const EVERYBODY_ELSE: &str = "*";

/// 25 MiB: what large providers take.
pub const DEFAULT_MAX_SIZE: u64 = 25 * 1024 * 1024;
/// Ten times what RFC 5321 section 4.5.3.1.8 asks for at least.
pub const DEFAULT_MAX_RECIPIENTS: usize = 1000;
/// What RFC 5321 section 4.5.3.2.7 asks a server to wait for a command at least.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Names, mailboxes, users and limits of this server.
#[derive(Debug)]
pub struct Site {
    /// How the server calls itself in replies and trace fields.
    pub hostname: String,
    /// The largest message taken, in octets (RFC 1870).
    pub max_size: u64,
    /// The most destinations of one message. One that is alone may be an alias that leads to
    /// more.
    pub max_recipients: usize,
    /// Whether a client can encrypt: there is a certificate.
    pub has_tls: bool,
    /// Whether passwords are taken in clear.
    pub allow_plain_auth: bool,
    /// How long a client may take for one command.
    pub timeout: Duration,
    /// Whose mail for other servers is taken.
    pub relay: Relay,
    /// The first of our domains: where a bare `<postmaster>` lives.
    home: String,
    /// All our domains, as [`ascii_domain`] spells them.
    domains: BTreeSet<String>,
    /// Who may log in; `None` where nobody can.
    users: Option<Users>,
    mailboxes: Mailboxes,
    /// By `name@domain`, or `name@` for all domains: what an alias stands for in the end.
    aliases: BTreeMap<String, Vec<Destination>>,
}

/// Which names are mailboxes.
#[derive(Debug)]
enum Mailboxes {
    /// Every name at each of our domains.
    All,
    /// These, each under `home`, whichever of our domains was addressed.
    AtHome(BTreeSet<String>),
    /// These, `name@domain`.
    Whole(BTreeSet<String>),
}

/// Where a letter goes for one of its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into a mailbox of this server.
    Here(LocalMailbox),
    /// To another server. The domain is in lower case, so that two spellings of one
    /// address are the same.
    Elsewhere(Mailbox),
    /// Nowhere: this alias leads to several destinations, each with an entry of its own,
    /// and the sender wants to hear that it did (RFC 3461 section 5.2.7.3).
    Expansion(Mailbox),
}

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// One destination or more.
    pub destinations: Vec<Destination>,
    /// The alias that led there, if it was one, in its one spelling.
    pub alias: Option<Mailbox>,
}

/// Whose mail for other servers is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// Nobody's. An alias that leads elsewhere is refused as well, unless it is that of the
    /// postmaster.
    Nobody,
    /// That of users who have logged in.
    Authenticated,
    /// Everybody's, on loopback addresses only: an open relay serves those who
    /// send unwanted mail, and is found within hours.
    Everybody,
}

/// One mailbox of this server. However an address was written, what leads to
/// the same mailbox compares as equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalMailbox {
    /// One of the server's domains, in lower case and A-labels.
    pub domain: String,
    /// The local-part: unquoted, in lower case, without a `+detail` that was not looked at.
    pub name: String,
}

impl Site {
    /// `home` and `more_domains` are what this server receives mail for;
    /// `mailboxes` are the only ones, as bare names or as whole addresses, or
    /// `None` to take every name. With bare names each is one mailbox, under
    /// `home`, whichever of the domains was addressed.
    pub fn new(
        hostname: &str,
        home: &str,
        more_domains: &[String],
        mailboxes: Option<&[String]>,
    ) -> Site {
        let fold = |name: &str| ascii_domain(name).unwrap_or_else(|| name.to_ascii_lowercase());
        let mut domains: BTreeSet<String> = more_domains.iter().map(|name| fold(name)).collect();
        domains.insert(fold(home));
        let mailboxes = match mailboxes {
            None => Mailboxes::All,
            Some(names) => {
                let is_whole = names.iter().any(|name| name.contains('@'));
                let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
                if is_whole { Mailboxes::Whole(names) } else { Mailboxes::AtHome(names) }
            }
        };
        Site {
            hostname: hostname.to_owned(),
            max_size: DEFAULT_MAX_SIZE,
            max_recipients: DEFAULT_MAX_RECIPIENTS,
            has_tls: false,
            allow_plain_auth: false,
            timeout: DEFAULT_TIMEOUT,
            users: None,
            relay: Relay::Authenticated,
            home: fold(home),
            domains,
            mailboxes,
            aliases: BTreeMap::new(),
        }
    }

    /// Lets these users log in, under each of our domains.
    pub fn set_users(&mut self, users: Users) {
        self.users = Some(users.at(&self.domains));
    }

    /// Who may log in; `None` where nobody can.
    pub fn users(&self) -> Option<&Users> {
        self.users.as_ref()
    }

    /// Where a recipient leads, or the reply that refuses it. `connected_to` is our own
    /// address that the client chose, `is_user` is whether it has logged in.
    pub fn resolve(
        &self,
        to: &ForwardPath,
        connected_to: IpAddr,
        is_user: bool,
    ) -> Result<Resolved, Reply> {
        let (local_part, domain) = match to {
            ForwardPath::Postmaster => (POSTMASTER, self.home.clone()),
            ForwardPath::Mailbox(mailbox) => {
                match self.local_domain(&mailbox.domain, connected_to) {
                    Some(domain) => (mailbox.local_part.as_str(), domain),
                    None if self.may_relay(is_user) => {
                        let destinations = vec![elsewhere(mailbox)];
                        return Ok(Resolved { destinations, alias: None });
                    }
                    None => return Err(reply::relaying_denied()),
                }
            }
        };
        let found = self.look_up(local_part, &domain).ok_or_else(reply::no_such_mailbox)?;
        // Who made the alias wants its mail to go there, whoever sent it. Part of it
        // denied means all of it refused: a letter that gets a 250 must reach
        // everybody it was meant for. But postmaster is never refused.
        let is_postmaster = local_part.eq_ignore_ascii_case(POSTMASTER);
        let is_denied = |to: &Destination| {
            self.relay == Relay::Nobody && !is_postmaster && to.address().is_some()
        };
        if found.destinations.iter().any(is_denied) {
            return Err(reply::relaying_denied());
        }
        Ok(found)
    }

    /// Whether a client may send to other servers.
    fn may_relay(&self, is_user: bool) -> bool {
        match self.relay {
            Relay::Nobody => false,
            Relay::Authenticated => is_user,
            Relay::Everybody => true,
        }
    }

    /// More octets than this are not read to the end of the message, whatever is answered.
    /// That much was said by mistake or in bad faith: it can be no letter, and could keep a
    /// thread busy for years.
    pub fn endless_size(&self) -> u64 {
        self.max_size.saturating_mul(2)
    }

    /// The first of our domains. Here `postmaster` is always somebody, which is not
    /// so at the hostname: it need not be one of our domains.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// Whether this server takes mail for the domain, spelt as [`ascii_domain`] does.
    pub fn has_domain(&self, domain: &str) -> bool {
        self.domains.contains(domain)
    }

    /// The domain in the form of `domains`, if it is one of ours.
    /// `user@[literal]` is ours if the client came to that very address.
    fn local_domain(&self, domain: &Domain, connected_to: IpAddr) -> Option<String> {
        match domain {
            Domain::Name(_) => self.local_name(domain),
            Domain::Literal(address) => {
                (address.to_canonical() == connected_to).then(|| self.home.clone())
            }
        }
    }

    fn local_name(&self, domain: &Domain) -> Option<String> {
        match domain {
            Domain::Name(name) => ascii_domain(name).filter(|name| self.domains.contains(name)),
            Domain::Literal(_) => None,
        }
    }

    /// What a local-part at one of our domains stands for: an alias, a mailbox, or
    /// whatever nobody else takes.
    fn look_up(&self, local_part: &str, domain: &str) -> Option<Resolved> {
        let exact = local_part.to_ascii_lowercase();
        let name = self.meant(&exact, domain, |name| self.alias(name, domain).is_some());
        let found = self.alias(name, domain);
        if found.is_none()
            && let Some(mailbox) = self.mailbox(name, domain)
        {
            return Some(Resolved { destinations: vec![Destination::Here(mailbox)], alias: None });
        }
        let destinations = found.or_else(|| self.alias(EVERYBODY_ELSE, domain))?.clone();
        let alias =
            Mailbox { local_part: name.to_owned(), domain: Domain::Name(domain.to_owned()) };
        Some(Resolved { destinations, alias: Some(alias) })
    }

    /// `name+detail` means `name` (RFC 5233), unless there is an alias or a mailbox
    /// of exactly that name: so a name may have a plus.
    fn meant<'a>(&self, exact: &'a str, domain: &str, is_alias: impl Fn(&str) -> bool) -> &'a str {
        // Where every name is a mailbox, an exact one would always be found.
        let is_mailbox = match self.mailboxes {
            Mailboxes::All => false,
            Mailboxes::AtHome(_) | Mailboxes::Whole(_) => self.mailbox(exact, domain).is_some(),
        };
        if is_mailbox || is_alias(exact) { exact } else { without_detail(exact) }
    }

    /// What an alias of exactly this name leads to in the end, if there is one.
    fn alias(&self, name: &str, domain: &str) -> Option<&Vec<Destination>> {
        let whole = self.aliases.get(&key(name, Some(domain)));
        whole.or_else(|| self.aliases.get(&key(name, None)))
    }

    /// The mailbox of exactly this name, if there is one. A name that is too long for
    /// a folder is nobody's.
    fn mailbox(&self, name: &str, domain: &str) -> Option<LocalMailbox> {
        if folder_name(name).len() > FOLDER_NAME_LIMIT {
            return None;
        }
        let mailbox =
            |domain: &str| Some(LocalMailbox { domain: domain.to_owned(), name: name.to_owned() });
        match &self.mailboxes {
            Mailboxes::All => mailbox(domain),
            Mailboxes::AtHome(names) if names.contains(name) => mailbox(&self.home),
            Mailboxes::Whole(names) if names.contains(&format!("{name}@{domain}")) => {
                mailbox(domain)
            }
            // Whoever runs this host must be reachable (RFC 5321 section 4.5.1).
            Mailboxes::AtHome(_) | Mailboxes::Whole(_) if name == POSTMASTER => mailbox(&self.home),
            Mailboxes::AtHome(_) | Mailboxes::Whole(_) => None,
        }
    }
}

impl Resolved {
    /// How many of the destinations are at other servers.
    pub fn elsewhere(&self) -> usize {
        self.destinations.iter().filter(|to| to.address().is_some()).count()
    }
}

impl LocalMailbox {
    /// The address that leads to this mailbox.
    pub fn address(&self) -> Mailbox {
        let domain = Domain::Name(self.domain.clone());
        Mailbox { local_part: self.name.clone(), domain }
    }
}

impl Destination {
    /// The mailbox, if it is one of ours.
    pub fn mailbox(&self) -> Option<&LocalMailbox> {
        match self {
            Destination::Here(mailbox) => Some(mailbox),
            Destination::Elsewhere(_) | Destination::Expansion(_) => None,
        }
    }

    /// The address, if it is another server's.
    pub fn address(&self) -> Option<&Mailbox> {
        match self {
            Destination::Here(_) | Destination::Expansion(_) => None,
            Destination::Elsewhere(address) => Some(address),
        }
    }
}

/// `name` of `name+detail`. What begins with the sign is a name as a whole.
fn without_detail(name: &str) -> &str {
    let base = name.split_once('+').map(|(base, _)| base);
    base.filter(|base| !base.is_empty()).unwrap_or(name)
}

/// An address at another server.
fn elsewhere(mailbox: &Mailbox) -> Destination {
    Destination::Elsewhere(mailbox.with_a_labels())
}

/// How aliases are looked up: `name@domain`, or `name@` for all of our domains.
fn key(name: &str, domain: Option<&str>) -> String {
    format!("{name}@{}", domain.unwrap_or_default())
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
        look_up_for(site, path, false)
    }

    fn look_up_for(site: &Site, path: &str, is_user: bool) -> String {
        let (to, _) = ForwardPath::parse(path).unwrap();
        match site.resolve(&to, HERE, is_user) {
            Ok(Resolved { destinations, .. }) => {
                let shown = |to: &Destination| match to {
                    Destination::Here(one) => format!("{} at {}", one.name, one.domain),
                    Destination::Elsewhere(address) => format!("{address} elsewhere"),
                    Destination::Expansion(alias) => format!("{alias} expanded"),
                };
                destinations.iter().map(shown).collect::<Vec<_>>().join(", ")
            }
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

    /// All spellings that Unicode takes for one are one domain here.
    #[test]
    fn a_domain_is_the_same_in_capitals_and_composed_otherwise() {
        let site = site(None);
        for path in ["<ann@B\u{dc}CHER.example>", "<ann@bu\u{308}cher.example>"] {
            assert_eq!(look_up(&site, path), "ann at xn--bcher-kva.example", "{path}");
        }
        let site = Site::new("mx.example", "B\u{dc}CHER.example", &[], None);
        assert_eq!(look_up(&site, "<ann@b\u{fc}cher.example>"), "ann at xn--bcher-kva.example");
        assert_eq!(site.home(), "xn--bcher-kva.example");
    }

    #[test]
    fn a_mailbox_has_a_name_that_a_folder_can_have() {
        let site = site(None);
        let longest = "x".repeat(255);
        let found = look_up(&site, &format!("<{longest}@host.example>"));
        assert_eq!(found, format!("{longest} at host.example"));
        // An octet that has to be escaped takes three.
        let long = ["x".repeat(256), "\u{fc}".repeat(43)];
        for name in long {
            assert_eq!(look_up(&site, &format!("<{name}@host.example>")), "550 5.1.1", "{name}");
        }
        assert_eq!(look_up(&site, "<\"\"@host.example>"), " at host.example");
    }

    #[test]
    fn every_other_domain_and_address_is_relaying() {
        let site = site(None);
        for path in ["<ann@else.example>", "<ann@[127.0.0.2]>", "<ann@sub.host.example>"] {
            assert_eq!(look_up(&site, path), "550 5.7.1", "{path}");
        }
    }

    #[test]
    fn who_may_relay_is_the_choice_of_the_operator() {
        let mut site = site(None);
        for (relay, stranger, user) in [
            (Relay::Nobody, "550 5.7.1", "550 5.7.1"),
            (Relay::Authenticated, "550 5.7.1", "Ann@else.example elsewhere"),
            (Relay::Everybody, "Ann@else.example elsewhere", "Ann@else.example elsewhere"),
        ] {
            site.relay = relay;
            assert_eq!(look_up_for(&site, "<Ann@ELSE.example>", false), stranger);
            assert_eq!(look_up_for(&site, "<Ann@ELSE.example>", true), user);
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
        assert_eq!(site.home(), "host.example");
        assert_eq!(look_up(&site, "<postmaster@mx.host.example>"), "550 5.7.1");
        assert_eq!(look_up(&site, "<postmaster@else.example>"), "550 5.7.1");
    }

    #[test]
    fn whole_addresses_are_mailboxes_of_their_own_domain() {
        let names = ["ann@host.example", "ann@xn--bcher-kva.example"].map(str::to_owned);
        let site = site(Some(&names));
        assert_eq!(look_up(&site, "<ann@host.example>"), "ann at host.example");
        assert_eq!(look_up(&site, "<ann+x@b\u{fc}cher.example>"), "ann at xn--bcher-kva.example");
        assert_eq!(look_up(&site, "<bob@host.example>"), "550 5.1.1");
    }
}
