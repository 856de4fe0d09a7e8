//! From messages to checked records.
//!
//! What cannot be represented is refused, never cut down to what fits: a port of 65617 must not
//! become 81.

mod network;

use std::sync::Arc;

use self::network::{gateway, ip, optional_gateway, port, vips};
use super::{
    intern::Interner,
    invalid::{InvalidResource, TextFault},
    model::{
        ApplicationProtocol, ApplicationTunnel, Health, Locality, Membership, Name, NetworkMode,
        PortMapping, Protocol, Shared, Workload, WorkloadType,
    },
    service::{
        HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Scope, Service, Visibility,
        WeightedWaypoint,
    },
};
use crate::proto::workload as wire;

/// No name in a mesh is longer; what is would only fill memory and logs.
pub(crate) const MAX_TEXT_BYTES: usize = 4096;

const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
const DEFAULT_SERVICE_ACCOUNT: &str = "default";
const DEFAULT_CLUSTER: &str = "Kubernetes";

/// Checks a workload; `name` is the resource's, shared with the record if it is the UID.
pub(super) fn workload(
    interner: &mut Interner,
    name: &Arc<str>,
    from: &wire::Workload,
) -> Result<Workload, InvalidResource> {
    if from.uid.is_empty() {
        return Err(InvalidResource::Missing { field: "uid" });
    }
    checked("uid", &from.uid)?;
    let addresses = from.addresses.iter().map(|bytes| ip("addresses", bytes));
    let uid = if **name == *from.uid {
        Arc::clone(name)
    } else {
        from.uid.as_str().into()
    };
    Ok(Workload {
        name: Name::new(&uid, checked("name", &from.name)?),
        uid,
        locality: locality(interner, from.locality.as_ref())?,
        node: text(interner, "node", &from.node)?,
        addresses: addresses
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .collect(),
        capacity: from.capacity.unwrap_or(1),
        health: health(from.status)?,
        shared: shared(interner, from)?,
    })
}

fn shared(interner: &mut Interner, from: &wire::Workload) -> Result<Arc<Shared>, InvalidResource> {
    let namespace = name_part(interner, "namespace", &from.namespace)?;
    let account = or(&from.service_account, DEFAULT_SERVICE_ACCOUNT);
    let service_account = text(interner, "service_account", account)?;
    let domain = or(&from.trust_domain, DEFAULT_TRUST_DOMAIN);
    let trust_domain = text(interner, "trust_domain", domain)?;
    let identity = interner
        .identity(&trust_domain, &namespace, &service_account)
        .map_err(InvalidResource::Identity)?;
    let cluster = or(&from.cluster_id, DEFAULT_CLUSTER);
    let shared = Shared {
        namespace,
        service_account,
        trust_domain,
        identity,
        network: text(interner, "network", &from.network)?,
        cluster_id: text(interner, "cluster_id", cluster)?,
        canonical_name: text(interner, "canonical_name", &from.canonical_name)?,
        canonical_revision: text(interner, "canonical_revision", &from.canonical_revision)?,
        workload_name: text(interner, "workload_name", &from.workload_name)?,
        workload_type: workload_type(from.workload_type),
        protocol: protocol(from.tunnel_protocol)?,
        native_tunnel: from.native_tunnel,
        network_mode: network_mode(from.network_mode)?,
        application_tunnel: application_tunnel(from.application_tunnel.as_ref())?,
        hostname: text(interner, "hostname", &from.hostname)?,
        waypoint: optional_gateway(interner, "waypoint", from.waypoint.as_ref())?.map(Box::new),
        network_gateway: optional_gateway(
            interner,
            "network_gateway",
            from.network_gateway.as_ref(),
        )?
        .map(Box::new),
        authorization_policies: from
            .authorization_policies
            .iter()
            .map(|key| text(interner, "authorization_policies", key))
            .collect::<Result<_, _>>()?,
        services: memberships(interner, from)?,
    };
    Ok(interner.shared(shared))
}

/// The map comes ordered by key, which is what look-ups expect.
fn memberships(
    interner: &mut Interner,
    from: &wire::Workload,
) -> Result<Box<[Membership]>, InvalidResource> {
    let one = |(key, list): (&String, &wire::PortList)| {
        if !key.contains('/') {
            return Err(wrong("services", TextFault::NoSlash));
        }
        Ok(Membership {
            service: text(interner, "services", key)?,
            ports: ports(&list.ports)?,
        })
    };
    from.services.iter().map(one).collect()
}

