//! A TCP connection as a leg.

use super::{
    Chunks, Leg, ReadAhead,
    ahead::Place,
    chunks::{MAX_BYTES, MAX_CHUNKS},
};
use crate::error::Reset;
use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::Interest,
    net::{TcpStream, tcp::OwnedReadHalf},
};
use tokio_util::io::poll_read_buf;

/// First size of a read; it grows while reads come back full.
const MIN_READ: usize = 4 * 1024;
/// Largest size of a read.
const MAX_READ: usize = MAX_BYTES;
/// Without a place for large reads, a leg that holds as much reads no more.
const MODEST: usize = 16 * 1024;

/// A TCP connection to or from an application.
///
/// FIN is a clean end; RST and every error is a [`Reset`]. A leg that is dropped before it sent
/// its FIN sends RST instead (`SO_LINGER` 0), so that the application cannot take a cut-off
/// transfer for a complete one; the same happens when the process is killed.
///
/// No buffer is held while there is nothing to read. The size of reads follows how full the last
/// ones were, from 4 KiB to 1 MiB; with [`with_read_ahead`](Self::with_read_ahead), what many legs
/// hold together is bounded.
pub struct TcpLeg {
    /// Shared with the error watch while that exists. (A half of a stream, because only its reads
    /// take a short read for the end of what is there; a whole one would ask the kernel again.)
    read: Arc<OwnedReadHalf>,
    buffer: BytesMut,
    read_size: usize,
    /// Read, and not yet taken by the other leg.
    held: usize,
    ahead: Option<ReadAhead>,
    place: Option<Place>,
    failed: Option<Reset>,
    /// Waits for an error on the socket; made when it is first needed.
    error_watch: Option<ErrorWatch>,
}

type ErrorWatch = Pin<Box<dyn Future<Output = Reset> + Send>>;

impl TcpLeg {
    /// Wraps a connected socket.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        let leg = SockRef::from(&stream);
        // Until its clean end is passed on, whatever ends the socket resets it, also the kernel's
        // clean-up after a crash. An error means that the socket has ended already.
        let _gone = leg.set_linger(Some(Duration::ZERO));
        let (read, write) = stream.into_split();
        write.forget();
        Self {
            read: Arc::new(read),
            buffer: BytesMut::new(),
            read_size: MIN_READ,
            held: 0,
            ahead: None,
            place: None,
            failed: None,
            error_watch: None,
        }
    }

    /// Shares a bound of what is read ahead with other legs. Default: up to 2 MiB, for itself.
    #[must_use]
    pub fn with_read_ahead(mut self, ahead: &ReadAhead) -> Self {
        self.ahead = Some(ahead.clone());
        self
    }

    /// Returns the socket, for its addresses and options.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        (*self.read).as_ref()
    }

    fn fail(&mut self, error: &io::Error) -> Reset {
        let reset = Reset::Tcp(error.kind());
        *self.failed.get_or_insert(reset)
    }

    /// How much may be read now; nothing while enough is held.
    fn next_read(&mut self) -> Option<usize> {
        let Some(ahead) = &self.ahead else {
            return Some(self.read_size);
        };
        if self.place.is_none() && self.held == 0 && self.read_size > MODEST {
            self.place = ahead.take();
        }
        if self.place.is_some() {
            return Some(self.read_size);
        }
        (self.held < MODEST).then(|| self.read_size.min(MODEST))
    }

    /// Reads up to `size` bytes into the buffer's room and splits off what came.
    fn poll_read(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Bytes>> {
        // No buffer before there is something to read.
        ready!(self.stream().poll_read_ready(cx))?;
        self.error_watch = None;
        let Some(read) = Arc::get_mut(&mut self.read) else {
            return Poll::Ready(Err(io::ErrorKind::ResourceBusy.into()));
        };
        let fits = size / 2..=size.saturating_mul(2);
        if !fits.contains(&self.buffer.capacity()) {
            self.buffer = BytesMut::with_capacity(size);
        }
        let room = self.buffer.capacity();
        let count = ready!(poll_read_buf(Pin::new(read), cx, &mut self.buffer))?;
        self.held += count;
        if count == room && room >= size / 2 {
            self.read_size = (self.read_size * 4).min(MAX_READ);
        } else if count < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(MIN_READ);
        }
        Poll::Ready(Ok(self.buffer.split().freeze()))
    }
}

