//! TLS over any byte stream, with few system calls and few copies.
//!
//! `tokio-rustls` reads 4 KiB at a time and writes to the socket at every call. This one reads
//! what the socket has, up to 256 KiB at once, joins small writes into one record, and writes
//! up to 64 records at once when it is flushed. The cryptography is rustls' own.

use bytes::{Buf, BytesMut};
use rustls::{CommonState, Connection};
use std::{
    fmt,
    future::poll_fn,
    io::{self, BufRead, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// What TLS runs over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Encrypted bytes that wait for the socket before writers wait; 64 records of 16 KiB.
const MAX_QUEUED: usize = 64 * (RECORD + 64);
/// Plain bytes of a full record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// Writes shorter than this are joined.
const SMALL_WRITE: usize = 4 * 1024;
/// Joined writes are encrypted when they fill a record.
const MAX_JOINED: usize = RECORD;
/// First and last size of a read from the socket; it grows while reads come back full.
const MIN_READ: usize = 4 * 1024;
const MAX_READ: usize = 256 * 1024;
/// Slices of one write, the joined bytes included.
const MAX_SLICES: usize = 64;

/// A TLS connection after its handshake.
pub(crate) struct TlsStream {
    io: Box<dyn Transport>,
    tls: Connection,
    /// Encrypted bytes that were read and not yet decrypted.
    received: BytesMut,
    read_size: usize,
    /// Plain bytes that wait to be encrypted together.
    joined: Vec<u8>,
    /// The peer said that nothing more comes.
    ended: bool,
    /// We said so.
    finished: bool,
}

impl TlsStream {
    /// Wraps a transport; the handshake has not begun.
    pub(crate) fn new(io: impl Transport + 'static, mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(MAX_QUEUED));
        Self {
            io: Box::new(io),
            tls,
            received: BytesMut::new(),
            read_size: MIN_READ,
            joined: Vec::new(),
            ended: false,
            finished: false,
        }
    }

    /// Finishes the handshake. The caller sets the deadline.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// What the handshake agreed on.
    pub(crate) fn state(&self) -> &CommonState {
        &self.tls
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_flush(cx))?;
            if !self.tls.is_handshaking() {
                break;
            }
            if let Err(error) = ready!(self.poll_receive(cx)) {
                // An alert may be waiting: try to tell the peer why, without waiting for it.
                let _told = self.poll_flush(cx);
                return Poll::Ready(Err(error));
            }
        }
        self.poll_flush(cx)
    }

    /// Reads decrypted bytes; nothing is read after a `close_notify`.
    ///
    /// A transport that ends without `close_notify` is an error (RFC 8446 §6.1): the stream was
    /// cut off.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            self.take_plain(buf)?;
            let some = buf.filled().len() > before;
            if buf.remaining() == 0 || self.ended || (some && self.received.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            if self.received.is_empty() {
                ready!(self.poll_fill(cx))?;
            }
            self.decrypt()?;
        }
    }

    /// Encrypts bytes for the next flush; waits when too much is queued.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if len < SMALL_WRITE && self.joined.len() + len <= MAX_JOINED {
            for slice in slices {
                self.joined.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(len));
        }
        loop {
            let written = self.encrypt(slices)?;
            if written > 0 || len == 0 {
                return Poll::Ready(Ok(written));
            }
            // The queue is full.
            ready!(self.poll_send(cx))?;
        }
    }

    /// Encrypts what was joined and writes everything to the socket.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.joined.is_empty() {
                self.encrypt(&[])?;
                if !self.joined.is_empty() {
                    ready!(self.poll_send(cx))?;
                }
            }
            if !self.tls.wants_write() {
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            ready!(self.poll_send(cx))?;
        }
    }

    /// Ends the stream with `close_notify`, then waits until the peer has ended its own.
    ///
    /// What still comes is thrown away. A socket that is closed with unread bytes in it (the
    /// peer's window updates, say) is reset, and the kernel forgets what it has not sent yet: the
    /// tail of the last tunnel. The caller sets the deadline.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(self.poll_flush(cx))?;
            self.tls.send_close_notify();
            ready!(self.poll_flush(cx))?;
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.finished = true;
        }
        let mut scratch = [0; 1024];
        loop {
            let mut rest = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *self.io).poll_read(cx, &mut rest));
            if read.is_err() || rest.filled().is_empty() {
                // A peer that resets has got what it wanted.
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Encrypts joined bytes, then `slices`; returns how many bytes of `slices` were taken.
    ///
    /// What would make a short last record waits for the next write or flush.
    fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let new: usize = slices.iter().map(|slice| slice.len()).sum();
        let total = self.joined.len() + new;
        let tail = match total % RECORD {
            tail if total > RECORD && tail < SMALL_WRITE.min(new) => tail,
            _ => 0,
        };
        let mut all = [IoSlice::new(&[]); MAX_SLICES];
        let joined = [IoSlice::new(&self.joined)];
        let (mut set, mut left) = (0, total - tail);
        for (place, slice) in all.iter_mut().zip(joined.iter().chain(slices)) {
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            left -= part.len();
            *place = IoSlice::new(part);
            set += 1;
        }
        let all = all.get(..set).unwrap_or_default();
        let written = self.tls.writer().write_vectored(all)?;
        let from_joined = written.min(self.joined.len());
        self.joined.drain(..from_joined);
        if tail == 0 || written + tail < total {
            return Ok(written - from_joined);
        }
        let mut skip = new - tail;
        for slice in slices {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            let part = slice.get(skipped..).unwrap_or_default();
            self.joined.extend_from_slice(part);
        }
        Ok(new)
    }

    /// Writes encrypted bytes once, up to 64 records.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = SyncIo {
            io: &mut *self.io,
            cx,
        };
        match self.tls.write_tls(&mut socket) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Copies what is decrypted to `buf`.
    fn take_plain(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut reader = self.tls.reader();
        while buf.remaining() > 0 {
            let plain = match reader.fill_buf() {
                Ok([]) => {
                    self.ended = true;
                    break;
                }
                Ok(plain) => plain,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let count = plain.len().min(buf.remaining());
            buf.put_slice(plain.get(..count).unwrap_or_default());
            reader.consume(count);
        }
        Ok(())
    }

    /// Reads and decrypts once.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            ready!(self.poll_fill(cx))?;
            if self.received.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(self.decrypt())
    }

    /// Reads encrypted bytes from the socket.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.received.reserve(self.read_size);
        let room = self.received.capacity();
        let read = poll_read_buf(Pin::new(&mut *self.io), cx, &mut self.received);
        let Poll::Ready(read) = read else {
            // Idle: no buffer until something comes.
            self.received = BytesMut::new();
            return Poll::Pending;
        };
        let count = read?;
        if count == 0 {
            // rustls knows whether this was announced, and its reader says so.
            self.tls.read_tls(&mut io::empty())?;
        } else if count >= room.min(self.read_size) {
            self.read_size = (self.read_size * 4).min(MAX_READ);
        } else if count < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(MIN_READ);
        }
        Poll::Ready(Ok(()))
    }

    /// Decrypts what was received until some plain bytes are there, or nothing is left.
    fn decrypt(&mut self) -> io::Result<()> {
        loop {
            if !self.received.is_empty() {
                let mut received = &*self.received;
                let count = self.tls.read_tls(&mut received)?;
                self.received.advance(count);
            }
            let state = self
                .tls
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let closed = state.peer_has_closed();
            if self.received.is_empty() || state.plaintext_bytes_to_read() > 0 || closed {
                return Ok(());
            }
        }
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

/// Lets rustls write to an asynchronous stream: "not now" becomes `WouldBlock`.
struct SyncIo<'a, 'b> {
    io: &'a mut dyn Transport,
    cx: &'a mut Context<'b>,
}

fn now_or_would_block(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Write for SyncIo<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        now_or_would_block(Pin::new(&mut *self.io).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        now_or_would_block(Pin::new(&mut *self.io).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
