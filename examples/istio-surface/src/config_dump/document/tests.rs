use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meshwright_identity::ca::CertificateAuthority;
use meshwright_identity::rotation::IdentityState;
use meshwright_identity::{SpiffeId, TrustDomain};
use meshwright_policy::proto as authz;
use meshwright_xds_client::Store;
use meshwright_xds_client::proto::workload as wire;
use prost::Message;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::super::certificates::{CertificateJson, Certificates};
use super::super::{
    BuildVersion, ConfigDocument, ConnectionProtocol, ConnectionState, PodState, ProxyState,
};

fn recorded(node: char) -> Value {
    let text = match node {
        'a' => include_str!("../../../tests/data/config_dump-a.json"),
        _ => include_str!("../../../tests/data/config_dump-b.json"),
    };
    serde_json::from_str(text).unwrap()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn octets(ip: &str) -> bytes::Bytes {
    match ip.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec().into(),
        IpAddr::V6(ip) => ip.octets().to_vec().into(),
    }
}

fn ports(value: &Value) -> Vec<wire::Port> {
    let port = |(service, target): (&String, &Value)| wire::Port {
        service_port: service.parse().unwrap(),
        target_port: target.as_u64().unwrap().try_into().unwrap(),
        app_protocol: 0,
    };
    value.as_object().unwrap().iter().map(port).collect()
}

