//! The packets of DNS (RFC 1035 section 4.1): one question, and what an answer says.
//!
//! In: a name, the type of the records that are wanted, and the octets that a
//! server sent. Out: the octets of the question; whether others are the answer to
//! it, which is found out before they are parsed; and what the answer says.
//!
//! Whatever a server sends, this ends, and takes a few megabytes at most.
//! `simple-dns` reads and writes the packets.
//!
//! Book: docs/15-finding-the-next-hop.md.

use simple_dns::rdata::{RData, TXT};
use simple_dns::{CLASS, Label, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE};

/// A name may be an alias of an alias; honest chains are shorter than this, and
/// rings are not.
pub const ALIASES_LIMIT: usize = 8;
/// The most octets of a label, and of a name written with dots (RFC 1035 section 2.3.4).
const LABEL_LIMIT: usize = 63;
const NAME_LIMIT: usize = 253;
/// More records of one name and type than this are not taken.
const TAKEN_LIMIT: usize = 100;
/// An answer with more records than this is not parsed: each of them may point to a
/// name of 255 octets, and takes kilobytes of memory then.
const RECORDS_LIMIT: usize = 1000;
/// The header of a packet (RFC 1035 section 4.1.1).
const HEADER_OCTETS: usize = 12;
/// In the third octet of the header: this is an answer, its kind of question, and
/// that it was cut off.
const QR: u8 = 0b1000_0000;
const OPCODE: u8 = 0b0111_1000;
const TC: u8 = 0b0000_0010;

/// What an answer says about the question.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// The records asked for; none if the name has none of this type.
    Records(Vec<RData<'static>>),
    /// The name stands for another one, about which the answer says nothing.
    Alias(Name<'static>),
    /// NXDOMAIN: the name does not exist, with any type.
    NoSuchName,
    /// An alias that leads to itself, or through too many others.
    Ring,
}

/// An answer that cannot be read. Like all faults, it completes "the server …".
const NONSENSE: &str = "sends what cannot be read";

/// A name as DNS has it. `None` for one that nobody can ask for: a label that is
/// empty or over 63 octets, a name over 253, and letters outside ASCII.
pub fn name_of(text: &str) -> Option<Name<'static>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| (1..=LABEL_LIMIT).contains(&label.len()) && label.is_ascii();
    if text.len() > NAME_LIMIT || !text.split('.').all(is_label) {
        return None;
    }
    // The octets as they are: a backslash is one of them, and no escape.
    let labels: Vec<Label> =
        text.split('.').map(|label| Label::new_unchecked(label.as_bytes())).collect();
    Some(Name::new_with_labels(&labels).into_owned())
}

/// A name as text, in lower case; the root is an empty one. DNS carries any octet in
/// a label, and whoever wrote this name may be hostile. So a dot or backslash inside
/// a label, and all that is not printed, becomes `\ddd` (RFC 1035 section 5.1).
pub fn text_of(name: &Name) -> String {
    let octet = |octet: &u8| {
        let is_plain = octet.is_ascii_graphic() && !b".\\".contains(octet);
        let lower = char::from(octet.to_ascii_lowercase());
        if is_plain { lower.to_string() } else { format!("\\{octet:03}") }
    };
    let label = |label: &Label| label.as_ref().iter().map(octet).collect::<String>();
    name.get_labels().iter().map(label).collect::<Vec<_>>().join(".")
}

/// The strings of a TXT record, joined (RFC 7208 section 3.3).
pub fn joined(txt: TXT) -> Vec<u8> {
    // To make text of it is the one way to get at its octets. They may be none.
    String::try_from(txt).map_or_else(|no_text| no_text.into_bytes(), String::into_bytes)
}

/// A packet with one question, recursion desired. Names from [`name_of`] and from
/// answers always fit into one.
pub fn question(id: u16, name: &Name<'static>, kind: TYPE) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name.clone(), kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

/// Whether `packet` answers `query`: the same id, marked as an answer to a
/// standard query, and the same single question, where upper and lower case are
/// one. The question stands at the same place in both, and no name before it
/// could be pointed at, so its octets are compared as they are. What fails here
/// is not parsed at all.
pub fn is_answer(query: &[u8], packet: &[u8]) -> bool {
    let asked = query.get(HEADER_OCTETS..).unwrap_or_default();
    let echo = packet.get(HEADER_OCTETS..query.len()).unwrap_or_default();
    packet.get(..2) == query.get(..2)
        && packet.get(2).is_some_and(|flags| flags & (QR | OPCODE) == QR)
        && packet.get(4..6) == query.get(4..6)
        && echo.eq_ignore_ascii_case(asked)
}

/// Whether an answer was too long for a datagram.
pub fn is_cut_off(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & TC != 0)
}

