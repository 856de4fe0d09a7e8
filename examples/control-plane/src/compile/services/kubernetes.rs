//! From Services.

use std::sync::Arc;

use meshwright_xds_client::proto::workload::{IpFamilies, Port, Service as Message};

use super::{Context, PortNames, Record, Source, hostname, nearness};
use crate::{
    compile::{Note, labels::port_protocol, message},
    manifest::{IpFamily, Located, Service, ServicePort, TargetPort},
};

/// An `ExternalName` gives none: it is an alias in DNS, there is nothing to route to.
pub(super) fn record(
    context: &Context<'_>,
    located: &Located<Service>,
    notes: &mut Vec<Note>,
) -> Option<Record> {
    let Service { metadata, spec } = &located.value;
    if &*spec.r#type == "ExternalName" {
        return None;
    }
    let hostname = hostname(metadata, context.mesh);
    let network = &context.mesh.network;
    let at = (&located.place, notes);
    let addresses = spec.addresses().into_iter();
    let message = Message {
        name: metadata.name.to_string(),
        namespace: metadata.namespace.to_string(),
        addresses: addresses
            .map(|ip| message::host_address(network, ip))
            .collect(),
        ports: spec.ports.iter().map(port).collect(),
        waypoint: context.waypoints.before_service(metadata, &hostname, at),
        load_balancing: nearness::of_service(&located.value, context.objects),
        ip_families: families(&spec.ip_families).into(),
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
    Some(Record {
        message,
        ports: ports.collect(),
        selector: (!spec.selector.is_empty()).then(|| spec.selector.clone()),
        source: Source::Service,
    })
}

fn port(port: &ServicePort) -> Port {
    let protocol = port_protocol(&port.name, port.app_protocol.as_ref(), &port.protocol);
    Port {
        service_port: port.port.into(),
        target_port: match &port.target_port {
            Some(TargetPort::Number(target)) => (*target).into(),
            // Each endpoint says which.
            Some(TargetPort::Name(_)) => 0,
            // As the API server fills it in.
            None => port.port.into(),
        },
        app_protocol: protocol.into(),
    }
}

const fn families(families: &[IpFamily]) -> IpFamilies {
    match families {
        [] => IpFamilies::Automatic,
        [IpFamily::IPv4] => IpFamilies::Ipv4Only,
        [IpFamily::IPv6] => IpFamilies::Ipv6Only,
        [_, ..] => IpFamilies::Dual,
    }
}
