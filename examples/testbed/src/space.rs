//! Network namespaces that have no name: they live as long as somebody holds them.
//!
//! A [`Space`] is an open descriptor of a namespace. Sockets and programs made in it keep it alive
//! too; when the last of them is gone the kernel removes its links, addresses and rules. So
//! nothing is left behind, whatever happens to the process that made it.

use std::{fs, fs::File, net::SocketAddr, os::fd::AsFd, sync::Arc, thread, time::Duration};

use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{Step, WorldError};

/// A network namespace, held open. Clones are the same namespace.
#[derive(Clone, Debug)]
pub struct Space {
    name: Arc<str>,
    file: Arc<File>,
}

impl Space {
    /// Makes an empty namespace. The name is for messages only.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_SYS_ADMIN` in the own user namespace.
    pub fn create(name: &str) -> Result<Self, WorldError> {
        let file = in_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).step(format!("make namespace {name}"))?;
            reuse_waiting_ports();
            File::open("/proc/thread-self/ns/net").step(format!("hold namespace {name}"))
        })?;
        Ok(Self {
            name: name.into(),
            file: Arc::new(file),
        })
    }

    /// Returns the namespace that this thread is in.
    ///
    /// # Errors
    ///
    /// Fails when `/proc` is not mounted.
    pub fn current() -> Result<Self, WorldError> {
        let file = File::open("/proc/thread-self/ns/net").step("open the own namespace")?;
        Ok(Self {
            name: "here".into(),
            file: Arc::new(file),
        })
    }

    /// Returns the name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the descriptor, to hand it over.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_SYS_ADMIN`.
    pub(crate) fn join(&self) -> Result<(), WorldError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .step(format!("enter namespace {}", self.name))
    }

    /// Runs a closure inside, on a thread of its own. What it opens stays inside.
    ///
    /// # Errors
    ///
    /// Fails when the namespace cannot be entered or the closure fails.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, WorldError> + Send,
    ) -> Result<T, WorldError> {
        in_own_thread(|| {
            self.join()?;
            work()
        })
    }

    /// Makes a TCP socket inside.
    ///
    /// # Errors
    ///
    /// Fails when the namespace cannot be entered or the process has no descriptors left.
    pub fn tcp_socket(&self, peer: SocketAddr) -> Result<Socket, WorldError> {
        self.enter(|| {
            Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))
                .step("make a TCP socket")
        })
    }

    /// Listens inside, with `SO_REUSEADDR`.
    ///
    /// # Errors
    ///
    /// Fails when the address is in use or not of this namespace.
    pub fn listen(&self, addr: SocketAddr) -> Result<std::net::TcpListener, WorldError> {
        let socket = self.tcp_socket(addr)?;
        let step = || format!("listen on {addr} in {}", self.name);
        socket.set_reuse_address(true).step(step())?;
        socket.bind(&addr.into()).step(step())?;
        socket.listen(1024).step(step())?;
        Ok(socket.into())
    }

    /// Connects from inside. Reads and writes of the stream have the same deadline each.
    ///
    /// # Errors
    ///
    /// Fails when the peer refuses or does not answer within the deadline. The source is the
    /// [`std::io::Error`].
    pub fn connect(
        &self,
        peer: SocketAddr,
        deadline: Duration,
    ) -> Result<std::net::TcpStream, WorldError> {
        self.connect_from(None, peer, deadline)
    }

    /// Connects from inside, from a chosen local address.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and when the local address cannot be bound.
    pub fn connect_from(
        &self,
        local: Option<SocketAddr>,
        peer: SocketAddr,
        deadline: Duration,
    ) -> Result<std::net::TcpStream, WorldError> {
        let socket = self.tcp_socket(peer)?;
        let step = || format!("connect from {} to {peer}", self.name);
        if let Some(local) = local {
            socket.set_reuse_address(true).step(step())?;
            socket.bind(&SockAddr::from(local)).step(step())?;
        }
        socket
            .connect_timeout(&SockAddr::from(peer), deadline)
            .step(step())?;
        let stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(deadline)).step(step())?;
        stream.set_write_timeout(Some(deadline)).step(step())?;
        stream.set_nodelay(true).step(step())?;
        Ok(stream)
    }
}

/// Lets new connections take ports whose last connection has ended a second ago.
///
/// Thousands of short connections to one address use up the ports otherwise, and what is measured
/// is the kernel's search for a free one: milliseconds instead of microseconds.
fn reuse_waiting_ports() {
    if let Err(error) = fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1") {
        tracing::debug!(%error, "many short connections will be slow");
    }
}

/// Runs a closure on a thread that ends with it: a thread that changed its namespace is not used
/// again.
fn in_own_thread<T: Send>(
    work: impl FnOnce() -> Result<T, WorldError> + Send,
) -> Result<T, WorldError> {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|_panic| Err(WorldError::new("run a thread in a namespace")))
    })
}
