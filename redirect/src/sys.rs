//! The only place with `unsafe`: what no safe wrapper offers as it is needed here.
//!
//! `ioctl(NS_GET_NSTYPE)` has no wrapper at all. `recvmsg` has several, but each of them either
//! leaks the received descriptors when control data was truncated or hands them out as plain
//! numbers; here every descriptor is owned before anything can fail. The same goes for `accept`.
//! tokio lets the caller vouch for what it watches.
#![expect(
    unsafe_code,
    reason = "raw system calls; each block says why it is sound"
)]

use nix::sys::socket::{SockFlag, accept4};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `NS_GET_NSTYPE` of `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Most descriptors that one message may carry in (`SCM_MAX_FD` of the kernel).
///
/// The control buffer has room for all of them, so none can be cut off unseen.
const MAX_DESCRIPTORS: usize = 253;

/// Asks which kind of namespace `fd` refers to: one of the `CLONE_NEW*` values.
///
/// # Errors
///
/// Returns the kernel's answer when `fd` is no namespace.
pub(crate) fn namespace_type(fd: impl AsFd) -> io::Result<libc::c_int> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the request takes no argument and writes no memory; `fd` is open while it is borrowed.
    let kind = unsafe { libc::ioctl(fd, NS_GET_NSTYPE) };
    if kind < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(kind)
}

/// One packet from a `SOCK_SEQPACKET` socket.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Bytes written to the caller's buffer; 0 means that the peer closed.
    pub(crate) length: usize,
    /// Descriptors that came with it, close-on-exec.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether data or control data did not fit.
    pub(crate) truncated: bool,
}

/// Control data of `recvmsg`, aligned as the kernel's header structure.
#[repr(C)]
struct Control {
    _align: [libc::cmsghdr; 0],
    bytes: [MaybeUninit<u8>; Self::LENGTH],
}

impl Control {
    /// Room for the largest legal list of descriptors and one more header.
    const LENGTH: usize = 64 + MAX_DESCRIPTORS * size_of::<RawFd>();
}

/// Receives one packet with its descriptors; never waits.
///
/// # Errors
///
/// Returns the kernel's answer, `WouldBlock` when there is no packet.
pub(crate) fn receive_packet(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut control = Control {
        _align: [],
        bytes: [MaybeUninit::uninit(); Control::LENGTH],
    };
    let mut slice = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` is plain data; all zeroes is a valid value of it.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.as_mut_ptr().cast();
    header.msg_controllen = Control::LENGTH;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `header` points at `slice` and `control`, which outlive the call, with their true lengths.
    let received = unsafe { libc::recvmsg(fd, &raw mut header, flags) };
    let Ok(length) = usize::try_from(received) else {
        return Err(io::Error::last_os_error());
    };
    Ok(Packet {
        length,
        descriptors: take_descriptors(&header),
        truncated: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
    })
}

/// Accepts a connection, close-on-exec and never blocking.
///
/// The safe wrapper hands out a plain number, which somebody could forget to close.
///
/// # Errors
///
/// Returns the kernel's answer, `WouldBlock` when nobody waits.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_fd().as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made `fd` for this call and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers a descriptor with the tokio runtime in which this is called.
///
/// # Errors
///
/// Returns the runtime's answer; the descriptor is closed then.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned and moves in, and nothing replaces what is inside.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(watched?)
}

/// Takes ownership of every descriptor that the kernel installed for this message.
fn take_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut owned = Vec::new();
    // SAFETY: the kernel filled `header` and its control buffer; the macro stays within both.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: `next` came from the CMSG macros, so it points at a whole header; it may be unaligned.
        let control = unsafe { ptr::read_unaligned(next) };
        if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic on a length.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = control.cmsg_len.saturating_sub(head) / size_of::<RawFd>();
            // SAFETY: the data of a control message begins right behind its header.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: `index` is below the count that the kernel gave for this control message.
                let place = unsafe { data.add(index) };
                // SAFETY: `place` is inside the control message; no alignment is assumed.
                let fd = unsafe { ptr::read_unaligned(place) };
                // SAFETY: the kernel installed `fd` for this message and nobody else knows its number.
                owned.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: `header` and `next` are the pair that the macro expects.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::{namespace_type, receive_packet};
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
    };
    use std::fs::File;
    use std::io::{self, IoSlice};
    use std::os::fd::{AsRawFd, OwnedFd};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .unwrap()
    }

    fn send(to: &OwnedFd, bytes: &[u8], fds: &[i32]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let control: &[_] = if fds.is_empty() { &[] } else { &rights };
        sendmsg::<()>(
            to.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
    }

    #[test]
    fn network_namespace_is_told_from_other_namespaces_and_files() {
        let _trace = meshwright_testkit::trace();
        let net = File::open("/proc/self/ns/net").unwrap();
        assert_eq!(namespace_type(&net).unwrap(), libc::CLONE_NEWNET);
        let mount = File::open("/proc/self/ns/mnt").unwrap();
        assert_eq!(namespace_type(&mount).unwrap(), libc::CLONE_NEWNS);
        let file = File::open("/dev/null").unwrap();
        assert!(
            namespace_type(&file).is_err(),
            "a device is not a namespace"
        );
    }

    #[test]
    fn packet_arrives_with_its_descriptors_close_on_exec() {
        let _trace = meshwright_testkit::trace();
        let (left, right) = pair();
        let null = File::open("/dev/null").unwrap();
        send(&left, b"two", &[null.as_raw_fd(), null.as_raw_fd()]);
        let mut buffer = [0_u8; 16];
        let packet = receive_packet(&right, &mut buffer).unwrap();
        assert_eq!(
            (&buffer[..packet.length], packet.descriptors.len()),
            (&b"two"[..], 2)
        );
        assert!(!packet.truncated);
        for fd in &packet.descriptors {
            let flags = FdFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFD).unwrap());
            assert!(
                flags.contains(FdFlag::FD_CLOEXEC),
                "received descriptors do not pass exec"
            );
        }
    }

    #[test]
    fn long_packet_says_that_it_was_truncated() {
        let _trace = meshwright_testkit::trace();
        let (left, right) = pair();
        send(&left, &[7; 32], &[]);
        let mut buffer = [0_u8; 16];
        let packet = receive_packet(&right, &mut buffer).unwrap();
        assert_eq!((packet.length, packet.truncated), (16, true));
    }

    #[test]
    fn empty_socket_does_not_block_and_closed_one_gives_length_zero() {
        let _trace = meshwright_testkit::trace();
        let (left, right) = pair();
        let mut buffer = [0_u8; 16];
        let error = receive_packet(&right, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(left);
        assert_eq!(receive_packet(&right, &mut buffer).unwrap().length, 0);
    }
}
