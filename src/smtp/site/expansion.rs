//! What an alias leads to in the end.
//!
//! In: the aliases of the file. Out: for each the destinations that are left once all
//! aliases in it are followed, or the line of an alias that leads nowhere. This is
//! done when the file is read, so that a mistake is found at the start and not by a
//! letter.
//!
//! Left to others: the syntax of the file (`store/aliases.rs`).
//!
//! Book: docs/12-who-may-relay.md.

use std::collections::BTreeMap;

use crate::smtp::address::Mailbox;
use crate::smtp::site::{Destination, EVERYBODY_ELSE, Mailboxes, Site, elsewhere, key};

/// The most targets that are followed for one alias: a bound on what a file with
/// aliases of aliases of aliases can make of itself.
const EXPANSION_LIMIT: usize = 1000;

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

/// All aliases by their keys, while they are followed.
struct Graph<'a> {
    site: &'a Site,
    by_key: BTreeMap<String, &'a Alias>,
}

/// What one target is.
enum Found<'a> {
    /// The end of the way.
    Destination(Destination),
    /// Another alias, and its key.
    Alias(&'a Alias, String),
}

impl Site {
    /// Takes the aliases in, each with what it stands for in the end. An alias
    /// that leads back to itself over others, or to a mailbox of ours that is none,
    /// is an error.
    pub fn set_aliases(&mut self, aliases: Vec<Alias>) -> Result<(), AliasError> {
        let by_key = aliases.iter().map(|alias| (alias.key(), alias)).collect();
        let graph = Graph { site: self, by_key };
        let mut expanded = BTreeMap::new();
        for (key, alias) in &graph.by_key {
            let wrong = |why| AliasError { line: alias.line, why };
            if alias.name == EVERYBODY_ELSE && matches!(self.mailboxes, Mailboxes::All) {
                let why = "* takes what nobody else takes, and without a list of users every \
                           name is a mailbox";
                return Err(wrong(why.to_owned()));
            }
            expanded.insert(key.clone(), graph.expand(alias).map_err(wrong)?);
        }
        self.aliases = expanded;
        Ok(())
    }
}

impl Alias {
    fn key(&self) -> String {
        key(&self.name, self.domain.as_deref())
    }
}

impl<'a> Graph<'a> {
    /// What an alias stands for once all aliases in it are followed.
    fn expand(&self, alias: &'a Alias) -> Result<Vec<Destination>, String> {
        let mut destinations = Vec::new();
        // Each entry knows the aliases it came through, to tell a loop from two
        // ways to the same mailbox.
        let mut open = vec![(alias, vec![alias.key()])];
        let mut steps = 0;
        while let Some((alias, way)) = open.pop() {
            for target in &alias.targets {
                steps += 1;
                if steps > EXPANSION_LIMIT {
                    return Err(format!(
                        "more than {EXPANSION_LIMIT} targets, those of its aliases counted"
                    ));
                }
                match self.find(target, &way)? {
                    Found::Destination(destination) if destinations.contains(&destination) => {}
                    Found::Destination(destination) => destinations.push(destination),
                    Found::Alias(next, key) => {
                        open.push((next, [way.as_slice(), &[key]].concat()));
                    }
                }
            }
        }
        Ok(destinations)
    }

