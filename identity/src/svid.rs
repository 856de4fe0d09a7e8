//! X.509 SVIDs: a chain, its private key and the roots it trusts.
//!
//! The rules for a leaf are the same for a peer's certificate, an own one and the answer of a
//! certificate authority, and they are checked on top of chain building, which knows nothing of
//! SPIFFE. Whatever holds an [`Svid`] holds one that kept them.

mod bundle;
mod chain;
mod error;
mod leaf;
mod peer;
mod pem;
mod summary;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use zeroize::Zeroizing;

use crate::SpiffeId;

pub use bundle::TrustBundles;
pub use chain::{Purpose, Verification, allowed_algorithms};
pub use error::InvalidSvid;
pub use peer::PeerSvid;
pub use summary::CertificateSummary;

pub(crate) use leaf::Leaf;
#[cfg(feature = "grpc")]
pub(crate) use pem::certificates as read_certificates;

/// One identity's certificate chain and private key, with the roots it trusts.
///
/// The key never leaves the value: there is no accessor, `Debug` leaves it out, and it is wiped
/// when the value is dropped. Validity in time and the chain's signatures depend on a clock and on
/// cryptography; they are checked where an SVID is put to use.
pub struct Svid {
    leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "only TLS signs with it")
    )]
    key: Zeroizing<PrivateKeyDer<'static>>,
    bundles: TrustBundles,
}

impl Svid {
    /// Reads an SVID of `id` from PEM: the chain with the leaf first, one private key (PKCS#8,
    /// SEC 1 or PKCS#1), and the roots of its own trust domain.
    ///
    /// Each text is at most 1 MiB and may hold only blocks of its kind; comments, CRLF and a missing
    /// final newline are fine.
    ///
    /// # Errors
    ///
    /// Returns the first rule that is broken: an unreadable block, more than one key, a leaf that
    /// breaks the rules of an X.509 SVID or has another identity, a root that is not a certificate
    /// authority.
    pub fn from_pem(
        id: &SpiffeId,
        chain: &[u8],
        key: &[u8],
        roots: &[u8],
    ) -> Result<Self, InvalidSvid> {
        let key = pem::key(key)?;
        let chain = pem::certificates(chain)?;
        let bundles = TrustBundles::from_pem(id.trust_domain(), roots)?;
        Self::from_der(id, chain, key, bundles)
    }

    /// Takes an SVID of `id` apart from PEM: leaf first, the key, and bundles with the roots of (at
    /// least) the own trust domain.
    ///
    /// # Errors
    ///
    /// As [`from_pem`](Self::from_pem).
    pub fn from_der(
        id: &SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<PrivateKeyDer<'static>>,
        bundles: TrustBundles,
    ) -> Result<Self, InvalidSvid> {
        let (first, rest) = chain.split_first().ok_or(InvalidSvid::Empty)?;
        chain::check_sizes(first, rest)?;
        let leaf = Leaf::read(first)?;
        leaf.check_usable_for(Purpose::Client)?;
        leaf.check_usable_for(Purpose::Server)?;
        if leaf.id != *id {
            return Err(InvalidSvid::OtherIdentity {
                expected: id.clone(),
                found: leaf.id,
            });
        }
        if bundles.roots_of(id).is_empty() {
            return Err(InvalidSvid::UnknownTrustDomain {
                trust_domain: id.trust_domain(),
            });
        }
        Ok(Self {
            leaf,
            chain,
            key,
            bundles,
        })
    }

    /// Trusts the bundles of other trust domains too; a bundle for the own trust domain replaces
    /// the one that came with the certificate.
    #[must_use]
    pub fn with_bundles(mut self, others: TrustBundles) -> Self {
        self.bundles.extend(others);
        self
    }

    /// Whose certificate this is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// The certificates as sent to peers: the leaf, then the intermediates.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The roots of the own trust domain.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        self.bundles.roots_of(&self.leaf.id)
    }

    /// The roots that peers are verified against.
    #[must_use]
    pub fn bundles(&self) -> &TrustBundles {
        &self.bundles
    }

    /// When the leaf's validity begins, to the second.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before()
    }

    /// The last second of the leaf's validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after()
    }

    /// The leaf's serial number in decimal, as operators' tools print it.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    /// Whether the leaf's validity is over at `now`. There is no allowance for clock skew.
    #[must_use]
    pub fn is_expired_at(&self, now: UnixTime) -> bool {
        now.as_secs() > self.leaf.validity.1
    }

    /// Time until the leaf expires, zero when it has.
    #[must_use]
    pub fn remaining_at(&self, now: UnixTime) -> Duration {
        Duration::from_secs(self.leaf.validity.1.saturating_sub(now.as_secs()))
    }

    /// The leaf's public key as it stands in the certificate.
    #[cfg(feature = "issuer-istio")]
    pub(crate) fn public_key_info(&self) -> &[u8] {
        &self.leaf.public_key_info
    }

    #[cfg(feature = "tls")]
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.leaf.id)
            .field("serial", &self.leaf.serial)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "grpc")]
mod tests;
