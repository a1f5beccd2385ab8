//! Octets in and out: deadlines, lines, dot-stuffing, the trace.
//!
//! This folder knows how SMTP cuts a stream into lines and messages. It does
//! not know what a line means (`smtp/`) or where a message goes (`store/`).
//! Read in this order: [`socket`], [`stream`], [`tls`], [`buffer`], [`lines`],
//! [`body`], [`events`], [`trace`]; for the side of the client [`replies`], and for a balancer in
//! between [`proxy`].
//!
//! Book: docs/06-bytes.md.

pub mod body;
pub mod buffer;
pub mod events;
pub mod lines;
pub mod proxy;
pub mod replies;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod trace;
