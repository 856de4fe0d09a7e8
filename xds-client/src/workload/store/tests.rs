use std::{net::IpAddr, sync::Arc};

use prost::Message;

use super::Store;
use crate::{
    handler::{Handler, Resource, Update},
    proto::workload::{
        self as wire, Address, LoadBalancing, NetworkAddress, NetworkMode, Port, PortList,
        TunnelProtocol, WorkloadStatus, address::Type, load_balancing,
    },
    workload::{Reader, Snapshot},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bytes(text: &str) -> bytes::Bytes {
    match ip(text) {
        IpAddr::V4(v4) => v4.octets().to_vec().into(),
        IpAddr::V6(v6) => v6.octets().to_vec().into(),
    }
}

fn workload(uid: &str, address: &str, services: &[&str]) -> wire::Workload {
    let ports = PortList {
        ports: vec![Port {
            service_port: 80,
            target_port: 8080,
            ..Port::default()
        }],
    };
    wire::Workload {
        uid: uid.to_owned(),
        name: uid.rsplit('/').next().unwrap().to_owned(),
        namespace: "shop".to_owned(),
        addresses: vec![bytes(address)],
        services: services
            .iter()
            .map(|key| ((*key).to_owned(), ports.clone()))
            .collect(),
        ..wire::Workload::default()
    }
}

fn service(namespace: &str, hostname: &str, vips: &[(&str, Option<u32>)]) -> wire::Service {
    wire::Service {
        namespace: namespace.to_owned(),
        hostname: hostname.to_owned(),
        addresses: vips
            .iter()
            .map(|(ip, length)| NetworkAddress {
                network: String::new(),
                address: bytes(ip),
                length: *length,
            })
            .collect(),
        ..wire::Service::default()
    }
}

fn put(store: &mut Store, record: Type) -> Vec<String> {
    let name = match &record {
        Type::Workload(w) => w.uid.clone(),
        Type::Service(s) => format!("{}/{}", s.namespace, s.hostname),
    };
    put_as(store, &name, record)
}

fn put_as(store: &mut Store, name: &str, record: Type) -> Vec<String> {
    let body = Address {
        r#type: Some(record),
    };
    let resources = [Resource::new(name, body.encode_to_vec())];
    let rejected = store.apply(Update::new(&resources, &[]));
    rejected.iter().map(ToString::to_string).collect()
}

fn put_workload(store: &mut Store, workload: wire::Workload) {
    assert_eq!(put(store, Type::Workload(workload)), [""; 0]);
}

fn put_service(store: &mut Store, service: wire::Service) {
    assert_eq!(put(store, Type::Service(service)), [""; 0]);
}

fn remove(store: &mut Store, name: &str) {
    let rejected = store.apply(Update::new(&[], &[name.into()]));
    assert_eq!(rejected, []);
}

fn endpoints(snapshot: &Snapshot, key: &str) -> Vec<String> {
    let service = Arc::clone(snapshot.service(key).unwrap());
    let mut uids: Vec<String> = snapshot
        .endpoints(&service)
        .map(|endpoint| endpoint.workload.uid().to_string())
        .collect();
    uids.sort();
    uids
}

fn owner(reader: &Reader, address: &str) -> Option<String> {
    let snapshot = reader.snapshot();
    let found = snapshot.workload_by_address("", ip(address));
    found.map(|w| w.uid().to_string())
}

#[test]
fn workloads_whose_policies_may_have_changed_are_told_and_no_others() {
    let _trace = meshwright_testkit::trace();
    let (mut store, _reader) = Store::new(None);
    let uids = ["c//Pod/shop/a", "c//Pod/shop/b", "c//Pod/shop/c"];
    for (uid, address) in uids.iter().zip(["10.0.0.1", "10.0.0.2", "10.0.0.3"]) {
        put_workload(&mut store, workload(uid, address, &[]));
    }
    assert_eq!(
        store.take_concerned(),
        Some(vec![]),
        "nobody calls what is new"
    );
    let mut listing = workload(uids[0], "10.0.0.1", &[]);
    listing.authorization_policies = vec!["shop/p".to_owned()];
    put_workload(&mut store, listing.clone());
    put_workload(&mut store, listing);
    put_workload(&mut store, workload(uids[1], "10.0.0.9", &[]));
    remove(&mut store, uids[2]);
    let concerned = Some(vec![uids[0].into(), uids[2].into()]);
    assert_eq!(store.take_concerned(), concerned);
    assert_eq!(store.take_concerned(), Some(vec![]), "they are told once");
    for n in 0..2000 {
        let uid = format!("c//Pod/shop/{n}");
        put_workload(&mut store, workload(&uid, "10.0.1.1", &[]));
        remove(&mut store, &uid);
    }
    assert_eq!(store.take_concerned(), None, "too many to tell apart");
}

#[test]
fn published_state_is_visible_before_apply_returns() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    put_workload(&mut store, workload("c//Pod/shop/a", "10.0.0.1", &[]));
    assert_eq!(owner(&reader, "10.0.0.1").as_deref(), Some("c//Pod/shop/a"));
    assert_eq!(reader.snapshot().generation(), 1);
}

