//! Choosing one endpoint of a service.

use std::sync::Arc;

use rand::Rng;

use super::Source;
use crate::workload::{Endpoint, LoadBalancingMode, Scope, Service, Snapshot, Workload};

/// From this many endpoints on, guessing is tried before counting.
const GUESS_FROM: usize = 16;
const GUESSES: usize = 8;

/// Which ports of a service may be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PortRule {
    /// Those the service has.
    Listed,
    /// Also others, if the endpoint takes all of them through an application tunnel: waypoints.
    Tunnelled,
}

/// One endpoint and its port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick<'a> {
    pub(super) workload: &'a Arc<Workload>,
    pub(super) port: u16,
}

/// What is asked of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Balance<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) source: &'a Source<'a>,
    pub(super) service: &'a Arc<Service>,
    pub(super) port: u16,
    pub(super) rule: PortRule,
}

impl<'a> Balance<'a> {
    /// Picks one of the best endpoints at random, by weight; none if all weights are zero.
    pub(super) fn pick(&self, rng: &mut impl Rng) -> Option<Pick<'a>> {
        match self.service.load_balancing().mode {
            LoadBalancingMode::Passthrough => None,
            LoadBalancingMode::Standard => self.guess(rng).or_else(|| self.count(rng)),
            LoadBalancingMode::Failover | LoadBalancingMode::Strict => self.count(rng),
        }
    }

    /// Endpoints of equal weight: one at random is as likely as any other to be right, and a
    /// wrong guess leaves the odds of the others as they were.
    fn guess(&self, rng: &mut impl Rng) -> Option<Pick<'a>> {
        let even = self.snapshot.even_endpoints(self.service)?;
        if even.len() < GUESS_FROM {
            return None;
        }
        (0..GUESSES).find_map(|_| {
            let endpoint = even.get(rng.random_range(0..even.len()))?;
            self.candidate(endpoint)
        })
    }

    /// Two passes over the endpoints: find the best score and its weight, then the one drawn.
    fn count(&self, rng: &mut impl Rng) -> Option<Pick<'a>> {
        let (mut best, mut total) = (0, 0_u64);
        for (pick, score) in self.scored() {
            if score > best {
                (best, total) = (score, 0);
            }
            if score == best {
                total += u64::from(pick.workload.capacity());
            }
        }
        if total == 0 {
            return None;
        }
        let mut left = rng.random_range(0..total);
        let finalists = self.scored().filter(|(_, score)| *score == best);
        finalists.map(|(pick, _)| pick).find(|pick| {
            let weight = u64::from(pick.workload.capacity());
            let drawn = left < weight;
            left = left.saturating_sub(weight);
            drawn
        })
    }

    fn scored(&self) -> impl Iterator<Item = (Pick<'a>, usize)> {
        let endpoints = self.snapshot.endpoints(self.service);
        endpoints.filter_map(|endpoint| {
            let pick = self.candidate(endpoint)?;
            Some((pick, self.score(pick.workload)?))
        })
    }

    /// The endpoint with its port, if it can be reached at all.
    fn candidate(&self, endpoint: Endpoint<'a>) -> Option<Pick<'a>> {
        let workload = endpoint.workload;
        if !self.service.admits(workload.health()) || !self.is_reachable(workload) {
            return None;
        }
        let tunnel = workload.application_tunnel();
        let listed = self.service.has_port(self.port);
        if !listed && (self.rule == PortRule::Listed || tunnel.is_none()) {
            return None;
        }
        let any_port = tunnel.is_some_and(|tunnel| tunnel.port.is_some());
        let port = endpoint
            .membership
            .target_port(self.port)
            .or_else(|| self.service.target_port(self.port))
            .or_else(|| any_port.then_some(self.port))?;
        Some(Pick { workload, port })
    }

    fn is_reachable(&self, workload: &Workload) -> bool {
        !workload.addresses().is_empty()
            || !workload.hostname().is_empty()
            || (workload.network_gateway().is_some()
                && **workload.network() != *self.source.network)
    }

    /// How well the endpoint matches the preferences; none if it must not be used.
    ///
    /// Scoring stops at the first mismatch. A network that is preferred first is different: the
    /// own one beats all others, whatever else they match, and among others the rest still counts.
    fn score(&self, workload: &Workload) -> Option<usize> {
        let balancing = self.service.load_balancing();
        let preferences = &balancing.preferences;
        let (mut matched, mut score) = (0, 0);
        for (place, scope) in preferences.iter().enumerate() {
            let leading_network = place == 0 && *scope == Scope::Network;
            match (self.has_in_common(*scope, workload), leading_network) {
                (true, true) => (matched, score) = (1, preferences.len()),
                (true, false) => (matched, score) = (matched + 1, score + 1),
                (false, true) => {}
                (false, false) => break,
            }
        }
        let strict = balancing.mode == LoadBalancingMode::Strict;
        let preferring = strict || balancing.mode == LoadBalancingMode::Failover;
        match preferring {
            true if strict && matched < preferences.len() => None,
            true => Some(score),
            false => Some(0),
        }
    }

    fn has_in_common(&self, scope: Scope, workload: &Workload) -> bool {
        let source = self.source.workload;
        let (ours, theirs) = (source.locality(), workload.locality());
        match scope {
            Scope::Cluster => source.cluster_id() == workload.cluster_id(),
            Scope::Network => *self.source.network == **workload.network(),
            Scope::Node => source.node() == workload.node(),
            Scope::Region => ours.region == theirs.region,
            Scope::Subzone => ours.subzone == theirs.subzone,
            Scope::Zone => ours.zone == theirs.zone,
        }
    }
}
