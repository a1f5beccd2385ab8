//! Asks the state machine for its own table: `cargo run --example states`.
//!
//! Every state times every command: a new [`Session`] is brought to the state,
//! is given the command, and its answer becomes one cell. Nothing here knows
//! the rules, so the table cannot be wrong about them; chapter 5 prints it and a
//! test compares. With `--svg` the same answers become a drawing, and with
//! `--patience` it tells how long a session bears with what:
//!
//! ```text
//! cargo run --example states -- --svg > docs/states.svg
//! cargo run --example states -- --patience
//! ```
//!
//! Book: docs/05-state-machine.md.

#[path = "flags/mod.rs"]
mod flags;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argh::FromArgs;
use ehlo::smtp::auth::secret::Secret;
use ehlo::smtp::auth::users::Users;
use ehlo::smtp::session::{BadLine, Next, Outcome, Outside, Role, Session, State, Step};
use ehlo::smtp::site::Site;

/// The states of the table, and what a client says to get there.
const STATES: [(&str, &[&str]); 6] = [
    ("Connected", &[]),
    ("Ready", &["EHLO client.example"]),
    ("Mail", &["EHLO client.example", "MAIL FROM:<ann@client.example>"]),
    ("Rcpt", &["EHLO client.example", "MAIL FROM:<ann@client.example>", "RCPT TO:<bob@localhost>"]),
    (
        "Chunks",
        &[
            "EHLO client.example",
            "MAIL FROM:<ann@client.example>",
            "RCPT TO:<bob@localhost>",
            "BDAT 9",
        ],
    ),
    ("Auth", &["EHLO client.example", "AUTH PLAIN"]),
];

/// Its place in [`STATES`]: the drawing has it apart from the others.
const AUTH: usize = 5;

/// A server with one mailbox, whose owner may log in: with TLS, and in clear.
static SITE: LazyLock<Arc<Site>> = LazyLock::new(|| {
    let mut site = Site::new("localhost", "localhost", &[], Some(&["bob".to_owned()]));
    site.has_tls = true;
    site.allow_plain_auth = true;
    let secret = Secret::Plain("secret".to_owned());
    site.set_users(Users::new(vec![("bob".to_owned(), secret)], [0; 32]));
    Arc::new(site)
});

/// A server with a hundred other mailboxes, for a client that goes on for long.
static MANY: LazyLock<Arc<Site>> = LazyLock::new(|| {
    let names: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
    let mut site = Site::new("localhost", "localhost", &[], Some(&names));
    site.allow_plain_auth = true;
    let secret = Secret::Plain("secret".to_owned());
    site.set_users(Users::new(vec![("bob".to_owned(), secret)], [0; 32]));
    Arc::new(site)
});

/// NUL, `bob`, NUL and a password, in base64 (RFC 4616): the right one …
const RIGHT: &str = "AGJvYgBzZWNyZXQ=";
/// … and a wrong one.
const WRONG: &str = "AGJvYgB3cm9uZw==";

/// The state without a column: nothing is answered there any more.
const CLOSED: &str = "Closed";

