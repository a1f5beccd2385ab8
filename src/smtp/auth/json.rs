//! JSON and base64url, where nothing may have two meanings.
//!
//! In: a text that somebody signed, or a set of keys. Out: the members of an object, or
//! octets; `None` where the text can be read in two ways. A signature is worth something
//! only if everybody reads the same out of what it covers.
//!
//! Not done here: what the members mean (`jwt.rs`, `key_set.rs`).
//!
//! Book: docs/11-auth.md.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The members of one object by their names.
pub type Members = Map<String, Value>;

/// An object, and nothing before or after it. If it has two members of one name, or an
/// object inside it has, it is refused: some programs take the first, some the last (RFC
/// 7515 section 4 and RFC 7519 section 4 allow to refuse them).
pub fn object(text: &[u8]) -> Option<Members> {
    let value: Value = serde_json::from_slice(text).ok()?;
    // A map holds one member of each name. So it has fewer than the text where one
    // stands twice, however its name is spelt: `alg` is `\u0061lg`, too.
    if members(&value) != colons(text) {
        return None;
    }
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Octets that are written with the URL-safe alphabet, in the one way they can be: no
/// `=` at the end (RFC 7515 section 2), no other octet, and nothing in the bits of the
/// last digit that are not used.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// How many members all objects of a value have together.
fn members(value: &Value) -> usize {
    let (mut count, mut unseen) = (0, vec![value]);
    while let Some(value) = unseen.pop() {
        match value {
            Value::Object(members) => {
                count += members.len();
                unseen.extend(members.values());
            }
            Value::Array(values) => unseen.extend(values),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    count
}

/// How many colons stand outside the strings of a JSON text: one for each member.
fn colons(json: &[u8]) -> usize {
    let (mut count, mut is_in_string, mut is_escaped) = (0, false, false);
    for octet in json {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_in_string = !is_in_string,
            b':' if !is_in_string => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_whatever_stands_in_its_strings() {
        for text in [
            r#"{}"#,
            r#" {"a":1, "b":[{"a":2},{"a":3}], "c":{"a":{}}} "#,
            r#"{"a:b":"c:d", "\"":"\\", "\\\":":":\":"}"#,
            "{\"gr\u{fc}n\":null}",
        ] {
            assert!(object(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn a_member_that_stands_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"alg":"none","alg":"RS256"}"#,
            r#"{"alg":"RS256","\u0061lg":"RS256"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":[1,{"b":1,"b":1}]}"#,
            r#"{"a":{"b":1},"a":2}"#,
        ] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        for text in [
            &b""[..],
            b"[]",
            b"1",
            b"\"{}\"",
            b"{} {}",
            b"{}x",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":1e400}",
            b"\xef\xbb\xbf{}",
            deep.as_bytes(),
        ] {
            assert_eq!(object(text), None, "{}", text.escape_ascii().to_string().len());
        }
    }

    #[test]
    fn octets_have_one_spelling() {
        assert_eq!(from_base64url("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(from_base64url(""), Some(Vec::new()));
        for text in ["-_8=", "+/8", "-_9", "-_ 8", "-", "-_8\n", "-_8.", "=", "\u{fc}"] {
            assert_eq!(from_base64url(text), None, "{text}");
        }
    }
}
