//! Worker threads, each with a single-threaded runtime.
//!
//! A tunnel, its streams and both of its sockets stay on one shard for life: crossing threads on
//! every wake-up was the largest single cost in measurements (52–65 µs per request against
//! 30–41 µs). Work is placed once, when a connection is accepted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// How long a shard may take to drop what still runs when the process ends.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(200);

/// Threads of one purpose; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Shards {
    first: Shard,
    others: Vec<Shard>,
}

/// One worker thread as seen from the others.
#[derive(Debug)]
struct Shard {
    handle: Handle,
    load: Load,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Connections that live on one shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

/// Counts one connection on a shard until it is dropped.
#[derive(Debug)]
pub(crate) struct Carried(Load);

impl Shards {
    /// Starts `count` threads, at least one, named after `name`: `ztunnel-0`, `ztunnel-1` and so on.
    ///
    /// # Errors
    ///
    /// Returns the operating system's answer when a thread or its event queue cannot be made.
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let first = Shard::start(name, 0)?;
        let others = (1..count)
            .map(|index| Shard::start(name, index))
            .collect::<io::Result<_>>()?;
        Ok(Self { first, others })
    }

    /// Returns how many there are: at least one.
    pub(crate) const fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// Returns the runtime of the shard at `index`, counted round and round.
    pub(crate) fn handle(&self, index: usize) -> Handle {
        let place = (index % self.len()).checked_sub(1);
        let shard = place.and_then(|place| self.others.get(place));
        shard.unwrap_or(&self.first).handle.clone()
    }

    /// Returns every shard's handle and load, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Handle, &Load)> {
        let shards = std::iter::once(&self.first).chain(&self.others);
        shards.map(|shard| (&shard.handle, &shard.load))
    }
}

impl Shard {
    fn start(name: &str, index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name(format!("{name}-{index}"))
            .spawn(move || {
                // A dropped sender ends the shard as a sent message does.
                runtime.block_on(async { stopped.await.unwrap_or_default() });
                runtime.shutdown_timeout(SHUTDOWN_LIMIT);
            })?;
        Ok(Self {
            handle,
            load: Load::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker thread panicked");
        }
    }
}

impl Load {
    /// Returns how many connections the shard carries now.
    pub(crate) fn carried(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one connection until the returned value is dropped.
    pub(crate) fn carry(&self) -> Carried {
        self.0.fetch_add(1, Ordering::Relaxed);
        Carried(self.clone())
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Shards;
    use std::thread;
    use tokio::sync::oneshot;

    #[test]
    fn work_given_to_a_shard_runs_on_that_shards_thread() {
        let _trace = meshwright_testkit::trace();
        let shards = Shards::start("ztunnel", 2).unwrap();
        for (index, (handle, _)) in shards.iter().enumerate() {
            let (tell, told) = oneshot::channel();
            handle.spawn(async move {
                let name = thread::current().name().map(str::to_owned);
                tell.send(name).unwrap();
            });
            assert_eq!(
                told.blocking_recv().unwrap(),
                Some(format!("ztunnel-{index}"))
            );
        }
    }

    #[test]
    fn load_counts_what_is_carried_until_dropped() {
        let _trace = meshwright_testkit::trace();
        let shards = Shards::start("ztunnel", 1).unwrap();
        let (_, load) = shards.iter().next().unwrap();
        let one = load.carry();
        let two = load.carry();
        assert_eq!(load.carried(), 2);
        drop((one, two));
        assert_eq!(load.carried(), 0);
    }
}
