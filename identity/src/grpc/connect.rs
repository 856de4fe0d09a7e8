//! From a host name to a verified HTTP/2 connection.

use std::{
    fmt,
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::body::Body;

use super::{ChannelError, roots::Roots, verifier};
use crate::tls::TlsEngine;

const PING_EVERY: Duration = Duration::from_secs(30);
/// One address that swallows packets must not use up the deadline of all.
const ONE_ADDRESS: Duration = Duration::from_secs(2);
const PING_ANSWER: Duration = Duration::from_secs(10);
/// A full push of a large mesh is hundreds of megabytes; this keeps a fast link busy.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const MAX_HEADER_LIST: u32 = 64 * 1024;

pub(super) type Sender = http2::SendRequest<Body>;

/// Where to connect and how to verify who answers.
#[derive(Debug)]
pub(super) struct Connector {
    /// Host (without brackets) and port.
    pub(super) host: String,
    pub(super) port: u16,
    /// For messages.
    pub(super) server: Arc<str>,
    pub(super) name: ServerName<'static>,
    pub(super) alternate: Option<ServerName<'static>>,
    pub(super) roots: Roots,
    pub(super) engine: TlsEngine,
    pub(super) tasks: Tasks,
}

impl Connector {
    pub(super) async fn connect(&self) -> Result<Sender, ChannelError> {
        let roots = self.roots.read().await?;
        let tls = |source: io::Error| ChannelError::Tls {
            server: Arc::clone(&self.server),
            source: Arc::new(source),
        };
        let config = verifier::client_config(&self.engine, roots, self.alternate.clone())
            .map_err(|error| tls(io::Error::other(error)))?;
        let tcp = self.dial().await.map_err(|source| ChannelError::Connect {
            server: Arc::clone(&self.server),
            source: Arc::new(source),
        })?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(self.name.clone(), tcp)
            .await
            .map_err(tls)?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(tls(io::Error::other("the server does not speak h2")));
        }
        let (sender, connection) = http2::Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.http(source))?;
        let server = Arc::clone(&self.server);
        self.tasks.execute(async move {
            if let Err(error) = connection.await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%server, error, "connection ended");
            }
        });
        Ok(sender)
    }

    pub(super) fn http(&self, source: hyper::Error) -> ChannelError {
        ChannelError::Http {
            server: Arc::clone(&self.server),
            source: Arc::new(source),
        }
    }

    /// Resolves and tries each address in the resolver's order.
    async fn dial(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut connected = None;
        for address in lookup_host((self.host.as_str(), self.port)).await? {
            match timeout(ONE_ADDRESS, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    connected = Some(stream);
                    break;
                }
                Ok(Err(error)) => last = error,
                Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        let stream = connected.ok_or(last)?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(300))
            .with_interval(Duration::from_secs(75))
            .with_retries(9);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    }
}

/// The tasks of a channel's connections; they end with the channel.
#[derive(Clone, Default)]
pub(super) struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended tasks are collected here, so that the set holds what runs and little more.
        while set.try_join_next().is_some() {}
        set.spawn(async move {
            task.await;
        });
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}
