use std::{fmt, sync::Arc};

use rustls::{ServerConfig, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::CaError;
use crate::tls::TlsEngine;

/// Certificate and key of a TLS server that is not a member of the mesh.
pub struct ServerCredentials {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<PrivateKeyDer<'static>>,
}

impl ServerCredentials {
    pub(super) const fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<PrivateKeyDer<'static>>,
    ) -> Self {
        Self { chain, key }
    }

    /// The certificates, leaf first and root last.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// A TLS 1.3 configuration that asks for no client certificate and offers `h2`: clients of a
    /// control plane prove themselves by token.
    ///
    /// # Errors
    ///
    /// Returns [`CaError::Key`] when the key does not fit the certificate.
    pub fn server_config(&self, engine: &TlsEngine) -> Result<Arc<ServerConfig>, CaError> {
        let mut config = ServerConfig::builder_with_details(engine.provider(), engine.clock())
            .with_protocol_versions(&[&TLS13])
            .or(Err(CaError::Key))?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .or(Err(CaError::Key))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for ServerCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCredentials").finish_non_exhaustive()
    }
}
