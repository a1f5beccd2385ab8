//! The exchanges of AUTH: how a client proves who it is (RFC 4954, RFC 4422).
//!
//! In: the mechanism a client chose, then its lines one by one. Out: one
//! [`Progress`] for each: the next challenge, or how it ended. An [`Exchange`]
//! is what has to be remembered between two lines; giving it the next line
//! uses it up, so no step can be taken twice.
//!
//! Whether a secret is right is decided in `credentials.rs`. Here nothing
//! depends on whether a name exists: an unknown name is led through all the
//! same steps, and fails at the last.
//!
//! Not done here: whether AUTH is allowed now, the pause after a failure and
//! the length of lines (the session); channel binding and SASLprep, which few
//! mail clients know.
//!
//! Book: docs/11-auth.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::smtp::credentials::Users;

/// SCRAM repeats the client's nonce, and the reply line that does so stays
/// within 512 octets. Clients send 16 to 50 octets.
const CLIENT_NONCE_LIMIT: usize = 200;

/// A way to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password in one message, readable by anyone (RFC 4616).
    Plain,
    /// The same in two messages. Older than any standard, but some clients know
    /// nothing else (draft-murchison-sasl-login).
    Login,
    /// A hash of a challenge and the password (RFC 2195).
    CramMd5,
    /// Both sides prove that they know the password, and neither sends it
    /// (RFC 5802, RFC 7677).
    ScramSha256,
}

/// An exchange that waits for the client's next line.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchange {
    /// PLAIN: name and password come next.
    Plain,
    /// LOGIN: the name comes next.
    LoginName,
    /// LOGIN: the password of this name comes next.
    LoginPassword {
        /// Whose password it is.
        name: String,
    },
    /// CRAM-MD5: name and hash come next.
    CramMd5 {
        /// What has to be hashed.
        challenge: String,
    },
    /// SCRAM: name and nonce of the client come next.
    ScramFirst {
        /// Our half of the nonce.
        nonce: String,
    },
    /// SCRAM: the proof of the client comes next.
    ScramProof(ScramFirst),
    /// SCRAM: an empty line comes next, by which the client says that it
    /// believes our proof too.
    ScramEnd {
        /// Who it is.
        name: String,
    },
}

/// What the first messages of both sides said, in SCRAM.
#[derive(Debug, PartialEq, Eq)]
pub struct ScramFirst {
    name: String,
    /// Both halves of the nonce.
    nonce: String,
    /// The start of the client's message: channel binding and other identity.
    gs2_header: String,
    /// Both messages, as the proof signs them.
    said: String,
}

/// What one line of the client led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// 334 with this text, base64 already. It may be empty: the reply is then
    /// `334 ` with its blank (RFC 4954 section 4).
    Challenge(Exchange, String),
    /// 235: the client is this user, in lower case.
    Done(String),
    /// 535 5.7.8: wrong, unknown, or somebody else than it proved to be.
    Refused,
    /// 501 5.5.2: not base64, not UTF-8, or not in the shape of the mechanism.
    Malformed,
    /// 501 5.7.0: an initial response, where the server has to begin.
    Premature,
    /// 501 5.7.0: the client sent `*`.
    Cancelled,
}

impl Mechanism {
    /// All of them; those that do not send the password come first.
    pub const ALL: [Mechanism; 4] =
        [Mechanism::ScramSha256, Mechanism::CramMd5, Mechanism::Plain, Mechanism::Login];

    /// Reads the name of a mechanism, in any case.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// The name as EHLO announces it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    /// Whether every one of the users can log in with it. Clients choose
    /// CRAM-MD5 when they see it, and try nothing else when it fails.
    pub fn works_for(self, users: &Users) -> bool {
        self != Mechanism::CramMd5 || users.all_plain()
    }
}

/// The server's part of an exchange, from random octets: printable ASCII
/// without a comma, as RFC 5802 section 5.1 wants it, and without anything that
/// could not stand in an address, as RFC 2195 section 2 wants it.
pub fn nonce(random: [u8; 18]) -> String {
    BASE64.encode(random)
}

