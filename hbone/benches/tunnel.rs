//! Tunnels over real TLS on loopback: bulk, request and response, new connections.
//!
//! Client and server have a thread with a single-threaded runtime each, as the programs do.
//! `cargo bench -p meshwright-hbone --features full --bench tunnel`
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::future_not_send,
    reason = "a benchmark"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meshwright_hbone::{
    Authority, ConnectRequest, DirectDial, Pool, PoolConfig, ResponseHeaders, ServerConfig, Target,
    Tunnel, accept_tls,
};
use meshwright_identity::{
    AcceptedPeers, Member, SpiffeId, TrustDomain, ca::CertificateAuthority, tls::TlsEngine,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::{Builder, Runtime},
    task::JoinSet,
};

const BLOCK: usize = 1024 * 1024;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn members() -> (Member, Member) {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let authority = CertificateAuthority::new(domain).unwrap();
    let engine = TlsEngine::aws_lc_rs();
    let member = |name: &str| {
        let id = SpiffeId::parse(&format!("spiffe://cluster.local/ns/n/sa/{name}")).unwrap();
        let svid = authority
            .issue(&id, Duration::from_secs(24 * 3600))
            .unwrap();
        Member::new(svid, &engine).unwrap()
    };
    (member("client"), member("server"))
}

/// Serves on a thread of its own: the first byte of a tunnel says what it is for.
fn serve(member: Member) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let config = ServerConfig::new(Arc::new(()));
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (member, config) = (member.clone(), config.clone());
                connections.spawn(async move {
                    let mut connection = accept_tls(stream, &member, &config).await.unwrap();
                    let mut tunnels = JoinSet::new();
                    while let Some(Ok(request)) = connection.accept().await {
                        tunnels.spawn(answer(request));
                    }
                });
            }
        });
    });
    addr
}

/// `b`: says one byte for each block that came; anything else is echoed.
async fn answer(request: ConnectRequest) {
    let mut tunnel = request.accept(ResponseHeaders::new()).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let Ok(1) = tunnel.read(buffer.get_mut(..1).unwrap()).await else {
        return;
    };
    let bulk = buffer.first() == Some(&b'b');
    let mut block = 0;
    while let Ok(count @ 1..) = tunnel.read(&mut buffer).await {
        let reply = if bulk {
            block += count;
            if block < BLOCK {
                continue;
            }
            block -= BLOCK;
            1
        } else {
            count
        };
        if tunnel
            .write_all(buffer.get(..reply).unwrap())
            .await
            .is_err()
        {
            return;
        }
    }
    // Without it the client would see a reset, not an end.
    let _ended = tunnel.shutdown().await;
}

struct Client {
    pool: Pool<DirectDial>,
    member: Member,
    target: Target,
}

impl Client {
    fn new() -> Self {
        let (member, server) = members();
        let accepted = AcceptedPeers::from(server.id().clone());
        let addr = serve(server);
        let authority = Authority::parse("10.0.0.7:80").unwrap();
        Self {
            pool: Pool::new(DirectDial::new(), PoolConfig::new(), Arc::new(())),
            member,
            target: Target::new(addr, authority, accepted),
        }
    }

    async fn open(&self, purpose: &[u8]) -> Tunnel {
        let opened = self.pool.tunnel(&self.member, self.target.clone()).await;
        let mut tunnel = opened.unwrap();
        tunnel.write_all(purpose).await.unwrap();
        tunnel
    }
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(8 * BLOCK as u64));
    for streams in [1, 8] {
        let (runtime, client) = (runtime(), Client::new());
        let mut tunnels: Vec<Tunnel> = runtime.block_on(async {
            let mut tunnels = Vec::new();
            for _ in 0..streams {
                tunnels.push(client.open(b"b").await);
            }
            tunnels
        });
        let block = vec![0; BLOCK];
        group.bench_function(format!("{streams} tunnels"), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let blocks = 8 / streams;
                    let transfers = tunnels
                        .iter_mut()
                        .map(|tunnel| upload(tunnel, &block, blocks));
                    all(transfers).await;
                });
            });
        });
    }
    group.finish();
}

async fn upload(tunnel: &mut Tunnel, block: &[u8], blocks: usize) {
    for _ in 0..blocks {
        tunnel.write_all(block).await.unwrap();
    }
    let mut said = vec![0; blocks];
    tunnel.read_exact(&mut said).await.unwrap();
}

fn request_response(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request and response");
    for tunnels in [1_usize, 64] {
        let (runtime, client) = (runtime(), Client::new());
        let mut opened: Vec<Tunnel> = runtime.block_on(async {
            let mut opened = Vec::new();
            for _ in 0..tunnels {
                opened.push(client.open(b"r").await);
            }
            opened
        });
        group.throughput(Throughput::Elements(tunnels as u64));
        group.bench_function(format!("{tunnels} tunnels"), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    all(opened.iter_mut().map(|tunnel| async {
                        let mut message = [7; 100];
                        tunnel.write_all(&message).await.unwrap();
                        tunnel.read_exact(&mut message).await.unwrap();
                    }))
                    .await;
                });
            });
        });
    }
    group.finish();
}

fn new_connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new");
    let (runtime, client) = (runtime(), Client::new());
    group.bench_function("tunnel on a warm connection", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut tunnel = client.open(b"rx").await;
                tunnel.read_exact(&mut [0]).await.unwrap();
                tunnel.shutdown().await.unwrap();
                assert_eq!(tunnel.read(&mut [0]).await.unwrap(), 0);
            });
        });
    });
    group.bench_function("connection", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let pool = Pool::new(DirectDial::new(), PoolConfig::new(), Arc::new(()));
                let opened = pool.tunnel(&client.member, client.target.clone()).await;
                opened.unwrap().shutdown().await.unwrap();
            });
        });
    });
    group.finish();
}

/// Runs futures side by side on this task.
async fn all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

criterion_group!(benches, bulk, request_response, new_connections);
criterion_main!(benches);
