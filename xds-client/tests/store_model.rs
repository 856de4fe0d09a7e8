//! The store's indexes against a naive model, through random histories.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use meshwright_xds_client::{
    Handler, Resource, Snapshot, Store, Update,
    proto::workload::{
        Address, LoadBalancing, NetworkAddress, PortList, Service, Workload, address::Type,
        load_balancing::HealthPolicy,
    },
};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use prost::Message;

const NODE: &str = "node-0";

/// A mesh so small that histories collide.
#[derive(Clone, Debug)]
enum Step {
    Workload(W),
    Service(S),
    RemoveWorkload(u8),
    RemoveService(u8),
}

#[derive(Clone, Debug)]
struct W {
    id: u8,
    ips: Vec<u8>,
    services: BTreeSet<u8>,
    node: u8,
    mesh: bool,
    host_network: bool,
    unhealthy: bool,
    weight: u32,
}

#[derive(Clone, Debug)]
struct S {
    id: u8,
    vips: Vec<u8>,
    cidr: Option<u8>,
    canonical: bool,
    all_health: bool,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let ips = || prop::collection::vec(0..6_u8, 0..3);
    let flags = || (any::<bool>(), any::<bool>(), any::<bool>());
    let w = (
        0..8_u8,
        ips(),
        prop::collection::btree_set(0..4_u8, 0..3),
        0..3_u8,
        flags(),
        0..3_u32,
    );
    let w = w.prop_map(
        |(id, ips, services, node, (mesh, host, unhealthy), weight)| {
            let host_network = host && mesh;
            Step::Workload(W {
                id,
                ips,
                services,
                node,
                mesh,
                host_network,
                unhealthy,
                weight,
            })
        },
    );
    let s = (0..4_u8, ips(), prop::option::of(24..32_u8), flags());
    let s = s.prop_map(|(id, vips, cidr, (canonical, all_health, _))| {
        Step::Service(S {
            id,
            vips,
            cidr,
            canonical,
            all_health,
        })
    });
    let step = prop_oneof![
        5 => w,
        3 => s,
        2 => (0..8_u8).prop_map(Step::RemoveWorkload),
        1 => (0..4_u8).prop_map(Step::RemoveService),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..5), 0..20)
}

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn uid(id: u8) -> String {
    let kind = if id.is_multiple_of(2) { "Pod" } else { "entry" };
    format!("c//{kind}/shop/w{id}")
}

fn key(id: u8) -> String {
    format!("ns{id}/s.example.com")
}

fn workload(w: &W) -> Type {
    Type::Workload(Workload {
        uid: uid(w.id),
        name: format!("w{}", w.id),
        namespace: "shop".to_owned(),
        addresses: w
            .ips
            .iter()
            .map(|n| ip(*n).octets().to_vec().into())
            .collect(),
        services: w
            .services
            .iter()
            .map(|s| (key(*s), PortList::default()))
            .collect(),
        node: format!("node-{}", w.node),
        tunnel_protocol: i32::from(w.mesh),
        network_mode: i32::from(w.host_network),
        status: i32::from(w.unhealthy),
        capacity: Some(w.weight),
        ..Workload::default()
    })
}

fn service(s: &S) -> Type {
    let single = s.vips.iter().map(|n| (ip(*n), None));
    let range = s.cidr.map(|length| (ip(0), Some(u32::from(length))));
    let addresses = single.chain(range).map(|(ip, length)| NetworkAddress {
        address: ip.octets().to_vec().into(),
        length,
        ..NetworkAddress::default()
    });
    Type::Service(Service {
        namespace: format!("ns{}", s.id),
        hostname: "s.example.com".to_owned(),
        addresses: addresses.collect(),
        canonical: s.canonical,
        load_balancing: s.all_health.then(|| LoadBalancing {
            health_policy: HealthPolicy::AllowAll.into(),
            ..LoadBalancing::default()
        }),
        ..Service::default()
    })
}

#[derive(Default)]
struct Model {
    workloads: BTreeMap<u8, W>,
    services: BTreeMap<u8, S>,
}

impl Model {
    fn owner(&self, n: u8) -> Option<String> {
        let claims = self
            .workloads
            .values()
            .filter(|w| !w.host_network && w.ips.contains(&n));
        let rank = |w: &W| (u8::from(w.id.is_multiple_of(2)) * 2) + u8::from(w.mesh);
        // Pod in the mesh, pod, other in the mesh, other; then the smallest UID.
        let best = claims.max_by(|a, b| {
            rank(a)
                .cmp(&rank(b))
                .then_with(|| uid(b.id).cmp(&uid(a.id)))
        });
        best.map(|w| uid(w.id))
    }

