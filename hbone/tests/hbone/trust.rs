//! What happens to live connections when certificates end and roots go.

use crate::mesh::{Clock, Happened, Mesh, Recorded, open, pool, pool_with, soon};
use meshwright_hbone::{
    ConnectError, PoolConfig,
    events::{CloseReason, Limit},
};
use meshwright_testkit::trace;
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(9);

#[tokio::test]
async fn peer_whose_certificate_has_ended_opens_no_tunnel_and_its_live_ones_go_on() {
    let _trace = trace();
    let clock = Clock::new();
    let mesh = Mesh::with_clock(&clock);
    let mut server = mesh.server().await;
    // The client's clock stands still: it does not notice.
    let member = mesh.member_for("client", Duration::from_secs(60));
    let (requests, connection) =
        h2::client::handshake(mesh.raw_client_as(&member, server.addr).await)
            .await
            .unwrap();
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move { drop(connection.await) });
    let request = || {
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = "10.0.0.7:80".parse().unwrap();
        request
    };
    let mut requests = requests.ready().await.unwrap();
    let (answer, mut live) = requests.send_request(request(), false).unwrap();
    let mut tunnel = server.accept().await;
    soon("the first tunnel opens", answer).await.unwrap();

    clock.forward(61);
    let (answer, _stream) = requests.send_request(request(), false).unwrap();
    let refused = soon("the second is refused", answer).await.unwrap_err();
    assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
    assert!(!server.has_request());
    assert_eq!(server.events.count(&Happened::Limit(Limit::Age)), 1);
    live.send_data(bytes::Bytes::from_static(b"x"), false)
        .unwrap();
    tunnel.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn pooled_connection_is_not_used_after_the_peers_certificate_has_ended() {
    let _trace = trace();
    let clock = Clock::new();
    let mesh = Mesh::with_clock(&clock);
    let mut server = mesh.server().await;
    let config = PoolConfig::new().with_ping(SHORT, LONG);
    let (pool, day) = (pool_with(config, Arc::new(())), 24 * 3600);
    let member = mesh.member_for("client", Duration::from_secs(day));
    let (mut client, mut tunnel) = open(&pool, &member, &mut server).await;
    clock.forward(3601);
    soon("the connection leaves the pool", async {
        while pool.connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client.write_all(b"x").await.unwrap();
    tunnel.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn nothing_is_opened_with_an_own_certificate_that_has_ended() {
    let _trace = trace();
    let clock = Clock::new();
    let mesh = Mesh::with_clock(&clock);
    let mut server = mesh.server().await;
    let (pool, member) = (pool(), mesh.member_for("client", Duration::from_secs(60)));
    let _live = open(&pool, &member, &mut server).await;
    clock.forward(61);
    assert_eq!(pool.connections(), 1, "there is a connection with room");
    let refused = pool.tunnel(&member, server.target()).await;
    assert!(matches!(refused, Err(ConnectError::Expired)), "{refused:?}");
}

/// A rotation that brings other roots, on the server's or on the client's side.
#[tokio::test]
async fn tunnels_of_a_peer_whose_root_was_taken_away_are_cut() {
    let _trace = trace();
    let (mesh, other) = (Mesh::new(), Mesh::new());
    for server_rotates in [true, false] {
        let mut server = mesh
            .server_with(|config| config.with_ping(SHORT, LONG))
            .await;
        let events = Recorded::default();
        let config = PoolConfig::new().with_ping(SHORT, LONG);
        let pool = pool_with(config, Arc::new(events.clone()));
        let member = mesh.member("client");
        let (mut client, mut tunnel) = open(&pool, &member, &mut server).await;
        let (rotates, name, seen) = if server_rotates {
            (&server.member, "server", &server.events)
        } else {
            (&member, "client", &events)
        };
        rotates.replace(mesh.svid(name)).unwrap();
        client.write_all(b"x").await.unwrap();
        tunnel.read_exact(&mut [0]).await.unwrap();
        rotates.replace(other.svid(name)).unwrap();
        let cut = async {
            client.read(&mut [0]).await.unwrap_err();
            tunnel.read(&mut [0]).await.unwrap_err();
        };
        soon("both ends see a reset", cut).await;
        soon("the reason is told", async {
            while seen.count(&Happened::Closed(CloseReason::Untrusted)) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(seen.count(&Happened::Closed(CloseReason::Untrusted)), 1);
    }
}
