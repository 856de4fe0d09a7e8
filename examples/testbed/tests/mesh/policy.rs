//! Who may talk to whom, for new connections and for those that are open.

use std::time::Instant;

use meshwright_testbed::{
    Pod, PodSpec, World, WorldError,
    apps::Behaviour,
    client::{Conversation, Reach},
};

use crate::standard::{
    AT_ONCE, ECHO, Manifest, SOON, assert_reaches, assert_refused, authorization, echo,
};

const ONLY_A1: &str = "\
  selector:
    matchLabels:
      app: b1
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/default/sa/a1]
";

const NOT_A1: &str = "\
  selector:
    matchLabels:
      app: b1
  action: DENY
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/default/sa/a1]
";

const NOBODY: &str = "\
  selector:
    matchLabels:
      app: b1
  action: DENY
  rules:
  - to:
    - operation:
        ports: [\"8080\"]
";

pub(crate) fn allow_lets_in_only_who_is_named(world: &World) -> Result<(), WorldError> {
    let b1 = world.pod("b1")?;
    let _app = world.app(b1, ECHO, Behaviour::Echo)?;
    {
        let _policy = Manifest::policy(world, "only-a1", ONLY_A1)?;
        refused_soon(world, world.pod("a2")?, b1)?;
        assert_reaches(world.pod("a1")?, b1.at(ECHO));
        assert_refused(world.pod("b2")?, b1.at(ECHO));
        assert_refused(world.pod("out")?, b1.at(ECHO));
    }
    answered_soon(world, world.pod("a2")?, b1)
}

pub(crate) fn deny_keeps_out_only_who_is_named(world: &World) -> Result<(), WorldError> {
    let b1 = world.pod("b1")?;
    let _app = world.app(b1, ECHO, Behaviour::Echo)?;
    {
        let _policy = Manifest::policy(world, "not-a1", NOT_A1)?;
        refused_soon(world, world.pod("a1")?, b1)?;
        assert_reaches(world.pod("a2")?, b1.at(ECHO));
        assert_reaches(world.pod("out")?, b1.at(ECHO));
    }
    answered_soon(world, world.pod("a1")?, b1)
}

pub(crate) fn strict_namespace_refuses_plain_text(world: &World) -> Result<(), WorldError> {
    let b2 = world.pod("b2")?;
    let _app = world.app(b2, ECHO, Behaviour::Echo)?;
    assert_reaches(world.pod("out")?, b2.at(ECHO));
    world.manifests().put(
        "strict",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: strict\n  \
         namespace: other\nspec:\n  mtls:\n    mode: STRICT\n",
    )?;
    let refused = refused_soon(world, world.pod("out")?, b2);
    let member = echo(world.pod("a1")?.space(), b2.at(ECHO));
    world.manifests().remove("strict")?;
    refused?;
    assert!(member.is_answered(), "by mutual TLS: {member}");
    answered_soon(world, world.pod("out")?, b2)
}

pub(crate) fn new_deny_ends_a_live_connection_within_a_second(
    world: &World,
) -> Result<(), WorldError> {
    deny_ends_a_live_connection(world, world.pod("a1")?)
}

pub(crate) fn new_deny_ends_a_live_plain_connection_within_a_second(
    world: &World,
) -> Result<(), WorldError> {
    deny_ends_a_live_connection(world, world.pod("out")?)
}

fn deny_ends_a_live_connection(world: &World, from: &Pod) -> Result<(), WorldError> {
    let b1 = world.pod("b1")?;
    let _app = world.app(b1, ECHO, Behaviour::Echo)?;
    let _other = world.app(b1, 8081, Behaviour::Echo)?;
    let mut live = Conversation::open(from.space(), b1.at(ECHO), SOON)?;
    let mut allowed = Conversation::open(from.space(), b1.at(8081), SOON)?;
    {
        let begin = Instant::now();
        let _policy = Manifest::put(world, "nobody", &authorization("nobody", NOBODY))?;
        live.ends(SOON)?;
        let took = begin.elapsed();
        assert!(took < AT_ONCE, "the live connection ended after {took:?}");
        assert_refused(from, b1.at(ECHO));
        allowed.exchange("a connection that the policy does not concern goes on")?;
        world.policy_spread("nobody", true)?;
    }
    answered_soon(world, from, b1)
}

pub(crate) fn change_of_a_workloads_policies_alone_ends_a_live_connection(
    world: &World,
) -> Result<(), WorldError> {
    let (from, b1) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(b1, ECHO, Behaviour::Echo)?;
    let labelled = "\
  selector:
    matchLabels:
      closed: \"yes\"
  action: DENY
  rules:
  - to:
    - operation:
        ports: [\"8080\"]
";
    // The policy is there and selects nobody. Then only the pod's record changes.
    let policy = Manifest::policy(world, "labelled", labelled)?;
    let mut live = Conversation::open(from.space(), b1.at(ECHO), SOON)?;
    live.exchange("not selected yet")?;
    let begin = Instant::now();
    world.relabel(
        b1,
        &PodSpec::new("b1").on("node-2").label("closed", "'yes'"),
    )?;
    let ended = live.ends(SOON);
    let took = begin.elapsed();
    world.relabel(b1, b1.spec())?;
    ended?;
    assert!(took < AT_ONCE, "the live connection ended after {took:?}");
    answered_soon(world, from, b1)?;
    drop(policy);
    Ok(())
}

pub(crate) fn refusal_is_explained_in_the_access_log(world: &World) -> Result<(), WorldError> {
    let (a1, b1) = (world.pod("a1")?, world.pod("b1")?);
    let _app = world.app(b1, ECHO, Behaviour::Echo)?;
    let proxy = world.node_of(b1)?.proxy()?;
    let _policy = Manifest::policy(world, "not-a1", NOT_A1)?;
    refused_soon(world, a1, b1)?;
    let mark = proxy.process().log_mark();
    assert_refused(a1, b1.at(ECHO));
    let line = proxy.access_line(mark, SOON, |line| line.field("direction") == "inbound")?;
    assert_eq!(line.level, "error");
    assert!(
        line.field("error").contains("default/not-a1"),
        "the line names the policy: {line:?}"
    );
    assert_eq!(line.field("src.identity"), a1.identity());
    Ok(())
}

pub(crate) fn removed_workload_is_not_admitted_until_it_is_back(
    world: &World,
) -> Result<(), WorldError> {
    let (a1, b1) = (world.pod("a1")?, world.pod("b1")?);
    let app = world.app(b1, ECHO, Behaviour::Echo)?;
    let uid = b1.workload_uid();
    world.manifests().remove(&World::manifest_of(b1))?;
    let knows = |known: bool| {
        world.everywhere("the removal", |dump| {
            dump.to_string().contains(&uid) == known
        })
    };
    // The proxy still serves the pod, so its state still names it: look at the workloads only.
    let gone = world.everywhere("the removal", |dump| {
        !dump["workloads"].to_string().contains(&uid)
    });
    let before = app.accepted();
    let reaches: Vec<Reach> = ["a1", "out"]
        .into_iter()
        .filter_map(|name| world.pod(name).ok())
        .map(|from| echo(from.space(), b1.at(ECHO)))
        .collect();
    let admitted = app.accepted() - before;
    world.announce(b1, true)?;
    gone?;
    assert_eq!(admitted, 0, "admitted while unknown: {reaches:?}");
    world.settled(b1, true)?;
    knows(true)?;
    answered_soon(world, a1, b1)
}

fn refused_soon(world: &World, from: &Pod, to: &Pod) -> Result<(), WorldError> {
    let what = format!("a refusal of {} by {}", from.name(), to.name());
    world.until(&what, || {
        (echo(from.space(), to.at(ECHO)) == Reach::Refused).then_some(())
    })
}

fn answered_soon(world: &World, from: &Pod, to: &Pod) -> Result<(), WorldError> {
    let what = format!("an answer of {} to {}", to.name(), from.name());
    world.until(&what, || {
        echo(from.space(), to.at(ECHO)).is_answered().then_some(())
    })
}
