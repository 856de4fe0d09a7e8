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
//! index is found with one connection to ourselves, whose mark another program sends to the index
//! in question. If it lands elsewhere, a sibling sees a connection from loopback to its own port
//! that is reset at once.

use super::options::Liveness;
use super::{DialConfig, dial, listeners, set_linger_zero};
use crate::netns::Netns;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

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
    /// Works for the older and for the newer of two processes, and for more than two. Dropping the
    /// future closes the listener at once.
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
        let steering = match self.steer(&listener, &mut count).await {
            Ok(steering) => steering,
            Err(error) => Steering::Failed(error),
        };
        let quiet = self.empty(&listener, end, &mut count).await;
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
    ) -> bool {
        loop {
            let now = Instant::now();
            if now >= end {
                return false;
            }
            let until = end.min(now + self.config.quiet);
            match timeout_at(until, listener.accept()).await {
                Ok(Ok((stream, peer))) => connection(stream, peer),
                // Exhaustion of descriptors: others end meanwhile.
                Ok(Err(_transient)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(_elapsed) => return until < end,
            }
        }
    }

    async fn steer(
        &self,
        listener: &TcpListener,
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
        let members = u32::try_from(members.min(256)).unwrap_or(256);
        let own = self.own_index(listener, members, connection).await?;
        let newest = members - 1;
        let successor = if own == newest { own - 1 } else { newest };
        attach(listener, &[ret(successor)])?;
        Ok(Steering::Steered { own, successor })
    }

    /// Finds our place in the group by sending connections to one place after the other.
    async fn own_index(
        &self,
        listener: &TcpListener,
        members: u32,
        connection: &mut (dyn FnMut(TcpStream, SocketAddr) + Send),
    ) -> io::Result<u32> {
        attach(listener, &probe_program(self.config.mark))?;
        // The last place needs no probe: it is ours if no other is.
        for index in 0..members - 1 {
            if self.is_own(listener, index, connection).await? {
                return Ok(index);
            }
        }
        Ok(members - 1)
    }

    async fn is_own(
        &self,
        listener: &TcpListener,
        index: u32,
        connection: &mut (dyn FnMut(TcpStream, SocketAddr) + Send),
    ) -> io::Result<bool> {
        let mut target = listener.local_addr()?;
        if target.ip().is_unspecified() {
            target.set_ip(if target.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        let config = DialConfig::new()
            .mark(probe_mark(self.config.mark, index))
            .liveness(Liveness::default())
            .deadline(Duration::from_millis(500));
        let probe = match dial(&self.netns, &config, target).await {
            // A dual-stack listener where loopback has no IPv6 address.
            Err(_no_ipv6) if target.is_ipv6() => {
                target.set_ip(Ipv4Addr::LOCALHOST.into());
                dial(&self.netns, &config, target).await?
            }
            result => result?,
        };
        set_linger_zero(&probe)?;
        let port = probe.local_addr()?.port();
        let wait = async {
            loop {
                let (stream, peer) = listener.accept().await?;
                if peer.port() == port && peer.ip().to_canonical().is_loopback() {
                    return Ok(());
                }
                connection(stream, peer);
            }
        };
        // The handshake is complete, so the connection is in somebody's queue already.
        match timeout(Duration::from_millis(100), wait).await {
            Ok(result) => result.map(|()| true),
            Err(_elapsed) => Ok(false),
        }
    }
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

/// Sends probes to the index in their mark and deals everything else as usual.
const fn probe_program(low: u32) -> [libc::sock_filter; 8] {
    [
        instruction(0x20, MARK, 0, 0),              // ld #mark
        instruction(0x54, !(0xff << 12), 0, 0),     // and #~index
        instruction(0x15, TAG | (low & LOW), 0, 4), // jeq #probe, next, last
        instruction(0x20, MARK, 0, 0),              // ld #mark
        instruction(0x74, 12, 0, 0),                // rsh #12
        instruction(0x54, 0xff, 0, 0),              // and #0xff
        instruction(0x16, 0, 0, 0),                 // ret a
        ret(u32::MAX),                              // no such index: deal by hash
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
