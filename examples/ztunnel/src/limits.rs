//! How much the callers of one pod, and the pod itself, may make the proxy hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use meshwright_hbone::Quotas;
use meshwright_hbone::quotas::QuotaConfig;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::oneshot;

use crate::shards::{Carried, Load};

/// Connections to a pod, and as many from it. A tunnel connection counts once; the tunnels in it are bounded per
/// connection and per peer identity.
const MOST_CONNECTIONS: usize = 10_000;

/// Handshakes under way to one pod on one shard. Each may hold a certificate chain of 64 KiB before anything is proved.
const MOST_HALF_OPEN: usize = 320;

/// The connections of all pods of the node, beside the descriptors that the process may have. A connection has one or
/// two of them.
///
/// While there are many left, a pod may have as many connections as it likes. Later each pod has its part: a busy one
/// leaves the others, readiness and the control plane theirs.
#[derive(Clone, Debug)]
pub(crate) struct NodeRoom {
    /// What a pod may have in one direction, whatever the others have.
    part: usize,
    /// Connections up to which nobody counts parts.
    common: usize,
    carried: Load,
}

/// Counts a pod's connections, in and out apart: a flood from outside leaves the application's own alone.
#[derive(Debug)]
pub(crate) struct Room {
    node: NodeRoom,
    inbound: Load,
    outbound: Load,
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _pod: Carried,
    _node: Carried,
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Crowded {
    /// Handshakes of one pod; the oldest made room.
    Handshakes,
    /// Connections of one pod.
    Pod,
    /// Connections that wait for one thread.
    Worker,
}

impl Crowded {
    /// The limit's name in the metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "half_open",
            Self::Pod => "pod_connections",
            Self::Worker => "worker_queue",
        }
    }
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshakes => "too many handshakes are under way",
            Self::Pod => "the pod has too many connections",
            Self::Worker => "a worker thread cannot keep up",
        })
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

/// What one peer identity may hold of one pod: an identity is all replicas of a deployment, each with connections of
/// its own.
pub(crate) fn quotas() -> Quotas {
    let mut config = QuotaConfig::default();
    config.connections = 1024;
    Quotas::new(config)
}

impl NodeRoom {
    /// As much as this process may have.
    pub(crate) fn of_process() -> Self {
        // Asking fails for no process; without an answer there is no reason to allow less.
        let limit = getrlimit(Resource::RLIMIT_NOFILE);
        Self::for_descriptors(limit.map_or(u64::MAX, |(soft, _hard)| soft))
    }

    fn for_descriptors(descriptors: u64) -> Self {
        let eighths = |count: u64| {
            usize::try_from((descriptors / 8).saturating_mul(count)).unwrap_or(usize::MAX)
        };
        Self {
            part: eighths(1),
            common: eighths(3),
            carried: Load::default(),
        }
    }
}

impl Room {
    /// A pod without connections.
    pub(crate) fn new(node: &NodeRoom) -> Self {
        Self {
            node: node.clone(),
            inbound: Load::default(),
            outbound: Load::default(),
        }
    }

    /// Takes the place of one connection until the value is dropped.
    ///
    /// # Errors
    ///
    /// [`Crowded::Pod`] if all places are taken.
    pub(crate) fn take(&self, direction: Direction) -> Result<Place, Crowded> {
        let load = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        let carried = load.carried();
        let is_fair = carried < self.node.part || self.node.carried.carried() < self.node.common;
        if carried >= MOST_CONNECTIONS || !is_fair {
            return Err(Crowded::Pod);
        }
        Ok(Place {
            _pod: load.carry(),
            _node: self.node.carried.carry(),
        })
    }
}

/// Handshakes of callers that have not proved anything yet.
///
/// When there are too many, the oldest makes room: whoever means it finishes within milliseconds, so that a crowd of
/// silent connections pushes itself out and nobody else.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    turns: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One handshake's place.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    half_open: &'a HalfOpen,
    number: u64,
    pushed_out: oneshot::Receiver<()>,
}

impl HalfOpen {
    /// Takes a place, pushing out the oldest if there is none.
    pub(crate) fn enter(&self) -> Turn<'_> {
        let (push_out, pushed_out) = oneshot::channel();
        let mut waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.turns.len() >= MOST_HALF_OPEN {
            // Dropping the sender tells its handshake.
            drop(waiting.turns.pop_first());
        }
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        waiting.turns.insert(number, push_out);
        Turn {
            half_open: self,
            number,
            pushed_out,
        }
    }
}

impl Turn<'_> {
    /// Waits until a newer handshake needs the place.
    pub(crate) async fn pushed_out(&mut self) {
        // Nothing is ever sent: either way the sender is gone.
        let _gone = (&mut self.pushed_out).await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let state = &self.half_open.state;
        let mut waiting = state.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.turns.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, HalfOpen, MOST_CONNECTIONS, MOST_HALF_OPEN, NodeRoom, Room};

    #[tokio::test]
    async fn the_oldest_handshake_makes_room_for_the_newest() {
        let _trace = meshwright_testkit::trace();
        let half_open = HalfOpen::default();
        let mut first = half_open.enter();
        let others: Vec<_> = (1..MOST_HALF_OPEN).map(|_| half_open.enter()).collect();
        assert!(!is_pushed_out(&mut first).await, "there was room");
        let _newest = half_open.enter();
        assert!(is_pushed_out(&mut first).await);
        drop(others);
        let mut late = half_open.enter();
        assert!(!is_pushed_out(&mut late).await, "places are given back");
    }

    async fn is_pushed_out(turn: &mut super::Turn<'_>) -> bool {
        tokio::select! {
            biased;
            () = turn.pushed_out() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[test]
    fn a_flood_from_outside_leaves_the_pods_own_connections_room() {
        let _trace = meshwright_testkit::trace();
        let room = Room::new(&NodeRoom::for_descriptors(u64::MAX));
        let flood: Vec<_> = (0..MOST_CONNECTIONS)
            .map(|_| room.take(Direction::Inbound).unwrap())
            .collect();
        assert!(room.take(Direction::Inbound).is_err());
        assert!(room.take(Direction::Outbound).is_ok());
        drop(flood);
        assert!(room.take(Direction::Inbound).is_ok());
    }

    #[test]
    fn one_busy_pod_leaves_the_others_their_part_of_the_descriptors() {
        let _trace = meshwright_testkit::trace();
        let node = NodeRoom::for_descriptors(1000);
        let take = |room: &Room| room.take(Direction::Outbound);
        let (busy, other) = (Room::new(&node), Room::new(&node));
        let many: Vec<_> = std::iter::from_fn(|| take(&busy).ok()).collect();
        assert_eq!(many.len(), 375, "a node that is free is there to be used");
        let few: Vec<_> = std::iter::from_fn(|| take(&other).ok()).collect();
        assert_eq!(few.len(), 125);
        drop(many);
        take(&other).expect("there is room again");
    }
}
