//! What a tunnel is asked for, and which tunnels may share a connection.

use crate::{authority::Authority, headers::TunnelHeaders};
use meshwright_identity::{AcceptedPeers, SpiffeId};
use std::{net::SocketAddr, sync::Arc};

/// Keeps the tunnels of different sources apart: connections are never shared across origins.
///
/// Opaque to the pool; a node proxy puts the source pod in it.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Origin(Arc<str>);

impl Origin {
    /// Makes an origin from any name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }
}

/// Where a tunnel goes, through whom, and what it says.
///
/// ```
/// use meshwright_hbone::{Authority, Origin, Target};
/// use meshwright_identity::{AcceptedPeers, SpiffeId};
///
/// let peer = SpiffeId::parse("spiffe://cluster.local/ns/prod/sa/reviews")?;
/// let target = Target::new(
///     "10.0.0.7:15008".parse()?,
///     Authority::parse("10.0.0.7:9080")?,
///     AcceptedPeers::from(peer),
/// )
/// .with_origin(Origin::new("pod-a"));
/// # let _ = target;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The peer's address: a workload, a waypoint or a gateway.
    pub address: SocketAddr,
    /// What the peer is asked to connect to.
    pub authority: Authority,
    /// The identities one of which the peer must prove.
    pub accepted: AcceptedPeers,
    /// Whose traffic this is. Default: the empty origin.
    pub origin: Origin,
    /// The network of the destination. Default: empty.
    pub network: Arc<str>,
    /// The destination workload: after its address has been given to another one, no connection
    /// to the old one is used. Default: empty.
    pub destination_uid: Arc<str>,
    /// Headers of the request.
    pub headers: TunnelHeaders,
}

impl Target {
    /// Makes a target with defaults for what is optional.
    #[must_use]
    pub fn new(address: SocketAddr, authority: Authority, accepted: AcceptedPeers) -> Self {
        Self {
            address,
            authority,
            accepted,
            origin: Origin::default(),
            network: "".into(),
            destination_uid: "".into(),
            headers: TunnelHeaders::default(),
        }
    }

    /// Sets whose traffic this is.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Sets the network and the destination workload.
    #[must_use]
    pub fn with_destination(mut self, network: Arc<str>, uid: Arc<str>) -> Self {
        self.network = network;
        self.destination_uid = uid;
        self
    }

    /// Sets the headers of the request.
    #[must_use]
    pub fn with_headers(mut self, headers: TunnelHeaders) -> Self {
        self.headers = headers;
        self
    }
}

/// Tunnels with equal keys may share a connection; the authority and the headers are not part of
/// it, everything that decides who talks to whom is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key {
    own: SpiffeId,
    origin: Origin,
    accepted: AcceptedPeers,
    address: SocketAddr,
    network: Arc<str>,
    destination_uid: Arc<str>,
}

impl Key {
    pub(crate) fn new(own: SpiffeId, target: &Target) -> Self {
        Self {
            own,
            origin: target.origin.clone(),
            accepted: target.accepted.clone(),
            address: target.address,
            network: Arc::clone(&target.network),
            destination_uid: Arc::clone(&target.destination_uid),
        }
    }
}
