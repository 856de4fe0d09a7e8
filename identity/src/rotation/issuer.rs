use std::{error::Error, fmt, future::Future, sync::Arc};

use crate::{
    Fault, SpiffeId,
    svid::{InvalidSvid, Svid},
};

/// Gives out certificates: the seam between rotation and whoever signs.
///
/// Open for anyone to implement. An implementation makes a fresh key for each call and never keeps
/// it; the caller bounds the time ([`Rotator`](super::Rotator) gives ten seconds) by dropping the
/// future, which must be safe at any point.
pub trait Issuer: Send + Sync + 'static {
    /// Asks for one certificate of `id`.
    ///
    /// The answer is checked again before use: identity, key, chain and validity.
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<Svid, IssueError>> + Send;
}

impl<I: Issuer> Issuer for Arc<I> {
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<Svid, IssueError>> + Send {
        I::issue(self, id)
    }
}

/// A certificate was not issued.
///
/// Cheap to clone, because everybody who waits for the certificate is told.
#[derive(Clone)]
pub struct IssueError {
    kind: IssueErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Why a certificate was not issued, for choosing what to do and how to count it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IssueErrorKind {
    /// The issuer does not give this identity to this caller. Look at the token, the node's
    /// account and whether a pod of the identity runs here.
    Denied,
    /// The issuer's answer is not a certificate that can be used.
    Invalid,
    /// This process could not ask: no token, no key.
    Local,
    /// No answer came in time.
    TimedOut,
    /// The issuer could not be reached, or said to come back later.
    Unreachable,
}

impl IssueError {
    /// An error of this kind with its cause.
    pub fn new(kind: IssueErrorKind, source: impl Error + Send + Sync + 'static) -> Self {
        Self {
            kind,
            source: Some(Arc::new(source)),
        }
    }

    /// No answer came in time.
    #[must_use]
    pub const fn timed_out() -> Self {
        Self {
            kind: IssueErrorKind::TimedOut,
            source: None,
        }
    }

    /// What went wrong, coarsely.
    #[must_use]
    pub const fn kind(&self) -> IssueErrorKind {
        self.kind
    }

    /// Always `true`: each attempt makes its own key, and an unused certificate expires.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// Who has to act.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self.kind {
            IssueErrorKind::Local => Fault::Local,
            _ => Fault::Peer,
        }
    }
}

impl From<InvalidSvid> for IssueError {
    fn from(source: InvalidSvid) -> Self {
        Self::new(IssueErrorKind::Invalid, source)
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            IssueErrorKind::Denied => "the issuer refused",
            IssueErrorKind::Invalid => "the issuer's answer cannot be used",
            IssueErrorKind::Local => "the issuer could not be asked",
            IssueErrorKind::TimedOut => "the issuer did not answer in time",
            IssueErrorKind::Unreachable => "the issuer is not available",
        })
    }
}

impl fmt::Debug for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for IssueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source: &(dyn Error + 'static) = self.source.as_deref()?;
        Some(source)
    }
}
