//! Whether the first state is complete.

use tokio::sync::watch;

/// Whether the first state is complete. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ready {
    receiver: watch::Receiver<bool>,
}

/// The client ended before its first state was complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the client has stopped")]
pub struct ClientStopped(());

impl Ready {
    pub(super) const fn new(receiver: watch::Receiver<bool>) -> Self {
        Self { receiver }
    }

    /// Whether it is complete now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.receiver.borrow()
    }

    /// Waits until it is complete. Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns [`ClientStopped`] when that can no longer happen.
    pub async fn ready(&mut self) -> Result<(), ClientStopped> {
        match self.receiver.wait_for(|ready| *ready).await {
            Ok(_) => Ok(()),
            Err(_closed) => Err(ClientStopped(())),
        }
    }
}
