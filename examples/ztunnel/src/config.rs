//! The node proxy's settings: Istio's variables, checked once at the start.
//!
//! [`Config::load`] is the only place of the program that looks at the environment. It reads every
//! variable that Istio's ztunnel knows, applies the same precedence (mesh config file, then
//! `PROXY_CONFIG`, then `ISTIO_META_*`, then single variables) and either gives a [`Config`] whose
//! values need no further check or **all** faults at once.
//!
//! Three rules decide what happens to a variable:
//!
//! - one that asks for protection which is not there yet (`CRL_PATH`, `COMPLIANCE_POLICY`) stops
//!   the start: fail closed;
//! - one that asks for a convenience which is not there yet is kept, has no effect, and is named in
//!   [`Config::notes`] so that the program can say so;
//! - an unknown variable is ignored, as Istio ignores it, unless it begins with `MESHWRIGHT_`.

mod control;
mod network;
mod process;

use std::num::NonZeroUsize;

pub use control::{ControlPlane, Issuing, IstioCa, LocalSource, Node, OwnWorkload, PolicyMode};
pub use network::{
    Handover, Http2, Keepalive, Localhost, OriginalSource, PoolSettings, Ports, Sockets,
};
pub use process::{Command, Drain, LogFormat, Telemetry};

/// Everything the program needs to know before it opens its first socket.
///
/// Valid by construction: made only by [`Config::load`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where workloads, services and policies come from; `None` if `XDS_ADDRESS` is set but empty.
    pub control_plane: Option<ControlPlane>,
    /// A static source beside or instead of the control plane (`LOCAL_XDS_PATH`, `LOCAL_XDS`).
    pub local: Option<LocalSource>,
    /// Who signs the workloads' certificates.
    pub issuing: Issuing,
    /// Who and where this proxy is.
    pub node: Node,
    /// The ports it listens on.
    pub ports: Ports,
    /// Options of the sockets it makes in pods.
    pub sockets: Sockets,
    /// Limits of HTTP/2 connections, both ends.
    pub http2: Http2,
    /// Limits of the pool of tunnels.
    pub pool: PoolSettings,
    /// How long connections may finish at the end of the process.
    pub drain: Drain,
    /// How pods are handed over by the node agent.
    pub handover: Handover,
    /// How policies that cannot be evaluated are treated (`MESHWRIGHT_POLICY_MODE`).
    pub policy_mode: PolicyMode,
    /// Logs and labels.
    pub telemetry: Telemetry,
    /// Worker threads that carry traffic.
    pub workers: NonZeroUsize,
    /// What was asked for and has no effect, one sentence each; log them as warnings.
    pub notes: Vec<String>,
    /// The command line without the program's name, for the dump.
    pub arguments: String,
}
