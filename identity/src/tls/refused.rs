use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::{Fault, SpiffeId, svid::InvalidSvid};

/// A handshake was ended because of the peer's certificate.
///
/// The peer sees the matching TLS alert; no byte was sent to it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRefused {
    /// The certificate breaks a rule or no root vouches for it.
    #[error("the peer's certificate is refused")]
    Certificate {
        /// The rule.
        source: InvalidSvid,
    },
    /// The certificate is valid and of somebody who is not expected there.
    ///
    /// Look first at whether the control plane knows who runs at that address now.
    #[error("the peer is {peer}, which is not expected there")]
    NotAccepted {
        /// Who it is.
        peer: SpiffeId,
    },
}

impl PeerRefused {
    /// Returns why one of [`Member`](super::Member)'s configurations refused a peer, if that is
    /// what `error` says.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Option<Self> {
        let rustls::Error::InvalidCertificate(error) = error else {
            return None;
        };
        let source = match error {
            CertificateError::Expired => InvalidSvid::Expired,
            CertificateError::NotValidYet => InvalidSvid::NotYetValid,
            CertificateError::UnknownIssuer => InvalidSvid::UnknownIssuer,
            CertificateError::Other(OtherError(error)) => return error.downcast_ref().cloned(),
            _ => return None,
        };
        Some(Self::Certificate { source })
    }

    /// As [`of`](Self::of), for the error that an asynchronous TLS stream wraps.
    #[must_use]
    pub fn of_io(error: &std::io::Error) -> Option<Self> {
        Self::of(error.get_ref()?.downcast_ref()?)
    }

    /// Whether another attempt may succeed without a change at the peer: no bytes were exchanged,
    /// and the certificate may become valid within moments.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Certificate { source } => source.is_safe_to_retry(),
            Self::NotAccepted { .. } => false,
        }
    }

    /// Always the peer's.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Peer
    }
}

// rustls derives the alert from its own variants: those that have a precise alert keep it.
impl From<PeerRefused> for rustls::Error {
    fn from(refused: PeerRefused) -> Self {
        let error = match &refused {
            PeerRefused::Certificate { source } => match source {
                InvalidSvid::Expired => Some(CertificateError::Expired),
                InvalidSvid::NotYetValid => Some(CertificateError::NotValidYet),
                InvalidSvid::UnknownIssuer => Some(CertificateError::UnknownIssuer),
                _ => None,
            },
            PeerRefused::NotAccepted { .. } => None,
        };
        let other = || CertificateError::Other(OtherError(Arc::new(refused)));
        Self::InvalidCertificate(error.unwrap_or_else(other))
    }
}
