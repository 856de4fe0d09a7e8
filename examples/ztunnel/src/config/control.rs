//! The control plane, the certificate authority, and what the proxy tells them about itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use meshwright_istio_surface::env::{Header, Roots, Token};

/// An ADS server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ControlPlane {
    /// Its address, always `https` (`XDS_ADDRESS`, else `discoveryAddress`).
    pub uri: Uri,
    /// Roots that its certificate must lead to (`XDS_ROOT_CA`).
    pub roots: Roots,
    /// A second host name that its certificate may carry (`ALT_XDS_HOSTNAME`).
    pub alternate_host: Option<String>,
    /// What authenticates the proxy (`AUTH_TOKEN`).
    pub token: Token,
    /// Extra request metadata (`XDS_HEADER_*`). Secret: never printed.
    pub headers: Vec<Header>,
}

/// Who signs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Issuing {
    /// Istio's certificate service, which istiod serves.
    IstioCa(IstioCa),
    /// A certificate authority made in this process: development only
    /// (`FAKE_CA=true` or `MESHWRIGHT_CA=self-signed`).
    SelfSigned,
}

/// Istio's certificate service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IstioCa {
    /// Its address, always `https` (`CA_ADDRESS`).
    pub uri: Uri,
    /// Roots that its certificate must lead to (`CA_ROOT_CA`).
    pub roots: Roots,
    /// A second host name that its certificate may carry (`ALT_CA_HOSTNAME`).
    pub alternate_host: Option<String>,
    /// What authenticates the proxy (`AUTH_TOKEN`).
    pub token: Token,
    /// Extra request metadata (`CA_HEADER_*`). Secret: never printed.
    pub headers: Vec<Header>,
}

/// Where a static picture of the mesh is read from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LocalSource {
    /// YAML in the variable itself.
    Inline(String),
    /// A YAML file.
    Path(PathBuf),
}

/// Who and where this proxy is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node {
    /// Name of the node (`NODE_NAME`); without it every workload counts as local.
    pub name: Option<Arc<str>>,
    /// The proxy's pod (`POD_NAME`).
    pub pod_name: Option<Arc<str>>,
    /// Its namespace (`POD_NAMESPACE`).
    pub pod_namespace: Option<Arc<str>>,
    /// Its service account (`SERVICE_ACCOUNT`).
    pub service_account: Option<Arc<str>>,
    /// Its address, only told to the control plane (`INSTANCE_IP`).
    pub instance_ip: IpAddr,
    /// Id of the network that the node is in (`NETWORK`); empty is the default network.
    pub network: Arc<str>,
    /// Cluster id (`CLUSTER_ID`).
    pub cluster_id: Arc<str>,
    /// Suffix of service names (`CLUSTER_DOMAIN`).
    pub cluster_domain: Arc<str>,
    /// Trust domain of the proxy's own identity, and of the self-signed authority (`TRUST_DOMAIN`).
    pub trust_domain: String,
    /// Lifetime asked for in certificate requests (`SECRET_TTL`).
    pub secret_ttl: Duration,
    /// `proxyMetadata` and `ISTIO_META_*`, prefix removed.
    pub metadata: BTreeMap<String, String>,
    /// `ISTIO_METAJSON_*`, prefix removed.
    pub metadata_json: BTreeMap<String, serde_json::Value>,
}

/// The pod that the proxy itself runs in.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OwnWorkload {
    /// Pod name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

/// What happens to policies that cannot be evaluated.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum PolicyMode {
    /// As Istio's ztunnel decides, with fail-closed conversion.
    #[default]
    IstioCompatible,
    /// What cannot be evaluated denies.
    Strict,
}

impl Node {
    /// Returns the proxy's own pod if all three of its names are known.
    #[must_use]
    pub fn own_workload(&self) -> Option<OwnWorkload> {
        Some(OwnWorkload {
            name: self.pod_name.clone()?,
            namespace: self.pod_namespace.clone()?,
            service_account: self.service_account.clone()?,
        })
    }
}
