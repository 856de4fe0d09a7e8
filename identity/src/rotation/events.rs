use std::{sync::Arc, time::SystemTime};

use super::IssueErrorKind;
use crate::SpiffeId;

/// What a [`Rotator`](super::Rotator) reports, for counting.
///
/// Called on the rotator's task: implementations must not block.
pub trait Events: Send + Sync + 'static {
    /// An identity got its first certificate, or one after a time without.
    fn svid_issued(&self, _event: &SvidIssued) {}

    /// A certificate was replaced while it was still good.
    fn svid_rotated(&self, _event: &SvidIssued) {}

    /// A request ended without a usable certificate.
    fn issue_failed(&self, _event: &IssueFailed) {}
}

/// Reports nothing.
impl Events for () {}

/// A certificate was put in force.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SvidIssued {
    /// Whose.
    pub id: SpiffeId,
    /// Its serial number in decimal.
    pub serial: Arc<str>,
    /// The last second of its validity.
    pub not_after: SystemTime,
}

/// A request ended without a usable certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IssueFailed {
    /// Whose.
    pub id: SpiffeId,
    /// Why.
    pub kind: IssueErrorKind,
    /// Whether an earlier certificate is still good.
    pub still_valid: bool,
}
