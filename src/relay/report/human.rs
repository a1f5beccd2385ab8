//! The first part of a report: the text for a person.
//!
//! In: the facts of a report. Out: what became of the letter, for whom, what was said
//! about it, and what to do. The words of a foreign server stand after its name, as a
//! quotation. The texts by which we help are in `advice.txt`.
//!
//! Book: docs/14-the-queue.md.

use std::mem::discriminant;

use crate::relay::report::fold::wrap;
use crate::relay::report::status::spelt;
use crate::relay::report::{About, Event, Part, Report};
use crate::smtp::answer::{Answer, Verdict};
use crate::smtp::reply::Enhanced;
use crate::smtp::text::printable;
use crate::store::trace::date;

/// Codes, without their class, and what a sender can do about them (RFC 3463 section 3,
/// and those registered since).
const ADVICE: &str = include_str!("advice.txt");

/// What stands before each line about a recipient.
const INDENT: &str = "    ";

/// The part. `what` of the letter is attached: all of it or its header.
pub fn part(report: &Report, what: &str) -> Part {
    let mut text = wrap("", "", &format!("This is the mail server {}.", report.hostname));
    let mut about: Vec<&About> = report.about.iter().collect();
    about.sort_by_key(|one| one.event);
    let mut subject = format!("Your letter, which came here on {},", date(report.letter.arrived));
    for alike in about.chunk_by(|a, b| discriminant(&a.event) == discriminant(&b.event)) {
        let Some(first) = alike.first() else { continue };
        let whom = if alike.len() == 1 { "this address" } else { "these addresses" };
        text += "\n";
        text += &wrap("", "", &format!("{subject} {}", became(first.event, whom)));
        "It".clone_into(&mut subject);
        for about in alike {
            text += &format!("\n<{}>\n", spelt(&about.address(), report.is_utf8()));
            text += &details(about);
        }
    }
    let last = format!(
        "If it was for others too, this says nothing about them. {what} is attached. Should you \
         ask postmaster@{} about it, give the id {}.",
        report.domain, report.original_id
    );
    text += "\n";
    text += &wrap("", "", &last);
    Part { content_type: "text/plain; charset=utf-8", text: text.into_bytes() }
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
fn details(about: &About) -> String {
    let Answer { verdict, status, text: words, by } = about.answer;
    let said = match by {
        Some(by) => format!("{} answered: {words}", printable(by)),
        None if *verdict == Verdict::Delivered => String::new(),
        None => format!("The reason: {words}"),
    };
    let advice = match about.event {
        Event::Failed => advice(*status).to_owned(),
        Event::Delayed { will_retry_until } => {
            format!("It will be tried until {}.", date(will_retry_until))
        }
        Event::Relayed | Event::Expanded | Event::Delivered => String::new(),
    };
    let parts = [said, advice].into_iter().filter(|words| !words.is_empty());
    parts.map(|words| wrap(INDENT, INDENT, &words)).collect()
}

/// What the sender can do, by what the code is about.
fn advice(status: Enhanced) -> &'static str {
    let Enhanced { subject, detail, .. } = status;
    let codes = [&format!("{subject}.{detail}"), &subject.to_string(), "any"];
    let about = |code: &&str| {
        let mut lines = ADVICE.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(about, _)| about.split(' ').any(|one| one == *code)).map(|(_, text)| text)
    };
    codes.iter().find_map(about).unwrap_or_default()
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
        assert!(!advices.contains(""));
        let late = Enhanced { class: 5, subject: 4, detail: 7 };
        assert!(advice(late).contains("given up"));
    }
}
