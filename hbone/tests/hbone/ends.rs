//! How the ends of a tunnel and of what it is relayed to follow each other.

use crate::mesh::{Mesh, Pair, open, pool, soon};
use meshwright_hbone::{EndReason, Leg, RelayConfig, RelayEnd, Reset, Side, TcpLeg, Tunnel, relay};
use meshwright_testkit::trace;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

/// Two connected TCP sockets.
async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// app ── TCP ── relay ══ tunnel ══ relay ── TCP ── app
struct Path {
    client: TcpStream,
    server: TcpStream,
    relays: JoinSet<RelayEnd>,
    pair: Rest,
}

/// What keeps the tunnel's connection alive.
struct Rest {
    _peer: crate::mesh::Server,
    _pool: meshwright_hbone::Pool<meshwright_hbone::DirectDial>,
}

impl Path {
    async fn open(mesh: &Mesh) -> Self {
        let Pair {
            client: near,
            server: far,
            peer,
            pool,
            ..
        } = Pair::open(mesh).await;
        let (client, near_app) = tcp_pair().await;
        let (server, far_app) = tcp_pair().await;
        let mut relays = JoinSet::new();
        relays.spawn(run(near_app, near));
        relays.spawn(run(far_app, far));
        let pair = Rest {
            _peer: peer,
            _pool: pool,
        };
        Self {
            client,
            server,
            relays,
            pair,
        }
    }

    async fn ends(mut self) -> Vec<EndReason> {
        let mut ends = Vec::new();
        while let Some(end) = soon("the relays end", self.relays.join_next()).await {
            ends.push(end.unwrap().reason);
        }
        drop(self.pair);
        ends
    }
}

async fn run(app: TcpStream, tunnel: Tunnel) -> RelayEnd {
    let config = RelayConfig::default();
    relay(TcpLeg::new(app), tunnel, &config, ()).await
}

fn reset_tcp(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[tokio::test]
async fn bytes_and_clean_ends_go_through_both_ways() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut pair = Pair::open(&mesh).await;
    pair.client.write_all(b"ping").await.unwrap();
    pair.client.shutdown().await.unwrap();
    let mut got = String::new();
    pair.server.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "ping");
    pair.server.write_all(b"pong").await.unwrap();
    pair.server.shutdown().await.unwrap();
    got.clear();
    pair.client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "pong", "data after the other direction's end arrives");
    let again = pair.client.write(b"x").await;
    assert!(again.is_err(), "nothing can be sent after the end");
}

/// A connection that closes after its last tunnel must not be reset by the kernel because window
/// updates of the peer were never read: the bytes still in the socket would be lost.
#[tokio::test]
async fn tail_of_the_last_tunnel_of_a_drained_connection_arrives() {
    let _trace = trace();
    const SIZE: usize = 4 * 1024 * 1024;
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (addr, _wire) = slow_wire(peer.addr).await;
    let (pool, member) = (pool(), mesh.member("client"));
    let target = crate::mesh::target(addr);
    let (client, server) = tokio::join!(pool.tunnel(&member, target), peer.accept());
    let (mut client, mut server) = (client.unwrap(), server);
    client.shutdown().await.unwrap();
    peer.drain.start();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        server.write_all(&vec![7; SIZE]).await.unwrap();
        server.shutdown().await.unwrap();
    });
    let mut got = Vec::with_capacity(SIZE);
    soon("the answer ends", client.read_to_end(&mut got))
        .await
        .unwrap();
    assert_eq!(got.len(), SIZE, "what was sent before the end arrives");
}

/// Passes a connection on, fast there and slowly back: the answer waits in the server's socket.
async fn slow_wire(to: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (client, _from) = listener.accept().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let server = socket.connect(to).await.unwrap();
        let ((mut near_read, mut near), (mut far_read, mut far)) =
            (client.into_split(), server.into_split());
        let there = async {
            let _ended = tokio::io::copy(&mut near_read, &mut far).await;
            let _gone = far.shutdown().await;
        };
        let back = async {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = far_read.read(&mut piece).await {
                if near.write_all(&piece[..length]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _gone = near.shutdown().await;
        };
        tokio::join!(there, back);
    });
    (addr, tasks)
}

#[tokio::test]
async fn half_close_is_passed_on_in_both_directions() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut path = Path::open(&mesh).await;
    path.client.write_all(b"question").await.unwrap();
    path.client.shutdown().await.unwrap();
    let mut got = String::new();
    soon("the question ends", path.server.read_to_string(&mut got))
        .await
        .unwrap();
    path.server.write_all(b"answer").await.unwrap();
    path.server.shutdown().await.unwrap();
    let mut answer = String::new();
    soon("the answer ends", path.client.read_to_string(&mut answer))
        .await
        .unwrap();
    assert_eq!((got.as_str(), answer.as_str()), ("question", "answer"));
    assert_eq!(
        path.ends().await,
        [EndReason::Finished, EndReason::Finished]
    );
}

