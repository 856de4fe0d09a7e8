//! A fast hash for keys that policies choose.
//!
//! It is fixed and not keyed: what a caller sends is only looked up, never inserted, so a caller
//! cannot make a table slow. Two keys with one hash cost a comparison, never a wrong answer.

use std::hash::{BuildHasherDefault, Hasher};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

/// Builds [`FastHasher`]s for standard maps.
pub(crate) type FastBuild = BuildHasherDefault<FastHasher>;

/// Folds eight bytes at a time by multiplication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastHasher(u64);

impl Default for FastHasher {
    fn default() -> Self {
        Self(SEED)
    }
}

impl FastHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
        self.0 = ((product >> 64) as u64) ^ (product as u64) ^ SEED.rotate_left(17);
    }
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        if let Some(start) = last.get_mut(..tail.len()) {
            start.copy_from_slice(tail);
        }
        self.fold(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.fold(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map from names whose copies share most of their content.
///
/// Names fall into shards; a changed copy has its own version of the touched shards only, so one
/// change among ten thousand names copies a hundred or so.
#[derive(Clone, Debug)]
pub(crate) struct Sharded<V> {
    shards: Box<[std::sync::Arc<Shard<V>>]>,
}

type Shard<V> = std::collections::HashMap<std::sync::Arc<str>, V, FastBuild>;

const SHARDS: usize = 128;

impl<V: Clone> Sharded<V> {
    pub(crate) fn new() -> Self {
        let empty = std::sync::Arc::new(Shard::default());
        Self {
            shards: vec![empty; SHARDS].into(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        self.shards.get(shard_of(name))?.get(name)
    }

    pub(crate) fn insert(&mut self, name: std::sync::Arc<str>, value: V) {
        if let Some(shard) = self.shards.get_mut(shard_of(&name)) {
            std::sync::Arc::make_mut(shard).insert(name, value);
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(shard) = self.shards.get_mut(shard_of(name))
            && shard.contains_key(name)
        {
            std::sync::Arc::make_mut(shard).remove(name);
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> + '_ {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }
}

/// Which of `SHARDS` a name falls into; other bits than a map uses inside.
fn shard_of(name: &str) -> usize {
    let mut hasher = FastHasher::default();
    hasher.write(name.as_bytes());
    (hasher.finish() >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::{FastHasher, Sharded};
    use std::{hash::Hasher, sync::Arc};

    fn hash(bytes: &[u8]) -> u64 {
        let mut hasher = FastHasher::default();
        hasher.write(bytes);
        hasher.finish()
    }

    #[test]
    fn texts_that_differ_by_little_hash_differently() {
        let _trace = meshwright_testkit::trace();
        let mut seen = std::collections::HashSet::new();
        for number in 0..10_000 {
            let text = format!("cluster.local/ns/shop/sa/account-{number}");
            assert!(
                seen.insert(hash(text.as_bytes())),
                "two of ten thousand collide"
            );
        }
        assert_ne!(hash(b"a"), hash(b"a\0"), "padding is not content");
    }

    #[test]
    fn copies_do_not_see_each_others_changes() {
        let _trace = meshwright_testkit::trace();
        let mut first = Sharded::new();
        first.insert(Arc::from("a"), 1);
        let mut second = first.clone();
        second.insert(Arc::from("a"), 2);
        second.insert(Arc::from("b"), 3);
        second.remove("missing");
        assert_eq!((first.get("a"), first.len()), (Some(&1), 1));
        assert_eq!((second.get("a"), second.len()), (Some(&2), 2));
    }
}
