//! Mail for other servers, and for mailboxes here that could not take it: where it goes,
//! how it gets there, and what the sender is told.
//!
//! Read in this order: [`plan`], [`worker`], [`delivery`], [`conclusion`], with what
//! all attempts share in [`courier`]; then [`client`], [`route`] and [`report`]. What waits is
//! kept by `store/queue.rs`.
//!
//! Book: docs/13-the-client-side.md.

pub mod client;
pub mod conclusion;
#[cfg(test)]
mod conclusion_cuts;
pub mod courier;
pub mod delivery;
pub mod plan;
pub mod report;
pub mod route;
pub mod worker;
