use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response, header::AUTHORIZATION, uri};
use rustls_pki_types::ServerName;
use tokio::{sync::Mutex, time::timeout};
use tonic::body::Body;
use tower_service::Service;

use super::{
    ChannelConfig, ChannelError, InvalidChannel,
    connect::{Connector, Sender, Tasks},
    roots::Roots,
    token::Tokens,
};

const HTTPS_PORT: u16 = 443;

/// An HTTP/2 channel that connects when it is used.
///
/// Cheap to clone; clones share one connection, and requests that find none share the attempt to
/// make one. There is no retry: a failed request is the caller's to repeat, and the next request
/// connects anew. Dropping the last clone ends the connection, but a response that is still read
/// keeps it.
///
/// The connection's tasks run on the tokio runtime that made the connection.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Connector,
    authority: uri::Authority,
    tokens: Tokens,
    headers: HeaderMap,
    connect_deadline: Duration,
    connection: Mutex<Option<Sender>>,
    /// Failed attempts so far, so that who waited during one does not start another.
    failures: AtomicU64,
    last_failure: std::sync::Mutex<Option<ChannelError>>,
}

impl Channel {
    /// Checks the settings. Nothing is read or dialed before the first request.
    ///
    /// # Errors
    ///
    /// Returns what in the settings cannot work.
    pub fn new(config: ChannelConfig) -> Result<Self, InvalidChannel> {
        if config.uri.scheme() != Some(&uri::Scheme::HTTPS) {
            return Err(InvalidChannel::Scheme);
        }
        let authority = config.uri.authority().ok_or(InvalidChannel::Host)?.clone();
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).or(Err(InvalidChannel::Host))?;
        let alternate = config
            .alternate_host
            .map(|name| {
                ServerName::try_from(name.clone()).or(Err(InvalidChannel::AlternateHost { name }))
            })
            .transpose()?;
        let connector = Connector {
            port: authority.port_u16().unwrap_or(HTTPS_PORT),
            server: authority.as_str().into(),
            host,
            name,
            alternate,
            roots: Roots::new(config.roots),
            engine: config.engine,
            tasks: Tasks::default(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                connector,
                authority,
                tokens: Tokens::new(config.token),
                headers: config.headers,
                connect_deadline: config.connect_deadline,
                connection: Mutex::new(None),
                failures: AtomicU64::new(0),
                last_failure: std::sync::Mutex::new(None),
            }),
        })
    }
}

impl Shared {
    /// A sender for a live, verified connection.
    async fn sender(&self) -> Result<Sender, ChannelError> {
        let seen = self.failures.load(Ordering::Acquire);
        let connector = &self.connector;
        let attempt = async {
            let mut connection = self.connection.lock().await;
            if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
                return Ok(sender.clone());
            }
            if self.failures.load(Ordering::Acquire) != seen
                && let Some(error) = self.last_failure()
            {
                return Err(error);
            }
            let sender = connector.connect().await?;
            *connection = Some(sender.clone());
            Ok(sender)
        };
        let result = timeout(self.connect_deadline, attempt).await;
        let result = result.unwrap_or_else(|_elapsed| {
            Err(ChannelError::TimedOut {
                server: Arc::clone(&connector.server),
            })
        });
        if let Err(error) = &result {
            *self.failure_slot() = Some(error.clone());
            self.failures.fetch_add(1, Ordering::Release);
        }
        result
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, ChannelError> {
        // The order is the point: the server is verified before the token is even read.
        let mut sender = self.sender().await?;
        self.dress(&mut request).await?;
        let unsent = match sender.try_send_request(request).await {
            Ok(response) => return Ok(response.map(Body::new)),
            Err(mut error) => match error.take_message() {
                Some(request) => request,
                None => return Err(self.connector.http(error.into_error())),
            },
        };
        // The connection ended between the look at it and the request; nothing was sent.
        let mut sender = self.sender().await?;
        let response = sender.send_request(unsent).await;
        response
            .map(|response| response.map(Body::new))
            .map_err(|source| self.connector.http(source))
    }

    /// Completes URI and headers.
    async fn dress(&self, request: &mut Request<Body>) -> Result<(), ChannelError> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(uri::Scheme::HTTPS);
        parts.authority = Some(self.authority.clone());
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(uri::PathAndQuery::from_static("/"));
        }
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        if let Some(token) = self.tokens.header().await? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        Ok(())
    }

    fn last_failure(&self) -> Option<ChannelError> {
        self.failure_slot().clone()
    }

    fn failure_slot(&self) -> std::sync::MutexGuard<'_, Option<ChannelError>> {
        self.last_failure
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, ChannelError>> + Send>>;

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future = Answer;

    /// Always ready: HTTP/2 queues what the server does not take yet, and the server's limit of
    /// streams bounds what is under way.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.send(request).await })
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("server", &self.shared.connector.server)
            .finish_non_exhaustive()
    }
}
