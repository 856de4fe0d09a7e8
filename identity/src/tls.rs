//! rustls configurations that follow rotation.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{sync::Arc, time::SystemTime};

use rustls::{
    ClientConfig, CommonState, ServerConfig, crypto::CryptoProvider, time_provider::TimeProvider,
};

use crate::{
    SpiffeId,
    svid::{InvalidSvid, Svid},
};

/// What every TLS configuration is built from: cryptography and clock. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsEngine {}

impl TlsEngine {
    /// Takes a provider and a clock.
    ///
    /// # Errors
    ///
    /// Returns an error when the provider lacks what TLS 1.3 needs here.
    pub fn new(
        provider: &CryptoProvider,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, InvalidSvid> {
        todo!()
    }

    /// aws-lc-rs and the system's clock.
    #[cfg(feature = "aws-lc-rs")]
    #[must_use]
    pub fn aws_lc_rs() -> Self {
        todo!()
    }
}

/// One identity's live credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Member {}

impl Member {
    /// Starts with `svid`.
    ///
    /// # Errors
    ///
    /// Returns why the SVID cannot be used.
    pub fn new(svid: Svid, engine: &TlsEngine) -> Result<Self, InvalidSvid> {
        todo!()
    }
    /// Whose credentials these are.
    pub fn id(&self) -> &SpiffeId {
        todo!()
    }
    /// The SVID in force now.
    pub fn svid(&self) -> Arc<Svid> {
        todo!()
    }
    /// Replaces the SVID; configurations handed out earlier use it from the next handshake on.
    ///
    /// # Errors
    ///
    /// Returns why the SVID cannot be used; the old one stays.
    pub fn replace(&self, svid: Svid) -> Result<(), InvalidSvid> {
        todo!()
    }
    /// The configuration for accepting peers; the same for the life of the member.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        todo!()
    }
    /// A configuration for dialing a peer that must be one of `accepted`.
    pub fn client_config(&self, accepted: &AcceptedPeers) -> Arc<ClientConfig> {
        todo!()
    }
}

/// The identities a dialed peer may have. Order does not matter; cheap to clone.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AcceptedPeers {
    ids: Arc<[SpiffeId]>,
}

impl AcceptedPeers {
    /// Takes a set of identities.
    pub fn new(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        todo!()
    }
    /// Whether `id` is one of them.
    pub fn contains(&self, id: &SpiffeId) -> bool {
        todo!()
    }
    /// The identities in order.
    pub fn iter(&self) -> impl Iterator<Item = &SpiffeId> {
        self.ids.iter()
    }
    /// No identity: every peer is refused.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}

impl From<SpiffeId> for AcceptedPeers {
    fn from(id: SpiffeId) -> Self {
        Self::new([id])
    }
}

/// The verified identity at the other end of a connection.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct PeerSvid {
    /// Who it is.
    pub id: SpiffeId,
    /// End of validity of the peer's certificate.
    pub not_after: SystemTime,
    /// Serial number of the peer's certificate, in decimal.
    pub serial: Arc<str>,
}

impl PeerSvid {
    /// Reads the peer from a finished handshake of one of [`Member`]'s configurations.
    ///
    /// # Errors
    ///
    /// Returns why the connection has no verified mesh peer or did not agree on `h2`.
    pub fn of_connection(connection: &CommonState) -> Result<Self, NoPeer> {
        todo!()
    }

    /// Writes out a peer, for tests and for transports that verified it by other means.
    pub fn new(id: SpiffeId, not_after: SystemTime, serial: impl Into<Arc<str>>) -> Self {
        Self {
            id,
            not_after,
            serial: serial.into(),
        }
    }
}

/// A connection has no verified mesh peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPeer {
    /// The two sides did not agree on HTTP/2 by ALPN.
    #[error("the connection did not agree on h2")]
    Protocol,
    /// The handshake is not finished or had no peer certificate.
    #[error("the connection has no peer certificate")]
    Unverified,
}
