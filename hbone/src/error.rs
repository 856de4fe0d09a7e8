//! What can go wrong, one type per operation, and what each means for the caller.

use crate::{events::Limit, quotas::QuotaExceeded};
use meshwright_identity::Fault;
use std::{io, net::SocketAddr, sync::Arc};

/// A byte stream ended abnormally: whoever reads it must not take what it got for complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reset {
    /// The connection below the tunnel ended.
    #[error("the connection below the tunnel ended")]
    ConnectionLost,
    /// This side reset the stream, or its handle was used after that.
    #[error("the stream was reset by this side")]
    Local,
    /// The peer sent `RST_STREAM` with this error code (RFC 9113 §7).
    #[error("the peer reset the stream with code {0}")]
    Stream(u32),
    /// The TCP connection was reset or failed.
    #[error("the TCP connection failed: {0}")]
    Tcp(io::ErrorKind),
}

impl From<Reset> for io::Error {
    fn from(reset: Reset) -> Self {
        Self::new(io::ErrorKind::ConnectionReset, reset)
    }
}

/// A tunnel was not opened.
///
/// Cheap to clone: everyone who waits for one dial gets the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The pool is draining and takes no new tunnels.
    #[error("the pool is draining")]
    Draining,
    /// HTTP/2 was not established on a new connection.
    ///
    /// Something listens there that speaks TLS as a member of the mesh, but not HBONE.
    #[error("could not start HTTP/2 with {peer}")]
    Http2 {
        /// The address that was dialed.
        peer: SocketAddr,
        /// What `h2` or the transport said.
        source: Arc<io::Error>,
    },
    /// The pool holds its maximum of connections, and none of them is idle.
    #[error("the pool is full")]
    PoolFull,
    /// The peer answered the CONNECT request with something other than 200.
    ///
    /// 401: its policy denied; 503: it could not reach the application; 400: it did not accept
    /// the target.
    #[error("{peer} refused the tunnel with status {status}")]
    Refused {
        /// The address that was dialed.
        peer: SocketAddr,
        /// The status line's code.
        status: u16,
    },
    /// The stream ended before the request was answered.
    ///
    /// The peer may have acted on the request.
    #[error("{peer} did not answer the request")]
    Reset {
        /// The address that was dialed.
        peer: SocketAddr,
        /// How the stream ended.
        source: Reset,
    },
    /// A step took longer than its deadline.
    ///
    /// For TCP, look for a network policy that blocks the tunnel port before you look at the
    /// peer; for the answer, at the application behind the peer.
    #[error("{peer} did not finish within the deadline: {step}")]
    Timeout {
        /// The address that was dialed.
        peer: SocketAddr,
        /// The step: [`Limit::Tcp`], [`Limit::Tls`], [`Limit::Settings`] or [`Limit::Answer`].
        step: Limit,
    },
    /// The TCP connection was not established.
    #[error("could not connect to {peer}")]
    Tcp {
        /// The address that was dialed.
        peer: SocketAddr,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed, or the peer is not one of those expected.
    ///
    /// Compare the peer's certificate with the accepted identities first, then the trust roots.
    #[error("could not establish mutual TLS with {peer}")]
    Tls {
        /// The address that was dialed.
        peer: SocketAddr,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// Our own certificate has expired; nothing is sent with it.
    #[error("own certificate has expired")]
    Expired,
    /// The peer has not looked at the request, twice: it said GOAWAY or `REFUSED_STREAM`, it closed
    /// the connection before, or it allows no streams.
    #[error("{peer} takes no new tunnels")]
    Unprocessed {
        /// The address that was dialed.
        peer: SocketAddr,
    },
}

impl ConnectError {
    /// Returns whether the same target may be tried again without the application behind the
    /// peer seeing the request twice.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Draining
            | Self::Http2 { .. }
            | Self::PoolFull
            | Self::Tcp { .. }
            | Self::Tls { .. }
            | Self::Expired
            | Self::Unprocessed { .. } => true,
            Self::Timeout { step, .. } => *step != Limit::Answer,
            // A refusal is an answer; after a reset nobody knows.
            Self::Refused { .. } | Self::Reset { .. } => false,
        }
    }

    /// Whether the peer ended a connection before a request was sent, without an objection.
    pub(crate) fn is_early_end(&self) -> bool {
        match self {
            Self::Http2 { source, .. } | Self::Tls { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        }
    }

    /// Returns who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Draining | Self::Expired | Self::PoolFull => Fault::Local,
            Self::Http2 { .. }
            | Self::Refused { .. }
            | Self::Reset { .. }
            | Self::Tcp { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Unprocessed { .. } => Fault::Peer,
        }
    }
}

