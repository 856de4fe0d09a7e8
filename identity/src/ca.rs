//! A certificate authority in memory, for one trust domain.
//!
//! It is what a small control plane, a test or a mesh of one process signs with. From a signing
//! request it takes the public key and nothing else: the identity, the usages and the validity are
//! the caller's decision. What it signs keeps the rules that this crate's verifiers check.
//!
//! ```
//! use std::time::Duration;
//! use meshwright_identity::{Member, SpiffeId, TrustDomain, ca::CertificateAuthority, tls::TlsEngine};
//!
//! let ca = CertificateAuthority::new(TrustDomain::parse("cluster.local")?)?;
//! let web = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web")?;
//! let member = Member::new(ca.issue(&web, Duration::from_secs(3600))?, &TlsEngine::aws_lc_rs())?;
//! assert_eq!(member.id(), &web);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod issuer;
mod server;
mod template;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, PublicKeyData};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::{
    SpiffeId, TrustDomain,
    key::Key,
    svid::{CertificateSummary, Svid, TrustBundles},
    tls::SystemClock,
};

pub use error::CaError;
pub use issuer::SelfSignedIssuer;
pub use server::ServerCredentials;

/// A signing request is about 500 bytes; RSA-4096 ones are below 3 KiB.
const MAX_CSR_BYTES: usize = 16 * 1024;

/// A self-signed certificate authority for one trust domain.
///
/// Cheap to clone; clones share root and key. The key stays in memory unless
/// [`to_pem`](Self::to_pem) is asked for it, and is wiped with the last clone.
#[derive(Clone)]
pub struct CertificateAuthority {
    inner: Arc<Inner>,
}

struct Inner {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    root_pem: String,
    issuer: Issuer<'static, Key>,
    clock: Arc<dyn TimeProvider>,
}

impl CertificateAuthority {
    /// Makes a fresh P-256 root, valid for ten years from now by the system's clock.
    ///
    /// # Errors
    ///
    /// Returns why no key or certificate could be made.
    pub fn new(trust_domain: TrustDomain) -> Result<Self, CaError> {
        Self::with_clock(trust_domain, Arc::new(SystemClock))
    }

    /// As [`new`](Self::new), with a clock of the caller's.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_clock(
        trust_domain: TrustDomain,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, CaError> {
        let key = template::new_key()?;
        let params = template::root(&trust_domain, now(&*clock)?)?;
        let root = params
            .self_signed(key.pair())
            .map_err(|source| CaError::Crypto { source })?;
        Self::assemble(trust_domain, root.der().clone(), key, clock)
    }

    /// Takes up a root that [`to_pem`](Self::to_pem) wrote: one certificate, one private key.
    ///
    /// # Errors
    ///
    /// Returns why the text is not a certificate authority with its key.
    pub fn from_pem(trust_domain: TrustDomain, pem: &str) -> Result<Self, CaError> {
        let (root, key) = template::split_pem(pem)?;
        let clock = Arc::new(SystemClock);
        Self::assemble(trust_domain, root, Key::from(key), clock)
    }

    fn assemble(
        trust_domain: TrustDomain,
        root: CertificateDer<'static>,
        key: Key,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, CaError> {
        let invalid = |source| CaError::Root { source };
        let root_pem = CertificateSummary::of(&root).map_err(invalid)?.pem;
        TrustBundles::from_der(trust_domain.clone(), vec![root.clone()]).map_err(invalid)?;
        template::check_root_key(&root, key.pair())?;
        let issuer = Issuer::from_ca_cert_der(&root, key).or(Err(CaError::Pem))?;
        Ok(Self {
            inner: Arc::new(Inner {
                trust_domain,
                root,
                root_pem,
                issuer,
                clock,
            }),
        })
    }

    /// Root certificate and private key as PEM, to keep across restarts.
    ///
    /// Whoever reads it can speak for every identity of the trust domain: write it with mode 0600
    /// or not at all.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.inner.issuer.key().pair().serialize_pem());
        let mut pem = Zeroizing::new(self.inner.root_pem.clone());
        pem.push_str(&key);
        pem
    }

