//! What is asked of trust/ for one letter: check it, sign it, or neither.
//!
//! In: whose letter it is, its octets as they pass, and at the end its draft. Out: a field
//! above the text of the draft, or the reason why the letter is refused. Letters of
//! strangers are checked where `--sender-checks` says so; those of users who have logged in
//! are signed, if there is a key. Of all others nothing is asked, and nothing is kept.
//!
//! Book: docs/16-trust.md.

use std::io;
use std::time::Instant;

use jiff::Timestamp;

use crate::config::SenderChecks;
use crate::server::clients::Client;
use crate::server::shared::Shared;
use crate::smtp::address::ReversePath;
use crate::smtp::session::{Distrust, Role, Session};
use crate::store::draft::Draft;
use crate::trust::dkim::sign::Signing;
use crate::trust::dkim::verify::Verifier;
use crate::trust::explain::Steps;
use crate::trust::lookups::{Lookups, PATIENCE};
use crate::trust::results::Verdicts;
use crate::trust::spf::Request;

/// What is done with a letter.
#[derive(Debug)]
pub enum Trust {
    /// Nothing.
    Nothing,
    /// It is a stranger's, and is checked.
    Check(Box<Verifier>),
    /// It is a user's, and is signed.
    Sign(Box<Signing>),
}

impl Trust {
    /// For a letter that begins now.
    pub fn begin(session: &Session, shared: &Shared, now: Timestamp) -> Trust {
        if session.user().is_some() && shared.signer().is_some() {
            return Trust::Sign(Box::default());
        }
        let is_strangers = session.user().is_none() && session.role() == Role::Smtp;
        if is_strangers && shared.sender_checks != SenderChecks::None {
            return Trust::Check(Box::new(Verifier::new(now)));
        }
        Trust::Nothing
    }

    /// Whether a field may be put above the letter at its end.
    pub fn is_wanted(&self) -> bool {
        !matches!(self, Trust::Nothing)
    }

    /// The next part of the letter, as it came.
    pub fn arrived(&mut self, text: &[u8]) {
        if let Trust::Check(verifier) = self {
            verifier.write(text);
        }
    }

    /// The next part of the letter, as it is stored.
    pub fn stored(&mut self, text: &[u8]) {
        if let Trust::Sign(signing) = self {
            signing.write(text);
        }
    }

    /// The letter is complete: puts the field above it, if it gets one. Gives the words for
    /// the log, and why the letter is refused, if it is.
    pub fn end(
        self,
        draft: &mut Draft,
        from: &ReversePath,
        session: &Session,
        client: &Client,
        shared: &Shared,
    ) -> io::Result<(String, Option<Distrust>)> {
        match self {
            Trust::Nothing => Ok((String::new(), None)),
            Trust::Sign(signing) => {
                let field = sign(*signing, session, shared);
                let what = if field.is_some() { ", signed" } else { "" };
                draft.put_above(&field.unwrap_or_default())?;
                Ok((what.to_owned(), None))
            }
            Trust::Check(verifier) => check(*verifier, draft, from, session, client, shared),
        }
    }
}

/// The field for a letter whose author is at one of our domains.
fn sign(letter: Signing, session: &Session, shared: &Shared) -> Option<String> {
    let site = session.site();
    shared.signer()?.sign(letter, |domain| site.has_domain(domain), Timestamp::now())
}

/// Asks DNS who wrote a letter. The client waits meanwhile, as long as DNS may take for one.
fn check(
    letter: Verifier,
    draft: &mut Draft,
    from: &ReversePath,
    session: &Session,
    client: &Client,
    shared: &Shared,
) -> io::Result<(String, Option<Distrust>)> {
    let mail_from = match from {
        ReversePath::Null => String::new(),
        ReversePath::Mailbox(mailbox) => mailbox.with_a_labels().to_string(),
    };
    let helo = String::from_utf8_lossy(session.client_name());
    let hostname = &session.site().hostname;
    let request = Request {
        ip: client.address().ip(),
        helo: &helo,
        mail_from: &mail_from,
        receiver: hostname,
        now: Timestamp::now(),
    };
    let lookups = Lookups::new(&shared.resolver, Instant::now() + PATIENCE);
    let verdicts = Verdicts::find(&request, letter, &lookups, &mut Steps::silent());
    draft.put_above(&verdicts.to_field(hostname, &request))?;
    let is_enforced = shared.sender_checks == SenderChecks::Enforce;
    Ok((format!(", {verdicts}"), verdicts.distrust().filter(|_| is_enforced)))
}
