use std::time::Duration;

use crate::{TrustDomain, tls::TlsEngine};

/// Settings of an [`IstioCa`](super::IstioCa).
#[derive(Clone, Debug)]
pub struct IstioCaConfig {
    pub(super) engine: TlsEngine,
    pub(super) ttl: Duration,
    pub(super) impersonate: bool,
    pub(super) cluster_id: String,
    pub(super) deadline: Duration,
    pub(super) also_trusts: Vec<TrustDomain>,
}

impl IstioCaConfig {
    /// Starts from the defaults of a node proxy; answers are checked with `engine`.
    #[must_use]
    pub fn new(engine: TlsEngine) -> Self {
        Self {
            engine,
            ttl: Duration::from_secs(24 * 3600),
            impersonate: true,
            cluster_id: "Kubernetes".to_owned(),
            deadline: Duration::from_secs(10),
            also_trusts: Vec::new(),
        }
    }

    /// Sets the validity that is asked for. Default: 24 h.
    ///
    /// The service may give less.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets whether the identity is asked for by name. Default: yes.
    ///
    /// A node proxy asks for the identities of the pods on its node; a single workload gets the
    /// identity that its token proves, and only that one is accepted either way.
    #[must_use]
    pub const fn impersonate(mut self, impersonate: bool) -> Self {
        self.impersonate = impersonate;
        self
    }

    /// Sets the value of the `clusterid` header. Default: `Kubernetes`.
    ///
    /// The service uses it to find the cluster that can review the token.
    #[must_use]
    pub fn cluster_id(mut self, id: impl Into<String>) -> Self {
        self.cluster_id = id.into();
        self
    }

    /// Sets the time for one request. Default: 10 s.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets other trust domains that the service's roots vouch for. Default: none.
    ///
    /// For meshes in which one root signs for several trust domains.
    #[must_use]
    pub fn also_trusts(mut self, others: impl IntoIterator<Item = TrustDomain>) -> Self {
        self.also_trusts = others.into_iter().collect();
        self
    }
}
