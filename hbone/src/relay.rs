//! Moves bytes between two legs, both directions in one task, and ends both as they ended.
//!
//! A clean end of one direction is passed on after its last byte, while the other direction goes
//! on. Anything else ends both legs with a reset: an application never sees a clean end of a
//! transfer that was cut off.

mod flow;

use crate::{error::Reset, leg::Leg, lifetime::FAR};
use flow::{Flow, Step};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Settings of a [`relay`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayConfig {
    /// How long a relay may go without a byte once one side has ended its direction, also while
    /// what it sent before waits for the other side. Default: 10 min.
    pub half_closed: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            half_closed: Duration::from_secs(600),
        }
    }
}

/// Learns how many bytes were moved.
///
/// The relay counts in plain fields and calls this once per turn in which something moved.
pub trait Meter {
    /// Adds bytes moved since the last call.
    fn moved(&self, a_to_b: u64, b_to_a: u64);
}

impl Meter for () {
    fn moved(&self, _a_to_b: u64, _b_to_a: u64) {}
}

impl<M: Meter + ?Sized> Meter for &M {
    fn moved(&self, a_to_b: u64, b_to_a: u64) {
        (**self).moved(a_to_b, b_to_a);
    }
}

impl<M: Meter + ?Sized> Meter for std::sync::Arc<M> {
    fn moved(&self, a_to_b: u64, b_to_a: u64) {
        (**self).moved(a_to_b, b_to_a);
    }
}

/// One of a relay's two legs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Side {
    /// The first argument of [`relay`].
    A,
    /// The second argument of [`relay`].
    B,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RelayEnd {
    /// Bytes moved from the first leg to the second.
    pub a_to_b: u64,
    /// Bytes moved from the second leg to the first.
    pub b_to_a: u64,
    /// Why it ended.
    pub reason: EndReason,
}

/// Why a relay ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EndReason {
    /// Both directions ended cleanly.
    Finished,
    /// One direction had ended and nothing moved in the other for too long; both were reset.
    HalfClosedTimeout,
    /// One leg ended abnormally, and so did the other because of it.
    #[non_exhaustive]
    Reset {
        /// The leg that ended first.
        by: Side,
        /// How it ended.
        reset: Reset,
    },
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::HalfClosedTimeout => f.write_str("no progress after one direction had ended"),
            Self::Reset { reset, .. } => reset.fmt(f),
        }
    }
}

/// Moves bytes between two legs until both directions have ended.
///
/// One task, no locks of its own; buffers exist only while there is something to move. Dropping
/// the future resets both legs, so a caller that enforces a policy or a deadline drops it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use meshwright_hbone::{EndReason, RelayConfig, StreamLeg, relay};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
///
/// let (mut client, a) = duplex(64);
/// let (b, mut server) = duplex(64);
/// let config = RelayConfig::default();
/// let relayed = relay(StreamLeg::new(a), StreamLeg::new(b), &config, ());
/// let application = async {
///     client.write_all(b"question").await.unwrap();
///     client.shutdown().await.unwrap();
///     let mut question = String::new();
///     server.read_to_string(&mut question).await.unwrap();
///     server.write_all(b"answer").await.unwrap();
///     drop(server);
///     question
/// };
/// let (end, question) = tokio::join!(relayed, application);
/// assert_eq!((question.as_str(), end.reason), ("question", EndReason::Finished));
/// assert_eq!((end.a_to_b, end.b_to_a), (8, 6));
/// # }
/// ```
pub fn relay<A: Leg, B: Leg, M: Meter>(
    a: A,
    b: B,
    config: &RelayConfig,
    meter: M,
) -> Relay<A, B, M> {
    Relay {
        a,
        b,
        forth: Flow::new(),
        back: Flow::new(),
        meter,
        half_closed: config.half_closed.min(FAR),
        deadline: None,
        ended: None,
    }
}

/// The future of [`relay`].
#[must_use = "futures do nothing unless polled"]
pub struct Relay<A, B, M> {
    a: A,
    b: B,
    forth: Flow,
    back: Flow,
    meter: M,
    half_closed: Duration,
    /// Made when one direction has ended.
    deadline: Option<Box<Deadline>>,
    ended: Option<RelayEnd>,
}

