//! A world: the switch, the control plane, nodes with their proxies, pods.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use crate::{
    Launcher, Manifests, Pod, PodSpec, Process, ProcessSpec, Program, Proxy, ProxySpec, Space,
    Step, WorldError,
    agent::Agent,
    apps::{App, Behaviour},
    control_plane,
    fabric::{Fabric, addresses},
    interrupt, manifests,
    wait::eventually,
    wire::Sniffer,
};

/// Longest wait for a process of a world to be ready.
pub const READY: Duration = Duration::from_secs(20);
/// Longest wait for a change of the manifests to reach every proxy.
pub const SPREAD: Duration = Duration::from_secs(10);

/// Port of the control plane at the switch.
const CONTROL_PLANE: u16 = 15012;
/// Group number of pods on no node.
const OUTSIDE: u8 = 200;

/// Collects what a world should be made of.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct WorldBuilder {
    nodes: Vec<String>,
    pods: Vec<PodSpec>,
    manifests: Vec<(String, String)>,
    proxy_env: Vec<(String, String)>,
    is_kept: bool,
}

impl WorldBuilder {
    /// Adds a node with a proxy.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.nodes.push(name.into());
        self
    }

    /// Adds a pod.
    pub fn pod(mut self, pod: PodSpec) -> Self {
        self.pods.push(pod);
        self
    }

    /// Adds a file of manifests that is there from the start.
    pub fn manifest(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.manifests.push((name.into(), text.into()));
        self
    }

    /// Sets a variable of every proxy, `SECRET_TTL` for instance.
    pub fn proxy_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.proxy_env.push((name.into(), value.into()));
        self
    }

    /// Keeps the folder with logs and manifests after the world's end.
    pub const fn keep_files(mut self) -> Self {
        self.is_kept = true;
        self
    }

    /// Builds namespaces, cables and pods only: no control plane, no proxies.
    ///
    /// # Errors
    ///
    /// Fails without the right to make namespaces.
    pub fn build_without_mesh(self) -> Result<World, WorldError> {
        World::bare(&self)
    }

    /// Builds the world and waits until every proxy is ready.
    ///
    /// # Errors
    ///
    /// Fails without the right to make namespaces (see [`privilege`](crate::privilege)), and when
    /// a process does not get ready; the error has the end of its log.
    pub fn build(self) -> Result<World, WorldError> {
        let world = World::bare(&self)?;
        for (name, text) in &self.manifests {
            world.manifests.put(name, text)?;
        }
        world.start_control_plane()?;
        for node in &world.nodes {
            world.start_proxy(node)?;
        }
        for pod in world.pods.iter().filter(|pod| pod.spec().is_enrolled()) {
            world.enrol(pod)?;
        }
        for node in &world.nodes {
            node.proxy()?.ready(READY)?;
        }
        Ok(world)
    }
}

/// A node: a namespace, the agent's end of the handover, the proxy.
#[derive(Debug)]
pub struct Node {
    name: String,
    space: Space,
    ips: [IpAddr; 2],
    agent: Agent,
    proxy: Mutex<Option<Arc<Proxy>>>,
}

impl Node {
    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its namespace.
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Returns its IPv4 address.
    pub const fn ip(&self) -> IpAddr {
        self.ips[0]
    }

    /// Returns the agent's end of the handover.
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Returns the proxy that was started last.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn proxy(&self) -> Result<Arc<Proxy>, WorldError> {
        lock(&self.proxy)
            .clone()
            .ok_or_else(|| WorldError::new(format!("find the proxy of {}", self.name)))
    }

    /// Makes another proxy the node's, and returns the one before.
    pub fn replace_proxy(&self, proxy: Option<Arc<Proxy>>) -> Option<Arc<Proxy>> {
        std::mem::replace(&mut lock(&self.proxy), proxy)
    }
}

/// A mesh on one machine. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: processes first, then what they stand on.
    stand_ins: Mutex<Vec<App>>,
    control_plane: Mutex<Option<Process>>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    proxy_env: Vec<(String, String)>,
    manifests: Manifests,
    outposts: AtomicU8,
    launcher: Launcher,
    fabric: Fabric,
    // Runs the agents' ends; must outlive them.
    #[expect(dead_code, reason = "held for its drop")]
    runtime: Arc<tokio::runtime::Runtime>,
    dir: WorkDir,
}

