//! What this crate reports: typed events, from which a program makes its metrics and log lines.

use crate::server::BadRequest;
use meshwright_identity::SpiffeId;
use std::{fmt, net::SocketAddr};

/// Receives what happens on connections; every method does nothing by default.
///
/// Methods run on the data path: they must not block.
pub trait Events: Send + Sync + 'static {
    /// A connection to or from a peer is ready for tunnels.
    fn connection_opened(&self, event: &ConnectionOpened<'_>) {
        let _unused = event;
    }

    /// A connection has ended.
    fn connection_closed(&self, event: &ConnectionClosed<'_>) {
        let _unused = event;
    }

    /// A peer's request was answered 400 before anybody saw it.
    fn request_refused(&self, event: &RequestRefused<'_>) {
        let _unused = event;
    }

    /// A limit or deadline was enforced.
    fn limit_reached(&self, event: &LimitReached<'_>) {
        let _unused = event;
    }
}

impl Events for () {}

impl<E: Events + ?Sized> Events for std::sync::Arc<E> {
    fn connection_opened(&self, event: &ConnectionOpened<'_>) {
        (**self).connection_opened(event);
    }
    fn connection_closed(&self, event: &ConnectionClosed<'_>) {
        (**self).connection_closed(event);
    }
    fn request_refused(&self, event: &RequestRefused<'_>) {
        (**self).request_refused(event);
    }
    fn limit_reached(&self, event: &LimitReached<'_>) {
        (**self).limit_reached(event);
    }
}

/// Which end of a connection this process is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Role {
    /// It opened the connection.
    Client,
    /// It accepted the connection.
    Server,
}

/// See [`Events::connection_opened`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionOpened<'a> {
    /// Which end we are.
    pub role: Role,
    /// Who the peer is, from its certificate.
    pub peer: &'a SpiffeId,
    /// The address that was dialed; none on the server.
    pub address: Option<SocketAddr>,
}

/// See [`Events::connection_closed`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionClosed<'a> {
    /// Which end we are.
    pub role: Role,
    /// Who the peer was.
    pub peer: &'a SpiffeId,
    /// The address that was dialed; none on the server.
    pub address: Option<SocketAddr>,
    /// Why it ended.
    pub reason: CloseReason,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it at once.
    Closed,
    /// Somebody drained it, and its last tunnel ended.
    Drained,
    /// We enforced a limit.
    Limit(Limit),
    /// The transport ended without the end of TLS, or failed.
    Lost,
    /// The peer closed it, or broke the protocol.
    Peer,
    /// A rotation of our own took away the root that vouched for the peer.
    Untrusted,
}

/// See [`Events::request_refused`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestRefused<'a> {
    /// Who sent it.
    pub peer: &'a SpiffeId,
    /// What was wrong with it.
    pub reason: BadRequest,
}

/// See [`Events::limit_reached`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LimitReached<'a> {
    /// Which end we are.
    pub role: Role,
    /// Whom it hit; none before the peer is known.
    pub peer: Option<&'a SpiffeId>,
    /// Which limit.
    pub limit: Limit,
}

/// Every limit and deadline that this crate enforces.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Limit {
    /// The connection reached its age, or its peer's certificate ends soon.
    Age,
    /// The CONNECT request was not answered in time.
    Answer,
    /// Connections of one peer identity, or of the pool.
    Connections,
    /// SETTINGS, PING, PRIORITY and unknown frames per second.
    ControlFrames,
    /// DATA frames without data per second.
    EmptyData,
    /// No request came on a new connection.
    FirstRequest,
    /// No tunnel for long.
    Idle,
    /// A PING was not answered.
    Ping,
    /// The HTTP/2 preface or SETTINGS did not come, or were not acknowledged.
    Settings,
    /// `RST_STREAM` frames per second.
    StreamResets,
    /// Tunnels of one peer identity.
    Streams,
    /// The TCP connection was not established in time.
    Tcp,
    /// The TLS handshake did not finish in time.
    Tls,
}

impl Limit {
    /// Returns a name for a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Answer => "answer",
            Self::Connections => "connections",
            Self::ControlFrames => "control_frames",
            Self::EmptyData => "empty_data",
            Self::FirstRequest => "first_request",
            Self::Idle => "idle",
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::StreamResets => "stream_resets",
            Self::Streams => "streams",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
