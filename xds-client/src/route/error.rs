//! Why there is no way.

use std::{net::IpAddr, sync::Arc};

use meshwright_identity::Fault;

/// There is nowhere to send a connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoute {
    /// A tunnel asks for an address that is neither this workload's nor one it forwards for.
    ///
    /// With resources asked for on demand, the address may just not be known yet.
    #[error("ip mismatch: {address} is not served here")]
    AddressMismatch {
        /// The address asked for.
        address: IpAddr,
    },
    /// The destination is on another network; tunnels across networks are not built yet.
    #[error("the destination is on network `{network}`")]
    CrossNetwork {
        /// The other network.
        network: Arc<str>,
    },
    /// The target is a port of the proxy itself.
    #[error("port {port} belongs to the proxy")]
    IllegalPort {
        /// The port.
        port: u16,
    },
    /// The workload that was chosen has no address of a family the service allows.
    #[error("workload `{workload}` has no usable address")]
    NoAddress {
        /// Its UID.
        workload: Arc<str>,
    },
    /// No endpoint of the service can take the connection.
    ///
    /// None is known, none is healthy, none has the port, or a strict preference excludes all.
    #[error("no healthy upstream for service `{service}`")]
    NoHealthyUpstream {
        /// The service's key.
        service: Arc<str>,
    },
    /// The service named by a tunnel has no such port here.
    #[error("service `{service}` has no port {port}")]
    NoPort {
        /// The service's key.
        service: Arc<str>,
        /// The service port asked for.
        port: u16,
    },
    /// A workload calls one of the proxy's ports by loopback.
    #[error("attempted recursive call to ourselves")]
    Recursive,
    /// No service that this workload may see has this name.
    #[error("unknown service `{hostname}`")]
    UnknownService {
        /// The host name asked for.
        hostname: Arc<str>,
    },
    /// A waypoint must be passed that is not known.
    #[error("unknown waypoint `{waypoint}`")]
    UnknownWaypoint {
        /// The reference, `namespace/hostname` or `network/ip`.
        waypoint: String,
    },
    /// The endpoint has only a host name; resolving it is not built yet.
    #[error("endpoint `{hostname}` has no address")]
    Unresolved {
        /// The endpoint's host name.
        hostname: Arc<str>,
    },
    /// A waypoint must be passed that has no usable endpoint.
    #[error("no healthy waypoint `{waypoint}`")]
    WaypointUnavailable {
        /// The reference, `namespace/hostname` or `network/ip`.
        waypoint: String,
    },
}

impl NoRoute {
    /// Whose doing it is: the caller's for a bad target, else the control plane's, whose records
    /// lead nowhere (yet).
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::AddressMismatch { .. } | Self::IllegalPort { .. } | Self::Recursive => {
                Fault::Caller
            }
            Self::CrossNetwork { .. }
            | Self::NoAddress { .. }
            | Self::NoHealthyUpstream { .. }
            | Self::NoPort { .. }
            | Self::UnknownService { .. }
            | Self::UnknownWaypoint { .. }
            | Self::Unresolved { .. }
            | Self::WaypointUnavailable { .. } => Fault::Peer,
        }
    }

    /// Whether the same call may succeed on a later snapshot. Nothing was sent in any case.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        !matches!(
            self,
            Self::IllegalPort { .. } | Self::Recursive | Self::CrossNetwork { .. }
        )
    }

    /// The status with which a tunnel's request is refused.
    ///
    /// 400 for an address that is not served here, 503 for everything else, as Istio's proxies
    /// answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::AddressMismatch { .. } => 400,
            Self::CrossNetwork { .. }
            | Self::IllegalPort { .. }
            | Self::NoAddress { .. }
            | Self::NoHealthyUpstream { .. }
            | Self::NoPort { .. }
            | Self::Recursive
            | Self::UnknownService { .. }
            | Self::UnknownWaypoint { .. }
            | Self::Unresolved { .. }
            | Self::WaypointUnavailable { .. } => 503,
        }
    }
}
