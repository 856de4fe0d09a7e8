use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::super::{Filter, LogFormat, Logging};
use super::Control;

/// A sink that tests read, and may hold up.
#[derive(Clone, Default)]
struct Sink(Arc<(Mutex<Held>, Condvar)>);

/// What was written, and whether writers wait.
type Held = (Vec<u8>, bool);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().0.clone()).unwrap()
    }

    fn hold(&self, held: bool) {
        self.0.0.lock().unwrap().1 = held;
        self.0.1.notify_all();
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.0.lock().unwrap();
        while inner.1 {
            inner = self.0.1.wait(inner).unwrap();
        }
        inner.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, filter: &str, events: impl FnOnce(&Control, &Sink)) -> String {
    let sink = Sink::default();
    let logging = Logging::new(Filter::parse(filter).unwrap(), format);
    let (subscriber, control) = logging.build(sink.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || events(&control, &sink));
    control.flush(Duration::from_secs(10)).unwrap();
    sink.text()
}

/// The line without its time, which is checked for its shape.
fn after_time(line: &str) -> &str {
    let (time, rest) = line.split_at(27);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{line}");
    rest
}

#[test]
fn plain_line_has_tabs_short_target_spans_and_quoted_strings_only() {
    let text = logged(LogFormat::Plain, "info", |_, _| {
        let span = tracing::info_span!("outbound", id = %"77", peer = tracing::field::Empty);
        let _entered = span.enter();
        span.record("peer", "10.0.0.1:1");
        let addr: std::net::SocketAddr = "10.0.0.2:80".parse().unwrap();
        tracing::info!(target: "ztunnel::proxy::pool", %addr, name = "a\"b", count = 3, "checked out");
    });
    assert_eq!(
        after_time(text.trim_end_matches('\n')),
        "\tinfo\tproxy::pool:outbound{id=77 peer=\"10.0.0.1:1\"}\tchecked out\taddr=10.0.0.2:80 \
         name=\"a\\\"b\" count=3"
    );
}

#[test]
fn line_without_fields_ends_after_its_message() {
    let text = logged(LogFormat::Plain, "info", |_, _| {
        tracing::warn!(target: "meshwright_ztunnel::drain", "draining");
    });
    assert_eq!(
        after_time(text.trim_end_matches('\n')),
        "\twarn\tdrain\tdraining"
    );
}

#[test]
fn json_line_keeps_the_target_and_puts_spans_last() {
    let text = logged(LogFormat::Json, "info", |_, _| {
        let span = tracing::info_span!("inbound", id = %"77", peer = tracing::field::Empty);
        let _entered = span.enter();
        span.record("peer", "x");
        tracing::error!(target: "ztunnel::proxy", bytes = 7, ok = true, error = "a\nb", "failed");
    });
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value["inbound"],
        serde_json::json!({"id": "77", "peer": "x"})
    );
    let (head, tail) = text.split_once(",\"time\":").unwrap();
    assert_eq!(head, "{\"level\":\"error\"");
    assert_eq!(
        tail.split_once(',').unwrap().1,
        "\"scope\":\"ztunnel::proxy\",\"message\":\"failed\",\"bytes\":7,\"ok\":true,\
         \"error\":\"a\\nb\",\"inbound\":{\"id\":\"77\",\"peer\":\"x\"}}\n"
    );
}

#[test]
fn event_with_hostile_text_is_one_short_line_in_both_formats() {
    for format in [LogFormat::Plain, LogFormat::Json] {
        let hostile = "\r\n2026\tinfo\taccess\t\u{1b}[2J\"},{\"".repeat(4000);
        let text = logged(format, "info", |_, _| {
            let span = tracing::info_span!("inbound", peer = %hostile);
            let _entered = span.enter();
            tracing::warn!(a = %hostile, b = hostile.as_str(), c = ?hostile, d = %hostile, "{hostile}");
        });
        assert_eq!(text.matches('\n').count(), 1, "{format:?}");
        assert!(text.len() <= 4096, "{format:?}: {}", text.len());
        assert!(!text.contains(['\r', '\u{1b}']), "{format:?}");
        assert!(
            text.contains("truncated"),
            "{format:?}: what was left out is said"
        );
        if format == LogFormat::Json {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
}

#[test]
fn full_queue_drops_lines_counts_them_and_never_waits() {
    let text = logged(LogFormat::Plain, "info", |control, sink| {
        sink.hold(true);
        for n in 0..25_000 {
            tracing::info!(n, "line");
        }
        assert!(
            control.dropped() >= 25_000 - 10_000 - 200,
            "{}",
            control.dropped()
        );
        sink.hold(false);
    });
    assert!(
        text.contains("log lines were dropped"),
        "the loss is said in the log"
    );
}

#[test]
fn filter_changes_while_running_and_goes_back() {
    let text = logged(LogFormat::Plain, "warn", |control, _| {
        tracing::info!("no");
        control.change(Some("info"), false).unwrap();
        tracing::info!("yes");
        control.change(Some("loud"), false).unwrap_err();
        tracing::info!("still");
        assert_eq!(control.change(None, true).unwrap().as_str(), "warn");
        tracing::info!("no");
    });
    assert_eq!(
        text.matches("yes").count() + text.matches("still").count(),
        2
    );
    assert!(!text.contains("\tno"), "{text}");
}
