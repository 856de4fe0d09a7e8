use tonic::Code;

use crate::svid::InvalidSvid;

/// The service answered with a status instead of a certificate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[error("the certificate service answered {code:?}: {message:?}")]
pub struct ServiceError {
    /// The gRPC status.
    pub code: Code,
    /// What the service says, at most 256 characters of it.
    pub message: String,
}

/// The service's answer is not a certificate of the key and identity that were asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAnswer {
    /// The answer's certificates break a rule.
    #[error("the answer breaks a rule")]
    Certificate {
        /// The rule.
        source: InvalidSvid,
    },
    /// The certificate is of another key than the one that was sent.
    #[error("the certificate is of another key")]
    OtherKey,
    /// There is no leaf or no root, or far too many parts.
    #[error("the answer has {parts} parts")]
    Parts {
        /// How many.
        parts: usize,
    },
}
