//! Addresses after the grammar of RFC 5321 section 4.1.2.
//!
//! In: the text after `MAIL FROM:` or `RCPT TO:`, or a client's name in EHLO.
//! Out: the parsed parts, which print back in one canonical form; nothing of
//! the client's own spelling gets further. This file decides what is an
//! address, not whether anybody lives there: that is `site.rs`.
//!
//! Not done here: comments and folding white space (the addresses of header
//! fields, RFC 5322, allow them; the envelope does not), and DNS.
//!
//! Book: docs/04-commands-and-addresses.md.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 5321 section 4.5.3.1.1, in octets.
const LOCAL_PART_LIMIT: usize = 64;
/// RFC 5321 section 4.5.3.1.2, in octets.
const DOMAIN_LIMIT: usize = 255;
/// RFC 5321 section 4.5.3.1.3 gives a path 256 octets; two of them are `<` and `>`.
const MAILBOX_LIMIT: usize = 254;
/// RFC 1035 section 2.3.4: a label of a domain name.
const LABEL_LIMIT: usize = 63;

/// An address: `local-part@domain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Without quotes and backslashes: `"a b"` is kept as `a b`. Never empty,
    /// no controls; upper and lower case as the client gave it, because only
    /// the receiving host may say that they are the same (section 2.4).
    pub local_part: String,
    /// What stands after the last `@`.
    pub domain: Domain,
}

/// The right-hand side of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// `host.example`, perhaps with labels outside ASCII (RFC 6531).
    Name(String),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (section 4.1.3).
    Literal(IpAddr),
}

/// Where errors are reported to: the argument of MAIL (section 4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: nobody. A bounce has it, so that no bounce is ever bounced
    /// (section 4.5.5).
    Null,
    /// `<ann@host.example>`
    Mailbox(Mailbox),
}

/// Where the message goes: the argument of RCPT (section 4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain: whoever runs this host (section 4.5.1).
    Postmaster,
    /// `<bob@host.example>`
    Mailbox(Mailbox),
}

/// Why a text is no address. The text of each tells a person what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// The path does not begin with `<`.
    NoOpeningBracket,
    /// Something else where `>` should be.
    NoClosingBracket,
    /// The local-part is empty or has a character that wants quotes.
    BadLocalPart,
    /// No `"` at the end, or a control character inside.
    BadQuotedString,
    /// No `@` after the local-part.
    NoAt,
    /// Not a domain name: letters, digits, `-`, with dots between.
    BadDomain,
    /// Not `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    BadLiteral,
    /// A source route that is not `@host,@host:`.
    BadRoute,
    /// One of the limits 64, 255 and 254 octets.
    TooLong,
    /// `<>` where a recipient is wanted.
    NoRecipient,
}

impl ReversePath {
    /// Reads a path from the start of `text` and gives what follows it.
    pub fn parse(text: &str) -> Result<(ReversePath, &str), AddressError> {
        match text.strip_prefix("<>") {
            Some(rest) => Ok((ReversePath::Null, rest)),
            None => path(text).map(|(mailbox, rest)| (ReversePath::Mailbox(mailbox), rest)),
        }
    }

    /// Whether the address goes over the wire only with SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        match self {
            ReversePath::Null => false,
            ReversePath::Mailbox(mailbox) => mailbox.needs_smtputf8(),
        }
    }
}

impl ForwardPath {
    /// Reads a path from the start of `text` and gives what follows it.
    pub fn parse(text: &str) -> Result<(ForwardPath, &str), AddressError> {
        const POSTMASTER: &str = "<postmaster>";
        if let Some((word, rest)) = text.split_at_checked(POSTMASTER.len())
            && word.eq_ignore_ascii_case(POSTMASTER)
        {
            return Ok((ForwardPath::Postmaster, rest));
        }
        if text.starts_with("<>") {
            return Err(AddressError::NoRecipient);
        }
        path(text).map(|(mailbox, rest)| (ForwardPath::Mailbox(mailbox), rest))
    }

    /// Whether the address goes over the wire only with SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        match self {
            ForwardPath::Postmaster => false,
            ForwardPath::Mailbox(mailbox) => mailbox.needs_smtputf8(),
        }
    }
}

impl Mailbox {
    /// Reads `local-part@domain` from the start of `text` and gives what
    /// follows it.
    pub fn parse(text: &str) -> Result<(Mailbox, &str), AddressError> {
        let (local_part, rest) = local_part(text)?;
        let rest = rest.strip_prefix('@').ok_or(AddressError::NoAt)?;
        let (domain, rest) = Domain::parse(rest)?;
        // What counts is what was sent, quotes included.
        if text.len() - rest.len() > MAILBOX_LIMIT {
            return Err(AddressError::TooLong);
        }
        Ok((Mailbox { local_part, domain }, rest))
    }

