//! The control plane, the certificate authority, and what the proxy tells them about itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use meshwright_identity::TrustDomain;
use meshwright_istio_surface::env::{Checker, Header, InvalidValue, ProxyConfig, Roots, Token};

/// Where Istio mounts the roots of the control plane.
const ROOTS: &str = "./var/run/secrets/istio/root-cert.pem";
/// Where Istio mounts the service account's token.
const TOKEN: &str = "./var/run/secrets/tokens/istio-token";
/// The control plane's address inside a cluster.
const ISTIOD: &str = "https://istiod.istio-system.svc:15012";
/// Its address elsewhere.
const LOCAL: &str = "https://localhost:15012";
/// Lifetime of certificates that is asked for.
const SECRET_TTL: Duration = Duration::from_secs(24 * 3600);

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

impl ControlPlane {
    pub(super) fn read(checker: &mut Checker<'_>, proxy: &ProxyConfig) -> Option<Self> {
        let alternate_host = checker.text("ALT_XDS_HOSTNAME").map(str::to_owned);
        let headers = checker.headers("XDS_HEADER_");
        let address = address(checker, "XDS_ADDRESS", proxy);
        if address.is_empty() {
            return None;
        }
        Some(Self {
            uri: checker.server("XDS_ADDRESS", &address).unwrap_or_default(),
            roots: checker.roots("XDS_ROOT_CA", Path::new(ROOTS)),
            alternate_host,
            token: checker.token("AUTH_TOKEN", Path::new(TOKEN)),
            headers,
        })
    }
}

impl Issuing {
    pub(super) fn read(checker: &mut Checker<'_>, proxy: &ProxyConfig) -> Self {
        let fake = checker.boolean("FAKE_CA", false);
        let chosen = checker.word("MESHWRIGHT_CA", &["istio", "self-signed"]);
        if fake && chosen == Some("istio") {
            let with = "MESHWRIGHT_CA";
            checker.fault("FAKE_CA", Some("true"), InvalidValue::Conflict { with });
        }
        if fake || chosen == Some("self-signed") {
            checker.note(
                "DEVELOPMENT ONLY: certificates are signed inside this process, so no other node \
                 will accept them",
            );
            return Self::SelfSigned;
        }
        Self::IstioCa(IstioCa::read(checker, proxy))
    }
}

impl IstioCa {
    fn read(checker: &mut Checker<'_>, proxy: &ProxyConfig) -> Self {
        let address = address(checker, "CA_ADDRESS", proxy);
        if address.is_empty() {
            checker.fault("CA_ADDRESS", None, InvalidValue::Required);
        }
        let uri = (!address.is_empty()).then(|| checker.server("CA_ADDRESS", &address));
        Self {
            uri: uri.flatten().unwrap_or_default(),
            roots: checker.roots("CA_ROOT_CA", Path::new(ROOTS)),
            alternate_host: checker.text("ALT_CA_HOSTNAME").map(str::to_owned),
            token: checker.token("AUTH_TOKEN", Path::new(TOKEN)),
            headers: checker.headers("CA_HEADER_"),
        }
    }
}

/// The variable, also if it is empty; else the mesh's; else where istiod usually is.
fn address(checker: &mut Checker<'_>, name: &str, proxy: &ProxyConfig) -> String {
    let in_cluster = checker.is_set("KUBERNETES_SERVICE_HOST");
    let usual = if in_cluster { ISTIOD } else { LOCAL };
    let of_mesh = proxy.discovery_address.as_deref();
    checker.raw(name).or(of_mesh).unwrap_or(usual).to_owned()
}

impl LocalSource {
    pub(super) fn read(checker: &mut Checker<'_>) -> Option<Self> {
        let path = checker.path("LOCAL_XDS_PATH");
        let inline = checker.text("LOCAL_XDS");
        match (path, inline) {
            (Some(path), Some(_)) => {
                let path = path.display().to_string();
                let with = "LOCAL_XDS";
                checker.fault(
                    "LOCAL_XDS_PATH",
                    Some(&path),
                    InvalidValue::Conflict { with },
                );
                None
            }
            (Some(path), None) => {
                if !path.exists() {
                    let path = path.display().to_string();
                    checker.fault("LOCAL_XDS_PATH", Some(&path), InvalidValue::NoSuchFile);
                }
                Some(Self::Path(path))
            }
            (None, inline) => inline.map(|text| Self::Inline(text.to_owned())),
        }
    }
}

impl Node {
    pub(super) fn read(checker: &mut Checker<'_>, proxy: &ProxyConfig) -> Self {
        let mut text = |name| checker.text(name).map(Arc::<str>::from);
        let of_metadata = proxy
            .proxy_metadata
            .get("CLUSTER_ID")
            .map(|id| id.as_str().into());
        let (name, pod_name) = (text("NODE_NAME"), text("POD_NAME"));
        let (pod_namespace, service_account) = (text("POD_NAMESPACE"), text("SERVICE_ACCOUNT"));
        let network = text("NETWORK").unwrap_or_default();
        let cluster_domain = text("CLUSTER_DOMAIN").unwrap_or_else(|| "cluster.local".into());
        let trust_domain = text("TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".into());
        let cluster_id = of_metadata.or_else(|| text("CLUSTER_ID"));
        if TrustDomain::parse(&trust_domain).is_err() {
            checker.fault(
                "TRUST_DOMAIN",
                Some(&trust_domain),
                InvalidValue::TrustDomain,
            );
        }
        Self {
            name,
            pod_name,
            pod_namespace,
            service_account,
            instance_ip: checker
                .ip_addr("INSTANCE_IP")
                .unwrap_or(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1))),
            network,
            cluster_id: cluster_id.unwrap_or_else(|| "Kubernetes".into()),
            cluster_domain,
            trust_domain: trust_domain.as_ref().to_owned(),
            secret_ttl: secret_ttl(checker),
            metadata: proxy.proxy_metadata.clone(),
            metadata_json: metadata_json(checker),
        }
    }
}

/// Below ten seconds no certificate could be renewed before it expires.
fn secret_ttl(checker: &mut Checker<'_>) -> Duration {
    let year = 366 * 24 * 3600;
    checker
        .duration_within("SECRET_TTL", 10, year)
        .unwrap_or(SECRET_TTL)
}

fn metadata_json(checker: &mut Checker<'_>) -> BTreeMap<String, serde_json::Value> {
    let mut values = BTreeMap::new();
    for (name, text) in checker.with_prefix("ISTIO_METAJSON_") {
        let key = name.strip_prefix("ISTIO_METAJSON_").unwrap_or(name);
        match serde_json::from_str(text) {
            Ok(value) => {
                values.insert(key.to_owned(), value);
            }
            Err(_not_json) => checker.fault(name, Some(text), InvalidValue::Json),
        }
    }
    values
}

impl PolicyMode {
    pub(super) fn read(checker: &mut Checker<'_>) -> Self {
        match checker.word("MESHWRIGHT_POLICY_MODE", &["istio-compatible", "strict"]) {
            Some("strict") => Self::Strict,
            _ => Self::IstioCompatible,
        }
    }
}
