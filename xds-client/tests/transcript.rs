//! The client against a scripted server, and against the real server half, without sockets.
#![cfg(feature = "server")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test"
)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use meshwright_testkit::Recorder;
use meshwright_xds_client::{
    Client, ClientConfig, Handler, Node, Reader, Rejected, Store, Update,
    client::{
        ConnectionEnd, ConnectionEnded, Demand, DemandError, Events, MessageReceived, Overdue,
        Ready, ResourcesRejected, UnknownType,
    },
    proto::{
        ADDRESS, AUTHORIZATION,
        discovery::{
            Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
            DiscoveryResponse, Resource,
            aggregated_discovery_service_server::{
                AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
            },
        },
        workload::{Address, Service, Workload, address::Type},
    },
    server::{AdsService, Answer, Observer, Resources, Sent, ServedResource},
};
use prost::Message;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

// ------------------------------------------------------------------------------------ the script

type Responses = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// A server that does what a test says.
#[derive(Clone)]
struct Scripted {
    streams: mpsc::Sender<Stream>,
}

/// The server's end of one stream.
struct Stream {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: Responses,
}

struct Server {
    streams: mpsc::Receiver<Stream>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Scripted {
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, receiver) = mpsc::channel(16);
        let requests = request.into_inner();
        let stream = Stream {
            requests,
            responses,
        };
        self.streams
            .send(stream)
            .await
            .or(Err(Status::unavailable("the script is over")))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Server {
    fn new() -> (AggregatedDiscoveryServiceServer<Scripted>, Self) {
        let (sender, streams) = mpsc::channel(16);
        let scripted = Scripted { streams: sender };
        (
            AggregatedDiscoveryServiceServer::new(scripted),
            Self { streams },
        )
    }

    async fn accepts(&mut self) -> Stream {
        self.streams.recv().await.unwrap()
    }
}

impl Stream {
    async fn hears(&mut self) -> DeltaDiscoveryRequest {
        self.requests.next().await.unwrap().unwrap()
    }

    async fn hears_subscription(&mut self, type_url: &str) -> DeltaDiscoveryRequest {
        let request = self.hears().await;
        assert_eq!(
            (&*request.type_url, &*request.response_nonce),
            (type_url, "")
        );
        request
    }

    async fn hears_ack(&mut self, type_url: &str, nonce: &str) {
        let request = self.hears().await;
        assert_eq!(
            (&*request.type_url, &*request.response_nonce),
            (type_url, nonce)
        );
        assert_eq!(request.error_detail, None);
        assert_eq!(request.node, None, "the node is only in first requests");
    }

    async fn sends(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }

    async fn ends(self, status: Option<Status>) {
        if let Some(status) = status {
            self.responses.send(Err(status)).await.unwrap();
        }
    }
}

fn response(type_url: &str, nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        resources,
        ..DeltaDiscoveryResponse::default()
    }
}

fn resource(type_url: &str, name: &str, body: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        resource: Some(Any {
            type_url: type_url.to_owned(),
            value: body.into(),
        }),
        ..Resource::default()
    }
}

fn pod(uid: &str, ip: [u8; 4]) -> Address {
    Address {
        r#type: Some(Type::Workload(Workload {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            addresses: vec![ip.to_vec().into()],
            ..Workload::default()
        })),
    }
}

fn pods(nonce: &str, uids: &[&str]) -> DeltaDiscoveryResponse {
    let resources = uids
        .iter()
        .map(|uid| resource(ADDRESS, uid, pod(uid, [10, 0, 0, 1]).encode_to_vec()));
    response(ADDRESS, nonce, resources.collect())
}

// ------------------------------------------------------------------------------------ the client

