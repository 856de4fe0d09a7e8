//! Node proxies that are killed, replaced or asked to end; pods that come while they talk.

use std::{sync::Arc, time::Duration};

use meshwright_testbed::{
    READY, World, WorldError,
    apps::Behaviour,
    client::{Conversation, Load, LoadKind, LoadSpec, Reach},
    wait::eventually,
};
use nix::sys::signal::Signal;

use crate::standard::{ECHO, MARKER, SOON, assert_encrypted, assert_reaches, echo};

/// The drain of the proxies of this world, and a little.
const GRACE: Duration = Duration::from_secs(14);
/// Several of the proxy's attempts to serve a pod that could not be served.
const RETRIED: Duration = Duration::from_secs(20);
/// Port of tunnels.
const HBONE: u16 = 15008;

pub(crate) fn killed_proxy_fails_closed_and_comes_back(world: &World) -> Result<(), WorldError> {
    let (a1, b1, out) = (world.pod("a1")?, world.pod("b1")?, world.pod("out")?);
    let served = world.app(b1, ECHO, Behaviour::Echo)?;
    let _peer = world.app(a1, ECHO, Behaviour::Echo)?;
    let node = world.node_of(b1)?;
    let mut live = Conversation::open(a1.space(), b1.at(ECHO), SOON)?;
    let mut plainly = Conversation::open(out.space(), b1.at(ECHO), SOON)?;
    let before = served.accepted();
    let sniffer = world.sniff(MARKER)?;
    node.proxy()?.process().kill()?;
    let (_after, end) = plainly.ends(SOON)?;
    assert_eq!(
        end,
        std::io::ErrorKind::ConnectionReset,
        "nobody takes what a killed proxy cut off for complete"
    );
    let inbound = echo(a1.space(), b1.at(ECHO));
    let plain = echo(out.space(), b1.at(ECHO));
    let outbound = echo(b1.space(), a1.at(ECHO));
    let lost = live.exchange(MARKER);
    let seen = sniffer.seen()?;
    world.start_proxy(node)?.ready(READY)?;
    for (what, reach) in [
        ("to the pod", inbound),
        ("plain", plain),
        ("from the pod", outbound),
    ] {
        assert!(!reach.is_answered(), "{what}, without a proxy: {reach}");
    }
    assert!(
        lost.is_err(),
        "a connection through the killed proxy is over"
    );
    assert_eq!(
        seen.marked, 0,
        "nothing went round the proxy in plain text: {seen:?}"
    );
    assert_eq!(served.accepted(), before, "nothing was admitted");
    eventually("an answer after the restart", SOON, || {
        echo(a1.space(), b1.at(ECHO)).is_answered().then_some(())
    })?;
    let sniffer = world.sniff(MARKER)?;
    assert_reaches(b1, a1.at(ECHO));
    assert_encrypted(&sniffer)?;
    Ok(())
}

pub(crate) fn replaced_proxy_loses_no_connection(world: &World) -> Result<(), WorldError> {
    let (a1, b1, out) = (world.pod("a1")?, world.pod("b1")?, world.pod("out")?);
    let _served = world.app(b1, ECHO, Behaviour::Echo)?;
    let _peer = world.app(a1, ECHO, Behaviour::Echo)?;
    let node = world.node_of(b1)?;
    let mut live = Conversation::open(a1.space(), b1.at(ECHO), SOON)?;
    let load = |from: &meshwright_testbed::Pod, to: &meshwright_testbed::Pod| {
        let spec = LoadSpec::new(to.at(ECHO)).kind(LoadKind::Connections);
        Load::start(from.space(), spec.clients(2))
    };
    let loads = [load(a1, b1)?, load(out, b1)?, load(b1, a1)?];
    let spec = world.proxy_spec(node, "ztunnel-node-2-next");
    let space = world.outpost("node-2-next")?;
    let next = Arc::new(world.launch(&space, &spec)?);
    next.ready(READY)?;
    let old = node
        .replace_proxy(Some(next))
        .ok_or_else(|| WorldError::new("find the old proxy"))?;
    old.process().signal(Signal::SIGTERM)?;
    live.exchange("an open connection goes on while the old proxy drains")?;
    let done: Vec<u64> = loads.iter().map(Load::done).collect();
    eventually("traffic through the new proxy", SOON, || {
        let moved = loads
            .iter()
            .zip(&done)
            .all(|(load, done)| load.done() > done + 50);
        moved.then_some(())
    })?;
    live.exchange("still")?;
    drop(live);
    let status = old.process().wait(GRACE)?;
    for (load, way) in loads.into_iter().zip(["mesh", "plain", "outbound"]) {
        let report = load.finish();
        assert_eq!(
            report.failed, 0,
            "{way}: of {} connections: {:?}",
            report.done, report.failures
        );
    }
    assert!(status.success(), "the old proxy ended with {status}");
    Ok(())
}

