//! Numbers of workloads, in chunks that snapshots share.

use std::sync::Arc;

/// Numbers in one chunk: what one change copies.
const CHUNK: usize = 256;

/// A set of numbers with access by position; every chunk but the last is full.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    chunks: Vec<Arc<Vec<u32>>>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, |chunk| chunk.len());
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    pub(super) fn get(&self, at: usize) -> Option<u32> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().copied())
    }

    /// Adds a number that is not a member.
    pub(super) fn push(&mut self, id: u32) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => {
                let last = Arc::make_mut(last);
                // Most sets are small: grow by what is needed, not by doubling.
                last.reserve_exact(if last.len() < 8 { 1 } else { last.len() / 4 });
                last.push(id);
            }
            _ => self.chunks.push(Arc::new(vec![id])),
        }
    }

    /// Removes a number; the last one takes its place.
    pub(super) fn remove(&mut self, id: u32) {
        let Some((chunk, at)) = self.find(id) else {
            return;
        };
        let Some(tail) = self.chunks.last_mut() else {
            return;
        };
        let last = Arc::make_mut(tail).pop();
        if tail.is_empty() {
            self.chunks.pop();
        }
        if let Some(last) = last.filter(|last| *last != id)
            && let Some(chunk) = self.chunks.get_mut(chunk)
            && let Some(slot) = Arc::make_mut(chunk).get_mut(at)
        {
            *slot = last;
        }
    }

    fn find(&self, id: u32) -> Option<(usize, usize)> {
        self.chunks.iter().enumerate().find_map(|(n, chunk)| {
            let at = chunk.iter().position(|other| *other == id)?;
            Some((n, at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Members;

    #[test]
    fn set_survives_removals_from_any_place() {
        let _trace = meshwright_testkit::trace();
        let mut members = Members::default();
        (0..600).for_each(|id| members.push(id));
        let snapshot = members.clone();
        for id in (0..600).step_by(3) {
            members.remove(id);
        }
        members.remove(9999);
        let mut left: Vec<u32> = members.iter().collect();
        left.sort_unstable();
        assert_eq!(left, (0..600).filter(|id| id % 3 != 0).collect::<Vec<_>>());
        assert_eq!((members.len(), members.get(400)), (400, None));
        assert!(members.get(399).is_some());
        assert_eq!(snapshot.len(), 600);
    }
}