#[test]
fn of_two_resources_with_one_name_the_last_wins_and_a_removal_wins_over_both() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let encode = |w: wire::Workload| {
        let body = Address {
            r#type: Some(Type::Workload(w)),
        };
        Resource::new("c//Pod/shop/a", body.encode_to_vec())
    };
    let twice = [
        encode(workload("c//Pod/shop/a", "10.0.0.1", &[])),
        encode(workload("c//Pod/shop/a", "10.0.0.2", &[])),
    ];
    assert_eq!(store.apply(Update::new(&twice, &[])), []);
    assert_eq!(owner(&reader, "10.0.0.1"), None);
    assert!(owner(&reader, "10.0.0.2").is_some());
    let gone = ["c//Pod/shop/a".into()];
    assert_eq!(store.apply(Update::new(&twice, &gone)), []);
    assert_eq!(reader.snapshot().workload_count(), 0);
    assert_eq!(owner(&reader, "10.0.0.2"), None);
}

#[test]
fn bad_resources_are_named_and_the_good_ones_of_the_same_message_apply() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let good = Address {
        r#type: Some(Type::Workload(workload("c//Pod/shop/a", "10.0.0.1", &[]))),
    };
    let resources = [
        Resource::new("bad", vec![0xff]),
        Resource::new("c//Pod/shop/a", good.encode_to_vec()),
        Resource::new("empty", Vec::new()),
    ];
    let rejected = store.apply(Update::new(&resources, &[]));
    assert_eq!(&*rejected[0].name, "bad");
    assert!(
        rejected[0]
            .reason
            .starts_with("the message cannot be decoded: ")
    );
    assert_eq!(rejected[1].to_string(), "empty: `type` is missing");
    assert!(owner(&reader, "10.0.0.1").is_some());
}

#[test]
fn rejected_update_leaves_the_earlier_version_in_force() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    put_workload(&mut store, workload("c//Pod/shop/a", "10.0.0.1", &[]));
    let mut bad = workload("c//Pod/shop/a", "10.0.0.2", &[]);
    bad.network_mode = 7;
    let rejected = put(&mut store, Type::Workload(bad));
    assert_eq!(
        rejected,
        ["c//Pod/shop/a: `network_mode` has the unknown value 7"]
    );
    assert!(owner(&reader, "10.0.0.1").is_some());
}

#[test]
fn unchanged_record_stays_the_same_allocation() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    put_workload(&mut store, workload("c//Pod/shop/a", "10.0.0.1", &[]));
    let before = Arc::clone(reader.snapshot().workload_by_uid("c//Pod/shop/a").unwrap());
    put_workload(&mut store, workload("c//Pod/shop/a", "10.0.0.1", &[]));
    put_workload(&mut store, workload("c//Pod/shop/b", "10.0.0.2", &[]));
    let snapshot = reader.snapshot();
    let after = snapshot.workload_by_uid("c//Pod/shop/a").unwrap();
    assert!(Arc::ptr_eq(&before, after));
    assert_eq!(snapshot.generation(), 2, "nothing new was published for it");
}

