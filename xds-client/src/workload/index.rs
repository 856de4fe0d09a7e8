//! Hash to record numbers, in shards that snapshots share.
//!
//! An index stores neither keys nor records: eight bytes an entry. Whoever looks something up
//! checks each candidate against its record, so equal hashes cost time, never a wrong answer.

use std::sync::Arc;

/// Children of a node: 64 × 64 leaves, so that a change copies two small nodes and one leaf.
const FAN_OUT: usize = 64;
const BITS: u32 = 6;

/// Many entries may have one hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct HashIndex {
    root: Node<Node<Leaf>>,
}

/// Entries whose hashes agree in their lowest twelve bits.
type Leaf = Vec<Entry>;

/// Children by some bits of the hash; clones share them.
#[derive(Debug)]
struct Node<T> {
    children: Arc<Vec<Option<Arc<T>>>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    tag: u32,
    id: u32,
}

impl HashIndex {
    /// Numbers that were inserted under this hash, in the order of their insertion.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let tag = tag(hash);
        self.leaf(hash)
            .into_iter()
            .flatten()
            .filter(move |entry| entry.tag == tag)
            .map(|entry| entry.id)
    }

    /// Adds an entry; it may be there already.
    pub(crate) fn insert(&mut self, hash: u64, id: u32) {
        if let Some(leaf) = self.leaf_mut(hash) {
            leaf.push(Entry { tag: tag(hash), id });
        }
    }

    /// Removes one entry; nothing happens if there is none.
    pub(crate) fn remove(&mut self, hash: u64, id: u32) {
        let entry = Entry { tag: tag(hash), id };
        let at = |leaf: &Leaf| leaf.iter().position(|e| *e == entry);
        if self.leaf(hash).and_then(at).is_none() {
            return;
        }
        if let Some(leaf) = self.leaf_mut(hash)
            && let Some(at) = at(leaf)
        {
            leaf.remove(at);
            if leaf.len() * 4 < leaf.capacity() {
                leaf.shrink_to_fit();
            }
        }
    }

    fn leaf(&self, hash: u64) -> Option<&Leaf> {
        self.root.get(slot(hash, 0))?.get(slot(hash, 1))
    }

    fn leaf_mut(&mut self, hash: u64) -> Option<&mut Leaf> {
        self.root.get_mut(slot(hash, 0))?.get_mut(slot(hash, 1))
    }
}

impl<T> Node<T> {
    fn get(&self, slot: usize) -> Option<&T> {
        self.children.get(slot)?.as_deref()
    }
}

impl<T: Clone + Default> Node<T> {
    fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        let children = Arc::make_mut(&mut self.children);
        if children.is_empty() {
            children.resize_with(FAN_OUT, || None);
        }
        Some(Arc::make_mut(
            children.get_mut(slot)?.get_or_insert_default(),
        ))
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self {
            children: Arc::clone(&self.children),
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            children: Arc::default(),
        }
    }
}

const fn slot(hash: u64, level: u32) -> usize {
    (hash >> (BITS * level)) as usize % FAN_OUT
}

/// The bits that no level uses.
const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::HashIndex;

    fn all(index: &HashIndex, hash: u64) -> Vec<u32> {
        index.candidates(hash).collect()
    }

    #[test]
    fn entries_of_one_hash_are_all_found_and_removed_one_by_one() {
        let _trace = meshwright_testkit::trace();
        let mut index = HashIndex::default();
        let hash = 0xdead_beef_0000_0001;
        index.insert(hash, 1);
        index.insert(hash, 2);
        index.insert(hash ^ (1 << 40), 3);
        let snapshot = index.clone();
        index.remove(hash, 1);
        index.remove(hash, 9);
        assert_eq!(all(&index, hash), [2]);
        assert_eq!(all(&index, hash ^ (1 << 40)), [3]);
        assert_eq!(all(&snapshot, hash), [1, 2], "a snapshot does not change");
        assert_eq!(all(&index, 77), [0_u32; 0]);
    }
}
