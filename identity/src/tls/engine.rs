#[cfg(feature = "aws-lc-rs")]
use std::time::SystemTime;
use std::{fmt, sync::Arc};

use rustls::{
    CipherSuite, NamedGroup, SignatureScheme,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    time_provider::TimeProvider,
};
use rustls_pki_types::{SignatureVerificationAlgorithm, UnixTime};

use crate::{Fault, svid::allowed_algorithms};

const SUITES: [CipherSuite; 2] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_AES_128_GCM_SHA256,
];
const GROUPS: [NamedGroup; 3] = [
    NamedGroup::X25519MLKEM768,
    NamedGroup::X25519,
    NamedGroup::secp256r1,
];
/// What a peer may sign a handshake with. SHA-1, PKCS#1 and P-521 are not in it.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// The cryptography and the clock that every TLS configuration here is built from.
///
/// A process needs one. Cheap to clone.
#[derive(Clone)]
pub struct TlsEngine {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn TimeProvider>,
    chain_algorithms: Vec<&'static dyn SignatureVerificationAlgorithm>,
    schemes: Vec<SignatureScheme>,
}

impl TlsEngine {
    /// Takes from `provider` what is allowed here, in this order of preference: AES-256-GCM,
    /// AES-128-GCM; X25519MLKEM768, X25519, P-256. Times are read from `clock`.
    ///
    /// # Errors
    ///
    /// Returns [`UnsuitableProvider`] when nothing remains of suites, groups or signatures.
    pub fn new(
        provider: &CryptoProvider,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, UnsuitableProvider> {
        let mut restricted = provider.clone();
        restricted
            .cipher_suites
            .retain(|suite| SUITES.contains(&suite.suite()));
        restricted
            .cipher_suites
            .sort_by_key(|suite| SUITES.iter().position(|s| *s == suite.suite()));
        restricted
            .kx_groups
            .retain(|group| GROUPS.contains(&group.name()));
        restricted
            .kx_groups
            .sort_by_key(|group| GROUPS.iter().position(|g| *g == group.name()));
        let signatures = restricted.signature_verification_algorithms;
        let schemes: Vec<_> = signatures
            .supported_schemes()
            .into_iter()
            .filter(|scheme| SCHEMES.contains(scheme))
            .collect();
        let chain_algorithms = allowed_algorithms(signatures.all);
        let missing = if restricted.cipher_suites.is_empty() {
            "cipher suite"
        } else if restricted.kx_groups.is_empty() {
            "key exchange group"
        } else if schemes.is_empty() || chain_algorithms.is_empty() {
            "signature algorithm"
        } else {
            return Ok(Self {
                inner: Arc::new(Inner {
                    provider: Arc::new(restricted),
                    clock,
                    chain_algorithms,
                    schemes,
                }),
            });
        };
        Err(UnsuitableProvider { missing })
    }

    /// Uses aws-lc-rs and the system's clock.
    #[cfg(feature = "aws-lc-rs")]
    #[must_use]
    pub fn aws_lc_rs() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// Uses aws-lc-rs and a clock of the caller's, such as a test's.
    ///
    /// # Panics
    ///
    /// Panics when aws-lc-rs was built without an algorithm of the fixed lists, which it never is.
    #[cfg(feature = "aws-lc-rs")]
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "a fixed provider against fixed lists; a test covers it"
    )]
    pub fn with_clock(clock: Arc<dyn TimeProvider>) -> Self {
        Self::new(&default_provider(), clock).expect("aws-lc-rs has every algorithm of the lists")
    }

    /// The clock's time, if it has one. Without a time nothing is valid.
    #[must_use]
    pub fn now(&self) -> Option<UnixTime> {
        self.inner.clock.current_time()
    }

    /// The provider, restricted to what is allowed here.
    #[must_use]
    pub fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.inner.provider)
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn TimeProvider> {
        Arc::clone(&self.inner.clock)
    }

    pub(crate) fn chain_algorithms(&self) -> &[&'static dyn SignatureVerificationAlgorithm] {
        &self.inner.chain_algorithms
    }

    pub(crate) fn schemes(&self) -> &[SignatureScheme] {
        &self.inner.schemes
    }

    pub(crate) fn signatures(&self) -> &WebPkiSupportedAlgorithms {
        &self.inner.provider.signature_verification_algorithms
    }
}

/// The system's clock. Before 1970 it has no time, so that nothing is valid; rustls' own panics.
#[cfg(feature = "aws-lc-rs")]
#[derive(Debug)]
pub(crate) struct SystemClock;

#[cfg(feature = "aws-lc-rs")]
impl TimeProvider for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn current_time(&self) -> Option<UnixTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.ok().map(UnixTime::since_unix_epoch)
    }
}

impl fmt::Debug for TlsEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsEngine").finish_non_exhaustive()
    }
}

/// The crypto provider of aws-lc-rs as rustls ships it.
#[cfg(feature = "aws-lc-rs")]
#[must_use]
pub fn default_provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// A crypto provider lacks what is needed here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[error("the crypto provider has no allowed {missing}")]
pub struct UnsuitableProvider {
    missing: &'static str,
}

impl UnsuitableProvider {
    /// Always `false`.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Always the caller's.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Caller
    }
}
