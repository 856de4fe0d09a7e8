use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, advance},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::body::Body;
use tower_service::Service as _;

use super::{
    Channel, ChannelConfig, ChannelError, InvalidChannel, RootSource, TokenSource, token::Tokens,
};
use crate::{Fault, TrustDomain, ca::CertificateAuthority, tls::TlsEngine};

type Reply = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(Request<Incoming>) -> Reply + Send + Sync>;

/// A TLS server of HTTP/2 on loopback that does what a closure says.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    /// Headers of every request that arrived.
    seen: Mutex<Vec<HeaderMap>>,
    tls: Mutex<Arc<ServerConfig>>,
    connections: Mutex<JoinSet<()>>,
    handshakes: Mutex<Vec<Result<(), String>>>,
}

impl Double {
    pub(crate) async fn start(tls: Arc<ServerConfig>, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            tls: Mutex::new(tls),
            connections: Mutex::default(),
            handshakes: Mutex::default(),
        });
        let mut task = JoinSet::new();
        task.spawn(Self::accept(listener, Arc::clone(&shared), handler));
        Self {
            address,
            shared,
            _task: task,
        }
    }

    async fn accept(listener: TcpListener, shared: Arc<Shared>, handler: Handler) {
        while let Ok((tcp, _)) = listener.accept().await {
            let this = Arc::clone(&shared);
            let handler = Arc::clone(&handler);
            let serve = async move {
                let tls = Arc::clone(&this.tls.lock().unwrap());
                let stream = TlsAcceptor::from(tls).accept(tcp).await;
                let told = stream.as_ref().map(drop).map_err(ToString::to_string);
                this.handshakes.lock().unwrap().push(told);
                let Ok(stream) = stream else {
                    return;
                };
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    this.seen.lock().unwrap().push(request.headers().clone());
                    let reply = handler(request);
                    async move { Ok::<_, std::convert::Infallible>(reply.await) }
                });
                drop(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            };
            shared.connections.lock().unwrap().spawn(serve);
        }
    }

    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn handshakes(&self) -> usize {
        self.shared.handshakes.lock().unwrap().len()
    }

    fn use_tls(&self, tls: Arc<ServerConfig>) {
        *self.shared.tls.lock().unwrap() = tls;
    }

    /// Cuts every connection.
    async fn cut(&self) {
        let mut connections = std::mem::take(&mut *self.shared.connections.lock().unwrap());
        connections.shutdown().await;
    }
}

pub(crate) fn authority() -> CertificateAuthority {
    CertificateAuthority::new(TrustDomain::parse("td").unwrap()).unwrap()
}

pub(crate) fn tls_for(ca: &CertificateAuthority, names: &[&str]) -> Arc<ServerConfig> {
    let credentials = ca.server_certificate(names, &[]).unwrap();
    credentials.server_config(&TlsEngine::aws_lc_rs()).unwrap()
}

fn echo() -> Handler {
    Arc::new(|request| Box::pin(async { Response::new(Body::new(request.into_body())) }))
}

fn config(double: &Double, roots: RootSource) -> ChannelConfig {
    let uri = format!("https://localhost:{}", double.address.port());
    ChannelConfig::new(uri.parse().unwrap(), roots).connect_deadline(Duration::from_secs(5))
}

fn pem(ca: &CertificateAuthority) -> RootSource {
    RootSource::Pem(ca.root_pem().to_owned())
}

async fn request(channel: &Channel) -> Result<Bytes, ChannelError> {
    let body = Body::new(http_body_util::Full::new(Bytes::from_static(b"hello")));
    let request = Request::post("/service/Method").body(body).unwrap();
    let response = channel.clone().call(request).await?;
    Ok(response.into_body().collect().await.unwrap().to_bytes())
}

fn write(path: &Path, text: &str) {
    // As kubelet and cert-manager do: a new file renamed over the old one.
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

#[tokio::test]
async fn requests_share_a_connection_and_carry_headers_and_token() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let double = Double::start(tls_for(&ca, &["localhost"]), echo()).await;
    let mut headers = HeaderMap::new();
    headers.insert("clusterid", "Kubernetes".parse().unwrap());
    let token = TokenSource::Static("secret".into());
    let channel = Channel::new(config(&double, pem(&ca)).token(token).headers(headers)).unwrap();
    assert_eq!(
        double.handshakes(),
        0,
        "nothing is dialed before the first request"
    );
    let (a, b) = tokio::join!(request(&channel), request(&channel));
    assert_eq!(
        (&a.unwrap()[..], &b.unwrap()[..]),
        (&b"hello"[..], &b"hello"[..])
    );
    assert_eq!(double.handshakes(), 1);
    for headers in double.seen() {
        assert_eq!(headers[AUTHORIZATION], "Bearer secret");
        assert_eq!(headers["clusterid"], "Kubernetes");
    }
}

