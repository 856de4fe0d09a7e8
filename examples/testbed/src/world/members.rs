//! Who is in the mesh: pods enrolled and evicted, and what the proxies know of it.

use super::{SPREAD, World};
use crate::{Pod, PodSpec, WorldError, manifests};

impl World {
    /// Takes a running pod into the mesh: hands it to the node's proxy, then captures its traffic,
    /// then tells the control plane. Nothing in the pod is restarted.
    ///
    /// # Errors
    ///
    /// Fails when the proxy refuses the pod or the rules cannot be applied.
    pub fn enrol(&self, pod: &Pod) -> Result<(), WorldError> {
        self.node_of(pod)?.agent.enrol(pod)?;
        self.announce(pod, true)
    }

    /// Takes a pod out of the mesh, in the reverse order.
    ///
    /// # Errors
    ///
    /// Fails when the rules cannot be removed.
    pub fn evict(&self, pod: &Pod) -> Result<(), WorldError> {
        self.announce(pod, false)?;
        self.node_of(pod)?.agent.evict(pod)
    }

    /// Tells the control plane whether a pod is in the mesh, as the node agent's annotation does.
    ///
    /// # Errors
    ///
    /// Fails when the manifest cannot be written.
    pub fn announce(&self, pod: &Pod, enrolled: bool) -> Result<(), WorldError> {
        if pod.spec().is_known() {
            let text = manifests::pod(pod.spec(), pod.ips(), enrolled);
            self.manifests.put(&file_of(pod), &text)?;
        }
        Ok(())
    }

    /// Shows the control plane a pod in the mesh with other labels, or its own again.
    ///
    /// # Errors
    ///
    /// Fails when the manifest cannot be written.
    pub fn relabel(&self, pod: &Pod, spec: &PodSpec) -> Result<(), WorldError> {
        let text = manifests::pod(spec, pod.ips(), true);
        self.manifests.put(&file_of(pod), &text)
    }

    /// Returns the name of a pod's file of manifests.
    pub fn manifest_of(pod: &Pod) -> String {
        file_of(pod)
    }

    /// Waits until every proxy's dump shows what is looked for.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn everywhere(
        &self,
        what: &str,
        look: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(), WorldError> {
        for node in &self.nodes {
            node.proxy()?.shows(what, SPREAD, &look)?;
        }
        Ok(())
    }

    /// Waits until every proxy knows whether a pod is in the mesh.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn settled(&self, pod: &Pod, enrolled: bool) -> Result<(), WorldError> {
        let uid = pod.workload_uid();
        let protocol = if enrolled { "HBONE" } else { "TCP" };
        self.everywhere(&format!("{uid} by {protocol}"), |dump| {
            listed(dump, "workloads").any(|workload| {
                text(workload, "uid") == uid && text(workload, "protocol") == protocol
            })
        })
    }

    /// Waits until every proxy has, or no longer has, a policy.
    ///
    /// # Errors
    ///
    /// Fails when [`SPREAD`] passes first.
    pub fn policy_spread(&self, name: &str, present: bool) -> Result<(), WorldError> {
        self.everywhere(&format!("policy {name}: {present}"), |dump| {
            listed(dump, "policies").any(|policy| text(policy, "name") == name) == present
        })
    }
}

/// Returns the entries of a list or map in a dump.
fn listed<'a>(
    dump: &'a serde_json::Value,
    name: &str,
) -> impl Iterator<Item = &'a serde_json::Value> {
    dump.get(name)
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
}

fn text<'a>(value: &'a serde_json::Value, name: &str) -> &'a str {
    value
        .get(name)
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}

pub(super) fn file_of(pod: &Pod) -> String {
    format!("pod-{}-{}", pod.spec().namespace(), pod.name())
}
