//! The trace fields a server puts in front of every message it takes.
//!
//! In: what the session knows. Out: `Return-Path` (who gets the errors) and
//! `Received` (how the message came here), in file form, after the grammar of
//! RFC 5321 section 4.4. Time is an argument.
//!
//! Book: docs/07-maildir.md.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::smtp::address::{ForwardPath, ReversePath, address_literal};
use crate::smtp::text::one_word;

/// How much of a client's name stands in `Received`.
const NAME_LIMIT: usize = 255;

/// What `Return-Path` and `Received` say about one message.
#[derive(Debug)]
pub struct TraceFields<'a> {
    /// Where errors are reported to.
    pub reverse_path: &'a ReversePath,
    /// What the client called itself. It may say anything …
    pub client_name: &'a [u8],
    /// … which is why its address stands next to it.
    pub client_address: IpAddr,
    /// The name of this server.
    pub hostname: &'a str,
    /// `SMTP`, `ESMTP` and so on (RFC 3848).
    pub protocol: &'a str,
    /// How the message was encrypted on its way here: protocol and cipher, as far as
    /// they are known.
    pub encryption: Option<&'a str>,
    /// The id of the message here.
    pub id: &'a str,
    /// The recipient, if there is only one. Among several, one may be a Bcc
    /// that the others must not see (section 7.6).
    pub only_recipient: Option<&'a ForwardPath>,
    /// When the message came.
    pub when: Timestamp,
}

impl TraceFields<'_> {
    /// Both fields, each line ending with LF.
    pub fn to_text(&self) -> String {
        // Escaped it may be four times as long, and a line has 998 octets (RFC 5322
        // section 2.1.1).
        let mut name = one_word(self.client_name);
        name.truncate(NAME_LIMIT);
        let literal = address_literal(self.client_address);
        let TraceFields { reverse_path, hostname, protocol, id, .. } = self;
        let encryption = self.encryption.map(|how| format!(" ({how})")).unwrap_or_default();
        // Outside ASCII it would make the letter need SMTPUTF8 on its way.
        let to = self.only_recipient.filter(|to| !to.needs_smtputf8());
        let to = to.map(|to| format!("\n\tfor {to}")).unwrap_or_default();
        format!(
            "Return-Path: {reverse_path}\n\
             Received: from {name} ({literal})\n\
             \tby {hostname} with {protocol}{encryption} id {id}{to};\n\
             \t{}\n",
            date(self.when)
        )
    }
}

/// `Sun, 22 Nov 2026 05:14:39 +0000` (RFC 5322 section 3.3), always in UTC.
pub fn date(when: Timestamp) -> String {
    // It fails for years outside 0 to 9999 only, which no clock of ours shows.
    rfc2822::to_string(&when.to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(from: &str, only_recipient: Option<&str>, address: &str) -> String {
        fields_under(None, from, only_recipient, address)
    }

    fn fields_under(
        encryption: Option<&str>,
        from: &str,
        only_recipient: Option<&str>,
        address: &str,
    ) -> String {
        let (reverse_path, _) = ReversePath::parse(from).unwrap();
        let to = only_recipient.map(|to| ForwardPath::parse(to).unwrap().0);
        let fields = TraceFields {
            reverse_path: &reverse_path,
            client_name: "b\u{fc}ro x".as_bytes(),
            client_address: address.parse().unwrap(),
            hostname: "mx.host.example",
            protocol: "ESMTP",
            encryption,
            id: "M1P2Q3",
            only_recipient: to.as_ref(),
            when: Timestamp::from_second(1_795_324_479).unwrap(),
        };
        fields.to_text()
    }

    #[test]
    fn both_fields_follow_the_grammar_and_client_text_is_escaped() {
        assert_eq!(
            fields("<ann@host.example>", Some("<bob@host.example>"), "192.0.2.1"),
            "Return-Path: <ann@host.example>\n\
             Received: from b\\xc3\\xbcro\\x20x ([192.0.2.1])\n\
             \tby mx.host.example with ESMTP id M1P2Q3\n\
             \tfor <bob@host.example>;\n\
             \tSun, 22 Nov 2026 05:14:39 +0000\n"
        );
    }

    #[test]
    fn one_of_several_recipients_is_not_named() {
        let text = fields("<>", None, "192.0.2.1");
        assert!(!text.contains("for"), "{text}");
    }

    #[test]
    fn the_encryption_is_a_comment_after_the_protocol() {
        let text = fields_under(Some("TLSv1.3 TLS_AES_256_GCM_SHA384"), "<>", None, "192.0.2.1");
        let comment = "with ESMTP (TLSv1.3 TLS_AES_256_GCM_SHA384) id M1P2Q3;\n";
        assert!(text.contains(comment), "{text}");
    }

    #[test]
    fn an_ipv6_client_is_tagged() {
        assert!(fields("<>", None, "2001:db8::1").contains("([IPv6:2001:db8::1])"));
    }
}
