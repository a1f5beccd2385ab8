//! Addresses after the grammar of RFC 5321 section 4.1.2.
//!
//! In: the text after `MAIL FROM:` or `RCPT TO:`. Out: the parsed parts, which
//! print back in one canonical form that reads back as the same address; no quotes,
//! escapes or routes of the client's own get further. This file decides what is an
//! address, not whether anybody lives there: that is `site/`.
//!
//! Not done here: comments and folding white space (the addresses of header
//! fields, RFC 5322, allow them; the envelope does not), a limit on the local-part
//! (RFC 5321 section 4.5.3.1 wants *at least* 64 octets, and mailing services use
//! more; the length of the command line bounds it), and DNS.
//!
//! Book: docs/04-commands-and-addresses.md.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// RFC 5321 section 4.5.3.1.2 has 255 octets, and DNS counts two more than the text
/// has (RFC 1035 section 3.1: the length of the first label, and the root).
const DOMAIN_LIMIT: usize = 253;
/// RFC 1035 section 2.3.4: a label of a domain name.
const LABEL_LIMIT: usize = 63;

/// An address: `local-part@domain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Without quotes and backslashes: `"a b"` is kept as `a b`, and `""` as
    /// nothing. No controls; upper and lower case as the client gave it, because
    /// only the receiving host may say that they are the same (section 2.4).
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
    /// Not a domain name: letters, digits, `-` and `_`, with dots between; or a
    /// name that has no A-labels, or too long ones.
    BadDomain,
    /// Not `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    BadLiteral,
    /// A source route that is not `@host,@host:`.
    BadRoute,
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
    /// The same address with its domain in one spelling. In A-labels it needs no SMTPUTF8 on
    /// the way, DNS can be asked about it (RFC 8616 section 4), and it can be written
    /// wherever only ASCII may stand.
    pub fn with_a_labels(&self) -> Mailbox {
        let domain = match &self.domain {
            // A name that was parsed has A-labels.
            Domain::Name(name) => {
                Domain::Name(ascii_domain(name).unwrap_or_else(|| name.to_ascii_lowercase()))
            }
            Domain::Literal(address) => Domain::Literal(address.to_canonical()),
        };
        Mailbox { local_part: self.local_part.clone(), domain }
    }

    /// Reads `local-part@domain` from the start of `text` and gives what
    /// follows it.
    pub fn parse(text: &str) -> Result<(Mailbox, &str), AddressError> {
        let (local_part, rest) = local_part(text)?;
        let rest = rest.strip_prefix('@').ok_or(AddressError::NoAt)?;
        let (domain, rest) = Domain::parse(rest)?;
        Ok((Mailbox { local_part, domain }, rest))
    }

    /// Whether the address goes over the wire only with SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
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
        // What has no A-labels can neither be asked for in DNS nor be written where
        // only ASCII may stand, so it is no domain.
        ascii_domain(name).ok_or(AddressError::BadDomain)?;
        Ok((Domain::Name(name.to_owned()), rest))
    }
}

