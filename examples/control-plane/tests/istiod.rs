//! Compiles the manifests that a real istiod was given, and compares field by field with what it
//! said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::PathBuf,
};

use meshwright_control_plane::{
    Manifests,
    compile::{Compiled, Mesh, compile},
};
use meshwright_policy::proto::Authorization;
use meshwright_xds_client::{
    proto::{
        discovery::DeltaDiscoveryResponse,
        workload::{Address, address},
    },
    server::ServedResource,
};
use prost::Message;

fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/istiod")
        .join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(data(path)).unwrap()
}

/// The responses of a recording.
fn recorded(path: &str) -> Vec<DeltaDiscoveryResponse> {
    let bytes = fs::read(data(path)).unwrap();
    let mut rest = bytes.as_slice();
    let mut responses = Vec::new();
    while !rest.is_empty() {
        responses.push(DeltaDiscoveryResponse::decode_length_delimited(&mut rest).unwrap());
    }
    responses
}

/// The state after the first `count` responses.
fn state<M: Message + Default>(responses: &[DeltaDiscoveryResponse]) -> BTreeMap<String, M> {
    let mut state = BTreeMap::new();
    for response in responses {
        for resource in &response.resources {
            let body = resource.resource.as_ref().unwrap().value.clone();
            state.insert(resource.name.clone(), M::decode(body.as_ref()).unwrap());
        }
        for name in &response.removed_resources {
            state.remove(name);
        }
    }
    state
}

fn compiled(texts: &[(&str, &str)]) -> Compiled {
    let manifests = Manifests::parse_all(texts).unwrap_or_else(|error| panic!("{error}"));
    compile(&manifests, &Mesh::new("cluster.local".parse().unwrap())).unwrap()
}

fn name(address: &Address) -> String {
    match address.r#type.as_ref().unwrap() {
        address::Type::Workload(workload) => workload.uid.clone(),
        address::Type::Service(service) => format!("{}/{}", service.namespace, service.hostname),
    }
}

fn addresses(compiled: &Compiled) -> BTreeMap<String, Address> {
    compiled
        .addresses
        .iter()
        .map(|address| (name(address), address.clone()))
        .collect()
}

fn authorizations(compiled: &Compiled) -> BTreeMap<String, Authorization> {
    compiled
        .authorizations
        .iter()
        .map(|(name, policy)| (name.to_string(), policy.clone()))
        .collect()
}

/// Names first, then every field of every message.
#[track_caller]
fn assert_same<M: Debug + PartialEq>(ours: &BTreeMap<String, M>, istiod: &BTreeMap<String, M>) {
    let names = |map: &BTreeMap<String, M>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(ours),
        names(istiod),
        "the same resources have the same names"
    );
    for (name, message) in istiod {
        assert_eq!(&ours[name], message, "every field of `{name}` is istiod's");
    }
}

/// What differs knowingly, and why. Keep it short.
///
/// 1. Endpoints written inside a `ServiceEntry` without labels: istiod lists every policy with a
///    selector in the namespace, because it compares selectors with "no labels" as if that were
///    "no condition". Ours lists the policies that select them. No proxy enforces either, as these
///    endpoints are outside the mesh; for a pod without labels the same mistake would matter.
fn forgive(istiod: &mut BTreeMap<String, Address>) {
    for (name, address) in istiod {
        if let Some(address::Type::Workload(workload)) = &mut address.r#type
            && name.contains("/ServiceEntry/")
        {
            workload
                .authorization_policies
                .retain(|policy| policy == "istio-system/istio_converted_static_strict");
        }
    }
}

#[test]
fn workloads_and_services_of_the_l4_recording_are_istiods_field_by_field() {
    let _trace = meshwright_testkit::trace();
    let (input, surroundings) = (text("l4/input.yaml"), text("surroundings.yaml"));
    let ours = compiled(&[("input", &input), ("surroundings", &surroundings)]);
    let mut istiod = state(&recorded("l4/address.pb"));
    forgive(&mut istiod);
    assert_same(&addresses(&ours), &istiod);
    assert_eq!(ours.addresses.len(), istiod.len(), "each name once");
}

#[test]
fn policies_of_the_l4_recording_are_istiods_field_by_field() {
    let _trace = meshwright_testkit::trace();
    let ours = compiled(&[("input", &text("l4/input.yaml"))]);
    assert_same(
        &authorizations(&ours),
        &state(&recorded("l4/authorization.pb")),
    );
}

#[test]
fn change_of_the_recording_gives_istiods_second_state() {
    let _trace = meshwright_testkit::trace();
    let input = text("l4/input.yaml");
    let kept: Vec<_> = input
        .split("---\n")
        .filter(|document| !document.contains("name: hello-from-sleep"))
        .collect();
    let texts = [
        kept.join("---\n"),
        text("l4-change/change.yaml"),
        text("surroundings.yaml"),
    ];
    let ours = compiled(&[
        ("input", &texts[0]),
        ("change", &texts[1]),
        ("surroundings", &texts[2]),
    ]);
    let mut istiod = state(&recorded("l4-change/address.pb")[..2]);
    forgive(&mut istiod);
    assert_same(&addresses(&ours), &istiod);
    assert_same(
        &authorizations(&ours),
        &state(&recorded("l4-change/authorization.pb")[..2]),
    );
}

#[test]
fn services_behind_a_waypoint_and_the_waypoint_itself_are_istiods_field_by_field() {
    let _trace = meshwright_testkit::trace();
    let texts = [
        "waypoint-base/input.yaml",
        "waypoint-base/surroundings.yaml",
        "surroundings.yaml",
    ];
    let texts = texts.map(|path| (path, text(path)));
    let texts: Vec<_> = texts
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    assert_same(
        &addresses(&compiled(&texts)),
        &state(&recorded("waypoint-base/address.pb")),
    );
}

#[test]
fn names_and_aliases_are_the_ones_istiod_answers_on_demand() {
    let _trace = meshwright_testkit::trace();
    let (input, surroundings) = (text("l4/input.yaml"), text("surroundings.yaml"));
    let ours = compiled(&[("input", &input), ("surroundings", &surroundings)]);
    let ours: BTreeMap<String, BTreeSet<String>> = ours
        .addresses
        .iter()
        .map(|address| {
            let served = ServedResource::address(address);
            (
                served.name.to_string(),
                served.aliases.iter().map(ToString::to_string).collect(),
            )
        })
        .collect();
    for response in recorded("l4-on-demand/address.pb") {
        for resource in response.resources {
            assert_eq!(
                ours[&resource.name],
                resource.aliases.into_iter().collect(),
                "aliases of `{}`",
                resource.name
            );
        }
    }
}
