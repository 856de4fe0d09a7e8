//! All metrics of a program.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use super::control::{Proxies, XdsMetrics};
use super::labels::Reporter;
use super::process::{Descriptors, Workers};
use super::traffic::Traffic;
use crate::end::EndReason;

/// Every metric of a program, and their exposition.
pub struct Metrics {
    registry: Mutex<Registry>,
    traffic: Traffic,
    xds: XdsMetrics,
    proxies: Proxies,
    sockets: Family<[(&'static str, &'static str); 1], Gauge>,
    log_lines: Counter,
    limits: Family<[(&'static str, &'static str); 1], Counter>,
    access_lines: Family<[(&'static str, &'static str); 1], Counter>,
    requests: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Counts a socket as open until it is dropped.
#[derive(Debug)]
pub struct SocketGuard {
    gauge: Gauge,
}

impl Metrics {
    /// Registers all families; `component` and `tag` are the labels of the build metric.
    #[must_use]
    pub fn new(component: &'static str, tag: &str) -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            traffic: Traffic::new(Instant::now()),
            xds: XdsMetrics::default(),
            proxies: Proxies::default(),
            sockets: Family::default(),
            log_lines: Counter::default(),
            limits: Family::default(),
            access_lines: Family::default(),
            requests: Family::default(),
        };
        metrics.with_registry(|registry| metrics.register(registry, component, tag));
        metrics
    }

    /// In the order in which ztunnel exposes them; then our own.
    fn register(&self, registry: &mut Registry, component: &'static str, tag: &str) {
        registry.register_collector(Box::new(Descriptors));
        let istio = registry.sub_registry_with_prefix("istio");
        let build = Gauge::<i64>::default();
        build.set(1);
        let build = Constant {
            labels: [("component", component.to_owned()), ("tag", tag.to_owned())],
            gauge: build,
        };
        istio.register("build", "Istio component build info", build);
        self.xds.register(istio);
        istio.register_collector(Box::new(self.traffic.clone()));
        // A registry shows its collectors last, and these sockets come after the traffic.
        registry.sub_registry_with_prefix("istio").register(
            "tcp_sockets_open",
            "The current number of open TCP sockets (unstable)",
            self.sockets.clone(),
        );
        self.proxies.register(registry);
        let own = registry.sub_registry_with_prefix("meshwright");
        own.register(
            "log_lines_dropped",
            "Log lines that were dropped because the sink was too slow",
            self.log_lines.clone(),
        );
        own.register(
            "limits_reached",
            "How often a limit or deadline was enforced",
            self.limits.clone(),
        );
        own.register(
            "access_lines_suppressed",
            "Access lines of failures beyond a hundred a second of one reason",
            self.access_lines.clone(),
        );
        own.register(
            "requests_refused",
            "Malformed requests for tunnels",
            self.requests.clone(),
        );
        own.register_collector(Box::new(Overflowed(self.traffic.clone())));
    }

    /// Exposes the worker threads, each with a runtime of its own.
    pub fn expose_workers(&self, runtimes: Vec<Handle>) {
        let workers = Box::new(Workers::new(runtimes));
        self.with_registry(|registry| registry.register_collector(workers));
    }

    /// The traffic counters.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The counters of the control-plane stream.
    #[must_use]
    pub fn xds(&self) -> &XdsMetrics {
        &self.xds
    }

    /// The gauges of served pods.
    #[must_use]
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Counts a TCP socket of an application's connection as open.
    #[must_use]
    pub fn socket_opened(&self, reporter: Reporter) -> SocketGuard {
        let labels = [("reporter", reporter.as_str())];
        let gauge = self.sockets.get_or_create_owned(&labels);
        gauge.inc();
        SocketGuard { gauge }
    }

    /// Counts that a limit was enforced; `limit` comes from a closed set.
    pub fn limit_reached(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// Counts a malformed request for a tunnel; `reason` comes from a closed set.
    pub fn request_refused(&self, reason: &'static str) {
        self.requests.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts an access line that was left out.
    pub fn access_line_suppressed(&self, reason: EndReason) {
        let labels = [("reason", reason.name())];
        self.access_lines.get_or_create(&labels).inc();
    }

    /// Sets how many log lines were dropped so far; never goes down.
    pub fn log_lines_dropped(&self, total: u64) {
        let new = total.saturating_sub(self.log_lines.get());
        self.log_lines.inc_by(new);
    }

    /// Encodes everything as `OpenMetrics` text; removes idle traffic series first.
    #[must_use]
    pub fn encode(&self) -> String {
        self.traffic.expire(Instant::now());
        let mut text = String::with_capacity(64 << 10);
        self.with_registry(|registry| {
            // Writing to a string does not fail, and no collector of ours does.
            if encode(&mut text, registry).is_err() {
                tracing::error!("a metric could not be encoded");
            }
        });
        text
    }

    fn with_registry<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        act(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// One gauge with fixed labels.
#[derive(Debug)]
struct Constant {
    labels: [(&'static str, String); 2],
    gauge: Gauge,
}

impl EncodeMetric for Constant {
    fn encode(&self, mut encoder: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
        self.gauge.encode(encoder.encode_family(&self.labels)?)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Connections counted under the overflow labels.
#[derive(Debug)]
struct Overflowed(Traffic);

impl Collector for Overflowed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "series_overflowed",
            "Connections whose labels found no room in the table of series.",
            None,
            MetricType::Counter,
        )?;
        metric.encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(
            &self.0.overflowed(),
            None,
        )
    }
}
