//! Who reaches whom, how, and what the app sees of it.

use std::thread;

use meshwright_testbed::{
    Pod, World, WorldError,
    apps::Behaviour,
    client::{self, Reach},
};

use crate::standard::{
    ECHO, MARKER, SOON, WEB, WEB_V6, addr, assert_encrypted, assert_reaches, echo,
};

pub(crate) fn pods_on_two_nodes_talk_by_mutual_tls(world: &World) -> Result<(), WorldError> {
    talk_by_mutual_tls(world, world.pod("a1")?, world.pod("b1")?)
}

pub(crate) fn pods_on_one_node_talk_by_mutual_tls(world: &World) -> Result<(), WorldError> {
    talk_by_mutual_tls(world, world.pod("a1")?, world.pod("a2")?)
}

fn talk_by_mutual_tls(world: &World, from: &Pod, to: &Pod) -> Result<(), WorldError> {
    let app = world.app(to, ECHO, Behaviour::Echo)?;
    for target in [to.at(ECHO), to.at_v6(ECHO)] {
        let sniffer = world.sniff(MARKER)?;
        assert_reaches(from, target);
        assert_encrypted(&sniffer)?;
    }
    assert_eq!(app.accepted(), 2, "each call arrived once");
    Ok(())
}

pub(crate) fn service_address_leads_to_its_pod_by_mutual_tls(
    world: &World,
) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let app = world.app(to, ECHO, Behaviour::Echo)?;
    for target in [WEB, WEB_V6] {
        let sniffer = world.sniff(MARKER)?;
        assert_reaches(from, addr(target)?);
        assert_encrypted(&sniffer)?;
    }
    assert_eq!(app.accepted(), 2, "each call arrived once");
    Ok(())
}

pub(crate) fn pod_of_the_mesh_reaches_a_plain_pod(world: &World) -> Result<(), WorldError> {
    for (name, known) in [("plain", true), ("out", false)] {
        let (from, to) = (world.pod("a1")?, world.pod(name)?);
        let _app = world.app(to, ECHO, Behaviour::Echo)?;
        let sniffer = world.sniff(MARKER)?;
        assert_reaches(from, to.at(ECHO));
        let seen = sniffer.seen()?;
        assert!(seen.marked > 0, "there is nobody to encrypt for: {seen:?}");
        assert_eq!(to.spec().is_known(), known, "{name}");
    }
    Ok(())
}

pub(crate) fn plain_host_reaches_a_pod_of_the_mesh(world: &World) -> Result<(), WorldError> {
    let to = world.pod("b1")?;
    let _app = world.app(to, 8082, Behaviour::Who)?;
    for from in [world.pod("out")?, world.pod("plain")?] {
        for target in [to.at(8082), to.at_v6(8082)] {
            let reach = client::listen_to(from.space(), target, SOON);
            let ip = if target.is_ipv4() {
                from.at(0)
            } else {
                from.at_v6(0)
            }
            .ip();
            assert_eq!(
                reach,
                Reach::Answered(ip.to_string()),
                "from {}",
                from.name()
            );
        }
    }
    Ok(())
}

pub(crate) fn app_sees_the_address_of_the_calling_pod(world: &World) -> Result<(), WorldError> {
    for (from, to) in [("a1", "b1"), ("a1", "a2"), ("b2", "a1")] {
        let (from, to) = (world.pod(from)?, world.pod(to)?);
        let _app = world.app(to, 8082, Behaviour::Who)?;
        for target in [to.at(8082), to.at_v6(8082)] {
            let reach = client::listen_to(from.space(), target, SOON);
            let ip = if target.is_ipv4() {
                from.at(0)
            } else {
                from.at_v6(0)
            }
            .ip();
            assert_eq!(
                reach,
                Reach::Answered(ip.to_string()),
                "{} to {target}",
                from.name()
            );
        }
    }
    Ok(())
}

