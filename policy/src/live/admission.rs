//! What the owner of a live connection holds.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{ConnectionFacts, Live, entry::Entry};
use crate::decision::{Denied, Reason};

/// A connection's place in the registry; dropping it unregisters the connection.
///
/// One task at a time may wait for the revocation: the last one to poll is woken.
#[must_use = "a connection without its admission is not judged again"]
pub struct Admission {
    live: Live,
    entry: Arc<Entry>,
    key: u64,
}

/// A live connection was revoked and must be closed.
///
/// `Display` is Istio's text, `connection closed due to policy change: ...`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Revoked {
    /// The policy that decided; `None` if no policy in particular did.
    pub policy: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
}

/// Waits until a connection is revoked; see [`Admission::revoked`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct WaitRevoked<'a> {
    admission: &'a Admission,
}

impl Admission {
    pub(super) const fn new(live: Live, entry: Arc<Entry>, key: u64) -> Self {
        Self { live, entry, key }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// What the connection is judged by.
    #[must_use]
    pub fn facts(&self) -> &ConnectionFacts {
        self.entry.facts()
    }

    /// Ready once the connection is revoked, and from then on.
    ///
    /// For a task that polls several things anyway. The waker of the last call is kept.
    pub fn poll_revoked(&self, cx: &mut Context<'_>) -> Poll<Revoked> {
        match self.entry.poll_revoked(cx) {
            Some(revoked) => Poll::Ready(revoked.clone()),
            None => Poll::Pending,
        }
    }

    /// Waits until the connection is revoked. Cancel safe.
    pub const fn revoked(&self) -> WaitRevoked<'_> {
        WaitRevoked { admission: self }
    }

    /// The revocation, if there has been one.
    #[must_use]
    pub fn revocation(&self) -> Option<Revoked> {
        self.entry.revoked().cloned()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.live
            .shared
            .registry
            .remove(&self.entry.facts().workload, self.key);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("facts", self.facts())
            .field("revoked", &self.entry.revoked())
            .finish_non_exhaustive()
    }
}

impl Future for WaitRevoked<'_> {
    type Output = Revoked;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Revoked> {
        self.admission.poll_revoked(cx)
    }
}

impl From<Denied> for Revoked {
    fn from(denied: Denied) -> Self {
        Self {
            policy: denied.policy,
            reason: denied.reason,
        }
    }
}

impl From<&Revoked> for Denied {
    fn from(revoked: &Revoked) -> Self {
        Self::new(revoked.policy.clone(), revoked.reason)
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connection closed due to policy change: {}",
            Denied::from(self)
        )
    }
}

impl std::error::Error for Revoked {}
