//! Metrics over HTTP.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode, header};

use super::body::{Body, answer, text};
use super::http::Handler;
use crate::logging::Control;
use crate::metrics::Metrics;

/// Serves `/metrics` and `/stats/prometheus`.
#[derive(Debug)]
pub struct Stats {
    metrics: Arc<Metrics>,
    logging: Option<Control>,
}

impl Stats {
    /// Serves these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            logging: None,
        }
    }

    /// Counts the dropped lines of this logging too.
    #[must_use]
    pub fn with_logging(mut self, logging: Control) -> Self {
        self.logging = Some(logging);
        self
    }
}

impl Handler for Stats {
    async fn handle(&self, request: Parts) -> Response<Body> {
        if !matches!(request.uri.path(), "/metrics" | "/stats/prometheus") {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        if let Some(logging) = &self.logging {
            self.metrics.log_lines_dropped(logging.dropped());
        }
        let metrics = Arc::clone(&self.metrics);
        let Ok(body) = tokio::task::spawn_blocking(move || metrics.encode()).await else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "not encoded\n");
        };
        answer(StatusCode::OK, content_type(&request), body)
    }
}

/// The same text under either name: Prometheus parses more strictly under the first.
fn content_type(request: &Parts) -> &'static str {
    let accepts = request.headers.get_all(header::ACCEPT);
    let open_metrics = accepts
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or(range).trim())
        .any(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
    if open_metrics {
        "application/openmetrics-text;charset=utf-8;version=1.0.0"
    } else {
        "text/plain; charset=utf-8"
    }
}
