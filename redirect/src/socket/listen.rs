//! Listeners inside a namespace.

use super::options::Liveness;
use crate::diag::foreign_listeners;
use crate::fault::Fault;
use crate::netns::{EnterError, Netns};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

/// Whether other processes may listen on the same port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PortSharing {
    /// Nobody else may.
    Exclusive,
    /// Other processes of the same user may (`SO_REUSEPORT`): a successor starts before its
    /// predecessor ends. See [`ReusePortHandover`](super::ReusePortHandover).
    ///
    /// # Danger
    ///
    /// The kernel asks for the same user only. A process in the pod that runs under the proxy's
    /// user could take part of the connections. A listener with a [mark](ListenConfig::mark) does
    /// not open beside one without it; who comes later is shown by
    /// [`foreign_listeners`](super::foreign_listeners).
    Shared,
}

/// Whether a listener's connections may use addresses that are not local (`IP_TRANSPARENT`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Transparency {
    /// Try, and go on without where `CAP_NET_ADMIN` is missing.
    BestEffort,
    /// Leave it off.
    Off,
    /// Fail where it cannot be set.
    Require,
}

/// Settings of a listener; start from [`wildcard`](Self::wildcard) or [`on`](Self::on).
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until `listen` is called"]
pub struct ListenConfig {
    address: Bind,
    sharing: PortSharing,
    transparency: Transparency,
    backlog: u16,
    mark: Option<u32>,
    liveness: Option<Liveness>,
}

#[derive(Clone, Copy, Debug)]
enum Bind {
    Address(SocketAddr),
    Wildcard(u16),
}

impl ListenConfig {
    /// Listens on every address of both families with one socket.
    ///
    /// Where the kernel has no IPv6 the listener is IPv4 only.
    pub const fn wildcard(port: u16) -> Self {
        Self::new(Bind::Wildcard(port))
    }

    /// Listens on one address.
    pub const fn on(address: SocketAddr) -> Self {
        Self::new(Bind::Address(address))
    }

    const fn new(address: Bind) -> Self {
        Self {
            address,
            sharing: PortSharing::Exclusive,
            transparency: Transparency::Off,
            backlog: 4096,
            mark: None,
            liveness: None,
        }
    }

    /// Sets whether the port is shared. Default: exclusive.
    pub const fn sharing(mut self, sharing: PortSharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Sets whether connections are transparent. Default: off.
    pub const fn transparency(mut self, transparency: Transparency) -> Self {
        self.transparency = transparency;
        self
    }

    /// Sets how many connections may wait to be accepted. Default: 4096.
    ///
    /// The kernel lowers it to `net.core.somaxconn` of the namespace.
    pub const fn backlog(mut self, connections: u16) -> Self {
        self.backlog = connections;
        self
    }

    /// Marks the listener; connections inherit the mark. Default: none. Needs `CAP_NET_ADMIN`.
    pub const fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// Sets when silent peers count as gone; connections inherit it. Default: the kernel's.
    pub const fn liveness(mut self, liveness: Liveness) -> Self {
        self.liveness = Some(liveness);
        self
    }
}

/// A listener and what it turned out to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listener {
    /// The socket, registered with the runtime on which [`listen`] ran.
    pub socket: TcpListener,
    /// Whether its connections may use addresses that are not local.
    pub transparent: bool,
}

