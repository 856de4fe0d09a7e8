//! The sample manifests are what the README says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::{collections::BTreeMap, path::Path};

use meshwright_control_plane::{
    Manifests,
    compile::{Mesh, compile},
};
use meshwright_xds_client::proto::workload::{TunnelProtocol, Workload, address};

#[test]
fn samples_are_a_mesh_of_four_captured_workloads_one_service_and_two_policies() {
    let _trace = meshwright_testkit::trace();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let manifests = Manifests::load(&folder).unwrap_or_else(|error| panic!("{error}"));
    assert!(manifests.ignored().is_empty());
    let compiled = compile(&manifests, &Mesh::new("cluster.local".parse().unwrap())).unwrap();
    assert!(compiled.notes.is_empty(), "{:?}", compiled.notes);
    let workloads: BTreeMap<String, Workload> = compiled
        .addresses
        .iter()
        .filter_map(|address| match address.r#type.clone()? {
            address::Type::Workload(workload) => Some((workload.name.clone(), workload)),
            address::Type::Service(_) => None,
        })
        .collect();
    assert_eq!(compiled.addresses.len(), workloads.len() + 1, "one service");
    assert_eq!(workloads.len(), 4);
    for workload in workloads.values() {
        assert_eq!(
            workload.tunnel_protocol(),
            TunnelProtocol::Hbone,
            "{}",
            workload.uid
        );
        assert!(workload.locality.is_some(), "{}", workload.uid);
    }
    for name in ["helloworld-v1", "helloworld-v2"] {
        let ports = &workloads[name].services["default/helloworld.default.svc.cluster.local"].ports;
        assert_eq!((ports[0].service_port, ports[0].target_port), (5000, 5000));
        assert_eq!(
            workloads[name].authorization_policies,
            [
                "default/helloworld",
                "istio-system/istio_converted_static_strict"
            ]
        );
    }
    assert!(compiled.accounts.runs_on("node-a", "default", "sleep"));
    assert!(!compiled.accounts.runs_on("node-b", "default", "sleep"));
}

#[test]
fn example_in_the_readme_is_read_as_it_is() {
    let _trace = meshwright_testkit::trace();
    let blocks = include_str!("../README.md").split("```yaml\n").skip(1);
    let mut blocks = blocks.filter_map(|text| text.split_once("```"));
    let (example, _) = blocks
        .find(|(block, _)| block.contains("kind: Workload"))
        .unwrap();
    let manifests =
        Manifests::parse("README.md", example).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(manifests.len(), 1);
}
