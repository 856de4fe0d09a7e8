//! Services of the mesh: from Services, and from ServiceEntries one per host.

use std::{collections::HashMap, sync::Arc};

use meshwright_xds_client::proto::workload::{
    IpFamilies, LoadBalancing, Port, Service as Message,
    load_balancing::{HealthPolicy, Mode, Scope},
};

use super::{
    Mesh, Note,
    labels::{port_protocol, protocol, selects},
    message,
    waypoints::Waypoints,
};
use crate::manifest::{
    InternalTrafficPolicy, IpFamily, Labels, Located, Metadata, Objects, Resolution, Service,
    ServiceEntry, TargetPort, names::is_host,
};

const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// A service and what its endpoints need to know of it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) message: Message,
    /// As many as the message has ports.
    pub(super) ports: Vec<PortNames>,
    /// Which workloads of the namespace are endpoints; `None` if none are by label.
    selector: Option<Labels>,
    pub(super) source: Source,
}

/// Names of a service's port.
#[derive(Clone, Debug)]
pub(super) struct PortNames {
    pub(super) name: Arc<str>,
    /// Set if the port goes to a named port of each endpoint.
    pub(super) target: Option<Arc<str>>,
}

/// What a service was written as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// The index of the ServiceEntry.
    Entry(usize),
    Service,
}

impl Record {
    /// `namespace/hostname`.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.message.namespace, self.message.hostname)
    }
}

/// All services of a mesh.
#[derive(Debug)]
pub(super) struct Services {
    all: Vec<Record>,
    by_namespace: HashMap<String, Vec<usize>>,
}

impl Services {
    pub(super) fn new(
        objects: &Objects,
        mesh: &Mesh,
        waypoints: &Waypoints,
        notes: &mut Vec<Note>,
    ) -> Self {
        let mut all: Vec<Record> = Vec::new();
        for located in &objects.services {
            // An ExternalName is an alias in DNS; there is nothing to route to.
            if &*located.value.spec.r#type != "ExternalName" {
                all.push(from_service(located, (objects, mesh), waypoints, notes));
            }
        }
        for (index, located) in objects.service_entries.iter().enumerate() {
            all.extend(from_entry(
                index,
                located,
                (objects, mesh),
                waypoints,
                notes,
            ));
        }
        keep_first(&mut all);
        mark_canonical(&mut all);
        let mut by_namespace: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, record) in all.iter().enumerate() {
            let namespace = record.message.namespace.clone();
            by_namespace.entry(namespace).or_default().push(index);
        }
        Self { all, by_namespace }
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = Message> + '_ {
        self.all.iter().map(|record| record.message.clone())
    }

    /// The services of a namespace that select these labels.
    pub(super) fn selecting<'a>(
        &'a self,
        namespace: &str,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Record> + 'a {
        let indexes = self.by_namespace.get(namespace);
        let records = indexes
            .into_iter()
            .flatten()
            .filter_map(|index| self.all.get(*index));
        records.filter(|record| {
            let selector = record.selector.as_ref();
            selector.is_some_and(|selector| selects(selector, labels))
        })
    }

    /// The services of one ServiceEntry that were not overruled.
    pub(super) fn of_entry(&self, entry: usize) -> impl Iterator<Item = &Record> + '_ {
        self.all
            .iter()
            .filter(move |record| record.source == Source::Entry(entry))
    }
}

/// In one namespace a host has one service: a Service, else the ServiceEntry read first.
fn keep_first(all: &mut Vec<Record>) {
    let mut seen = std::collections::HashSet::new();
    all.retain(|record| seen.insert(record.key()));
}

/// Of all namespaces, one service of a host counts where no namespace has its own: a Service, else
/// the ServiceEntry read first.
fn mark_canonical(all: &mut [Record]) {
    let mut hosts = std::collections::HashSet::new();
    for record in all {
        let first = hosts.insert(record.message.hostname.clone());
        record.message.canonical = first || record.source == Source::Service;
    }
}

pub(super) fn hostname(metadata: &Metadata, mesh: &Mesh) -> String {
    let Metadata {
        name, namespace, ..
    } = metadata;
    format!("{name}.{namespace}.svc.{}", mesh.cluster_domain)
}

