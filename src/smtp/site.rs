//! What this server knows of itself: its names, its mailboxes, its limits.
//!
//! The session asks here whose mail this is. All look-ups are pure: the data
//! was read and checked by others, and is never changed while sessions use it.
//!
//! Not known here: whether a folder exists yet (`store/maildir.rs` makes it).
//!
//! Book: docs/04-commands-and-addresses.md.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath, ascii_domain};
use crate::smtp::credentials::Users;
use crate::smtp::reply::{self, Reply};

/// The mailbox that no policy refuses (RFC 5321 section 4.5.1).
const POSTMASTER: &str = "postmaster";

/// The most targets that are followed for one alias: a bound on what a file with
/// aliases of aliases of aliases can make of itself.
const EXPANSION_LIMIT: usize = 1000;

/// 25 MiB: what large providers take.
pub const DEFAULT_MAX_SIZE: u64 = 25 * 1024 * 1024;
/// Ten times what RFC 5321 section 4.5.3.1.8 asks for at least.
pub const DEFAULT_MAX_RECIPIENTS: usize = 1000;

/// Names, mailboxes, users and limits of this server.
#[derive(Debug)]
pub struct Site {
    /// How the server calls itself in replies and trace fields.
    pub hostname: String,
    /// The largest message taken, in octets (RFC 1870).
    pub max_size: u64,
    /// The most mailboxes one message goes to.
    pub max_recipients: usize,
    /// Whether a client can encrypt: there is a certificate.
    pub has_tls: bool,
    /// Whether passwords are taken in clear.
    pub allow_plain_auth: bool,
    /// Who may log in; `None` where nobody can.
    pub users: Option<Users>,
    /// Whose mail for other servers is taken.
    pub relay: Relay,
    /// The first of our domains: where a bare `<postmaster>` lives.
    home: String,
    /// All our domains, as [`ascii_domain`] spells them.
    domains: BTreeSet<String>,
    mailboxes: Mailboxes,
    /// By name, `name` or `name@domain`: what an alias stands for in the end.
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
    /// Nobody's. An alias that leads elsewhere is refused as well.
    Nobody,
    /// That of users who have logged in.
    Authenticated,
    /// Everybody's, on loopback addresses only: an open relay serves those who
    /// send unwanted mail, and is found within hours.
    Everybody,
}

/// Another name for mailboxes, here or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Where it stands in its file, for an error that is found here.
    pub line: usize,
    /// The local-part, in lower case.
    pub name: String,
    /// The domain, in lower case and A-labels; `None` for all of ours.
    pub domain: Option<String>,
    /// Who gets the mail: one or more.
    pub targets: Vec<Target>,
}

/// One who gets the mail of an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address, here or elsewhere.
    Mailbox(Mailbox),
    /// A name without a domain: a mailbox or another alias at the first of our
    /// domains, in lower case.
    Name(String),
}

