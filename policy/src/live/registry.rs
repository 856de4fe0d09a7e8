//! The table of live connections, by workload.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Concerned, entry::Entry};

/// Workloads are spread over this many locks.
const SHARDS: usize = 32;

#[derive(Debug)]
pub(super) struct Registry {
    shards: [Mutex<Shard>; SHARDS],
    spread: RandomState,
    next_key: AtomicU64,
}

type Shard = HashMap<Arc<str>, HashMap<u64, Arc<Entry>>>;

impl Default for Registry {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_shard| Mutex::default()),
            spread: RandomState::new(),
            next_key: AtomicU64::new(0),
        }
    }
}

impl Registry {
    /// Adds an entry and returns its key.
    pub(super) fn insert(&self, entry: &Arc<Entry>) -> u64 {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let workload = &entry.facts().workload;
        if let Some(mut shard) = self.shard_of(workload) {
            shard
                .entry(Arc::clone(workload))
                .or_default()
                .insert(key, Arc::clone(entry));
        }
        key
    }

    pub(super) fn remove(&self, workload: &str, key: u64) {
        let Some(mut shard) = self.shard_of(workload) else {
            return;
        };
        let Some(connections) = shard.get_mut(workload) else {
            return;
        };
        let entry = connections.remove(&key);
        if connections.is_empty() {
            shard.remove(workload);
        }
        drop(shard);
        drop(entry);
    }

    /// Visits entries; no lock is held during a visit, and those added meanwhile may be left out.
    pub(super) fn each(&self, concerned: Concerned<'_>, mut visit: impl FnMut(&Entry)) {
        let mut listed: Vec<Arc<Entry>> = Vec::new();
        match concerned {
            Concerned::Workload(workload) => {
                if let Some(shard) = self.shard_of(workload) {
                    listed.extend(
                        shard
                            .get(workload)
                            .into_iter()
                            .flat_map(HashMap::values)
                            .cloned(),
                    );
                }
                listed.iter().for_each(|entry| visit(entry));
            }
            Concerned::All => {
                for shard in &self.shards {
                    listed.extend(lock(shard).values().flat_map(HashMap::values).cloned());
                    listed.drain(..).for_each(|entry| visit(&entry));
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| lock(shard).values().map(HashMap::len).sum::<usize>())
            .sum()
    }

    pub(super) fn len_of(&self, workload: &str) -> usize {
        self.shard_of(workload)
            .and_then(|shard| shard.get(workload).map(HashMap::len))
            .unwrap_or_default()
    }

    fn shard_of(&self, workload: &str) -> Option<MutexGuard<'_, Shard>> {
        let place = self.spread.hash_one(workload) as usize % SHARDS;
        self.shards.get(place).map(lock)
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
