//! The access-log line: one event for each connection, in Istio's fields and order.
//!
//! An [`AccessRecord`] is filled in while a connection is served and written once at its end by an
//! [`AccessLog`], as an event of target `access`; the [log layer](crate::logging) makes the line.
//!
//! ```
//! use meshwright_istio_surface::access_log::{AccessLog, AccessRecord};
//! use meshwright_istio_surface::end::EndReason;
//! use meshwright_istio_surface::metrics::Reporter;
//! use std::time::Instant;
//!
//! let from = "10.244.1.2:36802".parse().unwrap();
//! let to = "10.244.1.3:15008".parse().unwrap();
//! let mut record = AccessRecord::new(Reporter::Source, from, to);
//! record.src_workload = Some("pod-a".into());
//! record.bytes_sent = 74;
//! let log = AccessLog::new(Instant::now());
//! log.complete(&record, EndReason::Finished, Instant::now());
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwright_xds_client::workload::Workload;

use crate::end::EndReason;
use crate::logging::{Admitted, LineLimit};
use crate::metrics::{Metrics, Reporter};

/// Writes access lines, of each kind of failure at most a hundred a second.
///
/// A line of a clean end is always written: its number is bounded by real traffic. What is left
/// out is counted, and said with the next line of its kind.
pub struct AccessLog {
    limit: LineLimit<{ EndReason::COUNT }>,
    metrics: Option<Arc<Metrics>>,
}

/// What the access log says of one connection; what is not known is left out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccessRecord {
    /// Which end logs it: `outbound` for the client's side, `inbound` for the server's.
    pub reporter: Reporter,
    /// The client.
    pub src_addr: SocketAddr,
    /// The client's pod, or canonical service.
    pub src_workload: Option<Arc<str>>,
    /// Its namespace.
    pub src_namespace: Option<Arc<str>>,
    /// Its identity, only if TLS proved it.
    pub src_identity: Option<Arc<str>>,
    /// Its cluster.
    pub src_cluster: Option<Arc<str>>,
    /// Where the connection went; of a tunnel, the tunnel's port.
    pub dst_addr: SocketAddr,
    /// What was asked for inside the tunnel.
    pub dst_hbone_addr: Option<SocketAddr>,
    /// The service that was called.
    pub dst_service: Option<Arc<str>>,
    /// The server's pod, or canonical service.
    pub dst_workload: Option<Arc<str>>,
    /// Its namespace.
    pub dst_namespace: Option<Arc<str>>,
    /// Its identity, only if TLS proved it.
    pub dst_identity: Option<Arc<str>>,
    /// Its cluster.
    pub dst_cluster: Option<Arc<str>>,
    /// Bytes that the reporter's own application sent.
    pub bytes_sent: u64,
    /// Bytes that it received.
    pub bytes_recv: u64,
    /// From accept to end.
    pub duration: Duration,
    /// Why it ended, if not as both applications wanted.
    pub error: Option<String>,
}

