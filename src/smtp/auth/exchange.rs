//! The exchange of AUTH, both halves of it.
//!
//! In: the mechanism, then the lines of the other side one by one. Out: for the
//! server one [`Progress`] for each line of the client: the next challenge, or how it
//! ended; for the client one response for each challenge. What has to be remembered
//! between two lines is a [`ServerExchange`] or a [`ClientExchange`]; giving the
//! former the next line uses it up, so no step can be taken twice. Base64 is done and
//! undone here; the messages inside are those of the mechanisms.
//!
//! On the server's side nothing depends on whether a name exists: an unknown name is
//! led through all the same steps, and fails at the last.
//!
//! Left to others: the replies around it (`session/login.rs`; `relay/`, the player of
//! dialogues), and which mechanism a client takes.
//!
//! Book: docs/11-auth.md.

use std::fmt::{self, Debug, Formatter};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::smtp::auth::cram_md5;
use crate::smtp::auth::jwt::Refusal;
use crate::smtp::auth::mechanism::{
    BadChallenge, Failure, Mechanism, octets, text, without_controls,
};
use crate::smtp::auth::plain;
use crate::smtp::auth::scram::{AwaitsProof, ClientBegan};
use crate::smtp::auth::token::{Checked, Form};
use crate::smtp::auth::users::Users;

/// A server's exchange that waits for the client's next line.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerExchange {
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
    ScramProof(AwaitsProof),
    /// SCRAM: an empty line comes next, by which the client says that it
    /// believes our proof too.
    ScramEnd {
        /// Who it is.
        name: String,
    },
    /// OAUTHBEARER and XOAUTH2: a token comes next.
    Token(Form),
    /// The same: it was refused, and the client was told. Whatever it answers, it has not
    /// logged in.
    TokenRefused,
}

/// What one line of the client led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// 334 with this text, base64 already. It may be empty: the reply is then
    /// `334 ` with its blank (RFC 4954 section 4).
    Challenge(ServerExchange, String),
    /// The same, and it says that the client is not who it wants to be. That is certain
    /// now, and not only when the client has answered: it may leave without.
    Refused(ServerExchange, String, Refusal),
    /// 235: the client is this user, in the spelling of the users file.
    Done(String),
    /// The exchange is over, and nobody has logged in.
    Failed(Failure),
}

/// Begins an exchange. `initial` is what stood after the mechanism in `AUTH`,
/// where `=` is a response of no octets (RFC 4954 section 4). The nonce must
/// never have been used before; `now` counts seconds from 1970.
pub fn begin(
    mechanism: Mechanism,
    initial: Option<&str>,
    nonce: &str,
    hostname: &str,
    users: &Users,
    now: i64,
) -> Progress {
    let nonce = nonce.to_owned();
    let (exchange, challenge) = match mechanism {
        Mechanism::Plain => (ServerExchange::Plain, String::new()),
        Mechanism::Login => (ServerExchange::LoginName, plain::ASK_NAME.to_owned()),
        Mechanism::ScramSha256 => (ServerExchange::ScramFirst { nonce }, String::new()),
        Mechanism::OauthBearer => (ServerExchange::Token(Form::OauthBearer), String::new()),
        Mechanism::Xoauth2 => (ServerExchange::Token(Form::Xoauth2), String::new()),
        Mechanism::CramMd5 if initial.is_some() => return Progress::Failed(Failure::Premature),
        Mechanism::CramMd5 => {
            let challenge = cram_md5::challenge(&nonce, hostname);
            (ServerExchange::CramMd5 { challenge: challenge.clone() }, challenge)
        }
    };
    match initial {
        None => ask(exchange, &challenge),
        Some("=") => exchange.response(b"", users, now),
        // No `*` here: it would have to be the only text of its line.
        Some(initial) => exchange.base64(initial.as_bytes(), users, now),
    }
}

fn ask(exchange: ServerExchange, challenge: &str) -> Progress {
    Progress::Challenge(exchange, BASE64.encode(challenge))
}

impl ServerExchange {
    /// Takes the client's next line, without its CR LF.
    pub fn answer(self, line: &[u8], users: &Users, now: i64) -> Progress {
        if line == b"*" {
            return Progress::Failed(Failure::Cancelled);
        }
        self.base64(line, users, now)
    }

