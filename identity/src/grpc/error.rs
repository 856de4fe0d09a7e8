use std::{io, path::PathBuf, sync::Arc};

use crate::{Fault, svid::InvalidSvid};

/// Settings of a [`Channel`](super::Channel) cannot work.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidChannel {
    /// The second host name is not a name or an address.
    #[error("`{name}` is not a host name")]
    AlternateHost {
        /// The text.
        name: String,
    },
    /// The URI has no host, or one that is not a name or an address.
    #[error("the URI has no valid host")]
    Host,
    /// The URI's scheme is not https. A token is never sent in the clear.
    #[error("the URI's scheme is not https")]
    Scheme,
}

impl InvalidChannel {
    /// Always `false`.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Always the caller's.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Caller
    }
}

/// A request of a [`Channel`](super::Channel) did not get an answer.
///
/// Cheap to clone: everybody who waited for one connection is told the same.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The server could not be reached.
    #[error("could not connect to {server}")]
    Connect {
        /// Host and port.
        server: Arc<str>,
        /// The operating system's answer, for the last address tried.
        source: Arc<io::Error>,
    },
    /// HTTP/2 failed, on a new connection or in the middle of a request.
    #[error("the HTTP/2 connection to {server} failed")]
    Http {
        /// Host and port.
        server: Arc<str>,
        /// What the library says.
        source: Arc<hyper::Error>,
    },
    /// The file with the roots could not be read, and no earlier state of it is known.
    #[error("could not read the roots from {path}")]
    RootFile {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The roots are not certificates.
    #[error("the roots cannot be used")]
    Roots {
        /// The rule they break.
        source: InvalidSvid,
    },
    /// No connection was up in time.
    #[error("no connection to {server} was up in time")]
    TimedOut {
        /// Host and port.
        server: Arc<str>,
    },
    /// TLS failed. A wrong name or root of the server ends here: nothing was sent to it.
    #[error("the TLS handshake with {server} failed")]
    Tls {
        /// Host and port.
        server: Arc<str>,
        /// What rustls says.
        source: Arc<io::Error>,
    },
    /// The token is empty, larger than 64 KiB, or has bytes that a header cannot carry.
    #[error("the token cannot be sent")]
    Token,
    /// The token's file could not be read, and no recent state of it is known.
    #[error("could not read the token from {path}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
}

impl ChannelError {
    /// Whether the request can be repeated without being done twice: when it was never sent.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Http { .. } => false,
            Self::Connect { .. }
            | Self::RootFile { .. }
            | Self::Roots { .. }
            | Self::TimedOut { .. }
            | Self::Tls { .. }
            | Self::Token
            | Self::TokenFile { .. } => true,
        }
    }

    /// Who has to act.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::RootFile { .. } | Self::Roots { .. } | Self::Token | Self::TokenFile { .. } => {
                Fault::Local
            }
            Self::Connect { .. } | Self::Http { .. } | Self::TimedOut { .. } | Self::Tls { .. } => {
                Fault::Peer
            }
        }
    }
}
