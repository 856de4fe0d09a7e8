//! A world: the switch, the control plane, nodes with their proxies, pods.

mod folder;
mod members;
mod processes;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU8},
    time::Duration,
};

use crate::{
    Launcher, Manifests, Pod, PodSpec, Process, ProcessSpec, Program, Proxy, Space, Step,
    WorldError,
    agent::Agent,
    apps::{App, Behaviour},
    control_plane,
    fabric::{Fabric, addresses},
    manifests,
    wait::eventually,
    wire::Sniffer,
};

use folder::WorkDir;
use members::file_of;

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
        self.dir.keep();
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

    /// Waits for a condition, with the world's usual deadline.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> Result<T, WorldError> {
        eventually(what, SPREAD, look)
    }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
