use std::collections::BTreeMap;

use rand::{SeedableRng, rngs::SmallRng};

use super::outbound;
use crate::{
    proto::workload::{self as wire, load_balancing::Scope},
    route::{
        Authority, NoRoute, Route, RouteKind, Source,
        testing::{Mesh, ServiceExt, WorkloadExt, by_ip, by_name, ip, service, to, workload},
    },
};

const WEB: &str = "shop/web.shop";
const STRICT: i32 = 1;
const FAILOVER: i32 = 2;
const PASSTHROUGH: i32 = 3;

/// A mesh with a client `a` at 10.0.0.1.
fn mesh() -> Mesh {
    Mesh::new().with(workload("a", &["10.0.0.1"]))
}

fn call_with(mesh: &Mesh, destination: &str, seed: u64) -> Result<Route, NoRoute> {
    let own = mesh.workload("a");
    let source = Source::new(&own, "", ip("10.0.0.1")).with_illegal_ports(&[15001]);
    let mut rng = SmallRng::seed_from_u64(seed);
    outbound(&mesh.snapshot(), &source, to(destination), &mut rng)
}

fn call(mesh: &Mesh, destination: &str) -> Result<Route, NoRoute> {
    call_with(mesh, destination, 1)
}

/// `address authority identities` of a tunnel.
fn tunnel(route: &Route) -> (String, String, Vec<String>) {
    let RouteKind::Hbone {
        address,
        authority,
        accepted,
    } = &route.kind
    else {
        panic!("{route:?}");
    };
    let accounts = accepted
        .iter()
        .map(|id| id.as_str().rsplit('/').next().unwrap().to_owned());
    (
        address.to_string(),
        authority.to_string(),
        accounts.collect(),
    )
}

fn picks(mesh: &Mesh, destination: &str, calls: u64) -> BTreeMap<String, u64> {
    let mut picks = BTreeMap::new();
    for seed in 0..calls {
        let route = call_with(mesh, destination, seed).unwrap();
        *picks
            .entry(route.workload.unwrap().uid().to_string())
            .or_default() += 1;
    }
    picks
}

#[test]
fn call_of_the_proxys_own_port_by_loopback_is_refused() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(
        call(&mesh(), "127.0.0.1:15001").unwrap_err(),
        NoRoute::Recursive
    );
    assert_eq!(
        call(&mesh(), "[::ffff:127.0.0.1]:15001").unwrap_err(),
        NoRoute::Recursive
    );
    let other = call(&mesh(), "127.0.0.1:15002").unwrap();
    assert_eq!(other.kind, RouteKind::Passthrough(to("127.0.0.1:15002")));
}

#[test]
fn unknown_destination_passes_through() {
    let _trace = meshwright_testkit::trace();
    let route = call(&mesh(), "192.0.2.1:443").unwrap();
    assert_eq!(route.kind, RouteKind::Passthrough(to("192.0.2.1:443")));
    assert!(route.workload.is_none() && route.service.is_none());
}

#[test]
fn workload_in_the_mesh_is_reached_in_a_tunnel_that_expects_its_identity() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh().with(workload("b", &["10.0.0.2", "fd00::2"]));
    let route = call(&mesh, "10.0.0.2:8080").unwrap();
    let expected = (
        "10.0.0.2:15008".into(),
        "10.0.0.2:8080".into(),
        vec!["b".into()],
    );
    assert_eq!(tunnel(&route), expected);
    let six = call(&mesh, "[fd00::2]:8080").unwrap();
    assert_eq!(tunnel(&six).0, "[fd00::2]:15008");
    let mapped = call(&mesh, "[::ffff:10.0.0.2]:8080").unwrap();
    assert_eq!(tunnel(&mapped), expected);
    assert_eq!(route.workload.unwrap().uid().as_ref(), "b");
}

#[test]
fn workload_outside_the_mesh_is_reached_in_plain() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh().with(workload("b", &["10.0.0.2"]).plain());
    let route = call(&mesh, "10.0.0.2:8080").unwrap();
    assert_eq!(route.kind, RouteKind::Tcp(to("10.0.0.2:8080")));
}

