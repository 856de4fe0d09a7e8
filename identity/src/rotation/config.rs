use std::{num::NonZeroUsize, time::Duration};

use super::schedule::Limits;
use crate::tls::TlsEngine;

/// Settings of a [`Rotator`](super::Rotator).
///
/// The defaults suit a node with a few hundred identities.
#[derive(Clone, Debug)]
pub struct RotatorConfig {
    pub(super) engine: TlsEngine,
    pub(super) limits: Limits,
    pub(super) issue_deadline: Duration,
    pub(super) wait_deadline: Duration,
    pub(super) shortest_validity: Duration,
    pub(super) longest_validity: Duration,
}

impl RotatorConfig {
    /// Starts from the defaults, with the cryptography and the clock of `engine`.
    #[must_use]
    pub const fn new(engine: TlsEngine) -> Self {
        Self {
            engine,
            limits: Limits {
                in_flight: 8,
                identities: 10_000,
                backoff_start: Duration::from_millis(100),
                backoff_end: Duration::from_secs(150),
                backoff_wanted: Duration::from_secs(8),
                distance: Duration::from_secs(1),
            },
            issue_deadline: Duration::from_secs(10),
            wait_deadline: Duration::from_secs(10),
            shortest_validity: Duration::from_secs(5),
            longest_validity: Duration::from_secs(400 * 24 * 3600),
        }
    }

    /// Sets how many requests may be under way at once. Default: 8.
    ///
    /// More only moves the queue to the issuer.
    #[must_use]
    pub const fn in_flight(mut self, requests: NonZeroUsize) -> Self {
        self.limits.in_flight = requests.get();
        self
    }

    /// Sets how many identities may be kept. Default: 10 000.
    ///
    /// Each costs about 10 KiB and a request per rotation. More are refused, never swapped out.
    #[must_use]
    pub const fn max_identities(mut self, identities: NonZeroUsize) -> Self {
        self.limits.identities = identities.get();
        self
    }

    /// Sets how long one request may take. Default: 10 s.
    #[must_use]
    pub const fn issue_deadline(mut self, deadline: Duration) -> Self {
        self.issue_deadline = deadline;
        self
    }

    /// Sets how long [`Identities::get`](super::Identities::get) waits. Default: 10 s.
    #[must_use]
    pub const fn wait_deadline(mut self, deadline: Duration) -> Self {
        self.wait_deadline = deadline;
        self
    }

    /// Sets how much validity an answer must have left. Default: 5 s.
    ///
    /// A certificate that expires before it can be rotated is an outage with extra steps.
    #[must_use]
    pub const fn shortest_validity(mut self, validity: Duration) -> Self {
        self.shortest_validity = validity;
        self
    }

    /// Sets how much validity an answer may have left. Default: 400 days.
    ///
    /// An identity's key should not outlive the people who remember it.
    #[must_use]
    pub const fn longest_validity(mut self, validity: Duration) -> Self {
        self.longest_validity = validity;
        self
    }
}
