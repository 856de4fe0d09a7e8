//! Names with what the server sent last under each.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::version::Version;
use crate::workload::{
    index::HashIndex,
    slab::{Ids, Slab},
};

/// What the server sent last under a name.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// It was applied.
    Current(Version),
    /// It was refused; an earlier version may be in force.
    Refused,
}

impl Known {
    pub(super) const fn current(&self) -> Option<&Version> {
        match self {
            Self::Current(version) => Some(version),
            Self::Refused => None,
        }
    }
}

/// A map by name for a hundred thousand of them: it grows in small steps, where a hash table would
/// double.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    hasher: RandomState,
    index: HashIndex,
    ids: Ids,
    entries: Slab<(Arc<str>, Known)>,
}

impl KnownNames {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&(Arc<str>, Known)> {
        self.entries.get(self.id(name)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Known)> {
        self.entries.iter()
    }

    pub(super) fn insert(&mut self, name: &Arc<str>, known: Known) {
        let id = self.id(name).unwrap_or_else(|| {
            let id = self.ids.take();
            self.index.insert(self.hasher.hash_one(&**name), id);
            id
        });
        self.entries.set(id, (Arc::clone(name), known));
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(id) = self.id(name) {
            self.index.remove(self.hasher.hash_one(name), id);
            self.entries.take(id);
            self.ids.give_back(id);
        }
    }

    fn id(&self, name: &str) -> Option<u32> {
        let mut candidates = self.index.candidates(self.hasher.hash_one(name));
        candidates.find(|id| self.entries.get(*id).is_some_and(|(n, _)| **n == *name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, KnownNames};
    use std::{collections::BTreeSet, sync::Arc};

    #[test]
    fn names_come_go_and_come_back() {
        let _trace = meshwright_testkit::trace();
        let mut known = KnownNames::default();
        let name = |n: usize| Arc::<str>::from(format!("name-{n}"));
        for n in 0..1000 {
            known.insert(&name(n), Known::Current("1".into()));
        }
        known.insert(&name(7), Known::Refused);
        (0..1000).step_by(2).for_each(|n| known.remove(&name(n)));
        known.remove("never there");
        known.insert(&name(0), Known::Refused);
        assert_eq!(known.len(), 501);
        let refused = known.iter().filter(|(_, known)| known.current().is_none());
        let refused: BTreeSet<&str> = refused.map(|(name, _)| &**name).collect();
        assert_eq!(refused, BTreeSet::from(["name-0", "name-7"]));
        assert!(known.get("name-2").is_none() && known.get("name-3").is_some());
        assert!(
            size_of::<(Arc<str>, Known)>() <= 40,
            "there are as many as resources"
        );
    }
}
