//! What a large mesh costs a client that gets it from a control plane: memory, processor, updates.
//!
//! `cargo bench -p meshwright-xds-client --features server --bench load`; with `-- --test` it runs
//! once on a small mesh. The control plane is this process, the client a child of it, so that each
//! has its own figures. They talk over loopback, without TLS.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark"
)]

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use meshwright_xds_client::{
    Client, ClientConfig, Node, Store,
    proto::{ADDRESS, workload::Address},
    server::{AdsService, Answer, Observer, Resources, ServedResource},
};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};
use tonic::{body::Body, codegen::http};
use tower::{Service, ServiceExt};

#[path = "shared/mesh.rs"]
mod mesh;

const CLIENT: &str = "MESHWRIGHT_BENCH_CLIENT";
const UPDATES: usize = 200;

fn main() {
    match std::env::var(CLIENT) {
        Ok(server) => follow(server.parse().unwrap()),
        Err(_) => serve(),
    }
}

fn served((_, address): (String, Address)) -> ServedResource {
    ServedResource::address(&address)
}

/// Tells when the client has accepted something.
#[derive(Debug)]
struct Accepted(mpsc::Sender<Instant>);

impl Observer for Accepted {
    fn answered(&self, answer: &Answer<'_>) {
        assert_eq!(answer.error, None);
        self.0.send(Instant::now()).ok();
    }
}

// === the control plane ===

fn serve() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let size = if is_test { 2_000 } else { 100_000 };
    let resources = Resources::new();
    let workloads = (0..size).map(|n| served(mesh::workload(n, "v1")));
    let services = (0..size / mesh::REPLICAS).map(|n| served(mesh::service(n)));
    resources.replace(ADDRESS, services.chain(workloads));
    let (sender, accepted) = mpsc::channel();
    let service = AdsService::new(resources.clone())
        .observer(Arc::new(Accepted(sender)))
        .into_server();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    let serving = async move {
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = service
                .clone()
                .map_request(|r: http::Request<_>| r.map(Body::new));
            let connection = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .http2_only()
                .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service))
                .into_owned();
            connections.spawn(async move { drop(connection.await) });
        }
    };
    tasks.spawn_on(serving, runtime.handle());
    let began = Instant::now();
    let mut client = Command::new(std::env::current_exe().unwrap())
        .env(CLIENT, address.to_string())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let first = accepted.recv_timeout(Duration::from_secs(120)).unwrap();
    println!("{size} workloads, accepted after {:?}", first - began);
    let mut times: Vec<Duration> = (0..UPDATES)
        .map(|n| {
            let changed = served(mesh::workload(n * 7919 % size, "v2"));
            let began = Instant::now();
            resources.set(ADDRESS, changed);
            accepted.recv_timeout(Duration::from_secs(10)).unwrap() - began
        })
        .collect();
    times.sort_unstable();
    let at = |share: usize| times.get(UPDATES * share / 100).unwrap();
    println!(
        "one workload changed, until it is acknowledged: median {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    drop(client.stdin.take());
    assert!(client.wait().unwrap().success());
}

// === the client ===

fn follow(server: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let before = status("VmRSS:");
        let (store, reader) = Store::new(Some("node-7"));
        let client = legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let transport = ToServer { client, server };
        let client = Client::new(transport, Node::new("me"), ClientConfig::default(), Arc::new(()))
            .subscribe(store);
        let mut ready = client.ready();
        let mut tasks = JoinSet::new();
        tasks.spawn(client.run());
        ready.ready().await.unwrap();
        println!(
            "client ready: {} ms of processor time; memory at the start {before} KiB, now {} KiB, at its peak {} KiB",
            processor().as_millis(),
            status("VmRSS:"),
            status("VmHWM:"),
        );
        // The parent closes this when it is done.
        tokio::io::stdin().read_u8().await.ok();
        println!(
            "client after updates: {} KiB, {} workloads",
            status("VmRSS:"),
            reader.snapshot().workload_count()
        );
    });
    // The client's task is dropped with the runtime.
}

/// A figure of this process in KiB.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.split_whitespace().next());
    figure.and_then(|figure| figure.parse().ok()).unwrap_or(0)
}

/// Processor time of all threads so far.
fn processor() -> Duration {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Sends what the client asks for to one address.
#[derive(Clone)]
struct ToServer {
    client: legacy::Client<legacy::connect::HttpConnector, Body>,
    server: SocketAddr,
}

impl Service<http::Request<Body>> for ToServer {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = legacy::Error;
    type Future = legacy::ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = format!("http://{}{path}", self.server).parse().unwrap();
        self.client.request(request)
    }
}
