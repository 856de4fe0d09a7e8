//! How large HTTP/2 windows should be: 99 tunnels whose readers are stalled and one that is read,
//! on one connection, over a path with a delay.
//!
//! ```text
//! client thread ══ TLS ══ relay thread with a delay each way ══ TLS ══ server thread
//! ```
//!
//! Prints one row per combination: the live tunnel's speed alone and beside 99 stalled ones.
//! Run with `cargo run --release -p meshwright-hbone --features full --example windows`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::future_not_send,
    reason = "an experiment that prints its result"
)]

use meshwright_hbone::{
    Authority, DirectDial, Leg, Pool, PoolConfig, ResponseHeaders, ServerConfig, Target, Tunnel,
    accept_tls,
};
use meshwright_identity::{
    AcceptedPeers, Member, SpiffeId, TrustDomain, ca::CertificateAuthority, tls::TlsEngine,
};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
};

const STALLED: usize = 99;
const MEASURE: Duration = Duration::from_millis(1500);
const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

fn main() {
    println!(
        "| stream window | connection window | writes | delay | alone MB/s | with 99 stalled MB/s | kept |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let windows = [
        (64 * KIB, 16 * MIB),
        (256 * KIB, MIB),
        (256 * KIB, 16 * MIB),
        (256 * KIB, 32 * MIB),
        (320 * KIB, 32 * MIB),
        (MIB, 32 * MIB),
        (4 * MIB, 16 * MIB),
        // The default: 1 MiB for few streams, 188 KiB for many.
        (0, 32 * MIB),
    ];
    for write in [64 * 1024, 1] {
        for delay in [0, 1, 10] {
            for (stream, connection) in windows {
                row(stream, connection, Duration::from_millis(delay), write);
            }
        }
    }
}

fn row(stream: u32, connection: u32, delay: Duration, write: usize) {
    let setup = Setup::new(stream, connection, delay);
    let alone = setup.clone().run(0, write);
    let beside = setup.run(STALLED, write);
    let kept = if alone > 0.0 && beside.is_finite() {
        100.0 * beside / alone
    } else {
        0.0
    };
    let stream = if stream == 0 {
        "default".to_owned()
    } else {
        format!("{} KiB", stream / KIB)
    };
    println!(
        "| {stream} | {} MiB | {write} B | {} ms | {alone:.2} | {beside:.2} | {kept:.0} % |",
        connection / MIB,
        delay.as_millis(),
    );
}

#[derive(Clone)]
struct Setup {
    stream: u32,
    connection: u32,
    delay: Duration,
    client: Member,
    server: Member,
    peer: SpiffeId,
}

impl Setup {
    fn new(stream: u32, connection: u32, delay: Duration) -> Self {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let authority = CertificateAuthority::new(domain).unwrap();
        let engine = TlsEngine::aws_lc_rs();
        let id = |name: &str| {
            SpiffeId::parse(&format!("spiffe://cluster.local/ns/n/sa/{name}")).unwrap()
        };
        let member = |name: &str| {
            let svid = authority
                .issue(&id(name), Duration::from_secs(3600))
                .unwrap();
            Member::new(svid, &engine).unwrap()
        };
        Self {
            stream,
            connection,
            delay,
            client: member("client"),
            server: member("server"),
            peer: id("server"),
        }
    }

    /// Returns the live tunnel's MB/s.
    fn run(self, stalled: usize, write: usize) -> f64 {
        let server = listener();
        let relay = listener();
        let (server_addr, relay_addr) = (addr(&server), addr(&relay));
        let (measured, result) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::watch::channel(());
        let delay = self.delay;
        let mut threads = Vec::new();
        threads.push(on_thread(
            stopped.clone(),
            serve(server, self.clone(), stalled, measured),
        ));
        if !delay.is_zero() {
            threads.push(on_thread(
                stopped.clone(),
                slow_path(relay, server_addr, delay),
            ));
        }
        let target = if delay.is_zero() {
            server_addr
        } else {
            relay_addr
        };
        threads.push(on_thread(stopped, send(target, self, stalled, write)));
        // The connection was cut off if nobody measured.
        let speed = result.recv().unwrap_or(f64::NAN);
        drop(stop);
        for thread in threads {
            thread.join().unwrap();
        }
        speed
    }
}

fn listener() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn addr(listener: &std::net::TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}

