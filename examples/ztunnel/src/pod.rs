//! One pod's proxy: three listeners in the pod's network namespace, and a worker on every shard.
//!
//! | port | who connects | what happens |
//! | --- | --- | --- |
//! | 15008 | other proxies | [`inbound`](crate::inbound): mutual TLS, tunnels |
//! | 15006 | anyone, captured | [`passthrough`](crate::passthrough): plain, under policy |
//! | 15001 | the pod's own application, captured | [`outbound`](crate::outbound) |
//!
//! The proxy is a failure domain: what goes wrong in it ends it, and nothing else.

mod placement;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meshwright_hbone::{Drain, DrainWatch, Quotas};
use meshwright_redirect::Netns;
use meshwright_redirect::socket::{
    Acceptor, HandoverConfig, ListenConfig, ListenError, PortSharing, ReusePortHandover,
    Transparency, foreign_listeners, listen,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::config::{Config, OriginalSource};
use crate::dialer;
use crate::limits::{self, Room};
use crate::mesh::{Mesh, PodName};
use crate::served::Outgoing;
use crate::shards::Shards;
use crate::worker::{Kind, Worker};

use placement::{hash, place};

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
    /// What each peer identity may hold of this pod.
    pub(crate) quotas: Quotas,
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

impl Pod {
    fn new(
        (uid, name, netns): (Arc<str>, PodName, Netns),
        mesh: Arc<Mesh>,
        keeps_source: bool,
    ) -> Self {
        Self {
            uid,
            name,
            netns,
            room: Room::new(&mesh.room),
            mesh,
            keeps_source,
            outgoing: Outgoing::default(),
            quotas: limits::quotas(),
            deleted: AtomicBool::new(false),
        }
    }
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
        let pod = Arc::new(Pod::new((uid, name, netns), mesh, keeps_source));
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

    /// Whether a task has ended without being asked to, which only a panic does: a port of the pod
    /// may be served by nobody.
    pub(crate) fn is_broken(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    /// Says so when a process that is no proxy waits on one of the pod's ports too: part of the connections go to it.
    ///
    /// A port is not opened beside a stranger; this is for those that come later.
    pub(crate) fn look_for_strangers(&self) {
        let Pod {
            mesh, netns, name, ..
        } = &*self.pod;
        let Some(mark) = mesh.config.sockets.mark else {
            return;
        };
        let ports = &mesh.config.ports;
        for port in [ports.outbound, ports.inbound_plaintext, ports.inbound_hbone].map(|a| a.port())
        {
            // Kernels without socket diagnostics have been named when the port was opened.
            for stranger in foreign_listeners(netns, port, mark.get()).unwrap_or_default() {
                mesh.telemetry.metrics.limit_reached("foreign_listener");
                tracing::error!(
                    pod = %name,
                    port,
                    uid = stranger.uid,
                    inode = stranger.inode,
                    "a process that is no proxy shares a port of the pod"
                );
            }
        }
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

#[cfg(test)]
impl Pod {
    /// A pod without listeners.
    pub(crate) fn for_tests(name: PodName, netns: Netns, mesh: Arc<Mesh>) -> Arc<Self> {
        Arc::new(Self::new(("uid".into(), name, netns), mesh, false))
    }
}

#[cfg(test)]
impl PodProxy {
    /// Ends its tasks, as a panic in each of them does.
    pub(crate) fn break_down(&mut self) {
        self.tasks.abort_all();
    }
}

#[cfg(test)]
mod tests;
