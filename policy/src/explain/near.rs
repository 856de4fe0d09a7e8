//! Which rule came nearest to matching.

use std::{cmp::Reverse, sync::Arc};

use super::{FailedCondition, NearMiss};
use crate::{
    connection::Facts,
    matching::{Clause, Match, Rule, Unevaluable},
    policy::{Action, Policy},
};

/// The first of the rules with the fewest failed and then the most fulfilled conditions.
pub(super) fn nearest_miss(
    policies: &[&Arc<Policy>],
    action: Action,
    facts: &Facts<'_>,
    unevaluable: Unevaluable,
) -> Option<NearMiss> {
    let asked = policies
        .iter()
        .filter(|policy| policy.action == action && policy.is_enforced());
    let rules = asked.flat_map(|policy| {
        policy
            .rules
            .iter()
            .zip(0_u32..)
            .map(move |(rule, place)| (policy, rule, place))
    });
    let (policy, rule, place) = rules
        .filter(|(_, rule, _)| !rule.holds(facts, unevaluable))
        .min_by_key(|(_, rule, _)| distance(rule, facts, unevaluable))?;
    let failed = rule
        .clauses
        .iter()
        .zip(0_u32..)
        .filter(|(clause, _)| !clause.holds(facts, unevaluable));
    Some(NearMiss {
        policy: Arc::clone(&policy.name),
        action,
        rule: place,
        failed: failed
            .flat_map(|(clause, place)| failures(clause, place, facts, unevaluable))
            .collect(),
    })
}

/// Failed conditions, then fulfilled ones in reverse.
type Distance = (usize, Reverse<usize>);

fn distance(rule: &Rule, facts: &Facts<'_>, unevaluable: Unevaluable) -> Distance {
    let clauses = rule.clauses.iter().map(|clause| {
        let best = nearest_match(clause, facts, unevaluable);
        best.map_or((0, Reverse(0)), |(matching, _)| {
            match_distance(matching, facts, unevaluable)
        })
    });
    clauses.fold(
        (0, Reverse(0)),
        |(failed, Reverse(held)), (more_failed, Reverse(more_held))| {
            (failed + more_failed, Reverse(held + more_held))
        },
    )
}

fn match_distance(matching: &Match, facts: &Facts<'_>, unevaluable: Unevaluable) -> Distance {
    let held = matching
        .conditions
        .iter()
        .filter(|condition| condition.holds(facts, unevaluable))
        .count();
    let failed = match matching.conditions.len() {
        // A match without conditions fails as a whole.
        0 => usize::from(!matching.holds(facts, unevaluable)),
        all => all - held,
    };
    (failed, Reverse(held))
}

fn nearest_match<'a>(
    clause: &'a Clause,
    facts: &Facts<'_>,
    unevaluable: Unevaluable,
) -> Option<(&'a Match, u32)> {
    let matches = clause.matches.iter().zip(0_u32..);
    matches.min_by_key(|(matching, _)| match_distance(matching, facts, unevaluable))
}

fn failures(
    clause: &Clause,
    place: u32,
    facts: &Facts<'_>,
    unevaluable: Unevaluable,
) -> Vec<FailedCondition> {
    let Some((matching, match_place)) = nearest_match(clause, facts, unevaluable) else {
        return Vec::new();
    };
    let place = (place, match_place);
    if matching.conditions.is_empty() {
        return vec![FailedCondition::new(place, None, facts)];
    }
    let failed = matching
        .conditions
        .iter()
        .filter(|condition| !condition.holds(facts, unevaluable));
    failed
        .map(|condition| FailedCondition::new(place, Some(condition), facts))
        .collect()
}