fn from_service(
    located: &Located<Service>,
    (objects, mesh): (&Objects, &Mesh),
    waypoints: &Waypoints,
    notes: &mut Vec<Note>,
) -> Record {
    let Service { metadata, spec } = &located.value;
    let hostname = hostname(metadata, mesh);
    let addresses = spec.addresses();
    let message = Message {
        name: metadata.name.to_string(),
        namespace: metadata.namespace.to_string(),
        addresses: addresses
            .into_iter()
            .map(|address| message::host_address(&mesh.network, address))
            .collect(),
        ports: spec
            .ports
            .iter()
            .map(|port| Port {
                service_port: port.port.into(),
                target_port: match &port.target_port {
                    Some(TargetPort::Number(target)) => (*target).into(),
                    Some(TargetPort::Name(_)) => 0,
                    // As the API server fills it in.
                    None => port.port.into(),
                },
                app_protocol: port_protocol(&port.name, port.app_protocol.as_ref(), &port.protocol)
                    .into(),
            })
            .collect(),
        waypoint: waypoints.before_service(metadata, &hostname, (&located.place, notes)),
        load_balancing: load_balancing(located, objects),
        ip_families: match *spec.ip_families.as_slice() {
            [] => IpFamilies::Automatic,
            [IpFamily::IPv4] => IpFamilies::Ipv4Only,
            [IpFamily::IPv6] => IpFamilies::Ipv6Only,
            [_, ..] => IpFamilies::Dual,
        }
        .into(),
        hostname,
        ..Message::default()
    };
    let ports = spec.ports.iter().map(|port| PortNames {
        name: Arc::clone(&port.name),
        target: match &port.target_port {
            Some(TargetPort::Name(name)) => Some(Arc::clone(name)),
            _ => None,
        },
    });
    Record {
        message,
        ports: ports.collect(),
        selector: (!spec.selector.is_empty()).then(|| spec.selector.clone()),
        source: Source::Service,
    }
}

/// One service per host.
fn from_entry(
    index: usize,
    located: &Located<ServiceEntry>,
    (objects, mesh): (&Objects, &Mesh),
    waypoints: &Waypoints,
    notes: &mut Vec<Note>,
) -> Vec<Record> {
    let ServiceEntry {
        metadata,
        spec,
        status,
    } = &located.value;
    let template = Message {
        name: metadata.name.to_string(),
        namespace: metadata.namespace.to_string(),
        addresses: spec
            .addresses
            .iter()
            .map(|range| message::network_address(&mesh.network, *range))
            .collect(),
        ports: spec
            .ports
            .iter()
            .map(|port| Port {
                service_port: port.number.into(),
                target_port: if port.target_port == 0 {
                    port.number
                } else {
                    port.target_port
                }
                .into(),
                app_protocol: protocol(&port.protocol).into(),
            })
            .collect(),
        subject_alt_names: spec
            .subject_alt_names
            .iter()
            .map(ToString::to_string)
            .collect(),
        load_balancing: match spec.resolution {
            Resolution::None => Some(LoadBalancing {
                mode: Mode::Passthrough.into(),
                health_policy: HealthPolicy::AllowAll.into(),
                routing_preference: Vec::new(),
            }),
            _ => preference(distribution(None, metadata, objects)),
        },
        ..Message::default()
    };
    let ports: Vec<_> = spec
        .ports
        .iter()
        .map(|port| PortNames {
            name: Arc::clone(&port.name),
            target: None,
        })
        .collect();
    let waypoint = waypoints.before_service(metadata, "", (&located.place, notes));
    let record = |host: &Arc<str>| {
        let mut message = Message {
            hostname: host.to_string(),
            waypoint: waypoint.clone(),
            ..template.clone()
        };
        if message.addresses.is_empty() && spec.resolution != Resolution::None {
            let allocated = status
                .addresses
                .iter()
                .filter(|address| address.host == *host);
            message.addresses = allocated
                .map(|address| message::host_address(&mesh.network, address.value))
                .collect();
        }
        Record {
            message,
            ports: ports.clone(),
            selector: spec
                .workload_selector
                .as_ref()
                .map(|s| s.labels.clone())
                .filter(|labels| !labels.is_empty()),
            source: Source::Entry(index),
        }
    };
    debug_assert!(
        spec.hosts.iter().all(|host| is_host(host)),
        "checked when read"
    );
    spec.hosts.iter().map(record).collect()
}

fn load_balancing(located: &Located<Service>, objects: &Objects) -> Option<LoadBalancing> {
    let Service { metadata, spec } = &located.value;
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
