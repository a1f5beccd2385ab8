//! The exercises of the book: each test is one assignment, and fails until it is done.
//!
//! `cargo test exercise_5_2 -- --ignored` tries number 5.2. The assignment stands above its
//! test and in its chapter; a solution, and why it is so, is in docs/solutions/. They play with
//! the built programs from outside, or use what the library offers to everybody, so they
//! compile before the assignment is done.
//!
//! Book: docs/README.md.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

use std::io::Read;

#[path = "../common/mod.rs"]
mod common;

mod chapter_01;
mod chapter_02;
mod chapter_03;
mod chapter_04;
mod chapter_05;
mod chapter_06;
mod chapter_07;
mod chapter_08;
mod chapter_09;
mod chapter_10;
mod chapter_11;
mod chapter_12;
mod chapter_13;
mod chapter_14;
mod chapter_15;
mod chapter_16;
mod chapter_17;
#[cfg(target_os = "linux")]
mod chapter_17_journal;
mod chapter_18;
mod chapter_19;
mod chapter_20;
mod chapter_21;
mod form;

/// All lines of the reply to EHLO.
fn announced(client: &mut common::Client) -> String {
    client.send("EHLO client.example\r\n");
    let (mut lines, mut octet) = (String::new(), [0]);
    while !lines.ends_with('\n') || !lines.lines().last().unwrap().starts_with("250 ") {
        assert_eq!(client.stream().read(&mut octet).unwrap(), 1, "{lines}");
        lines.push(char::from(octet[0]));
    }
    lines
}

/// An example as it is in its source now. Where a test is named, cargo builds no examples, and the
/// one of yesterday would be tried.
fn built(example: &str) -> std::path::PathBuf {
    let built = std::process::Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", example])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "examples/{example}.rs cannot be built:\n{said}");
    common::examples().join(example)
}
