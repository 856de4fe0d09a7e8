//! The server half: delta ADS for any set of resources.
//!
//! [`Resources`] holds what is served, an [`AdsService`] serves it to any number of clients: to
//! this crate's client, to Istio's proxies, to any gRPC client. Each stream remembers what its
//! client has, so a change sends only what differs.
//!
//! A fake control plane takes five lines:
//!
//! ```no_run
//! use meshwright_xds_client::{proto::workload::Address, server::{AdsService, Resources, ServedResource}};
//!
//! # async fn run(pod: Address) -> Result<(), Box<dyn std::error::Error>> {
//! let resources = Resources::new();
//! resources.set(meshwright_xds_client::proto::ADDRESS, ServedResource::address(&pod));
//! let service = AdsService::new(resources).into_server();
//! tonic::service::Routes::new(service); // served by tonic, hyper or axum, over TLS or a pipe
//! # Ok(())
//! # }
//! ```

mod answers;
mod resources;
mod served;
mod service;
mod subscriber;

pub use answers::{Answer, Observer, Sent};
pub use resources::{Edit, Resources};
pub use served::ServedResource;
pub use service::{AdsServer, AdsService, DeltaStream};

#[cfg(test)]
pub(crate) use subscriber::Wire;
