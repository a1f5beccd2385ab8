//! The flags of the command line, checked.
//!
//! In: the arguments. Out: a [`Config`] for the server, or a text to print, or
//! one line that says what is wrong and what was expected. Nothing is opened
//! here; whether a port or a folder can be used shows when the server binds.
//!
//! Book: docs/08-threads.md.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use argh::{EarlyExit, FromArgs};

use crate::server::Config;
use crate::smtp::address::{Domain, ascii_domain};
use crate::smtp::site::Relay;

/// Nobody means to wait for longer, and sums of longer times do not end well.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A small SMTP server that is made to be read. Without flags it takes mail for
/// anybody at localhost on port 2525, and keeps it in Maildirs in ./spool.
#[derive(FromArgs, Debug)]
struct Flags {
    /// listen here; repeatable; port 0 takes any free port (default 127.0.0.1:2525)
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    smtp: Vec<SocketAddr>,

    /// listen here in the role of port 587, for users who log in; repeatable
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    submission: Vec<SocketAddr>,

    /// listen here in the role of port 465, the same under TLS; repeatable
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    submissions: Vec<SocketAddr>,

    /// the name of this server (default localhost)
    #[argh(option, arg_name = "NAME", from_str_fn(domain))]
    hostname: Option<String>,

    /// take mail for this domain; repeatable (default: the hostname)
    #[argh(option, arg_name = "NAME", from_str_fn(domain))]
    domain: Vec<String>,

    /// keep all mail in this folder (default ./spool)
    #[argh(option, arg_name = "DIR")]
    spool: Option<PathBuf>,

    /// who may log in and has a mailbox: a passwd-file as Dovecot reads it
    #[argh(option, arg_name = "FILE")]
    users: Option<PathBuf>,

    /// other names for mailboxes: lines of name: target, target
    #[argh(option, arg_name = "FILE")]
    aliases: Option<PathBuf>,

    /// certificate with its chain; without one there is no TLS
    #[argh(option, arg_name = "PEM")]
    cert: Option<PathBuf>,

    /// the key of the certificate
    #[argh(option, arg_name = "PEM")]
    key: Option<PathBuf>,

    /// take passwords in clear, for a classroom
    #[argh(switch)]
    allow_plain_auth: bool,

    /// whose mail for other servers is taken: none, authenticated or open (default
    /// authenticated)
    #[argh(option, arg_name = "RULE", from_str_fn(relay))]
    relay: Option<Relay>,

    /// give all mail for other servers to this one; port 465 means TLS at once
    #[argh(option, arg_name = "HOST:PORT", from_str_fn(host))]
    smarthost: Option<(String, u16)>,

    /// log in there with what stands in this file, user:password
    #[argh(option, arg_name = "FILE")]
    smarthost_login: Option<PathBuf>,

    /// trust this authority, too, when the smarthost proves its name
    #[argh(option, arg_name = "PEM")]
    smarthost_ca: Option<PathBuf>,

    /// ask this DNS server; repeatable (default: all of /etc/resolv.conf)
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    dns: Vec<SocketAddr>,

    /// port of the servers found by DNS (default 25)
    #[argh(option, arg_name = "N", from_str_fn(positive))]
    relay_port: Option<u16>,

    /// send mail to servers on this machine, too, for experiments
    #[argh(switch)]
    loopback_hops: bool,

    /// time until the second attempt, doubled for each further one up to 4 hours
    /// (default 300)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds))]
    retry: Option<Duration>,

    /// age at which a sender who asked for it hears of the delay (default 14400, 4
    /// hours)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds))]
    warn: Option<Duration>,

    /// age at which a letter goes back to its sender (default 432000, 5 days)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds))]
    give_up: Option<Duration>,

    /// largest message (default 26214400)
    #[argh(option, arg_name = "BYTES", from_str_fn(positive))]
    max_size: Option<u64>,

    /// most recipients of one message, up to 10000 (default 1000)
    #[argh(option, arg_name = "N", from_str_fn(recipients))]
    max_recipients: Option<usize>,

    /// most clients at a time (default 1000)
    #[argh(option, arg_name = "N", from_str_fn(positive))]
    max_connections: Option<usize>,

    /// most clients at a time from one address, 0 for no limit (default 100)
    #[argh(option, arg_name = "N", from_str_fn(number))]
    max_per_client: Option<usize>,

    /// time for a command, a write, or 64 KiB of a message (default 300)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds))]
    timeout: Option<Duration>,

    /// print every dialogue to standard error
    #[argh(switch)]
    trace: bool,

    /// print the version
    #[argh(switch)]
    version: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run a server.
    Serve(Box<Config>),
    /// Print this text and do nothing else.
    Print(String),
}

/// One line for a person: which flag, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

