//! What `h2` reads from and writes to.
//!
//! `h2` flushes after every DATA frame. Here a flush does nothing: the driver of the connection
//! flushes once, after `h2` has returned, so that all frames of one wake-up go out together.

use super::frames::{FrameWatch, Seen};
use crate::tls::TlsStream;
use rustls::CommonState;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// The stream below `h2`; one clone is with `h2`, one with the driver, both on one task.
#[derive(Clone, Debug)]
pub(crate) struct Io {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    tls: TlsStream,
    watch: FrameWatch,
    started: Instant,
}

impl Io {
    pub(crate) fn new(tls: TlsStream, watch: FrameWatch) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                tls,
                watch,
                started: Instant::now(),
            })),
        }
    }

    /// Writes everything that `h2` has written.
    pub(crate) fn poll_flush_all(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().tls.poll_flush(cx)
    }

    /// Begins a turn of the driver.
    pub(crate) fn begin_turn(&self) {
        self.lock().watch.begin_turn();
    }

    /// A request of the peer was answered.
    pub(crate) fn answered(&self) {
        self.lock().watch.answered();
    }

    /// What the peer has sent so far, by frame headers.
    pub(crate) fn seen(&self) -> Seen {
        self.lock().watch.seen()
    }

    /// Shows what the TLS handshake agreed on.
    pub(crate) fn tls<R>(&self, look: impl FnOnce(&CommonState) -> R) -> R {
        look(self.lock().tls.state())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        let shared = &mut *shared;
        if shared.watch.seen().flood.is_some() {
            // Nothing more is read: the driver ends the connection after this poll.
            return Poll::Pending;
        }
        if shared.watch.turn_is_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = shared.tls.poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        let started = shared.started;
        shared.watch.observe(new, || started.elapsed());
        if !new.is_empty() {
            // What was read goes first; an error comes again at the next read.
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lock().tls.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().tls.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().tls.poll_shutdown(cx)
    }
}
