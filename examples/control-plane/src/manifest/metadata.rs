//! The part that every object has.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::names;

/// Labels or annotations.
pub(crate) type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Metadata of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(deserialize_with = "names::subdomain")]
    pub(crate) name: Arc<str>,
    #[serde(default = "default_namespace", deserialize_with = "names::label")]
    pub(crate) namespace: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) labels: Labels,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) annotations: Labels,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) generate_name: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) owner_references: Vec<OwnerReference>,
    #[serde(default)]
    pub(crate) deletion_timestamp: Option<Arc<str>>,
}

fn default_namespace() -> Arc<str> {
    Arc::from("default")
}

impl Metadata {
    pub(crate) fn label(&self, name: &str) -> Option<&Arc<str>> {
        self.labels.get(name)
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(|value| &**value)
    }
}

/// What controls an object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct OwnerReference {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) kind: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) name: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) controller: bool,
}

/// An object of which only the metadata matters: Namespace, Node, `ServiceAccount`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) metadata: Metadata,
}