impl World {
    /// Starts to describe a world.
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    fn bare(plan: &WorldBuilder) -> Result<Self, WorldError> {
        let dir = WorkDir::create(plan.is_kept)?;
        let fabric = Fabric::build()?;
        let launcher = Launcher::start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("agents")
            .enable_all()
            .build()
            .step("start the agents' runtime")?;
        let runtime = Arc::new(runtime);
        control_plane::write_tokens(dir.path(), &plan.nodes)?;
        let mut nodes = Vec::new();
        for (place, name) in (10..).zip(&plan.nodes) {
            let ips = addresses(0, place);
            let socket = dir.path().join(format!("{name}.sock"));
            nodes.push(Node {
                space: fabric.plug(name, &ips)?,
                agent: Agent::start(&runtime, &socket)?,
                name: name.clone(),
                ips,
                proxy: Mutex::default(),
            });
        }
        let manifests = Manifests::create(dir.path())?;
        let mut pods = Vec::new();
        for (member, spec) in (11..).zip(&plan.pods) {
            let pod = place(&fabric, &plan.nodes, spec, member)?;
            if spec.is_known() {
                manifests.put(&file_of(&pod), &manifests::pod(spec, pod.ips(), false))?;
            }
            pods.push(pod);
        }
        Ok(Self {
            stand_ins: Mutex::default(),
            control_plane: Mutex::default(),
            nodes,
            pods,
            proxy_env: plan.proxy_env.clone(),
            manifests,
            outposts: AtomicU8::new(0),
            launcher,
            fabric,
            runtime,
            dir,
        })
    }

    /// Returns the folder with logs, manifests and sockets.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the namespace of the switch, where the wire can be watched.
    pub const fn switch(&self) -> &Space {
        self.fabric.switch()
    }

    /// Keeps the folder with logs and manifests after the world's end, and returns it.
    pub fn keep_files(&self) -> &Path {
        self.dir.is_kept.store(true, Ordering::Relaxed);
        interrupt::keep_at_interrupt(self.dir());
        self.dir()
    }

    /// Returns who starts processes.
    pub const fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    /// Returns the folder that the control plane reads.
    pub const fn manifests(&self) -> &Manifests {
        &self.manifests
    }

