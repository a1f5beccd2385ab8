//! AUTH: how a client proves who it is (RFC 4954, RFC 4422).
//!
//! [`mechanism`] has the names, [`exchange`] both halves of the conversation, the
//! server's and the client's; what a mechanism says in it stands in a file of its
//! own, both halves side by side: [`plain`] (PLAIN and LOGIN), [`cram_md5`],
//! [`scram`], [`token`]. Who has which secret is in [`users`], and what a secret is in
//! [`secret`]. A token is checked in [`jwt`], with keys of a [`key_set`]: each is a
//! [`public_key`], written in [`json`] or as [`spki`].
//!
//! Not done here: whether AUTH is allowed now, the pause after a failure and the
//! length of lines (`session/`); channel binding and SASLprep, which few mail
//! clients know.
//!
//! Book: docs/11-auth.md.

pub mod cram_md5;
pub mod exchange;
pub mod json;
pub mod jwt;
pub mod key_set;
pub mod mechanism;
pub mod plain;
pub mod public_key;
pub mod scram;
pub mod secret;
pub mod spki;
pub mod token;
pub mod users;
