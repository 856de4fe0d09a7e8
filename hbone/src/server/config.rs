//! Settings of the server's end.

use crate::{
    drain::DrainWatch,
    events::Events,
    lifetime::{FAR, Times, age_limit},
    quotas::Quotas,
    wire,
};
use std::{fmt, sync::Arc, time::Duration};

/// Settings of all connections of a listener; cheap to clone.
#[derive(Clone)]
pub struct ServerConfig {
    pub(super) events: Arc<dyn Events>,
    pub(super) quotas: Option<Quotas>,
    pub(super) drain: Option<DrainWatch>,
    pub(super) wire: wire::Settings,
    pub(super) tls_deadline: Duration,
    pub(super) settings_deadline: Duration,
    first_request: Duration,
    idle: Duration,
    ping_every: Duration,
    ping_answer: Duration,
    max_age: Duration,
}

impl ServerConfig {
    /// Makes the default settings, without quotas and without a drain.
    #[must_use]
    pub fn new(events: Arc<dyn Events>) -> Self {
        Self {
            events,
            quotas: None,
            drain: None,
            wire: wire::Settings::default(),
            tls_deadline: Duration::from_secs(5),
            settings_deadline: Duration::from_secs(5),
            first_request: Duration::from_secs(15),
            idle: Duration::from_secs(300),
            ping_every: Duration::from_secs(10),
            ping_answer: Duration::from_secs(10),
            max_age: Duration::from_secs(24 * 3600),
        }
    }

    /// Counts connections and tunnels per peer identity. Default: not counted.
    #[must_use]
    pub fn with_quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = Some(quotas);
        self
    }

    /// Drains connections when `drain` starts, and closes them when it closes. Default: never.
    ///
    /// Each connection holds a clone of the watch until it has ended.
    #[must_use]
    pub fn with_drain(mut self, drain: DrainWatch) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Sets how many tunnels a peer may have on one connection. Default: 100.
    ///
    /// Clients assume at least 100; memory that one connection may pin grows with it, up to the
    /// connection's window.
    #[must_use]
    pub fn with_max_streams(mut self, streams: u32) -> Self {
        self.wire.max_streams = streams;
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

    /// Sets the deadline between accept and the end of the TLS handshake. Default: 5 s.
    #[must_use]
    pub fn with_tls_deadline(mut self, deadline: Duration) -> Self {
        self.tls_deadline = deadline;
        self
    }

    /// Sets the deadline of the preface, and of SETTINGS after it. Default: 5 s.
    #[must_use]
    pub fn with_settings_deadline(mut self, deadline: Duration) -> Self {
        self.settings_deadline = deadline;
        self
    }

    /// Sets the deadline of the first request. Default: 15 s.
    #[must_use]
    pub fn with_first_request_deadline(mut self, deadline: Duration) -> Self {
        self.first_request = deadline;
        self
    }

    /// Sets after which time without a tunnel a connection is drained. Default: 5 min.
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
    /// It is drained before the peer's certificate ends in any case.
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// The timers of a connection whose peer's certificate ends after `rest`.
    pub(super) fn times(&self, rest: Duration) -> Times {
        Times {
            settings: self.settings_deadline,
            first_request: Some(self.first_request),
            ping_every: jittered(self.ping_every),
            ping_answer: self.ping_answer,
            idle: self.idle,
            age: age_limit(self.max_age, rest),
        }
    }
}

/// Spreads PINGs of many connections: ±20 %.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.min(FAR).mul_f64(rand::random_range(0.8..1.2))
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("wire", &self.wire)
            .field("quotas", &self.quotas)
            .finish_non_exhaustive()
    }
}
