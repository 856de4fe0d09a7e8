//! Connections out of a namespace.

use super::options::Liveness;
use crate::fault::Fault;
use crate::netns::{EnterError, Netns};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Settings of a dialed connection.
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until `dial` is called"]
pub struct DialConfig {
    mark: Option<u32>,
    source: Option<IpAddr>,
    liveness: Liveness,
    deadline: Duration,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl DialConfig {
    /// No mark, the kernel's choice of source address, a deadline of 5 s.
    pub const fn new() -> Self {
        Self {
            mark: None,
            source: None,
            liveness: Liveness {
                idle: Duration::from_secs(60),
                interval: Duration::from_secs(10),
                probes: 6,
                user_timeout: Duration::from_secs(120),
            },
            deadline: Duration::from_secs(5),
        }
    }

    /// Marks the packets (`SO_MARK`), so that capture rules let them pass. Needs `CAP_NET_ADMIN`.
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Uses a source address that need not be local: the destination sees the original client.
    ///
    /// The port is chosen at connect time, so one address is not limited to one connection per
    /// free port. Answers must be routed back to this namespace; the capture rules of this crate
    /// do that. Needs `CAP_NET_ADMIN`.
    pub const fn source(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets when a silent peer counts as gone. Default: [`Liveness::default`].
    pub const fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = liveness;
        self
    }

    /// Sets how long connecting may take. Default: 5 s.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Connects to `peer` from inside `netns`.
///
/// `TCP_NODELAY` is on. Cancel safe: dropping the future closes the socket.
///
/// # Errors
///
/// Returns [`DialError`]; no byte was sent, so every failure may be tried again.
pub async fn dial(
    netns: &Netns,
    config: &DialConfig,
    peer: SocketAddr,
) -> Result<TcpStream, DialError> {
    let kind = Type::STREAM.nonblocking();
    let socket = netns
        .run(|| Socket::new(Domain::for_address(peer), kind, Some(Protocol::TCP)))
        .map_err(|source| DialError::Enter { source })?
        .map_err(|source| DialError::Prepare {
            step: "make the socket",
            source,
        })?;
    prepare(&socket, config)?;
    if let Some(source) = config.source {
        borrow_address(&socket, source).map_err(|error| DialError::Source {
            address: source,
            source: error,
        })?;
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    match timeout(config.deadline, socket.connect(peer)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(DialError::Connect { peer, source }),
        Err(_elapsed) => Err(DialError::Timeout {
            peer,
            deadline: config.deadline,
        }),
    }
}

fn prepare(socket: &Socket, config: &DialConfig) -> Result<(), DialError> {
    let step = |step: &'static str| move |source| DialError::Prepare { step, source };
    if let Some(mark) = config.mark {
        socket.set_mark(mark).map_err(step("set the mark"))?;
    }
    socket
        .set_tcp_nodelay(true)
        .map_err(step("set TCP_NODELAY"))?;
    config
        .liveness
        .set_on(&SockRef::from(socket))
        .map_err(step("set keepalive"))
}

/// Binds to an address that may belong to somebody else, without taking a port yet.
fn borrow_address(socket: &Socket, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => {
            socket.set_ip_transparent_v4(true)?;
            socket.set_freebind_v4(true)?;
        }
        IpAddr::V6(_) => {
            socket.set_ip_transparent_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(address, 0).into())
}

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The peer or the network refused.
    #[error("could not connect to {peer}")]
    Connect {
        /// The address that was dialed.
        peer: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error("could not make a socket in the namespace")]
    Enter {
        /// Why not.
        source: EnterError,
    },
    /// The socket could not be made or set up: descriptors or privileges are missing.
    #[error("could not {step} for a connection")]
    Prepare {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The source address could not be used: `CAP_NET_ADMIN` is missing, or the families differ.
    #[error("could not use {address} as source address")]
    Source {
        /// The address.
        address: IpAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Nobody answered in time: look for a network policy or a wrong route first.
    #[error("{peer} did not answer within {deadline:?}")]
    Timeout {
        /// The address that was dialed.
        peer: SocketAddr,
        /// How long was waited.
        deadline: Duration,
    },
}

impl DialError {
    /// Returns whether the same call may be tried again: no byte was sent, so always.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// Returns whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } => Fault::Peer,
            Self::Enter { .. } | Self::Prepare { .. } | Self::Source { .. } => Fault::Local,
        }
    }
}

/// Keeps the kind of the cause, for interfaces that speak `std::io`.
impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        let kind = match &error {
            DialError::Connect { source, .. }
            | DialError::Prepare { source, .. }
            | DialError::Source { source, .. } => source.kind(),
            DialError::Timeout { .. } => io::ErrorKind::TimedOut,
            DialError::Enter { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
