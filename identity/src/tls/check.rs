use rustls::sign::CertifiedKey;

use super::TlsEngine;
use crate::{
    Fault,
    svid::{InvalidSvid, Purpose, Svid, Verification},
};

impl TlsEngine {
    /// Makes the checks that peers will make of an own certificate: its chain leads to the roots it
    /// came with, it is valid now, usable as client and server, and the key is its own.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be used.
    pub fn check(&self, svid: &Svid) -> Result<(), UnusableSvid> {
        self.certified(svid).map(drop)
    }

    pub(super) fn certified(&self, svid: &Svid) -> Result<CertifiedKey, UnusableSvid> {
        let invalid = |source| UnusableSvid::Invalid { source };
        let now = self.now().ok_or(UnusableSvid::NoTime)?;
        let (end_entity, intermediates) = svid
            .chain()
            .split_first()
            .ok_or_else(|| invalid(InvalidSvid::Empty))?;
        for purpose in [Purpose::Client, Purpose::Server] {
            let how = Verification::new(self.chain_algorithms(), now, purpose);
            svid.bundles()
                .verify(end_entity, intermediates, &how)
                .map_err(invalid)?;
        }
        let key = self
            .provider()
            .key_provider
            .load_private_key(svid.key())
            .map_err(|source| UnusableSvid::Tls { source })?;
        let certified = CertifiedKey::new(svid.chain().to_vec(), key);
        certified
            .keys_match()
            .or(Err(invalid(InvalidSvid::KeyMismatch)))?;
        Ok(certified)
    }
}

/// An SVID cannot be put to use.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableSvid {
    /// The SVID breaks a rule that peers check, or belongs to somebody else.
    #[error("the SVID breaks a rule")]
    Invalid {
        /// The rule.
        source: InvalidSvid,
    },
    /// The clock has no time, so nothing can be said about validity.
    #[error("the clock has no time")]
    NoTime,
    /// The crypto provider does not take the private key or the protocol version.
    #[error("TLS cannot be set up with this key")]
    Tls {
        /// What rustls says.
        source: rustls::Error,
    },
}

impl UnusableSvid {
    /// Whether the same SVID may be usable later: its validity has not begun, or there is no time.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::Invalid { source } => source.is_safe_to_retry(),
            Self::NoTime => true,
            Self::Tls { .. } => false,
        }
    }

    /// The issuer's, unless the clock or the provider is at fault.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Invalid { source } => source.fault(),
            Self::NoTime | Self::Tls { .. } => Fault::Local,
        }
    }
}
