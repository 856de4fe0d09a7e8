//! The world that the end-to-end tests share: two nodes, four pods in the mesh, two hosts outside.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{net::SocketAddr, time::Duration};

use meshwright_testbed::{
    Pod, PodSpec, Space, Step, World, WorldBuilder, WorldError,
    client::{self, Reach},
    wire::{Seen, Sniffer},
};

/// Longest wait for an answer that must come.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// Bound of live enforcement.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);
/// Never legible on the wire between pods of the mesh.
pub(crate) const MARKER: &str = "marker-that-nobody-may-read";
/// Port of echo apps.
pub(crate) const ECHO: u16 = 8080;
/// The service `web`, whose only pod is `b1`, on both families.
pub(crate) const WEB: &str = "10.96.0.10:80";
pub(crate) const WEB_V6: &str = "[fd96::10]:80";

const BASE: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: default
---
apiVersion: v1
kind: Namespace
metadata:
  name: other
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: default
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, \"fd96::10\"]
  ipFamilies: [IPv4, IPv6]
  selector:
    app: b1
  ports:
  - name: tcp
    port: 80
    targetPort: 8080
";

/// `a1` and `a2` on node-1, `b1` and `b2` (namespace `other`) on node-2, `plain` known but outside
/// the mesh, `out` unknown to everybody.
pub(crate) fn world() -> WorldBuilder {
    World::builder()
        .node("node-1")
        .node("node-2")
        .pod(PodSpec::new("a1").on("node-1").enrolled())
        .pod(PodSpec::new("a2").on("node-1").enrolled())
        .pod(PodSpec::new("b1").on("node-2").enrolled())
        .pod(
            PodSpec::new("b2")
                .in_namespace("other")
                .on("node-2")
                .enrolled(),
        )
        .pod(PodSpec::new("plain").on("node-2"))
        .pod(PodSpec::new("out").unknown())
        .manifest("base", BASE)
}

/// Builds the world and waits until every proxy knows every pod of the mesh.
pub(crate) fn settled(builder: WorldBuilder) -> Result<World, WorldError> {
    let world = builder.build()?;
    for pod in world.pods().iter().filter(|pod| pod.spec().is_enrolled()) {
        world.settled(pod, true)?;
    }
    Ok(world)
}

/// Reads a literal address.
pub(crate) fn addr(text: &str) -> Result<SocketAddr, WorldError> {
    text.parse::<SocketAddr>().step("read an address")
}

/// Sends the marker and expects it back.
pub(crate) fn echo(from: &Space, to: SocketAddr) -> Reach {
    client::echo(from, to, MARKER, SOON)
}

/// Fails unless the marker comes back.
#[track_caller]
pub(crate) fn assert_reaches(from: &Pod, to: SocketAddr) {
    let reach = echo(from.space(), to);
    assert!(reach.is_answered(), "{} to {to}: {reach}", from.name());
}

/// Fails unless the connection is refused or ended without an answer.
#[track_caller]
pub(crate) fn assert_refused(from: &Pod, to: SocketAddr) {
    let reach = echo(from.space(), to);
    assert_eq!(reach, Reach::Refused, "{} to {to}", from.name());
}

/// Fails if the marker was legible, or if nothing went by HBONE.
#[track_caller]
pub(crate) fn assert_encrypted(sniffer: &Sniffer) -> Result<Seen, WorldError> {
    let seen = sniffer.seen()?;
    assert_eq!(
        seen.marked, 0,
        "the marker was legible on the wire: {seen:?}"
    );
    assert!(seen.hbone > 0, "nothing went by port 15008: {seen:?}");
    Ok(seen)
}

/// A manifest that is there as long as this value.
#[derive(Debug)]
pub(crate) struct Manifest<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Manifest<'a> {
    /// Writes an authorization policy and waits until every proxy has it.
    pub(crate) fn policy(world: &'a World, name: &str, spec: &str) -> Result<Self, WorldError> {
        let manifest = Self::put(world, name, &authorization(name, spec))?;
        world.policy_spread(name, true)?;
        Ok(manifest)
    }

    /// Writes a file.
    pub(crate) fn put(world: &'a World, name: &str, text: &str) -> Result<Self, WorldError> {
        world.manifests().put(name, text)?;
        Ok(Self {
            world,
            name: name.to_owned(),
        })
    }
}

impl Drop for Manifest<'_> {
    fn drop(&mut self) {
        let gone = self
            .world
            .manifests()
            .remove(&self.name)
            .and_then(|()| self.world.policy_spread(&self.name, false));
        if let Err(error) = gone {
            assert!(std::thread::panicking(), "{}", error.chain());
        }
    }
}

/// An `AuthorizationPolicy` in namespace `default`; the specification is indented by two, but for
/// its first line.
pub(crate) fn authorization(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  \
         namespace: default\nspec:\n  {spec}"
    )
}
