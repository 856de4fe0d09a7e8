//! The agent's end over a socket.

mod connection;
mod registry;

use super::message::{LONGEST, Order, PodInfo, write_request};
use super::wire::new_socket;
use crate::events::Events;
use crate::netns::Netns;
use crate::socket::{Acceptor, RawAccept};
use crate::sys;
use connection::serve;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, UnixAddr, bind, connect, getsockopt, listen, sockopt};
use registry::Registry;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Settings of a [`Server`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// How long a proxy may take to say hello, and for each acknowledgement. Default: 5 s.
    pub answer_deadline: Duration,
    /// Proxies connected at the same time at most. Default: 8.
    pub most_proxies: usize,
    /// Messages that may wait for one proxy before its connection is given up. Default: 100.
    pub most_waiting: usize,
    /// The only user whose processes may connect. Default: whoever may open the socket file,
    /// which is the server's own user.
    pub user: Option<u32>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            answer_deadline: Duration::from_secs(5),
            most_proxies: 8,
            most_waiting: 100,
            user: None,
        }
    }
}

/// What became of a message to every connected proxy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// Proxies that acknowledged.
    pub acknowledged: usize,
    /// Texts of the proxies that refused.
    pub refused: Vec<String>,
    /// Proxies that did not answer in time or were lost; their connections are closed, and they
    /// get the pod with their next snapshot.
    pub lost: usize,
}

/// A pod that no proxy could be told of.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// The pod has no UID.
    #[error("the pod has no uid")]
    MissingUid,
    /// UID and names together do not fit into a packet that Istio's proxy reads.
    #[error("{0} bytes of uid and names do not fit into a message")]
    TooLong(usize),
}

impl Unsendable {
    /// Returns whether the same call may be tried again; it would fail again.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// Returns whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> crate::Fault {
        crate::Fault::Caller
    }
}

impl From<Unsendable> for io::Error {
    fn from(error: Unsendable) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The agent's end: remembers the node's pods and hands them to every proxy that connects.
///
/// Each connection has one task, owned by this value: dropping it closes every connection, and the
/// socket file goes. Proxies go on with the pods they have.
pub struct Server {
    path: PathBuf,
    /// Device and inode of our socket file.
    file: (u64, u64),
    registry: Arc<Registry>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Listens on a Unix socket; call it within a tokio runtime.
    ///
    /// The file is for the server's own user only. A file that a dead server left is replaced.
    ///
    /// # Errors
    ///
    /// Returns `AddrInUse` when another server listens on the path or the path is no socket, and
    /// the kernel's answer otherwise.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn bind(
        path: impl Into<PathBuf>,
        config: ServerConfig,
        events: Arc<dyn Events>,
    ) -> io::Result<Self> {
        let path = path.into();
        let listener = open(&path)?;
        let file = identity(&path)?;
        let registry = Arc::new(Registry::new(config, events));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_for_ever(listener, Arc::clone(&registry)));
        Ok(Self {
            path,
            file,
            registry,
            _tasks: tasks,
        })
    }

    /// Hands a pod to every connected proxy, and to each one that connects later.
    ///
    /// Waits for the acknowledgements, at most the deadline for each message that waits before
    /// it. Dropping the future does not take the pod back. With no proxy connected nothing is
    /// delivered, and that is no error.
    ///
    /// # Errors
    ///
    /// Returns [`Unsendable`] when the pod cannot be described; nothing was sent.
    pub async fn add(
        &self,
        uid: &str,
        info: PodInfo,
        netns: Netns,
    ) -> Result<Delivery, Unsendable> {
        if uid.is_empty() {
            return Err(Unsendable::MissingUid);
        }
        let uid = uid.to_owned();
        let order = Order::Add { uid, info, netns };
        let length = write_request(&order).len();
        if length > LONGEST {
            return Err(Unsendable::TooLong(length));
        }
        Ok(self.registry.broadcast(order).await)
    }

    /// Names a pod whose namespace is unknown: proxies that connect later go on serving it.
    ///
    /// Connected proxies are not told: the protocol has this only in snapshots.
    pub fn keep(&self, uid: &str) {
        if !uid.is_empty() && uid.len() < LONGEST / 2 {
            self.registry.keep(uid.to_owned());
        }
    }

    /// Takes a pod away from every connected proxy; waits as [`add`](Self::add) does.
    pub async fn del(&self, uid: &str) -> Delivery {
        if uid.is_empty() {
            return Delivery::default();
        }
        let uid = uid.to_owned();
        self.registry.broadcast(Order::Del { uid }).await
    }

    /// Counts the proxies that have acknowledged their whole snapshot.
    #[must_use]
    pub fn proxies(&self) -> usize {
        self.registry.synced()
    }

    /// Waits until `wanted` holds for [`proxies`](Self::proxies). Cancel safe.
    pub async fn proxies_until(&self, wanted: impl FnMut(usize) -> bool + Send) {
        self.registry.synced_until(wanted).await;
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A successor may have put its own file there.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("path", &self.path)
            .field("proxies", &self.proxies())
            .finish_non_exhaustive()
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn open(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let address = UnixAddr::new(path)?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        // A server that is only slow lets us wait (EAGAIN): it is alive.
        let connected = connect(new_socket()?.as_raw_fd(), &address);
        if !metadata.file_type().is_socket() || connected != Err(Errno::ECONNREFUSED) {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        fs::remove_file(path)?;
    }
    let socket = new_socket()?;
    bind(socket.as_raw_fd(), &address)?;
    // Nobody can connect before `listen`, so there is no moment with other permissions.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    sys::watch(socket, Interest::READABLE)
}

async fn accept_for_ever(listener: AsyncFd<OwnedFd>, registry: Arc<Registry>) {
    let mut acceptor = Acceptor::new(listener, Arc::clone(registry.events()));
    let mut connections = JoinSet::new();
    loop {
        let socket = tokio::select! {
            accepted = acceptor.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        if connections.len() >= registry.config().most_proxies {
            tracing::warn!("too many proxies are connected");
        } else if !is_welcome(&socket, registry.config().user) {
            tracing::warn!("a process of another user tried to connect");
        } else {
            connections.spawn(serve(socket, Arc::clone(&registry)));
        }
    }
}

impl RawAccept for AsyncFd<OwnedFd> {
    type Connection = OwnedFd;

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        loop {
            let mut ready = ready!(self.poll_read_ready(cx))?;
            match ready.try_io(|fd| sys::accept(fd.get_ref())) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => (),
            }
        }
    }
}

fn is_welcome(socket: &OwnedFd, user: Option<u32>) -> bool {
    let Some(user) = user else { return true };
    getsockopt(socket, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == user)
}
