//! What the operating system and the runtimes say about this process.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::runtime::Handle;

/// Open and most open file descriptors.
#[derive(Debug)]
pub(super) struct Descriptors;

/// The worker threads, each with a runtime of its own.
#[derive(Debug)]
pub(super) struct Workers {
    runtimes: Vec<Handle>,
}

impl Workers {
    pub(super) fn new(runtimes: Vec<Handle>) -> Self {
        Self { runtimes }
    }

    fn sum(&self, of: impl Fn(&Handle) -> usize) -> i64 {
        let sum: usize = self.runtimes.iter().map(of).sum();
        i64::try_from(sum).unwrap_or(i64::MAX)
    }
}

/// Which of a worker's two counts.
#[derive(Clone, Copy)]
enum Parking {
    Park,
    ParkAndUnpark,
}

impl Parking {
    fn count(self, handle: &Handle) -> u64 {
        match self {
            Self::Park => handle.metrics().worker_park_count(0),
            Self::ParkAndUnpark => handle.metrics().worker_park_unpark_count(0),
        }
    }
}

impl Collector for Descriptors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // The listing itself holds one descriptor.
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let open = i64::try_from(open.count().saturating_sub(1)).unwrap_or(i64::MAX);
            encoder
                .encode_descriptor(
                    "process_open_fds",
                    "Number of open file descriptors",
                    None,
                    MetricType::Gauge,
                )?
                .encode_gauge(&open)?;
        }
        if let Some(most) = most_descriptors() {
            encoder
                .encode_descriptor(
                    "process_max_fds",
                    "Maximum number of file descriptors",
                    None,
                    MetricType::Gauge,
                )?
                .encode_gauge(&most)?;
        }
        Ok(())
    }
}

fn most_descriptors() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

impl Collector for Workers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.runtimes.is_empty() {
            return Ok(());
        }
        let gauges = [
            (
                "tokio_num_workers",
                "the number of worker threads used by the runtime",
                self.sum(|handle| handle.metrics().num_workers()),
            ),
            (
                "tokio_global_queue_depth",
                "the number of tasks currently scheduled in the runtime's global queue",
                self.sum(|handle| handle.metrics().global_queue_depth()),
            ),
            (
                "tokio_num_alive_tasks",
                "the number of alive tasks in the runtime",
                self.sum(|handle| handle.metrics().num_alive_tasks()),
            ),
        ];
        for (name, help, value) in gauges {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        self.encode_workers(encoder)
    }
}

impl Workers {
    fn encode_workers(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "tokio_worker_total_busy_duration_seconds",
            "the amount of time worker threads have been busy",
            None,
            MetricType::Counter,
        )?;
        for (worker, handle) in self.runtimes.iter().enumerate() {
            let busy = handle.metrics().worker_total_busy_duration(0);
            family
                .encode_family(&[("worker", worker.to_string())])?
                .encode_counter::<NoLabelSet, _, u64>(&busy.as_secs_f64(), None)?;
        }
        let counters = [
            (
                "tokio_worker_park_count",
                "the total number of times the given worker thread has parked",
                Parking::Park,
            ),
            (
                "tokio_worker_park_unpark_count",
                "the total number of times the given worker thread has parked and unparked",
                Parking::ParkAndUnpark,
            ),
        ];
        for (name, help, parking) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (worker, handle) in self.runtimes.iter().enumerate() {
                family
                    .encode_family(&[("worker", worker.to_string())])?
                    .encode_counter::<NoLabelSet, _, u64>(&parking.count(handle), None)?;
            }
        }
        Ok(())
    }
}
