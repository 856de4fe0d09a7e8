use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::labels::{
    Label, Party, Reporter, ResponseFlag, SecurityPolicy, ServiceLabels, TrafficLabels,
};
use super::super::{Metrics, XdsTermination};
use super::{Establishment, IDLE, SERIES, Traffic};

fn party(workload: &str, service: &str, zone: &str, principal: bool) -> Party {
    let name: Arc<str> = format!("spiffe://cluster.local/ns/default/sa/sa-{service}").into();
    Party {
        workload: workload.into(),
        canonical_service: service.into(),
        canonical_revision: "latest".into(),
        namespace: "default".into(),
        principal: if principal {
            Label::known(&name)
        } else {
            Label::default()
        },
        cluster: "Kubernetes".into(),
        region: "r1".into(),
        zone: zone.into(),
        known: true,
    }
}

/// What happened when the recordings were made, seen by node A.
fn replayed() -> Metrics {
    let metrics = Metrics::new("ztunnel", "unknown");
    for (url, bytes) in [("security.Authorization", 64), ("workload.Address", 568)] {
        for _ in 0..2 {
            metrics
                .xds()
                .received(&format!("type.googleapis.com/istio.{url}"), bytes);
        }
    }
    let a = party("pod-a", "a", "z1", true);
    let b = party("pod-b", "b", "z2", true);
    let service = ServiceLabels {
        host: "b.default.svc.cluster.local".into(),
        namespace: "default".into(),
        name: "b".into(),
    };
    let to_service = TrafficLabels {
        source: a.clone(),
        destination: b.clone(),
        service,
        security: SecurityPolicy::MutualTls,
        ..TrafficLabels::new(Reporter::Source)
    };
    let direct = TrafficLabels {
        service: ServiceLabels::default(),
        ..to_service.clone()
    };
    let outside = TrafficLabels {
        source: party("pod-a", "a", "z1", false),
        ..TrafficLabels::new(Reporter::Source)
    };
    let inbound = TrafficLabels {
        source: b,
        destination: a,
        security: SecurityPolicy::MutualTls,
        ..TrafficLabels::new(Reporter::Destination)
    };
    let series = |labels| metrics.traffic().series(labels);
    for _ in 0..3 {
        let connection = series(&to_service).open();
        connection.moved(74, 1194);
        connection.finish(ResponseFlag::None, Establishment::Established);
    }
    let open = series(&to_service).open();
    open.moved(8, 0);
    std::mem::forget(open);
    for labels in [&direct, &inbound, &outside] {
        let connection = series(labels).open();
        connection.finish(ResponseFlag::Connect, Establishment::Failed);
    }
    for reporter in [Reporter::Source, Reporter::Destination] {
        std::mem::forget(metrics.socket_opened(reporter));
    }
    metrics.proxies().started();
    metrics
}

/// Families that exist in both, as their lines in any order.
fn families(text: &str) -> Vec<(String, Vec<String>)> {
    let mut families: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            families.push((name.to_owned(), Vec::new()));
        }
        if let Some((_, lines)) = families.last_mut() {
            lines.push(line.to_owned());
        }
    }
    for (_, lines) in &mut families {
        lines.retain(|line| line != "# EOF");
        lines.sort_unstable();
    }
    families
}

#[test]
fn same_traffic_gives_the_lines_that_a_real_ztunnel_gave() {
    let _trace = meshwright_testkit::trace();
    let recorded = families(include_str!("../../../tests/data/metrics-a.txt"));
    let text = replayed().encode();
    assert!(text.ends_with("# EOF\n"));
    let ours = families(&text);
    let machine = |name: &str| name.starts_with("process_") || name.starts_with("tokio_");
    for (name, lines) in recorded.iter().filter(|(name, _)| !machine(name)) {
        let same = ours.iter().find(|(own, _)| own == name);
        let (_, own) = same.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(own, lines, "{name}");
    }
    let order = |families: &[(String, Vec<String>)]| -> Vec<String> {
        let known = families.iter().map(|(name, _)| name.clone());
        known
            .filter(|name| !name.starts_with("meshwright_") && !name.starts_with("tokio_"))
            .collect()
    };
    assert_eq!(
        order(&ours),
        order(&recorded),
        "families come in the same order"
    );
}