#[tokio::test]
async fn token_file_is_read_for_each_request() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let double = Double::start(tls_for(&ca, &["localhost"]), echo()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "first\n");
    let token = TokenSource::File(path.clone());
    let channel = Channel::new(config(&double, pem(&ca)).token(token)).unwrap();
    request(&channel).await.unwrap();
    write(&path, "  second\r\n");
    request(&channel).await.unwrap();
    let tokens: Vec<_> = double
        .seen()
        .iter()
        .map(|h| h[AUTHORIZATION].clone())
        .collect();
    assert_eq!(tokens, ["Bearer first", "Bearer second"]);
}

/// RFC 6750 §2.1 says what a token is made of.
#[tokio::test]
async fn unusable_token_is_an_error_and_nothing_is_sent() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let double = Double::start(tls_for(&ca, &["localhost"]), echo()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let channel = |path: &Path| {
        let token = TokenSource::File(path.to_owned());
        Channel::new(config(&double, pem(&ca)).token(token)).unwrap()
    };
    let missing = request(&channel(&path)).await.unwrap_err();
    assert!(
        matches!(missing, ChannelError::TokenFile { .. }),
        "{missing:?}"
    );
    assert_eq!(missing.fault(), Fault::Local);
    meshwright_testkit::assert_chain_says_each_thing_once(&missing);
    for odd in ["", " \n", "two words", "new\nline", "nul\0", "ü"] {
        write(&path, odd);
        assert!(
            matches!(request(&channel(&path)).await, Err(ChannelError::Token)),
            "{odd:?}"
        );
    }
    write(&path, &"x".repeat(1 << 20));
    assert!(matches!(
        request(&channel(&path)).await,
        Err(ChannelError::TokenFile { .. })
    ));
    assert!(double.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn token_outlives_its_file_by_60_seconds_at_most() {
    let _trace = meshwright_testkit::trace();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    write(&path, "good");
    let tokens = Tokens::new(TokenSource::File(path.clone()));
    assert!(tokens.header().await.unwrap().unwrap().is_sensitive());
    std::fs::remove_file(&path).unwrap();
    advance(Duration::from_secs(59)).await;
    assert_eq!(tokens.header().await.unwrap().unwrap(), "Bearer good");
    advance(Duration::from_secs(2)).await;
    assert!(
        tokens.header().await.is_err(),
        "a token older than a minute was used"
    );
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_of_another_root_or_name() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let double = Double::start(tls_for(&ca, &["istiod.istio-system.svc"]), echo()).await;
    let folder = tempfile::tempdir().unwrap();
    let never_read = folder.path().join("token");
    let token = TokenSource::File(never_read);
    let wrong_root = config(&double, pem(&authority())).alternate_host("istiod.istio-system.svc");
    let wrong_name = config(&double, pem(&ca));
    let wrong_both = config(&double, pem(&ca)).alternate_host("other.example");
    for config in [wrong_root, wrong_name, wrong_both] {
        let channel = Channel::new(config.token(token.clone())).unwrap();
        let error = request(&channel).await.unwrap_err();
        // A missing token would be another error: it was not even looked for.
        assert!(matches!(error, ChannelError::Tls { .. }), "{error:?}");
        assert!(error.is_safe_to_retry());
        meshwright_testkit::assert_chain_says_each_thing_once(&error);
    }
    assert!(double.seen().is_empty());
}

#[tokio::test]
async fn second_host_name_is_accepted() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let double = Double::start(tls_for(&ca, &["istiod.istio-system.svc"]), echo()).await;
    let config = config(&double, pem(&ca)).alternate_host("istiod.istio-system.svc");
    request(&Channel::new(config).unwrap()).await.unwrap();
}

#[tokio::test]
async fn server_without_http_2_is_refused() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let mut tls = (*tls_for(&ca, &["localhost"])).clone();
    tls.alpn_protocols.clear();
    let double = Double::start(Arc::new(tls), echo()).await;
    let channel = Channel::new(config(&double, pem(&ca))).unwrap();
    assert!(matches!(
        request(&channel).await,
        Err(ChannelError::Tls { .. })
    ));
}

#[tokio::test]
async fn lost_connection_is_made_again_by_the_next_request() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let double = Double::start(tls_for(&ca, &["localhost"]), echo()).await;
    let channel = Channel::new(config(&double, pem(&ca))).unwrap();
    request(&channel).await.unwrap();
    double.cut().await;
    // At most the one request that races with the news of the end may fail.
    if request(&channel).await.is_err() {
        request(&channel).await.unwrap();
    }
    assert_eq!(double.handshakes(), 2);
}

