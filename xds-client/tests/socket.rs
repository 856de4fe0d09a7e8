//! Both halves over a real connection: HTTP/2 framing, flow control, large messages, a restart.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use meshwright_testkit::Recorder;
use meshwright_xds_client::{
    Client, ClientConfig, Node, Reader, Store,
    client::{ConnectionEnded, Events, MessageReceived, Ready},
    proto::{
        ADDRESS,
        workload::{Address, Workload, address::Type},
    },
    server::{AdsService, Resources, ServedResource},
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{body::Body, codegen::http};
use tower::{Service, ServiceExt};

/// Enough for a first message of several megabytes.
const PODS: u32 = 20_000;

fn pod(n: u32) -> ServedResource {
    ServedResource::address(&Address {
        r#type: Some(Type::Workload(Workload {
            uid: format!("Kubernetes//Pod/shop/a-pod-with-a-name-of-usual-length-{n:05}"),
            namespace: "shop".to_owned(),
            addresses: vec![(0x0a00_0000 + n).to_be_bytes().to_vec().into()],
            canonical_name: "c".repeat(100),
            ..Workload::default()
        })),
    })
}

/// Serves until the set of tasks is dropped, connections included.
fn serve(listener: TcpListener, resources: &Resources) -> JoinSet<()> {
    let service = AdsService::new(resources.clone()).into_server();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
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
    });
    tasks
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

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), legacy::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = format!("http://{}{path}", self.server).parse().unwrap();
        self.client.request(request)
    }
}

#[derive(Clone, Debug, Default)]
struct Log(Recorder<String>);

impl Events for Log {
    fn connection_ended(&self, event: &ConnectionEnded<'_>) {
        self.0
            .record(format!("ended {:?} {}", event.reason, event.message));
    }

    fn message_received(&self, event: &MessageReceived<'_>) {
        self.0
            .record(format!("got {} -{}", event.resources, event.removed));
    }
}

fn follow(server: SocketAddr) -> (Reader, Ready, Log, JoinSet<()>) {
    let (store, reader) = Store::new(None);
    let log = Log::default();
    let client = legacy::Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let transport = ToServer { client, server };
    let config = ClientConfig::default();
    let client =
        Client::new(transport, Node::new("me"), config, Arc::new(log.clone())).subscribe(store);
    let ready = client.ready();
    let mut tasks = JoinSet::new();
    tasks.spawn(client.run());
    (reader, ready, log, tasks)
}

async fn until(reader: &mut Reader, count: usize) {
    let wait = async {
        while reader.snapshot().workload_count() != count {
            reader.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap();
}

#[tokio::test]
async fn large_mesh_survives_a_restart_of_its_control_plane_without_being_sent_again() {
    let _trace = meshwright_testkit::trace();
    let resources = Resources::new();
    resources.replace(ADDRESS, (0..PODS).map(pod));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = serve(listener, &resources);
    let (mut reader, mut ready, log, _client) = follow(address);
    ready.ready().await.unwrap();
    assert_eq!(reader.snapshot().workload_count(), PODS as usize);
    resources.set(ADDRESS, pod(PODS));
    until(&mut reader, PODS as usize + 1).await;

    drop(first);
    // While the control plane is away: one pod goes, one comes.
    resources.edit(|edit| {
        edit.remove(ADDRESS, &pod(0).name);
        edit.remove(ADDRESS, &pod(1).name);
        edit.set(ADDRESS, pod(PODS + 1));
    });
    let listener = loop {
        // The old listener's end is noticed a moment later.
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_busy) => tokio::task::yield_now().await,
        }
    };
    let _second = serve(listener, &resources);
    until(&mut reader, PODS as usize).await;
    let log = log.0.take();
    assert_eq!(log.first().unwrap(), "got 20000 -0");
    assert_eq!(
        log.last().unwrap(),
        "got 1 -2",
        "only what differs: {log:?}"
    );
    assert!(log.iter().any(|line| line.starts_with("ended ")), "{log:?}");
}
