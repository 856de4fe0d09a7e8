//! Which shard a connection is given to, and which connections are given to none.

use std::hash::{DefaultHasher, Hasher as _};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use meshwright_redirect::socket::{OriginalDestination, original_destination, set_linger_zero};
use tokio::net::TcpStream;

use super::Pod;
use crate::ending::Ending;
use crate::limits::{Crowded, Place};
use crate::traffic::Traffic;
use crate::worker::{Arrived, Kind, Worker};

/// Gives one connection to a shard, where it stays.
pub(super) fn place(
    pod: &Arc<Pod>,
    kind: Kind,
    stream: TcpStream,
    from: SocketAddr,
    workers: &[Worker],
) {
    let from = canonical(from);
    let asked = match kind {
        Kind::Hbone => stream.local_addr().map(OriginalDestination::Redirected),
        Kind::Plain | Kind::Outbound => original_destination(&stream),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return tracing::debug!(%from, ?kind, %error, "a connection ended by itself"),
    };
    let to = canonical(asked.address());
    let room = match room(pod, kind, asked) {
        Ok(room) => room,
        Err(ending) => return refuse(pod, kind, &stream, (from, to), &ending),
    };
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%from, ?kind, %error, "could not hand a connection on"),
    };
    let arrived = Arrived {
        room,
        kind,
        stream,
        from,
        destination: to,
    };
    if let Some(worker) = choose(kind, to, workers)
        && let Err(back) = worker.serve(arrived)
    {
        let ending = Ending::Crowded(Crowded::Worker);
        refuse(pod, kind, &back.stream, (from, to), &ending);
    }
}

/// Connections that one shard may carry more than another before it is relieved.
const SPILL: usize = 32;

fn choose(kind: Kind, to: SocketAddr, workers: &[Worker]) -> Option<&Worker> {
    let least = workers.iter().min_by_key(|worker| worker.carried());
    match kind {
        // All of one peer's tunnels arrive on one connection: spread connections by load.
        Kind::Hbone | Kind::Plain => least,
        // Tunnels to one destination share a connection if they share a shard: stay together
        // until that shard carries clearly more than another.
        Kind::Outbound => {
            let index = hash(&to.ip()) as usize % workers.len().max(1);
            match (workers.get(index), least) {
                (Some(home), Some(least)) if home.carried() > least.carried() + SPILL => {
                    Some(least)
                }
                (home, least) => home.or(least),
            }
        }
    }
}

/// Takes a place among the pod's connections, unless this one was meant for the proxy itself.
fn room(pod: &Pod, kind: Kind, asked: OriginalDestination) -> Result<Place, Ending> {
    let ports = &pod.mesh.config.ports;
    let own = match kind {
        Kind::Hbone => None,
        Kind::Plain => Some(ports.inbound_plaintext.port()),
        Kind::Outbound => Some(ports.outbound.port()),
    };
    if own.is_some_and(|own| asked.beyond(own).is_none()) {
        return Err(Ending::OwnPort(asked.address()));
    }
    pod.room.take(kind.direction()).map_err(Ending::Crowded)
}

/// Resets a connection that is not served, and reports it.
fn refuse(
    pod: &Arc<Pod>,
    kind: Kind,
    stream: &impl AsFd,
    (from, to): (SocketAddr, SocketAddr),
    ending: &Ending,
) {
    if let Err(error) = set_linger_zero(stream) {
        tracing::debug!(%from, %error, "the connection ended by itself");
    }
    Traffic::refused(pod, kind, from, to, ending);
}

const fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pub(super) fn hash<T: std::hash::Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
