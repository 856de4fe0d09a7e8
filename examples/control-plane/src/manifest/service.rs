//! Services.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Deserializer, de};

use super::{metadata::Metadata, names};

/// A Kubernetes Service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) metadata: Metadata,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) r#type: Arc<str>,
    #[serde(rename = "clusterIP", default, deserialize_with = "cluster_ip")]
    cluster_ip: Option<IpAddr>,
    #[serde(rename = "clusterIPs", default, deserialize_with = "cluster_ips")]
    cluster_ips: Vec<IpAddr>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) ip_families: Vec<IpFamily>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) selector: BTreeMap<Arc<str>, Arc<str>>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) ports: Vec<ServicePort>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) publish_not_ready_addresses: bool,
    #[serde(default)]
    pub(crate) internal_traffic_policy: Option<InternalTrafficPolicy>,
    #[serde(default)]
    pub(crate) traffic_distribution: Option<Arc<str>>,
}

impl ServiceSpec {
    /// Virtual addresses; none for a headless service.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        if self.cluster_ips.is_empty() {
            self.cluster_ip.into_iter().collect()
        } else {
            self.cluster_ips.clone()
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(crate) enum IpFamily {
    IPv4,
    IPv6,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(crate) enum InternalTrafficPolicy {
    Cluster,
    Local,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServicePort {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) name: Arc<str>,
    #[serde(deserialize_with = "names::port")]
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) target_port: Option<TargetPort>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) protocol: Arc<str>,
    #[serde(default)]
    pub(crate) app_protocol: Option<Arc<str>>,
}

/// Where a service port goes on an endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum TargetPort {
    Name(Arc<str>),
    Number(u16),
}

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Written as a number or as text; text may be a number too.
        let text = Arc::<str>::deserialize(from)?;
        if text.bytes().all(|c| c.is_ascii_digit()) {
            match text.parse() {
                Ok(0) | Err(_) => Err(de::Error::custom(format!("`{text}` is not a port"))),
                Ok(port) => Ok(Self::Number(port)),
            }
        } else {
            Ok(Self::Name(text))
        }
    }
}

fn cluster_ip<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<Arc<str>>::deserialize(from)?.as_deref() {
        None => Ok(None),
        Some(text) => address(text),
    }
}

fn cluster_ips<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpAddr>, D::Error> {
    let mut addresses = Vec::new();
    for text in Option::<Vec<Arc<str>>>::deserialize(from)?.unwrap_or_default() {
        addresses.extend(address(&text)?);
    }
    Ok(addresses)
}

/// `None` is how a headless service is written.
fn address<E: de::Error>(text: &str) -> Result<Option<IpAddr>, E> {
    if text.is_empty() || text == "None" {
        return Ok(None);
    }
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(E::custom(format!(
            "`{}` is not an IP address",
            text.escape_debug()
        ))),
    }
}