    fn by_vip(&self, n: u8, client: Option<u8>) -> Option<String> {
        let order = |s: &&S| (Some(s.id) != client, !s.canonical, key(s.id));
        let exact = self
            .services
            .values()
            .filter(|s| s.vips.contains(&n))
            .min_by_key(order);
        let contains = |s: &&S| {
            s.cidr
                .is_some_and(|length| u32::from(n) >> (32 - u32::from(length)) == 0)
        };
        let ranged = self.services.values().filter(contains).min_by_key(|s| {
            (
                Some(s.id) != client,
                32 - s.cidr.unwrap(),
                !s.canonical,
                key(s.id),
            )
        });
        exact.or(ranged).map(|s| key(s.id))
    }

    fn endpoints(&self, s: &S) -> BTreeSet<String> {
        let members = self
            .workloads
            .values()
            .filter(|w| w.services.contains(&s.id));
        members
            .filter(|w| s.all_health || !w.unhealthy)
            .map(|w| uid(w.id))
            .collect()
    }

    fn staged(&self) -> BTreeSet<(String, String)> {
        let all = self
            .workloads
            .values()
            .flat_map(|w| w.services.iter().map(|s| (*s, w.id)));
        let staged = all.filter(|(s, _)| !self.services.contains_key(s));
        staged.map(|(s, w)| (key(s), uid(w))).collect()
    }

    fn check(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.workload_count(), self.workloads.len());
        assert_eq!(snapshot.service_count(), self.services.len());
        for n in 0..7 {
            let address = IpAddr::from(ip(n));
            let owner = snapshot
                .workload_by_address("", address)
                .map(|w| w.uid().to_string());
            assert_eq!(owner, self.owner(n), "owner of {address}");
            for client in [None, Some(0), Some(3)] {
                let namespace = client.map(|n: u8| format!("ns{n}"));
                let found = snapshot.service_by_vip("", address, namespace.as_deref());
                assert_eq!(found.map(|s| s.key().to_string()), self.by_vip(n, client));
            }
        }
        for s in self.services.values() {
            let service = snapshot.service(&key(s.id)).unwrap();
            let uids = snapshot
                .endpoints(service)
                .map(|e| e.workload.uid().to_string());
            assert_eq!(uids.collect::<BTreeSet<_>>(), self.endpoints(s));
        }
        let staged = snapshot
            .staged_endpoints()
            .map(|(key, e)| (key.to_string(), e.workload.uid().to_string()));
        assert_eq!(staged.collect::<BTreeSet<_>>(), self.staged());
        let local: BTreeSet<String> = snapshot
            .local_workloads()
            .map(|w| w.uid().to_string())
            .collect();
        let expected = self
            .workloads
            .values()
            .filter(|w| w.node == 0)
            .map(|w| uid(w.id));
        assert_eq!(local, expected.collect());
        for w in self.workloads.values() {
            assert!(snapshot.workload_by_uid(&uid(w.id)).is_some());
            let pod = snapshot.workload_of_pod("shop", &format!("w{}", w.id), "default");
            assert_eq!(pod.is_some(), w.node == 0);
        }
        assert_eq!(
            snapshot.local_workloads_of("shop", "default").count(),
            local.len()
        );
    }
}

/// One message: resources, then removals, as the protocol orders them.
fn play(store: &mut Store, model: &mut Model, steps: &[Step]) {
    let (mut resources, mut removed) = (Vec::new(), Vec::<Arc<str>>::new());
    let mut put = |name: String, record| {
        let address = Address {
            r#type: Some(record),
        };
        resources.push(Resource::new(name, address.encode_to_vec()));
    };
    for step in steps {
        match step {
            Step::Workload(w) => {
                put(uid(w.id), workload(w));
                model.workloads.insert(w.id, w.clone());
            }
            Step::Service(s) => {
                put(key(s.id), service(s));
                model.services.insert(s.id, s.clone());
            }
            Step::RemoveWorkload(id) => removed.push(uid(*id).into()),
            Step::RemoveService(id) => removed.push(key(*id).into()),
        }
    }
    model
        .workloads
        .retain(|id, _| !removed.iter().any(|name| **name == *uid(*id)));
    model
        .services
        .retain(|id, _| !removed.iter().any(|name| **name == *key(*id)));
    assert_eq!(store.apply(Update::new(&resources, &removed)), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// After each message every look-up answers as the model does, and an old snapshot never
    /// changes.
    #[test]
    fn every_look_up_agrees_with_a_naive_model(messages in steps()) {
        let _trace = meshwright_testkit::trace();
        let (mut store, reader) = Store::new(Some(NODE));
        let mut model = Model::default();
        let mut held = Vec::new();
        for steps in &messages {
            play(&mut store, &mut model, steps);
            let snapshot = reader.snapshot();
            model.check(&snapshot);
            let summary = format!("{:?}", snapshot.workloads().collect::<Vec<_>>());
            held.push((snapshot, summary));
        }
        for (snapshot, summary) in held {
            assert_eq!(format!("{:?}", snapshot.workloads().collect::<Vec<_>>()), summary);
        }
    }
}
