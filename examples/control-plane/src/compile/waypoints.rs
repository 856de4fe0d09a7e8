//! Gateways that are waypoints, and who goes through which.

use std::{collections::HashMap, sync::Arc};

use meshwright_xds_client::proto::workload::{
    ApplicationTunnel, GatewayAddress, application_tunnel,
};

use super::{
    Mesh, Note,
    labels::{GATEWAY_NAME, selects},
    message,
};
use crate::manifest::{
    FromNamespaces, Gateway, Listener, Located, Metadata, Objects, Place, Selector,
};

const CLASS: &str = "istio-waypoint";
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
const INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";
const MANAGED: &str = "gateway.istio.io/managed";

/// What a waypoint is asked to stand before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Traffic {
    Service,
    Workload,
}

#[derive(Debug)]
struct Waypoint {
    address: GatewayAddress,
    services: bool,
    workloads: bool,
    from: FromNamespaces,
    selector: Selector,
    binding: Option<ApplicationTunnel>,
}

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// All waypoints of a mesh.
#[derive(Debug)]
pub(super) struct Waypoints {
    all: HashMap<Key, Waypoint>,
    namespaces: HashMap<Arc<str>, Metadata>,
}

impl Waypoints {
    pub(super) fn new(objects: &Objects, mesh: &Mesh, notes: &mut Vec<Note>) -> Self {
        let mut all = HashMap::new();
        for Located {
            value: gateway,
            place,
        } in &objects.gateways
        {
            if &*gateway.spec.gateway_class_name != CLASS && gateway.status.addresses.is_empty() {
                continue;
            }
            let metadata = &gateway.metadata;
            match address_of(gateway, objects, mesh) {
                Some(address) => {
                    let key = (Arc::clone(&metadata.namespace), Arc::clone(&metadata.name));
                    all.insert(key, waypoint(gateway, objects, address));
                }
                None => notes.push(Note::new(
                    place,
                    "this waypoint has no address: neither in its status nor a Service of its name",
                )),
            }
        }
        let namespaces = objects
            .namespaces
            .iter()
            .map(|(name, metadata)| (Arc::clone(name), metadata.clone()));
        Self {
            all,
            namespaces: namespaces.collect(),
        }
    }

    /// The waypoint in front of an object, if it has one that takes this traffic.
    ///
    /// The object's own label wins over its namespace's; `none` opts out. A waypoint that does not
    /// exist gives none, with a note.
    pub(super) fn before(
        &self,
        metadata: &Metadata,
        traffic: Traffic,
        at: (&Place, &mut Vec<Note>),
    ) -> Option<GatewayAddress> {
        let own = metadata.label(USE_WAYPOINT).map(|name| (name, metadata));
        let inherited = || {
            let namespace = self.namespaces.get(&metadata.namespace)?;
            Some((namespace.label(USE_WAYPOINT)?, namespace))
        };
        let (name, source) = own.or_else(inherited)?;
        if &**name == "none" {
            return None;
        }
        let namespace = source
            .label(USE_WAYPOINT_NAMESPACE)
            .unwrap_or(&metadata.namespace);
        let (place, notes) = at;
        let Some(waypoint) = self.all.get(&(Arc::clone(namespace), Arc::clone(name))) else {
            notes.push(Note::new(
                place,
                format!("there is no waypoint {namespace}/{name}"),
            ));
            return None;
        };
        if !self.admits(waypoint, namespace, &metadata.namespace) {
            let text = format!("the waypoint {namespace}/{name} does not admit this namespace");
            notes.push(Note::new(place, text));
            return None;
        }
        let takes = match traffic {
            Traffic::Service => waypoint.services,
            Traffic::Workload => waypoint.workloads,
        };
        takes.then(|| waypoint.address.clone())
    }

    /// The waypoint in front of a service. A waypoint's own service has none, which would be a
    /// loop.
    pub(super) fn before_service(
        &self,
        metadata: &Metadata,
        hostname: &str,
        at: (&Place, &mut Vec<Note>),
    ) -> Option<GatewayAddress> {
        if metadata
            .label(MANAGED)
            .is_some_and(|by| by.starts_with("istio.io-"))
        {
            return None;
        }
        let address = self.before(metadata, Traffic::Service, at)?;
        let own = message::gateway_by_host(&metadata.namespace, hostname);
        (address != own).then_some(address)
    }

