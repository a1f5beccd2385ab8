//! `ehlo`: a small SMTP server that is made to be read.
//!
//! Every client has a thread; a thread is a loop; the loop reads a line, asks
//! the protocol what to answer, and answers. Arrows run down only, and
//! `tests/layers.rs` holds them to it:
//!
//! ```text
//! main.rs      signals, exit codes
//! config.rs    flags, checked
//!    │
//! server/      listener.rs   one port, and the threads that wait there for clients
//!    │         clients.rs    who is connected: caps, shutdown
//!    │         connection.rs the loop of one client
//!    │         receive.rs    from 354 to stored: where wire and store meet
//!    │         identity.rs   certificate and key · failures.rs  failed logins
//!    │         relaying.rs   what relay/ needs, made of flags and files
//!    │
//! relay/       worker.rs     when each letter is tried, and in which thread
//!    │         attempt.rs    one attempt at one letter
//!    │         client.rs     the other half of the protocol
//!    │         route.rs      where the mail for a domain goes · dns.rs  questions
//!    │         bounce.rs     what the sender is told, pure text
//!    │
//! store/       spool.rs      one message to all its mailboxes, for good
//!    │         draft.rs      a message while it is received
//!    │         maildir.rs    one mailbox · disk.rs  what survives a power cut
//!    │         folder.rs     mailbox → folder · header.rs, trace.rs  pure text
//!    │         queue.rs      what has to go elsewhere · envelope.rs  who it is for
//!    │         users.rs, aliases.rs  the files that people write, read
//!    │
//! wire/        socket.rs     one absolute deadline
//!    │         stream.rs     in clear or under TLS
//!    │         lines.rs      lines in, replies out, close · replies.rs  the other end
//!    │         body.rs       dots and line ends of a message, pure
//!    │         trace.rs      the dialogue, printed
//!    │
//! smtp/        session.rs    the order of commands: the state machine
//!              site.rs       whose mail this is
//!              login.rs      the client's half of AUTH
//!              sasl.rs       the exchanges of AUTH
//!              command.rs    one line → one command
//!              address.rs    the grammar of addresses
//!              credentials.rs who has which secret
//!              dsn.rs        what a sender wants to be told (DSN)
//!              reply.rs      every reply, by name
//!              text.rs       client text made harmless
//!
//! dialogue.rs  plays scripts against a server; nothing here uses it
//! ```
//!
//! `store/` and `wire/` do not know each other. `smtp/` is pure: it opens no
//! socket and no file, reads no clock, starts no thread.
//!
//! The book in `docs/` walks through all of it; start with `docs/README.md`.

pub mod config;
pub mod dialogue;
pub mod relay;
pub mod server;
pub mod smtp;
pub mod store;
pub mod wire;