#[test]
fn pod_in_the_mesh_owns_an_address_that_others_claim_whatever_the_order() {
    let _trace = meshwright_testkit::trace();
    let claims = [
        "c//Pod/shop/plain",
        "c//Pod/shop/mesh",
        "c/entry/mesh",
        "c/entry/plain",
    ];
    let protocols = [0, 1, 1, 0];
    for first in 0..4 {
        let (mut store, reader) = Store::new(None);
        for n in 0..4 {
            let n = (first + n) % 4;
            let mut w = workload(claims[n], "10.0.0.1", &[]);
            w.tunnel_protocol = protocols[n];
            put_workload(&mut store, w);
        }
        for expected in [
            "c//Pod/shop/mesh",
            "c//Pod/shop/plain",
            "c/entry/mesh",
            "c/entry/plain",
        ] {
            assert_eq!(owner(&reader, "10.0.0.1").as_deref(), Some(expected));
            remove(&mut store, expected);
        }
        assert_eq!(owner(&reader, "10.0.0.1"), None);
    }
}

#[test]
fn equals_on_one_address_are_told_apart_by_uid() {
    let _trace = meshwright_testkit::trace();
    for order in [["a", "b"], ["b", "a"]] {
        let (mut store, reader) = Store::new(None);
        for uid in order {
            put_workload(&mut store, workload(uid, "10.0.0.1", &[]));
        }
        assert_eq!(owner(&reader, "10.0.0.1").as_deref(), Some("a"));
    }
}

#[test]
fn node_addresses_identify_nobody() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let mut w = workload("c//Pod/shop/agent", "172.18.0.3", &[]);
    w.network_mode = NetworkMode::HostNetwork.into();
    put_workload(&mut store, w.clone());
    assert_eq!(owner(&reader, "172.18.0.3"), None);
    w.network_mode = NetworkMode::Standard.into();
    put_workload(&mut store, w.clone());
    assert!(owner(&reader, "172.18.0.3").is_some());
    w.network_mode = NetworkMode::HostNetwork.into();
    put_workload(&mut store, w);
    assert_eq!(owner(&reader, "172.18.0.3"), None);
}

#[test]
fn endpoints_wait_for_their_service_and_survive_its_removal() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let key = "shop/web.shop.svc.cluster.local";
    put_workload(&mut store, workload("c//Pod/shop/a", "10.0.0.1", &[key]));
    let snapshot = reader.snapshot();
    let staged: Vec<_> = snapshot.staged_endpoints().collect();
    assert_eq!((staged.len(), &**staged[0].0), (1, key));
    assert_eq!(snapshot.service_count(), 0);
    for _ in 0..2 {
        put_service(
            &mut store,
            service("shop", "web.shop.svc.cluster.local", &[]),
        );
        let snapshot = reader.snapshot();
        assert_eq!(endpoints(&snapshot, key), ["c//Pod/shop/a"]);
        assert_eq!(snapshot.staged_endpoints().count(), 0);
        remove(&mut store, key);
        assert!(reader.snapshot().service(key).is_none());
    }
    remove(&mut store, "c//Pod/shop/a");
    assert_eq!(reader.snapshot().staged_endpoints().count(), 0);
    assert_eq!(reader.snapshot().services.len(), 0, "no empty slot is left");
}

#[test]
fn health_policy_is_applied_again_when_the_service_changes() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let key = "shop/web";
    let mut w = workload("c//Pod/shop/a", "10.0.0.1", &[key]);
    w.status = WorkloadStatus::Unhealthy.into();
    put_workload(&mut store, w);
    let mut s = service("shop", "web", &[]);
    put_service(&mut store, s.clone());
    assert_eq!(endpoints(&reader.snapshot(), key), [""; 0]);
    s.load_balancing = Some(LoadBalancing {
        health_policy: load_balancing::HealthPolicy::AllowAll.into(),
        ..LoadBalancing::default()
    });
    put_service(&mut store, s.clone());
    assert_eq!(endpoints(&reader.snapshot(), key), ["c//Pod/shop/a"]);
    s.load_balancing = None;
    put_service(&mut store, s);
    assert_eq!(endpoints(&reader.snapshot(), key), [""; 0]);
}

