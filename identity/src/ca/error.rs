use crate::{Fault, SpiffeId, svid::InvalidSvid};

/// A certificate authority did not make or sign something.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// Making a key or a signature failed.
    #[error("a key or certificate could not be made")]
    Crypto {
        /// What the library says.
        source: rcgen::Error,
    },
    /// The identity belongs to another trust domain.
    #[error("{id} belongs to another trust domain")]
    ForeignTrustDomain {
        /// The identity.
        id: SpiffeId,
    },
    /// The key of the request is of a kind that is not signed.
    #[error("the request's key is too weak or of a kind that is not accepted")]
    Key,
    /// A name for a server certificate is not valid, or there is none.
    #[error("the server certificate has no valid name")]
    Name,
    /// The clock has no time.
    #[error("the clock has no time")]
    NoTime,
    /// The identity does not have the form `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    #[error("{id} is not the identity of a workload")]
    NotWorkload {
        /// The identity.
        id: SpiffeId,
    },
    /// The kept text is not one root certificate with its private key.
    #[error("the kept root is not one certificate with its key")]
    Pem,
    /// The signing request is too large, unreadable, or not signed by its own key.
    #[error("the signing request is not valid")]
    Request,
    /// The root or something signed with it breaks the rules of this crate.
    #[error("the root cannot be used")]
    Root {
        /// The rule.
        source: InvalidSvid,
    },
    /// The validity is shorter than a second or ends after the year 9999.
    #[error("the validity is out of range")]
    Validity,
}

impl CaError {
    /// Always `false`: the same request fails again.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Who has to act: the requester, or this process.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Crypto { .. } | Self::NoTime | Self::Pem | Self::Root { .. } => Fault::Local,
            Self::ForeignTrustDomain { .. }
            | Self::Key
            | Self::Name
            | Self::NotWorkload { .. }
            | Self::Request
            | Self::Validity => Fault::Caller,
        }
    }
}
