//! The protocol: text and order, and nothing else.
//!
//! Nothing in this folder opens a socket or a file, reads a clock or starts a
//! thread, so every rule of SMTP can be read, and tested, without a network.
//! Read in this order: [`reply`], [`address`], [`command`], [`site`],
//! [`session`]; [`text`], [`dsn`] and [`answer`] when you meet them; [`auth`] for AUTH.

pub mod address;
pub mod answer;
pub mod auth;
pub mod command;
pub mod dsn;
pub mod reply;
pub mod session;
pub mod site;
pub mod text;
