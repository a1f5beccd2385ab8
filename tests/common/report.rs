//! A delivery report, read as other people's programs read it.

use std::ops::Index;

use mail_parser::{MessageParser, MimeHeaders};

/// A report (RFC 3464).
#[derive(Debug)]
pub struct Report {
    /// Its own header and all of its parts.
    pub text: String,
    pub subject: String,
    /// The fields about the letter.
    pub letter: Fields,
    /// The fields about each recipient.
    pub recipients: Vec<Fields>,
    /// What kind the returned part is, such as `message/rfc822`.
    pub returned_type: String,
    /// What came back of the letter.
    pub returned: String,
}

/// Fields, by name.
#[derive(Debug)]
pub struct Fields(Vec<(String, String)>);

impl Report {
    /// Reads a report, and holds it to what is so of every one.
    pub fn read(octets: &[u8]) -> Report {
        let message = MessageParser::default().parse(octets).unwrap();
        assert_eq!(message.return_path().as_text(), None);
        assert_eq!(message.header_raw("Auto-Submitted").unwrap().trim(), "auto-replied");
        let own_type = message.content_type().unwrap();
        assert_eq!(own_type.subtype(), Some("report"));
        assert_eq!(own_type.attribute("report-type"), Some("delivery-status"));
        assert_eq!(message.parts.len(), 4, "the whole, and three parts");
        let text_of = |part: usize| {
            let part = &message.parts[part];
            let octets =
                &message.raw_message()[part.offset_body as usize..part.offset_end as usize];
            String::from_utf8_lossy(octets).into_owned()
        };
        let status = text_of(2);
        let mut groups = status.trim_end().split("\n\n").map(Fields::read);
        let returned_type = message.parts[3].content_type().unwrap();
        let subtype = returned_type.subtype().unwrap_or_default();
        Report {
            text: String::from_utf8_lossy(octets).into_owned(),
            subject: message.subject().unwrap_or_default().to_owned(),
            letter: groups.next().unwrap(),
            recipients: groups.collect(),
            returned_type: format!("{}/{subtype}", returned_type.ctype()),
            returned: text_of(3),
        }
    }

    /// Whom it is about.
    pub fn addresses(&self) -> Vec<&str> {
        let address = |one: &'_ Fields| -> usize { one["Final-Recipient"].find("; ").unwrap() + 2 };
        self.recipients.iter().map(|one| &one["Final-Recipient"][address(one)..]).collect()
    }

    /// What it says about the only recipient that it is about.
    pub fn only(&self) -> &Fields {
        assert_eq!(self.recipients.len(), 1, "{}", self.text);
        &self.recipients[0]
    }
}

impl Fields {
    fn read(group: &str) -> Fields {
        let unfolded = group.replace("\n ", " ").replace("\n\t", " ");
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        Fields(unfolded.lines().filter(|line| !line.is_empty()).map(field).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter().filter(|(other, _)| other == name);
        let first = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} twice");
        first
    }
}

impl Index<&str> for Fields {
    type Output = str;

    fn index(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}
