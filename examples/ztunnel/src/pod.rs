//! One pod's proxy: three listeners in the pod's network namespace, and a worker on every shard.
//!
//! | port | who connects | what happens |
//! | --- | --- | --- |
//! | 15008 | other proxies | [`inbound`](crate::inbound): mutual TLS, tunnels |
//! | 15006 | anyone, captured | [`passthrough`](crate::passthrough): plain, under policy |
//! | 15001 | the pod's own application, captured | [`outbound`](crate::outbound) |
//!
//! The proxy is a failure domain: what goes wrong in it ends it, and nothing else.

use std::hash::{DefaultHasher, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meshwright_hbone::{Drain, DrainWatch};
use meshwright_redirect::Netns;
use meshwright_redirect::socket::{
    Acceptor, HandoverConfig, ListenConfig, ListenError, PortSharing, ReusePortHandover,
    Transparency, listen, original_destination,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::{Config, OriginalSource};
use crate::dialer;
use crate::limits::Room;
use crate::mesh::{Mesh, PodName};
use crate::served::Outgoing;
use crate::shards::Shards;
use crate::worker::{Arrived, Kind, Worker};

/// A pod that this proxy serves.
#[derive(Debug)]
pub(crate) struct Pod {
    /// The node agent's id of the pod.
    pub(crate) uid: Arc<str>,
    /// What the node agent says it is called.
    pub(crate) name: PodName,
    /// Its network namespace: every socket of the pod is made there.
    pub(crate) netns: Netns,
    /// What all pods of the node share.
    pub(crate) mesh: Arc<Mesh>,
    /// Whether connections to the application may carry the client's address.
    pub(crate) keeps_source: bool,
    /// The application's own open connections.
    pub(crate) outgoing: Outgoing,
    room: Room,
    /// The agent took the pod away: its ports go to nobody, or to another proxy of this process.
    deleted: AtomicBool,
}

/// The running proxy of one pod; dropping it ends everything at once.
#[derive(Debug)]
pub(crate) struct PodProxy {
    pod: Arc<Pod>,
    drain: Drain,
    /// Accept loops and workers.
    tasks: JoinSet<()>,
}

/// A pod's listeners could not be made.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on port {port} of pod {pod}")]
pub(crate) struct StartError {
    /// Namespace and name.
    pod: String,
    /// The port.
    port: u16,
    /// Why.
    source: ListenError,
}

impl PodProxy {
    /// Makes the pod's listeners and starts to serve them.
    ///
    /// # Errors
    ///
    /// Returns [`StartError`] if the namespace cannot be entered or a port is taken; nothing is left
    /// behind.
    pub(crate) fn start(
        uid: Arc<str>,
        name: PodName,
        netns: Netns,
        mesh: Arc<Mesh>,
        shards: &Shards,
    ) -> Result<Self, StartError> {
        let kinds = [Kind::Hbone, Kind::Plain, Kind::Outbound];
        Self::start_listeners((uid, name, netns), mesh, shards, &kinds)
    }

    /// Serves the proxy's own pod: only tunnels, so that its metrics can be read under policy.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub(crate) fn start_own(
        name: PodName,
        netns: Netns,
        mesh: Arc<Mesh>,
        shards: &Shards,
    ) -> Result<Self, StartError> {
        Self::start_listeners(("self".into(), name, netns), mesh, shards, &[Kind::Hbone])
    }

    fn start_listeners(
        (uid, name, netns): (Arc<str>, PodName, Netns),
        mesh: Arc<Mesh>,
        shards: &Shards,
        kinds: &[Kind],
    ) -> Result<Self, StartError> {
        let ports = &mesh.config.ports;
        // The listeners must belong to the event queue of the shard that accepts from them.
        let home = home_shard(&uid, shards);
        let _inside = home.enter();
        // In its own namespace there are no rules that would bring an answer back.
        let mut keeps_source = kinds.len() > 1;
        let mut listeners = Vec::with_capacity(kinds.len());
        for &kind in kinds {
            let address = match kind {
                Kind::Hbone => ports.inbound_hbone,
                Kind::Plain => ports.inbound_plaintext,
                Kind::Outbound => ports.outbound,
            };
            let config = listen_config(&mesh.config, address);
            let listener = listen(&netns, &config).map_err(|source| StartError {
                pod: name.to_string(),
                port: address.port(),
                source,
            })?;
            keeps_source &= listener.transparent;
            listeners.push((kind, listener.socket));
        }
        let pod = Arc::new(Pod {
            uid,
            name,
            netns,
            mesh,
            keeps_source,
            outgoing: Outgoing::default(),
            room: Room::default(),
            deleted: AtomicBool::new(false),
        });
        Ok(Self::serve(pod, listeners, shards, &home))
    }

    fn serve(
        pod: Arc<Pod>,
        listeners: Vec<(Kind, TcpListener)>,
        shards: &Shards,
        home: &tokio::runtime::Handle,
    ) -> Self {
        let drain = Drain::new();
        let mut tasks = JoinSet::new();
        let workers: Arc<[Worker]> = shards
            .iter()
            .map(|(shard, load)| Worker::start(&pod, load, drain.watch(), &mut tasks, shard))
            .collect();
        for (kind, listener) in listeners {
            let accept = accept(
                Arc::clone(&pod),
                kind,
                listener,
                Arc::clone(&workers),
                drain.watch(),
            );
            tasks.spawn_on(accept, home);
        }
        Self { pod, drain, tasks }
    }

    /// Returns the pod.
    pub(crate) const fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// As [`drained`](Self::drained), but leaves the ports at once.
    ///
    /// There is no successor to hand them to. A proxy of the same namespace that starts meanwhile
    /// must get every connection: one that came here would be turned away after its handshake.
    pub(crate) fn deleted(self) -> impl Future<Output = ()> + Send {
        self.pod.deleted.store(true, Ordering::Relaxed);
        self.drain.start();
        self.drained()
    }

    /// Takes nothing new, tells peers to go elsewhere, and waits until what runs has ended.
    ///
    /// Not bounded by itself: drop the future, and with it the proxy, at the deadline.
    pub(crate) async fn drained(mut self) {
        self.drain.start();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(pod = %self.pod.name, "a task of the pod's proxy panicked");
            }
        }
    }
}