#[tokio::test]
async fn root_file_is_read_for_each_connection_and_its_last_good_state_kept() {
    let _trace = meshwright_testkit::trace();
    let (old, new) = (authority(), authority());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root-cert.pem");
    let double = Double::start(tls_for(&old, &["localhost"]), echo()).await;
    let channel = Channel::new(config(&double, RootSource::File(path.clone()))).unwrap();
    let missing = request(&channel).await.unwrap_err();
    assert!(
        matches!(missing, ChannelError::RootFile { .. }),
        "{missing:?}"
    );
    meshwright_testkit::assert_chain_says_each_thing_once(&missing);
    write(&path, old.root_pem());
    request(&channel).await.unwrap();

    let again = async || {
        double.cut().await;
        match request(&channel).await {
            Err(ChannelError::Http { .. }) => request(&channel).await,
            result => result,
        }
    };
    write(&path, old.root_pem().split_at(200).0);
    again()
        .await
        .expect("half-written: the last good roots are used");
    std::fs::remove_file(&path).unwrap();
    again()
        .await
        .expect("deleted: the last good roots are used");
    double.use_tls(tls_for(&new, &["localhost"]));
    assert!(matches!(again().await, Err(ChannelError::Tls { .. })));
    write(&path, new.root_pem());
    again().await.expect("replaced: the new roots are used");
}

#[tokio::test]
async fn mute_server_costs_every_caller_one_deadline() {
    let _trace = meshwright_testkit::trace();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}", listener.local_addr().unwrap());
    let config = ChannelConfig::new(uri.parse().unwrap(), pem(&authority()))
        .connect_deadline(Duration::from_millis(300));
    let channel = Channel::new(config).unwrap();
    let begin = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let channel = channel.clone();
        callers.spawn(async move { request(&channel).await });
    }
    while let Some(result) = callers.join_next().await {
        assert!(matches!(
            result.unwrap(),
            Err(ChannelError::TimedOut { .. })
        ));
    }
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "callers waited one after the other"
    );
}

#[tokio::test]
async fn closed_port_is_an_error_that_names_the_server() {
    let _trace = meshwright_testkit::trace();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let uri = format!("https://{address}").parse().unwrap();
    let channel = Channel::new(ChannelConfig::new(uri, pem(&authority()))).unwrap();
    let error = request(&channel).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()));
    assert_eq!(error.fault(), Fault::Peer);
    meshwright_testkit::assert_chain_says_each_thing_once(&error);
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let _trace = meshwright_testkit::trace();
    let ca = authority();
    let double = Double::start(tls_for(&ca, &["localhost"]), echo()).await;
    let mut channel = Channel::new(config(&double, pem(&ca))).unwrap();
    let (send, receive) = mpsc::channel::<Bytes>(1);
    let frames = ReceiverStream::new(receive).map(|b| Ok::<_, tonic::Status>(Frame::data(b)));
    let body = Body::new(StreamBody::new(frames));
    let request = Request::post("/service/Stream").body(body).unwrap();
    let mut answer = channel.call(request).await.unwrap().into_body();
    for text in ["one", "two", "three"] {
        send.send(Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(send);
    let rest = answer.collect().await.unwrap().to_bytes();
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let _trace = meshwright_testkit::trace();
    let new =
        |uri: &str| Channel::new(ChannelConfig::new(uri.parse().unwrap(), RootSource::System));
    assert_eq!(
        new("http://istiod:15010").unwrap_err(),
        InvalidChannel::Scheme
    );
    assert_eq!(new("/relative").unwrap_err(), InvalidChannel::Scheme);
    assert_eq!(
        new("https://under_score-.:1/").unwrap_err(),
        InvalidChannel::Host
    );
    for good in [
        "https://istiod.istio-system.svc:15012",
        "https://[::1]:15012",
        "https://10.0.0.1",
    ] {
        new(good).unwrap();
    }
    let config = ChannelConfig::new("https://a".parse().unwrap(), RootSource::System);
    let error = Channel::new(config.alternate_host("not a name")).unwrap_err();
    assert!(matches!(error, InvalidChannel::AlternateHost { .. }));
}

#[tokio::test]
async fn debug_output_shows_no_token() {
    let _trace = meshwright_testkit::trace();
    let token = TokenSource::Static("hush".into());
    let config = ChannelConfig::new("https://a".parse().unwrap(), RootSource::System);
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", "hush".parse().unwrap());
    let config = config.token(token.clone()).headers(headers);
    let header = Tokens::new(token).header().await.unwrap();
    let text = format!("{config:?} {:?} {header:?}", Channel::new(config.clone()));
    assert!(!text.contains("hush"), "{text}");
}
