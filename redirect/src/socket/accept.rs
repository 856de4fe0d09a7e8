//! Accepting that survives everything `accept` can say.

use crate::events::{AcceptFailed, Events};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Pause after the first failure that shows exhaustion; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause: full recovery within a second once descriptors are free again.
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// Something that accepts connections; implemented for tokio's listener.
///
/// Open for other kinds of sockets, and for tests that script failures.
pub trait RawAccept {
    /// What a connection is.
    type Connection;

    /// Accepts one connection, as [`TcpListener::poll_accept`] does.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Connection>>;
}

impl RawAccept for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Connection>> {
        self.poll_accept(cx)
    }
}

/// Hands out connections for ever: failures are counted and waited out, never returned.
///
/// A connection that died in the queue costs nothing; exhaustion of descriptors or memory pauses
/// 5 ms, doubling to 640 ms, until one succeeds.
pub struct Acceptor<L = TcpListener> {
    listener: L,
    events: Arc<dyn Events>,
    pause: Duration,
}

impl<L: RawAccept> Acceptor<L> {
    /// Wraps a listener.
    pub fn new(listener: L, events: Arc<dyn Events>) -> Self {
        Self {
            listener,
            events,
            pause: Duration::ZERO,
        }
    }

    /// Waits for the next connection. Cancel safe: no connection is lost.
    pub async fn accept(&mut self) -> L::Connection {
        loop {
            match poll_fn(|cx| self.listener.poll_raw(cx)).await {
                Ok(connection) => {
                    self.pause = Duration::ZERO;
                    return connection;
                }
                Err(error) => {
                    let pause = self.failed(&error);
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Gives the listener back.
    pub fn into_inner(self) -> L {
        self.listener
    }

    /// Counts a failure and says how long to wait.
    fn failed(&mut self, error: &io::Error) -> Duration {
        let pause = if is_of_one_connection(error) {
            Duration::ZERO
        } else {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            self.pause
        };
        self.events.accept_failed(&AcceptFailed {
            errno: error.raw_os_error(),
            pause,
        });
        pause
    }
}

impl<L: std::fmt::Debug> std::fmt::Debug for Acceptor<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("listener", &self.listener)
            .field("pause", &self.pause)
            .finish_non_exhaustive()
    }
}

/// Whether the failure concerns the one connection that was taken from the queue (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
        )
    )
}

#[cfg(test)]
mod tests {
    use super::{Acceptor, RawAccept};
    use crate::events::{AcceptFailed, Events};
    use meshwright_testkit::Recorder;
    use std::collections::VecDeque;
    use std::io;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use std::time::Duration;
    use tokio::time::Instant;

    struct Script(VecDeque<Result<u32, i32>>);

    impl RawAccept for Script {
        type Connection = u32;

        fn poll_raw(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<u32>> {
            match self.0.pop_front() {
                Some(answer) => Poll::Ready(answer.map_err(io::Error::from_raw_os_error)),
                None => Poll::Pending,
            }
        }
    }

    struct Counted(Recorder<AcceptFailed>);

    impl Events for Counted {
        fn accept_failed(&self, event: &AcceptFailed) {
            self.0.record(event.clone());
        }
    }

    fn acceptor(script: &[Result<u32, i32>]) -> (Acceptor<Script>, Recorder<AcceptFailed>) {
        let seen = Recorder::new();
        let script = Script(script.iter().copied().collect());
        let events = Arc::new(Counted(seen.clone()));
        (Acceptor::new(script, events), seen)
    }

    #[tokio::test(start_paused = true)]
    async fn every_error_of_accept_is_survived_and_counted() {
        let _trace = meshwright_testkit::trace();
        let errors = [
            libc::ECONNABORTED,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EPERM,
            libc::EBADF,
        ];
        let mut script: Vec<_> = errors.iter().map(|errno| Err(*errno)).collect();
        script.push(Ok(7));
        let (mut acceptor, seen) = acceptor(&script);
        assert_eq!(acceptor.accept().await, 7);
        let seen: Vec<_> = seen.take().iter().filter_map(|e| e.errno).collect();
        assert_eq!(seen, errors);
    }

    #[tokio::test(start_paused = true)]
    async fn exhaustion_pauses_with_a_bound_and_success_resets_it() {
        let _trace = meshwright_testkit::trace();
        let mut script = vec![Err(libc::EMFILE); 12];
        script.extend([Ok(1), Err(libc::EMFILE), Ok(2)]);
        let (mut acceptor, seen) = acceptor(&script);
        let start = Instant::now();
        assert_eq!(acceptor.accept().await, 1);
        let pauses: Vec<_> = seen.take().iter().map(|e| e.pause.as_millis()).collect();
        assert_eq!(
            pauses,
            [5, 10, 20, 40, 80, 160, 320, 640, 640, 640, 640, 640]
        );
        assert_eq!(start.elapsed(), Duration::from_millis(3835));
        assert_eq!(acceptor.accept().await, 2);
        assert_eq!(seen.take().first().map(|e| e.pause.as_millis()), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_died_in_the_queue_costs_no_pause() {
        let _trace = meshwright_testkit::trace();
        let (mut acceptor, _seen) = acceptor(&[Err(libc::ECONNABORTED), Ok(3)]);
        let start = Instant::now();
        assert_eq!(acceptor.accept().await, 3);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