#[test]
fn service_leads_to_an_endpoint_and_its_own_port() {
    let _trace = meshwright_testkit::trace();
    let mut web = service("web", &["10.96.0.1"]).port(81, 0).port(82, 8082);
    web.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/alt".to_owned()];
    let mesh = mesh().with_service(web).with(
        workload("b", &["10.0.0.2"])
            .in_service(WEB, 80, 9090)
            .in_service(WEB, 81, 9091),
    );
    let authority = |port| tunnel(&call(&mesh, &format!("10.96.0.1:{port}")).unwrap()).1;
    assert_eq!(
        authority(80),
        "10.0.0.2:9090",
        "the endpoint's own mapping goes first"
    );
    assert_eq!(
        authority(81),
        "10.0.0.2:9091",
        "a named port is the endpoint's to map"
    );
    assert_eq!(authority(82), "10.0.0.2:8082", "else the service's target");
    let route = call(&mesh, "10.96.0.1:80").unwrap();
    assert_eq!(
        tunnel(&route).2,
        ["alt", "b"],
        "the service's alternatives are accepted as well"
    );
    assert_eq!(route.service.unwrap().key().as_ref(), WEB);
    let none = NoRoute::NoHealthyUpstream {
        service: WEB.into(),
    };
    assert_eq!(
        call(&mesh, "10.96.0.1:83").unwrap_err(),
        none,
        "the service has no such port"
    );
}

#[test]
fn service_without_a_usable_endpoint_is_an_error_not_a_way_around() {
    let _trace = meshwright_testkit::trace();
    let none = NoRoute::NoHealthyUpstream {
        service: WEB.into(),
    };
    let base = || mesh().with_service(service("web", &["10.96.0.1"]));
    assert_eq!(call(&base(), "10.96.0.1:80").unwrap_err(), none);
    let ill = base().with(
        workload("b", &["10.0.0.2"])
            .in_service(WEB, 80, 8080)
            .unhealthy(),
    );
    assert_eq!(call(&ill, "10.96.0.1:80").unwrap_err(), none);
    let zero = base().with(
        workload("b", &["10.0.0.2"])
            .in_service(WEB, 80, 8080)
            .weight(0),
    );
    assert_eq!(call(&zero, "10.96.0.1:80").unwrap_err(), none);
    let nowhere = base().with(workload("b", &[]).in_service(WEB, 80, 8080));
    assert_eq!(call(&nowhere, "10.96.0.1:80").unwrap_err(), none);
    let mut named = workload("b", &[]).in_service(WEB, 80, 8080);
    named.hostname = "db.example.com".to_owned();
    let error = call(&base().with(named), "10.96.0.1:80").unwrap_err();
    assert_eq!(
        error,
        NoRoute::Unresolved {
            hostname: "db.example.com".into()
        }
    );
}

#[test]
fn passthrough_service_keeps_the_clients_destination() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh()
        .with_service(service("web", &["10.96.0.1", "10.0.0.2"]).preferring(PASSTHROUGH, &[]))
        .with(workload("b", &["10.0.0.2"]).in_service(WEB, 80, 8080));
    let route = call(&mesh, "10.96.0.1:80").unwrap();
    assert_eq!(route.kind, RouteKind::Passthrough(to("10.96.0.1:80")));
    let known = call(&mesh, "10.0.0.2:80").unwrap();
    assert_eq!(
        tunnel(&known).0,
        "10.0.0.2:15008",
        "a member of the mesh is never called in plain"
    );
}

#[test]
fn service_that_other_namespaces_must_not_see_is_not_used() {
    let _trace = meshwright_testkit::trace();
    let mut web = service("web", &["10.96.0.1"]);
    web.namespace = "private".to_owned();
    web.visibility = wire::service::Visibility::Namespace.into();
    let mesh = mesh().with_service(web);
    let route = call(&mesh, "10.96.0.1:80").unwrap();
    assert_eq!(route.kind, RouteKind::Passthrough(to("10.96.0.1:80")));
}

#[test]
fn weights_share_the_calls_in_proportion() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh()
        .with_service(service("web", &["10.96.0.1"]))
        .with(
            workload("b", &["10.0.0.2"])
                .in_service(WEB, 80, 8080)
                .weight(3),
        )
        .with(workload("c", &["10.0.0.3"]).in_service(WEB, 80, 8080))
        .with(
            workload("d", &["10.0.0.4"])
                .in_service(WEB, 80, 8080)
                .weight(0),
        );
    let picks = picks(&mesh, "10.96.0.1:80", 4000);
    assert_eq!(picks.len(), 2);
    assert!((2850..3150).contains(&picks["b"]), "{picks:?}");
}

#[test]
fn many_endpoints_of_one_weight_share_the_calls_evenly_and_unhealthy_ones_get_none() {
    let _trace = meshwright_testkit::trace();
    let mut mesh = mesh().with_service(service("web", &["10.96.0.1"]));
    for n in 0..40 {
        let w = workload(&format!("w{n:02}"), &[&format!("10.0.1.{n}")]).in_service(WEB, 80, 8080);
        mesh = mesh.with(if n % 2 == 0 { w } else { w.unhealthy() });
    }
    let picks = picks(&mesh, "10.96.0.1:80", 4000);
    assert_eq!(picks.len(), 20, "{picks:?}");
    assert!(picks.values().all(|n| (120..290).contains(n)), "{picks:?}");
}

