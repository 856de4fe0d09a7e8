//! Where a captured connection wanted to go.

use socket2::{SockAddr, SockRef};
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use tokio::net::TcpStream;

/// The destination of an accepted connection, as its client meant it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OriginalDestination {
    /// The socket's own local address: nothing was translated.
    ///
    /// Either the client dialed this very listener, or the packets were steered here without
    /// translation (TPROXY) and the address is the client's destination. Only the port tells:
    /// see [`beyond`](Self::beyond).
    Local(SocketAddr),
    /// The destination was translated on the way; this is the one before.
    Redirected(SocketAddr),
}

impl OriginalDestination {
    /// Returns the address, whichever way it was found.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        match self {
            Self::Local(address) | Self::Redirected(address) => address,
        }
    }

    /// Returns the address unless the connection was meant for the listener on `port` itself.
    ///
    /// A proxy must not forward such a connection: it would come back to it for ever.
    #[must_use]
    pub const fn beyond(self, port: u16) -> Option<SocketAddr> {
        match self {
            Self::Local(address) if address.port() == port => None,
            Self::Local(address) | Self::Redirected(address) => Some(address),
        }
    }
}

/// Asks the kernel where an accepted connection wanted to go.
///
/// Addresses come in canonical form: never IPv4 mapped into IPv6.
///
/// # Errors
///
/// Returns the kernel's answer when the connection is already gone.
pub fn original_destination(stream: &TcpStream) -> io::Result<OriginalDestination> {
    let local = canonical(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let before = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    Ok(
        match before
            .ok()
            .and_then(|address| SockAddr::as_socket(&address))
        {
            Some(before) if canonical(before) != local => {
                OriginalDestination::Redirected(canonical(before))
            }
            // Conntrack knows no translation, or there is no conntrack in the path.
            Some(_) | None => OriginalDestination::Local(local),
        },
    )
}

/// Undoes the mapping of IPv4 into IPv6 that dual-stack sockets show, and leaves out the flow
/// label, which is no part of an address: the kernel adds it to one of the two that are compared.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::from((ip, v6.port())),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{OriginalDestination, canonical};
    use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

    #[test]
    fn connection_meant_for_the_listener_itself_is_not_forwarded() {
        let _trace = meshwright_testkit::trace();
        let own = "10.0.0.1:15006".parse().unwrap();
        assert_eq!(OriginalDestination::Local(own).beyond(15006), None);
        let app = "10.0.0.1:80".parse().unwrap();
        assert_eq!(OriginalDestination::Local(app).beyond(15006), Some(app));
        // Another pod's address with the same port is a destination like any other.
        assert_eq!(
            OriginalDestination::Redirected(own).beyond(15006),
            Some(own)
        );
    }

    #[test]
    fn mapped_addresses_become_plain_ones() {
        let _trace = meshwright_testkit::trace();
        let mapped = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped).to_string(), "10.0.0.1:80");
        let v6 = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(canonical(v6), v6);
    }

    #[test]
    fn flow_label_does_not_make_an_address_another_one() {
        let _trace = meshwright_testkit::trace();
        let own = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 15008, 0, 3);
        let labelled = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 15008, 0xabcde, 3);
        assert_eq!(canonical(labelled.into()), SocketAddr::from(own));
    }
}