    /// Returns every node.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns every pod.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Returns a pod by name.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn pod(&self, name: &str) -> Result<&Pod, WorldError> {
        self.pods
            .iter()
            .find(|pod| pod.name() == name)
            .ok_or_else(|| WorldError::new(format!("find pod {name}")))
    }

    /// Returns a node by name.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn node(&self, name: &str) -> Result<&Node, WorldError> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .ok_or_else(|| WorldError::new(format!("find node {name}")))
    }

    /// Returns the node of a pod.
    ///
    /// # Errors
    ///
    /// Fails for a pod that is on no node.
    pub fn node_of(&self, pod: &Pod) -> Result<&Node, WorldError> {
        match pod.spec().node() {
            Some(node) => self.node(node),
            None => Err(WorldError::new(format!("find the node of {}", pod.name()))),
        }
    }

    /// Starts an app in a pod, on both address families.
    ///
    /// # Errors
    ///
    /// Fails when the port is in use.
    pub fn app(&self, pod: &Pod, port: u16, behaviour: Behaviour) -> Result<App, WorldError> {
        App::start(
            pod.space(),
            (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            behaviour,
        )
    }

    /// Starts an app as a process of its own in a pod: see [`apps`](crate::apps).
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be made.
    pub fn app_process(&self, pod: &Pod, args: &[&str]) -> Result<Process, WorldError> {
        let name = format!("app-{}", pod.name());
        let spec = ProcessSpec::new(Program::App, name).args(args.iter().copied());
        Process::start(&self.launcher, pod.space(), self.dir(), &spec)
    }

    /// Makes the switch answer for a service, as kube-proxy would for pods outside the mesh.
    ///
    /// # Errors
    ///
    /// Fails when the address is in use.
    pub fn stand_in(&self, vip: SocketAddr, backends: &[SocketAddr]) -> Result<(), WorldError> {
        self.fabric.own(vip.ip())?;
        let behaviour = Behaviour::Forward {
            space: self.switch().clone(),
            backends: backends.to_vec(),
        };
        let app = App::start(self.switch(), vip, behaviour)?;
        lock(&self.stand_ins).push(app);
        Ok(())
    }

    /// Starts a capture at the switch.
    ///
    /// # Errors
    ///
    /// Fails without `CAP_NET_RAW`.
    pub fn sniff(&self, marker: &str) -> Result<Sniffer, WorldError> {
        Sniffer::start(self.switch(), marker)
    }

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

    /// Takes a running pod into the mesh: hands it to the node's proxy, then captures its traffic,
    /// then tells the control plane. Nothing in the pod is restarted.
    ///
    /// # Errors
    ///
    /// Fails when the proxy refuses the pod or the rules cannot be applied.
    pub fn enrol(&self, pod: &Pod) -> Result<(), WorldError> {
        self.node_of(pod)?.agent.enrol(pod)?;
        self.announce(pod, true)
    }

    /// Takes a pod out of the mesh, in the reverse order.
    ///
    /// # Errors
    ///
    /// Fails when the rules cannot be removed.
    pub fn evict(&self, pod: &Pod) -> Result<(), WorldError> {
        self.announce(pod, false)?;
        self.node_of(pod)?.agent.evict(pod)
    }

    /// Tells the control plane whether a pod is in the mesh, as the node agent's annotation does.
    ///
    /// # Errors
    ///
    /// Fails when the manifest cannot be written.
    pub fn announce(&self, pod: &Pod, enrolled: bool) -> Result<(), WorldError> {
        if pod.spec().is_known() {
            let text = manifests::pod(pod.spec(), pod.ips(), enrolled);
            self.manifests.put(&file_of(pod), &text)?;
        }
        Ok(())
    }

    /// Shows the control plane a pod in the mesh with other labels, or its own again.
    ///
    /// # Errors
    ///
    /// Fails when the manifest cannot be written.
    pub fn relabel(&self, pod: &Pod, spec: &PodSpec) -> Result<(), WorldError> {
        let text = manifests::pod(spec, pod.ips(), true);
        self.manifests.put(&file_of(pod), &text)
    }

    /// Returns the name of a pod's file of manifests.
    pub fn manifest_of(pod: &Pod) -> String {
        file_of(pod)
    }

    /// Waits until every proxy's dump shows what is looked for.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn everywhere(
        &self,
        what: &str,
        look: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(), WorldError> {
        for node in &self.nodes {
            node.proxy()?.shows(what, SPREAD, &look)?;
        }
        Ok(())
    }

    /// Waits until every proxy knows whether a pod is in the mesh.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn settled(&self, pod: &Pod, enrolled: bool) -> Result<(), WorldError> {
        let uid = pod.workload_uid();
        let protocol = if enrolled { "HBONE" } else { "TCP" };
        self.everywhere(&format!("{uid} by {protocol}"), |dump| {
            listed(dump, "workloads").any(|workload| {
                text(workload, "uid") == uid && text(workload, "protocol") == protocol
            })
        })
    }

    /// Waits until every proxy has, or no longer has, a policy.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn policy_spread(&self, name: &str, present: bool) -> Result<(), WorldError> {
        self.everywhere(&format!("policy {name}: {present}"), |dump| {
            listed(dump, "policies").any(|policy| text(policy, "name") == name) == present
        })
    }

    /// Waits for a condition, with the world's usual deadline.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> Result<T, WorldError> {
        eventually(what, SPREAD, look)
    }
}

/// Returns the entries of a list or map in a dump.
fn listed<'a>(
    dump: &'a serde_json::Value,
    name: &str,
) -> impl Iterator<Item = &'a serde_json::Value> {
    dump.get(name)
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
}

fn text<'a>(value: &'a serde_json::Value, name: &str) -> &'a str {
    value
        .get(name)
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}

fn place(fabric: &Fabric, nodes: &[String], spec: &PodSpec, member: u8) -> Result<Pod, WorldError> {
    let group = match spec.node() {
        None => OUTSIDE,
        Some(name) => (1..)
            .zip(nodes)
            .find_map(|(group, node)| (node == name).then_some(group))
            .ok_or_else(|| WorldError::new(format!("find node {name} of {}", spec.name())))?,
    };
    let ips = addresses(group, member);
    Ok(Pod {
        spec: spec.clone(),
        space: fabric.plug(spec.name(), &ips)?,
        ips: ips.to_vec(),
    })
}

fn file_of(pod: &Pod) -> String {
    format!("pod-{}-{}", pod.spec().namespace(), pod.name())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The world's folder; removed with the world, unless it is to be kept or a thread panicked.
#[derive(Debug)]
struct WorkDir {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    is_kept: AtomicBool,
}

impl WorkDir {
    fn create(is_kept: bool) -> Result<Self, WorldError> {
        let dir = tempfile::Builder::new()
            .prefix("meshwright-")
            .tempdir()
            .step("make a folder for the world")?;
        interrupt::remove_at_interrupt(dir.path());
        Ok(Self {
            path: dir.path().to_owned(),
            dir: Some(dir),
            is_kept: AtomicBool::new(is_kept),
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take()
            && (self.is_kept.load(Ordering::Relaxed) || std::thread::panicking())
        {
            let folder = dir.keep();
            tracing::info!(folder = %folder.display(), "kept");
        }
    }
}
