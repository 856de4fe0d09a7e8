//! The two ends' verifiers: one rule book, read at each handshake.

use std::{fmt, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{AcceptedPeers, PeerRefused, TlsEngine, member::Credentials};
use crate::svid::{InvalidSvid, PeerSvid, Purpose, Verification};

/// Verifies peers that dial us.
pub(super) struct DialingPeers {
    pub(super) credentials: Arc<Credentials>,
}

/// Verifies the peer that we dial.
pub(super) struct DialedPeer {
    pub(super) credentials: Arc<Credentials>,
    pub(super) accepted: AcceptedPeers,
}

impl Credentials {
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        (now, purpose): (UnixTime, Purpose),
    ) -> Result<PeerSvid, PeerRefused> {
        let how = Verification::new(self.engine().chain_algorithms(), now, purpose);
        let peer = self
            .svid()
            .bundles()
            .verify(end_entity, intermediates, &how)
            .map_err(|source| PeerRefused::Certificate { source })?;
        if peer.id.workload().is_none() {
            let source = InvalidSvid::NotWorkload { id: peer.id };
            return Err(PeerRefused::Certificate { source });
        }
        Ok(peer)
    }
}

impl ClientCertVerifier for DialingPeers {
    // No hints: a client of the mesh has one certificate, and the names of roots are not for
    // everybody who can reach the port.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.credentials
            .verify(end_entity, intermediates, (now, Purpose::Client))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(self.credentials.engine(), message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.engine().schemes().to_vec()
    }
}

impl ServerCertVerifier for DialedPeer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer = self
            .credentials
            .verify(end_entity, intermediates, (now, Purpose::Server))?;
        if self.accepted.contains(&peer.id) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(PeerRefused::NotAccepted { peer: peer.id }.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signature(self.credentials.engine(), message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.engine().schemes().to_vec()
    }
}

/// Verifies a handshake's signature, with the schemes of the list only.
fn signature(
    engine: &TlsEngine,
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if !engine.schemes().contains(&dss.scheme) {
        return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
    }
    verify_tls13_signature(message, cert, dss, engine.signatures())
}

impl fmt::Debug for DialingPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialingPeers").finish_non_exhaustive()
    }
}

impl fmt::Debug for DialedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialedPeer")
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}
