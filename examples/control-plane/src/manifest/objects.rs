//! All objects of a set, by kind, each at most once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    entry::{ServiceEntry, WorkloadEntry},
    gateway::{Gateway, GatewayClass},
    instance::Instance,
    kind::{Kind, Object},
    metadata::{Labels, Metadata},
    place::{Fault, Located, Place, Reason},
    service::Service,
};

/// Objects by kind, in the order they were read.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) gateways: Vec<Located<Gateway>>,
    pub(crate) gateway_classes: BTreeMap<Arc<str>, GatewayClass>,
    pub(crate) instances: Vec<Located<Instance>>,
    /// Labels of namespaces by name.
    pub(crate) namespaces: BTreeMap<Arc<str>, Metadata>,
    /// Labels of nodes by name.
    pub(crate) nodes: BTreeMap<Arc<str>, Labels>,
    pub(crate) policies: Vec<Located<serde_json::Value>>,
    pub(crate) services: Vec<Located<Service>>,
    pub(crate) service_entries: Vec<Located<ServiceEntry>>,
    pub(crate) workload_entries: Vec<Located<WorkloadEntry>>,
    seen: HashMap<String, Place>,
}

impl Objects {
    pub(super) fn add(&mut self, object: Located<(Kind, Object)>) -> Result<(), Fault> {
        let Located {
            value: (kind, object),
            place,
        } = object;
        if let Some(metadata) = object.metadata() {
            self.note(kind, metadata, &place)?;
        }
        let at = |value| Located {
            value,
            place: place.clone(),
        };
        match object {
            Object::Gateway(value) => self.gateways.push(Located { value, place }),
            Object::GatewayClass(class) => {
                let name = Arc::clone(&class.metadata.name);
                self.gateway_classes.insert(name, class);
            }
            Object::Instance(value) => self.instances.push(Located {
                value: *value,
                place,
            }),
            Object::Namespace(named) => {
                let name = Arc::clone(&named.metadata.name);
                self.namespaces.insert(name, named.metadata);
            }
            Object::Node(named) => {
                self.nodes
                    .insert(named.metadata.name, named.metadata.labels);
            }
            Object::Policy(value) => self.policies.push(at(value)),
            Object::Service(value) => self.services.push(Located {
                value: *value,
                place,
            }),
            Object::ServiceAccount(_) => {}
            Object::ServiceEntry(value) => {
                self.service_entries.push(Located {
                    value: *value,
                    place,
                });
            }
            Object::WorkloadEntry(value) => {
                self.workload_entries.push(Located {
                    value: *value,
                    place,
                });
            }
        }
        Ok(())
    }

    /// Refuses an object that was there before. A Workload stands in for a Pod and shares its
    /// names.
    fn note(&mut self, kind: Kind, metadata: &Metadata, place: &Place) -> Result<(), Fault> {
        let shared = if kind == Kind::UserWorkload {
            Kind::Pod
        } else {
            kind
        };
        let object = if kind.is_cluster_wide() {
            format!("{} {}", shared.name(), metadata.name)
        } else {
            format!("{} {}/{}", shared.name(), metadata.namespace, metadata.name)
        };
        match self.seen.get(&object) {
            None => {
                self.seen.insert(object, place.clone());
                Ok(())
            }
            Some(first) => Err(Fault::new(
                place.clone(),
                Reason::Duplicate {
                    object,
                    first: first.clone(),
                },
            )),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.seen.len() + self.policies.len()
    }
}

impl Object {
    fn metadata(&self) -> Option<&Metadata> {
        Some(match self {
            Self::Gateway(object) => &object.metadata,
            Self::GatewayClass(object) => &object.metadata,
            Self::Instance(object) => &object.metadata,
            Self::Namespace(object) | Self::Node(object) | Self::ServiceAccount(object) => {
                &object.metadata
            }
            Self::Policy(_) => return None,
            Self::Service(object) => &object.metadata,
            Self::ServiceEntry(object) => &object.metadata,
            Self::WorkloadEntry(object) => &object.metadata,
        })
    }
}
