//! Finds the rules that can match a connection without looking at the others.
//!
//! A rule needs all its clauses, so it is enough to file it under one of them: the one whose keys
//! (principals, ports, networks and so on) are shared with the fewest other rules. A connection then
//! looks up its own few keys and evaluates only the rules that are filed there. A rule without any
//! clause that has keys is filed under a key that every connection has.

mod affix;
mod filing;
mod key;
mod table;

use std::sync::Arc;

use crate::{
    connection::Facts,
    matching::{Clause, Match, Rule, Unevaluable},
    policy::Policy,
};
use filing::Filing;
use key::{Key, Probes};
use table::Table;

/// Rules of some policies of one action, indexed; immutable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segment {
    /// Sorted by name.
    policies: Box<[Arc<Policy>]>,
    /// Policy and rule for each ordinal; ordinals order rules by policy name, then by place.
    rules: Box<[(u32, u32)]>,
    table: Table,
    probes: Probes,
}

/// The first rule that matched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) policy: &'a Arc<Policy>,
    pub(crate) rule: u32,
}

/// How a connection is searched for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search<'a> {
    pub(crate) facts: &'a Facts<'a>,
    pub(crate) unevaluable: Unevaluable,
    /// Whether the first match in order is wanted, or any will do.
    pub(crate) in_order: bool,
}

impl Segment {
    /// Indexes `policies`, which are sorted by name.
    pub(crate) fn new(policies: Box<[Arc<Policy>]>, unevaluable: Unevaluable) -> Self {
        let filing = Filing { unevaluable };
        let mut frequencies = Frequencies::new(all_rules(&policies).count());
        for clause in all_rules(&policies).flat_map(|(_, rule)| &rule.clauses) {
            for condition in clause
                .matches
                .iter()
                .flat_map(|matching| &matching.conditions)
            {
                filing.each_key(condition, &mut |key| frequencies.add(key));
            }
        }
        let (mut rules, mut entries, mut probes) = (Vec::new(), Vec::new(), Probes::default());
        for (place, rule) in all_rules(&policies) {
            let ordinal = rules.len() as u32;
            rules.push(place);
            file(rule, filing, &frequencies, &mut |key| {
                entries.push((key.hash(), ordinal));
                probes.expect(key);
            });
        }
        probes.finish();
        Self {
            rules: rules.into(),
            table: Table::new(entries),
            probes,
            policies,
        }
    }

    /// Sorted by name.
    pub(crate) const fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// The first rule that holds, of policies that `is_live` does not exclude by their position.
    pub(crate) fn find(
        &self,
        search: &Search<'_>,
        is_live: impl Fn(u32) -> bool,
    ) -> Option<Found<'_>> {
        if self.table.is_empty() {
            return None;
        }
        let mut best: Option<(u32, Found<'_>)> = None;
        self.probes.each_hash(search.facts, &mut |hash| {
            for &ordinal in self.table.get(hash) {
                if best.is_some_and(|(first, _)| first <= ordinal) {
                    break;
                }
                let Some(&(position, rule)) = self.rules.get(ordinal as usize) else {
                    continue;
                };
                let Some(policy) = self.policies.get(position as usize) else {
                    continue;
                };
                let holds = |rule: &Rule| rule.holds(search.facts, search.unevaluable);
                if policy.rules.get(rule as usize).is_some_and(holds) && is_live(position) {
                    best = Some((ordinal, Found { policy, rule }));
                    break;
                }
            }
            best.is_none() || search.in_order
        });
        best.map(|(_, found)| found)
    }
}

type PlacedRule<'a> = ((u32, u32), &'a Rule);

fn all_rules(policies: &[Arc<Policy>]) -> impl Iterator<Item = PlacedRule<'_>> {
    policies.iter().zip(0_u32..).flat_map(|(policy, position)| {
        policy
            .rules
            .iter()
            .zip(0_u32..)
            .map(move |(rule, place)| ((position, place), rule))
    })
}

/// Files `rule` under the keys of its most selective clause.
fn file(rule: &Rule, filing: Filing, frequencies: &Frequencies, add: &mut impl FnMut(Key<'_>)) {
    let cost = |clause: &&Clause| {
        let costs = clause
            .matches
            .iter()
            .map(|matching| cheapest(matching, filing, frequencies).0);
        costs.fold(0_u64, u64::saturating_add)
    };
    // An empty clause says nothing about a connection.
    let clauses = rule
        .clauses
        .iter()
        .filter(|clause| !clause.matches.is_empty());
    let Some(clause) = clauses.min_by_key(cost) else {
        add(Key::Always);
        return;
    };
    for matching in &clause.matches {
        match cheapest(matching, filing, frequencies).1 {
            Choice::Condition(index) => {
                if let Some(condition) = matching.conditions.get(index) {
                    filing.each_key(condition, add);
                }
            }
            Choice::Always => add(Key::Always),
            Choice::Never => {}
        }
    }
}

/// About how many rules have a key.
///
/// Keys that fall together count together: a rule is then filed a little worse than it could be.
#[derive(Debug)]
struct Frequencies {
    /// A power of two of them.
    counts: Box<[u32]>,
}

impl Frequencies {
    /// Four bytes for each of two keys a rule, up to 4 MiB.
    fn new(rules: usize) -> Self {
        let counts = (rules * 2).clamp(1, 1 << 20).next_power_of_two();
        Self {
            counts: vec![0; counts].into(),
        }
    }

    fn add(&mut self, key: Key<'_>) {
        let place = self.place(key);
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
    }

    fn of(&self, key: Key<'_>) -> u64 {
        self.counts
            .get(self.place(key))
            .copied()
            .map_or(1, u64::from)
    }

    fn place(&self, key: Key<'_>) -> usize {
        key.hash() as usize & self.counts.len().wrapping_sub(1)
    }
}

/// Under what one match is filed.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Condition(usize),
    Always,
    /// The match can never hold.
    Never,
}

/// The condition of `matching` that fewest other rules and connections share, with its cost.
fn cheapest(matching: &Match, filing: Filing, frequencies: &Frequencies) -> (u64, Choice) {
    if matching.conditions.is_empty() && filing.unevaluable != Unevaluable::Holds {
        return (0, Choice::Never);
    }
    let mut best = (Key::Always.weight() * ALWAYS_COST, Choice::Always);
    for (index, condition) in matching.conditions.iter().enumerate() {
        let mut cost = 0_u64;
        let has_keys = filing.each_key(condition, &mut |key| {
            cost = cost.saturating_add(frequencies.of(key).saturating_mul(key.weight()));
        });
        if has_keys && cost < best.0 {
            best = (cost, Choice::Condition(index));
        }
    }
    best
}

/// What being looked at for every connection costs, in rules that share a key.
const ALWAYS_COST: u64 = 1_000_000;

#[cfg(test)]
mod tests;