/// An alias that leads nowhere: the line, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasError {
    /// Counts from 1.
    pub line: usize,
    /// For a person.
    pub why: String,
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
            users: None,
            relay: Relay::Authenticated,
            home: fold(home),
            domains,
            mailboxes,
            aliases: BTreeMap::new(),
        }
    }

    /// Where a recipient leads, or the reply that refuses it. `connected_to` is our own address that the client chose, `is_user` is
    /// whether it has logged in.
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
        let found = self.expand(local_part, &domain).ok_or_else(reply::no_such_mailbox)?;
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

    /// Whether this user may send under this address: as nobody (a bounce), as
    /// itself, or as an alias that leads to it.
    pub fn may_send_as(&self, user: &str, from: &ReversePath) -> bool {
        let ReversePath::Mailbox(from) = from else { return true };
        let Domain::Name(domain) = &from.domain else { return false };
        let Some(domain) = ascii_domain(domain).filter(|name| self.domains.contains(name)) else {
            return false;
        };
        let own = match user.split_once('@') {
            Some((name, domain)) => {
                LocalMailbox { domain: domain.to_owned(), name: name.to_owned() }
            }
            None => LocalMailbox { domain: self.home.clone(), name: user.to_owned() },
        };
        let is_own = |name: &str| self.mailbox(name, &domain).as_ref() == Some(&own);
        let own_mailbox = Destination::Here(own.clone());
        let leads_to_it =
            |all: Option<Vec<Destination>>| all.is_some_and(|all| all.contains(&own_mailbox));
        let exact = from.local_part.to_ascii_lowercase();
        let base = exact.split_once('+').map_or(exact.as_str(), |(base, _)| base);
        match self.alias(&exact, &domain) {
            // As itself, even where mail to that name goes to somebody else.
            alias @ Some(_) => is_own(&exact) || leads_to_it(alias),
            None => {
                let led = self.expand(&exact, &domain).map(|resolved| resolved.destinations);
                is_own(base) || leads_to_it(led)
            }
        }
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

    /// Takes the aliases in, each with what it stands for in the end. An alias
    /// that leads back to itself, or to a mailbox of ours that is none, is an error.
    pub fn set_aliases(&mut self, aliases: Vec<Alias>) -> Result<(), AliasError> {
        let by_name: BTreeMap<String, &Alias> = aliases
            .iter()
            .map(|alias| (key(&alias.name, alias.domain.as_deref()), alias))
            .collect();
        let mut expanded = BTreeMap::new();
        for (name, alias) in &by_name {
            let expansion =
                self.follow(alias, &by_name).map_err(|why| AliasError { line: alias.line, why })?;
            expanded.insert(name.clone(), expansion);
        }
        self.aliases = expanded;
        Ok(())
    }

    /// What an alias stands for once all aliases in it are followed.
    fn follow(
        &self,
        alias: &Alias,
        all: &BTreeMap<String, &Alias>,
    ) -> Result<Vec<Destination>, String> {
        let mut expansion = Vec::new();
        // Each entry knows the aliases it came through, to tell a loop from two
        // ways to the same mailbox.
        let mut open = vec![(alias, vec![key(&alias.name, alias.domain.as_deref())])];
        let mut steps = 0;
        while let Some((alias, way)) = open.pop() {
            for target in &alias.targets {
                let (name, domain) = match target {
                    Target::Name(name) => (name.clone(), self.home.clone()),
                    Target::Mailbox(mailbox) => match self.local_name(&mailbox.domain) {
                        Some(domain) => (mailbox.local_part.to_ascii_lowercase(), domain),
                        None => {
                            let address = elsewhere(mailbox);
                            if !expansion.contains(&address) {
                                expansion.push(address);
                            }
                            continue;
                        }
                    },
                };
                steps += 1;
                if steps > EXPANSION_LIMIT {
                    return Err(format!(
                        "more than {EXPANSION_LIMIT} targets, those of its aliases counted"
                    ));
                }
                let keys = |name: &str| [key(name, Some(&domain)), key(name, None)];
                let alias_key =
                    |name: &str| keys(name).into_iter().find(|key| all.contains_key(key));
                let name = self.meant(&name, &domain, |name| alias_key(name).is_some());
                match alias_key(name).and_then(|key| Some((all.get(&key)?, key))) {
                    Some((_, key)) if way.contains(&key) => {
                        let name = key.trim_end_matches('@');
                        return Err(format!("the alias {name} leads back to itself"));
                    }
                    Some((next, key)) => open.push((next, [way.as_slice(), &[key]].concat())),
                    None => match self.mailbox(name, &domain).map(Destination::Here) {
                        Some(mailbox) if expansion.contains(&mailbox) => {}
                        Some(mailbox) => expansion.push(mailbox),
                        None => return Err(format!("{name}@{domain} is no mailbox here")),
                    },
                }
            }
        }
        Ok(expansion)
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

    /// What a local-part at one of our domains stands for.
    fn expand(&self, local_part: &str, domain: &str) -> Option<Resolved> {
        let exact = local_part.to_ascii_lowercase();
        let name = self.meant(&exact, domain, |name| self.alias(name, domain).is_some());
        if let Some(destinations) = self.alias(name, domain) {
            let domain = Domain::Name(domain.to_owned());
            let alias = Some(Mailbox { local_part: name.to_owned(), domain });
            return Some(Resolved { destinations, alias });
        }
        let mailbox = self.mailbox(name, domain)?;
        Some(Resolved { destinations: vec![Destination::Here(mailbox)], alias: None })
    }

    /// `name+detail` means `name` (RFC 5233), unless there is an alias or a mailbox
    /// of exactly that name: so a name may have a plus.
    fn meant<'a>(&self, exact: &'a str, domain: &str, is_alias: impl Fn(&str) -> bool) -> &'a str {
        // Where every name is a mailbox, an exact one would always be found.
        let is_mailbox = match self.mailboxes {
            Mailboxes::All => false,
            Mailboxes::AtHome(_) | Mailboxes::Whole(_) => self.mailbox(exact, domain).is_some(),
        };
        match exact.split_once('+') {
            Some((base, _)) if !base.is_empty() && !is_mailbox && !is_alias(exact) => base,
            _ => exact,
        }
    }

    fn alias(&self, name: &str, domain: &str) -> Option<Vec<Destination>> {
        let whole = self.aliases.get(&key(name, Some(domain)));
        whole.or_else(|| self.aliases.get(&key(name, None))).cloned()
    }

    /// The mailbox of exactly this name, if there is one.
    fn mailbox(&self, name: &str, domain: &str) -> Option<LocalMailbox> {
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

impl Destination {
    /// The mailbox, if it is one of ours.
    pub fn mailbox(&self) -> Option<&LocalMailbox> {
        match self {
            Destination::Here(mailbox) => Some(mailbox),
            Destination::Elsewhere(_) => None,
        }
    }

    /// The address, if it is another server's.
    pub fn address(&self) -> Option<&Mailbox> {
        match self {
            Destination::Here(_) => None,
            Destination::Elsewhere(address) => Some(address),
        }
    }
}

/// An address at another server, in one spelling.
fn elsewhere(mailbox: &Mailbox) -> Destination {
    let domain = match &mailbox.domain {
        // In A-labels it needs no SMTPUTF8 on its way, as long as the name before the
        // `@` needs none.
        Domain::Name(name) if mailbox.local_part.is_ascii() => {
            Domain::Name(ascii_domain(name).unwrap_or_else(|| name.to_ascii_lowercase()))
        }
        Domain::Name(name) => Domain::Name(name.to_ascii_lowercase()),
        Domain::Literal(address) => Domain::Literal(address.to_canonical()),
    };
    Destination::Elsewhere(Mailbox { local_part: mailbox.local_part.clone(), domain })
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

    /// `name: target target`, as the aliases file has it.
    fn alias(line: usize, name: &str, targets: &[&str]) -> Alias {
        let target = |text: &&str| match text.contains('@') {
            true => Target::Mailbox(Mailbox::parse(text).unwrap().0),
            false => Target::Name((*text).to_owned()),
        };
        let (name, domain) = match name.split_once('@') {
            Some((name, domain)) => (name, Some(domain.to_owned())),
            None => (name, None),
        };
        let targets = targets.iter().map(target).collect();
        Alias { line, name: name.to_owned(), domain, targets }
    }

    fn with_aliases(aliases: Vec<Alias>) -> Result<Site, AliasError> {
        let names = ["ann", "bob", "a+b"].map(str::to_owned);
        let mut site = site(Some(&names));
        site.set_aliases(aliases)?;
        Ok(site)
    }

    #[test]
    fn an_alias_leads_to_all_its_mailboxes_and_to_each_once() {
        let site = with_aliases(vec![
            alias(1, "info", &["ann", "team", "bob@host.example"]),
            alias(2, "team", &["ann", "bob"]),
            alias(3, "bob+x", &["ann"]),
            alias(4, "sales@host.example", &["bob"]),
        ])
        .unwrap();
        let both = "ann at host.example, bob at host.example";
        assert_eq!(look_up(&site, "<team@xn--bcher-kva.example>"), both);
        assert_eq!(look_up(&site, "<INFO+x@host.example>"), both);
        // An exact alias wins over the mailbox with a detail.
        assert_eq!(look_up(&site, "<bob+x@host.example>"), "ann at host.example");
        assert_eq!(look_up(&site, "<bob+y@host.example>"), "bob at host.example");
        assert_eq!(look_up(&site, "<sales@host.example>"), "bob at host.example");
        assert_eq!(look_up(&site, "<sales@b\u{fc}cher.example>"), "550 5.1.1");
    }

    #[test]
    fn an_alias_may_lead_elsewhere_or_is_refused_as_a_whole() {
        let to = ["ann", "x@else.example", "x@ELSE.example"];
        let mut site = with_aliases(vec![alias(1, "all", &to)]).unwrap();
        let both = "ann at host.example, x@else.example elsewhere";
        assert_eq!(look_up(&site, "<all@host.example>"), both);
        site.relay = Relay::Nobody;
        assert_eq!(look_up(&site, "<all@host.example>"), "550 5.7.1");
    }

    #[test]
    fn loops_and_dead_ends_are_found_when_the_aliases_are_read() {
        for (aliases, line, why) in [
            (vec![alias(7, "a", &["a"])], 7, "leads back to itself"),
            (vec![alias(1, "a", &["b"]), alias(2, "b", &["ann", "a"])], 1, "leads back to itself"),
            (vec![alias(3, "a", &["nobody"])], 3, "no mailbox here"),
            (vec![alias(4, "a", &["nobody@host.example"])], 4, "no mailbox here"),
        ] {
            let error = with_aliases(aliases).unwrap_err();
            assert_eq!(error.line, line);
            assert!(error.why.contains(why), "{}", error.why);
        }
        // Two ways to the same mailbox are no loop.
        let diamond = vec![
            alias(1, "top", &["left", "right"]),
            alias(2, "left", &["ann"]),
            alias(3, "right", &["ann"]),
        ];
        assert_eq!(
            look_up(&with_aliases(diamond).unwrap(), "<top@host.example>"),
            "ann at host.example"
        );
    }

    #[test]
    fn aliases_that_double_at_every_step_are_refused_soon() {
        let names: Vec<String> = (0..40).map(|number| format!("a{number}")).collect();
        let next = |number: usize| names.get(number + 1).map_or("ann", String::as_str);
        let doubling = names.iter().enumerate();
        let aliases = doubling.map(|(number, name)| alias(1, name, &[next(number); 2])).collect();
        assert!(with_aliases(aliases).unwrap_err().why.contains("more than 1000"));
    }

    #[test]
    fn postmaster_is_taken_even_where_its_alias_leads_elsewhere_and_nobody_relays() {
        let mut site = with_aliases(vec![alias(1, "postmaster", &["x@else.example"])]).unwrap();
        site.relay = Relay::Nobody;
        for path in ["<postmaster>", "<PostMaster@host.example>"] {
            assert_eq!(look_up(&site, path), "x@else.example elsewhere");
        }
    }

    #[test]
    fn postmaster_may_be_an_alias() {
        let site = with_aliases(vec![alias(1, "postmaster", &["ann"])]).unwrap();
        for path in ["<Postmaster>", "<postmaster@host.example>"] {
            assert_eq!(look_up(&site, path), "ann at host.example");
        }
    }

    #[test]
    fn whole_addresses_are_mailboxes_of_their_own_domain() {
        let names = ["ann@host.example", "ann@xn--bcher-kva.example"].map(str::to_owned);
        let site = site(Some(&names));
        assert_eq!(look_up(&site, "<ann@host.example>"), "ann at host.example");
        assert_eq!(look_up(&site, "<ann+x@b\u{fc}cher.example>"), "ann at xn--bcher-kva.example");
        assert_eq!(look_up(&site, "<bob@host.example>"), "550 5.1.1");
        assert!(site.may_send_as("ann@host.example", &from("<ann@host.example>")));
        assert!(!site.may_send_as("ann@host.example", &from("<ann@b\u{fc}cher.example>")));
    }

    fn from(path: &str) -> ReversePath {
        ReversePath::parse(path).unwrap().0
    }

    #[test]
    fn a_user_sends_as_nobody_as_itself_or_as_an_alias_that_leads_to_it() {
        let site = with_aliases(vec![alias(1, "info", &["ann", "bob"])]).unwrap();
        for path in
            ["<>", "<ann@host.example>", "<ANN+x@b\u{fc}cher.example>", "<info@host.example>"]
        {
            assert!(site.may_send_as("ann", &from(path)), "{path}");
        }
        // Mail to ann goes to bob, and ann is still ann.
        let moved = with_aliases(vec![alias(1, "ann", &["bob"])]).unwrap();
        assert!(moved.may_send_as("ann", &from("<ann+x@host.example>")));
        for path in
            ["<bob@host.example>", "<ann@else.example>", "<ann@[127.0.0.1]>", "<x@host.example>"]
        {
            assert!(!site.may_send_as("ann", &from(path)), "{path}");
        }
    }
}
