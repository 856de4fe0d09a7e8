//! Who asks: the node of the first request.

use std::collections::BTreeMap;

use prost_types::{ListValue, Struct, Value, value::Kind};

use crate::proto::discovery;

/// Describes this client to the control plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    id: String,
    metadata: BTreeMap<String, NodeValue>,
}

impl Node {
    /// The node of a proxy for a whole machine, as Istio's control plane expects it.
    ///
    /// The identifier is `ztunnel~IP~NAME.NAMESPACE~NAMESPACE.svc.cluster.local`; metadata gets
    /// `NAME`, `NAMESPACE`, `INSTANCE_IPS` and `NODE_NAME`. Others are added by
    /// [`metadata`](Self::metadata), such as `CLUSTER_ID`.
    #[must_use]
    pub fn ztunnel(
        instance_ip: &str,
        pod_name: &str,
        pod_namespace: &str,
        node_name: &str,
    ) -> Self {
        Self::new(format!(
            "ztunnel~{instance_ip}~{pod_name}.{pod_namespace}~{pod_namespace}.svc.cluster.local"
        ))
        .metadata("NAME", pod_name)
        .metadata("NAMESPACE", pod_namespace)
        .metadata("INSTANCE_IPS", instance_ip)
        .metadata("NODE_NAME", node_name)
    }

    /// A node with this identifier and no metadata.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            metadata: BTreeMap::new(),
        }
    }

    /// Adds a metadata field; a second value for one key replaces the first.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<NodeValue>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The identifier.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn into_message(self) -> discovery::Node {
        discovery::Node {
            id: self.id,
            metadata: Some(structure(self.metadata)),
            ..discovery::Node::default()
        }
    }
}

/// A value of metadata, with the shapes of JSON.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum NodeValue {
    /// True or false.
    Bool(bool),
    /// Values in order.
    List(Vec<Self>),
    /// Values by name.
    Map(BTreeMap<String, Self>),
    /// Nothing.
    Null,
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

impl NodeValue {
    fn into_message(self) -> Value {
        let kind = match self {
            Self::Bool(value) => Kind::BoolValue(value),
            Self::List(values) => Kind::ListValue(ListValue {
                values: values.into_iter().map(Self::into_message).collect(),
            }),
            Self::Map(fields) => Kind::StructValue(structure(fields)),
            Self::Null => Kind::NullValue(0),
            Self::Number(value) => Kind::NumberValue(value),
            Self::Text(value) => Kind::StringValue(value),
        };
        Value { kind: Some(kind) }
    }
}

fn structure(fields: BTreeMap<String, NodeValue>) -> Struct {
    let fields = fields.into_iter();
    Struct {
        fields: fields.map(|(k, v)| (k, v.into_message())).collect(),
    }
}

impl From<&str> for NodeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for NodeValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
