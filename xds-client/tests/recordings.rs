//! Everything that a real istiod sent, decoded, applied and queried.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use meshwright_xds_client::{
    Handler, Reader, Rejected, Snapshot, Store, Update,
    delta::{Interest, Session, SessionConfig, Verdict, Want},
    proto::{
        ADDRESS, AUTHORIZATION,
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    },
    route::{NoRoute, RouteKind, Source, outbound},
    workload::{Health, IpFamilies, LoadBalancingMode, NetworkMode, Protocol, Scope},
};
use prost::Message;
use rand::{SeedableRng, rngs::SmallRng};
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
    for (name, resource) in expected {
        match resource.get("workload") {
            Some(workload) => assert_workload(&snapshot, name, workload),
            None => assert_service(&snapshot, name, &resource["service"]),
        }
    }
    let count = snapshot.workload_count() + snapshot.service_count();
    assert_eq!(count, expected.len());
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn assert_workload(snapshot: &Snapshot, name: &str, expected: &Value) {
    let found = snapshot.workload_by_uid(name);
    let found = found.unwrap_or_else(|| panic!("{name} is missing"));
    assert_eq!(found.name(), text(&expected["name"]));
    assert_eq!(&**found.namespace(), text(&expected["namespace"]));
    assert_eq!(&**found.node(), text(&expected["node"]));
    assert_eq!(&**found.network(), text(&expected["network"]));
    assert_eq!(found.addresses().len(), list(&expected["addresses"]).len());
    let policies = found.authorization_policies().iter().map(|key| &**key);
    assert!(policies.eq(list(&expected["authorization_policies"]).iter().map(text)));
    let services = expected["services"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    assert_eq!(found.services().len(), services.len());
    for (key, ports) in services {
        let membership = found.membership(&key).unwrap();
        for port in list(&ports["ports"]) {
            let service = u16::try_from(port["service_port"].as_u64().unwrap()).unwrap();
            let target = port["target_port"].as_u64();
            assert_eq!(membership.target_port(service).map(u64::from), target);
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
}

fn assert_service(snapshot: &Snapshot, name: &str, expected: &Value) {
    let found = snapshot.service(name);
    let found = found.unwrap_or_else(|| panic!("{name} is missing"));
    assert_eq!(&**found.hostname(), text(&expected["hostname"]));
    let canonical = expected["canonical"].as_bool().unwrap_or(false);
    assert_eq!(found.canonical(), canonical);
    assert_eq!(found.ports().len(), list(&expected["ports"]).len());
    let addresses = found.vips().len() + found.cidr_vips().len();
    assert_eq!(addresses, list(&expected["addresses"]).len());
    let by_name = snapshot.service_by_hostname(found.hostname(), None);
    assert_eq!(by_name, Some(found));
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

fn whole_mesh() -> Arc<Snapshot> {
    let (mut node, reader) = Node1::new(Interest::All);
    node.session.open(NOW);
    node.play("l4");
    reader.snapshot()
}

fn hello(name: &str) -> String {
    format!("default/{name}.default.svc.cluster.local")
}

#[test]
fn addresses_lead_to_the_pods_that_own_them() {
    let _trace = meshwright_testkit::trace();
    let snapshot = whole_mesh();
    let pod = |network, address| {
        let found = snapshot.workload_by_address(network, ip(address));
        found.map(|w| w.uid().to_string())
    };
    assert_eq!(
        pod("", "10.244.1.2").unwrap(),
        "Kubernetes//Pod/default/sleep"
    );
    assert_eq!(
        pod("", "10.244.2.9"),
        pod("", "fd00:244:2::9"),
        "a dual-stack pod"
    );
    assert_eq!(
        pod("", "172.18.0.3"),
        None,
        "a node's address identifies nobody"
    );
    assert!(pod("net-2", "10.9.0.5").is_some());
    assert_eq!(pod("", "10.9.0.5"), None, "not on that network");
    let by_uid = |name: &str| {
        let uid = format!("Kubernetes//Pod/default/{name}");
        Arc::clone(snapshot.workload_by_uid(&uid).unwrap())
    };
    assert_eq!(by_uid("hosted").network_mode(), NetworkMode::HostNetwork);
    assert_eq!(by_uid("broken").health(), Health::Unhealthy);
    let weighted = snapshot.workload_by_address("", ip("198.51.100.8"));
    assert_eq!(weighted.unwrap().capacity(), 3);
}

#[test]
fn pods_of_the_own_node_are_found_by_name_and_account() {
    let _trace = meshwright_testkit::trace();
    let snapshot = whole_mesh();
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
        "with helloworld-v2, notsleep, ztunnel-a"
    );
    let local = snapshot.local_workloads_of("default", "helloworld");
    assert!(local.map(|w| w.name()).eq(["helloworld-v2"]));
    let other_node = snapshot.workload_of_pod("default", "dual", "dual");
    assert!(other_node.is_none());
}

#[test]
fn services_are_found_by_address_and_range_with_their_settings() {
    let _trace = meshwright_testkit::trace();
    let snapshot = whole_mesh();
    let by_vip = |address, namespace| {
        let found = snapshot.service_by_vip("", ip(address), namespace);
        found.map(|s| s.key().to_string())
    };
    assert_eq!(
        by_vip("10.96.0.10", Some("legacy")),
        Some(hello("helloworld"))
    );
    assert_eq!(by_vip("fd00:96::13", None), Some(hello("dual")));
    assert_eq!(
        by_vip("203.0.113.77", None).unwrap(),
        "default/db.example.com"
    );
    let shared = by_vip("240.240.0.7", None).unwrap();
    assert_eq!(shared, "default/db.example.com", "not the wildcard");
    assert_eq!(by_vip("203.0.114.1", None), None);
    let service = |name| Arc::clone(snapshot.service(&hello(name)).unwrap());
    let close = service("close");
    assert_eq!(close.load_balancing().mode, LoadBalancingMode::Failover);
    let scopes = [Scope::Network, Scope::Region, Scope::Zone];
    assert_eq!(*close.load_balancing().preferences, scopes);
    assert_eq!(service("dual").ip_families(), IpFamilies::Dual);
    let named = service("helloworld");
    assert_eq!((named.has_port(80), named.target_port(80)), (true, None));
    assert_eq!(named.target_port(8080), Some(5000));
    let endpoints = |name| {
        let service = service(name);
        let names = snapshot
            .endpoints(&service)
            .map(|e| e.workload.name().to_string());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let healthy = ["helloworld-v1-0", "helloworld-v1-1", "helloworld-v2"];
    assert!(endpoints("helloworld").iter().eq(healthy));
    assert_eq!(
        endpoints("close").len(),
        4,
        "all endpoints are allowed there"
    );
}

#[test]
fn routes_over_the_whole_mesh() {
    let _trace = meshwright_testkit::trace();
    let snapshot = whole_mesh();
    let sleep = snapshot
        .workload_of_pod("default", "sleep", "sleep")
        .unwrap();
    let source = Source::new(sleep, "", ip("10.244.1.2"));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut call = |to: &str| {
        let route = outbound(&snapshot, &source, to.parse().unwrap(), &mut rng)?;
        Ok::<_, NoRoute>((route.kind, route.workload.map(|w| w.name().to_string())))
    };
    let (kind, Some(name)) = call("10.96.0.10:80").unwrap() else {
        panic!("a service leads to an endpoint");
    };
    assert!(name.starts_with("helloworld-v") && matches!(kind, RouteKind::Hbone { .. }));
    let local = call("10.96.0.11:80").unwrap();
    assert_eq!(
        local.1.unwrap(),
        "helloworld-v2",
        "the only one on this node"
    );
    let close = call("10.96.0.12:80").unwrap();
    assert_eq!(
        close.1.unwrap(),
        "helloworld-v2",
        "the only one in this zone"
    );
    let plain = call("10.96.0.20:9000").unwrap().0;
    assert_eq!(plain, RouteKind::Tcp("10.244.2.20:9000".parse().unwrap()));
    let range = call("203.0.113.77:5432").unwrap().0;
    assert!(
        matches!(range, RouteKind::Tcp(to) if to.port() == 15432),
        "{range:?}"
    );
    let hosted = call("172.18.0.3:80").unwrap();
    assert_eq!(
        hosted,
        (
            RouteKind::Passthrough("172.18.0.3:80".parse().unwrap()),
            None
        )
    );
    let far = call("240.240.0.9:80").unwrap_err();
    assert!(matches!(
        far,
        NoRoute::NoHealthyUpstream { .. } | NoRoute::CrossNetwork { .. }
    ));
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
