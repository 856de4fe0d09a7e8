//! Everything that a real istiod sent, decoded, applied and queried.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use meshwright_xds_client::{
    Handler, Reader, Rejected, Store, Update,
    delta::{Interest, Session, SessionConfig, Verdict, Want},
    proto::{
        ADDRESS, AUTHORIZATION,
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    },
    workload::{
        GatewayDestination, Health, IpFamilies, LoadBalancingMode, NetworkMode, Protocol, Scope,
    },
};
use prost::Message;
use serde_json::Value;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
const NOW: Duration = Duration::ZERO;

fn messages(folder: &str, kind: &str) -> Vec<DeltaDiscoveryResponse> {
    let bytes = std::fs::read(format!("{DATA}/{folder}/{kind}.pb")).unwrap();
    let mut rest = bytes::Bytes::from(bytes);
    let mut messages = Vec::new();
    while !rest.is_empty() {
        messages.push(DeltaDiscoveryResponse::decode_length_delimited(&mut rest).unwrap());
    }
    messages
}

fn expected(folder: &str, kind: &str) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(format!("{DATA}/{folder}/{kind}.json")).unwrap();
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let named = |v: Value| {
        (
            v["name"].as_str().unwrap().to_owned(),
            v["resource"].clone(),
        )
    };
    list.into_iter().map(named).collect()
}

/// Keeps authorization resources by name: their contents are another crate's.
#[derive(Default)]
struct Names(BTreeMap<String, bytes::Bytes>);

struct Node1 {
    session: Session,
    store: Store,
    policies: Names,
}

impl Node1 {
    fn new(interest: Interest) -> (Self, Reader) {
        let (store, reader) = Store::new(Some("node-a"));
        let mut session = Session::new(Node::default(), SessionConfig::default());
        session.subscribe(ADDRESS, interest);
        session.subscribe(AUTHORIZATION, Interest::All);
        let node = Self {
            session,
            store,
            policies: Names::default(),
        };
        (node, reader)
    }

