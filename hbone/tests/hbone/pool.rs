//! Sharing, growing, and ending of the client's connections.

use crate::mesh::{Happened, Mesh, Recorded, open, pool, pool_with, soon, target};
use meshwright_hbone::{
    ConnectError, Connector, Dial, Origin, Pool, PoolConfig, ResponseHeaders,
    events::{CloseReason, Limit},
};
use meshwright_identity::AcceptedPeers;
use meshwright_testkit::trace;
use std::{
    io,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};
use tower_service::Service;

fn few_streams(streams: u32) -> PoolConfig {
    PoolConfig::new().with_max_streams(NonZeroU32::new(streams).unwrap())
}

/// A dialer that waits for leave and counts.
#[derive(Clone)]
struct Gate {
    leave: Arc<Semaphore>,
    dials: Arc<AtomicUsize>,
    refuse: bool,
}

impl Gate {
    fn new(refuse: bool) -> Self {
        Self {
            leave: Arc::new(Semaphore::new(0)),
            dials: Arc::default(),
            refuse,
        }
    }
}

impl Dial for Gate {
    async fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        let _leave = self.leave.acquire().await.unwrap();
        if self.refuse {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        TcpStream::connect(addr).await
    }
}

#[tokio::test]
async fn tunnels_with_the_same_key_share_a_connection_and_others_do_not() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let (_one, _two) = (
        open(&pool, &member, &mut peer).await,
        open(&pool, &member, &mut peer).await,
    );
    assert_eq!(pool.connections(), 1);
    let same = peer.target();
    let mut more = AcceptedPeers::from(Mesh::id("server"));
    more = more.iter().cloned().chain([Mesh::id("other")]).collect();
    let others = [
        same.clone().with_origin(Origin::new("pod-b")),
        same.clone().with_destination("net-b".into(), "".into()),
        same.clone().with_destination("".into(), "uid-b".into()),
        meshwright_hbone::Target::new(same.address, same.authority.clone(), more),
    ];
    let mut tunnels = Vec::new();
    for (count, other) in others.into_iter().enumerate() {
        let (client, server) = tokio::join!(pool.tunnel(&member, other), peer.accept());
        tunnels.push((client.unwrap(), server));
        assert_eq!(
            pool.connections(),
            count + 2,
            "every part of the key counts"
        );
    }
    let stranger = mesh.member("stranger");
    let (client, server) = tokio::join!(pool.tunnel(&stranger, same), peer.accept());
    tunnels.push((client.unwrap(), server));
    assert_eq!(
        pool.connections(),
        6,
        "another own identity has its own connection"
    );
    assert_eq!(pool.tunnels(), 7);
    drop(tunnels);
}

#[tokio::test]
async fn parallel_requests_wait_for_one_dial() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (gate, member) = (Gate::new(false), mesh.member("client"));
    let pool = Pool::new(gate.clone(), PoolConfig::new(), Arc::new(()));
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let (pool, member, target) = (pool.clone(), member.clone(), peer.target());
        requests.spawn(async move { pool.tunnel(&member, target).await.map(drop) });
    }
    while gate.dials.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    gate.leave.add_permits(1);
    let mut accepted = Vec::new();
    for _ in 0..20 {
        accepted.push(peer.accept().await);
    }
    while let Some(opened) = soon("all are opened", requests.join_next()).await {
        opened.unwrap().unwrap();
    }
    assert_eq!(gate.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn failed_dial_fails_everybody_who_waits_for_it() {
    let _trace = trace();
    let mesh = Mesh::new();
    let (gate, member) = (Gate::new(true), mesh.member("client"));
    let pool = Pool::new(gate.clone(), PoolConfig::new(), Arc::new(()));
    let mut requests = JoinSet::new();
    for _ in 0..5 {
        let (pool, member) = (pool.clone(), member.clone());
        let target = target("127.0.0.1:1".parse().unwrap());
        requests.spawn(async move { pool.tunnel(&member, target).await.map(drop) });
    }
    while gate.dials.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    gate.leave.add_permits(9);
    while let Some(opened) = soon("all fail", requests.join_next()).await {
        let error = opened.unwrap().unwrap_err();
        assert!(matches!(error, ConnectError::Tcp { .. }), "{error}");
        assert!(error.is_safe_to_retry());
    }
    assert_eq!(
        gate.dials.load(Ordering::SeqCst),
        1,
        "one dial, five answers"
    );
    assert_eq!(pool.connections(), 0);
}

#[tokio::test]
async fn request_that_gives_up_does_not_end_the_dial_for_others() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (gate, member) = (Gate::new(false), mesh.member("client"));
    let pool = Pool::new(gate.clone(), PoolConfig::new(), Arc::new(()));
    let mut first = JoinSet::new();
    let (clone, its_member, target) = (pool.clone(), member.clone(), peer.target());
    first.spawn(async move { clone.tunnel(&its_member, target).await.map(drop) });
    while gate.dials.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    first.shutdown().await;
    gate.leave.add_permits(1);
    let (client, _server) = tokio::join!(pool.tunnel(&member, peer.target()), peer.accept());
    client.unwrap();
    assert_eq!(
        gate.dials.load(Ordering::SeqCst),
        1,
        "the second joined the first one's dial"
    );
}

