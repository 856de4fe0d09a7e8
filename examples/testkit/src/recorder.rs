//! A list of things that happened, for implementing a crate's `Events` in its tests.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Collects values in order; clones share the list.
///
/// Implement a crate's `Events` trait for a newtype around it and record what each method was
/// given.
#[derive(Debug)]
pub struct Recorder<T> {
    shared: Arc<(Mutex<Vec<T>>, Condvar)>,
}

impl<T> Recorder<T> {
    /// Creates an empty recorder.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new((Mutex::new(Vec::new()), Condvar::new())),
        }
    }

    /// Appends one value and wakes whoever waits in [`wait_for`](Self::wait_for).
    pub fn record(&self, value: T) {
        let (list, changed) = &*self.shared;
        list.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(value);
        changed.notify_all();
    }

    /// Takes everything recorded so far.
    #[must_use]
    pub fn take(&self) -> Vec<T> {
        let mut list = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *list)
    }

    /// Returns how many recorded values satisfy `wanted`.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&T) -> bool) -> usize {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|value| wanted(value))
            .count()
    }

    /// Blocks the thread until `wanted` holds for some value, at most `limit`.
    ///
    /// For tests whose work runs on other threads; on a single-threaded runtime it would stop
    /// the very task that it waits for.
    ///
    /// # Panics
    ///
    /// Panics when the limit has passed: the message states the rule.
    #[track_caller]
    pub fn wait_for(&self, limit: Duration, rule: &str, wanted: impl Fn(&T) -> bool) {
        let (list, changed) = &*self.shared;
        let end = Instant::now() + limit;
        let mut values = list.lock().unwrap_or_else(PoisonError::into_inner);
        while !values.iter().any(&wanted) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "did not happen within {limit:?}: {rule}");
            values = changed
                .wait_timeout(values, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl<T> Clone for Recorder<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Default for Recorder<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Recorder;
    use std::{thread, time::Duration};

    #[test]
    fn values_recorded_on_another_thread_are_waited_for() {
        let recorder = Recorder::new();
        let writer = recorder.clone();
        let thread = thread::spawn(move || writer.record(7));
        recorder.wait_for(Duration::from_secs(5), "seven is recorded", |v| *v == 7);
        thread.join().unwrap();
        assert_eq!(recorder.take(), [7]);
    }
}
