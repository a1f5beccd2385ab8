//! The fields of a header, as they are signed and as they are read (RFC 5322 section 2.2).
//!
//! In: a header section in file form. Out: each field with its name. This reader keeps
//! every octet, because all of them may be signed; `store/header.rs` reads a letter that
//! is still arriving, and changes it.
//!
//! Book: docs/16-trust.md.

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
        let name = raw.split(|octet| *octet == b':').next().unwrap_or_default();
        // A name is printable ASCII (RFC 5322 section 2.2); old programs put blanks after it.
        let has_colon = name.len() < raw.len();
        let name = str::from_utf8(name).unwrap_or_default().trim_end_matches([' ', '\t']);
        if has_colon && !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic()) {
            fields.push(Field { name, raw });
        }
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
