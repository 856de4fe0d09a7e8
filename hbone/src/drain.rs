//! Ending work in good order: one trigger, many watchers.
//!
//! A [`Drain`] is owned by whoever shuts down; each piece of work holds a [`DrainWatch`]. Work
//! that sees [`Phase::Draining`] takes nothing new and ends by itself; at [`Phase::Closing`] it
//! stops. [`Drain::finished`] waits until the last watch is dropped.

use tokio::sync::watch;

/// How far a shutdown has come. Phases only advance.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing is shutting down.
    #[default]
    Running,
    /// Nothing new is taken; what runs may end by itself.
    Draining,
    /// What still runs is cut off.
    Closing,
}

/// Starts a drain and waits for its end.
///
/// Dropping it without a call to [`start`](Self::start) leaves the watchers in
/// [`Phase::Closing`]: nobody is left who could ever drain them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use meshwright_hbone::drain::Drain;
///
/// let drain = Drain::new();
/// let watch = drain.watch();
/// drain.start();
/// watch.draining().await;
/// drop(watch);
/// drain.finished().await;
/// # }
/// ```
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
}

impl Drain {
    /// Makes a trigger that has not been pulled.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Running),
        }
    }

    /// Makes a watch; watches of a running and of a started drain are the same.
    #[must_use]
    pub fn watch(&self) -> DrainWatch {
        DrainWatch {
            phase: self.phase.subscribe(),
        }
    }

    /// Asks all work to end by itself. Later calls change nothing.
    pub fn start(&self) {
        self.advance(Phase::Draining);
    }

    /// Asks all work to stop now.
    pub fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// Waits until every watch is dropped; the caller sets the deadline. Cancel safe.
    pub async fn finished(&self) {
        self.phase.closed().await;
    }

    /// Returns how many watches are alive.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.phase.receiver_count()
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let advances = *phase < to;
            *phase = to.max(*phase);
            advances
        });
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

/// One piece of work's view of a [`Drain`]; the drain is finished when all are dropped.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    phase: watch::Receiver<Phase>,
}

impl DrainWatch {
    /// Returns the current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.has_changed() {
            Ok(_) => *self.phase.borrow(),
            Err(_dropped) => self.abandoned(),
        }
    }

    /// Waits until the drain has started, or its trigger is gone. Cancel safe.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until work must stop. Cancel safe.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// A trigger that was dropped after it started still lets running work end.
    fn abandoned(&self) -> Phase {
        match *self.phase.borrow() {
            Phase::Running => Phase::Closing,
            later => later,
        }
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.clone();
        if phase.wait_for(|phase| *phase >= wanted).await.is_err() && self.abandoned() < wanted {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Drain, Phase};
    use meshwright_testkit::trace;
    use tokio_test::{assert_pending, assert_ready, task};

    #[test]
    fn watchers_wake_when_the_drain_starts() {
        let _trace = trace();
        let drain = Drain::new();
        let watch = drain.watch();
        let mut wait = task::spawn(watch.draining());
        assert_pending!(wait.poll());
        drain.start();
        assert!(wait.is_woken(), "the trigger wakes the watcher");
        assert_ready!(wait.poll());
        assert_eq!(watch.phase(), Phase::Draining);
    }

    #[test]
    fn drain_is_finished_when_the_last_watch_is_dropped() {
        let _trace = trace();
        let drain = Drain::new();
        let (first, second) = (drain.watch(), drain.watch());
        drain.start();
        let mut finished = task::spawn(drain.finished());
        assert_pending!(finished.poll());
        drop(first);
        assert_pending!(finished.poll());
        drop(second);
        assert_ready!(finished.poll());
    }

    #[test]
    fn phases_never_go_back() {
        let _trace = trace();
        let drain = Drain::new();
        let watch = drain.watch();
        drain.close();
        drain.start();
        assert_eq!(watch.phase(), Phase::Closing);
    }

    #[test]
    fn dropped_trigger_closes_work_that_was_never_told_to_drain() {
        let _trace = trace();
        let watch = Drain::new().watch();
        assert_ready!(task::spawn(watch.closing()).poll());
        assert_eq!(watch.phase(), Phase::Closing);

        let drain = Drain::new();
        let watch = drain.watch();
        drain.start();
        drop(drain);
        assert_pending!(
            task::spawn(watch.closing()).poll(),
            "running work may end by itself"
        );
    }
}
