//! Which pods are served now, for the dump.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use meshwright_istio_surface::config_dump::ConnectionProtocol;

use crate::mesh::PodName;
use crate::pod::Pod;

/// The pods of the node as they were last published.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pods: ArcSwap<Vec<ServedPod>>,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct ServedPod {
    pub(crate) uid: Arc<str>,
    pub(crate) name: PodName,
    /// None while its proxy could not be started.
    pub(crate) pod: Option<Arc<Pod>>,
}

/// A pod's own open connections, by the client's address.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    open: Mutex<BTreeMap<SocketAddr, OutgoingConnection>>,
}

/// One of a pod's own connections.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingConnection {
    /// Where the application wanted to go.
    pub(crate) original: SocketAddr,
    /// Where it was sent.
    pub(crate) actual: SocketAddr,
    /// How.
    pub(crate) protocol: ConnectionProtocol,
}

/// Keeps a connection listed until it is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    pod: Arc<Pod>,
    from: SocketAddr,
}

impl Served {
    /// Replaces what is shown.
    pub(crate) fn publish<'a>(
        &self,
        running: impl Iterator<Item = &'a Arc<Pod>>,
        pending: impl Iterator<Item = (&'a Arc<str>, &'a PodName)>,
    ) {
        let running = running.map(|pod| ServedPod {
            uid: Arc::clone(&pod.uid),
            name: pod.name.clone(),
            pod: Some(Arc::clone(pod)),
        });
        let pending = pending.map(|(uid, name)| ServedPod {
            uid: Arc::clone(uid),
            name: name.clone(),
            pod: None,
        });
        self.pods.store(Arc::new(running.chain(pending).collect()));
    }

    /// Returns the pods as they were last published.
    pub(crate) fn pods(&self) -> Arc<Vec<ServedPod>> {
        self.pods.load_full()
    }
}

impl Outgoing {
    /// Lists a connection of `pod`.
    pub(crate) fn list(pod: &Arc<Pod>, from: SocketAddr, connection: OutgoingConnection) -> Listed {
        let mut open = pod
            .outgoing
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.insert(from, connection);
        Listed {
            pod: Arc::clone(pod),
            from,
        }
    }

    /// Returns what is open now.
    pub(crate) fn snapshot(&self) -> Vec<(SocketAddr, OutgoingConnection)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter()
            .map(|(from, connection)| (*from, connection.clone()))
            .collect()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut open = self
            .pod
            .outgoing
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.from);
    }
}
