//! `/config_dump`: everything that the proxy knows, as `istioctl ztunnel-config` reads it.

use std::io::{self, Write};
use std::sync::Arc;

use meshwright_istio_surface::config_dump::{
    BuildVersion, ConfigDocument, ConnectionProtocol, ConnectionState, PodState, ProxyState,
};
use meshwright_istio_surface::server::ConfigDump;
use meshwright_policy::PolicyReader;
use meshwright_xds_client::workload::Snapshot;

use crate::mesh::Mesh;
use crate::served::ServedPod;

/// Collects the document when it is asked for.
#[derive(Debug)]
pub(crate) struct Dump {
    mesh: Arc<Mesh>,
    policies: PolicyReader,
}

impl Dump {
    pub(crate) const fn new(mesh: Arc<Mesh>, policies: PolicyReader) -> Self {
        Self { mesh, policies }
    }

    fn state_of(&self, served: &ServedPod, snapshot: &Snapshot) -> PodState {
        let name = &served.name;
        let up = match served.pod {
            Some(_) => ProxyState::Up,
            None => ProxyState::Pending,
        };
        let mut state = PodState::new(up, &name.name, &name.namespace, &name.service_account);
        let workload = snapshot.workload_of_pod(&name.namespace, &name.name, &name.service_account);
        if let Some(workload) = workload {
            self.mesh.live.for_each_of(workload.uid(), |facts| {
                let protocol = match facts.source {
                    Some(_) => ConnectionProtocol::Hbone,
                    None => ConnectionProtocol::Tcp,
                };
                let listed = ConnectionState::new(facts.source_addr, facts.destination, protocol);
                state.inbound(match &facts.requested {
                    Some(host) => listed.asked_for(&**host),
                    None => listed,
                });
            });
        }
        for (from, connection) in served.pod.iter().flat_map(|pod| pod.outgoing.snapshot()) {
            let listed = ConnectionState::new(from, connection.actual, connection.protocol);
            state.outbound(listed.asked_for(connection.original.to_string()));
        }
        state
    }
}

impl ConfigDump for Dump {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mesh = &self.mesh;
        let snapshot = mesh.snapshot();
        let version = BuildVersion::of_this_program(mesh.config.telemetry.istio_version.as_deref());
        let mut document = ConfigDocument::new(Arc::clone(&snapshot), version);
        document.policies = self.policies.set().policies().cloned().collect();
        document.certificates = mesh.identities.statuses();
        document.config = mesh.config.to_json();
        document.workload_state = mesh
            .served
            .pods()
            .iter()
            .map(|pod| (pod.uid.to_string(), self.state_of(pod, &snapshot)))
            .collect();
        document.write(out)
    }
}
