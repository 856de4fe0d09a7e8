//! X.509 SVIDs.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use crate::{SpiffeId, TrustDomain};

/// One identity's certificate chain, private key and the roots it trusts.
#[derive(Debug)]
pub struct Svid {
    id: SpiffeId,
}

/// Roots per trust domain.
#[derive(Clone, Debug)]
pub struct TrustBundles {}

/// A certificate, key or root is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("the SVID is not valid")]
pub struct InvalidSvid {}

impl Svid {
    /// Reads chain, key (PKCS#8) and roots from PEM text.
    ///
    /// # Errors
    ///
    /// Returns why they are not an SVID of `id`.
    pub fn from_pem(
        id: &SpiffeId,
        chain: &[u8],
        key: &[u8],
        roots: &[u8],
    ) -> Result<Self, InvalidSvid> {
        todo!()
    }
    /// The identity.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        todo!()
    }
    /// Roots of the own trust domain.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        todo!()
    }
    /// Start of validity.
    pub fn not_before(&self) -> SystemTime {
        todo!()
    }
    /// End of validity.
    pub fn not_after(&self) -> SystemTime {
        todo!()
    }
    /// Serial number in decimal.
    pub fn serial(&self) -> &str {
        todo!()
    }
    /// Trusts `roots` for peers of another trust domain too.
    #[must_use]
    pub fn with_bundles(self, bundles: TrustBundles) -> Self {
        todo!()
    }
}

/// What an inspector shows of one certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateSummary {
    /// Serial number in decimal.
    pub serial: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// PEM text.
    pub pem: String,
}

impl CertificateSummary {
    /// Reads one DER certificate.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, InvalidSvid> {
        todo!()
    }
}

impl TrustBundles {
    /// Roots of one trust domain, from PEM.
    ///
    /// # Errors
    ///
    /// Returns why they are not roots.
    pub fn from_pem(trust_domain: TrustDomain, roots: &[u8]) -> Result<Self, InvalidSvid> {
        todo!()
    }
}