    fn receive(&mut self, message: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let Self {
            session,
            store,
            policies,
        } = self;
        let mut apply = |type_url: &str, update: Update<'_>| -> Vec<Rejected> {
            if type_url == ADDRESS {
                return store.apply(update);
            }
            for resource in update.resources {
                policies
                    .0
                    .insert(resource.name.to_string(), resource.body.clone());
            }
            for name in update.removed {
                policies.0.remove(&**name);
            }
            Vec::new()
        };
        let received = session.receive(message, NOW, &mut apply);
        assert_eq!(
            received.verdict,
            Verdict::Accepted,
            "istiod's own messages are all good"
        );
        received.reply.unwrap()
    }

    fn play(&mut self, folder: &str) {
        for message in messages(folder, "address") {
            self.receive(message);
        }
        for message in messages(folder, "authorization") {
            self.receive(message);
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Every resource of the JSON form is in the store, and nothing else.
fn assert_equals(reader: &Reader, expected: &BTreeMap<String, Value>) {
    let snapshot = reader.snapshot();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for (name, resource) in expected {
        if let Some(w) = resource.get("workload") {
            let found = snapshot
                .workload_by_uid(name)
                .unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(**found.name(), *text(&w["name"]));
            assert_eq!(**found.namespace(), *text(&w["namespace"]));
            assert_eq!(**found.node(), *text(&w["node"]));
            assert_eq!(**found.network(), *text(&w["network"]));
            assert_eq!(
                found.addresses().len(),
                w["addresses"].as_array().map_or(0, Vec::len)
            );
            let policies = w["authorization_policies"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let policies: Vec<String> = policies.iter().map(text).collect();
            let ours: Vec<String> = found
                .authorization_policies()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(ours, policies, "{name}");
            let services = w["services"].as_object().cloned().unwrap_or_default();
            assert_eq!(found.services().len(), services.len());
            for (key, list) in services {
                let membership = found.membership(&key).unwrap();
                for port in list["ports"].as_array().unwrap() {
                    let service = u16::try_from(port["service_port"].as_u64().unwrap()).unwrap();
                    let target = port["target_port"].as_u64().unwrap();
                    assert_eq!(membership.target_port(service).map(u64::from), Some(target));
                }
                let known = snapshot.service(&key).is_some();
                let staged = snapshot
                    .staged_endpoints()
                    .any(|(staged, _)| **staged == *key);
                assert!(
                    known != staged,
                    "{key} is known, or its endpoints wait for it"
                );
            }
        } else {
            let s = &resource["service"];
            let found = snapshot
                .service(name)
                .unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(**found.hostname(), *text(&s["hostname"]));
            assert_eq!(found.canonical(), s["canonical"].as_bool().unwrap_or(false));
            assert_eq!(
                found.ports().len(),
                s["ports"].as_array().map_or(0, Vec::len)
            );
            let addresses = s["addresses"].as_array().map_or(0, Vec::len);
            assert_eq!(found.vips().len() + found.cidr_vips().len(), addresses);
            assert_eq!(
                snapshot.service_by_hostname(found.hostname(), None),
                Some(found)
            );
        }
    }
    let count = snapshot.workload_count() + snapshot.service_count();
    assert_eq!(count, expected.len());
}

#[test]
fn whole_mesh_is_what_istiod_says_it_is() {
    let _trace = meshwright_testkit::trace();
    let (mut node, reader) = Node1::new(Interest::All);
    node.session.open(NOW);
    node.play("l4");
    assert_equals(&reader, &expected("l4", "address"));
    let policies: Vec<String> = expected("l4", "authorization").into_keys().collect();
    assert!(node.policies.0.keys().eq(&policies));
    assert!(node.session.is_complete());
}

#[test]
fn queries_over_the_whole_mesh() {
    let _trace = meshwright_testkit::trace();
    let (mut node, reader) = Node1::new(Interest::All);
    node.session.open(NOW);
    node.play("l4");
    let snapshot = reader.snapshot();
    let pod = |address| {
        snapshot
            .workload_by_address("", ip(address))
            .map(|w| w.uid().to_string())
    };
    assert_eq!(
        pod("10.244.1.2").as_deref(),
        Some("Kubernetes//Pod/default/sleep")
    );
    assert_eq!(
        pod("10.244.2.9"),
        pod("fd00:244:2::9"),
        "both addresses of a dual-stack pod"
    );
    assert_eq!(
        pod("172.18.0.3"),
        None,
        "a node's address identifies nobody"
    );
    assert!(
        snapshot
            .workload_by_address("net-2", ip("10.9.0.5"))
            .is_some()
    );
    let hosted = snapshot
        .workload_by_uid("Kubernetes//Pod/default/hosted")
        .unwrap();
    assert_eq!(hosted.network_mode(), NetworkMode::HostNetwork);
    let broken = snapshot
        .workload_by_uid("Kubernetes//Pod/default/broken")
        .unwrap();
    assert_eq!(broken.health(), Health::Unhealthy);
    let sleep = snapshot
        .workload_of_pod("default", "sleep", "sleep")
        .unwrap();
    assert_eq!(
        sleep.identity().as_str(),
        "spiffe://cluster.local/ns/default/sa/sleep"
    );
    assert_eq!(
        (sleep.protocol(), &*sleep.locality().zone),
        (Protocol::Hbone, "z1")
    );
    assert_eq!(
        snapshot.local_workloads().count(),
        4,
        "sleep, notsleep, helloworld-v2, ztunnel-a"
    );
    let local = snapshot.local_workloads_of("default", "helloworld");
    assert_eq!(
        local.map(|w| w.name().to_string()).collect::<Vec<_>>(),
        ["helloworld-v2"]
    );
    assert!(
        snapshot
            .workload_of_pod("default", "dual", "dual")
            .is_none(),
        "it is on the other node"
    );

    let by_vip = |address, ns| {
        snapshot
            .service_by_vip("", ip(address), ns)
            .map(|s| s.key().to_string())
    };
    assert_eq!(
        by_vip("10.96.0.10", Some("legacy")).as_deref(),
        Some("default/helloworld.default.svc.cluster.local")
    );
    assert_eq!(
        by_vip("fd00:96::13", None).as_deref(),
        Some("default/dual.default.svc.cluster.local")
    );
    assert_eq!(
        by_vip("203.0.113.77", None).as_deref(),
        Some("default/db.example.com")
    );
    assert_eq!(
        by_vip("240.240.0.7", None).as_deref(),
        Some("default/db.example.com"),
        "not the wildcard"
    );
    assert_eq!(by_vip("203.0.114.1", None), None);

    let endpoints = |key: &str| {
        let mut names: Vec<_> = snapshot
            .endpoints(snapshot.service(key).unwrap())
            .map(|e| e.workload.name().to_string())
            .collect();
        names.sort();
        names
    };
    let healthy = ["helloworld-v1-0", "helloworld-v1-1", "helloworld-v2"];
    assert_eq!(
        endpoints("default/helloworld.default.svc.cluster.local"),
        healthy
    );
    assert_eq!(
        endpoints("default/close.default.svc.cluster.local").len(),
        4,
        "all endpoints are allowed there"
    );
    let close = snapshot
        .service("default/close.default.svc.cluster.local")
        .unwrap();
    assert_eq!(close.load_balancing().mode, LoadBalancingMode::Failover);
    assert_eq!(
        *close.load_balancing().preferences,
        [Scope::Network, Scope::Region, Scope::Zone]
    );
    let dual = snapshot
        .service("default/dual.default.svc.cluster.local")
        .unwrap();
    assert_eq!(dual.ip_families(), IpFamilies::Dual);
    let hello = snapshot
        .service("default/helloworld.default.svc.cluster.local")
        .unwrap();
    assert_eq!(
        (hello.has_port(80), hello.target_port(80)),
        (true, None),
        "a named port"
    );
    assert_eq!(hello.target_port(8080), Some(5000));
    let weighted = snapshot
        .workload_by_address("", ip("198.51.100.8"))
        .unwrap();
    assert_eq!(weighted.capacity(), 3);
    assert!(
        hello
            .waypoint()
            .is_none_or(|w| matches!(w.destination, GatewayDestination::Address(_)))
    );
}

#[test]
fn change_and_its_removal_arrive_as_differences() {
    let _trace = meshwright_testkit::trace();
    let (mut node, reader) = Node1::new(Interest::All);
    node.session.open(NOW);
    let uid = "Kubernetes//Pod/default/helloworld-v4";
    let addresses = messages("l4-change", "address");
    assert_eq!(addresses.len(), 3);
    let seen: Vec<bool> = addresses
        .into_iter()
        .map(|message| {
            node.receive(message);
            reader.snapshot().workload_by_uid(uid).is_some()
        })
        .collect();
    assert_eq!(seen, [false, true, false]);
    assert_equals(&reader, &expected("l4-change", "address"));
    let late = "default/late-deny";
    let policies = messages("l4-change", "authorization")
        .into_iter()
        .map(|message| {
            node.receive(message);
            node.policies.0.contains_key(late)
        });
    assert_eq!(policies.collect::<Vec<_>>(), [false, true, false]);
    let left: Vec<String> = expected("l4-change", "authorization").into_keys().collect();
    assert!(node.policies.0.keys().eq(&left));
}

#[test]
fn names_and_aliases_asked_for_on_demand_are_answered() {
    let _trace = meshwright_testkit::trace();
    let (mut node, reader) = Node1::new(Interest::Named);
    let asked = [
        "/10.96.0.10",
        "/10.244.2.3",
        "default/dual.default.svc.cluster.local",
        "/10.1.2.3",
    ];
    for name in asked {
        assert!(matches!(node.session.want(ADDRESS, name), Want::Ask(None)));
    }
    let first = node.session.open(NOW).remove(0);
    assert_eq!(
        first.resource_names_subscribe.len(),
        asked.len() + 1,
        "and the wildcard"
    );
    assert_eq!(first.resource_names_unsubscribe, ["*"]);
    node.play("l4-on-demand");
    assert_equals(&reader, &expected("l4-on-demand", "address"));
    let answers = asked.map(|name| node.session.want(ADDRESS, name));
    let [exists, gone] = [Want::Known(true), Want::Known(false)];
    assert_eq!(
        answers[..3].iter().filter(|a| **a == exists).count(),
        3,
        "{answers:?}"
    );
    assert_eq!(answers[3], gone);
}

#[test]
fn new_stream_tells_every_version_that_istiod_gave() {
    let _trace = meshwright_testkit::trace();
    let (mut node, _reader) = Node1::new(Interest::All);
    node.session.open(NOW);
    node.play("l4");
    node.session.close();
    let again = node.session.open(NOW);
    let versions: BTreeMap<String, String> = messages("l4", "address")
        .into_iter()
        .flat_map(|m| m.resources)
        .map(|r| (r.name, r.version))
        .collect();
    assert_eq!(again[0].initial_resource_versions, versions);
    assert!(versions.values().all(|v| !v.is_empty()));
    let policies = &again[1].initial_resource_versions;
    assert_eq!(policies.len(), expected("l4", "authorization").len());
    assert!(
        policies.values().all(String::is_empty),
        "policies have no versions"
    );
}

#[cfg(feature = "server")]
#[test]
fn our_names_and_aliases_are_those_of_istiod() {
    use meshwright_xds_client::{proto::workload::Address, server::ServedResource};
    let _trace = meshwright_testkit::trace();
    // On a wildcard stream there are no aliases.
    for resource in messages("l4-on-demand", "address")
        .into_iter()
        .flat_map(|m| m.resources)
    {
        let address = Address::decode(resource.resource.unwrap().value).unwrap();
        let ours = ServedResource::address(&address);
        let mut aliases: Vec<String> = ours.aliases.iter().map(ToString::to_string).collect();
        aliases.sort();
        let mut theirs = resource.aliases;
        theirs.sort();
        assert_eq!((&*ours.name, aliases), (&*resource.name, theirs));
    }
}
