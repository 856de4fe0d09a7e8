//! What is on the wire: every frame that passes the switch, searched for a marker.
//!
//! The capture is an `AF_PACKET` socket in the switch's namespace, so it sees what a host between
//! the nodes would see. A frame counts once, where it arrives.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt,
            socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use crate::{Space, Step, WorldError, wait::eventually};

/// Port of HBONE.
const HBONE: u16 = 15008;
/// Longest frame: the links carry segments that are cut later, or never.
const FRAME: usize = 128 << 10;
/// `PACKET_OUTGOING`: the same frame was counted where it arrived.
const OUTGOING: u8 = 4;
/// Frames that wait to be read.
const BUFFER: usize = 64 << 20;
/// Longest wait for the frames sent so far.
const SETTLE: Duration = Duration::from_secs(5);

/// Counts of what passed so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Seen {
    /// All frames.
    pub frames: u64,
    /// Frames with the marker in plain text.
    pub marked: u64,
    /// TCP frames to or from port 15008.
    pub hbone: u64,
    /// Bytes of all frames.
    pub bytes: u64,
}

/// A capture on every link of a namespace. It stops when this is dropped.
#[derive(Debug)]
pub struct Sniffer {
    space: Space,
    counts: Arc<Counts>,
    nonce: [u8; 16],
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    frames: AtomicU64,
    marked: AtomicU64,
    hbone: AtomicU64,
    bytes: AtomicU64,
    beacons: AtomicU64,
}

impl Sniffer {
    /// Starts a capture that looks for a marker.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_NET_RAW` in the namespace.
    pub fn start(space: &Space, marker: &str) -> Result<Self, WorldError> {
        let raw = space.enter(open)?;
        let counts = Arc::new(Counts::default());
        let nonce = rand_nonce();
        let search = Search {
            marker: marker.as_bytes().to_vec(),
            nonce,
        };
        let shared = Arc::clone(&counts);
        let thread = thread::Builder::new()
            .name("sniffer".into())
            .spawn(move || watch(&raw, &search, &shared))
            .step("start a capture")?;
        Ok(Self {
            space: space.clone(),
            counts,
            nonce,
            thread: Some(thread),
        })
    }

    /// Returns the counts of everything that was sent before this call.
    ///
    /// Sends a beacon through the same capture and waits until it is seen.
    ///
    /// # Errors
    ///
    /// Fails when the capture has stopped.
    pub fn seen(&self) -> Result<Seen, WorldError> {
        let before = self.counts.beacons.load(Ordering::Acquire);
        let beacon = self.space.enter(|| {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).step("make a beacon for the capture")
        })?;
        eventually("the capture's beacon", SETTLE, || {
            let discard = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
            if beacon.send_to(&self.nonce, discard).is_err() {
                // A closed port answers with ICMP, which the next call reports.
                tracing::trace!("nobody takes the beacon");
            }
            (self.counts.beacons.load(Ordering::Acquire) > before).then_some(())
        })?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Seen {
            frames: load(&self.counts.frames),
            marked: load(&self.counts.marked),
            hbone: load(&self.counts.hbone),
            bytes: load(&self.counts.bytes),
        })
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the capture panicked");
        }
    }
}

struct Search {
    marker: Vec<u8>,
    nonce: [u8; 16],
}

fn open() -> Result<OwnedFd, WorldError> {
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .step("open a packet socket")?;
    setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))
        .step("limit the wait for a frame")?;
    // Beyond rmem_max only the machine's root may go; less is a smaller capture, not a failure.
    if setsockopt(&raw, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&raw, sockopt::RcvBuf, &BUFFER).step("enlarge the capture's buffer")?;
    }
    Ok(raw)
}

fn watch(raw: &OwnedFd, search: &Search, counts: &Counts) {
    let mut buffer = vec![0; FRAME];
    while !counts.stop.load(Ordering::Relaxed) {
        match recvfrom::<LinkAddr>(raw.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                let outgoing = from.is_some_and(|from| from.pkttype() == OUTGOING);
                if !outgoing {
                    count(buffer.get(..length).unwrap_or_default(), search, counts);
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => {
                tracing::warn!(%error, "the capture ended");
                return;
            }
        }
    }
}

fn count(frame: &[u8], search: &Search, counts: &Counts) {
    if contains(frame, &search.nonce) {
        counts.beacons.fetch_add(1, Ordering::Release);
        return;
    }
    counts.frames.fetch_add(1, Ordering::Relaxed);
    counts
        .bytes
        .fetch_add(frame.len() as u64, Ordering::Relaxed);
    if contains(frame, &search.marker) {
        counts.marked.fetch_add(1, Ordering::Relaxed);
    }
    if tcp_ports(frame).is_some_and(|ports| ports.contains(&HBONE)) {
        counts.hbone.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the source and destination port of an Ethernet frame with TCP in it.
fn tcp_ports(frame: &[u8]) -> Option<[u16; 2]> {
    const TCP: u8 = 6;
    let packet = frame.get(14..)?;
    let segment = match frame.get(12..14)? {
        [0x08, 0x00] if *packet.get(9)? == TCP => {
            packet.get(usize::from(packet.first()? & 0x0f) * 4..)?
        }
        [0x86, 0xdd] if *packet.get(6)? == TCP => packet.get(40..)?,
        _ => return None,
    };
    let port = |at: usize| {
        Some(u16::from_be_bytes(
            segment.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    Some([port(0)?, port(2)?])
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else {
        return false;
    };
    let mut from = haystack;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        from = from.get(at + 1..).unwrap_or_default();
        if from.starts_with(rest) {
            return true;
        }
    }
    false
}

fn rand_nonce() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let word = || RandomState::new().hash_one(0_u8).to_le_bytes();
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&word());
    nonce[8..].copy_from_slice(&word());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_behind_options_of_ipv4() {
        let _trace = meshwright_testkit::trace();
        let mut frame = vec![0; 14 + 24 + 20];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x46;
        frame[14 + 9] = 6;
        frame[38..42].copy_from_slice(&[0x9c, 0x40, 0x3a, 0xa0]);
        assert_eq!(tcp_ports(&frame), Some([40_000, HBONE]));
        assert_eq!(tcp_ports(&frame[..30]), None, "a cut frame has no ports");
    }

    #[test]
    fn marker_is_found_at_any_place() {
        let _trace = meshwright_testkit::trace();
        assert!(contains(b"aab", b"ab"));
        assert!(!contains(b"aaa", b"ab"));
        assert!(!contains(b"", b"ab"));
    }
}