fn application_tunnel(
    from: Option<&wire::ApplicationTunnel>,
) -> Result<Option<ApplicationTunnel>, InvalidResource> {
    use wire::application_tunnel::Protocol as Wire;
    let Some(from) = from else { return Ok(None) };
    let field = "application_tunnel.protocol";
    let protocol = match known(field, from.protocol)? {
        Wire::None => ApplicationProtocol::None,
        Wire::Proxy => ApplicationProtocol::Proxy,
    };
    let port = Some(port("application_tunnel.port", from.port)?).filter(|port| *port != 0);
    Ok(Some(ApplicationTunnel { protocol, port }))
}

fn locality(
    interner: &mut Interner,
    from: Option<&wire::Locality>,
) -> Result<Arc<Locality>, InvalidResource> {
    let none = wire::Locality::default();
    let from = from.unwrap_or(&none);
    let locality = Locality {
        region: text(interner, "locality.region", &from.region)?,
        zone: text(interner, "locality.zone", &from.zone)?,
        subzone: text(interner, "locality.subzone", &from.subzone)?,
    };
    Ok(interner.locality(locality))
}

fn health(value: i32) -> Result<Health, InvalidResource> {
    Ok(match known("status", value)? {
        wire::WorkloadStatus::Healthy => Health::Healthy,
        wire::WorkloadStatus::Unhealthy => Health::Unhealthy,
    })
}

fn network_mode(value: i32) -> Result<NetworkMode, InvalidResource> {
    Ok(match known("network_mode", value)? {
        wire::NetworkMode::Standard => NetworkMode::Standard,
        wire::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
    })
}

fn protocol(value: i32) -> Result<Protocol, InvalidResource> {
    match known("tunnel_protocol", value)? {
        wire::TunnelProtocol::None => Ok(Protocol::Tcp),
        wire::TunnelProtocol::Hbone => Ok(Protocol::Hbone),
        wire::TunnelProtocol::LegacyIstioMtls => Err(InvalidResource::UnsupportedTunnel),
    }
}

/// Telemetry only: an unknown value is no reason to refuse the workload.
fn workload_type(value: i32) -> WorkloadType {
    match wire::WorkloadType::try_from(value) {
        Ok(wire::WorkloadType::Cronjob) => WorkloadType::CronJob,
        Ok(wire::WorkloadType::Job) => WorkloadType::Job,
        Ok(wire::WorkloadType::Pod) => WorkloadType::Pod,
        Ok(wire::WorkloadType::Deployment) | Err(_) => WorkloadType::Deployment,
    }
}

/// Checks a service.
pub(super) fn service(
    interner: &mut Interner,
    from: &wire::Service,
) -> Result<Service, InvalidResource> {
    if from.hostname.is_empty() {
        return Err(InvalidResource::Missing { field: "hostname" });
    }
    let namespace = name_part(interner, "namespace", &from.namespace)?;
    let hostname = name_part(interner, "hostname", &from.hostname)?;
    let (addresses, ranges) = vips(interner, &from.addresses)?;
    let weighted = from.weighted_waypoints.iter();
    Ok(Service {
        key: interner.string(&format!("{namespace}/{hostname}")),
        name: text(interner, "name", &from.name)?,
        namespace,
        hostname,
        vips: addresses.into(),
        cidr_vips: ranges.into(),
        ports: ports(&from.ports)?,
        subject_alt_names: from
            .subject_alt_names
            .iter()
            .map(|san| text(interner, "subject_alt_names", san))
            .collect::<Result<_, _>>()?,
        accepted: from
            .subject_alt_names
            .iter()
            .filter_map(|san| san.parse().ok())
            .collect(),
        waypoint: optional_gateway(interner, "waypoint", from.waypoint.as_ref())?,
        weighted_waypoints: weighted
            .map(|waypoint| weighted_waypoint(interner, waypoint))
            .collect::<Result<_, _>>()?,
        load_balancing: load_balancing(from.load_balancing.as_ref())?,
        ip_families: ip_families(from.ip_families)?,
        canonical: from.canonical,
        visibility: match wire::service::Visibility::try_from(from.visibility) {
            Ok(wire::service::Visibility::Namespace) => Visibility::Namespace,
            Ok(wire::service::Visibility::Public) | Err(_) => Visibility::Public,
        },
    })
}

