//! Everything that can be chosen about a server, and the flags that choose it.
//!
//! In: the arguments. Out: a [`Config`] for the server, or a text to print, or
//! one line that says what is wrong and what was expected. Nothing is opened
//! here; whether a port or a folder can be used shows when the server binds.
//!
//! An option is written once: what stands over a field of [`Config`] is what `--help`
//! says, and a row of the README's table begins with it.
//!
//! Book: docs/08-threads.md.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use argh::{EarlyExit, FromArgs};

use crate::smtp::address::{Domain, ascii_domain};
use crate::smtp::site::{self, Relay};

/// Where the server listens if nothing else is said.
const DEFAULT_PORT: u16 = 2525;
/// Nobody means to wait for longer, and sums of longer times do not end well.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A small SMTP server that is made to be read. Without flags it takes mail for
/// anybody at localhost on port 2525, and keeps it in Maildirs in ./spool.
#[derive(FromArgs, Debug, Clone)]
pub struct Config {
    /// listen here; repeatable; port 0 takes any free port (default 127.0.0.1:2525)
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    pub smtp: Vec<SocketAddr>,

    /// listen here in the role of port 587, for users who log in; repeatable
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    pub submission: Vec<SocketAddr>,

    /// listen here in the role of port 465, the same with TLS from the first octet;
    /// repeatable
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    pub submissions: Vec<SocketAddr>,

    /// the name of this server (default localhost)
    #[argh(option, arg_name = "NAME", from_str_fn(domain), default = "\"localhost\".to_owned()")]
    pub hostname: String,

    /// take mail for this domain; repeatable (default: the hostname)
    #[argh(option, long = "domain", arg_name = "NAME", from_str_fn(domain))]
    pub domains: Vec<String>,

    /// keep all mail in this folder (default ./spool)
    #[argh(option, arg_name = "DIR", from_str_fn(path), default = "PathBuf::from(\"spool\")")]
    pub spool: PathBuf,

    /// who may log in and has a mailbox: a passwd-file as Dovecot reads it
    #[argh(option, arg_name = "FILE", from_str_fn(path))]
    pub users: Option<PathBuf>,

    /// other names for mailboxes: lines of name: target, target
    #[argh(option, arg_name = "FILE", from_str_fn(path))]
    pub aliases: Option<PathBuf>,

    /// certificate with its chain; without one there is no TLS
    #[argh(option, arg_name = "PEM", from_str_fn(path))]
    pub cert: Option<PathBuf>,

    /// the key of the certificate
    #[argh(option, arg_name = "PEM", from_str_fn(path))]
    pub key: Option<PathBuf>,

    /// take passwords in clear, for a classroom
    #[argh(switch)]
    pub allow_plain_auth: bool,

    /// let users log in with tokens, checked with these keys: a JWK set, or public keys in
    /// PEM form
    #[argh(option, arg_name = "FILE", from_str_fn(path))]
    pub oauth_keys: Option<PathBuf>,

    /// whose tokens these are, as the issuer writes it into them (iss)
    #[argh(option, arg_name = "URL", from_str_fn(url))]
    pub oauth_issuer: Option<String>,

    /// who this server is to the issuer (aud)
    #[argh(option, arg_name = "NAME", from_str_fn(word))]
    pub oauth_audience: Option<String>,

    /// whose mail for other servers is taken: none, authenticated or open (default
    /// authenticated)
    #[argh(option, arg_name = "RULE", from_str_fn(relay), default = "Relay::Authenticated")]
    pub relay: Relay,

    /// give all mail for other servers to this one; port 465 means TLS from the first octet
    #[argh(option, arg_name = "HOST:PORT", from_str_fn(host))]
    pub smarthost: Option<(String, u16)>,

    /// log in there with what stands in this file: one line, user:password
    #[argh(option, arg_name = "FILE", from_str_fn(path))]
    pub smarthost_login: Option<PathBuf>,

    /// log in there with a token: the first line of this file is the user, the second the
    /// token; read anew each time
    #[argh(option, arg_name = "FILE", from_str_fn(path))]
    pub smarthost_token: Option<PathBuf>,