    fn base64(self, message: &[u8], users: &Users, now: i64) -> Progress {
        let message = match self {
            // Control A stands between their parts, so controls are let through.
            ServerExchange::Token(_) => octets(message),
            ServerExchange::TokenRefused => Err(Failure::RefusedBefore),
            _ => without_controls(message),
        };
        match message {
            Ok(message) => self.response(&message, users, now),
            Err(failure) => Progress::Failed(failure),
        }
    }

    /// The step itself, base64 undone.
    fn response(self, message: &[u8], users: &Users, now: i64) -> Progress {
        self.step(message, users, now).unwrap_or_else(Progress::Failed)
    }

    fn step(self, message: &[u8], users: &Users, now: i64) -> Result<Progress, Failure> {
        Ok(match self {
            ServerExchange::Plain => Progress::Done(plain::check(message, users)?),
            ServerExchange::LoginName => {
                let name = text(message)?.to_owned();
                ask(ServerExchange::LoginPassword { name }, plain::ASK_PASSWORD)
            }
            ServerExchange::LoginPassword { name } => {
                Progress::Done(plain::check_login(&name, message, users)?)
            }
            ServerExchange::CramMd5 { challenge } => {
                Progress::Done(cram_md5::check(message, &challenge, users)?)
            }
            ServerExchange::ScramFirst { nonce } => {
                let (next, server_first) = AwaitsProof::begin(message, &nonce, users)?;
                ask(ServerExchange::ScramProof(next), &server_first)
            }
            ServerExchange::ScramProof(awaits) => {
                let (name, server_final) = awaits.check(message, users)?;
                // SMTP has no place for it in the 235, so it is one more challenge
                // (RFC 4954 section 4).
                ask(ServerExchange::ScramEnd { name }, &server_final)
            }
            ServerExchange::ScramEnd { name } if message.is_empty() => Progress::Done(name),
            ServerExchange::ScramEnd { .. } => return Err(Failure::Malformed),
            ServerExchange::Token(form) => match form.check(message, users, now)? {
                Checked::User(name) => Progress::Done(name),
                Checked::Refused(why) => {
                    let challenge = BASE64.encode(form.refusal());
                    Progress::Refused(ServerExchange::TokenRefused, challenge, why)
                }
            },
            ServerExchange::TokenRefused => return Err(Failure::RefusedBefore),
        })
    }
}

/// A name, and what proves it.
#[derive(Clone)]
pub struct Credentials {
    /// The name as the server knows it.
    pub user: String,
    /// What only its owner has.
    pub evidence: Evidence,
}

/// What proves a name.
#[derive(Clone)]
pub enum Evidence {
    /// In clear, as every mechanism needs it.
    Password(String),
    /// What another server has given out, and the mail server believes.
    Token(String),
}

/// The evidence is nobody's business.
impl Debug for Credentials {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A client's exchange that has begun.
pub struct ClientExchange {
    user: String,
    secret: String,
    next: Expected,
}

/// The secret is nobody's business.
impl Debug for ClientExchange {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("ClientExchange").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What the server's next challenge will be.
enum Expected {
    /// `AUTH PLAIN` sends everything at once.
    Nothing,
    LoginName,
    LoginPassword,
    CramMd5,
    ScramFirst(ClientBegan),
    /// Which proves that the server knows us, too.
    ScramFinal(String),
    /// It comes only if the token is refused.
    TokenRefusal(Form),
}

impl ClientExchange {
    /// Begins an exchange. Gives it, and the initial response for mechanisms in
    /// which the client begins. The secret is the password, or a token for mechanisms
    /// that take one. The nonce is a text without commas that nobody can guess; only
    /// SCRAM needs it.
    pub fn begin(
        mechanism: Mechanism,
        user: &str,
        secret: &str,
        nonce: &str,
    ) -> (ClientExchange, Option<String>) {
        let token = |form: Form| (Expected::TokenRefusal(form), Some(form.message(user, secret)));
        let (next, initial) = match mechanism {
            Mechanism::OauthBearer => token(Form::OauthBearer),
            Mechanism::Xoauth2 => token(Form::Xoauth2),
            Mechanism::Plain => (Expected::Nothing, Some(plain::message(user, secret))),
            Mechanism::Login => (Expected::LoginName, None),
            Mechanism::CramMd5 => (Expected::CramMd5, None),
            Mechanism::ScramSha256 => {
                let (began, message) = ClientBegan::begin(user, nonce);
                (Expected::ScramFirst(began), Some(message))
            }
        };
        let (user, secret) = (user.to_owned(), secret.to_owned());
        let exchange = ClientExchange { user, secret, next };
        (exchange, initial.map(|text| BASE64.encode(text)))
    }

