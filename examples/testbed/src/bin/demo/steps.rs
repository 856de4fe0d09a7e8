//! The steps of the demo. Each says what it does and proves it from outside.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    time::{Duration, Instant},
};

use meshwright_testbed::{
    Pod, SPREAD, Step, WorldError,
    client::{HttpConversation, Load, LoadKind, LoadSpec, Reach, Talk},
    privilege::Privilege,
    wait::eventually,
};

use crate::{
    explain,
    figures::{self, Figures},
    mesh::{Mesh, PORT, SERVICE, TTL},
    show::Show,
};

/// A word that must never be seen on the wire once the pods are in the mesh.
const MARKER: &str = "the-cat-is-in-the-bag";
/// Least calls in a step.
const CALLS: u64 = 10;
/// Most calls in a step: each goes to one of two versions at random.
const MOST_CALLS: u64 = 60;

/// What the plain text step leaves for later ones.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) open: HttpConversation,
    pub(crate) figures: Figures,
}

/// Builds the mesh around pods that are not in it.
pub(crate) fn build(
    show: &mut Show,
    keep_files: bool,
    privilege: Privilege,
) -> Result<Mesh, WorldError> {
    show.step("Build two nodes, four pods and a control plane in network namespaces");
    show.does(match privilege {
        Privilege::UserNamespace => "not root: in a user namespace of our own",
        _ => "as root; no name, file or interface outside the namespaces is touched",
    });
    let mesh = Mesh::build(keep_files)?;
    for pod in mesh.world.pods() {
        show.quotes(format!(
            "{:<14} {:<12} on {}   {}",
            pod.name(),
            pod.at(0).ip().to_string(),
            pod.spec().node().unwrap_or("no node"),
            pod.identity(),
        ));
    }
    show.quotes(format!(
        "service helloworld.default.svc.cluster.local is {SERVICE}"
    ));
    show.does(format!("calls are made with {}", mesh.caller.name()));
    for node in mesh.world.nodes() {
        let proxy = node.proxy()?;
        show.proves(
            proxy.readiness()?.status == 200,
            format!(
                "the proxy of {} (process {}) is ready",
                node.name(),
                proxy.process().pid()
            ),
        )?;
    }
    Ok(mesh)
}

/// Calls in plain text, and sees the marker on the wire.
pub(crate) fn plaintext(show: &mut Show, mesh: &Mesh) -> Result<Before, WorldError> {
    show.step("Before: sleep calls helloworld without a mesh, in plain text");
    let wire = mesh.world.sniff(MARKER)?;
    calls(show, mesh, mesh.sleep()?)?;
    let seen = wire.seen()?;
    show.proves(
        seen.marked >= CALLS,
        format!(
            "the wire shows `{MARKER}` in {} of {} frames",
            seen.marked, seen.frames
        ),
    )?;
    show.proves(seen.hbone == 0, "no frame to or from port 15008")?;
    drop(wire);
    let figures = figures::measure(mesh)?;
    let target = mesh.hello("v1")?.at(PORT);
    let mut open = HttpConversation::open(mesh.sleep()?.space(), target, SPREAD)?;
    open.get("/hello")?;
    show.does(format!(
        "sleep keeps a connection to helloworld-v1 open: {}",
        local(open.stream())
    ));
    Ok(Before { open, figures })
}

/// Takes the running pods into the mesh, without restarting anything.
pub(crate) fn enrolment(
    show: &mut Show,
    mesh: &Mesh,
    mut open: HttpConversation,
) -> Result<(), WorldError> {
    show.step("Take the running pods into the mesh");
    let pids = mesh.pids();
    for pod in mesh.world.pods() {
        let begin = Instant::now();
        mesh.world.enrol(pod)?;
        show.does(format!(
            "{} handed over and captured in {:.1?}",
            pod.name(),
            begin.elapsed()
        ));
    }
    for pod in mesh.world.pods() {
        mesh.world.settled(pod, true)?;
    }
    show.proves(
        pids.len() == mesh.apps.len() && pids == mesh.pids(),
        format!("no app was restarted: processes {pids:?}"),
    )?;
    let wire = mesh.world.sniff(MARKER)?;
    open.get(&format!("/hello?{MARKER}"))?;
    show.proves(
        wire.seen()?.marked > 0,
        format!(
            "the connection opened before ({}) still works, still outside the mesh",
            local(open.stream())
        ),
    )
}

/// Calls again: the same answer, and nothing to read on the wire.
pub(crate) fn encrypted(show: &mut Show, mesh: &Mesh) -> Result<Figures, WorldError> {
    show.step("After: the same calls, by mutual TLS");
    let sleep = mesh.sleep()?;
    let marks = log_marks(mesh)?;
    let wire = mesh.world.sniff(MARKER)?;
    calls(show, mesh, sleep)?;
    let seen = wire.seen()?;
    show.proves(
        seen.marked == 0 && seen.frames > 0,
        format!(
            "the wire shows `{MARKER}` in none of {} frames",
            seen.frames
        ),
    )?;
    show.proves(
        seen.hbone > 0,
        format!("{} frames to or from port 15008", seen.hbone),
    )?;
    identities(show, mesh, &marks)?;
    drop(wire);
    figures::measure(mesh)
}

