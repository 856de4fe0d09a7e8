//! Records by number, in chunks that snapshots share.

use std::sync::Arc;

/// Records in one chunk: what one change copies at most, besides the list of chunks.
const CHUNK: usize = 256;

/// A growing list of slots; a clone shares all chunks, a write copies the one it touches.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    chunks: Arc<Vec<Arc<Vec<Option<T>>>>>,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            chunks: Arc::default(),
            len: 0,
        }
    }
}

impl<T> Slab<T> {
    /// How many slots are filled.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        let (chunk, at) = split(id);
        self.chunks.get(chunk)?.get(at)?.as_ref()
    }

    /// The filled slots, in order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }
}

impl<T: Clone> Slab<T> {
    /// Fills a slot and returns what was in it.
    pub(crate) fn set(&mut self, id: u32, value: T) -> Option<T> {
        let (chunk, at) = split(id);
        let chunks = Arc::make_mut(&mut self.chunks);
        while chunks.len() <= chunk {
            chunks.push(Arc::default());
        }
        let slots = Arc::make_mut(chunks.get_mut(chunk)?);
        if slots.len() <= at {
            slots.resize_with(at + 1, || None);
        }
        let before = slots.get_mut(at)?.replace(value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Empties a slot and returns what was in it.
    pub(crate) fn take(&mut self, id: u32) -> Option<T> {
        let (chunk, at) = split(id);
        self.get(id)?;
        let slots = Arc::make_mut(Arc::make_mut(&mut self.chunks).get_mut(chunk)?);
        let before = slots.get_mut(at)?.take();
        self.len -= usize::from(before.is_some());
        before
    }
}

const fn split(id: u32) -> (usize, usize) {
    let id = id as usize;
    (id / CHUNK, id % CHUNK)
}

/// Hands out slot numbers and takes them back.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    free: Vec<u32>,
    next: u32,
}

impl Ids {
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let id = self.next;
            self.next = self.next.saturating_add(1);
            id
        })
    }

    pub(crate) fn give_back(&mut self, id: u32) {
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ids, Slab};

    #[test]
    fn snapshot_keeps_what_a_later_write_replaces() {
        let _trace = meshwright_testkit::trace();
        let mut slab = Slab::default();
        slab.set(3, "a");
        slab.set(700, "b");
        let snapshot = slab.clone();
        assert_eq!(slab.set(3, "c"), Some("a"));
        assert_eq!(slab.take(700), Some("b"));
        assert_eq!(
            (slab.get(3), slab.get(700), slab.len()),
            (Some(&"c"), None, 1)
        );
        assert_eq!(
            (snapshot.get(3), snapshot.get(700)),
            (Some(&"a"), Some(&"b"))
        );
        assert_eq!(snapshot.iter().copied().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn number_given_back_is_used_again() {
        let _trace = meshwright_testkit::trace();
        let mut ids = Ids::default();
        assert_eq!((ids.take(), ids.take()), (0, 1));
        ids.give_back(0);
        assert_eq!((ids.take(), ids.take()), (0, 2));
    }
}