/// Lower case and A-labels (`xn--…`, RFC 5890): the form in which two domain
/// names are compared, and in which DNS knows them. Names outside ASCII are mapped,
/// normalised and checked by UTS 46. `None` for a name that has no such form, or a
/// longer one than DNS takes. What comes out gives itself.
pub fn ascii_domain(name: &str) -> Option<String> {
    // A letter outside ASCII has four octets at most. To map what is far too long costs much.
    if name.len() > 4 * DOMAIN_LIMIT {
        return None;
    }
    let ascii = if name.is_ascii() {
        name.to_ascii_lowercase()
    } else {
        // Lengths and ASCII are looked at below, where names in ASCII come too.
        let (anything, hyphens) = (AsciiDenyList::EMPTY, Hyphens::CheckFirstLast);
        let mapped = Uts46::new().to_ascii(name.as_bytes(), anything, hyphens, DnsLength::Ignore);
        mapped.ok()?.into_owned()
    };
    // `split` gives one empty label for an empty name, so that fails too. The mapping may
    // have made any ASCII, such as `@` of a wide `＠`, and `is_label` wants that of names.
    let is_name = ascii.len() <= DOMAIN_LIMIT && ascii.split('.').all(is_label);
    is_name.then_some(ascii)
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
    if let Some(inside) = text.strip_prefix('"') {
        return quoted_string(inside);
    }
    let end = text.find(|c| c != '.' && !is_atext(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if !is_dot_string(word) {
        return Err(AddressError::BadLocalPart);
    }
    Ok((word.to_owned(), rest))
}

/// What stands between the quotes, with the backslashes taken away; and what
/// follows the closing quote. `inside` begins after the opening one.
fn quoted_string(inside: &str) -> Result<(String, &str), AddressError> {
    let mut plain = String::new();
    let mut chars = inside.chars();
    loop {
        match chars.next() {
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

/// The underscore is not in the grammar, but hosts have such names.
fn is_domain_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c) || is_utf8_text(c)
}

/// `sub-domain` in ASCII: no hyphen at either end.
fn is_label(label: &str) -> bool {
    (1..=LABEL_LIMIT).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
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
            "<\"\"@host.example>",
            "<ann@mail_relay._tcp.example>",
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
    fn a_domain_has_253_octets_and_a_label_63_counted_on_a_labels() {
        let at = |label: &str, more: usize| {
            // Three labels of 63 octets and their dots are 192.
            let labels = vec!["d".repeat(63); 3].join(".");
            read(&format!("<a@{labels}.{}{label}>", "d".repeat(more)))
        };
        assert!(at("", 61).is_ok());
        assert_eq!(at("", 62), Err(AddressError::BadDomain));
        // `xn--d…-kva` has eight octets more than ASCII in it, and is shorter than this text.
        assert!(at("\u{fc}", 53).is_ok());
        assert_eq!(at("\u{fc}", 54), Err(AddressError::BadDomain));
        // Twenty different characters are 60 octets in UTF-8, and more in DNS.
        let twenty = (0..20).filter_map(|number| char::from_u32(0x4e00 + 997 * number));
        for label in ["d".repeat(64), twenty.collect()] {
            assert_eq!(read(&format!("<a@{label}.example>")), Err(AddressError::BadDomain));
        }
        // More octets than a label may have as it is sent, and fewer in DNS.
        assert!(read(&format!("<a@{}.example>", "\u{fc}".repeat(50))).is_ok());
    }

    /// Mailing services and SRS write what a bounce needs to know before the `@`.
    #[test]
    fn a_local_part_may_be_longer_than_64_octets() {
        let sender = "bounces+1234567-ab12-ann.longname=some-long-company-domain.example";
        assert!(read(&format!("<{sender}@em1234.sender.example>")).is_ok());
        assert!(read(&format!("<{}@host.example>", "l".repeat(900))).is_ok());
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
        // Small, capital, with a combining diaeresis (NFD), and with a soft hyphen.
        for name in ["b\u{fc}cher", "B\u{dc}CHER", "bu\u{308}cher", "b\u{fc}\u{ad}cher"] {
            let name = format!("{name}.example");
            assert_eq!(ascii_domain(&name).as_deref(), Some("xn--bcher-kva.example"), "{name}");
        }
        // The full stop of East Asian text parts labels, too.
        assert_eq!(ascii_domain("\u{fc}\u{3002}example").unwrap(), "xn--tda.example");
    }

    #[test]
    fn what_unicode_maps_to_other_ascii_than_a_name_has_is_no_domain() {
        for name in
            ["a\u{ff20}b", "a\u{ff0f}b", "\u{ff0e}\u{ff0e}", "a\u{2488}", "\u{378}", "\u{fc}-"]
        {
            assert_eq!(ascii_domain(name), None, "{name}");
            assert_eq!(read(&format!("<ann@{name}>")), Err(AddressError::BadDomain), "{name}");
        }
    }

    /// Whatever is accepted can be written in A-labels, and read back.
    #[test]
    fn a_domain_that_is_read_has_one_form_that_reads_as_itself() {
        fn holds(labels: Vec<String>) -> bool {
            match Domain::parse(&labels.join(".")) {
                Ok((Domain::Name(name), _)) => {
                    let ascii = ascii_domain(&name).unwrap();
                    let again = Domain::parse(&ascii).unwrap();
                    let same = ascii_domain(&ascii).as_deref() == Some(ascii.as_str());
                    same && again == (Domain::Name(ascii.clone()), "")
                }
                Ok((Domain::Literal(_), _)) | Err(_) => true,
            }
        }
        quickcheck::quickcheck(holds as fn(Vec<String>) -> bool);
    }

    #[test]
    fn the_canonical_form_of_an_address_is_read_back_as_the_same_address() {
        fn holds(local_part: String) -> bool {
            let mailbox = Mailbox { local_part, domain: Domain::Name("host.example".to_owned()) };
            match Mailbox::parse(&mailbox.to_string()) {
                Ok(read) => read == (mailbox, ""),
                // A control inside: nothing that parses prints so.
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
            let _ = ascii_domain(&text);
            true
        }
        quickcheck::quickcheck(holds as fn(String) -> bool);
    }
}
