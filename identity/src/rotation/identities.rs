use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::oneshot, time::timeout};

use super::{IssueError, Unavailable, inbox::Inbox, schedule::Priority};
use crate::{SpiffeId, svid::Svid, tls::Member};

/// Asks a [`Rotator`](super::Rotator) for credentials. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Identities {
    pub(super) shared: Arc<Shared>,
}

/// What the task publishes and what it is told.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inbox: Inbox,
    /// Written by the task only.
    pub(super) table: ArcSwap<HashMap<SpiffeId, Slot>>,
    pub(super) wait_deadline: Duration,
}

/// The published state of one identity.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    Available {
        member: Member,
        /// Why the last attempt to replace it failed.
        failure: Option<IssueError>,
    },
    Failed(IssueError),
    Initializing,
}

impl Identities {
    /// Returns live credentials of `id`.
    ///
    /// With a valid certificate at hand this costs a lookup and never waits. Without one it waits
    /// for the issuer, before every prefetch and rotation, at most 10 s (or what
    /// [`RotatorConfig::wait_deadline`](super::RotatorConfig::wait_deadline) says); if the last
    /// request failed, its error comes back at once and the next attempt is brought forward.
    ///
    /// Cancel safe: a dropped call leaves the request running for others.
    ///
    /// # Errors
    ///
    /// Returns why there are no usable credentials.
    pub async fn get(&self, id: &SpiffeId) -> Result<Member, Unavailable> {
        if let Some(member) = self.current(id) {
            return Ok(member);
        }
        let (waiter, answer) = oneshot::channel();
        self.shared
            .inbox
            .demand(id, Priority::RealTime, Some(waiter))?;
        match timeout(self.shared.wait_deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_closed)) => Err(Unavailable::Stopped),
            Err(_elapsed) => Err(Unavailable::TimedOut { id: id.clone() }),
        }
    }

    /// Returns live credentials of `id` if they are at hand.
    #[must_use]
    pub fn current(&self, id: &SpiffeId) -> Option<Member> {
        match self.shared.table.load().get(id) {
            Some(Slot::Available { member, .. }) if !member.is_expired() => Some(member.clone()),
            _ => None,
        }
    }

    /// Asks for a certificate ahead of need. Does nothing if there is one.
    ///
    /// # Errors
    ///
    /// Returns [`Unavailable::Full`] or [`Unavailable::Stopped`] when the wish cannot be taken.
    pub fn prefetch(&self, id: &SpiffeId) -> Result<(), Unavailable> {
        self.shared.inbox.demand(id, Priority::Warmup, None)
    }

    /// Stops keeping `id` fresh and drops its credentials; whoever waits for them is told.
    ///
    /// [`Member`]s handed out before keep the certificate they have until it expires. What is
    /// being fetched is thrown away when it comes.
    pub fn forget(&self, id: &SpiffeId) {
        self.shared.inbox.forget(id);
    }

    /// Every identity that is kept with its state, ordered by identity.
    #[must_use]
    pub fn statuses(&self) -> Vec<IdentityStatus> {
        let table = self.shared.table.load();
        let mut all: Vec<_> = table
            .iter()
            .map(|(id, slot)| IdentityStatus {
                id: id.clone(),
                state: slot.state(),
            })
            .collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

impl Slot {
    pub(super) fn failure(&self) -> Option<IssueError> {
        match self {
            Self::Available { failure, .. } => failure.clone(),
            Self::Failed(error) => Some(error.clone()),
            Self::Initializing => None,
        }
    }

    fn state(&self) -> IdentityState {
        match self {
            Self::Available { member, failure } if member.is_expired() => {
                let expired = "the certificate has expired";
                IdentityState::Unavailable(match failure {
                    Some(error) => format!("{expired}; {}", chain_text(error)).into(),
                    None => expired.into(),
                })
            }
            Self::Available { member, .. } => IdentityState::Available(member.svid()),
            Self::Failed(error) => IdentityState::Unavailable(chain_text(error).into()),
            Self::Initializing => IdentityState::Initializing,
        }
    }
}

/// One identity with its state, as an operator's tool shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IdentityStatus {
    /// Whose.
    pub id: SpiffeId,
    /// The state.
    pub state: IdentityState,
}

/// The state of one identity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IdentityState {
    /// There is a valid certificate.
    Available(Arc<Svid>),
    /// The first certificate is being fetched.
    Initializing,
    /// There is none; the text says why.
    Unavailable(Arc<str>),
}

fn chain_text(error: &IssueError) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(cause) = link {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        link = cause.source();
    }
    text
}