#[tokio::test]
async fn full_connection_gets_a_sibling_and_is_used_again_later() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (
        pool_with(few_streams(2), Arc::new(())),
        mesh.member("client"),
    );
    let first = open(&pool, &member, &mut peer).await;
    let _second = open(&pool, &member, &mut peer).await;
    let _third = open(&pool, &member, &mut peer).await;
    assert_eq!(pool.connections(), 2);
    drop(first);
    let _fourth = open(&pool, &member, &mut peer).await;
    assert_eq!(pool.connections(), 2, "the place that became free is used");
}

#[tokio::test]
async fn peers_limit_of_streams_is_kept() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server_with(|config| config.with_max_streams(3)).await;
    let (pool, member) = (pool(), mesh.member("client"));
    let mut tunnels = Vec::new();
    for _ in 0..7 {
        tunnels.push(open(&pool, &member, &mut peer).await);
    }
    assert_eq!(pool.connections(), 3, "three, three and one");
}

#[tokio::test]
async fn draining_peer_keeps_its_tunnels_and_new_ones_go_elsewhere() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let (mut client, mut server) = open(&pool, &member, &mut peer).await;
    peer.drain.start();
    // The GOAWAY arrives at some time before the next tunnel; if it does not, the race is the
    // peer's to resolve: no request may fail or arrive twice.
    let mut later = mesh.server().await;
    client.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    server.read_exact(&mut got).await.unwrap();
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    drop((client, server));
    assert_eq!(
        peer.end().await,
        Ok(()),
        "the drained connection ends by itself"
    );
    open(&pool, &member, &mut later).await;
}

#[tokio::test]
async fn request_in_a_race_with_goaway_is_retried_and_arrives_once() {
    let _trace = trace();
    let mesh = Mesh::new();
    let raw = mesh.raw_server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let request = pool.tunnel(&member, target(raw.addr()));
    let serve = async {
        // The first connection takes the request and says that it has not looked at it.
        let mut first = h2::server::handshake(raw.accept().await).await.unwrap();
        let (_request, _respond) = first.accept().await.unwrap().unwrap();
        first.abrupt_shutdown(h2::Reason::NO_ERROR);
        let goaway = async { while first.accept().await.is_some() {} };
        // The second one serves it.
        let second = async {
            let mut second = h2::server::handshake(raw.accept().await).await.unwrap();
            let (_request, mut respond) = second.accept().await.unwrap().unwrap();
            let stream = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            tokio::select! {
                more = second.accept() => assert!(more.is_none(), "one request only"),
                () = std::future::pending() => {}
            }
            drop(stream);
        };
        tokio::join!(goaway, second)
    };
    tokio::select! {
        opened = soon("the request is retried", request) => {
            // An abrupt GOAWAY names the stream as processed, so that it must not be retried.
            let error = opened.unwrap_err();
            assert!(!error.is_safe_to_retry(), "{error}");
        }
        _ = serve => panic!("the server's end ended first"),
    }
}

