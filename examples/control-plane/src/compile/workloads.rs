//! Workloads of the mesh: from Pods and Workloads, `WorkloadEntries`, endpoints written inside
//! `ServiceEntries`, and `EndpointSlices`.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use meshwright_identity::TrustDomain;
use meshwright_xds_client::proto::workload::{
    Locality, NetworkMode, PortList, TunnelProtocol, Workload, WorkloadStatus, WorkloadType,
};

use super::{
    Note, World,
    labels::{canonical, entry_name, locality, node_locality, workload_name},
    message, ports,
    services::Record,
    slices,
    waypoints::Traffic,
};
use crate::manifest::{
    Endpoint, Instance, Labels, Located, Metadata, Place, Resolution, ServiceEntry, WorkloadEntry,
};

const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
const REDIRECTION: &str = "ambient.istio.io/redirection";
const TUNNEL: &str = "networking.istio.io/tunnel";

pub(super) fn all(world: &World<'_>, notes: &mut Vec<Note>) -> Vec<Workload> {
    let mut workloads = Vec::new();
    for located in &world.objects.instances {
        workloads.extend(from_instance(world, located, notes));
    }
    for located in &world.objects.workload_entries {
        workloads.push(from_workload_entry(world, located, notes));
    }
    for (index, located) in world.objects.service_entries.iter().enumerate() {
        workloads.extend(from_service_entry(world, index, located, notes));
    }
    for located in &world.objects.endpoint_slices {
        workloads.extend(slices::workloads(
            world.mesh,
            world.services,
            located,
            notes,
        ));
    }
    // A ServiceEntry may write one address twice; the first one counts.
    let mut seen = HashSet::new();
    workloads.retain(|workload| seen.insert(workload.uid.clone()));
    workloads
}

/// A pod that has ended or has no address yet is not a workload.
fn from_instance(
    world: &World<'_>,
    located: &Located<Instance>,
    notes: &mut Vec<Note>,
) -> Option<Workload> {
    let Located {
        value: instance,
        place,
    } = located;
    if instance.ended {
        return None;
    }
    if instance.addresses.is_empty() {
        notes.push(Note::new(
            place,
            "this pod has no address (status.podIP), so it is not served",
        ));
        return None;
    }
    let metadata = with_own_waypoint(instance);
    let tunnel = tunnel(world, instance);
    let services = world
        .services
        .selecting(&metadata.namespace, &metadata.labels)
        .chain(world.slices.naming(&metadata.namespace, &metadata.name));
    let name = workload_name(instance);
    let mut workload = Workload {
        uid: format!(
            "{}//Pod/{}/{}",
            world.mesh.cluster_id, metadata.namespace, metadata.name
        ),
        addresses: instance
            .addresses
            .iter()
            .map(|address| message::octets(*address))
            .collect(),
        node: instance.node.to_string(),
        service_account: instance.service_account.to_string(),
        services: port_lists(services, |service| ports::of_pod(service, &instance.ports)),
        capacity: instance.extra.weight,
        locality: place_of(world, instance),
        ..base(world, &metadata, &metadata.labels, name)
    };
    if !instance.ready {
        workload.status = WorkloadStatus::Unhealthy.into();
    }
    if instance.host_network {
        workload.network_mode = NetworkMode::HostNetwork.into();
    }
    (workload.tunnel_protocol, workload.native_tunnel) = tunnel;
    if let Some(network) = &instance.extra.network {
        workload.network = network.to_string();
    }
    attach_waypoint(world, &metadata, &mut workload, (place, notes));
    Some(workload)
}

fn place_of(world: &World<'_>, instance: &Instance) -> Option<Locality> {
    match &instance.extra.locality {
        Some(text) => locality(text),
        None => node_locality(world.objects.nodes.get(&instance.node)?),
    }
}

fn from_workload_entry(
    world: &World<'_>,
    located: &Located<WorkloadEntry>,
    notes: &mut Vec<Note>,
) -> Workload {
    let Located {
        value: WorkloadEntry { metadata, spec },
        place,
    } = located;
    let mut labels = metadata.labels.clone();
    labels.extend(spec.labels.clone());
    let services = world.services.selecting(&metadata.namespace, &labels);
    let mut workload = Workload {
        uid: format!(
            "{}/networking.istio.io/WorkloadEntry/{}/{}",
            world.mesh.cluster_id, metadata.namespace, metadata.name
        ),
        services: port_lists(services, |service| ports::of_entry(service, &spec.ports)),
        ..base(world, metadata, &labels, entry_name(metadata))
    };
    endpoint(spec, &mut workload);
    (workload.tunnel_protocol, workload.native_tunnel) = declared_tunnel(metadata);
    attach_waypoint(world, metadata, &mut workload, (place, notes));
    workload
}

/// A `ServiceEntry` resolved by DNS without endpoints has its hosts as endpoints.
fn from_service_entry(
    world: &World<'_>,
    index: usize,
    located: &Located<ServiceEntry>,
    notes: &mut Vec<Note>,
) -> Vec<Workload> {
    let Located {
        value: ServiceEntry { metadata, spec, .. },
        place,
    } = located;
    let by_name = !matches!(spec.resolution, Resolution::None | Resolution::Static);
    if spec.endpoints.is_empty() && by_name && spec.workload_selector.is_none() {
        let hosts = world.services.of_entry(index).map(|service| {
            let host = Endpoint {
                address: Arc::from(service.message.hostname.as_str()),
                ..Endpoint::default()
            };
            let services = port_lists([service].into_iter(), |s| ports::of_entry(s, &host.ports));
            inline(world, metadata, &host, services)
        });
        return hosts.collect();
    }
    let endpoints = spec.endpoints.iter().map(|written| {
        let services = world.services.of_entry(index);
        let services = port_lists(services, |service| ports::of_entry(service, &written.ports));
        let mut workload = inline(world, metadata, written, services);
        let own = Metadata {
            labels: written.labels.clone(),
            ..metadata.clone()
        };
        attach_waypoint(world, &own, &mut workload, (place, notes));
        workload
    });
    endpoints.collect()
}