/// Begins an exchange. `initial` is what stood after the mechanism in `AUTH`,
/// where `=` is a response of no octets (RFC 4954 section 4). The nonce must
/// never have been used before.
pub fn begin(
    mechanism: Mechanism,
    initial: Option<&str>,
    nonce: &str,
    hostname: &str,
    users: &Users,
) -> Progress {
    let nonce = nonce.to_owned();
    let (exchange, challenge) = match mechanism {
        Mechanism::Plain => (Exchange::Plain, String::new()),
        Mechanism::Login => (Exchange::LoginName, "Username:".to_owned()),
        Mechanism::ScramSha256 => (Exchange::ScramFirst { nonce }, String::new()),
        Mechanism::CramMd5 if initial.is_some() => return Progress::Premature,
        Mechanism::CramMd5 => {
            let challenge = format!("<{nonce}@{hostname}>");
            (Exchange::CramMd5 { challenge: challenge.clone() }, challenge)
        }
    };
    match initial {
        None => ask(exchange, &challenge),
        Some("=") => exchange.response("", users),
        // No `*` here: it would have to be the only text of its line.
        Some(initial) => match decode(initial) {
            Some(message) => exchange.response(&message, users),
            None => Progress::Malformed,
        },
    }
}

impl Exchange {
    /// Takes the client's next line, without its CR LF.
    pub fn answer(self, line: &[u8], users: &Users) -> Progress {
        if line == b"*" {
            return Progress::Cancelled;
        }
        match decode(line) {
            Some(message) => self.response(&message, users),
            None => Progress::Malformed,
        }
    }

    /// The step itself, base64 undone.
    fn response(self, message: &str, users: &Users) -> Progress {
        match self {
            Exchange::Plain => plain(message, users),
            Exchange::LoginName => {
                ask(Exchange::LoginPassword { name: message.to_owned() }, "Password:")
            }
            Exchange::LoginPassword { name } => decide(&name, users.check(&name, message)),
            Exchange::CramMd5 { challenge } => cram_md5(message, &challenge, users),
            Exchange::ScramFirst { nonce } => scram_first(message, &nonce, users),
            Exchange::ScramProof(first) => scram_proof(message, first, users),
            Exchange::ScramEnd { name } if message.is_empty() => decide(&name, true),
            Exchange::ScramEnd { .. } => Progress::Malformed,
        }
    }
}

fn ask(exchange: Exchange, challenge: &str) -> Progress {
    Progress::Challenge(exchange, BASE64.encode(challenge))
}

fn decide(name: &str, is_right: bool) -> Progress {
    if is_right { Progress::Done(name.to_ascii_lowercase()) } else { Progress::Refused }
}

/// Nothing but base64 with its padding, as RFC 4954 section 4 demands; in it
/// nothing but UTF-8, as the grammars of PLAIN and SCRAM demand; and in that no
/// controls, which SASLprep forbids (RFC 4013 section 2.3), except the NUL that
/// PLAIN has between its parts. So a command is no answer: `QUIT` is base64 too,
/// of `AB` and a control.
fn decode(text: impl AsRef<[u8]>) -> Option<String> {
    let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let has_controls = text.chars().any(|c| c.is_control() && c != '\0');
    (!has_controls).then_some(text)
}

/// Nobody may act as somebody else: the identity that a client wants to have is
/// the one it proves, or it says none.
fn is_itself(wanted: &str, name: &str) -> bool {
    wanted.is_empty() || wanted.eq_ignore_ascii_case(name)
}

/// `[wanted identity] NUL name NUL password` (RFC 4616 section 2).
fn plain(message: &str, users: &Users) -> Progress {
    let parts: Vec<&str> = message.split('\0').collect();
    let [wanted, name, password] = parts.as_slice() else {
        return Progress::Malformed;
    };
    if name.is_empty() || password.is_empty() {
        return Progress::Malformed;
    }
    decide(name, users.check(name, password) && is_itself(wanted, name))
}

