//! What several programs share of Istio's operating surface.
#![forbid(unsafe_code)]

pub mod access_log;
pub mod config_dump;
pub mod end;
pub mod env;
pub mod logging;
pub mod metrics;
pub mod server;