    /// trust this authority, too, when the smarthost proves its name
    #[argh(option, arg_name = "PEM", from_str_fn(path))]
    pub smarthost_ca: Option<PathBuf>,

    /// ask this DNS server, or these in turn; repeatable (default: all of
    /// /etc/resolv.conf)
    #[argh(option, arg_name = "ADDR:PORT", from_str_fn(address))]
    pub dns: Vec<SocketAddr>,

    /// the port of next hops found by DNS, or named by an address literal (default 25)
    #[argh(option, arg_name = "N", from_str_fn(positive), default = "25")]
    pub relay_port: u16,

    /// send mail to servers on this machine, too, for experiments
    #[argh(switch)]
    pub loopback_hops: bool,

    /// whether a stranger's letter is asked who wrote it (SPF, DKIM, DMARC): none, note or
    /// enforce (default none)
    #[argh(option, arg_name = "RULE", from_str_fn(sender_checks), default = "SenderChecks::None")]
    pub sender_checks: SenderChecks,

    /// sign the letters of our users with this key
    #[argh(option, arg_name = "PEM", from_str_fn(path))]
    pub dkim_key: Option<PathBuf>,

    /// the name of that key in DNS
    #[argh(option, arg_name = "NAME", from_str_fn(selector))]
    pub dkim_selector: Option<String>,

    /// time until the second attempt, doubled for each further one up to 4 hours
    /// (default 300)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds), default = "minutes(5)")]
    pub retry: Duration,

    /// age at which a sender who asked for it hears of the delay (default 14400, 4 hours)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds), default = "minutes(4 * 60)")]
    pub warn: Duration,

    /// age at which a letter goes back to its sender (default 432000, 5 days)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds), default = "minutes(5 * 24 * 60)")]
    pub give_up: Duration,

    /// largest message (default 26214400)
    #[argh(option, arg_name = "BYTES", from_str_fn(positive), default = "site::DEFAULT_MAX_SIZE")]
    pub max_size: u64,

    /// most recipients of one message, up to 10000 (default 1000)
    #[argh(
        option,
        arg_name = "N",
        from_str_fn(recipients),
        default = "site::DEFAULT_MAX_RECIPIENTS"
    )]
    pub max_recipients: usize,

    /// most clients at a time (default 1000)
    #[argh(option, arg_name = "N", from_str_fn(positive), default = "1000")]
    pub max_connections: usize,

    /// most clients at a time from one address, 0 for no limit (default 100)
    #[argh(option, arg_name = "N", from_str_fn(number), default = "100")]
    pub max_per_client: usize,

    /// most recipients at other servers that one user may have in an hour, 0 for no limit
    /// (default 500)
    #[argh(option, arg_name = "N", from_str_fn(number), default = "500")]
    pub max_per_hour: usize,

    /// a balancer connects from this address, and says by the PROXY protocol for whom;
    /// repeatable
    #[argh(option, long = "proxy", arg_name = "ADDR", from_str_fn(ip))]
    pub proxies: Vec<IpAddr>,

    /// time for a command, a write, or 64 KiB of a message (default 300)
    #[argh(option, arg_name = "SECS", from_str_fn(seconds), default = "minutes(5)")]
    pub timeout: Duration,

    /// print every dialogue to standard error
    #[argh(switch)]
    pub trace: bool,

    /// print the version
    #[argh(switch)]
    pub version: bool,

    /// the only mailboxes, where there are no users; without any, every name has one. For
    /// tests, so --help does not show it.
    #[argh(option, hidden_help, long = "mailbox", arg_name = "NAME")]
    pub mailboxes: Vec<String>,

    /// how long another server may take for most replies; the other deadlines are in
    /// proportion. RFC 5321 section 4.5.3.2 has five minutes, and whoever waits for less
    /// sends letters twice. For tests, so --help does not show it.
    #[argh(option, hidden_help, arg_name = "SECS", from_str_fn(seconds), default = "minutes(5)")]
    pub relay_timeout: Duration,
}

