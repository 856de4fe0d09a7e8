//! A certificate authority, members, a server that hands its requests to the test, and raw peers.

use meshwright_hbone::{
    Authority, ConnectRequest, DirectDial, Drain, Events, Pool, PoolConfig, ResponseHeaders,
    ServerConfig, Target, Tunnel, accept_tls,
    events::{
        CloseReason, ConnectionClosed, ConnectionOpened, Limit, LimitReached, RequestRefused,
    },
};
use meshwright_identity::{
    AcceptedPeers, Member, SpiffeId, Svid, TrustDomain, ca::CertificateAuthority, tls::TlsEngine,
};
use meshwright_testkit::Recorder;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test when something takes unreasonably long.
pub(crate) async fn soon<F: Future>(rule: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_elapsed) => panic!("did not happen: {rule}"),
    }
}

/// 2026-01-01T00:00:00Z, until it is moved.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_767_225_600)))
    }

    pub(crate) fn forward(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::SeqCst);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

pub(crate) struct Mesh {
    authority: CertificateAuthority,
    engine: TlsEngine,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let trust_domain = TrustDomain::parse("cluster.local").unwrap();
        Self {
            authority: CertificateAuthority::new(trust_domain).unwrap(),
            engine: TlsEngine::aws_lc_rs(),
        }
    }

    /// A mesh whose wall clock the test moves.
    pub(crate) fn with_clock(clock: &Arc<Clock>) -> Self {
        let trust_domain = TrustDomain::parse("cluster.local").unwrap();
        let clock: Arc<dyn TimeProvider> = Arc::clone(clock) as _;
        Self {
            authority: CertificateAuthority::with_clock(trust_domain, Arc::clone(&clock)).unwrap(),
            engine: TlsEngine::with_clock(clock),
        }
    }

    pub(crate) fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/test/sa/{name}")).unwrap()
    }

    pub(crate) fn member(&self, name: &str) -> Member {
        self.member_for(name, Duration::from_secs(3600))
    }

    pub(crate) fn member_for(&self, name: &str, validity: Duration) -> Member {
        let svid = self.authority.issue(&Self::id(name), validity).unwrap();
        Member::new(svid, &self.engine).unwrap()
    }

    pub(crate) fn svid(&self, name: &str) -> Svid {
        let hour = Duration::from_secs(3600);
        self.authority.issue(&Self::id(name), hour).unwrap()
    }

    pub(crate) async fn server(&self) -> Server {
        self.server_with(|config| config).await
    }

    /// A server named `server` whose requests the test answers.
    pub(crate) async fn server_with(
        &self,
        adjust: impl FnOnce(ServerConfig) -> ServerConfig,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (requests, incoming) = mpsc::channel(1000);
        let (ends, ended) = mpsc::channel(1000);
        let drain = Drain::new();
        let events = Recorded::default();
        let config = ServerConfig::new(Arc::new(events.clone())).with_drain(drain.watch());
        let config = adjust(config);
        let member = self.member("server");
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_all(listener, member.clone(), config, requests, ends));
        Server {
            addr,
            member,
            requests: incoming,
            ends: ended,
            drain,
            events,
            _tasks: tasks,
        }
    }

    /// A TLS connection to `addr` with nothing on top.
    pub(crate) async fn raw_client(&self, addr: SocketAddr) -> RawTls {
        self.raw_client_as(&self.member("client"), addr).await
    }

    /// As [`raw_client`](Self::raw_client), with credentials of the test's.
    pub(crate) async fn raw_client_as(&self, member: &Member, addr: SocketAddr) -> RawTls {
        let accepted = AcceptedPeers::from(Self::id("server"));
        let config = member.client_config(&accepted);
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = rustls::pki_types::ServerName::from(addr.ip());
        let connector = tokio_rustls::TlsConnector::from(config);
        connector.connect(name, stream).await.unwrap().into()
    }

    /// A listener whose TLS connections have nothing on top; the peer is `server`.
    pub(crate) async fn raw_server(&self) -> RawServer {
        RawServer {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: tokio_rustls::TlsAcceptor::from(self.member("server").server_config()),
        }
    }
}

pub(crate) type RawTls = tokio_rustls::TlsStream<TcpStream>;