#[test]
fn workload_that_leaves_a_service_is_no_endpoint_any_more() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    put_service(&mut store, service("shop", "web", &[]));
    put_service(&mut store, service("shop", "api", &[]));
    let both = workload("c//Pod/shop/a", "10.0.0.1", &["shop/api", "shop/web"]);
    put_workload(&mut store, both);
    put_workload(
        &mut store,
        workload("c//Pod/shop/a", "10.0.0.1", &["shop/api"]),
    );
    assert_eq!(endpoints(&reader.snapshot(), "shop/web"), [""; 0]);
    assert_eq!(endpoints(&reader.snapshot(), "shop/api"), ["c//Pod/shop/a"]);
}

#[test]
fn service_choice_prefers_own_namespace_then_canonical_then_the_smallest_key() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let vip = [("10.96.0.1", None)];
    for namespace in ["c", "b", "a"] {
        let mut s = service(namespace, "db.example.com", &vip);
        s.canonical = namespace == "b";
        put_service(&mut store, s);
    }
    let snapshot = reader.snapshot();
    let pick = |client| {
        let by_host = snapshot.service_by_hostname("db.example.com", client);
        let by_vip = snapshot.service_by_vip("", ip("10.96.0.1"), client);
        assert_eq!(by_host, by_vip, "both look-ups follow one rule");
        by_vip.map(|s| s.namespace().to_string())
    };
    assert_eq!(pick(Some("c")).as_deref(), Some("c"));
    assert_eq!(pick(Some("x")).as_deref(), Some("b"));
    assert_eq!(pick(None).as_deref(), Some("b"));
    remove(&mut store, "b/db.example.com");
    let snapshot = reader.snapshot();
    let left = snapshot.service_by_hostname("db.example.com", None);
    assert_eq!(left.map(|s| &**s.namespace()), Some("a"));
    assert!(snapshot.service_in("c", "db.example.com").is_some());
}

#[test]
fn private_service_is_invisible_to_other_namespaces() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let mut s = service(
        "shop",
        "db",
        &[("10.96.0.1", None), ("10.97.0.0", Some(16))],
    );
    s.visibility = wire::service::Visibility::Namespace.into();
    put_service(&mut store, s);
    let snapshot = reader.snapshot();
    let seen = |client| {
        (
            snapshot.service_by_hostname("db", client).is_some(),
            snapshot
                .service_by_vip("", ip("10.96.0.1"), client)
                .is_some(),
            snapshot
                .service_by_vip("", ip("10.97.3.3"), client)
                .is_some(),
        )
    };
    assert_eq!(seen(Some("shop")), (true, true, true));
    assert_eq!(seen(Some("other")), (false, false, false));
    assert_eq!(seen(None), (true, true, true), "no client, no filter");
}

#[test]
fn ranges_count_after_addresses_and_the_longest_prefix_wins() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    put_service(&mut store, service("a", "wide", &[("10.0.0.0", Some(8))]));
    put_service(
        &mut store,
        service("a", "narrow", &[("10.1.0.0", Some(16))]),
    );
    put_service(&mut store, service("b", "own", &[("10.0.0.0", Some(8))]));
    put_service(&mut store, service("a", "exact", &[("10.1.2.3", Some(32))]));
    put_service(&mut store, service("a", "six", &[("fd00::", Some(8))]));
    let find = |address: &str, client| {
        let snapshot = reader.snapshot();
        let found = snapshot.service_by_vip("", ip(address), client);
        found.map(|s| s.hostname().to_string())
    };
    assert_eq!(find("10.1.2.3", None).as_deref(), Some("exact"));
    assert_eq!(find("10.1.2.4", None).as_deref(), Some("narrow"));
    assert_eq!(find("10.1.2.4", Some("b")).as_deref(), Some("own"));
    assert_eq!(find("10.2.0.0", None).as_deref(), Some("wide"));
    assert_eq!(find("fe00::1", None).as_deref(), None);
    assert_eq!(find("fd00::1", None).as_deref(), Some("six"));
    assert_eq!(find("11.0.0.1", None), None);
    remove(&mut store, "a/narrow");
    assert_eq!(find("10.1.2.4", None).as_deref(), Some("wide"));
}

