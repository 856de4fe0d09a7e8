use super::IssueError;
use crate::{Fault, SpiffeId};

/// There are no usable credentials of an identity.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The last request failed. Another attempt comes by itself.
    ///
    /// Look at the cause first: a refusal names the issuer's reason, a time-out its network.
    #[error("there is no certificate for {id}")]
    Failed {
        /// Whose.
        id: SpiffeId,
        /// Why the last request failed.
        source: IssueError,
    },
    /// The identity was forgotten while the caller waited.
    #[error("{id} is not kept any more")]
    Forgotten {
        /// Whose.
        id: SpiffeId,
    },
    /// As many identities as allowed are kept already.
    #[error("too many identities are kept to add {id}")]
    Full {
        /// Whose.
        id: SpiffeId,
    },
    /// The rotator has ended.
    #[error("the rotation of certificates has ended")]
    Stopped,
    /// No certificate came in time.
    #[error("no certificate for {id} came in time")]
    TimedOut {
        /// Whose.
        id: SpiffeId,
    },
}

impl Unavailable {
    /// Whether asking again can help.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::TimedOut { .. })
    }

    /// Who has to act.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Failed { source, .. } => source.fault(),
            Self::TimedOut { .. } => Fault::Peer,
            Self::Forgotten { .. } | Self::Full { .. } | Self::Stopped => Fault::Local,
        }
    }
}
