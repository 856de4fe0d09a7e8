//! Which port of an endpoint a service's port goes to.

use std::{collections::BTreeMap, sync::Arc};

use meshwright_xds_client::proto::workload::{Port, PortList};

use super::services::{PortNames, Record, Source};

/// An endpoint's named ports.
type Named = BTreeMap<Arc<str>, u16>;

/// The ports of a pod behind a service. A port whose named target the pod does not have is left
/// out: the pod is no endpoint of that port.
pub(super) fn of_pod(service: &Record, named: &Named) -> PortList {
    list(service, |names, target| {
        match (&names.target, service.source) {
            (Some(name), _) => number(named, name),
            // A ServiceEntry has no named targets; a container port of the same name is one.
            (None, Source::Entry(_)) => Some(number(named, &names.name).unwrap_or(target)),
            (None, Source::Service) => Some(target),
        }
    })
}

/// The ports of a machine outside the cluster. Its ports override by the service's port name.
pub(super) fn of_entry(service: &Record, named: &Named) -> PortList {
    list(service, |names, target| match &names.target {
        Some(name) => number(named, name),
        None => Some(number(named, &names.name).unwrap_or(target)),
    })
}

fn list(service: &Record, target: impl Fn(&PortNames, u32) -> Option<u32>) -> PortList {
    let ports = service.message.ports.iter().zip(&service.ports);
    let ports = ports.filter_map(|(port, names)| {
        Some(Port {
            service_port: port.service_port,
            target_port: target(names, port.target_port)?,
            app_protocol: 0,
        })
    });
    PortList {
        ports: ports.collect(),
    }
}

fn number(named: &Named, name: &str) -> Option<u32> {
    named.get(name).map(|port| u32::from(*port))
}