fn identities(show: &Show, mesh: &Mesh, marks: &[u64]) -> Result<(), WorldError> {
    let (sleep, hello) = (mesh.sleep()?, mesh.hello("v1")?);
    for (node, mark) in mesh.world.nodes().iter().zip(marks) {
        if Some(node.name()) != hello.spec().node() {
            continue;
        }
        let proxy = node.proxy()?;
        let line = proxy.access_line(*mark, SPREAD, |line| {
            line.field("direction") == "inbound" && line.field("dst.workload") == hello.name()
        })?;
        show.does(format!("the access log of {}:", node.name()));
        show.quotes(format!(
            "src.addr={} src.identity={}\ndst.hbone_addr={} dst.identity={}",
            line.field("src.addr"),
            line.field("src.identity"),
            line.field("dst.hbone_addr"),
            line.field("dst.identity"),
        ));
        show.proves(
            line.field("src.identity") == sleep.identity()
                && line.field("dst.identity") == hello.identity(),
            "both ends proved their SPIFFE identities with certificates",
        )?;
        show.proves(
            line.field("src.addr")
                .starts_with(&sleep.at(0).ip().to_string()),
            "the source address is the pod's own",
        )?;
    }
    Ok(())
}

/// Lets `sleep` in and keeps `notsleep` out.
pub(crate) fn policy(show: &mut Show, mesh: &Mesh) -> Result<(), WorldError> {
    show.step("A policy: only sleep may call helloworld");
    let (sleep, notsleep) = (mesh.sleep()?, mesh.notsleep()?);
    let hello = mesh.hello("v1")?;
    let reach = mesh.call(notsleep, "/hello")?;
    show.proves(
        reach.is_answered(),
        format!("without the policy notsleep is {reach}"),
    )?;
    let mut live = HttpConversation::open(notsleep.space(), hello.at(PORT), SPREAD)?;
    live.get("/hello")?;
    let marks = log_marks(mesh)?;
    let begin = Instant::now();
    mesh.world.manifests().put("only-sleep", explain::POLICY)?;
    show.quotes(explain::POLICY.trim_end());
    live.ends(SPREAD)?;
    show.proves(
        begin.elapsed() < Duration::from_secs(2),
        format!(
            "notsleep's open connection was ended {:.0?} after the file was written",
            begin.elapsed()
        ),
    )?;
    let reach = eventually("the policy at work", SPREAD, || {
        mesh.call(notsleep, "/hello")
            .ok()
            .filter(|reach| *reach == Reach::Refused)
    })?;
    show.proves(reach == Reach::Refused, format!("notsleep is {reach}"))?;
    let reach = mesh.call(sleep, "/hello")?;
    show.proves(reach.is_answered(), format!("sleep is {reach}"))?;
    explain::show(show, mesh, &marks)
}

/// Waits for new certificates while calls go on.
pub(crate) fn rotation(show: &mut Show, mesh: &Mesh) -> Result<(), WorldError> {
    show.step(&format!(
        "Certificates live {TTL}: rotate them under traffic"
    ));
    let (sleep, hello) = (mesh.sleep()?, mesh.hello("v1")?);
    let node = |pod: &Pod| mesh.world.node_of(pod).and_then(|node| node.proxy());
    let (outbound, inbound) = (node(sleep)?, node(hello)?);
    let serials = || {
        Ok::<_, WorldError>((
            outbound.certificate(&sleep.identity())?.0,
            inbound.certificate(&hello.identity())?.0,
        ))
    };
    let before = serials()?;
    let spec = LoadSpec::new(hello.at(PORT)).talk(Talk::Http).clients(2);
    let kept = Load::start(sleep.space(), spec)?;
    let fresh = Load::start(sleep.space(), spec.kind(LoadKind::Connections))?;
    let after = eventually("a rotation at both ends", Duration::from_secs(45), || {
        let now = serials().ok()?;
        (now.0 != before.0 && now.1 != before.1).then_some(now)
    })?;
    let (kept_done, fresh_done) = (kept.done(), fresh.done());
    eventually("calls after the rotation", SPREAD, || {
        (kept.done() > kept_done + 100 && fresh.done() > fresh_done + 100).then_some(())
    })?;
    let (kept, fresh) = (kept.finish(), fresh.finish());
    show.quotes(format!("sleep       serial {} → {}", before.0, after.0));
    show.quotes(format!("helloworld  serial {} → {}", before.1, after.1));
    show.proves(
        kept.failed + fresh.failed == 0,
        format!(
            "{} requests on kept connections and {} new connections, no error{}",
            kept.done,
            fresh.done,
            kept.failures
                .iter()
                .chain(&fresh.failures)
                .fold(String::new(), |all, one| all + "; " + one)
        ),
    )
}

fn calls(show: &Show, mesh: &Mesh, from: &Pod) -> Result<(), WorldError> {
    let mut versions = BTreeSet::new();
    let mut done = 0;
    while done < CALLS || (versions.len() < 2 && done < MOST_CALLS) {
        match mesh.call(from, &format!("/hello?{MARKER}"))? {
            Reach::Answered(text) => versions.insert(text.trim_end().to_owned()),
            other => return show.proves(false, format!("{} is {other}", from.name())),
        };
        done += 1;
    }
    let first = versions.first().map(String::as_str).unwrap_or_default();
    show.does(format!(
        "{} calls http://{SERVICE}/hello {done} times: `{first}`",
        from.name()
    ));
    show.proves(
        versions.len() == 2,
        format!(
            "both versions of helloworld answered, on two nodes: {}",
            versions.len()
        ),
    )
}

fn log_marks(mesh: &Mesh) -> Result<Vec<u64>, WorldError> {
    mesh.world
        .nodes()
        .iter()
        .map(|node| Ok(node.proxy()?.process().log_mark()))
        .collect()
}

fn local(stream: &TcpStream) -> String {
    stream
        .local_addr()
        .step("read a local address")
        .map_or_else(|error| error.to_string(), |addr| addr.to_string())
}
