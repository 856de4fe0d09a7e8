//! Leaving a port that a successor shares, without losing a connection.
//!
//! With `SO_REUSEPORT` the kernel deals new connections to all listeners of a port. A listener
//! that closes resets what waits in its queue, so a plain close loses connections under load. The
//! way out has four steps:
//!
//! 1. Steer every new connection to another socket of the group: a constant classic BPF program
//!    (`SO_ATTACH_REUSEPORT_CBPF`) answers with its index. An index that does not exist makes the
//!    kernel deal as before, so a successor that dies meanwhile leaves us serving.
//! 2. Accept what was dealt to us before. Where connections still come, because another process
//!    left too and the order changed, steer again.
//! 3. Drop what would begin a connection here all the same (`SO_ATTACH_FILTER`): the client sends
//!    it again a second later, to somebody else. Handshakes that have begun end well.
//! 4. Accept until the queue stays empty, then close.
//!
//! The group's order is not visible: our own index is found with one connection through loopback
//! for each index, whose mark another program sends there: the one that arrives here tells.
//! Siblings see a connection from loopback to their own port that is reset at once.

mod place;
mod program;

use super::listeners;
use crate::netns::Netns;
use place::Search;
use program::{attach, ret, stop_listening};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

/// Whoever takes the connections over.
type Sink<'a> = &'a mut (dyn FnMut(TcpStream, SocketAddr) + Send);

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
    /// Nobody shared the port: after the close the kernel refuses connections.
    Alone,
    /// Steering failed: connections that came in the last moment are a second late.
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
    /// Works for the older and for the newer of two processes, and for more than two, also when
    /// several leave at once. Without the privilege to set marks (`CAP_NET_ADMIN`), steering
    /// fails, and connections that come in the last moment are not lost but a second late.
    /// Dropping the future closes the listener at once.
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
        let steering = self.steer_until_quiet(&listener, end, &mut count).await;
        if let Err(error) = stop_listening(&listener) {
            tracing::debug!(%error, "a listener cannot drop what would begin a connection");
        }
        let quiet = accept_until(&listener, end, self.config.quiet, &mut count).await;
        HandoverReport {
            accepted,
            steering,
            quiet,
        }
    }

    /// Steers, and again while connections keep coming; ends in time for the last step.
    async fn steer_until_quiet(
        &self,
        listener: &TcpListener,
        end: Instant,
        connection: Sink<'_>,
    ) -> Steering {
        let end = end - self.config.quiet.min(self.config.limit / 2);
        let mut steering = Steering::Alone;
        for _attempt in 0..ATTEMPTS {
            steering = match self.steer(listener, &steering, connection).await {
                Ok(Steering::Alone) => return Steering::Alone,
                Ok(steering) => steering,
                Err(error) => return Steering::Failed(error),
            };
            // What was dealt before arrives within this time, but for slow handshakes.
            let settled = end.min(Instant::now() + SETTLING);
            accept_until(listener, settled, SETTLING, connection).await;
            let patience = end.min(Instant::now() + 2 * CALM);
            if accept_until(listener, patience, CALM, connection).await || Instant::now() >= end {
                break;
            }
        }
        steering
    }

    async fn steer(
        &self,
        listener: &TcpListener,
        before: &Steering,
        connection: Sink<'_>,
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
        let members = u32::try_from(members.min(64)).unwrap_or(64);
        let search = Search {
            netns: &self.netns,
            mark: self.config.mark,
            members,
            meanwhile,
        };
        let own = search.own_index(listener, connection).await?;
        let newest = members - 1;
        let successor = if own == newest { own - 1 } else { newest };
        attach(listener, &[ret(successor)])?;
        Ok(Steering::Steered { own, successor })
    }
}

/// Accepts until nothing came for `quiet`; says whether that was before `end`.
async fn accept_until(
    listener: &TcpListener,
    end: Instant,
    quiet: Duration,
    connection: Sink<'_>,
) -> bool {
    loop {
        let until = Instant::now() + quiet;
        match timeout_at(until.min(end), listener.accept()).await {
            Ok(Ok((stream, peer))) => connection(stream, peer),
            // Exhaustion of descriptors: others end meanwhile.
            Ok(Err(_transient)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_elapsed) => return until <= end,
        }
        if Instant::now() >= end {
            return false;
        }
    }
}

/// Steering again and again helps only while others leave too.
const ATTEMPTS: usize = 8;

/// Time for handshakes that began before steering.
const SETTLING: Duration = Duration::from_millis(50);

/// With nothing coming for this long after that, steering works.
const CALM: Duration = Duration::from_millis(50);
