//! Why a connection ended: one closed set for log, metrics and traces.
//!
//! A program keeps the error itself; this names its kind. [`EndReason::flag`] is the label that
//! Istio's dashboards group by, [`EndReason::text`] the `error` of the access log in Istio's words
//! where Istio has words, [`EndReason::name`] the finer name for our own metrics and traces.

use std::fmt;

use crate::metrics::{Establishment, ResponseFlag};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum EndReason {
    /// The client gave up before it was answered.
    Abandoned,
    /// No connection to the application; the detail is the operating system's answer.
    Application,
    /// A certificate expired while the connection was open.
    CertificateExpired,
    /// A certificate was revoked.
    CertificateRevoked,
    /// The client ended it abnormally.
    ClientReset,
    /// A policy denied it; the detail is the policy's reason.
    Denied,
    /// No connection to a plain destination; the detail is the operating system's answer.
    Destination,
    /// The process ends, and the connection did not in time.
    Drained,
    /// Both applications ended it.
    Finished,
    /// One direction ended, and nothing moved in the other for too long.
    HalfClosedTimeout,
    /// HTTP/2 was not established.
    Http2Handshake,
    /// The proxy's own certificate is missing, or is of another identity than before.
    Identity,
    /// Something in this proxy; look for an error before this line.
    Internal,
    /// A limit was reached; the detail names it.
    Limit,
    /// Nothing answers on the tunnel port; perhaps a network policy blocks it.
    NetworkPolicy,
    /// There is nowhere to send it, or the target is not this pod's.
    NoRoute,
    /// A policy changed while the connection was open.
    PolicyChanged,
    /// It was meant for one of the proxy's own ports.
    SelfCall,
    /// The server ended it abnormally.
    ServerReset,
    /// TLS was not established.
    TlsHandshake,
    /// The connection to the destination's proxy was not made, or was lost before the answer.
    Tunnel,
    /// The destination's proxy refused it; the detail is the status.
    TunnelRefused,
    /// The control plane has not told of the pod.
    UnknownSource,
}

impl EndReason {
    /// How many there are: size of a table that [`index`](Self::index) is an index of.
    pub const COUNT: usize = Self::UnknownSource as usize + 1;

    /// A number below [`COUNT`](Self::COUNT), its own for each reason.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Istio's word for it on the metrics.
    #[must_use]
    pub const fn flag(self) -> ResponseFlag {
        match self {
            Self::Finished => ResponseFlag::None,
            Self::Denied | Self::PolicyChanged => ResponseFlag::Deny,
            Self::TlsHandshake => ResponseFlag::TlsFailure,
            Self::Http2Handshake => ResponseFlag::H2HandshakeFailure,
            Self::NetworkPolicy => ResponseFlag::NetworkPolicy,
            Self::Identity => ResponseFlag::IdentityError,
            Self::CertificateRevoked => ResponseFlag::CertRevoked,
            Self::Abandoned
            | Self::Application
            | Self::CertificateExpired
            | Self::ClientReset
            | Self::Destination
            | Self::Drained
            | Self::HalfClosedTimeout
            | Self::Internal
            | Self::Limit
            | Self::NoRoute
            | Self::SelfCall
            | Self::ServerReset
            | Self::Tunnel
            | Self::TunnelRefused
            | Self::UnknownSource => ResponseFlag::Connect,
        }
    }

    /// Whether bytes could flow before.
    #[must_use]
    pub const fn establishment(self) -> Establishment {
        match self {
            Self::CertificateExpired
            | Self::CertificateRevoked
            | Self::ClientReset
            | Self::Drained
            | Self::Finished
            | Self::HalfClosedTimeout
            | Self::PolicyChanged
            | Self::ServerReset => Establishment::Established,
            Self::Abandoned
            | Self::Application
            | Self::Denied
            | Self::Destination
            | Self::Http2Handshake
            | Self::Identity
            | Self::Internal
            | Self::Limit
            | Self::NetworkPolicy
            | Self::NoRoute
            | Self::SelfCall
            | Self::TlsHandshake
            | Self::Tunnel
            | Self::TunnelRefused
            | Self::UnknownSource => Establishment::Failed,
        }
    }

