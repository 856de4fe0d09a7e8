//! Which endpoints are preferred.

use meshwright_xds_client::proto::workload::{
    LoadBalancing,
    load_balancing::{HealthPolicy, Mode, Scope},
};

use crate::manifest::{
    InternalTrafficPolicy, Metadata, Objects, Resolution, Service, ServiceEntry,
};

const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// How endpoints of a Service are chosen.
pub(super) fn of_service(service: &Service, objects: &Objects) -> Option<LoadBalancing> {
    let Service { metadata, spec } = service;
    let mut load_balancing = if spec.internal_traffic_policy == Some(InternalTrafficPolicy::Local) {
        Some(LoadBalancing {
            routing_preference: vec![Scope::Node.into()],
            mode: Mode::Strict.into(),
            ..LoadBalancing::default()
        })
    } else {
        preference(distribution(
            spec.traffic_distribution.as_deref(),
            metadata,
            objects,
        ))
    };
    if spec.publish_not_ready_addresses {
        load_balancing.get_or_insert_default().health_policy = HealthPolicy::AllowAll.into();
    }
    load_balancing
}

/// How endpoints of a `ServiceEntry` are chosen: resolution NONE means to go where the caller goes.
pub(super) fn of_entry(entry: &ServiceEntry, objects: &Objects) -> Option<LoadBalancing> {
    match entry.spec.resolution {
        Resolution::None => Some(LoadBalancing {
            mode: Mode::Passthrough.into(),
            health_policy: HealthPolicy::AllowAll.into(),
            routing_preference: Vec::new(),
        }),
        _ => preference(distribution(None, &entry.metadata, objects)),
    }
}

/// How close an endpoint should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Distribution {
    Any,
    SameNode,
    SameZone,
}

impl Distribution {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "preferclose" | "prefersamezone" => Some(Self::SameZone),
            "prefersamenode" => Some(Self::SameNode),
            _ => None,
        }
    }
}

/// The field, else the object's annotation, else its namespace's.
fn distribution(field: Option<&str>, metadata: &Metadata, objects: &Objects) -> Distribution {
    let own = || Distribution::parse(metadata.annotation(DISTRIBUTION)?);
    let namespace = || {
        let namespace = objects.namespaces.get(&metadata.namespace)?;
        Distribution::parse(namespace.annotation(DISTRIBUTION)?)
    };
    field
        .and_then(Distribution::parse)
        .or_else(own)
        .or_else(namespace)
        .unwrap_or(Distribution::Any)
}

fn preference(distribution: Distribution) -> Option<LoadBalancing> {
    let scopes: &[Scope] = match distribution {
        Distribution::Any => return None,
        Distribution::SameZone => &[Scope::Network, Scope::Region, Scope::Zone],
        Distribution::SameNode => &[
            Scope::Network,
            Scope::Region,
            Scope::Zone,
            Scope::Subzone,
            Scope::Node,
        ],
    };
    Some(LoadBalancing {
        routing_preference: scopes.iter().map(|scope| i32::from(*scope)).collect(),
        mode: Mode::Failover.into(),
        ..LoadBalancing::default()
    })
}
