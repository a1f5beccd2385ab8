//! The first part of a report: the text for a person.
//!
//! In: the facts of a report. Out: what became of the letter, for whom, what was said
//! about it, and what to do. The words of a foreign server stand after its name, as a
//! quotation.
//!
//! Book: docs/14-the-queue.md.

use std::mem::discriminant;

use crate::relay::report::fold::{short_lines, wrap};
use crate::relay::report::status::spelt;
use crate::relay::report::{About, Event, Part, Report};
use crate::smtp::answer::Answer;
use crate::smtp::reply::Enhanced;
use crate::smtp::text::printable;
use crate::store::trace::date;

/// What stands before each line about a recipient.
const INDENT: &str = "    ";

/// The part. `what` of the letter is attached: all of it or its header.
pub fn part(report: &Report, what: &str) -> Part {
    let mut text = String::new();
    wrap(&mut text, "", "", &format!("This is the mail server {}.", report.hostname));
    let mut about: Vec<&About> = report.about.iter().collect();
    about.sort_by_key(|one| one.event);
    let mut subject = format!("Your letter, which came here on {},", date(report.arrived));
    for alike in about.chunk_by(|a, b| discriminant(&a.event) == discriminant(&b.event)) {
        let Some(first) = alike.first() else { continue };
        let whom = if alike.len() == 1 { "this address" } else { "these addresses" };
        text.push('\n');
        wrap(&mut text, "", "", &format!("{subject} {}", became(first.event, whom)));
        "It".clone_into(&mut subject);
        for about in alike {
            text.push_str(&format!("\n<{}>\n", spelt(&about.address(), report.is_utf8)));
            details(&mut text, about);
        }
    }
    text.push('\n');
    let last = format!(
        "If it was for others too, this says nothing about them. {what} is attached. Should you \
         ask postmaster@{} about it, give the id {}.",
        report.domain, report.original_id
    );
    wrap(&mut text, "", "", &last);
    Part { content_type: "text/plain; charset=utf-8", text: short_lines(text.as_bytes()) }
}

/// The rest of a sentence about a letter.
fn became(event: Event, whom: &str) -> String {
    match event {
        Event::Failed => {
            format!("could not be delivered to {whom}, and it will not be tried again:")
        }
        Event::Delayed { .. } => format!(
            "has not reached {whom} yet. You need not send it again, for it will be tried again:"
        ),
        Event::Relayed => format!(
            "was handed on for {whom} to a server that does not report when it is delivered, so \
             you hear no more if all goes well:"
        ),
        Event::Expanded => {
            format!("reached {whom}, and goes on from there to several others:")
        }
        Event::Delivered => format!(
            "was put into the mailbox of {whom}, which does not mean that somebody has read it:"
        ),
    }
}

/// What was said about one recipient, and what follows from it.
fn details(text: &mut String, about: &About) {
    let Answer { by, text: words, status, .. } = about.answer;
    let said = match by {
        Some(by) => format!("{} answered: {words}", printable(by)),
        None if about.event.is_success() => return,
        None => format!("The reason: {words}"),
    };
    wrap(text, INDENT, INDENT, &said);
    let advice = match about.event {
        Event::Failed => advice(*status).to_owned(),
        Event::Delayed { will_retry_until } => {
            format!("It will be tried until {}.", date(will_retry_until))
        }
        Event::Relayed | Event::Expanded | Event::Delivered => return,
    };
    wrap(text, INDENT, INDENT, &advice);
}

/// What the sender can do, by what the code is about (RFC 3463 section 3, and the
/// codes registered since).
fn advice(status: Enhanced) -> &'static str {
    match (status.subject, status.detail) {
        (1, 1) => {
            "There is no mailbox of this name. Please look for a typing error before the @. If \
             there is none, the address may have been given up."
        }
        (1, 2) | (4, 4) => {
            "No way leads to this domain. Please look for a typing error after the @."
        }
        (1, 3) => "The server there takes this for no address. Please look for a typing error.",
        (1, 6) => "The mailbox has moved. Please ask for the new address in some other way.",
        (1, 7) | (1, 8) => {
            "The server there does not like the address you write from. Please see whether it is \
             right in your mail program."
        }
        (1, 10) => "This domain takes no mail at all. Please look for a typing error after the @.",
        (2, 1) => "The mailbox exists but takes no mail at present.",
        (2, 2) => "The mailbox is full. Please try again in some days, or tell its owner.",
        (2, 3) | (3, 4) => "The letter is too big. Please send a link instead of attachments.",
        (4, 6) => "The letter went round in a circle. Please tell the postmaster named below.",
        (4, 7) => {
            "The server there could not take it in all the time we tried, so we have given up. \
             If it is still important, please send it again."
        }
        (6, 3) => {
            "The server there takes letters in plain ASCII only. Please send it without accents \
             and other special letters, or as an attachment."
        }
        (6, 7) => {
            "A server on the way cannot handle addresses or headers outside ASCII. Please use \
             plain letters there, if you have such an address."
        }
        (7, _) => {
            "The server there does not want this letter from us or from you. It may take it for \
             advertising, or know only certain senders. Its answer may say more; else ask the \
             recipient in some other way."
        }
        _ if status.class == 4 => {
            "It was tried more than once, and we have given up. If it is still important, please \
             send it again."
        }
        _ => {
            "Please look at the answer above. If it does not help you, ask the recipient in some \
             other way, or the postmaster named below."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_advice_differs_and_none_is_for_all() {
        let advices: std::collections::HashSet<&str> = [
            (1, 1),
            (1, 2),
            (1, 3),
            (1, 6),
            (1, 7),
            (1, 10),
            (2, 1),
            (2, 2),
            (3, 4),
            (4, 6),
            (4, 7),
            (6, 3),
            (6, 7),
            (7, 1),
            (0, 0),
        ]
        .into_iter()
        .map(|(subject, detail)| advice(Enhanced { class: 5, subject, detail }))
        .collect();
        assert_eq!(advices.len(), 15);
        let late = Enhanced { class: 4, subject: 0, detail: 0 };
        assert!(advice(late).contains("given up"));
    }
}
