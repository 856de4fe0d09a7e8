//! Services of the local source, and what they share with workloads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use meshwright_xds_client::proto::workload as wire;
use serde::Deserialize;

use super::Faults;
use super::workload::Status;

/// One service, with the field names of `/config_dump`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawService {
    name: String,
    namespace: String,
    hostname: String,
    /// `network/ip`.
    vips: Vec<String>,
    cidr_vips: Vec<RawCidr>,
    /// Service port to target port; 0 leaves the choice to the endpoints.
    ports: BTreeMap<u16, u16>,
    /// Workloads of the same source, by their ids.
    endpoints: BTreeMap<String, RawEndpoint>,
    subject_alt_names: Vec<String>,
    waypoint: Option<RawGateway>,
    weighted_waypoints: Vec<RawWeighted>,
    load_balancer: Option<RawLoadBalancer>,
    ip_families: Option<IpFamilies>,
    canonical: bool,
    visibility: Visibility,
}

/// Services that name endpoints, with their ports, by the workload's id.
pub(super) type Members = BTreeMap<String, BTreeMap<String, BTreeMap<u16, u16>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCidr {
    network: String,
    cidr: String,
}

/// One endpoint; whether it is healthy, its workload says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawEndpoint {
    workload_uid: String,
    port: BTreeMap<u16, u16>,
    #[serde(rename = "status")]
    _status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWeighted {
    destination: RawGateway,
    weight: u32,
}

/// A reference to a waypoint or gateway.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawGateway {
    /// `network/ip` or `namespace/hostname`.
    destination: String,
    #[serde(default = "default_gateway_port")]
    hbone_mtls_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawLoadBalancer {
    routing_preferences: Vec<Scope>,
    mode: Mode,
    health_policy: HealthPolicy,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Scope {
    Cluster,
    Network,
    Node,
    Region,
    Subzone,
    Zone,
}

#[derive(Debug, Default, Deserialize)]
enum Mode {
    Failover,
    Passthrough,
    #[default]
    Standard,
    Strict,
}

#[derive(Debug, Default, Deserialize)]
enum HealthPolicy {
    AllowAll,
    #[default]
    OnlyHealthy,
}

#[derive(Debug, Deserialize)]
enum IpFamilies {
    Dual,
    IPv4,
    IPv6,
}

#[derive(Debug, Default, Deserialize)]
enum Visibility {
    Namespace,
    #[default]
    Public,
}

const fn default_gateway_port() -> u16 {
    15008
}

impl RawService {
    /// Moves the endpoints out, to the workloads that they are.
    pub(super) fn take_endpoints(&mut self, members: &mut Members) {
        for endpoint in std::mem::take(&mut self.endpoints).into_values() {
            let services = members.entry(endpoint.workload_uid).or_default();
            services.insert(self.key(), endpoint.port);
        }
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.hostname)
    }

    /// Turns the entry into the message that a control plane would send, with its name.
    pub(super) fn into_address(self, place: &str, faults: &mut Faults) -> (String, wire::Address) {
        if self.namespace.is_empty() || self.hostname.is_empty() {
            faults.add(
                place.to_owned(),
                &self.name,
                "a service with namespace and hostname",
            );
        }
        let name = self.key();
        let service = self.into_message(place, faults);
        let address = wire::Address {
            r#type: Some(wire::address::Type::Service(service)),
        };
        (name, address)
    }

    fn into_message(self, place: &str, faults: &mut Faults) -> wire::Service {
        let mut addresses = Vec::with_capacity(self.vips.len());
        for vip in &self.vips {
            match network_address(vip) {
                Some(address) => addresses.push(address),
                None => faults.add(format!("{place}.vips"), vip, "network/ip"),
            }
        }
        for range in self.cidr_vips {
            match range.cidr.parse::<IpNet>() {
                Ok(cidr) => addresses.push(wire::NetworkAddress {
                    network: range.network,
                    address: octets(cidr.addr()),
                    length: Some(cidr.prefix_len().into()),
                }),
                Err(_) => faults.add(format!("{place}.cidrVips"), range.cidr, "a CIDR"),
            }
        }
        let weighted = self.weighted_waypoints.into_iter();
        let weighted = weighted.map(|waypoint| wire::WeightedWaypoint {
            destination: waypoint.destination.into_message(place, faults),
            weight: waypoint.weight,
        });
        wire::Service {
            addresses,
            weighted_waypoints: weighted.collect(),
            ports: ports(&self.ports),
            subject_alt_names: self.subject_alt_names,
            waypoint: self.waypoint.and_then(|w| w.into_message(place, faults)),
            load_balancing: self.load_balancer.map(RawLoadBalancer::into_message),
            ip_families: match self.ip_families {
                None => wire::IpFamilies::Automatic,
                Some(IpFamilies::IPv4) => wire::IpFamilies::Ipv4Only,
                Some(IpFamilies::IPv6) => wire::IpFamilies::Ipv6Only,
                Some(IpFamilies::Dual) => wire::IpFamilies::Dual,
            }
            .into(),
            visibility: match self.visibility {
                Visibility::Public => wire::service::Visibility::Public,
                Visibility::Namespace => wire::service::Visibility::Namespace,
            }
            .into(),
            name: self.name,
            namespace: self.namespace,
            hostname: self.hostname,
            canonical: self.canonical,
            ..wire::Service::default()
        }
    }
}