    fn needs_smtputf8(&self) -> bool {
        let domain_is_ascii = match &self.domain {
            Domain::Name(name) => name.is_ascii(),
            Domain::Literal(_) => true,
        };
        !self.local_part.is_ascii() || !domain_is_ascii
    }
}

impl Domain {
    /// Reads a domain name or an address literal from the start of `text` and
    /// gives what follows it.
    pub fn parse(text: &str) -> Result<(Domain, &str), AddressError> {
        if let Some(inside) = text.strip_prefix('[') {
            let (content, rest) = inside.split_once(']').ok_or(AddressError::BadLiteral)?;
            return Ok((Domain::Literal(literal(content)?), rest));
        }
        let end = text.find(|c| !is_domain_char(c)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.len() > DOMAIN_LIMIT {
            return Err(AddressError::TooLong);
        }
        // `split` gives one empty label for an empty name, so that fails too.
        if !name.split('.').all(is_label) {
            return Err(AddressError::BadDomain);
        }
        Ok((Domain::Name(name.to_owned()), rest))
    }
}

/// Lower case and A-labels (`xn--…`, RFC 5890): the form in which two domain
/// names are compared, and in which DNS knows them. `None` for a label that has
/// no such form.
pub fn ascii_domain(name: &str) -> Option<String> {
    let label = |label: &str| match label.is_ascii() {
        true => Some(label.to_ascii_lowercase()),
        false => {
            punycode::encode(&label.to_ascii_lowercase()).ok().map(|code| format!("xn--{code}"))
        }
    };
    let labels: Option<Vec<String>> = name.split('.').map(label).collect();
    labels.map(|labels| labels.join("."))
}

/// Whether `text` may stand after EHLO or HELO: letters, digits, `-`, `_` and
/// `.`, or an address literal. The underscore and the loose order of dots and
/// hyphens go beyond the RFC, because real clients send `my_laptop`, and a name
/// that proves nothing is no reason to refuse a letter (section 4.1.4).
pub fn is_client_name(text: &str) -> bool {
    if let Some(inside) = text.strip_prefix('[') {
        return inside.strip_suffix(']').is_some_and(|content| literal(content).is_ok());
    }
    (1..=DOMAIN_LIMIT).contains(&text.len()) && text.chars().all(|c| c == '_' || is_domain_char(c))
}

/// `<mailbox>`, perhaps with a source route in front of the mailbox. The route
/// is read and forgotten (RFC 5321 section 4.1.1.3 and appendix C).
fn path(text: &str) -> Result<(Mailbox, &str), AddressError> {
    let inside = text.strip_prefix('<').ok_or(AddressError::NoOpeningBracket)?;
    let (mailbox, rest) = Mailbox::parse(source_route(inside)?)?;
    let rest = rest.strip_prefix('>').ok_or(AddressError::NoClosingBracket)?;
    Ok((mailbox, rest))
}

/// What follows `@one.example,@two.example:`, or all of `text` where there is
/// no route.
fn source_route(text: &str) -> Result<&str, AddressError> {
    let mut rest = text;
    while let Some(host) = rest.strip_prefix('@') {
        let (_, after) = Domain::parse(host).map_err(|_| AddressError::BadRoute)?;
        if let Some(mailbox) = after.strip_prefix(':') {
            return Ok(mailbox);
        }
        rest = after.strip_prefix(',').ok_or(AddressError::BadRoute)?;
        if !rest.starts_with('@') {
            return Err(AddressError::BadRoute);
        }
    }
    Ok(rest)
}

/// A dot-string or a quoted-string, without its quotes; and what follows it.
fn local_part(text: &str) -> Result<(String, &str), AddressError> {
    let (local_part, rest) = match text.strip_prefix('"') {
        Some(inside) => quoted_string(inside)?,
        None => {
            let end = text.find(|c| c != '.' && !is_atext(c)).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            if !is_dot_string(word) {
                return Err(AddressError::BadLocalPart);
            }
            (word.to_owned(), rest)
        }
    };
    if text.len() - rest.len() > LOCAL_PART_LIMIT {
        return Err(AddressError::TooLong);
    }
    Ok((local_part, rest))
}

/// What stands between the quotes, with the backslashes taken away; and what
/// follows the closing quote. `inside` begins after the opening one.
fn quoted_string(inside: &str) -> Result<(String, &str), AddressError> {
    let mut plain = String::new();
    let mut chars = inside.chars();
    loop {
        match chars.next() {
            // "" is in the grammar, but no mailbox has an empty name.
            Some('"') if plain.is_empty() => return Err(AddressError::BadLocalPart),
            Some('"') => return Ok((plain, chars.as_str())),
            Some('\\') => match chars.next() {
                Some(c @ ' '..='~') => plain.push(c),
                _ => return Err(AddressError::BadQuotedString),
            },
            Some(c) if !c.is_control() => plain.push(c),
            _ => return Err(AddressError::BadQuotedString),
        }
    }
}

/// The inside of `[…]`. Other tags than `IPv6:` are possible in the grammar;
/// none has ever been registered. The standard library reads the addresses; it
/// takes `::` for a single group of zeros, which the RFC does not, and no leading
/// zeros in IPv4, which the RFC does. Both harm nobody.
fn literal(content: &str) -> Result<IpAddr, AddressError> {
    const TAG: &str = "IPv6:";
    let address = match content.split_at_checked(TAG.len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case(TAG) => {
            address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => content.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    address.ok_or(AddressError::BadLiteral)
}

/// `Dot-string`: atoms with single dots between.
fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// `atext` of RFC 5322 section 3.2.3, and UTF-8 after RFC 6531 section 3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_text(c)
}

fn is_domain_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '.' || is_utf8_text(c)
}

/// `sub-domain`: no hyphen at either end.
fn is_label(label: &str) -> bool {
    (1..=LABEL_LIMIT).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
}

/// Outside ASCII, and neither a control (C1 can move a terminal's cursor, as
/// ESC does) nor a blank.
fn is_utf8_text(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
}

impl Display for Mailbox {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if is_dot_string(&self.local_part) {
            f.write_str(&self.local_part)?;
        } else {
            let escaped = self.local_part.replace('\\', "\\\\").replace('"', "\\\"");
            write!(f, "\"{escaped}\"")?;
        }
        write!(f, "@{}", self.domain)
    }
}