/// A proxy that is being replaced accepts a last connection and closes it at once.
#[tokio::test]
async fn connection_that_ends_before_the_request_is_dialed_once_more() {
    let _trace = trace();
    let mesh = Mesh::new();
    let raw = mesh.raw_server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let request = pool.tunnel(&member, target(raw.addr()));
    let serve = async {
        drop(raw.accept().await);
        let mut second = h2::server::handshake(raw.accept().await).await.unwrap();
        let (_request, mut respond) = second.accept().await.unwrap().unwrap();
        let _stream = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        while second.accept().await.is_some() {}
    };
    tokio::select! {
        opened = soon("the successor is dialed", request) => drop(opened.unwrap()),
        () = serve => panic!("the server's end ended first"),
    }
}

#[tokio::test]
async fn peer_that_ends_every_connection_is_not_dialed_for_ever() {
    let _trace = trace();
    let mesh = Mesh::new();
    let raw = mesh.raw_server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let request = pool.tunnel(&member, target(raw.addr()));
    let serve = async {
        for _ in 0..2 {
            drop(raw.accept().await);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        opened = soon("the second end is an error", request) => {
            assert!(opened.unwrap_err().is_safe_to_retry());
        }
        () = serve => {}
    }
}

#[tokio::test]
async fn refused_stream_is_retried_on_a_new_connection() {
    let _trace = trace();
    let mesh = Mesh::new();
    let raw = mesh.raw_server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let request = pool.tunnel(&member, target(raw.addr()));
    let serve = async {
        let mut first = h2::server::handshake(raw.accept().await).await.unwrap();
        let (_request, mut respond) = first.accept().await.unwrap().unwrap();
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        drop(respond);
        let old = async { while first.accept().await.is_some() {} };
        let new = async {
            let mut second = h2::server::handshake(raw.accept().await).await.unwrap();
            let (_request, mut respond) = second.accept().await.unwrap().unwrap();
            let _stream = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            while second.accept().await.is_some() {}
        };
        tokio::join!(old, new)
    };
    tokio::select! {
        opened = soon("the request is retried", request) => drop(opened.unwrap()),
        _ = serve => panic!("the server's end ended first"),
    }
}

#[tokio::test]
async fn request_that_a_draining_connection_refuses_goes_to_a_new_one_past_others() {
    let _trace = trace();
    let mesh = Mesh::new();
    let raw = mesh.raw_server().await;
    let (pool, member) = (
        pool_with(few_streams(1), Arc::new(())),
        mesh.member("client"),
    );
    let draining = Arc::new(AtomicUsize::new(0));
    let serve = async {
        let mut connections = JoinSet::new();
        for number in 0.. {
            let stream = raw.accept().await;
            let draining = Arc::clone(&draining);
            connections.spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    if number < draining.load(Ordering::SeqCst) {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        let done = respond.send_response(http::Response::new(()), true);
                        drop(done.unwrap());
                    }
                }
            });
        }
    };
    let requests = async {
        let opened = tokio::join!(
            pool.tunnel(&member, target(raw.addr())),
            pool.tunnel(&member, target(raw.addr())),
        );
        assert!(opened.0.is_ok() && opened.1.is_ok());
        assert_eq!(pool.connections(), 2);
        drop(opened);
        draining.store(2, Ordering::SeqCst);
        pool.tunnel(&member, target(raw.addr())).await.unwrap();
    };
    tokio::select! {
        () = soon("the request is served", requests) => {}
        () = serve => {}
    }
}

