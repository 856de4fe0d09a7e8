//! One registered connection.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Context,
};

use atomic_waker::AtomicWaker;

use super::{ConnectionFacts, Revoked};
use crate::decision::Denied;

/// A judgement's result.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Allow,
    Deny(Denied),
    Unknown(Arc<str>),
}

#[derive(Debug)]
pub(super) struct Entry {
    facts: ConnectionFacts,
    /// Set once; never taken back.
    revoked: OnceLock<Revoked>,
    /// The missing policy and the judgement in which the hold began.
    held: Mutex<Option<(Arc<str>, u64)>>,
    /// Number of judgements by others than the one who admits.
    judgements: AtomicU64,
    waker: AtomicWaker,
}

impl Entry {
    pub(super) const fn new(facts: ConnectionFacts) -> Self {
        Self {
            facts,
            revoked: OnceLock::new(),
            held: Mutex::new(None),
            judgements: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) const fn facts(&self) -> &ConnectionFacts {
        &self.facts
    }

    pub(super) fn revoked(&self) -> Option<&Revoked> {
        self.revoked.get()
    }

    /// Revokes; false if it had been revoked before.
    pub(super) fn revoke(&self, denied: Denied) -> bool {
        let is_first = self.revoked.set(denied.into()).is_ok();
        if is_first {
            self.release();
            self.waker.wake();
        }
        is_first
    }

    /// Leaves the waker for a revocation, then looks again: none is missed in between.
    pub(super) fn poll_revoked(&self, cx: &Context<'_>) -> Option<&Revoked> {
        self.revoked().or_else(|| {
            self.waker.register(cx.waker());
            self.revoked()
        })
    }

    /// Notes a missing policy; a hold that has begun keeps its beginning.
    pub(super) fn hold(&self, policy: Arc<str>, round: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let since = held.as_ref().map_or(round, |(_, since)| *since);
        *held = Some((policy, since));
    }

    /// Ends a hold because nothing is missing.
    pub(super) fn release(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn held_policy(&self) -> Option<Arc<str>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|(policy, _)| Arc::clone(policy))
    }

    /// Whether it is held since judgement `round` or an earlier one.
    pub(super) fn is_held_since(&self, round: u64) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|(_, since)| *since <= round)
    }

    /// Notes that somebody judged, and wakes who waits for that.
    pub(super) fn judged(&self) {
        self.judgements.fetch_add(1, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn judgements(&self) -> u64 {
        self.judgements.load(Ordering::Acquire)
    }

    /// Leaves the waker for the next judgement and returns how many there have been.
    pub(super) fn wait_for_judgement(&self, cx: &Context<'_>) -> u64 {
        self.waker.register(cx.waker());
        self.judgements()
    }
}
