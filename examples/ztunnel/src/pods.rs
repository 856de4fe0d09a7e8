//! The set of pods that the node agent has handed over.
//!
//! [`Pods`] follows ZDS: after each connection the agent names every pod it knows and then says that the
//! snapshot is complete. Proxies keep running while the agent is away; what it does not name in a
//! new snapshot is stopped. No message, however wrong, ends the process: it is refused, and the agent is told why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meshwright_istio_surface::server::{Blocker, Readiness};
use meshwright_redirect::Netns;
use meshwright_redirect::zds::{Client, ClientConfig, ClientEvent, Order, PodInfo, Request};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use crate::mesh::{Mesh, PodName};
use crate::pod::PodProxy;
use crate::shards::Shards;

/// Pods of one node. Kubernetes advises 110; large nodes run 500.
const MOST_PODS: usize = 4096;

/// Between two looks at pods that should be served and are not: their ports were taken, or their
/// proxy is broken.
const RETRY: Duration = Duration::from_secs(5);

/// How long the peers of a deleted pod may take to be told; the pod itself is gone.
const FAREWELL: Duration = Duration::from_secs(1);

/// Pods by the agent's id.
#[derive(Debug)]
pub(crate) struct Pods {
    mesh: Arc<Mesh>,
    shards: Arc<Shards>,
    running: BTreeMap<Arc<str>, PodProxy>,
    pending: BTreeMap<Arc<str>, (PodName, Netns)>,
    /// Pods named since the agent connected, until it says that the snapshot is complete.
    named: Option<BTreeSet<Arc<str>>>,
    is_synced: bool,
    readiness: Readiness,
    /// Held while pods that should be served are not.
    blocker: Option<Blocker>,
    leaving: JoinSet<()>,
}

/// Prepares the connection to the node agent.
pub(crate) fn agent(mesh: &Mesh) -> Client {
    let socket = &mesh.config.handover.socket;
    Client::new(
        socket,
        ClientConfig::default(),
        Arc::clone(&mesh.telemetry) as Arc<_>,
    )
}

impl Pods {
    /// An empty set; the program is not ready until the agent has told of all pods.
    pub(crate) fn new(
        mesh: Arc<Mesh>,
        shards: Arc<Shards>,
        readiness: Readiness,
        blocker: Blocker,
    ) -> Self {
        Self {
            mesh,
            shards,
            running: BTreeMap::new(),
            pending: BTreeMap::new(),
            named: None,
            is_synced: false,
            readiness,
            blocker: Some(blocker),
            leaving: JoinSet::new(),
        }
    }

    /// Follows the agent until the future is dropped.
    ///
    /// Cancel safe: pods stay as they are, and [`drained`](Self::drained) ends them.
    pub(crate) async fn follow(&mut self, agent: &mut Client) {
        let mut retry = every(RETRY);
        loop {
            self.publish();
            tokio::select! {
                event = agent.next() => self.on_event(event),
                _ = retry.tick() => self.retry(),
                Some(_) = self.leaving.join_next() => {}
            }
        }
    }

    /// Ends every pod's proxy in good order, the proxy's own pod's too, at most until `deadline`.
    pub(crate) async fn drained(mut self, own: Option<PodProxy>, deadline: Duration) {
        let end = Instant::now() + deadline;
        let running = std::mem::take(&mut self.running);
        for proxy in running.into_values().chain(own) {
            self.leaving.spawn(async move {
                // At the deadline the proxy is dropped, and with it what still runs.
                if tokio::time::timeout_at(end, proxy.drained()).await.is_err() {
                    tracing::info!("connections were still open at the end of the drain");
                }
            });
        }
        while self.leaving.join_next().await.is_some() {}
    }

