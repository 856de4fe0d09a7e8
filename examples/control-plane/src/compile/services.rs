//! Services of the mesh: from Services, and from `ServiceEntries` one per host.

mod entry;
mod kubernetes;
mod nearness;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use meshwright_xds_client::proto::workload::Service as Message;

use super::{Mesh, Note, labels::selects, waypoints::Waypoints};
use crate::manifest::{EndpointSlice, Labels, Metadata, Objects};

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
    /// The index of the `ServiceEntry`.
    Entry(usize),
    Service,
}

impl Record {
    /// `namespace/hostname`.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.message.namespace, self.message.hostname)
    }
}

/// What a service is made from, besides its own manifest.
struct Context<'a> {
    objects: &'a Objects,
    mesh: &'a Mesh,
    waypoints: &'a Waypoints,
}

/// All services of a mesh.
#[derive(Debug)]
pub(super) struct Services {
    all: Vec<Record>,
    by_label: HashMap<LabelOf, Vec<usize>>,
    by_entry: HashMap<usize, Vec<usize>>,
    /// Kubernetes Services.
    by_key: HashMap<String, usize>,
}

/// Namespace, and one label of a selector.
type LabelOf = (Arc<str>, Arc<str>, Arc<str>);

impl Services {
    pub(super) fn new(
        objects: &Objects,
        mesh: &Mesh,
        waypoints: &Waypoints,
        notes: &mut Vec<Note>,
    ) -> Self {
        let context = Context {
            objects,
            mesh,
            waypoints,
        };
        let mut all: Vec<Record> = Vec::new();
        for located in &objects.services {
            all.extend(kubernetes::record(&context, located, notes));
        }
        for (index, located) in objects.service_entries.iter().enumerate() {
            all.extend(entry::records(&context, index, located, notes));
        }
        keep_first(&mut all);
        mark_canonical(&mut all);
        let mut by_label: HashMap<LabelOf, Vec<usize>> = HashMap::new();
        let mut by_entry: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut by_key = HashMap::new();
        for (index, record) in all.iter().enumerate() {
            // One label finds the service; the others are compared then.
            if let Some((name, value)) = record.selector.iter().flatten().next() {
                let namespace = Arc::from(record.message.namespace.as_str());
                let label = (namespace, Arc::clone(name), Arc::clone(value));
                by_label.entry(label).or_default().push(index);
            }
            match record.source {
                Source::Entry(entry) => by_entry.entry(entry).or_default().push(index),
                Source::Service => drop(by_key.insert(record.key(), index)),
            }
        }
        Self {
            all,
            by_label,
            by_entry,
            by_key,
        }
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = Message> + '_ {
        self.all.iter().map(|record| record.message.clone())
    }

    /// The services of a namespace that select these labels.
    pub(super) fn selecting<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Record> + 'a {
        let indexes = labels.iter().filter_map(move |(name, value)| {
            let label = (Arc::clone(namespace), Arc::clone(name), Arc::clone(value));
            self.by_label.get(&label)
        });
        let records = indexes.flatten().filter_map(|index| self.all.get(*index));
        records.filter(|record| {
            let selector = record.selector.as_ref();
            selector.is_some_and(|selector| selects(selector, labels))
        })
    }

    /// The Service that a slice has endpoints of.
    pub(super) fn of_slice(&self, slice: &EndpointSlice, mesh: &Mesh) -> Option<&Record> {
        let metadata = Metadata {
            name: Arc::clone(slice.service()?),
            namespace: Arc::clone(&slice.metadata.namespace),
            ..Metadata::default()
        };
        let key = format!("{}/{}", metadata.namespace, hostname(&metadata, mesh));
        self.by_key.get(&key).and_then(|index| self.all.get(*index))
    }

    /// The services of one `ServiceEntry` that were not overruled.
    pub(super) fn of_entry(&self, entry: usize) -> impl Iterator<Item = &Record> + '_ {
        let indexes = self.by_entry.get(&entry).into_iter().flatten();
        indexes.filter_map(|index| self.all.get(*index))
    }
}

/// In one namespace a host has one service: a Service, else the `ServiceEntry` read first.
fn keep_first(all: &mut Vec<Record>) {
    let mut seen = HashSet::new();
    all.retain(|record| seen.insert(record.key()));
}

/// Of all namespaces, one service of a host counts where no namespace has its own: a Service, else
/// the `ServiceEntry` read first.
fn mark_canonical(all: &mut [Record]) {
    let mut hosts = HashSet::new();
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
