//! Processes of a world: the control plane and the proxies.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use super::{CONTROL_PLANE, Node, World, lock};
use crate::{
    Proxy, ProxySpec, Space, Step, WorldError, control_plane,
    fabric::{Fabric, addresses},
};

impl World {
    /// Starts the control plane and waits until it serves.
    ///
    /// # Errors
    ///
    /// Fails when it does not get ready.
    pub fn start_control_plane(&self) -> Result<(), WorldError> {
        let process = control_plane::start(self)?;
        *lock(&self.control_plane) = Some(process);
        Ok(())
    }

    /// Ends the control plane at once.
    ///
    /// # Errors
    ///
    /// Fails when it does not run.
    pub fn kill_control_plane(&self) -> Result<(), WorldError> {
        match lock(&self.control_plane).take() {
            Some(process) => process.kill(),
            None => Err(WorldError::new("find the control plane")),
        }
    }

    /// Returns what the control plane has printed since it started first.
    ///
    /// # Errors
    ///
    /// Fails when there is no log.
    pub fn control_plane_log(&self) -> Result<String, WorldError> {
        std::fs::read_to_string(self.dir().join("control-plane.log"))
            .step("read the control plane's log")
    }

    /// Returns where the control plane listens.
    pub fn control_plane_addr(&self) -> SocketAddr {
        let [v4, _v6] = Fabric::gateways();
        (v4, CONTROL_PLANE).into()
    }

    /// Returns the settings of a node's proxy, to be changed before a start.
    pub fn proxy_spec(&self, node: &Node, name: &str) -> ProxySpec {
        let url = format!("https://{}", self.control_plane_addr());
        let file = |name: &str| self.dir().join(name).to_string_lossy().into_owned();
        let spec = ProxySpec::new(name)
            .env("XDS_ADDRESS", &url)
            .env("CA_ADDRESS", &url)
            .env("XDS_ROOT_CA", file(control_plane::ROOT))
            .env("CA_ROOT_CA", file(control_plane::ROOT))
            .env("AUTH_TOKEN", file(&control_plane::token_file(node.name())))
            .env("INPOD_UDS", node.agent.socket().to_string_lossy())
            .env("NODE_NAME", node.name())
            .env("CLUSTER_ID", "Kubernetes")
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", "istio-system")
            .env("INSTANCE_IP", node.ip().to_string())
            .env("ISTIO_META_DNS_CAPTURE", "false")
            .env("TERMINATION_GRACE_PERIOD_SECONDS", "10")
            .env("ZTUNNEL_WORKER_THREADS", "2")
            .env("RUST_LOG", "info");
        self.proxy_env
            .iter()
            .fold(spec, |spec, (name, value)| spec.env(name, value))
    }

    /// Starts a node's proxy, without waiting for it.
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be made.
    pub fn start_proxy(&self, node: &Node) -> Result<Arc<Proxy>, WorldError> {
        let spec = self.proxy_spec(node, &format!("ztunnel-{}", node.name()));
        let proxy = Arc::new(self.launch(node.space(), &spec)?);
        drop(node.replace_proxy(Some(Arc::clone(&proxy))));
        Ok(proxy)
    }

    /// Makes one more namespace at the switch, for a proxy beside a node's own.
    ///
    /// # Errors
    ///
    /// Fails when there are a hundred already.
    pub fn outpost(&self, name: &str) -> Result<Space, WorldError> {
        let member = self.outposts.fetch_add(1, Ordering::Relaxed);
        let member = 100_u8
            .checked_add(member)
            .ok_or_else(|| WorldError::new("find an address for an outpost"))?;
        self.fabric.plug(name, &addresses(0, member))
    }

    /// Starts a proxy in any namespace.
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be made.
    pub fn launch(&self, space: &Space, spec: &ProxySpec) -> Result<Proxy, WorldError> {
        spec.start(&self.launcher, space, self.dir())
    }
}