    fn on_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Connected => {
                self.named = Some(BTreeSet::new());
                self.pending.clear();
                self.is_synced = false;
            }
            ClientEvent::Disconnected => {
                self.named = None;
                self.is_synced = false;
            }
            ClientEvent::Request(request) => self.on_request(request),
            _ => {}
        }
    }

    fn on_request(&mut self, request: Request) {
        let outcome = self.obey(request.order());
        let answered = match &outcome {
            Ok(()) => request.accept(),
            Err(reason) => {
                tracing::warn!(%reason, "refused what the node agent asked for");
                request.refuse(reason)
            }
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "could not answer the node agent");
        }
    }

    fn obey(&mut self, order: &Order) -> Result<(), String> {
        match order {
            Order::Add { uid, info, netns } => self.add(uid, info, netns),
            Order::Keep { uid } => self.keep(uid),
            Order::Del { uid } => {
                self.delete(uid);
                Ok(())
            }
            Order::SnapshotSent => self.reconcile(),
            _ => Err("not understood by this version".to_owned()),
        }
    }

    fn add(&mut self, uid: &str, info: &PodInfo, netns: &Netns) -> Result<(), String> {
        let uid: Arc<str> = uid.into();
        if let Some(named) = &mut self.named {
            named.insert(Arc::clone(&uid));
        }
        let name = PodName::new(&info.namespace, &info.name, &info.service_account);
        match self.running.get(&uid) {
            Some(proxy) if proxy.pod().netns.id() == netns.id() && proxy.pod().name == name => {
                return Ok(());
            }
            // Same id, other namespace: the sandbox was made anew.
            Some(_) => self.stop(&uid),
            None => {}
        }
        if self.running.len() + self.pending.len() >= MOST_PODS {
            return Err(format!("more than {MOST_PODS} pods"));
        }
        self.start(&uid, name, netns.clone())
    }

    fn start(&mut self, uid: &Arc<str>, name: PodName, netns: Netns) -> Result<(), String> {
        let started = PodProxy::start(
            Arc::clone(uid),
            name.clone(),
            netns.clone(),
            Arc::clone(&self.mesh),
            &self.shards,
        );
        match started {
            Ok(proxy) => {
                tracing::info!(pod = %name, %uid, "serving");
                self.pending.remove(uid);
                self.running.insert(Arc::clone(uid), proxy);
                self.mesh.telemetry.proxy_started();
                Ok(())
            }
            Err(error) => {
                let reason = crate::chain(&error);
                self.pending.insert(Arc::clone(uid), (name, netns));
                Err(reason)
            }
        }
    }

    fn keep(&mut self, uid: &str) -> Result<(), String> {
        match &mut self.named {
            Some(named) => {
                named.insert(uid.into());
                Ok(())
            }
            None => Err("keep is only for the snapshot".to_owned()),
        }
    }

    /// Before the snapshot is complete only the name is forgotten; the stop comes with it.
    fn delete(&mut self, uid: &str) {
        self.pending.remove(uid);
        match &mut self.named {
            Some(named) => {
                named.remove(uid);
            }
            None => self.stop(uid),
        }
    }

    fn reconcile(&mut self) -> Result<(), String> {
        let Some(named) = self.named.take() else {
            return Err("the snapshot was already complete".to_owned());
        };
        let gone: Vec<_> = self
            .running
            .keys()
            .filter(|uid| !named.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.stop(&uid);
        }
        self.is_synced = true;
        tracing::info!(
            pods = self.running.len(),
            "the node agent's snapshot is complete"
        );
        Ok(())
    }

    fn stop(&mut self, uid: &str) {
        let Some(proxy) = self.running.remove(uid) else {
            return;
        };
        tracing::info!(pod = %proxy.pod().name, %uid, "no longer serving");
        self.mesh.telemetry.proxy_stopped();
        let farewell = timeout(FAREWELL, proxy.deleted());
        self.leaving.spawn(async move {
            // The pod is gone; its peers are told if they still can be.
            if farewell.await.is_err() {
                tracing::debug!("connections of a deleted pod were cut");
            }
        });
    }

    fn retry(&mut self) {
        self.stop_broken();
        for proxy in self.running.values() {
            proxy.look_for_strangers();
        }
        for (uid, (name, netns)) in std::mem::take(&mut self.pending) {
            if let Err(reason) = self.start(&uid, name, netns) {
                tracing::warn!(%uid, %reason, "a pod is still not served");
            }
        }
    }

    /// Stops the proxies of which a task has panicked, to be started anew.
    fn stop_broken(&mut self) {
        let mut broken = Vec::new();
        for (uid, proxy) in &mut self.running {
            if proxy.is_broken() {
                let pod = proxy.pod();
                tracing::error!(pod = %pod.name, "the pod's proxy is broken and starts anew");
                broken.push((Arc::clone(uid), (pod.name.clone(), pod.netns.clone())));
            }
        }
        for (uid, pod) in broken {
            self.stop(&uid);
            self.pending.insert(uid, pod);
        }
    }

    /// Tells readiness, metrics and the dump what is served.
    fn publish(&mut self) {
        let mesh = &self.mesh;
        mesh.served.publish(
            self.running.values().map(PodProxy::pod),
            self.pending.iter().map(|(uid, (name, _))| (uid, name)),
        );
        mesh.telemetry.proxies_pending(self.pending.len());
        if self.is_synced && self.pending.is_empty() {
            self.blocker = None;
        } else if self.blocker.is_none() {
            self.blocker = Some(self.readiness.block(crate::POD_MANAGER));
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests;
