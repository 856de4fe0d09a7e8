//! Arguments, threads, shutdown and logs.

use std::time::Duration;

/// What the first argument asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Command {
    /// `help`: print the usage.
    Help,
    /// `proxy`, also without any argument: run.
    Proxy,
    /// `version`: print the version.
    Version,
}

/// How long connections may finish at the end of the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Drain {
    /// From the signal until what still runs is cut.
    pub deadline: Duration,
}

/// Logs and labels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Telemetry {
    /// Filter of log lines (`RUST_LOG`).
    pub filter: String,
    /// Shape of log lines (`LOG_FORMAT`).
    pub format: LogFormat,
    /// Whether policy decisions are logged at `info` (`AUTHZ_POLICY_INFO_LOGGING`).
    pub policy_decisions_at_info: bool,
    /// Whether responses carry `baggage` (`ENABLE_RESPONSE_BAGGAGE`).
    pub response_baggage: bool,
    /// The `tag` of the build metric (`ISTIO_META_ISTIO_VERSION`).
    pub istio_version: Option<String>,
}

/// Shape of log lines.
pub use meshwright_istio_surface::logging::LogFormat;
