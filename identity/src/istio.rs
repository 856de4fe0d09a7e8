//! Istio's certificate service as an issuer.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{future::Future, time::Duration};

use crate::{
    SpiffeId,
    grpc::Channel,
    rotation::{IssueError, Issuer},
    svid::Svid,
    tls::TlsEngine,
};

/// Settings of an [`IstioCa`].
#[derive(Clone, Debug)]
pub struct IstioCaConfig {}

impl IstioCaConfig {
    /// Defaults: 24 h, impersonation on, cluster id `Kubernetes`.
    pub fn new(engine: TlsEngine) -> Self {
        todo!()
    }
    /// The validity asked for.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        todo!()
    }
    /// Whether the identity is asked for by name (a node proxy) or left to the token.
    #[must_use]
    pub fn impersonate(self, impersonate: bool) -> Self {
        todo!()
    }
    /// The value of the `clusterid` header.
    #[must_use]
    pub fn cluster_id(self, id: impl Into<String>) -> Self {
        todo!()
    }
}

/// Asks Istio's `IstioCertificateService`.
#[derive(Clone, Debug)]
pub struct IstioCa {}

impl IstioCa {
    /// Asks over `channel`.
    pub fn new(channel: Channel, config: IstioCaConfig) -> Self {
        todo!()
    }
}

impl Issuer for IstioCa {
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<Svid, IssueError>> + Send {
        async { todo!() }
    }
}
