//! What was read from one leg and not yet sent on the other.

use bytes::{Buf, Bytes, BytesMut};
use std::{collections::VecDeque, io::IoSlice};

/// Most chunks held at a time: one gathered write.
pub(crate) const MAX_CHUNKS: usize = 64;
/// No more is read once this many bytes are held.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// Chunks up to this size are copied together when others wait before them.
const SMALL: usize = 1024;
/// With so many chunks waiting, larger ones are copied too: all that the window of a stalled reader
/// lets in can then be taken from HTTP/2, which holds far more for a small frame than its bytes.
const MANY_CHUNKS: usize = MAX_CHUNKS / 2;
/// Chunks up to this size are copied when many wait.
const MEDIUM: usize = 8 * 1024;
/// Copied chunks are queued as one of this size; `MANY_CHUNKS` of them are `MAX_BYTES`.
const JOINED: usize = 32 * 1024;

/// A short queue of chunks, bounded by its user to 64 chunks or 1 MiB.
///
/// Allocates only while it holds something. Small chunks that have to wait are copied together,
/// so that many of them do not hold more memory than their bytes.
#[derive(Debug, Default)]
pub struct Chunks {
    queue: VecDeque<Bytes>,
    /// Small chunks behind the queue.
    tail: BytesMut,
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
        self.bytes += chunk.len();
        let small = if self.queue.len() < MANY_CHUNKS {
            SMALL
        } else {
            MEDIUM
        };
        if chunk.len() <= small && !self.is_empty() {
            if self.tail.len() + chunk.len() > JOINED {
                self.queue_tail();
            }
            self.tail.extend_from_slice(&chunk);
        } else if !chunk.is_empty() {
            self.queue_tail();
            self.queue.push_back(chunk);
        }
    }

    /// Takes the first chunk.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.queue.is_empty() {
            self.queue_tail();
        }
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
        self.bytes == 0
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
                self.tail.advance(count.min(self.tail.len()));
                break;
            };
            if first.len() > count {
                first.advance(count);
                break;
            }
            count -= first.len();
            self.queue.pop_front();
        }
        if self.bytes == 0 {
            // Nothing waits: no buffer is kept.
            self.tail = BytesMut::new();
        }
    }

    /// Fills `slices` with the chunks' bytes for one gathered write; returns how many are set.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut set = 0;
        let chunks = self.queue.iter().map(|chunk| &**chunk);
        let tail = std::iter::once(&*self.tail).filter(|tail| !tail.is_empty());
        for (slice, chunk) in slices.iter_mut().zip(chunks.chain(tail)) {
            *slice = IoSlice::new(chunk);
            set += 1;
        }
        set
    }

    fn queue_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
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
        assert_eq!(
            chunks.pop().unwrap(),
            "fgh",
            "small chunks that waited are one"
        );
        chunks.unpop(Bytes::from_static(b"gh"));
        chunks.advance(99);
        assert!(chunks.is_empty());
        assert_eq!(chunks.len(), 0);
    }

    #[test]
    fn fullness_counts_bytes_and_chunks() {
        let _trace = trace();
        let mut many = Chunks::new();
        for _ in 0..MAX_CHUNKS {
            assert!(!many.is_full());
            many.push(Bytes::from(vec![0; 9000]));
        }
        assert!(many.is_full());
        let mut large = Chunks::new();
        large.push(Bytes::from(vec![0; MAX_BYTES]));
        assert!(large.is_full());
    }

    #[test]
    fn whatever_a_window_lets_in_fits_however_it_is_cut() {
        let _trace = trace();
        const WINDOW: usize = 256 * 1024;
        for first in [1, 1025, 8192, 8193] {
            for then in [1, 1025, 8192] {
                let mut chunks = Chunks::new();
                while chunks.queue.len() < MAX_CHUNKS / 2 && chunks.len() + first <= WINDOW {
                    chunks.push(Bytes::from(vec![0; first]));
                }
                while chunks.len() + then <= WINDOW {
                    assert!(!chunks.is_full(), "{first}, then {then}: {}", chunks.len());
                    chunks.push(Bytes::from(vec![0; then]));
                }
            }
        }
    }

    #[test]
    fn small_chunks_that_wait_are_joined_in_order() {
        let _trace = trace();
        let mut chunks = Chunks::new();
        for number in 0..100_000_u32 {
            chunks.push(Bytes::copy_from_slice(&number.to_be_bytes()));
        }
        assert!(
            !chunks.is_full(),
            "400 kB in small chunks are no more than that"
        );
        let mut all = Vec::new();
        while let Some(chunk) = chunks.pop() {
            all.extend_from_slice(&chunk);
        }
        let expected: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        assert!(all == expected, "nothing is lost or out of order");
    }
}
