//! The control plane of a world: a process in the switch's namespace.

use std::{fs, path::Path, time::Duration};

use crate::{
    Process, ProcessSpec, Program, Step, World, WorldError, wait::eventually, world::READY,
};

/// File with the root certificate, in the world's folder.
pub(crate) const ROOT: &str = "root.pem";

/// File that says which token is whose.
const TOKENS: &str = "tokens.yaml";

/// Returns the name of the file with a node's token.
pub(crate) fn token_file(node: &str) -> String {
    format!("token-{node}")
}

/// Writes a token for each node, and the file that tells the control plane whose they are.
///
/// The tokens guard nothing: the world has no way in from outside.
pub(crate) fn write_tokens(dir: &Path, nodes: &[String]) -> Result<(), WorldError> {
    let mut list = String::from("tokens:\n");
    for node in nodes {
        let token = format!("the-token-of-{node}-of-this-testbed");
        list.push_str(&format!("- token: {token}\n  node: {node}\n"));
        fs::write(dir.join(token_file(node)), token).step("write a token")?;
    }
    fs::write(dir.join(TOKENS), list).step("write the list of tokens")
}

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
        "--tokens",
        &file(TOKENS),
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
