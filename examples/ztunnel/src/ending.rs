//! Every way in which a connection can end, and what each means to peer, log and metrics.

use std::fmt;
use std::net::SocketAddr;

use http::StatusCode;
use meshwright_hbone::events::Limit;
use meshwright_hbone::{AcceptError, ConnectError, EndReason, RelayEnd, Reset, Side};
use meshwright_identity::rotation::Unavailable;
use meshwright_istio_surface::end::EndReason as Reason;
use meshwright_policy::{Denied, Revoked};
use meshwright_redirect::socket::DialError;
use meshwright_xds_client::route::NoRoute;

use crate::limits::Crowded;
use crate::mesh::PodName;

/// How a connection ended. Closed: a new way to end is a new variant here.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The peer gave up before its request was answered.
    Abandoned(Reset),
    /// No mutual TLS or no HTTP/2 with a caller.
    Accept(AcceptError),
    /// No connection to the application.
    Application(DialError),
    /// No tunnel to the destination's proxy.
    Connect(ConnectError),
    /// A limit of this proxy.
    Crowded(Crowded),
    /// Refused by policy.
    Denied(Denied),
    /// No connection to a plain destination.
    Destination(DialError),
    /// No valid certificate for the pod.
    Identity(Unavailable),
    /// The pod has another identity than when the caller's connection was made.
    IdentityChanged,
    /// There is nowhere to send it, or the target is not this pod's.
    NoRoute(NoRoute),
    /// A route that this version does not understand.
    NotUnderstood,
    /// It was meant for one of the proxy's own ports.
    OwnPort(SocketAddr),
    /// The application expects a PROXY header, which this version does not write. Without it, whatever the
    /// client sends first would be believed as its address and identity.
    ProxyProtocol,
    /// Bytes were moved until this.
    Relayed(RelayEnd),
    /// A policy changed while it was open.
    Revoked(Revoked),
    /// The control plane has not told of the pod.
    UnknownWorkload(PodName),
}

impl Ending {
    /// The status with which a tunnel's request is refused.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) | Self::Revoked(_) => StatusCode::UNAUTHORIZED,
            Self::NoRoute(no_route) => {
                StatusCode::from_u16(no_route.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The kind of end, for metrics.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Abandoned(_) => Reason::Abandoned,
            Self::Accept(AcceptError::Tls { .. }) | Self::Connect(ConnectError::Tls { .. }) => {
                Reason::TlsHandshake
            }
            Self::Accept(AcceptError::Http2 { .. }) | Self::Connect(ConnectError::Http2 { .. }) => {
                Reason::Http2Handshake
            }
            Self::Identity(_) | Self::IdentityChanged => Reason::Identity,
            Self::Accept(AcceptError::Quota { .. } | AcceptError::Timeout { .. })
            | Self::Connect(ConnectError::PoolFull)
            | Self::Crowded(_) => Reason::Limit,
            Self::Accept(_) => Reason::Internal,
            // Nobody answers on the tunnel port: most often a network policy that does not know it.
            Self::Connect(ConnectError::Timeout {
                step: Limit::Tcp, ..
            }) => Reason::NetworkPolicy,
            Self::Connect(ConnectError::Refused { .. }) => Reason::TunnelRefused,
            Self::Connect(_) => Reason::Tunnel,
            Self::Denied(_) => Reason::Denied,
            Self::Application(_) => Reason::Application,
            Self::Destination(_) => Reason::Destination,
            Self::NoRoute(_) | Self::NotUnderstood | Self::ProxyProtocol => Reason::NoRoute,
            Self::OwnPort(_) => Reason::SelfCall,
            Self::Relayed(end) => match end.reason {
                EndReason::Finished => Reason::Finished,
                EndReason::HalfClosedTimeout => Reason::HalfClosedTimeout,
                EndReason::Reset { by: Side::A, .. } => Reason::ClientReset,
                EndReason::Reset { .. } => Reason::ServerReset,
                _ => Reason::Internal,
            },
            Self::Revoked(_) => Reason::PolicyChanged,
            Self::UnknownWorkload(_) => Reason::UnknownSource,
        }
    }

    /// Whether both ends of a tunnel's connection had proved who they are when this went wrong.
    pub(crate) const fn was_mutual_tls(error: &ConnectError) -> bool {
        match error {
            ConnectError::Http2 { .. }
            | ConnectError::Refused { .. }
            | ConnectError::Reset { .. }
            | ConnectError::Unprocessed { .. } => true,
            ConnectError::Timeout { step, .. } => matches!(step, Limit::Settings | Limit::Answer),
            _ => false,
        }
    }

    /// What the access log says; nothing for a clean end.
    pub(crate) fn error(&self) -> Option<String> {
        self.reason().text(self)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(reset) => write!(f, "the peer gave up before the answer: {reset}"),
            Self::Accept(error) => f.write_str(&crate::chain(error)),
            // As Istio writes it: `401 Unauthorized`.
            Self::Connect(ConnectError::Refused { status, .. }) => {
                match StatusCode::from_u16(*status) {
                    Ok(status) => status.fmt(f),
                    Err(_unassigned) => status.fmt(f),
                }
            }
            Self::Connect(error) => f.write_str(&crate::chain(error)),
            Self::Crowded(limit) => limit.fmt(f),
            Self::Denied(denied) => denied.fmt(f),
            Self::Application(error) | Self::Destination(error) => {
                f.write_str(&crate::chain(error))
            }
            Self::Identity(error) => f.write_str(&crate::chain(error)),
            Self::IdentityChanged => f.write_str("the pod's identity has changed"),
            Self::NoRoute(no_route) => no_route.fmt(f),
            Self::NotUnderstood => f.write_str("a route that this version does not understand"),
            Self::OwnPort(address) => address.fmt(f),
            Self::ProxyProtocol => {
                f.write_str("the application expects a PROXY header, which is not supported")
            }
            Self::Relayed(end) => end.reason.fmt(f),
            Self::Revoked(revoked) => revoked.fmt(f),
            Self::UnknownWorkload(pod) => write!(f, "no record of pod {pod}"),
        }
    }
}
