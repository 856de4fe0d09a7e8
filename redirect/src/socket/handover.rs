//! Leaving a port that a successor shares, without losing a connection.
//!
//! With `SO_REUSEPORT` the kernel deals new connections to all listeners of a port. A listener
//! that closes resets what waits in its queue, so a plain close loses connections under load. The
//! way out has three steps: steer every new connection to another socket of the group, empty our
//! own queue, close.
//!
//! Steering is a constant classic BPF program on the group (`SO_ATTACH_REUSEPORT_CBPF`) that
//! answers with a socket's index. An index that does not exist makes the kernel deal as before,
//! so a successor that dies meanwhile leaves us serving. The group's order is not visible: our own
//! index is found with one connection through loopback for each index, whose mark another program
//! sends there: the one that arrives here tells. Siblings see a connection from loopback to their
//! own port that is reset at once.

use super::{DialConfig, dial, listeners, set_linger_zero};
use crate::netns::Netns;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Settings of a handover.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandoverConfig {
    /// The queue must stay empty this long before the listener closes. Default: 500 ms.
    ///
    /// A client whose handshake began before the handover and takes longer than this is lost.
    pub quiet: Duration,
    /// The listener closes after this long, whatever arrives. Default: 5 s.
    pub limit: Duration,
    /// Low 12 bits of the mark of the connection that finds our index, so that capture rules let
    /// it pass. Default: `0x539`.
    pub mark: u32,
}

impl Default for HandoverConfig {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(500),
            limit: Duration::from_secs(5),
            mark: 0x539,
        }
    }
}

/// Where new connections went during a handover.
#[derive(Debug)]
#[non_exhaustive]
pub enum Steering {
    /// Nobody shares the port: after the close the kernel refuses connections.
    Alone,
    /// Steering failed, so connections that came in the last moment may be lost.
    Failed(io::Error),
    /// To another socket of the group.
    Steered {
        /// Our index in the group.
        own: u32,
        /// The index that got the connections.
        successor: u32,
    },
}

/// What a handover did.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandoverReport {
    /// Connections that were taken from our queue and passed on to the caller.
    pub accepted: u64,
    /// Where new connections went.
    pub steering: Steering,
    /// Whether the queue stayed empty; `false` when the limit ended the handover.
    pub quiet: bool,
}

/// Closes a listener on a shared port without losing connections; see the [module](super).
///
/// # Danger
///
/// Connections go to *any* other socket of the group, and the kernel admits every process of the
/// same user. Where a pod may run under the proxy's user, look at [`listeners`] first.
#[derive(Debug)]
pub struct ReusePortHandover {
    netns: Netns,
    config: HandoverConfig,
}

impl ReusePortHandover {
    /// Prepares the handover of listeners in `netns`.
    #[must_use]
    pub const fn new(netns: Netns, config: HandoverConfig) -> Self {
        Self { netns, config }
    }

    /// Steers new connections away, hands what waits in the queue to `connection`, then closes.
    ///
    /// Works for the older and for the newer of two processes, and for more than two. When
    /// connections still arrive a while after steering, for instance because another process
    /// left too and the order changed, it steers again. Dropping the future closes the listener at
    /// once.
    pub async fn drain(
        &self,
        listener: TcpListener,
        mut connection: impl FnMut(TcpStream, SocketAddr) + Send,
    ) -> HandoverReport {
        let end = Instant::now() + self.config.limit;
        let mut accepted = 0;
        let mut count = |stream, peer| {
            accepted += 1;
            connection(stream, peer);
        };
        let mut steering = Steering::Alone;
        let quiet = loop {
            steering = match self.steer(&listener, &steering, &mut count).await {
                Ok(steering) => steering,
                Err(error) => Steering::Failed(error),
            };
            match self.empty(&listener, end, &mut count).await {
                Emptied::Quiet => break true,
                Emptied::TooLate => break false,
                Emptied::StillBusy => (),
            }
        };
        HandoverReport {
            accepted,
            steering,
            quiet,
        }
    }

