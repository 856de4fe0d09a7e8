//! ZDS: the protocol by which a node agent hands pods' network namespaces to the node proxy.

use crate::events::Events;
use crate::netns::Netns;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Who a pod is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PodInfo {
    /// Name of the pod.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
}

impl PodInfo {
    /// Makes a record of its three parts.
    pub fn new(
        name: impl Into<String>,
        namespace: impl Into<String>,
        service_account: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }
}

/// What the agent wants.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Order {
    /// Serve this pod.
    Add {
        /// The pod's UID.
        uid: String,
        /// Who it is.
        info: PodInfo,
        /// Its network namespace.
        netns: Netns,
    },
    /// Stop serving this pod.
    Del {
        /// The pod's UID.
        uid: String,
    },
    /// The agent knows the pod but not its namespace: go on if it is served.
    Keep {
        /// The pod's UID.
        uid: String,
    },
    /// Every pod of the node was named: stop serving all others.
    SnapshotSent,
}

/// A wish of the agent that must be answered; dropping it refuses.
#[derive(Debug)]
pub struct Request {
    order: Order,
}

impl Request {
    /// What is wanted.
    #[must_use]
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// Acknowledges.
    pub fn accept(self) -> io::Result<()> {
        todo!()
    }

    /// Answers with an error text.
    pub fn refuse(self, reason: &str) -> io::Result<()> {
        let _ = reason;
        todo!()
    }
}

/// What a [`Client`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Connected: a snapshot follows. Pods that run keep running.
    Connected,
    /// The connection is lost; the next call connects again.
    Disconnected,
    /// A wish that must be answered.
    Request(Request),
}

/// Settings of a [`Client`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClientConfig {}

/// The proxy's end.
#[derive(Debug)]
pub struct Client {}

impl Client {
    /// Prepares a client; connecting happens in [`next`](Self::next).
    pub fn new(path: impl Into<PathBuf>, config: ClientConfig, events: Arc<dyn Events>) -> Self {
        let _ = (path.into(), config, events);
        Self {}
    }

    /// Waits for the next event; connects and reconnects by itself, for ever. Cancel safe.
    pub async fn next(&mut self) -> ClientEvent {
        todo!()
    }
}

/// What became of a message to every connected proxy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// Proxies that acknowledged.
    pub acknowledged: usize,
    /// Texts of the proxies that refused.
    pub refused: Vec<String>,
    /// Proxies that did not answer in time or were lost; their connections are closed.
    pub lost: usize,
}

/// Settings of a [`Server`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ServerConfig {}

/// The agent's end; dropping it closes the socket and every connection.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Listens on a Unix socket; a stale file is replaced. Call it within a tokio runtime.
    pub fn bind(
        path: impl Into<PathBuf>,
        config: ServerConfig,
        events: Arc<dyn Events>,
    ) -> io::Result<Self> {
        let _ = (path.into(), config, events);
        Ok(Self {})
    }

    /// Hands a pod to every connected proxy, and to each one that connects later.
    pub async fn add(&self, uid: &str, info: PodInfo, netns: Netns) -> io::Result<Delivery> {
        let _ = (uid, info, netns);
        todo!()
    }

    /// Names a pod whose namespace is unknown: proxies that connect later keep serving it.
    pub fn keep(&self, uid: &str) {
        let _ = uid;
        todo!()
    }

    /// Takes a pod away from every connected proxy.
    pub async fn del(&self, uid: &str) -> Delivery {
        let _ = uid;
        todo!()
    }

    /// Counts the proxies that have their snapshot.
    #[must_use]
    pub fn proxies(&self) -> usize {
        todo!()
    }
}