#[test]
fn limits_and_malformed_requests_are_counted_by_name() {
    let _trace = meshwright_testkit::trace();
    let metrics = Metrics::new("ztunnel", "unknown");
    metrics.limit_reached("half_open");
    metrics.request_refused("method");
    let text = metrics.encode();
    for line in [
        "meshwright_limits_reached_total{limit=\"half_open\"} 1\n",
        "meshwright_requests_refused_total{reason=\"method\"} 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn process_and_worker_metrics_have_the_recorded_heads() {
    let _trace = meshwright_testkit::trace();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let metrics = Metrics::new("ztunnel", "unknown");
    metrics.expose_workers(vec![runtime.handle().clone(), runtime.handle().clone()]);
    let ours = families(&metrics.encode());
    let heads = |lines: &[String]| -> Vec<String> {
        let heads = lines.iter().filter(|line| line.starts_with('#'));
        heads.cloned().collect()
    };
    for (name, lines) in families(include_str!("../../../tests/data/metrics-a.txt")) {
        if name.starts_with("process_") || name.starts_with("tokio_") {
            let own = ours.iter().find(|(own, _)| *own == name);
            let (_, own) = own.unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(heads(own), heads(&lines), "{name}");
            assert_eq!(
                own.len(),
                lines.len(),
                "{name}: as many lines for two workers"
            );
        }
    }
}

#[test]
fn series_that_peers_invent_are_bounded_and_counted_as_overflow() {
    let _trace = meshwright_testkit::trace();
    let metrics = Metrics::new("ztunnel", "unknown");
    for n in 0..20_000 {
        let labels = TrafficLabels {
            source: Party {
                workload: Label::claimed(&format!("w{n}\"\\")),
                ..Party::default()
            },
            ..TrafficLabels::new(Reporter::Destination)
        };
        let connection = metrics.traffic().series(&labels).open();
        connection.finish(ResponseFlag::Deny, Establishment::Failed);
    }
    let text = metrics.encode();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("istio_tcp_"))
        .count();
    assert!(lines <= SERIES, "{lines}");
    let sum: u64 = text
        .lines()
        .filter(|line| line.starts_with("istio_tcp_connections_closed_total"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(sum, 20_000, "every connection is counted somewhere");
    assert!(text.contains("source_workload=\"overflow\""));
    assert!(metrics.traffic().overflowed() > 10_000);
}

#[test]
fn series_without_use_for_ten_minutes_disappear_and_make_room() {
    let _trace = meshwright_testkit::trace();
    let start = Instant::now();
    let traffic = Traffic::new(start);
    let labels = |n: usize| TrafficLabels {
        source: Party {
            workload: format!("w{n}").as_str().into(),
            ..Party::default()
        },
        ..TrafficLabels::new(Reporter::Source)
    };
    let kept = traffic.series_at(&labels(0), start).open();
    for n in 1..5000 {
        let series = traffic.series_at(&labels(n), start);
        let _opened = series.open();
    }
    let before = traffic.shown().len();
    assert!(before > 1000 && traffic.overflowed() > 0, "{before}");
    traffic.expire(start + IDLE - Duration::from_secs(1));
    assert_eq!(traffic.shown().len(), before);
    traffic.expire(start + IDLE + Duration::from_secs(5));
    // The connection that is still open, and the overflow entry.
    assert_eq!(traffic.shown().len(), 2);
    drop(kept);
    let overflowed = traffic.overflowed();
    let _room = traffic.series_at(&labels(9999), start + IDLE);
    assert_eq!(traffic.overflowed(), overflowed, "there is room again");
}

#[test]
fn end_is_counted_once_and_a_dropped_connection_ends_cleanly() {
    let _trace = meshwright_testkit::trace();
    let metrics = Metrics::new("ztunnel", "unknown");
    let series = metrics
        .traffic()
        .series(&TrafficLabels::new(Reporter::Destination));
    let connection = series.open();
    connection.moved(74, 1194);
    assert_eq!(
        connection.sent_and_received(),
        (1194, 74),
        "from the server's own view"
    );
    connection.finish(ResponseFlag::Deny, Establishment::Established);
    connection.finish(ResponseFlag::Connect, Establishment::Failed);
    drop(connection);
    drop(series.open());
    let text = metrics.encode();
    let closed: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("istio_tcp_connections_closed_total"))
        .collect();
    assert_eq!(closed.len(), 2, "{closed:?}");
    assert!(closed.iter().all(|line| line.ends_with("} 1")));
    assert!(!text.contains("istio_tcp_connections_failed_total"));
}

#[test]
fn message_of_a_strange_type_is_counted_under_a_fixed_label() {
    let _trace = meshwright_testkit::trace();
    let metrics = Metrics::new("ztunnel", "unknown");
    for n in 0..100 {
        metrics
            .xds()
            .received(&format!("type.googleapis.com/x{n}"), 1);
    }
    metrics.xds().terminated(XdsTermination::ConnectionError);
    let text = metrics.encode();
    assert!(
        text.contains("istio_xds_message_total{url=\"other\"} 100"),
        "{text}"
    );
    assert!(text.contains("istio_xds_connection_terminations_total{reason=\"ConnectionError\"} 1"));
}