    /// Accepts until nothing came for the quiet time.
    async fn empty(
        &self,
        listener: &TcpListener,
        end: Instant,
        connection: &mut (dyn FnMut(TcpStream, SocketAddr) + Send),
    ) -> Emptied {
        let settled = Instant::now() + SETTLING;
        loop {
            let now = Instant::now();
            if now >= end {
                return Emptied::TooLate;
            }
            let until = end.min(now + self.config.quiet);
            match timeout_at(until, listener.accept()).await {
                Ok(Ok((stream, peer))) => {
                    connection(stream, peer);
                    if Instant::now() > settled {
                        return Emptied::StillBusy;
                    }
                }
                // Exhaustion of descriptors: others end meanwhile.
                Ok(Err(_transient)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(_elapsed) if until < end => return Emptied::Quiet,
                Err(_elapsed) => return Emptied::TooLate,
            }
        }
    }

    async fn steer(
        &self,
        listener: &TcpListener,
        before: &Steering,
        connection: &mut (dyn FnMut(TcpStream, SocketAddr) + Send),
    ) -> io::Result<Steering> {
        let address = listener.local_addr()?;
        // Without socket diagnostics the usual case is assumed: one predecessor, one successor.
        let members = listeners(&self.netns, address.port()).map_or(2, |group| {
            group.iter().filter(|l| l.address == address).count()
        });
        if members < 2 {
            return Ok(Steering::Alone);
        }
        // Until the new place is known, others keep going where they went.
        let meanwhile = match before {
            Steering::Steered { successor, .. } => *successor,
            Steering::Alone | Steering::Failed(_) => u32::MAX,
        };
        attach(listener, &probe_program(self.config.mark, meanwhile))?;
        let members = u32::try_from(members.min(64)).unwrap_or(64);
        let own = self.own_index(listener, members, connection).await?;
        let newest = members - 1;
        let successor = if own == newest { own - 1 } else { newest };
        attach(listener, &[ret(successor)])?;
        Ok(Steering::Steered { own, successor })
    }

    /// Finds our place in the group: sends a connection to each place and sees which arrives.
    async fn own_index(
        &self,
        listener: &TcpListener,
        members: u32,
        connection: &mut (dyn FnMut(TcpStream, SocketAddr) + Send),
    ) -> io::Result<u32> {
        let mut dialing = JoinSet::new();
        for index in 0..members {
            let target = listener.local_addr()?;
            dialing.spawn(probe(self.netns.clone(), target, self.config.mark, index));
        }
        let mut probes: Vec<Probe> = Vec::new();
        // Connections from loopback that may turn out to be probes.
        let mut unsure: Vec<(TcpStream, SocketAddr)> = Vec::new();
        let end = Instant::now() + FINDING;
        let found = loop {
            let is_probe =
                |probe: &&Probe| unsure.iter().any(|(_, peer)| peer.port() == probe.port);
            if let Some(probe) = probes.iter().find(is_probe) {
                break Ok(probe.index);
            }
            tokio::select! {
                Some(dialed) = dialing.join_next() => probes.extend(dialed.ok().flatten()),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) if peer.ip().to_canonical().is_loopback() => {
                        unsure.push((stream, peer));
                    }
                    Ok((stream, peer)) => connection(stream, peer),
                    Err(error) => break Err(error),
                },
                () = sleep_until(end) => break Err(io::ErrorKind::TimedOut.into()),
            }
        };
        let ports: Vec<_> = probes.iter().map(|probe| probe.port).collect();
        for (stream, peer) in unsure {
            if !ports.contains(&peer.port()) {
                connection(stream, peer);
            }
        }
        found
    }
}

/// How emptying a queue ended.
enum Emptied {
    Quiet,
    StillBusy,
    TooLate,
}

/// Connections that arrive this long after steering began their handshake before it, or show
/// that the order has changed.
const SETTLING: Duration = Duration::from_millis(250);

/// Longest search for our place.
const FINDING: Duration = Duration::from_secs(1);

/// A connection to one place of the group.
struct Probe {
    index: u32,
    port: u16,
    /// Reset when dropped.
    _stream: TcpStream,
}

/// Connects to the listener through loopback with the mark that names `index`.
async fn probe(netns: Netns, target: SocketAddr, mark: u32, index: u32) -> Option<Probe> {
    let config = DialConfig::new()
        .mark(probe_mark(mark, index))
        .deadline(FINDING);
    let mut target = target;
    let wildcard = target.ip().is_unspecified();
    if wildcard && target.is_ipv6() {
        target.set_ip(Ipv6Addr::LOCALHOST.into());
    }
    let mut dialed = None;
    if !wildcard || target.is_ipv6() {
        dialed = dial(&netns, &config, target).await.ok();
    }
    // An IPv4 listener, or a dual-stack one where loopback has no IPv6 address.
    if dialed.is_none() && wildcard {
        target.set_ip(Ipv4Addr::LOCALHOST.into());
        dialed = dial(&netns, &config, target).await.ok();
    }
    let stream = dialed?;
    set_linger_zero(&stream).ok()?;
    Some(Probe {
        index,
        port: stream.local_addr().ok()?.port(),
        _stream: stream,
    })
}

/// Upper bits that tell a probe from all other marks.
const TAG: u32 = 0xa5c0_0000;
/// Low bits that the capture rules look at.
const LOW: u32 = 0xfff;

const fn probe_mark(low: u32, index: u32) -> u32 {
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
const fn ret(k: u32) -> libc::sock_filter {
    instruction(0x06, k, 0, 0)
}

/// Sends probes to the index in their mark and everything else to `meanwhile`.
const fn probe_program(low: u32, meanwhile: u32) -> [libc::sock_filter; 8] {
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

fn attach(listener: &TcpListener, program: &[libc::sock_filter]) -> io::Result<()> {
    let mut program = program.to_vec();
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_mut_ptr(),
    };
    setsockopt(listener, sockopt::AttachReusePortCbpf, &filter)?;
    Ok(())
}
