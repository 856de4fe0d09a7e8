//! Services, and endpoints of services that have not arrived.

use std::collections::BTreeMap;

use meshwright_xds_client::workload::{
    Endpoint, HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, PortMapping, Scope,
    Service, Snapshot, Visibility,
};
use serde::Serialize;

use super::workloads::{GatewayJson, health};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceJson<'a> {
    name: &'a str,
    namespace: &'a str,
    hostname: &'a str,
    vips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidr_vips: Vec<CidrJson<'a>>,
    ports: BTreeMap<u16, u16>,
    endpoints: BTreeMap<&'a str, EndpointJson<'a>>,
    subject_alt_names: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weighted_waypoints: Vec<WeightedJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<LoadBalancerJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_families: Option<&'static str>,
    canonical: bool,
    visibility: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointJson<'a> {
    workload_uid: &'a str,
    port: BTreeMap<u16, u16>,
    status: &'static str,
}

#[derive(Debug, Serialize)]
struct CidrJson<'a> {
    network: &'a str,
    cidr: String,
}

#[derive(Debug, Serialize)]
struct WeightedJson {
    destination: GatewayJson,
    weight: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancerJson {
    routing_preferences: Vec<&'static str>,
    mode: &'static str,
    health_policy: &'static str,
}

impl<'a> ServiceJson<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, service: &'a Service) -> Self {
        Self {
            name: service.name(),
            namespace: service.namespace(),
            hostname: service.hostname(),
            vips: service.vips().iter().map(ToString::to_string).collect(),
            cidr_vips: service
                .cidr_vips()
                .iter()
                .map(|vip| CidrJson {
                    network: &vip.network,
                    cidr: vip.cidr.to_string(),
                })
                .collect(),
            ports: ports(service.ports()),
            endpoints: snapshot.endpoints(service).map(endpoint).collect(),
            subject_alt_names: service
                .subject_alt_names()
                .iter()
                .map(|san| &**san)
                .collect(),
            waypoint: service.waypoint().map(GatewayJson::of),
            weighted_waypoints: service
                .weighted_waypoints()
                .iter()
                .map(|waypoint| WeightedJson {
                    destination: GatewayJson::of(&waypoint.destination),
                    weight: waypoint.weight,
                })
                .collect(),
            load_balancer: LoadBalancerJson::of(service.load_balancing()),
            ip_families: match service.ip_families() {
                IpFamilies::Dual => Some("Dual"),
                IpFamilies::V4Only => Some("IPv4"),
                IpFamilies::V6Only => Some("IPv6"),
                _ => None,
            },
            canonical: service.canonical(),
            visibility: match service.visibility() {
                Visibility::Namespace => "Namespace",
                _ => "Public",
            },
        }
    }
}

impl LoadBalancerJson {
    /// Nothing for a service that the control plane did not give a mode.
    fn of(balancing: &LoadBalancing) -> Option<Self> {
        let plain = balancing.preferences.is_empty()
            && balancing.mode == LoadBalancingMode::Standard
            && balancing.health == HealthPolicy::OnlyHealthy;
        (!plain).then(|| Self {
            routing_preferences: balancing.preferences.iter().copied().map(scope).collect(),
            mode: match balancing.mode {
                LoadBalancingMode::Failover => "Failover",
                LoadBalancingMode::Passthrough => "Passthrough",
                LoadBalancingMode::Strict => "Strict",
                _ => "Standard",
            },
            health_policy: match balancing.health {
                HealthPolicy::AllowAll => "AllowAll",
                _ => "OnlyHealthy",
            },
        })
    }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Cluster => "Cluster",
        Scope::Network => "Network",
        Scope::Node => "Node",
        Scope::Region => "Region",
        Scope::Subzone => "Subzone",
        Scope::Zone => "Zone",
        _ => "Unknown",
    }
}

/// Endpoints of services that have not arrived, by service.
pub(super) fn staged(snapshot: &Snapshot) -> BTreeMap<&str, BTreeMap<&str, EndpointJson<'_>>> {
    let mut staged: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (service, member) in snapshot.staged_endpoints() {
        let (uid, member) = endpoint(member);
        staged.entry(&**service).or_default().insert(uid, member);
    }
    staged
}

fn endpoint(endpoint: Endpoint<'_>) -> (&str, EndpointJson<'_>) {
    let uid: &str = endpoint.workload.uid();
    let json = EndpointJson {
        workload_uid: uid,
        port: ports(&endpoint.membership.ports),
        status: health(endpoint.workload.health()),
    };
    (uid, json)
}

fn ports(ports: &[PortMapping]) -> BTreeMap<u16, u16> {
    ports
        .iter()
        .map(|port| (port.service, port.target))
        .collect()
}
