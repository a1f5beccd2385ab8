//! What the relay needs, made of flags and files.
//!
//! In: a checked [`Config`]. Out: a [`Courier`], which carries letters to other
//! servers: through the smarthost if there is one, else to where DNS says.
//!
//! Book: docs/14-the-queue.md.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use native_tls::{Certificate, TlsConnector};

use crate::dns::{PATIENCE, Resolver};
use crate::relay::client::Credentials;
use crate::relay::courier::{Courier, Smarthost};
use crate::server::{Config, Shared};
use crate::store::text_file::warn_if_readable_by_others;

/// The port on which TLS begins at once (RFC 8314 section 7.3).
const SUBMISSIONS_PORT: u16 = 465;
/// Any will do to find out which way leads to an address.
const SMTP_PORT: u16 = 25;

/// Reads what belongs to the smarthost. The error names the file, and what was
/// expected in it.
pub fn smarthost(config: &Config) -> Result<Option<Smarthost>, String> {
    let Some((host, port)) = config.smarthost.clone() else {
        return match config.smarthost_login.is_some() || config.smarthost_ca.is_some() {
            true => Err("--smarthost-login and --smarthost-ca need --smarthost".to_owned()),
            false => Ok(None),
        };
    };
    let credentials = config.smarthost_login.as_deref().map(credentials).transpose()?;
    // Whoever gets a password, or is trusted by name, has to prove the name.
    let is_checked =
        credentials.is_some() || config.smarthost_ca.is_some() || port == SUBMISSIONS_PORT;
    let connector = match is_checked {
        true => Some(connector(config.smarthost_ca.as_deref())?),
        false => None,
    };
    let is_tls_at_once = port == SUBMISSIONS_PORT;
    Ok(Some(Smarthost { host, port, is_tls_at_once, credentials, connector }))
}

/// Everything that attempts need.
pub fn courier(
    config: &Config,
    smarthost: Option<Smarthost>,
    listeners: Vec<SocketAddr>,
    shared: &Arc<Shared>,
) -> Courier {
    let for_site = Arc::clone(shared);
    let servers =
        if config.dns.is_empty() { Resolver::system_servers() } else { config.dns.clone() };
    let addresses: Vec<IpAddr> = listeners.iter().map(|one| one.ip().to_canonical()).collect();
    Courier {
        spool: Arc::clone(&shared.spool),
        site: Box::new(move || for_site.site()),
        resolver: Resolver::new(servers, PATIENCE),
        port: config.relay_port,
        loopback_hops: config.loopback_hops,
        smarthost,
        is_listening: Box::new(move |address| is_listening(&listeners, address)),
        is_our_address: Box::new(move |address| {
            let is_any = addresses.iter().any(IpAddr::is_unspecified);
            let address = address.to_canonical();
            addresses.contains(&address)
                || is_any && is_of_this_machine(SocketAddr::new(address, SMTP_PORT))
        }),
        trace: config.trace,
        patience: config.relay_timeout,
        retry: config.retry,
        warn: config.warn,
        give_up: config.give_up,
    }
}

/// `user:password`, in one line.
fn credentials(path: &Path) -> Result<Credentials, String> {
    warn_if_readable_by_others(path);
    let wrong = |why: String| format!("{}: {why}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let line = text.trim_end_matches(['\r', '\n']);
    match line.split_once(':') {
        Some((user, password)) if !user.is_empty() && !line.contains('\n') => {
            Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
        }
        _ => Err(wrong("expected one line, user:password".to_owned())),
    }
}

/// Checks certificates against the authorities of the system, and this one.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let mut builder = TlsConnector::builder();
    if let Some(path) = ca {
        let wrong = |why: String| format!("{}: {why}", path.display());
        let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let authority = Certificate::from_pem(&pem).map_err(|error| {
            wrong(format!("expected a certificate that begins with -----BEGIN: {error}"))
        })?;
        builder.add_root_certificate(authority);
    }
    builder.build().map_err(|error| format!("no TLS for the smarthost: {error}"))
}

/// Whether a letter sent to `address` would come back to us.
fn is_listening(listeners: &[SocketAddr], address: SocketAddr) -> bool {
    listeners.iter().any(|listener| {
        let is_same = listener.ip().to_canonical() == address.ip().to_canonical();
        let is_any = listener.ip().is_unspecified() && is_of_this_machine(address);
        listener.port() == address.port() && (is_same || is_any)
    })
}

/// Whether the way to this address begins and ends here: then our own end of it has
/// the same address. Nothing is sent to find that out.
fn is_of_this_machine(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let our_end = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    // All of 127.0.0.0/8 is ours, though our end of the way may be 127.0.0.1.
    address.ip().is_loopback() || our_end.is_ok_and(|end| end.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_every_address_of_this_machine_and_no_other() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let one = addresses(&["127.0.0.1:25"]);
        let any = addresses(&["0.0.0.0:25"]);
        for (address, is_one, is_any) in [
            ("127.0.0.1:25", true, true),
            ("[::ffff:127.0.0.1]:25", true, true),
            ("127.0.0.1:26", false, false),
            ("127.0.0.2:25", false, true),
            ("192.0.2.1:25", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(is_listening(&one, address), is_one, "{address}");
            assert_eq!(is_listening(&any, address), is_any, "{address}");
        }
    }

    #[test]
    fn a_login_is_one_line_with_a_colon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login");
        for (text, wanted) in [
            ("ann:a:b\n", Some(("ann", "a:b"))),
            ("ann:\r\n", Some(("ann", ""))),
            ("ann", None),
            (":x", None),
            ("ann:x\nbob:y\n", None),
        ] {
            fs::write(&path, text).unwrap();
            let found = credentials(&path);
            let found = found.as_ref().map(|one| (one.user.as_str(), one.password.as_str())).ok();
            assert_eq!(found, wanted, "{text:?}");
        }
    }
}