#[test]
fn pod_is_found_by_what_the_node_agent_knows_on_its_own_node_only() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(Some("node-a"));
    let mut here = workload("c//Pod/shop/web", "10.0.0.1", &[]);
    here.node = "node-a".to_owned();
    here.service_account = "web".to_owned();
    let mut there = workload("c//Pod/shop/far", "10.0.0.2", &[]);
    there.node = "node-b".to_owned();
    put_workload(&mut store, here.clone());
    put_workload(&mut store, there);
    let snapshot = reader.snapshot();
    assert!(snapshot.workload_of_pod("shop", "web", "web").is_some());
    assert!(snapshot.workload_of_pod("shop", "web", "other").is_none());
    assert!(snapshot.workload_of_pod("shop", "far", "default").is_none());
    assert_eq!(snapshot.local_workloads().count(), 1);
    assert_eq!(snapshot.local_workloads_of("shop", "web").count(), 1);
    here.node = "node-b".to_owned();
    put_workload(&mut store, here);
    let snapshot = reader.snapshot();
    assert!(snapshot.workload_of_pod("shop", "web", "web").is_none());
    assert_eq!(snapshot.local_workloads().count(), 0);
    assert_eq!(snapshot.local_workloads_of("shop", "web").count(), 0);
}

#[test]
fn removals_of_anything_unknown_are_harmless() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    put_workload(
        &mut store,
        workload("c//Pod/shop/a", "10.0.0.1", &["shop/web"]),
    );
    put_service(&mut store, service("shop", "web", &[]));
    let long = "x".repeat(1 << 20);
    for name in ["never-sent", "", "a/b\0c", "///", "shop/web/", &long] {
        remove(&mut store, name);
    }
    let snapshot = reader.snapshot();
    assert_eq!(
        (snapshot.workload_count(), snapshot.service_count()),
        (1, 1)
    );
}

#[test]
fn resource_under_another_name_is_removed_by_that_name() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let first = Type::Workload(workload("c//Pod/shop/a", "10.0.0.1", &[]));
    assert_eq!(put_as(&mut store, "alias", first), [""; 0]);
    let second = Type::Workload(workload("c//Pod/shop/b", "10.0.0.2", &[]));
    assert_eq!(put_as(&mut store, "alias", second), [""; 0]);
    assert_eq!(
        reader.snapshot().workload_count(),
        1,
        "the first meaning is gone"
    );
    remove(&mut store, "alias");
    assert_eq!(reader.snapshot().workload_count(), 0);
    assert!(store.renamed.is_empty());
}

#[test]
fn name_that_turns_from_workload_to_service_leaves_no_workload() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    put_workload(&mut store, workload("shop/web", "10.0.0.1", &[]));
    put_service(&mut store, service("shop", "web", &[]));
    let snapshot = reader.snapshot();
    assert_eq!(
        (snapshot.workload_count(), snapshot.service_count()),
        (0, 1)
    );
    put_workload(&mut store, workload("shop/web", "10.0.0.1", &[]));
    let snapshot = reader.snapshot();
    assert_eq!(
        (snapshot.workload_count(), snapshot.service_count()),
        (1, 0)
    );
}

#[test]
fn mapped_address_is_the_version_4_address() {
    let _trace = meshwright_testkit::trace();
    let (mut store, reader) = Store::new(None);
    let mut w = workload("c//Pod/shop/a", "::ffff:10.0.0.1", &[]);
    w.tunnel_protocol = TunnelProtocol::Hbone.into();
    put_workload(&mut store, w);
    assert!(owner(&reader, "10.0.0.1").is_some());
    assert!(owner(&reader, "::ffff:10.0.0.1").is_some());
}

#[tokio::test]
async fn slow_reader_sees_the_newest_state_once() {
    let _trace = meshwright_testkit::trace();
    let (mut store, mut reader) = Store::new(None);
    put_workload(&mut store, workload("a", "10.0.0.1", &[]));
    put_workload(&mut store, workload("b", "10.0.0.2", &[]));
    assert_eq!(reader.changed().await.unwrap().workload_count(), 2);
    drop(store);
    let closed = reader.changed().await.unwrap_err();
    assert_eq!(closed.to_string(), "the workload store is closed");
    assert_eq!(reader.snapshot().workload_count(), 2);
}
