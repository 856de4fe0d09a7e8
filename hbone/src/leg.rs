//! One side of a relayed connection, in owned chunks.
//!
//! An application uses a [`Tunnel`](crate::Tunnel) as `AsyncRead + AsyncWrite`; a proxy moves
//! chunks between two legs without copying them and sees exactly how each side ended.

mod ahead;
mod chunks;
mod stream;
mod tcp;

pub use ahead::ReadAhead;
pub use chunks::Chunks;
pub use stream::StreamLeg;
pub use tcp::TcpLeg;

use crate::error::Reset;
use bytes::Bytes;
use std::task::{Context, Poll};

/// A byte stream in both directions that knows a clean end from an abnormal one.
///
/// Dropping a leg before both directions have ended cleanly resets it.
pub trait Leg: Send + Unpin {
    /// Polls for bytes that arrived; `None` is a clean end (FIN, `END_STREAM`).
    ///
    /// After the end it is not called again. The bytes stay on this leg's account until
    /// [`consumed`](Self::consumed) is called; a leg that has enough of them on its account may
    /// stay pending until then.
    ///
    /// # Errors
    ///
    /// Resolves to [`Reset`] when the stream ended in any other way.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>>;

    /// Says that `bytes` of what [`poll_chunk`](Self::poll_chunk) returned have left this
    /// process, so that the peer may send as many more.
    fn consumed(&mut self, bytes: usize);

    /// Takes at least one byte off the front of `chunk`, or waits until it can.
    ///
    /// # Errors
    ///
    /// Resolves to [`Reset`] when the peer takes no more bytes.
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Reset>>;

    /// Takes as much as possible off the front of `chunks`, at least one byte; returns how many.
    ///
    /// # Errors
    ///
    /// As [`poll_send`](Self::poll_send).
    fn poll_send_all(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Chunks,
    ) -> Poll<Result<usize, Reset>> {
        let mut sent = 0;
        while let Some(mut chunk) = chunks.pop() {
            let before = chunk.len();
            let outcome = self.poll_send(cx, &mut chunk);
            sent += before - chunk.len();
            chunks.unpop(chunk);
            match outcome {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(reset)) => return Poll::Ready(Err(reset)),
                Poll::Pending if sent == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(sent))
    }

    /// Ends the sending direction cleanly, after everything that was sent (FIN, `END_STREAM`).
    ///
    /// # Errors
    ///
    /// Resolves to [`Reset`] when the stream ended before.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>>;

    /// Waits until what was sent is on its way; does nothing where that needs no help.
    ///
    /// # Errors
    ///
    /// Resolves to [`Reset`] when the stream ended before.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        let _unused = cx;
        Poll::Ready(Ok(()))
    }

    /// Watches for a reset while nothing is read: because the other leg is stalled, or because
    /// this leg's reading direction has ended.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        let _unused = cx;
        Poll::Pending
    }

    /// Ends both directions abnormally: `RST_STREAM`, or a TCP reset.
    fn reset(&mut self);
}

impl<L: Leg + ?Sized> Leg for Box<L> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>> {
        (**self).poll_chunk(cx)
    }
    fn consumed(&mut self, bytes: usize) {
        (**self).consumed(bytes);
    }
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Reset>> {
        (**self).poll_send(cx, chunk)
    }
    fn poll_send_all(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Chunks,
    ) -> Poll<Result<usize, Reset>> {
        (**self).poll_send_all(cx, chunks)
    }
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        (**self).poll_finish(cx)
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        (**self).poll_flush(cx)
    }
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        (**self).poll_reset(cx)
    }
    fn reset(&mut self) {
        (**self).reset();
    }
}
