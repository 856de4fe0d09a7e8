//! Numbers of workloads, in chunks that snapshots share.

use std::sync::Arc;

/// Numbers in one chunk: what one change copies.
const CHUNK: usize = 256;

/// A set of numbers with access by position; every chunk but the last is full.
///
/// Most services have a few endpoints and there are many services: a few take one allocation.
#[derive(Clone, Debug)]
pub(super) enum Members {
    Few(Arc<[u32]>),
    Many(Vec<Arc<Vec<u32>>>),
}

/// Up to so many are a few; each change copies them.
const FEW: usize = 32;

impl Default for Members {
    fn default() -> Self {
        Self::Few(Arc::default())
    }
}

impl Members {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(all) => all.len(),
            Self::Many(chunks) => {
                let last = chunks.last().map_or(0, |chunk| chunk.len());
                chunks.len().saturating_sub(1) * CHUNK + last
            }
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<u32> {
        match self {
            Self::Few(all) => all.get(at).copied(),
            Self::Many(chunks) => chunks.get(at / CHUNK)?.get(at % CHUNK).copied(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let (few, many) = match self {
            Self::Few(all) => (&**all, &[][..]),
            Self::Many(chunks) => (&[][..], &**chunks),
        };
        let many = many.iter().flat_map(|chunk| chunk.iter());
        few.iter().chain(many).copied()
    }

    /// Adds a number that is not a member.
    pub(super) fn push(&mut self, id: u32) {
        match self {
            Self::Few(all) if all.len() < FEW => {
                *all = all.iter().copied().chain([id]).collect();
            }
            Self::Few(all) => {
                let all = all.iter().copied().chain([id]).collect();
                *self = Self::Many(vec![Arc::new(all)]);
            }
            Self::Many(chunks) => match chunks.last_mut() {
                Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(id),
                _ => chunks.push(Arc::new(vec![id])),
            },
        }
    }

    /// Removes a number; the last one takes its place.
    pub(super) fn remove(&mut self, id: u32) {
        match self {
            Self::Few(all) => {
                if all.contains(&id) {
                    *all = all.iter().copied().filter(|other| *other != id).collect();
                }
            }
            Self::Many(chunks) => remove(chunks, id),
        }
    }
}

fn remove(chunks: &mut Vec<Arc<Vec<u32>>>, id: u32) {
    let found = chunks.iter().enumerate().find_map(|(n, chunk)| {
        let at = chunk.iter().position(|other| *other == id)?;
        Some((n, at))
    });
    let Some((chunk, at)) = found else {
        return;
    };
    let Some(tail) = chunks.last_mut() else {
        return;
    };
    let last = Arc::make_mut(tail).pop();
    if tail.is_empty() {
        chunks.pop();
    }
    if let Some(last) = last.filter(|last| *last != id)
        && let Some(chunk) = chunks.get_mut(chunk)
        && let Some(slot) = Arc::make_mut(chunk).get_mut(at)
    {
        *slot = last;
    }
}

#[cfg(test)]
mod tests {
    use super::{FEW, Members};

    fn sorted(members: &Members) -> Vec<u32> {
        let mut all: Vec<u32> = members.iter().collect();
        all.sort_unstable();
        all
    }

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
        let left: Vec<u32> = (0..600).filter(|id| id % 3 != 0).collect();
        assert_eq!(sorted(&members), left);
        assert_eq!((members.len(), members.get(400)), (400, None));
        assert!(members.get(399).is_some());
        assert_eq!(snapshot.len(), 600);
    }

    #[test]
    fn a_few_become_many_and_none() {
        let _trace = meshwright_testkit::trace();
        let mut members = Members::default();
        for id in 0..=FEW as u32 {
            members.push(id);
            assert_eq!(members.len(), id as usize + 1);
            assert_eq!(members.get(id as usize), Some(id));
        }
        for id in 0..=FEW as u32 {
            members.remove(id);
            assert_eq!(sorted(&members), (id + 1..=FEW as u32).collect::<Vec<_>>());
        }
        let mut few = Members::default();
        (0..3).for_each(|id| few.push(id));
        few.remove(1);
        few.remove(7);
        assert_eq!((sorted(&few), few.get(2)), (vec![0, 2], None));
    }
}
