//! Bounds the bytes that all streams of one connection have queued in `h2`.
//!
//! `h2` bounds them per stream only. Every chunk handed to it carries its share of the
//! connection's credit and gives it back when `h2` has written or dropped the chunk. The open streams
//! are counted beside it.

use bytes::{Buf, Bytes};
use std::{
    io::IoSlice,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// The bytes that may still be queued on one connection.
#[derive(Debug)]
pub(crate) struct Credit {
    left: AtomicUsize,
    streams: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
}

impl Credit {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(bytes),
            streams: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Takes up to `wanted` bytes, at least one, or waits.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, wanted: usize) -> Poll<usize> {
        if let taken @ 1.. = self.take(wanted) {
            return Poll::Ready(taken);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        drop(waiting);
        // Credit may have come back between the first look and the registration.
        match self.take(wanted) {
            0 => Poll::Pending,
            taken => Poll::Ready(taken),
        }
    }

    /// Counts a stream that was opened.
    pub(crate) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a stream that has ended.
    pub(crate) fn stream_ended(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Streams that are open.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn take(&self, wanted: usize) -> usize {
        let mut taken = 0;
        let update = |left: usize| {
            taken = left.min(wanted);
            (taken > 0).then(|| left - taken)
        };
        let order = Ordering::AcqRel;
        match self.left.fetch_update(order, Ordering::Acquire, update) {
            Ok(_) => taken,
            Err(_empty) => 0,
        }
    }

    fn give_back(&self, bytes: usize) {
        let before = self.left.fetch_add(bytes, Ordering::AcqRel);
        if before == 0 {
            let waiting =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// A chunk on its way into `h2`.
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Bytes,
    credit: Option<(Arc<Credit>, usize)>,
}

impl Payload {
    /// Wraps bytes for which credit was taken.
    pub(crate) fn new(bytes: Bytes, credit: &Arc<Credit>) -> Self {
        let taken = bytes.len();
        Self {
            bytes,
            credit: Some((Arc::clone(credit), taken)),
        }
    }

    /// The payload of an `END_STREAM` without data.
    pub(crate) fn empty() -> Self {
        Self {
            bytes: Bytes::new(),
            credit: None,
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some((credit, taken)) = self.credit.take() {
            credit.give_back(taken);
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }
    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }
    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(dst)
    }
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::{Credit, Payload};
    use bytes::Bytes;
    use meshwright_testkit::trace;
    use std::task::Poll;
    use tokio_test::{assert_pending, assert_ready_eq, task};

    #[test]
    fn senders_wait_when_the_credit_is_used_up_and_wake_when_it_returns() {
        let _trace = trace();
        let credit = Credit::new(10);
        let mut first = task::spawn(());
        let taken = first.enter(|cx, _| credit.poll_take(cx, 8));
        assert_eq!(taken, Poll::Ready(8));
        let payload = Payload::new(Bytes::from_static(b"12345678"), &credit);
        let mut second = task::spawn(());
        assert_ready_eq!(second.enter(|cx, _| credit.poll_take(cx, 8)), 2);
        assert_pending!(second.enter(|cx, _| credit.poll_take(cx, 8)));
        drop(payload);
        assert!(
            second.is_woken(),
            "credit that returns wakes the waiting sender"
        );
        assert_ready_eq!(second.enter(|cx, _| credit.poll_take(cx, 9)), 8);
    }
}
