//! The control plane of a world: a process in the switch's namespace.

use std::time::Duration;

use crate::{Process, ProcessSpec, Program, World, WorldError, wait::eventually, world::READY};

/// File with the root certificate, in the world's folder.
pub(crate) const ROOT: &str = "root.pem";

/// Starts the control plane and waits until it accepts connections.
///
/// Its certificate authority is kept in the world's folder, so a restart has the same root.
pub(crate) fn start(world: &World) -> Result<Process, WorldError> {
    let file = |name: &str| world.dir().join(name).to_string_lossy().into_owned();
    let spec = ProcessSpec::new(Program::ControlPlane, "control-plane").args([
        "--manifests",
        &world.manifests().dir().to_string_lossy(),
        "--listen",
        &world.control_plane_addr().to_string(),
        "--development",
        "--ca-dir",
        &file("ca"),
        "--write-root",
        &file(ROOT),
        "--poll",
        "50ms",
    ]);
    let process = Process::start(world.launcher(), world.switch(), world.dir(), &spec)?;
    let addr = world.control_plane_addr();
    let served = eventually("the control plane's first connection", READY, || {
        if process.ended().is_some() {
            return Some(false);
        }
        world
            .switch()
            .connect(addr, Duration::from_secs(1))
            .is_ok()
            .then_some(true)
    });
    let written = world.dir().join(ROOT).exists();
    match served {
        Ok(true) if written => Ok(process),
        _ => Err(WorldError::new(format!(
            "start the control plane: {}",
            process.tail()
        ))),
    }
}