    /// Whether nothing is open any more. A server that says 235 before that has
    /// not proved that it knows the password, where the mechanism wants it to.
    pub fn is_done(&self) -> bool {
        matches!(self.next, Expected::Nothing | Expected::TokenRefusal(_))
    }

    /// The response to a challenge, the text after `334 `.
    pub fn answer(&mut self, challenge: &str) -> Result<String, BadChallenge> {
        let challenge = BASE64.decode(challenge).map_err(|_| BadChallenge)?;
        let challenge = String::from_utf8(challenge).map_err(|_| BadChallenge)?;
        let (next, response) = match &self.next {
            Expected::Nothing => return Err(BadChallenge),
            Expected::LoginName => (Expected::LoginPassword, self.user.clone()),
            Expected::LoginPassword => (Expected::Nothing, self.secret.clone()),
            Expected::CramMd5 => {
                let response = cram_md5::response(&self.user, &self.secret, &challenge);
                (Expected::Nothing, response)
            }
            Expected::ScramFirst(began) => {
                let (response, proof) = began.prove(&challenge, &self.secret)?;
                (Expected::ScramFinal(proof), response)
            }
            Expected::ScramFinal(proof) if challenge == *proof => {
                (Expected::Nothing, String::new())
            }
            Expected::ScramFinal(_) => return Err(BadChallenge),
            Expected::TokenRefusal(form) => {
                (Expected::Nothing, form.answer_to_refusal().to_owned())
            }
        };
        self.next = next;
        Ok(BASE64.encode(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::mechanism::nonce;
    use crate::smtp::auth::scram::CLIENT_NONCE_LIMIT;
    use crate::smtp::auth::secret::Secret;
    use std::sync::LazyLock;

    const HOST: &str = "mail.host.example";
    const NOW: i64 = 1_000_000;
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    /// Made once: each of them costs a PBKDF2.
    static USERS: LazyLock<Users> = LazyLock::new(|| {
        let entries = vec![
            ("tim".to_owned(), Secret::Plain("tanstaaftanstaaf".to_owned())),
            ("user".to_owned(), Secret::scram("pencil", &[1; 16])),
        ];
        Users::new(entries, [3; 32])
    });

    fn start(mechanism: Mechanism, initial: Option<&str>) -> Progress {
        begin(mechanism, initial, NONCE, HOST, &USERS, NOW)
    }

    /// The exchange, and its challenge with base64 undone.
    fn asked(progress: Progress) -> (ServerExchange, String) {
        match progress {
            Progress::Challenge(exchange, challenge) => {
                (exchange, String::from_utf8(BASE64.decode(challenge).unwrap()).unwrap())
            }
            other => panic!("no challenge but {other:?}"),
        }
    }

    /// One more step, where the client sends this in base64.
    fn said(progress: Progress, message: &str) -> Progress {
        asked(progress).0.answer(BASE64.encode(message).as_bytes(), &USERS, NOW)
    }

    fn done(name: &str) -> Progress {
        Progress::Done(name.to_owned())
    }

    /// SCRAM from the first message to the answer to the proof.
    fn scram(name: &str, password: &str) -> Progress {
        let mechanism = Mechanism::ScramSha256;
        let (mut client, initial) = ClientExchange::begin(mechanism, name, password, "client");
        let Progress::Challenge(exchange, challenge) = start(mechanism, initial.as_deref()) else {
            panic!("no challenge");
        };
        exchange.answer(client.answer(&challenge).unwrap().as_bytes(), &USERS, NOW)
    }

    /// Lets both halves talk to each other to the end.
    fn talk(mechanism: Mechanism, user: &str, password: &str, users: &Users) -> Progress {
        let (mut client, initial) = ClientExchange::begin(mechanism, user, password, "client");
        let mut progress = begin(mechanism, initial.as_deref(), "server", HOST, users, NOW);
        while let Progress::Challenge(exchange, challenge) = progress {
            let response = client.answer(&challenge).unwrap();
            progress = exchange.answer(response.as_bytes(), users, NOW);
        }
        assert!(client.is_done() || progress != done(user));
        assert!(!format!("{client:?}").contains(password));
        progress
    }

    #[test]
    fn both_halves_of_every_mechanism_understand_each_other() {
        let entry = ("ann".to_owned(), Secret::Plain("s=e,cret".to_owned()));
        let users = Users::new(vec![entry], [7; 32]).at(&["localhost".to_owned()].into());
        for mechanism in Mechanism::ALL.into_iter().filter(|one| !one.takes_token()) {
            for name in ["ann", "ANN", "ann@localhost"] {
                assert_eq!(talk(mechanism, name, "s=e,cret", &users), done("ann"), "{name}");
            }
            for (name, password) in [("ann", "wrong"), ("bob", "s=e,cret"), ("ann@x", "s=e,cret")] {
                let progress = talk(mechanism, name, password, &users);
                assert_eq!(progress, Progress::Failed(Failure::Refused), "{name}");
            }
        }
    }

    #[test]
    fn plain_may_come_with_the_command_or_after_an_empty_challenge() {
        let (_, initial) = ClientExchange::begin(Mechanism::Plain, "tim", "tanstaaftanstaaf", "");
        let initial = initial.unwrap();
        assert_eq!(start(Mechanism::Plain, Some(&initial)), done("tim"));
        let (exchange, challenge) = asked(start(Mechanism::Plain, None));
        assert_eq!(challenge, "");
        assert_eq!(exchange.answer(initial.as_bytes(), &USERS, NOW), done("tim"));
        // An initial response of no octets is one, and it lacks everything.
        let empty = start(Mechanism::Plain, Some("="));
        assert_eq!(empty, Progress::Failed(Failure::Malformed));
    }

    #[test]
    fn a_client_gives_up_on_what_is_no_challenge() {
        let (mut client, _) = ClientExchange::begin(Mechanism::ScramSha256, "ann", "x", "client");
        client.answer(&BASE64.encode("r=clientx,s=AAAA,i=1")).unwrap();
        assert!(!client.is_done());
        assert_eq!(client.answer(&BASE64.encode("v=AAAA")), Err(BadChallenge));
        assert_eq!(client.answer("no base64!"), Err(BadChallenge));
        let (mut client, _) = ClientExchange::begin(Mechanism::Plain, "ann", "x", "");
        assert_eq!(client.answer(""), Err(BadChallenge));
    }

    #[test]
    fn a_refused_token_is_told_in_json_and_whatever_the_client_answers_is_the_end() {
        for (mechanism, told, response) in [
            (Mechanism::OauthBearer, r#"{"status":"invalid_token","schemes":"bearer"}"#, "AQ=="),
            (Mechanism::Xoauth2, r#"{"status":"401","schemes":"bearer"}"#, ""),
        ] {
            let (mut client, initial) = ClientExchange::begin(mechanism, "tim", "a.b.c", "");
            assert!(client.is_done(), "235 may come at once");
            let refused = || start(mechanism, initial.as_deref());
            let Progress::Refused(exchange, challenge, _) = refused() else { panic!() };
            assert_eq!(BASE64.decode(&challenge).unwrap(), told.as_bytes());
            assert_eq!(client.answer(&challenge).unwrap(), response);
            assert_eq!(client.answer(&challenge), Err(BadChallenge));
            assert!(!format!("{client:?}").contains("a.b.c"));
            let told = Progress::Failed(Failure::RefusedBefore);
            assert_eq!(exchange.answer(response.as_bytes(), &USERS, NOW), told);
            // Not even another token, or what is no base64, is anything else.
            for line in [initial.as_deref().unwrap(), "AA", "QUIT", "", "="] {
                let Progress::Refused(exchange, ..) = refused() else { panic!() };
                assert_eq!(exchange.answer(line.as_bytes(), &USERS, NOW), told, "{line}");
            }
            let Progress::Refused(exchange, ..) = refused() else { panic!() };
            let cancelled = exchange.answer(b"*", &USERS, NOW);
            assert_eq!(cancelled, Progress::Failed(Failure::Cancelled));
        }
    }

    /// The steps of every mechanism.
    fn waiting() -> Vec<Progress> {
        vec![
            start(Mechanism::Plain, None),
            start(Mechanism::Login, None),
            start(Mechanism::Login, Some("VGlt")),
            start(Mechanism::CramMd5, None),
            start(Mechanism::ScramSha256, None),
            said(start(Mechanism::ScramSha256, None), "n,,n=user,r=x"),
            scram("user", "pencil"),
            start(Mechanism::OauthBearer, None),
            start(Mechanism::Xoauth2, None),
        ]
    }

    #[test]
    fn login_asks_for_name_and_password_one_by_one() {
        let (exchange, challenge) = asked(start(Mechanism::Login, None));
        assert_eq!(challenge, "Username:");
        let (exchange, challenge) = asked(exchange.answer(b"VGlt", &USERS, NOW));
        assert_eq!(challenge, "Password:");
        let password = BASE64.encode("tanstaaftanstaaf");
        assert_eq!(exchange.answer(password.as_bytes(), &USERS, NOW), done("tim"));

        let (exchange, challenge) = asked(start(Mechanism::Login, Some("VGlt")));
        assert_eq!(challenge, "Password:");
        assert_eq!(exchange.answer(b"", &USERS, NOW), Progress::Failed(Failure::Refused));
        let nobody = start(Mechanism::Login, Some("="));
        assert_eq!(said(nobody, "tanstaaftanstaaf"), Progress::Failed(Failure::Refused));
    }

    /// RFC 4954 section 4: where the server begins, the client cannot.
    #[test]
    fn cram_md5_takes_no_initial_response() {
        for initial in ["=", "dGltIHg=", "*"] {
            assert_eq!(
                start(Mechanism::CramMd5, Some(initial)),
                Progress::Failed(Failure::Premature)
            );
        }
    }

    #[test]
    fn a_star_cancels_at_every_step() {
        for progress in waiting() {
            assert_eq!(
                asked(progress).0.answer(b"*", &USERS, NOW),
                Progress::Failed(Failure::Cancelled)
            );
        }
    }

    /// RFC 4954 section 4: no octet outside the alphabet, padding at the end
    /// only; and `=` means something in the AUTH command alone.
    #[test]
    fn what_is_no_base64_is_malformed_at_every_step() {
        let lines: [&[u8]; 14] = [
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
            b"DATA",
            b"EHLO",
            b"AA==AA==",
            b"\xff\x00\r\n",
        ];
        for line in lines {
            for progress in waiting() {
                let before = format!("{progress:?}");
                let progress = asked(progress).0.answer(line, &USERS, NOW);
                assert_eq!(progress, Progress::Failed(Failure::Malformed), "{before} {line:?}");
            }
        }
        for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256] {
            for initial in ["*", "==", "AAA"] {
                assert_eq!(start(mechanism, Some(initial)), Progress::Failed(Failure::Malformed));
            }
        }
    }

    /// Against finding out which names exist.
    #[test]
    fn an_unknown_user_and_a_wrong_password_look_the_same_at_every_step() {
        let plain = |name: &str| said(start(Mechanism::Plain, None), &format!("\0{name}\0wrong"));
        assert_eq!(plain("tim"), Progress::Failed(Failure::Refused));
        assert_eq!(plain("tom"), plain("tim"));

        let login = |name: &str| said(start(Mechanism::Login, None), name);
        let (_, for_tim) = asked(login("tim"));
        let (_, for_tom) = asked(login("tom"));
        assert_eq!(for_tom, for_tim);
        assert_eq!(said(login("tim"), "wrong"), Progress::Failed(Failure::Refused));
        assert_eq!(said(login("tom"), "wrong"), Progress::Failed(Failure::Refused));

        let digest = "00000000000000000000000000000000";
        let cram = |name: &str| said(start(Mechanism::CramMd5, None), &format!("{name} {digest}"));
        assert_eq!(cram("tim"), Progress::Failed(Failure::Refused));
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
            assert_eq!(scram(name, "wrong"), Progress::Failed(Failure::Refused));
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
            let progress = begin(mechanism, initial, &nonce, &host, &users, NOW);
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
                let mut progress = begin(mechanism, initial, NONCE, HOST, &USERS, NOW);
                for (kind, octets) in &lines {
                    let Progress::Challenge(exchange, _) = progress else { break };
                    progress = exchange.answer(&line(*kind, octets), &USERS, NOW);
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
            Failure::Malformed,
            Failure::Malformed, // checked apart: LOGIN takes any name
            Failure::Refused,
            Failure::Malformed,
            Failure::Malformed,
            Failure::Malformed,
            Failure::Malformed,
            Failure::Malformed,
            Failure::Malformed,
        ]) {
            let (exchange, _) = asked(progress);
            if exchange == ServerExchange::LoginName {
                let next = exchange.answer(long.as_bytes(), &USERS, NOW);
                assert_eq!(said(next, "x"), Progress::Failed(Failure::Refused));
            } else {
                assert_eq!(
                    exchange.answer(long.as_bytes(), &USERS, NOW),
                    Progress::Failed(expected)
                );
            }
        }
    }
}
