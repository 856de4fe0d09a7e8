//! Who listens and who is connected in a namespace, as the kernel's socket diagnostics tell it.

use crate::netlink::{AttributeIter, Conversation, Message, OpenFault};
use crate::netns::Netns;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `NETLINK_SOCK_DIAG`.
const PROTOCOL: isize = 4;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `TCP_ESTABLISHED` and the states of a connection that still carries data.
const ALIVE: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `TCP_LISTEN`.
const LISTEN: u32 = 1 << 10;
/// `INET_DIAG_MARK`.
const MARK: u16 = 15;
/// Listeners of one family that are told at most: whoever owns a port may share it with itself.
const MOST: usize = 4096;

/// A listening socket, whoever owns it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ListenerInfo {
    /// The address on which it listens.
    pub address: SocketAddr,
    /// Inode number of the socket: `/proc/PID/fd/*` of its owner names it.
    pub inode: u32,
    /// User of its owner.
    pub uid: u32,
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// Packet mark (`SO_MARK`); nothing where we may not see it.
    pub mark: Option<u32>,
}

/// Lists the TCP sockets that listen on `port` in `netns`.
///
/// The way to see a foreign process that shares a port of ours, or took it while we were away.
///
/// # Errors
///
/// Returns the kernel's answer: the namespace cannot be entered, or the kernel has no socket
/// diagnostics.
pub fn listeners(netns: &Netns, port: u16) -> io::Result<Vec<ListenerInfo>> {
    let found = fold(netns, LISTEN, |found: &mut Vec<_>, socket| {
        if socket.address.port() == port && found.len() < MOST {
            found.push(socket);
        }
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Lists the listeners on `port` that are no proxy's: they do not carry its packet `mark`.
///
/// Only who may set marks in the namespace can pass for a proxy, and needs no port of it to get at
/// the pod's traffic. To see marks takes `CAP_NET_ADMIN`; without it nobody is foreign.
///
/// # Errors
///
/// As [`listeners`].
pub fn foreign_listeners(netns: &Netns, port: u16, mark: u32) -> io::Result<Vec<ListenerInfo>> {
    let mut found = listeners(netns, port)?;
    found.retain(|socket| socket.mark.is_some_and(|theirs| theirs != mark));
    Ok(found)
}

/// Counts TCP connections whose local port is one of `ports`, listeners aside.
pub(crate) fn connections(netns: &Netns, ports: &[u16]) -> io::Result<usize> {
    let counts = fold(netns, ALIVE, |count: &mut usize, socket| {
        *count += usize::from(ports.contains(&socket.address.port()));
    })?;
    Ok(counts.into_iter().sum())
}

/// Folds the sockets in some states into one value for each family, however many there are.
fn fold<T: Default>(
    netns: &Netns,
    states: u32,
    each: impl Fn(&mut T, ListenerInfo),
) -> io::Result<Vec<T>> {
    let mut conversation = Conversation::open(netns, PROTOCOL).map_err(|fault| match fault {
        OpenFault::Enter(error) => io::Error::other(error),
        OpenFault::Socket(error) => error,
    })?;
    let mut values = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        // inet_diag_req_v2: family, protocol, extensions, padding, states, a socket id of zeroes.
        let mut body = vec![u8::try_from(family).unwrap_or_default(), 6, 0, 0];
        body.extend_from_slice(&states.to_ne_bytes());
        body.resize(8 + 48, 0);
        let message = Message {
            kind: BY_FAMILY,
            flags: 0,
            body,
        };
        let value = conversation.fold(&message, |value, body| {
            decode(body).into_iter().for_each(|s| each(value, s));
            Ok(())
        });
        values.push(value?);
    }
    Ok(values)
}

/// Reads `inet_diag_msg`: family, state, timer, retransmits, id (48), expires, queues, uid, inode,
/// attributes.
fn decode(body: &[u8]) -> Option<ListenerInfo> {
    let word = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let port = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    let address = match i32::from(*body.first()?) {
        libc::AF_INET => {
            let bytes: [u8; 4] = body.get(8..12)?.try_into().ok()?;
            IpAddr::V4(Ipv4Addr::from(bytes))
        }
        _ => {
            let bytes: [u8; 16] = body.get(8..24)?.try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
    };
    Some(ListenerInfo {
        address: SocketAddr::new(address, port),
        inode: word(68)?,
        uid: word(64)?,
        waiting: word(56)?,
        mark: AttributeIter::new(body.get(72..)?).ne32(MARK),
    })
}

#[cfg(test)]
mod tests {
    use super::listeners;
    use crate::netns::Netns;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn own_listener_is_seen_with_its_queue() {
        let _trace = meshwright_testkit::trace();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let seen = listeners(&Netns::current().unwrap(), address.port()).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].address, seen[0].waiting), (address, 1));
        assert_eq!(seen[0].uid, nix::unistd::getuid().as_raw());
    }
}
