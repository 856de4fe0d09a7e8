//! A certificate authority in memory.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::{
    SpiffeId, TrustDomain,
    rotation::{IssueError, Issuer},
    svid::Svid,
};

/// A self-signed certificate authority for one trust domain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CertificateAuthority {}

/// A certificate authority could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("the certificate authority refused")]
pub struct CaError {}

/// A TLS server certificate with its key.
#[derive(Debug)]
pub struct ServerCredentials {}

impl ServerCredentials {
    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        todo!()
    }
    /// A copy of the key for rustls.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        todo!()
    }
    /// A TLS 1.3 server configuration without client authentication, ALPN `h2`.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        todo!()
    }
}

impl CertificateAuthority {
    /// Makes a fresh root.
    ///
    /// # Errors
    ///
    /// Returns why no key or certificate could be made.
    pub fn new(trust_domain: TrustDomain) -> Result<Self, CaError> {
        todo!()
    }
    /// Takes up a root written by [`to_pem`](Self::to_pem).
    ///
    /// # Errors
    ///
    /// Returns why certificate and key are not a certificate authority.
    pub fn from_pem(trust_domain: TrustDomain, pem: &str) -> Result<Self, CaError> {
        todo!()
    }
    /// Root certificate and private key, to keep across restarts.
    pub fn to_pem(&self) -> Zeroizing<String> {
        todo!()
    }
    /// The root certificate as PEM.
    pub fn root_pem(&self) -> &str {
        todo!()
    }
    /// The trust domain this authority speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        todo!()
    }
    /// Signs the key of a request for `id`; everything else in the request is ignored.
    /// Returns PEM texts, leaf first, the root last, as Istio's service answers.
    ///
    /// # Errors
    ///
    /// Returns why the request is refused.
    pub fn sign_csr(
        &self,
        csr: &str,
        id: &SpiffeId,
        validity: Duration,
    ) -> Result<Vec<String>, CaError> {
        todo!()
    }
    /// Makes key and certificate of `id`.
    ///
    /// # Errors
    ///
    /// Returns why not.
    pub fn issue(&self, id: &SpiffeId, validity: Duration) -> Result<Svid, CaError> {
        todo!()
    }
    /// Makes key and certificate of a TLS server (not a mesh member), for a control plane.
    ///
    /// # Errors
    ///
    /// Returns why not.
    pub fn server_certificate(
        &self,
        dns_names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<ServerCredentials, CaError> {
        todo!()
    }
}

/// Issues from a [`CertificateAuthority`] in this process.
#[derive(Clone, Debug)]
pub struct SelfSignedIssuer {}

impl SelfSignedIssuer {
    /// Issues certificates of this validity.
    pub fn new(authority: CertificateAuthority, validity: Duration) -> Self {
        todo!()
    }
}

impl Issuer for SelfSignedIssuer {
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<Svid, IssueError>> + Send {
        async { todo!() }
    }
}
