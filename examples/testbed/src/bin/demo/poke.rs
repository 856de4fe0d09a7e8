//! How to poke at a mesh that was left running.

use meshwright_testbed::{WorldError, privilege::Privilege};

use crate::{
    mesh::{Mesh, SERVICE},
    show::line,
};

/// Prints commands that work as they are.
pub(crate) fn explain(mesh: &Mesh, privilege: Privilege) -> Result<(), WorldError> {
    let enter = match privilege {
        Privilege::UserNamespace => "nsenter --user --preserve-credentials --net --target",
        _ => "nsenter --net --target",
    };
    let pid = |name: &str| {
        mesh.apps
            .iter()
            .find(|app| app.name() == format!("app-{name}"))
            .map(meshwright_testbed::Process::pid)
            .ok_or_else(|| WorldError::new(format!("find the app of {name}")))
    };
    let proxy = mesh.world.node("node-2")?.proxy()?;
    let proxy_pid = proxy.process().pid();
    let (sleep, notsleep) = (pid("sleep")?, pid("notsleep")?);
    line("\nThe mesh keeps running; Ctrl-C ends it. In another terminal:");
    line(format!(
        "\n  # call as sleep, and as notsleep\n  {enter} {sleep} curl http://{SERVICE}/hello"
    ));
    line(format!(
        "  {enter} {notsleep} curl --max-time 5 http://{SERVICE}/hello"
    ));
    line("\n  # look at a node proxy: everything it knows, its metrics, its readiness");
    line(format!(
        "  {enter} {proxy_pid} curl --silent http://127.0.0.1:15000/config_dump"
    ));
    line(format!(
        "  {enter} {proxy_pid} curl --silent http://127.0.0.1:15020/metrics"
    ));
    line(format!(
        "  {enter} {proxy_pid} curl --silent http://127.0.0.1:15021/healthz/ready"
    ));
    line(format!("  tail -f {}", proxy.process().log().display()));
    line("\n  # change the mesh: the control plane reads this folder again at every change");
    line(format!("  ls {}", mesh.world.manifests().dir().display()));
    line(format!(
        "  rm {}/only-sleep.yaml",
        mesh.world.manifests().dir().display()
    ));
    Ok(())
}