#[test]
fn same_random_numbers_give_the_same_route() {
    let _trace = meshwright_testkit::trace();
    let mut mesh = mesh().with_service(service("web", &["10.96.0.1"]));
    for n in 0..10 {
        let w = workload(&format!("w{n}"), &[&format!("10.0.1.{n}")]).in_service(WEB, 80, 8080);
        mesh = mesh.with(w.weight(n));
    }
    for seed in 0..50 {
        let kinds = [0, 0].map(|_| call_with(&mesh, "10.96.0.1:80", seed).unwrap().kind);
        assert_eq!(kinds[0], kinds[1]);
    }
}

/// Endpoints near and far from client `a` (region r1, zone z1, node n1).
fn spread(mode: i32, scopes: &[Scope]) -> Mesh {
    mesh()
        .with_service(service("web", &["10.96.0.1"]).preferring(mode, scopes))
        .with(
            workload("zone", &["10.0.1.1"])
                .in_service(WEB, 80, 1)
                .at("r1", "z1", "n2"),
        )
        .with(
            workload("region", &["10.0.1.2"])
                .in_service(WEB, 80, 1)
                .at("r1", "z2", "n3"),
        )
        .with(
            workload("far", &["10.0.1.3"])
                .in_service(WEB, 80, 1)
                .at("r2", "z1", "n4"),
        )
}

fn picked(mesh: &Mesh) -> Vec<String> {
    picks(mesh, "10.96.0.1:80", 60).into_keys().collect()
}

#[test]
fn failover_uses_the_best_match_and_stops_at_the_first_mismatch() {
    let _trace = meshwright_testkit::trace();
    let scopes = [Scope::Region, Scope::Zone, Scope::Node];
    assert_eq!(picked(&spread(FAILOVER, &scopes)), ["zone"]);
    assert_eq!(
        picked(&spread(FAILOVER, &[Scope::Region])),
        ["region", "zone"]
    );
    let reversed = [Scope::Zone, Scope::Region];
    assert_eq!(
        picked(&spread(FAILOVER, &reversed)),
        ["zone"],
        "z1 of r2 matches one, not two"
    );
    assert_eq!(
        picked(&spread(FAILOVER, &[Scope::Node])),
        ["far", "region", "zone"]
    );
    assert_eq!(
        picked(&spread(0, &scopes)),
        ["far", "region", "zone"],
        "no mode, no preference"
    );
}

#[test]
fn strict_uses_full_matches_only() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(
        picked(&spread(STRICT, &[Scope::Region, Scope::Zone])),
        ["zone"]
    );
    let none = call(&spread(STRICT, &[Scope::Node]), "10.96.0.1:80").unwrap_err();
    assert!(matches!(none, NoRoute::NoHealthyUpstream { .. }));
    let here = spread(STRICT, &[Scope::Node]).with(
        workload("here", &["10.0.1.4"])
            .in_service(WEB, 80, 1)
            .at("r1", "z1", "n1"),
    );
    assert_eq!(picked(&here), ["here"]);
}

#[test]
fn own_network_beats_every_other_match_and_other_networks_are_ranked_by_the_rest() {
    let _trace = meshwright_testkit::trace();
    let scopes = [Scope::Network, Scope::Region, Scope::Zone];
    let gateway = |w: wire::Workload| wire::Workload {
        network_gateway: Some(by_ip("192.0.2.1")),
        ..w
    };
    let remote = |uid: &str, region: &str| {
        gateway(
            workload(uid, &[])
                .in_service(WEB, 80, 1)
                .at(region, "z1", "x")
                .on_network("n2"),
        )
    };
    let with_remotes = |mesh: Mesh| mesh.with(remote("near", "r1")).with(remote("off", "r9"));
    let base = mesh().with_service(service("web", &["10.96.0.1"]).preferring(FAILOVER, &scopes));
    let far = workload("far", &["10.0.1.3"])
        .in_service(WEB, 80, 1)
        .at("r2", "z9", "n4");
    assert_eq!(picked(&with_remotes(base.with(far))), ["far"]);
    let base = mesh().with_service(service("web", &["10.96.0.1"]).preferring(FAILOVER, &scopes));
    let error = call(&with_remotes(base), "10.96.0.1:80").unwrap_err();
    assert_eq!(
        error,
        NoRoute::CrossNetwork {
            network: "n2".into()
        }
    );
}

