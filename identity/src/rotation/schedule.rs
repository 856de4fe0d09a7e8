//! When to ask for which certificate: a pure state machine.
//!
//! Events come in with the time since the start; requests to make come out. It holds no
//! certificate and reads no clock, so tests of it need neither runtime nor cryptography.
//!
//! An identity is at any time in one of these states: waiting for its turn, being fetched, resting
//! until its next rotation, or resting after a failure.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::SpiffeId;

/// How urgent a request is; the greater goes first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Priority {
    /// A rotation, or another attempt after a failure.
    Background,
    /// A workload was announced; nothing waits yet.
    Warmup,
    /// A connection waits.
    RealTime,
}

/// Limits of the schedule; see [`RotatorConfig`](super::RotatorConfig).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) in_flight: usize,
    pub(crate) identities: usize,
    pub(crate) backoff_start: Duration,
    pub(crate) backoff_end: Duration,
    /// Longest rest after a failure while somebody keeps asking.
    pub(crate) backoff_wanted: Duration,
    /// Shortest time between two requests for one identity after a success.
    pub(crate) distance: Duration,
}

/// One request to make.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fetch {
    pub(crate) id: SpiffeId,
    pub(crate) ticket: Ticket,
}

/// Tells a request from an earlier one for an identity that was forgotten meanwhile.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Ticket(u64);

/// What became of a demand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Demanded {
    /// A request is queued or under way; its end will be told.
    Coming,
    /// There are too many identities already.
    Full,
    /// The last request failed and nothing valid is held; the next comes at some later time.
    Resting,
    /// A valid certificate is held.
    Held,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// A certificate with this much validity left.
    Issued { remaining: Duration },
    /// None; `outage` says that the issuer as a whole did not answer.
    Failed { outage: bool },
}

/// Which identities are asked for, when, and how many at once.
#[derive(Debug)]
pub(crate) struct Schedule {
    limits: Limits,
    entries: HashMap<SpiffeId, Entry>,
    /// Whose turn it is, most urgent first.
    ready: BTreeSet<Turn>,
    /// Who rests until when.
    resting: BTreeSet<(Duration, SpiffeId)>,
    in_flight: usize,
    next_ticket: u64,
    /// Some request failed for the issuer's sake since the last success.
    outage: bool,
    rng: SmallRng,
}

/// Order of service: greater priority, then longer wait, then identity.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Turn {
    priority: std::cmp::Reverse<Priority>,
    since: Duration,
    id: SpiffeId,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    /// When the held certificate expires.
    valid_until: Option<Duration>,
    failures: u32,
    outage: bool,
    /// When somebody last needed it.
    wanted: Option<Duration>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Phase {
    Waiting(Turn),
    Fetching(Ticket),
    Resting(Duration),
}

impl Schedule {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            ready: BTreeSet::new(),
            resting: BTreeSet::new(),
            in_flight: 0,
            next_ticket: 0,
            outage: false,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Somebody needs `id`, or will.
    pub(crate) fn demand(&mut self, id: &SpiffeId, priority: Priority, now: Duration) -> Demanded {
        let wanted_rest = self.limits.backoff_wanted;
        let Some(entry) = self.entries.get_mut(id) else {
            return self.admit(id, priority, now);
        };
        if priority == Priority::RealTime {
            entry.wanted = Some(now);
        }
        let held = entry.is_valid_at(now);
        match entry.phase.clone() {
            Phase::Fetching(_) if !held => Demanded::Coming,
            Phase::Waiting(turn) if !held => {
                if priority > turn.priority.0 {
                    self.wait(id, priority, turn.since);
                }
                Demanded::Coming
            }
            // An expired certificate that no failure explains: a clock that jumped.
            Phase::Resting(_) if !held && entry.failures == 0 => {
                self.wait(id, priority, now);
                Demanded::Coming
            }
            Phase::Resting(until) if !held => {
                if priority == Priority::RealTime && until > now.saturating_add(wanted_rest) {
                    let rest = self.below(wanted_rest);
                    self.rest(id, now.saturating_add(rest));
                }
                Demanded::Resting
            }
            _ => Demanded::Held,
        }
    }

    /// Nobody needs `id` any more. What is under way for it is ignored when it ends.
    pub(crate) fn forget(&mut self, id: &SpiffeId) {
        if let Some(entry) = self.entries.remove(id) {
            self.leave(id, &entry.phase);
        }
    }