pub(crate) struct RawServer {
    pub(crate) listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl RawServer {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> RawTls {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        self.acceptor.accept(stream).await.unwrap().into()
    }
}

async fn accept_all(
    listener: TcpListener,
    member: Member,
    config: ServerConfig,
    requests: mpsc::Sender<ConnectRequest>,
    ends: mpsc::Sender<Result<(), String>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (member, config) = (member.clone(), config.clone());
        let (requests, ends) = (requests.clone(), ends.clone());
        connections.spawn(async move {
            let end = match accept_tls(stream, &member, &config).await {
                Ok(mut connection) => loop {
                    match connection.accept().await {
                        Some(Ok(request)) => requests.send(request).await.unwrap(),
                        Some(Err(error)) => {
                            tracing::debug!(?error, "connection failed");
                            break Err(error.to_string());
                        }
                        None => break Ok(()),
                    }
                },
                Err(error) => Err(error.to_string()),
            };
            let _test_is_over = ends.send(end).await;
        });
    }
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) member: Member,
    requests: mpsc::Receiver<ConnectRequest>,
    ends: mpsc::Receiver<Result<(), String>>,
    pub(crate) drain: Drain,
    pub(crate) events: Recorded,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) fn target(&self) -> Target {
        target(self.addr)
    }

    pub(crate) async fn request(&mut self) -> ConnectRequest {
        soon("a request arrives", self.requests.recv())
            .await
            .unwrap()
    }

    pub(crate) async fn accept(&mut self) -> Tunnel {
        self.request().await.accept(ResponseHeaders::new()).unwrap()
    }

    /// How the next connection to end ended.
    pub(crate) async fn end(&mut self) -> Result<(), String> {
        soon("a connection ends", self.ends.recv()).await.unwrap()
    }

    pub(crate) fn has_request(&mut self) -> bool {
        self.requests.try_recv().is_ok()
    }
}

pub(crate) fn target(addr: SocketAddr) -> Target {
    let authority = Authority::parse("10.0.0.7:80").unwrap();
    Target::new(addr, authority, AcceptedPeers::from(Mesh::id("server")))
}

pub(crate) fn pool() -> Pool<DirectDial> {
    pool_with(PoolConfig::new(), Arc::new(()))
}

pub(crate) fn pool_with(config: PoolConfig, events: Arc<dyn Events>) -> Pool<DirectDial> {
    Pool::new(DirectDial::new(), config, events)
}

/// Both ends of one tunnel.
pub(crate) struct Pair {
    pub(crate) client: Tunnel,
    pub(crate) server: Tunnel,
    pub(crate) peer: Server,
    pub(crate) pool: Pool<DirectDial>,
    pub(crate) member: Member,
}

impl Pair {
    pub(crate) async fn open(mesh: &Mesh) -> Self {
        let mut peer = mesh.server().await;
        let (pool, member) = (pool(), mesh.member("client"));
        let (client, server) = open(&pool, &member, &mut peer).await;
        Self {
            client,
            server,
            peer,
            pool,
            member,
        }
    }
}

pub(crate) async fn open(
    pool: &Pool<DirectDial>,
    member: &Member,
    peer: &mut Server,
) -> (Tunnel, Tunnel) {
    let target = peer.target();
    let (client, server) = tokio::join!(
        soon("a tunnel opens", pool.tunnel(member, target)),
        peer.accept()
    );
    (client.unwrap(), server)
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Happened {
    Opened,
    Closed(CloseReason),
    Refused(meshwright_hbone::BadRequest),
    Limit(Limit),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded(pub(crate) Recorder<Happened>);

impl Recorded {
    pub(crate) fn count(&self, wanted: &Happened) -> usize {
        self.0.count(|happened| happened == wanted)
    }
}

impl Events for Recorded {
    fn connection_opened(&self, _event: &ConnectionOpened<'_>) {
        self.0.record(Happened::Opened);
    }
    fn connection_closed(&self, event: &ConnectionClosed<'_>) {
        self.0.record(Happened::Closed(event.reason));
    }
    fn request_refused(&self, event: &RequestRefused<'_>) {
        self.0.record(Happened::Refused(event.reason));
    }
    fn limit_reached(&self, event: &LimitReached<'_>) {
        self.0.record(Happened::Limit(event.limit));
    }
}
