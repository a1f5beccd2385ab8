//! What lies in the spool, to be looked at: mailboxes, letters, the queue.
//!
//! In: the folder of the spool. Out: data for the page. All of it only reads, and claims
//! nothing, so it disturbs no server. Of a letter no more than a part is read, however
//! large it is, and of folders no more names than a page can show; each cut is told.
//!
//! Book: docs/08-threads.md.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use ehlo::store::envelope::{Entry, QueuedRecipient};
use ehlo::store::queue::Queue;
use jiff::Timestamp;
use mail_parser::{MessageParser, MessagePart, MimeHeaders};
use serde_json::{Value, json};

/// How much of a letter is read, in octets.
const LETTER_LIMIT: u64 = 512 * 1024;
/// How many letters of a mailbox are listed with their subject: the page asks often.
const SUBJECTS: usize = 10;
/// How much of a letter is read for that, in octets.
const HEADER_LIMIT: u64 = 8 * 1024;
/// How much of a subject is told, in characters.
const SUBJECT_LIMIT: usize = 80;
/// How much of one text is shown, in octets.
const TEXT_LIMIT: usize = 64 * 1024;
/// How many mailboxes, letters of one, entries of the queue, recipients of one, and
/// attachments of a letter are shown.
const SHOWN: usize = 100;
/// How many names of a folder are looked at.
const LOOKED_AT: usize = 10_000;

/// All mailboxes and the newest letters of each, as far as they are looked at.
pub fn mailboxes(spool: &Path) -> Value {
    let root = spool.join("mail");
    let (mut boxes, mut count) = (Vec::new(), 0);
    for domain in names(&root) {
        for mailbox in names(&root.join(&domain)) {
            count += 1;
            if boxes.len() < SHOWN {
                let folder = root.join(&domain).join(&mailbox);
                let (letters, count) = letters(&folder);
                boxes.push(json!({
                    "name": format!("{domain}/{mailbox}"), "letters": letters, "count": count,
                }));
            }
        }
    }
    json!({ "mailboxes": boxes, "count": count, "looked_at": LOOKED_AT })
}

/// The newest letters of one mailbox, and how many there are.
fn letters(folder: &Path) -> (Vec<Value>, usize) {
    let mut found: Vec<(String, &str)> = Vec::new();
    for part in ["new", "cur"] {
        found.extend(names(&folder.join(part)).into_iter().map(|name| (name, part)));
    }
    // They begin with the time.
    found.sort_by(|one, other| other.cmp(one));
    let letter = |(place, (name, part)): (usize, &(String, &str))| {
        let path = folder.join(part).join(name);
        let size = fs::symlink_metadata(&path).map(|data| data.len());
        let subject = (place < SUBJECTS).then(|| subject(&path)).flatten();
        json!({
            "file": format!("{part}/{name}"), "size": size.unwrap_or_default(), "subject": subject,
        })
    };
    (found.iter().take(SHOWN).enumerate().map(letter).collect(), found.len())
}

/// What a letter says that it is about, if that stands near its beginning.
fn subject(path: &Path) -> Option<String> {
    let (octets, _) = read_start(path, HEADER_LIMIT).ok()?;
    let message = MessageParser::default().parse(&octets)?;
    let subject = message.subject()?;
    Some(match subject.char_indices().nth(SUBJECT_LIMIT) {
        Some((end, _)) => format!("{}…", subject.get(..end).unwrap_or_default()),
        None => subject.to_owned(),
    })
}

/// One letter, as source and as read; `None` if there is none of that name.
pub fn letter(spool: &Path, mailbox: &str, file: &str) -> Option<Value> {
    let parts: Vec<&str> = mailbox.split('/').chain(file.split('/')).collect();
    let [domain, name, part @ ("new" | "cur"), file] = parts.as_slice() else { return None };
    if [domain, name, file].iter().any(|one| !is_name(one)) {
        return None;
    }
    let path =
        [domain, name, part, file].iter().fold(spool.join("mail"), |path, one| path.join(one));
    let (octets, size) = read_start(&path, LETTER_LIMIT).ok()?;
    Some(shown(&octets, size))
}

/// The beginning of a file, and how long all of it is. A link in a mailbox may lead anywhere.
fn read_start(path: &Path, limit: u64) -> io::Result<(Vec<u8>, u64)> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut octets = Vec::new();
    file.take(limit).read_to_end(&mut octets)?;
    Ok((octets, size))
}

