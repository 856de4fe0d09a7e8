//! An Envoy with ephemeral ports, and what it says about itself.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use meshwright_testbed::{Step, WorldError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{process::Process, rig::until};

/// Where an Envoy listens that may choose its port.
const ANY_PORT: u16 = 0;

/// A running Envoy. It ends with this.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Process,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts it with a configuration to which an admin port is added, and waits for that port.
    pub(crate) async fn start(
        program: &Path,
        dir: &Path,
        mut config: Value,
    ) -> Result<Self, WorldError> {
        if let Some(config) = config.as_object_mut() {
            config.insert(
                "admin".to_owned(),
                json!({ "address": address(([127, 0, 0, 1], ANY_PORT).into()) }),
            );
        }
        let (file, said) = (dir.join("envoy.json"), dir.join("admin.address"));
        fs::write(&file, config.to_string()).step("write the configuration of Envoy")?;
        let (file, said) = (text(&file)?, text(&said)?);
        let arguments = [
            "--config-path",
            file,
            "--admin-address-path",
            said,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
            "--file-flush-interval-msec",
            "20",
        ];
        let mut process = Process::start(program, arguments, (dir, "envoy"))?;
        let admin = until("Envoy has an admin port", async || {
            let text = fs::read_to_string(said).unwrap_or_default();
            let ended = process.has_ended();
            match text.parse() {
                Ok(address) => Some(Ok(address)),
                Err(_not_yet) if ended => Some(Err(process.said())),
                Err(_not_yet) => None,
            }
        })
        .await?
        .map_err(|said| WorldError::new(format!("start Envoy: {said}")))?;
        Ok(Self { process, admin })
    }

    /// Waits until this listener takes connections, and returns its address.
    pub(crate) async fn listener(&self, name: &str) -> Result<SocketAddr, WorldError> {
        let prefix = format!("{name}::");
        until(&format!("Envoy listens as {name}"), async || {
            let ready = self.get("/ready").await.ok()?.contains("LIVE");
            let listeners = self.get("/listeners").await.ok()?;
            let address = listeners
                .lines()
                .find_map(|line| line.strip_prefix(&prefix));
            address.filter(|_| ready)?.trim().parse().ok()
        })
        .await
    }

    /// Reads the counters and gauges whose names match.
    pub(crate) async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>, WorldError> {
        let text = self.get(&format!("/stats?filter={filter}")).await?;
        let stat = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(stat).collect())
    }

    /// Reads one counter; one that does not exist yet is 0.
    pub(crate) async fn stat(&self, name: &str) -> Result<u64, WorldError> {
        let stats = self.stats(&name.replace('.', r"\.")).await?;
        Ok(stats.get(name).copied().unwrap_or_default())
    }

    /// Asks the admin port.
    pub(crate) async fn get(&self, path: &str) -> Result<String, WorldError> {
        let step = || format!("ask Envoy for {path}, which said: {}", self.process.said());
        let mut stream = TcpStream::connect(self.admin).await.step(step())?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.step(step())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.step(step())?;
        Ok(answer)
    }
}

/// An address as Envoy writes it.
pub(crate) fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

/// A listener on an ephemeral port with one filter.
pub(crate) fn listener(name: &str, filter: &Value, tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [{ "name": "filter", "typed_config": filter }] });
    if let (Some(tls), Some(chain)) = (tls, chain.as_object_mut()) {
        chain.insert("transport_socket".to_owned(), tls);
    }
    json!({
        "name": name,
        "address": address(([127, 0, 0, 1], ANY_PORT).into()),
        "filter_chains": [chain],
    })
}

/// A cluster of one address.
pub(crate) fn cluster(name: &str, endpoint: SocketAddr) -> Value {
    json!({
        "name": name,
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(endpoint) } },
        ] }] },
    })
}

/// Adds HTTP/2 to a cluster.
pub(crate) fn with_http2(mut cluster: Value) -> Value {
    let options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    if let Some(cluster) = cluster.as_object_mut() {
        cluster.insert(
            "typed_extension_protocol_options".to_owned(),
            json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options }),
        );
    }
    cluster
}

/// What both ends of mutual TLS have in common: own files, the root, who may answer.
pub(crate) fn common_tls(dir: &Path, account: &str, peers: &[&str]) -> Value {
    let file = |name: String| json!({ "filename": dir.join(name) });
    let accepted = |peer: &&str| json!({ "san_type": "URI", "matcher": { "exact": peer } });
    let accepted: Vec<Value> = peers.iter().map(accepted).collect();
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519MLKEM768", "X25519"],
        },
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": file(format!("{account}.pem")),
            "private_key": file(format!("{account}.key")),
        }],
        "validation_context": {
            "trusted_ca": file("root.pem".to_owned()),
            "match_typed_subject_alt_names": accepted,
        },
    })
}

fn text(path: &Path) -> Result<&str, WorldError> {
    path.to_str().ok_or_else(|| WorldError::new("name a file"))
}
