//! The Istio workload API: checked records, their store and its indexes.
//!
//! A [`Store`] takes messages and publishes [`Snapshot`]s; a [`Reader`] hands out the newest. The
//! idea: readers never wait and never see half an update, and an update copies a few small shards
//! of the indexes, whatever the size of the mesh.

mod convert;
mod gateway;
pub(crate) mod index;
mod intern;
mod invalid;
mod members;
mod model;
mod ranges;
mod service;
pub(crate) mod slab;
mod snapshot;
mod store;
mod writer;

pub use gateway::{GatewayAddress, GatewayDestination, NetworkAddress};
pub use invalid::{InvalidResource, TextFault, UndecodableMessage};
pub use model::{
    ApplicationProtocol, ApplicationTunnel, Health, Locality, Membership, NetworkMode, PortMapping,
    Protocol, Workload, WorkloadType,
};
pub use service::{
    HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, NetworkCidr, Scope, Service,
    Visibility, WeightedWaypoint,
};
pub use snapshot::{Endpoint, Found, Snapshot};
pub use store::{Reader, Store, StoreClosed};
