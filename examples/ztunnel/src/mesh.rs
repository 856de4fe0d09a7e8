//! What every pod's proxy of this node shares: the picture of the mesh, and the questions asked of it.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use meshwright_hbone::{Pool, PoolConfig, Quotas, ReadAhead, ServerConfig, TcpLeg};
use meshwright_identity::Member;
use meshwright_identity::rotation::Identities;
use meshwright_policy::{Admission, ConnectionFacts, Denied, Live};
use meshwright_xds_client::workload::{Reader, Snapshot, Workload};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Config;
use crate::dialer::PodDialer;
use crate::ending::Ending;
use crate::limits::NodeRoom;
use crate::served::Served;
use crate::telemetry::Telemetry;

/// How long a connection waits for its pod's record: pods start before the control plane has told of them.
const RECORD_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection waits for a policy that its workload lists and nobody has sent yet.
const POLICY_LIMIT: Duration = Duration::from_secs(10);

/// Connections on each worker thread that may hold up to 2 MiB each for a reader that does not keep up.
const LARGE_READS: usize = 8;

/// The node's view of the mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) config: Config,
    pub(crate) workloads: Reader,
    pub(crate) live: Live,
    pub(crate) identities: Identities,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) served: Served,
    pub(crate) illegal_ports: Box<[u16]>,
    /// What the pods' connections share.
    pub(crate) room: NodeRoom,
    read_ahead: ReadAhead,
}

/// What the node agent calls a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PodName {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) service_account: Arc<str>,
}

impl Mesh {
    pub(crate) fn new(
        config: Config,
        workloads: Reader,
        live: Live,
        identities: Identities,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            illegal_ports: config.ports.illegal.iter().copied().collect(),
            room: NodeRoom::of_process(),
            read_ahead: ReadAhead::new(LARGE_READS * config.workers.get()),
            config,
            workloads,
            live,
            identities,
            telemetry,
            served: Served::default(),
        }
    }

    /// Returns the current picture; it does not change while it is held.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.workloads.snapshot()
    }

    /// Returns the record of a pod, waiting for it if it has not arrived.
    ///
    /// # Errors
    ///
    /// Returns [`Ending::UnknownWorkload`] after five seconds.
    pub(crate) async fn workload(&self, pod: &PodName) -> Result<Arc<Workload>, Ending> {
        let find = |snapshot: &Snapshot| {
            snapshot
                .workload_of_pod(&pod.namespace, &pod.name, &pod.service_account)
                .cloned()
        };
        let mut reader = self.workloads.clone();
        if let Some(workload) = find(&reader.snapshot()) {
            return Ok(workload);
        }
        let arrives = async {
            while let Ok(snapshot) = reader.changed().await {
                if let Some(workload) = find(&snapshot) {
                    return Some(workload);
                }
            }
            None
        };
        let arrived = timeout(RECORD_LIMIT, arrives).await;
        arrived
            .ok()
            .flatten()
            .ok_or_else(|| Ending::UnknownWorkload(pod.clone()))
    }

    /// Returns the live credentials of a workload.
    ///
    /// # Errors
    ///
    /// Returns [`Ending::Identity`] if no valid certificate is to be had.
    pub(crate) async fn member(&self, workload: &Workload) -> Result<Member, Ending> {
        self.identities
            .get(&workload.identity())
            .await
            .map_err(Ending::Identity)
    }

    /// Judges a connection and registers it, so that later changes end it.
    ///
    /// # Errors
    ///
    /// Returns why it is refused, at the latest ten seconds after a listed policy was missed.
    pub(crate) async fn admit(&self, facts: ConnectionFacts) -> Result<Admission, Denied> {
        match self.live.admit(facts.clone()) {
            Err(denied) if denied.is_hold() => {
                let deadline = tokio::time::sleep(POLICY_LIMIT);
                self.live.admit_or_hold(facts, deadline).await
            }
            judged => judged,
        }
    }

    /// Makes one leg of a connection that is to be relayed.
    pub(crate) fn leg(&self, stream: TcpStream) -> TcpLeg {
        TcpLeg::new(stream).with_read_ahead(&self.read_ahead)
    }

    /// Makes a pod's pool of tunnels on the current shard.
    pub(crate) fn new_pool(&self, dialer: PodDialer) -> Pool<PodDialer> {
        let settings = &self.config.pool;
        let mut config = PoolConfig::new().with_idle(settings.unused_release);
        let streams = settings.max_streams.map(|streams| streams.get());
        if let Some(streams) = streams
            .and_then(|n| n.try_into().ok())
            .and_then(NonZeroU32::new)
        {
            config = config.with_max_streams(streams);
        }
        if let Some((stream, connection)) = self.config.http2.windows() {
            config = config.with_windows(stream, connection);
        }
        Pool::new(dialer, config, Arc::clone(&self.telemetry) as Arc<_>)
    }

    /// Returns how tunnels of other proxies are served.
    pub(crate) fn server_config(&self, quotas: &Quotas) -> ServerConfig {
        let config =
            ServerConfig::new(Arc::clone(&self.telemetry) as Arc<_>).with_quotas(quotas.clone());
        match self.config.http2.windows() {
            Some((stream, connection)) => config.with_windows(stream, connection),
            None => config,
        }
    }

    /// Returns the proxy's own ports, which nobody is connected to.
    pub(crate) fn illegal_ports(&self) -> &[u16] {
        &self.illegal_ports
    }
}

impl PodName {
    pub(crate) fn new(namespace: &str, name: &str, service_account: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            service_account: service_account.into(),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
