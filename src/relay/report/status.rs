//! The second part of a report: fields for a program (RFC 3464 section 2).
//!
//! In: the facts of a report. Out: a group of fields about the letter, then one for
//! each recipient (RFC 3461 section 6.3 says which), and addresses as they may stand
//! there.
//!
//! Addresses stand as they were said, `ENVID` and `ORCPT` as they were meant, blanks too:
//! they are not folded.
//!
//! Book: docs/14-the-queue.md.

use crate::relay::report::fold::field;
use crate::relay::report::{About, Event, Part, Report};
use crate::smtp::answer::{Answer, Verdict};
use crate::smtp::dsn::{OriginalRecipient, from_xtext};
use crate::smtp::text::{ascii_address, printable};
use crate::store::trace::date;

/// The address type of addresses outside ASCII (RFC 6533 section 3).
const UTF8: &str = "utf-8";

/// The part.
pub fn part(report: &Report) -> Part {
    let mut text = String::new();
    if let Some(envid) = &report.letter.dsn.envid {
        text += &format!("Original-Envelope-Id: {}\n", decoded(envid));
    }
    // `dns` promises a name that DNS knows (RFC 3461 section 6.3).
    let name_type = if report.hostname.contains('.') { "dns" } else { "x-local-hostname" };
    text += &field("Reporting-MTA", &format!("{name_type}; {}", report.hostname));
    text += &field("Arrival-Date", &date(report.letter.arrived));
    for about in report.about {
        text += "\n";
        text += &recipient(report, about);
    }
    // Only the global type may hold an address outside ASCII as it is (RFC 6533
    // section 4). Programs that know the older one are more, so ASCII goes there.
    let content_type =
        if text.is_ascii() { "message/delivery-status" } else { "message/global-delivery-status" };
    Part { content_type, text: text.into_bytes() }
}

/// The fields about one recipient (RFC 3464 section 2.3).
fn recipient(report: &Report, about: &About) -> String {
    let mut text = String::new();
    if let Some(orcpt) = about.orcpt {
        let called = original_recipient(orcpt, report.is_utf8());
        text += &format!("Original-Recipient: {called}\n");
    }
    let address = about.address();
    let address_type = if address.is_ascii() { "rfc822" } else { UTF8 };
    let address = spelt(&address, report.is_utf8());
    text += &format!("Final-Recipient: {address_type}; {address}\n");
    text += &field("Action", about.event.words().0);
    let Answer { verdict, status, text: words, by } = about.answer;
    text += &field("Status", &status.to_string());
    // `smtp` promises the words of a server. Ours get a type of our own, and say
    // nothing if all went well (section 2.3.6).
    if let Some(by) = by {
        text += &field("Remote-MTA", &format!("dns; {}", printable(by)));
        text += &field("Diagnostic-Code", &format!("smtp; {words}"));
    } else if *verdict != Verdict::Delivered {
        text += &field("Diagnostic-Code", &format!("X-Ehlo; {words}"));
    }
    if let Event::Delayed { will_retry_until } = about.event {
        text += &field("Will-Retry-Until", &date(will_retry_until));
    }
    text
}

/// What the sender called the recipient, decoded (RFC 3461 section 6.3, RFC 6533
/// section 4.1).
fn original_recipient(orcpt: &OriginalRecipient, is_utf8: bool) -> String {
    let OriginalRecipient { address_type, address } = orcpt;
    let is_global = address_type.eq_ignore_ascii_case(UTF8);
    let text = from_xtext(address).and_then(|text| from_unitext(&text));
    match text.filter(|_| is_global) {
        Some(address) => format!("{address_type}; {}", spelt(&address, is_utf8)),
        None => format!("{address_type}; {}", decoded(address)),
    }
}

/// What xtext stands for. That has to be printable ASCII (RFC 3461 sections 4.2 and
/// 4.4); if it is not, it stays as it was sent.
fn decoded(xtext: &str) -> String {
    let is_plain = |text: &String| text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    from_xtext(xtext).filter(is_plain).unwrap_or_else(|| printable(xtext))
}

/// An address as it is, or in ASCII if the report has to be.
pub fn spelt(address: &str, is_utf8: bool) -> String {
    if is_utf8 || address.is_ascii() { address.to_owned() } else { ascii_address(address) }
}

/// The address that was spelt so; `None` if it is none.
fn from_unitext(text: &str) -> Option<String> {
    let mut parts = text.split("\\x{");
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}')?;
        out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        out.push_str(rest);
    }
    (!out.contains(char::is_control)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_outside_ascii_is_read_back_as_what_it_was() {
        fn holds(address: String) -> bool {
            let address = address.replace(char::is_control, "");
            let in_ascii = spelt(&address, false);
            in_ascii.is_ascii()
                && spelt(&address, true) == address
                && (address.is_ascii() || from_unitext(&in_ascii) == Some(address))
        }
        quickcheck::quickcheck(holds as fn(String) -> bool);
        assert_eq!(spelt("b\u{fc}ro+\u{1f4ee} @x", false), "b\\x{FC}ro\\x{2B}\\x{1F4EE}\\x{20}@x");
    }

    #[test]
    fn an_original_recipient_is_decoded_as_far_as_the_report_may_hold_it() {
        for (orcpt, in_ascii, in_utf8) in [
            ("rfc822;a+2Bb@c.example", "rfc822; a+b@c.example", "rfc822; a+b@c.example"),
            ("RFC822;a+20b@c", "RFC822; a b@c", "RFC822; a b@c"),
            ("x400;/a+3Db/", "x400; /a=b/", "x400; /a=b/"),
            ("rfc822;a+FFb", "rfc822; a+FFb", "rfc822; a+FFb"),
            // Nothing that could begin a line.
            ("rfc822;a+09b", "rfc822; a+09b", "rfc822; a+09b"),
            ("rfc822;b+C3+BCro", "rfc822; b+C3+BCro", "rfc822; b+C3+BCro"),
            ("utf-8;b\\x{FC}ro@c", "utf-8; b\\x{FC}ro@c", "utf-8; b\u{fc}ro@c"),
            ("utf-8;b+C3+BCro@c", "utf-8; b\\x{FC}ro@c", "utf-8; b\u{fc}ro@c"),
            ("UTF-8;bob\\x{2B}x@c", "UTF-8; bob+x@c", "UTF-8; bob+x@c"),
            ("utf-8;b\\x{A}c", "utf-8; b\\x{A}c", "utf-8; b\\x{A}c"),
            ("utf-8;b\\x{D800}c", "utf-8; b\\x{D800}c", "utf-8; b\\x{D800}c"),
        ] {
            let orcpt = OriginalRecipient::parse(orcpt).unwrap();
            assert_eq!(original_recipient(&orcpt, false), in_ascii);
            assert_eq!(original_recipient(&orcpt, true), in_utf8);
        }
    }
}
