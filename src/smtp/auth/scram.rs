//! SCRAM-SHA-256 (RFC 5802, RFC 7677): both sides prove that they know the password,
//! and neither sends it.
//!
//! In: the messages of the other side, base64 undone. Out: those of this side, and
//! who it is in the end. A client says `n,,n=ann,r=abc`; the server adds its half of
//! the nonce, salt and iterations; the client sends its proof, the server its own.
//! The two proofs are made and undone by the same two functions on both sides.
//!
//! Not done here: channel binding.
//!
//! Book: docs/11-auth.md.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::smtp::auth::mechanism::{BadChallenge, Failure, text, without_controls};
use crate::smtp::auth::secret::{Key, Keys, hmac_sha256, sha256};
use crate::smtp::auth::users::Users;

/// The server repeats the client's nonce, and the reply line that does so stays
/// within 512 octets. Clients send 16 to 50 octets.
pub const CLIENT_NONCE_LIMIT: usize = 200;

/// A server that asks for more hashing than this wants to keep us busy.
const MOST_ITERATIONS: u32 = 1_000_000;

/// `n,,`: no channel binding, no other identity. It is what our client says.
const GS2_HEADER: &str = "n,,";

/// ClientKey under its mask, which is a signature of all that both sides said
/// (`AuthMessage`): ClientProof. A second time the mask is taken off again, and that
/// is how the server, who can make the mask, gets at ClientKey (RFC 5802 section 3).
fn masked(client_key: &Key, stored_key: &Key, said: &str) -> Key {
    let mut masked = hmac_sha256(stored_key, said.as_bytes());
    for (octet, key) in masked.iter_mut().zip(client_key) {
        *octet ^= key;
    }
    masked
}

/// The server's proof, as it is sent: `v=…`.
fn server_final(server_key: &Key, said: &str) -> String {
    format!("v={}", BASE64.encode(hmac_sha256(server_key, said.as_bytes())))
}

// ---- the server ----

/// The server waits for the proof. This is what the first messages of both said.
#[derive(Debug, PartialEq, Eq)]
pub struct AwaitsProof {
    name: String,
    /// Both halves of the nonce.
    nonce: String,
    /// The start of the client's message: channel binding and other identity.
    gs2_header: String,
    /// Both messages, as the proof signs them.
    said: String,
}

impl AwaitsProof {
    /// Takes the client's first message, `n,,n=name,r=nonce`, and gives the server's
    /// as well (RFC 5802 section 5).
    pub fn begin(
        message: &[u8],
        server_nonce: &str,
        users: &Users,
    ) -> Result<(AwaitsProof, String), Failure> {
        let first = ClientFirst::parse(text(message)?).ok_or(Failure::Malformed)?;
        // We offer no mechanism with channel binding, so nobody can ask for it.
        if first.binds_channel || !users.is_itself(&first.wanted, &first.name) {
            return Err(Failure::Refused);
        }
        let nonce = format!("{}{server_nonce}", first.nonce);
        let (record, _) = users.record(&first.name);
        let (salt, iterations) = (BASE64.encode(record.salt), record.iterations);
        let server_first = format!("r={nonce},s={salt},i={iterations}");
        let next = AwaitsProof {
            name: first.name,
            nonce,
            gs2_header: first.gs2_header.to_owned(),
            said: format!("{},{server_first}", first.bare),
        };
        Ok((next, server_first))
    }

