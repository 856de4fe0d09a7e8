use std::{collections::BTreeMap, sync::Arc};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};

use super::{InvalidSvid, PeerSvid, Verification, chain::SKEW_SECONDS, leaf, pem};
use crate::{SpiffeId, TrustDomain};

/// Roots accepted for one trust domain; a federation rotates a few at a time.
const MAX_ROOTS: usize = 64;
const MAX_ROOT_BYTES: usize = 16 * 1024;

/// The roots that vouch for each trust domain.
///
/// A peer is verified against the roots of the trust domain in its certificate and no others: a
/// root of one trust domain cannot vouch for an identity of another. A trust domain without roots
/// is refused. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TrustBundles {
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
}

#[derive(Debug)]
struct Bundle {
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    /// First and last second of each root, in the same order.
    validities: Vec<(u64, u64)>,
}

impl TrustBundles {
    /// Reads the roots of one trust domain from PEM.
    ///
    /// # Errors
    ///
    /// Returns why one of them is not a root, or that there is none or more than 64. One bad root
    /// spoils the bundle: the alternative is to trust less than was said without anybody noticing.
    pub fn from_pem(trust_domain: TrustDomain, roots: &[u8]) -> Result<Self, InvalidSvid> {
        Self::from_der(trust_domain, pem::certificates(roots)?)
    }

    /// Takes the roots of one trust domain.
    ///
    /// # Errors
    ///
    /// As [`from_pem`](Self::from_pem).
    pub fn from_der(
        trust_domain: TrustDomain,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, InvalidSvid> {
        let bundle = Arc::new(Bundle::new(roots)?);
        Ok(Self {
            bundles: BTreeMap::from([(trust_domain, bundle)]),
        })
    }

    /// Adds the bundles of `others`; where both have a trust domain, the other's wins.
    pub fn extend(&mut self, others: Self) {
        self.bundles.extend(others.bundles);
    }

    /// Lets the roots of `trust_domain` vouch for `also` too: one authority that signs for several
    /// trust domains, as istiod does with trust domain aliases.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSvid::UnknownTrustDomain`] when there are no roots to share.
    pub fn share(
        &mut self,
        trust_domain: &TrustDomain,
        also: TrustDomain,
    ) -> Result<(), InvalidSvid> {
        let Some(bundle) = self.bundles.get(trust_domain).map(Arc::clone) else {
            let trust_domain = trust_domain.clone();
            return Err(InvalidSvid::UnknownTrustDomain { trust_domain });
        };
        self.bundles.insert(also, bundle);
        Ok(())
    }

    /// The roots that vouch for `id`; empty when its trust domain is unknown.
    #[must_use]
    pub fn roots_of(&self, id: &SpiffeId) -> &[CertificateDer<'static>] {
        self.bundle_of(id).map_or(&[], |bundle| &bundle.roots)
    }

    pub(super) fn anchors_of(&self, id: &SpiffeId) -> &[TrustAnchor<'static>] {
        self.bundle_of(id).map_or(&[], |bundle| &bundle.anchors)
    }

    /// Verifies a peer's chain: the leaf's rules, the limits, and the signatures up to a root of
    /// the leaf's own trust domain.
    ///
    /// At most six certificates of 16 KiB each are looked at; a beginning of validity up to 60 s
    /// ahead is accepted, an end is strict. CPU is bounded by the number of certificates.
    ///
    /// # Errors
    ///
    /// Returns the first rule that does not hold.
    pub fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        how: &Verification<'_>,
    ) -> Result<PeerSvid, InvalidSvid> {
        how.check(self, end_entity, intermediates)
            .map(PeerSvid::from_leaf)
    }

    /// Whether a root of `id`'s trust domain with this name and key is within its own validity.
    pub(super) fn is_in_force(
        &self,
        id: &SpiffeId,
        anchor: &TrustAnchor<'_>,
        now: UnixTime,
    ) -> bool {
        let now = now.as_secs();
        let limit = now.saturating_add(SKEW_SECONDS);
        self.bundle_of(id).is_some_and(|bundle| {
            let known = bundle.anchors.iter().zip(&bundle.validities);
            known
                .filter(|(known, _)| *known == anchor)
                .any(|(_, (begin, end))| *begin <= limit && now <= *end)
        })
    }

    fn bundle_of(&self, id: &SpiffeId) -> Option<&Bundle> {
        self.bundles.get(id.trust_domain_name()).map(Arc::as_ref)
    }
}

impl Bundle {
    fn new(roots: Vec<CertificateDer<'static>>) -> Result<Self, InvalidSvid> {
        if roots.is_empty() {
            return Err(InvalidSvid::Empty);
        }
        if roots.len() > MAX_ROOTS || roots.iter().any(|root| root.len() > MAX_ROOT_BYTES) {
            return Err(InvalidSvid::TooLarge {
                what: "the bundle of roots",
            });
        }
        let mut anchors = Vec::with_capacity(roots.len());
        let mut validities = Vec::with_capacity(roots.len());
        for root in &roots {
            let certificate = leaf::read_certificate(root)?;
            if !leaf::is_authority(&certificate)? {
                return Err(InvalidSvid::NotAuthority);
            }
            validities.push(leaf::validity(&certificate)?);
            anchors.push(webpki::anchor_from_trusted_cert(root)?.to_owned());
        }
        Ok(Self {
            roots,
            anchors,
            validities,
        })
    }
}
