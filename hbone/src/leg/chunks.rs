//! What was read from one leg and not yet sent on the other.

use bytes::{Buf, Bytes};
use std::{collections::VecDeque, io::IoSlice};

/// Most chunks held at a time: one gathered write.
pub(crate) const MAX_CHUNKS: usize = 64;
/// No more is read once this many bytes are held.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// A short queue of chunks, bounded by its user to 64 chunks or 1 MiB.
///
/// Allocates only while it holds something.
#[derive(Debug, Default)]
pub struct Chunks {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Chunks {
    /// Makes an empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a chunk at the end; an empty one is dropped.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.queue.push_back(chunk);
        }
    }

    /// Takes the first chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.queue.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    /// Puts the rest of a chunk back to the front; an empty one is dropped.
    pub fn unpop(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.queue.push_front(chunk);
        }
    }

    /// Returns how many bytes are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Returns whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns whether no more should be read before something is sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES || self.queue.len() >= MAX_CHUNKS
    }

    /// Drops `count` bytes off the front.
    pub fn advance(&mut self, mut count: usize) {
        count = count.min(self.bytes);
        self.bytes -= count;
        while count > 0 {
            let Some(first) = self.queue.front_mut() else {
                break;
            };
            if first.len() > count {
                first.advance(count);
                break;
            }
            count -= first.len();
            self.queue.pop_front();
        }
    }

    /// Fills `slices` with the chunks' bytes for one gathered write; returns how many are set.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut set = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(chunk);
            set += 1;
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::{Chunks, MAX_BYTES, MAX_CHUNKS};
    use bytes::Bytes;
    use meshwright_testkit::trace;

    #[test]
    fn advancing_drops_whole_and_partial_chunks() {
        let _trace = trace();
        let mut chunks = Chunks::new();
        for text in ["abc", "", "defg", "h"] {
            chunks.push(Bytes::from_static(text.as_bytes()));
        }
        assert_eq!(chunks.len(), 8);
        chunks.advance(5);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks.pop().unwrap(), "fg");
        chunks.unpop(Bytes::from_static(b"g"));
        chunks.advance(99);
        assert!(chunks.is_empty());
        assert_eq!(chunks.len(), 0);
    }

    #[test]
    fn fullness_counts_bytes_and_chunks() {
        let _trace = trace();
        let mut small = Chunks::new();
        for _ in 0..MAX_CHUNKS {
            assert!(!small.is_full());
            small.push(Bytes::from_static(b"x"));
        }
        assert!(small.is_full());
        let mut large = Chunks::new();
        large.push(Bytes::from(vec![0; MAX_BYTES]));
        assert!(large.is_full());
    }
}
