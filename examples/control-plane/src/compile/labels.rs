//! Labels and annotations that mean something, and what is derived from them.

use std::sync::Arc;

use meshwright_xds_client::proto::workload::{AppProtocol, Locality};

use crate::manifest::{Instance, Labels, Metadata};

pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";

/// Whether every label of a selector is on the object.
pub(super) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(name, value)| labels.get(name) == Some(value))
}

/// Name and revision for telemetry.
pub(super) fn canonical(labels: &Labels, workload_name: &str) -> (String, String) {
    let first = |names: [&str; 3], default: &str| {
        let found = names.iter().find_map(|name| labels.get(*name));
        found.map_or(default, |value| value).to_owned()
    };
    let name = [
        "service.istio.io/canonical-name",
        "app.kubernetes.io/name",
        "app",
    ];
    let revision = [
        "service.istio.io/canonical-revision",
        "app.kubernetes.io/version",
        "version",
    ];
    (first(name, workload_name), first(revision, "latest"))
}

/// The name of what a pod belongs to, derived from its controller if its name was generated.
pub(super) fn workload_name(instance: &Instance) -> String {
    let metadata = &instance.metadata;
    if let Some(name) = metadata.label(WORKLOAD_NAME) {
        return name.to_string();
    }
    let controller = metadata
        .owner_references
        .iter()
        .find(|owner| owner.controller);
    let Some(owner) = controller.filter(|_| !metadata.generate_name.is_empty()) else {
        return metadata.name.to_string();
    };
    let deployment = metadata
        .label("pod-template-hash")
        .filter(|_| &*owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(&**hash)?.strip_suffix('-'));
    let cron_job = (&*owner.kind == "Job")
        .then(|| cron_job(&owner.name))
        .flatten();
    deployment.or(cron_job).unwrap_or(&owner.name).to_owned()
}

/// A `CronJob` names its jobs with the scheduled minute.
fn cron_job(job: &str) -> Option<&str> {
    let (name, minute) = job.rsplit_once('-')?;
    let digits = minute.bytes().all(|c| c.is_ascii_digit());
    (digits && (8..=10).contains(&minute.len()) && !name.is_empty()).then_some(name)
}

/// As a `WorkloadEntry` says it.
pub(super) fn entry_name(metadata: &Metadata) -> String {
    metadata
        .annotation("istio.io/autoRegistrationGroup")
        .or_else(|| metadata.label(WORKLOAD_NAME).map(|name| &**name))
        .unwrap_or(&metadata.name)
        .to_owned()
}

/// `region/zone/subzone`, each part optional.
pub(super) fn locality(text: &str) -> Option<Locality> {
    let mut parts = text.split('/').map(str::to_owned);
    let locality = Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        subzone: parts.next().unwrap_or_default(),
    };
    (locality != Locality::default()).then_some(locality)
}

/// Where a node is, from its labels.
pub(super) fn node_locality(labels: &Labels) -> Option<Locality> {
    let label = |name: &str| {
        labels
            .get(name)
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let locality = Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        subzone: label("topology.istio.io/subzone"),
    };
    (locality != Locality::default()).then_some(locality)
}

/// The application protocol of a service's port: `appProtocol`, else the name up to a hyphen.
pub(super) fn port_protocol(
    name: &str,
    app_protocol: Option<&Arc<str>>,
    transport: &str,
) -> AppProtocol {
    if transport == "UDP" {
        return AppProtocol::Unknown;
    }
    let text = app_protocol.map_or(name, |protocol| protocol);
    let text = text.to_ascii_lowercase();
    if text.starts_with("grpc-web") {
        return AppProtocol::Unknown;
    }
    protocol(text.split('-').next().unwrap_or_default())
}

/// The application protocol that a word stands for.
pub(super) fn protocol(word: &str) -> AppProtocol {
    match word.to_ascii_lowercase().as_str() {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" => AppProtocol::Tcp,
        "https" | "tls" => AppProtocol::Tls,
        _ => AppProtocol::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{cron_job, locality, port_protocol};
    use meshwright_xds_client::proto::workload::AppProtocol;
    use std::sync::Arc;

    #[test]
    fn protocol_is_taken_from_the_name_unless_it_is_stated() {
        let _trace = meshwright_testkit::trace();
        let stated = Arc::from("https");
        assert_eq!(port_protocol("http", None, "TCP"), AppProtocol::Http11);
        assert_eq!(port_protocol("grpc-xds", None, ""), AppProtocol::Grpc);
        assert_eq!(port_protocol("http", Some(&stated), ""), AppProtocol::Tls);
        assert_eq!(port_protocol("grpc-web-x", None, ""), AppProtocol::Unknown);
        assert_eq!(port_protocol("httpx", None, ""), AppProtocol::Unknown);
        assert_eq!(port_protocol("http", None, "UDP"), AppProtocol::Unknown);
    }

    #[test]
    fn job_of_a_cron_job_is_told_by_its_minute() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(cron_job("backup-28912345"), Some("backup"));
        assert_eq!(cron_job("backup-2891"), None);
        assert_eq!(cron_job("backup-2891234x"), None);
    }

    #[test]
    fn empty_locality_is_none() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(locality(""), None);
        assert_eq!(locality("r1/z2").unwrap().zone, "z2");
    }
}
