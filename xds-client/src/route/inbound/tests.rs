use meshwright_identity::Fault;

use super::{InboundTarget, inbound};
use crate::route::{
    Authority, NoRoute,
    testing::{Mesh, ServiceExt, WorkloadExt, by_name, service, to, workload},
};

const ILLEGAL: &[u16] = &[15001, 15006, 15008];

fn accept_at(
    mesh: &Mesh,
    own: &str,
    local: &str,
    authority: &Authority,
) -> Result<InboundTarget, NoRoute> {
    let own = mesh.workload(own);
    inbound(&mesh.snapshot(), &own, to(local), authority, ILLEGAL)
}

fn accept(mesh: &Mesh, own: &str, authority: &str) -> Result<InboundTarget, NoRoute> {
    let authority = match authority.parse() {
        Ok(address) => Authority::Ip(address),
        Err(_) => {
            let (name, port) = authority.split_once(':').unwrap();
            Authority::Host {
                name: name.into(),
                port: port.parse().unwrap(),
            }
        }
    };
    accept_at(mesh, own, "10.0.0.2:15008", &authority)
}

fn mesh() -> Mesh {
    Mesh::new()
        .with(workload("b", &["10.0.0.2"]))
        .with(workload("c", &["10.0.0.3"]))
}

#[test]
fn own_address_is_served_on_the_port_asked_for() {
    let _trace = meshwright_testkit::trace();
    let target = accept(&mesh(), "b", "10.0.0.2:8080").unwrap();
    assert_eq!(
        (target.address, target.destination),
        (to("10.0.0.2:8080"), to("10.0.0.2:8080"))
    );
    assert!(target.service.is_none());
    let mapped = Authority::Ip(to("[::ffff:10.0.0.2]:80"));
    assert!(accept_at(&mesh(), "b", "[::ffff:10.0.0.2]:15008", &mapped).is_ok());
}

#[test]
fn address_of_another_workload_is_refused_with_400() {
    let _trace = meshwright_testkit::trace();
    for address in ["10.0.0.3:8080", "192.0.2.1:80", "[fd00::1]:80"] {
        let error = accept(&mesh(), "b", address).unwrap_err();
        assert!(matches!(error, NoRoute::AddressMismatch { .. }));
        assert_eq!((error.status(), error.fault()), (400, Fault::Caller));
        assert!(error.to_string().starts_with("ip mismatch"));
    }
}

#[test]
fn waypoint_serves_the_addresses_it_forwards_for() {
    let _trace = meshwright_testkit::trace();
    let mut private = service("web", &["10.96.0.1"]).waypoint(by_name("wp.shop"));
    private.namespace = "far".to_owned();
    private.visibility = crate::proto::workload::service::Visibility::Namespace.into();
    let mesh = mesh()
        .with_service(private)
        .with_service(service("api", &["10.96.0.2"]))
        .with_service(service("wp", &["10.96.0.9"]))
        .with(workload("b", &["10.0.0.2"]).in_service("shop/wp.shop", 15008, 15008))
        .with(workload("c", &["10.0.0.3"]).waypoint(by_name("wp.shop")))
        .with(workload("d", &["10.0.0.4"]));
    let target = accept(&mesh, "b", "10.96.0.1:80").unwrap();
    assert_eq!(
        target.address,
        to("10.0.0.2:80"),
        "the connection's own address, always"
    );
    assert!(accept(&mesh, "b", "10.0.0.3:80").is_ok());
    assert!(
        accept(&mesh, "b", "10.96.0.2:80").is_err(),
        "another service"
    );
    assert!(
        accept(&mesh, "b", "10.0.0.4:80").is_err(),
        "another workload"
    );
    assert!(
        accept(&mesh, "d", "10.96.0.1:80").is_err(),
        "not the waypoint"
    );
}

#[test]
fn application_tunnel_takes_any_address_on_its_own_port() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh().with(workload("b", &["10.0.0.2"]).tunnel(15088));
    let target = accept(&mesh, "b", "192.0.2.1:80").unwrap();
    assert_eq!(
        (target.address, target.destination),
        (to("10.0.0.2:15088"), to("10.0.0.2:80"))
    );
    let own = mesh.snapshot();
    let error = accept(&mesh, "b", "192.0.2.1:15008").unwrap_err();
    assert_eq!(
        error,
        NoRoute::IllegalPort { port: 15008 },
        "checked before the override"
    );
    drop(own);
}

#[test]
fn ports_of_the_proxy_are_refused_with_503() {
    let _trace = meshwright_testkit::trace();
    for port in ILLEGAL {
        let error = accept(&mesh(), "b", &format!("10.0.0.2:{port}")).unwrap_err();
        assert_eq!(
            (error.clone(), error.status()),
            (NoRoute::IllegalPort { port: *port }, 503)
        );
    }
}

#[test]
fn host_name_leads_to_the_port_of_the_service_here() {
    let _trace = meshwright_testkit::trace();
    let mesh = mesh()
        .with_service(
            service("web", &[])
                .port(81, 0)
                .port(82, 8082)
                .port(83, 15008),
        )
        .with(workload("b", &["10.0.0.2"]).in_service("shop/web.shop", 80, 9090));
    let port = |authority| accept(&mesh, "b", authority).map(|target| target.address.port());
    assert_eq!(port("web.shop:80"), Ok(9090), "the endpoint's own mapping");
    assert_eq!(port("web.shop:82"), Ok(8082), "else the service's");
    let no_port = |port| NoRoute::NoPort {
        service: "shop/web.shop".into(),
        port,
    };
    assert_eq!(port("web.shop:81"), Err(no_port(81)));
    assert_eq!(port("web.shop:99"), Err(no_port(99)));
    assert_eq!(
        port("web.shop:83"),
        Err(NoRoute::IllegalPort { port: 15008 })
    );
    let unknown = NoRoute::UnknownService {
        hostname: "other.shop".into(),
    };
    assert_eq!((port("other.shop:80"), 503), (Err(unknown), 503));
    let target = accept(&mesh, "b", "web.shop:80").unwrap();
    assert_eq!(target.service.unwrap().key().as_ref(), "shop/web.shop");
}

#[test]
fn host_name_of_a_service_that_is_not_visible_is_unknown() {
    let _trace = meshwright_testkit::trace();
    let mut private = service("web", &[]);
    private.namespace = "far".to_owned();
    private.visibility = crate::proto::workload::service::Visibility::Namespace.into();
    let mesh = mesh().with_service(private);
    let error = accept(&mesh, "b", "web.shop:80").unwrap_err();
    assert!(matches!(error, NoRoute::UnknownService { .. }));
}
