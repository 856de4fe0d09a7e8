//! `EndpointSlices`: they put pods behind Services without a selector, and are workloads where
//! their endpoints are no pods.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use meshwright_xds_client::proto::workload::{
    NetworkMode, Port, PortList, Workload, WorkloadStatus,
};

use super::{
    Mesh, Note, message,
    services::{Record, Services},
    workloads::trust_domain,
};
use crate::manifest::{AddressType, EndpointSlice, Located, Objects, SliceEndpoint};

/// Namespace and name of a pod.
type Pod = (Arc<str>, Arc<str>);

/// Which services have which pods by slices.
#[derive(Debug, Default)]
pub(super) struct Slices<'a> {
    of_pods: HashMap<Pod, Vec<&'a Record>>,
}

impl<'a> Slices<'a> {
    pub(super) fn new(objects: &Objects, mesh: &Mesh, services: &'a Services) -> Self {
        let mut of_pods: HashMap<Pod, Vec<&'a Record>> = HashMap::new();
        for slice in objects.endpoint_slices.iter().map(|located| &located.value) {
            let Some(service) = services.of_slice(slice, mesh) else {
                continue;
            };
            for pod in slice.endpoints.iter().filter_map(SliceEndpoint::pod) {
                let pod = (Arc::clone(&slice.metadata.namespace), Arc::clone(pod));
                of_pods.entry(pod).or_default().push(service);
            }
        }
        Self { of_pods }
    }

    /// The services that name a pod as their endpoint.
    pub(super) fn naming(
        &self,
        namespace: &Arc<str>,
        pod: &Arc<str>,
    ) -> impl Iterator<Item = &'a Record> + '_ {
        let pod = (Arc::clone(namespace), Arc::clone(pod));
        self.of_pods.get(&pod).into_iter().flatten().copied()
    }
}

/// The endpoints of a slice that are no pods. Nothing is known of them but their addresses, which
/// others may have too.
pub(super) fn workloads(
    mesh: &Mesh,
    services: &Services,
    located: &Located<EndpointSlice>,
    notes: &mut Vec<Note>,
) -> Vec<Workload> {
    let Located {
        value: slice,
        place,
    } = located;
    let mut note = |text: &str| notes.push(Note::new(place, text));
    if slice.address_type == AddressType::Fqdn {
        note("the addresses of this slice are names, so it is not served");
        return Vec::new();
    }
    let Some(service) = services.of_slice(slice, mesh) else {
        note("there is no Service that this slice belongs to (label kubernetes.io/service-name)");
        return Vec::new();
    };
    let ports = port_list(slice, service);
    let mut seen = HashSet::new();
    let mut workloads = Vec::new();
    for endpoint in slice.endpoints.iter().filter(|e| e.pod().is_none()) {
        let Some(first) = endpoint.addresses.first().filter(|key| seen.insert(*key)) else {
            continue;
        };
        let addresses = endpoint.addresses.iter().map(|text| text.parse::<IpAddr>());
        let Ok(addresses) = addresses.collect::<Result<Vec<_>, _>>() else {
            note("an address of this slice is no IP address, so its endpoint is not served");
            continue;
        };
        let status = match endpoint.conditions.ready {
            Some(false) => WorkloadStatus::Unhealthy,
            _ => WorkloadStatus::Healthy,
        };
        let (namespace, name) = (&slice.metadata.namespace, &slice.metadata.name);
        workloads.push(Workload {
            uid: format!(
                "{}/discovery.k8s.io/EndpointSlice/{namespace}/{name}/{first}",
                mesh.cluster_id
            ),
            name: name.to_string(),
            namespace: namespace.to_string(),
            addresses: addresses.into_iter().map(message::octets).collect(),
            network: mesh.network.clone(),
            cluster_id: mesh.cluster_id.clone(),
            trust_domain: trust_domain(&mesh.trust_domain),
            services: [(service.key(), ports.clone())].into(),
            status: status.into(),
            network_mode: NetworkMode::HostNetwork.into(),
            ..Workload::default()
        });
    }
    workloads
}

/// The service's ports as the slice has them, by name.
fn port_list(slice: &EndpointSlice, service: &Record) -> PortList {
    let ports = slice.ports.iter().filter_map(|port| {
        if !matches!(&*port.protocol, "" | "TCP") {
            return None;
        }
        let mut named = service.message.ports.iter().zip(&service.ports);
        let (of_service, _) = named.find(|(_, names)| names.name == port.name)?;
        Some(Port {
            service_port: of_service.service_port,
            target_port: port.port?.into(),
            app_protocol: 0,
        })
    });
    PortList {
        ports: ports.collect(),
    }
}
