//! The control plane goes away and comes back, or is told nonsense.

use meshwright_testbed::{
    Proxy, World, WorldError,
    apps::Behaviour,
    client::{Conversation, Load, LoadKind, LoadSpec},
};

use crate::standard::{ECHO, Manifest, SOON, assert_reaches, authorization};

const HARMLESS: &str = "\
  selector:
    matchLabels:
      app: nobody
  action: DENY
  rules:
  - to:
    - operation:
        ports: [\"1\"]
";

pub(crate) fn restart_loses_no_connection_and_sends_nothing_again(
    world: &World,
) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(to, ECHO, Behaviour::Echo)?;
    let proxy = world.node_of(from)?.proxy()?;
    let mut live = Conversation::open(from.space(), to.at(ECHO), SOON)?;
    let spec = LoadSpec::new(to.at(ECHO))
        .clients(2)
        .kind(LoadKind::Connections);
    let load = Load::start(from.space(), spec)?;
    let (full, breaks) = (received(&proxy)?, terminations(&proxy)?);
    world.kill_control_plane()?;
    world.until("the proxy's notice of the outage", || {
        (terminations(&proxy).ok()? > breaks).then_some(())
    })?;
    live.exchange("during the outage")?;
    assert_reaches(from, to.at(ECHO));
    world.start_control_plane()?;
    // A change that arrives shows that the subscriptions are back.
    let policy = Manifest::policy(world, "after-the-outage", HARMLESS)?;
    let resumed = received(&proxy)? - full;
    live.exchange("after the outage")?;
    let report = load.finish();
    assert_eq!(report.failed, 0, "{:?}", report.failures);
    assert!(
        resumed < full / 4.0,
        "{resumed} bytes after the outage against {full} before: everything was sent again"
    );
    drop(policy);
    Ok(())
}

pub(crate) fn change_during_an_outage_is_applied_after_it(world: &World) -> Result<(), WorldError> {
    let removed = Manifest::policy(world, "removed-meanwhile", HARMLESS)?;
    world.kill_control_plane()?;
    let text = authorization("added-meanwhile", HARMLESS);
    let added = Manifest::put(world, "added-meanwhile", &text)?;
    world.manifests().remove("removed-meanwhile")?;
    world.start_control_plane()?;
    world.policy_spread("added-meanwhile", true)?;
    world.policy_spread("removed-meanwhile", false)?;
    drop((removed, added));
    Ok(())
}

pub(crate) fn malformed_manifest_is_named_and_changes_nothing(
    world: &World,
) -> Result<(), WorldError> {
    let (from, to) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(to, ECHO, Behaviour::Echo)?;
    let _policy = Manifest::policy(world, "stays", HARMLESS)?;
    let mark = world.control_plane_log().map_or(0, |text| text.len());
    world
        .manifests()
        .put("broken", "apiVersion: v1\nkind: [Pod\n")?;
    let named = world.until("the control plane's complaint", || {
        let text = world.control_plane_log().ok()?;
        text.get(mark..)?.contains("broken.yaml").then_some(())
    });
    world.manifests().remove("broken")?;
    named?;
    world.policy_spread("stays", true)?;
    assert_reaches(from, to.at(ECHO));
    let _later = Manifest::policy(world, "later", HARMLESS)?;
    Ok(())
}

fn received(proxy: &Proxy) -> Result<f64, WorldError> {
    Ok(proxy.metrics()?.sum("istio_xds_message_bytes_total", &[]))
}

fn terminations(proxy: &Proxy) -> Result<f64, WorldError> {
    Ok(proxy
        .metrics()?
        .sum("istio_xds_connection_terminations_total", &[]))
}
