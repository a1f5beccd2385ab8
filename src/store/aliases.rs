//! The aliases file: mail for one name goes to others.
//!
//! In: the octets of the file. Out: the aliases, or the line that is wrong. A line
//! is `name: target, target`, as in /etc/aliases. A name without a domain holds
//! at every domain of this server; the name `*` takes what nobody else takes.
//!
//! What it leaves out of /etc/aliases: programs, files, `:include:`, lines that
//! go on in the next one, and names in quotes.
//!
//! Not decided here: whether a target exists, and whether aliases lead in a
//! circle (`smtp/site/expansion.rs`). The line number stays with each alias for that.
//!
//! Book: docs/12-who-may-relay.md.

use std::collections::BTreeSet;

use crate::smtp::address::{AddressError, Domain, Mailbox, ascii_domain};
use crate::smtp::site::expansion::{Alias, Target};
use crate::smtp::text::printable;
use crate::store::text_file::{FileError, entries};

/// Reads the file.
pub fn parse(file: &[u8]) -> Result<Vec<Alias>, FileError> {
    let mut aliases: Vec<Alias> = Vec::new();
    let mut seen = BTreeSet::new();
    for (line, text) in entries(file)? {
        let wrong = |why: String| FileError { line, why };
        if text.starts_with([' ', '\t']) {
            return Err(wrong("expected a name at the start, and all targets on its line".into()));
        }
        let (name, targets) =
            text.split_once(':').ok_or_else(|| wrong("expected name: target, target".into()))?;
        let (name, domain) = alias_name(name.trim()).ok_or_else(|| {
            let name = printable(name);
            wrong(format!("expected a name such as info or info@host.example, not `{name}`"))
        })?;
        if !seen.insert((name.clone(), domain.clone())) {
            return Err(wrong(format!("expected each name once, `{name}` was on a line before")));
        }
        let targets: Result<_, String> = targets.split(',').map(target).collect();
        aliases.push(Alias { line, name, domain, targets: targets.map_err(wrong)? });
    }
    Ok(aliases)
}

/// Local-part and domain of an alias. Without quotes, so that `@` can only be
/// what parts the two.
fn alias_name(name: &str) -> Option<(String, Option<String>)> {
    if name.contains('"') {
        return None;
    }
    match whole(name) {
        Ok(Target::Name(name)) => Some((name, None)),
        Ok(Target::Mailbox(Mailbox { local_part, domain: Domain::Name(domain) })) => {
            Some((local_part.to_ascii_lowercase(), Some(ascii_domain(&domain)?)))
        }
        Ok(Target::Mailbox(_)) | Err(_) => None,
    }
}

fn target(text: &str) -> Result<Target, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("expected an address or a name before and after each comma".to_owned());
    }
    // `|` and `/` may stand in a name, but here they mean something else to
    // everybody who knows /etc/aliases.
    if text.trim_start_matches('"').starts_with(['|', '/', ':']) {
        return Err("expected an address or a name: programs, files and :include: are not \
             supported"
            .to_owned());
    }
    whole(text).map_err(|error| {
        format!("expected an address or a name, not `{}`: {error}", printable(text))
    })
}

/// A text that is an address, or the local-part of one, to its end.
fn whole(text: &str) -> Result<Target, AddressError> {
    match Mailbox::parse(text) {
        Ok((mailbox, "")) => Ok(Target::Mailbox(mailbox)),
        Ok(_) => Err(AddressError::BadDomain),
        // Perhaps the domain is missing, and only that.
        Err(AddressError::NoAt) => match Mailbox::parse(&format!("{text}@localhost")) {
            Ok((mailbox, "")) => Ok(Target::Name(mailbox.local_part.to_ascii_lowercase())),
            Ok(_) => Err(AddressError::BadDomain),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The aliases, one line each: line, name, domain, targets.
    fn read(text: &str) -> Vec<String> {
        let target = |target: &Target| match target {
            Target::Mailbox(mailbox) => format!("<{mailbox}>"),
            Target::Name(name) => name.clone(),
        };
        let show = |alias: Alias| {
            let targets: Vec<String> = alias.targets.iter().map(target).collect();
            let domain = alias.domain.as_deref().unwrap_or("*");
            format!("{} {}@{domain} {}", alias.line, alias.name, targets.join(" "))
        };
        parse(text.as_bytes()).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn an_alias_has_one_target_or_more_here_or_elsewhere() {
        let text = "# who reads what\r\n\r\npostmaster: ann\r\n\
            Info :\tBob,Ann+lists , Cem@Else.example\n\
            sales@B\u{fc}cher.EXAMPLE:bob@[192.0.2.1], \"a b\"@else.example\n\
            all:x@[IPv6:2001:db8::1]";
        assert_eq!(
            read(text),
            [
                "3 postmaster@* ann",
                "4 info@* bob ann+lists <Cem@Else.example>",
                "5 sales@xn--bcher-kva.example <bob@[192.0.2.1]> <\"a b\"@else.example>",
                "6 all@* <x@[IPv6:2001:db8::1]>",
            ]
        );
        assert!(read("# nothing\n").is_empty());
        assert_eq!(read("\u{feff}ann:\tann,\tbob\r\n*: cem"), ["1 ann@* ann bob", "2 *@* cem"]);
        assert_eq!(parse(b"info: ann\r\nb\xfcro: ann\r\n").unwrap_err().line, 2);
    }

    #[test]
    fn one_name_may_stand_for_all_domains_and_for_one() {
        assert_eq!(read("a: b\na@c.example: d").len(), 2);
    }

    #[test]
    fn a_wrong_line_is_named_with_what_was_expected() {
        for (text, line, why) in [
            ("a: b\ninfo", 2, "name: target, target"),
            ("a: b,\n c", 1, "before and after each comma"),
            ("a: b\n , c", 2, "all targets on its line"),
            ("a:", 1, "before and after each comma"),
            ("a: b,,c", 1, "before and after each comma"),
            (": b", 1, "a name such as info"),
            ("a b: c", 1, "a name such as info"),
            ("\"a b\": c", 1, "a name such as info"),
            ("\"a@c.example\": c", 1, "a name such as info"),
            ("a@[192.0.2.1]: c", 1, "a name such as info"),
            ("\u{1b}[2J: c", 1, "not `\\x1b[2J`"),
            ("A: b\na: c", 2, "`a` was on a line before"),
            ("a@X.example: b\na@x.EXAMPLE: c", 2, "`a` was on a line before"),
            ("a: |/bin/program", 1, "not supported"),
            ("a: \"|/bin/program x\"", 1, "not supported"),
            ("a: /var/mail/a", 1, "not supported"),
            ("a: :include:/etc/list", 1, "not supported"),
            ("a: b@", 1, "bad domain"),
            ("a: b@c d", 1, "bad domain"),
            ("a: b c", 1, "no @ after the name"),
            ("a: <b@c.example>", 1, "bad name before the @"),
            ("a: \\b", 1, "bad name before the @"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error:?}");
            assert!(error.why.starts_with("expected "), "{text}: {error:?}");
            assert!(error.why.contains(why), "{text}: {error:?}");
        }
    }

    #[test]
    fn any_text_is_an_aliases_file_or_none_without_a_panic() {
        fn holds(text: String) -> bool {
            let names_a_line = |text: &str| match parse(text.as_bytes()) {
                Ok(_) => true,
                Err(error) => (1..=text.lines().count()).contains(&error.line),
            };
            names_a_line(&text) && names_a_line(&format!("a: {text}"))
        }
        quickcheck::quickcheck(holds as fn(String) -> bool);
    }
}
