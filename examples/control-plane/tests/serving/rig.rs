//! A control plane over a folder of its own, and clients of it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser as _;
use meshwright_control_plane::{Config, ControlPlane};
use meshwright_identity::{
    SpiffeId, Svid,
    grpc::{Channel, ChannelConfig, RootSource, TokenSource},
    istio::{IstioCa, IstioCaConfig},
    rotation::{IssueError, Issuer as _},
    tls::TlsEngine,
};
use meshwright_testkit::Recorder;
use meshwright_xds_client::{
    Client, ClientConfig, Handler, Node, Reader, Rejected, Snapshot, Store, Update,
    client::{ConnectionEnded, Events, MessageReceived},
    proto::AUTHORIZATION,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time,
};

pub const NODE_A: &str = "token-of-node-a-0001";
pub const APP: &str = "token-of-the-app-0002";
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Rig {
    folder: TempDir,
}

impl Rig {
    /// The mesh of the samples.
    pub fn new() -> Self {
        let rig = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(rig.path("manifests")).unwrap();
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        for entry in fs::read_dir(samples).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), rig.path("manifests").join(entry.file_name())).unwrap();
        }
        let tokens = format!(
            "tokens:\n- {{token: {NODE_A}, node: node-a}}\n- {{token: {APP}, serviceAccount: default/app}}\n"
        );
        fs::write(rig.path("tokens.yaml"), tokens).unwrap();
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a manifest as one step.
    pub fn put(&self, name: &str, text: &str) {
        fs::write(self.path("draft"), text).unwrap();
        fs::rename(self.path("draft"), self.path("manifests").join(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path("manifests").join(name)).unwrap();
    }

    pub fn arguments(&self, listen: &str) -> Vec<String> {
        let path = |name| self.path(name).to_string_lossy().into_owned();
        let arguments = [
            "control-plane",
            "--manifests",
            &path("manifests"),
            "--tokens",
            &path("tokens.yaml"),
            "--ca-dir",
            &path("ca"),
            "--write-root",
            &path("root.pem"),
            "--listen",
            listen,
            "--status",
            "127.0.0.1:0",
            "--poll",
            "10ms",
            "--max-cert-ttl",
            "1h",
        ];
        arguments.map(str::to_owned).to_vec()
    }

    /// Starts on any free port.
    pub async fn start(&self) -> ControlPlane {
        self.start_on("127.0.0.1:0").await
    }

    pub async fn start_on(&self, listen: &str) -> ControlPlane {
        let config = Config::try_parse_from(self.arguments(listen)).unwrap();
        ControlPlane::start(config).await.unwrap()
    }

    pub fn channel(&self, control_plane: &ControlPlane, token: Option<&str>) -> Channel {
        let root = RootSource::Pem(control_plane.root_pem().to_owned());
        let uri = format!("https://{}", control_plane.address());
        let config = ChannelConfig::new(uri.parse().unwrap(), root);
        let token = token.map_or(TokenSource::None, |token| {
            TokenSource::Static(token.to_owned())
        });
        Channel::new(config.token(token)).unwrap()
    }

    pub fn node(&self, control_plane: &ControlPlane, token: Option<&str>) -> NodeProxy {
        NodeProxy::start(self.channel(control_plane, token))
    }

    /// Asks for a certificate, by name unless `own`.
    pub async fn certificate(
        &self,
        control_plane: &ControlPlane,
        token: Option<&str>,
        id: &str,
    ) -> Result<Svid, IssueError> {
        let config = IstioCaConfig::new(TlsEngine::aws_lc_rs());
        let issuer = IstioCa::new(self.channel(control_plane, token), config);
        let id = SpiffeId::parse(&format!("spiffe://cluster.local/{id}")).unwrap();
        issuer.issue(&id).await
    }
}

/// A pod on node-a.
pub fn pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: meshwright.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{addresses: \
         [{address}], node: node-a, serviceAccount: {name}}}\n"
    )
}

