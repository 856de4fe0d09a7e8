//! References to waypoints and gateways.

use std::{fmt, net::IpAddr, sync::Arc};

/// A waypoint or gateway that traffic must pass.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct GatewayAddress {
    /// Which service or address it is.
    pub destination: GatewayDestination,
    /// The service port to ask for, normally 15008.
    pub hbone_mtls_port: u16,
}

/// What a [`GatewayAddress`] points at.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GatewayDestination {
    /// An address, of a service or a workload.
    Address(NetworkAddress),
    /// A host name, of a service or a workload.
    Hostname {
        /// The namespace in which the name is looked up.
        namespace: Arc<str>,
        /// The fully qualified name.
        hostname: Arc<str>,
    },
}

/// `network/ip` or `namespace/hostname`, as in names of resources.
impl fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname {
                namespace,
                hostname,
            } => write!(f, "{namespace}/{hostname}"),
        }
    }
}

/// An address on a network.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct NetworkAddress {
    /// The network; may be empty.
    pub network: Arc<str>,
    /// The address on it.
    pub ip: IpAddr,
}

/// `network/ip`.
impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}
