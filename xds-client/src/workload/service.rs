//! One service, checked.

use std::sync::Arc;

use ipnet::IpNet;
use meshwright_identity::SpiffeId;

use super::{
    gateway::{GatewayAddress, NetworkAddress},
    model::{Health, PortMapping, target_port},
};

/// A service: a name and perhaps virtual addresses in front of workloads.
///
/// Its endpoints are in the [`Snapshot`](super::Snapshot), which knows the workloads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    pub(super) key: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) hostname: Arc<str>,
    pub(super) vips: Box<[NetworkAddress]>,
    pub(super) cidr_vips: Box<[NetworkCidr]>,
    pub(super) ports: Box<[PortMapping]>,
    pub(super) subject_alt_names: Box<[Arc<str>]>,
    pub(super) accepted: Box<[SpiffeId]>,
    pub(super) waypoint: Option<GatewayAddress>,
    pub(super) weighted_waypoints: Box<[WeightedWaypoint]>,
    pub(super) load_balancing: LoadBalancing,
    pub(super) ip_families: IpFamilies,
    pub(super) canonical: bool,
    pub(super) visibility: Visibility,
}

impl Service {
    /// The primary key, `namespace/hostname`.
    pub const fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// The short name, for telemetry.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The namespace.
    pub const fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// The fully qualified name; may be a wildcard such as `*.example.com`.
    pub const fn hostname(&self) -> &Arc<str> {
        &self.hostname
    }

    /// The virtual addresses; none for a headless service.
    pub fn vips(&self) -> &[NetworkAddress] {
        &self.vips
    }

    /// Virtual address ranges.
    pub fn cidr_vips(&self) -> &[NetworkCidr] {
        &self.cidr_vips
    }

    /// The ports, ordered by service port.
    pub fn ports(&self) -> &[PortMapping] {
        &self.ports
    }

    /// Whether the service has this port.
    pub fn has_port(&self, port: u16) -> bool {
        self.ports
            .binary_search_by_key(&port, |p| p.service)
            .is_ok()
    }

    /// The port of the endpoints behind `port`, unless it is named or unknown.
    pub fn target_port(&self, port: u16) -> Option<u16> {
        target_port(&self.ports, port)
    }

    /// Identities accepted from endpoints besides their own, as received.
    pub fn subject_alt_names(&self) -> &[Arc<str>] {
        &self.subject_alt_names
    }

    /// Those of [`subject_alt_names`](Self::subject_alt_names) that are SPIFFE IDs; others can
    /// never match a peer of the mesh.
    pub fn accepted_identities(&self) -> &[SpiffeId] {
        &self.accepted
    }

    /// The waypoint that traffic to the service passes.
    pub const fn waypoint(&self) -> Option<&GatewayAddress> {
        self.waypoint.as_ref()
    }

    /// Waypoints of which one is sampled per connection; if none can be, [`waypoint`](Self::waypoint) counts.
    pub fn weighted_waypoints(&self) -> &[WeightedWaypoint] {
        &self.weighted_waypoints
    }

    /// How an endpoint is chosen.
    pub const fn load_balancing(&self) -> &LoadBalancing {
        &self.load_balancing
    }

    /// Which addresses of an endpoint may be used.
    pub const fn ip_families(&self) -> IpFamilies {
        self.ip_families
    }

    /// Whether it wins ties between services of one name or address.
    pub const fn canonical(&self) -> bool {
        self.canonical
    }

    /// Who may see it.
    pub const fn visibility(&self) -> Visibility {
        self.visibility
    }

    /// Whether a client in `namespace` may see it.
    pub fn is_visible_to(&self, namespace: &str) -> bool {
        match self.visibility {
            Visibility::Namespace => &*self.namespace == namespace,
            Visibility::Public => true,
        }
    }

    /// Whether an endpoint of this health may get traffic.
    pub const fn admits(&self, health: Health) -> bool {
        matches!(
            (self.load_balancing.health, health),
            (HealthPolicy::AllowAll, _) | (_, Health::Healthy)
        )
    }
}

/// A range of addresses on a network.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct NetworkCidr {
    /// The network; may be empty.
    pub network: Arc<str>,
    /// The range; bits below the prefix are zero.
    pub cidr: IpNet,
}

/// One of several waypoints of a service.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct WeightedWaypoint {
    /// Which one.
    pub destination: GatewayAddress,
    /// Its share; 0 gets nothing.
    pub weight: u32,
}

/// How an endpoint of a service is chosen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct LoadBalancing {
    /// What an endpoint should have in common with the client, most important first.
    pub preferences: Box<[Scope]>,
    /// How the preferences are applied.
    pub mode: LoadBalancingMode,
    /// Which endpoints count at all.
    pub health: HealthPolicy,
}

/// Something an endpoint may have in common with its client. Each includes the coarser ones only
/// if they are listed before it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Scope {
    /// The cluster.
    Cluster,
    /// The network.
    Network,
    /// The node.
    Node,
    /// The region.
    Region,
    /// The subzone.
    Subzone,
    /// The zone.
    Zone,
}

/// How preferences are applied.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LoadBalancingMode {
    /// The endpoints that match the most preferences, from the first on.
    Failover,
    /// No balancing: the client's own destination is kept.
    Passthrough,
    /// All endpoints alike.
    Standard,
    /// Only endpoints that match all preferences.
    Strict,
}

/// Which endpoints get traffic.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HealthPolicy {
    /// Every one.
    AllowAll,
    /// Those that are ready.
    OnlyHealthy,
}

/// Which addresses of endpoints may be used.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IpFamilies {
    /// Any; the control plane did not say.
    Automatic,
    /// Both families.
    Dual,
    /// Version 4 only.
    V4Only,
    /// Version 6 only.
    V6Only,
}

/// Who may see a service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Visibility {
    /// Clients in its namespace.
    Namespace,
    /// Everyone.
    Public,
}
