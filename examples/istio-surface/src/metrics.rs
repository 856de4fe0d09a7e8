//! Istio's metric families, with names, labels and texts as ztunnel exposes them.
//!
//! Traffic counters are not a plain family: a [`TrafficSeries`] is found once for a connection and
//! then only atomic words are touched, the table is bounded whatever peers claim to be, and series
//! that nobody uses disappear.
//!
//! ```
//! use meshwright_istio_surface::metrics::{Metrics, Reporter, TrafficLabels};
//!
//! let metrics = Metrics::new("ztunnel", "1.0");
//! let series = metrics.traffic().series(&TrafficLabels::new(Reporter::Source));
//! let connection = series.open();
//! connection.moved(74, 1194);
//! connection.finish(Default::default(), Default::default());
//! let text = metrics.encode();
//! assert!(text.contains("istio_tcp_sent_bytes_total{reporter=\"source\",source_workload=\"unknown\""));
//! assert!(text.ends_with("# EOF\n"));
//! ```

mod control;
mod labels;
mod process;
mod registry;
mod traffic;

pub use control::{Proxies, XdsMetrics, XdsTermination};
pub use labels::{
    Label, Party, Reporter, ResponseFlag, SecurityPolicy, ServiceLabels, TrafficLabels,
};
pub use registry::{Metrics, SocketGuard};
pub use traffic::{Establishment, OpenConnection, Traffic, TrafficSeries};
