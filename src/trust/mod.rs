//! Who really wrote a letter: three answers, each from records in DNS.
//!
//! Anybody can type any sender. [`spf`] asks whether this client may send for the domain of
//! the envelope, [`dkim`] whether a domain has signed what arrived, and [`dmarc`] whether
//! either of the two is the domain that a reader sees, in `From` ([`author`]). [`results`] writes down
//! what came out. [`lookups`] is the DNS of one letter, with its time; [`explain`] keeps
//! what a person wants to know about the way to a verdict, [`fields`] finds the fields of a
//! header.
//!
//! Nothing here knows connections or files: a letter is octets, an answer is a value.
//!
//! Book: docs/16-trust.md.

pub mod author;
pub mod dkim;
pub mod dmarc;
pub mod explain;
pub mod fields;
pub mod lookups;
pub mod results;
pub mod spf;
