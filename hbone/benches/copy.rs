//! The relay between two TCP connections on one thread, against the kernel's own loopback.
//!
//! `cargo bench -p meshwright-hbone --features full --bench copy`
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::future_not_send,
    reason = "a benchmark"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meshwright_hbone::{RelayConfig, TcpLeg, relay};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};

const BLOCK: usize = 1024 * 1024;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// app ── relay ── app
async fn path(tasks: &mut JoinSet<()>) -> (TcpStream, TcpStream) {
    let ((client, a), (server, b)) = (pair().await, pair().await);
    tasks.spawn(async move {
        let config = RelayConfig::default();
        relay(TcpLeg::new(a), TcpLeg::new(b), &config, ()).await;
    });
    (client, server)
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy");
    let runtime = runtime();
    let mut tasks = JoinSet::new();
    let (mut client, mut server) = runtime.block_on(path(&mut tasks));
    let (send, mut receive) = (vec![0; BLOCK], vec![0; BLOCK]);
    group.throughput(Throughput::Bytes(8 * BLOCK as u64));
    group.bench_function("bulk", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let up = async {
                    for _ in 0..8 {
                        client.write_all(&send).await.unwrap();
                    }
                };
                let down = async {
                    for _ in 0..8 {
                        server.read_exact(&mut receive).await.unwrap();
                    }
                };
                tokio::join!(up, down);
            });
        });
    });
    let mut message = [7; 100];
    group.throughput(Throughput::Elements(1));
    group.bench_function("request and response", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                client.write_all(&message).await.unwrap();
                server.read_exact(&mut message).await.unwrap();
                server.write_all(&message).await.unwrap();
                client.read_exact(&mut message).await.unwrap();
            });
        });
    });
    group.finish();
}

fn new_connections(criterion: &mut Criterion) {
    let runtime = runtime();
    criterion.bench_function("copy/new connection, one byte, end", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                let (mut client, mut server) = path(&mut tasks).await;
                client.write_all(b"x").await.unwrap();
                client.shutdown().await.unwrap();
                server.read_exact(&mut [0]).await.unwrap();
                server.shutdown().await.unwrap();
                tasks.join_next().await.unwrap().unwrap();
            });
        });
    });
}

criterion_group!(benches, bulk, new_connections);
criterion_main!(benches);
