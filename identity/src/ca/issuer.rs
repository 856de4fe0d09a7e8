use std::{future::Future, future::ready, time::Duration};

use super::{CaError, CertificateAuthority};
use crate::{
    SpiffeId,
    rotation::{IssueError, IssueErrorKind, Issuer},
    svid::Svid,
};

/// Issues from a [`CertificateAuthority`] in this process.
///
/// For tests, demonstrations and meshes of one process.
#[derive(Clone, Debug)]
pub struct SelfSignedIssuer {
    authority: CertificateAuthority,
    validity: Duration,
}

impl SelfSignedIssuer {
    /// Issues certificates that are valid for `validity`, counted in whole seconds.
    #[must_use]
    pub const fn new(authority: CertificateAuthority, validity: Duration) -> Self {
        Self {
            authority,
            validity,
        }
    }
}

impl Issuer for SelfSignedIssuer {
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<Svid, IssueError>> + Send {
        ready(self.authority.issue(id, self.validity).map_err(|error| {
            let kind = match error {
                CaError::ForeignTrustDomain { .. } | CaError::NotWorkload { .. } => {
                    IssueErrorKind::Denied
                }
                _ => IssueErrorKind::Local,
            };
            IssueError::new(kind, error)
        }))
    }
}
