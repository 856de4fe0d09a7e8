//! How much one peer identity may hold at a time.
//!
//! One [`Quotas`] is shared by all listeners of a process. Counting is per identity from the
//! certificate, so a peer cannot spread over source addresses.

use crate::events::Limit;
use meshwright_identity::{Fault, SpiffeId};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Limits per peer identity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuotaConfig {
    /// Connections at a time. Default: 64.
    pub connections: u32,
    /// Tunnels at a time, over all connections. Default: 4000.
    pub streams: u32,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self {
            connections: 64,
            streams: 4000,
        }
    }
}

/// Counts connections and tunnels per peer identity; clones share the counts.
///
/// The table holds one entry per identity that has a connection now.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    config: QuotaConfig,
    peers: Mutex<HashMap<SpiffeId, Arc<Counts>>>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU32,
    streams: AtomicU32,
}

impl Quotas {
    /// Makes an empty table.
    #[must_use]
    pub fn new(config: QuotaConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                peers: Mutex::default(),
            }),
        }
    }

    /// Counts one more connection of `peer`, until the slot is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`QuotaExceeded`] when the peer holds its maximum.
    pub fn connection(&self, peer: &SpiffeId) -> Result<ConnectionSlot, QuotaExceeded> {
        let max = self.shared.config.connections;
        let mut peers = self.shared.lock();
        let held = peers
            .get(peer)
            .map_or(0, |counts| counts.connections.load(Ordering::Relaxed));
        // Before there is an entry, so that a refusal leaves none.
        if held >= max {
            return Err(QuotaExceeded::connections(max));
        }
        let counts = Arc::clone(peers.entry(peer.clone()).or_default());
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionSlot {
            shared: Arc::clone(&self.shared),
            counts,
            peer: peer.clone(),
        })
    }

    /// Returns how many identities hold a connection now.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.shared.lock().len()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SpiffeId, Arc<Counts>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection; dropping it gives the place back.
#[derive(Debug)]
pub struct ConnectionSlot {
    shared: Arc<Shared>,
    counts: Arc<Counts>,
    peer: SpiffeId,
}

impl ConnectionSlot {
    /// Counts one more tunnel of this connection's peer, until the slot is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`QuotaExceeded`] when the peer holds its maximum over all its connections.
    pub fn stream(&self) -> Result<StreamSlot, QuotaExceeded> {
        let max = self.shared.config.streams;
        let before = self.counts.streams.fetch_add(1, Ordering::Relaxed);
        // The slot exists before the check, so that its drop undoes the count.
        let slot = StreamSlot {
            counts: Arc::clone(&self.counts),
        };
        if before >= max {
            return Err(QuotaExceeded {
                limit: Limit::Streams,
                max,
            });
        }
        Ok(slot)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut peers = self.shared.lock();
        if self.counts.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            peers.remove(&self.peer);
        }
    }
}

/// One counted tunnel; dropping it gives the place back.
#[derive(Debug)]
pub struct StreamSlot {
    counts: Arc<Counts>,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.counts.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A peer identity holds its maximum.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the peer holds its maximum of {max} {limit}")]
#[non_exhaustive]
pub struct QuotaExceeded {
    /// What is counted: [`Limit::Connections`] or [`Limit::Streams`].
    pub limit: Limit,
    /// The configured maximum.
    pub max: u32,
}

impl QuotaExceeded {
    pub(crate) fn connections(max: u32) -> Self {
        Self {
            limit: Limit::Connections,
            max,
        }
    }

    /// Returns `true`: nothing was done.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// Returns [`Fault::Peer`].
    #[must_use]
    pub fn fault(&self) -> Fault {
        Fault::Peer
    }
}

#[cfg(test)]
mod tests {
    use super::{QuotaConfig, Quotas};
    use crate::events::Limit;
    use meshwright_identity::SpiffeId;
    use meshwright_testkit::trace;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://td/ns/n/sa/{name}")).unwrap()
    }

    fn quotas(connections: u32, streams: u32) -> Quotas {
        Quotas::new(QuotaConfig {
            connections,
            streams,
        })
    }

    #[test]
    fn connections_are_counted_per_identity() {
        let _trace = trace();
        let quotas = quotas(1, 9);
        let first = quotas.connection(&id("a")).unwrap();
        let refused = quotas.connection(&id("a")).unwrap_err();
        assert_eq!(refused.limit, Limit::Connections);
        let _other = quotas
            .connection(&id("b"))
            .expect("another identity has its own quota");
        drop(first);
        quotas
            .connection(&id("a"))
            .expect("the place was given back");
    }

    #[test]
    fn streams_are_counted_over_all_connections_of_an_identity() {
        let _trace = trace();
        let quotas = quotas(2, 2);
        let (one, two) = (
            quotas.connection(&id("a")).unwrap(),
            quotas.connection(&id("a")).unwrap(),
        );
        let first = one.stream().unwrap();
        let _second = two.stream().unwrap();
        assert_eq!(one.stream().unwrap_err().limit, Limit::Streams);
        drop(first);
        let _third = two
            .stream()
            .expect("the place was given back, and refusals count nothing");
    }

    #[test]
    fn table_forgets_identities_without_connections() {
        let _trace = trace();
        let quotas = quotas(2, 2);
        let slots: Vec<_> = (0..9)
            .map(|n| quotas.connection(&id(&n.to_string())))
            .collect();
        assert_eq!(quotas.peers(), 9);
        drop(slots);
        assert_eq!(quotas.peers(), 0);
        let nobody = self::quotas(0, 0);
        nobody.connection(&id("a")).unwrap_err();
        assert_eq!(nobody.peers(), 0, "a refusal leaves nothing behind");
    }
}
