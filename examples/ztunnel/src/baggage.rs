//! What a proxy says of its workload in the `baggage` header.

use std::sync::Arc;

use meshwright_hbone::Baggage;
use meshwright_xds_client::workload::Workload;

/// Describes a workload as Istio does; values that are not known are left out.
pub(crate) fn of(workload: &Workload) -> Baggage {
    let known = |value: &Arc<str>| (!value.is_empty()).then(|| Arc::clone(value));
    let mut baggage = Baggage::default();
    baggage.cluster = known(workload.cluster_id());
    baggage.namespace = known(workload.namespace());
    baggage.workload_type = Some(workload.workload_type().as_str().into());
    baggage.workload_name = known(workload.workload_name());
    baggage.service_name = known(workload.canonical_name());
    baggage.service_version = known(workload.canonical_revision());
    baggage.region = known(&workload.locality().region);
    baggage.zone = known(&workload.locality().zone);
    baggage
}
