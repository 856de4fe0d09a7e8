//! The rows. Each returns what it did, or what was lost.

use std::{
    io::Read as _,
    net::Shutdown,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use meshwright_testbed::{
    Pod, READY, Step, World, WorldError,
    apps::{App, Behaviour, End, pattern},
    client::{self, Load, LoadKind, LoadReport, LoadSpec, Reach},
    wait::eventually,
};
use nix::sys::signal::Signal;

/// Lifetime of certificates in every row.
pub(crate) const TTL: &str = "20s";
const ECHO: u16 = 8080;
const MARKER: &str = "marker-that-nobody-may-read";
const SOON: Duration = Duration::from_secs(10);
/// Descriptors that a proxy may hold more at one moment than at another.
const KEPT: usize = 8;

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) promise: &'static str,
    pub(crate) run: fn(&World, Duration) -> Result<String, WorldError>,
}

pub(crate) const ROWS: [Row; 6] = [
    Row {
        name: "ttl",
        promise: "certificates of 20 s rotate under load: no error",
        run: ttl,
    },
    Row {
        name: "kill",
        promise: "kill -9 of a proxy every 7 s: never plain text, back within 3 s, no leak in its peer",
        run: kill,
    },
    Row {
        name: "replace",
        promise: "rolling replacement of a proxy: no connection lost",
        run: replace,
    },
    Row {
        name: "control-plane",
        promise: "the control plane is killed and restarted: no connection lost",
        run: control_plane,
    },
    Row {
        name: "policy",
        promise: "a DENY comes and goes: live connections end within a second, others never",
        run: policy,
    },
    Row {
        name: "bulk",
        promise: "a gibibyte each way after a half-close of either side, every byte checked",
        run: bulk,
    },
];

fn echo_app(world: &World, pod: &str) -> Result<App, WorldError> {
    world.app(world.pod(pod)?, ECHO, Behaviour::Echo)
}

fn load(world: &World, from: &str, to: &str, kind: LoadKind) -> Result<Load, WorldError> {
    let to = world.pod(to)?.at(ECHO);
    let spec = LoadSpec::new(to).kind(kind).clients(4);
    Load::start(world.pod(from)?.space(), spec)
}

fn flawless(reports: &[LoadReport]) -> Result<String, WorldError> {
    let done: u64 = reports.iter().map(|report| report.done).sum();
    match reports.iter().find(|report| report.failed > 0) {
        None => Ok(format!("{done} exchanges, no error")),
        Some(report) => Err(WorldError::new(format!(
            "keep {} of {} exchanges: {}",
            report.failed,
            report.done + report.failed,
            report.failures.join("; ")
        ))),
    }
}

fn ttl(world: &World, time: Duration) -> Result<String, WorldError> {
    let _app = echo_app(world, "b1")?;
    let (from, node) = (world.pod("a1")?, world.node("node-1")?);
    let kept = load(world, "a1", "b1", LoadKind::Messages)?;
    let fresh = load(world, "a1", "b1", LoadKind::Connections)?;
    let (begin, mut serials) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let (serial, _) = node.proxy()?.certificate(&from.identity())?;
        if serials.last() != Some(&serial) {
            serials.push(serial);
        }
        thread::sleep(Duration::from_millis(200));
    }
    let text = flawless(&[kept.finish(), fresh.finish()])?;
    let least = time.as_secs() / 20;
    if (serials.len() as u64) < least {
        return Err(WorldError::new(format!(
            "rotate at least {least} times, not {}",
            serials.len()
        )));
    }
    Ok(format!("{text}; {} certificates of a1", serials.len()))
}

fn kill(world: &World, time: Duration) -> Result<String, WorldError> {
    let _app = echo_app(world, "b1")?;
    let (from, to, node) = (world.pod("a1")?, world.pod("b1")?, world.node("node-2")?);
    let peer = world.node("node-1")?.proxy()?;
    let sniffer = world.sniff(MARKER)?;
    let (begin, mut kills, mut worst) = (Instant::now(), 0, Duration::ZERO);
    let mut descriptors = Vec::new();
    while begin.elapsed() < time {
        let cycle = Instant::now();
        node.proxy()?.process().kill()?;
        let reach = client::echo(from.space(), to.at(ECHO), MARKER, SOON);
        if reach.is_answered() {
            return Err(WorldError::new(format!(
                "fail closed without a proxy: {reach}"
            )));
        }
        let restarted = Instant::now();
        world.start_proxy(node)?.ready(READY)?;
        eventually("an answer after a restart", SOON, || answered(from, to))?;
        worst = worst.max(restarted.elapsed());
        descriptors.push(peer.process().descriptors()?);
        kills += 1;
        while cycle.elapsed() < Duration::from_secs(7) {
            answered(from, to).ok_or_else(|| WorldError::new("be answered between kills"))?;
            thread::sleep(Duration::from_millis(20));
        }
    }
    let seen = sniffer.seen()?;
    if seen.marked > 0 || worst > Duration::from_secs(3) {
        return Err(WorldError::new(format!(
            "stay private and quick: {} legible frames, back after {worst:?}",
            seen.marked
        )));
    }
    // The first kill is after the first connection: from then on it holds as much as before.
    let (first, last) = (descriptors.first(), descriptors.last());
    if last > first.map(|count| count + KEPT).as_ref() {
        return Err(WorldError::new(format!(
            "let go of lost connections: descriptors of the peer {descriptors:?}"
        )));
    }
    Ok(format!(
        "{kills} kills, back after at most {worst:.1?}, 0 of {} frames legible, descriptors of the peer {descriptors:?}",
        seen.frames
    ))
}

