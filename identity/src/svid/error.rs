use crate::{Fault, InvalidSpiffeId, SpiffeId, TrustDomain};

/// A certificate, chain, key or root breaks a rule of X.509 SVIDs or of this mesh.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSvid {
    /// Chain building failed for a reason that has no variant of its own, such as a bad signature,
    /// an exceeded path length or a name constraint.
    #[error("the certificate chain is not valid")]
    Chain {
        /// What chain building says.
        source: webpki::Error,
    },
    /// There is no certificate, key or root where one must be.
    #[error("a certificate or key is missing")]
    Empty,
    /// A certificate or one of its extensions is not well-formed, or has bytes after its end.
    #[error("the certificate cannot be read: {part}")]
    Encoding {
        /// The part that cannot be read.
        part: &'static str,
    },
    /// A certificate's validity is over. Compare the clocks when it happens to many at once.
    #[error("the certificate has expired")]
    Expired,
    /// The extended key usage is present and does not allow the certificate's role.
    #[error("the extended key usage does not allow this use")]
    ExtendedKeyUsage,
    /// The URI subject alternative name is not a SPIFFE ID.
    #[error("the URI name is not a SPIFFE ID")]
    Id {
        /// The rule of the grammar that it breaks.
        source: InvalidSpiffeId,
    },
    /// The leaf is a certificate authority's.
    #[error("the leaf is a certificate authority")]
    IsAuthority,
    /// There is more than one private key, or none that can be read.
    #[error("there is not exactly one readable private key")]
    Key,
    /// The private key is not that of the leaf's public key.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The key usage is missing, not critical, lacks digitalSignature, or allows signing of
    /// certificates.
    #[error("the key usage is not that of an SVID's leaf: {rule}")]
    KeyUsage {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// A root is not a certificate authority.
    #[error("a root is not a certificate authority")]
    NotAuthority,
    /// The identity does not have the form `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    #[error("{id} is not the identity of a workload")]
    NotWorkload {
        /// The identity.
        id: SpiffeId,
    },
    /// A certificate's validity has not begun, with 60 s of allowance for clock skew.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// The certificate is another identity's.
    #[error("the certificate is of {found} and not of {expected}")]
    OtherIdentity {
        /// Who it had to be.
        expected: SpiffeId,
        /// Who it is.
        found: SpiffeId,
    },
    /// A PEM text has a broken block or a block of another kind.
    #[error("the PEM text is not what it must be")]
    Pem,
    /// A certificate, chain or text is larger than anything legitimate.
    #[error("{what} is too large")]
    TooLarge {
        /// What is.
        what: &'static str,
    },
    /// No root vouches for the certificate.
    #[error("no trusted root vouches for the certificate")]
    UnknownIssuer,
    /// There are no roots for the certificate's trust domain.
    #[error("there are no roots for trust domain {trust_domain}")]
    UnknownTrustDomain {
        /// The trust domain.
        trust_domain: TrustDomain,
    },
    /// The leaf has no URI subject alternative name, or more than one.
    #[error("the certificate has {count} URI names; an SVID has exactly one")]
    UriCount {
        /// How many.
        count: usize,
    },
}

impl InvalidSvid {
    /// Whether another attempt can succeed without a change: only when the validity has not begun.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::NotYetValid)
    }

    /// Always [`Fault::Peer`]: whoever made the certificate has to act.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Peer
    }
}

impl From<webpki::Error> for InvalidSvid {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::CertExpired { .. } => Self::Expired,
            webpki::Error::CertNotValidYet { .. } => Self::NotYetValid,
            // A root with the right name and another key signed something else.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Self::UnknownIssuer
            }
            source => Self::Chain { source },
        }
    }
}
