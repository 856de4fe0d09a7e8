//! The five families of traffic in an exposition.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::super::labels::{Line, ResponseFlag};
use super::{Entry, FLAGS, Traffic};

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let entries = self.shown();
        if entries.is_empty() {
            return Ok(());
        }
        let families: [(&str, &str, Values); 5] = [
            (
                "tcp_connections_opened",
                "The total number of TCP connections opened.",
                Values::Plain(|entry| &entry.opened),
            ),
            (
                "tcp_connections_closed",
                "The total number of TCP connections closed.",
                Values::ByFlag(|entry| &entry.closed),
            ),
            (
                "tcp_received_bytes",
                "The size of total bytes received during request in case of a TCP connection.",
                Values::Plain(|entry| &entry.received),
            ),
            (
                "tcp_sent_bytes",
                "The size of total bytes sent during response in case of a TCP connection.",
                Values::Plain(|entry| &entry.sent),
            ),
            (
                "tcp_connections_failed",
                "The total number of TCP connections that failed to establish (unstable).",
                Values::ByFlag(|entry| &entry.failed),
            ),
        ];
        for (name, help, values) in families {
            if !values.any(&entries) {
                continue;
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for entry in &entries {
                values.encode(entry, &mut family)?;
            }
        }
        Ok(())
    }
}

/// Which counters of an entry make a family.
#[derive(Clone, Copy)]
enum Values {
    Plain(fn(&Entry) -> &AtomicU64),
    ByFlag(fn(&Entry) -> &[AtomicU64; FLAGS]),
}

impl Values {
    fn any(self, entries: &[Arc<Entry>]) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::ByFlag(of) => entries
                .iter()
                .flat_map(|entry| of(entry))
                .any(|count| count.load(Ordering::Relaxed) > 0),
        }
    }

    fn encode(self, entry: &Entry, family: &mut MetricEncoder<'_>) -> fmt::Result {
        let mut line = |flag, value: u64| {
            let labels = Line {
                labels: &entry.labels,
                flag,
            };
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)
        };
        match self {
            Self::Plain(of) => line(ResponseFlag::None, of(entry).load(Ordering::Relaxed)),
            Self::ByFlag(of) => {
                for (flag, count) in ResponseFlag::ALL.into_iter().zip(of(entry)) {
                    let value = count.load(Ordering::Relaxed);
                    if value > 0 {
                        line(flag, value)?;
                    }
                }
                Ok(())
            }
        }
    }
}
