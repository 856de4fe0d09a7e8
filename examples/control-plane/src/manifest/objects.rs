//! All objects of a set, by kind, each at most once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use meshwright_policy::kubernetes;

use super::{
    entry::{ServiceEntry, WorkloadEntry},
    gateway::{Gateway, GatewayClass},
    instance::Instance,
    kind::{Kind, Object},
    metadata::{Labels, Metadata},
    names,
    place::{Fault, Located, Place, Reason},
    service::Service,
    slice::EndpointSlice,
};

/// Objects by kind, in the order they were read.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) endpoint_slices: Vec<Located<EndpointSlice>>,
    pub(crate) gateways: Vec<Located<Gateway>>,
    pub(crate) gateway_classes: BTreeMap<Arc<str>, GatewayClass>,
    pub(crate) instances: Vec<Located<Instance>>,
    /// Labels of namespaces by name.
    pub(crate) namespaces: BTreeMap<Arc<str>, Metadata>,
    /// Labels of nodes by name.
    pub(crate) nodes: BTreeMap<Arc<str>, Labels>,
    /// `AuthorizationPolicies` and `PeerAuthentications`.
    pub(crate) policies: kubernetes::Objects,
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
        let (namespace, name) = object.name();
        self.note(kind, &namespace, &name, &place)?;
        match object {
            Object::AuthorizationPolicy(value) => self.policies.authorization_policies.push(*value),
            Object::EndpointSlice(value) => self.endpoint_slices.push(Located {
                value: *value,
                place,
            }),
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
            Object::PeerAuthentication(value) => self.policies.peer_authentications.push(*value),
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

    /// Refuses an object that was there before, and a policy whose name is none: the policy
    /// library takes names as they come. A Workload stands in for a Pod and shares its names.
    fn note(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        place: &Place,
    ) -> Result<(), Fault> {
        if !names::is_subdomain(name) || !names::is_subdomain(namespace) {
            let message = format!(
                "`{}` is no name in `{}`",
                name.escape_debug(),
                namespace.escape_debug()
            );
            return Err(Fault::new(place.clone(), Reason::Invalid { message }));
        }
        let shared = if kind == Kind::UserWorkload {
            Kind::Pod
        } else {
            kind
        };
        let namespace = if kind.is_cluster_wide() {
            ""
        } else {
            namespace
        };
        let object = key(shared.name(), namespace, name);
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

    /// Where an object was written.
    pub(crate) fn place(&self, kind: &str, namespace: &str, name: &str) -> Option<&Place> {
        self.seen.get(&key(kind, namespace, name))
    }

    /// Translates the policies as istiod does; a fault in any of them is a fault of the set.
    pub(crate) fn translate<'a>(
        &'a self,
        root_namespace: &'a str,
    ) -> Result<kubernetes::Translation<'a>, Vec<Fault>> {
        kubernetes::translate(&self.policies, root_namespace).map_err(|invalid| {
            let fault = |found: &kubernetes::InvalidObject| {
                let place = self.place(found.kind, &found.namespace, &found.name);
                let message = format!("{}: {}", found.path, found.problem);
                Fault::new(
                    place.cloned().unwrap_or_default(),
                    Reason::Invalid { message },
                )
            };
            invalid.faults().iter().map(fault).collect()
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.seen.len()
    }
}

/// `Kind namespace/name`, or `Kind name`.
fn key(kind: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        format!("{kind} {name}")
    } else {
        format!("{kind} {namespace}/{name}")
    }
}

impl Object {
    /// Namespace and name.
    fn name(&self) -> (Arc<str>, Arc<str>) {
        let metadata = match self {
            Self::AuthorizationPolicy(object) => return copied(&object.metadata),
            Self::PeerAuthentication(object) => return copied(&object.metadata),
            Self::EndpointSlice(object) => &object.metadata,
            Self::Gateway(object) => &object.metadata,
            Self::GatewayClass(object) => &object.metadata,
            Self::Instance(object) => &object.metadata,
            Self::Namespace(object) | Self::Node(object) | Self::ServiceAccount(object) => {
                &object.metadata
            }
            Self::Service(object) => &object.metadata,
            Self::ServiceEntry(object) => &object.metadata,
            Self::WorkloadEntry(object) => &object.metadata,
        };
        (Arc::clone(&metadata.namespace), Arc::clone(&metadata.name))
    }
}

fn copied(metadata: &kubernetes::Metadata) -> (Arc<str>, Arc<str>) {
    (
        Arc::from(metadata.namespace.as_str()),
        Arc::from(metadata.name.as_str()),
    )
}
