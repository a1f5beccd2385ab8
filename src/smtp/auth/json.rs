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

/// How deep objects and arrays may lie in each other. A token needs less, and the reader calls
/// itself for each level, on the small stack of a client's thread.
const DEPTH_LIMIT: usize = 16;

/// The members of one object by their names.
pub type Members = Map<String, Value>;

/// An object, and nothing before or after it. If it has two members of one name, or an
/// object inside it has, it is refused: some programs take the first, some the last (RFC
/// 7515 section 4 and RFC 7519 section 4 allow to refuse them). So is one that lies too deep.
pub fn object(text: &[u8]) -> Option<Members> {
    let (colons, depth) = colons_and_depth(text);
    if depth > DEPTH_LIMIT {
        return None;
    }
    let value: Value = serde_json::from_slice(text).ok()?;
    // A map holds one member of each name. So it has fewer than the text where one
    // stands twice, however its name is spelt: `alg` is `\u0061lg`, too.
    if members(&value) != colons {
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

/// How many colons stand outside the strings of a JSON text, one for each member; and how
/// many objects and arrays are open at a time.
fn colons_and_depth(json: &[u8]) -> (usize, usize) {
    let (mut colons, mut depth, mut open) = (0, 0, 0_usize);
    let (mut is_in_string, mut is_escaped) = (false, false);
    for octet in json {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_in_string = !is_in_string,
            _ if is_in_string => {}
            b':' => colons += 1,
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        depth = depth.max(open);
    }
    (colons, depth)
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
        ] {
            assert_eq!(object(text), None, "{}", text.escape_ascii().to_string().len());
        }
    }

    #[test]
    fn what_lies_too_deep_is_refused_before_it_is_read() {
        for (begin, end, levels) in [("{\"a\":", "}", 1), ("{\"a\":[", "]}", 2)] {
            for depth in [1, 16 / levels, 16 / levels + 1, 100_000] {
                let text = format!("{}1{}", begin.repeat(depth), end.repeat(depth));
                let is_read = depth * levels <= 16;
                assert_eq!(object(text.as_bytes()).is_some(), is_read, "{depth} times {begin}");
            }
        }
        let string = format!("{{\"a\":\"{}\"}}", "[{".repeat(1000));
        assert!(object(string.as_bytes()).is_some(), "in a string nothing opens");
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
