//! Packets over a Unix socket of the kind `SOCK_SEQPACKET`.

use crate::sys::{Packet, receive_packet, watch};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect,
    sendmsg, shutdown, socket,
};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for one packet: more than any message has, so that truncation means nonsense.
pub(super) const BUFFER: usize = 16 * 1024;

/// A connection that keeps packets apart.
#[derive(Debug)]
pub(super) struct Packets {
    fd: AsyncFd<OwnedFd>,
}

/// Makes a socket that is closed on exec and never blocks.
pub(super) fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        flags,
        None,
    )?)
}

impl Packets {
    /// Connects; a Unix socket needs no waiting.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Self::new(socket)
    }

    /// Registers an open connection with the runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: watch(socket, Interest::READABLE | Interest::WRITABLE)?,
        })
    }

    /// Waits for a packet. Cancel safe. Length 0 means that the other end closed.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Packet> {
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| receive_packet(fd.get_ref(), buffer)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
                Ok(result) => return result,
                Err(_would_block) => (),
            }
        }
    }

    /// Sends a packet if there is room for it.
    pub(super) fn try_send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let raw = fd.map(|fd| [fd.as_raw_fd()]);
        let rights = raw.as_ref().map(|raw| [ControlMessage::ScmRights(raw)]);
        let control = rights.as_ref().map_or(&[] as &[_], |rights| rights);
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let slices = [IoSlice::new(bytes)];
        loop {
            let socket = self.fd.get_ref().as_raw_fd();
            match sendmsg::<()>(socket, &slices, control, flags, None) {
                Ok(_all) => return Ok(()),
                Err(Errno::EINTR) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends a packet, waiting for room.
    pub(super) async fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        loop {
            let mut ready = self.fd.writable().await?;
            match ready.try_io(|_| self.try_send(bytes, fd)) {
                Ok(result) => return result,
                Err(_would_block) => (),
            }
        }
    }

    /// Ends the connection for both ends, whoever still holds it.
    pub(super) fn close(&self) {
        // Fails only if it is closed already.
        let _closed = shutdown(self.fd.get_ref().as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}
