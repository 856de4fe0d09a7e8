//! What the crates report, as Istio's metrics and log lines.

use std::sync::Arc;
use std::time::Instant;

use meshwright_hbone::events::{LimitReached, RequestRefused};
use meshwright_identity::rotation::{IssueFailed, SvidIssued};
use meshwright_istio_surface::access_log::AccessLog;
use meshwright_istio_surface::metrics::{Metrics, XdsTermination};
use meshwright_xds_client::client as xds;

/// Receives the events of every crate; one for the process.
#[derive(Debug)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access: AccessLog,
}

impl Telemetry {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let access = AccessLog::new(Instant::now()).counted_by(Arc::clone(&metrics));
        Self { metrics, access }
    }

    /// A pod's proxy was started.
    pub(crate) fn proxy_started(&self) {
        self.metrics.proxies().started();
    }

    /// A pod's proxy was stopped.
    pub(crate) fn proxy_stopped(&self) {
        self.metrics.proxies().stopped();
    }

    /// So many pods wait for their proxy.
    pub(crate) fn proxies_pending(&self, pending: usize) {
        self.metrics.proxies().pending(pending);
    }
}

impl meshwright_hbone::Events for Telemetry {
    fn request_refused(&self, event: &RequestRefused<'_>) {
        let reason = event.reason.as_str();
        self.metrics.request_refused(reason);
        tracing::debug!(peer = %event.peer, reason, "a malformed request was refused");
    }

    fn limit_reached(&self, event: &LimitReached<'_>) {
        self.metrics.limit_reached(event.limit.as_str());
        tracing::debug!(peer = ?event.peer, limit = %event.limit, "a limit was reached");
    }
}

impl meshwright_identity::rotation::Events for Telemetry {
    fn svid_issued(&self, event: &SvidIssued) {
        tracing::info!(id = %event.id, serial = %event.serial, "certificate issued");
    }

    fn svid_rotated(&self, event: &SvidIssued) {
        tracing::debug!(id = %event.id, serial = %event.serial, "certificate rotated");
    }

    fn issue_failed(&self, event: &IssueFailed) {
        tracing::warn!(id = %event.id, failed = ?event, "no new certificate; the last one counts until it expires");
    }
}

impl meshwright_redirect::Events for Telemetry {
    fn accept_failed(&self, event: &meshwright_redirect::AcceptFailed) {
        self.metrics.limit_reached("accept");
        tracing::debug!(errno = ?event.errno, pause = ?event.pause, "could not accept");
    }

    fn zds_connected(&self) {
        tracing::info!("connected to the node agent");
    }

    fn zds_disconnected(&self, event: &meshwright_redirect::ZdsDisconnected) {
        tracing::warn!(reason = %event.reason, pause = ?event.pause, "not connected to the node agent; pods stay as they are");
    }

    fn zds_refused(&self, event: &meshwright_redirect::ZdsRefused) {
        tracing::warn!(reason = %event.reason, "refused a message of the node agent");
    }
}

impl xds::Events for Telemetry {
    fn connected(&self) {
        tracing::info!("connected to the control plane");
    }

    fn connection_ended(&self, event: &xds::ConnectionEnded<'_>) {
        self.metrics.xds().terminated(match event.reason {
            xds::ConnectionEnd::Complete => XdsTermination::Complete,
            xds::ConnectionEnd::ConnectionError => XdsTermination::ConnectionError,
            xds::ConnectionEnd::Reconnect => XdsTermination::Reconnect,
            _ => XdsTermination::Error,
        });
        tracing::warn!(reason = ?event.reason, error = %event.message, again_in = ?event.backoff, "the control plane's stream ended; the last state stays in force");
    }

    fn message_received(&self, event: &xds::MessageReceived<'_>) {
        self.metrics
            .xds()
            .received(event.type_url, event.bytes as u64);
        tracing::info!(
            r#type = event.type_url,
            resources = event.resources,
            removed = event.removed,
            "received from the control plane"
        );
    }

    fn overdue(&self, event: &xds::Overdue<'_>) {
        tracing::warn!(r#type = event.type_url, waited = ?event.waited, "the control plane has not answered");
    }

    fn rejected(&self, event: &xds::ResourcesRejected<'_>) {
        for rejected in event.rejected.iter().take(20) {
            tracing::error!(r#type = event.type_url, name = %rejected.name, reason = %rejected.reason, "refused a resource of the control plane");
        }
    }

    fn unknown_type(&self, event: &xds::UnknownType<'_>) {
        tracing::warn!(
            r#type = event.type_url,
            "the control plane sent a type that nobody asked for"
        );
    }
}
