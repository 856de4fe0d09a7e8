//! `ServiceEntries` and `WorkloadEntries`: what lives outside the cluster.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error};

use super::{
    metadata::{Labels, Metadata},
    names,
};

/// An Istio `ServiceEntry`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServiceEntry {
    pub(crate) metadata: Metadata,
    pub(crate) spec: ServiceEntrySpec,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) status: ServiceEntryStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceEntrySpec {
    #[serde(deserialize_with = "names::hosts")]
    pub(crate) hosts: Vec<Arc<str>>,
    #[serde(default, deserialize_with = "networks")]
    pub(crate) addresses: Vec<IpNet>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) ports: Vec<EntryPort>,
    #[serde(default)]
    pub(crate) resolution: Resolution,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub(crate) workload_selector: Option<WorkloadSelector>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) subject_alt_names: Vec<Arc<str>>,
}

/// Addresses that a controller has allocated.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ServiceEntryStatus {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) addresses: Vec<AllocatedAddress>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AllocatedAddress {
    pub(crate) value: IpAddr,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) host: Arc<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct WorkloadSelector {
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) labels: Labels,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntryPort {
    #[serde(deserialize_with = "names::port")]
    pub(crate) number: u16,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) name: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) protocol: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) target_port: u16,
}

/// How a `ServiceEntry`'s endpoints are found.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) enum Resolution {
    #[serde(rename = "DNS")]
    Dns,
    #[serde(rename = "DNS_ROUND_ROBIN")]
    DnsRoundRobin,
    #[serde(rename = "DYNAMIC_DNS")]
    DynamicDns,
    #[default]
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "STATIC")]
    Static,
}

/// An Istio `WorkloadEntry`: one machine outside the cluster.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WorkloadEntry {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Endpoint,
}

/// A `WorkloadEntry`'s spec, and an endpoint written inside a `ServiceEntry`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    #[serde(deserialize_with = "names::endpoint")]
    pub(crate) address: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) ports: BTreeMap<Arc<str>, u16>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) labels: Labels,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) network: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) locality: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    pub(crate) weight: u32,
    #[serde(default, deserialize_with = "names::optional")]
    pub(crate) service_account: Arc<str>,
}

/// Addresses, with or without a prefix length.
fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let mut networks = Vec::new();
    for text in Option::<Vec<Arc<str>>>::deserialize(from)?.unwrap_or_default() {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => text.parse::<IpNet>().ok(),
        };
        networks.push(network.ok_or_else(|| {
            D::Error::custom(format!(
                "`{}` is neither an IP address nor a network",
                text.escape_debug()
            ))
        })?);
    }
    Ok(networks)
}