impl Leg for TcpLeg {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>> {
        if let Some(reset) = self.failed {
            return Poll::Ready(Some(Err(reset)));
        }
        let Some(size) = self.next_read() else {
            // Stalled: what was read is with the other leg, and that is all that is held.
            self.buffer = BytesMut::new();
            return Poll::Pending;
        };
        match self.poll_read(cx, size) {
            Poll::Ready(Ok(chunk)) if chunk.is_empty() => {
                self.buffer = BytesMut::new();
                Poll::Ready(None)
            }
            Poll::Ready(Ok(chunk)) => Poll::Ready(Some(Ok(chunk))),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(self.fail(&error)))),
            Poll::Pending => {
                // Idle: the buffer goes, its last chunk is with the other leg.
                self.buffer = BytesMut::new();
                Poll::Pending
            }
        }
    }

    fn consumed(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
        if self.held == 0 {
            self.place = None;
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Reset>> {
        let mut chunks = Chunks::new();
        chunks.push(chunk.split_off(0));
        let outcome = self.poll_send_all(cx, &mut chunks);
        *chunk = chunks.pop().unwrap_or_default();
        outcome.map_ok(|_sent| ())
    }

    fn poll_send_all(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut Chunks,
    ) -> Poll<Result<usize, Reset>> {
        if let Some(reset) = self.failed {
            return Poll::Ready(Err(reset));
        }
        let mut sent = 0;
        while !chunks.is_empty() {
            match self.stream().poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.fail(&error))),
                Poll::Pending if sent == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
            let mut slices = [IoSlice::new(&[]); MAX_CHUNKS];
            let set = chunks.slices(&mut slices);
            let slices = slices.get(..set).unwrap_or_default();
            match self.stream().try_write_vectored(slices) {
                Ok(count) => {
                    sent += count;
                    chunks.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(self.fail(&error))),
            }
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        if let Some(reset) = self.failed {
            return Poll::Ready(Err(reset));
        }
        let socket = SockRef::from(self.stream());
        let ended = socket
            .set_linger(None)
            .and_then(|()| socket.shutdown(Shutdown::Write));
        match ended {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(self.fail(&error))),
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        if let Some(reset) = self.failed {
            return Poll::Ready(reset);
        }
        let watch = self
            .error_watch
            .get_or_insert_with(|| Box::pin(socket_error(Arc::clone(&self.read))));
        let reset = ready!(watch.as_mut().poll(cx));
        self.failed = Some(reset);
        self.error_watch = None;
        Poll::Ready(reset)
    }

    fn reset(&mut self) {
        // An error means that the socket is gone already.
        let _gone = SockRef::from(self.stream()).set_linger(Some(Duration::ZERO));
        self.failed.get_or_insert(Reset::Local);
    }
}

impl fmt::Debug for TcpLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpLeg")
            .field("stream", self.stream())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// Resolves when the socket has an error: RST from the other side, or a failed keepalive.
async fn socket_error(half: Arc<OwnedReadHalf>) -> Reset {
    let stream: &TcpStream = (*half).as_ref();
    loop {
        let outcome = stream.ready(Interest::ERROR).await;
        match outcome.map(|_ready| stream.take_error()) {
            Ok(Ok(None)) => {
                // Readiness without an error: clear it and wait for the next change.
                let clear = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
                let _cleared = stream.try_io(Interest::ERROR, clear);
            }
            Ok(Ok(Some(error)) | Err(error)) | Err(error) => return Reset::Tcp(error.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MODEST, TcpLeg};
    use crate::leg::{Leg, ReadAhead};
    use meshwright_testkit::trace;
    use std::{future::poll_fn, task::Poll};
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
        task::JoinSet,
    };

    /// A leg whose peer sends without end.
    async fn flooded(ahead: &ReadAhead, senders: &mut JoinSet<()>) -> TcpLeg {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let mut far = far.unwrap().0;
        senders.spawn(async move { while far.write_all(&[0; 1 << 20]).await.is_ok() {} });
        TcpLeg::new(near.unwrap()).with_read_ahead(ahead)
    }

    /// Reads until `most` bytes are held or the leg wants some to be consumed first.
    async fn hold(leg: &mut TcpLeg, most: usize) -> usize {
        let mut held = 0;
        while held < most && (leg.place.is_some() || leg.held < MODEST) {
            let chunk = poll_fn(|cx| leg.poll_chunk(cx)).await.unwrap().unwrap();
            held += chunk.len();
        }
        let full = poll_fn(|cx| Poll::Ready(leg.poll_chunk(cx).is_pending())).await;
        assert!(
            held >= most || full,
            "a leg that holds enough reads no more"
        );
        held
    }

    /// Reads and consumes until reads have grown to what needs a place.
    async fn warm_up(leg: &mut TcpLeg) {
        while leg.read_size <= MODEST {
            let chunk = poll_fn(|cx| leg.poll_chunk(cx)).await.unwrap().unwrap();
            leg.consumed(chunk.len());
        }
    }

    #[tokio::test]
    async fn only_so_many_stalled_legs_hold_large_reads() {
        let _trace = trace();
        let (ahead, mut senders) = (ReadAhead::new(1), JoinSet::new());
        let mut first = flooded(&ahead, &mut senders).await;
        let mut second = flooded(&ahead, &mut senders).await;
        warm_up(&mut first).await;
        warm_up(&mut second).await;
        const MUCH: usize = 512 * 1024;
        let held = hold(&mut first, MUCH).await;
        assert!(held >= MUCH);
        let modest = hold(&mut second, MUCH).await;
        assert!((1..=2 * MODEST).contains(&modest), "{modest}");

        // The leg may have read once more, for the look at its end.
        first.consumed(first.held);
        second.consumed(second.held);
        assert!(
            hold(&mut second, MUCH).await >= MUCH,
            "the place is free again"
        );
    }
}
