//! One stream: chunks in, chunks out, and how each direction ended.

use super::{
    CONNECT_ERROR,
    credit::{Credit, Payload},
    reset_of,
};
use crate::error::Reset;
use bytes::Bytes;
use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

/// An open tunnel on a connection.
///
/// Dropped before both directions have ended cleanly, it resets the stream.
#[derive(Debug)]
pub(crate) struct Stream {
    send: h2::SendStream<Payload>,
    recv: h2::RecvStream,
    credit: Arc<Credit>,
    /// `END_STREAM` was sent.
    finished: bool,
    /// `END_STREAM` was received.
    ended: bool,
    reset: Option<Reset>,
}

impl Stream {
    pub(super) fn new(
        send: h2::SendStream<Payload>,
        recv: h2::RecvStream,
        credit: Arc<Credit>,
    ) -> Self {
        credit.stream_opened();
        Self {
            send,
            recv,
            credit,
            finished: false,
            ended: false,
            reset: None,
        }
    }

    /// Polls for the next chunk; it counts against the window until [`release`](Self::release).
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // A reset by the peer comes after what it sent before, and not at all after its end.
        if self.reset == Some(Reset::Local) {
            return Poll::Ready(Some(Err(Reset::Local)));
        }
        loop {
            match ready!(self.recv.poll_data(cx)) {
                // An empty frame says nothing; the number of them is bounded below.
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => return Poll::Ready(Some(Ok(chunk))),
                Some(Err(error)) => {
                    let reset = *self.reset.get_or_insert_with(|| reset_of(&error));
                    return Poll::Ready(Some(Err(reset)));
                }
                None => {
                    // END_STREAM on DATA, or trailers, which a tunnel does not have: ignored.
                    self.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Lets the peer send `bytes` more.
    pub(crate) fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            // Refused only if more is released than was received.
            let _released = self.recv.flow_control().release_capacity(bytes);
        }
    }

    /// Sends at least one byte off the front of `chunk`, as far as windows and buffers allow.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), Reset>> {
        if chunk.is_empty() {
            return Poll::Ready(self.check_open());
        }
        let room = ready!(self.poll_room(cx, chunk.len()))?;
        let taken = ready!(self.credit.poll_take(cx, room.min(chunk.len())));
        let payload = Payload::new(chunk.split_to(taken), &self.credit);
        let sent = self.send.send_data(payload, false);
        Poll::Ready(sent.map_err(|_closed| self.closed(cx)))
    }

    /// Copies at least one byte of `data` into the stream; returns how many.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, Reset>> {
        if data.is_empty() {
            return Poll::Ready(self.check_open().map(|()| 0));
        }
        let room = ready!(self.poll_room(cx, data.len()))?;
        let taken = ready!(self.credit.poll_take(cx, room.min(data.len())));
        let bytes = Bytes::copy_from_slice(data.get(..taken).unwrap_or_default());
        let payload = Payload::new(bytes, &self.credit);
        let sent = self.send.send_data(payload, false);
        Poll::Ready(sent.map(|()| taken).map_err(|_closed| self.closed(cx)))
    }

    /// Sends `END_STREAM` after everything sent so far.
    pub(crate) fn finish(&mut self, cx: &mut Context<'_>) -> Result<(), Reset> {
        self.check_open()?;
        if !self.finished {
            let sent = self.send.send_data(Payload::empty(), true);
            sent.map_err(|_closed| self.closed(cx))?;
            self.finished = true;
        }
        Ok(())
    }

    /// Resolves when the stream was reset, also while nothing is read.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        if let Some(reset) = self.reset {
            return Poll::Ready(reset);
        }
        let reset = match ready!(self.send.poll_reset(cx)) {
            Ok(reason) => Reset::Stream(reason.into()),
            Err(error) => reset_of(&error),
        };
        Poll::Ready(*self.reset.insert(reset))
    }

    /// Ends both directions with `RST_STREAM`.
    pub(crate) fn reset(&mut self) {
        if self.reset.is_none() {
            self.reset = Some(Reset::Local);
            self.send.send_reset(CONNECT_ERROR);
        }
    }

    fn check_open(&self) -> Result<(), Reset> {
        self.reset.map_or(Ok(()), Err)
    }

    /// Waits until `h2` takes some of `wanted` bytes.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Reset>> {
        self.check_open()?;
        if self.finished {
            return Poll::Ready(Err(Reset::Local));
        }
        // Asking for no more than there is to send leaves the connection's window to others.
        self.send.reserve_capacity(wanted);
        loop {
            match self.send.capacity() {
                0 => {}
                room => return Poll::Ready(Ok(room)),
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(self.closed(cx))),
            }
        }
    }

    /// The sending direction is closed (`h2` says so with a user error): says why.
    fn closed(&mut self, cx: &mut Context<'_>) -> Reset {
        match self.poll_reset(cx) {
            Poll::Ready(reset) => reset,
            Poll::Pending => *self.reset.insert(Reset::ConnectionLost),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.credit.stream_ended();
        // A clean end of our direction is kept: then `h2` says that the rest is not wanted. Without
        // it the peer must not take what it got for complete.
        if !self.finished {
            self.reset();
        }
    }
}
