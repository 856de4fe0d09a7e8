//! A mesh and a pod without a control plane, a node agent or privileges, for unit tests.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;

use meshwright_identity::TrustDomain;
use meshwright_identity::rotation::Rotator;
use meshwright_istio_surface::env::Variables;
use meshwright_istio_surface::metrics::Metrics;
use meshwright_policy::{Live, Mode, PolicyStore};
use meshwright_xds_client::workload::Store;

use crate::config::{Config, Machine, OriginalSource};
use crate::mesh::Mesh;
use crate::telemetry::Telemetry;
use crate::{certificates, judge};

/// A mesh in which nobody is known, with listeners on loopback; it ends with the rotator.
pub(crate) fn mesh() -> (Arc<Mesh>, Rotator) {
    mesh_with(&[])
}

/// As [`mesh`], with these variables set.
pub(crate) fn mesh_with(variables: &[(&str, &str)]) -> (Arc<Mesh>, Rotator) {
    let alone = [
        ("XDS_ADDRESS", ""),
        ("MESHWRIGHT_CA", "self-signed"),
        ("IPV6_ENABLED", "false"),
    ];
    let variables = Variables::from_pairs(alone.iter().chain(variables).copied());
    let machine = Machine::new(NonZeroUsize::MIN, false);
    let mut config = Config::load(&variables, &[], machine).unwrap();
    config.sockets.mark = None;
    config.sockets.original_source = OriginalSource::Never;
    let [outbound, plain, hbone] = free_ports();
    config.ports.outbound = outbound;
    config.ports.inbound_plaintext = plain;
    config.ports.inbound_hbone = hbone;
    let telemetry = Arc::new(Telemetry::new(Arc::new(Metrics::new("ztunnel", "unknown"))));
    let trust_domain = TrustDomain::parse("cluster.local").unwrap();
    let rotator = certificates::rotator(&config, trust_domain, &telemetry).unwrap();
    let (_store, workloads) = Store::new(None);
    let (_policies, policies) = PolicyStore::new(Mode::IstioCompatible);
    let live = Live::new(policies, judge::subjects(workloads.clone()));
    let mesh = Mesh::new(config, workloads, live, rotator.identities(), telemetry);
    (Arc::new(mesh), rotator)
}

fn free_ports() -> [SocketAddr; 3] {
    let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}