    /// What a target is, for an alias that was reached on this way.
    fn find(&self, target: &Target, way: &[String]) -> Result<Found<'a>, String> {
        let site = self.site;
        let (local_part, domain) = match target {
            Target::Name(name) => (name.clone(), site.home.clone()),
            Target::Mailbox(mailbox) => match site.local_name(&mailbox.domain) {
                Some(domain) => (mailbox.local_part.to_ascii_lowercase(), domain),
                None => return Ok(Found::Destination(elsewhere(mailbox))),
            },
        };
        let name = site.meant(&local_part, &domain, |name| self.key_of(name, &domain).is_some());
        // `ann: ann, bob` keeps a copy: in its own line an alias's name is the mailbox.
        let key = self.key_of(name, &domain).filter(|key| way.last() != Some(key));
        if let Some(key) = &key
            && way.contains(key)
        {
            let name = key.trim_end_matches('@');
            return Err(format!("the alias {name} leads back to itself"));
        }
        if let Some((key, alias)) = key.and_then(|key| Some((key.clone(), *self.by_key.get(&key)?)))
        {
            return Ok(Found::Alias(alias, key));
        }
        match site.mailbox(name, &domain) {
            Some(mailbox) => Ok(Found::Destination(Destination::Here(mailbox))),
            None => Err(format!("{name}@{domain} is no mailbox here")),
        }
    }

    /// The key of the alias of exactly this name: the one for this domain, or else
    /// the one for all.
    fn key_of(&self, name: &str, domain: &str) -> Option<String> {
        let keys = [key(name, Some(domain)), key(name, None)];
        keys.into_iter().find(|key| self.by_key.contains_key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::ForwardPath;
    use crate::smtp::site::Relay;
    use std::net::{IpAddr, Ipv4Addr};

    /// `name at domain`, or the code of the refusal.
    fn look_up(site: &Site, path: &str) -> String {
        let (to, _) = ForwardPath::parse(path).unwrap();
        match site.resolve(&to, IpAddr::V4(Ipv4Addr::LOCALHOST), false) {
            Ok(found) => {
                let shown = |to: &Destination| match to {
                    Destination::Here(one) => format!("{} at {}", one.name, one.domain),
                    Destination::Elsewhere(address) => format!("{address} elsewhere"),
                    Destination::Expansion(alias) => format!("{alias} expanded"),
                };
                found.destinations.iter().map(shown).collect::<Vec<_>>().join(", ")
            }
            Err(reply) => format!("{} {}", reply.code(), reply.enhanced().unwrap()),
        }
    }

    /// `name: target target`, as the aliases file has it.
    fn alias(line: usize, name: &str, targets: &[&str]) -> Alias {
        let target = |text: &&str| {
            if text.contains('@') {
                Target::Mailbox(Mailbox::parse(text).unwrap().0)
            } else {
                Target::Name((*text).to_owned())
            }
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
        let more = ["b\u{fc}cher.example".to_owned()];
        let mut site = Site::new("mx.host.example", "host.example", &more, Some(&names));
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
            (vec![alias(7, "a", &["a"])], 7, "no mailbox here"),
            (vec![alias(8, "a", &["b"]), alias(9, "b", &["a"])], 8, "leads back to itself"),
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
        let list = |count: usize| with_aliases(vec![alias(1, "all", &vec!["ann"; count])]);
        assert!(list(EXPANSION_LIMIT).is_ok() && list(EXPANSION_LIMIT + 1).is_err());
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

    /// Everybody's way to forward mail and to keep a copy.
    #[test]
    fn in_its_own_line_the_name_of_an_alias_is_the_mailbox() {
        let both = "ann at host.example, bob at host.example";
        for target in ["ann", "ann@host.example", "ann+x"] {
            let site = with_aliases(vec![alias(1, "ann", &[target, "bob"])]).unwrap();
            for path in ["<ann@host.example>", "<Ann+y@b\u{fc}cher.example>"] {
                assert_eq!(look_up(&site, path), both, "{target} {path}");
            }
        }
        // Only there: over another alias it is a loop.
        let loops = vec![alias(1, "ann", &["ann", "bob"]), alias(2, "bob", &["ann"])];
        assert!(with_aliases(loops).unwrap_err().why.contains("leads back to itself"));
    }

    #[test]
    fn a_star_takes_what_nobody_else_takes() {
        let site = with_aliases(vec![
            alias(1, "*", &["ann"]),
            alias(2, "*@xn--bcher-kva.example", &["bob", "x@else.example"]),
            alias(3, "info", &["bob"]),
        ])
        .unwrap();
        assert_eq!(look_up(&site, "<zoe+x@host.example>"), "ann at host.example");
        assert_eq!(
            look_up(&site, "<zoe@b\u{fc}cher.example>"),
            "bob at host.example, x@else.example elsewhere"
        );
        for path in ["<bob@host.example>", "<bob+x@host.example>", "<info@host.example>"] {
            assert_eq!(look_up(&site, path), "bob at host.example", "{path}");
        }
        assert_eq!(look_up(&site, "<postmaster@host.example>"), "postmaster at host.example");
        // A typing error in the file is one nevertheless.
        let typo = vec![alias(1, "*", &["ann"]), alias(2, "info", &["bbo"])];
        assert_eq!(with_aliases(typo).unwrap_err().line, 2);
        // Where every name is a mailbox, nothing is left to take.
        let mut all = Site::new("host.example", "host.example", &[], None);
        assert!(all.set_aliases(vec![alias(5, "*", &["ann"])]).is_err());
    }
}
