//! The compiler: manifests in, workload API and policies out. A pure function.
//!
//! It makes of a set of manifests what istiod makes of the same objects in a cluster: names,
//! aliases, endpoint ports, waypoints and the policies each workload lists. A test compares the
//! result field by field with a recording of istiod; what differs knowingly is listed there.
//!
//! ```text
//!  Gateway ────────────────► waypoints ─┐
//!  Service, ServiceEntry ──► services ──┼─► workloads ◄── Pod, Workload, WorkloadEntry, EndpointSlice
//!  AuthorizationPolicy, PeerAuthentication ─► policies
//! ```

mod accounts;
mod labels;
mod message;
mod policies;
mod ports;
mod services;
mod slices;
mod waypoints;
mod workloads;

pub use accounts::Accounts;

use std::sync::Arc;

use meshwright_identity::TrustDomain;
use meshwright_xds_client::proto::workload::{Address, address};

use crate::manifest::{InvalidManifests, Manifests, Objects, Place};
use policies::Policies;
use services::Services;
use slices::Slices;
use waypoints::Waypoints;

/// Facts about the mesh that no manifest holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mesh {
    /// First part of every workload's UID.
    pub cluster_id: String,
    /// DNS suffix of services.
    pub cluster_domain: String,
    /// Network of all addresses, unless the root namespace is labelled `topology.istio.io/network`.
    pub network: String,
    /// Namespace whose policies apply to the whole mesh.
    pub root_namespace: String,
    /// Trust domain of every identity.
    pub trust_domain: TrustDomain,
}

impl Mesh {
    /// Istio's defaults for this trust domain.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            cluster_id: "Kubernetes".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            network: String::new(),
            root_namespace: "istio-system".to_owned(),
            trust_domain,
        }
    }
}

/// What a set of manifests amounts to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Compiled {
    /// Workloads and services, each name at most once.
    pub addresses: Vec<Address>,
    /// Policies: name (`namespace/name`) and message.
    pub authorizations: Vec<(Arc<str>, meshwright_policy::proto::Authorization)>,
    /// Which identities run on which node.
    pub accounts: Accounts,
    /// What was left out, although its manifest is well-formed.
    pub notes: Vec<Note>,
}

/// Something well-formed that has no effect, or not the one it seems to have.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Note {
    /// The object's place.
    pub place: Place,
    /// What about it.
    pub text: String,
}

impl Note {
    fn new(place: &Place, text: impl Into<String>) -> Self {
        Self {
            place: place.clone(),
            text: text.into(),
        }
    }
}

/// Compiles a set of manifests. Linear in their number, but each workload is compared with the
/// selector of every policy.
///
/// # Errors
///
/// Returns faults of policies that depend on the mesh's root namespace; all others are found when
/// manifests are read.
pub fn compile(manifests: &Manifests, mesh: &Mesh) -> Result<Compiled, InvalidManifests> {
    let objects = &manifests.objects;
    let mesh = &with_network(mesh, objects);
    let mut notes = Vec::new();
    let waypoints = Waypoints::new(objects, mesh, &mut notes);
    let services = Services::new(objects, mesh, &waypoints, &mut notes);
    let policies = Policies::new(objects, mesh, &mut notes)?;
    let slices = Slices::new(objects, mesh, &services);
    let world = World {
        objects,
        mesh,
        waypoints: &waypoints,
        services: &services,
        slices: &slices,
        policies: &policies,
    };
    let workloads = workloads::all(&world, &mut notes);
    let workloads = workloads.into_iter().map(address::Type::Workload);
    let addresses = workloads
        .chain(services.messages().map(address::Type::Service))
        .map(|kind| Address { r#type: Some(kind) })
        .collect();
    Ok(Compiled {
        addresses,
        authorizations: policies.messages(),
        accounts: Accounts::new(objects),
        notes,
    })
}

/// Everything a workload's record is made from.
struct World<'a> {
    objects: &'a Objects,
    mesh: &'a Mesh,
    waypoints: &'a Waypoints,
    services: &'a Services,
    slices: &'a Slices<'a>,
    policies: &'a Policies<'a>,
}

/// The label of the root namespace, as Istio's installer writes it, wins over the setting.
fn with_network(mesh: &Mesh, objects: &Objects) -> Mesh {
    let mut mesh = mesh.clone();
    let root = objects.namespaces.get(mesh.root_namespace.as_str());
    if let Some(network) = root.and_then(|root| root.label("topology.istio.io/network")) {
        mesh.network = network.to_string();
    }
    mesh
}