    /// The root certificate as PEM, for whoever must verify what this authority signs.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.inner.root_pem
    }

    /// The trust domain that this authority speaks for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.inner.trust_domain
    }

    /// Signs the key of a request (PEM) for `id`. The request's own signature must be right, which
    /// proves possession of the key; its names and extensions are ignored.
    ///
    /// Returns PEM texts, the leaf first and the root last: what Istio's certificate service
    /// answers. Keys may be P-256, P-384, Ed25519 or RSA of at least 2048 bits.
    ///
    /// # Errors
    ///
    /// Returns why the request is refused: it is larger than 16 KiB or unreadable, its signature
    /// is wrong, its key is of another kind, `id` is not a workload of this trust domain, or
    /// `validity` is shorter than a second.
    pub fn sign_csr(
        &self,
        csr: &str,
        id: &SpiffeId,
        validity: Duration,
    ) -> Result<Vec<String>, CaError> {
        if csr.len() > MAX_CSR_BYTES {
            return Err(CaError::Request);
        }
        let request = CertificateSigningRequestParams::from_pem(csr).or(Err(CaError::Request))?;
        template::check_key(&request.public_key)?;
        let leaf = self.sign_leaf(id, validity, &request.public_key)?;
        let leaf = CertificateSummary::of(&leaf).map_err(|source| CaError::Root { source })?;
        Ok(vec![leaf.pem, self.inner.root_pem.clone()])
    }

    /// Makes key and certificate of `id`, valid for `validity` from now.
    ///
    /// The beginning of validity lies up to a minute in the past, a tenth of `validity` at most, so
    /// that peers whose clocks are behind accept it.
    ///
    /// # Errors
    ///
    /// As [`sign_csr`](Self::sign_csr), without the request.
    pub fn issue(&self, id: &SpiffeId, validity: Duration) -> Result<Svid, CaError> {
        let invalid = |source| CaError::Root { source };
        let key = template::new_key()?;
        let leaf = self.sign_leaf(id, validity, &key)?;
        let roots = vec![self.inner.root.clone()];
        let bundles = TrustBundles::from_der(self.inner.trust_domain.clone(), roots);
        let key = key.to_der();
        Svid::from_der(id, vec![leaf], key, bundles.map_err(invalid)?).map_err(invalid)
    }

    /// Makes key and certificate of a TLS server that is not a member of the mesh, such as the
    /// control plane that hands out this authority's certificates. Valid for a year.
    ///
    /// # Errors
    ///
    /// Returns [`CaError::Name`] when a name is not a DNS name or there is none at all.
    pub fn server_certificate(
        &self,
        dns_names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<ServerCredentials, CaError> {
        let params = template::server(dns_names, addresses, now(&*self.inner.clock)?)?;
        let key = template::new_key()?;
        let leaf = self.sign(params, &key)?;
        Ok(ServerCredentials::new(
            vec![leaf, self.inner.root.clone()],
            key.to_der(),
        ))
    }

    fn sign_leaf(
        &self,
        id: &SpiffeId,
        validity: Duration,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        if !id.is_member_of(&self.inner.trust_domain) {
            return Err(CaError::ForeignTrustDomain { id: id.clone() });
        }
        if id.workload().is_none() {
            return Err(CaError::NotWorkload { id: id.clone() });
        }
        let now = now(&*self.inner.clock)?;
        self.sign(template::leaf(id, now, validity)?, key)
    }

    fn sign(
        &self,
        params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        let certificate = params.signed_by(key, &self.inner.issuer);
        let certificate = certificate.map_err(|source| CaError::Crypto { source })?;
        Ok(certificate.der().clone())
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("trust_domain", &self.inner.trust_domain)
            .finish_non_exhaustive()
    }
}

/// Seconds since the epoch.
fn now(clock: &dyn TimeProvider) -> Result<u64, CaError> {
    let now = clock.current_time().ok_or(CaError::NoTime)?;
    Ok(now.as_secs())
}

#[cfg(test)]
mod tests;
