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
mod dump;
mod network;
mod process;

use std::num::NonZeroUsize;
use std::path::Path;

use meshwright_istio_surface::env::{
    Checker, InvalidSettings, InvalidValue, ProxyConfig, Variables,
};

pub use control::{ControlPlane, Issuing, IstioCa, LocalSource, Node, OwnWorkload, PolicyMode};
pub use network::{
    Handover, Http2, Keepalive, Localhost, OriginalSource, PoolSettings, Ports, Sockets,
};
pub use process::{Command, Drain, LogFormat, Machine, Telemetry, UnknownCommand};

/// The mesh configuration that Istio mounts, relative to the working directory.
const MESH_CONFIG: &str = "./etc/istio/config/mesh";

/// Prefixes of variables that belong to other programs of this repository.
const OTHER_PROGRAMS: [&str; 1] = ["MESHWRIGHT_CP_"];

/// Our own variables. The last two steer this repository's tests, and reach programs that tests
/// start.
const OWN_VARIABLES: [&str; 4] = [
    "MESHWRIGHT_CA",
    "MESHWRIGHT_POLICY_MODE",
    "MESHWRIGHT_REGENERATE",
    "MESHWRIGHT_REQUIRE",
];

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

impl Config {
    /// Checks the environment: the only reader of variables and configuration files.
    ///
    /// `arguments` are the words after the program's name; they are kept for the dump only.
    ///
    /// # Errors
    ///
    /// Every setting that cannot be used, with its name and the reason; secret values are left out.
    pub fn load(
        variables: &Variables,
        arguments: &[String],
        machine: Machine,
    ) -> Result<Self, InvalidSettings> {
        let mut checker = variables.checker();
        let config = Self::read(&mut checker, machine);
        let notes = checker.finish()?;
        Ok(Self {
            notes,
            arguments: arguments.join(" "),
            ..config
        })
    }

    fn read(checker: &mut Checker<'_>, machine: Machine) -> Self {
        checker.only("MESHWRIGHT_", &OWN_VARIABLES, &OTHER_PROGRAMS);
        let proxy = ProxyConfig::load(checker, Path::new(MESH_CONFIG));
        refuse_missing_protection(checker);
        note_missing_convenience(checker, &proxy);
        Self {
            control_plane: ControlPlane::read(checker, &proxy),
            local: LocalSource::read(checker),
            issuing: Issuing::read(checker, &proxy),
            node: Node::read(checker, &proxy),
            ports: Ports::read(checker, &proxy, machine),
            sockets: Sockets::read(checker),
            http2: Http2::read(checker),
            pool: PoolSettings::read(checker),
            drain: Drain::read(checker),
            handover: Handover::read(checker),
            policy_mode: PolicyMode::read(checker),
            telemetry: Telemetry::read(checker, &proxy),
            workers: process::workers(checker, &proxy, machine),
            notes: Vec::new(),
            arguments: String::new(),
        }
    }
}

/// What asks for protection, or for another kind of program, stops the start.
fn refuse_missing_protection(checker: &mut Checker<'_>) {
    if let Some(path) = checker.text("CRL_PATH") {
        let advice = "revoked certificates would be accepted; unset it";
        checker.fault("CRL_PATH", Some(path), InvalidValue::Unsupported { advice });
    }
    if let Some("pqc") = checker.text("COMPLIANCE_POLICY") {
        let advice =
            "X25519MLKEM768 is preferred, but a peer without it would still be accepted; unset it";
        let reason = InvalidValue::Unsupported { advice };
        checker.fault("COMPLIANCE_POLICY", Some("pqc"), reason);
    } else if let Some(other) = checker.text("COMPLIANCE_POLICY") {
        let reason = InvalidValue::NotOneOf { words: &["pqc"] };
        checker.fault("COMPLIANCE_POLICY", Some(other), reason);
    }
    if checker.word("PROXY_MODE", &["shared", "dedicated"]) == Some("dedicated") {
        let advice = "this program serves all pods of a node; use `shared`";
        let reason = InvalidValue::Unsupported { advice };
        checker.fault("PROXY_MODE", Some("dedicated"), reason);
    }
    if !checker.boolean("ENABLE_PROXY", true) {
        let advice = "there is no DNS proxy, so nothing would be left to run; unset it";
        let reason = InvalidValue::Unsupported { advice };
        checker.fault("ENABLE_PROXY", Some("false"), reason);
    }
}

/// What asks for a convenience is kept, and said to have no effect.
fn note_missing_convenience(checker: &mut Checker<'_>, proxy: &ProxyConfig) {
    match proxy.proxy_metadata.get("DNS_CAPTURE").map(String::as_str) {
        Some(value) if !value.eq_ignore_ascii_case("true") => {}
        _ => checker.note(
            "there is no DNS proxy yet: switch DNS capture off in the node agent, \
             and set ISTIO_META_DNS_CAPTURE=false to silence this",
        ),
    }
    if checker.boolean("XDS_ON_DEMAND", false) {
        checker.note("XDS_ON_DEMAND has no effect: all workloads and services are subscribed to");
    }
    if checker.boolean("UNSTABLE_ENABLE_SOCKS5", false) {
        checker.note("UNSTABLE_ENABLE_SOCKS5 has no effect: nothing listens on port 15080");
    }
    if checker.text("TLS12_ENABLED") == Some("true") {
        checker.note("TLS12_ENABLED has no effect: only TLS 1.3 is spoken");
    }
    if checker.text("AUTHZ_POLICY_INFO_LOGGING") == Some("true") {
        checker.note("AUTHZ_POLICY_INFO_LOGGING has no effect: refusals are in the access log");
    }
    if checker.text("PREFERED_SERVICE_NAMESPACE").is_some() {
        checker.note("PREFERED_SERVICE_NAMESPACE has no effect: it concerns the DNS proxy");
    }
    if checker.text("PROXY_WORKLOAD_INFO").is_some() {
        checker.note("PROXY_WORKLOAD_INFO has no effect: it concerns the dedicated mode");
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
