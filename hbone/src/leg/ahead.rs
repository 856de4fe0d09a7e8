//! What may be read ahead of readers that do not keep up.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many [`TcpLeg`](super::TcpLeg)s may hold large reads at the same time; clones share it.
///
/// Bulk is fastest in reads of up to 1 MiB. But what was read stays until the other leg has taken
/// it, and a peer can make thousands of connections whose other leg takes nothing. So only so many
/// legs hold large reads (up to 2 MiB each); all others hold at most 32 KiB, however many there are.
#[derive(Clone, Debug)]
pub struct ReadAhead {
    left: Arc<AtomicUsize>,
}

impl ReadAhead {
    /// Allows `large` legs at a time to hold large reads.
    #[must_use]
    pub fn new(large: usize) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(large)),
        }
    }

    /// Takes one of the places, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        let take = |left: usize| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.ok().map(|_before| Place(self.clone()))
    }
}

/// The place of one leg that holds large reads, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(ReadAhead);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::Relaxed);
    }
}
