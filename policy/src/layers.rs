//! An index that takes small changes cheaply.
//!
//! Most policies are in a large segment; those that changed since it was built are in a small one,
//! and their old versions in the large one are marked dead. When the small one has grown, both are
//! built into a new large one.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    index::{Found, Search, Segment},
    matching::Unevaluable,
    policy::Policy,
};

/// The policies of one action in one scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    base: Arc<Segment>,
    /// One bit for each policy of `base` that is not in force any more; empty if all are.
    dead: Arc<[u64]>,
    dead_count: usize,
    recent: Arc<Segment>,
}

impl Layers {
    /// The first rule that holds.
    pub(crate) fn find(&self, search: &Search<'_>) -> Option<Found<'_>> {
        let base = self
            .base
            .find(search, |position| !is_dead(&self.dead, position));
        if base.is_some() && !search.in_order {
            return base;
        }
        let recent = self.recent.find(search, |_position| true);
        match (base, recent) {
            (Some(base), Some(recent)) if recent.policy.name < base.policy.name => Some(recent),
            (base, recent) => base.or(recent),
        }
    }

    /// Number of policies in force.
    pub(crate) fn len(&self) -> usize {
        self.base.policies().len() - self.dead_count + self.recent.policies().len()
    }

    /// Policies in force, in no particular order.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> + '_ {
        let base = self.base.policies().iter().zip(0_u32..);
        let live = base.filter(|(_, position)| !is_dead(&self.dead, *position));
        live.map(|(policy, _)| policy).chain(self.recent.policies())
    }

    /// A copy without the policies called `gone` and with `added`, which replace their namesakes.
    pub(crate) fn changed(
        &self,
        gone: &BTreeSet<&str>,
        added: &[Arc<Policy>],
        unevaluable: Unevaluable,
    ) -> Self {
        let names: BTreeSet<&str> = added.iter().map(|policy| &*policy.name).collect();
        let is_replaced = |name: &str| gone.contains(name) || names.contains(name);
        let kept = self
            .recent
            .policies()
            .iter()
            .filter(|policy| !is_replaced(&policy.name));
        let mut recent: Vec<Arc<Policy>> = kept.chain(added).cloned().collect();
        let mut dead = self.dead.to_vec();
        for name in gone.iter().chain(&names) {
            if let Ok(position) = self
                .base
                .policies()
                .binary_search_by(|policy| (*policy.name).cmp(name))
            {
                mark_dead(&mut dead, position);
            }
        }
        let dead_count = dead.iter().map(|word| word.count_ones() as usize).sum();
        let base_len = self.base.policies().len();
        if recent.len() + dead_count <= most_changes(base_len) {
            recent.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            return Self {
                base: Arc::clone(&self.base),
                dead: dead.into(),
                dead_count,
                recent: Arc::new(Segment::new(recent.into(), unevaluable)),
            };
        }
        let base = self.base.policies().iter().zip(0_u32..);
        recent.extend(
            base.filter(|(_, position)| !is_dead(&dead, *position))
                .map(|(policy, _)| Arc::clone(policy)),
        );
        recent.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Self {
            base: Arc::new(Segment::new(recent.into(), unevaluable)),
            ..Self::default()
        }
    }
}

/// How many changes are carried beside a base of `policies` (a replaced policy is two): about the
/// square root, so that carrying them and building them in cost about the same per change.
const fn most_changes(policies: usize) -> usize {
    3 * policies.isqrt()
}

fn is_dead(dead: &[u64], position: u32) -> bool {
    dead.get(position as usize / 64)
        .is_some_and(|word| word >> (position % 64) & 1 == 1)
}

fn mark_dead(dead: &mut Vec<u64>, position: usize) {
    if dead.len() <= position / 64 {
        dead.resize(position / 64 + 1, 0);
    }
    if let Some(word) = dead.get_mut(position / 64) {
        *word |= 1 << (position % 64);
    }
}
