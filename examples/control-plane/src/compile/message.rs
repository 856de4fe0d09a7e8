//! Small parts of workload API messages.

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use meshwright_xds_client::proto::workload::{
    GatewayAddress, NamespacedHostname, NetworkAddress, gateway_address,
};

/// The port of every waypoint: Istio's own lookup of it is a constant too.
const HBONE_PORT: u32 = 15008;

pub(super) fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

pub(super) fn host_address(network: &str, address: IpAddr) -> NetworkAddress {
    NetworkAddress {
        network: network.to_owned(),
        address: octets(address),
        length: None,
    }
}

/// A host address has no length; a network has one.
pub(super) fn network_address(network: &str, range: IpNet) -> NetworkAddress {
    let length = range.prefix_len();
    NetworkAddress {
        length: (length < range.max_prefix_len()).then_some(u32::from(length)),
        ..host_address(network, range.network())
    }
}

pub(super) fn gateway_by_host(namespace: &str, hostname: &str) -> GatewayAddress {
    GatewayAddress {
        destination: Some(gateway_address::Destination::Hostname(NamespacedHostname {
            namespace: namespace.to_owned(),
            hostname: hostname.to_owned(),
        })),
        hbone_mtls_port: HBONE_PORT,
    }
}

pub(super) fn gateway_by_address(network: &str, address: IpAddr) -> GatewayAddress {
    GatewayAddress {
        destination: Some(gateway_address::Destination::Address(host_address(
            network, address,
        ))),
        hbone_mtls_port: HBONE_PORT,
    }
}
