//! Messages on disk, so that they stay there.
//!
//! This folder knows files, links and `fsync`. It does not know how a message
//! came in (`wire/`). Read in this order: [`spool`], [`draft`], [`disk`], [`maildir`],
//! [`queue`]; [`trace`], [`header`], [`folder`] and [`envelope`] are pure text. [`text_file`] takes
//! the two files apart that people write, and [`users`] and [`aliases`] say what is in them.

pub mod aliases;
pub mod disk;
pub mod draft;
pub mod envelope;
pub mod folder;
pub mod header;
pub mod maildir;
#[cfg(test)]
pub mod power_cut;
pub mod queue;
pub mod spool;
pub mod text_file;
pub mod trace;
pub mod users;
