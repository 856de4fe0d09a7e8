use rustls::CommonState;

use super::member::ALPN_H2;
use crate::{
    Fault,
    svid::{Leaf, PeerSvid},
};

impl PeerSvid {
    /// Reads the peer from a finished handshake of one of [`Member`](super::Member)'s
    /// configurations.
    ///
    /// # Errors
    ///
    /// Returns why the connection has no verified mesh peer, or that the two sides did not agree on
    /// `h2`.
    pub fn of_connection(connection: &CommonState) -> Result<Self, NoPeer> {
        if connection.is_handshaking() {
            return Err(NoPeer::Unverified);
        }
        if connection.alpn_protocol() != Some(ALPN_H2) {
            return Err(NoPeer::Protocol);
        }
        let certificates = connection.peer_certificates();
        let leaf = certificates
            .and_then(<[_]>::first)
            .ok_or(NoPeer::Unverified)?;
        // The verifier read the same bytes; reading them again cannot fail.
        let leaf = Leaf::read(leaf).or(Err(NoPeer::Unverified))?;
        Ok(Self::from_leaf(leaf))
    }
}

/// A connection has no verified mesh peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoPeer {
    /// The two sides did not agree on HTTP/2 by ALPN.
    #[error("the connection did not agree on h2")]
    Protocol,
    /// The handshake is not finished or had no certificate of the peer.
    #[error("the connection has no verified certificate of the peer")]
    Unverified,
}

impl NoPeer {
    /// Always `false`.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Always the peer's.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Peer
    }
}