fn replace(world: &World, time: Duration) -> Result<String, WorldError> {
    let _served = echo_app(world, "b1")?;
    let _peer = echo_app(world, "a1")?;
    let node = world.node("node-2")?;
    let inbound = load(world, "a1", "b1", LoadKind::Connections)?;
    let outbound = load(world, "b1", "a1", LoadKind::Connections)?;
    // The one is free again when the proxy in the other has taken over.
    let outposts = [world.outpost("even")?, world.outpost("odd")?];
    let (begin, mut replaced) = (Instant::now(), 0);
    for outpost in outposts.iter().cycle() {
        if begin.elapsed() >= time {
            break;
        }
        let name = format!("next-{replaced}");
        let spec = world.proxy_spec(node, &name);
        let next = Arc::new(world.launch(outpost, &spec)?);
        next.ready(READY)?;
        if let Some(old) = node.replace_proxy(Some(next)) {
            old.process().signal(Signal::SIGTERM)?;
            old.process().wait(Duration::from_secs(15))?;
        }
        replaced += 1;
    }
    let text = flawless(&[inbound.finish(), outbound.finish()])?;
    Ok(format!("{text}; {replaced} replacements"))
}

fn control_plane(world: &World, time: Duration) -> Result<String, WorldError> {
    let _app = echo_app(world, "b1")?;
    let kept = load(world, "a1", "b1", LoadKind::Messages)?;
    let fresh = load(world, "a1", "b1", LoadKind::Connections)?;
    let (begin, mut restarts) = (Instant::now(), 0);
    while begin.elapsed() < time {
        world.kill_control_plane()?;
        thread::sleep(Duration::from_secs(2));
        world.start_control_plane()?;
        thread::sleep(Duration::from_secs(5));
        restarts += 1;
    }
    let text = flawless(&[kept.finish(), fresh.finish()])?;
    Ok(format!("{text}; {restarts} restarts"))
}

const DENY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-a2, namespace: default}
spec:
  selector: {matchLabels: {app: b1}}
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/a2]}}]
";

fn policy(world: &World, time: Duration) -> Result<String, WorldError> {
    let _app = echo_app(world, "b1")?;
    let (denied, to) = (world.pod("a2")?, world.pod("b1")?);
    let innocent = load(world, "a1", "b1", LoadKind::Messages)?;
    let fresh = load(world, "a1", "b1", LoadKind::Connections)?;
    let (begin, mut flips, mut worst) = (Instant::now(), 0, Duration::ZERO);
    while begin.elapsed() < time {
        eventually("an answer without the policy", SOON, || {
            answered(denied, to)
        })?;
        let mut live = client::Conversation::open(denied.space(), to.at(ECHO), SOON)?;
        let put = Instant::now();
        world.manifests().put("not-a2", DENY)?;
        live.ends(SOON)?;
        worst = worst.max(put.elapsed());
        let reach = client::echo(denied.space(), to.at(ECHO), MARKER, SOON);
        if reach != Reach::Refused {
            return Err(WorldError::new(format!(
                "refuse a2 after the policy: {reach}"
            )));
        }
        world.manifests().remove("not-a2")?;
        flips += 1;
    }
    let text = flawless(&[innocent.finish(), fresh.finish()])?;
    if worst > Duration::from_secs(1) {
        return Err(WorldError::new(format!(
            "end a connection in a second: {worst:?}"
        )));
    }
    Ok(format!(
        "{text}; {flips} times on and off, at most {worst:.0?}"
    ))
}

fn bulk(world: &World, time: Duration) -> Result<String, WorldError> {
    let to = world.pod("b1")?;
    let late = world.app(to, 8083, Behaviour::Late)?;
    let early = world.app(to, 8084, Behaviour::Early)?;
    let connect = |port| world.pod("a1")?.space().connect(to.at(port), 3 * SOON);
    let (begin, mut rounds) = (Instant::now(), 0);
    while begin.elapsed() < time {
        let stream = connect(8083)?;
        pattern::write(&stream, GIBIBYTE).step("send a gibibyte")?;
        stream.shutdown(Shutdown::Write).step("finish")?;
        let received = pattern::read(&stream).step("receive a gibibyte after finishing")?;
        whole(received)?;
        whole(arrived(world, &late, rounds)?)?;

        let mut stream = connect(8084)?;
        let mut said = String::new();
        stream
            .read_to_string(&mut said)
            .step("hear the server finish")?;
        pattern::write(&stream, GIBIBYTE).step("send a gibibyte to a server that finished")?;
        stream.shutdown(Shutdown::Write).step("finish")?;
        whole(arrived(world, &early, rounds)?)?;
        rounds += 1;
    }
    Ok(format!("{} GiB, every byte right", 3 * rounds))
}

const GIBIBYTE: u64 = 1 << 30;

fn whole(bytes: u64) -> Result<(), WorldError> {
    match bytes {
        GIBIBYTE => Ok(()),
        _ => Err(WorldError::new(format!(
            "move a gibibyte, not {bytes} bytes"
        ))),
    }
}

/// What an app received by a connection, counted from 0, that ended as it should.
fn arrived(world: &World, app: &App, connection: usize) -> Result<u64, WorldError> {
    let ended = world.until("the end of a connection", || {
        app.ends().into_iter().nth(connection)
    })?;
    match ended.end {
        End::Fin => Ok(ended.bytes),
        other => Err(WorldError::new(format!("end with a FIN, not {other:?}"))),
    }
}

fn answered(from: &Pod, to: &Pod) -> Option<()> {
    client::echo(from.space(), to.at(ECHO), MARKER, SOON)
        .is_answered()
        .then_some(())
}