    /// Takes the client's last message, `c=biws,r=nonce,p=proof`. Gives who it is, and
    /// the server's last message.
    pub fn check(self, message: &[u8], users: &Users) -> Result<(String, String), Failure> {
        let last = ClientFinal::parse(text(message)?).ok_or(Failure::Malformed)?;
        // The nonce ties the proof to this exchange. The header comes a second time
        // because only here it is signed: somebody in between could have changed it.
        if last.nonce != self.nonce || last.gs2_header != self.gs2_header {
            return Err(Failure::Refused);
        }
        let said = format!("{},{}", self.said, last.without_proof);
        let (record, is_known) = users.record(&self.name);
        let client_key = masked(&last.proof, &record.stored_key, &said);
        if users.is_same(&sha256(&client_key), &record.stored_key) && is_known {
            Ok((users.canonical(&self.name), server_final(&record.server_key, &said)))
        } else {
            Err(Failure::Refused)
        }
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
        let gs2_header = without_controls(attributes.next()?.strip_prefix("c=")?).ok()?;
        let gs2_header = String::from_utf8(gs2_header).ok()?;
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
pub fn unescaped(saslname: &str) -> Option<String> {
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

/// The same the other way round.
pub fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

// ---- the client ----

/// The client waits for the server's first message.
pub struct ClientBegan {
    /// What it said, without its header.
    bare: String,
    nonce: String,
}

impl ClientBegan {
    /// Gives the first message of a client, too. The nonce is a text without commas
    /// that nobody can guess.
    pub fn begin(name: &str, nonce: &str) -> (ClientBegan, String) {
        let bare = format!("n={},r={nonce}", escaped(name));
        let message = format!("{GS2_HEADER}{bare}");
        (ClientBegan { bare, nonce: nonce.to_owned() }, message)
    }

    /// Takes the server's first message, `r=…,s=…,i=…`. Gives the client's last one,
    /// and what the server then has to say to prove that it knows the password.
    pub fn prove(
        &self,
        server_first: &str,
        password: &str,
    ) -> Result<(String, String), BadChallenge> {
        let field = |key: &str| server_first.split(',').find_map(|part| part.strip_prefix(key));
        let nonce = field("r=").filter(|nonce| nonce.starts_with(&self.nonce));
        // An extension that has to be understood ends it (RFC 5802 section 5.1).
        let nonce = nonce.filter(|_| field("m=").is_none()).ok_or(BadChallenge)?;
        let salt = field("s=").and_then(|salt| BASE64.decode(salt).ok()).ok_or(BadChallenge)?;
        let iterations = field("i=")
            .and_then(|count| count.parse::<NonZeroU32>().ok())
            .filter(|count| count.get() <= MOST_ITERATIONS)
            .ok_or(BadChallenge)?;

        let keys = Keys::derive(password.as_bytes(), &salt, iterations);
        let without_proof = format!("c={},r={nonce}", BASE64.encode(GS2_HEADER));
        let said = format!("{},{server_first},{without_proof}", self.bare);
        let proof = BASE64.encode(masked(&keys.client_key, &keys.stored_key, &said));
        Ok((format!("{without_proof},p={proof}"), server_final(&keys.server_key, &said)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::secret::Secret;
    use std::sync::LazyLock;

    /// The halves of the nonce in RFC 7677 section 3.
    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    /// Made once: each of them costs a PBKDF2.
    static USERS: LazyLock<Users> = LazyLock::new(|| {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let entries = vec![
            ("tim".to_owned(), Secret::Plain("tanstaaftanstaaf".to_owned())),
            ("user".to_owned(), Secret::scram("pencil", &salt)),
            ("a,b=c".to_owned(), Secret::Plain("tulip".to_owned())),
        ];
        Users::new(entries, [3; 32])
    });

    fn begun(message: &str) -> Result<(AwaitsProof, String), Failure> {
        AwaitsProof::begin(message.as_bytes(), SERVER_NONCE, &USERS)
    }

    /// Both halves of an exchange, up to the answer to the proof.
    fn talk(header: &str, name: &str, password: &str) -> Result<(String, String), Failure> {
        let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
        talk_and_repeat(header, name, password, header, &nonce)
    }

    /// The same, where the client repeats another header and nonce, and signs them.
    fn talk_and_repeat(
        header: &str,
        name: &str,
        password: &str,
        repeated: &str,
        nonce: &str,
    ) -> Result<(String, String), Failure> {
        let (client, message) = ClientBegan::begin(name, CLIENT_NONCE);
        let (server, server_first) = begun(&message.replacen(GS2_HEADER, header, 1))?;
        let keys = |first: &str| {
            let field = |key: &str| first.split(',').find_map(|part| part.strip_prefix(key));
            let salt = BASE64.decode(field("s=").unwrap()).unwrap();
            Keys::derive(password.as_bytes(), &salt, field("i=").unwrap().parse().unwrap())
        };
        let keys = keys(&server_first);
        let without_proof = format!("c={},r={nonce}", BASE64.encode(repeated));
        let said = format!("{},{server_first},{without_proof}", client.bare);
        let proof = BASE64.encode(masked(&keys.client_key, &keys.stored_key, &said));
        server.check(format!("{without_proof},p={proof}").as_bytes(), &USERS)
    }

    /// The example of RFC 7677 section 3, octet by octet, on both sides.
    #[test]
    fn each_side_proves_itself_to_the_other() {
        let (client, message) = ClientBegan::begin("user", CLIENT_NONCE);
        assert_eq!(message, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (server, server_first) = begun(&message).unwrap();
        let nonces = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(server_first, format!("{nonces},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let (last, expected) = client.prove(&server_first, "pencil").unwrap();
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last, format!("c=biws,{nonces},p={proof}"));
        let (name, server_final) = server.check(last.as_bytes(), &USERS).unwrap();
        assert_eq!((name.as_str(), &server_final), ("user", &expected));
        assert_eq!(server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn all_names_and_both_flags_of_a_client_without_channel_binding_are_taken() {
        for (header, name, password) in [
            ("n,,", "user", "pencil"),
            ("y,,", "User", "pencil"),
            ("n,a=USER,", "user", "pencil"),
            ("n,,", "tim", "tanstaaftanstaaf"),
            ("n,,", "a,b=c", "tulip"),
            ("n,a=a=2Cb=3Dc,", "a,b=c", "tulip"),
        ] {
            let done = talk(header, name, password);
            assert_eq!(done.unwrap().0, name.to_ascii_lowercase(), "{header}{name}");
        }
        assert_eq!(talk("n,,", "user", "wrong"), Err(Failure::Refused));
    }

    #[test]
    fn channel_binding_and_other_identities_are_refused() {
        for header in ["p=tls-unique,,", "n,a=tim,"] {
            assert_eq!(talk(header, "user", "pencil"), Err(Failure::Refused), "{header}");
        }
    }

    /// The last message repeats what the first one said. Somebody in between who
    /// makes a client believe that we know no channel binding is found out here.
    #[test]
    fn another_nonce_or_header_than_before_is_refused() {
        let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
        for (repeated, nonce) in
            [("n,,", nonce.as_str()), ("y,,", CLIENT_NONCE), ("y,,", SERVER_NONCE)]
        {
            let done = talk_and_repeat("y,,", "user", "pencil", repeated, nonce);
            assert_eq!(done, Err(Failure::Refused), "{repeated} {nonce}");
        }
        assert!(talk("y,,", "user", "pencil").is_ok());
    }

    #[test]
    fn messages_of_another_shape_are_malformed() {
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
            assert_eq!(begun(first), Err(Failure::Malformed), "{first}");
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
            let (server, _) = begun("n,,n=user,r=x").unwrap();
            assert_eq!(server.check(last.as_bytes(), &USERS), Err(Failure::Malformed), "{last}");
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_found_out() {
        let (client, _) = ClientBegan::begin("ann", "client");
        for wrong in [
            "r=other,s=AAAA,i=4096",
            "r=clientx,s=AAAA,i=0",
            "r=clientx,s=AAAA,i=1000001",
            "r=clientx,i=1",
            "m=1,r=clientx,s=AAAA,i=4096",
            "x",
        ] {
            assert_eq!(client.prove(wrong, "secret"), Err(BadChallenge), "{wrong}");
        }
    }
}