/// The message from which the recorded workload came.
fn workload(value: &Value, services: &[Value]) -> wire::Workload {
    let member = |service: &Value| {
        let endpoint = service["endpoints"].get(value["uid"].as_str()?)?;
        let key = format!(
            "{}/{}",
            text(service, "namespace"),
            text(service, "hostname")
        );
        Some((
            key,
            wire::PortList {
                ports: ports(&endpoint["port"]),
            },
        ))
    };
    let locality = &value["locality"];
    wire::Workload {
        uid: text(value, "uid"),
        name: text(value, "name"),
        namespace: text(value, "namespace"),
        addresses: value["workloadIps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ip| octets(ip.as_str().unwrap()))
            .collect(),
        tunnel_protocol: i32::from(value["protocol"] == "HBONE"),
        trust_domain: text(value, "trustDomain"),
        service_account: text(value, "serviceAccount"),
        node: text(value, "node"),
        canonical_name: text(value, "canonicalName"),
        canonical_revision: text(value, "canonicalRevision"),
        workload_type: if value["workloadType"] == "pod" { 2 } else { 0 },
        workload_name: text(value, "workloadName"),
        services: services.iter().filter_map(member).collect(),
        authorization_policies: value["authorizationPolicies"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect(),
        cluster_id: text(value, "clusterId"),
        locality: Some(wire::Locality {
            region: text(locality, "region"),
            zone: text(locality, "zone"),
            subzone: text(locality, "subzone"),
        }),
        ..wire::Workload::default()
    }
}

fn service(value: &Value) -> wire::Service {
    let vip = |vip: &Value| {
        let (network, ip) = vip.as_str().unwrap().split_once('/').unwrap();
        wire::NetworkAddress {
            network: network.to_owned(),
            address: octets(ip),
            length: None,
        }
    };
    wire::Service {
        name: text(value, "name"),
        namespace: text(value, "namespace"),
        hostname: text(value, "hostname"),
        addresses: value["vips"].as_array().unwrap().iter().map(vip).collect(),
        ports: ports(&value["ports"]),
        canonical: value["canonical"].as_bool().unwrap(),
        ..wire::Service::default()
    }
}

fn snapshot(
    workloads: impl IntoIterator<Item = wire::Workload>,
    services: impl IntoIterator<Item = wire::Service>,
) -> Arc<meshwright_xds_client::Snapshot> {
    use wire::address::Type;
    let (mut store, reader) = Store::new(None);
    let workloads = workloads.into_iter().map(|workload| {
        let name = workload.uid.clone();
        (name, Type::Workload(workload))
    });
    let services = services.into_iter().map(|service| {
        let name = format!("{}/{}", service.namespace, service.hostname);
        (name, Type::Service(service))
    });
    for (name, address) in workloads.chain(services) {
        let address = wire::Address {
            r#type: Some(address),
        };
        store.insert(&name.into(), &address).unwrap();
    }
    store.publish();
    reader.snapshot()
}

/// Reads the strings of a recorded match back.
fn string_matches(value: &Value) -> Vec<authz::StringMatch> {
    use authz::string_match::MatchType;
    let one = |value: &Value| {
        let (kind, text) = value.as_object().unwrap().iter().next().unwrap();
        let text = text.as_str().unwrap_or_default().to_owned();
        let match_type = match kind.as_str() {
            "Exact" => MatchType::Exact(text),
            "Prefix" => MatchType::Prefix(text),
            "Suffix" => MatchType::Suffix(text),
            _ => MatchType::Presence(()),
        };
        authz::StringMatch {
            match_type: Some(match_type),
        }
    };
    value.as_array().into_iter().flatten().map(one).collect()
}

fn policy(value: &Value) -> authz::Authorization {
    let matching = |value: &Value| authz::Match {
        principals: string_matches(&value["principals"]),
        not_principals: string_matches(&value["notPrincipals"]),
        destination_ports: value["destinationPorts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|port| u32::try_from(port.as_u64().unwrap()).unwrap())
            .collect(),
        ..authz::Match::default()
    };
    let list = |value: &Value| value.as_array().unwrap().clone();
    let clause = |value: Value| authz::Clause {
        matches: list(&value).iter().map(matching).collect(),
    };
    let rule = |value: Value| authz::Rule {
        clauses: list(&value).into_iter().map(clause).collect(),
    };
    authz::Authorization {
        name: text(value, "name"),
        namespace: text(value, "namespace"),
        scope: 2,
        action: i32::from(value["action"] == "Deny"),
        rules: list(&value["rules"]).into_iter().map(rule).collect(),
        dry_run: false,
    }
}

fn converted(policy: &authz::Authorization) -> Arc<meshwright_policy::Policy> {
    let name = format!("{}/{}", policy.namespace, policy.name);
    Arc::new(meshwright_policy::convert(&name, &policy.encode_to_vec()).unwrap())
}

fn written(document: &ConfigDocument) -> Value {
    let mut json = Vec::new();
    document.write(&mut json).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// The structure of a value: keys and kinds, without what differs from run to run.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| (key.clone(), shape(value));
            Value::Object(map.iter().map(entry).collect())
        }
        Value::Array(list) => list.iter().map(shape).collect(),
        Value::String(text) => {
            let digit = |c: char| if c.is_ascii_digit() { '0' } else { c };
            match text.len() {
                20 if text.ends_with('Z') => text.chars().map(digit).collect::<String>().into(),
                _ => json!("text"),
            }
        }
        Value::Number(_) => json!(0),
        Value::Bool(_) | Value::Null => value.clone(),
    }
}

#[test]
fn same_world_gives_the_workloads_services_and_policies_that_were_recorded() {
    let _trace = meshwright_testkit::trace();
    for node in ['a', 'b'] {
        let recorded = recorded(node);
        let list = |key: &str| recorded[key].as_array().unwrap().clone();
        let services = list("services");
        let workloads = list("workloads");
        let snapshot = snapshot(
            workloads.iter().map(|value| workload(value, &services)),
            services.iter().map(service),
        );
        let version = BuildVersion::of_this_program(None);
        let mut document = ConfigDocument::new(snapshot, version);
        document.policies = list("policies")
            .iter()
            .map(|p| converted(&policy(p)))
            .collect();
        let ours = written(&document);
        for key in [
            "workloads",
            "services",
            "policies",
            "stagedServices",
            "staticConfig",
        ] {
            assert_eq!(ours[key], recorded[key], "{key} of node {node}");
        }
        assert_eq!(shape(&ours["version"]), shape(&recorded["version"]));
        let keys = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&ours), keys(&recorded), "the members of the document");
    }
}

