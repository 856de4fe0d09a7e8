//! Workloads.

use std::net::IpAddr;

use meshwright_xds_client::workload::{
    ApplicationProtocol, GatewayAddress, Health, NetworkMode, Protocol, Workload,
};
use serde::Serialize;

/// Skips what is empty, as the incumbent does.
fn empty(text: &&str) -> bool {
    text.is_empty()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadJson<'a> {
    workload_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<GatewayJson>,
    protocol: &'static str,
    network_mode: &'static str,
    #[serde(skip_serializing_if = "empty")]
    uid: &'a str,
    name: &'a str,
    namespace: &'a str,
    #[serde(skip_serializing_if = "empty")]
    trust_domain: &'a str,
    #[serde(skip_serializing_if = "empty")]
    service_account: &'a str,
    #[serde(skip_serializing_if = "empty")]
    network: &'a str,
    #[serde(skip_serializing_if = "empty")]
    workload_name: &'a str,
    workload_type: &'static str,
    #[serde(skip_serializing_if = "empty")]
    canonical_name: &'a str,
    #[serde(skip_serializing_if = "empty")]
    canonical_revision: &'a str,
    #[serde(skip_serializing_if = "empty")]
    hostname: &'a str,
    #[serde(skip_serializing_if = "empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    native_tunnel: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_tunnel: Option<ApplicationTunnelJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_policies: Vec<&'a str>,
    status: &'static str,
    cluster_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<LocalityJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<&'a str>,
    capacity: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayJson {
    destination: String,
    hbone_mtls_port: u16,
}

#[derive(Debug, Serialize)]
struct ApplicationTunnelJson {
    protocol: &'static str,
    port: Option<u16>,
}

#[derive(Debug, Serialize)]
struct LocalityJson<'a> {
    region: &'a str,
    zone: &'a str,
    subzone: &'a str,
}

impl<'a> WorkloadJson<'a> {
    pub(super) fn of(workload: &'a Workload) -> Self {
        Self {
            workload_ips: workload.addresses(),
            waypoint: workload.waypoint().map(GatewayJson::of),
            network_gateway: workload.network_gateway().map(GatewayJson::of),
            protocol: match workload.protocol() {
                Protocol::Hbone => "HBONE",
                _ => "TCP",
            },
            network_mode: match workload.network_mode() {
                NetworkMode::HostNetwork => "HostNetwork",
                _ => "Standard",
            },
            uid: workload.uid(),
            name: workload.name(),
            namespace: workload.namespace(),
            trust_domain: workload.trust_domain(),
            service_account: workload.service_account(),
            network: workload.network(),
            workload_name: workload.workload_name(),
            workload_type: workload.workload_type().as_str(),
            canonical_name: workload.canonical_name(),
            canonical_revision: workload.canonical_revision(),
            hostname: workload.hostname(),
            node: workload.node(),
            native_tunnel: workload.native_tunnel(),
            application_tunnel: workload.application_tunnel().map(|tunnel| {
                let protocol = match tunnel.protocol {
                    ApplicationProtocol::Proxy => "PROXY",
                    _ => "NONE",
                };
                let port = tunnel.port;
                ApplicationTunnelJson { protocol, port }
            }),
            authorization_policies: names(workload.authorization_policies().iter()),
            status: health(workload.health()),
            cluster_id: workload.cluster_id(),
            locality: LocalityJson::of(workload),
            services: names(workload.services().iter().map(|member| &member.service)),
            capacity: workload.capacity(),
        }
    }
}

impl GatewayJson {
    pub(super) fn of(gateway: &GatewayAddress) -> Self {
        Self {
            destination: gateway.destination.to_string(),
            hbone_mtls_port: gateway.hbone_mtls_port,
        }
    }
}

impl<'a> LocalityJson<'a> {
    fn of(workload: &'a Workload) -> Option<Self> {
        let locality = workload.locality();
        let parts = [&*locality.region, &*locality.zone, &*locality.subzone];
        let [region, zone, subzone] = parts;
        let known = parts.iter().any(|part| !part.is_empty());
        known.then_some(Self {
            region,
            zone,
            subzone,
        })
    }
}

pub(super) fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        _ => "Unhealthy",
    }
}

fn names<'a>(names: impl Iterator<Item = &'a std::sync::Arc<str>>) -> Vec<&'a str> {
    names.map(|name| &**name).collect()
}