pub(crate) fn proxy_that_is_asked_twice_to_end_ends(world: &World) -> Result<(), WorldError> {
    let node = world.node("node-1")?;
    let proxy = node.proxy()?;
    proxy.process().signal(Signal::SIGTERM)?;
    proxy.process().signal(Signal::SIGTERM)?;
    let ended = proxy.process().wait(GRACE);
    let next = world.start_proxy(node)?;
    next.process().signal(Signal::SIGTERM)?;
    let during_start = next.process().wait(GRACE);
    world.start_proxy(node)?.ready(READY)?;
    ended?;
    during_start?;
    let (a1, b1) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(b1, ECHO, Behaviour::Echo)?;
    eventually("an answer after the restart", SOON, || {
        echo(a1.space(), b1.at(ECHO)).is_answered().then_some(())
    })
}

pub(crate) fn enrolment_leaves_open_connections_alone(world: &World) -> Result<(), WorldError> {
    let (a1, plain) = (world.pod("a1")?, world.pod("plain")?);
    let out = world.pod("out")?;
    let _served = world.app(plain, ECHO, Behaviour::Echo)?;
    let _other = world.app(out, ECHO, Behaviour::Echo)?;
    let mut inbound = Conversation::open(out.space(), plain.at(ECHO), SOON)?;
    let mut outbound = Conversation::open(plain.space(), out.at(ECHO), SOON)?;
    world.enrol(plain)?;
    let outcome = world.settled(plain, true).and_then(|()| {
        inbound.exchange("opened before the pod was in the mesh")?;
        outbound.exchange("opened before the pod was in the mesh")?;
        let sniffer = world.sniff(MARKER)?;
        assert_reaches(a1, plain.at(ECHO));
        assert_encrypted(&sniffer)
    });
    world.evict(plain)?;
    world.settled(plain, false)?;
    outcome?;
    let reach = echo(a1.space(), plain.at(ECHO));
    assert!(
        matches!(reach, Reach::Answered(_)),
        "outside again: {reach}"
    );
    Ok(())
}

pub(crate) fn pod_whose_port_is_taken_waits_and_harms_nobody(
    world: &World,
) -> Result<(), WorldError> {
    let (a1, b1, plain) = (world.pod("a1")?, world.pod("b1")?, world.pod("plain")?);
    let _served = world.app(b1, ECHO, Behaviour::Echo)?;
    let node = world.node_of(plain)?;
    let proxy = node.proxy()?;
    let squatter = world.app(plain, HBONE, Behaviour::Echo)?;
    let answer = node.agent().hand_over(plain);
    let shown = proxy.shows("the waiting pod", SOON, |dump| {
        let pods = dump["workloadState"].as_object();
        let mut pods = pods.into_iter().flatten();
        pods.any(|(_, pod)| {
            let is = |field, text| pod.pointer(field).is_some_and(|value| value == text);
            is("/state", "Pending") && is("/info/name", plain.name())
        })
    });
    let waiting = proxy.readiness()?;
    let neighbour = echo(a1.space(), b1.at(ECHO));
    drop(squatter);
    let outcome = eventually("the pod to be served", RETRIED, || {
        (proxy.readiness().ok()?.status == 200).then_some(())
    });
    let listening = plain.space().connect(plain.at(HBONE), SOON);
    node.agent().take_back(plain)?;
    outcome?;
    listening?;
    let refusal = answer.map_or_else(|error| error.chain(), |()| "accepted".to_owned());
    assert!(refusal.contains("15008"), "the agent is told: {refusal}");
    assert_eq!(waiting.status, 500, "{}", waiting.body);
    shown?;
    assert!(neighbour.is_answered(), "another pod: {neighbour}");
    Ok(())
}