#[tokio::test]
async fn peer_that_allows_no_streams_is_dialed_once_and_said_to_take_none() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server_with(|config| config.with_max_streams(0)).await;
    let events = Recorded::default();
    let pool = pool_with(PoolConfig::new(), Arc::new(events.clone()));
    let member = mesh.member("client");
    let refused = soon("the request fails", pool.tunnel(&member, peer.target())).await;
    assert!(
        matches!(refused, Err(ConnectError::Unprocessed { .. })),
        "{refused:?}"
    );
    assert_eq!(pool.connections(), 0);
    drop(peer.end().await);
    assert_eq!(peer.events.count(&Happened::Opened), 1);
}

#[tokio::test]
async fn many_refusals_of_an_honest_peer_are_no_attack() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let events = Recorded::default();
    let pool = pool_with(PoolConfig::new(), Arc::new(events.clone()));
    let member = mesh.member("client");
    let (mut client, mut server) = open(&pool, &member, &mut peer).await;
    let denied = http::StatusCode::UNAUTHORIZED;
    for _ in 0..1000 {
        let request = pool.tunnel(&member, peer.target());
        let refuse = async { peer.request().await.refuse(denied) };
        let (refused, ()) = tokio::join!(soon("it is refused", request), refuse);
        assert!(matches!(
            refused,
            Err(ConnectError::Refused { status: 401, .. })
        ));
    }
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    for limited in [&events, &peer.events] {
        assert_eq!(limited.count(&Happened::Limit(Limit::StreamResets)), 0);
    }
}

