//! One workload, checked.

use std::{fmt, net::IpAddr, sync::Arc};

use meshwright_identity::SpiffeId;

use super::gateway::GatewayAddress;

/// A workload of the mesh: a pod, a virtual machine or an external endpoint.
///
/// Checked when it was received; all strings are shared with other records where they are equal,
/// and everything that replicas have in common is stored once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    pub(super) uid: Arc<str>,
    pub(super) name: Name,
    pub(super) node: Arc<str>,
    pub(super) locality: Arc<Locality>,
    pub(super) addresses: Addresses,
    pub(super) capacity: u32,
    pub(super) health: Health,
    pub(super) shared: Arc<Shared>,
}

/// What replicas of one deployment have in common.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Shared {
    pub(super) namespace: Arc<str>,
    pub(super) service_account: Arc<str>,
    pub(super) trust_domain: Arc<str>,
    pub(super) identity: SpiffeId,
    pub(super) network: Arc<str>,
    pub(super) cluster_id: Arc<str>,
    pub(super) canonical_name: Arc<str>,
    pub(super) canonical_revision: Arc<str>,
    pub(super) workload_name: Arc<str>,
    pub(super) workload_type: WorkloadType,
    pub(super) protocol: Protocol,
    pub(super) native_tunnel: bool,
    pub(super) network_mode: NetworkMode,
    pub(super) application_tunnel: Option<ApplicationTunnel>,
    pub(super) hostname: Arc<str>,
    pub(super) waypoint: Option<Box<GatewayAddress>>,
    pub(super) network_gateway: Option<Box<GatewayAddress>>,
    pub(super) authorization_policies: Box<[Arc<str>]>,
    pub(super) services: Box<[Membership]>,
}

impl Workload {
    /// The primary key, such as `Kubernetes//Pod/default/sleep`.
    pub const fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    /// The pod's name (or that of the entry it stands for).
    pub fn name(&self) -> &str {
        match &self.name {
            Name::EndOfUid(start) => self.uid.get(usize::from(*start)..).unwrap_or_default(),
            Name::Own(name) => name,
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.shared.namespace
    }

    /// The service account; `default` when the control plane sent none.
    pub fn service_account(&self) -> &Arc<str> {
        &self.shared.service_account
    }

    /// The trust domain; `cluster.local` when the control plane sent none.
    pub fn trust_domain(&self) -> &Arc<str> {
        &self.shared.trust_domain
    }

    /// The SPIFFE ID that this workload's certificate must carry.
    pub fn identity(&self) -> SpiffeId {
        self.shared.identity.clone()
    }

    /// The IP addresses, in the order of the control plane; may be none.
    pub fn addresses(&self) -> &[IpAddr] {
        self.addresses.as_slice()
    }

    /// The network on which the addresses mean something; may be empty.
    pub fn network(&self) -> &Arc<str> {
        &self.shared.network
    }

    /// A DNS name to resolve when there is no address; may be empty.
    pub fn hostname(&self) -> &Arc<str> {
        &self.shared.hostname
    }

    /// The node it runs on; may be empty.
    pub const fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// The cluster; `Kubernetes` when the control plane sent none.
    pub fn cluster_id(&self) -> &Arc<str> {
        &self.shared.cluster_id
    }

    /// Telemetry: the canonical service name.
    pub fn canonical_name(&self) -> &Arc<str> {
        &self.shared.canonical_name
    }

    /// Telemetry: the canonical revision.
    pub fn canonical_revision(&self) -> &Arc<str> {
        &self.shared.canonical_revision
    }

    /// Telemetry: the name of the deployment or other owner.
    pub fn workload_name(&self) -> &Arc<str> {
        &self.shared.workload_name
    }

    /// Telemetry: what kind of owner it has.
    pub fn workload_type(&self) -> WorkloadType {
        self.shared.workload_type
    }

    /// How to reach it: plain TCP or HBONE.
    pub fn protocol(&self) -> Protocol {
        self.shared.protocol
    }

    /// Whether it speaks HBONE by itself, without a proxy on its node.
    pub fn native_tunnel(&self) -> bool {
        self.shared.native_tunnel
    }

    /// Whether its addresses are its own or its node's.
    pub fn network_mode(&self) -> NetworkMode {
        self.shared.network_mode
    }

    /// How the tunnel ends at the application, for an application that is itself a proxy.
    pub fn application_tunnel(&self) -> Option<ApplicationTunnel> {
        self.shared.application_tunnel
    }

    /// Where it runs, for locality preferences and telemetry.
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// The waypoint that traffic to the workload's own address passes.
    pub fn waypoint(&self) -> Option<&GatewayAddress> {
        self.shared.waypoint.as_deref()
    }

    /// The gateway through which other networks reach it.
    pub fn network_gateway(&self) -> Option<&GatewayAddress> {
        self.shared.network_gateway.as_deref()
    }

    /// Keys `namespace/name` of the policies that select this workload.
    pub fn authorization_policies(&self) -> &[Arc<str>] {
        &self.shared.authorization_policies
    }

    /// Whether it should get traffic from services that want healthy endpoints only.
    pub const fn health(&self) -> Health {
        self.health
    }

    /// The load-balancing weight; 0 gets nothing.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The services it is an endpoint of, ordered by key.
    pub fn services(&self) -> &[Membership] {
        &self.shared.services
    }

    /// The membership in one service, by its key `namespace/hostname`.
    pub fn membership(&self, service: &str) -> Option<&Membership> {
        let services = self.services();
        let at = services
            .binary_search_by(|m| (*m.service).cmp(service))
            .ok()?;
        services.get(at)
    }

    /// How strongly it owns an address that several records claim; the highest wins.
    ///
    /// A pod in the mesh goes before any other pod, a pod before any other record in the mesh.
    pub(super) fn rank(&self) -> u8 {
        match (self.uid.contains("//Pod/"), self.protocol()) {
            (true, Protocol::Hbone) => 3,
            (true, Protocol::Tcp) => 2,
            (false, Protocol::Hbone) => 1,
            (false, Protocol::Tcp) => 0,
        }
    }
}

/// A workload's part in one service.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Membership {
    /// Key of the service, `namespace/hostname`.
    pub service: Arc<str>,
    /// This endpoint's own mapping of the service's ports, ordered by service port.
    pub ports: Box<[PortMapping]>,
}