#[test]
fn address_of_an_endpoint_follows_the_client_and_the_services_families() {
    let _trace = meshwright_testkit::trace();
    let at = |families: wire::IpFamilies, addresses: &[&str], vip: &str| {
        let mut web = service("web", &["10.96.0.1", "fd00:96::1"]);
        web.ip_families = families.into();
        let mesh = mesh()
            .with_service(web)
            .with(workload("b", addresses).in_service(WEB, 80, 8080));
        call(&mesh, vip).map(|route| tunnel(&route).0)
    };
    use wire::IpFamilies::{Automatic, Dual, Ipv6Only};
    let both = &["10.0.0.2", "fd00::2"];
    assert_eq!(
        at(Automatic, both, "10.96.0.1:80").unwrap(),
        "10.0.0.2:15008"
    );
    assert_eq!(
        at(Dual, both, "[fd00:96::1]:80").unwrap(),
        "[fd00::2]:15008"
    );
    assert_eq!(
        at(Ipv6Only, both, "10.96.0.1:80").unwrap(),
        "[fd00::2]:15008"
    );
    assert_eq!(
        at(Dual, &["10.0.0.2"], "[fd00:96::1]:80").unwrap(),
        "10.0.0.2:15008"
    );
    let none = at(Ipv6Only, &["10.0.0.2"], "10.96.0.1:80").unwrap_err();
    assert_eq!(
        none,
        NoRoute::NoAddress {
            workload: "b".into()
        }
    );
}

fn with_waypoint(reference: wire::GatewayAddress) -> Mesh {
    mesh()
        .with_service(service("web", &["10.96.0.1"]).waypoint(reference))
        .with(workload("b", &["10.0.0.2"]).in_service(WEB, 80, 8080))
        .with_service(service("wp", &["10.96.0.9"]).port(15008, 15018))
        .with(workload("w", &["10.0.0.9", "fd00::9"]).in_service("shop/wp.shop", 1, 0))
}

#[test]
fn service_with_a_waypoint_is_reached_through_it_with_the_authority_as_called() {
    let _trace = meshwright_testkit::trace();
    for reference in [by_name("wp.shop"), by_ip("10.96.0.9")] {
        let route = call(&with_waypoint(reference), "10.96.0.1:80").unwrap();
        let expected = (
            "10.0.0.9:15018".into(),
            "10.96.0.1:80".into(),
            vec!["w".into()],
        );
        assert_eq!(tunnel(&route), expected, "the waypoint's own mapped port");
        assert!(route.via_waypoint);
        assert_eq!(route.workload.unwrap().uid().as_ref(), "w");
        assert_eq!(
            route.service.unwrap().key().as_ref(),
            WEB,
            "what was called"
        );
    }
}

#[test]
fn waypoint_that_is_unknown_or_empty_is_never_bypassed() {
    let _trace = meshwright_testkit::trace();
    let error = |reference| call(&with_waypoint(reference), "10.96.0.1:80").unwrap_err();
    let unknown = NoRoute::UnknownWaypoint {
        waypoint: "shop/other.shop".to_owned(),
    };
    assert_eq!(error(by_name("other.shop")), unknown);
    let unknown = NoRoute::UnknownWaypoint {
        waypoint: "/192.0.2.9".to_owned(),
    };
    assert_eq!(error(by_ip("192.0.2.9")), unknown);
    let empty =
        with_waypoint(by_name("wp2.shop")).with_service(service("wp2", &[]).port(15008, 15008));
    let error = call(&empty, "10.96.0.1:80").unwrap_err();
    assert_eq!(
        error,
        NoRoute::WaypointUnavailable {
            waypoint: "shop/wp2.shop".to_owned()
        }
    );
    let elsewhere = with_waypoint(by_name("wp3.shop"))
        .with_service(service("wp3", &[]).port(15008, 15008))
        .with(
            workload("w3", &["10.8.0.1"])
                .in_service("shop/wp3.shop", 1, 0)
                .on_network("n2"),
        );
    let error = call(&elsewhere, "10.96.0.1:80").unwrap_err();
    assert_eq!(
        error,
        NoRoute::CrossNetwork {
            network: "n2".into()
        }
    );
}

