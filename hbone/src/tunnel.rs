//! An open tunnel.

use crate::{error::Reset, leg::Leg, pool::StreamLease, quotas::StreamSlot, wire::stream::Stream};
use bytes::{Buf, Bytes};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream to the application behind a peer.
///
/// An application reads and writes it like a socket. A proxy moves owned chunks through
/// [`Leg`](crate::Leg), which sees resets as what they are.
///
/// * `shutdown` ends our direction cleanly; the other direction goes on.
/// * A read of 0 bytes means that the peer ended its direction cleanly. Anything else that ends
///   the stream is an error of kind [`ConnectionReset`](io::ErrorKind::ConnectionReset), with a
///   [`Reset`](crate::Reset) inside.
/// * Dropped before `shutdown`, it resets the stream, so that the peer cannot take a cut-off
///   transfer for a complete one.
///
/// Flow control is released as bytes are read (or, for a leg, consumed): a tunnel that nobody
/// reads stops its sender and nobody else.
pub struct Tunnel {
    stream: Stream,
    /// Read from the stream and not yet by the application.
    unread: Bytes,
    _lease: Lease,
}

/// What a tunnel gives back when it is dropped.
#[expect(dead_code, reason = "held for its drop")]
pub(crate) enum Lease {
    Pool(StreamLease),
    Quota(Option<StreamSlot>),
}

impl Tunnel {
    pub(crate) fn new(stream: Stream, lease: Lease) -> Self {
        Self {
            stream,
            unread: Bytes::new(),
            _lease: lease,
        }
    }
}

impl Leg for Tunnel {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.unread))));
        }
        self.stream.poll_recv(cx)
    }

    fn consumed(&mut self, bytes: usize) {
        self.stream.release(bytes);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Reset>> {
        self.stream.poll_send(cx, chunk)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        Poll::Ready(self.stream.finish(cx))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        self.stream.poll_reset(cx)
    }

    fn reset(&mut self) {
        self.stream.reset();
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            match ready!(self.stream.poll_recv(cx)) {
                Some(chunk) => self.unread = chunk?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.unread.len().min(buf.remaining());
        buf.put_slice(self.unread.get(..count).unwrap_or_default());
        self.unread.advance(count);
        self.stream.release(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, data).map_err(Into::into)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's driver writes whatever was sent.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.finish(cx).map_err(Into::into))
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}
