//! `EndpointSlices`: endpoints that somebody wrote down, of Services without a selector.

use std::sync::Arc;

use serde::Deserialize;

use super::{metadata::Metadata, names};

/// A Kubernetes `EndpointSlice`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Metadata,
    pub(crate) address_type: AddressType,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) endpoints: Vec<SliceEndpoint>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) ports: Vec<SlicePort>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(crate) enum AddressType {
    #[serde(rename = "FQDN")]
    Fqdn,
    IPv4,
    IPv6,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SliceEndpoint {
    #[serde(default, deserialize_with = "names::endpoints")]
    pub(crate) addresses: Vec<Arc<str>>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) conditions: SliceConditions,
    #[serde(default)]
    pub(crate) target_ref: Option<SliceTarget>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct SliceConditions {
    /// Unknown counts as ready.
    #[serde(default)]
    pub(crate) ready: Option<bool>,
}

/// What an endpoint is, if Kubernetes knows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SliceTarget {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) kind: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) name: Arc<str>,
}

/// A port of all endpoints of a slice; it has the name of the service's port.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SlicePort {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) name: Arc<str>,
    /// Absent: every port, which means nothing here.
    #[serde(default)]
    pub(crate) port: Option<u16>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) protocol: Arc<str>,
}

impl EndpointSlice {
    /// The service that it belongs to, in its own namespace.
    pub(crate) fn service(&self) -> Option<&Arc<str>> {
        self.metadata.label("kubernetes.io/service-name")
    }
}

impl SliceEndpoint {
    /// The pod that it is, in the slice's namespace.
    pub(crate) fn pod(&self) -> Option<&Arc<str>> {
        let target = self.target_ref.as_ref()?;
        (&*target.kind == "Pod").then_some(&target.name)
    }
}
