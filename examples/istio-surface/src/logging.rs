//! Log lines as Istio's ztunnel writes them.

/// Shape of log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Fields separated by tabs.
    #[default]
    Plain,
}