/// Fires when the half-closed time has passed without a byte.
struct Deadline {
    sleep: Pin<Box<Sleep>>,
    moved: u64,
}

impl<A: Leg, B: Leg, M: Meter> Relay<A, B, M> {
    /// Moves what can be moved, both ways; returns why the relay ended, if it did.
    fn turn(&mut self, cx: &mut Context<'_>) -> Option<EndReason> {
        let mut forth = self.forth.turn(&mut self.a, &mut self.b, cx);
        let mut back = self.back.turn(&mut self.b, &mut self.a, cx);
        // A leg that has ended cleanly is not read any more; that it takes no more bytes would
        // be seen at the next one only.
        if self.forth.source_has_ended()
            && !self.back.has_ended()
            && let Poll::Ready(reset) = self.a.poll_reset(cx)
        {
            back = self.back.refuse(&mut self.b, reset);
        }
        if self.back.source_has_ended()
            && !self.forth.has_ended()
            && let Poll::Ready(reset) = self.b.poll_reset(cx)
        {
            forth = self.forth.refuse(&mut self.a, reset);
        }
        // A source that was reset ends everything at once. A target that takes no more ends
        // its direction only: what it sent before is still delivered.
        match (forth, back) {
            (Step::SourceReset(reset), _) => Some(EndReason::Reset { by: Side::A, reset }),
            (_, Step::SourceReset(reset)) => Some(EndReason::Reset { by: Side::B, reset }),
            (Step::Refused(reset), Step::Ended | Step::Refused(_)) => {
                Some(EndReason::Reset { by: Side::B, reset })
            }
            (Step::Ended, Step::Refused(reset)) => Some(EndReason::Reset { by: Side::A, reset }),
            (Step::Ended, Step::Ended) => Some(EndReason::Finished),
            _ => None,
        }
    }

    /// Resolves when one direction has ended and the other made no progress for too long.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.forth.is_open() && self.back.is_open() {
            return Poll::Pending;
        }
        let moved = self.forth.total().saturating_add(self.back.total());
        let half_closed = self.half_closed;
        let deadline = self.deadline.get_or_insert_with(|| {
            Box::new(Deadline {
                sleep: Box::pin(tokio::time::sleep(half_closed)),
                moved,
            })
        });
        while deadline.sleep.as_mut().poll(cx).is_ready() {
            if deadline.moved == moved {
                return Poll::Ready(());
            }
            deadline.moved = moved;
            deadline.sleep.as_mut().reset(Instant::now() + half_closed);
        }
        Poll::Pending
    }

    fn publish(&mut self) {
        let (a_to_b, b_to_a) = (self.forth.take_unpublished(), self.back.take_unpublished());
        if a_to_b + b_to_a > 0 {
            self.meter.moved(a_to_b, b_to_a);
        }
    }

    fn end(&mut self, reason: EndReason) -> RelayEnd {
        match reason {
            EndReason::Finished => {}
            // The legs that still can are told; a leg that finished sending drops by itself.
            EndReason::Reset { by, .. } if self.half_done(by) => {}
            _ => {
                self.a.reset();
                self.b.reset();
            }
        }
        *self.ended.insert(RelayEnd {
            a_to_b: self.forth.total(),
            b_to_a: self.back.total(),
            reason,
        })
    }

    /// Whether everything that `by` sent was delivered with its clean end, so that only what was
    /// sent to it is lost: a reset now could still destroy what was delivered.
    fn half_done(&self, by: Side) -> bool {
        match by {
            Side::A => self.forth.is_finished(),
            Side::B => self.back.is_finished(),
        }
    }
}

impl<A: Leg, B: Leg, M: Meter + Unpin> Future for Relay<A, B, M> {
    type Output = RelayEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let this = &mut *self;
        if let Some(end) = this.ended {
            return Poll::Ready(end);
        }
        let ended = this.turn(cx);
        this.publish();
        if let Some(reason) = ended {
            return Poll::Ready(this.end(reason));
        }
        match this.poll_deadline(cx) {
            Poll::Ready(()) => Poll::Ready(this.end(EndReason::HalfClosedTimeout)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<A, B, M> fmt::Debug for Relay<A, B, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("forth", &self.forth)
            .field("back", &self.back)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
