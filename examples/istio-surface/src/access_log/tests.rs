use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{AccessLog, AccessRecord};
use crate::end::EndReason;
use crate::logging::{Filter, LogFormat, Logging};
use crate::metrics::{Metrics, Reporter};

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
    let sink = Sink::default();
    let logging = Logging::new(Filter::parse(filter).unwrap(), format);
    let (subscriber, control) = logging.build(sink.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, log);
    control.flush(Duration::from_secs(10)).unwrap();
    String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
}

/// Reads a record back from a line of a real ztunnel.
fn record_of(field: impl Fn(&str) -> Option<String>) -> AccessRecord {
    let text = |name: &str| field(name).map(Arc::<str>::from);
    let addr = |name: &str| field(name).map(|text| text.parse::<SocketAddr>().unwrap());
    let number = |name: &str| field(name).unwrap().parse::<u64>().unwrap();
    let reporter = match field("direction").as_deref() {
        Some("inbound") => Reporter::Destination,
        _ => Reporter::Source,
    };
    let millis = field("duration").unwrap().trim_end_matches("ms").parse();
    AccessRecord {
        reporter,
        src_addr: addr("src.addr").unwrap(),
        src_workload: text("src.workload"),
        src_namespace: text("src.namespace"),
        src_identity: text("src.identity"),
        src_cluster: text("src.cluster"),
        dst_addr: addr("dst.addr").unwrap(),
        dst_hbone_addr: addr("dst.hbone_addr"),
        dst_service: text("dst.service"),
        dst_workload: text("dst.workload"),
        dst_namespace: text("dst.namespace"),
        dst_identity: text("dst.identity"),
        dst_cluster: text("dst.cluster"),
        bytes_sent: number("bytes_sent"),
        bytes_recv: number("bytes_recv"),
        duration: Duration::from_millis(millis.unwrap()),
        error: field("error"),
    }
}

#[test]
fn plain_lines_are_those_of_a_real_ztunnel() {
    let _trace = meshwright_testkit::trace();
    let recorded = concat!(
        include_str!("../../tests/data/access-a.log"),
        include_str!("../../tests/data/access-b.log")
    );
    let mut compared = 0;
    for expected in recorded.lines() {
        let fields = format!(" {}", expected.rsplit('\t').next().unwrap());
        let field = |name: &str| {
            let (_, rest) = fields.split_once(&format!(" {name}="))?;
            let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            let bare = || rest.split(' ').next().unwrap_or(rest);
            Some(quoted.map_or_else(bare, |(value, _)| value).to_owned())
        };
        let line = line(LogFormat::Plain, "info", || record_of(field).emit());
        let after_time = |line: &str| line.split_once('\t').unwrap().1.trim_end().to_owned();
        assert_eq!(after_time(&line), after_time(expected));
        compared += 1;
    }
    assert_eq!(compared, 13);
}

#[test]
fn json_lines_are_those_of_a_real_ztunnel() {
    let _trace = meshwright_testkit::trace();
    for expected in include_str!("../../tests/data/access-a.jsonl").lines() {
        let value: serde_json::Value = serde_json::from_str(expected).unwrap();
        let field = |name: &str| {
            let value = value.get(name)?;
            Some(
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned),
            )
        };
        let line = line(LogFormat::Json, "info", || record_of(field).emit());
        let without_time = |line: &str| {
            let (head, tail) = line.trim_end().split_once("\"time\":\"").unwrap();
            format!("{head}{}", tail.split_once('"').unwrap().1)
        };
        assert_eq!(
            without_time(&line),
            without_time(expected),
            "fields and their order"
        );
    }
}

#[test]
fn opening_is_debug_and_an_early_refusal_is_a_warning() {
    let _trace = meshwright_testkit::trace();
    let from = "10.0.0.1:1".parse().unwrap();
    let to = "10.0.0.2:15008".parse().unwrap();
    let mut record = AccessRecord::new(Reporter::Destination, from, to);
    assert_eq!(line(LogFormat::Plain, "info", || record.opened()), "");
    let opened = line(LogFormat::Plain, "debug", || record.opened());
    assert!(
        opened.ends_with(
            "Z\tdebug\taccess\tconnection opened\tsrc.addr=10.0.0.1:1 dst.addr=10.0.0.2:15008 \
             direction=\"inbound\"\n"
        ),
        "{opened}"
    );
    record.error = Some("tls error: no certificate".into());
    let failed = line(LogFormat::Plain, "info", || record.failed());
    assert!(
        failed.ends_with(
            "Z\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:1 dst.addr=10.0.0.2:15008 \
             direction=\"inbound\" error=\"tls error: no certificate\"\n"
        ),
        "{failed}"
    );
}

#[test]
fn storm_of_failures_is_cut_and_counted_while_clean_ends_are_all_written() {
    let _trace = meshwright_testkit::trace();
    let now = Instant::now();
    let metrics = Arc::new(Metrics::new("ztunnel", "unknown"));
    let log = AccessLog::new(now).counted_by(Arc::clone(&metrics));
    let from = "10.0.0.1:1".parse().unwrap();
    let clean = AccessRecord::new(Reporter::Source, from, from);
    let mut denied = clean.clone();
    denied.error = EndReason::Denied.text("explicitly denied by: n/p");
    let text = line(LogFormat::Plain, "info", || {
        for _ in 0..500 {
            log.complete(&denied, EndReason::Denied, now);
            log.complete(&clean, EndReason::Finished, now);
        }
        log.failed(&denied, EndReason::Denied, now + Duration::from_secs(1));
    });
    assert_eq!(text.matches("\terror\t").count(), 100);
    assert_eq!(text.matches("\tinfo\t").count(), 500);
    assert_eq!(text.matches("\tconnection failed\t").count(), 1);
    assert!(
        text.contains("\tlines were left out\treason=\"denied\" lines=400\n"),
        "{text}"
    );
    let counted = "meshwright_access_lines_suppressed_total{reason=\"denied\"} 400";
    assert!(metrics.encode().contains(counted));
}