/// What a node proxy does of the control protocol.
pub struct NodeProxy {
    reader: Reader,
    pub policies: Policies,
    pub log: Log,
    _tasks: JoinSet<()>,
}

impl NodeProxy {
    fn start(channel: Channel) -> Self {
        let (store, reader) = Store::new(Some("node-a"));
        let (policies, log) = (Policies::default(), Log::default());
        let node = Node::ztunnel("10.0.0.9", "ztunnel-a", "istio-system", "node-a");
        let config =
            ClientConfig::default().backoff(Duration::from_millis(10), Duration::from_millis(50));
        let client = Client::new(channel, node, config, Arc::new(log.clone()))
            .subscribe(store)
            .subscribe(policies.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(client.run());
        Self {
            reader,
            policies,
            log,
            _tasks: tasks,
        }
    }

    /// Waits until what the proxy knows satisfies `wanted`.
    pub async fn sees(
        &mut self,
        rule: &str,
        wanted: impl Fn(&Snapshot) -> bool + Send + Sync,
    ) -> Arc<Snapshot> {
        let waiting = async {
            loop {
                let snapshot = self.reader.snapshot();
                if wanted(&snapshot) {
                    return snapshot;
                }
                self.reader.changed().await.unwrap();
            }
        };
        let seen = time::timeout(DEADLINE, waiting).await;
        seen.unwrap_or_else(|_| panic!("did not happen: {rule}"))
    }

    pub async fn sees_pod(&mut self, name: &str) -> Arc<Snapshot> {
        self.sees(&format!("pod {name} is there"), |snapshot| {
            has_pod(snapshot, name)
        })
        .await
    }
}

pub fn has_pod(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.workloads().any(|workload| workload.name() == name)
}

/// Names of policies as they are.
#[derive(Clone, Debug, Default)]
pub struct Policies(Arc<Mutex<Vec<String>>>);

impl Policies {
    pub fn names(&self) -> Vec<String> {
        let mut names = self.0.lock().unwrap().clone();
        names.sort();
        names
    }
}

impl Handler for Policies {
    fn type_url(&self) -> &str {
        AUTHORIZATION
    }

    fn apply(&mut self, update: Update<'_>) -> Vec<Rejected> {
        let mut names = self.0.lock().unwrap();
        for resource in update.resources {
            names.retain(|name| **name != *resource.name);
            names.push(resource.name.to_string());
        }
        names.retain(|name| !update.removed.iter().any(|removed| **removed == **name));
        Vec::new()
    }
}

/// What happened on the wire.
#[derive(Clone, Debug, Default)]
pub struct Log(pub Recorder<Happened>);

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Happened {
    Connected,
    Ended(String),
    Received {
        type_url: String,
        resources: usize,
        removed: usize,
    },
}

impl Events for Log {
    fn connected(&self) {
        self.0.record(Happened::Connected);
    }

    fn connection_ended(&self, event: &ConnectionEnded<'_>) {
        self.0.record(Happened::Ended(format!(
            "{:?}: {}",
            event.reason, event.message
        )));
    }

    fn message_received(&self, event: &MessageReceived<'_>) {
        self.0.record(Happened::Received {
            type_url: event.type_url.to_owned(),
            resources: event.resources,
            removed: event.removed,
        });
    }
}

/// Sends one request to the status page; returns the whole answer.
pub async fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub async fn status(control_plane: &ControlPlane) -> serde_json::Value {
    let request = "GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = http(control_plane.status_address(), request).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Asks for the status until it satisfies `wanted`.
pub async fn status_says(
    control_plane: &ControlPlane,
    rule: &str,
    wanted: impl Fn(&serde_json::Value) -> bool + Send + Sync,
) -> serde_json::Value {
    let asking = async {
        loop {
            let status = status(control_plane).await;
            if wanted(&status) {
                return status;
            }
        }
    };
    let said = time::timeout(DEADLINE, asking).await;
    said.unwrap_or_else(|_| panic!("did not happen: {rule}"))
}
