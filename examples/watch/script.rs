//! A session, made a script that `check` plays.
//!
//! In: the lines of a session. Out: the client's lines as they were, and of each reply its
//! codes. The text of a message is not among the lines, so another one stands in its place;
//! and what is not there as it was said ends the script: a line that is hidden as it may be
//! a password, or is cut, or has octets in it that are shown by a backslash.
//!
//! Book: docs/08-threads.md.

/// Stands in the place of every message.
const MESSAGE: &str = "C: Subject: in the place of a message\nC: \nC: hello\nC: .\n";

/// These may have had any text behind them, of which nothing is shown where people log in.
const TAKE_TEXT: [&str; 4] = ["NOOP", "HELP", "VRFY", "EXPN"];

/// The script of these lines: `C`, `S`, or `-` for what is not said. Whether there are users,
/// and whether it was the server who closed the session, is known otherwise.
pub fn script<'a>(
    lines: impl Iterator<Item = (char, &'a str)>,
    has_users: bool,
    is_closed: bool,
) -> String {
    // Who tries to log in may type a password later, also where nobody can.
    let mut may_hide = has_users;
    let mut script = "# A session, as it was watched. Of a reply its codes count.\n".to_owned();
    let mut is_inside_reply = false;
    for (who, text) in lines {
        match who {
            'C' if is_message(text) => script += MESSAGE,
            'C' if !is_whole(text) || may_hide && TAKE_TEXT.contains(&text) => {
                script += "# Here was a line that is not shown, or not whole.\n";
                return script;
            }
            'C' => {
                script += &format!("C: {text}\n");
                may_hide |= text.starts_with("AUTH");
            }
            // Lines before the last one are passed over: extensions come and go.
            'S' if text.get(3..4) == Some("-") => {
                if !is_inside_reply {
                    script += "S: ...\n";
                }
                is_inside_reply = true;
            }
            'S' => {
                script += &expected(text);
                is_inside_reply = false;
            }
            _ if text.starts_with("TLS") => script += "C: [tls]\n",
            _ => {}
        }
    }
    if is_closed {
        script += "S: [closed]\n";
    }
    script
}

/// `(25 octets of the message)`.
pub fn is_message(text: &str) -> bool {
    text.starts_with('(') && text.ends_with(" octets of the message)")
}

/// Whether this is what the client sent, octet for octet: not hidden, cut, or escaped.
fn is_whole(text: &str) -> bool {
    let is_hidden = text.ends_with(" octets>") || text.ends_with(" (and parameters)");
    !(is_hidden || text.starts_with('(') || text.ends_with('…') || text.contains('\\'))
}

/// The codes of the last line of a reply.
fn expected(line: &str) -> String {
    let (code, rest) = line.split_at_checked(3).unwrap_or((line, ""));
    let enhanced = rest.split_whitespace().next().filter(|word| {
        word.split('.').count() == 3 && word.chars().all(|one| one.is_ascii_digit() || one == '.')
    });
    match enhanced {
        Some(enhanced) => format!("S: {code} {enhanced} *\n"),
        None => format!("S: {code} *\n"),
    }
}