/// Keeps policies by name.
#[derive(Clone, Debug, Default)]
struct Policies(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Handler for Policies {
    fn type_url(&self) -> &str {
        AUTHORIZATION
    }

    fn apply(&mut self, update: Update<'_>) -> Vec<Rejected> {
        let mut policies = self.0.lock().unwrap();
        let mut rejected = Vec::new();
        for resource in update.resources {
            if &*resource.body == b"bad" {
                rejected.push(Rejected::new(Arc::clone(&resource.name), "it is bad"));
            } else {
                policies.insert(resource.name.to_string(), resource.body.to_vec());
            }
        }
        for name in update.removed {
            policies.remove(&**name);
        }
        rejected
    }
}

/// What happened, in words.
#[derive(Clone, Debug, Default)]
struct Log(Recorder<String>);

impl Events for Log {
    fn connected(&self) {
        self.0.record("connected".to_owned());
    }

    fn connection_ended(&self, event: &ConnectionEnded<'_>) {
        self.0.record(format!("ended {:?}", event.reason));
    }

    fn message_received(&self, event: &MessageReceived<'_>) {
        assert!(event.bytes > 0);
        let short = event.type_url.rsplit('.').next().unwrap();
        self.0.record(format!(
            "got {short} {} -{}",
            event.resources, event.removed
        ));
    }

    fn overdue(&self, event: &Overdue<'_>) {
        let short = event.type_url.rsplit('.').next().unwrap();
        self.0.record(format!("overdue {short}"));
    }

    fn rejected(&self, event: &ResourcesRejected<'_>) {
        self.0.record(format!("rejected {}", event.rejected.len()));
    }

    fn unknown_type(&self, event: &UnknownType<'_>) {
        self.0.record(format!("unknown {}", event.type_url));
    }
}

struct Fixture {
    reader: Reader,
    policies: Policies,
    log: Log,
    ready: Ready,
    _tasks: JoinSet<()>,
}

/// Runs a client for both types over a transport.
macro_rules! client {
    ($transport:expr) => {
        client!($transport, ClientConfig::default())
    };
    ($transport:expr, $config:expr) => {{
        let (store, reader) = Store::new(None);
        let (policies, log) = (Policies::default(), Log::default());
        let node = Node::ztunnel("10.0.0.9", "zt", "istio-system", "node-a")
            .metadata("CLUSTER_ID", "Kubernetes");
        let client = Client::new($transport, node, $config, Arc::new(log.clone()))
            .subscribe(store)
            .subscribe(policies.clone());
        let ready = client.ready();
        let mut tasks = JoinSet::new();
        tasks.spawn(client.run());
        Fixture {
            reader,
            policies,
            log,
            ready,
            _tasks: tasks,
        }
    }};
}

// ------------------------------------------------------------------------------------- the tests

#[tokio::test(start_paused = true)]
async fn types_are_asked_for_in_order_with_the_node_of_istios_proxy() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let _client = client!(transport);
    let mut stream = server.accepts().await;
    for type_url in [ADDRESS, AUTHORIZATION] {
        let request = stream.hears_subscription(type_url).await;
        assert!(request.resource_names_subscribe.is_empty());
        let node = request.node.unwrap();
        assert_eq!(
            node.id,
            "ztunnel~10.0.0.9~zt.istio-system~istio-system.svc.cluster.local"
        );
        let fields = node.metadata.unwrap().fields;
        let text = |key: &str| match fields[key].kind.clone().unwrap() {
            prost_types::value::Kind::StringValue(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [
                "NAME",
                "NAMESPACE",
                "INSTANCE_IPS",
                "NODE_NAME",
                "CLUSTER_ID"
            ]
            .map(text),
            ["zt", "istio-system", "10.0.0.9", "node-a", "Kubernetes"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn update_is_published_before_its_acknowledgement_goes_out() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let client = client!(transport);
    let mut stream = server.accepts().await;
    stream.hears_subscription(ADDRESS).await;
    stream.hears_subscription(AUTHORIZATION).await;
    stream.sends(pods("n1", &["a"])).await;
    stream.hears_ack(ADDRESS, "n1").await;
    assert!(client.reader.snapshot().workload_by_uid("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn ready_when_every_type_was_accepted_completely_once() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let mut client = client!(transport);
    let mut stream = server.accepts().await;
    stream.hears().await;
    stream.hears().await;
    stream.sends(pods("n1", &["a"])).await;
    stream.hears_ack(ADDRESS, "n1").await;
    let bad = vec![
        resource(AUTHORIZATION, "p", b"bad".to_vec()),
        resource(AUTHORIZATION, "q", b"ok".to_vec()),
    ];
    stream.sends(response(AUTHORIZATION, "n2", bad)).await;
    let nack = stream.hears().await;
    assert_eq!(nack.response_nonce, "n2");
    assert_eq!(nack.error_detail.unwrap().message, "p: it is bad");
    assert!(
        client.policies.0.lock().unwrap().contains_key("q"),
        "the good one is applied"
    );
    assert!(!client.ready.is_ready(), "its first state is not complete");
    stream.sends(response(AUTHORIZATION, "n3", vec![])).await;
    stream.hears_ack(AUTHORIZATION, "n3").await;
    client.ready.ready().await.unwrap();
    assert_eq!(client.log.0.count(|line| line == "rejected 1"), 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_type_is_not_acknowledged_and_the_stream_lives() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let client = client!(transport);
    let mut stream = server.accepts().await;
    stream.hears().await;
    stream.hears().await;
    stream
        .sends(response("type.googleapis.com/foo.Bar", "odd", vec![]))
        .await;
    stream.sends(pods("n1", &["a"])).await;
    stream.hears_ack(ADDRESS, "n1").await;
    assert_eq!(
        client
            .log
            .0
            .count(|line| line == "unknown type.googleapis.com/foo.Bar"),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn new_stream_resumes_with_known_versions_and_state_is_kept() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let client = client!(transport);
    let mut stream = server.accepts().await;
    stream.hears().await;
    stream.hears().await;
    stream.sends(pods("n1", &["a", "b"])).await;
    stream.hears_ack(ADDRESS, "n1").await;
    stream.ends(Some(Status::unavailable("restarting"))).await;
    let mut stream = server.accepts().await;
    let again = stream.hears_subscription(ADDRESS).await;
    assert!(again.node.is_some());
    let told: Vec<_> = again.initial_resource_versions.into_iter().collect();
    let version = "1".to_owned();
    assert_eq!(
        told,
        [("a".to_owned(), version.clone()), ("b".to_owned(), version)]
    );
    assert_eq!(client.reader.snapshot().workload_count(), 2);
    let mut gone = pods("n2", &[]);
    gone.removed_resources = vec!["b".to_owned()];
    stream.hears().await;
    stream.sends(gone).await;
    stream.hears_ack(ADDRESS, "n2").await;
    assert_eq!(client.reader.snapshot().workload_count(), 1);
    assert_eq!(client.log.0.count(|line| line == "connected"), 2);
    assert_eq!(client.log.0.count(|line| line == "ended Error"), 1);
}

#[tokio::test(start_paused = true)]
async fn server_that_ends_every_stream_at_once_sees_few_attempts() {
    let _trace = meshwright_testkit::trace();
    for status in [
        None,
        Some(Status::internal("")),
        Some(Status::unavailable("")),
        Some(Status::unknown("")),
    ] {
        let (transport, mut server) = Server::new();
        let client = client!(transport);
        let (begin, mut attempts) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_secs(3) {
            let stream = server.accepts().await;
            attempts += 1;
            stream.ends(status.clone()).await;
        }
        assert!(
            attempts <= 16,
            "{attempts} attempts in 3 s after {status:?}"
        );
        // Back within the longest delay.
        server.accepts().await;
        drop(client);
    }
}

#[tokio::test(start_paused = true)]
async fn ends_are_told_apart() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let client = client!(transport);
    server.accepts().await.ends(None).await;
    server
        .accepts()
        .await
        .ends(Some(Status::internal("x")))
        .await;
    server
        .accepts()
        .await
        .ends(Some(Status::cancelled("x")))
        .await;
    server.accepts().await;
    let count = |reason: ConnectionEnd| {
        client
            .log
            .0
            .count(|line| *line == format!("ended {reason:?}"))
    };
    use ConnectionEnd::{Complete, ConnectionError, Error, Reconnect};
    assert_eq!(
        [Complete, Error, Reconnect, ConnectionError].map(count),
        [1, 1, 1, 0]
    );
}

#[tokio::test(start_paused = true)]
async fn control_plane_that_is_not_there_is_a_connection_error() {
    let _trace = meshwright_testkit::trace();
    let refused = tower::service_fn(|_: http::Request<tonic::body::Body>| async {
        Err::<http::Response<tonic::body::Body>, _>(std::io::Error::from(
            std::io::ErrorKind::ConnectionRefused,
        ))
    });
    let client = client!(refused);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ends = client.log.0.take();
    assert!(!ends.is_empty() && ends.len() <= 16, "{ends:?}");
    assert!(
        ends.iter().all(|line| line == "ended ConnectionError"),
        "{ends:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn type_that_stays_unanswered_is_reported_and_the_stream_lives() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let client = client!(transport);
    let mut stream = server.accepts().await;
    stream.hears().await;
    stream.hears().await;
    stream.sends(pods("n1", &["a"])).await;
    stream.hears_ack(ADDRESS, "n1").await;
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(client.log.0.count(|line| line.starts_with("overdue")), 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        client.log.0.count(|line| line == "overdue Authorization"),
        1
    );
    assert_eq!(client.log.0.count(|line| line == "overdue Address"), 0);
    stream.sends(pods("n2", &["b"])).await;
    stream.hears_ack(ADDRESS, "n2").await;
    assert!(!client.ready.is_ready());
}

#[tokio::test(start_paused = true)]
async fn message_over_the_limit_ends_the_stream_not_the_client() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let client = client!(transport, ClientConfig::default().max_message_bytes(1000));
    let mut stream = server.accepts().await;
    stream.hears().await;
    stream.sends(pods("n1", &["a".repeat(2000).as_str()])).await;
    let mut stream = server.accepts().await;
    stream.hears().await;
    stream.hears().await;
    stream.sends(pods("n2", &["a"])).await;
    stream.hears_ack(ADDRESS, "n2").await;
    assert_eq!(client.reader.snapshot().workload_count(), 1);
}

fn on_demand<T>(transport: T) -> (Client<T>, Demand, Reader) {
    let (store, reader) = Store::new(None);
    let mut client = Client::new(
        transport,
        Node::new("me"),
        ClientConfig::default(),
        Arc::new(()),
    );
    let demand = client.subscribe_on_demand(store);
    (client.subscribe(Policies::default()), demand, reader)
}

#[tokio::test(start_paused = true)]
async fn every_caller_that_asks_for_an_address_is_answered_through_its_alias() {
    let _trace = meshwright_testkit::trace();
    let resources = Resources::new();
    resources.set(ADDRESS, ServedResource::address(&pod("a", [10, 0, 0, 7])));
    let (client, demand, reader) = on_demand(AdsService::new(resources.clone()).into_server());
    let mut ready = client.ready();
    let mut tasks = JoinSet::new();
    tasks.spawn(client.run());
    ready.ready().await.unwrap();
    assert_eq!(
        reader.snapshot().workload_count(),
        0,
        "nothing was asked for"
    );
    let second = Duration::from_secs(1);
    let (first, again) = tokio::join!(
        demand.fetch("/10.0.0.7", second),
        demand.fetch("/10.0.0.7", second)
    );
    assert_eq!((first, again), (Ok(true), Ok(true)));
    assert!(reader.snapshot().workload_by_uid("a").is_some());
    assert_eq!(demand.fetch("/10.0.0.8", second).await, Ok(false));
    assert_eq!(
        demand.fetch("a", second).await,
        Ok(true),
        "by its primary name as well"
    );
    resources.remove(ADDRESS, "a");
    let mut changed = reader.clone();
    while changed.snapshot().workload_count() > 0 {
        changed.changed().await.unwrap();
    }
    assert_eq!(demand.fetch("/10.0.0.7", second).await, Ok(false));
}

#[tokio::test(start_paused = true)]
async fn question_survives_a_reconnect_and_a_silent_server_costs_its_deadline() {
    let _trace = meshwright_testkit::trace();
    let (transport, mut server) = Server::new();
    let (client, demand, _reader) = on_demand(transport);
    let mut tasks = JoinSet::new();
    tasks.spawn(client.run());
    let deadline = Duration::from_secs(5);
    assert_eq!(
        demand.fetch("x", deadline).await,
        Err(DemandError::Deadline(deadline))
    );
    server.accepts().await.ends(None).await;
    let waiting = demand.fetch("a", Duration::from_secs(60));
    let serving = async {
        let mut stream = server.accepts().await;
        let mut asked = stream
            .hears_subscription(ADDRESS)
            .await
            .resource_names_subscribe;
        stream.hears_subscription(AUTHORIZATION).await;
        if !asked.contains(&"a".to_owned()) {
            asked.extend(
                stream
                    .hears_subscription(ADDRESS)
                    .await
                    .resource_names_subscribe,
            );
        }
        asked.sort();
        assert_eq!(asked, ["*", "a", "x"]);
        stream.sends(pods("n1", &["a"])).await;
        stream.hears_ack(ADDRESS, "n1").await;
        stream
    };
    let (answer, _stream) = tokio::join!(waiting, serving);
    assert_eq!(answer, Ok(true));
    drop(tasks);
    assert_eq!(demand.fetch("z", deadline).await, Err(DemandError::Stopped));
}

/// What the server half reports.
#[derive(Clone, Debug, Default)]
struct Witness(Recorder<String>);

impl Observer for Witness {
    fn opened(&self, node: &str) {
        self.0.record(format!("opened {node}"));
    }

    fn sent(&self, sent: &Sent<'_>) {
        self.0.record(format!(
            "sent {} {} -{}",
            sent.nonce, sent.resources, sent.removed
        ));
    }

    fn answered(&self, answer: &Answer<'_>) {
        self.0.record(format!(
            "{} {}",
            answer.error.unwrap_or("ack"),
            answer.nonce
        ));
    }

    fn closed(&self, node: &str) {
        self.0.record(format!("closed {node}"));
    }
}

/// The pieces of one mesh served to clients.
fn shop() -> (Resources, Witness, AdsService) {
    let resources = Resources::new();
    resources.unversioned(AUTHORIZATION);
    let service = Address {
        r#type: Some(Type::Service(Service {
            namespace: "shop".to_owned(),
            hostname: "web.shop".to_owned(),
            ..Service::default()
        })),
    };
    resources.set(ADDRESS, ServedResource::address(&service));
    resources.set(AUTHORIZATION, ServedResource::new("shop/p", "1"));
    let witness = Witness::default();
    let ads = AdsService::new(resources.clone()).observer(Arc::new(witness.clone()));
    (resources, witness, ads)
}

#[tokio::test(start_paused = true)]
async fn both_halves_keep_a_mesh_current_in_one_step_per_message() {
    let _trace = meshwright_testkit::trace();
    let (resources, witness, ads) = shop();
    let mut clients = [
        client!(ads.clone().into_server()),
        client!(ads.into_server()),
    ];
    for client in &mut clients {
        client.ready.ready().await.unwrap();
        assert_eq!(client.reader.snapshot().service_count(), 1);
        client.reader.changed().await.unwrap();
    }
    resources.edit(|edit| {
        edit.set(ADDRESS, ServedResource::address(&pod("a", [10, 0, 0, 1])));
        edit.remove(ADDRESS, "shop/web.shop");
    });
    for client in &mut clients {
        let snapshot = client.reader.changed().await.unwrap();
        let counts = (snapshot.workload_count(), snapshot.service_count());
        assert_eq!(counts, (1, 0));
    }
    drop(clients);
    while witness.0.count(|line| line.starts_with("closed ztunnel~")) < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn server_sees_who_accepted_and_who_refused_each_response() {
    let _trace = meshwright_testkit::trace();
    let (resources, witness, ads) = shop();
    let mut client = client!(ads.into_server());
    client.ready.ready().await.unwrap();
    resources.set(AUTHORIZATION, ServedResource::new("shop/p", "bad"));
    let answers =
        |lines: &[String], start: &str| lines.iter().filter(|l| l.starts_with(start)).count();
    let mut lines = Vec::new();
    while answers(&lines, "shop/p: it is bad ") == 0 {
        lines.extend(witness.0.take());
        tokio::task::yield_now().await;
    }
    assert!(lines[0].starts_with("opened ztunnel~"), "{lines:?}");
    assert_eq!(
        (answers(&lines, "sent "), answers(&lines, "ack ")),
        (3, 2),
        "{lines:?}"
    );
    let policies = client.policies.0.lock().unwrap();
    assert_eq!(policies["shop/p"], b"1", "the last good version stays");
}
