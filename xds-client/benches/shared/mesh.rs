//! The mesh that benchmarks load.

use meshwright_xds_client::proto::workload::{
    Address, Locality, NetworkAddress, Port, PortList, Service, TunnelProtocol, Workload,
    address::Type,
};

/// Endpoints of one service.
pub(crate) const REPLICAS: usize = 5;
const NODES: usize = 500;

fn ip(base: u32, n: usize) -> bytes::Bytes {
    let ip = base + u32::try_from(n).unwrap();
    ip.to_be_bytes().to_vec().into()
}

fn hostname(n: usize) -> String {
    format!("service-{n:05}.ns-{}.svc.cluster.local", n % 100)
}

/// A pod as istiod sends it.
pub(crate) fn workload(n: usize, revision: &str) -> (String, Address) {
    let app = n / REPLICAS;
    let namespace = format!("ns-{}", app % 100);
    let name = format!("service-{app:05}-6d4cf56db6-{n:05x}");
    let uid = format!("Kubernetes//Pod/{namespace}/{name}");
    let ports = PortList {
        ports: vec![Port {
            service_port: 80,
            target_port: 8080,
            ..Port::default()
        }],
    };
    let zone = format!("zone-{}", n % 3);
    let workload = Workload {
        uid: uid.clone(),
        name,
        namespace: namespace.clone(),
        addresses: vec![ip(0x0a00_0000, n)],
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        service_account: format!("service-{app:05}"),
        node: format!("node-{}", n % NODES),
        canonical_name: format!("service-{app:05}"),
        canonical_revision: revision.to_owned(),
        workload_name: format!("service-{app:05}"),
        cluster_id: "Kubernetes".to_owned(),
        services: [(format!("{namespace}/{}", hostname(app)), ports)].into(),
        locality: Some(Locality {
            region: "region-1".to_owned(),
            zone,
            ..Locality::default()
        }),
        ..Workload::default()
    };
    (uid, address(Type::Workload(workload)))
}

/// A service as istiod sends it.
pub(crate) fn service(n: usize) -> (String, Address) {
    let service = Service {
        name: format!("service-{n:05}"),
        namespace: format!("ns-{}", n % 100),
        hostname: hostname(n),
        addresses: vec![NetworkAddress {
            address: ip(0x6440_0000, n),
            ..NetworkAddress::default()
        }],
        ports: vec![Port {
            service_port: 80,
            target_port: 8080,
            ..Port::default()
        }],
        canonical: true,
        ..Service::default()
    };
    let name = format!("ns-{}/{}", n % 100, hostname(n));
    (name, address(Type::Service(service)))
}

fn address(record: Type) -> Address {
    Address {
        r#type: Some(record),
    }
}
