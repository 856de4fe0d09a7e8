//! `/config_dump`: what `istioctl ztunnel-config` reads.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::sync::Arc;

use meshwright_istio_surface::config_dump::{
    BuildVersion, ConfigDocument, ConnectionProtocol, ConnectionState, PodState, ProxyState,
};
use meshwright_istio_surface::server::ConfigDump;
use meshwright_policy::PolicyReader;
use meshwright_xds_client::workload::Snapshot;

use crate::config::Http2;
use crate::mesh::Mesh;
use crate::served::ServedPod;

/// Takes a picture of everything when asked.
pub(crate) struct Dump {
    mesh: Arc<Mesh>,
    policies: PolicyReader,
}

impl Dump {
    pub(crate) fn new(mesh: Arc<Mesh>, policies: PolicyReader) -> Self {
        Self { mesh, policies }
    }

    fn document(&self) -> ConfigDocument {
        let mesh = &self.mesh;
        let snapshot = mesh.snapshot();
        let istio = mesh.config.telemetry.istio_version.as_deref();
        let version = BuildVersion::of_this_program(istio);
        let mut document = ConfigDocument::new(Arc::clone(&snapshot), version);
        document.policies = self.policies.set().policies().cloned().collect();
        document.certificates = mesh.identities.statuses();
        document.config = mesh.config.to_json(in_force());
        for pod in mesh.served.pods().iter() {
            let state = self.pod_state(&snapshot, pod);
            document.workload_state.insert(pod.uid.to_string(), state);
        }
        document
    }

    fn pod_state(&self, snapshot: &Snapshot, served: &ServedPod) -> PodState {
        let name = &served.name;
        let state = match &served.pod {
            Some(_) => ProxyState::Up,
            None => ProxyState::Pending,
        };
        let mut shown = PodState::new(state, &name.name, &name.namespace, &name.service_account);
        let Some(pod) = &served.pod else {
            return shown;
        };
        for (from, connection) in pod.outgoing.snapshot() {
            let protocol = match connection.protocol {
                "HBONE" => ConnectionProtocol::Hbone,
                _ => ConnectionProtocol::Tcp,
            };
            let connected = ConnectionState::new(from, connection.actual, protocol);
            shown.outbound(connected.asked_for(connection.original.to_string()));
        }
        let workload = snapshot.workload_of_pod(&name.namespace, &name.name, &name.service_account);
        if let Some(workload) = workload {
            self.mesh.live.for_each_of(workload.uid(), |facts| {
                let protocol = match facts.source {
                    Some(_) => ConnectionProtocol::Hbone,
                    None => ConnectionProtocol::Tcp,
                };
                let connected =
                    ConnectionState::new(facts.source_addr, facts.destination, protocol);
                shown.inbound(match &facts.requested {
                    Some(requested) => connected.asked_for(&**requested),
                    None => connected,
                });
            });
        }
        shown
    }
}

impl ConfigDump for Dump {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.document().write(out)
    }
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").finish_non_exhaustive()
    }
}

/// What `meshwright-hbone` chooses where no variable does.
fn in_force() -> Http2 {
    Http2 {
        stream_window: NonZeroU32::new(256 << 10),
        connection_window: NonZeroU32::new(32 << 20),
        frame_size: NonZeroU32::new(64 << 10),
    }
}
