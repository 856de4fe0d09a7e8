//! What a real istiod made of the same objects, recorded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests"
)]

use std::{collections::BTreeMap, sync::Arc};

use meshwright_identity::SpiffeId;
use meshwright_policy::{
    Connection, Decision, Mode, PolicyReader, PolicyStore, Subject,
    kubernetes::{Objects, from_yaml, translate},
    proto::Authorization,
};
use prost::Message;

const ROOT: &str = "istio-system";
const L4: &str = include_str!("data/l4.yaml");
const CHANGE: &str = include_str!("data/l4-change.yaml");

/// What of a delta response matters here.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
    #[prost(string, repeated, tag = "6")]
    removed: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "3")]
    name: String,
    #[prost(message, optional, tag = "2")]
    body: Option<prost_types::Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    workload: Option<Workload>,
}

#[derive(Clone, PartialEq, Message)]
struct Workload {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, repeated, tag = "16")]
    policies: Vec<String>,
    #[prost(string, tag = "20")]
    uid: String,
}

fn responses(mut bytes: &[u8]) -> Vec<Response> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        responses.push(Response::decode_length_delimited(&mut bytes).unwrap());
    }
    responses
}

fn apply(store: &mut PolicyStore, response: &Response) {
    let resources = response.resources.iter().map(|resource| {
        (
            resource.name.as_str(),
            &*resource.body.as_ref().unwrap().value,
        )
    });
    let rejected = store.apply(resources, response.removed.iter().map(String::as_str));
    assert!(
        rejected.is_empty(),
        "istiod's policies are accepted: {rejected:?}"
    );
}

/// By name, what is in force after the first `count` responses.
fn recorded(bytes: &[u8], count: usize) -> (BTreeMap<String, Authorization>, PolicyReader) {
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    responses(bytes)[..count]
        .iter()
        .for_each(|response| apply(&mut store, response));
    let set = reader.set();
    let policies = set
        .policies()
        .map(|policy| (policy.name().to_string(), policy.authorization()));
    (policies.collect(), reader)
}

fn translated(objects: &Objects) -> BTreeMap<String, Authorization> {
    let translation = translate(objects, ROOT).unwrap();
    let named = |policy: &Authorization| {
        (
            format!("{}/{}", policy.namespace, policy.name),
            policy.clone(),
        )
    };
    translation.authorizations().iter().map(named).collect()
}

/// The l4 objects with those of the change, which replace their namesakes.
fn changed() -> Objects {
    let mut objects = from_yaml(L4).unwrap();
    for policy in from_yaml(CHANGE).unwrap().authorization_policies {
        objects
            .authorization_policies
            .retain(|old| old.metadata.name != policy.metadata.name);
        objects.authorization_policies.push(policy);
    }
    objects
}

#[test]
fn yaml_becomes_exactly_the_recorded_resources() {
    let _trace = meshwright_testkit::trace();
    let bytes = include_bytes!("data/l4-authorization.pb");
    let (recorded, _) = recorded(bytes, responses(bytes).len());
    assert_eq!(recorded.len(), 8);
    assert_eq!(translated(&from_yaml(L4).unwrap()), recorded);
}

#[test]
fn changed_yaml_becomes_exactly_the_changed_resources() {
    let _trace = meshwright_testkit::trace();
    let bytes = include_bytes!("data/l4-change-authorization.pb");
    assert_eq!(responses(bytes).len(), 3, "all, the change, its removal");
    assert_eq!(translated(&from_yaml(L4).unwrap()), recorded(bytes, 1).0);
    assert_eq!(translated(&changed()), recorded(bytes, 2).0);
    let mut objects = from_yaml(L4).unwrap();
    objects
        .authorization_policies
        .retain(|policy| policy.metadata.name != "hello-from-sleep");
    assert_eq!(
        translated(&objects),
        recorded(bytes, 3).0,
        "removing the change removes what it replaced"
    );
}

#[derive(serde::Deserialize)]
struct Manifest {
    kind: String,
    metadata: PodMetadata,
}

#[derive(serde::Deserialize)]
struct PodMetadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[test]
fn workloads_list_exactly_the_recorded_names() {
    let _trace = meshwright_testkit::trace();
    let manifests: Vec<Manifest> = serde_saphyr::from_multiple(L4).unwrap();
    let objects = from_yaml(L4).unwrap();
    let translation = translate(&objects, ROOT).unwrap();
    let mut compared = 0;
    for response in responses(include_bytes!("data/l4-address.pb")) {
        for resource in response.resources {
            let Some(workload) = Address::decode(&*resource.body.unwrap().value)
                .unwrap()
                .workload
            else {
                continue;
            };
            let of_pod = |manifest: &&Manifest| {
                ["Pod", "WorkloadEntry"].contains(&manifest.kind.as_str())
                    && manifest.metadata.name == workload.name
                    && manifest.metadata.namespace == workload.namespace
            };
            let Some(manifest) = manifests.iter().find(of_pod) else {
                // Endpoints of a ServiceEntry have no labels of their own; istiod lets them list
                // every selector policy of their namespace.
                continue;
            };
            let label = |name: &str| manifest.metadata.labels.get(name).cloned();
            let listed = translation.listed_by(&workload.namespace, label);
            assert_eq!(listed, workload.policies, "{}", workload.uid);
            compared += 1;
        }
    }
    assert_eq!(compared, 10, "nine pods and a workload entry");
}