#[test]
fn open_connections_are_listed_as_recorded() {
    let _trace = meshwright_testkit::trace();
    let addr = |text: &str| text.parse().unwrap();
    let pod = |uid: &str, state: PodState| {
        let version = BuildVersion::of_this_program(None);
        let mut document = ConfigDocument::new(Arc::default(), version);
        document.workload_state.insert(uid.to_owned(), state);
        written(&document)["workloadState"].take()
    };
    let mut a = PodState::new(ProxyState::Up, "pod-a", "default", "sa-a");
    let src = addr("10.244.1.2:55936");
    let to = ConnectionState::new(src, addr("10.244.1.3:15008"), ConnectionProtocol::Hbone);
    a.outbound(to.asked_for("10.96.0.50:80"));
    assert_eq!(pod("uid-a", a), recorded('a')["workloadState"]);
    let mut b = PodState::new(ProxyState::Up, "pod-b", "default", "sa-b");
    let src = addr("10.244.1.2:54564");
    let to = ConnectionState::new(src, addr("10.244.1.3:8080"), ConnectionProtocol::Hbone);
    b.inbound(to.asked_for("b.default.svc.cluster.local"));
    assert_eq!(pod("uid-b", b), recorded('b')["workloadState"]);
    let pending = PodState::new(ProxyState::Pending, "c", "default", "sa-c");
    assert_eq!(
        pod("uid-c", pending),
        json!({"uid-c": {"state": "Pending",
            "info": {"name": "c", "namespace": "default", "serviceAccount": "sa-c"}}})
    );
}

#[test]
fn recorded_certificates_are_described_as_recorded() {
    let _trace = meshwright_testkit::trace();
    for node in ['a', 'b'] {
        let recorded = recorded(node);
        let identity = &recorded["certificates"][0];
        for list in ["certChain", "rootCerts"] {
            for expected in identity[list].as_array().unwrap() {
                let pem = STANDARD.decode(expected["pem"].as_str().unwrap()).unwrap();
                let der = CertificateDer::from_pem_slice(&pem).unwrap();
                let ours = CertificateJson::of(&der).unwrap();
                assert_eq!(serde_json::to_value(ours).unwrap(), *expected);
            }
        }
    }
}

#[test]
fn identities_have_the_recorded_shape_and_name_why_there_is_none() {
    let _trace = meshwright_testkit::trace();
    let trust_domain = TrustDomain::parse("cluster.local").unwrap();
    let authority = CertificateAuthority::new(trust_domain).unwrap();
    let id = |name: &str| SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/{name}"));
    let svid = authority
        .issue(&id("sa-a").unwrap(), Duration::from_secs(3600))
        .unwrap();
    let shown = |name: &str, state| {
        let shown = Certificates::new(&id(name).unwrap(), &state);
        serde_json::to_value(shown).unwrap()
    };
    let ours = [
        shown("sa-a", IdentityState::Available(Arc::new(svid))),
        shown("sa-b", IdentityState::Initializing),
        shown("sa-c", IdentityState::Unavailable("no token".into())),
    ];
    let leaf = |value: &Value| shape(&value["certChain"][0]);
    let recorded = recorded('a')["certificates"][0].take();
    assert_eq!(leaf(&ours[0]), leaf(&recorded));
    assert_eq!(shape(&ours[0]["rootCerts"]), shape(&recorded["rootCerts"]));
    assert_eq!(ours[0]["identity"], recorded["identity"]);
    let states = ours.each_ref().map(|shown| text(shown, "state"));
    assert_eq!(
        states,
        ["Available", "Initializing", "Unavailable: no token"]
    );
}

/// A workload with everything that the recorded ones lack.
fn full_workload() -> wire::Workload {
    let waypoint = wire::gateway_address::Destination::Address(wire::NetworkAddress {
        network: "net-2".into(),
        address: octets("10.0.0.9"),
        length: None,
    });
    let missing = wire::PortList { ports: vec![] };
    wire::Workload {
        uid: "u".into(),
        name: "w".into(),
        namespace: "n".into(),
        hostname: "outside.example".into(),
        network: "net-2".into(),
        waypoint: Some(wire::GatewayAddress {
            hbone_mtls_port: 15008,
            destination: Some(waypoint),
        }),
        native_tunnel: true,
        network_mode: 1,
        status: 1,
        application_tunnel: Some(wire::ApplicationTunnel {
            protocol: 1,
            port: 8,
        }),
        services: [("n/missing.example".to_owned(), missing)].into(),
        ..wire::Workload::default()
    }
}

