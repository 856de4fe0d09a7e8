//! From an answer to an SVID, trusting nothing of it.

use rcgen::PublicKeyData as _;

use super::{InvalidAnswer, IstioCaConfig};
use crate::{
    SpiffeId,
    key::Key,
    svid::{InvalidSvid, Svid, TrustBundles, read_certificates},
};

/// A leaf, a few intermediates, the roots.
const MAX_PARTS: usize = 16;

/// Takes the chain apart: the leaf first, the bundle of roots last.
pub(super) fn read(
    parts: &[String],
    id: &SpiffeId,
    key: &Key,
    config: &IstioCaConfig,
) -> Result<Svid, InvalidAnswer> {
    let count = InvalidAnswer::Parts { parts: parts.len() };
    let Some((roots, chain)) = parts.split_last().filter(|_| parts.len() <= MAX_PARTS) else {
        return Err(count);
    };
    if chain.is_empty() {
        return Err(count);
    }
    let mut certificates = Vec::with_capacity(chain.len());
    for part in chain {
        certificates.extend(read_certificates(part.as_bytes())?);
    }
    let own = id.trust_domain();
    let mut bundles = TrustBundles::from_pem(own.clone(), roots.as_bytes())?;
    for other in &config.also_trusts {
        bundles.share(&own, other.clone())?;
    }
    let svid = Svid::from_der(id, certificates, key.to_der(), bundles)?;
    if svid.public_key_info() != key.subject_public_key_info() {
        return Err(InvalidAnswer::OtherKey);
    }
    Ok(svid)
}

impl From<InvalidSvid> for InvalidAnswer {
    fn from(source: InvalidSvid) -> Self {
        Self::Certificate { source }
    }
}
