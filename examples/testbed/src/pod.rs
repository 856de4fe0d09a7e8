//! Pods: a namespace with an address, an identity and a place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::Space;

/// What a pod should be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    name: String,
    namespace: String,
    service_account: String,
    node: Option<String>,
    labels: Vec<(String, String)>,
    is_enrolled: bool,
    is_known: bool,
}

impl PodSpec {
    /// Describes a pod in namespace `default`, with a service account of its own name, a label
    /// `app` of its own name, on no node, outside the mesh.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            namespace: "default".into(),
            service_account: name.clone(),
            node: None,
            labels: vec![("app".into(), name.clone())],
            name,
            is_enrolled: false,
            is_known: true,
        }
    }

    /// Places the pod on a node.
    #[must_use]
    pub fn on(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Sets the namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the service account.
    #[must_use]
    pub fn as_account(mut self, account: impl Into<String>) -> Self {
        self.service_account = account.into();
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.labels.retain(|(known, _)| *known != name);
        self.labels.push((name, value.into()));
        self
    }

    /// Puts the pod into the mesh from the start.
    #[must_use]
    pub const fn enrolled(mut self) -> Self {
        self.is_enrolled = true;
        self
    }

    /// Hides the pod from the control plane: a host that the mesh knows nothing of.
    #[must_use]
    pub const fn unknown(mut self) -> Self {
        self.is_known = false;
        self
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// Returns the node, if the pod is on one of this world's.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Returns the labels.
    pub fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    /// Returns whether the pod is in the mesh from the start.
    pub const fn is_enrolled(&self) -> bool {
        self.is_enrolled
    }

    /// Returns whether the control plane is told of the pod.
    pub const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Returns the UID that the API server would have given it: here, its name says all.
    pub fn uid(&self) -> String {
        format!("uid-{}-{}", self.namespace, self.name)
    }
}

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    pub(crate) spec: PodSpec,
    pub(crate) space: Space,
    pub(crate) ips: Vec<IpAddr>,
}

impl Pod {
    /// Returns what it was asked to be.
    pub const fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.spec.name()
    }

    /// Returns its network namespace.
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Returns its addresses, IPv4 first.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Returns its IPv4 address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        self.pick(IpAddr::is_ipv4, port)
    }

    /// Returns its IPv6 address with a port.
    pub fn at_v6(&self, port: u16) -> SocketAddr {
        self.pick(IpAddr::is_ipv6, port)
    }

    /// Returns the SPIFFE ID of its service account in `cluster.local`.
    pub fn identity(&self) -> String {
        format!(
            "spiffe://cluster.local/ns/{}/sa/{}",
            self.spec.namespace(),
            self.spec.service_account()
        )
    }

    /// Returns the UID of its workload in the control plane's messages.
    pub fn workload_uid(&self) -> String {
        format!("Kubernetes//Pod/{}/{}", self.spec.namespace(), self.name())
    }

    fn pick(&self, wanted: fn(&IpAddr) -> bool, port: u16) -> SocketAddr {
        let ip = self.ips.iter().copied().find(wanted);
        // Every pod has both; an unspecified address would fail at once and visibly.
        SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port)
    }
}
