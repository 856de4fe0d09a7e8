//! Accepting connections: TLS first, with a deadline and a bound on how many there are.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::stopped;

/// From the accepted connection to the finished handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A control plane of a laptop has a few nodes, each with one connection or two; a test may have
/// hundreds.
const MAX_CONNECTIONS: usize = 4096;
/// Finished handshakes that wait for the server: it takes them at once.
const QUEUE: usize = 16;
/// What to wait when the process has no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection whose TLS handshake is done. It ends with an error when it is cut.
pub(super) struct Connection {
    io: TlsStream<TcpStream>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    _permit: OwnedSemaphorePermit,
}

/// Accepts connections; the first part must be polled for the second to give any.
pub(super) fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    cut: watch::Receiver<bool>,
) -> (
    impl Future<Output = ()>,
    ReceiverStream<io::Result<Connection>>,
) {
    let (ready, connections) = mpsc::channel(QUEUE);
    let acceptor = Acceptor {
        tls: TlsAcceptor::from(tls),
        permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        ready,
        cut,
    };
    (acceptor.run(listener), ReceiverStream::new(connections))
}

#[derive(Clone)]
struct Acceptor {
    tls: TlsAcceptor,
    permits: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Connection>>,
    cut: watch::Receiver<bool>,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.begin(stream, &mut handshakes),
                    Err(error) => {
                        tracing::warn!(%error, "could not accept a connection");
                        time::sleep(PAUSE).await;
                    }
                },
                Some(_) = handshakes.join_next() => {}
            }
        }
    }

    /// Without a permit the connection is closed at once.
    fn begin(&self, stream: TcpStream, handshakes: &mut JoinSet<()>) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            tracing::warn!("too many connections: one was closed");
            return;
        };
        handshakes.spawn(self.clone().handshake(stream, permit));
    }

    async fn handshake(self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        // Failing only costs latency.
        drop(stream.set_nodelay(true));
        match time::timeout(HANDSHAKE, self.tls.accept(stream)).await {
            Ok(Ok(io)) if io.get_ref().1.alpn_protocol() == Some(b"h2") => {
                let connection = Connection {
                    io,
                    cut: Box::pin(stopped(self.cut)),
                    _permit: permit,
                };
                // The server has stopped: the connection is closed by dropping it.
                drop(self.ready.send(Ok(connection)).await);
            }
            Ok(Ok(_)) => tracing::debug!("a client did not ask for h2"),
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            // A finished future is not polled again.
            self.cut = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
