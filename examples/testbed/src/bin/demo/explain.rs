//! The policy of the demo, and why it says no.

use std::sync::Arc;

use meshwright_identity::SpiffeId;
use meshwright_policy::{
    Connection, Explanation, Mode, PolicySet, Subject, convert,
    kubernetes::{from_yaml, translate},
};
use meshwright_testbed::{Pod, SPREAD, Step, WorldError, wait::eventually};
use prost::Message as _;

use crate::{
    mesh::{Mesh, PORT},
    show::Show,
};

/// Lets `sleep` in and nobody else.
pub(crate) const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: only-sleep
  namespace: default
spec:
  selector:
    matchLabels:
      app: helloworld
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/default/sa/sleep]
";

/// Shows what a proxy logged and what the policy engine says about the same connection.
pub(crate) fn show(show: &Show, mesh: &Mesh, marks: &[u64]) -> Result<(), WorldError> {
    let (sleep, notsleep, hello) = (mesh.sleep()?, mesh.notsleep()?, mesh.hello("v1")?);
    show.does("what the proxies logged about a refused call:");
    let (node, error) = eventually("a refusal in an access log", SPREAD, || {
        refusal(mesh, marks, &notsleep.identity())
    })?;
    show.quotes(format!("{node}: {error}"));
    show.proves(
        error.contains("policy") || error.contains("allow"),
        "the refusal is in the access log, with its reason",
    )?;
    show.does("what `explain` says, from the same file and the same code that decides:");
    let no = explain(notsleep, hello)?;
    show.quotes(no.to_string());
    let yes = explain(sleep, hello)?;
    show.proves(
        !no.decision.is_allow() && yes.decision.is_allow(),
        format!(
            "explain agrees: notsleep {}, sleep {}",
            no.decision, yes.decision
        ),
    )
}

/// Finds the access line of a new connection that was refused.
fn refusal(mesh: &Mesh, marks: &[u64], identity: &str) -> Option<(String, String)> {
    mesh.world
        .nodes()
        .iter()
        .zip(marks)
        .find_map(|(node, mark)| {
            let lines = node.proxy().ok()?.access_lines(*mark).ok()?;
            let line = lines.into_iter().find(|line| {
                let error = line.field("error");
                // The connection that was open when the policy came has another reason.
                line.field("src.identity") == identity
                    && line.field("direction") == "inbound"
                    && !error.is_empty()
                    && !error.contains("policy change")
            })?;
            Some((node.name().to_owned(), line.field("error").to_owned()))
        })
}

fn explain(from: &Pod, to: &Pod) -> Result<Explanation, WorldError> {
    let objects = from_yaml(POLICY).step("read the policy")?;
    let translation = translate(&objects, "istio-system").step("translate the policy")?;
    let policies = translation
        .authorizations()
        .iter()
        .map(|resource| {
            let name = format!("{}/{}", resource.namespace, resource.name);
            convert(&name, &resource.encode_to_vec()).step("convert the policy")
        })
        .collect::<Result<Vec<_>, _>>()?;
    let labels = |name: &str| {
        let label = to.spec().labels().iter().find(|(known, _)| known == name);
        label.map(|(_, value)| value.as_str())
    };
    let listed: Vec<Arc<str>> = translation
        .listed_by(to.spec().namespace(), labels)
        .into_iter()
        .map(Arc::from)
        .collect();
    let source: SpiffeId = from.identity().parse().step("read an identity")?;
    let connection = Connection::new(
        Some(&source),
        from.at(0).ip(),
        to.at(PORT),
        Subject::new(to.spec().namespace(), &listed),
    );
    Ok(PolicySet::new(Mode::IstioCompatible, policies).explain(&connection))
}
