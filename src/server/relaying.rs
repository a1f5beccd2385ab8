//! What the relay needs, made of flags and files.
//!
//! In: a checked [`Config`]. Out: a [`Courier`], which carries letters to other
//! servers: through the smarthost if there is one, else to where DNS says.
//!
//! Book: docs/14-the-queue.md.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::config::Config;
use crate::relay::courier::Courier;
use crate::server::shared::{Shared, resolver};

/// Any will do to find out which way leads to an address.
const SMTP_PORT: u16 = 25;

/// Everything that attempts need.
pub fn courier(config: &Config, listeners: Vec<SocketAddr>, shared: &Arc<Shared>) -> Courier {
    let (for_site, for_smarthost) = (Arc::clone(shared), Arc::clone(shared));
    let for_signer = Arc::clone(shared);
    let addresses: Vec<IpAddr> = listeners.iter().map(|one| one.ip().to_canonical()).collect();
    Courier {
        spool: Arc::clone(&shared.spool),
        site: Box::new(move || for_site.site()),
        // All that it keeps is which server of DNS has answered, so there may be two.
        resolver: resolver(config),
        port: config.relay_port,
        loopback_hops: config.loopback_hops,
        smarthost: Box::new(move || for_smarthost.smarthost()),
        signer: Box::new(move || for_signer.signer()),
        is_listening: Box::new(move |address| is_listening(&listeners, address)),
        is_our_address: Box::new(move |address| {
            let is_any = addresses.iter().any(IpAddr::is_unspecified);
            let address = address.to_canonical();
            addresses.contains(&address)
                || is_any && is_of_this_machine(SocketAddr::new(address, SMTP_PORT))
        }),
        trace: config.trace,
        timeout: config.relay_timeout,
        retry: config.retry,
        warn: config.warn,
        give_up: config.give_up,
    }
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
}