/// An accepted socket did not become a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The peer finished TLS, but did not speak HTTP/2.
    #[error("the peer did not start HTTP/2")]
    Http2 {
        /// What `h2` or the transport said.
        source: io::Error,
    },
    /// The peer's identity holds its maximum of connections.
    #[error("no more connections for this peer")]
    Quota {
        /// Which quota.
        source: QuotaExceeded,
    },
    /// A step took longer than its deadline.
    #[error("the peer did not finish within the deadline: {step}")]
    Timeout {
        /// The step: [`Limit::Tls`] or [`Limit::Settings`].
        step: Limit,
    },
    /// The TLS handshake failed, or the peer is no member of the mesh.
    #[error("could not establish mutual TLS")]
    Tls {
        /// What TLS said.
        source: io::Error,
    },
    /// Our own certificate has expired; nothing is sent with it.
    #[error("own certificate has expired")]
    Expired,
}

impl AcceptError {
    /// Returns `false`: only the peer can try again.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Returns who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Expired => Fault::Local,
            Self::Http2 { .. } | Self::Quota { .. } | Self::Timeout { .. } | Self::Tls { .. } => {
                Fault::Peer
            }
        }
    }
}

/// A connection that served tunnels failed; all its tunnels were reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The transport failed, or the peer broke the protocol.
    #[error("the connection failed")]
    Connection {
        /// What `h2` or the transport said.
        source: io::Error,
    },
    /// The peer overran a limit or missed a deadline, and was cut off.
    #[error("the peer was cut off by a limit: {limit}")]
    Limit {
        /// Which one.
        limit: Limit,
    },
}

impl ServeError {
    /// Returns `false`: only the peer can try again.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Returns [`Fault::Peer`].
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Peer
    }
}

#[cfg(test)]
mod tests {
    use super::{AcceptError, ConnectError, Reset, ServeError};
    use crate::{events::Limit, quotas::QuotaExceeded};
    use meshwright_testkit::{assert_chain_says_each_thing_once, trace};
    use std::{io, sync::Arc};

    #[test]
    fn connect_errors_say_each_thing_once() {
        let _trace = trace();
        let peer = "10.0.0.1:15008".parse().unwrap();
        let source = Arc::new(io::Error::other("cause"));
        for error in [
            ConnectError::Draining,
            ConnectError::Http2 {
                peer,
                source: Arc::clone(&source),
            },
            ConnectError::PoolFull,
            ConnectError::Refused { peer, status: 401 },
            ConnectError::Reset {
                peer,
                source: Reset::ConnectionLost,
            },
            ConnectError::Timeout {
                peer,
                step: Limit::Tcp,
            },
            ConnectError::Tcp {
                peer,
                source: Arc::clone(&source),
            },
            ConnectError::Tls { peer, source },
            ConnectError::Expired,
            ConnectError::Unprocessed { peer },
        ] {
            assert_chain_says_each_thing_once(&error);
        }
    }

    #[test]
    fn server_errors_say_each_thing_once() {
        let _trace = trace();
        let source = || io::Error::other("cause");
        for error in [
            AcceptError::Http2 { source: source() },
            AcceptError::Quota {
                source: QuotaExceeded::connections(64),
            },
            AcceptError::Timeout { step: Limit::Tls },
            AcceptError::Tls { source: source() },
            AcceptError::Expired,
        ] {
            assert_chain_says_each_thing_once(&error);
        }
        assert_chain_says_each_thing_once(&ServeError::Connection { source: source() });
        assert_chain_says_each_thing_once(&ServeError::Limit { limit: Limit::Ping });
    }

    #[test]
    fn only_what_the_peer_cannot_have_acted_on_is_safe_to_retry() {
        let _trace = trace();
        let peer = "10.0.0.1:15008".parse().unwrap();
        assert!(ConnectError::Unprocessed { peer }.is_safe_to_retry());
        assert!(
            ConnectError::Timeout {
                peer,
                step: Limit::Tls
            }
            .is_safe_to_retry()
        );
        assert!(
            !ConnectError::Timeout {
                peer,
                step: Limit::Answer
            }
            .is_safe_to_retry()
        );
        assert!(
            !ConnectError::Reset {
                peer,
                source: Reset::ConnectionLost
            }
            .is_safe_to_retry()
        );
        assert!(!ConnectError::Refused { peer, status: 503 }.is_safe_to_retry());
    }
}
