//! From `ServiceEntries`, one service per host.

use std::sync::Arc;

use meshwright_xds_client::proto::workload::{Port, Service as Message};

use super::{Context, PortNames, Record, Source, nearness};
use crate::{
    compile::{Note, labels::protocol, message},
    manifest::{EntryPort, Labels, Located, Resolution, ServiceEntry},
};

pub(super) fn records(
    context: &Context<'_>,
    index: usize,
    located: &Located<ServiceEntry>,
    notes: &mut Vec<Note>,
) -> Vec<Record> {
    let entry = &located.value;
    let at = (&located.place, notes);
    let template = Message {
        waypoint: context.waypoints.before_service(&entry.metadata, "", at),
        ..template(context, entry)
    };
    let ports = entry.spec.ports.iter().map(|port| PortNames {
        name: Arc::clone(&port.name),
        target: None,
    });
    let ports: Vec<_> = ports.collect();
    let record = |host| Record {
        message: of_host(context, entry, &template, host),
        ports: ports.clone(),
        selector: selector(entry),
        source: Source::Entry(index),
    };
    entry.spec.hosts.iter().map(record).collect()
}

/// What all hosts have in common.
fn template(context: &Context<'_>, entry: &ServiceEntry) -> Message {
    let ServiceEntry { metadata, spec, .. } = entry;
    let network = &context.mesh.network;
    let ranges = spec.addresses.iter();
    Message {
        name: metadata.name.to_string(),
        namespace: metadata.namespace.to_string(),
        addresses: ranges
            .map(|range| message::network_address(network, *range))
            .collect(),
        ports: spec.ports.iter().map(port).collect(),
        subject_alt_names: spec
            .subject_alt_names
            .iter()
            .map(ToString::to_string)
            .collect(),
        load_balancing: nearness::of_entry(entry, context.objects),
        ..Message::default()
    }
}

fn port(port: &EntryPort) -> Port {
    let target = match port.target_port {
        0 => port.number,
        target => target,
    };
    Port {
        service_port: port.number.into(),
        target_port: target.into(),
        app_protocol: protocol(&port.protocol).into(),
    }
}

/// A host without addresses has those that a controller has allocated for it.
fn of_host(
    context: &Context<'_>,
    entry: &ServiceEntry,
    template: &Message,
    host: &Arc<str>,
) -> Message {
    let mut message = Message {
        hostname: host.to_string(),
        ..template.clone()
    };
    if message.addresses.is_empty() && entry.spec.resolution != Resolution::None {
        let allocated = entry
            .status
            .addresses
            .iter()
            .filter(|address| address.host == *host);
        let network = &context.mesh.network;
        message.addresses = allocated
            .map(|a| message::host_address(network, a.value))
            .collect();
    }
    message
}

fn selector(entry: &ServiceEntry) -> Option<Labels> {
    let labels = &entry.spec.workload_selector.as_ref()?.labels;
    (!labels.is_empty()).then(|| labels.clone())
}
