use std::sync::Arc;

use super::{MAX_TEXT_BYTES, service, workload};
use crate::{
    proto::workload as wire,
    workload::{InvalidResource, Protocol, Service, Workload, WorkloadType, intern::Interner},
};

fn check(change: impl FnOnce(&mut wire::Workload)) -> Result<Workload, String> {
    let mut from = wire::Workload {
        uid: "u".to_owned(),
        ..wire::Workload::default()
    };
    from.namespace = "shop".to_owned();
    change(&mut from);
    let name: Arc<str> = "u".into();
    workload(&mut Interner::default(), &name, &from).map_err(|e| e.to_string())
}

fn check_service(change: impl FnOnce(&mut wire::Service)) -> Result<Service, String> {
    let mut from = wire::Service {
        namespace: "shop".to_owned(),
        hostname: "web".to_owned(),
        ..wire::Service::default()
    };
    change(&mut from);
    service(&mut Interner::default(), &from).map_err(|e| e.to_string())
}

fn gateway(port: u32) -> wire::GatewayAddress {
    wire::GatewayAddress {
        destination: Some(wire::gateway_address::Destination::Hostname(
            wire::NamespacedHostname {
                namespace: "shop".to_owned(),
                hostname: "waypoint".to_owned(),
            },
        )),
        hbone_mtls_port: port,
    }
}

fn address(bytes: &'static [u8], length: Option<u32>) -> wire::NetworkAddress {
    wire::NetworkAddress {
        network: String::new(),
        address: bytes.into(),
        length,
    }
}

#[test]
fn absent_values_get_istios_defaults() {
    let _trace = meshwright_testkit::trace();
    let w = check(|_| ()).unwrap();
    assert_eq!(
        &*w.identity().to_string(),
        "spiffe://cluster.local/ns/shop/sa/default"
    );
    assert_eq!((&**w.cluster_id(), w.capacity()), ("Kubernetes", 1));
    assert_eq!(
        (w.protocol(), w.workload_type()),
        (Protocol::Tcp, WorkloadType::Deployment)
    );
}

#[test]
fn unknown_values_are_refused_but_telemetry_and_visibility_fall_back() {
    let _trace = meshwright_testkit::trace();
    let unknown = |field| Err(format!("`{field}` has the unknown value 9"));
    let status = check(|w| w.status = 9).map(|_| ());
    assert_eq!(status, unknown("status"));
    let mode = check(|w| w.network_mode = 9).map(|_| ());
    assert_eq!(mode, unknown("network_mode"));
    let tunnel = check(|w| w.tunnel_protocol = 9).map(|_| ());
    assert_eq!(tunnel, unknown("tunnel_protocol"));
    let app = wire::ApplicationTunnel {
        protocol: 9,
        port: 0,
    };
    let app = check(|w| w.application_tunnel = Some(app)).map(|_| ());
    assert_eq!(app, unknown("application_tunnel.protocol"));
    let families = check_service(|s| s.ip_families = 9).map(|_| ());
    assert_eq!(families, unknown("ip_families"));
    for (preference, mode, health, field) in [
        (vec![9], 0, 0, "load_balancing.routing_preference"),
        (vec![], 9, 0, "load_balancing.mode"),
        (vec![], 0, 9, "load_balancing.health_policy"),
    ] {
        let lb = wire::LoadBalancing {
            routing_preference: preference,
            mode,
            health_policy: health,
        };
        assert_eq!(
            check_service(|s| s.load_balancing = Some(lb)).map(|_| ()),
            unknown(field)
        );
    }
    let unspecified = wire::LoadBalancing {
        routing_preference: vec![0],
        ..wire::LoadBalancing::default()
    };
    assert!(check_service(|s| s.load_balancing = Some(unspecified)).is_err());
    assert!(check(|w| w.workload_type = 9).is_ok());
    assert!(
        check_service(|s| s.visibility = 9)
            .unwrap()
            .is_visible_to("other")
    );
}