/// Runs a future on a single-threaded runtime of its own until the experiment stops.
fn on_thread(
    mut stopped: tokio::sync::watch::Receiver<()>,
    work: impl Future<Output = ()> + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(async move {
            tokio::select! {
                () = work => {}
                _gone = stopped.changed() => {}
            }
        });
    })
}

/// Accepts one connection; reads its last tunnel and lets the first ones stall.
async fn serve(
    listener: std::net::TcpListener,
    setup: Setup,
    stalled: usize,
    measured: std::sync::mpsc::Sender<f64>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut config = ServerConfig::new(Arc::new(()));
    if setup.stream > 0 {
        config = config.with_windows(setup.stream, setup.connection);
    }
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut connection = accept_tls(stream, &setup.server, &config).await.unwrap();
    let mut held = Vec::new();
    let mut tasks = JoinSet::new();
    while let Some(Ok(request)) = connection.accept().await {
        let tunnel = request.accept(ResponseHeaders::new()).unwrap();
        if held.len() < stalled {
            held.push(tunnel);
        } else {
            tasks.spawn(read(tunnel, measured.clone()));
        }
    }
}

async fn read(mut tunnel: Tunnel, measured: std::sync::mpsc::Sender<f64>) {
    // The first half second warms up.
    let warm = Instant::now() + Duration::from_millis(500);
    let mut started = None;
    let mut got = 0_usize;
    loop {
        // As a relay reads: whatever is there, in owned chunks.
        let next = poll_fn(|cx| tunnel.poll_chunk(cx));
        let Ok(Some(Ok(chunk))) = tokio::time::timeout(MEASURE * 2, next).await else {
            break;
        };
        let count = chunk.len();
        tunnel.consumed(count);
        let now = Instant::now();
        if now < warm {
            continue;
        }
        got += count;
        let since: Instant = *started.get_or_insert(now);
        if now - since > MEASURE {
            break;
        }
    }
    let seconds = started.map_or(1.0, |since| since.elapsed().as_secs_f64());
    let megabytes = f64::from(u32::try_from(got / 1000).unwrap()) / 1000.0;
    let _over = measured.send(megabytes / seconds);
}

async fn send(to: SocketAddr, setup: Setup, stalled: usize, write: usize) {
    let all = NonZeroU32::new(100).unwrap();
    let config = PoolConfig::new().with_max_streams(all);
    let pool = Pool::new(DirectDial::new(), config, Arc::new(()));
    let authority = Authority::parse("10.0.0.7:80").unwrap();
    let target = Target::new(to, authority, AcceptedPeers::from(setup.peer.clone()));
    let mut tasks = JoinSet::new();
    for _ in 0..stalled {
        let mut tunnel = pool.tunnel(&setup.client, target.clone()).await.unwrap();
        // Fills the stream's window, or what is left of the connection's.
        let block = vec![0; 64 * 1024];
        let full = Duration::from_millis(20) + setup.delay * 4;
        while tokio::time::timeout(full, tunnel.write_all(&block))
            .await
            .is_ok()
        {}
        tasks.spawn(async move {
            let _held = tunnel;
            std::future::pending::<()>().await;
        });
    }
    let mut live = pool.tunnel(&setup.client, target).await.unwrap();
    let block = vec![0; write];
    while live.write_all(&block).await.is_ok() {}
}

/// Forwards connections; every byte arrives `delay` later than it was sent.
async fn slow_path(listener: std::net::TcpListener, to: SocketAddr, delay: Duration) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut tasks = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let far = TcpStream::connect(to).await.unwrap();
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let ((near_read, near_write), (far_read, far_write)) =
            (near.into_split(), far.into_split());
        tasks.spawn(delayed(near_read, far_write, delay));
        tasks.spawn(delayed(far_read, near_write, delay));
    }
}

async fn delayed(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    // Room for what a fast path carries during the delay.
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let read = async move {
        let mut block = vec![0; 256 * 1024];
        while let Ok(count @ 1..) = from.read(&mut block).await {
            let part = block.get(..count).unwrap_or_default().to_vec();
            if queue.send((Instant::now() + delay, part)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        let mut ready = VecDeque::new();
        while let Some((due, part)) = queued.recv().await {
            tokio::time::sleep_until(due.into()).await;
            ready.push_back(part);
            while let Some(part) = ready.pop_front() {
                if to.write_all(&part).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::join!(read, write);
}
