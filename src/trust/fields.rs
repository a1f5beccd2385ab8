//! The fields of a header, as they are signed and as they are read (RFC 5322 section 2.2).
//!
//! In: a header section in file form. Out: each field with its name. This reader keeps
//! every octet, because all of them may be signed; `store/header.rs` reads a letter that
//! is still arriving, and changes it.
//!
//! Book: docs/16-trust.md.

use crate::store::header::field_name;

/// A field with its name and everything up to the next field, in file form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without blanks.
    pub name: &'a str,
    /// All of it, with its line end.
    pub raw: &'a [u8],
}

/// Splits a header section into its fields. Lines without a colon belong to none.
pub fn fields(header: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    let mut rest = header;
    while !rest.is_empty() {
        let (raw, after) = rest.split_at(end_of_field(rest));
        let start = memchr::memchr(b':', raw).and_then(|colon| raw.get(..=colon));
        let name = start.and_then(field_name).and_then(|name| str::from_utf8(name).ok());
        fields.extend(name.map(|name| Field { name, raw }));
        rest = after;
    }
    fields
}

/// Where the field at the start ends: a line that begins with a blank goes on with it.
fn end_of_field(header: &[u8]) -> usize {
    let next = memchr::memchr_iter(b'\n', header)
        .map(|at| at + 1)
        .find(|at| !matches!(header.get(*at), Some(b' ' | b'\t')));
    next.unwrap_or(header.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_fields_are_passed_over() {
        let names: Vec<&str> = fields(b"A: 1\nno field\n\xff: 2\n: 3\nB : 4\n 5\nC:")
            .iter()
            .map(|one| one.name)
            .collect();
        assert_eq!(names, ["A", "B", "C"]);
    }
}
