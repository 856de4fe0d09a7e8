//! Settings of the pool.

use crate::{
    lifetime::{Times, age_limit},
    server::jittered,
    wire,
};
use std::{num::NonZeroU32, time::Duration};

/// Settings of a [`Pool`](super::Pool).
#[derive(Clone, Debug)]
pub struct PoolConfig {
    pub(super) wire: wire::Settings,
    pub(super) max_streams: usize,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_key: usize,
    pub(super) tcp_deadline: Duration,
    pub(super) tls_deadline: Duration,
    pub(super) settings_deadline: Duration,
    pub(super) answer_deadline: Duration,
    max_age: Duration,
    idle: Duration,
    ping_every: Duration,
    ping_answer: Duration,
}

impl PoolConfig {
    /// Makes the default settings.
    #[must_use]
    pub fn new() -> Self {
        let s = Duration::from_secs;
        Self {
            wire: wire::Settings::default(),
            max_streams: 100,
            max_connections: 4096,
            max_connections_per_key: 64,
            tcp_deadline: s(5),
            tls_deadline: s(5),
            settings_deadline: s(5),
            answer_deadline: s(10),
            max_age: s(24 * 3600),
            idle: s(300),
            ping_every: s(10),
            ping_answer: s(10),
        }
    }

    /// Sets how many tunnels share a connection before another one is opened. Default: 100.
    ///
    /// The peer's own limit counts if it is lower.
    #[must_use]
    pub fn with_max_streams(mut self, streams: NonZeroU32) -> Self {
        self.max_streams = usize::try_from(streams.get()).unwrap_or(usize::MAX);
        self.wire.max_streams = streams.get();
        self
    }

    /// Sets how many connections the pool holds in all, and for one key. Default: 4096, 64.
    ///
    /// When all are in use, idle ones make room, the least recently used first.
    #[must_use]
    pub fn with_max_connections(mut self, total: NonZeroU32, per_key: NonZeroU32) -> Self {
        self.max_connections = usize::try_from(total.get()).unwrap_or(usize::MAX);
        self.max_connections_per_key = usize::try_from(per_key.get()).unwrap_or(usize::MAX);
        self
    }

    /// Sets how many bytes the peer may send ahead, on one stream and on the connection.
    ///
    /// Default: 188 KiB (1 MiB while there are at most 16 tunnels and they carry bulk) and 32 MiB.
    /// The first bounds the speed of one tunnel over a slow path, the second the memory that one
    /// connection can pin. Keep the second at least the first times the number of streams:
    /// otherwise tunnels that nobody reads starve the others.
    #[must_use]
    pub fn with_windows(mut self, stream: u32, connection: u32) -> Self {
        self.wire.windows = wire::windows::Windows::fixed(stream, connection);
        self
    }

    /// Sets the deadline of the TCP connection. Default: 5 s.
    #[must_use]
    pub fn with_tcp_deadline(mut self, deadline: Duration) -> Self {
        self.tcp_deadline = deadline;
        self
    }

    /// Sets the deadline of the TLS handshake. Default: 5 s.
    #[must_use]
    pub fn with_tls_deadline(mut self, deadline: Duration) -> Self {
        self.tls_deadline = deadline;
        self
    }

    /// Sets the deadline of the peer's SETTINGS. Default: 5 s.
    #[must_use]
    pub fn with_settings_deadline(mut self, deadline: Duration) -> Self {
        self.settings_deadline = deadline;
        self
    }

    /// Sets the deadline of the answer to a request. Default: 10 s.
    ///
    /// The peer connects to the application before it answers.
    #[must_use]
    pub fn with_answer_deadline(mut self, deadline: Duration) -> Self {
        self.answer_deadline = deadline;
        self
    }

    /// Sets after which time without a tunnel a connection is closed. Default: 5 min.
    #[must_use]
    pub fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Sets the time between PINGs (±20 %) and until one must be answered. Default: 10 s each.
    #[must_use]
    pub fn with_ping(mut self, every: Duration, answer: Duration) -> Self {
        self.ping_every = every;
        self.ping_answer = answer;
        self
    }

    /// Sets how long a connection takes new tunnels. Default: 24 h.
    ///
    /// The peer's certificate ends it in any case.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// The timers of a connection whose peer's certificate ends after `rest`.
    pub(super) fn times(&self, rest: Duration) -> Times {
        Times {
            settings: self.settings_deadline,
            first_request: None,
            ping_every: jittered(self.ping_every),
            ping_answer: self.ping_answer,
            idle: self.idle,
            age: age_limit(self.max_age, rest),
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self::new()
    }
}
