//! Where a connection goes: pure decisions over one snapshot.
//!
//! [`outbound`] decides for a connection that a workload opens, [`inbound`] for a tunnel that one
//! accepts. Both read one [`Snapshot`], so that no decision mixes two states, and draw from the
//! random generator they are given, so that a test can repeat them.
//!
//! Nothing here falls back to a way that avoids a waypoint or a tunnel: where the intended way is
//! not there, the answer is a [`NoRoute`].
//!
//! | case | TCP destination | authority | accepted identities |
//! | --- | --- | --- | --- |
//! | workload in the mesh | its address, port 15008 | its address : target port | its own, and the service's alternatives |
//! | waypoint of a service | waypoint's address : its mapped port | address and port that were called | the waypoint's, and its service's alternatives |
//! | waypoint of a workload | the same | the same | the same |
//! | workload outside | its address : target port | none | none |
//! | anything unknown | as called | none | none |
//!
//! Destinations on another network need a second tunnel inside the first; that is not built yet
//! and answered by [`NoRoute::CrossNetwork`]. Endpoints that have a host name and no address are
//! answered by [`NoRoute::Unresolved`].

mod balance;
mod error;
mod gateway;
mod inbound;
mod outbound;
#[cfg(test)]
mod testing;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use meshwright_identity::SpiffeId;

pub use error::NoRoute;
pub use inbound::{InboundTarget, inbound};
pub use outbound::outbound;

#[cfg(doc)]
use crate::workload::Snapshot;
use crate::workload::{Service, Workload};

/// The port on which members of the mesh accept tunnels.
pub const HBONE_PORT: u16 = 15008;

/// Who opens a connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Source<'a> {
    /// The workload whose network namespace the connection comes from.
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
    /// The service that was called, if any; not the waypoint's own.
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
    /// Plain, to where the client wanted: the destination is not known.
    Passthrough(SocketAddr),
    /// Plain, to an endpoint that is not in the mesh.
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
