//! What the recordings of istiod do not show.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeMap;

use meshwright_control_plane::{
    Manifests,
    compile::{Compiled, Mesh, compile},
};
use meshwright_xds_client::proto::workload::{
    GatewayAddress, NetworkMode, Service, TunnelProtocol, Workload, WorkloadStatus, address,
    application_tunnel,
    gateway_address::Destination,
    load_balancing::{Mode, Scope},
};

fn mesh() -> Mesh {
    Mesh::new("cluster.local".parse().unwrap())
}

fn compiled(text: &str) -> Compiled {
    let manifests = Manifests::parse("m.yaml", text).unwrap_or_else(|error| panic!("{error}"));
    compile(&manifests, &mesh()).unwrap()
}

fn workloads(compiled: &Compiled) -> BTreeMap<String, Workload> {
    let workloads =
        compiled
            .addresses
            .iter()
            .filter_map(|address| match address.r#type.clone()? {
                address::Type::Workload(workload) => Some((workload.name.clone(), workload)),
                address::Type::Service(_) => None,
            });
    workloads.collect()
}

fn services(compiled: &Compiled) -> BTreeMap<String, Service> {
    let services =
        compiled
            .addresses
            .iter()
            .filter_map(|address| match address.r#type.clone()? {
                address::Type::Service(service) => Some((
                    format!("{}/{}", service.namespace, service.hostname),
                    service,
                )),
                address::Type::Workload(_) => None,
            });
    services.collect()
}

fn object(kind: &str, metadata: &str, spec: &str) -> String {
    let version = match kind {
        "Workload" => "meshwright.dev/v1alpha1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "Gateway" | "GatewayClass" => "gateway.networking.k8s.io/v1",
        "ServiceEntry" | "WorkloadEntry" => "networking.istio.io/v1",
        "AuthorizationPolicy" | "PeerAuthentication" => "security.istio.io/v1",
        _ => "v1",
    };
    format!("---\napiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\n{spec}\n")
}

fn host(address: Option<&GatewayAddress>) -> Option<String> {
    match address?.destination.as_ref()? {
        Destination::Hostname(name) => Some(format!("{}/{}", name.namespace, name.hostname)),
        Destination::Address(address) => Some(format!("{:?}", address.address.to_vec())),
    }
}

#[test]
fn workload_stand_in_can_say_everything_a_pod_can() {
    let _trace = meshwright_testkit::trace();
    let spec = "spec: {addresses: [10.0.0.1, 'fd00::1'], node: n, serviceAccount: s, hostNetwork: true, ready: false, capture: true, \
                network: net-2, locality: r/z/s, weight: 7}";
    let all = workloads(&compiled(&object(
        "Workload",
        "{name: a, namespace: shop, labels: {app: x, version: v9}}",
        spec,
    )));
    let workload = &all["a"];
    assert_eq!(workload.uid, "Kubernetes//Pod/shop/a");
    assert_eq!(workload.addresses.len(), 2);
    assert_eq!(
        (workload.node.as_str(), workload.service_account.as_str()),
        ("n", "s")
    );
    assert_eq!(
        (
            workload.canonical_name.as_str(),
            workload.canonical_revision.as_str()
        ),
        ("x", "v9")
    );
    assert_eq!(workload.network_mode, 1);
    assert_eq!(workload.status(), WorkloadStatus::Unhealthy);
    assert_eq!(workload.tunnel_protocol(), TunnelProtocol::Hbone);
    assert_eq!(workload.network, "net-2");
    assert_eq!(workload.locality.as_ref().unwrap().subzone, "s");
    assert_eq!(workload.capacity, Some(7));
}

