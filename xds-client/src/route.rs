//! Where a connection goes: pure decisions over one snapshot.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use meshwright_identity::{Fault, SpiffeId};
use rand::Rng;

use crate::workload::{Service, Snapshot, Workload};

/// The port on which members of the mesh accept tunnels.
pub const HBONE_PORT: u16 = 15008;

/// Who opens a connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Source<'a> {
    /// The workload whose namespace the connection comes from.
    pub workload: &'a Workload,
    /// The network this proxy is on.
    pub network: &'a str,
    /// The address the connection comes from.
    pub address: IpAddr,
    /// Ports of this proxy: calls to them by loopback are refused.
    pub illegal_ports: &'a [u16],
}

impl<'a> Source<'a> {
    /// A source without illegal ports.
    pub const fn new(workload: &'a Workload, network: &'a str, address: IpAddr) -> Self {
        Self {
            workload,
            network,
            address,
            illegal_ports: &[],
        }
    }

    /// Sets the ports that must not be called by loopback.
    #[must_use]
    pub const fn with_illegal_ports(mut self, ports: &'a [u16]) -> Self {
        self.illegal_ports = ports;
        self
    }
}

/// Where a connection goes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// How.
    pub kind: RouteKind,
    /// The workload it is sent to: the endpoint, or the waypoint's.
    pub workload: Option<Arc<Workload>>,
    /// The service that was called, if any.
    pub service: Option<Arc<Service>>,
    /// Whether the workload is a waypoint that forwards.
    pub via_waypoint: bool,
}

/// How a connection goes out.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RouteKind {
    /// In a tunnel.
    Hbone {
        /// The TCP destination of the tunnel's connection.
        address: SocketAddr,
        /// The target asked for in the tunnel.
        authority: Authority,
        /// The identities of which the server must show one; never empty.
        accepted: Arc<[SpiffeId]>,
    },
    /// Plain, to where the client wanted: the destination is not in the mesh.
    Passthrough(SocketAddr),
    /// Plain, to an endpoint.
    Tcp(SocketAddr),
}

/// The target named in a tunnel's request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Authority {
    /// A name, resolved by the other end.
    Host {
        /// The host name.
        name: Arc<str>,
        /// The service port.
        port: u16,
    },
    /// An address.
    Ip(SocketAddr),
}

/// As on the wire; version 6 addresses in brackets.
impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// Where an accepted tunnel ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InboundTarget {
    /// Where to connect to.
    pub address: SocketAddr,
    /// The destination that policy judges: before an application tunnel changes the port.
    pub destination: SocketAddr,
    /// The service named in the authority, if it was a host name.
    pub service: Option<Arc<Service>>,
}

/// There is nowhere to send a connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoute {
    /// The destination is on another network; tunnels across networks are not built yet.
    #[error("the destination is on network `{network}`")]
    CrossNetwork {
        /// The other network.
        network: Arc<str>,
    },
}

impl NoRoute {
    /// Whose doing it is.
    pub const fn fault(&self) -> Fault {
        Fault::Peer
    }

    /// Whether the same call may succeed later without a change of the request.
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// The status with which a tunnel's request is refused: 400 or 503.
    pub const fn status(&self) -> u16 {
        503
    }
}

/// Decides where a connection of `source` to `destination` goes.
///
/// # Errors
///
/// Returns why there is no way; never falls back to one that avoids a waypoint or a tunnel.
pub fn outbound(
    snapshot: &Snapshot,
    source: &Source<'_>,
    destination: SocketAddr,
    rng: &mut impl Rng,
) -> Result<Route, NoRoute> {
    todo!()
}

/// Decides where a tunnel to `own` ends that was accepted on `local`.
///
/// # Errors
///
/// Returns why `authority` is not a target that this workload serves.
pub fn inbound(
    snapshot: &Snapshot,
    own: &Workload,
    local: SocketAddr,
    authority: &Authority,
    illegal_ports: &[u16],
) -> Result<InboundTarget, NoRoute> {
    todo!()
}
