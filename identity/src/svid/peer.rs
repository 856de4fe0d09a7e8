use std::{sync::Arc, time::SystemTime};

use super::Leaf;
use crate::SpiffeId;

/// The verified identity at the other end of a connection.
///
/// Everything in it was read from a certificate whose chain was verified; nothing is a peer's
/// claim. Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct PeerSvid {
    /// Who it is.
    pub id: SpiffeId,
    /// Last second of the validity of the peer's certificate.
    pub not_after: SystemTime,
    /// Serial number of the peer's certificate, in decimal.
    pub serial: Arc<str>,
}

impl PeerSvid {
    /// Writes out a peer, for tests and for transports that verified it by other means.
    pub fn new(id: SpiffeId, not_after: SystemTime, serial: impl Into<Arc<str>>) -> Self {
        Self {
            id,
            not_after,
            serial: serial.into(),
        }
    }

    pub(crate) fn from_leaf(leaf: Leaf) -> Self {
        let not_after = leaf.not_after();
        Self::new(leaf.id, not_after, leaf.serial)
    }
}
