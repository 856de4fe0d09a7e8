//! A pod's share of one shard: its connections, and its pool of tunnels.

use std::net::{IpAddr, SocketAddr, TcpStream as StdTcpStream};
use std::sync::Arc;

use meshwright_hbone::{DrainWatch, Pool, ServerConfig};
use meshwright_redirect::socket::DialError;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::OriginalSource;
use crate::dialer::PodDialer;
use crate::limits::{Direction, HalfOpen, Place};
use crate::pod::Pod;
use crate::shards::{Carried, Load};
use crate::{inbound, outbound, passthrough};

/// Accepted connections that wait for the shard's thread. It takes them one by one without
/// waiting for anything else, so that more than a burst means it is overloaded; then the client
/// is better served by a reset than by silence.
const QUEUE: usize = 1024;

/// Which of the pod's listeners a connection came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Tunnels of other proxies.
    Hbone,
    /// The pod's own application.
    Outbound,
    /// Plaintext to the application.
    Plain,
}

impl Kind {
    /// Whose connections come to the listener.
    pub(crate) const fn direction(self) -> Direction {
        match self {
            Self::Hbone | Self::Plain => Direction::Inbound,
            Self::Outbound => Direction::Outbound,
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) kind: Kind,
    /// Not yet registered with an event queue: that of its shard is the first.
    pub(crate) stream: StdTcpStream,
    /// The client.
    pub(crate) from: SocketAddr,
    /// Where it wanted to go; for a tunnel's connection, where it was accepted.
    pub(crate) destination: SocketAddr,
    /// Its place among the pod's connections.
    pub(crate) room: Place,
}

/// Where connections of one pod are given to one shard.
#[derive(Debug)]
pub(crate) struct Worker {
    queue: mpsc::Sender<(Arrived, Carried)>,
    load: Load,
}

/// What the connections of a pod on one shard share.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) pod: Arc<Pod>,
    pub(crate) dialer: PodDialer,
    /// Tunnels to other proxies.
    pub(crate) pool: Pool<PodDialer>,
    /// How tunnels of other proxies are served.
    pub(crate) server: ServerConfig,
    pub(crate) half_open: HalfOpen,
}

impl Station {
    fn new(pod: Arc<Pod>, drain: DrainWatch) -> Self {
        let dialer = PodDialer::new(&pod);
        Self {
            pool: pod.mesh.new_pool(dialer.clone()),
            server: pod.mesh.server_config(&pod.quotas).with_drain(drain),
            half_open: HalfOpen::default(),
            dialer,
            pod,
        }
    }

    /// Connects to the pod's application, as the client if the pod's listeners may do that.
    ///
    /// # Errors
    ///
    /// Returns the operating system's answer.
    pub(crate) async fn dial_application(
        &self,
        client: IpAddr,
        to: SocketAddr,
    ) -> Result<TcpStream, DialError> {
        // Called by its own pod, the connection would have the same address on both ends.
        if !self.pod.keeps_source || client == to.ip() || client.is_ipv4() != to.is_ipv4() {
            return self.dialer.dial(to).await;
        }
        match self.dialer.dial_as(client, to).await {
            Err(DialError::Source { address, source })
                if self.pod.mesh.config.sockets.original_source != OriginalSource::Require =>
            {
                tracing::warn!(%address, error = %source, "the application does not see its client's address");
                self.dialer.dial(to).await
            }
            dialed => dialed,
        }
    }
}

impl Worker {
    /// Starts the worker on `shard`; the task belongs to `tasks`.
    pub(crate) fn start(
        pod: &Arc<Pod>,
        load: &Load,
        drain: DrainWatch,
        tasks: &mut JoinSet<()>,
        shard: &Handle,
    ) -> Self {
        let (queue, arrivals) = mpsc::channel(QUEUE);
        tasks.spawn_on(run(Arc::clone(pod), arrivals, drain), shard);
        Self {
            queue,
            load: load.clone(),
        }
    }

    /// Returns how many connections the shard carries.
    pub(crate) fn carried(&self) -> usize {
        self.load.carried()
    }

    /// Hands a connection over.
    ///
    /// # Errors
    ///
    /// Gives it back if the shard cannot keep up.
    pub(crate) fn serve(&self, arrived: Arrived) -> Result<(), Arrived> {
        let sent = self.queue.try_send((arrived, self.load.carry()));
        sent.map_err(|refused| refused.into_inner().0)
    }
}

async fn run(pod: Arc<Pod>, mut arrivals: mpsc::Receiver<(Arrived, Carried)>, drain: DrainWatch) {
    let station = Arc::new(Station::new(pod, drain));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some((arrived, carried)) => {
                    begin(&station, arrived, carried, &mut connections);
                }
                // The accept loops are gone: nothing more can come.
                None => break,
            },
            Some(ended) = connections.join_next() => note(&station.pod, ended),
        }
    }
    station.pool.drain();
    while let Some(ended) = connections.join_next().await {
        note(&station.pod, ended);
    }
}

/// Serves one connection in a task of its own.
fn begin(
    station: &Arc<Station>,
    arrived: Arrived,
    carried: Carried,
    connections: &mut JoinSet<()>,
) {
    let Arrived {
        kind,
        stream,
        from,
        destination,
        room,
    } = arrived;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%from, %error, "could not watch a connection");
            return;
        }
    };
    let station = Arc::clone(station);
    let places = (room, carried);
    // A task is as large as its future will ever be: each kind has its own.
    match kind {
        Kind::Hbone => connections.spawn(async move {
            let _places = places;
            inbound::serve(&station, stream, from, destination).await;
        }),
        Kind::Outbound => connections.spawn(async move {
            let _places = places;
            outbound::serve(&station, stream, from, destination).await;
        }),
        Kind::Plain => connections.spawn(async move {
            let _places = places;
            passthrough::serve(&station, stream, from, destination).await;
        }),
    };
}

fn note(pod: &Pod, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(pod = %pod.name, "a connection's task panicked; the others go on");
    }
}