/// What an answer that passed [`is_answer`] says. Only the records that the
/// question leads to count; others could be about anything. An error is a fault of
/// this server (RFC 1035 section 4.1.1); another one may know more.
pub fn read_answer(answer: &[u8], name: &Name<'static>, kind: TYPE) -> Result<Found, &'static str> {
    if is_cut_off(answer) || claimed_records(answer) > RECORDS_LIMIT {
        return Err(NONSENSE);
    }
    let packet = Packet::parse(answer).map_err(|_| NONSENSE)?;
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        RCODE::ServerFailure => return Err("says SERVFAIL"),
        RCODE::Refused => return Err("says REFUSED"),
        _ => return Err("says that there was an error"),
    }
    let mut owner = name.clone();
    for _ in 0..ALIASES_LIMIT {
        let is_owned = |one: &&ResourceRecord| one.name == owner && one.class == CLASS::IN;
        let owned = || packet.answers.iter().filter(is_owned).map(|record| &record.rdata);
        let wanted = owned().filter(|data| data.type_code() == kind).take(TAKEN_LIMIT);
        let records: Vec<_> = wanted.map(|data| data.clone().into_owned()).collect();
        // A record without data is not the same as no record.
        if records.iter().any(|data| matches!(data, RData::Empty(_))) {
            return Err(NONSENSE);
        }
        if !records.is_empty() {
            return Ok(Found::Records(records));
        }
        let target = owned().find_map(|data| match data {
            RData::CNAME(alias) => Some(alias.0.clone().into_owned()),
            _ => None,
        });
        match target {
            Some(target) => owner = target,
            // The code is about the last name of the chain (RFC 2308 section 2.1).
            None if packet.rcode() == RCODE::NameError => return Ok(Found::NoSuchName),
            None if owner == *name => return Ok(Found::Records(Vec::new())),
            None => return Ok(Found::Alias(owner)),
        }
    }
    Ok(Found::Ring)
}

