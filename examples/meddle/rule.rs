//! What the person in the middle does, and when: rules as text, read and looked up.
//!
//! In: the texts of `--rule`. Out: what to do at a moment. A rule that cannot be read is
//! an error that names the place and shows the forms.
//!
//! Book: docs/13-the-client-side.md.

use std::sync::Mutex;
use std::time::Duration;

/// What `--help` and every error show.
pub const FORMS: &str = "\
[Nx] MOMENT -> ACT          N times, else always; the first rule that fits counts
MOMENT  connect             a client has connected
        COMMAND             a line of the client, such as MAIL or 'RCPT TO:<b*>'; * is any text
        to ADDRESS          a recipient, such as 'to bob@*'
        dot                 the end of a message
ACT     450 4.2.0 busy      this reply, in the server's place
        close · reset       hang up, politely or not
        silent              say nothing any more
        lose                pass it on, and hang up before the reply comes back
        wait SECS           pass it on later
        slow OCTETS         from here on, so many octets a second
        cut OCTETS          at DATA: hang up after so many octets of the message
        drop WORD…          at EHLO: take these keywords out of the reply
        change WORD = TEXT  at EHLO: say TEXT for this keyword
        inject LINE         pass it on with one more line, in one write
        append LINE         one more line after the server's reply, in one write
        pass                let it pass, whatever the rules after this say";

/// What a client usually says.
const VERBS: [&str; 13] = [
    "EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP", "AUTH",
    "STARTTLS",
];

/// When something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment<'a> {
    /// A client has connected.
    Connect,
    /// It has said this line.
    Command(&'a str),
    /// The final dot has come.
    Dot,
}

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// This instead of what the server would say.
    Reply(String),
    /// Hang up.
    Close,
    /// Hang up with a reset: what is on its way is lost.
    Reset,
    /// Say nothing until the client leaves.
    Silent,
    /// Pass it on, and hang up before the reply.
    Lose,
    /// Pass it on later.
    Wait(Duration),
    /// So many octets a second from here on.
    Slow(u64),
    /// Hang up after so many octets of the message.
    Cut(u64),
    /// Take these words out of the reply to EHLO.
    Drop(Vec<String>),
    /// Say something else for this word of the reply to EHLO.
    Change(String, String),
    /// One more line to the server.
    Inject(String),
    /// One more line to the client.
    Append(String),
    /// Nothing.
    Pass,
}

/// When a rule applies.
#[derive(Debug)]
enum When {
    Connect,
    Command(String),
    To(String),
    Dot,
}

#[derive(Debug)]
struct Rule {
    when: When,
    act: Act,
    /// How often it still applies; none means always.
    left: Mutex<Option<u32>>,
}

/// All rules, in the order in which they were given. They count for all connections
/// together.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Rules {
    /// Reads them. The error is for a person.
    pub fn parse(texts: &[String]) -> Result<Rules, String> {
        let parse = |(number, text): (usize, &String)| {
            Rule::parse(text)
                .map_err(|(at, why)| format!("rule {number}, at `{at}`: {why}\n\n{FORMS}"))
        };
        let rules = (1..).zip(texts).map(parse).collect::<Result<Vec<Rule>, String>>()?;
        Ok(Rules { rules })
    }

    /// The numbers of rules that will hardly ever fit, and why: a moment is as good as
    /// any text, and a misspelled one waits for ever.
    pub fn doubtful(&self) -> impl Iterator<Item = (usize, String)> {
        let numbered = (1..).zip(&self.rules);
        numbered.filter_map(|(number, rule)| Some((number, rule.when.doubt()?)))
    }

    /// What happens now. Changes of the reply to EHLO add up; of all else the first rule
    /// that fits counts, and is used up once.
    pub fn at(&self, moment: Moment) -> Vec<Act> {
        let mut acts = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.fits(moment)) {
            let adds_up = matches!(rule.act, Act::Drop(_) | Act::Change(..));
            if rule.take() {
                acts.push(rule.act.clone());
                if !adds_up {
                    break;
                }
            }
        }
        acts
    }

    /// The reply that the next message gets in the server's place, if it gets one. The rule is
    /// used up: another client may ask before this message has its end.
    pub fn take_reply_to_dot(&self) -> Option<String> {
        let mut rules = self.rules.iter().filter(|rule| rule.fits(Moment::Dot));
        let next = rules.find(|rule| rule.is_left())?;
        let Act::Reply(text) = &next.act else { return None };
        next.take().then(|| text.clone())
    }
}

impl Rule {
    /// Reads one. The error is the place, and what is wrong there.
    fn parse(text: &str) -> Result<Rule, (String, String)> {
        let wrong = |at: &str, why: &str| (at.trim().to_owned(), why.to_owned());
        let (when, act) =
            text.split_once("->").ok_or_else(|| wrong(text, "expected MOMENT -> ACT"))?;
        let (left, when) = count(when.trim());
        let moment = parse_when(when).ok_or_else(|| wrong(when, "expected a moment"))?;
        let parsed = parse_act(act.trim()).map_err(|why| wrong(act, why))?;
        if !is_possible(&moment, &parsed) {
            return Err(wrong(act, "this cannot be done at that moment"));
        }
        Ok(Rule { when: moment, act: parsed, left: Mutex::new(left) })
    }

