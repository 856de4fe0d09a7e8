//! Istio's certificate service as an issuer.
//!
//! A key pair never leaves this process: [`IstioCa`] makes a fresh one for each request and sends a
//! signing request for it. The answer is not trusted: it must be a certificate of exactly that key
//! and exactly that identity, valid now, with a chain to the roots it came with, in whatever mode
//! the service was asked.

mod answer;
mod ca;
mod config;
mod error;

/// The messages and, with feature `server`, the server half of `istio.v1.auth`.
#[rustfmt::skip]
#[path = "generated/istio_v1_auth.rs"]
pub mod proto;

pub use ca::IstioCa;
pub use config::IstioCaConfig;
pub use error::{InvalidAnswer, ServiceError};

#[cfg(test)]
#[cfg(all(feature = "issuer-self-signed", feature = "server"))]
mod tests;