/// A service with everything that the recorded ones lack.
fn full_service() -> wire::Service {
    wire::Service {
        name: "s".into(),
        namespace: "n".into(),
        hostname: "s.example".into(),
        addresses: vec![wire::NetworkAddress {
            network: String::new(),
            address: octets("10.1.0.0"),
            length: Some(16),
        }],
        load_balancing: Some(wire::LoadBalancing {
            routing_preference: vec![6, 1],
            mode: 2,
            health_policy: 1,
        }),
        ip_families: 3,
        visibility: 1,
        ..wire::Service::default()
    }
}

#[test]
fn optional_fields_have_istios_names_and_words() {
    let _trace = meshwright_testkit::trace();
    let version = BuildVersion::of_this_program(None);
    let snapshot = snapshot([full_workload()], [full_service()]);
    let ours = written(&ConfigDocument::new(snapshot, version));
    let workload = [
        ("hostname", json!("outside.example")),
        ("network", json!("net-2")),
        (
            "waypoint",
            json!({"destination": "net-2/10.0.0.9", "hboneMtlsPort": 15008}),
        ),
        ("nativeTunnel", json!(true)),
        ("networkMode", json!("HostNetwork")),
        ("status", json!("Unhealthy")),
        ("protocol", json!("TCP")),
        ("applicationTunnel", json!({"protocol": "PROXY", "port": 8})),
        ("workloadType", json!("deployment")),
        ("locality", Value::Null),
    ];
    let balancer = json!({"routingPreferences": ["Network", "Region"], "mode": "Failover",
        "healthPolicy": "AllowAll"});
    let service = [
        ("cidrVips", json!([{"network": "", "cidr": "10.1.0.0/16"}])),
        ("ipFamilies", json!("Dual")),
        ("visibility", json!("Namespace")),
        ("loadBalancer", balancer),
    ];
    for (key, expected) in workload {
        assert_eq!(ours["workloads"][0][key], expected, "{key}");
    }
    for (key, expected) in service {
        assert_eq!(ours["services"][0][key], expected, "{key}");
    }
    let endpoint = json!({"workloadUid": "u", "port": {}, "status": "Unhealthy"});
    let staged = json!({"n/missing.example": {"u": endpoint}});
    assert_eq!(ours["stagedServices"], staged);
}

#[test]
fn addresses_and_accounts_of_a_policy_are_shown_as_text() {
    let _trace = meshwright_testkit::trace();
    let matching = authz::Match {
        source_ips: vec![authz::Address {
            address: octets("10.0.0.0"),
            length: 8,
        }],
        not_service_accounts: vec![authz::ServiceAccountMatch {
            namespace: "n".into(),
            service_account: "a".into(),
        }],
        ..authz::Match::default()
    };
    let policy = authz::Authorization {
        name: "p".into(),
        namespace: "n".into(),
        scope: 1,
        rules: vec![authz::Rule {
            clauses: vec![authz::Clause {
                matches: vec![matching],
            }],
        }],
        dry_run: true,
        ..authz::Authorization::default()
    };
    let version = BuildVersion::of_this_program(None);
    let mut document = ConfigDocument::new(Arc::default(), version);
    document.policies = vec![converted(&policy)];
    let expected = json!([{"name": "p", "namespace": "n", "scope": "Namespace", "action": "Allow",
        "rules": [[[{"sourceIps": ["10.0.0.0/8"],
            "notServiceAccounts": [{"namespace": "n", "serviceAccount": "a"}]}]]],
        "dryRun": true}]);
    assert_eq!(written(&document)["policies"], expected);
}