fn weighted_waypoint(
    interner: &mut Interner,
    from: &wire::WeightedWaypoint,
) -> Result<WeightedWaypoint, InvalidResource> {
    let field = "weighted_waypoints.destination";
    let Some(destination) = &from.destination else {
        return Err(InvalidResource::Missing { field });
    };
    Ok(WeightedWaypoint {
        destination: gateway(interner, field, destination)?,
        weight: from.weight,
    })
}

fn load_balancing(from: Option<&wire::LoadBalancing>) -> Result<LoadBalancing, InvalidResource> {
    use wire::load_balancing as lb;
    let none = wire::LoadBalancing::default();
    let from = from.unwrap_or(&none);
    let mode = match known("load_balancing.mode", from.mode)? {
        lb::Mode::UnspecifiedMode => LoadBalancingMode::Standard,
        lb::Mode::Strict => LoadBalancingMode::Strict,
        lb::Mode::Failover => LoadBalancingMode::Failover,
        lb::Mode::Passthrough => LoadBalancingMode::Passthrough,
    };
    let health = match known("load_balancing.health_policy", from.health_policy)? {
        lb::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
        lb::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
    };
    let preferences = from.routing_preference.iter().map(|value| scope(*value));
    Ok(LoadBalancing {
        preferences: preferences.collect::<Result<_, _>>()?,
        mode,
        health,
    })
}

fn scope(value: i32) -> Result<Scope, InvalidResource> {
    use wire::load_balancing::Scope as Wire;
    let field = "load_balancing.routing_preference";
    Ok(match known(field, value)? {
        Wire::UnspecifiedScope => return Err(InvalidResource::UnknownValue { field, value }),
        Wire::Region => Scope::Region,
        Wire::Zone => Scope::Zone,
        Wire::Subzone => Scope::Subzone,
        Wire::Node => Scope::Node,
        Wire::Cluster => Scope::Cluster,
        Wire::Network => Scope::Network,
    })
}

fn ip_families(value: i32) -> Result<IpFamilies, InvalidResource> {
    Ok(match known("ip_families", value)? {
        wire::IpFamilies::Automatic => IpFamilies::Automatic,
        wire::IpFamilies::Dual => IpFamilies::Dual,
        wire::IpFamilies::Ipv4Only => IpFamilies::V4Only,
        wire::IpFamilies::Ipv6Only => IpFamilies::V6Only,
    })
}

/// Ordered by service port; of two mappings of one port the last counts.
fn ports(from: &[wire::Port]) -> Result<Box<[PortMapping]>, InvalidResource> {
    let one = |from: &wire::Port| {
        Ok(PortMapping {
            service: port("service_port", from.service_port)?,
            target: port("target_port", from.target_port)?,
        })
    };
    let mut all = from.iter().rev().map(one).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|mapping| mapping.service);
    all.dedup_by_key(|mapping| mapping.service);
    Ok(all.into())
}

fn known<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, InvalidResource> {
    T::try_from(value).or(Err(InvalidResource::UnknownValue { field, value }))
}

fn text(
    interner: &mut Interner,
    field: &'static str,
    from: &str,
) -> Result<Arc<str>, InvalidResource> {
    checked(field, from).map(|text| interner.string(text))
}

/// A text that becomes part of a name `namespace/hostname`.
fn name_part(
    interner: &mut Interner,
    field: &'static str,
    from: &str,
) -> Result<Arc<str>, InvalidResource> {
    if from.contains('/') {
        return Err(wrong(field, TextFault::Slash));
    }
    text(interner, field, from)
}

fn checked<'a>(field: &'static str, from: &'a str) -> Result<&'a str, InvalidResource> {
    if from.len() > MAX_TEXT_BYTES {
        return Err(wrong(field, TextFault::TooLong));
    }
    if has_control(from) {
        return Err(wrong(field, TextFault::Control));
    }
    Ok(from)
}

/// Nearly every text is ASCII, of which bytes tell enough.
fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        return text.bytes().any(|byte| byte.is_ascii_control());
    }
    text.chars().any(char::is_control)
}

const fn wrong(field: &'static str, fault: TextFault) -> InvalidResource {
    InvalidResource::Text { field, fault }
}

const fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

#[cfg(test)]
mod tests;