pub(crate) fn access_log_and_metrics_name_both_identities(world: &World) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(to, ECHO, Behaviour::Echo)?;
    let (near, far) = (world.node_of(from)?.proxy()?, world.node_of(to)?.proxy()?);
    let labels = [
        ("source_principal", from.identity()),
        ("destination_principal", to.identity()),
        ("connection_security_policy", "mutual_tls".to_owned()),
    ];
    for (proxy, direction, reporter) in [
        (&near, "outbound", "source"),
        (&far, "inbound", "destination"),
    ] {
        let mut wanted: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, v.as_str())).collect();
        wanted.push(("reporter", reporter));
        let opened = || {
            proxy
                .metrics()
                .map(|page| page.sum("istio_tcp_connections_opened_total", &wanted))
        };
        let (mark, before) = (proxy.process().log_mark(), opened()?);
        assert_reaches(from, to.at(ECHO));
        let line = proxy.access_line(mark, SOON, |line| {
            line.field("direction") == direction && line.field("dst.workload") == to.name()
        })?;
        assert_eq!(line.message, "connection complete");
        assert_eq!(line.field("src.identity"), from.identity(), "{direction}");
        assert_eq!(line.field("dst.identity"), to.identity(), "{direction}");
        assert_eq!(line.field("dst.hbone_addr"), to.at(ECHO).to_string());
        assert_eq!(line.field("bytes_sent"), MARKER.len().to_string());
        assert_eq!(line.field("bytes_recv"), MARKER.len().to_string());
        world.until("one more connection counted", || {
            (opened().ok()? > before).then_some(())
        })?;
    }
    Ok(())
}

pub(crate) fn pod_reaches_itself_without_the_proxy(world: &World) -> Result<(), WorldError> {
    let pod = world.pod("a1")?;
    let proxy = world.node_of(pod)?.proxy()?;
    let mark = proxy.process().log_mark();
    let app = world.app(pod, ECHO, Behaviour::Echo)?;
    let sniffer = world.sniff(MARKER)?;
    assert_reaches(pod, pod.at(ECHO));
    assert_reaches(pod, addr("127.0.0.1:8080")?);
    let seen = sniffer.seen()?;
    assert_eq!(seen.marked, 0, "nothing leaves the pod: {seen:?}");
    assert_eq!(app.accepted(), 2, "once each");
    let lines = proxy.access_lines(mark)?;
    let through = lines
        .iter()
        .any(|line| line.field("dst.workload") == pod.name());
    assert!(!through, "the proxy has no part in it: {lines:?}");
    Ok(())
}

pub(crate) fn two_hundred_connections_at_once_are_served(world: &World) -> Result<(), WorldError> {
    const CLIENTS: usize = 200;
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let app = world.app(to, ECHO, Behaviour::Echo)?;
    let target = to.at(ECHO);
    let failed = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || echo(from.space(), target)))
            .collect();
        clients
            .into_iter()
            .filter_map(|client| client.join().ok())
            .filter(|reach| !reach.is_answered())
            .count()
    });
    assert_eq!(failed, 0, "of {CLIENTS} connections");
    assert_eq!(app.accepted(), CLIENTS as u64, "each arrived once");
    Ok(())
}

pub(crate) fn pod_that_leaves_the_mesh_is_reached_in_plain_text(
    world: &World,
) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("a2")?);
    let _app = world.app(to, ECHO, Behaviour::Echo)?;
    world.evict(to)?;
    world.settled(to, false)?;
    let sniffer = world.sniff(MARKER)?;
    let reach = echo(from.space(), to.at(ECHO));
    let outside = sniffer.seen()?;
    world.enrol(to)?;
    world.settled(to, true)?;
    assert!(reach.is_answered(), "outside the mesh: {reach}");
    assert!(outside.marked > 0, "outside the mesh: {outside:?}");
    let sniffer = world.sniff(MARKER)?;
    assert_reaches(from, to.at(ECHO));
    assert_encrypted(&sniffer)?;
    Ok(())
}