/// An endpoint inside a `ServiceEntry`; it has the entry's name and labels.
fn inline(
    world: &World<'_>,
    metadata: &Metadata,
    written: &Endpoint,
    services: BTreeMap<String, PortList>,
) -> Workload {
    let mut workload = Workload {
        uid: format!(
            "{}/networking.istio.io/ServiceEntry/{}/{}/{}",
            world.mesh.cluster_id, metadata.namespace, metadata.name, written.address
        ),
        services,
        ..base(world, metadata, &metadata.labels, metadata.name.to_string())
    };
    endpoint(written, &mut workload);
    (workload.tunnel_protocol, workload.native_tunnel) = declared_tunnel(metadata);
    workload
}

/// What every workload has, whatever it was written as.
fn base(world: &World<'_>, metadata: &Metadata, labels: &Labels, name: String) -> Workload {
    let (canonical_name, canonical_revision) = canonical(labels, &name);
    Workload {
        name: metadata.name.to_string(),
        namespace: metadata.namespace.to_string(),
        network: world.mesh.network.clone(),
        cluster_id: world.mesh.cluster_id.clone(),
        trust_domain: trust_domain(&world.mesh.trust_domain),
        canonical_name,
        canonical_revision,
        workload_name: name,
        // Istio says so of every workload, for proxies that know nothing else.
        workload_type: WorkloadType::Pod.into(),
        authorization_policies: world.policies.attached(&metadata.namespace, labels),
        ..Workload::default()
    }
}

fn endpoint(written: &Endpoint, workload: &mut Workload) {
    match written.address.parse::<IpAddr>() {
        Ok(address) => workload.addresses = vec![message::octets(address)],
        Err(_) => workload.hostname = written.address.to_string(),
    }
    workload.service_account = written.service_account.to_string();
    workload.locality = locality(&written.locality);
    workload.capacity = (written.weight > 0).then_some(written.weight);
    if !written.network.is_empty() {
        workload.network = written.network.to_string();
    }
}

/// The default trust domain is left out on the wire.
pub(super) fn trust_domain(domain: &TrustDomain) -> String {
    match domain.as_str() {
        "cluster.local" => String::new(),
        other => other.to_owned(),
    }
}

fn port_lists<'a, I: Iterator<Item = &'a Record>>(
    services: I,
    list: impl Fn(&Record) -> PortList,
) -> BTreeMap<String, PortList> {
    services
        .map(|service| (service.key(), list(service)))
        .collect()
}

/// How a pod takes mesh traffic.
///
/// For a Pod that is the agent's word, written as an annotation once the pod is captured: to tell
/// peers earlier would send them to a port where nobody listens. A hand-written Workload has no
/// agent to speak for it: its own word counts, else the label of it or its namespace.
fn tunnel(world: &World<'_>, instance: &Instance) -> (i32, bool) {
    let declared = declared_tunnel(&instance.metadata);
    let captured = instance.extra.capture.unwrap_or_else(|| {
        instance.extra.is_hand_written
            && !instance.host_network
            && is_ambient(world, &instance.metadata)
    });
    if captured {
        (TunnelProtocol::Hbone.into(), declared.1)
    } else {
        declared
    }
}

fn declared_tunnel(metadata: &Metadata) -> (i32, bool) {
    let native = metadata
        .label(TUNNEL)
        .is_some_and(|value| value.split(',').any(|word| word == "http"));
    let captured = metadata.annotation(REDIRECTION) == Some("enabled");
    let protocol = if native || captured {
        TunnelProtocol::Hbone
    } else {
        TunnelProtocol::None
    };
    (protocol.into(), native)
}

fn is_ambient(world: &World<'_>, metadata: &Metadata) -> bool {
    let namespace = world.objects.namespaces.get(&metadata.namespace);
    let label = metadata
        .label(DATAPLANE_MODE)
        .or_else(|| namespace?.label(DATAPLANE_MODE));
    label.is_some_and(|mode| &**mode == "ambient")
}

/// A Workload may name its waypoint in its spec.
fn with_own_waypoint(instance: &Instance) -> Metadata {
    let mut metadata = instance.metadata.clone();
    if let Some(waypoint) = &instance.extra.waypoint {
        let (namespace, name) = match waypoint.split_once('/') {
            Some((namespace, name)) => (Some(Arc::from(namespace)), Arc::from(name)),
            None => (None, Arc::clone(waypoint)),
        };
        metadata
            .labels
            .insert(Arc::from("istio.io/use-waypoint"), name);
        metadata
            .labels
            .extend(namespace.map(|n| (Arc::from("istio.io/use-waypoint-namespace"), n)));
    }
    metadata
}

/// An instance of a waypoint is behind none; others are behind theirs, if it takes workloads.
fn attach_waypoint(
    world: &World<'_>,
    metadata: &Metadata,
    workload: &mut Workload,
    at: (&Place, &mut Vec<Note>),
) {
    match world.waypoints.instance(metadata) {
        Some(binding) => workload.application_tunnel = binding,
        None => workload.waypoint = world.waypoints.before(metadata, Traffic::Workload, at),
    }
}
