//! What the server answers, and how it ends.

use crate::mesh::{Happened, Mesh, RawTls, Server, open, pool, soon};
use bytes::Bytes;
use http::{Method, Request, Version};
use meshwright_hbone::{
    BadRequest, ConnectError, DirectDial, Quotas, ResponseHeaders, ServerConfig,
    events::{CloseReason, Limit},
    quotas::QuotaConfig,
};
use meshwright_testkit::trace;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

/// A raw h2 client whose connection runs on a task.
struct RawH2 {
    requests: h2::client::SendRequest<Bytes>,
    _task: JoinSet<()>,
}

impl RawH2 {
    async fn connect(stream: RawTls) -> Self {
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let _ended = connection.await;
        });
        Self {
            requests,
            _task: task,
        }
    }

    fn connect_request(authority: &str) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = authority.parse().unwrap();
        request
    }

    async fn status(&mut self, request: Request<()>) -> Result<u16, h2::Error> {
        let ready = self.requests.clone().ready().await?;
        self.requests = ready;
        let (response, _stream) = self.requests.send_request(request, false)?;
        Ok(soon("the request is answered", response)
            .await?
            .status()
            .as_u16())
    }
}

#[tokio::test]
async fn bad_requests_are_answered_400_and_never_surface() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut client = RawH2::connect(mesh.raw_client(server.addr).await).await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = RawH2::connect_request("10.0.0.1:80");
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let get = Request::get("https://10.0.0.1:80/x").body(()).unwrap();
    for (request, reason) in [
        (get, BadRequest::Method),
        (
            RawH2::connect_request("010.0.0.1:80"),
            BadRequest::Authority,
        ),
        (RawH2::connect_request("10.0.0.1"), BadRequest::Authority),
        (RawH2::connect_request("10.0.0.1:0"), BadRequest::Authority),
        (with("te", "trailers"), BadRequest::HopByHop),
        (with("host", "10.0.0.2:80"), BadRequest::Host),
        (with("content-length", "5"), BadRequest::ContentLength),
    ] {
        assert_eq!(client.status(request).await.unwrap(), 400, "{reason:?}");
        assert_eq!(
            server.events.0.take().pop(),
            Some(Happened::Refused(reason))
        );
    }
    assert!(!server.has_request());
}

#[tokio::test]
async fn refusals_carry_their_status_and_a_dropped_request_503() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    for (status, seen) in [(Some(401), 401), (Some(200), 503), (None, 503)] {
        let (opened, ()) = tokio::join!(pool.tunnel(&member, server.target()), async {
            let request = server.request().await;
            if let Some(status) = status {
                request.refuse(http::StatusCode::from_u16(status).unwrap());
            }
        });
        match opened {
            Err(ConnectError::Refused { status, .. }) => assert_eq!(status, seen),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        pool.connections(),
        1,
        "a refusal leaves the connection alone"
    );
}

#[tokio::test]
async fn early_data_waits_for_accept_and_is_lost_on_refusal() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let mut client = RawH2::connect(mesh.raw_client(server.addr).await).await;
    let request = RawH2::connect_request("10.0.0.1:80");
    let (response, mut stream) = client.requests.send_request(request, false).unwrap();
    stream
        .send_data(Bytes::from_static(b"early"), true)
        .unwrap();
    let request = server.request().await;
    let mut tunnel = request.accept(ResponseHeaders::new()).unwrap();
    let mut got = String::new();
    soon("early data arrives", tunnel.read_to_string(&mut got))
        .await
        .unwrap();
    assert_eq!(got, "early", "the end of the stream with it is kept");
    tunnel.shutdown().await.unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn drained_server_takes_what_was_on_its_way_and_ends_with_its_last_tunnel() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let (mut client, mut tunnel) = open(&pool, &member, &mut server).await;
    server.drain.start();
    soon("the pool hears of it", async {
        while pool.connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client.write_all(b"x").await.unwrap();
    tunnel.read_exact(&mut [0]).await.unwrap();
    drop((client, tunnel));
    assert_eq!(server.end().await, Ok(()));
    let closed = Happened::Closed(CloseReason::Drained);
    assert_eq!(server.events.count(&closed), 1);
    soon("the drain is finished", async { server.drain.watchers() }).await;
}

#[tokio::test]
async fn closed_server_resets_its_tunnels() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let (mut client, _tunnel) = open(&pool, &member, &mut server).await;
    server.drain.close();
    soon("the client sees it", client.read(&mut [0]))
        .await
        .unwrap_err();
    assert_eq!(server.end().await, Ok(()));
    assert_eq!(
        server.events.count(&Happened::Closed(CloseReason::Closed)),
        1
    );
}

