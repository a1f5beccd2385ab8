//! What people write into files: who has a mailbox, who may log in, other names, the
//! certificate, whose tokens are believed, the key that letters are signed with, and who we
//! are at the smarthost.
//!
//! In: the names of the files, and what flags say. Out: [`Files`], or one line that says
//! which file is wrong, where, and what was expected. Everything is read before anything
//! is used, so that a wrong file changes nothing.
//!
//! Left to others: the form of each file (`store/users.rs`, `store/aliases.rs`,
//! `certificate.rs`, `issuer.rs`, `smarthost.rs`), and when they are read again (`main.rs`,
//! at SIGHUP).
//!
//! Book: docs/10-tls.md.

use std::fmt::{self, Debug, Formatter};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::relay::courier::Smarthost;
use crate::server::certificate;
use crate::server::issuer;
use crate::server::smarthost;
use crate::smtp::auth::users::Users;
use crate::smtp::site::Site;
use crate::store::aliases;
use crate::store::text_file::warn_if_readable_by_others;
use crate::store::users;
use crate::trust::dkim::sign::Signer;
use crate::wire::tls::Acceptor;

/// What was read from files.
pub struct Files {
    /// Names, mailboxes, users and limits.
    pub site: Arc<Site>,
    /// Certificate and key, if there are any.
    pub acceptor: Option<Acceptor>,
    /// The server that takes all our mail for others, if there is one.
    pub smarthost: Option<Arc<Smarthost>>,
    /// Who signs the letters of our users, if anybody does.
    pub signer: Option<Arc<Signer>>,
    /// The same for as long as the process lives: see [`Users::new`].
    pub process_secret: [u8; 32],
}

/// Reads all files that flags name.
pub fn read(config: &Config, process_secret: [u8; 32]) -> Result<Files, String> {
    let acceptor = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => Some(certificate::read(cert, key)?),
        _ => None,
    };
    let mut site = match &config.users {
        Some(path) => with_users(config, path, process_secret)?,
        None if config.mailboxes.is_empty() => site(config, None),
        None => site(config, Some(&config.mailboxes)),
    };
    site.max_size = config.max_size;
    site.max_recipients = config.max_recipients;
    site.allow_plain_auth = config.allow_plain_auth;
    site.timeout = config.timeout;
    site.relay = config.relay;
    site.has_tls = acceptor.is_some();
    if let Some(path) = &config.aliases {
        let at = |line: usize, why: String| format!("{}:{line}: {why}", path.display());
        let entries = aliases::parse(&octets(path)?).map_err(|error| at(error.line, error.why))?;
        site.set_aliases(entries).map_err(|error| at(error.line, error.why))?;
    }
    let smarthost = smarthost::read(config)?.map(Arc::new);
    let signer = signer(config)?;
    Ok(Files { site: Arc::new(site), acceptor, smarthost, signer, process_secret })
}

/// Reads the key that letters are signed with, if there is one.
fn signer(config: &Config) -> Result<Option<Arc<Signer>>, String> {
    let (Some(path), Some(selector)) = (&config.dkim_key, &config.dkim_selector) else {
        return Ok(None);
    };
    warn_if_readable_by_others(path);
    let text = String::from_utf8_lossy(&octets(path)?).into_owned();
    let signer = Signer::from_pem(&text, selector);
    signer.map(Arc::new).map(Some).map_err(|why| format!("{}: {why}", path.display()))
}

/// A site whose mailboxes are those of its users.
fn with_users(config: &Config, path: &Path, process_secret: [u8; 32]) -> Result<Site, String> {
    warn_if_readable_by_others(path);
    let entries = users::parse(&octets(path)?)
        .map_err(|error| format!("{}:{}: {}", path.display(), error.line, error.why))?;
    if entries.is_empty() {
        return Err(format!("{}: expected at least one user", path.display()));
    }
    let names: Vec<String> = entries.iter().map(|(name, _)| name.clone()).collect();
    let mut site = site(config, Some(&names));
    let is_foreign =
        |name: &&String| name.split_once('@').is_some_and(|(_, domain)| !site.has_domain(domain));
    if let Some(name) = names.iter().find(is_foreign) {
        return Err(format!("{}: {name} is at none of our domains", path.display()));
    }
    let users = Users::new(entries, process_secret);
    site.set_users(match issuer::read(config)? {
        Some(issuer) => users.trusting(issuer),
        None => users,
    });
    Ok(site)
}

/// A site with these mailboxes, or one for every name.
fn site(config: &Config, mailboxes: Option<&[String]>) -> Site {
    let (home, more_domains) = match config.domains.split_first() {
        Some((home, more)) => (home, more),
        None => (&config.hostname, &[][..]),
    };
    Site::new(&config.hostname, home, more_domains, mailboxes)
}

fn octets(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Neither the secret nor the key is anybody's business.
impl Debug for Files {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Files").field("site", &self.site).finish_non_exhaustive()
    }
}
