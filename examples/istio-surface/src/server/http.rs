//! One accept loop for all three servers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::body::Body;

/// Largest request head; as Istio's.
const HEAD: usize = 8 << 10;
/// Pause after an accept that failed for want of something of this machine.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests; the request's body is never read.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Parts) -> impl Future<Output = Response<Body>> + Send;
}

/// Limits of one server.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Connections that may be open; the oldest makes room. Default: 256.
    pub connections: usize,
    /// Time for a request's head. Default: 2 s.
    pub head: Duration,
    /// Time for the whole connection. Default: 30 s.
    pub total: Duration,
}

/// A running server; dropping it ends it and its connections.
#[derive(Debug)]
pub struct HttpServer {
    addresses: Vec<SocketAddr>,
    _loops: JoinSet<()>,
}

/// A port could not be listened on; look for another process that has it.
#[derive(Debug, Error)]
#[error("could not listen on {address}")]
#[non_exhaustive]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the operating system said.
    pub source: io::Error,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            head: Duration::from_secs(2),
            total: Duration::from_secs(30),
        }
    }
}

/// Listens on an address. Where there is no IPv6, its wildcard becomes that of IPv4.
///
/// # Errors
///
/// [`BindError`] with the operating system's reason.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = match TcpListener::bind(address).await {
        Err(error) if lacks_ipv6(&error) && address.ip().is_unspecified() => {
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            TcpListener::bind(v4).await
        }
        other => other,
    };
    listener.map_err(|source| BindError { address, source })
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};
    // 97 is EAFNOSUPPORT, which has no kind of its own.
    matches!(error.kind(), AddrNotAvailable | Unsupported) || error.raw_os_error() == Some(97)
}

impl HttpServer {
    /// Starts to serve on `listeners`, on the current runtime.
    #[must_use]
    pub fn start(listeners: Vec<TcpListener>, handler: impl Handler, limits: ServerLimits) -> Self {
        let handler = Arc::new(handler);
        let address = |listener: &TcpListener| listener.local_addr().ok();
        let addresses = listeners.iter().filter_map(address).collect();
        let mut loops = JoinSet::new();
        for listener in listeners {
            loops.spawn(accept_all(listener, Arc::clone(&handler), limits));
        }
        Self {
            addresses,
            _loops: loops,
        }
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

async fn accept_all(listener: TcpListener, handler: Arc<impl Handler>, limits: ServerLimits) {
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        by_age.retain(|connection| !connection.is_finished());
        match accepted {
            Ok((stream, _)) => {
                while by_age.len() >= limits.connections.max(1) {
                    if let Some(oldest) = by_age.pop_front() {
                        oldest.abort();
                    }
                }
                let serving = serve(stream, Arc::clone(&handler), limits);
                by_age.push_back(connections.spawn(serving));
            }
            // The client is gone already: nothing is wrong here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, handler: Arc<impl Handler>, limits: ServerLimits) {
    let service = service_fn(|request: Request<Incoming>| {
        let handler = &handler;
        async move {
            let (head, _body) = request.into_parts();
            Ok::<_, Infallible>(handler.handle(head).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(limits.total, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request was not served"),
        Err(_elapsed) => tracing::debug!("a request took too long"),
    }
}

#[cfg(test)]
#[path = "http/tests.rs"]
mod tests;
