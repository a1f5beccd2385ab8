//! The example that makes lines for the users file, as a person runs it.
//!
//! `cargo test` builds it; `cargo test --test passwd` alone does not, and would
//! run an old one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at a surprise")]

mod common;

use std::process::Command;

use common::{examples, run_with_input};
use ehlo::smtp::auth::users::Users;
use ehlo::store::users;

/// Exit code, standard output and standard error.
fn passwd(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let output = run_with_input(Command::new(examples().join("passwd")).args(args), input);
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Whether the password of a line logs in, and that of a neighbour does not.
fn logs_in(line: &str, name: &str, password: &str) -> bool {
    let users = Users::new(users::parse(line.as_bytes()).unwrap(), [1; 32]);
    users.check(name, password.as_bytes()) && !users.check(name, format!("{password}x").as_bytes())
}

#[test]
fn a_line_that_it_makes_logs_in_and_does_not_show_the_password() {
    let (code, line, errors) = passwd(&["ann"], "t\u{fc}lip:x\nnot read\n");
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(line.starts_with("ann:{SCRAM-SHA-256}4096,") && line.ends_with("=\n"), "{line}");
    assert!(!line.contains("lip:"));
    assert!(logs_in(&line, "ann", "t\u{fc}lip:x"));

    let (_, again, _) = passwd(&["ann"], "t\u{fc}lip:x");
    assert_ne!(again, line, "each line has a salt of its own");
}

#[test]
fn a_plain_line_holds_the_password_as_it_is() {
    for args in [["ann@host.example", "--plain"], ["--plain", "ann@host.example"]] {
        let (code, line, _) = passwd(&args, " tulip {x}\r\n");
        assert_eq!((code, line.as_str()), (Some(0), "ann@host.example:{PLAIN} tulip {x}\n"));
        assert!(logs_in(&line, "ann@host.example", " tulip {x}"));
    }
}

#[test]
fn it_makes_no_line_that_would_not_log_in() {
    for (args, input, code, why) in [
        (&[][..], "x\n", 2, "name"),
        (&["--plain"], "x\n", 2, "name"),
        (&["ann", "bob"], "x\n", 2, "bob"),
        (&["ann", "--plane"], "x\n", 2, "--plane"),
        (&["Ann"], "hunter2\n", 1, "a name such as ann"),
        (&["ann:x"], "hunter2\n", 1, "{PLAIN} or {SCRAM-SHA-256}"),
        (&["ann:{PLAIN}x"], "hunter2\n", 1, "a name, and nothing else"),
        (&["ann:{PLAIN}x\nbob"], "hunter2\n", 1, "a name, and nothing else"),
        (&["#ann"], "hunter2\n", 1, "a name, and nothing else"),
        (&["ann"], "", 1, "no password was given"),
        (&["ann"], "\n", 1, "no password was given"),
        (&["ann"], "hunter2\t\n", 1, "without control characters"),
        (&["ann", "--plain"], "hunter2:x\n", 1, "no colon"),
        (&["ann", "--plain"], ":hunter2\n", 1, "a password after {PLAIN}"),
    ] {
        let (found, line, errors) = passwd(args, input);
        assert_eq!((found, line.as_str()), (Some(code), ""), "{args:?}: {errors}");
        assert!(errors.contains(why) && !errors.contains("hunter2"), "{args:?}: {errors}");
    }
}