#[test]
fn tunnel_of_sidecars_is_refused() {
    let _trace = meshwright_testkit::trace();
    let refused = check(|w| w.tunnel_protocol = wire::TunnelProtocol::LegacyIstioMtls.into());
    assert_eq!(
        refused.unwrap_err(),
        InvalidResource::UnsupportedTunnel.to_string()
    );
}

#[test]
fn numbers_that_do_not_fit_are_refused_not_wrapped() {
    let _trace = meshwright_testkit::trace();
    let port = |service_port, target_port| wire::Port {
        service_port,
        target_port,
        ..wire::Port::default()
    };
    assert!(check_service(|s| s.ports = vec![port(65_617, 80)]).is_err());
    assert!(check_service(|s| s.ports = vec![port(80, 65_616)]).is_err());
    assert!(check_service(|s| s.waypoint = Some(gateway(65_536 + 15_008))).is_err());
    let list = wire::PortList {
        ports: vec![port(1, 70_000)],
    };
    assert!(check(|w| drop(w.services.insert("a/b".to_owned(), list))).is_err());
    let app = wire::ApplicationTunnel {
        protocol: 0,
        port: 65_536,
    };
    assert!(check(|w| w.application_tunnel = Some(app)).is_err());
    assert!(check_service(|s| s.addresses = vec![address(&[10, 0, 0, 0], Some(33))]).is_err());
    assert!(check_service(|s| s.addresses = vec![address(&[0; 16], Some(129))]).is_err());
    assert!(check_service(|s| s.addresses = vec![address(&[0; 16], Some(256 + 8))]).is_err());
}

#[test]
fn addresses_have_4_or_16_bytes() {
    let _trace = meshwright_testkit::trace();
    let refused = check(|w| w.addresses = vec![vec![1, 2, 3].into()]).unwrap_err();
    assert_eq!(refused, "`addresses` has 3 bytes; an address has 4 or 16");
    assert!(check_service(|s| s.addresses = vec![address(&[], None)]).is_err());
    let full = check_service(|s| s.addresses = vec![address(&[10, 0, 0, 1], Some(32))]).unwrap();
    assert_eq!((full.vips().len(), full.cidr_vips().len()), (1, 0));
    let mapped = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 0];
    let range = check_service(|s| s.addresses = vec![address(mapped, Some(96 + 16))]).unwrap();
    assert_eq!(range.cidr_vips()[0].cidr.to_string(), "10.1.0.0/16");
    let across = check_service(|s| s.addresses = vec![address(mapped, Some(64))]);
    assert!(
        across.is_err(),
        "a range around all mapped addresses is no version 4 range"
    );
}

#[test]
fn references_need_one_destination() {
    let _trace = meshwright_testkit::trace();
    let none = wire::GatewayAddress::default();
    let refused = check(|w| w.waypoint = Some(none.clone())).unwrap_err();
    assert_eq!(refused, "`waypoint` is missing");
    assert!(check(|w| w.network_gateway = Some(none)).is_err());
    let weighted = wire::WeightedWaypoint {
        destination: None,
        weight: 1,
    };
    assert!(check_service(|s| s.weighted_waypoints = vec![weighted]).is_err());
    let range = wire::GatewayAddress {
        destination: Some(wire::gateway_address::Destination::Address(address(
            &[10, 0, 0, 0],
            Some(8),
        ))),
        hbone_mtls_port: 15_008,
    };
    let refused = check(|w| w.waypoint = Some(range)).unwrap_err();
    assert_eq!(refused, "`waypoint` is a range of addresses");
}

