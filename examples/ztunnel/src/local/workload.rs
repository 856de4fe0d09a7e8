//! Workloads of the local source.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use meshwright_xds_client::proto::workload as wire;
use serde::Deserialize;

use super::Faults;
use super::service::{Members, RawGateway, octets, ports};

/// One workload, with the field names of `/config_dump`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawWorkload {
    workload_ips: Vec<String>,
    waypoint: Option<RawGateway>,
    network_gateway: Option<RawGateway>,
    protocol: Protocol,
    network_mode: NetworkMode,
    uid: String,
    name: String,
    namespace: String,
    trust_domain: String,
    service_account: String,
    network: String,
    workload_name: String,
    workload_type: WorkloadType,
    canonical_name: String,
    canonical_revision: String,
    hostname: String,
    node: String,
    native_tunnel: bool,
    application_tunnel: Option<RawTunnel>,
    authorization_policies: Vec<String>,
    status: Status,
    cluster_id: String,
    locality: Option<RawLocality>,
    /// `namespace/hostname` to service port to target port.
    services: BTreeMap<String, BTreeMap<u16, u16>>,
    capacity: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
enum Protocol {
    #[serde(rename = "HBONE")]
    Hbone,
    #[default]
    #[serde(rename = "TCP", alias = "NONE")]
    Tcp,
}

#[derive(Debug, Default, Deserialize)]
enum NetworkMode {
    #[default]
    Standard,
    HostNetwork,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WorkloadType {
    #[default]
    Deployment,
    Cronjob,
    Pod,
    Job,
}

#[derive(Debug, Default, Deserialize)]
pub(super) enum Status {
    #[default]
    Healthy,
    Unhealthy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawLocality {
    region: String,
    zone: String,
    subzone: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawTunnel {
    #[serde(default)]
    protocol: TunnelProtocol,
    port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
enum TunnelProtocol {
    #[default]
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "PROXY")]
    Proxy,
}

impl RawWorkload {
    /// Adds the services that name it as their endpoint, by the workload's id.
    pub(super) fn join(&mut self, members: &mut Members) {
        for (service, mapping) in members.remove(&self.uid).unwrap_or_default() {
            self.services.entry(service).or_insert(mapping);
        }
    }

    /// Turns the entry into the message that a control plane would send, with its name.
    pub(super) fn into_address(self, place: &str, faults: &mut Faults) -> (String, wire::Address) {
        if self.uid.is_empty() {
            faults.add(format!("{place}.uid"), "", "a unique id");
        }
        let name = self.uid.clone();
        let workload = self.into_message(place, faults);
        let address = wire::Address {
            r#type: Some(wire::address::Type::Workload(workload)),
        };
        (name, address)
    }

    fn into_message(self, place: &str, faults: &mut Faults) -> wire::Workload {
        wire::Workload {
            addresses: addresses(&self.workload_ips, place, faults),
            waypoint: self.waypoint.and_then(|w| w.into_message(place, faults)),
            network_gateway: self
                .network_gateway
                .and_then(|g| g.into_message(place, faults)),
            services: self
                .services
                .into_iter()
                .map(|(service, mapping)| {
                    (
                        service,
                        wire::PortList {
                            ports: ports(&mapping),
                        },
                    )
                })
                .collect(),
            tunnel_protocol: wire::TunnelProtocol::from(self.protocol).into(),
            network_mode: wire::NetworkMode::from(self.network_mode).into(),
            workload_type: wire::WorkloadType::from(self.workload_type).into(),
            status: wire::WorkloadStatus::from(self.status).into(),
            application_tunnel: self.application_tunnel.map(RawTunnel::into_message),
            locality: self.locality.map(|l| wire::Locality {
                region: l.region,
                zone: l.zone,
                subzone: l.subzone,
            }),
            uid: self.uid,
            name: self.name,
            namespace: self.namespace,
            trust_domain: self.trust_domain,
            service_account: self.service_account,
            network: self.network,
            workload_name: self.workload_name,
            canonical_name: self.canonical_name,
            canonical_revision: self.canonical_revision,
            hostname: self.hostname,
            node: self.node,
            native_tunnel: self.native_tunnel,
            authorization_policies: self.authorization_policies,
            cluster_id: self.cluster_id,
            capacity: self.capacity,
            ..wire::Workload::default()
        }
    }
}

impl From<Protocol> for wire::TunnelProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Hbone => Self::Hbone,
            Protocol::Tcp => Self::None,
        }
    }
}

impl From<NetworkMode> for wire::NetworkMode {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::Standard => Self::Standard,
            NetworkMode::HostNetwork => Self::HostNetwork,
        }
    }
}

impl From<WorkloadType> for wire::WorkloadType {
    fn from(kind: WorkloadType) -> Self {
        match kind {
            WorkloadType::Deployment => Self::Deployment,
            WorkloadType::Cronjob => Self::Cronjob,
            WorkloadType::Pod => Self::Pod,
            WorkloadType::Job => Self::Job,
        }
    }
}

impl From<Status> for wire::WorkloadStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Healthy => Self::Healthy,
            Status::Unhealthy => Self::Unhealthy,
        }
    }
}

impl RawTunnel {
    fn into_message(self) -> wire::ApplicationTunnel {
        wire::ApplicationTunnel {
            protocol: match self.protocol {
                TunnelProtocol::None => wire::application_tunnel::Protocol::None,
                TunnelProtocol::Proxy => wire::application_tunnel::Protocol::Proxy,
            }
            .into(),
            port: self.port.unwrap_or_default().into(),
        }
    }
}

fn addresses(ips: &[String], place: &str, faults: &mut Faults) -> Vec<Bytes> {
    let mut addresses = Vec::with_capacity(ips.len());
    for ip in ips {
        match ip.parse::<IpAddr>() {
            Ok(ip) => addresses.push(octets(ip)),
            Err(_) => faults.add(format!("{place}.workloadIps"), ip, "an IP address"),
        }
    }
    addresses
}