impl RawGateway {
    /// Returns `None`, and reports, if the destination is neither an address nor a host.
    pub(super) fn into_message(
        self,
        place: &str,
        faults: &mut Faults,
    ) -> Option<wire::GatewayAddress> {
        let destination = if let Some(address) = network_address(&self.destination) {
            wire::gateway_address::Destination::Address(address)
        } else if let Some((namespace, hostname)) = self.destination.split_once('/')
            && !namespace.is_empty()
            && !hostname.is_empty()
        {
            wire::gateway_address::Destination::Hostname(wire::NamespacedHostname {
                namespace: namespace.to_owned(),
                hostname: hostname.to_owned(),
            })
        } else {
            faults.add(
                format!("{place}.waypoint.destination"),
                self.destination,
                "network/ip or namespace/hostname",
            );
            return None;
        };
        Some(wire::GatewayAddress {
            hbone_mtls_port: self.hbone_mtls_port.into(),
            destination: Some(destination),
        })
    }
}

impl RawLoadBalancer {
    fn into_message(self) -> wire::LoadBalancing {
        wire::LoadBalancing {
            routing_preference: self
                .routing_preferences
                .into_iter()
                .map(|scope| {
                    match scope {
                        Scope::Cluster => wire::load_balancing::Scope::Cluster,
                        Scope::Network => wire::load_balancing::Scope::Network,
                        Scope::Node => wire::load_balancing::Scope::Node,
                        Scope::Region => wire::load_balancing::Scope::Region,
                        Scope::Subzone => wire::load_balancing::Scope::Subzone,
                        Scope::Zone => wire::load_balancing::Scope::Zone,
                    }
                    .into()
                })
                .collect(),
            mode: match self.mode {
                Mode::Failover => wire::load_balancing::Mode::Failover,
                Mode::Passthrough => wire::load_balancing::Mode::Passthrough,
                Mode::Standard => wire::load_balancing::Mode::UnspecifiedMode,
                Mode::Strict => wire::load_balancing::Mode::Strict,
            }
            .into(),
            health_policy: match self.health_policy {
                HealthPolicy::AllowAll => wire::load_balancing::HealthPolicy::AllowAll,
                HealthPolicy::OnlyHealthy => wire::load_balancing::HealthPolicy::OnlyHealthy,
            }
            .into(),
        }
    }
}

/// Service ports in the message's form.
pub(super) fn ports(mapping: &BTreeMap<u16, u16>) -> Vec<wire::Port> {
    mapping
        .iter()
        .map(|(&service_port, &target_port)| wire::Port {
            service_port: service_port.into(),
            target_port: target_port.into(),
            app_protocol: wire::AppProtocol::Unknown.into(),
        })
        .collect()
}

/// An address in network order: 4 or 16 bytes.
pub(super) fn octets(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// Reads `network/ip`, where the network may be empty.
fn network_address(text: &str) -> Option<wire::NetworkAddress> {
    let (network, ip) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    Some(wire::NetworkAddress {
        network: network.to_owned(),
        address: octets(ip),
        length: None,
    })
}
