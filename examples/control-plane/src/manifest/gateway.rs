//! Gateways, as far as they are waypoints.

use std::sync::Arc;

use serde::Deserialize;

use super::{
    metadata::{Labels, Metadata},
    names,
};

/// A Gateway API Gateway.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Gateway {
    pub(crate) metadata: Metadata,
    pub(crate) spec: GatewaySpec,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) status: GatewayStatus,
}

/// A Gateway API `GatewayClass`: its labels are defaults for its gateways.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GatewayClass {
    pub(crate) metadata: Metadata,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewaySpec {
    #[serde(deserialize_with = "names::subdomain")]
    pub(crate) gateway_class_name: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) listeners: Vec<Listener>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listener {
    pub(crate) port: u16,
    pub(crate) protocol: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) allowed_routes: AllowedRoutes,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct AllowedRoutes {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) namespaces: RouteNamespaces,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RouteNamespaces {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) from: FromNamespaces,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) selector: Selector,
}

/// Which namespaces may use a waypoint.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) enum FromNamespaces {
    All,
    None,
    #[default]
    Same,
    Selector,
}

/// A label selector; expressions other than equality are refused rather than widened.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Selector {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) match_labels: Labels,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct GatewayStatus {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) addresses: Vec<GatewayAddress>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GatewayAddress {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) r#type: Arc<str>,
    #[serde(deserialize_with = "names::endpoint")]
    pub(crate) value: Arc<str>,
}
