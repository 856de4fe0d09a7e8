//! Traffic counters: one lookup for a connection, a bounded table, idle series removed.

mod exposition;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::labels::{Party, Reporter, ResponseFlag, TrafficLabels};

/// Lines that the five families together may have.
const SERIES: usize = 10_000;
/// Lines that every entry has: opened, received, sent.
const BASE: usize = 3;
/// Lines kept for the two overflow entries, with every flag.
const OVERFLOW: usize = 2 * (BASE + 2 * FLAGS);
/// An entry without open connections disappears after this time.
const IDLE: Duration = Duration::from_secs(600);
/// A full table is searched for idle entries at most once in this many seconds.
const SWEEP_SECONDS: u64 = 10;
const FLAGS: usize = ResponseFlag::ALL.len();

/// The table of traffic series; clones share it.
#[derive(Clone, Debug)]
pub struct Traffic {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    start: Instant,
    entries: RwLock<HashMap<Arc<TrafficLabels>, Arc<Entry>>>,
    lines: Arc<AtomicUsize>,
    overflow: [Arc<Entry>; 2],
    overflowed: AtomicU64,
    swept: AtomicU64,
}

/// The counters of one set of labels.
#[derive(Debug)]
struct Entry {
    labels: Arc<TrafficLabels>,
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    closed: [AtomicU64; FLAGS],
    failed: [AtomicU64; FLAGS],
    open: AtomicUsize,
    last_used: AtomicU64,
    /// Lines of this entry beyond [`BASE`].
    extra: AtomicUsize,
    is_overflow: bool,
}

/// The counters for one set of labels: keep it where connections with the same labels begin.
///
/// Keeping it keeps its counters alive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TrafficSeries {
    table: Arc<Table>,
    entry: Arc<Entry>,
}

/// One connection; counts its bytes, and its end exactly once.
///
/// Dropping it without [`finish`](Self::finish) counts a clean end.
#[derive(Debug)]
pub struct OpenConnection {
    series: TrafficSeries,
    client_to_server: AtomicU64,
    server_to_client: AtomicU64,
    finished: AtomicBool,
}

/// Whether a connection got as far as to carry bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Establishment {
    /// It did.
    #[default]
    Established,
    /// It did not: also counted as failed.
    Failed,
}

impl Traffic {
    pub(super) fn new(now: Instant) -> Self {
        let overflow = [Reporter::Source, Reporter::Destination].map(|reporter| {
            let party = || Party {
                workload: "overflow".into(),
                ..Party::default()
            };
            let labels = TrafficLabels {
                source: party(),
                destination: party(),
                ..TrafficLabels::new(reporter)
            };
            Arc::new(Entry::new(Arc::new(labels), true))
        });
        Self {
            table: Arc::new(Table {
                start: now,
                entries: RwLock::default(),
                lines: Arc::new(AtomicUsize::new(OVERFLOW)),
                overflow,
                overflowed: AtomicU64::new(0),
                swept: AtomicU64::new(0),
            }),
        }
    }

    /// Finds the counters of `labels`, or makes them; when the table is full, gives the series
    /// named `overflow`.
    #[must_use]
    pub fn series(&self, labels: &TrafficLabels) -> TrafficSeries {
        self.series_at(labels, Instant::now())
    }

    fn series_at(&self, labels: &TrafficLabels, now: Instant) -> TrafficSeries {
        TrafficSeries {
            table: Arc::clone(&self.table),
            entry: self.table.entry(labels, now),
        }
    }

    /// Connections that were counted as `overflow` because the table was full.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.table.overflowed.load(Ordering::Relaxed)
    }

    /// Removes the series that were not used for ten minutes; done with every exposition.
    pub(super) fn expire(&self, now: Instant) {
        self.table.expire(now);
    }

    /// The entries that have something to show, in no particular order.
    fn shown(&self) -> Vec<Arc<Entry>> {
        let entries = self.table.entries.read();
        let entries = entries.unwrap_or_else(PoisonError::into_inner);
        let overflow = self.table.overflow.iter();
        entries
            .values()
            .chain(overflow)
            .filter(|entry| entry.opened.load(Ordering::Relaxed) > 0)
            .cloned()
            .collect()
    }
}

