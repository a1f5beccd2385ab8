//! Messages on disk, so that they stay there.
//!
//! This folder knows files, links and `fsync`. It does not know how a message
//! came in (`wire/`). Read in this order: [`spool`], [`draft`], [`maildir`];
//! [`trace`], [`header`] and [`folder`] are pure text.

pub mod draft;
pub mod folder;
pub mod header;
pub mod maildir;
pub mod spool;
pub mod trace;
