//! Who may send under which address.
//!
//! In: a user who has logged in, and what it says in MAIL. Out: yes or no. It is the
//! question of RCPT turned round: does mail *to* this address come to that user? Then
//! it may also send *from* it.
//!
//! Not looked at: the `From` of the header, which is text of the message.
//!
//! Book: docs/12-who-may-relay.md.

use crate::smtp::address::ReversePath;
use crate::smtp::site::{Destination, LocalMailbox, Site, without_detail};

impl Site {
    /// Whether this user may send under this address: as nobody (a bounce), as
    /// itself with any detail, or as an alias that leads to it.
    pub fn may_send_as(&self, user: &str, from: &ReversePath) -> bool {
        let ReversePath::Mailbox(from) = from else { return true };
        let Some(domain) = self.local_name(&from.domain) else { return false };
        let own = self.mailbox_of(user);
        let is_own = |name: &str| self.mailbox(name, &domain).as_ref() == Some(&own);
        let exact = from.local_part.to_ascii_lowercase();
        let is_name =
            self.alias(&exact, &domain).is_some() || self.mailbox(&exact, &domain).is_some();
        // As itself, even where mail to that name goes to somebody else; but a name
        // with a detail may be an alias or a mailbox of its own.
        if is_own(if is_name { &exact } else { without_detail(&exact) }) {
            return true;
        }
        let own = Destination::Here(own);
        self.look_up(&exact, &domain).is_some_and(|found| found.destinations.contains(&own))
    }

    /// The mailbox of a user, spelt as in the users file.
    fn mailbox_of(&self, user: &str) -> LocalMailbox {
        let (name, domain) = user.split_once('@').unwrap_or((user, self.home()));
        LocalMailbox { domain: domain.to_owned(), name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::Mailbox;
    use crate::smtp::site::expansion::{Alias, Target};

    fn from(path: &str) -> ReversePath {
        ReversePath::parse(path).unwrap().0
    }

    /// A server with the users ann and bob and one alias.
    fn with_alias(name: &str, targets: &[&str]) -> Site {
        let names = ["ann", "bob", "a", "a+b"].map(str::to_owned);
        let more = ["b\u{fc}cher.example".to_owned()];
        let mut site = Site::new("mx.host.example", "host.example", &more, Some(&names));
        let target = |name: &&str| match Mailbox::parse(name) {
            Ok((mailbox, _)) => Target::Mailbox(mailbox),
            Err(_) => Target::Name((*name).to_owned()),
        };
        let targets = targets.iter().map(target).collect();
        let alias = Alias { line: 1, name: name.to_owned(), domain: None, targets };
        site.set_aliases(vec![alias]).unwrap();
        site
    }

    #[test]
    fn a_user_sends_as_nobody_as_itself_or_as_an_alias_that_leads_to_it() {
        let site = with_alias("info", &["ann", "bob"]);
        for path in
            ["<>", "<ann@host.example>", "<ANN+x@b\u{fc}cher.example>", "<info@host.example>"]
        {
            assert!(site.may_send_as("ann", &from(path)), "{path}");
        }
        // Where the whole name is a mailbox, it is that of somebody else.
        assert!(!site.may_send_as("a", &from("<a+b@host.example>")));
        assert!(site.may_send_as("a+b", &from("<a+b@host.example>")));
        // Mail to ann goes to bob, and ann is still ann.
        let moved = with_alias("ann", &["bob"]);
        assert!(moved.may_send_as("ann", &from("<ann+x@host.example>")));
        for path in
            ["<bob@host.example>", "<ann@else.example>", "<ann@[127.0.0.1]>", "<x@host.example>"]
        {
            assert!(!site.may_send_as("ann", &from(path)), "{path}");
        }
    }

    #[test]
    fn a_whole_address_sends_at_its_own_domain_only() {
        let names = ["ann@host.example", "ann@xn--bcher-kva.example"].map(str::to_owned);
        let more = ["b\u{fc}cher.example".to_owned()];
        let site = Site::new("mx.host.example", "host.example", &more, Some(&names));
        assert!(site.may_send_as("ann@host.example", &from("<ann@host.example>")));
        assert!(!site.may_send_as("ann@host.example", &from("<ann@b\u{fc}cher.example>")));
    }

    #[test]
    fn who_gets_the_mail_of_everybody_else_may_send_as_anybody_else() {
        let site = with_alias("*", &["ann"]);
        assert!(site.may_send_as("ann", &from("<shop@host.example>")));
        assert!(!site.may_send_as("ann", &from("<bob@host.example>")));
        assert!(!site.may_send_as("bob", &from("<shop@host.example>")));
    }
}