impl Table {
    fn entry(&self, labels: &TrafficLabels, now: Instant) -> Arc<Entry> {
        {
            let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = entries.get(labels) {
                return Arc::clone(entry);
            }
        }
        let second = self.second(now);
        if !self.reserve(BASE + 1) {
            self.sweep_when_full(now);
            if !self.reserve(BASE + 1) {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                let [source, destination] = &self.overflow;
                return Arc::clone(match labels.reporter {
                    Reporter::Source => source,
                    Reporter::Destination => destination,
                });
            }
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(labels) {
            self.lines.fetch_sub(BASE + 1, Ordering::Relaxed);
            return Arc::clone(entry);
        }
        let key = Arc::new(labels.clone());
        let entry = Arc::new(Entry::new(Arc::clone(&key), false));
        entry.last_used.store(second, Ordering::Relaxed);
        // The line of a first end is reserved with the entry.
        entry.extra.store(1, Ordering::Relaxed);
        entries.insert(key, Arc::clone(&entry));
        entry
    }

    fn reserve(&self, lines: usize) -> bool {
        let grow = |now: usize| (now + lines <= SERIES).then_some(now + lines);
        let changed = self
            .lines
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
        changed.is_ok()
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    fn sweep_when_full(&self, now: Instant) {
        let second = self.second(now);
        let last = self.swept.load(Ordering::Relaxed);
        if second >= last + SWEEP_SECONDS {
            self.swept.store(second, Ordering::Relaxed);
            self.expire(now);
        }
    }

    fn expire(&self, now: Instant) {
        let second = self.second(now);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| {
            // Somebody who holds the series may open a connection at any time; the table and the
            // key hold no other reference.
            let used = entry.open.load(Ordering::Relaxed) > 0 || Arc::strong_count(entry) > 1;
            let last_used = entry.last_used.load(Ordering::Relaxed);
            let keep = used || second.saturating_sub(last_used) < IDLE.as_secs();
            if !keep {
                let lines = BASE + entry.extra.load(Ordering::Relaxed);
                self.lines.fetch_sub(lines, Ordering::Relaxed);
            }
            keep
        });
    }
}

impl Entry {
    fn new(labels: Arc<TrafficLabels>, is_overflow: bool) -> Self {
        Self {
            labels,
            opened: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            closed: [const { AtomicU64::new(0) }; FLAGS],
            failed: [const { AtomicU64::new(0) }; FLAGS],
            open: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
            extra: AtomicUsize::new(0),
            is_overflow,
        }
    }

    fn lines(&self) -> usize {
        let ends = self.closed.iter().chain(&self.failed);
        ends.filter(|count| count.load(Ordering::Relaxed) > 0)
            .count()
    }
}

impl TrafficSeries {
    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &TrafficLabels {
        &self.entry.labels
    }

    /// Counts a connection as opened.
    #[must_use]
    pub fn open(&self) -> OpenConnection {
        self.entry.opened.fetch_add(1, Ordering::Relaxed);
        self.entry.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection {
            series: self.clone(),
            client_to_server: AtomicU64::new(0),
            server_to_client: AtomicU64::new(0),
            finished: AtomicBool::new(false),
        }
    }

    /// Counts an end, in the overflow entry if it would be a new line of a full table.
    fn close(&self, flag: ResponseFlag, establishment: Establishment, now: Instant) {
        let second = self.table.second(now);
        self.entry.last_used.store(second, Ordering::Relaxed);
        self.count(|entry| &entry.closed, flag);
        if establishment == Establishment::Failed {
            self.count(|entry| &entry.failed, flag);
        }
        self.entry.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self, counts: impl Fn(&Entry) -> &[AtomicU64; FLAGS], flag: ResponseFlag) {
        let index = ResponseFlag::ALL.iter().position(|known| *known == flag);
        let index = index.unwrap_or(0);
        let entry = self.room_for(&counts, index);
        if let Some(count) = counts(entry).get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn room_for(&self, counts: &impl Fn(&Entry) -> &[AtomicU64; FLAGS], index: usize) -> &Entry {
        let entry = &*self.entry;
        let shown = |count: &AtomicU64| count.load(Ordering::Relaxed) > 0;
        if entry.is_overflow || counts(entry).get(index).is_some_and(shown) {
            return entry;
        }
        if entry.lines() < entry.extra.load(Ordering::Relaxed) {
            return entry;
        }
        if self.table.reserve(1) {
            entry.extra.fetch_add(1, Ordering::Relaxed);
            return entry;
        }
        let [source, destination] = &self.table.overflow;
        match entry.labels.reporter {
            Reporter::Source => source,
            Reporter::Destination => destination,
        }
    }
}

impl OpenConnection {
    /// Adds bytes that were moved; call it once for a batch.
    pub fn moved(&self, client_to_server: u64, server_to_client: u64) {
        // Only this connection's task writes its own counts, the shared ones belong to all.
        self.client_to_server
            .fetch_add(client_to_server, Ordering::Relaxed);
        self.server_to_client
            .fetch_add(server_to_client, Ordering::Relaxed);
        let entry = &self.series.entry;
        // Istio's direction is the server's on both sides: received is what the client sent.
        entry
            .received
            .fetch_add(client_to_server, Ordering::Relaxed);
        entry.sent.fetch_add(server_to_client, Ordering::Relaxed);
    }

    /// Bytes that this end's application sent, then those it received, as the access log has them.
    #[must_use]
    pub fn sent_and_received(&self) -> (u64, u64) {
        let forth = self.client_to_server.load(Ordering::Relaxed);
        let back = self.server_to_client.load(Ordering::Relaxed);
        match self.series.labels().reporter {
            Reporter::Source => (forth, back),
            Reporter::Destination => (back, forth),
        }
    }

    /// Counts the end. Only the first call counts.
    pub fn finish(&self, flag: ResponseFlag, establishment: Establishment) {
        if !self.finished.swap(true, Ordering::Relaxed) {
            self.series.close(flag, establishment, Instant::now());
        }
    }
}

/// The first leg is the client's.
impl meshwright_hbone::Meter for OpenConnection {
    fn moved(&self, a_to_b: u64, b_to_a: u64) {
        Self::moved(self, a_to_b, b_to_a);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.finish(ResponseFlag::None, Establishment::Established);
    }
}

#[cfg(test)]
mod tests;