    /// What the access log says; nothing for an end that both applications wanted.
    ///
    /// `detail` is what [the variant](Self) says it is; other variants write it behind their own
    /// words.
    pub fn text(self, detail: impl fmt::Display) -> Option<String> {
        let text = match self {
            Self::Finished => return None,
            Self::Application => format!("connection failed: {detail}"),
            Self::Denied => format!("connection closed due to policy rejection: {detail}"),
            Self::Destination => format!("io error: {detail}"),
            Self::Drained => "connection closed due to connection drain".to_owned(),
            Self::Http2Handshake => format!("http2 handshake failed: {detail}"),
            Self::Identity => format!("identity error: {detail}"),
            Self::NetworkPolicy => format!(
                "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: {detail}"
            ),
            Self::PolicyChanged => "connection closed due to policy change".to_owned(),
            Self::SelfCall => "attempted recursive call to ourselves".to_owned(),
            Self::TlsHandshake => format!("tls error: {detail}"),
            Self::Tunnel => format!("h2 failed: {detail}"),
            Self::TunnelRefused => format!("http status: {detail}"),
            Self::UnknownSource => {
                format!("failed to fetch information about local workload: {detail}")
            }
            // Istio has no words for these: it does not tell them apart, or does not have them.
            Self::Abandoned => format!("client disconnected before it was answered: {detail}"),
            Self::CertificateExpired => "connection closed: certificate expired".to_owned(),
            Self::CertificateRevoked => "connection closed: certificate revoked".to_owned(),
            Self::ClientReset => format!("connection reset by the client: {detail}"),
            Self::HalfClosedTimeout => {
                "connection closed: no progress after one direction had ended".to_owned()
            }
            Self::ServerReset => format!("connection reset by the server: {detail}"),
            Self::Internal | Self::Limit | Self::NoRoute => detail.to_string(),
        };
        Some(text)
    }

    /// A name for our own metrics and for traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Application => "application",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateRevoked => "certificate_revoked",
            Self::ClientReset => "client_reset",
            Self::Denied => "denied",
            Self::Destination => "destination",
            Self::Drained => "drained",
            Self::Finished => "finished",
            Self::HalfClosedTimeout => "half_closed_timeout",
            Self::Http2Handshake => "http2_handshake",
            Self::Identity => "identity",
            Self::Internal => "internal",
            Self::Limit => "limit",
            Self::NetworkPolicy => "network_policy",
            Self::NoRoute => "no_route",
            Self::PolicyChanged => "policy_changed",
            Self::SelfCall => "self_call",
            Self::ServerReset => "server_reset",
            Self::TlsHandshake => "tls_handshake",
            Self::Tunnel => "tunnel",
            Self::TunnelRefused => "tunnel_refused",
            Self::UnknownSource => "unknown_source",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::EndReason;
    use crate::metrics::ResponseFlag;
    use std::io;

    #[test]
    fn texts_are_those_that_a_real_ztunnel_logged() {
        let _trace = meshwright_testkit::trace();
        let os = io::Error::from_raw_os_error;
        let recorded = concat!(
            include_str!("../tests/data/access-a.log"),
            include_str!("../tests/data/access-b.log")
        );
        for text in [
            EndReason::TunnelRefused.text(http::StatusCode::UNAUTHORIZED),
            EndReason::TunnelRefused.text(http::StatusCode::SERVICE_UNAVAILABLE),
            EndReason::Application.text(os(111)),
            EndReason::Destination.text(os(113)),
            EndReason::Denied.text("allow policies exist, but none allowed"),
        ] {
            let wanted = format!("error=\"{}\"", text.unwrap());
            assert!(recorded.contains(&wanted), "{wanted}");
        }
    }

    #[test]
    fn only_a_clean_end_has_no_error_and_no_flag() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(EndReason::Finished.text("x"), None);
        assert_eq!(EndReason::Finished.flag(), ResponseFlag::None);
        assert_eq!(EndReason::Drained.flag(), ResponseFlag::Connect);
        assert_eq!(EndReason::UnknownSource.index() + 1, EndReason::COUNT);
    }
}