#[tokio::test]
async fn bulk_flows_after_the_other_side_has_closed() {
    let _trace = trace();
    const SIZE: usize = 64 * 1024 * 1024;
    let mesh = Mesh::new();
    let mut path = Path::open(&mesh).await;
    path.client.shutdown().await.unwrap();
    assert_eq!(path.server.read(&mut [0; 8]).await.unwrap(), 0);
    let (mut sink, mut source) = (path.client, path.server);
    let send = async move {
        let block: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
        for _ in 0..SIZE / block.len() {
            source.write_all(&block).await.unwrap();
        }
        source.shutdown().await.unwrap();
    };
    let receive = async move {
        let mut got = 0;
        let mut block = vec![0; 256 * 1024];
        loop {
            let count = sink.read(&mut block).await.unwrap();
            for (at, byte) in block[..count].iter().enumerate() {
                assert_eq!(
                    usize::from(*byte),
                    (got + at) % 256,
                    "a byte is out of place"
                );
            }
            got += count;
            if count == 0 {
                return got;
            }
        }
    };
    let ((), got) = soon("the transfer ends", async { tokio::join!(send, receive) }).await;
    assert_eq!(got, SIZE, "everything arrives after the early half-close");
    while let Some(end) = path.relays.join_next().await {
        assert_eq!(end.unwrap().reason, EndReason::Finished);
    }
}

#[tokio::test]
async fn tcp_reset_is_seen_as_a_reset_at_the_far_end() {
    let _trace = trace();
    let mesh = Mesh::new();
    for client_resets in [true, false] {
        let mut path = Path::open(&mesh).await;
        path.client.write_all(b"x").await.unwrap();
        path.server.read_exact(&mut [0]).await.unwrap();
        let (reset, mut seen) = if client_resets {
            (path.client, path.server)
        } else {
            (path.server, path.client)
        };
        reset_tcp(reset);
        let end = soon("the far end ends", seen.read(&mut [0; 8])).await;
        assert_eq!(
            end.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset,
            "a reset is never a clean end"
        );
        while let Some(end) = path.relays.join_next().await {
            let reason = end.unwrap().reason;
            assert!(matches!(reason, EndReason::Reset { .. }), "{reason:?}");
        }
    }
}