impl AccessLog {
    /// Starts to count seconds at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            limit: LineLimit::new(now),
            metrics: None,
        }
    }

    /// Counts what is left out in these metrics.
    #[must_use]
    pub fn counted_by(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Logs the end of a connection that ended for `reason`.
    pub fn complete(&self, record: &AccessRecord, reason: EndReason, now: Instant) {
        if self.admits(reason, now) {
            record.emit();
        }
    }

    /// Logs a connection that was refused for `reason` before anything was known of it but its
    /// addresses.
    pub fn failed(&self, record: &AccessRecord, reason: EndReason, now: Instant) {
        if self.admits(reason, now) {
            record.failed();
        }
    }

    fn admits(&self, reason: EndReason, now: Instant) -> bool {
        if reason == EndReason::Finished {
            return true;
        }
        match self.limit.admit(reason.index(), now) {
            Admitted::Drop => {
                if let Some(metrics) = &self.metrics {
                    metrics.access_line_suppressed(reason);
                }
                false
            }
            Admitted::Write { dropped_before } => {
                if dropped_before > 0 {
                    tracing::warn!(
                        target: "access",
                        reason = reason.name(),
                        lines = dropped_before,
                        "lines were left out"
                    );
                }
                true
            }
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

impl AccessRecord {
    /// A connection of which only the addresses are known.
    #[must_use]
    pub fn new(reporter: Reporter, src_addr: SocketAddr, dst_addr: SocketAddr) -> Self {
        Self {
            reporter,
            src_addr,
            src_workload: None,
            src_namespace: None,
            src_identity: None,
            src_cluster: None,
            dst_addr,
            dst_hbone_addr: None,
            dst_service: None,
            dst_workload: None,
            dst_namespace: None,
            dst_identity: None,
            dst_cluster: None,
            bytes_sent: 0,
            bytes_recv: 0,
            duration: Duration::ZERO,
            error: None,
        }
    }

    /// Names the client's workload.
    pub fn source(&mut self, workload: &Workload) {
        self.src_workload = shown_name(workload);
        self.src_namespace = known(workload.namespace());
        self.src_cluster = known(workload.cluster_id());
    }

    /// Names the server's workload.
    pub fn destination(&mut self, workload: &Workload) {
        self.dst_workload = shown_name(workload);
        self.dst_namespace = known(workload.namespace());
        self.dst_cluster = known(workload.cluster_id());
    }

    /// Logs that the connection was opened, at debug level.
    pub fn opened(&self) {
        tracing::debug!(
            target: "access",
            {
                src.addr = %self.src_addr,
                src.workload = self.src_workload.as_deref(),
                src.namespace = self.src_namespace.as_deref(),
                src.identity = self.src_identity.as_deref(),
                src.cluster = self.src_cluster.as_deref(),
                dst.addr = %self.dst_addr,
                dst.hbone_addr = self.dst_hbone_addr.map(tracing::field::display),
                dst.service = self.dst_service.as_deref(),
                dst.workload = self.dst_workload.as_deref(),
                dst.namespace = self.dst_namespace.as_deref(),
                dst.identity = self.dst_identity.as_deref(),
                dst.cluster = self.dst_cluster.as_deref(),
                direction = self.direction(),
            },
            "connection opened"
        );
    }

    /// Logs the end: at info level, or at error level if there is an [error](Self::error).
    ///
    /// Not limited: an [`AccessLog`] does that.
    fn emit(&self) {
        match &self.error {
            None => self.emit_complete(),
            Some(error) => self.emit_error(error),
        }
    }

    fn emit_complete(&self) {
        let duration = format!("{}ms", self.duration.as_millis());
        tracing::info!(
            target: "access",
            {
                src.addr = %self.src_addr,
                src.workload = self.src_workload.as_deref(),
                src.namespace = self.src_namespace.as_deref(),
                src.identity = self.src_identity.as_deref(),
                src.cluster = self.src_cluster.as_deref(),
                dst.addr = %self.dst_addr,
                dst.hbone_addr = self.dst_hbone_addr.map(tracing::field::display),
                dst.service = self.dst_service.as_deref(),
                dst.workload = self.dst_workload.as_deref(),
                dst.namespace = self.dst_namespace.as_deref(),
                dst.identity = self.dst_identity.as_deref(),
                dst.cluster = self.dst_cluster.as_deref(),
                direction = self.direction(),
                bytes_sent = self.bytes_sent,
                bytes_recv = self.bytes_recv,
                duration = duration.as_str(),
            },
            "connection complete"
        );
    }

    fn emit_error(&self, error: &str) {
        let duration = format!("{}ms", self.duration.as_millis());
        tracing::error!(
            target: "access",
            {
                src.addr = %self.src_addr,
                src.workload = self.src_workload.as_deref(),
                src.namespace = self.src_namespace.as_deref(),
                src.identity = self.src_identity.as_deref(),
                src.cluster = self.src_cluster.as_deref(),
                dst.addr = %self.dst_addr,
                dst.hbone_addr = self.dst_hbone_addr.map(tracing::field::display),
                dst.service = self.dst_service.as_deref(),
                dst.workload = self.dst_workload.as_deref(),
                dst.namespace = self.dst_namespace.as_deref(),
                dst.identity = self.dst_identity.as_deref(),
                dst.cluster = self.dst_cluster.as_deref(),
                direction = self.direction(),
                bytes_sent = self.bytes_sent,
                bytes_recv = self.bytes_recv,
                duration = duration.as_str(),
                error,
            },
            "connection complete"
        );
    }

    /// Logs a connection that was refused before anything was known of it but its addresses.
    ///
    /// Not limited: an [`AccessLog`] does that.
    fn failed(&self) {
        tracing::warn!(
            target: "access",
            {
                src.addr = %self.src_addr,
                dst.addr = %self.dst_addr,
                direction = self.direction(),
                error = self.error.as_deref(),
            },
            "connection failed"
        );
    }

    fn direction(&self) -> &'static str {
        match self.reporter {
            Reporter::Destination => "inbound",
            Reporter::Source => "outbound",
        }
    }
}

/// Istio shows the pod; what is no pod, by its canonical service.
fn shown_name(workload: &Workload) -> Option<Arc<str>> {
    let name = workload.name();
    let pod = (!name.is_empty()).then(|| name.into());
    pod.or_else(|| known(workload.canonical_name()))
}

fn known(text: &Arc<str>) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| Arc::clone(text))
}

#[cfg(test)]
mod tests;
