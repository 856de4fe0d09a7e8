//! Pods, and the small stand-in for a pod that a hand-written mesh needs.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::Deserialize;

use super::{metadata::Metadata, names};

/// One running thing with addresses: what a Pod and a Workload are read into.
#[derive(Clone, Debug, Default)]
pub(crate) struct Instance {
    pub(crate) metadata: Metadata,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) node: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) host_network: bool,
    pub(crate) ready: bool,
    /// Succeeded or failed: it will never serve again.
    pub(crate) ended: bool,
    /// TCP ports by name.
    pub(crate) ports: BTreeMap<Arc<str>, u16>,
    pub(crate) extra: Extra,
}

/// What only a Workload can say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    /// Whether this was a Workload.
    pub(crate) is_hand_written: bool,
    pub(crate) capture: Option<bool>,
    pub(crate) waypoint: Option<Arc<str>>,
    pub(crate) network: Option<Arc<str>>,
    pub(crate) locality: Option<Arc<str>>,
    pub(crate) weight: Option<u32>,
}

/// A Kubernetes Pod.
#[derive(Debug, Deserialize)]
pub(crate) struct Pod {
    metadata: Metadata,
    #[serde(default, deserialize_with = "names::or_default")]
    spec: PodSpec,
    #[serde(default, deserialize_with = "names::or_default")]
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default, deserialize_with = "names::optional")]
    node_name: Arc<str>,
    #[serde(default, deserialize_with = "names::optional")]
    service_account_name: Arc<str>,
    #[serde(default, deserialize_with = "names::or_default")]
    host_network: bool,
    #[serde(default, deserialize_with = "names::or_default")]
    containers: Vec<Container>,
    #[serde(default, deserialize_with = "names::or_default")]
    init_containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default, deserialize_with = "names::or_default")]
    ports: Vec<ContainerPort>,
    #[serde(default, deserialize_with = "names::or_default")]
    restart_policy: Arc<str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    #[serde(default, deserialize_with = "names::or_default")]
    name: Arc<str>,
    #[serde(deserialize_with = "names::port")]
    container_port: u16,
    #[serde(default, deserialize_with = "names::or_default")]
    protocol: Arc<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(default, deserialize_with = "names::or_default")]
    phase: Arc<str>,
    #[serde(rename = "podIP", default)]
    pod_ip: Option<IpAddr>,
    #[serde(rename = "podIPs", default, deserialize_with = "names::or_default")]
    pod_ips: Vec<PodIp>,
    #[serde(default, deserialize_with = "names::or_default")]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: IpAddr,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: Arc<str>,
    status: Arc<str>,
}

impl From<Pod> for Instance {
    fn from(pod: Pod) -> Self {
        let ready = pod.is_ready();
        let ports = pod.ports();
        let status = pod.status;
        let addresses = if status.pod_ips.is_empty() {
            status.pod_ip.into_iter().collect()
        } else {
            status.pod_ips.iter().map(|address| address.ip).collect()
        };
        Self {
            addresses,
            node: pod.spec.node_name,
            service_account: account(pod.spec.service_account_name),
            host_network: pod.spec.host_network,
            ready,
            ended: matches!(&*status.phase, "Succeeded" | "Failed"),
            ports,
            metadata: pod.metadata,
            extra: Extra::default(),
        }
    }
}

impl Pod {
    /// A pod being deleted is not ready. A hand-written pod without conditions is: only a
    /// kubelet writes them.
    fn is_ready(&self) -> bool {
        let condition = self
            .status
            .conditions
            .iter()
            .find(|c| &*c.r#type == "Ready");
        let ready = match condition {
            Some(condition) => &*condition.status == "True",
            None => self.status.conditions.is_empty(),
        };
        ready && self.metadata.deletion_timestamp.is_none()
    }

    /// Named TCP ports; an init container that keeps running is a sidecar with ports of its own.
    fn ports(&self) -> BTreeMap<Arc<str>, u16> {
        let sidecars = self
            .spec
            .init_containers
            .iter()
            .filter(|container| &*container.restart_policy == "Always");
        let mut ports = BTreeMap::new();
        for port in self
            .spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|c| &c.ports)
        {
            if !port.name.is_empty() && matches!(&*port.protocol, "" | "TCP") {
                ports
                    .entry(Arc::clone(&port.name))
                    .or_insert(port.container_port);
            }
        }
        ports
    }
}

/// A pod without one runs as this; the API server fills it in.
fn account(name: Arc<str>) -> Arc<str> {
    if name.is_empty() {
        Arc::from("default")
    } else {
        name
    }
}

/// `kind: Workload` of `meshwright.dev/v1alpha1`: a pod in ten lines.
///
/// This kind is ours, so a field that is not known is a mistake.
#[derive(Debug, Deserialize)]
pub(crate) struct UserWorkload {
    metadata: Metadata,
    spec: UserWorkloadSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UserWorkloadSpec {
    addresses: Vec<IpAddr>,
    #[serde(default, deserialize_with = "names::optional")]
    node: Arc<str>,
    #[serde(default, deserialize_with = "names::optional")]
    service_account: Arc<str>,
    #[serde(default)]
    host_network: bool,
    #[serde(default = "yes")]
    ready: bool,
    #[serde(default)]
    ports: BTreeMap<Arc<str>, u16>,
    #[serde(default)]
    capture: Option<bool>,
    #[serde(default)]
    waypoint: Option<Arc<str>>,
    #[serde(default)]
    network: Option<Arc<str>>,
    #[serde(default)]
    locality: Option<Arc<str>>,
    #[serde(default)]
    weight: Option<u32>,
}

const fn yes() -> bool {
    true
}

impl From<UserWorkload> for Instance {
    fn from(workload: UserWorkload) -> Self {
        let spec = workload.spec;
        Self {
            metadata: workload.metadata,
            addresses: spec.addresses,
            node: spec.node,
            service_account: account(spec.service_account),
            host_network: spec.host_network,
            ready: spec.ready,
            ended: false,
            ports: spec.ports,
            extra: Extra {
                is_hand_written: true,
                capture: spec.capture,
                waypoint: spec.waypoint,
                network: spec.network,
                locality: spec.locality,
                weight: spec.weight,
            },
        }
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Pod::deserialize(from).map(Into::into)
    }
}