/// Reads the arguments that follow the program's name.
pub fn from_args(args: &[&str]) -> Result<Request, UsageError> {
    let flags = match Flags::from_args(&["ehlo"], args) {
        Ok(flags) => flags,
        Err(EarlyExit { output, status: Ok(()) }) => return Ok(Request::Print(output)),
        Err(EarlyExit { output, status: Err(()) }) => return Err(UsageError(one_line(&output))),
    };
    if flags.version {
        return Ok(Request::Print(format!("ehlo {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let default = Config::default();
    let has_listener =
        !(flags.smtp.is_empty() && flags.submission.is_empty() && flags.submissions.is_empty());
    Ok(Request::Serve(Box::new(Config {
        smtp: if has_listener { flags.smtp } else { default.smtp },
        submission: flags.submission,
        submissions: flags.submissions,
        users: flags.users,
        aliases: flags.aliases,
        cert: flags.cert,
        key: flags.key,
        allow_plain_auth: flags.allow_plain_auth,
        relay: flags.relay.unwrap_or(default.relay),
        hostname: flags.hostname.unwrap_or(default.hostname),
        domains: flags.domain,
        mailboxes: None,
        spool: flags.spool.unwrap_or(default.spool),
        smarthost: flags.smarthost,
        smarthost_login: flags.smarthost_login,
        smarthost_ca: flags.smarthost_ca,
        dns: flags.dns,
        relay_port: flags.relay_port.unwrap_or(default.relay_port),
        loopback_hops: flags.loopback_hops,
        relay_timeout: default.relay_timeout,
        retry: flags.retry.unwrap_or(default.retry),
        warn: flags.warn.unwrap_or(default.warn),
        give_up: flags.give_up.unwrap_or(default.give_up),
        max_size: flags.max_size.unwrap_or(default.max_size),
        max_recipients: flags.max_recipients.unwrap_or(default.max_recipients),
        max_connections: flags.max_connections.unwrap_or(default.max_connections),
        max_per_client: flags.max_per_client.unwrap_or(default.max_per_client),
        timeout: flags.timeout.unwrap_or(default.timeout),
        trace: flags.trace,
    })))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected ADDR:PORT such as 127.0.0.1:2525 or [::1]:2525";
    text.parse().map_err(|_| expected.to_owned())
}

/// A name or an IP address, and a port. An IPv6 address stands in brackets.
fn host(text: &str) -> Result<(String, u16), String> {
    let expected = || "expected HOST:PORT such as mail.example:587".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(expected)?;
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match (inside, Domain::parse(host)) {
        (Some(inside), _) if inside.parse::<Ipv6Addr>().is_ok() => Some((inside.to_owned(), port)),
        (None, Ok((Domain::Name(name), ""))) => ascii_domain(&name).map(|name| (name, port)),
        _ => None,
    }
    .ok_or_else(expected)
}

fn relay(text: &str) -> Result<Relay, String> {
    match text {
        "none" => Ok(Relay::Nobody),
        "authenticated" => Ok(Relay::Authenticated),
        "open" => Ok(Relay::Everybody),
        _ => Err("expected none, authenticated or open".to_owned()),
    }
}

/// A domain name, as it stands in replies and file names: in A-labels.
fn domain(text: &str) -> Result<String, String> {
    let name = match Domain::parse(text) {
        Ok((Domain::Name(name), "")) => ascii_domain(&name),
        _ => None,
    };
    name.ok_or_else(|| "expected a domain name such as mail.example".to_owned())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a number".to_owned())
}

fn positive<T: FromStr + Default + PartialEq>(text: &str) -> Result<T, String> {
    let wrong = || "expected a number of 1 or more".to_owned();
    text.parse().ok().filter(|number| *number != T::default()).ok_or_else(wrong)
}

/// Each recipient is compared with all others, hence the bound.
fn recipients(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "expected a number from 1 to 10000".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    duration
        .filter(|duration| !duration.is_zero() && *duration <= CENTURY)
        .ok_or_else(|| "expected a number of seconds above 0, such as 300 or 0.5".to_owned())
}

/// argh explains over several lines; a usage error of ours is one.
fn one_line(output: &str) -> String {
    output.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Display for UsageError {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{} (ehlo --help lists all flags)", self.0)
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Config {
        match from_args(args) {
            Ok(Request::Serve(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_everything_is_at_its_default() {
        assert_eq!(format!("{:?}", config(&[])), format!("{:?}", Config::default()));
    }

    #[test]
    fn flags_that_repeat_add_up() {
        let args = [
            "--smtp",
            "127.0.0.1:0",
            "--smtp",
            "[::1]:25",
            "--dns",
            "127.0.0.1:53",
            "--dns",
            "[::1]:53",
            "--domain",
            "B\u{fc}cher.example",
        ];
        let config = config(&args);
        assert_eq!((config.smtp.len(), config.dns.len()), (2, 2));
        assert_eq!(config.domains, ["xn--bcher-kva.example"]);
    }

    #[test]
    fn seconds_may_be_fractions() {
        assert_eq!(config(&["--timeout", "0.25"]).timeout, Duration::from_millis(250));
    }

    #[test]
    fn a_bad_flag_is_one_line_that_says_what_was_expected() {
        for (args, expected) in [
            (&["--smtp", "2525"][..], "ADDR:PORT"),
            (&["--hostname", "a b"], "domain name"),
            (&["--domain", "a/../b"], "domain name"),
            (&["--domain", "[127.0.0.1]"], "domain name"),
            (&["--max-size", "0"], "1 or more"),
            (&["--max-recipients", "10001"], "from 1 to 10000"),
            (&["--max-size", "10MB"], "1 or more"),
            (&["--max-per-client", "-1"], "a number"),
            (&["--timeout", "0"], "above 0"),
            (&["--timeout", "NaN"], "above 0"),
            (&["--timeout", "1e30"], "above 0"),
            (&["--nonsense"], "--nonsense"),
            (&["nonsense"], "nonsense"),
        ] {
            let error = from_args(args).unwrap_err().to_string();
            assert!(error.contains(expected), "{args:?}: {error}");
            assert!(!error.contains('\n'), "{args:?}: {error}");
        }
    }

    #[test]
    fn help_and_version_are_texts_to_print() {
        assert!(
            matches!(from_args(&["--help"]), Ok(Request::Print(text)) if text.contains("--spool"))
        );
        assert!(
            matches!(from_args(&["--version"]), Ok(Request::Print(text)) if text.starts_with("ehlo 0"))
        );
    }
}