    /// A request ended. Returns whether its result counts: not if the identity was forgotten, even
    /// if it was demanded again meanwhile.
    pub(crate) fn ended(&mut self, fetch: &Fetch, how: Ended, now: Duration) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        let limits = self.limits;
        let Some(entry) = self.entries.get_mut(&fetch.id) else {
            return false;
        };
        if entry.phase != Phase::Fetching(fetch.ticket) {
            return false;
        }
        let rest = match how {
            Ended::Issued { remaining } => {
                entry.failures = 0;
                entry.outage = false;
                entry.valid_until = Some(now.saturating_add(remaining));
                let rest = self.fraction_of(remaining).max(limits.distance);
                self.issuer_answers(now);
                rest
            }
            Ended::Failed { outage } => {
                entry.failures = entry.failures.saturating_add(1);
                entry.outage = outage;
                self.outage |= outage;
                self.rest_after_failure(&fetch.id, now)
            }
        };
        self.rest(&fetch.id, now.saturating_add(rest));
        true
    }

    /// What is known of a held certificate's validity changed: the wall clock was moved.
    pub(crate) fn revalidate(&mut self, id: &SpiffeId, remaining: Duration, now: Duration) {
        let rest = self.fraction_of(remaining).max(self.limits.distance);
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.valid_until = Some(now.saturating_add(remaining));
        if matches!(entry.phase, Phase::Resting(_)) {
            self.rest(id, now.saturating_add(rest));
        }
    }

    /// The requests to make now, most urgent first, and when to ask again at the latest.
    pub(crate) fn poll(&mut self, now: Duration) -> (Vec<Fetch>, Option<Duration>) {
        while let Some((until, id)) = self.resting.first().cloned() {
            if until > now {
                break;
            }
            self.wait(&id, Priority::Background, until);
        }
        let mut fetches = Vec::new();
        while self.in_flight < self.limits.in_flight {
            let Some(turn) = self.ready.pop_first() else {
                break;
            };
            let ticket = Ticket(self.next_ticket);
            self.next_ticket = self.next_ticket.wrapping_add(1);
            if let Some(entry) = self.entries.get_mut(&turn.id) {
                entry.phase = Phase::Fetching(ticket);
                self.in_flight = self.in_flight.saturating_add(1);
                fetches.push(Fetch {
                    id: turn.id,
                    ticket,
                });
            }
        }
        (fetches, self.resting.first().map(|(until, _)| *until))
    }

    /// Whether a certificate that is valid at `now` is held for `id`.
    pub(crate) fn holds(&self, id: &SpiffeId, now: Duration) -> bool {
        self.entries
            .get(id)
            .is_some_and(|entry| entry.is_valid_at(now))
    }

    fn admit(&mut self, id: &SpiffeId, priority: Priority, now: Duration) -> Demanded {
        if self.entries.len() >= self.limits.identities {
            return Demanded::Full;
        }
        let turn = Turn::new(priority, now, id);
        self.ready.insert(turn.clone());
        self.entries.insert(
            id.clone(),
            Entry {
                phase: Phase::Waiting(turn),
                valid_until: None,
                failures: 0,
                outage: false,
                wanted: (priority == Priority::RealTime).then_some(now),
            },
        );
        Demanded::Coming
    }

    /// The issuer answered after an outage: those who rest because of it come soon, spread out.
    fn issuer_answers(&mut self, now: Duration) {
        if !std::mem::take(&mut self.outage) {
            return;
        }
        let soon = self.limits.distance.saturating_mul(2);
        let waiting: Vec<SpiffeId> = self
            .resting
            .iter()
            .filter(|(until, id)| {
                *until > now.saturating_add(soon) && self.entries.get(id).is_some_and(|e| e.outage)
            })
            .map(|(_, id)| id.clone())
            .collect();
        for id in waiting {
            let rest = self.below(soon);
            self.rest(&id, now.saturating_add(rest));
        }
    }

    /// Full jitter over a doubling interval. While somebody keeps asking, or a certificate is
    /// still valid but not for long, the interval stays short.
    fn rest_after_failure(&mut self, id: &SpiffeId, now: Duration) -> Duration {
        let limits = self.limits;
        let Some(entry) = self.entries.get(id) else {
            return limits.backoff_end;
        };
        let doublings = entry.failures.saturating_sub(1).min(20);
        let mut longest = limits
            .backoff_start
            .saturating_mul(1 << doublings)
            .min(limits.backoff_end);
        let recently = now.saturating_sub(limits.backoff_wanted.saturating_mul(4));
        if entry.wanted.is_some_and(|wanted| wanted >= recently) {
            longest = longest.min(limits.backoff_wanted);
        }
        if let Some(until) = entry.valid_until {
            let left = until.saturating_sub(now);
            let short = if left.is_zero() {
                limits.backoff_wanted
            } else {
                left / 4
            };
            longest = longest.min(short.max(limits.backoff_start));
        }
        // A floor keeps a refusing issuer from being asked without pause.
        self.below(longest).max(limits.backoff_start / 2)
    }

    /// Between 40 and 60 % of `remaining`.
    fn fraction_of(&mut self, remaining: Duration) -> Duration {
        remaining.mul_f64(self.rng.random_range(0.4..0.6))
    }

    fn below(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.rng.random_range(0.0..1.0))
    }

    fn wait(&mut self, id: &SpiffeId, priority: Priority, since: Duration) {
        let turn = Turn::new(priority, since, id);
        self.enter(id, Phase::Waiting(turn));
    }

    fn rest(&mut self, id: &SpiffeId, until: Duration) {
        self.enter(id, Phase::Resting(until));
    }

    fn enter(&mut self, id: &SpiffeId, phase: Phase) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let old = std::mem::replace(&mut entry.phase, phase.clone());
        self.leave(id, &old);
        match phase {
            Phase::Waiting(turn) => {
                self.ready.insert(turn);
            }
            Phase::Resting(until) => {
                self.resting.insert((until, id.clone()));
            }
            Phase::Fetching(_) => {}
        }
    }

    fn leave(&mut self, id: &SpiffeId, phase: &Phase) {
        match phase {
            Phase::Waiting(turn) => {
                self.ready.remove(turn);
            }
            Phase::Resting(until) => {
                self.resting.remove(&(*until, id.clone()));
            }
            Phase::Fetching(_) => {}
        }
    }
}

impl Entry {
    fn is_valid_at(&self, now: Duration) -> bool {
        self.valid_until.is_some_and(|until| now < until)
    }
}

impl Turn {
    fn new(priority: Priority, since: Duration, id: &SpiffeId) -> Self {
        Self {
            priority: std::cmp::Reverse(priority),
            since,
            id: id.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