/// Pods are spread over the shards by their id.
fn home_shard(uid: &str, shards: &Shards) -> tokio::runtime::Handle {
    let index = hash(uid) as usize % shards.len();
    shards.handle(index)
}

fn listen_config(config: &Config, address: SocketAddr) -> ListenConfig {
    let listen = if address.is_ipv6() {
        ListenConfig::wildcard(address.port())
    } else {
        ListenConfig::on(address)
    };
    let listen = listen
        .sharing(if config.handover.port_reuse {
            PortSharing::Shared
        } else {
            PortSharing::Exclusive
        })
        .transparency(match config.sockets.original_source {
            OriginalSource::BestEffort => Transparency::BestEffort,
            OriginalSource::Never => Transparency::Off,
            OriginalSource::Require => Transparency::Require,
        })
        .liveness(dialer::liveness(&config.sockets));
    match config.sockets.mark {
        Some(mark) => listen.mark(mark.get()),
        None => listen,
    }
}

/// Accepts until the pod's proxy drains, then leaves the port to a successor without losing what
/// waits in the queue.
async fn accept(
    pod: Arc<Pod>,
    kind: Kind,
    listener: TcpListener,
    workers: Arc<[Worker]>,
    drain: DrainWatch,
) {
    let events = Arc::clone(&pod.mesh.telemetry) as Arc<dyn meshwright_redirect::Events>;
    let mut acceptor = Acceptor::new(listener, events);
    loop {
        tokio::select! {
            (stream, from) = acceptor.accept() => place(&pod, kind, stream, from, &workers),
            () = drain.draining() => break,
        }
    }
    if pod.deleted.load(Ordering::Relaxed) {
        return;
    }
    let mut config = HandoverConfig::default();
    if let Some(mark) = pod.mesh.config.sockets.mark {
        config.mark = mark.get();
    }
    let report = ReusePortHandover::new(pod.netns.clone(), config)
        .drain(acceptor.into_inner(), |stream, from| {
            place(&pod, kind, stream, from, &workers);
        })
        .await;
    tracing::info!(
        pod = %pod.name,
        ?kind,
        accepted = report.accepted,
        steering = ?report.steering,
        quiet = report.quiet,
        "left the port"
    );
}

/// Gives one connection to a shard, where it stays.
fn place(pod: &Pod, kind: Kind, stream: TcpStream, from: SocketAddr, workers: &[Worker]) {
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let arrived = match arrived(pod, kind, stream, from) {
        Ok(arrived) => arrived,
        Err(error) => {
            tracing::debug!(%from, ?kind, %error, "a connection ended before it was served");
            return;
        }
    };
    let least = workers.iter().min_by_key(|worker| worker.carried());
    let chosen = match kind {
        // All of one peer's tunnels arrive on one connection: spread connections by load.
        Kind::Hbone | Kind::Plain => least,
        // Tunnels to one destination share a connection if they share a shard: stay together
        // until that shard carries clearly more than another.
        Kind::Outbound => {
            let index = hash(&arrived.destination.ip()) as usize % workers.len().max(1);
            match (workers.get(index), least) {
                (Some(home), Some(least)) if home.carried() > least.carried() + SPILL => {
                    Some(least)
                }
                (home, least) => home.or(least),
            }
        }
    };
    if let Some(worker) = chosen {
        worker.serve(arrived);
    }
}

/// Connections that one shard may carry more than another before it is relieved.
const SPILL: usize = 32;

fn arrived(pod: &Pod, kind: Kind, stream: TcpStream, from: SocketAddr) -> std::io::Result<Arrived> {
    let destination = match kind {
        Kind::Hbone => canonical(stream.local_addr()?),
        Kind::Plain | Kind::Outbound => {
            let own = match kind {
                Kind::Plain => pod.mesh.config.ports.inbound_plaintext,
                Kind::Hbone | Kind::Outbound => pod.mesh.config.ports.outbound,
            };
            let own = own.port();
            original_destination(&stream)?
                .beyond(own)
                .map(canonical)
                .ok_or_else(|| std::io::Error::other("it was meant for the proxy itself"))?
        }
    };
    let Some(room) = pod.room.take(kind.direction()) else {
        pod.mesh.telemetry.metrics.limit_reached("pod_connections");
        // Dropped with what the client has sent unread, the connection is reset.
        return Err(std::io::Error::other("the pod has too many connections"));
    };
    Ok(Arrived {
        room,
        kind,
        stream: stream.into_std()?,
        from,
        destination,
    })
}

const fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn hash<T: std::hash::Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
