//! `ehlo`: a small SMTP server that is made to be read.
//!
//! Every client has a thread; a thread is a loop; the loop reads a line, asks
//! the protocol what to answer, and answers. Arrows run down only, and
//! `tests/layers.rs` holds them to it:
//!
//! ```text
//! main.rs      signals, exit codes
//!    │
//! server/      mod.rs        Server and Handle
//!    │         listener.rs   one port: accept, admit, spawn
//!    │         connection.rs the loop of one client
//!    │         receive.rs    from 354 to stored: where wire and store meet
//!    │         trusting.rs   what is asked of trust/ for one letter
//!    │         relaying.rs   what relay/ needs, made of flags and files
//!    │         shared.rs     what all threads see
//!    │         files.rs      what was read from files · certificate.rs, issuer.rs,
//!    │         smarthost.rs  three kinds of them
//!    │         failures.rs   failed logins · allowance.rs  recipients elsewhere ·
//!    │         clients.rs    who is connected: caps, shutdown · balancer.rs  for whom one
//!    │         connects
//!    │
//! config.rs    every option once: field, flag, help, default
//!    │
//! relay/       mod.rs        the way through the room
//!    │         worker.rs     the threads
//!    │         plan.rs       which entry is tried when, and how many at once, pure
//!    │         delivery.rs   one entry, once · conclusion.rs  what follows from it
//!    │         courier.rs    what all attempts share
//!    │         conclusion_cuts.rs  for tests: what a power cut leaves of a report
//!    │         client/       the other half of the protocol: mod.rs  commands, replies, and
//!    │         what a trace may show of them · dial.rs  until MAIL · transaction.rs  from
//!    │         MAIL to the last reply · extensions.rs  what EHLO said
//!    │         route.rs      where the mail for a domain goes
//!    │         report/       what the sender is told, pure text: mod.rs, human.rs  for a
//!    │         person · status.rs  for a program · original.rs  what comes back · fold.rs
//!    │
//! trust/       mod.rs        the way through the room
//!    │         spf/          mod.rs  may this client send for that domain · record.rs  what its
//!    │         owner wrote · macros.rs  names with % in them
//!    │         dkim/         mod.rs  what came of a signature · verify.rs · sign.rs · reading.rs
//!    │         header and body parted · canonical.rs  what is signed · tags.rs, signature.rs,
//!    │         key.rs  what stands in the field and in DNS
//!    │         fields.rs     the fields of a header · author.rs  who a reader takes for the author
//!    │         dmarc/        mod.rs  is it one of the two · record.rs  what its owner wants
//!    │         results.rs    the field that says so · explain.rs  the way there, told
//!    │         lookups.rs    the DNS of one letter
//!    │
//! dns/         mod.rs        questions, and what is known then · exchange.rs  one question
//!    │         to one server · message.rs  the octets
//!    │
//! store/       mod.rs        the way through the room
//!    │         spool.rs      one message to all its destinations, for good
//!    │         draft.rs      a message while it is received
//!    │         maildir.rs    one mailbox · disk.rs  what survives a power cut
//!    │         disk/         for tests: power.rs  watches and cuts it · states.rs  what is
//!    │         left then
//!    │         power_cut.rs  for tests: what has to be there · power_cut/ scenarios.rs  when
//!    │         folder.rs     mailbox → folder
//!    │         queue.rs      what has to go somewhere · envelope.rs  who it is for
//!    │         header.rs     a header section that passes by · trace.rs  our own fields
//!    │         users.rs, aliases.rs, text_file.rs  the files that people write, read
//!    │
//! wire/        mod.rs        the way through the room
//!    │         socket.rs     one absolute deadline
//!    │         stream.rs     in clear or under TLS · tls.rs  the server's half of TLS
//!    │         proxy.rs      the header of a balancer
//!    │         buffer.rs     what has arrived
//!    │         lines.rs      lines in, replies out, close · replies.rs  the other end
//!    │         body.rs       dots and line ends of a message, pure
//!    │         trace.rs      the dialogue, printed · events.rs  and told
//!    │
//! smtp/        mod.rs        the way through the room
//!              session/      mod.rs  the order of commands: the state machine · step.rs  what
//!                            goes in and out · transaction.rs  MAIL, RCPT · login.rs  AUTH ·
//!                            patience.rs  when it is enough · judge.rs  what a reply costs
//!                            shown.rs  what a log may show
//!              site/         mod.rs  whose mail this is · expansion.rs  what an alias leads to ·
//!                            senders.rs  who sends as whom
//!              auth/         mod.rs, exchange.rs  both halves of AUTH · mechanism.rs, plain.rs,
//!                            cram_md5.rs, scram.rs, token.rs · users.rs  who has which ·
//!                            secret.rs · jwt.rs  what a token says · key_set.rs,
//!                            public_key.rs, spki.rs, json.rs  whether to believe it
//!              command.rs    one line → one command
//!              answer.rs     what a reply means for a recipient
//!              reply/        mod.rs, ours.rs  every reply by name · parse.rs  those of others
//!              address.rs    the grammar of addresses
//!              dsn.rs        what a sender wants to be told (DSN)
//!              text.rs       client text made harmless
//!
//! dialogue/    mod.rs        plays scripts against a server; nothing here uses it · script.rs
//!              what a script says · player.rs  its client · connection.rs  in clear or
//!              under TLS · judge.rs  which answer is the right one
//! ```
//!
//! `store/` and `wire/` do not know each other. `smtp/` is pure: it opens no
//! socket and no file, reads no clock, starts no thread.
//!
//! The book in `docs/` walks through all of it; start with `docs/README.md`.

pub mod config;
pub mod dialogue;
pub mod dns;
pub mod relay;
pub mod server;
pub mod smtp;
pub mod store;
pub mod trust;
pub mod wire;