/// Opens a listener inside `netns`; call it within the tokio runtime that will accept.
///
/// `SO_REUSEADDR` is always set, so that connections of a predecessor that linger do not block
/// the port. Connections inherit `TCP_NODELAY`, mark and liveness.
///
/// # Errors
///
/// Returns [`ListenError`] naming the step, or who else shares the port; nothing stays open.
///
/// # Panics
///
/// Panics outside of a tokio runtime.
pub fn listen(netns: &Netns, config: &ListenConfig) -> Result<Listener, ListenError> {
    match config.address {
        Bind::Address(address) => open(netns, config, address),
        Bind::Wildcard(port) => match open(netns, config, (Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(error) if error.is_family_missing() => {
                open(netns, config, (Ipv4Addr::UNSPECIFIED, port).into())
            }
            result => result,
        },
    }
}

fn open(
    netns: &Netns,
    config: &ListenConfig,
    address: SocketAddr,
) -> Result<Listener, ListenError> {
    let step = |step: &'static str| {
        move |source| ListenError::Prepare {
            address,
            step,
            source,
        }
    };
    let kind = Type::STREAM.nonblocking();
    let socket = netns
        .run(|| Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP)))
        .map_err(|source| ListenError::Enter { source })?
        .map_err(step("make the socket"))?;
    if address.is_ipv6() {
        let dual = address.ip().is_unspecified();
        socket.set_only_v6(!dual).map_err(step("choose families"))?;
    }
    socket
        .set_reuse_address(true)
        .map_err(step("set SO_REUSEADDR"))?;
    if config.sharing == PortSharing::Shared {
        socket
            .set_reuse_port(true)
            .map_err(step("set SO_REUSEPORT"))?;
    }
    if let Some(mark) = config.mark {
        socket.set_mark(mark).map_err(step("set the mark"))?;
    }
    let transparent = set_transparent(&socket, config.transparency, address)
        .map_err(step("set IP_TRANSPARENT"))?;
    socket
        .set_tcp_nodelay(true)
        .map_err(step("set TCP_NODELAY"))?;
    if let Some(liveness) = config.liveness {
        liveness
            .set_on(&SockRef::from(&socket))
            .map_err(step("set keepalive"))?;
    }
    socket.bind(&address.into()).map_err(step("bind"))?;
    if let (PortSharing::Shared, Some(mark)) = (config.sharing, config.mark) {
        refuse_strangers(netns, address, mark)?;
    }
    socket
        .listen(i32::from(config.backlog))
        .map_err(step("listen"))?;
    let socket = TcpListener::from_std(socket.into()).map_err(step("register with the runtime"))?;
    Ok(Listener {
        socket,
        transparent,
    })
}

/// Fails where a socket without our mark waits on the port. Kernels without socket diagnostics
/// cannot tell; not to serve the pod for that would be worse.
fn refuse_strangers(netns: &Netns, address: SocketAddr, mark: u32) -> Result<(), ListenError> {
    let strangers = match foreign_listeners(netns, address.port(), mark) {
        Ok(strangers) => strangers,
        Err(error) => {
            tracing::warn!(%address, %error, "cannot see who shares the port");
            return Ok(());
        }
    };
    match strangers.first() {
        Some(stranger) => Err(ListenError::Foreign {
            address: stranger.address,
            uid: stranger.uid,
            inode: stranger.inode,
        }),
        None => Ok(()),
    }
}

fn set_transparent(
    socket: &Socket,
    transparency: Transparency,
    address: SocketAddr,
) -> io::Result<bool> {
    if transparency == Transparency::Off {
        return Ok(false);
    }
    let result = if address.is_ipv6() {
        socket.set_ip_transparent_v6(true)
    } else {
        socket.set_ip_transparent_v4(true)
    };
    match result {
        Ok(()) => Ok(true),
        Err(_missing) if transparency == Transparency::BestEffort => Ok(false),
        Err(error) => Err(error),
    }
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The namespace could not be entered.
    #[error("could not open a listener in the namespace")]
    Enter {
        /// Why not.
        source: EnterError,
    },
    /// A socket that is no proxy's waits on the port and would get part of its connections: look
    /// for the process in the pod that has it open.
    #[error("user {uid} listens on {address} with a socket that is no proxy's (inode {inode})")]
    Foreign {
        /// Where it listens.
        address: SocketAddr,
        /// Its user.
        uid: u32,
        /// Its number: `/proc/PID/fd/*` of its owner names it.
        inode: u32,
    },
    /// A step failed. For `bind` look at who listens there already.
    #[error("could not {step} for a listener on {address}")]
    Prepare {
        /// The address to listen on.
        address: SocketAddr,
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl ListenError {
    /// Returns whether the same call may be tried again: nothing stays open, so always.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// Returns whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Local
    }

    /// Whether another process holds the address, alone or willing to share it.
    #[must_use]
    pub fn is_address_in_use(&self) -> bool {
        match self {
            Self::Foreign { .. } => true,
            Self::Prepare { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Enter { .. } => false,
        }
    }

    fn is_family_missing(&self) -> bool {
        match self {
            Self::Prepare { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ),
            Self::Enter { .. } | Self::Foreign { .. } => false,
        }
    }
}
