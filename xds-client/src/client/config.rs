//! Settings.

use std::time::Duration;

use crate::delta::SessionConfig;

/// Settings of a [`Client`](super::Client). The defaults suit a node proxy under Istio.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(super) max_message: usize,
    pub(super) first_backoff: Duration,
    pub(super) max_backoff: Duration,
    pub(super) session: SessionConfig,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            max_message: 200 * 1024 * 1024,
            first_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(15),
            session: SessionConfig::default(),
        }
    }
}

impl ClientConfig {
    /// Sets how large one message may be. Default: 200 MiB.
    ///
    /// A larger one ends the stream. Memory may reach three times its size while it is applied.
    #[must_use]
    pub const fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Sets the longest first delay and the longest of all. Default: 100 ms and 15 s.
    ///
    /// Each delay is random between nothing and a limit that doubles from the first to the last.
    #[must_use]
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first_backoff = first;
        self.max_backoff = longest;
        self
    }

    /// Sets the bounds and times of the protocol.
    #[must_use]
    pub fn session(mut self, session: SessionConfig) -> Self {
        self.session = session;
        self
    }
}
