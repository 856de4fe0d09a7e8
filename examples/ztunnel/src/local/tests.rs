use super::LocalMesh;
use meshwright_xds_client::proto::workload::Address;
use meshwright_xds_client::proto::workload::address::Type;

const MESH: &str = r#"
workloads:
- uid: cluster1//v1/Pod/default/local
  name: local
  namespace: default
  serviceAccount: default
  workloadIps: ["127.0.0.1"]
  protocol: HBONE
  node: local
  services:
    "default/example.com":
      80: 8080
services:
- name: local
  namespace: default
  hostname: example.com
  vips: ["/127.10.0.1"]
  ports:
    80: 8080
  waypoint: {destination: /10.0.0.9}
policies:
- name: deny-9999
  namespace: default
  scope: Namespace
  action: Deny
  rules:
  - - - notDestinationPorts: [9999]
        principals: [{Exact: cluster.local/ns/default/sa/other}, {Presence: []}]
        sourceIps: [10.0.0.0/8, "::1"]
"#;

#[test]
fn names_are_those_a_control_plane_gives() {
    let _trace = meshwright_testkit::trace();
    let mesh = LocalMesh::parse(MESH).unwrap();
    let names: Vec<_> = mesh
        .addresses
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["cluster1//v1/Pod/default/local", "default/example.com"]
    );
    assert_eq!(mesh.policies.first().unwrap().0, "default/deny-9999");
}

#[test]
fn every_field_of_an_entry_arrives_in_its_message() {
    let _trace = meshwright_testkit::trace();
    let mesh = LocalMesh::parse(MESH).unwrap();
    let Some(Type::Workload(workload)) = &mesh.addresses[0].1.r#type else {
        panic!("the first address is the workload");
    };
    assert_eq!(workload.addresses, [vec![127, 0, 0, 1]]);
    assert_eq!(
        workload.services["default/example.com"].ports[0].target_port,
        8080
    );
    let rules = &mesh.policies[0].1.rules;
    let one = &rules[0].clauses[0].matches[0];
    assert_eq!(one.not_destination_ports, [9999]);
    assert_eq!((one.principals.len(), one.source_ips.len()), (2, 2));
}

#[test]
fn services_may_name_endpoints_ranges_and_weighted_waypoints_as_the_dump_does() {
    let _trace = meshwright_testkit::trace();
    let text = r#"
workloads:
- {uid: u, applicationTunnel: {protocol: PROXY, port: null}}
services:
- namespace: n
  hostname: h
  cidrVips: [{network: "", cidr: 10.1.0.0/16}]
  endpoints: {u: {workloadUid: u, port: {80: 8080}, status: Healthy}}
  weightedWaypoints: [{destination: {destination: n/way, hboneMtlsPort: 15008}, weight: 3}]
"#;
    let mesh = LocalMesh::parse(text).unwrap();
    let [
        (
            _,
            Address {
                r#type: Some(Type::Workload(workload)),
            },
        ),
        (
            _,
            Address {
                r#type: Some(Type::Service(service)),
            },
        ),
    ] = &*mesh.addresses
    else {
        panic!("a workload and a service");
    };
    assert_eq!(workload.services["n/h"].ports[0].target_port, 8080);
    assert_eq!(service.addresses[0].length, Some(16));
    assert_eq!(service.weighted_waypoints[0].weight, 3);
    let lost = text.replace("workloadUid: u", "workloadUid: other");
    let error = LocalMesh::parse(&lost).unwrap_err().to_string();
    assert!(error.contains("\"other\" is not a workload"), "{error}");
}

#[test]
fn all_faults_are_named_at_once() {
    let _trace = meshwright_testkit::trace();
    let error = LocalMesh::parse(
        "workloads: [{uid: a, workloadIps: [nonsense]}]\nservices: [{namespace: n, hostname: h, vips: [10.0.0.1]}]",
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("workloads[0].workloadIps"), "{text}");
    assert!(text.contains("services[0].vips"), "{text}");
}

#[test]
fn an_unknown_field_is_refused_with_its_place() {
    let _trace = meshwright_testkit::trace();
    let error = LocalMesh::parse("workloads:\n- uid: a\n  colour: red\n").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("colour") && source.contains('3'),
        "{source}"
    );
    meshwright_testkit::assert_chain_says_each_thing_once(&error);
}