#[test]
fn weighted_waypoints_are_sampled_and_weights_of_zero_fall_back_to_the_single_one() {
    let _trace = meshwright_testkit::trace();
    let weighted = |weights: [u32; 2]| {
        let mut web = service("web", &["10.96.0.1"]).waypoint(by_ip("10.0.0.9"));
        web.weighted_waypoints = ["10.0.0.7", "10.0.0.8"]
            .iter()
            .zip(weights)
            .map(|(ip, weight)| wire::WeightedWaypoint {
                destination: Some(by_ip(ip)),
                weight,
            })
            .collect();
        let mesh = mesh().with_service(web);
        ["7", "8", "9"].iter().fold(mesh, |mesh, n| {
            mesh.with(workload(n, &[&format!("10.0.0.{n}")]))
        })
    };
    let picks_of = |weights| picks(&weighted(weights), "10.96.0.1:80", 400);
    assert_eq!(picks_of([1, 0]).into_keys().collect::<Vec<_>>(), ["7"]);
    let both = picks_of([1, 3]);
    assert!((60..140).contains(&both["7"]), "{both:?}");
    assert_eq!(picks_of([0, 0]).into_keys().collect::<Vec<_>>(), ["9"]);
}

#[test]
fn workload_with_a_waypoint_is_reached_through_it_unless_the_client_is_that_waypoint() {
    let _trace = meshwright_testkit::trace();
    for reference in [by_name("wp.shop"), by_ip("10.0.0.9")] {
        let mesh = with_waypoint(by_name("wp.shop"))
            .with(workload("c", &["10.0.0.3"]).waypoint(reference.clone()));
        let route = call(&mesh, "10.0.0.3:8080").unwrap();
        assert_eq!(tunnel(&route).1, "10.0.0.3:8080", "not translated");
        assert!(route.via_waypoint);
        let snapshot = mesh.snapshot();
        let mut rng = SmallRng::seed_from_u64(1);
        let waypoint = mesh.workload("w");
        let mut from = |address| {
            let source = Source::new(&waypoint, "", ip(address));
            outbound(&snapshot, &source, to("10.0.0.3:8080"), &mut rng)
                .unwrap()
                .via_waypoint
        };
        assert!(!from("10.0.0.9"), "{reference:?}");
        assert!(
            from("10.0.0.99"),
            "an identity alone does not make a waypoint"
        );
    }
}

#[test]
fn service_call_does_not_pass_the_waypoint_of_its_endpoint() {
    let _trace = meshwright_testkit::trace();
    let mesh = with_waypoint(by_name("wp.shop"))
        .with_service(service("api", &["10.96.0.2"]))
        .with(
            workload("c", &["10.0.0.3"])
                .in_service("shop/api.shop", 80, 8080)
                .waypoint(by_name("wp.shop")),
        );
    assert!(!call(&mesh, "10.96.0.2:80").unwrap().via_waypoint);
}

#[test]
fn waypoint_behind_an_application_tunnel_takes_ports_its_service_does_not_list() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh()
        .with_service(service("web", &["10.96.0.1"]).waypoint(by_name("wp.shop")))
        .with_service(service("wp", &[]))
        .with(
            workload("w", &["10.0.0.9"])
                .in_service("shop/wp.shop", 1, 0)
                .tunnel(15088),
        );
    let route = call(&mesh, "10.96.0.1:80").unwrap();
    assert_eq!(tunnel(&route).0, "10.0.0.9:15008");
}

#[test]
fn workload_that_is_a_service_too_is_balanced_as_the_service() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh()
        .with_service(service("web", &["10.0.0.2"]))
        .with(workload("b", &["10.0.0.2"]))
        .with(workload("c", &["10.0.0.3"]).in_service(WEB, 80, 8080));
    let route = call(&mesh, "10.0.0.2:80").unwrap();
    assert_eq!(tunnel(&route).0, "10.0.0.3:15008");
}

#[test]
fn other_network_is_a_typed_reason() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh().with_service(service("web", &["10.96.0.1"])).with(
        workload("b", &["10.0.0.2"])
            .in_service(WEB, 80, 8080)
            .on_network("n2"),
    );
    let error = call(&mesh, "10.96.0.1:80").unwrap_err();
    assert_eq!(
        error,
        NoRoute::CrossNetwork {
            network: "n2".into()
        }
    );
    assert!(!error.is_safe_to_retry());
    let direct = call(&mesh, "10.0.0.2:80").unwrap();
    assert_eq!(
        direct.kind,
        RouteKind::Passthrough(to("10.0.0.2:80")),
        "that address is unknown here"
    );
}

#[test]
fn authority_is_written_as_on_the_wire() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(
        Authority::Ip(to("[fd00::1]:80")).to_string(),
        "[fd00::1]:80"
    );
    let host = Authority::Host {
        name: "web.shop".into(),
        port: 80,
    };
    assert_eq!(host.to_string(), "web.shop:80");
}
