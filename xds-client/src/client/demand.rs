//! Asking for resources by name.

use std::{sync::Arc, time::Duration};

use meshwright_identity::Fault;
use tokio::sync::{mpsc, oneshot};

/// Questions that wait to be sent; more callers than that wait for a place.
pub(super) const QUEUE: usize = 100;

/// One question.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) type_url: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) answer: oneshot::Sender<Option<bool>>,
}

/// Asks for resources by name or alias. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Demand {
    type_url: Arc<str>,
    queue: mpsc::Sender<Ask>,
}

/// There was no answer to a question for a resource.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DemandError {
    /// The deadline passed; the question stays asked.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// Too many names were asked for, or this one is too long.
    #[error("the name was not asked for")]
    Refused,
    /// The client is not running any more.
    #[error("the client has stopped")]
    Stopped,
}

impl DemandError {
    /// Whether asking again may bring an answer. A question has no effect but its answer.
    #[must_use]
    pub const fn is_safe_to_retry(self) -> bool {
        matches!(self, Self::Deadline(_))
    }

    /// The control plane's, if it does not answer; the caller's otherwise.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::Deadline(_) => Fault::Peer,
            Self::Refused => Fault::Caller,
            Self::Stopped => Fault::Local,
        }
    }
}

impl Demand {
    pub(super) const fn new(type_url: Arc<str>, queue: mpsc::Sender<Ask>) -> Self {
        Self { type_url, queue }
    }

    /// Asks for `name` and waits until the server has answered: whether it exists.
    ///
    /// When this returns `true`, the handler has applied the resource. Names stay subscribed, so a
    /// second call answers at once, and any number of callers may ask for one name. For
    /// [`ADDRESS`](crate::proto::ADDRESS), names are `network/ip`, UIDs and `namespace/hostname`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns why there was no answer.
    pub async fn fetch(&self, name: &str, deadline: Duration) -> Result<bool, DemandError> {
        let asked = tokio::time::timeout(deadline, self.ask(name)).await;
        asked.unwrap_or(Err(DemandError::Deadline(deadline)))
    }

    async fn ask(&self, name: &str) -> Result<bool, DemandError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            type_url: Arc::clone(&self.type_url),
            name: name.into(),
            answer,
        };
        self.queue.send(ask).await.or(Err(DemandError::Stopped))?;
        let answer = answered.await.or(Err(DemandError::Stopped))?;
        answer.ok_or(DemandError::Refused)
    }
}