/// What is done about letters of strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderChecks {
    /// Nothing: nobody is asked.
    None,
    /// The verdicts are written into the letter.
    Note,
    /// And it is refused, if that is what the owner of its author's domain wants.
    Enforce,
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
    let mut config = match Config::from_args(&["ehlo"], args) {
        Ok(config) => config,
        Err(EarlyExit { output, status: Ok(()) }) => return Ok(Request::Print(output)),
        Err(EarlyExit { output, status: Err(()) }) => return Err(UsageError(one_line(&output))),
    };
    if config.version {
        return Ok(Request::Print(format!("ehlo {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if config.listeners().next().is_none() {
        config.smtp.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
    }
    Ok(Request::Serve(Box::new(config)))
}

/// What a server without flags has.
impl Default for Config {
    fn default() -> Config {
        match from_args(&[]) {
            Ok(Request::Serve(config)) => *config,
            other => panic!("every flag has a default: {other:?}"),
        }
    }
}

impl Config {
    /// Whether all of it makes sense together. The error is a line for a person.
    pub fn check(&self) -> Result<(), String> {
        let has_cert = self.cert.is_some();
        let is_submission = !self.submission.is_empty() || !self.submissions.is_empty();
        if has_cert != self.key.is_some() {
            return Err("--cert and --key need each other".to_owned());
        }
        if !self.submissions.is_empty() && !has_cert {
            let why = "--submissions needs --cert and --key: it is TLS from the first octet";
            return Err(why.to_owned());
        }
        if is_submission && self.users.is_none() {
            return Err("submission needs --users: nobody could log in".to_owned());
        }
        if !self.submission.is_empty() && !has_cert && !self.allow_plain_auth {
            let why = "--submission needs --cert and --key, or --allow-plain-auth: \
                       nobody could log in";
            return Err(why.to_owned());
        }
        self.check_oauth()?;
        if self.dkim_key.is_some() != self.dkim_selector.is_some() {
            return Err("--dkim-key and --dkim-selector need each other".to_owned());
        }
        let smarthost = [&self.smarthost_login, &self.smarthost_token, &self.smarthost_ca];
        if self.smarthost.is_none() && smarthost.into_iter().any(Option::is_some) {
            let why = "--smarthost-login, --smarthost-token and --smarthost-ca need --smarthost";
            return Err(why.to_owned());
        }
        if self.smarthost_login.is_some() && self.smarthost_token.is_some() {
            let why = "--smarthost-login and --smarthost-token: one of them is enough";
            return Err(why.to_owned());
        }
        let is_local = |address: &SocketAddr| address.ip().is_loopback();
        if self.relay == Relay::Everybody && !self.listeners().all(is_local) {
            return Err("--relay open is for loopback addresses only".to_owned());
        }
        if self.relay == Relay::Everybody && !self.proxies.is_empty() {
            let why = "--relay open and --proxy do not go together: a balancer brings the world";
            return Err(why.to_owned());
        }
        Ok(())
    }

    /// What tokens need, all of it or nothing.
    fn check_oauth(&self) -> Result<(), String> {
        let flags =
            [self.oauth_keys.is_some(), self.oauth_issuer.is_some(), self.oauth_audience.is_some()];
        if flags == [false; 3] {
            return Ok(());
        }
        let why = if flags != [true; 3] {
            "--oauth-keys, --oauth-issuer and --oauth-audience need each other"
        } else if self.users.is_none() {
            "--oauth-keys needs --users: a token says which of them it is"
        } else if self.cert.is_none() {
            "--oauth-keys needs --cert and --key: tokens are taken under TLS only"
        } else {
            return Ok(());
        };
        Err(why.to_owned())
    }

    fn listeners(&self) -> impl Iterator<Item = &SocketAddr> {
        self.smtp.iter().chain(&self.submission).chain(&self.submissions)
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected ADDR:PORT such as 127.0.0.1:2525 or [::1]:2525";
    text.parse().map_err(|_| expected.to_owned())
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IP address such as 192.0.2.1 or 2001:db8::1".to_owned())
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

fn sender_checks(text: &str) -> Result<SenderChecks, String> {
    match text {
        "none" => Ok(SenderChecks::None),
        "note" => Ok(SenderChecks::Note),
        "enforce" => Ok(SenderChecks::Enforce),
        _ => Err("expected none, note or enforce".to_owned()),
    }
}

/// One label or more of a name in DNS.
fn selector(text: &str) -> Result<String, String> {
    ascii_domain(text).ok_or_else(|| "expected a name such as key1".to_owned())
}

/// A name that is empty would be the folder we are in, and fill it.
fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("expected a path such as ./spool".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// Compared with what a token says, octet by octet; so it is not parsed.
fn url(text: &str) -> Result<String, String> {
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && text.chars().all(|c| c.is_ascii_graphic())
    });
    if is_url {
        Ok(text.to_owned())
    } else {
        Err("expected a URL such as https://login.example".to_owned())
    }
}

fn word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("expected a name without blanks, such as mail.example".to_owned());
    }
    Ok(text.to_owned())
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

fn positive<T: FromStr<Err = ParseIntError> + Default + PartialEq>(
    text: &str,
) -> Result<T, String> {
    match text.parse() {
        Ok(number) if number != T::default() => Ok(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err("expected a smaller number".to_owned())
        }
        _ => Err("expected a number of 1 or more".to_owned()),
    }
}

/// Each recipient is compared with all others, hence the bound.
fn recipients(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "expected a number from 1 to 10000".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    duration.filter(|duration| !duration.is_zero() && *duration <= CENTURY).ok_or_else(|| {
        "expected seconds, above 0 and up to a century, such as 300 or 0.5".to_owned()
    })
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
            (&["--proxy", "127.0.0.1:2525"], "an IP address"),
            (&["--proxy", "localhost"], "an IP address"),
            (&["--hostname", "a b"], "domain name"),
            (&["--domain", "a/../b"], "domain name"),
            (&["--domain", "[127.0.0.1]"], "domain name"),
            (&["--max-size", "0"], "1 or more"),
            (&["--max-recipients", "10001"], "from 1 to 10000"),
            (&["--max-size", "10MB"], "1 or more"),
            (&["--max-size", "99999999999999999999"], "a smaller number"),
            (&["--relay-port", "70000"], "a smaller number"),
            (&["--retry", "1e10"], "up to a century"),
            (&["--max-per-client", "-1"], "a number"),
            (&["--timeout", "0"], "above 0"),
            (&["--timeout", "NaN"], "above 0"),
            (&["--timeout", "1e30"], "above 0"),
            (&["--spool", ""], "a path"),
            (&["--users="], "--users"),
            (&["--oauth-issuer", "login.example"], "https://"),
            (&["--oauth-issuer", "https://a b"], "https://"),
            (&["--oauth-audience", ""], "a name"),
            (&["--nonsense"], "--nonsense"),
            (&["nonsense"], "nonsense"),
        ] {
            let error = from_args(args).unwrap_err().to_string();
            assert!(error.contains(expected), "{args:?}: {error}");
            assert!(!error.contains('\n'), "{args:?}: {error}");
        }
    }

    #[test]
    fn flags_that_need_each_other_are_named_when_one_is_missing() {
        let oauth = "--oauth-keys k --oauth-issuer https://login.example --oauth-audience mail";
        for (flags, expected) in [
            ("--oauth-keys k", "need each other"),
            ("--oauth-issuer https://x.example --oauth-audience y", "need each other"),
            (oauth, "--oauth-keys needs --users"),
            (&format!("{oauth} --users u"), "--oauth-keys needs --cert"),
            (&format!("{oauth} --users u --allow-plain-auth"), "--oauth-keys needs --cert"),
            ("--smarthost-login a", "need --smarthost"),
            ("--smarthost x.example:25 --smarthost-login a --smarthost-token b", "one of them"),
        ] {
            let args: Vec<&str> = flags.split(' ').collect();
            let why = config(&args).check().unwrap_err();
            assert!(why.contains(expected), "{flags}: {why}");
        }
        let all = format!("{oauth} --users u --cert c --key k");
        assert_eq!(config(&all.split(' ').collect::<Vec<_>>()).check(), Ok(()));
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