#[test]
fn pod_is_captured_when_the_agent_says_so_and_a_stand_in_when_its_labels_do() {
    let _trace = meshwright_testkit::trace();
    let status = "status: {podIP: 10.0.0.1}";
    let text = [
        object(
            "Namespace",
            "{name: default, labels: {istio.io/dataplane-mode: ambient}}",
            "",
        ),
        object("Pod", "{name: labelled-only}", status),
        object(
            "Pod",
            "{name: captured, annotations: {ambient.istio.io/redirection: enabled}}",
            "status: {podIP: 10.0.0.2}",
        ),
        object(
            "Pod",
            "{name: native, labels: {networking.istio.io/tunnel: http}}",
            "status: {podIP: 10.0.0.3}",
        ),
        object(
            "Workload",
            "{name: stand-in}",
            "spec: {addresses: [10.0.0.4]}",
        ),
        object(
            "Workload",
            "{name: opted-out, labels: {istio.io/dataplane-mode: none}}",
            "spec: {addresses: [10.0.0.5]}",
        ),
        object(
            "Workload",
            "{name: not-yet}",
            "spec: {addresses: [10.0.0.6], capture: false}",
        ),
        object(
            "Workload",
            "{name: on-host}",
            "spec: {addresses: [10.0.0.7], hostNetwork: true}",
        ),
    ];
    let all = workloads(&compiled(&text.concat()));
    let captured: Vec<_> = all
        .values()
        .filter(|w| w.tunnel_protocol() == TunnelProtocol::Hbone)
        .map(|w| w.name.as_str())
        .collect();
    assert_eq!(captured, ["captured", "native", "stand-in"]);
    assert!(all["native"].native_tunnel);
}

#[test]
fn ended_pods_and_pods_without_address_are_not_served() {
    let _trace = meshwright_testkit::trace();
    let text = [
        object(
            "Pod",
            "{name: done}",
            "status: {podIP: 10.0.0.1, phase: Succeeded}",
        ),
        object("Pod", "{name: starting}", "status: {phase: Pending}"),
        object(
            "Pod",
            "{name: leaving, deletionTimestamp: '2026-01-01T00:00:00Z'}",
            "status: {podIP: 10.0.0.2}",
        ),
    ];
    let compiled = compiled(&text.concat());
    let all = workloads(&compiled);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["leaving"]);
    assert_eq!(all["leaving"].status(), WorkloadStatus::Unhealthy);
    assert_eq!(compiled.notes.len(), 1, "{:?}", compiled.notes);
    assert_eq!(compiled.notes[0].place.to_string(), "m.yaml:7:1");
}

#[test]
fn named_target_port_is_each_endpoints_own_and_an_endpoint_without_it_is_left_out() {
    let _trace = meshwright_testkit::trace();
    let text = [
        object(
            "Service",
            "{name: web}",
            "spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: app}, {name: \
                                           admin, port: 81, targetPort: '9000'}]}",
        ),
        object(
            "Workload",
            "{name: a, labels: {app: web}}",
            "spec: {addresses: [10.0.0.1], ports: {app: 8080}}",
        ),
        object(
            "Workload",
            "{name: b, labels: {app: web}}",
            "spec: {addresses: [10.0.0.2], ports: {app: 8081}}",
        ),
        object(
            "Workload",
            "{name: c, labels: {app: web}}",
            "spec: {addresses: [10.0.0.3]}",
        ),
        object(
            "Workload",
            "{name: d, namespace: other, labels: {app: web}}",
            "spec: {addresses: [10.0.0.4]}",
        ),
    ];
    let all = workloads(&compiled(&text.concat()));
    let ports = |name: &str| -> Vec<(u32, u32)> {
        let lists = all[name].services.values();
        lists
            .flat_map(|list| &list.ports)
            .map(|port| (port.service_port, port.target_port))
            .collect()
    };
    assert_eq!(ports("a"), [(80, 8080), (81, 9000)]);
    assert_eq!(ports("b"), [(80, 8081), (81, 9000)]);
    assert_eq!(
        ports("c"),
        [(81, 9000)],
        "not an endpoint of the named port"
    );
    assert_eq!(ports("d"), [], "another namespace");
}