#[test]
fn texts_that_would_break_names_headers_or_memory_are_refused() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(check(|w| w.uid.clear()).unwrap_err(), "`uid` is missing");
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    assert!(check(|w| w.uid.clone_from(&long)).is_err());
    assert!(check(|w| w.canonical_name = "a\r\nx: y".to_owned()).is_err());
    assert!(check(|w| w.node = "a\0b".to_owned()).is_err());
    assert!(check(|w| w.namespace = "a/b".to_owned()).is_err());
    assert!(check(|w| w.service_account = "a/../b".to_owned()).is_err());
    assert!(check_service(|s| s.hostname.clear()).is_err());
    assert!(check_service(|s| s.hostname = "a/b".to_owned()).is_err());
    let list = wire::PortList::default();
    let refused = check(|w| drop(w.services.insert("nokey".to_owned(), list))).unwrap_err();
    assert_eq!(
        refused,
        "`services` is not a namespace, a slash and a host name"
    );
}

#[test]
fn of_two_mappings_of_one_port_the_last_counts() {
    let _trace = meshwright_testkit::trace();
    let port = |service_port, target_port| wire::Port {
        service_port,
        target_port,
        ..wire::Port::default()
    };
    let s = check_service(|s| s.ports = vec![port(80, 1), port(22, 2), port(80, 3), port(443, 0)]);
    let s = s.unwrap();
    assert_eq!(
        (s.ports().len(), s.target_port(80), s.target_port(22)),
        (3, Some(3), Some(2))
    );
    assert_eq!(
        (s.has_port(443), s.target_port(443)),
        (true, None),
        "a named port"
    );
    assert!(!s.has_port(81));
}

#[test]
fn only_spiffe_names_become_accepted_identities() {
    let _trace = meshwright_testkit::trace();
    let names = ["spiffe://td/ns/a/sa/b", "db.example.com"];
    let s = check_service(|s| s.subject_alt_names = names.map(str::to_owned).to_vec()).unwrap();
    assert_eq!(s.subject_alt_names().len(), 2);
    assert_eq!(s.accepted_identities().len(), 1);
}

#[test]
fn replicas_share_what_they_have_in_common() {
    let _trace = meshwright_testkit::trace();
    let mut interner = Interner::default();
    let mut from = wire::Workload {
        uid: "u".to_owned(),
        ..wire::Workload::default()
    };
    from.namespace = "shop".to_owned();
    let name: Arc<str> = "u".into();
    let first = workload(&mut interner, &name, &from).unwrap();
    assert!(Arc::ptr_eq(&first.uid, &name), "the name is not copied");
    from.uid = "v".to_owned();
    let second = workload(&mut interner, &name, &from).unwrap();
    assert!(Arc::ptr_eq(&first.shared, &second.shared));
    assert!(size_of::<Workload>() <= 96, "{}", size_of::<Workload>());
}

#[test]
fn every_reason_says_each_thing_once() {
    let _trace = meshwright_testkit::trace();
    let identity = check(|_| ()).map(|_| ());
    assert_eq!(identity, Ok(()));
    let broken = <wire::Workload as prost::Message>::decode(&[0xff_u8][..]).unwrap_err();
    let field = "f";
    let reasons = [
        InvalidResource::Address { field, bytes: 3 },
        InvalidResource::Identity(meshwright_identity::InvalidSpiffeId::EmptySegment),
        InvalidResource::Message(crate::workload::UndecodableMessage(broken)),
        InvalidResource::Missing { field },
        InvalidResource::Number {
            field,
            value: 2,
            limit: 1,
        },
        InvalidResource::Range { field },
        InvalidResource::Text {
            field,
            fault: crate::workload::TextFault::Slash,
        },
        InvalidResource::UnknownValue { field, value: 9 },
        InvalidResource::UnsupportedTunnel,
    ];
    for reason in &reasons {
        meshwright_testkit::assert_chain_says_each_thing_once(reason);
        assert!(!reason.is_safe_to_retry());
    }
    let text = crate::chain::chain(&reasons[1]);
    assert_eq!(
        text,
        "namespace and service account give no identity: the path has an empty segment"
    );
}
