//! The messages on the wire, generated from the schema files in `proto/`.
//!
//! Control planes build [`workload`] messages and serve them; most other code wants the checked
//! types of [`crate::workload`] instead.

/// Delta discovery: requests, responses and, with the feature `server`, the service trait.
#[path = "generated/envoy_service_discovery_v3.rs"]
pub mod discovery;

/// Istio's workload API.
#[path = "generated/istio_workload.rs"]
pub mod workload;

/// Type URL of [`workload::Address`] in discovery.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";

/// Type URL of Istio's `Authorization` messages in discovery.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