    fn fits(&self, moment: Moment) -> bool {
        match (&self.when, moment) {
            (When::Connect, Moment::Connect) | (When::Dot, Moment::Dot) => true,
            (When::Command(pattern), Moment::Command(line)) => {
                let verb = line.split(' ').next().unwrap_or_default();
                is_like(pattern, line) || is_like(pattern, verb)
            }
            (When::To(pattern), Moment::Command(line)) => {
                recipient(line).is_some_and(|address| is_like(pattern, address))
            }
            _ => false,
        }
    }

    fn is_left(&self) -> bool {
        *self.left.lock().expect("nobody panics with this lock") != Some(0)
    }

    /// Uses it up once. Whether it was still there.
    fn take(&self) -> bool {
        let mut left = self.left.lock().expect("nobody panics with this lock");
        match left.as_mut() {
            None => true,
            Some(0) => false,
            Some(count) => {
                *count -= 1;
                true
            }
        }
    }
}

impl When {
    /// Why this may be no moment at all.
    fn doubt(&self) -> Option<String> {
        let When::Command(pattern) = self else { return None };
        let (verb, rest) = pattern.split_once(' ').unwrap_or((pattern, ""));
        let has_form = |form: &str| rest.starts_with('*') || is_like(&format!("{form}*"), rest);
        let form = match verb.to_ascii_uppercase().as_str() {
            "RCPT" if !(rest.is_empty() || has_form("TO:")) => "'RCPT TO:<b*>', or 'to b*'",
            "MAIL" if !(rest.is_empty() || has_form("FROM:")) => "'MAIL FROM:<b*>'",
            _ if VERBS.iter().any(|known| is_like(verb, known)) => return None,
            _ => "a command of SMTP, 'connect', 'dot' or 'to ADDRESS'",
        };
        Some(format!("waits for a line like `{pattern}`; did you mean {form}?"))
    }
}

/// `2x connect` is `connect`, twice.
fn count(text: &str) -> (Option<u32>, &str) {
    let parse = || {
        let (first, rest) = text.split_once(' ')?;
        Some((Some(first.strip_suffix('x')?.parse().ok()?), rest.trim()))
    };
    parse().unwrap_or((None, text))
}

fn parse_when(text: &str) -> Option<When> {
    match text.split_once(' ') {
        _ if text.is_empty() => None,
        Some(("to", address)) => Some(When::To(address.trim().to_owned())),
        _ if text == "connect" => Some(When::Connect),
        _ if text == "dot" => Some(When::Dot),
        _ => Some(When::Command(text.to_owned())),
    }
}

fn parse_act(text: &str) -> Result<Act, &'static str> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    let number = || rest.parse().map_err(|_| "expected a number of octets");
    let line = || {
        if rest.is_empty() { Err("expected a line") } else { Ok(rest.to_owned()) }
    };
    match word {
        "close" => Ok(Act::Close),
        "reset" => Ok(Act::Reset),
        "silent" => Ok(Act::Silent),
        "lose" => Ok(Act::Lose),
        "pass" => Ok(Act::Pass),
        "wait" => {
            let secs = rest.parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
            secs.map(Act::Wait).ok_or("expected a number of seconds")
        }
        "slow" => match number()? {
            0 => Err("expected at least one octet a second"),
            octets => Ok(Act::Slow(octets)),
        },
        "cut" => Ok(Act::Cut(number()?)),
        "inject" => Ok(Act::Inject(line()?)),
        "append" => Ok(Act::Append(line()?)),
        "drop" => Ok(Act::Drop(line()?.split_whitespace().map(str::to_owned).collect())),
        "change" => match rest.split_once('=') {
            Some((word, text)) if !word.trim().is_empty() => {
                Ok(Act::Change(word.trim().to_owned(), text.trim().to_owned()))
            }
            _ => Err("expected WORD = TEXT"),
        },
        code if code.len() == 3
            && code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code)) =>
        {
            Ok(Act::Reply(text.to_owned()))
        }
        _ => Err("expected an act"),
    }
}

/// Whether an act has a meaning at a moment.
fn is_possible(when: &When, act: &Act) -> bool {
    let is_command = |verb: &str| {
        let When::Command(pattern) = when else { return false };
        is_like(pattern, verb) || pattern.to_ascii_uppercase().starts_with(verb)
    };
    match act {
        Act::Cut(_) => is_command("DATA"),
        Act::Drop(_) | Act::Change(..) => is_command("EHLO"),
        Act::Inject(_) => matches!(when, When::Command(_) | When::To(_)),
        Act::Append(_) | Act::Lose => !matches!(when, When::Connect),
        Act::Reply(_) | Act::Close | Act::Reset | Act::Silent => true,
        Act::Wait(_) | Act::Slow(_) | Act::Pass => true,
    }
}

/// The address in `RCPT TO:<bob@b.example> …`.
fn recipient(line: &str) -> Option<&str> {
    let (verb, rest) = line.split_at_checked(5)?;
    let (_, rest) = rest.split_once('<').filter(|_| verb.eq_ignore_ascii_case("rcpt "))?;
    rest.split_once('>').map(|(address, _)| address)
}

/// Whether a text is like a pattern, in which `*` stands for any text. Case does not count.
fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The first place is always good enough: what is left can only get longer.
    for part in middle.split('*') {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(last)
}
