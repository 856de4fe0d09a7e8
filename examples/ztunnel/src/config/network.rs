//! Ports, sockets, HTTP/2 and the pool.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// Listening addresses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ports {
    /// Captured outbound traffic, in each pod: 15001.
    pub outbound: SocketAddr,
    /// Captured inbound plaintext, in each pod: 15006.
    pub inbound_plaintext: SocketAddr,
    /// Tunnels, in each pod: 15008.
    pub inbound_hbone: SocketAddr,
    /// Admin, loopback of the proxy's own namespace: 15000.
    pub admin: Localhost,
    /// Metrics: 15020.
    pub stats: SocketAddr,
    /// Readiness: 15021.
    pub readiness: SocketAddr,
    /// Ports of the proxy that no tunnel may lead to.
    pub illegal: BTreeSet<u16>,
}

/// A port on loopback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Localhost {
    /// The port.
    pub port: u16,
    /// Whether `::1` is listened on beside `127.0.0.1`.
    pub ipv6: bool,
}

/// Options of the sockets made in pods.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sockets {
    /// Packet mark that exempts the proxy's own traffic from capture (`PACKET_MARK`).
    pub mark: Option<NonZeroU32>,
    /// Whether the client's address is kept towards the app (`ENABLE_ORIG_SRC`).
    pub original_source: OriginalSource,
    /// Whether IPv6 is listened on (`IPV6_ENABLED`).
    pub ipv6: bool,
    /// TCP keepalive; `None` if switched off.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`; `None` leaves the kernel's.
    pub user_timeout: Option<Duration>,
    /// Whether apps behind the PROXY protocol are reached on loopback (`LOCALHOST_APP_TUNNEL`).
    pub localhost_app_tunnel: bool,
}

/// Whether the client's address is kept towards the app.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OriginalSource {
    /// Kept where the kernel allows it.
    #[default]
    BestEffort,
    /// Never kept.
    Never,
    /// Kept, or the connection fails.
    Require,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub retries: u32,
}

/// Limits of HTTP/2 connections; `None` leaves the choice to `meshwright-hbone`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Http2 {
    /// Receive window of one stream in bytes (`HTTP2_STREAM_WINDOW_SIZE`).
    pub stream_window: Option<NonZeroU32>,
    /// Receive window of a connection in bytes (`HTTP2_CONNECTION_WINDOW_SIZE`).
    pub connection_window: Option<NonZeroU32>,
    /// Largest frame in bytes, 16384 to 16777215 (`HTTP2_FRAME_SIZE`).
    pub frame_size: Option<NonZeroU32>,
}

/// Limits of the pool of tunnels.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PoolSettings {
    /// Streams on one connection; `None` leaves the choice to `meshwright-hbone`.
    pub max_streams: Option<NonZeroUsize>,
    /// How long an unused connection is kept.
    pub unused_release: Duration,
}

/// How pods are handed over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Handover {
    /// Socket of the node agent (`INPOD_UDS`).
    pub socket: PathBuf,
    /// Whether listeners share their port with a successor (`INPOD_PORT_REUSE`).
    pub port_reuse: bool,
}

impl Localhost {
    /// Returns the addresses to listen on, IPv4 first.
    pub fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let v6 = self.ipv6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
        [Some(v4), v6]
            .into_iter()
            .flatten()
            .map(move |ip| SocketAddr::new(ip, self.port))
    }
}
