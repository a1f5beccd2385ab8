//! Octets in and out: deadlines, lines, dot-stuffing, the trace.
//!
//! This folder knows how SMTP cuts a stream into lines and messages. It does
//! not know what a line means (`smtp/`) or where a message goes (`store/`).
//! Read in this order: [`socket`], [`stream`], [`lines`], [`body`], [`trace`]; and, for
//! the side of the client, [`replies`].

pub mod body;
pub mod lines;
pub mod replies;
pub mod socket;
pub mod stream;
pub mod trace;
