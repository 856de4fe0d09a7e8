//! Key pairs that are wiped when dropped.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize as _, Zeroizing};

/// A private key in memory; its bytes are wiped when it is dropped.
pub(crate) struct Key(KeyPair);

impl Key {
    /// Makes a fresh P-256 key.
    pub(crate) fn fresh() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }

    /// A copy as PKCS#8, for an SVID.
    pub(crate) fn to_der(&self) -> Zeroizing<PrivateKeyDer<'static>> {
        let der = PrivatePkcs8KeyDer::from(self.0.serialize_der());
        Zeroizing::new(PrivateKeyDer::Pkcs8(der))
    }

    #[cfg(feature = "issuer-self-signed")]
    pub(crate) const fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl From<KeyPair> for Key {
    fn from(pair: KeyPair) -> Self {
        Self(pair)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0)
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}