/// What happens to the session.
enum Event {
    /// The client sends this line.
    Line(&'static str),
    /// The client sends this line again and again.
    Lines(&'static str, usize),
    /// The client tries this response of PLAIN again and again.
    Logins(&'static str, usize),
    /// The client sends what is no line at all.
    Bad(BadLine),
    /// The client says DATA, and this becomes of the message, if it may send one.
    Message(Outcome),
    /// The client says BDAT with this line, and this becomes of the message by its chunk,
    /// if it may send one.
    Chunk(&'static str, Outcome),
}

/// One row of the table.
struct Row {
    /// How the table calls it.
    title: String,
    /// How the drawing calls it.
    label: &'static str,
    event: Event,
}

/// What one event did in one state.
struct Answer {
    /// `250 2.1.0`; two replies for a message.
    replies: String,
    /// The state after it.
    state: &'static str,
}

/// Ask the state machine for its own table.
#[derive(FromArgs)]
struct Flags {
    /// print a drawing instead of the table
    #[argh(switch)]
    svg: bool,
    /// print how long a session bears with what
    #[argh(switch)]
    patience: bool,
}

fn main() -> ExitCode {
    let flags: Flags = match flags::read("states", "") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let text = match flags {
        Flags { svg: true, .. } => svg(),
        Flags { patience: true, .. } => patience(),
        _ => table(),
    };
    print!("{text}");
    ExitCode::SUCCESS
}

/// Everything that can happen in a state.
fn rows() -> Vec<Row> {
    let line = |label, line, note: &str| Row {
        title: if note.is_empty() { format!("`{line}`") } else { format!("`{line}` {note}") },
        label,
        event: Event::Line(line),
    };
    let bad =
        |label, title: &str, why| Row { title: title.to_owned(), label, event: Event::Bad(why) };
    let message = |label, what: &str, outcome| Row {
        title: format!("`DATA`, then {what}"),
        label,
        event: Event::Message(outcome),
    };
    let chunk = |label, line, what: &str, outcome| Row {
        title: format!("`{line}` {what}"),
        label,
        event: Event::Chunk(line, outcome),
    };
    vec![
        line("EHLO", "EHLO client.example", ""),
        line("EHLO", "EHLO", "without a name"),
        line("HELO", "HELO client.example", ""),
        line("MAIL", "MAIL FROM:<ann@client.example>", ""),
        line("MAIL", "MAIL FROM:<ann@>", "bad address"),
        line("MAIL", "MAIL FROM:<> SIZE=big", "bad parameter"),
        line("MAIL", "MAIL FROM:<> COLOUR=red", "unknown parameter"),
        line("MAIL", "MAIL FROM:<> SIZE=99999999999", "too large"),
        line("MAIL", "MAIL FROM:<ä@b.example>", "without SMTPUTF8"),
        line("RCPT", "RCPT TO:<bob@localhost>", ""),
        line("RCPT", "RCPT TO:<bob@>", "bad address"),
        line("RCPT", "RCPT TO:<bob@else.example>", "not one of our domains"),
        line("RCPT", "RCPT TO:<eve@localhost>", "no such mailbox"),
        message("DATA and a message", "a message that is stored", Outcome::Stored("id".to_owned())),
        message("DATA and a message", "one that is too large", Outcome::TooBig),
        message("DATA and a message", "one that went in a loop", Outcome::Loop),
        message("DATA and a message", "one there is no room for", Outcome::NoRoom),
        message("bare CR or LF", "one with a bare CR or LF", Outcome::BareNewline),
        chunk("BDAT LAST", "BDAT 9 LAST", "and it is stored", Outcome::Stored("id".to_owned())),
        line("BDAT", "BDAT 9", "and more is to come"),
        chunk("a refused chunk", "BDAT 9", "and there is no room", Outcome::NoRoom),
        chunk("bare CR or LF", "BDAT 9", "with a bare CR or LF", Outcome::BareNewline),
        line("a refused chunk", "BDAT 26214401", "too large"),
        line("bad BDAT", "BDAT 99999999999", "too large to be read"),
        line("bad BDAT", "BDAT many", "bad size"),
        line("RSET", "RSET", ""),
        line("NOOP", "NOOP", ""),
        line("HELP", "HELP", ""),
        line("VRFY", "VRFY bob", ""),
        line("VRFY", "VRFY", "without a name"),
        line("EXPN", "EXPN list", ""),
        line("STARTTLS", "STARTTLS", ""),
        line("STARTTLS", "STARTTLS now", "with an argument"),
        line("AUTH", "AUTH PLAIN", ""),
        line("AUTH", "AUTH PLAIN AGJvYgBzZWNyZXQ=", "right"),
        line("AUTH", "AUTH PLAIN AGJvYgB3cm9uZw==", "wrong password"),
        line("AUTH", "AUTH LOGIN", ""),
        line("AUTH", "AUTH NTLM", "not offered"),
        line("AUTH", "AUTH", "without a mechanism"),
        line("a response", RIGHT, "a right response"),
        line("a response", WRONG, "a wrong one"),
        line("a response", "*", ""),
        Row {
            title: "a wrong password for the 3rd time".to_owned(),
            label: "3 failures",
            event: Event::Logins(WRONG, 3),
        },
        line("QUIT", "QUIT", ""),
        line("", "HELLO", "or another unknown verb"),
        Row {
            title: "an unknown verb for the 21st time".to_owned(),
            label: "21 refusals",
            event: Event::Lines("HELLO", 21),
        },
        bad("", "a line that is too long", BadLine::TooLong),
        bad("bare CR or LF", "a line with a bare CR or LF", BadLine::BareNewline),
        bad("", "a line with a NUL", BadLine::Nul),
        line("HTTP", "GET / HTTP/1.1", ""),
        bad("TLS", "a TLS handshake", BadLine::Tls),
    ]
}

/// A session that has just come to a state.
fn session_in((name, lines): (&str, &[&str])) -> Session {
    let mut session = session_of(&SITE);
    for line in lines {
        if let Next::Chunk(part) = session.line(line.as_bytes()).next {
            session.chunk_ended(part);
        }
    }
    assert_eq!(session.state().name(), name, "{lines:?} does not lead there any more");
    session
}

fn session_of(site: &Arc<Site>) -> Session {
    let our_address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Session::new(Arc::clone(site), Role::Smtp, our_address, String::new)
}

/// Lets an event happen in a session, and notes what it did.
fn probe(mut session: Session, event: &Event) -> Answer {
    let replies = match event {
        Event::Line(line) => {
            let step = session.line(line.as_bytes());
            match step.next {
                // The handshake itself needs no probing.
                Next::StartTls => {
                    session = session.after_handshake();
                    codes(&step)
                }
                Next::Chunk(part) => codes(&session.chunk_ended(part)),
                Next::Command | Next::Message(_) | Next::Close(_) => codes(&step),
            }
        }
        Event::Lines(line, times) => {
            for _ in 1..*times {
                session.line(line.as_bytes());
            }
            codes(&session.line(line.as_bytes()))
        }
        Event::Logins(response, times) => {
            for _ in 1..*times {
                log_in(&mut session, response);
            }
            codes(&log_in(&mut session, response))
        }
        Event::Bad(why) => codes(&session.bad_line(*why)),
        Event::Message(outcome) => {
            let step = session.line(b"DATA");
            match step.next {
                Next::Message(_) => {
                    format!("{}, {}", codes(&step), codes(&session.message_ended(outcome)))
                }
                Next::Command | Next::Chunk(_) | Next::StartTls | Next::Close(_) => codes(&step),
            }
        }
        Event::Chunk(line, outcome) => {
            let step = session.line(line.as_bytes());
            match step.next {
                Next::Chunk(_) => codes(&session.message_ended(outcome)),
                Next::Command | Next::Message(_) | Next::StartTls | Next::Close(_) => codes(&step),
            }
        }
    };
    Answer { replies, state: session.state().name() }
}

/// Answers the challenge, or else begins an exchange with the response in it.
fn log_in(session: &mut Session, response: &str) -> Step {
    match session.state() {
        State::Auth(_) => session.line(response.as_bytes()),
        _ => session.line(format!("AUTH PLAIN {response}").as_bytes()),
    }
}

/// `250 2.1.0`, or `354` where there is no enhanced code.
fn codes(step: &Step) -> String {
    let Some(reply) = &step.reply else { return "nothing yet".to_owned() };
    match reply.enhanced() {
        Some(enhanced) => format!("{} {enhanced}", reply.code()),
        None => reply.code().to_string(),
    }
}

/// The table of chapter 5, in Markdown. A cell names the new state only where it
/// is another one.
pub fn table() -> String {
    let mut table = "| the client sends |".to_owned();
    for (name, _) in STATES {
        let _ = write!(table, " {name} |");
    }
    table += &format!("\n|{}\n", " --- |".repeat(STATES.len() + 1));
    for row in rows() {
        let _ = write!(table, "| {} |", row.title);
        for state in STATES {
            let Answer { replies, state: after } = probe(session_in(state), &row.event);
            let arrow = if after == state.0 { String::new() } else { format!(" → {after}") };
            let _ = write!(table, " {replies}{arrow} |");
        }
        table.push('\n');
    }
    table
}

/// Nobody asks more often than this to find out that there is no limit.
const OFTEN: usize = 1000;

/// The table of chapter 5 about patience, in Markdown: how often a session without a
/// message bears with what, found by doing it.
pub fn patience() -> String {
    let mut table =
        "| a client, without a message that is taken | is answered |\n| --- | --- |\n".to_owned();
    let recipients = |count: usize| {
        let rcpt = |number| format!("RCPT TO:<n{number}@localhost>");
        let mut lines = vec!["EHLO c".to_owned(), "MAIL FROM:<ann@client.example>".to_owned()];
        lines.extend((0..count).map(rcpt));
        lines
    };
    let dead = "RCPT TO:<eve@localhost>";
    let hello = || vec!["EHLO c".to_owned()];
    for (title, before, line) in [
        ("says `HELLO`, or whatever else is refused", Vec::new(), "HELLO"),
        ("names recipients that are refused, and none that is accepted", recipients(0), dead),
        ("names them beside one that is accepted", recipients(1), dead),
        ("names them beside 100 that are accepted", recipients(100), dead),
        ("says `NOOP`", Vec::new(), "NOOP"),
        ("says `RSET`", Vec::new(), "RSET"),
        ("says `HELP`", Vec::new(), "HELP"),
        ("says `VRFY bob`", Vec::new(), "VRFY bob"),
        ("says `EXPN list`", Vec::new(), "EXPN list"),
        ("says `EHLO client.example`", Vec::new(), "EHLO client.example"),
        ("says `HELO client.example`", Vec::new(), "HELO client.example"),
        ("tries a wrong password", hello(), "AUTH PLAIN AGJvYgB3cm9uZw=="),
    ] {
        let _ = writeln!(table, "| {title} | {} |", bear(&before, line));
    }
    let _ = writeln!(table, "| says `NOOP` once in a time-out | {} |", outlast());
    table
}

/// How often a line is answered after these lines, and how.
fn bear(before: &[String], line: &str) -> String {
    let mut session = session_of(&MANY);
    for line in before {
        session.line(line.as_bytes());
    }
    let mut counts: Vec<(Duration, usize)> = Vec::new();
    for _ in 0..OFTEN {
        let step = session.line(line.as_bytes());
        if let Next::Close(_) = step.next {
            let times =
                counts.iter().map(|(pause, count)| format!("{count} times {}", after(*pause)));
            let end = format!("then {} {}", codes(&step), after(step.pause));
            return times.chain([end]).collect::<Vec<_>>().join(", ");
        }
        match counts.last_mut() {
            Some((pause, count)) if *pause == step.pause => *count += 1,
            _ => counts.push((step.pause, 1)),
        }
    }
    format!("{OFTEN} times and more")
}

fn after(pause: Duration) -> String {
    if pause.is_zero() { "at once".to_owned() } else { format!("after {} s", pause.as_secs_f64()) }
}

/// For how many time-outs a session may last.
fn outlast() -> String {
    let mut session = session_of(&MANY);
    let mut age = Duration::ZERO;
    for number in 1..OFTEN {
        age += MANY.timeout;
        session.set_outside(Outside { age, ..Outside::default() });
        let step = session.line(b"NOOP");
        if let Next::Close(_) = step.next {
            return format!("{} times, then {}", number - 1, codes(&step));
        }
    }
    "for ever".to_owned()
}

/// One arrow of the drawing: a change of state, and everything that causes it.
struct Arrow {
    /// Places in [`STATES`]; `to` is its length for `Closed`.
    from: usize,
    to: usize,
    labels: Vec<&'static str>,
}

/// All changes of state, found by probing. What leaves the state as it is has no
/// arrow.
fn arrows() -> Vec<Arrow> {
    let mut arrows: Vec<Arrow> = Vec::new();
    for (from, state) in STATES.into_iter().enumerate() {
        for row in rows() {
            let after = probe(session_in(state), &row.event).state;
            let to = STATES.iter().position(|(name, _)| *name == after).unwrap_or(STATES.len());
            if to == from {
                continue;
            }
            match arrows.iter_mut().find(|arrow| (arrow.from, arrow.to) == (from, to)) {
                Some(arrow) if arrow.labels.contains(&row.label) => {}
                Some(arrow) => arrow.labels.push(row.label),
                None => arrows.push(Arrow { from, to, labels: vec![row.label] }),
            }
        }
    }
    for arrow in &mut arrows {
        arrow.labels.sort_unstable();
    }
    arrows
}

// The drawing, in pixels: the states in a row, `Auth` under two of them, `Closed`
// as a floor under all.
const BOX_WIDTH: usize = 120;
const BOX_HEIGHT: usize = 44;
/// From the middle of one state to the middle of the next.
const PITCH: usize = 226;
const MARGIN: usize = 80;
const ROW_TOP: usize = 210;
const AUTH_TOP: usize = 310;
const FLOOR_TOP: usize = 490;
const LINE_HEIGHT: usize = 17;
/// How far beside the middle of a state an arrow begins that is not straight.
const ASIDE: usize = 20;
/// How far beside each other arrows of different length end.
const BESIDE: usize = 15;
/// More labels than this at one arrow stand for every line there is: the last of a login.
const LABELS: usize = 8;

/// The states and their changes as SVG. Steps forward are straight, the ways
/// back are arcs above, the ways out lead down.
pub fn svg() -> String {
    let width = 2 * MARGIN + BOX_WIDTH + PITCH * (AUTH - 1);
    let height = FLOOR_TOP + BOX_HEIGHT + 3 * LINE_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"15\">\n\
         <title>The states of a session and the commands that change them</title>\n\
         <defs><marker id=\"tip\" markerUnits=\"userSpaceOnUse\" markerWidth=\"9\" markerHeight=\"8\" refX=\"8\" refY=\"4\" \
         orient=\"auto\"><path d=\"M0,0 L9,4 L0,8 z\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    // Over all lines, so that none goes through a word.
    let mut texts = String::new();
    for arrow in arrows() {
        draw_arrow(&mut svg, &mut texts, &arrow);
    }
    for (place, (name, _)) in STATES.into_iter().enumerate() {
        let top = if place == AUTH { AUTH_TOP } else { ROW_TOP };
        draw_box(&mut svg, middle(place) - BOX_WIDTH / 2, top, BOX_WIDTH, name);
    }
    draw_box(&mut svg, MARGIN, FLOOR_TOP, width - 2 * MARGIN, CLOSED);
    // The server speaks first.
    let greeting = format!("{} greeting", codes(&session_in(STATES[0]).greet()));
    draw_line(&mut svg, " Connected", &format!("M{},{} V{ROW_TOP}", middle(0), ROW_TOP - 40));
    draw_text(&mut svg, middle(0), ROW_TOP - 48, "middle", &greeting);
    let notes = [
        "Everything else is answered and leaves the state as it is.",
        "HTTP, TLS: the client speaks something else. Failures, refusals: the server's patience is at its end.",
    ];
    for (number, note) in notes.into_iter().enumerate() {
        let y = FLOOR_TOP + BOX_HEIGHT + 4 + (number + 1) * LINE_HEIGHT;
        draw_text(&mut svg, width / 2, y, "middle", note);
    }
    svg += &texts;
    svg += "</svg>\n";
    svg
}

/// The middle of a state, from the left.
fn middle(place: usize) -> usize {
    match place {
        AUTH => middle(1).midpoint(middle(2)),
        _ => MARGIN + BOX_WIDTH / 2 + PITCH * place,
    }
}

fn draw_box(svg: &mut String, left: usize, top: usize, width: usize, name: &str) {
    let (x, y) = (left + width / 2, top + BOX_HEIGHT / 2 + 5);
    let _ = writeln!(
        svg,
        "<rect data-state=\"{name}\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"8\" \
         fill=\"#eef3fa\" stroke=\"black\"/>\n\
         <text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" font-size=\"17\" font-weight=\"bold\">{name}</text>"
    );
}

fn draw_arrow(svg: &mut String, texts: &mut String, arrow: &Arrow) {
    let (from, to) = (middle(arrow.from), middle(arrow.to));
    let bottom = ROW_TOP + BOX_HEIGHT;
    let name = |place: usize| STATES.get(place).map_or(CLOSED, |(name, _)| *name);
    let way = format!("{} {}", name(arrow.from), name(arrow.to));
    let label = match arrow.labels.len() > LABELS {
        true => "login over".to_owned(),
        false => arrow.labels.join(", "),
    };
    if arrow.to == STATES.len() {
        let x = from - ASIDE - 10;
        let top = if arrow.from == AUTH { AUTH_TOP + BOX_HEIGHT } else { bottom };
        draw_line(svg, &way, &format!("M{x},{top} V{FLOOR_TOP}"));
        let first = FLOOR_TOP - arrow.labels.len() * LINE_HEIGHT;
        for (number, label) in arrow.labels.iter().enumerate() {
            draw_text(texts, x - 8, first + number * LINE_HEIGHT, "end", label);
        }
    } else if arrow.to == AUTH {
        let (x, y) = (from + ASIDE, AUTH_TOP + BOX_HEIGHT / 2);
        draw_line(svg, &way, &format!("M{x},{bottom} V{y} H{}", to - BOX_WIDTH / 2));
        draw_text(texts, x - 6, bottom.midpoint(y), "end", &label);
    } else if arrow.from == AUTH {
        let (x, y) = (to + 2 * ASIDE, bottom.midpoint(AUTH_TOP));
        draw_line(svg, &way, &format!("M{from},{AUTH_TOP} V{y} H{x} V{bottom}"));
        draw_text(texts, from + 6, y + 5, "start", &label);
    } else if arrow.to == arrow.from + 1 {
        let (start, y) = (from + BOX_WIDTH / 2, ROW_TOP + BOX_HEIGHT / 2);
        draw_line(svg, &way, &format!("M{start},{y} H{}", to - BOX_WIDTH / 2));
        draw_text(texts, from.midpoint(to), y - 8, "middle", &label);
    } else {
        // Longer ways go higher, and end beside each other.
        let distance = arrow.from.abs_diff(arrow.to);
        let top = ROW_TOP.saturating_sub(90 * distance - 30);
        let (start, end) = (from - 2 * ASIDE, to + 2 * BESIDE - BESIDE * distance);
        draw_line(
            svg,
            &way,
            &format!("M{start},{ROW_TOP} C{start},{top} {end},{top} {end},{ROW_TOP}"),
        );
        // A curve of this form rises three quarters of the way. What is written over a long one
        // stands nearer to its beginning, where no longer one crosses it.
        let y = ROW_TOP - (ROW_TOP - top) * 3 / 4 - 8;
        let (x, lines) = match arrow.labels.split_at_checked(2) {
            Some((upper, lower)) if distance > 1 => {
                let upper = format!("{},", upper.join(", "));
                (start.midpoint(start.midpoint(end)), vec![upper, lower.join(", ")])
            }
            _ => (start.midpoint(end), vec![label]),
        };
        for (number, line) in lines.iter().rev().enumerate() {
            draw_text(texts, x, y - number * LINE_HEIGHT, "middle", line);
        }
    }
}

/// `way` names the states at its ends, for programs that light it.
fn draw_line(svg: &mut String, way: &str, path: &str) {
    let _ = writeln!(
        svg,
        "<path data-way=\"{way}\" d=\"{path}\" fill=\"none\" stroke=\"black\" marker-end=\"url(#tip)\"/>"
    );
}

fn draw_text(svg: &mut String, x: usize, y: usize, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" stroke=\"white\" \
         stroke-width=\"4\" paint-order=\"stroke\">{text}</text>"
    );
}
