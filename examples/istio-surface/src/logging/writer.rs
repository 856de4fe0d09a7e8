//! The queue of lines and the thread that empties it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait for the sink: about two seconds of a very busy node, and as many as Istio keeps.
const LINES: usize = 10_000;
/// Bytes that wait for the sink, whatever the number of lines.
const BYTES: usize = 8 << 20;
/// Lines that are joined into one write.
const BATCH: usize = 64;

/// The sending end; clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct LineSender {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
}

/// What the two ends share.
#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl LineSender {
    /// Starts the thread.
    pub(super) fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(LINES);
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&lines, sink, &shared))?;
        Ok(Self { queue, counts })
    }

    /// Queues a line, or drops and counts it. Never waits.
    pub(super) fn send(&self, mut line: String) {
        line.push('\n');
        let size = line.len();
        let waiting = self.counts.bytes.fetch_add(size, Ordering::Relaxed);
        let sent = waiting + size <= BYTES && self.queue.try_send(Message::Line(line)).is_ok();
        if !sent {
            self.counts.bytes.fetch_sub(size, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines sent so far are written, at most `limit`. Returns whether they are.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let (done, told) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < end => message = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            }
            thread::sleep(Duration::from_millis(1));
        }
        told.recv_timeout(end.saturating_duration_since(Instant::now()))
            .is_ok()
    }
}

fn write_all(lines: &Receiver<Message>, mut sink: impl Write, counts: &Counts) {
    let mut batch = Vec::new();
    let mut told = 0;
    while let Ok(first) = lines.recv() {
        let mut flushes = Vec::new();
        let mut next = Some(first);
        for _ in 0..BATCH {
            match next.take() {
                Some(Message::Line(line)) => batch.extend_from_slice(line.as_bytes()),
                Some(Message::Flush(done)) => flushes.push(done),
                None => break,
            }
            next = lines.try_recv().ok();
        }
        if let Some(Message::Line(line)) = &next {
            batch.extend_from_slice(line.as_bytes());
        } else if let Some(Message::Flush(done)) = next {
            flushes.push(done);
        }
        counts.bytes.fetch_sub(batch.len(), Ordering::Relaxed);
        let dropped = counts.dropped.load(Ordering::Relaxed);
        if dropped > told {
            let lost = dropped - told;
            batch.extend_from_slice(
                format!("meshwright: {lost} log lines were dropped before this one\n").as_bytes(),
            );
            told = dropped;
        }
        // A sink that fails has nobody to tell; the next batch tries again.
        if sink.write_all(&batch).and_then(|()| sink.flush()).is_err() {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            told += 1;
        }
        batch.clear();
        for done in flushes {
            let _gone = done.try_send(());
        }
    }
}