impl Display for Domain {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Domain::Name(name) => f.write_str(name),
            Domain::Literal(address) => f.write_str(&address_literal(*address)),
        }
    }
}

/// An IP address as SMTP writes it: `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
pub fn address_literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

impl Display for ReversePath {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            ReversePath::Null => f.write_str("<>"),
            ReversePath::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

impl Display for ForwardPath {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            ForwardPath::Postmaster => f.write_str("<postmaster>"),
            ForwardPath::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

impl Display for AddressError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            AddressError::NoOpeningBracket => "no < right after the colon",
            AddressError::NoClosingBracket => "no > right after the address",
            AddressError::BadLocalPart => "bad name before the @",
            AddressError::BadQuotedString => "bad quoted name before the @",
            AddressError::NoAt => "no @ after the name",
            AddressError::BadDomain => "bad domain",
            AddressError::BadLiteral => "bad address literal",
            AddressError::BadRoute => "bad source route",
            AddressError::TooLong => "address too long",
            AddressError::NoRecipient => "<> is no recipient",
        })
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The canonical form of a path, or why it is none.
    fn read(text: &str) -> Result<String, AddressError> {
        let (path, rest) = ForwardPath::parse(text)?;
        assert_eq!(rest, "");
        Ok(path.to_string())
    }

    #[test]
    fn the_forms_of_the_grammar_are_read() {
        for text in [
            "<ann@host.example>",
            "<a@b>",
            "<a.b.c@x-1.example>",
            "<!#$%&'*+-/=?^_`{|}~@host.example>",
            "<\"a b\"@host.example>",
            "<\"a@b>c\"@host.example>",
            "<\"a\\\"b\\\\c\"@host.example>",
            "<ann@[192.0.2.1]>",
            "<ann@[IPv6:2001:db8::1]>",
            "<j\u{fc}rgen@b\u{fc}cher.example>",
            "<postmaster>",
        ] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn quotes_that_are_not_needed_are_dropped() {
        assert_eq!(read("<\"ann\"@host.example>").unwrap(), "<ann@host.example>");
        assert_eq!(read("<\"a\\n\\n\"@host.example>").unwrap(), "<ann@host.example>");
    }

    #[test]
    fn a_source_route_is_accepted_and_dropped() {
        assert_eq!(read("<@a.example:ann@host.example>").unwrap(), "<ann@host.example>");
        assert_eq!(read("<@a,@[192.0.2.1]:ann@host.example>").unwrap(), "<ann@host.example>");
        for text in ["<@a.example>", "<@a,b:ann@c>", "<@a.example,:ann@c>", "<@:ann@c>"] {
            assert_eq!(read(text), Err(AddressError::BadRoute), "{text}");
        }
    }

    #[test]
    fn what_is_not_in_the_grammar_is_named() {
        for (text, error) in [
            ("ann@host.example", AddressError::NoOpeningBracket),
            (" <ann@host.example>", AddressError::NoOpeningBracket),
            ("<ann@host.example", AddressError::NoClosingBracket),
            ("<ann@host.example >", AddressError::NoClosingBracket),
            ("<ann@host.example.>", AddressError::BadDomain),
            ("<ann@host_1.example>", AddressError::NoClosingBracket),
            ("<ann@>", AddressError::BadDomain),
            ("<ann@a..example>", AddressError::BadDomain),
            ("<ann@-a.example>", AddressError::BadDomain),
            ("<ann@a-.example>", AddressError::BadDomain),
            ("<ann>", AddressError::NoAt),
            ("<>", AddressError::NoRecipient),
            ("<@host.example>", AddressError::BadRoute),
            ("<.ann@host.example>", AddressError::BadLocalPart),
            ("<a..b@host.example>", AddressError::BadLocalPart),
            ("<ann.@host.example>", AddressError::BadLocalPart),
            ("<\"\"@host.example>", AddressError::BadLocalPart),
            ("<a b@host.example>", AddressError::NoAt),
            ("<\"ann@host.example>", AddressError::BadQuotedString),
            ("<\"a\u{1}\"@host.example>", AddressError::BadQuotedString),
            ("<\"a\"b@host.example>", AddressError::NoAt),
            ("<a\u{9b}2J@host.example>", AddressError::NoAt),
            ("<ann@[300.0.0.1]>", AddressError::BadLiteral),
            ("<ann@[2001:db8::1]>", AddressError::BadLiteral),
            ("<ann@[IPv6:192.0.2.1]>", AddressError::BadLiteral),
            ("<ann@[X-Tag:a]>", AddressError::BadLiteral),
            ("<ann@[192.0.2.1>", AddressError::BadLiteral),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_limits_are_64_and_254_octets_and_63_for_a_label() {
        let at = |local: usize, label: usize| {
            // Three labels of `label` octets and one more to make the sum.
            let labels = vec!["d".repeat(label); 3].join(".");
            read(&format!("<{}@{labels}>", "l".repeat(local)))
        };
        assert!(at(64, 62).is_ok());
        assert_eq!(at(65, 10), Err(AddressError::TooLong));
        assert_eq!(at(1, 64), Err(AddressError::BadDomain));
        // 62 + 1 + 191 = 254, and one more.
        assert!(at(62, 63).is_ok());
        assert_eq!(at(63, 63), Err(AddressError::TooLong));
    }

    #[test]
    fn postmaster_needs_no_domain_in_any_case() {
        assert_eq!(ForwardPath::parse("<PostMaster>"), Ok((ForwardPath::Postmaster, "")));
        assert_eq!(read("<postmasters>"), Err(AddressError::NoAt));
    }

    #[test]
    fn the_null_path_is_a_sender_only() {
        assert_eq!(ReversePath::parse("<> X=1"), Ok((ReversePath::Null, " X=1")));
        assert_eq!(ForwardPath::parse("<>"), Err(AddressError::NoRecipient));
    }

    #[test]
    fn only_addresses_outside_ascii_need_smtputf8() {
        let needs = |text| ReversePath::parse(text).unwrap().0.needs_smtputf8();
        assert!(!needs("<>"));
        assert!(!needs("<ann@host.example>"));
        assert!(needs("<\u{e4}nn@host.example>"));
        assert!(needs("<ann@h\u{f6}st.example>"));
    }

    #[test]
    fn domains_compare_in_lower_case_and_a_labels() {
        assert_eq!(ascii_domain("Host.EXAMPLE").unwrap(), "host.example");
        assert_eq!(ascii_domain("b\u{fc}cher.example").unwrap(), "xn--bcher-kva.example");
    }

    #[test]
    fn client_names_are_taken_as_real_clients_send_them() {
        for name in ["host.example", "my_laptop", "[192.0.2.1]", "[IPv6:::1]", "b\u{fc}ro", "a..b"]
        {
            assert!(is_client_name(name), "{name}");
        }
        let long = "a".repeat(256);
        for name in ["", "a b", "[192.0.2]", "[]", "a<b", "a\u{7}", "[192.0.2.1", long.as_str()] {
            assert!(!is_client_name(name), "{name}");
        }
    }

    #[test]
    fn the_canonical_form_of_an_address_is_read_back_as_the_same_address() {
        fn holds(local_part: String) -> bool {
            let mailbox = Mailbox { local_part, domain: Domain::Name("host.example".to_owned()) };
            match Mailbox::parse(&mailbox.to_string()) {
                Ok(read) => read == (mailbox, ""),
                // Too long, or a control inside: nothing that parses prints so.
                Err(_) => true,
            }
        }
        quickcheck::quickcheck(holds as fn(String) -> bool);
    }

    #[test]
    fn any_text_parses_or_fails_without_a_panic() {
        fn holds(text: String) -> bool {
            let _ = ForwardPath::parse(&text);
            let _ = ReversePath::parse(&format!("<{text}>"));
            let _ = is_client_name(&text);
            let _ = ascii_domain(&text);
            true
        }
        quickcheck::quickcheck(holds as fn(String) -> bool);
    }
}
