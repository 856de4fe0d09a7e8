//! The server half: delta ADS for any set of resources.
#![allow(clippy::todo, unused_variables, reason = "signatures first")]

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::proto::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;

/// The resources that are served. Cheap to clone; clones share the set.
#[derive(Clone, Debug)]
pub struct Resources {}

impl Default for Resources {
    fn default() -> Self {
        Self::new()
    }
}

impl Resources {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        todo!()
    }

    /// Serves resources of this type without versions, as Istio does for its policies: a client
    /// that comes back gets all of them again.
    pub fn unversioned(&self, type_url: &str) {
        todo!()
    }

    /// Adds or replaces one resource; streams see it at once. Nothing is sent if it is equal.
    pub fn set(&self, type_url: &str, resource: ServedResource) {
        todo!()
    }

    /// Removes one resource.
    pub fn remove(&self, type_url: &str, name: &str) {
        todo!()
    }

    /// Replaces all resources of a type in one step.
    pub fn replace(&self, type_url: &str, resources: Vec<ServedResource>) {
        todo!()
    }
}

/// One resource to serve.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ServedResource {
    /// The primary name.
    pub name: Arc<str>,
    /// Other names by which it can be asked for.
    pub aliases: Vec<Arc<str>>,
    /// The encoded message, without an envelope.
    pub body: Bytes,
}

impl ServedResource {
    /// A resource without aliases.
    pub fn new(name: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            aliases: Vec::new(),
            body: body.into(),
        }
    }

    /// A workload API resource; name and aliases are taken from it as Istio does.
    #[must_use]
    pub fn address(address: &crate::proto::workload::Address) -> Self {
        todo!()
    }

    /// Adds another name.
    #[must_use]
    pub fn alias(mut self, alias: impl Into<Arc<str>>) -> Self {
        self.aliases.push(alias.into());
        self
    }
}

/// Serves [`Resources`] over gRPC.
#[derive(Clone, Debug)]
pub struct AdsService {}

impl AdsService {
    /// A service over `resources`.
    #[must_use]
    pub fn new(resources: Resources) -> Self {
        todo!()
    }

    /// Reports what clients ask for and answer.
    #[must_use]
    pub fn observer(self, observer: Arc<dyn Observer>) -> Self {
        todo!()
    }
}

/// Sees what clients do.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A client opened a stream and said who it is.
    fn opened(&self, node: &str) {
        let _ = node;
    }

    /// A client accepted (`error` is `None`) or refused what was sent under `nonce`.
    fn answered(&self, answer: &Answer<'_>) {
        let _ = answer;
    }

    /// A stream ended.
    fn closed(&self, node: &str) {
        let _ = node;
    }
}

/// See [`Observer::answered`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Answer<'a> {
    /// The client's identifier.
    pub node: &'a str,
    /// The type of the resources.
    pub type_url: &'a str,
    /// Which response.
    pub nonce: &'a str,
    /// The refusal's text.
    pub error: Option<&'a str>,
}

/// The tonic service that carries an [`AdsService`]; give it to a tonic router.
pub type AdsServer = AggregatedDiscoveryServiceServer<AdsService>;
