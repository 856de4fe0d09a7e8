//! Chain building against the roots of the leaf's own trust domain, within fixed limits.

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime, alg_id};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::{InvalidSvid, TrustBundles, leaf, leaf::Leaf};
use crate::SpiffeId;

/// Largest certificate that is parsed. istiod's are about 1 KiB; RSA-4096 with a few names 3 KiB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Longest chain, leaf and root included.
const MAX_CHAIN: usize = 6;
/// Allowance for clocks that differ, at the beginning of validity only.
pub(super) const SKEW_SECONDS: u64 = 60;

/// What a leaf is used for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Purpose {
    /// It proves who dialed.
    Client,
    /// It proves who was dialed.
    Server,
}

/// How a chain is verified, apart from the roots.
#[derive(Clone, Copy, Debug)]
pub struct Verification<'a> {
    algorithms: &'a [&'static dyn SignatureVerificationAlgorithm],
    now: UnixTime,
    purpose: Purpose,
}

impl<'a> Verification<'a> {
    /// Verifies for `purpose` at the moment `now`, with signatures of these algorithms (see
    /// [`allowed_algorithms`]).
    #[must_use]
    pub const fn new(
        algorithms: &'a [&'static dyn SignatureVerificationAlgorithm],
        now: UnixTime,
        purpose: Purpose,
    ) -> Self {
        Self {
            algorithms,
            now,
            purpose,
        }
    }

    /// Returns the leaf if every rule holds and a root of its trust domain vouches for it.
    pub(super) fn check(
        &self,
        bundles: &TrustBundles,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Leaf, InvalidSvid> {
        check_sizes(end_entity, intermediates)?;
        let leaf = Leaf::read(end_entity)?;
        leaf.check_usable_for(self.purpose)?;
        let at = self.time_of_check(&leaf, intermediates)?;
        let anchors = bundles.anchors_of(&leaf.id);
        if anchors.is_empty() {
            return Err(InvalidSvid::UnknownTrustDomain {
                trust_domain: leaf.id.trust_domain(),
            });
        }
        let usage = match self.purpose {
            Purpose::Client => KeyUsage::client_auth(),
            Purpose::Server => KeyUsage::server_auth(),
        };
        let limits = |path: &VerifiedPath<'_>| self.check_path(path, bundles, &leaf.id);
        EndEntityCert::try_from(end_entity)?.verify_for_usage(
            self.algorithms,
            anchors,
            intermediates,
            at,
            usage,
            None,
            Some(&limits),
        )?;
        Ok(leaf)
    }

    /// The moment for which the chain must be valid: now, or the latest beginning of validity that
    /// lies within the skew allowance. It is never before now, so an end is never stretched.
    fn time_of_check(
        &self,
        leaf: &Leaf,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<UnixTime, InvalidSvid> {
        let now = self.now.as_secs();
        let limit = now.saturating_add(SKEW_SECONDS);
        if now > leaf.validity.1 {
            return Err(InvalidSvid::Expired);
        }
        if leaf.validity.0 > limit {
            return Err(InvalidSvid::NotYetValid);
        }
        let begins = intermediates.iter().filter_map(|der| {
            let certificate = leaf::read_certificate(der).ok()?;
            leaf::validity(&certificate).ok().map(|validity| validity.0)
        });
        let latest = begins.filter(|begin| *begin <= limit).max().unwrap_or(0);
        let at = now.max(leaf.validity.0).max(latest);
        Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            at,
        )))
    }

    // RFC 5280 §6.2 leaves a root's own validity to the relying party; here it is enforced, with
    // what path building does not look at.
    fn check_path(
        &self,
        path: &VerifiedPath<'_>,
        bundles: &TrustBundles,
        id: &SpiffeId,
    ) -> Result<(), webpki::Error> {
        // The leaf and the root count too.
        let inner = path.intermediate_certificates().count();
        if inner.saturating_add(2) > MAX_CHAIN {
            return Err(webpki::Error::MaximumPathDepthExceeded);
        }
        // RFC 5280 §6.1.4 (n), which path building leaves out: a key usage that is present allows
        // the signing of certificates.
        let signs = |der: &CertificateDer<'_>| {
            leaf::read_certificate(der)
                .is_ok_and(|read| matches!(leaf::is_authority(&read), Ok(true)))
        };
        if !path
            .intermediate_certificates()
            .all(|cert| signs(&cert.der()))
        {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
        if bundles.is_in_force(id, path.anchor(), self.now) {
            Ok(())
        } else {
            Err(webpki::Error::UnknownIssuer)
        }
    }
}

/// Refuses what is too large before anything of it is parsed.
pub(super) fn check_sizes(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), InvalidSvid> {
    if intermediates.len() >= MAX_CHAIN {
        return Err(InvalidSvid::TooLarge { what: "the chain" });
    }
    let mut all = std::iter::once(end_entity).chain(intermediates);
    if all.any(|der| der.len() > MAX_CERTIFICATE_BYTES) {
        return Err(InvalidSvid::TooLarge {
            what: "a certificate",
        });
    }
    Ok(())
}

/// The algorithms of a provider that may sign certificates here: ECDSA over P-256 and P-384,
/// Ed25519, RSA of at least 2048 bits (as providers define theirs), with SHA-2.
#[must_use]
pub fn allowed_algorithms(
    all: &[&'static dyn SignatureVerificationAlgorithm],
) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    let keys = [
        alg_id::ECDSA_P256,
        alg_id::ECDSA_P384,
        alg_id::ED25519,
        alg_id::RSA_ENCRYPTION,
    ];
    let signatures = [
        alg_id::ECDSA_SHA256,
        alg_id::ECDSA_SHA384,
        alg_id::ECDSA_SHA512,
        alg_id::ED25519,
        alg_id::RSA_PKCS1_SHA256,
        alg_id::RSA_PKCS1_SHA384,
        alg_id::RSA_PKCS1_SHA512,
        alg_id::RSA_PSS_SHA256,
        alg_id::RSA_PSS_SHA384,
        alg_id::RSA_PSS_SHA512,
    ];
    all.iter()
        .filter(|algorithm| {
            keys.contains(&algorithm.public_key_alg_id())
                && signatures.contains(&algorithm.signature_alg_id())
        })
        .copied()
        .collect()
}
