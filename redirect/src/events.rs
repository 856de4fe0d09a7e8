//! What the crate reports to whoever counts: one trait, every method optional.

use std::time::Duration;

/// Receives what happened; implement what you count.
///
/// Called on the path that it reports, so it must not block.
pub trait Events: Send + Sync {
    /// Accepting a connection failed; the loop goes on.
    fn accept_failed(&self, event: &AcceptFailed) {
        let _ = event;
    }

    /// The handover connection to the node agent was made; requests follow.
    fn zds_connected(&self) {}

    /// The handover connection to the node agent ended or could not be made.
    fn zds_disconnected(&self, event: &ZdsDisconnected) {
        let _ = event;
    }

    /// A message of the handover protocol was refused.
    fn zds_refused(&self, event: &ZdsRefused) {
        let _ = event;
    }
}

/// Counts nothing.
impl Events for () {}

/// Accepting a connection failed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AcceptFailed {
    /// The kernel's error number, if it gave one.
    pub errno: Option<i32>,
    /// How long the loop pauses before it tries again; zero where the next connection may succeed.
    pub pause: Duration,
}

/// The handover connection ended or could not be made.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ZdsDisconnected {
    /// What ended it, in words.
    pub reason: String,
    /// How long until the next try.
    pub pause: Duration,
}

/// A message of the handover protocol was refused with an error acknowledgement.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ZdsRefused {
    /// The text of the acknowledgement.
    pub reason: String,
    /// Whether the connection is given up because of it.
    pub disconnects: bool,
}
