use std::sync::Arc;

use crate::SpiffeId;

/// The identities that a dialed peer may have.
///
/// Order and repetition do not matter: equality and hash are those of the set, so the value can be
/// part of a connection pool's key. The empty set refuses every peer. Cheap to clone.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AcceptedPeers {
    /// Sorted, without duplicates.
    ids: Arc<[SpiffeId]>,
}

impl AcceptedPeers {
    /// Takes a set of identities.
    #[must_use]
    pub fn new(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        let mut ids: Vec<SpiffeId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self { ids: ids.into() }
    }

    /// Whether a peer with this identity is accepted: the whole identity, trust domain included.
    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        self.ids.binary_search(id).is_ok()
    }

    /// The identities in their order.
    pub fn iter(&self) -> impl Iterator<Item = &SpiffeId> {
        self.ids.iter()
    }

    /// How many identities are accepted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether every peer is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl From<SpiffeId> for AcceptedPeers {
    fn from(id: SpiffeId) -> Self {
        Self::new([id])
    }
}

impl FromIterator<SpiffeId> for AcceptedPeers {
    fn from_iter<I: IntoIterator<Item = SpiffeId>>(ids: I) -> Self {
        Self::new(ids)
    }
}
