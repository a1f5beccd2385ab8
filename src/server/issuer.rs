//! Whose tokens are believed, as flags and a file describe it.
//!
//! In: the flags, and a file with public keys. Out: an [`Issuer`], or one line that says
//! which file is wrong and what was expected. A key that is passed over is told in the
//! log.
//!
//! Book: docs/11-auth.md.

use std::fs;

use crate::config::Config;
use crate::smtp::auth::jwt::Issuer;
use crate::smtp::auth::key_set::{KeySet, PassedOver};

/// Reads the keys, if tokens are taken at all.
pub fn read(config: &Config) -> Result<Option<Issuer>, String> {
    let (Some(path), Some(url), Some(audience)) =
        (&config.oauth_keys, &config.oauth_issuer, &config.oauth_audience)
    else {
        return Ok(None);
    };
    let name = path.display();
    let text = fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    let (keys, passed_over) = KeySet::parse(&text).map_err(|why| format!("{name}: {why}"))?;
    for PassedOver { place, why } in passed_over {
        log::warn!("{name}: key {place} is not used: {why}");
    }
    Ok(Some(Issuer { url: url.clone(), audience: audience.clone(), keys }))
}
