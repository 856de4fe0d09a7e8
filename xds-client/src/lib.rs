//! Delta ADS, both ends, and the Istio workload API with its indexes.
#![forbid(unsafe_code)]

mod chain;
#[cfg(feature = "tonic")]
pub mod client;
pub mod delta;
pub mod handler;
pub mod proto;
pub mod route;
#[cfg(feature = "server")]
pub mod server;
pub mod workload;

#[cfg(feature = "tonic")]
pub use client::{Client, ClientConfig, Node};
pub use handler::{Handler, Rejected, Resource, Update};
pub use workload::{Reader, Snapshot, Store};