fn quotas(connections: u32, streams: u32) -> impl FnOnce(ServerConfig) -> ServerConfig {
    let mut config = QuotaConfig::default();
    (config.connections, config.streams) = (connections, streams);
    move |server| server.with_quotas(Quotas::new(config))
}

#[tokio::test]
async fn stream_quota_refuses_without_touching_the_application() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server_with(quotas(9, 1)).await;
    let (pool, member) = (pool(), mesh.member("client"));
    let first = open(&pool, &member, &mut server).await;
    let refused = pool.tunnel(&member, server.target()).await;
    assert!(
        matches!(refused, Err(ConnectError::Unprocessed { .. })),
        "{refused:?}"
    );
    assert_eq!(
        server.events.count(&Happened::Limit(Limit::Streams)),
        2,
        "retried once"
    );
    assert!(!server.has_request());
    drop(first);
    open(&pool, &member, &mut server).await;
}

#[tokio::test]
async fn connection_quota_is_per_identity() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut server = mesh.server_with(quotas(1, 99)).await;
    let _first = mesh.raw_client(server.addr).await;
    let _second = mesh.raw_client(server.addr).await;
    assert_eq!(
        server.end().await,
        Err("no more connections for this peer".to_owned())
    );
    let member = mesh.member("other");
    open(&pool(), &member, &mut server).await;
}

#[tokio::test]
async fn silent_peers_run_into_each_deadline() {
    let _trace = trace();
    let mesh = Mesh::new();
    let short = Duration::from_millis(50);

    let mut server = mesh
        .server_with(|config| config.with_tls_deadline(short))
        .await;
    let _silent = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    server.end().await.unwrap_err();
    assert_eq!(server.events.count(&Happened::Limit(Limit::Tls)), 1);

    let mut server = mesh
        .server_with(|config| config.with_settings_deadline(short))
        .await;
    let _silent = mesh.raw_client(server.addr).await;
    server.end().await.unwrap_err();
    assert_eq!(server.events.count(&Happened::Limit(Limit::Settings)), 1);

    let mut server = mesh
        .server_with(|config| config.with_first_request_deadline(short))
        .await;
    let _silent = RawH2::connect(mesh.raw_client(server.addr).await).await;
    server.end().await.unwrap_err();
    assert_eq!(
        server.events.count(&Happened::Limit(Limit::FirstRequest)),
        1
    );

    let idle = |config: ServerConfig| config.with_idle(short);
    let mut server: Server = mesh.server_with(idle).await;
    let (pool, member) = (pool(), mesh.member("client"));
    let tunnels = open(&pool, &member, &mut server).await;
    drop(tunnels);
    assert_eq!(
        server.end().await,
        Ok(()),
        "an idle connection ends in order"
    );
    assert_eq!(server.events.count(&Happened::Limit(Limit::Idle)), 1);
}

#[tokio::test]
async fn tower_service_answers_requests() {
    let _trace = trace();
    let mesh = Mesh::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let member = mesh.member("server");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let config = ServerConfig::new(Arc::new(()));
        let (stream, _) = listener.accept().await.unwrap();
        let connection = meshwright_hbone::accept_tls(stream, &member, &config)
            .await
            .unwrap();
        meshwright_hbone::serve(connection, Echo).await.unwrap();
    });
    let pool: meshwright_hbone::Pool<DirectDial> = pool();
    let member = mesh.member("client");
    let mut tunnel = pool
        .tunnel(&member, crate::mesh::target(addr))
        .await
        .unwrap();
    tunnel.write_all(b"echo").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut got = String::new();
    tunnel.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "echo");
    pool.drain();
    drop(tunnel);
    soon("the connection ends", tasks.join_next())
        .await
        .unwrap()
        .unwrap();
}

#[derive(Clone)]
struct Echo;

impl tower_service::Service<meshwright_hbone::ConnectRequest> for Echo {
    type Response = ();
    type Error = std::io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

    fn poll_ready(
        &mut self,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: meshwright_hbone::ConnectRequest) -> Self::Future {
        Box::pin(async move {
            let tunnel = request.accept(ResponseHeaders::new())?;
            let (mut read, mut write) = tokio::io::split(tunnel);
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        })
    }
}
