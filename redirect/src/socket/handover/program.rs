//! The classic BPF programs of a handover.

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};
use std::io;
use tokio::net::TcpListener;

/// Upper bits that tell a probe from all other marks.
const TAG: u32 = 0xa5c0_0000;
/// Low bits that the capture rules look at.
const LOW: u32 = 0xfff;

pub(super) const fn probe_mark(low: u32, index: u32) -> u32 {
    TAG | ((index & 0xff) << 12) | (low & LOW)
}

/// `SKF_AD_OFF + SKF_AD_MARK`: where classic BPF finds a packet's mark.
const MARK: u32 = (-0x1000_i32 + 20).cast_unsigned();

const fn instruction(code: u16, k: u32, when_true: u8, when_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: when_true,
        jf: when_false,
        k,
    }
}

/// `ret #k`.
pub(super) const fn ret(k: u32) -> libc::sock_filter {
    instruction(0x06, k, 0, 0)
}

/// Sends probes to the index in their mark and everything else to `meanwhile`.
pub(super) const fn probe_program(low: u32, meanwhile: u32) -> [libc::sock_filter; 8] {
    [
        instruction(0x20, MARK, 0, 0),              // ld #mark
        instruction(0x54, !(0xff << 12), 0, 0),     // and #~index
        instruction(0x15, TAG | (low & LOW), 0, 4), // jeq #probe, next, last
        instruction(0x20, MARK, 0, 0),              // ld #mark
        instruction(0x74, 12, 0, 0),                // rsh #12
        instruction(0x54, 0xff, 0, 0),              // and #0xff
        instruction(0x16, 0, 0, 0),                 // ret a
        ret(meanwhile),
    ]
}

/// Makes a program deal the connections of the whole group.
pub(super) fn attach(listener: &TcpListener, program: &[libc::sock_filter]) -> io::Result<()> {
    let mut program = program.to_vec();
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_mut_ptr(),
    };
    setsockopt(listener, sockopt::AttachReusePortCbpf, &filter)?;
    Ok(())
}

/// Drops every packet that would begin a connection, for this one listener. Its peer sends it
/// again after a second; handshakes that have begun go on.
pub(super) fn stop_listening(listener: &TcpListener) -> io::Result<()> {
    // A socket's filter sees the packet from its TCP header on (RFC 9293 3.1: flags in byte 13).
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(0x30, 0, 0, 13),          // ldb [13]
        SockFilter::new(0x45, 0, 1, 0x02),        // jset #SYN, next, last
        SockFilter::new(0x06, 0, 0, 0),           // ret #0: drop
        SockFilter::new(0x06, 0, 0, 0x0004_0000), // ret #262144: take the whole
    ])
}
