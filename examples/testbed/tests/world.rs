//! What the testbed itself promises: namespaces, cables, apps and the capture, without a mesh.

use std::{
    io::{Read, Write},
    net::Shutdown,
    process::ExitCode,
    time::Duration,
};

use meshwright_testbed::{
    PodSpec, Step, World, WorldError,
    apps::{Behaviour, End, pattern},
    cases,
    client::{self, Reach},
    harness,
};

const SOON: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    harness::main(
        build,
        cases![
            pods_reach_each_other_on_both_families,
            marker_in_plain_text_is_seen_on_the_wire,
            app_sees_who_called,
            late_app_gets_and_gives_every_byte,
            reset_of_an_app_is_seen_as_a_reset,
            reset_of_a_client_is_recorded_as_a_reset,
            stand_in_leads_to_its_backend,
            process_in_a_pod_answers_and_ends_with_its_handle,
            captured_pod_talks_to_the_ports_of_its_proxy,
        ],
    )
}

fn build() -> Result<World, WorldError> {
    World::builder()
        .node("node-1")
        .pod(PodSpec::new("a").on("node-1"))
        .pod(PodSpec::new("b"))
        .build_without_mesh()
}

fn pods_reach_each_other_on_both_families(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let _app = world.app(b, 8080, Behaviour::Echo)?;
    for addr in [b.at(8080), b.at_v6(8080)] {
        let reach = client::echo(a.space(), addr, "hello", SOON);
        assert_eq!(reach, Reach::Answered("hello".into()), "{addr}");
    }
    Ok(())
}

fn marker_in_plain_text_is_seen_on_the_wire(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let _app = world.app(b, 8080, Behaviour::Echo)?;
    let sniffer = world.sniff("marker-of-this-test")?;
    assert_eq!(sniffer.seen()?.marked, 0);
    client::echo(a.space(), b.at(8080), "the marker-of-this-test", SOON);
    let seen = sniffer.seen()?;
    assert_eq!(seen.marked, 2, "once there, once back: {seen:?}");
    assert_eq!(seen.hbone, 0);
    Ok(())
}

fn app_sees_who_called(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let _app = world.app(b, 8082, Behaviour::Who)?;
    let reach = client::listen_to(a.space(), b.at(8082), SOON);
    assert_eq!(reach, Reach::Answered(a.at(0).ip().to_string()));
    Ok(())
}

fn late_app_gets_and_gives_every_byte(world: &World) -> Result<(), WorldError> {
    const BYTES: u64 = 32 << 20;
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let app = world.app(b, 8083, Behaviour::Late)?;
    let stream = a.space().connect(b.at(8083), SOON)?;
    pattern::write(&stream, BYTES).step("send")?;
    stream.shutdown(Shutdown::Write).step("finish")?;
    assert_eq!(pattern::read(&stream).step("receive")?, BYTES);
    let end = world.until("the end of a connection", || app.ends().pop())?;
    assert_eq!((end.end, end.bytes), (End::Fin, BYTES));
    Ok(())
}

fn reset_of_an_app_is_seen_as_a_reset(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let _app = world.app(b, 8084, Behaviour::Reset)?;
    let mut stream = a.space().connect(b.at(8084), SOON)?;
    let mut answer = [0; 7];
    stream.write_all(b"one").step("ask")?;
    stream.read_exact(&mut answer).step("hear")?;
    stream.write_all(b"two").step("ask again")?;
    let outcome = stream.read(&mut answer).map_err(|error| error.kind());
    assert_eq!(outcome, Err(std::io::ErrorKind::ConnectionReset));
    Ok(())
}

fn reset_of_a_client_is_recorded_as_a_reset(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let app = world.app(b, 8085, Behaviour::Record)?;
    let mut stream = a.space().connect(b.at(8085), SOON)?;
    stream.read_exact(&mut [0]).step("hear")?;
    client::reset(stream)?;
    let end = world.until("the end of a connection", || app.ends().pop())?;
    assert_eq!(end.end, End::Reset);
    Ok(())
}

fn stand_in_leads_to_its_backend(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let _app = world.app(b, 8086, Behaviour::Echo)?;
    let vip = "10.96.9.9:80".parse().step("read an address")?;
    world.stand_in(vip, &[b.at(8086)])?;
    let reach = client::echo(a.space(), vip, "hello", SOON);
    assert_eq!(reach, Reach::Answered("hello".into()));
    Ok(())
}

fn process_in_a_pod_answers_and_ends_with_its_handle(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let process = world.app_process(b, &["hello", "[::]:5000", "v1", "b"])?;
    let answer = world.until("an answer", || {
        match client::http(a.space(), b.at(5000), "/hello", SOON) {
            Reach::Answered(text) => Some(text),
            _ => None,
        }
    })?;
    assert_eq!(answer, "Hello version: v1, instance: b\n");
    let pid = process.pid();
    drop(process);
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "a dropped process is gone"
    );
    Ok(())
}

/// The capture alone, with an app in the place of the proxy.
fn captured_pod_talks_to_the_ports_of_its_proxy(world: &World) -> Result<(), WorldError> {
    let (a, b) = (world.pod("a")?, world.pod("b")?);
    let agent = world.node_of(a)?.agent();
    let _target = world.app(b, 8080, Behaviour::Echo)?;
    let _own = world.app(a, 8080, Behaviour::Echo)?;
    let outbound = world.app(a, 15001, Behaviour::Echo)?;
    let inbound = world.app(a, 15006, Behaviour::Echo)?;
    agent.capture(a)?;
    let calls = || -> Result<(), WorldError> {
        for (from, to) in [
            (a, b.at(8080)),
            (a, b.at_v6(8080)),
            (b, a.at(8080)),
            (b, a.at_v6(8080)),
        ] {
            let reach = client::echo(from.space(), to, "hello", SOON);
            assert!(reach.is_answered(), "{} to {to}: {reach}", from.name());
        }
        Ok(())
    };
    calls()?;
    assert_eq!(
        (outbound.accepted(), inbound.accepted()),
        (2, 2),
        "captured"
    );
    agent.release(a)?;
    calls()?;
    assert_eq!(
        (outbound.accepted(), inbound.accepted()),
        (2, 2),
        "released"
    );
    Ok(())
}
