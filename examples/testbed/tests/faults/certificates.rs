//! Certificates that live for seconds.

use std::time::{Duration, Instant};

use meshwright_testbed::{
    World, WorldError,
    apps::Behaviour,
    client::{Load, LoadKind, LoadSpec},
    wait::eventually,
};

use crate::standard::ECHO;

/// Lifetime of every certificate of this world.
pub(crate) const TTL: &str = "20s";
/// Least time under load.
const LOADED: Duration = Duration::from_secs(10);
/// By then a certificate of twenty seconds has been replaced.
const ROTATED: Duration = Duration::from_secs(30);

pub(crate) fn short_lived_certificates_rotate_under_load(world: &World) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(to, ECHO, Behaviour::Echo)?;
    let (near, far) = (world.node_of(from)?.proxy()?, world.node_of(to)?.proxy()?);
    let serials = || -> Result<[String; 2], WorldError> {
        Ok([
            near.certificate(&from.identity())?.0,
            far.certificate(&to.identity())?.0,
        ])
    };
    let begin = Instant::now();
    let before = serials()?;
    let spec = LoadSpec::new(to.at(ECHO)).clients(4);
    let kept = Load::start(from.space(), spec)?;
    let fresh = Load::start(from.space(), spec.kind(LoadKind::Connections))?;
    eventually("new certificates at both ends", ROTATED, || {
        let now = serials().ok()?;
        (now[0] != before[0] && now[1] != before[1]).then_some(())
    })?;
    let done = fresh.done();
    eventually("load with the new certificates", ROTATED, || {
        (begin.elapsed() > LOADED && fresh.done() > done + 100).then_some(())
    })?;
    let (kept, fresh) = (kept.finish(), fresh.finish());
    assert_eq!(kept.failed, 0, "kept connections: {:?}", kept.failures);
    assert_eq!(fresh.failed, 0, "new connections: {:?}", fresh.failures);
    Ok(())
}