#[tokio::test]
async fn draining_pool_takes_nothing_new_and_its_tunnels_go_on() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let events = Recorded::default();
    let pool = pool_with(PoolConfig::new(), Arc::new(events.clone()));
    let member = mesh.member("client");
    let (mut client, mut server) = open(&pool, &member, &mut peer).await;
    pool.drain();
    let refused = pool.tunnel(&member, peer.target()).await;
    assert!(matches!(refused, Err(ConnectError::Draining)));
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    drop((client, server));
    assert_eq!(
        peer.end().await,
        Ok(()),
        "the connection closes after its last tunnel"
    );
    // This end waits for the other's, so that nothing on the way is lost.
    soon("this end is closed", async {
        while events.count(&Happened::Closed(CloseReason::Drained)) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn pool_is_bounded_and_idle_connections_make_room() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let one = NonZeroU32::MIN;
    let events = Recorded::default();
    let config = PoolConfig::new().with_max_connections(one, one);
    let pool = pool_with(config, Arc::new(events.clone()));
    let member = mesh.member("client");
    let first = open(&pool, &member, &mut peer).await;
    let other = peer.target().with_origin(Origin::new("other"));
    let full = pool.tunnel(&member, other.clone()).await;
    assert!(matches!(full, Err(ConnectError::PoolFull)));
    assert_eq!(events.count(&Happened::Limit(Limit::Connections)), 1);
    drop(first);
    let (client, _server) = tokio::join!(pool.tunnel(&member, other), peer.accept());
    client.unwrap();
    assert_eq!(pool.connections(), 1);
    assert_eq!(peer.end().await, Ok(()), "the idle one was closed in order");
}

/// A connection that a peer has drained early has no place in the pool's books any more.
#[tokio::test]
async fn tunnels_of_a_drained_connection_outlive_the_time_of_idle_ones() {
    let _trace = trace();
    let mesh = Mesh::new();
    let (mut drained, mut other) = (mesh.server().await, mesh.server().await);
    let short = Duration::from_millis(20);
    let config = PoolConfig::new()
        .with_idle(short)
        .with_ping(short, Duration::from_secs(9));
    let (pool, member) = (pool_with(config, Arc::new(())), mesh.member("client"));
    let emptied = async || {
        while pool.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let (mut client, mut server) = open(&pool, &member, &mut drained).await;
    drained.drain.start();
    soon("the drained connection leaves the pool", emptied()).await;
    // Each of these lives as long as a connection may be idle.
    for _ in 0..3 {
        drop(open(&pool, &member, &mut other).await);
        soon("an idle connection is closed", emptied()).await;
    }
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn idle_connection_is_closed_in_order() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let short = Duration::from_millis(20);
    let config = PoolConfig::new()
        .with_idle(short)
        .with_ping(short, Duration::from_secs(9));
    let (pool, member) = (pool_with(config, Arc::new(())), mesh.member("client"));
    let tunnels = open(&pool, &member, &mut peer).await;
    drop(tunnels);
    assert_eq!(peer.end().await, Ok(()));
    assert_eq!(pool.connections(), 0);
}

#[tokio::test]
async fn connection_ends_before_the_peers_certificate() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (pool(), mesh.member_for("client", Duration::from_secs(2)));
    let (mut client, mut server) = open(&pool, &member, &mut peer).await;
    // The server drains the connection, the tunnel stays.
    soon("the connection leaves the pool", async {
        while pool.connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(peer.events.count(&Happened::Limit(Limit::Age)), 1);
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn unexpected_peer_is_refused_before_anything_is_sent() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let accepted = AcceptedPeers::from(Mesh::id("somebody-else"));
    let authority = peer.target().authority;
    let target = meshwright_hbone::Target::new(peer.addr, authority, accepted);
    let refused = pool().tunnel(&mesh.member("client"), target).await;
    assert!(
        matches!(refused, Err(ConnectError::Tls { .. })),
        "{refused:?}"
    );
    assert!(!peer.has_request());
}

#[tokio::test]
async fn silent_peers_run_into_each_deadline() {
    let _trace = trace();
    let mesh = Mesh::new();
    let raw = mesh.raw_server().await;
    let short = Duration::from_millis(50);
    let member = mesh.member("client");

    let config = PoolConfig::new().with_tcp_deadline(short);
    let pool = Pool::new(Gate::new(false), config, Arc::new(()));
    let error = pool.tunnel(&member, target(raw.addr())).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Timeout {
                step: Limit::Tcp,
                ..
            }
        ),
        "{error}"
    );

    let pool = pool_with(PoolConfig::new().with_tls_deadline(short), Arc::new(()));
    let error = pool.tunnel(&member, target(raw.addr())).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Timeout {
                step: Limit::Tls,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn silent_http2_peers_run_into_each_deadline() {
    let _trace = trace();
    let mesh = Mesh::new();
    let raw = mesh.raw_server().await;
    let short = Duration::from_millis(50);
    let member = mesh.member("client");

    let pool = pool_with(
        PoolConfig::new().with_settings_deadline(short),
        Arc::new(()),
    );
    let request = pool.tunnel(&member, target(raw.addr()));
    let (error, _silent) = tokio::join!(request, raw.accept());
    let error = error.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Timeout {
                step: Limit::Settings,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.is_safe_to_retry());

    let mut peer = mesh.server().await;
    let pool = pool_with(PoolConfig::new().with_answer_deadline(short), Arc::new(()));
    let error = pool.tunnel(&member, peer.target()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Timeout {
                step: Limit::Answer,
                ..
            }
        ),
        "{error}"
    );
    assert!(!error.is_safe_to_retry());
    let mut request = peer.request().await;
    soon("the server's handler hears of it", request.abandoned()).await;
    assert_eq!(pool.tunnels(), 0, "the place is given back");
}

#[tokio::test]
async fn connector_is_a_tower_service() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let mut connector = Connector::new(pool(), mesh.member("client"));
    std::future::poll_fn(|cx| connector.poll_ready(cx))
        .await
        .unwrap();
    let (tunnel, request) = tokio::join!(connector.call(peer.target()), async {
        let request = peer.request().await;
        assert_eq!(request.peer().id, Mesh::id("client"));
        assert_eq!(request.authority().to_string(), "10.0.0.7:80");
        request.accept(ResponseHeaders::new())
    });
    drop((tunnel.unwrap(), request.unwrap()));
}

#[tokio::test]
async fn futures_of_the_hot_path_are_small() {
    let _trace = trace();
    let mesh = Mesh::new();
    let (pool, member) = (pool(), mesh.member("client"));
    let target = target("127.0.0.1:1".parse().unwrap());
    let size = size_of_val(&pool.tunnel(&member, target));
    assert!(size < 4096, "opening a tunnel takes {size} bytes");
}
