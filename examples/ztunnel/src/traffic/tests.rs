use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshwright_hbone::Baggage;
use meshwright_identity::SpiffeId;
use meshwright_istio_surface::logging::{Filter, LogFormat, Logging};
use meshwright_redirect::Netns;

use super::Traffic;
use crate::ending::Ending;
use crate::limits::Crowded;
use crate::mesh::PodName;
use crate::pod::Pod;
use crate::testing;
use crate::worker::Kind;

/// What was logged.
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

/// Runs `act` for a pod, and returns the access line and the metrics.
async fn reported(act: impl FnOnce(&Arc<Pod>)) -> (String, String) {
    let (mesh, _rotator) = testing::mesh();
    let name = PodName::new("default", "a", "sa");
    let pod = Pod::for_tests(name, Netns::current().unwrap(), Arc::clone(&mesh));
    let sink = Sink::default();
    let logging = Logging::new(Filter::default(), LogFormat::Plain);
    let (subscriber, control) = logging.build(sink.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || act(&pod));
    control.flush(Duration::from_secs(5)).unwrap();
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    let mut lines = text.lines().filter(|line| line.contains("\taccess\t"));
    let line = lines.next().unwrap_or_default().to_owned();
    assert_eq!(lines.next(), None, "one line for a connection");
    let (_time, line) = line.split_once('\t').unwrap();
    (line.to_owned(), mesh.telemetry.metrics.encode())
}

fn addresses() -> (std::net::SocketAddr, std::net::SocketAddr) {
    (
        "10.0.0.1:4711".parse().unwrap(),
        "10.0.0.2:80".parse().unwrap(),
    )
}

#[tokio::test]
async fn a_connection_that_is_cut_with_its_task_has_its_line_and_its_counts() {
    let _trace = meshwright_testkit::trace();
    let (from, to) = addresses();
    let (line, metrics) = reported(|pod| {
        let mut traffic = Traffic::new(pod, super::Reporter::Source, from, to);
        traffic.is_described = true;
        traffic.count_open().moved(7, 9);
    })
    .await;
    let begin = "error\taccess\tconnection complete\tsrc.addr=10.0.0.1:4711 dst.addr=10.0.0.2:80 \
                 direction=\"outbound\" bytes_sent=7 bytes_recv=9 duration=";
    assert!(line.starts_with(begin), "{line}");
    assert!(
        line.ends_with("error=\"connection closed due to connection drain\""),
        "{line}"
    );
    let is_closed = |line: &str| {
        line.starts_with("istio_tcp_connections_closed_total") && line.contains("CONNECT")
    };
    assert!(metrics.lines().any(is_closed), "{metrics}");
    assert!(
        metrics.contains("istio_tcp_sockets_open{reporter=\"source\"} 0\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_connection_of_which_only_the_addresses_are_known_has_failed() {
    let _trace = meshwright_testkit::trace();
    let (from, to) = addresses();
    let (line, metrics) = reported(|pod| {
        let ending = Ending::Crowded(Crowded::Pod);
        Traffic::refused(pod, Kind::Plain, from, to, &ending);
    })
    .await;
    assert_eq!(
        line,
        "warn\taccess\tconnection failed\tsrc.addr=10.0.0.1:4711 dst.addr=10.0.0.2:80 \
         direction=\"inbound\" error=\"the pod has too many connections\""
    );
    let counted = "meshwright_limits_reached_total{limit=\"pod_connections\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn what_a_stranger_claims_is_a_label_only_while_that_is_switched_on() {
    let _trace = meshwright_testkit::trace();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let (from, to) = addresses();
    let id = SpiffeId::parse("spiffe://cluster.local/ns/real/sa/client").unwrap();
    let mut claims = Baggage::default();
    claims.namespace = Some("victim".into());
    claims.workload_name = Some("victim".into());
    for (switch, workload) in [("true", "victim"), ("false", "unknown")] {
        let (mesh, _rotator) = testing::mesh_with(&[("ENABLE_RESPONSE_BAGGAGE", switch)]);
        let name = PodName::new("default", "a", "sa");
        let pod = Pod::for_tests(name, Netns::current().unwrap(), mesh);
        let mut traffic = Traffic::new(&pod, super::Reporter::Destination, from, to);
        traffic.note_stranger(&id, &claims);
        let super::Count::Labels(labels) = &traffic.count else {
            panic!("it is not counted before it is reported");
        };
        let source = &labels.source;
        assert_eq!(source.workload.as_str(), workload);
        assert_eq!(source.namespace.as_str(), "real", "as the certificate says");
        assert_eq!(source.principal.as_str(), "unknown", "never a claim");
    }
}

#[tokio::test]
async fn a_panic_is_told_from_a_drain() {
    let _trace = meshwright_testkit::trace();
    let (from, to) = addresses();
    let (line, _) = reported(|pod| {
        let act = std::panic::AssertUnwindSafe(|| {
            let _traffic = Traffic::new(pod, super::Reporter::Source, from, to);
            panic!("on purpose");
        });
        std::panic::catch_unwind(act).unwrap_err();
    })
    .await;
    assert!(
        line.ends_with("error=\"the connection's task panicked\""),
        "{line}"
    );
}