/// `name digest` (RFC 2195 section 2). A name may hold blanks, a digest cannot.
fn cram_md5(message: &str, challenge: &str, users: &Users) -> Progress {
    match message.rsplit_once(' ') {
        Some((name, digest)) => decide(name, users.check_cram_md5(name, challenge, digest)),
        None => Progress::Malformed,
    }
}

/// The client's first message: `n,,n=name,r=nonce` (RFC 5802 section 5).
fn scram_first(message: &str, server_nonce: &str, users: &Users) -> Progress {
    let Some(first) = ClientFirst::parse(message) else {
        return Progress::Malformed;
    };
    // We offer no mechanism with channel binding, so nobody can ask for it.
    if first.binds_channel || !is_itself(&first.wanted, &first.name) {
        return Progress::Refused;
    }
    let nonce = format!("{}{server_nonce}", first.nonce);
    let (salt, iterations) = users.scram_parameters(&first.name);
    let server_first = format!("r={nonce},s={},i={iterations}", BASE64.encode(salt));
    let exchange = Exchange::ScramProof(ScramFirst {
        name: first.name,
        nonce,
        gs2_header: first.gs2_header.to_owned(),
        said: format!("{},{server_first}", first.bare),
    });
    ask(exchange, &server_first)
}

/// The client's last message: `c=biws,r=nonce,p=proof` (RFC 5802 section 5).
fn scram_proof(message: &str, first: ScramFirst, users: &Users) -> Progress {
    let Some(last) = ClientFinal::parse(message) else {
        return Progress::Malformed;
    };
    // The nonce ties the proof to this exchange. The header comes a second time
    // because only here it is signed: somebody in between could have changed it.
    if last.nonce != first.nonce || last.gs2_header != first.gs2_header {
        return Progress::Refused;
    }
    let said = format!("{},{}", first.said, last.without_proof);
    match users.check_scram(&first.name, &said, &last.proof) {
        // SMTP has no place for it in the 235, so it is one more challenge
        // (RFC 4954 section 4).
        Some(signature) => {
            let server_final = format!("v={}", BASE64.encode(signature));
            ask(Exchange::ScramEnd { name: first.name }, &server_final)
        }
        None => Progress::Refused,
    }
}

/// `n,[a=wanted],n=name,r=nonce[,extensions]` (RFC 5802 section 7).
struct ClientFirst<'a> {
    /// `n,[a=wanted],`
    gs2_header: &'a str,
    /// The rest, as the proof signs it.
    bare: &'a str,
    binds_channel: bool,
    wanted: String,
    name: String,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a str) -> Option<ClientFirst<'a>> {
        let (flag, rest) = message.split_once(',')?;
        let (wanted, bare) = rest.split_once(',')?;
        let binds_channel = match flag {
            // `y`: the client could bind the channel and sees that we cannot.
            "n" | "y" => false,
            _ => flag.strip_prefix("p=").map(|_| true)?,
        };
        let wanted = match wanted {
            "" => String::new(),
            _ => unescaped(wanted.strip_prefix("a=")?)?,
        };
        let mut attributes = bare.split(',');
        let name = unescaped(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let is_nonce = !nonce.is_empty()
            && nonce.len() <= CLIENT_NONCE_LIMIT
            && nonce.bytes().all(|octet| octet.is_ascii_graphic());
        let gs2_header = message.strip_suffix(bare)?;
        let is_right = is_nonce && attributes.all(is_extension);
        is_right.then_some(ClientFirst { gs2_header, bare, binds_channel, wanted, name, nonce })
    }
}

/// `c=base64 of the header,r=nonce[,extensions],p=proof` (RFC 5802 section 7).
struct ClientFinal<'a> {
    /// All before `,p=`.
    without_proof: &'a str,
    gs2_header: String,
    nonce: &'a str,
    proof: [u8; 32],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a str) -> Option<ClientFinal<'a>> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let gs2_header = decode(attributes.next()?.strip_prefix("c=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let proof = BASE64.decode(proof).ok()?.try_into().ok()?;
        let is_right = attributes.all(is_extension);
        is_right.then_some(ClientFinal { without_proof, gs2_header, nonce, proof })
    }
}

