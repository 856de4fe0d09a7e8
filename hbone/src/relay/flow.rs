//! One direction of a relay.

use crate::{
    error::Reset,
    leg::{Chunks, Leg},
};
use std::task::{Context, Poll};

/// Bytes moved in one turn before other tasks of the thread get theirs.
const TURN: u64 = 4 * 1024 * 1024;

/// What one turn found out about a direction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// It goes on.
    Open,
    /// Its end was passed on.
    Ended,
    /// The target takes no more.
    Refused(Reset),
    /// The source ended abnormally.
    SourceReset(Reset),
}

/// The state of one direction.
#[derive(Debug)]
pub(super) struct Flow {
    chunks: Chunks,
    state: State,
    total: u64,
    unpublished: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Bytes may come.
    Open,
    /// The source has ended; what it sent may still have to be delivered.
    Ending,
    /// The end was passed on.
    Ended,
    /// The target takes no more.
    Refused(Reset),
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            chunks: Chunks::new(),
            state: State::Open,
            total: 0,
            unpublished: 0,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn take_unpublished(&mut self) -> u64 {
        std::mem::take(&mut self.unpublished)
    }

    /// Whether the source may send more.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether the end was passed on, or can no longer be.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended | State::Refused(_))
    }

    /// Whether the end was passed on.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the source is read no more, because it has ended cleanly.
    pub(super) fn source_has_ended(&self) -> bool {
        matches!(self.state, State::Ending | State::Ended)
    }

    /// Moves what can be moved now.
    pub(super) fn turn(
        &mut self,
        from: &mut impl Leg,
        to: &mut impl Leg,
        cx: &mut Context<'_>,
    ) -> Step {
        let limit = self.total.saturating_add(TURN);
        while matches!(self.state, State::Open | State::Ending) {
            if let Err(reset) = self.fill(from, cx) {
                return Step::SourceReset(reset);
            }
            match self.send(from, to, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(reset)) => return self.refuse(from, reset),
                Poll::Pending => break,
            }
            if self.total >= limit {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.watch(from, cx)
    }

    /// Reads until the source has no more or enough is held.
    fn fill(&mut self, from: &mut impl Leg, cx: &mut Context<'_>) -> Result<(), Reset> {
        while matches!(self.state, State::Open) && !self.chunks.is_full() {
            match from.poll_chunk(cx) {
                Poll::Ready(Some(chunk)) => self.chunks.push(chunk?),
                Poll::Ready(None) => self.state = State::Ending,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Sends what is held, then the end; pending means that nothing could be done.
    fn send(
        &mut self,
        from: &mut impl Leg,
        to: &mut impl Leg,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Reset>> {
        if !self.chunks.is_empty() {
            return to.poll_send_all(cx, &mut self.chunks).map_ok(|sent| {
                from.consumed(sent);
                let sent = sent as u64;
                self.total += sent;
                self.unpublished += sent;
            });
        }
        if matches!(self.state, State::Ending) {
            return to.poll_finish(cx).map_ok(|()| self.state = State::Ended);
        }
        match to.poll_flush(cx) {
            Poll::Ready(Err(reset)) => Poll::Ready(Err(reset)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Stops the direction, because its target takes no more.
    pub(super) fn refuse(&mut self, from: &mut impl Leg, reset: Reset) -> Step {
        from.consumed(self.chunks.len());
        self.chunks = Chunks::new();
        self.state = State::Refused(reset);
        Step::Refused(reset)
    }

    /// While the source is not read, a reset of it would go unseen: watch for it.
    fn watch(&self, from: &mut impl Leg, cx: &mut Context<'_>) -> Step {
        let stalled = matches!(self.state, State::Open) && !self.chunks.is_empty();
        if stalled && let Poll::Ready(reset) = from.poll_reset(cx) {
            return Step::SourceReset(reset);
        }
        match self.state {
            State::Open | State::Ending => Step::Open,
            State::Ended => Step::Ended,
            State::Refused(reset) => Step::Refused(reset),
        }
    }
}
