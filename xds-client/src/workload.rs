//! The Istio workload API: checked records, their store and its indexes.

mod gateway;
mod model;
mod service;
mod snapshot;
mod store;

pub use gateway::{GatewayAddress, GatewayDestination, NetworkAddress};
pub use model::{
    ApplicationProtocol, ApplicationTunnel, Health, Locality, Membership, NetworkMode, PortMapping,
    Protocol, Workload, WorkloadType,
};
pub use service::{
    HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, NetworkCidr, Scope, Service,
    Visibility, WeightedWaypoint,
};
pub use snapshot::{Endpoint, Snapshot};
pub use store::{InvalidResource, Reader, Store, StoreClosed};
