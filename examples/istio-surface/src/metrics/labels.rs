//! The labels of traffic, in Istio's order.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

/// Longest label value that a peer may choose: a DNS name fits.
const LONGEST: usize = 253;

/// A label's value; what is not known prints as `unknown`.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Label(Option<Arc<str>>);

/// Which end of a connection reports it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reporter {
    /// The server's side.
    Destination,
    /// The client's side.
    Source,
}

/// How a connection was protected.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SecurityPolicy {
    /// In a tunnel between two identities.
    MutualTls,
    /// Not by this proxy.
    #[default]
    Unknown,
}

/// Why a connection ended, in Istio's words.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ResponseFlag {
    /// A certificate was revoked.
    CertRevoked,
    /// No connection to the destination, or it was lost.
    Connect,
    /// A policy denied it.
    Deny,
    /// HTTP/2 was not established.
    H2HandshakeFailure,
    /// The proxy's own certificate is missing.
    IdentityError,
    /// Nothing answers on the tunnel port; perhaps a network policy blocks it.
    NetworkPolicy,
    /// It ended as its applications wanted.
    #[default]
    None,
    /// TLS was not established.
    TlsFailure,
}

/// What is known of one end.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Party {
    /// Name of its workload (a deployment, say).
    pub workload: Label,
    /// Canonical service.
    pub canonical_service: Label,
    /// Canonical revision.
    pub canonical_revision: Label,
    /// Namespace.
    pub namespace: Label,
    /// Identity proved by TLS; never a claim.
    pub principal: Label,
    /// Cluster.
    pub cluster: Label,
    /// Region.
    pub region: Label,
    /// Zone.
    pub zone: Label,
    /// Whether the workload is known, from the control plane or by the peer's claim.
    pub known: bool,
}

/// The service that was called.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct ServiceLabels {
    /// Host name.
    pub host: Label,
    /// Namespace.
    pub namespace: Label,
    /// Name.
    pub name: Label,
}

/// All labels of a traffic series but the response flag.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct TrafficLabels {
    /// Which end reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Party,
    /// The service that was called.
    pub service: ServiceLabels,
    /// The server.
    pub destination: Party,
    /// Protection.
    pub security: SecurityPolicy,
}

/// Labels with a response flag: one line of the exposition.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) labels: &'a TrafficLabels,
    pub(super) flag: ResponseFlag,
}

impl Label {
    /// Takes a value of the control plane or of TLS; an empty one is not known.
    #[must_use]
    pub fn known(value: &Arc<str>) -> Self {
        Self((!value.is_empty()).then(|| Arc::clone(value)))
    }

    /// Takes a value that a peer chose: cut to 253 bytes, and not known if it is empty or has
    /// control characters.
    #[must_use]
    pub fn claimed(value: &str) -> Self {
        if value.is_empty() || value.chars().any(char::is_control) {
            return Self(None);
        }
        let end = value.floor_char_boundary(LONGEST);
        Self(value.get(..end).map(Into::into))
    }

    /// The value, or `unknown`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("unknown")
    }
}

impl From<&str> for Label {
    /// Takes a value of this program's own.
    fn from(value: &str) -> Self {
        Self((!value.is_empty()).then(|| value.into()))
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Reporter {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Source => "source",
        }
    }
}

impl SecurityPolicy {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Unknown => "unknown",
        }
    }
}

impl ResponseFlag {
    /// Every flag.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::CertRevoked,
        Self::Connect,
        Self::Deny,
        Self::H2HandshakeFailure,
        Self::IdentityError,
        Self::NetworkPolicy,
        Self::TlsFailure,
    ];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertRevoked => "CERT_REVOKED",
            Self::Connect => "CONNECT",
            Self::Deny => "DENY",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::None => "-",
            Self::TlsFailure => "TLS_FAILURE",
        }
    }
}

impl TrafficLabels {
    /// Labels of a connection of which nothing is known yet.
    #[must_use]
    pub fn new(reporter: Reporter) -> Self {
        Self {
            reporter,
            source: Party::default(),
            service: ServiceLabels::default(),
            destination: Party::default(),
            security: SecurityPolicy::default(),
        }
    }
}

impl EncodeLabelSet for Line<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let TrafficLabels {
            reporter,
            source,
            service,
            destination,
            security,
        } = self.labels;
        let mut put = |name: &str, value: &str| (name, value).encode(encoder.encode_label());
        put("reporter", reporter.as_str())?;
        put("source_workload", source.workload.as_str())?;
        put(
            "source_canonical_service",
            source.canonical_service.as_str(),
        )?;
        put(
            "source_canonical_revision",
            source.canonical_revision.as_str(),
        )?;
        put("source_workload_namespace", source.namespace.as_str())?;
        put("source_principal", source.principal.as_str())?;
        put("source_app", source.canonical_service.as_str())?;
        put("source_version", source.canonical_revision.as_str())?;
        put("source_cluster", source.cluster.as_str())?;
        put("destination_service", service.host.as_str())?;
        put("destination_service_namespace", service.namespace.as_str())?;
        put("destination_service_name", service.name.as_str())?;
        put("destination_workload", destination.workload.as_str())?;
        put(
            "destination_canonical_service",
            destination.canonical_service.as_str(),
        )?;
        put(
            "destination_canonical_revision",
            destination.canonical_revision.as_str(),
        )?;
        put(
            "destination_workload_namespace",
            destination.namespace.as_str(),
        )?;
        put("destination_principal", destination.principal.as_str())?;
        put("destination_app", destination.canonical_service.as_str())?;
        put(
            "destination_version",
            destination.canonical_revision.as_str(),
        )?;
        put("destination_cluster", destination.cluster.as_str())?;
        put("request_protocol", "tcp")?;
        put("response_flags", self.flag.as_str())?;
        put("connection_security_policy", security.as_str())?;
        if source.known || destination.known {
            put("source_region", source.region.as_str())?;
            put("source_zone", source.zone.as_str())?;
            put("destination_region", destination.region.as_str())?;
            put("destination_zone", destination.zone.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Label;

    #[test]
    fn claimed_value_is_cut_and_one_with_control_characters_is_not_taken() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(Label::claimed(&"é".repeat(10_000)).as_str().len(), 252);
        assert_eq!(Label::claimed("a\u{1b}[31m").as_str(), "unknown");
        assert_eq!(Label::claimed("").as_str(), "unknown");
    }
}
