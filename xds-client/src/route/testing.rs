//! A small mesh, written as text would be, for the tests of routes.

use std::net::{IpAddr, SocketAddr};

use prost::Message;

use crate::{
    handler::{Handler, Resource, Update},
    proto::workload::{
        self as wire, Address, ApplicationTunnel, GatewayAddress, LoadBalancing,
        NamespacedHostname, NetworkAddress, Port, PortList, TunnelProtocol, WorkloadStatus,
        address::Type, gateway_address::Destination,
    },
    workload::{Reader, Snapshot, Store, Workload},
};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn bytes(text: &str) -> bytes::Bytes {
    match ip(text) {
        IpAddr::V4(v4) => v4.octets().to_vec().into(),
        IpAddr::V6(v6) => v6.octets().to_vec().into(),
    }
}

/// A workload in the mesh named like its UID, in namespace `shop`, region r1, zone z1, node n1.
pub(super) fn workload(uid: &str, addresses: &[&str]) -> wire::Workload {
    wire::Workload {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        namespace: "shop".to_owned(),
        service_account: uid.to_owned(),
        addresses: addresses.iter().map(|ip| bytes(ip)).collect(),
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        node: "n1".to_owned(),
        locality: Some(wire::Locality {
            region: "r1".to_owned(),
            zone: "z1".to_owned(),
            subzone: String::new(),
        }),
        ..wire::Workload::default()
    }
}

/// Changes of a workload, for chaining.
pub(super) trait WorkloadExt: Sized {
    fn in_service(self, key: &str, port: u32, target: u32) -> Self;
    fn plain(self) -> Self;
    fn at(self, region: &str, zone: &str, node: &str) -> Self;
    fn on_network(self, network: &str) -> Self;
    fn weight(self, weight: u32) -> Self;
    fn unhealthy(self) -> Self;
    fn waypoint(self, reference: GatewayAddress) -> Self;
    fn tunnel(self, port: u32) -> Self;
}

impl WorkloadExt for wire::Workload {
    fn in_service(mut self, key: &str, port: u32, target: u32) -> Self {
        let list: &mut PortList = self.services.entry(key.to_owned()).or_default();
        if target > 0 {
            list.ports.push(port_of(port, target));
        }
        self
    }

    fn plain(mut self) -> Self {
        self.tunnel_protocol = TunnelProtocol::None.into();
        self
    }

    fn at(mut self, region: &str, zone: &str, node: &str) -> Self {
        self.node = node.to_owned();
        self.locality = Some(wire::Locality {
            region: region.to_owned(),
            zone: zone.to_owned(),
            subzone: String::new(),
        });
        self
    }

    fn on_network(mut self, network: &str) -> Self {
        self.network = network.to_owned();
        self
    }

    fn weight(mut self, weight: u32) -> Self {
        self.capacity = Some(weight);
        self
    }

    fn unhealthy(mut self) -> Self {
        self.status = WorkloadStatus::Unhealthy.into();
        self
    }

    fn waypoint(mut self, reference: GatewayAddress) -> Self {
        self.waypoint = Some(reference);
        self
    }

    fn tunnel(mut self, port: u32) -> Self {
        self.application_tunnel = Some(ApplicationTunnel { protocol: 1, port });
        self
    }
}

fn port_of(service_port: u32, target_port: u32) -> Port {
    Port {
        service_port,
        target_port,
        ..Port::default()
    }
}

/// A service in namespace `shop` with host name `NAME.shop`, port 80 and perhaps addresses.
pub(super) fn service(name: &str, vips: &[&str]) -> wire::Service {
    wire::Service {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        hostname: format!("{name}.shop"),
        addresses: vips
            .iter()
            .map(|vip| NetworkAddress {
                address: bytes(vip),
                ..NetworkAddress::default()
            })
            .collect(),
        ports: vec![port_of(80, 8080)],
        ..wire::Service::default()
    }
}

/// Changes of a service, for chaining.
pub(super) trait ServiceExt: Sized {
    fn port(self, port: u32, target: u32) -> Self;
    fn waypoint(self, reference: GatewayAddress) -> Self;
    fn preferring(self, mode: i32, scopes: &[wire::load_balancing::Scope]) -> Self;
}

impl ServiceExt for wire::Service {
    fn port(mut self, port: u32, target: u32) -> Self {
        self.ports.push(port_of(port, target));
        self
    }

    fn waypoint(mut self, reference: GatewayAddress) -> Self {
        self.waypoint = Some(reference);
        self
    }

    fn preferring(mut self, mode: i32, scopes: &[wire::load_balancing::Scope]) -> Self {
        self.load_balancing = Some(LoadBalancing {
            routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
            mode,
            ..LoadBalancing::default()
        });
        self
    }
}

/// A reference to the service or workload `HOSTNAME` in namespace `shop`.
pub(super) fn by_name(hostname: &str) -> GatewayAddress {
    GatewayAddress {
        destination: Some(Destination::Hostname(NamespacedHostname {
            namespace: "shop".to_owned(),
            hostname: hostname.to_owned(),
        })),
        hbone_mtls_port: 15008,
    }
}

pub(super) fn by_ip(address: &str) -> GatewayAddress {
    GatewayAddress {
        destination: Some(Destination::Address(NetworkAddress {
            address: bytes(address),
            ..NetworkAddress::default()
        })),
        hbone_mtls_port: 15008,
    }
}

pub(super) struct Mesh {
    store: Store,
    reader: Reader,
}

impl Mesh {
    pub(super) fn new() -> Self {
        let (store, reader) = Store::new(None);
        Self { store, reader }
    }

    pub(super) fn with(mut self, workload: wire::Workload) -> Self {
        let name = workload.uid.clone();
        self.put(&name, Type::Workload(workload));
        self
    }

    pub(super) fn with_service(mut self, service: wire::Service) -> Self {
        let name = format!("{}/{}", service.namespace, service.hostname);
        self.put(&name, Type::Service(service));
        self
    }

    fn put(&mut self, name: &str, record: Type) {
        let body = Address {
            r#type: Some(record),
        };
        let resources = [Resource::new(name, body.encode_to_vec())];
        assert_eq!(self.store.apply(Update::new(&resources, &[])), []);
    }

    pub(super) fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        self.reader.snapshot()
    }

    pub(super) fn workload(&self, uid: &str) -> std::sync::Arc<Workload> {
        std::sync::Arc::clone(self.snapshot().workload_by_uid(uid).unwrap())
    }
}