#[test]
fn selector_policies_are_not_listed_by_workloads_without_labels() {
    let _trace = meshwright_testkit::trace();
    let text = [
        object(
            "AuthorizationPolicy",
            "{name: p}",
            "spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}",
        ),
        object("Workload", "{name: bare}", "spec: {addresses: [10.0.0.1]}"),
        object(
            "Workload",
            "{name: web, labels: {app: web}}",
            "spec: {addresses: [10.0.0.2]}",
        ),
    ];
    let all = workloads(&compiled(&text.concat()));
    assert!(all["bare"].authorization_policies.is_empty());
    assert_eq!(all["web"].authorization_policies, ["default/p"]);
}

/// The host name of the waypoint `shop/wp`.
const WP: &str = "shop/wp.shop.svc.cluster.local";

const WAYPOINTS: &str = "
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: wp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop, labels: {istio.io/waypoint-for: all}, annotations: {ambient.istio.io/waypoint-inbound-binding: PROXY/15088}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
status: {addresses: [{type: IPAddress, value: 10.96.0.9}, {type: Hostname, value: wp.shop.svc.cluster.local}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: infra}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {shared: 'yes'}}}}}]
status: {addresses: [{type: IPAddress, value: 10.96.0.8}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: guest, labels: {shared: 'yes', istio.io/use-waypoint: shared, istio.io/use-waypoint-namespace: infra}}
---
apiVersion: v1
kind: Namespace
metadata: {name: stranger, labels: {istio.io/use-waypoint: shared, istio.io/use-waypoint-namespace: infra}}
";

#[test]
fn services_go_through_the_waypoint_of_their_label_or_namespace_if_it_admits_them() {
    let _trace = meshwright_testkit::trace();
    let spec = "spec: {clusterIP: 10.96.1.1, ports: [{port: 80}]}";
    let text = [
        WAYPOINTS.to_owned(),
        object("Service", "{name: inherits, namespace: shop}", spec),
        object(
            "Service",
            "{name: out, namespace: shop, labels: {istio.io/use-waypoint: none}}",
            spec,
        ),
        object(
            "Service",
            "{name: lost, namespace: shop, labels: {istio.io/use-waypoint: nowhere}}",
            spec,
        ),
        object("Service", "{name: admitted, namespace: guest}", spec),
        object("Service", "{name: refused, namespace: stranger}", spec),
    ];
    let compiled = compiled(&text.concat());
    let services = services(&compiled).into_values();
    let by_name: BTreeMap<_, _> = services
        .map(|s| (s.name, host(s.waypoint.as_ref())))
        .collect();
    let why = "the host name in the status is preferred to the address";
    assert_eq!(by_name["inherits"].as_deref(), Some(WP), "{why}");
    assert_eq!(by_name["admitted"].as_deref(), Some("[10, 96, 0, 8]"));
    for name in ["out", "lost", "refused"] {
        assert_eq!(by_name[name], None, "{name}");
    }
    let notes: Vec<_> = compiled
        .notes
        .iter()
        .map(|note| note.text.as_str())
        .collect();
    assert_eq!(
        notes,
        [
            "there is no waypoint shop/nowhere",
            "the waypoint infra/shared does not admit this namespace"
        ]
    );
}

#[test]
fn workloads_go_through_a_waypoint_that_takes_workloads_and_its_instances_through_none() {
    let _trace = meshwright_testkit::trace();
    let instance =
        "{name: itself, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: wp}}";
    let by_spec = "spec: {addresses: [10.0.0.4], waypoint: shop/wp}";
    let text = [
        WAYPOINTS.to_owned(),
        object(
            "Workload",
            "{name: behind, namespace: shop}",
            "spec: {addresses: [10.0.0.1]}",
        ),
        object("Workload", instance, "spec: {addresses: [10.0.0.2]}"),
        object(
            "Workload",
            "{name: in-guest, namespace: guest}",
            "spec: {addresses: [10.0.0.3]}",
        ),
        object("Workload", "{name: refused, namespace: other}", by_spec),
        object("Workload", "{name: by-spec, namespace: shop}", by_spec),
    ];
    let all = workloads(&compiled(&text.concat()));
    let waypoint = |name: &str| host(all[name].waypoint.as_ref());
    assert_eq!(waypoint("behind").as_deref(), Some(WP));
    assert_eq!(waypoint("by-spec").as_deref(), Some(WP));
    assert_eq!(
        waypoint("itself"),
        None,
        "an instance of a waypoint is behind none"
    );
    assert_eq!(
        waypoint("in-guest"),
        None,
        "that waypoint takes services only"
    );
    assert_eq!(
        waypoint("refused"),
        None,
        "it admits its own namespace only"
    );
    let tunnel = all["itself"].application_tunnel.unwrap();
    let proxy = application_tunnel::Protocol::Proxy;
    assert_eq!((tunnel.protocol(), tunnel.port), (proxy, 15088));
}

#[test]
fn service_entries_pass_through_resolve_by_name_or_select() {
    let _trace = meshwright_testkit::trace();
    let text = [
        object(
            "ServiceEntry",
            "{name: pass}",
            "spec: {hosts: [p.example], addresses: [10.1.0.0/16], ports: [{number: 80, name: http, protocol: HTTP}], resolution: NONE}",
        ),
        object(
            "ServiceEntry",
            "{name: named}",
            "spec: {hosts: [n.example], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}\nstatus: {addresses: [{value: 240.240.0.1, host: n.example}]}",
        ),
        object(
            "ServiceEntry",
            "{name: chosen}",
            "spec: {hosts: [c.example], addresses: [240.0.0.1], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, workloadSelector: {labels: {app: vm}}}",
        ),
        object(
            "WorkloadEntry",
            "{name: vm}",
            "spec: {address: 10.9.0.1, labels: {app: vm}, ports: {http: 8080}, serviceAccount: vm, weight: 2}",
        ),
        object(
            "Workload",
            "{name: pod, labels: {app: vm}}",
            "spec: {addresses: [10.0.0.1], ports: {http: 8081}}",
        ),
    ];
    let compiled = compiled(&text.concat());
    let hosts = services(&compiled);
    assert_eq!(
        hosts["default/p.example"]
            .load_balancing
            .as_ref()
            .unwrap()
            .mode(),
        Mode::Passthrough
    );
    assert_eq!(hosts["default/p.example"].addresses[0].length, Some(16));
    assert_eq!(
        hosts["default/n.example"].addresses.len(),
        1,
        "the allocated address"
    );
    let all = workloads(&compiled);
    assert_eq!(
        all["named"].hostname, "n.example",
        "resolved when it is called"
    );
    let target = |name: &str| all[name].services["default/c.example"].ports[0].target_port;
    assert_eq!((target("vm"), target("pod")), (8080, 8081));
    assert_eq!(all["vm"].capacity, Some(2));
    assert!(!all.contains_key("pass"));
}

#[test]
fn host_written_twice_is_served_once_and_a_service_wins() {
    let _trace = meshwright_testkit::trace();
    let entry = |metadata: &str| {
        object(
            "ServiceEntry",
            metadata,
            "spec: {hosts: [web.default.svc.cluster.local], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.9}, {address: 10.0.0.9}]}",
        )
    };
    let text = [
        entry("{name: same-namespace}"),
        entry("{name: elsewhere, namespace: other}"),
        object(
            "Service",
            "{name: web}",
            "spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}",
        ),
    ];
    let compiled = compiled(&text.concat());
    let hosts = services(&compiled);
    assert_eq!(hosts.len(), 2);
    assert!(hosts["default/web.default.svc.cluster.local"].canonical);
    assert_eq!(hosts["default/web.default.svc.cluster.local"].name, "web");
    assert!(!hosts["other/web.default.svc.cluster.local"].canonical);
    let endpoints = compiled.addresses.iter().filter(|address| matches!(&address.r#type, Some(address::Type::Workload(w)) if w.name == "elsewhere"));
    assert_eq!(
        endpoints.count(),
        1,
        "an address written twice is one endpoint"
    );
}

#[test]
fn settings_of_the_mesh_show_in_every_record() {
    let _trace = meshwright_testkit::trace();
    let text = [
        object(
            "Namespace",
            "{name: root, labels: {topology.istio.io/network: net-1}}",
            "",
        ),
        object(
            "AuthorizationPolicy",
            "{name: everywhere, namespace: root}",
            "spec: {action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}",
        ),
        object(
            "Service",
            "{name: web}",
            "spec: {clusterIP: 10.96.0.1, trafficDistribution: PreferSameNode, ports: [{port: 80}]}",
        ),
        object("Workload", "{name: a}", "spec: {addresses: [10.0.0.1]}"),
    ];
    let manifests = Manifests::parse("m.yaml", &text.concat()).unwrap();
    let mut mesh = Mesh::new("example.org".parse().unwrap());
    mesh.cluster_id = "c1".to_owned();
    mesh.cluster_domain = "cluster.example".to_owned();
    mesh.root_namespace = "root".to_owned();
    let compiled = compile(&manifests, &mesh).unwrap();
    let workload = &workloads(&compiled)["a"];
    assert_eq!(workload.uid, "c1//Pod/default/a");
    assert_eq!(
        (workload.network.as_str(), workload.trust_domain.as_str()),
        ("net-1", "example.org")
    );
    let service = &services(&compiled)["default/web.default.svc.cluster.example"];
    assert_eq!(service.addresses[0].network, "net-1");
    let preference = service.load_balancing.as_ref().unwrap();
    assert_eq!(
        preference.routing_preference().next_back(),
        Some(Scope::Node)
    );
    assert_eq!(
        compiled.authorizations[0].1.scope, 0,
        "a policy of the root namespace is global"
    );
}

#[test]
fn slices_put_pods_behind_services_without_a_selector_and_are_workloads_otherwise() {
    let _trace = meshwright_testkit::trace();
    let service = "spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80, targetPort: 1}]}";
    let labels = "labels: {kubernetes.io/service-name: db}";
    let slice = "addressType: IPv4\nports: [{name: http, port: 5432}, {name: dns, port: 53, protocol: UDP}, {name: other, port: 9}]\nendpoints:\n\
                 - {addresses: [10.0.0.1], targetRef: {kind: Pod, name: p}}\n\
                 - {addresses: [192.0.2.1]}\n\
                 - {addresses: [192.0.2.1]}\n\
                 - {addresses: [192.0.2.2], conditions: {ready: false}}\n";
    let text = [
        object("Service", "{name: db}", service),
        object("EndpointSlice", &format!("{{name: db-1, {labels}}}"), slice),
        object("EndpointSlice", "{name: nobodys}", slice),
        object("Workload", "{name: p}", "spec: {addresses: [10.0.0.1]}"),
    ];
    let compiled = compiled(&text.concat());
    assert!(
        compiled.notes[0]
            .text
            .contains("kubernetes.io/service-name"),
        "{:?}",
        compiled.notes
    );
    let by_uid: BTreeMap<_, _> = compiled
        .addresses
        .iter()
        .filter_map(|address| match address.r#type.clone()? {
            address::Type::Workload(workload) => Some((workload.uid.clone(), workload)),
            address::Type::Service(_) => None,
        })
        .collect();
    let uid = "Kubernetes/discovery.k8s.io/EndpointSlice/default/db-1/192.0.2";
    assert_eq!(
        by_uid.keys().collect::<Vec<_>>(),
        [
            "Kubernetes//Pod/default/p",
            &format!("{uid}.1"),
            &format!("{uid}.2")
        ]
    );
    let ports = |uid: &str| {
        let ports = &by_uid[uid].services["default/db.default.svc.cluster.local"].ports;
        let ports = ports
            .iter()
            .map(|port| (port.service_port, port.target_port));
        ports.collect::<Vec<_>>()
    };
    assert_eq!(ports("Kubernetes//Pod/default/p"), [(80, 1)]);
    let (first, second) = (&by_uid[&format!("{uid}.1")], &by_uid[&format!("{uid}.2")]);
    assert_eq!(ports(&first.uid), [(80, 5432)]);
    assert_eq!(first.network_mode(), NetworkMode::HostNetwork);
    assert_eq!(first.status(), WorkloadStatus::Healthy);
    assert_eq!(second.status(), WorkloadStatus::Unhealthy);
}
