//! Socket options that listeners and dialed sockets share.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;

/// When a silent peer counts as gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Liveness {
    /// Silence before the first probe; zero switches probes off. Default: 60 s.
    pub idle: Duration,
    /// Time between probes. Default: 10 s.
    pub interval: Duration,
    /// Unanswered probes before the connection fails. Default: 6.
    pub probes: u32,
    /// Limit for sent data that nobody acknowledges (`TCP_USER_TIMEOUT`); zero leaves
    /// it to the kernel. Default: 120 s.
    pub user_timeout: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            probes: 6,
            user_timeout: Duration::from_secs(120),
        }
    }
}

impl Liveness {
    /// Sets the options on a socket; accepted sockets inherit them from their listener.
    pub(crate) fn set_on(self, socket: &SockRef<'_>) -> io::Result<()> {
        if self.idle.is_zero() {
            socket.set_keepalive(false)?;
        } else {
            let keepalive = TcpKeepalive::new()
                .with_time(self.idle)
                .with_interval(self.interval)
                .with_retries(self.probes);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        socket.set_tcp_user_timeout(Some(self.user_timeout))
    }
}