/// A letter for the page: every text of it is somebody else's, and only a text.
fn shown(octets: &[u8], size: u64) -> Value {
    let source = String::from_utf8_lossy(octets);
    let (source, is_source_cut) = cut(&source);
    // What cannot be parsed has no parts, and is shown as source all the same.
    let message = MessageParser::default().parse(octets).unwrap_or_default();
    let is_plain = |part: &&MessagePart| part.is_text() && !part.is_text_html();
    let text = message.text_part(0).filter(is_plain);
    let html = message.html_bodies().find(|part| part.is_text_html());
    let text = text.and_then(MessagePart::text_contents).map(cut);
    let html = html.and_then(MessagePart::text_contents).map(cut);
    let author = message.from().and_then(|from| from.first()).map(|one| {
        format!("{} <{}>", one.name().unwrap_or_default(), one.address().unwrap_or_default())
    });
    json!({
        "size": size,
        "source": source,
        "is_source_cut": is_source_cut,
        "is_read_cut": size > octets.len() as u64,
        "from": author,
        "subject": message.subject(),
        "date": message.date().map(ToString::to_string),
        "text": text.map(|(text, _)| text),
        "is_text_cut": text.is_some_and(|(_, is_cut)| is_cut),
        "html": html.map(|(html, _)| html),
        "is_html_cut": html.is_some_and(|(_, is_cut)| is_cut),
        "attachments": message.attachments().take(SHOWN).map(attachment).collect::<Vec<_>>(),
        "attachment_count": message.attachments().count(),
    })
}

/// Its name, its kind and how large it is; nothing of what is in it.
fn attachment(part: &MessagePart) -> Value {
    let kind = part.content_type();
    let kind = kind.map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()));
    let name = part.attachment_name().map(|name| match cut(name) {
        (name, false) => name.to_owned(),
        (start, true) => format!("{start}…"),
    });
    json!({ "name": name, "kind": kind, "size": part.len() })
}

/// Everybody who waits in the queue, the next attempt first.
pub fn queue(spool: &Path) -> Value {
    let queue = Queue::new(spool);
    let ids = queue.ids().unwrap_or_default();
    let count = ids.len();
    let read = |(id, _): &(String, _)| match queue.read(id) {
        Ok(Some(Ok(entry))) => Some((id.clone(), entry)),
        _ => None,
    };
    let mut entries: Vec<(String, Entry)> = ids.iter().take(LOOKED_AT).filter_map(read).collect();
    entries.sort_by_key(|(_, entry)| entry.next);
    let entry = |(id, entry): &(String, Entry)| {
        let to = |one: &QueuedRecipient| {
            let answer = one.answer.as_ref().map(ToString::to_string);
            json!({ "address": one.address.to_string(), "state": one.state.to_string(), "answer": answer })
        };
        let wait = entry.next.as_second() - Timestamp::now().as_second();
        json!({
            "id": id, "to": entry.next_hop.to_string(), "attempts": entry.attempts,
            "next": format!("{:.0}", entry.next), "wait": wait.max(0),
            "from": entry.letter.reverse_path.to_string(),
            "recipients": entry.recipients.iter().take(SHOWN).map(to).collect::<Vec<_>>(),
            "recipient_count": entry.recipients.len(),
        })
    };
    json!({
        "entries": entries.iter().take(SHOWN).map(entry).collect::<Vec<_>>(),
        "count": count,
    })
}

/// What is in a folder, sorted; of a very large one, some.
fn names(folder: &Path) -> Vec<String> {
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let name = |file: io::Result<fs::DirEntry>| file.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = files.take(LOOKED_AT).filter_map(name).collect();
    names.retain(|name| is_name(name));
    names.sort();
    names
}

/// Whether this is the name of something inside a folder, and leads nowhere else.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// As much of a text as is shown, and whether that is not all of it.
fn cut(text: &str) -> (&str, bool) {
    let mut places = (0..=TEXT_LIMIT.min(text.len())).rev();
    let end = places.find(|place| text.is_char_boundary(*place)).unwrap_or(0);
    text.split_at_checked(end).map_or((text, false), |(start, rest)| (start, !rest.is_empty()))
}