/// `letter=value`, to be passed over; but an `m` says that whoever does not
/// understand it must give up (RFC 5802 section 5.1), and we understand none.
fn is_extension(attribute: &str) -> bool {
    match attribute.split_once('=') {
        Some((letter, value)) => {
            let is_letter = letter.len() == 1 && letter.bytes().all(|c| c.is_ascii_alphabetic());
            is_letter && letter != "m" && !value.is_empty()
        }
        None => false,
    }
}

/// A name in SCRAM: `,` comes as `=2C` and `=` as `=3D`, and nothing else is
/// escaped (RFC 5802 section 5.1).
fn unescaped(saslname: &str) -> Option<String> {
    let mut parts = saslname.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = part.split_at_checked(2)?;
        name.push(match escaped {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    (!name.is_empty() && !name.contains('\0')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::credentials::Secret;
    use ring::{digest, hmac, pbkdf2};
    use std::num::NonZeroU32;
    use std::sync::LazyLock;

    const HOST: &str = "mail.host.example";
    /// The server's half of the nonce in RFC 7677 section 3.
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

    /// Made once: each of them costs a PBKDF2.
    static USERS: LazyLock<Users> = LazyLock::new(|| {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let entries = vec![
            ("tim".to_owned(), Secret::Plain("tanstaaftanstaaf".to_owned())),
            ("kurt".to_owned(), Secret::Plain("xipj3plmq".to_owned())),
            ("user".to_owned(), Secret::scram("pencil", &salt)),
            ("a,b=c".to_owned(), Secret::Plain("tulip".to_owned())),
        ];
        Users::new(entries, [3; 32])
    });

    fn start(mechanism: Mechanism, initial: Option<&str>) -> Progress {
        begin(mechanism, initial, NONCE, HOST, &USERS)
    }

    /// The exchange, and its challenge with base64 undone.
    fn asked(progress: Progress) -> (Exchange, String) {
        match progress {
            Progress::Challenge(exchange, challenge) => (exchange, decode(challenge).unwrap()),
            other => panic!("no challenge but {other:?}"),
        }
    }

    /// One more step, where the client sends this in base64.
    fn said(progress: Progress, message: &str) -> Progress {
        asked(progress).0.answer(BASE64.encode(message).as_bytes(), &USERS)
    }

    fn done(name: &str) -> Progress {
        Progress::Done(name.to_owned())
    }

    /// The client's half of SCRAM, written apart from the server's half.
    fn proof(password: &str, bare: &str, server_first: &str, without_proof: &str) -> String {
        let sign = |key: &[u8], text: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
        };
        let attribute = |name: &str| server_first.split(',').find_map(|a| a.strip_prefix(name));
        let salt = BASE64.decode(attribute("s=").unwrap()).unwrap();
        let iterations: NonZeroU32 = attribute("i=").unwrap().parse().unwrap();
        let mut salted = [0; 32];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let all = format!("{bare},{server_first},{without_proof}");
        let signature = sign(stored_key.as_ref(), all.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        BASE64.encode(proof)
    }

    /// SCRAM from the first message to the answer to the proof.
    fn scram(header: &str, name: &str, password: &str) -> Progress {
        let bare = format!("n={name},r={CLIENT_NONCE}");
        let first = BASE64.encode(format!("{header}{bare}"));
        let progress = start(Mechanism::ScramSha256, Some(&first));
        let Progress::Challenge(exchange, challenge) = progress else {
            return progress;
        };
        let without_proof = format!("c={},r={CLIENT_NONCE}{NONCE}", BASE64.encode(header));
        let proof = proof(password, &bare, &decode(challenge).unwrap(), &without_proof);
        exchange.answer(BASE64.encode(format!("{without_proof},p={proof}")).as_bytes(), &USERS)
    }

    #[test]
    fn a_mechanism_is_read_by_its_name_in_any_case() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::parse(&mechanism.name().to_lowercase()), Some(mechanism));
        }
        for name in ["", "DIGEST-MD5", "SCRAM-SHA-256-PLUS", "PLAIN "] {
            assert_eq!(Mechanism::parse(name), None, "{name}");
        }
    }

    #[test]
    fn cram_md5_is_not_for_users_who_keep_no_password() {
        let works = |users: &Users| Mechanism::ALL.map(|mechanism| mechanism.works_for(users));
        assert_eq!(works(&USERS), [true, false, true, true]);
        let tim = ("tim".to_owned(), Secret::Plain("x".to_owned()));
        assert_eq!(works(&Users::new(vec![tim], [3; 32])), [true; 4]);
    }

    #[test]
    fn a_nonce_fits_scram_and_an_address() {
        let nonce = nonce([0xfb; 18]);
        assert_eq!(nonce.len(), 24);
        assert!(nonce.bytes().all(|octet| octet.is_ascii_graphic() && !b",=<>@".contains(&octet)));
    }

    /// The examples of RFC 4616 section 4, with and without initial response.
    #[test]
    fn plain_takes_name_and_password_in_one_message() {
        let initial = BASE64.encode("\0tim\0tanstaaftanstaaf");
        assert_eq!(start(Mechanism::Plain, Some(&initial)), done("tim"));

        let (exchange, challenge) = asked(start(Mechanism::Plain, None));
        assert_eq!(challenge, "");
        assert_eq!(exchange.answer(initial.as_bytes(), &USERS), done("tim"));

        // The RFC's Kurt may act as Ursel. Here nobody may act as anybody else.
        let as_ursel = BASE64.encode("Ursel\0Kurt\0xipj3plmq");
        assert_eq!(start(Mechanism::Plain, Some(&as_ursel)), Progress::Refused);
        let as_himself = BASE64.encode("kurt\0Kurt\0xipj3plmq");
        assert_eq!(start(Mechanism::Plain, Some(&as_himself)), done("kurt"));
    }

    #[test]
    fn plain_has_two_nuls_a_name_and_a_password() {
        for message in
            ["", "\0", "tim", "\0tim", "tim\0tanstaaftanstaaf", "\0\0x", "\0tim\0", "\0tim\0x\0"]
        {
            let progress = said(start(Mechanism::Plain, None), message);
            assert_eq!(progress, Progress::Malformed, "{message:?}");
        }
        // An initial response of no octets is one, and it lacks everything.
        assert_eq!(start(Mechanism::Plain, Some("=")), Progress::Malformed);
    }

    #[test]
    fn login_asks_for_name_and_password_one_by_one() {
        let (exchange, challenge) = asked(start(Mechanism::Login, None));
        assert_eq!(challenge, "Username:");
        let (exchange, challenge) = asked(exchange.answer(b"VGlt", &USERS));
        assert_eq!(challenge, "Password:");
        let password = BASE64.encode("tanstaaftanstaaf");
        assert_eq!(exchange.answer(password.as_bytes(), &USERS), done("tim"));

        let (exchange, challenge) = asked(start(Mechanism::Login, Some("VGlt")));
        assert_eq!(challenge, "Password:");
        assert_eq!(exchange.answer(b"", &USERS), Progress::Refused);
        let nobody = start(Mechanism::Login, Some("="));
        assert_eq!(said(nobody, "tanstaaftanstaaf"), Progress::Refused);
    }

    /// The example of RFC 2195 section 2.
    #[test]
    fn cram_md5_takes_a_hash_of_the_challenge() {
        let (nonce, host) = ("1896.697170952", "postoffice.reston.mci.net");
        let asked = || begin(Mechanism::CramMd5, None, nonce, host, &USERS);
        let Progress::Challenge(exchange, challenge) = asked() else { panic!() };
        let expected = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+";
        assert_eq!(challenge, expected);
        let answer = b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw";
        assert_eq!(exchange.answer(answer, &USERS), done("tim"));

        let digest = "b913a602c7eda7a495b4e6e7334d3890";
        let other_name = format!("kurt {digest}");
        let not_lower_case = format!("tim {}", digest.to_uppercase());
        for message in ["tim x", "tim ", &other_name, &not_lower_case] {
            assert_eq!(said(asked(), message), Progress::Refused, "{message}");
        }
        for message in ["", "tim", digest] {
            assert_eq!(said(asked(), message), Progress::Malformed, "{message}");
        }
    }

    /// RFC 4954 section 4: where the server begins, the client cannot.
    #[test]
    fn cram_md5_takes_no_initial_response() {
        for initial in ["=", "dGltIHg=", "*"] {
            assert_eq!(start(Mechanism::CramMd5, Some(initial)), Progress::Premature);
        }
    }

    /// The example of RFC 7677 section 3, octet by octet.
    #[test]
    fn scram_proves_each_side_to_the_other() {
        let (exchange, challenge) = asked(start(Mechanism::ScramSha256, None));
        assert_eq!(challenge, "");
        let first = BASE64.encode("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (exchange, challenge) = asked(exchange.answer(first.as_bytes(), &USERS));
        let nonces = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(challenge, format!("{nonces},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let last = format!("c=biws,{nonces},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let (exchange, challenge) = asked(exchange.answer(BASE64.encode(last).as_bytes(), &USERS));
        assert_eq!(challenge, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(exchange.answer(b"", &USERS), done("user"));

        // The same with the first message as initial response.
        let (_, challenge) = asked(start(Mechanism::ScramSha256, Some(&first)));
        assert!(challenge.starts_with(nonces));
    }

    #[test]
    fn scram_takes_all_names_and_both_flags_of_a_client_without_channel_binding() {
        for (header, name, password) in [
            ("n,,", "user", "pencil"),
            ("y,,", "User", "pencil"),
            ("n,a=USER,", "user", "pencil"),
            ("n,,", "tim", "tanstaaftanstaaf"),
            ("n,,", "a=2Cb=3Dc", "tulip"),
            ("n,a=a=2Cb=3Dc,", "a=2Cb=3Dc", "tulip"),
        ] {
            let (exchange, challenge) = asked(scram(header, name, password));
            assert!(challenge.starts_with("v="), "{header}{name}: {challenge}");
            assert!(matches!(exchange.answer(b"", &USERS), Progress::Done(_)));
        }
    }

    #[test]
    fn scram_refuses_channel_binding_and_other_identities() {
        for header in ["p=tls-unique,,", "n,a=tim,"] {
            assert_eq!(scram(header, "user", "pencil"), Progress::Refused, "{header}");
        }
    }

    /// The last message repeats what the first one said. Somebody in between who
    /// makes a client believe that we know no channel binding is found out here.
    #[test]
    fn scram_refuses_another_nonce_or_header_than_before() {
        let first = BASE64.encode(format!("y,,n=user,r={CLIENT_NONCE}"));
        for (header, nonce) in [
            ("n,,", format!("{CLIENT_NONCE}{NONCE}")),
            ("y,,", CLIENT_NONCE.to_owned()),
            ("y,,", NONCE.to_owned()),
        ] {
            let (exchange, server_first) = asked(start(Mechanism::ScramSha256, Some(&first)));
            let without_proof = format!("c={},r={nonce}", BASE64.encode(header));
            let bare = format!("n=user,r={CLIENT_NONCE}");
            let proof = proof("pencil", &bare, &server_first, &without_proof);
            let message = BASE64.encode(format!("{without_proof},p={proof}"));
            assert_eq!(exchange.answer(message.as_bytes(), &USERS), Progress::Refused);
        }
    }

    #[test]
    fn scram_messages_of_another_shape_are_malformed() {
        let long = format!("n,,n=user,r={}", "x".repeat(CLIENT_NONCE_LIMIT + 1));
        for first in [
            "",
            "n",
            "n,,",
            "n,,n=user",
            "n,,r=x,n=user",
            "n,,n=,r=x",
            "n,,n=user,r=",
            "n,,n=user,r=\u{fc}",
            "n,,n=user,r=a b",
            "n,,n=us=er,r=x",
            "n,,n=us=2cer,r=x",
            "n,,n=us=2,r=x",
            "n,,n=us=\u{20ac},r=x",
            "n,,n=us\0er,r=x",
            "n,,m=1,n=user,r=x",
            "n,,n=user,r=x,m=1",
            "n,,n=user,r=x,",
            "n,,n=user,r=x,extension",
            "x,,n=user,r=x",
            "n,user,n=user,r=x",
            "n,a=,n=user,r=x",
            &long,
        ] {
            let progress = said(start(Mechanism::ScramSha256, None), first);
            assert_eq!(progress, Progress::Malformed, "{first}");
        }
        let key = BASE64.encode([0; 32]);
        for last in [
            "",
            "c=biws",
            "c=biws,r=x",
            &format!("c=biws,p={key}"),
            "c=biws,r=x,p=",
            "c=biws,r=x,p=c2hvcnQ=",
            &format!("c=biw,r=x,p={key}"),
            &format!("r=x,c=biws,p={key}"),
            &format!("c=biws,r=x,m=1,p={key}"),
            &format!("c=biws,r=x,p={key},x=1"),
        ] {
            let asked = said(start(Mechanism::ScramSha256, None), "n,,n=user,r=x");
            assert_eq!(said(asked, last), Progress::Malformed, "{last}");
        }
        let end = scram("n,,", "user", "pencil");
        assert_eq!(said(end, "thanks"), Progress::Malformed);
    }

    /// The steps of every mechanism, and what a client could send at each.
    fn waiting() -> Vec<Progress> {
        vec![
            start(Mechanism::Plain, None),
            start(Mechanism::Login, None),
            start(Mechanism::Login, Some("VGlt")),
            start(Mechanism::CramMd5, None),
            start(Mechanism::ScramSha256, None),
            said(start(Mechanism::ScramSha256, None), "n,,n=user,r=x"),
            scram("n,,", "user", "pencil"),
        ]
    }

    #[test]
    fn a_star_cancels_at_every_step() {
        for progress in waiting() {
            assert_eq!(asked(progress).0.answer(b"*", &USERS), Progress::Cancelled);
        }
    }

    /// RFC 4954 section 4: no octet outside the alphabet, padding at the end
    /// only; and `=` means something in the AUTH command alone.
    #[test]
    fn what_is_no_base64_is_malformed_at_every_step() {
        let lines: [&[u8]; 15] = [
            b"=",
            b"*x",
            b"=AAA",
            b"AAA=BBB",
            b"AAA",
            b"AB==",
            b"VGlt ",
            b"VG lt",
            b"QUIT",
            b"RSET",
            b"NOOP",
            b"DATA",
            b"EHLO",
            b"AA==AA==",
            b"\xff\x00\r\n",
        ];
        for line in lines {
            for progress in waiting() {
                let before = format!("{progress:?}");
                let progress = asked(progress).0.answer(line, &USERS);
                assert_eq!(progress, Progress::Malformed, "{before} {line:?}");
            }
        }
        for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256] {
            for initial in ["*", "==", "AAA", "/w=="] {
                assert_eq!(start(mechanism, Some(initial)), Progress::Malformed);
            }
        }
    }

    /// Against finding out which names exist.
    #[test]
    fn an_unknown_user_and_a_wrong_password_look_the_same_at_every_step() {
        let plain = |name: &str| said(start(Mechanism::Plain, None), &format!("\0{name}\0wrong"));
        assert_eq!(plain("tim"), Progress::Refused);
        assert_eq!(plain("tom"), plain("tim"));

        let login = |name: &str| said(start(Mechanism::Login, None), name);
        let (_, for_tim) = asked(login("tim"));
        let (_, for_tom) = asked(login("tom"));
        assert_eq!(for_tom, for_tim);
        assert_eq!(said(login("tim"), "wrong"), Progress::Refused);
        assert_eq!(said(login("tom"), "wrong"), Progress::Refused);

        let digest = "00000000000000000000000000000000";
        let cram = |name: &str| said(start(Mechanism::CramMd5, None), &format!("{name} {digest}"));
        assert_eq!(cram("tim"), Progress::Refused);
        assert_eq!(cram("tom"), cram("tim"));

        let first = |name: &str| {
            asked(said(start(Mechanism::ScramSha256, None), &format!("n,,n={name},r=x"))).1
        };
        for name in ["tim", "user", "tom", "nobody"] {
            // Salts differ from name to name; all else must not.
            let challenge = first(name);
            let (before, salt) = challenge.split_once(",s=").unwrap();
            let (salt, after) = salt.split_once(",i=").unwrap();
            assert_eq!((before, after), (format!("r=x{NONCE}").as_str(), "4096"));
            assert_eq!(BASE64.decode(salt).unwrap().len(), 16);
            assert_eq!(first(name), challenge, "a salt that changes gives {name} away");
            assert_eq!(scram("n,,", name, "wrong"), Progress::Refused);
        }
    }

    #[test]
    fn the_longest_challenges_fit_a_reply_line() {
        let first = format!("n,,n=user,r={}", "x".repeat(CLIENT_NONCE_LIMIT));
        let entry = ("user".to_owned(), Secret::scram("pencil", &[1; 32]));
        let users = Users::new(vec![entry], [3; 32]);
        let nonce = nonce([1; 18]);
        let host = "h".repeat(255);
        let initial = BASE64.encode(first);
        for (mechanism, initial) in
            [(Mechanism::ScramSha256, Some(initial.as_str())), (Mechanism::CramMd5, None)]
        {
            let progress = begin(mechanism, initial, &nonce, &host, &users);
            let Progress::Challenge(_, challenge) = progress else { panic!() };
            assert!("334 \r\n".len() + challenge.len() <= 512, "{}", challenge.len());
        }
    }

    /// Garbage, garbage in base64, and pieces of real messages in any order.
    #[test]
    fn whatever_a_client_sends_nothing_panics_and_nobody_gets_in() {
        fn line(kind: u8, octets: &[u8]) -> Vec<u8> {
            const PIECES: [&str; 12] = [
                "n,,", "y,a=", "p=x,", "n=tim", ",r=", "c=biws", ",p=", "\0", "=2C", "=", "tim ",
                "\u{20ac}",
            ];
            match kind % 3 {
                0 => octets.to_vec(),
                1 => BASE64.encode(octets).into_bytes(),
                _ => {
                    let piece = |octet: &u8| PIECES[usize::from(*octet) % PIECES.len()];
                    BASE64.encode(octets.iter().map(piece).collect::<String>()).into_bytes()
                }
            }
        }
        fn holds(initial: Option<(u8, Vec<u8>)>, lines: Vec<(u8, Vec<u8>)>) -> bool {
            let initial = initial.map(|(kind, octets)| line(kind, &octets));
            let initial = initial.as_deref().and_then(|octets| std::str::from_utf8(octets).ok());
            Mechanism::ALL.into_iter().all(|mechanism| {
                let mut progress = begin(mechanism, initial, NONCE, HOST, &USERS);
                for (kind, octets) in &lines {
                    let Progress::Challenge(exchange, _) = progress else { break };
                    progress = exchange.answer(&line(*kind, octets), &USERS);
                }
                !matches!(progress, Progress::Done(_))
            })
        }
        quickcheck::quickcheck(holds as fn(Option<(u8, Vec<u8>)>, Vec<(u8, Vec<u8>)>) -> bool);
    }

    #[test]
    fn a_megabyte_is_an_answer_like_any_other() {
        let long = BASE64.encode(vec![b'x'; 1 << 20]);
        for (progress, expected) in waiting().into_iter().zip([
            Progress::Malformed,
            Progress::Malformed, // checked apart: LOGIN takes any name
            Progress::Refused,
            Progress::Malformed,
            Progress::Malformed,
            Progress::Malformed,
            Progress::Malformed,
        ]) {
            let (exchange, _) = asked(progress);
            if exchange == Exchange::LoginName {
                let next = exchange.answer(long.as_bytes(), &USERS);
                assert_eq!(said(next, "x"), Progress::Refused);
            } else {
                assert_eq!(exchange.answer(long.as_bytes(), &USERS), expected);
            }
        }
    }
}