#[tokio::test]
async fn reset_of_a_half_closed_connection_is_passed_on() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut path = Path::open(&mesh).await;
    path.client.shutdown().await.unwrap();
    assert_eq!(path.server.read(&mut [0; 8]).await.unwrap(), 0);
    reset_tcp(path.client);
    let end = soon("the server's writes fail", async {
        loop {
            if let Err(error) = path.server.write_all(b"x").await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        matches!(
            end.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        "{end}"
    );
}

#[tokio::test]
async fn dropped_tunnel_is_a_reset_for_the_peer_whichever_side_drops_it() {
    let _trace = trace();
    let mesh = Mesh::new();
    for client_drops in [true, false] {
        let pair = Pair::open(&mesh).await;
        let (dropped, mut seen) = if client_drops {
            (pair.client, pair.server)
        } else {
            (pair.server, pair.client)
        };
        drop(dropped);
        let error = soon("the peer sees it", seen.read(&mut [0; 8]))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        // RFC 9113 §8.5: CONNECT_ERROR is 0xa.
        let reset = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Reset>());
        assert_eq!(reset, Some(&Reset::Stream(0xa)));
    }
}

#[tokio::test]
async fn lost_connection_resets_its_tunnels() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut pair = Pair::open(&mesh).await;
    // The server's end of the connection goes without close_notify.
    drop(pair.peer);
    let error = soon("the client sees it", pair.client.read(&mut [0; 8]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop(pair.pool);
}

#[tokio::test]
async fn dropped_pool_resets_its_tunnels() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut pair = Pair::open(&mesh).await;
    drop(pair.pool);
    let error = soon("the client sees it", pair.client.read(&mut [0; 8]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let error = soon("the server sees it", pair.server.read(&mut [0; 8]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn stream_reset_is_a_tcp_reset_for_the_application() {
    let _trace = trace();
    let mesh = Mesh::new();
    let pair = Pair::open(&mesh).await;
    let (mut app, near) = tcp_pair().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(run(near, pair.client));
    drop(pair.server);
    let error = soon("the application sees it", app.read(&mut [0; 8]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let end = tasks.join_next().await.unwrap().unwrap();
    let by = Side::B;
    assert!(
        matches!(end.reason, EndReason::Reset { by: side, .. } if side == by),
        "{end:?}"
    );
}

#[tokio::test]
async fn dropped_relay_resets_both_legs() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut pair = Pair::open(&mesh).await;
    let (mut app, near) = tcp_pair().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(run(near, pair.client));
    app.write_all(b"x").await.unwrap();
    pair.server.read_exact(&mut [0]).await.unwrap();
    tasks.abort_all();
    let error = soon("the application sees it", app.read(&mut [0; 8]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let error = soon("the peer sees it", pair.server.read(&mut [0; 8]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn stalled_reader_stops_its_sender_and_nobody_else() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut peer = mesh.server().await;
    let (pool, member) = (pool(), mesh.member("client"));
    let mut stalled = Vec::new();
    let mut senders = JoinSet::new();
    for _ in 0..99 {
        let (mut client, server) = open(&pool, &member, &mut peer).await;
        stalled.push(server);
        senders.spawn(async move {
            let block = vec![0; 64 * 1024];
            let mut sent = 0;
            // Ends when the stream's window is full and the test is over.
            while client.write_all(&block).await.is_ok() {
                sent += block.len();
                assert!(
                    sent < 64 * 1024 * 1024,
                    "a stalled reader must stop its sender"
                );
            }
        });
    }
    let (mut client, mut server) = open(&pool, &member, &mut peer).await;
    assert_eq!(pool.connections(), 1, "all share one connection");
    let healthy = async {
        let send = async {
            for _ in 0..512 {
                client.write_all(&[7; 64 * 1024]).await.unwrap();
            }
            client.shutdown().await.unwrap();
        };
        let receive = async {
            let mut block = vec![0; 64 * 1024];
            let mut got = 0;
            loop {
                match server.read(&mut block).await.unwrap() {
                    0 => return got,
                    count => got += count,
                }
            }
        };
        tokio::join!(send, receive).1
    };
    let got = soon("the healthy stream goes on beside 99 stalled ones", healthy).await;
    assert_eq!(got, 32 * 1024 * 1024);
    drop(stalled);
}

#[tokio::test(start_paused = true)]
async fn half_closed_relay_without_progress_ends() {
    let _trace = trace();
    let (client, a) = tokio::io::duplex(64);
    let (b, server) = tokio::io::duplex(64);
    let mut config = RelayConfig::default();
    config.half_closed = Duration::from_secs(60);
    let (a, b) = (
        meshwright_hbone::StreamLeg::new(a),
        meshwright_hbone::StreamLeg::new(b),
    );
    let relayed = relay(a, b, &config, ());
    let (mut client, mut server) = (client, server);
    let started = tokio::time::Instant::now();
    let app = async {
        client.shutdown().await.unwrap();
        // Progress in the other direction moves the deadline.
        tokio::time::sleep(Duration::from_secs(50)).await;
        server.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        (client, server)
    };
    let (end, _open) = tokio::join!(relayed, app);
    assert_eq!(end.reason, EndReason::HalfClosedTimeout);
    let elapsed = started.elapsed().as_secs();
    assert!((110..=120).contains(&elapsed), "ended after {elapsed} s");
}

#[tokio::test(start_paused = true)]
async fn half_closed_relay_whose_last_bytes_nobody_takes_ends() {
    let _trace = trace();
    let (mut client, a) = tokio::io::duplex(64);
    let (b, _never_reads) = tokio::io::duplex(64);
    let config = RelayConfig::default();
    let (a, b) = (
        meshwright_hbone::StreamLeg::new(a),
        meshwright_hbone::StreamLeg::new(b),
    );
    let relayed = relay(a, b, &config, ());
    let app = async {
        client.write_all(&[1; 200]).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let relayed = tokio::time::timeout(Duration::from_secs(601), relayed);
    let (end, ()) = tokio::join!(relayed, app);
    let end = end.expect("the deadline counts from the last byte");
    assert_eq!(end.reason, EndReason::HalfClosedTimeout);
    assert_eq!(end.a_to_b, 64);
}

#[tokio::test]
async fn leg_reports_what_it_was_told() {
    let _trace = trace();
    let mesh = Mesh::new();
    let mut pair = Pair::open(&mesh).await;
    Leg::reset(&mut pair.client);
    let after = pair.client.write(b"x").await.unwrap_err();
    let reset = after
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Reset>());
    assert_eq!(reset, Some(&Reset::Local));
    let _member = pair.member;
}
