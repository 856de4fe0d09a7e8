//! Any `AsyncRead + AsyncWrite` as a leg.

use super::Leg;
use crate::error::Reset;
use bytes::{Buf, Bytes, BytesMut};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

const READ_SIZE: usize = 16 * 1024;

/// A leg over any byte stream, for instance TLS inside a tunnel, or a Unix socket.
///
/// An error of the stream is a reset. To reset it, the stream is dropped; what the peer sees of
/// that depends on the stream.
#[derive(Debug)]
pub struct StreamLeg<T> {
    stream: Option<T>,
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> StreamLeg<T> {
    /// Wraps a stream.
    #[must_use]
    pub fn new(stream: T) -> Self {
        Self {
            stream: Some(stream),
        }
    }

    fn stream(&mut self) -> Result<Pin<&mut T>, Reset> {
        self.stream.as_mut().map(Pin::new).ok_or(Reset::Local)
    }
}

fn failed(error: &io::Error) -> Reset {
    Reset::Tcp(error.kind())
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Leg for StreamLeg<T> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>> {
        let mut buffer = BytesMut::with_capacity(READ_SIZE);
        match ready!(poll_read_buf(self.stream()?, cx, &mut buffer)) {
            Ok(0) => Poll::Ready(None),
            Ok(_) => Poll::Ready(Some(Ok(buffer.freeze()))),
            Err(error) => Poll::Ready(Some(Err(failed(&error)))),
        }
    }

    fn consumed(&mut self, _bytes: usize) {}

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Reset>> {
        match ready!(self.stream()?.poll_write(cx, chunk)) {
            Ok(0) if !chunk.is_empty() => Poll::Ready(Err(Reset::Tcp(io::ErrorKind::WriteZero))),
            Ok(count) => {
                chunk.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(failed(&error))),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        self.stream()?.poll_shutdown(cx).map_err(|e| failed(&e))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        self.stream()?.poll_flush(cx).map_err(|e| failed(&e))
    }

    fn reset(&mut self) {
        self.stream = None;
    }
}