#[test]
fn recorded_policies_decide_as_they_read() {
    let _trace = meshwright_testkit::trace();
    let bytes = include_bytes!("data/l4-authorization.pb");
    let (_, reader) = recorded(bytes, 1);
    let hello: [Arc<str>; 2] = [
        "default/hello-from-sleep",
        "default/converted_peer_authentication_hello",
    ]
    .map(Arc::from);
    let strict: [Arc<str>; 1] = ["istio-system/istio_converted_static_strict"].map(Arc::from);
    let http_only: [Arc<str>; 1] = ["default/http-only-deny"].map(Arc::from);
    let decide =
        |caller: Option<&str>, source: &str, port: u16, namespace: &str, listed: &[Arc<str>]| {
            let id = caller.map(|caller| {
                SpiffeId::parse(&format!("spiffe://cluster.local/{caller}")).unwrap()
            });
            let destination = (std::net::Ipv4Addr::new(10, 244, 2, 3), port).into();
            let subject = Subject::new(namespace, listed);
            reader
                .decide(&Connection::new(
                    id.as_ref(),
                    source.parse().unwrap(),
                    destination,
                    subject,
                ))
                .to_string()
        };
    let sleep = Some("ns/default/sa/sleep");
    let other = Some("ns/default/sa/notsleep");
    let not_allowed = "denied: allow policies exist, but none allowed";
    for (caller, source, port, namespace, listed, expected) in [
        (sleep, "10.244.1.2", 5000, "default", &hello[..], "allowed"),
        (sleep, "10.244.1.2", 5001, "default", &hello, not_allowed),
        (other, "10.244.1.4", 5000, "default", &hello, not_allowed),
        (
            None,
            "10.244.1.2",
            5000,
            "default",
            &hello,
            "denied: explicitly denied by: default/converted_peer_authentication_hello",
        ),
        (None, "10.244.1.2", 9090, "default", &hello, not_allowed),
        (
            None,
            "10.244.1.2",
            5000,
            "default",
            &strict,
            "denied: explicitly denied by: istio-system/istio_converted_static_strict",
        ),
        (other, "10.244.1.2", 5000, "default", &strict, "allowed"),
        (
            sleep,
            "192.0.2.1",
            5000,
            "default",
            &hello,
            "denied: explicitly denied by: istio-system/mesh-wide",
        ),
        (
            Some("ns/legacy/sa/x"),
            "10.0.0.1",
            80,
            "default",
            &[],
            "denied: explicitly denied by: default/deny-legacy",
        ),
        (
            Some("ns/legacy/sa/trusted"),
            "10.0.0.1",
            80,
            "default",
            &[],
            "allowed",
        ),
        (
            sleep,
            "10.9.1.1",
            80,
            "default",
            &[],
            "denied: explicitly denied by: default/deny-legacy",
        ),
        (sleep, "10.9.1.1", 15020, "default", &[], "allowed"),
        (sleep, "10.0.0.1", 80, "legacy", &[], not_allowed),
        (other, "10.0.0.1", 80, "default", &http_only, "allowed"),
    ] {
        assert_eq!(
            decide(caller, source, port, namespace, listed),
            expected,
            "{caller:?} {source} {port} {namespace}"
        );
    }
    let missing: [Arc<str>; 1] = ["default/late".into()];
    assert_eq!(
        decide(sleep, "10.0.0.1", 80, "default", &missing),
        "held: policy default/late has not arrived"
    );
}

#[test]
fn policy_added_and_removed_takes_effect_and_ends() {
    let _trace = meshwright_testkit::trace();
    let recorded = responses(include_bytes!("data/l4-change-authorization.pb"));
    let (mut store, reader) = PolicyStore::new(Mode::IstioCompatible);
    let id = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/notsleep").unwrap();
    let decide = || {
        let destination = "10.244.1.2:80".parse().unwrap();
        let subject = Subject::new("default", &[]);
        reader.decide(&Connection::new(
            Some(&id),
            "10.244.1.4".parse().unwrap(),
            destination,
            subject,
        ))
    };
    apply(&mut store, &recorded[0]);
    assert!(decide().is_allow());
    apply(&mut store, &recorded[1]);
    assert!(
        matches!(decide(), Decision::Deny(denied) if denied.policy.as_deref() == Some("default/late-deny"))
    );
    apply(&mut store, &recorded[2]);
    assert!(decide().is_allow());
}
