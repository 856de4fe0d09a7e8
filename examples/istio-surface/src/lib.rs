//! What several programs share of Istio's operating surface.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod end;
pub mod env;
pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod server;