impl Membership {
    /// This endpoint's port behind a port of the service, unless only the service says.
    #[must_use]
    pub fn target_port(&self, service: u16) -> Option<u16> {
        target_port(&self.ports, service)
    }
}

/// Where a port of a service leads.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct PortMapping {
    /// The port clients call.
    pub service: u16,
    /// The port of the endpoint; 0 for a named port, which each endpoint maps itself.
    pub target: u16,
}

/// The port of the endpoint for `service` port, if the list names one.
pub(super) fn target_port(ports: &[PortMapping], service: u16) -> Option<u16> {
    let at = ports.binary_search_by_key(&service, |p| p.service).ok()?;
    ports
        .get(at)
        .map(|p| p.target)
        .filter(|target| *target != 0)
}

/// Region, zone and subzone; each may be empty.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Locality {
    /// The region.
    pub region: Arc<str>,
    /// The zone within the region.
    pub zone: Arc<str>,
    /// The subzone within the zone.
    pub subzone: Arc<str>,
}

/// How an application that is itself a proxy wants tunnels delivered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct ApplicationTunnel {
    /// What is written before the bytes.
    pub protocol: ApplicationProtocol,
    /// The port that takes all of them, in place of the one asked for.
    pub port: Option<u16>,
}

/// What is written to the application before the bytes of a tunnel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ApplicationProtocol {
    /// Nothing.
    None,
    /// A PROXY protocol version 2 header.
    Proxy,
}

/// Whether a workload should get traffic.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Health {
    /// It is ready.
    Healthy,
    /// It is not; only services that allow all endpoints use it.
    Unhealthy,
}

/// Whose addresses a workload has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum NetworkMode {
    /// The node's: they identify no workload and are not indexed.
    HostNetwork,
    /// Its own.
    Standard,
}

/// How to reach a workload.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/2 CONNECT over mutual TLS on port 15008.
    Hbone,
    /// Plain TCP: it is not in the mesh.
    Tcp,
}

/// What kind of owner a workload has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum WorkloadType {
    /// A cron job.
    CronJob,
    /// A deployment or similar.
    Deployment,
    /// A job.
    Job,
    /// None: a bare pod.
    Pod,
}

impl WorkloadType {
    /// The lower-case name used in telemetry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CronJob => "cronjob",
            Self::Deployment => "deployment",
            Self::Job => "job",
            Self::Pod => "pod",
        }
    }
}

impl fmt::Display for WorkloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name without an allocation if the UID ends with it, as that of a pod does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Name {
    EndOfUid(u16),
    Own(Arc<str>),
}

impl Name {
    pub(super) fn new(uid: &str, name: &str) -> Self {
        let start = uid
            .strip_suffix(name)
            .map(|before| u16::try_from(before.len()));
        match start {
            Some(Ok(start)) => Self::EndOfUid(start),
            Some(Err(_)) | None => Self::Own(name.into()),
        }
    }
}

/// Addresses without an allocation for the usual one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Addresses {
    None,
    One([IpAddr; 1]),
    Many(Box<[IpAddr]>),
}

impl Addresses {
    fn as_slice(&self) -> &[IpAddr] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let all: Vec<IpAddr> = addresses.into_iter().collect();
        match *all {
            [] => Self::None,
            [one] => Self::One([one]),
            _ => Self::Many(all.into_boxed_slice()),
        }
    }
}
