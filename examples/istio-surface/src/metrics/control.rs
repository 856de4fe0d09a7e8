//! Counters of the control-plane stream and of the pods that are served.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Why a stream to the control plane ended.
#[derive(Clone, Copy, Debug, Eq, EncodeLabelValue, Hash, PartialEq)]
#[non_exhaustive]
pub enum XdsTermination {
    /// The server ended it cleanly.
    Complete,
    /// The connection was not made, or was lost.
    ConnectionError,
    /// The server ended it with an error.
    Error,
    /// The server asked to come back, as istiod does every half hour.
    Reconnect,
}

/// Counters of the control-plane stream; clones share them.
#[derive(Clone, Debug, Default)]
pub struct XdsMetrics {
    terminations: Family<Termination, Counter>,
    messages: Family<Url, Counter>,
    bytes: Family<Url, Counter>,
}

/// Gauges and counters of the pods that are served; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    active: Gauge,
    pending: Gauge,
    started: Counter,
    stopped: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Termination {
    reason: XdsTermination,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Url {
    url: &'static str,
}

/// Types that a message may be counted under: the control plane must not choose labels.
const TYPES: [&str; 2] = [
    "type.googleapis.com/istio.security.Authorization",
    "type.googleapis.com/istio.workload.Address",
];

impl XdsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "xds_connection_terminations",
            "The total number of completed connections to xds server (unstable)",
            self.terminations.clone(),
        );
        registry.register(
            "xds_message",
            "Total number of messages received (unstable)",
            self.messages.clone(),
        );
        registry.register_with_unit(
            "xds_message",
            "Total number of bytes received (unstable)",
            Unit::Bytes,
            self.bytes.clone(),
        );
    }

    /// Counts the end of a stream.
    pub fn terminated(&self, reason: XdsTermination) {
        self.terminations
            .get_or_create(&Termination { reason })
            .inc();
    }

    /// Counts a message of `bytes` bytes of resources.
    pub fn received(&self, type_url: &str, bytes: u64) {
        let known = TYPES.iter().find(|known| **known == type_url);
        let url = Url {
            url: known.copied().unwrap_or("other"),
        };
        self.messages.get_or_create(&url).inc();
        self.bytes.get_or_create(&url).inc_by(bytes);
    }
}

impl Proxies {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("workload_manager");
        registry.register(
            "active_proxy_count",
            "The total number current workloads with active proxies (unstable)",
            self.active.clone(),
        );
        registry.register(
            "pending_proxy_count",
            "The total number current workloads with pending proxies (unstable)",
            self.pending.clone(),
        );
        registry.register(
            "proxies_started",
            "The total number of proxies that were started (unstable)",
            self.started.clone(),
        );
        registry.register(
            "proxies_stopped",
            "The total number of proxies that were stopped (unstable)",
            self.stopped.clone(),
        );
    }

    /// Counts a pod's proxy as started.
    pub fn started(&self) {
        self.started.inc();
        self.active.inc();
    }

    /// Counts a pod's proxy as stopped.
    pub fn stopped(&self) {
        self.stopped.inc();
        self.active.dec();
    }

    /// Sets how many pods wait because their proxy could not be started.
    pub fn pending(&self, count: usize) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