    /// Whether a pod is an instance of a waypoint, and how that wants its traffic.
    pub(super) fn instance(&self, metadata: &Metadata) -> Option<Option<ApplicationTunnel>> {
        let name = metadata.label(GATEWAY_NAME)?;
        let key = (Arc::clone(&metadata.namespace), Arc::clone(name));
        self.all.get(&key).map(|waypoint| waypoint.binding)
    }

    fn admits(&self, waypoint: &Waypoint, home: &str, namespace: &str) -> bool {
        match waypoint.from {
            FromNamespaces::All => true,
            FromNamespaces::None => false,
            FromNamespaces::Same => home == namespace,
            FromNamespaces::Selector => self
                .namespaces
                .get(namespace)
                .is_some_and(|found| selects(&waypoint.selector.match_labels, &found.labels)),
        }
    }
}

fn waypoint(gateway: &Gateway, objects: &Objects, address: GatewayAddress) -> Waypoint {
    let class = objects
        .gateway_classes
        .get(&gateway.spec.gateway_class_name);
    let class = class.map(|class| &class.metadata);
    let traffic = gateway
        .metadata
        .label(WAYPOINT_FOR)
        .or_else(|| class?.label(WAYPOINT_FOR))
        .map_or("service", |traffic| traffic);
    let binding = gateway
        .metadata
        .annotation(INBOUND_BINDING)
        .or_else(|| class?.annotation(INBOUND_BINDING))
        .and_then(binding);
    let listener = bound_listener(gateway, binding.as_ref());
    let routes = listener.map(|listener| listener.allowed_routes.namespaces.clone());
    let routes = routes.unwrap_or_default();
    Waypoint {
        address,
        services: matches!(traffic, "service" | "all"),
        workloads: matches!(traffic, "workload" | "all"),
        from: routes.from,
        selector: routes.selector,
        binding,
    }
}

/// The listener whose rules say who may attach: the bound one, else the HBONE one.
fn bound_listener<'a>(
    gateway: &'a Gateway,
    binding: Option<&ApplicationTunnel>,
) -> Option<&'a Listener> {
    let listeners = &gateway.spec.listeners;
    let port = binding.map_or(0, |binding| binding.port);
    listeners
        .iter()
        .find(|listener| port != 0 && u32::from(listener.port) == port)
        .or_else(|| {
            listeners
                .iter()
                .find(|l| l.port == 15008 && &*l.protocol == "HBONE")
        })
}

/// `PROXY`, `PROXY/15088`, `NONE`.
fn binding(text: &str) -> Option<ApplicationTunnel> {
    let (protocol, port) = text.split_once('/').unwrap_or((text, "0"));
    let protocol = match protocol {
        "NONE" => application_tunnel::Protocol::None,
        "PROXY" => application_tunnel::Protocol::Proxy,
        _ => return None,
    };
    Some(ApplicationTunnel {
        protocol: protocol.into(),
        port: u32::from(port.parse::<u16>().ok()?),
    })
}

/// A host name from the status, else an address from it, else the Service of the same name.
fn address_of(gateway: &Gateway, objects: &Objects, mesh: &Mesh) -> Option<GatewayAddress> {
    let metadata = &gateway.metadata;
    let addresses = &gateway.status.addresses;
    let host = addresses
        .iter()
        .find(|address| &*address.r#type == "Hostname");
    if let Some(host) = host {
        return Some(message::gateway_by_host(&metadata.namespace, &host.value));
    }
    if let Some(address) = addresses
        .iter()
        .find_map(|address| address.value.parse().ok())
    {
        return Some(message::gateway_by_address(&mesh.network, address));
    }
    let service = objects
        .services
        .iter()
        .map(|service| &service.value.metadata)
        .find(|service| service.name == metadata.name && service.namespace == metadata.namespace)?;
    let hostname = super::services::hostname(service, mesh);
    Some(message::gateway_by_host(&metadata.namespace, &hostname))
}