/// The sum of the three counts of records in the header. The parser reserves room
/// for what they claim, so they are looked at first.
fn claimed_records(answer: &[u8]) -> usize {
    let (counts, _) = answer.get(6..HEADER_OCTETS).unwrap_or_default().as_chunks();
    counts.iter().map(|count| usize::from(u16::from_be_bytes(*count))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::CharacterString;
    use simple_dns::rdata::{A, CNAME};

    fn name(text: &str) -> Name<'static> {
        name_of(text).unwrap()
    }

    fn query() -> Vec<u8> {
        question(0x1234, &name("x.example"), TYPE::A).unwrap()
    }

    /// An answer to `query()` with these aliases and addresses.
    fn answer(records: Vec<(&'static str, RData<'static>)>) -> Vec<u8> {
        let query = query();
        let mut packet = Packet::parse(&query).unwrap().into_reply();
        for (owner, data) in records {
            packet.answers.push(ResourceRecord::new(name(owner), CLASS::IN, 60, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn alias(target: &str) -> RData<'static> {
        RData::CNAME(CNAME(name(target)))
    }

    fn address(last: u8) -> RData<'static> {
        RData::A(A { address: u32::from_be_bytes([192, 0, 2, last]) })
    }

    fn read(answer: &[u8]) -> Result<Found, &'static str> {
        read_answer(answer, &name("x.example"), TYPE::A)
    }

    #[test]
    fn a_name_that_nobody_can_ask_for_is_none() {
        let long = "a".repeat(63);
        let full = format!("{long}.{long}.{long}.{}", "a".repeat(61));
        for good in ["x.example", "x.example.", "_spf.x.example", &long, &full] {
            assert_eq!(text_of(&name(good)), good.trim_end_matches('.'));
        }
        let label = format!("{long}a.example");
        let longer = format!("{full}a");
        for bad in
            ["", ".", "a..example", ".example", "x.example..", "b\u{fc}.example", &label, &longer]
        {
            assert_eq!(name_of(bad), None, "{bad}");
        }
        // A backslash is an octet of the name that is asked for.
        let labels = [&b"a\\"[..], b"046b"];
        let labels = [Label::new_unchecked(labels[0]), Label::new_unchecked(labels[1])];
        assert_eq!(name(r"a\.046b"), Name::new_with_labels(&labels));
    }

    #[test]
    fn the_text_of_a_name_has_no_dot_but_between_labels_and_nothing_that_moves_a_cursor() {
        let labels = [&b"A.b"[..], b"\x1b[2J", b"c\\ \xff:"].map(Label::new_unchecked);
        assert_eq!(text_of(&Name::new_with_labels(&labels)), r"a\046b.\027[2j.c\092\032\255:");
        assert_eq!(text_of(&Name::new_with_labels(&[])), "");
    }

    #[test]
    fn the_strings_of_a_txt_record_are_joined_octet_by_octet() {
        let strings = [&b"v=spf1 "[..], b"", b"=\xff=", b"-all"];
        let txt = strings.iter().fold(TXT::new(), |txt, string| {
            txt.with_char_string(CharacterString::new(string).unwrap())
        });
        assert_eq!(joined(txt), b"v=spf1 =\xff=-all");
    }

    #[test]
    fn only_an_answer_to_exactly_our_question_is_one() {
        let (query, good) = (query(), answer(vec![("x.example", address(1))]));
        assert!(is_answer(&query, &good));
        assert!(is_answer(&query, &good.iter().map(u8::to_ascii_uppercase).collect::<Vec<_>>()));
        assert!(!is_answer(&query, &query), "a query is no answer");
        // One wrong bit anywhere in id, kind, number of questions, or the question.
        let letter_case = 0x20;
        for at in [0, 1, 4, 5].into_iter().chain(HEADER_OCTETS..query.len()) {
            for bit in (0..8).map(|bit| 1 << bit).filter(|bit| *bit != letter_case || at < 12) {
                let mut bad = good.clone();
                bad[at] ^= bit;
                assert!(!is_answer(&query, &bad), "octet {at}, bit {bit}");
            }
        }
        for bit in [3, 4, 5, 6, 7] {
            let mut bad = good.clone();
            bad[2] ^= 1 << bit;
            assert!(!is_answer(&query, &bad), "flag {bit}");
        }
        for length in 0..query.len() {
            assert!(!is_answer(&query, &good[..length]), "{length} octets");
        }
    }

    #[test]
    fn aliases_are_followed_inside_one_answer_in_any_order_and_case() {
        let records = vec![
            ("z.example", address(1)),
            ("Y.example", alias("Z.example")),
            ("X.Example", alias("y.EXAMPLE")),
        ];
        assert_eq!(read(&answer(records)).unwrap(), Found::Records(vec![address(1)]));
    }

    #[test]
    fn records_that_the_question_does_not_lead_to_are_not_taken() {
        let records = vec![("bank.example", address(6)), ("x.example", address(1))];
        assert_eq!(read(&answer(records)).unwrap(), Found::Records(vec![address(1)]));
        assert_eq!(
            read(&answer(vec![("bank.example", address(6))])).unwrap(),
            Found::Records(Vec::new())
        );
    }

    #[test]
    fn an_answer_that_ends_at_an_alias_names_it() {
        let records = vec![("x.example", alias("y.example"))];
        assert_eq!(read(&answer(records)).unwrap(), Found::Alias(name("y.example")));
    }

    #[test]
    fn a_record_without_data_is_malformed_and_not_no_record() {
        let records = vec![("x.example", RData::Empty(TYPE::A))];
        assert!(matches!(read(&answer(records)), Err(NONSENSE)));
    }

    #[test]
    fn a_circle_of_aliases_ends() {
        let records = vec![("x.example", alias("y.example")), ("y.example", alias("x.example"))];
        assert!(matches!(read(&answer(records)), Ok(Found::Ring)));
    }

    #[test]
    fn an_answer_with_more_records_than_an_honest_one_is_not_parsed() {
        let full = answer(vec![("x.example", address(1)); RECORDS_LIMIT]);
        assert_eq!(read(&full), Ok(Found::Records(vec![address(1); TAKEN_LIMIT])));
        assert_eq!(
            read(&answer(vec![("x.example", address(1)); RECORDS_LIMIT + 1])),
            Err(NONSENSE)
        );
        let mut bad = answer(vec![("x.example", address(1))]);
        bad[6..12].fill(0xff);
        assert_eq!(read(&bad), Err(NONSENSE));
    }

    #[test]
    fn a_name_that_points_to_itself_is_malformed() {
        let mut bad = query();
        bad[2] |= QR;
        bad[7] = 1;
        let here = bad.len() as u8;
        bad.extend([0xc0, here, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1]);
        assert!(is_answer(&query(), &bad));
        assert!(matches!(read(&bad), Err(NONSENSE)));
    }

    #[test]
    fn no_octets_make_it_panic() {
        fn holds(mut tail: Vec<u8>, counts: (u8, u8, u8), flips: Vec<(u8, u8)>) -> bool {
            let mut packet =
                answer(vec![("x.example", alias("y.example")), ("y.example", address(1))]);
            (packet[7], packet[9], packet[11]) = counts;
            packet.append(&mut tail);
            for (at, octet) in flips {
                let at = usize::from(at) % packet.len();
                packet[at] = octet;
            }
            let _ = (is_answer(&query(), &packet), read(&packet));
            true
        }
        quickcheck::quickcheck(holds as fn(Vec<u8>, (u8, u8, u8), Vec<(u8, u8)>) -> bool);
    }
}
